//! Time, messages, the coordinators, and the shell that carries out their effects.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::peers::{Client, SimWorker};
use super::rng::{mix, Rng};
use super::{Options, Summary};
use crate::{
    Action, Artifact, AttemptId, BatchId, Class, Effect, Epoch, Error, Event, Failure, Fence, Hash, Holder,
    Kind, Lease, Limits, Machine, PerKind, Phase, Stage, Time, Verdict, WorkerId,
};

/// After this long nothing may be left to do.
const END_MS: u64 = 3_600_000;
const LEASE_MS: u64 = 4_000;

pub(super) type Outcome = Result<(), String>;

#[derive(Clone, Debug)]
pub(super) enum Msg {
    /// A coordinator looks at its lease and the time.
    Coordinator(usize),
    /// An effect reaches the resource that carries it out.
    Carry { by: usize, life: u64, effect: Effect },
    /// The answer reaches the coordinator that asked.
    Answer { to: usize, life: u64, event: Event },
    /// A worker's turn.
    Worker(u64),
    /// A task ends on a worker.
    TaskEnd { worker: u64, session: u64, attempt: AttemptId },
    /// A task reaches a worker.
    Task { worker: u64, session: u64, attempt: AttemptId },
    /// A worker's event reaches whoever leads.
    FromWorker { worker: u64, event: Event },
    /// A client's turn.
    Client(usize),
    /// Something breaks.
    Fault,
}

pub(super) struct Coordinator {
    pub machine: Option<Machine>,
    /// Differs with each start of the process.
    pub life: u64,
    pub down_until: u64,
    pub paused_until: u64,
    pub skew_ms: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Blob {
    pub content: Hash,
    pub kind: Option<Kind>,
    pub batch: Option<BatchId>,
}

#[derive(Clone)]
pub(super) struct Task {
    pub batch: BatchId,
    pub stage: Stage,
    pub inputs: Vec<Artifact>,
}

/// The state as last stored: bytes, or what that coordinator has in memory.
enum Snapshot {
    Bytes(Vec<u8>),
    Of(usize),
}

pub(super) struct World {
    pub options: Options,
    pub rng: Rng,
    pub now: u64,
    pub summary: Summary,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    messages: BTreeMap<u64, Msg>,
    next_message: u64,
    pub coordinators: [Coordinator; 2],
    lease: Lease,
    snapshot: Snapshot,
    fence: Fence,
    pub store: BTreeMap<Holder, Blob>,
    pub tasks: BTreeMap<AttemptId, Task>,
    pub revoked: BTreeSet<AttemptId>,
    pub redis_down_until: u64,
    pub store_full_until: u64,
    told_full: bool,
    pub heal_at: u64,
    pub workers: Vec<SimWorker>,
    pub clients: Vec<Client>,
    pub bad_worker: Option<u64>,
    finished: BTreeSet<(BatchId, Stage)>,
    pub lossy: BTreeSet<BatchId>,
    outcomes: BTreeMap<BatchId, Phase>,
    /// Folds that are right, by chain.
    folds: BTreeMap<u64, Vec<u64>>,
    settled: BTreeMap<(u64, u64), BatchId>,
}

pub(super) fn limits() -> Limits {
    Limits {
        batches_max: 6,
        tenant_batches_max: 4,
        tenant_running_max: 8,
        retained_max: 8,
        retained_ms: 20_000,
        worker_lease_ms: 6_000,
        dispatch_grace_ms: 4_000,
        failures_max: 24,
        losses_max: 64,
        backoff_ms: 100,
        backoff_ms_max: 1_000,
        timeout_percent: 800,
        timeout_ms_min: 15_000,
        patience_ms: 5_000,
        quarantine_ms: 4_000,
        quarantine_ms_max: 15_000,
        settle_tries_max: 1_000,
        horizon_ms: 60_000,
        store_bytes_max: 60,
        memory_bytes: PerKind([2, 2, 4, 4, 4, 6, 6]),
        memory_bytes_max: 12,
        ns_per_unit: PerKind([500_000_000; 7]),
        ..Limits::default()
    }
}

pub(super) fn hash_of(content: u64) -> Hash {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&content.to_le_bytes());
    Hash(bytes)
}

