//! Markers between the phases of execution, for cycle and time reports.

/// A phase of a run, in the order they come. `Senders` to `StateRoot` repeat for every block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Hashing and indexing the witness.
    Witness,
    /// Decoding a block, checking its header and the roots over its body.
    Header,
    /// Recovering the senders of its transactions.
    Senders,
    /// Executing it.
    Execution,
    /// Receipts root, logs bloom and requests hash.
    Receipts,
    /// Applying the changes and computing the state root.
    StateRoot,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 6] =
        [Self::Witness, Self::Header, Self::Senders, Self::Execution, Self::Receipts, Self::StateRoot];

    /// Name for reports: lower case, no spaces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Witness => "witness",
            Self::Header => "header",
            Self::Senders => "senders",
            Self::Execution => "execution",
            Self::Receipts => "receipts",
            Self::StateRoot => "state-root",
        }
    }
}

/// Told when a phase begins and ends. The guest prints the zkVM's cycle-tracker lines, the host reads a clock.
pub trait PhaseSink {
    /// `phase` begins.
    fn begin(&mut self, phase: Phase);
    /// `phase` ends.
    fn end(&mut self, phase: Phase);
}

/// Ignores the markers.
impl PhaseSink for () {
    fn begin(&mut self, _phase: Phase) {}
    fn end(&mut self, _phase: Phase) {}
}

/// Runs `body` between the two markers of `phase`, whether it succeeds or not.
pub(crate) fn in_phase<T>(sink: &mut dyn PhaseSink, phase: Phase, body: impl FnOnce() -> T) -> T {
    sink.begin(phase);
    let result = body();
    sink.end(phase);
    result
}
