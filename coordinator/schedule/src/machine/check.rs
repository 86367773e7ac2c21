//! Invariants that hold between any two steps.

use std::collections::BTreeSet;

use super::Machine;
use crate::batch::NodeState;
use crate::worker::AttemptPhase;
use crate::{Action, Artifact, BatchId, Phase};

/// Fails with a text that says which invariant is broken.
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

impl Machine {
    /// Every artifact that the state still holds: inputs and outputs of live batches, retained proofs, tips of chains.
    /// What the store has beyond these and the deletions outstanding is leaked.
    pub fn artifacts(&self) -> impl Iterator<Item = Artifact> + '_ {
        let payloads = self.batches.values().filter(|batch| batch.payload_held).map(|batch| batch.payload());
        let outputs = self.batches.values().flat_map(|batch| &batch.nodes).flat_map(|node| &node.outputs);
        let outputs = outputs.filter(|held| !held.gone).map(|held| held.artifact);
        payloads.chain(outputs).chain(self.chains.values().filter_map(|chain| chain.tip))
    }

    /// Checks the state's invariants. Cost: the whole state.
    ///
    /// # Errors
    /// The invariant that is broken, in words.
    pub fn check(&self) -> Result<(), String> {
        ensure!(self.issued.is_empty(), "effects of a step were not returned");
        let held: u64 = self.artifacts().map(|artifact| artifact.bytes).sum();
        ensure!(held == self.held_bytes, "{held} bytes are held, the account says {}", self.held_bytes);
        self.check_batches()?;
        self.check_attempts()?;
        self.check_workers()
    }

    fn check_batches(&self) -> Result<(), String> {
        let limits = &self.limits;
        ensure!(self.live_batches() <= limits.batches_max as usize, "too many batches in work");
        ensure!(self.chains.len() <= limits.chains_max as usize, "too many chains");
        ensure!(self.poison.len() <= limits.poison_max as usize, "too many tasks set aside");
        for (id, batch) in &self.batches {
            let chain = self.chains.get(&batch.spec.chain);
            let is_live = chain.is_some_and(|chain| chain.live.get(&batch.spec.sequence) == Some(id));
            ensure!(is_live != batch.phase.is_terminal(), "batch {id}: {:?}, live {is_live}", batch.phase);
            ensure!(is_live || !batch.payload_held, "batch {id} has ended and holds its payload");
            let has_check = self.has(*id, |action| matches!(action, Action::Check { .. }));
            ensure!(
                has_check == (batch.phase == Phase::Checking),
                "batch {id}: {:?}, check {has_check}",
                batch.phase
            );
            let has_settle = self.has(*id, |action| matches!(action, Action::Settle { .. }));
            ensure!(
                has_settle == (batch.phase == Phase::Settling),
                "batch {id}: {:?}, settle {has_settle}",
                batch.phase
            );
            self.check_nodes(*id)?;
        }
        Ok(())
    }

    fn has(&self, id: BatchId, matches: impl Fn(&Action) -> bool) -> bool {
        self.pending.values().any(|effect| effect.batch == id && matches(&effect.action))
    }

    fn check_nodes(&self, id: BatchId) -> Result<(), String> {
        let batch = self.batch(id);
        for (at, node) in (0..).zip(&batch.nodes) {
            let stage = node.stage;
            let running = node.state == NodeState::Running;
            ensure!(
                running != node.attempts.is_empty(),
                "batch {id} {stage:?}: {:?}, {:?}",
                node.state,
                node.attempts
            );
            ensure!(
                node.attempts.len() <= self.limits.attempts_max as usize,
                "batch {id} {stage:?} has {} attempts",
                node.attempts.len()
            );
            ensure!(
                node.is_done() != node.outputs.is_empty(),
                "batch {id} {stage:?}: outputs without a result"
            );
            if batch.phase.is_terminal() {
                ensure!(node.attempts.is_empty(), "batch {id} has ended, {stage:?} has not");
                let is_kept = batch.phase == Phase::Settled && stage == crate::Stage::Groth16;
                let is_gone = node.outputs.iter().all(|held| held.gone);
                ensure!(is_gone || is_kept, "batch {id} has ended and holds an output of {stage:?}");
                continue;
            }
            for (index, held) in (0..).zip(&node.outputs) {
                let is_consumed = batch.is_consumed(at, index);
                ensure!(
                    held.gone == is_consumed,
                    "batch {id} {stage:?} {index}: gone {}, read {is_consumed}",
                    held.gone
                );
            }
            let has_inputs = self.inputs(id, at).is_some();
            match node.state {
                NodeState::Waiting => {
                    ensure!(!has_inputs || batch.gave_up, "batch {id} {stage:?} waits for nothing");
                }
                NodeState::Ready { not_before } => {
                    ensure!(has_inputs, "batch {id} {stage:?} is ready without its inputs");
                    let is_queued = self.delayed.contains(&(not_before, id, at))
                        || self.ready.get(&self.class(id, at)).is_some_and(|ranks| {
                            ranks.iter().any(|rank| (rank.batch, rank.node) == (id, at))
                        });
                    ensure!(is_queued, "batch {id} {stage:?} is ready and in no queue");
                }
                NodeState::Running => ensure!(has_inputs, "batch {id} {stage:?} runs without its inputs"),
                NodeState::Done => {}
            }
        }
        Ok(())
    }

    fn check_attempts(&self) -> Result<(), String> {
        let queued = self.ready.values().map(BTreeSet::len).sum::<usize>() + self.delayed.len();
        let ready = self.batches.values().flat_map(|batch| &batch.nodes);
        let ready = ready.filter(|node| matches!(node.state, NodeState::Ready { .. })).count();
        ensure!(queued == ready, "{queued} tasks are queued, {ready} are ready");
        for (id, attempt) in &self.attempts {
            let node = &self.batch(attempt.batch).nodes[attempt.node as usize];
            ensure!(node.attempts.contains(id), "attempt {id} belongs to no task");
            let effect = match &attempt.phase {
                AttemptPhase::Running { dispatch } => *dispatch,
                AttemptPhase::Auditing { effect, .. } | AttemptPhase::Verifying { effect, .. } => {
                    Some(*effect)
                }
            };
            ensure!(
                effect.is_none_or(|effect| self.pending.contains_key(&effect)),
                "attempt {id} has lost its effect"
            );
            let is_on_worker =
                self.workers.get(&attempt.worker).is_some_and(|worker| worker.running.contains(id));
            ensure!(
                is_on_worker == attempt.is_running(),
                "attempt {id}: {:?}, on worker {is_on_worker}",
                attempt.phase
            );
        }
        let nodes = self.batches.values().flat_map(|batch| &batch.nodes);
        let named: usize = nodes.map(|node| node.attempts.len()).sum();
        ensure!(named == self.attempts.len(), "tasks name {named} attempts of {}", self.attempts.len());
        Ok(())
    }

    fn check_workers(&self) -> Result<(), String> {
        ensure!(self.workers.len() <= self.limits.workers_max as usize, "too many workers");
        for (id, worker) in &self.workers {
            let used: u64 = worker.running.iter().map(|attempt| self.attempts[attempt].memory_bytes).sum();
            ensure!(
                used == worker.memory_used,
                "worker {id} uses {used}, the account says {}",
                worker.memory_used
            );
            ensure!(used <= worker.profile.memory_bytes, "worker {id} has more work than memory");
            ensure!(
                worker.session.is_some() || worker.running.is_empty(),
                "worker {id} is gone and has work"
            );
        }
        let running = self.tenants.values().map(|usage| usage.running as usize).sum::<usize>();
        let on_workers = self.workers.values().map(|worker| worker.running.len()).sum::<usize>();
        ensure!(running == on_workers, "tenants have {running} tasks running, workers {on_workers}");
        for effect in self.pending.values() {
            ensure!(self.batches.contains_key(&effect.batch), "effect {} has lost its batch", effect.id);
        }
        Ok(())
    }
}
