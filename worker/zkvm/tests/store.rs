//! Artifacts on disk: content checked, deleted when consumed, bounded.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use assay_worker_zkvm::error::WorkerError;
use assay_worker_zkvm::memo::Memo;
use assay_worker_zkvm::store::DiskStore;
use sp1_core_executor::SyscallCode;
use sp1_prover::worker::{
    DeferredEvents, PrecompileArtifactSlice, ProofId, RawTaskRequest, RequesterId, TaskContext, TraceData,
};
use sp1_prover_types::{Artifact, ArtifactClient, ArtifactType, TaskType};

const KIND: ArtifactType = ArtifactType::UnspecifiedArtifactType;
const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(30);

fn store(dir: &tempfile::TempDir) -> DiskStore {
    DiskStore::open(dir.path().join("artifacts"), 2).unwrap()
}

fn files(dir: &tempfile::TempDir) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir.path().join("artifacts")).unwrap().map(|e| e.unwrap().path()).collect()
}

fn artifact(id: &str) -> Artifact {
    Artifact(id.to_owned())
}

#[tokio::test]
async fn an_artifact_comes_back_as_it_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let id = artifact("../an id with / and ..");
    store.upload(&id, vec![1u64, 2, 3]).await.unwrap();
    assert!(store.exists(&id, KIND).await.unwrap());
    assert_eq!(store.download::<Vec<u64>>(&id).await.unwrap(), vec![1, 2, 3]);
    assert_eq!(files(&dir).len(), 1, "one file, in the store's folder, whatever the id");
}

#[tokio::test]
async fn a_changed_file_is_not_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    store.put("x", b"proof").unwrap();
    std::fs::write(&files(&dir)[0], b"Proof").unwrap();
    assert!(matches!(store.get("x"), Err(WorkerError::ContentMismatch { .. })));
    assert!(store.download_raw(&artifact("x"), KIND).await.is_err());
}

#[tokio::test]
async fn deletion_removes_the_file_and_an_unknown_id_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    for id in ["a", "b", "c"] {
        store.put(id, &[0; 100]).unwrap();
    }
    store.delete(&artifact("a"), KIND).await.unwrap();
    store.delete(&artifact("a"), KIND).await.unwrap();
    store.delete_batch(&[artifact("b"), artifact("none")], KIND).await.unwrap();
    assert_eq!(files(&dir).len(), 1);
    assert_eq!(store.bytes(), (100, 300));
    assert!(matches!(store.get("a"), Err(WorkerError::ArtifactMissing { .. })));
    store.clear();
    assert!(files(&dir).is_empty() && store.is_empty());
}

#[tokio::test]
async fn the_last_reference_takes_the_artifact_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let id = artifact("events");
    store.put("events", b"events").unwrap();
    // What the controller does with precompile events that two shards share.
    store.add_ref(&id, "_controller").await.unwrap();
    store.add_ref(&id, "0_10").await.unwrap();
    store.add_ref(&id, "10_20").await.unwrap();
    assert!(!store.remove_ref(&id, KIND, "_controller").await.unwrap());
    assert!(!store.remove_ref(&id, KIND, "0_10").await.unwrap());
    assert!(!store.remove_ref(&id, KIND, "0_10").await.unwrap(), "a repeated task removes nothing more");
    assert!(store.exists(&id, KIND).await.unwrap());
    assert!(store.remove_ref(&id, KIND, "10_20").await.unwrap());
    assert!(!store.exists(&id, KIND).await.unwrap());
    assert!(files(&dir).is_empty());
}

#[tokio::test]
async fn a_shard_permit_waits_until_one_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let first = store.acquire_shard_permit(&artifact("1")).await;
    let _second = store.acquire_shard_permit(&artifact("2")).await;
    let three = artifact("3");
    let third = store.acquire_shard_permit(&three);
    tokio::pin!(third);
    assert!(tokio::time::timeout(SHORT, &mut third).await.is_err(), "execution is two shards ahead");
    drop(first);
    let _third = tokio::time::timeout(LONG, third).await.expect("a shard was proved");
    assert_eq!(store.free_permits(), 0);
}

#[test]
fn a_store_starts_empty_whatever_an_earlier_process_left() {
    let dir = tempfile::tempdir().unwrap();
    store(&dir).put("old", b"old").unwrap();
    let store = store(&dir);
    assert!(store.is_empty() && files(&dir).is_empty());
}

fn request(inputs: &[&str], outputs: &[&str]) -> RawTaskRequest {
    let list = |ids: &[&str]| ids.iter().map(|id| artifact(id)).collect();
    let context = TaskContext {
        proof_id: ProofId::new("proof"),
        parent_id: None,
        parent_context: None,
        requester_id: RequesterId::new("test"),
    };
    RawTaskRequest { inputs: list(inputs), outputs: list(outputs), context }
}

fn fill(store: &DiskStore, ids: [&str; 3], record: &TraceData) {
    store.put(ids[0], b"elf").unwrap();
    store.put(ids[1], b"common").unwrap();
    store.put(ids[2], &bincode::serialize(record).unwrap()).unwrap();
}

