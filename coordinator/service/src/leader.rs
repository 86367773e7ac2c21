//! The event loop: lead, or follow who leads.
//!
//! ```text
//! stand by ──lease──▶ load, replay, TakeOver ──▶ turn ⟲ ──fenced, lease lost──▶ stand by
//!    │ follows what is committed                  │ inbox, answers of own work, clock
//!    └── serves the API                           └─ step, commit; then replies, work, webhooks
//! ```
//! A turn takes what has come, steps the state, and commits records and mails as one. The state is locked meanwhile, so
//! that nobody sees what may be undone. What cannot be committed because somebody else leads is forgotten together with
//! the state. Work is begun after the commit that asks for it, and asked for again by the leader that comes next.

mod follow;
mod pieces;
mod pressure;
mod standbys;
mod sweep;
mod term;
mod turn;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_queue::{ArtifactStore, Bound, Epoch, QueueError, TaskQueue};
use assay_schedule::{ChainId, Limits, Time};
use tokio::sync::watch;

use crate::keys::KeyRing;
use crate::metrics::Metrics;
use crate::request::ClusterKey;
use crate::shared::{Role, Shared};
use crate::state::{State, StateError};
use crate::webhook;
use crate::work::{Ledger, Settler, Verifier, WorkLimits};

/// Pause after a term that the queue has ended.
const FAILURE_TIME: Duration = Duration::from_millis(250);

/// Times and bounds of the event loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderConfig {
    /// How long the lease lasts; renewed three times in it.
    pub lease: Duration,
    /// Time between ticks of the schedule.
    pub tick: Duration,
    /// Events taken in one turn.
    pub turn_events_max: usize,
    /// Records after which a checkpoint is made; up to 16 times as many while the state is large and the log short.
    pub checkpoint_records: u64,
    /// Bytes of records after which a checkpoint is made; well below the queue's bound on them.
    pub checkpoint_bytes: u64,
    /// Time after which a checkpoint is made, if anything has happened.
    pub checkpoint_time: Duration,
    /// Largest record or mail; the queue's own limit may not be lower.
    pub message_bytes_max: usize,
    /// Time between sweeps for artifacts that nobody knows of.
    pub sweep_time: Duration,
    /// How long a shutdown tries to commit what is under way.
    pub stop_time: Duration,
    /// How far this coordinator's clock is ahead of the machine's; 0 but in tests of clocks that differ.
    pub clock_offset_ms: i64,
}

impl Default for LeaderConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            tick: Duration::from_secs(1),
            turn_events_max: 512,
            checkpoint_records: 4096,
            checkpoint_bytes: 64 << 20,
            checkpoint_time: Duration::from_secs(60),
            message_bytes_max: 1 << 20,
            sweep_time: Duration::from_secs(600),
            stop_time: Duration::from_secs(5),
            clock_offset_ms: 0,
        }
    }
}

/// Why a coordinator ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaderError {
    /// The stored state cannot be used by this program.
    #[error(transparent)]
    State(#[from] StateError),
    /// The queue fails for good.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// This coordinator would settle a second time what the deployment has settled.
    #[error(
        "this deployment settles in {} (ledger {}), and this coordinator has {}: all coordinators of a deployment need the same \
         one",
        .expected.place,
        .expected.id,
        named(.got.as_ref())
    )]
    Ledger {
        /// The deployment's.
        expected: Ledger,
        /// This coordinator's.
        got: Option<Ledger>,
    },
    /// This coordinator's ledger lacks what the deployment has settled, and the state does not say where that is.
    #[error(
        "this deployment has settled batches of chain {chain}, and {} (ledger {}) has none of them: all coordinators of a \
         deployment need the folder in which it settles",
        .got.place,
        .got.id
    )]
    NoTrunk {
        /// A rollup whose history is missing.
        chain: ChainId,
        /// This coordinator's.
        got: Ledger,
    },
}

fn named(ledger: Option<&Ledger>) -> String {
    match ledger {
        Some(ledger) => format!("another one in {} (ledger {})", ledger.place, ledger.id),
        None => "none".to_owned(),
    }
}

/// What a coordinator is made of.
pub struct Parts {
    /// Log, inbox, mailboxes.
    pub queue: Arc<dyn TaskQueue>,
    /// Artifacts.
    pub store: Arc<dyn ArtifactStore>,
    /// Checks results.
    pub verifier: Arc<dyn Verifier>,
    /// Posts proofs.
    pub settler: Arc<dyn Settler>,
    /// Sends webhooks.
    pub webhooks: webhook::Sender,
    /// Holds the secrets that webhooks are signed with.
    pub keys: Arc<KeyRing>,
    /// What coordinators authenticate their requests with.
    pub cluster: ClusterKey,
    /// Counted into.
    pub metrics: Arc<Metrics>,
}

/// A coordinator.
pub struct Coordinator {
    parts: Parts,
    limits: Limits,
    work: WorkLimits,
    config: LeaderConfig,
    shared: Arc<Shared>,
    holder: String,
    /// The last term ended because the log was full: the next one has to make room first.
    is_log_full: AtomicBool,
}

