//! Scalars cut into signed windows, and their entries sorted by bucket.
//!
//! A scalar is two halves ([`super::glv`]), one for its point and one for the point's image, each a sign and a size: -1 and other small
//! negatives are as short as small positives. Adding a constant with `2^(c-1)` in every window but the top one makes each
//! window's bits a digit plus `2^(c-1)`: no carries at extraction, and zero windows of short halves stay zero and are skipped.

use super::glv::{Cut, HALF_BITS};
use super::Point;
use crate::secret::Secret;
use ark_bn254::Fr;
use ark_ff::PrimeField;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bits of a half, and one for the carry.
const BITS: u32 = HALF_BITS + 1;
const SIGN: u128 = 1 << 127;
/// Scalars from which on several threads sort.
const SHARED: usize = 1 << 19;

/// Recoded scalars.
pub(crate) struct Digits {
    /// The sizes of both halves, plus the constant; the top bit says which are negative.
    halves: Secret<[u128; 2]>,
    window: u32,
    /// What was added to each half.
    offset: u128,
}

/// One window's entries, ordered by bucket.
pub(crate) struct Sorted {
    /// `2 * index + (1 for a negative digit)`. Indices are the range's points, from zero on, and then their images.
    pub(crate) entries: Secret<u32>,
    /// `ends[b]`: one past the entries of bucket `b`, which stands for digits `b + 1`.
    pub(crate) ends: Secret<u32>,
}

impl Digits {
    /// Recodes `count` scalars of points `P` for the window that is cheapest for so many, sorted `chunk` at a time.
    pub(crate) fn new<P: Point>(count: usize, chunk: usize, scalar: impl Fn(usize) -> Fr + Sync) -> Self {
        let cut = Cut::new::<P>();
        let halves = (0..count).into_par_iter().with_min_len(1 << 10).map(|at| {
            let halves = cut.halves(&scalar(at).into_bigint().0);
            halves.map(|half| half.unsigned_abs() | if half < 0 { SIGN } else { 0 })
        });
        let mut halves = Secret::collect([0; 2], halves);
        let long = |halves: &[u128; 2]| halves.iter().filter(|half| (*half & !SIGN) >> 64 != 0).count();
        let long = halves.par_iter().with_min_len(1 << 12).map(long).sum();
        let window = window_for(long, count.div_ceil(chunk));
        let offset = offset(window);
        // A size is below 2^126, and so is the constant.
        let add = |halves: &mut [u128; 2]| halves.iter_mut().for_each(|half| *half += offset);
        halves.par_iter_mut().with_min_len(1 << 12).for_each(add);
        Self { halves, window, offset }
    }

    pub(crate) fn window(&self) -> u32 {
        self.window
    }

    pub(crate) fn windows(&self) -> u32 {
        BITS.div_ceil(self.window)
    }

    /// Buckets of a window.
    pub(crate) fn buckets(&self) -> usize {
        1 << (self.window - 1)
    }

    /// Whether the image of point `at` is of use.
    pub(crate) fn uses_image(&self, at: usize) -> bool {
        self.halves[at][1] != self.offset
    }

    /// The digits of both halves of scalar `at` in window `window`.
    #[inline(always)]
    fn digits(&self, at: usize, window: u32) -> [i32; 2] {
        let center = if window + 1 == self.windows() { 0 } else { 1 << (self.window - 1) };
        self.halves[at].map(|half| {
            let raw = ((half & !SIGN) >> (window * self.window)) as i32 & ((1 << self.window) - 1);
            let digit = raw - center;
            if half & SIGN == 0 {
                digit
            } else {
                -digit
            }
        })
    }

    /// Sorts window `window` of the scalars `scalars` by counting, in parallel.
    pub(crate) fn sort(&self, window: u32, scalars: Range<usize>) -> Sorted {
        let buckets = self.buckets();
        let threads = if scalars.len() < SHARED { 1 } else { rayon::current_num_threads() };
        let chunk = scalars.len().div_ceil(threads).max(1);
        let ranges: Vec<_> =
            scalars.clone().step_by(chunk).map(|start| start..(start + chunk).min(scalars.end)).collect();
        let mut places: Vec<Secret<u32>> = ranges
            .par_iter()
            .map(|range| {
                let mut counts = Secret::filled(0, buckets);
                for digit in range.clone().flat_map(|at| self.digits(at, window)) {
                    if let Some(bucket) = digit.unsigned_abs().checked_sub(1) {
                        counts[bucket as usize] += 1;
                    }
                }
                counts
            })
            .collect();
        let mut total = 0;
        let mut ends = Secret::filled(0, buckets);
        for (bucket, end) in ends.iter_mut().enumerate() {
            for counts in &mut places {
                let count = counts[bucket];
                counts[bucket] = total;
                total += count;
            }
            *end = total;
        }
        let scattered = Scattered::new(total as usize);
        ranges.par_iter().zip(&mut places).for_each(|(range, places)| {
            for at in range.clone() {
                let point = at - scalars.start;
                for (index, digit) in [point, scalars.len() + point].into_iter().zip(self.digits(at, window))
                {
                    if let Some(bucket) = digit.unsigned_abs().checked_sub(1) {
                        let place = &mut places[bucket as usize];
                        let entry = 2 * index as u32 + u32::from(digit < 0);
                        scattered.0[*place as usize].store(entry, Ordering::Relaxed);
                        *place += 1;
                    }
                }
            }
        });
        Sorted { entries: scattered.entries(), ends }
    }
}

