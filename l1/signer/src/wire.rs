//! Bytes on the wire: versioned, bounded, and only the one canonical encoding is read.

pub mod message;
pub mod proposal;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// They end too early.
    #[error("bytes end within {field}")]
    Truncated {
        /// Name of the field.
        field: &'static str,
    },
    /// Something follows.
    #[error("{count} bytes too many")]
    Surplus {
        /// Bytes left.
        count: usize,
    },
    /// A length or count is above its bound.
    #[error("{field} is {got} long, at most {most} are read")]
    TooLong {
        /// Name of the field.
        field: &'static str,
        /// As announced.
        got: usize,
        /// The bound.
        most: usize,
    },
    /// A value that the field cannot have.
    #[error("{field} is out of range")]
    Field {
        /// Name of the field.
        field: &'static str,
    },
    /// The same content has another, canonical encoding.
    #[error("not the canonical encoding")]
    NotCanonical,
}

/// Reads fields one after another.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(WireError::Truncated { field })?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(WireError::Truncated { field })?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A count (u32) of things that have at least `width` bytes each: bounded by `most` and by what is left to read.
    pub(crate) fn count(
        &mut self,
        field: &'static str,
        most: usize,
        width: usize,
    ) -> Result<usize, WireError> {
        let got = self.u32(field)? as usize;
        if got > most {
            return Err(WireError::TooLong { field, got, most });
        }
        if got.saturating_mul(width) > self.0.len() {
            return Err(WireError::Truncated { field });
        }
        Ok(got)
    }

    /// A length (u32) and as many bytes.
    pub(crate) fn bytes(&mut self, field: &'static str, most: usize) -> Result<&'a [u8], WireError> {
        let count = self.count(field, most, 1)?;
        self.take(count, field)
    }

    pub(crate) fn finish(self) -> Result<(), WireError> {
        match self.0.len() {
            0 => Ok(()),
            count => Err(WireError::Surplus { count }),
        }
    }
}

/// Appends a length or count.
///
/// # Panics
/// Above 4 GiB; every bound of this crate is far below.
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend(u32::try_from(count).expect("bounds are below 2^32").to_le_bytes());
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}
