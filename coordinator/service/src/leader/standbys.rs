//! What the leader knows of standbys: who reads the mailbox `log`, and how full it is.

use std::collections::BTreeMap;
use std::time::Duration;

use assay_queue::Cursor;
use tokio::time::Instant;

use super::follow::SIGN_TIME;

/// A standby is believed gone after this.
const GONE: Duration = Duration::from_secs(4 * SIGN_TIME.as_secs());
/// Standbys that are kept track of.
const STANDBYS_MAX: usize = 64;
/// Mails and bytes in the mailbox beyond which it is emptied; standbys then load again. Below the queue's own limits.
const MAILS_MAX: u64 = 8192;
const BYTES_MAX: u64 = 8 << 20;

#[derive(Default)]
pub(super) struct Standbys {
    epoch: u64,
    seen: BTreeMap<u64, (Cursor, Instant)>,
    /// Up to where the mailbox was emptied.
    forgotten: Cursor,
    mails: u64,
    bytes: u64,
}

impl Standbys {
    /// Those of a term.
    pub(super) fn new(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// A standby has given a sign of life. Returns up to where all have read.
    pub(super) fn sign(&mut self, standby: u64, cursor: Cursor, now: Instant) -> Cursor {
        self.drop_gone(now);
        if self.seen.len() < STANDBYS_MAX || self.seen.contains_key(&standby) {
            self.seen.insert(standby, (cursor, now));
        }
        self.seen.values().map(|(cursor, _)| *cursor).min().unwrap_or_default()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    fn drop_gone(&mut self, now: Instant) {
        self.seen.retain(|_, (_, seen)| now.saturating_duration_since(*seen) < GONE);
    }

    /// What was read up to a place is forgotten. How much that was is only estimated; the queue refuses what is too much.
    pub(super) fn forgotten(&mut self, upto: Cursor) {
        if upto > self.forgotten {
            self.forgotten = upto;
            (self.mails, self.bytes) = (self.mails / 2, self.bytes / 2);
        }
    }

    /// Mails that tell of `records`, as they are in the log, of which the first gets place `first`; and whether the mailbox
    /// has to go first.
    pub(super) fn mails(
        &mut self,
        first: u64,
        records: &[Vec<u8>],
        mail_bytes_max: usize,
        now: Instant,
    ) -> (bool, Vec<Vec<u8>>) {
        self.drop_gone(now);
        if self.seen.is_empty() {
            let is_left = self.mails > 0;
            (self.mails, self.bytes) = (0, 0);
            return (is_left, Vec::new());
        }
        if self.mails > MAILS_MAX || self.bytes > BYTES_MAX {
            // Whoever reads it is too slow. An empty mailbox shows as a gap.
            (self.mails, self.bytes) = (0, 0);
            return (true, Vec::new());
        }
        let mut mails = Vec::new();
        let (mut mail, mut next) = (Vec::new(), first);
        for record in records {
            if !mail.is_empty() && mail.len() + record.len() + 64 > mail_bytes_max {
                mails.push(log_mail_end(std::mem::take(&mut mail)));
            }
            if mail.is_empty() {
                mail = log_mail_begin(self.epoch, next);
            } else {
                mail.push(b',');
            }
            mail.extend_from_slice(record);
            next += 1;
        }
        if !mail.is_empty() {
            mails.push(log_mail_end(mail));
        }
        self.mails += mails.len() as u64;
        self.bytes += mails.iter().map(|mail| mail.len() as u64).sum::<u64>();
        (false, mails)
    }
}

/// A [`LogMail`](super::follow::LogMail) up to its first record. Records are JSON already.
fn log_mail_begin(epoch: u64, first: u64) -> Vec<u8> {
    format!("{{\"epoch\":{epoch},\"first\":{first},\"records\":[").into_bytes()
}

fn log_mail_end(mut mail: Vec<u8>) -> Vec<u8> {
    mail.extend_from_slice(b"]}");
    mail
}

#[cfg(test)]
mod tests {
    use assay_schedule::{Event, Time};

    use super::*;
    use crate::leader::follow::LogMail;
    use crate::state::{encode_record, Entry, Record};

    fn records(count: usize) -> Vec<Vec<u8>> {
        vec![encode_record(&Record { at: Time(1), entry: Entry::Event(Event::Tick) }); count]
    }

    #[test]
    fn nothing_is_mailed_without_a_standby() {
        let (mut standbys, now) = (Standbys::default(), Instant::now());
        let records = records(3);
        assert_eq!(standbys.mails(1, &records, 1 << 20, now), (false, Vec::new()));
        standbys.sign(1, Cursor(0), now);
        assert_eq!(standbys.mails(4, &records, 1 << 20, now).1.len(), 1);
        // Gone: what is left for it is removed.
        assert_eq!(standbys.mails(7, &records, 1 << 20, now + GONE), (true, Vec::new()));
        assert_eq!(standbys.mails(10, &records, 1 << 20, now + GONE), (false, Vec::new()));
    }

    #[test]
    fn mails_are_cut_to_size_and_number_their_records() {
        let (mut standbys, now) = (Standbys::new(7), Instant::now());
        standbys.sign(1, Cursor(0), now);
        let records = records(100);
        let max = records[0].len() * 8;
        let (_, mails) = standbys.mails(11, &records, max, now);
        let mut next = 11;
        for mail in &mails {
            assert!(mail.len() <= max, "{} > {max}", mail.len());
            let mail: LogMail = serde_json::from_slice(mail).unwrap();
            assert_eq!((mail.epoch, mail.first), (7, next));
            next += mail.records.len() as u64;
        }
        assert_eq!(next, 111);
    }

    #[test]
    fn the_slowest_standby_says_what_may_be_forgotten_until_it_is_gone() {
        let (mut standbys, now) = (Standbys::default(), Instant::now());
        assert_eq!(standbys.sign(1, Cursor(10), now), Cursor(10));
        assert_eq!(standbys.sign(2, Cursor(4), now), Cursor(4));
        assert_eq!(standbys.sign(1, Cursor(20), now + GONE), Cursor(20));
        assert_eq!(standbys.len(), 1);
    }

    #[test]
    fn a_mailbox_that_nobody_empties_is_removed() {
        let (mut standbys, now) = (Standbys::default(), Instant::now());
        standbys.sign(1, Cursor(0), now);
        let records = records(1);
        let mut removed = 0;
        for first in 1..=2 * (MAILS_MAX + 2) {
            // A sign of life alone empties nothing.
            let upto = standbys.sign(1, Cursor(0), now);
            standbys.forgotten(upto);
            let (remove, mails) = standbys.mails(first, &records, 1 << 20, now);
            removed += u64::from(remove);
            assert!(remove || mails.len() == 1);
        }
        assert_eq!(removed, 2);
    }
}