#[test]
fn a_finished_shard_is_found_again_by_content_with_the_events_it_deferred() {
    let dir = tempfile::tempdir().unwrap();
    let memo = std::sync::Arc::new(Memo::open(dir.path(), "job").unwrap());
    let first = DiskStore::open(dir.path().join("first"), 1).unwrap();
    let record = TraceData::Core(vec![7; 2 << 20]);
    fill(&first, ["elf", "common", "record"], &record);
    let task = request(&["elf", "common", "record", "marker"], &["proof", "deferred"]);
    let key = memo.key(TaskType::ProveShard, &task, &first).unwrap();
    assert!(!memo.restore(&key, &task, &first), "nothing is kept yet");
    first.put("keccak events", b"thirty permutations").unwrap();
    let mut events = DeferredEvents::empty();
    let slice = PrecompileArtifactSlice { artifact: artifact("keccak events"), start_idx: 0, end_idx: 30 };
    events.0.insert(SyscallCode::KECCAK_PERMUTE, vec![slice]);
    let events = bincode::serialize(&events).unwrap();
    first.put("deferred", &events).unwrap();
    memo.note_deferred("deferred", &events, &first);
    first.put("proof", b"shard proof").unwrap();
    memo.keep_task(&key, &task, &first);
    first.clear();

    // Another process: other ids, same content.
    let memo = Memo::open(dir.path(), "job").unwrap();
    let second = DiskStore::open(dir.path().join("second"), 1).unwrap();
    fill(&second, ["elf 2", "common 2", "record 2"], &record);
    let task = request(&["elf 2", "common 2", "record 2", "marker 2"], &["proof 2", "deferred 2"]);
    assert_eq!(memo.key(TaskType::ProveShard, &task, &second).unwrap(), key);
    assert!(memo.restore(&key, &task, &second));
    assert_eq!(second.get("proof 2").unwrap(), b"shard proof");
    let events: DeferredEvents = bincode::deserialize(&second.get("deferred 2").unwrap()).unwrap();
    let slice = &events.0[&SyscallCode::KECCAK_PERMUTE][0];
    assert_eq!((slice.start_idx, slice.end_idx), (0, 30));
    assert_eq!(second.get(&slice.artifact.0).unwrap(), b"thirty permutations");
}

#[test]
fn another_record_is_another_task() {
    let dir = tempfile::tempdir().unwrap();
    let memo = Memo::open(dir.path(), "job").unwrap();
    let store = store(&dir);
    let task = request(&["elf", "common", "record", "marker"], &["proof", "deferred"]);
    fill(&store, ["elf", "common", "record"], &TraceData::Core(vec![1]));
    let one = memo.key(TaskType::ProveShard, &task, &store).unwrap();
    fill(&store, ["elf", "common", "record"], &TraceData::Core(vec![2]));
    assert_ne!(memo.key(TaskType::ProveShard, &task, &store).unwrap(), one);
    store.remove("record");
    assert!(memo.key(TaskType::ProveShard, &task, &store).is_none(), "an input is gone");
}

#[test]
fn a_damaged_memo_is_not_used_and_a_discarded_one_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let memo = Memo::open(dir.path(), "job").unwrap();
    let store = store(&dir);
    store.put("left", b"left").unwrap();
    store.put("out", b"reduced").unwrap();
    let task = request(&["false", "{range}", "left"], &["out"]);
    let key = memo.key(TaskType::RecursionReduce, &task, &store).unwrap();
    memo.keep_task(&key, &task, &store);
    assert_eq!(memo.len(), 1);
    assert!(memo.restore(&key, &task, &store));
    let folder = dir.path().join("shards").join("job");
    let bin = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().unwrap() == "bin");
    std::fs::remove_file(bin.as_ref().unwrap()).unwrap();
    std::fs::write(bin.unwrap(), b"Reduced").unwrap();
    assert!(!memo.restore(&key, &task, &store));
    memo.discard();
    assert!(memo.is_empty() && !folder.exists());
}

#[test]
fn an_entry_of_another_process_names_no_file_outside_the_memo() {
    let dir = tempfile::tempdir().unwrap();
    let memo = Memo::open(dir.path(), "job").unwrap();
    let store = store(&dir);
    store.put("left", b"left").unwrap();
    let task = request(&["false", "{range}", "left"], &["out"]);
    let key = memo.key(TaskType::RecursionReduce, &task, &store).unwrap();
    let victim = dir.path().join("victim.bin");
    std::fs::write(&victim, b"somebody's").unwrap();
    let content = blake3::hash(b"reduced").to_hex();
    for (hash, file) in [
        (content.as_str(), victim.to_str().unwrap()),
        ("../../victim", "x"),
        (victim.with_extension("").to_str().unwrap(), "x"),
    ] {
        let entry = dir.path().join("entry.json");
        std::fs::write(
            &entry,
            format!(r#"{{"proof":{{"file":"{file}","blake3":"{hash}"}},"deferred":null}}"#),
        )
        .unwrap();
        memo.accept(&key.to_string(), &[entry]).unwrap();
        assert!(!memo.restore(&key, &task, &store), "{hash}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"somebody's", "{hash}");
    }
}
