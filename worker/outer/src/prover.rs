//! The wrap prover.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use slop_basefold_prover::BasefoldProver;
use slop_jagged::{JaggedAssistProver, JaggedProver};
use slop_stacked::StackedPcsProver;
use sp1_hypercube::{
    prover::{
        AirProver, DefaultTraceGenerator, PcsProof, PreprocessedData, Program, ProverPermit, ProverSemaphore,
        ProvingKey, Record, ShardProver,
    },
    GkrProverImpl, LogupGkrCpuTraceGenerator, Machine, MachineVerifyingKey, SP1Pcs, ShardProof,
    ShardVerifier, SP1SC,
};
use sp1_primitives::{SP1Field, SP1OuterGlobalContext};
use sp1_prover::{verify::WRAP_VK_BYTES, CpuSP1ProverComponents, SP1ProverComponents, WrapAir, WrapSC};
use tokio::sync::Mutex;

use crate::{
    convert::{outer_key, outer_proof},
    OuterContext, OuterDigest, OuterTcs, TreeCache,
};

/// The wrap prover's types in our context.
pub type OuterShardContext = SP1SC<OuterContext, WrapAir<SP1Field>>;
/// The zkVM's generic prover with our parts.
pub type OuterShardProver =
    ShardProver<OuterContext, OuterShardContext, StackedPcsProver<OuterTcs, OuterContext>>;

type Key = ProvingKey<OuterContext, OuterShardContext, OuterShardProver>;
type OuterProgram = Program<SP1OuterGlobalContext, WrapSC>;

/// Columns committed to in one tensor; any number gives the same commitment.
const INTERLEAVE_BATCH_SIZE: usize = 32;

/// A wrap prover whose proofs the zkVM's verifier and its wrap circuit accept.
///
/// It keeps the proving key of the last program it saw: the wrap program never changes, and upstream would commit to its
/// preprocessed traces twice, once for the key and once for each proof.
pub struct OuterWrapProver {
    prover: OuterShardProver,
    /// The same with the cache of the tree, for setting up.
    setup: OuterShardProver,
    cache: Option<Arc<TreeCache>>,
    /// The commitment in the zkVM's wrap key.
    expected: OuterDigest,
    key: Mutex<Option<(Arc<OuterProgram>, Arc<Key>)>>,
}

impl OuterWrapProver {
    /// A prover with the zkVM's wrap parameters. With a folder, the tree of the preprocessed traces is kept there.
    ///
    /// # Panics
    /// Never: the zkVM's wrap key, which is part of its crate, can be read.
    #[must_use]
    pub fn new(cache_folder: Option<&Path>) -> Self {
        let key: MachineVerifyingKey<SP1OuterGlobalContext> =
            bincode::deserialize(WRAP_VK_BYTES).expect("the zkVM's wrap key can be read");
        let cache = cache_folder.map(|folder| Arc::new(TreeCache::new(folder, &key)));
        let cached = cache.clone().map_or_else(OuterTcs::default, OuterTcs::with_cache);
        Self {
            prover: shard_prover(OuterTcs::default()),
            setup: shard_prover(cached),
            cache,
            expected: key.preprocessed_commit,
            key: Mutex::default(),
        }
    }

    /// The proving key of `program`, made at most once.
    async fn key(&self, program: &Arc<OuterProgram>, permits: &ProverSemaphore) -> Arc<Key> {
        let mut slot = self.key.lock().await;
        if let Some((known, key)) = slot.as_ref() {
            if Arc::ptr_eq(known, program) {
                return key.clone();
            }
        }
        // The old key, if any, is let go before the new one is made: each holds gigabytes.
        *slot = None;
        let mut key = self.set_up(program, permits).await;
        let expected = key.vk.preprocessed_commit == self.expected;
        if let Some(cache) = &self.cache {
            if expected {
                cache.confirm();
            } else if cache.reject() {
                drop(key);
                key = self.set_up(program, permits).await;
            }
        }
        *slot = Some((program.clone(), key.clone()));
        key
    }

    async fn set_up(&self, program: &Arc<OuterProgram>, permits: &ProverSemaphore) -> Arc<Key> {
        let (data, _) = self.setup.setup_from_vk(program.clone(), None, permits.clone()).await;
        let PreprocessedData { pk, permit } = data;
        drop(permit);
        pk
    }
}

