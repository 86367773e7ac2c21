//! Many multiples of one point: signed windows, affine additions with shared inversions.
//!
//! A table holds `d * 2^(c j) * G` for every window `j` and digit `d` in `1..=2^(c-1)`; a product is one affine addition a
//! window. A block of products goes through the windows together, so that all its additions share one inversion.

use crate::msm::pairs::{Pairs, BATCH};
use crate::msm::Point;
use ark_bn254::Fr;
use ark_ec::short_weierstrass::{Affine, Projective};
use ark_ec::CurveGroup;
use ark_ff::{AdditiveGroup, PrimeField};
use rayon::prelude::*;

use crate::secret::Secret;

/// Bits of a scalar, one for the carry of signed digits included.
const SCALAR_BITS: u32 = 255;
/// Products that share inversions.
pub(super) const BLOCK: usize = BATCH;

/// The tables of one point.
pub(super) struct FixedBase<P: Point> {
    window: u32,
    /// `2^(window - 1)` multiples for every window.
    multiples: Vec<P>,
}

impl<P: Point> FixedBase<P> {
    /// Tables for about `products` products of `base`. The largest are 18 MiB and 20 MiB.
    pub(super) fn new(base: Affine<P::Curve>, products: usize) -> Self {
        let window = match products {
            0..=1_000 => 6,
            1_001..=100_000 => 10,
            100_001..=1_000_000 => 12,
            _ => 15 - P::WIDTH as u32 / 2,
        };
        Self::with_window(base, window)
    }

    fn with_window(base: Affine<P::Curve>, window: u32) -> Self {
        let mut starts = vec![Projective::<P::Curve>::from(base)];
        for _ in 1..SCALAR_BITS.div_ceil(window) {
            let last = *starts.last().expect("not empty");
            starts.push((0..window).fold(last, |point, _| point.double()));
        }
        let stored = |point: Affine<P::Curve>| P::from_affine(&point).unwrap_or(P::INFINITY);
        let multiples = starts
            .par_iter()
            .flat_map_iter(|start| {
                let start = *start;
                let all: Vec<_> = std::iter::successors(Some(start), |point| Some(*point + start))
                    .take(1 << (window - 1))
                    .collect();
                Projective::normalize_batch(&all).into_iter().map(stored)
            })
            .collect();
        Self { window, multiples }
    }

    /// `scalar * base` for every scalar, in order; [`Point::INFINITY`] for zero.
    pub(super) fn multiply(&self, scalars: &[Fr]) -> Vec<P> {
        let mut sums = vec![P::INFINITY; scalars.len()];
        sums.par_chunks_mut(BLOCK)
            .zip(scalars.par_chunks(BLOCK))
            .for_each_init(|| Pairs::new(false), |pairs, (sums, scalars)| self.block(scalars, sums, pairs));
        sums
    }

    fn block(&self, scalars: &[Fr], sums: &mut [P], pairs: &mut Pairs<P>) {
        let mut remaining = Secret::filled([0; 5], scalars.len());
        for (limbs, scalar) in remaining.iter_mut().zip(scalars) {
            limbs[..4].copy_from_slice(&scalar.into_bigint().0);
        }
        for table in self.multiples.chunks(1 << (self.window - 1)) {
            for (at, limbs) in remaining.iter_mut().enumerate() {
                let digit = next_digit(limbs, self.window);
                if digit == 0 {
                    continue;
                }
                let addend = table[digit.unsigned_abs() as usize - 1].negated_if(digit < 0);
                if sums[at].is_infinity() {
                    sums[at] = addend;
                } else {
                    pairs.push(sums[at], addend, at as u32);
                }
            }
            pairs.flush(|at, sum| sums[at as usize] = sum);
        }
    }
}

/// Takes the lowest signed digit, between `-2^(window-1) + 1` and `2^(window-1)`, off a number of five limbs.
fn next_digit(limbs: &mut [u64; 5], window: u32) -> i32 {
    let low = limbs[0] & ((1 << window) - 1);
    for at in 0..4 {
        limbs[at] = limbs[at] >> window | limbs[at + 1] << (64 - window);
    }
    limbs[4] >>= window;
    if low <= 1 << (window - 1) {
        return low as i32;
    }
    for limb in limbs {
        let (sum, carry) = limb.overflowing_add(1);
        *limb = sum;
        if !carry {
            break;
        }
    }
    low as i32 - (1 << window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msm::{G1Point, G2Point};
    use ark_ec::AffineRepr;
    use ark_ff::{Field, UniformRand};

    fn agrees<P: Point>(window: u32) {
        let base = Affine::<P::Curve>::generator();
        let tables = FixedBase::<P>::with_window(base, window);
        let mut rng = ark_std::test_rng();
        let half = 1u64 << (window - 1);
        let mut scalars: Vec<Fr> = (0..40).map(|_| Fr::rand(&mut rng)).collect();
        scalars.extend([0, 1, 2, half - 1, half, half + 1, 2 * half - 1, 2 * half].map(Fr::from));
        scalars.extend([0, 1, 2, half, half + 1].map(|value| -Fr::from(value)));
        // Sums that meet their own addend or its negative: (r + k 2^j) / 2 and its neighbours.
        let two_inverse = Fr::from(2u64).inverse().unwrap();
        for shift in 0..254 {
            scalars.push(Fr::from(2u64).pow([shift]) * two_inverse);
            scalars.push(-Fr::from(2u64).pow([shift]) * two_inverse);
        }
        let expected: Vec<_> = scalars.iter().map(|scalar| (base * scalar).into_affine()).collect();
        let products: Vec<_> = tables.multiply(&scalars).iter().map(Point::affine_or_infinity).collect();
        assert!(products == expected, "window {window}");
    }

    #[test]
    fn products_are_those_of_arkworks() {
        for window in [4, 6, 9] {
            agrees::<G1Point>(window);
        }
        agrees::<G2Point>(5);
    }
}
