//! Effects, artifacts, and the end of a batch.

use super::{Machine, Poison, Rank};
use crate::batch::{Failure, Need, NodeState};
use crate::worker::AttemptPhase;
use crate::{Action, Artifact, AttemptId, BatchId, Effect, EffectId, Error, Phase, Stage, Time};

impl Machine {
    pub(super) fn issue(&mut self, batch: BatchId, action: Action) -> EffectId {
        let id = EffectId(self.next_effect);
        self.next_effect += 1;
        self.pending.insert(id, Effect { id, epoch: self.epoch, batch, action });
        self.batch_mut(batch).effects += 1;
        self.issued.push(id);
        id
    }

    pub(super) fn drop_effect(&mut self, id: EffectId) {
        if let Some(effect) = self.pending.remove(&id) {
            self.batch_mut(effect.batch).effects -= 1;
        }
    }

    /// An effect that needs no other answer was carried out.
    pub(super) fn done(&mut self, id: EffectId) -> Result<(), Error> {
        let effect = self.pending.get(&id).ok_or(Error::UnknownEffect { effect: id })?;
        match effect.action {
            Action::Dispatch { attempt, .. } => {
                if let Some(attempt) = self.attempts.get_mut(&attempt) {
                    attempt.phase = AttemptPhase::Running { dispatch: None };
                }
            }
            Action::Revoke { .. } | Action::Release { .. } | Action::Notify { .. } => {}
            _ => return Err(Error::WrongAnswer { effect: id }),
        }
        self.drop_effect(id);
        Ok(())
    }

    pub(super) fn release(&mut self, batch: BatchId, artifact: Artifact) {
        self.held_bytes = self.held_bytes.saturating_sub(artifact.bytes);
        self.issue(batch, Action::Release { artifact });
    }

    /// Releases output `index` of a task, if it is still there.
    pub(super) fn release_output(&mut self, id: BatchId, node: u32, index: usize) {
        let held = &mut self.batch_mut(id).nodes[node as usize].outputs[index];
        if !std::mem::replace(&mut held.gone, true) {
            let artifact = held.artifact;
            self.release(id, artifact);
        }
    }

    /// Takes an attempt's memory and slot off its worker.
    pub(super) fn free(&mut self, id: AttemptId) {
        let attempt = &self.attempts[&id];
        let tenant = self.batch(attempt.batch).spec.tenant;
        let (worker, memory_bytes) = (attempt.worker, attempt.memory_bytes);
        let Some(worker) = self.workers.get_mut(&worker) else { return };
        if worker.running.remove(&id) {
            worker.memory_used -= memory_bytes;
            self.tenants.get_mut(&tenant).expect("a running task has a tenant").running -= 1;
        }
    }

    /// Ends an attempt without a result and fences it.
    pub(super) fn revoke(&mut self, id: AttemptId) {
        self.free(id);
        let Some(attempt) = self.attempts.remove(&id) else { return };
        match attempt.phase {
            AttemptPhase::Running { dispatch } => {
                if let Some(effect) = dispatch {
                    self.drop_effect(effect);
                }
            }
            AttemptPhase::Auditing { effect, .. } | AttemptPhase::Verifying { effect, .. } => {
                self.drop_effect(effect);
            }
        }
        self.batch_mut(attempt.batch).nodes[attempt.node as usize].attempts.retain(|other| *other != id);
        self.issue(attempt.batch, Action::Revoke { attempt: id, worker: attempt.worker });
    }

    /// Removes a task from the queue of ready ones.
    fn unqueue(&mut self, id: BatchId, node: u32) {
        if let NodeState::Ready { not_before } = self.batch(id).nodes[node as usize].state {
            self.delayed.remove(&(not_before, id, node));
            let class = self.class(id, node);
            if let Some(ranks) = self.ready.get_mut(&class) {
                // The rank depends on estimates that have moved since: look for the task itself.
                ranks.retain(|rank: &Rank| (rank.batch, rank.node) != (id, node));
                if ranks.is_empty() {
                    self.ready.remove(&class);
                }
            }
        }
    }

