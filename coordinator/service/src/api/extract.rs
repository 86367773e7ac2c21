//! What handlers take from a request; every rejection is a problem.

use std::sync::Arc;
use std::time::Instant;

use assay_schedule::{BatchId, TenantId};
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{header, HeaderMap};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::Serialize;

use super::App;
use crate::keys::{Caller, Tenant};
use crate::problem::{Code, Problem};
use crate::state::{History, State};

/// The tenant that asks. Takes a token of its bucket.
pub(crate) struct Auth(pub Tenant);

impl FromRequestParts<Arc<App>> for Auth {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        match caller(parts, app)? {
            (tenant, false) => Ok(Self(tenant)),
            (_, true) => {
                let detail = "an operator's key sees all batches and workers, and changes or fetches nothing";
                Err(Problem::with(Code::Forbidden, detail))
            }
        }
    }
}

/// Who looks: a tenant at its own batches, or an operator at those of all. Takes a token of the bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viewer {
    /// The tenant, or [`OPERATOR`](crate::keys::OPERATOR).
    pub id: TenantId,
    is_operator: bool,
}

impl Viewer {
    /// Whether a batch is there for it.
    pub(crate) fn sees(self, history: &History) -> bool {
        self.is_operator || history.spec.tenant == self.id
    }

    /// A batch, if it is there for it.
    pub(crate) fn history(self, state: &State, batch: BatchId) -> Option<&History> {
        state.history(batch).filter(|history| self.sees(history))
    }
}

impl FromRequestParts<Arc<App>> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let (tenant, is_operator) = caller(parts, app)?;
        Ok(Self { id: tenant.id, is_operator })
    }
}

/// Whose the request's key is, and whether it is an operator's.
fn caller(parts: &Parts, app: &App) -> Result<(Tenant, bool), Problem> {
    let denied = || Problem::with(Code::Unauthorized, "send `Authorization: Bearer <key>`");
    let keys = app.parts.keys.get();
    let caller = bearer(&parts.headers).and_then(|key| keys.caller_of(key)).ok_or_else(denied)?;
    let (tenant, is_operator) = match caller {
        Caller::Tenant(tenant) => (tenant, false),
        Caller::Operator(operators) => (operators, true),
    };
    app.limiter.take(tenant, Instant::now()).map_err(|wait| {
        let seconds = wait.as_secs() + 1;
        Problem::with(Code::RateLimited, format!("try again in {seconds} s")).retry_after(seconds)
    })?;
    Ok((tenant.clone(), is_operator))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// The batch of the path. One that cannot be a number is not there.
pub(crate) struct BatchPath(pub BatchId);

impl<S: Send + Sync> FromRequestParts<S> for BatchPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path: Result<Path<Vec<(String, String)>>, _> = Path::from_request_parts(parts, state).await;
        let Path(segments) = path.map_err(|_| Problem::new(Code::NotFound))?;
        let id = segments.iter().find(|(name, _)| name == "id");
        let id = id.and_then(|(_, id)| id.parse().ok()).ok_or_else(|| Problem::new(Code::NotFound))?;
        Ok(Self(BatchId(id)))
    }
}

/// The file of the path.
pub(crate) struct FilePath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for FilePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path: Result<Path<Vec<(String, String)>>, _> = Path::from_request_parts(parts, state).await;
        let Path(segments) = path.map_err(|_| Problem::new(Code::NotFound))?;
        let name = segments.into_iter().find(|(name, _)| name == "name").map(|(_, name)| name);
        name.map(Self).ok_or_else(|| Problem::new(Code::NotFound))
    }
}

/// The query string; unknown parameters are refused.
pub(crate) struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let parsed = serde_urlencoded::from_str(query);
        parsed.map(Self).map_err(|error| Problem::with(Code::InvalidRequest, format!("query: {error}")))
    }
}

/// The only value of a header, as text.
///
/// # Errors
/// A problem if it is there twice or is not text.
pub(crate) fn header_text<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = |what| Problem::with(Code::InvalidRequest, format!("header {name} {what}"));
    if values.next().is_some() {
        return Err(wrong("is there twice"));
    }
    value.to_str().map(|text| Some(text.trim())).map_err(|_| wrong("is not visible ASCII"))
}

/// An answer in JSON.
pub(crate) struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written");
                Problem::new(Code::Internal).into_response()
            }
        }
    }
}
