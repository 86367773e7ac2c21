//! Groth16 over BN254 for circuits of 10^7 constraints on a machine with two cores.
//!
//! * [`setup`] streams a proving key to a memory-mappable file. It draws the trapdoor itself, so whoever ran it could forge
//!   proofs: the file, and every report that is built on it, says INSECURE.
//! * [`ProvingKey::open_pinned`] maps the file and checks hashes, points, and whether it is the pinned one; points are used
//!   in place, never decoded.
//! * [`prove`] makes an ordinary [`ark_groth16::Proof`] and verifies it before it returns.
//! * [`specialise`] folds constant public inputs into a verifying key.
//! * [`snarkjs`] reads and writes the JSON of snarkjs and circom.
//!
//! # The quotient
//! With `a(x)`, `b(x)`, `c(x)` the interpolations of `Az`, `Bz`, `Cz` on the domain `H` of `n` points and `h = (ab - c) / (x^n - 1)`,
//! a prover needs `h(tau)` in the exponent. On the coset `gH`, `x^n` is the constant `k = g^n`, hence the polynomial of degree
//! below `n` that agrees with `ab` there is `p = (k - 1) h + c`. So `h(tau) = (p(tau) - c(tau)) / (k - 1)`: `p(tau)` is an inner
//! product of the values `a b` on the coset with Lagrange values, which are the H section of the key, and `c(tau)` is linear
//! in `z` and folded into the L section. That leaves four transforms of the usual seven, no sorting, and no matrix `C` at
//! proving time; the proof is the same group elements as with the textbook key of the same trapdoor.
//!
//! The key's elements are linear combinations of the textbook ones plus one more power, `tau^(n-1) (tau^n - 1) / delta`. The
//! knowledge-soundness argument does not use the degree of `h` (any polynomial `h` shows divisibility), so that power gives
//! a cheating prover nothing; and whoever has the textbook elements of a ceremony with that power can compute these.
//!
//! Domains have `2^k`, `3 * 2^k` or `9 * 2^k` points ([`crate::ntt`]); as in libsnark and arkworks, the public inputs get a row
//! `z_i * 0 = 0` each behind the constraints.

mod fixed_base;
mod key;
mod prover;
mod setup;
pub mod snarkjs;
mod specialise;
pub mod synthetic;

pub use key::{Check, Opening, Origin, ProvingKey, INSECURE_TEXT};
pub(crate) use prover::{
    blinding, domain_size, parts_on, proof_memory, prove_from, prove_on_cpu, Blinding, DeviceKey,
};
pub use prover::{host_bytes, prove, prove_with, verify, ProofMemory};
pub use setup::{setup, ToxicWaste};
pub use specialise::specialise;

use crate::device::DeviceError;
use crate::msm::PointFault;
use crate::ntt::NttError;
use crate::r1cs::R1csError;
use std::path::PathBuf;
use thiserror::Error;

