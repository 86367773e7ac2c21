//! What an epoch is about, and its one-time keys.

use std::ops::RangeInclusive;

use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::Amount;
use serde::{Deserialize, Serialize};

use super::connector::CONNECTOR_VALUE;
use crate::keys::{KeyRole, OperatorSecret};
use crate::wots::{self, KeyId, PublicKey, ValueSize};

/// Largest number of claims in an epoch: bounds the work of deriving its keys to seconds.
pub const CLAIMS_MAX: u32 = 4_096;
/// Bytes of [`EpochTerms::encode`].
pub const TERMS_BYTES: usize = 213;
const VERSION: u8 = 1;

/// What the proofs of an epoch are checked against; chosen by the prover's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochParams {
    /// State commitment before the epoch's first claim. Zeros in the contract's epochs but the first, whose claim 0 is linked to the
    /// claim before it.
    pub start_commitment: [u8; 32],
    /// Root of the code control group, public and fixed for the epoch.
    pub code_root: [u8; 32],
    /// Hash of the Groth16 verifying key, specialised to one public input.
    pub verifier_commitment: [u8; 32],
}

/// Relative time locks, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeLocks {
    /// Between one claim and the next, at least 1.
    pub cadence_blocks: u16,
    /// Before the operator may take the collateral back, at least 1.
    pub collateral_blocks: u16,
}

impl TimeLocks {
    /// Short locks for regtest.
    pub const REGTEST: Self = Self { cadence_blocks: 2, collateral_blocks: 16 };
    /// Locks for the main chain: a claim at most every half hour; collateral as long as challenge, assert and disprove together
    /// (1008 + 432 + 720). For the trunk: a contract's has to outlast all its claims, too.
    pub const MAINNET: Self = Self { cadence_blocks: 3, collateral_blocks: 2_160 };
}

/// Everything an epoch fixes. Its hash is in the Reconfiguration, its encoding in a data envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochTerms {
    /// The trunk: a random value made with it.
    pub trunk_id: [u8; 32],
    /// Number of the epoch, from 0.
    pub epoch: u32,
    /// What proofs are checked against.
    pub params: EpochParams,
    /// The operator's key.
    pub operator_key: XOnlyPublicKey,
    /// Commitment to the one-time keys of all claims.
    pub key_commitment: [u8; 32],
    /// Time locks.
    pub locks: TimeLocks,
    /// Claims in this epoch.
    pub claims_max: u32,
    /// Collateral locked.
    pub collateral: Amount,
}

/// Why bytes are no epoch terms.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TermsError {
    /// Wrong number of bytes.
    #[error("epoch terms are {expected} bytes, got {got}")]
    Length {
        /// Always [`TERMS_BYTES`].
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// A field is out of range.
    #[error("epoch terms: {field} is {got}, allowed: {allowed}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What was found, with its unit.
        got: String,
        /// What it may be.
        allowed: String,
    },
}

impl TermsError {
    /// Checks a number.
    pub(crate) fn in_range(
        field: &'static str,
        got: impl Into<u64>,
        allowed: RangeInclusive<u64>,
        unit: &str,
    ) -> Result<(), Self> {
        let got = got.into();
        let text = || format!("{} to {} {unit}", allowed.start(), allowed.end());
        Self::ensure(allowed.contains(&got), field, || (format!("{got} {unit}"), text()))
    }

    /// Checks that a number of blocks is above another.
    pub(crate) fn above(
        field: &'static str,
        blocks: impl Into<u64>,
        limit: impl Into<u64>,
    ) -> Result<(), Self> {
        let (blocks, limit) = (blocks.into(), limit.into());
        let text = || (format!("{blocks} blocks"), format!("more than {limit} blocks"));
        Self::ensure(blocks > limit, field, text)
    }

    /// Checks anything; `text` says what was found and what is allowed.
    pub(crate) fn ensure(
        holds: bool,
        field: &'static str,
        text: impl FnOnce() -> (String, String),
    ) -> Result<(), Self> {
        if holds {
            return Ok(());
        }
        let (got, allowed) = text();
        Err(Self::Field { field, got, allowed })
    }
}

impl EpochTerms {
    /// Terms with the keys that `secret` gives.
    #[must_use]
    pub fn new(
        secret: &OperatorSecret,
        trunk_id: [u8; 32],
        epoch: u32,
        params: EpochParams,
        (locks, claims_max, collateral): (TimeLocks, u32, Amount),
    ) -> Self {
        Self {
            trunk_id,
            epoch,
            params,
            operator_key: secret.public_key(&trunk_id, KeyRole::Operator),
            key_commitment: key_commitment(secret, &trunk_id, epoch, claims_max),
            locks,
            claims_max,
            collateral,
        }
    }

