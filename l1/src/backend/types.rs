//! What a back end says about chain, blocks, transactions and fees.

use bitcoin::block::Header;
use bitcoin::{BlockHash, FeeRate, OutPoint, Transaction, TxOut};

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

/// A block's header and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// The header.
    pub header: Header,
    /// Height.
    pub height: u32,
    /// True in the active chain; false on a branch that lost, or was never in front.
    pub active: bool,
}

/// How the active chain changed since a block was its tip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainChange {
    /// The tip now.
    pub tip: ChainTip,
    /// The last block that both chains have: the old tip itself unless there was a reorganisation.
    pub fork: ChainTip,
    /// Blocks of the old chain that are not in the active one any more.
    pub lost_blocks: u32,
}

impl ChainChange {
    /// True if blocks were taken out of the chain.
    #[must_use]
    pub fn is_reorganisation(&self) -> bool {
        self.lost_blocks > 0
    }
}

/// What fee rates a chain's mempool takes and wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeEstimate {
    /// Rate that confirms within `target_blocks`; `None` where too few transactions were seen to learn from.
    pub rate: Option<FeeRate>,
    /// Blocks that the estimate is for: a node may have to answer for another number than it was asked for.
    pub target_blocks: u16,
    /// Least that the mempool takes now: the relay minimum, or more while it is full.
    pub floor: FeeRate,
}
