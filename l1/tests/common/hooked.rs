//! A chain with a hook before each call. Include `chain.rs` beside it.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;

use assay_l1::{
    BackendError, BitcoinBackend, BlockInfo, ChainTip, FeeEstimate, RegtestMiner, TxRecord, Utxo,
};
use bitcoin::{Block, BlockHash, Network, Script, Transaction, Txid};

/// What is about to be called.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call<'a> {
    Read,
    Broadcast(&'a Transaction),
    Package,
    Mine,
}

/// A chain that calls `hook` first.
pub(crate) struct Hooked {
    pub(crate) inner: Arc<dyn BitcoinBackend>,
    /// False: blocks are somebody else's to make.
    pub(crate) mines: bool,
    pub(crate) hook: Box<dyn Fn(Call<'_>) + Send + Sync>,
}

impl Hooked {
    /// A chain on which the caller cannot make blocks.
    pub(crate) fn without_miner(inner: Arc<dyn BitcoinBackend>) -> Arc<Self> {
        Arc::new(Self { inner, mines: false, hook: Box::new(|_| {}) })
    }

    fn hooked(&self, call: Call<'_>) -> &dyn BitcoinBackend {
        (self.hook)(call);
        self.inner.as_ref()
    }
}

impl BitcoinBackend for Hooked {
    fn network(&self) -> Network {
        self.inner.network()
    }
    fn label(&self) -> String {
        self.inner.label()
    }
    fn tip(&self) -> Result<ChainTip, BackendError> {
        self.hooked(Call::Read).tip()
    }
    fn block_hash(&self, height: u32) -> Result<BlockHash, BackendError> {
        self.hooked(Call::Read).block_hash(height)
    }
    fn block(&self, hash: &BlockHash) -> Result<Block, BackendError> {
        self.hooked(Call::Read).block(hash)
    }
    fn block_info(&self, hash: &BlockHash) -> Result<BlockInfo, BackendError> {
        self.hooked(Call::Read).block_info(hash)
    }
    fn transaction(&self, txid: &Txid, since: u32) -> Result<Option<TxRecord>, BackendError> {
        self.hooked(Call::Read).transaction(txid, since)
    }
    fn broadcast(&self, tx: &Transaction) -> Result<(), BackendError> {
        self.hooked(Call::Broadcast(tx)).broadcast(tx)
    }
    fn broadcast_package(&self, package: &[Transaction]) -> Result<(), BackendError> {
        self.hooked(Call::Package).broadcast_package(package)
    }
    fn fee_estimate(&self, target_blocks: u16) -> Result<FeeEstimate, BackendError> {
        self.hooked(Call::Read).fee_estimate(target_blocks)
    }
    fn utxos(&self, script: &Script) -> Result<Vec<Utxo>, BackendError> {
        self.hooked(Call::Read).utxos(script)
    }
    fn miner(&self) -> Option<&dyn RegtestMiner> {
        self.mines.then_some(self as &dyn RegtestMiner)
    }
}

impl Hooked {
    fn mining(&self) -> &dyn RegtestMiner {
        self.hooked(Call::Mine).miner().expect("regtest")
    }
}

impl RegtestMiner for Hooked {
    fn mine(&self, count: u32, reward_to: &Script) -> Result<Vec<BlockHash>, BackendError> {
        self.mining().mine(count, reward_to)
    }
    fn mine_exactly(&self, txs: &[Transaction], reward_to: &Script) -> Result<BlockHash, BackendError> {
        self.mining().mine_exactly(txs, reward_to)
    }
}