/// The zkVM's CPU prover with its wrap parameters and our commitment scheme.
fn shard_prover(tcs: OuterTcs) -> OuterShardProver {
    let upstream = CpuSP1ProverComponents::wrap_verifier();
    let verifier: ShardVerifier<OuterContext, OuterShardContext> = ShardVerifier::from_basefold_parameters(
        *upstream.fri_config(),
        upstream.log_stacking_height(),
        upstream.max_log_row_count(),
        upstream.machine().clone(),
    );
    let ShardVerifier { jagged_pcs_verifier, machine } = verifier;
    let stacked: SP1Pcs<OuterContext> = jagged_pcs_verifier.pcs_verifier;
    let mut basefold = BasefoldProver::new(&stacked.basefold_verifier);
    basefold.tcs_prover = tcs;
    let pcs = StackedPcsProver::new(basefold, stacked.log_stacking_height, INTERLEAVE_BATCH_SIZE);
    ShardProver::from_components(
        DefaultTraceGenerator::new(machine),
        GkrProverImpl::new(LogupGkrCpuTraceGenerator::default()),
        JaggedProver::new(
            jagged_pcs_verifier.max_log_row_count,
            pcs,
            JaggedAssistProver::<OuterContext>::default(),
        ),
    )
}

type OuterProof = ShardProof<SP1OuterGlobalContext, PcsProof<SP1OuterGlobalContext, WrapSC>>;

impl AirProver<SP1OuterGlobalContext, WrapSC> for OuterWrapProver {
    type PreprocessedData = Arc<Key>;

    fn machine(&self) -> &Machine<SP1Field, WrapAir<SP1Field>> {
        self.prover.machine()
    }

    async fn setup_from_vk(
        &self,
        program: Arc<OuterProgram>,
        _vk: Option<MachineVerifyingKey<SP1OuterGlobalContext>>,
        prover_permits: ProverSemaphore,
    ) -> (
        PreprocessedData<ProvingKey<SP1OuterGlobalContext, WrapSC, Self>>,
        MachineVerifyingKey<SP1OuterGlobalContext>,
    ) {
        let key = self.key(&program, &prover_permits).await;
        let vk = outer_key(key.vk.clone());
        let pk = Arc::new(ProvingKey { vk: vk.clone(), preprocessed_data: key });
        let permit = prover_permits.acquire().await.expect("the semaphore of the provers is never closed");
        (PreprocessedData { pk, permit }, vk)
    }

    async fn setup_and_prove_shard(
        &self,
        program: Arc<OuterProgram>,
        record: Record<SP1OuterGlobalContext, WrapSC>,
        _vk: Option<MachineVerifyingKey<SP1OuterGlobalContext>>,
        prover_permits: ProverSemaphore,
    ) -> (MachineVerifyingKey<SP1OuterGlobalContext>, OuterProof, ProverPermit) {
        let key = self.key(&program, &prover_permits).await;
        let vk = outer_key(key.vk.clone());
        let (proof, permit) = self.prove_with(key, record, prover_permits).await;
        (vk, proof, permit)
    }

    async fn prove_shard_with_pk(
        &self,
        pk: Arc<ProvingKey<SP1OuterGlobalContext, WrapSC, Self>>,
        record: Record<SP1OuterGlobalContext, WrapSC>,
        prover_permits: ProverSemaphore,
    ) -> (OuterProof, ProverPermit) {
        self.prove_with(pk.preprocessed_data.clone(), record, prover_permits).await
    }

    async fn preprocessed_table_heights(
        pk: Arc<ProvingKey<SP1OuterGlobalContext, WrapSC, Self>>,
    ) -> BTreeMap<String, usize> {
        OuterShardProver::preprocessed_table_heights(pk.preprocessed_data.clone()).await
    }
}

impl OuterWrapProver {
    async fn prove_with(
        &self,
        key: Arc<Key>,
        record: Record<SP1OuterGlobalContext, WrapSC>,
        permits: ProverSemaphore,
    ) -> (OuterProof, ProverPermit) {
        let (proof, permit) = self.prover.prove_shard_with_pk(key, record, permits).await;
        (outer_proof(proof), permit)
    }
}
