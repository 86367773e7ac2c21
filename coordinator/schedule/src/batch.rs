//! One batch: its phase and its tasks.
//!
//! ```text
//! Execute ─▶ Block(run) … ─▶ Fold ─▶ Wrap ─▶ Groth16
//!                              ▲
//!      the previous batch's Fold
//! ```
//! Block and Fold are controllers: while one runs, it asks for parts (Shard, Reduce), by key. Parts and what is read by
//! them (the shelf) belong to the controller's task, not to the attempt that asked, so the next attempt finds them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::effect::Role;
use crate::machine::Rank;
use crate::{Artifact, AttemptId, EffectId, Facts, Hash, Kind, Parent, Spec, Stage, Time, WorkerId};

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
    Output {
        node: u32,
        index: u32,
    },
    /// On the parent's shelf; of parts only.
    Given(Artifact),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NodeState {
    /// An input is missing.
    Waiting,
    /// Can be sent, at the earliest at the time given; `rank` is its place in the queue, once that time has come.
    Ready { not_before: Time, rank: Option<Rank> },
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

/// An artifact that parts of a controller may read: an input published for them, or an output of another part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    pub hash: Hash,
    pub bytes: u64,
    /// Parts that are not done and name it, spares included. An input without readers is let go.
    pub readers: u32,
    /// The part whose output it is.
    pub output_of: Option<u32>,
}

/// What a controller's task has besides: its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Controller {
    pub parts: BTreeMap<Hash, u32>,
    pub done: u32,
    pub next_part: u32,
    pub shelf: BTreeMap<(AttemptId, u32), Item>,
    /// Attempts that are over and have published inputs that are still on the shelf: to be fenced when these are gone.
    pub dead: BTreeSet<AttemptId>,
}

/// What a part has besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartOf {
    pub parent: u32,
    pub key: Hash,
    /// A second set of inputs, published by a later attempt of the parent while the part was running.
    pub spare: Vec<Artifact>,
    /// The parent's attempt that asked last: the result goes to it, if it still lives.
    pub asked_by: AttemptId,
    /// The worker that published the inputs.
    pub published_by: WorkerId,
    /// The check of an output that its reader calls lost.
    pub audit: Option<EffectId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub stage: Stage,
    pub units: u64,
    pub needs: Vec<Need>,
    /// The task that reads output `k`, at `k`; empty while the graph has not grown that far, and of parts.
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
    pub controller: Option<Box<Controller>>,
    pub part: Option<Box<PartOf>>,
}

impl Node {
    fn new(stage: Stage, units: u64, needs: Vec<Need>, now: Time) -> Self {
        Self {
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
            controller: stage.kind().is_controller().then(Box::default),
            part: None,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.stage.kind()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == NodeState::Done
    }

    /// Counts a failure under a worker.
    pub(crate) fn fail(&mut self, worker: WorkerId) {
        self.failures += 1;
        self.avoid(worker);
    }

    pub(crate) fn avoid(&mut self, worker: WorkerId) {
        if !self.avoid.contains(&worker) {
            self.avoid.push(worker);
        }
    }

    /// Failures of what it was asked for do not count any more, nor against those on which it failed.
    pub(crate) fn acquit(&mut self) {
        self.failures = 0;
        self.avoid.clear();
        self.condemned_by.clear();
    }

    fn output(&self, index: usize) -> Option<Artifact> {
        let held = self.outputs.get(index).filter(|held| !held.gone && self.is_done())?;
        Some(held.artifact)
    }

    /// What a part reads.
    pub(crate) fn given(&self) -> impl Iterator<Item = Artifact> + '_ {
        self.needs.iter().filter_map(|need| match need {
            Need::Given(artifact) => Some(*artifact),
            _ => None,
        })
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = u32> + '_ {
        self.controller.iter().flat_map(|controller| controller.parts.values().copied())
    }

    pub(crate) fn controller_mut(&mut self) -> &mut Controller {
        self.controller.as_mut().expect("blocks and folds are made with it")
    }

