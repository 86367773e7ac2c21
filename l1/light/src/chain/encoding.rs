//! The client's state as bytes.
//!
//! `README.md` has the table. Only headers are stored: reading checks every rule again, so damaged bytes cannot bring in a block without work.

use alloc::vec::Vec;

use super::{
    BlockContext, Depths, DepthsError, HeaderError, LightClient, HEADERS_MAX, KEEP_MAX, MEDIAN_BLOCKS,
};
use crate::bytes::Reader;
use crate::hash::{double_sha256, Hash};
use crate::header::Header;
use crate::params::{Difficulty, Params};
use crate::pow::{Target, U256};

const VERSION: u8 = 1;

/// Why bytes are no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// They end too early or go on too long.
    #[error("light client state: wrong length")]
    Length,
    /// A field is out of range.
    #[error("light client state: {field} is out of range")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// The depths contradict each other.
    #[error(transparent)]
    Depths(#[from] DepthsError),
    /// A stored header breaks a rule.
    #[error("light client state: {0}")]
    Header(#[from] HeaderError),
}

impl BlockContext {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.height.to_le_bytes());
        out.extend_from_slice(&self.hash.0);
        out.extend_from_slice(&self.merkle_root.0);
        out.extend_from_slice(&self.work.to_be_bytes::<32>());
        let numbers = [self.bits, self.real_bits, self.period_time, self.period_bits];
        for number in numbers.iter().chain(&self.times) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(self.times_len);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut block = Self {
            height: reader.u32()?,
            hash: Hash(reader.array()?),
            merkle_root: Hash(reader.array()?),
            work: U256::from_be_bytes::<32>(reader.array()?),
            bits: reader.u32()?,
            real_bits: reader.u32()?,
            period_time: reader.u32()?,
            period_bits: reader.u32()?,
            times: [0; MEDIAN_BLOCKS],
            times_len: 0,
        };
        for time in &mut block.times {
            *time = reader.u32()?;
        }
        block.times_len = reader.u8()?;
        Some(block)
    }

    fn validate(&self, params: &Params) -> Result<(), StateError> {
        let fail = |field| Err(StateError::Field { field });
        if self.times_len == 0 || self.times_len() > MEDIAN_BLOCKS {
            return fail("number of times");
        }
        // Times that are not there have one form only.
        if self.times[..MEDIAN_BLOCKS - self.times_len()].iter().any(|time| *time != 0) {
            return fail("times");
        }
        let limit = Target::from_bits(params.limit_bits).map_err(HeaderError::from)?;
        for bits in [self.bits, self.real_bits, self.period_bits] {
            if !Target::from_bits(bits).is_ok_and(|target| target <= limit) {
                return fail("target");
            }
        }
        if self.work.is_zero() {
            return fail("work");
        }
        Ok(())
    }
}

impl Params {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.limit_bits.to_le_bytes());
        out.push(self.difficulty.byte());
        for number in self.version_heights.iter().chain(&[self.period_blocks, self.spacing_s]) {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, StateError> {
        let limit_bits = reader.u32().ok_or(StateError::Length)?;
        let difficulty = reader.u8().ok_or(StateError::Length)?;
        let difficulty = Difficulty::of(difficulty).ok_or(StateError::Field { field: "difficulty rule" })?;
        let mut numbers = [0; 5];
        for number in &mut numbers {
            *number = reader.u32().ok_or(StateError::Length)?;
        }
        let [first, second, third, period_blocks, spacing_s] = numbers;
        if period_blocks == 0 || spacing_s == 0 {
            return Err(StateError::Field { field: "period" });
        }
        Ok(Self { limit_bits, difficulty, version_heights: [first, second, third], period_blocks, spacing_s })
    }
}

impl LightClient {
    /// The state as bytes, the same for the same state.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.nodes.len() * 84);
        out.push(VERSION);
        self.params.write(&mut out);
        out.extend_from_slice(&self.depths.finality.to_le_bytes());
        out.extend_from_slice(&self.depths.keep.to_le_bytes());
        self.anchor.write(&mut out);
        out.extend_from_slice(&(self.nodes.len() as u32).to_le_bytes());
        for node in &self.nodes {
            let parent = node.parent.map_or(0, |parent| parent + 1);
            out.extend_from_slice(&parent.to_le_bytes());
            out.extend_from_slice(&node.header.encode());
        }
        out
    }

    /// Hash of [`encode`](Self::encode)'s bytes: what a guest commits to.
    #[must_use]
    pub fn commitment(&self) -> Hash {
        double_sha256(&[&self.encode()])
    }

    /// Reads [`encode`](Self::encode)'s bytes, checking every header again except for the clock. The anchor is believed.
    ///
    /// # Errors
    /// `Length`, `Field`, `Depths`, `Header`.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut reader = Reader(bytes);
        if reader.u8().ok_or(StateError::Length)? != VERSION {
            return Err(StateError::Field { field: "version" });
        }
        let params = Params::read(&mut reader)?;
        let mut depth = || reader.u32().ok_or(StateError::Length);
        let depths = Depths { finality: depth()?, keep: depth()? };
        let anchor = BlockContext::read(&mut reader).ok_or(StateError::Length)?;
        anchor.validate(&params)?;
        let count = reader.u32().ok_or(StateError::Length)? as usize;
        if count > HEADERS_MAX + KEEP_MAX as usize || reader.0.len() != count * 84 {
            return Err(StateError::Length);
        }
        let mut client = Self::from_checkpoint(params, depths, anchor)?;
        for at in 0..count {
            let parent = reader.u32().ok_or(StateError::Length)?;
            let header = Header::read(&mut reader).ok_or(StateError::Length)?;
            let before = client.nodes.len();
            client.accept(&header, None)?;
            // One header per entry, its parent as stated, and nothing that the anchor would have left behind.
            let stored = client.nodes.last().map(|node| node.parent.map_or(0, |parent| parent + 1));
            if before != at || client.nodes.len() != at + 1 || stored != Some(parent) {
                return Err(StateError::Field { field: "order of headers" });
            }
        }
        Ok(client)
    }
}
