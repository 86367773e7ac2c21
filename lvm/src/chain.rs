//! A chain with its full state: makes blocks, and cuts batches with their witness out of them.

use alloy_consensus::Header;
use alloy_primitives::{keccak256, Address, B256};
use assay_lvm_core::{
    execute_block, seal_block, Account, Ancestry, Block, BlockAttributes, ChainSpec, ChainState, Parent,
    SealedBlock, StateDb, StfError, Transaction, WitnessError, ANCESTORS_MAX,
};

use crate::{
    batch::{blocks_of, Batch},
    error::BatchError,
    genesis::{write_alloc, Alloc},
    record::{record, BlockSource},
    state_db::{FullState, Made, RecordingStore},
};

/// A header with its hash and bytes.
#[derive(Debug, Clone)]
struct Link {
    header: Header,
    raw: Vec<u8>,
    hash: B256,
}

/// A chain from genesis on, whole in memory.
#[derive(Debug, Clone)]
pub struct Chain {
    spec: ChainSpec,
    state: FullState,
    /// Headers by number, genesis first.
    links: Vec<Link>,
    /// Block RLPs; the block with number `n` is at `n - 1`.
    blocks: Vec<Vec<u8>>,
}

impl Chain {
    /// Starts a chain from its genesis accounts; `header` makes the header for the state root.
    ///
    /// # Errors
    /// `Stf` if the tries cannot be written, which does not happen.
    pub fn new(
        spec: ChainSpec,
        alloc: &Alloc,
        header: impl FnOnce(B256) -> Header,
    ) -> Result<Self, BatchError> {
        let mut state = FullState::default();
        let root = write_alloc(alloc, &mut state)
            .map_err(|error| StfError::Witness { number: 0, source: error.into() })?;
        let header = header(root);
        let raw = alloy_rlp::encode(&header);
        let link = Link { hash: keccak256(&raw), header, raw };
        Ok(Self { spec, state, links: vec![link], blocks: Vec::new() })
    }

    /// Number of the last block.
    pub fn tip(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// The header of a block, if the chain is that long.
    pub fn header(&self, number: u64) -> Option<&Header> {
        Some(&self.links.get(usize::try_from(number).ok()?)?.header)
    }

    /// The state after a block, if the chain is that long.
    pub fn state_after(&self, number: u64) -> Option<ChainState> {
        let link = self.links.get(usize::try_from(number).ok()?)?;
        Some(ChainState {
            chain_id: self.spec.chain_id,
            spec_hash: self.spec.hash(),
            block_number: number,
            block_hash: link.hash,
            state_root: link.header.state_root,
        })
    }

    /// An account as the last block left it; `None` if there is none.
    ///
    /// # Errors
    /// [`WitnessError`] if the state lacks a node, which does not happen.
    pub fn account(&self, address: Address) -> Result<Option<Account>, WitnessError> {
        let mut store = RecordingStore::new(&self.state);
        let root = self.links[self.links.len() - 1].header.state_root;
        StateDb::new(&mut store, root, self.tip(), Vec::new()).account(address)
    }

    /// Makes the next block of `transactions` and appends it.
    ///
    /// # Errors
    /// [`StfError`] if a transaction may not be included; the chain is then as before.
    pub fn append(
        &mut self,
        attributes: &BlockAttributes,
        transactions: Vec<Transaction>,
    ) -> Result<SealedBlock, StfError> {
        let (sealed, made) = self.seal(attributes, transactions)?;
        self.push(sealed.clone(), made);
        Ok(sealed)
    }

    /// The next block of `transactions`, and what it makes.
    pub(crate) fn seal(
        &self,
        attributes: &BlockAttributes,
        transactions: Vec<Transaction>,
    ) -> Result<(SealedBlock, Made), StfError> {
        let number = self.tip();
        let link = &self.links[self.links.len() - 1];
        let parent = Parent { number, hash: link.hash, header: Some(link.header.clone()) };
        let mut store = RecordingStore::new(&self.state);
        let mut db = StateDb::new(&mut store, link.header.state_root, number, self.recent_hashes());
        let sealed = seal_block(&self.spec, &mut db, &parent, attributes, transactions)?;
        Ok((sealed, store.finish().1))
    }

    /// Appends what [`Self::seal`] gave.
    fn push(&mut self, sealed: SealedBlock, made: Made) {
        self.state.absorb(made);
        let raw = alloy_rlp::encode(&sealed.header);
        self.links.push(Link { header: sealed.header, raw, hash: sealed.hash });
        self.blocks.push(sealed.raw);
    }

    /// Puts what [`Self::seal`] of the chain without its last block gave in that block's place.
    pub(crate) fn replace_tip(&mut self, sealed: SealedBlock, made: Made) {
        // Tries only grow, so what the other block has made harms nobody.
        self.blocks.pop();
        self.links.pop();
        self.push(sealed, made);
    }

    /// Executes blocks that somebody else has made and appends them: `data` is what [`Batch::data`] publishes. Returns the state
    /// after the last of them.
    ///
    /// # Errors
    /// `Decode` if `data` is no list of blocks; `NoBlocks` if it is empty or has more than `BLOCKS_MAX`; `Stf` if a block does not
    /// follow on the one before or does not execute. The chain is then as before.
    pub fn import(&mut self, data: &[u8]) -> Result<ChainState, BatchError> {
        let raws = blocks_of(data)?;
        let before = self.blocks.len();
        let mut imported =
            || -> Result<(), BatchError> { raws.iter().try_for_each(|raw| self.import_block(raw)) };
        if let Err(error) = imported() {
            // Tries only grow, so what the first blocks have made harms nobody.
            self.blocks.truncate(before);
            self.links.truncate(before + 1);
            return Err(error);
        }
        self.state_after(self.tip()).ok_or(BatchError::NoBlocks)
    }

    fn import_block(&mut self, raw: &[u8]) -> Result<(), BatchError> {
        let block = Block::decode(raw).map_err(StfError::from)?;
        let number = self.tip();
        let link = &self.links[self.links.len() - 1];
        let parent = Parent { number, hash: link.hash, header: Some(link.header.clone()) };
        let mut store = RecordingStore::new(&self.state);
        let mut db = StateDb::new(&mut store, link.header.state_root, number, self.recent_hashes());
        execute_block(&self.spec, &mut db, &parent, &block, &mut ())?;
        let (_, made) = store.finish();
        self.state.absorb(made);
        let link = Link { raw: alloy_rlp::encode(&block.header), hash: block.hash, header: block.header };
        self.links.push(link);
        self.blocks.push(raw.to_vec());
        Ok(())
    }

    /// The blocks `first..=last` with their witness.
    ///
    /// # Errors
    /// `NoBlocks` for an empty or unknown range; `Stf` if they do not execute, which for blocks of this chain does not
    /// happen.
    pub fn batch(&self, first: u64, last: u64) -> Result<Batch, BatchError> {
        if first == 0 || last < first || last > self.tip() {
            return Err(BatchError::NoBlocks);
        }
        let blocks: Vec<&[u8]> = (first..=last).map(|n| self.blocks[n as usize - 1].as_slice()).collect();
        let oldest = first.saturating_sub(ANCESTORS_MAX);
        let headers = (oldest..first).rev().map(|n| self.links[n as usize].raw.as_slice()).collect();
        let source = BlockSource { ancestry: Ancestry::Headers(headers), blocks: &blocks };
        record(&self.spec, &self.state, source)
    }

    fn recent_hashes(&self) -> Vec<B256> {
        self.links.iter().rev().take(ANCESTORS_MAX as usize).map(|link| link.hash).collect()
    }
}
