//! What a run has found.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::check::Violation;
use crate::options::Options;
use crate::plan::Planned;

/// What a run has found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Gives the same schedule of faults again.
    pub seed: u64,
    /// What was asked for.
    pub options: Options,
    /// The schedule.
    pub plan: Vec<Planned>,
    /// Faults that were carried out, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults that were left out: their victim was in another one's hands, or nobody led.
    pub faults_skipped: u64,
    /// Events that were delivered again.
    pub duplicates: u64,
    /// Artifacts whose bytes were changed.
    pub damaged: usize,
    /// Batches that were submitted.
    pub batches: usize,
    /// Of these, settled.
    pub settled: usize,
    /// Why the others were not.
    pub failures: Vec<String>,
    /// Attempts of tasks.
    pub attempts: usize,
    /// Attempts whose results counted.
    pub accepted: usize,
    /// Terms of leadership.
    pub epochs: u64,
    /// What does not hold.
    pub violations: Vec<Violation>,
    /// How long it took.
    pub elapsed_ms: u64,
    /// The run's folder, if it is kept.
    pub dir: Option<PathBuf>,
}

impl Report {
    /// Whether everything holds.
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_ok() { "ok" } else { "FAILED" };
        writeln!(f, "seed {}: {verdict} after {:.1} s", self.seed, self.elapsed_ms as f64 / 1000.0)?;
        writeln!(f, "  batches   {} submitted, {} settled", self.batches, self.settled)?;
        for failure in &self.failures {
            writeln!(f, "            {failure}")?;
        }
        writeln!(
            f,
            "  attempts  {}, of which {} counted; terms of leadership: {}",
            self.attempts, self.accepted, self.epochs
        )?;
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
        writeln!(f, "  faults    {}; {} left out", faults.join(", "), self.faults_skipped)?;
        writeln!(
            f,
            "            {} events delivered again, {} artifacts damaged",
            self.duplicates, self.damaged
        )?;
        for violation in &self.violations {
            writeln!(f, "  BROKEN    {}: {}", violation.invariant, violation.found)?;
        }
        if let Some(dir) = self.dir.as_ref().filter(|_| !self.is_ok()) {
            writeln!(f, "  files     {}", dir.display())?;
        }
        Ok(())
    }
}
