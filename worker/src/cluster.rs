//! The tasks of a batch in a cluster: what each reads and makes, as files, and how its result is checked.
//!
//! A task's inputs are outputs of other tasks, whatever machine made them, so each file holds all that its reader needs:
//!
//! | task | reads | makes |
//! |---|---|---|
//! | split | a batch file | one `RunInput` for each run |
//! | block | a run | its compressed proof |
//! | fold | the block proofs, the previous batch's fold output | [`FoldOutput`] |
//! | wrap | a fold output | [`WrapOutput`] |
//! | groth16 | a wrap output | [`Groth16Output`] |
//! | part | a part's files | a memo entry and its files |
//!
//! [`ClusterTask::job`] and [`ClusterTask::outputs`] are the worker's side, [`ClusterTask::check`] the coordinator's: it
//! verifies a result against the inputs alone, so that a worker need not be trusted. What a part's proof says of the part is
//! in `cluster/part.rs`.

mod part;

use std::path::{Path, PathBuf};

use assay_lvm::{core as lvm_core, guests, Batch, RunLimits};
use lvm_core::{BlockPublicValues, CodeControlGroup, FoldPublicValues, RunInput, VkHash};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::part::SHARD_FILES;
use crate::engine::Until;
use crate::error::WorkerError;
use crate::files::{FileRef, Hex32};
use crate::memo::Memo;
use crate::proof::{CompressedProof, ProofFile, WrapProof, FORMAT_VERSION};
use crate::stages::{
    BlockProgram, Groth16ProveJob, Job, KeysOutcome, Outcome, ProveFoldJob, ProvePartJob, ProveRunJob,
    SplitJob, WrapJob,
};
use crate::{groth16, verify};

/// Largest file that is read whole; the largest proof is a few megabytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Changes whenever a task of this module reads, makes or checks something else than before.
const TASKS_VERSION: u32 = 1;

/// What tells a build that does the tasks of a cluster as this one does from one that does not: `Program::version` of its
/// workers, `Facts::version` of its coordinators' batches.
///
/// A hash of what program keys, circuit and tasks derive from: the guests' ELFs, the zkVM's version, the wrap circuit's
/// template, the limits of runs, the formats of proofs and parts, this package's version. Cost: milliseconds; no key is computed.
pub fn version(limits: RunLimits) -> u32 {
    version_of(&[
        &TASKS_VERSION.to_le_bytes(),
        &FORMAT_VERSION.to_le_bytes(),
        &part::PART_VERSION.to_le_bytes(),
        env!("CARGO_PKG_VERSION").as_bytes(),
        sp1_prover::SP1_CIRCUIT_VERSION.trim().as_bytes(),
        guests::BLOCK_ELF,
        guests::FOLD_ELF,
        groth16::TEMPLATE,
        &limits.gas_max.to_le_bytes(),
        &(limits.blocks_max as u64).to_le_bytes(),
    ])
}

fn version_of(items: &[&[u8]]) -> u32 {
    let mut hasher = blake3::Hasher::new_derive_key("assay-worker 1 cluster version");
    for item in items {
        hasher.update(&(item.len() as u64).to_le_bytes());
        hasher.update(item);
    }
    let mut low = [0; 4];
    low.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
    u32::from_le_bytes(low)
}

/// What all workers and coordinators of an epoch agree on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Digest of the block program's key.
    pub block_program: [u32; 8],
    /// Digest of the fold program's key.
    pub fold_program: [u32; 8],
    /// Most gas in one run of blocks.
    pub run_gas_max: u64,
    /// Most blocks in one run.
    pub run_blocks_max: u32,
}

/// A fold proof and what the batches after it need to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldOutput {
    /// Commitment of the state where all history begins.
    pub genesis_commitment: [u8; 32],
    /// The proof ([`CompressedProof`]).
    pub proof: Vec<u8>,
}

/// A wrap proof and what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrapOutput {
    /// `FoldPublicValues::encode` bytes.
    pub public_values: Vec<u8>,
    /// The proof ([`WrapProof`]).
    pub proof: Vec<u8>,
}

/// A batch's last proof, all that a verifier needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groth16Output {
    /// `FoldPublicValues::encode` bytes.
    pub public_values: Vec<u8>,
    /// `ark_groth16::Proof<Bn254>`, arkworks compressed.
    pub proof: Vec<u8>,
    /// The key specialised to one public input, arkworks compressed.
    pub verifying_key: Vec<u8>,
    /// True for parameters whose trapdoor one process drew.
    pub insecure: bool,
    /// Constraints of the circuit.
    pub constraints: u64,
}

