//! What the cluster's processes are told: a JSON file, so that command lines stay short.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use assay_queue::{
    BackendError, Class, ObjectsConfig, QueueLimits, RedisConfig, RedisQueue, SharedLimits, SharedStore,
};
use serde::{Deserialize, Serialize};

use crate::options::Weakness;

/// Name of the deployment on its Redis.
pub(crate) const DEPLOYMENT: &str = "chaos";
/// What coordinators authenticate their requests with.
pub(crate) const CLUSTER_SECRET: &[u8] = b"chaos";
/// Version of the cheap programs.
pub(crate) const VERSION: u32 = 1;
/// Artifacts beyond this are files; so both places see faults.
const INLINE_BYTES_MAX: u64 = 1024;
/// Waits between tries to connect.
const RETRY: Duration = Duration::from_millis(200);
/// Exit code of a process whose parent is gone.
const EXIT_ORPHAN: i32 = 3;

/// One process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessConfig {
    /// Redis, by way of this process's proxy.
    pub redis: String,
    /// Folder of large artifacts.
    pub store: PathBuf,
    pub weaken: Option<Weakness>,
    pub part: Part,
}

/// What the process is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(crate) enum Part {
    Coordinator {
        /// Port of its API.
        port: u16,
        /// Key file, as text.
        keys: String,
        /// Where settlements are posted.
        posted: PathBuf,
        clock_offset_ms: i64,
        task_ms: u64,
    },
    Worker {
        number: u32,
        work_dir: PathBuf,
        task_ms: u64,
        /// Attempts of a thousand that go wrong in each of several ways.
        wrong: Option<WrongPermille>,
    },
}

/// How often attempts go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrongPermille {
    pub seed: u64,
    pub wrong: u32,
    pub fail: u32,
    pub hang: u32,
    pub slow: u32,
    pub slow_ms: u64,
}

impl WrongPermille {
    /// The faults of one worker.
    pub(crate) fn faults(&self, worker: u32) -> assay_agent::fake::Faults {
        assay_agent::fake::Faults {
            seed: self.seed.wrapping_add(worker.into()),
            fail_permille: self.fail,
            hang_permille: self.hang,
            wrong_permille: self.wrong,
            slow_permille: self.slow,
            slow_ms: self.slow_ms,
            memory_permille: 0,
        }
    }
}

/// The key of a worker, which its number in the schedule follows from.
pub(crate) fn worker_key(number: u32) -> assay_agent::key::WorkerKey {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    assay_agent::key::WorkerKey::from_seed(seed)
}

/// How to reach Redis: impatient, because faults last seconds here.
pub(crate) fn redis_config(url: &str) -> RedisConfig {
    RedisConfig {
        response_timeout: Duration::from_millis(1000),
        retry_for: Duration::from_secs(3),
        ..RedisConfig::new(url, DEPLOYMENT)
    }
}

/// Connects a queue.
pub(crate) async fn open_queue(url: &str) -> Result<RedisQueue, BackendError> {
    RedisQueue::open(redis_config(url), QueueLimits::default()).await
}

/// Connects a store.
pub(crate) async fn open_store(
    url: &str,
    folder: &Path,
    weaken: Option<Weakness>,
) -> Result<SharedStore, BackendError> {
    let objects = ObjectsConfig::new(format!("file://{}", folder.display()));
    let limits = match weaken {
        // Each artifact is published by one request, which can be held back.
        Some(Weakness::NoFence) => SharedLimits::default(),
        _ => SharedLimits { inline_bytes_max: INLINE_BYTES_MAX, ..SharedLimits::default() },
    };
    SharedStore::open(redis_config(url), &objects, limits).await
}

/// Tries until it works or can never work: a process may start while Redis is down.
pub(crate) async fn patiently<T, F>(mut open: impl FnMut() -> F) -> Result<T, BackendError>
where
    F: std::future::Future<Output = Result<T, BackendError>>,
{
    loop {
        match open().await {
            Err(error) if error.class() == Class::Transient => {
                tracing::warn!(%error, "not connected; trying again");
                tokio::time::sleep(RETRY).await;
            }
            other => return other,
        }
    }
}

/// Why one of the cluster's processes ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("{path}: {reason}")]
    Config { path: PathBuf, reason: String },
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: std::io::Error },
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Keys(#[from] assay_service::keys::KeyError),
    #[error(transparent)]
    Service(#[from] assay_service::ServiceError),
    #[error(transparent)]
    Agent(#[from] assay_agent::agent::AgentError),
}

/// A whole process: reads its file, logs to standard error, ends with its parent.
pub(crate) fn run<F>(file: &Path, body: impl FnOnce(ProcessConfig) -> F) -> ExitCode
where
    F: std::future::Future<Output = Result<(), ProcessError>>,
{
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,assay_queue=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr);
    // The program around may have set it up.
    let _ = log.try_init();
    let config = match read(file) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    end_with_parent();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(body(config)),
        Err(source) => Err(ProcessError::System { what: "start the runtime", source }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: &Path) -> Result<ProcessConfig, ProcessError> {
    let wrong = |reason: String| ProcessError::Config { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
}

/// The parent holds the other end of standard input and never writes to it.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(EXIT_ORPHAN);
    });
}
