//! One term: from the lease to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{Cursor, Epoch, Position, QueueError};
use assay_schedule as schedule;
use assay_schedule::{AttemptId, BatchId, Event, WorkerId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::standbys::Standbys;
use super::turn::is_log_long;
use super::{is_stopped, pressure, stopped, sweep, Coordinator, End, LeaderError};
use crate::state::{Entry, State};
use crate::work::Executor;

/// Answers of own work that wait for a turn.
const ANSWERS_MAX: usize = 1024;
/// Ticks that may be left out while there is much to do.
const TICKS_LATE_MAX: u32 = 3;
const EVENTS_WAIT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(250);

/// What a leader knows besides the state.
pub(super) struct Term {
    pub epoch: Epoch,
    /// The last record.
    pub position: Position,
    /// The last event that is accounted for.
    pub cursor: Cursor,
    /// Records since the last checkpoint.
    pub records: u64,
    /// Their bytes.
    pub record_bytes: u64,
    /// Size of the last checkpoint.
    pub checkpoint_bytes: u64,
    /// Holds `true`, or is dropped, when the process is to stop.
    pub stop: watch::Receiver<bool>,
    /// Whether there are others than ticks among them.
    pub has_news: bool,
    pub checkpointed: Instant,
    pub executor: Executor,
    pub answers: mpsc::Sender<Entry>,
    /// Attempts that the leader is done with and whose workers are still to be told, and their number.
    pub closings: BTreeMap<(WorkerId, u64), Vec<AttemptId>>,
    pub closings_count: usize,
    /// Webhooks that are being sent.
    pub calling: BTreeSet<BatchId>,
    pub calls: JoinSet<()>,
    /// Batches whose receipts are being made a file.
    pub bundling: BTreeSet<BatchId>,
    /// Who reads the mailbox `log`.
    pub standbys: Standbys,
    pub sweeper: sweep::Sweeper,
}

type Page = Vec<(Cursor, Vec<u8>)>;

impl Coordinator {
    /// Leads until somebody else does or the process is to stop.
    pub(super) async fn lead(
        &self,
        epoch: Epoch,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<End, LeaderError> {
        let mut helpers = JoinSet::new();
        let lost = self.keep_lease(epoch, &mut helpers);
        let (answers, mut answered) = mpsc::channel(ANSWERS_MAX);
        let (queue, store) = (Arc::clone(&self.parts.queue), Arc::clone(&self.parts.store));
        helpers.spawn(pressure::watch(queue, store, answers.clone()));
        let mut term = match self.begin(epoch, answers, stop).await {
            Ok(term) => term,
            Err(LeaderError::Queue(error)) if ending(&error).is_some() => {
                *self.shared.write().await = None;
                return Ok(ending(&error).unwrap_or(End::Deposed));
            }
            Err(error) => return Err(error),
        };
        let mut inbox = self.read_inbox(term.cursor, &mut helpers);
        let mut page = Page::new();
        let mut ticks = tokio::time::interval(self.config.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticked = Instant::now();
        let mut lost = std::pin::pin!(lost);
        let ended = loop {
            let turn = tokio::select! {
                biased;
                () = stopped(stop.clone()) => break End::Stopped,
                _ = &mut lost => break End::Deposed,
                // All that has come since the last turn, read or still under way when that began.
                events = inbox.recv_many(&mut page, self.config.turn_events_max.max(1)) => {
                    if events == 0 {
                        break End::Deposed;
                    }
                    let mut entries = drain(&mut answered);
                    // Time passes also while the inbox is never empty.
                    if ticked.elapsed() >= self.config.tick * TICKS_LATE_MAX {
                        entries.push(Entry::Event(Event::Tick));
                        ticked = Instant::now();
                    }
                    self.take(&mut term, std::mem::take(&mut page), entries).await
                }
                Some(entry) = answered.recv() => {
                    let mut entries = vec![entry];
                    entries.extend(drain(&mut answered));
                    self.take(&mut term, Page::new(), entries).await
                }
                _ = ticks.tick() => {
                    let mut entries = drain(&mut answered);
                    entries.push(Entry::Event(Event::Tick));
                    ticked = Instant::now();
                    self.take(&mut term, Page::new(), entries).await
                }
            };
            match turn {
                Ok(()) => {}
                Err(LeaderError::Queue(error)) if ending(&error).is_some() => {
                    tracing::warn!(%error, "the term is over");
                    break ending(&error).unwrap_or(End::Deposed);
                }
                Err(_) if is_stopped(stop) => break End::Stopped,
                Err(error) => {
                    *self.shared.write().await = None;
                    return Err(error);
                }
            }
        };
        helpers.abort_all();
        match ended {
            End::Stopped => self.retire(&mut term).await,
            End::Deposed | End::PutBack => *self.shared.write().await = None,
        }
        Ok(ended)
    }

    /// Loads, replays, takes over, and begins all work that is outstanding.
    async fn begin(
        &self,
        epoch: Epoch,
        answers: mpsc::Sender<Entry>,
        stop: &watch::Receiver<bool>,
    ) -> Result<Term, LeaderError> {
        let stored = self.parts.queue.load().await?;
        let state = self.restore(&stored)?;
        // Before anything is written or settled.
        let ledger = self.claim_ledger(&state)?.map(Entry::Ledger);
        let mut records = stored.records.len() as u64;
        let mut record_bytes = stored.records.iter().map(|record| record.len() as u64).sum::<u64>();
        let mut checkpoint_bytes = stored.checkpoint.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let is_first = stored.checkpoint.is_none() && records == 0;
        // The limits are part of the state: whoever comes next has to have the same. And a log that is full would not take
        // the record of this takeover.
        let is_full = self.is_log_full.swap(false, Ordering::Relaxed)
            || is_log_long(&self.config, records, record_bytes, checkpoint_bytes);
        if is_first || is_full {
            let bytes = state.encode();
            self.parts.queue.checkpoint(epoch, stored.position, &bytes).await?;
            (records, record_bytes, checkpoint_bytes) = (0, 0, bytes.len() as u64);
        }
        let parts = &self.parts;
        let executor = Executor::new(
            Arc::clone(&parts.store),
            Arc::clone(&parts.verifier),
            Arc::clone(&parts.settler),
            self.work,
            answers.clone(),
        );
        let mut term = Term {
            epoch,
            position: stored.position,
            cursor: stored.cursor,
            records,
            record_bytes,
            checkpoint_bytes,
            stop: stop.clone(),
            has_news: true,
            checkpointed: Instant::now(),
            executor,
            answers,
            closings: BTreeMap::new(),
            closings_count: 0,
            calling: BTreeSet::new(),
            calls: JoinSet::new(),
            bundling: BTreeSet::new(),
            standbys: Standbys::new(epoch.0),
            sweeper: Default::default(),
        };
        let is_new = state.epoch() < schedule::Epoch(epoch.0);
        let outstanding: Vec<schedule::Effect> = state.machine().pending().cloned().collect();
        self.publish(state).await;
        let takeover = Event::TakeOver { epoch: schedule::Epoch(epoch.0) };
        // In one commit with the ledger, so that nothing is settled before it is known where.
        let entries: Vec<Entry> =
            ledger.into_iter().chain(is_new.then_some(Entry::Event(takeover))).collect();
        if !entries.is_empty() {
            self.take(&mut term, Page::new(), entries).await?;
        }
        if !is_new {
            // The same term after a failure of the queue: the schedule has taken over already.
            let state = self.shared.write().await;
            if let Some(state) = state.as_ref() {
                self.start_work(&mut term, state, outstanding);
            }
        }
        Ok(term)
    }

    async fn publish(&self, state: State) {
        *self.shared.write().await = Some(state);
        self.shared.changed();
    }

    /// Renews the lease; the receiver is ready when it is lost.
    fn keep_lease(&self, epoch: Epoch, helpers: &mut JoinSet<()>) -> oneshot::Receiver<()> {
        let (lost, is_lost) = oneshot::channel();
        let (queue, holder, lease) = (Arc::clone(&self.parts.queue), self.holder.clone(), self.config.lease);
        let shared = Arc::clone(&self.shared);
        helpers.spawn(async move {
            loop {
                tokio::time::sleep(lease / 3).await;
                match queue.lead(&holder, lease).await {
                    Ok(Some(now)) if now == epoch => shared.hear(),
                    Ok(_) => break,
                    // Harmless: if somebody else takes over meanwhile, commits are refused.
                    Err(error) => tracing::warn!(%error, "the lease cannot be renewed"),
                }
            }
            let _ = lost.send(());
        });
        is_lost
    }

    /// Reads ahead by as many events as one turn takes.
    fn read_inbox(&self, mut after: Cursor, helpers: &mut JoinSet<()>) -> mpsc::Receiver<(Cursor, Vec<u8>)> {
        let (queue, max) = (Arc::clone(&self.parts.queue), self.config.turn_events_max);
        let (sender, receiver) = mpsc::channel(max.max(1));
        helpers.spawn(async move {
            loop {
                match queue.events(after, max, EVENTS_WAIT).await {
                    Ok(page) => {
                        for event in page {
                            after = event.0;
                            if sender.send(event).await.is_err() {
                                return;
                            }
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the inbox cannot be read");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        });
        receiver
    }

    /// Ends a term in good order: a checkpoint, so that the next start is quick, and the lease given back.
    async fn retire(&self, term: &mut Term) {
        let retire = async {
            self.checkpoint(term).await?;
            self.parts.queue.resign(term.epoch).await
        };
        match tokio::time::timeout(self.config.stop_time, retire).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the term ended without a checkpoint"),
            Err(_) => tracing::warn!("the term ended without a checkpoint: the queue does not answer"),
        }
        *self.shared.write().await = None;
    }

    /// Puts the state in the place of the log.
    pub(super) async fn checkpoint(&self, term: &mut Term) -> Result<(), QueueError> {
        let bytes = match self.shared.write().await.as_ref() {
            Some(state) => state.encode(),
            None => return Ok(()),
        };
        self.parts.queue.checkpoint(term.epoch, term.position, &bytes).await?;
        self.parts.metrics.checkpoint(bytes.len() as u64);
        (term.records, term.record_bytes, term.checkpoint_bytes) = (0, 0, bytes.len() as u64);
        term.has_news = false;
        term.checkpointed = Instant::now();
        Ok(())
    }
}

/// How a term ends that the queue does not go on with; `None` for other errors.
fn ending(error: &QueueError) -> Option<End> {
    match error {
        QueueError::Fenced { .. } => Some(End::Deposed),
        // Only this leader writes: what it has written or read and is not there was lost.
        QueueError::Gap { .. }
        | QueueError::CursorOutOfRange { .. }
        | QueueError::PositionOutOfRange { .. } => Some(End::PutBack),
        _ => None,
    }
}

fn drain(answered: &mut mpsc::Receiver<Entry>) -> Vec<Entry> {
    std::iter::from_fn(|| answered.try_recv().ok()).collect()
}
