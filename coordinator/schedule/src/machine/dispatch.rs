//! Which task goes to which worker, and when.
//!
//! Ready tasks are ordered by priority, then by the latest time to start (deadline less the rest of the critical
//! path), then by age. Tasks that need more memory than usual queue apart from the rest, and the first [`SCAN`] of each
//! queue are looked at, so that one that cannot go does not block the others; one that has waited long for memory has a
//! worker kept clear for it (`reserve.rs`). A task goes to the fastest free worker, speed as measured for this worker
//! and kind. If one that is busy is much faster and will have finished it first, the task waits for it, but not for
//! ever; and when the queue is long, the slow worker gets its last task.

use std::collections::BTreeSet;

use super::pool::{Line, Pool, PoolKey, Rank};
use super::Machine;
use crate::batch::{Batch, Node, NodeState};
use crate::effect::{Dispatch, Input};
use crate::mark::mark;
use crate::worker::{millis, Attempt, AttemptPhase};
use crate::{Action, AttemptId, BatchId, Hash, Kind, Message, Stage, TenantId, WorkerId};

/// Tasks of a queue that are looked at before it is left for this step.
const SCAN: usize = 8;
/// Busy workers that a decision looks at.
const BUSY_SCAN: usize = 16;
/// Only for a worker that is this many times faster a task waits.
const FASTER: u64 = 2;

/// What the workers mean for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// It starts now.
    Now(WorkerId),
    /// A busy one is to be preferred to the free ones.
    Later,
    /// None that is free can take it.
    None,
}

impl Machine {
    /// Sends what can be sent.
    pub(super) fn schedule(&mut self) {
        self.promote();
        let can_send = self.store_away_since.is_none();
        #[cfg(feature = "simulate")]
        let can_send = can_send || self.weak.availability;
        if !can_send {
            return;
        }
        let mut closed: BTreeSet<(PoolKey, Line)> = BTreeSet::new();
        while let Some((key, line)) = self.most_urgent(&closed) {
            if !self.dispatch_from(key, line) {
                closed.insert((key, line));
            }
        }
    }

    /// The queue with the most urgent task, among those that have a free worker.
    fn most_urgent(&self, closed: &BTreeSet<(PoolKey, Line)>) -> Option<(PoolKey, Line)> {
        let pools = self.pools.iter().filter(|(_, pool)| !pool.ready.is_empty() && pool.has_free());
        let queues =
            pools.flat_map(|(key, pool)| pool.ready.iter().map(|(line, ranks)| (*key, *line, ranks)));
        let open = queues.filter(|(key, line, _)| !closed.contains(&(*key, *line)));
        let firsts = open.filter_map(|(key, line, ranks)| Some((*ranks.first()?, key, line)));
        firsts.min().map(|(_, key, line)| (key, line))
    }

    /// Whether a tenant has as many tasks of a sort running as it may.
    pub(super) fn is_at_quota(&self, tenant: TenantId, kind: Kind) -> bool {
        let usage = self.tenants.get(&tenant).copied().unwrap_or_default();
        if kind.is_controller() {
            usage.controllers >= self.limits.tenant_controllers_max
        } else {
            usage.running >= self.limits.tenant_running_max
        }
    }

    pub(super) fn is_store_full(&self) -> bool {
        self.store_full || self.held_bytes >= self.limits.store_bytes_max
    }

    /// Whether tasks of a kind wait because the store is nearly full, and the only batch whose tasks do not: the oldest of
    /// its version that still has to grow. It can be finished, which frees what it holds, and with it those after it. One
    /// that only waits for its settlement does not stand in the way, nor one that no worker is there for.
    fn held_back(&self, key: PoolKey) -> Option<Option<BatchId>> {
        #[cfg(feature = "simulate")]
        if self.weak.back_pressure {
            return None;
        }
        if !key.kind.grows() || !self.is_store_full() {
            return None;
        }
        let grows = |(_, batch): &(BatchId, &Batch)| {
            batch.spec.version == key.version && !batch.gave_up && batch.fold_proof().is_none()
        };
        Some(self.live().filter(grows).map(|(id, _)| id).min())
    }

    /// Whether a task waits because the store is nearly full.
    pub(super) fn is_held_back(&self, key: PoolKey, batch: BatchId) -> bool {
        self.held_back(key).is_some_and(|oldest| oldest != Some(batch))
    }

