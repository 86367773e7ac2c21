//! Sums over tables of multiples (`DeviceBases`), and proofs with a kept key.

use std::cell::Cell;
use std::sync::Arc;

use ark_bn254::{Fr, G1Projective, G2Projective};
use ark_ec::CurveGroup;
use ark_ff::{Field, UniformRand};
use assay_kernels::backend::{Backend, Counts};
use assay_kernels::device::{
    building_bytes, encode, encode_points, layout_for, sum_bytes, sum_chunks, table_bytes, Bases, Device,
    DeviceBases, DeviceError, DevicePoint, Job, Layout, MsmPlan, Sum, LADDER,
};
use assay_kernels::groth16::{prove_with, silent};
use assay_kernels::msm::{G1Point, G2Point, Point};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::faults::Circuit;
use super::msm::{expected, points, witness};
use super::process::Shim;
use super::rig::{Fault, Rig};

fn random(count: usize) -> Vec<Fr> {
    let mut rng = ChaCha20Rng::seed_from_u64(count as u64);
    (0..count).map(|_| Fr::rand(&mut rng)).collect()
}

/// One sum for each kind of scalars over the same tables.
fn agrees<P: DevicePoint>(points: &[P], kinds: &[Vec<Fr>], layout: Layout) {
    let Some(shim) = Shim::start(points.len() as u64) else { return };
    let bases = DeviceBases::<_, P>::load_in_pieces(&shim, &encode_points(points), layout, 37).unwrap();
    for scalars in kinds {
        let numbers = shim.upload(&encode(scalars)).unwrap();
        let sorted = bases.sort(&shim, &numbers, 0..scalars.len()).unwrap();
        let sum = bases.sum(&shim, &sorted).unwrap().into_affine();
        assert_eq!(sum, expected(points, scalars), "{} points, {layout:?}", points.len());
    }
}

/// As a witness; uniform; all equal to 0, 1, -1 and a large one.
fn kinds(count: usize) -> Vec<Vec<Fr>> {
    let equal = [Fr::from(0u64), Fr::ONE, -Fr::ONE, -Fr::from(3u64).inverse().unwrap()];
    let mut kinds = vec![witness(count), random(count)];
    kinds.extend(equal.map(|scalar| vec![scalar; count]));
    kinds
}

#[test]
fn sums_over_any_number_of_tables_are_those_of_arkworks_in_g1() {
    for tables in [1, 2, 3, 4, u32::MAX] {
        // Three pieces; points at infinity, repeated and opposite ones among them.
        agrees::<G1Point>(&points(97), &kinds(97), Layout::new(11, tables));
    }
    // 127 tables of one window each, and windows that fill 254 bits exactly.
    agrees::<G1Point>(&points(5), &kinds(5), Layout::new(2, u32::MAX));
}

#[test]
fn sums_over_any_number_of_tables_are_those_of_arkworks_in_g2() {
    for tables in [1, 2, 4, u32::MAX] {
        agrees::<G2Point>(&points(41), &kinds(41)[..3], Layout::new(9, tables));
    }
}

#[test]
fn tables_of_few_points_and_of_infinity_alone() {
    for layout in [Layout::new(7, 1), Layout::new(7, 4), Layout::new(7, u32::MAX)] {
        agrees::<G1Point>(&[], &[vec![]], layout);
        agrees::<G1Point>(&points(1), &kinds(1), layout);
        agrees::<G2Point>(&points(1), &kinds(1)[..2], layout);
        agrees(&[G1Point::INFINITY; 40], &[random(40)], layout);
        // All in one bucket of one set, which cancels or doubles.
        let point = points::<G1Point>(1)[0];
        agrees(&[point, point.negated_if(true)].repeat(20), &[vec![random(1)[0]; 40]], layout);
        agrees(&[point; 40], &[vec![random(1)[0]; 40]], layout);
    }
}

#[test]
fn the_layout_that_is_planned_for_a_number_of_points_gives_the_sum() {
    let Some(shim) = Shim::start(3) else { return };
    let (points, scalars) = (points::<G1Point>(200), witness(200));
    for tables in LADDER {
        let layout = layout_for(points.len(), 100, tables);
        assert!(layout.tables() <= tables);
        let bases = DeviceBases::<_, G1Point>::load(&shim, &encode_points(&points), layout).unwrap();
        let numbers = shim.upload(&encode(&scalars)).unwrap();
        let sorted = bases.sort(&shim, &numbers, 0..200).unwrap();
        assert_eq!(bases.sum(&shim, &sorted).unwrap().into_affine(), expected(&points, &scalars));
    }
    // Many points have no more than four tables.
    assert_eq!(layout_for(1 << 22, 1 << 22, u32::MAX).sets(), 1);
    assert!(layout_for((1 << 22) + 1, 1 << 22, u32::MAX).tables() <= 4);
}

