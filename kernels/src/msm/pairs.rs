//! Many affine additions at once: one inversion for a batch, eight additions a step.
//!
//! Stored words are arkworks' Montgomery form (`R = 2^256`). A vector architecture with another `R` reads them as they are,
//! that is as the coordinates times `s = 2^256 / R`, and never converts: with `x' = s x` and `y' = s y` the slope is
//! unchanged, and for `t^2 = s` the sum is `x3' = (t slope)^2 - x1' - x2'`, `y3' = (t slope)(x1' - x3') / t - y1'`. The factor
//! `t` costs nothing, because it enters a whole batch through its one inversion; for IFMA `1 / t` is 4.

use super::coordinate::Coordinate;
use super::Point;
use crate::field::invert::invert_all;
use crate::field::{dispatch, Arch, Kernel, LaneField, Lanes, Packed, LANES};
use crate::secret::Secret;
use ark_bn254::Fq;
use ark_ff::{One, Zero};
use std::marker::PhantomData;

/// Additions in a full batch: scratch stays in a second-level cache of a megabyte, and an inversion costs 1 ns an addition.
pub(crate) const BATCH: usize = 2048;

/// Pairs of points that wait for their sums, at most [`BATCH`].
pub(crate) struct Pairs<P: Point> {
    /// The left points; the sums replace them.
    left: Secret<P>,
    right: Secret<P>,
    targets: Secret<u32>,
    /// Targets and sums that the formulas do not give.
    exceptions: (Secret<u32>, Secret<P>),
    /// Whether a point at infinity may be among the operands.
    infinities: bool,
}

impl<P: Point> Pairs<P> {
    /// No pairs. `infinities` says whether operands may be infinity from the start; sums that are infinity set it anyway.
    pub(crate) fn new(infinities: bool) -> Self {
        // Room is made when it is needed: what was never used need not be wiped.
        let points = || Secret::with_room(P::INFINITY, 0);
        let targets = || Secret::with_room(0, 0);
        let exceptions = (targets(), points());
        Self { left: points(), right: points(), targets: targets(), exceptions, infinities }
    }

    #[cold]
    fn make_room(&mut self) {
        self.left.reserve_exact(BATCH);
        self.right.reserve_exact(BATCH);
        self.targets.reserve_exact(BATCH);
    }

