//! One run, from the first process to the last.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_agent::fake::Shape;
use assay_schedule::Phase;
use assay_service::state::AttemptState;
use tokio::signal::unix::{signal, SignalKind};

use crate::cheap::seed_of;
use crate::check::{check, Evidence, Submitted};
use crate::client::SubmitError;
use crate::cluster::Cluster;
use crate::error::ChaosError;
use crate::faults::Tormentor;
use crate::look::{known, leaked_files, posted, wait_for_end};
use crate::options::Options;
use crate::plan::{plan, Planned};
use crate::report::Report;

/// How long an undisturbed cluster may take to start, on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);
const SUPERVISE: Duration = Duration::from_millis(100);
/// How long a settled batch's proof may take to be downloaded.
const DOWNLOAD_MAX: Duration = Duration::from_secs(10);

/// Makes a run: starts a cluster, does to it what the seed says, and checks what must hold. All processes have ended when
/// it returns, also after a panic or a signal.
///
/// # Errors
/// [`ChaosError`] if the run could not be made; what it found is in the report.
pub fn run(options: &Options) -> Result<Report, ChaosError> {
    run_with(options, &|_| {})
}

/// [`run`], telling what happens, line by line.
///
/// # Errors
/// See [`run`].
///
/// # Panics
/// With the panic of one of its tasks.
pub fn run_with(options: &Options, tell: &(dyn Fn(&str) + Sync)) -> Result<Report, ChaosError> {
    // A thread of its own: the caller may have a runtime, in which another one cannot be started.
    let made = std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime =
                runtime.map_err(|source| ChaosError::System { what: "start the runtime", source })?;
            runtime.block_on(async {
                tokio::select! {
                    made = make(options, tell) => made,
                    interrupted = interrupted() => Err(interrupted),
                }
            })
        });
        made.join()
    });
    made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn interrupted() -> ChaosError {
    let system = |source| ChaosError::System { what: "listen for signals", source };
    let (mut interrupt, mut terminate) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            (Err(error), _) | (_, Err(error)) => return system(error),
        };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    ChaosError::Interrupted
}

