//! A machine with a shell that does all work at once and well, and workers that do what the test says.
#![allow(dead_code, reason = "no test uses all of it")]

use assay_schedule::*;

/// Limits with round numbers.
pub(crate) fn limits() -> Limits {
    Limits {
        memory_bytes: PerKind([1; 7]),
        memory_bytes_max: 64,
        failures_max: 3,
        losses_max: 5,
        backoff_ms: 10,
        backoff_ms_max: 1_000,
        worker_lease_ms: 30_000,
        dispatch_grace_ms: 1_000,
        timeout_ms_min: 1_000,
        ns_per_unit: PerKind([1_000_000; 7]),
        parts_max: 8,
        spawn_max: 4,
        part_inputs_max: 3,
        part_outputs_max: 2,
        ..Limits::default()
    }
}

pub(crate) struct Cluster {
    pub(crate) machine: Machine,
    pub(crate) now: u64,
    /// Every message, oldest first.
    pub(crate) mail: Vec<(BatchId, Message)>,
    /// All work that was done.
    pub(crate) done: Vec<Work>,
    /// Whether outputs verify.
    pub(crate) is_valid: bool,
    /// Whether outputs cannot be checked.
    pub(crate) is_foreign: bool,
    /// Whether proofs cannot be compared with their batches.
    pub(crate) is_foreign_statement: bool,
    /// Artifacts that are not in the store.
    pub(crate) missing: Vec<Artifact>,
    /// Whether settlements are left to the test.
    pub(crate) holds_settlements: bool,
    /// Settlements that the test has to answer.
    pub(crate) settlements: Vec<EffectId>,
}

pub(crate) fn hash(text: &str) -> Hash {
    Hash(*blake3::hash(text.as_bytes()).as_bytes())
}

pub(crate) fn output(text: &str) -> Output {
    Output { hash: hash(text), bytes: 10, units: 1 }
}

pub(crate) fn own(attempt: AttemptId, number: u32, text: &str) -> Artifact {
    Artifact { holder: Holder::Attempt(attempt, number), hash: hash(text), bytes: 10 }
}

pub(crate) fn part(kind: Kind, key: &str, inputs: Vec<Artifact>) -> Part {
    Part { kind, key: hash(key), inputs, units: 1 }
}

/// A shard whose record the controller has published under `number`.
pub(crate) fn shard(controller: &Dispatch, key: &str, number: u32) -> Part {
    part(Kind::Shard, key, vec![own(controller.attempt, number, &format!("record of {key}"))])
}

