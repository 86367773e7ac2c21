//! When a run is over, and what must hold then.

use assay_l1::graph::contract::build::TxRole;
use bitcoin::Amount;

use super::fixture::{Fixture, BACKUP, BACKUP_WATCH, CLAIMS, LOCKS, OPERATOR, TO_SINK};
use super::options::Attack;
use super::shell::{Actor, Machine};
use super::world::World;
use crate::event::{Alarm, Fault};
use crate::types::{ClaimId, ContractTx, EpochIndex};
use crate::view::{slashed_claim, Standing, View};

/// Those who only watch.
const WATCHERS: [usize; 3] = [1, 2, BACKUP_WATCH];

impl World {
    fn view(&self) -> &View {
        self.actors[BACKUP_WATCH].view()
    }

    fn paid_out(&self, epoch: EpochIndex) -> bool {
        self.view().finalised(ContractTx { epoch, role: TxRole::PayOut }).is_some()
    }

    /// True once nothing is left to wait for.
    pub(crate) fn settled(&self) -> bool {
        if self.options.attack.honest() || self.options.attack.unpunished() {
            return self.paid_out(EpochIndex(0)) && self.paid_out(EpochIndex(1));
        }
        let taken = self.handed_over.values().next();
        taken.is_some_and(|(_, next)| self.paid_out(*next))
    }

    /// For the message of a run that does not come to an end.
    pub(crate) fn open_ends(&self) -> String {
        let view = self.view();
        let claims = self.contract.epochs().flat_map(|(epoch, _)| {
            (0..CLAIMS).map(move |claim| {
                let id = ClaimId { epoch, claim };
                format!("{}/{claim} {:?}", epoch.0, view.standing(id))
            })
        });
        let claims: Vec<String> = claims.collect();
        let halts: Vec<_> =
            self.contract.epochs().map(|(epoch, _)| view.halt(&self.contract, epoch)).collect();
        let pool: Vec<String> = self
            .pool
            .entries()
            .map(|entry| match self.contract.identify(&entry.tx).first() {
                Some(id) => format!("{id} of {}", entry.owner),
                None => format!("{} sat of {}", entry.fee.to_sat(), entry.owner),
            })
            .collect();
        format!("claims {claims:?}, halts {halts:?}, handed over {:?}, mempool {pool:?}", self.handed_over)
    }

    /// What must hold in the end.
    pub(crate) fn judge(&self) -> Result<(), String> {
        for epoch in [EpochIndex(0), EpochIndex(1)] {
            self.judge_slash(epoch)?;
            self.judge_claims(epoch)?;
        }
        // A challenge after the period finds the claim accepted, unless something is wrong.
        let moot = self.options.grief_after >= u32::from(LOCKS.challenge_blocks);
        if self.options.attack.has_to_be_seen() && !self.struck && !moot {
            return Err("the attack did not take place".to_owned());
        }
        match self.options.attack {
            attack if attack.honest() || attack.unpunished() => self.judge_honest()?,
            attack => self.judge_taken_over(attack)?,
        }
        if self.options.attack.withholds() {
            self.judge_unknown_starts()?;
        }
        self.judge_watchers()
    }

    /// Whoever is honest is never slashed, not even on a branch that a reorganisation takes away.
    pub(crate) fn judge_slash(&self, epoch: EpochIndex) -> Result<(), String> {
        match self.view().slash(epoch) {
            Some((role, height)) if self.options.attack.honest() => {
                Err(format!("the honest operator was slashed by {role} at height {height}"))
            }
            _ => Ok(()),
        }
    }

    /// The chain of accepted claims is unbroken and right, as far as the chain and the verifier can tell.
    pub(crate) fn judge_claims(&self, epoch: EpochIndex) -> Result<(), String> {
        let view = self.view();
        for claim in 0..CLAIMS {
            let id = ClaimId { epoch, claim };
            let lie = id == self.target() && self.options.attack.slashed();
            let standing = view.standing(id);
            if lie && matches!(standing, Standing::Accepted(height) if view.is_final(height)) {
                return Err(format!("the wrong {id} was accepted"));
            }
            if let (Standing::Accepted(_), Some(values)) = (standing, view.values(id)) {
                let batch = epoch.0 * CLAIMS + claim;
                let before_lie = batch < self.options.at || self.options.attack.honest();
                if before_lie && values != super::fixture::honest(batch) {
                    return Err(format!("{id} was accepted with other values than its batch's"));
                }
            }
        }
        Ok(())
    }

    /// The operator has everything back that it put in, but for the connector that the trunk ends with.
    fn judge_honest(&self) -> Result<(), String> {
        let view = self.view();
        for epoch in [EpochIndex(0), EpochIndex(1)] {
            for claim in 0..CLAIMS {
                let id = ClaimId { epoch, claim };
                if !matches!(view.standing(id), Standing::Accepted(_)) {
                    return Err(format!("{id} is {:?}", view.standing(id)));
                }
            }
        }
        if let Machine::Operator(operator) = &self.actors[OPERATOR].machine {
            let waiting = operator.batches_waiting();
            if waiting != 0 {
                return Err(format!("the operator keeps {waiting} batches whose claims are settled"));
            }
        }
        let funded: Amount = self.fixture.funding.output[..2].iter().map(|output| output.value).sum();
        let has = self.chain.balance(&Fixture::operator_script(OPERATOR));
        if has + Amount::from_sat(330) < funded {
            return Err(format!("the operator put {funded} in and has {has}"));
        }
        Ok(())
    }

