//! Invariants that hold between any two steps.

use std::collections::{BTreeMap, BTreeSet};

use super::{Issued, Machine};
use crate::batch::{Controller, Node, NodeState};
use crate::worker::Seat;
use crate::{Action, Artifact, AttemptId, BatchId, EffectId, Holder, Kind, Phase, Work};

/// Fails with a text that says which invariant is broken.
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

impl Machine {
    /// Every artifact that the state still holds: payloads, outputs and inputs of parts of live batches, retained proofs,
    /// tips of chains. What the store has beyond these and the deletions outstanding is leaked.
    pub fn artifacts(&self) -> impl Iterator<Item = Artifact> + '_ {
        let payloads = self.batches.values().filter(|batch| batch.payload_held).map(|batch| batch.payload());
        let nodes = || self.batches.values().flat_map(|batch| batch.nodes.values());
        let outputs = nodes().flat_map(|node| &node.outputs);
        let outputs = outputs.filter(|held| !held.gone).map(|held| held.artifact);
        let shelves = nodes().filter_map(|node| node.controller.as_ref()).flat_map(|held| &held.shelf);
        let inputs = shelves.filter(|(_, item)| item.output_of.is_none()).map(|((attempt, number), item)| {
            Artifact { holder: Holder::Attempt(*attempt, *number), hash: item.hash, bytes: item.bytes }
        });
        let tips = self.chains.values().filter_map(|chain| chain.tip);
        payloads.chain(outputs).chain(inputs).chain(tips)
    }

    /// Checks the state's invariants. Cost: the whole state.
    ///
    /// # Errors
    /// The invariant that is broken, in words.
    pub fn check(&self) -> Result<(), String> {
        ensure!(self.issued == Issued::default(), "effects of a step were not returned");
        let held: u64 = self.artifacts().map(|artifact| artifact.bytes).sum();
        ensure!(held == self.held_bytes, "{held} bytes are held, the account says {}", self.held_bytes);
        self.check_batches()?;
        self.check_queues()?;
        self.check_attempts()?;
        self.check_workers()?;
        self.check_pending()
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
            let own = batch.own.and_then(|own| self.pending.get(&own)).map(|effect| &effect.action);
            let fits = match own {
                Some(Action::Work(Work::Check { .. })) => batch.phase == Phase::Checking,
                Some(Action::Work(Work::Settle { .. })) => batch.phase == Phase::Settling,
                Some(_) => false,
                None => !matches!(batch.phase, Phase::Checking | Phase::Settling) && batch.own.is_none(),
            };
            ensure!(fits, "batch {id}: {:?}, and {own:?} is under way", batch.phase);
            for (at, node) in &batch.nodes {
                self.check_node(*id, *at, node)?;
            }
        }
        for (id, chain) in &self.chains {
            let last = chain.live.values().next_back().map(|batch| self.batch(*batch));
            ensure!(last.is_none_or(|last| last.spec.to == chain.head), "chain {id} has lost its head");
        }
        Ok(())
    }

    fn check_node(&self, id: BatchId, at: u32, node: &Node) -> Result<(), String> {
        let (batch, stage, attempts) = (self.batch(id), node.stage, &node.attempts);
        let is_running = node.state == NodeState::Running;
        ensure!(is_running != attempts.is_empty(), "batch {id} {stage:?}: {:?}, {attempts:?}", node.state);
        let attempts_max = if node.controller.is_some() { 1 } else { self.limits.attempts_max as usize };
        ensure!(attempts.len() <= attempts_max, "batch {id} {stage:?} has {} attempts", attempts.len());
        ensure!(node.is_done() != node.outputs.is_empty(), "batch {id} {stage:?}: outputs without a result");
        ensure!(node.part.is_some() == stage.kind().is_part(), "batch {id} {stage:?} is and is not a part");
        if let Some(controller) = &node.controller {
            self.check_controller(id, at, node, controller)?;
        }
        if batch.phase.is_terminal() {
            ensure!(attempts.is_empty(), "batch {id} has ended, {stage:?} has not");
            let is_kept = batch.phase == Phase::Settled && stage == crate::Stage::Groth16;
            let is_gone = node.outputs.iter().all(|held| held.gone);
            ensure!(is_gone || is_kept, "batch {id} has ended and holds an output of {stage:?}");
            return Ok(());
        }
        if node.part.is_some() {
            return Ok(());
        }
        for (index, held) in (0..).zip(&node.outputs) {
            let is_read = batch.is_consumed(at, index);
            ensure!(held.gone == is_read, "batch {id} {stage:?} {index}: gone {}, read {is_read}", held.gone);
        }
        let has_inputs = self.inputs(id, at).is_some();
        match node.state {
            NodeState::Waiting => {
                ensure!(!has_inputs || batch.gave_up, "batch {id} {stage:?} waits for nothing");
            }
            NodeState::Ready { .. } | NodeState::Running => {
                ensure!(has_inputs, "batch {id} {stage:?} goes on without its inputs");
            }
            NodeState::Done => {}
        }
        Ok(())
    }

    fn check_controller(
        &self,
        id: BatchId,
        at: u32,
        node: &Node,
        controller: &Controller,
    ) -> Result<(), String> {
        let (batch, stage) = (self.batch(id), node.stage);
        let is_over = node.is_done() || batch.phase.is_terminal() || batch.gave_up;
        ensure!(!is_over || controller.parts.is_empty(), "batch {id} {stage:?} is over and has parts");
        ensure!(
            controller.parts.len() <= self.limits.parts_max as usize,
            "batch {id} {stage:?}: too many parts"
        );
        let mut readers: BTreeMap<(AttemptId, u32), u32> = BTreeMap::new();
        let mut outputs = BTreeSet::new();
        let mut done = 0;
        for (key, part) in &controller.parts {
            let Some(entry) = batch.nodes.get(part) else {
                return Err(format!("batch {id} has lost part {key}"));
            };
            let Some(of) = &entry.part else { return Err(format!("part {key} of batch {id} is none")) };
            ensure!((of.parent, of.key) == (at, *key), "part {key} of batch {id} is another's");
            let inputs = entry.given().chain(of.spare.iter().copied());
            for input in inputs {
                let Holder::Attempt(attempt, number) = input.holder else { continue };
                *readers.entry((attempt, number)).or_default() += 1;
            }
            let wants_inputs = matches!(entry.state, NodeState::Ready { .. } | NodeState::Running);
            ensure!(wants_inputs != entry.needs.is_empty(), "part {key} of batch {id}: {:?}", entry.state);
            ensure!(wants_inputs || of.spare.is_empty(), "part {key} of batch {id} has spare inputs");
            ensure!(of.audit.is_none() || entry.is_done(), "part {key} of batch {id} is audited");
            ensure!(
                of.audit.is_none_or(|audit| self.audits.contains_key(&audit)),
                "part {key}'s audit is lost"
            );
            done += u32::from(entry.is_done());
            for held in &entry.outputs {
                let Holder::Attempt(attempt, number) = held.artifact.holder else { continue };
                let item = controller.shelf.get(&(attempt, number));
                ensure!(
                    item.is_some_and(|item| item.output_of == Some(*part)),
                    "part {key}'s output is not there"
                );
                outputs.insert((attempt, number));
            }
        }
        ensure!(done == controller.done, "batch {id} {stage:?}: {done} parts are done");
        for (holder, item) in &controller.shelf {
            let count = readers.remove(holder).unwrap_or(0);
            ensure!(count == item.readers, "batch {id} {stage:?}: {holder:?} has {count} readers");
            let is_output = outputs.contains(holder);
            ensure!(
                is_output == item.output_of.is_some(),
                "batch {id} {stage:?}: {holder:?} is out of place"
            );
            ensure!(is_output || count > 0, "batch {id} {stage:?}: {holder:?} is kept for nobody");
        }
        ensure!(readers.is_empty(), "batch {id} {stage:?}: parts read what is gone");
        for attempt in &controller.dead {
            ensure!(!self.attempts.contains_key(attempt), "attempt {attempt} is dead and alive");
            ensure!(controller.publishes(*attempt), "attempt {attempt} should be fenced");
        }
        Ok(())
    }

    fn check_queues(&self) -> Result<(), String> {
        let mut ready = 0;
        for (id, batch) in &self.batches {
            for (at, node) in &batch.nodes {
                let NodeState::Ready { not_before, rank } = node.state else { continue };
                ready += 1;
                let is_queued = match rank {
                    None => self.delayed.contains(&(not_before, *id, *at)),
                    Some(rank) => self.pools.get(&self.pool_key(*id, *at)).is_some_and(|pool| {
                        pool.ready.get(&self.line(*id, *at)).is_some_and(|ranks| ranks.contains(&rank))
                    }),
                };
                ensure!(is_queued, "batch {id} {:?} is ready and in no queue", node.stage);
            }
        }
        let queued = self.pools.values().map(|pool| pool.ready_count()).sum::<usize>() + self.delayed.len();
        ensure!(queued == ready, "{queued} tasks are queued, {ready} are ready");
        Ok(())
    }

    fn check_attempts(&self) -> Result<(), String> {
        for (id, attempt) in &self.attempts {
            let node = self.node(attempt.batch, attempt.node);
            ensure!(node.attempts.contains(id), "attempt {id} belongs to no task");
            let has_effect = attempt.phase.effect().is_none_or(|effect| self.pending.contains_key(&effect));
            ensure!(has_effect, "attempt {id} has lost its effect");
            let is_on_worker =
                self.workers.get(&attempt.worker).is_some_and(|worker| worker.running.contains(id));
            let fits = is_on_worker == attempt.is_running();
            ensure!(fits, "attempt {id}: {:?}, on worker {is_on_worker}", attempt.phase);
        }
        let nodes = self.batches.values().flat_map(|batch| batch.nodes.values());
        let named: usize = nodes.map(|node| node.attempts.len()).sum();
        ensure!(named == self.attempts.len(), "tasks name {named} attempts of {}", self.attempts.len());
        Ok(())
    }

    fn check_workers(&self) -> Result<(), String> {
        ensure!(self.workers.len() <= self.limits.workers_max as usize, "too many workers");
        let mut seats = 0;
        for (id, worker) in &self.workers {
            let running = || worker.running.iter().map(|attempt| &self.attempts[attempt]);
            let controllers = || running().filter(|attempt| attempt.kind.is_controller());
            let used: u64 = running().map(|attempt| attempt.memory_bytes).sum();
            let by_controllers: u64 = controllers().map(|attempt| attempt.memory_bytes).sum();
            let is_right = (used, by_controllers, controllers().count())
                == (worker.memory_used, worker.controllers_memory, worker.controllers as usize);
            ensure!(is_right, "worker {id} uses {used}, the account says {}", worker.memory_used);
            ensure!(used <= worker.profile.memory_bytes, "worker {id} has more work than memory");
            ensure!(worker.controllers <= worker.profile.controllers, "worker {id} has too many controllers");
            let tasks = worker.running.len() - controllers().count();
            // One that has lost a device may still have a task on it; what it gets is up to `Worker::has_place`.
            let most = self.limits.worker_running_max as usize;
            ensure!(tasks <= most, "worker {id} has more tasks than anybody may");
            let is_idle = worker.session.is_some() || worker.running.is_empty();
            ensure!(is_idle, "worker {id} is gone and has work");
            for kind in Kind::ALL {
                let seat = worker.seats[kind];
                // A quarantine ends at a tick.
                let is_late = worker.quarantines > 0 && seat == Seat::default();
                ensure!(seat == self.seat(*id, kind) || is_late, "worker {id} has lost its seat for {kind}");
                seats += usize::from(seat.is_here);
            }
        }
        let here = self.pools.values().map(|pool| pool.here.len()).sum::<usize>();
        ensure!(here == seats, "{here} seats are taken, {seats} should be");
        let running = self.tenants.values().map(|usage| (usage.running + usage.controllers) as usize);
        let on_workers = self.workers.values().map(|worker| worker.running.len()).sum::<usize>();
        let running = running.sum::<usize>();
        ensure!(running == on_workers, "tenants have {running} tasks running, workers {on_workers}");
        Ok(())
    }

    fn waits_for(&self, attempt: AttemptId, effect: EffectId) -> bool {
        self.attempts.get(&attempt).is_some_and(|attempt| attempt.phase.effect() == Some(effect))
    }

    fn check_pending(&self) -> Result<(), String> {
        let mut counts: BTreeMap<BatchId, u32> = BTreeMap::new();
        for effect in self.pending.values() {
            ensure!(!effect.is_message(), "message {} is pending", effect.id);
            ensure!(self.batches.contains_key(&effect.batch), "work {} has lost its batch", effect.id);
            *counts.entry(effect.batch).or_default() += 1;
            let waits = match &effect.action {
                Action::Work(Work::Verify { attempt, .. }) => self.waits_for(*attempt, effect.id),
                Action::Work(Work::Audit { attempt, .. }) => {
                    self.audits.contains_key(&effect.id) || self.waits_for(*attempt, effect.id)
                }
                _ => true,
            };
            ensure!(waits, "nobody waits for work {}", effect.id);
        }
        for (id, batch) in &self.batches {
            let count = counts.get(id).copied().unwrap_or(0);
            ensure!(count == batch.effects, "batch {id} has {count} pieces of work, not {}", batch.effects);
        }
        for (effect, (id, at)) in &self.audits {
            ensure!(self.pending.contains_key(effect), "audit {effect} is not pending");
            let audit = self.node(*id, *at).part.as_ref().and_then(|part| part.audit);
            ensure!(audit == Some(*effect), "audit {effect} belongs to no part");
        }
        Ok(())
    }
}
