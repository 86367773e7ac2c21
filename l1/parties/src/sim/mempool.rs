//! A mempool with Core's rules as far as they matter: version 3 topology, packages of a parent and a child, replacement,
//! dust, sizes, the least rate. (The real node's verdict on every kind of transaction is `assay-l1`'s tests' business.)

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::{Amount, FeeRate, OutPoint, Transaction, TxOut, Txid};

use super::chain::{lock, Chain};
use crate::event::Reject;
use crate::fees::{fee_at, Replaced};

/// Whose a transaction is.
pub(crate) type Owner = usize;

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) tx: Arc<Transaction>,
    pub(crate) fee: Amount,
    pub(crate) vsize: u64,
    pub(crate) owner: Owner,
}

#[derive(Debug, Default)]
pub(crate) struct Mempool {
    entries: BTreeMap<Txid, Entry>,
    spends: BTreeMap<OutPoint, Txid>,
}

/// Largest virtual size of a version 3 transaction, and of one with an unconfirmed parent.
const V3_VSIZE_MAX: u64 = 10_000;
const V3_CHILD_VSIZE_MAX: u64 = 1_000;
const WEIGHT_MAX: u64 = 400_000;
const BLOCK_VSIZE_MAX: u64 = 990_000;

fn other(reason: &str) -> Reject {
    Reject::Other(reason.to_owned())
}

fn is_dust(output: &TxOut) -> bool {
    !output.script_pubkey.is_op_return() && output.value < Amount::from_sat(240)
}

impl Mempool {
    pub(crate) fn has(&self, txid: &Txid) -> bool {
        self.entries.contains_key(txid)
    }

    /// Every transaction, for those who look.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Swaps the witness of a transaction, as a miner in league with its author can.
    pub(crate) fn swap(&mut self, tx: &Arc<Transaction>) {
        if let Some(entry) = self.entries.get_mut(&tx.compute_txid()) {
            entry.tx = Arc::clone(tx);
        }
    }

    /// Takes a package: a transaction, or a parent and its child.
    pub(crate) fn accept(
        &mut self,
        chain: &Chain,
        package: &[Arc<Transaction>],
        (owner, minimum, incremental): (Owner, FeeRate, FeeRate),
        scripts: bool,
    ) -> Result<(), Reject> {
        let known = |txid: &Txid| self.has(txid) || chain.has(txid);
        let fresh: Vec<_> = package.iter().filter(|tx| !known(&tx.compute_txid())).cloned().collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let mut entries = Vec::new();
        for tx in &fresh {
            let spent = self.spent(chain, tx, &fresh)?;
            self.check_form(tx, &fresh)?;
            if scripts {
                assay_l1::verify_transaction(tx, &spent).map_err(|error| Reject::Other(error.to_string()))?;
            }
            let into: Amount = spent.iter().map(|output| output.value).sum();
            let out: Amount = tx.output.iter().map(|output| output.value).sum();
            let fee = into.checked_sub(out).ok_or_else(|| other("bad-txns-in-belowout"))?;
            if fee > Amount::ZERO && tx.output.iter().any(is_dust) {
                return Err(other("dust"));
            }
            entries.push(Entry { tx: Arc::clone(tx), fee, vsize: tx.vsize() as u64, owner });
        }
        let gone = self.conflicts(&fresh);
        let fee: Amount = entries.iter().map(|entry| entry.fee).sum();
        let vsize: u64 = entries.iter().map(|entry| entry.vsize).sum();
        // A parent that is there already without a fee is paid for, too.
        let parents: u64 =
            fresh.iter().flat_map(|tx| self.parents(tx)).map(|parent| self.entries[&parent].vsize).sum();
        let least = fee_at(minimum, vsize + parents).map_err(|_| other("fee overflows"))?;
        if fee < least {
            return Err(Reject::Fee { at_least: least });
        }
        if !gone.is_empty() {
            self.outbid(&gone, (fee, vsize, incremental), owner)?;
        }
        for txid in gone {
            self.remove(&txid);
        }
        for entry in entries {
            self.insert(entry);
        }
        Ok(())
    }

