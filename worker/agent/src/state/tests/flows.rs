use super::*;

#[test]
fn a_task_is_fetched_run_published_sealed_reported_and_repeated_until_it_is_closed() {
    let mut bench = Bench::new();
    bench.join();
    let attempt = AttemptId(1);
    let actions = bench.step(dispatch(1, Stage::Wrap, 10, SESSION));
    assert_eq!(actions, [Action::Fetch { attempt }]);
    let actions = bench.step(Input::Fetched { attempt, result: Ok(()) });
    assert_eq!(actions, [Action::Run { attempt, device: Device::Gpu(0) }]);
    let actions = bench.step(Input::Ended { attempt, result: Ok(()) });
    assert_eq!(actions, [Action::Publish { attempt }]);
    let report = Report::Finished { outputs: vec![output(7)] };
    let actions = bench.step(Input::Published { attempt, result: Ok(vec![output(7)]) });
    assert_eq!(actions, [Action::Seal { attempt, report: report.clone(), outcome: Outcome::Finished }]);
    let actions = bench.step(Input::Sealed { attempt });
    assert_eq!(results(&bench.post_all(actions)), [(1, report.clone())]);
    // The leader may have died with it, or the queue lost it: it is said again, and named until it is closed.
    let actions = bench.wait(10_000);
    let events = bench.post_all(actions);
    assert_eq!(results(&events), [(1, report)]);
    let named = |event: &Event| matches!(event, Event::Heartbeat { running, .. } if *running == [attempt]);
    assert!(events.iter().any(named), "{events:?}");
    assert_eq!(bench.step(closed(1)), [Action::Clean { attempt }]);
    assert_eq!(bench.state.running(), []);
    let actions = bench.wait(100_000);
    assert!(results(&bench.post_all(actions)).is_empty());
}

#[test]
fn a_result_that_nobody_answers_is_settled_when_the_queue_has_taken_it_often_enough() {
    let mut bench = Bench::new();
    bench.join();
    bench.step(dispatch(1, Stage::Wrap, 10, SESSION));
    bench.run(1);
    let mut told = results(&bench.publish(1)).len();
    let mut cleaned = false;
    for _ in 0..600 {
        let actions = bench.wait(100);
        cleaned |= actions.contains(&Action::Clean { attempt: AttemptId(1) });
        told += results(&bench.post_all(actions)).len();
    }
    assert_eq!((told, cleaned), (3, true));
}

#[test]
fn a_dispatch_is_taken_once_and_by_whom_it_is_for() {
    let mut bench = Bench::new();
    bench.join();
    bench.step(dispatch(1, Stage::Wrap, 10, SESSION));
    let repeated = Refused::Repeated { attempt: AttemptId(1) };
    assert_eq!(bench.refuse(dispatch(1, Stage::Wrap, 10, SESSION)), repeated);
    assert!(matches!(
        bench.refuse(dispatch(2, Stage::Wrap, 10, 99)),
        Refused::Misdirected { session: 99, .. }
    ));
    bench.run(1);
    bench.publish(1);
    bench.step(closed(1));
    assert_eq!(bench.refuse(dispatch(1, Stage::Wrap, 10, SESSION)), repeated, "it is over");
    assert_eq!(bench.refuse(closed(1)), Refused::Unknown { attempt: AttemptId(1) });
    assert_eq!(bench.refuse(deliver(1, hash(1))), Refused::Unknown { attempt: AttemptId(1) });
}

#[test]
fn every_failure_is_reported_as_what_it_is() {
    let long = "ä".repeat(300);
    let cases = [
        (Failure::Transient("x".into()), Report::Transient { reason: "x".into() }),
        (Failure::OutOfMemory, Report::OutOfMemory),
        (Failure::InputLost(3), Report::InputLost { input: 3 }),
        (Failure::Permanent(long.clone()), Report::Permanent { reason: "ä".repeat(128) }),
    ];
    let mut bench = Bench::new();
    bench.join();
    for (number, (failure, report)) in (1..).zip(cases) {
        let attempt = AttemptId(number);
        bench.step(dispatch(number, Stage::Wrap, 10, SESSION));
        bench.step(Input::Fetched { attempt, result: Ok(()) });
        let actions = bench.step(Input::Ended { attempt, result: Err(failure) });
        assert_eq!(actions[0], Action::Seal { attempt, report, outcome: Outcome::Failed });
    }
    // A lost input is found before anything runs.
    let attempt = AttemptId(9);
    bench.step(dispatch(9, Stage::Wrap, 10, SESSION));
    let actions = bench.step(Input::Fetched { attempt, result: Err(FetchError::Lost(2)) });
    let report = Report::InputLost { input: 2 };
    assert_eq!(actions[0], Action::Seal { attempt, report, outcome: Outcome::Failed });
}

