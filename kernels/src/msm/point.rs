//! Affine points as they are stored: Montgomery limbs, little-endian, no flag. The point at infinity is never stored.

use ark_bn254::{g1, g2, Fq, Fq2, Fr, G1Affine, G2Affine};
use ark_ec::short_weierstrass::{Affine, SWCurveConfig};
use ark_ec::AffineRepr;
use ark_ff::{BigInt, PrimeField};

/// A stored affine point other than infinity.
pub trait Point: Copy + Send + Sync + 'static {
    /// The curve in arkworks.
    type Curve: SWCurveConfig<ScalarField = Fr>;
    /// Bytes of a stored point.
    const BYTES: usize;

    /// Takes an arkworks point; `None` for infinity.
    fn from_affine(point: &Affine<Self::Curve>) -> Option<Self>;

    /// The arkworks point. The limbs are taken as they are.
    fn affine(&self) -> Affine<Self::Curve>;

    /// Appends the stored form.
    fn write(&self, out: &mut Vec<u8>);

    /// Whether limbs are below the modulus and the point is on the curve and in the prime-order subgroup.
    fn is_valid(&self) -> bool;
}

/// A point of G1: 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct G1Point {
    /// Montgomery limbs of x.
    pub x: [u64; 4],
    /// Montgomery limbs of y.
    pub y: [u64; 4],
}

/// A point of G2: 128 bytes; a coordinate is `c0 + c1 u`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
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
    const BYTES: usize = 64;

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

    fn is_valid(&self) -> bool {
        canonical(&self.x) && canonical(&self.y) && self.affine().is_on_curve()
    }
}

impl Point for G2Point {
    type Curve = g2::Config;
    const BYTES: usize = 128;

    fn from_affine(point: &G2Affine) -> Option<Self> {
        (!point.is_zero()).then_some(Self { x: limbs2(&point.x), y: limbs2(&point.y) })
    }

    fn affine(&self) -> G2Affine {
        G2Affine::new_unchecked(fq2(self.x), fq2(self.y))
    }

    fn write(&self, out: &mut Vec<u8>) {
        [&self.x[0], &self.x[1], &self.y[0], &self.y[1]].into_iter().for_each(|limbs| put(limbs, out));
    }

    fn is_valid(&self) -> bool {
        let limbs = [&self.x[0], &self.x[1], &self.y[0], &self.y[1]];
        limbs.into_iter().all(canonical)
            && self.affine().is_on_curve()
            && self.affine().is_in_correct_subgroup_assuming_on_curve()
    }
}
