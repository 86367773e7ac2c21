//! The circuit as its users see it.

use crate::builder::{Builder, PUBLIC_INPUTS};
use crate::compile::{Compiler, Output};
use crate::error::CircuitError;
use crate::ir::{Program, OPCODES};
use crate::merkle::Top;
use crate::poseidon::fr_from_zkvm;
use crate::stats::Stats;
use crate::steps::{Inputs, Runner, Step};
use ark_bn254::Fr;
use ark_ff::{BigInteger, One, PrimeField, Zero};
use assay_kernels::r1cs::{R1cs, R1csError, SparseMatrix};
use assay_kernels::secret::Secret;
use num_bigint::BigInt;
use slop_algebra::{AbstractExtensionField, PrimeField32};
use sp1_hypercube::{MachineVerifyingKey, SP1PcsProofOuter, ShardProof};
use sp1_primitives::{SP1ExtensionField, SP1Field, SP1OuterGlobalContext};
use sp1_prover::build::{build_constraints_and_witness, OuterWitness};
use sp1_recursion_compiler::config::OuterConfig;
use sp1_recursion_compiler::constraints::opcodes::ConstraintOpcode as Op;
use sp1_recursion_compiler::constraints::Constraint;
use std::collections::HashMap;
use std::mem::discriminant;

/// Key of the wrap program.
pub type WrapVerifyingKey = MachineVerifyingKey<SP1OuterGlobalContext>;
/// A wrap proof.
pub type WrapProof = ShardProof<SP1OuterGlobalContext, SP1PcsProofOuter>;

/// An R1CS over BN254's scalar field that is satisfied by the valid wrap proofs under one key.
///
/// Variables: the constant one, five public inputs (hash of the guest program's key, digest of the committed values, exit
/// code, root of the recursion keys, nonce), then the private ones. The system depends on the operations that the zkVM
/// exports for the key, and on nothing of the proof.
#[derive(Debug)]
pub struct WrapCircuit {
    r1cs: R1cs,
    hints: SparseMatrix,
    integers: Vec<BigInt>,
    steps: Vec<Step>,
    tops: Vec<Top>,
    stats: Stats,
    stretches: Vec<(u32, u8)>,
    operations: [u8; 32],
    digest: [u8; 32],
}

impl WrapCircuit {
    /// Builds the circuit for proofs under `vk`; `proof` serves as a template for shapes only.
    ///
    /// Cost: some seven seconds and 3 GiB, most of it the matrices.
    ///
    /// # Errors
    /// [`CircuitError`] if the zkVM exports an operation that is unknown or malformed.
    pub fn build(vk: &WrapVerifyingKey, proof: &WrapProof) -> Result<Self, CircuitError> {
        let (constraints, _) = export(vk, proof)?;
        check_commitments(&constraints)?;
        Self::from_operations(&constraints)
    }

    /// Builds the circuit for a list of exported operations.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn from_operations(constraints: &[Constraint]) -> Result<Self, CircuitError> {
        let operations = operations_digest(constraints);
        let program = Program::parse(constraints)?;
        let Output { builder, tops } = Compiler::new(&program).run()?;
        let Builder { mut r1cs, hints, integers, steps, mut stats, stretches, .. } = {
            let mut builder = builder;
            builder.r1cs.num_instance = 1 + PUBLIC_INPUTS as usize;
            builder.r1cs.num_witness = builder.variables() as usize - builder.r1cs.num_instance;
            builder
        };
        for matrix in [&mut r1cs.a, &mut r1cs.b, &mut r1cs.c] {
            matrix.row_ends.shrink_to_fit();
            matrix.columns.shrink_to_fit();
            matrix.coefficients.shrink_to_fit();
        }
        let matrices = [&r1cs.a, &r1cs.b, &r1cs.c];
        let touched = matrices.map(|matrix| touched(matrix, r1cs.num_variables()));
        stats.finish(&program.counts, r1cs.num_variables(), matrices.map(SparseMatrix::entries), touched);
        let digest = system_digest(&r1cs);
        tracing::info!(constraints = r1cs.num_constraints(), "wrap circuit built");
        Ok(Self { r1cs, hints, integers, steps, tops: tops.tables, stats, stretches, operations, digest })
    }

    /// The constraint system.
    pub fn r1cs(&self) -> &R1cs {
        &self.r1cs
    }

    /// Constraint counts by operation and purpose.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// BLAKE3 of the constraint system: the key under which Groth16 parameters are cached.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The full assignment for a proof: the constant one, the public inputs, the private variables.
    ///
    /// The assignment is computed, not checked: [`Self::check`] says whether it satisfies the system. It is wiped when it is dropped.
    ///
    /// # Errors
    /// `OtherCircuit` if the zkVM exports other operations for this key and proof than the circuit was built from.
    pub fn assign(&self, vk: &WrapVerifyingKey, proof: &WrapProof) -> Result<Secret, CircuitError> {
        let (constraints, witness) = export(vk, proof)?;
        let got = operations_digest(&constraints);
        drop(constraints);
        if got != self.operations {
            return Err(CircuitError::OtherCircuit {
                expected: blake3::Hash::from(self.operations).to_hex().to_string(),
                got: blake3::Hash::from(got).to_hex().to_string(),
            });
        }
        self.assign_inputs(&inputs(&witness))
    }

    /// The full assignment for an exported witness.
    ///
    /// # Errors
    /// `WitnessTooShort` if the circuit reads more values.
    pub fn assign_witness(&self, witness: &OuterWitness<OuterConfig>) -> Result<Secret, CircuitError> {
        self.assign_inputs(&inputs(witness))
    }

    pub(crate) fn assign_inputs(&self, inputs: &Inputs) -> Result<Secret, CircuitError> {
        let mut values = Secret::filled(Fr::zero(), self.r1cs.num_variables());
        values[0] = Fr::one();
        values[1..6].copy_from_slice(&inputs.public);
        let Self { r1cs, hints, integers, tops, .. } = self;
        Runner { system: r1cs, hints, integers, tops, inputs, values }.run(&self.steps)
    }

    /// Checks an assignment against every row.
    ///
    /// # Errors
    /// `Unsatisfied` with the first row that fails and the operation it comes from.
    pub fn check(&self, assignment: &[Fr]) -> Result<(), CircuitError> {
        match self.r1cs.check(assignment) {
            Ok(()) => Ok(()),
            Err(R1csError::Unsatisfied { row }) => {
                Err(CircuitError::Unsatisfied { row, origin: self.origin_of(row) })
            }
            Err(other) => Err(CircuitError::Unsupported { message: other.to_string() }),
        }
    }

    #[cfg(test)]
    pub(crate) fn hints(&self) -> &SparseMatrix {
        &self.hints
    }

    #[cfg(test)]
    pub(crate) fn integers(&self) -> &[BigInt] {
        &self.integers
    }

    #[cfg(test)]
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The exported operation that a row belongs to.
    pub fn origin_of(&self, row: usize) -> &'static str {
        let after = self.stretches.partition_point(|&(first, _)| first as usize <= row);
        self.stretches.get(after.wrapping_sub(1)).map_or("none", |&(_, origin)| OPCODES[origin as usize])
    }
}

