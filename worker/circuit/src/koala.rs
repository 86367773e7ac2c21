//! KoalaBear elements inside BN254's scalar field, reduced lazily.
//!
//! A [`Felt`] is a linear combination whose value is an *integer* in a known interval, congruent to the element modulo
//! `p = 2^31 - 2^24 + 1`. Additions and products work on those integers; as every magnitude stays below `2^250` and
//! BN254's modulus is above `2^253`, nothing wraps, so equations in the big field are equations of integers.
//!
//! # Reduction
//! `x` in `[lo, hi]` is replaced by a new variable `r`, range-checked below `2^31`, with `x - r = p (q + q_min)` and `q` below
//! `2^n`, where `q_min = floor(lo / p)` and `n` is the length of `floor(hi / p) - q_min`. There is no variable for `q`: it *is* the
//! combination `(x - r) / p - q_min`, on which the range check is made. Sound: if `q` is a sum of `n` bits, then
//! `x - r = p (q + q_min)` holds in the big field and, both sides being below `2^252`, over the integers.
//! `r` may be `r' + p` for the canonical `r' < 2^24 - 1`: nobody may rely on `r` being canonical, only on the class and on
//! the 31 bits; where bits are handed out, [`Builder::canonical`] forbids it.
//!
//! # Equality
//! `x = 0 mod p` needs only `q`, from `ceil(lo / p)` to `floor(hi / p)`, so its cost is the length of `hi - lo` less 31.

use crate::builder::Builder;
use crate::error::CircuitError;
use crate::interval::Interval;
use crate::lc::Lc;
use crate::stats::Kind;
use crate::steps::{signed, Step};
use ark_bn254::Fr;
use ark_ff::{BigInteger256, Field, PrimeField};
use num_bigint::{BigInt, Sign};
use num_integer::Integer;
use num_traits::Zero;

/// The KoalaBear prime.
pub(crate) const P: u32 = (1 << 31) - (1 << 24) + 1;
/// Bits of a reduced element.
pub(crate) const BITS: u32 = 31;
/// No value's magnitude has more bits.
pub(crate) const BITS_MAX: u32 = 250;
/// Longer combinations become a variable before they are multiplied.
const FACTOR_TERMS_MAX: usize = 24;

/// A KoalaBear element: the class modulo [`P`] of the integer `lc`, which is in `range`.
#[derive(Clone, Debug)]
pub(crate) struct Felt {
    /// The value.
    pub(crate) lc: Lc,
    /// What is known of it as an integer.
    pub(crate) range: Interval,
}

/// The integer as an element of BN254's scalar field.
pub(crate) fn fr_from_integer(value: &BigInt) -> Fr {
    let mut limbs = [0u64; 4];
    for (limb, digit) in limbs.iter_mut().zip(value.magnitude().iter_u64_digits()) {
        *limb = digit;
    }
    let magnitude = Fr::from_bigint(BigInteger256::new(limbs)).expect("bounds are below the modulus");
    if value.sign() == Sign::Minus {
        -magnitude
    } else {
        magnitude
    }
}

/// The representative of `value` between `-p/2` and `p/2`.
fn centred(value: i64) -> i64 {
    let p = i64::from(P);
    let reduced = value.rem_euclid(p);
    if reduced > p / 2 {
        reduced - p
    } else {
        reduced
    }
}

impl Felt {
    /// A constant, stored as the representative of least magnitude.
    pub(crate) fn constant(value: i64) -> Self {
        let value = centred(value);
        Self { lc: Lc::constant(Fr::from(value)), range: Interval::exactly(value) }
    }

    /// The constant's value, if it is one. The interval may be wider: terms can cancel.
    pub(crate) fn as_constant(&self) -> Option<i64> {
        let value = self.lc.as_constant()?;
        let small = |value: Fr| i64::try_from(value.into_bigint().as_ref().first().copied()?).ok();
        let signed = |value: Fr| small(value).filter(|small| Fr::from(*small) == value);
        signed(value).or_else(|| signed(-value).map(|negated| -negated))
    }

    /// Whether this is the constant zero.
    pub(crate) fn is_zero(&self) -> bool {
        self.as_constant() == Some(0)
    }

    /// Bits of the largest magnitude.
    pub(crate) fn bits(&self) -> u32 {
        self.range.bits()
    }

    /// `self * factor` for a small constant.
    pub(crate) fn scale(&self, factor: i64) -> Self {
        if let Some(value) = self.as_constant() {
            return Self::constant((value * centred(factor)) % i64::from(P));
        }
        Self { lc: self.lc.scale(Fr::from(factor)), range: self.range.scale(factor) }
    }

    fn combine(&self, other: &Self, sign: i64) -> Self {
        if let (Some(a), Some(b)) = (self.as_constant(), other.as_constant()) {
            return Self::constant(a + sign * b);
        }
        let range = if sign > 0 { self.range.add(&other.range) } else { self.range.sub(&other.range) };
        Self { lc: self.lc.add_scaled(&other.lc, Fr::from(sign)), range }
    }