fn content_of(hash: Hash) -> u64 {
    u64::from_le_bytes(hash.0[..8].try_into().expect("eight bytes"))
}

/// The right outputs of a task.
pub(super) fn outputs_of(kind: Kind, inputs: impl Iterator<Item = Hash>) -> Vec<u64> {
    let seed = inputs.fold(mix(kind as u64 + 1), |sum, input| mix(sum ^ content_of(input).rotate_left(17)));
    let count = match kind {
        Kind::Execute => 1 + seed % 2,
        Kind::Trace => 1 + seed % 3,
        _ => 1,
    };
    (0..count).map(|index| mix(seed.wrapping_add(index))).collect()
}

/// The right fold proof and final proof of a batch.
fn oracle(payload: Hash, previous: Option<u64>) -> (u64, u64) {
    let one = |kind, inputs: Vec<u64>| outputs_of(kind, inputs.into_iter().map(hash_of))[0];
    let mut blocks = Vec::new();
    for witness in outputs_of(Kind::Execute, std::iter::once(payload)) {
        let records = outputs_of(Kind::Trace, std::iter::once(hash_of(witness)));
        let shards = records.into_iter().map(|record| one(Kind::Shard, vec![record])).collect::<Vec<_>>();
        let mut layer: Vec<u64> = shards.chunks(4).map(|chunk| one(Kind::Reduce, chunk.to_vec())).collect();
        while layer.len() > 1 {
            layer = layer.chunks(4).map(|chunk| one(Kind::Reduce, chunk.to_vec())).collect();
        }
        blocks.push(layer[0]);
    }
    blocks.extend(previous);
    let fold = one(Kind::Fold, blocks);
    (fold, one(Kind::Groth16, vec![one(Kind::Wrap, vec![fold])]))
}

impl World {
    pub(super) fn new(options: Options) -> Self {
        let mut rng = Rng(options.seed ^ 0x00a5_5a75);
        let mut machine = Machine::new(limits()).expect("the limits are sensible");
        machine.weaken(options.weak);
        let bytes = bincode::serialize(&machine).expect("the state serialises");
        let workers = (0..3 + rng.below(3)).map(|_| SimWorker::new(&mut rng)).collect::<Vec<_>>();
        let bad_worker = rng.permille(350).then(|| rng.below(workers.len() as u64));
        let coordinator = |rng: &mut Rng| Coordinator {
            machine: None,
            life: 0,
            down_until: 0,
            paused_until: 0,
            skew_ms: rng.below(6_000),
        };
        let coordinators = [coordinator(&mut rng), coordinator(&mut rng)];
        let clients =
            (0..2).map(|chain| Client::new(chain, options.batches.div_ceil(2 - chain as u32 % 2))).collect();
        let mut world = Self {
            heal_at: 20_000 + u64::from(options.batches) * (1_000 + rng.below(6_000)),
            options,
            rng,
            now: 0,
            summary: Summary::default(),
            queue: BinaryHeap::new(),
            messages: BTreeMap::new(),
            next_message: 0,
            coordinators,
            lease: Lease::default(),
            snapshot: Snapshot::Bytes(bytes),
            fence: Fence::default(),
            store: BTreeMap::new(),
            tasks: BTreeMap::new(),
            revoked: BTreeSet::new(),
            redis_down_until: 0,
            store_full_until: 0,
            told_full: false,
            workers,
            clients,
            bad_worker,
            finished: BTreeSet::new(),
            lossy: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            folds: BTreeMap::new(),
            settled: BTreeMap::new(),
        };
        world.share_batches();
        world.send(0, Msg::Coordinator(0));
        world.send(700, Msg::Coordinator(1));
        (0..world.workers.len() as u64).for_each(|worker| world.send(50 + worker, Msg::Worker(worker)));
        (0..world.clients.len()).for_each(|client| world.send(100, Msg::Client(client)));
        world.send(1_000, Msg::Fault);
        world
    }

    fn share_batches(&mut self) {
        let total = self.options.batches.max(1);
        self.clients[0].left = total.div_ceil(2);
        self.clients[1].left = total / 2;
    }

