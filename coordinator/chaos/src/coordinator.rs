//! The process of a coordinator.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{ArtifactStore, TaskQueue};
use assay_schedule::{Kind, Limits, PerKind};
use assay_service::keys::{KeyRing, Keys};
use assay_service::leader::LeaderConfig;
use assay_service::request::ClusterKey;
use assay_service::{Service, Settings, Supplies};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cheap::{CheapReader, CheapVerifier, FolderSettler};
use crate::options::Weakness;
use crate::process::{
    self, open_queue, open_store, patiently, Part, ProcessConfig, ProcessError, CLUSTER_SECRET,
};
use crate::weak::{WeakQueue, WeakStore};

/// How long the port of the process before may stay taken.
const BIND_TRIES: u32 = 100;

/// A coordinator's whole process, as its file says; for a hidden command of the program that runs the chaos.
pub fn coordinator_main(file: &Path) -> ExitCode {
    process::run(file, serve)
}

async fn serve(config: ProcessConfig) -> Result<(), ProcessError> {
    let ProcessConfig { redis, store: folder, weaken, part } = config;
    let Part::Coordinator { port, keys, posted, clock_offset_ms, task_ms } = part else {
        let reason = "the file describes a worker".to_owned();
        return Err(ProcessError::Config { path: folder, reason });
    };
    let queue: Arc<dyn TaskQueue> = Arc::new(patiently(|| open_queue(&redis)).await?);
    let store: Arc<dyn ArtifactStore> = Arc::new(patiently(|| open_store(&redis, &folder, weaken)).await?);
    let cluster = ClusterKey::new(CLUSTER_SECRET);
    let supplies = Supplies {
        queue: WeakQueue::around(queue, weaken, clock_offset_ms),
        store: WeakStore::around(store, weaken, folder),
        reader: Arc::new(CheapReader),
        verifier: Arc::new(CheapVerifier { accepts_all: weaken == Some(Weakness::AcceptAll) }),
        settler: Arc::new(FolderSettler {
            folder: posted,
            is_forgetful: weaken == Some(Weakness::SettleTwice),
        }),
        keys: Arc::new(KeyRing::fixed(Keys::parse(&keys)?)),
        cluster,
    };
    let listener = bind(port).await?;
    let (stop, stopping) = watch::channel(false);
    let served = Service::new(supplies, settings(clock_offset_ms, task_ms)).run(listener, stopping).await;
    drop(stop);
    Ok(served?)
}

async fn bind(port: u16) -> Result<TcpListener, ProcessError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match TcpListener::bind(("127.0.0.1", port)).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries < BIND_TRIES => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => {
                return other.map_err(|source| ProcessError::System { what: "listen", source });
            }
        }
    }
}

/// What takes minutes in a real cluster takes a second here.
fn settings(clock_offset_ms: i64, task_ms: u64) -> Settings {
    Settings {
        limits: limits(task_ms),
        leader: LeaderConfig {
            lease: Duration::from_millis(1000),
            tick: Duration::from_millis(100),
            // Often, so that takeovers load checkpoints too.
            checkpoint_records: 150,
            sweep_time: Duration::from_secs(2),
            stop_time: Duration::from_secs(2),
            clock_offset_ms,
            ..LeaderConfig::default()
        },
        ..Settings::default()
    }
}

fn limits(task_ms: u64) -> Limits {
    Limits {
        worker_lease_ms: 2000,
        dispatch_grace_ms: 1500,
        // No bad luck sets a task aside; what can never succeed shows as a batch that does not end.
        failures_max: 200,
        losses_max: 1000,
        settle_tries_max: 1000,
        backoff_ms: 20,
        backoff_ms_max: 200,
        straggler_percent: 300,
        timeout_percent: 2000,
        timeout_ms_min: 3000,
        // Doubled with each loss, so short: else the patience of a run may end before.
        idle_ms_min: 1500,
        patience_ms: 1000,
        strikes_max: 2,
        quarantine_ms: 500,
        quarantine_ms_max: 1000,
        memory_bytes: PerKind([1; Kind::ALL.len()]),
        ns_per_unit: PerKind([task_ms * 1_000_000; Kind::ALL.len()]),
        ..Limits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_make_sense() {
        limits(1).validate().unwrap();
    }
}
