//! Effects, artifacts, attempts that are taken back, tasks that are done again.

use std::collections::BTreeSet;

use super::{Issued, Machine};
use crate::batch::{Need, NodeState};
use crate::effect::{Input, LIST_MAX};
use crate::mark::mark;
use crate::{Action, Artifact, AttemptId, BatchId, Effect, EffectId, Error, Holder, Message, Phase, Work};

impl Machine {
    /// Issues a message or a piece of work; the id is of use for work only.
    pub(super) fn issue(&mut self, batch: BatchId, action: Action) -> EffectId {
        let id = EffectId(self.next_effect);
        self.next_effect += 1;
        let effect = Effect { id, epoch: self.epoch, batch, action };
        if effect.is_message() {
            self.issued.messages.push(effect);
            return id;
        }
        self.pending.insert(id, effect);
        self.batch_mut(batch).effects += 1;
        self.issued.work.push(id);
        id
    }

    pub(super) fn drop_effect(&mut self, id: EffectId) {
        if let Some(effect) = self.pending.remove(&id) {
            self.batch_mut(effect.batch).effects -= 1;
        }
    }

    /// Work that needs no other answer was carried out.
    pub(super) fn done(&mut self, ids: &[EffectId]) -> Result<(), Error> {
        for id in ids {
            match self.pending.get(id).map(|effect| &effect.action) {
                None | Some(Action::Work(Work::Release { .. } | Work::Fence { .. })) => {}
                Some(_) => return Err(Error::WrongAnswer { effect: *id }),
            }
        }
        if let Some(effect) = ids.first().filter(|_| !ids.iter().any(|id| self.pending.contains_key(id))) {
            return Err(Error::UnknownEffect { effect: *effect });
        }
        ids.iter().for_each(|id| self.drop_effect(*id));
        Ok(())
    }

    /// Turns what is to be let go into work.
    pub(super) fn flush(&mut self) {
        let Issued { releases, fences, .. } = &mut self.issued;
        let (mut releases, fences) = (std::mem::take(releases), std::mem::take(fences));
        if !fences.is_empty() {
            // A fence lets go of all that its attempt holds.
            let fenced: BTreeSet<AttemptId> = fences.iter().map(|(_, attempt)| *attempt).collect();
            releases.retain(|(_, artifact)| !matches!(&artifact.holder, Holder::Attempt(attempt, _) if fenced.contains(attempt)));
        }
        for group in releases.chunk_by(|one, other| one.0 == other.0) {
            for chunk in group.chunks(LIST_MAX) {
                let artifacts = chunk.iter().map(|(_, artifact)| *artifact).collect();
                self.issue(chunk[0].0, Action::Work(Work::Release { artifacts }));
            }
        }
        for group in fences.chunk_by(|one, other| one.0 == other.0) {
            for chunk in group.chunks(LIST_MAX) {
                let attempts = chunk.iter().map(|(_, attempt)| *attempt).collect();
                self.issue(chunk[0].0, Action::Work(Work::Fence { attempts }));
            }
        }
    }

    /// Lets go of an artifact that counts in `held_bytes`; `is_last`: the last one of its attempt, if an attempt holds it.
    pub(super) fn release(&mut self, batch: BatchId, artifact: Artifact, is_last: bool) {
        self.held_bytes = self.held_bytes.saturating_sub(artifact.bytes);
        match artifact.holder {
            Holder::Attempt(attempt, _) if is_last => self.issued.fences.push((batch, attempt)),
            _ => self.issued.releases.push((batch, artifact)),
        }
    }

    /// Releases output `index` of a task, if it is still there.
    pub(super) fn release_output(&mut self, id: BatchId, node: u32, index: usize) {
        let outputs = &mut self.node_mut(id, node).outputs;
        let held = &mut outputs[index];
        if !std::mem::replace(&mut held.gone, true) {
            let artifact = held.artifact;
            let is_last = outputs.iter().all(|held| held.gone);
            self.release(id, artifact, is_last);
        }
    }

    pub(super) fn release_outputs(&mut self, id: BatchId, node: u32) {
        for index in 0..self.node(id, node).outputs.len() {
            self.release_output(id, node, index);
        }
    }

    /// Takes an attempt's memory and place off its worker.
    pub(super) fn free(&mut self, id: AttemptId) {
        let attempt = &self.attempts[&id];
        let tenant = self.batch(attempt.batch).spec.tenant;
        let (worker_id, memory_bytes, kind) = (attempt.worker, attempt.memory_bytes, attempt.kind);
        let Some(worker) = self.workers.get_mut(&worker_id) else { return };
        if !worker.running.remove(&id) {
            return;
        }
        worker.memory_used -= memory_bytes;
        let usage = self.tenants.get_mut(&tenant).expect("a running task has a tenant");
        if kind.is_controller() {
            worker.controllers -= 1;
            worker.controllers_memory -= memory_bytes;
            usage.controllers -= 1;
        } else {
            usage.running -= 1;
        }
        self.reseat(worker_id);
    }

