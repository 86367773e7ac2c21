//! What has happened to one batch: its attempts as spans of time, and numbered notices for those who watch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use assay_schedule::{AttemptId, Phase, Spec, Stage, Time, WorkerId};
use serde::{Deserialize, Serialize};

use super::ResultFile;

/// Notices that are kept of a batch; who has missed older ones gets the whole status instead.
pub const NOTICES_MAX: usize = 4096;
/// Spans that are kept of a batch; later attempts are not recorded.
pub const SPANS_MAX: usize = 8192;

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// The worker has it, or will.
    Running,
    /// The worker has reported; the coordinator checks.
    Reported,
    /// The result counts.
    Accepted,
    /// The worker could not do it.
    Failed,
    /// The result did not verify.
    Rejected,
    /// Taken back: another attempt was faster, the worker got lost, the batch ended.
    Revoked,
}

impl AttemptState {
    /// Its name in JSON and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Reported => "reported",
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Revoked => "revoked",
        }
    }

    /// Whether no other state follows.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Running | Self::Reported)
    }
}

/// One attempt of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The attempt.
    pub attempt: AttemptId,
    /// What it is to do.
    pub stage: Stage,
    /// Who does it.
    pub worker: WorkerId,
    /// When it was sent.
    pub started: Time,
    /// When the worker reported.
    pub reported: Option<Time>,
    /// When it was over.
    pub ended: Option<Time>,
    /// How far it is.
    pub state: AttemptState,
}

/// Something that happened to a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Counts the notices of a batch, from 1. The same on every coordinator.
    pub seq: u64,
    /// When.
    pub at: Time,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The batch is in another phase.
    Phase(Phase),
    /// An attempt is in another state.
    Attempt {
        /// The attempt.
        attempt: AttemptId,
        /// What it is to do.
        stage: Stage,
        /// Who does it.
        worker: WorkerId,
        /// The state.
        state: AttemptState,
    },
}

/// What has happened to one batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The batch as submitted.
    pub spec: Spec,
    /// When it came.
    pub submitted: Time,
    /// When it ended.
    pub ended: Option<Time>,
    /// Where it stood last.
    pub phase: Phase,
    /// Who is told about the end.
    pub callback: Option<String>,
    /// Attempts, in the order in which they were sent.
    pub spans: Vec<Span>,
    /// Spans that were not recorded, or have been dropped.
    pub spans_dropped: u64,
    /// Attempts beyond the first of their task.
    pub retries: u32,
    /// Tasks that have had an attempt, until the batch has ended.
    pub tried: BTreeSet<Stage>,
    /// Results that counted.
    pub accepted: u32,
    /// Attempts that have not ended.
    pub running: u32,
    /// Notices, oldest first.
    pub notices: VecDeque<Notice>,
    /// Number of the next notice.
    pub next_seq: u64,
    /// Files of the result.
    pub files: Vec<ResultFile>,
    /// Signed receipts of its attempts, as JSON, by attempt.
    pub receipts: BTreeMap<AttemptId, String>,
    /// Attempts whose results counted; receipts of others are for wasted work.
    pub taken: BTreeSet<AttemptId>,
}

impl History {
    /// A batch that has just been taken.
    pub(super) fn new(spec: Spec, at: Time) -> Self {
        Self {
            spec,
            submitted: at,
            ended: None,
            phase: Phase::Proving,
            callback: None,
            spans: Vec::new(),
            spans_dropped: 0,
            retries: 0,
            tried: BTreeSet::new(),
            accepted: 0,
            running: 0,
            notices: VecDeque::new(),
            next_seq: 1,
            files: Vec::new(),
            receipts: BTreeMap::new(),
            taken: BTreeSet::new(),
        }
    }

    /// Adds a notice; the oldest one goes if there are too many.
    pub(super) fn note(&mut self, at: Time, what: What) {
        if self.notices.len() >= NOTICES_MAX {
            self.notices.pop_front();
        }
        self.notices.push_back(Notice { seq: self.next_seq, at, what });
        self.next_seq += 1;
    }

    /// The span of an attempt, if it was recorded.
    pub fn span(&self, attempt: AttemptId) -> Option<&Span> {
        // Numbers of attempts grow.
        let at = self.spans.binary_search_by_key(&attempt, |span| span.attempt).ok()?;
        self.spans.get(at)
    }

    /// Drops all but what is needed to say how it ended.
    pub(super) fn shorten(&mut self) {
        self.spans_dropped += self.spans.len() as u64;
        self.spans = Vec::new();
        self.notices.drain(..self.notices.len().saturating_sub(1));
    }

    /// Number of the last notice, 0 if there is none.
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Notices after number `seq`; `None` if some of them are not kept any more.
    pub fn after(&self, seq: u64) -> Option<impl Iterator<Item = &Notice>> {
        let first = self.notices.front().map_or(self.next_seq, |notice| notice.seq);
        let skip = usize::try_from(seq.saturating_add(1).checked_sub(first)?).ok()?;
        Some(self.notices.iter().skip(skip))
    }
}

#[cfg(test)]
mod tests {
    use assay_schedule::{ChainId, Hash, TenantId};

    use super::*;

    fn history() -> History {
        let spec = Spec {
            tenant: TenantId(1),
            key: String::new(),
            chain: ChainId(1),
            sequence: 0,
            from: Hash([0; 32]),
            to: Hash([1; 32]),
            payload: Hash([0; 32]),
            payload_bytes: 0,
            units: 1,
            version: 1,
            priority: 0,
            deadline: None,
            deadline_is_hard: false,
            intake: Hash([0; 32]),
        };
        History::new(spec, Time(0))
    }

    #[test]
    fn notices_are_replayed_from_any_kept_place() {
        let mut history = history();
        assert_eq!(history.after(0).unwrap().count(), 0);
        for _ in 0..NOTICES_MAX + 10 {
            history.note(Time(1), What::Phase(Phase::Proving));
        }
        assert_eq!(history.last_seq(), NOTICES_MAX as u64 + 10);
        assert!(history.after(0).is_none());
        assert!(history.after(9).is_none());
        assert_eq!(history.after(10).unwrap().next().unwrap().seq, 11);
        assert_eq!(history.after(10).unwrap().count(), NOTICES_MAX);
        assert_eq!(history.after(history.last_seq()).unwrap().count(), 0);
        assert_eq!(history.after(history.last_seq() + 100).unwrap().count(), 0);
        assert_eq!(history.after(u64::MAX).unwrap().count(), 0);
    }
}
