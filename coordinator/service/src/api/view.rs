//! What the API shows. These types are the API's own, so that the schedule may change without breaking clients.

use assay_schedule::{
    BatchId, BatchStatus, Failure, Kind, Parent, Phase, Stage, TaskStatus, Wait, WorkerStatus,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::state::{phase_name, About, AttemptState, History, Notice, Span, What};

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchView {
    /// Its number.
    pub id: u64,
    /// Whose it is.
    pub tenant: u64,
    /// The rollup.
    pub chain: u64,
    /// Place in the rollup's history, from 0.
    pub sequence: u64,
    /// The submission's key.
    pub idempotency_key: String,
    /// `proving`, `checking`, `proved`, `settling`, `refolding`, `settled`, `failed` or `cancelled`; the last three are
    /// terminal.
    pub phase: String,
    /// Why it failed.
    pub failure: Option<FailureView>,
    /// When it came, ms since the Unix epoch.
    pub submitted_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Higher goes first.
    pub priority: u8,
    /// When the proof is wanted.
    pub deadline_ms: Option<u64>,
    /// Whether the batch is worthless after the deadline.
    pub deadline_is_hard: bool,
    /// Size of the body.
    pub payload_bytes: u64,
    /// BLAKE3 of the body.
    pub payload: String,
    /// Expected work, in gas.
    pub units: u64,
    /// Version of programs and keys.
    pub version: u32,
    /// Results that counted so far.
    pub tasks_done: u32,
    /// Attempts under way.
    pub tasks_running: u32,
    /// Attempts beyond the first of their task.
    pub retries: u32,
    /// Number of its last event.
    pub last_event: u64,
}

impl BatchView {
    /// A batch as its history shows it. Cheap.
    pub fn of(id: BatchId, history: &History) -> Self {
        let spec = &history.spec;
        Self {
            id: id.0,
            tenant: spec.tenant.0,
            chain: spec.chain.0,
            sequence: spec.sequence,
            idempotency_key: spec.key.clone(),
            phase: phase_name(&history.phase).into(),
            failure: FailureView::of(&history.phase),
            submitted_ms: history.submitted.0,
            ended_ms: history.ended.map(|time| time.0),
            priority: spec.priority,
            deadline_ms: spec.deadline.map(|time| time.0),
            deadline_is_hard: spec.deadline_is_hard,
            payload_bytes: spec.payload_bytes,
            payload: hex::encode(spec.payload.0),
            units: spec.units,
            version: spec.version,
            tasks_done: history.accepted,
            tasks_running: history.running,
            retries: history.retries,
            last_event: history.last_seq(),
        }
    }
}

/// A page of batches, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchList {
    /// The batches.
    pub batches: Vec<BatchView>,
    /// Pass it as `before` for the next page; absent on the last one.
    pub next: Option<u64>,
}

/// A batch with its tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchDetail {
    /// The batch.
    pub batch: BatchView,
    /// The coordinator's clock, ms since the Unix epoch; all times are by it.
    pub now_ms: u64,
    /// When the proof is expected.
    pub eta_ms: Option<u64>,
    /// Tasks, as far as they are known.
    pub tasks: Vec<TaskView>,
    /// Attempts, in the order in which they were sent.
    pub spans: Vec<SpanView>,
    /// Attempts that are not listed.
    pub spans_dropped: u64,
    /// What can be downloaded.
    pub files: Vec<FileView>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// For people: `shard 3 of run 0`.
    pub name: String,
    /// `execute`, `shard`, …
    pub kind: String,
    /// `waiting`, `running` or `done`.
    pub state: String,
    /// Workers that are at it, or whose result is being verified.
    pub workers: Vec<u64>,
    /// Why it waits.
    pub wait: Option<WaitView>,
    /// Failures so far.
    pub failures: u32,
    /// Losses of workers and messages so far.
    pub losses: u32,
    /// Of a task that has parts proved by others: how many so far.
    pub parts: u32,
    /// Of these, done.
    pub parts_done: u32,
}

/// Why a task waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitView {
    /// Names the case; does not change between versions.
    pub code: String,
    /// For people.
    pub text: String,
}

/// One attempt of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpanView {
    /// The attempt.
    pub attempt: u64,
    /// Name of the task.
    pub task: String,
    /// Kind of the task.
    pub kind: String,
    /// Who.
    pub worker: u64,
    /// When it was sent.
    pub started_ms: u64,
    /// When the worker reported.
    pub reported_ms: Option<u64>,
    /// When it was over.
    pub ended_ms: Option<u64>,
    /// `running`, `reported`, `accepted`, `failed`, `rejected` or `revoked`.
    pub state: String,
}

/// Why a batch failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailureView {
    /// Names the case; does not change between versions.
    pub code: String,
    /// For people.
    pub text: String,
}

