//! What a watched batch has told so far, and how it is put into lines.

use std::collections::BTreeMap;

use crate::wire::{self, Event, Reason};

/// Attempts that are remembered; more do not run at the same time.
const ATTEMPTS_MAX: usize = 4096;
/// Attempts that are shown.
const SHOWN_MAX: usize = 12;
/// Longest text of a server that is shown, in characters.
const TEXT_MAX: usize = 512;

/// A batch as its events tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    phase: String,
    failure: Option<Reason>,
    tasks_done: u32,
    tasks_running: u32,
    eta_ms: Option<u64>,
    now_ms: u64,
    attempts: BTreeMap<u64, Attempt>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Attempt {
    task: String,
    worker: u64,
    state: String,
    since_ms: u64,
}

impl Story {
    /// Takes an event; returns a line if it is worth one. `progress` events have none.
    pub fn take(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Phase { at_ms, phase, failure } => {
                self.now_ms = *at_ms;
                self.phase = shown(phase);
                self.failure.clone_from(failure);
                if wire::is_terminal(phase) {
                    self.attempts.clear();
                }
                let reason =
                    failure.as_ref().map(|reason| format!(": {}", shown(&reason.text))).unwrap_or_default();
                Some(format!("{}  {}{reason}", clock(*at_ms), self.phase))
            }
            Event::Attempt { at_ms, attempt, task, worker, state } => {
                self.now_ms = *at_ms;
                self.attempt(*at_ms, *attempt, task, *worker, state)
            }
            Event::Snapshot { batch } => {
                self.phase = shown(&batch.phase);
                self.failure.clone_from(&batch.failure);
                (self.tasks_done, self.tasks_running) = (batch.tasks_done, batch.tasks_running);
                self.attempts.clear();
                Some(format!("          {} (events before this are not kept any more)", self.summary()))
            }
            Event::Progress { tasks_done, tasks_running, eta_ms } => {
                (self.tasks_done, self.tasks_running, self.eta_ms) = (*tasks_done, *tasks_running, *eta_ms);
                None
            }
            Event::Unknown => None,
        }
    }

    fn attempt(&mut self, at_ms: u64, attempt: u64, task: &str, worker: u64, state: &str) -> Option<String> {
        let state = shown(state);
        let is_over = !matches!(state.as_str(), "running" | "reported");
        if is_over {
            self.attempts.remove(&attempt);
        } else if self.attempts.len() < ATTEMPTS_MAX || self.attempts.contains_key(&attempt) {
            let entry = Attempt { task: shown(task), worker, state: state.clone(), since_ms: at_ms };
            let known = self.attempts.entry(attempt).or_insert(entry);
            known.state.clone_from(&state);
        }
        Some(format!("{}  {state:<9} {} on worker {worker}", clock(at_ms), shown(task)))
    }

    /// The phase.
    pub fn phase(&self) -> &str {
        &self.phase
    }

    /// Why it failed.
    pub fn failure(&self) -> Option<&Reason> {
        self.failure.as_ref()
    }

    /// Whether nothing follows.
    pub fn is_over(&self) -> bool {
        wire::is_terminal(&self.phase)
    }

    /// Phase, tasks, ETA in one line.
    pub fn summary(&self) -> String {
        let mut text =
            format!("{}: {} tasks done, {} running", self.phase, self.tasks_done, self.tasks_running);
        if let Some(eta_ms) = self.eta_ms.filter(|_| !self.is_over()) {
            text += &format!(", done at about {}", clock(eta_ms));
        }
        text
    }

    /// The screen of a live view.
    pub fn screen(&self, id: u64) -> String {
        let mut text = format!("batch {id} is {}\n", self.summary());
        for attempt in self.attempts.values().take(SHOWN_MAX) {
            let Attempt { task, worker, state, since_ms } = attempt;
            let since = duration(self.now_ms.saturating_sub(*since_ms));
            text += &format!("  {state:<9} {task} on worker {worker}, {since}\n");
        }
        let hidden = self.attempts.len().saturating_sub(SHOWN_MAX);
        if hidden > 0 {
            text += &format!("  and {hidden} more\n");
        }
        text
    }
}

/// Text of a server as it may be shown: without control characters, and not endless.
pub(crate) fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(TEXT_MAX).map(clean).collect()
}

/// The time of day of a moment, UTC.
pub(crate) fn clock(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// How long something took.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..=99 => format!("{seconds} s"),
        100..=5999 => format!("{} min {} s", seconds / 60, seconds % 60),
        6000..=359_999 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(attempt: u64, state: &str) -> Event {
        Event::Attempt { at_ms: 3_661_000, attempt, task: "block 0".into(), worker: 3, state: state.into() }
    }

    #[test]
    fn events_become_lines_and_a_screen() {
        let mut story = Story::default();
        let phase = |phase: &str| Event::Phase { at_ms: 1000, phase: phase.into(), failure: None };
        assert_eq!(story.take(&phase("proving")).unwrap(), "00:00:01  proving");
        assert_eq!(story.take(&attempt(7, "running")).unwrap(), "01:01:01  running   block 0 on worker 3");
        story.take(&attempt(8, "running"));
        story.take(&attempt(8, "failed"));
        let progress = Event::Progress { tasks_done: 2, tasks_running: 1, eta_ms: Some(86_400_000 + 60_000) };
        assert_eq!(story.take(&progress), None);
        assert_eq!(
            story.screen(5),
            "batch 5 is proving: 2 tasks done, 1 running, done at about 00:01:00\n  running   block 0 on worker 3, 0 ms\n"
        );
        assert!(!story.is_over());
        let failure = Some(Reason { code: "poison".into(), text: "wrap failed\x1b[31m".into() });
        let line = story.take(&Event::Phase { at_ms: 0, phase: "failed".into(), failure }).unwrap();
        assert_eq!(line, "00:00:00  failed: wrap failed [31m");
        assert!(story.is_over() && story.screen(5).lines().count() == 1);
    }

    #[test]
    fn a_snapshot_replaces_what_was_missed() {
        let mut story = Story::default();
        story.take(&attempt(7, "running"));
        let batch = wire::Batch { phase: "settling".into(), tasks_done: 40, ..Default::default() };
        let line = story.take(&Event::Snapshot { batch: Box::new(batch) }).unwrap();
        assert!(line.contains("settling: 40 tasks done, 0 running"), "{line}");
        assert_eq!(story.screen(1).lines().count(), 1);
    }

    #[test]
    fn what_is_shown_is_bounded() {
        let mut story = Story::default();
        for number in 0..2 * ATTEMPTS_MAX as u64 {
            story.take(&attempt(number, "running"));
        }
        assert_eq!(story.attempts.len(), ATTEMPTS_MAX);
        assert_eq!(story.screen(1).lines().count(), SHOWN_MAX + 2);
        assert_eq!(shown(&"x".repeat(10_000)).len(), TEXT_MAX);
    }

    #[test]
    fn durations_are_short() {
        let all = [
            (5, "5 ms"),
            (99_000, "99 s"),
            (100_000, "1 min 40 s"),
            (7_260_000, "2 h 1 min"),
            (864_000_000, "10 days"),
        ];
        for (ms, text) in all {
            assert_eq!(duration(ms), text);
        }
    }
}
