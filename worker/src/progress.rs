//! What a stage tells the outside while it runs.

use std::sync::Arc;
use std::time::Instant;

use assay_agent::runner::GpuFaults;
use serde::{Deserialize, Serialize};

/// One progress event; written as one JSON line by [`crate::stages::serve`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Name of the stage, as in `stages::Job`.
    pub stage: String,
    /// What the stage is doing now.
    pub phase: String,
    /// Steps of this phase that are finished.
    pub done: u64,
    /// Steps of this phase known so far; 0 while unknown. Grows while the guest is still executing.
    pub total: u64,
    /// Largest resident set of this process so far.
    pub peak_rss_bytes: u64,
    /// Time since the job began.
    pub elapsed_ms: u64,
    /// What the GPU has failed at since the last event that said so; the job goes on.
    #[serde(default, skip_serializing_if = "GpuFaults::is_none")]
    pub gpu_faults: GpuFaults,
}

/// Receives progress events; called from many threads.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// A sink that drops everything.
pub fn silent() -> ProgressSink {
    Arc::new(|_| {})
}

/// Emits the events of one job.
#[derive(Clone)]
pub struct Reporter {
    stage: &'static str,
    started: Instant,
    sink: ProgressSink,
}

impl Reporter {
    /// Starts the clock of a job.
    pub fn new(stage: &'static str, sink: ProgressSink) -> Self {
        Self { stage, started: Instant::now(), sink }
    }

    /// Sends one event.
    pub fn report(&self, phase: impl Into<String>, done: u64, total: u64) {
        self.send(phase.into(), done, total, GpuFaults::default());
    }

    /// Says what the GPU has failed at; nothing if there is nothing to say.
    pub fn report_gpu(&self, faults: GpuFaults) {
        if !faults.is_none() {
            let GpuFaults { retries, fallbacks } = faults;
            let phase = format!("the GPU failed: {retries} tried again, {fallbacks} done on the CPU");
            self.send(phase, 1, 1, faults);
        }
    }

    fn send(&self, phase: String, done: u64, total: u64, gpu_faults: GpuFaults) {
        (self.sink)(Progress {
            stage: self.stage.to_owned(),
            phase,
            done,
            total,
            peak_rss_bytes: peak_rss_bytes(),
            elapsed_ms: self.elapsed_ms(),
            gpu_faults,
        });
    }

    /// Milliseconds since the job began.
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Largest resident set of this process so far, from `/proc/self/status`; 0 where that file is absent.
///
/// The guest's executor runs in a child process of its own and is not counted; it holds the guest's memory only.
pub fn peak_rss_bytes() -> u64 {
    status_field_bytes("VmHWM:")
}

fn status_field_bytes(field: &str) -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn reporter_stamps_stage_and_memory() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink: ProgressSink = {
            let seen = seen.clone();
            Arc::new(move |event| seen.lock().unwrap().push(event))
        };
        Reporter::new("wrap", sink).report("shrink", 1, 2);
        let events = seen.lock().unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].stage.as_str(), events[0].phase.as_str()), ("wrap", "shrink"));
        assert_eq!((events[0].done, events[0].total), (1, 2));
        assert!(events[0].peak_rss_bytes > 0);
    }

    #[test]
    fn a_progress_event_survives_json() {
        let event = Progress {
            stage: "prove_run".into(),
            phase: "prove shards".into(),
            done: 3,
            total: 7,
            peak_rss_bytes: 1 << 34,
            elapsed_ms: 12,
            gpu_faults: GpuFaults::default(),
        };
        let line = serde_json::to_string(&event).unwrap();
        assert!(!line.contains('\n') && !line.contains("gpu_faults"));
        assert_eq!(serde_json::from_str::<Progress>(&line).unwrap(), event);
        let event = Progress { gpu_faults: GpuFaults { retries: 1, fallbacks: 2 }, ..event };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Progress>(&line).unwrap(), event);
    }

    #[test]
    fn a_gpu_that_works_is_not_talked_about() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink: ProgressSink = {
            let seen = seen.clone();
            Arc::new(move |event| seen.lock().unwrap().push(event))
        };
        let reporter = Reporter::new("groth16_prove", sink);
        reporter.report_gpu(GpuFaults::default());
        assert!(seen.lock().unwrap().is_empty());
        reporter.report_gpu(GpuFaults { retries: 1, fallbacks: 1 });
        let events = seen.lock().unwrap();
        assert_eq!(events[0].gpu_faults, GpuFaults { retries: 1, fallbacks: 1 });
        assert!(events[0].phase.contains("1 tried again, 1 done on the CPU"), "{}", events[0].phase);
    }
}
