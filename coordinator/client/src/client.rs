//! The calls of the API.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue, AUTHORIZATION};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{ClientError, Problem};
use crate::sse::{Frame, Parser};
use crate::wire::{BatchList, Detail, File, Submitted, WorkerList};

/// Largest answer in JSON, in bytes.
const JSON_BYTES_MAX: usize = 64 << 20;
/// Largest file of a result, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 512 << 20;
/// Largest key file, in bytes.
const KEY_BYTES_MAX: usize = 256;
/// Longest wait for a connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// For which an unused connection is kept: half of what the coordinator grants it (`ServerLimits::header_time`), for a request
/// that is sent while the other side closes is reset.
const IDLE_TIME: Duration = Duration::from_secs(5);
/// Longest silence of a coordinator; event streams have a comment every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Slowest upload that is waited for, in bytes per second; the coordinator asks for as much.
const UPLOAD_RATE_MIN: u64 = 64 << 10;

/// Where a coordinator is and who asks.
#[derive(Clone, Default)]
pub struct Remote {
    /// `https://host[:port][/prefix]`, or `http` within a closed network.
    pub url: String,
    /// The API key.
    pub key: String,
    /// PEM file with certificates to trust besides the usual ones.
    pub ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for Remote {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("url", &self.url)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

/// What a submission asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Idempotency key; absent: the hash of the batch.
    pub key: Option<String>,
    /// Higher goes first.
    pub priority: Option<u8>,
    /// When the proof is wanted, ms since the Unix epoch.
    pub deadline_ms: Option<u64>,
    /// Whether the batch is worthless after the deadline.
    pub is_hard: bool,
    /// URL that is told about the end.
    pub callback: Option<String>,
}

/// Which batches to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// At most so many.
    pub limit: Option<u32>,
    /// Only batches before this number.
    pub before: Option<u64>,
    /// Only batches in this phase.
    pub phase: Option<String>,
}

/// An answer, as this client understands it and as it was sent.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// Understood.
    pub value: T,
    /// As it was sent.
    pub json: Value,
}