/// Entries that several threads write; wiped when dropped.
struct Scattered(Vec<AtomicU32>);

impl Scattered {
    fn new(count: usize) -> Self {
        Self((0..count).into_par_iter().map(|_| AtomicU32::new(0)).collect())
    }

    /// As they were written.
    fn entries(&self) -> Secret<u32> {
        Secret::collect(0, self.0.par_iter().map(|entry| entry.load(Ordering::Relaxed)))
    }
}

impl Drop for Scattered {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|entry| *entry.get_mut() = 0);
        zeroize::optimization_barrier(self.0.as_slice());
    }
}

/// The window with the least work: in additions, a bucket costs three in the end and half a one for every chunk.
fn window_for(long_halves: usize, chunks: usize) -> u32 {
    let per_bucket = 6 + chunks as u64;
    let cost = |window: &u32| {
        u64::from(BITS.div_ceil(*window)) * (2 * long_halves as u64 + (per_bucket << (window - 1)))
    };
    (4..=20).min_by_key(cost).unwrap_or(4)
}

/// Windows of a scalar, and buckets of a window, for every width that may be chosen for `count` scalars in `chunks`.
pub(crate) fn widest(count: usize, chunks: usize) -> impl Iterator<Item = (u64, u64)> {
    let widest = window_for(2 * count, chunks);
    (4..=widest).map(|window| (u64::from(BITS.div_ceil(window)), 1 << (window - 1)))
}

/// `2^(c-1)` in every window but the top one.
fn offset(window: u32) -> u128 {
    (0..BITS.div_ceil(window) - 1).map(|index| 1 << (index * window + window - 1)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msm::G1Point;
    use ark_ec::scalar_mul::glv::GLVConfig;
    use ark_ff::{Field, UniformRand, Zero};

    #[test]
    fn digits_sum_to_their_scalar_for_every_window() {
        let mut rng = ark_std::test_rng();
        let mut scalars: Vec<Fr> = (0..60).map(|_| Fr::rand(&mut rng)).collect();
        for value in [0u64, 1, 2, 3, 255, 256, 65_535, 65_536, u64::MAX] {
            scalars.extend([Fr::from(value), -Fr::from(value)]);
        }
        let half = Fr::from(Fr::MODULUS_MINUS_ONE_DIV_TWO);
        scalars.extend([half, half + Fr::from(1u64), half - Fr::from(1u64)]);
        scalars.extend((0..254).map(|bit| Fr::from(2u64).pow([bit])));
        let lambda = <<G1Point as Point>::Curve as GLVConfig>::LAMBDA;
        for window in 4..=20 {
            let mut digits = Digits::new::<G1Point>(scalars.len(), 1 << 18, |at| scalars[at]);
            // Move the constant to another window size.
            let (old, new) = (offset(digits.window), offset(window));
            digits.halves.iter_mut().flatten().for_each(|half| *half = *half - old + new);
            (digits.window, digits.offset) = (window, new);
            for (at, scalar) in scalars.iter().enumerate() {
                let mut sums = [Fr::zero(); 2];
                for index in (0..digits.windows()).rev() {
                    for (sum, digit) in sums.iter_mut().zip(digits.digits(at, index)) {
                        assert!(digit.unsigned_abs() as usize <= digits.buckets());
                        *sum = *sum * Fr::from(1u64 << window) + Fr::from(digit);
                    }
                }
                assert_eq!(sums[0] + lambda * sums[1], *scalar, "window {window}");
                assert_eq!(sums[1].is_zero(), !digits.uses_image(at));
            }
            // Zero, one and minus one have no digits above the lowest window.
            assert!((1..digits.windows()).all(|index| (60..64).all(|at| digits.digits(at, index) == [0, 0])));
        }
    }

    #[test]
    fn entries_are_sorted_by_bucket() {
        let mut rng = ark_std::test_rng();
        let scalars: Vec<Fr> = (0..1000).map(|_| Fr::rand(&mut rng)).collect();
        let digits = Digits::new::<G1Point>(scalars.len(), 1 << 18, |at| scalars[at]);
        let range = 100..1000;
        for window in 0..digits.windows() {
            let sorted = digits.sort(window, range.clone());
            let mut seen = 0;
            for (bucket, &end) in sorted.ends.iter().enumerate() {
                for entry in &sorted.entries[seen..end as usize] {
                    let index = (entry / 2) as usize;
                    let (at, half) = (range.start + index % range.len(), index / range.len());
                    let digit = digits.digits(at, window)[half];
                    assert_eq!(digit.unsigned_abs() as usize, bucket + 1);
                    assert_eq!(digit < 0, entry % 2 == 1);
                }
                seen = end as usize;
            }
            let expected = range.clone().flat_map(|at| digits.digits(at, window)).filter(|&digit| digit != 0);
            assert_eq!((seen, sorted.entries.len()), (expected.clone().count(), expected.count()));
        }
    }
}
