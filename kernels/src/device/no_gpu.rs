//! The GPU of a build without the feature `cuda`: there is none.

use std::convert::Infallible;
use std::ops::Range;

use super::{Argument, Device, DeviceError, Launch};

/// The first GPU of the machine; never there in this build, which is without the feature `cuda`.
#[derive(Debug)]
pub enum Gpu {}

impl Gpu {
    /// Opens the first GPU.
    ///
    /// # Errors
    /// [`DeviceError::Absent`], always in this build.
    pub fn open() -> Result<Self, DeviceError> {
        Self::open_within(u64::MAX)
    }

    /// [`Gpu::open`], for a part of its memory.
    ///
    /// # Errors
    /// [`DeviceError::Absent`], always in this build.
    pub fn open_within(_memory_bytes: u64) -> Result<Self, DeviceError> {
        Err(DeviceError::Absent { reason: "built without the feature `cuda`".into() })
    }

    /// Its name, and which code it runs.
    #[must_use]
    pub fn describe(&self) -> String {
        match *self {}
    }
}

impl Device for Gpu {
    type Buffer = Infallible;

    fn alloc(&self, _bytes: usize) -> Result<Infallible, DeviceError> {
        match *self {}
    }

    fn write(&self, _buffer: &Infallible, _at: usize, _bytes: &[u8]) -> Result<(), DeviceError> {
        match *self {}
    }

    fn download(&self, _buffer: &Infallible, _range: Range<usize>) -> Result<Vec<u8>, DeviceError> {
        match *self {}
    }

    fn memory_free(&self) -> Result<u64, DeviceError> {
        match *self {}
    }

    fn launch(&self, _launch: Launch, _arguments: &[Argument<'_, Infallible>]) -> Result<(), DeviceError> {
        match *self {}
    }
}
