//! One batch: its phase and its graph of tasks.
//!
//! The graph grows while it is worked on: the execution says how many runs there are, the trace of a run how many shards.
//! ```text
//! Execute ─▶ Trace(run) ─▶ Shard(run, s) … ─▶ Reduce(run, 0, i) … ─▶ Reduce(run, top, 0) ─┐
//!         ─▶ Trace(run) ─▶ …                                                              ├▶ Fold ─▶ Wrap ─▶ Groth16
//!                                                      the previous batch's Fold ─────────┘
//! ```

use serde::{Deserialize, Serialize};

use crate::{Artifact, AttemptId, Spec, Stage, Time, WorkerId};

/// Why a batch has no proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Two workers say that the task can never succeed (or one says it at every try): the payload is bad.
    Rejected {
        /// The task.
        stage: Stage,
        /// What they say.
        reason: String,
    },
    /// A task failed or got lost too often and is set aside.
    Poison {
        /// The task.
        stage: Stage,
        /// The last failure.
        reason: String,
    },
    /// The hard deadline has passed, or can certainly not be met.
    Deadline {
        /// When it was expected to be proved at best.
        earliest: Time,
    },
    /// The batch before it in its rollup has failed or was cancelled.
    Predecessor {
        /// That batch.
        batch: crate::BatchId,
    },
    /// The proof verifies but says something else than the batch.
    Statement,
    /// It could not be settled.
    Settlement {
        /// The last failure.
        reason: String,
    },
    /// The settled fold proof that it builds on is lost.
    History,
}

/// Where a batch stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Tasks are outstanding.
    Proving,
    /// The coordinator checks the Groth16 proof against the batch's statement.
    Checking,
    /// Proved and checked; waits for the settlement of the batch before it, or for the next try of its own.
    Proved,
    /// The settlement is under way and cannot be stopped.
    Settling,
    /// Settled, but its fold proof, which the next batch needs, was lost and is made again.
    Refolding,
    /// Ended well.
    Settled,
    /// Ended without a settled proof.
    Failed(Failure),
    /// Ended by its owner.
    Cancelled,
}

impl Phase {
    /// Whether the batch has ended.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Phase::Settled | Phase::Failed(_) | Phase::Cancelled)
    }
}

