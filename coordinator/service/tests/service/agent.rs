//! A worker in this process that speaks the protocol and computes the stand-ins of `simple`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{ArtifactStore, Cursor, TaskQueue};
use assay_schedule::receipt::{worker_of, Outcome, Receipt, ReceiptKey, Usage};
use assay_schedule::{
    Action, Artifact, AttemptId, BatchId, Dispatch, Effect, Event, Hash, Holder, Kind, Message, Output, Part,
    Profile, Report, WorkerId,
};
use assay_service::names;
use ed25519_dalek::{Signer, SigningKey};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::simple::{output, part_input, Shape};

/// How a worker behaves.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    /// Time of each task.
    pub delay: Duration,
    /// Return wrong results.
    pub lies: bool,
    pub kinds: Vec<Kind>,
    pub slots: u32,
}

impl Default for Habits {
    fn default() -> Self {
        Self { delay: Duration::ZERO, lies: false, kinds: Kind::ALL.to_vec(), slots: 4 }
    }
}

/// A worker; dropping it is a `kill -9`.
pub(crate) struct Agent {
    task: JoinHandle<()>,
    /// Parts computed.
    pub shards: Arc<AtomicUsize>,
    hurry: Arc<AtomicBool>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What it signs receipts with; its number follows from it.
#[derive(Clone)]
struct Key(SigningKey);

impl ReceiptKey for Key {
    fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

fn sign(key: &Key, batch: BatchId, attempt: AttemptId, task: Hash, kind: Kind) -> serde_json::Value {
    let receipt = Receipt {
        worker: worker_of(&key.public()),
        batch,
        attempt,
        key: task,
        kind,
        outcome: Outcome::Finished,
        inputs: Vec::new(),
        outputs: Vec::new(),
        device: "sim".into(),
        build: "t".into(),
        usage: Usage { cpu_ms: 7, gpu_ms: 3, ..Usage::default() },
    };
    serde_json::to_value(receipt.sign(key).unwrap()).unwrap()
}

/// A receipt that its worker has signed.
pub(crate) fn signed_receipt(seed: u8) -> serde_json::Value {
    let key = Key(SigningKey::from_bytes(&[seed; 32]));
    sign(&key, BatchId(2), AttemptId(3), Hash([4; 32]), Kind::Shard)
}

#[derive(Clone)]
struct Links {
    queue: Arc<dyn TaskQueue>,
    store: Arc<dyn ArtifactStore>,
    worker: WorkerId,
    key: Key,
    name: String,
    session: u64,
    habits: Habits,
    shards: Arc<AtomicUsize>,
    hurry: Arc<AtomicBool>,
}

impl Agent {
    pub(crate) fn start(
        queue: Arc<dyn TaskQueue>,
        store: Arc<dyn ArtifactStore>,
        worker: u64,
        habits: Habits,
    ) -> Self {
        let (shards, hurry) = <(Arc<AtomicUsize>, Arc<AtomicBool>)>::default();
        let key = Key(SigningKey::from_bytes(&[worker as u8; 32]));
        let links = Links {
            queue,
            store,
            worker: worker_of(&key.public()),
            key,
            name: format!("w{worker}"),
            session: rand::random::<u64>() >> 11,
            habits,
            shards: Arc::clone(&shards),
            hurry: Arc::clone(&hurry),
        };
        Self { task: tokio::spawn(links.run()), shards, hurry }
    }

    /// Whether its tasks take no time, those that run included.
    pub(crate) fn hurry(&self, hurry: bool) {
        self.hurry.store(hurry, Ordering::SeqCst);
    }
}

type Delivered = (Hash, Vec<Artifact>);

impl Links {
    async fn run(mut self) {
        loop {
            self.live().await;
            // The session is over: begin another.
            self.session += 1;
        }
    }

    async fn post(&self, event: &Event) {
        self.queue.post(serde_json::to_vec(event).unwrap()).await.unwrap();
    }

