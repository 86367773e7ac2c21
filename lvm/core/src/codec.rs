//! Little-endian writer and bounds-checked reader for the crate's fixed and length-prefixed encodings.

use alloc::vec::Vec;

use alloy_primitives::B256;

use crate::error::DecodeError;

/// Appends little-endian fields to a byte vector.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// Appends four bytes, little-endian.
    pub fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
    }

    /// Appends zeros up to the next multiple of eight bytes.
    pub fn pad(&mut self) {
        self.out.resize(self.out.len().next_multiple_of(8), 0);
    }

    /// Appends a list: count (u64), then for each item its length (u64) and its bytes, padded with zeros to a multiple
    /// of eight, so that every item starts aligned if the list does.
    pub fn list<T: AsRef<[u8]>>(&mut self, items: &[T]) {
        self.u64(items.len() as u64);
        for item in items {
            let item = item.as_ref();
            self.u64(item.len() as u64);
            self.bytes(item);
            self.pad();
        }
    }

    /// The bytes written so far.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// Reads what [`Writer`] writes, borrowing from the input.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    whole: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader over all of `input`.
    pub const fn new(input: &'a [u8]) -> Self {
        Self { whole: input, at: 0 }
    }

    /// Bytes not yet read.
    pub const fn remaining(&self) -> usize {
        self.whole.len() - self.at
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// `Truncated` if fewer are left.
    pub fn take(&mut self, count: u64, item: &'static str) -> Result<&'a [u8], DecodeError> {
        let left = self.remaining() as u64;
        if count > left {
            return Err(DecodeError::Truncated { item, expected: count, got: left });
        }
        let start = self.at;
        self.at += count as usize;
        Ok(&self.whole[start..self.at])
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// `Truncated` if fewer are left.
    pub fn array<const N: usize>(&mut self, item: &'static str) -> Result<[u8; N], DecodeError> {
        let bytes = self.take(N as u64, item)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    /// One byte.
    ///
    /// # Errors
    /// `Truncated` at the end of the input.
    pub fn u8(&mut self, item: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(item)?[0])
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// `Truncated` at the end of the input.
    pub fn u32(&mut self, item: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(item)?))
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// `Truncated` at the end of the input.
    pub fn u64(&mut self, item: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(item)?))
    }

    /// A 32-byte hash.
    ///
    /// # Errors
    /// `Truncated` at the end of the input.
    pub fn hash(&mut self, item: &'static str) -> Result<B256, DecodeError> {
        Ok(B256::from(self.array::<32>(item)?))
    }

    /// Skips the zeros up to the next multiple of eight bytes from the start of the input.
    ///
    /// # Errors
    /// `Truncated`, or `Invalid` if a padding byte is not zero.
    pub fn pad(&mut self, item: &'static str) -> Result<(), DecodeError> {
        let count = self.at.next_multiple_of(8) - self.at;
        let padding = self.take(count as u64, item)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Invalid { item, reason: "padding is not zero" });
        }
        Ok(())
    }

    /// A list as [`Writer::list`] writes it.
    ///
    /// # Errors
    /// `Truncated`, `Oversize` for more than `count_max` items, `Invalid` for padding that is not zero.
    pub fn list(&mut self, count_max: u64, item: &'static str) -> Result<Vec<&'a [u8]>, DecodeError> {
        let count = self.u64(item)?;
        if count > count_max {
            return Err(DecodeError::Oversize { item, limit: count_max, got: count });
        }
        // Each item takes at least its length field, so a lying count cannot reserve more than the input's size.
        let left = self.remaining() as u64 / 8;
        if count > left {
            return Err(DecodeError::Truncated { item, expected: count.saturating_mul(8), got: left * 8 });
        }
        let mut items = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let len = self.u64(item)?;
            items.push(self.take(len, item)?);
            self.pad(item)?;
        }
        Ok(items)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// `Trailing` otherwise.
    pub fn finish(self, item: &'static str) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            count => Err(DecodeError::Trailing { item, count }),
        }
    }
}
