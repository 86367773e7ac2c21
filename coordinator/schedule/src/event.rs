//! What the machine is told, what it asks for, and why it refuses.

use serde::{Deserialize, Serialize};

use crate::{
    Artifact, AttemptId, BatchId, ChainId, EffectId, Epoch, Hash, Kind, Stage, TenantId, Time, WorkerId,
};

/// Longest idempotency key and longest stored reason, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;

/// A batch as its owner submits it. The payload is in the store already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Who pays.
    pub tenant: TenantId,
    /// The same key with the same content gives the same batch; at most [`TEXT_BYTES_MAX`] bytes.
    pub key: String,
    /// The rollup; belongs to the tenant that used it first.
    pub chain: ChainId,
    /// Place in the rollup's history, from 0, without gaps.
    pub sequence: u64,
    /// Hash of the batch's bytes, which the store holds under [`Spec::holder`].
    pub payload: Hash,
    /// Size of the payload.
    pub payload_bytes: u64,
    /// Expected work of the execution, in gas.
    pub units: u64,
    /// Version of programs and keys; only workers of this version get its tasks.
    pub version: u32,
    /// Higher goes first.
    pub priority: u8,
    /// When the proof is wanted.
    pub deadline: Option<Time>,
    /// Whether the batch is worthless after the deadline: it then fails as soon as that is certain.
    pub deadline_is_hard: bool,
}

impl Spec {
    /// Under what name the store holds the payload.
    pub fn holder(&self) -> crate::Holder {
        let mut hasher = blake3::Hasher::new_derive_key("assay-schedule 1 intake");
        hasher.update(&self.tenant.0.to_le_bytes());
        hasher.update(self.key.as_bytes());
        crate::Holder::Intake(Hash(*hasher.finalize().as_bytes()))
    }
}

/// What a worker says of itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// What it can do; at most one entry for each kind.
    pub kinds: Vec<Kind>,
    /// Version of its programs and keys.
    pub version: u32,
    /// Memory it may use.
    pub memory_bytes: u64,
    /// Tasks at the same time, at least 1.
    pub slots: u32,
}

/// One output that a worker claims to have published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// What the bytes hash to.
    pub hash: Hash,
    /// Its size.
    pub bytes: u64,
    /// Work that its consumer has, in units of that kind. Only orders tasks; a lie costs time, nothing else.
    pub units: u64,
}

/// How an attempt ended, as its worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[serde(rename_all = "snake_case")]
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
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// Answer to `Verify`, `Check` or `Audit`.
    Verified {
        /// The effect that is answered.
        effect: EffectId,
        /// What was found.
        verdict: Verdict,
    },
    /// Answer to `Settle`: it is final on Bitcoin.
    Settled {
        /// The effect that is answered.
        effect: EffectId,
    },
    /// Answer to `Settle`: nothing has been posted under its key and nothing will be.
    SettleFailed {
        /// The effect that is answered.
        effect: EffectId,
        /// Whether another try is useless.
        permanent: bool,
        /// One line.
        reason: String,
    },
    /// Answer to all other effects: carried out.
    Done {
        /// The effect that is answered.
        effect: EffectId,
    },
    /// The state of queue and store has changed.
    Store {
        /// Whether they can be reached; nothing is sent while they cannot.
        available: bool,
        /// Whether they refuse more data.
        full: bool,
    },
    /// Time has passed. Wanted at least every few seconds.
    Tick,
}

/// A request to the shell. Carrying it out twice has the effect of once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// The answer carries it.
    pub id: EffectId,
    /// The leader's term; queue and store refuse an effect of a lower one than they have seen.
    pub epoch: Epoch,
    /// The batch it serves.
    pub batch: BatchId,
    /// What to do.
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Send a task to a worker. The queue drops it if the attempt is known or revoked.
    Dispatch {
        /// The try, and the fencing token of what it publishes.
        attempt: AttemptId,
        /// To whom.
        worker: WorkerId,
        /// To which of its sessions.
        session: u64,
        /// Hash of kind, version and inputs: what makes two tasks the same.
        key: Hash,
        /// What to do.
        stage: Stage,
        /// Its inputs, in order.
        inputs: Vec<Artifact>,
        /// Memory set aside for it.
        memory_bytes: u64,
    },
    /// Fence an attempt for good: refuse its dispatch and whatever it publishes from now on, delete what it has
    /// published, tell the worker to stop.
    Revoke {
        /// The try.
        attempt: AttemptId,
        /// Who may still be at it.
        worker: WorkerId,
    },
    /// Read an attempt's outputs, hash them, check their content.
    Verify {
        /// The try.
        attempt: AttemptId,
        /// What it was to do.
        stage: Stage,
        /// Its inputs.
        inputs: Vec<Artifact>,
        /// Its outputs.
        outputs: Vec<Artifact>,
    },
    /// Read one artifact and hash it: a worker says that it is lost.
    Audit {
        /// The artifact.
        artifact: Artifact,
        /// The try that needs it.
        attempt: AttemptId,
    },
    /// Check the Groth16 proof against the batch's own statement.
    Check {
        /// The proof.
        proof: Artifact,
    },
    /// Post the proof on Bitcoin. Idempotent under the batch.
    Settle {
        /// The rollup.
        chain: ChainId,
        /// Place in its history.
        sequence: u64,
        /// The proof.
        proof: Artifact,
    },
    /// Delete an artifact.
    Release {
        /// The artifact.
        artifact: Artifact,
    },
    /// Tell the owner that the batch has ended (callback, event stream).
    Notify {
        /// How.
        phase: crate::Phase,
    },
}

