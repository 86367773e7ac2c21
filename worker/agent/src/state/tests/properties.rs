//! Random inputs, good and bad, against what must always hold.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Fetch,
    Run,
    Publish,
    Seal,
}

/// A shell, a leader and a store that do what they are told, or not.
struct World {
    bench: Bench,
    now: u64,
    session: u64,
    next: u64,
    ops: BTreeMap<AttemptId, Op>,
    /// `true`: its outputs come, `false`: its inputs go.
    part_ops: BTreeSet<(AttemptId, Hash, bool)>,
    posts: VecDeque<(PostId, Event)>,
    dispatched: BTreeMap<AttemptId, (Stage, u64)>,
    cleaned: BTreeSet<AttemptId>,
    /// Attempts that the leader has closed or taken back, and those whose session is over.
    unwanted: BTreeSet<AttemptId>,
    finished: BTreeSet<AttemptId>,
    /// How often the queue has each result.
    reported: BTreeMap<AttemptId, u32>,
    asked: BTreeSet<(AttemptId, Hash)>,
    checks: BTreeSet<Device>,
    is_leaving: bool,
    has_exited: bool,
    log: Vec<Action>,
}

impl World {
    fn new() -> Self {
        Self {
            bench: Bench::new(),
            now: 0,
            session: SESSION,
            next: 1,
            ops: BTreeMap::new(),
            part_ops: BTreeSet::new(),
            posts: VecDeque::new(),
            dispatched: BTreeMap::new(),
            cleaned: BTreeSet::new(),
            unwanted: BTreeSet::new(),
            finished: BTreeSet::new(),
            reported: BTreeMap::new(),
            asked: BTreeSet::new(),
            checks: BTreeSet::new(),
            is_leaving: false,
            has_exited: false,
            log: Vec::new(),
        }
    }

    fn give(&mut self, input: Input) -> bool {
        let before = self.bench.state.clone();
        match self.bench.state.step(input, self.now) {
            Err(_) => {
                assert_eq!(self.bench.state, before, "a refused input has changed something");
                false
            }
            Ok(actions) => {
                self.log.extend(actions.iter().cloned());
                actions.into_iter().for_each(|action| self.carry_out(action));
                self.check();
                true
            }
        }
    }

