//! The seam.

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
    Commit, CommitId, Committed, Cursor, Epoch, Health, Holder, Leader, Mail, Mailbox, Page, Position,
    Stored, NAME_BYTES_MAX,
};
