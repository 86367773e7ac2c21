//! GPUs that fail on a schedule: workers with child processes on fake devices, under a scripted leader and under the real
//! schedule, whose verifier recomputes every result.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use assay_agent::agent::{AgentConfig, AgentError};
use assay_agent::fake::device::{serve, FakeGpus, Hardware, Script, Trouble, HARDWARE_VARIABLE};
use assay_agent::fake::{prove, Shape};
use assay_agent::receipt::Outcome;
use assay_agent::runner::child::{ChildSettings, Program};
use assay_agent::runner::{Device, GpuShare};
use assay_schedule::{Dispatch, Event, Kind, Limits, Phase, Report, Stage, WorkerId};

use common::conductor::{limits, Conductor};
use common::{finished, Bench, Coordinator, Worker};

/// Longer than any test: nothing that only waits for its turn is taken for hanging.
const LONG: Duration = Duration::from_secs(3600);
/// What a test that lets a device hang waits for a sign of life.
const SHORT: Duration = Duration::from_secs(6);
const SHAPE: Shape = Shape { runs: 1, shards: 3, fold_shards: 2, arity: 2, bytes: 500, seed: 8 };

/// Not a test by itself: the process on a fake GPU that the others start. Without its variables it has nothing to do.
#[test]
fn a_device_process() {
    if std::env::var_os(HARDWARE_VARIABLE).is_some() {
        serve().unwrap();
    }
}

/// A machine with fake GPUs.
struct Rig {
    config: AgentConfig,
    hardware: Hardware,
    dir: PathBuf,
    silence_max: Duration,
    shares: BTreeMap<Device, GpuShare>,
}

impl Rig {
    /// One GPU for each script, one task on each, and one controller.
    fn new(bench: &Bench, name: &str, scripts: &[&str]) -> Self {
        let scripts: Vec<Script> = scripts.iter().map(|script| script.parse().unwrap()).collect();
        Self::with(bench, name, &scripts)
    }

    fn with(bench: &Bench, name: &str, scripts: &[Script]) -> Self {
        let dir = bench.dir.path().join(name);
        let hardware = Hardware::new(dir.join("gpus"));
        let mut config = common::config(&dir);
        config.name = name.to_owned();
        config.devices.clear();
        for (number, script) in (0..).zip(scripts) {
            hardware.set(number, script).unwrap();
            config.devices.push((Device::Gpu(number), format!("Model {number}")));
        }
        config.slots = scripts.len() as u32;
        (config.times.check_ms, config.times.check_ms_max) = (100, 1_000);
        Self { config, hardware, dir, silence_max: LONG, shares: BTreeMap::new() }
    }

    fn start(&self, bench: &Bench) -> Worker {
        let program = Program {
            path: std::env::current_exe().unwrap(),
            arguments: ["--exact", "a_device_process", "--nocapture"].map(str::to_owned).into(),
            environment: Vec::new(),
        };
        let settings = ChildSettings {
            log_dir: self.dir.join("logs"),
            grace: Duration::from_millis(100),
            silence_max: self.silence_max,
            gpu_silence_max: self.silence_max,
            memory_limit_percent: 0,
            memory_bytes: 1 << 40,
        };
        let runner = FakeGpus::new(program, &self.dir.join("gpus"), settings, self.shares.clone());
        Worker::start(self.config.clone(), bench.queue.clone(), bench.store.clone(), runner)
    }
}

fn share(processes: u32, memory_bytes: u64) -> GpuShare {
    GpuShare { processes, memory_bytes: Some(memory_bytes) }
}

fn reason(report: &Report) -> &str {
    match report {
        Report::Transient { reason } => reason,
        other => panic!("{other:?}"),
    }
}

/// The next registration's slots.
async fn slots_told(script: &mut Coordinator) -> u32 {
    let slots = |event: &Event| match event {
        Event::Join { profile, .. } => Some(profile.slots),
        _ => None,
    };
    script.wait_for("a registration", slots).await
}

