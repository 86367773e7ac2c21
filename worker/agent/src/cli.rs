//! The binary around an [`Agent`], but for the runner: arguments, connections, signals, exit codes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{
    ArtifactStore, BackendError, Class, QueueLimits, RedisQueue, SharedLimits, SharedStore, TaskQueue,
};
use clap::{Args, Parser};
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::mpsc;

use crate::agent::{Agent, AgentError, Signal};
use crate::config::{
    Config, ConfigError, Program, ProverSettings, QueueSettings, Settings, StoreSettings, WorkerSettings,
};
use crate::key::{KeyError, WorkerKey};
use crate::runner::Runner;

/// Exit code of a worker that has left in good order.
pub const EXIT_OK: u8 = 0;
/// Exit code of a worker that cannot work.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of bad configuration or usage.
pub const EXIT_BAD_INPUT: u8 = 2;
/// Exit code after a third signal.
pub const EXIT_INTERRUPTED: u8 = 130;
/// Signals that a worker takes; the next one ends the process.
const SIGNALS_MAX: usize = 2;
/// Waits between tries to connect.
const RETRY: Duration = Duration::from_secs(2);

const AFTER_HELP: &str = "\
A worker registers with the coordinator by way of Redis, takes tasks, publishes results and signs a receipt for each. Add and
remove workers at any time; a task whose worker goes away is done by another one, and finished shards are not proved again.

Examples:
  assay-worker --redis redis://10.0.0.1:6379 --store s3://assay/artifacts          every GPU with 22 GiB, or the CPU
  assay-worker --redis rediss://worker@redis.example --devices 0,1 --name gpu-7 …   two GPUs, TLS
  assay-worker --cpu --kinds execute,block,fold --memory 32 …                       a machine that runs guests, no shards
  ASSAY_REDIS=redis://10.0.0.1 ASSAY_STORE=file:///mnt/assay assay-worker --slots 2

Stopping: SIGTERM (or ctrl-c) lets running tasks go on for --drain-seconds, hands the others back and leaves; the second one
does not wait, the third one ends the process at once. After kill -9 start it again with the same --work-dir: results that
were finished are still reported.

Files:
  <work dir>/worker.key     the key that signs receipts, made at the first start; the worker's number follows from it
  <work dir>/attempts/      files of running tasks
  <work dir>/logs/          logs of tasks, by attempt
  <work dir>/stages/        files of provers at work
  assay-worker.toml         optional configuration; worker/agent/worker.sample.toml explains every field

Exit codes:
  0  left in good order
  1  cannot work, or has lost its last device: the message says why
  2  bad configuration or usage
  130  ended by a third signal";

/// The command line of a worker; `E` are flags of its runner.
#[derive(Debug, Parser)]
#[command(
    name = "assay-worker",
    version,
    about = "Takes tasks of an Assay cluster and proves them",
    after_help = AFTER_HELP,
    after_long_help = AFTER_HELP
)]
pub struct Arguments<E: Args> {
    /// Configuration file [default: assay-worker.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The cluster's Redis: redis://host:port, rediss://, redis+sentinel://, redis+cluster://
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// Name of the deployment on that Redis [default: default]
    #[arg(long, value_name = "NAME")]
    pub deployment: Option<String>,
    /// Large artifacts: file:///folder that all machines see, or s3://bucket/prefix
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// What to call this worker [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// GPUs to use: auto, all, or numbers with commas between them [default: auto, all with 22 GiB or more, or the CPU if there is none]
    #[arg(long, value_name = "LIST")]
    pub devices: Option<String>,
    /// Use the CPU, beside the GPUs of --devices or alone
    #[arg(long)]
    pub cpu: bool,
    /// Memory of all tasks together, GiB [default: five sixths of the machine's]
    #[arg(long, value_name = "GIB")]
    pub memory: Option<u64>,
    /// Memory of each GPU that tasks may use, GiB, at least 22 for each task [default: all that it has]
    #[arg(long, value_name = "GIB")]
    pub device_memory: Option<u64>,
    /// Tasks at the same time [default: one for each GPU, two if all have 64 GiB; without GPUs what memory and cores allow]
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// Controllers (block and fold tasks) at the same time, beside the slots [default: 1, with GPUs 2]
    #[arg(long, value_name = "N")]
    pub controllers: Option<u32>,
    /// Kinds of tasks, with commas between them [default: all]
    #[arg(long, value_name = "LIST")]
    pub kinds: Option<String>,
    /// The key that signs receipts [default: worker.key in the work folder]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Folder of this worker, its own [default: ~/.cache/assay/worker]
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// How long running tasks may go on after SIGTERM [default: 20]
    #[arg(long, value_name = "SECONDS")]
    pub drain_seconds: Option<u64>,
    /// Flags of the runner.
    #[command(flatten)]
    pub extra: E,
}

