//! Block headers.

use crate::bytes::Reader;
use crate::hash::{double_sha256, Hash};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 80;

/// A block header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Version, a signed number: the soft forks that demand a least one compare it so.
    pub version: i32,
    /// Hash of the block before.
    pub parent: Hash,
    /// Root of the tree of transaction ids.
    pub merkle_root: Hash,
    /// Seconds since 1970, as the miner says.
    pub time: u32,
    /// Target in compact form.
    pub bits: u32,
    /// What the miner varied.
    pub nonce: u32,
}

/// Bytes that are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a header has {HEADER_BYTES} bytes, got {got}")]
pub struct HeaderLengthError {
    /// Bytes given.
    pub got: usize,
}

impl Header {
    /// Reads a header. Any 80 bytes are one; whether it has work behind it is [`crate::chain`]'s question.
    ///
    /// # Errors
    /// Any other length.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderLengthError> {
        let length = HeaderLengthError { got: bytes.len() };
        let bytes: &[u8; HEADER_BYTES] = bytes.try_into().map_err(|_| length)?;
        Self::read(&mut Reader(bytes)).ok_or(length)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            version: i32::from_le_bytes(reader.array()?),
            parent: Hash(reader.array()?),
            merkle_root: Hash(reader.array()?),
            time: reader.u32()?,
            bits: reader.u32()?,
            nonce: reader.u32()?,
        })
    }

    /// The 80 bytes: version, parent, root, time, bits, nonce; integers little endian.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.version.to_le_bytes());
        bytes[4..36].copy_from_slice(&self.parent.0);
        bytes[36..68].copy_from_slice(&self.merkle_root.0);
        bytes[68..72].copy_from_slice(&self.time.to_le_bytes());
        bytes[72..76].copy_from_slice(&self.bits.to_le_bytes());
        bytes[76..].copy_from_slice(&self.nonce.to_le_bytes());
        bytes
    }

    /// The block's hash.
    #[must_use]
    pub fn hash(&self) -> Hash {
        double_sha256(&[&self.encode()])
    }
}