    /// `self + other`, without any check of the bound.
    pub(crate) fn add(&self, other: &Self) -> Self {
        self.combine(other, 1)
    }

    /// `self - other`, without any check of the bound.
    pub(crate) fn sub(&self, other: &Self) -> Self {
        self.combine(other, -1)
    }
}

impl Builder {
    /// Whether `x` is known not to be zero modulo the prime: a constant, or a constant times a variable noted in
    /// [`Builder::nonzero`].
    pub(crate) fn is_nonzero(&self, x: &Felt) -> bool {
        if let Some(value) = x.as_constant() {
            return value != 0;
        }
        let [(var, factor)] = x.lc.terms() else { return false };
        // The factor is an integer: bounds are exact and the variable takes the value one or more.
        self.nonzero.contains(var) && !signed(*factor).mod_floor(&BigInt::from(P)).is_zero()
    }

    /// A representative of `x` in `0 .. 2^31`.
    pub(crate) fn reduce(&mut self, x: &Felt) -> Felt {
        if let Some(value) = x.as_constant() {
            let value = value.rem_euclid(i64::from(P));
            return Felt { lc: Lc::constant(Fr::from(value)), range: Interval::exactly(value) };
        }
        if x.range.fits_unsigned(BITS) {
            return x.clone();
        }
        assert!(x.bits() <= BITS_MAX, "bounds are kept below 2^250");
        let p = BigInt::from(P);
        let least = x.range.lo.div_floor(&p);
        let bits = bit_length(&(x.range.hi.div_floor(&p) - &least));
        let var = self.alloc(BITS + bits.saturating_sub(1));
        let r = Lc::var(var);
        let q = self.quotient_of(&x.lc.sub(&r), &least);
        let (hint, integer) = (self.hint(&x.lc), self.integer(least));
        self.steps.push(Step::Reduce { hint, integer, var, bits });
        self.range(Kind::Reduction, &r, BITS, var + 1);
        self.range(Kind::Reduction, &q, bits, var + BITS);
        if self.is_nonzero(x) {
            self.nonzero.insert(var);
        }
        Felt { lc: r, range: Interval::unsigned(BITS) }
    }

    /// `difference / p - least`.
    fn quotient_of(&self, difference: &Lc, least: &BigInt) -> Lc {
        let inverse = Fr::from(P).inverse().expect("the prime is not zero");
        difference.scale(inverse).add_constant(-fr_from_integer(least))
    }

    /// Rows that say that `x` is zero modulo the prime.
    ///
    /// # Errors
    /// If no value in `x`'s interval is a multiple of the prime.
    pub(crate) fn assert_zero(&mut self, x: &Felt) -> Result<(), CircuitError> {
        assert!(x.bits() <= BITS_MAX, "bounds are kept below 2^250");
        let p = BigInt::from(P);
        let (least, most) = (x.range.lo.div_ceil(&p), x.range.hi.div_floor(&p));
        let constant_holds = x.as_constant().map(|value| value.rem_euclid(i64::from(P)) == 0);
        if least > most || constant_holds == Some(false) {
            return Err(CircuitError::Unsupported { message: "an equality that never holds".to_owned() });
        }
        if constant_holds.is_some() {
            return Ok(());
        }
        let bits = bit_length(&(most - &least));
        let q = self.quotient_of(&x.lc, &least);
        if bits == 0 {
            self.linear(Kind::Equality, &x.lc.add_constant(-fr_from_integer(&(least * p))));
            return Ok(());
        }
        let var = self.alloc(bits - 1);
        let (hint, integer) = (self.hint(&x.lc), self.integer(least));
        self.steps.push(Step::Multiple { hint, integer, var, bits });
        self.range(Kind::Equality, &q, bits, var);
        Ok(())
    }

    /// Rows that say that the value with bits `bits` (from `0 .. 2^31`, least first) is below the prime.
    ///
    /// `p = 127 * 2^24 + 1`: the value is at least `p` exactly if bits 24 to 30 are all one and bits 0 to 23 are not all
    /// zero. With `s` the number of ones among the high bits and `l` the low part, `(s - 7) t = l` has a solution `t` exactly if
    /// `s != 7` or `l = 0`.
    pub(crate) fn canonical(&mut self, bits: &[Lc]) {
        let mut low = Lc::default();
        let mut high = Lc::constant(-Fr::from(7u64));
        for (i, bit) in bits.iter().enumerate() {
            match i {
                0..=23 => low = low.add_scaled(bit, Fr::from(1u64 << i)),
                _ => high = high.add(bit),
            }
        }
        self.quotient(Kind::Bits, &high, &low);
    }