/// A file that a task has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Where it is.
    pub path: PathBuf,
    /// Work of the task that reads it, in that task's own units; 1 where all are alike.
    pub units: u64,
}

/// Why a result is not found right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// What was asked for cannot be read, or not be proved, which says nothing about the result: whoever asked is to blame.
    #[error("the request of a part: {0}")]
    Request(#[source] WorkerError),
    /// What is wrong with the result; [`WorkerError::Io`] says nothing about it.
    #[error(transparent)]
    Result(#[from] WorkerError),
}

/// A task with its inputs on disk, under any names.
#[derive(Debug, Clone, Copy)]
pub enum ClusterTask<'a> {
    /// Execute a batch on the host and cut it into runs.
    Split {
        /// The batch file.
        batch: &'a Path,
    },
    /// Prove a run of blocks.
    Block {
        /// The run.
        run: &'a Path,
    },
    /// Prove that a batch's runs extend the history.
    Fold {
        /// Compressed proofs of the runs, in block order.
        blocks: &'a [PathBuf],
        /// Output of the batch before; none where the history begins.
        previous: Option<&'a Path>,
    },
    /// Shrink and wrap a fold proof.
    Wrap {
        /// The fold output.
        fold: &'a Path,
    },
    /// The Groth16 proof.
    Groth16 {
        /// The wrap output.
        wrap: &'a Path,
    },
    /// A part of a block or fold proof.
    Part {
        /// Its header, then its pieces.
        files: &'a [PathBuf],
        /// Digest of the key of the program that it is about.
        program: &'a [u32; 8],
    },
}

impl Rules {
    /// The rules that follow from the keys of this build's programs, as a child has computed them.
    pub fn of_keys(keys: &KeysOutcome, limits: RunLimits) -> Self {
        Self {
            block_program: keys.block.vk_words,
            fold_program: keys.fold.vk_words,
            run_gas_max: limits.gas_max,
            run_blocks_max: u32::try_from(limits.blocks_max).unwrap_or(u32::MAX),
        }
    }

    /// The code control group of a history.
    pub fn group(&self, genesis_commitment: [u8; 32]) -> CodeControlGroup {
        let (block, fold) = (VkHash(self.block_program), VkHash(self.fold_program));
        guests::code_control_group(genesis_commitment, block, fold)
    }

    fn limits(&self) -> RunLimits {
        RunLimits { gas_max: self.run_gas_max, blocks_max: self.run_blocks_max as usize }
    }
}

