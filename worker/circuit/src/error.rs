//! What can go wrong when the wrap circuit is built or assigned.

use thiserror::Error;

/// Failures of [`crate::WrapCircuit`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CircuitError {
    /// The zkVM could not export its verifier for this key and proof.
    #[error("the zkVM did not export the verifier: {message}")]
    Export {
        /// What the zkVM said.
        message: String,
    },
    /// An exported operation is not known to this crate.
    #[error("operation {position} is {opcode}, which this circuit does not know")]
    UnknownOpcode {
        /// Its name.
        opcode: String,
        /// Its place in the list.
        position: usize,
    },
    /// An operation has too few arguments.
    #[error("operation {position} lacks argument {argument}")]
    MissingArgument {
        /// Place of the operation in the list.
        position: usize,
        /// Index of the argument.
        argument: usize,
    },
    /// An argument is not a name or number of the expected form.
    #[error("argument {argument:?} is not of the expected form")]
    BadArgument {
        /// The argument.
        argument: String,
    },
    /// A name is used before its definition.
    #[error("{name} is used before it is defined")]
    UndefinedName {
        /// The name.
        name: String,
    },
    /// The operations would need what this circuit does not offer.
    #[error("unsupported operation: {message}")]
    Unsupported {
        /// What was asked for.
        message: String,
    },
    /// The proof is not of the shape that the circuit was built for.
    #[error("proof of another shape: the circuit has operations {expected}, the proof gives {got}")]
    OtherCircuit {
        /// BLAKE3 of the operations that the circuit was built from, in hexadecimal.
        expected: String,
        /// BLAKE3 of the operations exported for the proof.
        got: String,
    },
    /// The witness lacks a value that the circuit reads.
    #[error("witness has {got} {kind}, value {index} is needed")]
    WitnessTooShort {
        /// Which list: `vars`, `felts` or `exts`.
        kind: &'static str,
        /// Index that is read.
        index: usize,
        /// Length of the list.
        got: usize,
    },
    /// The assignment does not satisfy the circuit, so the proof is not valid.
    #[error("the proof does not satisfy the wrap circuit: constraint {row} ({origin}) fails")]
    Unsatisfied {
        /// First row that fails.
        row: usize,
        /// Operation that the row belongs to.
        origin: &'static str,
    },
}
