//! What workers return, and what the coordinator's own checks say about it.

use super::dispatch::outputs_max;
use super::Machine;
use crate::batch::{Failure, Held, Need, NodeState};
use crate::event::TEXT_BYTES_MAX;
use crate::worker::AttemptPhase;
use crate::{
    Action, Artifact, AttemptId, BatchId, EffectId, Error, Hash, Holder, Output, Phase, Report, Time,
    Verdict, WorkerId,
};

/// Why a task is tried again.
pub(super) enum Setback {
    /// It failed.
    Failure(String),
    /// Its worker or its message got lost; the task is not to blame.
    Loss,
}

impl Machine {
    pub(super) fn result(
        &mut self,
        worker: WorkerId,
        session: u64,
        id: AttemptId,
        report: Report,
        now: Time,
    ) -> Result<(), Error> {
        let attempt = self.attempts.get(&id).filter(|a| a.worker == worker && a.session == session);
        let attempt = attempt.ok_or(Error::StaleAttempt { attempt: id, worker })?.clone();
        let AttemptPhase::Running { dispatch } = attempt.phase else {
            return Err(Error::RepeatedResult { attempt: id });
        };
        if let Some(effect) = dispatch {
            self.drop_effect(effect);
        }
        self.free(id);
        let node = &self.batch(attempt.batch).nodes[attempt.node as usize];
        match report {
            Report::Finished { outputs } => {
                self.finished(id, outputs, now.since(attempt.started), now);
            }
            Report::Transient { reason } => self.retry(id, Setback::Failure(shorten(reason)), now),
            Report::OutOfMemory => {
                let memory = attempt.memory_bytes.saturating_add(attempt.memory_bytes / 2);
                let memory = memory.min(self.limits.memory_bytes_max);
                self.batch_mut(attempt.batch).nodes[attempt.node as usize].memory_bytes = memory;
                self.retry(id, Setback::Failure("out of memory".into()), now);
            }
            Report::InputLost { input } if (input as usize) < node.needs.len() => self.audit_input(id, input),
            Report::InputLost { .. } => {
                self.retry(id, Setback::Failure("lost an input that it does not have".into()), now);
                self.strike(worker, now);
            }
            Report::Permanent { reason } => self.condemn(id, shorten(reason), now),
        }
        Ok(())
    }

    fn finished(&mut self, id: AttemptId, outputs: Vec<Output>, elapsed_ms: u64, now: Time) {
        let (batch, node, worker) = self.place(id);
        let entry = &self.batch(batch).nodes[node as usize];
        let stage = entry.stage;
        let expected = entry.consumers.len();
        let fits = if expected > 0 && outputs_max(stage, &self.limits) > 1 {
            // Done before: the same inputs give the same number of outputs.
            outputs.len() == expected
        } else {
            (1..=outputs_max(stage, &self.limits) as usize).contains(&outputs.len())
        };
        if !fits || outputs.iter().any(|output| output.bytes > self.limits.artifact_bytes_max) {
            self.retry(id, Setback::Failure("outputs of the wrong number or size".into()), now);
            self.strike(worker, now);
            return;
        }
        #[cfg(feature = "simulate")]
        if self.weak.verification {
            self.accept(id, &outputs, elapsed_ms, now);
            return;
        }
        let artifacts = artifacts(id, &outputs);
        let inputs = self.inputs(batch, node).expect("a task whose inputs are lost is interrupted");
        let effect = self.issue(batch, Action::Verify { attempt: id, stage, inputs, outputs: artifacts });
        self.set_phase(id, AttemptPhase::Verifying { effect, outputs, elapsed_ms });
    }

    fn audit_input(&mut self, id: AttemptId, input: u32) {
        let (batch, node, _) = self.place(id);
        let inputs = self.inputs(batch, node).expect("a task whose inputs are lost is interrupted");
        let artifact = inputs[input as usize];
        let effect = self.issue(batch, Action::Audit { artifact, attempt: id });
        self.set_phase(id, AttemptPhase::Auditing { effect, input });
    }

    fn condemn(&mut self, id: AttemptId, reason: String, now: Time) {
        let (batch, node, worker) = self.place(id);
        let entry = &mut self.batch_mut(batch).nodes[node as usize];
        if !entry.condemned_by.contains(&worker) {
            entry.condemned_by.push(worker);
        }
        let stage = entry.stage;
        let is_last = entry.failures + 1 >= self.limits.failures_max;
        if self.batch(batch).nodes[node as usize].condemned_by.len() >= 2 || is_last {
            self.give_up(batch, Failure::Rejected { stage, reason }, now);
        } else {
            self.retry(id, Setback::Failure(reason), now);
        }
    }

