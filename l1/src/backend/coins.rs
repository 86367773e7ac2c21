//! What the in-process node must know beside consensus: coins, and where transactions are.
//!
//! The consensus library validates blocks and keeps its own coin database, but cannot be asked for a coin. This index
//! is rebuilt from the blocks on opening.

use std::collections::BTreeMap;

use bitcoin::{Amount, Block, BlockHash, OutPoint, Script, Transaction, Txid};

use super::Utxo;

/// Blocks whose median time is the reference for time locks (BIP113).
const MEDIAN_TIME_BLOCKS: usize = 11;

/// Coins, transactions and times of the active chain.
#[derive(Debug, Default)]
pub(super) struct CoinIndex {
    coins: BTreeMap<OutPoint, Utxo>,
    transactions: BTreeMap<Txid, u32>,
    blocks: Vec<(BlockHash, u32)>,
}

impl CoinIndex {
    /// Height of the last block, if there is one.
    pub(super) fn height(&self) -> u32 {
        self.blocks.len().saturating_sub(1) as u32
    }

    /// Hash of the block at `height`.
    pub(super) fn block_hash(&self, height: u32) -> Option<BlockHash> {
        self.blocks.get(height as usize).map(|(hash, _)| *hash)
    }

    /// Blocks of this chain that `other` does not have, lowest first.
    pub(super) fn blocks_not_in(&self, other: &Self) -> Vec<BlockHash> {
        let hashes = self.blocks.iter().map(|(hash, _)| *hash).enumerate();
        hashes
            .filter(|(height, hash)| other.block_hash(*height as u32) != Some(*hash))
            .map(|(_, hash)| hash)
            .collect()
    }

    /// Height of the block that holds `txid`.
    pub(super) fn height_of(&self, txid: &Txid) -> Option<u32> {
        self.transactions.get(txid).copied()
    }

    /// The unspent output at `outpoint`.
    pub(super) fn coin(&self, outpoint: &OutPoint) -> Option<&Utxo> {
        self.coins.get(outpoint)
    }

    /// All unspent outputs locked by `script`.
    pub(super) fn by_script(&self, script: &Script) -> Vec<Utxo> {
        self.coins.values().filter(|coin| coin.txout.script_pubkey.as_script() == script).cloned().collect()
    }

    /// Adds the next block of the active chain.
    pub(super) fn connect(&mut self, block: &Block) {
        let height = self.blocks.len() as u32;
        self.blocks.push((block.block_hash(), block.header.time));
        // The genesis coinbase cannot be spent: Core keeps it out of the coins.
        for tx in block.txdata.iter().filter(|_| height > 0) {
            let txid = tx.compute_txid();
            self.transactions.insert(txid, height);
            for input in tx.input.iter().filter(|_| !tx.is_coinbase()) {
                self.coins.remove(&input.previous_output);
            }
            for (vout, txout) in
                tx.output.iter().enumerate().filter(|(_, txout)| !txout.script_pubkey.is_op_return())
            {
                let outpoint = OutPoint::new(txid, vout as u32);
                let coin = Utxo { outpoint, txout: txout.clone(), height, coinbase: tx.is_coinbase() };
                self.coins.insert(outpoint, coin);
            }
        }
    }

    /// Median time of the 11 blocks that end at `height`: the clock of time locks.
    pub(super) fn median_time(&self, height: u32) -> u32 {
        let end = (height as usize + 1).min(self.blocks.len());
        let mut times: Vec<u32> =
            self.blocks[end.saturating_sub(MEDIAN_TIME_BLOCKS)..end].iter().map(|(_, time)| *time).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// Value in minus value out, `None` if negative or out of range.
pub(super) fn fee(tx: &Transaction, coins: &[Utxo]) -> Option<Amount> {
    let total = |mut values: Box<dyn Iterator<Item = Amount> + '_>| {
        values.try_fold(Amount::ZERO, |sum, value| sum.checked_add(value))
    };
    let spent = total(Box::new(coins.iter().map(|coin| coin.txout.value)))?;
    let paid = total(Box::new(tx.output.iter().map(|txout| txout.value)))?;
    spent.checked_sub(paid)
}
