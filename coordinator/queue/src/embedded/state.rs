//! What the embedded queue remembers, and how a change alters it. The Lua scripts of the Redis queue decide the same.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::error::{Bound, QueueError};
use crate::limits::QueueLimits;
use crate::types::{
    Commit, CommitId, Committed, Cursor, Epoch, Health, Mail, Mailbox, Page, Place, Position,
};

/// Everything but the lease's end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) epoch: Epoch,
    /// Who leads or led last, empty after it resigned: its epoch is over.
    pub(super) holder: String,
    pub(super) cursor: Cursor,
    /// The events after `cursor`.
    events: VecDeque<Vec<u8>>,
    event_bytes: u64,
    pub(super) checkpoint: Option<Vec<u8>>,
    checkpoint_at: Position,
    /// The records after `checkpoint_at`.
    pub(super) records: VecDeque<Vec<u8>>,
    record_bytes: u64,
    boxes: BTreeMap<Mailbox, Letters>,
    /// The last mail of any mailbox.
    last_mail: Cursor,
    mail_bytes: u64,
    last_commit: Option<(CommitId, Position, u64)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Letters {
    mails: VecDeque<(Cursor, Vec<u8>)>,
    bytes: u64,
    is_closed: bool,
    forgotten: Cursor,
}

/// A change that was found to be valid.
#[derive(Serialize, Deserialize)]
pub(super) enum Change {
    Snapshot(State),
    Lead { epoch: Epoch, holder: String },
    Resign,
    Post(Vec<Vec<u8>>),
    Commit(Commit),
    Checkpoint { upto: Position, bytes: Vec<u8> },
    Forget { mailbox: Mailbox, upto: Cursor },
}

impl State {
    pub(super) fn last_event(&self) -> Cursor {
        Cursor(self.cursor.0 + self.events.len() as u64)
    }

    pub(super) fn position(&self) -> Position {
        Position(self.checkpoint_at.0 + self.records.len() as u64)
    }

    /// Bytes of all messages.
    pub(super) fn bytes(&self) -> u64 {
        let checkpoint = self.checkpoint.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.event_bytes + self.record_bytes + self.mail_bytes + checkpoint
    }

    pub(super) fn check_post(&self, limits: &QueueLimits, events: &[Vec<u8>]) -> Result<(), QueueError> {
        below(Bound::Events, self.events.len() as u64 + events.len() as u64, limits.events_max)?;
        below(Bound::EventBytes, self.event_bytes + total(events), limits.event_bytes_max)
    }

    /// The answer if `commit` is the last one, repeated.
    pub(super) fn repeated(&self, commit: &Commit) -> Option<Committed> {
        let (id, position, dropped) = self.last_commit?;
        (id == commit.id).then_some(Committed { position, dropped, is_repeated: true })
    }

    pub(super) fn check_epoch(&self, epoch: Epoch) -> Result<(), QueueError> {
        if epoch != self.epoch || self.holder.is_empty() {
            return Err(QueueError::Fenced { got: epoch, current: self.epoch });
        }
        Ok(())
    }

    pub(super) fn check_commit(&self, limits: &QueueLimits, commit: &Commit) -> Result<(), QueueError> {
        let (committed, last) = (self.cursor, self.last_event());
        let found = Place { position: self.position(), cursor: committed };
        if let Some(expected) = commit.after.filter(|expected| *expected != found) {
            return Err(QueueError::Gap { expected, found });
        }
        if commit.cursor < committed || commit.cursor > last {
            return Err(QueueError::CursorOutOfRange { got: commit.cursor, committed, last });
        }
        let records = self.records.len() as u64 + commit.records.len() as u64;
        below(Bound::Records, records, limits.records_max)?;
        below(Bound::RecordBytes, self.record_bytes + total(&commit.records), limits.record_bytes_max)?;
        self.check_mails(limits, commit)
    }

    fn check_mails(&self, limits: &QueueLimits, commit: &Commit) -> Result<(), QueueError> {
        let mut mailboxes = self.boxes.len() as u64;
        let mut mail_bytes = self.mail_bytes;
        // Mails, bytes and closedness of the mailboxes that the commit touches.
        let mut touched: BTreeMap<&Mailbox, (u64, u64, bool)> = BTreeMap::new();
        for (mailbox, mail) in
            commit.mails.iter().map(|(b, m)| (b, Some(m))).chain(commit.close.iter().map(|b| (b, None)))
        {
            if !touched.contains_key(mailbox) {
                let known = self.boxes.get(mailbox);
                if known.is_none() {
                    mailboxes += 1;
                    below(Bound::Mailboxes, mailboxes, limits.mailboxes_max)?;
                }
                let letters = known.map(|b| (b.mails.len() as u64, b.bytes, b.is_closed));
                touched.insert(mailbox, letters.unwrap_or_default());
            }
            let Some((mails, bytes, is_closed)) = touched.get_mut(mailbox) else { continue };
            let Some(mail) = mail.filter(|_| !*is_closed) else { continue };
            *mails += 1;
            *bytes += mail.len() as u64;
            mail_bytes += mail.len() as u64;
            below(Bound::Mailbox(mailbox.clone()), *mails, limits.mailbox_mails_max)?;
            below(Bound::MailboxBytes(mailbox.clone()), *bytes, limits.mailbox_bytes_max)?;
            below(Bound::MailBytes, mail_bytes, limits.mail_bytes_max)?;
        }
        Ok(())
    }

