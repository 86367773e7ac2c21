//! The device of a process.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use assay_worker_zkvm::device::{failed, Device};
use assay_worker_zkvm::error::WorkerError;

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
    // Built without CUDA.
    assert_eq!(chosen(Some("0"), None), Ok(Device::Cpu));
}

#[test]
fn only_a_gpus_failures_are_its_own() {
    let memory = "panicked: called `Result::unwrap()` on an `Err` value: OutOfMemory";
    assert!(matches!(failed(Device::Cpu, memory.to_owned()), WorkerError::Task { .. }));
    let gpu = Device::Gpu { memory_bytes: 80 * GIB };
    assert!(matches!(failed(gpu, memory.to_owned()), WorkerError::GpuMemory { .. }));
}
