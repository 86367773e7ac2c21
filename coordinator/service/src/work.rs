//! Work that the schedule asks the coordinator itself for: checking results, settling, letting go of artifacts.
//!
//! What needs the zkVM or Bitcoin stands behind traits; the binary supplies it. Every piece of work is repeated until it
//! is answered, here or on the coordinator that leads next, so all of it is idempotent.

mod run;

use assay_schedule::{BatchId, ChainId, Facts, Hash, Role, Spec, Stage};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::run::{Executor, WorkLimits};

/// What is known of a batch from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchFacts {
    /// The rollup.
    pub chain: ChainId,
    /// Commitment to the state before the batch.
    pub from: [u8; 32],
    /// Commitment to the state after it.
    pub to: [u8; 32],
    /// Expected work, in gas.
    pub units: u64,
    /// Version of the programs and keys that prove it.
    pub version: u32,
}

/// Why bytes are no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BatchRefusal {
    /// One line, for the batch's owner.
    pub reason: String,
}

/// Reads batches. Called on a thread that may block.
pub trait BatchReader: Send + Sync + 'static {
    /// Checks a batch as far as that is possible without proving it.
    ///
    /// # Errors
    /// [`BatchRefusal`]. Must not panic, whatever the bytes are.
    fn read(&self, bytes: &[u8]) -> Result<BatchFacts, BatchRefusal>;
}

/// A task whose result is to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What was to be done.
    pub stage: Stage,
    /// Of a part, the key under which it was asked for.
    pub key: Hash,
    /// What the inputs are, in order.
    pub inputs: Vec<Role>,
    /// The batch.
    pub facts: Facts,
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Judgement {
    /// It is what was asked for.
    Right,
    /// It is not: whoever made it is to blame, and gets a strike.
    Wrong {
        /// One line, for operators.
        reason: String,
    },
    /// That cannot be said here: the batch or the result is another build's, or what was asked for cannot be read. Nobody is
    /// to blame, and another worker is asked.
    Incomparable {
        /// One line, for operators and the batch's owner.
        reason: String,
    },
}

impl Judgement {
    /// Right or, for this reason, wrong.
    pub fn right_if(is_right: bool, reason: &str) -> Self {
        match is_right {
            true => Self::Right,
            false => Self::Wrong { reason: reason.to_owned() },
        }
    }
}

/// Checks results. Called on a thread that may block; must not panic, whatever it is given.
pub trait Verifier: Send + Sync + 'static {
    /// How many of the task's inputs the check of its result reads, from the first on; more than there are: all.
    fn inputs_read(&self, claim: &Claim) -> usize;

    /// Why batches of this version are for another coordinator to check and to settle; `None`: they are this one's. Asked before
    /// anything is read. Work on such a batch is left alone until a coordinator leads that takes it.
    fn other_version(&self, version: u32) -> Option<String> {
        let _ = version;
        None
    }

    /// What `outputs` are as a result of the task. `inputs` are as many as [`Verifier::inputs_read`] asks for.
    fn verify(&self, claim: &Claim, inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Judgement;

    /// Whether `proof` states what the batch says.
    fn check(&self, facts: &Facts, payload: &[u8], proof: &[u8]) -> Judgement;
}

/// What is to be settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The batch: settling it twice has the effect of once.
    pub batch: BatchId,
    /// The batch as submitted; names the rollup and the place in it.
    pub spec: Spec,
    /// The batch's bytes.
    pub payload: Vec<u8>,
    /// The verified proof.
    pub proof: Vec<u8>,
}

/// A file for the batch's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Letters, digits, `.`, `_`, `-`; at most 64.
    pub name: String,
    /// Content.
    pub bytes: Vec<u8>,
}

/// What of a batch that is to be settled cannot be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its bytes, which nobody can bring back.
    Payload,
    /// Its proof, which can be made again.
    Proof,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Payload => "the payload is lost",
            Self::Proof => "the proof is lost",
        })
    }
}

/// Why a settlement did not happen: nothing has been posted, and nothing will be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SettleError {
    /// Whether another try is useless.
    pub is_permanent: bool,
    /// One line.
    pub reason: String,
}

/// Where a settler keeps what it has posted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Drawn when it was begun.
    pub id: Hash,
    /// Where it is, for people.
    pub place: String,
}

/// Posts proofs.
#[async_trait]
pub trait Settler: Send + Sync + 'static {
    /// The ledger that this settler continues. The first coordinator of a deployment to lead writes its own into the state, and
    /// from then on only those lead that continue that one: another would settle again what is settled there. `None`: it
    /// keeps nothing that another coordinator could lack.
    fn ledger(&self) -> Option<Ledger> {
        None
    }

    /// Whether the settler's ledger has the history of this rollup, of which batches are settled. Asked before a state that
    /// names no ledger is bound to this one.
    fn has_trunk(&self, chain: ChainId) -> bool {
        let _ = chain;
        true
    }

    /// Posts a proof and waits until it is final. Idempotent under the batch; may be dropped half-way and called again,
    /// also in another process.
    ///
    /// # Errors
    /// [`SettleError`], and only if nothing has been posted for the batch, by this process or another, and nothing will be: the
    /// schedule may then cancel it or let it fail. While something may be out, or nobody can say, this does not return.
    async fn settle(&self, settlement: &Settlement) -> Result<Vec<NewFile>, SettleError>;

    /// Called in the place of [`Settler::settle`] when what it needs cannot be read any more: an earlier call may have posted
    /// the batch. If that is final, the files that can still be made.
    ///
    /// # Errors
    /// As [`Settler::settle`], under the same condition; this provided method is for settlers that always meet it.
    async fn settle_lost(
        &self,
        batch: BatchId,
        spec: &Spec,
        lost: Lost,
    ) -> Result<Vec<NewFile>, SettleError> {
        let _ = (batch, spec);
        Err(SettleError { is_permanent: lost == Lost::Payload, reason: lost.to_string() })
    }
}
