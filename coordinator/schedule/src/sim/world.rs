//! Time, messages between the parties, and the loop.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::clients::Client;
use super::coordinators::Coordinator;
use super::queue::Queue;
use super::rng::Rng;
use super::workers::SimWorker;
use super::{Fault, Faults, Options, Step, Summary, Weakness};
use crate::{AttemptId, BatchId, Effect, Event, Hash, Holder, Kind, Limits, Machine, PerKind, Phase};

/// After this long nothing may be left to do.
const END_MS: u64 = 7_200_000;

pub(super) type Outcome = Result<(), String>;

#[derive(Clone, Debug)]
pub(super) enum Msg {
    /// A coordinator looks at its lease, the inbox and the time.
    Coordinator(usize),
    /// A coordinator does a piece of work.
    Carry { by: usize, life: u64, effect: Effect },
    /// The answer reaches the coordinator that did it.
    Answer { to: usize, life: u64, event: Event },
    /// A worker's turn.
    Worker(u64),
    /// A worker looks into its mailbox.
    Mail(u64),
    /// A task ends on a worker, or a controller goes on.
    TaskEnd { worker: u64, session: u64, attempt: AttemptId },
    /// A worker's event reaches the inbox.
    Post(Event),
    /// A client's turn.
    Client(usize),
    /// Something breaks.
    Fault,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Blob {
    pub content: Hash,
    pub kind: Option<Kind>,
    pub batch: Option<BatchId>,
}

pub(super) struct World {
    pub options: Options,
    pub rng: Rng,
    pub now: u64,
    pub summary: Summary,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    messages: BTreeMap<u64, Msg>,
    next_message: u64,
    pub coordinators: [Coordinator; 2],
    /// The machine of a coordinator that died, and what it had committed: what a replay must give.
    pub shadow: Option<(Machine, u64)>,
    pub queue: Queue,
    pub store: BTreeMap<Holder, Blob>,
    /// Attempts that may publish nothing any more.
    pub fenced: BTreeSet<AttemptId>,
    /// Queue and store cannot be reached.
    pub down_until: u64,
    /// The store alone cannot be reached.
    pub store_down_until: u64,
    pub store_full_until: u64,
    /// What the leader was told of the store: available, full.
    pub told: (bool, bool),
    pub heal_at: u64,
    pub workers: Vec<SimWorker>,
    pub clients: Vec<Client>,
    pub bad_worker: Option<u64>,
    /// Tasks whose result was accepted.
    pub finished: BTreeSet<(BatchId, Hash)>,
    /// Parts that the bad worker has asked for: what it is caught lying about is forgotten.
    pub suspicious: BTreeSet<(BatchId, Hash)>,
    /// Batches that have lost an artifact, or have parts that were proved from a lie.
    pub lossy: BTreeSet<BatchId>,
    pub outcomes: BTreeMap<BatchId, Phase>,
    /// Folds that are right, by chain.
    pub folds: BTreeMap<u64, Vec<u64>>,
    pub settled: BTreeMap<(u64, u64), BatchId>,
    /// Chains that have lost a fold proof, and perhaps their history with it.
    pub may_lose_history: BTreeSet<u64>,
    /// What was committed, if it is recorded.
    pub tape: Option<Vec<Step>>,
}

/// Whether no worker has room for a controller and a part at the same time.
fn is_cramped(seed: u64) -> bool {
    seed % 4 == 3
}

fn limits(seed: u64) -> Limits {
    Limits {
        batches_max: 6,
        tenant_batches_max: 4,
        tenant_running_max: 8,
        tenant_controllers_max: 3,
        retained_max: 8,
        retained_ms: 20_000,
        worker_lease_ms: 6_000,
        dispatch_grace_ms: 4_000,
        parts_max: 32,
        spawn_max: 4,
        part_inputs_max: 6,
        part_outputs_max: 2,
        failures_max: 24,
        losses_max: 64,
        backoff_ms: 100,
        backoff_ms_max: 1_000,
        timeout_percent: 800,
        timeout_ms_min: 15_000,
        idle_ms_min: 15_000,
        patience_ms: 5_000,
        quarantine_ms: 4_000,
        quarantine_ms_max: 15_000,
        settle_tries_max: 1_000,
        horizon_ms: 60_000,
        store_bytes_max: 100,
        memory_bytes: PerKind([2, 3, 4, 4, 3, 6, 6]),
        memory_bytes_max: if is_cramped(seed) { 6 } else { 12 },
        ns_per_unit: PerKind([500_000_000; 7]),
        ..Limits::default()
    }
}

fn new_machine(options: Options) -> Machine {
    let mut limits = limits(options.seed);
    options.weaken(&mut limits);
    let mut machine = Machine::new(limits).expect("the limits are sensible");
    machine.weaken(options.weak());
    machine
}

impl World {
    /// The machine before anything happened.
    pub(super) fn start_machine(&self) -> Machine {
        new_machine(self.options)
    }