    pub(crate) fn part_mut(&mut self) -> &mut PartOf {
        self.part.as_mut().expect("parts are made with it")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub spec: Spec,
    pub genesis: Hash,
    pub phase: Phase,
    pub submitted: Time,
    pub ended: Time,
    /// Tasks; parts only until their controller's task is done.
    pub nodes: BTreeMap<u32, Node>,
    next_node: u32,
    pub fold: Option<u32>,
    pub groth16: Option<u32>,
    /// Outstanding work; the batch is not forgotten before it is answered.
    pub effects: u32,
    /// The check, or the settlement, that is under way.
    pub own: Option<EffectId>,
    pub payload_held: bool,
    pub settle_tries: u32,
    pub settle_at: Time,
    /// Whether a task failed for good while the settlement was under way.
    pub gave_up: bool,
}

impl Batch {
    pub(crate) fn new(spec: Spec, genesis: Hash, now: Time) -> Self {
        let mut batch = Self {
            genesis,
            phase: Phase::Proving,
            submitted: now,
            ended: now,
            nodes: BTreeMap::new(),
            next_node: 0,
            fold: None,
            groth16: None,
            effects: 0,
            own: None,
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

    pub(crate) fn facts(&self) -> Facts {
        let spec = &self.spec;
        Facts {
            chain: spec.chain,
            sequence: spec.sequence,
            genesis: self.genesis,
            from: spec.from,
            to: spec.to,
            payload: spec.payload,
            version: spec.version,
            deadline: spec.deadline,
        }
    }

    pub(crate) fn node(&self, at: u32) -> &Node {
        self.nodes.get(&at).expect("attempts, queues, needs and parents name tasks that are kept")
    }

    pub(crate) fn node_mut(&mut self, at: u32) -> &mut Node {
        self.nodes.get_mut(&at).expect("attempts, queues, needs and parents name tasks that are kept")
    }

    pub(crate) fn payload(&self) -> Artifact {
        Artifact { holder: self.spec.holder(), hash: self.spec.payload, bytes: self.spec.payload_bytes }
    }

    fn add(&mut self, stage: Stage, units: u64, needs: Vec<Need>, now: Time) -> u32 {
        let at = self.next_node;
        self.next_node += 1;
        for need in &needs {
            if let Need::Output { node, .. } = *need {
                self.node_mut(node).consumers.push(at);
            }
        }
        self.nodes.insert(at, Node::new(stage, units, needs, now));
        at
    }

    /// Adds a part of a controller's task; its inputs come later.
    pub(crate) fn add_part(&mut self, kind: Kind, units: u64, of: PartOf, now: Time) -> u32 {
        let at = self.next_node;
        let parent = self.node_mut(of.parent);
        let parent_stage = match parent.stage {
            Stage::Block { run } => Parent::Block { run },
            _ => Parent::Fold,
        };
        let controller = parent.controller_mut();
        let number = controller.next_part;
        controller.next_part += 1;
        controller.parts.insert(of.key, at);
        let stage = match kind {
            Kind::Shard => Stage::Shard { of: parent_stage, part: number },
            _ => Stage::Reduce { of: parent_stage, part: number },
        };
        let at = self.add(stage, units, Vec::new(), now);
        self.node_mut(at).part = Some(Box::new(of));
        at
    }

    /// Adds the tasks that come after the execution, once it has said how many runs there are.
    pub(crate) fn grow(&mut self, node: u32, now: Time) {
        if self.node(node).stage != Stage::Execute || self.fold.is_some() {
            return;
        }
        let units: Vec<u64> = self.node(node).outputs.iter().map(|held| held.units).collect();
        let mut needs = Vec::new();
        for (run, units) in (0..).zip(units) {
            let block = self.add(Stage::Block { run }, units, vec![Need::Output { node, index: run }], now);
            needs.push(Need::Output { node: block, index: 0 });
        }
        let proofs = needs.len() as u64 + 1;
        if self.spec.sequence > 0 {
            needs.push(Need::PreviousFold);
        }
        let fold = self.add(Stage::Fold, proofs, needs, now);
        let wrap = self.add(Stage::Wrap, 1, vec![Need::Output { node: fold, index: 0 }], now);
        let groth16 = self.add(Stage::Groth16, 1, vec![Need::Output { node: wrap, index: 0 }], now);
        (self.fold, self.groth16) = (Some(fold), Some(groth16));
    }

    /// The final proof, once it is there.
    pub(crate) fn proof(&self) -> Option<Artifact> {
        self.node(self.groth16?).output(0)
    }

    /// The fold proof, once it is there.
    pub(crate) fn fold_proof(&self) -> Option<Artifact> {
        self.node(self.fold?).output(0)
    }

    /// The artifact behind a need inside the batch; `None` if it is not there, or comes from outside.
    pub(crate) fn input(&self, need: Need) -> Option<Artifact> {
        match need {
            Need::Payload => self.payload_held.then(|| self.payload()),
            Need::PreviousFold => None,
            Need::Output { node, index } => self.node(node).output(index as usize),
            Need::Given(artifact) => Some(artifact),
        }
    }

    /// What a need is to the task that has it.
    pub(crate) fn role(&self, need: Need) -> Role {
        match need {
            Need::Payload => Role::Payload,
            Need::PreviousFold => Role::PreviousFold,
            Need::Given(_) => Role::Part,
            Need::Output { node, .. } => match self.node(node).stage {
                Stage::Execute => Role::Witness,
                Stage::Block { run } => Role::BlockProof { run },
                Stage::Fold => Role::FoldProof,
                _ => Role::WrapProof,
            },
        }
    }

    /// Whether output `index` of `node` has no reader left. Fold proofs (read by the next batch too), the final proof and
    /// outputs of parts stay until the batch, or the controller's task, ends.
    pub(crate) fn is_consumed(&self, node: u32, index: u32) -> bool {
        let producer = self.node(node);
        !matches!(producer.stage, Stage::Fold | Stage::Groth16)
            && producer.consumers.get(index as usize).is_some_and(|reader| self.node(*reader).is_done())
    }
}
