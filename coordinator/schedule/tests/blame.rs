//! Who answers for parts that cannot be done.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use assay_schedule::{
    AttemptId, BatchId, Dispatch, Failure, Holder, Kind, Limits, PerKind, Phase, Report, Stage, WorkerId,
};
use common::{hash, limits, own, part, shard, Cluster};

/// Limits under which nothing is late, and so nothing is doubled.
fn patient() -> Limits {
    Limits { failures_max: 5, timeout_ms_min: 600_000, attempts_max: 1, patience_ms: 1_000, ..limits() }
}

/// A cluster whose first controller is about to be blamed: a part of it is done, another one hopeless.
fn with_a_hopeless_part() -> (Cluster, Dispatch) {
    let mut cluster = Cluster::new(patient());
    for worker in 1..=3 {
        cluster.join(worker, 1, 1);
    }
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, "good", 1)]).unwrap();
    cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
    cluster.spawn(&block, vec![shard(&block, "bad", 2)]).unwrap();
    (cluster, block)
}

/// Another controller is tried, and the batch ends well. What was done is done, unless the one before is caught lying.
fn goes_on_without(mut cluster: Cluster, liar: &Dispatch, is_believed: bool) {
    assert!(cluster.is_revoked(liar.attempt) && cluster.is_fenced(liar.attempt));
    assert_eq!(cluster.phase(0), Phase::Proving);
    let strikes: u32 = cluster.machine.workers().map(|worker| worker.strikes).sum();
    assert_eq!(strikes, 0, "whoever was asked for it has done nothing wrong");
    cluster.pass(2_000);
    let honest = cluster.last(Kind::Block);
    assert_ne!((honest.attempt, honest.worker), (liar.attempt, liar.worker), "another worker is asked");
    for (number, key) in [(1, "good"), (2, "bad")] {
        cluster.spawn(&honest, vec![shard(&honest, key, number)]).unwrap();
        let (is_kept, delivered) = (is_believed && key == "good", cluster.deliveries(honest.attempt).len());
        assert_eq!(delivered as u32, number - u32::from(!is_kept), "{key}: taken over {is_kept}");
        if !is_kept {
            cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
        }
    }
    cluster.finish(&honest, &["block proof"]);
    for kind in [Kind::Fold, Kind::Wrap, Kind::Groth16] {
        cluster.finish(&cluster.last(kind), &["proof"]);
    }
    assert_eq!(cluster.phase(0), Phase::Settled);
}

#[test]
fn a_part_that_two_workers_call_impossible_speaks_against_its_controller() {
    let (mut cluster, liar) = with_a_hopeless_part();
    for _ in 0..2 {
        condemn(&mut cluster);
        cluster.pass(1_000);
    }
    goes_on_without(cluster, &liar, false);
}

#[test]
fn a_part_that_fails_too_often_speaks_against_its_controller() {
    let (mut cluster, liar) = with_a_hopeless_part();
    for _ in 0..5 {
        assert!(!cluster.is_revoked(liar.attempt));
        cluster.fail(&cluster.last(Kind::Shard));
        cluster.pass(2_000);
    }
    goes_on_without(cluster, &liar, true);
}

#[test]
fn a_part_that_two_workers_make_nothing_comparable_of_speaks_against_its_controller() {
    let (mut cluster, liar) = with_a_hopeless_part();
    for _ in 0..2 {
        assert!(!cluster.is_revoked(liar.attempt), "one alone proves nothing");
        finish_as_another_build(&mut cluster);
        cluster.pass(1_000);
    }
    goes_on_without(cluster, &liar, false);
}

#[test]
fn a_prover_of_another_build_does_not_speak_against_the_controller() {
    let (mut cluster, block) = with_a_hopeless_part();
    let first = cluster.last(Kind::Shard);
    finish_as_another_build(&mut cluster);
    cluster.pass(1_000);
    let second = cluster.last(Kind::Shard);
    assert_ne!((second.attempt, second.worker), (first.attempt, first.worker), "another worker is asked");
    cluster.finish(&second, &["proof"]);
    assert!(!cluster.is_revoked(block.attempt));
    assert_eq!(cluster.deliveries(block.attempt).len(), 2);
}

fn finish_as_another_build(cluster: &mut Cluster) {
    cluster.is_foreign = true;
    cluster.finish(&cluster.last(Kind::Shard), &["proof of something"]);
    cluster.is_foreign = false;
}

