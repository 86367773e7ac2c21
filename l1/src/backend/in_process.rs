//! A regtest node without a node: Bitcoin Core's consensus engine on a directory, with a miner and a minimal mempool.
//!
//! The verdict on a block is read from validation's own callback and from the tip, never from the answer of
//! `process_block`, which is `NewBlock` for an invalid block too.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{
    absolute, transaction, Amount, Block, BlockHash, CompactTarget, Network, OutPoint, Script, ScriptBuf,
    Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Weight, Witness,
};
use bitcoinkernel::prelude::*;
use bitcoinkernel::{
    BlockValidationResult, BlockValidationStateRef, ChainType, ChainstateManager, Context, ContextBuilder,
    KernelError, ProcessBlockResult, ValidationMode,
};
use parking_lot::Mutex;

use super::block_log::BlockLog;
use super::coins::{fee, CoinIndex};
use super::mempool::{Mempool, FEE_FLOOR};
use super::{
    kernel_log, BackendError, BitcoinBackend, BlockInfo, ChainTip, FeeEstimate, RegtestMiner, TxRecord,
    TxState, Utxo, FEE_TARGET_BLOCKS_MAX,
};

/// Difficulty of regtest: every second hash is a block.
const REGTEST_BITS: u32 = 0x207f_ffff;
/// Blocks between halvings of the subsidy on regtest.
const HALVING_BLOCKS: u32 = 150;
/// Weight left for the header and the coinbase, as in Core's block template.
const RESERVED_WEIGHT: Weight = Weight::from_wu(8_000);

/// The in-process back end. Cheap to share; one process at a time may open a directory.
///
/// Directory: `kernel/` (Core's databases), `blocks.log` (every block, durable when the call that made it returns), `lock`.
pub struct InProcessRegtest {
    node: Mutex<Node>,
}

impl std::fmt::Debug for InProcessRegtest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcessRegtest").finish_non_exhaustive()
    }
}

impl InProcessRegtest {
    /// Opens the chain in `dir`, or starts one there. After a kill the chain goes on from the last block mined.
    ///
    /// # Errors
    /// `Locked` while another process has it open; `Storage`; `Kernel`; `BlockRejected` if the block file holds a block
    /// that consensus refuses.
    pub fn open(dir: &Path) -> Result<Self, BackendError> {
        Ok(Self { node: Mutex::new(Node::open(dir)?) })
    }

    /// Hands a block made elsewhere to consensus. One on a side chain is kept; it becomes the tip's chain once it has
    /// more work.
    ///
    /// # Errors
    /// `BlockRejected` with Core's reason.
    pub fn submit_block(&self, block: &Block) -> Result<(), BackendError> {
        let mut node = self.node.lock();
        node.submit(block)?;
        node.log.sync()
    }

    /// A block on top of `parent` (height `height - 1`) with a valid header, a coinbase for `reward_to` and `txs`; not
    /// submitted. `time_s` is its timestamp.
    #[must_use]
    pub fn assemble_block(
        parent: BlockHash,
        height: u32,
        time_s: u32,
        reward_to: &Script,
        txs: &[Transaction],
    ) -> Block {
        assemble(parent, height, time_s, reward_to, Amount::ZERO, txs)
    }
}

/// What validation said about the last block it checked.
type Verdict = Arc<Mutex<Option<(ValidationMode, BlockValidationResult)>>>;

struct Node {
    // Dropped in this order: the manager flushes to disk before its context goes, the lock is released last.
    chainman: ChainstateManager,
    _context: Context,
    verdict: Verdict,
    log: BlockLog,
    index: CoinIndex,
    mempool: Mempool,
    _lock: File,
}

impl Node {
    fn open(dir: &Path) -> Result<Self, BackendError> {
        kernel_log::install();
        std::fs::create_dir_all(dir).map_err(BackendError::storage(dir))?;
        let lock = lock(dir)?;
        let verdict = Verdict::default();
        let (context, chainman) = match open_kernel(&dir.join("kernel"), &verdict) {
            Ok(opened) => opened,
            Err(error) => {
                // The databases can be rebuilt: every block is in the log.
                tracing::warn!("{}: {error}; rebuilding from the block log", dir.display());
                let kernel_dir = dir.join("kernel");
                std::fs::remove_dir_all(&kernel_dir).map_err(BackendError::storage(&kernel_dir))?;
                open_kernel(&kernel_dir, &verdict)?
            }
        };
        let (log, logged) = BlockLog::open(&dir.join("blocks.log"))?;
        let mut node = Self {
            chainman,
            _context: context,
            verdict,
            log,
            index: CoinIndex::default(),
            mempool: Mempool::default(),
            _lock: lock,
        };
        for block in &logged {
            node.process(block)?;
        }
        node.reindex()?;
        node.complete_log(&logged)?;
        Ok(node)
    }

