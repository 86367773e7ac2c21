//! Multi-scalar multiplication over BN254's groups, on points as they lie in a memory-mapped key.
//!
//! Pippenger's buckets with signed windows. Per chunk of points and window: the entries are sorted by bucket, each bucket is
//! summed by a tree of affine additions that share inversions, eight at a time ([`crate::field`]), and added to the window's.
//! In the end the buckets are weighed and added. A chunk's points are read from memory once, for all windows.
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

/// Bytes of a chunk's points: they stay in a third-level cache while all windows are summed.
const CHUNK_BYTES: usize = 16 << 20;

/// `sum_i scalar(i) * points[i]`, for points other than [`Point::INFINITY`].
///
/// `progress` gets (points done, points in all). Memory: 32 bytes a point, wiped where it is secret, and the buckets of all windows.
///
/// # Panics
/// If there are 2^31 points or more.
pub fn msm<P: Point>(
    points: &[P],
    scalar: impl Fn(usize) -> Fr + Sync,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Projective<P::Curve> {
    msm_in_chunks(points, CHUNK_BYTES / P::BYTES, scalar, progress)
}

fn msm_in_chunks<P: Point>(
    points: &[P],
    chunk: usize,
    scalar: impl Fn(usize) -> Fr + Sync,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Projective<P::Curve> {
    assert!(points.len() < 1 << 31, "entries hold 31 bits of an index");
    if points.is_empty() {
        return Projective::zero();
    }
    let digits = Digits::new(points.len(), chunk, scalar);
    let count = points.len() as u64;
    let mut windows: Vec<Vec<P>> = vec![Vec::new(); digits.windows() as usize];
    for start in (0..points.len()).step_by(chunk) {
        progress(start as u64, count);
        let range = start..(start + chunk).min(points.len());
        windows.par_iter_mut().enumerate().for_each(|(window, sums)| {
            let sorted = digits.sort(window as u32, range.clone());
            if !sorted.entries.is_empty() {
                buckets::add(sums, buckets::sums(&sorted, points));
            }
        });
    }
    let weigh = |sums: &Vec<P>| if sums.is_empty() { Projective::zero() } else { buckets::weighted(sums) };
    let totals: Vec<_> = windows.par_iter().map(weigh).collect();
    progress(count, count);
    buckets::combine::<P>(&totals, digits.window())
}

#[cfg(test)]
mod tests;
