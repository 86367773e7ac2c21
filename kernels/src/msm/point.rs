//! Affine points as they are stored: Montgomery limbs, little-endian, no flag. The point at infinity is never stored.

use super::coordinate::Coordinate;
use ark_bn254::{g1, g2, Fq, Fq2, Fr, G1Affine, G2Affine};
use ark_ec::scalar_mul::glv::GLVConfig;
use ark_ec::short_weierstrass::Affine;
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{BigInt, BigInteger, PrimeField};
use thiserror::Error;

/// Why a stored point cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PointFault {
    /// Limbs of a coordinate are the modulus or more.
    #[error("a coordinate is not below the modulus")]
    NotCanonical,
    /// [`Point::INFINITY`].
    #[error("it is the point at infinity")]
    Infinity,
    /// The coordinates do not satisfy the curve's equation.
    #[error("it is not on its curve")]
    OffCurve,
    /// On the curve, but its order is not the scalar field's. In G1 every point of the curve is in.
    #[error("it is on its curve, but not in the subgroup of prime order")]
    OutsideSubgroup,
}

/// A stored affine point other than infinity.
pub trait Point: Copy + Send + Sync + 'static {
    /// The curve in arkworks.
    type Curve: GLVConfig<ScalarField = Fr>;
    /// The field of a coordinate.
    type Coordinate: Coordinate;
    /// Words of a coordinate over 4: 1 or 2.
    const WIDTH: usize;
    /// Bytes of a stored point.
    const BYTES: usize;
    /// All words zero, which is not on the curve: stands for infinity in scratch memory, never in a key.
    const INFINITY: Self;
    /// The factor of x in the curve's endomorphism, a cube root of one.
    const ENDOMORPHISM: Fq;

    /// The four words of part `part` of the coordinates, those of x first: `part` is below `2 * WIDTH`.
    fn part(&self, part: usize) -> &[u64; 4];

    /// Mutable access to what [`Point::part`] returns.
    fn part_mut(&mut self, part: usize) -> &mut [u64; 4];

    /// Takes an arkworks point; `None` for infinity.
    fn from_affine(point: &Affine<Self::Curve>) -> Option<Self>;

    /// The arkworks point. The limbs are taken as they are.
    fn affine(&self) -> Affine<Self::Curve>;

    /// Appends the stored form.
    fn write(&self, out: &mut Vec<u8>);

    /// What is wrong with limbs that may be anything: coordinates, infinity, the curve, the subgroup of prime order.
    ///
    /// Cost: below a microsecond in G1, about a hundred in G2, for the subgroup.
    fn fault(&self) -> Option<PointFault> {
        self.curve_fault().or_else(|| {
            let is_in = self.affine().is_in_correct_subgroup_assuming_on_curve();
            (!is_in).then_some(PointFault::OutsideSubgroup)
        })
    }

    /// [`Point::fault`] without the subgroup.
    fn curve_fault(&self) -> Option<PointFault> {
        let parts = 0..2 * Self::WIDTH;
        if !parts.into_iter().all(|part| canonical(self.part(part))) {
            return Some(PointFault::NotCanonical);
        }
        if self.is_infinity() {
            return Some(PointFault::Infinity);
        }
        (!self.affine().is_on_curve()).then_some(PointFault::OffCurve)
    }

    /// The arkworks point, infinity for [`Point::INFINITY`].
    fn affine_or_infinity(&self) -> Affine<Self::Curve> {
        if self.is_infinity() {
            Affine::zero()
        } else {
            self.affine()
        }
    }

    /// Whether this is [`Point::INFINITY`].
    #[inline(always)]
    fn is_infinity(&self) -> bool {
        (0..2 * Self::WIDTH).all(|part| *self.part(part) == [0; 4])
    }

    /// Whether both have the same x.
    #[inline(always)]
    fn same_x(&self, other: &Self) -> bool {
        (0..Self::WIDTH).all(|part| self.part(part) == other.part(part))
    }

    /// The point with y negated if `negate`. Without a branch: signs of digits cannot be predicted.
    #[inline(always)]
    fn negated_if(mut self, negate: bool) -> Self {
        for part in Self::WIDTH..2 * Self::WIDTH {
            let words = self.part_mut(part);
            let mut negative = Fq::MODULUS;
            negative.sub_with_borrow(&BigInt::new(*words));
            let is_zero = words.iter().fold(0, |bits, word| bits | word) == 0;
            let mask = u64::from(negate & !is_zero).wrapping_neg();
            for (word, other) in words.iter_mut().zip(negative.0) {
                *word ^= (*word ^ other) & mask;
            }
        }
        self
    }

    /// The point times `GLVConfig::LAMBDA`, for a point of the prime-order subgroup.
    #[inline(always)]
    fn endomorphism(mut self) -> Self {
        for part in 0..Self::WIDTH {
            let image = fq(*self.part(part)) * Self::ENDOMORPHISM;
            *self.part_mut(part) = image.0 .0;
        }
        self
    }

    /// The sum by arkworks, for the rare cases; infinity is [`Point::INFINITY`] on both sides.
    fn add_slowly(&self, other: &Self) -> Self {
        if self.is_infinity() {
            return *other;
        }
        if other.is_infinity() {
            return *self;
        }
        let sum = (self.affine() + other.affine()).into_affine();
        Self::from_affine(&sum).unwrap_or(Self::INFINITY)
    }
}

