//! Access to a Bitcoin chain: one trait, two implementations.
//!
//! [`InProcessRegtest`] runs Bitcoin Core's consensus code in this process on a directory of its own, so that a demo and
//! the tests need no node; [`Bitcoind`] talks JSON-RPC to a node given by URL. `tests/backend_contract.rs` runs one suite
//! over both. Every call blocks; async callers use a thread.
//!
//! Assumption: the node behind a URL is the user's own and is trusted to tell the truth about the chain.

mod bitcoind;
mod block_log;
mod coins;
mod in_process;
mod kernel_log;
mod rpc;
mod spec;

pub use bitcoind::Bitcoind;
pub use in_process::InProcessRegtest;
pub use rpc::RpcAuth;
pub use spec::BackendSpec;

use std::path::PathBuf;

use bitcoin::{Block, BlockHash, FeeRate, Network, OutPoint, Script, Transaction, TxOut, Txid};

use crate::error::Class;

/// The last block of the active chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainTip {
    /// Height; the genesis block has height 0.
    pub height: u32,
    /// Hash of the block.
    pub hash: BlockHash,
}

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxState {
    /// Accepted, not in a block yet.
    Mempool,
    /// In a block of the active chain.
    Confirmed {
        /// Height of that block.
        height: u32,
        /// Hash of that block.
        block_hash: BlockHash,
        /// Blocks on top of it plus one.
        confirmations: u32,
    },
}

/// A transaction a back end knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxRecord {
    /// The transaction with its witnesses.
    pub tx: Transaction,
    /// Where it stands.
    pub state: TxState,
}

/// A confirmed, unspent output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Utxo {
    /// Which output.
    pub outpoint: OutPoint,
    /// Its value and script.
    pub txout: TxOut,
    /// Height of the block that made it.
    pub height: u32,
    /// True for the output of a coinbase, which needs 100 confirmations.
    pub coinbase: bool,
}

/// A Bitcoin chain: read it, hand it transactions, and on a test chain mine.
///
/// Phases of a transaction: [`broadcast`](Self::broadcast) puts it in the mempool, a block confirms it, a reorganisation
/// may take it back to unknown: callers keep their signed transactions and broadcast them again. After an error nothing
/// has changed on the chain, except that after `Unreachable` a broadcast may have arrived.
pub trait BitcoinBackend: Send + Sync {
    /// The network of this chain.
    fn network(&self) -> Network;

    /// A short name for reports, without credentials: `in-process regtest` or `bitcoind at host:port`.
    fn label(&self) -> String;

    /// The last block of the active chain.
    ///
    /// # Errors
    /// `Unreachable`, `Rpc`, `Malformed` from a node.
    fn tip(&self) -> Result<ChainTip, BackendError>;

    /// Hash of the block at `height` in the active chain.
    ///
    /// # Errors
    /// `NotFound` above the tip; node errors as for [`tip`](Self::tip).
    fn block_hash(&self, height: u32) -> Result<BlockHash, BackendError>;

    /// The block with this hash, witnesses included.
    ///
    /// # Errors
    /// `NotFound` for an unknown or pruned block; node errors as for [`tip`](Self::tip).
    fn block(&self, hash: &BlockHash) -> Result<Block, BackendError>;

    /// Looks `txid` up in the mempool and in the blocks from height `since` on; `None` if it is in neither.
    ///
    /// Cost on a node without a transaction index: one call per block from the tip down to `since`.
    ///
    /// # Errors
    /// Node errors as for [`tip`](Self::tip).
    fn transaction(&self, txid: &Txid, since: u32) -> Result<Option<TxRecord>, BackendError>;

    /// Offers a transaction to the mempool. Offering one that is already there, or mined, is not an error.
    ///
    /// # Errors
    /// `Rejected` with the node's reason; node errors as for [`tip`](Self::tip).
    fn broadcast(&self, tx: &Transaction) -> Result<(), BackendError>;

