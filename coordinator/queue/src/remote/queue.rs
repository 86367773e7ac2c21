//! The queue over Redis.
//!
//! Keys of deployment `name`, all in one slot of a Cluster by the tag `{assay:name}`: `:head` (a hash with all counters),
//! `:inbox`, `:log` and `:mail:<mailbox>` (streams with ids `0-<place>`; fields `d` the bytes, `t` bytes of the stream
//! up to here, `c` what tells an event from another one at its place; an entry of the log has many records, `d` and `h`,
//! its checksum, for each, and the place of the last; before, one record, as `d`, `t`, `h`), `:checkpoint`, `:boxes` (a hash by mailbox). Channels have the
//! keys' names.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use redis::Value;
use tokio::time::{timeout_at, Instant};

use super::call::{self, array, bytes, entry, number, Answer, Call, Script};
use super::inspect;
use super::link::{Link, RECHECK};
use super::url::RedisConfig;
use crate::bells::{Ear, Quiet};
use crate::error::{BackendError, Bound, QueueError};
use crate::journal::checksum;
use crate::limits::QueueLimits;
use crate::queue::{check, deadline, page, TaskQueue};
use crate::types::{
    Commit, Committed, Cursor, Epoch, Health, Leader, Mail, Mailbox, Page, Place, Position, Stored,
};

/// Entries of the log fetched at a time at first, each with up to 256 records or little more than 1 MiB (`commit.lua`).
const LOAD_PAGE: usize = 32;
/// As many are fetched at a time as come to about this, up to a bound.
const LOAD_BYTES: usize = 8 << 20;
const LOAD_PAGE_MAX: usize = 2048;
/// How often a load begins anew because a checkpoint was made meanwhile.
const LOAD_ATTEMPTS: usize = 8;
/// Events that were read and are remembered; more than a leader reads ahead.
const SEEN_MAX: usize = 65_536;

/// [`TaskQueue`] on Redis 7 or later. Every process opens its own; all with the same deployment name are one queue.
pub struct RedisQueue {
    link: Link,
    limits: QueueLimits,
    keys: Keys,
    /// The epoch that this handle was given, and to whom: a term that was given out twice, because a failover forgot the
    /// first, is told from the other by the holder.
    led: Mutex<(Epoch, String)>,
    /// Events that were read here, in order, and what tells each from another one at its place; see `post.lua`.
    seen: Mutex<VecDeque<(Cursor, Vec<u8>)>>,
}

struct Keys {
    prefix: String,
    head: String,
    inbox: String,
    log: String,
    checkpoint: String,
    boxes: String,
}

impl Keys {
    fn new(deployment: &str) -> Self {
        let prefix = prefix(deployment);
        let key = |name: &str| format!("{prefix}:{name}");
        let (head, inbox, log) = (key("head"), key("inbox"), key("log"));
        Self { head, inbox, log, checkpoint: key("checkpoint"), boxes: key("boxes"), prefix }
    }

    fn mailbox(&self, mailbox: &Mailbox) -> String {
        format!("{}:mail:{mailbox}", self.prefix)
    }
}

/// What a look has found.
struct Found<T> {
    /// Whether it is worth returning.
    is_any: bool,
    /// The place after which there was nothing; `None` if there may have been.
    quiet_after: Option<u64>,
    what: T,
}

type Look<'a, T> = BoxFuture<'a, Result<Found<T>, QueueError>>;

/// What all keys of a deployment begin with.
pub(super) fn prefix(deployment: &str) -> String {
    format!("{{assay:{deployment}}}")
}

impl RedisQueue {
    /// Connects and checks the server.
    ///
    /// # Errors
    /// [`BackendError::Refused`] with the command that makes the server fit, [`BackendError::Config`],
    /// [`BackendError::Unavailable`].
    pub async fn open(config: RedisConfig, limits: QueueLimits) -> Result<Self, BackendError> {
        let keys = Keys::new(&config.name);
        let link = Link::open(config).await?;
        Ok(Self { link, limits, keys, led: Mutex::default(), seen: Mutex::default() })
    }

