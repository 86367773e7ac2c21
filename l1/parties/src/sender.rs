//! Getting transactions mined: fees by children or by themselves, replacements, rebroadcast, what is stuck.
//!
//! A machine says after each event what it wants in the next blocks. The sender keeps a `Job` for each, pays for it,
//! repeats it, raises its fee when it is stuck, and forgets it once it is not wanted any more. Fee inputs are confirmed coins
//! only: a version 3 transaction may have one unconfirmed parent, which is the one that is paid for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_l1::graph::contract::build::TxRole;
use assay_l1::graph::transactions::sign_key;
use bitcoin::key::Keypair;
use bitcoin::{
    absolute, transaction, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use serde::{Deserialize, Serialize};

use crate::event::{Alarm, Block, Effect, Reject};
use crate::fees::{fee_at, FeeError, FeePolicy, Market, Replaced, DUST};
use crate::types::{ContractTx, Height};
use crate::view::{remembered_max, View};

/// A transaction without its fee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Draft {
    /// Complete, of version 3, without a fee; its last output is an anchor. A child pays.
    Anchored(Arc<Transaction>),
    /// One input and one output that belong together (SINGLE, ANYONECANPAY). The sender adds a coin that pays the deposit
    /// and the fee, and takes change.
    Challenge {
        /// The transaction so far.
        tx: Arc<Transaction>,
        /// The output that its input spends.
        spent: TxOut,
        /// What the coin has to add, without the fee.
        #[serde(with = "bitcoin::amount::serde::as_sat")]
        deposit: Amount,
    },
    /// Inputs are complete and leave this much for the sender, who adds an output for itself.
    Slash {
        /// The transaction so far.
        tx: Arc<Transaction>,
        /// Value of the inputs less the outputs.
        #[serde(with = "bitcoin::amount::serde::as_sat")]
        reward: Amount,
    },
}

/// Something a machine wants mined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Which transaction.
    pub id: ContractTx,
    /// The last block in which it is still of use.
    pub deadline: Option<Height>,
}

impl Want {
    /// Order in which the coins and the budget are spent: disputes before all else, then by the last block of use.
    fn urgency(&self) -> (bool, Height) {
        let is_dispute = matches!(
            self.id.role,
            TxRole::Challenge(_)
                | TxRole::Assert(_)
                | TxRole::AssertSlot(..)
                | TxRole::AssertTimeout(_)
                | TxRole::SlotTimeout(..)
                | TxRole::DisproveInput(_)
                | TxRole::Disprove(_)
        );
        (!is_dispute, self.deadline.unwrap_or(Height(u32::MAX)))
    }
}

/// A transaction on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Job {
    draft: Draft,
    deadline: Option<Height>,
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    fee: Amount,
    coin: Option<OutPoint>,
    package: Vec<Arc<Transaction>>,
    /// When the fee was last raised.
    raised: Height,
    /// How often it was found stuck.
    stuck: u32,
    /// When it was last sent.
    sent: Height,
    /// The node refused it as too cheap: its answer.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    demanded: Amount,
    /// Another transaction in the mempool is in its way; what it takes to replace that one.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    outbid: Amount,
}

/// What a transaction costs once it is in a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Bill {
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    cost: Amount,
    paid: Option<Height>,
    known: Height,
}

/// A coin that is being cut up, so that every job finds one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Split {
    coin: OutPoint,
    tx: Arc<Transaction>,
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    fee: Amount,
    raised: Height,
}

/// All jobs of a party, and what it has spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    policy: FeePolicy,
    market: Market,
    jobs: BTreeMap<ContractTx, Job>,
    split: Option<Split>,
    /// Every paying transaction of the last blocks: a replaced one may be mined all the same.
    bills: BTreeMap<Txid, Bill>,
    /// Costs whose blocks are final.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    settled: Amount,
    #[serde(skip)]
    weak: SenderWeak,
}

switches! {
    /// Remedies taken away, for the simulator's tests of itself.
    SenderWeak {
        /// Nothing is ever raised.
        no_bump,
        /// Nothing is sent twice.
        no_rebroadcast,
        /// The budget is not looked at.
        no_budget,
    }
}

impl Sender {
    /// Nothing to send.
    #[must_use]
    pub fn new(policy: FeePolicy) -> Self {
        Self {
            policy,
            market: Market::default(),
            jobs: BTreeMap::new(),
            split: None,
            bills: BTreeMap::new(),
            settled: Amount::ZERO,
            weak: SenderWeak::default(),
        }
    }

