//! Carries out the schedule of faults. Each fault heals itself when its time is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_queue::{ArtifactStore as _, Cursor, Hold, TaskQueue as _};
use rand::seq::SliceRandom;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::{Cluster, Node};
use crate::error::ChaosError;
use crate::options::Weakness;
use crate::plan::{Fault, Planned, Target};
use crate::proxy::Mode;
use crate::weak::objects;

/// Events that are kept to be delivered again.
const EVENTS_MAX: usize = 10_000;
const PAGE: usize = 1000;

/// What has happened so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// Faults by their kind, as carried out.
    pub counts: BTreeMap<&'static str, u64>,
    /// Faults whose victim was in another one's hands, or did not exist.
    pub skipped: u64,
    /// Events delivered again.
    pub duplicates: u64,
    /// Artifacts whose bytes were changed.
    pub damaged: BTreeSet<[u8; 32]>,
}

/// Carries out faults on a cluster.
pub(crate) struct Tormentor {
    pub(crate) cluster: Arc<Cluster>,
    done: Mutex<Done>,
}

impl Tormentor {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, done: Mutex::default() }
    }

    pub(crate) fn done(&self) -> Done {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a schedule; returns when everything is healed.
    pub(crate) async fn torment(
        self: &Arc<Self>,
        plan: &[Planned],
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(), ChaosError> {
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for planned in plan {
            tokio::time::sleep_until(begun + Duration::from_millis(planned.at_ms)).await;
            tell(&planned.to_string());
            let (this, fault) = (Arc::clone(self), planned.fault);
            running.spawn(async move { this.carry_out(fault).await });
            while let Some(ended) = running.try_join_next() {
                flatten(ended)?;
            }
        }
        while let Some(ended) = running.join_next().await {
            flatten(ended)?;
        }
        Ok(())
    }

    async fn carry_out(&self, fault: Fault) -> Result<(), ChaosError> {
        let (kind, is_done) = match fault {
            Fault::Kill { target: Target::Redis, down_ms } => ("kill redis", self.kill_redis(down_ms).await?),
            Fault::Kill { target, down_ms } => ("kill", self.kill(target, down_ms, None).await?),
            Fault::Skew { target, offset_ms } => ("skew", self.kill(target, 0, Some(offset_ms)).await?),
            Fault::Pause { target: Target::Redis, ms } => ("pause redis", self.pause_redis(ms).await),
            Fault::Pause { target, ms } => ("pause", self.pause(target, ms).await),
            Fault::Stall { target, ms } => ("stall", self.part(target, ms, Mode::Stall).await),
            Fault::Cut { target, ms } => ("cut", self.part(target, ms, Mode::Cut).await),
            Fault::LoseAnswer { target } => match self.cluster.node(target).await {
                Some(node) => {
                    node.proxy.lose_answer();
                    ("lose answer", true)
                }
                None => ("lose answer", false),
            },
            Fault::Corrupt { artifacts, seed } => ("corrupt", self.corrupt(artifacts, seed).await),
            Fault::FillMemory { ms } => ("fill memory", self.fill(ms).await?),
            Fault::Duplicate { ms, late_ms } => ("duplicate", self.duplicate(ms, late_ms).await),
        };
        self.note(kind, is_done);
        Ok(())
    }

    pub(crate) fn note(&self, kind: &'static str, is_done: bool) {
        let mut done = self.lock();
        if is_done {
            *done.counts.entry(kind).or_default() += 1;
        } else {
            done.skipped += 1;
        }
    }

    pub(crate) async fn kill(
        &self,
        target: Target,
        down_ms: u64,
        clock: Option<i64>,
    ) -> Result<bool, ChaosError> {
        let Some(node) = self.cluster.node(target).await else { return Ok(false) };
        let Some(mut slot) = node.take() else { return Ok(false) };
        slot.kill();
        if let Some(offset_ms) = clock {
            slot.set_clock(offset_ms);
        }
        sleep(down_ms).await;
        slot.start()?;
        Ok(true)
    }

    pub(crate) async fn kill_redis(&self, down_ms: u64) -> Result<bool, ChaosError> {
        let Ok(mut redis) = Arc::clone(&self.cluster.redis).try_lock_owned() else { return Ok(false) };
        redis.kill();
        sleep(down_ms).await;
        redis.launch()?;
        // Others may meddle with it only when it is up again.
        blocking(move || redis.wait()).await?;
        Ok(true)
    }

    async fn pause(&self, target: Target, ms: u64) -> bool {
        let Some(node) = self.cluster.node(target).await else { return false };
        let Some(slot) = node.take() else { return false };
        slot.pause(true);
        sleep(ms).await;
        slot.pause(false);
        true
    }

    async fn pause_redis(&self, ms: u64) -> bool {
        let Ok(redis) = self.cluster.redis.try_lock() else { return false };
        redis.pause(true);
        sleep(ms).await;
        redis.pause(false);
        true
    }

    async fn part(&self, target: Target, ms: u64, mode: Mode) -> bool {
        let Some(node) = self.cluster.node(target).await else { return false };
        let Node { proxy, link, .. } = &*node;
        let Ok(_link) = link.try_lock() else { return false };
        proxy.set(mode);
        sleep(ms).await;
        proxy.set(Mode::Relay);
        true
    }

    pub(crate) async fn fill(&self, ms: u64) -> Result<bool, ChaosError> {
        let Ok(mut redis) = Arc::clone(&self.cluster.redis).try_lock_owned() else { return Ok(false) };
        let evicts = self.cluster.weaken == Some(Weakness::Evict);
        let mut redis = blocking(move || redis.fill(true, evicts).map(|()| redis)).await?;
        sleep(ms).await;
        blocking(move || redis.fill(false, evicts)).await?;
        Ok(true)
    }

    /// Changes a byte of files that are outputs or inputs of attempts. Payloads cannot be made again, and results have
    /// been given out: these are left alone.
    pub(crate) async fn corrupt(&self, artifacts: u32, seed: u64) -> bool {
        let Ok(holds) = all_holds(&self.cluster).await else { return false };
        let is_attempt = |hold: &Hold| hold.holder.as_str().starts_with("attempt/");
        let mut victims: BTreeSet<String> =
            holds.iter().filter(|hold| is_attempt(hold)).map(|hold| hold.hash.clone()).collect();
        for hold in holds.iter().filter(|hold| !is_attempt(hold)) {
            victims.remove(&hold.hash);
        }
        let mut files = objects(&self.cluster.store_dir());
        files.retain(|(hash, _)| victims.contains(hash.to_hex().as_str()));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut count = 0;
        for (hash, path) in files.choose_multiple(&mut rng, artifacts as usize) {
            // Before the change, so that nobody sees one that is not written down.
            let is_new = self.lock().damaged.insert(*hash.as_bytes());
            if is_new && change_byte(path).is_ok() {
                count += 1;
            }
        }
        count > 0
    }

    /// Delivers what is posted again.
    async fn duplicate(&self, ms: u64, late_ms: u64) -> bool {
        let queue = &self.cluster.queue;
        let end = Instant::now() + Duration::from_millis(ms);
        let late = Duration::from_millis(late_ms);
        let (mut after, mut again) = (Cursor(0), 0);
        let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        // What this task has posted itself comes by as well.
        let mut own: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        while Instant::now() < end || !waiting.is_empty() {
            let events = queue.events(after, PAGE, Duration::from_millis(20)).await.unwrap_or_default();
            for (cursor, bytes) in events {
                after = cursor;
                match own.get_mut(&bytes).filter(|left| **left > 0) {
                    Some(left) => *left -= 1,
                    None if Instant::now() < end && waiting.len() < EVENTS_MAX => {
                        waiting.push_back((Instant::now() + late, bytes));
                    }
                    None => {}
                }
            }
            while waiting.front().is_some_and(|(due, _)| *due <= Instant::now()) {
                let Some((_, bytes)) = waiting.pop_front() else { break };
                *own.entry(bytes.clone()).or_default() += 1;
                // A queue that is down loses a duplicate, which is no loss.
                again += u64::from(queue.post(bytes).await.is_ok());
            }
        }
        self.lock().duplicates += again;
        again > 0
    }
}

/// All holds in the store.
pub(crate) async fn all_holds(cluster: &Cluster) -> Result<Vec<Hold>, assay_queue::StoreError> {
    let mut all: Vec<Hold> = Vec::new();
    loop {
        let page = cluster.store.holds(all.last(), PAGE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

fn change_byte(path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::End(-1))?;
    file.write_all(&[byte[0] ^ 1])
}

async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, ChaosError> + Send + 'static,
) -> Result<T, ChaosError> {
    flatten(tokio::task::spawn_blocking(call).await)
}

/// A panic goes on where it is waited for.
fn flatten<T>(joined: Result<Result<T, ChaosError>, tokio::task::JoinError>) -> Result<T, ChaosError> {
    match joined {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ChaosError::Interrupted),
        },
    }
}
