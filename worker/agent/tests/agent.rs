//! A worker against a coordinator that does what the test says.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use assay_agent::fake::{results, Cheap, Faults, Shape};
use assay_agent::receipt::Outcome;
use assay_queue::{ArtifactStore, TaskQueue};
use assay_schedule::{Artifact, AttemptId, Event, Hash, Holder, Kind, Parent, Report, Stage};

use common::{eventually, finished, Bench, Coordinator, CutQueue, CutStore, Switch, Worker};

const SHAPE: Shape = Shape { runs: 2, shards: 3, fold_shards: 2, arity: 2, bytes: 100, seed: 1 };

fn fast() -> Cheap {
    Cheap { task_ms: 1, faults: Faults::default() }
}

/// Never ends by itself.
fn hanging() -> Cheap {
    Cheap { task_ms: 3_600_000, faults: Faults::default() }
}

fn attempts_on_disk(bench: &Bench) -> usize {
    std::fs::read_dir(bench.dir.path().join("worker/attempts")).unwrap().count()
}

#[tokio::test]
async fn a_task_is_taken_done_reported_with_a_receipt_and_forgotten() {
    let bench = Bench::new();
    let worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    assert_eq!(script.worker, worker.id);
    let payload = SHAPE.payload();
    let input = bench.publish(&payload).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    let outputs = finished(&script.result(1).await);
    let expected = results(Kind::Execute, &[payload]).unwrap();
    assert_eq!(outputs.len(), expected.len());
    for (hash, bytes) in outputs.iter().zip(&expected) {
        assert_eq!(bench.read(hash).await, *bytes);
    }
    script.running(&[1]).await;
    script.answer(1).await;
    script.running(&[]).await;
    eventually("its files stay", || attempts_on_disk(&bench) == 0).await;
    let receipt = &script.receipts[0];
    receipt.verify().unwrap();
    let statement = &receipt.receipt;
    assert_eq!(
        (statement.worker, statement.attempt, statement.kind),
        (worker.id, AttemptId(1), Kind::Execute)
    );
    assert_eq!((statement.outcome, statement.device.as_str()), (Outcome::Finished, "Model T"));
    assert_eq!(statement.outputs.iter().map(|content| content.hash).collect::<Vec<_>>(), outputs);
    assert_eq!((statement.inputs[0].hash, statement.usage.fetched_bytes), (input.hash, input.bytes));
    assert_eq!(statement.usage.published_bytes, expected.iter().map(|bytes| bytes.len() as u64).sum::<u64>());
    assert_eq!((script.abouts[0].name.as_str(), script.abouts[0].worker), ("tester", worker.id));
}

#[tokio::test]
async fn a_task_with_more_outputs_than_allowed_is_reported_as_impossible() {
    let bench = Bench::new();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    let mut task = script.task(1, Stage::Execute, &[input]);
    task.outputs_max = SHAPE.runs - 1;
    script.tell(assay_schedule::Message::Dispatch(Box::new(task))).await;
    let report = script.result(1).await;
    assert!(
        matches!(&report, Report::Permanent { reason } if reason.contains("2 outputs, at most 1")),
        "{report:?}"
    );
    assert_eq!(bench.store.usage().await.unwrap().artifacts, 1, "the payload only");
}

#[tokio::test]
async fn a_task_sent_twice_is_done_once() {
    let bench = Bench::new();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    finished(&script.result(1).await);
    script.dispatch(1, Stage::Execute, &[input]).await;
    script.answer(1).await;
    script.running(&[]).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    let later = script.listen(Duration::from_millis(600)).await;
    assert!(!later.iter().any(|event| matches!(event, Event::Result { .. })), "{later:?}");
    assert_eq!(script.receipts.len(), 1);
}

#[tokio::test]
async fn a_task_of_another_session_is_left_alone() {
    let bench = Bench::new();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    let mut task = script.task(1, Stage::Execute, &[input]);
    task.session -= 1;
    script.tell(assay_schedule::Message::Dispatch(Box::new(task))).await;
    script.dispatch(2, Stage::Execute, &[input]).await;
    finished(&script.result(2).await);
    script.answer(2).await;
    script.running(&[]).await;
}

