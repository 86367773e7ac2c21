//! What the parties agreed on beforehand: every field of a spec that is not made for the epoch.
//!
//! Made for the epoch are: its number, the commitments to the operator's one-time keys (the keys must match them), the
//! attesters' two aggregates (must be those of the signers' keys) and the funding coin (whose value and script follow). From the
//! second epoch on the whole spec was announced by the epoch before, and the start is where that one ends.

use std::io::Read;
use std::path::Path;

use assay_l1::graph::contract::keys::EpochKeys;
use assay_l1::graph::contract::scripts::{NoVerifier, VerifierLeaves};
use assay_l1::graph::contract::spec::{AssertLayout, ContractSpec, GameLocks};
use assay_l1::graph::terms::{EpochTerms, TermsError};
use assay_l1::script::unspendable_key;
use assay_l1::{EpochParams, StoreError, TimeLocks};
use bitcoin::secp256k1::constants::GENERATOR_X;
use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::{Amount, OutPoint};
use serde::{Deserialize, Serialize};

use crate::identity::hex32;
use crate::limits::FILE_BYTES_MAX;

/// Which set of verifier leaves the contract has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum VerifierSet {
    /// No verifier on the chain: [`NoVerifier`].
    None,
}

impl VerifierSet {
    /// The set.
    #[must_use]
    pub fn leaves(self) -> Box<dyn VerifierLeaves + Send + Sync> {
        match self {
            Self::None => Box::new(NoVerifier),
        }
    }
}

/// Who is paid by the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payees {
    /// The operator's key, x only.
    pub operator: XOnlyPublicKey,
    /// The key of what nobody claimed, and of the sink's part of a slash.
    pub sink: XOnlyPublicKey,
}

/// The attesters' aggregated keys, made for an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aggregates {
    /// What signs the epoch's graph.
    pub epoch: XOnlyPublicKey,
    /// What signs a hand-over.
    pub recovery: XOnlyPublicKey,
}

/// Commitments to the operator's one-time keys of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyCommitments {
    /// Of the claims.
    pub claims: [u8; 32],
    /// Of the assertions.
    pub assertions: [u8; 32],
}