    /// Appends blocks of the active chain that a kill kept out of the log.
    fn complete_log(&mut self, logged: &[Block]) -> Result<(), BackendError> {
        let known: BTreeSet<BlockHash> = logged.iter().map(Block::block_hash).collect();
        for height in 1..=self.index.height() {
            let hash = self.index.block_hash(height).expect("the index covers the active chain");
            if !known.contains(&hash) {
                let block = self.read_block(&hash)?;
                self.log.append(&block)?;
            }
        }
        self.log.sync()
    }

    /// Gives a block to consensus and reads the verdict. True if it was new.
    fn process(&mut self, block: &Block) -> Result<bool, BackendError> {
        let kernel_block = bitcoinkernel::Block::new(&serialize(block)).map_err(|error| kernel(&error))?;
        *self.verdict.lock() = None;
        let (answer, lines) = kernel_log::captured(|| self.chainman.process_block(&kernel_block));
        let verdict = self.verdict.lock().take();
        let refused = matches!(verdict, Some((mode, _)) if mode != ValidationMode::Valid);
        if answer == ProcessBlockResult::Rejected || refused {
            let class =
                verdict.map_or_else(|| "block not accepted".to_owned(), |(_, result)| format!("{result:?}"));
            return Err(BackendError::BlockRejected { reason: kernel_log::reason(&lines).unwrap_or(class) });
        }
        Ok(answer == ProcessBlockResult::NewBlock)
    }

    /// Processes a block, logs it (the caller syncs), and follows the active chain.
    fn submit(&mut self, block: &Block) -> Result<BlockHash, BackendError> {
        if self.process(block)? {
            self.log.append(block)?;
        }
        let hash = block.block_hash();
        let extends = self.index.block_hash(self.index.height()) == Some(block.header.prev_blockhash);
        if extends && self.chain_tip()?.hash == hash {
            self.index.connect(block);
        } else {
            self.follow_reorganisation()?;
        }
        for (txid, reason) in self.mempool.revalidate(&self.index) {
            tracing::warn!("{txid} left the mempool: {reason}");
        }
        Ok(hash)
    }

    /// Rebuilds the coin index and puts the transactions of blocks that left the chain back into the mempool.
    fn follow_reorganisation(&mut self) -> Result<(), BackendError> {
        let before = std::mem::take(&mut self.index);
        self.reindex()?;
        let mut txs = Vec::new();
        for hash in before.blocks_not_in(&self.index) {
            txs.extend(self.read_block(&hash)?.txdata.into_iter().skip(1));
        }
        self.mempool.put_back(txs);
        Ok(())
    }

    /// Rebuilds the coin index from the active chain.
    fn reindex(&mut self) -> Result<(), BackendError> {
        let mut index = CoinIndex::default();
        let chain = self.chainman.active_chain();
        for entry in chain.iter() {
            let block = self.chainman.read_block_data(&entry).map_err(|error| kernel(&error))?;
            index.connect(&decode_block(&block)?);
        }
        self.index = index;
        Ok(())
    }

    fn chain_tip(&self) -> Result<ChainTip, BackendError> {
        let tip = self.chainman.active_chain().tip();
        let height = u32::try_from(tip.height())
            .map_err(|_| BackendError::Kernel { detail: "negative tip height".to_owned() })?;
        Ok(ChainTip { height, hash: BlockHash::from_byte_array(tip.block_hash().to_bytes()) })
    }

    fn read_block(&self, hash: &BlockHash) -> Result<Block, BackendError> {
        let not_found = || BackendError::NotFound { what: format!("block {hash}") };
        let kernel_hash =
            bitcoinkernel::BlockHash::new(hash.as_byte_array()).map_err(|error| kernel(&error))?;
        let entry = self.chainman.get_block_tree_entry(&kernel_hash).ok_or_else(not_found)?;
        decode_block(&self.chainman.read_block_data(&entry).map_err(|_| not_found())?)
    }

    fn block_info(&self, hash: &BlockHash) -> Result<BlockInfo, BackendError> {
        let kernel_hash =
            bitcoinkernel::BlockHash::new(hash.as_byte_array()).map_err(|error| kernel(&error))?;
        let entry = self
            .chainman
            .get_block_tree_entry(&kernel_hash)
            .ok_or_else(|| BackendError::NotFound { what: format!("block {hash}") })?;
        let corrupt = |detail: String| BackendError::Kernel { detail };
        let header = entry.header().consensus_encode().map_err(|error| kernel(&error))?;
        let header = deserialize(&header).map_err(|error| corrupt(format!("stored header: {error}")))?;
        let height = u32::try_from(entry.height()).map_err(|_| corrupt("negative height".to_owned()))?;
        Ok(BlockInfo { header, height, active: self.index.block_hash(height) == Some(*hash) })
    }

