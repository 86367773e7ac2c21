//! Input of the `block` guest: one run of blocks with everything needed to execute it.
//!
//! ```text
//! magic          8   "ASSAYRUN"
//! version        4   1
//! ancestry kind  4   0 headers, 1 assumed
//! from_batch_acc 32
//! chain spec     188 see `ChainSpec::encode`
//! padding        4   zeros
//! ancestry           kind 0: list of header RLPs, parent first
//!                    kind 1: number (8), state root (32), list of hashes, parent first
//! blocks             list of block RLPs
//! nodes              list of trie nodes, each once, in any order
//! codes              list of contract codes, each once, in any order
//! ```
//! Integers are little-endian. A list is its count (8), then for each item its length (8) and its bytes, padded with
//! zeros to a multiple of 8: every item starts aligned, which spares the guest's hash function byte-wise reads.

use alloc::vec::Vec;

use alloy_primitives::B256;

use crate::{
    codec::{Reader, Writer},
    error::DecodeError,
    spec::ChainSpec,
};

const MAGIC: &[u8; 8] = b"ASSAYRUN";
const VERSION: u32 = 1;
/// Most items in one list of a run.
const ITEMS_MAX: u64 = 1 << 24;
/// BLOCKHASH reaches back this many blocks, so more ancestors are of no use.
pub const ANCESTORS_MAX: u64 = 256;

/// What is known of the blocks before a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ancestry<'a> {
    /// Header RLPs, parent first, each the parent of the one before; as many as BLOCKHASH needs, at least one.
    Headers(Vec<&'a [u8]>),
    /// Hashes only, parent first, taken on trust, and with them the state root. Rules between the first block and its
    /// parent are not checked. A proof of such a run says so (`linked` is false) and no fold accepts it.
    Assumed {
        /// Number of the parent.
        number: u64,
        /// State root of the parent.
        state_root: B256,
        /// Hashes of the parent and its ancestors.
        hashes: Vec<B256>,
    },
}

/// A run of consecutive blocks with its witness; borrows from the encoded bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInput<'a> {
    /// The rules.
    pub spec: ChainSpec,
    /// The blocks before the run.
    pub ancestry: Ancestry<'a>,
    /// Accumulator over the blocks of the batch before this run; zero for the first run of a batch.
    pub from_batch_acc: B256,
    /// RLP of the blocks.
    pub blocks: Vec<&'a [u8]>,
    /// Trie nodes, each once.
    pub nodes: Vec<&'a [u8]>,
    /// Contract codes, each once.
    pub codes: Vec<&'a [u8]>,
}

impl<'a> RunInput<'a> {
    /// Encodes as the module's table says.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.bytes(MAGIC);
        out.u32(VERSION);
        out.u32(u32::from(matches!(self.ancestry, Ancestry::Assumed { .. })));
        out.bytes(self.from_batch_acc.as_slice());
        self.spec.encode(&mut out);
        out.pad();
        match &self.ancestry {
            Ancestry::Headers(headers) => out.list(headers),
            Ancestry::Assumed { number, state_root, hashes } => {
                out.u64(*number);
                out.bytes(state_root.as_slice());
                out.list(hashes);
            }
        }
        out.list(&self.blocks);
        out.list(&self.nodes);
        out.list(&self.codes);
        out.finish()
    }

    /// Decodes what [`Self::encode`] writes, without copying the items.
    ///
    /// # Errors
    /// [`DecodeError`] naming the item at which the bytes go wrong.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        if input.take(8, "run input")? != MAGIC {
            return Err(DecodeError::Magic { item: "run input" });
        }
        let version = input.u32("run input version")?;
        if version != VERSION {
            return Err(DecodeError::Version { item: "run input", expected: VERSION, got: version });
        }
        let kind = input.u32("ancestry kind")?;
        let from_batch_acc = input.hash("batch accumulator")?;
        let spec = ChainSpec::decode(&mut input)?;
        input.pad("run input")?;
        let ancestry = match kind {
            0 => Ancestry::Headers(input.list(ANCESTORS_MAX, "ancestor headers")?),
            1 => Ancestry::Assumed {
                number: input.u64("parent number")?,
                state_root: input.hash("parent state root")?,
                hashes: decode_hashes(&input.list(ANCESTORS_MAX, "ancestor hashes")?)?,
            },
            _ => return Err(DecodeError::Invalid { item: "ancestry kind", reason: "neither 0 nor 1" }),
        };
        let blocks = input.list(ITEMS_MAX, "blocks")?;
        let nodes = input.list(ITEMS_MAX, "witness nodes")?;
        let codes = input.list(ITEMS_MAX, "witness codes")?;
        input.finish("run input")?;
        Ok(Self { spec, ancestry, from_batch_acc, blocks, nodes, codes })
    }
}

fn decode_hashes(items: &[&[u8]]) -> Result<Vec<B256>, DecodeError> {
    let decode = |item: &&[u8]| {
        B256::try_from(*item)
            .map_err(|_| DecodeError::Invalid { item: "ancestor hash", reason: "not 32 bytes" })
    };
    items.iter().map(decode).collect()
}
