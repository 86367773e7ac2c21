//! Memory, time, the store and the settlement: what must not wait for ever, and what must not be lost.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use assay_schedule::{
    Dispatch, Error, Event, Failure, Kind, Limits, Message, Part, PerKind, Phase, Profile, Report, Spec,
    Wait, WorkerId,
};
use common::{hash, limits, own, part, spec, Cluster};

const CONTROLLING: [Kind; 3] = [Kind::Execute, Kind::Block, Kind::Fold];
const OTHERS: [Kind; 4] = [Kind::Shard, Kind::Reduce, Kind::Wrap, Kind::Groth16];

fn shard(controller: &Dispatch, number: u32) -> Part {
    part(
        Kind::Shard,
        &format!("shard {number}"),
        vec![own(controller.attempt, number, &format!("record {number}"))],
    )
}

fn patient() -> Limits {
    Limits { timeout_ms_min: 1_000_000_000, attempts_max: 1, patience_ms: 1_000, parts_max: 32, ..limits() }
}

/// Goes on with a batch of one run, whose execution has just been sent, until its proof is there.
fn prove(cluster: &mut Cluster) {
    cluster.finish(&cluster.last(Kind::Execute), &["witness"]);
    for kind in [Kind::Block, Kind::Fold, Kind::Wrap, Kind::Groth16] {
        cluster.finish(&cluster.last(kind), &[&format!("{kind} proof")]);
    }
}

#[test]
fn tasks_that_fit_nowhere_do_not_keep_the_others_waiting() {
    let mut cluster = Cluster::new(Limits { memory_bytes: PerKind([4; 7]), ..patient() });
    cluster.join_for(1, &CONTROLLING, 1, 1, 8);
    cluster.join_for(2, &OTHERS, 16, 0, 64);
    let block = cluster.controller();
    for numbers in [1..5, 5..9, 9..11] {
        cluster.spawn(&block, numbers.map(|number| shard(&block, number)).collect()).unwrap();
    }
    let shards = cluster.dispatched(Kind::Shard);
    for shard in &shards[..8] {
        cluster.report(shard, Report::OutOfMemory).unwrap();
    }
    cluster.leave(WorkerId(2));
    cluster.join_for(3, &OTHERS, 1, 0, 4);
    cluster.pass(2_000);
    let next = cluster.last(Kind::Shard);
    assert_eq!(
        (next.worker, next.memory_bytes),
        (WorkerId(3), 4),
        "the eight before it need more than there is"
    );
    let status = cluster.machine.status(assay_schedule::BatchId(0)).unwrap();
    let large = status.tasks.iter().filter(|task| task.wait == Some(Wait::TooLarge { memory_bytes: 6 }));
    assert_eq!(large.count(), 8);
}

#[test]
fn small_tasks_do_not_keep_a_large_one_waiting_for_ever() {
    let mut cluster = Cluster::new(Limits { memory_bytes: PerKind([1, 1, 5, 1, 1, 10, 1]), ..patient() });
    cluster.join_for(1, &CONTROLLING, 2, 2, 10);
    cluster.join_for(2, &OTHERS, 2, 0, 10);
    cluster.submit(1, 0);
    cluster.finish(&cluster.last(Kind::Execute), &["witness"]);
    let block = cluster.last(Kind::Block);
    cluster.spawn(&block, (1..5).map(|number| shard(&block, number)).collect()).unwrap();
    cluster.submit(0, 0);
    cluster.finish(&cluster.last(Kind::Execute), &["witness"]);
    cluster.finish(&cluster.last(Kind::Block), &["block proof"]);
    cluster.finish(&cluster.last(Kind::Fold), &["fold proof"]);
    let shards = cluster.dispatched(Kind::Shard);
    assert_eq!((shards.len(), cluster.dispatched(Kind::Wrap).len()), (2, 0), "two shards fill the worker");

    cluster.finish(&shards[0], &["proof"]);
    let third = cluster.last(Kind::Shard);
    assert_eq!(cluster.dispatched(Kind::Shard).len(), 3, "for a while small ones go first");
    cluster.pass(1_500);
    cluster.finish(&shards[1], &["proof"]);
    cluster.pass(500);
    assert_eq!(cluster.dispatched(Kind::Shard).len(), 3, "then the worker is kept clear");
    cluster.finish(&third, &["proof"]);
    let wrap = cluster.last(Kind::Wrap);
    cluster.finish(&wrap, &["wrap proof"]);
    assert_eq!(cluster.dispatched(Kind::Shard).len(), 4, "and not longer than needed");
}