/// No flags of a runner.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct NoExtra {}

/// Why a worker's process ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The environment asks for an export of spans that is not possible.
    #[error(transparent)]
    Telemetry(#[from] assay_telemetry::TelemetryError),
    /// The configuration.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Queue or store.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The worker itself.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The runner cannot be made.
    #[error("{0}")]
    Runner(String),
    /// The system does not give what a process needs.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Its reason.
        source: std::io::Error,
    },
}

impl CliError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Telemetry(_) | CliError::Config(_) | CliError::Key(_) => EXIT_BAD_INPUT,
            CliError::Backend(error) if error.class() == Class::Permanent => EXIT_BAD_INPUT,
            _ => EXIT_FAILED,
        }
    }
}

impl<E: Args> Arguments<E> {
    /// The flags as a source of settings.
    pub fn settings(&self) -> Settings {
        let devices = match (&self.devices, self.cpu) {
            (Some(devices), true) => Some(format!("{devices},cpu")),
            (Some(devices), false) => Some(devices.clone()),
            (None, true) => Some("cpu".to_owned()),
            (None, false) => None,
        };
        Settings {
            queue: QueueSettings {
                redis: self.redis.clone(),
                deployment: self.deployment.clone(),
                ..QueueSettings::default()
            },
            store: StoreSettings { url: self.store.clone(), ..StoreSettings::default() },
            worker: WorkerSettings {
                name: self.name.clone(),
                work_dir: self.work_dir.clone(),
                key_file: self.key_file.clone(),
                devices,
                slots: self.slots,
                controllers: self.controllers,
                memory_gib: self.memory,
                device_memory_gib: self.device_memory,
                kinds: self.kinds.clone(),
                drain_seconds: self.drain_seconds,
            },
            // Flags of the runner, which knows what they are for.
            prover: ProverSettings::default(),
        }
    }
}

