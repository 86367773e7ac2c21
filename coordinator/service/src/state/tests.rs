use assay_schedule::{
    Action, ChainId, Effect, Event, Hash, Message, Output, PerKind, Phase, Profile, Report, TenantId,
    Verdict, Work,
};

use assay_schedule::receipt::{worker_of, Receipt as SignedBody, ReceiptKey, Usage};
use ed25519_dalek::{Signer, SigningKey};

use super::*;
use crate::request::{Quota, RequestId, Submit};

fn limits() -> Limits {
    Limits { memory_bytes: PerKind([1; 7]), backoff_ms: 10, ..Limits::default() }
}

fn submit(key: &str) -> Submit {
    Submit {
        tenant: TenantId(1),
        key: key.into(),
        chain: ChainId(1),
        from: Hash([0; 32]),
        to: Hash([1; 32]),
        payload: Hash([9; 32]),
        payload_bytes: 100,
        units: 10,
        version: 1,
        priority: 100,
        deadline: None,
        deadline_is_hard: false,
        callback: None,
        quota: Quota { batches_max: 10, bytes_max: 10_000 },
        submission: (0, 0),
        is_stored: true,
    }
}

fn request(command: Command) -> Entry {
    Entry::Request(Request { id: RequestId(0, 0), command })
}

/// A state with a history of its own.
struct World {
    state: State,
    records: Vec<Record>,
    now: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::new(limits()).unwrap(), records: Vec::new(), now: 1000 };
        world.apply(Entry::Event(Event::TakeOver { epoch: Epoch(1) }));
        world
    }

    fn try_apply(&mut self, entry: Entry) -> Result<Applied, Error> {
        self.now += 10;
        let record = Record { at: Time(self.now), entry };
        let applied = self.state.apply(&record)?;
        self.records.push(record);
        Ok(applied)
    }

    fn apply(&mut self, entry: Entry) -> Applied {
        self.try_apply(entry).unwrap()
    }

    fn join(&mut self, worker: u64, session: u64) -> Applied {
        let profile =
            Profile { kinds: Kind::ALL.to_vec(), version: 1, memory_bytes: 100, slots: 4, controllers: 4 };
        self.apply(Entry::Event(Event::Join { worker: WorkerId(worker), session, profile }))
    }

    fn submit(&mut self, submit: Submit) -> (Outcome, Applied) {
        let mut applied = self.apply(request(Command::Submit(submit)));
        (applied.outcome.take().unwrap(), applied)
    }

    fn taken(&mut self, submit: Submit) -> Applied {
        let (outcome, applied) = self.submit(submit);
        outcome.unwrap();
        applied
    }

    /// Has the first task reported, and checked with `verdict`.
    fn execute(&mut self, effects: &[Effect], valid: bool) -> Applied {
        let dispatch = effects
            .iter()
            .find_map(|effect| match &effect.action {
                Action::Message(Message::Dispatch(dispatch)) => Some(dispatch.clone()),
                _ => None,
            })
            .expect("a task was sent");
        let report = Report::Finished { outputs: vec![Output { hash: Hash([3; 32]), bytes: 5, units: 1 }] };
        let (worker, session, attempt) = (dispatch.worker, dispatch.session, dispatch.attempt);
        let applied = self.apply(Entry::Event(Event::Result { worker, session, attempt, report }));
        let verify =
            applied.effects.iter().find(|effect| matches!(effect.action, Action::Work(Work::Verify { .. })));
        let effect = verify.expect("the result is verified").id;
        let verdict = Verdict::Read { hashes: vec![Hash([3; 32])], valid };
        self.apply(Entry::Event(Event::Verified { effect, verdict }))
    }
}