impl ClusterTask<'_> {
    /// The job that a child process is given. Files it needs are written to `dir`; `delegated`: parts that others may prove
    /// at the same time.
    ///
    /// # Errors
    /// [`WorkerError::Decode`] for an input that is none, [`WorkerError::Io`].
    pub fn job(&self, rules: &Rules, dir: &Path, delegated: u32) -> Result<Job, WorkerError> {
        Ok(match *self {
            Self::Split { batch } => Job::Split(SplitJob {
                batch: FileRef::of(batch)?,
                run_gas_max: rules.run_gas_max,
                run_blocks_max: rules.run_blocks_max,
                output_dir: dir.to_owned(),
            }),
            Self::Block { run } => Job::ProveRun(ProveRunJob {
                run: FileRef::of(run)?,
                until: Until::Compressed,
                delegated,
                output: dir.join("block.proof"),
            }),
            Self::Fold { blocks, previous } => {
                let previous = previous.map(read::<FoldOutput>).transpose()?;
                let genesis = genesis_commitment(blocks, previous.as_ref())?;
                let store =
                    |previous: FoldOutput| FileRef::write(&dir.join("previous.proof"), &previous.proof);
                Job::ProveFold(ProveFoldJob {
                    runs: blocks.iter().map(FileRef::of).collect::<Result<_, _>>()?,
                    previous: previous.map(store).transpose()?,
                    genesis_commitment: Hex32(genesis),
                    block_programs: BlockProgram::all_of(&rules.group(genesis)),
                    until: Until::Compressed,
                    delegated,
                    output: dir.join("fold.proof"),
                })
            }
            Self::Wrap { fold } => {
                let fold: FoldOutput = read(fold)?;
                let fold = FileRef::write(&dir.join("fold.proof"), &fold.proof)?;
                Job::Wrap(WrapJob { fold, output: dir.join("wrap.proof") })
            }
            Self::Groth16 { wrap } => {
                let wrap: WrapOutput = read(wrap)?;
                Job::Groth16Prove(Groth16ProveJob {
                    wrap: FileRef::write(&dir.join("wrap.proof"), &wrap.proof)?,
                    fold_public_values: wrap.public_values.into(),
                    fold_program: rules.fold_program,
                    output_dir: dir.to_owned(),
                })
            }
            Self::Part { files, .. } => Job::ProvePart(ProvePartJob {
                files: files.iter().map(FileRef::of).collect::<Result<_, _>>()?,
                output_dir: dir.join("part"),
            }),
        })
    }

    /// The files to publish, in order, once the job has returned `outcome`.
    ///
    /// # Errors
    /// [`WorkerError::Internal`] for the outcome of another job, [`WorkerError::Decode`], [`WorkerError::Io`].
    pub fn outputs(&self, outcome: &Outcome, dir: &Path) -> Result<Vec<Made>, WorkerError> {
        let one = |path: PathBuf| Ok(vec![Made { path, units: 1 }]);
        match (*self, outcome) {
            (Self::Split { .. }, Outcome::Split(split)) => Ok(split
                .runs
                .iter()
                .map(|run| Made { path: run.file.path.clone(), units: run.gas })
                .collect()),
            (Self::Block { .. }, Outcome::ProveRun(proof)) => one(proof.proof.path.clone()),
            (Self::Fold { blocks, previous }, Outcome::ProveFold(proof)) => {
                let previous = previous.map(read::<FoldOutput>).transpose()?;
                let genesis_commitment = genesis_commitment(blocks, previous.as_ref())?;
                let output = FoldOutput { genesis_commitment, proof: proof.proof.read()? };
                one(write(&dir.join("fold.output"), &output)?)
            }
            (Self::Wrap { fold }, Outcome::Wrap(wrap)) => {
                let fold: FoldOutput = read(fold)?;
                let public_values = CompressedProof::decode(&fold.proof)?.public_values;
                let output = WrapOutput { public_values, proof: wrap.proof.read()? };
                one(write(&dir.join("wrap.output"), &output)?)
            }
            (Self::Groth16 { wrap }, Outcome::Groth16Prove(proved)) => {
                let output = Groth16Output {
                    public_values: read::<WrapOutput>(wrap)?.public_values,
                    proof: proved.proof.read()?,
                    verifying_key: proved.verifying_key.read()?,
                    insecure: proved.insecure,
                    constraints: proved.constraints,
                };
                one(write(&dir.join("groth16.output"), &output)?)
            }
            (Self::Part { .. }, Outcome::ProvePart(part)) => {
                Ok(part.files.iter().map(|file| Made { path: file.path.clone(), units: 1 }).collect())
            }
            _ => Err(WorkerError::internal("the job's outcome is another job's")),
        }
    }

    /// Checks a worker's result against the task's inputs, which have been checked before, but for those of a part: of a shard
    /// the first [`SHARD_FILES`] are enough.
    ///
    /// # Errors
    /// [`CheckError::Result`] with what is wrong: [`WorkerError::Decode`], [`WorkerError::Verify`],
    /// [`WorkerError::PublicInput`]; [`CheckError::Request`].
    pub fn check(&self, rules: &Rules, outputs: &[PathBuf]) -> Result<(), CheckError> {
        if let Self::Part { files, program } = *self {
            let values = verify::part(&Memo::proof_of(outputs)?)?;
            return part::check(files, program, &values);
        }
        Ok(self.check_whole(rules, outputs)?)
    }

    fn check_whole(&self, rules: &Rules, outputs: &[PathBuf]) -> Result<(), WorkerError> {
        match *self {
            Self::Split { batch } => check_runs(batch, rules, outputs),
            Self::Block { run } => {
                let values = verify::compressed(&read_file(only(outputs)?)?, &rules.block_program)?;
                let bytes = read_file(run)?;
                let input = RunInput::decode(&bytes)
                    .map_err(|e| WorkerError::Decode { what: "run", reason: e.to_string() })?;
                let executed = lvm_core::execute_run(&input, &mut ())
                    .map_err(|e| WorkerError::Execution { reason: e.to_string() })?;
                same("public_values", &executed.public_values.encode(), &values)
            }
            Self::Fold { blocks, previous } => check_fold(blocks, previous, rules, only(outputs)?),
            Self::Wrap { fold } => {
                let fold: FoldOutput = read(fold)?;
                let fold = CompressedProof::decode(&fold.proof)?;
                let output: WrapOutput = read(only(outputs)?)?;
                same("public_values", &fold.public_values, &output.public_values)?;
                let wrap = WrapProof::decode(&output.proof)?;
                verify::wrap_proof(&wrap, &fold.vk)?;
                let statement =
                    groth16::Statement { program: rules.fold_program, public_values: output.public_values };
                statement.check(&groth16::wrap_inputs(&wrap)?)
            }
            Self::Groth16 { wrap } => {
                let wrap: WrapOutput = read(wrap)?;
                let output: Groth16Output = read(only(outputs)?)?;
                same("public_values", &wrap.public_values, &output.public_values)?;
                verify::groth16(&output.verifying_key, &output.proof, &output.public_values)
            }
            Self::Part { .. } => Err(WorkerError::internal("a part is checked by its files")),
        }
    }
}