    /// Spends by this policy from now on. What was spent and promised stays counted.
    pub(crate) fn set_policy(&mut self, policy: FeePolicy) {
        self.policy = policy;
    }

    #[cfg(feature = "simulate")]
    pub(crate) fn weaken(&mut self, weak: SenderWeak) {
        self.weak = weak;
    }

    /// Paid in blocks so far, deposits included.
    #[must_use]
    pub fn paid(&self) -> Amount {
        let paid = self.bills.values().filter(|bill| bill.paid.is_some());
        self.settled + paid.map(|bill| bill.cost).sum::<Amount>()
    }

    /// Paid, and promised by transactions on their way.
    #[must_use]
    pub fn committed(&self) -> Amount {
        self.committed_without(None)
    }

    fn committed_without(&self, without: Option<ContractTx>) -> Amount {
        let others = self.jobs.iter().filter(|(id, _)| Some(**id) != without);
        let split = self.split.as_ref().map_or(Amount::ZERO, |split| split.fee);
        self.paid() + split + others.map(|(_, job)| job.cost()).sum::<Amount>()
    }

    pub(crate) fn market(&mut self, market: Market) {
        self.market = market;
    }

    /// Takes note of what has been paid.
    pub(crate) fn connect(&mut self, block: &Block, finality: u32) {
        for tx in &block.txs {
            if let Some(bill) = self.bills.get_mut(&tx.compute_txid()) {
                bill.paid = Some(block.height);
            }
        }
        let deep = |height: Height| block.height.since(height) > remembered_max(finality);
        let done = self.bills.values().filter(|bill| bill.paid.is_some_and(deep));
        self.settled += done.map(|bill| bill.cost).sum::<Amount>();
        let live = self
            .jobs
            .values()
            .filter_map(|job| job.package.last())
            .chain(self.split.iter().map(|split| &split.tx));
        let live: BTreeSet<Txid> = live.map(|tx| tx.compute_txid()).collect();
        self.bills.retain(|txid, bill| match bill.paid {
            Some(height) => !deep(height),
            None => live.contains(txid) || !deep(bill.known),
        });
    }

    pub(crate) fn disconnect(&mut self, height: Height) {
        for bill in self.bills.values_mut() {
            bill.paid = bill.paid.filter(|paid| *paid < height);
        }
    }

    pub(crate) fn rejected(&mut self, txid: Txid, reason: &Reject, effects: &mut Vec<Effect>) {
        let is_it = |job: &Job| job.package.last().is_some_and(|tx| tx.compute_txid() == txid);
        let Some((id, job)) = self.jobs.iter_mut().find(|(_, job)| is_it(job)) else { return };
        let id = *id;
        match reason {
            Reject::Fee { at_least } => job.demanded = job.demanded.max(*at_least),
            Reject::Conflict { at_least } => job.outbid = job.outbid.max(*at_least),
            // What it spends is gone, or not back yet: the next block tells.
            Reject::Inputs => {}
            Reject::Other(_) => effects.push(Effect::Alarm(Alarm::Refused(id))),
        }
    }

    /// Sends again whatever is on its way.
    pub(crate) fn resend(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(self.jobs.values().map(|job| Effect::Broadcast(job.package.clone())));
    }

    /// The fee that a transaction of its own pays; `None` if it is not on its way.
    #[must_use]
    pub fn fee(&self, txid: &Txid) -> Option<Amount> {
        let is_it = |job: &&Job| job.package.last().is_some_and(|tx| tx.compute_txid() == *txid);
        let split = self.split.as_ref().filter(|split| split.tx.compute_txid() == *txid);
        self.jobs.values().find(is_it).map(|job| job.fee).or(split.map(|split| split.fee))
    }

    /// True if it is on its way.
    #[must_use]
    pub fn has(&self, id: ContractTx) -> bool {
        self.jobs.contains_key(&id)
    }

