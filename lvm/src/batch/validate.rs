//! Whether a batch is what it claims: format limits, links, witness, execution.

use alloy_consensus::Transaction as _;
use alloy_primitives::{keccak256, B256};
use assay_lvm_core::{
    accumulate, execute_block, Block, ChainState, Parent, StfError, ANCESTORS_MAX, BLOCK_SIZE_MAX,
};

use super::{Batch, OwnedAncestry, BLOCKS_MAX, GAS_MAX};
use crate::{
    error::BatchError,
    record::{Start, Trim},
    state_db::{FullState, RecordingStore, Touched},
};

/// What a valid batch does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSummary {
    /// The state before the batch.
    pub from: ChainState,
    /// The state after it.
    pub to: ChainState,
    /// Its hash, as the fold proof states it.
    pub batch_hash: [u8; 32],
    /// Gas used by all blocks.
    pub gas_used: u64,
    /// Each block.
    pub blocks: Vec<BlockSummary>,
}

/// One block of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSummary {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Number of transactions.
    pub transactions: usize,
    /// How many of them failed (reverted or ran out of gas).
    pub failed: usize,
    /// Gas used.
    pub gas_used: u64,
}

impl Batch {
    /// Executes the batch on its witness and checks everything: sizes, the parent state, consecutive numbers and
    /// hashes, that the witness holds what is needed and nothing else, and all that [`execute_block`] checks.
    ///
    /// # Errors
    /// The first [`BatchError`] found.
    pub fn validate(&self) -> Result<BatchSummary, BatchError> {
        let blocks = self.check_links()?;
        self.check_parent()?;
        check_sorted(&self.nodes)?;
        check_sorted(&self.codes)?;
        let state = self.full_state();
        let start = Start::of(&self.ancestry.as_ref())?;
        let mut store = RecordingStore::new(&state);
        let mut db = start.open(&mut store);
        let mut parent = start.parent;
        let mut summary = BatchSummary {
            from: self.parent,
            to: self.parent,
            batch_hash: [0; 32],
            gas_used: 0,
            blocks: Vec::with_capacity(blocks.len()),
        };
        for block in blocks {
            let outcome = execute_block(&self.spec, &mut db, &parent, &block, &mut ())?;
            let number = block.header.number;
            summary.gas_used = summary.gas_used.saturating_add(outcome.gas_used);
            summary.batch_hash = accumulate(&B256::from(summary.batch_hash), &block.hash).0;
            let state_root = outcome.state_root;
            summary.to =
                ChainState { block_number: number, block_hash: block.hash, state_root, ..summary.to };
            summary.blocks.push(BlockSummary {
                number,
                hash: block.hash,
                timestamp: block.header.timestamp,
                transactions: block.transactions.len(),
                failed: outcome.receipts.iter().filter(|receipt| !receipt.status()).count(),
                gas_used: outcome.gas_used,
            });
            parent = Parent { number, hash: block.hash, header: Some(block.header) };
        }
        if self.ancestry.as_ref().trimmed(db.oldest_block_hash_read())? != self.ancestry {
            return Err(BatchError::SurplusWitness { hash: self.parent.block_hash });
        }
        let (touched, _) = store.finish();
        self.check_all_needed(&touched)?;
        Ok(summary)
    }

    /// Checks that the batch starts where a chain stands.
    ///
    /// # Errors
    /// `WrongChainId`, `BlockGap`, `WrongParent` or `WrongParentState`, whichever differs first.
    pub fn check_follows(&self, tip: &ChainState) -> Result<(), BatchError> {
        let parent = &self.parent;
        if parent.chain_id != tip.chain_id {
            return Err(BatchError::WrongChainId { expected: tip.chain_id, got: parent.chain_id });
        }
        if parent.block_number != tip.block_number {
            let (expected, got) = (tip.block_number, parent.block_number);
            return Err(BatchError::BlockGap {
                expected: expected.saturating_add(1),
                got: got.saturating_add(1),
            });
        }
        if parent.block_hash != tip.block_hash {
            return Err(BatchError::WrongParent { expected: tip.block_hash, got: parent.block_hash });
        }
        same_state(parent, tip)
    }

    /// The witness as a state to execute on.
    pub(super) fn full_state(&self) -> FullState {
        let mut state = FullState::default();
        self.nodes.iter().for_each(|node| state.add_node(node));
        self.codes.iter().for_each(|code| {
            state.add_code(code);
        });
        state
    }

