//! The rollup's part of a vigilante's work: executes the batches that claims commit to, and verifies their proofs.
//!
//! Everything comes from Bitcoin: the batch's data and proof (found by the service), and the forced transactions that
//! were due. What is told beforehand is the genesis, and the verifying keys that the policies name, one for each
//! epoch; whoever only reads may do without.

mod forced;
mod states;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use ark_bn254::Bn254;
use ark_groth16::{Groth16, PreparedVerifyingKey, VerifyingKey};
use ark_snark::SNARK;
use assay_l1::envelope::tag;
use assay_l1::BitcoinBackend;
use assay_l1_parties::service::{Execution, Judge};
use assay_l1_parties::{Values, DIGEST, NEW_ROOT, PREV_ROOT};
use assay_l1_signer::policy::Policy;
use assay_lvm::batch::hash_of_data;
use assay_lvm::core::ChainState;
use assay_lvm::Chain;

pub use self::forced::ForcedRules;
use self::forced::{ForcedQueue, Verdict};
use self::states::States;
pub use self::states::StatesError;
use crate::proved;
use crate::shell::one_line;
use crate::statement;
use crate::verify::verifying_key_digest;

/// Why there is no judge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// The policy's trunk does not begin at the rollup's genesis.
    #[error("the genesis has the commitment {genesis}, but the policy's trunk begins at {start}: give the rollup's genesis")]
    Genesis {
        /// Of the genesis, hex.
        genesis: String,
        /// The policy's, hex.
        start: String,
    },
    /// There are verifying keys, and none of them is the one that a policy names.
    #[error("a policy names the verifying key with the hash {expected}, those given have: {got}: give that one besides (--vk)")]
    Key {
        /// The keys', hex.
        got: String,
        /// The policy's, hex.
        expected: String,
    },
    /// No policy names the key.
    #[error("no policy names the verifying key with the hash {got}, they name {expected}: leave it out, or give its policy besides (--policy)")]
    Surplus {
        /// The key's, hex.
        got: String,
        /// The policies', hex.
        expected: String,
    },
    /// The policies are of different trunks or begin at different states.
    #[error("the policies are not of one trunk")]
    Policies,
    /// The genesis has no state.
    #[error("the genesis has no state")]
    NoState,
    /// The folder of states.
    #[error(transparent)]
    States(#[from] StatesError),
}

/// The keys by their hashes: those that the policies name, all of them and no others, or none at all.
fn named_keys(
    vks: &[VerifyingKey<Bn254>],
    policies: &[Policy],
) -> Result<BTreeMap<[u8; 32], PreparedVerifyingKey<Bn254>>, JudgeError> {
    let list = |hashes: &BTreeSet<[u8; 32]>| hashes.iter().map(hex::encode).collect::<Vec<_>>().join(", ");
    let named: BTreeSet<[u8; 32]> = policies.iter().map(|policy| policy.verifier_commitment).collect();
    let given: BTreeSet<[u8; 32]> = vks.iter().map(verifying_key_digest).collect();
    if let Some(surplus) = given.difference(&named).next() {
        return Err(JudgeError::Surplus { got: hex::encode(surplus), expected: list(&named) });
    }
    match named.difference(&given).next() {
        Some(lacking) if !given.is_empty() => {
            Err(JudgeError::Key { got: list(&given), expected: hex::encode(lacking) })
        }
        _ => Ok(vks
            .iter()
            .map(|vk| (verifying_key_digest(vk), PreparedVerifyingKey::from(vk.clone())))
            .collect()),
    }
}

/// Executes and verifies, as [`Judge`] asks.
pub struct RollupJudge {
    states: States,
    /// By their hashes; without any every proof counts as right.
    keys: BTreeMap<[u8; 32], PreparedVerifyingKey<Bn254>>,
    forced: ForcedQueue,
}