/// A connection to a coordinator.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// A client; connects to nothing yet.
    ///
    /// # Errors
    /// [`ClientError::Url`], [`ClientError::NoKey`], [`ClientError::Key`], [`ClientError::File`],
    /// [`ClientError::Certificates`], [`ClientError::Setup`].
    pub fn new(remote: &Remote) -> Result<Self, ClientError> {
        let url = parse_url(&remote.url)?;
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization(&remote.key)?);
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("assay/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_TIME)
            .pool_idle_timeout(IDLE_TIME)
            // The key is for this address alone.
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        if let Some(path) = &remote.ca_file {
            for certificate in certificates(path)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let http = builder.build().map_err(|error| ClientError::Setup { reason: error.to_string() })?;
        Ok(Self { http, base: url.as_str().trim_end_matches('/').to_owned() })
    }

    /// Where the coordinator is.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Submits a batch file's bytes.
    ///
    /// # Errors
    /// [`ClientError`]. After a transient one the same call may be repeated: it counts once.
    pub async fn submit(&self, batch: Vec<u8>, wishes: &Wishes) -> Result<Answer<Submitted>, ClientError> {
        let mut request = self.request(Method::POST, "/v1/batches");
        let deadline =
            wishes.deadline_ms.map(|ms| if wishes.is_hard { format!("{ms}; hard") } else { ms.to_string() });
        let headers = [
            ("idempotency-key", wishes.key.clone()),
            ("x-assay-priority", wishes.priority.map(|priority| priority.to_string())),
            ("x-assay-deadline", deadline),
            ("x-assay-callback", wishes.callback.clone()),
        ];
        for (name, value) in headers {
            let Some(value) = value else { continue };
            let wrong =
                |_| ClientError::Value { name, expected: "visible ASCII characters", got: value.clone() };
            request = request.header(name, HeaderValue::from_str(&value).map_err(wrong)?);
        }
        let patience = SILENCE_MAX + Duration::from_secs(batch.len() as u64 / UPLOAD_RATE_MIN);
        let request = request.header("content-type", "application/octet-stream").body(batch);
        self.json(self.send(request, patience).await?).await
    }

    /// A batch with its tasks and files.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn batch(&self, id: u64) -> Result<Answer<Detail>, ClientError> {
        self.get(&format!("/v1/batches/{id}")).await
    }

    /// The tenant's batches, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn batches(&self, listing: &Listing) -> Result<Answer<BatchList>, ClientError> {
        let query = [
            ("limit", listing.limit.map(|limit| limit.to_string())),
            ("before", listing.before.map(|before| before.to_string())),
            ("phase", listing.phase.clone()),
        ];
        let query: Vec<_> = query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let request = self.request(Method::GET, "/v1/batches").query(&query);
        self.json(self.send(request, SILENCE_MAX).await?).await
    }

    /// The workers of the deployment.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn workers(&self) -> Result<Answer<WorkerList>, ClientError> {
        self.get("/v1/workers").await
    }

    /// Ends a batch.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cancel(&self, id: u64) -> Result<(), ClientError> {
        let request = self.request(Method::DELETE, &format!("/v1/batches/{id}"));
        self.send(request, SILENCE_MAX).await.map(drop)
    }

    /// A file of a result, with the size and the hash that the listing names.
    ///
    /// # Errors
    /// [`ClientError::Damaged`] for anything else.
    pub async fn file(&self, id: u64, file: &File) -> Result<Vec<u8>, ClientError> {
        let damaged = |reason: String| ClientError::Damaged { name: crate::story::shown(&file.name), reason };
        let request = self.request(Method::GET, &format!("/v1/batches/{id}/files/{}", file.name));
        let response = self.send(request, SILENCE_MAX).await?;
        let bytes_max = usize::try_from(file.bytes.min(FILE_BYTES_MAX)).unwrap_or(usize::MAX);
        let read = self.read(response, bytes_max).await?;
        let bytes = read.ok_or_else(|| damaged(format!("longer than {bytes_max} bytes")))?;
        if bytes.len() as u64 != file.bytes {
            return Err(damaged(format!("expected {} bytes, got {}", file.bytes, bytes.len())));
        }
        let hash = blake3::hash(&bytes).to_hex();
        if !file.blake3.eq_ignore_ascii_case(&hash) {
            return Err(damaged(format!(
                "expected BLAKE3 {}, got {hash}",
                crate::story::shown(&file.blake3)
            )));
        }
        Ok(bytes)
    }

    /// The events of a batch, from the one after `last` on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(&self, id: u64, last: Option<&str>) -> Result<Events, ClientError> {
        let mut request = self.request(Method::GET, &format!("/v1/batches/{id}/events"));
        if let Some(last) = last.and_then(|last| HeaderValue::from_str(last).ok()) {
            request = request.header("last-event-id", last);
        }
        let response = self.send(request, SILENCE_MAX).await?;
        Ok(Events { client: self.clone(), response, parser: Parser::default(), ready: VecDeque::new() })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, ClientError> {
        self.json(self.send(self.request(Method::GET, path), SILENCE_MAX).await?).await
    }

    /// Sends a request; an answer that is no success is an error.
    async fn send(&self, request: RequestBuilder, patience: Duration) -> Result<Response, ClientError> {
        let response = match tokio::time::timeout(patience, request.send()).await {
            Ok(sent) => sent.map_err(|error| self.unreachable(&error))?,
            Err(_) => return Err(self.silent(patience)),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = self.read(response, 64 << 10).await?.unwrap_or_default();
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) if !problem.code.is_empty() => {
                Err(ClientError::Problem(Box::new(Problem { status: status.as_u16(), ..problem })))
            }
            // A proxy without a coordinator behind it.
            _ if matches!(
                status,
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            ) =>
            {
                Err(ClientError::Unreachable {
                    url: self.base.clone(),
                    reason: format!("a proxy says {status}"),
                })
            }
            _ => Err(self.not_ours(format!("status {status} without a problem document"))),
        }
    }

    async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<Answer<T>, ClientError> {
        let bytes = self.read(response, JSON_BYTES_MAX).await?;
        let bytes = bytes.ok_or_else(|| self.not_ours(format!("more than {JSON_BYTES_MAX} bytes")))?;
        let odd = |error: serde_json::Error| self.not_ours(error.to_string());
        let json: Value = serde_json::from_slice(&bytes).map_err(odd)?;
        Ok(Answer { value: T::deserialize(&json).map_err(odd)?, json })
    }

    /// Reads a body; `None` if it has more than `bytes_max` bytes.
    async fn read(&self, mut response: Response, bytes_max: usize) -> Result<Option<Vec<u8>>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut response).await? {
            if bytes.len() + piece.len() > bytes_max {
                return Ok(None);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(bytes))
    }

    async fn piece(&self, response: &mut Response) -> Result<Option<Vec<u8>>, ClientError> {
        match tokio::time::timeout(SILENCE_MAX, response.chunk()).await {
            Ok(piece) => Ok(piece.map_err(|error| self.unreachable(&error))?.map(Into::into)),
            Err(_) => Err(self.silent(SILENCE_MAX)),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        // The innermost reason says most; the outer ones repeat the URL.
        let mut reason: &dyn std::error::Error = error;
        while let Some(source) = reason.source() {
            reason = source;
        }
        ClientError::Unreachable { url: self.base.clone(), reason: reason.to_string() }
    }

    fn silent(&self, patience: Duration) -> ClientError {
        let reason = format!("nothing was heard for {} s", patience.as_secs());
        ClientError::Unreachable { url: self.base.clone(), reason }
    }

    fn not_ours(&self, reason: String) -> ClientError {
        ClientError::NotOurs { url: self.base.clone(), reason }
    }
}

