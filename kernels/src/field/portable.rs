//! Eight elements one after another, in plain Rust: works everywhere, and is what the vector lanes are tested against.
//!
//! The form is arkworks' (four words, Montgomery, `R = 2^256`), but values are only kept below `2p`, without branches: signs of
//! differences cannot be predicted. As `p < 0.19 R`, a product of values below `2p` is below `4 p^2 / R + p < 2p` before
//! any subtraction, and no carry leaves the fourth word ("no-carry" CIOS, Acar 1998 and gnark).
//!
//! Operations are functions of their own, compiled once, with a loop over the lanes: copied to every place they would not fit
//! in the instruction cache.

mod butterfly;

use super::{Arch, LaneField, Lanes, Packed, Routine, Twiddle, LANES};
use ark_ff::BigInt;
use std::marker::PhantomData;

/// No special instructions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

/// Eight elements in arkworks' form, below `2p`.
#[derive(Clone, Copy, Debug)]
pub struct PortableLanes<F>([Words; LANES], PhantomData<F>);

/// Four words of 64 bits, little-endian.
type Words = [u64; 4];

impl Arch for Portable {
    type Lanes<F: LaneField> = PortableLanes<F>;

    const NAME: &'static str = "portable";

    #[inline(never)]
    fn call<R: Routine<Self>>(self, routine: R) -> R::Output {
        routine.run(self)
    }

    #[inline(always)]
    fn load<F: LaneField>(self, elements: &[F; LANES]) -> PortableLanes<F> {
        self.load_refs(elements.each_ref())
    }

    #[inline(always)]
    fn load_refs<F: LaneField>(self, elements: [&F; LANES]) -> PortableLanes<F> {
        self.unpack_words(elements.map(|element| element.montgomery_words()))
    }

    #[inline(always)]
    fn load_integers<F: LaneField>(self, integers: &[Words; LANES]) -> PortableLanes<F> {
        self.load(
            &integers.map(|words| F::from_bigint(BigInt(words)).expect("integers must be below the modulus")),
        )
    }

    #[inline(always)]
    fn unpack_words<F: LaneField>(self, words: [&Words; LANES]) -> PortableLanes<F> {
        let mut out = [[0; 4]; LANES];
        for (out, words) in out.iter_mut().zip(words) {
            *out = *words;
        }
        lanes(out)
    }

    #[inline(always)]
    fn unpack_splat<F: LaneField>(self, packed: &Packed) -> PortableLanes<F> {
        lanes([packed.0; LANES])
    }

    #[inline(always)]
    fn splat<F: LaneField>(self, element: F) -> PortableLanes<F> {
        lanes([*element.montgomery_words(); LANES])
    }

    #[inline(always)]
    fn zero<F: LaneField>(self) -> PortableLanes<F> {
        lanes([[0; 4]; LANES])
    }

    #[inline(always)]
    fn one<F: LaneField>(self) -> PortableLanes<F> {
        self.splat(F::ONE)
    }

    #[inline(always)]
    fn split<F: LaneField>(
        self,
        left: &mut [PortableLanes<F>],
        right: &mut [PortableLanes<F>],
        twiddle: Twiddle<'_>,
        negated: bool,
    ) {
        butterfly::split(left, right, twiddle, negated);
    }

    #[inline(always)]
    fn finish_split<F: LaneField>(self, lanes: PortableLanes<F>) -> [Packed; LANES] {
        lanes.0.each_ref().map(|words| Packed(butterfly::reduce_fully::<F>(words)))
    }

    #[inline(always)]
    fn merge<F: LaneField>(
        self,
        left: &mut [PortableLanes<F>],
        right: &mut [PortableLanes<F>],
        twiddle: Twiddle<'_>,
        negated: bool,
    ) {
        butterfly::merge(left, right, twiddle, negated);
    }
}

impl<F: LaneField> Lanes<F> for PortableLanes<F> {
    #[inline(always)]
    fn store(self) -> [F; LANES] {
        self.pack().map(|words| F::from_montgomery_words(words.0))
    }