    /// Fixed-width encoding, [`TERMS_BYTES`] bytes; integers little endian:
    ///
    /// | bytes | field |
    /// |---|---|
    /// | 0 | version, 1 |
    /// | 1..33 | trunk id |
    /// | 33..37 | epoch |
    /// | 37..69 | start commitment |
    /// | 69..101 | code root |
    /// | 101..133 | verifier commitment |
    /// | 133..165 | operator key, x only |
    /// | 165..197 | commitment to the claim keys |
    /// | 197..199 | cadence, blocks |
    /// | 199..201 | collateral lock, blocks |
    /// | 201..205 | claims in the epoch |
    /// | 205..213 | collateral, satoshi |
    ///
    /// # Panics
    /// Never: the fields have fixed widths that add up.
    #[must_use]
    pub fn encode(&self) -> [u8; TERMS_BYTES] {
        let fields: [&[u8]; 12] = [
            &[VERSION],
            &self.trunk_id,
            &self.epoch.to_le_bytes(),
            &self.params.start_commitment,
            &self.params.code_root,
            &self.params.verifier_commitment,
            &self.operator_key.serialize(),
            &self.key_commitment,
            &self.locks.cadence_blocks.to_le_bytes(),
            &self.locks.collateral_blocks.to_le_bytes(),
            &self.claims_max.to_le_bytes(),
            &self.collateral.to_sat().to_le_bytes(),
        ];
        fields.concat().try_into().expect("the fields add up to the fixed width")
    }

    /// Reads [`encode`](Self::encode)'s bytes.
    ///
    /// # Errors
    /// `Length`, `Field`.
    ///
    /// # Panics
    /// Never: the length is checked first.
    pub fn decode(bytes: &[u8]) -> Result<Self, TermsError> {
        let bytes: &[u8; TERMS_BYTES] =
            bytes.try_into().map_err(|_| TermsError::Length { expected: TERMS_BYTES, got: bytes.len() })?;
        TermsError::ensure(bytes[0] == VERSION, "version", || (bytes[0].to_string(), VERSION.to_string()))?;
        let word = |at: usize| <[u8; 32]>::try_from(&bytes[at..at + 32]).expect("32 bytes");
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let terms = Self {
            trunk_id: word(1),
            epoch: u32_at(33),
            params: EpochParams {
                start_commitment: word(37),
                code_root: word(69),
                verifier_commitment: word(101),
            },
            operator_key: XOnlyPublicKey::from_slice(&word(133)).map_err(|_| TermsError::Field {
                field: "operator key",
                got: hex::encode(word(133)),
                allowed: "the x of a point".to_owned(),
            })?,
            key_commitment: word(165),
            locks: TimeLocks { cadence_blocks: u16_at(197), collateral_blocks: u16_at(199) },
            claims_max: u32_at(201),
            collateral: Amount::from_sat(u64::from_le_bytes(bytes[205..213].try_into().expect("8 bytes"))),
        };
        terms.validate()?;
        Ok(terms)
    }

    /// Checks the ranges that the transactions rely on.
    ///
    /// # Errors
    /// `Field` names the first one out of range.
    pub fn validate(&self) -> Result<(), TermsError> {
        let blocks = 1..=u64::from(u16::MAX);
        let money = CONNECTOR_VALUE.to_sat()..=Amount::MAX_MONEY.to_sat();
        TermsError::in_range("cadence", self.locks.cadence_blocks, blocks.clone(), "blocks")?;
        TermsError::in_range("collateral lock", self.locks.collateral_blocks, blocks, "blocks")?;
        TermsError::in_range("number of claims", self.claims_max, 1..=u64::from(CLAIMS_MAX), "claims")?;
        TermsError::in_range("collateral", self.collateral.to_sat(), money, "satoshi")
    }

    /// BLAKE3 in key-derivation mode over the encoding: what the Reconfiguration commits to.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        blake3::derive_key("assay l1 epoch terms v1", &self.encode())
    }
}

/// A value that a claim signs with a one-time key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimValue {
    /// State commitment before the batch.
    PrevRoot,
    /// State commitment after it.
    NewRoot,
    /// Hash of the batch.
    BatchHash,
    /// Root of the code control group.
    CodeRoot,
    /// BLAKE3 digest of the four above, the proof's one public input.
    Digest,
}

impl ClaimValue {
    /// All values in the order in which the claim script checks them.
    pub const ALL: [Self; 5] = [Self::PrevRoot, Self::NewRoot, Self::BatchHash, Self::CodeRoot, Self::Digest];

    /// Name in key derivation and in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PrevRoot => "prev-root",
            Self::NewRoot => "new-root",
            Self::BatchHash => "batch-hash",
            Self::CodeRoot => "code-root",
            Self::Digest => "digest",
        }
    }

    /// The one-time key of this value in claim `claim` of `epoch`.
    #[must_use]
    pub fn key_id(self, trunk_id: [u8; 32], epoch: u32, claim: u32) -> KeyId {
        KeyId { trunk_id, epoch, claim, value: self.name().into() }
    }
}

