//! What the machine asks for: messages, which the queue keeps with the log, and work for the coordinator's own shell.

use serde::{Deserialize, Serialize};

use crate::{Artifact, AttemptId, BatchId, ChainId, EffectId, Epoch, Facts, Hash, Phase, Stage, WorkerId};

/// A request to the shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// Never used twice. The answer to work carries it.
    pub id: EffectId,
    /// The leader's term.
    pub epoch: Epoch,
    /// The batch it serves.
    pub batch: BatchId,
    /// What to do.
    pub action: Action,
}

impl Effect {
    /// Whether it goes into the queue together with the event that caused it.
    pub fn is_message(&self) -> bool {
        matches!(self.action, Action::Message(_))
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Committed with the log, atomically: exactly once, never answered, never pending.
    Message(Message),
    /// Done after the commit, at least once; pending until an event answers it. Twice has the effect of once.
    Work(Work),
}

/// Whose mailbox a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipient {
    /// A worker's.
    Worker {
        /// Who.
        worker: WorkerId,
        /// In which of its sessions.
        session: u64,
    },
    /// That of everyone who follows the batch.
    Subscribers {
        /// The batch.
        batch: BatchId,
    },
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// To a worker: a task.
    Dispatch(Box<Dispatch>),
    /// To a controller's worker: a part that it asked for is done.
    Deliver {
        /// Who asked.
        worker: WorkerId,
        /// In which of its sessions.
        session: u64,
        /// The controller's attempt.
        attempt: AttemptId,
        /// The part.
        key: Hash,
        /// Its outputs. They stay until the controller's task is done.
        outputs: Vec<Artifact>,
    },
    /// To a controller's worker: an input of a part that it asked for is lost. It publishes all inputs of the part
    /// again, under numbers it has not used, and asks again.
    Respawn {
        /// Who asked.
        worker: WorkerId,
        /// In which of its sessions.
        session: u64,
        /// The controller's attempt.
        attempt: AttemptId,
        /// The part.
        key: Hash,
    },
    /// To a worker: stop an attempt. What it publishes and reports from now on does not count.
    Revoke {
        /// Who may still be at it.
        worker: WorkerId,
        /// In which of its sessions.
        session: u64,
        /// The attempt.
        attempt: AttemptId,
        /// Whether its result did not verify: the device that made it is not to be trusted.
        #[serde(default)]
        is_wrong: bool,
    },
    /// To subscribers: the batch is in another phase. The last one is terminal, and the only one that is.
    Notify {
        /// The phase.
        phase: Phase,
    },
}

/// What an input is to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The batch's bytes.
    Payload,
    /// What a run's block program reads.
    Witness,
    /// The block proof of a run.
    BlockProof {
        /// The run.
        run: u32,
    },
    /// The fold proof of the batch before.
    PreviousFold,
    /// The batch's fold proof.
    FoldProof,
    /// The wrap proof.
    WrapProof,
    /// Of a part; its place says which.
    Part,
}

/// What a task reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What it is.
    pub role: Role,
    /// Where it is.
    pub artifact: Artifact,
}

/// A task, with everything that its worker has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispatch {
    /// The try, and the fencing token of what it publishes: output `k` under holder `Attempt(attempt, k)`.
    pub attempt: AttemptId,
    /// To whom.
    pub worker: WorkerId,
    /// To which of its sessions.
    pub session: u64,
    /// The batch.
    pub batch: BatchId,
    /// What to do.
    pub stage: Stage,
    /// What makes two tasks the same: of a part its key, else a hash of kind, version and inputs.
    pub key: Hash,
    /// What it reads, in order. Of a fold: the block proofs by run, then the previous fold proof unless the batch is the
    /// rollup's first.
    pub inputs: Vec<Input>,
    /// Expected work, in units of the kind.
    pub units: u64,
    /// Memory set aside for it.
    pub memory_bytes: u64,
    /// The most outputs it may have.
    pub outputs_max: u32,
    /// The batch.
    pub facts: Facts,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// Read an attempt's outputs, hash them, check their content. Answer: `Verified`.
    Verify {
        /// The try.
        attempt: AttemptId,
        /// What it was to do.
        stage: Stage,
        /// As in its dispatch.
        key: Hash,
        /// Its inputs, by now perhaps under other holders.
        inputs: Vec<Input>,
        /// Its outputs.
        outputs: Vec<Artifact>,
        /// The batch.
        facts: Facts,
    },
    /// Read one artifact and hash it: a worker says that it is lost. Answer: `Verified`.
    Audit {
        /// The artifact.
        artifact: Artifact,
        /// The try that needs it.
        attempt: AttemptId,
    },
    /// Check the Groth16 proof against the batch's own statement. Answer: `Verified`.
    Check {
        /// The proof.
        proof: Artifact,
        /// The batch.
        facts: Facts,
    },
    /// Post the proof on Bitcoin. Idempotent under the batch. Answer: `Settled` or `SettleFailed`.
    Settle {
        /// The rollup.
        chain: ChainId,
        /// Place in its history.
        sequence: u64,
        /// The proof.
        proof: Artifact,
    },
    /// Let go of artifacts, each by its holder. Answer: `Done`.
    Release {
        /// At most [`LIST_MAX`].
        artifacts: Vec<Artifact>,
    },
    /// Refuse for good whatever these attempts publish from now on, and delete what they have published. Answer: `Done`.
    Fence {
        /// At most [`LIST_MAX`].
        attempts: Vec<AttemptId>,
    },
}

/// Most artifacts or attempts that one piece of work names.
pub const LIST_MAX: usize = 256;

impl Message {
    /// Whose mailbox it goes to, if it serves `batch`.
    pub fn recipient(&self, batch: BatchId) -> Recipient {
        match self {
            Message::Dispatch(dispatch) => {
                Recipient::Worker { worker: dispatch.worker, session: dispatch.session }
            }
            Message::Deliver { worker, session, .. }
            | Message::Respawn { worker, session, .. }
            | Message::Revoke { worker, session, .. } => {
                Recipient::Worker { worker: *worker, session: *session }
            }
            Message::Notify { .. } => Recipient::Subscribers { batch },
        }
    }
}