    /// Takes an attempt back and puts its task into the queue again, or ends the batch at the limit.
    pub(super) fn retry(&mut self, id: AttemptId, setback: Setback, now: Time) {
        let (batch, node, worker) = self.place(id);
        self.revoke(id);
        let limits = self.limits.clone();
        let entry = &mut self.batch_mut(batch).nodes[node as usize];
        let (tries, reason) = match setback {
            Setback::Failure(reason) => {
                entry.failures += 1;
                if !entry.avoid.contains(&worker) {
                    entry.avoid.push(worker);
                }
                (entry.failures, (entry.failures >= limits.failures_max).then_some(reason))
            }
            Setback::Loss => {
                entry.losses += 1;
                let lost = entry.losses >= limits.losses_max;
                (entry.losses, lost.then(|| format!("lost {} times", entry.losses)))
            }
        };
        let stage = entry.stage;
        if let Some(reason) = reason {
            self.set_aside(batch, stage, reason, now);
        } else if entry.attempts.is_empty() && entry.state == NodeState::Running {
            let wait = limits.backoff_ms.saturating_mul(1 << tries.saturating_sub(1).min(20));
            entry.since = now;
            self.make_ready(batch, node, now.plus(wait.min(limits.backoff_ms_max)));
        }
    }

    pub(super) fn verified(&mut self, effect: EffectId, verdict: Verdict, now: Time) -> Result<(), Error> {
        let pending = self.pending.get(&effect).ok_or(Error::UnknownEffect { effect })?.clone();
        match pending.action {
            Action::Verify { attempt, outputs, .. } => self.judge(attempt, &outputs, &verdict, effect, now),
            Action::Audit { artifact, attempt } => self.audited(attempt, artifact, &verdict, effect, now),
            Action::Check { proof } => self.checked(pending.batch, proof, &verdict, effect, now),
            _ => Err(Error::WrongAnswer { effect }),
        }
    }

    /// Whether what was read is what was claimed.
    fn is_intact(&self, artifacts: &[Artifact], hashes: &[Hash]) -> bool {
        #[cfg(feature = "simulate")]
        if self.weak.checksum {
            return true;
        }
        artifacts.iter().map(|artifact| artifact.hash).eq(hashes.iter().copied())
    }

    fn judge(
        &mut self,
        id: AttemptId,
        claimed: &[Artifact],
        verdict: &Verdict,
        effect: EffectId,
        now: Time,
    ) -> Result<(), Error> {
        let AttemptPhase::Verifying { outputs, elapsed_ms, .. } = self.attempts[&id].phase.clone() else {
            return Err(Error::WrongAnswer { effect });
        };
        self.drop_effect(effect);
        let worker = self.attempts[&id].worker;
        match verdict {
            Verdict::Read { hashes, .. } if !self.is_intact(claimed, hashes) => {
                self.retry(id, Setback::Failure("an output does not hash to its name".into()), now);
            }
            Verdict::Read { valid: true, .. } => self.accept(id, &outputs, elapsed_ms, now),
            Verdict::Read { .. } => {
                self.retry(id, Setback::Failure("the result does not verify".into()), now);
                self.strike(worker, now);
            }
            Verdict::Missing => self.retry(id, Setback::Failure("an output was not published".into()), now),
        }
        Ok(())
    }

    fn audited(
        &mut self,
        id: AttemptId,
        artifact: Artifact,
        verdict: &Verdict,
        effect: EffectId,
        now: Time,
    ) -> Result<(), Error> {
        let AttemptPhase::Auditing { input, .. } = self.attempts[&id].phase else {
            return Err(Error::WrongAnswer { effect });
        };
        self.drop_effect(effect);
        let (batch, node, _) = self.place(id);
        if matches!(verdict, Verdict::Read { hashes, .. } if self.is_intact(&[artifact], hashes)) {
            self.retry(id, Setback::Failure("could not read an input that is intact".into()), now);
            return Ok(());
        }
        match self.batch(batch).nodes[node as usize].needs[input as usize] {
            Need::Output { node: producer, .. } => self.lose(batch, producer, now),
            Need::Payload => {
                let stage = self.batch(batch).nodes[node as usize].stage;
                let reason = "the payload is lost".into();
                self.give_up(batch, Failure::Rejected { stage, reason }, now);
            }
            Need::PreviousFold => {
                let spec = &self.batch(batch).spec;
                let before = self.chains[&spec.chain].live.get(&(spec.sequence - 1)).copied();
                match before.and_then(|before| Some((before, self.batch(before).fold?))) {
                    Some((before, fold)) => {
                        self.retry(id, Setback::Loss, now);
                        self.lose(before, fold, now);
                    }
                    None => self.lose_history(batch, now),
                }
            }
        }
        Ok(())
    }