    fn mine_block(&mut self, txs: &[Transaction], reward_to: &Script) -> Result<BlockHash, BackendError> {
        let tip = self.chain_tip()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as u32);
        let time_s = now.max(self.index.median_time(tip.height) + 1);
        let fees = self.fees(txs);
        self.submit(&assemble(tip.hash, tip.height + 1, time_s, reward_to, fees, txs))
    }

    /// Fees of `txs` in this order. A transaction whose inputs are unknown or too small adds nothing: consensus judges.
    fn fees(&self, txs: &[Transaction]) -> Amount {
        let coin = |outpoint: &OutPoint| {
            self.index.coin(outpoint).cloned().or_else(|| {
                let parent = txs.iter().find(|tx| tx.compute_txid() == outpoint.txid)?;
                let txout = parent.output.get(outpoint.vout as usize)?.clone();
                Some(Utxo { outpoint: *outpoint, txout, height: 0, coinbase: false })
            })
        };
        let of = |tx: &Transaction| {
            let coins: Option<Vec<Utxo>> =
                tx.input.iter().map(|input| coin(&input.previous_output)).collect();
            coins.and_then(|coins| fee(tx, &coins)).unwrap_or(Amount::ZERO)
        };
        txs.iter().map(of).sum()
    }

    /// Mempool transactions for one block, in order, within the weight limit.
    fn template(&self) -> Vec<Transaction> {
        let mut left = Weight::MAX_BLOCK - RESERVED_WEIGHT;
        let mut chosen = Vec::new();
        for tx in self.mempool.transactions() {
            // A gap would leave children without parents: stop at the first that does not fit.
            let Some(rest) = left.checked_sub(tx.weight()) else { break };
            left = rest;
            chosen.push(tx.clone());
        }
        chosen
    }
}

impl BitcoinBackend for InProcessRegtest {
    fn network(&self) -> Network {
        Network::Regtest
    }

    fn label(&self) -> String {
        "in-process regtest (Bitcoin Core consensus library)".to_owned()
    }

    fn tip(&self) -> Result<ChainTip, BackendError> {
        self.node.lock().chain_tip()
    }

    fn block_hash(&self, height: u32) -> Result<BlockHash, BackendError> {
        let hash = self.node.lock().index.block_hash(height);
        hash.ok_or_else(|| BackendError::NotFound { what: format!("block at height {height}") })
    }

    fn block(&self, hash: &BlockHash) -> Result<Block, BackendError> {
        self.node.lock().read_block(hash)
    }

    fn block_info(&self, hash: &BlockHash) -> Result<BlockInfo, BackendError> {
        self.node.lock().block_info(hash)
    }

    fn transaction(&self, txid: &Txid, _since: u32) -> Result<Option<TxRecord>, BackendError> {
        let node = self.node.lock();
        if let Some(tx) = node.mempool.get(txid) {
            return Ok(Some(TxRecord { tx: tx.clone(), state: TxState::Mempool }));
        }
        let Some(height) = node.index.height_of(txid) else { return Ok(None) };
        let hash = node.index.block_hash(height).expect("an indexed height has a block");
        let block = node.read_block(&hash)?;
        let confirmations = node.index.height() - height + 1;
        let state = TxState::Confirmed { height, block_hash: hash, confirmations };
        let found = block.txdata.into_iter().find(|tx| tx.compute_txid() == *txid);
        Ok(found.map(|tx| TxRecord { tx, state }))
    }

    fn broadcast(&self, tx: &Transaction) -> Result<(), BackendError> {
        let mut node = self.node.lock();
        let node = &mut *node;
        node.mempool
            .accept(&node.index, tx)
            .map_err(|refusal| BackendError::Rejected { txid: tx.compute_txid(), reason: refusal.reason })
    }

    fn broadcast_package(&self, package: &[Transaction]) -> Result<(), BackendError> {
        let mut node = self.node.lock();
        let node = &mut *node;
        node.mempool
            .accept_package(&node.index, package)
            .map_err(|(reason, transactions)| BackendError::PackageRejected { reason, transactions })
    }

    fn fee_estimate(&self, target_blocks: u16) -> Result<FeeEstimate, BackendError> {
        // Nobody competes for this chain's blocks.
        let target_blocks = target_blocks.clamp(1, FEE_TARGET_BLOCKS_MAX);
        Ok(FeeEstimate { rate: None, target_blocks, floor: FEE_FLOOR })
    }