    /// BIP125's rules 3 and 4.
    fn outbid(
        &self,
        gone: &BTreeSet<Txid>,
        (fee, vsize, incremental): (Amount, u64, FeeRate),
        owner: Owner,
    ) -> Result<(), Reject> {
        let old: Vec<&Entry> = gone.iter().map(|txid| &self.entries[txid]).collect();
        let replaced = Replaced {
            fee: old.iter().map(|entry| entry.fee).sum(),
            vsize: old.iter().map(|entry| entry.vsize).sum(),
        };
        let least = replaced.least_fee(vsize, incremental).map_err(|_| other("fee overflows"))?;
        if fee >= least {
            return Ok(());
        }
        if old.iter().any(|entry| entry.owner != owner) {
            return Err(Reject::Conflict { at_least: least });
        }
        Err(Reject::Fee { at_least: least })
    }

    /// The outputs that a transaction spends; checks time locks.
    fn spent(
        &self,
        chain: &Chain,
        tx: &Transaction,
        fresh: &[Arc<Transaction>],
    ) -> Result<Vec<TxOut>, Reject> {
        let next = chain.tip().plus(1);
        let mut spent = Vec::new();
        for (index, input) in tx.input.iter().enumerate() {
            let at = input.previous_output;
            if let Some(unspent) = chain.unspent(&at) {
                if unspent.height.plus(lock(tx, index)) > next {
                    return Err(other("non-BIP68-final"));
                }
                spent.push(unspent.output.clone());
                continue;
            }
            let pooled = self.entries.get(&at.txid).map(|entry| &entry.tx);
            let parent = pooled.or_else(|| fresh.iter().find(|parent| parent.compute_txid() == at.txid));
            let output =
                parent.and_then(|parent| parent.output.get(at.vout as usize)).ok_or(Reject::Inputs)?;
            if lock(tx, index) > 0 {
                return Err(other("non-BIP68-final"));
            }
            spent.push(output.clone());
        }
        Ok(spent)
    }

    fn parents(&self, tx: &Transaction) -> BTreeSet<Txid> {
        tx.input.iter().map(|input| input.previous_output.txid).filter(|txid| self.has(txid)).collect()
    }

    /// Sizes and version 3 topology.
    fn check_form(&self, tx: &Transaction, fresh: &[Arc<Transaction>]) -> Result<(), Reject> {
        let vsize = tx.vsize() as u64;
        if tx.weight().to_wu() > WEIGHT_MAX {
            return Err(other("tx-size"));
        }
        let pooled = self.parents(tx);
        let version = |txid: &Txid| self.entries.get(txid).map(|entry| entry.tx.version.0);
        let in_package = fresh.iter().filter(|parent| {
            let txid = parent.compute_txid();
            tx.input.iter().any(|input| input.previous_output.txid == txid)
        });
        let versions: Vec<i32> =
            pooled.iter().filter_map(version).chain(in_package.map(|parent| parent.version.0)).collect();
        let v3 = tx.version.0 == 3;
        if versions.iter().any(|parent| (*parent == 3) != v3) {
            return Err(other("TRUC-violation: mixed versions"));
        }
        if v3 && (versions.len() > 1 || vsize > V3_VSIZE_MAX) {
            return Err(other("TRUC-violation: ancestors or size"));
        }
        if v3 && !versions.is_empty() && vsize > V3_CHILD_VSIZE_MAX {
            return Err(other("TRUC-violation: child size"));
        }
        let grand = pooled.iter().any(|parent| !self.parents(&self.entries[parent].tx).is_empty());
        if v3 && grand {
            return Err(other("TRUC-violation: generations"));
        }
        if tx.output.iter().filter(|output| is_dust(output)).count() > 1 {
            return Err(other("dust"));
        }
        Ok(())
    }