impl RollupJudge {
    /// A judge of the trunk that the policies are about. Its states are kept in `folder`, which belongs to it alone;
    /// `genesis` is the chain before the first block; `vks` are the keys that the policies name. Without any no proof is verified,
    /// it only has to be one.
    ///
    /// # Errors
    /// [`JudgeError`]; nothing has been written then.
    pub fn open(
        genesis: Chain,
        vks: &[VerifyingKey<Bn254>],
        policies: &[Policy],
        (backend, rules): (Arc<dyn BitcoinBackend>, ForcedRules),
        folder: &Path,
    ) -> Result<Self, JudgeError> {
        let Some(first) = policies.first() else { return Err(JudgeError::Policies) };
        let same = |policy: &Policy| {
            (policy.trunk_id, policy.start_commitment) == (first.trunk_id, first.start_commitment)
        };
        if !policies.iter().all(same) {
            return Err(JudgeError::Policies);
        }
        let keys = named_keys(vks, policies)?;
        let start = genesis.state_after(genesis.tip()).ok_or(JudgeError::NoState)?.commitment();
        if start != first.start_commitment {
            let (genesis, start) = (hex::encode(start), hex::encode(first.start_commitment));
            return Err(JudgeError::Genesis { genesis, start });
        }
        Ok(Self {
            states: States::open(genesis, start, folder)?,
            keys,
            forced: ForcedQueue::new(backend, tag(&first.trunk_id), rules),
        })
    }

    /// Forgets the batches that a judge has kept in `folder`.
    ///
    /// # Errors
    /// `States`.
    pub fn clear(folder: &Path) -> Result<(), JudgeError> {
        Ok(States::clear(folder)?)
    }

    /// The state with this commitment; `None` if nothing that was executed has led to it.
    pub fn state(&mut self, commitment: &[u8; 32]) -> Option<ChainState> {
        if !self.go_to(commitment) {
            return None;
        }
        let chain = self.states.chain();
        chain.state_after(chain.tip())
    }

    /// The state that a claim starts at, with the chain that led there; false if it is not known.
    fn go_to(&mut self, root: &[u8; 32]) -> bool {
        match self.states.go_to(root) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(
                    "{}: stop, remove `state` and `judge` in --dir, and start again",
                    one_line(&error)
                );
                false
            }
        }
    }
}

impl Judge for RollupJudge {
    fn batch_hash(&mut self, data: &[u8]) -> Result<[u8; 32], String> {
        hash_of_data(data).map_err(|error| one_line(&error))
    }

    fn execute(&mut self, values: &Values, data: &[u8], height: u32) -> Result<Execution, String> {
        if !self.go_to(&values[PREV_ROOT]) {
            tracing::warn!(
                state = hex::encode(values[PREV_ROOT]),
                "a claim starts at a state that is not known here"
            );
            return Ok(Execution::NotYet);
        }
        let forced = match self.forced.judge(self.states.chain(), data, height) {
            Ok(forced) => forced,
            Err(error) => {
                tracing::warn!("messages to the rollup cannot be read now: {}", one_line(&error));
                return Ok(Execution::NotYet);
            }
        };
        let new_root = self.states.import(data).map_err(|error| one_line(&error))?;
        if new_root == values[NEW_ROOT] {
            if let Err(error) = self.states.keep(&values[PREV_ROOT], data) {
                tracing::error!("{}", one_line(&error));
                return Ok(Execution::NotYet);
            }
        }
        if let Verdict::LeftOut(position) = forced {
            let (block, tx, input) = (position.height, position.tx, position.input);
            tracing::error!(block, tx, input, "the batch leaves a forced transaction out");
        }
        Ok(Execution::Done { new_root, has_messages: forced == Verdict::Complete })
    }

    fn verify(&mut self, verifier: &[u8; 32], values: &Values, proof: &[u8]) -> bool {
        let digest = &values[DIGEST];
        // The field element of a larger number would be that of another digest.
        if digest[0] & 0xe0 != 0 {
            return false;
        }
        let Ok(proof) = proved::read_proof(proof) else { return false };
        if self.keys.is_empty() {
            return true;
        }
        let Some(key) = self.keys.get(verifier) else { return false };
        let input = statement::public_input(digest);
        Groth16::<Bn254>::verify_with_processed_vk(key, &[input], &proof).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests;
