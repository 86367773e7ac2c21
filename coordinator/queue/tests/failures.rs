//! Deaths, lost answers and damage behind the back.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_queue::testing::{Proxy, RedisServer, ServerOptions};
use assay_queue::{
    ArtifactStore, BackendError, Class, Commit, Cursor, Durability, EmbeddedQueue, Epoch, FolderStore,
    Holder, Mailbox, ObjectsConfig, Place, Position, QueueError, QueueLimits, RedisQueue, SharedLimits,
    SharedStore, StoreError, StoreLimits, TaskQueue,
};
use common::config;
use redis::Value;

const LONG: Duration = Duration::from_secs(600);

fn mailbox(name: &str) -> Mailbox {
    Mailbox::new(name).unwrap()
}

fn holder(name: &str) -> Holder {
    Holder::new(name).unwrap()
}

async fn open(url: impl Into<String>) -> RedisQueue {
    RedisQueue::open(config(url), QueueLimits::default()).await.unwrap()
}

fn step(number: u64) -> Commit {
    Commit {
        records: vec![format!("record {number}").into_bytes()],
        mails: vec![(mailbox("m"), format!("mail {number}").into_bytes())],
        ..Commit::new(Cursor(number))
    }
}

async fn check_steps(queue: &dyn TaskQueue, steps: u64) {
    let stored = queue.load().await.unwrap();
    assert_eq!((stored.position, stored.cursor), (Position(steps), Cursor(steps)));
    let expected: Vec<Vec<u8>> = (1..=steps).map(|number| format!("record {number}").into_bytes()).collect();
    assert_eq!(stored.records, expected);
    let page = queue.read(&mailbox("m"), Cursor(0), 4096, Duration::ZERO).await.unwrap();
    let expected: Vec<Vec<u8>> = (1..=steps).map(|number| format!("mail {number}").into_bytes()).collect();
    assert_eq!(page.mails.into_iter().map(|mail| mail.bytes).collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_counts_once() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let (queue, direct) = (open(proxy.url()).await, open(server.url()).await);
    let epoch = queue.lead("a", LONG).await.unwrap().unwrap();
    for number in 1..=20 {
        direct.post(b"event".to_vec()).await.unwrap();
        let (lost_answers, cuts) = (number % 3 == 1, proxy.cuts());
        match number % 3 {
            1 => proxy.lose_next_answer(),
            2 => proxy.lose_next_request(),
            _ => {}
        }
        let committed = queue.commit(epoch, &step(number)).await.unwrap();
        assert_eq!(proxy.cuts() - cuts, u64::from(number % 3 != 0), "the connection was cut");
        // The very first loses the answer that the script is not known yet.
        assert_eq!(committed.is_repeated, lost_answers && number > 1, "commit {number}");
        assert_eq!(committed.position, Position(number));
    }
    check_steps(&direct, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_whose_answer_is_lost_arrives_at_least_once() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let (queue, direct) = (open(proxy.url()).await, open(server.url()).await);
    for number in 0..10 {
        if number % 2 == 0 {
            proxy.lose_next_answer();
        } else {
            proxy.lose_next_request();
        }
        queue.post(vec![number]).await.unwrap();
    }
    let events = direct.events(Cursor(0), 100, Duration::ZERO).await.unwrap();
    let mut seen: Vec<u8> = events.iter().map(|(_, event)| event[0]).collect();
    seen.dedup();
    assert_eq!(seen, (0..10).collect::<Vec<_>>(), "all of them, in order, some twice");
    assert!(events.len() > 10, "an answer was lost, so one is there twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_reader_survives_a_lost_connection() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let (reader, direct) = (Arc::new(open(proxy.url()).await), open(server.url()).await);
    let epoch = direct.lead("a", LONG).await.unwrap().unwrap();
    let waiting = {
        let reader = reader.clone();
        tokio::spawn(async move { reader.read(&mailbox("m"), Cursor(0), 9, Duration::from_secs(20)).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The ring is the next thing that would come through.
    proxy.lose_next_answer();
    direct.post(b"e".to_vec()).await.unwrap();
    direct.commit(epoch, &step(1)).await.unwrap();
    let started = Instant::now();
    let page = waiting.await.unwrap().unwrap();
    assert_eq!(page.mails[0].bytes, b"mail 1");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(proxy.cuts(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_with_an_append_only_file_loses_nothing_acknowledged() {
    let mut server = RedisServer::start();
    let queue = Arc::new(open(server.url()).await);
    let epoch = queue.lead("a", LONG).await.unwrap().unwrap();
    let (steps, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    // A client that never stops, over the deaths of the server.
    let leader = {
        let (queue, steps, is_over) = (queue.clone(), steps.clone(), is_over.clone());
        tokio::spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                let number = steps.load(Ordering::SeqCst) + 1;
                queue.post(b"event".to_vec()).await.unwrap();
                // A post may be there twice: take what is there.
                let events = queue.events(Cursor(0), 100, LONG).await.unwrap();
                let last = events.last().unwrap().0;
                queue.commit(epoch, &Commit { cursor: last, ..step(number) }).await.unwrap();
                steps.store(number, Ordering::SeqCst);
            }
        })
    };
    for death in 1..=4 {
        let deadline = Instant::now() + Duration::from_secs(60);
        while steps.load(Ordering::SeqCst) < death * 37 {
            assert!(Instant::now() < deadline, "no progress before death {death}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill();
        tokio::time::sleep(Duration::from_millis(60)).await;
        server.restart();
    }
    is_over.store(true, Ordering::SeqCst);
    leader.await.unwrap();
    server.restart();
    let (fresh, steps) = (open(server.url()).await, steps.load(Ordering::SeqCst));
    let stored = fresh.load().await.unwrap();
    let expected: Vec<Vec<u8>> = (1..=steps).map(|number| format!("record {number}").into_bytes()).collect();
    assert_eq!(stored.records, expected, "each acknowledged commit once");
    let page = fresh.read(&mailbox("m"), Cursor(0), 4096, Duration::ZERO).await.unwrap();
    assert_eq!(page.mails.len() as u64, steps);
    assert_eq!(fresh.leader().await.unwrap().unwrap().epoch, epoch, "the lease survives");
}

/// The test before bites: without the file everything is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_without_an_append_only_file_loses_everything_and_warns_of_it() {
    let mut server = RedisServer::start_with(ServerOptions { has_aof: false, ..ServerOptions::default() });
    let queue = open(server.url()).await;
    queue.post(b"e".to_vec()).await.unwrap();
    let warnings = queue.health().await.unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("CONFIG SET appendonly yes")), "{warnings:?}");
    server.restart();
    assert_eq!(queue.events(Cursor(0), 9, Duration::ZERO).await.unwrap(), []);
}

/// Redis closes a connection with subscriptions when more than 32 MiB wait on it.
/// Copies a server's data, which must not be written meanwhile.
fn copy_folder(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_notices_that_the_server_was_put_back_to_an_older_state() {
    let mut server = RedisServer::start();
    let (data, backup) = (server.folder().join("appendonlydir"), server.folder().join("backup"));
    let queue = open(server.url()).await;
    let poster = open(server.url()).await;
    let epoch = queue.lead("a", LONG).await.unwrap().unwrap();
    for number in 1..=3 {
        poster.post(format!("event {number}").into_bytes()).await.unwrap();
    }
    let on = |position, cursor, number| {
        let after = Place { position: Position(position), cursor: Cursor(cursor) };
        Commit { after: Some(after), ..step(number) }
    };
    queue.events(Cursor(0), 9, Duration::ZERO).await.unwrap();
    queue.commit(epoch, &on(0, 0, 1)).await.unwrap();

    // A record is lost, and a mail that a reader has read.
    copy_folder(&data, &backup);
    queue.commit(epoch, &on(1, 1, 2)).await.unwrap();
    let read = queue.read(&mailbox("m"), Cursor(0), 9, Duration::ZERO).await.unwrap().mails;
    let read = read.last().unwrap().cursor;
    server.kill();
    copy_folder(&backup, &data);
    server.restart();
    let refused = queue.commit(epoch, &on(2, 2, 3)).await.unwrap_err();
    assert!(matches!(refused, QueueError::Gap { .. }), "{refused:?}");
    assert_eq!(queue.load().await.unwrap().position, Position(1), "nothing was written over it");
    queue.resign(epoch).await.unwrap();
    let epoch = queue.lead("a", LONG).await.unwrap().unwrap();
    queue.commit(epoch, &on(1, 1, 2)).await.unwrap();
    let news = queue.read(&mailbox("m"), read, 9, Duration::ZERO).await.unwrap().mails;
    assert_eq!(news.len(), 1, "a reader misses nothing of the new epoch");

    // Events are lost that the leader has read, and others come in their places.
    copy_folder(&data, &backup);
    poster.post(b"event 4".to_vec()).await.unwrap();
    assert_eq!(queue.events(Cursor(2), 9, Duration::ZERO).await.unwrap().len(), 2);
    server.kill();
    copy_folder(&backup, &data);
    server.restart();
    assert_eq!(poster.post(b"another".to_vec()).await.unwrap(), Cursor(4));
    let refused = queue.commit(epoch, &on(2, 2, 4)).await.unwrap_err();
    assert!(matches!(refused, QueueError::Gap { .. }), "{refused:?}");
    let events = queue.events(Cursor(2), 9, Duration::ZERO).await.unwrap();
    assert_eq!(events.last().unwrap().1, b"another");
    queue.commit(epoch, &on(2, 2, 4)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_and_waiting_readers_do_not_disturb_each_other() {
    let server = RedisServer::start();
    // A hundred MiB take their time on a busy disk.
    let (response_timeout, retry_for) = (Duration::from_secs(60), Duration::from_secs(120));
    let patient = assay_queue::RedisConfig { response_timeout, retry_for, ..config(server.url()) };
    let queue = Arc::new(RedisQueue::open(patient, QueueLimits::default()).await.unwrap());
    let epoch = queue.lead("a", LONG).await.unwrap().unwrap();
    let waiting = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.read(&mailbox("m"), Cursor(0), 9, LONG).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    let state = vec![7; 100 << 20];
    queue.checkpoint(epoch, Position(0), &state).await.unwrap();
    assert_eq!(queue.load().await.unwrap().checkpoint.unwrap(), state);
    queue.post(b"event".to_vec()).await.unwrap();
    queue.commit(epoch, &step(1)).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().mails.len(), 1);
    // Only later versions than 7.0 count them.
    let log = std::fs::read_to_string(server.folder().join("log")).unwrap();
    assert!(log.contains("Ready to accept connections") && !log.contains("output buffer limits"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_that_was_given_out_twice_is_its_later_holders() {
    let server = RedisServer::start();
    let (one, two) = (open(server.url()).await, open(server.url()).await);
    let epoch = one.lead("a", LONG).await.unwrap().unwrap();
    // What a replica knows that had not heard of the first leader when it became master.
    server.command(&["DEL", "{assay:test}:head"]);
    assert_eq!(two.lead("b", LONG).await.unwrap(), Some(epoch));
    let refused = one.commit(epoch, &step(0)).await;
    assert!(matches!(&refused, Err(QueueError::Fenced { .. })), "{refused:?}");
    let refused = one.checkpoint(epoch, Position(0), b"state").await;
    assert!(matches!(&refused, Err(QueueError::Fenced { .. })), "{refused:?}");
    one.resign(epoch).await.unwrap();
    assert_eq!(two.leader().await.unwrap().unwrap().holder, "b", "the other's lease goes on");
    assert_eq!(two.commit(epoch, &step(0)).await.unwrap().position, Position(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stays_away_is_reported_in_time_and_taken_again_later() {
    let mut server = RedisServer::start();
    let config = assay_queue::RedisConfig { retry_for: Duration::from_millis(600), ..config(server.url()) };
    let queue = RedisQueue::open(config, QueueLimits::default()).await.unwrap();
    server.kill();
    let started = Instant::now();
    let error = queue.post(b"e".to_vec()).await.unwrap_err();
    assert!(matches!(&error, QueueError::Backend(BackendError::Unavailable { .. })), "{error}");
    assert_eq!(error.class(), Class::Transient);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    server.restart();
    // The pause between attempts may have grown to two seconds.
    let back = async { while queue.post(b"e".to_vec()).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("it comes back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_given_up_after_the_time_allowed() {
    let server = RedisServer::start();
    let config = assay_queue::RedisConfig {
        response_timeout: Duration::from_secs(1),
        retry_for: Duration::from_secs(2),
        ..config(server.url())
    };
    let queue = RedisQueue::open(config, QueueLimits::default()).await.unwrap();
    server.pause(true);
    let started = Instant::now();
    let error = queue.post(b"e".to_vec()).await.unwrap_err();
    assert!(matches!(&error, QueueError::Backend(BackendError::Unavailable { .. })), "{error}");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    server.pause(false);
    let back = async { while queue.post(b"e".to_vec()).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("it comes back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_out_of_memory_refuses_new_data_and_lets_room_be_made() {
    let server = RedisServer::start_with(ServerOptions::with(&["--maxmemory 6mb"]));
    let queue = open(server.url()).await;
    let epoch = queue.lead("a", LONG).await.unwrap().unwrap();
    let (mut number, mut last) = (0, Position(0));
    let refused = loop {
        number += 1;
        let mut commit = Commit::new(Cursor(0));
        commit.records = vec![vec![7; 100_000]];
        commit.mails = vec![(mailbox(&format!("m/{number}")), b"mail".to_vec())];
        match queue.commit(epoch, &commit).await {
            Ok(committed) => last = committed.position,
            Err(error) => break error,
        }
        assert!(number < 100, "6 MB hold no 10 MB");
    };
    assert!(matches!(&refused, QueueError::Backend(BackendError::OutOfMemory { .. })), "{refused}");
    assert_eq!(refused.class(), Class::Transient);
    assert!(refused.to_string().contains("CONFIG SET maxmemory"));
    let error = loop {
        // A small message may still fit where a large one does not.
        match queue.post(vec![0; 1000]).await {
            Ok(cursor) => assert!(cursor < Cursor(10_000)),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, QueueError::Backend(BackendError::OutOfMemory { .. })), "{error}");
    let stored = queue.load().await.unwrap();
    assert_eq!((stored.position, stored.records.len() as u64), (last, last.0), "nothing of the refused one");
    let page = queue.read(&mailbox(&format!("m/{number}")), Cursor(0), 9, Duration::ZERO).await.unwrap();
    assert!(page.mails.is_empty());
    // The leader may still lead, and makes room.
    assert_eq!(queue.lead("a", LONG).await.unwrap(), Some(epoch));
    queue.checkpoint(epoch, last, b"state").await.unwrap();
    queue.post(vec![0; 1000]).await.unwrap();
    assert!(queue.health().await.unwrap().memory_bytes_max == Some(6 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_out_of_memory_is_full() {
    let server = RedisServer::start_with(ServerOptions::with(&["--maxmemory 6mb"]));
    let folder = tempfile::tempdir().unwrap();
    let objects = ObjectsConfig::new(format!("file://{}", folder.path().display()));
    let store = SharedStore::open(config(server.url()), &objects, SharedLimits::default()).await.unwrap();
    let mut number = 0_u64;
    let refused = loop {
        number += 1;
        let mut bytes = vec![1; 500_000];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        match store.put(&holder(&format!("a/{number}")), bytes).await {
            Ok(_) => assert!(number < 40, "6 MB hold no 20 MB"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, StoreError::Full { .. }), "{refused}");
    store.release(&holder("a")).await.unwrap();
    assert_eq!(store.usage().await.unwrap().bytes, 0);
    store.put(&holder("b"), vec![2; 500_000]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_the_log_or_the_checkpoint_is_found() {
    let server = RedisServer::start();
    let queue = open(server.url()).await;
    let epoch = queue.lead("a", LONG).await.unwrap().unwrap();
    let commit = Commit { records: vec![b"r1".to_vec(), b"r2".to_vec()], ..Commit::new(Cursor(0)) };
    queue.commit(epoch, &commit).await.unwrap();
    queue.checkpoint(epoch, Position(1), b"state").await.unwrap();
    server.command(&["SET", "{assay:test}:checkpoint", "stats"]);
    let error = queue.load().await.unwrap_err();
    assert!(matches!(&error, QueueError::Corrupt { what: "checkpoint", at: Position(1) }), "{error}");
    queue.checkpoint(epoch, Position(1), b"state").await.unwrap();
    queue.load().await.unwrap();

    let log = "{assay:test}:log";
    let Value::Array(entries) = server.command(&["XRANGE", log, "-", "+"]) else { panic!("a list") };
    assert_eq!(entries.len(), 1);
    server.command(&["DEL", log]);
    server.command(&["XADD", log, "0-2", "d", "rX", "t", "4", "h", "12345678"]);
    let error = queue.load().await.unwrap_err();
    assert!(matches!(&error, QueueError::Corrupt { what: "record", at: Position(2) }), "{error}");
    server.command(&["DEL", log]);
    let error = queue.load().await.unwrap_err();
    assert_eq!(error.class(), Class::Bug, "{error}");
    // Whatever else is there is an error too, never a panic.
    for garbage in [&["SET", log, "x"][..], &["XADD", log, "0-2", "d", "x"]] {
        server.command(&["DEL", log]);
        server.command(garbage);
        queue.load().await.unwrap_err();
    }
    server.command(&["HSET", "{assay:test}:head", "record", "x"]);
    queue.load().await.unwrap_err();
    queue.commit(epoch, &step(0)).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_older_state_of_redis_does_not_know_is_swept_too() {
    let server = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let objects = ObjectsConfig::new(format!("file://{}", folder.path().display()));
    let open = || SharedStore::open(config(server.url()), &objects, common::shared_limits());
    let store = open().await.unwrap();
    let kept = store.put(&holder("a"), vec![1; 5_000]).await.unwrap();
    let lost = store.put(&holder("b"), vec![2; 5_000]).await.unwrap();
    let file = store.file_of(&lost.hash).await.unwrap().unwrap();
    // An upload that was cut off, as the local object store leaves it.
    std::fs::write(file.with_extension("5000#1"), b"cut").unwrap();
    server.command(&["DEL", &format!("{{assay:test}}:store:a:{}", lost.hash.to_hex())]);
    assert_eq!(store.sweep(LONG).await.unwrap().blobs, 0, "too young");
    let swept = store.sweep(Duration::ZERO).await.unwrap();
    assert_eq!((swept.blobs, swept.bytes), (2, 5_003));
    assert!(!file.exists());
    assert_eq!(store.get(&kept.hash).await.unwrap(), vec![1; 5_000]);
}

/// Set in the process that is going to be killed, to its folder.
const CHILD_FOLDER: &str = "ASSAY_QUEUE_TEST_CHILD";

/// Step `number`'s part in the store: each second step revokes the one before.
async fn store_step(store: &dyn ArtifactStore, number: u64) {
    let bytes = format!("artifact {number}").repeat(1000).into_bytes();
    store.put(&holder(&format!("a/{number}/0")), bytes).await.unwrap();
    if number.is_multiple_of(2) {
        store.revoke(&holder(&format!("a/{}", number - 1))).await.unwrap();
    }
}

fn acknowledge(folder: &Path, number: u64) {
    std::fs::write(folder.join("acknowledged.new"), number.to_string()).unwrap();
    std::fs::rename(folder.join("acknowledged.new"), folder.join("acknowledged")).unwrap();
}

fn acknowledged(folder: &Path) -> u64 {
    std::fs::read_to_string(folder.join("acknowledged")).map_or(0, |text| text.parse().unwrap())
}

fn open_embedded(folder: &Path) -> (EmbeddedQueue, FolderStore) {
    let queue = EmbeddedQueue::open(&folder.join("queue"), QueueLimits::default(), Durability::Process);
    let store = FolderStore::open(&folder.join("store"), StoreLimits::default(), Durability::Process);
    (queue.unwrap(), store.unwrap())
}

/// Not a test by itself: the process that `kill_nine_loses_nothing_that_the_embedded_queue_acknowledged` kills.
#[test]
fn child_that_is_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let folder = std::path::PathBuf::from(folder);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (queue, store) = open_embedded(&folder);
        let epoch = queue.lead("child", LONG).await.unwrap().unwrap();
        for number in acknowledged(&folder) + 1.. {
            queue.post(b"event".to_vec()).await.unwrap();
            queue.commit(epoch, &step(number)).await.unwrap();
            store_step(&store, number).await;
            acknowledge(&folder, number);
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_loses_nothing_that_the_embedded_queue_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    for life in 0..6_u64 {
        let before = acknowledged(folder.path());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while acknowledged(folder.path()) < before + 20 + 7 * life {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "no progress");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        check_after_death(folder.path(), Epoch(2 * life + 2)).await;
    }
}

async fn check_after_death(folder: &Path, epoch: Epoch) {
    let acknowledged = acknowledged(folder);
    let (queue, store) = open_embedded(folder);
    let position = queue.load().await.unwrap().position.0;
    assert!((acknowledged..=acknowledged + 1).contains(&position), "{position} for {acknowledged}");
    check_steps(&queue, position).await;
    assert_eq!(queue.leader().await.unwrap(), None);
    assert_eq!(queue.lead("parent", LONG).await.unwrap(), Some(epoch), "epochs go on");

    store.sweep(Duration::ZERO).await.unwrap();
    let left = std::fs::read_dir(folder.join("store/partial")).unwrap().count();
    assert_eq!(left, 0, "swept");
    // The last one may have been revoked by the step that was cut short.
    for number in 1..acknowledged {
        let bytes = format!("artifact {number}").repeat(1000).into_bytes();
        let found = store.get(&blake3::hash(&bytes)).await;
        if number % 2 == 0 {
            assert_eq!(found.unwrap(), bytes, "artifact {number}");
        } else {
            assert!(matches!(found, Err(StoreError::Missing { .. })), "artifact {number} was revoked");
            let refused = store.put(&holder(&format!("a/{number}/late")), b"x".to_vec()).await;
            assert!(matches!(refused, Err(StoreError::Revoked { .. })));
        }
    }
    // Finish the step that was cut short, for the next child to begin with a whole one.
    let waiting = queue.events(Cursor(0), 9, Duration::ZERO).await.unwrap();
    let done = position + waiting.len() as u64;
    assert!(done <= acknowledged + 1);
    if done > position {
        queue.commit(epoch, &step(done)).await.unwrap();
    }
    if done > acknowledged {
        store_step(&store, done).await;
        acknowledge(folder, done);
    }
}
