//! Sums of buckets, and the weighted sum of a window's buckets.

use super::digits::Sorted;
use super::pairs::{Pairs, BATCH};
use super::tree::{Tree, Trees};
use super::Point;
use crate::secret::Secret;
use ark_ec::short_weierstrass::Projective;
use ark_ec::PrimeGroup;
use ark_ff::{AdditiveGroup, Zero};
use rayon::prelude::*;

/// Entries of a task. A bucket with more is shared by several tasks.
const TASK: usize = 1 << 14;
/// Columns of a window that the weighted sum adds at once.
const COLUMNS: usize = 128;

/// Memory of a thread's task for points of `point` bytes: two levels of a tree, waiting pairs, and what shares an inversion.
pub(crate) fn task_bytes(point: u64) -> u64 {
    let entries = TASK as u64;
    entries * (2 * point + 4 * 8) + 5 * point * BATCH as u64 + (BATCH as u64) * 80 + (64 << 10)
}

/// The sum of every bucket; infinity for an empty one.
pub(crate) fn sums<P: Point>(sorted: &Sorted, points: &[P], trees: &Trees<P>) -> Secret<P> {
    let count = sorted.entries.len();
    let parts: Vec<(usize, Secret<P>)> = (0..count.div_ceil(TASK))
        .into_par_iter()
        .map(|task| {
            let range = task * TASK..((task + 1) * TASK).min(count);
            trees.lend(|tree| slice_sums(sorted, points, range, tree))
        })
        .collect();
    let mut sums = Secret::filled(P::INFINITY, sorted.ends.len());
    for (first, part) in parts {
        for (sum, partial) in sums[first..].iter_mut().zip(part.iter()) {
            // Only a bucket that two tasks share has something already.
            *sum = sum.add_slowly(partial);
        }
    }
    sums
}

/// Adds `addends` to the sums of the same buckets; no sums yet stand for zeros.
pub(crate) fn add<P: Point>(sums: &mut Secret<P>, addends: Secret<P>) {
    if sums.is_empty() {
        *sums = addends;
        return;
    }
    sums.par_chunks_mut(TASK)
        .zip(addends.par_chunks(TASK))
        .for_each_init(|| Pairs::new(false), |pairs, (sums, addends)| add_columns(sums, addends, pairs));
}

/// The sums of the buckets that a range of entries meets, starting with the bucket returned.
fn slice_sums<P: Point>(
    sorted: &Sorted,
    points: &[P],
    range: std::ops::Range<usize>,
    tree: &mut Tree<P>,
) -> (usize, Secret<P>) {
    let first = sorted.ends.partition_point(|&end| end as usize <= range.start);
    let met = sorted.ends[first..].partition_point(|&end| (end as usize) < range.end) + 1;
    let mut lengths = Secret::with_room(0, met);
    let mut start = range.start;
    for &end in &sorted.ends[first..first + met] {
        let end = (end as usize).min(range.end);
        lengths.push(end - start);
        start = end;
    }
    (first, tree.sums(points, &sorted.entries[range], &mut lengths))
}

/// `sum_b (b + 1) * sums[b]` for each of several windows, which have equally many buckets.
///
/// The buckets are rows of columns; from the last row up, running sums and their sums are kept for all columns of all windows at
/// once.
pub(crate) fn weighted<P: Point>(windows: &[&[P]]) -> Secret<Projective<P::Curve>> {
    let buckets = windows.first().map_or(0, |sums| sums.len());
    let columns = COLUMNS.min(buckets).max(1);
    let mut running = Secret::filled(P::INFINITY, columns * windows.len());
    let mut weighted = Secret::filled(P::INFINITY, columns * windows.len());
    let mut pairs = Pairs::new(false);
    for row in (0..buckets.div_ceil(columns)).rev() {
        let of_row = windows.iter().flat_map(|sums| &sums[row * columns..][..columns]);
        add_columns(&mut running, of_row, &mut pairs);
        if row > 0 {
            add_columns(&mut weighted, running.iter(), &mut pairs);
        }
    }
    let mut totals = Secret::with_room(Projective::zero(), windows.len());
    let windows = running.chunks(columns).zip(weighted.chunks(columns));
    totals.extend(windows.map(|(running, weighted)| total(running, weighted)));
    totals
}

/// A window's sum. Bucket `row * columns + column` counts `row * columns` times in `weighted`, and `column + 1` times in the sum
/// of the suffixes of `running`.
fn total<P: Point>(running: &[P], weighted: &[P]) -> Projective<P::Curve> {
    let mut rows = Projective::<P::Curve>::zero();
    let (mut suffix, mut within) = (rows, rows);
    for (running, weighted) in running.iter().zip(weighted).rev() {
        add_to(&mut rows, weighted);
        add_to(&mut suffix, running);
        within += suffix;
    }
    rows.mul_bigint([running.len() as u64]) + within
}

fn add_columns<'a, P: Point>(sums: &mut [P], addends: impl IntoIterator<Item = &'a P>, pairs: &mut Pairs<P>) {
    for (column, addend) in addends.into_iter().enumerate() {
        if addend.is_infinity() {
            continue;
        }
        if sums[column].is_infinity() {
            sums[column] = *addend;
            continue;
        }
        pairs.push(sums[column], *addend, column as u32);
        if pairs.is_full() {
            pairs.flush(|column, sum| sums[column as usize] = sum);
        }
    }
    pairs.flush(|column, sum| sums[column as usize] = sum);
}

fn add_to<P: Point>(sum: &mut Projective<P::Curve>, point: &P) {
    if !point.is_infinity() {
        *sum += point.affine();
    }
}

/// `sum_w 2^(c w) * windows[w]`.
pub(crate) fn combine<P: Point>(windows: &[Projective<P::Curve>], window: u32) -> Projective<P::Curve> {
    windows.iter().rev().fold(Projective::zero(), |mut sum, value| {
        for _ in 0..window {
            sum.double_in_place();
        }
        sum + value
    })
}
