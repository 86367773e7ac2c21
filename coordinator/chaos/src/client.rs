//! A client of the cluster's API, as patient as a real one has to be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(6);
/// For which an unused connection is kept: less than the coordinator grants it.
const IDLE_TIME: Duration = Duration::from_secs(5);
const READY_MAX: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(100);

pub(crate) struct Client {
    http: reqwest::Client,
    key: String,
    bases: Vec<String>,
    next: AtomicUsize,
}

/// Why a batch has no number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SubmitError {
    /// The cluster refuses a good batch.
    Refused(String),
    /// Nobody has taken it in time.
    Late(String),
}

impl Client {
    pub(crate) fn new(ports: &[u16], key: String) -> reqwest::Result<Self> {
        let http =
            reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).pool_idle_timeout(IDLE_TIME).build()?;
        let bases = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        Ok(Self { http, key, bases, next: AtomicUsize::new(0) })
    }

    /// Which coordinator says that it leads.
    pub(crate) async fn leader(&self) -> Option<usize> {
        for (number, base) in self.bases.iter().enumerate() {
            let asked = self.http.get(format!("{base}/ready")).timeout(READY_MAX).send().await;
            let Ok(answer) = asked else { continue };
            let Ok(body) = answer.bytes().await else { continue };
            let ready: Option<Value> = serde_json::from_slice(&body).ok();
            if ready.is_some_and(|ready| ready["ready"] == true && ready["role"] == "leading") {
                return Some(number);
            }
        }
        None
    }

    /// One coordinator after the other.
    fn base(&self) -> &str {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        &self.bases[number % self.bases.len()]
    }

    /// Submits a batch under a key until somebody has taken it.
    pub(crate) async fn submit(
        &self,
        key: &str,
        payload: &[u8],
        patience: Duration,
    ) -> Result<u64, SubmitError> {
        let begun = Instant::now();
        loop {
            let last = match self.try_submit(key, payload).await {
                Ok((200 | 201, body)) => match body["id"].as_u64() {
                    Some(id) => return Ok(id),
                    None => return Err(SubmitError::Refused(format!("no number: {body}"))),
                },
                Ok((status @ (408 | 425 | 429 | 500..), body)) => format!("{status} {body}"),
                Ok((status, body)) => return Err(SubmitError::Refused(format!("{status} {body}"))),
                Err(error) => error.to_string(),
            };
            if begun.elapsed() > patience {
                return Err(SubmitError::Late(last));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn try_submit(&self, key: &str, payload: &[u8]) -> reqwest::Result<(u16, Value)> {
        let request = self.http.post(format!("{}/v1/batches", self.base())).bearer_auth(&self.key);
        let answer = request.header("idempotency-key", key).body(payload.to_vec()).send().await?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// The proof of a batch, or what was answered instead.
    pub(crate) async fn proof(&self, batch: u64, patience: Duration) -> Result<Vec<u8>, String> {
        let begun = Instant::now();
        loop {
            let (is_final, last) = match self.try_proof(batch).await {
                Ok((200, body)) => return Ok(body),
                Ok((status, body)) => (status == 500, format!("{status} {}", String::from_utf8_lossy(&body))),
                Err(error) => (false, error.to_string()),
            };
            if is_final || begun.elapsed() > patience {
                return Err(last);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn try_proof(&self, batch: u64) -> reqwest::Result<(u16, Vec<u8>)> {
        let url = format!("{}/v1/batches/{batch}/proof", self.base());
        let answer = self.http.get(url).bearer_auth(&self.key).send().await?;
        Ok((answer.status().as_u16(), answer.bytes().await?.to_vec()))
    }
}