    async fn call(&self, call: Call<'_>) -> Result<Value, BackendError> {
        self.link.call(&call).await
    }

    /// Begins a call that only the leader may make: head first among the keys, epoch and holder among the arguments.
    fn leader_call<'a>(&'a self, script: &'a Script, epoch: Epoch) -> Call<'a> {
        let led = self.led.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = if led.0 == epoch { led.1.clone() } else { String::new() };
        Call::new(script).key(&self.keys.head).number(epoch.0).arg(holder.into_bytes())
    }

    /// Repeats `look` at each ring of `channel`, until it finds something after `after` or `wait` is over.
    async fn wait_for<'a, T>(
        &'a self,
        channel: &str,
        after: Cursor,
        wait: Duration,
        look: impl Fn() -> Look<'a, T> + Send + Sync,
    ) -> Result<T, QueueError> {
        let deadline = deadline(wait.min(self.limits.wait_max));
        if wait.is_zero() {
            return Ok(look().await?.what);
        }
        let ear = self.link.bells().listen(channel);
        // Whoever comes back for more need not look if it has not rung since: most readers do, once for each page.
        let mut is_quiet = self.is_quiet(&ear, after);
        loop {
            let ring = ear.ring();
            tokio::pin!(ring);
            ring.as_mut().enable();
            if !std::mem::take(&mut is_quiet) || !self.is_quiet(&ear, after) {
                let (rings, _) = ear.rings();
                let subscribed = self.link.subscribed(&ear);
                let found = look().await?;
                if let (Some(upto), Some(generation)) = (found.quiet_after, subscribed) {
                    ear.set_quiet(Some(Quiet { upto, rings, generation }));
                }
                if found.is_any || Instant::now() >= deadline {
                    return Ok(found.what);
                }
            }
            if self.link.subscribe(channel, &ear).await? {
                // Past the deadline it looks once more.
                let _ = timeout_at(deadline.min(Instant::now() + RECHECK), ring).await;
            }
        }
    }

    /// Whether there is nothing after a place, because somebody has looked and it has not rung since.
    fn is_quiet(&self, ear: &Ear, after: Cursor) -> bool {
        let (rings, quiet) = ear.rings();
        let Some(quiet) = quiet.filter(|quiet| quiet.rings == rings && after.0 >= quiet.upto) else {
            return false;
        };
        self.link.subscribed(ear) == Some(quiet.generation)
    }

    fn build_commit<'a>(&'a self, epoch: Epoch, commit: &'a Commit) -> (Call<'a>, Vec<&'a Mailbox>) {
        let limits = &self.limits;
        let mut call = self
            .leader_call(&call::COMMIT, epoch)
            .key(&self.keys.inbox)
            .key(&self.keys.log)
            .key(&self.keys.boxes)
            .arg(&commit.id.as_bytes()[..])
            .number(commit.cursor.0)
            .number(limits.records_max)
            .number(limits.record_bytes_max)
            .number(limits.mailbox_mails_max)
            .number(limits.mailbox_bytes_max)
            .number(limits.mail_bytes_max)
            .number(limits.mailboxes_max)
            .arg(commit.after.map_or(Vec::new(), |after| after.position.to_string().into_bytes()))
            .arg(commit.after.map_or(Vec::new(), |after| after.cursor.to_string().into_bytes()))
            .arg(self.seen_at(commit.cursor))
            .number(commit.records.len() as u64);
        for record in &commit.records {
            call.push(record);
            call.push(checksum(record).to_vec());
        }
        let mut mailboxes = Mailboxes::default();
        call.push_number(commit.mails.len() as u64);
        for (mailbox, mail) in &commit.mails {
            call.push_number(mailboxes.place(mailbox));
            call.push(mail);
        }
        for list in [&commit.close, &commit.remove] {
            call.push_number(list.len() as u64);
            list.iter().for_each(|mailbox| call.push_number(mailboxes.place(mailbox)));
        }
        for mailbox in &mailboxes.names {
            call = call.key(self.keys.mailbox(mailbox));
        }
        (call, mailboxes.names)
    }

    /// Remembers an event that was read; what was read at its place and after it before is forgotten.
    fn see(&self, place: Cursor, name: Vec<u8>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while seen.back().is_some_and(|(last, _)| *last >= place) {
            seen.pop_back();
        }
        if seen.len() >= SEEN_MAX {
            seen.pop_front();
        }
        seen.push_back((place, name));
    }

    /// What tells the event that was read at a place from another one; empty if it is not known.
    fn seen_at(&self, place: Cursor) -> Vec<u8> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = seen.binary_search_by_key(&place, |(known, _)| *known);
        found.ok().and_then(|at| seen.get(at)).map(|(_, name)| name.clone()).unwrap_or_default()
    }

    async fn load_records(&self, from: u64, to: u64) -> Result<Option<Vec<Vec<u8>>>, QueueError> {
        let (mut records, mut page) = (Vec::new(), LOAD_PAGE);
        let mut next = from + 1;
        while next <= to {
            let mut range = redis::pipe();
            range.cmd("XRANGE").arg(&self.keys.log).arg(format!("0-{next}")).arg(format!("0-{to}"));
            range.arg("COUNT").arg(page);
            let mut bytes = 0;
            let answer = self.link.pipeline(&range).await?.into_iter().next().unwrap_or(Value::Nil);
            let entries = array(answer)?;
            if entries.is_empty() {
                return Ok(None);
            }
            for value in entries {
                let (last, fields) = entry(value)?;
                bytes += fields.iter().map(Vec::len).sum::<usize>();
                let mut fields = with_checksums(fields);
                let (pairs, _) = fields.as_chunks_mut::<2>();
                let Some(first) = (last + 1).checked_sub(pairs.len() as u64).filter(|first| *first <= next)
                else {
                    return Ok(None);
                };
                for (place, [record, hash]) in (first..).zip(pairs).skip((next - first) as usize) {
                    if *hash != checksum(record) {
                        return Err(QueueError::Corrupt { what: "record", at: Position(place) });
                    }
                    records.push(std::mem::take(record));
                }
                next = last + 1;
            }
            page = if bytes > LOAD_BYTES { page / 2 } else { page * 2 }.clamp(LOAD_PAGE, LOAD_PAGE_MAX);
        }
        Ok(Some(records))
    }

    async fn try_load(&self) -> Result<Option<Stored>, QueueError> {
        let head = self.call(Call::new(&call::LOAD).key(&self.keys.head).key(&self.keys.checkpoint)).await?;
        let mut head = array(head)?.into_iter();
        let checkpoint_at = number(head.next())?;
        let hash = head.next().filter(|hash| *hash != Value::Nil);
        let (position, cursor) = (number(head.next())?, number(head.next())?);
        let checkpoint = head.next().filter(|bytes| *bytes != Value::Nil);
        let checkpoint = match (hash, checkpoint) {
            (None, None) => None,
            (hash, checkpoint) => {
                let (hash, checkpoint) = (bytes(hash)?, bytes(checkpoint)?);
                if hash != blake3::hash(&checkpoint).as_bytes() {
                    return Err(QueueError::Corrupt { what: "checkpoint", at: Position(checkpoint_at) });
                }
                Some(checkpoint)
            }
        };
        // A gap means that a checkpoint was made meanwhile.
        let Some(records) = self.load_records(checkpoint_at, position).await? else { return Ok(None) };
        Ok(Some(Stored { checkpoint, records, position: Position(position), cursor: Cursor(cursor) }))
    }

    async fn look_for_events(
        &self,
        after: Cursor,
        max: usize,
    ) -> Result<Found<Vec<(Cursor, Vec<u8>)>>, QueueError> {
        let mut range = redis::pipe();
        range.cmd("XRANGE").arg(&self.keys.inbox).arg(format!("(0-{}", after.0)).arg("+");
        range.arg("COUNT").arg(max);
        let answer = self.link.pipeline(&range).await?.into_iter().next().unwrap_or(Value::Nil);
        let mut events = Vec::new();
        for value in array(answer)? {
            let (place, mut fields) = entry(value)?;
            self.see(Cursor(place), fields.get(2).cloned().unwrap_or_default());
            events.push((Cursor(place), fields.swap_remove(0)));
        }
        let quiet_after = (events.len() < max).then(|| events.last().map_or(after, |(last, _)| *last).0);
        Ok(Found { is_any: !events.is_empty(), quiet_after, what: events })
    }

    async fn look_for_mails(
        &self,
        key: String,
        after: Cursor,
        max: usize,
    ) -> Result<Found<Page>, QueueError> {
        // In this order: once it is closed, all its mails are there. One more than wanted tells whether these are the last.
        let mut range = redis::pipe();
        range.cmd("HGET").arg(&self.keys.boxes).arg(&key);
        range.cmd("XRANGE").arg(&key).arg(format!("(0-{}", after.0)).arg("+").arg("COUNT").arg(max + 1);
        let mut answers = self.link.pipeline(&range).await?.into_iter();
        let (is_closed, forgotten) = match answers.next() {
            None | Some(Value::Nil) => (false, 0),
            value => parse_box(&call::text(value)?)?,
        };
        let mut mails = Vec::new();
        for value in array(answers.next().unwrap_or(Value::Nil))? {
            let (place, mut fields) = entry(value)?;
            mails.push(Mail { cursor: Cursor(place), bytes: fields.swap_remove(0) });
        }
        let has_all = mails.len() <= max;
        // That a mailbox is closed is told to whoever asks.
        let quiet_after =
            (has_all && !is_closed).then(|| mails.last().map_or(after, |mail| mail.cursor).0.max(forgotten));
        let is_closed = is_closed && has_all;
        mails.truncate(max);
        let page = Page { mails, is_closed, forgotten: Cursor(forgotten) };
        Ok(Found { is_any: !page.mails.is_empty() || page.is_closed, quiet_after, what: page })
    }

    fn fenced(&self, got: Epoch, answer: &mut Answer) -> QueueError {
        match answer.number() {
            Ok(current) => QueueError::Fenced { got, current: Epoch(current) },
            Err(error) => error.into(),
        }
    }
}

