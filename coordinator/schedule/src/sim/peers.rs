//! Workers, clients, and what breaks.

use std::collections::{BTreeMap, BTreeSet};

use super::rng::{mix, Rng};
use super::world::{hash_of, outputs_of, Blob, Msg, Outcome, World};
use crate::{
    AttemptId, BatchId, ChainId, Class, Error, Event, Holder, Kind, Output, Profile, Report, Spec, Stage,
    TenantId, Time, WorkerId,
};

pub(super) struct SimWorker {
    pub session: u64,
    pub profile: Profile,
    pub down_until: u64,
    /// Paused, or cut off from everything.
    pub paused_until: u64,
    pub cut_until: u64,
    /// Percent of the usual time.
    pub slowness: u64,
    /// Tasks, and when they end.
    pub running: BTreeSet<AttemptId>,
    /// Reports that nobody has acknowledged.
    pub outbox: BTreeMap<AttemptId, Report>,
    has_joined: bool,
}

impl SimWorker {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let profile = Profile {
            kinds: Kind::ALL.to_vec(),
            version: 1,
            memory_bytes: 12 + rng.below(8),
            slots: 1 + rng.below(3) as u32,
        };
        Self {
            session: 1,
            profile,
            down_until: 0,
            paused_until: 0,
            cut_until: 0,
            slowness: 50 + rng.below(200),
            running: BTreeSet::new(),
            outbox: BTreeMap::new(),
            has_joined: false,
        }
    }

    pub(super) fn stop(&mut self, attempt: AttemptId) {
        self.running.remove(&attempt);
    }
}

/// A batch that a client has sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub batch: Option<BatchId>,
    pub is_bad: bool,
    pub is_urgent: bool,
    pub cancelled: bool,
}

pub(super) struct Client {
    chain: u64,
    /// Batches still to be sent.
    pub left: u32,
    /// The one being sent, until it is answered.
    pub draft: Option<(Spec, Sent)>,
    pub sent: Vec<Sent>,
    next_sequence: u64,
    next_key: u64,
}

impl Client {
    pub(super) fn new(chain: u64, left: u32) -> Self {
        Self { chain, left, draft: None, sent: Vec::new(), next_sequence: 0, next_key: 0 }
    }
}

/// Payloads of this kind can never be executed.
fn is_bad_payload(content: u64) -> bool {
    content % 16 == 5
}

impl World {
    pub(super) fn worker_turn(&mut self, id: u64) {
        self.send(1_500, Msg::Worker(id));
        let now = self.now;
        let worker = &mut self.workers[id as usize];
        if worker.down_until > now || worker.paused_until > now || worker.cut_until > now {
            return;
        }
        if !worker.has_joined {
            worker.has_joined = true;
            self.join(id);
            return;
        }
        let running = worker.running.iter().chain(worker.outbox.keys()).copied().collect();
        let (worker_id, session) = (WorkerId(id), worker.session);
        let reports: Vec<_> =
            worker.outbox.iter().map(|(attempt, report)| (*attempt, report.clone())).collect();
        let delay = self.latency();
        self.send(
            delay,
            Msg::FromWorker { worker: id, event: Event::Heartbeat { worker: worker_id, session, running } },
        );
        for (attempt, report) in reports {
            self.report(id, session, attempt, report);
        }
    }

    fn report(&mut self, id: u64, session: u64, attempt: AttemptId, report: Report) {
        let delay = self.latency();
        if self.faulty() && self.rng.permille(20) {
            return;
        }
        let event = Event::Result { worker: WorkerId(id), session, attempt, report };
        self.send(delay, Msg::FromWorker { worker: id, event });
    }

    pub(super) fn task_arrives(&mut self, id: u64, session: u64, attempt: AttemptId) {
        let worker = &self.workers[id as usize];
        let is_known = worker.running.contains(&attempt) || worker.outbox.contains_key(&attempt);
        if worker.session != session || worker.down_until > self.now || is_known {
            return;
        }
        if !self.options.weak_fencing && self.revoked.contains(&attempt) {
            return;
        }
        let slowness = worker.slowness;
        let kind = self.tasks[&attempt].stage.kind();
        let usual = if kind == Kind::Wrap { 800 } else { 100 + self.rng.below(300) };
        let straggles = self.faulty() && self.rng.permille(20);
        let takes = usual * slowness / 100 * if straggles { 12 } else { 1 };
        self.workers[id as usize].running.insert(attempt);
        self.send(takes, Msg::TaskEnd { worker: id, session, attempt });
    }

