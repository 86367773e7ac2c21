//! Controllers and their parts.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use assay_schedule::{
    Error, Event, Hash, Holder, Kind, Limits, Message, Phase, Report, Role, Stage, Work, WorkerId,
};
use common::{hash, limits, own, part, shard, state, Cluster};

#[test]
fn a_batch_goes_from_the_execution_to_the_settlement() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 1, 1);
    cluster.submit(7, 0);
    let execute = cluster.last(Kind::Execute);
    assert_eq!(execute.outputs_max, limits().runs_max);
    cluster.finish(&execute, &["witness 0", "witness 1"]);
    for run in 0..2 {
        let block = cluster.last(Kind::Block);
        assert_eq!(block.stage, Stage::Block { run });
        assert_eq!(block.inputs[0].artifact.hash, hash(&format!("witness {run}")));
        let key = format!("shard of {run}");
        cluster.spawn(&block, vec![shard(&block, &key, 1)]).unwrap();
        let proving = cluster.last(Kind::Shard);
        assert_eq!((proving.key, proving.inputs[0].role), (hash(&key), Role::Part));
        cluster.finish(&proving, &["shard proof", "deferred events"]);
        let (key, outputs) = cluster.deliveries(block.attempt).pop().unwrap();
        assert_eq!((key, outputs.len()), (proving.key, 2));
        // An output of a part is an input of the next.
        cluster.spawn(&block, vec![part(Kind::Reduce, "reduce", vec![outputs[0]])]).unwrap();
        let reduce = cluster.last(Kind::Reduce);
        assert_eq!(reduce.inputs[0].artifact, outputs[0]);
        cluster.finish(&reduce, &["reduced"]);
        assert_eq!(cluster.deliveries(block.attempt).len(), 2);
        cluster.finish(&block, &[&format!("block proof {run}")]);
        assert!(cluster.is_fenced(proving.attempt) && cluster.is_fenced(reduce.attempt), "their use is over");
    }
    for kind in [Kind::Fold, Kind::Wrap, Kind::Groth16] {
        let task = cluster.last(kind);
        cluster.finish(&task, &[&kind.to_string()]);
    }
    assert_eq!(cluster.phase(0), Phase::Settled);
    // Only the proof and, for the next batch, the fold proof are left.
    let held: Vec<Hash> = cluster.machine.artifacts().map(|artifact| artifact.hash).collect();
    assert_eq!(held.len(), 2);
    assert!(held.contains(&hash("fold")) && held.contains(&hash("groth16")));
    assert_eq!(cluster.machine.pending().count(), 0);
}

#[test]
fn a_fold_is_told_which_inputs_are_block_proofs_and_which_is_the_history() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 2, 2);
    for sequence in 0..2 {
        cluster.submit(7, sequence);
        cluster.finish(&cluster.last(Kind::Execute), &["w0", "w1"]);
        let blocks = cluster.dispatched(Kind::Block);
        for block in &blocks[blocks.len() - 2..] {
            cluster.finish(block, &["block proof"]);
        }
        let fold = cluster.last(Kind::Fold);
        let roles: Vec<Role> = fold.inputs.iter().map(|input| input.role).collect();
        let mut expected = vec![Role::BlockProof { run: 0 }, Role::BlockProof { run: 1 }];
        expected.extend((sequence > 0).then_some(Role::PreviousFold));
        assert_eq!(roles, expected);
        let facts = fold.facts;
        assert_eq!(
            (facts.genesis, facts.from, facts.to),
            (state(7, 0), state(7, sequence), state(7, sequence + 1))
        );
        for kind in [Kind::Fold, Kind::Wrap, Kind::Groth16] {
            cluster.finish(&cluster.last(kind), &["proof"]);
        }
    }
    assert_eq!(cluster.phase(1), Phase::Settled);
}

#[test]
fn a_worker_with_one_slot_proves_the_parts_of_its_own_controller() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, "a", 1), shard(&block, "b", 2)]).unwrap();
    let shards = cluster.dispatched(Kind::Shard);
    assert_eq!(shards.len(), 1, "one slot, one task");
    assert_eq!(shards[0].worker, block.worker);
    cluster.finish(&shards[0], &["proof"]);
    assert_eq!(cluster.dispatched(Kind::Shard).len(), 2);
}

#[test]
fn controllers_keep_to_their_places() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 4, 1);
    cluster.submit(0, 0);
    cluster.finish(&cluster.last(Kind::Execute), &["w0", "w1"]);
    assert_eq!(cluster.dispatched(Kind::Block).len(), 1);
    cluster.join(2, 4, 0);
    assert_eq!(cluster.dispatched(Kind::Block).len(), 1, "no place for controllers there");
    cluster.join(3, 0, 1);
    assert_eq!(cluster.last(Kind::Block).worker, WorkerId(3), "a worker may do nothing else");
}

