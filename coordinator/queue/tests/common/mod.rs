//! Fixtures of the contract suites.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use assay_queue::testing::{store_contract, QueueFixture, RedisServer, StoreFixture};
use assay_queue::{
    ArtifactStore, Durability, EmbeddedQueue, FolderStore, Holder, ObjectsConfig, QueueLimits, RedisConfig,
    RedisQueue, SharedLimits, SharedStore,
};

pub(crate) fn config(url: impl Into<String>) -> RedisConfig {
    RedisConfig { retry_for: Duration::from_secs(20), ..RedisConfig::new(url, "test") }
}

pub(crate) async fn memory_queue(limits: QueueLimits) -> QueueFixture {
    let queue = EmbeddedQueue::in_memory(limits);
    QueueFixture { other: Arc::new(queue.clone()), queue: Arc::new(queue), keep: Box::new(()) }
}

pub(crate) async fn folder_queue(limits: QueueLimits) -> QueueFixture {
    let folder = tempfile::tempdir().unwrap();
    let queue = EmbeddedQueue::open(folder.path(), limits, Durability::Disk).unwrap();
    QueueFixture { other: Arc::new(queue.clone()), queue: Arc::new(queue), keep: Box::new(folder) }
}

pub(crate) async fn redis_queue(limits: QueueLimits) -> QueueFixture {
    let server = RedisServer::start();
    let queue = RedisQueue::open(config(server.url()), limits.clone()).await.unwrap();
    let other = RedisQueue::open(config(server.url()), limits).await.unwrap();
    QueueFixture { queue: Arc::new(queue), other: Arc::new(other), keep: Box::new(server) }
}

/// Files below a folder that hold artifacts.
fn blobs_in(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { blobs_in(&path) } else { 1 })
        .sum()
}

pub(crate) fn flip_a_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    std::fs::write(path, bytes).unwrap();
}

pub(crate) async fn folder_store() -> StoreFixture {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let store = FolderStore::open(&root, store_contract::small_limits(), Durability::Process).unwrap();
    let blob = {
        let root = root.clone();
        move |hash: blake3::Hash| root.join("blobs").join(&hash.to_hex()[..2]).join(hash.to_hex().as_str())
    };
    let (damaged, lost, dead) = (blob.clone(), blob.clone(), blob);
    StoreFixture {
        store: Arc::new(store.clone()),
        other: Arc::new(store),
        damage: Box::new(move |hash| {
            flip_a_byte(&damaged(hash));
            Box::pin(async { true })
        }),
        lose: Box::new(move |hash| {
            std::fs::remove_file(lost(hash)).unwrap();
            Box::pin(async { true })
        }),
        die_publishing: Box::new(move |bytes| {
            // The blob is renamed into place before its hold is written.
            let path = dead(blake3::hash(&bytes));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
            Box::pin(async {})
        }),
        blobs: Box::new(move || blobs_in(&root.join("blobs")) + blobs_in(&root.join("partial"))),
        keep: Box::new(folder),
    }
}

/// Limits under which tests reach both Redis and the object store.
pub(crate) fn shared_limits() -> SharedLimits {
    SharedLimits {
        store: store_contract::small_limits(),
        inline_bytes_max: 1_000,
        inline_total_bytes_max: 1 << 20,
    }
}

pub(crate) async fn shared_store() -> StoreFixture {
    let server = Arc::new(RedisServer::start());
    let folder = tempfile::tempdir().unwrap();
    let objects = ObjectsConfig::new(format!("file://{}", folder.path().display()));
    let open = || SharedStore::open(config(server.url()), &objects, shared_limits());
    let (store, other) = (Arc::new(open().await.unwrap()), Arc::new(open().await.unwrap()));
    let (damaging, losing, dying) = (store.clone(), store.clone(), store.clone());
    let (redis, root) = (server.clone(), folder.path().to_owned());
    StoreFixture {
        store: store.clone(),
        other,
        damage: Box::new(move |hash| {
            let (store, redis) = (damaging.clone(), redis.clone());
            Box::pin(async move {
                match store.file_of(&hash).await.unwrap() {
                    Some(path) => flip_a_byte(&path),
                    None => {
                        let mut bytes = store.get(&hash).await.unwrap();
                        let middle = bytes.len() / 2;
                        bytes[middle] ^= 0x01;
                        let key = format!("{{assay:test}}:store:a:{}", hash.to_hex());
                        redis.command(&["HSET", &key, "d", std::str::from_utf8(&bytes).unwrap()]);
                    }
                }
                true
            })
        }),
        lose: Box::new(move |hash| {
            let store = losing.clone();
            Box::pin(async move {
                match store.file_of(&hash).await.unwrap() {
                    Some(path) => std::fs::remove_file(path).is_ok(),
                    None => false,
                }
            })
        }),
        die_publishing: Box::new(move |bytes| {
            let store = dying.clone();
            Box::pin(async move { store.put_and_die(&Holder::new("dead/1").unwrap(), bytes).await.unwrap() })
        }),
        blobs: Box::new(move || blobs_in(&root)),
        keep: Box::new((folder, server)),
    }
}
