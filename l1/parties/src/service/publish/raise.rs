//! Children that raise the fee of a publication's transactions.
//!
//! The commit's change and a reveal's output are the wallet's: a child spends it with a confirmed coin, if it takes one, so that both reach
//! the rate that the policy wants. The parent's id stays what it is, so nothing that is on disk or on its way changes. A child that is not
//! enough is replaced (BIP125) by one that spends the same output. Reveals wait for the commit's block, so a parent has no other
//! unconfirmed relative.

use std::collections::BTreeSet;

use assay_l1::{Utxo, Wallet};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, TxOut};

use super::plan::{Child, Part};
use crate::fees::{child_fee, fee_at, FeeError, FeePolicy, Market, Replaced, DUST};

/// Largest child: with it the longest reveal stays within what nodes take of relatives, and of packages.
const CHILD_VSIZE_MAX: u64 = 1_000;

/// What a coin adds to it, at most.
const COIN_VSIZE: u64 = 58;

/// What a raise is decided by.
pub(super) struct Raise<'a> {
    pub(super) policy: &'a FeePolicy,
    pub(super) market: &'a Market,
    pub(super) wallet: &'a Wallet,
    /// Confirmed coins, large ones first.
    pub(super) coins: &'a [Utxo],
    /// Those of them that pay for something else.
    pub(super) taken: &'a BTreeSet<OutPoint>,
    /// What other children cost.
    pub(super) committed: Amount,
}

/// True if the transaction wants a look: nothing moved for too long, or the mempool has become dearer than it pays.
pub(super) fn is_stuck(part: &Part, since: u32, policy: &FeePolicy, market: &Market) -> bool {
    let raised = part.child.as_ref().map_or(since, |child| child.raised.max(since));
    let waited = market.at.0.saturating_sub(raised);
    waited >= policy.patience_blocks || (waited > 0 && is_below(part, market))
}

/// True if the transaction and its child pay less than the mempool's least rate.
fn is_below(part: &Part, market: &Market) -> bool {
    let child = part.child.as_ref();
    let vsize = (part.tx.vsize() + child.map_or(0, |child| child.tx.vsize())) as u64;
    let fee = part.fee + child.map_or(Amount::ZERO, |child| child.fee);
    fee_at(market.minimum, vsize).is_ok_and(|least| fee < least)
}

impl Raise<'_> {
    /// The child for a transaction that [`is_stuck`]; `None` if it is as dear as it may be.
    ///
    /// # Errors
    /// `NoCoin`, `Budget`: what stands against it.
    pub(super) fn child(&self, part: &Part) -> Result<Option<Child>, FeeError> {
        let Some(hook) = self.hook(part) else { return Ok(None) };
        let stuck = part.child.as_ref().map_or(0, |child| child.stuck) + 1;
        // A child whose coins are gone is in no mempool: there is nothing to replace.
        let before = part.child.as_ref().filter(|child| self.is_whole(child, &hook));
        let aim = |count| self.policy.target(self.market.estimate, self.market.minimum, count, None);
        let with = |count| {
            self.build(part, (&hook, before), aim(count))
                .map(|child| child.map(|(tx, fee)| Child { tx, fee, raised: self.market.at.0, stuck }))
        };
        // Where the coins do not allow more than the estimate, that much is better than nothing.
        with(stuck).or_else(|error| with(0)?.map(Some).ok_or(error))
    }

    /// The output that a child spends: the last one, if it is the wallet's.
    fn hook(&self, part: &Part) -> Option<Utxo> {
        let txout = part.tx.output.last().filter(|output| output.script_pubkey == *self.wallet.script())?;
        let outpoint = OutPoint::new(part.txid, part.tx.output.len() as u32 - 1);
        Some(Utxo { outpoint, txout: txout.clone(), height: 0, coinbase: false })
    }

    fn is_whole(&self, child: &Child, hook: &Utxo) -> bool {
        let mut inputs = child.tx.input.iter().map(|input| input.previous_output);
        inputs.all(|input| input == hook.outpoint || self.coins.iter().any(|coin| coin.outpoint == input))
    }

    /// A child with which the transaction reaches `rate`, and its fee; `None` if it does already, or would have to go above the
    /// ceiling.
    fn build(
        &self,
        part: &Part,
        (hook, before): (&Utxo, Option<&Child>),
        rate: FeeRate,
    ) -> Result<Option<(Transaction, Amount)>, FeeError> {
        let parent_vsize = part.tx.vsize() as u64;
        if before.is_none() && part.fee >= fee_at(rate, parent_vsize)? {
            return Ok(None);
        }
        let own: BTreeSet<OutPoint> =
            before.iter().flat_map(|child| &child.tx.input).map(|input| input.previous_output).collect();
        let free = self.coins.iter().filter(|coin| !self.taken.contains(&coin.outpoint));
        // Its own coins first, so that it ties up no others.
        let (mine, others): (Vec<&Utxo>, Vec<&Utxo>) = free.partition(|coin| own.contains(&coin.outpoint));
        let mut spare = mine.into_iter().chain(others);
        let mut inputs = vec![hook.clone()];
        loop {
            let output = |value| TxOut { value, script_pubkey: self.wallet.script().clone() };
            let vsize = self.wallet.spend(&inputs, &[output(DUST)]).vsize() as u64;
            let whole = child_fee(rate, parent_vsize, vsize)?;
            let Some(wanted) = whole.checked_sub(part.fee) else { return Ok(None) };
            let mut fee = wanted.max(fee_at(self.market.minimum, vsize)?);
            if let Some(child) = before {
                if fee <= child.fee {
                    return Ok(None);
                }
                let replaced = Replaced { fee: child.fee, vsize: child.tx.vsize() as u64 };
                fee = fee.max(replaced.least_fee(vsize, self.policy.incremental)?);
            }
            if part.fee + fee > child_fee(self.policy.ceiling, parent_vsize, vsize)? {
                return Ok(None);
            }
            let have: Amount = inputs.iter().map(|coin| coin.txout.value).sum();
            if let Some(left) = have.checked_sub(fee).filter(|left| *left >= DUST) {
                self.policy.afford(self.committed, fee)?;
                return Ok(Some((self.wallet.spend(&inputs, &[output(left)]), fee)));
            }
            let next = spare
                .next()
                .filter(|_| vsize < CHILD_VSIZE_MAX - COIN_VSIZE)
                .ok_or(FeeError::NoCoin { needed: fee + DUST })?;
            inputs.push(next.clone());
        }
    }
}