#[test]
fn tasks_that_can_never_run_here_are_handed_back_at_once() {
    let mut settings = settings();
    settings.profile.kinds = vec![Kind::Wrap];
    let mut bench = Bench::with(settings, Vec::new());
    bench.join();
    let actions = bench.step(dispatch(1, Stage::Groth16, 10, SESSION));
    assert!(
        matches!(&actions[..], [Action::Seal { report: Report::Transient { reason }, .. }] if reason.contains("groth16")),
        "{actions:?}"
    );
    let actions = bench.step(dispatch(2, Stage::Wrap, 101, SESSION));
    assert!(matches!(&actions[..], [Action::Seal { report: Report::OutOfMemory, .. }]), "{actions:?}");
    for attempt in 3..8 {
        bench.step(dispatch(attempt, Stage::Wrap, 1, SESSION));
    }
    let actions = bench.step(dispatch(8, Stage::Wrap, 1, SESSION));
    assert!(matches!(&actions[..], [Action::Seal { report: Report::Transient { .. }, .. }]), "{actions:?}");
}

#[test]
fn slots_and_memory_are_waited_for_and_devices_are_shared_out() {
    let mut bench = Bench::new();
    bench.join();
    assert_eq!(bench.step(dispatch(1, Stage::Wrap, 60, SESSION)), [Action::Fetch { attempt: AttemptId(1) }]);
    assert_eq!(bench.step(dispatch(2, Stage::Wrap, 60, SESSION)), [], "memory");
    assert_eq!(bench.step(dispatch(3, Stage::Wrap, 10, SESSION)), [], "behind it");
    assert_eq!(bench.state.running().len(), 3, "they are named");
    bench.step(Input::Fetched { attempt: AttemptId(1), result: Ok(()) });
    let actions = bench.step(Input::Ended { attempt: AttemptId(1), result: Ok(()) });
    let publish = Action::Publish { attempt: AttemptId(1) };
    let (two, three) = (AttemptId(2), AttemptId(3));
    assert_eq!(actions, [publish, Action::Fetch { attempt: two }, Action::Fetch { attempt: three }]);
    let actions = bench.step(Input::Fetched { attempt: three, result: Ok(()) });
    assert_eq!(actions, [Action::Run { attempt: three, device: Device::Gpu(1) }]);
    assert_eq!(bench.step(dispatch(4, Stage::Wrap, 1, SESSION)), [], "no third slot");
}

#[test]
fn a_controller_and_its_shard_share_a_worker_with_one_slot() {
    let mut settings = settings();
    settings.profile.slots = 1;
    let mut bench = Bench::with(settings, Vec::new());
    bench.join();
    bench.step(dispatch(1, Stage::Fold, 30, SESSION));
    let actions = bench.step(Input::Fetched { attempt: AttemptId(1), result: Ok(()) });
    assert_eq!(actions, [Action::Run { attempt: AttemptId(1), device: Device::Cpu }]);
    let shard = Stage::Shard { of: Parent::Fold, part: 0 };
    assert_eq!(bench.step(dispatch(2, shard, 60, SESSION)), [Action::Fetch { attempt: AttemptId(2) }]);
    assert_eq!(bench.step(dispatch(3, Stage::Fold, 1, SESSION)), [], "no second controller");
    assert_eq!(bench.step(dispatch(4, shard, 1, SESSION)), [], "no second slot");
}

#[test]
fn a_task_that_only_fits_after_a_controller_is_handed_back() {
    let mut bench = Bench::new();
    bench.join();
    bench.step(dispatch(1, Stage::Fold, 60, SESSION));
    let actions = bench.step(dispatch(2, Stage::Wrap, 60, SESSION));
    assert!(matches!(&actions[..], [Action::Seal { report: Report::Transient { .. }, .. }]), "{actions:?}");
    // Unless the controller is on its way out.
    bench.step(Input::Fetched { attempt: AttemptId(1), result: Ok(()) });
    assert_eq!(bench.step(revoke(1)), [Action::Stop { attempt: AttemptId(1) }]);
    assert_eq!(bench.step(dispatch(3, Stage::Wrap, 60, SESSION)), []);
    let actions = bench.step(Input::Ended { attempt: AttemptId(1), result: Err(Failure::Cancelled) });
    assert!(actions.contains(&Action::Fetch { attempt: AttemptId(3) }), "{actions:?}");
}

