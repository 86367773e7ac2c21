//! Which task goes to which worker, and when.
//!
//! Ready tasks are ordered by priority, then by the latest time to start (deadline less the rest of the critical path),
//! then by age. The first [`SCAN`] of each class are looked at, so that one that does not fit does not block the rest. A
//! task goes to the worker that will have finished it first, speed as measured for this worker and kind; if that is one
//! that is still busy, the task waits for it, but not for ever.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{Class, Machine, Rank};
use crate::batch::NodeState;
use crate::worker::{millis, Attempt, AttemptPhase};
use crate::{Action, AttemptId, BatchId, Hash, Kind, Stage, Time, WorkerId};

/// Tasks of a class that are looked at before the class is left for this step.
pub(super) const SCAN: usize = 8;

/// What a worker would mean for a task.
#[derive(Clone, Copy)]
pub(super) enum Choice {
    /// It starts now.
    Now(WorkerId),
    /// A busy one will have finished it first.
    Later,
    /// None can take it at all, or none that is free.
    None,
}

impl Machine {
    pub(super) fn class(&self, id: BatchId, node: u32) -> Class {
        let batch = self.batch(id);
        Class {
            kind: batch.nodes[node as usize].stage.kind(),
            version: batch.spec.version,
            tenant: batch.spec.tenant,
        }
    }

    fn rank(&self, id: BatchId, node: u32) -> Rank {
        let batch = self.batch(id);
        let deadline = batch.spec.deadline.unwrap_or(batch.submitted.plus(self.limits.horizon_ms));
        Rank {
            priority: Reverse(batch.spec.priority),
            start_by: deadline.0.saturating_sub(self.path_ms(id, node)),
            batch: id,
            node,
        }
    }

    /// Time per unit that is expected of a kind on some worker.
    pub(super) fn ns_per_unit(&self, kind: Kind) -> u64 {
        let speed = self.estimates[kind];
        if speed.samples == 0 {
            self.limits.ns_per_unit[kind]
        } else {
            speed.ns_per_unit
        }
    }

    /// Expected milliseconds from the start of a task to the end of its batch, on idle workers.
    pub(super) fn path_ms(&self, id: BatchId, node: u32) -> u64 {
        let batch = self.batch(id);
        let mut total = 0u64;
        let mut at = Some(node);
        while let Some(node) = at {
            let entry = &batch.nodes[node as usize];
            total = total.saturating_add(millis(entry.units, self.ns_per_unit(entry.stage.kind())));
            at = entry.consumers.first().copied();
            if at.is_none() {
                // The graph ends here so far: the kinds that are still to come, with one unit each.
                let rest = Kind::ALL.iter().filter(|kind| **kind > entry.stage.kind());
                total = rest.fold(total, |sum, kind| sum.saturating_add(millis(1, self.ns_per_unit(*kind))));
            }
        }
        total
    }

    pub(super) fn memory_needed(&self, id: BatchId, node: u32) -> u64 {
        let entry = &self.batch(id).nodes[node as usize];
        entry.memory_bytes.max(self.limits.memory_bytes[entry.stage.kind()])
    }

    /// Expected milliseconds of a task on a worker.
    pub(super) fn expected_ms(&self, worker: WorkerId, kind: Kind, units: u64) -> u64 {
        let speed = self.workers[&worker].speeds[kind];
        millis(units, if speed.samples == 0 { self.ns_per_unit(kind) } else { speed.ns_per_unit })
    }

    /// Whether a task waits because the store is nearly full. The oldest batch goes on: it can be finished, which frees
    /// what it holds, and with it the batches after it.
    pub(super) fn is_held_back(&self, kind: Kind, batch: BatchId) -> bool {
        let is_full = self.store_full || self.held_bytes >= self.limits.store_bytes_max;
        kind.grows() && is_full && self.live().map(|(id, _)| id).min() != Some(batch)
    }

    /// Sends what can be sent.
    pub(super) fn schedule(&mut self, now: Time) {
        while let Some(first) = self.delayed.first().copied().filter(|(due, ..)| *due <= now) {
            self.delayed.remove(&first);
            let (class, rank) = (self.class(first.1, first.2), self.rank(first.1, first.2));
            self.ready.entry(class).or_default().insert(rank);
        }
        if !self.store_available {
            return;
        }
        let mut closed: BTreeSet<Class> = BTreeSet::new();
        while let Some(class) = self.best_class(&closed) {
            if !self.dispatch_from(class, now) {
                closed.insert(class);
            }
        }
        self.duplicate_stragglers(now);
    }

