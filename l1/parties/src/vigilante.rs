//! The vigilante: looks into every claim, challenges and disproves what is wrong, ends what stopped. The backup operator: the same,
//! and takes a stopped trunk over.
//!
//! What the claim's witness shows is judged here (digest, link, code root); everything else is a verdict of the shell
//! ([`Effect::Check`]). A fault that the chain can judge is disproved at once; for the others the claim is challenged, an
//! alarm is raised, and the assertion is searched for a wrong step ([`Verifier::wrong_step`](crate::contract::Verifier)).
//!
//! Several vigilantes do not hurt each other: the same transaction of two senders is mined once, and whoever comes second
//! sees that in the next block.

#[cfg(test)]
mod tests;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_l1::graph::connector::CONNECTOR_VALUE;
use assay_l1::graph::contract::build::{leaf, TxRole};
use bitcoin::{Amount, ScriptBuf};
use serde::{Deserialize, Serialize};

use crate::contract::{ContractError, Epoch, Fill, Origin};
use crate::event::{Alarm, Effect, Event, Fault};
use crate::evidence::{read_slot, SignedValue};
use crate::fees::FeePolicy;
use crate::operator::collected;
use crate::party::{Context, FinalityError, Machine, Party, StepError};
use crate::sender::{Draft, Sender, Want};
use crate::types::{ClaimId, ContractTx, EpochIndex, Height, NEW_ROOT, PREV_ROOT};
use crate::view::{lineage, Standing, View};
use verdicts::Verdicts;
pub(crate) use verdicts::DATA_PATIENCE_BLOCKS;

/// A vigilante's or backup operator's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vigilante {
    party: Party,
    /// True for a backup operator.
    backup: bool,
    verdicts: Verdicts,
    /// Hand-overs asked for: the claim that never came, the first that does not count.
    handovers: BTreeSet<(ClaimId, ClaimId)>,
    #[serde(skip)]
    weak: VigilanteWeak,
}

switches! {
    /// Remedies taken away, for the simulator's tests of itself.
    VigilanteWeak {
        /// Digests are not computed.
        no_digest,
        /// Links are not followed.
        no_link,
        /// Verdicts of the shell are not asked for.
        no_check,
        /// Nobody is slashed for not answering.
        no_timeout,
        /// A trunk that stopped is left as it is.
        no_halt,
        /// A verdict is kept although the claim came back with other values.
        stale_verdict,
        /// Claims that start at a state that nobody knows are left undecided.
        no_start,
        /// Does not take over.
        no_handover,
        /// Takes every claim for wrong, and slashes whatever consensus allows: how the simulator's griefers are made.
        paranoid,
    }
}

impl Vigilante {
    /// A vigilante that has seen nothing; the next block is the one after `tip`.
    #[must_use]
    pub fn new(wallet: ScriptBuf, finality: u32, tip: Height, policy: FeePolicy) -> Self {
        Self {
            party: Party::new(wallet, finality, tip, policy),
            backup: false,
            verdicts: Verdicts::default(),
            handovers: BTreeSet::new(),
            weak: VigilanteWeak::default(),
        }
    }

    /// The same as a backup operator: when the trunk stops it collects what the last operator left open, asks for a hand-over
    /// ([`Effect::HandOver`]) and leaves the rest to an [`Operator`](crate::Operator) with the same operator's key and a wallet
    /// of its own, whose epoch that is.
    #[must_use]
    pub fn backup(wallet: ScriptBuf, finality: u32, tip: Height, policy: FeePolicy) -> Self {
        Self { backup: true, ..Self::new(wallet, finality, tip, policy) }
    }

    /// Takes remedies away.
    #[cfg(feature = "simulate")]
    pub(crate) fn weaken(&mut self, weak: VigilanteWeak) {
        self.weak = weak;
        self.verdicts.weaken(weak);
    }

    #[cfg(feature = "simulate")]
    pub(crate) fn sender_mut(&mut self) -> &mut Sender {
        &mut self.party.sender
    }
}

impl Machine for Vigilante {
    const NAME: &'static str = "vigilante";

