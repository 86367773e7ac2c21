//! Batches: blocks with their witness, as a file and as runs for the prover.
//!
//! # File format
//! ```text
//! magic     8    "ASSAYBAT"
//! version   4    1
//! reserved  4    0
//! parent    112  state before the batch, see `ChainState::encode`
//! run       rest the whole batch as one run, see `assay_lvm_core::RunInput`; accumulator zero
//! ```
//! Integers are little-endian. [`Batch::validate`] accepts one encoding of a batch only; what the last header is free to say
//! (its extra data, for one) makes another batch, with another hash.

mod split;
mod validate;

use std::io::Read as _;
use std::path::Path;

use alloy_primitives::{keccak256, B256};
use assay_lvm_core::{
    accumulate, codec::Reader, codec::Writer, ordered_root, Ancestry, Block, ChainSpec, ChainState,
    DecodeError, RunInput,
};

pub use self::{
    split::{Run, RunLimits},
    validate::{BatchSummary, BlockSummary},
};
use crate::{error::BatchError, record::Start};

const MAGIC: &[u8; 8] = b"ASSAYBAT";
const VERSION: u32 = 1;

/// Largest batch file, bytes.
pub const FILE_SIZE_MAX: u64 = 256 << 20;
/// Most blocks in a batch.
pub const BLOCKS_MAX: u64 = 4096;
/// Most gas in a batch.
pub const GAS_MAX: u64 = 4_000_000_000;

/// What a batch knows of the blocks before it; see [`Ancestry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnedAncestry {
    /// Header RLPs, parent first.
    Headers(Vec<Vec<u8>>),
    /// Hashes and a state root taken on trust; such a batch can be proved but not settled.
    Assumed {
        /// Number of the parent.
        number: u64,
        /// State root of the parent.
        state_root: B256,
        /// Hashes of the parent and its ancestors.
        hashes: Vec<B256>,
    },
}

impl OwnedAncestry {
    /// The borrowed form.
    pub fn as_ref(&self) -> Ancestry<'_> {
        match self {
            Self::Headers(raws) => Ancestry::Headers(raws.iter().map(Vec::as_slice).collect()),
            Self::Assumed { number, state_root, hashes } => {
                Ancestry::Assumed { number: *number, state_root: *state_root, hashes: hashes.clone() }
            }
        }
    }
}

/// Consecutive blocks, the state they start from, and the witness that lets them be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The rules.
    pub spec: ChainSpec,
    /// The state before the first block.
    pub parent: ChainState,
    /// The blocks before the first, as far as needed.
    pub ancestry: OwnedAncestry,
    /// RLP of the blocks.
    pub blocks: Vec<Vec<u8>>,
    /// Trie nodes in the order of their hashes.
    pub nodes: Vec<Vec<u8>>,
    /// Contract codes in the order of their hashes.
    pub codes: Vec<Vec<u8>>,
}

impl Batch {
    /// A batch whose parent state is the one its ancestry gives.
    ///
    /// # Errors
    /// `NoBlocks` or `Decode` if there is no parent.
    pub fn new(
        spec: ChainSpec,
        ancestry: OwnedAncestry,
        blocks: Vec<Vec<u8>>,
        nodes: Vec<Vec<u8>>,
        codes: Vec<Vec<u8>>,
    ) -> Result<Self, BatchError> {
        let start = Start::of(&ancestry.as_ref())?;
        let parent = ChainState {
            chain_id: spec.chain_id,
            spec_hash: spec.hash(),
            block_number: start.parent.number,
            block_hash: start.parent.hash,
            state_root: start.state_root,
        };
        Ok(Self { spec, parent, ancestry, blocks, nodes, codes })
    }

    /// Reads a batch file. Checks the format only; see [`Self::validate`].
    ///
    /// # Errors
    /// `Io`, `Oversize`, or `Decode` naming the item at which the bytes go wrong.
    pub fn read(path: &Path) -> Result<Self, BatchError> {
        Self::decode(&read_file(path, "batch file")?)
    }

