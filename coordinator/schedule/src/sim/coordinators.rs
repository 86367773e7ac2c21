//! The coordinators: leadership, one step and its commit, the log's replay.

use super::queue::Mail;
use super::rng::mix;
use super::world::{Msg, Outcome, World};
use super::{Fault, Step, Weakness};
use crate::{
    Action, AttemptId, BatchId, Class, Effect, Error, Event, Hash, Kind, Machine, Message, Recipient, Time,
    Verdict, Work, WorkerId,
};

const LEASE_MS: u64 = 4_000;
/// Records after which a leader makes a checkpoint.
const CHECKPOINT_RECORDS: usize = 200;

pub(super) struct Coordinator {
    pub machine: Option<Machine>,
    /// What the machine has seen of the log.
    pub position: u64,
    /// Differs with each start of the process.
    pub life: u64,
    pub down_until: u64,
    pub paused_until: u64,
    pub skew_ms: u64,
}

impl Coordinator {
    pub(super) fn new() -> Self {
        Self { machine: None, position: 0, life: 0, down_until: 0, paused_until: 0, skew_ms: 0 }
    }
}

/// What a step was answered with, if it was taken.
pub(super) type Answer = Option<Result<(), Error>>;

impl World {
    /// Whoever believes to lead and can act.
    pub(super) fn leader(&mut self) -> Option<usize> {
        let first = self.rng.below(2) as usize;
        [first, 1 - first].into_iter().find(|which| {
            let coordinator = &self.coordinators[*which];
            coordinator.machine.is_some() && coordinator.paused_until <= self.now
        })
    }

    /// The machine of the latest term.
    pub(super) fn newest(&self) -> Option<&Machine> {
        let machines = self.coordinators.iter().filter_map(|coordinator| coordinator.machine.as_ref());
        machines.max_by_key(|machine| machine.epoch())
    }

    pub(super) fn crash(&mut self, which: usize) {
        self.forget_memory(which);
        self.coordinators[which].down_until = self.now + 500 + self.rng.below(8_000);
        self.summary.faults += 1;
    }

    fn forget_memory(&mut self, which: usize) {
        let coordinator = &mut self.coordinators[which];
        coordinator.life += 1;
        if let Some(machine) = coordinator.machine.take() {
            if coordinator.position == self.queue.position {
                self.shadow = Some((machine, self.queue.position));
            }
        }
    }

    /// The state as a new leader finds it: the checkpoint and the log since. Equal to what the last leader had in memory.
    pub(super) fn load(&self) -> Result<Machine, String> {
        let mut machine: Machine = bincode::deserialize(&self.queue.checkpoint)
            .map_err(|error| format!("the checkpoint: {error}"))?;
        for (event, at) in &self.queue.log {
            let result = machine.step(event.clone(), *at);
            result.map_err(|error| format!("{event:?} was taken, and its replay is refused: {error}"))?;
        }
        let live = self.coordinators.iter().filter(|other| other.position == self.queue.position);
        let live = live.filter_map(|other| other.machine.as_ref());
        let shadow = self.shadow.iter().filter(|(_, position)| *position == self.queue.position);
        for expected in live.chain(shadow.map(|(machine, _)| machine)) {
            if *expected != machine {
                return Err("the log's replay gives another machine".into());
            }
        }
        Ok(machine)
    }

    pub(super) fn coordinate(&mut self, which: usize) -> Outcome {
        let wait = 900 + self.rng.below(200);
        self.send(wait, Msg::Coordinator(which));
        let coordinator = &self.coordinators[which];
        if coordinator.down_until > self.now || coordinator.paused_until > self.now || self.is_down() {
            return Ok(());
        }
        let now = Time(self.now + coordinator.skew_ms);
        let is_leading = coordinator.machine.is_some();
        // A deposed leader keeps acting until it notices: at its next write, which is refused.
        let is_deposed = is_leading && self.queue.lease.holder != which as u64 + 1;
        if is_deposed && self.rng.permille(300) {
            self.forget_memory(which);
            return Ok(());
        }
        if !is_deposed {
            let claim = self.queue.lease.claim(which as u64 + 1, is_leading, now, LEASE_MS);
            let Some(lease) = claim else { return Ok(()) };
            self.queue.lease = lease;
        }
        if !is_leading {
            self.lead(which)?;
        }
        self.drain(which)?;
        let (available, full) = (!self.is_store_down(), self.now < self.store_full_until);
        if (available, full) != self.told {
            self.deliver(which, Event::Store { available, full })?;
        }
        self.deliver(which, Event::Tick)?;
        self.checkpoint(which);
        Ok(())
    }

