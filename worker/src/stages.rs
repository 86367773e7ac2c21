//! Stages of a batch as jobs: what the coordinator sends to a child process and gets back.
//!
//! [`serve`] is the child's whole life: one JSON [`Job`] per line in, one JSON [`Event`] per line out. Jobs of one child
//! share one engine, which the first job that needs it starts; the memory is freed when the child ends. Files go by
//! [`FileRef`]; a stage writes its output under a temporary name and renames it, so an interrupted stage leaves nothing.
//!
//! A job that is *delegated* has its shards proved by others: each goes out as an [`Event::Part`], is proved somewhere by a
//! [`Job::ProvePart`], and comes back as a [`PartResult`] line.

mod check;
mod parts;
mod session;

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::{mpsc, Arc, Mutex, PoisonError};

use assay_lvm_core::CodeControlGroup;
use serde::{Deserialize, Serialize};

pub use crate::engine::Until;
use crate::error::{ErrorClass, WorkerError};
pub use crate::files::{FileRef, Hex32, HexBytes};
pub use crate::part::PartKind;
use crate::progress::{Progress, ProgressSink};
pub use session::Session;

/// Where a child keeps its files and what it may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageConfig {
    /// Files that survive: keys, Groth16 parameters, finished shards of unfinished proofs.
    pub cache_dir: PathBuf,
    /// Artifacts of the running proof.
    pub work_dir: PathBuf,
    /// Cores to use; 0 means all.
    pub cores: usize,
    /// Memory to stay under; 0 means five sixths of the machine's.
    pub memory_bytes: u64,
}

/// A stage with its inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Job {
    /// Computes the keys of the guest programs.
    Keys(KeysJob),
    /// Executes a batch on the host and cuts it into runs.
    Split(SplitJob),
    /// Executes a run without proving it.
    Execute(ExecuteJob),
    /// Proves a run of blocks.
    ProveRun(ProveRunJob),
    /// Proves that a batch's runs extend the history.
    ProveFold(ProveFoldJob),
    /// Proves a part of another child's proof.
    ProvePart(ProvePartJob),
    /// Shrinks and wraps a fold proof.
    Wrap(WrapJob),
    /// Builds the wrap circuit and tells its digest.
    Groth16Circuit(Groth16CircuitJob),
    /// Makes or finds the Groth16 parameters of the wrap circuit.
    Groth16Setup(Groth16SetupJob),
    /// Proves the wrap circuit.
    Groth16Prove(Groth16ProveJob),
    /// Proves the wrap circuit for a program that folds nothing.
    Groth16Any(Groth16AnyJob),
    /// Makes and verifies a small proof of each kind.
    Check(CheckJob),
    /// Proves runs with the zkVM's own prover, to be compared with.
    Reference(ReferenceJob),
}

impl Job {
    /// The stage's name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Keys(_) => "keys",
            Self::Split(_) => "split",
            Self::Execute(_) => "execute",
            Self::ProveRun(_) => "prove_run",
            Self::ProveFold(_) => "prove_fold",
            Self::ProvePart(_) => "prove_part",
            Self::Wrap(_) => "wrap",
            Self::Groth16Circuit(_) => "groth16_circuit",
            Self::Groth16Setup(_) => "groth16_setup",
            Self::Groth16Prove(_) => "groth16_prove",
            Self::Groth16Any(_) => "groth16_any",
            Self::Check(_) => "check",
            Self::Reference(_) => "reference",
        }
    }
}

/// What a stage returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Outcome {
    /// Of [`Job::Keys`].
    Keys(KeysOutcome),
    /// Of [`Job::Split`].
    Split(SplitOutcome),
    /// Of [`Job::Execute`].
    Execute(ExecuteOutcome),
    /// Of [`Job::ProveRun`].
    ProveRun(ProofOutcome),
    /// Of [`Job::ProveFold`].
    ProveFold(ProofOutcome),
    /// Of [`Job::ProvePart`].
    ProvePart(PartOutcome),
    /// Of [`Job::Wrap`].
    Wrap(WrapOutcome),
    /// Of [`Job::Groth16Circuit`].
    Groth16Circuit(Groth16CircuitOutcome),
    /// Of [`Job::Groth16Setup`].
    Groth16Setup(Groth16SetupOutcome),
    /// Of [`Job::Groth16Prove`] and [`Job::Groth16Any`].
    Groth16Prove(Groth16ProveOutcome),
    /// Of [`Job::Check`].
    Check(CheckOutcome),
    /// Of [`Job::Reference`].
    Reference(ReferenceOutcome),
}

