//! What can be asked of the machine: status, the reason why a task waits, expected times.

use serde::{Deserialize, Serialize};

use super::dispatch::Choice;
use super::{Machine, Poison};
use crate::batch::{Batch, Need, Node, NodeState};
use crate::worker::millis;
use crate::{
    Artifact, BatchId, Effect, Epoch, Kind, Limits, PerKind, Phase, Spec, Speed, Stage, TenantId, Time,
    WorkerId,
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
    /// A worker is free, but one that is still busy will have finished it earlier.
    FasterWorker,
    /// Tasks of its class that are more urgent come first.
    Turn,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The task.
    pub stage: Stage,
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
    /// Tasks on it.
    pub running: u32,
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

    /// Effects that were issued and not answered, oldest first.
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
            running: worker.running.len() as u32,
            memory_used: worker.memory_used,
            speeds: worker.speeds,
        })
    }

    /// Everything about one batch. Cost: tasks times workers, for those that wait.
    pub fn status(&self, id: BatchId) -> Option<BatchStatus> {
        let batch = self.batches.get(&id)?;
        let task = |(at, node): (u32, &Node)| TaskStatus {
            stage: node.stage,
            done: node.is_done(),
            workers: node.attempts.iter().map(|attempt| self.attempts[attempt].worker).collect(),
            wait: self.wait(id, at),
            failures: node.failures,
            losses: node.losses,
        };
        let is_checked =
            matches!(batch.phase, Phase::Proved | Phase::Settling | Phase::Refolding | Phase::Settled);
        Some(BatchStatus {
            spec: batch.spec.clone(),
            phase: batch.phase.clone(),
            submitted: batch.submitted,
            eta: self.eta(id),
            proof: batch.proof().filter(|_| is_checked),
            tasks: (0..).zip(&batch.nodes).map(task).collect(),
        })
    }

    /// Why task `node` of a batch waits; `None` if it does not.
    fn wait(&self, id: BatchId, node: u32) -> Option<Wait> {
        let batch = self.batch(id);
        let entry = &batch.nodes[node as usize];
        if batch.phase.is_terminal() {
            return None;
        }
        match entry.state {
            NodeState::Done | NodeState::Running => None,
            NodeState::Waiting => {
                let is_missing = |need: &&Need| **need != Need::PreviousFold && batch.input(**need).is_none();
                match entry.needs.iter().filter(is_missing).count() as u32 {
                    0 => Some(Wait::PreviousFold),
                    missing => Some(Wait::Inputs { missing }),
                }
            }
            NodeState::Ready { not_before } if not_before > self.now => {
                Some(Wait::Backoff { until: not_before })
            }
            NodeState::Ready { .. } => Some(self.wait_for_worker(id, node)),
        }
    }

    fn wait_for_worker(&self, id: BatchId, node: u32) -> Wait {
        let class = self.class(id, node);
        if !self.store_available {
            return Wait::StoreDown;
        }
        if self.is_held_back(class.kind, id) {
            return Wait::StoreFull;
        }
        if self
            .tenants
            .get(&class.tenant)
            .is_some_and(|usage| usage.running >= self.limits.tenant_running_max)
        {
            return Wait::TenantQuota;
        }
        let memory_bytes = self.memory_needed(id, node);
        let able = || self.workers.values().filter(|worker| worker.serves(class.kind, class.version));
        if able().next().is_none() {
            return Wait::NoWorker { kind: class.kind, version: class.version };
        }
        if !able().any(|worker| worker.profile.memory_bytes >= memory_bytes) {
            return Wait::TooLarge { memory_bytes };
        }
        let is_free = |worker: &crate::worker::Worker| {
            worker.has_slot(self.limits.worker_running_max) && worker.memory_free() >= memory_bytes
        };
        match self.choose(id, node, self.now) {
            Choice::Now(_) => Wait::Turn,
            Choice::None => Wait::Quarantined,
            Choice::Later if able().any(|worker| worker.is_trusted(self.now) && is_free(worker)) => {
                Wait::FasterWorker
            }
            Choice::Later => Wait::Busy,
        }
    }

    /// When a batch's proof is expected: the longer of its critical path and its share of the workers' time.
    ///
    /// `None` if it has ended or is proved, or if no worker is here.
    pub fn eta(&self, id: BatchId) -> Option<Time> {
        let batch = self.batches.get(&id).filter(|batch| batch.phase == Phase::Proving)?;
        let workers =
            self.workers.values().filter(|worker| worker.session.is_some() && worker.is_trusted(self.now));
        let workers = workers.count() as u64;
        if workers == 0 {
            return None;
        }
        let undone = || (0..).zip(&batch.nodes).filter(|(_, node)| !node.is_done());
        let path = undone().map(|(at, _)| self.path_ms(id, at)).max().unwrap_or(0);
        let mut work = undone()
            .map(|(_, node)| millis(node.units, self.ns_per_unit(node.stage.kind())))
            .fold(0, u64::saturating_add);
        // Batches before it in the queue share the workers.
        for (other, ahead) in self.live() {
            if (std::cmp::Reverse(ahead.spec.priority), other) < (std::cmp::Reverse(batch.spec.priority), id)
            {
                let rest = ahead.nodes.iter().filter(|node| !node.is_done());
                let rest = rest.map(|node| millis(node.units, self.ns_per_unit(node.stage.kind())));
                work = rest.fold(work, u64::saturating_add);
            }
        }
        Some(self.now.plus(path.max(work / workers)))
    }
}