    pub(super) fn new(options: Options) -> Self {
        let mut rng = Rng(options.seed ^ 0x00a5_5a75);
        let checkpoint = bincode::serialize(&new_machine(options)).expect("the state serialises");
        let count = 3 + rng.below(3);
        let mut workers: Vec<SimWorker> = (0..count).map(|id| SimWorker::new(id, &mut rng)).collect();
        if is_cramped(options.seed) {
            workers.iter_mut().for_each(|worker| worker.profile.memory_bytes = 6);
        }
        let is_wicked = [Fault::Lie, Fault::Deceit, Fault::Forgery, Fault::Nonsense]
            .iter()
            .any(|fault| options.faults.has(*fault));
        let is_bad = rng.permille(350) || options.faults != Faults::ALL;
        let bad_worker = (is_wicked && is_bad).then(|| rng.below(workers.len() as u64));
        let mut coordinators = [Coordinator::new(), Coordinator::new()];
        if options.faults.has(Fault::Skew) {
            coordinators.iter_mut().for_each(|coordinator| coordinator.skew_ms = rng.below(6_000));
        }
        let batches = options.batches.max(1);
        let clients = vec![Client::new(0, batches.div_ceil(2)), Client::new(1, batches / 2)];
        let mut world = Self {
            heal_at: 20_000 + u64::from(batches) * (1_000 + rng.below(6_000)),
            options,
            rng,
            now: 0,
            summary: Summary::default(),
            events: BinaryHeap::new(),
            messages: BTreeMap::new(),
            next_message: 0,
            coordinators,
            shadow: None,
            queue: Queue::new(checkpoint),
            store: BTreeMap::new(),
            fenced: BTreeSet::new(),
            down_until: 0,
            store_down_until: 0,
            store_full_until: 0,
            told: (true, false),
            workers,
            clients,
            bad_worker,
            finished: BTreeSet::new(),
            suspicious: BTreeSet::new(),
            lossy: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            folds: BTreeMap::new(),
            settled: BTreeMap::new(),
            may_lose_history: BTreeSet::new(),
            tape: None,
        };
        world.send(0, Msg::Coordinator(0));
        world.send(700, Msg::Coordinator(1));
        (0..world.workers.len() as u64).for_each(|worker| world.send(50 + worker, Msg::Worker(worker)));
        (0..world.clients.len()).for_each(|client| world.send(100, Msg::Client(client)));
        world.send(1_000, Msg::Fault);
        world
    }

    pub(super) fn send(&mut self, delay_ms: u64, message: Msg) {
        let id = self.next_message;
        self.next_message += 1;
        self.events.push(Reverse((self.now + delay_ms, id)));
        self.messages.insert(id, message);
    }

    /// Whether faults are still to be injected.
    pub(super) fn is_faulty(&self) -> bool {
        self.now < self.heal_at
    }

    /// True in `n` of 1000 cases, while this fault is injected.
    pub(super) fn fails(&mut self, fault: Fault, n: u64) -> bool {
        self.is_faulty() && self.options.faults.has(fault) && self.rng.permille(n)
    }

    pub(super) fn lacks(&self, remedy: Weakness) -> bool {
        self.options.lacks(remedy)
    }

    pub(super) fn is_down(&self) -> bool {
        self.now < self.down_until
    }

    pub(super) fn is_store_down(&self) -> bool {
        self.is_down() || self.now < self.store_down_until
    }

    pub(super) fn latency(&mut self) -> u64 {
        if self.fails(Fault::Late, 20) {
            self.rng.below(5_000)
        } else {
            1 + self.rng.below(20)
        }
    }

    pub(super) fn run(&mut self) -> Outcome {
        while let Some(Reverse((at, id))) = self.events.pop() {
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
            Msg::Coordinator(which) => self.coordinate(which)?,
            Msg::Carry { by, life, effect } => self.carry(by, life, effect)?,
            Msg::Answer { to, life, event } => {
                let is_alive = self.coordinators[to].life == life && self.coordinators[to].machine.is_some();
                if is_alive && self.deliver(to, event.clone())?.is_none() {
                    self.send(500, Msg::Answer { to, life, event });
                }
            }
            Msg::Worker(worker) => self.worker_turn(worker),
            Msg::Mail(worker) => self.read_mail(worker),
            Msg::TaskEnd { worker, session, attempt } => self.task_end(worker, session, attempt),
            Msg::Post(event) => self.posted(event)?,
            Msg::Client(client) => self.client_turn(client)?,
            Msg::Fault => self.fault(),
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> String {
        let Some(machine) = self.newest() else { return "nobody leads".into() };
        let live = machine.batches().filter(|(_, phase)| !phase.is_terminal());
        let open: Vec<_> = live.filter_map(|(id, phase)| Some((id, phase, machine.status(id)?))).collect();
        let waits: Vec<_> = open
            .iter()
            .flat_map(|(id, phase, status)| {
                let tasks = status.tasks.iter().filter(|task| !task.done);
                tasks.map(move |task| (id.0, phase, task.stage, &task.wait, &task.workers, task.failures))
            })
            .take(12)
            .collect();
        let busy: Vec<_> = self
            .workers
            .iter()
            .map(|worker| (worker.outbox.len(), worker.running.len(), worker.profile.clone()))
            .collect();
        let drafts: Vec<_> = self.clients.iter().map(|client| (client.left, &client.draft)).collect();
        let pending: Vec<_> = machine.pending().take(4).collect();
        format!("{} batches, {waits:?}, workers {busy:?}, clients {drafts:?}, {pending:?}", open.len())
    }
}
