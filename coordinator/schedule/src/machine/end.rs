//! The end of a batch.

use super::{Machine, Poison};
use crate::batch::Failure;
use crate::mark::mark;
use crate::{Artifact, BatchId, Phase, Stage};

impl Machine {
    /// Sets a task aside and ends its batch.
    pub(super) fn set_aside(&mut self, id: BatchId, node: u32, reason: String) {
        let stage = self.node(id, node).stage;
        if self.poison.len() >= self.limits.poison_max as usize {
            self.poison.pop_front();
        }
        if self.limits.poison_max > 0 {
            self.poison.push_back(Poison { batch: id, stage, reason: reason.clone(), at: self.now });
        }
        self.give_up(id, Failure::Poison { stage, reason });
    }

    /// Ends a batch because a task of it can never be done.
    pub(super) fn reject(&mut self, id: BatchId, node: u32, reason: String) {
        let stage = self.node(id, node).stage;
        self.give_up(id, Failure::Rejected { stage, reason });
    }

    /// Whether a task that cannot be done speaks against who asked for it, and not against the batch: a part is what its
    /// controller says.
    pub(super) fn is_anothers_fault(&self, id: BatchId, node: u32) -> bool {
        #[cfg(feature = "simulate")]
        if self.weak.blame {
            return false;
        }
        self.node(id, node).part.is_some()
    }

    /// Ends a batch because a task of it cannot be done. One whose settlement is under way, or past, does not fail for
    /// the sake of its fold proof, which only the next batch needs.
    pub(super) fn give_up(&mut self, id: BatchId, failure: Failure) {
        match self.batch(id).phase {
            Phase::Refolding => self.end(id, Phase::Settled),
            Phase::Settling => {
                mark("gave up while settling");
                self.stop_tasks(id);
                self.batch_mut(id).gave_up = true;
            }
            _ => self.end(id, Phase::Failed(failure)),
        }
    }

    /// Ends all work on a batch.
    fn stop_tasks(&mut self, id: BatchId) {
        let nodes: Vec<u32> = self.batch(id).nodes.keys().copied().collect();
        for node in nodes {
            if self.batch(id).nodes.get(&node).is_some_and(|entry| entry.part.is_none()) {
                self.interrupt(id, node);
                self.drop_parts(id, node);
            }
        }
    }

    /// The fold proof of the chain's settled history is lost: no batch can be folded on it. One whose settlement is under way, or
    /// past, does not fail for it.
    pub(super) fn lose_history(&mut self, id: BatchId) {
        let chain = self.chains.get_mut(&self.batches[&id].spec.chain).expect("a live batch has a chain");
        if let Some(artifact) = chain.tip.take() {
            self.release(id, artifact, true);
        }
        self.give_up(id, Failure::History);
    }

    /// Ends a batch: attempts are fenced, artifacts let go, the owner told. One that failed dooms those after it.
    pub(super) fn end(&mut self, id: BatchId, phase: Phase) {
        let is_settled = phase == Phase::Settled;
        let tip = self.batch(id).fold_proof().filter(|_| is_settled);
        self.stop_tasks(id);
        let nodes: Vec<u32> = self.batch(id).nodes.keys().copied().collect();
        for node in nodes {
            let stage = self.node(id, node).stage;
            if !is_settled || !matches!(stage, Stage::Fold | Stage::Groth16) {
                self.release_outputs(id, node);
            }
        }
        if let Some(effect) = self.batch_mut(id).own.take() {
            self.drop_effect(effect);
        }
        let now = self.now;
        let batch = self.batch_mut(id);
        batch.ended = now;
        if std::mem::replace(&mut batch.payload_held, false) {
            let payload = batch.payload();
            self.release(id, payload, true);
        }
        self.enter(id, phase);
        self.ended.push_back(id);
        let tenant = self.batch(id).spec.tenant;
        self.tenants.get_mut(&tenant).expect("a live batch has a tenant").live -= 1;
        if is_settled {
            self.extend_chain(id, tip);
        } else {
            self.cut_chain(id);
        }
    }

    /// After a settlement: the fold proof belongs to the chain, the next batch may be settled.
    fn extend_chain(&mut self, id: BatchId, tip: Option<Artifact>) {
        let (chain_id, sequence) = (self.batch(id).spec.chain, self.batch(id).spec.sequence);
        let chain = self.chains.get_mut(&chain_id).expect("a live batch has a chain");
        chain.live.remove(&sequence);
        chain.settled = sequence + 1;
        let before = std::mem::replace(&mut chain.tip, tip);
        let next = chain.live.get(&(sequence + 1)).copied();
        if let Some(artifact) = before {
            self.release(id, artifact, true);
        }
        if let Some(fold) = self.batch(id).fold {
            self.node_mut(id, fold).outputs.iter_mut().for_each(|held| held.gone = true);
        }
        match next {
            Some(next) if tip.is_none() && !self.has_folded(next) => {
                self.end(next, Phase::Failed(Failure::History));
            }
            Some(next) => self.settle_next(next),
            None => {}
        }
    }

    /// After a failure: the batches after it fail too, and the chain goes on from where this one began.
    fn cut_chain(&mut self, id: BatchId) {
        let (chain_id, sequence, from) = {
            let spec = &self.batch(id).spec;
            (spec.chain, spec.sequence, spec.from)
        };
        let chain = self.chains.get_mut(&chain_id).expect("a live batch has a chain");
        chain.live.remove(&sequence);
        if let Some(next) = chain.live.get(&(sequence + 1)).copied() {
            self.end(next, Phase::Failed(Failure::Predecessor { batch: id }));
        }
        // The end of the batches after it has removed the chain if nothing else was left of it.
        let Some(chain) = self.chains.get_mut(&chain_id) else { return };
        (chain.next, chain.head) = (sequence, from);
        if sequence == 0 && chain.live.is_empty() {
            self.chains.remove(&chain_id);
        }
    }

    fn has_folded(&self, id: BatchId) -> bool {
        self.batch(id).fold.is_some_and(|fold| self.node(id, fold).is_done())
    }

    /// Forgets ended batches that are old or too many, and whose work is done.
    pub(super) fn forget(&mut self) {
        while let Some(id) = self.ended.front().copied() {
            let batch = self.batch(id);
            let is_due = self.now.since(batch.ended) >= self.limits.retained_ms
                || self.ended.len() > self.limits.retained_max as usize;
            if !is_due {
                return;
            }
            if let (Some(_), Some(last)) = (batch.proof(), batch.groth16) {
                self.release_output(id, last, 0);
            }
            self.flush();
            if self.batch(id).effects > 0 {
                return;
            }
            self.ended.pop_front();
            let Some(batch) = self.batches.remove(&id) else { return };
            self.keys.remove(&(batch.spec.tenant, batch.spec.key.clone()));
            if self.tenants.get(&batch.spec.tenant).is_some_and(|usage| usage.live == 0 && usage.running == 0)
            {
                self.tenants.remove(&batch.spec.tenant);
            }
        }
    }
}