    fn lead(&mut self, which: usize) -> Outcome {
        let epoch = self.queue.lease.epoch;
        self.queue.epoch = epoch;
        let machine = self.load()?;
        self.summary.replayed += self.queue.log.len() as u64;
        self.coordinators[which].machine = Some(machine);
        self.coordinators[which].position = self.queue.position;
        self.shadow = None;
        self.summary.takeovers += 1;
        self.deliver(which, Event::TakeOver { epoch })?;
        Ok(())
    }

    fn checkpoint(&mut self, which: usize) {
        let coordinator = &self.coordinators[which];
        let Some(machine) = &coordinator.machine else { return };
        let is_current = coordinator.position == self.queue.position && machine.epoch() == self.queue.epoch;
        if is_current && self.queue.log.len() >= CHECKPOINT_RECORDS {
            self.queue.checkpoint = bincode::serialize(machine).expect("the state serialises");
            self.queue.log.clear();
        }
    }

    /// A worker's event is in the inbox.
    pub(super) fn posted(&mut self, event: Event) -> Outcome {
        if self.is_down() {
            // The worker repeats it.
            return Ok(());
        }
        self.queue.inbox.push_back(event);
        match self.leader() {
            Some(leader) => self.drain(leader),
            None => Ok(()),
        }
    }

    fn drain(&mut self, which: usize) -> Outcome {
        while let Some(event) = self.queue.inbox.front().cloned() {
            if self.deliver(which, event)?.is_none() {
                break;
            }
            self.queue.inbox.pop_front();
        }
        Ok(())
    }

    /// One step of a coordinator: take the event, commit, begin the work. `None`: the event was not taken and stays where
    /// it is.
    pub(super) fn deliver(&mut self, which: usize, event: Event) -> Result<Answer, String> {
        let coordinator = &self.coordinators[which];
        if coordinator.machine.is_none() || coordinator.paused_until > self.now || self.is_down() {
            return Ok(None);
        }
        if self.fails(Fault::CoordinatorKilled, 2) {
            // Dies before the commit: as if the event had not come.
            self.crash(which);
            return Ok(None);
        }
        let now = Time(self.now + self.coordinators[which].skew_ms);
        let finished = self.about_to_finish(which, &event);
        let is_watched = self.rng.below(16) == 0;
        let machine = self.coordinators[which].machine.as_mut().expect("looked at above");
        let before = is_watched.then(|| machine.clone());
        let result = machine.step(event.clone(), now);
        machine.check()?;
        self.summary.steps += 1;
        let epoch = machine.epoch();
        if let (Err(error), Some(before)) = (&result, &before) {
            if before != machine {
                return Err(format!("{event:?} is refused ({error}) and has changed the state"));
            }
        }
        let mut mails = replies(&event, &result);
        let record = result.is_ok().then(|| (event.clone(), now));
        let is_taken = record.is_some();
        if let Ok(effects) = &result {
            mails.extend(effects.iter().filter_map(mail));
            if matches!(event, Event::Spawn { .. }) {
                let delivered = mails.iter().filter(|(_, mail)| is_delivery(mail));
                self.summary.found_done += delivered.count() as u64;
            }
        }
        let mailboxes: Vec<u64> = mails.iter().map(|((worker, _), _)| *worker).collect();
        if !self.queue.commit(epoch, !self.lacks(Weakness::Epochs), record, mails) {
            // Another leads: what this one has in memory is worth nothing.
            self.coordinators[which].position = u64::MAX;
            self.forget_memory(which);
            return Ok(None);
        }
        for worker in mailboxes {
            let delay = self.latency();
            self.send(delay, Msg::Mail(worker));
        }
        let effects = match result {
            Ok(effects) => effects,
            Err(error) => return Ok(Some(Err(error))),
        };
        self.coordinators[which].position += u64::from(is_taken);
        if let Some((place, kind)) = finished {
            match kind.is_part() {
                true => self.summary.parts += 1,
                false => self.summary.tasks += 1,
            }
            if !self.suspicious.contains(&place) {
                self.finished.insert(place);
            }
        }
        self.watch(which, &event);
        if let Some(tape) = &mut self.tape {
            tape.push(Step { event, at: now, effects: effects.clone() });
        }
        self.check_step(which, &effects)?;
        self.begin(which, effects);
        Ok(Some(Ok(())))
    }

