//! Exact integer intervals: what is known about a field element seen as a signed integer.

use num_bigint::BigInt;
use num_traits::{One, Signed, Zero};

/// All integers from `lo` to `hi`, both included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    /// Least value.
    pub(crate) lo: BigInt,
    /// Greatest value.
    pub(crate) hi: BigInt,
}

impl Interval {
    /// From `lo` to `hi`.
    pub(crate) fn new(lo: BigInt, hi: BigInt) -> Self {
        debug_assert!(lo <= hi);
        Self { lo, hi }
    }

    /// One value.
    pub(crate) fn exactly(value: i64) -> Self {
        Self { lo: BigInt::from(value), hi: BigInt::from(value) }
    }

    /// `0 .. 2^bits - 1`.
    pub(crate) fn unsigned(bits: u32) -> Self {
        Self { lo: BigInt::zero(), hi: (BigInt::one() << bits) - 1 }
    }

    /// Sums.
    pub(crate) fn add(&self, other: &Self) -> Self {
        Self { lo: &self.lo + &other.lo, hi: &self.hi + &other.hi }
    }

    /// Differences.
    pub(crate) fn sub(&self, other: &Self) -> Self {
        Self { lo: &self.lo - &other.hi, hi: &self.hi - &other.lo }
    }

    /// Products.
    pub(crate) fn mul(&self, other: &Self) -> Self {
        if !self.lo.is_negative() && !other.lo.is_negative() {
            return Self { lo: &self.lo * &other.lo, hi: &self.hi * &other.hi };
        }
        let ends = [&self.lo * &other.lo, &self.lo * &other.hi, &self.hi * &other.lo, &self.hi * &other.hi];
        let (mut lo, mut hi) = (ends[0].clone(), ends[0].clone());
        for end in &ends[1..] {
            if *end < lo {
                lo = end.clone();
            }
            if *end > hi {
                hi = end.clone();
            }
        }
        Self { lo, hi }
    }

    /// Multiples.
    pub(crate) fn scale(&self, factor: i64) -> Self {
        let (a, b) = (&self.lo * factor, &self.hi * factor);
        if factor < 0 {
            Self { lo: b, hi: a }
        } else {
            Self { lo: a, hi: b }
        }
    }

    /// The least interval that holds both.
    pub(crate) fn hull(&self, other: &Self) -> Self {
        Self { lo: self.lo.clone().min(other.lo.clone()), hi: self.hi.clone().max(other.hi.clone()) }
    }

    /// Bits of the largest magnitude.
    pub(crate) fn bits(&self) -> u32 {
        let bits = self.lo.magnitude().bits().max(self.hi.magnitude().bits());
        u32::try_from(bits).expect("bounds have fewer than 2^32 bits")
    }

    /// Whether every value is in `0 .. 2^bits - 1`.
    pub(crate) fn fits_unsigned(&self, bits: u32) -> bool {
        !self.lo.is_negative() && self.hi.magnitude().bits() <= u64::from(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(lo: i64, hi: i64) -> Interval {
        Interval::new(BigInt::from(lo), BigInt::from(hi))
    }

    #[test]
    fn operations_bound_every_pair_of_values() {
        for (a, b) in [((-3, 5), (-7, 2)), ((1, 4), (2, 9)), ((-6, -2), (-4, -1)), ((-6, -2), (3, 8))] {
            let (x, y) = (interval(a.0, a.1), interval(b.0, b.1));
            let check = |result: Interval, op: fn(i64, i64) -> i64| {
                let all: Vec<i64> = (a.0..=a.1).flat_map(|i| (b.0..=b.1).map(move |j| op(i, j))).collect();
                assert_eq!(result.lo, BigInt::from(*all.iter().min().unwrap()));
                assert_eq!(result.hi, BigInt::from(*all.iter().max().unwrap()));
            };
            check(x.add(&y), |i, j| i + j);
            check(x.sub(&y), |i, j| i - j);
            check(x.mul(&y), |i, j| i * j);
        }
        assert_eq!(interval(-3, 5).scale(-2), interval(-10, 6));
        assert_eq!(interval(-3, 5).hull(&interval(0, 9)), interval(-3, 9));
        assert_eq!(interval(-8, 5).bits(), 4);
        assert!(interval(0, 255).fits_unsigned(8) && !interval(-1, 3).fits_unsigned(8));
    }
}