    /// Sends one task of a queue; false if none of the first few can go.
    fn dispatch_from(&mut self, key: PoolKey, line: Line) -> bool {
        if self.is_at_quota(line.tenant, key.kind) {
            return false;
        }
        let Some((rank, worker)) = self.pick(key, line) else { return false };
        self.unqueue(rank.batch, rank.node);
        self.dispatch(rank.batch, rank.node, worker);
        true
    }

    fn pick(&self, key: PoolKey, line: Line) -> Option<(Rank, WorkerId)> {
        let pool = self.pools.get(&key)?;
        let ranks = pool.ready.get(&line)?;
        let mut has_later = false;
        let held_back = self.held_back(key);
        let is_open = |rank: &&Rank| held_back.is_none_or(|oldest| oldest == Some(rank.batch));
        for (ahead, rank) in (0..).zip(ranks.iter().filter(is_open).take(SCAN)) {
            match self.choose(rank.batch, rank.node, ahead) {
                Choice::Now(worker) => return Some((*rank, worker)),
                Choice::Later => has_later = true,
                Choice::None => {}
            }
        }
        let last = ranks.last().filter(|rank| has_later && is_open(rank))?;
        match self.choose(last.batch, last.node, pool.ready_count() as u64 - 1) {
            Choice::Now(worker) => {
                mark("slow worker takes the last of a long queue");
                Some((*last, worker))
            }
            _ => None,
        }
    }

    /// The worker for a task that has `ahead` others before it.
    pub(super) fn choose(&self, id: BatchId, node: u32, ahead: u64) -> Choice {
        let entry = self.node(id, node);
        let key = self.pool_key(id, node);
        let Some(pool) = self.pools.get(&key) else { return Choice::None };
        let memory = self.memory_needed(id, node);
        let (mut best, mut avoided) = (None, None);
        for (ns_per_unit, worker) in pool.by_speed(self.ns_per_unit(key.kind)) {
            if !self.can_take(worker, (id, node), memory) {
                continue;
            }
            if entry.avoid.contains(&worker) {
                avoided = avoided.or(Some(worker));
                continue;
            }
            best = Some((ns_per_unit, worker));
            break;
        }
        let is_patient = self.now.since(entry.since) < self.limits.patience_ms;
        match (best, avoided) {
            (Some((ns, _)), _) if is_patient && self.is_worth_waiting(pool, entry, memory, ns, ahead) => {
                mark("task waits for a faster worker");
                Choice::Later
            }
            (Some((_, worker)), _) => Choice::Now(worker),
            (None, Some(_)) if is_patient && self.has_other(pool, entry, memory) => {
                mark("task waits for a worker that it has not failed on");
                Choice::Later
            }
            (None, Some(worker)) => Choice::Now(worker),
            (None, None) => Choice::None,
        }
    }

    fn is_on(&self, entry: &Node, worker: WorkerId) -> bool {
        entry.attempts.iter().any(|attempt| self.attempts[attempt].worker == worker)
    }

    /// Whether a free worker can take a task.
    fn can_take(&self, id: WorkerId, task: (BatchId, u32), memory: u64) -> bool {
        let (batch, entry) = (self.batch(task.0), self.node(task.0, task.1));
        let kind = entry.kind();
        self.workers[&id].memory_free() >= memory
            && !self.is_on(entry, id)
            && !self.is_reserved(id, kind, task)
            && (!kind.is_controller() || self.leaves_room(id, batch.spec.version, memory))
    }

    /// Whether a busy worker that is much faster than the best free one will have finished a task first.
    fn is_worth_waiting(&self, pool: &Pool, entry: &Node, memory: u64, free_ns: u64, ahead: u64) -> bool {
        let takes_free = millis(entry.units, free_ns);
        let faster = || pool.measured.range(..(free_ns / FASTER, WorkerId(0)));
        let Some((fastest_ns, _)) = faster().next() else { return false };
        let count = faster().take(BUSY_SCAN).count() as u64;
        // Those ahead of it are done first, by the same workers.
        let queue_ms = millis(entry.units, *fastest_ns).saturating_mul(ahead) / count;
        faster().take(BUSY_SCAN).any(|(ns, id)| {
            let worker = &self.workers[id];
            let is_fit = worker.profile.memory_bytes >= memory
                && !entry.avoid.contains(id)
                && !self.is_on(entry, *id)
                && !pool.free.contains(&(*ns, *id));
            let tasks = || worker.running.iter().map(|attempt| &self.attempts[attempt]);
            let frees =
                || tasks().filter(|a| !a.kind.is_controller()).map(|a| a.remaining_ms(self.now)).min();
            is_fit
                && frees().unwrap_or(0).saturating_add(queue_ms).saturating_add(millis(entry.units, *ns))
                    < takes_free
        })
    }

