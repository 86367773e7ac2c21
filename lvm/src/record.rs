//! Witness building: execute blocks on a full state and keep what was touched.

use alloy_consensus::Header;
use alloy_primitives::{keccak256, B256};
use assay_lvm_core::{
    execute_block, Ancestry, Block, ChainSpec, DecodeError, NodeStore, Parent, StateDb, StfError,
};

use crate::{
    batch::{Batch, OwnedAncestry},
    error::BatchError,
    state_db::{FullState, RecordingStore},
};

/// Blocks to record and what is known of those before them.
#[derive(Debug, Clone)]
pub struct BlockSource<'a> {
    /// Headers (or hashes) before the first block, parent first; as far back as BLOCKHASH may reach.
    pub ancestry: Ancestry<'a>,
    /// RLP of the blocks.
    pub blocks: &'a [&'a [u8]],
}

/// Executes `source.blocks` on `state` and returns them as a batch with the smallest witness that lets them be executed
/// again: the nodes and codes read, and as many ancestors as BLOCKHASH asked for.
///
/// # Errors
/// `Stf` if a block does not execute, `NoBlocks` without blocks or a parent.
pub fn record(spec: &ChainSpec, state: &FullState, source: BlockSource<'_>) -> Result<Batch, BatchError> {
    let start = Start::of(&source.ancestry)?;
    let mut store = RecordingStore::new(state);
    let mut db = start.open(&mut store);
    let mut parent = start.parent;
    for raw in source.blocks {
        let block = Block::decode(raw).map_err(StfError::from)?;
        execute_block(spec, &mut db, &parent, &block, &mut ())?;
        parent = Parent { number: block.header.number, hash: block.hash, header: Some(block.header) };
    }
    let ancestry = source.ancestry.trimmed(db.oldest_block_hash_read())?;
    let (touched, _) = store.finish();
    Batch::new(
        spec.clone(),
        ancestry,
        source.blocks.iter().map(|raw| raw.to_vec()).collect(),
        touched.nodes.into_values().map(<[u8]>::to_vec).collect(),
        touched.codes.into_values().map(<[u8]>::to_vec).collect(),
    )
}

/// Where execution of a batch starts.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) parent: Parent,
    pub(crate) state_root: B256,
    /// Hashes of known ancestors, newest first.
    pub(crate) hashes: Vec<B256>,
}

impl Start {
    pub(crate) fn of(ancestry: &Ancestry<'_>) -> Result<Self, BatchError> {
        match ancestry {
            Ancestry::Headers(raws) => {
                let raw = *raws.first().ok_or(BatchError::NoBlocks)?;
                let header = decode_header(raw)?;
                let state_root = header.state_root;
                let parent = Parent { number: header.number, hash: keccak256(raw), header: Some(header) };
                let oldest = decode_header(raws[raws.len() - 1])?.parent_hash;
                let hashes = raws.iter().map(keccak256).chain([oldest]).collect();
                Ok(Self { parent, state_root, hashes })
            }
            Ancestry::Assumed { number, state_root, hashes } => {
                let hash = *hashes.first().ok_or(BatchError::NoBlocks)?;
                let parent = Parent { number: *number, hash, header: None };
                Ok(Self { parent, state_root: *state_root, hashes: hashes.clone() })
            }
        }
    }

    pub(crate) fn open<'s, 'a>(&self, store: &'s mut (dyn NodeStore<'a> + 's)) -> StateDb<'s, 'a> {
        StateDb::new(store, self.state_root, self.parent.number, self.hashes.clone())
    }
}

/// Keeping only the ancestors that execution needs.
pub(crate) trait Trim {
    /// The shortest ancestry that still vouches for the hash of block `oldest`, or only for the parent.
    fn trimmed(&self, oldest: Option<u64>) -> Result<OwnedAncestry, BatchError>;
}

impl Trim for Ancestry<'_> {
    fn trimmed(&self, oldest: Option<u64>) -> Result<OwnedAncestry, BatchError> {
        let parent = Start::of(self)?.parent.number;
        let back = oldest.map_or(0, |oldest| parent.saturating_sub(oldest));
        let back = usize::try_from(back).unwrap_or(usize::MAX);
        Ok(match self {
            // A header vouches for its parent's hash as well, so a block `back` before the parent needs `back` headers.
            Self::Headers(raws) => {
                let count = back.clamp(1, raws.len().max(1));
                OwnedAncestry::Headers(raws.iter().take(count).map(|raw| raw.to_vec()).collect())
            }
            Self::Assumed { number, state_root, hashes } => OwnedAncestry::Assumed {
                number: *number,
                state_root: *state_root,
                hashes: hashes.iter().take(back.saturating_add(1)).copied().collect(),
            },
        })
    }
}

fn decode_header(raw: &[u8]) -> Result<Header, DecodeError> {
    let mut rest = raw;
    let header = alloy_rlp::Decodable::decode(&mut rest)
        .map_err(|reason| DecodeError::Rlp { item: "header", reason })?;
    match rest.len() {
        0 => Ok(header),
        count => Err(DecodeError::Trailing { item: "header", count }),
    }
}
