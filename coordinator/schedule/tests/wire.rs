//! What goes over the wire, or into the log, comes back as it was.
#![allow(clippy::unwrap_used, reason = "a test may")]

use assay_schedule::sim::{record, Options};
use assay_schedule::{
    Action, Artifact, AttemptId, BatchId, ChainId, Dispatch, Effect, EffectId, Epoch, Event, Facts, Failure,
    Hash, Holder, Input, Kind, Machine, Message, Output, Parent, Part, Phase, Profile, Report, Role, Spec,
    Stage, TenantId, Time, Verdict, Work, WorkerId,
};
use serde::de::DeserializeOwned;
use serde::Serialize;

fn sound(seed: u64) -> Options {
    Options::sound(seed, 6)
}

fn round_trips<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *value, "{text}");
    let tree = serde_json::to_value(value).unwrap();
    assert_eq!(serde_json::from_value::<T>(tree).unwrap(), *value, "{text}");
    let bytes = bincode::serialize(value).unwrap();
    assert_eq!(bincode::deserialize::<T>(&bytes).unwrap(), *value);
}

fn hash(byte: u8) -> Hash {
    Hash([byte; 32])
}

fn artifact(number: u32) -> Artifact {
    Artifact { holder: Holder::Attempt(AttemptId(u64::MAX), number), hash: hash(0xfe), bytes: u64::MAX }
}

fn facts() -> Facts {
    Facts {
        chain: ChainId(1),
        sequence: 2,
        genesis: hash(1),
        from: hash(2),
        to: hash(3),
        payload: hash(4),
        version: 5,
        deadline: Some(Time(6)),
    }
}

fn spec() -> Spec {
    Spec {
        tenant: TenantId(1),
        key: "a \"key\" \u{0} ü".into(),
        chain: ChainId(2),
        sequence: 3,
        from: hash(4),
        to: hash(5),
        payload: hash(6),
        payload_bytes: 7,
        units: 8,
        version: 9,
        priority: 10,
        deadline: None,
        deadline_is_hard: true,
        intake: hash(11),
    }
}

fn reports() -> Vec<Report> {
    let reason = "out of\nluck".to_owned();
    vec![
        Report::Finished { outputs: vec![Output { hash: hash(1), bytes: 2, units: 3 }] },
        Report::Transient { reason: reason.clone() },
        Report::OutOfMemory,
        Report::InputLost { input: 4 },
        Report::Permanent { reason },
    ]
}

fn events() -> Vec<Event> {
    let (worker, session, attempt, effect) = (WorkerId(1), u64::MAX, AttemptId(3), EffectId(4));
    let part = Part { kind: Kind::Shard, key: hash(5), inputs: vec![artifact(1), artifact(2)], units: 6 };
    let profile =
        Profile { kinds: Kind::ALL.to_vec(), version: 1, memory_bytes: 2, slots: 3, controllers: 4 };
    let mut events = vec![
        Event::TakeOver { epoch: Epoch(1) },
        Event::Submit { spec: spec() },
        Event::Cancel { tenant: TenantId(1), batch: BatchId(2) },
        Event::Join { worker, session, profile },
        Event::Heartbeat { worker, session, running: vec![attempt] },
        Event::Leave { worker, session },
        Event::Spawn { worker, session, attempt, parts: vec![part] },
        Event::PartLost { worker, session, attempt, key: hash(7), output: 8 },
        Event::Verified { effect, verdict: Verdict::Read { hashes: vec![hash(9)], valid: true } },
        Event::Verified { effect, verdict: Verdict::Missing },
        Event::Verified { effect, verdict: Verdict::Incomparable { reason: "another build".into() } },
        Event::Settled { effect },
        Event::SettleFailed { effect, permanent: true, reason: "no funds".into() },
        Event::Done { effects: vec![effect, EffectId(5)] },
        Event::Store { available: true, full: false },
        Event::Tick,
    ];
    events.extend(reports().into_iter().map(|report| Event::Result { worker, session, attempt, report }));
    events
}

