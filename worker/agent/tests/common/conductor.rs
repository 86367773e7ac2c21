//! A coordinator around the real schedule, as small as it can be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_agent::fake::results;
use assay_agent::receipt::SignedReceipt;
use assay_agent::wire::{self, Answer, Extra, Health};
use assay_queue::{ArtifactStore, Commit, Cursor, Mailbox, TaskQueue};
use assay_schedule::{
    Action, Artifact, AttemptId, BatchId, ChainId, Dispatch, Effect, Epoch, Event, Hash, Limits, Machine,
    Message, Phase, Recipient, Spec, Stage, TenantId, Time, Verdict, Work,
};
use tokio::time::Instant;

use super::PATIENCE;

/// Leads until the batches are done.
pub struct Conductor {
    queue: Arc<dyn TaskQueue>,
    store: Arc<dyn ArtifactStore>,
    pub machine: Machine,
    epoch: assay_queue::Epoch,
    cursor: Cursor,
    mails: Vec<(Mailbox, Vec<u8>)>,
    close: Vec<Mailbox>,
    sessions: BTreeMap<assay_schedule::WorkerId, u64>,
    work: Vec<Effect>,
    pub receipts: Vec<SignedReceipt>,
    /// What is wrong with workers, as they say.
    pub healths: Vec<Health>,
    /// Tasks that were handed out, oldest first.
    pub dispatched: Vec<Dispatch>,
    /// Keys of parts and tasks whose results counted, in order.
    pub proved: Vec<Hash>,
    /// Keys that were handed out after their result had counted.
    pub again: Vec<Hash>,
    /// Keys by attempt.
    keys: BTreeMap<AttemptId, Hash>,
    pub accepted: BTreeSet<AttemptId>,
    pub proofs: BTreeMap<BatchId, Artifact>,
}