/// A file of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileView {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub blake3: String,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    /// Its number.
    pub id: u64,
    /// What its operator calls it.
    pub name: String,
    /// Models of its devices that are in service.
    pub devices: Vec<String>,
    /// Devices that are out of service, each with the reason.
    pub lost: Vec<String>,
    /// Its program.
    pub build: String,
    /// Whether it is here.
    pub present: bool,
    /// Until when it gets no work because its results did not verify.
    pub quarantined_until_ms: Option<u64>,
    /// Results that did not verify.
    pub strikes: u32,
    /// Attempts on it.
    pub running: u32,
    /// Memory set aside for them.
    pub memory_used: u64,
    /// Measured speeds.
    pub speeds: Vec<SpeedView>,
}

/// A worker's speed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpeedView {
    /// Kind of task.
    pub kind: String,
    /// Nanoseconds per unit of work.
    pub ns_per_unit: u64,
    /// Results it was measured from.
    pub samples: u32,
}

/// All workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerList {
    /// The workers.
    pub workers: Vec<WorkerView>,
}

/// Answer to a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Submitted {
    /// Number of the batch.
    pub id: u64,
    /// Whether it was there already: same key, same content.
    pub repeated: bool,
}

/// Data of an event of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventView {
    /// The batch is in another phase.
    Phase {
        /// When.
        at_ms: u64,
        /// The phase.
        phase: String,
        /// Why it failed.
        failure: Option<FailureView>,
    },
    /// An attempt is in another state.
    Attempt {
        /// When.
        at_ms: u64,
        /// The attempt.
        attempt: u64,
        /// Name of the task.
        task: String,
        /// Kind of the task.
        kind: String,
        /// Who.
        worker: u64,
        /// The state.
        state: String,
    },
    /// The whole batch: some events before it are not kept any more.
    Snapshot {
        /// The batch.
        batch: Box<BatchView>,
    },
    /// How far the batch is; has no number and is not replayed.
    Progress {
        /// Results that counted so far.
        tasks_done: u32,
        /// Attempts under way.
        tasks_running: u32,
        /// When the proof is expected.
        eta_ms: Option<u64>,
    },
}

impl EventView {
    /// What a notice tells.
    pub fn of(notice: &Notice) -> Self {
        let at_ms = notice.at.0;
        match &notice.what {
            What::Phase(phase) => {
                Self::Phase { at_ms, phase: phase_name(phase).into(), failure: FailureView::of(phase) }
            }
            What::Attempt { attempt, stage, worker, state } => Self::Attempt {
                at_ms,
                attempt: attempt.0,
                task: task_name(*stage),
                kind: kind_name(stage.kind()).into(),
                worker: worker.0,
                state: state.name().into(),
            },
        }
    }

    /// Its name in the stream.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Phase { .. } => "phase",
            Self::Attempt { .. } => "attempt",
            Self::Snapshot { .. } => "snapshot",
            Self::Progress { .. } => "progress",
        }
    }
}

impl SpanView {
    /// An attempt.
    pub fn of(span: &Span) -> Self {
        Self {
            attempt: span.attempt.0,
            task: task_name(span.stage),
            kind: kind_name(span.stage.kind()).into(),
            worker: span.worker.0,
            started_ms: span.started.0,
            reported_ms: span.reported.map(|time| time.0),
            ended_ms: span.ended.map(|time| time.0),
            state: span.state.name().into(),
        }
    }
}

impl TaskView {
    /// A task.
    pub fn of(task: &TaskStatus) -> Self {
        let state = match (task.done, task.workers.is_empty()) {
            (true, _) => "done",
            (false, false) => AttemptState::Running.name(),
            (false, true) => "waiting",
        };
        Self {
            name: task_name(task.stage),
            kind: kind_name(task.stage.kind()).into(),
            state: state.into(),
            workers: task.workers.iter().map(|worker| worker.0).collect(),
            wait: task.wait.as_ref().map(WaitView::of),
            failures: task.failures,
            losses: task.losses,
            parts: task.parts,
            parts_done: task.parts_done,
        }
    }
}

impl BatchDetail {
    /// A batch with its tasks.
    pub fn of(id: BatchId, history: &History, status: &BatchStatus, now_ms: u64) -> Self {
        let mut files: Vec<FileView> = history
            .files
            .iter()
            .map(|file| FileView {
                name: file.name.clone(),
                bytes: file.bytes,
                blake3: hex::encode(file.hash.0),
            })
            .collect();
        // A settled result has the proof itself under this name; until then there is the task's whole output.
        let has_proof = files.iter().any(|file| file.name == super::files::PROOF);
        if let Some(proof) = status.proof.filter(|_| !has_proof) {
            let blake3 = hex::encode(proof.hash.0);
            files.insert(0, FileView { name: super::files::PROOF.into(), bytes: proof.bytes, blake3 });
        }
        Self {
            batch: BatchView::of(id, history),
            now_ms,
            eta_ms: status.eta.map(|time| time.0),
            tasks: status.tasks.iter().map(TaskView::of).collect(),
            spans: history.spans.iter().map(SpanView::of).collect(),
            spans_dropped: history.spans_dropped,
            files,
        }
    }
}

