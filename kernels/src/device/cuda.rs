//! The GPU, through NVIDIA's driver, which is loaded when it is first asked for: nothing is linked.
//!
//! One stream for kernels, so that buffers are written, read and given back in the order of the calls, and one beside it for what
//! is sent ahead ([`Copies`]). Code, in the order tried: what nvcc made while this crate was built (`build.rs`), if it was found;
//! the PTX of `cuda/ptx`, which the driver compiles.
#![allow(unsafe_code, reason = "calls of the CUDA driver; every block says why it is sound")]

use std::collections::HashMap;
use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::Arc;

use cudarc::driver::{
    result, sys, CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError,
    LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::Ptx;
use zeroize::Zeroizing;

use super::budget::{Budget, Share};
use super::copies::{surely, Arrival, Copies};
use super::{parameters, Argument, Device, DeviceError, Launch, Parameter, KERNELS};

macro_rules! code {
    ($($name:literal),*) => {
        /// What nvcc made; empty where it was not found.
        const MACHINE_CODE: &[&[u8]] =
            &[$(include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin"))),*];
        /// What is checked in.
        const PTX: &[&str] = &[$(include_str!(concat!("../../cuda/ptx/", $name, ".ptx"))),*];
    };
}
code!("bench", "msm", "ntt", "poseidon2");

/// Compute capability that the PTX asks for.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);

/// The first GPU of the machine.
#[derive(Debug)]
pub struct Gpu {
    stream: Arc<CudaStream>,
    /// `None` without pinned memory: uploads wait for the kernels then.
    copies: Option<Copies>,
    kernels: HashMap<&'static str, CudaFunction>,
    budget: Budget,
    description: String,
}

/// Memory of the GPU; wiped before it is given back.
#[derive(Debug)]
pub struct GpuBuffer {
    slice: CudaSlice<u8>,
    bytes: usize,
    arrival: Arrival,
    _share: Share,
}

impl GpuBuffer {
    /// Its address, for what `stream` is given from now on.
    fn address(&self, stream: &CudaStream) -> Result<sys::CUdeviceptr, DriverError> {
        self.arrival.wait(stream)?;
        Ok(self.slice.device_ptr(stream).0)
    }
}

impl Drop for GpuBuffer {
    fn drop(&mut self) {
        let stream = Arc::clone(self.slice.stream());
        // After a lost device there is nothing left to wait for or to wipe.
        let _ = surely(|| self.arrival.wait(&stream));
        let _ = surely(|| stream.memset_zeros(&mut self.slice));
    }
}

impl Gpu {
    /// Opens the first GPU and loads the kernels.
    ///
    /// # Errors
    /// [`DeviceError::Absent`] if there is no driver, no GPU of compute capability 8.0 or later, or no code that it takes.
    pub fn open() -> Result<Self, DeviceError> {
        Self::open_within(u64::MAX)
    }

    /// [`Gpu::open`], with buffers of at most `memory_bytes` at a time: what others leave of the GPU. The driver's own memory, some
    /// hundred MiB for each process, is not counted.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn open_within(memory_bytes: u64) -> Result<Self, DeviceError> {
        // SAFETY: this loads the driver's library under its own names and lets go of it; its initialisers are the driver's.
        if !unsafe { sys::is_culib_present() } {
            return Err(absent("there is no CUDA driver"));
        }
        // A driver too old for one of the calls makes cudarc panic.
        catch_unwind(|| Self::start(memory_bytes))
            .unwrap_or_else(|_| Err(absent("the CUDA driver does not have all calls")))
    }

    /// Its name, and which code it runs.
    #[must_use]
    pub fn describe(&self) -> String {
        self.description.clone()
    }

    fn start(memory_bytes: u64) -> Result<Self, DeviceError> {
        let refused = |what: &'static str| move |error: DriverError| absent(&format!("{what}: {error}"));
        let context = CudaContext::new(0).map_err(refused("no context"))?;
        // SAFETY: all uses of a buffer are on one stream, in the order of the calls, but for the copy into one that is sent, for
        // which `Arrival` makes that stream wait: cudarc need not keep events for each buffer.
        unsafe { context.disable_event_tracking() };
        let capability = context.compute_capability().map_err(refused("no compute capability"))?;
        if capability < LEAST_CAPABILITY {
            return Err(absent(&format!(
                "compute capability {capability:?}, expected at least {LEAST_CAPABILITY:?}"
            )));
        }
        let (kernels, code) = load(&context)?;
        let name = context.name().map_err(refused("no name"))?;
        let copies = Copies::new(&context)
            .inspect_err(|error| tracing::warn!(%error, "no pinned memory: uploads wait for the kernels"))
            .ok();
        let (stream, budget) = (context.default_stream(), Budget::new(memory_bytes));
        Ok(Self { stream, copies, kernels, budget, description: format!("{name}, {code}") })
    }

    fn failed(&self, bytes: usize) -> impl Fn(DriverError) -> DeviceError + '_ {
        move |error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                DeviceError::OutOfMemory { needed: bytes as u64, free: self.memory_free().unwrap_or(0) }
            }
            _ => DeviceError::Lost { reason: error.to_string() },
        }
    }
}