#[tokio::test]
async fn a_task_that_does_not_fit_into_device_memory_is_given_back_and_its_process_goes_on() {
    let bench = Bench::new();
    let mut rig = Rig::new(&bench, "one", &["1: memory 20; 2: memory 25; 3: memory 20"]);
    rig.shares = [(Device::Gpu(0), share(1, 20))].into();
    let _worker = rig.start(&bench);
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    for attempt in 1..=3 {
        script.dispatch(attempt, Stage::Execute, &[input]).await;
        let report = script.result(attempt).await;
        match attempt {
            2 => assert_eq!(report, Report::OutOfMemory),
            _ => drop(finished(&report)),
        }
    }
    assert_eq!((rig.hardware.starts(0), rig.hardware.tasks(0)), (1, 3), "one process did all");
    assert!(script.healths.is_empty());
}

#[tokio::test]
async fn after_a_sticky_error_the_process_is_started_again_and_the_task_with_it() {
    let bench = Bench::new();
    let rig = Rig::new(&bench, "one", &["2: sticky; 5: sticky; 6: sticky"]);
    let _worker = rig.start(&bench);
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    let mut outputs = BTreeSet::new();
    // The device's tasks: 1, 2 and again 3, 4.
    for attempt in 1..=3 {
        script.dispatch(attempt, Stage::Execute, &[input]).await;
        outputs.insert(finished(&script.result(attempt).await));
    }
    assert_eq!(outputs.len(), 1, "all have the same result");
    assert_eq!((rig.hardware.starts(0), rig.hardware.tasks(0)), (2, 4));
    // 5 and again 6: the second time somebody else may try.
    script.dispatch(4, Stage::Execute, &[input]).await;
    let report = script.result(4).await;
    assert!(reason(&report).contains("device 0: sticky error"), "{report:?}");
    script.dispatch(5, Stage::Execute, &[input]).await;
    finished(&script.result(5).await);
    assert_eq!((rig.hardware.starts(0), rig.hardware.tasks(0)), (4, 7));
    assert!(script.healths.is_empty(), "the device is in service");
}

#[tokio::test]
async fn a_lost_device_takes_its_slot_along_is_told_of_and_comes_back_when_it_is_repaired() {
    let bench = Bench::new();
    let rig = Rig::new(&bench, "two", &["1: lost", ""]);
    let _worker = rig.start(&bench);
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    assert_eq!(slots_told(&mut script).await, 1);
    let report = script.result(1).await;
    assert!(reason(&report).contains("device 0: lost"), "{report:?}");
    assert_eq!(script.healths.len(), 1);
    assert_eq!(script.healths[0].lost, ["GPU 0 (Model 0): lost: it has fallen off the bus"]);
    assert_eq!(script.abouts.last().unwrap().devices, ["Model 1"]);
    for attempt in [2, 3] {
        script.dispatch(attempt, Stage::Execute, &[input]).await;
    }
    for attempt in [2, 3] {
        finished(&script.result(attempt).await);
    }
    assert_eq!((rig.hardware.tasks(0), rig.hardware.tasks(1)), (1, 2), "the other device did both");
    rig.hardware.repair(0).unwrap();
    assert_eq!(slots_told(&mut script).await, 2);
    script.dispatch(4, Stage::Execute, &[input]).await;
    finished(&script.result(4).await);
    assert_eq!(rig.hardware.tasks(0), 2, "it is used again");
    assert_eq!(script.abouts.last().unwrap().devices, ["Model 0", "Model 1"]);
    assert_eq!(script.receipts.last().unwrap().receipt.device, "Model 0");
}

#[tokio::test]
async fn a_worker_that_has_lost_its_last_device_tells_its_results_leaves_and_says_why() {
    let bench = Bench::new();
    let mut rig = Rig::new(&bench, "one", &["2: lost"]);
    rig.config.controllers = 0;
    let mut worker = rig.start(&bench);
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    finished(&script.result(1).await);
    script.dispatch(2, Stage::Execute, &[input]).await;
    assert!(reason(&script.result(2).await).contains("lost"));
    script.wait_for("goodbye", |event| matches!(event, Event::Leave { .. }).then_some(())).await;
    let error = worker.result().await.unwrap_err();
    assert!(
        matches!(&error, AgentError::NoDevice { faults } if faults.contains("GPU 0 (Model 0)")),
        "{error}"
    );
}

