//! Uploads: a second stream, and two halves of pinned memory that are filled and sent in turn.
//!
//! What orders them. A half is filled again once its last copy has ended: the host waits for the half's event. Copies of
//! [`Copies::send`] run beside the kernels, into memory reserved in their own stream's order: what a kernel may still use, the
//! driver's pool hands out only behind that kernel. Kernels wait for a buffer's copy ([`Arrival`]). Copies of [`Copies::write`] run
//! in the order of the kernels and have ended when it returns; the halves are wiped then, for it may have been the witness.
#![allow(unsafe_code, reason = "calls of the CUDA driver; every block says why it is sound")]

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{result, sys, CudaContext, CudaEvent, CudaSlice, CudaStream, DriverError};
use zeroize::Zeroize;

/// Bytes of one half, a multiple of 8.
const HALF: usize = 8 << 20;

/// A stream of copies to the device.
#[derive(Debug)]
pub(super) struct Copies {
    // Given back first: its copies are on the stream.
    staging: Mutex<Staging>,
    stream: Arc<CudaStream>,
}

#[derive(Debug)]
struct Staging {
    halves: [Half; 2],
    next: usize,
}

/// Pinned memory, and when its last copy has ended.
#[derive(Debug)]
struct Half {
    bytes: NonNull<u8>,
    /// Bytes from the start that may be other than zero.
    used: usize,
    sent: CudaEvent,
}

// SAFETY: the memory is this value's own, and the driver's calls may be made from any thread.
unsafe impl Send for Half {}

/// The copy into a buffer, until the stream of the kernels waits for it.
#[derive(Debug, Default)]
pub(super) struct Arrival(Mutex<Option<CudaEvent>>);

impl Arrival {
    /// Makes `stream` wait for the copy, if it does not yet.
    pub(super) fn wait(&self, stream: &CudaStream) -> Result<(), DriverError> {
        let mut event = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copied) = event.as_ref() {
            stream.wait(copied)?;
            *event = None;
        }
        Ok(())
    }
}

/// Calls twice if need be: the first answer may be the error of an earlier call that could not say so, and then nothing was done.
pub(super) fn surely(mut call: impl FnMut() -> Result<(), DriverError>) -> Result<(), DriverError> {
    call().or_else(|_| call())
}

impl Half {
    fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let sent = context.new_event(None)?;
        // SAFETY: it is zeroed below, before anything reads it.
        let memory = unsafe { result::malloc_host(HALF, sys::CU_MEMHOSTALLOC_WRITECOMBINED) }?;
        let Some(bytes) = NonNull::new(memory.cast::<u8>()) else {
            return Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        };
        // SAFETY: `HALF` bytes were just reserved there.
        unsafe { bytes.write_bytes(0, HALF) };
        Ok(Self { bytes, used: 0, sent })
    }

    /// Copies `part` to `to` in the order of `stream`, after this half's last copy has ended.
    ///
    /// # Safety
    /// There are that many bytes at `to`, which stay reserved until `stream` has come to it; `part` fits in.
    unsafe fn copy(
        &mut self,
        stream: &CudaStream,
        to: sys::CUdeviceptr,
        part: &[u8],
    ) -> Result<(), DriverError> {
        self.sent.synchronize()?;
        // SAFETY: `part` is no longer than the half, which is this value's own; no copy reads it any more, and none writes it.
        let staged = unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), part.len()) };
        self.used = self.used.max(part.len());
        // By this thread alone: one that waits for others might take up work that waits for the halves.
        staged.copy_from_slice(part);
        // SAFETY: the half is not written before `sent` says that the copy has ended; the rest is the caller's word.
        unsafe { result::memcpy_htod_async(to, staged, stream.cu_stream()) }?;
        self.sent.record(stream)
    }

    /// Zeroes what was used, once its last copy has ended; after a lost device nothing reads it any more.
    fn wipe(&mut self) {
        let _ = surely(|| self.sent.synchronize());
        let words = self.used.div_ceil(8);
        // SAFETY: the half is aligned to a page, its length is a multiple of 8, and all of it has been written once.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr().cast::<u64>(), words) }.zeroize();
        self.used = 0;
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.wipe();
        // SAFETY: it was reserved by `new` and is not used any more. The context is this thread's own since `wipe`.
        let _ = unsafe { result::free_host(self.bytes.as_ptr().cast()) };
    }
}

