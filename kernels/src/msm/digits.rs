//! Scalars cut into signed windows, and their entries sorted by bucket.
//!
//! A scalar above half the order is replaced by its negative, so that -1 and other small negatives are as short as small
//! positives. Adding a constant with `2^(c-1)` in every window but the top one makes each window's bits a digit plus `2^(c-1)`:
//! no carries at extraction, and zero windows of short scalars stay zero and are skipped.

use ark_bn254::Fr;
use ark_ff::{BigInt, PrimeField};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use zeroize::Zeroize;

/// Bits of a scalar after negation, and one for the carry.
const BITS: u32 = 254;
const SIGN: u64 = 1 << 63;
/// Scalars from which on several threads sort.
const SHARED: usize = 1 << 19;

/// Recoded scalars; wiped when dropped.
pub(crate) struct Digits {
    /// The scalar or its negative, plus the constant; the top bit says which.
    words: Vec<[u64; 4]>,
    window: u32,
}

/// One window's entries, ordered by bucket.
pub(crate) struct Sorted {
    /// `2 * index + (1 for a negative digit)`.
    pub(crate) entries: Vec<u32>,
    /// `ends[b]`: one past the entries of bucket `b`, which stands for digits `b + 1`.
    pub(crate) ends: Vec<u32>,
}

impl Drop for Digits {
    fn drop(&mut self) {
        self.words.par_chunks_mut(1 << 16).for_each(|chunk| chunk.iter_mut().for_each(Zeroize::zeroize));
    }
}

