//! The wrap prover's outer hash on our own field code.
//!
//! The last STARK of the pipeline ("wrap") is hashed with Poseidon2 over BN254's scalar field, so that a BN254 circuit can
//! verify it. The zkVM's own CPU prover spends nearly all of shrink and wrap in that hash. This crate gives its generic
//! prover other parts, and leaves the proof bit for bit what the verifier expects:
//! * [`OuterTcs`]: the tensor commitment scheme on [`assay_kernels::merkle`], which does not keep the lower levels of a tree;
//! * [`OuterContext`]: the outer context with a challenger that searches proof-of-work witnesses eight at a time;
//! * [`OuterWrapProver`] and [`OuterWrapProverBuilder`]: the wrap prover made of these. It commits to the constant
//!   preprocessed traces once in the life of a process, and, given a folder, once in the life of that folder.
//!
//! Layer: beside `worker`, on top of `kernels`. Non-goals: shrink (it hashes in KoalaBear, which is fast already).
//!
//! Use: name the two types in an `SP1ProverComponents` implementation ([`OuterComponents`] is one) and hand the builder to
//! `SP1WorkerBuilder::with_wrap_air_prover`.

mod cache;
mod components;
mod context;
mod convert;
mod prover;
mod tcs;
#[cfg(test)]
mod tests;

pub use cache::{CacheError, TreeCache};
pub use components::{OuterComponents, OuterWrapProverBuilder};
pub use context::{OuterChallenger, OuterContext};
pub use convert::{from_outer_field, to_outer_field, OuterDigest};
pub use prover::{OuterShardContext, OuterShardProver, OuterWrapProver};
pub use tcs::{CommittedTree, OuterTcs};
