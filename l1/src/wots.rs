//! Winternitz one-time signatures over 16- or 32-byte values, for verification in Bitcoin Script.
//!
//! A value is cut in digits of 4 bits, high half of each byte first. The checksum is `sum(15 - digit)`, written in 3 more
//! digits, high one first (32 and 64 digits need at most 960 < 16^3). Digit `i` has the secret `s_i` (20 bytes, from the
//! KDF) and the public hash `HASH160^15(s_i)`; the signature shows `HASH160^digit(s_i)`, from which `15 - digit` more hashes
//! lead to the public hash. Anyone can raise a digit by hashing on; the checksum then falls, and to lower one of its
//! digits takes an earlier element of a chain, a preimage. So a signature fits one value only.
//!
//! A key signs ONE value. [`guard::UseGuard`] is the only door to signatures and refuses a second, different one.
//! Source: Merkle, "A certified digital signature", 1989; parameters as in `README.md`,
//! "Winternitz signatures".

pub mod guard;

use std::borrow::Cow;

use bitcoin::hashes::{hash160, Hash};
use zeroize::Zeroizing;

use crate::keys::OperatorSecret;

/// Bits of a digit.
pub const DIGIT_BITS: usize = 4;
/// Largest digit, and hashes in a chain.
pub const DIGIT_MAX: u8 = 15;
/// Digits of the checksum.
pub const CHECKSUM_DIGITS: usize = 3;
/// Bytes of a chain element.
pub const HASH_BYTES: usize = 20;

/// Size of a signed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueSize {
    /// 16 bytes: hashes cut to 128 bits, for the chunked verifier.
    Bytes16,
    /// 32 bytes: roots, hashes, public inputs.
    Bytes32,
}

impl ValueSize {
    /// Bytes of the value.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bytes16 => 16,
            Self::Bytes32 => 32,
        }
    }

    /// Digits of the value, without the checksum.
    #[must_use]
    pub const fn message_digits(self) -> usize {
        self.bytes() * 8 / DIGIT_BITS
    }

    /// Digits of value and checksum.
    #[must_use]
    pub const fn digits(self) -> usize {
        self.message_digits() + CHECKSUM_DIGITS
    }

    fn of(bytes: usize) -> Option<Self> {
        match bytes {
            16 => Some(Self::Bytes16),
            32 => Some(Self::Bytes32),
            _ => None,
        }
    }
}

/// Why a value could not be signed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("one-time keys sign values of 16 or 32 bytes, got {got}")]
pub struct ValueSizeError {
    /// Bytes given.
    pub got: usize,
}

/// Which one-time key: these fields, and nothing else, choose it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId {
    /// The trunk: a random value made with it.
    pub trunk_id: [u8; 32],
    /// Epoch, from 0.
    pub epoch: u32,
    /// Claim within the epoch, from 0.
    pub claim: u32,
    /// Name of the value, such as `new-root`.
    pub value: Cow<'static, str>,
}

/// The public hashes of one key, in the order of the digits, checksum last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    size: ValueSize,
    hashes: Vec<[u8; HASH_BYTES]>,
}

impl PublicKey {
    /// A key from its public hashes, one per digit; `None` if there are not as many as `size` has digits.
    #[must_use]
    pub fn from_hashes(size: ValueSize, hashes: Vec<[u8; HASH_BYTES]>) -> Option<Self> {
        (hashes.len() == size.digits()).then_some(Self { size, hashes })
    }

    /// Size of the values this key signs.
    #[must_use]
    pub fn size(&self) -> ValueSize {
        self.size
    }

    /// One hash per digit.
    #[must_use]
    pub fn hashes(&self) -> &[[u8; HASH_BYTES]] {
        &self.hashes
    }
}

/// A signature: the digits with one chain element each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    digits: Vec<u8>,
    elements: Vec<[u8; HASH_BYTES]>,
}

impl Signature {
    /// Digit and chain element, in the order of the digits, checksum last.
    pub fn pairs(&self) -> impl DoubleEndedIterator<Item = (u8, &[u8; HASH_BYTES])> {
        self.digits.iter().copied().zip(&self.elements)
    }
}

/// Digits of `value` followed by those of its checksum.
fn digits(value: &[u8]) -> Vec<u8> {
    let mut digits: Vec<u8> = value.iter().flat_map(|byte| [byte >> DIGIT_BITS, byte & DIGIT_MAX]).collect();
    let checksum: u16 = digits.iter().map(|digit| u16::from(DIGIT_MAX - digit)).sum();
    for index in (0..CHECKSUM_DIGITS).rev() {
        digits.push((checksum >> (DIGIT_BITS * index)) as u8 & DIGIT_MAX);
    }
    digits
}