/// How a term ended.
enum End {
    /// Somebody else leads, or might.
    Deposed,
    /// The queue was put back to an older state than this leader's.
    PutBack,
    /// The process is to stop.
    Stopped,
}

impl Coordinator {
    /// A coordinator. `limits` hold for a deployment that has no state yet; later ones keep theirs.
    pub fn new(
        parts: Parts,
        limits: Limits,
        work: WorkLimits,
        config: LeaderConfig,
        shared: Arc<Shared>,
    ) -> Self {
        let holder = format!("coordinator-{}-{:016x}", std::process::id(), rand::random::<u64>());
        Self { parts, limits, work, config, shared, holder, is_log_full: AtomicBool::default() }
    }

    /// Runs until `stop` holds `true` or is dropped.
    ///
    /// # Errors
    /// [`LeaderError`] if this program can never work with what is stored. A queue that cannot be reached is waited for.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) -> Result<(), LeaderError> {
        let mut follower = follow::Follower::new();
        loop {
            let Some(epoch) = self.stand_by(&mut follower, &mut stop).await? else { return Ok(()) };
            tracing::info!(epoch = epoch.0, "leading");
            self.shared.set_role(Role::Leading { epoch: epoch.0 });
            let end = self.lead(epoch, &mut stop).await;
            self.shared.set_role(Role::Standby);
            follower = follow::Follower::new();
            match end {
                Ok(End::Stopped) => return Ok(()),
                Ok(End::PutBack) => {
                    // What was lost counts for nobody: a new epoch begins with what is stored.
                    self.resign(epoch).await;
                    let _ = tokio::time::timeout(FAILURE_TIME, stopped(stop.clone())).await;
                }
                Ok(End::Deposed) => tracing::warn!(epoch = epoch.0, "not leading any more"),
                Err(LeaderError::Queue(error)) if error.class() == assay_queue::Class::Transient => {
                    tracing::warn!(%error, "the queue fails");
                    if let QueueError::Full { bound: Bound::Records | Bound::RecordBytes, .. } = error {
                        self.is_log_full.store(true, Ordering::Relaxed);
                    }
                    // It may fail at once every time: a full log does, until somebody makes room.
                    let _ = tokio::time::timeout(FAILURE_TIME, stopped(stop.clone())).await;
                }
                Err(error) => {
                    // Somebody else may be able to.
                    self.resign(epoch).await;
                    return Err(error);
                }
            }
        }
    }

    async fn resign(&self, epoch: Epoch) {
        match tokio::time::timeout(self.config.stop_time, self.parts.queue.resign(epoch)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot resign"),
            Err(_) => tracing::warn!("cannot resign: the queue does not answer"),
        }
    }

    /// Whether this coordinator may settle for the deployment; what the state has still to be told.
    fn claim_ledger(&self, state: &State) -> Result<Option<Ledger>, LeaderError> {
        let ours = self.parts.settler.ledger();
        let settler = &self.parts.settler;
        match (state.ledger(), ours) {
            (None, Some(got)) => {
                match state.machine().settled_chains().find(|chain| !settler.has_trunk(*chain)) {
                    Some(chain) => Err(LeaderError::NoTrunk { chain, got }),
                    None => Ok(Some(got)),
                }
            }
            (None, None) => Ok(None),
            (Some(known), Some(ours)) if known.id == ours.id => Ok(None),
            (Some(known), got) => Err(LeaderError::Ledger { expected: known.clone(), got }),
        }
    }

    /// Follows until this coordinator has the lease; `None` when it is to stop.
    async fn stand_by(
        &self,
        follower: &mut follow::Follower,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<Epoch>, LeaderError> {
        loop {
            if is_stopped(stop) {
                return Ok(None);
            }
            let lead = self.parts.queue.lead(&self.holder, self.config.lease);
            let led = tokio::select! {
                led = lead => led,
                () = stopped(stop.clone()) => return Ok(None),
            };
            match led {
                Ok(Some(epoch)) => return Ok(Some(epoch)),
                Ok(None) => self.shared.hear(),
                Err(error) if error.class() == assay_queue::Class::Transient => {
                    tracing::warn!(%error, "the queue fails");
                }
                Err(error) => return Err(error.into()),
            }
            let until = tokio::time::Instant::now() + self.config.lease / 3;
            let follow = async {
                self.follow(follower, until).await?;
                tokio::time::sleep_until(until).await;
                Ok::<(), LeaderError>(())
            };
            tokio::select! {
                followed = follow => followed?,
                () = stopped(stop.clone()) => return Ok(None),
            }
        }
    }
}

fn is_stopped(stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow() || stop.has_changed().is_err()
}

/// Ready when the process is to stop.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error says that the sender is gone, which means the same.
    let _ = stop.wait_for(|is_stopped| *is_stopped).await;
}

/// This machine's clock, and how far another one is ahead of it.
fn now(offset_ms: i64) -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(offset_ms))
}
