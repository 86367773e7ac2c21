//! The machine: state, and one step.
//!
//! Handlers first refuse, then change: an event that is answered with an error has changed nothing.

mod check;
mod dispatch;
mod intake;
mod lifecycle;
mod query;
mod results;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::config::LimitError;
use crate::worker::{Attempt, Speed, Worker};
use crate::{
    Artifact, AttemptId, BatchId, ChainId, Effect, EffectId, Epoch, Error, Event, Kind, Limits, PerKind,
    Stage, TenantId, Time, WorkerId,
};

pub use query::{BatchStatus, TaskStatus, Wait, WorkerStatus};

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
}

/// Tasks that compete alike: the dispatcher looks at the first few of each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Class {
    pub kind: Kind,
    pub version: u32,
    pub tenant: TenantId,
}

/// Order of ready tasks, smallest first: priority, the latest time to start (deadline less the rest of the critical
/// path), age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Rank {
    pub priority: std::cmp::Reverse<u8>,
    pub start_by: u64,
    pub batch: BatchId,
    pub node: u32,
}

/// The coordinator's decisions; see the crate's page.
///
/// Serialise it with a binary format (maps have keys that are not strings). Outstanding effects are part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    limits: Limits,
    #[cfg(feature = "simulate")]
    weak: Weak,
    epoch: Epoch,
    now: Time,
    batches: BTreeMap<BatchId, Batch>,
    /// Ended batches, oldest first.
    ended: VecDeque<BatchId>,
    keys: BTreeMap<(TenantId, String), BatchId>,
    chains: BTreeMap<ChainId, Chain>,
    tenants: BTreeMap<TenantId, Usage>,
    workers: BTreeMap<WorkerId, Worker>,
    attempts: BTreeMap<AttemptId, Attempt>,
    pending: BTreeMap<EffectId, Effect>,
    ready: BTreeMap<Class, BTreeSet<Rank>>,
    /// Ready tasks that wait before their next try.
    delayed: BTreeSet<(Time, BatchId, u32)>,
    estimates: PerKind<Speed>,
    /// Bytes of artifacts held.
    held_bytes: u64,
    store_available: bool,
    store_full: bool,
    poison: VecDeque<Poison>,
    next_batch: u64,
    next_attempt: u64,
    next_effect: u64,
    /// Effects issued by the step that runs.
    #[serde(skip)]
    issued: Vec<EffectId>,
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
            batches: BTreeMap::new(),
            ended: VecDeque::new(),
            keys: BTreeMap::new(),
            chains: BTreeMap::new(),
            tenants: BTreeMap::new(),
            workers: BTreeMap::new(),
            attempts: BTreeMap::new(),
            pending: BTreeMap::new(),
            ready: BTreeMap::new(),
            delayed: BTreeSet::new(),
            estimates: PerKind([Speed::default(); 7]),
            held_bytes: 0,
            store_available: true,
            store_full: false,
            poison: VecDeque::new(),
            next_batch: 0,
            next_attempt: 0,
            next_effect: 0,
            issued: Vec::new(),
        })
    }

    /// Breaks the machine on purpose.
    #[cfg(feature = "simulate")]
    pub fn weaken(&mut self, weak: Weak) {
        self.weak = weak;
    }

    /// Takes one event and returns the effects to carry out now.
    ///
    /// `now` is the leader's clock; a clock that goes back stands still. The state must be stored before an effect is
    /// carried out.
    ///
    /// # Errors
    /// [`Error`]; the state is then unchanged.
    pub fn step(&mut self, event: Event, now: Time) -> Result<Vec<Effect>, Error> {
        if self.epoch == Epoch(0) && !matches!(event, Event::TakeOver { .. }) {
            return Err(Error::NoLeader);
        }
        let now = now.max(self.now);
        match event {
            Event::TakeOver { epoch } => return self.take_over(epoch, now),
            Event::Submit { spec } => self.submit(spec, now)?,
            Event::Cancel { tenant, batch } => self.cancel(tenant, batch, now)?,
            Event::Join { worker, session, profile } => self.join(worker, session, profile, now)?,
            Event::Heartbeat { worker, session, running } => {
                self.heartbeat(worker, session, &running, now)?
            }
            Event::Leave { worker, session } => self.leave(worker, session, now)?,
            Event::Result { worker, session, attempt, report } => {
                self.result(worker, session, attempt, report, now)?;
            }
            Event::Verified { effect, verdict } => self.verified(effect, verdict, now)?,
            Event::Settled { effect } => self.settled(effect, now)?,
            Event::SettleFailed { effect, permanent, reason } => {
                self.settle_failed(effect, permanent, &reason, now)?;
            }
            Event::Done { effect } => self.done(effect)?,
            Event::Store { available, full } => {
                self.store_available = available;
                self.store_full = full;
            }
            Event::Tick => self.tick(now),
        }
        self.now = now;
        self.schedule(now);
        Ok(self.take_issued())
    }

    fn take_issued(&mut self) -> Vec<Effect> {
        let issued = std::mem::take(&mut self.issued);
        issued.iter().filter_map(|id| self.pending.get(id)).cloned().collect()
    }

    /// Begins a term: every outstanding effect is issued again, and every worker gets a fresh lease, because it may have
    /// found nobody to renew it with.
    fn take_over(&mut self, epoch: Epoch, now: Time) -> Result<Vec<Effect>, Error> {
        if epoch <= self.epoch {
            return Err(Error::StaleEpoch { have: self.epoch, got: epoch });
        }
        self.epoch = epoch;
        self.now = now;
        let lease_until = now.plus(self.limits.worker_lease_ms);
        for worker in self.workers.values_mut().filter(|worker| worker.session.is_some()) {
            worker.lease_until = lease_until;
        }
        for effect in self.pending.values_mut() {
            effect.epoch = epoch;
        }
        #[cfg(feature = "simulate")]
        if self.weak.memo {
            self.forget_finished(now);
        }
        self.schedule(now);
        self.issued.clear();
        Ok(self.pending.values().cloned().collect())
    }

    fn tick(&mut self, now: Time) {
        self.expire_workers(now);
        self.expire_attempts(now);
        self.fail_hopeless(now);
        self.forget(now);
    }

    fn batch(&self, id: BatchId) -> &Batch {
        self.batches.get(&id).expect("attempts, effects and ranks name batches that are kept")
    }

    fn batch_mut(&mut self, id: BatchId) -> &mut Batch {
        self.batches.get_mut(&id).expect("attempts, effects and ranks name batches that are kept")
    }
}