    /// Writes a batch file: beside its place first, then renamed, so that no half of one is ever left.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, path: &Path) -> Result<(), BatchError> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.part", std::process::id()));
        let beside = std::path::PathBuf::from(beside);
        let written = std::fs::write(&beside, self.encode()).and_then(|()| std::fs::rename(&beside, path));
        written.map_err(|source| {
            // The part may not exist; there is nothing more to do about it then.
            let _ = std::fs::remove_file(&beside);
            BatchError::Io { path: path.to_path_buf(), source }
        })
    }

    /// The bytes of the batch file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.bytes(MAGIC);
        out.u32(VERSION);
        out.u32(0);
        out.bytes(&self.parent.encode());
        out.bytes(&self.as_run().encode());
        out.finish()
    }

    /// Reads what [`Self::encode`] writes. Checks the format only; see [`Self::validate`].
    ///
    /// # Errors
    /// `Oversize`, or `Decode` naming the item at which the bytes go wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() as u64 > FILE_SIZE_MAX {
            let got = bytes.len() as u64;
            return Err(BatchError::Oversize { item: "batch file", limit: FILE_SIZE_MAX, got });
        }
        let mut input = Reader::new(bytes);
        if input.take(8, "batch file")? != MAGIC {
            return Err(DecodeError::Magic { item: "batch file" }.into());
        }
        let version = input.u32("batch version")?;
        if version != VERSION {
            return Err(DecodeError::Version { item: "batch file", expected: VERSION, got: version }.into());
        }
        if input.u32("batch reserved field")? != 0 {
            return Err(DecodeError::Invalid { item: "batch reserved field", reason: "not zero" }.into());
        }
        let parent = decode_state(&mut input)?;
        let rest = input.take(input.remaining() as u64, "batch run")?;
        let run = RunInput::decode(rest)?;
        if run.from_batch_acc != B256::ZERO {
            return Err(DecodeError::Invalid { item: "batch accumulator", reason: "not zero" }.into());
        }
        let ancestry = match &run.ancestry {
            Ancestry::Headers(raws) => OwnedAncestry::Headers(owned(raws)),
            Ancestry::Assumed { number, state_root, hashes } => {
                OwnedAncestry::Assumed { number: *number, state_root: *state_root, hashes: hashes.clone() }
            }
        };
        let (blocks, nodes, codes) = (owned(&run.blocks), owned(&run.nodes), owned(&run.codes));
        Ok(Self { spec: run.spec, parent, ancestry, blocks, nodes, codes })
    }

    /// The data to publish: the RLP list of the blocks.
    pub fn data(&self) -> Vec<u8> {
        let payload_length = self.blocks.iter().map(Vec::len).sum();
        let mut out = Vec::with_capacity(payload_length + 9);
        alloy_rlp::Header { list: true, payload_length }.encode(&mut out);
        self.blocks.iter().for_each(|block| out.extend_from_slice(block));
        out
    }

    /// The batch hash that the fold proof states: [`accumulate`] over the block hashes.
    ///
    /// # Errors
    /// `Decode` if a block is not one.
    pub fn hash(&self) -> Result<[u8; 32], BatchError> {
        let mut acc = B256::ZERO;
        for raw in &self.blocks {
            acc = accumulate(&acc, &Block::decode(raw)?.hash);
        }
        Ok(acc.0)
    }

    /// Whether the batch is checked against its parent's header; only such a batch can be folded and settled.
    pub const fn is_linked(&self) -> bool {
        matches!(self.ancestry, OwnedAncestry::Headers(_))
    }

    /// The whole batch as one run.
    pub fn as_run(&self) -> RunInput<'_> {
        RunInput {
            spec: self.spec.clone(),
            ancestry: self.ancestry.as_ref(),
            from_batch_acc: B256::ZERO,
            blocks: self.blocks.iter().map(Vec::as_slice).collect(),
            nodes: self.nodes.iter().map(Vec::as_slice).collect(),
            codes: self.codes.iter().map(Vec::as_slice).collect(),
        }
    }
}