#[test]
fn the_same_records_give_the_same_state_also_over_a_checkpoint() {
    let mut world = World::new();
    world.join(1, 7);
    let submit = || Submit { callback: Some("https://example.com/".into()), ..submit("a") };
    let applied = world.taken(submit());
    world.execute(&applied.effects, true);
    world.taken(submit());
    world.apply(request(Command::Cancel { tenant: TenantId(1), batch: BatchId(0) }));
    for _ in 0..5 {
        world.apply(Entry::Event(Event::Tick));
    }
    for cut in 0..=world.records.len() {
        let mut state = State::new(limits()).unwrap();
        for (at, record) in world.records.iter().enumerate() {
            if at == cut {
                state = State::decode(&state.encode()).unwrap();
            }
            let record = decode_record(&encode_record(record)).unwrap();
            state.apply(&record).unwrap();
        }
        assert_eq!(state, world.state, "checkpoint before record {cut}");
    }
}

#[test]
fn a_refused_event_changes_nothing() {
    let mut world = World::new();
    world.join(1, 7);
    world.taken(submit("a"));
    let before = world.state.clone();
    let refused = [
        Entry::Event(Event::Leave { worker: WorkerId(1), session: 8 }),
        Entry::Event(Event::Done { effects: vec![EffectId(999)] }),
        Entry::Event(Event::TakeOver { epoch: Epoch(1) }),
    ];
    for entry in refused {
        assert!(world.try_apply(entry).is_err());
        assert_eq!(world.state, before);
    }
}

