//! The log in Redis as it lies there: older entries, and what reading it costs.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use assay_queue::testing::RedisServer;
use assay_queue::{
    ArtifactStore, Commit, Cursor, Epoch, Holder, ObjectsConfig, Position, QueueError, QueueLimits,
    RedisQueue, SharedStore, TaskQueue,
};
use common::config;

const LONG: Duration = Duration::from_secs(600);

async fn open(server: &RedisServer) -> (RedisQueue, Epoch) {
    let queue = RedisQueue::open(config(server.url()), QueueLimits::default()).await.unwrap();
    let epoch = queue.lead("a", LONG).await.unwrap().unwrap();
    (queue, epoch)
}

fn records(numbers: std::ops::RangeInclusive<u64>) -> Vec<Vec<u8>> {
    numbers.map(|number| format!("record {number}").into_bytes()).collect()
}

async fn commit(queue: &RedisQueue, epoch: Epoch, numbers: std::ops::RangeInclusive<u64>) {
    let commit = Commit { records: records(numbers), ..Commit::new(Cursor(0)) };
    queue.commit(epoch, &commit).await.unwrap();
}

/// Writes records as programs did before an entry had many of them.
fn write_as_before(server: &RedisServer, records: &[Vec<u8>]) {
    let mut redis = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let (head, log) = ("{assay:test}:head", "{assay:test}:log");
    let mut total = 0;
    for (place, record) in (1..).zip(records) {
        total += record.len();
        let hash = blake3::hash(record);
        let mut add = redis::cmd("XADD");
        add.arg(log).arg(format!("0-{place}")).arg("d").arg(record).arg("t").arg(total);
        add.arg("h").arg(&hash.as_bytes()[..8]).exec(&mut redis).unwrap();
        let mut set = redis::cmd("HSET");
        set.arg(head).arg("record").arg(place).arg("record_bytes").arg(total).exec(&mut redis).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_an_older_version_is_read_and_goes_on() {
    for upto in 0..=5 {
        let server = RedisServer::start();
        let (queue, epoch) = open(&server).await;
        write_as_before(&server, &records(1..=3));
        assert_eq!(queue.load().await.unwrap().records, records(1..=3));
        commit(&queue, epoch, 4..=4).await;
        commit(&queue, epoch, 5..=6).await;
        assert_eq!(queue.load().await.unwrap().records, records(1..=6));
        queue.checkpoint(epoch, Position(upto), b"state").await.unwrap();
        let stored = queue.load().await.unwrap();
        assert_eq!(stored.records, records(upto + 1..=6), "after {upto}");
        let health = queue.health().await.unwrap();
        let bytes: usize = stored.records.iter().map(Vec::len).sum();
        assert_eq!((health.records, health.record_bytes), (6 - upto, bytes as u64), "after {upto}");
        queue.checkpoint(epoch, Position(6), b"state").await.unwrap();
        assert_eq!(queue.health().await.unwrap().record_bytes, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_of_an_older_version_is_not_taken() {
    let server = RedisServer::start();
    let (queue, _) = open(&server).await;
    write_as_before(&server, &records(1..=1));
    let mut redis = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    redis::cmd("DEL").arg("{assay:test}:log").exec(&mut redis).unwrap();
    let mut add = redis::cmd("XADD");
    add.arg("{assay:test}:log").arg("0-1").arg("d").arg("record X").arg("t").arg(8);
    add.arg("h").arg(&blake3::hash(b"record 1").as_bytes()[..8]).exec(&mut redis).unwrap();
    let error = queue.load().await.unwrap_err();
    assert!(matches!(error, QueueError::Corrupt { what: "record", at: Position(1) }), "{error}");
}

/// How often the server has carried out a command.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats = server.info("commandstats");
    let prefix = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_many_small_commits_is_read_in_few_pieces() {
    let server = RedisServer::start();
    let (queue, epoch) = open(&server).await;
    for number in 1..=3_000 {
        commit(&queue, epoch, number..=number).await;
    }
    let before = calls(&server, "xrange");
    assert_eq!(queue.load().await.unwrap().records, records(1..=3_000));
    // 32, 64, … 1,024 entries, and the rest.
    assert_eq!(calls(&server, "xrange") - before, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_large_records_is_read_in_small_pieces() {
    let server = RedisServer::start();
    let (queue, epoch) = open(&server).await;
    for number in 0..80 {
        let commit = Commit { records: vec![vec![number; 1 << 20]], ..Commit::new(Cursor(0)) };
        queue.commit(epoch, &commit).await.unwrap();
    }
    let before = calls(&server, "xrange");
    let records = queue.load().await.unwrap().records;
    assert!((0..80).zip(&records).all(|(number, record)| *record == vec![number; 1 << 20]));
    assert_eq!((records.len(), calls(&server, "xrange") - before), (80, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_will_not_be_sent_are_not_read() {
    let server = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let objects = ObjectsConfig::new(format!("file://{}", folder.path().display()));
    let limits = assay_queue::SharedLimits::default();
    let store = SharedStore::open(config(server.url()), &objects, limits).await.unwrap();
    let holder = |number: u64| Holder::new(format!("attempt/{number}")).unwrap();
    let (mut claims, mut too_small) = (Vec::new(), Vec::new());
    for number in 0..8 {
        let artifact = store.put(&holder(number), vec![number as u8; 1000]).await.unwrap();
        claims.push((holder(number), artifact));
        too_small.push((holder(number), assay_queue::Artifact { bytes: 999, ..artifact }));
    }
    // One field each: what is read at once with others is counted as one call.
    let fields = || (calls(&server, "hget"), calls(&server, "hmget"));
    let before = fields();
    assert!(store.take_all(&too_small).await.unwrap().iter().all(Result::is_err));
    assert_eq!(fields(), (before.0 + 8, before.1), "their sizes, and nothing else");
    assert!(store.take_all(&claims).await.unwrap().iter().all(Result::is_ok));
    assert_eq!(fields(), (before.0 + 24, before.1), "their sizes and their bytes");
}