    fn utxos(&self, script: &Script) -> Result<Vec<Utxo>, BackendError> {
        Ok(self.node.lock().index.by_script(script))
    }

    fn miner(&self) -> Option<&dyn RegtestMiner> {
        Some(self)
    }
}

impl RegtestMiner for InProcessRegtest {
    fn mine(&self, count: u32, reward_to: &Script) -> Result<Vec<BlockHash>, BackendError> {
        let mut node = self.node.lock();
        let hashes = (0..count)
            .map(|_| {
                let txs = node.template();
                node.mine_block(&txs, reward_to)
            })
            .collect();
        // Once for all blocks: waiting for the disk takes far longer than a block.
        node.log.sync()?;
        hashes
    }

    fn mine_exactly(&self, txs: &[Transaction], reward_to: &Script) -> Result<BlockHash, BackendError> {
        let mut node = self.node.lock();
        let hash = node.mine_block(txs, reward_to)?;
        node.log.sync()?;
        Ok(hash)
    }
}

fn kernel(error: &KernelError) -> BackendError {
    BackendError::Kernel { detail: error.to_string() }
}

fn lock(dir: &Path) -> Result<File, BackendError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(BackendError::storage(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BackendError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(BackendError::Storage { path, source }),
    }
}

fn open_kernel(dir: &Path, verdict: &Verdict) -> Result<(Context, ChainstateManager), BackendError> {
    let blocks: PathBuf = dir.join("blocks");
    std::fs::create_dir_all(&blocks).map_err(BackendError::storage(&blocks))?;
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| BackendError::Kernel { detail: format!("{} is not UTF-8", path.display()) })
    };
    let cell = Arc::clone(verdict);
    let context = ContextBuilder::new()
        .chain_type(ChainType::Regtest)
        .with_block_checked_validation(move |_: bitcoinkernel::Block, state: BlockValidationStateRef<'_>| {
            let mut cell = cell.lock();
            // A block may be checked more than once (structure, then connection): the first refusal stands.
            if !matches!(*cell, Some((mode, _)) if mode != ValidationMode::Valid) {
                *cell = Some((state.mode(), state.result()));
            }
        })
        .build()
        .map_err(|error| kernel(&error))?;
    let chainman = ChainstateManager::builder(&context, &text(dir)?, &text(&blocks)?)
        .map_err(|error| kernel(&error))?
        .worker_threads(0)
        .build()
        .map_err(|error| kernel(&error))?;
    chainman.import_blocks().map_err(|error| kernel(&error))?;
    Ok((context, chainman))
}

fn decode_block(block: &bitcoinkernel::Block) -> Result<Block, BackendError> {
    let bytes = block.consensus_encode().map_err(|error| kernel(&error))?;
    deserialize(&bytes).map_err(|error| BackendError::Kernel { detail: format!("stored block: {error}") })
}

/// Subsidy of the block at `height` on regtest.
fn subsidy(height: u32) -> Amount {
    Amount::from_sat(Amount::from_int_btc(50).to_sat().checked_shr(height / HALVING_BLOCKS).unwrap_or(0))
}

/// Coinbase of the block at `height` (BIP34), without the witness commitment.
fn coinbase(height: u32, reward_to: &Script, fees: Amount) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new().push_int(i64::from(height)).push_int(0).into_script(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: subsidy(height) + fees, script_pubkey: reward_to.to_owned() }],
    }
}

fn assemble(
    parent: BlockHash,
    height: u32,
    time_s: u32,
    reward_to: &Script,
    fees: Amount,
    txs: &[Transaction],
) -> Block {
    let header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent,
        merkle_root: TxMerkleNode::all_zeros(),
        time: time_s,
        bits: CompactTarget::from_consensus(REGTEST_BITS),
        nonce: 0,
    };
    let mut block = Block { header, txdata: vec![coinbase(height, reward_to, fees)] };
    block.txdata.extend_from_slice(txs);
    commit_to_witnesses(&mut block);
    block.header.merkle_root = block.compute_merkle_root().expect("the block has a coinbase");
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    block
}

/// Adds the commitment output and the reserved value to the coinbase (BIP141).
fn commit_to_witnesses(block: &mut Block) {
    const RESERVED: [u8; 32] = [0; 32];
    const HEADER: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
    block.txdata[0].input[0].witness = Witness::from_slice(&[RESERVED]);
    let root = block.witness_root().expect("the block has a coinbase");
    let commitment = Block::compute_witness_commitment(&root, &RESERVED);
    let script = [HEADER.as_slice(), commitment.as_byte_array()].concat();
    block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) });
}
