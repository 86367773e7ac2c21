//! Carries out the schedule's effects that are the coordinator's own work.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{ArtifactStore, Holder, StoreError};
use assay_schedule::{Action, Artifact, BatchId, Effect, Event, Facts, Hash, Spec, Verdict, Work};
use tokio::sync::{mpsc, Semaphore};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::{Claim, NewFile, Settlement, Settler, Verifier};
use crate::names;
use crate::state::{Entry, ResultFile, StaleHold, FILES_MAX};

const WAIT: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Bounds of the coordinator's own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkLimits {
    /// Verifications at the same time.
    pub verifications_max: usize,
    /// Bytes that verifications may hold in memory, together. A single one may hold more, alone.
    pub bytes_max: u64,
    /// Other calls to the store at the same time.
    pub calls_max: usize,
    /// Settlements at the same time.
    pub settlements_max: usize,
}

impl Default for WorkLimits {
    fn default() -> Self {
        Self { verifications_max: 2, bytes_max: 1 << 30, calls_max: 32, settlements_max: 4 }
    }
}

struct Parts {
    store: Arc<dyn ArtifactStore>,
    verifier: Arc<dyn Verifier>,
    settler: Arc<dyn Settler>,
    limits: WorkLimits,
    verifications: Semaphore,
    kibibytes: Semaphore,
    calls: Semaphore,
    settlements: Semaphore,
}

/// Runs the effects of one term; dropped with it, which ends whatever is under way. There are as many tasks as effects
/// are outstanding, which the schedule bounds.
pub struct Executor {
    parts: Arc<Parts>,
    answers: mpsc::Sender<Entry>,
    tasks: JoinSet<()>,
}

impl Executor {
    /// An executor that sends its answers to `answers`.
    pub fn new(
        store: Arc<dyn ArtifactStore>,
        verifier: Arc<dyn Verifier>,
        settler: Arc<dyn Settler>,
        limits: WorkLimits,
        answers: mpsc::Sender<Entry>,
    ) -> Self {
        let parts = Parts {
            store,
            verifier,
            settler,
            limits,
            verifications: Semaphore::new(limits.verifications_max.max(1)),
            kibibytes: Semaphore::new(kibibytes(limits.bytes_max) as usize),
            calls: Semaphore::new(limits.calls_max.max(1)),
            settlements: Semaphore::new(limits.settlements_max.max(1)),
        };
        Self { parts: Arc::new(parts), answers, tasks: JoinSet::new() }
    }

    /// How many effects are under way.
    pub fn running(&mut self) -> usize {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.len()
    }

    /// Begins to carry out an effect of a batch.
    pub fn start(&mut self, effect: Effect, spec: Spec) {
        while self.tasks.try_join_next().is_some() {}
        let (parts, answers) = (Arc::clone(&self.parts), self.answers.clone());
        self.tasks.spawn(async move {
            let span = tracing::info_span!("work", effect = effect.id.0, batch = effect.batch.0);
            for entry in parts.carry_out(&effect, spec).instrument(span).await {
                // Nobody listens any more once the term is over.
                let _ = answers.send(entry).await;
            }
        });
    }

    /// Publishes a file of a result.
    pub fn publish(&mut self, batch: BatchId, file: NewFile) {
        while self.tasks.try_join_next().is_some() {}
        let (parts, answers) = (Arc::clone(&self.parts), self.answers.clone());
        self.tasks.spawn(async move {
            let _permit = parts.calls.acquire().await;
            if let Some(entry) = parts.keep_files(batch, vec![file]).await {
                let _ = answers.send(entry).await;
            }
        });
    }

    /// Lets go of artifacts that nobody needs.
    pub fn release(&mut self, stale: StaleHold) {
        while self.tasks.try_join_next().is_some() {}
        let parts = Arc::clone(&self.parts);
        self.tasks.spawn(async move {
            let holder = match stale {
                StaleHold::Payload(holder) => names::holder(holder),
                StaleHold::Files(batch) => names::result(batch),
            };
            let _permit = parts.calls.acquire().await;
            patiently("release", || parts.store.release(&holder)).await.ok();
        });
    }
}