#[tokio::test]
async fn a_task_taken_back_while_it_runs_is_stopped_and_its_cost_is_told() {
    let bench = Bench::new();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), hanging());
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    script.running(&[1]).await;
    eventually("it does not run", || bench.dir.path().join("worker/attempts/1/run").is_dir()).await;
    script.revoke(1).await;
    assert!(matches!(script.result(1).await, Report::Transient { .. }));
    script.running(&[]).await;
    assert_eq!(script.receipts[0].receipt.outcome, Outcome::Cancelled);
    eventually("its files stay", || attempts_on_disk(&bench) == 0).await;
    // The slot is free again.
    script.dispatch(2, Stage::Execute, &[input]).await;
    script.running(&[2]).await;
}

#[tokio::test]
async fn a_task_taken_back_after_its_end_is_forgotten_and_not_told_again() {
    let bench = Bench::new();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    finished(&script.result(1).await);
    script.revoke(1).await;
    script.running(&[]).await;
    let later = script.listen(Duration::from_millis(600)).await;
    assert!(!later.iter().any(|event| matches!(event, Event::Result { .. })), "{later:?}");
}

#[tokio::test]
async fn a_fenced_attempt_publishes_nothing() {
    let bench = Bench::new();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    bench.store.revoke(&assay_queue::Holder::new("attempt/1").unwrap()).await.unwrap();
    script.dispatch(1, Stage::Execute, &[input]).await;
    assert!(matches!(script.result(1).await, Report::Transient { .. }));
    assert_eq!(script.receipts[0].receipt.outcome, Outcome::Cancelled);
    assert_eq!(bench.store.usage().await.unwrap().artifacts, 1, "the payload only");
}