/// Asks for the keys of the guest programs of this build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysJob {}

/// A program and its key's digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramInfo {
    /// SHA-256 of the ELF.
    pub elf_sha256: Hex32,
    /// The digest that `verify_sp1_proof` takes; the code control group's `VkHash`.
    pub vk_words: [u32; 8],
    /// The digest as a BN254 scalar, big endian: public input `vkey_hash` of the wrap circuit.
    pub vk_bn254: Hex32,
}

/// Keys of the guest programs of this build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysOutcome {
    /// Program `block`.
    pub block: ProgramInfo,
    /// Program `fold`.
    pub fold: ProgramInfo,
}

/// A batch to cut into runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitJob {
    /// The batch file.
    pub batch: FileRef,
    /// Most gas in one run.
    pub run_gas_max: u64,
    /// Most blocks in one run.
    pub run_blocks_max: u32,
    /// Folder for the runs.
    pub output_dir: PathBuf,
}

/// A batch's runs, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitOutcome {
    /// See above.
    pub runs: Vec<SplitRun>,
    /// Time taken.
    pub elapsed_ms: u64,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRun {
    /// `RunInput::encode` bytes.
    pub file: FileRef,
    /// Gas it uses.
    pub gas: u64,
}

/// A run to execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecuteJob {
    /// `RunInput::encode` bytes.
    pub run: FileRef,
}

/// What an execution told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecuteOutcome {
    /// Cycles run.
    pub cycles: u64,
    /// `BlockPublicValues::encode` bytes.
    pub public_values: HexBytes,
    /// Calls by syscall.
    pub syscalls: BTreeMap<String, u64>,
    /// Cycles by phase, in order.
    #[serde(default)]
    pub phases: Vec<(String, u64)>,
    /// Time taken.
    pub elapsed_ms: u64,
}

/// A run to prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveRunJob {
    /// `RunInput::encode` bytes.
    pub run: FileRef,
    /// How far.
    #[serde(default)]
    pub until: Until,
    /// Parts that others may prove at the same time; 0: this child proves by itself.
    #[serde(default)]
    pub delegated: u32,
    /// Where the proof goes.
    pub output: PathBuf,
}

/// An allowed block program of the code control group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockProgram {
    /// First block it may prove.
    pub first_block: u64,
    /// Last block it may prove.
    pub last_block: u64,
    /// Its key's digest.
    pub vk_words: [u32; 8],
}

impl BlockProgram {
    /// The block programs of a code control group.
    pub fn all_of(group: &CodeControlGroup) -> Vec<Self> {
        let program = |program: &assay_lvm_core::BlockProgram| Self {
            first_block: program.first_block,
            last_block: program.last_block,
            vk_words: program.vk.0,
        };
        group.block_programs.iter().map(program).collect()
    }
}

/// A batch to fold into the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveFoldJob {
    /// Compressed proofs of the batch's runs, in block order.
    pub runs: Vec<FileRef>,
    /// Fold proof of the batch before; none at genesis.
    pub previous: Option<FileRef>,
    /// Commitment of the genesis state.
    pub genesis_commitment: Hex32,
    /// Block programs of the code control group; the fold program is this build's.
    pub block_programs: Vec<BlockProgram>,
    /// How far.
    #[serde(default)]
    pub until: Until,
    /// Parts that others may prove at the same time; 0: this child proves by itself.
    #[serde(default)]
    pub delegated: u32,
    /// Where the proof goes.
    pub output: PathBuf,
}

/// A finished zkVM proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofOutcome {
    /// The proof, see [`crate::proof`].
    pub proof: FileRef,
    /// The program it proves.
    pub program: ProgramInfo,
    /// What the program committed to.
    pub public_values: HexBytes,
    /// Cycles run.
    pub cycles: u64,
    /// Shards proved.
    pub shards: u32,
    /// Time taken.
    pub elapsed_ms: u64,
    /// Largest resident set of the process so far.
    pub peak_rss_bytes: u64,
}