    /// A finished task's output is lost.
    fn lose(&mut self, id: BatchId, node: u32, now: Time) {
        let limit = self.limits.losses_max;
        let entry = &mut self.batch_mut(id).nodes[node as usize];
        entry.losses += 1;
        let stage = entry.stage;
        if entry.losses >= limit {
            self.set_aside(id, stage, "its output was lost too often".into(), now);
            return;
        }
        self.redo(id, node, now);
        self.release_successor(id, now);
    }

    /// After a fold proof was lost: the next batch's fold waits again, unless it is done.
    fn release_successor(&mut self, id: BatchId, now: Time) {
        let Some((next, fold)) = self.successor_fold(id) else { return };
        if self.batch(id).fold_proof().is_none() {
            self.interrupt(next, fold);
        }
        self.refresh(next, fold, now);
    }

    fn successor_fold(&self, id: BatchId) -> Option<(BatchId, u32)> {
        let spec = &self.batch(id).spec;
        let next = self.chains.get(&spec.chain)?.live.get(&(spec.sequence + 1)).copied()?;
        Some((next, self.batch(next).fold?))
    }

    /// A verified result counts. The other attempts of the task are taken back, inputs without readers deleted.
    fn accept(&mut self, id: AttemptId, outputs: &[Output], elapsed_ms: u64, now: Time) {
        let (batch, node, worker) = self.place(id);
        self.attempts.remove(&id);
        let entry = &mut self.batch_mut(batch).nodes[node as usize];
        entry.attempts.retain(|other| *other != id);
        let (others, kind, units) = (std::mem::take(&mut entry.attempts), entry.stage.kind(), entry.units);
        entry.state = NodeState::Done;
        let held = artifacts(id, outputs).into_iter().zip(outputs);
        entry.outputs =
            held.map(|(artifact, output)| Held { artifact, units: output.units, gone: false }).collect();
        let needs = entry.needs.clone();
        others.into_iter().for_each(|other| self.revoke(other));
        for output in outputs {
            self.held_bytes = self.held_bytes.saturating_add(output.bytes);
        }
        self.estimates[kind].measure(elapsed_ms, units);
        self.praise(worker, kind, elapsed_ms, units);
        let arity = self.limits.arity;
        self.batch_mut(batch).grow(node, arity, now);
        for need in needs {
            if let Need::Output { node: producer, index } = need {
                if self.batch(batch).is_consumed(producer, index) {
                    self.release_output(batch, producer, index as usize);
                }
            }
        }
        // Made again after a loss: what has been read already is not kept.
        for index in 0..outputs.len() {
            if self.batch(batch).is_consumed(node, index as u32) {
                self.release_output(batch, node, index);
            }
        }
        for reader in self.batch(batch).nodes[node as usize].consumers.clone() {
            self.refresh(batch, reader, now);
        }
        if let Some((next, fold)) =
            self.successor_fold(batch).filter(|_| self.batch(batch).fold == Some(node))
        {
            self.refresh(next, fold, now);
        }
        if self.batch(batch).phase == Phase::Refolding && self.batch(batch).fold == Some(node) {
            self.end(batch, Phase::Settled, now);
            return;
        }
        if let Some(proof) = self.batch(batch).proof().filter(|_| self.batch(batch).phase == Phase::Proving) {
            self.batch_mut(batch).phase = Phase::Checking;
            self.issue(batch, Action::Check { proof });
        }
    }

