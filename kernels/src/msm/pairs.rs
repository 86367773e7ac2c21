//! Many affine additions at once: one inversion for a batch, eight additions a step.
//!
//! Stored words are arkworks' Montgomery form (`R = 2^256`). A vector architecture with another `R` reads them as they are,
//! that is as the coordinates times `s = 2^256 / R`, and never converts: with `x' = s x` and `y' = s y` the slope is
//! unchanged, and for `t^2 = s` the sum is `x3' = (t slope)^2 - x1' - x2'`, `y3' = (t slope)(x1' - x3') / t - y1'`. The factor
//! `t` costs nothing, because it enters a whole batch through its one inversion; for IFMA `1 / t` is 4.

use super::coordinate::Coordinate;
use super::Point;
use crate::field::{dispatch, Arch, Kernel, LaneField, Lanes, Packed, LANES};
use ark_bn254::Fq;
use ark_ff::{batch_inversion, One, Zero};

/// Additions in a full batch: scratch stays in a second-level cache of a megabyte, and an inversion costs 3 ns an addition.
pub(crate) const BATCH: usize = 2048;

/// Pairs of points that wait for their sums.
pub(crate) struct Pairs<P: Point> {
    /// The left points; the sums replace them.
    left: Vec<P>,
    right: Vec<P>,
    targets: Vec<u32>,
    exceptions: Vec<(usize, P)>,
    /// Whether a point at infinity may be among the operands.
    infinities: bool,
}

impl<P: Point> Pairs<P> {
    /// No pairs. `infinities` says whether operands may be infinity from the start; sums that are infinity set it anyway.
    pub(crate) fn new(infinities: bool) -> Self {
        Self {
            left: Vec::with_capacity(BATCH),
            right: Vec::with_capacity(BATCH),
            targets: Vec::with_capacity(BATCH),
            exceptions: Vec::new(),
            infinities,
        }
    }

    /// Whether [`Pairs::flush`] must come before the next [`Pairs::push`].
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        self.targets.len() == BATCH
    }

    /// Adds a pair whose sum is for `target`.
    #[inline(always)]
    pub(crate) fn push(&mut self, left: P, right: P, target: u32) {
        self.left.push(left);
        self.right.push(right);
        self.targets.push(target);
    }

    /// Computes all sums and gives them to `sink` with their targets.
    #[inline(always)]
    pub(crate) fn flush(&mut self, mut sink: impl FnMut(u32, P)) {
        if self.targets.is_empty() {
            return;
        }
        self.add();
        for (&target, &sum) in self.targets.iter().zip(&self.left) {
            sink(target, sum);
        }
        for (at, sum) in self.exceptions.drain(..) {
            self.infinities |= sum.is_infinity();
            sink(self.targets[at], sum);
        }
        self.targets.clear();
        self.left.clear();
        self.right.clear();
    }

    fn add(&mut self) {
        let count = self.targets.len().next_multiple_of(LANES);
        let (zero, other) = neutral();
        self.left.resize(count, zero);
        self.right.resize(count, other);
        if self.infinities {
            self.extract_exceptions();
        }
        if !dispatch(Add { left: &mut self.left, right: &self.right }) {
            self.extract_exceptions();
            let done = dispatch(Add { left: &mut self.left, right: &self.right });
            assert!(done, "no two x are equal any more");
        }
    }

    /// Adds by arkworks what the formulas do not cover: equal x, and infinity.
    #[cold]
    fn extract_exceptions(&mut self) {
        for at in 0..self.targets.len() {
            let (left, right) = (self.left[at], self.right[at]);
            if left.same_x(&right) || left.is_infinity() || right.is_infinity() {
                self.exceptions.push((at, left.add_slowly(&right)));
                (self.left[at], self.right[at]) = neutral();
            }
        }
    }
}

/// Numbers with different x, for a slot whose sum nobody wants.
fn neutral<P: Point>() -> (P, P) {
    let mut other = P::INFINITY;
    other.part_mut(0)[0] = 1;
    (P::INFINITY, other)
}

/// The sums of pairs, whole groups of eight, in place of the left points; `false`, and nothing done, if two x are equal.
struct Add<'a, P: Point> {
    left: &'a mut [P],
    right: &'a [P],
}

