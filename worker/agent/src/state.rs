//! The agent's decisions, as a pure machine: [`State::step`] takes an [`Input`] and the time, and returns [`Action`]s.
//!
//! No tokio, files, sockets, clock or randomness of its own. The shell ([`crate::agent`]) carries actions out and answers
//! each with the input named beside it; an action of an attempt is answered before the next one of that attempt is given,
//! except [`Action::Stop`], which makes the running one end soon.
//!
//! # The life of an attempt
//! ```text
//! dispatch ─▶ Waiting ─▶ Fetching ─▶ Running ─▶ Publishing ─▶ Sealing ─▶ Reporting ─▶ closed by the leader ─▶ gone
//!                │           │          │                        ▲           ▲
//!                │           └──────────┴── failure ─────────────┘           └── also found on disk after a restart
//!                └── taken back: gone at once; later: the operation is stopped, what has run is sealed as cancelled
//! ```
//! # Devices
//!
//! | a task's device | the task | the device |
//! |---|---|---|
//! | cannot allocate | given back, with a larger weight | goes on |
//! | has a sticky error | begun again in a new process, once; then given back | taken out when it fails three different tasks in a row |
//! | hangs | given back | as above |
//! | is lost | given back | taken out |
//! | finds itself wrong | given back | taken out, for good |
//! | has made a result that the leader calls wrong | | taken out for good, unless it is the last one: then the leader's quarantine is the device's |
//!
//! One that is taken out takes its slots along, which the leader is told, and what else runs on it is given back. Where it
//! is not for good it is looked for now and then, ever more seldom, and comes back. A worker without any place left leaves.
//!
//! # Invariants
//! * A result is repeated until the leader says that it is done with the attempt, or has taken it back, or the queue has
//!   taken it [`Settings::reports_max`] times.
//! * Slots, controllers and memory are never exceeded; a task counts until its runner has ended.
//! * Everything that fails for want of queue or store is tried again, ever more seldom, for as long as it is wanted.

mod attempts;
mod health;
mod parts;
mod posts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use assay_schedule::{
    Artifact, AttemptId, Dispatch, Event, Hash, Kind, Message, Output, Profile, Report, WorkerId,
};

use crate::receipt::Outcome;
use crate::runner::{Device, DeviceFault, Failure, PartError};
use crate::wire::{Answer, Mail};
use health::Health;
use parts::PartState;
use posts::Posts;

/// Attempts that are over and remembered, so that a message about them is not taken for a new one.
const OVER_MAX: usize = 4096;

/// Times, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// Between two heartbeats; well below the coordinator's lease of a worker.
    pub heartbeat_ms: u64,
    /// Until a worker that hears nothing registers again.
    pub rejoin_ms: u64,
    /// Until a worker that hears nothing and has nothing to do begins a new session: its mailbox may be gone.
    pub renew_ms: u64,
    /// Until a message that the leader has not answered is sent again; doubles each time.
    pub repeat_ms: u64,
    /// The longest such wait.
    pub repeat_ms_max: u64,
    /// Until something that queue or store refused is tried again; doubles each time.
    pub retry_ms: u64,
    /// The longest such wait.
    pub retry_ms_max: u64,
    /// Until a device that was taken out is looked for; doubles each time.
    pub check_ms: u64,
    /// The longest such wait.
    pub check_ms_max: u64,
    /// How long running tasks may go on after [`Input::Leave`].
    pub drain_ms: u64,
    /// How long the last reports may take after that.
    pub leave_ms: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            heartbeat_ms: 3_000,
            rejoin_ms: 60_000,
            renew_ms: 600_000,
            repeat_ms: 5_000,
            repeat_ms_max: 60_000,
            retry_ms: 200,
            retry_ms_max: 15_000,
            check_ms: 60_000,
            check_ms_max: 3_600_000,
            drain_ms: 20_000,
            leave_ms: 5_000,
        }
    }
}