/// A part that a delegated job wants proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRequest {
    /// Hash of everything the result depends on.
    pub key: String,
    /// What it does.
    pub kind: PartKind,
    /// Its files, the header first; they stay until the result has come.
    pub files: Vec<FileRef>,
}

/// A part to prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvePartJob {
    /// [`PartRequest::files`], in any folder but under their names.
    pub files: Vec<FileRef>,
    /// Folder for the result.
    pub output_dir: PathBuf,
}

/// A finished part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartOutcome {
    /// As in the request.
    pub key: String,
    /// As in the request.
    pub kind: PartKind,
    /// The result, for [`PartResult::files`].
    pub files: Vec<FileRef>,
    /// Time taken.
    pub elapsed_ms: u64,
    /// Largest resident set of the process so far.
    pub peak_rss_bytes: u64,
}

/// A line to a child whose job is delegated: how one of its parts ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartResult {
    /// [`PartRequest::key`].
    pub part: String,
    /// [`PartOutcome::files`]; empty if it failed.
    #[serde(default)]
    pub files: Vec<FileRef>,
    /// Why it failed for good.
    #[serde(default)]
    pub failed: Option<String>,
}

/// A fold proof to wrap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrapJob {
    /// A compressed proof.
    pub fold: FileRef,
    /// Where the wrap proof goes.
    pub output: PathBuf,
}

/// Public inputs of the wrap circuit, big endian BN254 scalars, in the circuit's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrapInputs {
    /// Digest of the program's key.
    pub vkey_hash: Hex32,
    /// Digest of the program's public values.
    pub committed_values_digest: Hex32,
    /// The program's exit code.
    pub exit_code: Hex32,
    /// Root of the table of recursion keys.
    pub vk_root: Hex32,
    /// Nonce of the proof request.
    pub proof_nonce: Hex32,
}

/// A finished wrap proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrapOutcome {
    /// The proof, see [`crate::proof`].
    pub proof: FileRef,
    /// Its public inputs.
    pub inputs: WrapInputs,
    /// Time taken.
    pub elapsed_ms: u64,
    /// Largest resident set of the process so far.
    pub peak_rss_bytes: u64,
}

/// Asks which circuit this build has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groth16CircuitJob {}

/// The wrap circuit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groth16CircuitOutcome {
    /// Digest of its constraints: its parameters' files have this name.
    pub circuit_digest: Hex32,
}

/// Asks for Groth16 parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groth16SetupJob {}

/// Groth16 parameters of the wrap circuit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groth16SetupOutcome {
    /// Digest of the circuit.
    pub circuit_digest: Hex32,
    /// The proving key, a file that holds the hashes of its parts.
    pub proving_key: PathBuf,
    /// Its length in bytes.
    pub proving_key_bytes: u64,
    /// The hash that names it, as its pin does.
    pub proving_key_hash: Hex32,
    /// The verifying key for all five public inputs, arkworks compressed.
    pub verifying_key: FileRef,
    /// True for parameters whose trapdoor one process drew.
    pub insecure: bool,
    /// Whether they were there already.
    pub cached: bool,
    /// Constraints of the circuit.
    pub constraints: u64,
    /// Time taken.
    pub elapsed_ms: u64,
    /// Largest resident set of the process so far.
    pub peak_rss_bytes: u64,
}

/// A wrap proof to prove in Groth16.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groth16ProveJob {
    /// The wrap proof.
    pub wrap: FileRef,
    /// `FoldPublicValues::encode` bytes.
    pub fold_public_values: HexBytes,
    /// Digest of the fold program's key.
    pub fold_program: [u32; 8],
    /// Where `proof.bin` and `vk.bin` go.
    pub output_dir: PathBuf,
}

