//! Opens queue and store.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{
    ArtifactStore, BackendError, Class, Durability, EmbeddedQueue, FolderStore, QueueLimits, RedisQueue,
    SharedLimits, SharedStore, StoreLimits, TaskQueue,
};

use tokio::sync::watch;
use tokio::time::Instant;

use super::ClusterError;
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

/// Opens both; a server that does not answer yet is waited for, as long as the configuration says. `trouble` is told why
/// nothing has come of it so far.
///
/// # Errors
/// [`ClusterError::Backend`] that no waiting helps against, [`ClusterError::Unreachable`].
pub async fn open(
    config: &CoordinatorConfig,
    trouble: &watch::Sender<String>,
) -> Result<Opened, ClusterError> {
    match &config.place {
        Place::Embedded => {
            let (queue, store) = (config.dir.join("queue"), config.dir.join("store"));
            let queue = EmbeddedQueue::open(&queue, QueueLimits::default(), Durability::Disk)?;
            let store = FolderStore::open(&store, StoreLimits::default(), Durability::Disk)?;
            Ok(Opened { queue: Arc::new(queue), store: Arc::new(store) })
        }
        Place::Shared { redis, objects } => {
            let patience = Patience { begun: Instant::now(), wait: config.start_wait, retry: RETRY, trouble };
            let queue =
                patience.until(|| RedisQueue::open((**redis).clone(), QueueLimits::default())).await?;
            let open = || SharedStore::open((**redis).clone(), objects, SharedLimits::default());
            Ok(Opened { queue: Arc::new(queue), store: Arc::new(patience.until(open).await?) })
        }
    }
}

/// How long to try.
struct Patience<'a> {
    begun: Instant,
    wait: Duration,
    /// Pause between tries.
    retry: Duration,
    trouble: &'a watch::Sender<String>,
}

impl Patience<'_> {
    /// Tries until it works, can never work, or the time is over.
    async fn until<T, F>(&self, mut open: impl FnMut() -> F) -> Result<T, ClusterError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let end = self.begun + self.wait;
        let mut last = None;
        loop {
            // A server that takes connections and says nothing must not make it longer.
            let error = match tokio::time::timeout_at(end, open()).await {
                Ok(Err(error)) if error.class() == Class::Transient => error,
                Ok(other) => return Ok(other?),
                Err(_) => return Err(ClusterError::Unreachable { waited: self.wait, source: last }),
            };
            tracing::warn!(%error, "not connected; trying again");
            self.trouble.send_replace(error.to_string());
            if Instant::now() + self.retry >= end {
                return Err(ClusterError::Unreachable { waited: self.begun.elapsed(), source: Some(error) });
            }
            last = Some(error);
            tokio::time::sleep(self.retry).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Duration = Duration::from_secs(60);

    fn patience(wait: Duration, trouble: &watch::Sender<String>) -> Patience<'_> {
        Patience { begun: Instant::now(), wait, retry: Duration::from_millis(5), trouble }
    }

    fn away() -> BackendError {
        BackendError::Unavailable { tried: Duration::from_secs(1), reason: "connection refused".into() }
    }

    #[tokio::test]
    async fn a_queue_that_comes_late_is_waited_for_and_its_trouble_is_told() {
        let (trouble, told) = watch::channel(String::new());
        let patience = patience(PLENTY, &trouble);
        let mut tries = 0;
        let opened = patience.until(|| {
            tries += 1;
            std::future::ready(if tries < 5 { Err(away()) } else { Ok(tries) })
        });
        assert_eq!(opened.await.unwrap(), 5);
        assert!(told.borrow().contains("connection refused"));
    }

    #[tokio::test]
    async fn a_queue_that_never_comes_ends_the_start_with_the_reason_and_what_to_do() {
        let (trouble, _told) = watch::channel(String::new());
        for is_silent in [false, true] {
            let patience = patience(Duration::from_millis(100), &trouble);
            let mut tries = 0;
            let opened = patience.until(|| {
                tries += 1;
                let hangs = is_silent && tries > 1;
                async move {
                    if hangs {
                        std::future::pending::<()>().await;
                    }
                    Err::<(), _>(away())
                }
            });
            let error = opened.await.unwrap_err();
            assert!(matches!(error, ClusterError::Unreachable { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("connection refused") && text.contains("start_wait_seconds"), "{text}");
        }
    }

    #[tokio::test]
    async fn what_waiting_does_not_help_against_ends_the_start_at_once() {
        let (trouble, _told) = watch::channel(String::new());
        let patience = patience(PLENTY, &trouble);
        let mut tries = 0;
        let refused = || BackendError::Config { reason: "no such host in the URL".into() };
        let opened = patience.until(|| {
            tries += 1;
            std::future::ready(Err::<(), _>(refused()))
        });
        assert!(matches!(opened.await.unwrap_err(), ClusterError::Backend(_)));
        assert_eq!(tries, 1);
    }
}
