//! `src/device/cuda.rs` on a driver that runs the kernels on the shim (`cuda/shim/driver.cpp`): the calls, their arguments and what
//! becomes of their errors. The library is found by its name, so each test runs a part of itself in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ark_bn254::Fr;
use ark_ff::FftField;
use assay_kernels::backend::{Backend, BackendError, Counts, Transform};
use assay_kernels::device::{decode, encode, Argument, Device, DeviceError, DeviceTree, Gpu, Launch};
use assay_kernels::groth16::{prove_with, silent};
use assay_kernels::msm::{G1Point, G2Point};
use assay_kernels::poseidon2::Sponge;

use super::faults::Circuit;
use super::msm::{expected, points, witness};
use super::process::compiled;

/// Set in the processes that have the driver: elsewhere the parts do nothing.
const INSIDE: &str = "ASSAY_FAKE_DRIVER";
/// Where the driver writes what runs.
const TRACE: &str = "ASSAY_FAKE_TRACE";
/// Orders in which the driver runs what is queued.
const ORDERS: [&str; 5] = ["0", "1", "2", "3", "4"];
/// More than both halves of pinned memory, and not a multiple of anything.
const LONG: usize = (20 << 20) + 12_345;

/// A folder with the driver of the shim; `None`, with a message, where it cannot be built.
fn driver() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let library = compiled("cuda-driver", "driver.cpp", &["-shared", "-fPIC"])?;
        let folder = library.with_extension("folder");
        std::fs::create_dir_all(&folder).unwrap();
        let fresh = folder.join(format!("fresh.{}", std::process::id()));
        std::fs::copy(&library, &fresh).unwrap();
        std::fs::rename(&fresh, folder.join("libcuda.so")).unwrap();
        Some(folder)
    });
    if folder.is_none() {
        eprintln!("SKIPPED: no g++ on this machine, so the driver of the shim cannot be compiled");
    }
    folder.as_deref()
}

/// Runs the ignored test `part` in a process that finds its driver in `folder`.
fn run_with(folder: &Path, part: &str, settings: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", &format!("cuda_shim::driver::{part}")])
        .env("LD_LIBRARY_PATH", folder)
        .env(INSIDE, "1")
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Runs the ignored test `part` with the driver of the shim.
fn with_driver(part: &str, settings: &[(&str, &str)]) {
    if let Some(folder) = driver() {
        run_with(folder, part, settings);
    }
}

#[test]
fn a_driver_without_the_calls_is_absent_and_nothing_panics() {
    if driver().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libcuda.so");
    let built = Command::new("g++").args(["-shared", "-x", "c++", "/dev/null", "-o"]).arg(&library).status();
    assert!(built.unwrap().success());
    run_with(folder.path(), "there_is_only_the_cpu", &[]);
}

#[test]
fn results_on_the_driver_are_the_cpus() {
    for order in ORDERS {
        with_driver("everything_is_computed", &[("ASSAY_FAKE_ORDER", order)]);
    }
    with_driver("everything_is_computed", &[("ASSAY_FAKE_NO_PINNED", "1")]);
}

#[test]
#[ignore = "a part of results_on_the_driver_are_the_cpus"]
fn everything_is_computed() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let backend = Backend::auto();
    assert_eq!(backend.describe(), "shim, checked-in PTX");
    let (g1, g2, scalars) = (points::<G1Point>(70), points::<G2Point>(20), witness(70));
    assert_eq!(backend.msm_g1(&g1, &scalars).unwrap(), expected(&g1, &scalars));
    assert_eq!(backend.msm_g2(&g2, &scalars[..20]).unwrap(), expected(&g2, &scalars[..20]));
    for transform in [Transform::Interpolate { shift: Fr::GENERATOR }, Transform::Evaluate] {
        let (mut here, mut there) = (witness(96), witness(96));
        Backend::cpu().ntt(&mut here, transform).unwrap();
        backend.ntt(&mut there, transform).unwrap();
        assert_eq!(here, there);
    }
    let circuit = Circuit::new(30);
    let [r, s] = [Fr::from(5u64), Fr::from(7u64)];
    let proof = backend.prove_with(&circuit.key, &circuit.system, &circuit.z, r, s, &silent).unwrap();
    assert_eq!(proof, prove_with(&circuit.key, &circuit.system, &circuit.z, r, s, &silent).unwrap());
    assert_eq!(backend.counts(), Counts { device: 5, ..Counts::default() });

    let gpu = Gpu::open().unwrap();
    let rows = gpu.upload(&[7, 0, 0, 0, 9, 0, 0, 0]).unwrap();
    let tree = DeviceTree::build(&gpu, &rows, 2, 1).unwrap();
    let leaves = [Sponge::hash_one(&[7]), Sponge::hash_one(&[9])];
    assert_eq!(tree.level(&gpu, 1).unwrap(), [Sponge::compress_one(leaves[0], leaves[1])]);
}

