//! What the event loop and the API share: the state as committed, and who waits for which answer.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch, RwLock, RwLockReadGuard, RwLockWriteGuard};

use assay_schedule::BatchId;

use crate::request::RequestId;
use crate::state::{Outcome, State};

/// Requests that wait for an answer.
const WAITING_MAX: usize = 4096;
/// How long a reader waits for the state while the leader commits.
const READ_TIME: Duration = Duration::from_secs(3);

/// What this coordinator does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows what the leader commits.
    #[default]
    Standby,
    /// Leads in this term.
    Leading {
        /// The term.
        epoch: u64,
    },
}

/// Why a reader gets no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing has been loaded yet, or another coordinator has taken over just now.
    #[error("the coordinator is starting")]
    NoState,
    /// A commit has been under way for too long: the queue does not answer.
    #[error("the queue does not answer")]
    Busy,
}

/// See the module's page.
///
/// The leader holds the lock from a step to the commit that makes it true, so that no reader ever sees what may still be
/// undone.
#[derive(Default)]
pub struct Shared {
    state: RwLock<Option<State>>,
    version: watch::Sender<u64>,
    role: Mutex<Role>,
    waiting: Mutex<HashMap<RequestId, oneshot::Sender<Outcome>>>,
    /// Batches whose work this term leaves to another coordinator, and why.
    left: Mutex<BTreeMap<BatchId, String>>,
    /// When the queue was last heard of.
    heard: Mutex<Option<Instant>>,
}

impl Shared {
    /// The state as committed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&self) -> Result<RwLockReadGuard<'_, State>, ReadError> {
        let guard = tokio::time::timeout(READ_TIME, self.state.read()).await.map_err(|_| ReadError::Busy)?;
        RwLockReadGuard::try_map(guard, Option::as_ref).map_err(|_| ReadError::NoState)
    }

    /// The state, for its only writer: the event loop.
    pub(crate) async fn write(&self) -> RwLockWriteGuard<'_, Option<State>> {
        self.state.write().await
    }

    /// Tells everybody who watches that the state is another one.
    pub(crate) fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Changes with every change of the state.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// What this coordinator does.
    pub fn role(&self) -> Role {
        *self.role.lock()
    }

    pub(crate) fn set_role(&self, role: Role) {
        *self.role.lock() = role;
        self.left.lock().clear();
    }

    /// This term leaves work of these batches to another coordinator.
    pub(crate) fn leave(&self, batches: Vec<(BatchId, String)>, state: &State) {
        if !batches.is_empty() {
            let mut left = self.left.lock();
            left.extend(batches);
            left.retain(|batch, _| is_live(state, *batch));
        }
    }

    /// What is left to other coordinators, a line for each reason.
    pub(crate) fn left(&self, state: &State) -> Vec<String> {
        let mut reasons: BTreeMap<String, Vec<BatchId>> = BTreeMap::new();
        for (batch, reason) in self.left.lock().iter().filter(|(batch, _)| is_live(state, **batch)) {
            reasons.entry(reason.clone()).or_default().push(*batch);
        }
        let line = |(reason, batches): (String, Vec<BatchId>)| match batches.as_slice() {
            [batch] => format!("batch {batch} waits: {reason}"),
            all => format!("{} batches wait, {} first: {reason}", all.len(), all[0]),
        };
        reasons.into_iter().map(line).collect()
    }

    /// The queue has answered.
    pub(crate) fn hear(&self) {
        *self.heard.lock() = Some(Instant::now());
    }

    /// How long the queue has not been heard of; `None` if it never was.
    pub fn silence(&self) -> Option<Duration> {
        self.heard.lock().map(|heard| heard.elapsed())
    }

    /// Begins to wait for the answer to a request; `None` if too many wait.
    pub(crate) fn expect(&self, id: RequestId) -> Option<oneshot::Receiver<Outcome>> {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING_MAX {
            waiting.retain(|_, sender| !sender.is_closed());
        }
        if waiting.len() >= WAITING_MAX {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        waiting.insert(id, sender);
        Some(receiver)
    }

    /// Nobody waits any more.
    pub(crate) fn forget(&self, id: RequestId) {
        self.waiting.lock().remove(&id);
    }

    /// Hands an answer to whoever waits for it here.
    pub(crate) fn answer(&self, id: RequestId, outcome: Outcome) {
        if let Some(sender) = self.waiting.lock().remove(&id) {
            // Who asked may have gone away.
            let _ = sender.send(outcome);
        }
    }
}

fn is_live(state: &State, batch: BatchId) -> bool {
    state.history(batch).is_some_and(|history| history.ended.is_none())
}
