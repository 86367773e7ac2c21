//! The seam between the agent and whatever runs a task.
//!
//! [`Runner::run`] is called once for each attempt, with the inputs on disk and checked. While it runs it may report
//! progress and have parts proved elsewhere through its [`Host`]; it ends with outputs on disk or a classified failure.
//! Implementations: [`child`] (a process that speaks lines), [`crate::fake`] (cheap, with faults; and a GPU that fails as a
//! script says).

pub mod child;
mod process;
mod sys;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use assay_schedule::{AttemptId, Dispatch, Hash, Kind};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

/// Where a task computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The machine's cores.
    #[default]
    Cpu,
    /// A GPU, counted as the driver does.
    Gpu(u32),
}

/// How processes share a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuShare {
    /// Processes on it at the same time, those that wait for their next task included; at least one.
    pub processes: u32,
    /// Bytes of its memory that each of them may use, where somebody has said how much it has.
    pub memory_bytes: Option<u64>,
}

impl Default for GpuShare {
    /// One process, of whose memory nothing is known.
    fn default() -> Self {
        Self { processes: 1, memory_bytes: None }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Gpu(number) => number.fmt(f),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(Device::Cpu),
            number => {
                let number =
                    number.parse().map_err(|_| format!("{text:?} is no device: expected cpu or a number"))?;
                Ok(Device::Gpu(number))
            }
        }
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> String {
        device.to_string()
    }
}

/// A task with its inputs on disk.
#[derive(Clone, Debug)]
pub struct Task {
    /// What to do.
    pub dispatch: Arc<Dispatch>,
    /// Its inputs, in the dispatch's order, checked. They are the task's own copies.
    pub inputs: Vec<PathBuf>,
    /// A folder of its own, empty, removed when the attempt is over.
    pub dir: PathBuf,
    /// Where it may compute.
    pub device: Device,
}

/// A file that a task has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewFile {
    /// Where it is, in the task's folder.
    pub path: PathBuf,
    /// Work that its consumer has, in units of that task's kind.
    pub units: u64,
}

/// What is wrong with a device, as the process that works on it or its runner finds. See [`crate::state`] for what follows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceFault {
    /// An allocation on it failed. It is sound, and so is everything else that it holds.
    #[error("out of device memory")]
    Allocation,
    /// Every call of the process fails from now on; a new process may do better.
    #[error("sticky error: {0}")]
    Sticky(String),
    /// It does not come to an end.
    #[error("it hangs: {0}")]
    Hung(String),
    /// It does not answer, to new processes neither.
    #[error("lost: {0}")]
    Lost(String),
    /// It computes something else than it should.
    #[error("wrong results: {0}")]
    Wrong(String),
}

/// Why a task has no outputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// May work another time.
    #[error("{0}")]
    Transient(String),
    /// Memory did not suffice.
    #[error("out of memory")]
    OutOfMemory,
    /// An input turned out to be missing or damaged.
    #[error("input {0} is lost")]
    InputLost(u32),
    /// Can never work.
    #[error("{0}")]
    Permanent(String),
    /// Its device failed.
    #[error("the task's device: {0}")]
    Device(DeviceFault),
    /// The host asked for it.
    #[error("cancelled")]
    Cancelled,
}

/// What a task's process had to do again because its GPU failed. The task may have ended well all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuFaults {
    /// Calls that the GPU was given a second time.
    pub retries: u32,
    /// Calls that the CPU did after all.
    pub fallbacks: u32,
}

impl GpuFaults {
    /// Whether there were none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a task used, as far as its runner knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Processor time of the task.
    pub cpu_ms: u64,
    /// Time that the device was busy; `None`: not measured, the time it was set aside counts.
    pub gpu_ms: Option<u64>,
    /// Largest resident memory.
    pub memory_bytes_peak: u64,
    /// What its GPU failed at.
    #[serde(default)]
    pub gpu_faults: GpuFaults,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Outputs, in order, or why there are none.
    pub result: Result<Vec<NewFile>, Failure>,
    /// What it used.
    pub used: Used,
}

/// How far a task is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it does now.
    pub phase: String,
    /// Steps done.
    pub done: u64,
    /// Steps known, 0 while unknown.
    pub total: u64,
}

/// A part of a task that any worker may prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// [`Kind::Shard`] or [`Kind::Reduce`].
    pub kind: Kind,
    /// Hash of everything that its result depends on: equal keys, equal results.
    pub key: Hash,
    /// Its inputs. They may be removed when the part is done.
    pub files: Vec<PathBuf>,
    /// How much work it is, in units of its kind.
    pub units: u64,
}

/// Why a part has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartError {
    /// The task is being cancelled.
    #[error("cancelled")]
    Cancelled,
    /// It could not be handed over.
    #[error("{0}")]
    Failed(String),
}

/// Runs tasks. Called many times at the same time, as often as the worker has slots and controllers.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Runs a task to its end, which soon follows [`Host::cancelled`]. Never dropped half-way, except at the process's
    /// end; when it returns, nothing of the task runs any more and its memory is free or accounted for.
    async fn run(&self, task: Task, host: Host) -> Ended;

    /// Whether a device that was taken out of service can be given tasks again. Asked now and then, while none is on it.
    /// Yes, unless a runner knows better: the next task will show.
    async fn has(&self, _device: Device) -> bool {
        true
    }

    /// A device was taken out of service: ends what is kept ready on it.
    async fn let_go(&self, _device: Device) {}

    /// Ends what is kept ready between tasks. Called once, when no task runs.
    async fn close(&self) {}
}

/// What a runner tells the agent.
#[derive(Debug)]
pub(crate) enum FromRunner {
    Progress { attempt: AttemptId, progress: Progress },
    Part { attempt: AttemptId, part: Part, answer: oneshot::Sender<Result<Vec<PathBuf>, PartError>> },
}

/// A task's line to the agent. Clones share it.
#[derive(Clone, Debug)]
pub struct Host {
    attempt: AttemptId,
    agent: mpsc::Sender<FromRunner>,
    cancel: watch::Receiver<bool>,
}

impl Host {
    pub(crate) fn new(
        attempt: AttemptId,
        agent: mpsc::Sender<FromRunner>,
        cancel: watch::Receiver<bool>,
    ) -> Self {
        Self { attempt, agent, cancel }
    }

    /// Says how far the task is. Dropped when nobody listens.
    pub fn progress(&self, progress: Progress) {
        let _ = self.agent.try_send(FromRunner::Progress { attempt: self.attempt, progress });
    }

    /// Has a part proved, by whatever worker, and returns its result files, checked. Takes as long as that takes; the
    /// same part asked for twice is proved once.
    ///
    /// # Errors
    /// [`PartError`].
    pub async fn part(&self, part: Part) -> Result<Vec<PathBuf>, PartError> {
        let (answer, result) = oneshot::channel();
        let request = FromRunner::Part { attempt: self.attempt, part, answer };
        self.agent.send(request).await.map_err(|_| PartError::Cancelled)?;
        result.await.unwrap_or(Err(PartError::Cancelled))
    }

    /// Whether the task is to end.
    pub fn is_cancelled(&self) -> bool {
        *self.cancel.borrow()
    }

    /// Waits until the task is to end.
    pub async fn cancelled(&self) {
        let mut cancel = self.cancel.clone();
        // The agent that is gone wants nothing any more.
        let _ = cancel.wait_for(|cancelled| *cancelled).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for device in [Device::Cpu, Device::Gpu(0), Device::Gpu(15)] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        for text in ["", "gpu", "-1", "0x1"] {
            assert!(text.parse::<Device>().is_err(), "{text:?}");
        }
    }
}