#[test]
fn buffers_and_launches_are_checked() {
    with_driver("buffers_are_zeroed_and_launches_typed", &[]);
}

#[test]
#[ignore = "a part of buffers_and_launches_are_checked"]
fn buffers_are_zeroed_and_launches_typed() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let gpu = Gpu::open().unwrap();
    let free = gpu.memory_free().unwrap();
    let buffer = gpu.alloc(1000).unwrap();
    assert_eq!(gpu.download(&buffer, 0..1000).unwrap(), [0; 1000]);
    assert!(gpu.memory_free().unwrap() < free);
    drop(buffer);
    assert_eq!(gpu.memory_free().unwrap(), free);
    let bytes: Vec<u8> = (0..100).collect();
    let buffer = gpu.upload(&bytes).unwrap();
    assert_eq!(gpu.download(&buffer, 3..50).unwrap(), bytes[3..50]);
    assert_eq!(gpu.download(&buffer, 7..7).unwrap(), []);
    assert_eq!(gpu.download(&gpu.upload(&[]).unwrap(), 0..0).unwrap(), []);
    let launch = |kernel| Launch { kernel, grid: 1, block: 256, shared: 0 };
    for (kernel, arguments) in [
        ("msm_scan_add_kernel", vec![Argument::Buffer(&buffer), Argument::Buffer(&buffer)]),
        ("msm_scan_add_kernel", vec![Argument::Buffer(&buffer), Argument::Number(1), Argument::Number(1)]),
        ("no_such_kernel", vec![Argument::Buffer(&buffer)]),
    ] {
        let refused = gpu.launch(launch(kernel), &arguments).unwrap_err();
        assert!(matches!(refused, DeviceError::BadLaunch { .. }), "{refused}");
    }
}

/// Bytes without structure.
fn noise(count: usize) -> Vec<u8> {
    let next = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    std::iter::successors(Some(count as u64), next).map(|state| (state >> 56) as u8).take(count).collect()
}

/// Multiplies in `a`, and does not wait for it.
fn multiply<D: Device>(device: &D, a: &D::Buffer, b: &D::Buffer, count: u32) {
    let launch = Launch { kernel: "ntt_multiply_kernel", grid: count.div_ceil(64), block: 64, shared: 0 };
    let arguments = [Argument::Buffer(a), Argument::Buffer(b), Argument::Number(count)];
    device.launch(launch, &arguments).unwrap();
}

#[test]
fn what_is_sent_is_waited_for_and_wiped_in_every_order() {
    for order in ORDERS {
        with_driver("buffers_are_sent", &[("ASSAY_FAKE_ORDER", order)]);
    }
    with_driver("buffers_are_sent", &[("ASSAY_FAKE_NO_PINNED", "1")]);
}

