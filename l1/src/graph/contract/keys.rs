//! The public one-time keys of an epoch: those of the claims and those of the assertions.

use crate::graph::terms::{commit, ClaimKeys};
use crate::keys::OperatorSecret;
use crate::wots::{self, KeyId, PublicKey, ValueSize};

use super::spec::{AssertLayout, ContractSpec};

/// A value of an assertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssertValue {
    /// The 32-byte value with this index.
    Word(u16),
    /// The 16-byte value with this index.
    Hash(u16),
}

impl AssertValue {
    /// The one-time key of this value in claim `claim` of `epoch`.
    #[must_use]
    pub fn key_id(self, trunk_id: [u8; 32], epoch: u32, claim: u32) -> KeyId {
        let value = match self {
            Self::Word(index) => format!("assert-word-{index}"),
            Self::Hash(index) => format!("assert-hash-{index}"),
        };
        KeyId { trunk_id, epoch, claim, value: value.into() }
    }

    /// Size of the value.
    #[must_use]
    pub const fn size(self) -> ValueSize {
        match self {
            Self::Word(_) => ValueSize::Bytes32,
            Self::Hash(_) => ValueSize::Bytes16,
        }
    }
}

/// The keys of one claim and of the assertion that may follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GameKeys {
    /// The five values of the claim.
    pub claim: ClaimKeys,
    /// The assertion's 32-byte values.
    pub words: Vec<PublicKey>,
    /// The assertion's 16-byte values.
    pub hashes: Vec<PublicKey>,
}

impl GameKeys {
    /// Derives the keys of claim `claim`. Cost: 15 hashes per digit; for the chunked verifier about 200,000.
    #[must_use]
    pub fn derive(
        secret: &OperatorSecret,
        trunk_id: &[u8; 32],
        (epoch, claim): (u32, u32),
        layout: AssertLayout,
    ) -> Self {
        let key = |value: AssertValue| {
            wots::public_key(secret, &value.key_id(*trunk_id, epoch, claim), value.size())
        };
        Self {
            claim: ClaimKeys::derive(secret, trunk_id, epoch, claim),
            words: (0..layout.words).map(|index| key(AssertValue::Word(index))).collect(),
            hashes: (0..layout.hashes).map(|index| key(AssertValue::Hash(index))).collect(),
        }
    }

    /// BLAKE3 over the public hashes of the assertion's keys, words first.
    fn assert_hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("assay l1 assert keys v1");
        for hash in self.words.iter().chain(&self.hashes).flat_map(PublicKey::hashes) {
            hasher.update(hash);
        }
        hasher.finalize().into()
    }

    fn fits(&self, layout: AssertLayout) -> bool {
        let sized = |keys: &[PublicKey], count: u16, size| {
            keys.len() == usize::from(count) && keys.iter().all(|key| key.size() == size)
        };
        sized(&self.claim.0, 5, ValueSize::Bytes32)
            && sized(&self.words, layout.words, ValueSize::Bytes32)
            && sized(&self.hashes, layout.hashes, ValueSize::Bytes16)
    }
}

/// The keys of all claims of an epoch, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochKeys(pub Vec<GameKeys>);

impl EpochKeys {
    /// Derives all keys of an epoch.
    #[must_use]
    pub fn derive(
        secret: &OperatorSecret,
        trunk_id: &[u8; 32],
        (epoch, claims): (u32, u32),
        layout: AssertLayout,
    ) -> Self {
        Self((0..claims).map(|claim| GameKeys::derive(secret, trunk_id, (epoch, claim), layout)).collect())
    }

    /// Commitment to the claims' keys, as the terms have it.
    #[must_use]
    pub fn claim_commitment(&self) -> [u8; 32] {
        commit(self.0.iter().map(|keys| keys.claim.hash()))
    }

    /// Commitment to the assertions' keys, as the spec has it.
    #[must_use]
    pub fn assert_commitment(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("assay l1 epoch assert keys v1");
        for keys in &self.0 {
            hasher.update(&keys.assert_hash());
        }
        hasher.finalize().into()
    }

    /// True if these are the keys that `spec` commits to.
    #[must_use]
    pub fn belong_to(&self, spec: &ContractSpec) -> bool {
        self.0.len() == spec.terms.claims_max as usize
            && self.0.iter().all(|keys| keys.fits(spec.layout))
            && self.claim_commitment() == spec.terms.key_commitment
            && self.assert_commitment() == spec.assert_key_commitment
    }
}
