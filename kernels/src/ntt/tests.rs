use super::*;
use ark_ff::UniformRand;
use ark_poly::{EvaluationDomain, MixedRadixEvaluationDomain, Radix2EvaluationDomain};
use ark_std::test_rng;

const POWERS: [usize; 13] = [1, 2, 4, 8, 16, 32, 64, 128, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 17];
const MIXED: [usize; 11] = [3, 6, 48, 3 << 12, 3 << 13, 3 << 14, 9, 18, 9 << 5, 9 << 10, 9 << 13];

fn random(size: usize) -> Vec<Fr> {
    let mut rng = test_rng();
    (0..size).map(|_| Fr::rand(&mut rng)).collect()
}

fn agrees_with<D: EvaluationDomain<Fr>>(size: usize) {
    let (ours, theirs) = (Domain::new(size).unwrap(), D::new(size).unwrap());
    assert_eq!((ours.size(), ours.generator()), (theirs.size(), theirs.group_gen()));
    let input = random(size);
    let shift = Fr::from(5u64);
    let coset = theirs.get_coset(shift).unwrap();
    let mut values = input.clone();
    ours.fft(&mut values);
    assert_eq!(values, theirs.fft(&input), "fft of {size}");
    ours.ifft(&mut values);
    assert_eq!(values, input, "ifft of {size}");
    ours.coset_fft(&mut values, shift);
    assert_eq!(values, coset.fft(&input), "coset fft of {size}");
    ours.coset_ifft(&mut values, shift);
    assert_eq!(values, input, "coset ifft of {size}");
}

#[test]
fn power_of_two_domains_agree_with_arkworks() {
    POWERS.into_iter().for_each(agrees_with::<Radix2EvaluationDomain<Fr>>);
}

#[test]
fn mixed_radix_domains_agree_with_arkworks() {
    MIXED.into_iter().for_each(agrees_with::<MixedRadixEvaluationDomain<Fr>>);
}

#[test]
fn the_permuted_order_is_that_of_the_transforms() {
    for size in [16, 48, 9, 144] {
        let domain = Domain::new(size).unwrap();
        let coefficients = random(size);
        let mut values = coefficients.clone();
        domain.fft(&mut values);
        domain.interpolate_unscaled(&mut values);
        for (position, value) in values.iter().enumerate() {
            let index = domain.index_of(position);
            assert_eq!(*value, coefficients[index] * Fr::from(size as u64), "position {position} of {size}");
            assert_eq!(domain.position_of(index), position);
        }
    }
}

#[test]
fn values_move_to_a_coset_without_sorting() {
    for size in [1, 8, 3 << 5, 1 << 13, 3 << 13, 9, 9 << 10] {
        let domain = Domain::new(size).unwrap();
        let shift = Fr::from(7u64);
        let mut values = random(size);
        let mut expected = values.clone();
        domain.ifft(&mut expected);
        domain.coset_fft(&mut expected, shift);
        domain.interpolate_unscaled(&mut values);
        domain.scale_permuted(&mut values, shift);
        domain.evaluate_permuted(&mut values);
        assert_eq!(values, expected, "size {size}");
    }
}

#[test]
fn lagrange_values_interpolate_on_the_domain_and_on_a_coset() {
    for size in [1, 16, 3 << 4, 1 << 13, 3 << 12, 9 << 4] {
        let domain = Domain::new(size).unwrap();
        let coefficients = random(size);
        let (x, shift) = (Fr::from(123_456_789u64), Fr::from(5u64));
        let expected = coefficients.iter().rev().fold(Fr::zero(), |sum, coefficient| sum * x + coefficient);
        for shift in [Fr::one(), shift] {
            let mut values = coefficients.clone();
            domain.coset_fft(&mut values, shift);
            let weights = domain.lagrange_at(x, shift).unwrap();
            let sum: Fr = values.iter().zip(&weights).map(|(value, weight)| *value * weight).sum();
            assert_eq!(sum, expected, "size {size}");
        }
        assert!(domain.lagrange_at(domain.generator(), Fr::one()).is_none());
    }
}

#[test]
fn the_smallest_domain_is_chosen() {
    for (points, size) in
        [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (7, 8), (9, 9), (10, 12), (17, 18), (12_582_912, 3 << 22)]
    {
        assert_eq!(Domain::at_least(points).unwrap().size(), size, "{points} points");
    }
    // The wrap circuit's, and the next larger ones.
    for (points, size) in
        [(8_321_604, 1 << 23), ((1 << 23) + 1, 9 << 20), ((9 << 20) + 1, 3 << 22), ((1 << 28) + 1, 9 << 25)]
    {
        assert_eq!(Domain::smallest_size(points), Ok(size), "{points} points");
    }
    assert_eq!(Domain::smallest_size(3 << 28), Ok(3 << 28));
    assert_eq!(Domain::new(27).unwrap_err(), NttError::Shape { size: 27 });
    assert_eq!(Domain::new(10).unwrap_err(), NttError::Shape { size: 10 });
    assert_eq!(Domain::new(1 << 29).unwrap_err(), NttError::TooLarge { size: 1 << 29 });
    assert_eq!(Domain::at_least((3 << 28) + 1).unwrap_err(), NttError::TooLarge { size: (3 << 28) + 1 });
}