/// A point of G1: 64 bytes, a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct G1Point {
    /// Montgomery limbs of x.
    pub x: [u64; 4],
    /// Montgomery limbs of y.
    pub y: [u64; 4],
}

/// A point of G2: 128 bytes, two cache lines; a coordinate is `c0 + c1 u`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct G2Point {
    /// Montgomery limbs of x.
    pub x: [[u64; 4]; 2],
    /// Montgomery limbs of y.
    pub y: [[u64; 4]; 2],
}

fn fq(limbs: [u64; 4]) -> Fq {
    Fq::new_unchecked(BigInt::new(limbs))
}

fn fq2(limbs: [[u64; 4]; 2]) -> Fq2 {
    Fq2::new(fq(limbs[0]), fq(limbs[1]))
}

fn limbs2(value: &Fq2) -> [[u64; 4]; 2] {
    [value.c0.0 .0, value.c1.0 .0]
}

fn canonical(limbs: &[u64; 4]) -> bool {
    BigInt::new(*limbs) < Fq::MODULUS
}

fn put(limbs: &[u64; 4], out: &mut Vec<u8>) {
    limbs.iter().for_each(|limb| out.extend_from_slice(&limb.to_le_bytes()));
}

impl Point for G1Point {
    type Curve = g1::Config;
    type Coordinate = Fq;
    const WIDTH: usize = 1;
    const BYTES: usize = 64;
    const INFINITY: Self = Self { x: [0; 4], y: [0; 4] };
    const ENDOMORPHISM: Fq = g1::Config::ENDO_COEFFS[0];

    #[inline(always)]
    fn part(&self, part: usize) -> &[u64; 4] {
        [&self.x, &self.y][part]
    }

    #[inline(always)]
    fn part_mut(&mut self, part: usize) -> &mut [u64; 4] {
        if part == 0 {
            &mut self.x
        } else {
            &mut self.y
        }
    }

    fn from_affine(point: &G1Affine) -> Option<Self> {
        (!point.is_zero()).then_some(Self { x: point.x.0 .0, y: point.y.0 .0 })
    }

    fn affine(&self) -> G1Affine {
        G1Affine::new_unchecked(fq(self.x), fq(self.y))
    }

    fn write(&self, out: &mut Vec<u8>) {
        put(&self.x, out);
        put(&self.y, out);
    }
}

impl Point for G2Point {
    type Curve = g2::Config;
    type Coordinate = Fq2;
    const WIDTH: usize = 2;
    const BYTES: usize = 128;
    const INFINITY: Self = Self { x: [[0; 4]; 2], y: [[0; 4]; 2] };
    const ENDOMORPHISM: Fq = g2::Config::ENDO_COEFFS[0].c0;

    #[inline(always)]
    fn part(&self, part: usize) -> &[u64; 4] {
        if part < 2 {
            &self.x[part]
        } else {
            &self.y[part - 2]
        }
    }

    #[inline(always)]
    fn part_mut(&mut self, part: usize) -> &mut [u64; 4] {
        if part < 2 {
            &mut self.x[part]
        } else {
            &mut self.y[part - 2]
        }
    }

    fn from_affine(point: &G2Affine) -> Option<Self> {
        (!point.is_zero()).then_some(Self { x: limbs2(&point.x), y: limbs2(&point.y) })
    }

    fn affine(&self) -> G2Affine {
        G2Affine::new_unchecked(fq2(self.x), fq2(self.y))
    }

    fn write(&self, out: &mut Vec<u8>) {
        [&self.x[0], &self.x[1], &self.y[0], &self.y[1]].into_iter().for_each(|limbs| put(limbs, out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_points_are_checked() {
        let g1 = G1Point::from_affine(&G1Affine::generator()).unwrap();
        let g2 = G2Point::from_affine(&G2Affine::generator()).unwrap();
        assert_eq!((g1.fault(), g2.fault()), (None, None));
        assert!(G1Point::from_affine(&G1Affine::zero()).is_none());
        assert_eq!(G1Point::INFINITY.fault(), Some(PointFault::Infinity));
        assert_eq!(G2Point::INFINITY.fault(), Some(PointFault::Infinity));
        // The same residue, not canonical.
        let mut wrong = g1;
        let mut carry = 0;
        for (word, modulus) in wrong.x.iter_mut().zip(Fq::MODULUS.0) {
            let sum = u128::from(*word) + u128::from(modulus) + carry;
            *word = sum as u64;
            carry = sum >> 64;
        }
        assert_eq!(wrong.fault(), Some(PointFault::NotCanonical));
        let mut wrong = g1;
        wrong.y[0] ^= 1;
        assert_eq!(wrong.fault(), Some(PointFault::OffCurve));
        // On the curve, outside the subgroup: the twist has many more points than the subgroup.
        let outside =
            (1u64..).find_map(|x| G2Affine::get_point_from_x_unchecked(Fq2::from(x), false)).unwrap();
        assert!(outside.is_on_curve());
        assert_eq!(G2Point::from_affine(&outside).unwrap().fault(), Some(PointFault::OutsideSubgroup));
    }
}
