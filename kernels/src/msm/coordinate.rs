//! Coordinates of points on eight lanes: the base field and its quadratic extension, `u^2 = -1`.

use super::Point;
use crate::field::{Arch, Lanes, Packed, LANES};
use ark_bn254::{Fq, Fq2};

/// A field of coordinates. Elements are reduced unless a method says otherwise ([`crate::field`]).
pub trait Coordinate: 'static {
    /// Eight elements.
    type Lanes<A: Arch>: Copy;

    /// Loads x (`at` 0) or y (1) of eight points. Free of multiplications.
    fn load<A: Arch, P: Point<Coordinate = Self>>(arch: A, points: [&P; LANES], at: usize) -> Self::Lanes<A>;

    /// The inverse of [`Coordinate::load`].
    fn store<A: Arch, P: Point<Coordinate = Self>>(value: Self::Lanes<A>, points: &mut [P; LANES], at: usize);

    /// `-a` in the lanes of `mask`, `a` in the others.
    fn negate_where<A: Arch>(mask: u8, a: Self::Lanes<A>) -> Self::Lanes<A>;

    /// `a - b`.
    fn sub<A: Arch>(a: Self::Lanes<A>, b: Self::Lanes<A>) -> Self::Lanes<A>;

    /// `a - b` below `4p`, for a factor of a product.
    fn difference<A: Arch>(a: Self::Lanes<A>, b: Self::Lanes<A>) -> Self::Lanes<A>;

    /// `a - b - c`.
    fn sub_both<A: Arch>(a: Self::Lanes<A>, b: Self::Lanes<A>, c: Self::Lanes<A>) -> Self::Lanes<A>;

    /// `a * b`, for factors below `4p`.
    fn mul<A: Arch>(a: Self::Lanes<A>, b: Self::Lanes<A>) -> Self::Lanes<A>;

    /// `a * a`.
    fn square<A: Arch>(a: Self::Lanes<A>) -> Self::Lanes<A>;

    /// `4 * a` for a factor of a product with a reduced element, `a` below `4p`.
    fn quadruple<A: Arch>(a: Self::Lanes<A>) -> Self::Lanes<A>;

    /// The norm in the base field of `a` below `4p`, zero only for zero, itself below `4p`.
    fn norm<A: Arch>(a: Self::Lanes<A>) -> A::Lanes<Fq>;

    /// `a / (b - c)`, `a` below `4p`, from the inverse of the norm of `b - c`.
    fn divide<A: Arch>(
        a: Self::Lanes<A>,
        b: Self::Lanes<A>,
        c: Self::Lanes<A>,
        norm_inverse: A::Lanes<Fq>,
    ) -> Self::Lanes<A>;
}

/// Loads one part of eight points.
#[inline(always)]
fn load_part<A: Arch, P: Point>(arch: A, points: [&P; LANES], part: usize) -> A::Lanes<Fq> {
    arch.unpack_words(points.map(|point| point.part(part)))
}

#[inline(always)]
fn store_part<P: Point>(values: [Packed; LANES], points: &mut [P; LANES], part: usize) {
    for (point, value) in points.iter_mut().zip(values) {
        *point.part_mut(part) = value.0;
    }
}

impl Coordinate for Fq {
    type Lanes<A: Arch> = A::Lanes<Fq>;

    #[inline(always)]
    fn load<A: Arch, P: Point<Coordinate = Self>>(arch: A, points: [&P; LANES], at: usize) -> A::Lanes<Fq> {
        load_part(arch, points, at)
    }

    #[inline(always)]
    fn store<A: Arch, P: Point<Coordinate = Self>>(value: A::Lanes<Fq>, points: &mut [P; LANES], at: usize) {
        store_part(value.pack(), points, at);
    }

    #[inline(always)]
    fn negate_where<A: Arch>(mask: u8, a: A::Lanes<Fq>) -> A::Lanes<Fq> {
        a.negate_where(mask)
    }

    #[inline(always)]
    fn sub<A: Arch>(a: A::Lanes<Fq>, b: A::Lanes<Fq>) -> A::Lanes<Fq> {
        a.sub(b)
    }

    #[inline(always)]
    fn difference<A: Arch>(a: A::Lanes<Fq>, b: A::Lanes<Fq>) -> A::Lanes<Fq> {
        a.sub_raw(b).carry()
    }

    #[inline(always)]
    fn sub_both<A: Arch>(a: A::Lanes<Fq>, b: A::Lanes<Fq>, c: A::Lanes<Fq>) -> A::Lanes<Fq> {
        a.sub_raw(b).sub_raw(c).carry().shrink()
    }

    #[inline(always)]
    fn mul<A: Arch>(a: A::Lanes<Fq>, b: A::Lanes<Fq>) -> A::Lanes<Fq> {
        a.mul(b)
    }

