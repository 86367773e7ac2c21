//! `cuda/ntt.cu` against `src/ntt.rs`.

use ark_bn254::Fr;
use ark_ff::{FftField, Field, One, UniformRand};
use assay_kernels::device::{decode, encode, Device, DeviceDomain, DeviceError, Scale};
use assay_kernels::ntt::Domain;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::process::{Shim, ShimBuffer};

/// Tiles have 2^10 elements, passes 8 levels: below, at and above both, and three passes.
const SIZES: [usize; 19] =
    [1, 2, 4, 32, 256, 512, 1024, 2048, 1 << 13, 3, 6, 96, 3 << 9, 3 << 10, 3 << 11, 9, 18, 36, 9 << 6];

fn random(count: usize) -> Vec<Fr> {
    let mut rng = ChaCha20Rng::seed_from_u64(count as u64);
    let mut values: Vec<Fr> = (0..count).map(|_| Fr::rand(&mut rng)).collect();
    values[0] = -Fr::one();
    values
}

struct Case {
    shim: Shim,
    domain: DeviceDomain<ShimBuffer>,
}

impl Case {
    fn new(size: usize) -> Option<Self> {
        let shim = Shim::start(size as u64)?;
        let domain = DeviceDomain::new(&shim, size).unwrap();
        Some(Self { shim, domain })
    }

    fn interpolated(&self, values: &[Fr], scale: Option<&Scale<ShimBuffer>>) -> Vec<Fr> {
        let buffer = self.shim.upload(&encode(values)).unwrap();
        self.domain.interpolate(&self.shim, &buffer, scale).unwrap();
        decode(&self.shim.download(&buffer, 0..32 * values.len()).unwrap())
    }

    fn evaluated(&self, values: &[Fr], scale: Option<&Scale<ShimBuffer>>) -> Vec<Fr> {
        let buffer = self.shim.upload(&encode(values)).unwrap();
        self.domain.evaluate(&self.shim, &buffer, scale).unwrap();
        decode(&self.shim.download(&buffer, 0..32 * values.len()).unwrap())
    }
}

#[test]
fn transforms_are_those_of_the_cpu() {
    for size in SIZES {
        let Some(case) = Case::new(size) else { return };
        let cpu = Domain::new(size).unwrap();
        let values = random(size);
        let mut expected = values.clone();
        cpu.interpolate_unscaled(&mut expected);
        assert_eq!(case.interpolated(&values, None), expected, "interpolation of {size}");
        let mut expected = values.clone();
        cpu.evaluate_permuted(&mut expected);
        assert_eq!(case.evaluated(&values, None), expected, "evaluation of {size}");
        assert!((0..size).all(|position| case.domain.index_of(position) == cpu.index_of(position)));
    }
}

#[test]
fn fused_coset_factors_are_those_of_the_cpu() {
    for size in SIZES {
        let Some(case) = Case::new(size) else { return };
        let cpu = Domain::new(size).unwrap();
        let (values, shift) = (random(size), Fr::GENERATOR);
        let size_inverse = Fr::from(size as u64).inverse().unwrap();
        let scale = case.domain.scale(&case.shim, size_inverse, shift).unwrap();
        let mut expected = values.clone();
        cpu.interpolate_unscaled(&mut expected);
        cpu.scale_permuted(&mut expected, shift);
        assert_eq!(case.interpolated(&values, Some(&scale)), expected, "scaled interpolation of {size}");
        let mut expected = values.clone();
        cpu.scale_permuted(&mut expected, shift);
        cpu.evaluate_permuted(&mut expected);
        assert_eq!(case.evaluated(&values, Some(&scale)), expected, "scaled evaluation of {size}");
    }
}

#[test]
fn other_sizes_are_refused() {
    let Some(shim) = Shim::start(0) else { return };
    for size in [0, 5, 27, 1023, 3 * 5] {
        assert!(matches!(DeviceDomain::new(&shim, size), Err(DeviceError::Ntt(_))), "{size}");
    }
}