/// Why an event is refused; the state is then unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No coordinator leads yet.
    #[error("no coordinator leads: TakeOver must come first")]
    NoLeader,
    /// Another coordinator has led since.
    #[error("epoch {got} is not higher than {have}")]
    StaleEpoch {
        /// The highest seen.
        have: Epoch,
        /// What was given.
        got: Epoch,
    },
    /// A limit is reached.
    #[error("{what} is limited to {max}")]
    Limit {
        /// What.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// The idempotency key was used for another batch.
    #[error("the idempotency key belongs to batch {batch}, whose content differs")]
    KeyReused {
        /// That batch.
        batch: BatchId,
    },
    /// The rollup belongs to another tenant.
    #[error("chain {chain} belongs to another tenant")]
    ForeignChain {
        /// The rollup.
        chain: ChainId,
    },
    /// A gap or a repetition in the rollup's history.
    #[error("chain {chain} goes on with batch number {expected}, got {got}")]
    Sequence {
        /// The rollup.
        chain: ChainId,
        /// The next number.
        expected: u64,
        /// What was given.
        got: u64,
    },
    /// The fold proof of the rollup's settled history is lost.
    #[error("the settled fold proof of chain {chain} is lost")]
    HistoryLost {
        /// The rollup.
        chain: ChainId,
    },
    /// The deadline has passed already.
    #[error("the deadline {deadline:?} has passed")]
    DeadlinePassed {
        /// The deadline.
        deadline: Time,
    },
    /// No such batch, or another tenant's.
    #[error("batch {batch} is not known")]
    UnknownBatch {
        /// The batch.
        batch: BatchId,
    },
    /// The batch has ended.
    #[error("batch {batch} has ended")]
    Ended {
        /// The batch.
        batch: BatchId,
    },
    /// The batch is being settled, which cannot be undone.
    #[error("batch {batch} is being settled")]
    Settling {
        /// The batch.
        batch: BatchId,
    },
    /// No such worker, or another session of it: it has to register.
    #[error("worker {worker} is not registered with this session")]
    UnknownWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// A profile that can do nothing.
    #[error("worker {worker} offers {what}")]
    Profile {
        /// The worker.
        worker: WorkerId,
        /// What is wrong.
        what: &'static str,
    },
    /// The attempt is over: taken back, lost or superseded. Whatever it published is deleted.
    #[error("attempt {attempt} is not outstanding on worker {worker}")]
    StaleAttempt {
        /// The attempt.
        attempt: AttemptId,
        /// Who reports.
        worker: WorkerId,
    },
    /// The attempt's result is there already.
    #[error("attempt {attempt} has reported already")]
    RepeatedResult {
        /// The attempt.
        attempt: AttemptId,
    },
    /// No such effect is outstanding.
    #[error("effect {effect} is not outstanding")]
    UnknownEffect {
        /// The effect.
        effect: EffectId,
    },
    /// The answer does not fit the effect.
    #[error("effect {effect} takes another answer")]
    WrongAnswer {
        /// The effect.
        effect: EffectId,
    },
}

/// How a caller treats an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The same event may be accepted later.
    Transient,
    /// It never will; at-least-once delivery makes these common, and they are acknowledged and dropped.
    Permanent,
}

impl Error {
    /// Whether trying again can help.
    pub fn class(&self) -> Class {
        match self {
            Error::NoLeader | Error::Limit { .. } | Error::UnknownWorker { .. } | Error::Sequence { .. } => {
                Class::Transient
            }
            _ => Class::Permanent,
        }
    }
}
