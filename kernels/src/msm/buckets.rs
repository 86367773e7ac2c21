//! Sums of buckets by trees of affine additions, and the weighted sum of a window's buckets.

use super::digits::Sorted;
use super::pairs::Pairs;
use super::Point;
use ark_ec::short_weierstrass::Projective;
use ark_ec::PrimeGroup;
use ark_ff::{AdditiveGroup, Zero};
use rayon::prelude::*;

/// Entries of a task. A bucket with more is shared by several tasks.
const TASK: usize = 1 << 14;
/// Entries between the one that is read and the one whose point is asked for.
const AHEAD: usize = 24;
/// Columns that the weighted sum adds at once.
const COLUMNS: usize = 512;

/// The sum of every bucket; infinity for an empty one.
pub(crate) fn sums<P: Point>(sorted: &Sorted, points: &[P]) -> Vec<P> {
    let count = sorted.entries.len();
    let parts: Vec<(usize, Vec<P>)> = (0..count.div_ceil(TASK))
        .into_par_iter()
        .map_init(
            || Pairs::new(false),
            |pairs, task| slice_sums(sorted, points, task * TASK..((task + 1) * TASK).min(count), pairs),
        )
        .collect();
    let mut sums = vec![P::INFINITY; sorted.ends.len()];
    for (first, part) in parts {
        for (sum, partial) in sums[first..].iter_mut().zip(part) {
            // Only a bucket that two tasks share has something already.
            *sum = sum.add_slowly(&partial);
        }
    }
    sums
}

/// Adds `addends` to the sums of the same buckets; no sums yet stand for zeros.
pub(crate) fn add<P: Point>(sums: &mut Vec<P>, addends: Vec<P>) {
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
    pairs: &mut Pairs<P>,
) -> (usize, Vec<P>) {
    let first = sorted.ends.partition_point(|&end| end as usize <= range.start);
    let mut lengths = Vec::new();
    let mut start = range.start;
    for &end in &sorted.ends[first..] {
        let end = (end as usize).min(range.end);
        lengths.push(end - start);
        start = end;
        if start == range.end {
            break;
        }
    }
    let entries = &sorted.entries[range];
    let signed = |at: usize| points[(entries[at] / 2) as usize].negated_if(entries[at] % 2 == 1);
    let soon = |at: usize| {
        if let Some(entry) = entries.get(at + AHEAD) {
            prefetch(&points[(entry / 2) as usize]);
        }
    };
    let mut current = halve(&mut lengths, pairs, signed, soon);
    while lengths.iter().any(|&length| length > 1) {
        let level = current;
        current = halve(&mut lengths, pairs, |at| level[at], |_| ());
    }
    let mut rest = current.into_iter();
    let sums = lengths.iter().map(|&length| if length == 0 { None } else { rest.next() });
    (first, sums.map(|sum| sum.unwrap_or(P::INFINITY)).collect())
}

/// Asks for a value that is needed soon and lies in whole cache lines.
#[inline(always)]
#[allow(unsafe_code, reason = "a hint to the cache, for memory that a reference vouches for")]
fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        let from = std::ptr::from_ref(value).cast::<i8>();
        for at in (0..size_of::<T>()).step_by(64) {
            // SAFETY: within `value`; every x86-64 has the instruction.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.add(at)) };
        }
    }
}

/// Adds neighbours within each bucket; an odd one out is kept. `soon` hears of an index before it is read.
#[inline(always)]
fn halve<P: Point>(
    lengths: &mut [usize],
    pairs: &mut Pairs<P>,
    point: impl Fn(usize) -> P,
    soon: impl Fn(usize),
) -> Vec<P> {
    let total = lengths.iter().map(|length| length.div_ceil(2)).sum();
    let mut out = vec![P::INFINITY; total];
    let (mut from, mut to) = (0, 0);
    for length in lengths {
        for _ in 0..*length / 2 {
            soon(from);
            soon(from + 1);
            pairs.push(point(from), point(from + 1), to as u32);
            from += 2;
            to += 1;
            if pairs.is_full() {
                pairs.flush(|target, sum| out[target as usize] = sum);
            }
        }
        if *length % 2 == 1 {
            out[to] = point(from);
            from += 1;
            to += 1;
        }
        *length = length.div_ceil(2);
    }
    pairs.flush(|target, sum| out[target as usize] = sum);
    out
}

/// `sum_b (b + 1) * sums[b]`.
///
/// The buckets are rows of columns; from the last row up, running sums and their sums are kept for all columns at once.
pub(crate) fn weighted<P: Point>(sums: &[P]) -> Projective<P::Curve> {
    let columns = COLUMNS.min(sums.len());
    let mut running = vec![P::INFINITY; columns];
    let mut weighted = vec![P::INFINITY; columns];
    let mut pairs = Pairs::new(true);
    for (row, sums) in sums.chunks(columns).enumerate().rev() {
        add_columns(&mut running, sums, &mut pairs);
        if row > 0 {
            add_columns(&mut weighted, &running, &mut pairs);
        }
    }
    // Bucket `row * columns + column` counts `row * columns` times in `weighted`, and `column + 1` times in the second sum.
    let mut rows = Projective::<P::Curve>::zero();
    let (mut suffix, mut within) = (rows, rows);
    for column in (0..columns).rev() {
        add_to(&mut rows, &weighted[column]);
        add_to(&mut suffix, &running[column]);
        within += suffix;
    }
    rows.mul_bigint([columns as u64]) + within
}

fn add_columns<P: Point>(sums: &mut [P], addends: &[P], pairs: &mut Pairs<P>) {
    for (column, addend) in addends.iter().enumerate() {
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
