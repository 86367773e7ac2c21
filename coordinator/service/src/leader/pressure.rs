//! Tells the schedule when queue or store are nearly full, or the store cannot be reached, so that no more is begun then.

use std::sync::Arc;
use std::time::Duration;

use assay_queue::{ArtifactStore, Health, TaskQueue, Usage};
use assay_schedule::Event;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::state::Entry;

/// Time between two looks.
const LOOK_TIME: Duration = Duration::from_secs(2);
/// How long a look waits for its answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Nearly full from this percentage on, until it is below the other one.
const FULL_PERCENT: u128 = 90;
const ROOMY_PERCENT: u128 = 80;
/// Looks in a row that have to fail: one may.
const FAILURES_MAX: u32 = 2;

/// Looks again and again; sends what has changed, and what was found first, because an earlier term may have left the
/// schedule with something else.
pub(super) async fn watch(
    queue: Arc<dyn TaskQueue>,
    store: Arc<dyn ArtifactStore>,
    answers: mpsc::Sender<Entry>,
) {
    let (mut gauge, mut told) = (Gauge::default(), None);
    loop {
        let usage = timeout(ANSWER_TIME, store.usage()).await.ok().and_then(Result::ok);
        let health = timeout(ANSWER_TIME, queue.health()).await.ok().and_then(Result::ok);
        let found = gauge.read(usage.as_ref(), health.as_ref());
        if told != Some(found) {
            let Pressure { available, full } = found;
            if !available || full {
                tracing::warn!(available, full, "the store is nearly full or away: less is begun");
            }
            if answers.send(Entry::Event(Event::Store { available, full })).await.is_err() {
                return;
            }
            told = Some(found);
        }
        tokio::time::sleep(LOOK_TIME).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pressure {
    available: bool,
    full: bool,
}

#[derive(Default)]
struct Gauge {
    failures: u32,
    full: bool,
    /// Used and bound, as last heard.
    store: Option<(u64, u64)>,
    memory: Option<(u64, u64)>,
}

impl Gauge {
    /// What two answers mean; `None` is no answer. A queue that does not answer is found out by its commits.
    fn read(&mut self, usage: Option<&Usage>, health: Option<&Health>) -> Pressure {
        self.failures = if usage.is_some() { 0 } else { self.failures.saturating_add(1) };
        if let Some(usage) = usage {
            self.store = Some((usage.bytes.saturating_add(usage.reserved_bytes), usage.bytes_max));
        }
        if let Some(health) = health {
            self.memory = health.memory_bytes.zip(health.memory_bytes_max);
        }
        let percent = |(used, max): (u64, u64)| u128::from(used) * 100 / u128::from(max.max(1));
        let bounded = [self.store, self.memory].into_iter().flatten().filter(|(_, max)| *max > 0);
        let fullest = bounded.map(percent).max().unwrap_or(0);
        self.full = fullest >= if self.full { ROOMY_PERCENT } else { FULL_PERCENT };
        Pressure { available: self.failures < FAILURES_MAX, full: self.full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(bytes: u64, reserved_bytes: u64) -> Usage {
        Usage { bytes, reserved_bytes, bytes_max: 1000, ..Usage::default() }
    }

    fn memory(used: u64, max: Option<u64>) -> Health {
        Health { memory_bytes: Some(used), memory_bytes_max: max, ..Health::default() }
    }

    #[test]
    fn it_is_full_at_ninety_percent_and_not_before_eighty_again() {
        let mut gauge = Gauge::default();
        let mut full = |bytes, reserved| gauge.read(Some(&usage(bytes, reserved)), None).full;
        let seen = [full(899, 0), full(850, 50), full(800, 0), full(799, 0), full(899, 0)];
        assert_eq!(seen, [false, true, true, false, false]);
    }

    #[test]
    fn the_memory_of_the_queue_counts_where_it_is_bounded() {
        let mut gauge = Gauge::default();
        let low = usage(0, 0);
        assert!(!gauge.read(Some(&low), Some(&memory(u64::MAX, None))).full);
        assert!(!gauge.read(Some(&low), Some(&memory(5, Some(0)))).full);
        assert!(gauge.read(Some(&low), Some(&memory(u64::MAX, Some(u64::MAX)))).full);
        assert!(gauge.read(Some(&low), None).full, "nobody has said otherwise");
        assert!(!gauge.read(Some(&low), Some(&memory(1, Some(2)))).full);
    }

    #[test]
    fn one_silent_look_is_no_outage_and_the_first_answer_ends_it() {
        let mut gauge = Gauge::default();
        assert!(gauge.read(Some(&usage(950, 0)), None).full);
        let looks = [None, None, None, Some(&usage(950, 0))].map(|usage| gauge.read(usage, None));
        assert_eq!(looks.map(|look| look.available), [true, false, false, true]);
        assert!(looks.iter().all(|look| look.full), "nobody has said otherwise");
    }
}
