//! The zkVM behind the seam that keeps front ends and back ends apart.

use assay_lvm::vm::{Execution, ProofSystem};
use assay_lvm_core::VkHash;

use crate::engine::{Engine, Proof, ProveInput, Until};
use crate::error::WorkerError;
use crate::progress::{ProgressSink, Reporter};
use crate::proof::{CompressedProof, ProgramKey};
use crate::verify;

/// A [`ProofSystem`] over one engine.
pub struct ZkvmProofSystem {
    engine: Engine,
    sink: ProgressSink,
}

/// A guest program and its key.
pub struct ZkvmProgram {
    elf: Vec<u8>,
    key: ProgramKey,
}

impl ZkvmProofSystem {
    /// Wraps a running engine.
    pub fn new(engine: Engine, sink: ProgressSink) -> Self {
        Self { engine, sink }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

fn prove_input(input: &[u8], assumptions: &[&CompressedProof]) -> ProveInput {
    ProveInput { stdin: vec![input.to_vec()], deferred: assumptions.iter().map(|p| (*p).clone()).collect() }
}

impl ProofSystem for ZkvmProofSystem {
    type Program = ZkvmProgram;
    type Proof = CompressedProof;
    type Error = WorkerError;

    fn load(&self, elf: &[u8]) -> Result<ZkvmProgram, WorkerError> {
        Ok(ZkvmProgram { key: self.engine.setup(elf)?, elf: elf.to_vec() })
    }

    fn key(&self, program: &ZkvmProgram) -> VkHash {
        VkHash(program.key.words())
    }

    fn execute(
        &self,
        program: &ZkvmProgram,
        input: &[u8],
        assumptions: &[&CompressedProof],
    ) -> Result<Execution, WorkerError> {
        let summary = self.engine.execute(&program.elf, &prove_input(input, assumptions))?;
        // The zkVM counts phases only in builds with its profiling feature.
        Ok(Execution { public_values: summary.public_values, cycles: summary.cycles, phases: Vec::new() })
    }

    fn prove(
        &self,
        program: &ZkvmProgram,
        input: &[u8],
        assumptions: &[&CompressedProof],
    ) -> Result<CompressedProof, WorkerError> {
        let reporter = Reporter::new("prove", self.sink.clone());
        let input = prove_input(input, assumptions);
        match self.engine.prove(&program.elf, &program.key, &input, Until::Compressed, &reporter)? {
            Proof::Compressed(proof) => Ok(proof),
            Proof::Core(_) => Err(WorkerError::internal("a core proof where a compressed one was asked for")),
        }
    }

    fn verify(
        &self,
        program: &ZkvmProgram,
        proof: &CompressedProof,
        public_values: &[u8],
    ) -> Result<(), WorkerError> {
        if proof.public_values != public_values {
            return Err(WorkerError::PublicInput {
                name: "public_values",
                expected: hex::encode(public_values),
                got: hex::encode(&proof.public_values),
            });
        }
        verify::compressed_proof(proof, &program.key.words())
    }
}
