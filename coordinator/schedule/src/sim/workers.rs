//! Workers: processes that read their mailbox, work, publish, and repeat what nobody has answered.

use std::collections::{BTreeMap, BTreeSet};

use super::clients::is_bad_payload;
use super::oracle::{content_of, forged, hash_of, is_forged, outputs_of, plan, Plan, Wanted};
use super::queue::Mail;
use super::rng::{mix, Rng};
use super::world::{Blob, Msg, World};
use super::{Fault, Weakness};
use crate::{
    Artifact, AttemptId, BatchId, Dispatch, Event, Hash, Holder, Input, Kind, Message, Output, Part, Profile,
    Report, Stage, WorkerId,
};

/// A part that a controller has asked for.
pub(super) struct Asked {
    wanted: Wanted,
    inputs: Vec<Artifact>,
}

/// A task on a worker.
pub(super) struct Running {
    pub dispatch: Dispatch,
    /// Of a controller: outputs of its parts so far, and where they are.
    results: BTreeMap<Hash, Vec<u64>>,
    delivered: BTreeMap<u64, Artifact>,
    asked: BTreeMap<Hash, Asked>,
    next_number: u32,
}

pub(super) struct SimWorker {
    pub session: u64,
    pub profile: Profile,
    pub down_until: u64,
    /// Paused, or cut off from everything.
    pub paused_until: u64,
    pub cut_until: u64,
    /// Percent of the usual time.
    slowness: u64,
    pub running: BTreeMap<AttemptId, Running>,
    /// Reports that nobody has answered.
    pub outbox: BTreeMap<AttemptId, Report>,
    /// Attempts that are over: a message about one is late.
    over: BTreeSet<AttemptId>,
    /// Mails read.
    cursor: usize,
    has_joined: bool,
}

impl SimWorker {
    pub(super) fn new(id: u64, rng: &mut Rng) -> Self {
        let (all, parts) = (Kind::ALL.to_vec(), vec![Kind::Shard, Kind::Reduce]);
        let others = vec![Kind::Execute, Kind::Block, Kind::Fold, Kind::Wrap, Kind::Groth16];
        let (kinds, controllers) = match (id, rng.below(5)) {
            (0 | 1, _) | (_, 0..=2) => (all, 1 + rng.below(2) as u32),
            (_, 3) => (parts, 0),
            _ => (others, 2),
        };
        let (memory_bytes, slots) = (12 + rng.below(8), 1 + rng.below(3) as u32);
        Self {
            session: 1,
            profile: Profile { kinds, version: 1, memory_bytes, slots, controllers },
            down_until: 0,
            paused_until: 0,
            cut_until: 0,
            slowness: 50 + rng.below(200),
            running: BTreeMap::new(),
            outbox: BTreeMap::new(),
            over: BTreeSet::new(),
            cursor: 0,
            has_joined: false,
        }
    }

    /// The process is killed and starts again later.
    pub(super) fn die(&mut self, is_clean: bool, until: u64) {
        self.down_until = until;
        self.has_joined = false;
        self.over.extend(self.running.keys());
        self.running.clear();
        if is_clean {
            self.session += 1;
            self.cursor = 0;
            self.outbox.clear();
            self.over.clear();
        }
    }

    fn is_away(&self, now: u64) -> bool {
        self.down_until > now || self.paused_until > now || self.cut_until > now
    }

    fn stop(&mut self, attempt: AttemptId) {
        self.running.remove(&attempt);
        self.outbox.remove(&attempt);
        self.over.insert(attempt);
    }
}

impl World {
    fn worker(&mut self, id: u64) -> &mut SimWorker {
        &mut self.workers[id as usize]
    }

