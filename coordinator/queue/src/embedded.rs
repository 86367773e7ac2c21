//! The queue in one process, in memory or kept in a folder.

mod state;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::bells::Bells;
use crate::error::{BackendError, QueueError};
use crate::journal::{lock_folder, Durability, Journal};
use crate::limits::QueueLimits;
use crate::queue::{check, deadline, page, TaskQueue};
use crate::types::{Commit, Committed, Cursor, Epoch, Health, Leader, Mailbox, Page, Position, Stored};
use state::{Change, State};

const MAGIC: [u8; 8] = *b"assayqu1";
/// The journal is written anew when it is larger than this and than twice what it has to hold.
const COMPACT_BYTES_MIN: u64 = 64 << 20;
/// Name of the inbox's bell; no mailbox can have it.
const INBOX: &str = "";

/// [`TaskQueue`] of one process. Clones share it.
///
/// With a folder it survives the death of the process at any moment: every change is in a file before it is answered.
/// The lease does not survive: whoever held it is dead too.
#[derive(Clone)]
pub struct EmbeddedQueue {
    shared: Arc<Shared>,
}

struct Shared {
    limits: QueueLimits,
    bells: Bells,
    core: Mutex<Core>,
    is_stored: bool,
}

struct Core {
    state: State,
    bells: Bells,
    lease_until: Option<Instant>,
    journal: Option<Journal>,
    compact_at: u64,
    /// Keeps other processes out of the folder.
    _lock: Option<File>,
}

impl EmbeddedQueue {
    /// A queue that ends with the process.
    pub fn in_memory(limits: QueueLimits) -> Self {
        Self::with_core(limits, State::default(), None, None)
    }

    /// A queue that is kept in `folder`, which is created.
    ///
    /// # Errors
    /// [`BackendError::InUse`], [`BackendError::Journal`], [`BackendError::File`].
    pub fn open(folder: &Path, limits: QueueLimits, durability: Durability) -> Result<Self, BackendError> {
        let lock = lock_folder(folder)?;
        let mut state = State::default();
        let journal = Journal::open(&folder.join("queue.journal"), MAGIC, durability, |payload| {
            let change = bincode::deserialize(payload).map_err(|_| "a change does not decode")?;
            state.apply(change);
            Ok(())
        })?;
        state.holder.clear();
        Ok(Self::with_core(limits, state, Some(journal), Some(lock)))
    }

    fn with_core(limits: QueueLimits, state: State, journal: Option<Journal>, lock: Option<File>) -> Self {
        let is_stored = journal.is_some();
        let compact_at = COMPACT_BYTES_MIN.max(2 * state.bytes());
        let bells = Bells::new(false);
        let core = Core { state, bells: bells.clone(), lease_until: None, journal, compact_at, _lock: lock };
        let shared = Shared { limits, bells, core: Mutex::new(core), is_stored };
        Self { shared: Arc::new(shared) }
    }

    /// Everything that it remembers, for a test that puts it back later.
    ///
    /// # Panics
    /// If the state does not encode, which is a bug.
    #[cfg(feature = "testing")]
    pub fn snapshot(&self) -> Vec<u8> {
        bincode::serialize(&self.shared.lock().state).expect("numbers, bytes and names encode")
    }

    /// Puts an older state back, as a server does that has lost what was written last. Whoever led then leads on.
    ///
    /// # Panics
    /// If `snapshot` is none.
    #[cfg(feature = "testing")]
    pub fn put_back(&self, snapshot: &[u8]) {
        let state: State = bincode::deserialize(snapshot).expect("made by `snapshot`");
        self.shared.lock().state = state;
    }

