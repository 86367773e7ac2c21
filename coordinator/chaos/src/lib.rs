//! Chaos runs: a cluster of real processes over a real Redis on this machine, a seeded schedule of faults, and a check of
//! what must hold afterwards.
//!
//! Layer: above `assay-service` and `assay-agent`, below `assay`. Tasks are cheap ([`assay_agent::fake`]): the coordinator
//! recomputes every result, so that proofs are really verified, and a whole run takes seconds.
//!
//! ```text
//! seed ─▶ plan ─▶ faults ─▶ kill, pause, part, corrupt, fill, duplicate, skew
//!                             │
//!   coordinators, workers ── proxy each ── redis-server (append-only file)
//!                             │
//!         client ─▶ batches   └─▶ look: stored state, store, settlements ─▶ check ─▶ report
//! ```
//!
//! # Invariants
//! * The schedule of faults is a function of seed and options.
//! * No process outlives the run: handles kill what they hold, and children watch their standard input.
//! * The check is a pure function of what was found, and each of its findings is shown by a test; that each kind of fault
//!   can lead to one is shown with defects that are built in on purpose ([`Weakness`]).
//!
//! # Non-goals
//! Speed, the zkVM, Bitcoin; faults of disks and of clocks of workers (which nobody reads). The schedule's own simulator
//! (`assay_schedule::sim`) runs millions of steps where this runs thousands, but nothing of the processes around it.
//!
//! Reading order: [`Options`], [`plan()`], `check.rs`, `run.rs`, `faults.rs`, `cluster.rs`, `weak.rs`, `aim.rs`.
//!
//! ```no_run
//! use assay_chaos::{run, Options, Program};
//!
//! // This program has to run `coordinator_main` and `worker_main` under these commands.
//! let program = Program { coordinator: vec!["chaos-coordinator".into()], worker: vec!["chaos-worker".into()], ..Program::default() };
//! let report = run(&Options { seed: Some(7), program, ..Options::default() })?;
//! assert!(report.is_ok(), "{report}");
//! # Ok::<(), assay_chaos::ChaosError>(())
//! ```

mod aim;
mod cheap;
mod check;
mod child;
mod client;
mod cluster;
mod command;
mod coordinator;
mod error;
mod faults;
mod look;
mod options;
mod plan;
mod process;
mod proxy;
mod redis_server;
mod report;
mod run;
mod weak;
mod worker;

pub use check::{Invariant, Violation};
pub use command::{command, Flags, EXIT_BROKEN, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK};
pub use coordinator::coordinator_main;
pub use error::ChaosError;
pub use options::{FaultKind, Options, Program, Weakness, AFTER_HELP};
pub use plan::{plan, Fault, Planned, Target};
pub use report::Report;
pub use run::{run, run_with};
pub use worker::worker_main;