    pub(super) fn worker_turn(&mut self, id: u64) {
        self.send(1_500, Msg::Worker(id));
        let worker = &mut self.workers[id as usize];
        if worker.is_away(self.now) {
            return;
        }
        let (worker_id, session) = (WorkerId(id), worker.session);
        if !worker.has_joined {
            worker.has_joined = true;
            let profile = worker.profile.clone();
            self.post(Event::Join { worker: worker_id, session, profile });
            return;
        }
        let running = worker.running.keys().chain(worker.outbox.keys()).copied().collect();
        let reports: Vec<(AttemptId, Report)> =
            worker.outbox.iter().map(|(attempt, report)| (*attempt, report.clone())).collect();
        let asking: Vec<AttemptId> = worker.running.keys().copied().collect();
        self.post(Event::Heartbeat { worker: worker_id, session, running });
        if self.lacks(Weakness::Repetition) {
            return self.read_mail(id);
        }
        for (attempt, report) in reports {
            self.post(Event::Result { worker: worker_id, session, attempt, report });
        }
        for attempt in asking {
            let asked = &self.workers[id as usize].running[&attempt].asked;
            let keys = asked.keys().copied().collect();
            self.ask(id, attempt, keys);
        }
        // Mail is looked for even if nobody rang, and sometimes read twice.
        if self.fails(Fault::Twice, 30) {
            let worker = self.worker(id);
            worker.cursor = worker.cursor.saturating_sub(5);
        }
        self.read_mail(id);
    }

    /// Puts an event into the inbox: late, twice or never.
    fn post(&mut self, event: Event) {
        if self.fails(Fault::Lost, 20) {
            return;
        }
        if self.fails(Fault::Twice, 20) {
            let delay = self.latency() + self.rng.below(300);
            self.send(delay, Msg::Post(event.clone()));
        }
        let delay = self.latency();
        self.send(delay, Msg::Post(event));
    }

    pub(super) fn read_mail(&mut self, id: u64) {
        if self.workers[id as usize].is_away(self.now) || self.is_down() {
            return;
        }
        loop {
            let worker = &mut self.workers[id as usize];
            let mailbox = self.queue.mailboxes.get(&(id, worker.session));
            let Some(mail) = mailbox.and_then(|mails| mails.get(worker.cursor)).cloned() else { return };
            worker.cursor += 1;
            match mail {
                Mail::Register => worker.has_joined = false,
                Mail::Closed(attempt) => worker.stop(attempt),
                Mail::Machine(message) => self.told(id, message),
            }
        }
    }

    fn told(&mut self, id: u64, message: Message) {
        match message {
            Message::Dispatch(dispatch) => self.task_arrives(id, *dispatch),
            Message::Revoke { attempt, .. } => self.worker(id).stop(attempt),
            Message::Deliver { attempt, key, outputs, .. } => self.part_arrives(id, attempt, key, &outputs),
            Message::Respawn { attempt, key, .. } => {
                let Some(running) = self.workers[id as usize].running.get_mut(&attempt) else { return };
                let Some(asked) = running.asked.remove(&key) else { return };
                self.publish_part(id, attempt, asked.wanted, false);
                self.ask(id, attempt, vec![key]);
            }
            Message::Notify { .. } => {}
        }
    }

    fn task_arrives(&mut self, id: u64, dispatch: Dispatch) {
        let worker = &mut self.workers[id as usize];
        let attempt = dispatch.attempt;
        let is_known = worker.running.contains_key(&attempt) || worker.outbox.contains_key(&attempt);
        if is_known || worker.over.contains(&attempt) {
            return;
        }
        let (slowness, session, kind) = (worker.slowness, worker.session, dispatch.stage.kind());
        let running = Running {
            dispatch,
            results: BTreeMap::new(),
            delivered: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_number: Holder::INPUTS,
        };
        worker.running.insert(attempt, running);
        let usual = if kind == Kind::Wrap { 800 } else { 100 + self.rng.below(300) };
        let straggles = self.fails(Fault::Slow, 20);
        let takes = usual * slowness / 100 * if straggles { 12 } else { 1 };
        if self.hangs() {
            return;
        }
        self.send(takes, Msg::TaskEnd { worker: id, session, attempt });
    }

    /// Whether a task does nothing from now on, although its worker lives.
    fn hangs(&mut self) -> bool {
        let hangs = self.fails(Fault::Slow, 10);
        self.summary.faults += u64::from(hangs);
        hangs
    }