#[test]
fn the_next_attempt_finds_what_is_done_and_what_is_under_way() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 0, 1);
    cluster.join(2, 2, 0);
    let first = cluster.controller();
    cluster.spawn(&first, vec![shard(&first, "done", 1), shard(&first, "running", 2)]).unwrap();
    let shards = cluster.dispatched(Kind::Shard);
    cluster.finish(&shards[0], &["proof of done"]);
    assert!(cluster.is_released(own(first.attempt, 1, "record of done")), "nobody reads it any more");

    cluster.leave(WorkerId(1));
    assert!(cluster.is_revoked(first.attempt));
    assert!(!cluster.is_fenced(first.attempt), "a part still reads what it has published");
    cluster.join(3, 0, 1);
    cluster.pass(1_000);
    let second = cluster.last(Kind::Block);
    assert_ne!(second.attempt, first.attempt);

    cluster.spawn(&second, vec![shard(&second, "done", 1), shard(&second, "running", 2)]).unwrap();
    let delivered = cluster.deliveries(second.attempt);
    assert_eq!(delivered.len(), 1);
    assert_eq!((delivered[0].0, delivered[0].1[0].hash), (hash("done"), hash("proof of done")));
    assert!(cluster.is_released(own(second.attempt, 1, "record of done")), "it was published for nothing");
    cluster.finish(&shards[1], &["proof of running"]);
    assert_eq!(cluster.deliveries(second.attempt).len(), 2);
    assert!(cluster.is_fenced(first.attempt), "now nothing of it is read");
    assert_eq!(cluster.dispatched(Kind::Shard).len(), 2, "nothing is proved twice");
    cluster.finish(&second, &["block proof"]);
    assert_eq!(cluster.last(Kind::Fold).inputs[0].artifact.hash, hash("block proof"));
}

#[test]
fn parts_go_on_without_their_controller() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 0, 1);
    cluster.join(2, 1, 0);
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, "a", 1), shard(&block, "b", 2)]).unwrap();
    cluster.leave(WorkerId(1));
    let first = cluster.last(Kind::Shard);
    cluster.finish(&first, &["proof"]);
    let second = cluster.last(Kind::Shard);
    assert_ne!(first.key, second.key, "a queued part is sent though nobody waits for it now");
    assert!(cluster.deliveries(block.attempt).is_empty());
}

#[test]
fn a_part_that_is_asked_for_twice_is_proved_once() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 4, 1);
    let block = cluster.controller();
    for _ in 0..3 {
        cluster.spawn(&block, vec![shard(&block, "a", 1), shard(&block, "a", 1)]).unwrap();
    }
    assert_eq!(cluster.dispatched(Kind::Shard).len(), 1);
    cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
    cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
    assert_eq!(cluster.deliveries(block.attempt).len(), 2, "whoever asks again has not got it");
    assert_eq!(cluster.dispatched(Kind::Shard).len(), 1);
}

#[test]
fn a_controller_is_not_doubled_and_only_taken_back_when_it_waits_for_nobody() {
    let mut cluster = Cluster::new(Limits { idle_ms_min: 1_000, ..limits() });
    cluster.join(1, 1, 1);
    cluster.join(2, 1, 1);
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
    let first = cluster.last(Kind::Shard);
    let pass = |cluster: &mut Cluster, seconds: u64| {
        for _ in 0..seconds {
            let shards = cluster.dispatched(Kind::Shard).into_iter().map(|shard| shard.attempt);
            let running: Vec<_> = shards.chain([block.attempt]).collect();
            for worker in [1, 2] {
                let event =
                    Event::Heartbeat { worker: WorkerId(worker), session: 1, running: running.clone() };
                cluster.ok(event);
            }
            cluster.pass(1_000);
        }
    };
    pass(&mut cluster, 3);
    assert!(cluster.dispatched(Kind::Shard).len() > 1, "a part is doubled");
    assert!(cluster.is_revoked(first.attempt), "and taken back");
    assert!(!cluster.is_revoked(block.attempt), "which its controller waits for");
    cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
    pass(&mut cluster, 1);
    assert!(!cluster.is_revoked(block.attempt), "it has just been told");
    // Asking for what it has been given is not work.
    for _ in 0..20 {
        let _ = cluster.spawn(&block, vec![shard(&block, "a", 1)]);
        pass(&mut cluster, 1);
    }
    assert!(cluster.is_revoked(block.attempt));
    assert_ne!(cluster.last(Kind::Block).attempt, block.attempt);
}

