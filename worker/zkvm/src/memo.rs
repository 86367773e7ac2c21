//! Finished proving tasks of unfinished proofs, kept on disk so that an interrupted proof does not prove them again.
//!
//! A task is known by the content of its inputs (BLAKE3), never by its id: ids are new in every run, and a shard of the
//! same trace is the same shard. Files are hard links to the artifact store's, so keeping them costs no copy. A memo is
//! dropped as a whole when its proof is finished, or when the finished proof does not verify.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sp1_core_executor::SyscallCode;
use sp1_prover::worker::{DeferredEvents, PrecompileArtifactSlice, RawTaskRequest, TraceData};
use sp1_prover::SP1_CIRCUIT_VERSION;
use sp1_prover_types::TaskType;

use crate::error::WorkerError;
use crate::part::{by_content, read_piece};
use crate::store::{write_atomic, DiskStore};

/// Changes whenever the meaning of a key or the layout of an entry changes.
const MEMO_VERSION: u32 = 1;

/// One file of an entry or of a part: nothing but its content, because an entry may come from another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// Hex.
    pub(crate) blake3: String,
}

impl Piece {
    /// Where a memo has it.
    ///
    /// # Errors
    /// [`WorkerError::Decode`] for what is no hash, and might lead out of the folder.
    fn path(&self, dir: &Path) -> Result<PathBuf, WorkerError> {
        let hash = blake3::Hash::from_hex(&self.blake3).map_err(|error| WorkerError::Decode {
            what: "memo entry",
            reason: format!("{:?} is no hash: {error}", self.blake3),
        })?;
        Ok(dir.join(format!("{}.bin", hash.to_hex())))
    }
}

/// Events that a core shard hands to the precompile shards.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Slice {
    code: SyscallCode,
    start: usize,
    end: usize,
    piece: Piece,
}

/// What a finished task produced.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    proof: Piece,
    /// Present for core shards only.
    deferred: Option<Vec<Slice>>,
}

/// The finished tasks of one proof.
pub struct Memo {
    dir: PathBuf,
    /// Deferred events of running shards, by the id of the artifact that lists them.
    pending: Mutex<HashMap<String, Vec<Slice>>>,
}