    /// Begins the work of a step; perhaps the coordinator dies meanwhile.
    fn begin(&mut self, which: usize, effects: Vec<Effect>) {
        self.summary.trace = mix(self.summary.trace ^ mix(self.now) ^ effects.len() as u64);
        let work: Vec<Effect> = effects.into_iter().filter(|effect| !effect.is_message()).collect();
        let dies = self.fails(Fault::CoordinatorKilled, 3);
        let begun = if dies { self.rng.below(work.len() as u64 + 1) as usize } else { work.len() };
        for effect in work.into_iter().take(begun) {
            let life = self.coordinators[which].life;
            let delay = self.latency();
            self.summary.trace = mix(self.summary.trace ^ effect.id.0);
            self.send(delay, Msg::Carry { by: which, life, effect });
        }
        if dies {
            self.crash(which);
        }
    }

    /// The task that is done if this event is taken.
    fn about_to_finish(&self, which: usize, event: &Event) -> Option<((BatchId, Hash), Kind)> {
        let Event::Verified { effect, verdict: Verdict::Read { hashes, valid: true } } = event else {
            return None;
        };
        let machine = self.coordinators[which].machine.as_ref()?;
        let effect = machine.pending().find(|pending| pending.id == *effect)?;
        match &effect.action {
            Action::Work(Work::Verify { key, stage, outputs, .. })
                if outputs.iter().map(|o| o.hash).eq(hashes.iter().copied()) =>
            {
                Some(((effect.batch, *key), stage.kind()))
            }
            _ => None,
        }
    }
}

/// What the shell answers a worker, in the same commit.
fn replies(event: &Event, result: &Result<Vec<Effect>, Error>) -> Vec<((u64, u64), Mail)> {
    let Some((worker, session)) = event.worker() else { return Vec::new() };
    let mailbox = (worker.0, session);
    let closed = |attempt: &AttemptId| vec![(mailbox, Mail::Closed(*attempt))];
    match (event, result) {
        (Event::Heartbeat { .. }, Err(Error::UnknownWorker { .. })) => vec![(mailbox, Mail::Register)],
        (Event::Result { attempt, .. }, Ok(_)) => closed(attempt),
        (Event::Result { attempt, .. } | Event::Spawn { attempt, .. }, Err(error))
            if error.class() == Class::Permanent =>
        {
            closed(attempt)
        }
        _ => Vec::new(),
    }
}

fn mail(effect: &Effect) -> Option<((u64, u64), Mail)> {
    let Action::Message(message) = &effect.action else { return None };
    match message.recipient(effect.batch) {
        Recipient::Worker { worker: WorkerId(worker), session } => {
            Some(((worker, session), Mail::Machine(message.clone())))
        }
        Recipient::Subscribers { .. } => None,
    }
}

fn is_delivery(mail: &Mail) -> bool {
    matches!(mail, Mail::Machine(Message::Deliver { .. }))
}

/// Phases that subscribers are told in a step.
pub(super) fn notices(effects: &[Effect]) -> impl Iterator<Item = (BatchId, &crate::Phase)> {
    effects.iter().filter_map(|effect| match &effect.action {
        Action::Message(Message::Notify { phase }) => Some((effect.batch, phase)),
        _ => None,
    })
}
