//! Defects on purpose, as wrappers around queue and store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{
    Artifact, ArtifactStore, Commit, Committed, Cursor, Epoch, Freed, Health, Hold, Holder, Leader, Mailbox,
    Page, Position, QueueError, Stat, StoreError, Stored, Swept, TaskQueue, Usage,
};
use assay_service::request::{ClusterKey, Command, Inbox, Post};
use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::options::Weakness;
use crate::process::{CLUSTER_SECRET, DEPLOYMENT};

/// A queue with a defect.
pub(crate) struct WeakQueue {
    inner: Arc<dyn TaskQueue>,
    weakness: Weakness,
    clock_offset_ms: i64,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The epoch that this process once had.
    epoch: Option<Epoch>,
    /// The keys of parts, by what was made of them.
    keys: BTreeMap<String, String>,
}

impl WeakQueue {
    /// The queue itself, unless the defect is one of the queue's.
    pub(crate) fn around(
        inner: Arc<dyn TaskQueue>,
        weakness: Option<Weakness>,
        clock_offset_ms: i64,
    ) -> Arc<dyn TaskQueue> {
        use Weakness::{ClockLease, NoMemo, Repeat, StaleLeader};
        match weakness {
            Some(weakness @ (StaleLeader | ClockLease | Repeat | NoMemo)) => {
                Arc::new(Self { inner, weakness, clock_offset_ms, memory: Mutex::default() })
            }
            _ => inner,
        }
    }

    /// Who believes to lead although somebody else does.
    async fn usurp(&self) -> Result<Option<Epoch>, QueueError> {
        match self.weakness {
            // It never learns that it was deposed.
            Weakness::StaleLeader => Ok(self.memory.lock().await.epoch),
            Weakness::ClockLease => {
                let ahead = Duration::from_millis(u64::try_from(self.clock_offset_ms).unwrap_or(0));
                let leader = self.inner.leader().await?;
                Ok(leader.filter(|leader| leader.remaining < ahead).map(|leader| leader.epoch))
            }
            _ => Ok(None),
        }
    }
}

/// A submission that is another one each time it is delivered.
fn renamed(cursor: Cursor, bytes: Vec<u8>) -> Vec<u8> {
    let key = ClusterKey::new(CLUSTER_SECRET);
    let Ok(Inbox::Post(post)) = key.open(&bytes) else { return bytes };
    let Post::Request(mut request) = *post else { return bytes };
    if let Command::Submit(submit) = &mut request.command {
        submit.key = format!("{}#{cursor}", submit.key);
    }
    key.seal(&Post::Request(request))
}

/// Gives the parts that a controller asks for keys that no other attempt uses.
fn salted(event: &[u8], keys: &mut BTreeMap<String, String>) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(event) else { return event.to_vec() };
    if let Some(spawn) = value.get_mut("spawn") {
        salt_parts(spawn, keys);
    } else if let Some(lost) = value.get_mut("part_lost") {
        let attempt = lost.get("attempt").map(Value::to_string).unwrap_or_default();
        if let Some(key) = lost.get_mut("key") {
            salt(key, &attempt, keys);
        }
    }
    serde_json::to_vec(&value).unwrap_or_else(|_| event.to_vec())
}

fn salt_parts(spawn: &mut Value, keys: &mut BTreeMap<String, String>) {
    let attempt = spawn.get("attempt").map(Value::to_string).unwrap_or_default();
    for part in spawn.get_mut("parts").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(key) = part.get_mut("key") {
            salt(key, &attempt, keys);
        }
    }
}

fn salt(key: &mut Value, attempt: &str, keys: &mut BTreeMap<String, String>) {
    let Some(text) = key.as_str().map(ToOwned::to_owned) else { return };
    let other = blake3::hash(format!("{text} {attempt}").as_bytes()).to_hex().to_string();
    keys.insert(other.clone(), text);
    *key = Value::String(other);
}

/// Puts the keys that the controller knows in the place of those that the leader knows.
fn unsalted(mut mail: Vec<u8>, keys: &BTreeMap<String, String>) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(&mail) else { return mail };
    if replace(&mut value, keys) {
        mail = serde_json::to_vec(&value).unwrap_or(mail);
    }
    mail
}

fn replace(value: &mut Value, keys: &BTreeMap<String, String>) -> bool {
    match value {
        Value::String(text) => match keys.get(text) {
            Some(key) => {
                text.clone_from(key);
                true
            }
            None => false,
        },
        Value::Array(all) => all.iter_mut().fold(false, |any, one| replace(one, keys) | any),
        Value::Object(all) => all.values_mut().fold(false, |any, one| replace(one, keys) | any),
        _ => false,
    }
}

#[async_trait]
impl TaskQueue for WeakQueue {
    async fn lead(&self, holder: &str, ttl: Duration) -> Result<Option<Epoch>, QueueError> {
        match self.inner.lead(holder, ttl).await? {
            Some(epoch) => {
                self.memory.lock().await.epoch = Some(epoch);
                Ok(Some(epoch))
            }
            None => self.usurp().await,
        }
    }

    async fn resign(&self, epoch: Epoch) -> Result<(), QueueError> {
        self.inner.resign(epoch).await
    }

    async fn leader(&self) -> Result<Option<Leader>, QueueError> {
        self.inner.leader().await
    }

    async fn load(&self) -> Result<Stored, QueueError> {
        self.inner.load().await
    }