#[test]
fn a_worker_that_is_kept_clear_still_proves_the_parts_that_its_controllers_wait_for() {
    let mut cluster = Cluster::new(Limits { memory_bytes: PerKind([1, 3, 4, 4, 3, 10, 1]), ..patient() });
    cluster.join_with(1, 2, 2, 10);
    cluster.submit(0, 0);
    cluster.finish(&cluster.last(Kind::Execute), &["witness"]);
    cluster.finish(&cluster.last(Kind::Block), &["block proof"]);
    let fold = cluster.last(Kind::Fold);
    cluster.submit(1, 0);
    cluster.finish(&cluster.last(Kind::Execute), &["witness"]);
    let block = cluster.last(Kind::Block);
    cluster.finish(&fold, &["fold proof"]);
    assert!(cluster.dispatched(Kind::Wrap).is_empty(), "a controller is in its way");
    cluster.pass(1_500);
    cluster.spawn(&block, vec![shard(&block, 1)]).unwrap();
    cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
    cluster.finish(&block, &["block proof"]);
    cluster.last(Kind::Wrap);
}

#[test]
fn a_task_that_never_has_enough_memory_is_set_aside() {
    let mut cluster = Cluster::new(Limits { memory_bytes: PerKind([1, 1, 4, 4, 1, 1, 1]), ..patient() });
    cluster.join_for(1, &CONTROLLING, 1, 1, 64);
    cluster.join_for(2, &OTHERS, 1, 0, 5);
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, 1)]).unwrap();
    // The first time it may still grow, which does not count.
    for _ in 0..=limits().failures_max {
        cluster.report(&cluster.last(Kind::Shard), Report::OutOfMemory).unwrap();
        cluster.pass(2_000);
    }
    let asked: Vec<u64> = cluster.dispatched(Kind::Shard).iter().map(|shard| shard.memory_bytes).collect();
    assert_eq!(asked, [4, 5, 5, 5], "it gets the largest worker to itself");
    let Phase::Failed(Failure::Poison { reason, .. }) = cluster.phase(0) else {
        panic!("{:?}", cluster.phase(0))
    };
    assert_eq!(reason, "out of memory");
}

#[test]
fn nobody_is_lost_because_the_coordinator_was_away() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 1, 1);
    cluster.pass(100);
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, 1)]).unwrap();
    let shard = cluster.last(Kind::Shard);
    cluster.now += 3_600_000;
    cluster.ok(Event::Tick);
    cluster.pass(900);
    assert!(!cluster.is_revoked(block.attempt) && !cluster.is_revoked(shard.attempt));
    cluster.pass(31_000);
    assert!(cluster.is_revoked(block.attempt), "from then on leases count again");
}

#[test]
fn time_while_the_store_is_away_counts_against_nobody() {
    let mut cluster = Cluster::new(Limits { attempts_max: 1, ..limits() });
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, 1), shard(&block, 2)]).unwrap();
    let first = cluster.last(Kind::Shard);
    cluster.ok(Event::Store { available: false, full: false });
    cluster.pass_with_heartbeats(10_000, &[1]);
    cluster.ok(Event::Store { available: true, full: false });
    cluster.pass_with_heartbeats(900, &[1]);
    assert!(!cluster.is_revoked(first.attempt));
    cluster.pass_with_heartbeats(1_000, &[1]);
    assert!(cluster.is_revoked(first.attempt), "now it is late");
}

