//! The zkVM's provers on the GPU that this process can see.
//!
//! Device memory, streams and pinned buffers belong to a scope of `sp1-gpu-cudart`, which lasts as long as the future that it was
//! given to. [`start`] builds the provers in such a future and keeps it waiting: the scope, and with it everything on the
//! device, lives until the process ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sp1_core_executor::SP1Context;
use sp1_core_machine::io::SP1Stdin;
use sp1_core_machine::riscv::RiscvAir;
use sp1_gpu_cudart::{cuda_memory_info, TaskScope};
use sp1_gpu_prover::{
    cuda_worker_builder, new_cuda_prover, CudaProverCoreComponents, CudaProverRecursionComponents,
    CudaProverWrapComponents, CudaShardProver, RECURSION_TRACE_ALLOCATION, SHRINK_TRACE_ALLOCATION,
    WRAP_TRACE_ALLOCATION,
};
use sp1_primitives::{SP1Field, SP1GlobalContext, SP1OuterGlobalContext};
use sp1_prover::worker::{SP1LocalNode, SP1LocalNodeBuilder, SP1Worker};
use sp1_prover::{
    CoreSC, ReadyWrapProverBuilder, RecursionSC, SP1ProverComponents, CORE_LOG_STACKING_HEIGHT,
};
use sp1_prover_types::network_base_types::ProofMode;
use tokio::sync::oneshot;

use crate::components::{assemble, Folders, Provers};
use crate::device::unusable;
use crate::error::WorkerError;
use crate::keys::BoundedKeys;
use crate::node::ReferenceTimes;
use crate::queue::LocalQueue;
use crate::settings::Settings;
use crate::store::DiskStore;

/// The zkVM's own prover waits for ever for a task of its own that has panicked.
const REFERENCE_TIME_MAX: Duration = Duration::from_secs(3600);

type CudaCore = CudaShardProver<SP1GlobalContext, CudaProverCoreComponents>;
type CudaRecursion = CudaShardProver<SP1GlobalContext, CudaProverRecursionComponents>;

/// GPU provers whose proving keys, which are in device memory, are bounded.
pub(crate) struct CudaComponents;

impl SP1ProverComponents for CudaComponents {
    type CoreProver = BoundedKeys<SP1GlobalContext, CoreSC, CudaCore>;
    type RecursionProver = BoundedKeys<SP1GlobalContext, RecursionSC, CudaRecursion>;
    type WrapProver = CudaShardProver<SP1OuterGlobalContext, CudaProverWrapComponents>;
    type WrapProverBuilder = ReadyWrapProverBuilder<Self>;
}

/// Bytes of memory of the first visible GPU, or what its driver says instead.
pub(crate) fn memory_bytes() -> Result<u64, String> {
    cuda_memory_info().map(|(_, total)| total as u64).map_err(|error| error.to_string())
}

/// Compiles the recursion programs and starts the crate's prover engine on the GPU.
///
/// # Errors
/// [`WorkerError::Gpu`] if the provers cannot be built there, [`WorkerError::GpuMemory`] if they lack memory for it,
/// [`WorkerError::Internal`] if the engine does not start.
pub(crate) async fn start(
    settings: &Settings,
    folders: Folders,
    store: DiskStore,
    queue: LocalQueue,
) -> Result<SP1Worker<DiskStore, LocalQueue, CudaComponents>, WorkerError> {
    let (done, built) = oneshot::channel();
    let settings = settings.clone();
    let scoped = sp1_gpu_cudart::spawn(move |scope| async move {
        let provers = provers(&settings, &folders, scope).await;
        let worker = assemble::<CudaComponents>(&settings, provers, store, queue).await;
        // Nobody is there any more if the process ends.
        let _ = done.send(worker);
        std::future::pending::<()>().await;
    });
    match built.await {
        Ok(worker) => worker.map_err(|e| WorkerError::internal(format!("node does not start: {e:#}"))),
        Err(_) => Err(unusable(match scoped.await {
            Ok(()) => "the provers were not built".to_owned(),
            Err(error) => error.to_string(),
        })),
    }
}