    pub(super) fn task_end(&mut self, id: u64, session: u64, attempt: AttemptId) {
        let worker = &self.workers[id as usize];
        let Some(running) = worker.running.get(&attempt) else { return };
        if worker.session != session {
            return;
        }
        let until = worker.paused_until.max(worker.cut_until).max(self.down_until);
        let until = until.max(self.store_down_until);
        if until > self.now {
            self.send(until - self.now + 1, Msg::TaskEnd { worker: id, session, attempt });
            return;
        }
        let dispatch = running.dispatch.clone();
        let report = match self.trouble(id, &dispatch) {
            Some(report) => report,
            None if dispatch.stage.kind().grows() && self.now < self.store_full_until => {
                self.send(500, Msg::TaskEnd { worker: id, session, attempt });
                return;
            }
            None if dispatch.stage.kind().is_controller() => match self.control(id, &dispatch) {
                Some(report) => report,
                None => return,
            },
            None => {
                let inputs: Vec<u64> =
                    dispatch.inputs.iter().map(|input| content_of(input.artifact.hash)).collect();
                self.publish(id, &dispatch, outputs_of(dispatch.stage.kind(), &inputs))
            }
        };
        let worker = self.worker(id);
        worker.running.remove(&attempt);
        worker.outbox.insert(attempt, report.clone());
        self.post(Event::Result { worker: WorkerId(id), session, attempt, report });
    }

    /// Why a task fails, if it does.
    fn trouble(&mut self, id: u64, dispatch: &Dispatch) -> Option<Report> {
        for (index, input) in (0..).zip(&dispatch.inputs) {
            let blob = self.store.get(&input.artifact.holder);
            if blob.is_none_or(|blob| blob.content != input.artifact.hash) {
                return Some(Report::InputLost { input: index });
            }
        }
        let first = content_of(dispatch.inputs[0].artifact.hash);
        if dispatch.stage == Stage::Execute && is_bad_payload(first) {
            return Some(Report::Permanent { reason: "block 3: bad state root".into() });
        }
        let is_hopeless = |input: &Input| is_forged(content_of(input.artifact.hash));
        if dispatch.stage.kind().is_part() && dispatch.inputs.iter().any(is_hopeless) {
            return Some(Report::Permanent { reason: "its record is none".into() });
        }
        if self.fails(Fault::Failure, 12) {
            let reason = format!("device of worker {id} was reset");
            return Some(if self.rng.permille(500) {
                Report::OutOfMemory
            } else {
                Report::Transient { reason }
            });
        }
        if self.is_fenced(dispatch.attempt) {
            // The store refuses; the worker gives up. The report is answered as stale.
            return Some(Report::Transient { reason: "fenced".into() });
        }
        None
    }

    fn is_fenced(&self, attempt: AttemptId) -> bool {
        !self.lacks(Weakness::Revocation) && self.fenced.contains(&attempt)
    }

    fn lies(&mut self, id: u64, how: Fault) -> bool {
        Some(id) == self.bad_worker && self.fails(how, 250)
    }

    /// Puts content into the store, sometimes damaged.
    fn put(&mut self, holder: Holder, content: u64, kind: Kind, batch: BatchId) -> Output {
        let is_damaged = self.fails(Fault::Damage, 8);
        self.summary.faults += u64::from(is_damaged);
        let read = hash_of(if is_damaged { !content } else { content });
        self.store.insert(holder, Blob { content: read, kind: Some(kind), batch: Some(batch) });
        Output { hash: hash_of(content), bytes: 1 + content % 4, units: 1 }
    }

    fn publish(&mut self, id: u64, dispatch: &Dispatch, contents: Vec<u64>) -> Report {
        let lies = self.lies(id, Fault::Lie);
        let (kind, batch, attempt) = (dispatch.stage.kind(), dispatch.batch, dispatch.attempt);
        let output = |(index, content): (u32, u64)| {
            let content = if lies { mix(content ^ 1) } else { content };
            self.put(Holder::Attempt(attempt, index), content, kind, batch)
        };
        Report::Finished { outputs: (0..).zip(contents).map(output).collect() }
    }

    /// A controller goes on: it asks for the parts that it wants now, or is finished.
    fn control(&mut self, id: u64, dispatch: &Dispatch) -> Option<Report> {
        let attempt = dispatch.attempt;
        let running = &self.workers[id as usize].running[&attempt];
        let inputs: Vec<u64> = dispatch.inputs.iter().map(|input| content_of(input.artifact.hash)).collect();
        match plan(dispatch.stage.kind(), &inputs, &running.results) {
            Plan::Done(output) => Some(self.publish(id, dispatch, vec![output])),
            Plan::Ask(wanted) => {
                let new: Vec<Wanted> =
                    wanted.into_iter().filter(|wanted| !running.asked.contains_key(&wanted.key)).collect();
                let keys: Vec<Hash> = new.iter().map(|wanted| wanted.key).collect();
                for wanted in new {
                    let may_share = self.rng.permille(500);
                    self.publish_part(id, attempt, wanted, may_share);
                }
                self.ask(id, attempt, keys);
                None
            }
        }
    }