#[test]
#[ignore = "a part of what_is_sent_is_waited_for_and_wiped_in_every_order"]
fn buffers_are_sent() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let gpu = Gpu::open().unwrap();
    let free = gpu.memory_free().unwrap();
    // Halves of pinned memory are filled again before their copies have run.
    let bytes = [noise(LONG), noise(LONG + 1)];
    let sent = [0, 1].map(|at| gpu.send(&bytes[at]).unwrap());
    for at in [1, 0] {
        assert!(gpu.download(&sent[at], 0..bytes[at].len()).unwrap() == bytes[at], "{at}");
    }
    // A kernel waits, also for the second argument.
    let z = witness(200);
    let (a, b) = (gpu.upload(&encode(&z)).unwrap(), gpu.send(&encode(&z)).unwrap());
    multiply(&gpu, &a, &b, 200);
    multiply(&gpu, &b, &a, 200);
    let cubes: Vec<Fr> = z.iter().map(|z| z * z * z).collect();
    assert_eq!(decode(&gpu.download(&b, 0..32 * 200).unwrap()), cubes);
    // So does what is written over it, and its end.
    let c = gpu.send(&bytes[0]).unwrap();
    gpu.write(&c, 5, b"over").unwrap();
    assert_eq!(gpu.download(&c, 4..10).unwrap(), [&bytes[0][4..5], b"over", &bytes[0][9..10]].concat());
    // What a kernel still uses is given back, and memory taken for what is sent next.
    drop((a, b, c, sent));
    let next = gpu.send(&bytes[1]).unwrap();
    drop(gpu.send(&bytes[0]).unwrap());
    assert!(gpu.download(&next, 0..bytes[1].len()).unwrap() == bytes[1]);
    assert_eq!(gpu.download(&gpu.send(&[]).unwrap(), 0..0).unwrap(), []);
    drop(next);
    assert_eq!(gpu.memory_free().unwrap(), free);
}

#[test]
fn what_is_sent_arrives_beside_kernels_that_nobody_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let settings = [("ASSAY_FAKE_ORDER", "0"), (TRACE, trace.to_str().unwrap())];
    with_driver("copies_overtake_a_kernel", &settings);
}

#[test]
#[ignore = "a part of what_is_sent_arrives_beside_kernels_that_nobody_waited_for"]
fn copies_overtake_a_kernel() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let gpu = Gpu::open().unwrap();
    let values = gpu.upload(&encode(&witness(64))).unwrap();
    multiply(&gpu, &values, &values, 64);
    let sent = gpu.send(&noise(LONG)).unwrap();
    let trace = || std::fs::read_to_string(std::env::var_os(TRACE).unwrap()).unwrap();
    assert_eq!(trace().lines().collect::<Vec<_>>(), ["copy of 2048", "copy of 8388608"]);
    gpu.download(&values, 0..1).unwrap();
    assert!(trace().ends_with("ntt_multiply_kernel\n"));
    gpu.download(&sent, 0..1).unwrap();
    assert_eq!(trace().matches("copy").count(), 4);
}

#[test]
fn a_witness_does_not_stay_in_pinned_memory() {
    for settings in [[("ASSAY_FAKE_BAD_COPY", "100")], [("ASSAY_FAKE_BAD_COPY", "1")]] {
        with_driver("a_witness_is_written", &[settings[0], ("ASSAY_FAKE_SECRET", "a secret")]);
    }
}

#[test]
#[ignore = "a part of a_witness_does_not_stay_in_pinned_memory"]
fn a_witness_is_written() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let gpu = Gpu::open().unwrap();
    let refused = std::env::var("ASSAY_FAKE_BAD_COPY").unwrap() == "1";
    assert_eq!(gpu.upload(&b"a secret".repeat(LONG / 8)).is_err(), refused);
    // The driver looks for it at each launch.
    let values = gpu.upload(&encode(&witness(64))).unwrap();
    multiply(&gpu, &values, &values, 64);
}

#[test]
fn after_a_copy_that_fails_nothing_is_left_and_the_next_is_good() {
    for order in ORDERS {
        with_driver("a_copy_fails", &[("ASSAY_FAKE_BAD_COPY", "1"), ("ASSAY_FAKE_ORDER", order)]);
    }
}

#[test]
#[ignore = "a part of after_a_copy_that_fails_nothing_is_left_and_the_next_is_good"]
fn a_copy_fails() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let gpu = Gpu::open().unwrap();
    let (free, bytes) = (gpu.memory_free().unwrap(), noise(LONG));
    let refused = gpu.send(&bytes).unwrap_err();
    assert!(matches!(refused, DeviceError::Lost { .. }), "{refused}");
    assert_eq!(gpu.memory_free().unwrap(), free);
    let sent = gpu.send(&bytes).unwrap();
    assert!(gpu.download(&sent, 0..LONG).unwrap() == bytes);
}