/// The agreement, as in the policy file (TOML).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The trunk.
    #[serde(with = "hex32")]
    pub trunk_id: [u8; 32],
    /// The operator's key on the chain, x only.
    pub operator_key: XOnlyPublicKey,
    /// Who gets what nobody claimed, and the sink's part of a slash.
    pub sink: XOnlyPublicKey,
    /// State before the first claim of epoch 0.
    #[serde(with = "hex32")]
    pub start_commitment: [u8; 32],
    /// Root of the code control group.
    #[serde(with = "hex32")]
    pub code_root: [u8; 32],
    /// Hash of the proof's verifying key.
    #[serde(with = "hex32")]
    pub verifier_commitment: [u8; 32],
    /// Verifier leaves.
    pub verifier: VerifierSet,
    /// Claims in an epoch.
    pub claims: u32,
    /// Collateral, satoshi.
    pub collateral_sat: u64,
    /// What a challenge pays the operator, satoshi.
    pub challenge_deposit_sat: u64,
    /// The sink's part of a slash, satoshi.
    pub slashed_to_sink_sat: u64,
    /// 32-byte values of an assertion.
    pub assert_words: u16,
    /// 16-byte values of an assertion.
    pub assert_hashes: u16,
    /// Blocks between claims.
    pub cadence_blocks: u16,
    /// Blocks before the collateral goes back.
    pub collateral_blocks: u16,
    /// Blocks to challenge a claim.
    pub challenge_blocks: u16,
    /// Blocks to open an assertion, and to fill it.
    pub assert_blocks: u16,
    /// Blocks to disprove.
    pub disprove_blocks: u16,
    /// Blocks to make the next claim.
    pub claim_timeout_blocks: u16,
    /// Blocks after which the sink owns what is left.
    pub sink_blocks: u16,
    /// Blocks from a ClaimTimeout until another operator may go on.
    pub handover_blocks: u16,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The file could not be read or does not parse.
    #[error(transparent)]
    File(#[from] StoreError),
    /// No spec of this policy could be valid.
    #[error("policy: {0}")]
    Range(#[from] TermsError),
}

/// Reads a small text file.
///
/// # Errors
/// `Storage`; `Format` if it is larger than a configuration can be, or no UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String, StoreError> {
    let storage = |source| StoreError::Storage { path: path.to_owned(), source };
    let format = |detail: &str| StoreError::Format { path: path.to_owned(), detail: detail.to_owned() };
    let file = std::fs::File::open(path).map_err(storage)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(storage)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format("larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| format("not UTF-8"))
}

impl Policy {
    /// Two claims, small sums and short locks for regtest, as in `l1/README.md`; no verifier on the chain.
    #[must_use]
    pub fn regtest(trunk_id: [u8; 32], payees: Payees, params: EpochParams) -> Self {
        let Payees { operator: operator_key, sink } = payees;
        let EpochParams { start_commitment, code_root, verifier_commitment } = params;
        Self {
            trunk_id,
            operator_key,
            sink,
            start_commitment,
            code_root,
            verifier_commitment,
            verifier: VerifierSet::None,
            claims: 2,
            collateral_sat: 1_000_000,
            challenge_deposit_sat: 20_000,
            slashed_to_sink_sat: 400_000,
            assert_words: 1,
            assert_hashes: 1,
            cadence_blocks: 2,
            collateral_blocks: 75,
            challenge_blocks: 10,
            assert_blocks: 8,
            disprove_blocks: 8,
            claim_timeout_blocks: 18,
            sink_blocks: 200,
            handover_blocks: 5,
        }
    }

    /// Reads and checks a policy file.
    ///
    /// # Errors
    /// `File`; `Range` if the values do not fit each other.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let text = read_text(path)?;
        let format = |detail: toml::de::Error| StoreError::Format {
            path: path.to_owned(),
            detail: detail.message().to_owned(),
        };
        let policy: Self = toml::from_str(&text).map_err(format)?;
        policy.validate()?;
        Ok(policy)
    }

    /// Checks that a spec of this policy can be valid.
    ///
    /// # Errors
    /// `Field` names the value out of range, what it is and what it may be.
    pub fn validate(&self) -> Result<(), TermsError> {
        self.outline(0).validate()
    }

    /// The epoch's spec before anything is made for it: its values and ranges are those that it will have.
    ///
    /// # Panics
    /// Never: a constant is a point.
    #[must_use]
    pub fn outline(&self, epoch: u32) -> ContractSpec {
        // Any two keys stand for the attesters' here: the generator is the operator's only if its secret is 1.
        let generator = XOnlyPublicKey::from_slice(&GENERATOR_X).expect("the generator is a point");
        let attesters = Aggregates { epoch: generator, recovery: unspendable_key() };
        let funding = OutPoint { vout: 0, ..OutPoint::default() };
        self.spec(epoch, KeyCommitments::default(), attesters, funding)
    }

    /// The epoch's spec from what is made for it.
    fn spec(
        &self,
        epoch: u32,
        keys: KeyCommitments,
        attesters: Aggregates,
        funding: OutPoint,
    ) -> ContractSpec {
        // Where a later epoch starts is not known when it is announced.
        let start_commitment = if epoch == 0 { self.start_commitment } else { [0; 32] };
        ContractSpec {
            terms: EpochTerms {
                trunk_id: self.trunk_id,
                epoch,
                params: EpochParams {
                    start_commitment,
                    code_root: self.code_root,
                    verifier_commitment: self.verifier_commitment,
                },
                operator_key: self.operator_key,
                key_commitment: keys.claims,
                locks: TimeLocks {
                    cadence_blocks: self.cadence_blocks,
                    collateral_blocks: self.collateral_blocks,
                },
                claims_max: self.claims,
                collateral: Amount::from_sat(self.collateral_sat),
            },
            attesters: attesters.epoch,
            recovery: attesters.recovery,
            sink: self.sink,
            locks: GameLocks {
                challenge_blocks: self.challenge_blocks,
                assert_blocks: self.assert_blocks,
                disprove_blocks: self.disprove_blocks,
                claim_timeout_blocks: self.claim_timeout_blocks,
                sink_blocks: self.sink_blocks,
                handover_blocks: self.handover_blocks,
            },
            challenge_deposit: Amount::from_sat(self.challenge_deposit_sat),
            slashed_to_sink: Amount::from_sat(self.slashed_to_sink_sat),
            layout: self.layout(),
            assert_key_commitment: keys.assertions,
            verifier_leaves: self.verifier.leaves().id(),
            funding,
        }
    }

    /// Values of an assertion.
    #[must_use]
    pub fn layout(&self) -> AssertLayout {
        AssertLayout { words: self.assert_words, hashes: self.assert_hashes }
    }

    /// The epoch's spec for the operator's `keys` and the attesters'.
    #[must_use]
    pub fn spec_for(
        &self,
        epoch: u32,
        keys: &EpochKeys,
        attesters: Aggregates,
        funding: OutPoint,
    ) -> ContractSpec {
        let keys = KeyCommitments { claims: keys.claim_commitment(), assertions: keys.assert_commitment() };
        self.spec(epoch, keys, attesters, funding)
    }

    /// Name of the first field of `spec` that is not as agreed.
    ///
    /// The start is the agreement's in epoch 0 and none in later ones: the epoch before, which the signer knows, says it.
    #[must_use]
    pub fn difference(&self, spec: &ContractSpec) -> Option<&'static str> {
        let terms = &spec.terms;
        let keys = KeyCommitments { claims: terms.key_commitment, assertions: spec.assert_key_commitment };
        let attesters = Aggregates { epoch: spec.attesters, recovery: spec.recovery };
        let own = self.spec(terms.epoch, keys, attesters, spec.funding);
        let params = (&own.terms.params, &terms.params);
        let checks = [
            ("trunk", own.terms.trunk_id == terms.trunk_id),
            ("start", params.0.start_commitment == params.1.start_commitment),
            ("code root", params.0.code_root == params.1.code_root),
            ("verifier commitment", params.0.verifier_commitment == params.1.verifier_commitment),
            ("operator's key", own.terms.operator_key == terms.operator_key),
            ("time locks", own.terms.locks == terms.locks),
            ("number of claims", own.terms.claims_max == terms.claims_max),
            ("collateral", own.terms.collateral == terms.collateral),
            ("sink", own.sink == spec.sink),
            ("game's locks", own.locks == spec.locks),
            ("challenge deposit", own.challenge_deposit == spec.challenge_deposit),
            ("slashed part", own.slashed_to_sink == spec.slashed_to_sink),
            ("assert layout", own.layout == spec.layout),
            ("verifier leaves", own.verifier_leaves == spec.verifier_leaves),
            // Whatever a later version of the spec has beside these.
            ("form", own == *spec),
        ];
        checks.iter().find(|(_, same)| !same).map(|(field, _)| *field)
    }
}

