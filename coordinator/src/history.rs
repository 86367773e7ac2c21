//! Durations of former runs, for estimates.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fsio::{self, FileError};

/// Runs that are remembered per kind of stage.
const KEPT: usize = 8;
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One finished computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Wall-clock time.
    pub millis: u64,
    /// Size of the work (guest cycles), 0 where the time does not depend on it.
    pub cycles: u64,
}

/// Durations by kind of stage, newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History(BTreeMap<String, Vec<Sample>>);

impl History {
    /// Reads the file; an absent or unreadable one is an empty history, since estimates are all it is for.
    pub fn load(path: &Path) -> Self {
        let bytes = fsio::read_limited(path, FILE_BYTES_MAX).ok();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`FileError`].
    ///
    /// # Panics
    /// Never: maps of numbers are always JSON.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let bytes = serde_json::to_vec_pretty(self).expect("maps of numbers are always JSON");
        fsio::write_atomic(path, &bytes)
    }

    /// Remembers one computation.
    pub fn record(&mut self, kind: &str, sample: Sample) {
        let samples = self.0.entry(kind.to_owned()).or_default();
        samples.push(sample);
        let excess = samples.len().saturating_sub(KEPT);
        samples.drain(..excess);
    }

    /// Expected time of a computation of `kind` over `cycles` (0 = unknown or irrelevant); `None` without experience.
    ///
    /// Between samples of different sizes it interpolates with the least-squares line, which catches the fixed cost of
    /// a stage (starting the zkVM) as well as the cost per cycle; with one size the median grows with the cycles.
    pub fn estimate(&self, kind: &str, cycles: u64) -> Option<Duration> {
        let samples = self.0.get(kind).filter(|samples| !samples.is_empty())?;
        let mut millis: Vec<u64> = samples.iter().map(|s| s.millis).collect();
        millis.sort_unstable();
        let median = millis[millis.len() / 2] as f64;
        let n = samples.len() as f64;
        let mean_x = samples.iter().map(|s| s.cycles as f64).sum::<f64>() / n;
        let mean_y = samples.iter().map(|s| s.millis as f64).sum::<f64>() / n;
        let spread = samples.iter().map(|s| (s.cycles as f64 - mean_x).powi(2)).sum::<f64>();
        let slope =
            samples.iter().map(|s| (s.cycles as f64 - mean_x) * (s.millis as f64 - mean_y)).sum::<f64>();
        let millis = if cycles == 0 || mean_x == 0.0 {
            median
        } else if spread <= 0.0 || slope <= 0.0 {
            median * (cycles as f64 / mean_x).max(0.5)
        } else {
            (mean_y + slope / spread * (cycles as f64 - mean_x)).max(median / 10.0)
        };
        Some(Duration::from_millis(millis as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_the_median_or_follow_the_size() {
        let mut history = History::default();
        assert_eq!(history.estimate("fold", 0), None);
        for millis in [100, 900, 110] {
            history.record("fold", Sample { millis, cycles: 0 });
        }
        assert_eq!(history.estimate("fold", 5), Some(Duration::from_millis(110)));
        history.record("core", Sample { millis: 30_000 + 1000, cycles: 1000 });
        history.record("core", Sample { millis: 30_000 + 3000, cycles: 3000 });
        assert_eq!(history.estimate("core", 5000), Some(Duration::from_millis(35_000)));
        assert_eq!(history.estimate("core", 0), Some(Duration::from_millis(33_000)));
        history.record("one size", Sample { millis: 100, cycles: 1000 });
        assert_eq!(history.estimate("one size", 10_000), Some(Duration::from_millis(1000)));
    }

    #[test]
    fn only_the_newest_are_kept_and_a_damaged_file_is_an_empty_history() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.json");
        let mut history = History::default();
        for millis in 0..20 {
            history.record("x", Sample { millis, cycles: 0 });
        }
        assert_eq!(history.0["x"].len(), KEPT);
        assert_eq!(history.0["x"][KEPT - 1].millis, 19);
        history.save(&path).unwrap();
        assert_eq!(History::load(&path), history);
        std::fs::write(&path, b"{").unwrap();
        assert_eq!(History::load(&path), History::default());
    }
}
