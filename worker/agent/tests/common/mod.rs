//! A worker of its own runtime, a coordinator that does what a test says, and a queue and a store that can be cut off.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "every test binary uses its own part of this")]

pub mod conductor;
pub mod cut;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use assay_agent::agent::{Agent, AgentConfig, AgentError, Signal};
use assay_agent::key::WorkerKey;
use assay_agent::receipt::SignedReceipt;
use assay_agent::runner::{Device, Runner};
use assay_agent::state::Times;
use assay_agent::wire::{self, About, Answer, Extra, Health};
use assay_queue::{
    ArtifactStore, Commit, Cursor, Durability, EmbeddedQueue, FolderStore, QueueLimits, StoreLimits,
    TaskQueue,
};
use assay_schedule::{
    Action, Artifact, AttemptId, BatchId, ChainId, Dispatch, Effect, EffectId, Epoch, Event, Facts, Hash,
    Holder, Input, Message, Report, Role, Stage, WorkerId,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use cut::{CutQueue, CutStore, Switch};

/// Bound on waits that end early when all is well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A worker in a runtime of its own, so that it can be killed as a whole.
pub struct Worker {
    runtime: Option<Runtime>,
    task: Option<tokio::task::JoinHandle<Result<(), AgentError>>>,
    signals: mpsc::Sender<Signal>,
    pub id: WorkerId,
}

/// Fast in tests: what takes seconds outside takes milliseconds here.
pub fn config(dir: &Path) -> AgentConfig {
    let mut config = AgentConfig::new(dir, 1, 100);
    config.name = "tester".to_owned();
    config.devices = vec![(Device::Gpu(0), "Model T".to_owned())];
    config.times = Times {
        heartbeat_ms: 100,
        repeat_ms: 300,
        repeat_ms_max: 1_000,
        retry_ms: 20,
        retry_ms_max: 200,
        drain_ms: 20_000,
        leave_ms: 5_000,
        ..Times::default()
    };
    config
}

impl Worker {
    pub fn start(
        config: AgentConfig,
        queue: Arc<dyn TaskQueue>,
        store: Arc<dyn ArtifactStore>,
        runner: impl Runner,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let key = WorkerKey::open(&config.work_dir.join("worker.key")).unwrap();
        let id = key.worker();
        let (signals, receiver) = mpsc::channel(4);
        // The worker before may not have let go of its folder yet.
        let deadline = std::time::Instant::now() + PATIENCE;
        let runner: Arc<dyn Runner> = Arc::new(runner);
        let agent = loop {
            let key = WorkerKey::open(&config.work_dir.join("worker.key")).unwrap();
            match Agent::open(config.clone(), queue.clone(), store.clone(), runner.clone(), key) {
                Ok(agent) => break agent,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let task = runtime.spawn(async move { agent.run(receiver).await });
        Self { runtime: Some(runtime), task: Some(task), signals, id }
    }

    /// The end of the process without any warning.
    pub fn kill(mut self) {
        let runtime = self.runtime.take().unwrap();
        // A runtime may not end another one.
        std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(10))).join().unwrap();
    }

    pub async fn signal(&self) {
        self.signals.send(Signal::Leave).await.unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) {
        self.result().await.unwrap();
    }

    /// Waits until it has ended by itself, well or not.
    pub async fn result(&mut self) -> Result<(), AgentError> {
        tokio::time::timeout(PATIENCE, self.task.take().unwrap()).await.expect("it leaves").unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A queue and a store, in this process.
pub struct Bench {
    pub queue: Arc<dyn TaskQueue>,
    pub store: Arc<dyn ArtifactStore>,
    pub dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = FolderStore::open(&dir.path().join("store"), StoreLimits::default(), Durability::Process);
        Self {
            queue: Arc::new(EmbeddedQueue::in_memory(QueueLimits::default())),
            store: Arc::new(store.unwrap()),
            dir,
        }
    }

    pub fn config(&self) -> AgentConfig {
        config(&self.dir.path().join("worker"))
    }

    /// Puts bytes into the store as a submitted payload.
    pub async fn publish(&self, bytes: &[u8]) -> Artifact {
        let holder = Holder::Intake(Hash(*blake3::hash(bytes).as_bytes()));
        let name = wire::holder(holder).unwrap();
        let stored = self.store.put(&name, bytes.to_vec()).await.unwrap();
        Artifact { holder, hash: Hash(*stored.hash.as_bytes()), bytes: stored.bytes }
    }

    pub async fn read(&self, hash: &Hash) -> Vec<u8> {
        self.store.get(&blake3::Hash::from_bytes(hash.0)).await.unwrap()
    }

    /// Damages an artifact in the store's folder.
    pub fn damage(&self, hash: &Hash) {
        let name = hash.to_string();
        let path = self.dir.path().join("store/blobs").join(&name[..2]).join(&name);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
}

/// A leader that only does what the test says.
pub struct Coordinator {
    queue: Arc<dyn TaskQueue>,
    epoch: assay_queue::Epoch,
    cursor: Cursor,
    waiting: VecDeque<Event>,
    pub receipts: Vec<SignedReceipt>,
    pub abouts: Vec<About>,
    pub healths: Vec<Health>,
    pub worker: WorkerId,
    pub session: u64,
    effects: u64,
}

impl Coordinator {
    /// Leads, and waits for the worker to register.
    pub async fn meet(queue: &Arc<dyn TaskQueue>) -> Self {
        let epoch = queue.lead("script", Duration::from_secs(3600)).await.unwrap().unwrap();
        let mut this = Self {
            queue: queue.clone(),
            epoch,
            cursor: Cursor(0),
            waiting: VecDeque::new(),
            receipts: Vec::new(),
            abouts: Vec::new(),
            healths: Vec::new(),
            worker: WorkerId(0),
            session: 0,
            effects: 0,
        };
        this.meet_again().await;
        this
    }

    /// Waits for the next registration.
    pub async fn meet_again(&mut self) {
        (self.worker, self.session) = self
            .wait_for("a registration", |event| match event {
                Event::Join { worker, session, .. } => Some((*worker, *session)),
                _ => None,
            })
            .await;
    }

    /// The next event that `pick` takes; others are passed over.
    pub async fn wait_for<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(event) = self.waiting.pop_front() {
                if let Some(found) = pick(&event) {
                    return found;
                }
            }
            assert!(Instant::now() < deadline, "no {what}");
            self.take(Duration::from_millis(200)).await;
        }
    }

    /// Everything that comes within a time.
    pub async fn listen(&mut self, time: Duration) -> Vec<Event> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.take(Duration::from_millis(20)).await;
        }
        self.waiting.drain(..).collect()
    }

    async fn take(&mut self, wait: Duration) {
        let events = self.queue.events(self.cursor, 256, wait).await.unwrap();
        let Some((last, _)) = events.last() else { return };
        self.cursor = *last;
        for (_, bytes) in &events {
            if let Ok(event) = serde_json::from_slice::<Event>(bytes) {
                self.waiting.push_back(event);
                continue;
            }
            match serde_json::from_slice::<Extra>(bytes).unwrap() {
                // A result that is not answered soon is told again, with its receipt.
                Extra::Receipt(receipt) if self.receipts.contains(&receipt) => {}
                Extra::Receipt(receipt) => self.receipts.push(*receipt),
                Extra::About(about) => self.abouts.push(about),
                Extra::Health(health) => self.healths.push(health),
            }
        }
        self.queue.commit(self.epoch, &Commit::new(self.cursor)).await.unwrap();
    }

    pub async fn result(&mut self, attempt: u64) -> Report {
        let what = format!("result of {attempt}");
        self.wait_for(&what, |event| match event {
            Event::Result { attempt: told, report, .. } if told.0 == attempt => Some(report.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for a heartbeat that names exactly these attempts.
    pub async fn running(&mut self, attempts: &[u64]) {
        let what = format!("heartbeat with {attempts:?}");
        self.wait_for(&what, |event| match event {
            Event::Heartbeat { running, .. } => {
                running.iter().map(|attempt| attempt.0).eq(attempts.iter().copied()).then_some(())
            }
            _ => None,
        })
        .await;
    }

    pub async fn mail(&mut self, bytes: Vec<u8>) {
        let mut commit = Commit::new(self.cursor);
        commit.mails.push((wire::mailbox(self.worker, self.session).unwrap(), bytes));
        self.queue.commit(self.epoch, &commit).await.unwrap();
    }

    pub async fn tell(&mut self, message: Message) {
        self.effects += 1;
        let effect = Effect {
            id: EffectId(self.effects),
            epoch: Epoch(1),
            batch: BatchId(1),
            action: Action::Message(message),
        };
        self.mail(serde_json::to_vec(&effect).unwrap()).await;
    }

    pub async fn answer(&mut self, attempt: u64) {
        let answer = Answer::Closed { attempt: AttemptId(attempt) };
        self.mail(serde_json::to_vec(&answer).unwrap()).await;
    }

    /// Ends the worker's session.
    pub async fn close(&mut self) {
        let mut commit = Commit::new(self.cursor);
        commit.close.push(wire::mailbox(self.worker, self.session).unwrap());
        self.queue.commit(self.epoch, &commit).await.unwrap();
    }

    pub fn task(&self, attempt: u64, stage: Stage, inputs: &[Artifact]) -> Dispatch {
        let hash = Hash([attempt as u8; 32]);
        Dispatch {
            attempt: AttemptId(attempt),
            worker: self.worker,
            session: self.session,
            batch: BatchId(1),
            stage,
            key: hash,
            inputs: inputs.iter().map(|artifact| Input { role: Role::Part, artifact: *artifact }).collect(),
            units: 1,
            memory_bytes: 10,
            outputs_max: 64,
            facts: Facts {
                chain: ChainId(1),
                sequence: 0,
                genesis: hash,
                from: hash,
                to: hash,
                payload: hash,
                version: 1,
                deadline: None,
            },
        }
    }

    pub async fn dispatch(&mut self, attempt: u64, stage: Stage, inputs: &[Artifact]) {
        let task = self.task(attempt, stage, inputs);
        self.tell(Message::Dispatch(Box::new(task))).await;
    }

    pub async fn revoke(&mut self, attempt: u64) {
        let (worker, session) = (self.worker, self.session);
        let attempt = AttemptId(attempt);
        self.tell(Message::Revoke { worker, session, attempt, is_wrong: false }).await;
    }

    /// Says that a result does not verify.
    pub async fn refuse(&mut self, attempt: u64) {
        let (worker, session) = (self.worker, self.session);
        let attempt = AttemptId(attempt);
        self.tell(Message::Revoke { worker, session, attempt, is_wrong: true }).await;
    }

    pub async fn deliver(&mut self, attempt: u64, key: Hash, outputs: Vec<Artifact>) {
        let (worker, session) = (self.worker, self.session);
        self.tell(Message::Deliver { worker, session, attempt: AttemptId(attempt), key, outputs }).await;
    }
}

/// The outputs of a finished report.
pub fn finished(report: &Report) -> Vec<Hash> {
    match report {
        Report::Finished { outputs } => outputs.iter().map(|output| output.hash).collect(),
        other => panic!("not finished: {other:?}"),
    }
}

/// Waits for something that other tasks bring about.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
