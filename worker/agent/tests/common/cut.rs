//! Queue and store behind a switch.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{
    Artifact, ArtifactStore, BackendError, Commit, Committed, Cursor, Epoch, Freed, Health, Hold, Holder,
    Leader, Mailbox, Page, Position, QueueError, Stat, StoreError, Stored, Swept, TaskQueue, Usage,
};
use async_trait::async_trait;

/// Whether calls get through, and how many did not.
#[derive(Clone, Default)]
pub struct Switch {
    is_cut: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
}

impl Switch {
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    fn pass(&self) -> Result<(), BackendError> {
        if !self.is_cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::SeqCst);
        Err(BackendError::Unavailable { tried: Duration::ZERO, reason: "cut off".to_owned() })
    }
}

/// A queue behind a switch.
pub struct CutQueue(pub Arc<dyn TaskQueue>, pub Switch);

#[async_trait]
impl TaskQueue for CutQueue {
    async fn lead(&self, holder: &str, ttl: Duration) -> Result<Option<Epoch>, QueueError> {
        self.1.pass()?;
        self.0.lead(holder, ttl).await
    }

    async fn resign(&self, epoch: Epoch) -> Result<(), QueueError> {
        self.1.pass()?;
        self.0.resign(epoch).await
    }

    async fn leader(&self) -> Result<Option<Leader>, QueueError> {
        self.1.pass()?;
        self.0.leader().await
    }

    async fn load(&self) -> Result<Stored, QueueError> {
        self.1.pass()?;
        self.0.load().await
    }

    async fn events(
        &self,
        after: Cursor,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(Cursor, Vec<u8>)>, QueueError> {
        self.1.pass()?;
        self.0.events(after, max, wait).await
    }

    async fn commit(&self, epoch: Epoch, commit: &Commit) -> Result<Committed, QueueError> {
        self.1.pass()?;
        self.0.commit(epoch, commit).await
    }

    async fn checkpoint(&self, epoch: Epoch, upto: Position, bytes: &[u8]) -> Result<(), QueueError> {
        self.1.pass()?;
        self.0.checkpoint(epoch, upto, bytes).await
    }

    async fn post_all(&self, events: &[Vec<u8>]) -> Result<Cursor, QueueError> {
        self.1.pass()?;
        self.0.post_all(events).await
    }

    async fn read(
        &self,
        mailbox: &Mailbox,
        after: Cursor,
        max: usize,
        wait: Duration,
    ) -> Result<Page, QueueError> {
        self.1.pass()?;
        // A connection that is cut loses the answer too.
        let page = self.0.read(mailbox, after, max, wait.min(Duration::from_millis(100))).await;
        self.1.pass()?;
        page
    }

    async fn forget(&self, mailbox: &Mailbox, upto: Cursor) -> Result<(), QueueError> {
        self.1.pass()?;
        self.0.forget(mailbox, upto).await
    }

    async fn health(&self) -> Result<Health, QueueError> {
        self.1.pass()?;
        self.0.health().await
    }
}

/// A store behind a switch.
pub struct CutStore(pub Arc<dyn ArtifactStore>, pub Switch);

#[async_trait]
impl ArtifactStore for CutStore {
    async fn put(&self, holder: &Holder, bytes: Vec<u8>) -> Result<Artifact, StoreError> {
        self.1.pass()?;
        self.0.put(holder, bytes).await
    }

    async fn put_file(&self, holder: &Holder, path: &Path) -> Result<Artifact, StoreError> {
        self.1.pass()?;
        self.0.put_file(holder, path).await
    }

    async fn hold(&self, holder: &Holder, hash: &blake3::Hash) -> Result<Artifact, StoreError> {
        self.1.pass()?;
        self.0.hold(holder, hash).await
    }

    async fn get_at_most(&self, hash: &blake3::Hash, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        self.1.pass()?;
        self.0.get_at_most(hash, bytes_max).await
    }

    async fn get_to_file(&self, hash: &blake3::Hash, path: &Path) -> Result<u64, StoreError> {
        self.1.pass()?;
        self.0.get_to_file(hash, path).await
    }

    async fn release(&self, holder: &Holder) -> Result<Freed, StoreError> {
        self.1.pass()?;
        self.0.release(holder).await
    }

    async fn revoke(&self, holder: &Holder) -> Result<Freed, StoreError> {
        self.1.pass()?;
        self.0.revoke(holder).await
    }

    async fn stat(&self, hash: &blake3::Hash) -> Result<Option<Stat>, StoreError> {
        self.1.pass()?;
        self.0.stat(hash).await
    }

    async fn holds(&self, after: Option<&Hold>, max: usize) -> Result<Vec<Hold>, StoreError> {
        self.1.pass()?;
        self.0.holds(after, max).await
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.1.pass()?;
        self.0.usage().await
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept, StoreError> {
        self.1.pass()?;
        self.0.sweep(older_than).await
    }
}