/// A finished Groth16 proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groth16ProveOutcome {
    /// `ark_groth16::Proof<Bn254>`, arkworks compressed.
    pub proof: FileRef,
    /// The verifying key specialised to one public input, arkworks compressed.
    pub verifying_key: FileRef,
    /// That input, a big endian BN254 scalar.
    pub public_input: Hex32,
    /// True for parameters whose trapdoor one process drew.
    pub insecure: bool,
    /// Constraints of the circuit.
    pub constraints: u64,
    /// Time taken.
    pub elapsed_ms: u64,
    /// Largest resident set of the process so far.
    pub peak_rss_bytes: u64,
}

/// A wrap proof of any program to prove in Groth16: for measurements of batches that cannot be folded. The verifying key is one for
/// that program, and settles nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groth16AnyJob {
    /// The wrap proof.
    pub wrap: FileRef,
    /// What the program committed to.
    pub public_values: HexBytes,
    /// Digest of its key.
    pub program: [u32; 8],
    /// Where `proof.bin` and `vk.bin` go.
    pub output_dir: PathBuf,
}

/// Asks whether this machine and its device can prove at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckJob {
    /// How far the zkVM's small proof goes.
    #[serde(default)]
    pub until: Until,
}

/// They can: small proofs were made and verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// What the zkVM proves on.
    pub zkvm_device: String,
    /// Cycles of its proof.
    pub cycles: u64,
    /// What makes Groth16 proofs.
    pub groth16_device: String,
    /// Constraints of that proof.
    pub constraints: u64,
    /// Time taken.
    pub elapsed_ms: u64,
}

/// Runs of blocks to prove as the zkVM's own prover for one machine does it, with its own settings; on a GPU only, and in a process
/// that has done nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceJob {
    /// `RunInput::encode` bytes of each.
    pub runs: Vec<FileRef>,
}

/// How long the zkVM's own prover took; its proofs were verified, which is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceOutcome {
    /// Its start, with the program's key.
    pub start_ms: u64,
    /// All shards of all runs.
    pub core_ms: u64,
    /// After that, all runs to one recursion proof each, from the beginning.
    pub compressed_ms: u64,
}

/// A failure as the parent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What the parent may do about it.
    pub class: ErrorClass,
    /// What happened, one line.
    pub message: String,
}

/// One line of a child's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The running job goes on.
    Progress(Progress),
    /// The running job wants a part proved.
    Part(PartRequest),
    /// Job number `job`, from 0, is finished.
    Done {
        /// The job's number.
        job: u64,
        /// What it returned.
        outcome: Outcome,
    },
    /// Job number `job` failed; the child ends.
    Failed {
        /// The job's number.
        job: u64,
        /// Why.
        error: Failure,
    },
}

/// Runs jobs from `input` until it ends or a job fails, reporting to `output`.
///
/// # Errors
/// The error of the job that failed, already reported as an [`Event::Failed`]; [`WorkerError::Io`] if `input` or
/// `output` fails; [`WorkerError::BadJob`] for a line that is no job.
pub fn serve(
    config: StageConfig,
    input: impl BufRead + Send + 'static,
    output: impl Write + Send + 'static,
) -> Result<(), WorkerError> {
    let output: Arc<Mutex<Box<dyn Write + Send>>> = Arc::new(Mutex::new(Box::new(output)));
    // A parent that is gone closes our input too; a lost line is no failure.
    let emit_event: parts::Emit = {
        let output = output.clone();
        Arc::new(move |event| drop(emit(&output, event)))
    };
    let sink: ProgressSink = {
        let emit_event = emit_event.clone();
        Arc::new(move |progress| emit_event(&Event::Progress(progress)))
    };
    let broker = parts::Broker::new(emit_event);
    let jobs = read_lines(input, broker.clone());
    let mut session = Session::new(config, sink).with_parts(broker);
    for (job, number) in jobs.into_iter().zip(0u64..) {
        match job?.and_then(|job| session.run(&job)) {
            Ok(outcome) => emit(&output, &Event::Done { job: number, outcome })?,
            Err(error) => {
                let failure = Failure { class: error.class(), message: one_line(&error) };
                emit(&output, &Event::Failed { job: number, error: failure })?;
                return Err(error);
            }
        }
    }
    Ok(())
}

/// A job, or why the line is none; the outer error is that of the input itself.
type Line = Result<Result<Job, WorkerError>, WorkerError>;

