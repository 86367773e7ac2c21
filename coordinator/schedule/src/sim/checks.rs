//! What the simulator expects of the machine, besides its own invariants.

use std::collections::BTreeSet;

use super::coordinators::notices;
use super::oracle::{content_of, is_right_key};
use super::world::{Outcome, World};
use crate::{
    Action, AttemptId, BatchId, BatchStatus, Dispatch, Effect, Event, Failure, Holder, Machine, Message,
    Phase, Stage,
};

impl World {
    /// Looks at an event that coordinator `which` has committed.
    pub(super) fn watch(&mut self, which: usize, event: &Event) {
        let Some(machine) = &self.coordinators[which].machine else { return };
        match event {
            Event::TakeOver { .. } => self.told = (true, false),
            Event::Store { available, full } => self.told = (*available, *full),
            Event::Submit { spec } => {
                let batch = machine.batch_by_key(spec.tenant, &spec.key);
                self.clients[spec.chain.0 as usize].learn(batch);
            }
            Event::Spawn { worker, attempt, parts, .. } if self.bad_worker == Some(worker.0) => {
                let Some((batch, ..)) = machine.attempt(*attempt) else { return };
                for part in parts {
                    self.suspicious.insert((batch, part.key));
                    let inputs: Vec<u64> = part.inputs.iter().map(|input| content_of(input.hash)).collect();
                    if inputs.is_empty() || !is_right_key(part.kind, part.key, &inputs) {
                        self.lossy.insert(batch);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn check_step(&mut self, which: usize, effects: &[Effect]) -> Outcome {
        let machine = self.coordinators[which].machine.as_ref().expect("it has just stepped");
        for worker in machine.workers().filter(|worker| worker.quarantined_until.is_some()) {
            if Some(worker.worker.0) != self.bad_worker {
                return Err(format!("honest worker {} is in quarantine", worker.worker));
            }
        }
        // None of these workers loses a device; one that does may have a task on it for a while.
        if let Some(full) =
            machine.workers().find(|worker| worker.running - worker.controllers > worker.slots)
        {
            return Err(format!("worker {} has more tasks than slots", full.worker));
        }
        let dispatches = || {
            effects.iter().filter_map(|effect| match &effect.action {
                Action::Message(Message::Dispatch(dispatch)) => Some(dispatch),
                _ => None,
            })
        };
        dispatches().try_for_each(|dispatch| self.check_dispatch(machine, dispatch))?;
        for dispatch in dispatches() {
            if !self.finished.contains(&(dispatch.batch, dispatch.key)) {
                continue;
            }
            if !self.lossy.contains(&dispatch.batch) {
                return Err(format!(
                    "{:?} of batch {} was finished and is proved again",
                    dispatch.stage, dispatch.batch
                ));
            }
            self.summary.redone_lost += 1;
        }
        let ended: Vec<(BatchId, Phase)> = notices(effects).map(|(id, phase)| (id, phase.clone())).collect();
        ended.into_iter().try_for_each(|(id, phase)| self.notified(id, phase))
    }

    /// Nothing is sent while the store is away; while it is full, what needs room waits, but for the oldest batch that does.
    fn check_dispatch(&self, machine: &Machine, dispatch: &Dispatch) -> Outcome {
        let (available, full) = self.told;
        let (stage, batch) = (dispatch.stage, dispatch.batch);
        if !available {
            return Err(format!("{stage:?} of batch {batch} is sent while the store is away"));
        }
        if !full || !stage.kind().grows() {
            return Ok(());
        }
        let is_growing = |id: &BatchId| {
            let status = machine.status(*id);
            let is_folded =
                |status: &BatchStatus| status.tasks.iter().any(|task| task.stage == Stage::Fold && task.done);
            status.is_some_and(|status| !status.phase.is_terminal() && !is_folded(&status))
        };
        match machine.batches().map(|(id, _)| id).find(is_growing) {
            Some(oldest) if oldest == batch => Ok(()),
            _ => Err(format!("{stage:?} of batch {batch} is sent while the store is full")),
        }
    }

    /// The owner hears how its batch stands.
    fn notified(&mut self, batch: BatchId, phase: Phase) -> Outcome {
        if let Some(before) = self.outcomes.get(&batch) {
            return Err(format!("batch {batch} has ended as {before:?}, and now: {phase:?}"));
        }
        if !phase.is_terminal() {
            return Ok(());
        }
        let is_settled = self.settled.values().any(|settled| *settled == batch);
        let mut sent = self.clients.iter().flat_map(|client| &client.sent);
        let info = sent.find(|sent| sent.batch == Some(batch));
        let info = info.ok_or_else(|| format!("batch {batch} was submitted by nobody"))?;
        let is_just = match &phase {
            Phase::Settled => is_settled,
            Phase::Cancelled => info.cancelled,
            Phase::Failed(Failure::Rejected { .. }) => info.is_bad,
            Phase::Failed(Failure::Deadline { .. }) => info.is_urgent,
            Phase::Failed(Failure::Predecessor { .. }) => true,
            Phase::Failed(Failure::History) => self.may_lose_history.contains(&info.chain),
            _ => false,
        };
        if !is_just || (phase != Phase::Settled && is_settled) {
            return Err(format!("batch {batch} ended without a reason, settled {is_settled}: {phase:?}"));
        }
        match phase {
            Phase::Settled => self.summary.settled += 1,
            _ => self.summary.failed += 1,
        }
        self.outcomes.insert(batch, phase);
        Ok(())
    }

    pub(super) fn is_at_rest(&self) -> bool {
        let is_idle = self.clients.iter().all(|client| client.left == 0 && client.draft.is_none());
        is_idle
            && self.queue.inbox.is_empty()
            && self.workers.iter().all(|worker| worker.outbox.is_empty() && worker.running.is_empty())
            && self.newest().is_some_and(|machine| {
                machine.batches().all(|(_, phase)| phase.is_terminal()) && machine.pending().next().is_none()
            })
    }

    pub(super) fn check_end(&mut self) -> Outcome {
        self.load()?;
        let machine = self.newest().ok_or("nobody leads at the end")?;
        if machine.workers().any(|worker| worker.running > 0) {
            return Err("a worker has work at the end".into());
        }
        let held: BTreeSet<Holder> = machine.artifacts().map(|artifact| artifact.holder).collect();
        // What else an attempt has published is deleted with the last thing of it that is held.
        let attempts: BTreeSet<AttemptId> = held.iter().filter_map(attempt_of).collect();
        let is_leaked = |holder: &&Holder| {
            !held.contains(*holder) && attempt_of(holder).is_none_or(|attempt| !attempts.contains(&attempt))
        };
        let leaked: Vec<&Holder> = self.store.keys().filter(is_leaked).collect();
        if let Some(first) = leaked.first() {
            return Err(format!("{} artifacts leak, {first:?} first", leaked.len()));
        }
        if let Some(lost) = held.iter().find(|holder| !self.store.contains_key(holder)) {
            return Err(format!("{lost:?} is deleted and still wanted"));
        }
        let sent = self.clients.iter().flat_map(|client| &client.sent);
        let taken: Vec<BatchId> = sent.filter_map(|sent| sent.batch).collect();
        if let Some(lost) = taken.iter().find(|batch| !self.outcomes.contains_key(batch)) {
            return Err(format!("batch {lost} was taken and never ended"));
        }
        self.summary.batches = taken.len() as u32;
        Ok(())
    }
}

fn attempt_of(holder: &Holder) -> Option<AttemptId> {
    match holder {
        Holder::Attempt(attempt, _) => Some(*attempt),
        Holder::Intake(_) => None,
    }
}