#[test]
fn parts_of_kept_points_add_up_and_one_sort_serves_both_groups() {
    let Some(shim) = Shim::start(4) else { return };
    let (first, second, scalars) = (points::<G1Point>(60), points::<G2Point>(60), witness(60));
    let layout = Layout::new(8, 3);
    let b1 = DeviceBases::<_, G1Point>::load(&shim, &encode_points(&first), layout).unwrap();
    let b2 = DeviceBases::<_, G2Point>::load(&shim, &encode_points(&second), layout).unwrap();
    let (mut sum1, mut sum2) = (G1Projective::default(), G2Projective::default());
    for range in [0..0, 0..13, 13..59, 59..60] {
        let numbers = shim.upload(&encode(&scalars[range.clone()])).unwrap();
        let sorted = b2.sort(&shim, &numbers, range).unwrap();
        sum1 += b1.sum(&shim, &sorted).unwrap();
        sum2 += b2.sum(&shim, &sorted).unwrap();
    }
    assert_eq!(sum1.into_affine(), expected(&first, &scalars));
    assert_eq!(sum2.into_affine(), expected(&second, &scalars));
}

#[test]
#[should_panic(expected = "scalars sorted for bases like these")]
fn scalars_sorted_for_other_tables_are_refused() {
    let Some(shim) = Shim::start(4) else { panic!("scalars sorted for bases like these: no g++") };
    let load = |tables| {
        DeviceBases::<_, G1Point>::load(&shim, &encode_points(&points::<G1Point>(9)), Layout::new(8, tables))
    };
    let numbers = shim.upload(&encode(&witness(9))).unwrap();
    let sorted = load(2).unwrap().sort(&shim, &numbers, 0..9).unwrap();
    let _ = load(3).unwrap().sum(&shim, &sorted);
}

#[test]
fn sums_over_tables_are_cut_until_they_fit_beside_them() {
    let (points, scalars) = (points::<G1Point>(1100), random(1100));
    let layout = Layout::new(9, 2);
    let task = MsmPlan::default().task;
    let whole = sum_bytes::<G1Point>(1100, layout, task);
    // Room for half of the points, not for all; a sixteenth is left free.
    let half = sum_bytes::<G1Point>(550, layout, task).max(building_bytes::<G1Point>(1100, layout));
    let room = half * 16 / 15 + 16;
    assert!(room - room / 16 < whole);
    let Some(rig) = Rig::with_memory(table_bytes::<G1Point>(1100, layout) + room) else { return };
    let bases = DeviceBases::<_, G1Point>::load(&rig, &encode_points(&points), layout).unwrap();
    let (parts, mut sum) = (Cell::new(0), Sum::new(Bases::Kept(&bases)));
    let encoded = |range: std::ops::Range<usize>| {
        parts.set(parts.get() + 1);
        Zeroizing::new(encode(&scalars[range]))
    };
    sum_chunks(&rig, &mut Job::new(1100, vec![&mut sum]), &encoded, None).unwrap();
    assert_eq!((parts.get(), sum.total().into_affine()), (2, expected(&points, &scalars)));
}

/// The most memory that loading and one sum took, and what was planned.
fn peaks<P: DevicePoint>(scalars: &[Fr], layout: Layout) -> Option<[(u64, u64); 2]> {
    let (count, rig) = (scalars.len(), Rig::with_memory(1 << 32)?);
    let bases = DeviceBases::<_, P>::load(&rig, &encode_points(&points::<P>(count)), layout).unwrap();
    let tables = table_bytes::<P>(count, layout);
    let loading = (rig.meter().peak(), tables + building_bytes::<P>(count, layout));
    rig.meter().forget_peak();
    let numbers = rig.upload(&encode(scalars)).unwrap();
    let sorted = bases.sort(&rig, &numbers, 0..count).unwrap();
    drop(numbers);
    let _ = bases.sum(&rig, &sorted).unwrap();
    Some([loading, (rig.meter().peak(), tables + sum_bytes::<P>(count, layout, MsmPlan::default().task))])
}