#[test]
fn a_task_gets_twice_the_time_after_each_loss() {
    let mut cluster = Cluster::new(Limits { attempts_max: 1, backoff_ms: 0, ..limits() });
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, 1)]).unwrap();
    let mut begun = cluster.now;
    for expected_ms in [1_000, 2_000, 4_000, 8_000] {
        let attempt = cluster.last(Kind::Shard).attempt;
        while !cluster.is_revoked(attempt) {
            cluster.pass_with_heartbeats(100, &[1]);
        }
        let lasted_ms = cluster.now - begun;
        assert!((expected_ms..expected_ms + 300).contains(&lasted_ms), "{lasted_ms}, not {expected_ms}");
        begun = cluster.now;
    }
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let mut cluster = Cluster::new(limits());
    cluster.now = 24 * 3_600_000;
    cluster.ok(Event::Tick);
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    cluster.now = 0;
    cluster.pass(25_000);
    assert!(!cluster.is_revoked(block.attempt), "time does not run faster either");
    cluster.pass(40_000);
    assert!(cluster.is_revoked(block.attempt), "its worker has been silent for longer than the lease");
    let passed_ms = cluster.machine.now().0 - 24 * 3_600_000;
    assert!((32_400..=32_500).contains(&passed_ms), "half of the 65 s, not {passed_ms} ms");
}

#[test]
fn a_batch_that_waits_for_its_settlement_does_not_hold_others_back_while_the_store_is_full() {
    let mut cluster = Cluster::new(limits());
    cluster.holds_settlements = true;
    cluster.join(1, 4, 4);
    cluster.submit(0, 0);
    prove(&mut cluster);
    assert_eq!(cluster.phase(0), Phase::Settling);
    cluster.ok(Event::Store { available: true, full: true });
    // Nobody is there for the first, and the third is not the oldest.
    cluster.submit_spec(Spec { version: 9, ..spec(1, 0) });
    let second = cluster.submit(2, 0);
    cluster.submit(3, 0);
    let executions = cluster.dispatched(Kind::Execute);
    assert_eq!(executions.len(), 2);
    assert_eq!(executions[1].batch, second);
    cluster.ok(Event::Store { available: true, full: false });
    assert_eq!(cluster.dispatched(Kind::Execute).len(), 3);
}

#[test]
fn a_proof_that_is_damaged_before_it_is_settled_is_made_again() {
    let mut cluster = Cluster::new(limits());
    cluster.holds_settlements = true;
    cluster.join(1, 1, 1);
    cluster.submit(0, 0);
    prove(&mut cluster);
    let first = cluster.last(Kind::Groth16);
    cluster.missing.push(own(first.attempt, 0, "groth16 proof"));
    let effect = cluster.settlements[0];
    cluster.ok(Event::SettleFailed { effect, permanent: false, reason: "the proof is lost".into() });
    cluster.finish(&cluster.last(Kind::Wrap), &["wrap proof"]);
    let second = cluster.last(Kind::Groth16);
    assert_ne!(first.attempt, second.attempt);
    cluster.finish(&second, &["groth16 proof"]);
    cluster.pass(1_000);
    cluster.ok(Event::Settled { effect: cluster.settlements[1] });
    assert_eq!((cluster.phase(0), cluster.settlements.len()), (Phase::Settled, 2));
}

#[test]
fn a_settlement_that_is_refused_is_tried_again_with_the_same_proof() {
    let mut cluster = Cluster::new(limits());
    cluster.holds_settlements = true;
    cluster.join(1, 1, 1);
    cluster.submit(0, 0);
    prove(&mut cluster);
    for tries in 1..4 {
        assert_eq!((cluster.phase(0), cluster.settlements.len()), (Phase::Settling, tries));
        let effect = cluster.settlements[tries - 1];
        cluster.ok(Event::SettleFailed { effect, permanent: false, reason: "mempool full".into() });
        assert_eq!(cluster.phase(0), Phase::Proved);
        cluster.pass(1_000);
    }
    assert_eq!(cluster.dispatched(Kind::Groth16).len(), 1);
}

#[test]
fn a_fold_proof_that_is_given_up_during_the_settlement_leaves_nobody_waiting() {
    let mut cluster = Cluster::new(Limits { losses_max: 1, ..limits() });
    cluster.holds_settlements = true;
    cluster.join(1, 2, 2);
    cluster.submit(0, 0);
    prove(&mut cluster);
    let first = cluster.last(Kind::Fold);
    cluster.submit(0, 1);
    cluster.finish(&cluster.last(Kind::Execute), &["witness"]);
    cluster.finish(&cluster.last(Kind::Block), &["block proof"]);
    let second = cluster.last(Kind::Fold);
    cluster.missing.push(own(first.attempt, 0, "fold proof"));
    cluster.report(&second, Report::InputLost { input: 1 }).unwrap();
    assert!(cluster.is_revoked(second.attempt));
    assert_eq!(cluster.phase(0), Phase::Settling, "it cannot be stopped");
    cluster.ok(Event::Settled { effect: cluster.settlements[0] });
    assert_eq!((cluster.phase(0), cluster.phase(1)), (Phase::Settled, Phase::Failed(Failure::History)));
    let held: Vec<_> = cluster.machine.artifacts().map(|artifact| artifact.hash).collect();
    assert_eq!((held, cluster.machine.pending().count()), (vec![hash("groth16 proof")], 0));
}

