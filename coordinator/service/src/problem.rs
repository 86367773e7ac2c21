//! Errors of the API: `application/problem+json` (RFC 9457) with codes that do not change.

use axum::http::{header, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// What went wrong. Clients may rely on these names; new ones may be added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $code)] $name,)*
        }

        impl Code {
            /// All codes, for tests and documentation.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The code as it is sent.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code),* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> StatusCode {
                match self { $(Code::$name => StatusCode::$status),* }
            }

            /// One line that does not depend on the request.
            pub fn title(self) -> &'static str {
                match self { $(Code::$name => $title),* }
            }
        }
    };
}

codes! {
    /// A header, a query parameter or a path segment is not what it has to be.
    InvalidRequest = "invalid_request", BAD_REQUEST, "The request is malformed";
    /// The body is not a batch.
    InvalidBatch = "invalid_batch", UNPROCESSABLE_ENTITY, "The body is not a valid batch";
    /// No key, or one that nobody has.
    Unauthorized = "unauthorized", UNAUTHORIZED, "A valid API key is needed";
    /// An operator's key where a tenant's is needed.
    Forbidden = "forbidden", FORBIDDEN, "The key may not do this";
    /// No such thing, or another tenant's.
    NotFound = "not_found", NOT_FOUND, "There is nothing here";
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// The idempotency key was used with another body or other settings.
    KeyReused = "idempotency_key_reused", CONFLICT, "The idempotency key belongs to another batch";
    /// The batch does not continue its chain.
    OutOfSequence = "out_of_sequence", CONFLICT, "The batch does not continue its chain";
    /// The chain belongs to somebody else, or its history is lost.
    ChainUnavailable = "chain_unavailable", CONFLICT, "The chain cannot take this batch";
    /// The batch has ended, or is being settled.
    NotCancellable = "not_cancellable", CONFLICT, "The batch cannot be cancelled any more";
    /// The result is not there yet, or will never be.
    NoResult = "no_result", CONFLICT, "The batch has no result";
    /// The deadline has passed already.
    DeadlinePassed = "deadline_passed", UNPROCESSABLE_ENTITY, "The deadline has passed";
    /// The callback is not a URL that may be called.
    InvalidCallback = "invalid_callback", UNPROCESSABLE_ENTITY, "The callback URL is not allowed";
    /// The body is larger than allowed.
    TooLarge = "too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The body came too slowly.
    Timeout = "timeout", REQUEST_TIMEOUT, "The request took too long";
    /// The tenant has as many batches or bytes in work as it may have.
    QuotaExceeded = "quota_exceeded", TOO_MANY_REQUESTS, "The quota is used up";
    /// Too many requests.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// The whole service is full.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The service is full";
    /// Nobody leads, or the answer did not come in time; the request may be repeated.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The service is not available now";
    /// A bug. The log has more.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error";
}

/// By hand, because the derivation does not see through the macro that names the codes.
impl utoipa::PartialSchema for Code {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::schema::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .description(Some("What went wrong. Clients may rely on these names; new ones may be added."))
            .into()
    }
}

impl ToSchema for Code {}

/// An error as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:assay:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// One line that does not depend on the request.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Names the case; does not change between versions.
    pub code: Code,
    /// What is wrong with this request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The batch it is about, where there is one the caller may see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u64>,
    /// Seconds after which another try makes sense; also sent as `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem without more to say.
    pub fn new(code: Code) -> Self {
        Self {
            kind: format!("urn:assay:problem:{}", code.as_str()),
            title: code.title().into(),
            status: code.status().as_u16(),
            code,
            detail: String::new(),
            batch: None,
            retry_after: None,
        }
    }

    /// A problem and what is wrong with this request.
    pub fn with(code: Code, detail: impl std::fmt::Display) -> Self {
        Self { detail: detail.to_string(), ..Self::new(code) }
    }

    /// The batch it is about.
    pub fn about(mut self, batch: u64) -> Self {
        self.batch = Some(batch);
        self
    }

    /// When another try makes sense.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_survive_json() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code:?}");
            let problem = Problem::with(*code, "detail").about(7).retry_after(3);
            let back: Problem = serde_json::from_slice(&serde_json::to_vec(&problem).unwrap()).unwrap();
            assert_eq!(back, problem);
            assert!(problem.kind.ends_with(code.as_str()));
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }
}