#[test]
fn a_join_of_a_wrong_proof_that_was_accepted_does_not_end_the_batch() {
    let (mut cluster, mut block) = with_a_hopeless_part();
    // A liar answers with another proof of the program, which verifies; nobody can join it.
    cluster.finish(&cluster.last(Kind::Shard), &["proof of something else"]);
    let mut before = block.clone();
    for failures in 1..=3 {
        if failures > 1 {
            cluster.spawn(&block, vec![shard(&block, "good", 1), shard(&block, "bad", 2)]).unwrap();
        }
        let lie = cluster.deliveries(block.attempt).pop().unwrap().1[0];
        cluster.spawn(&block, vec![part(Kind::Reduce, "join", vec![lie])]).unwrap();
        for _ in 0..5 {
            cluster.fail(&cluster.last(Kind::Reduce));
            cluster.pass_with_heartbeats(1_500, &[1, 2, 3]);
        }
        assert!(cluster.is_revoked(block.attempt));
        assert_eq!(cluster.dispatched(Kind::Shard).len(), 2, "a shard that is done is not proved again");
        if failures == 2 {
            cluster.join(4, 1, 1);
        }
        before = std::mem::replace(&mut block, cluster.last(Kind::Block));
    }
    // The last tries take nothing over.
    goes_on_without(cluster, &before, false);
}

fn condemn(cluster: &mut Cluster) {
    let report = Report::Permanent { reason: "its record is none".into() };
    cluster.report(&cluster.last(Kind::Shard), report).unwrap();
}

#[test]
fn what_was_done_for_an_honest_controller_outlives_a_liar() {
    let mut cluster = Cluster::new(patient());
    cluster.join(1, 0, 1);
    (2..=3).for_each(|worker| cluster.join(worker, 1, 0));
    let honest = cluster.controller();
    cluster.spawn(&honest, vec![shard(&honest, "good", 1)]).unwrap();
    cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
    cluster.leave(WorkerId(1));
    cluster.join(4, 0, 1);
    cluster.pass(1_000);
    let liar = cluster.last(Kind::Block);
    cluster.spawn(&liar, vec![shard(&liar, "bad", 1)]).unwrap();
    for _ in 0..2 {
        condemn(&mut cluster);
        cluster.pass(1_000);
    }
    assert!(cluster.is_revoked(liar.attempt));
    cluster.join(5, 0, 1);
    cluster.pass(2_000);
    let next = cluster.last(Kind::Block);
    assert_ne!(next.attempt, liar.attempt);
    cluster.spawn(&next, vec![shard(&next, "good", 1)]).unwrap();
    assert_eq!(cluster.deliveries(next.attempt)[0].1[0].hash, hash("proof"));
}

#[test]
fn a_controller_that_is_gone_is_blamed_once_for_all_that_it_wanted() {
    let mut cluster = Cluster::new(Limits { failures_max: 3, ..patient() });
    cluster.join(1, 0, 1);
    (2..=5).for_each(|worker| cluster.join(worker, 1, 0));
    let liar = cluster.controller();
    let parts = [("a", 1), ("b", 2), ("c", 3)].map(|(key, number)| shard(&liar, key, number));
    cluster.spawn(&liar, parts.to_vec()).unwrap();
    cluster.leave(WorkerId(1));
    let wanted = cluster.dispatched(Kind::Shard);
    for _ in 0..2 {
        condemn(&mut cluster);
        cluster.pass(500);
    }
    assert!(wanted.iter().all(|shard| cluster.is_fenced(shard.attempt)), "all of it is given up");
    assert!(cluster.is_fenced(liar.attempt));
    assert_eq!(cluster.phase(0), Phase::Proving);
    let status = cluster.machine.status(BatchId(0)).unwrap();
    let failures: Vec<u32> =
        status.tasks.iter().map(|task| task.failures).filter(|count| *count > 0).collect();
    assert_eq!(failures, [1]);
}

#[test]
fn a_part_that_may_have_more_memory_is_not_set_aside() {
    let memory_bytes = PerKind([1, 1, 4, 4, 1, 1, 1]);
    let mut cluster = Cluster::new(Limits { failures_max: 3, memory_bytes, ..patient() });
    cluster.join_with(1, 1, 1, 64);
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
    for _ in 0..3 {
        cluster.report(&cluster.last(Kind::Shard), Report::OutOfMemory).unwrap();
        cluster.pass(2_000);
    }
    assert!(!cluster.is_revoked(block.attempt), "its controller has nothing to do with it");
    let asked: Vec<u64> = cluster.dispatched(Kind::Shard).iter().map(|shard| shard.memory_bytes).collect();
    assert_eq!(asked, [4, 6, 9, 13]);
    cluster.fail(&cluster.last(Kind::Shard));
    cluster.pass(2_000);
    assert!(!cluster.is_revoked(block.attempt), "it has failed once, for another reason");
    assert_eq!(cluster.last(Kind::Shard).memory_bytes, 13);
    cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
    assert_eq!(cluster.deliveries(block.attempt).len(), 1);
}

