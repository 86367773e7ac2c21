//! Proving keys on a memory budget.
//!
//! The crate keeps the proving keys of every recursion program in memory for the life of a node (about a gigabyte each)
//! and recomputes the core program's key for every shard. [`BoundedKeys`] wraps any [`AirProver`] and keeps only the
//! last few keys used, whichever they are; the others are recomputed when needed. What only depends on a program (its
//! verifying key and table heights) is kept on disk, so that a node starts without committing to any program.
//!
//! A wrong entry on disk cannot lead to a wrong proof: a verifying key enters every proof, and verification compares it
//! with the release's table of allowed keys.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use slop_challenger::IopCtx;
use sp1_hypercube::prover::{
    AirProver, PcsProof, PreprocessedData, Program, ProverPermit, ProverSemaphore, ProvingKey, Record,
};
use sp1_hypercube::{Machine, MachineVerifyingKey, ShardContext, ShardProof};
use sp1_primitives::SP1Field;
use sp1_prover::SP1_CIRCUIT_VERSION;
use sp1_recursion_executor::RecursionProgram;

use crate::store::write_atomic;

/// Changes with the layout of the files.
const KEY_FILE_VERSION: u32 = 1;

/// A program that can be told from every other.
pub trait ProgramId: Send + Sync + 'static {
    /// A hash of the whole program, or `None` if its keys are not kept on disk.
    fn id(&self) -> Option<blake3::Hash>;
}

impl ProgramId for RecursionProgram<SP1Field> {
    fn id(&self) -> Option<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(SP1_CIRCUIT_VERSION.as_bytes());
        let mut writer = std::io::BufWriter::with_capacity(1 << 20, &mut hasher);
        bincode::serialize_into(&mut writer, self).ok()?;
        drop(writer);
        Some(hasher.finalize())
    }
}

impl ProgramId for sp1_core_executor::Program {
    /// Keys of guest programs are kept by `assay-worker`, under the ELF's hash.
    fn id(&self) -> Option<blake3::Hash> {
        None
    }
}

/// Stands for a proving key that may have to be recomputed.
pub struct LazyKey<P> {
    program: Arc<P>,
    heights: BTreeMap<String, usize>,
}

/// What the disk keeps of a recursion program's key.
#[derive(Serialize, Deserialize)]
#[serde(bound(
    serialize = "MachineVerifyingKey<GC>: Serialize",
    deserialize = "MachineVerifyingKey<GC>: Deserialize<'de>"
))]
struct KeyFile<GC: IopCtx> {
    version: u32,
    vk: MachineVerifyingKey<GC>,
    heights: BTreeMap<String, usize>,
}

/// Which key an entry of the memory cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CacheKey {
    /// By the address of a program that the entry keeps alive.
    Program(usize),
    /// By the verifying key.
    Vk(blake3::Hash),
}

struct Cached<GC: IopCtx, SC: ShardContext<GC>, P: AirProver<GC, SC>> {
    key: CacheKey,
    /// Keeps the address in `key` from being reused.
    _program: Arc<Program<GC, SC>>,
    pk: Arc<ProvingKey<GC, SC, P>>,
}

/// An [`AirProver`] that keeps at most `capacity` proving keys in memory.
pub struct BoundedKeys<GC: IopCtx, SC: ShardContext<GC>, P: AirProver<GC, SC>> {
    inner: P,
    cached: Mutex<VecDeque<Cached<GC, SC, P>>>,
    capacity: usize,
    dir: Option<PathBuf>,
}

impl<GC, SC, P> BoundedKeys<GC, SC, P>
where
    GC: IopCtx,
    SC: ShardContext<GC>,
    P: AirProver<GC, SC>,
    Program<GC, SC>: ProgramId,
    MachineVerifyingKey<GC>: Serialize + serde::de::DeserializeOwned,
{
    /// Wraps `inner`. Verifying keys are kept in `dir` if one is given and can be created.
    pub fn new(inner: P, capacity: usize, dir: Option<PathBuf>) -> Self {
        let dir = dir.filter(|dir| match std::fs::create_dir_all(dir) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "keys will not be kept on disk");
                false
            }
        });
        Self { inner, cached: Mutex::default(), capacity: capacity.max(1), dir }
    }

    fn cached(&self, key: &CacheKey) -> Option<Arc<ProvingKey<GC, SC, P>>> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let position = cached.iter().position(|entry| entry.key == *key)?;
        let entry = cached.remove(position)?;
        let pk = entry.pk.clone();
        cached.push_front(entry);
        Some(pk)
    }

    /// Makes room before a key is computed, so that at most `capacity` are ever alive here.
    fn make_room(&self) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.truncate(self.capacity - 1);
    }

    fn keep(&self, key: CacheKey, program: Arc<Program<GC, SC>>, pk: Arc<ProvingKey<GC, SC, P>>) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.push_front(Cached { key, _program: program, pk });
        cached.truncate(self.capacity);
    }

    /// The proving key of `program`, from memory or computed under a permit.
    async fn proving_key(
        &self,
        program: Arc<Program<GC, SC>>,
        vk: Option<MachineVerifyingKey<GC>>,
        permits: ProverSemaphore,
    ) -> Arc<ProvingKey<GC, SC, P>> {
        let key = cache_key(&program, vk.as_ref());
        if let Some(pk) = self.cached(&key) {
            return pk;
        }
        self.make_room();
        let (data, _) = self.inner.setup_from_vk(program.clone(), vk, permits).await;
        let pk = data.pk.clone();
        drop(data);
        self.keep(key, program, pk.clone());
        pk
    }

    fn path(&self, program: &Program<GC, SC>) -> Option<PathBuf> {
        let dir = self.dir.as_ref()?;
        Some(dir.join(format!("{}.vk", program.id()?.to_hex())))
    }

    fn load(path: &PathBuf) -> Option<KeyFile<GC>> {
        let bytes = std::fs::read(path).ok()?;
        let (hash, body) = bytes.split_at_checked(blake3::OUT_LEN)?;
        if blake3::hash(body).as_bytes() != hash {
            tracing::warn!(path = %path.display(), "key file is damaged; computing the key again");
            return None;
        }
        let file: KeyFile<GC> = bincode::deserialize(body).ok()?;
        (file.version == KEY_FILE_VERSION).then_some(file)
    }

    fn save(path: &Path, file: &KeyFile<GC>) {
        let Ok(body) = bincode::serialize(file) else { return };
        let mut bytes = blake3::hash(&body).as_bytes().to_vec();
        bytes.extend_from_slice(&body);
        if let Err(error) = write_atomic(path, &bytes) {
            tracing::warn!(%error, "key not kept on disk");
        }
    }
}

