//! The mempool of the in-process node: consensus rules, and the relay rules that the contract's packages meet.
//!
//! Repeated from Core, with its words: coins exist and are unspent, maturity, values, time locks, scripts (consensus flags);
//! the fee floor, packages of a child with its parents, version 3 (BIP431) and ephemeral dust.
//!
//! NOT repeated, and so only tested against bitcoind: standardness (weight of a transaction, forms of scripts, size of witness
//! items, script flags beyond consensus), signature operations in sizes, replacement (a conflict is refused, a second version 3
//! child too), limits on related transactions other than version 3, size and age of the mempool, priority in blocks.

use std::collections::BTreeSet;

use bitcoin::constants::COINBASE_MATURITY;
use bitcoin::{transaction, Amount, FeeRate, OutPoint, Sequence, Transaction, TxOut, Txid, Weight};

use super::coins::{fee, CoinIndex};
use super::{Utxo, PACKAGE_TRANSACTIONS_MAX};
use crate::consensus::{verify_transaction, ConsensusError};

/// Least fee rate, Core's default: 100 sat/kvB.
pub(super) const FEE_FLOOR: FeeRate = FeeRate::from_sat_per_kwu(25);
/// Heaviest package (Core).
const PACKAGE_WEIGHT_MAX: Weight = Weight::from_wu(404_000);
/// Largest version 3 transaction, vB (BIP431).
const TRUC_VSIZE_MAX_VB: usize = 10_000;
/// Largest version 3 transaction with an unconfirmed parent, vB (BIP431).
const TRUC_CHILD_VSIZE_MAX_VB: usize = 1_000;
/// Seconds per unit of a relative time lock (BIP68).
const SEQUENCE_GRANULARITY_S: u32 = 512;

/// Why a transaction is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Core's words.
    pub(super) reason: String,
    /// True if other transactions of its package may make up for it.
    reconsiderable: bool,
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, reconsiderable: false }
    }
}

impl Refusal {
    fn reconsiderable(reason: String) -> Self {
        Self { reason, reconsiderable: true }
    }
}

/// Why a package is not taken: the reason, and those of its transactions.
pub(super) type PackageRefusal = (String, Vec<(Txid, String)>);

/// A transaction with what was found out about it.
#[derive(Debug, Clone)]
struct Entry {
    tx: Transaction,
    txid: Txid,
    fee: Amount,
}

impl Entry {
    fn spends(&self, txid: &Txid) -> bool {
        self.tx.input.iter().any(|input| input.previous_output.txid == *txid)
    }

    /// Outputs that cost more to spend than they hold.
    fn dust(&self) -> impl Iterator<Item = OutPoint> + '_ {
        let is_dust = |output: &TxOut| {
            !output.script_pubkey.is_op_return() && output.value < output.script_pubkey.minimal_non_dust()
        };
        let numbered = self.tx.output.iter().enumerate();
        numbered
            .filter(move |(_, output)| is_dust(output))
            .map(|(vout, _)| OutPoint::new(self.txid, vout as u32))
    }
}

/// Transactions accepted and not mined, in order of arrival, parents before children.
#[derive(Debug, Default)]
pub(super) struct Mempool {
    entries: Vec<Entry>,
}

impl Mempool {
    /// The transaction with this id.
    pub(super) fn get(&self, txid: &Txid) -> Option<&Transaction> {
        self.entry(txid).map(|entry| &entry.tx)
    }

    /// All transactions in order.
    pub(super) fn transactions(&self) -> impl Iterator<Item = &Transaction> {
        self.entries.iter().map(|entry| &entry.tx)
    }

    /// Accepts `tx` for the next block, or names the rule it breaks in Core's words. One that is there or mined is accepted.
    pub(super) fn accept(&mut self, index: &CoinIndex, tx: &Transaction) -> Result<(), Refusal> {
        let txid = tx.compute_txid();
        if self.entry(&txid).is_some() || index.height_of(&txid).is_some() {
            return Ok(());
        }
        let entry = self.check(index, tx)?;
        self.check_relations(&entry)?;
        check_floor(entry.fee, entry.tx.vsize())?;
        self.entries.push(entry);
        Ok(())
    }