    /// Ends an attempt without a result and fences it. One whose parts still read what it has published is fenced when
    /// these are done: its parts go on without it.
    pub(super) fn revoke(&mut self, id: AttemptId) {
        self.take_back(id, false);
    }

    /// As [`Machine::revoke`]; `is_wrong`: its result did not verify, and its worker is told.
    pub(super) fn take_back(&mut self, id: AttemptId, is_wrong: bool) {
        self.free(id);
        let Some(attempt) = self.attempts.remove(&id) else { return };
        if let Some(effect) = attempt.phase.effect() {
            self.drop_effect(effect);
        }
        let (worker, session, batch) = (attempt.worker, attempt.session, attempt.batch);
        self.issue(batch, Action::Message(Message::Revoke { worker, session, attempt: id, is_wrong }));
        let node = self.node_mut(batch, attempt.node);
        node.attempts.retain(|other| *other != id);
        match &mut node.controller {
            Some(controller) if controller.publishes(id) => {
                mark("controller died before its parts");
                controller.dead.insert(id);
            }
            _ => self.issued.fences.push((batch, id)),
        }
    }

    /// Makes a waiting task ready if its inputs are all there, and its batch has not given up.
    pub(super) fn refresh(&mut self, id: BatchId, node: u32) {
        let (batch, entry) = (self.batch(id), self.node(id, node));
        let is_waiting = entry.state == NodeState::Waiting && entry.part.is_none() && !batch.gave_up;
        if is_waiting && self.inputs(id, node).is_some() {
            let now = self.now;
            self.node_mut(id, node).since = now;
            self.make_ready(id, node, now);
        }
    }

    /// The artifacts that a task reads; `None` if one is missing.
    pub(super) fn inputs(&self, id: BatchId, node: u32) -> Option<Vec<Artifact>> {
        self.node(id, node).needs.iter().map(|need| self.input(id, *need)).collect()
    }

    /// The same, with what each is to the task.
    pub(super) fn roles(&self, id: BatchId, node: u32) -> Option<Vec<Input>> {
        let batch = self.batch(id);
        let input = |need: &Need| Some(Input { role: batch.role(*need), artifact: self.input(id, *need)? });
        batch.node(node).needs.iter().map(input).collect()
    }

    fn input(&self, id: BatchId, need: Need) -> Option<Artifact> {
        match need {
            Need::PreviousFold => self.previous_fold(id),
            need => self.batch(id).input(need),
        }
    }

    fn previous_fold(&self, id: BatchId) -> Option<Artifact> {
        let spec = &self.batch(id).spec;
        let chain = &self.chains[&spec.chain];
        match chain.live.get(&(spec.sequence - 1)) {
            Some(previous) => self.batch(*previous).fold_proof(),
            None => chain.tip.filter(|_| chain.settled == spec.sequence),
        }
    }

    /// Does a task (no part) again because an output is lost that is still needed, and with it whatever it reads that is
    /// gone.
    pub(super) fn redo(&mut self, id: BatchId, node: u32) {
        let mut stack = vec![node];
        let mut touched = Vec::new();
        while let Some(node) = stack.pop() {
            if !self.node(id, node).is_done() {
                continue;
            }
            self.release_outputs(id, node);
            let entry = self.node_mut(id, node);
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
            self.refresh(id, node);
        }
        let batch = self.batch(id);
        if batch.proof().is_none() && matches!(batch.phase, Phase::Checking | Phase::Proved) {
            self.enter(id, Phase::Proving);
        }
    }

    /// Puts a task that has not ended back to waiting. The parts of a controller go on.
    pub(super) fn interrupt(&mut self, id: BatchId, node: u32) {
        if self.node(id, node).is_done() {
            return;
        }
        for attempt in self.node(id, node).attempts.clone() {
            self.revoke(attempt);
        }
        self.unqueue(id, node);
        self.node_mut(id, node).state = NodeState::Waiting;
    }

    /// The batch is in another phase, which subscribers are told.
    pub(super) fn enter(&mut self, id: BatchId, phase: Phase) {
        self.batch_mut(id).phase = phase.clone();
        self.issue(id, Action::Message(Message::Notify { phase }));
    }

    /// Puts finished tasks back to waiting, which is what a coordinator without a memory does.
    #[cfg(feature = "simulate")]
    pub(super) fn forget_finished(&mut self) {
        let live: Vec<BatchId> =
            self.live().filter(|(_, batch)| batch.phase == Phase::Proving).map(|(id, _)| id).collect();
        for id in live {
            let nodes: Vec<u32> = self.batch(id).nodes.keys().copied().collect();
            for node in nodes {
                if !self.batch(id).nodes.contains_key(&node) {
                    continue;
                }
                self.drop_parts(id, node);
                if self.node(id, node).part.is_none() {
                    self.redo(id, node);
                }
            }
        }
    }
}
