//! The two seams that make the machine layered: front ends (virtual machines) and back ends (proof systems).
//!
//! A virtual machine turns a batch of its own kind into runs of guest programs; a proof system executes and proves guest
//! programs. Neither knows the other: a front end hands over an ELF and bytes, a back end gives back public values and
//! proofs. The fold over runs is common to all front ends ([`assay_lvm_core::fold`]).

use std::{error::Error, path::Path};

use assay_lvm_core::{BlockPublicValues, ChainState, VkHash};

use crate::{
    batch::{Batch, Run, RunLimits},
    error::BatchError,
};

/// One proof to make: a run of the front end's block program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunJob {
    /// The guest's input.
    pub input: Vec<u8>,
    /// What the proof will state.
    pub public_values: BlockPublicValues,
    /// Measure of the work, for scheduling; gas for the EVM.
    pub work: u64,
}

/// What every front end can say about a batch that it found valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validated {
    /// The state before the batch.
    pub from: ChainState,
    /// The state after it.
    pub to: ChainState,
    /// The batch hash that the fold proof states.
    pub batch_hash: [u8; 32],
    /// Transactions in it.
    pub transactions: u64,
    /// Measure of its work; gas for the EVM.
    pub work: u64,
    /// Whether it says on which state it builds; one that does not cannot be folded into a history.
    pub is_linked: bool,
    /// The bytes to publish on Bitcoin.
    pub data: Vec<u8>,
}

/// A front end: knows batches of one kind of chain and the guest program that executes them.
pub trait VirtualMachine {
    /// A batch as this machine stores it.
    type Batch;
    /// What can be wrong with one.
    type Error: Error + Send + Sync + 'static;

    /// Name for reports, lower case.
    fn name(&self) -> &'static str;

    /// Reads a batch file; checks its format only.
    ///
    /// # Errors
    /// If the file cannot be read or is none.
    fn read(&self, path: &Path) -> Result<Self::Batch, Self::Error>;

    /// Executes the batch and checks everything about it.
    ///
    /// # Errors
    /// The first thing wrong.
    fn validate(&self, batch: &Self::Batch) -> Result<Validated, Self::Error>;

    /// Cuts the batch into runs in order, each provable by itself.
    ///
    /// # Errors
    /// If the batch does not execute.
    fn runs(&self, batch: &Self::Batch, limits: RunLimits) -> Result<Vec<RunJob>, Self::Error>;
}

/// What executing a guest program without proving it yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// The public values it committed.
    pub public_values: Vec<u8>,
    /// Cycles it took.
    pub cycles: u64,
    /// Cycles by phase, in the order the phases began.
    pub phases: Vec<(String, u64)>,
}

/// A back end: executes and proves guest programs.
///
/// Proofs of earlier programs can be inputs of later ones (`assumptions`); a proof is verified before it is returned.
pub trait ProofSystem {
    /// A program made ready for proving.
    type Program;
    /// A proof.
    type Proof;
    /// What can go wrong.
    type Error: Error + Send + Sync + 'static;

    /// Makes a program ready; computes its key.
    ///
    /// # Errors
    /// If the ELF is not a program of this system.
    fn load(&self, elf: &[u8]) -> Result<Self::Program, Self::Error>;

    /// The hash of the program's key, as the code control group holds it.
    fn key(&self, program: &Self::Program) -> VkHash;

    /// Executes a program without proving it.
    ///
    /// # Errors
    /// If the program fails on this input.
    fn execute(
        &self,
        program: &Self::Program,
        input: &[u8],
        assumptions: &[&Self::Proof],
    ) -> Result<Execution, Self::Error>;

    /// Proves a program; the proof is of constant size and has been verified.
    ///
    /// # Errors
    /// If the program fails, or the prover does.
    fn prove(
        &self,
        program: &Self::Program,
        input: &[u8],
        assumptions: &[&Self::Proof],
    ) -> Result<Self::Proof, Self::Error>;

    /// Checks that `proof` is one of `program` with these public values.
    ///
    /// # Errors
    /// If it is not.
    fn verify(
        &self,
        program: &Self::Program,
        proof: &Self::Proof,
        public_values: &[u8],
    ) -> Result<(), Self::Error>;
}

/// The Ethereum virtual machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evm;

impl VirtualMachine for Evm {
    type Batch = Batch;
    type Error = BatchError;

    fn name(&self) -> &'static str {
        "evm"
    }

    fn read(&self, path: &Path) -> Result<Batch, BatchError> {
        Batch::read(path)
    }

    fn validate(&self, batch: &Batch) -> Result<Validated, BatchError> {
        let summary = batch.validate()?;
        Ok(Validated {
            from: summary.from,
            to: summary.to,
            batch_hash: summary.batch_hash,
            transactions: summary.blocks.iter().map(|block| block.transactions as u64).sum(),
            work: summary.gas_used,
            is_linked: batch.is_linked(),
            data: batch.data(),
        })
    }

    fn runs(&self, batch: &Batch, limits: RunLimits) -> Result<Vec<RunJob>, BatchError> {
        let job = |run: Run| RunJob {
            input: run.input,
            public_values: run.output.public_values,
            work: run.output.gas_used,
        };
        Ok(batch.split_runs(limits)?.into_iter().map(job).collect())
    }
}