    /// Publishes a part's inputs: a header, and what it reads, unless an output of another part is the same.
    fn publish_part(&mut self, id: u64, attempt: AttemptId, wanted: Wanted, may_share: bool) {
        let (lies, forges) = (self.lies(id, Fault::Deceit), self.lies(id, Fault::Forgery));
        let header = self.rng.draw();
        let running = &self.workers[id as usize].running[&attempt];
        let (batch, kind, mut number) = (running.dispatch.batch, wanted.kind, running.next_number);
        let delivered = running.delivered.clone();
        let mut inputs = Vec::new();
        for content in std::iter::once(header).chain(wanted.inputs.iter().copied()) {
            if let Some(artifact) = delivered.get(&content).filter(|_| may_share) {
                inputs.push(*artifact);
                continue;
            }
            let content = match (forges, lies) {
                (true, _) => forged(content),
                (_, true) => mix(content),
                _ => content,
            };
            let holder = Holder::Attempt(attempt, number);
            number += 1;
            let output = if self.is_fenced(attempt) {
                Output { hash: hash_of(content), bytes: 1, units: 1 }
            } else {
                self.put(holder, content, kind, batch)
            };
            inputs.push(Artifact { holder, hash: output.hash, bytes: output.bytes });
        }
        let Some(running) = self.worker(id).running.get_mut(&attempt) else { return };
        running.next_number = number;
        running.asked.insert(wanted.key, Asked { wanted, inputs });
    }

    /// Asks for parts, a few at a time.
    fn ask(&mut self, id: u64, attempt: AttemptId, keys: Vec<Hash>) {
        let worker = &self.workers[id as usize];
        let session = worker.session;
        let Some(running) = worker.running.get(&attempt) else { return };
        let part = |key: &Hash| {
            let asked = running.asked.get(key)?;
            Some(Part { kind: asked.wanted.kind, key: *key, inputs: asked.inputs.clone(), units: 1 })
        };
        let parts: Vec<Part> = keys.iter().filter_map(part).collect();
        for parts in parts.chunks(4).map(<[Part]>::to_vec) {
            self.post(Event::Spawn { worker: WorkerId(id), session, attempt, parts });
        }
    }

    fn part_arrives(&mut self, id: u64, attempt: AttemptId, key: Hash, outputs: &[Artifact]) {
        if self.is_store_down() {
            // It cannot be read now; the controller asks again.
            return;
        }
        let worker = &self.workers[id as usize];
        let session = worker.session;
        let Some(running) = worker.running.get(&attempt) else { return };
        let Some(asked) = running.asked.get(&key) else { return };
        let mut contents = Vec::new();
        for (index, output) in (0..).zip(outputs) {
            let blob = self.store.get(&output.holder);
            if blob.is_none_or(|blob| blob.content != output.hash) {
                let worker = WorkerId(id);
                self.post(Event::PartLost { worker, session, attempt, key, output: index });
                return;
            }
            contents.push(content_of(output.hash));
        }
        if contents != asked.wanted.outputs() && Some(id) != self.bad_worker {
            // Somebody has lied before: the guest does not verify it.
            let report = Report::Transient { reason: "a part's proof does not verify".into() };
            let worker = self.worker(id);
            worker.running.remove(&attempt);
            worker.outbox.insert(attempt, report.clone());
            self.post(Event::Result { worker: WorkerId(id), session, attempt, report });
            return;
        }
        let running = self.worker(id).running.get_mut(&attempt).expect("found above");
        running.asked.remove(&key);
        running.delivered.extend(contents.iter().copied().zip(outputs.iter().copied()));
        running.results.insert(key, contents);
        if self.hangs() {
            return;
        }
        let takes = 10 + self.rng.below(40);
        self.send(takes, Msg::TaskEnd { worker: id, session, attempt });
    }
}