fn check_runs(batch: &Path, rules: &Rules, outputs: &[PathBuf]) -> Result<(), WorkerError> {
    let refused = |error: assay_lvm::BatchError| WorkerError::Execution { reason: error.to_string() };
    let batch = Batch::read(batch).map_err(refused)?;
    batch.validate().map_err(refused)?;
    let runs = batch.split_runs(rules.limits()).map_err(refused)?;
    if runs.len() != outputs.len() {
        let (expected, got) = (runs.len().to_string(), outputs.len().to_string());
        return Err(WorkerError::PublicInput { name: "runs", expected, got });
    }
    for (run, output) in runs.iter().zip(outputs) {
        same("run", &run.input, &read_file(output)?)?;
    }
    Ok(())
}

fn check_fold(
    blocks: &[PathBuf],
    previous: Option<&Path>,
    rules: &Rules,
    output: &Path,
) -> Result<(), WorkerError> {
    let previous = previous.map(read::<FoldOutput>).transpose()?;
    let output: FoldOutput = read(output)?;
    let genesis = genesis_commitment(blocks, previous.as_ref())?;
    same("genesis_commitment", &genesis, &output.genesis_commitment)?;
    let values = verify::compressed(&output.proof, &rules.fold_program)?;
    let (first, last) = match (blocks.first(), blocks.last()) {
        (Some(first), Some(last)) => (block_values(first)?, block_values(last)?),
        _ => return Err(WorkerError::Decode { what: "fold", reason: "no block proof".to_owned() }),
    };
    let expected = FoldPublicValues {
        prev_commitment: first.from_state,
        new_commitment: last.to_state,
        batch_hash: last.to_batch_acc.0,
        code_root: rules.group(genesis).root(),
    };
    same("public_values", &expected.encode(), &values)
}

/// Where the history begins: what the batch before says, else the state before this batch.
fn genesis_commitment(blocks: &[PathBuf], previous: Option<&FoldOutput>) -> Result<[u8; 32], WorkerError> {
    match (previous, blocks.first()) {
        (Some(previous), _) => Ok(previous.genesis_commitment),
        (None, Some(first)) => Ok(block_values(first)?.from_state),
        (None, None) => Err(WorkerError::Decode { what: "fold", reason: "no block proof".to_owned() }),
    }
}

fn block_values(path: &Path) -> Result<BlockPublicValues, WorkerError> {
    let proof = CompressedProof::decode(&read_file(path)?)?;
    BlockPublicValues::decode(&proof.public_values)
        .map_err(|e| WorkerError::Decode { what: "block public values", reason: e.to_string() })
}

fn same(name: &'static str, expected: &[u8], got: &[u8]) -> Result<(), WorkerError> {
    if expected == got {
        return Ok(());
    }
    let digest = |bytes: &[u8]| format!("{} bytes, BLAKE3 {}", bytes.len(), blake3::hash(bytes).to_hex());
    Err(WorkerError::PublicInput { name, expected: digest(expected), got: digest(got) })
}