#[test]
fn a_controller_whose_inputs_are_never_there_is_blamed() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    for number in 1..=limits().losses_max {
        assert!(!cluster.is_revoked(block.attempt));
        cluster.missing.push(own(block.attempt, number, "record of a"));
        cluster.spawn(&block, vec![shard(&block, "a", number)]).unwrap();
        cluster.report(&cluster.last(Kind::Shard), Report::InputLost { input: 0 }).unwrap();
    }
    assert!(cluster.is_revoked(block.attempt));
    assert_eq!(cluster.phase(0), Phase::Proving);
}

#[test]
fn a_part_that_gets_lost_too_often_does_not_speak_against_its_controller() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 0, 1);
    cluster.join(9, 1, 0);
    let block = cluster.controller();
    cluster.leave(WorkerId(9));
    cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
    for worker in 2..2 + u64::from(limits().losses_max) {
        cluster.join(worker, 1, 0);
        cluster.pass_with_heartbeats(1_000, &[1]);
        cluster.leave(WorkerId(worker));
    }
    let Phase::Failed(Failure::Poison { stage: Stage::Shard { .. }, reason }) = cluster.phase(0) else {
        panic!("{:?}", cluster.phase(0))
    };
    assert_eq!(reason, "lost 5 times");
}

#[test]
fn parts_that_fail_for_every_controller_end_the_batch() {
    let mut cluster = Cluster::new(Limits { failures_max: 3, ..patient() });
    cluster.join(1, 1, 1);
    let mut block = cluster.controller();
    for failures in 1..=3 {
        cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
        for _ in 0..3 {
            cluster.fail(&cluster.last(Kind::Shard));
            cluster.pass(2_000);
        }
        assert!(cluster.is_revoked(block.attempt) && cluster.is_fenced(block.attempt), "{failures}");
        block = cluster.last(Kind::Block);
    }
    let Phase::Failed(Failure::Poison { stage: Stage::Block { .. }, reason }) = cluster.phase(0) else {
        panic!("{:?}", cluster.phase(0))
    };
    assert!(reason.contains("Shard") && reason.contains("device reset"), "{reason}");
    assert_eq!(cluster.machine.artifacts().count(), 0);
}

#[test]
fn a_part_that_fails_without_its_controller_counts_against_their_task() {
    let mut cluster = Cluster::new(Limits { failures_max: 3, ..patient() });
    cluster.join(2, 1, 0);
    for failures in 1..=3 {
        let worker = 10 + failures;
        cluster.join_for(worker, &[Kind::Execute, Kind::Block], 1, 1, 32);
        cluster.pass(2_000);
        let block = if failures == 1 { cluster.controller() } else { cluster.last(Kind::Block) };
        assert_eq!(cluster.dispatched(Kind::Block).len() as u64, failures, "{failures}");
        cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
        cluster.leave(WorkerId(worker));
        for _ in 0..3 {
            cluster.fail(&cluster.last(Kind::Shard));
            cluster.pass(2_000);
        }
        assert!(cluster.is_fenced(block.attempt), "nothing of it is read any more");
    }
    assert!(matches!(cluster.phase(0), Phase::Failed(Failure::Poison { .. })), "{:?}", cluster.phase(0));
}

#[test]
fn a_part_that_fails_before_the_next_controller_wants_it_does_not_speak_against_that_one() {
    let mut cluster = Cluster::new(Limits { failures_max: 3, ..patient() });
    cluster.join(1, 0, 1);
    cluster.join(2, 1, 0);
    let first = cluster.controller();
    cluster.spawn(&first, vec![shard(&first, "bad", 1)]).unwrap();
    cluster.leave(WorkerId(1));
    cluster.join(3, 0, 1);
    cluster.pass(1_000);
    let second = cluster.last(Kind::Block);
    for _ in 0..3 {
        cluster.fail(&cluster.last(Kind::Shard));
        cluster.pass_with_heartbeats(2_000, &[2, 3]);
    }
    assert!(!cluster.is_revoked(second.attempt));
    assert!(cluster.is_fenced(first.attempt), "its part is forgotten");
    cluster.spawn(&second, vec![shard(&second, "bad", 1)]).unwrap();
    cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
    assert_eq!(cluster.deliveries(second.attempt).len(), 1);
}

