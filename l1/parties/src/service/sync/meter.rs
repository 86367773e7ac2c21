//! Progress on a terminal: one line on standard error, drawn again in place.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two drawings.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// Before that a guess is worth nothing.
const GUESS_AFTER: Duration = Duration::from_secs(2);

/// What is drawn, and since when.
pub(super) struct Meter {
    is_on: bool,
    what: &'static str,
    since: Instant,
    drawn: Option<Instant>,
}

impl Meter {
    /// One that draws nothing unless standard error is a terminal.
    pub(super) fn on_terminal() -> Self {
        Self { is_on: std::io::stderr().is_terminal(), what: "", since: Instant::now(), drawn: None }
    }

    /// `done` of `of` things are done of what is going on.
    pub(super) fn show(&mut self, what: &'static str, done: u32, of: u32) {
        if !self.is_on {
            return;
        }
        if self.what != what {
            (self.what, self.since, self.drawn) = (what, Instant::now(), None);
        }
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < DRAW_EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        self.put(&text(what, (done, of), self.since.elapsed()));
    }

    /// Takes the line away, for one that stays.
    pub(super) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            self.put("");
        }
    }

    fn put(&self, text: &str) {
        // Nobody is told if nobody can see it.
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.clear();
    }
}

fn text(what: &str, (done, of): (u32, u32), since: Duration) -> String {
    let mut text = format!("{what}: {done} of {of}");
    if done > 0 && since >= GUESS_AFTER {
        let left = since.as_secs_f64() / f64::from(done) * f64::from(of.saturating_sub(done));
        let left = left as u64;
        let (hours, minutes, seconds) = (left / 3_600, left / 60 % 60, left % 60);
        text += &match (hours, minutes) {
            (0, 0) => format!(", {seconds} s left"),
            (0, _) => format!(", {minutes} min {seconds} s left"),
            _ => format!(", {hours} h {minutes} min left"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_guessed_from_what_is_done() {
        let after = |seconds| Duration::from_secs(seconds);
        assert_eq!(text("reading blocks", (5, 20), after(1)), "reading blocks: 5 of 20");
        assert_eq!(text("reading blocks", (0, 20), after(60)), "reading blocks: 0 of 20");
        assert_eq!(text("reading blocks", (5, 20), after(10)), "reading blocks: 5 of 20, 30 s left");
        assert_eq!(text("x", (1, 10), after(10)), "x: 1 of 10, 1 min 30 s left");
        assert_eq!(text("x", (1, 1_001), after(7)), "x: 1 of 1001, 1 h 56 min left");
        assert_eq!(text("x", (3, 2), after(7)), "x: 3 of 2, 0 s left");
    }
}
