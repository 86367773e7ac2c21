//! What one peer, one outage or one full log may hold up: nothing for ever.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use assay_queue::{
    BackendError, Commit, Committed, Cursor, EmbeddedQueue, Epoch, Health, Leader, Mailbox, Page, Position,
    QueueError, QueueLimits, Stored, TaskQueue,
};
use assay_service::work::{BatchFacts, BatchReader, BatchRefusal};
use async_trait::async_trait;

use crate::cluster::{until, Cluster};
use crate::simple::{Shape, Simple};

/// A queue that can be away.
struct AwayQueue {
    inner: EmbeddedQueue,
    is_away: AtomicBool,
}

impl AwayQueue {
    async fn reach(&self) -> Result<&EmbeddedQueue, QueueError> {
        if !self.is_away.load(Ordering::SeqCst) {
            return Ok(&self.inner);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(BackendError::Unavailable { tried: Duration::ZERO, reason: "away".into() }.into())
    }
}

#[async_trait]
impl TaskQueue for AwayQueue {
    async fn lead(&self, holder: &str, ttl: Duration) -> Result<Option<Epoch>, QueueError> {
        self.reach().await?.lead(holder, ttl).await
    }

    async fn resign(&self, epoch: Epoch) -> Result<(), QueueError> {
        self.reach().await?.resign(epoch).await
    }

    async fn leader(&self) -> Result<Option<Leader>, QueueError> {
        self.reach().await?.leader().await
    }

    async fn load(&self) -> Result<Stored, QueueError> {
        self.reach().await?.load().await
    }

    async fn events(
        &self,
        after: Cursor,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(Cursor, Vec<u8>)>, QueueError> {
        self.reach().await?.events(after, max, wait).await
    }

    async fn commit(&self, epoch: Epoch, commit: &Commit) -> Result<Committed, QueueError> {
        self.reach().await?.commit(epoch, commit).await
    }

    async fn checkpoint(&self, epoch: Epoch, upto: Position, bytes: &[u8]) -> Result<(), QueueError> {
        self.reach().await?.checkpoint(epoch, upto, bytes).await
    }

    async fn post_all(&self, events: &[Vec<u8>]) -> Result<Cursor, QueueError> {
        self.reach().await?.post_all(events).await
    }

    async fn read(
        &self,
        mailbox: &Mailbox,
        after: Cursor,
        max: usize,
        wait: Duration,
    ) -> Result<Page, QueueError> {
        self.reach().await?.read(mailbox, after, max, wait).await
    }

    async fn forget(&self, mailbox: &Mailbox, upto: Cursor) -> Result<(), QueueError> {
        self.reach().await?.forget(mailbox, upto).await
    }

    async fn health(&self) -> Result<Health, QueueError> {
        self.reach().await?.health().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_stops_in_time_also_while_the_queue_is_away() {
    let inner = EmbeddedQueue::in_memory(QueueLimits::default());
    let queue = Arc::new(AwayQueue { inner, is_away: AtomicBool::default() });
    let mut cluster = Cluster::new();
    cluster.queue = queue.clone();
    cluster.settings.leader.stop_time = Duration::from_millis(300);
    let node = cluster.node().await;
    node.client.submitted("key", Shape::new(1)).await;
    queue.is_away.store(true, Ordering::SeqCst);
    // Ticks come all the time: one is being committed by then.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(node.stop_within(Duration::from_secs(20)).await, "it tries for ever");
    queue.is_away.store(false, Ordering::SeqCst);
    let next = cluster.node().await;
    let (status, body) = next.client.submit("key", Shape::new(1)).await;
    assert_eq!((status, body["repeated"].as_bool()), (200, Some(true)), "nothing is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_full_by_its_bytes_is_made_room_in() {
    let limits = QueueLimits { record_bytes_max: 8_000, ..QueueLimits::default() };
    let mut cluster = Cluster::new();
    cluster.queue = Arc::new(EmbeddedQueue::in_memory(limits));
    cluster.settings.leader.checkpoint_time = Duration::from_secs(3600);
    let node = cluster.node().await;
    for chain in 0..40 {
        node.client.submitted(&format!("key {chain}"), Shape::new(chain)).await;
    }
    assert!(cluster.queue.load().await.unwrap().position > Position(40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_are_made_by_the_bytes_of_the_log_too() {
    let mut cluster = Cluster::new();
    cluster.settings.leader.checkpoint_time = Duration::from_secs(3600);
    cluster.settings.leader.checkpoint_bytes = 4_000;
    let node = cluster.node().await;
    for chain in 0..40 {
        node.client.submitted(&format!("key {chain}"), Shape::new(chain)).await;
        let health = cluster.queue.health().await.unwrap();
        assert!(health.record_bytes < 16_000, "{health:?}");
    }
}

/// A reader that takes its time.
struct SlowReader {
    is_open: Mutex<bool>,
    opened: Condvar,
    reads: AtomicUsize,
}

impl BatchReader for SlowReader {
    fn read(&self, bytes: &[u8]) -> Result<BatchFacts, BatchRefusal> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let is_open = self.is_open.lock().unwrap();
        let _open = self.opened.wait_while(is_open, |is_open| !*is_open).unwrap();
        Simple::default().read(bytes)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_counts_as_long_as_it_is_in_memory_also_when_its_sender_is_gone() {
    let reader = Arc::new(SlowReader {
        is_open: Mutex::new(false),
        opened: Condvar::new(),
        reads: AtomicUsize::new(0),
    });
    let mut cluster = Cluster::with_keys("batches_max = 1");
    cluster.reader = reader.clone();
    (cluster.settings.api.uploads_bytes_max, cluster.settings.api.body_bytes_max) = (1 << 20, 1 << 20);
    let node = cluster.node().await;
    let request = node
        .client
        .request("POST", "/v1/batches")
        .header("idempotency-key", "key")
        .body(Shape::new(1).bytes());
    let gone = tokio::spawn(request.send());
    until("it is being examined", || async { reader.reads.load(Ordering::SeqCst) == 1 }).await;
    gone.abort();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (status, body) = node.client.submit("other", Shape::new(1)).await;
    assert_eq!((status, body["code"].as_str()), (503, Some("overloaded")), "{body}");
    assert_eq!(reader.reads.load(Ordering::SeqCst), 1);
    *reader.is_open.lock().unwrap() = true;
    reader.opened.notify_all();
    node.client.submitted("other", Shape::new(1)).await;
    // What the leader would refuse is not even examined.
    let examined = reader.reads.load(Ordering::SeqCst);
    let (status, body) = node.client.submit("third", Shape::new(2)).await;
    assert_eq!((status, body["code"].as_str()), (429, Some("quota_exceeded")), "{body}");
    assert_eq!(reader.reads.load(Ordering::SeqCst), examined);
    let (status, _) = node.client.submit("other", Shape::new(1)).await;
    assert_eq!(status, 200, "a repetition is none more");
}