#[tokio::test]
async fn a_missing_and_a_damaged_input_are_told_apart_from_a_store_that_is_away() {
    let bench = Bench::new();
    let switch = Switch::default();
    let store: Arc<dyn ArtifactStore> = Arc::new(CutStore(bench.store.clone(), switch.clone()));
    let _worker = Worker::start(bench.config(), bench.queue.clone(), store, fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let (good, bad) = (bench.publish(b"good").await, bench.publish(&SHAPE.payload()).await);
    bench.damage(&bad.hash);
    script.dispatch(1, Stage::Wrap, &[good, bad]).await;
    assert_eq!(script.result(1).await, Report::InputLost { input: 1 });
    let gone = Artifact { hash: Hash([9; 32]), ..good };
    script.dispatch(2, Stage::Wrap, &[gone]).await;
    assert_eq!(script.result(2).await, Report::InputLost { input: 0 });
    let wrong_size = Artifact { bytes: good.bytes + 1, ..good };
    script.dispatch(3, Stage::Wrap, &[wrong_size]).await;
    assert_eq!(script.result(3).await, Report::InputLost { input: 0 });
    for attempt in 1..=3 {
        script.answer(attempt).await;
    }
    let payload = bench.publish(&Shape { seed: 2, ..SHAPE }.payload()).await;
    switch.cut(true);
    script.dispatch(4, Stage::Execute, &[payload]).await;
    eventually("it is not tried again", || switch.refused() > 1).await;
    let meanwhile = script.listen(Duration::from_millis(500)).await;
    // The others may have been told once more before they were answered.
    let is_told = |event: &Event| matches!(event, Event::Result { attempt: AttemptId(4), .. });
    assert!(!meanwhile.iter().any(is_told), "{meanwhile:?}");
    switch.cut(false);
    finished(&script.result(4).await);
    assert!(script.receipts.last().unwrap().receipt.usage.retries > 0);
}

#[tokio::test]
async fn results_wait_for_a_store_that_is_away() {
    let bench = Bench::new();
    let switch = Switch::default();
    let store: Arc<dyn ArtifactStore> = Arc::new(CutStore(bench.store.clone(), switch.clone()));
    let runner = Cheap { task_ms: 3_000, faults: Faults::default() };
    let _worker = Worker::start(bench.config(), bench.queue.clone(), store, runner);
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    eventually("it does not run", || bench.dir.path().join("worker/attempts/1/run").is_dir()).await;
    switch.cut(true);
    eventually("nothing is published", || switch.refused() > 2).await;
    script.running(&[1]).await;
    switch.cut(false);
    assert_eq!(finished(&script.result(1).await).len(), 2);
}

#[tokio::test]
async fn results_wait_for_a_queue_that_is_away_and_the_work_goes_on() {
    let bench = Bench::new();
    let switch = Switch::default();
    let queue: Arc<dyn TaskQueue> = Arc::new(CutQueue(bench.queue.clone(), switch.clone()));
    let runner = Cheap { task_ms: 200, faults: Faults::default() };
    let mut config = bench.config();
    config.slots = 2;
    let _worker = Worker::start(config, queue, bench.store.clone(), runner);
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    script.dispatch(2, Stage::Execute, &[input]).await;
    script.running(&[1, 2]).await;
    switch.cut(true);
    let sealed = |attempt| bench.dir.path().join(format!("worker/attempts/{attempt}/report.json"));
    eventually("the work stops", || sealed(1).is_file() && sealed(2).is_file()).await;
    eventually("it is not tried", || switch.refused() > 4).await;
    // What is sent meanwhile is not lost either.
    script.dispatch(3, Stage::Execute, &[input]).await;
    switch.cut(false);
    let mut told = Vec::new();
    for attempt in [1, 2, 3] {
        while !told.iter().any(|event| matches!(event, Event::Result { attempt: a, .. } if a.0 == attempt)) {
            told.extend(script.listen(Duration::from_millis(50)).await);
        }
    }
}

#[tokio::test]
async fn a_result_is_repeated_until_it_is_answered() {
    let bench = Bench::new();
    let mut config = bench.config();
    config.reports_max = 1_000;
    let _worker = Worker::start(config, bench.queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    let first = script.result(1).await;
    for _ in 0..3 {
        assert_eq!(script.result(1).await, first, "after a failover the new leader hears it too");
    }
    script.answer(1).await;
    script.running(&[]).await;
}

#[tokio::test]
async fn a_result_that_was_not_reported_survives_the_death_of_the_process() {
    let bench = Bench::new();
    let switch = Switch::default();
    let queue: Arc<dyn TaskQueue> = Arc::new(CutQueue(bench.queue.clone(), switch.clone()));
    let mut config = bench.config();
    config.reports_max = 1_000;
    let worker = Worker::start(config.clone(), queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let session = script.session;
    let input = bench.publish(&SHAPE.payload()).await;
    // Fetched before the cut, so that only the report is held up.
    script.dispatch(1, Stage::Execute, &[input]).await;
    let report = script.result(1).await;
    script.dispatch(2, Stage::Execute, &[input]).await;
    let sealed = bench.dir.path().join("worker/attempts/2/report.json");
    eventually("no second result", || sealed.is_file()).await;
    worker.kill();
    script.listen(Duration::from_millis(100)).await;
    script.receipts.clear();
    let _worker = Worker::start(config, queue, bench.store.clone(), hanging());
    script.meet_again().await;
    assert_eq!(script.session, session, "the session goes on");
    assert_eq!(script.result(1).await, report);
    finished(&script.result(2).await);
    script.receipts.iter().for_each(|receipt| receipt.verify().unwrap());
    assert_eq!(script.receipts.len(), 2);
    for attempt in [1, 2] {
        script.answer(attempt).await;
    }
    script.running(&[]).await;
    eventually("files stay", || attempts_on_disk(&bench) == 0).await;
}

#[tokio::test]
async fn a_result_that_was_not_published_survives_the_death_of_the_process() {
    let bench = Bench::new();
    let switch = Switch::default();
    let store: Arc<dyn ArtifactStore> = Arc::new(CutStore(bench.store.clone(), switch.clone()));
    let runner = Cheap { task_ms: 200, faults: Faults::default() };
    let worker = Worker::start(bench.config(), bench.queue.clone(), store.clone(), runner);
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    eventually("it does not run", || bench.dir.path().join("worker/attempts/1/run").is_dir()).await;
    switch.cut(true);
    eventually("it does not end", || bench.dir.path().join("worker/attempts/1/made.json").is_file()).await;
    worker.kill();
    switch.cut(false);
    let _worker = Worker::start(bench.config(), bench.queue.clone(), store, hanging());
    assert_eq!(finished(&script.result(1).await).len(), 2);
    assert!(script.receipts[0].receipt.usage.wall_ms >= 200, "what it took is not forgotten");
}

#[tokio::test]
async fn a_task_that_ran_when_the_process_died_is_cleaned_up_and_not_named() {
    let bench = Bench::new();
    let worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), hanging());
    let mut script = Coordinator::meet(&bench.queue).await;
    let session = script.session;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    script.running(&[1]).await;
    worker.kill();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), fast());
    script.meet_again().await;
    assert!(script.session > session, "nothing was left to report: a new session");
    script.running(&[]).await;
    assert_eq!(attempts_on_disk(&bench), 0);
    script.dispatch(2, Stage::Execute, &[input]).await;
    finished(&script.result(2).await);
}