/// Does not compile when a variant is added, so that it is added to [`events`] too.
fn place(event: &Event) -> usize {
    match event {
        Event::TakeOver { .. } => 0,
        Event::Submit { .. } => 1,
        Event::Cancel { .. } => 2,
        Event::Join { .. } => 3,
        Event::Heartbeat { .. } => 4,
        Event::Leave { .. } => 5,
        Event::Result { .. } => 6,
        Event::Spawn { .. } => 7,
        Event::PartLost { .. } => 8,
        Event::Verified { .. } => 9,
        Event::Settled { .. } => 10,
        Event::SettleFailed { .. } => 11,
        Event::Done { .. } => 12,
        Event::Store { .. } => 13,
        Event::Tick => 14,
    }
}

fn phases() -> Vec<Phase> {
    let (stage, reason) = (Stage::Reduce { of: Parent::Block { run: 1 }, part: 2 }, "so".to_owned());
    let failures = vec![
        Failure::Rejected { stage, reason: reason.clone() },
        Failure::Poison { stage, reason: reason.clone() },
        Failure::Deadline { earliest: Time(1) },
        Failure::Predecessor { batch: BatchId(2) },
        Failure::Statement,
        Failure::Settlement { reason },
        Failure::History,
    ];
    let mut phases = vec![
        Phase::Proving,
        Phase::Checking,
        Phase::Proved,
        Phase::Settling,
        Phase::Refolding,
        Phase::Settled,
        Phase::Cancelled,
    ];
    phases.extend(failures.into_iter().map(Phase::Failed));
    phases
}

fn stages() -> Vec<Stage> {
    vec![
        Stage::Execute,
        Stage::Block { run: 1 },
        Stage::Shard { of: Parent::Block { run: 2 }, part: 3 },
        Stage::Reduce { of: Parent::Fold, part: 4 },
        Stage::Fold,
        Stage::Wrap,
        Stage::Groth16,
    ]
}

fn messages() -> Vec<Message> {
    let (worker, session, attempt, key) = (WorkerId(1), 2, AttemptId(3), hash(4));
    let roles = [
        Role::Payload,
        Role::Witness,
        Role::BlockProof { run: 1 },
        Role::PreviousFold,
        Role::FoldProof,
        Role::WrapProof,
        Role::Part,
    ];
    let inputs: Vec<Input> = roles.map(|role| Input { role, artifact: artifact(0) }).to_vec();
    let dispatch = |stage| {
        let (batch, inputs, facts) = (BatchId(5), inputs.clone(), facts());
        let dispatch = Dispatch {
            attempt,
            worker,
            session,
            batch,
            stage,
            key,
            inputs,
            units: 6,
            memory_bytes: 7,
            outputs_max: 8,
            facts,
        };
        Message::Dispatch(Box::new(dispatch))
    };
    let mut messages: Vec<Message> = stages().into_iter().map(dispatch).collect();
    messages.extend([
        Message::Deliver { worker, session, attempt, key, outputs: vec![artifact(0)] },
        Message::Respawn { worker, session, attempt, key },
        Message::Revoke { worker, session, attempt, is_wrong: false },
        Message::Revoke { worker, session, attempt, is_wrong: true },
    ]);
    messages.extend(phases().into_iter().map(|phase| Message::Notify { phase }));
    messages
}

fn work() -> Vec<Work> {
    let (attempt, artifact) = (AttemptId(1), artifact(2));
    let stage = Stage::Fold;
    vec![
        Work::Verify {
            attempt,
            stage,
            key: hash(3),
            inputs: vec![Input { role: Role::PreviousFold, artifact }],
            outputs: vec![artifact],
            facts: facts(),
        },
        Work::Audit { artifact, attempt },
        Work::Check { proof: artifact, facts: facts() },
        Work::Settle { chain: ChainId(4), sequence: 5, proof: artifact },
        Work::Release { artifacts: vec![artifact; 3] },
        Work::Fence { attempts: vec![attempt; 3] },
    ]
}

