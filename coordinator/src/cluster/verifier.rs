//! Checks what workers return, and that a batch's proof states what the batch says.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assay_lvm::Batch;
use assay_lvm_core::FoldPublicValues;
use assay_schedule::{Facts, Kind, Parent, Role, Stage};
use assay_service::work::{Claim, Judgement, Verifier};
use assay_worker::cluster::{CheckError, ClusterTask, Rules, SHARD_FILES};
use assay_worker::error::WorkerError;

use super::epoch::Epoch;
use super::output;
use crate::fsio::{self, io_error, FileError};
use crate::shell::one_line;

/// Pause before a check is repeated that this machine could not make.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The zkVM's verifier, and the pinned key.
#[derive(Clone, Debug)]
pub struct TaskVerifier {
    version: u32,
    rules: Rules,
    verifying_key: [u8; 32],
    scratch: PathBuf,
}

/// Why a result is not found right.
enum Fault {
    /// It is wrong.
    Wrong(String),
    /// It cannot be compared with what was asked for: not the fault of whoever made it.
    Incomparable(String),
    /// This machine could not look: says nothing about the result.
    Here(String),
}

impl From<CheckError> for Fault {
    fn from(error: CheckError) -> Self {
        let reason = one_line(&error);
        match error {
            CheckError::Result(WorkerError::Io { .. }) => Self::Here(reason),
            CheckError::Request(_) => Self::Incomparable(reason),
            // Files of another version too: only workers of the batch's version have its tasks.
            _ => Self::Wrong(reason),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Here(error.to_string())
    }
}

/// The folder for files of checks; what an earlier process has left there is removed.
///
/// # Errors
/// [`FileError`].
pub fn scratch(dir: &Path) -> Result<PathBuf, FileError> {
    let scratch = dir.join("scratch");
    fsio::remove_if_present(&scratch)?;
    std::fs::create_dir_all(&scratch).map_err(io_error("create", &scratch))?;
    Ok(scratch)
}

impl TaskVerifier {
    /// A verifier under the rules and the key of an epoch. Files of checks go to `scratch`.
    pub fn new(epoch: &Epoch, scratch: PathBuf) -> Self {
        let (version, rules) = (epoch.version, epoch.rules.clone());
        Self { version, rules, verifying_key: epoch.verifying_key, scratch }
    }

    fn judge(&self, claim: &Claim, inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Result<(), Fault> {
        let dir = tempfile::tempdir_in(&self.scratch)?;
        let inputs = write(dir.path(), "in", inputs)?;
        let paths = write(dir.path(), "out", outputs)?;
        task(claim, &inputs, &self.rules)?.check(&self.rules, &paths)?;
        if claim.stage == Stage::Groth16 {
            // The task's check takes the key from the result; only the pinned one counts.
            let output = outputs.first().map(Vec::as_slice).unwrap_or_default();
            output::read(output, &self.verifying_key).map_err(|error| Fault::Wrong(error.to_string()))?;
        }
        Ok(())
    }

    /// Whether a proof states what the batch says, under the pinned key.
    fn examine(&self, facts: &Facts, payload: &[u8], proof: &[u8]) -> Result<(), String> {
        let batch = Batch::decode(payload).map_err(|error| one_line(&error))?;
        let expected = FoldPublicValues {
            prev_commitment: facts.from.0,
            new_commitment: facts.to.0,
            batch_hash: batch.hash().map_err(|error| one_line(&error))?,
            code_root: self.rules.group(facts.genesis.0).root(),
        };
        let (output, proved) = output::read(proof, &self.verifying_key).map_err(|error| error.to_string())?;
        if proved.public_values != expected.encode() {
            let (expected, got) = (hex::encode(expected.encode()), &proved.statement.public_values);
            return Err(format!("the proof states {got}, the batch says {expected}"));
        }
        assay_worker::verify::groth16(&output.verifying_key, &output.proof, &output.public_values)
            .map_err(|error| one_line(&error))
    }
}

impl Verifier for TaskVerifier {
    fn inputs_read(&self, claim: &Claim) -> usize {
        match claim.stage.kind() {
            // What comes after them is large, and its proof says nothing about it.
            Kind::Shard => SHARD_FILES,
            _ => usize::MAX,
        }
    }