    #[inline(always)]
    fn store_integers(self) -> [Words; LANES] {
        self.store().map(|element| element.into_bigint().0)
    }

    #[inline(always)]
    fn pack(self) -> [Packed; LANES] {
        let mut out = [Packed::default(); LANES];
        for (out, words) in out.iter_mut().zip(&self.0) {
            out.0 = subtract_once(words, &F::CONSTANTS.modulus_words);
        }
        out
    }

    #[inline(always)]
    fn add(self, rhs: Self) -> Self {
        lanes(add_each::<F>(&self.0, &rhs.0))
    }

    #[inline(always)]
    fn sub(self, rhs: Self) -> Self {
        lanes(sub_each::<F>(&self.0, &rhs.0))
    }

    #[inline(always)]
    fn neg(self) -> Self {
        lanes([[0; 4]; LANES]).sub(self)
    }

    #[inline(always)]
    fn negate_where(self, mask: u8) -> Self {
        lanes(negate_each::<F>(&self.0, mask))
    }

    #[inline(always)]
    fn mul(self, rhs: Self) -> Self {
        lanes(mul_each::<F>(&self.0, &rhs.0))
    }

    #[inline(always)]
    fn mul_raw(self, rhs: Self) -> Self {
        self.mul(rhs)
    }

    #[inline(always)]
    fn square(self) -> Self {
        // A product is as fast as a square with its six mixed products made once, which needs more registers than there are.
        self.mul(self)
    }

    #[inline(always)]
    fn zero_mask(self) -> u8 {
        (0..LANES).fold(0, |mask, i| {
            let is_zero = self.0[i] == [0; 4] || self.0[i] == F::CONSTANTS.modulus_words;
            mask | u8::from(is_zero) << i
        })
    }

    #[inline(always)]
    fn select(mask: u8, on: Self, off: Self) -> Self {
        lanes(std::array::from_fn(|i| {
            let bits = u64::from(mask >> i & 1).wrapping_neg();
            std::array::from_fn(|word| on.0[i][word] & bits | off.0[i][word] & !bits)
        }))
    }

    #[inline(always)]
    fn add_raw(self, rhs: Self) -> Self {
        self.add(rhs)
    }

    #[inline(always)]
    fn sub_raw(self, rhs: Self) -> Self {
        self.sub(rhs)
    }

    #[inline(always)]
    fn carry(self) -> Self {
        self
    }

    #[inline(always)]
    fn shrink(self) -> Self {
        self
    }
}

#[inline(always)]
fn lanes<F>(words: [Words; LANES]) -> PortableLanes<F> {
    PortableLanes(words, PhantomData)
}

#[inline(never)]
fn mul_each<F: LaneField>(a: &[Words; LANES], b: &[Words; LANES]) -> [Words; LANES] {
    let mut out = [[0; 4]; LANES];
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = mul::<F>(a, b);
    }
    out
}

#[inline(never)]
fn add_each<F: LaneField>(a: &[Words; LANES], b: &[Words; LANES]) -> [Words; LANES] {
    let mut out = [[0; 4]; LANES];
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        // a - (2p - b)
        *out = subtract::<F>(a, &difference(&F::CONSTANTS.modulus_doubled_words, b).0);
    }
    out
}

#[inline(never)]
fn sub_each<F: LaneField>(a: &[Words; LANES], b: &[Words; LANES]) -> [Words; LANES] {
    let mut out = [[0; 4]; LANES];
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = subtract::<F>(a, b);
    }
    out
}

/// `-a` in the lanes of `mask`, `a` in the others.
#[inline(never)]
fn negate_each<F: LaneField>(a: &[Words; LANES], mask: u8) -> [Words; LANES] {
    let mut out = [[0; 4]; LANES];
    for (lane, (out, a)) in out.iter_mut().zip(a).enumerate() {
        let bits = u64::from(mask >> lane & 1).wrapping_neg();
        let negative = subtract::<F>(&[0; 4], a);
        for word in 0..4 {
            out[word] = a[word] ^ (a[word] ^ negative[word]) & bits;
        }
    }
    out
}

