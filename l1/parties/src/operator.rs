//! The operator: publishes data, makes claims in their cadence, answers challenges, collects what is due.
//!
//! ```text
//! batch proved ─▶ Publish ─▶ data on chain ─▶ Sign ─▶ signed ─▶ Claim ─┬─ nobody ──▶ OptimisticAcceptance
//!                                                                     └─ challenged ▶ Assert ▶ slots ▶ Acceptance
//! ```
//! The next claim is made while earlier ones are open. A claim that a reorganisation took away is sent again, the same
//! bytes: values and signatures are kept, and a one-time key never signs twice.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_l1::graph::contract::build::{leaf, TxRole};
use bitcoin::ScriptBuf;
use serde::{Deserialize, Serialize};

use crate::contract::{ContractError, Epoch, Fill, Origin};
use crate::event::{Alarm, Effect, Event};
use crate::fees::FeePolicy;
use crate::party::{Context, FinalityError, Machine, Party, StepError};
use crate::sender::{Draft, Sender, Want};
use crate::types::{ClaimId, ContractTx, EpochIndex, Height, Values, CODE_ROOT, NEW_ROOT, PREV_ROOT};
use crate::view::{lineage, Readiness, Standing, View};

/// Batches that wait for their claim, at most; but those of the next claims are always taken.
pub const BATCHES_MAX: usize = 4_096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Batch {
    values: Values,
    on_chain: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signed {
    values: Values,
    items: Vec<Vec<u8>>,
}

/// The operator's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    party: Party,
    /// By the state that they start at.
    batches: BTreeMap<[u8; 32], Batch>,
    signed: BTreeMap<ClaimId, Signed>,
    asserted: BTreeMap<ClaimId, Vec<Vec<Vec<u8>>>>,
    /// Requests that wait for an answer.
    asked: BTreeSet<Asked>,
    #[serde(skip)]
    weak: OperatorWeak,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Asked {
    Publish([u8; 32]),
    Sign(ClaimId),
    Assert(ClaimId),
}

switches! {
    /// Remedies taken away, for the simulator's tests of itself.
    OperatorWeak {
        /// Challenges are not answered.
        silent,
        /// A claim that was sent once is not sent again.
        forget_reorgs,
        /// Requests are not repeated after a restart.
        forget_restarts,
        /// Acceptance is left for later, so that the time to answer a late challenge runs out.
        lazy,
        /// Claims do not wait for their data.
        claim_first,
        /// Signs whatever the shell says: how the simulator's liars get their lies on the chain.
        gullible,
    }
}

impl Operator {
    /// An operator that has seen nothing; the next block is the one after `tip`. `wallet`: the script of its fee coins.
    #[must_use]
    pub fn new(wallet: ScriptBuf, finality: u32, tip: Height, policy: FeePolicy) -> Self {
        Self {
            party: Party::new(wallet, finality, tip, policy),
            batches: BTreeMap::new(),
            signed: BTreeMap::new(),
            asserted: BTreeMap::new(),
            asked: BTreeSet::new(),
            weak: OperatorWeak::default(),
        }
    }

    /// Takes remedies away.
    #[cfg(feature = "simulate")]
    pub(crate) fn weaken(&mut self, weak: OperatorWeak) {
        self.weak = weak;
    }

    /// Batches that it keeps: proved, and no claim about them is settled.
    #[must_use]
    pub fn batches_waiting(&self) -> usize {
        self.batches.len()
    }

    #[cfg(feature = "simulate")]
    pub(crate) fn sender_mut(&mut self) -> &mut Sender {
        &mut self.party.sender
    }
}

impl Machine for Operator {
    const NAME: &'static str = "operator";

    fn step(&mut self, context: Context<'_>, event: &Event) -> Result<Vec<Effect>, StepError> {
        let mut effects = Vec::new();
        if let (Event::Disconnected(height), true) = (event, self.weak.forget_reorgs()) {
            self.party.view.disconnect_blindly(*height);
            return Ok(effects);
        }
        self.party.take(context, event, &mut effects)?;
        if let Event::Disconnected(_) | Event::Rewound(_) = event {
            // Another block follows; what to want is clear then.
            return Ok(effects);
        }
        self.learn(context, event, &mut effects);
        let wants = self.wants(context, &mut effects);
        let Self { party, signed, asserted, .. } = self;
        let draft = |_: &View, id: ContractTx| draft(context, signed, asserted, id).ok();
        party.finish(context, &wants, draft, &mut effects, event);
        Ok(effects)
    }

    fn set_terms(&mut self, finality: u32, policy: FeePolicy) -> Result<(), FinalityError> {
        self.party.set_terms(finality, policy)
    }

    fn view(&self) -> &View {
        &self.party.view
    }

    fn sender(&self) -> &Sender {
        &self.party.sender
    }
}

impl Operator {
    fn learn(&mut self, context: Context<'_>, event: &Event, effects: &mut Vec<Effect>) {
        match event {
            Event::BatchProved(values) => {
                let fresh = Batch { values: *values, on_chain: false };
                let known = self.batches.get(&values[PREV_ROOT]);
                let full = self.batches.len() >= BATCHES_MAX;
                let settled = self.settled(context).find(|settled| settled[PREV_ROOT] == values[PREV_ROOT]);
                if settled == Some(*values) {
                    // It needs nothing more.
                    return;
                }
                let other = known.map(|known| known.values).or(settled).is_some_and(|other| other != *values);
                if other {
                    effects.push(Effect::Alarm(Alarm::Batch(first_bytes(&values[PREV_ROOT]))));
                } else if known.is_none() {
                    if full && !self.is_next(context, &values[PREV_ROOT]) {
                        effects.push(Effect::Later(values[PREV_ROOT]));
                    } else {
                        self.batches.insert(values[PREV_ROOT], fresh);
                    }
                }
            }
            Event::Data { prev_root, on_chain } => {
                if let Some(batch) = self.batches.get_mut(prev_root) {
                    batch.on_chain = *on_chain;
                    if !on_chain {
                        self.asked.remove(&Asked::Publish(*prev_root));
                    }
                }
            }
            Event::Signed { claim, values, items } => {
                let asked = self.asked.remove(&Asked::Sign(*claim));
                let own = self.batches.get(&values[PREV_ROOT]).is_some_and(|batch| batch.values == *values);
                if asked && (own || self.weak.gullible()) {
                    let signed = Signed { values: *values, items: items.clone() };
                    self.signed.entry(*claim).or_insert(signed);
                }
            }
            Event::KeyUsed(claim) => effects.push(Effect::Alarm(Alarm::KeyUsed(*claim))),
            Event::Asserted { claim, slots } => {
                self.asked.remove(&Asked::Assert(*claim));
                let fits = context
                    .contract
                    .epoch(claim.epoch)
                    .is_some_and(|epoch| epoch.spec().layout.slots().len() == slots.len());
                if fits {
                    self.asserted.entry(*claim).or_insert_with(|| slots.clone());
                }
            }
            Event::Restarted if !self.weak.forget_restarts() => self.asked.clear(),
            Event::Connected(_) => self.forget_settled(context),
            _ => {}
        }
    }

    /// Values of this operator's claims, and of those of others that they build on, whose acceptance is final: what a reorganisation or a
    /// slash can void is not among them.
    fn settled<'a>(&'a self, context: Context<'a>) -> impl Iterator<Item = Values> + 'a {
        let view = &self.party.view;
        let mine = Self::mine(context);
        let before = mine.last().map(|(epoch, _)| ClaimId { epoch: *epoch, claim: 0 });
        let before = before.map_or_else(Vec::new, |first| lineage(context.contract, first));
        let claims = mine.into_iter().flat_map(|(epoch, known)| {
            (0..known.spec().terms.claims_max).map(move |claim| ClaimId { epoch, claim })
        });
        before.into_iter().chain(claims).filter_map(|claim| match view.standing(claim) {
            Standing::Accepted(height) if view.is_final(height) => view.values(claim),
            _ => None,
        })
    }

    /// Forgets batches whose claims are settled, so that there is room for those that come.
    fn forget_settled(&mut self, context: Context<'_>) {
        if self.batches.is_empty() {
            return;
        }
        let settled: BTreeMap<[u8; 32], Values> =
            self.settled(context).map(|values| (values[PREV_ROOT], values)).collect();
        let asked = &mut self.asked;
        self.batches.retain(|root, batch| {
            let done = settled.get(root) == Some(&batch.values);
            if done {
                asked.remove(&Asked::Publish(*root));
            }
            !done
        });
    }

    fn ask(&mut self, what: Asked, effect: impl FnOnce() -> Effect, effects: &mut Vec<Effect>) {
        if self.asked.insert(what) {
            effects.push(effect());
        }
    }

    /// The epochs of this operator.
    fn mine<'a>(context: Context<'a>) -> Vec<(EpochIndex, &'a Epoch)> {
        let key = context.keys.operator.x_only_public_key().0;
        context.contract.epochs().filter(|(_, epoch)| epoch.spec().terms.operator_key == key).collect()
    }

    fn wants(&mut self, context: Context<'_>, effects: &mut Vec<Effect>) -> Vec<Want> {
        let mut wants = Vec::new();
        let mine = Self::mine(context);
        // Data is paid for where a claim may follow.
        let has_epoch = |batch: &Batch| mine.iter().any(|(_, epoch)| is_proved_for(epoch, &batch.values));
        // A state made anew knows nothing of data that the shell has forgotten; without it there would be no claim. The claims are gone
        // through only where that can matter: this runs at every step.
        let is_all_there = self.batches.values().all(|batch| batch.on_chain);
        let claimed = if is_all_there { BTreeSet::new() } else { self.claimed(&mine) };
        let missing = |batch: &Batch| !batch.on_chain && !claimed.contains(&batch.values);
        let mut unpublished = Vec::new();
        for (root, batch) in self.batches.iter().filter(|(_, batch)| missing(batch)) {
            if has_epoch(batch) {
                unpublished.push(*root);
            } else if !mine.is_empty() {
                effects.push(Effect::Alarm(Alarm::Programs(first_bytes(root))));
            }
        }
        for (index, epoch) in mine {
            if self.party.view.slash(index).is_some() {
                effects.push(Effect::Alarm(Alarm::Slashed(index)));
            } else {
                self.forward(context, (index, epoch), &mut wants, effects);
            }
            self.collect(context, (index, epoch), &mut wants, effects);
        }
        for root in unpublished {
            self.ask(Asked::Publish(root), || Effect::Publish(root), effects);
        }
        wants
    }

    /// What this operator's claims in blocks say.
    fn claimed(&self, mine: &[(EpochIndex, &Epoch)]) -> BTreeSet<Values> {
        let claims = mine.iter().flat_map(|(epoch, known)| {
            (0..known.spec().terms.claims_max).map(|claim| ClaimId { epoch: *epoch, claim })
        });
        claims.filter_map(|claim| self.party.view.values(claim)).collect()
    }

    /// The state that a claim starts at.
    fn start(&self, context: Context<'_>, claim: ClaimId) -> Option<[u8; 32]> {
        match context.contract.origin(claim)? {
            Origin::State(state) => Some(state),
            Origin::Claim(before) => match self.signed.get(&before) {
                Some(signed) => Some(signed.values[NEW_ROOT]),
                None => Some(self.party.view.values(before)?[NEW_ROOT]),
            },
        }
    }

    /// The first claim of an epoch that is in no block.
    fn next(&self, epoch: EpochIndex, known: &Epoch) -> Option<ClaimId> {
        let made = |claim: &ClaimId| self.party.view.confirmed(claim.tx(TxRole::Claim)).is_some();
        (0..known.spec().terms.claims_max).map(|claim| ClaimId { epoch, claim }).find(|claim| !made(claim))
    }

    /// True if the next claim of an epoch starts at this state.
    fn is_next(&self, context: Context<'_>, root: &[u8; 32]) -> bool {
        let claims = Self::mine(context).into_iter().filter_map(|(index, epoch)| self.next(index, epoch));
        claims.map(|claim| self.start(context, claim)).any(|start| start.as_ref() == Some(root))
    }

    /// The opening of the epoch, or its next claim.
    fn forward(
        &mut self,
        context: Context<'_>,
        (index, epoch): (EpochIndex, &Epoch),
        wants: &mut Vec<Want>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(claim) = self.next(index, epoch) else { return };
        let batch = self.start(context, claim).and_then(|root| self.batches.get(&root));
        let Some(batch) = batch.filter(|batch| batch.on_chain || self.weak.claim_first()) else { return };
        let values = batch.values;
        if !is_proved_for(epoch, &values) {
            // No chain takes such a claim, and signing it would use up its one-time keys.
            effects.push(Effect::Alarm(Alarm::Programs(first_bytes(&values[PREV_ROOT]))));
            return;
        }
        let opening = ContractTx { epoch: index, role: TxRole::Reconfiguration };
        let view = &self.party.view;
        if claim.claim == 0 && view.ready(context.contract, opening) && view.confirmed(opening).is_none() {
            wants.push(Want { id: opening, deadline: None });
        }
        let id = claim.tx(TxRole::Claim);
        let known = self.signed.contains_key(&claim);
        let ready = match view.readiness(context.contract, id) {
            Readiness::Ready => true,
            Readiness::Until(_) => false,
            Readiness::Missing | Readiness::Spent => return,
        };
        if !known {
            self.ask(Asked::Sign(claim), || Effect::Sign(claim, values), effects);
        } else if ready {
            let timeout = epoch.spec().locks.claim_timeout_blocks;
            let since = view.confirmed(match claim.claim.checked_sub(1) {
                Some(before) => ContractTx { epoch: index, role: TxRole::Claim(before) },
                None => opening,
            });
            let deadline = since.map(|entry| entry.height.plus(u32::from(timeout)));
            wants.push(Want { id, deadline });
        }
    }

    /// Answers and acceptances of the claims made, and the collateral at the end.
    fn collect(
        &mut self,
        context: Context<'_>,
        (index, epoch): (EpochIndex, &Epoch),
        wants: &mut Vec<Want>,
        effects: &mut Vec<Effect>,
    ) {
        let locks = epoch.spec().locks;
        let slots = epoch.spec().layout.slots().len() as u16;
        for claim in 0..epoch.spec().terms.claims_max {
            let claim = ClaimId { epoch: index, claim };
            let view = &self.party.view;
            let Some(made) = view.confirmed(claim.tx(TxRole::Claim)) else { continue };
            let answer_until = made.height.plus(u32::from(locks.challenge_blocks + locks.assert_blocks));
            let accepted = claim.tx(TxRole::OptimisticAcceptance);
            let late = view.tip().plus(2) >= answer_until;
            if view.ready(context.contract, accepted) && (!self.weak.lazy() || late) {
                wants.push(Want { id: accepted, deadline: Some(answer_until) });
            }
            if self.weak.silent() {
                continue;
            }
            let challenged = view.confirmed(claim.tx(TxRole::Challenge)).is_some();
            let assert = claim.tx(TxRole::Assert);
            if challenged && view.ready(context.contract, assert) {
                wants.push(Want { id: assert, deadline: Some(answer_until) });
            }
            let opened = view.confirmed(assert).map(|entry| entry.height);
            let done = view.ready(context.contract, claim.tx(TxRole::Acceptance));
            if done {
                wants.push(Want { id: claim.tx(TxRole::Acceptance), deadline: None });
            }
            if challenged && !self.asserted.contains_key(&claim) {
                self.ask(Asked::Assert(claim), || Effect::Assert(claim), effects);
                continue;
            }
            let Some(opened) = opened else { continue };
            for slot in 0..slots {
                let id = claim.tx(|claim| TxRole::AssertSlot(claim, slot));
                if self.party.view.ready(context.contract, id) {
                    wants.push(Want { id, deadline: Some(opened.plus(u32::from(locks.assert_blocks))) });
                }
            }
        }
        let pay_out = ContractTx { epoch: index, role: TxRole::PayOut };
        if self.party.view.ready(context.contract, pay_out) {
            wants.push(Want { id: pay_out, deadline: None });
        }
    }
}