fn cache_key<GC: IopCtx, T>(program: &Arc<T>, vk: Option<&MachineVerifyingKey<GC>>) -> CacheKey
where
    MachineVerifyingKey<GC>: Serialize,
{
    match vk.and_then(|vk| bincode::serialize(vk).ok()) {
        Some(bytes) => CacheKey::Vk(blake3::hash(&bytes)),
        None => CacheKey::Program(Arc::as_ptr(program).cast::<()>() as usize),
    }
}

impl<GC, SC, P> AirProver<GC, SC> for BoundedKeys<GC, SC, P>
where
    GC: IopCtx,
    SC: ShardContext<GC>,
    P: AirProver<GC, SC>,
    Program<GC, SC>: ProgramId,
    MachineVerifyingKey<GC>: Serialize + serde::de::DeserializeOwned,
{
    type PreprocessedData = LazyKey<Program<GC, SC>>;

    fn machine(&self) -> &Machine<GC::F, SC::Air> {
        self.inner.machine()
    }

    async fn setup_from_vk(
        &self,
        program: Arc<Program<GC, SC>>,
        vk: Option<MachineVerifyingKey<GC>>,
        permits: ProverSemaphore,
    ) -> (PreprocessedData<ProvingKey<GC, SC, Self>>, MachineVerifyingKey<GC>) {
        let path = {
            let program = program.clone();
            tokio::task::block_in_place(|| self.path(&program))
        };
        let (permit, vk, heights) = match path.as_ref().and_then(Self::load) {
            Some(file) => {
                let permit = permits.acquire().await.expect("the prover semaphore is never closed");
                (permit, file.vk, file.heights)
            }
            None => {
                self.make_room();
                let (data, vk) = self.inner.setup_from_vk(program.clone(), vk, permits).await;
                let heights = P::preprocessed_table_heights(data.pk.clone()).await;
                self.keep(cache_key(&program, Some(&vk)), program.clone(), data.pk.clone());
                if let Some(path) = &path {
                    let file =
                        KeyFile { version: KEY_FILE_VERSION, vk: vk.clone(), heights: heights.clone() };
                    Self::save(path, &file);
                }
                (data.permit, vk, heights)
            }
        };
        let preprocessed_data = LazyKey { program, heights };
        let pk = Arc::new(ProvingKey { vk: vk.clone(), preprocessed_data });
        (PreprocessedData { pk, permit }, vk)
    }

    async fn setup_and_prove_shard(
        &self,
        program: Arc<Program<GC, SC>>,
        record: Record<GC, SC>,
        vk: Option<MachineVerifyingKey<GC>>,
        permits: ProverSemaphore,
    ) -> (MachineVerifyingKey<GC>, ShardProof<GC, PcsProof<GC, SC>>, ProverPermit) {
        let pk = self.proving_key(program, vk, permits.clone()).await;
        let vk = pk.vk.clone();
        let (proof, permit) = self.inner.prove_shard_with_pk(pk, record, permits).await;
        (vk, proof, permit)
    }

    async fn prove_shard_with_pk(
        &self,
        pk: Arc<ProvingKey<GC, SC, Self>>,
        record: Record<GC, SC>,
        permits: ProverSemaphore,
    ) -> (ShardProof<GC, PcsProof<GC, SC>>, ProverPermit) {
        let program = pk.preprocessed_data.program.clone();
        let key = self.proving_key(program, Some(pk.vk.clone()), permits.clone()).await;
        self.inner.prove_shard_with_pk(key, record, permits).await
    }

    async fn preprocessed_table_heights(pk: Arc<ProvingKey<GC, SC, Self>>) -> BTreeMap<String, usize> {
        pk.preprocessed_data.heights.clone()
    }
}
