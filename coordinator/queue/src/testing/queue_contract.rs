//! What every [`TaskQueue`] does.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::{
    Bound, Class, Commit, CommitId, Cursor, Epoch, Health, Mail, Mailbox, Place, Position, QueueError,
    QueueLimits, Stored, TaskQueue,
};

/// A fresh queue, seen by two processes.
pub struct QueueFixture {
    /// One process's view.
    pub queue: Arc<dyn TaskQueue>,
    /// The other's.
    pub other: Arc<dyn TaskQueue>,
    /// What must live as long: a server, a folder.
    pub keep: Box<dyn Any + Send>,
}

/// Long enough never to end within a test.
const LONG: Duration = Duration::from_secs(600);
const NO_WAIT: Duration = Duration::ZERO;
/// Bound on a wait that ends early when all is well.
const PATIENCE: Duration = Duration::from_secs(20);

fn mailbox(name: &str) -> Mailbox {
    Mailbox::new(name).expect("a plain name")
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn texts(mails: &[Mail]) -> Vec<String> {
    mails.iter().map(|mail| String::from_utf8_lossy(&mail.bytes).into_owned()).collect()
}

fn commit_of(cursor: u64, records: &[&str], mails: &[(&str, &str)]) -> Commit {
    Commit {
        records: records.iter().map(|record| bytes(record)).collect(),
        mails: mails.iter().map(|(name, mail)| (mailbox(name), bytes(mail))).collect(),
        ..Commit::new(Cursor(cursor))
    }
}

async fn lead(queue: &dyn TaskQueue, holder: &str) -> Epoch {
    queue.lead(holder, LONG).await.unwrap().expect("nobody else leads")
}

async fn all_mails(queue: &dyn TaskQueue, name: &str, after: u64) -> Vec<String> {
    texts(&queue.read(&mailbox(name), Cursor(after), 1000, NO_WAIT).await.unwrap().mails)
}

async fn counts(queue: &dyn TaskQueue) -> Health {
    let health = queue.health().await.unwrap();
    Health { memory_bytes: None, memory_bytes_max: None, warnings: Vec::new(), ..health }
}

macro_rules! assert_full {
    ($result:expr, $bound:expr) => {
        match $result {
            Err(error @ QueueError::Full { .. }) => {
                assert_eq!(error.class(), Class::Transient);
                let QueueError::Full { bound, .. } = error else { unreachable!() };
                assert_eq!(bound, $bound);
            }
            other => panic!("expected {:?} to be full, got {other:?}", $bound),
        }
    };
}

/// Somebody leads or nobody, and every takeover has a higher epoch.
pub async fn one_leads_at_a_time_and_epochs_grow(fixture: QueueFixture) {
    let (one, two) = (&fixture.queue, &fixture.other);
    assert_eq!(one.leader().await.unwrap(), None);
    let first = lead(&**one, "a").await;
    assert_eq!(first, Epoch(1));
    assert_eq!(two.lead("b", LONG).await.unwrap(), None);
    assert_eq!(one.lead("a", LONG).await.unwrap(), Some(first), "a renewal keeps the epoch");
    let leader = two.leader().await.unwrap().expect("a leads");
    assert_eq!((leader.holder.as_str(), leader.epoch), ("a", first));
    assert!(leader.remaining > LONG / 2 && leader.remaining <= LONG);

    one.resign(first).await.unwrap();
    assert_eq!(two.leader().await.unwrap(), None);
    let second = lead(&**two, "b").await;
    assert_eq!(second, Epoch(2));
    assert_eq!(one.lead("a", LONG).await.unwrap(), None);
    one.resign(first).await.unwrap();
    assert_eq!(
        one.leader().await.unwrap().map(|leader| leader.epoch),
        Some(second),
        "an old epoch ends nothing"
    );
    two.resign(second).await.unwrap();
    assert_eq!(lead(&**two, "b").await, Epoch(3), "who resigned and leads again begins a new term");
}

/// A lease ends by itself; its holder may renew it as long as nobody took over.
pub async fn a_lease_that_ran_out_is_for_whoever_comes_first(fixture: QueueFixture) {
    let (one, two) = (&fixture.queue, &fixture.other);
    let ttl = Duration::from_millis(50);
    let first = one.lead("a", ttl).await.unwrap().unwrap();
    tokio::time::sleep(2 * ttl).await;
    assert_eq!(two.leader().await.unwrap(), None);
    assert_eq!(one.lead("a", ttl).await.unwrap(), Some(first), "nobody took over: the same term goes on");
    tokio::time::sleep(2 * ttl).await;
    let second = two.lead("b", LONG).await.unwrap().expect("the lease is over");
    assert!(second > first);
    assert_eq!(one.lead("a", LONG).await.unwrap(), None);
}

/// Nothing that a deposed leader wants gets in.
pub async fn a_deposed_leader_leaves_nothing(fixture: QueueFixture) {
    let (one, two) = (&fixture.queue, &fixture.other);
    one.post(bytes("event")).await.unwrap();
    let first = lead(&**one, "a").await;
    one.commit(first, &commit_of(0, &["r1"], &[("m", "m1")])).await.unwrap();
    one.resign(first).await.unwrap();
    let stale = Commit { close: vec![mailbox("m")], ..commit_of(1, &["r2"], &[("m", "m2"), ("n", "n1")]) };
    let refused = one.commit(first, &stale).await;
    assert!(matches!(refused, Err(QueueError::Fenced { .. })), "who resigned is fenced at once: {refused:?}");
    let second = lead(&**two, "b").await;
    let before = two.load().await.unwrap();

    for got in [first, Epoch(0), Epoch(second.0 + 1)] {
        let refused = one.commit(got, &stale).await;
        let expected = (got, second);
        assert!(
            matches!(&refused, Err(QueueError::Fenced { got, current }) if (*got, *current) == expected),
            "{refused:?}"
        );
        let refused = one.checkpoint(got, Position(1), b"stale").await;
        assert!(matches!(refused, Err(QueueError::Fenced { .. })), "{refused:?}");
    }
    assert_eq!(two.load().await.unwrap(), before);
    assert_eq!(before.records, [bytes("r1")]);
    assert_eq!(all_mails(&**two, "m", 0).await, ["m1"]);
    assert!(!two.read(&mailbox("m"), Cursor(0), 9, NO_WAIT).await.unwrap().is_closed);
    assert_eq!(all_mails(&**two, "n", 0).await, Vec::<String>::new());
    assert_eq!(two.events(Cursor(0), 9, NO_WAIT).await.unwrap().len(), 1, "the event still waits");
}

/// A commit that breaks a bound with its last part leaves nothing of its other parts.
pub async fn a_commit_is_whole_or_nothing(fixture: QueueFixture) {
    let queue = &fixture.queue;
    queue.post_all(&[bytes("e1"), bytes("e2")]).await.unwrap();
    let epoch = lead(&**queue, "a").await;
    let filling: Vec<(&str, &str)> = vec![("full", "x"); SMALL.mailbox_mails_max as usize];
    queue.commit(epoch, &commit_of(0, &[], &filling)).await.unwrap();
    let before = (queue.load().await.unwrap(), counts(&**queue).await);

    let mut mails = vec![("a", "1"), ("b", "2"), ("full", "one too many")];
    let refused = queue.commit(epoch, &commit_of(2, &["r"], &mails)).await;
    assert_full!(refused, Bound::Mailbox(mailbox("full")));
    assert_eq!((queue.load().await.unwrap(), counts(&**queue).await), before);
    assert_eq!(all_mails(&**queue, "a", 0).await, Vec::<String>::new());

    mails.pop();
    let committed = queue.commit(epoch, &commit_of(2, &["r"], &mails)).await.unwrap();
    assert_eq!((committed.position, committed.is_repeated), (Position(1), false));
    assert_eq!(all_mails(&**queue, "b", 0).await, ["2"]);
    assert_eq!(queue.load().await.unwrap().cursor, Cursor(2));
}

/// The same commit counts once, also when it is repeated by a handle that never saw an answer.
pub async fn a_repeated_commit_counts_once(fixture: QueueFixture) {
    let queue = &fixture.queue;
    queue.post(bytes("e")).await.unwrap();
    let epoch = lead(&**queue, "a").await;
    let commit = commit_of(1, &["r1", "r2"], &[("m", "m1")]);
    let first = queue.commit(epoch, &commit).await.unwrap();
    for handle in [queue, &fixture.other, queue] {
        let again = handle.commit(epoch, &commit).await.unwrap();
        assert!(again.is_repeated && again.position == first.position && again.dropped == first.dropped);
    }
    assert_eq!(queue.load().await.unwrap().records, [bytes("r1"), bytes("r2")]);
    assert_eq!(all_mails(&**queue, "m", 0).await, ["m1"]);
    let fresh = Commit { id: CommitId::random(), ..commit };
    assert_eq!(queue.commit(epoch, &fresh).await.unwrap().position, Position(4));
}

/// Events wait in order until a commit accounts for them.
pub async fn events_wait_in_order_until_they_are_committed(fixture: QueueFixture) {
    let (queue, other) = (&fixture.queue, &fixture.other);
    assert_eq!(queue.post(bytes("a")).await.unwrap(), Cursor(1));
    assert_eq!(other.post_all(&[bytes("b"), Vec::new(), bytes("d")]).await.unwrap(), Cursor(4));
    let events = queue.events(Cursor(0), 3, NO_WAIT).await.unwrap();
    assert_eq!(events, [(Cursor(1), bytes("a")), (Cursor(2), bytes("b")), (Cursor(3), Vec::new())]);
    assert_eq!(queue.events(Cursor(0), 3, NO_WAIT).await.unwrap(), events, "reading takes nothing away");
    assert_eq!(queue.events(Cursor(3), 9, NO_WAIT).await.unwrap(), [(Cursor(4), bytes("d"))]);
    let epoch = lead(&**queue, "l").await;
    queue.commit(epoch, &Commit::new(Cursor(3))).await.unwrap();
    assert_eq!(queue.events(Cursor(0), 9, NO_WAIT).await.unwrap(), [(Cursor(4), bytes("d"))]);
    queue.commit(epoch, &Commit::new(Cursor(4))).await.unwrap();
    assert_eq!(queue.events(Cursor(0), 9, NO_WAIT).await.unwrap(), []);
    assert_eq!(queue.post(bytes("e")).await.unwrap(), Cursor(5), "places go on");
    assert_eq!(queue.events(Cursor(4), 9, NO_WAIT).await.unwrap(), [(Cursor(5), bytes("e"))]);
}

/// Posters are held back while the leader does not keep up, by number and by bytes.
pub async fn a_full_inbox_refuses_until_the_leader_has_caught_up(fixture: QueueFixture) {
    let queue = &fixture.queue;
    let epoch = lead(&**queue, "l").await;
    let many: Vec<Vec<u8>> = (0..SMALL.events_max).map(|i| bytes(&i.to_string())).collect();
    queue.post_all(&many[..many.len() - 1]).await.unwrap();
    assert_full!(queue.post_all(&[bytes("x"), bytes("y")]).await, Bound::Events);
    assert_eq!(queue.post(bytes("last")).await.unwrap(), Cursor(SMALL.events_max));
    assert_full!(queue.post(bytes("x")).await, Bound::Events);
    queue.commit(epoch, &Commit::new(Cursor(1))).await.unwrap();
    queue.post(bytes("x")).await.unwrap();

    let last = queue.events(Cursor(0), 100, NO_WAIT).await.unwrap().last().unwrap().0;
    queue.commit(epoch, &Commit::new(last)).await.unwrap();
    let large = vec![7; SMALL.message_bytes_max];
    let fit = SMALL.event_bytes_max as usize / large.len();
    assert!((fit as u64) < SMALL.events_max);
    queue.post_all(&vec![large.clone(); fit]).await.unwrap();
    assert_full!(queue.post(large.clone()).await, Bound::EventBytes);
    queue.commit(epoch, &Commit::new(Cursor(last.0 + 1))).await.unwrap();
    queue.post(large).await.unwrap();
}

/// Mails stay for every reader, from any place.
pub async fn a_mailbox_replays_from_any_cursor(fixture: QueueFixture) {
    let (queue, other) = (&fixture.queue, &fixture.other);
    let epoch = lead(&**queue, "l").await;
    let empty = queue.read(&mailbox("never/written"), Cursor(0), 9, NO_WAIT).await.unwrap();
    assert!(empty.mails.is_empty() && !empty.is_closed);
    queue.commit(epoch, &commit_of(0, &[], &[("a", "1"), ("b", "x"), ("a", "2")])).await.unwrap();
    queue.commit(epoch, &commit_of(0, &[], &[("b", "y"), ("a", "3"), ("a", "")])).await.unwrap();
    let page = other.read(&mailbox("a"), Cursor(0), 9, NO_WAIT).await.unwrap();
    assert_eq!(texts(&page.mails), ["1", "2", "3", ""]);
    assert!(page.mails.windows(2).all(|pair| pair[0].cursor < pair[1].cursor));
    for (at, mail) in page.mails.iter().enumerate() {
        let rest = queue.read(&mailbox("a"), mail.cursor, 9, NO_WAIT).await.unwrap();
        assert_eq!(rest.mails, page.mails[at + 1..]);
    }
    let short = queue.read(&mailbox("a"), Cursor(0), 2, NO_WAIT).await.unwrap();
    assert_eq!(short.mails, page.mails[..2]);
    assert_eq!(all_mails(&**queue, "b", 0).await, ["x", "y"]);
}

/// The end of a stream is seen by those who come late, again and again, and by nobody before its last mail.
pub async fn a_closed_mailbox_ends_its_readers_after_the_last_mail(fixture: QueueFixture) {
    let (queue, other) = (&fixture.queue, &fixture.other);
    let epoch = lead(&**queue, "l").await;
    let last = Commit {
        close: vec![mailbox("job"), mailbox("empty")],
        ..commit_of(0, &[], &[("job", "1"), ("job", "2"), ("job", "done")])
    };
    queue.commit(epoch, &last).await.unwrap();
    for reader in [queue, other, other] {
        let page = reader.read(&mailbox("job"), Cursor(0), 2, LONG).await.unwrap();
        assert!(texts(&page.mails) == ["1", "2"] && !page.is_closed, "{page:?}");
        let at = page.mails[1].cursor;
        let page = reader.read(&mailbox("job"), at, 2, LONG).await.unwrap();
        assert!(texts(&page.mails) == ["done"] && page.is_closed, "{page:?}");
        let page = reader.read(&mailbox("job"), page.mails[0].cursor, 2, LONG).await.unwrap();
        assert!(page.mails.is_empty() && page.is_closed, "{page:?}");
        let page = reader.read(&mailbox("job"), Cursor(0), 3, LONG).await.unwrap();
        assert!(page.mails.len() == 3 && page.is_closed, "exactly full and last: {page:?}");
        assert!(reader.read(&mailbox("empty"), Cursor(0), 2, LONG).await.unwrap().is_closed);
    }
    let late = queue.commit(epoch, &commit_of(0, &["r"], &[("job", "late"), ("next", "n")])).await.unwrap();
    assert_eq!((late.dropped, late.position), (1, Position(1)), "the rest of the commit counts");
    assert_eq!(all_mails(&**queue, "job", 0).await, ["1", "2", "done"]);
    assert_eq!(all_mails(&**queue, "next", 0).await, ["n"]);
}

/// A name may be used again after a removal; a reader with an old cursor misses nothing of the new mails.
pub async fn a_removed_mailbox_is_gone_and_may_begin_anew(fixture: QueueFixture) {
    let queue = &fixture.queue;
    let epoch = lead(&**queue, "l").await;
    let close =
        Commit { close: vec![mailbox("a")], ..commit_of(0, &[], &[("a", "1"), ("a", "2"), ("b", "b")]) };
    queue.commit(epoch, &close).await.unwrap();
    let old = queue.read(&mailbox("a"), Cursor(0), 9, NO_WAIT).await.unwrap().mails[1].cursor;
    let remove = Commit { remove: vec![mailbox("a"), mailbox("unknown")], ..Commit::new(Cursor(0)) };
    queue.commit(epoch, &remove).await.unwrap();
    let page = queue.read(&mailbox("a"), Cursor(0), 9, NO_WAIT).await.unwrap();
    assert!(page.mails.is_empty() && !page.is_closed, "{page:?}");
    let health = queue.health().await.unwrap();
    assert_eq!((health.mailboxes, health.mail_bytes), (1, 1));
    queue.commit(epoch, &commit_of(0, &[], &[("a", "new")])).await.unwrap();
    assert_eq!(all_mails(&**queue, "a", old.0).await, ["new"]);
}

/// Acknowledged mails make room; readers who come too late are told.
pub async fn forgotten_mails_make_room_and_leave_a_mark(fixture: QueueFixture) {
    let (queue, other) = (&fixture.queue, &fixture.other);
    let epoch = lead(&**queue, "l").await;
    let filling: Vec<(&str, &str)> = vec![("a", "xx"); SMALL.mailbox_mails_max as usize];
    queue.commit(epoch, &commit_of(0, &[], &filling)).await.unwrap();
    assert_full!(queue.commit(epoch, &commit_of(0, &[], &[("a", "x")])).await, Bound::Mailbox(mailbox("a")));
    let page = queue.read(&mailbox("a"), Cursor(0), 9, NO_WAIT).await.unwrap();
    assert_eq!(page.forgotten, Cursor(0));
    other.forget(&mailbox("a"), page.mails[1].cursor).await.unwrap();
    other.forget(&mailbox("a"), page.mails[0].cursor).await.unwrap();
    other.forget(&mailbox("unknown"), Cursor(1)).await.unwrap();
    queue.commit(epoch, &commit_of(0, &[], &[("a", "y"), ("a", "z")])).await.unwrap();
    let after = queue.read(&mailbox("a"), Cursor(0), 99, NO_WAIT).await.unwrap();
    assert_eq!(after.forgotten, page.mails[1].cursor);
    assert_eq!(after.mails.len() as u64, SMALL.mailbox_mails_max);
    assert_eq!(after.mails[0], page.mails[2]);
    assert_eq!(queue.health().await.unwrap().mail_bytes, 2 * SMALL.mailbox_mails_max - 2);
    other.forget(&mailbox("a"), Cursor(u64::MAX >> 12)).await.unwrap();
    let emptied = queue.read(&mailbox("a"), Cursor(0), 9, NO_WAIT).await.unwrap();
    assert_eq!((emptied.mails.len(), emptied.forgotten), (0, after.mails.last().unwrap().cursor));
    assert_eq!(queue.health().await.unwrap().mail_bytes, 0);
}

/// Every bound is named when it is hit, and what made it full can be undone.
pub async fn every_bound_is_named(fixture: QueueFixture) {
    let queue = &fixture.queue;
    let epoch = lead(&**queue, "l").await;
    let large = String::from_utf8(vec![b'x'; SMALL.message_bytes_max]).unwrap();
    let fit = SMALL.mailbox_bytes_max as usize / large.len();
    queue.commit(epoch, &commit_of(0, &[], &vec![("a", large.as_str()); fit])).await.unwrap();
    let refused = queue.commit(epoch, &commit_of(0, &[], &[("a", "x")])).await;
    assert_full!(refused, Bound::MailboxBytes(mailbox("a")));
    let others: Vec<String> = (0..fit).map(|i| format!("other/{i}")).collect();
    let mails: Vec<(&str, &str)> = others.iter().map(|name| (name.as_str(), large.as_str())).collect();
    queue.commit(epoch, &commit_of(0, &[], &mails)).await.unwrap();
    assert_full!(queue.commit(epoch, &commit_of(0, &[], &[("z", "x")])).await, Bound::MailBytes);
    let remove = Commit { remove: vec![mailbox("a")], ..Commit::new(Cursor(0)) };
    queue.commit(epoch, &remove).await.unwrap();

    let left = SMALL.mailboxes_max - fit as u64;
    let names: Vec<String> = (0..left).map(|i| format!("more/{i}")).collect();
    let mails: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    queue.commit(epoch, &commit_of(0, &[], &mails)).await.unwrap();
    assert_full!(queue.commit(epoch, &commit_of(0, &[], &[("z", "")])).await, Bound::Mailboxes);
    let close = Commit { close: vec![mailbox("z")], ..Commit::new(Cursor(0)) };
    assert_full!(queue.commit(epoch, &close).await, Bound::Mailboxes);
    queue.commit(epoch, &commit_of(0, &[], &[("more/0", "known ones go on")])).await.unwrap();
}

/// A log that is full takes no commit until a checkpoint has made room.
pub async fn a_full_log_wants_a_checkpoint(fixture: QueueFixture) {
    let queue = &fixture.queue;
    let epoch = lead(&**queue, "l").await;
    let records = vec!["r"; SMALL.records_max as usize];
    let end = queue.commit(epoch, &commit_of(0, &records, &[])).await.unwrap().position;
    assert_full!(queue.commit(epoch, &commit_of(0, &["r"], &[])).await, Bound::Records);
    queue.commit(epoch, &commit_of(0, &[], &[("m", "no record")])).await.unwrap();
    queue.checkpoint(epoch, Position(end.0 - 1), b"state").await.unwrap();
    assert_full!(queue.commit(epoch, &commit_of(0, &records, &[])).await, Bound::Records);
    queue.commit(epoch, &commit_of(0, &records[1..], &[])).await.unwrap();
    queue.checkpoint(epoch, Position(end.0 + records.len() as u64 - 1), b"state").await.unwrap();

    let large = String::from_utf8(vec![b'x'; SMALL.message_bytes_max]).unwrap();
    let fit = SMALL.record_bytes_max as usize / large.len();
    assert!((fit as u64) < SMALL.records_max);
    queue.commit(epoch, &commit_of(0, &vec![large.as_str(); fit], &[])).await.unwrap();
    assert_full!(queue.commit(epoch, &commit_of(0, &["xx"], &[])).await, Bound::RecordBytes);
}

/// The checkpoint and the records after it are all that was ever recorded, for every reader.
pub async fn a_checkpoint_and_the_records_after_it_reproduce_the_log(fixture: QueueFixture) {
    let (queue, other) = (&fixture.queue, &fixture.other);
    assert_eq!(other.load().await.unwrap(), Stored::default());
    let epoch = lead(&**queue, "l").await;
    queue.post_all(&vec![bytes("e"); 6]).await.unwrap();
    // The state is the text of all records.
    let mut model = String::new();
    for step in 0..6_u64 {
        let records = [format!("<{step}a>"), format!("<{step}b>")];
        model += &records.concat();
        let commit = commit_of(step + 1, &[&records[0], &records[1]], &[]);
        let end = queue.commit(epoch, &commit).await.unwrap().position;
        assert_eq!(end, Position(2 * step + 2));
        if step == 2 || step == 4 {
            // One record behind: the last one has to stay.
            let state = model.strip_suffix(records[1].as_str()).unwrap().as_bytes().to_vec();
            queue.checkpoint(epoch, Position(end.0 - 1), &state).await.unwrap();
            queue.checkpoint(epoch, Position(end.0 - 1), &state).await.unwrap();
        }
        let stored = other.load().await.unwrap();
        assert_eq!((stored.position, stored.cursor), (end, Cursor(step + 1)));
        let mut found = stored.checkpoint.unwrap_or_default();
        stored.records.iter().for_each(|record| found.extend_from_slice(record));
        assert_eq!(String::from_utf8(found).unwrap(), model);
    }
    assert_eq!(other.load().await.unwrap().records.len(), 3);
    queue.resign(epoch).await.unwrap();
    let epoch = lead(&**other, "m").await;
    assert_eq!(other.commit(epoch, &commit_of(6, &["next"], &[])).await.unwrap().position, Position(13));
}

/// A commit of more records and bytes than a store keeps together is read as it was written, whatever part of it a
/// checkpoint has taken.
pub async fn a_large_commit_is_read_from_every_checkpoint(fixture: QueueFixture) {
    const COUNT: usize = 600;
    let (queue, other) = (&fixture.queue, &fixture.other);
    let epoch = lead(&**queue, "l").await;
    queue.commit(epoch, &commit_of(0, &["before"], &[])).await.unwrap();
    // Mostly short; some so long that two or three of them fill what is kept together.
    let length = |at: usize| if at % 100 > 96 { 450_000 + at } else { at % 7 };
    let records: Vec<Vec<u8>> = (0..COUNT).map(|at| vec![at as u8; length(at)]).collect();
    let commit = Commit { records: records.clone(), ..Commit::new(Cursor(0)) };
    assert_eq!(queue.commit(epoch, &commit).await.unwrap().position, Position(COUNT as u64 + 1));
    queue.commit(epoch, &commit_of(0, &["after"], &[])).await.unwrap();
    for taken in [0, 1, 96, 97, 98, 99, 100, 255, 256, 257, 399, 511, 512, 513, 598, 599, 600] {
        queue.checkpoint(epoch, Position(taken as u64 + 1), b"state").await.unwrap();
        let stored = other.load().await.unwrap();
        let (last, rest) = stored.records.split_last().unwrap();
        assert_eq!((rest == &records[taken..], last.as_slice()), (true, &b"after"[..]), "{taken} taken");
        let left: usize = stored.records.iter().map(Vec::len).sum();
        let health = counts(&**other).await;
        let expected = ((COUNT - taken) as u64 + 1, left as u64);
        assert_eq!((health.records, health.record_bytes), expected, "{taken} taken");
    }
    queue.checkpoint(epoch, Position(COUNT as u64 + 2), b"state").await.unwrap();
    let health = counts(&**queue).await;
    assert_eq!((health.records, health.record_bytes), (0, 0));
}

/// A commit that builds on another state than the queue's is refused; so a leader notices that what it has written is gone.
pub async fn a_commit_on_another_state_is_refused(fixture: QueueFixture) {
    let queue = &fixture.queue;
    let epoch = lead(&**queue, "l").await;
    queue.post_all(&[bytes("1"), bytes("2"), bytes("3")]).await.unwrap();
    let place = |position, cursor| Place { position: Position(position), cursor: Cursor(cursor) };
    let on = |after: Place, cursor| Commit { after: Some(after), ..commit_of(cursor, &["r"], &[("m", "m")]) };
    let first = on(place(0, 0), 2);
    queue.commit(epoch, &first).await.unwrap();
    // Ahead of the queue, behind it, another cursor.
    for expected in [place(2, 2), place(0, 2), place(1, 3), place(1, 0)] {
        let refused = queue.commit(epoch, &on(expected, 3)).await.unwrap_err();
        assert_eq!(refused.class(), Class::Permanent);
        let QueueError::Gap { expected: wanted, found } = refused else { panic!("{refused:?}") };
        assert_eq!((wanted, found), (expected, place(1, 2)));
    }
    assert!(
        queue.commit(epoch, &first).await.unwrap().is_repeated,
        "a repetition builds on what it has made"
    );
    assert_eq!(queue.commit(epoch, &on(place(1, 2), 3)).await.unwrap().position, Position(2));
    let page = queue.read(&mailbox("m"), Cursor(0), 9, NO_WAIT).await.unwrap();
    assert_eq!(page.mails.len(), 2, "a refused commit leaves nothing");
    assert_eq!(queue.load().await.unwrap().cursor, Cursor(3));
}

/// What cannot be is refused before anything happens.
pub async fn impossible_calls_are_refused(fixture: QueueFixture) {
    let queue = &fixture.queue;
    let epoch = lead(&**queue, "l").await;
    queue.post_all(&[bytes("1"), bytes("2"), bytes("3")]).await.unwrap();
    queue.commit(epoch, &commit_of(2, &["r1", "r2"], &[])).await.unwrap();
    for got in [Cursor(1), Cursor(4)] {
        let refused = queue.commit(epoch, &Commit::new(got)).await.unwrap_err();
        assert_eq!(refused.class(), Class::Bug);
        let QueueError::CursorOutOfRange { got: at, committed, last } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!((at, committed, last), (got, Cursor(2), Cursor(3)));
    }
    queue.checkpoint(epoch, Position(1), b"c").await.unwrap();
    for got in [Position(0), Position(3)] {
        let refused = queue.checkpoint(epoch, got, b"c").await.unwrap_err();
        let QueueError::PositionOutOfRange { got: at, checkpoint, last } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!((at, checkpoint, last), (got, Position(1), Position(2)));
    }
    let large = vec![0; SMALL.message_bytes_max + 1];
    let mut commit = Commit::new(Cursor(2));
    assert!(matches!(queue.post(large.clone()).await, Err(QueueError::TooLarge { .. })));
    commit.records = vec![large.clone()];
    assert!(matches!(queue.commit(epoch, &commit).await, Err(QueueError::TooLarge { .. })));
    (commit.records, commit.mails) = (Vec::new(), vec![(mailbox("m"), large)]);
    assert!(matches!(queue.commit(epoch, &commit).await, Err(QueueError::TooLarge { .. })));
    commit.mails = vec![(mailbox("m"), Vec::new()); SMALL.page_max + 1];
    assert!(matches!(queue.commit(epoch, &commit).await, Err(QueueError::TooLarge { .. })));
    // Each fits, but all together never do.
    let number = 1 + SMALL.mail_bytes_max as usize / SMALL.message_bytes_max;
    let many = vec![vec![0; SMALL.message_bytes_max]; number];
    assert!(matches!(queue.post_all(&many).await, Err(QueueError::TooLarge { .. })));
    commit.mails = many.iter().map(|mail| (mailbox("m"), mail.clone())).collect();
    assert!(matches!(queue.commit(epoch, &commit).await, Err(QueueError::TooLarge { .. })));
    (commit.records, commit.mails) = (many, Vec::new());
    assert!(matches!(queue.commit(epoch, &commit).await, Err(QueueError::TooLarge { .. })));
    let state = vec![0; SMALL.checkpoint_bytes_max + 1];
    assert!(matches!(queue.checkpoint(epoch, Position(2), &state).await, Err(QueueError::TooLarge { .. })));
    assert!(queue.lead("", LONG).await.is_err() && queue.lead(&"x".repeat(200), LONG).await.is_err());
    let stored = queue.load().await.unwrap();
    assert_eq!(
        (stored.position, stored.cursor, stored.checkpoint),
        (Position(2), Cursor(2), Some(bytes("c")))
    );
}

/// Whoever waits is woken by what he waits for, not by a clock.
pub async fn waiting_readers_are_woken_at_once(fixture: QueueFixture) {
    let epoch = lead(&*fixture.queue, "l").await;
    let mut waits = Vec::new();
    let mut cursor = Cursor(0);
    for round in 0..40_u64 {
        let reader = fixture.other.clone();
        let waiting = tokio::spawn(async move {
            let page = reader.read(&mailbox("m"), cursor, 9, PATIENCE).await.unwrap();
            (Instant::now(), page)
        });
        // Long enough for the reader to fall asleep.
        tokio::time::sleep(Duration::from_millis(15)).await;
        let sent = Instant::now();
        fixture.queue.commit(epoch, &commit_of(0, &[], &[("m", &round.to_string())])).await.unwrap();
        let (woken, page) = waiting.await.unwrap();
        assert_eq!(texts(&page.mails), [round.to_string()]);
        cursor = page.mails[0].cursor;
        fixture.other.forget(&mailbox("m"), cursor).await.unwrap();
        waits.push(woken.duration_since(sent));
    }
    waits.sort();
    let median = waits[waits.len() / 2];
    // By its clock a reader would look after two seconds. How fast it is on an idle machine, `examples/throughput` says.
    assert!(median < Duration::from_secs(1), "median {median:?} of {waits:?}");
}

/// An event wakes the leader, a closing wakes readers, and a wait ends by itself.
pub async fn waits_end_with_events_closings_and_time(fixture: QueueFixture) {
    let (queue, other) = (&fixture.queue, &fixture.other);
    let epoch = lead(&**queue, "l").await;
    let started = Instant::now();
    let nothing = queue.events(Cursor(0), 9, Duration::from_millis(30)).await.unwrap();
    assert!(nothing.is_empty() && started.elapsed() >= Duration::from_millis(30));
    let started = Instant::now();
    let page = other.read(&mailbox("m"), Cursor(0), 9, Duration::from_millis(30)).await.unwrap();
    assert!(page.mails.is_empty() && started.elapsed() >= Duration::from_millis(30));

    let leader = queue.clone();
    let waiting = tokio::spawn(async move { leader.events(Cursor(0), 9, PATIENCE).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(30)).await;
    let started = Instant::now();
    other.post(bytes("e")).await.unwrap();
    assert_eq!(waiting.await.unwrap(), [(Cursor(1), bytes("e"))]);
    assert!(started.elapsed() < PATIENCE / 4);

    let readers: Vec<_> = (0..8)
        .map(|_| {
            let reader = other.clone();
            tokio::spawn(async move { reader.read(&mailbox("m"), Cursor(0), 9, PATIENCE).await.unwrap() })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(30)).await;
    let started = Instant::now();
    let close = Commit { close: vec![mailbox("m")], ..Commit::new(Cursor(1)) };
    queue.commit(epoch, &close).await.unwrap();
    for reader in readers {
        assert!(reader.await.unwrap().is_closed);
    }
    assert!(started.elapsed() < PATIENCE / 4);
}

/// Many posters, one leader that echoes, one reader for each poster: everything arrives once and in order.
pub async fn a_leader_loop_echoes_everything_once_and_in_order(fixture: QueueFixture) {
    const POSTERS: usize = 8;
    const EVENTS: usize = 60;
    let mut tasks = Vec::new();
    for poster in 0..POSTERS {
        let (queue, reader) = (fixture.queue.clone(), fixture.other.clone());
        tasks.push(tokio::spawn(async move {
            for event in 0..EVENTS {
                loop {
                    match queue.post(bytes(&format!("{poster} {event}"))).await {
                        Ok(_) => break,
                        Err(QueueError::Full { bound: Bound::Events, .. }) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }));
        tasks.push(tokio::spawn(async move {
            let name = mailbox(&format!("poster/{poster}"));
            let (mut seen, mut cursor) = (Vec::new(), Cursor(0));
            while seen.len() < EVENTS {
                let page = reader.read(&name, cursor, 7, PATIENCE).await.unwrap();
                assert!(!page.mails.is_empty(), "nothing for {PATIENCE:?} after {seen:?}");
                cursor = page.mails.last().unwrap().cursor;
                seen.extend(texts(&page.mails));
                reader.forget(&name, cursor).await.unwrap();
            }
            let expected: Vec<String> = (0..EVENTS).map(|event| format!("{poster} {event}")).collect();
            assert_eq!(seen, expected);
        }));
    }
    let queue = &fixture.queue;
    let epoch = lead(&**queue, "l").await;
    let (mut cursor, mut seen) = (Cursor(0), BTreeSet::new());
    while seen.len() < POSTERS * EVENTS {
        let events = queue.events(cursor, 8, PATIENCE).await.unwrap();
        let mut commit = Commit::new(events.last().expect("posters go on").0);
        for (at, event) in events {
            assert!(at > cursor && seen.insert(event.clone()), "twice: {event:?}");
            cursor = at;
            let poster = String::from_utf8_lossy(&event).split_once(' ').unwrap().0.to_owned();
            commit.mails.push((mailbox(&format!("poster/{poster}")), event));
        }
        loop {
            match queue.commit(epoch, &commit).await {
                Ok(committed) => break assert_eq!(committed.dropped, 0),
                Err(QueueError::Full { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(queue.health().await.unwrap().mail_bytes, 0);
}

/// Bounds that a test can reach.
pub const SMALL: QueueLimits = QueueLimits {
    message_bytes_max: 256,
    events_max: 12,
    event_bytes_max: 2_048,
    records_max: 20,
    record_bytes_max: 1_025,
    mailbox_mails_max: 10,
    mailbox_bytes_max: 1_024,
    mail_bytes_max: 2_048,
    mailboxes_max: 24,
    checkpoint_bytes_max: 1_000,
    page_max: 64,
    wait_max: Duration::from_secs(60),
};

/// Expands to a test for each rule of this module; `$fixture` is an async function from limits to a [`QueueFixture`].
#[macro_export]
macro_rules! queue_contract {
    ($fixture:path) => {
        $crate::queue_contract!(@tests $fixture, $crate::QueueLimits::default();
            a_large_commit_is_read_from_every_checkpoint,
        );
        $crate::queue_contract!(@tests $fixture, $crate::testing::queue_contract::SMALL;
            one_leads_at_a_time_and_epochs_grow,
            a_lease_that_ran_out_is_for_whoever_comes_first,
            a_deposed_leader_leaves_nothing,
            a_commit_is_whole_or_nothing,
            a_repeated_commit_counts_once,
            events_wait_in_order_until_they_are_committed,
            a_full_inbox_refuses_until_the_leader_has_caught_up,
            a_mailbox_replays_from_any_cursor,
            a_closed_mailbox_ends_its_readers_after_the_last_mail,
            a_removed_mailbox_is_gone_and_may_begin_anew,
            forgotten_mails_make_room_and_leave_a_mark,
            every_bound_is_named,
            a_full_log_wants_a_checkpoint,
            a_checkpoint_and_the_records_after_it_reproduce_the_log,
            a_commit_on_another_state_is_refused,
            impossible_calls_are_refused,
            waiting_readers_are_woken_at_once,
            waits_end_with_events_closings_and_time,
            a_leader_loop_echoes_everything_once_and_in_order,
        );
    };
    (@tests $fixture:path, $limits:expr; $($rule:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            let fixture = $fixture($limits).await;
            $crate::testing::queue_contract::$rule(fixture).await;
        })*
    };
}