#[test]
fn attempts_are_told_apart_by_how_they_ended() {
    let mut world = World::new();
    world.join(1, 7);
    let applied = world.taken(submit("a"));
    let rejected = world.execute(&applied.effects, false);
    let states = |facts: &[Fact]| {
        facts
            .iter()
            .filter_map(|fact| match fact {
                Fact::Attempt { state, .. } => Some(*state),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(states(&rejected.facts), [AttemptState::Rejected]);
    // Its worker is silent for too long, while ticks go on.
    let mut ended = Vec::new();
    for _ in 0..60 {
        world.now += 1000;
        ended.extend(world.apply(Entry::Event(Event::Tick)).ended);
    }
    assert_eq!(ended, [(WorkerId(1), 7)]);
    let joined = world.join(1, 8);
    let accepted = world.execute(&joined.effects, true);
    assert_eq!(states(&accepted.facts), [AttemptState::Accepted]);
    let history = world.state.history(BatchId(0)).unwrap();
    // Once rejected, once lost with its worker.
    assert_eq!((history.accepted, history.retries, history.spans.len() > 1), (1, 2, true));
    let seqs: Vec<u64> = history.notices.iter().map(|notice| notice.seq).collect();
    assert_eq!(seqs, (1..=history.last_seq()).collect::<Vec<_>>());
}

#[test]
fn a_submission_lets_go_of_its_own_payload_unless_it_is_the_batch() {
    let mut world = World::new();
    let send =
        |key: &str, number: u64| Submit { from: Hash([5; 32]), submission: (0, number), ..submit(key) };
    let (outcome, applied) = world.submit(send("a", 1));
    assert!(outcome.is_ok() && applied.stale.is_empty());
    let gone = |applied: &Applied, sent: Submit| {
        assert_eq!(applied.stale, [StaleHold::Payload(sent.spec(0).holder())]);
    };
    // Does not continue the chain: its repetition, under way already, has a hold of its own.
    let refused = Submit { from: Hash([6; 32]), ..send("b", 2) };
    let (outcome, applied) = world.submit(refused.clone());
    assert!(matches!(outcome, Err(Refusal::Schedule(Error::State { .. }))), "{outcome:?}");
    gone(&applied, refused.clone());
    let retried = Submit { submission: (0, 3), chain: ChainId(2), ..refused.clone() };
    assert_ne!(retried.intake(), refused.intake());
    let (outcome, applied) = world.submit(retried.clone());
    assert!(outcome.is_ok() && applied.stale.is_empty());
    let holder = world.state.history(BatchId(1)).unwrap().spec.holder();
    assert_eq!(holder, retried.spec(0).holder(), "the batch names the submission that it was");
    // The key is in use: the live batch keeps its payload, the other one goes.
    let other = Submit { priority: 1, ..send("a", 4) };
    let (outcome, applied) = world.submit(other.clone());
    assert!(matches!(outcome, Err(Refusal::Schedule(Error::KeyReused { .. }))));
    gone(&applied, other);
    let (outcome, applied) = world.submit(send("a", 5));
    assert_eq!(outcome, Ok(Reply::Submitted { batch: BatchId(0), is_repeated: true }));
    gone(&applied, send("a", 5));
    // The very same one, delivered twice, is the batch.
    let (outcome, applied) = world.submit(send("a", 1));
    assert!(outcome.is_ok() && applied.stale.is_empty());
    let (outcome, _) = world.submit(Submit { chain: ChainId(3), payload_bytes: 9_950, ..submit("c") });
    assert_eq!(outcome, Err(Refusal::Quota { what: "bytes", max: 10_000 }));
    let (outcome, _) = world.submit(Submit { is_stored: false, ..send("d", 6) });
    assert_eq!(outcome, Err(Refusal::NotStored));
    // Ended: a repetition is granted, but its payload is of no use.
    world.apply(request(Command::Cancel { tenant: TenantId(1), batch: BatchId(0) }));
    let (outcome, applied) = world.submit(send("a", 7));
    assert_eq!(outcome, Ok(Reply::Submitted { batch: BatchId(0), is_repeated: true }));
    gone(&applied, send("a", 7));
}

#[test]
fn webhooks_are_tried_ever_more_seldom_until_they_are_delivered_or_given_up() {
    let mut world = World::new();
    let url = Some("https://example.com/".to_owned());
    world.taken(Submit { callback: url, ..submit("a") });
    world.apply(request(Command::Cancel { tenant: TenantId(1), batch: BatchId(0) }));
    let due = |world: &World| world.state.callbacks().next().map(|(_, callback)| callback.due.0);
    assert_eq!(due(&world), Some(world.now));
    for tries in 1..webhook::TRIES_MAX {
        world.apply(Entry::Called { batch: BatchId(0), is_delivered: false });
        assert_eq!(due(&world), Some(world.now + webhook::wait_ms(tries)));
    }
    world.apply(Entry::Called { batch: BatchId(0), is_delivered: false });
    assert_eq!(due(&world), None);
    let applied = world.apply(Entry::Called { batch: BatchId(0), is_delivered: true });
    assert!(applied.facts.is_empty(), "an answer that nobody waits for");
}

#[test]
fn sessions_end_when_another_begins_and_their_mailboxes_go_later() {
    let mut world = World::new();
    assert!(world.join(1, 7).ended.is_empty());
    assert!(world.join(1, 7).ended.is_empty(), "a repetition");
    assert_eq!(world.join(1, 8).ended, [(WorkerId(1), 7)]);
    let left = world.apply(Entry::Event(Event::Leave { worker: WorkerId(1), session: 8 }));
    assert_eq!(left.ended, [(WorkerId(1), 8)]);
    assert!(world.apply(Entry::Event(Event::Tick)).removed.is_empty());
    world.now += OVER_MS;
    assert_eq!(world.apply(Entry::Event(Event::Tick)).removed, [(WorkerId(1), 7), (WorkerId(1), 8)]);
    assert!(world.apply(Entry::Event(Event::Tick)).removed.is_empty());
}

/// A key from one byte, and the number of its worker.
struct Key(SigningKey);

impl Key {
    fn new(seed: u8) -> Self {
        Self(SigningKey::from_bytes(&[seed; 32]))
    }

    fn worker(&self) -> WorkerId {
        worker_of(&self.public())
    }
}

impl ReceiptKey for Key {
    fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// What a worker signs.
fn signed(key: &Key, attempt: u64, device: &str) -> serde_json::Value {
    let usage =
        Usage { cpu_ms: 5, gpu_ms: 99_999, gpu_retries: 2, gpu_fallbacks: 99_999, ..Usage::default() };
    let receipt = SignedBody {
        worker: key.worker(),
        batch: BatchId(0),
        attempt: AttemptId(attempt),
        key: Hash([1; 32]),
        kind: Kind::Execute,
        outcome: assay_schedule::receipt::Outcome::Finished,
        inputs: Vec::new(),
        outputs: Vec::new(),
        device: device.into(),
        build: "b".into(),
        usage,
    };
    serde_json::to_value(receipt.sign(key).unwrap()).unwrap()
}

#[test]
fn a_receipt_counts_only_with_the_signature_of_the_worker_that_it_names() {
    let (key, other) = (Key::new(1), Key::new(2));
    let good = signed(&key, 3, "sim");
    let read = Receipt::read(good.clone()).unwrap();
    assert_eq!((read.worker, read.attempt, read.gpu_ms), (key.worker(), AttemptId(3), 99_999));
    let foreign = signed(&other, 3, "sim");
    for (what, at, with) in [
        ("another device", "/receipt/device", serde_json::json!("other")),
        ("more time", "/receipt/usage/gpu_ms", serde_json::json!(100_000)),
        ("fewer faults", "/receipt/usage/gpu_retries", serde_json::json!(0)),
        ("another attempt", "/receipt/attempt", serde_json::json!(4)),
        ("another worker", "/receipt/worker", serde_json::json!(other.worker())),
        ("no signature", "/signature", serde_json::json!("00".repeat(64))),
        ("another one's signature", "/signature", foreign["signature"].clone()),
        ("another one's key", "/public_key", foreign["public_key"].clone()),
        ("no text", "/signature", serde_json::json!(7)),
    ] {
        let mut forged = good.clone();
        *forged.pointer_mut(at).unwrap() = with;
        assert_eq!(Receipt::read(forged), None, "{what}");
    }
}

#[test]
fn receipts_are_kept_until_they_are_a_file_and_only_of_attempts_that_there_were() {
    let mut world = World::new();
    let (key, other) = (Key::new(1), Key::new(2));
    world.join(key.worker().0, 7);
    let applied = world.taken(submit("a"));
    let attempt = world.state.history(BatchId(0)).unwrap().spans[0].attempt;
    let receipt = |key: &Key, attempt: u64, device: &str| {
        Entry::Receipt(Receipt::read(signed(key, attempt, device)).unwrap())
    };
    assert!(world.apply(receipt(&other, attempt.0, "sim")).facts.is_empty(), "another worker's attempt");
    let kept = world.apply(receipt(&key, attempt.0, "sim"));
    // 20 ms after the dispatch, 16 devices cannot have been busy for longer, nor have failed at so much.
    let device = "sim".into();
    let told = Fact::Usage { device, gpu_ms: 320, cpu_ms: 5, gpu_retries: 2, gpu_fallbacks: 64 };
    assert_eq!(kept.facts, [told]);
    for repeated in [receipt(&key, attempt.0, "other"), receipt(&key, attempt.0 + 1000, "sim")] {
        assert!(world.apply(repeated).facts.is_empty());
    }
    world.execute(&applied.effects, true);
    assert_eq!(world.state.unbundled().count(), 0);
    world.apply(request(Command::Cancel { tenant: TenantId(1), batch: BatchId(0) }));
    assert_eq!(world.state.unbundled().collect::<Vec<_>>(), [BatchId(0)]);
    let bundle: serde_json::Value = serde_json::from_slice(&world.state.bundle(BatchId(0)).unwrap()).unwrap();
    assert_eq!(bundle["accepted"], serde_json::json!([attempt.0]));
    assert_eq!(bundle["receipts"][0]["receipt"]["device"], "sim");
    let file = ResultFile { name: RECEIPTS_FILE.into(), hash: Hash([1; 32]), bytes: 1 };
    world.apply(Entry::Files { batch: BatchId(0), files: vec![file] });
    assert_eq!((world.state.unbundled().count(), world.state.receipt_bytes), (0, 0));
}

#[test]
fn phases_end_a_history_once() {
    let mut world = World::new();
    world.taken(submit("a"));
    let ended = world.apply(request(Command::Cancel { tenant: TenantId(1), batch: BatchId(0) }));
    assert!(ended.facts.contains(&Fact::Ended { phase: "cancelled", elapsed_ms: 10 }));
    let history = world.state.history(BatchId(0)).unwrap();
    assert_eq!((history.phase.clone(), history.ended), (Phase::Cancelled, Some(Time(world.now))));
}

#[test]
fn states_of_other_formats_are_refused() {
    let mut bytes = World::new().state.encode();
    assert_eq!(State::decode(&bytes).unwrap(), World::new().state);
    bytes[0] = 1;
    assert!(matches!(State::decode(&bytes), Err(StateError::Format { got: 1 })));
    for format in [2, 3, 4] {
        assert!(matches!(State::decode(&[format, 0]), Err(StateError::Checkpoint(_))));
        assert!(matches!(State::decode(&[format, 0, 0, 0]), Err(StateError::Checkpoint(_))));
        assert!(matches!(State::decode(&[format, 0, 0, 0, 5]), Err(StateError::Checkpoint(_))));
    }
}

#[test]
fn a_state_from_before_there_were_ledgers_or_lost_devices_has_none() {
    let mut world = World::new();
    world.taken(submit("a"));
    let bytes = world.state.encode();
    for (format, missing) in [(3, 8), (2, 9)] {
        let older = [&[format, 0, 0, 0][..], &bytes[4..bytes.len() - missing]].concat();
        assert_eq!(State::decode(&older).unwrap(), world.state, "format {format}");
    }
}

#[test]
fn lost_devices_are_known_until_their_worker_says_again_who_it_is() {
    let mut world = World::new();
    world.join(1, 7);
    let worker = WorkerId(1);
    let health = |worker, lost: &[&str]| {
        Entry::Health(Health { worker, lost: lost.iter().map(|text| (*text).to_owned()).collect() })
    };
    let about = || {
        let (name, build) = ("w".to_owned(), String::new());
        Entry::About(About { worker, name, devices: vec!["H".into()], build })
    };
    world.apply(about());
    assert_eq!(world.state.lost(worker), <[String; 0]>::default());
    world.apply(health(worker, &["GPU 1: lost\n", &"x".repeat(1000)]));
    assert_eq!(world.state.lost(worker), ["GPU 1: lost".to_owned(), "x".repeat(256)]);
    assert_eq!(State::decode(&world.state.encode()).unwrap(), world.state);
    // One that is not here says nothing.
    world.apply(health(WorkerId(2), &["GPU 0: lost"]));
    assert_eq!(world.state.lost(WorkerId(2)), <[String; 0]>::default());
    world.apply(about());
    assert_eq!(world.state.lost(worker), <[String; 0]>::default());
}

#[test]
fn the_first_ledger_holds_for_ever() {
    let mut world = World::new();
    let ledger = |number: u8| Ledger { id: Hash([number; 32]), place: format!("folder {number}") };
    assert_eq!(world.state.ledger(), None);
    world.apply(Entry::Ledger(ledger(1)));
    world.apply(Entry::Ledger(ledger(2)));
    assert_eq!(world.state.ledger(), Some(&ledger(1)));
    assert_eq!(State::decode(&world.state.encode()).unwrap(), world.state);
}

#[test]
fn time_goes_on_at_half_speed_after_a_leader_whose_clock_was_ahead() {
    const HOUR: u64 = 3_600_000;
    for (first, second) in [(HOUR, 0), (0, HOUR)] {
        let mut world = World::new();
        world.now = 10 * HOUR + first;
        world.apply(Entry::Event(Event::Tick));
        let before = world.state.now();
        assert_eq!(before, Time(world.now));
        world.now = 10 * HOUR + second;
        world.apply(Entry::Event(Event::TakeOver { epoch: Epoch(2) }));
        let taken = world.state.now();
        for _ in 0..60 {
            world.now += 990;
            world.apply(Entry::Event(Event::Tick));
            // What the schedule is not told of does not move its clock.
            let called = Entry::Called { batch: BatchId(9), is_delivered: true };
            world.apply(called);
        }
        let passed = world.state.now().since(taken);
        let real = 60 * (990 + 20);
        match first > second {
            true => {
                assert!(passed.abs_diff(real / 2) < 100 && taken.since(before) < 100, "{passed} of {real}")
            }
            false => assert!(passed.abs_diff(real) < 100 && taken == Time(10 * HOUR + HOUR + 10), "{passed}"),
        }
    }
}
