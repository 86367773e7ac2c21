//! The provers this engine is made of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use assay_worker_outer::{OuterWrapProver, OuterWrapProverBuilder};
use sp1_core_machine::riscv::RiscvAir;
use sp1_hypercube::prover::{CpuShardProver, ProverSemaphore};
use sp1_primitives::{SP1Field, SP1GlobalContext};
use sp1_prover::worker::{SP1Worker, SP1WorkerBuilder};
use sp1_prover::{CoreSC, CpuSP1ProverComponents, RecursionSC, SP1ProverComponents};

use crate::keys::BoundedKeys;
use crate::queue::LocalQueue;
use crate::settings::Settings;
use crate::store::DiskStore;

type CpuCore = <CpuSP1ProverComponents as SP1ProverComponents>::CoreProver;
type CpuRecursion = <CpuSP1ProverComponents as SP1ProverComponents>::RecursionProver;

/// CPU provers whose proving keys are bounded; the wrap prover hashes on our own field code.
pub(crate) struct Components;

impl SP1ProverComponents for Components {
    type CoreProver = BoundedKeys<SP1GlobalContext, CoreSC, CpuCore>;
    type RecursionProver = BoundedKeys<SP1GlobalContext, RecursionSC, CpuRecursion>;
    type WrapProver = OuterWrapProver;
    type WrapProverBuilder = OuterWrapProverBuilder;
}

/// The core prover alone: enough to compute a guest program's key.
pub(crate) fn core_prover(settings: &Settings) -> <Components as SP1ProverComponents>::CoreProver {
    let verifier = Components::core_verifier(RiscvAir::<SP1Field>::machine());
    BoundedKeys::new(CpuShardProver::new(verifier.shard_verifier().clone()), settings.keys_cached, None)
}

/// Where verifying keys are kept.
pub(crate) struct Folders {
    /// Of recursion programs.
    pub(crate) recursion: PathBuf,
    /// Of the shrink program. Other parameters, so other keys of the same programs: a folder of its own.
    pub(crate) shrink: PathBuf,
}

impl Folders {
    pub(crate) fn of(cache_dir: &Path) -> Self {
        let keys = cache_dir.join("keys");
        Self { recursion: keys.join("recursion"), shrink: keys.join("shrink") }
    }
}

/// The provers of one engine.
pub(crate) struct Provers<C: SP1ProverComponents> {
    pub(crate) core: C::CoreProver,
    pub(crate) compress: C::RecursionProver,
    pub(crate) shrink: C::RecursionProver,
    pub(crate) wrap: C::WrapProverBuilder,
}

/// Compiles the recursion programs and starts the crate's prover engine on the CPU.
pub(crate) async fn build(
    settings: &Settings,
    cache_dir: &Path,
    store: DiskStore,
    queue: LocalQueue,
) -> anyhow::Result<SP1Worker<DiskStore, LocalQueue, Components>> {
    let folders = Folders::of(cache_dir);
    let compress = CpuShardProver::new(Components::compress_verifier().shard_verifier().clone());
    let shrink = CpuShardProver::new(Components::shrink_verifier().shard_verifier().clone());
    let provers = Provers {
        core: core_prover(settings),
        compress: BoundedKeys::new(compress, settings.keys_cached, Some(folders.recursion)),
        shrink: BoundedKeys::new(shrink, 1, Some(folders.shrink)),
        wrap: OuterWrapProverBuilder::with_cache(&cache_dir.join("outer")),
    };
    assemble(settings, provers, store, queue).await
}

/// Compiles the recursion programs and starts the crate's prover engine on these provers.
pub(crate) async fn assemble<C: SP1ProverComponents>(
    settings: &Settings,
    provers: Provers<C>,
    store: DiskStore,
    queue: LocalQueue,
) -> anyhow::Result<SP1Worker<DiskStore, LocalQueue, C>> {
    let permits = ProverSemaphore::new(settings.permits);
    SP1WorkerBuilder::<C>::new()
        .with_artifact_client(store)
        .with_worker_client(queue)
        .with_config(|config| settings.apply(config))
        .with_core_air_prover(Arc::new(provers.core), permits.clone())
        .with_compress_air_prover(Arc::new(provers.compress), permits.clone())
        .with_shrink_air_prover(Arc::new(provers.shrink), permits.clone())
        .with_wrap_air_prover(provers.wrap, permits)
        .build()
        .await
}