    pub(super) fn task_end(&mut self, id: u64, session: u64, attempt: AttemptId) {
        let worker = &self.workers[id as usize];
        if worker.session != session || !worker.running.contains(&attempt) {
            return;
        }
        let until = worker.paused_until.max(worker.cut_until).max(self.redis_down_until);
        if until > self.now {
            self.send(until - self.now + 1, Msg::TaskEnd { worker: id, session, attempt });
            return;
        }
        let report = self.work(id, attempt);
        let Some(report) = report else {
            self.send(500, Msg::TaskEnd { worker: id, session, attempt });
            return;
        };
        let worker = &mut self.workers[id as usize];
        worker.running.remove(&attempt);
        worker.outbox.insert(attempt, report.clone());
        self.report(id, session, attempt, report);
    }

    /// What a task yields; `None` if the store takes nothing now.
    fn work(&mut self, id: u64, attempt: AttemptId) -> Option<Report> {
        let task = self.tasks[&attempt].clone();
        let kind = task.stage.kind();
        for (index, input) in (0..).zip(&task.inputs) {
            if self.store.get(&input.holder).is_none_or(|blob| blob.content != input.hash) {
                return Some(Report::InputLost { input: index });
            }
        }
        let payload = u64::from_le_bytes(task.inputs[0].hash.0[..8].try_into().expect("eight bytes"));
        if task.stage == Stage::Execute && is_bad_payload(payload) {
            return Some(Report::Permanent { reason: "block 3: bad state root".into() });
        }
        if self.faulty() && self.rng.permille(15) {
            let reason = "device reset".into();
            return Some(if self.rng.permille(500) {
                Report::OutOfMemory
            } else {
                Report::Transient { reason }
            });
        }
        if kind.grows() && self.now < self.store_full_until {
            return None;
        }
        if self.revoked.contains(&attempt) && !self.options.weak_fencing {
            // The store refuses; the worker gives up. The report is answered as stale.
            return Some(Report::Transient { reason: "fenced".into() });
        }
        let lies = Some(id) == self.bad_worker && self.rng.permille(300);
        let contents = outputs_of(kind, task.inputs.iter().map(|input| input.hash));
        let mut outputs = Vec::new();
        for (index, content) in (0..).zip(contents) {
            let content = if lies { mix(content ^ 1) } else { content };
            let is_corrupt = self.faulty() && self.rng.permille(8);
            let read = hash_of(if is_corrupt { !content } else { content });
            self.summary.faults += u64::from(is_corrupt);
            let blob = Blob { content: read, kind: Some(kind), batch: Some(task.batch) };
            self.store.insert(Holder::Attempt(attempt, index), blob);
            outputs.push(Output { hash: hash_of(content), bytes: 1 + content % 8, units: 1 });
        }
        Some(Report::Finished { outputs })
    }

    pub(super) fn client_turn(&mut self, which: usize) -> Outcome {
        let wait = 200 + self.rng.below(800);
        self.send(wait, Msg::Client(which));
        if self.redis_is_down() {
            return Ok(());
        }
        if self.faulty() && self.rng.permille(10) {
            self.cancel_something(which)?;
        }
        if self.clients[which].draft.is_none() && self.clients[which].left > 0 {
            self.draft(which);
        }
        let Some((spec, _)) = self.clients[which].draft.clone() else { return Ok(()) };
        let Some(leader) = self.leader() else { return Ok(()) };
        let Some(answer) = self.deliver(leader, Event::Submit { spec: spec.clone() })? else { return Ok(()) };
        match answer {
            Ok(()) => self.taken(which, leader, &spec),
            Err(Error::Sequence { expected, .. }) => {
                self.clients[which].next_sequence = expected;
                self.give_back(which, &spec);
            }
            Err(error) if error.class() == Class::Permanent => self.give_back(which, &spec),
            Err(_) => {}
        }
        Ok(())
    }