    pub(super) fn send(&mut self, delay_ms: u64, message: Msg) {
        let id = self.next_message;
        self.next_message += 1;
        self.queue.push(Reverse((self.now + delay_ms, id)));
        self.messages.insert(id, message);
    }

    pub(super) fn faulty(&self) -> bool {
        self.now < self.heal_at
    }

    pub(super) fn redis_is_down(&self) -> bool {
        self.now < self.redis_down_until
    }

    pub(super) fn latency(&mut self) -> u64 {
        if self.faulty() && self.rng.permille(20) {
            self.rng.below(5_000)
        } else {
            1 + self.rng.below(20)
        }
    }

    pub(super) fn run(&mut self) -> Outcome {
        while let Some(Reverse((at, id))) = self.queue.pop() {
            self.now = at;
            if at > END_MS {
                return Err(format!("not at rest after {END_MS} ms: {}", self.describe()));
            }
            let message = self.messages.remove(&id).expect("every id has its message");
            self.receive(message)?;
            if self.now > self.heal_at && self.is_at_rest() {
                return self.check_end();
            }
        }
        Err("nothing happens any more".into())
    }

    fn receive(&mut self, message: Msg) -> Outcome {
        match message {
            Msg::Coordinator(which) => self.coordinate(which),
            Msg::Carry { by, life, effect } => self.carry(by, life, effect),
            Msg::Answer { to, life, event } => {
                let is_alive = self.coordinators[to].life == life && self.coordinators[to].machine.is_some();
                if is_alive && self.deliver(to, event.clone())?.is_none() {
                    self.send(500, Msg::Answer { to, life, event });
                }
                Ok(())
            }
            Msg::Worker(worker) => {
                self.worker_turn(worker);
                Ok(())
            }
            Msg::TaskEnd { worker, session, attempt } => {
                self.task_end(worker, session, attempt);
                Ok(())
            }
            Msg::Task { worker, session, attempt } => {
                self.task_arrives(worker, session, attempt);
                Ok(())
            }
            Msg::FromWorker { worker, event } => self.from_worker(worker, event),
            Msg::Client(client) => self.client_turn(client),
            Msg::Fault => {
                self.fault();
                Ok(())
            }
        }
    }

    /// Whoever believes to lead and can act.
    pub(super) fn leader(&mut self) -> Option<usize> {
        let first = self.rng.below(2) as usize;
        [first, 1 - first].into_iter().find(|which| {
            let coordinator = &self.coordinators[*which];
            coordinator.machine.is_some() && coordinator.paused_until <= self.now
        })
    }

    pub(super) fn crash(&mut self, which: usize) {
        self.forget_memory(which);
        self.coordinators[which].down_until = self.now + 500 + self.rng.below(8_000);
        self.summary.faults += 1;
    }

    fn forget_memory(&mut self, which: usize) {
        let machine = self.coordinators[which].machine.take();
        self.coordinators[which].life += 1;
        if let (Snapshot::Of(holder), Some(machine)) = (&self.snapshot, machine) {
            if *holder == which {
                self.snapshot = Snapshot::Bytes(bincode::serialize(&machine).expect("the state serialises"));
            }
        }
    }

    fn load(&self) -> Machine {
        let bytes = match &self.snapshot {
            Snapshot::Bytes(bytes) => bytes.clone(),
            Snapshot::Of(which) => bincode::serialize(&self.coordinators[*which].machine)
                .expect("the state serialises")[1..]
                .to_vec(),
        };
        bincode::deserialize(&bytes).expect("what was stored can be read")
    }

