//! What plugs into the zkVM's worker.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sp1_prover::{CpuSP1ProverComponents, SP1ProverComponents, WrapProverBuilder};

use crate::OuterWrapProver;

/// The zkVM's CPU provers, with our wrap prover.
pub struct OuterComponents;

impl SP1ProverComponents for OuterComponents {
    type CoreProver = <CpuSP1ProverComponents as SP1ProverComponents>::CoreProver;
    type RecursionProver = <CpuSP1ProverComponents as SP1ProverComponents>::RecursionProver;
    type WrapProver = OuterWrapProver;
    type WrapProverBuilder = OuterWrapProverBuilder;
}

/// Builds the wrap prover when the first proof is wrapped.
#[derive(Clone, Debug, Default)]
pub struct OuterWrapProverBuilder {
    cache_folder: Option<PathBuf>,
}

impl OuterWrapProverBuilder {
    /// Keeps the tree of the preprocessed traces (9 MB) in `folder`, which is made when it is needed.
    #[must_use]
    pub fn with_cache(folder: &Path) -> Self {
        Self { cache_folder: Some(folder.to_owned()) }
    }
}

impl<C: SP1ProverComponents<WrapProver = OuterWrapProver>> WrapProverBuilder<C> for OuterWrapProverBuilder {
    fn build(&self) -> Arc<OuterWrapProver> {
        Arc::new(OuterWrapProver::new(self.cache_folder.as_deref()))
    }
}