    /// Estimated fee rate to confirm within `target_blocks`; `None` where the chain has no fee market to learn from.
    ///
    /// # Errors
    /// Node errors as for [`tip`](Self::tip).
    fn fee_rate(&self, target_blocks: u16) -> Result<Option<FeeRate>, BackendError>;

    /// Confirmed unspent outputs locked by `script`, in the order of their outpoints. The mempool is not consulted.
    ///
    /// # Errors
    /// Node errors as for [`tip`](Self::tip).
    fn utxos(&self, script: &Script) -> Result<Vec<Utxo>, BackendError>;

    /// The ability to make blocks, on regtest only.
    fn miner(&self) -> Option<&dyn RegtestMiner>;
}

/// Block making on regtest.
pub trait RegtestMiner {
    /// Mines `count` blocks of mempool transactions, each paying `reward_to`; returns their hashes in order.
    ///
    /// # Errors
    /// `BlockRejected` if consensus refuses a block; node errors.
    fn mine(&self, count: u32, reward_to: &Script) -> Result<Vec<BlockHash>, BackendError>;

    /// Mines one block that holds exactly `txs`, in this order, past the mempool: the verdict is consensus alone.
    ///
    /// # Errors
    /// `BlockRejected` with Core's reason if consensus refuses it (the tip stays); node errors.
    fn mine_exactly(&self, txs: &[Transaction], reward_to: &Script) -> Result<BlockHash, BackendError>;
}

/// Why a back end could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The mempool refused a transaction.
    #[error("transaction {txid} was rejected: {reason}")]
    Rejected {
        /// The transaction.
        txid: Txid,
        /// Bitcoin Core's reason, such as `bad-txns-inputs-missingorspent` or `non-BIP68-final`.
        reason: String,
    },
    /// Consensus refused a block.
    #[error("block was rejected by consensus: {reason}")]
    BlockRejected {
        /// Bitcoin Core's reason.
        reason: String,
    },
    /// The chain has no such thing.
    #[error("not found: {what}")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The node did not answer.
    #[error("cannot reach bitcoind at {endpoint}: {detail}")]
    Unreachable {
        /// Host and port, without credentials.
        endpoint: String,
        /// What went wrong.
        detail: String,
    },
    /// The node refused the credentials.
    #[error("bitcoind at {endpoint} refused the credentials (user:password in the URL, or a cookie file)")]
    Unauthorised {
        /// Host and port.
        endpoint: String,
    },
    /// The node answered with an error.
    #[error("bitcoind answered `{method}` with error {code}: {message}")]
    Rpc {
        /// Method called.
        method: String,
        /// JSON-RPC error code.
        code: i64,
        /// The node's message.
        message: String,
    },
    /// The node's answer does not have the expected form.
    #[error("bitcoind's answer to `{method}` is not understood: {detail}")]
    Malformed {
        /// Method called.
        method: String,
        /// What was expected.
        detail: String,
    },
    /// The URL of a node is not one.
    #[error("not a bitcoind url: {detail} (expected http://user:password@host:port)")]
    Url {
        /// What is wrong; never the password.
        detail: String,
    },
    /// Another process has the in-process chain open.
    #[error("the in-process chain in {} is open in another process", dir.display())]
    Locked {
        /// Directory of the chain.
        dir: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot access {}: {source}", path.display())]
    Storage {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Core's consensus library failed for a reason that is not a verdict.
    #[error("bitcoin kernel: {detail}")]
    Kernel {
        /// The library's message.
        detail: String,
    },
}

impl BackendError {
    /// What a caller may do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. } | Self::Locked { .. } => Class::Transient,
            // -28: the node is warming up.
            Self::Rpc { code: -28, .. } => Class::Transient,
            Self::Kernel { .. } => Class::Bug,
            _ => Class::Permanent,
        }
    }

    pub(crate) fn storage(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Storage { path, source }
    }
}