    fn coordinate(&mut self, which: usize) -> Outcome {
        self.send(900 + self.rng.clone().below(200), Msg::Coordinator(which));
        self.rng.next();
        let coordinator = &self.coordinators[which];
        if coordinator.down_until > self.now || coordinator.paused_until > self.now || self.redis_is_down() {
            return Ok(());
        }
        let now = Time(self.now + coordinator.skew_ms);
        let is_leading = coordinator.machine.is_some();
        // A deposed leader keeps acting until it notices: at its next write, which is refused.
        let is_deposed = is_leading && self.lease.holder != which as u64 + 1;
        if is_deposed && self.rng.permille(300) {
            self.forget_memory(which);
            return Ok(());
        }
        if !is_deposed {
            let Some(lease) = self.lease.claim(which as u64 + 1, is_leading, now, LEASE_MS) else {
                return Ok(());
            };
            self.lease = lease;
        }
        if !is_leading {
            let machine = self.load();
            self.coordinators[which].machine = Some(machine);
            self.summary.takeovers += 1;
            let epoch = self.lease.epoch;
            self.deliver(which, Event::TakeOver { epoch })?;
        }
        let full = self.now < self.store_full_until;
        if full != self.told_full && self.deliver(which, Event::Store { available: true, full })?.is_some() {
            self.told_full = full;
        }
        self.deliver(which, Event::Tick)?;
        Ok(())
    }

    /// One step of a coordinator: take the event, store, carry out. `None`: the event was not processed and has to be
    /// delivered again.
    pub(super) fn deliver(
        &mut self,
        which: usize,
        event: Event,
    ) -> Result<Option<Result<(), Error>>, String> {
        let coordinator = &self.coordinators[which];
        if coordinator.machine.is_none() || coordinator.paused_until > self.now || self.redis_is_down() {
            return Ok(None);
        }
        if self.faulty() && self.rng.permille(2) {
            // Dies before the state is stored: as if the event had not come.
            self.crash(which);
            return Ok(None);
        }
        let now = Time(self.now + coordinator.skew_ms);
        let epoch = match event {
            Event::TakeOver { epoch } => epoch,
            _ => coordinator.machine.as_ref().map_or(Epoch(0), Machine::epoch),
        };
        if !self.fence.admit(epoch) && !self.options.weak_fencing {
            self.forget_memory(which);
            return Ok(None);
        }
        let finished = self.about_to_finish(which, &event);
        let machine = self.coordinators[which].machine.as_mut().expect("looked at above");
        let result = machine.step(event, now);
        machine.check()?;
        self.summary.steps += 1;
        let effects = match result {
            Ok(effects) => effects,
            Err(error) => return Ok(Some(Err(error))),
        };
        self.snapshot = Snapshot::Of(which);
        self.finished.extend(finished);
        self.check_step(which, &effects)?;
        self.summary.trace = mix(self.summary.trace ^ mix(self.now) ^ effects.len() as u64);
        let dies = self.faulty() && self.rng.permille(3);
        let carried = if dies { self.rng.below(effects.len() as u64 + 1) as usize } else { effects.len() };
        for effect in effects.into_iter().take(carried) {
            let life = self.coordinators[which].life;
            let delay = self.latency();
            self.summary.trace = mix(self.summary.trace ^ effect.id.0);
            self.send(delay, Msg::Carry { by: which, life, effect });
        }
        if dies {
            self.crash(which);
        }
        Ok(Some(Ok(())))
    }

    fn about_to_finish(&self, which: usize, event: &Event) -> Option<(BatchId, Stage)> {
        let Event::Verified { effect, verdict: Verdict::Read { hashes, valid: true } } = event else {
            return None;
        };
        let machine = self.coordinators[which].machine.as_ref()?;
        let effect = machine.pending().find(|pending| pending.id == *effect)?;
        match &effect.action {
            Action::Verify { stage, outputs, .. }
                if outputs.iter().map(|o| o.hash).eq(hashes.iter().copied()) =>
            {
                Some((effect.batch, *stage))
            }
            _ => None,
        }
    }

    fn check_step(&mut self, which: usize, effects: &[Effect]) -> Outcome {
        let machine = self.coordinators[which].machine.as_ref().expect("it has just stepped");
        for worker in machine.workers().filter(|worker| worker.quarantined_until.is_some()) {
            if Some(worker.worker.0) != self.bad_worker {
                return Err(format!("honest worker {} is in quarantine", worker.worker));
            }
        }
        for effect in effects {
            let Action::Dispatch { attempt, stage, .. } = &effect.action else { continue };
            // Issued again after a takeover: the same try.
            if self.tasks.contains_key(attempt) || !self.finished.contains(&(effect.batch, *stage)) {
                continue;
            }
            if !self.lossy.contains(&effect.batch) {
                self.summary.redone += 1;
                return Err(format!("finished task {stage:?} of batch {} is proved again", effect.batch));
            }
            self.summary.redone_lost += 1;
        }
        Ok(())
    }