impl Staging {
    /// Copies `bytes` to `to` in the order of `stream`; the last copies may still run when this returns.
    ///
    /// # Safety
    /// As [`Half::copy`].
    unsafe fn copy(
        &mut self,
        stream: &CudaStream,
        to: sys::CUdeviceptr,
        bytes: &[u8],
    ) -> Result<(), DriverError> {
        for (index, part) in bytes.chunks(HALF).enumerate() {
            let half = &mut self.halves[self.next];
            self.next = 1 - self.next;
            // SAFETY: the caller's word; parts are no longer than a half.
            unsafe { half.copy(stream, to + (index * HALF) as u64, part) }?;
        }
        Ok(())
    }

    fn wipe(&mut self) {
        self.halves.iter_mut().for_each(Half::wipe);
    }
}

impl Copies {
    /// Takes the second stream and the pinned memory, 16 MiB.
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let halves = [Half::new(context)?, Half::new(context)?];
        Ok(Self { staging: Mutex::new(Staging { halves, next: 0 }), stream: context.new_stream()? })
    }

    fn staging(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies `bytes` to `to` in the order of `kernels`, and waits for it. Nothing of them is left in pinned memory.
    ///
    /// # Safety
    /// There are that many bytes at `to`.
    pub(super) unsafe fn write(
        &self,
        kernels: &CudaStream,
        to: sys::CUdeviceptr,
        bytes: &[u8],
    ) -> Result<(), DriverError> {
        let mut staging = self.staging();
        // SAFETY: the caller's word.
        let sent = unsafe { staging.copy(kernels, to, bytes) };
        // Also after an error: a copy may have begun without its event.
        let ended = surely(|| kernels.synchronize());
        staging.wipe();
        sent.and(ended)
    }

    /// New memory, neither zeroed nor waited for by kernels: all of it has to be [sent](Self::send). It is given back in the order
    /// of `kernels`.
    pub(super) fn reserve(
        &self,
        kernels: &Arc<CudaStream>,
        room: usize,
    ) -> Result<CudaSlice<u8>, DriverError> {
        // SAFETY: the slices are two names of the same memory, of which the first forgets it. Nothing is read before it is sent.
        unsafe { Ok(kernels.upgrade_device_ptr(self.stream.alloc::<u8>(room)?.leak(), room)) }
    }

    /// Copies public `bytes` to `to`, with zeros up to `room` bytes, beside the kernels, which have to wait for `arrival`.
    ///
    /// After an error no copy runs any more.
    ///
    /// # Safety
    /// At `to` there are `room` bytes from [`Copies::reserve`], which stay until `arrival` was waited for, and `bytes` are no more.
    pub(super) unsafe fn send(
        &self,
        (to, room): (sys::CUdeviceptr, usize),
        bytes: &[u8],
        arrival: &Arrival,
    ) -> Result<(), DriverError> {
        let mut staging = self.staging();
        let rest = room - bytes.len();
        let mut copied = || {
            self.stream.context().bind_to_thread()?;
            if rest > 0 {
                let at = to + bytes.len() as u64;
                // SAFETY: the caller's word.
                unsafe { result::memset_d8_async(at, 0, rest, self.stream.cu_stream()) }?;
            }
            // SAFETY: the caller's word.
            unsafe { staging.copy(&self.stream, to, bytes) }?;
            self.stream.record_event(None)
        };
        match copied() {
            Ok(event) => {
                arrival.0.lock().unwrap_or_else(PoisonError::into_inner).replace(event);
                Ok(())
            }
            Err(error) => {
                // A copy may have begun without its event.
                let _ = surely(|| self.stream.synchronize());
                staging.wipe();
                Err(error)
            }
        }
    }
}