    fn step(&mut self, context: Context<'_>, event: &Event) -> Result<Vec<Effect>, StepError> {
        let mut effects = Vec::new();
        self.party.take(context, event, &mut effects)?;
        if let Event::Disconnected(height) = event {
            self.verdicts.doubt(&self.party.view, *height);
        }
        if let Event::Disconnected(_) | Event::Rewound(_) = event {
            // Another block follows; what to want is clear then.
            return Ok(effects);
        }
        match event {
            Event::Verdict { claim, values, faults } => {
                self.verdicts.take(&self.party.view, (*claim, values), faults);
            }
            Event::Restarted => {
                self.verdicts.ask_again();
                self.handovers.clear();
            }
            _ => {}
        }
        let plan = self.plan(context, &mut effects);
        let wants: Vec<Want> = plan.iter().map(|(want, _)| *want).collect();
        let plan: BTreeMap<ContractTx, Plan> = plan.into_iter().map(|(want, plan)| (want.id, plan)).collect();
        let draft = |view: &View, id: ContractTx| draft(context, view, id, plan.get(&id)?).ok();
        self.party.finish(context, &wants, draft, &mut effects, event);
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

impl Vigilante {
    fn plan(&mut self, context: Context<'_>, effects: &mut Vec<Effect>) -> Plans {
        let mut plan = Vec::new();
        let lost = if self.weak.no_start() {
            BTreeSet::new()
        } else {
            self.verdicts.lost(context.contract, &self.party.view)
        };
        for (index, epoch) in context.contract.epochs() {
            let mut slashes = Vec::new();
            for claim in 0..epoch.spec().terms.claims_max {
                let claim = ClaimId { epoch: index, claim };
                if self.party.view.confirmed(claim.tx(TxRole::Claim)).is_some() {
                    let judged = self.judge(context, claim, &lost, effects);
                    self.look(context, epoch, (claim, judged), (&mut plan, &mut slashes), effects);
                }
            }
            // They all spend the one collateral; the earliest claim's is the one that tells readers where to go on.
            let first = slashes.into_iter().min_by_key(|(want, _)| crate::view::slashed_claim(want.id.role));
            match self.party.view.slash(index) {
                Some(_) => effects.push(Effect::Alarm(Alarm::Slashed(index))),
                None => plan.extend(first),
            }
            self.end(context, (index, epoch), &lost, &mut plan, effects);
        }
        plan
    }

    /// What is wrong with a claim, as far as is known; `None` while the shell looks into it. `lost`: [`Verdicts::lost`].
    fn judge(
        &mut self,
        context: Context<'_>,
        claim: ClaimId,
        lost: &BTreeSet<ClaimId>,
        effects: &mut Vec<Effect>,
    ) -> Option<Vec<Fault>> {
        if self.weak.paranoid() {
            return Some(vec![Fault::Proof]);
        }
        let view = &self.party.view;
        let values = view.values(claim)?;
        let mut faults = view.own_faults(context.contract, claim)?;
        faults.retain(|fault| match fault {
            Fault::Digest => !self.weak.no_digest(),
            Fault::Link => !self.weak.no_link(),
            _ => true,
        });
        if !self.weak.no_check() && self.verdicts.ask(claim, values) {
            effects.push(Effect::Check(claim, values));
        }
        match self.verdicts.known(context.contract, &self.party.view, claim) {
            Some(known) => faults.extend(known),
            None if self.weak.no_check() => {}
            // Whatever there is else is enough to act on.
            None if faults.is_empty() && lost.contains(&claim) => faults.push(Fault::UnknownStart),
            None if faults.is_empty() => return None,
            None => {}
        }
        Some(faults)
    }

    /// One claim that was made, and what is wrong with it.
    fn look(
        &self,
        context: Context<'_>,
        epoch: &Epoch,
        (claim, judged): (ClaimId, Option<Vec<Fault>>),
        (plan, slashes): (&mut Plans, &mut Plans),
        effects: &mut Vec<Effect>,
    ) {
        let view = &self.party.view;
        let Some(until) = view.challenge_until(context.contract, claim) else { return };
        let half = view.is_nearly_over(context.contract, claim, 2);
        let want = |id| Want { id, deadline: Some(until) };
        let ready = |id| view.ready(context.contract, id);
        self.timeouts(context, epoch, claim, slashes);
        let open = view.standing(claim) == Standing::Open;
        let Some(faults) = judged else {
            if open && view.is_nearly_over(context.contract, claim, 4) {
                effects.push(Effect::Alarm(Alarm::Undecided(claim)));
            }
            return;
        };
        // Until then the claim that is to blame may be slashed, or its data appear.
        if faults == [Fault::UnknownStart] && !half {
            return;
        }
        effects.extend(faults.iter().map(|fault| Effect::Alarm(Alarm::Faulty(claim, *fault))));
        if faults.is_empty() {
            return;
        }
        if matches!(view.standing(claim), Standing::Accepted(_)) {
            effects.push(Effect::Alarm(Alarm::Accepted(claim)));
        }
        let judged_by_chain = faults.iter().copied().find(|fault| fault.on_chain());
        let slashed = view.slash(claim.epoch).is_some();
        match judged_by_chain.filter(|_| !slashed) {
            Some(fault) => {
                let offset = usize::from(fault == Fault::Link);
                let places = [
                    (claim.tx(TxRole::DisproveInput), leaf::GAME_DISPROOFS),
                    (claim.tx(TxRole::Disprove), leaf::DISPUTE_DISPROOFS),
                ];
                for (id, first) in places.into_iter().filter(|(id, _)| ready(*id)) {
                    let items = evidence(context, view, claim, fault);
                    slashes.push((want(id), Plan::Slash(first + offset, items)));
                }
                // A disproof is large and may wait for lower fees; a challenge is small and keeps the claim open.
                if half && ready(claim.tx(TxRole::Challenge)) {
                    plan.push((want(claim.tx(TxRole::Challenge)), Plan::Challenge));
                }
            }
            None => {
                if ready(claim.tx(TxRole::Challenge)) {
                    plan.push((want(claim.tx(TxRole::Challenge)), Plan::Challenge));
                }
                if let Some(step) =
                    ready(claim.tx(TxRole::Disprove)).then(|| wrong_step(view, epoch, claim)).flatten()
                {
                    slashes.push((want(claim.tx(TxRole::Disprove)), step));
                }
            }
        }
    }

    /// Slashes of an operator that does not answer in time.
    fn timeouts(&self, context: Context<'_>, epoch: &Epoch, claim: ClaimId, slashes: &mut Plans) {
        if self.weak.no_timeout() {
            return;
        }
        let view = &self.party.view;
        let ready = |id| view.ready(context.contract, id);
        // A late answer still counts if it comes before the slash: there is no time to lose.
        let want = |id| Want { id, deadline: Some(view.tip()) };
        // Whoever does not answer is slashed, whoever challenged. Unchallenged claims have nothing to answer.
        let challenged = view.confirmed(claim.tx(TxRole::Challenge)).is_some();
        let late = claim.tx(TxRole::AssertTimeout);
        if (challenged || self.weak.paranoid()) && ready(late) {
            slashes.push((want(late), Plan::Slash(leaf::ASSERT_TIMEOUT, Vec::new())));
        }
        for slot in 0..epoch.spec().layout.slots().len() as u16 {
            let late = claim.tx(|claim| TxRole::SlotTimeout(claim, slot));
            if ready(late) {
                slashes.push((want(late), Plan::Slash(leaf::SLOT_TIMEOUT, Vec::new())));
            }
        }
    }

    /// A trunk that stopped, and what a backup operator does then.
    fn end(
        &mut self,
        context: Context<'_>,
        (index, epoch): (EpochIndex, &Epoch),
        lost: &BTreeSet<ClaimId>,
        plan: &mut Plans,
        effects: &mut Vec<Effect>,
    ) {
        let claims = epoch.spec().terms.claims_max;
        let view = &self.party.view;
        for claim in 0..=claims {
            let id = ContractTx { epoch: index, role: TxRole::ClaimTimeout(claim) };
            if view.ready(context.contract, id) && !self.weak.no_halt() {
                plan.push((Want { id, deadline: None }, Plan::Collect));
            }
        }
        let Some((ended, _)) = view.halt(context.contract, index) else { return };
        effects.push(Effect::Alarm(Alarm::Halted(index)));
        if !self.backup {
            return;
        }
        let end = ClaimId { epoch: index, claim: ended };
        // Whoever stopped will not come back for these, and the next epoch waits for them.
        for claim in lineage(context.contract, end) {
            let roles = [claim.tx(TxRole::OptimisticAcceptance), claim.tx(TxRole::Acceptance)];
            let due = roles.into_iter().filter(|id| self.party.view.ready(context.contract, *id));
            let due: Vec<ContractTx> = due.collect();
            let made = self.party.view.values(claim).is_some();
            if made
                && !due.is_empty()
                && self.judge(context, claim, lost, effects).is_some_and(|bad| bad.is_empty())
            {
                plan.extend(due.into_iter().map(|id| (Want { id, deadline: None }, Plan::Collect)));
            }
        }
        let view = &self.party.view;
        let Some(first_void) = view.first_void(context.contract, index) else { return };
        let done = self.weak.no_handover() || taken_over(context, view, end, first_void);
        if !done && self.handovers.insert((end, first_void)) {
            effects.push(Effect::HandOver { epoch: index, claim: ended, first_void });
        }
    }
}

/// True if there is an epoch of one's own on this end, or somebody's is open.
fn taken_over(context: Context<'_>, view: &View, end: ClaimId, first_void: ClaimId) -> bool {
    let halt = context.contract.node(end.tx(TxRole::ClaimTimeout));
    let Some(halt) = halt.map(|node| node.tx.compute_txid()) else { return true };
    let key = context.keys.operator.x_only_public_key().0;
    let origin = context.contract.origin(first_void);
    context.contract.epochs().any(|(later, epoch)| {
        let opening = ContractTx { epoch: later, role: TxRole::Reconfiguration };
        let follows =
            context.contract.node(opening).is_some_and(|node| node.tx.input[0].previous_output.txid == halt);
        let own = epoch.spec().terms.operator_key == key && Some(epoch.origin()) == origin;
        follows && (own || view.confirmed(opening).is_some())
    })
}

/// How a wanted transaction is completed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plan {
    /// With a coin of one's own.
    Challenge,
    /// With this leaf of the proving input, and items.
    Slash(usize, Vec<Vec<u8>>),
    /// With the attesters' signatures.
    Collect,
}

/// What is wanted, and how it is completed.
type Plans = Vec<(Want, Plan)>;

/// The items that disprove a claim's values.
fn evidence(context: Context<'_>, view: &View, claim: ClaimId, fault: Fault) -> Vec<Vec<u8>> {
    let Some(signed) = view.claim(claim) else { return Vec::new() };
    if fault != Fault::Link {
        return signed.items(&[0, 1, 2, 3, 4]);
    }
    let before = match context.contract.origin(claim) {
        Some(Origin::Claim(before)) => view.claim(before),
        _ => None,
    };
    // The first value's items, this claim's, are on top.
    let mut items = before.map_or_else(Vec::new, |before| before.items(&[NEW_ROOT]));
    items.extend(signed.items(&[PREV_ROOT]));
    items
}

/// The verifier's leaf against a whole assertion.
fn wrong_step(view: &View, epoch: &Epoch, claim: ClaimId) -> Option<Plan> {
    let keys = epoch.keys().0.get(claim.claim as usize)?;
    let (mut words, mut hashes): (Vec<SignedValue>, Vec<SignedValue>) = (Vec::new(), Vec::new());
    for (number, slot) in epoch.spec().layout.slots().iter().enumerate() {
        let entry = view.confirmed(claim.tx(|claim| TxRole::AssertSlot(claim, number as u16)))?;
        let sizes: Vec<_> =
            assay_l1::graph::contract::scripts::slot_keys(keys, slot).iter().map(|key| key.size()).collect();
        let values = read_slot(entry.witness.as_ref()?, &sizes)?;
        let mut values = values.into_iter();
        words.extend(values.by_ref().take(slot.words.len()));
        hashes.extend(values);
    }
    words.extend(hashes);
    let (index, items) = epoch.verifier().wrong_step(&words)?;
    Some(Plan::Slash(epoch.first_verifier_leaf(claim.claim) + index, items))
}

fn draft(context: Context<'_>, _: &View, id: ContractTx, plan: &Plan) -> Result<Draft, ContractError> {
    let unknown = || ContractError::Unknown(id.role);
    let epoch = context.contract.epoch(id.epoch).ok_or_else(unknown)?;
    let node = context.contract.node(id).ok_or_else(unknown)?;
    match plan {
        Plan::Collect => Ok(Draft::Anchored(Arc::new(collected(epoch, id.role)?))),
        Plan::Challenge => {
            let tx = epoch.complete(id.role, &[Fill::bare(leaf::CHALLENGE)])?;
            let deposit = epoch.spec().challenge_deposit;
            let deposit = deposit.checked_sub(CONNECTOR_VALUE).unwrap_or(Amount::ZERO);
            let spent = node.spent().into_iter().next().ok_or_else(unknown)?;
            Ok(Draft::Challenge { tx: Arc::new(tx), spent, deposit })
        }
        Plan::Slash(leaf, items) => {
            let proof = Fill { leaf: *leaf, items: items.clone() };
            let tx = epoch.complete(id.role, &[Fill::bare(leaf::SLASH), proof])?;
            let into: Amount = node.spent().iter().map(|output| output.value).sum();
            let out: Amount = tx.output.iter().map(|output| output.value).sum();
            let reward = into.checked_sub(out).unwrap_or(Amount::ZERO);
            Ok(Draft::Slash { tx: Arc::new(tx), reward })
        }
    }
}