/// A worker's whole process. `runner` makes the runner from the configuration, in which it may change the version that this
/// worker has under its settings, and its own flags.
pub fn main<E: Args, R: Runner>(
    program: &Program,
    runner: impl FnOnce(&mut Config, E) -> Result<R, String>,
) -> ExitCode {
    // Bad usage ends here, with clap's message and exit code 2.
    let arguments = Arguments::<E>::parse();
    let result = assay_telemetry::init("info", "assay-worker")
        .map_err(CliError::from)
        .and_then(|_guard| run(program, arguments, runner));
    match result {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) => {
            // The last word, also when logs are off.
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run<E: Args, R: Runner>(
    program: &Program,
    arguments: Arguments<E>,
    runner: impl FnOnce(&mut Config, E) -> Result<R, String>,
) -> Result<(), CliError> {
    let mut config = Config::load(program, arguments.config.as_deref(), arguments.settings())?;
    let key = WorkerKey::open(&config.key_file)?;
    let runner: Arc<dyn Runner> = Arc::new(runner(&mut config, arguments.extra).map_err(CliError::Runner)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| CliError::System { action: "start the runtime", source })?;
    let result = runtime.block_on(work(config, key, runner));
    // What still runs was handed back.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn work(config: Config, key: WorkerKey, runner: Arc<dyn Runner>) -> Result<(), CliError> {
    let signals = watch_signals()?;
    let connect = async {
        let queue: Arc<dyn TaskQueue> =
            Arc::new(patiently(|| RedisQueue::open(config.redis.clone(), QueueLimits::default())).await?);
        let (redis, objects) = (&config.redis, &config.objects);
        let open = || SharedStore::open(redis.clone(), objects, SharedLimits::default());
        let store: Arc<dyn ArtifactStore> = Arc::new(patiently(open).await?);
        Ok::<_, BackendError>((queue, store))
    };
    let mut signals = signals;
    let (queue, store) = tokio::select! {
        connected = connect => connected?,
        // Nothing was taken yet, so nothing has to be handed back.
        _ = signals.recv() => return Ok(()),
    };
    Ok(Agent::open(config.agent, queue, store, runner, key)?.run(signals).await?)
}

/// Tries until it works or can never work.
async fn patiently<T, F>(mut open: impl FnMut() -> F) -> Result<T, BackendError>
where
    F: std::future::Future<Output = Result<T, BackendError>>,
{
    loop {
        match open().await {
            Err(error) if error.class() == Class::Transient => {
                tracing::warn!(%error, "not connected; trying again");
                tokio::time::sleep(RETRY.mul_f64(0.5 + rand::random::<f64>())).await;
            }
            other => return other,
        }
    }
}

/// SIGTERM and SIGINT, the third of which ends the process.
fn watch_signals() -> Result<mpsc::Receiver<Signal>, CliError> {
    let system = |source| CliError::System { action: "listen for signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    let (sender, receiver) = mpsc::channel(SIGNALS_MAX);
    tokio::spawn(async move {
        for _ in 0..SIGNALS_MAX {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("asked to leave");
            // There is room for all of them; a worker that is gone needs none.
            let _ = sender.try_send(Signal::Leave);
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(i32::from(EXIT_INTERRUPTED));
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_the_help_teaches() {
        Arguments::<NoExtra>::command().debug_assert();
        let help = Arguments::<NoExtra>::command().render_long_help().to_string();
        for word in
            ["Examples", "Exit codes", "SIGTERM", "--redis", "--store", "--kinds", "worker.key", "kill -9"]
        {
            assert!(help.contains(word), "the help does not say {word}");
        }
    }

    #[test]
    fn flags_become_settings() {
        let flags = "assay-worker --redis redis://r --store s3://s --name n --devices 0,1 --cpu --memory 3 --slots 4 --device-memory 7 \
                     --controllers 5 --kinds wrap --key-file k --work-dir w --drain-seconds 6 --deployment d";
        let settings = Arguments::<NoExtra>::try_parse_from(flags.split_whitespace()).unwrap().settings();
        assert_eq!(settings.queue.redis.as_deref(), Some("redis://r"));
        assert_eq!(settings.queue.deployment.as_deref(), Some("d"));
        assert_eq!(settings.store.url.as_deref(), Some("s3://s"));
        assert_eq!(
            settings.worker,
            WorkerSettings {
                name: Some("n".into()),
                work_dir: Some("w".into()),
                key_file: Some("k".into()),
                devices: Some("0,1,cpu".into()),
                slots: Some(4),
                controllers: Some(5),
                memory_gib: Some(3),
                device_memory_gib: Some(7),
                kinds: Some("wrap".into()),
                drain_seconds: Some(6),
            }
        );
        let bare = Arguments::<NoExtra>::try_parse_from(["assay-worker", "--cpu"]).unwrap().settings();
        assert_eq!(bare.worker.devices.as_deref(), Some("cpu"));
    }
}
