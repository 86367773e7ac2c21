//! Multi-scalar multiplication over BN254's groups, on points as they lie in a memory-mapped key.
//!
//! Pippenger's buckets with signed windows, over points and their images under the curve's endomorphism, which halves the windows.
//! Per chunk of points and window: the entries are sorted by bucket, each bucket is summed by a tree of affine additions that
//! share inversions, eight at a time ([`crate::field`]), and added to the window's. In the end the buckets are weighed and added.
//! A chunk's points are copied once, to memory for reading in random order, and serve all windows.
//! Zero windows cost nothing, so scalars that are 0, 1, -1 or small are cheap. Every case is covered: equal points, opposite
//! points, hot buckets.
//!
//! There are no larger tables of multiples: on a CPU one for every window would save a sixth of the additions at 2^20 points, for
//! 13 times the key's memory.

mod buckets;
mod coordinate;
mod digits;
mod glv;
mod memory;
pub(crate) mod pairs;
mod point;
mod subgroup;
mod tree;

pub use coordinate::Coordinate;
pub use point::{G1Point, G2Point, Point, PointFault};
pub(crate) use subgroup::first_outside;

use crate::secret::Secret;
use ark_bn254::Fr;
use ark_ec::short_weierstrass::Projective;
use ark_ff::Zero;
use digits::Digits;
use memory::Memory;
use rayon::prelude::*;
use tree::Trees;

/// Bytes of a chunk's points and their images.
const CHUNK_BYTES: usize = 64 << 20;

/// `sum_i scalar(i) * points[i]`, for points of the prime-order subgroup other than [`Point::INFINITY`].
///
/// `progress` gets (points done, points in all). Memory: [`host_bytes`]. Whatever follows from the scalars (digits, their order, sums of
/// buckets) is wiped.
///
/// # Panics
/// If there are 2^31 points or more.
pub fn msm<P: Point>(
    points: &[P],
    scalar: impl Fn(usize) -> Fr + Sync,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Projective<P::Curve> {
    msm_in_chunks(points, CHUNK_BYTES / (2 * P::BYTES), scalar, progress)
}

/// The most memory that [`msm`] takes at a time over `count` points, in bytes.
///
/// 32 bytes a scalar, the copied chunk of points, and for each window its buckets three times and its entries of a chunk twice: all
/// windows may be under way at once. For each thread the scratch of a task.
pub fn host_bytes<P: Point>(count: usize) -> u64 {
    let chunk = (CHUNK_BYTES / (2 * P::BYTES)).min(count);
    let threads = rayon::current_num_threads() as u64;
    let point = P::BYTES as u64;
    let windows = digits::widest(count, count.div_ceil(chunk.max(1)));
    let of_window = |buckets: u64| buckets * (3 * point + 4 * (threads + 4)) + 16 * chunk as u64;
    let sorted = windows.map(|(windows, buckets)| windows * of_window(buckets)).max().unwrap_or(0);
    32 * count as u64 + 2 * point * chunk as u64 + sorted + (threads + 1) * buckets::task_bytes(point)
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
    let digits = Digits::new::<P>(points.len(), chunk, scalar);
    let trees = Trees::default();
    let mut memory = Memory::new(chunk.min(points.len()));
    let count = points.len() as u64;
    let mut windows: Vec<Secret<P>> = Vec::new();
    windows.resize_with(digits.windows() as usize, || Secret::with_room(P::INFINITY, 0));
    for start in (0..points.len()).step_by(chunk) {
        progress(start as u64, count);
        let range = start..(start + chunk).min(points.len());
        let points = memory.fill(&points[range.clone()], |at| digits.uses_image(start + at));
        windows.par_iter_mut().enumerate().for_each(|(window, sums)| {
            let sorted = digits.sort(window as u32, range.clone());
            if !sorted.entries.is_empty() {
                buckets::add(sums, buckets::sums(&sorted, points, &trees));
            }
        });
    }
    let totals = weigh(&windows);
    progress(count, count);
    buckets::combine::<P>(&totals, digits.window())
}

/// The windows' sums of weighted buckets; windows without any are zero.
fn weigh<P: Point>(windows: &[Secret<P>]) -> Secret<Projective<P::Curve>> {
    let mut totals = Secret::filled(Projective::zero(), windows.len());
    let mut used: Vec<_> = totals.iter_mut().zip(windows).filter(|(_, sums)| !sums.is_empty()).collect();
    // Each thread weighs its windows together.
    let share = used.len().div_ceil(rayon::current_num_threads()).max(1);
    used.par_chunks_mut(share).for_each(|used| {
        let sums: Vec<&[P]> = used.iter().map(|(_, sums)| sums.as_slice()).collect();
        let weighted = buckets::weighted(&sums);
        used.iter_mut().zip(weighted.iter()).for_each(|((total, _), weighted)| **total = *weighted);
    });
    totals
}

#[cfg(test)]
mod tests;
