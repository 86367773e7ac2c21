//! A cluster's tasks as jobs of child processes: what a worker's agent has to know about proving.
//!
//! Layer: above [`crate::cluster`] (what a task reads and makes) and [`crate::stages`] (what a child does); the agent of
//! `assay-agent` starts, feeds and ends the children. Children are this program again, with the subcommand `stage`.
//!
//! | task | inputs, by role | job | process |
//! |---|---|---|---|
//! | execute | payload | split | its own |
//! | block | witness | prove run, delegated | its own |
//! | fold | block proofs by run, then the previous fold output unless it is the first batch | prove fold, delegated | its own |
//! | shard, reduce | header, then pieces | prove part | that of provers |
//! | wrap | fold output | wrap | that of provers |
//! | groth16 | wrap output | groth16 prove | that of Groth16 |
//!
//! A controller's process is never shared: how it cuts an execution into shards then depends on the execution alone, so a
//! controller that runs again elsewhere asks for the very same parts.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use assay_agent::runner::child::{ChildSettings, Jobs, Meaning, Program, Talk};
use assay_agent::runner::{DeviceFault, Failure, GpuFaults, NewFile, Part, PartError, Progress, Task};
use assay_lvm::RunLimits;
use assay_schedule::{Dispatch, Hash, Kind, Parent, PerKind, Role};

use crate::cluster::{ClusterTask, Rules};
use crate::error::{ErrorClass, WorkerError};
use crate::groth16::require_parameters;
use crate::settings::MEMORY_BYTES_MIN;
use crate::stages::{
    Event, FileRef, Groth16CircuitJob, Job, KeysJob, KeysOutcome, Outcome, PartKind, PartRequest, PartResult,
};

const GIB: u64 = 1 << 30;

/// Memory to set aside for a task of each kind, for `assay_schedule::Limits::memory_bytes`: what a process of its own was seen
/// to take on two cores (`bench/RESULTS.md`), with some room. A controller and two provers, which keep two cores busy, fit into
/// 24 GiB together.
pub const MEMORY_BYTES: PerKind<u64> =
    PerKind([4 * GIB, 3 * GIB, 8 * GIB, 8 * GIB, 3 * GIB, 18 * GIB, 8 * GIB]);

/// A child that takes more than this share of its weight is killed. The largest shard of a mainnet block took a fifth more
/// than a usual one.
const MEMORY_LIMIT_PERCENT: u64 = 150;
/// Time that a child has to end before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// A wrap proof on a slow machine's processor says nothing for twenty minutes.
const SILENCE_MAX: Duration = Duration::from_secs(3600);
/// With a GPU the longest silence is a start with the zkVM's programs still to be compiled for recursion: a minute or two.
const GPU_SILENCE_MAX: Duration = Duration::from_secs(900);

/// Work of a shard: the cells of a full one. With the microsecond for each that the schedule guesses before it has measured
/// that is the time on two cores, so the first one is not taken for late there.
const SHARD_UNITS: u64 = 1 << 27;
/// Work of a reduction, or of a proof that a guest has asked to verify: a recursion proof, of one size whatever it
/// reduces. At the schedule's guess of twenty seconds a unit it takes as long as a shard.
const REDUCTION_UNITS: u64 = 6;

/// Parts that are proved of a proof that nobody goes on with are kept for this long.
const MEMO_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What children are started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobsConfig {
    /// This program.
    pub program: PathBuf,
    /// Environment variables of children.
    pub environment: Vec<(String, String)>,
    /// Keys and Groth16 parameters.
    pub cache_dir: PathBuf,
    /// Artifacts of running proofs.
    pub work_dir: PathBuf,
    /// Memory of all tasks together.
    pub memory_bytes: u64,
    /// Tasks at the same time, controllers not counted.
    pub slots: u32,
    /// Parts that one controller has proved at the same time, at least 1.
    pub parts: u32,
}

/// How the children of a worker are treated that keeps its files in `work_dir` and has `memory_bytes` for all tasks.
#[must_use]
pub fn child_settings(work_dir: &Path, memory_bytes: u64) -> ChildSettings {
    ChildSettings {
        log_dir: work_dir.join("logs"),
        grace: GRACE,
        silence_max: SILENCE_MAX,
        gpu_silence_max: GPU_SILENCE_MAX,
        memory_limit_percent: MEMORY_LIMIT_PERCENT,
        memory_bytes,
    }
}