#[test]
fn a_task_taken_back_is_stopped_wherever_it_is() {
    let mut bench = Bench::new();
    bench.join();
    let attempt = AttemptId;
    // While it waits.
    for number in 1..=3 {
        bench.step(dispatch(number, Stage::Wrap, 1, SESSION));
    }
    assert_eq!(bench.step(revoke(3)), [Action::Clean { attempt: attempt(3) }]);
    // While its inputs come; nothing has run, so there is nothing to say.
    assert_eq!(bench.step(revoke(1)), [Action::Stop { attempt: attempt(1) }]);
    assert_eq!(bench.state.running(), [attempt(2)]);
    let actions = bench.step(Input::Fetched { attempt: attempt(1), result: Err(FetchError::Stopped) });
    assert_eq!(actions, [Action::Clean { attempt: attempt(1) }]);
    // While it runs: what it took is told once.
    bench.step(Input::Fetched { attempt: attempt(2), result: Ok(()) });
    assert_eq!(bench.step(revoke(2)), [Action::Stop { attempt: attempt(2) }]);
    assert_eq!(bench.refuse(revoke(2)), Refused::Repeated { attempt: attempt(2) });
    let actions = bench.step(Input::Ended { attempt: attempt(2), result: Err(Failure::Cancelled) });
    assert!(matches!(actions[..], [Action::Seal { outcome: Outcome::Cancelled, .. }]), "{actions:?}");
    let actions = bench.step(Input::Sealed { attempt: attempt(2) });
    let Action::Post { post, .. } = actions[0] else { panic!("{actions:?}") };
    let actions = bench.step(Input::Posted { post, result: Ok(()) });
    assert_eq!(actions, [Action::Clean { attempt: attempt(2) }]);
}

#[test]
fn a_task_taken_back_after_its_end_is_over() {
    let mut bench = Bench::new();
    bench.join();
    bench.step(dispatch(1, Stage::Wrap, 1, SESSION));
    bench.run(1);
    bench.publish(1);
    assert_eq!(bench.step(revoke(1)), [Action::Clean { attempt: AttemptId(1) }]);
    // The store says it before the mail does.
    bench.step(dispatch(2, Stage::Wrap, 1, SESSION));
    bench.run(2);
    let actions = bench.step(Input::Published { attempt: AttemptId(2), result: Err(PublishError::Revoked) });
    assert!(matches!(actions[..], [Action::Seal { outcome: Outcome::Cancelled, .. }]), "{actions:?}");
    assert_eq!(bench.state.running(), []);
}

#[test]
fn while_the_store_is_away_transfers_are_tried_ever_more_seldom_and_nothing_is_given_up() {
    let mut bench = Bench::new();
    bench.join();
    bench.step(dispatch(1, Stage::Wrap, 1, SESSION));
    let attempt = AttemptId(1);
    let mut waits = Vec::new();
    for _ in 0..20 {
        bench.step(Input::Fetched { attempt, result: Err(FetchError::Unavailable) });
        let since = bench.now;
        while !bench.wait(50).contains(&Action::Fetch { attempt }) {}
        waits.push(bench.now - since);
    }
    assert!(waits[0] <= 200 && waits[19] >= 7_000 && waits[19] <= 15_050, "{waits:?}");
    bench.run(1);
    for _ in 0..20 {
        bench.step(Input::Published { attempt, result: Err(PublishError::Unavailable) });
        while !bench.wait(50).contains(&Action::Publish { attempt }) {}
    }
    assert_eq!(results(&bench.publish(1)).len(), 1);
}

#[test]
fn a_disk_that_refuses_is_tried_a_few_times() {
    let mut bench = Bench::new();
    bench.join();
    bench.step(dispatch(1, Stage::Wrap, 1, SESSION));
    let attempt = AttemptId(1);
    for _ in 0..2 {
        bench.step(Input::Fetched { attempt, result: Err(FetchError::Local("disk full".into())) });
        while !bench.wait(50).contains(&Action::Fetch { attempt }) {}
    }
    let actions = bench.step(Input::Fetched { attempt, result: Err(FetchError::Local("disk full".into())) });
    let report = Report::Transient { reason: "disk full".into() };
    assert_eq!(actions[0], Action::Seal { attempt, report, outcome: Outcome::Failed });
}