/// The blocks in the data that [`Batch::data`] publishes, each as its RLP.
///
/// # Errors
/// `Decode` if `data` is not one list of lists and nothing else; `NoBlocks` if it is empty; `Oversize` for more than [`BLOCKS_MAX`].
pub fn blocks_of(data: &[u8]) -> Result<Vec<&[u8]>, BatchError> {
    let bad = |reason| DecodeError::Invalid { item: "batch data", reason };
    let mut rest = data;
    let mut payload = alloy_rlp::Header::decode_bytes(&mut rest, true).map_err(|_| bad("not an RLP list"))?;
    if !rest.is_empty() {
        return Err(bad("bytes after the list").into());
    }
    let mut blocks = Vec::new();
    while !payload.is_empty() {
        let before = payload;
        alloy_rlp::Header::decode_bytes(&mut payload, true).map_err(|_| bad("a block is not an RLP list"))?;
        blocks.push(&before[..before.len() - payload.len()]);
        if blocks.len() as u64 > BLOCKS_MAX {
            let got = blocks.len() as u64;
            return Err(BatchError::Oversize { item: "blocks of a batch", limit: BLOCKS_MAX, got });
        }
    }
    if blocks.is_empty() {
        return Err(BatchError::NoBlocks);
    }
    Ok(blocks)
}

/// The hash of the batch whose data this is; see [`Batch::hash`].
///
/// No other data has it: a block's hash is that of its header, so the rest is checked against what the header commits to. And executing what
/// has one comes to an end: it says that it uses no more than [`GAS_MAX`], and a block that lies is found out after as much.
///
/// # Errors
/// As [`blocks_of`], `Decode` if a block is not one, or holds other things than its header says, and `Oversize` for more gas than can
/// be proved.
pub fn hash_of_data(data: &[u8]) -> Result<[u8; 32], BatchError> {
    let (mut acc, mut gas) = (B256::ZERO, 0u64);
    for raw in blocks_of(data)? {
        let block = Block::decode(raw)?;
        gas = gas.saturating_add(block.header.gas_used);
        let got = gas.max(block.header.gas_limit);
        if got > GAS_MAX {
            return Err(BatchError::Oversize { item: "gas of the batch", limit: GAS_MAX, got });
        }
        if !is_whole(&block) {
            let reason = "a block holds other things than its header says";
            return Err(DecodeError::Invalid { item: "batch data", reason }.into());
        }
        acc = accumulate(&acc, &block.hash);
    }
    Ok(acc.0)
}

fn is_whole(block: &Block<'_>) -> bool {
    let header = &block.header;
    let withdrawals_root = block.withdrawals.as_ref().map(|_| ordered_root(&block.withdrawals_raw));
    header.transactions_root == ordered_root(&block.transactions_raw)
        && header.ommers_hash == keccak256(block.ommers_raw)
        && header.withdrawals_root == withdrawals_root
}

fn decode_state(input: &mut Reader<'_>) -> Result<ChainState, DecodeError> {
    const ITEM: &str = "batch parent state";
    Ok(ChainState {
        chain_id: input.u64(ITEM)?,
        spec_hash: input.hash(ITEM)?,
        block_number: input.u64(ITEM)?,
        block_hash: input.hash(ITEM)?,
        state_root: input.hash(ITEM)?,
    })
}

fn owned(items: &[&[u8]]) -> Vec<Vec<u8>> {
    items.iter().map(|item| item.to_vec()).collect()
}

/// Reads a whole file, whatever kind of file it is, of at most [`FILE_SIZE_MAX`] bytes.
pub(crate) fn read_file(path: &Path, item: &'static str) -> Result<Vec<u8>, BatchError> {
    let io = |source| BatchError::Io { path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    let mut got = file.metadata().map_err(io)?.len();
    let mut bytes = Vec::new();
    if got <= FILE_SIZE_MAX {
        // A pipe has no length until it is read.
        got = file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(io)? as u64;
    }
    if got > FILE_SIZE_MAX {
        return Err(BatchError::Oversize { item, limit: FILE_SIZE_MAX, got });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_refused() {
        let refused = Batch::read(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(refused, BatchError::Oversize { item: "batch file", .. }), "{refused}");
    }
}