    /// Decodes the blocks and checks sizes, numbers, hashes and chain ids, which need no execution.
    pub(super) fn check_links(&self) -> Result<Vec<Block<'_>>, BatchError> {
        limit("blocks", BLOCKS_MAX, self.blocks.len() as u64)?;
        if self.blocks.is_empty() {
            return Err(BatchError::NoBlocks);
        }
        let mut blocks: Vec<Block<'_>> = Vec::with_capacity(self.blocks.len());
        let mut gas: u64 = 0;
        let (mut number, mut hash) = (self.parent.block_number, self.parent.block_hash);
        for raw in &self.blocks {
            limit("block", BLOCK_SIZE_MAX as u64, raw.len() as u64)?;
            let block = Block::decode(raw).map_err(StfError::from)?;
            let expected = number.saturating_add(1);
            if block.header.number != expected {
                return Err(BatchError::BlockGap { expected, got: block.header.number });
            }
            if block.header.parent_hash != hash {
                return Err(BatchError::WrongParent { expected: hash, got: block.header.parent_hash });
            }
            self.check_chain_ids(&block)?;
            gas = gas.saturating_add(block.header.gas_used);
            limit("gas of the batch", GAS_MAX, gas)?;
            (number, hash) = (block.header.number, block.hash);
            blocks.push(block);
        }
        Ok(blocks)
    }

    fn check_chain_ids(&self, block: &Block<'_>) -> Result<(), BatchError> {
        let foreign = |id: Option<u64>| id.is_some_and(|id| id != self.spec.chain_id);
        match block.transactions.iter().position(|transaction| foreign(transaction.chain_id())) {
            Some(index) => Err(BatchError::WrongTransactionChainId { block: block.header.number, index }),
            None => Ok(()),
        }
    }

    /// The stated parent state is the one the ancestry gives.
    fn check_parent(&self) -> Result<(), BatchError> {
        if self.parent.chain_id != self.spec.chain_id {
            let (expected, got) = (self.spec.chain_id, self.parent.chain_id);
            return Err(BatchError::WrongChainId { expected, got });
        }
        let ancestors = match &self.ancestry {
            OwnedAncestry::Headers(raws) => raws.len(),
            OwnedAncestry::Assumed { hashes, .. } => hashes.len(),
        };
        limit("ancestors", ANCESTORS_MAX, ancestors as u64)?;
        let start = Start::of(&self.ancestry.as_ref())?;
        if start.parent.hash != self.parent.block_hash {
            return Err(BatchError::WrongParent { expected: start.parent.hash, got: self.parent.block_hash });
        }
        let given = ChainState {
            spec_hash: self.spec.hash(),
            block_number: start.parent.number,
            state_root: start.state_root,
            ..self.parent
        };
        same_state(&self.parent, &given)
    }

    fn check_all_needed(&self, touched: &Touched<'_>) -> Result<(), BatchError> {
        let surplus = |items: &[Vec<u8>], needed: &dyn Fn(&B256) -> bool| {
            items.iter().map(keccak256).find(|hash| !needed(hash))
        };
        let node = surplus(&self.nodes, &|hash| touched.nodes.contains_key(hash));
        let code = surplus(&self.codes, &|hash| touched.codes.contains_key(hash));
        match node.or(code) {
            Some(hash) => Err(BatchError::SurplusWitness { hash }),
            None => Ok(()),
        }
    }
}

fn same_state(got: &ChainState, expected: &ChainState) -> Result<(), BatchError> {
    let fields = [
        ("spec hash", got.spec_hash == expected.spec_hash),
        ("block number", got.block_number == expected.block_number),
        ("state root", got.state_root == expected.state_root),
    ];
    match fields.into_iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(BatchError::WrongParentState { field }),
        None => Ok(()),
    }
}

/// Items come in the order of their hashes, each once.
fn check_sorted(items: &[Vec<u8>]) -> Result<(), BatchError> {
    let mut last: Option<B256> = None;
    for hash in items.iter().map(keccak256) {
        if last.is_some_and(|last| last >= hash) {
            return Err(BatchError::SurplusWitness { hash });
        }
        last = Some(hash);
    }
    Ok(())
}

fn limit(item: &'static str, limit: u64, got: u64) -> Result<(), BatchError> {
    if got > limit {
        return Err(BatchError::Oversize { item, limit, got });
    }
    Ok(())
}
