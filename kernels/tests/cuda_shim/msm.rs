//! `cuda/msm.cu` against `src/msm.rs`.

use ark_bn254::Fr;
use ark_ec::short_weierstrass::Affine;
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{AdditiveGroup, Field, PrimeField, UniformRand};
use assay_kernels::device::{encode, encode_points, Device, DevicePoint, MsmPlan, SortedScalars};
use assay_kernels::msm::{G1Point, G2Point, Point};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::process::Shim;

/// Points with infinity, repetitions and opposites among them.
pub(crate) fn points<P: DevicePoint>(count: usize) -> Vec<P> {
    let g = Affine::<P::Curve>::generator();
    let mut point = g * Fr::from(count as u64 + 2);
    let mut points: Vec<P> = Vec::new();
    for index in 0..count {
        let next = match index % 11 {
            3 => P::INFINITY,
            5 => points[index - 1],
            7 => points[index - 3].negated_if(!points[index - 3].is_infinity()),
            _ => {
                point += g;
                P::from_affine(&point.into_affine()).unwrap()
            }
        };
        points.push(next);
    }
    points
}

/// The sum by arkworks, without the code under test.
pub(crate) fn expected<P: DevicePoint>(points: &[P], scalars: &[Fr]) -> Affine<P::Curve> {
    let terms = points.iter().zip(scalars).filter(|(_, scalar)| **scalar != Fr::ZERO);
    let sum = terms.map(|(point, scalar)| point.affine_or_infinity() * scalar);
    sum.fold(Affine::<P::Curve>::zero().into_group(), |sum, term| sum + term).into_affine()
}

fn agrees<P: DevicePoint>(points: &[P], scalars: &[Fr], plan: MsmPlan) {
    let Some(shim) = Shim::start(scalars.len() as u64) else { return };
    let (bases, numbers) =
        (shim.upload(&encode_points(points)).unwrap(), shim.upload(&encode(scalars)).unwrap());
    let sorted = SortedScalars::new(&shim, &numbers, scalars.len(), plan).unwrap();
    let sum = sorted.sum::<_, P>(&shim, &bases).unwrap().into_affine();
    assert_eq!(sum, expected(points, scalars), "{} scalars, {plan:?}", scalars.len());
}

fn plan(window: u32, task: u32) -> MsmPlan {
    MsmPlan { window: Some(window), task }
}

/// As a witness: mostly 0, 1 and small.
pub(crate) fn witness(count: usize) -> Vec<Fr> {
    let mut rng = ChaCha20Rng::seed_from_u64(count as u64);
    let scalar = |index: usize| match index % 8 {
        0 => Fr::ZERO,
        1 | 2 => Fr::ONE,
        3 => -Fr::ONE,
        4 => Fr::from(rng.gen::<u32>()),
        5 => -Fr::from(rng.gen::<u16>()),
        6 => Fr::from(Fr::MODULUS_MINUS_ONE_DIV_TWO),
        _ => Fr::rand(&mut rng),
    };
    (0..count).map(scalar).collect()
}

#[test]
fn sums_in_g1_are_those_of_arkworks_at_sizes_around_blocks() {
    // Blocks of 256 scalars, warps of 32.
    for count in [0, 1, 2, 31, 33, 255, 257] {
        agrees::<G1Point>(&points(count), &witness(count), MsmPlan::default());
    }
}

#[test]
fn sums_in_g2_are_those_of_arkworks() {
    for count in [0, 1, 33, 100] {
        agrees::<G2Point>(&points(count), &witness(count), plan(4, 4));
    }
}

#[test]
fn every_width_of_a_window_gives_the_same() {
    let mut scalars = witness(24);
    scalars.extend([Fr::from(Fr::MODULUS_MINUS_ONE_DIV_TWO) + Fr::ONE, -Fr::from(2), Fr::from(u64::MAX)]);
    let points = points::<G1Point>(scalars.len());
    // 2 divides the 254 bits; 9 has buckets for more than one chunk, 14 for more than one block of a fold.
    for window in [2, 3, 5, 7, 9, 14] {
        agrees(&points, &scalars, plan(window, 3));
    }
}

#[test]
fn hot_buckets_are_cut_into_tasks_and_rounds() {
    // All equal: one bucket a window. 300 entries in tasks of 4 are five rounds.
    for scalar in [Fr::ONE, -Fr::ONE, Fr::from(77), -Fr::from(3).inverse().unwrap()] {
        agrees::<G1Point>(&points(300), &[scalar; 300], plan(6, 4));
    }
}

#[test]
fn repeated_and_opposite_points_cancel_or_double() {
    let point = points::<G1Point>(1)[0];
    agrees(&[point; 64], &[Fr::from(9); 64], plan(4, 64));
    let mut pair = [point, point.negated_if(true)].repeat(32);
    agrees(&pair, &[Fr::from(9); 64], plan(4, 64));
    pair[5] = G1Point::INFINITY;
    agrees(&pair, &[-Fr::from(9); 64], plan(4, 2));
    agrees(&[G1Point::INFINITY; 40], &witness(40), plan(4, 8));
}

#[test]
fn zeros_alone_give_infinity() {
    agrees::<G1Point>(&points(40), &[Fr::ZERO; 40], plan(5, 8));
    agrees::<G2Point>(&points(40), &[Fr::ZERO; 40], plan(5, 8));
}

#[test]
fn one_sort_serves_points_of_both_groups_and_classes_are_counted() {
    let Some(shim) = Shim::start(9) else { return };
    let scalars = witness(80);
    let numbers = shim.upload(&encode(&scalars)).unwrap();
    let sorted = SortedScalars::new(&shim, &numbers, scalars.len(), plan(5, 8)).unwrap();
    assert_eq!(sorted.classes(), [10, 30, 20, 20]);
    let (first, second) = (points::<G1Point>(80), points::<G2Point>(80));
    let bases = shim.upload(&encode_points(&first)).unwrap();
    assert_eq!(sorted.sum::<_, G1Point>(&shim, &bases).unwrap().into_affine(), expected(&first, &scalars));
    let bases = shim.upload(&encode_points(&second)).unwrap();
    assert_eq!(sorted.sum::<_, G2Point>(&shim, &bases).unwrap().into_affine(), expected(&second, &scalars));
}
