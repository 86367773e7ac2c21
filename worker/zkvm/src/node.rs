//! Runs the queue's tasks on the crate's provers: one node per process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use sp1_core_executor::{ExecutionReport, Program, SP1Context};
use sp1_core_machine::executor::ExecutionOutput;
use sp1_core_machine::io::SP1Stdin;
use sp1_hypercube::prover::ProverSemaphore;
use sp1_hypercube::MachineVerifyingKey;
use sp1_primitives::SP1GlobalContext;
use sp1_prover::worker::{
    execute_with_options, AirProverWorker, CoreExecuteTaskRequest, ProofId, RawTaskRequest,
    SP1ExecutorConfig, SP1Worker, TaskError, TaskId, TaskMetadata, WorkerClient,
};
use sp1_prover::SP1ProverComponents;
use sp1_prover_types::{ArtifactType, TaskType};
use tokio::task::JoinSet;

use crate::components;
use crate::device::Device;
use crate::error::WorkerError;
use crate::memo::{Key, Memo};
use crate::part::{self, Part, PartKind, Parts};
use crate::queue::{join_failure, outcome, Lane, LocalQueue, Task};
use crate::settings::Settings;
use crate::store::DiskStore;

/// The memo of the proof in progress, if it has one.
type CurrentMemo = Arc<RwLock<Option<Arc<Memo>>>>;

/// Verifying keys (bincode) by the id of their program's artifact: a setup task for one of them is answered at once.
type KnownKeys = Arc<RwLock<HashMap<String, Vec<u8>>>>;

/// Where this node's parts are proved, if not here.
type Delegate = Option<Arc<dyn Parts>>;

/// A future that hides the zkVM's types, so that they are compiled in this crate only.
pub type Hidden<T> = BoxFuture<'static, T>;

/// The zkVM's worker and the runners of its tasks. One per process.
pub struct Node {
    provers: Arc<dyn Provers>,
    memo: CurrentMemo,
    known_keys: KnownKeys,
    _runners: JoinSet<()>,
}

type Worker<C> = SP1Worker<DiskStore, LocalQueue, C>;

/// What a node asks of the zkVM's worker.
trait Provers: Send + Sync {
    fn control(&self, request: RawTaskRequest) -> Hidden<Result<ExecutionOutput, TaskError>>;
    fn shrink_wrap(&self, request: RawTaskRequest) -> Hidden<Result<TaskMetadata, TaskError>>;
}

impl<C: SP1ProverComponents> Provers for Worker<C> {
    fn control(&self, request: RawTaskRequest) -> Hidden<Result<ExecutionOutput, TaskError>> {
        let worker = self.clone();
        Box::pin(async move { worker.controller().run(request).await })
    }

    fn shrink_wrap(&self, request: RawTaskRequest) -> Hidden<Result<TaskMetadata, TaskError>> {
        let worker = self.clone();
        Box::pin(async move { worker.prover_engine().run_shrink_wrap(request).await })
    }
}

struct Runner<C: SP1ProverComponents> {
    worker: Worker<C>,
    memo: CurrentMemo,
    known_keys: KnownKeys,
    delegate: Delegate,
    part_dir: PathBuf,
}