/// Records of an entry of the log and their checksums, in turn.
fn with_checksums(mut fields: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    // An entry from before it had many records has its checksum last.
    if fields.len() == 3 && fields[2] == checksum(&fields[0]) {
        fields.swap(1, 2);
    }
    fields.pop();
    fields
}

/// Mailboxes of a commit, each once.
#[derive(Default)]
struct Mailboxes<'a> {
    names: Vec<&'a Mailbox>,
    places: HashMap<&'a Mailbox, u64>,
}

impl<'a> Mailboxes<'a> {
    /// The keys before the mailboxes.
    const FIXED: u64 = 4;

    /// Place among the script's keys, from 1.
    fn place(&mut self, mailbox: &'a Mailbox) -> u64 {
        *self.places.entry(mailbox).or_insert_with(|| {
            self.names.push(mailbox);
            self.names.len() as u64 + Self::FIXED
        })
    }
}

fn full(answer: &mut Answer, mailboxes: &[&Mailbox]) -> QueueError {
    let read = |answer: &mut Answer| -> Result<QueueError, BackendError> {
        let bound = answer.text()?;
        let max = answer.number()?;
        // Only where it is about one mailbox.
        let place = answer.number().unwrap_or_default();
        let mailbox = place.checked_sub(Mailboxes::FIXED + 1).and_then(|place| mailboxes.get(place as usize));
        let bound = match (bound.as_str(), mailbox) {
            ("events", _) => Bound::Events,
            ("event_bytes", _) => Bound::EventBytes,
            ("records", _) => Bound::Records,
            ("record_bytes", _) => Bound::RecordBytes,
            ("mailboxes", _) => Bound::Mailboxes,
            ("mail_bytes", _) => Bound::MailBytes,
            ("mailbox", Some(mailbox)) => Bound::Mailbox((*mailbox).clone()),
            ("mailbox_bytes", Some(mailbox)) => Bound::MailboxBytes((*mailbox).clone()),
            _ => return Err(BackendError::protocol(format!("a script found {bound} full"))),
        };
        Ok(QueueError::Full { bound, max })
    };
    read(answer).unwrap_or_else(QueueError::from)
}