/// Asks the zkVM for its outer verifier.
fn export(
    vk: &WrapVerifyingKey,
    proof: &WrapProof,
) -> Result<(Vec<Constraint>, OuterWitness<OuterConfig>), CircuitError> {
    build_constraints_and_witness(vk, proof)
        .map_err(|error| CircuitError::Export { message: format!("{error:#}") })
}

/// Every public input is committed to exactly once: one that is not would be free.
pub(crate) fn check_commitments(constraints: &[Constraint]) -> Result<(), CircuitError> {
    let commitments = [
        Op::CommitVkeyHash,
        Op::CommitCommitedValuesDigest,
        Op::CommitExitCode,
        Op::CommitVkRoot,
        Op::CommitProofNonce,
    ];
    for commitment in commitments {
        let is_it = |constraint: &&Constraint| discriminant(&constraint.opcode) == discriminant(&commitment);
        let count = constraints.iter().filter(is_it).count();
        if count != 1 {
            let message = format!("{count} times {commitment:?}, expected once");
            return Err(CircuitError::Unsupported { message });
        }
    }
    Ok(())
}

fn inputs(witness: &OuterWitness<OuterConfig>) -> Inputs {
    let coefficients = |value: &SP1ExtensionField| -> [u32; 4] {
        let slice: &[SP1Field] = value.as_base_slice();
        std::array::from_fn(|i| slice[i].as_canonical_u32())
    };
    let public = [
        &witness.vkey_hash,
        &witness.committed_values_digest,
        &witness.exit_code,
        &witness.vk_root,
        &witness.proof_nonce,
    ];
    Inputs {
        vars: witness.vars.iter().map(fr_from_zkvm).collect(),
        felts: witness.felts.iter().map(|value| value.as_canonical_u32()).collect(),
        exts: witness.exts.iter().map(coefficients).collect(),
        public: public.map(fr_from_zkvm),
    }
}

fn operations_digest(constraints: &[Constraint]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut names: HashMap<std::mem::Discriminant<_>, String> = HashMap::new();
    let mut buffer = Vec::with_capacity(1 << 16);
    for constraint in constraints {
        let key = std::mem::discriminant(&constraint.opcode);
        let name = names.entry(key).or_insert_with(|| format!("{:?}", constraint.opcode));
        buffer.extend_from_slice(name.as_bytes());
        for list in &constraint.args {
            buffer.push(b'[');
            for argument in list {
                buffer.push(b' ');
                buffer.extend_from_slice(argument.as_bytes());
            }
        }
        buffer.push(b'\n');
        if buffer.len() > 1 << 15 {
            hasher.update(&buffer);
            buffer.clear();
        }
    }
    hasher.update(&buffer);
    *hasher.finalize().as_bytes()
}

fn touched(matrix: &SparseMatrix, variables: usize) -> usize {
    let mut seen = vec![false; variables];
    matrix.columns.iter().for_each(|&column| seen[column as usize] = true);
    seen.iter().filter(|&&seen| seen).count()
}

fn system_digest(system: &R1cs) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"assay wrap circuit r1cs 1");
    for number in [system.num_instance, system.num_witness, system.num_constraints()] {
        hasher.update(&(number as u64).to_le_bytes());
    }
    hasher.update(&(system.coefficients.values().len() as u64).to_le_bytes());
    for value in system.coefficients.values() {
        hasher.update(&value.into_bigint().to_bytes_le());
    }
    let mut buffer = Vec::with_capacity(1 << 16);
    for matrix in [&system.a, &system.b, &system.c] {
        hasher.update(&(matrix.entries() as u64).to_le_bytes());
        for chunk in matrix.row_ends.chunks(1 << 12) {
            buffer.clear();
            chunk.iter().for_each(|value| buffer.extend_from_slice(&value.to_le_bytes()));
            hasher.update(&buffer);
        }
        for list in [&matrix.columns, &matrix.coefficients] {
            for chunk in list.chunks(1 << 13) {
                buffer.clear();
                chunk.iter().for_each(|value| buffer.extend_from_slice(&value.to_le_bytes()));
                hasher.update(&buffer);
            }
        }
    }
    *hasher.finalize().as_bytes()
}
