//! What a run is asked for.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// Text under `--help`.
pub const AFTER_HELP: &str = "\
A run starts redis-server (append-only file on), coordinators and workers as processes of their own on this machine, with
tasks that cost nothing and can be recomputed. It submits batches, and meanwhile does to the cluster what its seed says:

  kill-coordinator   kill -9, the leader more often than not; it is started again
  kill-worker        kill -9; it is started again in the same work folder
  kill-redis         kill -9; it is started again from its append-only file
  pause              SIGSTOP, and SIGCONT when leases have run out
  partition          nothing passes between one process and Redis; what was stopped arrives late, or never
  corrupt            a byte of an artifact is changed
  fill-memory        Redis reaches maxmemory
  duplicate          events are delivered twice, at once and late; answers are lost, so that requests are repeated
  skew               a coordinator starts again with a clock that is seconds off
  wrong              workers return wrong results, fail, hang and dawdle

Then it heals everything, waits until all batches have ended, and checks:

  ends        each accepted batch ends in exactly one verified proof or a clear failure; none is lost or becomes two
  settled     exactly one settlement for each settled batch, with the right proof; none for another
  again       no finished task is proved again, unless its result was damaged
  rejected    no result is rejected but those that were made wrong
  leaks       the store holds results and nothing else
  exits       no process ends by itself

Examples:
  … --seed 7                             one run of about 20 s
  … --seed 1 --count 200                 seeds 1 to 200, one after the other
  … --seed 7 --faults kill-redis,pause   these faults only
  … --seed 7 --plan                      prints the schedule of faults, runs nothing

A seed gives the same schedule of faults, whatever the machine. What the schedule meets depends on the machine's timing, so
a rare defect may need the same seed several times. A run that finds something keeps its folder, with the logs of all
processes.

Exit codes: 0 all invariants hold; 1 one does not; 2 bad usage; 3 the run could not be made; 130 interrupted.";

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// kill -9 of a coordinator.
    KillCoordinator,
    /// kill -9 of a worker.
    KillWorker,
    /// kill -9 of Redis, restarted from its append-only file.
    KillRedis,
    /// SIGSTOP, later SIGCONT.
    Pause,
    /// Nothing passes between a process and Redis.
    Partition,
    /// Changed bytes in the store.
    Corrupt,
    /// Redis reaches maxmemory.
    FillMemory,
    /// Events twice, answers lost.
    Duplicate,
    /// A coordinator's clock is off.
    Skew,
    /// Wrong results, failures, hangs, slow tasks.
    Wrong,
}

/// A defect that is built in on purpose, to show that the invariants notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weakness {
    /// The coordinator accepts every result.
    AcceptAll,
    /// Artifacts are read without being checked.
    NoChecksum,
    /// The settler does not look whether it has settled a batch before.
    SettleTwice,
    /// A revoked attempt may publish.
    NoFence,
    /// A deposed leader's commits count.
    StaleLeader,
    /// A submission that is delivered twice is two submissions.
    Repeat,
    /// Parts are asked for under another key by each attempt of their controller.
    NoMemo,
    /// Redis keeps no append-only file.
    NoAof,
    /// Redis throws data away when memory is short.
    Evict,
    /// A coordinator judges the leader's lease by its own clock.
    ClockLease,
}

impl Weakness {
    /// The fault that shows it. A run with a defect is struck by this one at the moment that matters, and by no others.
    pub fn shown_by(self) -> FaultKind {
        match self {
            Self::SettleTwice => FaultKind::KillCoordinator,
            Self::NoMemo => FaultKind::KillWorker,
            Self::NoAof => FaultKind::KillRedis,
            Self::StaleLeader => FaultKind::Pause,
            Self::NoFence => FaultKind::Partition,
            Self::NoChecksum => FaultKind::Corrupt,
            Self::Evict => FaultKind::FillMemory,
            Self::Repeat => FaultKind::Duplicate,
            Self::ClockLease => FaultKind::Skew,
            Self::AcceptAll => FaultKind::Wrong,
        }
    }
}

/// How the parent's program is started again as one of the cluster's processes: these arguments, then a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The executable; `None`: the running one.
    pub executable: Option<PathBuf>,
    /// Arguments of a coordinator.
    pub coordinator: Vec<String>,
    /// Arguments of a worker.
    pub worker: Vec<String>,
}

impl Default for Program {
    fn default() -> Self {
        Self { executable: None, coordinator: vec!["coordinator".into()], worker: vec!["worker".into()] }
    }
}

/// A run.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Options {
    /// Where the drawing of faults begins [default: drawn, and printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How long faults happen
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// How long the healed cluster may take to end all batches, and to delete what nobody needs
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub patience_seconds: u64,
    /// Coordinators
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub coordinators: u32,
    /// Workers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub workers: u32,
    /// Batches, submitted while faults happen
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub batches: u32,
    /// Rollups that the batches belong to
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub chains: u32,
    /// How long a task takes
    #[arg(long, value_name = "MS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub task_ms: u64,
    /// Kinds of faults, with commas between them [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub faults: Vec<FaultKind>,
    /// Folder for the run's files; must be empty or missing [default: a temporary one, kept if something is found]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Builds a defect in, to see that it is found; its fault strikes at the right moment instead of a schedule
    #[arg(long, hide = true, value_name = "NAME")]
    pub weaken: Option<Weakness>,
    /// How processes are started.
    #[arg(skip)]
    #[serde(skip)]
    pub program: Program,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: None,
            seconds: 10,
            patience_seconds: 60,
            coordinators: 2,
            workers: 3,
            batches: 8,
            chains: 3,
            task_ms: 60,
            faults: Vec::new(),
            dir: None,
            weaken: None,
            program: Program::default(),
        }
    }
}

impl Options {
    /// The kinds of faults that happen.
    pub fn kinds(&self) -> Vec<FaultKind> {
        let mut kinds = self.faults.clone();
        if kinds.is_empty() {
            kinds = FaultKind::value_variants().to_vec();
        }
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// Whether faults of a kind happen.
    pub fn has(&self, kind: FaultKind) -> bool {
        self.kinds().contains(&kind)
    }
}