    fn checked(
        &mut self,
        id: BatchId,
        proof: Artifact,
        verdict: &Verdict,
        effect: EffectId,
        now: Time,
    ) -> Result<(), Error> {
        self.drop_effect(effect);
        match verdict {
            Verdict::Read { hashes, valid: true } if self.is_intact(&[proof], hashes) => {
                self.batch_mut(id).phase = Phase::Proved;
                self.settle_next(id, now);
            }
            Verdict::Read { hashes, valid: false } if self.is_intact(&[proof], hashes) => {
                self.end(id, Phase::Failed(Failure::Statement), now);
            }
            _ => {
                let last = self.batch(id).nodes.len() as u32 - 1;
                self.lose(id, last, now);
            }
        }
        Ok(())
    }

    /// Settles a proved batch, if the one before it is settled and its wait is over.
    pub(super) fn settle_next(&mut self, id: BatchId, now: Time) {
        let batch = self.batch(id);
        let spec = &batch.spec;
        let (chain, sequence) = (spec.chain, spec.sequence);
        let is_next = self.chains[&chain].settled == sequence;
        if batch.phase != Phase::Proved || !is_next || batch.settle_at > now {
            return;
        }
        let Some(proof) = batch.proof() else { return };
        self.batch_mut(id).phase = Phase::Settling;
        self.batch_mut(id).settle_tries += 1;
        self.issue(id, Action::Settle { chain, sequence, proof });
    }

    fn settling(&self, effect: EffectId) -> Result<BatchId, Error> {
        let pending = self.pending.get(&effect).ok_or(Error::UnknownEffect { effect })?;
        match pending.action {
            Action::Settle { .. } => Ok(pending.batch),
            _ => Err(Error::WrongAnswer { effect }),
        }
    }

    pub(super) fn settled(&mut self, effect: EffectId, now: Time) -> Result<(), Error> {
        let id = self.settling(effect)?;
        self.drop_effect(effect);
        let batch = self.batch_mut(id);
        if batch.fold_proof().is_none() && !batch.gave_up {
            batch.phase = Phase::Refolding;
        } else {
            self.end(id, Phase::Settled, now);
        }
        Ok(())
    }

    pub(super) fn settle_failed(
        &mut self,
        effect: EffectId,
        permanent: bool,
        reason: &str,
        now: Time,
    ) -> Result<(), Error> {
        let id = self.settling(effect)?;
        let (tries_max, wait, wait_max) =
            (self.limits.settle_tries_max, self.limits.backoff_ms, self.limits.backoff_ms_max);
        let batch = self.batch_mut(id);
        if permanent || batch.settle_tries >= tries_max {
            let reason = shorten(reason.to_owned());
            self.end(id, Phase::Failed(Failure::Settlement { reason }), now);
            return Ok(());
        }
        batch.phase = Phase::Proved;
        let wait = wait.saturating_mul(1 << batch.settle_tries.min(20)).min(wait_max);
        batch.settle_at = now.plus(wait);
        self.drop_effect(effect);
        Ok(())
    }

    /// Settlements whose wait is over.
    pub(super) fn settle_due(&mut self, now: Time) {
        let proved: Vec<BatchId> =
            self.live().filter(|(_, batch)| batch.phase == Phase::Proved).map(|(id, _)| id).collect();
        proved.into_iter().for_each(|id| self.settle_next(id, now));
    }

    fn place(&self, id: AttemptId) -> (BatchId, u32, WorkerId) {
        let attempt = &self.attempts[&id];
        (attempt.batch, attempt.node, attempt.worker)
    }

    fn set_phase(&mut self, id: AttemptId, phase: AttemptPhase) {
        self.attempts.get_mut(&id).expect("the caller holds an outstanding attempt").phase = phase;
    }

    /// Puts finished tasks back to waiting, which is what a coordinator without a memory does.
    #[cfg(feature = "simulate")]
    pub(super) fn forget_finished(&mut self, now: Time) {
        let live: Vec<BatchId> =
            self.live().filter(|(_, batch)| batch.phase == Phase::Proving).map(|(id, _)| id).collect();
        for id in live {
            for node in 0..self.batch(id).nodes.len() as u32 {
                self.redo(id, node, now);
            }
        }
    }
}

/// The artifacts that an attempt's outputs become.
fn artifacts(attempt: AttemptId, outputs: &[Output]) -> Vec<Artifact> {
    let artifact = |(index, output): (u32, &Output)| Artifact {
        holder: Holder::Attempt(attempt, index),
        hash: output.hash,
        bytes: output.bytes,
    };
    (0..).zip(outputs).map(artifact).collect()
}

/// The first [`TEXT_BYTES_MAX`] bytes of a text, cut between characters.
fn shorten(mut text: String) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