#[test]
fn while_the_queue_is_away_one_message_at_a_time_is_tried_and_then_all_go() {
    let mut bench = Bench::new();
    bench.join();
    for attempt in 1..=2 {
        bench.step(dispatch(attempt, Stage::Wrap, 1, SESSION));
        bench.run(attempt);
    }
    let attempt = AttemptId;
    for number in 1..=2 {
        let attempt = attempt(number);
        bench.step(Input::Published { attempt, result: Ok(vec![output(7)]) });
    }
    let first = bench.step(Input::Sealed { attempt: attempt(1) });
    let second = bench.step(Input::Sealed { attempt: attempt(2) });
    let mut under_way = posts(&first);
    under_way.extend(posts(&second));
    assert_eq!(under_way.len(), 2);
    for post in under_way {
        assert_eq!(bench.step(Input::Posted { post, result: Err(PostError::Unavailable) }), []);
    }
    assert!(!bench.state.is_connected());
    let mut probes = 0;
    let until = bench.now + 600_000;
    while bench.now < until {
        let sent = posts(&bench.wait(100));
        assert!(sent.len() <= 1, "{sent:?}");
        for post in sent {
            probes += 1;
            bench.step(Input::Posted { post, result: Err(PostError::Unavailable) });
        }
    }
    assert!((40..120).contains(&probes), "{probes} in ten minutes, at most every 15 s");
    let mut actions = Vec::new();
    while posts(&actions).is_empty() {
        actions = bench.wait(100);
    }
    let mut told: Vec<u64> = results(&bench.post_all(actions)).into_iter().map(|(id, _)| id).collect();
    told.sort_unstable();
    assert_eq!(told, [1, 2]);
}

#[test]
fn a_worker_that_hears_nothing_registers_again_and_begins_anew_when_idle() {
    let mut bench = Bench::new();
    bench.join();
    bench.step(dispatch(1, Stage::Wrap, 1, SESSION));
    bench.run(1);
    let joins = |bench: &mut Bench, ms: u64| {
        let mut sessions = Vec::new();
        for _ in 0..ms / 500 {
            let actions = bench.wait(500);
            for event in bench.post_all(actions) {
                if let Event::Join { session, .. } = event {
                    sessions.push(session);
                }
            }
        }
        sessions
    };
    assert_eq!(joins(&mut bench, 1_200_000), [SESSION; 20], "busy: the same session");
    bench.publish(1);
    bench.step(closed(1));
    assert_eq!(joins(&mut bench, 599_000), [SESSION; 9], "idle, but something was heard");
    assert_eq!(joins(&mut bench, 2_000), [SESSION + 1]);
    assert!(matches!(bench.refuse(dispatch(4, Stage::Wrap, 1, SESSION)), Refused::Misdirected { .. }));
}

#[test]
fn a_new_session_voids_everything_of_the_old_one() {
    let mut bench = Bench::new();
    bench.join();
    for attempt in 1..=3 {
        bench.step(dispatch(attempt, Stage::Wrap, 1, SESSION));
    }
    bench.step(Input::Fetched { attempt: AttemptId(2), result: Ok(()) });
    bench.run(1);
    bench.publish(1);
    let actions = bench.step(Input::SessionOver { session: SESSION + 1 });
    let (one, two, three) = (AttemptId(1), AttemptId(2), AttemptId(3));
    for action in [
        Action::Clean { attempt: one },
        Action::Stop { attempt: two },
        Action::Stop { attempt: three },
        Action::Session { session: SESSION + 1 },
    ] {
        assert!(actions.contains(&action), "{action:?} is not in {actions:?}");
    }
    let events = bench.post_all(actions);
    assert!(matches!(events[0], Event::Join { session: 101, .. }), "{events:?}");
    assert!(matches!(bench.refuse(dispatch(4, Stage::Wrap, 1, SESSION)), Refused::Misdirected { .. }));
    let old = Refused::OldSession { have: 101, got: 101 };
    assert_eq!(bench.refuse(Input::SessionOver { session: 101 }), old);
}