/// An open event stream.
#[derive(Debug)]
pub struct Events {
    client: Client,
    response: Response,
    parser: Parser,
    ready: VecDeque<Frame>,
}

impl Events {
    /// The next event; `None` when the coordinator has ended the stream.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when the stream is cut, [`ClientError::NotOurs`] for one that is malformed.
    pub async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            let Some(piece) = self.client.piece(&mut self.response).await? else { return Ok(None) };
            let frames = self.parser.push(&piece).map_err(|error| self.client.not_ours(error.to_string()))?;
            self.ready.extend(frames);
        }
    }
}

fn parse_url(text: &str) -> Result<Url, ClientError> {
    let wrong = |reason| ClientError::Url { reason };
    let url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("begins with neither https:// nor http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has a user name or password in it"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has a query or fragment"));
    }
    Ok(url)
}

/// Whether the key stays on this machine.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the key would travel in the clear.
pub(crate) fn is_exposed(text: &str) -> bool {
    parse_url(text).is_ok_and(|url| url.scheme() == "http" && !is_loopback(&url))
}

fn authorization(key: &str) -> Result<HeaderValue, ClientError> {
    if key.is_empty() {
        return Err(ClientError::NoKey);
    }
    if key.len() > KEY_BYTES_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ClientError::Key);
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| ClientError::Key)?;
    value.set_sensitive(true);
    Ok(value)
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, ClientError> {
    let io = |source| ClientError::File { what: "read", path: path.to_owned(), source };
    let pem = std::fs::read(path).map_err(io)?;
    let none = |reason: String| ClientError::Certificates { path: path.to_owned(), reason };
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(found) if found.is_empty() => Err(none("no PEM certificate in it".into())),
        Ok(found) => Ok(found),
        Err(error) => Err(none(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str, key: &str) -> Remote {
        Remote { url: url.into(), key: key.into(), ca_file: None }
    }

    #[test]
    fn bad_urls_and_keys_are_refused_without_showing_the_key() {
        assert!(Client::new(&remote("https://host/prefix/", "assay_1")).unwrap().url().ends_with("/prefix"));
        for url in [
            "",
            "host:8080",
            "ftp://host",
            "https://me@host",
            "https://:x@host",
            "http://h/?a=b",
            "http://h/#x",
        ] {
            assert!(matches!(Client::new(&remote(url, "k")), Err(ClientError::Url { .. })), "{url}");
        }
        assert!(matches!(Client::new(&remote("http://h", "")), Err(ClientError::NoKey)));
        for key in ["a b", "schlüssel", "line\nend", &"x".repeat(257)] {
            let error = Client::new(&remote("http://h", key)).unwrap_err();
            assert!(matches!(error, ClientError::Key) && !error.to_string().contains(key));
        }
        let shown =
            format!("{:?} {:?}", remote("http://h", "s3cr3t"), Client::new(&remote("http://h", "s3cr3t")));
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }

    #[test]
    fn only_this_machine_may_be_spoken_to_in_the_clear_without_a_word() {
        for url in ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:1", "https://example.com"] {
            assert!(!is_exposed(url), "{url}");
        }
        for url in ["http://10.0.0.1:8080", "http://example.com", "http://localhost.example.com"] {
            assert!(is_exposed(url), "{url}");
        }
    }
}