    /// Makes the jobs those that are wanted, and moves them on, the most urgent ones first. `draft` makes one that is not there yet.
    pub(crate) fn reconcile(
        &mut self,
        (view, wallet): (&View, &Keypair),
        wants: &[Want],
        mut draft: impl FnMut(ContractTx) -> Option<Draft>,
        effects: &mut Vec<Effect>,
    ) {
        let wanted: BTreeSet<ContractTx> = wants.iter().map(|want| want.id).collect();
        self.jobs.retain(|id, _| wanted.contains(id));
        let mut wants: Vec<&Want> = wants.iter().collect();
        wants.sort_by_key(|want| want.urgency());
        for want in wants {
            let known = self.jobs.get(&want.id);
            let Some(draft) = known.map(|job| job.draft.clone()).or_else(|| draft(want.id)) else {
                effects.push(Effect::Alarm(Alarm::Broken(want.id)));
                continue;
            };
            match self.advance((view, wallet), *want, draft) {
                Ok(true) => {
                    effects.extend(self.jobs.get(&want.id).map(|job| Effect::Broadcast(job.package.clone())));
                }
                Ok(false) => {}
                Err(error) => {
                    effects.push(Effect::Alarm(Alarm::Fee(want.id, error.into())));
                    // What is out already stays out.
                    let again = self.jobs.get_mut(&want.id).filter(|job| job.sent < view.tip());
                    if let Some(job) = again.filter(|_| !self.weak.no_rebroadcast()) {
                        job.sent = view.tip();
                        effects.push(Effect::Broadcast(job.package.clone()));
                    }
                }
            }
        }
    }

    /// Moves one job on; true if it is to be sent.
    fn advance(
        &mut self,
        (view, wallet): (&View, &Keypair),
        want: Want,
        draft: Draft,
    ) -> Result<bool, FeeError> {
        let tip = view.tip();
        let left = want.deadline.map(|deadline| deadline.since(tip));
        let vsize = draft.vsize();
        let Some(job) = self.jobs.get_mut(&want.id) else {
            let rate = self.policy.target(self.market.estimate, self.market.minimum, 0, left);
            let fee = fee_at(rate, vsize)?.min(draft.fee_max());
            return self.place((view, wallet), want, draft, (fee, 0)).map(|()| true);
        };
        job.deadline = want.deadline;
        let gone = job.coin.is_some_and(|coin| view.coin(&coin).is_none());
        let stuck = tip.since(job.raised) >= self.policy.patience_blocks;
        let urgent = left.is_some_and(|left| left <= self.policy.urgent_blocks) && tip > job.raised;
        let count = job.stuck + u32::from(stuck);
        let rate = self.policy.target(self.market.estimate, self.market.minimum, count, left);
        let wanted = fee_at(rate, vsize)?.max(job.demanded);
        // Whoever competes for the same may be honest, too, and then either will do: it is outbid only if nothing moves.
        let wanted = if stuck { wanted.max(job.outbid) } else { wanted };
        let raise = wanted > job.fee && (stuck || urgent || job.demanded > job.fee);
        if gone || (raise && !self.weak.no_bump()) {
            let before = Replaced { fee: job.fee, vsize: job.own_vsize() };
            let least = before.least_fee(draft.own_vsize(), self.policy.incremental)?;
            let ceiling = fee_at(self.policy.ceiling, vsize)?.min(draft.fee_max());
            // Above the ceiling nothing is raised any more; a coin that vanished is replaced at the same price.
            let fee = if raise && wanted.max(least) <= ceiling { wanted.max(least) } else { job.fee };
            if gone || fee > job.fee {
                let fair =
                    fee_at(self.policy.target(self.market.estimate, self.market.minimum, 0, None), vsize)?;
                let fair = fair.max(least).min(fee);
                // Where the coins do not allow more than the estimate, that much is better than nothing.
                return match self.place((view, wallet), want, draft.clone(), (fee, count)) {
                    Err(_) if fair < fee => self.place((view, wallet), want, draft, (fair, count)),
                    placed => placed,
                }
                .map(|()| true);
            }
        }
        let again = tip > job.sent && !self.weak.no_rebroadcast();
        if again {
            job.sent = tip;
        }
        Ok(again)
    }

    /// Pays for a job.
    fn place(
        &mut self,
        (view, wallet): (&View, &Keypair),
        want: Want,
        draft: Draft,
        (fee, stuck): (Amount, u32),
    ) -> Result<(), FeeError> {
        let cost = draft.cost(fee);
        if !self.weak.no_budget() {
            self.policy.afford(self.committed_without(Some(want.id)), cost)?;
        }
        let coin = match draft.coin_needed(fee) {
            None => None,
            Some(needed) => Some(self.choose(view, want.id, needed)?),
        };
        let package = draft.package(coin, fee, wallet, view.wallet())?;
        let tip = view.tip();
        if let Some(tx) = package.last() {
            self.bills.insert(tx.compute_txid(), Bill { cost, paid: None, known: tip });
        }
        let job = Job {
            draft,
            deadline: want.deadline,
            fee,
            coin: coin.map(|(outpoint, _)| outpoint),
            package,
            raised: tip,
            stuck,
            sent: tip,
            demanded: Amount::ZERO,
            outbid: Amount::ZERO,
        };
        self.jobs.insert(want.id, job);
        Ok(())
    }

