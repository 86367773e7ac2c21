//! Artifacts on disk: what the crate's tasks hand each other.
//!
//! Every artifact is a file named by the BLAKE3 hash of its id, written under a temporary name and renamed; a small index
//! in memory holds its length and content hash, which is checked on every read. An artifact is gone as soon as it is
//! deleted or its last reference is removed: the crate's in-memory store leaks both and is what kills it on small machines.
//!
//! [`DiskStore::acquire_shard_permit`] really waits: it bounds how far execution runs ahead of proving.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sp1_prover_types::{ArtifactClient, ArtifactId, ArtifactType, ShardPermit};
use tokio::sync::Semaphore;

use crate::error::WorkerError;
use crate::memo::Memo;

/// Attempts at a file operation before its error is reported.
const IO_ATTEMPTS: u32 = 3;
/// Pause before the second attempt; doubles each time.
const IO_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What the index knows of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Length in bytes.
    pub len: u64,
    /// Hash of the content.
    pub hash: blake3::Hash,
}

#[derive(Default)]
struct Index {
    entries: HashMap<String, Entry>,
    refs: HashMap<String, HashSet<String>>,
    /// Artifacts whose content a memo wants to see before their consumer deletes it.
    watched: HashMap<String, Arc<Memo>>,
    bytes: u64,
    bytes_max: u64,
}

struct Shared {
    dir: PathBuf,
    index: Mutex<Index>,
    permits: Arc<Semaphore>,
}

/// An [`ArtifactClient`] over a directory. Clones share the directory and the index.
#[derive(Clone)]
pub struct DiskStore {
    shared: Arc<Shared>,
}

impl DiskStore {
    /// Opens an empty store: `dir` is created, and emptied of files that an earlier process left.
    ///
    /// `shards_ahead` is the number of shard permits, see [`ArtifactClient::acquire_shard_permit`].
    ///
    /// # Errors
    /// [`WorkerError::Io`] if the directory cannot be created or emptied.
    pub fn open(dir: impl Into<PathBuf>, shards_ahead: usize) -> Result<Self, WorkerError> {
        let dir = dir.into();
        if dir.exists() {
            std::fs::remove_dir_all(&dir).map_err(WorkerError::io("empty", &dir))?;
        }
        std::fs::create_dir_all(&dir).map_err(WorkerError::io("create", &dir))?;
        let permits = Arc::new(Semaphore::new(shards_ahead.max(1)));
        Ok(Self { shared: Arc::new(Shared { dir, index: Mutex::default(), permits }) })
    }

    /// The artifact's length and content hash, if it is stored.
    pub fn entry(&self, id: &str) -> Option<Entry> {
        self.index().entries.get(id).copied()
    }

    /// Artifacts stored now.
    pub fn len(&self) -> usize {
        self.index().entries.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes stored now, and the most that were stored at once.
    pub fn bytes(&self) -> (u64, u64) {
        let index = self.index();
        (index.bytes, index.bytes_max)
    }

    /// Shard permits that are free now.
    pub fn free_permits(&self) -> usize {
        self.shared.permits.available_permits()
    }

    /// Deletes everything: the end of a proof, finished or not.
    pub fn clear(&self) {
        let ids: Vec<String> = self.index().entries.keys().cloned().collect();
        for id in ids {
            self.remove(&id);
        }
        let mut index = self.index();
        index.refs.clear();
        index.watched.clear();
    }

    /// Makes `target` another name of the artifact's file (a hard link; a copy across file systems).
    ///
    /// # Errors
    /// [`WorkerError::ArtifactMissing`], or [`WorkerError::Io`].
    pub fn link_to(&self, id: &str, target: &Path) -> Result<Entry, WorkerError> {
        let entry = self.entry(id).ok_or_else(|| WorkerError::ArtifactMissing { id: id.to_owned() })?;
        let source = self.path(id);
        if std::fs::hard_link(&source, target).is_err() {
            std::fs::copy(&source, target).map_err(WorkerError::io("copy to", target))?;
        }
        Ok(entry)
    }

    /// Shows the content of an artifact to `memo` when it is stored.
    pub(crate) fn watch(&self, id: &str, memo: Arc<Memo>) {
        self.index().watched.insert(id.to_owned(), memo);
    }

    /// Stores bytes under `id`, replacing what was there.
    ///
    /// # Errors
    /// [`WorkerError::Io`] after `IO_ATTEMPTS` attempts.
    pub fn put(&self, id: &str, data: &[u8]) -> Result<Entry, WorkerError> {
        let entry = Entry { len: data.len() as u64, hash: blake3::hash(data) };
        let path = self.path(id);
        retry(|| write_atomic(&path, data))?;
        let watcher = {
            let mut index = self.index();
            let old = index.entries.insert(id.to_owned(), entry);
            index.bytes = index.bytes + entry.len - old.map_or(0, |e| e.len);
            index.bytes_max = index.bytes_max.max(index.bytes);
            index.watched.remove(id)
        };
        if let Some(memo) = watcher {
            memo.note_deferred(id, data, self);
        }
        Ok(entry)
    }

    /// Reads the artifact and checks its hash.
    ///
    /// # Errors
    /// [`WorkerError::ArtifactMissing`], [`WorkerError::ContentMismatch`], or [`WorkerError::Io`] after
    /// `IO_ATTEMPTS` attempts.
    pub fn get(&self, id: &str) -> Result<Vec<u8>, WorkerError> {
        let entry = self.entry(id).ok_or_else(|| WorkerError::ArtifactMissing { id: id.to_owned() })?;
        let path = self.path(id);
        let data = retry(|| std::fs::read(&path).map_err(WorkerError::io("read", &path)))?;
        let got = blake3::hash(&data);
        if got != entry.hash {
            return Err(WorkerError::ContentMismatch {
                path,
                expected: entry.hash.to_hex().to_string(),
                got: got.to_hex().to_string(),
            });
        }
        Ok(data)
    }

    /// Deletes the artifact and forgets its references; an unknown id is no error.
    pub fn remove(&self, id: &str) {
        let known = {
            let mut index = self.index();
            index.refs.remove(id);
            let entry = index.entries.remove(id);
            index.bytes -= entry.map_or(0, |e| e.len);
            entry.is_some()
        };
        if known {
            let path = self.path(id);
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "artifact file not deleted");
            }
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.shared.dir.join(blake3::hash(id.as_bytes()).to_hex().as_str())
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.shared.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, WorkerError> + Send + 'static,
    ) -> anyhow::Result<T> {
        let store = self.clone();
        Ok(tokio::task::spawn_blocking(move || work(&store)).await??)
    }
}

