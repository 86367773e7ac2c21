//! What the machine is told.

use serde::{Deserialize, Serialize};

use crate::{Artifact, AttemptId, BatchId, EffectId, Epoch, Hash, Kind, Spec, TenantId, WorkerId};

/// What a worker says of itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it can do; at most one entry for each kind.
    pub kinds: Vec<Kind>,
    /// Version of its programs and keys.
    pub version: u32,
    /// Memory it may use.
    pub memory_bytes: u64,
    /// Tasks at the same time, controllers not counted.
    pub slots: u32,
    /// Controllers ([`Kind::is_controller`]) at the same time. They mostly wait for parts, so they have places of their
    /// own: else a worker with one slot would wait for itself.
    #[serde(default)]
    pub controllers: u32,
}

/// One output that a worker claims to have published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// What the bytes hash to.
    pub hash: Hash,
    /// Its size.
    pub bytes: u64,
    /// Work that its consumer has, in units of that kind: of a witness, the expected cycles of its run. Only orders
    /// tasks; a lie costs time, nothing else.
    pub units: u64,
}

/// A part that a running controller asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// [`Kind::Shard`] or [`Kind::Reduce`].
    pub kind: Kind,
    /// Hash of everything that its result depends on: a part of a key that the controller's task has had proved before
    /// is not proved again.
    pub key: Hash,
    /// Its inputs, in order; which is what is a matter between controller and prover. Each is either published by the
    /// asking attempt under its own holder, from number [`Holder::INPUTS`](crate::Holder::INPUTS) on, or an output of
    /// another part as it was delivered.
    pub inputs: Vec<Artifact>,
    /// Expected work, in units of the kind.
    pub units: u64,
}

/// How an attempt ended, as its worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Report {
    /// Finished; the outputs are published.
    Finished {
        /// In order.
        outputs: Vec<Output>,
    },
    /// May work another time.
    Transient {
        /// One line.
        reason: String,
    },
    /// Memory did not suffice.
    OutOfMemory,
    /// An input is missing or does not hash to its name.
    InputLost {
        /// The input, counted as in the dispatch.
        input: u32,
    },
    /// The task can never succeed. Believed when a second worker says so too, or at the last try.
    Permanent {
        /// One line.
        reason: String,
    },
}

/// What the coordinator's own check of an artifact found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verdict {
    /// All artifacts were read.
    Read {
        /// What the bytes of each hash to.
        hashes: Vec<Hash>,
        /// Whether their content is right for the task (proof verifies, witness re-executes, batch's statement matches).
        valid: bool,
    },
    /// An artifact is not in the store.
    Missing,
    /// Nothing can be said about the content here: another build made the batch or the result, or what was asked for cannot
    /// be read. Nobody is to blame; another worker may do better.
    Incomparable {
        /// One line.
        reason: String,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// This coordinator holds the leader's lease of `epoch` and begins to act: a start, a restart or a takeover.
    TakeOver {
        /// Higher than every epoch before.
        epoch: Epoch,
    },
    /// A batch is submitted.
    Submit {
        /// The batch.
        spec: Spec,
    },
    /// A batch is no longer wanted.
    Cancel {
        /// Whose it is.
        tenant: TenantId,
        /// The batch.
        batch: BatchId,
    },
    /// A worker process registers.
    Join {
        /// Who.
        worker: WorkerId,
        /// Differs with each start of the process.
        session: u64,
        /// What it can do.
        profile: Profile,
    },
    /// A worker is alive.
    Heartbeat {
        /// Who.
        worker: WorkerId,
        /// Its session.
        session: u64,
        /// Attempts it works on or whose result it still has to report.
        running: Vec<AttemptId>,
    },
    /// A worker goes away in good order.
    Leave {
        /// Who.
        worker: WorkerId,
        /// Its session.
        session: u64,
    },
    /// An attempt ended.
    Result {
        /// Who says so.
        worker: WorkerId,
        /// Its session.
        session: u64,
        /// The attempt.
        attempt: AttemptId,
        /// How.
        report: Report,
    },
    /// A running controller asks for parts, whose inputs are published. Repeated until each has been delivered.
    Spawn {
        /// Who asks.
        worker: WorkerId,
        /// Its session.
        session: u64,
        /// The controller's attempt.
        attempt: AttemptId,
        /// At most [`Limits::spawn_max`](crate::Limits::spawn_max).
        parts: Vec<Part>,
    },
    /// A running controller cannot read an output of a part that was delivered to it.
    PartLost {
        /// Who says so.
        worker: WorkerId,
        /// Its session.
        session: u64,
        /// The controller's attempt.
        attempt: AttemptId,
        /// The part.
        key: Hash,
        /// Which of its outputs.
        output: u32,
    },
    /// Answer to `Verify`, `Check` or `Audit`.
    Verified {
        /// The work that is answered.
        effect: EffectId,
        /// What was found.
        verdict: Verdict,
    },
    /// Answer to `Settle`: it is final on Bitcoin.
    Settled {
        /// The work that is answered.
        effect: EffectId,
    },
    /// Answer to `Settle`: nothing has been posted under its key and nothing will be.
    SettleFailed {
        /// The work that is answered.
        effect: EffectId,
        /// Whether another try is useless.
        permanent: bool,
        /// One line.
        reason: String,
    },
    /// Answer to `Release` and `Fence`: carried out. Those that were answered before are passed over.
    Done {
        /// The work that is answered.
        effects: Vec<EffectId>,
    },
    /// The state of queue and store has changed.
    Store {
        /// Whether they can be reached; nothing is sent while they cannot.
        available: bool,
        /// Whether they refuse more data, or are about to.
        full: bool,
    },
    /// Time has passed. Wanted at least every few seconds.
    Tick,
}

impl Event {
    /// The worker that says this; `None` for events of coordinators.
    pub fn worker(&self) -> Option<(WorkerId, u64)> {
        match self {
            Event::Join { worker, session, .. }
            | Event::Heartbeat { worker, session, .. }
            | Event::Leave { worker, session }
            | Event::Result { worker, session, .. }
            | Event::Spawn { worker, session, .. }
            | Event::PartLost { worker, session, .. } => Some((*worker, *session)),
            _ => None,
        }
    }
}
