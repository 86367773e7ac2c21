//! The seam between the cluster's processes: a fenced task queue and a content-addressed artifact store.
//!
//! Layer: an adapter, beside `assay-schedule`, below the coordinator's and the worker's services. It moves bytes and knows
//! none of their meanings.
//!
//! * [`TaskQueue`]: a log with one writer at a time, an inbox for it, mailboxes from it. [`EmbeddedQueue`] is in one
//!   process, in memory or kept in a folder; [`RedisQueue`] is shared by processes on several machines.
//! * [`ArtifactStore`]: immutable blobs named by their BLAKE3, kept as long as somebody holds them. [`FolderStore`] is one
//!   process's; [`SharedStore`] has small blobs in Redis and large ones in a shared folder or S3.
//!
//! # How a leader uses it
//!
//! ```text
//!  everybody ──post──▶ inbox ──events──▶ leader: step the machine in memory
//!                                          │ commit(epoch): all of this, or nothing
//!                                          ├──▶ log: (event, time) records    checkpoint + log = state
//!                                          ├──▶ inbox cursor                  an event counts once
//!                                          └──▶ mailboxes ──read──▶ workers, subscribers
//! ```
//!
//! # Invariants
//!
//! * A commit is visible as a whole or not at all, and once: its id tells a repetition.
//! * After a takeover nothing of an earlier leader is accepted; after a revocation nothing of a holder or those below it.
//! * What was acknowledged survives the death of any process, and that of Redis if it writes an append-only file.
//! * A mail is read by everybody who asks, from any place that is not forgotten; a stream ends only by being closed.
//! * Bytes are checked against their hash whenever they are read: artifacts, checkpoints, records, journals.
//! * Everything is bounded ([`QueueLimits`], [`StoreLimits`]); a full queue or store refuses with a transient error.
//! * What other processes or servers send is refused with an error, never a panic.
//!
//! # Non-goals
//!
//! Deciding anything: scheduling, retries of tasks, quotas. Delivering an event exactly once: a post whose answer is lost is
//! repeated, and the leader's machine knows repetitions. Encryption at rest. Sharing one deployment among more than one
//! node of a Redis Cluster: scripts need all its keys in one slot.
//!
//! Reading order: [`TaskQueue`], `embedded/state.rs` for the rules in Rust, `remote/lua/commit.lua` for the same in Redis,
//! `remote/link.rs` for lost connections; then [`ArtifactStore`], `folder/index.rs`, `remote/store.rs`. The suites in
//! `testing/` (feature `testing`) say what every implementation does.
//!
//! ```
//! use std::time::Duration;
//! use assay_queue::{Commit, Cursor, EmbeddedQueue, Mailbox, QueueLimits, TaskQueue};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let queue = EmbeddedQueue::in_memory(QueueLimits::default());
//! queue.post(b"prove batch 7".to_vec()).await?;
//!
//! let epoch = queue.lead("coordinator 1, start 93ac", Duration::from_secs(10)).await?.expect("nobody else leads");
//! let events = queue.events(Cursor(0), 64, Duration::from_secs(1)).await?;
//! let mut commit = Commit::new(events.last().expect("one was posted").0);
//! commit.records = events.into_iter().map(|(_, event)| event).collect();
//! commit.mails = vec![(Mailbox::new("worker/1")?, b"batch 7".to_vec())];
//! queue.commit(epoch, &commit).await?;
//!
//! let page = queue.read(&Mailbox::new("worker/1")?, Cursor(0), 64, Duration::from_secs(1)).await?;
//! assert_eq!(page.mails[0].bytes, b"batch 7");
//! # Ok(())
//! # }
//! ```

mod bells;
mod embedded;
mod error;
mod files;
mod folder;
mod journal;
mod limits;
mod queue;
mod remote;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod types;

pub use embedded::EmbeddedQueue;
pub use error::{BackendError, Bound, Class, FileError, NameError, QueueError, Refusal, StoreError};
pub use folder::FolderStore;
pub use journal::Durability;
pub use limits::{QueueLimits, StoreLimits};
pub use queue::TaskQueue;
pub use remote::{ObjectsConfig, RedisConfig, RedisQueue, SharedLimits, SharedStore};
pub use store::{Artifact, ArtifactStore, Freed, Hold, Stat, Swept, Usage};
pub use types::{
    Commit, CommitId, Committed, Cursor, Epoch, Health, Holder, Leader, Mail, Mailbox, Page, Place, Position,
    Stored, NAME_BYTES_MAX,
};