    /// Whether a worker is here that a task has not failed on.
    fn has_other(&self, pool: &Pool, entry: &Node, memory: u64) -> bool {
        pool.here.iter().any(|id| {
            !entry.avoid.contains(id)
                && self.workers[id].profile.memory_bytes >= memory
                && !self.is_on(entry, *id)
        })
    }

    pub(super) fn dispatch(&mut self, id: BatchId, node: u32, worker_id: WorkerId) {
        let inputs = self.roles(id, node).expect("a ready task has its inputs");
        let batch = self.batch(id);
        let entry = batch.node(node);
        let (stage, units, tenant, kind) = (entry.stage, entry.units, batch.spec.tenant, entry.kind());
        let (key, facts) = (self.key(id, node, &inputs), batch.facts());
        let memory_bytes = self.memory_needed(id, node);
        let expected_ms = self.expected_ms(worker_id, kind, units);
        let attempt = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        let worker = self.workers.get_mut(&worker_id).expect("chosen from the workers");
        let session = worker.session.expect("only a worker that is here is chosen");
        worker.running.insert(attempt);
        worker.memory_used += memory_bytes;
        let usage = self.tenants.get_mut(&tenant).expect("a live batch has a tenant");
        if kind.is_controller() {
            worker.controllers += 1;
            worker.controllers_memory += memory_bytes;
            usage.controllers += 1;
        } else {
            usage.running += 1;
        }
        self.reseat(worker_id);
        let dispatch = Dispatch {
            attempt,
            worker: worker_id,
            session,
            batch: id,
            stage,
            key,
            inputs,
            units,
            memory_bytes,
            outputs_max: outputs_max(stage, &self.limits),
            facts,
        };
        self.issue(id, Action::Message(Message::Dispatch(Box::new(dispatch))));
        self.attempts.insert(
            attempt,
            Attempt {
                batch: id,
                node,
                kind,
                worker: worker_id,
                session,
                started: self.now,
                active: self.now,
                expected_ms,
                memory_bytes,
                complaints: 0,
                phase: AttemptPhase::Running,
            },
        );
        let entry = self.node_mut(id, node);
        entry.attempts.push(attempt);
        entry.state = NodeState::Running;
    }

    /// What makes two tasks the same.
    pub(super) fn key(&self, id: BatchId, node: u32, inputs: &[Input]) -> Hash {
        let batch = self.batch(id);
        match &batch.node(node).part {
            Some(part) => part.key,
            None => task_key(batch.node(node).kind(), batch.spec.version, inputs),
        }
    }

    /// Gives late tasks a second worker, where one is left over. Never a controller: it is late because its parts are.
    pub(super) fn duplicate_stragglers(&mut self) {
        if self.limits.attempts_max < 2 || self.store_away_since.is_some() {
            return;
        }
        let percent = self.limits.straggler_percent;
        let is_late = |attempt: &&Attempt| {
            let limit = attempt.expected_ms.saturating_mul(percent) / 100;
            attempt.is_running() && !attempt.kind.is_controller() && self.now.since(attempt.started) > limit
        };
        let late: Vec<(BatchId, u32)> =
            self.attempts.values().filter(is_late).map(|attempt| (attempt.batch, attempt.node)).collect();
        for (id, node) in late {
            let entry = self.node(id, node);
            let (kind, tenant) = (entry.kind(), self.batch(id).spec.tenant);
            if entry.attempts.len() >= self.limits.attempts_max as usize
                || self.is_at_quota(tenant, kind)
                || self.is_held_back(self.pool_key(id, node), id)
                || self.pools.get(&self.pool_key(id, node)).is_none_or(|pool| !pool.ready.is_empty())
            {
                continue;
            }
            if let Choice::Now(worker) = self.choose(id, node, 0) {
                mark("straggler duplicated");
                self.dispatch(id, node, worker);
            }
        }
    }
}

/// Hash of what makes two tasks the same.
fn task_key(kind: Kind, version: u32, inputs: &[Input]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("assay-schedule 1 task");
    hasher.update(&[kind as u8]);
    hasher.update(&version.to_le_bytes());
    for input in inputs {
        hasher.update(&input.artifact.hash.0);
    }
    Hash(*hasher.finalize().as_bytes())
}

/// How many outputs a stage may have.
pub(super) fn outputs_max(stage: Stage, limits: &crate::Limits) -> u32 {
    match stage.kind() {
        Kind::Execute => limits.runs_max,
        Kind::Shard | Kind::Reduce => limits.part_outputs_max,
        _ => 1,
    }
}
