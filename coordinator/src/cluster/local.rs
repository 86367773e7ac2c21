//! The worker of a coordinator whose queue nobody else can reach: an agent in this process, provers in its children.

use std::path::PathBuf;
use std::sync::Arc;

use assay_agent::agent::{Agent, AgentConfig, Signal};
use assay_agent::config::{local_agent, Machine, Program};
use assay_agent::key::WorkerKey;
use assay_agent::runner::child::ChildRunner;
use assay_schedule::Kind;
use assay_worker::child::ALLOCATOR;
use assay_worker::device::GPU_MEMORY_BYTES_MIN;
use assay_worker::jobs::{child_settings, JobsConfig, StageJobs, MEMORY_BYTES};
use tokio::sync::mpsc;

use super::connect::Opened;
use super::epoch::Epoch;
use super::ClusterError;
use crate::config::Config;

/// Parts of one controller that are asked for at the same time, at least, and for each slot: some are being proved, the next ones
/// are ready.
const PARTS: u32 = 4;
const PARTS_A_SLOT: u32 = 2;

/// A worker that has not begun.
pub struct Worker {
    agent: AgentConfig,
    runner: ChildRunner<StageJobs>,
    key: WorkerKey,
}

impl Worker {
    /// A worker for one controller and as many tasks at a time as the devices and the prover's memory of `config` allow: the GPUs
    /// in a build that can use them, else the processor. `program` is this program, for children.
    ///
    /// # Errors
    /// [`ClusterError::Worker`].
    pub fn new(config: &Config, epoch: &Epoch, program: PathBuf, version: u32) -> Result<Self, ClusterError> {
        let wrong = |error: &dyn std::error::Error| ClusterError::Worker(crate::shell::one_line(error));
        let machine = Machine::look();
        let memory_bytes = match config.memory_bytes {
            0 => machine.memory_bytes / 6 * 5,
            bytes => bytes,
        };
        let work_dir = config.coordinator.dir.join("worker");
        let this = Program {
            version,
            build: concat!("assay ", env!("CARGO_PKG_VERSION"), " (in the coordinator)").to_owned(),
            task_bytes: MEMORY_BYTES[Kind::Shard],
            uses_gpus: cfg!(feature = "cuda"),
            gpu_bytes_min: GPU_MEMORY_BYTES_MIN,
        };
        // The machine's GPUs are those that `CUDA_VISIBLE_DEVICES` leaves.
        let agent = local_agent(&this, &machine, "auto", memory_bytes, work_dir.clone());
        let agent = agent.map_err(|error| wrong(&error))?;
        let allocator = ALLOCATOR.iter().filter(|(name, _)| std::env::var_os(name).is_none());
        let jobs = JobsConfig {
            program,
            environment: allocator.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            cache_dir: config.keys.clone(),
            work_dir: work_dir.join("stages"),
            memory_bytes,
            slots: agent.slots,
            parts: PARTS.max(agent.slots.saturating_mul(PARTS_A_SLOT)),
        };
        let settings = child_settings(&work_dir, memory_bytes);
        let key = WorkerKey::open(&work_dir.join("worker.key")).map_err(|error| wrong(&error))?;
        let runner = ChildRunner::new(StageJobs::new(jobs, epoch.rules.clone()), settings)
            .with_gpus(agent.gpu_shares.clone());
        Ok(Self { agent, runner, key })
    }

    /// Works until it is asked to leave.
    ///
    /// # Errors
    /// [`ClusterError::Worker`].
    pub async fn run(self, opened: Opened, leave: mpsc::Receiver<Signal>) -> Result<(), ClusterError> {
        let wrong =
            |error: assay_agent::agent::AgentError| ClusterError::Worker(crate::shell::one_line(&error));
        let Opened { queue, store } = opened;
        let agent = Agent::open(self.agent, queue, store, Arc::new(self.runner), self.key).map_err(wrong)?;
        agent.run(leave).await.map_err(wrong)
    }
}