    fn best_class(&self, closed: &BTreeSet<Class>) -> Option<Class> {
        let open = self.ready.iter().filter(|(class, _)| !closed.contains(class));
        open.filter_map(|(class, ranks)| Some((*ranks.first()?, *class))).min().map(|(_, class)| class)
    }

    /// Sends one task of a class; false if none of the first few can go.
    fn dispatch_from(&mut self, class: Class, now: Time) -> bool {
        let running = self.tenants.get(&class.tenant).map_or(0, |usage| usage.running);
        if running >= self.limits.tenant_running_max {
            return false;
        }
        let Some(ranks) = self.ready.get(&class) else { return false };
        let open = ranks.iter().filter(|rank| !self.is_held_back(class.kind, rank.batch));
        let choice = open.take(SCAN).find_map(|rank| match self.choose(rank.batch, rank.node, now) {
            Choice::Now(worker) => Some((*rank, worker)),
            _ => None,
        });
        let Some((rank, worker)) = choice else { return false };
        let ranks = self.ready.get_mut(&class).expect("the class was there above");
        ranks.remove(&rank);
        if ranks.is_empty() {
            self.ready.remove(&class);
        }
        self.dispatch(rank.batch, rank.node, worker, now);
        true
    }

    /// The worker that will have finished a task first.
    pub(super) fn choose(&self, id: BatchId, node: u32, now: Time) -> Choice {
        let batch = self.batch(id);
        let entry = &batch.nodes[node as usize];
        let kind = entry.stage.kind();
        let memory = self.memory_needed(id, node);
        let mut best_now: Option<(bool, u64, WorkerId)> = None;
        let mut best_later: Option<u64> = None;
        for (worker_id, worker) in &self.workers {
            if !worker.serves(kind, batch.spec.version)
                || !worker.is_trusted(now)
                || worker.profile.memory_bytes < memory
                || entry.attempts.iter().any(|attempt| self.attempts[attempt].worker == *worker_id)
            {
                continue;
            }
            let takes = self.expected_ms(*worker_id, kind, entry.units);
            let avoided = entry.avoid.contains(worker_id);
            if worker.has_slot(self.limits.worker_running_max) && worker.memory_free() >= memory {
                let candidate = (avoided, takes, *worker_id);
                best_now = Some(best_now.map_or(candidate, |best| best.min(candidate)));
            } else if !avoided {
                let frees =
                    worker.running.iter().map(|attempt| self.attempts[attempt].remaining_ms(now)).min();
                let done = frees.unwrap_or(0).saturating_add(takes);
                best_later = Some(best_later.map_or(done, |best| best.min(done)));
            }
        }
        let is_patient = now.since(entry.since) < self.limits.patience_ms;
        match (best_now, best_later) {
            (Some((avoided, takes, _)), Some(later)) if is_patient && (avoided || later < takes) => {
                Choice::Later
            }
            (Some((.., worker)), _) => Choice::Now(worker),
            (None, Some(_)) => Choice::Later,
            (None, None) => Choice::None,
        }
    }

    pub(super) fn dispatch(&mut self, id: BatchId, node: u32, worker_id: WorkerId, now: Time) {
        let inputs = self.inputs(id, node).expect("a ready task has its inputs");
        let batch = self.batch(id);
        let entry = &batch.nodes[node as usize];
        let (stage, units, tenant) = (entry.stage, entry.units, batch.spec.tenant);
        let key = task_key(stage.kind(), batch.spec.version, inputs.iter().map(|input| input.hash));
        let memory_bytes = self.memory_needed(id, node);
        let expected_ms = self.expected_ms(worker_id, stage.kind(), units);
        let attempt = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        let worker = self.workers.get_mut(&worker_id).expect("chosen from the workers");
        let session = worker.session.expect("only a worker that is here is chosen");
        worker.running.insert(attempt);
        worker.memory_used += memory_bytes;
        self.tenants.get_mut(&tenant).expect("a live batch has a tenant").running += 1;
        let action =
            Action::Dispatch { attempt, worker: worker_id, session, key, stage, inputs, memory_bytes };
        let dispatch = Some(self.issue(id, action));
        let phase = AttemptPhase::Running { dispatch };
        self.attempts.insert(
            attempt,
            Attempt {
                batch: id,
                node,
                worker: worker_id,
                session,
                started: now,
                expected_ms,
                memory_bytes,
                phase,
            },
        );
        let entry = &mut self.batch_mut(id).nodes[node as usize];
        entry.attempts.push(attempt);
        entry.state = NodeState::Running;
    }