#[test]
fn results_that_a_dead_process_has_left_are_published_and_reported() {
    let saved = |attempt, report| Saved { dispatch: crate::testing::dispatch(attempt, Stage::Wrap), report };
    let finished = Report::Finished { outputs: vec![output(7)] };
    let mut bench = Bench::with(settings(), vec![saved(1, Some(finished.clone())), saved(2, None)]);
    let actions = bench.step(Input::Tick);
    assert!(actions.contains(&Action::Publish { attempt: AttemptId(2) }), "{actions:?}");
    let events = bench.post_all(actions);
    assert!(matches!(events[0], Event::Join { .. }), "{events:?}");
    assert!(
        matches!(&events[1], Event::Heartbeat { running, .. } if *running == [AttemptId(1), AttemptId(2)]),
        "{events:?}"
    );
    assert_eq!(results(&events), [(1, finished.clone())]);
    assert_eq!(results(&bench.publish(2)), [(2, finished)]);
}

#[test]
fn a_part_is_published_asked_for_until_it_is_delivered_fetched_and_given() {
    let mut bench = Bench::new();
    bench.join();
    bench.step(dispatch(1, Stage::Fold, 1, SESSION));
    let (attempt, key) = (AttemptId(1), hash(50));
    let ask = || Input::Part { attempt, key, kind: Kind::Shard, units: 9 };
    assert_eq!(bench.refuse(ask()), Refused::Unexpected { attempt }, "it does not run yet");
    bench.step(Input::Fetched { attempt, result: Ok(()) });
    assert_eq!(bench.step(ask()), [Action::PublishPart { attempt, key, is_again: false }]);
    assert_eq!(bench.step(ask()), [], "asked for twice");
    assert_eq!(bench.refuse(deliver(1, key)), Refused::UnknownPart { attempt, part: key });
    let actions = bench.step(Input::PartPublished { attempt, key, result: Ok(vec![artifact(1, 8)]) });
    let mut events = bench.post_all(actions);
    let actions = bench.wait(120_000);
    events.extend(bench.post_all(actions));
    let asked = events.iter().filter_map(|event| match event {
        Event::Spawn { parts, .. } => Some(parts.clone()),
        _ => None,
    });
    let part = assay_schedule::Part { kind: Kind::Shard, key, inputs: vec![artifact(1, 8)], units: 9 };
    assert_eq!(asked.collect::<Vec<_>>(), [vec![part.clone()], vec![part]]);
    let outputs = vec![artifact(1001, 2)];
    assert_eq!(bench.step(deliver(1, key)), [Action::FetchPart { attempt, key, outputs: outputs.clone() }]);
    bench.step(Input::PartFetched { attempt, key, result: Err(FetchError::Unavailable) });
    assert_eq!(bench.refuse(deliver(1, key)), Refused::UnknownPart { attempt, part: key });
    let actions = bench.wait(1_000);
    assert!(actions.contains(&Action::FetchPart { attempt, key, outputs }), "{actions:?}");
    let actions = bench.step(Input::PartFetched { attempt, key, result: Ok(()) });
    assert_eq!(actions[0], Action::GivePart { attempt, key, error: None });
}

#[test]
fn parts_end_with_their_task_and_have_a_limit() {
    let mut bench = Bench::new();
    bench.join();
    bench.step(dispatch(1, Stage::Fold, 1, SESSION));
    let attempt = AttemptId(1);
    bench.step(Input::Fetched { attempt, result: Ok(()) });
    let ask = |byte| Input::Part { attempt, key: hash(byte), kind: Kind::Shard, units: 1 };
    for byte in 0..4 {
        let publish = Action::PublishPart { attempt, key: hash(byte), is_again: false };
        assert_eq!(bench.step(ask(byte)), [publish]);
    }
    let actions = bench.step(ask(9));
    assert!(matches!(&actions[..], [Action::GivePart { error: Some(_), .. }]), "{actions:?}");
    let actions = bench.step(revoke(1));
    let given = actions.iter().filter(|action| matches!(action, Action::GivePart { error: Some(_), .. }));
    assert_eq!(given.count(), 4);
    let late = Input::PartPublished { attempt, key: hash(0), result: Ok(vec![artifact(1, 1)]) };
    assert!(matches!(bench.refuse(late), Refused::UnknownPart { .. }));
}