/// Proves each input with the zkVM's own prover, to core and then to one recursion proof.
///
/// # Errors
/// [`WorkerError::Gpu`] if its provers cannot be built there, [`WorkerError::Task`] with its reason.
pub(crate) async fn reference(elf: Vec<u8>, inputs: Vec<SP1Stdin>) -> Result<ReferenceTimes, WorkerError> {
    let (done, timed) = oneshot::channel();
    let scoped = sp1_gpu_cudart::spawn(move |scope| async move {
        // As above: nothing of it is dropped before the process ends.
        let node = local_node(scope).await;
        let times = match &node {
            Ok((begun, node)) => time(node, *begun, &elf, &inputs).await,
            Err(error) => Err(anyhow::anyhow!("it does not start: {error:#}")),
        };
        let _ = done.send(times);
        std::future::pending::<()>().await;
    });
    let Ok(timed) = tokio::time::timeout(REFERENCE_TIME_MAX, timed).await else {
        let reason = "the zkVM's own prover: no proofs within an hour".to_owned();
        return Err(WorkerError::Task { reason });
    };
    match timed {
        Ok(times) => {
            times.map_err(|error| WorkerError::Task { reason: format!("the zkVM's own prover: {error:#}") })
        }
        Err(_) => Err(WorkerError::Gpu {
            reason: match scoped.await {
                Ok(()) => "the zkVM's own prover said nothing".to_owned(),
                Err(error) => error.to_string(),
            },
        }),
    }
}

/// The zkVM's prover for one machine as it comes, and when its start was begun.
async fn local_node(scope: TaskScope) -> anyhow::Result<(Instant, SP1LocalNode)> {
    let begun = Instant::now();
    let builder = cuda_worker_builder(scope).await;
    let node = SP1LocalNodeBuilder::from_worker_client_builder(builder).build().await?;
    Ok((begun, node))
}

async fn time(
    node: &SP1LocalNode,
    begun: Instant,
    elf: &[u8],
    inputs: &[SP1Stdin],
) -> anyhow::Result<ReferenceTimes> {
    let key = node.setup(elf).await?;
    let mut times = ReferenceTimes { start: begun.elapsed(), ..ReferenceTimes::default() };
    for (mode, time) in [(ProofMode::Core, &mut times.core), (ProofMode::Compressed, &mut times.compressed)] {
        for input in inputs {
            let begun = Instant::now();
            // Boxed, because it is large.
            let proving = Box::pin(node.prove_with_mode(elf, input.clone(), SP1Context::default(), mode));
            let proof = proving.await?;
            *time += begun.elapsed();
            node.verify(&key, &proof.proof)?;
        }
    }
    Ok(times)
}

async fn provers(settings: &Settings, folders: &Folders, scope: TaskScope) -> Provers<CudaComponents> {
    let width = settings.provers;
    let verifier = CudaComponents::core_verifier(RiscvAir::<SP1Field>::machine());
    let cells = settings.element_threshold as usize + (1 << CORE_LOG_STACKING_HEIGHT);
    let core = new_cuda_prover(&verifier, cells, width, false, false, scope.clone()).await;
    let verifier = CudaComponents::compress_verifier();
    let compress =
        new_cuda_prover(&verifier, RECURSION_TRACE_ALLOCATION, width, false, false, scope.clone()).await;
    let verifier = CudaComponents::shrink_verifier();
    let shrink = new_cuda_prover(&verifier, SHRINK_TRACE_ALLOCATION, 1, false, false, scope.clone()).await;
    let verifier = CudaComponents::wrap_verifier();
    let wrap = new_cuda_prover(&verifier, WRAP_TRACE_ALLOCATION, 1, false, false, scope).await;
    Provers {
        core: BoundedKeys::new(core, settings.keys_cached, None),
        compress: BoundedKeys::new(compress, settings.keys_cached, Some(folders.recursion.clone())),
        shrink: BoundedKeys::new(shrink, 1, Some(folders.shrink.clone())),
        wrap: ReadyWrapProverBuilder::new(Arc::new(wrap)),
    }
}