#[test]
fn every_event_and_effect_comes_back_from_json_and_bincode() {
    let events = events();
    let places: std::collections::BTreeSet<usize> = events.iter().map(place).collect();
    assert_eq!(places.len(), 15, "an example of every event");
    events.iter().for_each(round_trips);
    let actions = messages().into_iter().map(Action::Message).chain(work().into_iter().map(Action::Work));
    for action in actions {
        round_trips(&Effect { id: EffectId(u64::MAX), epoch: Epoch(2), batch: BatchId(3), action });
    }
}

#[test]
fn everything_that_a_simulation_says_comes_back_from_json_and_bincode() {
    let mut steps = 0;
    for seed in 0..12 {
        let tape = record(sound(seed)).unwrap();
        steps += tape.steps.len();
        for step in &tape.steps {
            round_trips(&step.event);
            step.effects.iter().for_each(round_trips);
        }
    }
    assert!(steps > 2_400, "{steps} steps are too few");
}

#[test]
fn a_log_replays_to_an_equal_machine_from_any_checkpoint() {
    for seed in 0..40 {
        let tape = record(sound(seed)).unwrap();
        let mut machine = tape.start.clone();
        let mut checkpoints = vec![(0, bincode::serialize(&machine).unwrap())];
        for (at, step) in (1..).zip(&tape.steps) {
            let effects = machine.step(step.event.clone(), step.at).expect("what was taken is taken again");
            assert_eq!(effects, step.effects, "seed {seed}, step {at}");
            if at % 97 == 0 {
                checkpoints.push((at, bincode::serialize(&machine).unwrap()));
            }
        }
        assert!(machine == tape.end, "seed {seed}: another machine");
        for (at, bytes) in checkpoints {
            let mut machine: Machine = bincode::deserialize(&bytes).unwrap();
            for step in &tape.steps[at..] {
                machine.step(step.event.clone(), step.at).unwrap();
            }
            assert!(machine == tape.end, "seed {seed}: another machine from checkpoint {at}");
        }
    }
}

#[test]
fn a_replay_that_leaves_out_an_event_gives_another_machine() {
    let tape = record(sound(0)).unwrap();
    let mut machine = tape.start.clone();
    let results = tape.steps.iter().map(|step| matches!(step.event, Event::Result { .. }));
    let left_out = results.into_iter().position(|is_result| is_result).unwrap();
    for (at, step) in tape.steps.iter().enumerate() {
        if at != left_out {
            let _ = machine.step(step.event.clone(), step.at);
        }
    }
    assert!(machine != tape.end);
}

#[test]
fn hashes_are_hexadecimal_where_people_read_them() {
    let text = serde_json::to_string(&hash(0xa7)).unwrap();
    assert_eq!(text, format!("\"{}\"", "a7".repeat(32)));
    for bad in [
        "\"\"",
        "\"a7\"",
        "7",
        "[1]",
        &format!("\"{}\"", "g7".repeat(32)),
        &format!("\"{}\"", "ä".repeat(32)),
    ] {
        assert!(serde_json::from_str::<Hash>(bad).is_err(), "{bad}");
    }
    assert_eq!(bincode::serialize(&hash(1)).unwrap().len(), 32);
}

#[test]
fn unknown_fields_are_refused() {
    let text = serde_json::to_string(&Event::Leave { worker: WorkerId(1), session: 2 }).unwrap();
    let more = text.replace("\"session\":2", "\"session\":2,\"also\":3");
    assert_ne!(text, more);
    assert!(serde_json::from_str::<Event>(&more).is_err());
}

#[test]
fn holders_have_the_names_that_the_store_knows() {
    assert_eq!(Holder::Attempt(AttemptId(17), 3).to_string(), "attempt/17/3");
    assert_eq!(Holder::Intake(hash(0xab)).to_string(), format!("intake/{}", "ab".repeat(32)));
}
