//! The prover engine: the zkVM's provers in this process, on a memory budget.
//!
//! One engine per process: its recursion programs and tables take gigabytes. All methods block; the engine owns its
//! runtime. A program's execution is never more than [`Settings::shards_ahead`] shards ahead of proving, artifacts are on
//! disk and deleted as they are consumed, so memory does not grow with the length of an execution.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::Digest;
use sp1_core_executor::Program;
use sp1_core_machine::io::SP1Stdin;
use sp1_hypercube::SP1VerifyingKey;
use sp1_prover::worker::{ProofId, RawTaskRequest, TaskError, WorkerClient};
use sp1_prover::SP1CoreProofData;
use sp1_prover_types::network_base_types::ProofMode;
use sp1_prover_types::{Artifact, TaskStatus, TaskType};
use sp1_verifier::{ProofFromNetwork, SP1Proof};

use crate::device::{self, Device};
use crate::error::WorkerError;
use crate::memo::Memo;
use crate::node::{self, program_vk, Node, ReferenceTimes};
use crate::part::{self, context, PartKind, Parts};
use crate::progress::Reporter;
use crate::proof::{CompressedProof, CoreProof, OuterProof, ProgramKey, WrapProof};
use crate::queue::{panic_message, LocalQueue};
use crate::settings::{EngineConfig, Settings, ShardSize};
use crate::store::{write_atomic, DiskStore};
use crate::verify;

/// How often progress is looked at.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);
/// Stack of the runtime's threads; the recursion compiler recurses deeply.
const STACK_BYTES: usize = 64 << 20;

/// How far to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// One proof for each shard.
    Core,
    /// One recursion proof in all.
    #[default]
    Compressed,
}

/// What a program is given.
#[derive(Clone, Default)]
pub struct ProveInput {
    /// The chunks that the guest reads one after the other.
    pub stdin: Vec<Vec<u8>>,
    /// Proofs that the guest verifies, in the order of its calls to `verify_sp1_proof`.
    pub deferred: Vec<CompressedProof>,
}

impl ProveInput {
    fn to_stdin(&self) -> SP1Stdin {
        let mut stdin = SP1Stdin::new();
        stdin.buffer.clone_from(&self.stdin);
        for proof in &self.deferred {
            stdin.write_proof(proof.proof.clone(), proof.vk.vk.clone());
        }
        stdin
    }
}

/// What an execution without proof tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionSummary {
    /// Cycles run.
    pub cycles: u64,
    /// Bytes the program committed to.
    pub public_values: Vec<u8>,
    /// Calls by syscall name, those that occur.
    pub syscalls: BTreeMap<String, u64>,
}

impl ExecutionSummary {
    /// How large the shards of a proof of this execution may be.
    pub fn shard_size(&self) -> ShardSize {
        ShardSize::of(self.cycles, self.syscalls.iter().map(|(name, count)| (name.as_str(), *count)))
    }
}

/// A proof of either depth.
#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "made once for each proof, never in bulk")]
pub enum Proof {
    /// See [`Until::Core`].
    Core(CoreProof),
    /// See [`Until::Compressed`].
    Compressed(CompressedProof),
}

/// A part of another engine's proof, proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvedPart {
    /// The key its controller knows it by.
    pub key: String,
    /// What it was.
    pub kind: PartKind,
    /// The result's files, the entry first.
    pub files: Vec<PathBuf>,
}

/// The zkVM's provers in this process.
pub struct Engine {
    runtime: Arc<tokio::runtime::Runtime>,
    node: Arc<Node>,
    device: Device,
    store: DiskStore,
    queue: LocalQueue,
    settings: Settings,
    cache_dir: PathBuf,
    proofs: AtomicU64,
    _work_dir: WorkDir,
}

/// A folder of this process, deleted with the engine.
struct WorkDir(PathBuf);

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl WorkDir {
    /// Makes a folder for this process and deletes those of processes that are gone.
    fn create(parent: &Path) -> Result<Self, WorkerError> {
        std::fs::create_dir_all(parent).map_err(WorkerError::io("create", parent))?;
        for entry in std::fs::read_dir(parent).map_err(WorkerError::io("read", parent))?.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|n| n.strip_prefix("engine-")) else { continue };
            if Path::new("/proc/self").exists() && !Path::new("/proc").join(pid).exists() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self(parent.join(format!("engine-{}", std::process::id()))))
    }
}