    pub(super) fn check_checkpoint(&self, upto: Position) -> Result<(), QueueError> {
        let (checkpoint, last) = (self.checkpoint_at, self.position());
        if upto < checkpoint || upto > last {
            return Err(QueueError::PositionOutOfRange { got: upto, checkpoint, last });
        }
        Ok(())
    }

    pub(super) fn events(&self, after: Cursor, max: usize) -> Vec<(Cursor, Vec<u8>)> {
        let skip = after.0.saturating_sub(self.cursor.0).min(self.events.len() as u64) as usize;
        let first = self.cursor.0 + skip as u64 + 1;
        let events = self.events.range(skip..).take(max);
        events.zip(first..).map(|(event, at)| (Cursor(at), event.clone())).collect()
    }

    pub(super) fn page(&self, mailbox: &Mailbox, after: Cursor, max: usize) -> Page {
        let Some(letters) = self.boxes.get(mailbox) else { return Page::default() };
        let skip = letters.mails.partition_point(|(cursor, _)| *cursor <= after);
        let mails: Vec<Mail> = letters
            .mails
            .range(skip..)
            .take(max)
            .map(|(cursor, bytes)| Mail { cursor: *cursor, bytes: bytes.clone() })
            .collect();
        let is_last = skip + mails.len() == letters.mails.len();
        Page { mails, is_closed: letters.is_closed && is_last, forgotten: letters.forgotten }
    }

    pub(super) fn health(&self) -> Health {
        Health {
            events: self.events.len() as u64,
            event_bytes: self.event_bytes,
            records: self.records.len() as u64,
            record_bytes: self.record_bytes,
            mailboxes: self.boxes.len() as u64,
            mail_bytes: self.mail_bytes,
            ..Health::default()
        }
    }

    /// Carries a valid change out; returns the mails that a commit dropped.
    pub(super) fn apply(&mut self, change: Change) -> u64 {
        match change {
            Change::Snapshot(state) => *self = state,
            Change::Lead { epoch, holder } => {
                // Places of mails begin anew with each epoch; see `lead.lua`.
                self.last_mail = self.last_mail.max(Cursor(epoch.0 << 32));
                (self.epoch, self.holder) = (epoch, holder);
            }
            Change::Resign => self.holder.clear(),
            Change::Post(events) => {
                self.event_bytes += total(&events);
                self.events.extend(events);
            }
            Change::Commit(commit) => return self.apply_commit(commit),
            Change::Checkpoint { upto, bytes } => {
                while self.checkpoint_at < upto {
                    let Some(record) = self.records.pop_front() else { break };
                    self.record_bytes -= record.len() as u64;
                    self.checkpoint_at.0 += 1;
                }
                self.checkpoint = Some(bytes);
            }
            Change::Forget { mailbox, upto } => {
                let Some(letters) = self.boxes.get_mut(&mailbox) else { return 0 };
                while letters.mails.front().is_some_and(|(cursor, _)| *cursor <= upto) {
                    let Some((cursor, mail)) = letters.mails.pop_front() else { break };
                    letters.forgotten = cursor;
                    letters.bytes -= mail.len() as u64;
                    self.mail_bytes -= mail.len() as u64;
                }
            }
        }
        0
    }

    fn apply_commit(&mut self, commit: Commit) -> u64 {
        let mut dropped = 0;
        while self.cursor < commit.cursor {
            let Some(event) = self.events.pop_front() else { break };
            self.event_bytes -= event.len() as u64;
            self.cursor.0 += 1;
        }
        self.record_bytes += total(&commit.records);
        self.records.extend(commit.records);
        for (mailbox, mail) in commit.mails {
            let letters = self.boxes.entry(mailbox).or_default();
            if letters.is_closed {
                dropped += 1;
                continue;
            }
            self.last_mail.0 += 1;
            letters.bytes += mail.len() as u64;
            self.mail_bytes += mail.len() as u64;
            letters.mails.push_back((self.last_mail, mail));
        }
        for mailbox in commit.close {
            self.boxes.entry(mailbox).or_default().is_closed = true;
        }
        for mailbox in commit.remove {
            let letters = self.boxes.remove(&mailbox).unwrap_or_default();
            self.mail_bytes -= letters.bytes;
        }
        self.last_commit = Some((commit.id, self.position(), dropped));
        dropped
    }
}

fn total(messages: &[Vec<u8>]) -> u64 {
    messages.iter().map(|message| message.len() as u64).sum()
}

fn below(bound: Bound, got: u64, max: u64) -> Result<(), QueueError> {
    if got > max {
        return Err(QueueError::Full { bound, max });
    }
    Ok(())
}
