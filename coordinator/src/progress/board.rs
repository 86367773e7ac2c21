//! The state of the view and its rendering; no clock, no terminal.

use std::time::Duration;

/// Where one stage stands for the viewer.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Not begun.
    Waiting,
    /// In work.
    Running {
        /// When it began, since the start of the view.
        since: Duration,
        /// What it is doing, in the stage's words; empty if unknown.
        phase: String,
        /// Steps of the phase that are finished.
        done: u64,
        /// Steps of the phase known so far, 0 while unknown.
        total: u64,
    },
    /// Finished by this run of the program.
    Done {
        /// How long it took.
        took: Duration,
        /// Peak memory in bytes, 0 if unknown.
        peak_bytes: u64,
    },
    /// Taken from the cache.
    Resumed {
        /// How long it took when it was computed.
        took: Duration,
    },
    /// Ended without a result.
    Failed,
}

/// One line of the view.
#[derive(Clone, Debug)]
struct Line {
    name: String,
    step: Step,
    /// Expected duration from former runs.
    expected: Option<Duration>,
}

/// All stages of one batch.
#[derive(Clone, Debug)]
pub struct Board {
    title: String,
    lines: Vec<Line>,
    memory_bytes: u64,
    peak_bytes: u64,
}

impl Board {
    /// A board of stages that have not begun, with what each is expected to take.
    pub fn new(title: String, stages: impl IntoIterator<Item = (String, Option<Duration>)>) -> Self {
        let lines =
            stages.into_iter().map(|(name, expected)| Line { name, step: Step::Waiting, expected }).collect();
        Self { title, lines, memory_bytes: 0, peak_bytes: 0 }
    }

    /// Number of stages.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no stage.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Heading of the view.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Sets a stage's step. Stages are named by their index.
    pub fn set(&mut self, at: usize, step: Step) {
        self.lines[at].step = step;
    }

    /// Replaces what a stage is expected to take.
    pub fn expect(&mut self, at: usize, expected: Option<Duration>) {
        self.lines[at].expected = expected;
    }

    /// Updates phase and counts of a running stage; ignored for a stage that is not running.
    pub fn advance(&mut self, at: usize, new_phase: &str, new_done: u64, new_total: u64) {
        if let Step::Running { phase, done, total, .. } = &mut self.lines[at].step {
            new_phase.clone_into(phase);
            (*done, *total) = (new_done, new_total);
        }
    }

    /// Notes the resident memory of the working processes.
    pub fn memory(&mut self, bytes: u64) {
        self.memory_bytes = bytes;
        self.peak_bytes = self.peak_bytes.max(bytes);
    }

    /// Renders one stage.
    pub fn line(&self, at: usize, now: Duration) -> String {
        let Line { name, step, expected } = &self.lines[at];
        match step {
            Step::Waiting => match expected {
                Some(expected) => format!("  {name:<28} about {}", duration_text(*expected)),
                None => format!("  {name}"),
            },
            Step::Running { since, phase, done, total } => {
                let mut text = format!("> {name:<28} {}", duration_text(now.saturating_sub(*since)));
                if !phase.is_empty() {
                    text += &format!(", {phase}");
                }
                match (done, total) {
                    (0, 0) => {}
                    (done, 0) => text += &format!(" {done}"),
                    (done, total) => text += &format!(" {done}/{total}"),
                }
                if let Some(left) = self.left(at, now) {
                    text += &format!(", about {} left", duration_text(left));
                }
                if self.memory_bytes > 0 {
                    text += &format!(", {}", bytes_text(self.memory_bytes));
                }
                text
            }
            Step::Done { took, peak_bytes: 0 } => format!("+ {name:<28} {}", duration_text(*took)),
            Step::Done { took, peak_bytes } => {
                format!("+ {name:<28} {}, peak {}", duration_text(*took), bytes_text(*peak_bytes))
            }
            Step::Resumed { took } => {
                format!("+ {name:<28} resumed: from cache (took {} then)", duration_text(*took))
            }
            Step::Failed => format!("x {name:<28} failed"),
        }
    }