/// Bytes that are reserved for a buffer: elements are read 16 at a time.
fn room(bytes: usize) -> usize {
    bytes.max(1).next_multiple_of(16)
}

fn absent(reason: &str) -> DeviceError {
    DeviceError::Absent { reason: reason.into() }
}

/// The kernels from the first code that the driver takes, and that code's name.
fn load(
    context: &Arc<CudaContext>,
) -> Result<(HashMap<&'static str, CudaFunction>, &'static str), DeviceError> {
    let machine_code =
        || MACHINE_CODE.iter().map(|image| Ptx::from_binary(image.to_vec())).collect::<Vec<_>>();
    let ptx = || PTX.iter().map(|text| Ptx::from_src(*text)).collect::<Vec<_>>();
    if MACHINE_CODE.iter().all(|image| !image.is_empty()) {
        match kernels_of(context, machine_code()) {
            Ok(kernels) => return Ok((kernels, "code of this build")),
            Err(error) => tracing::info!(%error, "the driver refused this build's code, trying PTX"),
        }
    }
    let kernels = kernels_of(context, ptx())
        .map_err(|error| absent(&format!("the driver refused the PTX: {error}")))?;
    Ok((kernels, "checked-in PTX"))
}

fn kernels_of(
    context: &Arc<CudaContext>,
    images: Vec<Ptx>,
) -> Result<HashMap<&'static str, CudaFunction>, DriverError> {
    let modules: Vec<Arc<CudaModule>> =
        images.into_iter().map(|image| context.load_module(image)).collect::<Result<_, _>>()?;
    let find = |name: &'static str| {
        let mut found = Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_FOUND));
        for module in &modules {
            found = found.or_else(|_| module.load_function(name));
        }
        Ok((name, found?))
    };
    KERNELS.iter().map(|(name, _)| find(name)).collect()
}

impl Device for Gpu {
    type Buffer = GpuBuffer;

    fn alloc(&self, bytes: usize) -> Result<GpuBuffer, DeviceError> {
        let room = room(bytes);
        let share = self.budget.take(room as u64)?;
        let slice = self.stream.alloc_zeros::<u8>(room).map_err(self.failed(room))?;
        Ok(GpuBuffer { slice, bytes, arrival: Arrival::default(), _share: share })
    }

    fn write(&self, buffer: &GpuBuffer, at: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        assert!(at <= buffer.bytes && bytes.len() <= buffer.bytes - at, "a range of the buffer");
        if bytes.is_empty() {
            return Ok(());
        }
        self.stream.context().bind_to_thread().map_err(self.failed(0))?;
        let start = buffer.address(&self.stream).map_err(self.failed(0))? + at as u64;
        if let Some(copies) = &self.copies {
            // SAFETY: the range is the buffer's (checked above), which is given back in the order of the stream.
            return unsafe { copies.write(&self.stream, start, bytes) }.map_err(self.failed(0));
        }
        // SAFETY: as above, and the caller's bytes are not used after the synchronisation.
        unsafe { result::memcpy_htod_async(start, bytes, self.stream.cu_stream()) }
            .map_err(self.failed(0))?;
        self.stream.synchronize().map_err(self.failed(0))
    }

