//! The API's JSON, as far as this client shows it. Fields that are not there have defaults; others are passed over.

use serde::Deserialize;

/// A batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Batch {
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
    /// See [`is_terminal`].
    pub phase: String,
    /// Why it failed.
    pub failure: Option<Reason>,
    /// When it came, ms since the Unix epoch on the coordinator's clock.
    pub submitted_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Higher goes first.
    pub priority: u8,
    /// When the proof is wanted.
    pub deadline_ms: Option<u64>,
    /// Size of the batch file.
    pub payload_bytes: u64,
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
}

/// A code and a text for people: why a batch failed or a task waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Reason {
    /// Names the case.
    pub code: String,
    /// For people.
    pub text: String,
}

/// A page of batches, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BatchList {
    /// The batches.
    pub batches: Vec<Batch>,
    /// What the next page is asked for with.
    pub next: Option<u64>,
}

/// A batch with its tasks and files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// The batch.
    pub batch: Batch,
    /// The coordinator's clock.
    pub now_ms: u64,
    /// When the proof is expected.
    pub eta_ms: Option<u64>,
    /// Tasks, as far as they are known.
    pub tasks: Vec<Task>,
    /// What can be downloaded.
    pub files: Vec<File>,
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Task {
    /// For people.
    pub name: String,
    /// `waiting`, `running` or `done`.
    pub state: String,
    /// Who is at it.
    pub workers: Vec<u64>,
    /// Why it waits.
    pub wait: Option<Reason>,
    /// Failures so far.
    pub failures: u32,
    /// Parts proved by others.
    pub parts: u32,
    /// Of these, done.
    pub parts_done: u32,
}

/// A file of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its bytes, hex.
    pub blake3: String,
}

/// Answer to a submission.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Submitted {
    /// Number of the batch.
    pub id: u64,
    /// Whether it was there already.
    #[serde(default)]
    pub repeated: bool,
}

/// All workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WorkerList {
    /// The workers.
    pub workers: Vec<Worker>,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Worker {
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
    /// Until when it gets no work.
    pub quarantined_until_ms: Option<u64>,
    /// Results that did not verify.
    pub strikes: u32,
    /// Attempts on it.
    pub running: u32,
    /// Memory set aside for them.
    pub memory_used: u64,
    /// Measured speeds.
    pub speeds: Vec<Speed>,
}

/// A worker's speed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Speed {
    /// Kind of task.
    pub kind: String,
    /// Nanoseconds per unit of work.
    pub ns_per_unit: u64,
}

/// An event of a batch's stream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The batch is in another phase.
    Phase {
        /// When.
        at_ms: u64,
        /// The phase.
        phase: String,
        /// Why it failed.
        failure: Option<Reason>,
    },
    /// An attempt is in another state.
    Attempt {
        /// When.
        at_ms: u64,
        /// The attempt.
        attempt: u64,
        /// Name of the task.
        task: String,
        /// Who.
        worker: u64,
        /// `running`, `reported`, `accepted`, `failed`, `rejected` or `revoked`.
        state: String,
    },
    /// The whole batch; some events before it are not kept any more.
    Snapshot {
        /// The batch.
        batch: Box<Batch>,
    },
    /// How far the batch is.
    Progress {
        /// Results that counted so far.
        tasks_done: u32,
        /// Attempts under way.
        tasks_running: u32,
        /// When the proof is expected.
        eta_ms: Option<u64>,
    },
    /// Something that this client does not know.
    #[serde(other)]
    Unknown,
}

/// Whether nothing follows a phase.
pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, SETTLED | "failed" | "cancelled")
}

/// The phase of a batch whose result is complete.
pub const SETTLED: &str = "settled";
