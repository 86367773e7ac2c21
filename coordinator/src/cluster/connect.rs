//! Opens queue and store.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{
    ArtifactStore, BackendError, Class, Durability, EmbeddedQueue, FolderStore, QueueLimits, RedisQueue,
    SharedLimits, SharedStore, StoreLimits, TaskQueue,
};

use crate::config::{CoordinatorConfig, Place};

/// Pause between tries to connect.
const RETRY: Duration = Duration::from_secs(2);

/// Queue and store of a deployment.
#[derive(Clone)]
pub struct Opened {
    /// Log, inbox, mailboxes.
    pub queue: Arc<dyn TaskQueue>,
    /// Artifacts.
    pub store: Arc<dyn ArtifactStore>,
}

/// Opens both; a server that does not answer yet is waited for.
///
/// # Errors
/// [`BackendError`] that no waiting helps against.
pub async fn open(config: &CoordinatorConfig) -> Result<Opened, BackendError> {
    match &config.place {
        Place::Embedded => {
            let (queue, store) = (config.dir.join("queue"), config.dir.join("store"));
            let queue = EmbeddedQueue::open(&queue, QueueLimits::default(), Durability::Disk)?;
            let store = FolderStore::open(&store, StoreLimits::default(), Durability::Disk)?;
            Ok(Opened { queue: Arc::new(queue), store: Arc::new(store) })
        }
        Place::Shared { redis, objects } => {
            let queue = patiently(|| RedisQueue::open((**redis).clone(), QueueLimits::default())).await?;
            let open = || SharedStore::open((**redis).clone(), objects, SharedLimits::default());
            Ok(Opened { queue: Arc::new(queue), store: Arc::new(patiently(open).await?) })
        }
    }
}

/// Tries until it works or can never work.
async fn patiently<T, F>(mut open: impl FnMut() -> F) -> Result<T, BackendError>
where
    F: Future<Output = Result<T, BackendError>>,
{
    loop {
        match open().await {
            Err(error) if error.class() == Class::Transient => {
                tracing::warn!(%error, "not connected; trying again");
                tokio::time::sleep(RETRY).await;
            }
            other => return other,
        }
    }
}