    fn begin(&mut self, attempt: AttemptId, op: Op) {
        assert!(self.dispatched.contains_key(&attempt), "{attempt} came from nowhere");
        let other = self.ops.insert(attempt, op);
        assert_eq!(other, None, "{attempt}: {op:?} begins while another operation is under way");
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Post { post, event } => self.posts.push_back((post, event)),
            Action::Fetch { attempt } => self.begin(attempt, Op::Fetch),
            Action::Run { attempt, device } => {
                let is_out = self.bench.state.out().any(|(out, _)| out == device);
                assert!(!is_out, "{attempt} is run on device {device}, which is out");
                self.begin(attempt, Op::Run);
            }
            Action::Publish { attempt } => self.begin(attempt, Op::Publish),
            Action::Seal { attempt, report, .. } => {
                self.begin(attempt, Op::Seal);
                if matches!(report, Report::Finished { .. }) {
                    self.finished.insert(attempt);
                }
            }
            Action::Stop { attempt } => {
                assert!(self.ops.contains_key(&attempt), "{attempt} is at nothing");
                self.unwanted.insert(attempt);
            }
            Action::PublishPart { attempt, key, .. } => {
                assert!(self.part_ops.insert((attempt, key, false)));
            }
            Action::FetchPart { attempt, key, .. } => {
                assert!(self.part_ops.insert((attempt, key, true)));
            }
            Action::GivePart { attempt, key, .. } => {
                assert!(self.asked.remove(&(attempt, key)), "a part is given that nobody asked for");
            }
            Action::Clean { attempt } => {
                assert!(!self.ops.contains_key(&attempt), "{attempt} is removed while something uses it");
                assert!(self.cleaned.insert(attempt), "{attempt} is removed twice");
                let is_told = self.reported.get(&attempt).is_some_and(|times| *times >= 3);
                let is_wanted = !self.unwanted.contains(&attempt);
                let is_lost = self.finished.contains(&attempt) && is_wanted && !is_told;
                assert!(!is_lost, "the result of {attempt} is lost");
            }
            Action::Health { .. } => {}
            Action::Check { device } => {
                let is_new = self.checks.insert(device);
                assert!(is_new, "device {device} is looked for twice at the same time");
            }
            Action::Session { session } => {
                // Of its own accord, too, after long silence.
                assert!(session == self.session || session == self.session + 1);
                self.session = session;
            }
            Action::Exit => self.has_exited = true,
        }
    }

    /// Slots, controllers and memory; nothing runs on a device that is out, but for what is being stopped.
    fn check(&self) {
        let busy = |controllers: bool| {
            let busy = self.ops.iter().filter(move |(attempt, op)| {
                let (stage, _) = self.dispatched[attempt];
                matches!(op, Op::Fetch | Op::Run) && (stage == Stage::Fold) == controllers
            });
            busy.map(|(attempt, _)| self.dispatched[attempt].1)
        };
        assert!(busy(false).count() <= 2, "too many slots");
        assert!(busy(true).count() <= 1, "too many controllers");
        assert!(busy(false).sum::<u64>() + busy(true).sum::<u64>() <= 100, "too much memory");
        assert!(self.bench.state.memory_used() <= 100);
    }

    fn pick<T: Clone>(items: impl Iterator<Item = T>, choice: u8) -> Option<T> {
        let items: Vec<T> = items.collect();
        (!items.is_empty()).then(|| items[usize::from(choice) % items.len()].clone())
    }

    fn dispatch(&mut self, choice: u8) {
        let attempt = self.next;
        let stage = if choice.is_multiple_of(4) { Stage::Fold } else { Stage::Wrap };
        let memory = u64::from(choice) % 110;
        self.dispatched.insert(AttemptId(attempt), (stage, memory));
        if self.give(dispatch(attempt, stage, memory, self.session)) {
            self.next += 1;
        } else {
            self.dispatched.remove(&AttemptId(attempt));
        }
    }

    /// The operation of one attempt ends, well if `is_good`.
    fn end_op(&mut self, choice: u8, is_good: bool) {
        let Some((attempt, op)) = Self::pick(self.ops.clone().into_iter(), choice) else { return };
        self.ops.remove(&attempt);
        let variant = choice / 16 % 4;
        let input = match op {
            Op::Fetch => {
                let errors = [
                    FetchError::Unavailable,
                    FetchError::Lost(0),
                    FetchError::Local("x".into()),
                    FetchError::Stopped,
                ];
                let result = if is_good { Ok(()) } else { Err(errors[usize::from(variant)].clone()) };
                Input::Fetched { attempt, result }
            }
            Op::Run => {
                let errors = [
                    Failure::Cancelled,
                    Failure::OutOfMemory,
                    Failure::Transient("x".into()),
                    Failure::Permanent("y".into()),
                    Failure::Device(DeviceFault::Allocation),
                    Failure::Device(DeviceFault::Sticky("z".into())),
                    Failure::Device(DeviceFault::Hung("z".into())),
                    Failure::Device(DeviceFault::Lost("z".into())),
                ];
                let variant = choice / 16 % 8;
                self.asked.retain(|(asker, _)| *asker != attempt);
                let result = if is_good { Ok(()) } else { Err(errors[usize::from(variant)].clone()) };
                Input::Ended { attempt, result }
            }
            Op::Publish => {
                let errors = [
                    PublishError::Unavailable,
                    PublishError::Stopped,
                    PublishError::Refused("x".into()),
                    PublishError::Local("y".into()),
                ];
                let result =
                    if is_good { Ok(vec![output(1)]) } else { Err(errors[usize::from(variant)].clone()) };
                Input::Published { attempt, result }
            }
            Op::Seal => Input::Sealed { attempt },
        };
        assert!(self.give(input), "the end of {op:?} of {attempt} is refused");
    }

    fn end_part_op(&mut self, choice: u8, is_good: bool) {
        let Some((attempt, key, is_fetch)) = Self::pick(self.part_ops.clone().into_iter(), choice) else {
            return;
        };
        self.part_ops.remove(&(attempt, key, is_fetch));
        // It may come too late.
        if is_fetch {
            let error = if choice.is_multiple_of(2) { FetchError::Unavailable } else { FetchError::Lost(0) };
            let result = if is_good { Ok(()) } else { Err(error) };
            self.give(Input::PartFetched { attempt, key, result });
        } else {
            let result = if is_good { Ok(vec![artifact(1, 2)]) } else { Err(PublishError::Unavailable) };
            self.give(Input::PartPublished { attempt, key, result });
        }
    }

    fn ask(&mut self, choice: u8) {
        let running = self.ops.clone().into_iter().filter(|(_, op)| *op == Op::Run).map(|(id, _)| id);
        let Some(attempt) = Self::pick(running, choice) else { return };
        let key = hash(choice);
        // The shell keeps a part's files until the answer, so a key that is being given back is not asked for again.
        let is_new = self.asked.insert((attempt, key));
        let busy = self.part_ops.iter().any(|(asker, part, _)| (*asker, *part) == (attempt, key));
        if busy && is_new {
            self.asked.remove(&(attempt, key));
            return;
        }
        if !self.give(Input::Part { attempt, key, kind: Kind::Shard, units: 1 }) {
            self.asked.remove(&(attempt, key));
        }
    }

    /// The queue takes a message, or does not; the leader answers, or does not.
    fn post(&mut self, is_good: bool, is_answered: bool) {
        let Some((post, event)) = self.posts.pop_front() else { return };
        let result = if is_good { Ok(()) } else { Err(PostError::Unavailable) };
        let is_current = match &event {
            Event::Result { session, .. } | Event::Spawn { session, .. } => *session == self.session,
            _ => true,
        };
        if let (Event::Result { attempt, .. }, true) = (&event, is_good) {
            *self.reported.entry(*attempt).or_default() += 1;
        }
        assert!(self.give(Input::Posted { post, result }));
        if !is_good || !is_answered || !is_current {
            return;
        }
        match event {
            Event::Result { attempt, .. } => {
                self.unwanted.insert(attempt);
                self.give(closed(attempt.0));
            }
            Event::Spawn { attempt, parts, .. } => {
                for part in parts {
                    let input = match self.now % 5 {
                        0 => respawn_in(self.session, attempt.0, part.key),
                        _ => deliver_in(self.session, attempt.0, part.key),
                    };
                    self.give(input);
                }
            }
            _ => {}
        }
    }

    fn turn(&mut self, what: u8, choice: u8) {
        if self.has_exited {
            return;
        }
        match what % 32 {
            0..=5 => self.dispatch(choice),
            6..=13 => self.end_op(choice, true),
            14..=16 => self.end_op(choice, false),
            17 => {
                if let Some(attempt) = Self::pick(self.dispatched.clone().into_keys(), choice) {
                    self.unwanted.insert(attempt);
                    self.give(revoke_in(self.session, attempt.0));
                }
            }
            18 => {
                // Anything about attempts that do not exist or were not asked.
                let attempt = AttemptId(u64::from(choice) + 1_000);
                assert!(!self.give(Input::Fetched { attempt, result: Ok(()) }));
                assert!(!self.give(Input::Ended { attempt, result: Ok(()) }));
                assert!(!self.give(closed(attempt.0)));
                assert!(!self.give(Input::Posted { post: PostId(u64::MAX), result: Ok(()) }));
                assert!(!self.give(dispatch(self.next, Stage::Wrap, 1, self.session - 1)));
            }
            19..=22 => self.post(true, true),
            23 => self.post(true, false),
            24 => self.post(false, false),
            25 => self.ask(choice),
            26 => self.end_part_op(choice, !choice.is_multiple_of(3)),
            28 if choice < 16 => {
                self.session += 1;
                self.unwanted.extend(self.dispatched.keys());
                self.give(Input::SessionOver { session: self.session });
            }
            29 if choice < 8 => {
                self.is_leaving = true;
                self.unwanted.extend(self.dispatched.keys());
                self.give(Input::Leave);
            }
            27 => {
                // The leader is told nothing of this: it may come for anything that has run.
                if let Some(attempt) = Self::pick(self.dispatched.clone().into_keys(), choice) {
                    self.unwanted.insert(attempt);
                    let session = self.session;
                    self.give(message(Message::Revoke { attempt, worker: WORKER, session, is_wrong: true }));
                }
            }
            30 => {
                if let Some(device) = self.checks.pop_first() {
                    self.give(Input::Checked { device, is_there: choice.is_multiple_of(2) });
                }
                assert!(!self.give(Input::Checked { device: Device::Cpu, is_there: true }));
            }
            _ => {
                self.now += u64::from(choice) * 20;
                self.give(Input::Tick);
            }
        }
    }

    /// Everything works from now on.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            while let Some(attempt) = self.ops.keys().next() {
                let choice = u8::try_from(attempt.0 % 2).unwrap();
                self.end_op(choice, true);
            }
            while !self.part_ops.is_empty() {
                self.end_part_op(0, true);
            }
            while !self.posts.is_empty() {
                self.post(true, true);
            }
            let is_quiet =
                self.cleaned.len() == self.dispatched.len() && !self.is_leaving && self.now > 100_000;
            if self.has_exited || is_quiet {
                return;
            }
            self.now += 500;
            self.give(Input::Tick);
        }
    }
}

fn play(turns: &[(u8, u8)]) -> World {
    let mut world = World::new();
    world.give(Input::Tick);
    for (what, choice) in turns {
        world.turn(*what, *choice);
    }
    world.settle();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_nothing_is_left_and_no_bound_is_broken(
        turns in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..300)
    ) {
        let world = play(&turns);
        if world.is_leaving {
            prop_assert!(world.has_exited);
            return Ok(());
        }
        let left: Vec<_> = world.dispatched.keys().filter(|id| !world.cleaned.contains(id)).collect();
        prop_assert!(left.is_empty(), "left: {left:?}");
        prop_assert_eq!(world.bench.state.running(), vec![]);
        prop_assert_eq!(world.bench.state.memory_used(), 0);
        prop_assert!(world.asked.is_empty(), "parts that were never given: {:?}", world.asked);
        let silent: Vec<_> = world.dispatched.keys()
            .filter(|id| !world.reported.contains_key(id) && !world.unwanted.contains(id))
            .collect();
        prop_assert!(silent.is_empty(), "never reported: {silent:?}");
    }

    #[test]
    fn the_same_inputs_give_the_same_actions(
        turns in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..100)
    ) {
        prop_assert_eq!(play(&turns).log, play(&turns).log);
    }
}
