//! Claims for tests.

#![allow(dead_code, reason = "each test binary uses its part")]

use assay_l1::{ClaimInput, EpochParams};

pub(crate) const CODE_ROOT: [u8; 32] = [0xc0; 32];

pub(crate) fn params() -> EpochParams {
    EpochParams { start_commitment: state(0), code_root: CODE_ROOT, verifier_commitment: [0xee; 32] }
}

/// State commitment after `index` batches.
pub(crate) fn state(index: u32) -> [u8; 32] {
    blake3::hash(&index.to_le_bytes()).into()
}

/// Batch `index`, from state `index` to the next, with `len` bytes of data that do not compress.
pub(crate) fn claim(index: u32, len: usize) -> ClaimInput {
    let mut data = vec![0; len];
    blake3::Hasher::new().update(&index.to_le_bytes()).finalize_xof().fill(&mut data);
    with_digest(ClaimInput {
        prev_commitment: state(index),
        new_commitment: state(index + 1),
        batch_hash: blake3::hash(&data).into(),
        code_root: CODE_ROOT,
        digest: [0; 32],
        proof: vec![0xaa; 128],
        batch_data: data,
    })
}

/// The claim with the digest that its values have.
pub(crate) fn with_digest(mut input: ClaimInput) -> ClaimInput {
    let values = [input.prev_commitment, input.new_commitment, input.batch_hash, input.code_root];
    input.digest = blake3::hash(&values.concat()).into();
    input.digest[0] &= 0x1f;
    input
}