fn only(outputs: &[PathBuf]) -> Result<&Path, WorkerError> {
    match outputs {
        [one] => Ok(one),
        _ => Err(WorkerError::Decode {
            what: "result",
            reason: format!("{} files, expected 1", outputs.len()),
        }),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, WorkerError> {
    let length = std::fs::metadata(path).map_err(WorkerError::io("read", path))?.len();
    if length > FILE_BYTES_MAX {
        let reason = format!("{length} bytes, at most {FILE_BYTES_MAX} expected");
        return Err(WorkerError::Decode { what: "file", reason });
    }
    std::fs::read(path).map_err(WorkerError::io("read", path))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, WorkerError> {
    use bincode::Options as _;

    let bytes = read_file(path)?;
    // Rejects trailing bytes, and lengths beyond the file's.
    let options = bincode::options().with_fixint_encoding().with_limit(FILE_BYTES_MAX);
    options
        .deserialize(&bytes)
        .map_err(|error| WorkerError::Decode { what: "output of a task", reason: error.to_string() })
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<PathBuf, WorkerError> {
    let bytes = bincode::serialize(value).map_err(WorkerError::internal)?;
    FileRef::write(path, &bytes).map(|file| file.path)
}

#[cfg(test)]
mod tests {
    use assay_lvm::sample;

    use super::*;

    fn rules() -> Rules {
        Rules { block_program: [1; 8], fold_program: [2; 8], run_gas_max: 1 << 40, run_blocks_max: 1 }
    }

    fn split(dir: &Path) -> (PathBuf, Vec<PathBuf>) {
        let batch = sample::batch(1).unwrap();
        let path = dir.join("batch");
        batch.write(&path).unwrap();
        let runs = batch.split_runs(rules().limits()).unwrap();
        let store = |(number, run): (usize, &assay_lvm::Run)| {
            FileRef::write(&dir.join(format!("run-{number}")), &run.input).unwrap().path
        };
        (path, runs.iter().enumerate().map(store).collect())
    }

    #[test]
    fn the_version_is_that_of_the_build_and_everything_in_it_counts() {
        let limits = RunLimits::default();
        assert_eq!(version(limits), version(limits));
        assert_ne!(version(limits), version(RunLimits { gas_max: limits.gas_max + 1, ..limits }));
        assert_ne!(version(limits), version(RunLimits { blocks_max: limits.blocks_max + 1, ..limits }));
        let versions = [version_of(&[b"ab", b"c"]), version_of(&[b"a", b"bc"]), version_of(&[b"abc"])];
        assert!(versions[0] != versions[1] && versions[1] != versions[2] && versions[0] != versions[2]);
    }

    #[test]
    fn the_runs_of_a_batch_are_checked_against_the_batch() {
        let dir = tempfile::tempdir().unwrap();
        let (batch, runs) = split(dir.path());
        let task = ClusterTask::Split { batch: &batch };
        assert!(runs.len() > 1);
        task.check(&rules(), &runs).unwrap();
        assert!(task.check(&rules(), &runs[1..]).is_err(), "one is missing");
        let swapped: Vec<PathBuf> = runs.iter().rev().cloned().collect();
        assert!(task.check(&rules(), &swapped).is_err(), "another order");
        let mut bytes = std::fs::read(&runs[0]).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&runs[0], bytes).unwrap();
        assert!(task.check(&rules(), &runs).is_err(), "a changed bit");
    }

    #[test]
    fn files_that_are_no_results_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (_, runs) = split(dir.path());
        let junk = dir.path().join("junk");
        for bytes in [&b""[..], b"junk", &[0xff; 200]] {
            std::fs::write(&junk, bytes).unwrap();
            let results = std::slice::from_ref(&junk);
            let tasks = [
                ClusterTask::Block { run: &runs[0] },
                ClusterTask::Fold { blocks: results, previous: None },
                ClusterTask::Fold { blocks: &runs, previous: Some(&junk) },
                ClusterTask::Wrap { fold: &junk },
                ClusterTask::Groth16 { wrap: &junk },
                ClusterTask::Part { files: &[], program: &[1; 8] },
            ];
            for task in tasks {
                let CheckError::Result(error) = task.check(&rules(), results).unwrap_err() else {
                    panic!("{task:?}: the request is blamed")
                };
                assert!(
                    matches!(error, WorkerError::Decode { .. } | WorkerError::Version { .. }),
                    "{task:?}: {error}"
                );
                assert!(task.check(&rules(), &[]).is_err());
            }
        }
    }

    #[test]
    fn an_output_is_read_as_it_was_written_and_nothing_may_follow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fold.output");
        let output = FoldOutput { genesis_commitment: [7; 32], proof: vec![1, 2, 3] };
        write(&path, &output).unwrap();
        assert_eq!(read::<FoldOutput>(&path).unwrap(), output);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.push(0);
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(read::<FoldOutput>(&path), Err(WorkerError::Decode { .. })));
        bytes.truncate(40);
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(read::<FoldOutput>(&path), Err(WorkerError::Decode { .. })));
    }
}
