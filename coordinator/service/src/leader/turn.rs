//! One turn: take what has come, step, commit, and then do what may only be done after the commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{
    BackendError, Class, Commit, CommitId, Committed, Cursor, Holder, Mailbox, Place, QueueError,
};
use assay_schedule::{Action, AttemptId, BatchId, Effect, Event, Recipient, WorkerId};
use serde::Serialize;
use tokio::time::Instant;

use super::pieces::{give_up, give_up_reader, pieces};
use super::sweep::sweep;
use super::term::Term;
use super::{now, stopped, Coordinator, LeaderConfig, LeaderError};
use crate::names;
use crate::request::{Extra, Inbox, Post, RequestId};
use crate::state::{encode_record, Entry, Fact, Outcome, Receipt, Record, StaleHold, State, RECEIPTS_FILE};
use crate::webhook;
use crate::work::NewFile;

const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Room in a mail or record for what stands around it.
const MARGIN: usize = 1024;
/// Bytes of log for each byte of the last checkpoint, from which on a checkpoint is due.
const LOG_PER_CHECKPOINT: u64 = 4;
/// Checkpoints up to this size cost nothing.
const SMALL_CHECKPOINT_BYTES: u64 = 256 << 10;
/// Times as many records as are least wanted for a checkpoint; then one is due however large the state is.
const LOG_RECORDS_MAX: u64 = 16;
/// Results that were taken and whose workers have not been told; past it all are told.
const CLOSINGS_MAX: usize = 1024;
/// Webhooks at the same time.
const CALLS_MAX: usize = 16;

/// What the leader says to a worker besides the schedule's messages.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It is done with an attempt: it has taken the result, or refused it for good.
    Closed { attempt: AttemptId },
}

/// What a turn has led to, until it is committed.
#[derive(Default)]
struct Draft {
    /// What goes to the log, and how many of it, which stays when it has gone there.
    records: Vec<Vec<u8>>,
    records_count: u64,
    record_bytes: u64,
    mails: Vec<(Mailbox, Vec<u8>)>,
    /// To whom the mails to workers go.
    mailed: BTreeSet<(WorkerId, u64)>,
    /// Attempts that the leader is done with, and whose they were.
    closed: Vec<(WorkerId, u64, AttemptId)>,
    is_tick: bool,
    ended: Vec<(WorkerId, u64)>,
    replies: Vec<(RequestId, Outcome)>,
    work: Vec<Effect>,
    stale: Vec<StaleHold>,
    facts: Vec<Fact>,
    removed: Vec<(WorkerId, u64)>,
    has_news: bool,
    forget_log: Option<Cursor>,
}

impl Coordinator {
    /// Takes events from the inbox and entries of this coordinator's own.
    #[tracing::instrument(name = "turn", skip_all, fields(events = page.len(), own = own.len()))]
    pub(super) async fn take(
        &self,
        term: &mut Term,
        page: Vec<(Cursor, Vec<u8>)>,
        own: Vec<Entry>,
    ) -> Result<(), LeaderError> {
        let cursor = page.last().map_or(term.cursor, |(cursor, _)| *cursor);
        let shared = Arc::clone(&self.shared);
        let mut guard = shared.write().await;
        let Some(state) = guard.as_mut() else { return Ok(()) };
        let mut draft = Draft::default();
        for entry in own {
            if let Entry::Called { batch, .. } = &entry {
                term.calling.remove(batch);
            }
            self.step(state, entry, &mut draft);
        }
        for (_, bytes) in page {
            if let Some(entry) = self.read_post(term, &bytes, &mut draft) {
                self.step(state, entry, &mut draft);
            }
        }
        let committed = self.commit(term, cursor, &mut draft).await;
        let (position, refused) = match committed {
            Ok(done) => done,
            Err(error) => {
                *guard = None;
                return Err(error.into());
            }
        };
        term.position = position.position;
        term.cursor = cursor;
        for fact in &draft.facts {
            self.parts.metrics.count(fact);
        }
        self.start_work(term, state, std::mem::take(&mut draft.work));
        self.call_back(term, state);
        bundle_receipts(term, state);
        self.start_sweep(term, state);
        drop(guard);
        self.finish(term, draft, refused).await;
        Ok(())
    }

