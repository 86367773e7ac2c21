//! Which device this process proves on.
//!
//! A process has one device for its life. The agent gives a child one GPU or none by `CUDA_VISIBLE_DEVICES`, as everybody does
//! who shares GPUs between processes:
//!
//! | `CUDA_VISIBLE_DEVICES` | device |
//! |---|---|
//! | empty | the CPU |
//! | names a GPU | the first one named; one that cannot be used is an error |
//! | not set | the first GPU if there is one that can be used, else the CPU |
//!
//! Without the feature `cuda` it is always the CPU. `ASSAY_DEVICE_MEMORY_BYTES` is the agent's bound on what one process may use of
//! its GPU's memory; sizes and caches are chosen for that.

use crate::error::WorkerError;

const GIB: u64 = 1 << 30;

/// The least memory of a GPU that is used: cards sold as 24 GB.
pub const GPU_MEMORY_BYTES_MIN: u64 = 22 * GIB;

/// What proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// This machine's cores.
    Cpu,
    /// The first GPU that this process can see.
    Gpu {
        /// Its memory, as far as this process may use it.
        memory_bytes: u64,
    },
}

/// What this process may use of its GPU's memory, in bytes: `ASSAY_DEVICE_MEMORY_BYTES`; without it all, `u64::MAX`.
#[must_use]
pub fn memory_bytes_most() -> u64 {
    let number = |text: String| text.parse::<u64>().ok();
    std::env::var("ASSAY_DEVICE_MEMORY_BYTES").ok().and_then(number).unwrap_or(u64::MAX)
}

impl Device {
    /// The device of this process, by the table above.
    ///
    /// # Errors
    /// [`WorkerError::Gpu`] if it was given a GPU that does not answer or has less than [`GPU_MEMORY_BYTES_MIN`];
    /// [`WorkerError::GpuMemory`] if others have left none of its memory.
    pub fn of_process() -> Result<Self, WorkerError> {
        let most = memory_bytes_most();
        let probe = || gpu_memory().map(|answer| answer.map(|memory_bytes| memory_bytes.min(most)));
        Self::choose(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(), probe)
    }

    /// The device by the table above. `visible`: value of the variable; `probe`: bytes of memory of the first visible GPU, why it
    /// cannot be asked, or `None` without the feature `cuda`.
    ///
    /// # Errors
    /// As [`Self::of_process`].
    pub fn choose(
        visible: Option<&str>,
        probe: impl FnOnce() -> Option<Result<u64, String>>,
    ) -> Result<Self, WorkerError> {
        if visible.is_some_and(|value| value.trim().is_empty()) {
            return Ok(Self::Cpu);
        }
        let Some(answer) = probe() else { return Ok(Self::Cpu) };
        let usable = answer.and_then(|memory_bytes| {
            if memory_bytes >= GPU_MEMORY_BYTES_MIN {
                return Ok(Self::Gpu { memory_bytes });
            }
            let (has, wanted) = (memory_bytes / GIB, GPU_MEMORY_BYTES_MIN / GIB);
            Err(format!("it has {has} GiB of memory, at least {wanted} are needed"))
        });
        match (usable, visible) {
            (Ok(gpu), _) => Ok(gpu),
            (Err(reason), Some(_)) => Err(unusable(reason)),
            (Err(reason), None) => {
                tracing::info!(reason, "no GPU: the CPU proves");
                Ok(Self::Cpu)
            }
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu_memory() -> Option<Result<u64, String>> {
    Some(crate::cuda::memory_bytes())
}

#[cfg(not(feature = "cuda"))]
fn gpu_memory() -> Option<Result<u64, String>> {
    None
}

/// What is said where an allocation has failed: by a panic of `slop-alloc` 6.10, in whose buffers the zkVM's GPU provers have all their data; by
/// the same as a value; by `CudaError`, as `Debug` and `Display`; by the driver.
const OUT_OF_MEMORY: [&str; 5] =
    ["allocation failed", "AllocError", "OutOfMemory", "out of GPU memory", "out of memory"];

fn is_out_of_memory(reason: &str) -> bool {
    OUT_OF_MEMORY.iter().any(|text| reason.contains(text))
}

/// Why nothing can be begun on a GPU. One without memory left works, for others.
pub(crate) fn unusable(reason: String) -> WorkerError {
    if is_out_of_memory(&reason) {
        WorkerError::GpuMemory { reason }
    } else {
        WorkerError::Gpu { reason }
    }
}

/// Why a task failed, when this process proves on `device`: a GPU that has run out of memory, and one whose context is lost, have
/// errors of their own.
pub fn failed(device: Device, reason: String) -> WorkerError {
    if device == Device::Cpu {
        return WorkerError::Task { reason };
    }
    // In a broken context every allocation fails too.
    match gpu_memory() {
        Some(Err(error)) => WorkerError::GpuContext { reason: format!("{error}, after: {reason}") },
        _ if is_out_of_memory(&reason) => WorkerError::GpuMemory { reason },
        _ => WorkerError::Task { reason },
    }
}

/// What has come out of verifying a proof that was made on `device`: its inputs were verified before it, so a GPU's is the GPU's fault.
///
/// # Errors
/// [`WorkerError::GpuWrong`] for [`WorkerError::Verify`] of a GPU's proof, all others as they are.
pub fn verified(device: Device, outcome: Result<(), WorkerError>) -> Result<(), WorkerError> {
    outcome.map_err(|error| match error {
        WorkerError::Verify { what, reason } if device != Device::Cpu => {
            WorkerError::GpuWrong { what, reason }
        }
        error => error,
    })
}
