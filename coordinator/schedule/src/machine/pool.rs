//! Who could do what: for each kind and version the tasks that are ready, and the workers that are here.
//!
//! All of it follows from workers and tasks; it is kept so that a decision looks at a few candidates, not at everybody.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Machine;
use crate::batch::NodeState;
use crate::worker::Seat;
use crate::{BatchId, Kind, TenantId, Time, WorkerId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PoolKey {
    pub kind: Kind,
    pub version: u32,
}

/// Order of ready tasks, smallest first: priority, the latest time to start (deadline less the rest of the critical
/// path), age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Rank {
    pub priority: Reverse<u8>,
    pub start_by: u64,
    pub batch: BatchId,
    pub node: u32,
}

/// A queue of ready tasks. Those that need more memory, because they have failed for want of it, have queues of their own:
/// whether the first of a queue fits says that the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Line {
    pub tenant: TenantId,
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pool {
    pub ready: BTreeMap<Line, BTreeSet<Rank>>,
    /// Workers that are here, trusted and able.
    pub here: BTreeSet<WorkerId>,
    /// Of these, the measured ones by time per unit.
    pub measured: BTreeSet<(u64, WorkerId)>,
    /// Measured ones with a place, and memory for a task of the usual size.
    pub free: BTreeSet<(u64, WorkerId)>,
    /// The same, not measured.
    pub free_unmeasured: BTreeSet<WorkerId>,
}

impl Pool {
    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty() || !self.free_unmeasured.is_empty()
    }

    pub(crate) fn ready_count(&self) -> usize {
        self.ready.values().map(BTreeSet::len).sum()
    }

    /// Free workers with their time per unit, fastest first; `estimate` for those that are not measured.
    pub(crate) fn by_speed(&self, estimate: u64) -> impl Iterator<Item = (u64, WorkerId)> + '_ {
        let mut measured = self.free.iter().copied().peekable();
        let mut others = self.free_unmeasured.iter().map(move |worker| (estimate, *worker)).peekable();
        std::iter::from_fn(move || match (measured.peek(), others.peek()) {
            (Some(one), Some(other)) if other < one => others.next(),
            (None, _) => others.next(),
            _ => measured.next(),
        })
    }

    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.here.is_empty()
    }

    fn leave(&mut self, worker: WorkerId, seat: Seat) {
        if seat.is_here {
            self.here.remove(&worker);
        }
        if let Some(ns) = seat.ns_per_unit {
            self.measured.remove(&(ns, worker));
        }
        self.set_free(worker, seat, false);
    }

    fn enter(&mut self, worker: WorkerId, seat: Seat) {
        if !seat.is_here {
            return;
        }
        self.here.insert(worker);
        if let Some(ns) = seat.ns_per_unit {
            self.measured.insert((ns, worker));
        }
        self.set_free(worker, seat, seat.is_free);
    }

    /// Moves a worker from one seat to another. Most moves only take or give back a place.
    fn reseat(&mut self, worker: WorkerId, before: Seat, after: Seat) {
        if (before.is_here, before.ns_per_unit) == (after.is_here, after.ns_per_unit) {
            self.set_free(worker, after, after.is_here && after.is_free);
            return;
        }
        self.leave(worker, before);
        self.enter(worker, after);
    }

    /// Whether a worker with this seat can take a task.
    fn set_free(&mut self, worker: WorkerId, seat: Seat, is_free: bool) {
        match (seat.ns_per_unit, is_free) {
            (Some(ns), true) => self.free.insert((ns, worker)),
            (Some(ns), false) => self.free.remove(&(ns, worker)),
            (None, true) => self.free_unmeasured.insert(worker),
            (None, false) => self.free_unmeasured.remove(&worker),
        };
    }
}

impl Machine {
    pub(super) fn pool_key(&self, id: BatchId, node: u32) -> PoolKey {
        let batch = self.batch(id);
        PoolKey { kind: batch.node(node).kind(), version: batch.spec.version }
    }

    /// How a worker should stand in the index of a kind now.
    pub(super) fn seat(&self, id: WorkerId, kind: Kind) -> Seat {
        let worker = &self.workers[&id];
        if worker.session.is_none() || !worker.is_trusted(self.now) || !worker.profile.serves(kind) {
            return Seat::default();
        }
        let speed = worker.speeds[kind];
        Seat {
            is_here: true,
            is_free: worker.has_place(kind, self.limits.worker_running_max)
                && worker.memory_free() >= self.limits.memory_bytes[kind],
            ns_per_unit: (speed.samples > 0).then_some(speed.ns_per_unit),
        }
    }

    /// Puts a worker where it belongs in the index, after anything about it has changed.
    pub(super) fn reseat(&mut self, id: WorkerId) {
        for kind in Kind::ALL {
            let seat = self.seat(id, kind);
            self.set_seat(id, kind, seat);
        }
    }

    /// Takes a worker out of the index; wanted before its profile changes.
    pub(super) fn unseat(&mut self, id: WorkerId) {
        for kind in Kind::ALL {
            self.set_seat(id, kind, Seat::default());
        }
    }

    fn set_seat(&mut self, id: WorkerId, kind: Kind, seat: Seat) {
        let worker = self.workers.get_mut(&id).expect("the caller found the worker");
        let before = std::mem::replace(&mut worker.seats[kind], seat);
        if before == seat {
            return;
        }
        let key = PoolKey { kind, version: worker.profile.version };
        let pool = self.pools.entry(key).or_default();
        pool.reseat(id, before, seat);
        if pool.is_empty() {
            self.pools.remove(&key);
        }
    }

    /// Makes a task ready, at once or from `not_before` on.
    pub(super) fn make_ready(&mut self, id: BatchId, node: u32, not_before: Time) {
        self.node_mut(id, node).state = NodeState::Ready { not_before, rank: None };
        self.delayed.insert((not_before, id, node));
    }

    /// Queues the ready tasks whose time has come.
    pub(super) fn promote(&mut self) {
        while let Some((not_before, id, node)) =
            self.delayed.first().copied().filter(|(due, ..)| *due <= self.now)
        {
            self.delayed.remove(&(not_before, id, node));
            let (key, line, rank) = (self.pool_key(id, node), self.line(id, node), self.rank(id, node));
            self.node_mut(id, node).state = NodeState::Ready { not_before, rank: Some(rank) };
            self.pools.entry(key).or_default().ready.entry(line).or_default().insert(rank);
        }
    }

    /// The queue of a ready task. What it needs does not change while it is ready.
    pub(super) fn line(&self, id: BatchId, node: u32) -> Line {
        Line { tenant: self.batch(id).spec.tenant, memory_bytes: self.memory_needed(id, node) }
    }

    /// Removes a ready task from its queue.
    pub(super) fn unqueue(&mut self, id: BatchId, node: u32) {
        let NodeState::Ready { not_before, rank } = self.node(id, node).state else { return };
        let Some(rank) = rank else {
            self.delayed.remove(&(not_before, id, node));
            return;
        };
        let (key, line) = (self.pool_key(id, node), self.line(id, node));
        let Some(pool) = self.pools.get_mut(&key) else { return };
        if let Some(ranks) = pool.ready.get_mut(&line) {
            ranks.remove(&rank);
            if ranks.is_empty() {
                pool.ready.remove(&line);
            }
        }
        if pool.is_empty() {
            self.pools.remove(&key);
        }
    }
}
