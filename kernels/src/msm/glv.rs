//! Scalars cut in two by the curve's endomorphism: `k = k1 + lambda k2` with halves below `2^126`.
//!
//! `phi(x, y) = (beta x, y)` is multiplication by `lambda` in the prime-order subgroup (Gallant, Lambert and Vanstone 2001). Half
//! as many windows over twice as many points are as many additions, but half the buckets to be weighed: what a table of
//! `2^127 P` would give, for one product a point instead of twice the key. The lattice basis is arkworks'.

use ark_ec::scalar_mul::glv::GLVConfig;
use ark_ff::{BigInt, PrimeField};

use super::Point;
use ark_bn254::Fr;

/// Bits of a half without its sign.
pub(super) const HALF_BITS: u32 = 126;

/// What cuts scalars: a basis of the lattice of `(a, b)` with `a + b lambda = 0`, and two quotients by its determinant.
pub(super) struct Cut {
    /// Its rows `(n11, n12)` and `(n21, n22)`, modulo `2^128`.
    basis: [[u128; 2]; 2],
    /// `n22 / r` and `-n12 / r`, times `2^320` and rounded down, and whether they are negative.
    quotients: [([u64; 4], bool); 2],
}

impl Cut {
    /// For the group of `P`.
    pub(super) fn new<P: Point>() -> Self {
        let [n11, n12, n21, n22] = P::Curve::SCALAR_DECOMP_COEFFS;
        let wrapped = |(positive, BigInt([low, high, ..])): (bool, BigInt<4>)| {
            let size = u128::from(low) | u128::from(high) << 64;
            if positive {
                size
            } else {
                size.wrapping_neg()
            }
        };
        let quotients = [(quotient(n22.1), !n22.0), (quotient(n12.1), n12.0)];
        Self { basis: [[wrapped(n11), wrapped(n12)], [wrapped(n21), wrapped(n22)]], quotients }
    }

    /// The halves of `scalar`, a number below the order. Short scalars, and short negatives, have a second half of zero.
    ///
    /// `(k, 0)` minus the lattice vector nearest to it by coordinates: at most half of each basis vector remains, below
    /// `2^126`, so that two words are enough all the way.
    #[inline(always)]
    pub(super) fn halves(&self, scalar: &[u64; 4]) -> [i128; 2] {
        let [first, second] = self.quotients.each_ref().map(|(quotient, negative)| {
            let rounded = product_over_2_320(scalar, quotient);
            if *negative {
                rounded.wrapping_neg()
            } else {
                rounded
            }
        });
        let [[n11, n12], [n21, n22]] = self.basis;
        let scalar = u128::from(scalar[0]) | u128::from(scalar[1]) << 64;
        let near = |a: u128, b: u128| first.wrapping_mul(a).wrapping_add(second.wrapping_mul(b));
        [scalar.wrapping_sub(near(n11, n21)).cast_signed(), near(n12, n22).wrapping_neg().cast_signed()]
    }
}

/// `floor(2^320 n / r)` for `n` below `2^128`, by long division one bit at a time.
fn quotient(n: BigInt<4>) -> [u64; 4] {
    use ark_ff::BigInteger;
    let mut quotient = BigInt::<4>::new([0; 4]);
    let mut remainder = n;
    for _ in 0..320 {
        remainder.mul2();
        quotient.mul2();
        if remainder >= Fr::MODULUS {
            remainder.sub_with_borrow(&Fr::MODULUS);
            quotient.0[0] |= 1;
        }
    }
    quotient.0
}

/// `a * b / 2^320`, rounded to the nearest, for a result below `2^128`.
#[inline(always)]
fn product_over_2_320(a: &[u64; 4], b: &[u64; 4]) -> u128 {
    let mut words = [0u64; 8];
    for (i, a) in a.iter().enumerate() {
        let mut carry = 0;
        for (j, b) in b.iter().enumerate() {
            let sum = u128::from(*a) * u128::from(*b) + u128::from(words[i + j]) + u128::from(carry);
            words[i + j] = sum as u64;
            carry = (sum >> 64) as u64;
        }
        words[i + 4] = carry;
    }
    (u128::from(words[5]) | u128::from(words[6]) << 64) + u128::from(words[4] >> 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msm::{G1Point, G2Point};
    use ark_ec::short_weierstrass::Affine;
    use ark_ec::AffineRepr;
    use ark_ff::{Field, UniformRand, Zero};

    fn halves_are_short<P: Point>() {
        let cut = Cut::new::<P>();
        let lambda = P::Curve::LAMBDA;
        let field = |half: i128| {
            let size = Fr::from(half.unsigned_abs());
            if half < 0 {
                -size
            } else {
                size
            }
        };
        let mut rng = ark_std::test_rng();
        let mut scalars: Vec<Fr> = (0..2000).map(|_| Fr::rand(&mut rng)).collect();
        for bit in 0..254 {
            let power = Fr::from(2u64).pow([bit]);
            scalars.extend([power, -power, power - Fr::from(1u64), lambda * power, lambda - power]);
        }
        // About the corners of the cells: half of each basis vector.
        let half = Fr::from(2u64).inverse().unwrap();
        let [n11, n12, n21, n22] = P::Curve::SCALAR_DECOMP_COEFFS.map(|(positive, size)| {
            let size = Fr::from(size);
            if positive {
                size
            } else {
                -size
            }
        });
        assert!((n11 + n12 * lambda).is_zero() && (n21 + n22 * lambda).is_zero());
        for multiple in 0..200u64 {
            let corner = (n11 + n21 * Fr::from(multiple)) * half + (n12 + n22) * half * lambda;
            scalars.extend([corner, corner + Fr::from(1u64), corner - Fr::from(1u64)]);
        }
        for scalar in &scalars {
            let halves = cut.halves(&scalar.into_bigint().0);
            assert_eq!(field(halves[0]) + lambda * field(halves[1]), *scalar);
            assert!(halves.iter().all(|half| half.unsigned_abs() < 1 << HALF_BITS), "{scalar}: {halves:?}");
        }
        for short in [0i128, 1, -1, 255, -256, i128::from(u64::MAX), -i128::from(u64::MAX)] {
            assert_eq!(cut.halves(&field(short).into_bigint().0), [short, 0]);
        }
    }

    #[test]
    fn halves_are_short_and_sum_to_their_scalar() {
        halves_are_short::<G1Point>();
        halves_are_short::<G2Point>();
    }

    fn endomorphism_multiplies<P: Point>() {
        let mut rng = ark_std::test_rng();
        for _ in 0..4 {
            let point = (Affine::<P::Curve>::generator() * Fr::rand(&mut rng)).into();
            let image = P::from_affine(&point).unwrap().endomorphism();
            assert_eq!(image.affine(), Affine::from(point * P::Curve::LAMBDA));
        }
    }

    #[test]
    fn the_endomorphism_is_the_product_with_lambda() {
        endomorphism_multiplies::<G1Point>();
        endomorphism_multiplies::<G2Point>();
    }
}
