//! The chain as far as a party cares: which transactions of the contract are in which block, and the wallet's coins.
//!
//! Everything that a party wants follows from this and is worked out anew after each block. So a reorganisation needs
//! no special care: what is no longer there is wanted again.

use std::collections::BTreeMap;

use assay_l1::graph::contract::build::{Input, TxRole};
use assay_l1::graph::terms::claim_digest;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Witness};
use serde::{Deserialize, Serialize};

use crate::contract::{Contract, Origin};
use crate::event::{Block, Fault};
use crate::evidence::SignedClaim;
use crate::types::{ClaimId, ContractTx, EpochIndex, Height, Values, CODE_ROOT, DIGEST, NEW_ROOT, PREV_ROOT};

/// Blocks below the tip of which nothing is forgotten.
pub(crate) fn remembered_max(finality: u32) -> u32 {
    finality.saturating_mul(2)
}

/// A transaction of the contract in a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// The block.
    pub height: Height,
    /// For a claim and a slot of an assertion: the witness of the first input. Its length is bounded by the script; of what strangers
    /// may add to (challenges, slashes) nothing is kept.
    pub witness: Option<Witness>,
    /// For a claim: the values that it signed.
    pub values: Option<Values>,
}

/// A coin of the party's wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coin {
    /// Its value.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub value: Amount,
    /// The block that made it.
    pub made: Height,
    /// The block that spent it.
    pub spent: Option<Height>,
}

/// Whether a transaction can go into the next block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// An output that it spends is not there.
    Missing,
    /// It, or another that spends the same, is in a block.
    Spent,
    /// A time lock lasts until after this height.
    Until(Height),
    /// It can.
    Ready,
}

/// How a claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was not made.
    Unmade,
    /// It may still be disputed, or waits for its acceptance.
    Open,
    /// It was accepted, at this height.
    Accepted(Height),
    /// It was slashed, or can no longer be defended, since this height.
    Void(Height),
}

/// What a party has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    wallet: ScriptBuf,
    /// Depth at which a block counts as final; undoing goes no deeper.
    finality: u32,
    tip: Height,
    confirmed: BTreeMap<ContractTx, Confirmed>,
    spent: BTreeMap<OutPoint, Height>,
    coins: BTreeMap<OutPoint, Coin>,
}

impl View {
    /// Nothing seen yet; the next block is the one after `tip`.
    #[must_use]
    pub fn new(wallet: ScriptBuf, finality: u32, tip: Height) -> Self {
        let maps = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { wallet, finality, tip, confirmed: maps.0, spent: maps.1, coins: maps.2 }
    }

    /// The last block.
    #[must_use]
    pub fn tip(&self) -> Height {
        self.tip
    }

    /// Script of the wallet.
    #[must_use]
    pub fn wallet(&self) -> &ScriptBuf {
        &self.wallet
    }