    fn draft(&mut self, which: usize) {
        let content = self.rng.next();
        let is_urgent = self.rng.permille(40);
        let is_patient = self.rng.permille(300);
        let client = &mut self.clients[which];
        let key = format!("{}/{}", client.chain, client.next_key);
        client.next_key += 1;
        let deadline = self.now + if is_urgent { 8_000 } else { 120_000 };
        let spec = Spec {
            tenant: TenantId(client.chain),
            key,
            chain: ChainId(client.chain),
            sequence: client.next_sequence,
            payload: hash_of(content),
            payload_bytes: 1,
            units: 1,
            version: 1,
            priority: (content % 3) as u8,
            deadline: (is_urgent || is_patient).then_some(Time(deadline)),
            deadline_is_hard: is_urgent,
        };
        let sent = Sent { batch: None, is_bad: is_bad_payload(content), is_urgent, cancelled: false };
        let blob = Blob { content: spec.payload, kind: None, batch: None };
        self.store.insert(spec.holder(), blob);
        client.draft = Some((spec, sent));
    }

    fn give_back(&mut self, which: usize, spec: &Spec) {
        self.store.remove(&spec.holder());
        self.clients[which].draft = None;
    }

    fn taken(&mut self, which: usize, leader: usize, spec: &Spec) {
        // The coordinator may have died right after it stored the batch: then the client asks again.
        let machine = self.coordinators[leader].machine.as_ref();
        let batch = machine.and_then(|machine| machine.batch_by_key(spec.tenant, &spec.key));
        let is_first = self.clients[which].draft.as_ref().is_some_and(|(_, sent)| sent.batch.is_none());
        let client = &mut self.clients[which];
        if is_first && batch.is_some() {
            if let Some((_, sent)) = &mut client.draft {
                sent.batch = batch;
                client.sent.push(sent.clone());
            }
        }
        if batch.is_none() || (self.now < self.heal_at && self.rng.permille(50)) {
            // The answer is lost: the same submission comes again.
            return;
        }
        let client = &mut self.clients[which];
        client.draft = None;
        client.left -= 1;
        client.next_sequence = spec.sequence + 1;
    }

    fn cancel_something(&mut self, which: usize) -> Outcome {
        let Some(leader) = self.leader() else { return Ok(()) };
        let tenant = TenantId(self.clients[which].chain);
        let Some(at) = self.clients[which].sent.len().checked_sub(1) else { return Ok(()) };
        let Some(batch) = self.clients[which].sent[at].batch else { return Ok(()) };
        self.clients[which].sent[at].cancelled = true;
        self.deliver(leader, Event::Cancel { tenant, batch })?;
        Ok(())
    }

    /// Breaks something, as long as it is time for it.
    pub(super) fn fault(&mut self) {
        if !self.faulty() {
            return;
        }
        let wait = 300 + self.rng.below(3_000);
        self.send(wait, Msg::Fault);
        self.summary.faults += 1;
        let which = self.rng.below(self.workers.len() as u64) as usize;
        let length = 500 + self.rng.below(10_000);
        let until = self.now + length;
        match self.rng.below(10) {
            0 | 1 => {
                let worker = &mut self.workers[which];
                worker.session += 1;
                worker.down_until = until;
                worker.has_joined = false;
                worker.running.clear();
                worker.outbox.clear();
            }
            2 => self.workers[which].paused_until = until,
            3 => self.workers[which].cut_until = until,
            4 => {
                let coordinator = self.rng.below(2) as usize;
                self.crash(coordinator);
            }
            5 | 6 => {
                let coordinator = self.rng.below(2) as usize;
                self.coordinators[coordinator].paused_until = until;
            }
            7 => self.redis_down_until = self.now + length / 3,
            8 => self.store_full_until = until,
            _ => self.rot(),
        }
    }

    /// Corrupts an artifact at rest. Not a fold proof: the settled one is all that is left of the history, and losing it
    /// is a failure that the machine reports and nobody can repair.
    fn rot(&mut self) {
        let candidates =
            self.store.iter().filter(|(_, blob)| blob.kind.is_some_and(|kind| kind != Kind::Fold));
        let candidates: Vec<Holder> = candidates.map(|(holder, _)| *holder).collect();
        if candidates.is_empty() {
            return;
        }
        let holder = candidates[self.rng.below(candidates.len() as u64) as usize];
        let blob = self.store.get_mut(&holder).expect("one of the candidates");
        blob.content.0[31] ^= 1;
        if let Some(batch) = blob.batch {
            self.lossy.insert(batch);
        }
    }
}
