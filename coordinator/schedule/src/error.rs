//! Why an event is refused.

use crate::{AttemptId, BatchId, ChainId, EffectId, Epoch, Hash, Time, WorkerId};

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
    /// The batch does not begin where the batch before it ends.
    #[error("chain {chain} goes on from state {expected}, got {got}")]
    State {
        /// The rollup.
        chain: ChainId,
        /// Commitment to the state after the last batch that was taken.
        expected: Hash,
        /// What was given.
        got: Hash,
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
    /// A later session of this worker is here: this one was delivered late, or a second process has the same key.
    #[error("worker {worker} is here with a later session")]
    StaleSession {
        /// Who joins.
        worker: WorkerId,
    },
    /// The attempt is over: taken back, lost or superseded. Whatever it published is deleted.
    #[error("attempt {attempt} is not outstanding on worker {worker}")]
    StaleAttempt {
        /// The attempt.
        attempt: AttemptId,
        /// Who reports.
        worker: WorkerId,
    },
    /// Only tasks of kind block and fold have parts.
    #[error("attempt {attempt} is no controller's")]
    NotController {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The controller has asked for no part of this key, or the part has no such output.
    #[error("attempt {attempt} has no part {key} with an output {output}")]
    UnknownPart {
        /// The controller's attempt.
        attempt: AttemptId,
        /// The part.
        key: Hash,
        /// The output.
        output: u32,
    },
    /// The attempt's result is there already.
    #[error("attempt {attempt} has reported already")]
    RepeatedResult {
        /// The attempt.
        attempt: AttemptId,
    },
    /// No such work is outstanding.
    #[error("work {effect} is not outstanding")]
    UnknownEffect {
        /// The effect.
        effect: EffectId,
    },
    /// The answer does not fit the work.
    #[error("work {effect} takes another answer")]
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
