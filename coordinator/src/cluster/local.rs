//! The worker of a coordinator whose queue nobody else can reach: an agent in this process, provers in its children.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use assay_agent::agent::{Agent, AgentConfig, Signal};
use assay_agent::config::{cpu_slots, Machine};
use assay_agent::key::WorkerKey;
use assay_agent::runner::child::{ChildRunner, ChildSettings};
use assay_agent::runner::Device;
use assay_schedule::Kind;
use assay_worker::child::ALLOCATOR;
use assay_worker::jobs::{JobsConfig, StageJobs, MEMORY_BYTES, MEMORY_LIMIT_PERCENT};
use tokio::sync::mpsc;

use super::connect::Opened;
use super::epoch::Epoch;
use super::ClusterError;
use crate::config::Config;

/// Time that a child has to end before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// A wrap proof says nothing for twenty minutes on a slow machine.
const SILENCE_MAX: Duration = Duration::from_secs(3600);
/// Parts of one controller that are asked for at the same time: some are being proved, the next ones are ready.
const PARTS: u32 = 4;
/// Longest name of a worker, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A worker that has not begun.
pub struct Worker {
    agent: AgentConfig,
    runner: ChildRunner<StageJobs>,
    key: WorkerKey,
}

impl Worker {
    /// A worker for one controller and as many tasks at a time as the prover's memory of `config` allows. `program` is this
    /// program, for children.
    ///
    /// # Errors
    /// [`ClusterError::Worker`].
    pub fn new(config: &Config, epoch: &Epoch, program: PathBuf, version: u32) -> Result<Self, ClusterError> {
        let machine = Machine::look();
        let memory_bytes = match config.memory_bytes {
            0 => machine.memory_bytes / 6 * 5,
            bytes => bytes,
        };
        let work_dir = config.coordinator.dir.join("worker");
        let mut agent = AgentConfig::new(&work_dir, version, memory_bytes);
        let mut name = machine.host;
        name.retain(|c| !c.is_control());
        agent.name = if (1..=NAME_BYTES_MAX).contains(&name.len()) { name } else { "coordinator".to_owned() };
        agent.build = concat!("assay ", env!("CARGO_PKG_VERSION"), " (in the coordinator)").to_owned();
        agent.devices = vec![(Device::Cpu, machine.cpu)];
        agent.slots = cpu_slots(memory_bytes, MEMORY_BYTES[Kind::Shard], machine.cores);
        let allocator = ALLOCATOR.iter().filter(|(name, _)| std::env::var_os(name).is_none());
        let jobs = JobsConfig {
            program,
            environment: allocator.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            cache_dir: config.keys.clone(),
            work_dir: work_dir.join("stages"),
            memory_bytes,
            slots: agent.slots,
            parts: PARTS,
        };
        let settings = ChildSettings {
            log_dir: work_dir.join("logs"),
            grace: GRACE,
            silence_max: SILENCE_MAX,
            memory_limit_percent: MEMORY_LIMIT_PERCENT,
            memory_bytes,
        };
        let wrong = |error: &dyn std::error::Error| ClusterError::Worker(crate::shell::one_line(error));
        let key = WorkerKey::open(&work_dir.join("worker.key")).map_err(|error| wrong(&error))?;
        let runner = ChildRunner::new(StageJobs::new(jobs, epoch.rules.clone()), settings);
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
