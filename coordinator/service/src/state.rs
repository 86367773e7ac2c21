//! The coordinator's state: the schedule, and what its owners want to know about it.
//!
//! A pure function of the committed records: every coordinator, leading or standing by, has the same. So histories,
//! stream positions and webhooks that are still to be sent survive a takeover without further machinery.

mod history;
mod intake;
mod observe;
mod receipts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use assay_schedule::{
    AttemptId, BatchId, Effect, EffectId, Epoch, Error, Event, Hash, Kind, LimitError, Limits, Machine,
    Stage, TenantId, Time, WorkerId,
};
use serde::{Deserialize, Serialize};

pub use self::history::{AttemptState, History, Notice, Span, What, NOTICES_MAX, SPANS_MAX};
pub use self::observe::{phase_name, PHASES};
pub use self::receipts::{Receipt, RECEIPTS_FILE, RECEIPTS_MAX, RECEIPT_BYTES_MAX};
use crate::request::{Command, Request};
use crate::webhook;
use crate::work::Ledger;

/// Version of checkpoints and records; a coordinator does not lead over another one's.
pub const FORMAT: u32 = 4;
/// A format without [`State::lost`], which is the last thing in a checkpoint, and of a schedule that ended a batch where this one
/// fails a controller: read, and not written, so that coordinators that decide differently do not follow each other.
const FORMAT_WITHOUT_HEALTH: u32 = 3;
/// A format without [`State::ledger`] either, which is the last thing but that.
const FORMAT_WITHOUT_LEDGER: u32 = 2;

/// How long the mailbox of a session that is over stays, so that the worker learns of it.
const OVER_MS: u64 = 600_000;
/// Such mailboxes, at most.
const OVER_MAX: usize = 4096;

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The leader's clock.
    pub at: Time,
    /// What happened.
    pub entry: Entry,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Something that the schedule has to know.
    Event(Event),
    /// An API call.
    Request(Request),
    /// What a worker says of itself.
    About(About),
    /// What an attempt took, as its worker has signed it.
    Receipt(Receipt),
    /// A webhook was tried.
    Called {
        /// Whose end it told.
        batch: BatchId,
        /// Whether that worked.
        is_delivered: bool,
    },
    /// Files of a batch's result, which the store holds.
    Files {
        /// The batch.
        batch: BatchId,
        /// The files.
        files: Vec<ResultFile>,
    },
    /// Where this deployment's settlements are kept; the first one holds for ever.
    Ledger(Ledger),
    /// What is wrong with a worker, as it says directly after what it says of itself.
    Health(Health),
}

/// A worker, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Which.
    pub worker: WorkerId,
    /// What its operator calls it.
    pub name: String,
    /// Models of its devices that are in service, in the order of its slots.
    pub devices: Vec<String>,
    /// Its program.
    pub build: String,
}

/// What is wrong with a worker, for people. Holds until it says [`About`] again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Which.
    pub worker: WorkerId,
    /// Devices that are out of service, each with the reason.
    pub lost: Vec<String>,
}

/// Longest reason in [`Health`], in characters.
pub const REASON_MAX: usize = 256;

/// Longest text of [`About`], in bytes, and most devices.
pub const ABOUT_MAX: usize = 64;

/// A file of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultFile {
    /// Its name, letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// What its bytes hash to.
    pub hash: Hash,
    /// Its size.
    pub bytes: u64,
}

/// Most files of a result.
pub const FILES_MAX: usize = 64;

/// What became of a request.
pub type Outcome = Result<Reply, Refusal>;

/// A request that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The batch is taken.
    Submitted {
        /// Its number.
        batch: BatchId,
        /// Whether it was there already.
        is_repeated: bool,
    },
    /// The batch is cancelled.
    Cancelled,
}

/// Why a request was not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The schedule refuses.
    #[error(transparent)]
    Schedule(#[from] Error),
    /// The key was known when the payload came, and is not any more.
    #[error("the payload was not kept, because its key was known: submit again")]
    NotStored,
    /// The tenant has too much in work.
    #[error("{what} in work are limited to {max}")]
    Quota {
        /// What.
        what: &'static str,
        /// The limit.
        max: u64,
    },
}

/// What a record has led to, besides a new state.
#[derive(Debug, Default)]
pub struct Applied {
    /// What the schedule asks for.
    pub effects: Vec<Effect>,
    /// Answer to a request.
    pub outcome: Option<Outcome>,
    /// For metrics.
    pub facts: Vec<Fact>,
    /// Holds on artifacts that nobody needs.
    pub stale: Vec<StaleHold>,
    /// Worker sessions that are over: their mailboxes end.
    pub ended: Vec<(WorkerId, u64)>,
    /// Sessions that have been over for a while: their mailboxes go.
    pub removed: Vec<(WorkerId, u64)>,
}

