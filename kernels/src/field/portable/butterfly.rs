//! Butterflies with a constant factor in 21 word products, where a Montgomery product takes 36.
//!
//! For a factor `t` that is known, let `T[i] = t 2^(64 i + 64) mod p`. Then `x t = (x[0] T[0] + .. + x[3] T[3]) / 2^64`, and the
//! sum is just one word longer than `p`: one step of Montgomery's reduction remains. `T[3]` is `t` in arkworks' form, each other
//! one a step of the same reduction away from the next (15 word products in all), so they are made where they are used.
//!
//! Bounds, with `p < 0.1891 * 2^256`, so that `5p < 2^256`: whatever `x` is, the product is below `(4p 2^64 + p 2^64) / 2^64 = 5p`;
//! and [`reduce`] takes any value below `2^256` to below `p + 2^250 < 1.09p`. In a split a value of any size is so reduced before
//! a product below `1.09p` is added, or subtracted and `2p` added: below `3.09p`. In a merge every value stays below `2p`.

use std::marker::PhantomData;

use super::{add, add_product, difference, subtract_once, sum, PortableLanes, Words};
use crate::field::butterfly::Twiddle;
use crate::field::{LaneField, Packed, LANES};

/// `t 2^(64 i + 64) mod p`, by `i`.
type Prepared = [Words; 4];

/// [`Arch::split`](crate::field::Arch::split): takes any values, gives values below `3.09p`.
pub(super) fn split<F: LaneField>(
    left: &mut [PortableLanes<F>],
    right: &mut [PortableLanes<F>],
    twiddle: Twiddle<'_>,
    negated: bool,
) {
    match twiddle {
        Twiddle::One => each_pair(left, right, |x, y| split_plain::<F>(x, y, negated)),
        Twiddle::Same(factor) => {
            let factor = prepare::<F>(factor);
            each_pair(left, right, |x, y| split_pair::<F>(x, y, &factor, negated));
        }
        Twiddle::Each(factors) => {
            each_lane::<F>(left, right, factors, |x, y, factor| split_pair::<F>(x, y, factor, negated));
        }
    }
}

/// [`Arch::merge`](crate::field::Arch::merge): takes and gives values below `2p`.
pub(super) fn merge<F: LaneField>(
    left: &mut [PortableLanes<F>],
    right: &mut [PortableLanes<F>],
    twiddle: Twiddle<'_>,
    negated: bool,
) {
    match twiddle {
        Twiddle::One => each_pair(left, right, |x, y| merge_plain::<F>(x, y, negated)),
        Twiddle::Same(factor) => {
            let factor = prepare::<F>(factor);
            each_pair(left, right, |x, y| merge_pair::<F>(x, y, &factor, negated));
        }
        Twiddle::Each(factors) => {
            each_lane::<F>(left, right, factors, |x, y, factor| merge_pair::<F>(x, y, factor, negated));
        }
    }
}

#[inline(always)]
fn each_pair<F>(
    left: &mut [PortableLanes<F>],
    right: &mut [PortableLanes<F>],
    run: impl Fn(&mut Words, &mut Words),
) {
    for (x, y) in left.iter_mut().zip(right) {
        x.0.iter_mut().zip(&mut y.0).for_each(|(x, y)| run(x, y));
    }
}

#[inline(always)]
fn each_lane<F: LaneField>(
    left: &mut [PortableLanes<F>],
    right: &mut [PortableLanes<F>],
    factors: [&Packed; LANES],
    run: impl Fn(&mut Words, &mut Words, &Prepared),
) {
    for (lane, factor) in factors.into_iter().enumerate() {
        let factor = prepare::<F>(factor);
        for (x, y) in left.iter_mut().zip(right.iter_mut()) {
            run(&mut x.0[lane], &mut y.0[lane], &factor);
        }
    }
}

// The four butterflies are functions of their own: in a loop they would be compiled for four pairs at a time, with more values
// than registers, and take almost twice the time.

#[inline(never)]
fn split_pair<F: LaneField>(x: &mut Words, y: &mut Words, factor: &Prepared, negated: bool) {
    let product = reduce::<F>(&multiply::<F>(y, factor));
    split_product::<F>(x, y, &product, negated);
}

#[inline(never)]
fn split_plain<F: LaneField>(x: &mut Words, y: &mut Words, negated: bool) {
    let product = reduce::<F>(y);
    split_product::<F>(x, y, &product, negated);
}

#[inline(always)]
fn split_product<F: LaneField>(x: &mut Words, y: &mut Words, product: &Words, negated: bool) {
    let plus = sum(&reduce::<F>(x), product);
    let minus = difference(&reduce_and_raise::<F>(x), product).0;
    let (plus_at, minus_at) = if negated { (y, x) } else { (x, y) };
    *plus_at = plus;
    *minus_at = minus;
}

#[inline(never)]
fn merge_pair<F: LaneField>(x: &mut Words, y: &mut Words, factor: &Prepared, negated: bool) {
    let difference = merge_sum::<F>(x, y, negated);
    *y = reduce::<F>(&multiply::<F>(&difference, factor));
}

