//! What the shell has found out about claims, and when it has to look again.

use std::collections::{BTreeMap, BTreeSet};

use assay_l1::graph::contract::build::TxRole;
use serde::{Deserialize, Serialize};

use super::VigilanteWeak;
use crate::contract::{Contract, Origin};
use crate::event::Fault;
use crate::types::{ClaimId, Height, Values};
use crate::view::{Standing, View};

/// Blocks after a claim's that are waited before its data counts as missing: a reorganisation may put it behind its claim.
pub(crate) const DATA_PATIENCE_BLOCKS: u32 = 4;

/// What was found out about a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Verdict {
    values: Values,
    /// The claim's block.
    made: Height,
    faults: Vec<Fault>,
    /// A block on which it may depend has left the chain.
    is_stale: bool,
}

/// All verdicts, and the questions that are open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Verdicts {
    found: BTreeMap<ClaimId, Verdict>,
    /// Claims that the shell is looking into, with the values.
    asked: BTreeMap<ClaimId, Values>,
    #[serde(skip)]
    weak: VigilanteWeak,
}

impl Verdicts {
    #[cfg(feature = "simulate")]
    pub(super) fn weaken(&mut self, weak: VigilanteWeak) {
        self.weak = weak;
    }

    /// The shell has forgotten what it was asked.
    pub(super) fn ask_again(&mut self) {
        self.asked.clear();
    }

    /// True if the shell is to look into a claim.
    pub(super) fn ask(&mut self, claim: ClaimId, values: Values) -> bool {
        let found = self.found.get(&claim);
        let is_known = found
            .is_some_and(|found| self.weak.stale_verdict() || (found.values == values && !found.is_stale));
        !is_known && self.asked.insert(claim, values) != Some(values)
    }

    /// Takes an answer of the shell, if it was asked for.
    pub(super) fn take(&mut self, view: &View, (claim, values): (ClaimId, &Values), faults: &[Fault]) {
        let Some(made) = view.confirmed(claim.tx(TxRole::Claim)).map(|made| made.height) else { return };
        if self.asked.get(&claim) == Some(values) {
            self.asked.remove(&claim);
            let verdict = Verdict { values: *values, made, faults: faults.to_vec(), is_stale: false };
            self.found.insert(claim, verdict);
        }
    }

    /// The block at this height has left the chain, `view` is without it: what may depend on it is asked again. That is a claim in it,
    /// and data up to where it counts; forced transactions that are due are in blocks before the claim's.
    pub(super) fn doubt(&mut self, view: &View, height: Height) {
        if self.weak.stale_verdict() {
            return;
        }
        let made = |claim: &ClaimId| view.confirmed(claim.tx(TxRole::Claim)).map(|made| made.height);
        for (claim, verdict) in &mut self.found {
            verdict.is_stale |= made(claim).is_none_or(|made| made.plus(DATA_PATIENCE_BLOCKS) >= height);
        }
        // The shell does not go on looking for a claim that is gone.
        self.asked.retain(|claim, _| made(claim).is_some());
    }

    /// What is wrong with a claim; `None` if that is not known. A fault that is looked into again still counts if the claim is in the
    /// block where it was, and, lest the new answer comes too late, from half of the period to challenge on.
    pub(super) fn known(&self, contract: &Contract, view: &View, claim: ClaimId) -> Option<&[Fault]> {
        let made = view.confirmed(claim.tx(TxRole::Claim))?;
        let found = self.found.get(&claim)?;
        if self.weak.stale_verdict() {
            return Some(&found.faults);
        }
        let is_in_force = || {
            !found.faults.is_empty() && (found.made == made.height || view.is_nearly_over(contract, claim, 2))
        };
        let holds = made.values == Some(found.values) && (!found.is_stale || is_in_force());
        holds.then_some(&found.faults)
    }

    /// Claims of which nothing is known because a claim before them, which still counts, has left a state that nobody can know. Not
    /// those from a hand-over on: the attesters have signed that the trunk goes on there.
    pub(super) fn lost(&self, contract: &Contract, view: &View) -> BTreeSet<ClaimId> {
        let (mut lost, mut hidden) = (BTreeSet::new(), BTreeSet::new());
        for (index, epoch) in contract.epochs() {
            for claim in 0..epoch.spec().terms.claims_max {
                let claim = ClaimId { epoch: index, claim };
                if view.values(claim).is_none() {
                    continue;
                }
                let handed_over = claim.claim == 0 && contract.is_handover(index);
                // What comes after a claim that was slashed does not count itself.
                let starts_hidden = !handed_over
                    && matches!(contract.origin(claim), Some(Origin::Claim(before))
                        if hidden.contains(&before) && !matches!(view.standing(before), Standing::Void(_)));
                let known = self.known(contract, view, claim);
                let ends_hidden = match known {
                    // Without a proof it was found wrong, perhaps without being executed.
                    Some([Fault::Proof]) => starts_hidden,
                    Some(faults) => faults.iter().any(|fault| fault.hides_state()),
                    None => starts_hidden,
                };
                hidden.extend(ends_hidden.then_some(claim));
                lost.extend((starts_hidden && known.is_none()).then_some(claim));
            }
        }
        lost
    }
}