/// A hold that the schedule does not know of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StaleHold {
    /// The payload of a submission that was refused, or repeated after its batch's end.
    Payload(assay_schedule::Holder),
    /// Files of a batch that is forgotten.
    Files(BatchId),
}

/// Something worth counting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// An attempt ended.
    Attempt {
        /// What it did.
        kind: Kind,
        /// Who did it.
        worker: WorkerId,
        /// How it ended.
        state: AttemptState,
        /// On what.
        device: String,
        /// From dispatch to the end of the worker's part.
        elapsed_ms: u64,
    },
    /// A batch was taken.
    Submitted,
    /// A batch ended.
    Ended {
        /// Name of the phase.
        phase: &'static str,
        /// Since its submission.
        elapsed_ms: u64,
    },
    /// A worker has told what an attempt took.
    Usage {
        /// Model of the device.
        device: String,
        /// Device time.
        gpu_ms: u64,
        /// CPU time.
        cpu_ms: u64,
        /// Calls that its GPU was given twice.
        gpu_retries: u32,
        /// Calls that went to the CPU, because the GPU had failed.
        gpu_fallbacks: u32,
    },
    /// A request was refused.
    Refused,
    /// A webhook was tried.
    Called {
        /// Whether that worked.
        is_delivered: bool,
    },
}

/// A webhook that is still to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// Where to.
    pub url: String,
    /// Who signs.
    pub tenant: TenantId,
    /// Failures so far.
    pub tries: u32,
    /// When the next try is due.
    pub due: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    batch: BatchId,
    /// Index of its span.
    span: u32,
    worker: WorkerId,
    session: u64,
    stage: Stage,
    started: Time,
}

/// The state; see the module's page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    format: u32,
    machine: Machine,
    now: Time,
    histories: BTreeMap<BatchId, History>,
    callbacks: BTreeMap<BatchId, Callback>,
    /// Attempts whose end has not been seen.
    open: BTreeMap<AttemptId, Open>,
    verifying: BTreeMap<EffectId, AttemptId>,
    /// Sessions of workers that are here.
    sessions: BTreeMap<WorkerId, u64>,
    /// Bytes of all receipts.
    receipt_bytes: u64,
    /// Sessions that are over, and since when, oldest first.
    over: VecDeque<(Time, WorkerId, u64)>,
    /// What workers say of themselves.
    about: BTreeMap<WorkerId, About>,
    /// Ended batches, oldest first, whose spans are kept.
    with_spans: VecDeque<BatchId>,
    /// Where settlements are kept, once somebody has led who keeps any. The last two fields: see [`State::decode`].
    ledger: Option<Ledger>,
    /// Devices of workers that are out of service, each with the reason; no worker without any.
    lost: BTreeMap<WorkerId, Vec<String>>,
}

/// A checkpoint or record that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Written by another version.
    #[error("the state has format {got}, this program reads {FORMAT}")]
    Format {
        /// Its format.
        got: u32,
    },
    /// Not a checkpoint.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    /// Not a record.
    #[error("record: {0}")]
    Record(String),
    /// Limits that make no sense.
    #[error(transparent)]
    Limits(#[from] LimitError),
}

impl State {
    /// A state that has seen nothing.
    ///
    /// # Errors
    /// [`StateError::Limits`].
    pub fn new(limits: Limits) -> Result<Self, StateError> {
        Ok(Self {
            format: FORMAT,
            machine: Machine::new(limits)?,
            now: Time(0),
            histories: BTreeMap::new(),
            callbacks: BTreeMap::new(),
            receipt_bytes: 0,
            over: VecDeque::new(),
            about: BTreeMap::new(),
            open: BTreeMap::new(),
            verifying: BTreeMap::new(),
            sessions: BTreeMap::new(),
            with_spans: VecDeque::new(),
            ledger: None,
            lost: BTreeMap::new(),
        })
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`StateError::Format`], [`StateError::Checkpoint`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let got = bytes.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
        let read = |bytes: &[u8]| {
            bincode::deserialize(bytes).map_err(|error| StateError::Checkpoint(error.to_string()))
        };
        // What a format does not have: no ledger is a zero, a map without entries eight.
        let completed = |missing: &[u8]| read(&[&FORMAT.to_le_bytes()[..], &bytes[4..], missing].concat());
        match got {
            Some(FORMAT) => read(bytes),
            Some(FORMAT_WITHOUT_HEALTH) => completed(&[0; 8]),
            Some(FORMAT_WITHOUT_LEDGER) => completed(&[0; 9]),
            Some(got) => Err(StateError::Format { got }),
            None => Err(StateError::Checkpoint("shorter than its format number".into())),
        }
    }

    /// The bytes of a checkpoint; they begin with [`FORMAT`].
    pub fn encode(&self) -> Vec<u8> {
        crate::wire::binary(self)
    }