#[test]
fn a_batch_whose_history_is_lost_while_it_is_settled_has_not_failed() {
    let mut cluster = Cluster::new(limits());
    cluster.holds_settlements = true;
    cluster.join(1, 2, 2);
    cluster.submit(0, 0);
    prove(&mut cluster);
    let settled = cluster.last(Kind::Fold);
    cluster.ok(Event::Settled { effect: cluster.settlements[0] });
    cluster.submit(0, 1);
    prove(&mut cluster);
    let settling = cluster.last(Kind::Fold);
    // Its fold proof is lost, and so is the one that it has to be made again from.
    cluster.submit(0, 2);
    cluster.finish(&cluster.last(Kind::Execute), &["witness"]);
    cluster.finish(&cluster.last(Kind::Block), &["block proof"]);
    cluster.missing.extend([settled, settling].map(|fold| own(fold.attempt, 0, "fold proof")));
    cluster.report(&cluster.last(Kind::Fold), Report::InputLost { input: 1 }).unwrap();
    cluster.finish(&cluster.last(Kind::Execute), &["witness"]);
    cluster.finish(&cluster.last(Kind::Block), &["block proof"]);
    cluster.report(&cluster.last(Kind::Fold), Report::InputLost { input: 1 }).unwrap();
    assert_eq!(cluster.phase(1), Phase::Settling, "it cannot be stopped");
    cluster.ok(Event::Settled { effect: cluster.settlements[1] });
    assert_eq!((cluster.phase(1), cluster.phase(2)), (Phase::Settled, Phase::Failed(Failure::History)));
}

#[test]
fn a_session_that_is_delivered_late_does_not_take_over_a_later_one() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 1, 1);
    let profile =
        Profile { kinds: Kind::ALL.to_vec(), version: 1, memory_bytes: 32, slots: 1, controllers: 1 };
    let join = |session| Event::Join { worker: WorkerId(1), session, profile: profile.clone() };
    cluster.ok(join(3));
    cluster.submit(0, 0);
    let running = cluster.last(Kind::Execute);
    assert_eq!(cluster.step(join(2)), Err(Error::StaleSession { worker: WorkerId(1) }));
    assert!(!cluster.is_revoked(running.attempt));
    // Once the later one is gone, anybody may come: a clock that was set back is no reason to stay out.
    cluster.pass(limits().worker_lease_ms + 1);
    cluster.ok(join(2));
}

#[test]
fn outputs_that_are_too_large_are_a_strike_and_are_not_even_read() {
    let output_bytes_max = PerKind([20, 1, 1, 1, 1, 1, 1]);
    let mut cluster = Cluster::new(Limits { output_bytes_max, backoff_ms: 0, ..limits() });
    cluster.join(1, 1, 1);
    cluster.submit(0, 0);
    let execute = cluster.last(Kind::Execute);
    let output = |bytes| assay_schedule::Output { hash: hash("run"), bytes, units: 1 };
    // Each would do, all together do not.
    let before = cluster.done.len();
    cluster.report(&execute, Report::Finished { outputs: vec![output(15), output(15)] }).unwrap();
    assert_eq!(cluster.machine.workers().map(|worker| worker.strikes).sum::<u32>(), 1);
    let is_verify = |work: &assay_schedule::Work| matches!(work, assay_schedule::Work::Verify { .. });
    assert!(!cluster.done[before..].iter().any(is_verify));
    cluster.pass(200);
    let execute = cluster.last(Kind::Execute);
    cluster.report(&execute, Report::Finished { outputs: vec![output(15), output(5)] }).unwrap();
    assert!(cluster.done[before..].iter().any(is_verify));
}

