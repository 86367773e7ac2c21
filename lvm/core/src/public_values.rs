//! What proofs state: the public values of the `block` and `fold` programs, byte by byte.

use alloc::vec::Vec;

use alloy_primitives::B256;

use crate::{codec::Reader, error::DecodeError};

/// Public values of the `block` program: a run of blocks leads from one state to another.
///
/// | bytes | field |
/// |---|---|
/// | 0..4 | version, little-endian, 1 |
/// | 4..8 | flags, little-endian: bit 0 `linked`, others zero |
/// | 8..16 | first block number, little-endian |
/// | 16..24 | last block number, little-endian |
/// | 24..56 | commitment of the state before the first block |
/// | 56..88 | commitment of the state after the last block |
/// | 88..120 | batch accumulator before the first block |
/// | 120..152 | batch accumulator after the last block |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockPublicValues {
    /// The first block was checked against its parent's header, and BLOCKHASH against ancestor headers.
    pub linked: bool,
    /// Number of the first block.
    pub first_block: u64,
    /// Number of the last block.
    pub last_block: u64,
    /// [`crate::ChainState::commitment`] before the first block.
    pub from_state: [u8; 32],
    /// [`crate::ChainState::commitment`] after the last block.
    pub to_state: [u8; 32],
    /// [`crate::accumulate`]d hashes of the batch's blocks before this run.
    pub from_batch_acc: B256,
    /// The same with the blocks of this run.
    pub to_batch_acc: B256,
}

impl BlockPublicValues {
    /// Length of the encoding in bytes.
    pub const ENCODED_LEN: usize = 152;
    const VERSION: u32 = 1;

    /// Encodes as the type's table says.
    pub fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        out[..4].copy_from_slice(&Self::VERSION.to_le_bytes());
        out[4..8].copy_from_slice(&u32::from(self.linked).to_le_bytes());
        out[8..16].copy_from_slice(&self.first_block.to_le_bytes());
        out[16..24].copy_from_slice(&self.last_block.to_le_bytes());
        out[24..56].copy_from_slice(&self.from_state);
        out[56..88].copy_from_slice(&self.to_state);
        out[88..120].copy_from_slice(self.from_batch_acc.as_slice());
        out[120..].copy_from_slice(self.to_batch_acc.as_slice());
        out
    }

    /// Decodes what [`Self::encode`] writes.
    ///
    /// # Errors
    /// `Truncated`, `Trailing`, `Version`, or `Invalid` for unknown flags.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const ITEM: &str = "block public values";
        let mut input = Reader::new(bytes);
        let version = input.u32(ITEM)?;
        if version != Self::VERSION {
            return Err(DecodeError::Version { item: ITEM, expected: Self::VERSION, got: version });
        }
        let flags = input.u32(ITEM)?;
        if flags > 1 {
            return Err(DecodeError::Invalid { item: ITEM, reason: "unknown flags" });
        }
        let values = Self {
            linked: flags == 1,
            first_block: input.u64(ITEM)?,
            last_block: input.u64(ITEM)?,
            from_state: input.array(ITEM)?,
            to_state: input.array(ITEM)?,
            from_batch_acc: input.hash(ITEM)?,
            to_batch_acc: input.hash(ITEM)?,
        };
        input.finish(ITEM)?;
        Ok(values)
    }
}

/// Public values of the `fold` program: the whole history up to and including one batch.
///
/// | bytes | field |
/// |---|---|
/// | 0..32 | commitment of the state before the batch |
/// | 32..64 | commitment of the state after the batch |
/// | 64..96 | batch hash: the accumulator after the batch's last block |
/// | 96..128 | root of the code control group |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FoldPublicValues {
    /// [`crate::ChainState::commitment`] before the batch.
    pub prev_commitment: [u8; 32],
    /// [`crate::ChainState::commitment`] after the batch.
    pub new_commitment: [u8; 32],
    /// [`crate::accumulate`]d hashes of the batch's blocks.
    pub batch_hash: [u8; 32],
    /// [`crate::CodeControlGroup::root`].
    pub code_root: [u8; 32],
}

impl FoldPublicValues {
    /// Length of the encoding in bytes.
    pub const ENCODED_LEN: usize = 128;

    /// Encodes as the type's table says.
    pub fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        out[..32].copy_from_slice(&self.prev_commitment);
        out[32..64].copy_from_slice(&self.new_commitment);
        out[64..96].copy_from_slice(&self.batch_hash);
        out[96..].copy_from_slice(&self.code_root);
        out
    }

    /// Decodes what [`Self::encode`] writes.
    ///
    /// # Errors
    /// `Truncated` or `Trailing`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const ITEM: &str = "fold public values";
        let mut input = Reader::new(bytes);
        let values = Self {
            prev_commitment: input.array(ITEM)?,
            new_commitment: input.array(ITEM)?,
            batch_hash: input.array(ITEM)?,
            code_root: input.array(ITEM)?,
        };
        input.finish(ITEM)?;
        Ok(values)
    }

    /// BLAKE3 of [`Self::encode`] with the top three bits cleared, so that it is an element of BN254's scalar field:
    /// the digest that the wrap proof carries when the program commits with BLAKE3.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = *blake3::hash(&self.encode()).as_bytes();
        digest[0] &= 0x1f;
        digest
    }

    /// The encoding as a vector, for callers that keep proofs' public values as bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.encode().to_vec()
    }
}