#[test]
fn a_controller_that_hangs_while_its_worker_lives_is_taken_back() {
    let mut cluster = Cluster::new(Limits { idle_ms_min: 1_000, ..limits() });
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    cluster.pass_with_heartbeats(900, &[1]);
    assert!(!cluster.is_revoked(block.attempt));
    cluster.pass_with_heartbeats(1_100, &[1]);
    assert!(cluster.is_revoked(block.attempt));
    assert_ne!(cluster.last(Kind::Block).attempt, block.attempt, "it is tried again");
    // Of a part that has lost its input the controller is asked for it: nobody else works on it.
    let block = cluster.last(Kind::Block);
    cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
    cluster.missing.push(own(block.attempt, 1, "record of a"));
    cluster.report(&cluster.last(Kind::Shard), Report::InputLost { input: 0 }).unwrap();
    cluster.pass_with_heartbeats(10_000, &[1]);
    assert!(cluster.is_revoked(block.attempt));
}

#[test]
fn a_controller_that_is_not_named_in_a_heartbeat_is_lost() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    cluster.pass(1_500);
    cluster.ok(Event::Heartbeat { worker: WorkerId(1), session: 1, running: vec![] });
    assert!(cluster.is_revoked(block.attempt));
    cluster.pass(100);
    assert_ne!(cluster.last(Kind::Block).attempt, block.attempt);
}

#[test]
fn a_cancelled_batch_leaves_nothing() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, "a", 1), shard(&block, "b", 2)]).unwrap();
    let first = cluster.last(Kind::Shard);
    cluster.finish(&first, &["proof"]);
    let second = cluster.last(Kind::Shard);
    cluster.ok(Event::Cancel { tenant: assay_schedule::TenantId(0), batch: assay_schedule::BatchId(0) });
    for attempt in [block.attempt, first.attempt, second.attempt] {
        assert!(cluster.is_fenced(attempt), "attempt {attempt}");
    }
    assert!(cluster.is_revoked(block.attempt) && cluster.is_revoked(second.attempt));
    assert_eq!(cluster.machine.artifacts().count(), 0);
    assert_eq!(cluster.machine.held_bytes(), 0);
}

#[test]
fn a_lost_input_is_published_again_by_the_controller() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
    cluster.missing.push(own(block.attempt, 1, "record of a"));
    let first = cluster.last(Kind::Shard);
    cluster.report(&first, Report::InputLost { input: 0 }).unwrap();
    let (_, message) = cluster.mail.last().unwrap();
    let Message::Respawn { attempt, key, .. } = message else { panic!("{message:?}") };
    assert_eq!((*attempt, *key), (block.attempt, hash("a")));
    cluster.spawn(&block, vec![shard(&block, "a", 2)]).unwrap();
    let second = cluster.last(Kind::Shard);
    assert_eq!(second.inputs[0].artifact.holder, Holder::Attempt(block.attempt, 2));
    cluster.finish(&second, &["proof"]);
    assert_eq!(cluster.deliveries(block.attempt).len(), 1);
}

#[test]
fn a_lost_output_is_proved_again_and_an_intact_one_delivered_again() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
    let first = cluster.last(Kind::Shard);
    cluster.finish(&first, &["proof"]);
    let lost = |cluster: &mut Cluster, output| {
        let (worker, session, attempt) = (block.worker, 1, block.attempt);
        cluster.step(Event::PartLost { worker, session, attempt, key: hash("a"), output })
    };
    lost(&mut cluster, 0).unwrap();
    assert_eq!(cluster.deliveries(block.attempt).len(), 2, "it is intact");
    assert!(matches!(lost(&mut cluster, 1), Err(Error::UnknownPart { .. })), "there is no second output");

    cluster.missing.push(own(first.attempt, 0, "proof"));
    lost(&mut cluster, 0).unwrap();
    assert!(cluster.is_fenced(first.attempt));
    assert!(matches!(cluster.mail.last(), Some((_, Message::Respawn { .. }))));
    cluster.spawn(&block, vec![shard(&block, "a", 2)]).unwrap();
    cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
    assert_eq!(cluster.deliveries(block.attempt).len(), 3);
}

#[test]
fn one_that_complains_without_end_is_taken_back() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
    cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
    for _ in 0..limits().failures_max {
        let (worker, session, attempt) = (block.worker, 1, block.attempt);
        cluster.ok(Event::PartLost { worker, session, attempt, key: hash("a"), output: 0 });
    }
    assert!(cluster.is_revoked(block.attempt));
}

