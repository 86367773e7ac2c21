//! The machine: state, and one step.
//!
//! Handlers first refuse, then change: an event that is answered with an error has changed nothing.

mod accept;
mod check;
mod dispatch;
mod end;
mod estimate;
mod intake;
mod lifecycle;
mod parts;
mod pool;
mod query;
mod reserve;
mod results;
mod settlement;
mod verdicts;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Node};
use crate::config::LimitError;
use crate::worker::{Attempt, Speed, Worker};
use crate::{
    Artifact, AttemptId, BatchId, ChainId, Effect, EffectId, Epoch, Error, Event, Hash, Kind, Limits,
    PerKind, Stage, TenantId, Time, WorkerId,
};
use pool::{Pool, PoolKey};

pub(crate) use pool::Rank;
pub use query::{BatchStatus, ChainStatus, TaskStatus, Wait, WorkerStatus};

/// Switches that break the machine on purpose, to show that the simulator notices.
#[cfg(feature = "simulate")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weak {
    /// Accept results without verifying them.
    pub verification: bool,
    /// Do not compare what the store holds with what the worker claimed.
    pub checksum: bool,
    /// Forget finished tasks at a takeover.
    pub memo: bool,
    /// Do not issue outstanding work again at a takeover.
    pub reissue: bool,
    /// Do not look for the idempotency key.
    pub idempotency: bool,
    /// Take an attempt's result as often as it comes.
    pub repeats: bool,
    /// Do not check what controllers ask for.
    pub requests: bool,
    /// Keep the parts of a controller that lied.
    pub trust: bool,
    /// A part that cannot be done ends its batch.
    pub blame: bool,
    /// Send tasks while the store cannot be reached.
    pub availability: bool,
    /// Send tasks that need room while the store is full.
    pub back_pressure: bool,
    /// Controllers that do nothing are never taken back.
    pub idleness: bool,
}

/// A task that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poison {
    /// Its batch.
    pub batch: BatchId,
    /// The task.
    pub stage: Stage,
    /// The last failure.
    pub reason: String,
    /// When.
    pub at: Time,
}

/// A rollup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chain {
    pub tenant: TenantId,
    /// Commitment to the state before the first batch.
    pub genesis: Hash,
    /// Commitment to the state after the last batch that was taken.
    pub head: Hash,
    /// Number of the next batch that is taken.
    pub next: u64,
    /// Number of batches settled.
    pub settled: u64,
    /// Fold proof of the last settled batch.
    pub tip: Option<Artifact>,
    /// Batches that have not ended, by number.
    pub live: BTreeMap<u64, BatchId>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub live: u32,
    pub running: u32,
    pub controllers: u32,
}

/// The coordinator's decisions; see the crate's page.
///
/// Serialise it with a binary format (maps have keys that are not strings). Outstanding work is part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    limits: Limits,
    #[cfg(feature = "simulate")]
    weak: Weak,
    epoch: Epoch,
    now: Time,
    clock: Clock,
    /// The last tick, or the beginning of the term.
    ticked: Time,
    batches: BTreeMap<BatchId, Batch>,
    /// Ended batches, oldest first.
    ended: VecDeque<BatchId>,
    keys: BTreeMap<(TenantId, String), BatchId>,
    chains: BTreeMap<ChainId, Chain>,
    tenants: BTreeMap<TenantId, Usage>,
    workers: BTreeMap<WorkerId, Worker>,
    attempts: BTreeMap<AttemptId, Attempt>,
    /// Work that is not answered.
    pending: BTreeMap<EffectId, Effect>,
    /// Audits of parts' outputs: the part's batch and number.
    audits: BTreeMap<EffectId, (BatchId, u32)>,
    pools: BTreeMap<PoolKey, Pool>,
    /// Workers that are kept clear, and for which task, since the last tick.
    reserved: BTreeMap<WorkerId, (BatchId, u32)>,
    /// Ready tasks that wait for their time.
    delayed: BTreeSet<(Time, BatchId, u32)>,
    estimates: PerKind<Speed>,
    /// Bytes of artifacts held.
    held_bytes: u64,
    /// Since when queue or store cannot be reached.
    store_away_since: Option<Time>,
    store_full: bool,
    poison: VecDeque<Poison>,
    next_batch: u64,
    next_attempt: u64,
    next_effect: u64,
    #[serde(skip)]
    issued: Issued,
}

/// The leader's clock, as it was read last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Clock {
    read: Time,
    /// Half a millisecond is left over.
    is_half: bool,
}

impl Clock {
    /// The machine's time after `now`, if the clock shows `read`. It never goes back. When the clock did (another leader, a
    /// correction), time goes on at half the clock's speed until both agree again, so that nothing has to wait for that.
    fn advance(&mut self, now: Time, read: Time) -> Time {
        let passed_ms = read.since(self.read);
        self.read = read;
        if read >= now {
            self.is_half = false;
            return read;
        }
        let halves = passed_ms.saturating_add(u64::from(self.is_half));
        self.is_half = halves % 2 == 1;
        now.plus(halves / 2)
    }
}

/// What the step that runs has issued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Issued {
    messages: Vec<Effect>,
    work: Vec<EffectId>,
    /// To become pieces of work, many in one.
    releases: Vec<(BatchId, Artifact)>,
    fences: Vec<(BatchId, AttemptId)>,
}