    /// The wallet's unspent confirmed coins.
    pub fn coins(&self) -> impl Iterator<Item = (OutPoint, Amount)> + '_ {
        self.coins.iter().filter(|(_, coin)| coin.spent.is_none()).map(|(at, coin)| (*at, coin.value))
    }

    /// Value of an unspent confirmed coin.
    #[must_use]
    pub fn coin(&self, outpoint: &OutPoint) -> Option<Amount> {
        self.coins.get(outpoint).filter(|coin| coin.spent.is_none()).map(|coin| coin.value)
    }

    /// A transaction of the contract, if it is in a block.
    #[must_use]
    pub fn confirmed(&self, id: ContractTx) -> Option<&Confirmed> {
        self.confirmed.get(&id)
    }

    /// The same with enough blocks on top.
    #[must_use]
    pub fn finalised(&self, id: ContractTx) -> Option<&Confirmed> {
        self.confirmed(id).filter(|entry| self.is_final(entry.height))
    }

    /// True if the block at `height` is final.
    #[must_use]
    pub fn is_final(&self, height: Height) -> bool {
        self.tip.plus(1).since(height) >= self.finality
    }

    /// Depth at which a block counts as final.
    pub(crate) fn finality(&self) -> u32 {
        self.finality
    }

    /// The same for all that follows. A lower one forgets more with the next block; a higher one brings nothing back.
    pub(crate) fn set_finality(&mut self, finality: u32) {
        self.finality = finality;
    }

    pub(crate) fn connect(&mut self, contract: &Contract, block: &Block) {
        self.tip = block.height;
        for tx in &block.txs {
            for input in &tx.input {
                if contract.watches(&input.previous_output) {
                    self.spent.insert(input.previous_output, block.height);
                }
                if let Some(coin) = self.coins.get_mut(&input.previous_output) {
                    coin.spent = Some(block.height);
                }
            }
            for id in contract.identify(tx) {
                let signed = matches!(id.role, TxRole::Claim(_) | TxRole::AssertSlot(..));
                let witness = tx.input.first().filter(|_| signed).map(|input| input.witness.clone());
                let values = match (id.role, &witness) {
                    (TxRole::Claim(_), Some(witness)) => SignedClaim::read(witness).map(|claim| claim.values),
                    _ => None,
                };
                self.confirmed.insert(id, Confirmed { height: block.height, witness, values });
            }
            // A coinbase cannot be spent for 100 blocks: it is nothing to count on.
            let outputs = tx.output.iter().enumerate().filter(|_| !tx.is_coinbase());
            let mine = outputs.filter(|(_, output)| output.script_pubkey == self.wallet);
            let mine: Vec<_> = mine.map(|(vout, output)| (vout as u32, output.value)).collect();
            for (vout, value) in mine {
                let outpoint = OutPoint::new(tx.compute_txid(), vout);
                self.coins.insert(outpoint, Coin { value, made: block.height, spent: None });
            }
        }
        let (tip, remembered) = (self.tip, remembered_max(self.finality));
        // A spent coin is kept as long as its spending may be undone.
        self.coins.retain(|_, coin| coin.spent.is_none_or(|height| tip.since(height) <= remembered));
    }

    /// Goes back without forgetting what the block held: for machines that are weakened.
    pub(crate) fn disconnect_blindly(&mut self, height: Height) {
        self.tip = Height(height.0.saturating_sub(1));
    }

    pub(crate) fn disconnect(&mut self, height: Height) {
        self.tip = Height(height.0.saturating_sub(1));
        self.confirmed.retain(|_, entry| entry.height < height);
        self.spent.retain(|_, spent| *spent < height);
        self.coins.retain(|_, coin| coin.made < height);
        for coin in self.coins.values_mut() {
            coin.spent = coin.spent.filter(|spent| *spent < height);
        }
    }

    /// Whether a transaction of the contract can go into the next block, as far as the contract's outputs are concerned.
    #[must_use]
    pub fn readiness(&self, contract: &Contract, id: ContractTx) -> Readiness {
        let Some(node) = contract.node(id) else { return Readiness::Missing };
        let mut until = Height(0);
        for (input, kind) in node.tx.input.iter().zip(&node.inputs) {
            if !matches!(kind, Input::Contract { .. }) {
                continue;
            }
            let parent =
                contract.by_txid(&input.previous_output.txid).and_then(|parent| self.confirmed(parent));
            let Some(parent) = parent else { return Readiness::Missing };
            if self.spent.contains_key(&input.previous_output) {
                return Readiness::Spent;
            }
            until = until.max(parent.height.plus(lock(input.sequence)));
        }
        if self.tip.plus(1) >= until {
            Readiness::Ready
        } else {
            Readiness::Until(until)
        }
    }

    /// True if it can go into the next block.
    #[must_use]
    pub fn ready(&self, contract: &Contract, id: ContractTx) -> bool {
        self.readiness(contract, id) == Readiness::Ready
    }

    /// The values that a confirmed claim signed, with their signatures.
    #[must_use]
    pub fn claim(&self, claim: ClaimId) -> Option<SignedClaim> {
        SignedClaim::read(self.confirmed(claim.tx(TxRole::Claim))?.witness.as_ref()?)
    }

    /// The values that a confirmed claim signed.
    #[must_use]
    pub fn values(&self, claim: ClaimId) -> Option<Values> {
        self.confirmed(claim.tx(TxRole::Claim))?.values
    }

    /// What the values that a claim signed show to be wrong by themselves: digest, link, code root. `None` if it is not in a block.
    #[must_use]
    pub fn own_faults(&self, contract: &Contract, claim: ClaimId) -> Option<Vec<Fault>> {
        let values = self.values(claim)?;
        let code_root = contract.epoch(claim.epoch)?.spec().terms.params.code_root;
        let start = match contract.origin(claim)? {
            Origin::State(state) => Some(state),
            Origin::Claim(before) => self.values(before).map(|before| before[NEW_ROOT]),
        };
        let checks = [
            (Fault::Digest, claim_digest(&values[..DIGEST]) != values[DIGEST]),
            (Fault::Link, start.is_some_and(|start| start != values[PREV_ROOT])),
            (Fault::CodeRoot, values[CODE_ROOT] != code_root),
        ];
        Some(checks.into_iter().filter(|(_, wrong)| *wrong).map(|(fault, _)| fault).collect())
    }

    /// The claims on which the trunk stands, its first one first: those that the last epoch to open builds on and its own, up to the
    /// first that is void. A claim that is [`Standing::Unmade`] among them was made in a block that was not seen.
    #[must_use]
    pub fn counting(&self, contract: &Contract) -> Vec<ClaimId> {
        let opened = contract.epochs().filter_map(|(epoch, _)| {
            let opening = self.confirmed(ContractTx { epoch, role: TxRole::Reconfiguration })?;
            Some((opening.height, epoch))
        });
        let Some((_, epoch)) = opened.max() else { return Vec::new() };
        let is_made =
            |claim: &u32| self.confirmed(ClaimId { epoch, claim: *claim }.tx(TxRole::Claim)).is_some();
        let made = (0..).take_while(is_made).count() as u32;
        let mut claims = lineage(contract, ClaimId { epoch, claim: made });
        let void = claims.iter().position(|claim| matches!(self.standing(*claim), Standing::Void(_)));
        claims.truncate(void.unwrap_or(claims.len()));
        claims
    }

    /// The last block in which a claim that was made can be challenged for certain.
    pub(crate) fn challenge_until(&self, contract: &Contract, claim: ClaimId) -> Option<Height> {
        let made = self.confirmed(claim.tx(TxRole::Claim))?.height;
        Some(made.plus(u32::from(contract.epoch(claim.epoch)?.spec().locks.challenge_blocks)))
    }

    /// True once no more than the `part`th of a claim's period to challenge is left.
    pub(crate) fn is_nearly_over(&self, contract: &Contract, claim: ClaimId, part: u32) -> bool {
        let blocks = contract.epoch(claim.epoch).map_or(0, |epoch| epoch.spec().locks.challenge_blocks);
        let until = self.challenge_until(contract, claim);
        until.is_some_and(|until| self.tip.plus(u32::from(blocks) / part) >= until)
    }

    /// The slash of an epoch's collateral: what it was for, and when.
    #[must_use]
    pub fn slash(&self, epoch: EpochIndex) -> Option<(TxRole, Height)> {
        let range =
            ContractTx { epoch, role: TxRole::Reconfiguration }..=ContractTx { epoch, role: TxRole::PayOut };
        let mut slashes = self.confirmed.range(range).filter(|(id, _)| slashed_claim(id.role).is_some());
        slashes.next().map(|(id, entry)| (id.role, entry.height))
    }

    /// The ClaimTimeout that ended an epoch: before which claim, and when.
    #[must_use]
    pub fn halt(&self, contract: &Contract, epoch: EpochIndex) -> Option<(u32, Height)> {
        let claims = contract.epoch(epoch)?.spec().terms.claims_max;
        let entry = |claim| self.confirmed(ContractTx { epoch, role: TxRole::ClaimTimeout(claim) });
        (0..=claims).find_map(|claim| Some((claim, entry(claim)?.height)))
    }

    /// How a claim stands.
    ///
    /// One collateral stands behind all claims of an epoch. Once it is gone, a claim that was challenged and not accepted
    /// before cannot be defended any more, whatever its operator asserts: nobody could punish a lie.
    #[must_use]
    pub fn standing(&self, claim: ClaimId) -> Standing {
        if self.confirmed(claim.tx(TxRole::Claim)).is_none() {
            return Standing::Unmade;
        }
        let slash = self.slash(claim.epoch);
        if let Some((role, height)) = slash {
            if slashed_claim(role) == Some(claim.claim) {
                return Standing::Void(height);
            }
        }
        if let Some(entry) = self.confirmed(claim.tx(TxRole::OptimisticAcceptance)) {
            return Standing::Accepted(entry.height);
        }
        let accepted = self.confirmed(claim.tx(TxRole::Acceptance)).map(|entry| entry.height);
        match (slash, accepted) {
            (None, Some(height)) => Standing::Accepted(height),
            (Some((_, slash)), Some(height)) if height < slash => Standing::Accepted(height),
            (Some((_, slash)), _) if self.disputed(claim) => Standing::Void(slash),
            _ => Standing::Open,
        }
    }

    /// True if a claim was challenged, or its operator opened an assertion all the same.
    fn disputed(&self, claim: ClaimId) -> bool {
        self.confirmed(claim.tx(TxRole::Challenge)).is_some()
            || self.confirmed(claim.tx(TxRole::Assert)).is_some()
    }

    /// After an epoch was ended: the first claim that does not count, in it or an epoch before; if all do, the one that
    /// never came. `None` while something is not final.
    #[must_use]
    pub fn first_void(&self, contract: &Contract, epoch: EpochIndex) -> Option<ClaimId> {
        let (claim, ended) = self.halt(contract, epoch)?;
        if !self.is_final(ended) {
            return None;
        }
        let end = ClaimId { epoch, claim };
        for claim in lineage(contract, end) {
            match self.standing(claim) {
                Standing::Accepted(height) if self.is_final(height) => {}
                Standing::Void(height) if self.is_final(height) => return Some(claim),
                _ => return None,
            }
        }
        Some(end)
    }
}