#[test]
fn a_liars_parts_are_forgotten_with_it() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 0, 1);
    cluster.join(2, 1, 0);
    let liar = cluster.controller();
    cluster.spawn(&liar, vec![shard(&liar, "a", 1)]).unwrap();
    cluster.finish(&cluster.last(Kind::Shard), &["proof of something else"]);
    cluster.is_valid = false;
    cluster.finish(&liar, &["wrong"]);
    cluster.is_valid = true;
    cluster.join(3, 0, 1);
    cluster.pass(1_000);
    let honest = cluster.last(Kind::Block);
    assert_eq!(honest.worker, WorkerId(3));
    cluster.spawn(&honest, vec![shard(&honest, "a", 1)]).unwrap();
    assert!(cluster.deliveries(honest.attempt).is_empty());
    assert_eq!(cluster.dispatched(Kind::Shard).len(), 2);
}

#[test]
fn each_of_the_last_two_tries_of_a_controller_takes_nothing_over_from_those_before() {
    let limits = Limits { failures_max: 5, ..limits() };
    let mut cluster = Cluster::new(limits.clone());
    for worker in 0..3 {
        cluster.join(worker, 1, 1);
    }
    let mut block = cluster.controller();
    for failures in 0..limits.failures_max {
        cluster.spawn(&block, vec![shard(&block, "a", 1)]).unwrap();
        let is_fresh = failures == 0 || failures + 2 >= limits.failures_max;
        let is_last = failures + 1 == limits.failures_max;
        assert_eq!(cluster.deliveries(block.attempt).is_empty(), is_fresh, "after {failures} failures");
        if is_fresh {
            cluster.finish(&cluster.last(Kind::Shard), &["proof"]);
        }
        if !is_last {
            cluster.fail(&block);
            cluster.pass(2_000);
            block = cluster.last(Kind::Block);
        }
    }
    assert_eq!(cluster.dispatched(Kind::Shard).len(), 3);
}

#[test]
fn a_request_that_makes_no_sense_fails_the_attempt() {
    let limits = limits();
    let too_many = limits.parts_max as usize + 1;
    type Make = Box<dyn Fn(&assay_schedule::Dispatch) -> Vec<assay_schedule::Part>>;
    let with = |kind: Kind, inputs: usize| -> Make {
        Box::new(move |block| vec![part(kind, "x", vec![own(block.attempt, 1, "x"); inputs])])
    };
    let holder = |holder: fn(&assay_schedule::Dispatch) -> Holder| -> Make {
        Box::new(move |block| {
            let input = assay_schedule::Artifact { holder: holder(block), hash: hash("x"), bytes: 1 };
            vec![part(Kind::Shard, "x", vec![input])]
        })
    };
    let sized = |count: u32, bytes: u64| -> Make {
        Box::new(move |block| {
            let input = |number| assay_schedule::Artifact { bytes, ..own(block.attempt, number, "x") };
            vec![part(Kind::Shard, "x", (1..=count).map(input).collect())]
        })
    };
    let cases: Vec<(&str, Make)> = vec![
        ("the same input twice", with(Kind::Shard, 2)),
        ("one input that is too large", sized(1, limits.artifact_bytes_max + 1)),
        ("inputs that are too large together", sized(2, limits.artifact_bytes_max / 2 + 1)),
        ("sizes past all counting", sized(3, u64::MAX)),
        ("another kind", with(Kind::Wrap, 1)),
        ("a controller", with(Kind::Block, 1)),
        ("no input", with(Kind::Shard, 0)),
        ("too many inputs", with(Kind::Shard, limits.part_inputs_max as usize + 1)),
        (
            "another's input",
            holder(|block| Holder::Attempt(assay_schedule::AttemptId(block.attempt.0 - 1), 0)),
        ),
        (
            "one not yet born",
            holder(|block| Holder::Attempt(assay_schedule::AttemptId(block.attempt.0 + 1), 1)),
        ),
        ("its own result", holder(|block| Holder::Attempt(block.attempt, 0))),
        ("the payload", holder(|_| Holder::Intake(hash("x")))),
        (
            "two contents under one name",
            Box::new(|block| {
                let (one, other) = (own(block.attempt, 1, "one"), own(block.attempt, 1, "other"));
                vec![part(Kind::Shard, "x", vec![one]), part(Kind::Shard, "y", vec![other])]
            }),
        ),
        (
            "one key for two kinds",
            Box::new(|block| {
                let input = own(block.attempt, 1, "x");
                vec![part(Kind::Shard, "x", vec![input]), part(Kind::Reduce, "x", vec![input])]
            }),
        ),
    ];
    for (what, make) in cases {
        let mut cluster = Cluster::new(limits.clone());
        cluster.join(1, 1, 1);
        let block = cluster.controller();
        cluster.spawn(&block, make(&block)).unwrap();
        assert!(cluster.is_revoked(block.attempt), "{what}");
    }
    let mut cluster = Cluster::new(limits);
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    for number in 1..=too_many as u32 {
        assert!(!cluster.is_revoked(block.attempt));
        cluster.spawn(&block, vec![shard(&block, &number.to_string(), number)]).unwrap();
    }
    assert!(cluster.is_revoked(block.attempt), "more parts than there may be");
}