/// A task's place in the memo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Memo {
    /// Opens the memo of the job whose inputs hash to `job`.
    ///
    /// # Errors
    /// [`WorkerError::Io`].
    pub fn open(cache_dir: &Path, job: &str) -> Result<Self, WorkerError> {
        Self::at(cache_dir.join("shards").join(job))
    }

    /// Opens the memo in a folder.
    ///
    /// # Errors
    /// [`WorkerError::Io`].
    pub fn at(dir: PathBuf) -> Result<Self, WorkerError> {
        std::fs::create_dir_all(&dir).map_err(WorkerError::io("create", &dir))?;
        Ok(Self { dir, pending: Mutex::default() })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The files of a finished task: the entry, then what it names. `None` if it is not there.
    pub fn files(&self, key: &str) -> Option<Vec<PathBuf>> {
        let path = self.dir.join(format!("{key}.json"));
        let entry: Entry = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        let slices = entry.deferred.unwrap_or_default();
        let pieces = std::iter::once(entry.proof).chain(slices.into_iter().map(|slice| slice.piece));
        let mut files = vec![path];
        for piece in pieces {
            let path = piece.path(&self.dir).ok()?;
            if !files.contains(&path) {
                files.push(path);
            }
        }
        Some(files)
    }

    /// The proof among a finished task's files, the entry's first; its hash is checked.
    ///
    /// # Errors
    /// [`WorkerError::Decode`] for an entry that is none or whose proof is not there, [`WorkerError::Io`].
    pub fn proof_of(files: &[PathBuf]) -> Result<Vec<u8>, WorkerError> {
        let bad = |reason: String| WorkerError::Decode { what: "result of a part", reason };
        let (entry, pieces) = files.split_first().ok_or_else(|| bad("it has no entry".to_owned()))?;
        let text = std::fs::read(entry).map_err(WorkerError::io("read", entry))?;
        let Entry { proof, .. } = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        read_piece("result of a part", &by_content(pieces)?, &proof)
    }

    /// Takes over a task that another process finished: the entry's file, then those it names.
    ///
    /// Their content is checked when it is used.
    ///
    /// # Errors
    /// [`WorkerError::Decode`] without an entry, [`WorkerError::Io`].
    pub fn accept(&self, key: &str, files: &[PathBuf]) -> Result<(), WorkerError> {
        let missing = || WorkerError::Decode { what: "result of a part", reason: "it has no entry".into() };
        let (entry, pieces) = files.split_first().ok_or_else(missing)?;
        for path in pieces {
            let data = std::fs::read(path).map_err(WorkerError::io("read", path))?;
            let name = format!("{}.bin", blake3::hash(&data).to_hex());
            write_atomic(&self.dir.join(name), &data)?;
        }
        let text = std::fs::read(entry).map_err(WorkerError::io("read", entry))?;
        write_atomic(&self.dir.join(format!("{key}.json")), &text)
    }

    /// Forgets everything.
    pub fn discard(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "memo not deleted");
        }
    }

    /// Finished tasks in the memo.
    pub fn len(&self) -> usize {
        std::fs::read_dir(&self.dir).map_or(0, |entries| {
            entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "json")).count()
        })
    }

    /// Whether the memo holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of a task, or `None` if this kind is not kept or an input is gone.
    pub fn key(&self, kind: TaskType, request: &RawTaskRequest, store: &DiskStore) -> Option<Key> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&MEMO_VERSION.to_le_bytes());
        hasher.update(SP1_CIRCUIT_VERSION.as_bytes());
        hasher.update(&(kind as i32).to_le_bytes());
        let content = |id: &str| store.entry(id).map(|entry| *entry.hash.as_bytes());
        match kind {
            TaskType::ProveShard => {
                let [program, common, record, ..] = request.inputs.as_slice() else { return None };
                hasher.update(&content(&program.0)?);
                hasher.update(&content(&common.0)?);
                match precompile_slices(&record.0, store)? {
                    None => {
                        hasher.update(&content(&record.0)?);
                    }
                    Some((slices, code)) => {
                        hasher.update(&bincode::serialize(&code).ok()?);
                        for slice in slices {
                            hasher.update(&content(&slice.artifact.0)?);
                            hasher.update(&(slice.start_idx as u64).to_le_bytes());
                            hasher.update(&(slice.end_idx as u64).to_le_bytes());
                        }
                    }
                }
            }
            // Inputs are literals (flags and ranges) and artifacts in turn.
            TaskType::RecursionReduce | TaskType::RecursionDeferred => {
                for input in &request.inputs {
                    match content(&input.0) {
                        Some(hash) => hasher.update(&hash),
                        None => hasher.update(blake3::hash(input.0.as_bytes()).as_bytes()),
                    };
                }
            }
            _ => return None,
        }
        Some(Key(hasher.finalize().to_hex().to_string()))
    }

    /// Gives a task its earlier outputs. True if they were there and intact.
    ///
    /// For a core shard the deferred events come back under new ids; the caller completes the shard's marker task.
    pub fn restore(&self, key: &Key, request: &RawTaskRequest, store: &DiskStore) -> bool {
        match self.try_restore(key, request, store) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "memo entry not used");
                let _ = std::fs::remove_file(self.entry_path(key));
                false
            }
        }
    }

    fn try_restore(
        &self,
        key: &Key,
        request: &RawTaskRequest,
        store: &DiskStore,
    ) -> Result<bool, WorkerError> {
        let path = self.entry_path(key);
        let Ok(text) = std::fs::read(&path) else { return Ok(false) };
        let entry: Entry = serde_json::from_slice(&text)
            .map_err(|e| WorkerError::Decode { what: "memo entry", reason: e.to_string() })?;
        let proof = self.read_piece(&entry.proof)?;
        let Some(output) = request.outputs.first() else { return Ok(false) };
        match (&entry.deferred, request.outputs.get(1)) {
            (None, None) => {}
            (Some(slices), Some(deferred)) => self.restore_deferred(key, slices, &deferred.0, store)?,
            _ => return Ok(false),
        }
        store.put(&output.0, &proof)?;
        Ok(true)
    }

    fn restore_deferred(
        &self,
        key: &Key,
        slices: &[Slice],
        id: &str,
        store: &DiskStore,
    ) -> Result<(), WorkerError> {
        let mut events = DeferredEvents::empty();
        for (number, slice) in slices.iter().enumerate() {
            let artifact = sp1_prover_types::Artifact(format!("memo_{}_{number}", key.0));
            store.put(&artifact.0, &self.read_piece(&slice.piece)?)?;
            events.0.entry(slice.code).or_default().push(PrecompileArtifactSlice {
                artifact,
                start_idx: slice.start,
                end_idx: slice.end,
            });
        }
        let bytes = bincode::serialize(&events).map_err(WorkerError::internal)?;
        store.put(id, &bytes).map(|_| ())
    }

    /// Notes the events that a running core shard has just listed under `id`, before the controller consumes them.
    pub fn note_deferred(&self, id: &str, bytes: &[u8], store: &DiskStore) {
        let slices = (|| -> Result<Vec<Slice>, WorkerError> {
            let events: DeferredEvents = bincode::deserialize(bytes)
                .map_err(|e| WorkerError::Decode { what: "deferred events", reason: e.to_string() })?;
            let mut slices = Vec::new();
            for (code, artifacts) in events.0 {
                for PrecompileArtifactSlice { artifact, start_idx, end_idx } in artifacts {
                    let piece = self.keep(&artifact.0, store)?;
                    slices.push(Slice { code, start: start_idx, end: end_idx, piece });
                }
            }
            Ok(slices)
        })();
        match slices {
            Ok(slices) => {
                self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), slices);
            }
            Err(error) => tracing::warn!(%error, "shard will not be kept"),
        }
    }

    /// Keeps the outputs of a task that has just succeeded.
    pub fn keep_task(&self, key: &Key, request: &RawTaskRequest, store: &DiskStore) {
        let result = (|| -> Result<(), WorkerError> {
            let Some(output) = request.outputs.first() else { return Ok(()) };
            let deferred = match request.outputs.get(1) {
                None => None,
                Some(id) => {
                    let slices = self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&id.0);
                    let Some(slices) = slices else { return Ok(()) };
                    Some(slices)
                }
            };
            let entry = Entry { proof: self.keep(&output.0, store)?, deferred };
            let text = serde_json::to_vec(&entry).map_err(WorkerError::internal)?;
            write_atomic(&self.entry_path(key), &text)
        })();
        if let Err(error) = result {
            tracing::warn!(%error, "task not kept; it will be proved again after an interruption");
        }
    }

    fn keep(&self, id: &str, store: &DiskStore) -> Result<Piece, WorkerError> {
        let entry = store.entry(id).ok_or_else(|| WorkerError::ArtifactMissing { id: id.to_owned() })?;
        let piece = Piece { blake3: entry.hash.to_hex().to_string() };
        let path = piece.path(&self.dir)?;
        if !path.exists() {
            store.link_to(id, &path)?;
        }
        Ok(piece)
    }

    fn read_piece(&self, piece: &Piece) -> Result<Vec<u8>, WorkerError> {
        let path = piece.path(&self.dir)?;
        let data = std::fs::read(&path).map_err(WorkerError::io("read", &path))?;
        let got = blake3::hash(&data).to_hex().to_string();
        if got != piece.blake3 {
            let _ = std::fs::remove_file(&path);
            return Err(WorkerError::ContentMismatch { path, expected: piece.blake3.clone(), got });
        }
        Ok(data)
    }

    fn entry_path(&self, key: &Key) -> PathBuf {
        self.dir.join(format!("{}.json", key.0))
    }
}

/// `Some(None)`: the record is self-contained. `Some(Some(..))`: it lists slices of other artifacts.
#[allow(clippy::option_option, reason = "absent record, plain record and listing record are three cases")]
fn precompile_slices(
    id: &str,
    store: &DiskStore,
) -> Option<Option<(Vec<PrecompileArtifactSlice>, SyscallCode)>> {
    /// Records below this size are decoded to see whether they only list slices; a listing is a few kilobytes.
    const LISTING_BYTES_MAX: u64 = 1 << 20;
    if store.entry(id)?.len > LISTING_BYTES_MAX {
        return Some(None);
    }
    let bytes = store.get(id).ok()?;
    match bincode::deserialize::<TraceData>(&bytes).ok()? {
        TraceData::Precompile(slices, code) => Some(Some((slices, code))),
        TraceData::Core(_) | TraceData::Memory(_) => Some(None),
    }
}
