//! A small proof of each kind, made and verified: whether this machine and its device can prove at all.

use std::path::Path;

use assay_kernels::backend::Backend;
use assay_kernels::groth16::{setup, silent, synthetic, verify, Check, Groth16Error, ProvingKey, ToxicWaste};

use crate::device::memory_bytes_most;
use crate::error::WorkerError;

/// What the small program of the zkVM commits to.
pub(super) const PUBLIC_VALUES: &[u8] = b"assay: can this machine prove?";
/// Rounds of its loop: some 20,000 cycles.
pub(super) const LOOPS: u32 = 10_000;
/// Constraints of the small circuit; its domain is full.
const CONSTRAINTS: usize = (1 << 12) - 2;

/// What a small Groth16 proof, verified, was made on, and its constraints. On a GPU no step may fall back to the processor. Files are in
/// `dir` and removed. Cost: about a second.
pub(super) fn groth16(dir: &Path) -> Result<(String, u64), WorkerError> {
    let folder = dir.join(format!("check-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(WorkerError::io("create", &folder))?;
    let made = prove(&folder.join("key"));
    let _ = std::fs::remove_dir_all(&folder);
    match made.map_err(|error| WorkerError::Groth16 { reason: error.to_string() })? {
        (device, true) => Ok((device, CONSTRAINTS as u64)),
        (device, false) => {
            Err(WorkerError::Verify { what: "groth16 proof", reason: format!("made on {device}") })
        }
    }
}

/// What the proof was made on, and whether it is right.
fn prove(key: &Path) -> Result<(String, bool), Groth16Error> {
    let (system, z) = synthetic::circuit(CONSTRAINTS);
    let circuit = [0; 32];
    setup(&system, circuit, key, ToxicWaste::random()?, &silent)?;
    let key = ProvingKey::open(key, &circuit, Check::Points)?;
    let backend = Backend::auto_within(memory_bytes_most()).without_fallback();
    let proof = backend.prove(&key, &system, &z, &silent)?;
    let is_right = verify(key.verifying_key(), &z[1..system.num_instance], &proof)?;
    Ok((backend.describe(), is_right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_groth16_proof_is_made_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (device, constraints) = groth16(dir.path()).unwrap();
        assert!(!device.is_empty());
        assert_eq!(constraints, 4094);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
