//! What workers return, and tasks that are tried again.

use super::dispatch::outputs_max;
use super::Machine;
use crate::batch::NodeState;
use crate::mark::mark;
use crate::spec::TEXT_BYTES_MAX;
use crate::worker::AttemptPhase;
use crate::{Action, Artifact, AttemptId, BatchId, Error, Holder, Output, Report, Stage, Work, WorkerId};

/// The last tries of a controller, each of which takes over no parts of those before: more than one, because any try may fail by chance.
const FRESH_TRIES: u32 = 2;

/// Why a task is tried again.
pub(super) enum Setback {
    /// It failed.
    Failure(String),
    /// It had too little memory; `is_most`: the most that it can have.
    Memory { is_most: bool },
    /// Its result does not verify.
    Wrong,
    /// Its worker or its message got lost; the task is not to blame.
    Loss,
    /// It made room for another.
    Yield,
}

impl Setback {
    /// Why the task is set aside if this was its last try.
    fn reason(self) -> String {
        match self {
            Self::Failure(reason) => reason,
            Self::Memory { .. } => "out of memory".into(),
            Self::Wrong => "the result does not verify".into(),
            Self::Loss => "it got lost".into(),
            Self::Yield => "it made room for another".into(),
        }
    }
}

impl Machine {
    pub(super) fn result(
        &mut self,
        worker: WorkerId,
        session: u64,
        id: AttemptId,
        report: Report,
    ) -> Result<(), Error> {
        let attempt = self.attempts.get(&id).filter(|a| a.worker == worker && a.session == session);
        let attempt = attempt.ok_or(Error::StaleAttempt { attempt: id, worker })?;
        let is_running = attempt.is_running();
        #[cfg(feature = "simulate")]
        let is_running = is_running || self.weak.repeats;
        if !is_running {
            return Err(Error::RepeatedResult { attempt: id });
        }
        let (batch, node, memory_bytes) = (attempt.batch, attempt.node, attempt.memory_bytes);
        let elapsed_ms = self.now.since(attempt.started);
        self.free(id);
        match report {
            Report::Finished { outputs } => self.finished(id, outputs, elapsed_ms),
            Report::Transient { reason } => self.retry(id, Setback::Failure(shorten(reason))),
            Report::OutOfMemory => {
                let memory = memory_bytes.saturating_add(memory_bytes / 2).min(self.limits.memory_bytes_max);
                // The largest worker to itself is the most that it can have.
                let largest = self.largest(batch, node).max(memory_bytes);
                let memory = memory.min(largest);
                // Another attempt may have begun with more.
                let entry = self.node_mut(batch, node);
                entry.memory_bytes = entry.memory_bytes.max(memory);
                self.retry(id, Setback::Memory { is_most: memory <= memory_bytes });
            }
            Report::InputLost { input } if (input as usize) < self.node(batch, node).needs.len() => {
                self.audit_input(id, input);
            }
            Report::InputLost { .. } => {
                self.retry(id, Setback::Failure("lost an input that it does not have".into()));
                self.strike(worker);
            }
            Report::Permanent { reason } => self.condemn(id, shorten(reason)),
        }
        Ok(())
    }

    /// Memory of the largest worker that is here for a task.
    fn largest(&self, batch: BatchId, node: u32) -> u64 {
        let pool = self.pools.get(&self.pool_key(batch, node));
        let here = pool.into_iter().flat_map(|pool| &pool.here);
        here.map(|id| self.workers[id].profile.memory_bytes).max().unwrap_or(0)
    }

    fn finished(&mut self, id: AttemptId, outputs: Vec<Output>, elapsed_ms: u64) {
        let (batch, node, worker) = self.place(id);
        let entry = self.node(batch, node);
        let (stage, expected) = (entry.stage, entry.consumers.len());
        let fits = if expected > 0 && stage == Stage::Execute {
            // Done before: the same inputs give the same number of outputs.
            outputs.len() == expected
        } else {
            (1..=outputs_max(stage, &self.limits) as usize).contains(&outputs.len())
        };
        let bytes = outputs.iter().map(|output| output.bytes).fold(0, u64::saturating_add);
        let is_small = bytes <= self.limits.output_bytes_max[stage.kind()]
            && outputs.iter().all(|output| output.bytes <= self.limits.artifact_bytes_max);
        // Honest workers report a batch of too many runs as impossible.
        if !fits || !is_small {
            self.retry(id, Setback::Failure("outputs of the wrong number or size".into()));
            self.strike(worker);
            return;
        }
        #[cfg(feature = "simulate")]
        if self.weak.verification {
            self.accept(id, &outputs, elapsed_ms);
            return;
        }
        let artifacts = artifacts(id, &outputs);
        let inputs = self.roles(batch, node).expect("a task whose inputs are lost is interrupted");
        let key = self.key(batch, node, &inputs);
        let facts = self.batch(batch).facts();
        let work = Work::Verify { attempt: id, stage, key, inputs, outputs: artifacts, facts };
        let effect = self.issue(batch, Action::Work(work));
        self.set_phase(id, AttemptPhase::Verifying { effect, outputs, elapsed_ms });
    }