/// The run's folder, and whether it goes when the run ends well.
enum Folder {
    Given(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    fn open(options: &Options) -> Result<Self, ChaosError> {
        let Some(path) = &options.dir else {
            let made = tempfile::Builder::new().prefix("assay-chaos-").tempdir();
            return Ok(Self::Temporary(made.map_err(ChaosError::file("create", &std::env::temp_dir()))?));
        };
        std::fs::create_dir_all(path).map_err(ChaosError::file("create", path))?;
        let path = path.canonicalize().map_err(ChaosError::file("find", path))?;
        let mut entries = std::fs::read_dir(&path).map_err(ChaosError::file("read", &path))?;
        match entries.next() {
            Some(_) => Err(ChaosError::NotEmpty { path }),
            None => Ok(Self::Given(path)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }

    /// Ends the run; where its files are, if they are kept.
    fn close(self, is_kept: bool) -> Option<PathBuf> {
        match self {
            Self::Given(path) => Some(path),
            Self::Temporary(dir) => is_kept.then(|| dir.keep()),
        }
    }
}

async fn make(options: &Options, tell: &(dyn Fn(&str) + Sync)) -> Result<Report, ChaosError> {
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let plan = if options.weaken.is_some() { Vec::new() } else { plan(seed, options) };
    let begun = Instant::now();
    tell(&format!("seed {seed}: {} faults in {} s", plan.len(), options.seconds));
    let folder = Folder::open(options)?;
    let made = tempered(seed, options, &plan, folder.path(), tell).await;
    let mut report = match made {
        Ok(report) => report,
        Err(error) => {
            let is_kept = !matches!(error, ChaosError::Interrupted);
            if let Some(path) = folder.close(is_kept) {
                tell(&format!("the run's files are in {}", path.display()));
            }
            return Err(error);
        }
    };
    report.elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    report.dir = folder.close(!report.is_ok());
    Ok(report)
}

async fn tempered(
    seed: u64,
    options: &Options,
    plan: &[Planned],
    dir: &Path,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Report, ChaosError> {
    let cluster = Arc::new(Cluster::start(dir, seed, options).await?);
    wait_for_start(&cluster, tell).await?;
    let tormentor = Arc::new(Tormentor::new(Arc::clone(&cluster)));
    let supervise = async {
        loop {
            tokio::time::sleep(SUPERVISE).await;
            if let Err(error) = cluster.supervise() {
                break error;
            }
        }
    };
    let aim = async {
        match options.weaken.filter(|weakness| options.has(weakness.shown_by())) {
            Some(weakness) => tormentor.aim(weakness, tell).await,
            None => Ok(()),
        }
    };
    let both =
        async { tokio::try_join!(aim, tormentor.torment(plan, tell), submit(&cluster, seed, options)) };
    let ((), (), submitted) = tokio::select! {
        done = both => done?,
        error = supervise => return Err(error),
    };
    tell("no more faults; waiting for all batches to end");
    let numbers: Vec<u64> = submitted.iter().filter_map(|batch| batch.batch.clone().ok()).collect();
    let patience = Duration::from_secs(options.patience_seconds);
    let (state, mut leaks) = wait_for_end(&cluster, &numbers, patience, tell).await?;
    let mut evidence = Evidence { submitted, ..Evidence::default() };
    let mut epochs = 0;
    match state {
        Ok(state) => {
            evidence.known = known(&cluster, &state, options.workers, DOWNLOAD_MAX).await;
            epochs = state.epoch().0;
        }
        Err(reason) => evidence.unreadable.push(format!("the stored state cannot be used: {reason}")),
    }
    cluster.supervise()?;
    cluster.stop().await;
    leaks.extend(leaked_files(&cluster).await);
    let done = tormentor.done();
    evidence.posted = posted(&cluster)?;
    evidence.exits = cluster.exits();
    evidence.damaged.clone_from(&done.damaged);
    evidence.leaks = leaks;
    let attempts = || evidence.known.iter().flat_map(|known| &known.attempts);
    let is_settled = |phase: &Phase| *phase == Phase::Settled;
    let unsettled = evidence.known.iter().filter(|known| !is_settled(&known.phase));
    Ok(Report {
        seed,
        options: Options { seed: Some(seed), ..options.clone() },
        plan: plan.to_vec(),
        faults: done.counts,
        faults_skipped: done.skipped,
        duplicates: done.duplicates,
        damaged: done.damaged.len(),
        batches: evidence.submitted.len(),
        settled: evidence.known.iter().filter(|known| is_settled(&known.phase)).count(),
        failures: unsettled.map(|known| format!("batch {}: {:?}", known.number, known.phase)).collect(),
        attempts: attempts().count(),
        accepted: attempts().filter(|attempt| attempt.state == AttemptState::Accepted).count(),
        epochs,
        violations: check(&evidence),
        elapsed_ms: 0,
        dir: None,
    })
}

async fn wait_for_start(cluster: &Cluster, tell: &(dyn Fn(&str) + Sync)) -> Result<(), ChaosError> {
    let begun = Instant::now();
    while cluster.client.leader().await.is_none() {
        cluster.supervise()?;
        let exits = cluster.exits();
        if begun.elapsed() > START_MAX || !exits.is_empty() {
            let reason = exits.first().cloned().unwrap_or_else(|| "no coordinator leads".to_owned());
            return Err(ChaosError::Cluster {
                seconds: START_MAX.as_secs(),
                reason,
                dir: cluster.dir.clone(),
            });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tell(&format!("the cluster runs after {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// Submits batches, spread over the time of faults, each rollup's one after the other.
async fn submit(cluster: &Arc<Cluster>, seed: u64, options: &Options) -> Result<Vec<Submitted>, ChaosError> {
    let begun = tokio::time::Instant::now();
    // The first batches meet the first faults, and the last ones the last.
    let pause = Duration::from_millis(options.seconds * 900) / options.batches;
    let patience = Duration::from_secs(options.seconds + options.patience_seconds);
    let mut chains = tokio::task::JoinSet::new();
    for chain in 0..options.chains.min(options.batches) {
        let (cluster, numbers) =
            (Arc::clone(cluster), (chain..options.batches).step_by(options.chains as usize));
        chains.spawn(async move {
            let mut submitted = Vec::new();
            for number in numbers {
                tokio::time::sleep_until(begun + pause * number).await;
                let payload = shape(chain, number).payload();
                let key = format!("{seed}-{number}");
                let batch =
                    cluster.client.submit(&key, &payload, patience).await.map_err(|error| match error {
                        SubmitError::Refused(reason) | SubmitError::Late(reason) => reason,
                    });
                cluster.accepted.fetch_add(batch.is_ok().into(), Ordering::SeqCst);
                submitted.push(Submitted { batch, payload });
            }
            submitted
        });
    }
    let mut all = Vec::new();
    while let Some(joined) = chains.join_next().await {
        match joined {
            Ok(submitted) => all.extend(submitted),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return Err(ChaosError::Interrupted),
            },
        }
    }
    Ok(all)
}

/// Batches of many shapes; some with small artifacts, which are kept in Redis, most with larger ones, which are files.
fn shape(chain: u32, number: u32) -> Shape {
    Shape {
        runs: 1 + number % 3,
        shards: 2 + number * 3 % 5,
        fold_shards: 1 + number % 2,
        arity: 2 + number % 2,
        bytes: if number % 4 == 3 { 200 } else { 4_000 },
        seed: seed_of(chain, number),
    }
}
