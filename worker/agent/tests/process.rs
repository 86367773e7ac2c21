//! Real processes over a real Redis: this test starts itself again as a worker, kills it, and looks for what is lost.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use assay_agent::agent::Agent;
use assay_agent::fake::{prove, Cheap, Faults, Shape};
use assay_agent::key::WorkerKey;
use assay_queue::testing::RedisServer;
use assay_queue::{
    ArtifactStore, ObjectsConfig, QueueLimits, RedisConfig, RedisQueue, SharedLimits, SharedStore, TaskQueue,
};
use assay_schedule::Phase;
use tokio::sync::mpsc;

use common::conductor::Conductor;

const REDIS: &str = "ASSAY_TEST_REDIS";
const STORE: &str = "ASSAY_TEST_STORE";
const DIR: &str = "ASSAY_TEST_DIR";

async fn connect(redis: &str, store: &str) -> (Arc<dyn TaskQueue>, Arc<dyn ArtifactStore>) {
    let config = RedisConfig::new(redis, "process-test");
    let queue = RedisQueue::open(config.clone(), QueueLimits::default()).await.unwrap();
    let objects = ObjectsConfig::new(store);
    let store = SharedStore::open(config, &objects, SharedLimits::default()).await.unwrap();
    (Arc::new(queue), Arc::new(store))
}

/// Not a test by itself: the worker that the other one starts. Without its variables it has nothing to do.
#[test]
fn a_worker_process() {
    let Ok(redis) = std::env::var(REDIS) else { return };
    let (store, dir) = (std::env::var(STORE).unwrap(), std::env::var(DIR).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (queue, store) = connect(&redis, &store).await;
        let config = common::config(Path::new(&dir));
        let key = WorkerKey::open(&config.work_dir.join("worker.key")).unwrap();
        let runner = Arc::new(Cheap { task_ms: 30, faults: Faults::default() });
        let (_signals, receiver) = mpsc::channel(1);
        Agent::open(config, queue, store, runner, key).unwrap().run(receiver).await.unwrap();
    });
}

struct Process(Child);

impl Process {
    fn start(redis: &str, store: &str, dir: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_worker_process", "--nocapture"]);
        command.env(REDIS, redis).env(STORE, store).env(DIR, dir);
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    /// kill -9.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn killed_processes_and_a_killed_redis_end_in_one_proof_and_prove_nothing_twice() {
    let mut server = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let store = format!("file://{}", dir.path().join("store").display());
    let url = server.url();
    let names = [dir.path().join("one"), dir.path().join("two")];
    let mut workers: Vec<Option<Process>> =
        names.iter().map(|dir| Some(Process::start(&url, &store, dir))).collect();
    let (queue, artifacts) = connect(&url, &store).await;
    let mut conductor = Conductor::lead(&queue, &artifacts).await;
    let shape = Shape { runs: 2, shards: 6, fold_shards: 2, arity: 2, bytes: 5_000, seed: 6 };
    let batch = conductor.submit(0, &shape.payload()).await;
    let (mut next, mut kills) = (3, 0);
    let ends = conductor
        .run(|conductor| {
            if conductor.proved.len() < next || kills == 6 {
                return;
            }
            next = conductor.proved.len() + 4;
            kills += 1;
            if kills == 3 {
                server.kill();
                std::thread::sleep(Duration::from_millis(300));
                server.restart();
            } else {
                let who = kills % 2;
                drop(workers[who].take());
                workers[who] = Some(Process::start(&url, &store, &names[who]));
            }
        })
        .await;
    assert_eq!(ends, [(batch, Phase::Settled)]);
    assert!(kills >= 5, "only {kills} kills");
    assert_eq!(conductor.proof(batch).await, prove(&shape.payload(), None).unwrap().0);
    conductor.assert_nothing_proved_again();
}
