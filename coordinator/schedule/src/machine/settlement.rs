//! Proved batches are settled, one after the other in each rollup.

use super::results::shorten;
use super::Machine;
use crate::batch::Failure;
use crate::mark::mark;
use crate::{Action, BatchId, EffectId, Error, Phase, Work};

impl Machine {
    /// Settles a proved batch, if the one before it is settled and its wait is over.
    pub(super) fn settle_next(&mut self, id: BatchId) {
        let batch = self.batch(id);
        let (chain, sequence) = (batch.spec.chain, batch.spec.sequence);
        let is_next = self.chains[&chain].settled == sequence;
        if batch.phase != Phase::Proved || !is_next || batch.settle_at > self.now {
            return;
        }
        let Some(proof) = batch.proof() else { return };
        self.batch_mut(id).settle_tries += 1;
        self.enter(id, Phase::Settling);
        let effect = self.issue(id, Action::Work(Work::Settle { chain, sequence, proof }));
        self.batch_mut(id).own = Some(effect);
    }

    /// Has the coordinator check a batch's proof against its statement.
    pub(super) fn check_proof(&mut self, id: BatchId) {
        let proof = self.batch(id).proof().expect("the caller found it, or it was to be settled");
        let facts = self.batch(id).facts();
        self.enter(id, Phase::Checking);
        let effect = self.issue(id, Action::Work(Work::Check { proof, facts }));
        self.batch_mut(id).own = Some(effect);
    }

    fn settling(&self, effect: EffectId) -> Result<BatchId, Error> {
        let pending = self.pending.get(&effect).ok_or(Error::UnknownEffect { effect })?;
        match pending.action {
            Action::Work(Work::Settle { .. }) => Ok(pending.batch),
            _ => Err(Error::WrongAnswer { effect }),
        }
    }

    pub(super) fn settled(&mut self, effect: EffectId) -> Result<(), Error> {
        let id = self.settling(effect)?;
        self.drop_effect(effect);
        let batch = self.batch_mut(id);
        batch.own = None;
        if batch.fold_proof().is_none() && !batch.gave_up {
            mark("refolding");
            self.enter(id, Phase::Refolding);
        } else {
            self.end(id, Phase::Settled);
        }
        Ok(())
    }

    pub(super) fn settle_failed(
        &mut self,
        effect: EffectId,
        permanent: bool,
        reason: String,
    ) -> Result<(), Error> {
        let id = self.settling(effect)?;
        let (tries_max, wait, wait_max) =
            (self.limits.settle_tries_max, self.limits.backoff_ms, self.limits.backoff_ms_max);
        if permanent || self.batch(id).settle_tries >= tries_max {
            self.end(id, Phase::Failed(Failure::Settlement { reason: shorten(reason) }));
            return Ok(());
        }
        self.drop_effect(effect);
        let now = self.now;
        let batch = self.batch_mut(id);
        let wait = wait.saturating_mul(1 << batch.settle_tries.min(20)).min(wait_max);
        batch.settle_at = now.plus(wait);
        // Perhaps the proof has been damaged since it was checked.
        self.check_proof(id);
        Ok(())
    }

    /// Settlements whose wait is over.
    pub(super) fn settle_due(&mut self) {
        let proved: Vec<BatchId> =
            self.live().filter(|(_, batch)| batch.phase == Phase::Proved).map(|(id, _)| id).collect();
        proved.into_iter().for_each(|id| self.settle_next(id));
    }
}