impl JobsConfig {
    /// How a child for tasks of a kind is started.
    ///
    /// A child works on one task, which needs no more than one prover of the zkVM. Controllers plan with the least memory,
    /// whatever the machine has: the size of shards follows from it, and is to be the same on every machine.
    fn child(&self, kind: Kind) -> Program {
        let share = self.memory_bytes / u64::from(self.slots.max(1));
        // A prover that plans with more caches more, and would be killed for it.
        let most = MEMORY_BYTES[Kind::Shard] / 100 * MEMORY_LIMIT_PERCENT;
        let share = share.clamp(MEMORY_BYTES_MIN, most.max(MEMORY_BYTES_MIN));
        let memory_bytes = if kind.is_controller() { MEMORY_BYTES_MIN } else { share };
        let arguments = [
            "stage".to_owned(),
            "--cache-dir".to_owned(),
            self.cache_dir.display().to_string(),
            "--work-dir".to_owned(),
            self.work_dir.display().to_string(),
            "--cores".to_owned(),
            "1".to_owned(),
            "--memory-bytes".to_owned(),
            memory_bytes.to_string(),
        ];
        Program {
            path: self.program.clone(),
            arguments: arguments.into(),
            environment: self.environment.clone(),
        }
    }
}

/// The tasks of a cluster as jobs.
#[derive(Debug)]
pub struct StageJobs {
    config: JobsConfig,
    rules: Rules,
}

impl StageJobs {
    /// Has a child compute the keys of this build's programs, unless they are cached; for a worker that makes Groth16 proofs
    /// also the digest of its circuit, whose parameters have to be there: a batch that is nearly done comes to nothing on a worker
    /// that has only those of another version.
    ///
    /// # Errors
    /// [`WorkerError::Io`] if the child cannot be started, [`WorkerError::Internal`] with its reason if it fails,
    /// [`WorkerError::Groth16`] without the parameters.
    pub fn start(config: JobsConfig, limits: RunLimits, makes_groth16: bool) -> Result<Self, WorkerError> {
        let keys = ask_keys(&config.child(Kind::Execute))?;
        if makes_groth16 {
            check_parameters(&config.child(Kind::Groth16), &config.cache_dir)?;
        }
        Ok(Self::new(config, Rules::of_keys(&keys, limits)))
    }

    /// Jobs under known rules.
    pub fn new(config: JobsConfig, rules: Rules) -> Self {
        Self { config, rules }
    }
}

impl Jobs for StageJobs {
    fn program(&self, task: &Task) -> Program {
        self.config.child(task.dispatch.stage.kind())
    }

    fn class(&self, task: &Task) -> Option<String> {
        match task.dispatch.stage.kind() {
            Kind::Shard | Kind::Reduce | Kind::Wrap => Some("prove".to_owned()),
            Kind::Groth16 => Some("groth16".to_owned()),
            Kind::Execute | Kind::Block | Kind::Fold => None,
        }
    }

    fn works_on_gpu(&self, task: &Task) -> bool {
        task.dispatch.stage.kind() != Kind::Execute
    }

    fn begin(&self, task: &Task, jobs_before: u64) -> Result<Box<dyn Talk>, Failure> {
        let files = Files::of(&task.dispatch, &task.inputs, &self.rules)?;
        if task.dispatch.stage.kind().is_controller() {
            // Another proof begins: a good moment to remove what those that nobody went on with have left behind.
            prune_memos(&self.config.cache_dir.join("shards"), SystemTime::now());
        }
        let job = files.task().job(&self.rules, &task.dir, self.config.parts.max(1));
        let job = job.map_err(|error| failure(error.class(), error.to_string()))?;
        let line = serde_json::to_string(&job).map_err(|error| Failure::Permanent(error.to_string()))?;
        let (dir, gpu_faults) = (task.dir.clone(), GpuFaults::default());
        Ok(Box::new(Conversation { files, dir, job: jobs_before, line: Some(line), gpu_faults }))
    }
}

/// A task's input files, by what they are to it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Files {
    Execute { batch: PathBuf },
    Block { run: PathBuf },
    Fold { blocks: Vec<PathBuf>, previous: Option<PathBuf> },
    Wrap { fold: PathBuf },
    Groth16 { wrap: PathBuf },
    Part { files: Vec<PathBuf>, program: [u32; 8] },
}

