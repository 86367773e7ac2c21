//! `assay coordinator`: the coordinator process of a cluster, with the zkVM's verifier and Bitcoin behind it.
//!
//! `assay-service` runs the schedule, the API and the metrics; this module supplies what it leaves open:
//!
//! | seam | here | by means of |
//! |---|---|---|
//! | queue and store | [`connect`] | a folder, or Redis and an object store |
//! | reading batches | [`reader`] | `assay-lvm`: every submission is executed on this host |
//! | checking results | [`verifier`] | `assay_worker::cluster::ClusterTask::check`, the pinned verifying key |
//! | settling | [`settler`] | [`crate::settle`], as `assay prove` does |
//! | who may ask | [`secrets`] | the file of tenants, the coordinators' shared secret |
//!
//! No prover runs in this process: keys of programs come from a child ([`epoch`]), and the worker that an embedded queue
//! has ([`local`]) proves in children.
//!
//! # Invariants
//! * A proof counts under the pinned verifying key and no other, and only if it states what the batch says.
//! * A coordinator whose result folder is not the deployment's does not lead ([`ledger`]): nothing is settled twice.
//! * Trouble of this machine (a full disk) is never held against a worker, and never taken for a settlement that failed.

pub mod connect;
pub mod epoch;
pub mod ledger;
pub mod local;
mod output;
pub mod reader;
pub mod report;
pub mod secrets;
pub mod settler;
pub mod verifier;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use assay_agent::agent::Signal;
use assay_agent::config::Machine;
use assay_queue::{BackendError, Class};
use assay_schedule::Limits;
use assay_service::keys::KeyError;
use assay_service::leader::LeaderError;
use assay_service::server::ServerLimits;
use assay_service::starting::until_started;
use assay_service::webhook::CallbackPolicy;
use assay_service::work::WorkLimits;
use assay_service::{Service, ServiceError, Settings, Supplies};
use assay_worker::jobs::MEMORY_BYTES;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::config::{Config, CoordinatorConfig, Place};
use crate::error::{Error, EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED};
use crate::fsio::{self, FileError};
use crate::lock::{with_lock, Locked};
use connect::Opened;
use epoch::Epoch;

/// How long threads that still verify or settle may take at the end.
const SHUTDOWN_TIME: Duration = Duration::from_secs(2);

/// How long those are waited for who asked while the queue was not there yet.
const STARTING_DRAIN: Duration = Duration::from_secs(1);

/// Why a coordinator cannot run, or ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Queue or store.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Queue or store did not answer at the start.
    #[error(
        "queue and artifact store could not be reached for {} s ({}): start them, or mend their URLs; how long to wait is \
         start_wait_seconds in [queue]",
        .waited.as_secs(),
        .source.as_ref().map_or_else(|| "no answer".to_owned(), ToString::to_string)
    )]
    Unreachable {
        /// How long it was tried.
        waited: Duration,
        /// The last failure, if there was an answer.
        #[source]
        source: Option<BackendError>,
    },
    /// The file of tenants.
    #[error("tenants: {0}")]
    Keys(#[from] KeyError),
    /// A file of its own.
    #[error(transparent)]
    File(#[from] FileError),
    /// A secret that is none.
    #[error("{path} holds no secret: expected at least 32 bytes, as `openssl rand -hex 32` prints them")]
    Secret {
        /// The file.
        path: PathBuf,
    },
    /// Nothing says which verifying key counts.
    #[error(
        "no verifying key to check proofs with: there are no Groth16 parameters in {folder}; run `assay setup` here, or copy \
         that folder from the machine that proves, or name the key with --vk-hash"
    )]
    NoVerifyingKey {
        /// Where parameters would be.
        folder: PathBuf,
    },
    /// The parameters that are there are those of another version.
    #[error(
        "the Groth16 parameters in {folder} are of another circuit than this version's, {circuit}: run `assay setup` on one machine \
         and copy its groth16/ to this one and to all that make Groth16 proofs, or name their key with --vk-hash"
    )]
    OtherCircuit {
        /// Where parameters are.
        folder: PathBuf,
        /// This version's circuit.
        circuit: String,
    },
    /// This machine's parameters cannot be used.
    #[error("{path}: {reason}")]
    Parameters {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The result folder's own file.
    #[error("{path}: {reason}; restore it from the backup, or give this coordinator another --out")]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The address is taken or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The system does not give what a process needs.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Its reason.
        source: io::Error,
    },
    /// The service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The worker in this process.
    #[error("the worker in this process: {0}")]
    Worker(String),
    /// A part of the process ended in a panic.
    #[error("a part of the coordinator has ended: {0}")]
    Ended(String),
}