    /// What has to go if these come: whatever spends the same, the sibling under a version 3 parent, and descendants.
    fn conflicts(&self, fresh: &[Arc<Transaction>]) -> BTreeSet<Txid> {
        let inputs = fresh.iter().flat_map(|tx| tx.input.iter().map(|input| input.previous_output));
        let mut gone: BTreeSet<Txid> = inputs.filter_map(|at| self.spends.get(&at).copied()).collect();
        for tx in fresh.iter().filter(|tx| tx.version.0 == 3) {
            for parent in self.parents(tx) {
                let children = self.spends.range(OutPoint::new(parent, 0)..=OutPoint::new(parent, u32::MAX));
                gone.extend(children.map(|(_, child)| *child));
            }
        }
        let mut open: Vec<Txid> = gone.iter().copied().collect();
        while let Some(txid) = open.pop() {
            let children = self.spends.range(OutPoint::new(txid, 0)..=OutPoint::new(txid, u32::MAX));
            let fresh: Vec<Txid> =
                children.map(|(_, child)| *child).filter(|child| !gone.contains(child)).collect();
            gone.extend(&fresh);
            open.extend(fresh);
        }
        gone
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        let txid = entry.tx.compute_txid();
        for input in &entry.tx.input {
            self.spends.insert(input.previous_output, txid);
        }
        self.entries.insert(txid, entry);
    }

    fn remove(&mut self, txid: &Txid) -> Option<Entry> {
        let entry = self.entries.remove(txid)?;
        for input in &entry.tx.input {
            if self.spends.get(&input.previous_output) == Some(txid) {
                self.spends.remove(&input.previous_output);
            }
        }
        Some(entry)
    }

    /// Drops what the chain has, or no longer allows.
    pub(crate) fn clean(&mut self, chain: &Chain) {
        loop {
            let bad = self.entries.iter().find(|(txid, entry)| {
                let orphaned = || self.spent(chain, &entry.tx, &[]).is_err();
                // A parent without a fee stays only as long as its child does.
                let alone = || {
                    entry.fee == Amount::ZERO
                        && self
                            .spends
                            .range(OutPoint::new(**txid, 0)..=OutPoint::new(**txid, u32::MAX))
                            .next()
                            .is_none()
                };
                chain.has(txid) || orphaned() || alone()
            });
            let Some(txid) = bad.map(|(txid, _)| *txid) else { return };
            self.remove(&txid);
        }
    }

    /// Unconfirmed ancestors, parents before children.
    ///
    /// One generation is all that [`Self::accept`] lets in of version 3, but a reorganisation puts whole chains back: an
    /// opening, the claim on it, the child that pays, another that spends the child's change.
    fn ancestors(&self, tx: &Transaction) -> Vec<Txid> {
        let mut order = Vec::new();
        self.gather(tx, &mut BTreeSet::new(), &mut order);
        order
    }

    fn gather(&self, tx: &Transaction, seen: &mut BTreeSet<Txid>, order: &mut Vec<Txid>) {
        for parent in self.parents(tx) {
            if seen.insert(parent) {
                self.gather(&self.entries[&parent].tx, seen, order);
                order.push(parent);
            }
        }
    }

    /// The next block: by rate, each transaction with its ancestors, of `floor` at least, without those of `censored`.
    pub(crate) fn template(&self, floor: FeeRate, censored: Option<Owner>) -> Vec<Arc<Transaction>> {
        let mut left: BTreeMap<Txid, Vec<Txid>> =
            self.entries.iter().map(|(txid, entry)| (*txid, self.ancestors(&entry.tx))).collect();
        let (mut block, mut size) = (Vec::new(), 0);
        loop {
            let packages = left.iter().filter_map(|(txid, ancestors)| {
                let members = || ancestors.iter().chain([txid]).map(|member| &self.entries[member]);
                let fee: Amount = members().map(|entry| entry.fee).sum();
                let vsize: u64 = members().map(|entry| entry.vsize).sum();
                let pays = fee_at(floor, vsize).is_ok_and(|least| fee >= least);
                let barred = members().any(|entry| Some(entry.owner) == censored);
                let rate = u128::from(fee.to_sat()) * 1_000_000 / u128::from(vsize);
                let fits = pays && !barred && size + vsize <= BLOCK_VSIZE_MAX;
                fits.then_some((rate, Reverse(*txid), vsize))
            });
            let Some((_, Reverse(txid), vsize)) = packages.max() else { return block };
            size += vsize;
            let mut taken = left.remove(&txid).unwrap_or_default();
            taken.push(txid);
            block.extend(taken.iter().map(|member| Arc::clone(&self.entries[member].tx)));
            // What the block has already is not paid for again.
            left.retain(|txid, _| !taken.contains(txid));
            left.values_mut().for_each(|ancestors| ancestors.retain(|id| !taken.contains(id)));
        }
    }