    fn read(&self, artifacts: &[Artifact]) -> Option<Vec<Hash>> {
        artifacts.iter().map(|artifact| self.store.get(&artifact.holder).map(|blob| blob.content)).collect()
    }

    /// The shell and the resources: carries out an effect and answers.
    fn carry(&mut self, by: usize, life: u64, effect: Effect) -> Outcome {
        let coordinator = &self.coordinators[by];
        if coordinator.life != life || coordinator.down_until > self.now {
            return Ok(());
        }
        if coordinator.paused_until > self.now || self.redis_is_down() {
            let wait = coordinator.paused_until.max(self.redis_down_until) - self.now + 1;
            self.send(wait, Msg::Carry { by, life, effect });
            return Ok(());
        }
        if !self.fence.admit(effect.epoch) && !self.options.weak_fencing {
            return Ok(());
        }
        let id = effect.id;
        let event = match &effect.action {
            Action::Verify { stage, inputs, outputs, .. } => {
                Event::Verified { effect: id, verdict: self.verify(stage.kind(), inputs, outputs) }
            }
            Action::Audit { artifact, .. } => {
                let verdict = self
                    .read(&[*artifact])
                    .map_or(Verdict::Missing, |hashes| Verdict::Read { hashes, valid: true });
                Event::Verified { effect: id, verdict }
            }
            Action::Check { proof } => {
                let expected = self.statement(by, effect.batch);
                let verdict = self.read(&[*proof]).map_or(Verdict::Missing, |hashes| Verdict::Read {
                    valid: expected.is_some_and(|expected| hashes[0] == hash_of(expected)),
                    hashes,
                });
                Event::Verified { effect: id, verdict }
            }
            Action::Settle { chain, sequence, proof } => {
                match self.settle(by, effect.batch, (chain.0, *sequence), *proof)? {
                    true => Event::Settled { effect: id },
                    false => {
                        Event::SettleFailed { effect: id, permanent: false, reason: "mempool full".into() }
                    }
                }
            }
            action => {
                self.carry_simple(effect.batch, action)?;
                Event::Done { effect: id }
            }
        };
        let delay = self.latency();
        if self.faulty() && self.rng.permille(20) {
            self.send(delay + 400, Msg::Answer { to: by, life, event: event.clone() });
        }
        self.send(delay, Msg::Answer { to: by, life, event });
        Ok(())
    }

    fn carry_simple(&mut self, batch: BatchId, action: &Action) -> Outcome {
        match action {
            Action::Dispatch { attempt, worker, session, stage, inputs, .. } => {
                if self.tasks.contains_key(attempt) || self.revoked.contains(attempt) {
                    return Ok(());
                }
                let task = Task { batch, stage: *stage, inputs: inputs.clone() };
                self.tasks.insert(*attempt, task);
                let copies = match self.faulty() {
                    true if self.rng.permille(20) => 0,
                    true if self.rng.permille(20) => 2,
                    _ => 1,
                };
                for _ in 0..copies {
                    let delay = self.latency();
                    self.send(delay, Msg::Task { worker: worker.0, session: *session, attempt: *attempt });
                }
            }
            Action::Revoke { attempt, worker } => {
                self.revoked.insert(*attempt);
                self.store
                    .retain(|holder, _| !matches!(holder, Holder::Attempt(owner, _) if owner == attempt));
                self.workers[worker.0 as usize].stop(*attempt);
            }
            Action::Release { artifact } => {
                self.store.remove(&artifact.holder);
            }
            Action::Notify { phase } => self.notify(batch, phase)?,
            _ => {}
        }
        Ok(())
    }