fn now() -> Time {
    Time(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

pub fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.memory_bytes.0 = [10; 7];
    limits.memory_bytes_max = 50;
    limits.worker_lease_ms = 3_000;
    limits.dispatch_grace_ms = 1_000;
    limits.backoff_ms = 20;
    limits.backoff_ms_max = 200;
    limits.failures_max = 50;
    limits.losses_max = 500;
    limits.ns_per_unit.0 = [1_000_000; 7];
    limits.timeout_ms_min = 4_000;
    // Also for controllers, which may wait for a long time for their parts.
    limits.idle_ms_min = 4_000;
    limits.quarantine_ms = 300;
    limits.quarantine_ms_max = 1_000;
    limits
}

impl Conductor {
    pub async fn lead(queue: &Arc<dyn TaskQueue>, store: &Arc<dyn ArtifactStore>) -> Self {
        Self::lead_under(limits(), queue, store).await
    }

    pub async fn lead_under(
        limits: Limits,
        queue: &Arc<dyn TaskQueue>,
        store: &Arc<dyn ArtifactStore>,
    ) -> Self {
        let epoch = queue.lead("conductor", Duration::from_secs(3600)).await.unwrap().unwrap();
        let mut this = Self {
            queue: queue.clone(),
            store: store.clone(),
            machine: Machine::new(limits).unwrap(),
            epoch,
            cursor: Cursor(0),
            mails: Vec::new(),
            close: Vec::new(),
            sessions: BTreeMap::new(),
            work: Vec::new(),
            receipts: Vec::new(),
            healths: Vec::new(),
            dispatched: Vec::new(),
            proved: Vec::new(),
            again: Vec::new(),
            keys: BTreeMap::new(),
            accepted: BTreeSet::new(),
            proofs: BTreeMap::new(),
        };
        this.step(Event::TakeOver { epoch: Epoch(epoch.0) });
        this
    }

    pub async fn submit(&mut self, sequence: u64, payload: &[u8]) -> BatchId {
        let spec = Spec {
            tenant: TenantId(1),
            key: format!("batch {sequence}"),
            chain: ChainId(1),
            sequence,
            from: Hash([sequence as u8; 32]),
            to: Hash([sequence as u8 + 1; 32]),
            payload: Hash(*blake3::hash(payload).as_bytes()),
            payload_bytes: payload.len() as u64,
            units: 1,
            version: 1,
            priority: 0,
            deadline: None,
            deadline_is_hard: false,
            intake: Hash([sequence as u8 ^ 0x80; 32]),
        };
        let holder = wire::holder(spec.holder()).unwrap();
        self.store.put(&holder, payload.to_vec()).await.unwrap();
        let key = spec.key.clone();
        assert!(self.step(Event::Submit { spec }));
        self.machine.batch_by_key(TenantId(1), &key).expect("it was taken")
    }

    fn step(&mut self, event: Event) -> bool {
        if let Event::Join { worker, session, .. } = &event {
            if let Some(before) = self.sessions.insert(*worker, *session).filter(|before| before != session) {
                self.close.push(wire::mailbox(*worker, before).unwrap());
            }
        }
        let is_result = match &event {
            Event::Result { worker, session, attempt, .. } => Some((*worker, *session, *attempt)),
            _ => None,
        };
        let effects = self.machine.step(event, now());
        if let Some((worker, session, attempt)) = is_result {
            let answer = serde_json::to_vec(&Answer::Closed { attempt }).unwrap();
            self.mails.push((wire::mailbox(worker, session).unwrap(), answer));
        }
        let Ok(effects) = effects else { return false };
        for effect in effects {
            match &effect.action {
                Action::Message(message) => {
                    if let Message::Dispatch(dispatch) = message {
                        self.dispatched.push(Dispatch::clone(dispatch));
                        if self.proved.contains(&dispatch.key) {
                            self.again.push(dispatch.key);
                        }
                        self.keys.insert(dispatch.attempt, dispatch.key);
                    }
                    if let Recipient::Worker { worker, session } = message.recipient(effect.batch) {
                        let mail = serde_json::to_vec(&effect).unwrap();
                        self.mails.push((wire::mailbox(worker, session).unwrap(), mail));
                    }
                }
                Action::Work(_) => self.work.push(effect),
            }
        }
        true
    }

    /// Works until all batches have ended; returns how.
    pub async fn run(&mut self, mut disturb: impl FnMut(&mut Self)) -> Vec<(BatchId, Phase)> {
        let deadline = Instant::now() + PATIENCE * 3;
        loop {
            let live = self.machine.batches().filter(|(_, phase)| !phase.is_terminal()).count();
            if live == 0 && self.machine.pending().next().is_none() {
                return self.machine.batches().map(|(id, phase)| (id, phase.clone())).collect();
            }
            assert!(Instant::now() < deadline, "the batches do not end");
            self.turn().await;
            disturb(self);
        }
    }

    /// Works until it is so.
    pub async fn run_until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE * 3;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "not seen: {what}");
            self.turn().await;
        }
    }

    async fn turn(&mut self) {
        let events = self.queue.events(self.cursor, 256, Duration::from_millis(20)).await.unwrap();
        for (cursor, bytes) in events {
            self.cursor = cursor;
            match serde_json::from_slice::<Event>(&bytes) {
                Ok(event) => {
                    self.step(event);
                }
                Err(_) => match serde_json::from_slice(&bytes).unwrap() {
                    // A result that is not answered soon is told again, with its receipt.
                    Extra::Receipt(receipt) if self.receipts.contains(&receipt) => {}
                    Extra::Receipt(receipt) => self.receipts.push(*receipt),
                    Extra::Health(health) => self.healths.push(health),
                    Extra::About(_) => {}
                },
            }
        }
        self.step(Event::Tick);
        self.machine.check().unwrap();
        let mut commit = Commit::new(self.cursor);
        commit.mails = std::mem::take(&mut self.mails);
        commit.close = std::mem::take(&mut self.close);
        self.queue.commit(self.epoch, &commit).await.unwrap();
        for effect in std::mem::take(&mut self.work) {
            let id = effect.id;
            let Action::Work(work) = effect.action else { continue };
            let mut checked = None;
            let answer = match work {
                Work::Verify { attempt, stage, inputs, outputs, .. } => {
                    let inputs = inputs.iter().map(|input| input.artifact).collect::<Vec<_>>();
                    let verdict = self.verify(stage, &inputs, &outputs).await;
                    if matches!(verdict, Verdict::Read { valid: true, .. }) {
                        checked = Some(attempt);
                    }
                    Event::Verified { effect: id, verdict }
                }
                Work::Audit { artifact, .. } => {
                    let verdict = match self.read(&artifact).await {
                        Some(_) => Verdict::Read { hashes: vec![artifact.hash], valid: true },
                        None => Verdict::Missing,
                    };
                    Event::Verified { effect: id, verdict }
                }
                Work::Check { proof, .. } => {
                    self.proofs.insert(effect.batch, proof);
                    Event::Verified {
                        effect: id,
                        verdict: Verdict::Read { hashes: vec![proof.hash], valid: true },
                    }
                }
                Work::Settle { .. } => Event::Settled { effect: id },
                Work::Release { artifacts } => {
                    for artifact in artifacts {
                        self.store.release(&wire::holder(artifact.holder).unwrap()).await.unwrap();
                    }
                    Event::Done { effects: vec![id] }
                }
                Work::Fence { attempts } => {
                    for attempt in attempts {
                        let holder = assay_queue::Holder::new(format!("attempt/{attempt}")).unwrap();
                        self.store.revoke(&holder).await.unwrap();
                    }
                    Event::Done { effects: vec![id] }
                }
            };
            // Of two attempts that end in the same turn the second was taken back by the first's verdict.
            if let (true, Some(attempt)) = (self.step(answer), checked) {
                self.proved.push(self.keys[&attempt]);
                self.accepted.insert(attempt);
            }
        }
    }

    /// No task is proved after its result has counted, and no result counts twice.
    pub fn assert_nothing_proved_again(&self) {
        assert_eq!(self.again, [], "something finished was handed out again");
        let distinct: BTreeSet<_> = self.proved.iter().collect();
        assert_eq!(distinct.len(), self.proved.len(), "a result counted twice");
    }

    async fn read(&self, artifact: &Artifact) -> Option<Vec<u8>> {
        self.store.get(&blake3::Hash::from_bytes(artifact.hash.0)).await.ok()
    }

    async fn verify(&self, stage: Stage, inputs: &[Artifact], outputs: &[Artifact]) -> Verdict {
        let mut given = Vec::new();
        for artifact in inputs {
            match self.read(artifact).await {
                Some(bytes) => given.push(bytes),
                None => return Verdict::Missing,
            }
        }
        let mut made = Vec::new();
        for artifact in outputs {
            match self.read(artifact).await {
                Some(bytes) => made.push(bytes),
                None => return Verdict::Missing,
            }
        }
        let hashes = outputs.iter().map(|artifact| artifact.hash).collect();
        Verdict::Read { hashes, valid: results(stage.kind(), &given).is_ok_and(|right| right == made) }
    }

    /// The final proof of a batch.
    pub async fn proof(&self, batch: BatchId) -> Vec<u8> {
        self.read(&self.proofs[&batch]).await.expect("the proof is kept")
    }
}