/// The digest that a claim has to sign: BLAKE3 of the values before it, in their order, top 3 bits cleared. It is the proof's one
/// public input, and fits the field.
#[must_use]
pub fn claim_digest(values: &[[u8; 32]]) -> [u8; 32] {
    let mut digest: [u8; 32] = blake3::hash(values.as_flattened()).into();
    digest[0] &= 0x1f;
    digest
}

/// The public one-time keys of one claim, in the order of [`ClaimValue::ALL`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimKeys(pub [PublicKey; 5]);

impl ClaimKeys {
    /// Derives the keys of claim `claim`. Cost: 5 * 67 * 15 hashes, a few milliseconds.
    #[must_use]
    pub fn derive(secret: &OperatorSecret, trunk_id: &[u8; 32], epoch: u32, claim: u32) -> Self {
        Self(ClaimValue::ALL.map(|value| {
            wots::public_key(secret, &value.key_id(*trunk_id, epoch, claim), ValueSize::Bytes32)
        }))
    }

    /// BLAKE3 over all public hashes in order.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("assay l1 claim keys v1");
        for key in &self.0 {
            for hash in key.hashes() {
                hasher.update(hash);
            }
        }
        hasher.finalize().into()
    }
}

/// Commitment to the keys of all claims: BLAKE3 over the hash of each claim's keys, in order.
#[must_use]
pub fn key_commitment(secret: &OperatorSecret, trunk_id: &[u8; 32], epoch: u32, claims_max: u32) -> [u8; 32] {
    commit((0..claims_max).map(|claim| ClaimKeys::derive(secret, trunk_id, epoch, claim).hash()))
}

/// The commitment from the hash of each claim's keys.
pub(crate) fn commit(claims: impl Iterator<Item = [u8; 32]>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("assay l1 epoch keys v1");
    for hash in claims {
        hasher.update(&hash);
    }
    hasher.finalize().into()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn secret() -> OperatorSecret {
        OperatorSecret::from_bytes([0x11; 32])
    }

    pub(crate) fn terms() -> EpochTerms {
        let params =
            EpochParams { start_commitment: [1; 32], code_root: [2; 32], verifier_commitment: [3; 32] };
        let rest = (TimeLocks::REGTEST, 2, Amount::from_sat(100_000));
        EpochTerms::new(&secret(), [8; 32], 0, params, rest)
    }

    #[test]
    fn terms_survive_their_encoding_and_every_field_is_in_the_id() {
        let terms = terms();
        let bytes = terms.encode();
        assert_eq!(EpochTerms::decode(&bytes).unwrap(), terms);
        for at in 0..TERMS_BYTES {
            let mut other = bytes;
            other[at] ^= 1;
            if let Ok(decoded) = EpochTerms::decode(&other) {
                assert_ne!(decoded.id(), terms.id(), "byte {at}");
                assert_eq!(decoded.encode(), other, "byte {at}");
            }
        }
        assert_eq!(
            EpochTerms::decode(&bytes[1..]).unwrap_err(),
            TermsError::Length { expected: TERMS_BYTES, got: TERMS_BYTES - 1 }
        );
    }

    #[test]
    fn terms_out_of_range_are_refused_with_what_was_found_and_what_is_allowed() {
        let good = terms();
        let locks = |cadence_blocks, collateral_blocks| TimeLocks { cadence_blocks, collateral_blocks };
        let bad = [
            (
                EpochTerms { locks: locks(0, 1), ..good.clone() },
                "cadence is 0 blocks, allowed: 1 to 65535 blocks",
            ),
            (
                EpochTerms { locks: locks(1, 0), ..good.clone() },
                "collateral lock is 0 blocks, allowed: 1 to 65535 blocks",
            ),
            (
                EpochTerms { claims_max: 0, ..good.clone() },
                "number of claims is 0 claims, allowed: 1 to 4096 claims",
            ),
            (
                EpochTerms { claims_max: CLAIMS_MAX + 1, ..good.clone() },
                "number of claims is 4097 claims, allowed: 1 to 4096 claims",
            ),
            (
                EpochTerms { collateral: Amount::from_sat(1), ..good.clone() },
                "collateral is 1 satoshi, allowed: 330 to 2100000000000000 satoshi",
            ),
        ];
        for (terms, expected) in bad {
            let refused = EpochTerms::decode(&terms.encode()).unwrap_err();
            assert_eq!(refused.to_string(), format!("epoch terms: {expected}"));
        }
        let mut later = good.encode();
        later[0] = 2;
        let refused = EpochTerms::decode(&later).unwrap_err();
        assert_eq!(refused.to_string(), "epoch terms: version is 2, allowed: 1");
        let mut no_point = good.encode();
        no_point[133..165].fill(0xff);
        let refused = EpochTerms::decode(&no_point).unwrap_err().to_string();
        assert!(refused.ends_with("ffff, allowed: the x of a point"), "{refused}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(terms) = EpochTerms::decode(&bytes) {
                prop_assert_eq!(terms.encode().to_vec(), bytes);
            }
        }
    }
}
