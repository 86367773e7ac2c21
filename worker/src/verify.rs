//! Verification without a node: cheap enough for any machine.

use std::sync::OnceLock;

use slop_algebra::PrimeField32;
use sp1_core_machine::riscv::RiscvAir;
use sp1_hypercube::HashableKey;
use sp1_primitives::SP1Field;
use sp1_prover::utils::is_recursion_public_values_valid;
use sp1_prover::verify::{SP1Verifier, VerifierRecursionVks};
use sp1_recursion_executor::RecursionPublicValues;

use crate::digest::{mask, public_value_digest_unmasked};
use crate::error::WorkerError;
use crate::proof::{
    committed_digest, recursion_values, CompressedProof, CoreProof, InnerProof, ProofFile, WrapProof,
};

/// The zkVM's verifier with the release's table of recursion keys.
pub(crate) fn verifier() -> &'static SP1Verifier {
    static VERIFIER: OnceLock<SP1Verifier> = OnceLock::new();
    VERIFIER
        .get_or_init(|| SP1Verifier::new_with_machine(VerifierRecursionVks::default(), RiscvAir::machine()))
}

/// The root of the release's table of recursion keys, as words: a public input of the wrap circuit.
pub fn vk_root_words() -> [u32; 8] {
    VerifierRecursionVks::default().root().map(|felt| felt.as_canonical_u32())
}

/// Verifies a compressed proof: the recursion proof, its program, exit code 0, and that the public values are the ones
/// committed to (by BLAKE3 as our guests do, or by SHA-256).
///
/// # Errors
/// [`WorkerError::Verify`], or [`WorkerError::PublicInput`] if it proves another program.
pub fn compressed_proof(proof: &CompressedProof, program: &[u32; 8]) -> Result<(), WorkerError> {
    let what = CompressedProof::NAME;
    let got = proof.vk.hash_u32();
    if got != *program {
        let (expected, got) = (format!("{program:08x?}"), format!("{got:08x?}"));
        return Err(WorkerError::PublicInput { name: "program", expected, got });
    }
    verifier()
        .verify_compressed(&proof.proof, &proof.vk)
        .map_err(|e| WorkerError::Verify { what, reason: e.to_string() })?;
    let values = proof.recursion_values()?;
    let code = values.exit_code.as_canonical_u32();
    if code != 0 {
        return Err(WorkerError::GuestExit { code });
    }
    check_committed(what, &committed_digest(values), &proof.public_values)
}

/// Decodes and verifies a compressed proof; returns the public values.
///
/// # Errors
/// As [`compressed_proof`], or the errors of [`ProofFile::decode`].
pub fn compressed(bytes: &[u8], program: &[u32; 8]) -> Result<Vec<u8>, WorkerError> {
    let proof = CompressedProof::decode(bytes)?;
    compressed_proof(&proof, program)?;
    Ok(proof.public_values)
}

/// Verifies the proof of a part, a recursion proof of this release, complete or not, and returns its public values: what it is
/// about is for the caller to compare ([`crate::cluster::ClusterTask::check`]).
///
/// # Errors
/// [`WorkerError::Decode`], [`WorkerError::Verify`].
pub fn part(bytes: &[u8]) -> Result<RecursionPublicValues<SP1Field>, WorkerError> {
    let what = "part";
    let fails = |reason: String| WorkerError::Verify { what, reason };
    let proof: InnerProof = bincode::deserialize(bytes)
        .map_err(|error| WorkerError::Decode { what, reason: error.to_string() })?;
    let values = recursion_values(&proof.proof.public_values)?;
    let verifier = verifier();
    let mut challenger = verifier.compress.challenger();
    proof.vk.observe_into(&mut challenger);
    verifier
        .compress
        .verify_shard(&proof.vk, &proof.proof, &mut challenger)
        .map_err(|error| fails(error.to_string()))?;
    if !is_recursion_public_values_valid(values) {
        return Err(fails("its public values do not hash to their digest".to_owned()));
    }
    if values.vk_root != verifier.recursion_vks.root()
        || !verifier.recursion_vks.verify(&proof.vk_merkle_proof, &proof.vk)
    {
        return Err(fails("its key is not in the release's table of recursion keys".to_owned()));
    }
    Ok(*values)
}

/// Verifies the shard proofs of an execution.
///
/// # Errors
/// [`WorkerError::Verify`].
pub fn core_proof(proof: &CoreProof) -> Result<(), WorkerError> {
    verifier()
        .verify(&proof.proof, &proof.vk)
        .map_err(|e| WorkerError::Verify { what: CoreProof::NAME, reason: e.to_string() })
}

/// Verifies a wrap proof against the release's wrap key, for the program with key `vk`.
///
/// # Errors
/// [`WorkerError::Verify`].
pub fn wrap_proof(proof: &WrapProof, vk: &sp1_hypercube::SP1VerifyingKey) -> Result<(), WorkerError> {
    verifier()
        .verify_wrap_bn254(&proof.proof, vk)
        .map_err(|e| WorkerError::Verify { what: WrapProof::NAME, reason: e.to_string() })
}

fn check_committed(
    what: &'static str,
    committed: &[u8; 32],
    public_values: &[u8],
) -> Result<(), WorkerError> {
    use sha2::Digest;
    let blake3 = public_value_digest_unmasked(public_values);
    let sha256: [u8; 32] = sha2::Sha256::digest(public_values).into();
    let committed = mask(*committed);
    if committed == mask(blake3) || committed == mask(sha256) {
        return Ok(());
    }
    let reason =
        format!("public values hash to {}, committed {}", hex::encode(blake3), hex::encode(committed));
    Err(WorkerError::Verify { what, reason })
}

/// Verifies a Groth16 proof under its one-input key; see [`crate::groth16::verify`].
///
/// # Errors
/// As there.
pub fn groth16(vk_bin: &[u8], proof_bin: &[u8], fold_public_values: &[u8]) -> Result<(), WorkerError> {
    crate::groth16::verify(vk_bin, proof_bin, fold_public_values)
}