    /// Where this deployment's settlements are kept, once that is known.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// The schedule.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The schedule's time at the last record.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The term in which the state was changed last.
    pub fn epoch(&self) -> Epoch {
        self.machine.epoch()
    }

    /// What has happened to a batch.
    pub fn history(&self, batch: BatchId) -> Option<&History> {
        self.histories.get(&batch)
    }

    /// A batch of a tenant; another tenant's is not there.
    pub fn history_of(&self, tenant: TenantId, batch: BatchId) -> Option<&History> {
        self.histories.get(&batch).filter(|history| history.spec.tenant == tenant)
    }

    /// All batches, oldest first.
    pub fn histories(&self) -> impl DoubleEndedIterator<Item = (BatchId, &History)> {
        self.histories.iter().map(|(id, history)| (*id, history))
    }

    /// Webhooks that are still to be sent.
    pub fn callbacks(&self) -> impl Iterator<Item = (BatchId, &Callback)> {
        self.callbacks.iter().map(|(id, callback)| (*id, callback))
    }

    /// The session in which an attempt runs.
    pub fn session_of(&self, attempt: AttemptId) -> Option<(WorkerId, u64)> {
        self.open.get(&attempt).map(|open| (open.worker, open.session))
    }

    /// The session of a worker that is here.
    pub fn session(&self, worker: WorkerId) -> Option<u64> {
        self.sessions.get(&worker).copied()
    }

    /// What a worker says of itself.
    pub fn about(&self, worker: WorkerId) -> Option<&About> {
        self.about.get(&worker)
    }

    /// Devices of a worker that are out of service, each with the reason.
    pub fn lost(&self, worker: WorkerId) -> &[String] {
        self.lost.get(&worker).map_or(&[], Vec::as_slice)
    }

    /// The model of a worker's devices; a worker with several kinds of them is `mixed`.
    pub(crate) fn device(&self, worker: WorkerId) -> String {
        let Some(about) = self.about.get(&worker) else { return "unknown".into() };
        match about.devices.split_first() {
            None => "cpu".into(),
            Some((first, rest)) if rest.iter().all(|other| other == first) => first.clone(),
            Some(_) => "mixed".into(),
        }
    }