#[async_trait]
impl TaskQueue for RedisQueue {
    async fn lead(&self, holder: &str, ttl: Duration) -> Result<Option<Epoch>, QueueError> {
        check::holder(holder)?;
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX >> 12);
        let call = Call::new(&call::LEAD).key(&self.keys.head).text(holder).number(ttl);
        let epoch = match self.call(call).await? {
            Value::Nil => return Ok(None),
            epoch => Epoch(number(Some(epoch))?),
        };
        *self.led.lock().unwrap_or_else(PoisonError::into_inner) = (epoch, holder.to_owned());
        Ok(Some(epoch))
    }

    async fn resign(&self, epoch: Epoch) -> Result<(), QueueError> {
        self.call(self.leader_call(&call::RESIGN, epoch)).await?;
        Ok(())
    }

    async fn leader(&self) -> Result<Option<Leader>, QueueError> {
        let mut answer = array(self.call(Call::new(&call::LEADER).key(&self.keys.head)).await?)?.into_iter();
        let Some(epoch) = answer.next() else { return Ok(None) };
        let epoch = Epoch(number(Some(epoch))?);
        let holder = call::text(answer.next())?;
        Ok(Some(Leader { holder, epoch, remaining: Duration::from_millis(number(answer.next())?) }))
    }

    async fn load(&self) -> Result<Stored, QueueError> {
        for _ in 0..LOAD_ATTEMPTS {
            if let Some(stored) = self.try_load().await? {
                return Ok(stored);
            }
        }
        let reason = "the log has gaps, or checkpoints are made faster than it can be read";
        Err(BackendError::protocol(reason).into())
    }

    async fn events(
        &self,
        after: Cursor,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(Cursor, Vec<u8>)>, QueueError> {
        let max = page(max, &self.limits);
        let look = || -> Look<'_, _> { Box::pin(self.look_for_events(after, max)) };
        self.wait_for(&self.keys.inbox, after, wait, look).await
    }

    async fn commit(&self, epoch: Epoch, commit: &Commit) -> Result<Committed, QueueError> {
        check::commit(&self.limits, commit)?;
        let (call, mailboxes) = self.build_commit(epoch, commit);
        let mut answer = Answer::new(self.call(call).await?)?;
        match answer.code() {
            "OK" | "AGAIN" => {
                let is_repeated = answer.code() == "AGAIN";
                let position = Position(answer.number()?);
                Ok(Committed { position, dropped: answer.number()?, is_repeated })
            }
            "FENCED" => Err(self.fenced(epoch, &mut answer)),
            "GAP" => {
                let found = Place { position: Position(answer.number()?), cursor: Cursor(answer.number()?) };
                Err(QueueError::Gap { expected: commit.after.unwrap_or(found), found })
            }
            "RANGE" => {
                let (committed, last) = (Cursor(answer.number()?), Cursor(answer.number()?));
                Err(QueueError::CursorOutOfRange { got: commit.cursor, committed, last })
            }
            "FULL" => Err(full(&mut answer, &mailboxes)),
            _ => Err(answer.unexpected().into()),
        }
    }

    async fn checkpoint(&self, epoch: Epoch, upto: Position, bytes: &[u8]) -> Result<(), QueueError> {
        check::at_most("a checkpoint", bytes.len() as u64, self.limits.checkpoint_bytes_max as u64)?;
        let call = self
            .leader_call(&call::CHECKPOINT, epoch)
            .key(&self.keys.log)
            .key(&self.keys.checkpoint)
            .number(upto.0)
            .arg(bytes)
            .arg(blake3::hash(bytes).as_bytes().to_vec());
        let mut answer = Answer::new(self.call(call).await?)?;
        match answer.code() {
            "OK" => Ok(()),
            "FENCED" => Err(self.fenced(epoch, &mut answer)),
            "RANGE" => {
                let (checkpoint, last) = (Position(answer.number()?), Position(answer.number()?));
                Err(QueueError::PositionOutOfRange { got: upto, checkpoint, last })
            }
            _ => Err(answer.unexpected().into()),
        }
    }

    async fn post_all(&self, events: &[Vec<u8>]) -> Result<Cursor, QueueError> {
        check::post(&self.limits, events)?;
        let mut call = Call::new(&call::POST)
            .key(&self.keys.head)
            .key(&self.keys.inbox)
            .number(self.limits.events_max)
            .number(self.limits.event_bytes_max)
            .arg(rand::random::<[u8; 16]>().to_vec());
        events.iter().for_each(|event| call.push(event));
        let mut answer = Answer::new(self.call(call).await?)?;
        match answer.code() {
            "OK" => Ok(Cursor(answer.number()?)),
            "FULL" => Err(full(&mut answer, &[])),
            _ => Err(answer.unexpected().into()),
        }
    }

    async fn read(
        &self,
        mailbox: &Mailbox,
        after: Cursor,
        max: usize,
        wait: Duration,
    ) -> Result<Page, QueueError> {
        let max = page(max, &self.limits);
        let key = self.keys.mailbox(mailbox);
        let look = || -> Look<'_, _> { Box::pin(self.look_for_mails(key.clone(), after, max)) };
        self.wait_for(&key, after, wait, look).await
    }

    async fn forget(&self, mailbox: &Mailbox, upto: Cursor) -> Result<(), QueueError> {
        let key = self.keys.mailbox(mailbox);
        let call =
            Call::new(&call::FORGET).key(&self.keys.head).key(&self.keys.boxes).key(key).number(upto.0);
        self.call(call).await?;
        Ok(())
    }

    async fn health(&self) -> Result<Health, QueueError> {
        let mut counters = redis::pipe();
        counters.cmd("XLEN").arg(&self.keys.inbox).cmd("HLEN").arg(&self.keys.boxes);
        counters.cmd("HMGET").arg(&self.keys.head).arg(&["event_bytes", "event_bytes_done"]);
        counters.arg(&["record_bytes", "record_bytes_done", "record", "checkpoint", "mail_bytes"]);
        let mut answers = self.link.pipeline(&counters).await?.into_iter();
        let (events, mailboxes) = (number(answers.next())?, number(answers.next())?);
        let mut head = array(answers.next().unwrap_or(Value::Nil))?.into_iter();
        let mut waiting = || -> Result<u64, BackendError> {
            let (ever, done) = (number(head.next())?, number(head.next())?);
            Ok(ever.saturating_sub(done))
        };
        let (event_bytes, record_bytes, records) = (waiting()?, waiting()?, waiting()?);
        let mail_bytes = number(head.next())?;
        // Of several servers the one that is nearest to its limit.
        let servers = self.link.info().await?;
        let memory = servers.iter().map(|(_, info)| inspect::memory(info)).max_by(|one, two| {
            let share = |(used, max): &(Option<u64>, Option<u64>)| {
                used.unwrap_or(0) as f64 / max.unwrap_or(u64::MAX) as f64
            };
            share(one).total_cmp(&share(two))
        });
        let (memory_bytes, memory_bytes_max) = memory.unwrap_or_default();
        Ok(Health {
            events,
            event_bytes,
            records,
            record_bytes,
            mailboxes,
            mail_bytes,
            memory_bytes,
            memory_bytes_max,
            warnings: self.link.warnings(),
        })
    }
}

/// Whether a mailbox is closed, and the last mail forgotten; see `commit.lua`.
fn parse_box(value: &str) -> Result<(bool, u64), BackendError> {
    let mut parts = value.split(' ');
    let is_closed = parts.next() == Some("1");
    let forgotten = parts.nth(2).and_then(|place| place.parse().ok());
    forgotten
        .map(|forgotten| (is_closed, forgotten))
        .ok_or_else(|| BackendError::protocol("a mailbox's entry does not parse"))
}
