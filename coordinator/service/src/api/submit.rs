//! Submission of a batch.
//!
//! The body is read within bounds, checked, and stored under a hold of its own before the leader hears of it; if the
//! leader refuses, it lets go of the hold.

use std::sync::Arc;

use assay_queue::StoreError;
use assay_schedule::{Hash, TenantId, Time, TEXT_BYTES_MAX};
use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::extract::{header_text, Auth, Json};
use super::uploads::Room;
use super::view::Submitted;
use super::{App, SharedApp};
use crate::keys::Tenant;
use crate::names;
use crate::problem::{Code, Problem};
use crate::request::{Command, Quota, Submit};
use crate::state::Reply;
use crate::work::BatchFacts;

const KEY: &str = "idempotency-key";
const PRIORITY: &str = "x-assay-priority";
const DEADLINE: &str = "x-assay-deadline";
const CALLBACK: &str = "x-assay-callback";
/// Priority of a batch that does not ask for one.
const PRIORITY_USUAL: u8 = 100;
/// Longest wait for room to read a body.
const ROOM_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// What the headers ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wishes {
    key: Option<String>,
    priority: u8,
    deadline: Option<Time>,
    deadline_is_hard: bool,
    callback: Option<String>,
}

/// Submits a batch.
///
/// The same key with the same body and the same headers gives the same batch again, with status 200; anything else under a
/// used key is refused.
#[utoipa::path(
    post, path = "/v1/batches", tag = "batches", operation_id = "submit_batch",
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "the batch file"),
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "1 to 256 visible ASCII characters; if absent, the hash of the body"),
        ("X-Assay-Priority" = Option<u8>, Header, description = "0 to 255, higher goes first; 100 if absent"),
        ("X-Assay-Deadline" = Option<String>, Header,
            description = "milliseconds since the Unix epoch; with `; hard` the batch is worthless afterwards"),
        ("X-Assay-Callback" = Option<String>, Header, description = "URL that is told about the end"),
    ),
    responses(
        (status = 201, body = Submitted, description = "taken"),
        (status = 200, body = Submitted, description = "was taken before"),
        (status = "4XX", body = Problem), (status = 503, body = Problem),
    ),
)]
pub(crate) async fn submit(
    Extract(app): Extract<SharedApp>,
    Auth(tenant): Auth,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let wishes = wishes(&parts.headers)?;
    if let Some(url) = &wishes.callback {
        let refuse = |reason: &dyn std::fmt::Display| Problem::with(Code::InvalidCallback, reason);
        app.parts.callbacks.check(url).map_err(|error| refuse(&error))?;
        if tenant.webhook_secret.is_none() {
            return Err(refuse(&"the tenant has no webhook_secret"));
        }
    }
    let length = content_length(&parts.headers)?;
    let bytes_max = app.limits.body_bytes_max;
    if length.is_some_and(|length| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let room = app.uploads.room(tenant.id, length.unwrap_or(bytes_max));
    let Ok(Some(room)) = tokio::time::timeout(ROOM_TIME, room).await else {
        return Err(Problem::with(Code::Overloaded, "too many bodies are being read").retry_after(5));
    };
    if let Some(key) = &wishes.key {
        check_quota(&app, &tenant, key, length.unwrap_or(0)).await?;
    }
    let bytes = read_body(&app, body, length).await?;
    let body = hashed(Payload { bytes, room }).await?;
    let key = wishes.key.clone().unwrap_or_else(|| key_of(&body.1));
    check_quota(&app, &tenant, &key, body.0.bytes.len() as u64).await?;
    let (payload, facts) = examine(&app, body.0).await?;
    let mut submit = as_submit(&tenant, wishes, key, &facts, body.1, payload.bytes.len() as u64);
    // A payload whose key is known is only compared.
    submit.is_stored = !is_known(&app, submit.tenant, &submit.key).await?;
    if submit.is_stored {
        store(&app, &submit, payload).await?;
    }
    let reply = app.ask(Command::Submit(submit)).await?;
    let Reply::Submitted { batch, is_repeated } = reply else {
        return Err(Problem::new(Code::Internal));
    };
    let status = if is_repeated { StatusCode::OK } else { StatusCode::CREATED };
    let location = [(header::LOCATION, format!("/v1/batches/{batch}"))];
    Ok((status, location, Json(Submitted { id: batch.0, repeated: is_repeated })).into_response())
}

fn too_large(max: u64) -> Problem {
    Problem::with(Code::TooLarge, format!("a body is limited to {max} bytes"))
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let wrong = || Problem::with(Code::InvalidRequest, "header content-length is not a number");
    header_text(headers, "content-length")?.map(|text| text.parse().map_err(|_| wrong())).transpose()
}

/// What the headers ask for.
pub(crate) fn wishes(headers: &HeaderMap) -> Result<Wishes, Problem> {
    let wrong = |name, what| Problem::with(Code::InvalidRequest, format!("header {name} {what}"));
    let key = header_text(headers, KEY)?.map(ToOwned::to_owned);
    if key.as_ref().is_some_and(|key| !(1..=TEXT_BYTES_MAX).contains(&key.len())) {
        return Err(wrong(KEY, "has 1 to 256 characters"));
    }
    let priority = match header_text(headers, PRIORITY)? {
        None => PRIORITY_USUAL,
        Some(text) => text.parse().map_err(|_| wrong(PRIORITY, "is a number from 0 to 255"))?,
    };
    let (deadline, deadline_is_hard) = match header_text(headers, DEADLINE)? {
        None => (None, false),
        Some(text) => {
            let (number, rest) = text.split_once(';').unwrap_or((text, ""));
            let is_hard = match rest.trim() {
                "" if !text.contains(';') => false,
                "hard" => true,
                _ => {
                    return Err(wrong(
                        DEADLINE,
                        "is milliseconds since the Unix epoch, then nothing or `; hard`",
                    ))
                }
            };
            let time =
                number.trim().parse().map_err(|_| wrong(DEADLINE, "is milliseconds since the Unix epoch"))?;
            (Some(Time(time)), is_hard)
        }
    };
    let callback = header_text(headers, CALLBACK)?.map(ToOwned::to_owned);
    Ok(Wishes { key, priority, deadline, deadline_is_hard, callback })
}

/// Reads a body, as long as it comes fast enough and is not too large.
async fn read_body(app: &App, mut body: Body, length: Option<u64>) -> Result<Vec<u8>, Problem> {
    let limits = &app.limits;
    let begun = Instant::now();
    // Room is asked for as it comes: a length is only a promise.
    let mut bytes = Vec::with_capacity(length.unwrap_or(0).min(1 << 20) as usize);
    loop {
        let earned = std::time::Duration::from_secs(bytes.len() as u64 / limits.body_rate_min.max(1));
        let until = (Instant::now() + limits.body_pause).min(begun + limits.body_grace + earned);
        let slow = || Problem::with(Code::Timeout, "the body came too slowly");
        let frame = tokio::time::timeout_at(until, body.frame()).await.map_err(|_| slow())?;
        let Some(frame) = frame else { break };
        // The peer went away, or broke the encoding.
        let broken = |_| Problem::with(Code::InvalidRequest, "the body ended too early or is malformed");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() as u64 + data.len() as u64 > limits.body_bytes_max {
            return Err(too_large(limits.body_bytes_max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// A body, with its share of the memory for bodies: whoever has the one has the other, also when the peer has gone away.
struct Payload {
    bytes: Vec<u8>,
    room: Room,
}

/// The key of a submission that names none.
fn key_of(payload: &Hash) -> String {
    format!("blake3-{}", hex::encode(payload.0))
}

/// Hashes a body on a thread that may block.
async fn hashed(payload: Payload) -> Result<(Payload, Hash), Problem> {
    let hashed = tokio::task::spawn_blocking(move || {
        let hash = Hash(*blake3::hash(&payload.bytes).as_bytes());
        (payload, hash)
    });
    hashed.await.map_err(|_| Problem::new(Code::Internal))
}

/// Refuses what the leader would refuse, before anything costly is done with it. A key that is known is a repetition.
async fn check_quota(app: &App, tenant: &Tenant, key: &str, bytes: u64) -> Result<(), Problem> {
    let quota = Quota { batches_max: tenant.batches_max, bytes_max: tenant.bytes_max };
    let state = app.read().await?;
    if state.machine().batch_by_key(tenant.id, key).is_some() {
        return Ok(());
    }
    state.check_quota(tenant.id, &quota, bytes).map_err(|refusal| super::refused(&refusal))
}

/// Checks a batch on a thread that may block, a few at a time.
async fn examine(app: &SharedApp, payload: Payload) -> Result<(Payload, BatchFacts), Problem> {
    let reader = Arc::clone(&app.parts.reader);
    let place = Arc::clone(&app.examinations).acquire_owned().await;
    let place = place.map_err(|_| Problem::new(Code::Internal))?;
    let examined = tokio::task::spawn_blocking(move || {
        let facts = reader.read(&payload.bytes);
        drop(place);
        Ok((payload, facts?))
    });
    let refused = |refusal: crate::work::BatchRefusal| Problem::with(Code::InvalidBatch, refusal);
    match examined.await {
        Ok(result) => result.map_err(refused),
        Err(error) => {
            tracing::error!(%error, "the batch reader panicked");
            Err(Problem::with(Code::InvalidBatch, "the batch cannot be read"))
        }
    }
}

fn as_submit(
    tenant: &Tenant,
    wishes: Wishes,
    key: String,
    facts: &BatchFacts,
    payload: Hash,
    payload_bytes: u64,
) -> Submit {
    Submit {
        tenant: tenant.id,
        key,
        chain: facts.chain,
        from: Hash(facts.from),
        to: Hash(facts.to),
        payload,
        payload_bytes,
        units: facts.units,
        version: facts.version,
        priority: wishes.priority,
        deadline: wishes.deadline,
        deadline_is_hard: wishes.deadline_is_hard,
        callback: wishes.callback,
        quota: Quota { batches_max: tenant.batches_max, bytes_max: tenant.bytes_max },
        submission: (rand::random(), rand::random()),
        is_stored: false,
    }
}

/// Stores the payload under this submission's own name. Goes on when the peer goes away: so does its share of memory.
async fn store(app: &App, submit: &Submit, payload: Payload) -> Result<(), Problem> {
    let holder = names::holder(submit.spec(0).holder());
    let store = Arc::clone(&app.parts.store);
    let put = tokio::spawn(async move {
        let Payload { bytes, room } = payload;
        let put = store.put(&holder, bytes).await;
        drop(room);
        put
    });
    match put.await.map_err(|_| Problem::new(Code::Internal))? {
        Ok(_) => Ok(()),
        Err(StoreError::TooLarge { max, .. }) => Err(too_large(max)),
        Err(StoreError::Full { .. }) => {
            Err(Problem::with(Code::Overloaded, "the artifact store is full").retry_after(60))
        }
        Err(error) => {
            tracing::warn!(%error, "a payload cannot be stored");
            Err(Problem::with(Code::Unavailable, "the artifact store cannot be reached").retry_after(5))
        }
    }
}

async fn is_known(app: &App, tenant: TenantId, key: &str) -> Result<bool, Problem> {
    Ok(app.read().await?.machine().batch_by_key(tenant, key).is_some())
}