/// Calls again until it works or can never work.
async fn patiently<T, F>(what: &'static str, mut call: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut wait = WAIT;
    loop {
        match call().await {
            Err(error) if error.class() == assay_queue::Class::Transient => {
                tracing::warn!(%error, what, "the artifact store fails; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(WAIT_MAX);
            }
            other => return other,
        }
    }
}

fn kibibytes(bytes: u64) -> u32 {
    u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4)
}

/// What reading an artifact has shown.
enum Found {
    Bytes(Vec<u8>),
    /// Something else is there.
    Damaged,
    Missing,
}

impl Parts {
    async fn carry_out(self: Arc<Self>, effect: &Effect, spec: Spec) -> Vec<Entry> {
        let id = effect.id;
        let verified = |verdict| vec![Entry::Event(Event::Verified { effect: id, verdict })];
        let Action::Work(work) = &effect.action else { return Vec::new() };
        match work {
            Work::Verify { stage, key, inputs, outputs, facts, .. } => {
                let roles = inputs.iter().map(|input| input.role).collect();
                let claim = Claim { stage: *stage, key: *key, inputs: roles, facts: *facts };
                let inputs: Vec<Artifact> = inputs.iter().map(|input| input.artifact).collect();
                verified(self.verify(claim, &inputs, outputs).await)
            }
            Work::Check { proof, facts } => verified(self.check(spec, *facts, *proof).await),
            Work::Audit { artifact, .. } => verified(self.audit(*artifact).await),
            Work::Settle { proof, .. } => self.settle(effect, spec, *proof).await,
            Work::Release { artifacts } => {
                let holders = artifacts.iter().map(|artifact| names::holder(artifact.holder));
                self.let_go(effect, holders, false).await
            }
            Work::Fence { attempts } => {
                self.let_go(effect, attempts.iter().map(|attempt| names::attempt(*attempt)), true).await
            }
        }
    }

    /// Ends holds, one after the other; a fence refuses later ones too.
    async fn let_go(
        &self,
        effect: &Effect,
        holders: impl Iterator<Item = Holder>,
        is_fence: bool,
    ) -> Vec<Entry> {
        let _permit = self.calls.acquire().await;
        for holder in holders {
            let freed = match is_fence {
                true => patiently("revoke", || self.store.revoke(&holder)).await,
                false => patiently("release", || self.store.release(&holder)).await,
            };
            if let Err(error) = freed {
                // Bytes are left over; better than a batch that is never forgotten.
                tracing::error!(%error, %holder, "artifacts cannot be deleted");
            }
        }
        vec![Entry::Event(Event::Done { effects: vec![effect.id] })]
    }

    async fn read(&self, artifact: &Artifact) -> Found {
        let hash = blake3::Hash::from_bytes(artifact.hash.0);
        match patiently("read", || self.store.get_at_most(&hash, artifact.bytes)).await {
            Ok(bytes) if bytes.len() as u64 == artifact.bytes => Found::Bytes(bytes),
            Ok(_) => Found::Damaged,
            Err(StoreError::Missing { .. }) => Found::Missing,
            Err(error) => {
                tracing::warn!(%error, artifact = %artifact.hash, "an artifact cannot be read");
                Found::Damaged
            }
        }
    }

    async fn read_all(&self, artifacts: &[Artifact]) -> Result<Vec<Vec<u8>>, Verdict> {
        let mut all = Vec::with_capacity(artifacts.len());
        for artifact in artifacts {
            match self.read(artifact).await {
                Found::Bytes(bytes) => all.push(bytes),
                Found::Damaged => return Err(damaged(artifacts)),
                Found::Missing => return Err(Verdict::Missing),
            }
        }
        Ok(all)
    }