/// Called with (stage, units done, units in all) now and then, from any thread.
pub type Progress<'a> = &'a (dyn Fn(&'static str, u64, u64) + Sync);

/// A [`Progress`] that reports to nobody.
pub fn silent(_stage: &'static str, _done: u64, _total: u64) {}

/// What went wrong in set-up, key handling or proving.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Groth16Error {
    /// A file operation failed.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another process is writing the same key.
    #[error("another set-up is writing {path}")]
    Busy {
        /// The temporary file that it holds.
        path: PathBuf,
    },
    /// The file is not a proving key of this version.
    #[error("{path} is not a proving key of version {expected}: {reason}")]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// Version that this build reads.
        expected: u32,
        /// What was found.
        reason: &'static str,
    },
    /// The key was made for another circuit.
    #[error("proving key is for circuit {got}, expected {expected}")]
    WrongCircuit {
        /// Digest asked for, hexadecimal.
        expected: String,
        /// Digest in the file, hexadecimal.
        got: String,
    },
    /// The key is for the circuit, but not the one that was asked for.
    #[error("{path} is another proving key for this circuit: expected the one with hash {expected}, got {got}; every set-up makes another one")]
    WrongKey {
        /// The file.
        path: PathBuf,
        /// [`ProvingKey::hash`] asked for, hexadecimal.
        expected: String,
        /// Hash in the file, hexadecimal.
        got: String,
    },
    /// The file beside a key that names the only one that will do does not hold a hash.
    #[error("{path}: expected 64 hexadecimal digits, the hash of a proving key: write it anew, or delete the file to take the key that is there")]
    Pin {
        /// The file.
        path: PathBuf,
    },
    /// A part of the file has the wrong length or place: it was cut off, or put together wrongly.
    #[error("section {section} of the proving key has length {got}, expected {expected}: the file is not complete")]
    Length {
        /// The section.
        section: &'static str,
        /// Bytes expected.
        expected: u64,
        /// Bytes found.
        got: u64,
    },
    /// A part of the file does not hash to what the header says.
    #[error("section {section} of the proving key has hash {got}, expected {expected}: the file has changed since it was written")]
    Corrupt {
        /// The section.
        section: &'static str,
        /// Hash in the header, hexadecimal.
        expected: String,
        /// Hash of the bytes, hexadecimal.
        got: String,
    },
    /// There is something between the sections, where zeros belong.
    #[error("byte {offset} of the proving key belongs to no section and is not zero, as expected: the file has changed since it was written")]
    Padding {
        /// Of the first such byte.
        offset: usize,
    },
    /// An index names no variable, or does not come after the one before it.
    #[error("entry {index} of section {section} of the proving key is out of order: expected ascending numbers of variables")]
    InvalidIndex {
        /// The section.
        section: &'static str,
        /// Index of the first such entry.
        index: usize,
    },
    /// A point of the key cannot be used. Its hash is right, so it was written like that: whoever made the key is at fault.
    #[error(
        "point {index} of section {section} of the proving key cannot be used: {fault}; use another set-up"
    )]
    InvalidPoint {
        /// The section.
        section: &'static str,
        /// Index of the first such point.
        index: usize,
        /// What is wrong with it.
        fault: PointFault,
    },
    /// One of the single elements is the point at infinity: whoever made the key is at fault.
    #[error("element {element} of the proving key is the point at infinity; use another set-up")]
    InvalidElement {
        /// Its name.
        element: &'static str,
    },
    /// The key and the constraint system do not have the same shape.
    #[error("proving key has {expected} {what}, the circuit has {got}")]
    Shape {
        /// What differs.
        what: &'static str,
        /// The key's number.
        expected: u64,
        /// The circuit's number.
        got: u64,
    },
    /// No domain is large enough.
    #[error("no evaluation domain for the circuit")]
    Domain(#[from] NttError),
    /// The circuit has no constraints or no constant one.
    #[error("the circuit is empty")]
    EmptyCircuit,
    /// The trapdoor has a zero, or `tau` on the domain.
    #[error("the trapdoor is unusable: {reason}")]
    Trapdoor {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The assignment does not satisfy the circuit.
    #[error("assignment refused")]
    Assignment(#[from] R1csError),
    /// A finished proof did not verify although the assignment satisfies the circuit: a fault of the machine or the key.
    #[error("the proof did not verify although the assignment satisfies the circuit")]
    ProofRejected,
    /// The GPU did not do its part, and the CPU was not allowed to take over.
    #[error("the GPU did not prove")]
    Device(#[from] DeviceError),
    /// The verifying key takes another number of public inputs.
    #[error("verifying key takes {expected} public inputs, got {got}")]
    PublicInputs {
        /// Inputs that the key takes.
        expected: usize,
        /// Inputs given.
        got: usize,
    },
    /// A constant for a public input that does not exist or already has one.
    #[error("constant for public input {index} is out of range or given twice")]
    Constant {
        /// The input's index.
        index: usize,
    },
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    Randomness(String),
    /// Importing a key from a ceremony is not supported yet.
    #[error("keys from a ceremony are not supported yet")]
    CeremonyUnsupported,
    /// arkworks could not read or write an item.
    #[error("cannot encode or decode {item}: {reason}")]
    Encoding {
        /// The item.
        item: &'static str,
        /// arkworks' words.
        reason: String,
    },
}

impl Groth16Error {
    fn io(operation: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }
}