    /// Whether [`Pairs::flush`] must come before the next [`Pairs::push`].
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        self.targets.len() == BATCH
    }

    /// Whether a point at infinity may be among the operands.
    pub(crate) fn infinities(&self) -> bool {
        self.infinities
    }

    /// Says that operands are not infinity from now on, until a sum is.
    pub(crate) fn forget_infinities(&mut self) {
        self.infinities = false;
    }

    /// Adds a pair whose sum is for `target`; not to full pairs.
    #[inline(always)]
    pub(crate) fn push(&mut self, left: P, right: P, target: u32) {
        if self.targets.capacity() == 0 {
            self.make_room();
        }
        debug_assert!(!self.is_full(), "room for another pair");
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
        for (&target, &sum) in self.targets.iter().zip(self.left.iter()) {
            sink(target, sum);
        }
        let (targets, sums) = &mut self.exceptions;
        for (target, sum) in targets.drain(..).zip(sums.drain(..)) {
            self.infinities |= sum.is_infinity();
            sink(target, sum);
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
        if !add_all(self.in_place()) {
            self.extract_exceptions();
            assert!(add_all(self.in_place()), "no two x are equal any more");
        }
    }

    /// What is there, whole groups.
    fn in_place(&mut self) -> InPlace<'_, P> {
        InPlace { left: self.left.as_chunks_mut().0, right: self.right.as_chunks().0 }
    }

    /// Adds by arkworks what the formulas do not cover: equal x, and infinity.
    #[cold]
    fn extract_exceptions(&mut self) {
        let (targets, sums) = &mut self.exceptions;
        if targets.capacity() == 0 {
            targets.reserve_exact(BATCH);
            sums.reserve_exact(BATCH);
        }
        for at in 0..self.targets.len() {
            let (left, right) = (self.left[at], self.right[at]);
            if left.same_x(&right) || left.is_infinity() || right.is_infinity() {
                targets.push(self.targets[at]);
                sums.push(left.add_slowly(&right));
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

/// Pairs of points in groups of eight, and where their sums go.
pub(crate) trait Operands<P: Point> {
    /// Number of groups.
    fn groups(&self) -> usize;

    /// x (`at` 0) or y (1) of the left and the right points of a group.
    fn load<A: Arch>(&self, arch: A, group: usize, at: usize)
        -> [<P::Coordinate as Coordinate>::Lanes<A>; 2];

    /// Where the sums of a group go. Their pairs are not read again.
    fn sums(&mut self, group: usize) -> &mut [P; LANES];

    /// Hears which group is read next, for every group twice: forwards, then backwards.
    fn next(&self, group: usize, forwards: bool);
}

/// The sums replace the left points.
struct InPlace<'a, P: Point> {
    left: &'a mut [[P; LANES]],
    right: &'a [[P; LANES]],
}

impl<P: Point> Operands<P> for InPlace<'_, P> {
    #[inline(always)]
    fn groups(&self) -> usize {
        self.left.len()
    }

    #[inline(always)]
    fn load<A: Arch>(
        &self,
        arch: A,
        group: usize,
        at: usize,
    ) -> [<P::Coordinate as Coordinate>::Lanes<A>; 2] {
        let (left, right) = (self.left[group].each_ref(), self.right[group].each_ref());
        [P::Coordinate::load(arch, left, at), P::Coordinate::load(arch, right, at)]
    }

    #[inline(always)]
    fn sums(&mut self, group: usize) -> &mut [P; LANES] {
        &mut self.left[group]
    }

    #[inline(always)]
    fn next(&self, _: usize, _: bool) {}
}

/// The sums of all pairs; `false`, and nothing done, if two x are equal. Infinity is not noticed.
pub(crate) fn add_all<P: Point>(operands: impl Operands<P>) -> bool {
    dispatch(Add { operands, point: PhantomData })
}

struct Add<O, P> {
    operands: O,
    point: PhantomData<P>,
}

impl<P: Point, O: Operands<P>> Kernel for Add<O, P> {
    type Output = bool;

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) -> bool {
        let mut operands = self.operands;
        let mut norms = Secret::with_room([arch.zero::<Fq>(); 2], operands.groups());
        let mut product = arch.one::<Fq>();
        for group in 0..operands.groups() {
            operands.next(group, true);
            let [x1, x2] = operands.load(arch, group, 0);
            let norm = P::Coordinate::norm::<A>(P::Coordinate::difference::<A>(x2, x1));
            norms.push([product, norm]);
            product = product.mul(norm);
        }
        let mut totals = product.store();
        if totals.iter().any(Zero::is_zero) {
            return false;
        }
        invert_all(&mut totals);
        // `s` is how arkworks' one reads here; t = 4 s for s = 1 / 16, and both are 1 where the forms agree.
        let s = arch.unpack::<Fq>(&[Packed(*Fq::one().montgomery_words()); LANES]);
        let scaled = s.eq_mask(arch.one()) == 0;
        let t = if scaled { s.double().double() } else { s };
        let mut inverse = arch.load(&totals).mul(t);
        for (group, [before, norm]) in norms.iter().copied().enumerate().rev() {
            operands.next(group, false);
            let norm_inverse = before.mul(inverse);
            inverse = inverse.mul(norm);
            let [x1, x2] = operands.load(arch, group, 0);
            let [y1, y2] = operands.load(arch, group, 1);
            let rise = P::Coordinate::difference::<A>(y2, y1);
            let slope = P::Coordinate::divide::<A>(rise, x2, x1, norm_inverse);
            let square = P::Coordinate::square::<A>(slope);
            let x3 = P::Coordinate::sub_both::<A>(square, x1, x2);
            let mut back = P::Coordinate::difference::<A>(x1, x3);
            if scaled {
                back = P::Coordinate::quadruple::<A>(back);
            }
            let y3 = P::Coordinate::sub::<A>(P::Coordinate::mul::<A>(slope, back), y1);
            let sums = operands.sums(group);
            P::Coordinate::store::<A, P>(x3, sums, 0);
            P::Coordinate::store::<A, P>(y3, sums, 1);
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
        assert!(Add { operands: pairs.in_place(), point: PhantomData::<P> }.run(Portable));
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
