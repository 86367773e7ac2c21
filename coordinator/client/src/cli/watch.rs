//! Follows a batch: live on a terminal, as lines anywhere else.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::{say, warn};
use crate::client::{Client, Events};
use crate::error::{ClientError, EXIT_FAILED, EXIT_OK};
use crate::sse::Frame;
use crate::story::Story;
use crate::wire::{self, Event};

/// Wait before a stream is opened again; doubles up to [`WAIT_MAX`].
const WAIT: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Shortest time between two lines about progress.
const PROGRESS_TIME: Duration = Duration::from_secs(10);

/// How a watched batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The terminal phase.
    pub phase: String,
    /// Why it failed.
    pub failure: Option<String>,
}

impl Ended {
    /// Whether the batch is settled.
    pub fn is_settled(&self) -> bool {
        self.phase == wire::SETTLED
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        if self.is_settled() {
            EXIT_OK
        } else {
            EXIT_FAILED
        }
    }
}

/// Follows a batch to its end. A stream that ends too early is opened again where it ended, as long as `patience_s` allows.
pub(super) async fn follow(
    client: &Client,
    id: u64,
    patience_s: u64,
    is_json: bool,
    out: &mut (dyn Write + Send + '_),
) -> Result<Ended, ClientError> {
    let mut view = View::new(id, is_json, out);
    let (mut last, mut story) = (None::<String>, Story::default());
    let patience = Duration::from_secs(patience_s);
    let (mut heard, mut wait) = (Instant::now(), WAIT);
    loop {
        let error = match client.events(id, last.as_deref()).await {
            Ok(mut events) => {
                (heard, wait) = (Instant::now(), WAIT);
                match tell(&mut events, &mut last, &mut story, &mut view).await {
                    Ok(Some(ended)) => return Ok(ended),
                    // The coordinator stops; another one, or the next one here, goes on.
                    Ok(None) => None,
                    Err(error) if error.is_transient() => Some(error),
                    Err(error) => return Err(error),
                }
            }
            Err(error) if error.is_transient() => Some(error),
            Err(error) => return Err(error),
        };
        if heard.elapsed() + wait > patience {
            return Err(error.unwrap_or_else(|| ClientError::Unreachable {
                url: client.url().to_owned(),
                reason: "the event stream ends again and again".into(),
            }));
        }
        if let Some(error) = error {
            view.note(&format!("{error}; trying again"));
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// Tells the events of one stream; returns the end, if it comes.
async fn tell(
    events: &mut Events,
    last: &mut Option<String>,
    story: &mut Story,
    view: &mut View<'_>,
) -> Result<Option<Ended>, ClientError> {
    while let Some(frame) = events.next().await? {
        let Frame { id, data, .. } = frame;
        if id.is_some() {
            *last = id;
        }
        // What a newer coordinator says otherwise is passed over.
        let event = serde_json::from_str(&data).unwrap_or(Event::Unknown);
        let line = story.take(&event);
        view.show(story, line, &data)?;
        if story.is_over() {
            let failure = story.failure().map(|reason| crate::story::shown(&reason.text));
            return Ok(Some(Ended { phase: story.phase().to_owned(), failure }));
        }
    }
    Ok(None)
}

/// Where a story is told.
struct View<'a> {
    id: u64,
    kind: Kind,
    out: &'a mut (dyn Write + Send + 'a),
}

enum Kind {
    Json,
    Lines { last: Option<Instant>, last_text: String },
    Live(ProgressBar),
}

impl<'a> View<'a> {
    fn new(id: u64, is_json: bool, out: &'a mut (dyn Write + Send + 'a)) -> Self {
        let is_terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let kind = match (is_json, is_terminal) {
            (true, _) => Kind::Json,
            (false, true) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                // Without a style of ours it would still show, less well.
                if let Ok(style) = ProgressStyle::with_template("{msg}") {
                    bar.set_style(style);
                }
                Kind::Live(bar)
            }
            (false, false) => Kind::Lines { last: None, last_text: String::new() },
        };
        Self { id, kind, out }
    }

    /// Shows an event: its line, and what the whole batch looks like now.
    fn show(&mut self, story: &Story, line: Option<String>, data: &str) -> Result<(), ClientError> {
        match &mut self.kind {
            Kind::Json => say(self.out, data.trim()),
            Kind::Live(bar) => {
                if let Some(line) = line {
                    bar.println(line);
                }
                bar.set_message(story.screen(self.id).trim_end().to_owned());
                if story.is_over() {
                    bar.abandon();
                }
                Ok(())
            }
            Kind::Lines { last, last_text } => {
                if let Some(line) = line {
                    return say(self.out, &line);
                }
                let text = format!("          {}", story.summary());
                if *last_text == text || last.is_some_and(|last| last.elapsed() < PROGRESS_TIME) {
                    return Ok(());
                }
                say(self.out, &text)?;
                (*last, *last_text) = (Some(Instant::now()), text);
                Ok(())
            }
        }
    }

    /// Says something that is no event.
    fn note(&self, text: &str) {
        match &self.kind {
            Kind::Live(bar) => bar.println(text),
            _ => warn(text),
        }
    }
}