    /// Accepts a child with its parents: each alone if it can stand alone, the others together.
    pub(super) fn accept_package(
        &mut self,
        index: &CoinIndex,
        package: &[Transaction],
    ) -> Result<(), PackageRefusal> {
        check_form(package).map_err(|reason| (reason.to_owned(), Vec::new()))?;
        let (mut together, mut refusals) = (Vec::new(), Vec::new());
        for tx in package {
            if let Err(refusal) = self.accept(index, tx) {
                together.push(tx);
                refusals.push((tx.compute_txid(), refusal));
            }
        }
        let hopeless = refusals.iter().any(|(_, refusal)| !refusal.reconsiderable);
        let refused = if hopeless || package.len() == 1 {
            refusals.into_iter().map(|(txid, refusal)| (txid, refusal.reason)).collect()
        } else {
            let before = self.entries.len();
            match self.accept_together(index, &together) {
                Ok(()) => return Ok(()),
                Err((txid, refusal)) => {
                    self.entries.truncate(before);
                    vec![(txid, refusal.reason)]
                }
            }
        };
        match refused {
            none if none.is_empty() => Ok(()),
            refused => Err(("transaction failed".to_owned(), refused)),
        }
    }

    /// Adds transactions that pay the floor in sum; after an error some of them have been added.
    fn accept_together(&mut self, index: &CoinIndex, txs: &[&Transaction]) -> Result<(), (Txid, Refusal)> {
        let (mut fees, mut vsize_vb, mut last) = (Amount::ZERO, 0, None);
        for tx in txs {
            let txid = tx.compute_txid();
            let entry = self.check(index, tx).map_err(|refusal| (txid, refusal))?;
            self.check_relations(&entry).map_err(|refusal| (txid, refusal))?;
            fees += entry.fee;
            vsize_vb += tx.vsize();
            last = Some(txid);
            self.entries.push(entry);
        }
        last.map_or(Ok(()), |last| check_floor(fees, vsize_vb).map_err(|refusal| (last, refusal)))
    }

    /// Takes transactions of blocks that left the chain back, before all others; [`revalidate`](Self::revalidate) is next.
    pub(super) fn put_back(&mut self, txs: Vec<Transaction>) {
        let entry = |tx: Transaction| Entry { txid: tx.compute_txid(), tx, fee: Amount::ZERO };
        let later = std::mem::take(&mut self.entries);
        self.entries = txs.into_iter().map(entry).chain(later).collect();
    }

    /// Drops what the chain has confirmed or made invalid; returns what was dropped as invalid, with the reason. As in Core,
    /// the floor is for newcomers.
    pub(super) fn revalidate(&mut self, index: &CoinIndex) -> Vec<(Txid, String)> {
        let mut evicted = Vec::new();
        for Entry { tx, txid, .. } in std::mem::take(&mut self.entries) {
            if index.height_of(&txid).is_none() {
                match self.check(index, &tx) {
                    Ok(entry) => self.entries.push(entry),
                    Err(refusal) => evicted.push((txid, refusal.reason)),
                }
            }
        }
        evicted
    }

