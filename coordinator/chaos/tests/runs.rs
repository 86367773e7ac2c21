//! Whole runs with real processes and a real Redis.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use assay_chaos::{run, FaultKind, Invariant, Options, Program, Report, Weakness};

fn options(seed: u64) -> Options {
    let executable = Some(PathBuf::from(env!("CARGO_BIN_EXE_assay-chaos")));
    Options { seed: Some(seed), program: Program { executable, ..Program::default() }, ..Options::default() }
}

/// All faults at once.
fn holds(seed: u64) {
    let report = run(&Options { seconds: 6, patience_seconds: 300, ..options(seed) }).unwrap();
    assert!(report.is_ok(), "{report}");
    assert_eq!((report.settled + report.failures.len(), report.batches), (8, 8), "{report}");
    // Only what was settled on and is damaged cannot be made again, and ends the rollup's later batches.
    let is_history = |failure: &String| failure.contains("History") || failure.contains("Predecessor");
    assert!(report.failures.iter().all(is_history), "{report}");
    assert!(report.settled >= 3 && (report.damaged > 0 || report.settled == 8), "{report}");
    // The cluster was in fact tormented.
    assert!(report.faults.values().sum::<u64>() >= 4, "{report}");
    assert!(report.accepted >= 50, "{report}");
}

#[test]
fn seed_1_holds() {
    holds(1);
}

#[test]
fn seed_2_holds() {
    holds(2);
}

#[test]
fn seed_3_holds() {
    holds(3);
}

/// Seconds for a run that ends in spite of its defect, and for one that does not, or leaves something over.
const ENDS: u64 = 40;
const NEVER_ENDS: u64 = 5;

/// One kind of fault on a cluster with one defect.
fn weakened(kind: FaultKind, weakness: Weakness, patience_seconds: u64) -> Report {
    let faults = vec![kind];
    // Two that believe to lead notice it whenever they load the log, and begin anew: only with work at hand is there harm.
    let (batches, task_ms) = match weakness {
        Weakness::StaleLeader | Weakness::ClockLease => (16, 200),
        _ => (4, 60),
    };
    let options = Options {
        faults,
        weaken: Some(weakness),
        seconds: 2,
        patience_seconds,
        batches,
        task_ms,
        ..options(1)
    };
    let report = run(&options).unwrap();
    assert!(!report.is_ok(), "{kind:?} does not show {weakness:?}: {report}");
    // Kept because it failed, which here is what it should do.
    std::fs::remove_dir_all(report.dir.as_ref().unwrap()).unwrap();
    report
}

fn has(report: &Report, invariant: Invariant) {
    assert!(report.violations.iter().any(|violation| violation.invariant == invariant), "{report}");
}

#[test]
fn killed_coordinators_show_a_settler_that_forgets() {
    has(&weakened(FaultKind::KillCoordinator, Weakness::SettleTwice, ENDS), Invariant::Settled);
}

#[test]
fn killed_workers_show_that_nothing_is_memoised() {
    has(&weakened(FaultKind::KillWorker, Weakness::NoMemo, ENDS), Invariant::Again);
}

#[test]
fn a_killed_redis_shows_that_it_keeps_no_file() {
    has(&weakened(FaultKind::KillRedis, Weakness::NoAof, NEVER_ENDS), Invariant::Ends);
}

#[test]
fn pauses_show_that_leaders_are_not_fenced() {
    weakened(FaultKind::Pause, Weakness::StaleLeader, NEVER_ENDS);
}

#[test]
fn partitions_show_that_attempts_are_not_fenced() {
    has(&weakened(FaultKind::Partition, Weakness::NoFence, NEVER_ENDS), Invariant::Leaks);
}

#[test]
fn damage_shows_that_artifacts_are_not_checked() {
    weakened(FaultKind::Corrupt, Weakness::NoChecksum, ENDS);
}

#[test]
fn a_full_redis_shows_that_it_evicts() {
    weakened(FaultKind::FillMemory, Weakness::Evict, NEVER_ENDS);
}

#[test]
fn duplicates_show_that_submissions_are_not_idempotent() {
    has(&weakened(FaultKind::Duplicate, Weakness::Repeat, ENDS), Invariant::Ends);
}

#[test]
fn skewed_clocks_show_that_leases_are_judged_by_them() {
    weakened(FaultKind::Skew, Weakness::ClockLease, NEVER_ENDS);
}

#[test]
fn wrong_results_show_that_nothing_is_verified() {
    has(&weakened(FaultKind::Wrong, Weakness::AcceptAll, ENDS), Invariant::Settled);
}

/// Processes that have something to do with a folder.
fn processes_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let folder = std::fs::read_link(entry.path().join("cwd")).ok();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let is_there = folder.is_some_and(|folder| folder.starts_with(dir));
        (is_there || line.contains(dir)).then_some(line)
    });
    lines.collect()
}

#[test]
fn an_interrupted_or_killed_run_leaves_no_coordinator_and_no_worker() {
    for (signal, is_gentle) in [("-INT", true), ("-KILL", false)] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay-chaos"));
        command.args(["run", "--seconds", "60", "--faults", "duplicate", "--dir"]).arg(dir.path());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let log = dir.path().join("nodes/worker-2.log");
        let begun = Instant::now();
        while !log.exists() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the cluster does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(processes_of(dir.path()).len() >= 6, "{:?}", processes_of(dir.path()));
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let status = child.wait().unwrap();
        assert_eq!(status.code(), is_gentle.then_some(130));
        let begun = Instant::now();
        let is_left = |line: &String| is_gentle || !line.contains("redis-server");
        while processes_of(dir.path()).iter().any(is_left) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", processes_of(dir.path()));
            std::thread::sleep(Duration::from_millis(20));
        }
        if !is_gentle {
            end_redis(dir.path());
        }
    }
}

/// Nobody can end Redis for a parent that was killed; this test has to.
fn end_redis(dir: &Path) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let folder = std::fs::read_link(entry.path().join("cwd")).ok();
        if folder.is_some_and(|folder| folder.starts_with(dir)) {
            let pid = entry.file_name().into_string().unwrap();
            assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        }
    }
}

#[test]
fn a_plan_is_printed_the_same_each_time() {
    let print = |seed: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay-chaos"));
        let output = command.args(["run", "--plan", "--seed", seed]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(print("5").contains("kill -9") && print("5").starts_with("seed 5\n"));
    assert_eq!(print("5"), print("5"));
    assert_ne!(print("5"), print("6"));
}
