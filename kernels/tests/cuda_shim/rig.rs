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
    meter: Rc<Meter>,
    /// Kernels launched since something was downloaded.
    running: Cell<u32>,
    sent: Rc<Cell<Sent>>,
}

/// What a rig has handed out, in bytes; to be read while a back end has the rig.
#[derive(Debug)]
pub(crate) struct Meter {
    limit: Cell<u64>,
    live: Cell<u64>,
    peak: Cell<u64>,
}

/// What [`Device::send`] was called for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) all: u32,
    /// While kernels were launched that nobody had waited for.
    pub(crate) beside: u32,
}

impl Meter {
    /// What is allocated now.
    pub(crate) fn live(&self) -> u64 {
        self.live.get()
    }

    /// The most that was allocated at a time.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.get()
    }

    /// Measures the peak anew, from what is allocated now.
    pub(crate) fn forget_peak(&self) {
        self.peak.set(self.live.get());
    }

    /// Leaves `bytes` free.
    pub(crate) fn leave(&self, bytes: u64) {
        self.limit.set(self.live.get() + bytes);
    }

    fn free(&self) -> u64 {
        self.limit.get() - self.live.get()
    }
}

/// Memory of the rig.
pub(crate) struct RigBuffer {
    buffer: ShimBuffer,
    bytes: usize,
    meter: Rc<Meter>,
}

impl Drop for RigBuffer {
    fn drop(&mut self) {
        self.meter.live.set(self.meter.live() - self.bytes as u64);
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
            meter: Rc::new(Meter { limit: Cell::new(1 << 32), live: Cell::new(0), peak: Cell::new(0) }),
            running: Cell::new(0),
            sent: Rc::default(),
        })
    }

    /// A rig without faults and with this much memory.
    pub(crate) fn with_memory(limit: u64) -> Option<Self> {
        let rig = Self::start(Fault::Nothing, 0, 0)?;
        rig.meter.leave(limit);
        Some(rig)
    }

    /// What was sent, which can be read when a back end has taken the rig.
    pub(crate) fn sent(&self) -> Rc<Cell<Sent>> {
        Rc::clone(&self.sent)
    }

    /// Whether no fault is left to strike.
    pub(crate) fn has_struck(&self) -> bool {
        self.strikes.get() == 0
    }

    /// Its meter.
    pub(crate) fn meter(&self) -> Rc<Meter> {
        Rc::clone(&self.meter)
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
        let meter = &self.meter;
        meter.live.set(meter.live() + bytes as u64);
        meter.peak.set(meter.peak().max(meter.live()));
        RigBuffer { buffer, bytes, meter: self.meter() }
    }

    fn reserve(&self, bytes: usize) -> Result<(), DeviceError> {
        let free = self.meter.free();
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
        Ok(self.meter.free())
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