/// Who this worker is and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its number.
    pub worker: WorkerId,
    /// This start of the process, or the one before if that has left results unreported.
    pub session: u64,
    /// What it offers while all devices work.
    pub profile: Profile,
    /// Devices of the slots, in turn; at least one.
    pub devices: Vec<Device>,
    /// Tasks that may wait for a slot or memory; more are refused.
    pub waiting_max: usize,
    /// Parts of one task that may be outstanding; more are refused.
    pub parts_max: usize,
    /// How often a result is sent that the leader does not answer.
    pub reports_max: u32,
    /// See there.
    pub times: Times,
    /// Where the jitter begins.
    pub seed: u64,
}

/// A message to the leader, for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostId(pub u64);

/// Why a post did not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostError {
    /// The queue cannot be reached, or is full.
    Unavailable,
    /// The queue will never take it.
    Refused,
}

/// Why an artifact could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// This input is missing, or is not what its hash says.
    Lost(u32),
    /// The store cannot be reached.
    Unavailable,
    /// It could not be written here.
    Local(String),
    /// [`Action::Stop`] came first.
    Stopped,
}

/// Why something could not be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The attempt is fenced.
    Revoked,
    /// The store cannot be reached, or is full.
    Unavailable,
    /// The store will never take it.
    Refused(String),
    /// A file of the task cannot be read.
    Local(String),
    /// [`Action::Stop`] came first.
    Stopped,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A message from the leader.
    Mail(Mail),
    /// The session's mailbox was closed, or has lost messages: nothing of that session counts any more. Begins `session`.
    SessionOver {
        /// Higher than every one before.
        session: u64,
    },
    /// Answer to [`Action::Post`].
    Posted {
        /// Which.
        post: PostId,
        /// Whether it is in the leader's inbox.
        result: Result<(), PostError>,
    },
    /// Answer to [`Action::Fetch`].
    Fetched {
        /// The attempt.
        attempt: AttemptId,
        /// Whether all inputs are on disk.
        result: Result<(), FetchError>,
    },
    /// Answer to [`Action::Run`].
    Ended {
        /// The attempt.
        attempt: AttemptId,
        /// Whether its outputs are on disk.
        result: Result<(), Failure>,
    },
    /// Answer to [`Action::Publish`].
    Published {
        /// The attempt.
        attempt: AttemptId,
        /// The outputs, in order.
        result: Result<Vec<Output>, PublishError>,
    },
    /// Answer to [`Action::Seal`].
    Sealed {
        /// The attempt.
        attempt: AttemptId,
    },
    /// A running task wants a part proved; the answer is [`Action::GivePart`].
    Part {
        /// The task's attempt.
        attempt: AttemptId,
        /// Name of the part.
        key: Hash,
        /// What it does.
        kind: Kind,
        /// How much work it is.
        units: u64,
    },
    /// Answer to [`Action::PublishPart`].
    PartPublished {
        /// The task's attempt.
        attempt: AttemptId,
        /// The part.
        key: Hash,
        /// Its inputs, in order.
        result: Result<Vec<Artifact>, PublishError>,
    },
    /// Answer to [`Action::FetchPart`].
    PartFetched {
        /// The task's attempt.
        attempt: AttemptId,
        /// The part.
        key: Hash,
        /// Whether all its outputs are on disk.
        result: Result<(), FetchError>,
    },
    /// Answer to [`Action::Check`].
    Checked {
        /// The device.
        device: Device,
        /// Whether it can be given tasks.
        is_there: bool,
    },
    /// The process is to end in good order. A second time: without waiting for running tasks.
    Leave,
    /// Time has passed. Wanted several times a second.
    Tick,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put a message into the leader's inbox, in the order given. The result of an attempt takes its receipt along.
    Post {
        /// For the answer.
        post: PostId,
        /// The message.
        event: Event,
    },
    /// Bring an attempt's inputs to its folder.
    Fetch {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Run it; a second time, with nothing left of the first, if its device's process had to be ended.
    Run {
        /// The attempt.
        attempt: AttemptId,
        /// Where it may compute.
        device: Device,
    },
    /// Make whatever an attempt is at end soon. Its answer comes as usual.
    Stop {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Publish its outputs, which stay on disk.
    Publish {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Sign its receipt and store the report, so that a restart finds both.
    Seal {
        /// The attempt.
        attempt: AttemptId,
        /// What will be reported.
        report: Report,
        /// How it ended, for the receipt.
        outcome: Outcome,
    },
    /// Publish a part's inputs under the task's attempt.
    PublishPart {
        /// The task's attempt.
        attempt: AttemptId,
        /// The part.
        key: Hash,
        /// Whether something published before is lost: all of them, under new numbers.
        is_again: bool,
    },
    /// Bring a part's outputs to the task's folder.
    FetchPart {
        /// The task's attempt.
        attempt: AttemptId,
        /// The part.
        key: Hash,
        /// What to bring.
        outputs: Vec<Artifact>,
    },
    /// Tell the task how its part ended; no answer.
    GivePart {
        /// The task's attempt.
        attempt: AttemptId,
        /// The part.
        key: Hash,
        /// Why there is no result; the outputs fetched before otherwise.
        error: Option<PartError>,
    },
    /// Remove all that is kept of an attempt; no answer.
    Clean {
        /// The attempt.
        attempt: AttemptId,
    },
    /// A device was taken out of service (`fault`), or is back; no answer.
    Health {
        /// The device.
        device: Device,
        /// What is wrong with it.
        fault: Option<DeviceFault>,
    },
    /// See whether a device that was taken out can be given tasks again.
    Check {
        /// The device.
        device: Device,
    },
    /// Read this session's mailbox from now on, from its beginning; no answer.
    Session {
        /// The session.
        session: u64,
    },
    /// End the process.
    Exit,
}

/// Why an input is refused; the state is then unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Meant for another worker, or another start of this one.
    #[error("attempt {attempt} is for worker {worker}, session {session}")]
    Misdirected {
        /// The attempt.
        attempt: AttemptId,
        /// Whom it is for.
        worker: WorkerId,
        /// Which session of it.
        session: u64,
    },
    /// Known already, or over.
    #[error("attempt {attempt} is known")]
    Repeated {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Not, or no longer, here.
    #[error("attempt {attempt} is not here")]
    Unknown {
        /// The attempt.
        attempt: AttemptId,
    },
    /// It does not wait for this part.
    #[error("attempt {attempt} does not wait for part {part}")]
    UnknownPart {
        /// The attempt.
        attempt: AttemptId,
        /// The part.
        part: Hash,
    },
    /// The attempt is at something else.
    #[error("attempt {attempt} did not ask for this")]
    Unexpected {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Nobody asked about this device.
    #[error("device {device} is not being looked for")]
    UnknownDevice {
        /// The device.
        device: Device,
    },
    /// No such post is under way.
    #[error("post {0:?} is not under way")]
    UnknownPost(PostId),
    /// The worker leaves and takes no more tasks; they are handed back by not being named.
    #[error("attempt {attempt} comes too late: this worker leaves")]
    Leaving {
        /// The attempt.
        attempt: AttemptId,
    },
    /// A message that is not for workers.
    #[error("this message is not for workers")]
    NotForWorkers,
    /// A session that does not follow the present one.
    #[error("session {got} does not come after {have}")]
    OldSession {
        /// The present one.
        have: u64,
        /// What was given.
        got: u64,
    },
}

/// An operation that is tried until it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Try {
    pub tries: u32,
    /// When to begin; `None`: it is under way.
    pub due: Option<u64>,
}

impl Try {
    pub(crate) const UNDER_WAY: Self = Self { tries: 0, due: None };

    pub(crate) fn at(now_ms: u64) -> Self {
        Self { tries: 0, due: Some(now_ms) }
    }

    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.due.is_some_and(|due| due <= now_ms)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Waiting,
    Fetching(Try),
    Running,
    Publishing(Try),
    Sealing { report: Report },
    Reporting { report: Report, next: Try, posts: u32 },
}

/// What an attempt takes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Slot(u32),
    Controller,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub dispatch: Arc<Dispatch>,
    pub phase: Phase,
    /// While a runner may use memory for it.
    pub lane: Option<Lane>,
    /// The GPU that it has run on.
    pub gpu: Option<Device>,
    /// How often it was begun again in a new process.
    pub restarts: u32,
    /// Nobody wants its result any more.
    pub is_closed: bool,
    pub parts: BTreeMap<Hash, PartState>,
}

impl Attempt {
    pub(crate) fn new(dispatch: Arc<Dispatch>, phase: Phase) -> Self {
        let parts = BTreeMap::new();
        Self { dispatch, phase, lane: None, gpu: None, restarts: 0, is_closed: false, parts }
    }

    /// Whether an operation that [`Action::Stop`] ends is under way.
    pub(crate) fn is_at_work(&self) -> bool {
        match &self.phase {
            Phase::Fetching(attempt) | Phase::Publishing(attempt) => attempt.due.is_none(),
            Phase::Running => true,
            Phase::Waiting | Phase::Sealing { .. } | Phase::Reporting { .. } => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaving {
    pub drain_until: u64,
    pub exit_at: u64,
    pub is_drained: bool,
    pub has_left: bool,
}

/// An attempt that a process before this one has left on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The task.
    pub dispatch: Dispatch,
    /// What was to be reported; `None`: its outputs are still to be published.
    pub report: Option<Report>,
}

/// The agent's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    settings: Settings,
    attempts: BTreeMap<AttemptId, Attempt>,
    /// Attempts that wait for a slot, and those that wait to be controllers, in order of arrival.
    waiting: [VecDeque<AttemptId>; 2],
    free_slots: BTreeSet<u32>,
    controllers: u32,
    memory_used: u64,
    /// Of the GPUs.
    health: BTreeMap<Device, Health>,
    /// Attempts that are over, and the GPUs that they have run on.
    over: BTreeMap<AttemptId, Option<Device>>,
    posts: Posts,
    leaving: Option<Leaving>,
    random: u64,
    actions: Vec<Action>,
}

impl State {
    /// A state that is about to register, with what an earlier process of the same session has left.
    pub fn new(settings: Settings, saved: Vec<Saved>, now_ms: u64) -> Self {
        let attempts = saved.into_iter().map(|saved| {
            let phase = match saved.report {
                Some(report) => Phase::Reporting { report, next: Try::at(now_ms), posts: 0 },
                None => Phase::Publishing(Try::at(now_ms)),
            };
            let dispatch = Arc::new(saved.dispatch);
            (dispatch.attempt, Attempt::new(dispatch, phase))
        });
        let gpus = settings.devices.iter().filter(|device| **device != Device::Cpu);
        Self {
            attempts: attempts.collect(),
            waiting: Default::default(),
            free_slots: (0..settings.profile.slots).collect(),
            controllers: 0,
            memory_used: 0,
            health: gpus.map(|device| (*device, Health::default())).collect(),
            over: BTreeMap::new(),
            posts: Posts::new(now_ms),
            leaving: None,
            random: settings.seed,
            actions: Vec::new(),
            settings,
        }
    }

    /// Takes one input and says what to do about it.
    ///
    /// `now_ms` is any clock that does not go back.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    pub fn step(&mut self, input: Input, now_ms: u64) -> Result<Vec<Action>, Refused> {
        match input {
            Input::Mail(mail) => self.mail(mail, now_ms)?,
            Input::SessionOver { session } => self.session_over(session, now_ms)?,
            Input::Posted { post, result } => self.posted(post, result, now_ms)?,
            Input::Fetched { attempt, result } => self.fetched(attempt, result, now_ms)?,
            Input::Ended { attempt, result } => self.ended(attempt, result, now_ms)?,
            Input::Published { attempt, result } => self.published(attempt, result, now_ms)?,
            Input::Sealed { attempt } => self.sealed(attempt, now_ms)?,
            Input::Part { attempt, key, kind, units } => self.part(attempt, key, kind, units)?,
            Input::PartPublished { attempt, key, result } => {
                self.part_published(attempt, key, result, now_ms)?;
            }
            Input::PartFetched { attempt, key, result } => self.part_fetched(attempt, key, result, now_ms)?,
            Input::Checked { device, is_there } => self.checked(device, is_there, now_ms)?,
            Input::Leave => self.leave(now_ms),
            Input::Tick => {}
        }
        self.admit(now_ms);
        self.retry(now_ms);
        self.retry_parts(now_ms);
        self.check_devices(now_ms);
        self.renew(now_ms);
        self.depart(now_ms);
        self.flush(now_ms);
        Ok(std::mem::take(&mut self.actions))
    }

    /// Attempts that are here and wanted, as heartbeats name them.
    pub fn running(&self) -> Vec<AttemptId> {
        let wanted = self.attempts.iter().filter(|(_, attempt)| !attempt.is_closed);
        wanted.map(|(id, _)| *id).collect()
    }

    /// The task of an attempt that is here.
    pub fn dispatch(&self, attempt: AttemptId) -> Option<&Arc<Dispatch>> {
        self.attempts.get(&attempt).map(|attempt| &attempt.dispatch)
    }

    /// The present session.
    pub fn session(&self) -> u64 {
        self.settings.session
    }

    /// Whether the queue took the last message.
    pub fn is_connected(&self) -> bool {
        self.posts.is_connected()
    }

    /// Memory set aside for tasks.
    pub fn memory_used(&self) -> u64 {
        self.memory_used
    }

    fn mail(&mut self, mail: Mail, now_ms: u64) -> Result<(), Refused> {
        match mail {
            Mail::Effect(effect) => match effect.action {
                assay_schedule::Action::Message(message) => self.message(message, now_ms)?,
                assay_schedule::Action::Work(_) => return Err(Refused::NotForWorkers),
            },
            Mail::Answer(Answer::Closed { attempt }) => self.closed(attempt)?,
        }
        self.posts.hear(now_ms, self.settings.times.rejoin_ms);
        Ok(())
    }

    fn message(&mut self, message: Message, now_ms: u64) -> Result<(), Refused> {
        let addressee = match &message {
            Message::Dispatch(dispatch) => Some((dispatch.attempt, dispatch.worker, dispatch.session)),
            Message::Deliver { attempt, worker, session, .. }
            | Message::Respawn { attempt, worker, session, .. }
            | Message::Revoke { attempt, worker, session, .. } => Some((*attempt, *worker, *session)),
            Message::Notify { .. } => None,
        };
        let Some((attempt, worker, session)) = addressee else { return Err(Refused::NotForWorkers) };
        if (worker, session) != (self.settings.worker, self.settings.session) {
            return Err(Refused::Misdirected { attempt, worker, session });
        }
        match message {
            Message::Dispatch(dispatch) => self.take(*dispatch),
            Message::Deliver { attempt, key, outputs, .. } => self.deliver(attempt, key, outputs),
            Message::Respawn { attempt, key, .. } => self.respawn(attempt, key),
            Message::Revoke { attempt, is_wrong: true, .. } => self.revoke_wrong(attempt, now_ms),
            Message::Revoke { attempt, .. } => self.revoke(attempt),
            Message::Notify { .. } => Err(Refused::NotForWorkers),
        }
    }

    /// A number of milliseconds between half of `ms` and `ms`.
    fn jitter(&mut self, ms: u64) -> u64 {
        // splitmix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let half = ms / 2;
        half + (z ^ (z >> 31)) % (ms - half + 1)
    }

    /// The wait after a number of tries: doubled each time, at most `max`, with jitter.
    fn wait(&mut self, tries: u32, first: u64, max: u64) -> u64 {
        let ms = first.saturating_mul(1 << tries.min(20)).min(max);
        self.jitter(ms)
    }

    /// The next try of something that queue or store has refused.
    fn again(&mut self, tries: u32, now_ms: u64) -> Try {
        let (first, max) = (self.settings.times.retry_ms, self.settings.times.retry_ms_max);
        Try { tries: tries.saturating_add(1), due: Some(now_ms + self.wait(tries, first, max)) }
    }

    fn get(&self, id: AttemptId) -> Result<&Attempt, Refused> {
        self.attempts.get(&id).ok_or(Refused::Unknown { attempt: id })
    }

    fn get_mut(&mut self, id: AttemptId) -> Result<&mut Attempt, Refused> {
        self.attempts.get_mut(&id).ok_or(Refused::Unknown { attempt: id })
    }
}