#[test]
fn a_controller_does_not_answer_for_what_the_one_before_it_has_published() {
    // The next controller asks while the part is running, or while it waits to be tried again.
    for is_running in [true, false] {
        let mut cluster = Cluster::new(Limits { backoff_ms: 1_000, ..patient() });
        cluster.join(1, 0, 1);
        (2..=4).for_each(|worker| cluster.join(worker, 1, 0));
        cluster.submit(0, 0);
        cluster.finish(&cluster.last(Kind::Execute), &["witness"]);
        let liar = cluster.last(Kind::Block);
        cluster.spawn(&liar, vec![shard(&liar, "a", 1)]).unwrap();
        cluster.leave(WorkerId(1));
        cluster.join(5, 0, 1);
        cluster.pass(500);
        if !is_running {
            condemn(&mut cluster);
        }
        cluster.pass(600);
        let honest = cluster.last(Kind::Block);
        assert_eq!(honest.worker, WorkerId(5));
        cluster.spawn(&honest, vec![shard(&honest, "a", 1)]).unwrap();
        if is_running {
            condemn(&mut cluster);
        }
        cluster.pass(1_100);
        assert_eq!(cluster.dispatched(Kind::Shard).len(), 2);
        condemn(&mut cluster);
        assert!(!cluster.is_revoked(honest.attempt), "asked while it ran: {is_running}");
        cluster.pass(1_100);
        let own = cluster.last(Kind::Shard);
        assert_eq!(own.inputs[0].artifact.holder, Holder::Attempt(honest.attempt, 1));
        cluster.finish(&own, &["proof"]);
        assert_eq!(cluster.deliveries(honest.attempt).len(), 1);
    }
}

#[test]
fn a_controller_that_asks_for_a_hopeless_part_anew_is_blamed_all_the_same() {
    let (mut cluster, liar) = with_a_hopeless_part();
    for number in 3..=4 {
        cluster.spawn(&liar, vec![shard(&liar, "bad", number)]).unwrap();
        condemn(&mut cluster);
        cluster.spawn(&liar, vec![shard(&liar, "bad", number + 10)]).unwrap_or_default();
        cluster.pass(1_000);
    }
    goes_on_without(cluster, &liar, false);
}

#[test]
fn a_part_that_nobody_can_do_ends_the_batch_even_if_its_controllers_make_room_for_it() {
    let memory_bytes = PerKind([1, 3, 4, 4, 3, 1, 1]);
    let mut cluster = Cluster::new(Limits { memory_bytes, ..patient() });
    // Room for a controller or a part, not for both.
    cluster.join_with(1, 1, 1, 6);
    cluster.controller();
    let mut failed = BTreeSet::new();
    for _ in 0..1_000 {
        if cluster.phase(0) != Phase::Proving {
            break;
        }
        let block = cluster.last(Kind::Block);
        if !cluster.is_revoked(block.attempt) {
            cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
        }
        let part = cluster.dispatched(Kind::Shard).pop();
        if let Some(part) = part.filter(|part| failed.insert(part.attempt)) {
            cluster.fail(&part);
        }
        cluster.pass_with_heartbeats(500, &[1]);
    }
    assert!(matches!(cluster.phase(0), Phase::Failed(Failure::Poison { .. })), "{:?}", cluster.phase(0));
}

#[test]
fn a_part_that_can_never_be_compared_ends_the_batch_even_if_the_next_controller_is_there_before_the_verdict()
{
    let memory_bytes = PerKind([1, 3, 4, 4, 3, 1, 1]);
    let mut cluster = Cluster::new(Limits { memory_bytes, failures_max: 3, ..patient() });
    // Room for a controller or a part, not for both.
    cluster.join_with(1, 1, 1, 6);
    cluster.controller();
    cluster.is_foreign = true;
    let mut seen: BTreeMap<AttemptId, u32> = BTreeMap::new();
    for _ in 0..1_000 {
        if cluster.phase(0) != Phase::Proving {
            break;
        }
        let block = cluster.last(Kind::Block);
        if !cluster.is_revoked(block.attempt) {
            cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
        }
        if let Some(part) = cluster.dispatched(Kind::Shard).pop() {
            let rounds = seen.entry(part.attempt).or_default();
            *rounds += 1;
            // By now the next controller waits for the room; it is sent in the step in which the part is finished.
            if *rounds == 3 {
                cluster.finish(&part, &["proof of something"]);
            }
        }
        cluster.pass_with_heartbeats(500, &[1]);
    }
    let Phase::Failed(Failure::Poison { stage: Stage::Block { .. }, reason }) = cluster.phase(0) else {
        panic!("{:?}", cluster.phase(0))
    };
    assert!(reason.contains("another build"), "{reason}");
}

