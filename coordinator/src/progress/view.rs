//! Puts a [`Board`] where the user looks. Everything goes to standard error; standard output is for results.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::board::{Board, Step};

/// Least time between two lines about the same running stage in a log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A board on a terminal or in a log.
pub struct View {
    board: Board,
    started: Instant,
    kind: Kind,
}

enum Kind {
    Live { bars: MultiProgress, lines: Vec<ProgressBar>, footer: ProgressBar },
    Plain { last: Option<Instant>, last_text: String },
}

impl View {
    /// Shows the board: live if standard error is a terminal, else as lines.
    ///
    /// # Panics
    /// Never: the template is a constant.
    pub fn new(board: Board) -> Self {
        let kind = if std::io::stderr().is_terminal() {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{wide_msg}").expect("the template is valid");
            let add = || bars.add(ProgressBar::new_spinner().with_style(style.clone()));
            let lines = (0..board.len()).map(|_| add()).collect();
            Kind::Live { lines, footer: add(), bars }
        } else {
            Kind::Plain { last: None, last_text: String::new() }
        };
        let mut view = Self { board, started: Instant::now(), kind };
        view.note(view.board.title());
        view.tick();
        view
    }

    /// Time since the view was opened.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Says something that is not about the progress of a stage.
    pub fn note(&self, text: &str) {
        match &self.kind {
            // A terminal that cannot be written to is no reason to stop proving.
            Kind::Live { bars, .. } => drop(bars.println(text)),
            Kind::Plain { .. } => crate::fsio::say!("{text}"),
        }
    }

    /// A stage begins.
    pub fn begin(&mut self, at: usize) {
        let since = self.now();
        self.change(at, Step::Running { since, phase: String::new(), done: 0, total: 0 });
    }

    /// A stage ends.
    pub fn end(&mut self, at: usize, step: Step) {
        self.change(at, step);
    }

    /// A running stage reports.
    pub fn advance(&mut self, at: usize, phase: &str, done: u64, total: u64) {
        self.board.advance(at, phase, done, total);
        self.tick_stage(at);
    }

    /// Replaces what a stage is expected to take.
    pub fn expect(&mut self, at: usize, expected: Option<Duration>) {
        self.board.expect(at, expected);
    }

    /// Notes the resident memory of the working processes.
    pub fn memory(&mut self, bytes: u64) {
        self.board.memory(bytes);
    }

    /// Redraws; to be called now and then, since time passes without events.
    pub fn tick(&mut self) {
        let now = self.now();
        if let Kind::Live { lines, footer, .. } = &self.kind {
            for (at, line) in lines.iter().enumerate() {
                line.set_message(self.board.line(at, now));
            }
            footer.set_message(self.board.footer(now));
        }
    }

    /// Redraws, and in a log says where the running stage stands if enough time has passed.
    pub fn tick_stage(&mut self, at: usize) {
        self.tick();
        let text = self.board.line(at, self.now());
        if let Kind::Plain { last, last_text } = &mut self.kind {
            if last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) && *last_text != text {
                crate::fsio::say!("{text}");
                (*last, *last_text) = (Some(Instant::now()), text);
            }
        }
    }

    /// Ends the view; what is on the screen stays.
    pub fn close(mut self) {
        self.tick();
        let footer_text = self.board.footer(self.now());
        match self.kind {
            Kind::Live { lines, footer, .. } => {
                lines.iter().for_each(ProgressBar::abandon);
                footer.abandon();
            }
            Kind::Plain { .. } => crate::fsio::say!("{footer_text}"),
        }
    }

    fn change(&mut self, at: usize, step: Step) {
        self.board.set(at, step);
        let text = self.board.line(at, self.now());
        match &mut self.kind {
            Kind::Plain { last, last_text } => {
                crate::fsio::say!("{text}");
                (*last, *last_text) = (Some(Instant::now()), text);
            }
            Kind::Live { .. } => self.tick(),
        }
    }
}
