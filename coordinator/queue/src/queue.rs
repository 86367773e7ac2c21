//! The queue's interface.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::error::{BackendError, QueueError};
use crate::limits::QueueLimits;
use crate::types::{
    Commit, Committed, Cursor, Epoch, Health, Leader, Mailbox, Page, Position, Stored, NAME_BYTES_MAX,
};

/// A durable log with one fenced writer, an inbox for it, and mailboxes from it.
///
/// Phases of a leader: [`lead`](Self::lead) until it yields an epoch; [`load`](Self::load); then over and over
/// [`events`](Self::events), [`commit`](Self::commit), now and then [`checkpoint`](Self::checkpoint), and `lead` again
/// well before the lease ends. On [`QueueError::Fenced`] it forgets everything it knows and begins anew; on
/// [`QueueError::Gap`] it resigns first, so that whatever it says next is of a new epoch. A leader has one
/// commit or checkpoint under way at a time, and repeats one whose outcome it does not know, unchanged, before the next.
///
/// Everybody else posts events and reads mailboxes.
///
/// All calls may be dropped half-way; whether they were carried out is then not known. All waits are cut to
/// [`QueueLimits::wait_max`].
#[async_trait]
pub trait TaskQueue: Send + Sync + 'static {
    /// Takes or renews the lease for `ttl`, on the queue's clock; `None` while somebody else has it.
    ///
    /// The holder that led last is renewed in its epoch even when the lease had run out, as long as nobody else took
    /// over. So a holder's name must be new with each start of a process; 1 to [`NAME_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`QueueError::TooLarge`] for a long name; [`QueueError::Backend`].
    async fn lead(&self, holder: &str, ttl: Duration) -> Result<Option<Epoch>, QueueError>;

    /// Ends the lease of `epoch` at once, so that a successor need not wait. An epoch that is over is no error.
    ///
    /// # Errors
    /// [`QueueError::Backend`].
    async fn resign(&self, epoch: Epoch) -> Result<(), QueueError>;

    /// Who leads, if anybody does now.
    ///
    /// # Errors
    /// [`QueueError::Backend`].
    async fn leader(&self) -> Result<Option<Leader>, QueueError>;

    /// The last checkpoint and what was committed after it, as of one moment.
    ///
    /// # Errors
    /// [`QueueError::Corrupt`]; [`QueueError::Backend`].
    async fn load(&self) -> Result<Stored, QueueError>;

    /// Up to `max` events after `after`, oldest first. Waits for the first one up to `wait`; may return none.
    ///
    /// # Errors
    /// [`QueueError::Backend`].
    async fn events(
        &self,
        after: Cursor,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(Cursor, Vec<u8>)>, QueueError>;

    /// Carries out all of `commit` at one moment, or nothing.
    ///
    /// A commit that repeats the last one's id changes nothing and gets the same answer. Mail to a closed mailbox is
    /// dropped and counted.
    ///
    /// # Errors
    /// [`QueueError::Fenced`] if another epoch has begun; if an earlier call of the same commit ended in
    /// [`BackendError::Unavailable`](crate::BackendError::Unavailable), the new leader finds either all of it or nothing.
    /// [`QueueError::Gap`] if the queue does not stand at [`Commit::after`], or the events up to its cursor are not those
    /// that this handle has read.
    /// [`QueueError::Full`] naming the log or a mailbox, [`QueueError::TooLarge`], [`QueueError::CursorOutOfRange`];
    /// [`QueueError::Backend`].
    async fn commit(&self, epoch: Epoch, commit: &Commit) -> Result<Committed, QueueError>;

    /// Puts `bytes` in the place of all records up to `upto`, which they contain.
    ///
    /// # Errors
    /// [`QueueError::Fenced`], [`QueueError::TooLarge`], [`QueueError::PositionOutOfRange`]; [`QueueError::Backend`].
    async fn checkpoint(&self, epoch: Epoch, upto: Position, bytes: &[u8]) -> Result<(), QueueError>;

    /// Appends events to the inbox, all or none, next to each other; returns the last one's place.
    ///
    /// At least once: after a lost connection they may be there twice.
    ///
    /// # Errors
    /// [`QueueError::Full`] while the leader does not keep up; [`QueueError::TooLarge`]; [`QueueError::Backend`].
    async fn post_all(&self, events: &[Vec<u8>]) -> Result<Cursor, QueueError>;

    /// [`post_all`](Self::post_all) of one event.
    ///
    /// # Errors
    /// See there.
    async fn post(&self, event: Vec<u8>) -> Result<Cursor, QueueError> {
        self.post_all(std::slice::from_ref(&event)).await
    }

    /// Up to `max` mails after `after`, oldest first. Waits for the first one, or for the closing, up to `wait`.
    ///
    /// Any number of readers may read, from any place that is not forgotten. A mailbox that nobody wrote to yet reads as
    /// open and empty.
    ///
    /// # Errors
    /// [`QueueError::Backend`].
    async fn read(
        &self,
        mailbox: &Mailbox,
        after: Cursor,
        max: usize,
        wait: Duration,
    ) -> Result<Page, QueueError>;

    /// Deletes the mails up to `upto`: their reader has dealt with them. An unknown mailbox is no error.
    ///
    /// # Errors
    /// [`QueueError::Backend`].
    async fn forget(&self, mailbox: &Mailbox, upto: Cursor) -> Result<(), QueueError>;

    /// How full it is, and what is wrong with it.
    ///
    /// # Errors
    /// [`QueueError::Backend`].
    async fn health(&self) -> Result<Health, QueueError>;
}

