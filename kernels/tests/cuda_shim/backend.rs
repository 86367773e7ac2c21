//! `Backend` on the shim: its results are the CPU's, its plans of memory hold, and it cuts sums that do not fit.

use std::ops::Range;
use std::sync::mpsc;
use std::time::Duration;

use ark_bn254::Fr;
use ark_ff::{FftField, UniformRand};
use assay_kernels::backend::{Backend, BackendError, Counts, KeptKey, Transform};
use assay_kernels::device::{
    encode, encode_points, msm_bytes, ntt_bytes, Argument, Device, DeviceDomain, DeviceError, DevicePoint,
    Gpu, Launch, MsmPlan, Planned, SortedScalars,
};
use assay_kernels::groth16::{prove_with, silent, Groth16Error};
use assay_kernels::msm::{G1Point, G2Point};
use assay_kernels::ntt::NttError;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::faults::Circuit;
use super::msm::{expected, points, witness};
use super::process::Shim;
use super::rig::Rig;

fn random(count: usize) -> Vec<Fr> {
    let mut rng = ChaCha20Rng::seed_from_u64(count as u64);
    (0..count).map(|_| Fr::rand(&mut rng)).collect()
}

#[test]
fn every_call_gives_what_the_cpu_gives_and_is_counted() {
    let Some(shim) = Shim::start(5) else { return };
    let backend = Backend::on(shim);
    let (g1, g2, scalars) = (points::<G1Point>(70), points::<G2Point>(20), witness(70));
    assert_eq!(backend.msm_g1(&g1, &scalars).unwrap(), expected(&g1, &scalars));
    assert_eq!(backend.msm_g2(&g2, &scalars[..20]).unwrap(), expected(&g2, &scalars[..20]));
    for size in [1, 2, 3, 9, 64, 96, 72] {
        for transform in [Transform::Interpolate { shift: Fr::GENERATOR }, Transform::Evaluate] {
            let (mut here, mut there) = (random(size), random(size));
            Backend::cpu().ntt(&mut here, transform).unwrap();
            backend.ntt(&mut there, transform).unwrap();
            assert_eq!(here, there, "{transform:?} of {size}");
        }
    }
    let circuit = Circuit::new(30);
    let [r, s] = [random(2)[0], random(2)[1]];
    let proof = backend.prove_with(&circuit.key, &circuit.system, &circuit.z, r, s, &silent).unwrap();
    assert_eq!(proof, prove_with(&circuit.key, &circuit.system, &circuit.z, r, s, &silent).unwrap());
    let blinded = [0; 2].map(|_| backend.prove(&circuit.key, &circuit.system, &circuit.z, &silent).unwrap());
    assert_ne!(blinded[0], blinded[1]);
    assert_eq!(backend.counts(), Counts { device: 19, ..Counts::default() });
}

#[test]
fn a_device_is_tried_before_it_is_used() {
    let Some(shim) = Shim::start(6) else { return };
    let backend = Backend::tried(shim).unwrap();
    assert_eq!(backend.counts(), Counts::default());
    let sum = backend.msm_g1(&points(3), &witness(3)).unwrap();
    assert_eq!(sum, Backend::cpu().msm_g1(&points(3), &witness(3)).unwrap());
    assert_eq!(backend.counts(), Counts { device: 1, ..Counts::default() });
}

#[test]
fn bad_inputs_are_refused_and_are_not_the_devices_fault() {
    let Some(shim) = Shim::start(7) else { return };
    let backend = Backend::on(shim);
    let refused = backend.msm_g1(&points(3), &witness(2)).unwrap_err();
    assert!(matches!(refused, BackendError::Length { points: 3, scalars: 2 }));
    for size in [0, 5, 27, 45] {
        let refused = backend.ntt(&mut random(size + 1)[..size], Transform::Evaluate).unwrap_err();
        assert!(matches!(refused, BackendError::Ntt(NttError::Shape { size: given }) if given == size));
    }
    let circuit = Circuit::new(30);
    let mut z = circuit.z.clone();
    z[5] += Fr::from(1u64);
    backend.prove(&circuit.key, &circuit.system, &z, &silent).unwrap_err();
    assert_eq!(backend.counts(), Counts::default());
}

#[test]
fn without_a_gpu_there_is_the_cpu() {
    fn threads_may_share<T: Send + Sync>(_: &T) {}
    let auto = Backend::auto();
    threads_may_share(&auto);
    let (g1, scalars) = (points::<G1Point>(10), witness(10));
    assert_eq!(auto.msm_g1(&g1, &scalars).unwrap(), expected(&g1, &scalars));
    if !std::path::Path::new("/dev/nvidiactl").exists() {
        assert!(matches!(Gpu::open(), Err(DeviceError::Absent { .. })));
        assert_eq!((auto.describe().as_str(), auto.is_lost()), ("CPU", false));
        assert_eq!(auto.counts(), Counts { cpu: 1, ..Counts::default() });
    }
}

/// A device without memory, on which other calls are taken up while one waits.
#[derive(Debug)]
struct Crowded;

