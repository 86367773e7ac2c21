//! Targets, work, and the arithmetic of retargeting.
//!
//! Source: Bitcoin Core, `arith_uint256.cpp` and `pow.cpp`.

use ruint::Uint;

use crate::hash::Hash;

/// 256-bit unsigned integers.
pub type U256 = Uint<256, 4>;

/// Sign bit of the compact form.
const SIGN: u32 = 0x0080_0000;

/// Why a compact form is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Its sign bit is set.
    #[error("target {bits:#010x} is negative")]
    Negative {
        /// The compact form.
        bits: u32,
    },
    /// It is zero: no hash could meet it.
    #[error("target {bits:#010x} is zero")]
    Zero {
        /// The compact form.
        bits: u32,
    },
    /// It does not fit in 256 bits.
    #[error("target {bits:#010x} overflows 256 bits")]
    Overflow {
        /// The compact form.
        bits: u32,
    },
    /// It is easier than the network allows.
    #[error("target {bits:#010x} is easier than the network's limit {limit:#010x}")]
    AboveLimit {
        /// The compact form.
        bits: u32,
        /// The network's, in compact form.
        limit: u32,
    },
}

/// A number that a block's hash must not exceed; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target(U256);

impl Target {
    /// Reads the compact form: the highest byte is the size in bytes, the rest the leading three of them, the top bit a sign.
    ///
    /// # Errors
    /// `Negative`, `Zero`, `Overflow`: what Core calls so.
    pub fn from_bits(bits: u32) -> Result<Self, TargetError> {
        let (size, word) = (bits >> 24, bits & 0x007f_ffff);
        let value = match size {
            0..=3 => U256::from(word >> (8 * (3 - size))),
            _ => U256::from(word) << (8 * (size as usize - 3)),
        };
        let word_shifted = if size <= 3 { word >> (8 * (3 - size)) } else { word };
        if word_shifted != 0 && bits & SIGN != 0 {
            return Err(TargetError::Negative { bits });
        }
        let overflow = size > 34 || (word > 0xff && size > 33) || (word > 0xffff && size > 32);
        if word_shifted != 0 && overflow {
            return Err(TargetError::Overflow { bits });
        }
        if value.is_zero() {
            return Err(TargetError::Zero { bits });
        }
        Ok(Self(value))
    }

    /// The compact form; the lower bytes are cut off.
    #[must_use]
    pub fn to_bits(self) -> u32 {
        let mut size = self.0.bit_len().div_ceil(8);
        let low = |value: U256| value.as_limbs()[0] as u32;
        let mut word =
            if size <= 3 { low(self.0) << (8 * (3 - size)) } else { low(self.0 >> (8 * (size - 3))) };
        if word & SIGN != 0 {
            word >>= 8;
            size += 1;
        }
        word | (size as u32) << 24
    }

    /// True if `hash`, read as a little-endian number, does not exceed the target.
    #[must_use]
    pub fn is_met_by(&self, hash: &Hash) -> bool {
        U256::from_le_bytes(hash.0) <= self.0
    }

    /// Expected number of hashes to meet it: `2^256 / (target + 1)`, computed as `!target / (target + 1) + 1`.
    #[must_use]
    pub fn work(self) -> U256 {
        match self.0.checked_add(U256::ONE) {
            Some(above) => (!self.0 / above).wrapping_add(U256::ONE),
            // The largest target: every hash meets it.
            None => U256::ONE,
        }
    }

    /// The target after a period of `actual_s` seconds that should have lasted `wanted_s`, at most `limit`: the quotient is kept
    /// between a quarter and four, and the product, as in Core, to 256 bits.
    ///
    /// `None` if the result is zero, which no network's rules reach.
    #[must_use]
    pub fn retarget(self, actual_s: i64, wanted_s: u32, limit: Self) -> Option<Self> {
        let wanted = i64::from(wanted_s.max(1));
        let actual = actual_s.clamp(wanted / 4, wanted * 4);
        let product = self.0.wrapping_mul(U256::from(actual as u64));
        let value = (product / U256::from(wanted as u64)).min(limit.0);
        (!value.is_zero()).then_some(Self(value))
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> U256 {
        self.0
    }
}