    /// The job's own coin if it is large enough, else the smallest free one that is.
    fn choose(&self, view: &View, id: ContractTx, needed: Amount) -> Result<(OutPoint, Amount), FeeError> {
        let own = self.jobs.get(&id).and_then(|job| job.coin);
        let own = own.and_then(|coin| Some((coin, view.coin(&coin)?))).filter(|(_, value)| *value >= needed);
        let free = self.free(view).into_iter().filter(|(_, value)| *value >= needed);
        let free = free.min_by_key(|(coin, value)| (*value, *coin));
        own.or(free).ok_or(FeeError::NoCoin { needed })
    }

    /// Confirmed coins that pay for nothing yet.
    fn free(&self, view: &View) -> Vec<(OutPoint, Amount)> {
        let jobs = self.jobs.values().filter_map(|job| job.coin);
        let taken: BTreeSet<OutPoint> = jobs.chain(self.split.iter().map(|split| split.coin)).collect();
        view.coins().filter(|(coin, _)| !taken.contains(coin)).collect()
    }

    /// Cuts a large coin up when the pool runs low, and sees to it that this is mined.
    pub(crate) fn refill(&mut self, (view, wallet): (&View, &Keypair), effects: &mut Vec<Effect>) {
        let tip = view.tip();
        let open = self.split.take().filter(|split| view.coin(&split.coin).is_some());
        let free = self.free(view);
        let largest = free.iter().max_by_key(|(coin, value)| (*value, *coin)).copied();
        let useful = free.iter().filter(|(_, value)| *value * 2 >= self.policy.coin).count();
        let low = useful < self.policy.coins as usize / 2;
        let coin = match &open {
            Some(split) => view.coin(&split.coin).map(|value| (split.coin, value)),
            None => largest.filter(|(_, value)| low && *value >= self.policy.coin * 3),
        };
        let Some(coin) = coin else { return };
        let stuck =
            open.as_ref().map_or(0, |split| tip.since(split.raised) / self.policy.patience_blocks.max(1));
        let made = match open {
            Some(split) if stuck == 0 || self.weak.no_bump() => Some(split),
            open => self.cut(coin, open.as_ref(), (view, wallet), stuck).or(open),
        };
        if let Some(split) = made {
            effects.push(Effect::Broadcast(vec![Arc::clone(&split.tx)]));
            self.split = Some(split);
        }
    }

    /// The transaction that cuts `coin` up, in place of `before`; `None` if that costs too much.
    fn cut(
        &mut self,
        (outpoint, value): (OutPoint, Amount),
        before: Option<&Split>,
        (view, wallet): (&View, &Keypair),
        stuck: u32,
    ) -> Option<Split> {
        let pieces =
            (value.to_sat() / self.policy.coin.to_sat().max(1)).clamp(1, u64::from(self.policy.coins));
        let piece =
            |fee: Amount| value.checked_sub(fee).map(|left| left / pieces).filter(|piece| *piece >= DUST);
        let outline = |piece: Amount| Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::from_slice(&[[0; 64]]),
            }],
            output: vec![TxOut { value: piece, script_pubkey: view.wallet().clone() }; pieces as usize],
        };
        let vsize = outline(DUST).vsize() as u64;
        let rate = self.policy.target(self.market.estimate, self.market.minimum, stuck, None);
        let mut fee = fee_at(rate, vsize).ok()?;
        if let Some(before) = before {
            let replaced = Replaced { fee: before.fee, vsize };
            fee = fee.max(replaced.least_fee(vsize, self.policy.incremental).ok()?);
        }
        if !self.weak.no_budget() {
            self.policy.afford(self.committed(), fee).ok()?;
        }
        let mut tx = outline(piece(fee)?);
        sign_coin(&mut tx, value, Vec::new(), wallet, view.wallet());
        // What does not divide goes to the fee as well.
        let fee = value.checked_sub(tx.output.iter().map(|output| output.value).sum())?;
        let bill = Bill { cost: fee, paid: None, known: view.tip() };
        self.bills.insert(tx.compute_txid(), bill);
        Some(Split { coin: outpoint, tx: Arc::new(tx), fee, raised: view.tip() })
    }

    /// Checks that the budget holds and no coin serves two jobs.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self) -> Result<(), String> {
        let committed = self.committed();
        if committed > self.policy.budget {
            return Err(format!("{committed} committed, the budget is {}", self.policy.budget));
        }
        let jobs = self.jobs.values().filter_map(|job| job.coin);
        let coins: Vec<OutPoint> = jobs.chain(self.split.iter().map(|split| split.coin)).collect();
        let distinct: BTreeSet<&OutPoint> = coins.iter().collect();
        if distinct.len() != coins.len() {
            return Err("a coin pays for two transactions".to_owned());
        }
        Ok(())
    }
}

