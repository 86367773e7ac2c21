use std::collections::{BTreeMap, BTreeSet, VecDeque};

use assay_schedule::{BatchId, Effect, EffectId, Epoch, Holder, Parent, Stage};

use super::*;

mod devices;
mod flows;
mod properties;

const SESSION: u64 = 100;
const WORKER: WorkerId = WorkerId(5);

fn settings() -> Settings {
    Settings {
        worker: WORKER,
        session: SESSION,
        profile: Profile {
            kinds: Kind::ALL.to_vec(),
            version: 1,
            memory_bytes: 100,
            slots: 2,
            controllers: 1,
        },
        devices: vec![Device::Gpu(0), Device::Gpu(1)],
        waiting_max: 3,
        parts_max: 4,
        reports_max: 3,
        times: Times::default(),
        seed: 1,
    }
}

fn hash(byte: u8) -> Hash {
    Hash([byte; 32])
}

fn output(byte: u8) -> Output {
    Output { hash: hash(byte), bytes: 1, units: 1 }
}

fn artifact(attempt: u64, byte: u8) -> Artifact {
    Artifact { holder: Holder::Attempt(AttemptId(attempt), 0), hash: hash(byte), bytes: 1 }
}

fn message(message: Message) -> Input {
    let action = assay_schedule::Action::Message(message);
    let effect = Effect { id: EffectId(1), epoch: Epoch(1), batch: BatchId(1), action };
    Input::Mail(Mail::Effect(Box::new(effect)))
}

fn dispatch(attempt: u64, stage: Stage, memory_bytes: u64, session: u64) -> Input {
    let mut dispatch = crate::testing::dispatch(attempt, stage);
    dispatch.memory_bytes = memory_bytes;
    dispatch.session = session;
    message(Message::Dispatch(Box::new(dispatch)))
}

fn revoke_in(session: u64, attempt: u64) -> Input {
    message(Message::Revoke { attempt: AttemptId(attempt), worker: WORKER, session, is_wrong: false })
}

fn revoke(attempt: u64) -> Input {
    revoke_in(SESSION, attempt)
}

fn deliver_in(session: u64, attempt: u64, key: Hash) -> Input {
    let outputs = vec![artifact(attempt + 1000, 2)];
    message(Message::Deliver { worker: WORKER, session, attempt: AttemptId(attempt), key, outputs })
}

fn deliver(attempt: u64, key: Hash) -> Input {
    deliver_in(SESSION, attempt, key)
}

fn respawn_in(session: u64, attempt: u64, key: Hash) -> Input {
    message(Message::Respawn { worker: WORKER, session, attempt: AttemptId(attempt), key })
}

fn respawn(attempt: u64, key: Hash) -> Input {
    respawn_in(SESSION, attempt, key)
}

fn closed(attempt: u64) -> Input {
    Input::Mail(Mail::Answer(Answer::Closed { attempt: AttemptId(attempt) }))
}

/// A state with the time, and what it has asked for.
struct Bench {
    state: State,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(settings(), Vec::new())
    }

    fn with(settings: Settings, saved: Vec<Saved>) -> Self {
        Self { state: State::new(settings, saved, 0), now: 0 }
    }

    fn step(&mut self, input: Input) -> Vec<Action> {
        self.state.step(input, self.now).unwrap()
    }

    fn refuse(&mut self, input: Input) -> Refused {
        let before = self.state.clone();
        let refused = self.state.step(input, self.now).unwrap_err();
        assert_eq!(self.state, before, "a refused input has changed something");
        refused
    }

    fn wait(&mut self, ms: u64) -> Vec<Action> {
        self.now += ms;
        self.step(Input::Tick)
    }

    /// Puts all posts of these actions into the inbox, and those that follow; returns their events.
    fn post_all(&mut self, actions: Vec<Action>) -> Vec<Event> {
        let mut queue: VecDeque<Action> = actions.into();
        let mut events = Vec::new();
        while let Some(action) = queue.pop_front() {
            if let Action::Post { post, event } = action {
                events.push(event);
                queue.extend(self.step(Input::Posted { post, result: Ok(()) }));
            }
        }
        events
    }

    /// Registers.
    fn join(&mut self) {
        let actions = self.step(Input::Tick);
        assert!(matches!(actions[..], [Action::Post { event: Event::Join { .. }, .. }]), "{actions:?}");
        let events = self.post_all(actions);
        assert!(matches!(events[1], Event::Heartbeat { .. }), "{events:?}");
    }

    /// Brings an attempt that was just dispatched to its end.
    fn run(&mut self, attempt: u64) {
        let attempt = AttemptId(attempt);
        self.step(Input::Fetched { attempt, result: Ok(()) });
        let actions = self.step(Input::Ended { attempt, result: Ok(()) });
        assert!(actions.contains(&Action::Publish { attempt }), "{actions:?}");
    }

    /// Publishes and seals, and returns what is posted.
    fn publish(&mut self, attempt: u64) -> Vec<Event> {
        let attempt = AttemptId(attempt);
        let actions = self.step(Input::Published { attempt, result: Ok(vec![output(7)]) });
        assert!(matches!(actions[..], [Action::Seal { .. }, ..]), "{actions:?}");
        let actions = self.step(Input::Sealed { attempt });
        self.post_all(actions)
    }
}

fn posts(actions: &[Action]) -> Vec<PostId> {
    let ids = actions.iter().filter_map(|action| match action {
        Action::Post { post, .. } => Some(*post),
        _ => None,
    });
    ids.collect()
}

fn results(events: &[Event]) -> Vec<(u64, Report)> {
    let results = events.iter().filter_map(|event| match event {
        Event::Result { attempt, report, .. } => Some((attempt.0, report.clone())),
        _ => None,
    });
    results.collect()
}