impl<P: Point> Kernel for Add<'_, P> {
    type Output = bool;

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) -> bool {
        let (left, _) = self.left.as_chunks_mut::<LANES>();
        let (right, _) = self.right.as_chunks::<LANES>();
        let mut norms: Vec<(A::Lanes<Fq>, A::Lanes<Fq>)> = Vec::with_capacity(left.len());
        let mut product = arch.one::<Fq>();
        for (left, right) in left.iter().zip(right) {
            let (x1, x2) = (P::Coordinate::load(arch, left, 0), P::Coordinate::load(arch, right, 0));
            let norm = P::Coordinate::norm::<A>(P::Coordinate::difference::<A>(x2, x1));
            norms.push((product, norm));
            product = product.mul(norm);
        }
        let mut totals = product.store();
        if totals.iter().any(Zero::is_zero) {
            return false;
        }
        batch_inversion(&mut totals);
        // `s` is how arkworks' one reads here; t = 4 s for s = 1 / 16, and both are 1 where the forms agree.
        let s = arch.unpack::<Fq>(&[Packed(*Fq::one().montgomery_words()); LANES]);
        let scaled = s.eq_mask(arch.one()) == 0;
        let t = if scaled { s.double().double() } else { s };
        let mut inverse = arch.load(&totals).mul(t);
        for ((before, norm), (left, right)) in norms.into_iter().zip(left.iter_mut().zip(right)).rev() {
            let norm_inverse = before.mul(inverse);
            inverse = inverse.mul(norm);
            let (x1, x2) = (P::Coordinate::load(arch, left, 0), P::Coordinate::load(arch, right, 0));
            let (y1, y2) = (P::Coordinate::load(arch, left, 1), P::Coordinate::load(arch, right, 1));
            let run = P::Coordinate::difference::<A>(x2, x1);
            let rise = P::Coordinate::difference::<A>(y2, y1);
            let slope = P::Coordinate::divide::<A>(rise, run, norm_inverse);
            let square = P::Coordinate::square::<A>(slope);
            let x3 = P::Coordinate::sub_both::<A>(square, x1, x2);
            let mut back = P::Coordinate::difference::<A>(x1, x3);
            if scaled {
                back = P::Coordinate::quadruple::<A>(back);
            }
            let y3 = P::Coordinate::sub::<A>(P::Coordinate::mul::<A>(slope, back), y1);
            P::Coordinate::store::<A, P>(x3, left, 0);
            P::Coordinate::store::<A, P>(y3, left, 1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Portable;
    use crate::msm::{G1Point, G2Point};
    use ark_ec::short_weierstrass::Projective;
    use ark_ec::CurveGroup;
    use ark_ff::UniformRand;

    fn points<P: Point>(count: usize) -> Vec<P> {
        let mut rng = ark_std::test_rng();
        let random: Vec<_> = (0..count).map(|_| Projective::<P::Curve>::rand(&mut rng)).collect();
        let affine = Projective::normalize_batch(&random);
        affine.iter().map(|point| P::from_affine(point).unwrap()).collect()
    }

    fn sums_agree<P: Point + PartialEq + std::fmt::Debug>() {
        let points = points::<P>(40);
        let minus = points[3].negated_if(true);
        let mut operands: Vec<(P, P)> = points.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        for round in 0..2 {
            let mut pairs = Pairs::new(round == 1);
            operands.iter().enumerate().for_each(|(at, (left, right))| pairs.push(*left, *right, at as u32));
            let mut found = vec![P::INFINITY; operands.len()];
            pairs.flush(|target, sum| found[target as usize] = sum);
            for ((left, right), sum) in operands.iter().zip(&found) {
                assert_eq!(*sum, left.add_slowly(right));
            }
            // Once more with a doubling, two opposite points, and infinity.
            operands.extend([(points[5], points[5]), (points[3], minus), (points[1], P::INFINITY)]);
            operands.extend([(P::INFINITY, points[2]), (P::INFINITY, P::INFINITY)]);
        }
        // Without a hint that infinity may occur, a doubling and a cancellation are still noticed.
        let mut pairs = Pairs::new(false);
        let cases = [(points[5], points[5]), (points[3], minus), (points[0], points[1])];
        cases.iter().enumerate().for_each(|(at, (left, right))| pairs.push(*left, *right, at as u32));
        let mut found = vec![points[9]; cases.len()];
        pairs.flush(|target, sum| found[target as usize] = sum);
        for ((left, right), sum) in cases.iter().zip(&found) {
            assert_eq!(*sum, left.add_slowly(right));
        }
        assert!(found[1].is_infinity() && pairs.infinities);
    }

    #[test]
    fn sums_of_pairs_are_those_of_arkworks() {
        sums_agree::<G1Point>();
        sums_agree::<G2Point>();
    }

    fn portable_agrees<P: Point + PartialEq + std::fmt::Debug>() {
        let points = points::<P>(16);
        let mut pairs = Pairs::new(false);
        points.chunks(2).enumerate().for_each(|(at, pair)| pairs.push(pair[0], pair[1], at as u32));
        assert!(Add { left: &mut pairs.left, right: &pairs.right }.run(Portable));
        for (at, pair) in points.chunks(2).enumerate() {
            let expected = pair[0].add_slowly(&pair[1]);
            assert_eq!(pairs.left[at], expected);
        }
    }

    #[test]
    fn the_portable_path_computes_the_same() {
        portable_agrees::<G1Point>();
        portable_agrees::<G2Point>();
    }
}
