//! What can be asked of the machine: status, the reason why a task waits, expected times.

use serde::{Deserialize, Serialize};

use super::dispatch::Choice;
use super::{Machine, Poison};
use crate::batch::{Batch, Need, Node, NodeState};
use crate::{
    Artifact, AttemptId, BatchId, ChainId, Effect, Epoch, Hash, Kind, Limits, PerKind, Phase, Spec, Speed,
    Stage, TenantId, Time, WorkerId,
};

/// Why a task, or a batch, does not go on now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Other tasks of the batch come first.
    Inputs {
        /// How many.
        missing: u32,
    },
    /// The fold proof of the batch before it is not there yet.
    PreviousFold,
    /// What it reads was lost; its controller publishes it again.
    Respawn,
    /// It failed and is tried again later.
    Backoff {
        /// When.
        until: Time,
    },
    /// Queue or store cannot be reached.
    StoreDown,
    /// The store is nearly full; what is there is consumed first.
    StoreFull,
    /// The tenant has as many tasks running as it may.
    TenantQuota,
    /// No worker that is here can do this kind in this version.
    NoWorker {
        /// The kind.
        kind: Kind,
        /// The version.
        version: u32,
    },
    /// All workers that could do it are quarantined.
    Quarantined,
    /// No worker has as much memory.
    TooLarge {
        /// What it needs.
        memory_bytes: u64,
    },
    /// All workers that could do it are busy.
    Busy,
    /// A worker is free, but one that is still busy will have finished it earlier, or has not failed at it.
    FasterWorker,
    /// Tasks of its class that are more urgent come first.
    Turn,
}

/// One task. A part is known from when it is asked for until its controller's task is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The task.
    pub stage: Stage,
    /// Expected work, in units of its kind.
    pub units: u64,
    /// Whether its result is verified.
    pub done: bool,
    /// Workers that are at it, or whose result is being verified.
    pub workers: Vec<WorkerId>,
    /// Why it waits; `None` if it is done or a worker is at it.
    pub wait: Option<Wait>,
    /// Failures so far.
    pub failures: u32,
    /// Losses so far.
    pub losses: u32,
    /// Of a controller: parts that it has asked for.
    pub parts: u32,
    /// Of these, done.
    pub parts_done: u32,
}

/// One rollup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainStatus {
    /// Whose it is.
    pub tenant: TenantId,
    /// Number of the next batch that is taken.
    pub next: u64,
    /// Commitment to the state where it has to begin.
    pub head: Hash,
    /// Batches settled.
    pub settled: u64,
}

/// One batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchStatus {
    /// As submitted.
    pub spec: Spec,
    /// Where it stands.
    pub phase: Phase,
    /// When it came.
    pub submitted: Time,
    /// When its proof is expected; `None` if it has ended or is proved.
    pub eta: Option<Time>,
    /// Its Groth16 proof, once checked.
    pub proof: Option<Artifact>,
    /// Its tasks, as far as they are known.
    pub tasks: Vec<TaskStatus>,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Who.
    pub worker: WorkerId,
    /// Whether it is here.
    pub present: bool,
    /// Until when it gets no work because its results did not verify; `None` if it is trusted.
    pub quarantined_until: Option<Time>,
    /// Results that did not verify.
    pub strikes: u32,
    /// Tasks that it takes at the same time, controllers not counted.
    pub slots: u32,
    /// Tasks on it, controllers included.
    pub running: u32,
    /// Controllers on it.
    pub controllers: u32,
    /// Memory set aside for them.
    pub memory_used: u64,
    /// Measured speeds.
    pub speeds: PerKind<Speed>,
}

impl Machine {
    /// The limits it was made with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The present term.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The time of the last event.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Where a rollup stands; `None` if it has no batch, live or settled.
    pub fn chain(&self, id: ChainId) -> Option<ChainStatus> {
        let chain = self.chains.get(&id)?;
        Some(ChainStatus { tenant: chain.tenant, next: chain.next, head: chain.head, settled: chain.settled })
    }