    /// Sets memory aside, until it is dropped.
    async fn memory(&self, bytes: u64) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let share = kibibytes(bytes).min(kibibytes(self.limits.bytes_max));
        self.kibibytes.acquire_many(share).await.ok()
    }

    async fn verify(self: &Arc<Self>, claim: Claim, inputs: &[Artifact], outputs: &[Artifact]) -> Verdict {
        let needs_inputs = self.verifier.needs_inputs(&claim);
        let read = if needs_inputs { inputs } else { &[] };
        let Ok(_place) = self.verifications.acquire().await else { return Verdict::Missing };
        for output in outputs {
            // Whoever published it, from now on the schedule decides how long it stays.
            let (holder, hash) = (names::holder(output.holder), blake3::Hash::from_bytes(output.hash.0));
            match patiently("hold", || self.store.hold(&holder, &hash)).await {
                Ok(held) if held.bytes == output.bytes => {}
                // The size is the worker's word, and memory is set aside by it.
                Ok(held) => {
                    tracing::warn!(artifact = %output.hash, said = output.bytes, is = held.bytes, "a wrong size");
                    let hashes = outputs.iter().map(|artifact| artifact.hash).collect();
                    return Verdict::Read { hashes, valid: false };
                }
                Err(_) => return Verdict::Missing,
            }
        }
        // Sizes of inputs too may be a worker's word; no more than that is read.
        let bytes = read.iter().chain(outputs).map(|artifact| artifact.bytes).fold(0, u64::saturating_add);
        let Some(_memory) = self.memory(bytes).await else { return Verdict::Missing };
        let made = match self.read_all(outputs).await {
            Ok(made) => made,
            Err(verdict) => return verdict,
        };
        // An input that is gone is found by the next attempt; this one cannot be judged.
        let Ok(given) = self.read_all(read).await else { return Verdict::Missing };
        let this = Arc::clone(self);
        let is_right = blocking(move || this.verifier.verify(&claim, &given, &made)).await;
        Verdict::Read { hashes: outputs.iter().map(|artifact| artifact.hash).collect(), valid: is_right }
    }

    async fn check(self: &Arc<Self>, spec: Spec, facts: Facts, proof: Artifact) -> Verdict {
        let Ok(_place) = self.verifications.acquire().await else { return Verdict::Missing };
        let bytes = proof.bytes.saturating_add(spec.payload_bytes);
        let Some(_memory) = self.memory(bytes).await else { return Verdict::Missing };
        let proof_bytes = match self.read(&proof).await {
            Found::Bytes(bytes) => bytes,
            Found::Damaged => return damaged(&[proof]),
            Found::Missing => return Verdict::Missing,
        };
        let Found::Bytes(payload) = self.read(&payload(&spec)).await else { return Verdict::Missing };
        let this = Arc::clone(self);
        let valid = blocking(move || this.verifier.check(&facts, &payload, &proof_bytes)).await;
        Verdict::Read { hashes: vec![proof.hash], valid }
    }

    async fn audit(&self, artifact: Artifact) -> Verdict {
        let _permit = self.calls.acquire().await;
        let Some(_memory) = self.memory(artifact.bytes).await else { return Verdict::Missing };
        match self.read(&artifact).await {
            Found::Bytes(_) => Verdict::Read { hashes: vec![artifact.hash], valid: true },
            Found::Damaged => damaged(&[artifact]),
            Found::Missing => Verdict::Missing,
        }
    }

    async fn settle(&self, effect: &Effect, spec: Spec, proof: Artifact) -> Vec<Entry> {
        let failed = |is_permanent, reason: String| {
            vec![Entry::Event(Event::SettleFailed { effect: effect.id, permanent: is_permanent, reason })]
        };
        let _permit = self.settlements.acquire().await;
        let bytes = proof.bytes.saturating_add(spec.payload_bytes);
        let memory = self.memory(bytes).await;
        let Found::Bytes(payload) = self.read(&payload(&spec)).await else {
            return failed(true, "the payload is lost".into());
        };
        let Found::Bytes(proof) = self.read(&proof).await else {
            // It can be made again.
            return failed(false, "the proof is lost".into());
        };
        let settlement = Settlement { batch: effect.batch, spec, payload, proof };
        // A settlement takes hours, and verifications are not to wait for it.
        drop(memory);
        let files = match self.settler.settle(&settlement).await {
            Ok(files) => files,
            Err(error) => return failed(error.is_permanent, error.reason),
        };
        let mut entries: Vec<Entry> = self.keep_files(effect.batch, files).await.into_iter().collect();
        entries.push(Entry::Event(Event::Settled { effect: effect.id }));
        entries
    }

    /// Publishes files of a result.
    async fn keep_files(&self, batch: BatchId, files: Vec<NewFile>) -> Option<Entry> {
        let holder = names::result(batch);
        let mut kept = Vec::new();
        for file in files.into_iter().take(FILES_MAX).filter(|file| is_file_name(&file.name)) {
            let put = patiently("publish", || self.store.put(&holder, file.bytes.clone())).await;
            match put {
                Ok(artifact) => kept.push(ResultFile {
                    name: file.name,
                    hash: Hash(*artifact.hash.as_bytes()),
                    bytes: artifact.bytes,
                }),
                // The settlement stands all the same.
                Err(error) => tracing::error!(%error, file = file.name, "a file of the result is lost"),
            }
        }
        (!kept.is_empty()).then_some(Entry::Files { batch, files: kept })
    }
}

