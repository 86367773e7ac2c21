//! Launch plans of the kernels in `cuda/`, over any [`Device`], and the GPU as one.
//!
//! A plan says which kernels run on which buffers in which shape; a [`Device`] runs them. Plans are the same for a GPU
//! ([`Gpu`]) and for the CPU shim (`cuda/shim`), on which the tests run them. Only [`Gpu`] with the feature `cuda` needs CUDA,
//! and that at run time.
//!
//! Elements cross the border as arkworks keeps them: Montgomery form, 32 little-endian bytes. Results are those of
//! [`crate::ntt`], [`crate::msm`] and [`crate::merkle`], bit for bit.

mod bases;
#[cfg(any(feature = "cuda", test))]
mod budget;
mod chunks;
#[cfg(feature = "cuda")]
mod copies;
#[cfg(feature = "cuda")]
mod cuda;
mod kernels;
mod layout;
mod memory;
mod merkle;
mod msm;
#[cfg(not(feature = "cuda"))]
mod no_gpu;
mod ntt;
mod planned;

pub use bases::{layout_for, DeviceBases, LADDER};
pub use chunks::{sum_at_once, sum_chunks, Bases, Job, Sum, Summand};
#[cfg(feature = "cuda")]
pub use cuda::Gpu;
pub use kernels::{parameters, Parameter, KERNELS};
pub use layout::Layout;
pub use memory::{building_bytes, msm_bytes, msm_chunk, ntt_bytes, points_bytes, sum_bytes, table_bytes};
pub(crate) use memory::{least_cut, with_reserve};
pub use merkle::DeviceTree;
pub use msm::{encode_points, DevicePoint, MsmPlan, SortedScalars};
#[cfg(not(feature = "cuda"))]
pub use no_gpu::Gpu;
pub use ntt::{DeviceDomain, Scale};
pub use planned::{Bytes, Planned};

use std::ops::Range;

use ark_bn254::Fr;
use ark_ff::BigInt;
use rayon::prelude::*;
use thiserror::Error;

use crate::ntt::NttError;

/// Elements that one task encodes at least.
const GRAIN: usize = 1 << 12;

/// The shape of one launch; grids and blocks have one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Name of the `extern "C"` kernel.
    pub kernel: &'static str,
    /// Blocks.
    pub grid: u32,
    /// Threads of a block, a multiple of 32.
    pub block: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
}

/// One kernel argument.
#[derive(Debug)]
pub enum Argument<'a, B> {
    /// The address of a buffer.
    Buffer(&'a B),
    /// A number.
    Number(u32),
}

/// Something that holds buffers and runs kernels, one after another in the order of the calls.
///
/// After an error the contents of the buffers that the call could have written are unknown; other buffers keep theirs, unless
/// the error is [`DeviceError::Lost`], after which the device is of no more use.
pub trait Device {
    /// Memory of the device, given back when dropped.
    type Buffer;

    /// Reserves `bytes`, zeroed and aligned to 16.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], [`DeviceError::Lost`].
    fn alloc(&self, bytes: usize) -> Result<Self::Buffer, DeviceError>;

    /// Copies `bytes` to the buffer, from its byte `at` on.
    ///
    /// # Errors
    /// [`DeviceError::Lost`].
    fn write(&self, buffer: &Self::Buffer, at: usize, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies `bytes` to a buffer of that length.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    fn upload(&self, bytes: &[u8]) -> Result<Self::Buffer, DeviceError> {
        let buffer = self.alloc(bytes.len())?;
        self.write(&buffer, 0, bytes)?;
        Ok(buffer)
    }

    /// [`Device::upload`] of public bytes that may go on beside what was launched before: what is launched with the buffer later
    /// waits for it. `bytes` are read during the call alone.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    fn send(&self, bytes: &[u8]) -> Result<Self::Buffer, DeviceError> {
        self.upload(bytes)
    }

    /// Copies a range of bytes back, after everything launched before has ended.
    ///
    /// # Errors
    /// [`DeviceError::Lost`], also if a launch before has failed.
    fn download(&self, buffer: &Self::Buffer, range: Range<usize>) -> Result<Vec<u8>, DeviceError>;

