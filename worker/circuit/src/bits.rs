//! The bits of elements of BN254's scalar field.
//!
//! 254 bits can also spell `v + r` for the modulus `r` and small `v`, so the bits must be compared with `r`. They are compared
//! with `T <= r`, the first [`COMPARED`] bits of `r` followed by zeros, which is much cheaper and refuses only values in `T .. r`: one in
//! `2^(COMPARED - 2)` of the outputs of a permutation, so an honest proof is refused with probability below `2^-52`.
//!
//! With `S` the positions above some run of zeros of `T` at which `T` has a one, and `Z` that run: if all bits at `S` are set,
//! those at `Z` must be clear, that is `(|S| - sum of bits at S) t = sum of bits at Z` has a solution `t`. Finally
//! not all bits at ones of `T` may be set. Then the first position at which the bits differ from `T` is one at which `T` has a one, so they
//! spell a number below `T`; and conversely.

use crate::builder::Builder;
use crate::error::CircuitError;
use crate::lc::Lc;
use crate::stats::Kind;
use crate::steps::Step;
use ark_bn254::Fr;
use ark_ff::{BigInteger, PrimeField, Zero};

/// Bits of the modulus.
const BITS: u32 = 254;
/// Leading bits of the modulus that are compared.
const COMPARED: u32 = 64;

impl Builder {
    /// The `count` lowest bits of `value`, least first; those beyond 254 are zero.
    ///
    /// # Errors
    /// For 254 and more, none. Fewer bits assert that `value` is that small; 253 are refused as a sum may wrap.
    pub(crate) fn bits_of(&mut self, value: &Lc, count: usize) -> Result<Vec<Lc>, CircuitError> {
        let bits = BITS.min(u32::try_from(count).unwrap_or(BITS));
        if bits == 253 || bits == 0 {
            return Err(CircuitError::Unsupported { message: format!("a decomposition into {count} bits") });
        }
        let var = self.alloc(bits - 1);
        let hint = self.hint(value);
        self.steps.push(Step::Bits { hint, var, bits: bits as u16 });
        let lowest = self.range(Kind::Bits, value, bits, var);
        let mut out: Vec<Lc> = std::iter::once(lowest).chain((var..var + bits - 1).map(Lc::var)).collect();
        if bits == BITS {
            self.below_modulus(&out);
        }
        out.resize(count, Lc::default());
        Ok(out)
    }

    fn below_modulus(&mut self, bits: &[Lc]) {
        let modulus = Fr::MODULUS.to_bits_le();
        // Number of ones of the modulus so far, less how many of them are set.
        let mut missing = Lc::default();
        let mut ones = 0u64;
        let mut zeros = Lc::default();
        for i in (BITS - COMPARED..BITS).rev().map(|i| i as usize) {
            if !modulus[i] {
                zeros = zeros.add(&bits[i]);
                continue;
            }
            if zeros.len() > 0 {
                self.quotient(Kind::Bits, &missing.add_constant(Fr::from(ones)), &zeros);
                zeros = Lc::default();
            }
            missing = missing.sub(&bits[i]);
            ones += 1;
        }
        let missing = missing.add_constant(Fr::from(ones));
        if zeros.len() > 0 {
            self.quotient(Kind::Bits, &missing, &zeros);
        }
        self.quotient(Kind::Bits, &missing, &Self::one());
        debug_assert!(!missing.as_constant().is_some_and(|value| value.is_zero()));
    }
}