/// True if a batch was proved with the programs of an epoch.
fn is_proved_for(epoch: &Epoch, values: &Values) -> bool {
    values[CODE_ROOT] == epoch.spec().terms.params.code_root
}

fn first_bytes(root: &[u8; 32]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *root;
    [a, b, c, d, e, f, g, h]
}

/// A transaction of the operator, complete but for its fee.
fn draft(
    context: Context<'_>,
    signed: &BTreeMap<ClaimId, Signed>,
    asserted: &BTreeMap<ClaimId, Vec<Vec<Vec<u8>>>>,
    id: ContractTx,
) -> Result<Draft, ContractError> {
    let unknown = || ContractError::Unknown(id.role);
    let epoch = context.contract.epoch(id.epoch).ok_or_else(unknown)?;
    let claim = |claim| ClaimId { epoch: id.epoch, claim };
    let key = &context.keys.operator;
    let operated = |leaf, items: Vec<Vec<u8>>| epoch.complete_as_operator(id.role, Fill { leaf, items }, key);
    let tx = match id.role {
        TxRole::Reconfiguration => {
            let node = context.contract.node(id).ok_or_else(unknown)?;
            let parent = context.contract.by_txid(&node.tx.input[0].previous_output.txid);
            let handed_over = parent.is_some_and(|parent| matches!(parent.role, TxRole::ClaimTimeout(_)));
            epoch.opening(key, (!handed_over).then_some(key))?
        }
        TxRole::Claim(number) => {
            let items = signed.get(&claim(number)).ok_or_else(unknown)?.items.clone();
            operated(leaf::CLAIM, items)?
        }
        TxRole::Assert(_) => operated(leaf::ASSERT, Vec::new())?,
        TxRole::AssertSlot(number, slot) => {
            let slots = asserted.get(&claim(number)).ok_or_else(unknown)?;
            operated(leaf::SLOT, slots.get(usize::from(slot)).ok_or_else(unknown)?.clone())?
        }
        role => collected(epoch, role)?,
    };
    Ok(Draft::Anchored(Arc::new(tx)))
}

/// The transactions that anybody can complete and that cost nobody anything: acceptances, pay-out, timeout of a trunk.
pub(crate) fn collected(epoch: &Epoch, role: TxRole) -> Result<bitcoin::Transaction, ContractError> {
    let fills = match role {
        TxRole::OptimisticAcceptance(_) => vec![Fill::bare(leaf::UNCHALLENGED), Fill::bare(leaf::OPTIMISTIC)],
        TxRole::Acceptance(_) => vec![Fill::bare(leaf::ACCEPT); epoch.spec().layout.slots().len() + 1],
        TxRole::PayOut => vec![Fill::bare(leaf::PAY_OUT)],
        TxRole::ClaimTimeout(_) => vec![Fill::bare(leaf::CLAIM_TIMEOUT)],
        role => return Err(ContractError::Unknown(role)),
    };
    epoch.complete(role, &fills)
}
