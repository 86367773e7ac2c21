//! Faults of a device: never a wrong proof, always a good one or a typed error, and every failure counted.

use std::sync::Arc;

use ark_bn254::Fr;
use assay_kernels::backend::{Backend, BackendError, Counts};
use assay_kernels::device::DeviceError;
use assay_kernels::groth16::{
    prove_with, setup, silent, synthetic, verify, Check, Groth16Error, ProvingKey, ToxicWaste,
};
use assay_kernels::msm::G1Point;
use assay_kernels::r1cs::R1cs;

use super::msm::{expected, points, witness};
use super::rig::{Fault, Rig};

/// A small circuit with its key.
pub(crate) struct Circuit {
    pub(crate) system: R1cs,
    pub(crate) z: Vec<Fr>,
    pub(crate) key: Arc<ProvingKey>,
    _folder: tempfile::TempDir,
}

impl Circuit {
    pub(crate) fn new(constraints: usize) -> Self {
        let (system, z) = synthetic::circuit(constraints);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        setup(&system, [0; 32], &path, ToxicWaste::random().unwrap(), &silent).unwrap();
        let key = Arc::new(ProvingKey::open(&path, &[0; 32], Check::Points).unwrap());
        Self { system, z, key, _folder: folder }
    }
}

/// Proves on a rig; the proof must be the CPU's.
fn counts_with(circuit: &Circuit, fault: Fault, wait: u32, strikes: u32) -> Option<(Counts, bool)> {
    let backend = Backend::on(Rig::start(fault, wait, strikes)?);
    let [r, s] = [Fr::from(5u64), Fr::from(7u64)];
    let proof = backend.prove_with(&circuit.key, &circuit.system, &circuit.z, r, s, &silent).unwrap();
    assert!(verify(circuit.key.verifying_key(), &circuit.z[1..2], &proof).unwrap());
    assert_eq!(
        proof,
        prove_with(&circuit.key, &circuit.system, &circuit.z, r, s, &silent).unwrap(),
        "{fault:?}"
    );
    Some((backend.counts(), backend.is_lost()))
}

const RETRIED: Counts = Counts { device: 1, cpu: 0, failures: 1, retries: 1, fallbacks: 0 };
const ON_THE_CPU: Counts = Counts { device: 0, cpu: 1, failures: 2, retries: 1, fallbacks: 1 };

/// Where memory of the device is spoilt: transforms, products, recoded scalars, entries, buckets, windows.
const SPOILT: [Fault; 8] = [
    Fault::Memory("ntt_split_kernel", 0),
    Fault::Memory("ntt_merge_kernel", 0),
    Fault::Memory("ntt_multiply_kernel", 0),
    Fault::Memory("msm_recode_kernel", 1),
    Fault::Memory("msm_accumulate_g1_kernel", 4),
    Fault::Memory("msm_accumulate_g2_kernel", 4),
    Fault::Memory("msm_weigh_g1_kernel", 2),
    Fault::Memory("msm_weigh_g2_kernel", 2),
];

#[test]
fn a_fault_that_passes_costs_one_retry() {
    let circuit = Circuit::new(30);
    let passing = [Fault::Allocation, Fault::Refusal].map(|fault| (fault, 25));
    for (fault, wait) in SPOILT.map(|fault| (fault, 0)).into_iter().chain(passing) {
        let Some(seen) = counts_with(&circuit, fault, wait, 1) else { return };
        assert_eq!(seen, (RETRIED, false), "{fault:?}");
    }
}

#[test]
fn a_fault_that_stays_leaves_the_cpu_to_prove() {
    let circuit = Circuit::new(30);
    for fault in [SPOILT[2], SPOILT[4], SPOILT[7], Fault::Allocation] {
        let Some(seen) = counts_with(&circuit, fault, 0, u32::MAX) else { return };
        assert_eq!(seen, (ON_THE_CPU, false), "{fault:?}");
    }
}

#[test]
fn a_device_may_die_at_any_call() {
    let circuit = Circuit::new(30);
    for wait in [0, 1, 5, 11, 17, 23, 40, 60, 90] {
        let Some(seen) = counts_with(&circuit, Fault::Death, wait, 1) else { return };
        assert_eq!(seen, (ON_THE_CPU, true), "after {wait} calls");
    }
}

#[test]
fn a_lost_device_is_not_asked_again() {
    let Some(rig) = Rig::start(Fault::Death, 3, 1) else { return };
    let backend = Backend::on(rig);
    let (g1, scalars) = (points::<G1Point>(20), witness(20));
    let expected = expected(&g1, &scalars);
    for call in 1..=3 {
        assert_eq!(backend.msm_g1(&g1, &scalars).unwrap(), expected);
        assert!(backend.is_lost());
        assert_eq!(backend.counts(), Counts { cpu: call, ..ON_THE_CPU });
    }
}

#[test]
fn without_fallback_a_fault_is_a_typed_error() {
    let circuit = Circuit::new(30);
    let Some(rig) = Rig::start(Fault::Allocation, 0, u32::MAX) else { return };
    let backend = Backend::on(rig).without_fallback();
    let error = backend.prove(&circuit.key, &circuit.system, &circuit.z, &silent).unwrap_err();
    assert!(matches!(error, Groth16Error::Device(DeviceError::OutOfMemory { .. })), "{error:?}");

    let Some(rig) = Rig::start(SPOILT[5], 0, u32::MAX) else { return };
    let backend = Backend::on(rig).without_fallback();
    let error = backend.prove(&circuit.key, &circuit.system, &circuit.z, &silent).unwrap_err();
    assert!(matches!(error, Groth16Error::ProofRejected), "{error:?}");

    let Some(rig) = Rig::start(Fault::Death, 0, 1) else { return };
    let backend = Backend::on(rig).without_fallback();
    for _ in 0..2 {
        let error = backend.msm_g1(&points(3), &witness(3)).unwrap_err();
        assert!(matches!(error, BackendError::Device(DeviceError::Lost { .. })), "{error:?}");
    }
}

#[test]
fn a_device_that_miscalculates_is_not_taken() {
    for fault in [SPOILT[0], SPOILT[1], SPOILT[4], SPOILT[5]] {
        let Some(rig) = Rig::start(fault, 0, u32::MAX) else { return };
        let refused = Backend::tried(rig).err();
        assert!(matches!(refused, Some(DeviceError::WrongResult { .. })), "{fault:?}: {refused:?}");
    }
}
