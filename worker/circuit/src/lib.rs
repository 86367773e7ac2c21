//! The wrap circuit: an R1CS that verifies the zkVM's outer proof.
//!
//! The zkVM exports its outer verifier as a list of 1.6 million simple operations. This crate compiles them to sparse matrices over
//! BN254's scalar field and to a program that computes all variables from a proof, which is what a Groth16 prover needs.
//!
//! Layer: above `kernels` (matrices), below `worker`. It knows no files, tasks or keys.
//!
//! Invariants: the system depends on the exported operations only, never on a proof's values; every value that is handed out as
//! bits is canonical; no integer's magnitude reaches 2^250, so equations modulo BN254's order are equations of integers.
//!
//! Reading order: `ir` (operations in single-assignment form), `koala` (lazy reduction, the heart of it), `ext`, `poseidon`, `merkle`,
//! `compile`, `steps`. The README collects the soundness arguments and the table of constraints.
//!
//! ```no_run
//! use assay_worker_circuit::{CircuitError, WrapCircuit, WrapProof, WrapVerifyingKey};
//!
//! fn check(vk: &WrapVerifyingKey, proof: &WrapProof) -> Result<(), CircuitError> {
//!     let circuit = WrapCircuit::build(vk, proof)?;
//!     println!("{}", circuit.stats());
//!     let assignment = circuit.assign(vk, proof)?;
//!     circuit.check(&assignment)
//! }
//! ```

mod bits;
mod builder;
mod circuit;
mod compile;
mod error;
mod ext;
mod interval;
mod ir;
mod koala;
mod lc;
mod merkle;
mod permute16;
mod poseidon;
mod stats;
mod steps;
#[cfg(test)]
mod tests;

pub use circuit::{WrapCircuit, WrapProof, WrapVerifyingKey};
pub use error::CircuitError;
pub use stats::Stats;
