//! Whether points of a curve are all in the subgroup of prime order.

use super::{msm, Point, PointFault};
use ark_bn254::Fr;
use ark_ec::{AffineRepr, CurveConfig, CurveGroup};
use rand::RngCore;
use rand_chacha::ChaCha20Rng;
use rayon::prelude::*;

/// Bits of a coefficient. The cofactor of G2 has no prime factor below `2^BITS`: it is 10,069 times larger ones.
const BITS: u32 = 13;
/// Random combinations of the points.
const ROUNDS: u32 = 5;
/// Points that are faster looked at one by one.
const FEW: usize = 256;

/// The first point that is outside, of points that are on their curve.
///
/// Random combinations of points of the subgroup are in it. If a point is outside, its multiples by different coefficients below
/// `2^13` differ by more than the subgroup, because its order there has a prime factor above them; so whatever the other points are,
/// at most one coefficient hides it. Five combinations miss it with probability `2^-65`. Where one shows it every point is looked at.
///
/// Cost: some 20 additions a point, where one by one it takes 128 doublings and more.
pub(crate) fn first_outside<P: Point>(points: &[P], rng: &mut ChaCha20Rng) -> Option<usize> {
    // A curve of prime order.
    if <P::Curve as CurveConfig>::COFACTOR == [1] {
        return None;
    }
    let all_in = points.len() > FEW && (0..ROUNDS).all(|_| combination_is_in(points, rng));
    if all_in {
        return None;
    }
    points.par_iter().position_first(|point| point.fault() == Some(PointFault::OutsideSubgroup))
}

fn combination_is_in<P: Point>(points: &[P], rng: &mut ChaCha20Rng) -> bool {
    let mut random = vec![0; 2 * points.len()];
    rng.fill_bytes(&mut random);
    // Short coefficients: the endomorphism, which is a multiplication in the subgroup only, is not used for them.
    let coefficient = |at: usize| {
        let number = u16::from_le_bytes([random[2 * at], random[2 * at + 1]]);
        Fr::from(u64::from(number) & ((1 << BITS) - 1))
    };
    let sum = msm(points, coefficient, &|_, _| ()).into_affine();
    sum.is_zero() || sum.is_in_correct_subgroup_assuming_on_curve()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msm::{G1Point, G2Point};
    use ark_bn254::{g2, Fq2, G1Affine, G2Affine};
    use ark_ec::{AdditiveGroup, PrimeGroup};
    use ark_ff::PrimeField;
    use rand::SeedableRng;

    /// The cofactor over a small number, and the remainder; least word first.
    fn cofactor_over(divisor: u64) -> (Vec<u64>, u64) {
        let mut remainder = 0u128;
        let mut quotient = g2::Config::COFACTOR.to_vec();
        for word in quotient.iter_mut().rev() {
            let value = remainder << 64 | u128::from(*word);
            (*word, remainder) = ((value / u128::from(divisor)) as u64, value % u128::from(divisor));
        }
        (quotient, remainder as u64)
    }

    fn multiples(count: usize) -> Vec<G2Point> {
        let generator = G2Affine::generator().into_group();
        let sums: Vec<_> = std::iter::successors(Some(generator), |sum| Some(sum.double() + generator))
            .take(count)
            .collect();
        let points = CurveGroup::normalize_batch(&sums);
        points.iter().map(|point| G2Point::from_affine(point).unwrap()).collect()
    }

    /// Points of the curve outside the subgroup: one of any order, and one whose part outside has the least order there is.
    fn strays() -> [G2Affine; 2] {
        let any = (1u64..).find_map(|x| G2Affine::get_point_from_x_unchecked(Fq2::from(x), false)).unwrap();
        let (quotient, remainder) = cofactor_over(10_069);
        assert_eq!(remainder, 0);
        let least = any.mul_bigint(Fr::MODULUS).into_affine().mul_bigint(quotient);
        assert!(!least.into_affine().is_zero() && least.mul_bigint([10_069]).into_affine().is_zero());
        [any, (least + G2Affine::generator()).into_affine()]
    }

    #[test]
    fn the_cofactor_has_no_prime_factor_that_coefficients_reach() {
        assert!((2..1 << BITS).all(|divisor| cofactor_over(divisor).1 != 0));
    }

    #[test]
    fn a_stray_point_is_found_among_many() {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        for count in [1, FEW, FEW + 1, 1000] {
            let good = multiples(count);
            assert_eq!(first_outside(&good, &mut rng), None, "{count} points");
            for stray in strays() {
                for at in [0, count / 2, count - 1] {
                    let mut points = good.clone();
                    points[at] = G2Point::from_affine(&stray).unwrap();
                    assert_eq!(first_outside(&points, &mut rng), Some(at), "{count} points");
                    // Its opposite beside it, so that what is outside cancels in every sum with equal coefficients.
                    let other = (at + 1) % count;
                    points[other] = G2Point::from_affine(&-stray).unwrap();
                    assert_eq!(first_outside(&points, &mut rng), Some(at.min(other)), "{count} points");
                }
            }
        }
    }

    #[test]
    fn every_point_of_g1_is_in() {
        let generator = G1Point::from_affine(&G1Affine::generator()).unwrap();
        assert_eq!(first_outside(&[generator; 300], &mut ChaCha20Rng::seed_from_u64(7)), None);
    }
}