    /// The bits of the representative of `x` below the prime.
    pub(crate) fn canonical_bits(&mut self, x: &Felt) -> (Vec<Lc>, Felt) {
        if let Some(value) = x.as_constant() {
            let value = value.rem_euclid(i64::from(P));
            let bits = (0..BITS).map(|i| Lc::constant(Fr::from((value >> i) & 1))).collect();
            return (bits, x.clone());
        }
        let bits_of = |lowest: Lc, first: u32| -> Vec<Lc> {
            std::iter::once(lowest).chain((first..first + BITS - 1).map(Lc::var)).collect()
        };
        assert!(x.bits() <= BITS_MAX, "bounds are kept below 2^250");
        // A value that is already reduced has bits elsewhere, but finding them is not worth it: this is rare.
        let p = BigInt::from(P);
        let least = x.range.lo.div_floor(&p);
        let bits = bit_length(&(x.range.hi.div_floor(&p) - &least));
        let var = self.alloc(BITS + bits.saturating_sub(1));
        let r = Lc::var(var);
        let q = self.quotient_of(&x.lc.sub(&r), &least);
        let (hint, integer) = (self.hint(&x.lc), self.integer(least));
        self.steps.push(Step::Reduce { hint, integer, var, bits });
        let lowest = self.range(Kind::Bits, &r, BITS, var + 1);
        self.range(Kind::Bits, &q, bits, var + BITS);
        let all = bits_of(lowest, var + 1);
        self.canonical(&all);
        (all, Felt { lc: r, range: Interval::unsigned(BITS) })
    }

    /// `a * b`; the product of the bounds must fit.
    pub(crate) fn mul(&mut self, a: &Felt, b: &Felt) -> Felt {
        if let Some(factor) = a.as_constant() {
            return b.scale(factor);
        }
        if let Some(factor) = b.as_constant() {
            return a.scale(factor);
        }
        let range = a.range.mul(&b.range);
        assert!(range.bits() <= BITS_MAX, "factors are reduced before they are multiplied");
        let left = self.compact(a.lc.clone(), FACTOR_TERMS_MAX);
        let right = self.compact(b.lc.clone(), FACTOR_TERMS_MAX);
        let var = self.product(Kind::Product, &left, &right);
        if self.is_nonzero(a) && self.is_nonzero(b) {
            self.nonzero.insert(var);
        }
        Felt { lc: Lc::var(var), range }
    }

    /// `1 / x` in `0 .. 2^31`.
    ///
    /// # Errors
    /// If `x` is the constant zero.
    pub(crate) fn inverse(&mut self, x: &Felt) -> Result<Felt, CircuitError> {
        if let Some(value) = x.as_constant() {
            let inverse = invert(value.rem_euclid(i64::from(P)) as u64);
            return match inverse {
                0 => Err(CircuitError::Unsupported { message: "division by the constant zero".to_owned() }),
                value => Ok(Felt::constant(value as i64)),
            };
        }
        let x = if x.bits() + BITS > BITS_MAX { self.reduce(x) } else { x.clone() };
        let var = self.alloc(BITS);
        let hint = self.hint(&x.lc);
        self.steps.push(Step::Inverse { hint, var });
        let y = Lc::var(var);
        self.range(Kind::Inverse, &y, BITS, var + 1);
        let y = Felt { lc: y, range: Interval::unsigned(BITS) };
        let product = self.mul(&x, &y);
        self.assert_zero(&product.sub(&Felt::constant(1)))?;
        Ok(y)
    }

    /// Rows that say that `x` is not zero modulo the prime.
    pub(crate) fn assert_nonzero(&mut self, x: &Felt) {
        let (_, canonical) = self.canonical_bits(x);
        self.quotient(Kind::Equality, &canonical.lc, &Self::one());
    }

    /// A value of the proof in `0 .. 2^31` (or 0, 1 for `bits = 1`).
    pub(crate) fn witness_felt(&mut self, source: crate::ir::Source, bits: u32) -> Felt {
        let var = self.alloc(bits);
        self.steps.push(Step::InputFelt { var, source, bits: bits as u8 });
        let lc = Lc::var(var);
        self.range(Kind::Witness, &lc, bits, var + 1);
        Felt { lc, range: Interval::unsigned(bits) }
    }
}

/// Length of a non-negative integer.
fn bit_length(value: &BigInt) -> u32 {
    debug_assert!(value.sign() != Sign::Minus);
    if value.is_zero() {
        return 0;
    }
    u32::try_from(value.bits()).expect("bounds have fewer than 2^32 bits")
}

/// The inverse modulo the KoalaBear prime; zero for zero.
pub(crate) fn invert(value: u64) -> u64 {
    let p = u64::from(P);
    let (mut result, mut base, mut exponent) = (1u64, value % p, p - 2);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * base % p;
        }
        base = base * base % p;
        exponent >>= 1;
    }
    result
}
