//! The device of a process.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use assay_worker_zkvm::device::{failed, verified, Device};
use assay_worker_zkvm::error::{ErrorClass, WorkerError};

const GIB: u64 = 1 << 30;

fn chosen(visible: Option<&str>, answer: Option<Result<u64, String>>) -> Result<Device, String> {
    Device::choose(visible, || answer).map_err(|error| error.to_string())
}

#[test]
fn the_variable_and_what_answers_decide() {
    let gpu = Device::Gpu { memory_bytes: 80 * GIB };
    let good = || Some(Ok(80 * GIB));
    let none = || Some(Err("no driver".to_owned()));
    assert_eq!(chosen(Some(""), good()), Ok(Device::Cpu));
    assert_eq!(chosen(Some("1"), good()), Ok(gpu));
    assert_eq!(chosen(None, good()), Ok(gpu));
    assert_eq!(chosen(None, none()), Ok(Device::Cpu));
    assert_eq!(chosen(Some("0"), none()), Err("GPU: no driver".to_owned()));
    let small = chosen(Some("0"), Some(Ok(8 * GIB))).unwrap_err();
    assert!(small.contains("8 GiB") && small.contains("22"), "{small}");
    // Others have it all: it works, and the task is the one that fails.
    let full = Device::choose(Some("0"), || Some(Err("out of GPU memory".to_owned()))).unwrap_err();
    assert!(matches!(full, WorkerError::GpuMemory { .. }), "{full}");
    // Built without CUDA.
    assert_eq!(chosen(Some("0"), None), Ok(Device::Cpu));
}

#[test]
fn only_a_gpus_failures_are_its_own() {
    // What the zkVM's buffers say on a GPU that is full.
    let memory = "panicked: allocation failed";
    assert!(matches!(failed(Device::Cpu, memory.to_owned()), WorkerError::Task { .. }));
    let gpu = Device::Gpu { memory_bytes: 80 * GIB };
    for memory in
        [memory, "called `Result::unwrap()` on an `Err` value: OutOfMemory", "cuda error: out of GPU memory"]
    {
        assert!(matches!(failed(gpu, memory.to_owned()), WorkerError::GpuMemory { .. }), "{memory}");
    }
    assert!(matches!(failed(gpu, "panicked: no such shard".to_owned()), WorkerError::Task { .. }));
}

#[test]
fn a_proof_that_does_not_verify_is_held_against_the_gpu_that_made_it() {
    let class = |device, error| verified(device, Err(error)).unwrap_err().class();
    let wrong = || WorkerError::Verify { what: "wrap proof", reason: "no".to_owned() };
    let gpu = Device::Gpu { memory_bytes: 80 * GIB };
    assert_eq!(class(gpu, wrong()), ErrorClass::GpuWrong);
    assert_eq!(class(Device::Cpu, wrong()), ErrorClass::Bug);
    assert_eq!(class(gpu, WorkerError::GuestExit { code: 1 }), ErrorClass::Permanent);
    verified(gpu, Ok(())).unwrap();
}