    /// Bytes that [`Device::alloc`] can still hand out, as far as the device knows: others may use it too.
    ///
    /// # Errors
    /// [`DeviceError::Lost`].
    fn memory_free(&self) -> Result<u64, DeviceError>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// [`DeviceError::Lost`].
    fn launch(&self, launch: Launch, arguments: &[Argument<'_, Self::Buffer>]) -> Result<(), DeviceError>;
}

/// Why a device did not do its work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A buffer does not fit.
    #[error("out of device memory: a buffer of {}, {} are free", Bytes(*needed), Bytes(*free))]
    OutOfMemory {
        /// Bytes of the buffer.
        needed: u64,
        /// Bytes that were free.
        free: u64,
    },
    /// What is planned as a whole does not fit, however it is cut. Nothing of it was allocated.
    #[error(
        "out of device memory: {what} needs at least {}, {} are free: {} are missing",
        Bytes(*needed),
        Bytes(*free),
        Bytes(needed.saturating_sub(*free))
    )]
    TooLittleMemory {
        /// What the plan is for.
        what: Planned,
        /// Bytes that the smallest plan takes.
        needed: u64,
        /// Bytes that are free for it, those counted that it would use again.
        free: u64,
    },
    /// There is no device, or none that runs the kernels.
    #[error("no usable GPU: {reason}")]
    Absent {
        /// What was missing.
        reason: String,
    },
    /// The device answered, but not what the CPU gets.
    #[error("the device's {what} is not the CPU's")]
    WrongResult {
        /// What was computed.
        what: &'static str,
    },
    /// The device does not answer any more, or a kernel failed.
    #[error("device lost: {reason}")]
    Lost {
        /// What the driver said.
        reason: String,
    },
    /// The input is larger than the kernels' 32-bit indices allow.
    #[error("too large for the device: {what} is {got}, expected at most {limit}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// The largest value allowed.
        limit: u64,
        /// The value.
        got: u64,
    },
    /// The arguments are not those of the kernel: a fault of the plan.
    #[error("{kernel} does not take these arguments")]
    BadLaunch {
        /// The kernel.
        kernel: &'static str,
    },
    /// There is no such domain.
    #[error(transparent)]
    Ntt(#[from] NttError),
}

/// What can be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The same call may succeed when it is made again.
    Transient,
    /// It will fail again.
    Permanent,
    /// The program is wrong.
    Bug,
}

impl DeviceError {
    /// Whether another attempt makes sense.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::OutOfMemory { .. }
            | Self::TooLittleMemory { .. }
            | Self::Lost { .. }
            | Self::WrongResult { .. } => Class::Transient,
            Self::Absent { .. } | Self::TooLarge { .. } | Self::Ntt(_) => Class::Permanent,
            Self::BadLaunch { .. } => Class::Bug,
        }
    }
}

/// Blocks of `block` threads for `threads` threads.
fn per_thread(kernel: &'static str, threads: usize, block: u32) -> Result<Launch, DeviceError> {
    let threads = narrow("threads of a launch", threads)?;
    Ok(Launch { kernel, grid: threads.div_ceil(block), block, shared: 0 })
}

/// A size as the kernels' 32 bits.
fn narrow(what: &'static str, value: usize) -> Result<u32, DeviceError> {
    let limit = u32::MAX - 1024;
    match u32::try_from(value) {
        Ok(narrow) if narrow <= limit => Ok(narrow),
        _ => Err(DeviceError::TooLarge { what, limit: u64::from(limit), got: value as u64 }),
    }
}

/// The bytes of elements as the kernels take them: Montgomery form, 32 little-endian bytes each.
#[must_use]
pub fn encode(elements: &[Fr]) -> Vec<u8> {
    let mut bytes = vec![0; 32 * elements.len()];
    bytes.par_chunks_mut(32 * GRAIN).zip(elements.par_chunks(GRAIN)).for_each(|(bytes, elements)| {
        let words = elements.iter().flat_map(|element| element.0 .0);
        bytes.chunks_exact_mut(8).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
    });
    bytes
}

/// The inverse of [`encode`], for bytes that a kernel wrote.
#[must_use]
pub fn decode(bytes: &[u8]) -> Vec<Fr> {
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let element =
        |chunk: &[u8]| Fr::new_unchecked(BigInt::new(std::array::from_fn(|i| word(&chunk[8 * i..][..8]))));
    bytes.par_chunks_exact(32).with_min_len(GRAIN).map(element).collect()
}

/// Little-endian words.
fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    bytes.chunks_exact(8).map(word).collect()
}

/// Reads one 32-bit word of a buffer.
fn read_word<D: Device>(device: &D, buffer: &D::Buffer, index: usize) -> Result<u32, DeviceError> {
    let bytes = device.download(buffer, 4 * index..4 * index + 4)?;
    Ok(bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
}