impl Node {
    /// Compiles the recursion programs and starts the runners: one for execution, `provers` for proving or, with a
    /// delegate, `delegated` that wait for it. Parts for the delegate are written below `part_dir`.
    ///
    /// Must be called within a multi-threaded tokio runtime, which has to last as long as the process where it works on a GPU.
    ///
    /// # Errors
    /// [`WorkerError::Internal`] if the zkVM's worker does not start, [`WorkerError::Gpu`] if it does not on its GPU.
    pub fn start(
        (settings, device): (&Settings, Device),
        cache_dir: &Path,
        part_dir: PathBuf,
        store: DiskStore,
        queue: LocalQueue,
        delegate: Delegate,
    ) -> Hidden<Result<Self, WorkerError>> {
        let (settings, cache_dir) = (settings.clone(), cache_dir.to_owned());
        Box::pin(async move {
            match device {
                Device::Cpu => {
                    let worker = components::build(&settings, &cache_dir, store, queue)
                        .await
                        .map_err(|e| WorkerError::internal(format!("node does not start: {e:#}")))?;
                    Ok(Self::of(worker, &settings, delegate, part_dir))
                }
                #[cfg(feature = "cuda")]
                Device::Gpu { .. } => {
                    let folders = components::Folders::of(&cache_dir);
                    let worker = crate::cuda::start(&settings, folders, store, queue).await?;
                    Ok(Self::of(worker, &settings, delegate, part_dir))
                }
                #[cfg(not(feature = "cuda"))]
                Device::Gpu { .. } => Err(no_cuda()),
            }
        })
    }

    fn of<C: SP1ProverComponents>(
        worker: Worker<C>,
        settings: &Settings,
        delegate: Delegate,
        part_dir: PathBuf,
    ) -> Self {
        let (memo, known_keys) = (CurrentMemo::default(), KnownKeys::default());
        let provers = Arc::new(worker.clone());
        let runner = Arc::new(Runner {
            worker,
            memo: memo.clone(),
            known_keys: known_keys.clone(),
            delegate,
            part_dir,
        });
        let mut runners = JoinSet::new();
        let width = settings.provers.max(settings.delegated);
        let lanes = std::iter::once(Lane::Execute).chain(std::iter::repeat_n(Lane::Prove, width));
        for lane in lanes {
            runners.spawn(Arc::clone(&runner).serve(lane));
        }
        Self { provers, memo, known_keys, _runners: runners }
    }

    /// Runs the controller of a proof: inputs `[elf, stdin, mode]`, output `[proof]`, all ids in the store.
    pub fn control(&self, request: RawTaskRequest) -> Hidden<Result<ExecutionOutput, TaskError>> {
        self.provers.control(request)
    }

    /// Shrinks and wraps the recursion proof `inputs[0]` into `outputs[0]`.
    pub fn shrink_wrap(&self, request: RawTaskRequest) -> Hidden<Result<TaskMetadata, TaskError>> {
        self.provers.shrink_wrap(request)
    }

    /// Sets the memo that the tasks of the next proof use.
    pub fn set_memo(&self, memo: Option<Arc<Memo>>) {
        *self.memo.write().unwrap_or_else(PoisonError::into_inner) = memo;
    }

    /// Answers setup tasks for the program under artifact id `program` with this verifying key (bincode).
    pub fn know_key(&self, program: String, vk: Vec<u8>) {
        self.known_keys.write().unwrap_or_else(PoisonError::into_inner).insert(program, vk);
    }
}

#[cfg(not(feature = "cuda"))]
fn no_cuda() -> WorkerError {
    WorkerError::Gpu { reason: "this build has no CUDA: build it with --features cuda".to_owned() }
}

/// How long the zkVM's own prover took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReferenceTimes {
    /// Its start, the program's key included.
    pub start: Duration,
    /// All inputs to core proofs.
    pub core: Duration,
    /// After that, all inputs to one recursion proof each.
    pub compressed: Duration,
}

/// Proves each input with the zkVM's own prover for one machine, as it comes, on the GPU that this process can see; its proofs are
/// verified. Needs no node. The runtime has to last as long as the process.
///
/// # Errors
/// [`WorkerError::Gpu`] without the feature `cuda` or if the provers cannot be built, [`WorkerError::Task`] if proving fails.
pub fn reference(elf: Vec<u8>, inputs: Vec<SP1Stdin>) -> Hidden<Result<ReferenceTimes, WorkerError>> {
    #[cfg(feature = "cuda")]
    let times = crate::cuda::reference(elf, inputs);
    #[cfg(not(feature = "cuda"))]
    let times = async move {
        drop((elf, inputs));
        Err::<ReferenceTimes, _>(no_cuda())
    };
    Box::pin(times)
}