#[test]
fn a_result_that_cannot_be_checked_goes_elsewhere_and_is_nobodys_strike() {
    let mut cluster = Cluster::new(patient());
    cluster.join(1, 1, 1);
    cluster.join(2, 1, 1);
    cluster.submit(0, 0);
    cluster.is_foreign = true;
    let strikes = |cluster: &Cluster| cluster.machine.workers().map(|worker| worker.strikes).sum::<u32>();
    let first = cluster.last(Kind::Execute);
    cluster.finish(&first, &["witness"]);
    cluster.pass(2_000);
    let second = cluster.last(Kind::Execute);
    assert_ne!(first.worker, second.worker, "it goes elsewhere");
    for _ in 1..limits().failures_max {
        cluster.finish(&cluster.last(Kind::Execute), &["witness"]);
        cluster.pass(2_000);
    }
    assert_eq!(strikes(&cluster), 0);
    let Phase::Failed(Failure::Poison { reason, .. }) = cluster.phase(0) else { panic!("not set aside") };
    assert!(reason.contains("cannot be checked: another build"), "{reason}");
}

#[test]
fn a_proof_that_cannot_be_checked_ends_its_batch_and_says_why() {
    let mut cluster = Cluster::new(patient());
    cluster.join(1, 1, 1);
    cluster.submit(0, 0);
    cluster.finish(&cluster.last(Kind::Execute), &["witness"]);
    for kind in [Kind::Block, Kind::Fold, Kind::Wrap] {
        cluster.finish(&cluster.last(kind), &[&format!("{kind} proof")]);
    }
    // The proof itself is accepted; the coordinator that compares it with the batch is another.
    cluster.is_foreign_statement = true;
    cluster.finish(&cluster.last(Kind::Groth16), &["groth16 proof"]);
    let Phase::Failed(Failure::Rejected { reason, .. }) = cluster.phase(0) else { panic!("not refused") };
    assert!(reason.contains("cannot be checked: another build"), "{reason}");
    assert_eq!(cluster.machine.workers().map(|worker| worker.strikes).sum::<u32>(), 0);
}

#[test]
fn a_worker_that_loses_a_device_keeps_the_tasks_of_the_others_and_gets_no_more_than_it_has_places() {
    let mut cluster = Cluster::new(Limits { backoff_ms: 0, attempts_max: 1, ..patient() });
    cluster.join(1, 2, 0);
    cluster.submit(0, 0);
    cluster.submit(1, 0);
    let [dead, alive] = <[_; 2]>::try_from(cluster.dispatched(Kind::Execute)).unwrap();
    cluster.submit(2, 0);
    // The same session, one device less.
    cluster.join(1, 1, 0);
    assert!(!cluster.is_revoked(dead.attempt) && !cluster.is_revoked(alive.attempt));
    cluster.fail(&dead);
    cluster.pass(500);
    assert_eq!(cluster.dispatched(Kind::Execute).len(), 2, "the place is gone");
    cluster.finish(&alive, &["witness"]);
    assert_eq!(cluster.dispatched(Kind::Execute).len(), 3, "the other is not");
    cluster.join(1, 2, 0);
    assert_eq!(cluster.dispatched(Kind::Execute).len(), 4, "the device is back");
    // Anything else that changes within a session is another one's word.
    let running = cluster.last(Kind::Execute);
    cluster.join_with(1, 2, 0, 16);
    assert!(cluster.is_revoked(running.attempt));
}

#[test]
fn only_of_a_result_that_does_not_verify_its_worker_is_told_that_it_is_wrong() {
    let mut cluster = Cluster::new(Limits { backoff_ms: 0, ..patient() });
    cluster.join(1, 1, 1);
    cluster.submit(0, 0);
    let told = |cluster: &Cluster, id| {
        let revoked = cluster.mail.iter().filter_map(|(_, message)| match message {
            Message::Revoke { attempt, is_wrong, .. } if *attempt == id => Some(*is_wrong),
            _ => None,
        });
        revoked.collect::<Vec<_>>()
    };
    let first = cluster.last(Kind::Execute);
    cluster.is_valid = false;
    cluster.finish(&first, &["lie"]);
    assert_eq!(told(&cluster, first.attempt), [true]);
    cluster.pass(100);
    let second = cluster.last(Kind::Execute);
    assert_ne!(first.attempt, second.attempt);
    cluster.is_foreign = true;
    cluster.finish(&second, &["witness"]);
    assert_eq!(told(&cluster, second.attempt), [false], "nobody can say");
}