/// What a task reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Need {
    Payload,
    PreviousFold,
    Output { node: u32, index: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NodeState {
    /// An input is missing.
    Waiting,
    /// Can be sent, at the earliest at the time given.
    Ready { not_before: Time },
    /// Has attempts.
    Running,
    /// Its result is verified. Never proved again, unless an output is lost that is still needed.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub artifact: Artifact,
    pub units: u64,
    pub gone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub stage: Stage,
    pub units: u64,
    pub needs: Vec<Need>,
    /// The task that reads output `k`, at `k`; empty while the graph has not grown that far.
    pub consumers: Vec<u32>,
    pub state: NodeState,
    pub since: Time,
    /// Memory asked for, once a try has failed for want of it.
    pub memory_bytes: u64,
    pub failures: u32,
    pub losses: u32,
    /// Workers on which it failed; others are preferred.
    pub avoid: Vec<WorkerId>,
    /// Workers that call it impossible.
    pub condemned_by: Vec<WorkerId>,
    pub attempts: Vec<AttemptId>,
    pub outputs: Vec<Held>,
}

impl Node {
    pub(crate) fn is_done(&self) -> bool {
        self.state == NodeState::Done
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub spec: Spec,
    pub phase: Phase,
    pub submitted: Time,
    pub ended: Time,
    pub nodes: Vec<Node>,
    /// The last reduction of each run, once its trace is done.
    pub finals: Vec<Option<u32>>,
    pub fold: Option<u32>,
    /// Outstanding effects; the batch is not forgotten before they are answered.
    pub effects: u32,
    pub payload_held: bool,
    pub settle_tries: u32,
    pub settle_at: Time,
    /// Whether a task failed for good while the settlement was under way.
    pub gave_up: bool,
}

impl Batch {
    pub(crate) fn new(spec: Spec, now: Time) -> Self {
        let mut batch = Self {
            phase: Phase::Proving,
            submitted: now,
            ended: now,
            nodes: Vec::new(),
            finals: Vec::new(),
            fold: None,
            effects: 0,
            payload_held: true,
            settle_tries: 0,
            settle_at: now,
            gave_up: false,
            spec,
        };
        let units = batch.spec.units;
        batch.add(Stage::Execute, units, vec![Need::Payload], now);
        batch
    }

    pub(crate) fn payload(&self) -> Artifact {
        Artifact { holder: self.spec.holder(), hash: self.spec.payload, bytes: self.spec.payload_bytes }
    }

    fn add(&mut self, stage: Stage, units: u64, needs: Vec<Need>, now: Time) -> u32 {
        let at = self.nodes.len() as u32;
        for need in &needs {
            if let Need::Output { node, .. } = *need {
                self.nodes[node as usize].consumers.push(at);
            }
        }
        self.nodes.push(Node {
            stage,
            units: units.max(1),
            needs,
            consumers: Vec::new(),
            state: NodeState::Waiting,
            since: now,
            memory_bytes: 0,
            failures: 0,
            losses: 0,
            avoid: Vec::new(),
            condemned_by: Vec::new(),
            attempts: Vec::new(),
            outputs: Vec::new(),
        });
        at
    }

    /// Adds the tasks that a finished one makes possible, if they are not there yet.
    pub(crate) fn grow(&mut self, node: u32, arity: u32, now: Time) {
        let stage = self.nodes[node as usize].stage;
        if !self.nodes[node as usize].consumers.is_empty() {
            return;
        }
        let units: Vec<u64> = self.nodes[node as usize].outputs.iter().map(|held| held.units).collect();
        match stage {
            Stage::Execute => {
                self.finals = vec![None; units.len()];
                for (run, units) in (0..).zip(units) {
                    self.add(Stage::Trace { run }, units, vec![Need::Output { node, index: run }], now);
                }
            }
            Stage::Trace { run } => self.grow_run(node, run, &units, arity, now),
            _ => {}
        }
    }

    fn grow_run(&mut self, trace: u32, run: u32, units: &[u64], arity: u32, now: Time) {
        let mut layer: Vec<u32> = (0..)
            .zip(units)
            .map(|(shard, units)| {
                self.add(
                    Stage::Shard { run, shard },
                    *units,
                    vec![Need::Output { node: trace, index: shard }],
                    now,
                )
            })
            .collect();
        let mut level = 0;
        while level == 0 || layer.len() > 1 {
            let chunks: Vec<Vec<u32>> = layer.chunks(arity as usize).map(<[u32]>::to_vec).collect();
            layer = (0..)
                .zip(chunks)
                .map(|(index, chunk)| {
                    let needs = chunk.iter().map(|node| Need::Output { node: *node, index: 0 }).collect();
                    self.add(Stage::Reduce { run, level, index }, chunk.len() as u64, needs, now)
                })
                .collect();
            level += 1;
        }
        self.finals[run as usize] = Some(layer[0]);
        let finals: Option<Vec<u32>> = self.finals.iter().copied().collect();
        if let Some(finals) = finals {
            let mut needs: Vec<Need> =
                finals.iter().map(|node| Need::Output { node: *node, index: 0 }).collect();
            if self.spec.sequence > 0 {
                needs.push(Need::PreviousFold);
            }
            let fold = self.add(Stage::Fold, finals.len() as u64 + 1, needs, now);
            let wrap = self.add(Stage::Wrap, 1, vec![Need::Output { node: fold, index: 0 }], now);
            self.add(Stage::Groth16, 1, vec![Need::Output { node: wrap, index: 0 }], now);
            self.fold = Some(fold);
        }
    }

    /// The final proof, once it is there.
    pub(crate) fn proof(&self) -> Option<Artifact> {
        self.nodes.last().filter(|node| node.stage == Stage::Groth16).and_then(|node| Self::output(node, 0))
    }

    /// The fold proof, once it is there.
    pub(crate) fn fold_proof(&self) -> Option<Artifact> {
        self.fold.and_then(|fold| Self::output(&self.nodes[fold as usize], 0))
    }

    fn output(node: &Node, index: usize) -> Option<Artifact> {
        let held = node.outputs.get(index).filter(|held| !held.gone && node.is_done())?;
        Some(held.artifact)
    }

    /// The artifact behind a need inside the batch; `None` if it is not there, or comes from outside.
    pub(crate) fn input(&self, need: Need) -> Option<Artifact> {
        match need {
            Need::Payload => self.payload_held.then(|| self.payload()),
            Need::PreviousFold => None,
            Need::Output { node, index } => Self::output(&self.nodes[node as usize], index as usize),
        }
    }

    /// Whether output `index` of `node` has no reader left. Fold proofs (read by the next batch too) and the final proof
    /// stay until the batch ends.
    pub(crate) fn is_consumed(&self, node: u32, index: u32) -> bool {
        let producer = &self.nodes[node as usize];
        !matches!(producer.stage, Stage::Fold | Stage::Groth16)
            && producer
                .consumers
                .get(index as usize)
                .is_some_and(|reader| self.nodes[*reader as usize].is_done())
    }
}