impl Job {
    fn cost(&self) -> Amount {
        self.draft.cost(self.fee)
    }

    fn own_vsize(&self) -> u64 {
        self.package.last().map_or(1, |tx| tx.vsize() as u64)
    }
}

impl Draft {
    /// Virtual bytes that the fee is for: parent and child, or the transaction with what the sender adds.
    fn vsize(&self) -> u64 {
        match self {
            Self::Anchored(parent) => parent.vsize() as u64 + self.own_vsize(),
            _ => self.own_vsize(),
        }
    }

    /// Virtual bytes of the transaction that pays.
    fn own_vsize(&self) -> u64 {
        let coin = self.coin_needed(Amount::ZERO).map(|_| OutPoint::null());
        self.outline(coin, Amount::ZERO, &ScriptBuf::from_bytes(vec![0; 34])).vsize() as u64
    }

    /// What the party's money is less by, once it is mined. A slash pays for itself.
    fn cost(&self, fee: Amount) -> Amount {
        match self {
            Self::Anchored(_) => fee,
            Self::Challenge { deposit, .. } => *deposit + fee,
            Self::Slash { .. } => Amount::ZERO,
        }
    }

    /// Value that its coin needs, change included.
    fn coin_needed(&self, fee: Amount) -> Option<Amount> {
        match self {
            Self::Slash { .. } => None,
            _ => Some(self.cost(fee) + DUST),
        }
    }

    /// The transaction that pays, its coin's signature a blank.
    fn outline(&self, coin: Option<OutPoint>, change: Amount, wallet: &ScriptBuf) -> Transaction {
        let input = |previous_output, witness| TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness,
        };
        let coin = coin.map(|coin| input(coin, Witness::from_slice(&[[0; 64]])));
        let output = TxOut { value: change, script_pubkey: wallet.clone() };
        match self {
            Self::Anchored(parent) => {
                let last = parent.output.len().saturating_sub(1) as u32;
                let anchor = input(OutPoint::new(parent.compute_txid(), last), Witness::new());
                Transaction {
                    version: transaction::Version(3),
                    lock_time: absolute::LockTime::ZERO,
                    input: [anchor].into_iter().chain(coin).collect(),
                    output: vec![output],
                }
            }
            Self::Challenge { tx, .. } | Self::Slash { tx, .. } => {
                let mut tx = tx.as_ref().clone();
                tx.input.extend(coin);
                tx.output.push(output);
                tx
            }
        }
    }

    /// The transactions to send, parent first, with this fee.
    fn package(
        &self,
        coin: Option<(OutPoint, Amount)>,
        fee: Amount,
        wallet: &Keypair,
        script: &ScriptBuf,
    ) -> Result<Vec<Arc<Transaction>>, FeeError> {
        let (have, cost) = match (self, coin) {
            (Self::Slash { reward, .. }, _) => (*reward, fee),
            (_, Some((_, value))) => (value, self.cost(fee)),
            (_, None) => (Amount::ZERO, self.cost(fee)),
        };
        let change = have.checked_sub(cost).filter(|change| *change >= DUST);
        let change = change.ok_or(FeeError::Reward { reward: have, wanted: fee })?;
        let mut tx = self.outline(coin.map(|(outpoint, _)| outpoint), change, script);
        if let Some((_, value)) = coin {
            sign_coin(&mut tx, value, self.others(), wallet, script);
        }
        let own = Arc::new(tx);
        Ok(match self {
            Self::Anchored(parent) => vec![Arc::clone(parent), own],
            _ => vec![own],
        })
    }

    /// Outputs spent beside the coin, which the coin's signature commits to.
    fn others(&self) -> Vec<TxOut> {
        match self {
            Self::Anchored(parent) => parent.output.last().cloned().into_iter().collect(),
            Self::Challenge { spent, .. } => vec![spent.clone()],
            Self::Slash { .. } => Vec::new(),
        }
    }

    /// The highest fee that it pays. A slash keeps a quarter of its reward, for what the watch has cost.
    fn fee_max(&self) -> Amount {
        match self {
            Self::Slash { reward, .. } => {
                (*reward - *reward / 4).min(reward.checked_sub(DUST).unwrap_or(Amount::ZERO))
            }
            _ => Amount::MAX_MONEY,
        }
    }
}