#[tokio::test]
async fn a_device_that_hangs_is_found_by_its_silence_and_its_process_ended() {
    let bench = Bench::new();
    let mut rig = Rig::new(&bench, "one", &["1: hang"]);
    rig.silence_max = SHORT;
    let _worker = rig.start(&bench);
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    let report = script.result(1).await;
    assert!(reason(&report).contains("device 0: it hangs"), "{report:?}");
    script.dispatch(2, Stage::Execute, &[input]).await;
    finished(&script.result(2).await);
    assert_eq!(rig.hardware.starts(0), 2);
}

#[tokio::test]
async fn a_device_whose_result_is_refused_gets_no_more_tasks_and_the_other_does_them() {
    let bench = Bench::new();
    let rig = Rig::new(&bench, "two", &["1..: wrong", ""]);
    let _worker = rig.start(&bench);
    let mut script = Coordinator::meet(&bench.queue).await;
    let input = bench.publish(&SHAPE.payload()).await;
    script.dispatch(1, Stage::Execute, &[input]).await;
    let wrong = finished(&script.result(1).await);
    script.answer(1).await;
    script.refuse(1).await;
    assert_eq!(slots_told(&mut script).await, 1);
    script.dispatch(2, Stage::Execute, &[input]).await;
    assert_ne!(finished(&script.result(2).await), wrong);
    assert_eq!((rig.hardware.tasks(0), rig.hardware.tasks(1)), (1, 1));
    assert!(
        script.healths[0].lost[0].contains("the result of attempt 1 did not verify"),
        "{:?}",
        script.healths
    );
}

// ---- under the real schedule

async fn settled(conductor: &mut Conductor, shape: &Shape) {
    let batch = conductor.submit(0, &shape.payload()).await;
    let ends = conductor.run(|_| {}).await;
    assert_eq!(ends, [(batch, Phase::Settled)]);
    assert_eq!(conductor.proof(batch).await, prove(&shape.payload(), None).unwrap().0);
}

/// No attempt is late, doubled or suspected but for what the test is about.
fn patient() -> Limits {
    Limits { attempts_max: 1, timeout_ms_min: 3_600_000, idle_ms_min: 3_600_000, patience_ms: 0, ..limits() }
}

fn devices_of(conductor: &Conductor, worker: WorkerId, outcome: Outcome) -> Vec<(Kind, String)> {
    let receipts = conductor.receipts.iter().map(|signed| &signed.receipt);
    let its = receipts.filter(|receipt| receipt.worker == worker && receipt.outcome == outcome);
    its.map(|receipt| (receipt.kind, receipt.device.clone())).collect()
}

#[tokio::test]
async fn a_task_that_did_not_fit_comes_back_with_a_larger_weight() {
    let bench = Bench::new();
    let mut rig = Rig::new(&bench, "one", &["1: memory 25"]);
    rig.shares = [(Device::Gpu(0), share(1, 20))].into();
    let _worker = rig.start(&bench);
    let mut conductor = Conductor::lead_under(patient(), &bench.queue, &bench.store).await;
    settled(&mut conductor, &SHAPE).await;
    let executes = conductor.dispatched.iter().filter(|dispatch| dispatch.stage == Stage::Execute);
    let weights: Vec<u64> = executes.map(|dispatch| dispatch.memory_bytes).collect();
    assert_eq!(weights, [10, 15], "half as much again");
    let others = conductor.dispatched.iter().filter(|dispatch| dispatch.stage != Stage::Execute);
    assert!(others.clone().count() > 8 && others.clone().all(|dispatch| dispatch.memory_bytes == 10));
    assert_eq!(rig.hardware.starts(0), 1);
}

#[tokio::test]
async fn wrong_results_are_caught_the_device_is_taken_out_and_the_batch_ends_well() {
    let bench = Bench::new();
    let rig = Rig::new(&bench, "two", &["1..: wrong", ""]);
    let worker = rig.start(&bench);
    let mut conductor = Conductor::lead_under(patient(), &bench.queue, &bench.store).await;
    settled(&mut conductor, &SHAPE).await;
    assert_eq!(conductor.healths.last().unwrap().worker, worker.id);
    assert!(conductor.healths.last().unwrap().lost[0].starts_with("GPU 0 (Model 0): wrong results"));
    // Whatever it has returned was refused.
    let receipts = conductor.receipts.iter().map(|signed| &signed.receipt);
    let (mut wrong, mut right) = (0, 0);
    for receipt in receipts.filter(|receipt| !receipt.kind.is_controller()) {
        let is_accepted = conductor.accepted.contains(&receipt.attempt);
        assert!(!(is_accepted && receipt.device == "Model 0"), "{receipt:?}");
        wrong += u32::from(receipt.device == "Model 0" && receipt.outcome == Outcome::Finished);
        right += u32::from(is_accepted);
    }
    // One result to be caught by, and one more that was ready before the word came.
    assert!((1..=2).contains(&wrong), "{wrong}");
    assert_eq!(
        right,
        1 + 3 + 3 + 2 + 1 + 1 + 1,
        "execute, shards and joins of block and fold, wrap, Groth16"
    );
}