    /// Gives late tasks a second worker, where one is left over.
    fn duplicate_stragglers(&mut self, now: Time) {
        let has_idle = self.workers.values().any(|worker| {
            worker.session.is_some()
                && worker.is_trusted(now)
                && worker.has_slot(self.limits.worker_running_max)
        });
        if !has_idle || self.limits.attempts_max < 2 {
            return;
        }
        let late: Vec<(BatchId, u32)> = self
            .attempts
            .values()
            .filter(|attempt| {
                let limit = attempt.expected_ms.saturating_mul(self.limits.straggler_percent) / 100;
                attempt.is_running() && now.since(attempt.started) > limit
            })
            .map(|attempt| (attempt.batch, attempt.node))
            .collect();
        for (id, node) in late {
            let entry = &self.batch(id).nodes[node as usize];
            let class = self.class(id, node);
            let running = self.tenants.get(&class.tenant).map_or(0, |usage| usage.running);
            if entry.attempts.len() >= self.limits.attempts_max as usize
                || running >= self.limits.tenant_running_max
                || self.is_held_back(class.kind, id)
            {
                continue;
            }
            if let Choice::Now(worker) = self.choose(id, node, now) {
                self.dispatch(id, node, worker, now);
            }
        }
    }

    /// Ends batches whose hard deadline can certainly not be met: passed, or nearer than the critical path at the best
    /// speed measured.
    pub(super) fn fail_hopeless(&mut self, now: Time) {
        let hopeless: Vec<(BatchId, Time)> = self
            .live()
            .filter(|(_, batch)| batch.spec.deadline_is_hard && batch.phase == crate::Phase::Proving)
            .filter_map(|(id, batch)| {
                let deadline = batch.spec.deadline?;
                let earliest = now.plus(self.best_case_ms(id));
                (earliest > deadline).then_some((id, earliest))
            })
            .collect();
        for (id, earliest) in hopeless {
            if !self.batch(id).phase.is_terminal() {
                self.end(id, crate::Phase::Failed(crate::Failure::Deadline { earliest }), now);
            }
        }
    }

    /// The least time a batch still needs: what no worker has been measured at counts nothing.
    fn best_case_ms(&self, id: BatchId) -> u64 {
        let best = |kind: Kind| {
            let speeds = self.workers.values().filter(|worker| worker.session.is_some());
            let speeds = speeds.map(|worker| worker.speeds[kind]).filter(|speed| speed.samples >= 3);
            // Half of the mean: a single task may well be quicker than the mean.
            speeds.map(|speed| speed.ns_per_unit / 2).min().unwrap_or(0)
        };
        let batch = self.batch(id);
        let is_done = |kind| batch.nodes.iter().any(|node| node.stage.kind() == kind && node.is_done());
        let rest = [(Kind::Execute, batch.spec.units), (Kind::Wrap, 1), (Kind::Groth16, 1)];
        rest.into_iter()
            .filter(|(kind, _)| !is_done(*kind))
            .map(|(kind, units)| millis(units, best(kind)))
            .sum()
    }
}

/// Hash of what makes two tasks the same.
pub(crate) fn task_key(kind: Kind, version: u32, inputs: impl Iterator<Item = Hash>) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("assay-schedule 1 task");
    hasher.update(&[kind as u8]);
    hasher.update(&version.to_le_bytes());
    inputs.for_each(|input| {
        hasher.update(&input.0);
    });
    Hash(*hasher.finalize().as_bytes())
}

/// Whether a stage may have several outputs.
pub(super) fn outputs_max(stage: Stage, limits: &crate::Limits) -> u32 {
    match stage {
        Stage::Execute => limits.runs_max,
        Stage::Trace { .. } => limits.shards_max,
        _ => 1,
    }
}