/// Runs a guest program without proving it, verifying the proofs in its input; needs no node.
///
/// Returns the bytes it committed to and the report of its execution.
pub fn execute(
    settings: &Settings,
    program: Arc<Program>,
    stdin: SP1Stdin,
) -> Hidden<anyhow::Result<(Vec<u8>, ExecutionReport)>> {
    let mut opts = settings.core_opts();
    // Only the cost estimate depends on this chunk size, and it is not used here; memory does.
    opts.gas_trace_chunk_threshold = opts.minimal_trace_chunk_threshold;
    let executors = SP1ExecutorConfig { num_gas_executors: settings.provers, gas_executor_buffer_size: 1 };
    Box::pin(async move {
        let context = SP1Context::default();
        let (values, _, report) = execute_with_options(program, stdin, context, opts, executors).await?;
        Ok((values.to_vec(), report))
    })
}

/// Computes the verifying key of a guest program; needs no node.
pub fn program_vk(
    settings: &Settings,
    program: Arc<Program>,
) -> Hidden<MachineVerifyingKey<SP1GlobalContext>> {
    let prover = components::core_prover(settings);
    Box::pin(async move { AirProverWorker::setup(&prover, program, ProverSemaphore::new(1)).await.1 })
}

impl<C: SP1ProverComponents> Runner<C> {
    async fn serve(self: Arc<Self>, lane: Lane) {
        let queue = self.worker.worker_client().clone();
        while let Some(task) = queue.next(lane).await {
            let runner = Arc::clone(&self);
            let work = task.clone();
            // A task of its own: a panic ends the task, not the runner.
            let handle = tokio::spawn(async move { runner.run(&work).await });
            queue.set_abort(&task, handle.abort_handle());
            queue.finish(&task, outcome(handle.await));
        }
    }

    async fn run(&self, task: &Task) -> Result<(), TaskError> {
        let memo = self.memo.read().ok().and_then(|current| current.clone());
        let store = self.worker.artifact_client();
        let key = memo.as_ref().and_then(|memo| memo.key(task.kind, &task.request, store));
        if let (Some(memo), Some(key)) = (&memo, &key) {
            if memo.restore(key, &task.request, store) {
                tracing::info!(kind = task.kind.as_str_name(), "finished in an earlier run");
                return self.consume_inputs(task).await;
            }
        }
        if let (Some(memo), Some(key), Some(kind)) = (&memo, &key, PartKind::of(task.kind)) {
            if let Some(delegate) = &self.delegate {
                self.delegate(delegate.as_ref(), memo, key, kind, task).await?;
                return self.consume_inputs(task).await;
            }
        }
        if let (Some(memo), Some(deferred)) = (&memo, task.request.outputs.get(1)) {
            store.watch(&deferred.0, memo.clone());
        }
        self.prove(task).await?;
        if let (Some(memo), Some(key)) = (&memo, &key) {
            memo.keep_task(key, &task.request, store);
        }
        Ok(())
    }

    /// Has a task proved elsewhere and puts its outputs into the store.
    async fn delegate(
        &self,
        delegate: &dyn Parts,
        memo: &Memo,
        key: &Key,
        kind: PartKind,
        task: &Task,
    ) -> Result<(), TaskError> {
        let fatal = |error: WorkerError| TaskError::Fatal(error.into());
        let store = self.worker.artifact_client();
        let dir = self.part_dir.join(format!("{key}-{}", task.id));
        let part: Part = part::pack(kind, key, &task.request, store, &dir).map_err(fatal)?;
        let proved = delegate.prove(part).await;
        let _ = std::fs::remove_dir_all(&dir);
        let files = proved.map_err(|reason| TaskError::Fatal(anyhow::anyhow!(reason)))?;
        memo.accept(&key.to_string(), &files).map_err(fatal)?;
        if memo.restore(key, &task.request, store) {
            Ok(())
        } else {
            Err(TaskError::Fatal(anyhow::anyhow!("the result of part {key} cannot be used")))
        }
    }

