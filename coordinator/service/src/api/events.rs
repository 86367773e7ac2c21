//! Server-sent events: one batch's history as it grows, and the tenant's list of batches as it changes.
//!
//! The numbers of a batch's events are part of the shared state, so `Last-Event-ID` works after a reconnection to another
//! coordinator, and after a takeover. A stream ends after the terminal phase.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use assay_schedule::{BatchId, TenantId};
use axum::extract::State as Extract;
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use futures::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::batches::{page, ListQuery, PAGE};
use super::extract::{header_text, BatchPath, Viewer};
use super::streams::Place;
use super::view::{BatchList, BatchView, EventView};
use super::SharedApp;
use crate::problem::{Code, Problem};
use crate::state::State;

/// Shortest time between two unnumbered events.
const PROGRESS_TIME: Duration = Duration::from_secs(1);
/// How long a stream waits before it looks at the time again.
const NAP: Duration = Duration::from_secs(1);

/// One frame, before it is written.
#[derive(Clone, Debug, PartialEq)]
struct Frame {
    id: Option<u64>,
    name: &'static str,
    data: String,
}

impl Frame {
    fn new(id: Option<u64>, name: &'static str, data: &impl Serialize) -> Self {
        Self { id, name, data: serde_json::to_string(data).unwrap_or_default() }
    }

    fn into_event(self) -> Event {
        let event = Event::default().event(self.name).data(self.data);
        match self.id {
            Some(id) => event.id(id.to_string()),
            None => event,
        }
    }
}

/// What a stream tells of.
trait Source: Send + 'static {
    /// What is new; `None` when the stream has come to its end.
    fn look(&mut self, state: &State) -> Option<Vec<Frame>>;
}

/// The events of one batch, oldest first, until it has ended.
///
/// Events: `phase` and `attempt`, numbered; `snapshot`, if events are missing that are not kept any more; `progress`,
/// without number. With `Last-Event-ID` the stream goes on after that event.
#[utoipa::path(
    get, path = "/v1/batches/{id}/events", tag = "events", operation_id = "watch_batch",
    params(
        ("id" = u64, Path, description = "the batch"),
        ("Last-Event-ID" = Option<u64>, Header, description = "the last event that was received"),
    ),
    responses(
        (status = 200, body = EventView, content_type = "text/event-stream"),
        (status = "4XX", body = Problem), (status = 503, body = Problem),
    ),
)]
pub(crate) async fn batch(
    Extract(app): Extract<SharedApp>,
    viewer: Viewer,
    BatchPath(id): BatchPath,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let wrong = |_| Problem::with(Code::InvalidRequest, "header last-event-id is not a number");
    let after =
        header_text(&headers, "last-event-id")?.map(|text| text.parse().map_err(wrong)).transpose()?;
    if viewer.history(&*app.read().await?, id).is_none() {
        return Err(Problem::new(Code::NotFound));
    }
    open(app, viewer.id, BatchSource { viewer, id, after: after.unwrap_or(0), progress: None })
}

/// The tenant's newest batches, for an operator's key those of all, again whenever one of them changes.
///
/// Events: `batches`, each the whole first page of the list.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "watch_batches",
    responses(
        (status = 200, body = BatchList, content_type = "text/event-stream"),
        (status = "4XX", body = Problem), (status = 503, body = Problem),
    ),
)]
pub(crate) async fn all(
    Extract(app): Extract<SharedApp>,
    viewer: Viewer,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    open(app, viewer.id, ListSource { viewer, last: None })
}

struct BatchSource {
    viewer: Viewer,
    id: BatchId,
    after: u64,
    progress: Option<(Instant, EventView)>,
}