    /// Kinds of the attempts that have not ended.
    pub fn running(&self) -> impl Iterator<Item = Kind> + '_ {
        self.open.values().map(|open| open.stage.kind())
    }

    /// All sessions.
    pub fn sessions(&self) -> impl Iterator<Item = (WorkerId, u64)> + '_ {
        self.sessions.iter().map(|(worker, session)| (*worker, *session))
    }

    /// Takes one record.
    ///
    /// # Errors
    /// The schedule's; the state is then unchanged, and the record need not be kept. Requests never end in an error:
    /// their refusal is their outcome.
    pub fn apply(&mut self, record: &Record) -> Result<Applied, Error> {
        // The schedule gets what the leader's clock showed, which may have gone back: held up here, it would make the
        // schedule's time stand still until both agree.
        let (read, at) = (record.at, record.at.max(self.machine.now()));
        let mut applied = Applied::default();
        match &record.entry {
            Entry::Event(event) => self.event(event, read, &mut applied)?,
            Entry::Request(request) => {
                let outcome = self.request(&request.command, read, &mut applied);
                if outcome.is_err() {
                    applied.facts.push(Fact::Refused);
                }
                applied.outcome = Some(outcome);
            }
            Entry::About(about) => self.introduce(about),
            Entry::Health(health) => self.complain(health),
            Entry::Receipt(receipt) => self.keep_receipt(receipt, at, &mut applied),
            Entry::Called { batch, is_delivered } => self.called(*batch, *is_delivered, at, &mut applied),
            Entry::Files { batch, files } => self.add_files(*batch, files, &mut applied),
            Entry::Ledger(ledger) => {
                self.ledger.get_or_insert_with(|| ledger.clone());
            }
        }
        self.now = self.machine.now();
        Ok(applied)
    }

    fn request(&mut self, command: &Command, read: Time, applied: &mut Applied) -> Outcome {
        match command {
            Command::Submit(submit) => self.submit(submit, read, applied),
            Command::Cancel { tenant, batch } => {
                let event = Event::Cancel { tenant: *tenant, batch: *batch };
                self.event(&event, read, applied)?;
                Ok(Reply::Cancelled)
            }
        }
    }

    /// `read` is what the leader's clock showed.
    fn event(&mut self, event: &Event, read: Time, applied: &mut Applied) -> Result<(), Error> {
        let effects = self.machine.step(event.clone(), read)?;
        let at = self.machine.now();
        self.observe(event, &effects, at, applied);
        applied.effects.extend(effects);
        if let Event::Tick = event {
            self.forget(applied);
        }
        self.follow_sessions(event, at, applied);
        Ok(())
    }

    /// Notices which worker sessions have begun and ended.
    fn follow_sessions(&mut self, event: &Event, at: Time, applied: &mut Applied) {
        match event {
            Event::Join { worker, session, .. } => {
                let before = self.sessions.insert(*worker, *session);
                applied
                    .ended
                    .extend(before.filter(|before| before != session).map(|before| (*worker, before)));
            }
            Event::Leave { worker, .. } => {
                applied.ended.extend(self.sessions.remove(worker).map(|session| (*worker, session)));
            }
            Event::Tick => {
                let present: BTreeSet<WorkerId> = self
                    .machine
                    .workers()
                    .filter(|worker| worker.present)
                    .map(|worker| worker.worker)
                    .collect();
                let gone = self.sessions.iter().filter(|(worker, _)| !present.contains(worker));
                applied.ended.extend(gone.map(|(worker, session)| (*worker, *session)));
                self.sessions.retain(|worker, _| present.contains(worker));
                let known: BTreeSet<WorkerId> = self.machine.workers().map(|worker| worker.worker).collect();
                self.about.retain(|worker, _| known.contains(worker));
                self.lost.retain(|worker, _| known.contains(worker));
            }
            _ => {}
        }
        self.over.extend(applied.ended.iter().map(|(worker, session)| (at, *worker, *session)));
        while let Some((since, worker, session)) = self.over.front().copied() {
            if at.since(since) < OVER_MS && self.over.len() <= OVER_MAX {
                break;
            }
            self.over.pop_front();
            // The same session may have come back.
            if self.sessions.get(&worker) != Some(&session) {
                applied.removed.push((worker, session));
            }
        }
    }

    /// A worker that is here says what it is; texts are cut, because they become labels.
    fn introduce(&mut self, about: &About) {
        if !self.sessions.contains_key(&about.worker) {
            return;
        }
        let cut = |text: &String| cut(text, ABOUT_MAX);
        let about = About {
            worker: about.worker,
            name: cut(&about.name),
            devices: about.devices.iter().take(ABOUT_MAX).map(cut).collect(),
            build: cut(&about.build),
        };
        self.lost.remove(&about.worker);
        self.about.insert(about.worker, about);
    }

    /// A worker that is here says what is wrong with it.
    fn complain(&mut self, health: &Health) {
        let lost: Vec<String> =
            health.lost.iter().take(ABOUT_MAX).map(|reason| cut(reason, REASON_MAX)).collect();
        if self.sessions.contains_key(&health.worker) && !lost.is_empty() {
            self.lost.insert(health.worker, lost);
        }
    }

    fn called(&mut self, batch: BatchId, is_delivered: bool, at: Time, applied: &mut Applied) {
        let Some(callback) = self.callbacks.get_mut(&batch) else { return };
        applied.facts.push(Fact::Called { is_delivered });
        callback.tries += 1;
        if is_delivered || callback.tries >= webhook::TRIES_MAX {
            self.callbacks.remove(&batch);
        } else {
            callback.due = at.plus(webhook::wait_ms(callback.tries));
        }
    }

    fn add_files(&mut self, batch: BatchId, files: &[ResultFile], applied: &mut Applied) {
        self.drop_receipts(batch, files);
        let Some(history) = self.histories.get_mut(&batch) else {
            applied.stale.push(StaleHold::Files(batch));
            return;
        };
        for file in files {
            history.files.retain(|known| known.name != file.name);
            if history.files.len() < FILES_MAX {
                history.files.push(file.clone());
            }
        }
    }

    /// Forgets what belongs to batches that the schedule has forgotten.
    fn forget(&mut self, applied: &mut Applied) {
        let gone: Vec<BatchId> =
            self.histories.keys().filter(|id| self.machine.phase(**id).is_none()).copied().collect();
        for id in gone {
            let history = self.histories.remove(&id);
            let bytes =
                history.iter().flat_map(|history| history.receipts.values()).map(String::len).sum::<usize>();
            self.receipt_bytes = self.receipt_bytes.saturating_sub(bytes as u64);
            self.callbacks.remove(&id);
            if history.is_some_and(|history| !history.files.is_empty()) {
                applied.stale.push(StaleHold::Files(id));
            }
        }
    }
}

/// The bytes of a record.
pub fn encode_record(record: &Record) -> Vec<u8> {
    crate::wire::json(record)
}

/// Reads a record.
///
/// # Errors
/// [`StateError::Record`].
pub fn decode_record(bytes: &[u8]) -> Result<Record, StateError> {
    serde_json::from_slice(bytes).map_err(|error| StateError::Record(error.to_string()))
}

/// The first characters of a text that can be shown.
fn cut(text: &str, max: usize) -> String {
    text.chars().filter(|char| !char.is_control()).take(max).collect()
}