    fn other_version(&self, version: u32) -> Option<String> {
        // Workers prove a batch with the programs and keys of its version.
        (version != self.version).then(|| {
            format!(
                "the batch is of version {version:08x}, and this coordinator checks and settles batches of {:08x}: have a coordinator \
                 of that version lead until it has ended, or cancel it and submit it again",
                self.version
            )
        })
    }

    fn verify(&self, claim: &Claim, inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Judgement {
        let mut wait = WAIT;
        loop {
            match self.judge(claim, inputs, outputs) {
                Ok(()) => return Judgement::Right,
                Err(Fault::Wrong(reason)) => {
                    return Judgement::Wrong { reason: format!("{:?}: {reason}", claim.stage) }
                }
                Err(Fault::Incomparable(reason)) => return Judgement::Incomparable { reason },
                Err(Fault::Here(reason)) => {
                    tracing::error!(stage = ?claim.stage, reason, "a result cannot be checked here; trying again");
                    std::thread::sleep(wait);
                    wait = (wait * 2).min(WAIT_MAX);
                }
            }
        }
    }

    fn check(&self, facts: &Facts, payload: &[u8], proof: &[u8]) -> Judgement {
        match self.examine(facts, payload, proof) {
            Ok(()) => Judgement::Right,
            Err(reason) => {
                let (chain, sequence) = (facts.chain.0, facts.sequence);
                tracing::error!(chain, sequence, reason, "a proof is not the batch's");
                Judgement::Wrong { reason }
            }
        }
    }
}

fn write(dir: &Path, name: &str, all: &[Vec<u8>]) -> io::Result<Vec<PathBuf>> {
    let write = |(number, bytes): (usize, &Vec<u8>)| {
        let path = dir.join(format!("{name}-{number}"));
        std::fs::write(&path, bytes).map(|()| path)
    };
    all.iter().enumerate().map(write).collect()
}

/// The task whose result is to be checked, over its inputs as files.
fn task<'a>(claim: &Claim, inputs: &'a [PathBuf], rules: &'a Rules) -> Result<ClusterTask<'a>, Fault> {
    let kind = claim.stage.kind();
    let bad = || Fault::Wrong(format!("a task of kind {kind} with the inputs {:?}", claim.inputs));
    if kind.is_part() {
        let program = match claim.stage.parent() {
            Some(Parent::Block { .. }) => &rules.block_program,
            _ => &rules.fold_program,
        };
        return Ok(ClusterTask::Part { files: inputs, program });
    }
    if claim.inputs.len() != inputs.len() {
        return Err(bad());
    }
    let only = |role: Role| match (claim.inputs.as_slice(), inputs) {
        ([got], [path]) if *got == role => Ok(path.as_path()),
        _ => Err(bad()),
    };
    Ok(match kind {
        Kind::Execute => ClusterTask::Split { batch: only(Role::Payload)? },
        Kind::Block => ClusterTask::Block { run: only(Role::Witness)? },
        Kind::Wrap => ClusterTask::Wrap { fold: only(Role::FoldProof)? },
        Kind::Groth16 => ClusterTask::Groth16 { wrap: only(Role::WrapProof)? },
        _ => {
            let (blocks, previous) = match (claim.inputs.split_last(), inputs.split_last()) {
                (Some((Role::PreviousFold, _)), Some((last, rest))) => (rest, Some(last.as_path())),
                _ => (inputs, None),
            };
            let roles = claim.inputs.iter().take(blocks.len());
            let are_blocks = (0..).zip(roles).all(|(run, role)| *role == Role::BlockProof { run });
            // Without it a fold would begin a history of its own.
            if blocks.is_empty() || !are_blocks || (claim.facts.sequence > 0) != previous.is_some() {
                return Err(bad());
            }
            ClusterTask::Fold { blocks, previous }
        }
    })
}

#[cfg(test)]
mod tests;
