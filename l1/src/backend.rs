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
mod error;
mod in_process;
mod kernel_log;
mod mempool;
mod rpc;
mod spec;
mod types;

pub use bitcoind::Bitcoind;
pub use error::BackendError;
pub use in_process::InProcessRegtest;
pub use rpc::RpcAuth;
pub use spec::BackendSpec;
pub use types::{BlockInfo, ChainChange, ChainTip, FeeEstimate, TxRecord, TxState, Utxo};

use bitcoin::{Block, BlockHash, Network, Script, Transaction, Txid};

/// Most transactions of a package, the child among them (Core's limit).
pub const PACKAGE_TRANSACTIONS_MAX: usize = 25;

/// Longest target of a fee estimate, in blocks (Core's limit).
pub const FEE_TARGET_BLOCKS_MAX: u16 = 1_008;

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

    /// Whether old blocks are, or will be, deleted.
    ///
    /// # Errors
    /// As for [`tip`](Self::tip).
    fn is_pruned(&self) -> Result<bool, BackendError> {
        Ok(false)
    }

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

    /// Header, height and place of the block with this hash, whether it is in the active chain or on a branch that lost.
    ///
    /// # Errors
    /// `NotFound` for a block that the node never saw, or lost with its unsaved state; node errors as for [`tip`](Self::tip).
    fn block_info(&self, hash: &BlockHash) -> Result<BlockInfo, BackendError>;

    /// How the chain changed since `known` was its tip: what a follower must undo, and where it goes on.
    ///
    /// Cost: one call per block that was lost.
    ///
    /// # Errors
    /// `NotFound` if the node does not know `known`: follow the chain anew from an older block. Node errors as for
    /// [`tip`](Self::tip).
    fn change_since(&self, known: &ChainTip) -> Result<ChainChange, BackendError> {
        let tip = self.tip()?;
        let mut fork = known.hash;
        let mut lost_blocks = 0;
        loop {
            // Ends at the genesis block at the latest, which is in every active chain.
            let info = self.block_info(&fork)?;
            if info.active {
                let fork = ChainTip { height: info.height, hash: fork };
                return Ok(ChainChange { tip, fork, lost_blocks });
            }
            fork = info.header.prev_blockhash;
            lost_blocks += 1;
        }
    }

    /// Looks `txid` up in the mempool and in the blocks from height `since` on; `None` if it is in neither.
    ///
    /// Cost on a node without a transaction index: one call per block from the tip down to `since`.
    ///
    /// # Errors
    /// Node errors as for [`tip`](Self::tip).
    fn transaction(&self, txid: &Txid, since: u32) -> Result<Option<TxRecord>, BackendError>;

    /// Offers a transaction to the mempool. Offering one that is already there is no error, nor is one that is mined and has
    /// unspent outputs (a node without a transaction index does not know others).
    ///
    /// # Errors
    /// `Rejected` with the node's reason; node errors as for [`tip`](Self::tip).
    fn broadcast(&self, tx: &Transaction) -> Result<(), BackendError>;

    /// Offers a child with its unconfirmed parents, the child last, at once: the child may pay for parents that are below the
    /// mempool's floor, or pay nothing. At most [`PACKAGE_TRANSACTIONS_MAX`]; no parent may spend another. A transaction alone
    /// is a package too. As in [`broadcast`](Self::broadcast), offering again what is known is no error.
    ///
    /// # Errors
    /// `PackageRejected` with the node's reasons: parents that are good without the child may be in the mempool all the
    /// same. Node errors as for [`tip`](Self::tip).
    fn broadcast_package(&self, package: &[Transaction]) -> Result<(), BackendError>;

    /// What confirms within `target_blocks` (taken as 1 to [`FEE_TARGET_BLOCKS_MAX`]), and the least that the mempool takes.
    ///
    /// # Errors
    /// Node errors as for [`tip`](Self::tip).
    fn fee_estimate(&self, target_blocks: u16) -> Result<FeeEstimate, BackendError>;

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
