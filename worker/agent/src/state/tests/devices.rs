//! Devices that fail, go and come back.

use super::*;

const GPUS: [Device; 2] = [Device::Gpu(0), Device::Gpu(1)];

fn sticky() -> DeviceFault {
    DeviceFault::Sticky("illegal access".into())
}

fn lost() -> DeviceFault {
    DeviceFault::Lost("off the bus".into())
}

fn revoke_wrong(attempt: u64) -> Input {
    let attempt = AttemptId(attempt);
    message(Message::Revoke { attempt, worker: WORKER, session: SESSION, is_wrong: true })
}

fn run_on(attempt: u64, gpu: usize) -> Action {
    Action::Run { attempt: AttemptId(attempt), device: GPUS[gpu] }
}

impl Bench {
    fn joined() -> Self {
        let mut bench = Self::new();
        bench.join();
        bench
    }

    /// A task of its own key that runs; returns the device.
    fn start(&mut self, attempt: u64) -> Device {
        self.step(dispatch(attempt, Stage::Wrap, 10, SESSION));
        let actions = self.step(Input::Fetched { attempt: AttemptId(attempt), result: Ok(()) });
        match actions[..] {
            [Action::Run { device, .. }] => device,
            _ => panic!("{actions:?}"),
        }
    }

    fn fail(&mut self, attempt: u64, fault: DeviceFault) -> Vec<Action> {
        self.step(Input::Ended { attempt: AttemptId(attempt), result: Err(Failure::Device(fault)) })
    }
}

fn report_of(actions: &[Action]) -> Option<&Report> {
    actions.iter().find_map(|action| match action {
        Action::Seal { report, .. } => Some(report),
        _ => None,
    })
}

fn transient(actions: &[Action]) -> &str {
    match report_of(actions) {
        Some(Report::Transient { reason }) => reason,
        other => panic!("{other:?} of {actions:?}"),
    }
}

/// Slots that the leader is told of.
fn told(actions: &[Action]) -> Option<u32> {
    actions.iter().find_map(|action| match action {
        Action::Post { event: Event::Join { profile, session: SESSION, .. }, .. } => Some(profile.slots),
        _ => None,
    })
}

fn taken_out(actions: &[Action]) -> Option<Device> {
    actions.iter().find_map(|action| match action {
        Action::Health { device, fault: Some(_) } => Some(*device),
        _ => None,
    })
}

#[test]
fn a_failed_allocation_is_the_tasks_matter_alone() {
    let mut bench = Bench::joined();
    for attempt in 1..=10 {
        assert_eq!(bench.start(attempt), GPUS[0]);
        let actions = bench.fail(attempt, DeviceFault::Allocation);
        assert_eq!(report_of(&actions), Some(&Report::OutOfMemory));
        assert_eq!(taken_out(&actions), None);
        bench.step(Input::Sealed { attempt: AttemptId(attempt) });
    }
    assert_eq!(bench.state.out().count(), 0);
}

#[test]
fn after_a_sticky_error_a_task_is_begun_again_once_in_its_slot() {
    let mut bench = Bench::joined();
    bench.start(1);
    assert_eq!(bench.fail(1, sticky()), [run_on(1, 0)]);
    // It still has its slot.
    assert_eq!(bench.start(2), GPUS[1]);
    let actions = bench.fail(1, sticky());
    assert_eq!(transient(&actions), "device 0: sticky error: illegal access");
    assert_eq!(taken_out(&actions), None, "one task may itself be the reason");
    // The other try works.
    bench.start(3);
    bench.fail(3, sticky());
    let attempt = AttemptId(3);
    assert_eq!(bench.step(Input::Ended { attempt, result: Ok(()) }), [Action::Publish { attempt }]);
}

#[test]
fn a_task_that_is_not_wanted_any_more_is_not_begun_again() {
    let mut bench = Bench::joined();
    bench.start(1);
    assert_eq!(bench.step(revoke(1)), [Action::Stop { attempt: AttemptId(1) }]);
    let actions = bench.fail(1, sticky());
    assert_eq!(transient(&actions), "taken back");
}

#[test]
fn a_device_that_fails_three_tasks_in_a_row_is_taken_out_and_one_task_that_fails_often_is_no_reason() {
    let mut bench = Bench::joined();
    for attempt in 1..=3 {
        // The same task: its key follows from the attempt modulo 256.
        bench.start(1 + 256 * attempt);
        let hung = DeviceFault::Hung("it says nothing".into());
        assert_eq!(taken_out(&bench.fail(1 + 256 * attempt, hung)), None);
    }
    bench.start(2);
    bench.fail(2, sticky());
    // A task that ends well in between shows that it works.
    bench.step(Input::Ended { attempt: AttemptId(2), result: Ok(()) });
    for attempt in 3..=5 {
        assert_eq!(bench.start(attempt), GPUS[0]);
        let actions = bench.fail(attempt, DeviceFault::Hung("it says nothing".into()));
        assert_eq!(taken_out(&actions), (attempt == 5).then_some(GPUS[0]), "task {attempt}");
    }
    assert_eq!(bench.start(6), GPUS[1]);
}