    async fn events(
        &self,
        after: Cursor,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(Cursor, Vec<u8>)>, QueueError> {
        let events = self.inner.events(after, max, wait).await?;
        if self.weakness != Weakness::Repeat {
            return Ok(events);
        }
        Ok(events.into_iter().map(|(cursor, bytes)| (cursor, renamed(cursor, bytes))).collect())
    }

    async fn commit(&self, epoch: Epoch, commit: &Commit) -> Result<Committed, QueueError> {
        // Who does not notice that another one leads does not notice either that the log has gone on without it.
        let blind = Commit { after: None, ..commit.clone() };
        let commit = match self.weakness {
            Weakness::StaleLeader | Weakness::ClockLease => &blind,
            _ => commit,
        };
        match self.inner.commit(epoch, commit).await {
            Err(QueueError::Fenced { current, .. }) if self.weakness == Weakness::StaleLeader => {
                self.inner.commit(current, commit).await
            }
            other => other,
        }
    }

    async fn checkpoint(&self, epoch: Epoch, upto: Position, bytes: &[u8]) -> Result<(), QueueError> {
        self.inner.checkpoint(epoch, upto, bytes).await
    }

    async fn post_all(&self, events: &[Vec<u8>]) -> Result<Cursor, QueueError> {
        if self.weakness != Weakness::NoMemo {
            return self.inner.post_all(events).await;
        }
        let mut memory = self.memory.lock().await;
        let events: Vec<Vec<u8>> = events.iter().map(|event| salted(event, &mut memory.keys)).collect();
        drop(memory);
        self.inner.post_all(&events).await
    }

    async fn read(
        &self,
        mailbox: &Mailbox,
        after: Cursor,
        max: usize,
        wait: Duration,
    ) -> Result<Page, QueueError> {
        let mut page = self.inner.read(mailbox, after, max, wait).await?;
        if self.weakness == Weakness::NoMemo {
            let memory = self.memory.lock().await;
            for mail in &mut page.mails {
                mail.bytes = unsalted(std::mem::take(&mut mail.bytes), &memory.keys);
            }
        }
        Ok(page)
    }

    async fn forget(&self, mailbox: &Mailbox, upto: Cursor) -> Result<(), QueueError> {
        self.inner.forget(mailbox, upto).await
    }

    async fn health(&self) -> Result<Health, QueueError> {
        self.inner.health().await
    }
}

/// A store with a defect.
pub(crate) struct WeakStore {
    inner: Arc<dyn ArtifactStore>,
    weakness: Weakness,
    folder: PathBuf,
}

impl WeakStore {
    /// The store itself, unless the defect is one of the store's.
    pub(crate) fn around(
        inner: Arc<dyn ArtifactStore>,
        weakness: Option<Weakness>,
        folder: PathBuf,
    ) -> Arc<dyn ArtifactStore> {
        match weakness {
            Some(weakness @ (Weakness::NoChecksum | Weakness::NoFence)) => {
                Arc::new(Self { inner, weakness, folder })
            }
            _ => inner,
        }
    }

    /// The bytes in the folder, whatever they are.
    async fn unchecked(&self, hash: &blake3::Hash) -> Option<Vec<u8>> {
        if self.weakness != Weakness::NoChecksum {
            return None;
        }
        let path = objects(&self.folder).into_iter().find(|(found, _)| found == hash)?.1;
        tokio::fs::read(path).await.ok()
    }
}

/// The artifacts that are files, and where they are.
pub(crate) fn objects(folder: &Path) -> Vec<(blake3::Hash, PathBuf)> {
    let mut found = Vec::new();
    let Ok(parts) = std::fs::read_dir(folder.join(DEPLOYMENT)) else { return found };
    for part in parts.flatten() {
        let Ok(files) = std::fs::read_dir(part.path()) else { continue };
        for file in files.flatten() {
            let name = file.file_name();
            // `<hash>.<random>.<size>`; while it is written there is a `#` behind it.
            let name = name.to_str().filter(|name| !name.contains('#'));
            let hash = name.and_then(|name| name.split('.').next()).and_then(|hash| hash.parse().ok());
            found.extend(hash.map(|hash| (hash, file.path())));
        }
    }
    found.sort_by(|one, other| one.1.cmp(&other.1));
    found
}

#[async_trait]
impl ArtifactStore for WeakStore {
    async fn put(&self, holder: &Holder, bytes: Vec<u8>) -> Result<Artifact, StoreError> {
        self.inner.put(holder, bytes).await
    }

    async fn put_file(&self, holder: &Holder, path: &Path) -> Result<Artifact, StoreError> {
        self.inner.put_file(holder, path).await
    }

    async fn hold(&self, holder: &Holder, hash: &blake3::Hash) -> Result<Artifact, StoreError> {
        self.inner.hold(holder, hash).await
    }

    async fn get_at_most(&self, hash: &blake3::Hash, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        match self.unchecked(hash).await {
            Some(bytes) => Ok(bytes),
            None => self.inner.get_at_most(hash, bytes_max).await,
        }
    }

    async fn get_to_file(&self, hash: &blake3::Hash, path: &Path) -> Result<u64, StoreError> {
        if let Some(bytes) = self.unchecked(hash).await {
            if tokio::fs::write(path, &bytes).await.is_ok() {
                return Ok(bytes.len() as u64);
            }
        }
        self.inner.get_to_file(hash, path).await
    }

    async fn release(&self, holder: &Holder) -> Result<Freed, StoreError> {
        self.inner.release(holder).await
    }

    async fn revoke(&self, holder: &Holder) -> Result<Freed, StoreError> {
        match self.weakness {
            Weakness::NoFence => self.inner.release(holder).await,
            _ => self.inner.revoke(holder).await,
        }
    }

    async fn stat(&self, hash: &blake3::Hash) -> Result<Option<Stat>, StoreError> {
        self.inner.stat(hash).await
    }

    async fn holds(&self, after: Option<&Hold>, max: usize) -> Result<Vec<Hold>, StoreError> {
        self.inner.holds(after, max).await
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.inner.usage().await
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept, StoreError> {
        self.inner.sweep(older_than).await
    }
}
