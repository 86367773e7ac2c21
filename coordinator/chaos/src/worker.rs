//! The process of a worker.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use assay_agent::agent::{Agent, AgentConfig};
use assay_agent::fake::Cheap;
use assay_agent::state::Times;
use assay_queue::{ArtifactStore, TaskQueue};
use tokio::sync::mpsc;

use crate::process::{
    self, open_queue, open_store, patiently, worker_key, Part, ProcessConfig, ProcessError, VERSION,
};
use crate::weak::{WeakQueue, WeakStore};

/// A worker's whole process, as its file says; for a hidden command of the program that runs the chaos.
pub fn worker_main(file: &Path) -> ExitCode {
    process::run(file, work)
}

async fn work(config: ProcessConfig) -> Result<(), ProcessError> {
    let ProcessConfig { redis, store: folder, weaken, part } = config;
    let Part::Worker { number, work_dir, task_ms, wrong } = part else {
        let reason = "the file describes a coordinator".to_owned();
        return Err(ProcessError::Config { path: folder, reason });
    };
    let queue: Arc<dyn TaskQueue> = Arc::new(patiently(|| open_queue(&redis)).await?);
    let store: Arc<dyn ArtifactStore> = Arc::new(patiently(|| open_store(&redis, &folder, weaken)).await?);
    let (queue, store) = (WeakQueue::around(queue, weaken, 0), WeakStore::around(store, weaken, folder));
    let faults = wrong.map(|wrong| wrong.faults(number)).unwrap_or_default();
    let runner = Arc::new(Cheap { task_ms, faults });
    let (_signals, receiver) = mpsc::channel(1);
    let agent = Agent::open(agent_config(number, &work_dir), queue, store, runner, worker_key(number))?;
    Ok(agent.run(receiver).await?)
}

fn agent_config(number: u32, work_dir: &Path) -> AgentConfig {
    let mut config = AgentConfig::new(work_dir, VERSION, 1000);
    config.name = format!("worker {number}");
    config.slots = 2;
    config.controllers = 2;
    // Until the leader has answered, however long faults last.
    config.reports_max = 100;
    config.times = Times {
        heartbeat_ms: 300,
        rejoin_ms: 3000,
        renew_ms: 6000,
        repeat_ms: 400,
        repeat_ms_max: 2000,
        retry_ms: 50,
        retry_ms_max: 500,
        drain_ms: 1000,
        leave_ms: 500,
        ..Times::default()
    };
    config
}