    /// After a commit: answers, and what need not hold the lock.
    async fn finish(&self, term: &mut Term, draft: Draft, refused: Vec<Mailbox>) {
        self.shared.hear();
        self.shared.changed();
        for (id, outcome) in draft.replies {
            self.shared.answer(id, outcome);
        }
        draft.stale.into_iter().for_each(|stale| term.executor.release(stale));
        let left: Vec<Entry> = refused.iter().filter_map(leave).collect();
        if !left.is_empty() {
            let answers = term.answers.clone();
            term.calls.spawn(async move {
                for entry in left {
                    // Nobody listens any more once the term is over.
                    let _ = answers.send(entry).await;
                }
            });
        }
        self.parts.metrics.leading(term.executor.running() as u64, term.standbys.len() as u64);
        if let Some(upto) = draft.forget_log {
            match self.parts.queue.forget(&names::log(), upto).await {
                Ok(()) => term.standbys.forgotten(upto),
                Err(error) => tracing::warn!(%error, "the mailbox for standbys cannot be emptied"),
            }
        }
        term.records += draft.records_count;
        term.has_news |= draft.has_news;
        term.record_bytes += draft.record_bytes;
        let is_due = term.has_news && term.checkpointed.elapsed() >= self.config.checkpoint_time;
        let is_long = is_log_long(&self.config, term.records, term.record_bytes, term.checkpoint_bytes);
        if is_long || is_due {
            if let Err(error) = self.checkpoint(term).await {
                // The log goes on; the next turn tries again.
                tracing::error!(%error, "no checkpoint");
                term.checkpointed = Instant::now();
                (term.records, term.record_bytes) = (term.records / 2, term.record_bytes / 2);
            }
        }
    }

    /// Reads a message from the inbox; one that is no good is dropped, whoever sent it.
    fn read_post(&self, term: &mut Term, bytes: &[u8], draft: &mut Draft) -> Option<Entry> {
        if bytes.len() > self.config.message_bytes_max - MARGIN {
            self.parts.metrics.bad_message();
            return None;
        }
        match self.parts.cluster.open(bytes) {
            Ok(Inbox::Worker(event)) => Some(Entry::Event(*event)),
            Ok(Inbox::Extra(extra)) => match *extra {
                Extra::About(about) => Some(Entry::About(about)),
                Extra::Health(health) => Some(Entry::Health(health)),
                Extra::Receipt(receipt) => Receipt::read(receipt).map(Entry::Receipt),
            },
            Ok(Inbox::Post(post)) => match *post {
                Post::Request(request) => Some(Entry::Request(*request)),
                Post::Follow { standby, cursor } => {
                    draft.forget_log = Some(term.standbys.sign(standby, Cursor(cursor), Instant::now()));
                    None
                }
            },
            Err(error) => {
                tracing::warn!(%error, "a message in the inbox is not taken");
                self.parts.metrics.bad_message();
                None
            }
        }
    }

    fn step(&self, state: &mut State, entry: Entry, draft: &mut Draft) {
        let record = Record { at: now(self.config.clock_offset_ms), entry };
        let encoded = encode_record(&record);
        if encoded.len() > self.config.message_bytes_max {
            self.parts.metrics.bad_message();
            return;
        }
        let applied = match state.apply(&record) {
            Ok(applied) => applied,
            Err(error) => {
                // Repetitions and late messages, mostly. Nothing has changed, so nothing is kept.
                tracing::debug!(%error, "an event is refused");
                self.parts.metrics.refused(&error);
                if error.class() == assay_schedule::Class::Permanent {
                    close_result(state, &record.entry, draft);
                }
                return;
            }
        };
        let is_tick = matches!(record.entry, Entry::Event(Event::Tick));
        draft.has_news |= !is_tick;
        draft.is_tick |= is_tick;
        close_result(state, &record.entry, draft);
        for effect in applied.effects {
            sort_effect(effect, draft);
        }
        if let (Some(outcome), Entry::Request(request)) = (applied.outcome, &record.entry) {
            draft.replies.push((request.id, outcome));
        }
        draft.stale.extend(applied.stale);
        draft.facts.extend(applied.facts);
        draft.ended.extend(applied.ended);
        draft.removed.extend(applied.removed);
        draft.record_bytes += encoded.len() as u64;
        draft.records.push(encoded);
        draft.records_count += 1;
    }

    /// Makes the draft true. Mailboxes that are full are closed instead, and returned: who does not read is gone.
    async fn commit(
        &self,
        term: &mut Term,
        cursor: Cursor,
        draft: &mut Draft,
    ) -> Result<(Committed, Vec<Mailbox>), QueueError> {
        let mut refused: BTreeSet<Mailbox> = BTreeSet::new();
        let (remove_log, log_mails) = self.log_mails(term, draft);
        let to_log = log_mails.into_iter().map(|mail| (names::log(), mail));
        let sessions = |list: &[(WorkerId, u64)]| -> Vec<Mailbox> {
            list.iter().map(|(worker, session)| names::worker(*worker, *session)).collect()
        };
        let mut remove = sessions(&draft.removed);
        remove.extend(remove_log.then(names::log));
        let mails = to_log.chain(closings(term, draft)).chain(std::mem::take(&mut draft.mails));
        let mut pieces = pieces(cursor, mails, sessions(&draft.ended), remove);
        pieces[0].records = std::mem::take(&mut draft.records);
        let mut committed = None;
        let mut after = Place { position: term.position, cursor: term.cursor };
        // Messages that were lost would be repaired (workers name what they have and begin new sessions, controllers ask
        // again), so that what does not fit into one commit may come after it.
        for mut piece in pieces {
            piece.after = Some(after);
            let done = loop {
                give_up(&mut piece, &refused);
                match self.commit_patiently(term, &piece).await {
                    Ok(done) => break done,
                    Err(error) => give_up_reader(error, &mut refused)?,
                }
                piece.id = CommitId::random();
            };
            after = Place { position: done.position, cursor };
            committed.get_or_insert(done);
        }
        let committed = committed.expect("there is at least one piece");
        Ok((committed, refused.into_iter().collect()))
    }

