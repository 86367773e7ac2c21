//! Webhooks: a batch's owner is told, at the URL given at submission, that the batch has ended.
//!
//! One `POST` with a JSON body, signed as [`sign`] describes. Any 2xx answer is a receipt; redirects are not followed.
//! Whatever else happens, the call is repeated after 10 seconds, 20 seconds, … up to an hour, [`TRIES_MAX`] times in all.
//! What is still to be sent is part of the state that coordinators share, so it survives restarts and takeovers; a call
//! whose answer was lost is repeated under the same `webhook-id`.

mod address;
pub mod sign;

use std::time::Duration;

use assay_schedule::BatchId;
use futures::StreamExt;
use serde::Serialize;

use crate::api::view::FailureView;
use crate::state::{phase_name, History};

pub use self::address::{is_public, CallbackError, CallbackPolicy, URL_BYTES_MAX};

/// Tries of one webhook; with the waits between them about 8 hours.
pub const TRIES_MAX: u32 = 15;
const WAIT_MS: u64 = 10_000;
const WAIT_MS_MAX: u64 = 3_600_000;
const TIMEOUT: Duration = Duration::from_secs(15);
/// Read of an answer before the connection is dropped.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Milliseconds before the next try, after `tries` have failed.
pub fn wait_ms(tries: u32) -> u64 {
    WAIT_MS.saturating_mul(1 << tries.saturating_sub(1).min(20)).min(WAIT_MS_MAX)
}

/// Why a call was no success.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// The URL is not allowed, any more.
    #[error(transparent)]
    Callback(#[from] CallbackError),
    /// The tenant has no secret to sign with, any more.
    #[error("the tenant has no webhook_secret")]
    NoSecret,
    /// No answer.
    #[error("no answer: {0}")]
    Http(String),
    /// An answer that is no success.
    #[error("answered with status {0}")]
    Status(u16),
}

/// A message to a batch's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub url: String,
    /// The same for every try.
    pub id: String,
    /// JSON.
    pub body: Vec<u8>,
}

/// The message that tells of a batch's end. The same for every try, on every coordinator.
pub fn message(batch: BatchId, history: &History, url: &str) -> Message {
    let phase = phase_name(&history.phase);
    let body = Body {
        kind: format!("batch.{phase}"),
        timestamp_ms: history.ended.unwrap_or(history.submitted).0,
        data: BodyData {
            batch: batch.0,
            idempotency_key: &history.spec.key,
            chain: history.spec.chain.0,
            sequence: history.spec.sequence,
            phase,
            failure: FailureView::of(&history.phase),
        },
    };
    let body = crate::wire::json(&body);
    // Numbers begin again in another deployment, so the time is part of the name.
    Message { url: url.to_owned(), id: format!("batch_{batch}_{}", history.submitted.0), body }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    timestamp_ms: u64,
    data: BodyData<'a>,
}

#[derive(Serialize)]
struct BodyData<'a> {
    batch: u64,
    idempotency_key: &'a str,
    chain: u64,
    sequence: u64,
    phase: &'static str,
    failure: Option<FailureView>,
}

/// Sends webhooks.
#[derive(Clone, Debug)]
pub struct Sender {
    client: reqwest::Client,
    policy: CallbackPolicy,
}

impl Sender {
    /// A sender under a policy.
    ///
    /// # Errors
    /// [`DeliveryError::Http`] if TLS cannot be set up.
    pub fn new(policy: CallbackPolicy) -> Result<Self, DeliveryError> {
        let client = reqwest::Client::builder()
            .dns_resolver(address::resolver(policy))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("assay/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { client: client.map_err(|error| DeliveryError::Http(error.to_string()))?, policy })
    }

    /// The policy.
    pub fn policy(&self) -> CallbackPolicy {
        self.policy
    }

    /// Makes one call. `timestamp`: seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`DeliveryError`]; never holds the URL.
    pub async fn send(&self, message: &Message, secret: &[u8], timestamp: u64) -> Result<(), DeliveryError> {
        let url = self.policy.check(&message.url)?;
        let signature = sign::signature(secret, &message.id, timestamp, &message.body);
        let request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", signature)
            .body(message.body.clone());
        let answer = request.send().await.map_err(http)?;
        let status = answer.status();
        // Read on a little, so that the other side can finish; what it says is not looked at.
        let mut stream = answer.bytes_stream();
        let mut read = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            read += chunk.len();
            if read > ANSWER_BYTES_MAX {
                break;
            }
        }
        if status.is_success() {
            return Ok(());
        }
        Err(DeliveryError::Status(status.as_u16()))
    }
}

fn http(error: reqwest::Error) -> DeliveryError {
    // The URL may hold a secret of the receiver's.
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    DeliveryError::Http(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour() {
        assert_eq!(
            [1, 2, 3, 9, 10, 64].map(wait_ms),
            [10_000, 20_000, 40_000, 2_560_000, 3_600_000, 3_600_000]
        );
        let total: u64 = (1..TRIES_MAX).map(wait_ms).sum();
        assert!((6 * 3_600_000..9 * 3_600_000).contains(&total), "{total}");
    }

    #[tokio::test]
    async fn a_callback_into_the_own_network_is_refused_before_it_is_made() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sender = Sender::new(CallbackPolicy::default()).unwrap();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let message =
                Message { url: format!("https://{host}:{port}/"), id: "m".into(), body: b"{}".to_vec() };
            let error = sender.send(&message, b"secret", 1).await.unwrap_err();
            assert!(matches!(error, DeliveryError::Callback(CallbackError::Private)), "{error}");
        }
        let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(accepted.is_err(), "somebody connected");
    }
}
