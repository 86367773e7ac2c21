//! A seeded simulator: the machine in a world of faults, with invariants checked at every step.
//!
//! The world has two coordinators with wrong clocks, a queue (lease, fenced log, inbox, mailboxes), a store, workers,
//! clients and a settlement layer. Faults: workers killed, paused, partitioned, lying (about results, and as controllers
//! about inputs of parts), talking nonsense; artifacts corrupted when published and at rest; messages duplicated, delayed
//! (and so reordered), dropped; coordinators killed at any point, before and after a commit and in the middle of the work,
//! or paused so long that another takes over; queue and store unreachable or full. Faults end after a while, and then
//! everything must come to rest. "Content" is a 64-bit number computed from the contents of the inputs, so that the
//! simulator knows the only right result of everything.
//!
//! At each takeover the log is replayed, which must give the machine that the last leader had.
//!
//! Reading order: [`Options`], [`run`], then `world` (time, messages), `coordinators`, `workers`, `checks`.

mod checks;
mod clients;
mod coordinators;
mod faults;
mod oracle;
mod queue;
mod resources;
pub mod rng;
mod workers;
mod world;

use crate::Weak;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything random follows from it.
    pub seed: u64,
    /// Batches to bring to an end, at least 1.
    pub batches: u32,
    /// What to break on purpose.
    pub weak: Weak,
    /// Whether resources forget to refuse deposed coordinators and revoked attempts.
    pub weak_fencing: bool,
}

/// What came of a simulation in which all invariants held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Batches taken.
    pub batches: u32,
    /// Of these, settled.
    pub settled: u32,
    /// Failed for a reason that the simulator knows, or cancelled.
    pub failed: u32,
    /// Steps of the machine.
    pub steps: u64,
    /// Takeovers, restarts included.
    pub takeovers: u64,
    /// Log records replayed at takeovers.
    pub replayed: u64,
    /// Faults injected.
    pub faults: u64,
    /// Results of parts that were accepted.
    pub parts: u64,
    /// Results of other tasks that were accepted.
    pub tasks: u64,
    /// Finished tasks that were done again because their output was corrupted at rest, or proved from a lie.
    pub redone_lost: u64,
    /// Parts that a later attempt of their controller found done.
    pub found_done: u64,
    /// Digest of everything that happened: equal for equal seeds.
    pub trace: u64,
}

impl Summary {
    /// Adds up.
    pub fn add(&mut self, other: &Summary) {
        self.batches += other.batches;
        self.settled += other.settled;
        self.failed += other.failed;
        self.steps += other.steps;
        self.takeovers += other.takeovers;
        self.replayed += other.replayed;
        self.faults += other.faults;
        self.parts += other.parts;
        self.tasks += other.tasks;
        self.redone_lost += other.redone_lost;
        self.found_done += other.found_done;
        self.trace = rng::mix(self.trace ^ other.trace);
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, step {step}, {at_ms} ms: {what}")]
pub struct Violation {
    /// Replays it.
    pub seed: u64,
    /// Steps of the machine so far.
    pub step: u64,
    /// Simulated time.
    pub at_ms: u64,
    /// Which one.
    pub what: String,
}

/// Runs one simulation to its end.
///
/// # Errors
/// The first [`Violation`].
pub fn run(options: Options) -> Result<Summary, Violation> {
    let mut world = world::World::new(options);
    let result = world.run();
    result.map_err(|what| Violation {
        seed: options.seed,
        step: world.summary.steps,
        at_ms: world.now,
        what,
    })?;
    Ok(world.summary)
}