impl Files {
    /// Assigns a dispatch's inputs, which are on disk in its order.
    fn of(dispatch: &Dispatch, inputs: &[PathBuf], rules: &Rules) -> Result<Self, Failure> {
        let kind = dispatch.stage.kind();
        let roles: Vec<Role> = dispatch.inputs.iter().map(|input| input.role).collect();
        let bad = || Failure::Permanent(format!("a task of kind {kind} with the inputs {roles:?}"));
        if roles.len() != inputs.len() {
            return Err(bad());
        }
        let only = |wanted: Role| match (roles.as_slice(), inputs) {
            ([role], [path]) if *role == wanted => Ok(path.clone()),
            _ => Err(bad()),
        };
        match kind {
            Kind::Execute => Ok(Self::Execute { batch: only(Role::Payload)? }),
            Kind::Block => Ok(Self::Block { run: only(Role::Witness)? }),
            Kind::Fold => {
                let (blocks, previous) = match (roles.split_last(), inputs.split_last()) {
                    (Some((Role::PreviousFold, _)), Some((last, rest))) => (rest, Some(last.clone())),
                    _ => (inputs, None),
                };
                let in_order = (0..).map(|run| Role::BlockProof { run });
                let are_blocks = in_order.zip(&roles[..blocks.len()]).all(|(wanted, role)| wanted == *role);
                // Without it a fold would begin a history of its own.
                let continues = dispatch.facts.sequence > 0;
                if blocks.is_empty() || !are_blocks || continues != previous.is_some() {
                    return Err(bad());
                }
                Ok(Self::Fold { blocks: blocks.to_vec(), previous })
            }
            Kind::Wrap => Ok(Self::Wrap { fold: only(Role::FoldProof)? }),
            Kind::Groth16 => Ok(Self::Groth16 { wrap: only(Role::WrapProof)? }),
            Kind::Shard | Kind::Reduce => {
                if inputs.is_empty() || roles.iter().any(|role| *role != Role::Part) {
                    return Err(bad());
                }
                let program = match dispatch.stage.parent() {
                    Some(Parent::Block { .. }) => rules.block_program,
                    _ => rules.fold_program,
                };
                Ok(Self::Part { files: inputs.to_vec(), program })
            }
        }
    }

    fn task(&self) -> ClusterTask<'_> {
        match self {
            Self::Execute { batch } => ClusterTask::Split { batch },
            Self::Block { run } => ClusterTask::Block { run },
            Self::Fold { blocks, previous } => ClusterTask::Fold { blocks, previous: previous.as_deref() },
            Self::Wrap { fold } => ClusterTask::Wrap { fold },
            Self::Groth16 { wrap } => ClusterTask::Groth16 { wrap },
            Self::Part { files, program } => ClusterTask::Part { files, program },
        }
    }
}

/// One task's conversation with a child.
struct Conversation {
    files: Files,
    dir: PathBuf,
    /// The job's number in its child.
    job: u64,
    /// The job, until it is given.
    line: Option<String>,
    /// What its GPU has failed at.
    gpu_faults: GpuFaults,
}

impl Talk for Conversation {
    fn open(&mut self) -> Vec<String> {
        self.line.take().into_iter().collect()
    }

    fn hear(&mut self, line: &str) -> Meaning {
        match serde_json::from_str(line) {
            Ok(Event::Progress(told)) => {
                let GpuFaults { retries, fallbacks } = told.gpu_faults;
                self.gpu_faults.retries = self.gpu_faults.retries.saturating_add(retries);
                self.gpu_faults.fallbacks = self.gpu_faults.fallbacks.saturating_add(fallbacks);
                Meaning::Progress(Progress { phase: told.phase, done: told.done, total: told.total })
            }
            Ok(Event::Part(request)) => part(request).map_or_else(Meaning::Failed, Meaning::Part),
            Ok(Event::Done { job, outcome }) if job == self.job => self.done(&outcome),
            Ok(Event::Failed { job, error }) if job == self.job => {
                Meaning::Failed(failure(error.class, error.message))
            }
            // Something that a library printed, or the end of a job before this one.
            _ => Meaning::Noise,
        }
    }