    #[inline(always)]
    fn square<A: Arch>(a: A::Lanes<Fq>) -> A::Lanes<Fq> {
        a.square()
    }

    /// Below `16p`, which a product with a reduced element allows.
    #[inline(always)]
    fn quadruple<A: Arch>(a: A::Lanes<Fq>) -> A::Lanes<Fq> {
        let twice = a.add_raw(a);
        twice.add_raw(twice).carry()
    }

    #[inline(always)]
    fn norm<A: Arch>(a: A::Lanes<Fq>) -> A::Lanes<Fq> {
        a
    }

    #[inline(always)]
    fn divide<A: Arch>(
        a: A::Lanes<Fq>,
        _: A::Lanes<Fq>,
        _: A::Lanes<Fq>,
        norm_inverse: A::Lanes<Fq>,
    ) -> A::Lanes<Fq> {
        a.mul(norm_inverse)
    }
}

impl Coordinate for Fq2 {
    type Lanes<A: Arch> = [A::Lanes<Fq>; 2];

    #[inline(always)]
    fn load<A: Arch, P: Point<Coordinate = Self>>(
        arch: A,
        points: [&P; LANES],
        at: usize,
    ) -> [A::Lanes<Fq>; 2] {
        [load_part(arch, points, 2 * at), load_part(arch, points, 2 * at + 1)]
    }

    #[inline(always)]
    fn store<A: Arch, P: Point<Coordinate = Self>>(
        value: [A::Lanes<Fq>; 2],
        points: &mut [P; LANES],
        at: usize,
    ) {
        store_part(value[0].pack(), points, 2 * at);
        store_part(value[1].pack(), points, 2 * at + 1);
    }

    #[inline(always)]
    fn negate_where<A: Arch>(mask: u8, a: [A::Lanes<Fq>; 2]) -> [A::Lanes<Fq>; 2] {
        [a[0].negate_where(mask), a[1].negate_where(mask)]
    }

    #[inline(always)]
    fn sub<A: Arch>(a: [A::Lanes<Fq>; 2], b: [A::Lanes<Fq>; 2]) -> [A::Lanes<Fq>; 2] {
        [a[0].sub(b[0]), a[1].sub(b[1])]
    }

    #[inline(always)]
    fn difference<A: Arch>(a: [A::Lanes<Fq>; 2], b: [A::Lanes<Fq>; 2]) -> [A::Lanes<Fq>; 2] {
        [a[0].sub_raw(b[0]).carry(), a[1].sub_raw(b[1]).carry()]
    }

    #[inline(always)]
    fn sub_both<A: Arch>(
        a: [A::Lanes<Fq>; 2],
        b: [A::Lanes<Fq>; 2],
        c: [A::Lanes<Fq>; 2],
    ) -> [A::Lanes<Fq>; 2] {
        std::array::from_fn(|i| a[i].sub_raw(b[i]).sub_raw(c[i]).carry().shrink())
    }

    /// Karatsuba: three products. Sums of two factors are below `8p`.
    #[inline(always)]
    fn mul<A: Arch>(a: [A::Lanes<Fq>; 2], b: [A::Lanes<Fq>; 2]) -> [A::Lanes<Fq>; 2] {
        let low = a[0].mul(b[0]);
        let high = a[1].mul(b[1]);
        let both = a[0].add_raw(a[1]).carry().mul(b[0].add_raw(b[1]).carry());
        [low.sub(high), both.sub_raw(low).sub_raw(high).carry().shrink()]
    }

    /// `(a0 + a1)(a0 - a1) + 2 a0 a1 u`.
    #[inline(always)]
    fn square<A: Arch>(a: [A::Lanes<Fq>; 2]) -> [A::Lanes<Fq>; 2] {
        let real = a[0].add_raw(a[1]).carry().mul(a[0].sub_raw(a[1]).carry());
        [real, a[0].add_raw(a[0]).carry().mul(a[1])]
    }

    #[inline(always)]
    fn quadruple<A: Arch>(a: [A::Lanes<Fq>; 2]) -> [A::Lanes<Fq>; 2] {
        a.map(|part| <Fq as Coordinate>::quadruple::<A>(part).shrink())
    }

    #[inline(always)]
    fn norm<A: Arch>(a: [A::Lanes<Fq>; 2]) -> A::Lanes<Fq> {
        a[0].square().add(a[1].square())
    }

    /// `a * conjugate(b - c) / norm(b - c)`.
    #[inline(always)]
    fn divide<A: Arch>(
        a: [A::Lanes<Fq>; 2],
        b: [A::Lanes<Fq>; 2],
        c: [A::Lanes<Fq>; 2],
        norm_inverse: A::Lanes<Fq>,
    ) -> [A::Lanes<Fq>; 2] {
        let b = Self::difference::<A>(b, c);
        Self::mul::<A>(a, [b[0].mul(norm_inverse), b[1].mul(norm_inverse).neg()])
    }
}