    async fn live(&self) {
        let (worker, session) = (self.worker, self.session);
        let Habits { kinds, slots, .. } = self.habits.clone();
        let profile = Profile { kinds, version: 1, memory_bytes: 1 << 40, slots, controllers: 4 };
        self.post(&Event::Join { worker, session, profile }).await;
        let name = &self.name;
        let about =
            format!(r#"{{"about":{{"worker":{worker},"name":"{name}","devices":["sim"],"build":"t"}}}}"#);
        self.queue.post(about.into_bytes()).await.unwrap();
        let mailbox = names::worker(worker, session);
        let mut running: HashMap<AttemptId, mpsc::UnboundedSender<Delivered>> = HashMap::new();
        let mut tasks: JoinSet<AttemptId> = JoinSet::new();
        let mut handles = HashMap::new();
        let (mut cursor, mut beat) = (Cursor(0), Instant::now());
        loop {
            let page = self.queue.read(&mailbox, cursor, 100, Duration::from_millis(50)).await.unwrap();
            for mail in &page.mails {
                cursor = mail.cursor;
                // What is no effect says that a result was taken.
                let Ok(effect) = serde_json::from_slice::<Effect>(&mail.bytes) else { continue };
                let Action::Message(message) = effect.action else { panic!("work in a mailbox") };
                match message {
                    Message::Dispatch(dispatch) => {
                        let (sender, receiver) = mpsc::unbounded_channel();
                        running.insert(dispatch.attempt, sender);
                        let (id, links) = (dispatch.attempt, self.clone());
                        let handle = tasks.spawn(async move {
                            links.work(*dispatch, receiver).await;
                            id
                        });
                        handles.insert(id, handle);
                    }
                    Message::Deliver { attempt, key, outputs, .. } => {
                        if let Some(sender) = running.get(&attempt) {
                            let _ = sender.send((key, outputs));
                        }
                    }
                    Message::Revoke { attempt, .. } => {
                        running.remove(&attempt);
                        handles.remove(&attempt).inspect(tokio::task::AbortHandle::abort);
                    }
                    Message::Respawn { .. } | Message::Notify { .. } => {}
                }
            }
            if page.is_closed {
                return;
            }
            while let Some(done) = tasks.try_join_next() {
                if let Ok(id) = done {
                    running.remove(&id);
                }
            }
            if beat.elapsed() > Duration::from_millis(200) {
                beat = Instant::now();
                let running = running.keys().copied().collect();
                self.post(&Event::Heartbeat { worker, session, running }).await;
            }
        }
    }

    async fn work(&self, dispatch: Dispatch, delivered: mpsc::UnboundedReceiver<Delivered>) {
        let attempt = dispatch.attempt;
        let report = match self.compute(&dispatch, delivered).await {
            Some(outputs) => Report::Finished { outputs },
            None => Report::Transient { reason: "could not".into() },
        };
        self.post(&Event::Result { worker: self.worker, session: self.session, attempt, report }).await;
        let signed = sign(&self.key, dispatch.batch, attempt, dispatch.key, dispatch.stage.kind());
        let receipt = format!(r#"{{"receipt":{signed}}}"#);
        self.queue.post(receipt.into_bytes()).await.unwrap();
    }

    async fn compute(
        &self,
        dispatch: &Dispatch,
        delivered: mpsc::UnboundedReceiver<Delivered>,
    ) -> Option<Vec<Output>> {
        let kind = dispatch.stage.kind();
        let mut inputs = Vec::new();
        for input in &dispatch.inputs {
            inputs.push(self.store.get(&blake3::Hash::from_bytes(input.artifact.hash.0)).await.ok()?);
        }
        if kind.is_controller() {
            self.control(dispatch, &inputs[0], delivered).await?;
        } else {
            let end = Instant::now() + self.habits.delay;
            while Instant::now() < end && !self.hurry.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        if kind.is_part() {
            self.shards.fetch_add(1, Ordering::SeqCst);
        }
        let count = if kind == Kind::Execute { Shape::read(&inputs[0])?.runs } else { 1 };
        let mut outputs = Vec::new();
        for index in 0..count {
            let mut bytes = output(kind, &inputs, index)?;
            if self.habits.lies {
                bytes[0] ^= 1;
            }
            let artifact = self.publish(dispatch.attempt, index, bytes).await?;
            outputs.push(Output { hash: artifact.hash, bytes: artifact.bytes, units: 1 });
        }
        Some(outputs)
    }

    async fn publish(&self, attempt: AttemptId, number: u32, bytes: Vec<u8>) -> Option<Artifact> {
        let holder = Holder::Attempt(attempt, number);
        let artifact = self.store.put(&names::holder(holder), bytes).await.ok()?;
        Some(Artifact { holder, hash: Hash(*artifact.hash.as_bytes()), bytes: artifact.bytes })
    }

    /// Has all shards proved, and then one reduction of them.
    async fn control(
        &self,
        dispatch: &Dispatch,
        input: &[u8],
        mut delivered: mpsc::UnboundedReceiver<Delivered>,
    ) -> Option<()> {
        let mut parts = Vec::new();
        for index in 0..Shape::read(input)?.shards {
            let bytes = part_input(input, index);
            let given = self.publish(dispatch.attempt, Holder::INPUTS + index, bytes).await?;
            parts.push(Part { kind: Kind::Shard, key: given.hash, inputs: vec![given], units: 1 });
        }
        let proofs = self.spawn(dispatch.attempt, parts, &mut delivered).await?;
        let key = Hash(*blake3::hash(&[proofs[0].hash.0, [7; 32]].concat()).as_bytes());
        let reduction = Part { kind: Kind::Reduce, key, inputs: proofs, units: 1 };
        self.spawn(dispatch.attempt, vec![reduction], &mut delivered).await?;
        Some(())
    }

    /// Asks for parts until all are delivered; returns their first outputs, in order.
    async fn spawn(
        &self,
        attempt: AttemptId,
        parts: Vec<Part>,
        delivered: &mut mpsc::UnboundedReceiver<Delivered>,
    ) -> Option<Vec<Artifact>> {
        let mut found: HashMap<Hash, Artifact> = HashMap::new();
        while found.len() < parts.len() {
            let missing = parts.iter().filter(|part| !found.contains_key(&part.key)).cloned().collect();
            let (worker, session) = (self.worker, self.session);
            self.post(&Event::Spawn { worker, session, attempt, parts: missing }).await;
            let again = Instant::now() + Duration::from_secs(2);
            while found.len() < parts.len() {
                match tokio::time::timeout_at(again, delivered.recv()).await {
                    Ok(delivery) => {
                        let (key, outputs) = delivery?;
                        found.insert(key, *outputs.first()?);
                    }
                    Err(_) => break,
                }
            }
        }
        parts.iter().map(|part| found.get(&part.key).copied()).collect()
    }
}