#[tokio::test]
async fn a_worker_whose_only_device_lies_is_quarantined_and_another_ends_the_batch() {
    let bench = Bench::new();
    let liar = Rig::new(&bench, "liar", &["1..: wrong"]).start(&bench);
    let mut limits = patient();
    // Longer than the test.
    (limits.quarantine_ms, limits.quarantine_ms_max) = (3_600_000, 3_600_000);
    let mut conductor = Conductor::lead_under(limits, &bench.queue, &bench.store).await;
    let batch = conductor.submit(0, &SHAPE.payload()).await;
    let mut honest = None;
    let ends = conductor
        .run(|conductor| {
            let status = conductor.machine.workers().find(|status| status.worker == liar.id);
            if honest.is_none() && status.is_some_and(|status| status.quarantined_until.is_some()) {
                honest = Some(Rig::new(&bench, "honest", &[""]).start(&bench));
            }
        })
        .await;
    assert_eq!(ends, [(batch, Phase::Settled)]);
    assert_eq!(conductor.proof(batch).await, prove(&SHAPE.payload(), None).unwrap().0);
    let told = devices_of(&conductor, liar.id, Outcome::Finished);
    assert_eq!(told, vec![(Kind::Execute, "Model 0".to_owned()); 2], "two strikes");
}

#[tokio::test]
async fn the_task_of_a_device_that_hangs_goes_to_another_worker() {
    let bench = Bench::new();
    let mut hanging = Rig::new(&bench, "hanging", &["1..: hang"]);
    hanging.silence_max = SHORT;
    let worker = hanging.start(&bench);
    let mut conductor = Conductor::lead_under(patient(), &bench.queue, &bench.store).await;
    let batch = conductor.submit(0, &SHAPE.payload()).await;
    let mut other = None;
    let ends = conductor
        .run(|conductor| {
            // The only worker takes the first task; then there is another one.
            if other.is_none() && !conductor.dispatched.is_empty() {
                other = Some(Rig::new(&bench, "other", &[""]).start(&bench));
            }
        })
        .await;
    assert_eq!(ends, [(batch, Phase::Settled)]);
    assert_eq!(conductor.proof(batch).await, prove(&SHAPE.payload(), None).unwrap().0);
    assert_eq!(conductor.dispatched[0].worker, worker.id);
    let key = conductor.dispatched[0].key;
    let again: Vec<_> = conductor.dispatched.iter().filter(|dispatch| dispatch.key == key).collect();
    assert!(again.iter().any(|dispatch| dispatch.worker == other.as_ref().unwrap().id), "{again:?}");
    assert!(devices_of(&conductor, worker.id, Outcome::Failed).contains(&(Kind::Execute, "Model 0".into())));
}