    /// The trunk went on with the backup, from the last claim that counts.
    fn judge_taken_over(&self, attack: Attack) -> Result<(), String> {
        let view = self.view();
        let target = self.target();
        let Some((first_void, next)) = self.handed_over.values().next() else {
            return Err("nobody took over".to_owned());
        };
        let slash = view.slash(target.epoch).and_then(|(role, _)| slashed_claim(role));
        if attack.slashed() && slash != Some(target.claim) {
            return Err(format!("slashed for claim {slash:?}, the lie is {target}"));
        }
        if !attack.slashed() && slash.is_some() {
            return Err(format!("slashed for claim {slash:?}, for nothing"));
        }
        if attack.slashed() && self.chain.balance(&Fixture::sink()) < TO_SINK {
            return Err("the sink did not get its part".to_owned());
        }
        let counted = first_void.epoch.0 * CLAIMS + first_void.claim;
        if counted != self.options.at {
            return Err(format!(
                "the trunk went on after batch {counted}, the attack was at {}",
                self.options.at
            ));
        }
        for claim in 0..CLAIMS {
            let id = ClaimId { epoch: *next, claim };
            let right = view.values(id) == Some(super::fixture::honest(counted + claim));
            if !right || !matches!(view.standing(id), Standing::Accepted(_)) {
                return Err(format!("the backup's {id} is {:?}", view.standing(id)));
            }
        }
        let collateral = self.contract.epoch(*next).map(|epoch| epoch.spec().terms.collateral);
        let has = self.chain.balance(&Fixture::operator_script(BACKUP));
        if Some(has) < collateral {
            return Err(format!("the backup has {has} left"));
        }
        Ok(())
    }

    /// Who watched has not lost by it, if somebody was slashed; and has raised the alarm in any case.
    fn judge_watchers(&self) -> Result<(), String> {
        let attack = self.options.attack;
        let start = |party: usize| -> Amount {
            let outputs = self.fixture.funding.output.iter();
            outputs
                .filter(|output| output.script_pubkey == Fixture::wallet(party))
                .map(|output| output.value)
                .sum()
        };
        let before: Amount = WATCHERS.into_iter().map(start).sum();
        let after: Amount =
            WATCHERS.into_iter().map(|party| self.chain.balance(&Fixture::wallet(party))).sum();
        if attack.slashed() && after < before {
            return Err(format!("who watched had {before} and has {after}"));
        }
        let budget = |actor: &Actor| actor.machine.sender().committed();
        let spent: Amount = WATCHERS.into_iter().map(|party| budget(&self.actors[party])).sum();
        if after + spent < before {
            return Err(format!("who watched had {before}, has {after} and has spent {spent}"));
        }
        let faulty = |alarm: &Alarm| matches!(alarm, Alarm::Faulty(claim, _) if *claim == self.target());
        let wrong = attack.slashed() || attack.unpunished();
        for party in WATCHERS {
            let alarmed = self.alarms.get(&party).is_some_and(|alarms| alarms.iter().any(faulty));
            if wrong != alarmed {
                return Err(format!("alarm of {}: {alarmed}", self.actors[party].name));
            }
        }
        let challenged = self.view().confirmed(self.target().tx(TxRole::Challenge)).is_some();
        if attack.unpunished() && !challenged {
            return Err("a wrong claim was not challenged".to_owned());
        }
        let taken_over = |alarm: &&Alarm| match alarm {
            Alarm::Faulty(claim, _) => self.handed_over.values().any(|(_, epoch)| *epoch == claim.epoch),
            _ => false,
        };
        let wrong = WATCHERS.iter().find_map(|party| self.alarms.get(party)?.iter().find(taken_over));
        wrong.map_or(Ok(()), |alarm| Err(format!("who took over is right, but {alarm:?}")))
    }

    /// The claims after one whose data is withheld: challenged as long as nobody can know where they start, and left alone afterwards.
    fn judge_unknown_starts(&self) -> Result<(), String> {
        let view = self.view();
        let data = self.data_height(&super::fixture::batch_hash(self.options.at));
        let slashed = view.slash(self.target().epoch).map(|(_, height)| height);
        let mut challenged = 0;
        for batch in self.options.at + 1..2 * CLAIMS {
            let claim = ClaimId { epoch: EpochIndex(batch / CLAIMS), claim: batch % CLAIMS };
            let Some(made) = view.confirmed(claim.tx(TxRole::Claim)).map(|entry| entry.height) else {
                continue;
            };
            let until = made.plus(u32::from(LOCKS.challenge_blocks));
            let is_challenged = view.confirmed(claim.tx(TxRole::Challenge)).is_some();
            let alarm = Alarm::Faulty(claim, Fault::UnknownStart);
            let alarmed =
                |party: &usize| self.alarms.get(party).is_some_and(|alarms| alarms.contains(&alarm));
            if data.into_iter().chain(slashed).all(|height| height > until) {
                if !is_challenged || !WATCHERS.iter().all(alarmed) {
                    return Err(format!(
                        "{claim} starts at a state that nobody knows and was not challenged"
                    ));
                }
                challenged += 1;
            }
            if data.is_some_and(|data| data <= made) && (is_challenged || WATCHERS.iter().any(alarmed)) {
                return Err(format!("{claim} starts at a state that is known and was challenged"));
            }
        }
        let some = self.options.attack == Attack::Withheld && self.options.data_after.is_none();
        if some && challenged != 2 * CLAIMS - 1 - self.options.at {
            return Err(format!("{challenged} claims followed the one whose data is withheld"));
        }
        Ok(())
    }
}
