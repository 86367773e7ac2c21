//! The queue that coordinators and workers share: a fenced log, an inbox, mailboxes.

use std::collections::{BTreeMap, VecDeque};

use crate::{AttemptId, Epoch, Event, Lease, Message, Time};

/// To a worker.
#[derive(Clone, Debug)]
pub(super) enum Mail {
    /// From the machine.
    Machine(Message),
    /// The leader is done with an attempt.
    Closed(AttemptId),
    /// The leader does not know this session.
    Register,
}

/// Everything here survives every process.
pub(super) struct Queue {
    pub lease: Lease,
    /// The highest epoch that has begun.
    pub epoch: Epoch,
    /// The machine, serialised, at the beginning of the log.
    pub checkpoint: Vec<u8>,
    /// What was committed since.
    pub log: Vec<(Event, Time)>,
    /// Records ever committed.
    pub position: u64,
    pub inbox: VecDeque<Event>,
    pub mailboxes: BTreeMap<(u64, u64), Vec<Mail>>,
}

impl Queue {
    pub(super) fn new(checkpoint: Vec<u8>) -> Self {
        Self {
            lease: Lease::default(),
            epoch: Epoch(0),
            checkpoint,
            log: Vec::new(),
            position: 0,
            inbox: VecDeque::new(),
            mailboxes: BTreeMap::new(),
        }
    }

    /// One atomic step of the leader of `epoch`; false if another has begun: then nothing has changed.
    pub(super) fn commit(
        &mut self,
        epoch: Epoch,
        is_fencing: bool,
        record: Option<(Event, Time)>,
        mails: Vec<((u64, u64), Mail)>,
    ) -> bool {
        if is_fencing && epoch != self.epoch {
            return false;
        }
        self.position += u64::from(record.is_some());
        self.log.extend(record);
        for (mailbox, mail) in mails {
            self.mailboxes.entry(mailbox).or_default().push(mail);
        }
        true
    }
}