#[tokio::test]
async fn while_one_batch_is_in_groth16_the_next_ones_shards_run_on_the_same_gpu() {
    let bench = Bench::new();
    // Before its Groth16 proof a batch has 11 tasks; the proof takes for ever.
    let mut rig = Rig::new(&bench, "one", &["12: slow 3600000"]);
    rig.config.slots = 2;
    rig.shares = [(Device::Gpu(0), share(2, 20))].into();
    let worker = rig.start(&bench);
    let mut conductor = Conductor::lead_under(patient(), &bench.queue, &bench.store).await;
    let groth16 = |conductor: &Conductor, sequence: u64| {
        let mut all = conductor.dispatched.iter();
        let is = |dispatch: &&Dispatch| {
            dispatch.facts.sequence == sequence && dispatch.stage.kind() == Kind::Groth16
        };
        all.find(is).map(|dispatch| dispatch.attempt)
    };
    conductor.submit(0, &SHAPE.payload()).await;
    // Not before it has begun: the next batch's first task would be the slow one.
    conductor.run_until("a Groth16 task", |_| rig.hardware.tasks(0) == 12).await;
    conductor.submit(1, &Shape { seed: 9, ..SHAPE }.payload()).await;
    let is_proved = |conductor: &Conductor| {
        let is_told = |attempt| conductor.receipts.iter().any(|signed| signed.receipt.attempt == attempt);
        groth16(conductor, 1).is_some_and(|attempt| conductor.accepted.contains(&attempt) && is_told(attempt))
    };
    conductor.run_until("the next batch's Groth16 proof", is_proved).await;
    let first = groth16(&conductor, 0).unwrap();
    assert!(!conductor.accepted.contains(&first), "it is still at it");
    let mut ended = conductor.receipts.iter().map(|signed| &signed.receipt);
    assert!(ended.all(|receipt| receipt.attempt != first && receipt.outcome == Outcome::Finished));
    assert!(conductor.receipts.iter().all(|signed| signed.receipt.worker == worker.id));
    assert_eq!(rig.hardware.starts(0), 2, "each process has kept what it has loaded");
}

#[tokio::test]
async fn the_task_of_a_slow_device_is_doubled_and_the_first_result_counts() {
    let bench = Bench::new();
    let slow = Rig::new(&bench, "slow", &["1..: slow 3600000"]).start(&bench);
    // Late after two milliseconds, taken back never.
    let limits = Limits { attempts_max: 2, ..patient() };
    let mut conductor = Conductor::lead_under(limits, &bench.queue, &bench.store).await;
    let batch = conductor.submit(0, &SHAPE.payload()).await;
    let mut fast = None;
    let ends = conductor
        .run(|conductor| {
            if fast.is_none() && !conductor.dispatched.is_empty() {
                fast = Some(Rig::new(&bench, "fast", &[""]).start(&bench));
            }
        })
        .await;
    assert_eq!(ends, [(batch, Phase::Settled)]);
    assert_eq!(conductor.proof(batch).await, prove(&SHAPE.payload(), None).unwrap().0);
    let key = conductor.dispatched[0].key;
    let doubled: Vec<_> = conductor.dispatched.iter().filter(|dispatch| dispatch.key == key).collect();
    let workers: Vec<WorkerId> = doubled.iter().map(|dispatch| dispatch.worker).collect();
    assert_eq!(workers, [slow.id, fast.as_ref().unwrap().id]);
    assert!(conductor.accepted.contains(&doubled[1].attempt));
    assert_eq!(
        devices_of(&conductor, slow.id, Outcome::Finished)
            .iter()
            .filter(|(kind, _)| !kind.is_controller())
            .count(),
        0
    );
}

#[tokio::test]
async fn devices_that_lie_hang_stick_and_run_out_of_memory_end_in_the_same_proof() {
    let shape = Shape { runs: 2, shards: 4, fold_shards: 3, ..SHAPE };
    let permille = [
        (Trouble::Fail, 40),
        (Trouble::Hang, 10),
        (Trouble::Wrong, 20),
        (Trouble::Memory(25), 40),
        (Trouble::Sticky, 60),
        (Trouble::Slow(30), 60),
    ];
    for seed in 0..2 {
        let bench = Bench::new();
        let workers: Vec<Worker> = (0..3)
            .map(|number| {
                let scripts: Vec<Script> =
                    (0..2).map(|gpu| Script::draw(10 * seed + 2 * number + gpu, 200, &permille)).collect();
                println!("seed {seed}, worker {number}: {} | {}", scripts[0], scripts[1]);
                let mut rig = Rig::with(&bench, &format!("w{number}"), &scripts);
                rig.shares = [(Device::Gpu(0), share(1, 20)), (Device::Gpu(1), share(1, 20))].into();
                rig.silence_max = SHORT;
                rig.start(&bench)
            })
            .collect();
        let mut conductor = Conductor::lead(&bench.queue, &bench.store).await;
        settled(&mut conductor, &shape).await;
        assert!(conductor.dispatched.len() > conductor.proved.len(), "seed {seed}: nothing went wrong");
        conductor.receipts.iter().for_each(|receipt| receipt.verify().unwrap());
        drop(workers);
    }
}