/// Writes under a temporary name in the same directory and renames.
///
/// # Errors
/// [`WorkerError::Io`].
pub fn write_atomic(path: &Path, data: &[u8]) -> Result<(), WorkerError> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("tmp{}_{number}", std::process::id()));
    std::fs::write(&temporary, data).map_err(WorkerError::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(WorkerError::io("rename", path))
}

fn retry<T>(mut operation: impl FnMut() -> Result<T, WorkerError>) -> Result<T, WorkerError> {
    let mut pause = IO_RETRY_PAUSE;
    for _ in 1..IO_ATTEMPTS {
        match operation() {
            Ok(value) => return Ok(value),
            Err(error) => tracing::warn!(%error, "artifact store: trying again"),
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
    operation()
}

impl ArtifactClient for DiskStore {
    async fn upload_raw(
        &self,
        artifact: &impl ArtifactId,
        _: ArtifactType,
        data: Vec<u8>,
    ) -> anyhow::Result<()> {
        let id = artifact.id().to_owned();
        self.on_disk(move |store| store.put(&id, &data).map(|_| ())).await
    }

    async fn download_raw(&self, artifact: &impl ArtifactId, _: ArtifactType) -> anyhow::Result<Vec<u8>> {
        let id = artifact.id().to_owned();
        self.on_disk(move |store| store.get(&id)).await
    }

    async fn exists(&self, artifact: &impl ArtifactId, _: ArtifactType) -> anyhow::Result<bool> {
        Ok(self.entry(artifact.id()).is_some())
    }

    async fn delete(&self, artifact: &impl ArtifactId, _: ArtifactType) -> anyhow::Result<()> {
        let id = artifact.id().to_owned();
        self.on_disk(move |store| {
            store.remove(&id);
            Ok(())
        })
        .await
    }

    async fn delete_batch(&self, artifacts: &[impl ArtifactId], _: ArtifactType) -> anyhow::Result<()> {
        let ids: Vec<String> = artifacts.iter().map(|a| a.id().to_owned()).collect();
        self.on_disk(move |store| {
            ids.iter().for_each(|id| store.remove(id));
            Ok(())
        })
        .await
    }

    /// Waits until fewer than `shards_ahead` shards are executed but not proved.
    async fn acquire_shard_permit(&self, _: &impl ArtifactId) -> ShardPermit {
        match self.shared.permits.clone().acquire_owned().await {
            Ok(permit) => ShardPermit::new(permit),
            // The semaphore is never closed; an unbounded permit would only cost memory.
            Err(_) => ShardPermit::noop(),
        }
    }

    async fn add_ref(&self, artifact: &impl ArtifactId, holder: &str) -> anyhow::Result<()> {
        self.index().refs.entry(artifact.id().to_owned()).or_default().insert(holder.to_owned());
        Ok(())
    }

    /// Removes the reference; deletes the artifact and returns true if it was the last one.
    async fn remove_ref(
        &self,
        artifact: &impl ArtifactId,
        _: ArtifactType,
        holder: &str,
    ) -> anyhow::Result<bool> {
        let last = {
            let mut index = self.index();
            match index.refs.get_mut(artifact.id()) {
                Some(holders) => {
                    holders.remove(holder);
                    holders.is_empty()
                }
                None => false,
            }
        };
        if last {
            let id = artifact.id().to_owned();
            self.on_disk(move |store| {
                store.remove(&id);
                Ok(())
            })
            .await?;
        }
        Ok(last)
    }
}