    fn send(&self, bytes: &[u8]) -> Result<GpuBuffer, DeviceError> {
        let Some(copies) = &self.copies else { return self.upload(bytes) };
        let room = room(bytes.len());
        let share = self.budget.take(room as u64)?;
        let slice = copies.reserve(&self.stream, room).map_err(self.failed(room))?;
        let buffer = GpuBuffer { slice, bytes: bytes.len(), arrival: Arrival::default(), _share: share };
        let to = buffer.slice.device_ptr(&self.stream).0;
        // SAFETY: the buffer was just reserved for this, with room for all, and gives it back after its arrival.
        unsafe { copies.send((to, room), bytes, &buffer.arrival) }.map_err(self.failed(0))?;
        Ok(buffer)
    }

    fn download(&self, buffer: &GpuBuffer, range: Range<usize>) -> Result<Vec<u8>, DeviceError> {
        assert!(range.start <= range.end && range.end <= buffer.bytes, "a range of the buffer");
        // Wiped if only a part comes.
        let mut bytes = Zeroizing::new(vec![0; range.len()]);
        buffer.arrival.wait(&self.stream).map_err(self.failed(0))?;
        if !bytes.is_empty() {
            let view = buffer.slice.slice(range);
            self.stream.memcpy_dtoh(&view, bytes.as_mut_slice()).map_err(self.failed(0))?;
        }
        self.stream.synchronize().map_err(self.failed(0))?;
        Ok(std::mem::take(&mut *bytes))
    }

    fn memory_free(&self) -> Result<u64, DeviceError> {
        // What was given back counts once the stream has come to it.
        let lost = |error: DriverError| DeviceError::Lost { reason: error.to_string() };
        self.stream.synchronize().map_err(lost)?;
        let (free, _) = self.stream.context().mem_get_info().map_err(lost)?;
        Ok(self.budget.left().min(free as u64))
    }

    fn launch(&self, launch: Launch, arguments: &[Argument<'_, GpuBuffer>]) -> Result<(), DeviceError> {
        let kind = |argument: &Argument<'_, GpuBuffer>| match argument {
            Argument::Buffer(_) => Parameter::Buffer,
            Argument::Number(_) => Parameter::Number,
        };
        let function = self.kernels.get(launch.kernel);
        let fits = parameters(launch.kernel)
            .is_some_and(|expected| expected.iter().copied().eq(arguments.iter().map(kind)));
        let (Some(function), true) = (function, fits) else {
            return Err(DeviceError::BadLaunch { kernel: launch.kernel });
        };
        let mut call = self.stream.launch_builder(function);
        for argument in arguments {
            match argument {
                Argument::Buffer(buffer) => {
                    buffer.arrival.wait(&self.stream).map_err(self.failed(0))?;
                    call.arg(&buffer.slice)
                }
                Argument::Number(number) => call.arg(number),
            };
        }
        let shape = LaunchConfig {
            grid_dim: (launch.grid, 1, 1),
            block_dim: (launch.block, 1, 1),
            shared_mem_bytes: launch.shared,
        };
        // SAFETY: number and kinds of the arguments are the kernel's (checked above against the table that a test holds
        // against the sources), each is borrowed until the call returns, and buffers are device memory: a kernel that leaves
        // them ends this context with an error, not this process's memory.
        unsafe { call.launch(shape) }.map_err(self.failed(0))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of a fat binary.
    const FAT: [u8; 4] = 0xba55_ed50_u32.to_le_bytes();

    #[test]
    fn the_build_has_machine_code_of_every_module_or_of_none() {
        let sizes: Vec<usize> = MACHINE_CODE.iter().map(|image| image.len()).collect();
        println!("bytes of machine code: {sizes:?}");
        if sizes.iter().any(|size| *size > 0) {
            assert!(MACHINE_CODE.iter().all(|image| image.starts_with(&FAT)), "{sizes:?}");
        }
    }

    #[test]
    fn the_embedded_ptx_has_every_kernel_once() {
        for (name, _) in KERNELS {
            let entry = format!(".entry {name}(");
            assert_eq!(PTX.iter().map(|text| text.matches(&entry).count()).sum::<usize>(), 1, "{name}");
        }
    }
}
