//! Names, numbers and messages of the queue.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::NameError;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A term of leadership, from 1. Each takeover has a higher one; a renewal keeps it.
    Epoch
);
number!(
    /// Place of an event in the inbox or of a mail in its mailbox; 0 is before the first. Grows, never used twice, may
    /// have gaps in a mailbox.
    Cursor
);
number!(
    /// Place of a record in the log, from 1 without gaps; 0 is before the first.
    Position
);

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes a name of 1 to [`NAME_BYTES_MAX`] letters, digits, `.`, `_`, `-` and, between parts, single `/`.
            ///
            /// # Errors
            /// [`NameError`] for anything else.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check_name(&name).map_err(|reason| NameError { what: $what, reason })?;
                Ok(Self(name))
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

/// Longest name of a mailbox or a holder, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

name!(
    /// An ordered stream of mails from the leader: `worker/3/81`, `batch/7`.
    Mailbox,
    "mailbox"
);
name!(
    /// Who keeps an artifact in the store: `attempt/17/0`. Names are paths: releasing or revoking `attempt/17` covers
    /// `attempt/17` and everything below it, but not `attempt/170`.
    Holder,
    "holder"
);

impl Holder {
    /// The name and all its ancestors, longest first: `a/b/c`, `a/b`, `a`.
    pub fn lineage(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |name| name.rsplit_once('/').map(|(parent, _)| parent))
    }

    /// Whether releasing `other` covers this holder.
    pub fn is_within(&self, other: &Holder) -> bool {
        self.0.strip_prefix(other.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return Err("is longer than 128 bytes");
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    if !name.bytes().all(is_allowed) {
        return Err("has a character other than letters, digits, '.', '_', '-', '/'");
    }
    if name.split('/').any(str::is_empty) {
        return Err("has an empty part between slashes");
    }
    Ok(())
}

/// Tells one commit from another, so that a commit whose answer was lost is not carried out twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CommitId([u8; 16]);

impl CommitId {
    /// A number that nobody else has.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where a leader believes log and inbox to stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The last record of the log.
    pub position: Position,
    /// The last event that is accounted for.
    pub cursor: Cursor,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} and event {}", self.position, self.cursor)
    }
}

/// What a leader changes in one step; see [`TaskQueue::commit`](crate::TaskQueue::commit).
///
/// Order within a commit: records, mails, closings, removals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Keep it for repetitions of the same commit; draw a new one for the next.
    pub id: CommitId,
    /// What the commit builds on; where the queue stands elsewhere, it was put back to an older state, and the commit is
    /// refused. `None` builds on whatever is there.
    #[serde(skip)]
    pub after: Option<Place>,
    /// Appended to the log.
    pub records: Vec<Vec<u8>>,
    /// The last event that the records account for. Events up to it leave the inbox.
    pub cursor: Cursor,
    /// Appended to mailboxes, in order. A mailbox begins with its first mail.
    pub mails: Vec<(Mailbox, Vec<u8>)>,
    /// Mailboxes that get no further mail. Their readers are told, now and later.
    pub close: Vec<Mailbox>,
    /// Mailboxes that are deleted with all their mails, open or closed.
    pub remove: Vec<Mailbox>,
}

impl Commit {
    /// A commit that only moves the cursor; fill in the rest.
    pub fn new(cursor: Cursor) -> Self {
        Self {
            id: CommitId::random(),
            after: None,
            records: Vec::new(),
            cursor,
            mails: Vec::new(),
            close: Vec::new(),
            remove: Vec::new(),
        }
    }
}

/// A commit that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Place of its last record: end of the log at that moment.
    pub position: Position,
    /// Mails that were dropped because their mailbox was closed: nobody reads on there.
    pub dropped: u64,
    /// Whether an earlier call with the same id had carried it out.
    pub is_repeated: bool,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The holder's name.
    pub holder: String,
    /// Its term.
    pub epoch: Epoch,
    /// Time left on its lease.
    pub remaining: Duration,
}

/// Everything that a new leader needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The last checkpoint, if there is one.
    pub checkpoint: Option<Vec<u8>>,
    /// The records after the checkpoint, in order.
    pub records: Vec<Vec<u8>>,
    /// Place of the last record (of the checkpoint, if there are none).
    pub position: Position,
    /// The last event that has been accounted for.
    pub cursor: Cursor,
}

/// One mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Its place; pass it as `after` to read on.
    pub cursor: Cursor,
    /// The message.
    pub bytes: Vec<u8>,
}

/// Answer to a reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In order.
    pub mails: Vec<Mail>,
    /// Whether the mailbox is closed and these are its last mails.
    pub is_closed: bool,
    /// The last mail that was forgotten. A reader whose `after` is lower has missed something.
    pub forgotten: Cursor,
}

/// State of the queue, for metrics and readiness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Events that wait for the leader.
    pub events: u64,
    /// Their bytes.
    pub event_bytes: u64,
    /// Records after the checkpoint.
    pub records: u64,
    /// Their bytes.
    pub record_bytes: u64,
    /// Mailboxes, open and closed.
    pub mailboxes: u64,
    /// Bytes of all mails.
    pub mail_bytes: u64,
    /// Memory that the server uses, if there is a server.
    pub memory_bytes: Option<u64>,
    /// Memory that it may use, if it has a limit.
    pub memory_bytes_max: Option<u64>,
    /// What an operator should change, each with the command.
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_paths_of_plain_characters() {
        for good in ["a", "attempt/17/0", "batch/7", "A.b_c-d", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(Mailbox::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "/a", "a/", "a//b", "a b", "a\n", "ä", "a{b}", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(Mailbox::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_holder_covers_what_is_below_it_and_nothing_beside_it() {
        let holder = |name: &str| Holder::new(name).unwrap();
        assert!(holder("a/1/2").is_within(&holder("a/1")));
        assert!(holder("a/1").is_within(&holder("a/1")));
        assert!(!holder("a/10").is_within(&holder("a/1")));
        assert!(!holder("a").is_within(&holder("a/1")));
        assert_eq!(holder("a/b/c").lineage().collect::<Vec<_>>(), ["a/b/c", "a/b", "a"]);
    }
}
