//! Guest program `fold`: a batch's block proofs and the history before it become one proof of the whole history.
//!
//! Input: one item, `FoldInput::encode`; beside it, in the zkVM's proof stream, the compressed proofs in the order of
//! `fold::check`'s verifications: block proofs in order, then the previous fold proof if there is one.
//! Public values: `FoldPublicValues::encode`, 128 bytes, committed with BLAKE3.
//!
//! Both programs commit with BLAKE3, so the digest passed on for every proof is the plain BLAKE3 of its public values,
//! all 256 bits (only the wrap proof, where the digest becomes a BN254 scalar, clears the top three). The zkVM hashes
//! key and digest of each verified proof into this proof's public values, and the recursion that follows checks the
//! proofs against that hash, together with their exit codes being 0.
#![no_main]

sp1_zkvm::entrypoint!(main);

use assay_lvm_core::fold::{check, FoldInput};

fn main() {
    let bytes = sp1_lib::io::read_vec();
    let input = FoldInput::decode(&bytes).unwrap_or_else(|error| panic!("input: {error}"));
    let checked = check(&input).unwrap_or_else(|error| panic!("fold: {error}"));
    for proof in &checked.verifications {
        let digest = blake3::hash(&proof.public_values);
        sp1_lib::verify::verify_sp1_proof(&proof.vk.0, digest.as_bytes());
    }
    sp1_lib::io::commit_slice(&checked.public_values.encode());
}