    /// Forgets entries, as a node does that restarts, or has no room; what depends on them goes with the next
    /// [`Self::clean`].
    pub(crate) fn evict(&mut self, mut goes: impl FnMut() -> bool) {
        let gone: Vec<Txid> = self.entries.keys().copied().filter(|_| goes()).collect();
        for txid in gone {
            self.remove(&txid);
        }
    }

    /// Takes back what a disconnected block held, if it still fits.
    pub(crate) fn restore(&mut self, chain: &Chain, tx: &Arc<Transaction>, owner: Owner) {
        if let Ok(spent) = self.spent(chain, tx, &[]) {
            let clash = tx.input.iter().any(|input| self.spends.contains_key(&input.previous_output));
            let into: Amount = spent.iter().map(|output| output.value).sum();
            let out: Amount = tx.output.iter().map(|output| output.value).sum();
            if let (Some(fee), false) = (into.checked_sub(out), clash) {
                self.insert(Entry { tx: Arc::clone(tx), fee, vsize: tx.vsize() as u64, owner });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{absolute, transaction, ScriptBuf, Sequence, TxIn, Witness};

    use super::*;
    use crate::types::Height;

    fn spend(outpoint: OutPoint, value: u64) -> Arc<Transaction> {
        Arc::new(Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut { value: Amount::from_sat(value), script_pubkey: ScriptBuf::new() }],
        })
    }

    /// A chain of four that a reorganisation took out of their blocks, the last of which pays most.
    fn reorganised() -> (Chain, Mempool, Vec<Arc<Transaction>>) {
        let coin = OutPoint::new(Txid::from_raw_hash(bitcoin::hashes::Hash::all_zeros()), 7);
        let output = TxOut { value: Amount::from_sat(1_000_000), script_pubkey: ScriptBuf::new() };
        let chain = Chain::new(Height(1), (coin, output), false);
        let (mut pool, mut txs, mut at) = (Mempool::default(), Vec::new(), coin);
        for value in [999_900, 999_800, 999_700, 500_000] {
            let tx = spend(at, value);
            at = OutPoint::new(tx.compute_txid(), 0);
            pool.restore(&chain, &tx, 0);
            txs.push(tx);
        }
        (chain, pool, txs)
    }

    #[test]
    fn a_block_takes_all_ancestors_before_their_descendants() {
        let (mut chain, pool, txs) = reorganised();
        let block = pool.template(FeeRate::from_sat_per_kwu(250), None);
        assert_eq!(block, txs);
        chain.connect(block).unwrap();
    }

    #[test]
    fn what_a_censored_ancestor_holds_back_waits_and_what_it_does_not_is_paid_by_itself() {
        let (mut chain, mut pool, txs) = reorganised();
        pool.entries.get_mut(&txs[2].compute_txid()).unwrap().owner = 1;
        // The first two pay 100 sat each; the rate of the last does not help them.
        assert!(pool.template(FeeRate::from_sat_per_kwu(2_500), Some(1)).is_empty());
        let block = pool.template(FeeRate::from_sat_per_kwu(250), Some(1));
        assert_eq!(block, txs[..2]);
        chain.connect(block).unwrap();
        pool.clean(&chain);
        assert_eq!(pool.template(FeeRate::from_sat_per_kwu(250), None), txs[2..]);
    }

    #[test]
    fn what_depends_on_a_forgotten_transaction_is_dropped() {
        let (chain, mut pool, txs) = reorganised();
        let mut turn = 0;
        pool.evict(|| {
            turn += 1;
            turn == 1
        });
        pool.clean(&chain);
        let left: Vec<_> = txs.iter().filter(|tx| pool.has(&tx.compute_txid())).collect();
        assert!(left.len() < txs.len() && left.iter().zip(&txs).all(|(left, tx)| *left == tx));
    }
}