/// Signs the coin, which is the last input.
fn sign_coin(tx: &mut Transaction, coin: Amount, others: Vec<TxOut>, wallet: &Keypair, script: &ScriptBuf) {
    let mut spent = others;
    spent.push(TxOut { value: coin, script_pubkey: script.clone() });
    let last = tx.input.len() - 1;
    tx.input[last].witness = Witness::from_slice(&[sign_key(tx, last, &spent, wallet)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FeeTrouble;
    use crate::sim::Fixture;
    use crate::types::EpochIndex;

    const TIP: Height = Height(100);

    fn want(role: TxRole, deadline: Option<u32>) -> Want {
        Want { id: ContractTx { epoch: EpochIndex(0), role }, deadline: deadline.map(Height) }
    }

    /// A view of a wallet with so many coins.
    fn view(coins: usize) -> View {
        let wallet = Fixture::wallet(1);
        let output = TxOut { value: Amount::from_sat(600_000), script_pubkey: wallet.clone() };
        let tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn::default(), TxIn::default()],
            output: vec![output; coins],
        };
        let mut view = View::new(wallet, 4, Height(TIP.0 - 1));
        view.connect(&Fixture::shared().contract(), &Block { height: TIP, txs: vec![Arc::new(tx)] });
        view
    }

    /// What a fresh sender has on its way, and the alarms.
    fn sent(coins: usize, budget: Amount, wants: &[Want]) -> (Vec<TxRole>, Vec<Alarm>, Amount) {
        let mut sender = Sender::new(FeePolicy { budget, ..FeePolicy::REGTEST });
        let contract = Fixture::shared().contract();
        // Their sizes do not matter here; two of the same would be one transaction.
        let draft = |id: ContractTx| Some(Draft::Anchored(Arc::new(contract.node(id)?.tx.clone())));
        let (mut effects, keys) = (Vec::new(), Fixture::keys(1));
        sender.reconcile((&view(coins), &keys.wallet), wants, draft, &mut effects);
        sender.check().unwrap();
        let alarms = effects.into_iter().filter_map(|effect| match effect {
            Effect::Alarm(alarm) => Some(alarm),
            _ => None,
        });
        (sender.jobs.keys().map(|id| id.role).collect(), alarms.collect(), sender.committed())
    }

    #[test]
    fn what_disputes_take_is_paid_before_anything_else_and_the_rest_by_its_deadline() {
        let disputes = [
            TxRole::Assert(0),
            TxRole::AssertSlot(0, 1),
            TxRole::Challenge(0),
            TxRole::DisproveInput(0),
            TxRole::AssertTimeout(0),
        ];
        let cases = disputes.map(|role| (want(role, Some(130)), want(TxRole::Claim(1), Some(101))));
        let acceptance = want(TxRole::OptimisticAcceptance(0), Some(110));
        let others = [
            (want(TxRole::Assert(2), Some(110)), want(TxRole::Assert(1), Some(120))),
            (acceptance, want(TxRole::Claim(1), Some(120))),
            (want(TxRole::Claim(1), Some(120)), want(TxRole::PayOut, None)),
        ];
        let rich = FeePolicy::REGTEST.budget;
        for (first, second) in cases.into_iter().chain(others) {
            let alone = sent(8, rich, &[first]).2;
            for wants in [[first, second], [second, first]] {
                assert_eq!(sent(2, rich, &wants).0.len(), 2, "both, where there is money for both");
                let fee = |trouble| vec![Alarm::Fee(second.id, trouble)];
                let paid = vec![first.id.role];
                assert_eq!(sent(1, rich, &wants), (paid.clone(), fee(FeeTrouble::Coin), alone), "one coin");
                assert_eq!(sent(8, alone, &wants), (paid, fee(FeeTrouble::Budget), alone), "one budget");
            }
        }
    }
}
