//! Carries out the schedule's effects that are the coordinator's own work.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_queue::{ArtifactStore, Holder, StoreError};
use assay_schedule::{Action, Artifact, BatchId, Effect, EffectId, Event, Facts, Hash, Spec, Verdict, Work};
use tokio::sync::{mpsc, Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::{Claim, Judgement, Lost, NewFile, SettleError, Settlement, Settler, Verifier};
use crate::names;
use crate::state::{Entry, ResultFile, StaleHold, FILES_MAX};

/// Results whose bytes are no more than this are read and checked together, as many as come from one turn.
const SMALL_BYTES: u64 = 64 << 10;
/// The most that are taken together.
const TOGETHER_MAX: usize = 256;
/// Verdicts that are there go to the leader after this, while others are still being found.
const VERDICTS_TIME: Duration = Duration::from_millis(1);
const WAIT: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Bounds of the coordinator's own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkLimits {
    /// Verifications at the same time.
    pub verifications_max: usize,
    /// Bytes that verifications may hold in memory, together. A single one may hold more, alone, but for a part: whose inputs
    /// are larger is not checked.
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
    running: Arc<AtomicUsize>,
}

/// Counts effects that are under way.
struct Running(Arc<AtomicUsize>, usize);

impl Running {
    fn new(count: &Arc<AtomicUsize>, effects: usize) -> Self {
        count.fetch_add(effects, Ordering::Relaxed);
        Self(Arc::clone(count), effects)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// A result that is to be verified.
struct Made {
    effect: EffectId,
    claim: Claim,
    inputs: Vec<Artifact>,
    outputs: Vec<Artifact>,
}

/// A result that was read: the bytes of its inputs, if they matter, and of its outputs.
struct Read {
    made: Made,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
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
        Self { parts: Arc::new(parts), answers, tasks: JoinSet::new(), running: Arc::default() }
    }

    /// How many effects are under way.
    pub fn running(&mut self) -> usize {
        while self.tasks.try_join_next().is_some() {}
        self.running.load(Ordering::Relaxed)
    }

    /// Begins to carry out effects, small ones together. `spec` knows the batches. Returns what is left to a coordinator of
    /// another version, and why: it stays outstanding.
    pub fn start(
        &mut self,
        effects: Vec<Effect>,
        spec: impl Fn(BatchId) -> Option<Spec>,
    ) -> Vec<(BatchId, String)> {
        while self.tasks.try_join_next().is_some() {}
        let (mut releases, mut fences, mut small) = (Vec::new(), Vec::new(), Vec::new());
        let mut left = Vec::new();
        for effect in effects {
            if let Some(reason) = self.other_version(&effect, &spec) {
                tracing::warn!(batch = effect.batch.0, reason, "left to another coordinator");
                left.push((effect.batch, reason));
                continue;
            }
            match effect.action {
                Action::Message(_) => {}
                Action::Work(Work::Release { artifacts }) => {
                    let holders = artifacts.iter().map(|artifact| names::holder(artifact.holder));
                    releases.push((effect.id, holders.collect()));
                }
                Action::Work(Work::Fence { attempts }) => {
                    fences.push((effect.id, attempts.into_iter().map(names::attempt).collect()));
                }
                Action::Work(Work::Verify { stage, key, inputs, outputs, facts, .. }) => {
                    let roles = inputs.iter().map(|input| input.role).collect();
                    let claim = Claim { stage, key, inputs: roles, facts };
                    let reads = self.parts.verifier.inputs_read(&claim);
                    let inputs = inputs.iter().take(reads).map(|input| input.artifact).collect();
                    let made = Made { effect: effect.id, claim, inputs, outputs };
                    match made.bytes() <= SMALL_BYTES {
                        true => small.push(made),
                        false => self.verify(made, effect.batch),
                    }
                }
                Action::Work(work) => {
                    if let Some(spec) = spec(effect.batch) {
                        self.carry_out(effect.id, effect.batch, work, spec);
                    }
                }
            }
        }
        self.let_go(releases, false);
        self.let_go(fences, true);
        while !small.is_empty() {
            let rest = small.split_off(small.len().min(TOGETHER_MAX));
            self.verify_together(std::mem::replace(&mut small, rest));
        }
        left
    }

    /// Why an effect is another coordinator's to carry out.
    fn other_version(&self, effect: &Effect, spec: impl Fn(BatchId) -> Option<Spec>) -> Option<String> {
        let Action::Work(work) = &effect.action else { return None };
        let version = match work {
            Work::Verify { facts, .. } | Work::Check { facts, .. } => facts.version,
            Work::Settle { .. } => spec(effect.batch)?.version,
            Work::Audit { .. } | Work::Release { .. } | Work::Fence { .. } => return None,
        };
        self.parts.verifier.other_version(version)
    }

    fn carry_out(&mut self, effect: EffectId, batch: BatchId, work: Work, spec: Spec) {
        let (parts, answers) = (Arc::clone(&self.parts), self.answers.clone());
        let running = Running::new(&self.running, 1);
        self.tasks.spawn(async move {
            let _running = running;
            let span = tracing::info_span!("work", effect = effect.0, batch = batch.0);
            for entry in parts.carry_out(effect, batch, work, spec).instrument(span).await {
                // Nobody listens any more once the term is over.
                let _ = answers.send(entry).await;
            }
        });
    }

    fn verify(&mut self, made: Made, batch: BatchId) {
        let (parts, answers) = (Arc::clone(&self.parts), self.answers.clone());
        let running = Running::new(&self.running, 1);
        self.tasks.spawn(async move {
            let _running = running;
            let span = tracing::info_span!("work", effect = made.effect.0, batch = batch.0);
            let effect = made.effect;
            let verdict = parts.verify(made).instrument(span).await;
            let _ = answers.send(Entry::Event(Event::Verified { effect, verdict })).await;
        });
    }

    fn verify_together(&mut self, together: Vec<Made>) {
        let (parts, answers) = (Arc::clone(&self.parts), self.answers.clone());
        let running = Running::new(&self.running, together.len());
        self.tasks.spawn(async move {
            let _running = running;
            let span = tracing::info_span!("verify", effects = together.len());
            parts.verify_together(together, answers).instrument(span).await;
        });
    }

    fn let_go(&mut self, mut effects: Vec<(EffectId, Vec<Holder>)>, is_fence: bool) {
        while !effects.is_empty() {
            let rest = effects.split_off(effects.len().min(TOGETHER_MAX));
            let together = std::mem::replace(&mut effects, rest);
            let (parts, answers) = (Arc::clone(&self.parts), self.answers.clone());
            let running = Running::new(&self.running, together.len());
            self.tasks.spawn(async move {
                let _running = running;
                let span = tracing::info_span!("let go", effects = together.len());
                let done = parts.let_go(together, is_fence).instrument(span).await;
                let _ = answers.send(Entry::Event(done)).await;
            });
        }
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

impl Made {
    /// What has to be read.
    fn bytes(&self) -> u64 {
        sum(&self.inputs).saturating_add(sum(&self.outputs))
    }
}

fn sum(artifacts: &[Artifact]) -> u64 {
    artifacts.iter().map(|artifact| artifact.bytes).fold(0, u64::saturating_add)
}

/// What reading an artifact has shown.
enum Found {
    Bytes(Vec<u8>),
    /// Something else is there.
    Damaged,
    Missing,
}

impl Parts {
    async fn carry_out(
        self: Arc<Self>,
        effect: EffectId,
        batch: BatchId,
        work: Work,
        spec: Spec,
    ) -> Vec<Entry> {
        let verified = |verdict| vec![Entry::Event(Event::Verified { effect, verdict })];
        match work {
            Work::Check { proof, facts } => verified(self.check(spec, facts, proof).await),
            Work::Audit { artifact, .. } => verified(self.audit(artifact).await),
            Work::Settle { proof, .. } => self.settle(effect, batch, spec, proof).await,
            // These have ways of their own.
            Work::Verify { .. } | Work::Release { .. } | Work::Fence { .. } => Vec::new(),
        }
    }

    /// Ends holds; a fence refuses later ones too.
    async fn let_go(&self, effects: Vec<(EffectId, Vec<Holder>)>, is_fence: bool) -> Event {
        let _permit = self.calls.acquire().await;
        let (effects, holders): (Vec<EffectId>, Vec<Vec<Holder>>) = effects.into_iter().unzip();
        let holders = holders.concat();
        if let Err(error) = patiently("let go", || self.store.let_go_all(&holders, is_fence)).await {
            // Bytes are left over; better than a batch that is never forgotten.
            tracing::error!(%error, "artifacts cannot be deleted");
        }
        Event::Done { effects }
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
    async fn memory(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let share = kibibytes(bytes).min(kibibytes(self.limits.bytes_max));
        self.kibibytes.acquire_many(share).await.ok()
    }

    /// Why a part is not checked, nor anything of it read: its inputs are what some worker says that they are.
    fn oversize(&self, made: &Made) -> Option<String> {
        let (bytes, max) = (sum(&made.inputs), self.limits.bytes_max);
        let is_oversize = made.claim.stage.kind().is_part() && bytes > max;
        is_oversize.then(|| format!("its inputs have {bytes} bytes, of which {max} can be read here"))
    }

    async fn verify(self: &Arc<Self>, made: Made) -> Verdict {
        if let Some(reason) = self.oversize(&made) {
            return verdict(Vec::new(), Judgement::Incomparable { reason });
        }
        let bytes = made.bytes();
        let Made { claim, inputs, outputs, .. } = made;
        let Ok(_place) = self.verifications.acquire().await else { return Verdict::Missing };
        for output in &outputs {
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
        let Some(_memory) = self.memory(bytes).await else { return Verdict::Missing };
        let made = match self.read_all(&outputs).await {
            Ok(made) => made,
            Err(verdict) => return verdict,
        };
        // An input that is gone is found by the next attempt; this one cannot be judged.
        let Ok(given) = self.read_all(&inputs).await else { return Verdict::Missing };
        let this = Arc::clone(self);
        let judgement = blocking(move || this.verifier.verify(&claim, &given, &made)).await;
        verdict(outputs.iter().map(|artifact| artifact.hash).collect(), judgement)
    }

    /// Verifies small results: their outputs are held and read in one call, and checked one after the other on one
    /// thread. What that call does not yield as it was claimed is verified by itself.
    async fn verify_together(self: &Arc<Self>, together: Vec<Made>, answers: mpsc::Sender<Entry>) {
        let bytes = together.iter().map(Made::bytes).fold(0, u64::saturating_add);
        // In the order of `verify`, or the two could wait for each other. An audit has its call before its memory: so no
        // call is waited for here.
        let Ok(place) = self.verifications.acquire().await else { return };
        let Some(memory) = self.memory(bytes).await else { return };
        let (found, others) = self.take_together(together).await;
        if !found.is_empty() {
            let (this, answers) = (Arc::clone(self), answers.clone());
            let check = move || this.judge_all(found, &answers);
            if let Err(error) = tokio::task::spawn_blocking(check).await {
                tracing::error!(%error, "verifications ended early");
            }
        }
        drop((place, memory));
        for made in others {
            let effect = made.effect;
            let verdict = self.verify(made).await;
            // Nobody listens any more once the term is over.
            let _ = answers.send(Entry::Event(Event::Verified { effect, verdict })).await;
        }
    }

    /// Holds and reads the outputs of small results, no more of each than its worker says, and reads their inputs; yields
    /// those that are all there, and the others.
    async fn take_together(&self, together: Vec<Made>) -> (Vec<Read>, Vec<Made>) {
        let claim = |output: &Artifact| {
            let hash = blake3::Hash::from_bytes(output.hash.0);
            (names::holder(output.holder), assay_queue::Artifact { hash, bytes: output.bytes })
        };
        let claims: Vec<_> = together.iter().flat_map(|made| &made.outputs).map(claim).collect();
        let taken = patiently("take", || self.store.take_all(&claims)).await;
        let mut taken = taken.unwrap_or_default().into_iter();
        let (mut found, mut others) = (Vec::with_capacity(together.len()), Vec::new());
        for made in together {
            let outputs: Vec<_> = taken.by_ref().take(made.outputs.len()).collect();
            let is_whole = |(bytes, output): (&Result<Vec<u8>, _>, &Artifact)| {
                bytes.as_ref().is_ok_and(|bytes| bytes.len() as u64 == output.bytes)
            };
            if outputs.len() == made.outputs.len() && outputs.iter().zip(&made.outputs).all(is_whole) {
                let outputs = outputs.into_iter().flatten().collect();
                found.push(Read { made, inputs: Vec::new(), outputs });
            } else {
                others.push(made);
            }
        }
        let inputs = found.iter().map(|read| self.read_all(&read.made.inputs));
        let inputs = futures::future::join_all(inputs).await;
        let mut whole = Vec::with_capacity(found.len());
        for (mut read, inputs) in found.into_iter().zip(inputs) {
            match inputs {
                Ok(inputs) => {
                    read.inputs = inputs;
                    whole.push(read);
                }
                Err(_) => others.push(read.made),
            }
        }
        (whole, others)
    }

    /// On a thread that may block.
    fn judge_all(&self, found: Vec<Read>, answers: &mpsc::Sender<Entry>) {
        let (mut verdicts, mut told) = (Vec::new(), Instant::now());
        let count = found.len();
        for (at, Read { made, inputs, outputs }) in (1..).zip(found) {
            let check = || self.verifier.verify(&made.claim, &inputs, &outputs);
            let judgement = std::panic::catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| {
                tracing::error!(effect = made.effect.0, "a check panicked");
                panicked()
            });
            let verdict = verdict(made.outputs.iter().map(|artifact| artifact.hash).collect(), judgement);
            verdicts.push(Entry::Event(Event::Verified { effect: made.effect, verdict }));
            if at == count || told.elapsed() >= VERDICTS_TIME {
                for verdict in verdicts.drain(..) {
                    // Nobody listens any more once the term is over.
                    let _ = answers.blocking_send(verdict);
                }
                told = Instant::now();
            }
        }
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
        let judgement = blocking(move || this.verifier.check(&facts, &payload, &proof_bytes)).await;
        verdict(vec![proof.hash], judgement)
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

    async fn settle(&self, effect: EffectId, batch: BatchId, spec: Spec, proof: Artifact) -> Vec<Entry> {
        let _permit = self.settlements.acquire().await;
        let settled = match self.read_settlement(&spec, proof).await {
            Ok((payload, proof)) => self.settler.settle(&Settlement { batch, spec, payload, proof }).await,
            // It may have been posted before: only the settler knows.
            Err(lost) => self.settler.settle_lost(batch, &spec, lost).await,
        };
        let files = match settled {
            Ok(files) => files,
            Err(SettleError { is_permanent: permanent, reason }) => {
                return vec![Entry::Event(Event::SettleFailed { effect, permanent, reason })]
            }
        };
        let mut entries: Vec<Entry> = self.keep_files(batch, files).await.into_iter().collect();
        entries.push(Entry::Event(Event::Settled { effect }));
        entries
    }

    /// Payload and proof. The memory for them is not set aside for longer: a settlement takes hours, and verifications are not
    /// to wait for it.
    async fn read_settlement(&self, spec: &Spec, proof: Artifact) -> Result<(Vec<u8>, Vec<u8>), Lost> {
        let _memory = self.memory(proof.bytes.saturating_add(spec.payload_bytes)).await;
        let Found::Bytes(payload) = self.read(&payload(spec)).await else { return Err(Lost::Payload) };
        let Found::Bytes(proof) = self.read(&proof).await else { return Err(Lost::Proof) };
        Ok((payload, proof))
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

/// A judgement as the schedule is told it. Why something is wrong stands in the log alone.
fn verdict(hashes: Vec<Hash>, judgement: Judgement) -> Verdict {
    match judgement {
        Judgement::Right => Verdict::Read { hashes, valid: true },
        Judgement::Wrong { reason } => {
            tracing::warn!(reason, "a result is wrong");
            Verdict::Read { hashes, valid: false }
        }
        Judgement::Incomparable { reason } => {
            tracing::warn!(reason, "a result cannot be checked");
            Verdict::Incomparable { reason }
        }
    }
}

/// A check that panics has not found its subject right.
fn panicked() -> Judgement {
    Judgement::Wrong { reason: "the check panicked".into() }
}

/// Runs a check on a thread that may block.
async fn blocking(check: impl FnOnce() -> Judgement + Send + 'static) -> Judgement {
    tokio::task::spawn_blocking(check).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a check panicked");
        panicked()
    })
}

#[cfg(test)]
mod tests;
