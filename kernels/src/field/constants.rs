//! Constants of the 5 x 52-bit and the 4 x 64-bit form, computed from the modulus at compile time.

use std::marker::PhantomData;

use ark_ff::{BigInt, Fp, MontBackend, MontConfig, PrimeField};

/// A prime field below `2^254` that eight-lane arithmetic supports: [`ark_bn254::Fr`] and [`ark_bn254::Fq`].
pub trait LaneField: PrimeField<BigInt = BigInt<4>> {
    /// Constants derived from the modulus.
    const CONSTANTS: Constants;

    /// The four words of arkworks' Montgomery form (`R = 2^256`).
    fn montgomery_words(&self) -> &[u64; 4];

    /// The element whose Montgomery form (`R = 2^256`) is `words`, which must be below the modulus.
    fn from_montgomery_words(words: [u64; 4]) -> Self;
}

impl<T: MontConfig<4>> LaneField for Fp<MontBackend<T, 4>, 4> {
    const CONSTANTS: Constants = Constants::new(T::MODULUS.0);

    #[inline(always)]
    fn montgomery_words(&self) -> &[u64; 4] {
        &self.0 .0
    }

    #[inline(always)]
    fn from_montgomery_words(words: [u64; 4]) -> Self {
        Fp(BigInt(words), PhantomData)
    }
}

/// Low 52 bits.
pub(crate) const MASK_52: u64 = (1 << 52) - 1;

/// What the arithmetic needs to know of a modulus `p`. Five-limb numbers are little-endian, 52 bits a limb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constants {
    /// `p`.
    pub modulus: [u64; 5],
    /// `2p`.
    pub modulus_doubled: [u64; 5],
    /// `2^260 - p`.
    pub modulus_negated: [u64; 5],
    /// `-1/p mod 2^52`.
    pub inverse_negated: u64,
    /// `floor(2^260 / p)`: one top limb times this, over `2^52`, estimates a quotient by `p`.
    pub quotient_factor: u64,
    /// `2^260 mod p`: one, in this form.
    pub one: [u64; 5],
    /// `2^264 mod p`: a product with it turns arkworks' form into this one.
    pub from_ark: [u64; 5],
    /// `2^256 mod p`: a product with it turns this form into arkworks'.
    pub to_ark: [u64; 5],
    /// `2^520 mod p`: a product with it turns an integer into this form.
    pub from_integer: [u64; 5],
    /// `p` in words of 64 bits.
    pub modulus_words: [u64; 4],
    /// `2p` in words of 64 bits.
    pub modulus_doubled_words: [u64; 4],
    /// `-1/p mod 2^64`.
    pub inverse_negated_word: u64,
    /// `2^768 mod p` in words of 64 bits, for the form with `R = 2^256`.
    pub cubed: [u64; 4],
}

impl Constants {
    /// Derives all from the modulus, which must be odd and in `2^252..2^254`.
    ///
    /// # Panics
    /// For any other modulus; at compile time, where it is used in a constant.
    #[must_use]
    pub const fn new(p: [u64; 4]) -> Self {
        assert!(
            p[3] >> 62 == 0 && p[3] >> 60 != 0 && p[0] & 1 == 1,
            "modulus must be odd and in 2^252..2^254"
        );
        let modulus = split(p);
        Self {
            modulus,
            modulus_doubled: split(shift_left_once(p)),
            modulus_negated: complement(modulus),
            inverse_negated: inverse_negated(p[0]) & MASK_52,
            quotient_factor: quotient_factor(p),
            one: split(power_of_two(p, 260)),
            from_ark: split(power_of_two(p, 264)),
            to_ark: split(power_of_two(p, 256)),
            from_integer: split(power_of_two(p, 520)),
            modulus_words: p,
            modulus_doubled_words: shift_left_once(p),
            inverse_negated_word: inverse_negated(p[0]),
            cubed: power_of_two(p, 768),
        }
    }
}

/// Cuts four 64-bit words into five limbs of 52 bits (the last one of 48).
#[inline(always)]
pub(crate) const fn split(w: [u64; 4]) -> [u64; 5] {
    [
        w[0] & MASK_52,
        (w[0] >> 52 | w[1] << 12) & MASK_52,
        (w[1] >> 40 | w[2] << 24) & MASK_52,
        (w[2] >> 28 | w[3] << 36) & MASK_52,
        w[3] >> 16,
    ]
}

const fn shift_left_once(w: [u64; 4]) -> [u64; 4] {
    [w[0] << 1, w[1] << 1 | w[0] >> 63, w[2] << 1 | w[1] >> 63, w[3] << 1 | w[2] >> 63]
}

const fn at_least(a: [u64; 4], b: [u64; 4]) -> bool {
    let mut i = 4;
    while i > 0 {
        i -= 1;
        if a[i] != b[i] {
            return a[i] > b[i];
        }
    }
    true
}

const fn minus(a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
    let mut out = [0; 4];
    let mut borrow = false;
    let mut i = 0;
    while i < 4 {
        let (d, b1) = a[i].overflowing_sub(b[i]);
        let (d, b2) = d.overflowing_sub(borrow as u64);
        out[i] = d;
        borrow = b1 | b2;
        i += 1;
    }
    out
}

/// `2^exponent mod p`, by doubling.
const fn power_of_two(p: [u64; 4], exponent: u32) -> [u64; 4] {
    let mut x = [1, 0, 0, 0];
    let mut i = 0;
    while i < exponent {
        x = shift_left_once(x);
        if at_least(x, p) {
            x = minus(x, p);
        }
        i += 1;
    }
    x
}

/// `2^260 - x`, for `x` not zero.
const fn complement(x: [u64; 5]) -> [u64; 5] {
    let mut out = [0; 5];
    let mut carry = 1;
    let mut i = 0;
    while i < 5 {
        let limb = (!x[i] & MASK_52) + carry;
        out[i] = limb & MASK_52;
        carry = limb >> 52;
        i += 1;
    }
    out
}

/// `-1/p mod 2^64`, by Newton's iteration.
const fn inverse_negated(p0: u64) -> u64 {
    let mut inverse = 1u64;
    let mut i = 0;
    while i < 6 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(p0.wrapping_mul(inverse)));
        i += 1;
    }
    inverse.wrapping_neg()
}

/// `floor(2^260 / p)`, by long division one bit at a time.
const fn quotient_factor(p: [u64; 4]) -> u64 {
    let mut quotient = 0;
    let mut remainder = [1, 0, 0, 0];
    let mut i = 0;
    while i < 260 {
        remainder = shift_left_once(remainder);
        quotient <<= 1;
        if at_least(remainder, p) {
            remainder = minus(remainder, p);
            quotient |= 1;
        }
        i += 1;
    }
    quotient
}
