//! Room in memory: for the parts of controllers, and for tasks that need more than the rest leaves them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::pool::{Line, Pool, PoolKey, Rank};
use super::Machine;
use crate::batch::NodeState;
use crate::mark::mark;
use crate::worker::Worker;
use crate::{BatchId, Kind, WorkerId};

impl Machine {
    /// Keeps workers clear for tasks that have waited long for memory, which smaller ones would take for ever: nothing
    /// else begins there until it is free. While it is controllers that hold the memory, parts go on, since controllers
    /// wait for them.
    pub(super) fn reserve(&mut self) {
        let mut waiting = Vec::new();
        for (key, pool) in self.pools.iter().filter(|(key, _)| !key.kind.is_controller()) {
            for (line, ranks) in &pool.ready {
                let first = ranks.first().filter(|_| !self.is_at_quota(line.tenant, key.kind));
                let first = first.filter(|rank| !self.is_held_back(*key, rank.batch));
                if let Some(rank) = first.filter(|rank| self.waits_for_memory(pool, *line, rank)) {
                    waiting.push((Reverse(line.memory_bytes), *rank, pool));
                }
            }
        }
        waiting.sort_unstable_by_key(|(memory_bytes, rank, _)| (*memory_bytes, *rank));
        let mut reserved = BTreeMap::new();
        for (Reverse(memory_bytes), rank, pool) in waiting {
            let task = (rank.batch, rank.node);
            let able = |id: &&WorkerId| {
                self.workers[*id].profile.memory_bytes >= memory_bytes && !reserved.contains_key(*id)
            };
            // The one that it has already, else the one that has least to do.
            let rate =
                |id: &&WorkerId| (self.reserved.get(*id) != Some(&task), self.workers[*id].memory_used, **id);
            if let Some(worker) = pool.here.iter().filter(able).min_by_key(rate) {
                mark("worker kept clear");
                reserved.insert(*worker, task);
            }
        }
        self.reserved = reserved;
    }

    /// Whether the first of a queue has waited long, and needs more memory than any worker has free, even if one more of
    /// its tasks ends. One that only fits where controllers are has waited long enough: they are taken off for it
    /// ([`Self::evict_controllers`]).
    fn waits_for_memory(&self, pool: &Pool, line: Line, rank: &Rank) -> bool {
        let has = |memory: &dyn Fn(&Worker) -> u64| {
            pool.here.iter().any(|id| memory(&self.workers[id]) >= line.memory_bytes)
        };
        let waited = self.now.since(self.node(rank.batch, rank.node).since);
        let is_long = waited >= self.limits.patience_ms || !has(&Worker::memory_for_parts);
        // A worker that is half clear stays reserved.
        let is_served = self.reserved.values().any(|task| *task == (rank.batch, rank.node));
        is_long
            && !has(&Worker::memory_free)
            && (is_served || !has(&|worker: &Worker| self.memory_soon(worker)))
    }

    /// Memory that a worker has free once the smallest of its tasks has ended, controllers not counted.
    fn memory_soon(&self, worker: &Worker) -> u64 {
        let tasks = worker.running.iter().map(|attempt| &self.attempts[attempt]);
        let smallest =
            tasks.filter(|attempt| !attempt.kind.is_controller()).map(|attempt| attempt.memory_bytes).min();
        worker.memory_free() + smallest.unwrap_or(0)
    }

    /// Whether a worker is kept clear for another task.
    pub(super) fn is_reserved(&self, id: WorkerId, kind: Kind, task: (BatchId, u32)) -> bool {
        let Some((batch, node)) = self.reserved.get(&id).copied().filter(|reserved| *reserved != task) else {
            return false;
        };
        // Reservations are made at ticks: the task may have gone elsewhere since.
        let entry = self.batches.get(&batch).and_then(|batch| batch.nodes.get(&node));
        let is_ready = entry.is_some_and(|entry| matches!(entry.state, NodeState::Ready { .. }));
        let controllers_hold_it = || self.workers[&id].memory_for_parts() < self.memory_needed(batch, node);
        is_ready && (!kind.is_part() || !controllers_hold_it())
    }

    /// Whether parts can still be proved somewhere when a controller takes this much memory of a worker: else it would
    /// wait for parts that wait for its memory. Where nothing else goes on it may all the same: it is evicted once it has
    /// asked for parts ([`Self::evict_controllers`]), and finds them done when it comes back.
    pub(super) fn leaves_room(&self, id: WorkerId, version: u32, memory: u64) -> bool {
        let pool = |kind| self.pools.get(&PoolKey { kind, version });
        let room = |id: WorkerId| self.workers[&id].memory_for_parts();
        let leaves = |kind: Kind| {
            let (need, Some(pool)) = (self.limits.memory_bytes[kind], pool(kind)) else { return true };
            let would_lose =
                pool.here.contains(&id) && room(id) >= need && room(id).saturating_sub(memory) < need;
            !would_lose || pool.here.iter().any(|other| *other != id && room(*other) >= need)
        };
        let has_no_parts = |kind| pool(kind).is_none_or(|pool| pool.ready.is_empty());
        let has_no_controllers = |kind| {
            let idle = |pool: &Pool| pool.here.iter().all(|id| self.workers[id].controllers == 0);
            pool(kind).is_none_or(idle)
        };
        let (parts, controllers) = ([Kind::Shard, Kind::Reduce], [Kind::Block, Kind::Fold]);
        if parts.into_iter().all(leaves) {
            return true;
        }
        mark("controller would leave no room for parts");
        parts.into_iter().all(has_no_parts) && controllers.into_iter().all(has_no_controllers)
    }

    /// Takes controllers off a worker whose memory a part needs that no other worker can give. They are tried again
    /// elsewhere, or after the part; what their parts have proved stays.
    pub(super) fn evict_controllers(&mut self) {
        let mut victims = Vec::new();
        for (_, pool) in self.pools.iter().filter(|(key, _)| key.kind.is_part()) {
            for memory in pool.ready.keys().map(|line| line.memory_bytes) {
                let here = || pool.here.iter().map(|id| (*id, &self.workers[id]));
                if here().any(|(_, worker)| worker.memory_for_parts() >= memory) {
                    continue;
                }
                let able = here().find(|(_, worker)| worker.profile.memory_bytes >= memory);
                let Some((_, worker)) = able else { continue };
                mark("controllers evicted");
                let controllers = worker.running.iter().filter(|id| self.attempts[*id].kind.is_controller());
                victims.extend(controllers.copied());
            }
        }
        victims.sort_unstable();
        victims.dedup();
        self.yield_attempts(victims);
    }
}
