//! What operators and their machines ask: health, readiness, version, metrics, the API's description.

use std::time::Duration;

use axum::extract::State as Extract;
use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::Json;
use super::SharedApp;
use crate::metrics;
use crate::shared::Role;
use crate::state::FORMAT;

/// Silence of the queue after which a coordinator is not ready.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long a scrape waits for the queue and the store.
const SCRAPE_TIME: Duration = Duration::from_secs(2);

/// The process is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    status: String,
}

/// Whether the process can serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Ready {
    /// Whether it can.
    ready: bool,
    /// `leading`, `standby`, or `starting` while the queue has not been reached.
    role: String,
    /// The term, if it leads.
    epoch: Option<u64>,
    /// Why it cannot; if it can, what it leaves to a coordinator of another version.
    reasons: Vec<String>,
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Version {
    /// Version of the program.
    version: String,
    /// Version of its stored state.
    format: u32,
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/health", tag = "system", security(()), responses((status = 200, body = Health)))]
pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "ok".into() })
}

/// Whether the process can serve: it knows the state, and the queue answers.
#[utoipa::path(
    get, path = "/ready", tag = "system", security(()),
    responses((status = 200, body = Ready), (status = 503, body = Ready)),
)]
pub(crate) async fn ready(Extract(app): Extract<SharedApp>) -> Response {
    let shared = &app.parts.shared;
    let (mut reasons, mut left) = (Vec::new(), Vec::new());
    match shared.read().await {
        Ok(state) => left = shared.left(&state),
        Err(error) => reasons.push(error.to_string()),
    }
    match shared.silence() {
        Some(silence) if silence > SILENCE_MAX => {
            reasons.push(format!("the queue has not answered for {} s", silence.as_secs()));
        }
        Some(_) => {}
        None => reasons.push("the queue has never answered".into()),
    }
    let (role, epoch) = match shared.role() {
        Role::Leading { epoch } => ("leading", Some(epoch)),
        Role::Standby => ("standby", None),
    };
    let is_ready = reasons.is_empty();
    reasons.append(&mut left);
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready: is_ready, role: role.into(), epoch, reasons })).into_response()
}

/// An answer of `/ready` that says no.
pub(crate) fn unready(role: &str, reasons: Vec<String>) -> Response {
    let body = Json(Ready { ready: false, role: role.into(), epoch: None, reasons });
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// What runs.
#[utoipa::path(get, path = "/version", tag = "system", security(()), responses((status = 200, body = Version)))]
pub(crate) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION").into(), format: FORMAT })
}

/// Metrics in the OpenMetrics text format.
#[utoipa::path(
    get, path = "/metrics", tag = "system", security(()),
    responses((status = 200, body = String, content_type = "application/openmetrics-text")),
)]
pub(crate) async fn metrics(Extract(app): Extract<SharedApp>) -> Response {
    let parts = &app.parts;
    let role = parts.shared.role();
    let (mut queue, mut store) = (None, None);
    if role != Role::Standby {
        queue = tokio::time::timeout(SCRAPE_TIME, parts.queue.health()).await.ok().and_then(Result::ok);
        store = tokio::time::timeout(SCRAPE_TIME, parts.store.usage()).await.ok().and_then(Result::ok);
    }
    let state = parts.shared.read().await;
    let text = parts.metrics.text(role, state.as_deref().ok(), queue.as_ref(), store.as_ref());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "system", security(()),
    responses((status = 200, content_type = "application/json")),
)]
pub(crate) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(super::document())
}
