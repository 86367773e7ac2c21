//! A device for tests of the back end: the shim with a meter on its memory and a fault that strikes when told.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use assay_kernels::device::{Argument, Device, DeviceError, Launch};

use super::process::{Shim, ShimBuffer};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    /// An allocation fails.
    Allocation,
    /// The device answers this call with an error, and the next ones as ever.
    Refusal,
    /// The process of the shim ends.
    Death,
    /// After this kernel a bit of this argument's buffer is another one.
    Memory(&'static str, usize),
}

/// The shim with a fault.
pub(crate) struct Rig {
    shim: Shim,
    fault: Fault,
    /// How often the fault still strikes; once the call it applies to has been made `wait` times.
    strikes: Cell<u32>,
    wait: Cell<u32>,
    limit: u64,
    live: Rc<Cell<u64>>,
    peak: Cell<u64>,
    /// Kernels launched since something was downloaded.
    running: Cell<u32>,
    sent: Rc<Cell<Sent>>,
}

/// What [`Device::send`] was called for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) all: u32,
    /// While kernels were launched that nobody had waited for.
    pub(crate) beside: u32,
}

/// Memory of the rig.
pub(crate) struct RigBuffer {
    buffer: ShimBuffer,
    bytes: usize,
    live: Rc<Cell<u64>>,
}

impl Drop for RigBuffer {
    fn drop(&mut self) {
        self.live.set(self.live.get() - self.bytes as u64);
    }
}

impl Rig {
    /// A rig whose `fault` strikes `strikes` times, after `wait` calls that it could have struck.
    pub(crate) fn start(fault: Fault, wait: u32, strikes: u32) -> Option<Self> {
        Some(Self {
            shim: Shim::start(u64::from(wait))?,
            fault,
            strikes: Cell::new(strikes),
            wait: Cell::new(wait),
            limit: 1 << 32,
            live: Rc::new(Cell::new(0)),
            peak: Cell::new(0),
            running: Cell::new(0),
            sent: Rc::default(),
        })
    }

    /// A rig without faults and with this much memory.
    pub(crate) fn with_memory(limit: u64) -> Option<Self> {
        Some(Self { limit, ..Self::start(Fault::Nothing, 0, 0)? })
    }

    /// The most bytes that were allocated at a time.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.get()
    }

    /// What was sent, which can be read when a back end has taken the rig.
    pub(crate) fn sent(&self) -> Rc<Cell<Sent>> {
        Rc::clone(&self.sent)
    }

    /// Whether no fault is left to strike.
    pub(crate) fn has_struck(&self) -> bool {
        self.strikes.get() == 0
    }

    /// Measures the peak anew, from what is allocated now.
    pub(crate) fn forget_peak(&self) {
        self.peak.set(self.live.get());
    }

    /// Whether the fault strikes this call, which it can.
    fn strikes(&self) -> bool {
        if self.wait.get() > 0 {
            self.wait.set(self.wait.get() - 1);
            return false;
        }
        let left = self.strikes.get();
        self.strikes.set(left.saturating_sub(1));
        left > 0
    }

    fn call(&self) -> Result<(), DeviceError> {
        match self.fault {
            Fault::Refusal if self.strikes() => Err(DeviceError::Lost { reason: "planted".into() }),
            Fault::Death if self.strikes() => {
                self.shim.kill();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn metered(&self, bytes: usize, buffer: ShimBuffer) -> RigBuffer {
        self.live.set(self.live.get() + bytes as u64);
        self.peak.set(self.peak.get().max(self.live.get()));
        RigBuffer { buffer, bytes, live: Rc::clone(&self.live) }
    }

    fn reserve(&self, bytes: usize) -> Result<(), DeviceError> {
        let free = self.limit - self.live.get();
        let struck = self.fault == Fault::Allocation && self.strikes();
        if struck || bytes as u64 > free {
            return Err(DeviceError::OutOfMemory { needed: bytes as u64, free });
        }
        Ok(())
    }
}

impl Device for Rig {
    type Buffer = RigBuffer;

    fn alloc(&self, bytes: usize) -> Result<RigBuffer, DeviceError> {
        self.reserve(bytes)?;
        self.call()?;
        Ok(self.metered(bytes, self.shim.alloc(bytes)?))
    }

    fn write(&self, buffer: &RigBuffer, at: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.call()?;
        self.shim.write(&buffer.buffer, at, bytes)
    }

    fn send(&self, bytes: &[u8]) -> Result<RigBuffer, DeviceError> {
        let Sent { all, beside } = self.sent.get();
        self.sent.set(Sent { all: all + 1, beside: beside + u32::from(self.running.get() > 0) });
        self.upload(bytes)
    }

    fn download(&self, buffer: &RigBuffer, range: Range<usize>) -> Result<Vec<u8>, DeviceError> {
        self.call()?;
        self.running.set(0);
        self.shim.download(&buffer.buffer, range)
    }

    fn memory_free(&self) -> Result<u64, DeviceError> {
        Ok(self.limit - self.live.get())
    }

    fn launch(&self, launch: Launch, arguments: &[Argument<'_, RigBuffer>]) -> Result<(), DeviceError> {
        self.call()?;
        let inner: Vec<Argument<'_, ShimBuffer>> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Buffer(buffer) => Argument::Buffer(&buffer.buffer),
                Argument::Number(number) => Argument::Number(*number),
            })
            .collect();
        self.shim.launch(launch, &inner)?;
        self.running.set(self.running.get() + 1);
        let Fault::Memory(kernel, index) = self.fault else { return Ok(()) };
        if launch.kernel != kernel || !self.strikes() {
            return Ok(());
        }
        let Argument::Buffer(buffer) = &arguments[index] else { panic!("a buffer to spoil") };
        let mut bytes = self.shim.download(&buffer.buffer, 0..buffer.bytes)?;
        // A byte that is in use: the first that is not zero.
        let byte = bytes.iter_mut().find(|byte| **byte != 0).expect("something was written");
        *byte ^= 4;
        self.shim.overwrite(&buffer.buffer, &bytes);
        Ok(())
    }
}