impl Device for Crowded {
    type Buffer = ();

    fn alloc(&self, bytes: usize) -> Result<(), DeviceError> {
        rayon::yield_now();
        Err(DeviceError::OutOfMemory { needed: bytes as u64, free: 0 })
    }

    fn write(&self, (): &(), _at: usize, _bytes: &[u8]) -> Result<(), DeviceError> {
        Ok(())
    }

    fn download(&self, (): &(), range: Range<usize>) -> Result<Vec<u8>, DeviceError> {
        Ok(vec![0; range.len()])
    }

    fn memory_free(&self) -> Result<u64, DeviceError> {
        Ok(1 << 40)
    }

    fn launch(&self, _launch: Launch, _arguments: &[Argument<'_, ()>]) -> Result<(), DeviceError> {
        Ok(())
    }
}

#[test]
fn a_call_that_a_waiting_one_takes_up_on_its_thread_ends() {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let backend = Backend::on(Crowded);
        let call = || {
            let (mut here, mut there) = (vec![Fr::GENERATOR; 64], vec![Fr::GENERATOR; 64]);
            Backend::cpu().ntt(&mut here, Transform::Evaluate).unwrap();
            backend.ntt(&mut there, Transform::Evaluate).unwrap();
            here == there
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let equal = pool.install(|| rayon::join(call, call));
        let _ = done.send((equal, backend.counts().cpu));
    });
    let ended = ended.recv_timeout(Duration::from_secs(60)).expect("no call waits for itself");
    assert_eq!(ended, ((true, true), 2));
}

/// The most memory that one sum took, and what was planned.
fn peak_of<P: DevicePoint>(scalars: &[Fr], plan: MsmPlan) -> Option<(u64, u64)> {
    let rig = Rig::with_memory(1 << 32)?;
    let numbers = rig.upload(&encode(scalars)).unwrap();
    let sorted = SortedScalars::new(&rig, &numbers, scalars.len(), plan).unwrap();
    drop(numbers);
    let bases = rig.upload(&encode_points(&points::<P>(scalars.len()))).unwrap();
    let _ = sorted.sum::<_, P>(&rig, &bases).unwrap();
    Some((rig.meter().peak(), msm_bytes::<P>(scalars.len(), plan)))
}

#[test]
fn sums_take_no_more_memory_than_planned_and_not_much_less() {
    let plans =
        [MsmPlan::default(), MsmPlan { window: Some(6), task: 4 }, MsmPlan { window: Some(3), task: 64 }];
    for plan in plans {
        for scalars in [random(300), witness(300), vec![Fr::from(1u64); 300]] {
            for (peak, planned) in
                [peak_of::<G1Point>(&scalars, plan), peak_of::<G2Point>(&scalars, plan)].into_iter().flatten()
            {
                assert!(peak <= planned, "{plan:?}: {peak} bytes, {planned} planned");
            }
        }
        let Some((peak, planned)) = peak_of::<G1Point>(&random(300), plan) else { return };
        assert!(planned <= 2 * peak, "{plan:?}: {planned} bytes planned, {peak} taken");
    }
}

#[test]
fn transforms_take_no_more_memory_than_planned() {
    for size in [2, 96, 1024, 9 << 6] {
        let Some(rig) = Rig::with_memory(1 << 32) else { return };
        let domain = DeviceDomain::new(&rig, size).unwrap();
        let scale = domain.scale(&rig, Fr::from(3u64), Fr::GENERATOR).unwrap();
        let values = rig.upload(&encode(&random(size))).unwrap();
        domain.interpolate(&rig, &values, Some(&scale)).unwrap();
        assert!(
            rig.meter().peak() <= ntt_bytes(size, 1),
            "{size}: {} bytes, {} planned",
            rig.meter().peak(),
            ntt_bytes(size, 1)
        );
    }
}

#[test]
fn sums_that_do_not_fit_are_cut_and_what_fits_not_at_all_goes_to_the_cpu() {
    // Enough for 1,024 points, not for 1,100; and not enough for 1,024.
    let (g1, scalars) = (points::<G1Point>(1100), random(1100));
    let enough = msm_bytes::<G1Point>(1024, MsmPlan::default()) * 17 / 16;
    assert!(msm_bytes::<G1Point>(1100, MsmPlan::default()) > enough - enough / 16);
    let expected = expected(&g1, &scalars);
    let Some(rig) = Rig::with_memory(enough) else { return };
    let backend = Backend::on(rig);
    assert_eq!(backend.msm_g1(&g1, &scalars).unwrap(), expected);
    assert_eq!(backend.counts(), Counts { device: 1, ..Counts::default() });

    let Some(rig) = Rig::with_memory(100_000) else { return };
    let backend = Backend::on(rig);
    assert_eq!(backend.msm_g1(&g1, &scalars).unwrap(), expected);
    // Not tried again: nobody has given memory back.
    assert_eq!(backend.counts(), REFUSED);
    let refused = backend.without_fallback().msm_g1(&g1, &scalars).unwrap_err();
    let BackendError::Device(DeviceError::TooLittleMemory { what, needed: 100_001.., free: 100_000 }) =
        refused
    else {
        panic!("{refused}");
    };
    assert_eq!(what, Planned::Sum(1100));
}

