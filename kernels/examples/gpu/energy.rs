//! Energy of an operation, from samples of the power that the driver tells (`nvidia-smi`).

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two samples in milliseconds. The driver's own figure is renewed as often or less.
const PERIOD_MS: &str = "25";
/// How long an operation is repeated before its power counts: older GPUs tell an average of the last second.
const SETTLE: Duration = Duration::from_millis(1500);
/// How long it counts then.
const WINDOW: Duration = Duration::from_secs(2);
/// Samples of a window below which there is no figure.
const LEAST: usize = 5;

/// When a sample came, and its watts.
type Sample = (Instant, f64);

/// Samples the first GPU's power until it is dropped.
pub(crate) struct Meter {
    child: Child,
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl Meter {
    /// `None` where the driver does not tell.
    pub(crate) fn start() -> Option<Self> {
        ["power.draw.instant", "power.draw"].into_iter().find_map(Self::of)
    }

    fn of(field: &str) -> Option<Self> {
        let query = format!("--query-gpu={field}");
        let arguments = ["-i", "0", &query, "--format=csv,noheader,nounits"];
        let told = Command::new("nvidia-smi").args(arguments).output().ok()?;
        watts(&String::from_utf8_lossy(&told.stdout))?;
        let mut child = Command::new("nvidia-smi")
            .args(arguments)
            .args(["-lms", PERIOD_MS])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let lines = BufReader::new(child.stdout.take()?).lines();
        let samples = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&samples);
        std::thread::spawn(move || {
            for watts in lines.map_while(Result::ok).filter_map(|line| watts(&line)) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), watts));
            }
        });
        Some(Self { child, samples })
    }

    /// Joules that one `run` takes: mean power while it is repeated, times its mean time. `None` for too few samples.
    ///
    /// # Errors
    /// Those of `run`.
    pub(crate) fn joules<E>(&self, mut run: impl FnMut() -> Result<(), E>) -> Result<Option<f64>, E> {
        let settled = Instant::now() + SETTLE;
        while Instant::now() < settled {
            run()?;
        }
        let (start, mut runs) = (Instant::now(), 0u32);
        while start.elapsed() < WINDOW {
            run()?;
            runs += 1;
        }
        let end = Instant::now();
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let mean = mean_power(&samples, start, end);
        Ok(mean.map(|mean| mean * (end - start).as_secs_f64() / f64::from(runs)))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first number of a line; drivers that do not tell write words in brackets.
fn watts(line: &str) -> Option<f64> {
    line.trim().parse().ok().filter(|watts: &f64| watts.is_finite() && *watts > 0.0)
}

/// Mean watts of the samples between two instants.
fn mean_power(samples: &[Sample], start: Instant, end: Instant) -> Option<f64> {
    let within: Vec<f64> =
        samples.iter().filter(|(at, _)| (start..=end).contains(at)).map(|(_, watts)| *watts).collect();
    (within.len() >= LEAST).then(|| within.iter().sum::<f64>() / within.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_are_watts() {
        assert_eq!(watts(" 345.17\n"), Some(345.17));
        for line in
            ["[N/A]", "[Not Supported]", "", "0.00", "NaN", "Field \"power.draw.instant\" is not valid"]
        {
            assert_eq!(watts(line), None, "{line}");
        }
    }

    #[test]
    fn power_is_the_mean_of_the_samples_within() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let samples: Vec<Sample> = (0..10).map(|i| (at(100 * i), 100.0 + i as f64)).collect();
        assert_eq!(mean_power(&samples, at(200), at(600)), Some(104.0));
        assert_eq!(mean_power(&samples, at(250), at(650)), None, "four samples are too few");
    }
}
