//! Multi-scalar multiplication over BN254's groups, on points as they lie in a memory-mapped key.
//!
//! Pippenger's buckets with signed windows. Per window: the entries are sorted by bucket, each bucket is summed by a tree of
//! affine additions that share inversions, eight at a time ([`crate::field`]), and the buckets are weighed and added.
//! Zero windows cost nothing, so scalars that are 0, 1, -1 or small are cheap. Every case is covered: equal points, opposite
//! points, hot buckets.

mod buckets;
mod coordinate;
mod digits;
pub(crate) mod pairs;
mod point;

pub use coordinate::Coordinate;
pub use point::{G1Point, G2Point, Point};

use ark_bn254::Fr;
use ark_ec::short_weierstrass::Projective;
use ark_ff::Zero;
use digits::Digits;
use rayon::prelude::*;

/// `sum_i scalar(i) * points[i]`, for points other than [`Point::INFINITY`].
///
/// `progress` gets (points done, points in all). Memory: 36 bytes a point, wiped where it is secret, and the buckets.
///
/// # Panics
/// If there are 2^31 points or more.
pub fn msm<P: Point>(
    points: &[P],
    scalar: impl Fn(usize) -> Fr + Sync,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Projective<P::Curve> {
    assert!(points.len() < 1 << 31, "entries hold 31 bits of an index");
    if points.is_empty() {
        return Projective::zero();
    }
    let digits = Digits::new(points.len(), scalar);
    let count = points.len() as u64;
    let windows: Vec<Vec<P>> = (0..digits.windows())
        .map(|window| {
            progress(count * u64::from(window) / u64::from(digits.windows()), count);
            let sorted = digits.sort(window);
            if sorted.entries.is_empty() {
                return Vec::new();
            }
            buckets::sums(&sorted, points)
        })
        .collect();
    let weigh = |sums: &Vec<P>| if sums.is_empty() { Projective::zero() } else { buckets::weighted(sums) };
    let totals: Vec<_> = windows.par_iter().map(weigh).collect();
    progress(count, count);
    buckets::combine::<P>(&totals, digits.window())
}

#[cfg(test)]
mod tests;
