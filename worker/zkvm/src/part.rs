//! A proving task as files: what a controller hands to a prover in another process.
//!
//! A part is a header (JSON) and the content of every artifact that the task reads, each named by its BLAKE3 hash. Its
//! results are an entry of a `Memo` and that entry's files, so the controller takes them as if an earlier run of its own
//! had proved the shard. Nothing in a part depends on ids of the process that wrote it, apart from names inside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sp1_prover::worker::{
    PrecompileArtifactSlice, ProofId, RawTaskRequest, RequesterId, TaskContext, TraceData,
};
use sp1_prover::SP1_CIRCUIT_VERSION;
use sp1_prover_types::{Artifact, ArtifactClient, TaskType};

use crate::error::WorkerError;
use crate::memo::{Key, Piece};
use crate::node::Hidden;
use crate::store::{write_atomic, DiskStore};

/// Changes whenever the meaning or the layout of a header changes.
const PART_VERSION: u32 = 1;
/// A header lists names and hashes only.
const HEADER_BYTES_MAX: u64 = 4 << 20;
/// Artifacts of one part.
const PIECES_MAX: usize = 4096;

/// What a part does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// Prove a shard of an execution.
    Shard,
    /// Verify a proof that the guest asked to verify.
    Deferred,
    /// Reduce recursion proofs.
    Reduce,
}

impl PartKind {
    /// The part kind of a task; `None` for tasks that stay with their controller.
    pub fn of(kind: TaskType) -> Option<Self> {
        match kind {
            TaskType::ProveShard => Some(Self::Shard),
            TaskType::RecursionDeferred => Some(Self::Deferred),
            TaskType::RecursionReduce => Some(Self::Reduce),
            _ => None,
        }
    }

    /// The zkVM's name for it.
    pub fn task(self) -> TaskType {
        match self {
            Self::Shard => TaskType::ProveShard,
            Self::Deferred => TaskType::RecursionDeferred,
            Self::Reduce => TaskType::RecursionReduce,
        }
    }
}

/// A part to be proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Hash of everything the result depends on: equal keys, equal work.
    pub key: String,
    /// What it does.
    pub kind: PartKind,
    /// The header, then the pieces it names, in a folder of their own.
    pub files: Vec<PathBuf>,
}

