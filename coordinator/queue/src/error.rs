//! Errors of the queue and of the store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::types::{Cursor, Epoch, Holder, Mailbox, Place, Position};

/// What a caller may do about an error; retry logic reads this and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The same call may succeed later.
    Transient,
    /// The same call fails again.
    Permanent,
    /// A program is at fault: this one, or one that wrote what was read.
    Bug,
}

/// A name that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} name {reason}")]
pub struct NameError {
    /// Name of what.
    pub what: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// Why a Redis server was not accepted at the start, or is not any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It may throw data away.
    #[error(
        "redis at {server} has maxmemory-policy {policy}, which deletes data when memory is short; run \
         `redis-cli CONFIG SET maxmemory-policy noeviction` and write `maxmemory-policy noeviction` to redis.conf"
    )]
    Evicts {
        /// The server.
        server: String,
        /// Its policy.
        policy: String,
    },
    /// It does not say whether it throws data away.
    #[error(
        "redis at {server} does not tell its maxmemory-policy; set it with \
         `redis-cli CONFIG SET maxmemory-policy noeviction` and let the user read it with \
         `redis-cli ACL SETUSER <user> +info`"
    )]
    PolicyUnknown {
        /// The server.
        server: String,
    },
    /// It has no memory limit: nothing says when to hold back, until the system kills it.
    #[error(
        "redis at {server} has no memory limit, so nothing is held back before the system kills it; run \
         `redis-cli CONFIG SET maxmemory 2gb` (more for many workers) and write `maxmemory 2gb` to redis.conf, or \
         append `?memory=unlimited` to the URL if something else limits it"
    )]
    Unlimited {
        /// The server.
        server: String,
    },
    /// It is too old, or does not say how old.
    #[error(
        "redis at {server} has version {version}, at least 7 is needed; install redis-server 7 or later"
    )]
    Version {
        /// The server.
        server: String,
        /// What it says.
        version: String,
    },
    /// It wants a password, and has got none (NOAUTH).
    #[error(
        "redis at {server} wants a password, and none is configured: write it to a file that only this user may read, and name \
         that as `password_file` in [queue] or in ASSAY_REDIS_PASSWORD_FILE; a user other than the default one stands in the \
         URL: redis://user@host"
    )]
    NoPassword {
        /// The server.
        server: String,
    },
    /// Another password, or no such user (WRONGPASS).
    #[error(
        "redis at {server} knows no such user with this password, or has switched it off: check the user in the URL and the \
         password in `password_file` of [queue] (ASSAY_REDIS_PASSWORD_FILE) or in the URL, there percent-encoded; \
         `redis-cli ACL LIST` shows the users, `redis-cli ACL SETUSER <user> on '>password'` adds a password"
    )]
    WrongPassword {
        /// The server.
        server: String,
    },
    /// The user may not do what the queue needs (NOPERM).
    #[error(
        "redis at {server} refuses: {reason}; run `redis-cli ACL SETUSER <user> on '>password' '~{{assay:*' '&{{assay:*' \
         +@read +@write +@scripting +@pubsub +@connection +info +time +wait +cluster`"
    )]
    Forbidden {
        /// The server.
        server: String,
        /// Its words.
        reason: String,
    },
}

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}: {source}")]
pub struct FileError {
    /// What was tried: "read", "write", …
    pub what: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The system's reason.
    pub source: std::io::Error,
}

impl FileError {
    /// For `map_err`.
    pub(crate) fn of(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { what, path, source }
    }
}

/// What both families of operations can run into.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The server did not answer in time, or answered that it cannot now. Whether the call was carried out is not known:
    /// repeat it.
    #[error("redis is not available after {tried:?}: {reason}")]
    Unavailable {
        /// How long it was tried.
        tried: Duration,
        /// The last failure.
        reason: String,
    },
    /// The server has no memory left.
    #[error("redis is out of memory: {reason}; raise it with `redis-cli CONFIG SET maxmemory <bytes>`")]
    OutOfMemory {
        /// The server's words.
        reason: String,
    },
    /// The server is not fit for the queue.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The configuration cannot be used.
    #[error("configuration: {reason}")]
    Config {
        /// Which part, and why. Never holds a password.
        reason: String,
    },
    /// The server answered what it cannot answer.
    #[error("unexpected answer: {reason}")]
    Protocol {
        /// What.
        reason: String,
    },
    /// The folder is another process's.
    #[error("{path} is in use by another process")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that only this crate writes is damaged.
    #[error("{path} is damaged at byte {offset}: {reason}; restore it from a backup, or move it away to begin anew")]
    Journal {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What was found.
        reason: &'static str,
    },
    /// A background task ended by a panic.
    #[error("internal error: {reason}")]
    Internal {
        /// What.
        reason: String,
    },
}

impl BackendError {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Unavailable { .. } | Self::OutOfMemory { .. } | Self::File(_) => Class::Transient,
            Self::Refused(_) | Self::Config { .. } | Self::InUse { .. } | Self::Journal { .. } => {
                Class::Permanent
            }
            Self::Protocol { .. } | Self::Internal { .. } => Class::Bug,
        }
    }

    pub(crate) fn protocol(reason: impl std::fmt::Display) -> Self {
        Self::Protocol { reason: reason.to_string() }
    }

    /// For `map_err`: a file that the configuration names. That there is none, or that it is somebody else's, is for a person to
    /// mend, and nothing to wait for.
    pub(crate) fn configured(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        use std::io::ErrorKind;
        let of = FileError::of(what, path);
        move |source| {
            let is_hopeless = matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied);
            let error = of(source);
            match is_hopeless {
                true => Self::Config { reason: error.to_string() },
                false => error.into(),
            }
        }
    }

    pub(crate) fn internal(reason: impl std::fmt::Display) -> Self {
        Self::Internal { reason: reason.to_string() }
    }
}