#[test]
fn tables_take_no_more_memory_than_planned_and_not_much_less() {
    for layout in [Layout::new(8, 1), Layout::new(8, 3), Layout::new(10, u32::MAX)] {
        for scalars in [random(150), witness(150), vec![-Fr::from(5u64).inverse().unwrap(); 150]] {
            let seen = [peaks::<G1Point>(&scalars, layout), peaks::<G2Point>(&scalars, layout)];
            for (peak, planned) in seen.into_iter().flatten().flatten() {
                assert!(peak <= planned, "{layout:?}: {peak} bytes, {planned} planned");
            }
        }
        let Some(seen) = peaks::<G1Point>(&random(150), layout) else { return };
        for (peak, planned) in seen {
            assert!(planned <= 3 * peak, "{layout:?}: {planned} bytes planned, {peak} taken");
        }
    }
}

/// A proof with a kept key; it must be the CPU's.
fn prove_kept(backend: &Arc<Backend<Rig>>, circuit: &Circuit) -> [Option<[u32; 4]>; 2] {
    let [r, s] = [Fr::from(5u64), Fr::from(7u64)];
    let kept = backend.keep(&circuit.key).unwrap();
    let before = kept.tables();
    for _ in 0..2 {
        let proof = kept.prove_with(&circuit.system, &circuit.z, r, s, &silent).unwrap();
        assert_eq!(proof, prove_with(&circuit.key, &circuit.system, &circuit.z, r, s, &silent).unwrap());
    }
    [before, kept.tables()]
}

#[test]
fn proofs_with_a_kept_key_are_those_of_the_cpu_with_as_many_tables_as_memory_allows() {
    let circuit = Circuit::new(100);
    let mut seen = Vec::new();
    for kibibytes in [16384, 1024, 768, 512, 384, 256] {
        let Some(rig) = Rig::with_memory(kibibytes << 10) else { return };
        let backend = Arc::new(Backend::on(rig));
        let [before, after] = prove_kept(&backend, &circuit);
        assert_eq!(before, after);
        if before.is_some() {
            assert_eq!(backend.counts(), Counts { device: 2, ..Counts::default() }, "{kibibytes} KiB");
        }
        seen.push(before.map_or(0, |tables| tables[0]));
    }
    println!("tables of H: {seen:?}");
    assert!(seen.is_sorted_by(|more, less| more >= less), "{seen:?}");
    assert!(
        seen[0] > 8 && seen.last() == Some(&0),
        "full tables with much memory, none with little: {seen:?}"
    );
    assert!(seen.iter().any(|tables| (1..=8).contains(tables)), "{seen:?}");
}

#[test]
fn tables_that_are_wrong_are_forgotten_and_the_proof_is_good() {
    let circuit = Circuit::new(30);
    for fault in [Fault::Memory("msm_affine_g1_kernel", 2), Fault::Memory("msm_affine_g2_kernel", 2)] {
        let Some(rig) = Rig::start(fault, 0, 1) else { return };
        let backend = Arc::new(Backend::on(rig));
        let [before, after] = prove_kept(&backend, &circuit);
        assert!(before.is_some() && after.is_none(), "{fault:?}");
        assert_eq!(
            backend.counts(),
            Counts { device: 2, failures: 1, retries: 1, ..Counts::default() },
            "{fault:?}"
        );
    }
}

#[test]
fn a_key_is_kept_with_fewer_tables_where_others_took_the_memory_and_lost_devices_keep_none() {
    let circuit = Circuit::new(30);
    // The first rung's first allocation fails though the plan said that it fits.
    let Some(rig) = Rig::start(Fault::Allocation, 0, 1) else { return };
    let [before, after] = prove_kept(&Arc::new(Backend::on(rig)), &circuit);
    assert!(before.is_some_and(|tables| (2..=8).contains(&tables[0])) && before == after, "{before:?}");

    let Some(rig) = Rig::start(Fault::Allocation, 0, LADDER.len() as u32) else { return };
    let [before, after] = prove_kept(&Arc::new(Backend::on(rig)), &circuit);
    assert_eq!([before, after], [None, None]);

    let Some(rig) = Rig::start(Fault::Death, 3, 1) else { return };
    let backend = Arc::new(Backend::on(rig));
    assert_eq!(prove_kept(&backend, &circuit), [None, None]);
    assert!(backend.is_lost());

    let Some(rig) = Rig::start(Fault::Death, 3, 1) else { return };
    let backend = Arc::new(Backend::on(rig).without_fallback());
    let refused = backend.keep(&circuit.key).err();
    assert!(matches!(refused, Some(DeviceError::Lost { .. })), "{refused:?}");
}