    /// Proofs are verified by what is read; a record or a witness can only be compared with its name.
    fn verify(&self, kind: Kind, inputs: &[Artifact], outputs: &[Artifact]) -> Verdict {
        let Some(hashes) = self.read(outputs) else { return Verdict::Missing };
        let expected: Vec<Hash> =
            outputs_of(kind, inputs.iter().map(|input| input.hash)).into_iter().map(hash_of).collect();
        let valid = match kind.grows() {
            true => outputs.iter().map(|output| output.hash).eq(expected.iter().copied()),
            false => hashes == expected,
        };
        Verdict::Read { hashes, valid }
    }

    /// The only right proof of a batch.
    fn statement(&self, by: usize, batch: BatchId) -> Option<u64> {
        let spec = self.coordinators[by].machine.as_ref()?.status(batch)?.spec;
        let previous = match spec.sequence {
            0 => None,
            sequence => Some(self.right_fold(by, spec.chain.0, sequence - 1)?),
        };
        Some(oracle(spec.payload, previous).1)
    }

    fn right_fold(&self, by: usize, chain: u64, sequence: u64) -> Option<u64> {
        if let Some(fold) = self.folds.get(&chain).and_then(|folds| folds.get(sequence as usize)) {
            return Some(*fold);
        }
        // Not settled yet: its batch is in work.
        let machine = self.coordinators[by].machine.as_ref()?;
        let status = machine
            .batches()
            .filter(|(_, phase)| !phase.is_terminal())
            .filter_map(|(id, _)| machine.status(id));
        let spec = status
            .map(|status| status.spec)
            .find(|spec| spec.chain.0 == chain && spec.sequence == sequence)?;
        let previous = match sequence {
            0 => None,
            sequence => Some(self.right_fold(by, chain, sequence - 1)?),
        };
        Some(oracle(spec.payload, previous).0)
    }

    fn settle(
        &mut self,
        by: usize,
        batch: BatchId,
        place: (u64, u64),
        proof: Artifact,
    ) -> Result<bool, String> {
        if self.settled.get(&place) == Some(&batch) {
            return Ok(true);
        }
        if self.faulty() && self.rng.permille(50) {
            return Ok(false);
        }
        if let Some(other) = self.settled.get(&place) {
            return Err(format!("{place:?} is settled by batch {other} and again by {batch}"));
        }
        let Some(expected) = self.statement(by, batch) else {
            return Err(format!("batch {batch} is settled without a past"));
        };
        if proof.hash != hash_of(expected) {
            return Err(format!("batch {batch} is settled with a wrong proof"));
        }
        let machine = self.coordinators[by].machine.as_ref().ok_or("a dead coordinator settles")?;
        let payload = machine.status(batch).ok_or("an unknown batch is settled")?.spec.payload;
        let folds = self.folds.entry(place.0).or_default();
        if folds.len() as u64 != place.1 {
            return Err(format!("{place:?} is settled out of order"));
        }
        folds.push(oracle(payload, folds.last().copied()).0);
        self.settled.insert(place, batch);
        Ok(true)
    }

    /// The owner hears how its batch ended.
    fn notify(&mut self, batch: BatchId, phase: &Phase) -> Outcome {
        if let Some(before) = self.outcomes.get(&batch) {
            return if before == phase {
                Ok(())
            } else {
                Err(format!("batch {batch}: {before:?}, then {phase:?}"))
            };
        }
        let info = self.clients.iter().flat_map(|client| &client.sent).find(|sent| sent.batch == Some(batch));
        let info = info.ok_or_else(|| format!("batch {batch} was submitted by nobody"))?;
        let is_just = match phase {
            Phase::Settled => self.settled.values().any(|settled| *settled == batch),
            Phase::Cancelled => info.cancelled,
            Phase::Failed(Failure::Rejected { .. }) => info.is_bad,
            Phase::Failed(Failure::Deadline { .. }) => info.is_urgent,
            Phase::Failed(Failure::Predecessor { .. }) => true,
            _ => false,
        };
        if !is_just {
            return Err(format!("batch {batch} ended without a reason: {phase:?}"));
        }
        if *phase != Phase::Settled && self.settled.values().any(|settled| *settled == batch) {
            return Err(format!("batch {batch} is settled and ended as {phase:?}"));
        }
        self.outcomes.insert(batch, phase.clone());
        match phase {
            Phase::Settled => self.summary.settled += 1,
            _ => self.summary.failed += 1,
        }
        Ok(())
    }