    fn log_mails(&self, term: &mut Term, draft: &Draft) -> (bool, Vec<Vec<u8>>) {
        let max = self.config.message_bytes_max - MARGIN;
        term.standbys.mails(term.position.0 + 1, &draft.records, max, Instant::now())
    }

    /// Repeats a commit whose outcome is not known until it is, or the time for stopping is over.
    #[tracing::instrument(name = "commit", skip_all)]
    async fn commit_patiently(&self, term: &Term, commit: &Commit) -> Result<Committed, QueueError> {
        let mut wait = RETRY;
        let begun = Instant::now();
        let is_over = async {
            stopped(term.stop.clone()).await;
            tokio::time::sleep(self.config.stop_time).await;
        };
        tokio::pin!(is_over);
        let mut last = None;
        loop {
            let committed = tokio::select! {
                biased;
                committed = self.parts.queue.commit(term.epoch, commit) => committed,
                () = &mut is_over => {
                    let silent = || BackendError::Unavailable {
                        tried: begun.elapsed(),
                        reason: "no answer before the time for stopping was over".into(),
                    };
                    return Err(last.unwrap_or_else(|| silent().into()));
                }
            };
            let error = match committed {
                Ok(committed) => {
                    self.parts.metrics.commit(begun.elapsed());
                    return Ok(committed);
                }
                Err(error) => error,
            };
            let is_full = matches!(error, QueueError::Full { .. });
            if error.class() != Class::Transient || is_full {
                return Err(error);
            }
            tracing::warn!(%error, "cannot commit; trying again");
            last = Some(error);
            // Whether the time is over is looked at with the next try.
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    pub(super) fn start_work(&self, term: &mut Term, state: &State, work: Vec<Effect>) {
        if !work.is_empty() {
            let spec = |batch| state.history(batch).map(|history| history.spec.clone());
            self.shared.leave(term.executor.start(work, spec), state);
        }
    }

    /// Sends webhooks that are due.
    fn call_back(&self, term: &mut Term, state: &State) {
        while let Some(joined) = term.calls.try_join_next() {
            if let Err(error) = joined {
                tracing::error!(%error, "a webhook's task failed");
            }
        }
        let pending: BTreeSet<BatchId> = state.callbacks().map(|(batch, _)| batch).collect();
        term.calling.retain(|batch| pending.contains(batch));
        for (batch, callback) in state.callbacks() {
            if term.calling.len() >= CALLS_MAX {
                return;
            }
            let Some(history) = state.history(batch).filter(|_| callback.due <= state.now()) else {
                continue;
            };
            // A try is answered by a record, which moves the time it is due; until then it is under way.
            if !term.calling.insert(batch) {
                continue;
            }
            let message = webhook::message(batch, history, &callback.url);
            let secret = self
                .parts
                .keys
                .get()
                .tenant(callback.tenant)
                .and_then(|tenant| tenant.webhook_secret.clone());
            let (sender, answers) = (self.parts.webhooks.clone(), term.answers.clone());
            let at = now(self.config.clock_offset_ms);
            term.calls.spawn(async move {
                let sent = match secret {
                    Some(secret) => sender.send(&message, &secret, at.0 / 1000).await,
                    None => Err(webhook::DeliveryError::NoSecret),
                };
                if let Err(error) = &sent {
                    tracing::warn!(%error, %batch, "a webhook was not delivered");
                }
                let _ = answers.send(Entry::Called { batch, is_delivered: sent.is_ok() }).await;
            });
        }
    }

    fn start_sweep(&self, term: &mut Term, state: &State) {
        let is_due = term.sweeper.last.is_none_or(|last| last.elapsed() >= self.config.sweep_time);
        if !is_due {
            return;
        }
        term.sweeper.last = Some(Instant::now());
        let live = state.histories().filter(|(_, history)| history.ended.is_none());
        let mut known: BTreeSet<Holder> =
            live.map(|(_, history)| names::holder(history.spec.holder())).collect();
        known.extend(state.histories().map(|(batch, _)| names::result(batch)));
        let (store, suspects) = (Arc::clone(&self.parts.store), Arc::clone(&term.sweeper.suspects));
        let old = self.config.sweep_time * 6;
        term.calls.spawn(async move {
            let before: BTreeSet<Holder> = suspects.lock().clone();
            match sweep(&*store, &known, &before).await {
                Ok(found) => *suspects.lock() = found,
                Err(error) => tracing::warn!(%error, "the sweep failed"),
            }
            if let Err(error) = store.sweep(old).await {
                tracing::warn!(%error, "the sweep failed");
            }
        });
    }
}

/// Messages go into the commit, work is begun after it. What subscribers are told is in the history already.
fn sort_effect(effect: Effect, draft: &mut Draft) {
    let recipient = match &effect.action {
        Action::Message(message) => message.recipient(effect.batch),
        Action::Work(_) => return draft.work.push(effect),
    };
    if let Recipient::Worker { worker, session } = recipient {
        draft.mails.push((names::worker(worker, session), crate::wire::json(&effect)));
        draft.mailed.insert((worker, session));
    }
}

/// Whether it is time for a checkpoint: not before the log is several times as long as the last one, so that most of what
/// is written is the log, nor so late that reading it takes seconds or the queue takes no more.
pub(super) fn is_log_long(config: &LeaderConfig, records: u64, bytes: u64, checkpoint_bytes: u64) -> bool {
    let is_worth_it = checkpoint_bytes <= SMALL_CHECKPOINT_BYTES
        || bytes >= LOG_PER_CHECKPOINT.saturating_mul(checkpoint_bytes)
        || records >= config.checkpoint_records.saturating_mul(LOG_RECORDS_MAX);
    records >= config.checkpoint_records && is_worth_it || bytes >= config.checkpoint_bytes
}

/// Tells a worker that its result has arrived, so that it need not repeat it.
fn close_result(state: &State, entry: &Entry, draft: &mut Draft) {
    let Entry::Event(Event::Result { worker, session, attempt, .. }) = entry else { return };
    // Only to a session that is there: a mailbox begins with its first mail.
    if state.session(*worker) == Some(*session) {
        draft.closed.push((*worker, *session, *attempt));
    }
}

/// Mails that say what the leader is done with. They wait for the next mail to the same worker, or for a tick: a worker
/// repeats a result only after several, and is not woken for this alone as often as it works.
fn closings(term: &mut Term, draft: &mut Draft) -> Vec<(Mailbox, Vec<u8>)> {
    for (worker, session, attempt) in draft.closed.drain(..) {
        term.closings.entry((worker, session)).or_default().push(attempt);
        term.closings_count += 1;
    }
    for session in &draft.ended {
        term.closings_count -= term.closings.remove(session).map_or(0, |attempts| attempts.len());
    }
    let due = if draft.is_tick || term.closings_count >= CLOSINGS_MAX {
        std::mem::take(&mut term.closings)
    } else {
        let take = |session: &(WorkerId, u64)| Some((*session, term.closings.remove(session)?));
        draft.mailed.iter().filter_map(take).collect()
    };
    let mut mails = Vec::new();
    for ((worker, session), attempts) in due {
        term.closings_count -= attempts.len();
        let answers = attempts.iter().map(|attempt| crate::wire::json(&Answer::Closed { attempt: *attempt }));
        mails.extend(answers.map(|answer| (names::worker(worker, session), answer)));
    }
    mails
}

/// Makes files of the receipts of batches that have ended.
fn bundle_receipts(term: &mut Term, state: &State) {
    let unbundled: BTreeSet<BatchId> = state.unbundled().collect();
    term.bundling.retain(|batch| unbundled.contains(batch));
    for batch in unbundled {
        if let Some(bytes) = state.bundle(batch).filter(|_| term.bundling.insert(batch)) {
            term.executor.publish(batch, NewFile { name: RECEIPTS_FILE.into(), bytes });
        }
    }
}

/// The worker whose mailbox was given up is gone.
fn leave(mailbox: &Mailbox) -> Option<Entry> {
    let mut parts = mailbox.as_str().strip_prefix("worker/")?.split('/');
    let (worker, session) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(Entry::Event(Event::Leave { worker: WorkerId(worker), session }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_state_waits_for_a_long_log_and_no_log_grows_for_ever() {
        let config = LeaderConfig { checkpoint_records: 4096, ..LeaderConfig::default() };
        let is_long = |records, bytes, checkpoint| is_log_long(&config, records, bytes, checkpoint);
        assert!(!is_long(4095, 1 << 20, 1000));
        assert!(is_long(4096, 1 << 20, 1000));
        let large = 8 << 20;
        assert!(!is_long(4096, 4 * large - 1, large));
        assert!(is_long(4096, 4 * large, large));
        assert!(is_long(16 * 4096, 1, large));
        assert!(is_long(1, config.checkpoint_bytes, u64::MAX));
    }
}
