//! Work that the schedule asks the coordinator itself for: checking results, settling, letting go of artifacts.
//!
//! What needs the zkVM or Bitcoin stands behind traits; the binary supplies it. Every piece of work is repeated until it
//! is answered, here or on the coordinator that leads next, so all of it is idempotent.

mod run;

use assay_schedule::{BatchId, ChainId, Facts, Hash, Role, Spec, Stage};
use async_trait::async_trait;

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

/// Checks results. Called on a thread that may block; must not panic, whatever it is given.
pub trait Verifier: Send + Sync + 'static {
    /// Whether the verification of a task reads the task's inputs too.
    fn needs_inputs(&self, claim: &Claim) -> bool;

    /// Whether `outputs` are a right result of the task. `inputs` are there if they were asked for.
    fn verify(&self, claim: &Claim, inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> bool;

    /// Whether `proof` states what the batch says.
    fn check(&self, facts: &Facts, payload: &[u8], proof: &[u8]) -> bool;
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

/// Why a settlement did not happen: nothing has been posted, and nothing will be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SettleError {
    /// Whether another try is useless.
    pub is_permanent: bool,
    /// One line.
    pub reason: String,
}

/// Posts proofs.
#[async_trait]
pub trait Settler: Send + Sync + 'static {
    /// Posts a proof and waits until it is final. Idempotent under the batch; may be dropped half-way and called again,
    /// also in another process.
    ///
    /// # Errors
    /// [`SettleError`].
    async fn settle(&self, settlement: &Settlement) -> Result<Vec<NewFile>, SettleError>;
}