impl Machine {
    /// A machine that has seen nothing. The first event must be [`Event::TakeOver`].
    ///
    /// # Errors
    /// [`LimitError`] if no work could be done under these limits.
    pub fn new(limits: Limits) -> Result<Self, LimitError> {
        limits.validate()?;
        Ok(Self {
            limits,
            #[cfg(feature = "simulate")]
            weak: Weak::default(),
            epoch: Epoch(0),
            now: Time(0),
            clock: Clock::default(),
            ticked: Time(0),
            batches: BTreeMap::new(),
            ended: VecDeque::new(),
            keys: BTreeMap::new(),
            chains: BTreeMap::new(),
            tenants: BTreeMap::new(),
            workers: BTreeMap::new(),
            attempts: BTreeMap::new(),
            pending: BTreeMap::new(),
            audits: BTreeMap::new(),
            pools: BTreeMap::new(),
            reserved: BTreeMap::new(),
            delayed: BTreeSet::new(),
            estimates: PerKind([Speed::default(); Kind::ALL.len()]),
            held_bytes: 0,
            store_away_since: None,
            store_full: false,
            poison: VecDeque::new(),
            next_batch: 0,
            next_attempt: 0,
            next_effect: 0,
            issued: Issued::default(),
        })
    }

    /// Breaks the machine on purpose.
    #[cfg(feature = "simulate")]
    pub fn weaken(&mut self, weak: Weak) {
        self.weak = weak;
    }

    /// Takes one event and returns the effects to carry out now: messages first, then work.
    ///
    /// `now` is the leader's clock. If it goes back, the machine's time goes on more slowly until both agree. Event and time
    /// go into the log, in one commit with the messages, before work is begun. The same events at the same times give an
    /// equal machine.
    ///
    /// # Errors
    /// [`Error`]; the state is then unchanged, and the event need not go into the log.
    pub fn step(&mut self, event: Event, now: Time) -> Result<Vec<Effect>, Error> {
        if self.epoch == Epoch(0) && !matches!(event, Event::TakeOver { .. }) {
            return Err(Error::NoLeader);
        }
        let before = (self.now, self.clock);
        self.now = self.clock.advance(self.now, now);
        let is_takeover = matches!(event, Event::TakeOver { .. });
        #[cfg(feature = "simulate")]
        let is_takeover = is_takeover && !self.weak.reissue;
        if let Err(error) = self.apply(event) {
            (self.now, self.clock) = before;
            return Err(error);
        }
        self.schedule();
        self.flush();
        let issued = std::mem::take(&mut self.issued);
        let mut effects = issued.messages;
        if is_takeover {
            effects.extend(self.pending.values().cloned());
        } else {
            // Issued and withdrawn in the same step: never asked for.
            effects.extend(issued.work.iter().filter_map(|id| self.pending.get(id)).cloned());
        }
        Ok(effects)
    }

    fn apply(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::TakeOver { epoch } => self.take_over(epoch),
            Event::Submit { spec } => self.submit(spec),
            Event::Cancel { tenant, batch } => self.cancel(tenant, batch),
            Event::Join { worker, session, profile } => self.join(worker, session, profile),
            Event::Heartbeat { worker, session, running } => self.heartbeat(worker, session, &running),
            Event::Leave { worker, session } => self.leave(worker, session),
            Event::Result { worker, session, attempt, report } => {
                self.result(worker, session, attempt, report)
            }
            Event::Spawn { worker, session, attempt, parts } => self.spawn(worker, session, attempt, parts),
            Event::PartLost { worker, session, attempt, key, output } => {
                self.part_lost(worker, session, attempt, key, output)
            }
            Event::Verified { effect, verdict } => self.verified(effect, verdict),
            Event::Settled { effect } => self.settled(effect),
            Event::SettleFailed { effect, permanent, reason } => {
                self.settle_failed(effect, permanent, reason)
            }
            Event::Done { effects } => self.done(&effects),
            Event::Store { available, full } => {
                self.store_changed(available, full);
                Ok(())
            }
            Event::Tick => {
                self.tick();
                Ok(())
            }
        }
    }

    /// Begins a term: all outstanding work is issued again, and every worker gets a fresh lease, because it may have
    /// found nobody to renew it with. What is known of queue and store may be old: they count as well until told otherwise.
    fn take_over(&mut self, epoch: Epoch) -> Result<(), Error> {
        if epoch <= self.epoch {
            return Err(Error::StaleEpoch { have: self.epoch, got: epoch });
        }
        self.epoch = epoch;
        self.store_changed(true, false);
        self.notice_absence();
        self.renew_leases();
        for effect in self.pending.values_mut() {
            effect.epoch = epoch;
        }
        #[cfg(feature = "simulate")]
        if self.weak.memo {
            self.forget_finished();
        }
        Ok(())
    }

    fn tick(&mut self) {
        self.notice_absence();
        self.settle_due();
        self.expire_workers();
        self.end_quarantines();
        self.expire_attempts();
        self.evict_controllers();
        self.reserve();
        self.fail_hopeless();
        self.duplicate_stragglers();
        self.forget();
    }

    fn batch(&self, id: BatchId) -> &Batch {
        self.batches.get(&id).expect("attempts, effects and ranks name batches that are kept")
    }

    fn batch_mut(&mut self, id: BatchId) -> &mut Batch {
        self.batches.get_mut(&id).expect("attempts, effects and ranks name batches that are kept")
    }

    fn node(&self, id: BatchId, node: u32) -> &Node {
        self.batch(id).node(node)
    }

    fn node_mut(&mut self, id: BatchId, node: u32) -> &mut Node {
        self.batch_mut(id).node_mut(node)
    }
}
