//! The HTTP API.
//!
//! Every coordinator serves it, leading or not: reads come from the state that it follows, writes go through the leader's
//! inbox and are answered when the record that grants or refuses them is committed. Every error is a
//! [`Problem`].

mod batches;
mod doc;
mod events;
mod extract;
pub(crate) mod files;
mod linger;
mod streams;
mod submit;
pub(crate) mod system;
mod uploads;
pub mod view;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_queue::{ArtifactStore, TaskQueue};
use axum::extract::{Request, State as Extract};
use axum::http::{header, HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::Router;
use futures::FutureExt;
use tokio::sync::{watch, Semaphore};
use tracing::Instrument;

pub use self::doc::document;
use self::streams::Streams;
use self::uploads::Uploads;
use crate::keys::KeyRing;
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::page;
use crate::problem::{Code, Problem};
use crate::request::{ClusterKey, Command, Post, Request as Question, RequestId};
use crate::shared::{ReadError, Shared};
use crate::state::{Outcome, Refusal, Reply};
use crate::webhook::CallbackPolicy;
use crate::work::BatchReader;

/// Bounds of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiLimits {
    /// Largest body of a submission.
    pub body_bytes_max: u64,
    /// Bytes of all bodies that are being read; one tenant's have half of it, or one body.
    pub uploads_bytes_max: u64,
    /// Longest pause within a body.
    pub body_pause: Duration,
    /// Time that a body may take however slow it is; beyond it [`ApiLimits::body_rate_min`] holds.
    pub body_grace: Duration,
    /// Bytes per second that a body has to have on average.
    pub body_rate_min: u64,
    /// How long a write waits for the leader.
    pub answer_time: Duration,
    /// Batches that are examined at the same time.
    pub examinations_max: usize,
    /// Event streams at the same time.
    pub streams_max: usize,
    /// Those of one tenant.
    pub tenant_streams_max: usize,
    /// Shortest time between two looks of a stream at the state.
    pub stream_pause: Duration,
    /// Silence after which a stream sends a comment, so that proxies keep it open.
    pub keep_alive: Duration,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 256 << 20,
            uploads_bytes_max: 1 << 30,
            body_pause: Duration::from_secs(10),
            body_grace: Duration::from_secs(30),
            body_rate_min: 64 << 10,
            answer_time: Duration::from_secs(15),
            examinations_max: 2,
            streams_max: 256,
            tenant_streams_max: 64,
            stream_pause: Duration::from_millis(100),
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// What the API is made of.
pub struct ApiParts {
    /// The state, and who waits for answers.
    pub shared: Arc<Shared>,
    /// For the leader's inbox.
    pub queue: Arc<dyn TaskQueue>,
    /// For payloads and results.
    pub store: Arc<dyn ArtifactStore>,
    /// Checks batches.
    pub reader: Arc<dyn BatchReader>,
    /// Who may ask.
    pub keys: Arc<KeyRing>,
    /// What requests to the leader are authenticated with.
    pub cluster: ClusterKey,
    /// Counted into, and shown.
    pub metrics: Arc<Metrics>,
    /// Where callbacks may go.
    pub callbacks: CallbackPolicy,
    /// Holds `true`, or is dropped, when the process is to stop: event streams then end.
    pub stop: watch::Receiver<bool>,
}

/// The API's state.
pub(crate) struct App {
    parts: ApiParts,
    limits: ApiLimits,
    limiter: Limiter,
    uploads: Uploads,
    examinations: Arc<Semaphore>,
    streams: Streams,
}

type SharedApp = Arc<App>;

/// The routes.
pub fn router(parts: ApiParts, limits: ApiLimits) -> Router {
    let app = Arc::new(App {
        parts,
        limits,
        limiter: Limiter::default(),
        uploads: Uploads::new(limits.uploads_bytes_max, limits.body_bytes_max),
        examinations: Arc::new(Semaphore::new(limits.examinations_max.max(1))),
        streams: Streams::new(limits.streams_max, limits.tenant_streams_max),
    });
    Router::new()
        .route("/v1/batches", get(batches::list).post(submit::submit))
        .route("/v1/batches/{id}", get(batches::detail).delete(batches::cancel))
        .route("/v1/batches/{id}/proof", get(files::proof))
        .route("/v1/batches/{id}/files", get(files::list))
        .route("/v1/batches/{id}/files/{name}", get(files::file))
        .route("/v1/batches/{id}/events", get(events::batch))
        .route("/v1/events", get(events::all))
        .route("/v1/workers", get(batches::workers))
        .route("/health", get(system::health))
        .route("/ready", get(system::ready))
        .route("/version", get(system::version))
        .route("/metrics", get(system::metrics))
        .route("/openapi.json", get(system::openapi))
        .route("/", get(page::index))
        .route("/page.js", get(page::script))
        .route("/page.css", get(page::style))
        .fallback(|| async { Problem::new(Code::NotFound) })
        .method_not_allowed_fallback(|| async { Problem::new(Code::MethodNotAllowed) })
        .layer(middleware::from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Around every request: a bug is an answer, every answer is counted and has the headers that all have.
async fn around(Extract(app): Extract<SharedApp>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = route_name(request.uri().path());
    let handled = next.run(linger::over(request)).instrument(tracing::info_span!("request", route));
    let mut response = match AssertUnwindSafe(handled).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(route, "a handler panicked");
            Problem::new(Code::Internal).into_response()
        }
    };
    secure(&mut response);
    app.parts.metrics.http(route, response.status().as_u16(), begun.elapsed());
    response
}

/// Sets the headers that all answers have.
pub(crate) fn secure(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in SECURITY {
        headers.insert(name, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

const SECURITY: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
];

/// A route's name in metrics; there are few, whatever is asked for.
fn route_name(path: &str) -> &'static str {
    let mut parts = path.split('/').skip(1);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("v1"), Some("batches"), None | Some(""), None) => "batches",
        (Some("v1"), Some("batches"), Some(_), None) => "batch",
        (Some("v1"), Some("batches"), Some(_), Some("events")) => "events",
        (Some("v1"), Some("batches"), Some(_), Some("proof" | "files")) => "files",
        (Some("v1"), Some("events"), None, None) => "events",
        (Some("v1"), Some("workers"), None, None) => "workers",
        (Some("health" | "ready" | "version" | "metrics" | "openapi.json"), None, None, None) => "system",
        (Some("" | "page.js" | "page.css"), None, None, None) => "page",
        _ => "other",
    }
}