/// The moment `wait` from now, or one that never comes.
pub(crate) fn deadline(wait: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Instant::now() + wait.min(NEVER)
}

/// Messages in one answer: at least one, whatever was asked for.
pub(crate) fn page(max: usize, limits: &QueueLimits) -> usize {
    max.min(limits.page_max).max(1)
}

/// Checks of a call that need no state.
pub(crate) mod check {
    use super::*;

    pub(crate) fn holder(holder: &str) -> Result<(), QueueError> {
        if holder.is_empty() {
            return Err(BackendError::Config { reason: "the leader's name is empty".to_owned() }.into());
        }
        at_most("the leader's name", holder.len() as u64, NAME_BYTES_MAX as u64)
    }

    pub(crate) fn messages<'a>(
        what: &'static str,
        limits: &QueueLimits,
        messages: impl ExactSizeIterator<Item = &'a Vec<u8>>,
    ) -> Result<(), QueueError> {
        at_most(what, messages.len() as u64, limits.page_max as u64)?;
        for message in messages {
            at_most("a message", message.len() as u64, limits.message_bytes_max as u64)?;
        }
        Ok(())
    }

    /// Messages that could never fit, however empty the queue is, are not even sent.
    pub(crate) fn total<'a>(
        what: &'static str,
        messages: impl Iterator<Item = &'a Vec<u8>>,
        bytes_max: u64,
    ) -> Result<(), QueueError> {
        at_most(what, messages.map(|message| message.len() as u64).sum(), bytes_max)
    }

    pub(crate) fn post(limits: &QueueLimits, events: &[Vec<u8>]) -> Result<(), QueueError> {
        messages("events of a post", limits, events.iter())?;
        total("the size of a post", events.iter(), limits.event_bytes_max)
    }

    pub(crate) fn commit(limits: &QueueLimits, commit: &Commit) -> Result<(), QueueError> {
        messages("records of a commit", limits, commit.records.iter())?;
        total("the size of a commit's records", commit.records.iter(), limits.record_bytes_max)?;
        messages("mails of a commit", limits, commit.mails.iter().map(|(_, mail)| mail))?;
        total(
            "the size of a commit's mails",
            commit.mails.iter().map(|(_, mail)| mail),
            limits.mail_bytes_max,
        )?;
        at_most("closings of a commit", commit.close.len() as u64, limits.page_max as u64)?;
        at_most("removals of a commit", commit.remove.len() as u64, limits.page_max as u64)
    }

    pub(crate) fn at_most(what: &'static str, got: u64, max: u64) -> Result<(), QueueError> {
        if got > max {
            return Err(QueueError::TooLarge { what, max, got });
        }
        Ok(())
    }
}
