//! Groth16 proofs one after another, with what is costly kept between them.

use std::sync::Arc;

use assay_agent::runner::GpuFaults;
use assay_kernels::backend::{Backend, Counts, KeptKey};
use assay_kernels::groth16 as kernel;

use super::{
    check_assignment, check_release, circuit_error, groth16_error, require_memory, to_bytes, verify,
    wrap_inputs, Circuit, Parameters, Proved, Statement,
};
use crate::device::memory_bytes_most;
use crate::error::WorkerError;
use crate::progress::Reporter;
use crate::proof::WrapProof;
use crate::settings::available_memory_bytes;

/// The wrap circuit, its parameters, and what proves with them: a GPU where there is one, else the CPU.
pub struct Prover {
    circuit: Circuit,
    parameters: Parameters,
    /// Opened for the first proof.
    backend: Option<Arc<Backend>>,
    /// From the second proof on: whoever makes one only needs no tables.
    kept: Option<KeptKey>,
    has_proved: bool,
}

impl Prover {
    /// A prover that has opened no device yet.
    pub fn new(circuit: Circuit, parameters: Parameters) -> Self {
        Self { circuit, parameters, backend: None, kept: None, has_proved: false }
    }

    /// The circuit that is proved.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// Its parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Proves a wrap proof of `statement` and verifies the result under the specialised key.
    ///
    /// On a GPU the key's points stay there from the second proof on, within the memory that is this process's
    /// ([`memory_bytes_most`]).
    ///
    /// # Errors
    /// [`WorkerError::PublicInput`] if the wrap proof is about something else, [`WorkerError::Circuit`],
    /// [`WorkerError::Groth16`], [`WorkerError::Verify`]; [`WorkerError::MemoryMissing`] before anything is computed.
    pub fn prove(
        &mut self,
        wrap: &WrapProof,
        statement: &Statement,
        reporter: &Reporter,
    ) -> Result<Proved, WorkerError> {
        check_release(wrap)?;
        statement.check(&wrap_inputs(wrap)?)?;
        let assignment_bytes = 32 * self.circuit.inner.r1cs().num_variables() as u64;
        let needed_bytes = kernel::host_bytes(&self.parameters.key) + assignment_bytes;
        require_memory(needed_bytes, available_memory_bytes())?;
        reporter.report("witness", 0, 1);
        let circuit = &self.circuit.inner;
        let assignment = circuit.assign(&wrap.proof.vk, &wrap.proof.proof).map_err(circuit_error)?;
        check_assignment(&assignment, &statement.inputs())?;
        reporter.report("witness", 1, 1);
        let progress = |stage: &'static str, done: u64, total: u64| reporter.report(stage, done, total);
        let (backend, before) = opened(&mut self.backend, || Backend::auto_within(memory_bytes_most()));
        if self.has_proved && self.kept.as_ref().is_none_or(|kept| kept.tables().is_none()) {
            self.kept = Some(backend.keep(&self.parameters.key).map_err(groth16_error)?);
        }
        let proof = match &self.kept {
            Some(kept) => kept.prove(circuit.r1cs(), &assignment, &progress),
            None => backend.prove(&self.parameters.key, circuit.r1cs(), &assignment, &progress),
        };
        // Also if there is none.
        reporter.report_gpu(gpu_faults(&before, &backend.counts()));
        let proof = proof.map_err(groth16_error)?;
        self.has_proved = true;
        let vk = kernel::specialise(self.parameters.key.verifying_key(), &statement.constants())
            .map_err(groth16_error)?;
        let (proof, verifying_key) = (to_bytes(&proof)?, to_bytes(&vk)?);
        verify(&verifying_key, &proof, &statement.public_values)?;
        let public_input = statement.inputs().committed_values_digest.0;
        Ok(Proved { proof, verifying_key, public_input, insecure: self.parameters.insecure })
    }
}

/// The back end, opened if it is not yet, and its counts before this proof: a GPU that fails its trial fails the proof it was opened for.
fn opened(kept: &mut Option<Arc<Backend>>, open: impl FnOnce() -> Backend) -> (&Arc<Backend>, Counts) {
    let before = kept.as_ref().map_or_else(Counts::default, |backend| backend.counts());
    (kept.get_or_insert_with(|| Arc::new(open())), before)
}

/// What went wrong on the GPU between two looks at a back end's counts.
fn gpu_faults(before: &Counts, after: &Counts) -> GpuFaults {
    let number = |before: u64, after: u64| u32::try_from(after.saturating_sub(before)).unwrap_or(u32::MAX);
    GpuFaults {
        retries: number(before.retries, after.retries),
        fallbacks: number(before.fallbacks, after.fallbacks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_while_a_back_end_is_opened_is_the_first_proofs() {
        let open = || {
            let backend = Backend::cpu();
            let _ = backend.msm_g1(&[], &[]).unwrap();
            backend
        };
        let mut kept = None;
        let (backend, before) = opened(&mut kept, open);
        assert_eq!((before, backend.counts().cpu), (Counts::default(), 1));
        let (_, before) = opened(&mut kept, || unreachable!("it is open"));
        assert_eq!(before.cpu, 1);
    }

    #[test]
    fn a_proof_is_told_of_its_own_faults_only() {
        let before = Counts { retries: 2, fallbacks: 1, ..Counts::default() };
        let after = Counts { retries: 3, fallbacks: 1, ..Counts::default() };
        assert_eq!(gpu_faults(&before, &before), GpuFaults::default());
        assert_eq!(gpu_faults(&before, &after), GpuFaults { retries: 1, fallbacks: 0 });
        assert_eq!(gpu_faults(&Counts::default(), &after), GpuFaults { retries: 3, fallbacks: 1 });
        let many = Counts { fallbacks: u64::MAX, ..Counts::default() };
        assert_eq!(gpu_faults(&before, &many).fallbacks, u32::MAX);
    }
}