impl Cluster {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut machine = Machine::new(limits).unwrap();
        machine.step(Event::TakeOver { epoch: Epoch(1) }, Time(0)).unwrap();
        Self {
            machine,
            now: 0,
            mail: Vec::new(),
            done: Vec::new(),
            is_valid: true,
            is_foreign: false,
            is_foreign_statement: false,
            missing: Vec::new(),
            holds_settlements: false,
            settlements: Vec::new(),
        }
    }

    /// One step; all work that it asks for is done and answered.
    pub(crate) fn step(&mut self, event: Event) -> Result<(), Error> {
        let mut events = vec![event];
        let mut result = None;
        while let Some(event) = events.pop() {
            let answer = self.machine.step(event, Time(self.now));
            self.machine.check().unwrap();
            let effects = answer.clone().unwrap_or_default();
            result.get_or_insert(answer.map(drop));
            for effect in effects {
                let id = effect.id;
                match effect.action {
                    Action::Message(message) => self.mail.push((effect.batch, message)),
                    Action::Work(Work::Settle { .. }) if self.holds_settlements => self.settlements.push(id),
                    Action::Work(work) => {
                        events.push(self.answer(id, &work));
                        self.done.push(work);
                    }
                }
            }
        }
        result.unwrap()
    }

    pub(crate) fn ok(&mut self, event: Event) {
        self.step(event).unwrap();
    }

    fn answer(&self, effect: EffectId, work: &Work) -> Event {
        let read = |artifacts: &[Artifact]| {
            if artifacts.iter().any(|artifact| self.missing.contains(artifact)) {
                return Verdict::Missing;
            }
            if self.is_foreign {
                return Verdict::Incomparable { reason: "another build".into() };
            }
            let hashes = artifacts.iter().map(|artifact| artifact.hash).collect();
            Verdict::Read { hashes, valid: self.is_valid }
        };
        match work {
            Work::Verify { outputs, .. } => Event::Verified { effect, verdict: read(outputs) },
            Work::Audit { artifact, .. } => Event::Verified { effect, verdict: read(&[*artifact]) },
            Work::Check { .. } if self.is_foreign_statement => {
                Event::Verified { effect, verdict: Verdict::Incomparable { reason: "another build".into() } }
            }
            Work::Check { proof, .. } => Event::Verified { effect, verdict: read(&[*proof]) },
            Work::Settle { .. } => Event::Settled { effect },
            Work::Release { .. } | Work::Fence { .. } => Event::Done { effects: vec![effect] },
        }
    }

    /// Lets time pass in steps of at most 100 ms, workers being alive.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now = end.min(self.now + 100);
            self.ok(Event::Tick);
        }
    }

    pub(crate) fn join(&mut self, worker: u64, slots: u32, controllers: u32) {
        self.join_with(worker, slots, controllers, 32);
    }

    pub(crate) fn join_with(&mut self, worker: u64, slots: u32, controllers: u32, memory_bytes: u64) {
        self.join_for(worker, &Kind::ALL, slots, controllers, memory_bytes);
    }

    pub(crate) fn join_for(
        &mut self,
        worker: u64,
        kinds: &[Kind],
        slots: u32,
        controllers: u32,
        memory_bytes: u64,
    ) {
        let profile = Profile { kinds: kinds.to_vec(), version: 1, memory_bytes, slots, controllers };
        self.ok(Event::Join { worker: WorkerId(worker), session: 1, profile });
    }

    /// Lets time pass; the workers say that they still have all that they were sent.
    pub(crate) fn pass_with_heartbeats(&mut self, ms: u64, workers: &[u64]) {
        let running: Vec<AttemptId> = Kind::ALL
            .into_iter()
            .flat_map(|kind| self.dispatched(kind))
            .map(|dispatch| dispatch.attempt)
            .collect();
        let end = self.now + ms;
        while self.now < end {
            for worker in workers {
                let (worker, running) = (WorkerId(*worker), running.clone());
                self.ok(Event::Heartbeat { worker, session: 1, running });
            }
            self.pass((end - self.now).min(1_000));
        }
    }

    pub(crate) fn submit(&mut self, chain: u64, sequence: u64) -> BatchId {
        self.submit_spec(spec(chain, sequence))
    }

    pub(crate) fn submit_spec(&mut self, spec: Spec) -> BatchId {
        self.ok(Event::Submit { spec: spec.clone() });
        self.machine.batch_by_key(spec.tenant, &spec.key).unwrap()
    }

    /// The dispatches so far of tasks that are a kind's, oldest first.
    pub(crate) fn dispatched(&self, kind: Kind) -> Vec<Dispatch> {
        let dispatch = |(_, message): &(BatchId, Message)| match message {
            Message::Dispatch(dispatch) if dispatch.stage.kind() == kind => Some(Dispatch::clone(dispatch)),
            _ => None,
        };
        self.mail.iter().filter_map(dispatch).collect()
    }

    /// The latest dispatch of a kind.
    pub(crate) fn last(&self, kind: Kind) -> Dispatch {
        self.dispatched(kind).pop().unwrap_or_else(|| panic!("no {kind} was sent"))
    }

    pub(crate) fn deliveries(&self, attempt: AttemptId) -> Vec<(Hash, Vec<Artifact>)> {
        let delivery = |(_, message): &(BatchId, Message)| match message {
            Message::Deliver { attempt: to, key, outputs, .. } if *to == attempt => {
                Some((*key, outputs.clone()))
            }
            _ => None,
        };
        self.mail.iter().filter_map(delivery).collect()
    }

    pub(crate) fn is_revoked(&self, attempt: AttemptId) -> bool {
        let is_it = |(_, message): &(BatchId, Message)| matches!(message, Message::Revoke { attempt: other, .. } if *other == attempt);
        self.mail.iter().any(is_it)
    }

    pub(crate) fn is_fenced(&self, attempt: AttemptId) -> bool {
        self.done.iter().any(|work| matches!(work, Work::Fence { attempts } if attempts.contains(&attempt)))
    }

    pub(crate) fn is_released(&self, artifact: Artifact) -> bool {
        let is_it =
            |work: &Work| matches!(work, Work::Release { artifacts } if artifacts.contains(&artifact));
        self.done.iter().any(is_it)
    }

    pub(crate) fn report(&mut self, dispatch: &Dispatch, report: Report) -> Result<(), Error> {
        let (worker, session, attempt) = (dispatch.worker, dispatch.session, dispatch.attempt);
        self.step(Event::Result { worker, session, attempt, report })
    }

    pub(crate) fn finish(&mut self, dispatch: &Dispatch, outputs: &[&str]) {
        let outputs = outputs.iter().map(|text| output(text)).collect();
        self.report(dispatch, Report::Finished { outputs }).unwrap();
    }

    pub(crate) fn fail(&mut self, dispatch: &Dispatch) {
        self.report(dispatch, Report::Transient { reason: "device reset".into() }).unwrap();
    }

    pub(crate) fn spawn(&mut self, controller: &Dispatch, parts: Vec<Part>) -> Result<(), Error> {
        let (worker, session, attempt) = (controller.worker, controller.session, controller.attempt);
        self.step(Event::Spawn { worker, session, attempt, parts })
    }

    pub(crate) fn leave(&mut self, worker: WorkerId) {
        self.ok(Event::Leave { worker, session: 1 });
    }

    /// Submits a batch of one run and executes it; its controller, which has just been sent.
    pub(crate) fn controller(&mut self) -> Dispatch {
        self.submit(0, 0);
        let execute = self.last(Kind::Execute);
        self.finish(&execute, &["witness"]);
        self.last(Kind::Block)
    }

    pub(crate) fn phase(&self, batch: u64) -> Phase {
        self.machine.phase(BatchId(batch)).unwrap().clone()
    }
}

pub(crate) fn state(chain: u64, sequence: u64) -> Hash {
    hash(&format!("state {chain}/{sequence}"))
}

pub(crate) fn spec(chain: u64, sequence: u64) -> Spec {
    Spec {
        tenant: TenantId(chain),
        key: format!("{chain}/{sequence}"),
        chain: ChainId(chain),
        sequence,
        from: state(chain, sequence),
        to: state(chain, sequence + 1),
        payload: hash("payload"),
        payload_bytes: 10,
        units: 1,
        version: 1,
        priority: 0,
        deadline: None,
        deadline_is_hard: false,
        intake: hash(&format!("intake {chain}/{sequence}")),
    }
}