#[cfg(test)]
mod tests {
    use assay_l1::{KeyRole, OperatorSecret};

    use super::*;

    #[test]
    fn the_policy_of_the_walk_through_is_regtests_and_can_be_used() {
        let key = |role| OperatorSecret::from_bytes([1; 32]).public_key(&[7; 32], role);
        let params =
            EpochParams { start_commitment: [1; 32], code_root: [2; 32], verifier_commitment: [9; 32] };
        let payees = Payees { operator: key(KeyRole::Operator), sink: key(KeyRole::Wallet) };
        let policy = Policy::regtest([7; 32], payees, params);
        let text = toml::to_string(&policy).unwrap();
        let blocks = include_str!("../../README.md").split("```");
        let shown =
            blocks.filter_map(|block| block.strip_prefix("toml")).find(|block| block.contains("trunk_id"));
        let shown: Vec<&str> =
            shown.unwrap().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let made: Vec<&str> = text.lines().collect();
        assert_eq!(shown.len(), made.len());
        for (shown, made) in shown.into_iter().zip(made) {
            // Keys and commitments are the reader's own.
            let name = shown.split_once(" = \"<").map_or(shown, |(name, _)| name);
            assert!(made.starts_with(name) && (name != shown || made == shown), "{made}, shown as {shown}");
        }
        assert_eq!(policy.validate(), Ok(()));
    }
}