#[test]
fn a_lost_device_takes_its_slot_along_and_the_others_go_on() {
    let mut bench = Bench::joined();
    bench.start(1);
    bench.start(2);
    let actions = bench.fail(1, lost());
    assert_eq!(transient(&actions), "device 0: lost: off the bus");
    assert_eq!((taken_out(&actions), told(&actions)), (Some(GPUS[0]), Some(1)));
    assert_eq!(bench.state.out().map(|(device, _)| device).collect::<Vec<_>>(), [GPUS[0]]);
    // One that was on its way waits for the device that is left.
    assert_eq!(bench.step(dispatch(3, Stage::Wrap, 10, SESSION)), []);
    let actions = bench.step(Input::Ended { attempt: AttemptId(2), result: Ok(()) });
    assert!(actions.contains(&Action::Fetch { attempt: AttemptId(3) }), "{actions:?}");
    let actions = bench.step(Input::Fetched { attempt: AttemptId(3), result: Ok(()) });
    assert_eq!(actions, [run_on(3, 1)]);
}

#[test]
fn the_leader_is_told_of_a_lost_device_until_the_inbox_has_it() {
    let mut bench = Bench::joined();
    bench.start(1);
    let actions = bench.fail(1, lost());
    let [post] = posts(&actions)[..] else { panic!("{actions:?}") };
    bench.step(Input::Posted { post, result: Err(PostError::Unavailable) });
    // Mail meanwhile does not make it forget.
    bench.step(dispatch(2, Stage::Wrap, 10, SESSION));
    let actions = bench.wait(20_000);
    assert_eq!(told(&actions), Some(1));
    bench.post_all(actions);
    assert_eq!(told(&bench.wait(1_000)), None, "told once");
}

#[test]
fn a_task_whose_device_goes_while_its_inputs_come_takes_another_slot() {
    let mut bench = Bench::joined();
    bench.start(1);
    bench.step(Input::Ended { attempt: AttemptId(1), result: Ok(()) });
    let attempt = AttemptId(2);
    bench.step(dispatch(2, Stage::Wrap, 10, SESSION));
    assert_eq!(taken_out(&bench.step(revoke_wrong(1))), Some(GPUS[0]));
    assert_eq!(bench.step(Input::Fetched { attempt, result: Ok(()) }), [Action::Fetch { attempt }]);
    assert_eq!(bench.step(Input::Fetched { attempt, result: Ok(()) }), [run_on(2, 1)]);
}

#[test]
fn what_else_runs_on_a_device_that_is_taken_out_is_given_back() {
    let settings = Settings { profile: Profile { slots: 4, ..settings().profile }, ..settings() };
    let mut bench = Bench::with(settings, Vec::new());
    bench.join();
    let devices: Vec<Device> = (1..=4).map(|attempt| bench.start(attempt)).collect();
    assert_eq!(devices, [GPUS[0], GPUS[1], GPUS[0], GPUS[1]]);
    let actions = bench.fail(1, lost());
    assert_eq!(told(&actions), Some(2));
    let stopped: Vec<&Action> =
        actions.iter().filter(|action| matches!(action, Action::Stop { .. })).collect();
    assert_eq!(stopped, [&Action::Stop { attempt: AttemptId(3) }]);
    let actions = bench.step(Input::Ended { attempt: AttemptId(3), result: Err(Failure::Cancelled) });
    assert_eq!(transient(&actions), "its device was taken out of service");
}

#[test]
fn a_lost_device_is_looked_for_ever_more_seldom_and_comes_back_with_its_slot() {
    let mut bench = Bench::joined();
    bench.start(1);
    let actions = bench.fail(1, lost());
    bench.post_all(actions);
    let device = GPUS[0];
    assert_eq!(
        bench.refuse(Input::Checked { device, is_there: true }),
        Refused::UnknownDevice { device },
        "nobody has asked"
    );
    let mut waits = Vec::new();
    for is_there in [false, false, true] {
        let begun = bench.now;
        let asked = (0..300).any(|_| {
            let actions = bench.wait(1_000);
            let asks = actions.contains(&Action::Check { device });
            bench.post_all(actions);
            asks
        });
        assert!(asked);
        waits.push(bench.now - begun);
        let actions = bench.step(Input::Checked { device, is_there });
        assert_eq!(told(&actions), is_there.then_some(2));
    }
    // With jitter, between half and the whole of one, two and four minutes.
    for (waited, minutes) in waits.iter().zip([1, 2, 4]) {
        assert!((29_000 * minutes..=62_000 * minutes).contains(waited), "{waits:?}");
    }
    assert_eq!(bench.state.out().count(), 0);
    assert_eq!(bench.start(2), GPUS[0]);
    assert_eq!(bench.start(3), GPUS[1]);
}