#[tokio::test]
async fn a_closed_mailbox_begins_a_new_session_and_stops_the_old_ones_tasks() {
    let bench = Bench::new();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), hanging());
    let mut script = Coordinator::meet(&bench.queue).await;
    let session = script.session;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    script.running(&[1]).await;
    script.close().await;
    script.meet_again().await;
    assert!(script.session > session);
    script.running(&[]).await;
    script.dispatch(2, Stage::Execute, &[input]).await;
    script.running(&[2]).await;
}

/// Plays a controller's coordinator: proves its parts by hand.
async fn serve_parts(bench: &Bench, script: &mut Coordinator, attempt: u64) -> (Report, usize) {
    let mut served = std::collections::BTreeSet::new();
    loop {
        let event = script.wait_for("spawn or result", |event| Some(event.clone())).await;
        match event {
            Event::Result { attempt: told, report, .. } if told.0 == attempt => {
                return (report, served.len())
            }
            Event::Spawn { attempt: told, parts, .. } if told.0 == attempt => {
                for part in parts {
                    let mut inputs = Vec::new();
                    for artifact in &part.inputs {
                        inputs.push(bench.read(&artifact.hash).await);
                    }
                    let proof = results(part.kind, &inputs).unwrap().remove(0);
                    let holder = Holder::Attempt(AttemptId(1_000 + served.len() as u64), 0);
                    let name = assay_agent::wire::holder(holder).unwrap();
                    let stored = bench.store.put(&name, proof).await.unwrap();
                    let hash = Hash(*stored.hash.as_bytes());
                    script
                        .deliver(attempt, part.key, vec![Artifact { holder, hash, bytes: stored.bytes }])
                        .await;
                    served.insert(part.key);
                }
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_controller_has_its_parts_proved_and_waits_for_them() {
    let bench = Bench::new();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let witness = results(Kind::Execute, &[SHAPE.payload()]).unwrap().remove(0);
    let input = bench.publish(&witness).await;
    script.dispatch(1, Stage::Block { run: 0 }, &[input]).await;
    let (report, parts) = serve_parts(&bench, &mut script, 1).await;
    // Three shards, joined two by two.
    assert_eq!(parts, 3 + 2 + 1);
    let expected = results(Kind::Block, &[witness]).unwrap().remove(0);
    assert_eq!(bench.read(&finished(&report)[0]).await, expected);
    let published = script.receipts[0].receipt.usage.published_bytes;
    let records: u64 = 3 * expected.len() as u64;
    assert_eq!(published, records + expected.len() as u64, "delivered proofs are not published again");
}

#[tokio::test]
async fn a_delivery_for_a_dead_controller_is_passed_over() {
    let bench = Bench::new();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let witness = results(Kind::Execute, &[SHAPE.payload()]).unwrap().remove(0);
    let input = bench.publish(&witness).await;
    script.dispatch(1, Stage::Block { run: 0 }, &[input]).await;
    let part = script
        .wait_for("parts", |event| match event {
            Event::Spawn { parts, .. } => Some(parts[0].clone()),
            _ => None,
        })
        .await;
    script.revoke(1).await;
    script.running(&[]).await;
    script.deliver(1, part.key, part.inputs).await;
    script.deliver(77, Hash([7; 32]), vec![input]).await;
    script.dispatch(2, Stage::Block { run: 0 }, &[input]).await;
    let (report, _) = serve_parts(&bench, &mut script, 2).await;
    finished(&report);
}

#[tokio::test]
async fn a_damaged_result_of_a_part_is_told_and_a_good_one_is_waited_for() {
    let bench = Bench::new();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let witness = results(Kind::Execute, &[SHAPE.payload()]).unwrap().remove(0);
    let input = bench.publish(&witness).await;
    script.dispatch(1, Stage::Block { run: 0 }, &[input]).await;
    let part = script
        .wait_for("parts", |event| match event {
            Event::Spawn { parts, .. } => Some(parts[0].clone()),
            _ => None,
        })
        .await;
    let bad = bench.publish(b"damaged on its way").await;
    bench.damage(&bad.hash);
    script.deliver(1, part.key, vec![bad]).await;
    let lost = script
        .wait_for("report of the loss", |event| match event {
            Event::PartLost { key, output, .. } => Some((*key, *output)),
            _ => None,
        })
        .await;
    assert_eq!(lost, (part.key, 0));
    let (report, _) = serve_parts(&bench, &mut script, 1).await;
    let expected = results(Kind::Block, &[witness]).unwrap().remove(0);
    assert_eq!(bench.read(&finished(&report)[0]).await, expected);
}

#[tokio::test]
async fn one_slot_serves_a_controller_and_its_own_shards() {
    let bench = Bench::new();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let witness = results(Kind::Execute, &[SHAPE.payload()]).unwrap().remove(0);
    let input = bench.publish(&witness).await;
    script.dispatch(1, Stage::Block { run: 0 }, &[input]).await;
    let (mut next, mut keys) = (10, std::collections::BTreeMap::new());
    let report = loop {
        let event = script.wait_for("anything", |event| Some(event.clone())).await;
        match event {
            Event::Spawn { parts, .. } => {
                for part in parts {
                    if keys.values().any(|key| *key == part.key) {
                        continue;
                    }
                    keys.insert(next, part.key);
                    let of = Parent::Block { run: 0 };
                    let stage = match part.kind {
                        Kind::Shard => Stage::Shard { of, part: next as u32 },
                        _ => Stage::Reduce { of, part: next as u32 },
                    };
                    script.dispatch(next, stage, &part.inputs).await;
                    next += 1;
                }
            }
            Event::Result { attempt: AttemptId(1), report, .. } => break report,
            Event::Result { attempt, report: Report::Finished { outputs }, .. } => {
                let holder = Holder::Attempt(attempt, 0);
                let artifact = Artifact { holder, hash: outputs[0].hash, bytes: outputs[0].bytes };
                script.answer(attempt.0).await;
                script.deliver(1, keys[&attempt.0], vec![artifact]).await;
            }
            _ => {}
        }
    };
    let expected = results(Kind::Block, &[witness]).unwrap().remove(0);
    assert_eq!(bench.read(&finished(&report)[0]).await, expected);
}

#[tokio::test]
async fn leaving_finishes_what_runs_and_says_goodbye() {
    let bench = Bench::new();
    let runner = Cheap { task_ms: 4_000, faults: Faults::default() };
    let mut worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), runner);
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    script.dispatch(2, Stage::Execute, &[input]).await;
    script.running(&[1, 2]).await;
    worker.signal().await;
    script.running(&[1]).await;
    finished(&script.result(1).await);
    script.wait_for("goodbye", |event| matches!(event, Event::Leave { .. }).then_some(())).await;
    worker.ended().await;
}

#[tokio::test]
async fn leaving_hands_back_what_takes_too_long() {
    let bench = Bench::new();
    let mut config = bench.config();
    config.times.drain_ms = 200;
    let mut worker = Worker::start(config, bench.queue.clone(), bench.store.clone(), hanging());
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    script.running(&[1]).await;
    worker.signal().await;
    script.wait_for("goodbye", |event| matches!(event, Event::Leave { .. }).then_some(())).await;
    worker.ended().await;
    assert_eq!(script.receipts[0].receipt.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn leaving_ends_in_time_without_a_queue_and_the_result_is_reported_by_the_next_process() {
    let bench = Bench::new();
    let switch = Switch::default();
    let queue: Arc<dyn TaskQueue> = Arc::new(CutQueue(bench.queue.clone(), switch.clone()));
    let mut config = bench.config();
    (config.times.drain_ms, config.times.leave_ms) = (200, 500);
    let mut worker = Worker::start(config.clone(), queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    let report = script.result(1).await;
    switch.cut(true);
    worker.signal().await;
    worker.ended().await;
    drop(worker);
    switch.cut(false);
    script.listen(Duration::from_millis(50)).await;
    let _worker = Worker::start(config, queue, bench.store.clone(), hanging());
    assert_eq!(script.result(1).await, report);
}

#[tokio::test]
async fn a_runner_that_panics_fails_its_task_and_nothing_else() {
    struct Panics;
    #[async_trait::async_trait]
    impl assay_agent::runner::Runner for Panics {
        async fn run(
            &self,
            task: assay_agent::runner::Task,
            host: assay_agent::runner::Host,
        ) -> assay_agent::runner::Ended {
            assert!(task.dispatch.attempt.0 > 1, "the first task panics");
            fast().run(task, host).await
        }
    }
    let bench = Bench::new();
    let _worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), Panics);
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    let report = script.result(1).await;
    assert!(matches!(&report, Report::Transient { reason } if reason.contains("panic")), "{report:?}");
    script.dispatch(2, Stage::Execute, &[input]).await;
    finished(&script.result(2).await);
}

#[tokio::test]
async fn mails_that_make_no_sense_neither_end_a_worker_nor_keep_it_from_work() {
    let bench = Bench::new();
    let worker = Worker::start(bench.config(), bench.queue.clone(), bench.store.clone(), fast());
    let mut script = Coordinator::meet(&bench.queue).await;
    let payload = SHAPE.payload();
    let input = bench.publish(&payload).await;
    let good = serde_json::to_string(&script.task(1, Stage::Execute, &[input])).unwrap();
    let effect = |action: &str| format!("{{\"id\":1,\"epoch\":1,\"batch\":1,\"action\":{action}}}");
    let mut junk: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0xff; 300],
        b"null".to_vec(),
        b"{}".to_vec(),
        b"{\"closed\":{\"attempt\":-1}}".to_vec(),
        b"{\"opened\":{\"attempt\":1}}".to_vec(),
        // Deeper than any reader goes.
        [vec![b'['; 100_000], vec![b']'; 100_000]].concat(),
        effect("{\"work\":{\"fence\":{\"attempts\":[1]}}}").into_bytes(),
        effect(&format!(
            "{{\"message\":{{\"dispatch\":{}}}}}",
            good.replace("\"units\":1", "\"units\":1e99")
        ))
        .into_bytes(),
    ];
    let whole = effect(&format!("{{\"message\":{{\"dispatch\":{good}}}}}")).into_bytes();
    junk.extend((0..whole.len()).step_by(29).map(|length| whole[..length].to_vec()));
    for bytes in junk {
        script.mail(bytes).await;
    }
    script.dispatch(2, Stage::Execute, &[input]).await;
    assert!(!finished(&script.result(2).await).is_empty());
    script.running(&[2]).await;
    drop(worker);
}