    /// Runs `work` with the state; on a thread that may block, if there is a file.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core, &QueueLimits) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        if !self.shared.is_stored {
            return work(&mut self.shared.lock(), &self.shared.limits);
        }
        let shared = self.shared.clone();
        let work = tokio::task::spawn_blocking(move || work(&mut shared.lock(), &shared.limits));
        work.await.map_err(BackendError::internal)?
    }

    /// Repeats `look` at each ring of `name`, until it finds something or `wait` is over.
    async fn wait_for<T: Send + 'static>(
        &self,
        name: &str,
        wait: Duration,
        look: impl Fn(&State) -> (bool, T) + Clone + Send + 'static,
    ) -> Result<T, QueueError> {
        let deadline = deadline(wait.min(self.shared.limits.wait_max));
        let ear = self.shared.bells.listen(name);
        loop {
            let ring = ear.ring();
            tokio::pin!(ring);
            ring.as_mut().enable();
            let look = look.clone();
            let (is_done, found) = self.with(move |core, _| Ok(look(&core.state))).await?;
            if is_done || Instant::now() >= deadline {
                return Ok(found);
            }
            // Past the deadline it looks once more.
            let _ = tokio::time::timeout_at(deadline, ring).await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Stores a valid change, then makes it visible and wakes those who wait for it.
    fn record(&mut self, change: Change) -> Result<u64, QueueError> {
        if let Some(journal) = &mut self.journal {
            let payload = bincode::serialize(&change).map_err(BackendError::internal)?;
            journal.append(&payload)?;
        }
        // Who is woken here has to wait for the lock, which is held until the change is visible.
        match &change {
            Change::Post(_) => self.bells.ring(INBOX),
            Change::Commit(commit) => {
                let mailboxes = commit.mails.iter().map(|(mailbox, _)| mailbox).chain(&commit.close);
                mailboxes.for_each(|mailbox| self.bells.ring(mailbox.as_str()));
            }
            _ => {}
        }
        let dropped = self.state.apply(change);
        self.compact();
        Ok(dropped)
    }

    fn compact(&mut self) {
        let Some(journal) = self.journal.as_mut().filter(|journal| journal.len() > self.compact_at) else {
            return;
        };
        // Whatever fails here, the long journal is still good.
        match bincode::serialize(&Change::Snapshot(self.state.clone())) {
            Ok(payload) => {
                if let Err(error) = journal.replace(&payload) {
                    tracing::warn!(%error, "queue journal not compacted");
                }
            }
            Err(error) => tracing::warn!(%error, "queue state does not encode"),
        }
        self.compact_at = COMPACT_BYTES_MIN.max(2 * journal.len());
    }

    fn lead(&mut self, holder: &str, ttl: Duration) -> Result<Option<Epoch>, QueueError> {
        let now = Instant::now();
        if self.state.holder != holder {
            if self.lease_until.is_some_and(|until| until > now) {
                return Ok(None);
            }
            let epoch = Epoch(self.state.epoch.0 + 1);
            self.record(Change::Lead { epoch, holder: holder.to_owned() })?;
        }
        self.lease_until = Some(deadline(ttl));
        Ok(Some(self.state.epoch))
    }
}

#[async_trait]
impl TaskQueue for EmbeddedQueue {
    async fn lead(&self, holder: &str, ttl: Duration) -> Result<Option<Epoch>, QueueError> {
        check::holder(holder)?;
        let holder = holder.to_owned();
        self.with(move |core, _| core.lead(&holder, ttl)).await
    }

    async fn resign(&self, epoch: Epoch) -> Result<(), QueueError> {
        self.with(move |core, _| {
            if epoch == core.state.epoch && !core.state.holder.is_empty() {
                core.record(Change::Resign)?;
                core.lease_until = None;
            }
            Ok(())
        })
        .await
    }

    async fn leader(&self) -> Result<Option<Leader>, QueueError> {
        self.with(|core, _| {
            let left = core.lease_until.and_then(|until| until.checked_duration_since(Instant::now()));
            let (holder, epoch) = (core.state.holder.clone(), core.state.epoch);
            Ok(left.filter(|left| !left.is_zero()).map(|remaining| Leader { holder, epoch, remaining }))
        })
        .await
    }

    async fn load(&self) -> Result<Stored, QueueError> {
        self.with(|core, _| {
            Ok(Stored {
                checkpoint: core.state.checkpoint.clone(),
                records: core.state.records.iter().cloned().collect(),
                position: core.state.position(),
                cursor: core.state.cursor,
            })
        })
        .await
    }

    async fn events(
        &self,
        after: Cursor,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(Cursor, Vec<u8>)>, QueueError> {
        let max = page(max, &self.shared.limits);
        let look = move |state: &State| {
            let events = state.events(after, max);
            (!events.is_empty(), events)
        };
        self.wait_for(INBOX, wait, look).await
    }

    async fn commit(&self, epoch: Epoch, commit: &Commit) -> Result<Committed, QueueError> {
        check::commit(&self.shared.limits, commit)?;
        let commit = commit.clone();
        self.with(move |core, limits| {
            if let Some(committed) = core.state.repeated(&commit) {
                return Ok(committed);
            }
            core.state.check_epoch(epoch)?;
            core.state.check_commit(limits, &commit)?;
            let dropped = core.record(Change::Commit(commit))?;
            Ok(Committed { position: core.state.position(), dropped, is_repeated: false })
        })
        .await
    }

    async fn checkpoint(&self, epoch: Epoch, upto: Position, bytes: &[u8]) -> Result<(), QueueError> {
        check::at_most("a checkpoint", bytes.len() as u64, self.shared.limits.checkpoint_bytes_max as u64)?;
        let bytes = bytes.to_vec();
        self.with(move |core, _| {
            core.state.check_epoch(epoch)?;
            core.state.check_checkpoint(upto)?;
            core.record(Change::Checkpoint { upto, bytes })?;
            Ok(())
        })
        .await
    }

    async fn post_all(&self, events: &[Vec<u8>]) -> Result<Cursor, QueueError> {
        check::post(&self.shared.limits, events)?;
        let events = events.to_vec();
        self.with(move |core, limits| {
            core.state.check_post(limits, &events)?;
            core.record(Change::Post(events))?;
            Ok(core.state.last_event())
        })
        .await
    }

    async fn read(
        &self,
        mailbox: &Mailbox,
        after: Cursor,
        max: usize,
        wait: Duration,
    ) -> Result<Page, QueueError> {
        let max = page(max, &self.shared.limits);
        let name = mailbox.clone();
        let look = move |state: &State| {
            let page = state.page(&name, after, max);
            (!page.mails.is_empty() || page.is_closed, page)
        };
        self.wait_for(mailbox.as_str(), wait, look).await
    }

    async fn forget(&self, mailbox: &Mailbox, upto: Cursor) -> Result<(), QueueError> {
        let mailbox = mailbox.clone();
        self.with(move |core, _| core.record(Change::Forget { mailbox, upto }).map(drop)).await
    }

    async fn health(&self) -> Result<Health, QueueError> {
        self.with(|core, _| Ok(core.state.health())).await
    }
}