    fn is_at_rest(&self) -> bool {
        let mut leaders = self.coordinators.iter().filter_map(|coordinator| coordinator.machine.as_ref());
        let is_idle = self.clients.iter().all(|client| client.left == 0 && client.draft.is_none());
        is_idle
            && self.workers.iter().all(|worker| worker.outbox.is_empty() && worker.running.is_empty())
            && leaders.any(|machine| machine.batches().next().is_none() && machine.pending().next().is_none())
    }

    fn check_end(&mut self) -> Outcome {
        let leader =
            self.coordinators.iter().filter_map(|c| c.machine.as_ref()).max_by_key(|machine| machine.epoch());
        let machine = leader.ok_or("nobody leads at the end")?;
        let held: BTreeSet<Holder> = machine.artifacts().map(|artifact| artifact.holder).collect();
        let stored: BTreeSet<Holder> = self.store.keys().copied().collect();
        if let Some(leaked) = stored.difference(&held).next() {
            return Err(format!("{} artifacts leak, {leaked:?} first", stored.difference(&held).count()));
        }
        if let Some(lost) = held.difference(&stored).next() {
            return Err(format!("{lost:?} is deleted and still wanted"));
        }
        let taken: Vec<BatchId> =
            self.clients.iter().flat_map(|client| &client.sent).filter_map(|sent| sent.batch).collect();
        if let Some(lost) = taken.iter().find(|batch| !self.outcomes.contains_key(batch)) {
            return Err(format!("batch {lost} was taken and never ended"));
        }
        self.summary.batches = taken.len() as u32;
        Ok(())
    }

    fn describe(&self) -> String {
        let leader =
            self.coordinators.iter().filter_map(|c| c.machine.as_ref()).max_by_key(|machine| machine.epoch());
        let Some(machine) = leader else { return "nobody leads".into() };
        let open: Vec<_> =
            machine.batches().filter_map(|(id, phase)| Some((id, phase, machine.status(id)?))).collect();
        let waits: Vec<_> = open
            .iter()
            .flat_map(|(id, phase, status)| {
                status
                    .tasks
                    .iter()
                    .filter(|t| !t.done)
                    .map(move |t| (id.0, phase, t.stage, &t.wait, &t.workers))
            })
            .take(12)
            .collect();
        let outboxes: usize =
            self.workers.iter().map(|worker| worker.outbox.len() + worker.running.len()).sum();
        let drafts: Vec<_> = self.clients.iter().map(|client| (client.left, &client.draft)).collect();
        let pending: Vec<_> = machine.pending().take(4).collect();
        format!(
            "{} batches, {waits:?}, worker messages {outboxes}, clients {drafts:?}, {pending:?}",
            open.len()
        )
    }

    /// An event that a worker sends; it repeats results until they are acknowledged.
    fn from_worker(&mut self, worker: u64, event: Event) -> Outcome {
        let Some(leader) = self.leader() else { return Ok(()) };
        let reported = match &event {
            Event::Result { attempt, .. } => Some(*attempt),
            _ => None,
        };
        let is_heartbeat = matches!(event, Event::Heartbeat { .. });
        let Some(answer) = self.deliver(leader, event)? else { return Ok(()) };
        if self.faulty() && self.rng.permille(30) {
            return Ok(());
        }
        if let Some(attempt) = reported {
            let is_final = answer.as_ref().err().is_none_or(|error| error.class() == Class::Permanent);
            if is_final {
                self.workers[worker as usize].outbox.remove(&attempt);
            }
        }
        if is_heartbeat && matches!(answer, Err(Error::UnknownWorker { .. })) {
            self.join(worker);
        }
        Ok(())
    }

    pub(super) fn join(&mut self, worker: u64) {
        let sim = &self.workers[worker as usize];
        let event =
            Event::Join { worker: WorkerId(worker), session: sim.session, profile: sim.profile.clone() };
        let delay = self.latency();
        self.send(delay, Msg::FromWorker { worker, event });
    }
}