impl Digits {
    /// Recodes `count` scalars for the window that is cheapest for so many, sorted `chunk` at a time.
    pub(crate) fn new(count: usize, chunk: usize, scalar: impl Fn(usize) -> Fr + Sync) -> Self {
        let half = Fr::MODULUS_MINUS_ONE_DIV_TWO;
        let mut words: Vec<[u64; 4]> = (0..count)
            .into_par_iter()
            .with_min_len(1 << 10)
            .map(|at| {
                let value = scalar(at);
                let positive = value.into_bigint();
                if positive <= half {
                    return positive.0;
                }
                let [a, b, c, d] = (-value).into_bigint().0;
                [a, b, c, d | SIGN]
            })
            .collect();
        let long = |words: &&[u64; 4]| words[1] | words[2] | (words[3] & !SIGN) != 0;
        let long = words.par_iter().with_min_len(1 << 12).filter(long).count();
        let window = window_for(long, count.div_ceil(chunk));
        let offset = offset(window);
        words.par_iter_mut().with_min_len(1 << 12).for_each(|words| {
            let sign = words[3] & SIGN;
            words[3] &= !SIGN;
            let mut carry = false;
            for (word, addend) in words.iter_mut().zip(offset.0) {
                let (sum, over) = word.overflowing_add(addend);
                let (sum, more) = sum.overflowing_add(u64::from(carry));
                *word = sum;
                carry = over | more;
            }
            words[3] |= sign;
        });
        Self { words, window }
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

    /// The digit of scalar `at` in window `window`.
    #[inline(always)]
    fn digit(&self, at: usize, window: u32) -> i32 {
        let words = &self.words[at];
        let from = window * self.window;
        let (word, shift) = ((from / 64) as usize, from % 64);
        let mut bits = words[word] >> shift;
        if shift + self.window > 64 && word < 3 {
            bits |= words[word + 1] << (64 - shift);
        }
        let top = window + 1 == self.windows();
        let bits = if top { bits & !(SIGN >> (shift * u32::from(word == 3))) } else { bits };
        let raw = (bits & ((1 << self.window) - 1)) as i32;
        let digit = if top { raw } else { raw - (1 << (self.window - 1)) };
        if words[3] & SIGN == 0 {
            digit
        } else {
            -digit
        }
    }

    /// Sorts window `window` of the scalars `scalars` by counting, in parallel.
    pub(crate) fn sort(&self, window: u32, scalars: Range<usize>) -> Sorted {
        let buckets = self.buckets();
        let threads = if scalars.len() < SHARED { 1 } else { rayon::current_num_threads() };
        let chunk = scalars.len().div_ceil(threads).max(1);
        let ranges: Vec<_> =
            scalars.clone().step_by(chunk).map(|start| start..(start + chunk).min(scalars.end)).collect();
        let mut places: Vec<Vec<u32>> = ranges
            .par_iter()
            .map(|range| {
                let mut counts = vec![0; buckets];
                for at in range.clone() {
                    if let Some(bucket) = self.digit(at, window).unsigned_abs().checked_sub(1) {
                        counts[bucket as usize] += 1;
                    }
                }
                counts
            })
            .collect();
        let mut total = 0;
        let mut ends = vec![0; buckets];
        for (bucket, end) in ends.iter_mut().enumerate() {
            for counts in &mut places {
                let count = counts[bucket];
                counts[bucket] = total;
                total += count;
            }
            *end = total;
        }
        let entries: Vec<AtomicU32> = (0..total).into_par_iter().map(|_| AtomicU32::new(0)).collect();
        ranges.par_iter().zip(&mut places).for_each(|(range, places)| {
            for at in range.clone() {
                let digit = self.digit(at, window);
                if let Some(bucket) = digit.unsigned_abs().checked_sub(1) {
                    let place = &mut places[bucket as usize];
                    entries[*place as usize].store(2 * at as u32 + u32::from(digit < 0), Ordering::Relaxed);
                    *place += 1;
                }
            }
        });
        let entries = entries.into_par_iter().map(AtomicU32::into_inner).collect();
        Sorted { entries, ends }
    }
}

/// The window with the least work: in additions, a bucket costs three in the end and half a one for every chunk.
fn window_for(long_scalars: usize, chunks: usize) -> u32 {
    let per_bucket = 6 + chunks as u64;
    let cost = |window: &u32| {
        u64::from(BITS.div_ceil(*window)) * (2 * long_scalars as u64 + (per_bucket << (window - 1)))
    };
    (4..=20).min_by_key(cost).unwrap_or(4)
}

/// `2^(c-1)` in every window but the top one.
fn offset(window: u32) -> BigInt<4> {
    let mut offset = BigInt::new([0; 4]);
    for index in 0..BITS.div_ceil(window) - 1 {
        let bit = index * window + window - 1;
        offset.0[(bit / 64) as usize] |= 1 << (bit % 64);
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;
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
        for window in 4..=20 {
            let mut digits = Digits::new(scalars.len(), 1 << 18, |at| scalars[at]);
            // Move the constant to another window size.
            let old = offset(digits.window);
            let new = offset(window);
            for words in &mut digits.words {
                let sign = words[3] & SIGN;
                words[3] &= !SIGN;
                let mut value = BigInt::new(*words);
                ark_ff::BigInteger::sub_with_borrow(&mut value, &old);
                ark_ff::BigInteger::add_with_carry(&mut value, &new);
                *words = value.0;
                words[3] |= sign;
            }
            digits.window = window;
            for (at, scalar) in scalars.iter().enumerate() {
                let mut sum = Fr::zero();
                for index in (0..digits.windows()).rev() {
                    let digit = digits.digit(at, index);
                    assert!(digit.unsigned_abs() as usize <= digits.buckets());
                    sum = sum * Fr::from(1u64 << window) + Fr::from(digit);
                }
                assert_eq!(sum, *scalar, "window {window}");
            }
            // Zero, one and minus one have no digits above the lowest window.
            assert!((1..digits.windows()).all(|index| (60..64).all(|at| digits.digit(at, index) == 0)));
        }
    }

    #[test]
    fn entries_are_sorted_by_bucket() {
        let mut rng = ark_std::test_rng();
        let scalars: Vec<Fr> = (0..1000).map(|_| Fr::rand(&mut rng)).collect();
        let digits = Digits::new(scalars.len(), 1 << 18, |at| scalars[at]);
        for window in 0..digits.windows() {
            let sorted = digits.sort(window, 0..scalars.len());
            let mut seen = 0;
            for (bucket, &end) in sorted.ends.iter().enumerate() {
                for entry in &sorted.entries[seen..end as usize] {
                    let digit = digits.digit((entry / 2) as usize, window);
                    assert_eq!(digit.unsigned_abs() as usize, bucket + 1);
                    assert_eq!(digit < 0, entry % 2 == 1);
                }
                seen = end as usize;
            }
            let expected = (0..scalars.len()).filter(|&at| digits.digit(at, window) != 0).count();
            assert_eq!((seen, sorted.entries.len()), (expected, expected));
        }
    }
}