    fn part_done(&mut self, key: &Hash, result: Result<Vec<PathBuf>, PartError>) -> Vec<String> {
        let (files, failed) = match result {
            Ok(paths) => match paths.into_iter().map(FileRef::of).collect::<Result<Vec<_>, _>>() {
                Ok(files) => (files, None),
                Err(error) => (Vec::new(), Some(error.to_string())),
            },
            // The child is about to be ended.
            Err(PartError::Cancelled) => return Vec::new(),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let result = PartResult { part: key.to_string(), files, failed };
        match serde_json::to_string(&result) {
            Ok(line) => vec![line],
            Err(error) => {
                tracing::error!(%error, "the result of a part does not encode");
                Vec::new()
            }
        }
    }

    fn jobs(&self) -> u64 {
        u64::from(self.line.is_none())
    }

    fn gpu_faults(&self) -> GpuFaults {
        self.gpu_faults
    }
}

impl Conversation {
    fn done(&self, outcome: &Outcome) -> Meaning {
        match self.files.task().outputs(outcome, &self.dir) {
            Ok(made) => {
                let outputs = made.into_iter().map(|file| NewFile { path: file.path, units: file.units });
                Meaning::Done { outputs: outputs.collect(), gpu_ms: None }
            }
            Err(error) => Meaning::Failed(failure(error.class(), error.to_string())),
        }
    }
}

/// What a child asks for, as the agent puts it.
fn part(request: PartRequest) -> Result<Part, Failure> {
    let key = request.key.parse();
    let key: Hash = key.map_err(|error| Failure::Transient(format!("part {:?}: {error}", request.key)))?;
    let files: Vec<PathBuf> = request.files.into_iter().map(|file| file.path).collect();
    let (kind, units) = match request.kind {
        PartKind::Shard => (Kind::Shard, SHARD_UNITS),
        PartKind::Deferred | PartKind::Reduce => (Kind::Reduce, REDUCTION_UNITS),
    };
    Ok(Part { kind, key, files, units })
}

/// What the coordinator is told of an error. A fault of this program is none of the batch: another try, perhaps another
/// machine, may do better, and the schedule sets the task aside if none does.
fn failure(class: ErrorClass, reason: String) -> Failure {
    match class {
        ErrorClass::Transient | ErrorClass::Bug => Failure::Transient(reason),
        ErrorClass::Permanent => Failure::Permanent(reason),
        ErrorClass::GpuMemory => Failure::Device(DeviceFault::Allocation),
        ErrorClass::GpuContext => Failure::Device(DeviceFault::Sticky(reason)),
        ErrorClass::GpuLost => Failure::Device(DeviceFault::Lost(reason)),
        ErrorClass::GpuWrong => Failure::Device(DeviceFault::Wrong(reason)),
    }
}

/// Keys of this build's programs, as a child computes them.
fn ask_keys(program: &Program) -> Result<KeysOutcome, WorkerError> {
    ask(program, &Job::Keys(KeysJob {}), |outcome| match outcome {
        Outcome::Keys(keys) => Some(keys),
        _ => None,
    })
}

/// Whether the parameters of this build's wrap circuit are there; a child builds it to tell its digest.
fn check_parameters(program: &Program, cache_dir: &Path) -> Result<(), WorkerError> {
    let circuit = ask(program, &Job::Groth16Circuit(Groth16CircuitJob {}), |outcome| match outcome {
        Outcome::Groth16Circuit(circuit) => Some(circuit.circuit_digest),
        _ => None,
    })?;
    require_parameters(&cache_dir.join("groth16"), &circuit.0)
}

/// Runs a job in a child of its own, whose memory is then free.
fn ask<T>(program: &Program, job: &Job, answer: fn(Outcome) -> Option<T>) -> Result<T, WorkerError> {
    let environment = program.environment.iter().map(|(name, value)| (name, value));
    let mut child = Command::new(&program.path)
        .args(&program.arguments)
        .envs(environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(WorkerError::io("run", &program.path))?;
    let answered = hear(&mut child, job, answer);
    // Its input is closed, so it ends.
    let ended = child.wait().map_err(WorkerError::io("wait for", &program.path));
    answered.and_then(|answer| ended.map(|_| answer))
}

/// Asks; closes the child's input at the end.
fn hear<T>(
    child: &mut std::process::Child,
    job: &Job,
    answer: fn(Outcome) -> Option<T>,
) -> Result<T, WorkerError> {
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(WorkerError::internal("a child without input and output"));
    };
    let job = serde_json::to_string(job).map_err(WorkerError::internal)?;
    writeln!(input, "{job}").map_err(WorkerError::io("write", "a child's input"))?;
    for line in BufReader::new(output).lines() {
        let line = line.map_err(WorkerError::io("read", "a child's output"))?;
        match serde_json::from_str(&line) {
            Ok(Event::Done { outcome, .. }) => {
                return answer(outcome).ok_or_else(|| WorkerError::internal("the child answered another job"))
            }
            Ok(Event::Failed { error, .. }) => return Err(WorkerError::internal(error.message)),
            _ => {}
        }
    }
    Err(WorkerError::internal("the child ended before it had answered"))
}

/// Removes folders that nothing was added to for [`MEMO_AGE_MAX`]. Best effort.
fn prune_memos(dir: &Path, now: SystemTime) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let changed = entry.metadata().and_then(|data| data.modified());
        let age = changed.ok().and_then(|changed| now.duration_since(changed).ok());
        if age.is_some_and(|age| age > MEMO_AGE_MAX) {
            if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "left behind");
            }
        }
    }
}

#[cfg(test)]
mod tests;