impl WorkerView {
    /// A worker.
    pub fn of(status: &WorkerStatus, about: Option<&About>, lost: &[String]) -> Self {
        let measured = Kind::ALL.into_iter().filter(|kind| status.speeds[*kind].samples > 0);
        Self {
            id: status.worker.0,
            name: about.map(|about| about.name.clone()).unwrap_or_default(),
            devices: about.map(|about| about.devices.clone()).unwrap_or_default(),
            lost: lost.to_vec(),
            build: about.map(|about| about.build.clone()).unwrap_or_default(),
            present: status.present,
            quarantined_until_ms: status.quarantined_until.map(|time| time.0),
            strikes: status.strikes,
            running: status.running,
            memory_used: status.memory_used,
            speeds: measured
                .map(|kind| SpeedView {
                    kind: kind_name(kind).into(),
                    ns_per_unit: status.speeds[kind].ns_per_unit,
                    samples: status.speeds[kind].samples,
                })
                .collect(),
        }
    }
}

/// Name of a kind in JSON and metrics.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Execute => "execute",
        Kind::Block => "block",
        Kind::Shard => "shard",
        Kind::Reduce => "reduce",
        Kind::Fold => "fold",
        Kind::Wrap => "wrap",
        Kind::Groth16 => "groth16",
    }
}

/// Name of a task for people.
pub fn task_name(stage: Stage) -> String {
    match stage {
        Stage::Block { run } => format!("block {run}"),
        Stage::Shard { of, part } => format!("shard {part} of {}", parent_name(of)),
        Stage::Reduce { of, part } => format!("reduction {part} of {}", parent_name(of)),
        stage => kind_name(stage.kind()).into(),
    }
}

fn parent_name(parent: Parent) -> String {
    match parent {
        Parent::Block { run } => format!("block {run}"),
        Parent::Fold => "fold".into(),
    }
}

impl WaitView {
    /// The reason in words.
    pub fn of(wait: &Wait) -> Self {
        let (code, text) = match wait {
            Wait::Inputs { missing: 1 } => ("inputs", "one task before it is not done".into()),
            Wait::Inputs { missing } => ("inputs", format!("{missing} tasks before it are not done")),
            Wait::PreviousFold => {
                ("previous_fold", "the fold proof of the batch before is not there yet".into())
            }
            Wait::Respawn => ("respawn", "what it reads was lost and is published again".into()),
            Wait::Backoff { until } => ("backoff", format!("failed; tried again at {}", until.0)),
            Wait::StoreDown => ("store_down", "the queue or the store cannot be reached".into()),
            Wait::StoreFull => {
                ("store_full", "the store is nearly full; what is there is consumed first".into())
            }
            Wait::TenantQuota => ("tenant_quota", "the tenant has as many tasks running as it may".into()),
            Wait::NoWorker { kind, version } => {
                ("no_worker", format!("no worker is here for {} in version {version}", kind_name(*kind)))
            }
            Wait::Quarantined => ("quarantined", "all workers that could do it are quarantined".into()),
            Wait::TooLarge { memory_bytes } => {
                ("too_large", format!("no worker has {} MiB of memory", memory_bytes >> 20))
            }
            Wait::Busy => ("busy", "all workers that could do it are busy".into()),
            Wait::FasterWorker => {
                ("faster_worker", "a busy worker will have finished it earlier than a free one".into())
            }
            Wait::Turn => ("turn", "more urgent tasks come first".into()),
        };
        Self { code: code.into(), text }
    }
}

impl FailureView {
    /// Why a batch failed; `None` if it did not.
    pub fn of(phase: &Phase) -> Option<Self> {
        let Phase::Failed(failure) = phase else { return None };
        let (code, text) = match failure {
            Failure::Rejected { stage, reason } => {
                ("rejected", format!("{} can never succeed: {reason}", task_name(*stage)))
            }
            Failure::Poison { stage, reason } => {
                ("poison", format!("{} failed too often: {reason}", task_name(*stage)))
            }
            Failure::Deadline { earliest } => {
                ("deadline", format!("cannot be proved before {} ms", earliest.0))
            }
            Failure::Predecessor { batch } => {
                ("predecessor", format!("batch {batch} before it did not settle"))
            }
            Failure::Statement => {
                ("statement", "the proof verifies but says something else than the batch".into())
            }
            Failure::Settlement { reason } => ("settlement", format!("could not be settled: {reason}")),
            Failure::History => ("history", "the settled fold proof that it builds on is lost".into()),
        };
        Some(Self { code: code.into(), text })
    }
}