impl Engine {
    /// Starts the engine: compiles the recursion programs (about half a minute on two cores).
    ///
    /// # Errors
    /// [`WorkerError::TooLittleMemory`], [`WorkerError::Io`], or [`WorkerError::Internal`].
    pub fn start(config: &EngineConfig, reporter: &Reporter) -> Result<Self, WorkerError> {
        Self::start_sized(config, ShardSize::Any, reporter)
    }

    /// As [`Self::start`], for executions of one size only.
    ///
    /// # Errors
    /// As there.
    pub fn start_sized(
        config: &EngineConfig,
        size: ShardSize,
        reporter: &Reporter,
    ) -> Result<Self, WorkerError> {
        let device = Device::of_process()?;
        let settings = Settings::for_machine(config)?.sized(size).on(device, config);
        Self::start_with(config, (settings, device), None, reporter)
    }

    /// Starts an engine that executes, and has at most `width` parts at once proved by others.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_controller(
        config: &EngineConfig,
        size: ShardSize,
        parts: Arc<dyn Parts>,
        width: usize,
        reporter: &Reporter,
    ) -> Result<Self, WorkerError> {
        let settings = Settings::for_machine(config)?.sized(size).delegating(width);
        // It executes: whoever has a GPU proves.
        Self::start_with(config, (settings, Device::Cpu), Some(parts), reporter)
    }

    fn start_with(
        config: &EngineConfig,
        (settings, device): (Settings, Device),
        parts: Option<Arc<dyn Parts>>,
        reporter: &Reporter,
    ) -> Result<Self, WorkerError> {
        reporter.report("start node", 0, 1);
        let work_dir = WorkDir::create(&config.work_dir)?;
        let store = DiskStore::open(work_dir.0.join("artifacts"), settings.shards_ahead)?;
        let queue = LocalQueue::new(settings.queue_depth);
        let runtime = Arc::new(runtime()?);
        let part_dir = work_dir.0.join("parts");
        let start = Node::start(
            (&settings, device),
            &config.cache_dir,
            part_dir,
            store.clone(),
            queue.clone(),
            parts,
        );
        let node = Arc::new(runtime.block_on(start)?);
        if device != Device::Cpu {
            // What lies on a GPU lasts as long as the process, and so must everything that refers to it.
            std::mem::forget((runtime.clone(), node.clone()));
        }
        reporter.report("start node", 1, 1);
        let cache_dir = config.cache_dir.clone();
        let proofs = AtomicU64::new(0);
        Ok(Self { runtime, node, device, store, queue, settings, cache_dir, proofs, _work_dir: work_dir })
    }

    /// The settings in use.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What proves.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The artifact store, for tests and reports.
    pub fn store(&self) -> &DiskStore {
        &self.store
    }

    /// A program's verifying key, from the cache or computed.
    ///
    /// # Errors
    /// As [`program_key`].
    pub fn setup(&self, elf: &[u8]) -> Result<ProgramKey, WorkerError> {
        self.runtime.block_on(program_key_async(&self.settings, &self.cache_dir, elf))
    }

    /// Runs a program without proving it.
    ///
    /// # Errors
    /// As [`execute`].
    pub fn execute(&self, elf: &[u8], input: &ProveInput) -> Result<ExecutionSummary, WorkerError> {
        self.runtime.block_on(execute_async(&self.settings, elf, input))
    }

    /// Proves an execution and verifies the proof.
    ///
    /// Shards that an earlier, interrupted call with the same arguments finished are not proved again.
    ///
    /// # Errors
    /// [`WorkerError::Task`] if a proving task failed for good, [`WorkerError::Verify`] if the finished proof does not
    /// verify ([`WorkerError::GpuWrong`] if a GPU has made it), [`WorkerError::GuestExit`] if the guest rejected its input.
    pub fn prove(
        &self,
        elf: &[u8],
        key: &ProgramKey,
        input: &ProveInput,
        until: Until,
        reporter: &Reporter,
    ) -> Result<Proof, WorkerError> {
        let job = self.job_id(elf, input, until)?;
        let memo = Arc::new(Memo::open(&self.cache_dir, &job)?);
        if !memo.is_empty() {
            tracing::info!(tasks = memo.len(), "resuming: finished tasks of an earlier run will be reused");
        }
        self.node.set_memo(Some(memo.clone()));
        let result = self.prove_and_verify(elf, key, input, until, reporter);
        self.node.set_memo(None);
        self.store.clear();
        let is_over = match &result {
            Ok(_) => true,
            Err(error) => matches!(
                error,
                WorkerError::Verify { .. } | WorkerError::GpuWrong { .. } | WorkerError::GuestExit { .. }
            ),
        };
        if is_over {
            memo.discard();
        }
        result
    }

    fn prove_and_verify(
        &self,
        elf: &[u8],
        key: &ProgramKey,
        input: &ProveInput,
        until: Until,
        reporter: &Reporter,
    ) -> Result<Proof, WorkerError> {
        let (proof, shards) = self.runtime.block_on(self.run_controller(elf, key, input, until, reporter))?;
        let (network, cycles) = proof;
        let public_values = network.public_values.to_vec();
        let vk = key.vk.clone();
        reporter.report("verify", 0, 1);
        let proof = match network.proof {
            SP1Proof::Core(shards) => {
                let proof = CoreProof { proof: SP1CoreProofData(shards), vk, public_values, cycles };
                device::verified(self.device, verify::core_proof(&proof))?;
                Proof::Core(proof)
            }
            SP1Proof::Compressed(proof) => {
                let proof = CompressedProof { proof: *proof, vk, public_values, cycles, shards };
                device::verified(self.device, verify::compressed_proof(&proof, &key.words()))?;
                Proof::Compressed(proof)
            }
            _ => return Err(WorkerError::internal("the controller returned another kind of proof")),
        };
        reporter.report("verify", 1, 1);
        Ok(proof)
    }

    async fn run_controller(
        &self,
        elf: &[u8],
        key: &ProgramKey,
        input: &ProveInput,
        until: Until,
        reporter: &Reporter,
    ) -> Result<((ProofFromNetwork, u64), u32), WorkerError> {
        let proof_id = ProofId::new(format!("proof_{}", self.proofs.fetch_add(1, Ordering::Relaxed)));
        let program = format!("elf_{}", hex::encode(key.elf_sha256));
        let vk = bincode::serialize(&key.vk).map_err(WorkerError::internal)?;
        self.node.know_key(program.clone(), vk);
        self.put(&program, &elf.to_vec())?;
        let stdin = format!("{proof_id}_stdin");
        self.put(&stdin, &input.to_stdin())?;
        let output = format!("{proof_id}_output");
        let mode = match until {
            Until::Core => ProofMode::Core,
            Until::Compressed => ProofMode::Compressed,
        };
        let request = RawTaskRequest {
            inputs: vec![Artifact(program), Artifact(stdin), Artifact((mode as i32).to_string())],
            outputs: vec![Artifact(output.clone())],
            context: context(&proof_id),
        };
        let controller = tokio::spawn(self.node.control(request));
        let result = self.follow(controller, &proof_id, reporter).await;
        let shards = self.queue.count(&proof_id, TaskType::ProveShard).submitted;
        let failure = self.queue.first_failure(&proof_id);
        self.queue.release(&proof_id);
        let execution = result.map_err(|error| match failure {
            Some(reason) => device::failed(self.device, reason),
            None => self.explain(error),
        })?;
        let network: ProofFromNetwork = self.take(&output)?;
        Ok(((network, execution.cycles), u32::try_from(shards).unwrap_or(u32::MAX)))
    }

    /// Reports progress until the controller ends.
    async fn follow<T>(
        &self,
        mut controller: tokio::task::JoinHandle<Result<T, TaskError>>,
        proof_id: &ProofId,
        reporter: &Reporter,
    ) -> Result<T, WorkerError> {
        let mut last = None;
        loop {
            let now = self.progress(proof_id);
            if last.as_ref() != Some(&now) {
                reporter.report(now.0, now.1, now.2);
                last = Some(now);
            }
            match tokio::time::timeout(PROGRESS_PERIOD, &mut controller).await {
                Err(_) => {}
                Ok(ended) => return flatten(ended),
            }
        }
    }

    fn progress(&self, proof: &ProofId) -> (&'static str, u64, u64) {
        let count = |kind| self.queue.count(proof, kind);
        let (shards, deferred) = (count(TaskType::ProveShard), count(TaskType::RecursionDeferred));
        let reduce = count(TaskType::RecursionReduce);
        let executed = count(TaskType::CoreExecute);
        let done = shards.succeeded + deferred.succeeded;
        let total = shards.submitted + deferred.submitted;
        if executed.succeeded > 0 && done == total && total > 0 {
            ("reduce", reduce.succeeded, reduce.submitted.max(1))
        } else if total == 0 {
            ("execute", 0, 0)
        } else {
            ("prove shards", done, total)
        }
    }

    /// Verifies a compressed proof of the program with digest `program`.
    ///
    /// # Errors
    /// As [`verify::compressed_proof`].
    pub fn verify_compressed(&self, proof: &CompressedProof, program: &[u32; 8]) -> Result<(), WorkerError> {
        verify::compressed_proof(proof, program)
    }

    /// Shrinks and wraps a compressed proof, and verifies the result.
    ///
    /// # Errors
    /// [`WorkerError::Task`] if proving failed, [`WorkerError::Verify`] or [`WorkerError::GpuWrong`] if the wrap proof does not verify.
    pub fn wrap(&self, proof: &CompressedProof, reporter: &Reporter) -> Result<WrapProof, WorkerError> {
        reporter.report("shrink and wrap", 0, 1);
        let number = self.proofs.fetch_add(1, Ordering::Relaxed);
        let proof_id = ProofId::new(format!("wrap_{number}"));
        let (input, output) = (format!("wrap_{number}_input"), format!("wrap_{number}_output"));
        self.put(&input, &proof.proof)?;
        let request = RawTaskRequest {
            inputs: vec![Artifact(input)],
            outputs: vec![Artifact(output.clone())],
            context: context(&proof_id),
        };
        let work = self.node.shrink_wrap(request);
        let wrapped: Result<OuterProof, WorkerError> = self
            .runtime
            .block_on(async move { flatten(tokio::spawn(work).await) })
            .map_err(|error| self.explain(error))
            .and_then(|_| self.take(&output));
        self.store.clear();
        let wrapped = WrapProof { proof: wrapped? };
        device::verified(self.device, verify::wrap_proof(&wrapped, &proof.vk))?;
        reporter.report("shrink and wrap", 1, 1);
        Ok(wrapped)
    }

    /// Proves one part of another engine's proof; `files`: the header, then the pieces it names.
    ///
    /// Returns the result's files in `output`, the entry first, ready for [`crate::part::Parts::prove`] to return.
    ///
    /// # Errors
    /// [`WorkerError::Decode`] or [`WorkerError::ContentMismatch`] for a part that is damaged or of another version,
    /// [`WorkerError::Task`] if proving failed.
    pub fn prove_part(
        &self,
        files: &[PathBuf],
        output: &Path,
        reporter: &Reporter,
    ) -> Result<ProvedPart, WorkerError> {
        reporter.report("prove part", 0, 1);
        let proof = ProofId::new(format!("part_{}", self.proofs.fetch_add(1, Ordering::Relaxed)));
        let memo = Arc::new(Memo::at(output.to_owned())?);
        self.node.set_memo(Some(memo.clone()));
        let result = self.runtime.block_on(self.run_part(files, &proof));
        self.node.set_memo(None);
        let failure = self.queue.first_failure(&proof);
        self.queue.release(&proof);
        self.store.clear();
        let (key, kind) = result.map_err(|error| match failure {
            Some(reason) => device::failed(self.device, reason),
            None => self.explain(error),
        })?;
        let files = memo.files(&key).ok_or_else(|| WorkerError::Task {
            reason: format!("the part's key {key} is not that of its inputs"),
        })?;
        reporter.report("prove part", 1, 1);
        Ok(ProvedPart { key, kind, files })
    }

    async fn run_part(&self, files: &[PathBuf], proof: &ProofId) -> Result<(String, PartKind), WorkerError> {
        let mut part = part::unpack(files, proof, &self.store).await?;
        let marker = RawTaskRequest { inputs: vec![], outputs: vec![], context: context(proof) };
        if let Some(place) = part.marker {
            let id = self.queue.submit_task(TaskType::MarkerDeferredRecord, marker).await;
            part.request.inputs[place] = Artifact(id.map_err(WorkerError::internal)?.to_string());
        }
        let id = self.queue.submit_task(part.kind.task(), part.request).await;
        let status = self.queue.ended(&id.map_err(WorkerError::internal)?).await;
        if status == TaskStatus::Succeeded {
            Ok((part.key, part.kind))
        } else {
            Err(WorkerError::Task { reason: "the part was not proved".to_owned() })
        }
    }

    /// An error of a task, or that of the GPU if that is the reason.
    fn explain(&self, error: WorkerError) -> WorkerError {
        match error {
            WorkerError::Task { reason } | WorkerError::Panicked { reason } if self.device != Device::Cpu => {
                device::failed(self.device, reason)
            }
            error => error,
        }
    }

    fn job_id(&self, elf: &[u8], input: &ProveInput, until: Until) -> Result<String, WorkerError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(blake3::hash(elf).as_bytes());
        hasher.update(&[until as u8]);
        // Other shards have other records; their entries would never be found.
        hasher.update(format!("{:?}", self.settings).as_bytes());
        let stdin = bincode::serialize(&input.to_stdin()).map_err(WorkerError::internal)?;
        hasher.update(&stdin);
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn put<T: Serialize>(&self, id: &str, value: &T) -> Result<(), WorkerError> {
        let bytes = bincode::serialize(value).map_err(WorkerError::internal)?;
        self.store.put(id, &bytes).map(drop)
    }

    fn take<T: serde::de::DeserializeOwned>(&self, id: &str) -> Result<T, WorkerError> {
        let bytes = self.store.get(id)?;
        self.store.remove(id);
        bincode::deserialize(&bytes)
            .map_err(|e| WorkerError::Decode { what: "artifact", reason: e.to_string() })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// A program's verifying key, from the cache or computed. Needs no engine.
///
/// # Errors
/// [`WorkerError::Program`] if the ELF does not load.
pub fn program_key(config: &EngineConfig, elf: &[u8]) -> Result<ProgramKey, WorkerError> {
    let settings = Settings::for_machine(config)?;
    runtime()?.block_on(program_key_async(&settings, &config.cache_dir, elf))
}

/// Runs a program without proving it. Needs no engine.
///
/// # Errors
/// [`WorkerError::Program`] if the ELF does not load, [`WorkerError::GuestExit`] if the guest rejected its input,
/// [`WorkerError::Execution`] for every other way to fail, a deferred proof that does not verify among them.
pub fn execute(
    config: &EngineConfig,
    elf: &[u8],
    input: &ProveInput,
) -> Result<ExecutionSummary, WorkerError> {
    let settings = Settings::for_machine(config)?;
    runtime()?.block_on(execute_async(&settings, elf, input))
}

/// Proves each input with the zkVM's own prover for one machine, on this process's GPU: for comparisons.
///
/// Needs no engine, and must be in a process without one: what it puts on the GPU stays there until the process ends.
///
/// # Errors
/// [`WorkerError::Gpu`] in a build without CUDA or where there is no GPU to prove on, [`WorkerError::Task`] with that prover's reason.
pub fn reference(elf: &[u8], inputs: &[ProveInput]) -> Result<ReferenceTimes, WorkerError> {
    let runtime = runtime()?;
    let times = match Device::of_process()? {
        Device::Cpu => Err(WorkerError::Gpu { reason: "there is none to compare on".to_owned() }),
        Device::Gpu { .. } => {
            let inputs = inputs.iter().map(ProveInput::to_stdin).collect();
            runtime.block_on(node::reference(elf.to_vec(), inputs))
        }
    };
    // What lies on a GPU lasts as long as the process.
    std::mem::forget(runtime);
    times
}

async fn program_key_async(
    settings: &Settings,
    cache_dir: &Path,
    elf: &[u8],
) -> Result<ProgramKey, WorkerError> {
    let elf_sha256: [u8; 32] = sha2::Sha256::digest(elf).into();
    let dir = cache_dir.join("keys").join("guest");
    let name = format!("{}-{}.vk", sp1_prover::SP1_CIRCUIT_VERSION.trim(), hex::encode(elf_sha256));
    let path = dir.join(name);
    if let Some(vk) = read_hashed::<SP1VerifyingKey>(&path) {
        return Ok(ProgramKey { elf_sha256, vk });
    }
    let program = load(elf)?;
    let vk = tokio::spawn(program_vk(settings, program))
        .await
        .map_err(|e| WorkerError::Panicked { reason: panic_message(e) })?;
    let key = ProgramKey { elf_sha256, vk: SP1VerifyingKey { vk } };
    std::fs::create_dir_all(&dir).map_err(WorkerError::io("create", &dir))?;
    write_hashed(&path, &key.vk)?;
    Ok(key)
}

async fn execute_async(
    settings: &Settings,
    elf: &[u8],
    input: &ProveInput,
) -> Result<ExecutionSummary, WorkerError> {
    let program = load(elf)?;
    let (public_values, report) = tokio::spawn(node::execute(settings, program, input.to_stdin()))
        .await
        .map_err(|e| WorkerError::Panicked { reason: panic_message(e) })?
        .map_err(|e| WorkerError::Execution { reason: format!("{e:#}") })?;
    if report.exit_code != 0 {
        return Err(WorkerError::GuestExit { code: u32::try_from(report.exit_code).unwrap_or(u32::MAX) });
    }
    let syscalls = report
        .syscall_counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(code, count)| (code.to_string(), *count))
        .collect();
    Ok(ExecutionSummary { cycles: report.total_instruction_count(), public_values, syscalls })
}

