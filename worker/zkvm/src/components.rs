//! The provers this engine is made of.

use std::path::Path;
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

/// Compiles the recursion programs and starts the crate's prover engine.
pub(crate) async fn build(
    settings: &Settings,
    cache_dir: &Path,
    store: DiskStore,
    queue: LocalQueue,
) -> anyhow::Result<SP1Worker<DiskStore, LocalQueue, Components>> {
    let permits = ProverSemaphore::new(settings.provers);
    let keys = cache_dir.join("keys");
    let recursion = Components::compress_verifier();
    let recursion = CpuShardProver::new(recursion.shard_verifier().clone());
    let recursion = BoundedKeys::new(recursion, settings.keys_cached, Some(keys.join("recursion")));
    // Other parameters, so other keys of the same programs: a folder of its own.
    let shrink = Components::shrink_verifier();
    let shrink = CpuShardProver::new(shrink.shard_verifier().clone());
    let shrink = BoundedKeys::new(shrink, 1, Some(keys.join("shrink")));
    SP1WorkerBuilder::<Components>::new()
        .with_artifact_client(store)
        .with_worker_client(queue)
        .with_config(|config| settings.apply(config))
        .with_core_air_prover(Arc::new(core_prover(settings)), permits.clone())
        .with_compress_air_prover(Arc::new(recursion), permits.clone())
        .with_shrink_air_prover(Arc::new(shrink), permits.clone())
        .with_wrap_air_prover(OuterWrapProverBuilder::with_cache(&cache_dir.join("outer")), permits)
        .build()
        .await
}