    fn entry(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.txid == *txid)
    }

    /// Consensus, as of the next block.
    fn check(&self, index: &CoinIndex, tx: &Transaction) -> Result<Entry, Refusal> {
        if tx.is_coinbase() {
            return Err("coinbase".into());
        }
        let next = index.height() + 1;
        let now = index.median_time(index.height());
        if !is_final(tx, next, now) {
            return Err("non-final".into());
        }
        let coins = tx
            .input
            .iter()
            .map(|input| self.find(index, &input.previous_output, next))
            .collect::<Result<Vec<_>, _>>()?;
        if coins.iter().any(|coin| coin.coinbase && next - coin.height < COINBASE_MATURITY) {
            return Err("bad-txns-premature-spend-of-coinbase".into());
        }
        let fee = fee(tx, &coins).ok_or("bad-txns-in-belowout")?;
        if !sequence_locks_hold(index, tx, &coins, next, now) {
            return Err("non-BIP68-final".into());
        }
        let spent: Vec<TxOut> = coins.into_iter().map(|coin| coin.txout).collect();
        verify_transaction(tx, &spent).map_err(|error| match error {
            ConsensusError::Script { .. } => Refusal::from("mempool-script-verify-flag-failed"),
            other => other.to_string().into(),
        })?;
        Ok(Entry { tx: tx.clone(), txid: tx.compute_txid(), fee })
    }

    fn find(&self, index: &CoinIndex, outpoint: &OutPoint, next: u32) -> Result<Utxo, Refusal> {
        let spends = |entry: &Entry| entry.tx.input.iter().any(|input| input.previous_output == *outpoint);
        if self.entries.iter().any(spends) {
            return Err("txn-mempool-conflict".into());
        }
        if let Some(coin) = index.coin(outpoint) {
            return Ok(coin.clone());
        }
        let parent = self.get(&outpoint.txid).and_then(|tx| tx.output.get(outpoint.vout as usize));
        parent
            .map(|txout| Utxo { outpoint: *outpoint, txout: txout.clone(), height: next, coinbase: false })
            .ok_or_else(|| Refusal::reconsiderable("bad-txns-inputs-missingorspent".to_owned()))
    }

    /// Rules on unconfirmed parents: ephemeral dust, version 3.
    fn check_relations(&self, entry: &Entry) -> Result<(), Refusal> {
        let dust = entry.dust().count();
        if dust > 1 || (dust == 1 && entry.fee > Amount::ZERO) {
            return Err("dust".into());
        }
        let ids: BTreeSet<Txid> = entry.tx.input.iter().map(|input| input.previous_output.txid).collect();
        let parents: Vec<&Entry> = ids.iter().filter_map(|txid| self.entry(txid)).collect();
        let is_spent = |dust: OutPoint| entry.tx.input.iter().any(|input| input.previous_output == dust);
        if !parents.iter().flat_map(|parent| parent.dust()).all(is_spent) {
            return Err("missing-ephemeral-spends".into());
        }
        self.check_truc(entry, &parents).map_err(|rule| format!("TRUC-violation, {rule}").into())
    }

    /// BIP431, in Core's words.
    fn check_truc(&self, entry: &Entry, parents: &[&Entry]) -> Result<(), String> {
        let is_truc = |entry: &Entry| entry.tx.version == transaction::Version(3);
        let txid = entry.txid;
        if let Some(parent) = parents.iter().find(|parent| is_truc(parent) != is_truc(entry)) {
            let (not, other) = if is_truc(entry) { ("", "non-") } else { ("non-", "") };
            return Err(format!(
                "{not}version=3 tx {txid} cannot spend from {other}version=3 tx {}",
                parent.txid
            ));
        }
        if !is_truc(entry) {
            return Ok(());
        }
        let vsize = entry.tx.vsize();
        if vsize > TRUC_VSIZE_MAX_VB {
            return Err(format!(
                "version=3 tx {txid} is too big: {vsize} > {TRUC_VSIZE_MAX_VB} virtual bytes"
            ));
        }
        let Some(parent) = parents.first() else { return Ok(()) };
        if parents.len() > 1 || self.entries.iter().any(|other| parent.spends(&other.txid)) {
            return Err(format!("tx {txid} would have too many ancestors"));
        }
        if vsize > TRUC_CHILD_VSIZE_MAX_VB {
            let limit = TRUC_CHILD_VSIZE_MAX_VB;
            return Err(format!("version=3 child tx {txid} is too big: {vsize} > {limit} virtual bytes"));
        }
        if self.entries.iter().any(|other| other.txid != txid && other.spends(&parent.txid)) {
            return Err(format!("tx {} would exceed descendant count limit", parent.txid));
        }
        Ok(())
    }
}

/// Core's conditions on the form of a package.
fn check_form(package: &[Transaction]) -> Result<(), &'static str> {
    let Some((child, parents)) = package.split_last() else { return Err("package is empty") };
    if package.len() > PACKAGE_TRANSACTIONS_MAX {
        return Err("package-too-many-transactions");
    }
    let ids: BTreeSet<Txid> = parents.iter().map(Transaction::compute_txid).collect();
    let spends_parent =
        |tx: &Transaction| tx.input.iter().any(|input| ids.contains(&input.previous_output.txid));
    let spent: BTreeSet<Txid> = child.input.iter().map(|input| input.previous_output.txid).collect();
    if !ids.is_subset(&spent) || parents.iter().any(spends_parent) {
        return Err("package topology disallowed. not child-with-parents or parents depend on each other.");
    }
    if ids.len() < parents.len() {
        return Err("package-contains-duplicates");
    }
    let mut inputs = BTreeSet::new();
    if !package.iter().flat_map(|tx| &tx.input).all(|input| inputs.insert(input.previous_output)) {
        return Err("conflict-in-package");
    }
    if package.len() > 1 && package.iter().map(Transaction::weight).sum::<Weight>() > PACKAGE_WEIGHT_MAX {
        return Err("package-too-large");
    }
    Ok(())
}

fn check_floor(fee: Amount, vsize_vb: usize) -> Result<(), Refusal> {
    let least = FEE_FLOOR.fee_vb(vsize_vb as u64).unwrap_or(Amount::MAX_MONEY);
    if fee < least {
        let reason = format!("min relay fee not met, {} < {}", fee.to_sat(), least.to_sat());
        return Err(Refusal::reconsiderable(reason));
    }
    Ok(())
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
