//! Blocks and unspent outputs, with undo.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::{relative, Amount, OutPoint, Transaction, TxOut, Txid};

use crate::types::Height;

/// An unspent output.
#[derive(Debug, Clone)]
pub(crate) struct Unspent {
    pub(crate) output: TxOut,
    pub(crate) height: Height,
}

/// A block.
#[derive(Debug, Clone)]
pub struct MinedBlock {
    /// Number of the block in the order in which blocks were made.
    pub id: u64,
    /// The block under it.
    pub parent: u64,
    /// Its height.
    pub height: Height,
    /// Its transactions, without a coinbase.
    pub txs: Vec<Arc<Transaction>>,
    spent: Vec<(OutPoint, Unspent)>,
}

/// The active chain.
#[derive(Debug, Clone)]
pub struct Chain {
    start: Height,
    blocks: Vec<MinedBlock>,
    stale: Vec<MinedBlock>,
    next_id: u64,
    unspent: BTreeMap<OutPoint, Unspent>,
    confirmed: BTreeMap<Txid, Height>,
    scripts: bool,
}

/// Blocks that an input has to wait after the block of the output that it spends.
pub(crate) fn lock(tx: &Transaction, input: usize) -> u32 {
    match tx.input[input].sequence.to_relative_lock_time() {
        Some(relative::LockTime::Blocks(height)) if tx.version.0 >= 2 => u32::from(height.value()),
        _ => 0,
    }
}

impl Chain {
    pub(crate) fn new(start: Height, coin: (OutPoint, TxOut), scripts: bool) -> Self {
        let unspent = BTreeMap::from([(coin.0, Unspent { output: coin.1, height: start })]);
        let lists = (Vec::new(), Vec::new());
        Self {
            start,
            blocks: lists.0,
            stale: lists.1,
            next_id: 1,
            unspent,
            confirmed: BTreeMap::new(),
            scripts,
        }
    }

    pub(crate) fn tip(&self) -> Height {
        self.start.plus(self.blocks.len() as u32)
    }

    /// The active blocks.
    #[must_use]
    pub fn blocks(&self) -> &[MinedBlock] {
        &self.blocks
    }

    /// All blocks that were ever made, in that order.
    #[must_use]
    pub fn history(&self) -> Vec<&MinedBlock> {
        let mut all: Vec<_> = self.stale.iter().chain(&self.blocks).collect();
        all.sort_by_key(|block| block.id);
        all
    }

    pub(crate) fn unspent(&self, outpoint: &OutPoint) -> Option<&Unspent> {
        self.unspent.get(outpoint)
    }

    pub(crate) fn has(&self, txid: &Txid) -> bool {
        self.confirmed.contains_key(txid)
    }

    /// The block that a transaction is in.
    pub(crate) fn height_of(&self, txid: &Txid) -> Option<Height> {
        self.confirmed.get(txid).copied()
    }

    /// Sum of the unspent outputs with a script.
    pub(crate) fn balance(&self, script: &bitcoin::Script) -> Amount {
        let mine = self.unspent.values().filter(|unspent| unspent.output.script_pubkey.as_script() == script);
        mine.map(|unspent| unspent.output.value).sum()
    }

    /// Adds a block; consensus decides.
    pub(crate) fn connect(&mut self, txs: Vec<Arc<Transaction>>) -> Result<(), String> {
        let height = self.tip().plus(1);
        let mut spent = Vec::new();
        for (index, tx) in txs.iter().enumerate() {
            if let Err(reason) = self.apply(tx, height, &mut spent) {
                for tx in txs[..index].iter().rev() {
                    self.forget(tx);
                }
                self.unspent.extend(spent.into_iter().filter(|(_, unspent)| unspent.height < height));
                return Err(reason);
            }
        }
        let parent = self.blocks.last().map_or(0, |block| block.id);
        self.blocks.push(MinedBlock { id: self.next_id, parent, height, txs, spent });
        self.next_id += 1;
        Ok(())
    }

    fn apply(
        &mut self,
        tx: &Arc<Transaction>,
        height: Height,
        spent: &mut Vec<(OutPoint, Unspent)>,
    ) -> Result<(), String> {
        let mut outputs = Vec::with_capacity(tx.input.len());
        for (index, input) in tx.input.iter().enumerate() {
            let unspent = self.unspent.get(&input.previous_output).ok_or("bad-txns-inputs-missingorspent")?;
            if unspent.height.plus(lock(tx, index)) > height {
                return Err("bad-txns-nonfinal".to_owned());
            }
            outputs.push(unspent.output.clone());
        }
        let into: Amount = outputs.iter().map(|output| output.value).sum();
        let out: Amount = tx.output.iter().map(|output| output.value).sum();
        if out > into {
            return Err("bad-txns-in-belowout".to_owned());
        }
        if self.scripts {
            assay_l1::verify_transaction(tx, &outputs).map_err(|error| error.to_string())?;
        }
        for input in &tx.input {
            let unspent = self.unspent.remove(&input.previous_output).ok_or("bad-txns-inputs-duplicate")?;
            spent.push((input.previous_output, unspent));
        }
        let txid = tx.compute_txid();
        for (vout, output) in tx.output.iter().enumerate() {
            if !output.script_pubkey.is_op_return() {
                let unspent = Unspent { output: output.clone(), height };
                self.unspent.insert(OutPoint::new(txid, vout as u32), unspent);
            }
        }
        self.confirmed.insert(txid, height);
        Ok(())
    }

    fn forget(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        self.confirmed.remove(&txid);
        for vout in 0..tx.output.len() as u32 {
            self.unspent.remove(&OutPoint::new(txid, vout));
        }
    }

    /// Takes the last block off.
    pub(crate) fn disconnect(&mut self) -> Option<MinedBlock> {
        let block = self.blocks.pop()?;
        for tx in block.txs.iter().rev() {
            self.forget(tx);
        }
        let before = block.spent.iter().filter(|(_, unspent)| unspent.height < block.height);
        self.unspent.extend(before.map(|(outpoint, unspent)| (*outpoint, unspent.clone())));
        self.stale.push(block.clone());
        Some(block)
    }
}