/// Reads lines on a thread of its own, so that results of parts arrive while a job runs.
fn read_lines(input: impl BufRead + Send + 'static, broker: parts::Broker) -> mpsc::Receiver<Line> {
    let (sender, jobs) = mpsc::channel();
    std::thread::spawn(move || {
        for line in input.lines() {
            let line = match line.map_err(WorkerError::io("read", "standard input")) {
                Ok(line) => line,
                Err(error) => {
                    let _ = sender.send(Err(error));
                    break;
                }
            };
            // A job has a field `stage`, a result of a part has not.
            if let Ok(result) = serde_json::from_str::<PartResult>(&line) {
                if !broker.deliver(result) {
                    tracing::warn!("a result came for a part that nothing waits for");
                }
                continue;
            }
            let job = serde_json::from_str::<Job>(&line)
                .map_err(|error| WorkerError::BadJob { reason: error.to_string() });
            if sender.send(Ok(job)).is_err() {
                break;
            }
        }
        broker.close();
    });
    jobs
}

fn emit(output: &Mutex<Box<dyn Write + Send>>, event: &Event) -> Result<(), WorkerError> {
    let mut line = serde_json::to_string(event).map_err(WorkerError::internal)?;
    line.push('\n');
    let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
    output
        .write_all(line.as_bytes())
        .and_then(|()| output.flush())
        .map_err(WorkerError::io("write", "standard output"))
}

/// An error and its sources in one line.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn config(dir: &std::path::Path) -> StageConfig {
        StageConfig {
            cache_dir: dir.join("cache"),
            work_dir: dir.join("work"),
            cores: 2,
            memory_bytes: 20 << 30,
        }
    }

    #[test]
    fn a_job_line_round_trips() {
        let job = Job::ProveFold(ProveFoldJob {
            runs: vec![FileRef { path: "a".into(), blake3: "00".into(), bytes: 3 }],
            previous: None,
            genesis_commitment: Hex32([1; 32]),
            block_programs: vec![BlockProgram { first_block: 1, last_block: u64::MAX, vk_words: [2; 8] }],
            until: Until::Compressed,
            delegated: 0,
            output: "out".into(),
        });
        let line = serde_json::to_string(&job).unwrap();
        assert!(line.contains("\"stage\":\"prove_fold\""));
        assert_eq!(serde_json::from_str::<Job>(&line).unwrap(), job);
    }

    #[test]
    fn a_check_goes_as_far_as_it_is_told() {
        let job: Job = serde_json::from_str(r#"{"stage":"check"}"#).unwrap();
        assert_eq!(job, Job::Check(CheckJob { until: Until::Compressed }));
        let job = Job::Check(CheckJob { until: Until::Core });
        assert_eq!(serde_json::from_str::<Job>(&serde_json::to_string(&job).unwrap()).unwrap(), job);
    }

    #[test]
    fn a_failed_job_is_reported_and_ends_the_child() {
        let dir = tempfile::tempdir().unwrap();
        let missing = FileRef { path: dir.path().join("none"), blake3: "00".into(), bytes: 0 };
        let job = Job::Wrap(WrapJob { fold: missing, output: dir.path().join("out") });
        let input = format!("{0}\n{0}\n", serde_json::to_string(&job).unwrap());
        let lines = Lines::default();
        let error = serve(config(dir.path()), std::io::Cursor::new(input), lines.clone()).unwrap_err();
        assert!(matches!(error, WorkerError::Io { .. }));
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let events: Vec<Event> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let failures: Vec<_> = events.iter().filter(|e| matches!(e, Event::Failed { .. })).collect();
        assert_eq!(failures.len(), 1);
        assert!(
            matches!(failures[0], Event::Failed { job: 0, error } if error.class == ErrorClass::Transient)
        );
        assert!(!dir.path().join("out").exists());
    }

    #[test]
    fn a_line_that_is_no_job_is_a_permanent_failure() {
        let dir = tempfile::tempdir().unwrap();
        let lines = Lines::default();
        let error = serve(config(dir.path()), "{\"stage\":\"dance\"}\n".as_bytes(), lines).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent);
    }
}
