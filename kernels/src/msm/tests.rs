use super::*;
use ark_ec::{CurveGroup, VariableBaseMSM};
use ark_ff::UniformRand;
use rand::Rng;

fn points<P: Point>(count: usize) -> Vec<P> {
    let mut rng = ark_std::test_rng();
    let step = Projective::<P::Curve>::rand(&mut rng);
    let mut point = Projective::<P::Curve>::rand(&mut rng);
    let all: Vec<_> = (0..count)
        .map(|_| {
            point += step;
            point
        })
        .collect();
    Projective::normalize_batch(&all).iter().map(|point| P::from_affine(point).unwrap()).collect()
}

fn agrees<P: Point>(points: &[P], scalars: &[Fr]) {
    let affine: Vec<_> = points.iter().map(Point::affine).collect();
    let expected = Projective::<P::Curve>::msm_unchecked(&affine, scalars);
    assert!(msm(points, |at| scalars[at], &|_, _| ()) == expected, "{} points", points.len());
    // So small that sums of buckets meet, double and cancel across chunks.
    for chunk in [1 + points.len() / 7, 1 + points.len() / 2] {
        let sum = msm_in_chunks(points, chunk, |at| scalars[at], &|_, _| ());
        assert!(sum == expected, "{} points, {chunk} at a time", points.len());
    }
}

/// Zeros, ones, minus ones, bytes and full scalars.
fn witness(count: usize) -> Vec<Fr> {
    let mut rng = ark_std::test_rng();
    (0..count)
        .map(|_| match rng.gen_range(0..6) {
            0 => Fr::from(0u64),
            1 | 2 => Fr::from(1u64),
            3 => -Fr::from(1u64),
            4 => Fr::from(rng.gen::<u8>()),
            _ => Fr::rand(&mut rng),
        })
        .collect()
}

fn sizes<P: Point>(sizes: &[usize]) {
    let mut rng = ark_std::test_rng();
    for &size in sizes {
        let points = points::<P>(size);
        let scalars: Vec<Fr> = (0..size).map(|_| Fr::rand(&mut rng)).collect();
        agrees(&points, &scalars);
        agrees(&points, &witness(size));
    }
}

#[test]
fn products_in_g1_are_those_of_arkworks() {
    sizes::<G1Point>(&[0, 1, 2, 7, 8, 9, 100, 2047, 2049, 20_000]);
}

#[test]
fn products_in_g2_are_those_of_arkworks() {
    sizes::<G2Point>(&[0, 1, 9, 300, 5_000]);
}

#[test]
fn equal_and_opposite_points_and_hot_buckets_are_covered() {
    let mut rng = ark_std::test_rng();
    let some = points::<G1Point>(4);
    let points: Vec<G1Point> = (0..40_000).map(|at| some[at % 4].negated_if(at % 7 == 3)).collect();
    agrees(&points, &vec![Fr::from(1u64); points.len()]);
    agrees(&points, &witness(points.len()));
    let opposite: Vec<G1Point> = (0..6_000).map(|at| some[0].negated_if(at % 2 == 1)).collect();
    let scalar = Fr::rand(&mut rng);
    agrees(&opposite, &vec![scalar; opposite.len()]);
    agrees(&opposite, &vec![Fr::from(0u64); opposite.len()]);
}

/// A point, its image and the image's image sum to zero: entries meet those of other points' images, double and cancel.
fn images_among_the_points<P: Point>(triples: usize) {
    let mut rng = ark_std::test_rng();
    let points: Vec<P> = points::<P>(triples)
        .into_iter()
        .flat_map(|point| [point, point.endomorphism(), point.endomorphism().endomorphism()])
        .collect();
    let scalar = Fr::rand(&mut rng);
    for scalar in [Fr::from(0u64), Fr::from(1u64), -Fr::from(1u64), scalar] {
        agrees(&points, &vec![scalar; points.len()]);
    }
    // Multiples of lambda: the second halves are the short ones, and meet the first halves of the images.
    let lambda = <P::Curve as ark_ec::scalar_mul::glv::GLVConfig>::LAMBDA;
    let scalars: Vec<Fr> =
        (0..points.len()).map(|at| [Fr::from(5u64), lambda, -lambda, scalar][at % 4]).collect();
    agrees(&points, &scalars);
    agrees(&points, &witness(points.len()));
}

#[test]
fn points_whose_images_are_given_too_are_covered() {
    images_among_the_points::<G1Point>(3_000);
    images_among_the_points::<G2Point>(100);
}