impl App {
    async fn read(&self) -> Result<tokio::sync::RwLockReadGuard<'_, crate::state::State>, Problem> {
        self.parts.shared.read().await.map_err(unavailable)
    }

    /// Has the leader decide, and waits until its decision is committed.
    async fn ask(&self, command: Command) -> Result<Reply, Problem> {
        let id = RequestId::random();
        let too_many =
            || Problem::with(Code::Overloaded, "too many requests wait for the leader").retry_after(1);
        let answer = self.parts.shared.expect(id).ok_or_else(too_many)?;
        let post = self.parts.cluster.seal(&Post::Request(Box::new(Question { id, command })));
        let posted = tokio::time::timeout(self.limits.answer_time, self.parts.queue.post(post)).await;
        let waited = match posted {
            Ok(Ok(_)) => {
                tokio::time::timeout(self.limits.answer_time, answer).await.ok().and_then(Result::ok)
            }
            Ok(Err(error)) => {
                self.parts.shared.forget(id);
                tracing::warn!(%error, "a request cannot be posted");
                return Err(
                    Problem::with(Code::Unavailable, "the queue does not take the request").retry_after(5)
                );
            }
            Err(_) => None,
        };
        self.parts.shared.forget(id);
        let late = || {
            let detail =
                "no coordinator has answered in time; the request may still be granted, so repeat it with \
                          the same idempotency key";
            Problem::with(Code::Unavailable, detail).retry_after(5)
        };
        waited.ok_or_else(late).and_then(|outcome: Outcome| outcome.map_err(|refusal| refused(&refusal)))
    }
}

fn unavailable(error: ReadError) -> Problem {
    Problem::with(Code::Unavailable, error).retry_after(2)
}

/// A refusal as a problem.
fn refused(refusal: &Refusal) -> Problem {
    use assay_schedule::Error;
    let error = match refusal {
        Refusal::Quota { .. } => return Problem::with(Code::QuotaExceeded, refusal).retry_after(30),
        Refusal::NotStored => return Problem::with(Code::Unavailable, refusal).retry_after(1),
        Refusal::Schedule(error) => error,
    };
    match error {
        Error::KeyReused { batch } => Problem::with(Code::KeyReused, error).about(batch.0),
        Error::ForeignChain { .. } => {
            Problem::with(Code::ChainUnavailable, "the chain belongs to another tenant")
        }
        Error::HistoryLost { .. } => Problem::with(Code::ChainUnavailable, error),
        Error::Sequence { .. } | Error::State { .. } => Problem::with(Code::OutOfSequence, error),
        Error::DeadlinePassed { .. } => Problem::with(Code::DeadlinePassed, "the hard deadline has passed"),
        Error::UnknownBatch { .. } => Problem::new(Code::NotFound),
        Error::Ended { batch } | Error::Settling { batch } => {
            Problem::with(Code::NotCancellable, error).about(batch.0)
        }
        Error::Limit { .. } => Problem::with(Code::Overloaded, error).retry_after(30),
        Error::NoLeader => Problem::with(Code::Unavailable, error).retry_after(2),
        _ => {
            tracing::error!(%error, "a request was refused for an unexpected reason");
            Problem::new(Code::Internal)
        }
    }
}