    async fn prove(&self, task: &Task) -> Result<(), TaskError> {
        let engine = self.worker.prover_engine();
        let store = self.worker.artifact_client();
        let request = task.request.clone();
        match task.kind {
            TaskType::CoreExecute => {
                let request = CoreExecuteTaskRequest::from_raw(request)?;
                self.worker.controller().execute(task.id.clone(), request).await.map(drop)
            }
            TaskType::SetupVkey => {
                let (program, output) = setup_artifacts(&request)?;
                let known = self.known_keys.read().ok().and_then(|keys| keys.get(&program.0).cloned());
                if let Some(vk) = known {
                    return store.put(&output.0, &vk).map(drop).map_err(|e| TaskError::Fatal(e.into()));
                }
                let handle = engine.submit_setup(task.id.clone(), program, output).await?;
                handle.await.map_err(join_failure)?.map(drop)
            }
            TaskType::ProveShard => {
                let handle = engine.submit_prove_core_shard(request.clone()).await?;
                let result = handle.await.map_err(join_failure)?;
                request.recover_prove_shard_if_complete(result, store).await.map(drop)
            }
            TaskType::RecursionDeferred => {
                let handle = engine.submit_prove_deferred(request.clone()).await?;
                let result = handle.await.map_err(join_failure)?;
                request.recover_if_complete(result, store).await.map(drop)
            }
            TaskType::RecursionReduce => {
                let handle = engine.submit_recursion_reduce(request.clone()).await?;
                let result = handle.await.map_err(join_failure)?;
                request.recover_if_complete(result, store).await.map(drop)
            }
            other => {
                Err(TaskError::Fatal(anyhow::anyhow!("no runner for tasks of kind {}", other.as_str_name())))
            }
        }
    }

    /// What a prover does after its outputs are stored, for a task whose outputs came from the memo.
    async fn consume_inputs(&self, task: &Task) -> Result<(), TaskError> {
        let store = self.worker.artifact_client();
        match task.kind {
            TaskType::ProveShard => {
                let proof: ProofId = task.request.context.proof_id.clone();
                if task.request.outputs.len() > 1 {
                    if let Some(marker) = task.request.inputs.get(3) {
                        let marker = TaskId::new(marker.0.clone());
                        self.worker
                            .worker_client()
                            .complete_task(proof, marker, TaskMetadata::default())
                            .await?;
                    }
                }
                if let Some(record) = task.request.inputs.get(2) {
                    release_record(store, &record.0).await;
                }
            }
            TaskType::RecursionReduce => {
                task.request.inputs.iter().for_each(|input| store.remove(&input.0));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Drops a shard's hold on its record and on the events the record lists.
async fn release_record(store: &DiskStore, record: &str) {
    use sp1_prover::worker::{PrecompileArtifactSlice, TraceData};
    use sp1_prover_types::ArtifactClient;

    if let Ok(bytes) = store.get(record) {
        if let Ok(TraceData::Precompile(slices, _)) = bincode::deserialize::<TraceData>(&bytes) {
            for PrecompileArtifactSlice { artifact, start_idx, end_idx } in slices {
                let holder = format!("{start_idx}_{end_idx}");
                let kind = ArtifactType::UnspecifiedArtifactType;
                if let Err(error) = store.remove_ref(&artifact, kind, &holder).await {
                    tracing::warn!(%error, "reference not removed");
                }
            }
        }
    }
    store.remove(record);
}

fn setup_artifacts(
    request: &RawTaskRequest,
) -> Result<(sp1_prover_types::Artifact, sp1_prover_types::Artifact), TaskError> {
    match (request.inputs.first(), request.outputs.first()) {
        (Some(program), Some(output)) => Ok((program.clone(), output.clone())),
        _ => Err(TaskError::Fatal(anyhow::anyhow!("a setup task needs one input and one output"))),
    }
}
