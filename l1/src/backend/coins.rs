//! What the in-process node must know beside consensus: coins, where transactions are, and a minimal mempool.
//!
//! The consensus library validates blocks and keeps its own coin database, but cannot be asked for a coin. This index
//! is rebuilt from the blocks on opening. Mempool acceptance repeats Core's rules that need no policy: coins exist and
//! are unspent, maturity, values, time locks, scripts. Fee and size policy is not repeated.

use std::collections::BTreeMap;

use bitcoin::constants::COINBASE_MATURITY;
use bitcoin::{Amount, Block, BlockHash, OutPoint, Script, Sequence, Transaction, TxOut, Txid};

use super::Utxo;
use crate::consensus::{verify_transaction, ConsensusError};

/// Blocks whose median time is the reference for time locks (BIP113).
const MEDIAN_TIME_BLOCKS: usize = 11;
/// Seconds per unit of a relative time lock (BIP68).
const SEQUENCE_GRANULARITY_S: u32 = 512;

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

/// Transactions accepted and not mined, in order of arrival, parents before children.
#[derive(Debug, Default)]
pub(super) struct Mempool {
    transactions: Vec<Transaction>,
}

impl Mempool {
    /// The transaction with this id.
    pub(super) fn get(&self, txid: &Txid) -> Option<&Transaction> {
        self.transactions.iter().find(|tx| tx.compute_txid() == *txid)
    }

    /// All transactions in order.
    pub(super) fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// Accepts `tx` for the next block, or names the rule it breaks in Core's words.
    pub(super) fn accept(&mut self, index: &CoinIndex, tx: &Transaction) -> Result<(), String> {
        self.check(index, tx)?;
        self.transactions.push(tx.clone());
        Ok(())
    }

    /// Drops what the chain has confirmed or made invalid; returns what was dropped as invalid, with the reason.
    pub(super) fn revalidate(&mut self, index: &CoinIndex) -> Vec<(Txid, String)> {
        let mut evicted = Vec::new();
        for tx in std::mem::take(&mut self.transactions) {
            let txid = tx.compute_txid();
            if index.height_of(&txid).is_none() {
                if let Err(reason) = self.accept(index, &tx) {
                    evicted.push((txid, reason));
                }
            }
        }
        evicted
    }

    fn check(&self, index: &CoinIndex, tx: &Transaction) -> Result<(), String> {
        if tx.is_coinbase() {
            return Err("coinbase".to_owned());
        }
        let next = index.height() + 1;
        let now = index.median_time(index.height());
        if !is_final(tx, next, now) {
            return Err("non-final".to_owned());
        }
        let coins = tx
            .input
            .iter()
            .map(|input| self.find(index, &input.previous_output, next))
            .collect::<Result<Vec<_>, _>>()?;
        if coins.iter().any(|coin| coin.coinbase && next - coin.height < COINBASE_MATURITY) {
            return Err("bad-txns-premature-spend-of-coinbase".to_owned());
        }
        fee(tx, &coins).ok_or("bad-txns-in-belowout")?;
        if !sequence_locks_hold(index, tx, &coins, next, now) {
            return Err("non-BIP68-final".to_owned());
        }
        let spent: Vec<TxOut> = coins.into_iter().map(|coin| coin.txout).collect();
        verify_transaction(tx, &spent).map_err(|error| match error {
            ConsensusError::Script { .. } => "mempool-script-verify-flag-failed".to_owned(),
            other => other.to_string(),
        })
    }

    fn find(&self, index: &CoinIndex, outpoint: &OutPoint, next: u32) -> Result<Utxo, String> {
        let spends = |tx: &Transaction| tx.input.iter().any(|input| input.previous_output == *outpoint);
        if self.transactions.iter().any(spends) {
            return Err("txn-mempool-conflict".to_owned());
        }
        if let Some(coin) = index.coin(outpoint) {
            return Ok(coin.clone());
        }
        let parent = self.get(&outpoint.txid).and_then(|tx| tx.output.get(outpoint.vout as usize));
        parent
            .map(|txout| Utxo { outpoint: *outpoint, txout: txout.clone(), height: next, coinbase: false })
            .ok_or_else(|| "bad-txns-inputs-missingorspent".to_owned())
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

fn is_final(tx: &Transaction, next_height: u32, median_time: u32) -> bool {
    let reached = match tx.lock_time {
        bitcoin::absolute::LockTime::Blocks(height) => height.to_consensus_u32() < next_height,
        bitcoin::absolute::LockTime::Seconds(time) => time.to_consensus_u32() < median_time,
    };
    reached || tx.input.iter().all(|input| input.sequence == Sequence::MAX)
}

/// BIP68 for a transaction in the block at height `next`.
fn sequence_locks_hold(index: &CoinIndex, tx: &Transaction, coins: &[Utxo], next: u32, now: u32) -> bool {
    if tx.version.0 < 2 {
        return true;
    }
    tx.input.iter().zip(coins).all(|(input, coin)| match input.sequence.to_relative_lock_time() {
        None => true,
        Some(bitcoin::relative::LockTime::Blocks(count)) => coin.height + u32::from(count.value()) <= next,
        Some(bitcoin::relative::LockTime::Time(units)) => {
            let from = index.median_time(coin.height.saturating_sub(1));
            from + u32::from(units.value()) * SEQUENCE_GRANULARITY_S <= now
        }
    })
}
