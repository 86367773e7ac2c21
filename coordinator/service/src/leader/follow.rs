//! A standby follows the leader: it loads the stored state once and then reads what is committed from the mailbox `log`.
//!
//! The leader fills that mailbox only while standbys say, every few seconds, that they are there. Whoever has missed
//! something loads again.

use std::time::{Duration, Instant};

use assay_queue::{Cursor, Position, Stored};
use serde::Deserialize;

use super::{Coordinator, LeaderError};
use crate::names;
use crate::request::Post;
use crate::state::{decode_record, Record, State};

/// Time between a standby's signs of life.
pub(super) const SIGN_TIME: Duration = Duration::from_secs(5);
const PAGE: usize = 256;

/// A standby that has heard nothing for this long loads again: a leader commits a tick every second.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Where a standby is.
#[derive(Default)]
pub(super) struct Follower {
    id: u64,
    moved: Option<Instant>,
    /// The last record that is in the state; `None` if the state has to be loaded.
    position: Option<Position>,
    /// The last mail that was read.
    cursor: Cursor,
    signed: Option<Instant>,
}

/// One mail of the mailbox `log`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogMail {
    /// The leader's.
    pub epoch: u64,
    /// Place of the first record.
    pub first: u64,
    /// The records.
    pub records: Vec<Record>,
}

impl Follower {
    pub(super) fn new() -> Self {
        Self { id: rand::random(), ..Self::default() }
    }
}

impl Coordinator {
    /// Follows until `until`, or as long as there is nothing to follow.
    pub(super) async fn follow(
        &self,
        follower: &mut Follower,
        until: tokio::time::Instant,
    ) -> Result<(), LeaderError> {
        while tokio::time::Instant::now() < until {
            match self.follow_once(follower, until).await {
                Ok(()) => self.shared.hear(),
                Err(LeaderError::Queue(error)) if error.class() == assay_queue::Class::Transient => {
                    tracing::warn!(%error, "cannot follow");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn follow_once(
        &self,
        follower: &mut Follower,
        until: tokio::time::Instant,
    ) -> Result<(), LeaderError> {
        let queue = &self.parts.queue;
        if follower.signed.is_none_or(|signed| signed.elapsed() >= SIGN_TIME) {
            let sign = Post::Follow { standby: follower.id, cursor: follower.cursor.0 };
            queue.post(self.parts.cluster.seal(&sign)).await?;
            follower.signed = Some(Instant::now());
        }
        if follower.moved.is_some_and(|moved| moved.elapsed() > SILENCE_MAX) {
            follower.position = None;
        }
        if follower.position.is_none() {
            follower.position = self.load_as_follower().await?;
            follower.cursor = Cursor(0);
            follower.moved = Some(Instant::now());
        }
        let wait = until.saturating_duration_since(tokio::time::Instant::now()).min(SIGN_TIME);
        let page = queue.read(&names::log(), follower.cursor, PAGE, wait).await?;
        let Some(mut position) = follower.position else { return Ok(()) };
        let mut state = self.shared.write().await;
        for mail in page.mails {
            follower.cursor = mail.cursor;
            // Another program's version; the state is loaded anew when this one leads, and refused there.
            let Ok(mail) = serde_json::from_slice::<LogMail>(&mail.bytes) else {
                follower.position = None;
                return Ok(());
            };
            let epoch = state.as_ref().map_or(0, |state| state.epoch().0);
            // What an earlier leader has written is in the state that was loaded, or is lost.
            if mail.epoch < epoch {
                continue;
            }
            // Another leader has begun, maybe where this state does not end: the queue may have been put back.
            if mail.epoch > epoch {
                follower.position = None;
                return Ok(());
            }
            if mail.first > position.0 + 1 {
                tracing::debug!(missed = mail.first - position.0 - 1, "records were missed: loading again");
                follower.position = None;
                return Ok(());
            }
            let known = usize::try_from(position.0 + 1 - mail.first).unwrap_or(usize::MAX);
            for record in mail.records.iter().skip(known) {
                position.0 += 1;
                if let Some(state) = state.as_mut() {
                    self.replay(state, record);
                }
            }
        }
        // A coordinator that could not take over is none.
        state.as_ref().map_or(Ok(None), |state| self.claim_ledger(state))?;
        drop(state);
        if follower.position != Some(position) {
            follower.position = Some(position);
            follower.moved = Some(Instant::now());
            self.shared.changed();
        }
        Ok(())
    }

    /// Loads what is stored; `None` if no coordinator has ever led.
    async fn load_as_follower(&self) -> Result<Option<Position>, LeaderError> {
        let stored = self.parts.queue.load().await?;
        if stored.checkpoint.is_none() {
            return Ok(None);
        }
        let position = stored.position;
        let state = self.restore(&stored)?;
        self.claim_ledger(&state)?;
        *self.shared.write().await = Some(state);
        self.shared.changed();
        Ok(Some(position))
    }

    /// The state that is stored.
    pub(super) fn restore(&self, stored: &Stored) -> Result<State, LeaderError> {
        let mut state = match &stored.checkpoint {
            Some(bytes) => State::decode(bytes)?,
            None => State::new(self.limits.clone())?,
        };
        for bytes in &stored.records {
            self.replay(&mut state, &decode_record(bytes)?);
        }
        Ok(state)
    }

    /// Takes a record that is committed, and answers whoever has asked for it here.
    fn replay(&self, state: &mut State, record: &Record) {
        // A record is only committed once the schedule has taken it, so it takes it again; if another version of this
        // program did, then this one would not have.
        let outcome = match state.apply(record) {
            Ok(applied) => applied.outcome,
            Err(error) => {
                tracing::error!(%error, "a committed record is refused");
                None
            }
        };
        if let (Some(outcome), crate::state::Entry::Request(request)) = (outcome, &record.entry) {
            self.shared.answer(request.id, outcome);
        }
    }
}