impl Source for BatchSource {
    fn look(&mut self, state: &State) -> Option<Vec<Frame>> {
        let history = self.viewer.history(state, self.id)?;
        let mut frames = Vec::new();
        match history.after(self.after) {
            Some(notices) => frames.extend(notices.map(|notice| {
                let view = EventView::of(notice);
                Frame::new(Some(notice.seq), view.name(), &view)
            })),
            None => {
                let batch = Box::new(BatchView::of(self.id, history));
                let view = EventView::Snapshot { batch };
                frames.push(Frame::new(Some(history.last_seq()), view.name(), &view));
            }
        }
        let is_new = history.last_seq() > self.after;
        self.after = history.last_seq();
        if history.phase.is_terminal() {
            // The stream ends once everything has been sent.
            return (is_new || !frames.is_empty()).then_some(frames);
        }
        frames.extend(self.progress(state, history));
        Some(frames)
    }
}

impl BatchSource {
    fn progress(&mut self, state: &State, history: &crate::state::History) -> Option<Frame> {
        let now = Instant::now();
        if self.progress.as_ref().is_some_and(|(at, _)| now.saturating_duration_since(*at) < PROGRESS_TIME) {
            return None;
        }
        let view = EventView::Progress {
            tasks_done: history.accepted,
            tasks_running: history.running,
            eta_ms: state.machine().eta(self.id).map(|time| time.0),
        };
        let is_new = self.progress.as_ref().is_none_or(|(_, last)| *last != view);
        self.progress = Some((now, view.clone()));
        is_new.then(|| Frame::new(None, view.name(), &view))
    }
}

struct ListSource {
    viewer: Viewer,
    last: Option<BatchList>,
}

impl Source for ListSource {
    fn look(&mut self, state: &State) -> Option<Vec<Frame>> {
        let list = page(state, self.viewer, PAGE, &ListQuery::default());
        if self.last.as_ref() == Some(&list) {
            return Some(Vec::new());
        }
        let frame = Frame::new(None, "batches", &list);
        self.last = Some(list);
        Some(vec![frame])
    }
}

struct Live<S> {
    app: SharedApp,
    source: S,
    changes: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
    frames: VecDeque<Frame>,
    looked: Option<Instant>,
    spoke: Instant,
    _place: Place,
}

type Item = Result<Event, Infallible>;

fn open<S: Source>(
    app: SharedApp,
    tenant: TenantId,
    source: S,
) -> Result<Sse<impl Stream<Item = Item>>, Problem> {
    let full = || Problem::with(Code::Overloaded, "too many event streams").retry_after(10);
    let place = app.streams.place(tenant).ok_or_else(full)?;
    let live = Live {
        changes: app.parts.shared.watch(),
        stop: app.parts.stop.clone(),
        app,
        source,
        frames: VecDeque::new(),
        looked: None,
        spoke: Instant::now(),
        _place: place,
    };
    Ok(Sse::new(stream::unfold(live, |mut live| async move {
        let event = live.next().await?;
        live.spoke = Instant::now();
        Some((Ok(event), live))
    })))
}

impl<S: Source> Live<S> {
    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame.into_event());
            }
            if *self.stop.borrow() || self.stop.has_changed().is_err() {
                return None;
            }
            if self.looked.is_some() {
                self.wait().await;
            }
            if self.spoke.elapsed() >= self.app.limits.keep_alive {
                return Some(Event::default().comment(""));
            }
            self.changes.mark_unchanged();
            // While another coordinator takes over there is no state; then nothing is new.
            if let Ok(state) = self.app.parts.shared.read().await {
                self.frames.extend(self.source.look(&state)?);
            }
            self.looked = Some(Instant::now());
        }
    }

    /// Waits until there may be something new, or something to be done.
    async fn wait(&mut self) {
        let pause = self
            .looked
            .map_or(Duration::ZERO, |at| self.app.limits.stream_pause.saturating_sub(at.elapsed()));
        let changed = async {
            tokio::time::sleep(pause).await;
            // Gone only together with the process.
            let _ = self.changes.changed().await;
        };
        tokio::select! {
            () = changed => {}
            _ = self.stop.changed() => {}
            () = tokio::time::sleep(NAP.min(self.app.limits.keep_alive)) => {}
        }
    }
}