/// Whether a file of a result may have this name.
pub(crate) fn is_file_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_allowed)
}

fn payload(spec: &Spec) -> Artifact {
    Artifact { holder: spec.holder(), hash: spec.payload, bytes: spec.payload_bytes }
}

/// A verdict that no artifact can meet: what was read is not what was claimed.
fn damaged(artifacts: &[Artifact]) -> Verdict {
    let other = |artifact: &Artifact| Hash(artifact.hash.0.map(|byte| !byte));
    Verdict::Read { hashes: artifacts.iter().map(other).collect(), valid: false }
}

/// Runs a check on a thread that may block. A check that panics has not found its subject right.
async fn blocking(check: impl FnOnce() -> bool + Send + 'static) -> bool {
    tokio::task::spawn_blocking(check).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a check panicked");
        false
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use assay_queue::{Durability, FolderStore, StoreLimits};
    use assay_schedule::{AttemptId, ChainId, Holder as Held, Stage};

    use super::super::SettleError;
    use super::*;

    /// Counts what it is given.
    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Verifier for Counter {
        fn needs_inputs(&self, _: &Claim) -> bool {
            true
        }

        fn verify(&self, _: &Claim, _: &[Vec<u8>], _: &[Vec<u8>]) -> bool {
            self.0.fetch_add(1, Ordering::SeqCst);
            true
        }

        fn check(&self, _: &Facts, _: &[u8], _: &[u8]) -> bool {
            false
        }
    }

    #[async_trait::async_trait]
    impl Settler for Counter {
        async fn settle(&self, _: &Settlement) -> Result<Vec<NewFile>, SettleError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn an_output_of_another_size_than_its_worker_says_is_wrong_and_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path(), StoreLimits::default(), Durability::Process).unwrap();
        let checked = Arc::new(Counter::default());
        let (answers, _answered) = mpsc::channel(1);
        let verifier = Arc::clone(&checked) as Arc<dyn Verifier>;
        let settler = Arc::new(Counter::default());
        let store = Arc::new(store);
        let executor = Executor::new(store.clone(), verifier, settler, WorkLimits::default(), answers);
        let name = Held::Attempt(AttemptId(1), 0);
        let published = store.put(&names::holder(name), vec![7; 1 << 20]).await.unwrap();
        let hash = Hash(*published.hash.as_bytes());
        let facts = Facts {
            chain: ChainId(1),
            sequence: 0,
            genesis: Hash([0; 32]),
            from: Hash([0; 32]),
            to: Hash([1; 32]),
            payload: Hash([2; 32]),
            version: 1,
            deadline: None,
        };
        let claim = || Claim { stage: Stage::Wrap, key: Hash([0; 32]), inputs: Vec::new(), facts };
        let of = |bytes| Artifact { holder: name, hash, bytes };
        for said in [1, (1 << 20) - 1, (1 << 20) + 1, u64::MAX] {
            let verdict = executor.parts.verify(claim(), &[], &[of(said)]).await;
            assert_eq!(verdict, Verdict::Read { hashes: vec![hash], valid: false }, "said to be {said}");
        }
        assert_eq!(checked.0.load(Ordering::SeqCst), 0);
        assert!(matches!(executor.parts.read(&of(1)).await, Found::Damaged));
        let verdict = executor.parts.verify(claim(), &[of(1 << 20)], &[of(1 << 20)]).await;
        assert_eq!(verdict, Verdict::Read { hashes: vec![hash], valid: true });
        // An input whose size is a lie cannot be judged, and is not read either.
        let verdict = executor.parts.verify(claim(), &[of(1)], &[of(1 << 20)]).await;
        assert_eq!((verdict, checked.0.load(Ordering::SeqCst)), (Verdict::Missing, 1));
    }
}
