//! What the GPUs do, sampled by `nvidia-smi`, which comes with the driver.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Milliseconds between two samples.
const PERIOD_MS: u32 = 200;

/// The GPUs that a process may use, of those that the driver lists; `visible`: its `CUDA_VISIBLE_DEVICES`. Where that names them in
/// another way than by number they are all taken to be.
pub fn visible_gpus(visible: Option<&str>, listed: Vec<(u32, String)>) -> Vec<(u32, String)> {
    let Some(visible) = visible.map(str::trim) else { return listed };
    if visible.is_empty() {
        return Vec::new();
    }
    let numbers: Result<Vec<u32>, _> = visible.split(',').map(|name| name.trim().parse()).collect();
    let Ok(numbers) = numbers else { return listed };
    let named = |number: u32| listed.iter().find(|(known, _)| *known == number).cloned();
    numbers.into_iter().filter_map(named).collect()
}

/// What the GPUs that were used did over some time, all together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuUse {
    /// Share of the time in which a kernel ran, mean over time and GPUs.
    pub busy_percent: f64,
    /// Most memory in use on one of them, in bytes.
    pub memory_bytes: u64,
    /// Energy of all, in joules; absent if the driver does not tell the power.
    pub energy_joules: Option<f64>,
    /// Samples that this is made of.
    pub samples: u64,
}

impl GpuUse {
    /// Share of the time in which no kernel ran, mean over time and GPUs.
    pub fn idle_percent(&self) -> f64 {
        (100.0 - self.busy_percent).max(0.0)
    }
}

/// Samples until [`Self::stop`]; ends its process with itself.
pub struct Sampler {
    process: Child,
    reader: Option<JoinHandle<Sums>>,
    started: Instant,
}

#[derive(Default)]
struct Sums {
    samples: u64,
    busy_percent: f64,
    memory_mib: u64,
    watts: f64,
    /// Samples with a power.
    powered: u64,
    /// Those that have told something.
    gpus: BTreeSet<u64>,
}

impl Sums {
    /// Takes a line `index, busy, MiB, watts`; what is no such line is passed over.
    fn take(&mut self, line: &str) {
        let mut fields = line.split(',').map(str::trim);
        let mut next = || fields.next().unwrap_or_default();
        let (index, busy, memory, watts) = (next(), next(), next(), next());
        let (Ok(index), Ok(busy), Ok(memory)) =
            (index.parse::<u64>(), busy.parse::<f64>(), memory.parse::<u64>())
        else {
            return;
        };
        self.samples += 1;
        self.busy_percent += busy;
        self.memory_mib = self.memory_mib.max(memory);
        self.gpus.insert(index);
        if let Ok(watts) = watts.parse::<f64>() {
            self.watts += watts;
            self.powered += 1;
        }
    }

    fn result(&self, seconds: f64) -> Option<GpuUse> {
        if self.samples == 0 {
            return None;
        }
        let energy = self.watts / self.powered.max(1) as f64 * self.gpus.len() as f64 * seconds;
        Some(GpuUse {
            busy_percent: self.busy_percent / self.samples as f64,
            memory_bytes: self.memory_mib << 20,
            energy_joules: (self.powered > 0).then_some(energy),
            samples: self.samples,
        })
    }
}

impl Sampler {
    /// Begins, on the GPUs of these numbers; `None` without any, and where there is no `nvidia-smi`.
    pub fn start(gpus: &[u32]) -> Option<Self> {
        if gpus.is_empty() {
            return None;
        }
        let numbers: Vec<String> = gpus.iter().map(u32::to_string).collect();
        let mut process = Command::new("nvidia-smi")
            .args(["-i", &numbers.join(",")])
            .arg("--query-gpu=index,utilization.gpu,memory.used,power.draw")
            .args(["--format=csv,noheader,nounits", "-lms", &PERIOD_MS.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let output = process.stdout.take()?;
        let reader = std::thread::spawn(move || {
            let mut sums = Sums::default();
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| sums.take(&line));
            sums
        });
        Some(Self { process, reader: Some(reader), started: Instant::now() })
    }

    /// Ends; `None` if no GPU told anything.
    pub fn stop(mut self) -> Option<GpuUse> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.end();
        self.reader.take()?.join().ok()?.result(seconds)
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_several_gpus_are_summed() {
        let mut sums = Sums::default();
        for line in ["2, 100, 2048, 300.5", "5, 50, 1024, 99.5", "No devices were found", "2, 90, 1, [N/A]"] {
            sums.take(line);
        }
        let used = sums.result(10.0).unwrap();
        assert_eq!((used.busy_percent, used.memory_bytes, used.samples), (80.0, 2048 << 20, 3));
        // A mean of 200 W, twice, for 10 s.
        assert_eq!(used.energy_joules, Some(4000.0));
        assert_eq!(used.idle_percent(), 20.0);
        assert_eq!(Sums::default().result(1.0), None);
    }

    #[test]
    fn the_gpus_that_are_left_to_a_process_are_sampled_and_no_others() {
        let listed =
            || [(0, "A"), (1, "B"), (2, "C")].map(|(number, name)| (number, name.to_owned())).to_vec();
        let numbers = |visible| -> Vec<u32> {
            visible_gpus(visible, listed()).into_iter().map(|(number, _)| number).collect()
        };
        assert_eq!(numbers(None), [0, 1, 2]);
        assert_eq!(numbers(Some("2, 0,7")), [2, 0]);
        assert!(numbers(Some("")).is_empty());
        assert_eq!(numbers(Some("GPU-5ebd5e6f")), [0, 1, 2]);
        assert!(Sampler::start(&[]).is_none());
    }
}