#[inline(never)]
fn merge_plain<F: LaneField>(x: &mut Words, y: &mut Words, negated: bool) {
    let difference = merge_sum::<F>(x, y, negated);
    *y = reduce::<F>(&difference);
}

/// Leaves the sum in `x`, and gives the difference, below `3.09p`.
#[inline(always)]
fn merge_sum<F: LaneField>(x: &mut Words, y: &Words, negated: bool) -> Words {
    let (from, less) = if negated { (y, &*x) } else { (&*x, y) };
    let difference = difference(&reduce_and_raise::<F>(from), less).0;
    *x = reduce::<F>(&sum(x, y));
    difference
}

/// The multiples of a factor in arkworks' form.
#[inline(always)]
fn prepare<F: LaneField>(factor: &Packed) -> Prepared {
    let mut out = [factor.0; 4];
    for i in (0..3).rev() {
        out[i] = divide_by_word::<F>(&out[i + 1], 0);
    }
    out
}

/// `x * t` for any `x`: below `5p`.
#[inline(always)]
fn multiply<F: LaneField>(x: &Words, t: &Prepared) -> Words {
    let mut total = ([0; 4], 0);
    for (x, t) in x.iter().zip(t) {
        total = add_multiple(total, *x, t);
    }
    divide_by_word::<F>(&total.0, total.1)
}

/// `sum + a * b`, in five words.
#[inline(always)]
fn add_multiple((sum, top): (Words, u64), a: u64, b: &Words) -> (Words, u64) {
    // Two chains of carries: one of the products' low words, one of their high words.
    let products = b.map(|b| u128::from(a) * u128::from(b));
    let (s0, carry) = add(sum[0], products[0] as u64, false);
    let (s1, carry) = add(sum[1], products[1] as u64, carry);
    let (s2, carry) = add(sum[2], products[2] as u64, carry);
    let (s3, carry) = add(sum[3], products[3] as u64, carry);
    let s4 = top + u64::from(carry);
    let (s1, carry) = add(s1, (products[0] >> 64) as u64, false);
    let (s2, carry) = add(s2, (products[1] >> 64) as u64, carry);
    let (s3, carry) = add(s3, (products[2] >> 64) as u64, carry);
    let (s4, _) = add(s4, (products[3] >> 64) as u64, carry);
    ([s0, s1, s2, s3], s4)
}

/// `(x + 2^256 top) / 2^64` modulo `p`: less than `p` more than without the modulus, and below `p` if `x` is and `top` is zero.
#[inline(always)]
fn divide_by_word<F: LaneField>(x: &Words, top: u64) -> Words {
    let p = F::CONSTANTS.modulus_words;
    let m = x[0].wrapping_mul(F::CONSTANTS.inverse_negated_word);
    let (_, carry) = add_product(x[0], m, p[0], 0);
    let (r0, carry) = add_product(x[1], m, p[1], carry);
    let (r1, carry) = add_product(x[2], m, p[2], carry);
    let (r2, carry) = add_product(x[3], m, p[3], carry);
    [r0, r1, r2, top + carry]
}

/// Takes any value to below `p + 2^250`.
#[inline(always)]
fn reduce<F: LaneField>(x: &Words) -> Words {
    difference(x, &entry::<F>(x)[0]).0
}

/// [`reduce`] plus `2p`.
#[inline(always)]
fn reduce_and_raise<F: LaneField>(x: &Words) -> Words {
    difference(x, &entry::<F>(x)[1]).0
}

/// Takes any value to below `p`.
#[inline(always)]
pub(super) fn reduce_fully<F: LaneField>(x: &Words) -> Words {
    subtract_once(&reduce::<F>(x), &F::CONSTANTS.modulus_words)
}

#[inline(always)]
fn entry<F: LaneField>(x: &Words) -> &'static [Words; 2] {
    &Multiples::<F>::TABLE[(x[3] >> 58) as usize]
}

struct Multiples<F>(PhantomData<F>);

impl<F: LaneField> Multiples<F> {
    /// Entry `i` is the largest multiple of `p` up to `i * 2^250`, and that less `2p` modulo `2^256`.
    const TABLE: &'static [[Words; 2]; 64] =
        &multiples(F::CONSTANTS.modulus_words, F::CONSTANTS.modulus_doubled_words);
}

const fn multiples(p: Words, doubled: Words) -> [[Words; 2]; 64] {
    assert!(p[3] < u64::MAX / 5, "5p must be below 2^256");
    let mut table = [[[0; 4]; 2]; 64];
    let mut rest = [0; 4];
    let mut i = 0;
    while i < 64 {
        let (less, negative) = difference(&rest, &p);
        if !negative {
            rest = less;
        }
        let multiple = difference(&[0, 0, 0, (i as u64) << 58], &rest).0;
        table[i] = [multiple, difference(&multiple, &doubled).0];
        rest[3] += 1 << 58;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests;