fn chain(start: [u8; HASH_BYTES], steps: u8) -> [u8; HASH_BYTES] {
    (0..steps).fold(start, |element, _| hash160::Hash::hash(&element).to_byte_array())
}

/// The secrets of all digits of a key.
fn secrets(secret: &OperatorSecret, id: &KeyId, size: ValueSize) -> Zeroizing<Vec<[u8; HASH_BYTES]>> {
    let mut material = Zeroizing::new(vec![0; size.digits() * HASH_BYTES]);
    let bits = (size.bytes() as u32 * 8).to_be_bytes();
    let fields: [&[u8]; 6] = [
        b"winternitz",
        &id.trunk_id,
        &id.epoch.to_be_bytes(),
        &id.claim.to_be_bytes(),
        id.value.as_bytes(),
        &bits,
    ];
    secret.derive(&fields, &mut material);
    let element = |bytes: &[u8]| <[u8; HASH_BYTES]>::try_from(bytes).expect("chunks have this size");
    Zeroizing::new(material.chunks_exact(HASH_BYTES).map(element).collect())
}

/// The public key of `id`. Cost: 15 hashes per digit, about 1 ms for 32 bytes.
#[must_use]
pub fn public_key(secret: &OperatorSecret, id: &KeyId, size: ValueSize) -> PublicKey {
    let hashes = secrets(secret, id, size).iter().map(|start| chain(*start, DIGIT_MAX)).collect();
    PublicKey { size, hashes }
}

/// Signs without asking the guard: only the guard calls this.
fn sign(secret: &OperatorSecret, id: &KeyId, value: &[u8]) -> Option<Signature> {
    let size = ValueSize::of(value.len())?;
    let digits = digits(value);
    let starts = secrets(secret, id, size);
    let elements = starts.iter().zip(&digits).map(|(start, digit)| chain(*start, *digit)).collect();
    Some(Signature { digits, elements })
}

/// True if `signature` is one of `value` under `key`: what the Script verifier decides, off chain.
#[must_use]
pub fn verify(key: &PublicKey, value: &[u8], signature: &Signature) -> bool {
    value.len() == key.size.bytes()
        && signature.digits == digits(value)
        && signature.elements.len() == key.hashes.len()
        && signature
            .pairs()
            .zip(&key.hashes)
            .all(|((digit, element), hash)| chain(*element, DIGIT_MAX - digit) == *hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn id(claim: u32) -> KeyId {
        KeyId { trunk_id: [3; 32], epoch: 1, claim, value: "new-root".into() }
    }

    #[test]
    fn digits_are_high_half_first_with_the_complement_sum_behind() {
        let mut value = [0; 16];
        value[0] = 0x3c;
        let digits = digits(&value);
        assert_eq!(&digits[..3], [3, 12, 0]);
        // 32 digits: 32 * 15 - 15 = 465 = 0x1d1.
        assert_eq!(&digits[32..], [0x1, 0xd, 0x1]);
    }

    #[test]
    fn keys_differ_by_every_field_of_their_name() {
        let secret = OperatorSecret::from_bytes([9; 32]);
        let base = public_key(&secret, &id(0), ValueSize::Bytes32);
        let others = [
            KeyId { trunk_id: [4; 32], ..id(0) },
            KeyId { epoch: 2, ..id(0) },
            id(1),
            KeyId { value: "old-root".into(), ..id(0) },
        ];
        for other in others {
            let key = public_key(&secret, &other, ValueSize::Bytes32);
            assert!(base.hashes.iter().all(|hash| !key.hashes.contains(hash)), "{other:?}");
        }
        let short = public_key(&secret, &id(0), ValueSize::Bytes16);
        assert!(base.hashes.iter().all(|hash| !short.hashes.contains(hash)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn a_signature_fits_its_value_and_no_other(value: [u8; 32], at in 0usize..32, flip in 1u8..) {
            let secret = OperatorSecret::from_bytes([9; 32]);
            let key = public_key(&secret, &id(0), ValueSize::Bytes32);
            let signature = sign(&secret, &id(0), &value).unwrap();
            prop_assert!(verify(&key, &value, &signature));
            let mut other = value;
            other[at] ^= flip;
            prop_assert!(!verify(&key, &other, &signature));
            prop_assert!(!verify(&public_key(&secret, &id(1), ValueSize::Bytes32), &value, &signature));
        }
    }
}
