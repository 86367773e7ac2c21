//! How fast the machine decides: `throughput [WORKERS] [PARTS]`, by default 1,000 workers and 10,000 parts.
//!
//! Eight controllers ask for the parts as fast as they can; workers answer each dispatch at once, verification and
//! deletion are answered at once too. Every worker sends its heartbeat every 3 s of machine time. Only the time inside
//! `Machine::step` counts, with all that it allocates; no queue, no JSON.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use assay_schedule::{
    Action, Artifact, AttemptId, ChainId, Dispatch, Effect, EffectId, Epoch, Event, Hash, Holder, Kind,
    Limits, Machine, Message, Output, Part, PerKind, Profile, Report, Spec, TenantId, Time, Verdict, Work,
    WorkerId,
};

const CONTROLLERS: usize = 8;
const SPAWN: usize = 64;
/// Machine time of one event: 25,000 a second.
const EVENT_US: u64 = 40;

struct Driver {
    machine: Machine,
    events: VecDeque<Event>,
    now_us: u64,
    times: Vec<Duration>,
    parts_per_controller: usize,
    dispatched: usize,
    delivered: usize,
    done: Vec<EffectId>,
}

fn hash(number: u64) -> Hash {
    Hash(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

impl Driver {
    fn new(workers: u64, parts: usize) -> Self {
        let limits = Limits {
            memory_bytes: PerKind([1 << 20; 7]),
            worker_lease_ms: 30_000,
            parts_max: parts.div_ceil(CONTROLLERS) as u32,
            workers_max: workers as u32,
            ..Limits::default()
        };
        let machine = Machine::new(limits).expect("the limits are sensible");
        let mut events = VecDeque::from([Event::TakeOver { epoch: Epoch(1) }]);
        let profile = Profile {
            kinds: Kind::ALL.to_vec(),
            version: 1,
            memory_bytes: 1 << 30,
            slots: 1,
            controllers: 1,
        };
        for worker in 0..workers {
            events.push_back(Event::Join { worker: WorkerId(worker), session: 1, profile: profile.clone() });
        }
        let spec = Spec {
            tenant: TenantId(1),
            key: "throughput".into(),
            chain: ChainId(1),
            sequence: 0,
            from: hash(0),
            to: hash(1),
            payload: hash(2),
            payload_bytes: 1,
            units: 1,
            version: 1,
            priority: 0,
            deadline: None,
            deadline_is_hard: false,
            intake: hash(3),
        };
        events.push_back(Event::Submit { spec });
        Self {
            machine,
            events,
            now_us: 0,
            times: Vec::new(),
            parts_per_controller: parts / CONTROLLERS,
            dispatched: 0,
            delivered: 0,
            done: Vec::new(),
        }
    }

    fn step(&mut self, event: Event) {
        self.now_us += EVENT_US;
        let start = Instant::now();
        let effects = self.machine.step(event, Time(self.now_us / 1000));
        self.times.push(start.elapsed());
        for effect in effects.expect("every event is in order") {
            self.react(effect);
        }
    }

    fn react(&mut self, effect: Effect) {
        match effect.action {
            Action::Message(Message::Dispatch(dispatch)) => self.work(*dispatch),
            Action::Message(Message::Deliver { .. }) => self.delivered += 1,
            Action::Message(_) => {}
            Action::Work(Work::Verify { outputs, .. }) => {
                let hashes = outputs.iter().map(|output| output.hash).collect();
                let verdict = Verdict::Read { hashes, valid: true };
                self.events.push_back(Event::Verified { effect: effect.id, verdict });
            }
            Action::Work(_) => {
                self.done.push(effect.id);
                if self.done.len() == 32 {
                    self.events.push_back(Event::Done { effects: std::mem::take(&mut self.done) });
                }
            }
        }
    }

    fn work(&mut self, dispatch: Dispatch) {
        let Dispatch { worker, session, attempt, .. } = dispatch;
        let output = Output { hash: hash(attempt.0), bytes: 100, units: 1 };
        match dispatch.stage.kind() {
            Kind::Block => {
                let part = |number: u32| {
                    let holder = Holder::Attempt(attempt, number + 1);
                    let key = hash(attempt.0 << 32 | u64::from(number));
                    let inputs = vec![Artifact { holder, hash: key, bytes: 100 }];
                    Part { kind: Kind::Shard, key, inputs, units: 1 }
                };
                let parts: Vec<Part> = (0..self.parts_per_controller as u32).map(part).collect();
                for parts in parts.chunks(SPAWN).map(<[Part]>::to_vec) {
                    self.events.push_back(Event::Spawn { worker, session, attempt, parts });
                }
            }
            kind => {
                self.dispatched += usize::from(kind.is_part());
                let count = if kind == Kind::Execute { CONTROLLERS } else { 1 };
                let report = Report::Finished { outputs: vec![output; count] };
                self.events.push_back(Event::Result { worker, session, attempt, report });
            }
        }
    }

    fn heartbeats(&mut self, workers: u64, beaten: &mut u64) {
        // As many as are due by now, once everybody is here.
        let begin = (workers + 2) * EVENT_US;
        while begin + *beaten * 3_000_000 / workers < self.now_us {
            let worker = WorkerId(*beaten % workers);
            let running: Vec<AttemptId> = Vec::new();
            self.step(Event::Heartbeat { worker, session: 1, running });
            *beaten += 1;
        }
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
    let (workers, parts) = (numbers.next().unwrap_or(1_000), numbers.next().unwrap_or(10_000) as usize);
    let mut driver = Driver::new(workers, parts);
    let (mut beaten, mut ticked) = (0, 0);
    while let Some(event) = driver.events.pop_front() {
        driver.step(event);
        driver.heartbeats(workers, &mut beaten);
        if driver.now_us / 1_000_000 > ticked {
            ticked += 1;
            driver.step(Event::Tick);
        }
    }
    driver.machine.check().expect("invariants hold");
    let wanted = parts / CONTROLLERS * CONTROLLERS;
    assert_eq!((driver.dispatched, driver.delivered), (wanted, wanted), "each part once");
    let seconds = driver.times.iter().sum::<Duration>().as_secs_f64();
    let steps = driver.times.len();
    driver.times.sort_unstable();
    let at = |permille: usize| driver.times[(steps - 1) * permille / 1000].as_secs_f64() * 1e6;
    println!(
        "{workers} workers, {wanted} parts: {steps} steps, {beaten} of them heartbeats, in {seconds:.3} s"
    );
    println!("{:.0} steps/s, {:.0} parts/s", steps as f64 / seconds, wanted as f64 / seconds);
    println!("a step: median {:.1} us, 99% {:.1} us, longest {:.0} us", at(500), at(990), at(1000));
}