    fn audit_input(&mut self, id: AttemptId, input: u32) {
        let (batch, node, _) = self.place(id);
        let inputs = self.inputs(batch, node).expect("a task whose inputs are lost is interrupted");
        let artifact = inputs[input as usize];
        let effect = self.issue(batch, Action::Work(Work::Audit { artifact, attempt: id }));
        self.set_phase(id, AttemptPhase::Auditing { effect, input });
    }

    /// A worker says that a task can never be done, or its result shows that: two of them prove it.
    pub(super) fn condemn(&mut self, id: AttemptId, reason: String) {
        let (batch, node, worker) = self.place(id);
        let failures_max = self.limits.failures_max;
        let entry = self.node_mut(batch, node);
        if !entry.condemned_by.contains(&worker) {
            entry.condemned_by.push(worker);
        }
        let is_proven = entry.condemned_by.len() >= 2;
        if !is_proven && entry.failures + 1 < failures_max {
            self.retry(id, Setback::Failure(reason));
        } else if self.is_anothers_fault(batch, node) {
            self.blame(batch, node, &reason, is_proven);
        } else {
            self.reject(batch, node, reason);
        }
    }

    /// Takes an attempt back and puts its task into the queue again. At the limit the task is set aside, or, if it is a part
    /// that fails though it has all that it needs, whoever asked for it is blamed.
    pub(super) fn retry(&mut self, id: AttemptId, setback: Setback) {
        let (batch, node, worker) = self.place(id);
        self.take_back(id, matches!(setback, Setback::Wrong));
        let (failures_max, losses_max) = (self.limits.failures_max, self.limits.losses_max);
        let (backoff_ms, backoff_ms_max) = (self.limits.backoff_ms, self.limits.backoff_ms_max);
        let now = self.now;
        let entry = self.node_mut(batch, node);
        let (mut is_failure, is_own) = (false, matches!(setback, Setback::Failure(_) | Setback::Wrong));
        let (tries, reason) = match setback {
            // Of a part only its size may be held against anybody; it grows a few times at most.
            Setback::Memory { is_most: false } if entry.part.is_some() => {
                entry.avoid(worker);
                (1, None)
            }
            Setback::Failure(_) | Setback::Memory { .. } | Setback::Wrong => {
                is_failure = true;
                entry.fail(worker);
                let is_over = entry.failures >= failures_max;
                (entry.failures, is_over.then(|| setback.reason()))
            }
            Setback::Loss => {
                entry.losses += 1;
                let is_over = entry.losses >= losses_max;
                (entry.losses, is_over.then(|| format!("lost {} times", entry.losses)))
            }
            Setback::Yield => (1, None),
        };
        if let Some(reason) = reason {
            if is_own && self.is_anothers_fault(batch, node) {
                self.blame(batch, node, &reason, false);
            } else {
                self.set_aside(batch, node, reason);
            }
            return;
        }
        let is_alone = entry.attempts.is_empty() && entry.state == NodeState::Running;
        if is_alone {
            let wait = backoff_ms.saturating_mul(1 << tries.saturating_sub(1).min(20));
            entry.since = now;
            self.make_ready(batch, node, now.plus(wait.min(backoff_ms_max)));
        }
        if is_failure {
            self.suspect(batch, node);
        }
    }

    /// Before the last tries of a controller: perhaps a part of a worker that lied is to blame, and the next try takes nothing
    /// over.
    pub(super) fn suspect(&mut self, batch: BatchId, node: u32) {
        #[cfg(feature = "simulate")]
        if self.weak.trust {
            return;
        }
        let entry = self.node(batch, node);
        if entry.controller.is_some() && entry.failures + FRESH_TRIES >= self.limits.failures_max {
            mark("parts of a controller suspected");
            self.drop_parts(batch, node);
        }
    }

    /// Takes attempts back to make room; nobody is to blame.
    pub(super) fn yield_attempts(&mut self, ids: Vec<AttemptId>) {
        for id in ids {
            if self.attempts.contains_key(&id) {
                self.retry(id, Setback::Yield);
            }
        }
    }

    pub(super) fn place(&self, id: AttemptId) -> (BatchId, u32, WorkerId) {
        let attempt = &self.attempts[&id];
        (attempt.batch, attempt.node, attempt.worker)
    }

    fn set_phase(&mut self, id: AttemptId, phase: AttemptPhase) {
        self.attempts.get_mut(&id).expect("the caller holds an outstanding attempt").phase = phase;
    }
}

/// The artifacts that an attempt's outputs become.
pub(super) fn artifacts(attempt: AttemptId, outputs: &[Output]) -> Vec<Artifact> {
    let artifact = |(index, output): (u32, &Output)| Artifact {
        holder: Holder::Attempt(attempt, index),
        hash: output.hash,
        bytes: output.bytes,
    };
    (0..).zip(outputs).map(artifact).collect()
}

/// The first [`TEXT_BYTES_MAX`] bytes of a text, cut between characters.
pub(super) fn shorten(mut text: String) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