    /// Makes a waiting task ready if its inputs are all there.
    pub(super) fn refresh(&mut self, id: BatchId, node: u32, now: Time) {
        if self.batch(id).nodes[node as usize].state == NodeState::Waiting && self.inputs(id, node).is_some()
        {
            self.batch_mut(id).nodes[node as usize].since = now;
            self.make_ready(id, node, now);
        }
    }

    /// Puts a task into the queue, at once or from `not_before` on.
    pub(super) fn make_ready(&mut self, id: BatchId, node: u32, not_before: Time) {
        self.batch_mut(id).nodes[node as usize].state = NodeState::Ready { not_before };
        self.delayed.insert((not_before, id, node));
    }

    /// The artifacts that a task reads; `None` if one is missing.
    pub(super) fn inputs(&self, id: BatchId, node: u32) -> Option<Vec<Artifact>> {
        let batch = self.batch(id);
        let input = |need: &Need| match need {
            Need::PreviousFold => self.previous_fold(id),
            need => batch.input(*need),
        };
        batch.nodes[node as usize].needs.iter().map(input).collect()
    }

    fn previous_fold(&self, id: BatchId) -> Option<Artifact> {
        let spec = &self.batch(id).spec;
        let chain = &self.chains[&spec.chain];
        match chain.live.get(&(spec.sequence - 1)) {
            Some(previous) => self.batch(*previous).fold_proof(),
            None => chain.tip.filter(|_| chain.settled == spec.sequence),
        }
    }

    /// Does a task again because an output is lost that is still needed, and with it whatever it reads that is gone.
    pub(super) fn redo(&mut self, id: BatchId, node: u32, now: Time) {
        let mut stack = vec![node];
        let mut touched = Vec::new();
        while let Some(node) = stack.pop() {
            if !self.batch(id).nodes[node as usize].is_done() {
                continue;
            }
            for index in 0..self.batch(id).nodes[node as usize].outputs.len() {
                self.release_output(id, node, index);
            }
            let entry = &mut self.batch_mut(id).nodes[node as usize];
            entry.state = NodeState::Waiting;
            entry.outputs.clear();
            let (consumers, needs) = (entry.consumers.clone(), entry.needs.clone());
            for consumer in consumers {
                self.interrupt(id, consumer);
            }
            stack.extend(needs.iter().filter_map(|need| match *need {
                Need::Output { node, .. } if self.batch(id).input(*need).is_none() => Some(node),
                _ => None,
            }));
            touched.push(node);
        }
        for node in touched {
            self.refresh(id, node, now);
        }
        let batch = self.batch_mut(id);
        if batch.proof().is_none() && matches!(batch.phase, Phase::Checking | Phase::Proved) {
            batch.phase = Phase::Proving;
        }
    }

    /// Puts a task that has not ended back to waiting.
    pub(super) fn interrupt(&mut self, id: BatchId, node: u32) {
        if self.batch(id).nodes[node as usize].is_done() {
            return;
        }
        for attempt in self.batch(id).nodes[node as usize].attempts.clone() {
            self.revoke(attempt);
        }
        self.unqueue(id, node);
        self.batch_mut(id).nodes[node as usize].state = NodeState::Waiting;
    }

    /// Sets a task aside and ends its batch.
    pub(super) fn set_aside(&mut self, id: BatchId, stage: Stage, reason: String, now: Time) {
        if self.poison.len() >= self.limits.poison_max as usize {
            self.poison.pop_front();
        }
        if self.limits.poison_max > 0 {
            self.poison.push_back(Poison { batch: id, stage, reason: reason.clone(), at: now });
        }
        self.give_up(id, Failure::Poison { stage, reason }, now);
    }

    /// Ends a batch because a task of it cannot be done. One whose settlement is under way, or past, does not fail for
    /// the sake of its fold proof, which only the next batch needs.
    pub(super) fn give_up(&mut self, id: BatchId, failure: Failure, now: Time) {
        match self.batch(id).phase {
            Phase::Refolding => self.end(id, Phase::Settled, now),
            Phase::Settling => {
                for node in 0..self.batch(id).nodes.len() as u32 {
                    self.interrupt(id, node);
                }
                self.batch_mut(id).gave_up = true;
            }
            _ => self.end(id, Phase::Failed(failure), now),
        }
    }