#[test]
fn a_worker_that_failed_with_the_inputs_of_one_controller_is_not_avoided_with_those_of_another() {
    let mut cluster = Cluster::new(Limits { backoff_ms: 1_000, ..patient() });
    cluster.join(1, 0, 1);
    (2..=3).for_each(|worker| cluster.join(worker, 1, 0));
    let liar = cluster.controller();
    cluster.spawn(&liar, vec![shard(&liar, "a", 1)]).unwrap();
    cluster.leave(WorkerId(1));
    cluster.join(5, 0, 1);
    cluster.pass(500);
    let before = cluster.last(Kind::Shard);
    cluster.fail(&before);
    cluster.pass(600);
    let honest = cluster.last(Kind::Block);
    cluster.spawn(&honest, vec![shard(&honest, "a", 1)]).unwrap();
    cluster.pass(1_100);
    let after = cluster.last(Kind::Shard);
    assert_eq!(after.inputs[0].artifact.holder, Holder::Attempt(honest.attempt, 1));
    assert_eq!(after.worker, before.worker, "the first that is free");
}

#[test]
fn a_ready_part_that_gets_new_inputs_keeps_no_spare_ones_of_an_attempt_that_is_gone() {
    let mut cluster = Cluster::new(Limits { backoff_ms: 1_000, ..patient() });
    cluster.join(1, 0, 1);
    cluster.join(2, 1, 0);
    let first = cluster.controller();
    cluster.spawn(&first, vec![shard(&first, "a", 1)]).unwrap();
    cluster.leave(WorkerId(1));
    cluster.join(3, 0, 1);
    cluster.pass(1_100);
    let second = cluster.last(Kind::Block);
    cluster.spawn(&second, vec![shard(&second, "a", 1)]).unwrap();
    cluster.leave(WorkerId(3));
    cluster.join(4, 0, 1);
    cluster.pass(1_500);
    cluster.fail(&cluster.last(Kind::Shard));
    cluster.pass(600);
    let third = cluster.last(Kind::Block);
    assert_eq!(third.worker, WorkerId(4));
    assert_eq!(cluster.dispatched(Kind::Shard).len(), 1, "it is ready, not running");
    cluster.spawn(&third, vec![shard(&third, "a", 1)]).unwrap();
    assert!(cluster.is_fenced(first.attempt) && cluster.is_fenced(second.attempt), "nobody reads of them");
    cluster.pass(1_000);
    cluster.missing.push(own(third.attempt, 1, "record of a"));
    cluster.report(&cluster.last(Kind::Shard), Report::InputLost { input: 0 }).unwrap();
    cluster.pass(1_000);
    assert_eq!(cluster.dispatched(Kind::Shard).len(), 2, "it waits for the third to publish again");
    cluster.spawn(&third, vec![shard(&third, "a", 2)]).unwrap();
    cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
    assert_eq!(cluster.deliveries(third.attempt).len(), 1);
}

#[test]
fn what_comes_from_a_liar_is_forgotten_unless_the_next_controller_has_asked_for_it() {
    let mut cluster = Cluster::new(Limits { backoff_ms: 1_000, ..patient() });
    cluster.join(1, 0, 1);
    (2..=4).for_each(|worker| cluster.join(worker, 1, 0));
    let liar = cluster.controller();
    cluster.spawn(&liar, vec![shard(&liar, "asked", 1), shard(&liar, "other", 2)]).unwrap();
    cluster.dispatched(Kind::Shard).iter().for_each(|shard| cluster.finish(shard, &["proof"]));
    cluster.spawn(&liar, vec![shard(&liar, "bad", 3)]).unwrap();
    cluster.leave(WorkerId(1));
    cluster.join(5, 0, 1);
    cluster.pass(1_100);
    let honest = cluster.last(Kind::Block);
    cluster.spawn(&honest, vec![shard(&honest, "asked", 1)]).unwrap();
    for _ in 0..2 {
        condemn(&mut cluster);
        cluster.pass(1_100);
    }
    assert!(!cluster.is_revoked(honest.attempt));
    let delivered = |cluster: &Cluster| cluster.deliveries(honest.attempt).len();
    assert_eq!(delivered(&cluster), 1);
    cluster.spawn(&honest, vec![shard(&honest, "other", 2)]).unwrap();
    assert_eq!(delivered(&cluster), 1, "it is not believed");
    cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
    cluster.spawn(&honest, vec![shard(&honest, "asked", 3)]).unwrap();
    assert_eq!(delivered(&cluster), 3);
}
