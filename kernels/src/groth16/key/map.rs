//! A read-only memory map and its views as slices of plain numbers: the only unsafe code of the key.
#![allow(unsafe_code, reason = "memory maps and casts of plain old data; every block says why it is sound")]

use super::Extent;
use crate::groth16::Groth16Error;
use crate::msm::{G1Point, G2Point};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

#[cfg(target_endian = "big")]
compile_error!("the proving key's points are used in place: little-endian machines only");

/// A mapped file.
#[derive(Debug)]
pub(super) struct Map(Mmap);

impl Map {
    pub(super) fn open(path: &Path) -> Result<Self, Groth16Error> {
        let file = File::open(path).map_err(Groth16Error::io("open", path))?;
        // SAFETY: the map is read only. Finished keys are never written to: set-up writes another file and renames it, which
        // leaves this map on the old one. A foreign process that truncates the file would raise SIGBUS, not undefined values
        // in Rust's sense other than changing bytes, which every reader treats as plain numbers.
        let map = unsafe { Mmap::map(&file) }.map_err(Groth16Error::io("map", path))?;
        Ok(Self(map))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of a section whose extent has been checked against the file's length.
    pub(super) fn section(&self, extent: &Extent) -> &[u8] {
        &self.0[extent.offset as usize..(extent.offset + extent.length) as usize]
    }
}

/// Plain numbers: no padding, every bit pattern a value.
///
/// # Safety
/// Implementors are `repr(C)` or primitive, without padding, and valid for every bit pattern.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: a primitive integer.
unsafe impl Plain for u32 {}
// SAFETY: `repr(C)`, eight u64, no padding.
unsafe impl Plain for G1Point {}
// SAFETY: `repr(C)`, sixteen u64, no padding.
unsafe impl Plain for G2Point {}

/// Views bytes of a page-aligned section as items.
///
/// # Panics
/// If the bytes are not aligned for `T` or not a whole number of items; `check::layout` rules both out.
pub(super) fn cast<T: Plain>(bytes: &[u8]) -> &[T] {
    assert!(bytes.as_ptr().cast::<T>().is_aligned(), "sections are page-aligned");
    assert_eq!(bytes.len() % size_of::<T>(), 0, "sections hold whole items");
    // SAFETY: alignment and length are asserted above, `T` is plain, and the result borrows `bytes`.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) }
}
