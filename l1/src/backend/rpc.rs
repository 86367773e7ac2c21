//! JSON-RPC over plain HTTP, as bitcoind speaks it.
//!
//! One request per connection attempt; replies and times are bounded. A cookie file is read before each request, because
//! the node writes a new one when it starts.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{json, Value};
use zeroize::Zeroizing;

use super::BackendError;

/// Largest reply accepted: a block of 4 MB in hexadecimal, with room.
const REPLY_BYTES_MAX: usize = 16 << 20;
/// Longest wait for one reply. Scanning the coins of the main chain takes minutes.
const REPLY_TIMEOUT: Duration = Duration::from_secs(900);

/// Credentials of a node.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RpcAuth {
    /// `user:password`, wiped from memory when dropped.
    User(Zeroizing<String>),
    /// Path of the node's `.cookie` file.
    Cookie(PathBuf),
}

impl RpcAuth {
    /// User and password.
    #[must_use]
    pub fn user(user: &str, password: &str) -> Self {
        Self::User(Zeroizing::new(format!("{user}:{password}")))
    }

    /// The header for the node at `endpoint`. A node that stops removes its cookie: without one it does not run.
    fn header(&self, endpoint: &str) -> Result<Zeroizing<String>, BackendError> {
        let credentials = match self {
            Self::User(credentials) => credentials.clone(),
            Self::Cookie(path) => {
                Zeroizing::new(std::fs::read_to_string(path).map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => BackendError::Unreachable {
                        endpoint: endpoint.to_owned(),
                        detail: format!("there is no cookie file {}", path.display()),
                    },
                    _ => BackendError::storage(path)(error),
                })?)
            }
        };
        Ok(Zeroizing::new(format!("Basic {}", base64(credentials.trim_end().as_bytes()))))
    }
}

impl std::fmt::Debug for RpcAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(_) => f.write_str("User(..)"),
            Self::Cookie(path) => f.debug_tuple("Cookie").field(path).finish(),
        }
    }
}

/// A node's JSON-RPC interface.
#[derive(Debug)]
pub(super) struct RpcClient {
    endpoint: String,
    auth: RpcAuth,
}

#[derive(Deserialize)]
struct Reply {
    result: Value,
    error: Option<ReplyError>,
}

#[derive(Deserialize)]
struct ReplyError {
    code: i64,
    message: String,
}

impl RpcClient {
    pub(super) fn new(endpoint: &str, auth: RpcAuth) -> Self {
        Self { endpoint: endpoint.to_owned(), auth }
    }

    /// Host and port, for messages.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Calls `method`; the result is what the node put under `result`.
    pub(super) fn call(&self, method: &str, params: Value) -> Result<Value, BackendError> {
        let unreachable =
            |detail: String| BackendError::Unreachable { endpoint: self.endpoint.clone(), detail };
        let malformed = |detail: String| BackendError::Malformed { method: method.to_owned(), detail };
        let body = json!({ "jsonrpc": "1.0", "id": "assay", "method": method, "params": params }).to_string();
        let response = bitreq::post(format!("http://{}/", self.endpoint))
            .with_header("Authorization", self.auth.header(&self.endpoint)?.as_str())
            .with_header("Content-Type", "application/json")
            .with_body(body)
            .with_timeout(REPLY_TIMEOUT)
            .with_max_redirects(0)
            .with_max_body_size(REPLY_BYTES_MAX)
            .send()
            .map_err(|error| unreachable(error.to_string()))?;
        match response.status_code {
            401 | 403 => return Err(BackendError::Unauthorised { endpoint: self.endpoint.clone() }),
            503 => return Err(unreachable("its work queue is full".to_owned())),
            _ => {}
        }
        let reply: Reply = serde_json::from_slice(response.as_bytes())
            .map_err(|error| malformed(format!("http status {}: {error}", response.status_code)))?;
        match reply.error {
            None => Ok(reply.result),
            Some(ReplyError { code, message }) => {
                Err(BackendError::Rpc { method: method.to_owned(), code, message })
            }
        }
    }

    /// Calls `method` and reads the result as `T`.
    pub(super) fn call_as<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> Result<T, BackendError> {
        serde_json::from_value(self.call(method, params)?)
            .map_err(|error| BackendError::Malformed { method: method.to_owned(), detail: error.to_string() })
    }
}

/// Standard base64 with padding (RFC 4648): the form of the credentials in HTTP.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        for index in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * index)) as usize & 63];
            text.push(if index <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn base64_agrees_with_the_vectors_of_rfc_4648() {
        let vectors = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let expected = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (input, output) in vectors.iter().zip(expected) {
            assert_eq!(base64(input.as_bytes()), output);
        }
    }

    /// Answers one request with `status` and `body`; returns the endpoint and the request's text.
    fn one_answer(status: &'static str, body: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !String::from_utf8_lossy(&request).contains("\"params\"") {
                let read = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
            }
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            String::from_utf8(request).unwrap()
        });
        (endpoint, server)
    }

    #[test]
    fn results_and_errors_of_a_node_are_told_apart() {
        let auth = || RpcAuth::user("u", "p");
        let (endpoint, server) = one_answer("200 OK", r#"{"result":7,"error":null,"id":"assay"}"#);
        assert_eq!(RpcClient::new(&endpoint, auth()).call_as::<u32>("x", json!([])).unwrap(), 7);
        assert!(
            server.join().unwrap().to_lowercase().contains("authorization: basic dtpw"),
            "credentials are sent"
        );

        let body = r#"{"result":null,"error":{"code":-26,"message":"bad"},"id":"assay"}"#;
        let (endpoint, server) = one_answer("500 Internal Server Error", body);
        let error = RpcClient::new(&endpoint, auth()).call("x", json!([])).unwrap_err();
        assert!(matches!(error, BackendError::Rpc { code: -26, .. }), "{error}");
        server.join().unwrap();

        let (endpoint, server) = one_answer("401 Unauthorized", "");
        let error = RpcClient::new(&endpoint, auth()).call("x", json!([])).unwrap_err();
        assert!(matches!(error, BackendError::Unauthorised { .. }), "{error}");
        server.join().unwrap();

        let (endpoint, server) = one_answer("200 OK", "<html>");
        let error = RpcClient::new(&endpoint, auth()).call("x", json!([])).unwrap_err();
        assert!(matches!(error, BackendError::Malformed { .. }), "{error}");
        server.join().unwrap();
        let error = RpcClient::new(&endpoint, auth()).call("x", json!([])).unwrap_err();
        assert_eq!(error.class(), crate::Class::Transient, "{error}");
        let stopped = RpcAuth::Cookie(PathBuf::from("/nowhere/.cookie"));
        let error = RpcClient::new(&endpoint, stopped).call("x", json!([])).unwrap_err();
        assert_eq!(error.class(), crate::Class::Transient, "{error}");
    }
}
