//! Whole batches of cheap tasks: workers and the real schedule.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;

use assay_agent::agent::AgentConfig;
use assay_agent::bundle::Bundle;
use assay_agent::fake::{prove, Cheap, Faults, Shape};
use assay_schedule::{Limits, Phase};

use common::conductor::Conductor;
use common::{Bench, Worker};

fn shape(seed: u64) -> Shape {
    Shape { runs: 2, shards: 5, fold_shards: 3, arity: 2, bytes: 2_000, seed }
}

fn config(bench: &Bench, name: &str) -> AgentConfig {
    let dir: PathBuf = bench.dir.path().join(name);
    let mut config = common::config(&dir);
    config.slots = 2;
    config
}

fn start(bench: &Bench, name: &str, runner: Cheap) -> Worker {
    Worker::start(config(bench, name), bench.queue.clone(), bench.store.clone(), runner)
}

fn settled(ends: &[(assay_schedule::BatchId, Phase)]) {
    for (batch, phase) in ends {
        assert_eq!(*phase, Phase::Settled, "batch {batch}");
    }
}

#[tokio::test]
async fn two_workers_prove_two_batches_one_upon_the_other() {
    let bench = Bench::new();
    let runner = Cheap { task_ms: 5, faults: Faults::default() };
    let _workers = [start(&bench, "one", runner), start(&bench, "two", runner)];
    // No second attempt at what takes long on a busy machine: every attempt is counted below.
    let patient = Limits { timeout_ms_min: 3_600_000, idle_ms_min: 3_600_000, ..common::conductor::limits() };
    let limits = Limits { attempts_max: 1, ..patient };
    let mut conductor = Conductor::lead_under(limits, &bench.queue, &bench.store).await;
    let first = conductor.submit(0, &shape(1).payload()).await;
    let second = conductor.submit(1, &shape(2).payload()).await;
    settled(&conductor.run(|_| {}).await);
    let (proof, fold) = prove(&shape(1).payload(), None).unwrap();
    assert_eq!(conductor.proof(first).await, proof);
    let (proof, _) = prove(&shape(2).payload(), Some(&fold)).unwrap();
    assert_eq!(conductor.proof(second).await, proof);
    conductor.assert_nothing_proved_again();
    // Execute, 2 blocks with 5 shards and 3 + 2 + 1 reductions, fold with 3 and 2 + 1, wrap, Groth16.
    assert_eq!(conductor.proved.len(), 2 * (1 + 2 * (1 + 5 + 6) + (1 + 3 + 3) + 2));
    let held: BTreeSet<_> = conductor.machine.artifacts().map(|artifact| artifact.hash).collect();
    assert_eq!(bench.store.usage().await.unwrap().artifacts, held.len() as u64, "an artifact leaks");
    for batch in [first, second] {
        let receipts = conductor.receipts.iter().filter(|signed| signed.receipt.batch == batch).cloned();
        let receipts: Vec<_> = receipts.collect();
        let here: BTreeSet<_> = receipts.iter().map(|signed| signed.receipt.attempt).collect();
        let accepted: BTreeSet<_> = conductor.accepted.intersection(&here).copied().collect();
        let bundle = Bundle::new(batch, accepted, receipts).unwrap();
        assert_eq!(bundle.totals.all.attempts, conductor.proved.len() as u64 / 2);
        assert_eq!((bundle.totals.wasted.attempts, bundle.totals.retries), (0, 0));
        assert!(bundle.totals.all.gpu_ms > 0 && bundle.totals.by_device.contains_key("Model T"));
    }
}

#[tokio::test]
async fn one_worker_with_one_slot_is_enough() {
    let bench = Bench::new();
    let mut config = config(&bench, "one");
    config.slots = 1;
    let runner = Cheap { task_ms: 1, faults: Faults::default() };
    let _worker = Worker::start(config, bench.queue.clone(), bench.store.clone(), runner);
    let mut conductor = Conductor::lead(&bench.queue, &bench.store).await;
    let batch = conductor.submit(0, &shape(3).payload()).await;
    settled(&conductor.run(|_| {}).await);
    assert_eq!(conductor.proof(batch).await, prove(&shape(3).payload(), None).unwrap().0);
}

#[tokio::test]
async fn failures_wrong_results_and_hangs_end_in_the_same_proof() {
    let bench = Bench::new();
    let faults = |seed| Faults {
        seed,
        fail_permille: 80,
        hang_permille: 10,
        wrong_permille: 30,
        slow_permille: 50,
        slow_ms: 300,
        memory_permille: 20,
    };
    let workers: Vec<Worker> =
        (0..3).map(|n| start(&bench, &format!("w{n}"), Cheap { task_ms: 3, faults: faults(n) })).collect();
    let mut conductor = Conductor::lead(&bench.queue, &bench.store).await;
    let batch = conductor.submit(0, &shape(4).payload()).await;
    settled(&conductor.run(|_| {}).await);
    assert_eq!(conductor.proof(batch).await, prove(&shape(4).payload(), None).unwrap().0);
    assert!(conductor.receipts.len() > conductor.proved.len(), "nothing went wrong");
    conductor.receipts.iter().for_each(|receipt| receipt.verify().unwrap());
    drop(workers);
}

#[tokio::test]
async fn workers_that_are_killed_again_and_again_lose_nothing_that_was_finished() {
    let bench = Bench::new();
    let runner = Cheap { task_ms: 20, faults: Faults::default() };
    let mut workers: Vec<Option<Worker>> =
        ["one", "two"].iter().map(|name| Some(start(&bench, name, runner))).collect();
    let mut conductor = Conductor::lead(&bench.queue, &bench.store).await;
    let batch = conductor.submit(0, &shape(5).payload()).await;
    let (mut next, mut kills) = (4, 0usize);
    let ends = conductor
        .run(|conductor| {
            // After every fourth result one of the two dies at whatever it is doing.
            if conductor.proved.len() < next || kills == 8 {
                return;
            }
            next = conductor.proved.len() + 4;
            let who = kills % 2;
            kills += 1;
            workers[who].take().unwrap().kill();
            workers[who] = Some(start(&bench, ["one", "two"][who], runner));
        })
        .await;
    settled(&ends);
    assert!(kills >= 4, "only {kills} kills");
    assert_eq!(conductor.proof(batch).await, prove(&shape(5).payload(), None).unwrap().0);
    conductor.assert_nothing_proved_again();
    let held: BTreeSet<_> = conductor.machine.artifacts().map(|artifact| artifact.hash).collect();
    assert_eq!(bench.store.usage().await.unwrap().artifacts, held.len() as u64, "an artifact leaks");
}