/// `a - b`, or `a - b + 2p` where that is negative.
#[inline(always)]
fn subtract<F: LaneField>(a: &Words, b: &Words) -> Words {
    let (difference, borrow) = difference(a, b);
    let mask = u64::from(borrow).wrapping_neg();
    let [p0, p1, p2, p3] = F::CONSTANTS.modulus_doubled_words;
    sum(&difference, &[p0 & mask, p1 & mask, p2 & mask, p3 & mask])
}

/// Montgomery product.
#[inline(always)]
fn mul<F: LaneField>(a: &Words, b: &Words) -> Words {
    // Written out: as a loop it is compiled as one.
    let t = add_product_and_fold::<F>([0; 4], a, b[0]);
    let t = add_product_and_fold::<F>(t, a, b[1]);
    let t = add_product_and_fold::<F>(t, a, b[2]);
    add_product_and_fold::<F>(t, a, b[3])
}

/// `(t + a * b + m p) / 2^64`, with the `m` for which that is an integer. Below `a + p` if `t` is, and that is below `2^256`.
#[inline(always)]
fn add_product_and_fold<F: LaneField>(t: Words, a: &Words, b: u64) -> Words {
    let p = F::CONSTANTS.modulus_words;
    let (t0, over) = add_product(t[0], a[0], b, 0);
    let m = t0.wrapping_mul(F::CONSTANTS.inverse_negated_word);
    let (_, over_p) = add_product(t0, m, p[0], 0);
    let (t1, over) = add_product(t[1], a[1], b, over);
    let (r0, over_p) = add_product(t1, m, p[1], over_p);
    let (t2, over) = add_product(t[2], a[2], b, over);
    let (r1, over_p) = add_product(t2, m, p[2], over_p);
    let (t3, over) = add_product(t[3], a[3], b, over);
    let (r2, over_p) = add_product(t3, m, p[3], over_p);
    [r0, r1, r2, over + over_p]
}

/// The low and the high word of `t + a * b + carry`.
#[inline(always)]
fn add_product(t: u64, a: u64, b: u64, carry: u64) -> (u64, u64) {
    let sum = u128::from(a) * u128::from(b) + u128::from(t) + u128::from(carry);
    (sum as u64, (sum >> 64) as u64)
}

#[inline(always)]
fn add(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let (sum, over) = a.overflowing_add(b);
    let (sum, more) = sum.overflowing_add(u64::from(carry));
    (sum, over | more)
}

#[inline(always)]
const fn sub(a: u64, b: u64, borrow: bool) -> (u64, bool) {
    let (difference, under) = a.overflowing_sub(b);
    let (difference, more) = difference.overflowing_sub(borrow as u64);
    (difference, under | more)
}

/// `a + b` modulo `2^256`.
#[inline(always)]
fn sum(a: &Words, b: &Words) -> Words {
    let (s0, carry) = add(a[0], b[0], false);
    let (s1, carry) = add(a[1], b[1], carry);
    let (s2, carry) = add(a[2], b[2], carry);
    let (s3, _) = add(a[3], b[3], carry);
    [s0, s1, s2, s3]
}

/// `a - b` modulo `2^256`, and whether it is negative.
#[inline(always)]
const fn difference(a: &Words, b: &Words) -> (Words, bool) {
    let (d0, borrow) = sub(a[0], b[0], false);
    let (d1, borrow) = sub(a[1], b[1], borrow);
    let (d2, borrow) = sub(a[2], b[2], borrow);
    let (d3, borrow) = sub(a[3], b[3], borrow);
    ([d0, d1, d2, d3], borrow)
}

/// `a`, or `a - modulus` where that is not negative.
#[inline(always)]
fn subtract_once(a: &Words, modulus: &Words) -> Words {
    let (mut less, negative) = difference(a, modulus);
    let mask = u64::from(negative).wrapping_neg();
    for (less, a) in less.iter_mut().zip(a) {
        *less ^= (*less ^ a) & mask;
    }
    less
}