impl ClusterError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Backend(error) if error.class() == Class::Permanent => EXIT_BAD_INPUT,
            Self::Keys(_)
            | Self::File(_)
            | Self::Secret { .. }
            | Self::NoVerifyingKey { .. }
            | Self::OtherCircuit { .. }
            | Self::Parameters { .. }
            | Self::Ledger { .. }
            | Self::Listen { .. } => EXIT_BAD_INPUT,
            Self::Service(ServiceError::Leader(LeaderError::Ledger { .. } | LeaderError::NoTrunk { .. })) => {
                EXIT_BAD_INPUT
            }
            _ => EXIT_FAILED,
        }
    }

    /// What to do about it, where the message does not say so.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Service(ServiceError::Leader(LeaderError::Ledger { expected, .. })) => Some(format!(
                "run it with --out on that folder ({}), on storage that all coordinators of the deployment share, or restore the \
                 folder there from the backup; a deployment of its own needs another --deployment",
                expected.place
            )),
            Self::Service(ServiceError::Leader(LeaderError::NoTrunk { chain, got })) => Some(format!(
                "give it the --out that has rollups/{chain}/trunk instead of {}, from the backup if need be; where that is lost for good, \
                 begin a deployment of its own: another --deployment",
                got.place
            )),
            _ => None,
        }
    }
}

/// Runs a coordinator until a signal ends it. `program` is this program, for children; `say` gets what a person is told at
/// the start, a line at a time.
///
/// # Errors
/// [`Error::Cluster`]; what the child says that computes the programs' keys.
pub fn run(config: &Config, program: PathBuf, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
    crate::shell::check_backend(config)?;
    epoch::check(config)?;
    try_out(&config.out)?;
    with_lock(Locked::coordinator(&config.coordinator.dir), || run_alone(config, program, say))
}

/// Whether chains of claims can be kept there: found out now, not after hours of proving.
fn try_out(out: &Path) -> Result<(), ClusterError> {
    std::fs::create_dir_all(out).map_err(fsio::io_error("create", out))?;
    tempfile::tempfile_in(out).map_err(fsio::io_error("write to", out))?;
    Ok(())
}

fn run_alone(config: &Config, program: PathBuf, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let coordinator = &config.coordinator;
    let epoch = epoch::open(config, &program, say)?;
    let ledger = ledger::open(&config.out, &Machine::look().host)?;
    let scratch = verifier::scratch(&coordinator.dir).map_err(ClusterError::from)?;
    let cluster = secrets::cluster_key(&coordinator.cluster_secret)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| ClusterError::System { what: "start the runtime", source })?;
    let (version, limits) = (epoch.version, config.run_limits());
    let result = runtime.block_on(async {
        let address = coordinator.listen;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| ClusterError::Listen { address, source })?;
        let mut signals = watch_signals()?;
        let Some((opened, listener)) = reach(coordinator, listener, &mut signals).await? else {
            return Ok(());
        };
        let worker = coordinator.has_worker.then(|| local::Worker::new(config, &epoch, program, version));
        let worker = worker.transpose()?;
        // Last, because a key that was made is only known to who reads the next lines.
        let (keys, first_key) = secrets::tenants(&coordinator.tenants)?;
        greet(config, &epoch, listener.local_addr().unwrap_or(address), first_key.as_deref(), say);
        let settings = settings(config);
        let supplies = Supplies {
            queue: Arc::clone(&opened.queue),
            store: Arc::clone(&opened.store),
            reader: Arc::new(reader::EvmReader::new(version, limits, &settings.limits)),
            verifier: Arc::new(verifier::TaskVerifier::new(&epoch, scratch)),
            settler: Arc::new(
                settler::TrunkSettler::new(config.clone(), epoch.verifying_key).with_ledger(ledger),
            ),
            keys: Arc::new(keys),
            cluster,
        };
        serve(Service::new(supplies, settings), listener, worker, opened, signals).await
    });
    // What still runs is idempotent and begun again by whoever leads next.
    runtime.shutdown_timeout(SHUTDOWN_TIME);
    Ok(result?)
}

