//! Points that are sent while kernels run: when, within which memory, and that sums are the same without.

use std::ops::Range;

use ark_bn254::Fr;
use ark_ff::UniformRand;
use assay_kernels::backend::{Backend, Counts};
use assay_kernels::device::{
    encode, encode_points, msm_bytes, points_bytes, sum_at_once, sum_chunks, Bases, Device, DeviceError, Job,
    MsmPlan, Sum,
};
use assay_kernels::groth16::{prove_with, silent};
use assay_kernels::msm::{G1Point, G2Point};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::faults::Circuit;
use super::msm::{expected, points};
use super::rig::{Fault, Rig, Sent};

fn random(count: usize) -> Vec<Fr> {
    let mut rng = ChaCha20Rng::seed_from_u64(count as u64);
    (0..count).map(|_| Fr::rand(&mut rng)).collect()
}

/// What a part of `count` points takes, in both groups if `both`, without and with points sent before their turn.
fn bytes(count: usize, both: bool) -> [u64; 2] {
    let plan = MsmPlan::default();
    let [first, second] = [msm_bytes::<G1Point>(count, plan), msm_bytes::<G2Point>(count, plan)];
    let [alone, points] = if both {
        [first.max(second), points_bytes::<G2Point>(count)]
    } else {
        [first, points_bytes::<G1Point>(count)]
    };
    [alone, alone + points]
}

/// Memory of which a sixteenth is left, and these bytes besides.
fn memory(bytes: u64) -> u64 {
    bytes * 16 / 15 + 16
}

/// Two jobs one after another, the first over both groups: whether all sums are right.
fn two_jobs(rig: &Rig, count: usize) -> Result<bool, DeviceError> {
    let (g1, g2, scalars) = (points::<G1Point>(count), points::<G2Point>(count), random(count));
    let encoded = |range: Range<usize>| Zeroizing::new(encode(&scalars[range]));
    let twice = [encode_points(&g1), encode_points(&g1)];
    let mut sums = twice.each_ref().map(|bytes| Sum::<_, G1Point>::new(Bases::Encoded(bytes)));
    let mut second = Sum::new(Bases::Host(&g2));
    let [first, last] = &mut sums;
    let (mut job, mut next) =
        (Job::<Rig>::new(count, vec![first, &mut second]), Job::<Rig>::new(count, vec![last]));
    sum_chunks(rig, &mut job, &encoded, Some(&mut next))?;
    sum_chunks(rig, &mut next, &encoded, None)?;
    drop((job, next));
    let whole = expected(&g1, &scalars);
    Ok(sums.iter().all(|sum| sum.total() == whole) && second.total() == expected(&g2, &scalars))
}

#[test]
fn points_are_sent_beside_the_kernels_of_the_sum_before() {
    let Some(rig) = Rig::with_memory(memory(bytes(300, true)[1])) else { return };
    assert!(two_jobs(&rig, 300).unwrap());
    assert_eq!(rig.sent().get(), Sent { all: 3, beside: 2 });
    assert!(
        rig.meter().peak() <= bytes(300, true)[1],
        "{} bytes, {:?} planned",
        rig.meter().peak(),
        bytes(300, true)
    );
}

#[test]
fn without_room_points_are_sent_at_their_turn() {
    let [alone, ahead] = bytes(300, true);
    let room = memory(alone);
    assert!(room - room / 16 < ahead);
    let Some(rig) = Rig::with_memory(room) else { return };
    assert!(two_jobs(&rig, 300).unwrap());
    assert_eq!(rig.sent().get(), Sent { all: 3, beside: 0 });
    assert!(rig.meter().peak() <= alone, "{} bytes, {alone} planned", rig.meter().peak());
}

#[test]
fn parts_leave_room_for_the_points_of_the_next() {
    let (g1, scalars) = (points::<G1Point>(2200), random(2200));
    let encoded = |range: Range<usize>| Zeroizing::new(encode(&scalars[range]));
    let [_, ahead] = bytes(1100, false);
    let room = memory(ahead);
    assert!(room - room / 16 < bytes(2200, false)[0]);
    let Some(rig) = Rig::with_memory(room) else { return };
    let mut sum = Sum::new(Bases::Host(&g1));
    sum_chunks(&rig, &mut Job::new(2200, vec![&mut sum]), &encoded, None).unwrap();
    assert_eq!(sum.total(), expected(&g1, &scalars));
    assert_eq!(rig.sent().get(), Sent { all: 2, beside: 1 });
    let alone = bytes(1100, false)[0];
    assert!(
        rig.meter().peak() <= ahead && 2 * rig.meter().peak() > alone,
        "{} bytes, {ahead} planned",
        rig.meter().peak()
    );
}

#[test]
fn scalars_beside_which_nothing_fits_come_back_and_are_summed_without() {
    let (g1, scalars) = (points::<G1Point>(600), random(600));
    let encoded = |range: Range<usize>| Zeroizing::new(encode(&scalars[range]));
    // Enough for the sum, but not beside its scalars.
    let Some(rig) = Rig::with_memory(memory(bytes(600, false)[0])) else { return };
    let there = rig.upload(&encoded(0..600)).unwrap();
    let mut sum = Sum::new(Bases::Host(&g1));
    let mut job = Job::new(600, vec![&mut sum]);
    let back = sum_at_once(&rig, &mut job, there, None).unwrap().expect("no room");
    assert!(rig.download(&back, 0..32 * 600).unwrap() == *encoded(0..600));
    drop(back);
    sum_chunks(&rig, &mut job, &encoded, None).unwrap();
    drop(job);
    assert_eq!(sum.total(), expected(&g1, &scalars));
}

#[test]
fn points_that_find_no_memory_ahead_are_sent_at_their_turn() {
    let mut passed = 0;
    for wait in 0.. {
        let Some(rig) = Rig::start(Fault::Allocation, wait, 1) else { return };
        match two_jobs(&rig, 40) {
            Ok(right) => {
                assert!(right, "after {wait} allocations");
                if !rig.has_struck() {
                    break;
                }
                passed += 1;
                assert_eq!(rig.sent().get(), Sent { all: 4, beside: 2 }, "after {wait} allocations");
            }
            Err(error) => assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}"),
        }
    }
    assert_eq!(passed, 2, "the points of the second sum and of the second job");
}

#[test]
fn all_points_of_a_proof_are_sent_beside_kernels_but_kept_ones() {
    let circuit = Circuit::new(30);
    let [r, s] = [Fr::from(5u64), Fr::from(7u64)];
    let Some(rig) = Rig::with_memory(1 << 32) else { return };
    let sent = rig.sent();
    let backend = std::sync::Arc::new(Backend::on(rig));
    let proof = backend.prove_with(&circuit.key, &circuit.system, &circuit.z, r, s, &silent).unwrap();
    assert_eq!(proof, prove_with(&circuit.key, &circuit.system, &circuit.z, r, s, &silent).unwrap());
    assert_eq!(sent.get(), Sent { all: 5, beside: 5 });
    let kept = backend.keep(&circuit.key).unwrap();
    assert_eq!(kept.prove_with(&circuit.system, &circuit.z, r, s, &silent).unwrap(), proof);
    assert_eq!(sent.get(), Sent { all: 5, beside: 5 });
    assert_eq!(backend.counts(), Counts { device: 2, ..Counts::default() });
}