#[test]
fn memory_given_back_after_one_that_is_refused_is_waited_for_and_wiped() {
    for order in ORDERS {
        for refused in ["0", "1"] {
            with_driver(
                "memory_is_refused",
                &[("ASSAY_FAKE_BAD_FREE", refused), ("ASSAY_FAKE_ORDER", order)],
            );
        }
    }
}

#[test]
#[ignore = "a part of memory_given_back_after_one_that_is_refused_is_waited_for_and_wiped"]
fn memory_is_refused() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let gpu = Gpu::open().unwrap();
    let written = [gpu.upload(&noise(64)).unwrap(), gpu.upload(&noise(65)).unwrap()];
    let sent = gpu.send(&noise(LONG)).unwrap();
    drop(written);
    drop(sent);
    // The driver looks at each when the stream comes to it.
    let last = gpu.upload(&noise(66)).unwrap();
    assert_eq!(gpu.download(&last, 0..66).unwrap(), noise(66));
}

/// Inside a process with a driver: what is taken by itself is the CPU.
fn the_cpu_alone_works(counts: Counts) {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let backend = Backend::auto();
    assert_eq!(backend.describe(), "CPU");
    let (g1, scalars) = (points::<G1Point>(10), witness(10));
    assert_eq!(backend.msm_g1(&g1, &scalars).unwrap(), expected(&g1, &scalars));
    assert_eq!(backend.counts(), counts);
}

#[test]
fn a_gpu_that_cannot_be_used_is_absent_and_the_cpu_works() {
    for setting in [("ASSAY_FAKE_CAPABILITY", "75"), ("ASSAY_FAKE_NO_IMAGE", "1")] {
        with_driver("there_is_only_the_cpu", &[setting]);
    }
}

#[test]
fn a_gpu_that_fails_its_trial_leaves_the_cpu_and_is_counted() {
    // Lost at the third launch.
    with_driver("the_trial_fails", &[("ASSAY_FAKE_LOST", "3")]);
}

#[test]
#[ignore = "a part of a_gpu_that_fails_its_trial_leaves_the_cpu_and_is_counted"]
fn the_trial_fails() {
    the_cpu_alone_works(Counts { cpu: 1, failures: 1, fallbacks: 1, ..Counts::default() });
}

#[test]
#[ignore = "a part of a_gpu_that_cannot_be_used_is_absent_and_the_cpu_works"]
fn there_is_only_the_cpu() {
    the_cpu_alone_works(Counts { cpu: 1, ..Counts::default() });
}

#[test]
fn a_gpu_that_is_lost_leaves_the_cpu() {
    with_driver("the_gpu_is_lost", &[("ASSAY_FAKE_LOST", "2")]);
}

#[test]
#[ignore = "a part of a_gpu_that_is_lost_leaves_the_cpu"]
fn the_gpu_is_lost() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let backend = Backend::on(Gpu::open().unwrap());
    let (g1, scalars) = (points::<G1Point>(10), witness(10));
    assert_eq!(backend.msm_g1(&g1, &scalars).unwrap(), expected(&g1, &scalars));
    assert!(backend.is_lost());
    assert_eq!(backend.counts(), Counts { device: 0, cpu: 1, failures: 2, retries: 1, fallbacks: 1 });
}

#[test]
fn memory_that_is_not_there_is_a_typed_error() {
    with_driver("memory_runs_out", &[("ASSAY_FAKE_MEMORY", "100000")]);
}

#[test]
#[ignore = "a part of memory_that_is_not_there_is_a_typed_error"]
fn memory_runs_out() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let gpu = Gpu::open().unwrap();
    let refused = gpu.alloc(100_001).unwrap_err();
    assert!(matches!(refused, DeviceError::OutOfMemory { needed: 100_016, free: 100_000 }), "{refused}");
    let backend = Backend::on(gpu).without_fallback();
    let refused = backend.msm_g1(&points(600), &witness(600)).unwrap_err();
    assert!(
        matches!(refused, BackendError::Device(DeviceError::TooLittleMemory { free: ..=100_000, .. })),
        "{refused}"
    );
}