/// Opens queue and store, and answers whoever asks meanwhile; `None` if a signal came first.
async fn reach(
    config: &CoordinatorConfig,
    listener: TcpListener,
    signals: &mut mpsc::Receiver<()>,
) -> Result<Option<(Opened, TcpListener)>, ClusterError> {
    let (trouble, reason) = watch::channel("the queue has not answered yet".to_owned());
    // Boxed, because it is large.
    let begin = Box::pin(async {
        tokio::select! {
            opened = connect::open(config, &trouble) => opened.map(Some),
            _ = signals.recv() => Ok(None),
        }
    });
    let limits = ServerLimits { drain_time: STARTING_DRAIN, ..ServerLimits::default() };
    let system = |source| ClusterError::System { what: "listen", source };
    let (opened, listener) = until_started(listener, limits, reason, begin).await.map_err(system)?;
    Ok(opened?.map(|opened| (opened, listener)))
}

fn settings(config: &Config) -> Settings {
    Settings {
        limits: Limits { memory_bytes: MEMORY_BYTES, ..Limits::default() },
        work: WorkLimits { settlements_max: settler::SETTLEMENTS_MAX, ..WorkLimits::default() },
        callbacks: CallbackPolicy { allow_private: config.coordinator.private_callbacks },
        ..Settings::default()
    }
}

/// Serves until a signal, or until a part of it ends. The worker leaves first, so that its tasks are handed back.
async fn serve(
    service: Service,
    listener: TcpListener,
    worker: Option<local::Worker>,
    opened: Opened,
    mut signals: mpsc::Receiver<()>,
) -> Result<(), ClusterError> {
    let (stop, stopping) = watch::channel(false);
    let mut service = tokio::spawn(service.run(listener, stopping));
    let (leave, leaving) = mpsc::channel(2);
    let mut worker = tokio::spawn(async move {
        match worker {
            Some(worker) => worker.run(opened, leaving).await,
            // Without one there is nothing that could end.
            None => {
                let mut leaving = leaving;
                leaving.recv().await;
                Ok(())
            }
        }
    });
    let ended = |error: tokio::task::JoinError| ClusterError::Ended(error.to_string());
    let early = tokio::select! {
        _ = signals.recv() => None,
        done = &mut service => Some(done.map_err(ended).and_then(|done| Ok(done?))),
        done = &mut worker => Some(done.map_err(ended).and_then(|done| done)),
    };
    if let Some(done) = early {
        // Whatever is left goes with the process; everything is committed or begun again.
        return done;
    }
    // Who is gone needs no telling.
    let _ = leave.send(Signal::Leave).await;
    let left = worker.await.map_err(ended).and_then(|done| done);
    stop.send_replace(true);
    let served = service.await.map_err(ended).and_then(|done| Ok(done?));
    served.and(left)
}

/// The first SIGTERM or SIGINT; the second ends the process at once.
fn watch_signals() -> Result<mpsc::Receiver<()>, ClusterError> {
    use tokio::signal::unix::{signal, SignalKind};
    let system = |source| ClusterError::System { what: "listen for signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if sender.try_send(()).is_err() {
                std::process::exit(i32::from(EXIT_INTERRUPTED));
            }
            crate::fsio::say!("stopping in good order (again: end at once)");
        }
        std::process::exit(i32::from(EXIT_INTERRUPTED));
    });
    Ok(receiver)
}

/// What a person is told at the start.
fn greet(
    config: &Config,
    epoch: &Epoch,
    address: SocketAddr,
    first_key: Option<&str>,
    say: &mut dyn FnMut(&str),
) {
    let coordinator = &config.coordinator;
    say(&format!("listening on http://{address}; a live page at /, metrics at /metrics"));
    match &coordinator.place {
        Place::Embedded => {
            say(&format!("  queue          in {}: this process is the cluster", coordinator.dir.display()))
        }
        Place::Shared { redis, .. } => {
            say(&format!(
                "  queue          on Redis, deployment {}: start workers with the same one",
                redis.name
            ));
        }
    }
    if coordinator.has_worker {
        say("  worker         one in this process");
    }
    let from = if epoch.is_configured { "configured" } else { "of this machine's parameters" };
    say(&format!("  verifying key  {} ({from})", hex::encode(epoch.verifying_key)));
    say(&format!("  tenants        {}", coordinator.tenants.display()));
    if !address.ip().is_loopback() {
        say("  NOTE           other machines can reach this port, and keys travel in the clear: put a TLS proxy in front");
    }
    if let Some(key) = first_key {
        say(&format!(
            "  first key      {key}\n                 shown this once, for development; try: ASSAY_KEY={key} assay submit sample --watch"
        ));
    }
}

#[cfg(test)]
mod tests;