    /// Rollups with settled batches.
    pub fn settled_chains(&self) -> impl Iterator<Item = ChainId> + '_ {
        self.chains.iter().filter(|(_, chain)| chain.settled > 0).map(|(id, _)| *id)
    }

    /// Whose attempt it is, while it is outstanding: its batch, task and worker.
    pub fn attempt(&self, id: AttemptId) -> Option<(BatchId, Stage, WorkerId)> {
        let attempt = self.attempts.get(&id)?;
        Some((attempt.batch, self.node(attempt.batch, attempt.node).stage, attempt.worker))
    }

    /// Tasks that could be sent and are not, by kind.
    pub fn queued(&self) -> PerKind<u64> {
        let mut queued = PerKind([0; Kind::ALL.len()]);
        for (key, pool) in &self.pools {
            queued[key.kind] += pool.ready_count() as u64;
        }
        queued
    }

    /// Since when the oldest task that could be sent and is not has waited, by kind. Cost: all such tasks.
    pub fn queued_since(&self) -> PerKind<Option<Time>> {
        let mut since = PerKind([None; Kind::ALL.len()]);
        for (key, pool) in &self.pools {
            let ranks = pool.ready.values().flatten();
            let oldest = ranks.map(|rank| self.node(rank.batch, rank.node).since).min();
            since[key.kind] = [since[key.kind], oldest].into_iter().flatten().min();
        }
        since
    }

    /// Work that was issued and not answered, oldest first. Messages are never here.
    pub fn pending(&self) -> impl Iterator<Item = &Effect> {
        self.pending.values()
    }

    /// Batches that are known, oldest first, with their phases.
    pub fn batches(&self) -> impl Iterator<Item = (BatchId, &Phase)> {
        self.batches.iter().map(|(id, batch)| (*id, &batch.phase))
    }

    /// The batch that was submitted under an idempotency key.
    pub fn batch_by_key(&self, tenant: TenantId, key: &str) -> Option<BatchId> {
        self.keys.get(&(tenant, key.to_owned())).copied()
    }

    /// Where a batch stands.
    pub fn phase(&self, id: BatchId) -> Option<&Phase> {
        self.batches.get(&id).map(|batch| &batch.phase)
    }

    /// Tasks that were set aside, oldest first.
    pub fn poison(&self) -> impl Iterator<Item = &Poison> {
        self.poison.iter()
    }

    /// Bytes of artifacts that are held, and those whose deletion is outstanding not counted.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Batches that have not ended, by chain and number.
    pub(super) fn live(&self) -> impl Iterator<Item = (BatchId, &Batch)> {
        self.chains.values().flat_map(|chain| chain.live.values()).map(|id| (*id, self.batch(*id)))
    }

    pub(super) fn live_batches(&self) -> usize {
        self.chains.values().map(|chain| chain.live.len()).sum()
    }

    /// Every worker that is known.
    pub fn workers(&self) -> impl Iterator<Item = WorkerStatus> + '_ {
        self.workers.iter().map(|(id, worker)| WorkerStatus {
            worker: *id,
            present: worker.session.is_some(),
            quarantined_until: (!worker.is_trusted(self.now)).then_some(worker.quarantined_until),
            strikes: worker.strikes,
            slots: worker.profile.slots,
            running: worker.running.len() as u32,
            controllers: worker.controllers,
            memory_used: worker.memory_used,
            speeds: worker.speeds,
        })
    }

    /// Everything about one batch. Cost: tasks times workers, for those that wait.
    pub fn status(&self, id: BatchId) -> Option<BatchStatus> {
        let batch = self.batches.get(&id)?;
        let task = |(at, node): (&u32, &Node)| TaskStatus {
            stage: node.stage,
            units: node.units,
            done: node.is_done(),
            workers: node.attempts.iter().map(|attempt| self.attempts[attempt].worker).collect(),
            wait: self.wait(id, *at),
            failures: node.failures,
            losses: node.losses,
            parts: node.parts().count() as u32,
            parts_done: node.controller.as_ref().map_or(0, |controller| controller.done),
        };
        let is_checked =
            matches!(batch.phase, Phase::Proved | Phase::Settling | Phase::Refolding | Phase::Settled);
        Some(BatchStatus {
            spec: batch.spec.clone(),
            phase: batch.phase.clone(),
            submitted: batch.submitted,
            eta: self.eta(id),
            proof: batch.proof().filter(|_| is_checked),
            tasks: batch.nodes.iter().map(task).collect(),
        })
    }

    /// Why task `node` of a batch waits; `None` if it does not.
    fn wait(&self, id: BatchId, node: u32) -> Option<Wait> {
        let batch = self.batch(id);
        let entry = batch.node(node);
        if batch.phase.is_terminal() {
            return None;
        }
        match entry.state {
            NodeState::Done | NodeState::Running => None,
            NodeState::Waiting if entry.part.is_some() => Some(Wait::Respawn),
            NodeState::Waiting => {
                let is_missing = |need: &&Need| **need != Need::PreviousFold && batch.input(**need).is_none();
                match entry.needs.iter().filter(is_missing).count() as u32 {
                    0 => Some(Wait::PreviousFold),
                    missing => Some(Wait::Inputs { missing }),
                }
            }
            NodeState::Ready { not_before, .. } if not_before > self.now => {
                Some(Wait::Backoff { until: not_before })
            }
            NodeState::Ready { .. } => Some(self.wait_for_worker(id, node)),
        }
    }

    fn wait_for_worker(&self, id: BatchId, node: u32) -> Wait {
        let key = self.pool_key(id, node);
        if self.store_away_since.is_some() {
            return Wait::StoreDown;
        }
        if self.is_held_back(key, id) {
            return Wait::StoreFull;
        }
        if self.is_at_quota(self.batch(id).spec.tenant, key.kind) {
            return Wait::TenantQuota;
        }
        let memory_bytes = self.memory_needed(id, node);
        let able = || self.workers.values().filter(|worker| worker.serves(key.kind, key.version));
        if able().next().is_none() {
            return Wait::NoWorker { kind: key.kind, version: key.version };
        }
        if !able().any(|worker| worker.profile.memory_bytes >= memory_bytes) {
            return Wait::TooLarge { memory_bytes };
        }
        match self.choose(id, node, 0) {
            Choice::Now(_) => Wait::Turn,
            Choice::Later => Wait::FasterWorker,
            Choice::None if able().all(|worker| !worker.is_trusted(self.now)) => Wait::Quarantined,
            Choice::None => Wait::Busy,
        }
    }
}
