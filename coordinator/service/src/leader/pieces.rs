//! Cuts what a turn does to mailboxes into commits that the queue takes, and gives up mailboxes that are full.

use std::collections::BTreeSet;

use assay_queue::{Bound, Commit, Cursor, Mailbox, QueueError};

use crate::names;

/// Mails, closings and removals of one commit, of each so many; the queue's own limit may not be lower.
const PIECE_MAX: usize = 3000;

/// Commits that together carry mails, then close and then remove mailboxes; at least one.
pub(super) fn pieces(
    cursor: Cursor,
    mails: impl Iterator<Item = (Mailbox, Vec<u8>)>,
    close: Vec<Mailbox>,
    remove: Vec<Mailbox>,
) -> Vec<Commit> {
    let mut pieces = vec![Commit::new(cursor)];
    for mail in mails {
        room(&mut pieces, |piece| piece.mails.len()).mails.push(mail);
    }
    for mailbox in close {
        room(&mut pieces, |piece| piece.close.len()).close.push(mailbox);
    }
    for mailbox in remove {
        room(&mut pieces, |piece| piece.remove.len()).remove.push(mailbox);
    }
    pieces
}

/// The last piece, or a new one if that has as many of something as it may have.
fn room(pieces: &mut Vec<Commit>, count: impl Fn(&Commit) -> usize) -> &mut Commit {
    let last = pieces.last().expect("begun with one");
    if count(last) >= PIECE_MAX {
        let next = Commit::new(last.cursor);
        pieces.push(next);
    }
    pieces.last_mut().expect("begun with one")
}

/// Takes full mailboxes out of a commit: a worker's is closed, that of the standbys goes, so that they load again.
pub(super) fn give_up(piece: &mut Commit, refused: &BTreeSet<Mailbox>) {
    piece.mails.retain(|(to, _)| !refused.contains(to));
    for mailbox in refused {
        let list = if *mailbox == names::log() { &mut piece.remove } else { &mut piece.close };
        if !list.contains(mailbox) {
            list.push(mailbox.clone());
        }
    }
}

/// After a commit that a full mailbox has stopped: its reader is given up, and the commit may be tried without it.
pub(super) fn give_up_reader(error: QueueError, refused: &mut BTreeSet<Mailbox>) -> Result<(), QueueError> {
    match error {
        QueueError::Full { bound: Bound::Mailbox(ref full) | Bound::MailboxBytes(ref full), .. }
            if refused.insert(full.clone()) =>
        {
            tracing::warn!(mailbox = %full, "a mailbox is full: its reader is given up");
            Ok(())
        }
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use assay_schedule::WorkerId;

    use super::*;

    fn worker(number: u64) -> Mailbox {
        names::worker(WorkerId(number), 1)
    }

    #[test]
    fn nothing_is_one_empty_commit() {
        let made = pieces(Cursor(7), std::iter::empty(), Vec::new(), Vec::new());
        assert_eq!(made.len(), 1);
        assert_eq!((made[0].cursor, made[0].mails.len()), (Cursor(7), 0));
    }

    #[test]
    fn pieces_keep_the_order_and_closings_come_after_all_mails() {
        let count = 2 * PIECE_MAX as u64 + 5;
        let mails = (0..count).map(|number| (worker(number), number.to_le_bytes().to_vec()));
        let lists = || (0..count).map(worker).collect::<Vec<_>>();
        let made = pieces(Cursor(1), mails, lists(), lists());
        for piece in &made {
            assert!([piece.mails.len(), piece.close.len(), piece.remove.len()]
                .iter()
                .all(|n| *n <= PIECE_MAX));
        }
        let sent: Vec<&Mailbox> = made.iter().flat_map(|piece| &piece.mails).map(|(to, _)| to).collect();
        let (closed, removed): (Vec<Mailbox>, Vec<Mailbox>) = (
            made.iter().flat_map(|piece| piece.close.clone()).collect(),
            made.iter().flat_map(|piece| piece.remove.clone()).collect(),
        );
        assert_eq!(sent, lists().iter().collect::<Vec<_>>());
        assert_eq!((closed, removed), (lists(), lists()));
        let last_mail = made.iter().rposition(|piece| !piece.mails.is_empty()).unwrap();
        let first_close = made.iter().position(|piece| !piece.close.is_empty()).unwrap();
        let last_close = made.iter().rposition(|piece| !piece.close.is_empty()).unwrap();
        let first_removal = made.iter().position(|piece| !piece.remove.is_empty()).unwrap();
        assert!(last_mail <= first_close && last_close <= first_removal);
        let ids: BTreeSet<[u8; 16]> = made.iter().map(|piece| *piece.id.as_bytes()).collect();
        assert_eq!(ids.len(), made.len());
    }

    #[test]
    fn a_full_mailbox_is_given_up_once_and_then_it_is_an_error() {
        let full = |mailbox: Mailbox| QueueError::Full { bound: Bound::Mailbox(mailbox), max: 1 };
        let mut refused = BTreeSet::new();
        give_up_reader(full(worker(1)), &mut refused).unwrap();
        give_up_reader(full(names::log()), &mut refused).unwrap();
        assert!(give_up_reader(full(worker(1)), &mut refused).is_err());
        assert!(give_up_reader(QueueError::Full { bound: Bound::Records, max: 1 }, &mut refused).is_err());
        let mails = [worker(1), worker(2), names::log()].map(|to| (to, b"mail".to_vec()));
        let mut piece = pieces(Cursor(1), mails.into_iter(), vec![worker(1)], Vec::new()).remove(0);
        for _ in 0..2 {
            give_up(&mut piece, &refused);
            assert_eq!(piece.mails.iter().map(|(to, _)| to.clone()).collect::<Vec<_>>(), [worker(2)]);
            assert_eq!((piece.close.clone(), piece.remove.clone()), (vec![worker(1)], vec![names::log()]));
        }
    }
}
