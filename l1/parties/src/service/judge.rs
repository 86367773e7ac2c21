//! What a vigilante cannot do itself: the rollup's part of looking into a claim.

use crate::types::Values;

/// What executing a batch gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// It was executed.
    Done {
        /// Commitment to the state after it.
        new_root: [u8; 32],
        /// True if every message that was due, a forced transaction or a deposit, is in it.
        has_messages: bool,
    },
    /// The state before it is not known yet: asked again later. Whoever never gets there is alarmed by the machine.
    NotYet,
}

/// The rollup, as a vigilante sees it. Asked about claims in any order, and about the same one again after a restart.
pub trait Judge {
    /// Hash of the batch that `data` encodes, as claims sign it.
    ///
    /// # Errors
    /// In words, why `data` is no batch.
    fn batch_hash(&mut self, data: &[u8]) -> Result<[u8; 32], String>;

    /// Executes the batch on the state with the claim's previous root. `height`: of the block that holds the claim; which messages
    /// were due is counted from there.
    ///
    /// # Errors
    /// In words, why it cannot be executed: the claim is wrong then. What is the judge's own trouble is [`Execution::NotYet`].
    fn execute(&mut self, values: &Values, data: &[u8], height: u32) -> Result<Execution, String>;

    /// True if the proof verifies for the claim's digest under the key whose hash is `verifier`, the one of the claim's epoch.
    fn verify(&mut self, verifier: &[u8; 32], values: &Values, proof: &[u8]) -> bool;
}