/// Where a controller's parts are proved.
pub trait Parts: Send + Sync {
    /// Proves a part and returns its result files: a memo's entry, then the files it names.
    ///
    /// # Errors
    /// One line, when it has failed for good: trying again and elsewhere is this method's own business.
    fn prove(&self, part: Part) -> Hidden<Result<Vec<PathBuf>, String>>;
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Input {
    /// A flag or a range, as text.
    Literal(String),
    /// An artifact.
    Artifact { id: String, piece: Piece },
    /// The task that a core shard completes when it has listed its deferred events.
    Marker,
}

/// An artifact that a record lists.
#[derive(Debug, Serialize, Deserialize)]
struct Slice {
    id: String,
    holder: String,
    piece: Piece,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    circuit: String,
    kind: PartKind,
    key: String,
    inputs: Vec<Input>,
    slices: Vec<Slice>,
    outputs: u32,
}

/// A part whose artifacts are in the store.
pub struct Unpacked {
    /// The key that the part's writer gave it.
    pub key: String,
    /// What it does.
    pub kind: PartKind,
    /// The task; input `marker` still has to be named.
    pub request: RawTaskRequest,
    /// Place of the marker among the inputs.
    pub marker: Option<usize>,
}

/// Writes a task as a part into the new folder `dir`.
///
/// # Errors
/// [`WorkerError::ArtifactMissing`], [`WorkerError::Decode`] or [`WorkerError::Io`]; the folder is then of no use.
pub(crate) fn pack(
    kind: PartKind,
    key: &Key,
    request: &RawTaskRequest,
    store: &DiskStore,
    dir: &Path,
) -> Result<Part, WorkerError> {
    std::fs::create_dir_all(dir).map_err(WorkerError::io("create", dir))?;
    let mut files = vec![dir.join("header.json")];
    let mut link = |id: &str| -> Result<Piece, WorkerError> {
        let entry = store.entry(id).ok_or_else(|| WorkerError::ArtifactMissing { id: id.to_owned() })?;
        let blake3 = entry.hash.to_hex().to_string();
        let path = dir.join(format!("{blake3}.bin"));
        if !path.exists() {
            store.link_to(id, &path)?;
            files.push(path);
        }
        Ok(Piece { blake3 })
    };
    let mut inputs = Vec::new();
    for (at, input) in request.inputs.iter().enumerate() {
        inputs.push(match store.entry(&input.0) {
            Some(_) => Input::Artifact { id: input.0.clone(), piece: link(&input.0)? },
            None if kind == PartKind::Shard && at == 3 => Input::Marker,
            None if kind == PartKind::Shard => {
                return Err(WorkerError::ArtifactMissing { id: input.0.clone() })
            }
            None => Input::Literal(input.0.clone()),
        });
    }
    let mut slices = Vec::new();
    if kind == PartKind::Shard {
        for slice in listed(&request.inputs[2].0, store)? {
            let PrecompileArtifactSlice { artifact, start_idx, end_idx } = slice;
            let holder = format!("{start_idx}_{end_idx}");
            slices.push(Slice { piece: link(&artifact.0)?, id: artifact.0, holder });
        }
    }
    let outputs = u32::try_from(request.outputs.len()).unwrap_or(u32::MAX);
    let circuit = SP1_CIRCUIT_VERSION.trim().to_owned();
    let header =
        Header { version: PART_VERSION, circuit, kind, key: key.to_string(), inputs, slices, outputs };
    let text = serde_json::to_vec(&header).map_err(WorkerError::internal)?;
    write_atomic(&files[0], &text)?;
    Ok(Part { key: key.to_string(), kind, files })
}

/// Artifacts that a shard's record lists; none if it is self-contained.
fn listed(record: &str, store: &DiskStore) -> Result<Vec<PrecompileArtifactSlice>, WorkerError> {
    let bytes = store.get(record)?;
    match bincode::deserialize::<TraceData>(&bytes) {
        Ok(TraceData::Precompile(slices, _)) => Ok(slices),
        Ok(TraceData::Core(_) | TraceData::Memory(_)) => Ok(Vec::new()),
        Err(error) => Err(WorkerError::Decode { what: "record of a shard", reason: error.to_string() }),
    }
}

/// Puts a part's artifacts into the store. `files`: the header, then the pieces in any order.
///
/// # Errors
/// [`WorkerError::Decode`] for a header that is none, is too large or of another version, or names a piece that is not
/// there; [`WorkerError::ContentMismatch`] for a piece that is another's; [`WorkerError::Io`].
pub async fn unpack(files: &[PathBuf], proof: &ProofId, store: &DiskStore) -> Result<Unpacked, WorkerError> {
    let bad = |reason: String| WorkerError::Decode { what: "part", reason };
    let (first, pieces) = files.split_first().ok_or_else(|| bad("it has no header".to_owned()))?;
    let length = std::fs::metadata(first).map_err(WorkerError::io("read", first))?.len();
    if length > HEADER_BYTES_MAX || files.len() > PIECES_MAX {
        return Err(bad(format!("{length} bytes of header and {} files are too many", files.len())));
    }
    let text = std::fs::read(first).map_err(WorkerError::io("read", first))?;
    let header: Header = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    if header.version != PART_VERSION || header.circuit != SP1_CIRCUIT_VERSION.trim() {
        return Err(bad(format!(
            "version {} of circuit {}; this program has version {PART_VERSION} of circuit {}",
            header.version,
            header.circuit,
            SP1_CIRCUIT_VERSION.trim()
        )));
    }
    let named = header.inputs.len() + header.slices.len();
    if named > PIECES_MAX || !(1..=2).contains(&header.outputs) {
        return Err(bad(format!("{named} inputs, {} outputs", header.outputs)));
    }
    let pieces = by_content(pieces)?;
    let load = |id: &str, piece: &Piece| -> Result<(), WorkerError> {
        let data = read_piece("part", &pieces, piece)?;
        store.put(id, &data).map(drop)
    };
    let (mut inputs, mut marker) = (Vec::new(), None);
    for (at, input) in header.inputs.into_iter().enumerate() {
        inputs.push(Artifact(match input {
            Input::Literal(text) => text,
            Input::Artifact { id, piece } => {
                load(&id, &piece)?;
                id
            }
            Input::Marker => {
                marker = Some(at);
                String::new()
            }
        }));
    }
    let shape_fits = match header.kind {
        PartKind::Shard => inputs.len() == 4 && marker == Some(3),
        PartKind::Deferred | PartKind::Reduce => inputs.len() >= 2 && marker.is_none(),
    };
    if !shape_fits {
        return Err(bad(format!("{} inputs do not fit its kind", inputs.len())));
    }
    for slice in header.slices {
        load(&slice.id, &slice.piece)?;
        let added = store.add_ref(&Artifact(slice.id), &slice.holder).await;
        added.map_err(WorkerError::internal)?;
    }
    let outputs = (0..header.outputs).map(|n| Artifact(format!("{proof}_output_{n}"))).collect();
    let request = RawTaskRequest { inputs, outputs, context: context(proof) };
    Ok(Unpacked { key: header.key, kind: header.kind, request, marker })
}

/// Files by the BLAKE3 of their content; what they are called does not matter.
///
/// # Errors
/// [`WorkerError::Io`].
pub(crate) fn by_content(files: &[PathBuf]) -> Result<BTreeMap<String, &Path>, WorkerError> {
    let mut found = BTreeMap::new();
    for path in files {
        let mut hasher = blake3::Hasher::new();
        let file = std::fs::File::open(path).map_err(WorkerError::io("open", path))?;
        hasher.update_reader(file).map_err(WorkerError::io("read", path))?;
        found.insert(hasher.finalize().to_hex().to_string(), path.as_path());
    }
    Ok(found)
}

/// Reads the piece of a `what` among files by content.
///
/// # Errors
/// [`WorkerError::Decode`] if it is not among them, [`WorkerError::ContentMismatch`] if it has changed since,
/// [`WorkerError::Io`].
pub(crate) fn read_piece(
    what: &'static str,
    files: &BTreeMap<String, &Path>,
    piece: &Piece,
) -> Result<Vec<u8>, WorkerError> {
    let path = files.get(&piece.blake3).ok_or_else(|| WorkerError::Decode {
        what,
        reason: format!("a file with BLAKE3 {} is not there, or damaged", piece.blake3),
    })?;
    let data = std::fs::read(path).map_err(WorkerError::io("read", path))?;
    let got = blake3::hash(&data).to_hex().to_string();
    if got != piece.blake3 {
        let (path, expected) = (path.to_path_buf(), piece.blake3.clone());
        return Err(WorkerError::ContentMismatch { path, expected, got });
    }
    Ok(data)
}

/// The context of a task of this program's own.
pub fn context(proof: &ProofId) -> TaskContext {
    TaskContext {
        proof_id: proof.clone(),
        parent_id: None,
        parent_context: None,
        requester_id: RequesterId::new("assay"),
    }
}