#[test]
fn only_a_running_controller_may_ask_for_parts() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    let request = vec![shard(&block, "a", 1)];
    let mut other = block.clone();
    other.session = 2;
    assert!(matches!(cluster.spawn(&other, request.clone()), Err(Error::StaleAttempt { .. })));
    other.session = 1;
    other.worker = WorkerId(2);
    assert!(matches!(cluster.spawn(&other, request.clone()), Err(Error::StaleAttempt { .. })));
    let many = vec![request[0].clone(); limits().spawn_max as usize + 1];
    assert!(matches!(cluster.spawn(&block, many), Err(Error::Limit { .. })));
    cluster.spawn(&block, request.clone()).unwrap();
    let shard = cluster.last(Kind::Shard);
    assert!(matches!(cluster.spawn(&shard, request.clone()), Err(Error::NotController { .. })));
    cluster.finish(&block, &["block proof"]);
    assert!(matches!(cluster.spawn(&block, request), Err(Error::StaleAttempt { .. })));
}

#[test]
fn messages_are_never_pending_and_work_is_until_it_is_answered() {
    let mut cluster = Cluster::new(limits());
    cluster.join(1, 1, 1);
    let block = cluster.controller();
    let spawn = Event::Spawn {
        worker: block.worker,
        session: 1,
        attempt: block.attempt,
        parts: vec![shard(&block, "a", 1)],
    };
    let effects = cluster.machine.step(spawn, assay_schedule::Time(1)).unwrap();
    assert!(effects.iter().all(|effect| effect.is_message()) && !effects.is_empty());
    assert_eq!(cluster.machine.pending().count(), 0);
    let assay_schedule::Action::Message(Message::Dispatch(shard)) = &effects[0].action else { panic!() };
    let report = Report::Finished { outputs: vec![common::output("proof")] };
    let result = Event::Result { worker: shard.worker, session: 1, attempt: shard.attempt, report };
    let effects = cluster.machine.step(result, assay_schedule::Time(2)).unwrap();
    assert_eq!(cluster.machine.pending().cloned().collect::<Vec<_>>(), effects);
    let assay_schedule::Action::Work(Work::Verify { key, .. }) = &effects[0].action else { panic!() };
    assert_eq!(*key, hash("a"));
    // A new leader gets the work again, under its own epoch, and no message.
    let takeover = Event::TakeOver { epoch: assay_schedule::Epoch(2) };
    let again = cluster.machine.step(takeover, assay_schedule::Time(3)).unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].id, again[0].epoch.0, &again[0].action), (effects[0].id, 2, &effects[0].action));
}

#[test]
fn a_controller_makes_room_for_a_part_that_fits_nowhere_else() {
    let limits =
        assay_schedule::Limits { memory_bytes: assay_schedule::PerKind([1, 3, 4, 4, 3, 1, 1]), ..limits() };
    let mut cluster = Cluster::new(limits);
    // Room for a controller or a part, not for both.
    cluster.join_with(1, 1, 1, 6);
    let first = cluster.controller();
    cluster.spawn(&first, vec![shard(&first, "a", 1)]).unwrap();
    assert!(cluster.dispatched(Kind::Shard).is_empty());
    cluster.pass(100);
    assert!(cluster.is_revoked(first.attempt), "the part would wait for ever");
    let part = cluster.last(Kind::Shard);
    cluster.pass(500);
    assert_eq!(cluster.last(Kind::Block).attempt, first.attempt, "no room beside the part");
    cluster.finish(&part, &["proof"]);
    cluster.pass(500);
    let second = cluster.last(Kind::Block);
    cluster.spawn(&second, vec![shard(&second, "a", 1)]).unwrap();
    assert_eq!(cluster.deliveries(second.attempt).len(), 1);
    cluster.finish(&second, &["block proof"]);
    assert_eq!(cluster.dispatched(Kind::Shard).len(), 1);
}