    /// The fold proof of the chain's settled history is lost: no batch can be folded on it.
    pub(super) fn lose_history(&mut self, id: BatchId, now: Time) {
        let chain = self.chains.get_mut(&self.batches[&id].spec.chain).expect("a live batch has a chain");
        if let Some(artifact) = chain.tip.take() {
            self.release(id, artifact);
        }
        self.end(id, Phase::Failed(Failure::History), now);
    }

    /// Ends a batch: attempts are fenced, artifacts released, the owner told. One that failed dooms those after it.
    pub(super) fn end(&mut self, id: BatchId, phase: Phase, now: Time) {
        let settled = phase == Phase::Settled;
        let spec = self.batch(id).spec.clone();
        let tip = self.batch(id).fold_proof().filter(|_| settled);
        for node in 0..self.batch(id).nodes.len() as u32 {
            self.interrupt(id, node);
            let stage = self.batch(id).nodes[node as usize].stage;
            if settled && matches!(stage, Stage::Fold | Stage::Groth16) {
                continue;
            }
            for index in 0..self.batch(id).nodes[node as usize].outputs.len() {
                self.release_output(id, node, index);
            }
        }
        let batch = self.batch_mut(id);
        (batch.phase, batch.ended) = (phase.clone(), now);
        if std::mem::replace(&mut batch.payload_held, false) {
            let payload = batch.payload();
            self.release(id, payload);
        }
        let own: Vec<EffectId> = self
            .pending
            .values()
            .filter(|effect| {
                effect.batch == id && matches!(effect.action, Action::Check { .. } | Action::Settle { .. })
            })
            .map(|effect| effect.id)
            .collect();
        own.into_iter().for_each(|effect| self.drop_effect(effect));
        self.issue(id, Action::Notify { phase });
        self.ended.push_back(id);
        self.tenants.get_mut(&spec.tenant).expect("a live batch has a tenant").live -= 1;
        let chain = self.chains.get_mut(&spec.chain).expect("a live batch has a chain");
        chain.live.remove(&spec.sequence);
        if settled {
            chain.settled = spec.sequence + 1;
            let before = std::mem::replace(&mut chain.tip, tip);
            let next = chain.live.get(&(spec.sequence + 1)).copied();
            if let Some(artifact) = before {
                self.release(id, artifact);
            }
            // The fold proof now belongs to the chain.
            if let Some(fold) = self.batch(id).fold {
                self.batch_mut(id).nodes[fold as usize].outputs.iter_mut().for_each(|held| held.gone = true);
            }
            match next {
                Some(next) if self.chains[&spec.chain].tip.is_none() && !self.has_folded(next) => {
                    self.end(next, Phase::Failed(Failure::History), now);
                }
                Some(next) => self.settle_next(next, now),
                None => {}
            }
        } else {
            chain.next = spec.sequence;
            if let Some(next) = chain.live.get(&(spec.sequence + 1)).copied() {
                self.end(next, Phase::Failed(Failure::Predecessor { batch: id }), now);
                let chain = self.chains.get_mut(&spec.chain).expect("a live batch has a chain");
                chain.next = chain.next.min(spec.sequence);
            }
            let chain = &self.chains[&spec.chain];
            if chain.next == 0 && chain.live.is_empty() {
                self.chains.remove(&spec.chain);
            }
        }
    }

    fn has_folded(&self, id: BatchId) -> bool {
        let batch = self.batch(id);
        batch.fold.is_some_and(|fold| batch.nodes[fold as usize].is_done())
    }

    /// Forgets ended batches that are old or too many, and whose effects are answered.
    pub(super) fn forget(&mut self, now: Time) {
        while let Some(id) = self.ended.front().copied() {
            let batch = self.batch(id);
            let is_due = now.since(batch.ended) >= self.limits.retained_ms
                || self.ended.len() > self.limits.retained_max as usize;
            if !is_due {
                return;
            }
            if batch.proof().is_some() {
                let last = batch.nodes.len() as u32 - 1;
                self.release_output(id, last, 0);
            }
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