    /// Renders the last line: time elapsed, time left, peak memory.
    pub fn footer(&self, now: Duration) -> String {
        let mut text = format!("  elapsed {}", duration_text(now));
        let open: Vec<usize> = (0..self.lines.len()).filter(|at| self.is_open(*at)).collect();
        let left: Vec<Duration> = open.iter().filter_map(|at| self.left(*at, now)).collect();
        if !left.is_empty() {
            let at_least = if left.len() < open.len() { "at least " } else { "about " };
            text += &format!(", {at_least}{} left", duration_text(left.iter().sum()));
        }
        if self.peak_bytes > 0 {
            text += &format!(", peak memory {}", bytes_text(self.peak_bytes));
        }
        text
    }

    fn is_open(&self, at: usize) -> bool {
        matches!(self.lines[at].step, Step::Waiting | Step::Running { .. })
    }

    /// Expected time left of an open stage: from experience, or else from the fraction of the phase that is done.
    fn left(&self, at: usize, now: Duration) -> Option<Duration> {
        let line = &self.lines[at];
        match &line.step {
            Step::Waiting => line.expected,
            Step::Running { since, done, total, .. } => {
                let spent = now.saturating_sub(*since);
                match line.expected {
                    Some(expected) if expected > spent => Some(expected - spent),
                    _ if *done > 0 && *total >= *done => {
                        Some(spent.mul_f64((*total - *done) as f64 / *done as f64))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// `0.4 s`, `12 s`, `3 min 05 s`, `1 h 02 min`.
pub fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `15.2 GiB` or `120 MiB`.
pub fn bytes_text(bytes: u64) -> String {
    if bytes >= 1 << 30 {
        format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn board() -> Board {
        Board::new("b".into(), [("execute".to_owned(), None), ("fold proof".to_owned(), Some(s(100)))])
    }

    #[test]
    fn a_running_stage_shows_phase_counts_time_left_and_memory() {
        let mut board = board();
        board.set(1, Step::Running { since: s(10), phase: String::new(), done: 0, total: 0 });
        board.advance(1, "prove shards", 3, 7);
        board.memory(3 << 29);
        let line = board.line(1, s(70));
        assert!(line.contains("1 min 00 s, prove shards 3/7, about 40 s left, 1.5 GiB"), "{line}");
    }

    #[test]
    fn without_experience_the_time_left_follows_the_fraction_done() {
        let mut board = board();
        board.set(0, Step::Running { since: s(0), phase: "x".into(), done: 1, total: 4 });
        assert!(board.line(0, s(20)).contains("about 1 min 00 s left"));
        // Longer than ever before: experience no longer helps.
        board.set(1, Step::Running { since: s(0), phase: "x".into(), done: 1, total: 2 });
        assert!(board.line(1, s(200)).contains("about 3 min 20 s left"));
    }

    #[test]
    fn the_footer_adds_up_what_is_known_and_says_when_something_is_not() {
        let mut board = board();
        assert!(board.footer(s(1)).contains("at least 1 min 40 s left"));
        board.set(0, Step::Done { took: s(5), peak_bytes: 1 << 30 });
        board.memory(2 << 30);
        board.memory(1 << 30);
        assert_eq!(board.footer(s(12)), "  elapsed 12 s, about 1 min 40 s left, peak memory 2.0 GiB");
        board.set(1, Step::Resumed { took: s(90) });
        assert_eq!(board.footer(s(13)), "  elapsed 13 s, peak memory 2.0 GiB");
        assert!(board.line(1, s(13)).contains("resumed: from cache"));
    }

    #[test]
    fn advancing_a_stage_that_does_not_run_changes_nothing() {
        let mut board = board();
        let before = board.line(0, s(0));
        board.advance(0, "late", 1, 2);
        assert_eq!(board.line(0, s(0)), before);
    }
}