#[test]
fn a_lost_result_of_a_part_is_told_and_a_lost_input_is_published_anew() {
    let mut bench = Bench::new();
    bench.join();
    bench.step(dispatch(1, Stage::Fold, 1, SESSION));
    let (attempt, key) = (AttemptId(1), hash(50));
    bench.step(Input::Fetched { attempt, result: Ok(()) });
    bench.step(Input::Part { attempt, key, kind: Kind::Shard, units: 9 });
    let actions = bench.step(Input::PartPublished { attempt, key, result: Ok(vec![artifact(1, 8)]) });
    bench.post_all(actions);
    bench.step(deliver(1, key));
    let actions = bench.step(Input::PartFetched { attempt, key, result: Err(FetchError::Lost(2)) });
    let events = bench.post_all(actions);
    assert!(matches!(events[..], [Event::PartLost { output: 2, .. }]), "{events:?}");
    // Proving it again finds an input lost too.
    let publish = Action::PublishPart { attempt, key, is_again: true };
    assert_eq!(bench.step(respawn(1, key)), std::slice::from_ref(&publish));
    assert_eq!(bench.refuse(respawn(1, key)), Refused::UnknownPart { attempt, part: key });
    bench.step(Input::PartPublished { attempt, key, result: Err(PublishError::Unavailable) });
    assert!(bench.wait(1_000).contains(&publish));
    let actions = bench.step(Input::PartPublished { attempt, key, result: Ok(vec![artifact(1, 8)]) });
    let events = bench.post_all(actions);
    assert!(matches!(&events[..], [Event::Spawn { .. }]), "{events:?}");
    bench.step(deliver(1, key));
    let actions = bench.step(Input::PartFetched { attempt, key, result: Ok(()) });
    assert_eq!(actions[0], Action::GivePart { attempt, key, error: None });
}

#[test]
fn what_is_no_part_is_refused_to_the_task() {
    let mut bench = Bench::new();
    bench.join();
    bench.step(dispatch(1, Stage::Fold, 1, SESSION));
    let attempt = AttemptId(1);
    bench.step(Input::Fetched { attempt, result: Ok(()) });
    let actions = bench.step(Input::Part { attempt, key: hash(1), kind: Kind::Wrap, units: 1 });
    assert!(
        matches!(&actions[..], [Action::GivePart { error: Some(PartError::Failed(_)), .. }]),
        "{actions:?}"
    );
}

#[test]
fn leaving_lets_running_tasks_end_hands_the_others_back_and_says_goodbye() {
    let mut bench = Bench::new();
    bench.join();
    for attempt in 1..=3 {
        bench.step(dispatch(attempt, Stage::Wrap, 1, SESSION));
    }
    bench.step(Input::Fetched { attempt: AttemptId(2), result: Ok(()) });
    assert_eq!(bench.step(Input::Leave), [Action::Clean { attempt: AttemptId(3) }]);
    assert!(matches!(bench.refuse(dispatch(4, Stage::Wrap, 1, SESSION)), Refused::Leaving { .. }));
    bench.run(1);
    assert_eq!(results(&bench.publish(1)).len(), 1);
    let actions = bench.wait(20_000);
    assert!(actions.contains(&Action::Stop { attempt: AttemptId(2) }), "{actions:?}");
    bench.post_all(actions);
    bench.step(Input::Ended { attempt: AttemptId(2), result: Err(Failure::Cancelled) });
    let actions = bench.step(Input::Sealed { attempt: AttemptId(2) });
    let events = bench.post_all(actions);
    assert!(matches!(events.last(), Some(Event::Leave { .. })), "{events:?}");
    assert!(bench.wait(1).contains(&Action::Exit));
}

#[test]
fn leaving_ends_in_time_even_without_a_queue_and_at_once_when_asked_twice() {
    let mut bench = Bench::new();
    bench.join();
    bench.step(dispatch(1, Stage::Wrap, 1, SESSION));
    bench.step(Input::Fetched { attempt: AttemptId(1), result: Ok(()) });
    bench.step(Input::Leave);
    let actions = bench.step(Input::Leave);
    assert!(actions.contains(&Action::Stop { attempt: AttemptId(1) }), "{actions:?}");
    let mut exited = false;
    for _ in 0..60 {
        let actions = bench.wait(100);
        for post in posts(&actions) {
            bench.step(Input::Posted { post, result: Err(PostError::Unavailable) });
        }
        exited |= actions.contains(&Action::Exit);
    }
    assert!(exited, "it hangs on a queue that is gone");
}