#[test]
fn a_device_that_computes_wrongly_is_taken_out_for_good() {
    let mut bench = Bench::joined();
    bench.start(1);
    let actions = bench.fail(1, DeviceFault::Wrong("the MSM is not the CPU's".into()));
    assert_eq!(told(&actions), Some(1));
    bench.post_all(actions);
    for _ in 0..100 {
        let actions = bench.wait(3_600_000);
        assert!(!actions.iter().any(|action| matches!(action, Action::Check { .. })));
        bench.post_all(actions);
    }
    assert_eq!(bench.state.out().count(), 1);
}

#[test]
fn the_device_of_a_result_that_the_leader_refuses_is_taken_out_also_after_it_was_closed() {
    let mut bench = Bench::joined();
    bench.start(1);
    bench.step(Input::Ended { attempt: AttemptId(1), result: Ok(()) });
    bench.publish(1);
    bench.step(closed(1));
    assert_eq!(bench.start(2), GPUS[0]);
    let actions = bench.step(revoke_wrong(1));
    assert_eq!((taken_out(&actions), told(&actions)), (Some(GPUS[0]), Some(1)));
    assert!(actions.contains(&Action::Stop { attempt: AttemptId(2) }), "{actions:?}");
    assert_eq!(bench.refuse(revoke_wrong(9)), Refused::Unknown { attempt: AttemptId(9) });
    // The last one stays: then the leader's quarantine of this worker is that of the device.
    assert_eq!(bench.start(3), GPUS[1]);
    bench.step(Input::Ended { attempt: AttemptId(3), result: Ok(()) });
    bench.publish(3);
    assert_eq!(taken_out(&bench.step(revoke_wrong(3))), None);
    assert_eq!(bench.start(4), GPUS[1]);
}

#[test]
fn without_devices_a_worker_still_controls_and_gives_everything_else_back() {
    let mut bench = Bench::joined();
    for attempt in [1, 2] {
        bench.start(attempt);
    }
    bench.step(dispatch(3, Stage::Wrap, 10, SESSION));
    bench.fail(1, lost());
    let actions = bench.fail(2, lost());
    assert!(!bench.state.is_useless());
    let reasons: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Seal { attempt, report: Report::Transient { reason }, .. } => {
                Some((attempt.0, reason.as_str()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [(3, "no device is left here"), (2, "device 1: lost: off the bus")]);
    let actions = bench.step(dispatch(4, Stage::Wrap, 10, SESSION));
    assert_eq!(transient(&actions), "no device is left here");
    let actions = bench.step(dispatch(5, Stage::Fold, 10, SESSION));
    assert_eq!(actions, [Action::Fetch { attempt: AttemptId(5) }]);
}

#[test]
fn a_worker_that_has_no_place_left_leaves_when_its_results_are_told() {
    let settings = Settings { profile: Profile { controllers: 0, ..settings().profile }, ..settings() };
    let mut bench = Bench::with(settings, Vec::new());
    bench.join();
    bench.start(1);
    bench.start(2);
    let mut events = Vec::new();
    for attempt in [1, 2] {
        let actions = bench.fail(attempt, lost());
        events.extend(bench.post_all(actions));
    }
    assert!(bench.state.is_useless());
    for attempt in [1, 2] {
        let actions = bench.step(Input::Sealed { attempt: AttemptId(attempt) });
        events.extend(bench.post_all(actions));
    }
    let actions = bench.wait(100);
    events.extend(bench.post_all(actions));
    assert!(events.iter().any(|event| matches!(event, Event::Leave { .. })), "{events:?}");
    assert!(bench.wait(100).contains(&Action::Exit));
}

#[test]
fn the_processor_is_never_taken_out() {
    let settings = Settings { devices: vec![Device::Cpu], ..settings() };
    let mut bench = Bench::with(settings, Vec::new());
    bench.join();
    for attempt in 1..=9 {
        assert_eq!(bench.start(attempt), Device::Cpu);
        assert_eq!(transient(&bench.fail(attempt, lost())), "device cpu: lost: off the bus");
    }
    assert_eq!(bench.state.out().count(), 0);
}