/// The claims that `end` builds on, the trunk's first one first.
#[must_use]
pub fn lineage(contract: &Contract, end: ClaimId) -> Vec<ClaimId> {
    let mut claims = Vec::new();
    let mut at = end;
    // Origins lead to epochs that were there before, so this ends.
    while let Some(Origin::Claim(before)) = contract.origin(at) {
        claims.push(before);
        at = before;
    }
    claims.reverse();
    claims
}

/// Blocks that an input waits.
fn lock(sequence: Sequence) -> u32 {
    match sequence.to_relative_lock_time() {
        Some(bitcoin::relative::LockTime::Blocks(height)) => u32::from(height.value()),
        _ => 0,
    }
}

/// The claim that a slash is about.
#[must_use]
pub fn slashed_claim(role: TxRole) -> Option<u32> {
    match role {
        TxRole::AssertTimeout(claim)
        | TxRole::SlotTimeout(claim, _)
        | TxRole::DisproveInput(claim)
        | TxRole::Disprove(claim) => Some(claim),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use assay_l1::graph::contract::build::leaf;
    use bitcoin::TxOut;

    use super::*;
    use crate::contract::Fill;
    use crate::sim::Fixture;

    #[test]
    fn what_strangers_add_to_a_challenge_or_a_slash_is_not_kept() {
        let contract = Fixture::shared().contract();
        let epoch = contract.epoch(EpochIndex(0)).unwrap();
        let slash = [Fill::bare(leaf::SLASH), Fill::bare(leaf::ASSERT_TIMEOUT)];
        let (role, late) = (TxRole::Challenge(0), TxRole::AssertTimeout(0));
        let txs = [(role, &[Fill::bare(leaf::CHALLENGE)][..]), (late, &slash[..])].map(|(role, fills)| {
            let mut tx = epoch.complete(role, fills).unwrap();
            let script_pubkey = ScriptBuf::from_bytes(vec![0x51; 10_000]);
            tx.output.extend(vec![TxOut { value: Amount::ZERO, script_pubkey }; 20]);
            Arc::new(tx)
        });
        let mut view = View::new(Fixture::wallet(1), 4, Height(9));
        let before = bincode::serialized_size(&view).unwrap();
        view.connect(&contract, &Block { height: Height(10), txs: txs.to_vec() });
        for role in [role, late] {
            assert!(view.confirmed(ContractTx { epoch: EpochIndex(0), role }).is_some(), "{role}");
        }
        let after = bincode::serialized_size(&view).unwrap();
        assert!(after < before + 500, "{before}, {after}");
    }
}