/// One call that the plan refused, and that the CPU did.
const REFUSED: Counts = Counts { cpu: 1, failures: 1, retries: 0, fallbacks: 1, device: 0 };

#[test]
fn domains_say_what_their_tables_take() {
    for size in [1, 2, 96, 1024, 9 << 6] {
        let Some(rig) = Rig::with_memory(1 << 32) else { return };
        let domain = DeviceDomain::new(&rig, size).unwrap();
        assert_eq!(domain.bytes(), rig.meter().live(), "{size}");
    }
}

#[test]
fn a_proof_takes_no_more_memory_than_planned_and_is_made_with_the_least_that_is_planned() {
    for constraints in [30, 600, 1500] {
        let circuit = Circuit::new(constraints);
        let plan = circuit.key.device_memory();
        for (memory, planned) in [(1 << 32, plan.most), (plan.least, plan.least)] {
            let Some(rig) = Rig::with_memory(memory) else { return };
            let (meter, backend) = (rig.meter(), Backend::on(rig));
            // The second finds the domain's tables there.
            for _ in 0..2 {
                backend.prove(&circuit.key, &circuit.system, &circuit.z, &silent).unwrap();
            }
            assert_eq!(backend.counts(), Counts { device: 2, ..Counts::default() }, "{constraints}");
            let peak = meter.peak();
            println!("{constraints} constraints, {memory} bytes: {peak} bytes taken, {planned} planned");
            assert!(peak <= planned, "{constraints}: {peak} bytes taken, {planned} planned");
            // Of small ones the rounding of allocations is most.
            assert!(constraints < 1000 || planned <= 3 * peak, "{peak} bytes taken, {planned} planned");
        }
    }
    // Where sums are not cut, nothing is gained by less memory.
    let plan = Circuit::new(1500).key.device_memory();
    assert!(plan.least < plan.most);
}

#[test]
fn a_proof_that_cannot_fit_is_refused_before_anything_is_allocated_and_not_tried_again() {
    let circuit = Circuit::new(600);
    let least = circuit.key.device_memory().least;
    let Some(rig) = Rig::with_memory(least - 1) else { return };
    let (meter, backend) = (rig.meter(), Backend::on(rig));
    backend.prove(&circuit.key, &circuit.system, &circuit.z, &silent).unwrap();
    assert_eq!((backend.counts(), meter.peak()), (REFUSED, 0));
    let backend = backend.without_fallback();
    let refused = backend.prove(&circuit.key, &circuit.system, &circuit.z, &silent).unwrap_err();
    let Groth16Error::Device(DeviceError::TooLittleMemory { what, needed, free }) = refused else {
        panic!("{refused}");
    };
    assert_eq!((what, needed, free), (Planned::Proof(circuit.key.domain_size()), least, least - 1));
    // Tables that another call has left are counted as free, and are not taken for memory that was given back.
    meter.leave(1 << 30);
    backend.ntt(&mut random(1024), Transform::Evaluate).unwrap();
    meter.leave(least - 1 - meter.live());
    let before = backend.counts();
    backend.prove(&circuit.key, &circuit.system, &circuit.z, &silent).unwrap_err();
    let after = Counts { failures: before.failures + 1, ..before };
    assert_eq!(backend.counts(), after);
}

#[test]
fn a_proof_with_kept_points_takes_no_more_memory_than_planned_beside_them() {
    for constraints in [30, 1500] {
        let circuit = Circuit::new(constraints);
        let prove = |kept: &KeptKey<Rig>| kept.prove(&circuit.system, &circuit.z, &silent).unwrap();
        let Some(rig) = Rig::with_memory(1 << 32) else { return };
        let (meter, backend) = (rig.meter(), std::sync::Arc::new(Backend::on(rig)));
        let kept = backend.keep(&circuit.key).unwrap();
        let (plan, points) = (kept.memory(), meter.live());
        assert!(points > 0);
        meter.forget_peak();
        prove(&kept);
        let peak = meter.peak() - points;
        assert!(peak <= plan.most, "{constraints}: {peak} taken, {plan:?}");
        assert!(constraints < 1000 || plan.most <= 4 * peak, "{peak} taken, {plan:?}");
        // The domain's tables are there already.
        let tables = meter.live() - points;
        meter.forget_peak();
        meter.leave(plan.least - tables);
        prove(&kept);
        assert!(meter.peak() - points <= plan.least, "{constraints}: {} taken, {plan:?}", meter.peak());
        assert_eq!(backend.counts(), Counts { device: 2, ..Counts::default() });
        // One byte less: the points go, which is memory that was given back, and the proof is made without them.
        meter.leave(plan.least - tables - 1);
        prove(&kept);
        assert_eq!(kept.tables(), None);
        assert_eq!(backend.counts(), Counts { device: 3, failures: 1, retries: 1, ..Counts::default() });
    }
}