fn load(elf: &[u8]) -> Result<Arc<Program>, WorkerError> {
    Program::from(elf).map(Arc::new).map_err(|e| WorkerError::Program { reason: e.to_string() })
}

fn runtime() -> Result<tokio::runtime::Runtime, WorkerError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("assay-worker")
        .thread_stack_size(STACK_BYTES)
        .build()
        .map_err(WorkerError::io("start", "tokio runtime"))
}

fn flatten<T>(ended: Result<Result<T, TaskError>, tokio::task::JoinError>) -> Result<T, WorkerError> {
    match ended {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(TaskError::Execution(error))) => Err(WorkerError::Execution { reason: error.to_string() }),
        Ok(Err(TaskError::Fatal(error) | TaskError::Retryable(error))) => {
            Err(WorkerError::Task { reason: format!("{error:#}") })
        }
        Err(error) if error.is_panic() => Err(WorkerError::Panicked { reason: panic_message(error) }),
        Err(_) => Err(WorkerError::Cancelled),
    }
}

/// Reads a file that begins with the BLAKE3 hash of the rest; `None` if it is absent or damaged.
fn read_hashed<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = std::fs::read(path).ok()?;
    let (hash, body) = bytes.split_at_checked(blake3::OUT_LEN)?;
    if blake3::hash(body).as_bytes() != hash {
        return None;
    }
    bincode::deserialize(body).ok()
}

fn write_hashed<T: Serialize>(path: &Path, value: &T) -> Result<(), WorkerError> {
    let body = bincode::serialize(value).map_err(WorkerError::internal)?;
    let mut bytes = blake3::hash(&body).as_bytes().to_vec();
    bytes.extend_from_slice(&body);
    write_atomic(path, &bytes)
}