/// A bound of [`QueueLimits`](crate::QueueLimits) that a call would break.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Bound {
    /// Events in the inbox.
    #[error("the number of waiting events")]
    Events,
    /// Their bytes.
    #[error("the size of all waiting events")]
    EventBytes,
    /// Records after the checkpoint.
    #[error("the number of records after the checkpoint")]
    Records,
    /// Their bytes.
    #[error("the size of all records after the checkpoint")]
    RecordBytes,
    /// Mailboxes.
    #[error("the number of mailboxes")]
    Mailboxes,
    /// Bytes of all mails.
    #[error("the size of all mails")]
    MailBytes,
    /// Mails in this mailbox.
    #[error("the number of mails in {0}")]
    Mailbox(Mailbox),
    /// Bytes in this mailbox.
    #[error("the size of all mails in {0}")]
    MailboxBytes(Mailbox),
}

/// Errors of [`TaskQueue`](crate::TaskQueue). After any of them nothing of the call is visible, except after
/// [`BackendError::Unavailable`], where that is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// Another leader has taken over since: forget everything and stand by.
    #[error("epoch {got} is over, the last one is {current}")]
    Fenced {
        /// The caller's.
        got: Epoch,
        /// The last one given out.
        current: Epoch,
    },
    /// The queue does not stand where the leader left it: it has lost what was written last (a restart without the last
    /// second of its file, a replica that lagged behind, a backup). Forget everything, resign and load again.
    #[error("the queue stands at {found}, not at {expected}: it was put back to an older state")]
    Gap {
        /// Where the commit builds on.
        expected: Place,
        /// Where the queue stands. Equal to `expected` if events that the leader has read are others now.
        found: Place,
    },
    /// A bound is reached: slow down, make a checkpoint, or close the mailbox that nobody empties.
    #[error("full: {bound} is limited to {max}")]
    Full {
        /// Which one.
        bound: Bound,
        /// Its value.
        max: u64,
    },
    /// A single thing is larger than allowed.
    #[error("{what} is limited to {max}, got {got}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The bound.
        max: u64,
        /// What was given.
        got: u64,
    },
    /// A commit's cursor goes back, or past the last event.
    #[error("cursor {got} is not between {committed} and {last}")]
    CursorOutOfRange {
        /// The commit's.
        got: Cursor,
        /// The last one committed.
        committed: Cursor,
        /// The last event posted.
        last: Cursor,
    },
    /// A checkpoint claims records that do not exist, or fewer than the last one.
    #[error("checkpoint at {got} is not between {checkpoint} and {last}")]
    PositionOutOfRange {
        /// The checkpoint's.
        got: Position,
        /// That of the last checkpoint.
        checkpoint: Position,
        /// End of the log.
        last: Position,
    },
    /// Stored bytes are not those that were written.
    #[error("{what} {at} is damaged: its checksum differs")]
    Corrupt {
        /// A record, or the checkpoint.
        what: &'static str,
        /// Which one.
        at: Position,
    },
    /// See there.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl QueueError {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Full { .. } => Class::Transient,
            Self::Fenced { .. } | Self::Gap { .. } | Self::TooLarge { .. } | Self::Corrupt { .. } => {
                Class::Permanent
            }
            Self::CursorOutOfRange { .. } | Self::PositionOutOfRange { .. } => Class::Bug,
            Self::Backend(error) => error.class(),
        }
    }
}

/// Errors of [`ArtifactStore`](crate::ArtifactStore).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The holder was revoked: its attempt is over, whatever it has made is of no use.
    #[error("holder {holder} is revoked")]
    Revoked {
        /// The holder.
        holder: Holder,
    },
    /// No such artifact.
    #[error("artifact {hash} is not in the store")]
    Missing {
        /// Its address.
        hash: blake3::Hash,
    },
    /// The bytes are not those that were published. The next `put` of the right ones repairs it, for all holders.
    #[error("artifact {hash} is damaged: {reason}")]
    Corrupt {
        /// Its address.
        hash: blake3::Hash,
        /// What was found.
        reason: String,
    },
    /// A bound is reached, or the disk is full: wait until something is released.
    #[error("the artifact store is full: {reason}")]
    Full {
        /// Which bound.
        reason: String,
    },
    /// The artifact is larger than allowed.
    #[error("an artifact is limited to {max} bytes, got {got}")]
    TooLarge {
        /// The bound.
        max: u64,
        /// What was given.
        got: u64,
    },
    /// The publication took so long that `sweep` removed it as a leftover: publish again.
    #[error("the publication of {hash} was swept away as a leftover")]
    Swept {
        /// Its address.
        hash: blake3::Hash,
    },
    /// The object store failed.
    #[error("object store: {reason}")]
    Objects {
        /// What was tried, and its words.
        reason: String,
    },
    /// See there.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl StoreError {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Full { .. } | Self::Swept { .. } | Self::Objects { .. } => Class::Transient,
            Self::Revoked { .. } | Self::Missing { .. } | Self::Corrupt { .. } | Self::TooLarge { .. } => {
                Class::Permanent
            }
            Self::Backend(error) => error.class(),
        }
    }
}

impl From<FileError> for QueueError {
    fn from(error: FileError) -> Self {
        BackendError::from(error).into()
    }
}

impl From<FileError> for StoreError {
    /// A full disk is [`StoreError::Full`].
    fn from(error: FileError) -> Self {
        if error.source.kind() == std::io::ErrorKind::StorageFull {
            return Self::Full { reason: error.to_string() };
        }
        BackendError::from(error).into()
    }
}
