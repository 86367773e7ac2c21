//! Peers that mean harm.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

use crate::cluster::{until, Cluster, PATIENCE};
use crate::simple::Shape;

/// Sends bytes, then waits for the answer up to the end of the connection.
async fn raw(address: SocketAddr, bytes: &[u8]) -> (String, Duration) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The peer may have closed already.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("the connection ends");
    (String::from_utf8_lossy(&answer).into_owned(), begun.elapsed())
}

fn problem(answer: &str) -> (u16, String) {
    let status = answer.split_whitespace().nth(1).unwrap_or("0").parse().unwrap();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let mut cluster = Cluster::new();
    cluster.settings.api.body_bytes_max = 100_000;
    let node = cluster.node().await;
    let head = |rest: &str| {
        format!("POST /v1/batches HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{rest}\r\n", cluster.key)
    };
    // A gigabyte announced: answered at once, with nothing sent of it.
    let (answer, elapsed) = raw(node.address, head("content-length: 1073741824\r\n").as_bytes()).await;
    assert_eq!(problem(&answer), (413, "too_large".into()));
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
    // With `Expect`, the client is never asked to go on.
    let expect = head("content-length: 1073741824\r\nexpect: 100-continue\r\n");
    let (answer, _) = raw(node.address, expect.as_bytes()).await;
    assert_eq!(problem(&answer), (413, "too_large".into()));
    // Without a length, it is cut off where it is too large.
    let mut chunked = head("transfer-encoding: chunked\r\n").into_bytes();
    for _ in 0..11 {
        chunked.extend(format!("{:x}\r\n", 10_000).into_bytes());
        chunked.extend(vec![b'x'; 10_000]);
        chunked.extend(b"\r\n");
    }
    let (answer, _) = raw(node.address, &chunked).await;
    assert_eq!(problem(&answer), (413, "too_large".into()));
    // Without a key, the body is not even looked at.
    let foreign = "POST /v1/batches HTTP/1.1\r\nhost: x\r\ncontent-length: 1073741824\r\n\r\n";
    assert_eq!(problem(&raw(node.address, foreign.as_bytes()).await.0), (401, "unauthorized".into()));
    assert_eq!(cluster.store.usage().await.unwrap().artifacts, 0);
    node.client.submitted("after all that", Shape::new(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gigabyte_that_is_sent_without_waiting_is_answered_and_kept_nowhere() {
    let mut cluster = Cluster::new();
    cluster.settings.api.body_bytes_max = 100_000;
    let node = cluster.node().await;
    for framing in ["content-length: 1073741824", "transfer-encoding: chunked"] {
        let head = format!(
            "POST /v1/batches HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{framing}\r\n\r\n",
            cluster.key
        );
        let (mut reader, mut writer) = TcpStream::connect(node.address).await.unwrap().into_split();
        let sending = tokio::spawn(async move {
            writer.write_all(head.as_bytes()).await.unwrap();
            let mebibyte = vec![b'x'; 1 << 20];
            for _ in 0..1024 {
                // The peer may have had enough.
                if head.contains("chunked") && writer.write_all(b"100000\r\n").await.is_err() {
                    break;
                }
                if writer.write_all(&mebibyte).await.is_err() {
                    break;
                }
                if head.contains("chunked") && writer.write_all(b"\r\n").await.is_err() {
                    break;
                }
            }
        });
        let mut answer = Vec::new();
        let read = async {
            while !answer.ends_with(b"}") {
                assert!(reader.read_buf(&mut answer).await.unwrap() > 0, "closed without an answer");
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("an answer");
        assert_eq!(problem(&String::from_utf8_lossy(&answer)), (413, "too_large".into()), "{framing}");
        // It is cut off, unless it has ended before.
        tokio::time::timeout(PATIENCE, sending).await.expect("the connection ends").unwrap();
    }
    assert_eq!(cluster.store.usage().await.unwrap().artifacts, 0);
    node.client.submitted("after all that", Shape::new(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_peer_is_dropped_and_others_are_served_meanwhile() {
    let mut cluster = Cluster::new();
    cluster.settings.server.header_time = Duration::from_millis(500);
    cluster.settings.server.connections_max = 64;
    cluster.settings.api.body_pause = Duration::from_millis(400);
    cluster.settings.api.body_grace = Duration::from_millis(1200);
    let node = cluster.node().await;
    let address = node.address;
    // Headers that never end, one byte at a time, on many connections.
    let lorises: Vec<_> = (0..32)
        .map(|_| {
            tokio::spawn(async move {
                let begun = Instant::now();
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"GET /health HTTP/1.1\r\nx: ").await.unwrap();
                let mut answer = Vec::new();
                loop {
                    let end =
                        tokio::time::timeout(Duration::from_millis(50), stream.read_buf(&mut answer)).await;
                    if matches!(end, Ok(Ok(0) | Err(_))) || stream.write_all(b"a").await.is_err() {
                        return begun.elapsed();
                    }
                    assert!(begun.elapsed() < PATIENCE, "still connected");
                }
            })
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(node.client.get("/health").await.0, 200);
    }
    for loris in lorises {
        assert!(loris.await.unwrap() >= Duration::from_millis(450));
    }
    // A body that stops, and one that drips.
    let head = format!(
        "POST /v1/batches HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 1000\r\n\r\nsim",
        cluster.key
    );
    let (answer, elapsed) = raw(address, head.as_bytes()).await;
    assert_eq!(problem(&answer), (408, "timeout".into()));
    assert!(elapsed < Duration::from_secs(10));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    for _ in 0..200 {
        let _ = stream.write_all(b"x").await;
        let end = tokio::time::timeout(Duration::from_millis(100), stream.read_buf(&mut answer)).await;
        if matches!(end, Ok(Ok(0) | Err(_))) {
            break;
        }
    }
    assert_eq!(problem(&String::from_utf8_lossy(&answer)), (408, "timeout".into()));
    assert_eq!(cluster.store.usage().await.unwrap().artifacts, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_end_in_an_error_and_nothing_else() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let many: String = (0..100).map(|at| format!("h{at}: x\r\n")).collect();
    let long = "x".repeat(100_000);
    for bytes in [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
        "POST /v1/batches HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello".to_owned(),
        "POST /v1/batches HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 6\r\n\r\nhello!".to_owned(),
    ] {
        let closing = bytes.replacen("host: x\r\n", "host: x\r\nconnection: close\r\n", 1);
        let (answer, _) = raw(node.address, closing.as_bytes()).await;
        let status = problem(&answer).0;
        assert!(answer.is_empty() || (400..500).contains(&status), "{bytes:.40}: {answer:.200}");
    }
    assert_eq!(node.client.get("/health").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bodies_at_once_wait_for_memory_instead_of_taking_it() {
    let mut cluster = Cluster::new();
    cluster.settings.api.body_bytes_max = 1 << 20;
    cluster.settings.api.uploads_bytes_max = 1 << 20;
    cluster.settings.api.body_pause = Duration::from_secs(30);
    let node = cluster.node().await;
    let head = format!(
        "POST /v1/batches HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 900000\r\n\
         expect: 100-continue\r\n\r\n",
        cluster.key
    );
    let mut holding = TcpStream::connect(node.address).await.unwrap();
    holding.write_all(head.as_bytes()).await.unwrap();
    // It has its room once it is asked for the body.
    tokio::time::timeout(PATIENCE, holding.read_exact(&mut [0; 12])).await.unwrap().unwrap();
    let (status, body) = node.client.submit("k", Shape::new(1)).await;
    assert_eq!((status, body["code"].as_str()), (503, Some("overloaded")));
    drop(holding);
    node.client.submitted("k", Shape::new(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_many_slow_bodies_does_not_keep_others_out() {
    let mut cluster = Cluster::new();
    cluster.settings.api.body_bytes_max = 1 << 20;
    cluster.settings.api.uploads_bytes_max = 4 << 20;
    cluster.settings.api.body_pause = Duration::from_secs(30);
    let node = cluster.node().await;
    let head = format!(
        "POST /v1/batches HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 1048576\r\n\
         expect: 100-continue\r\n\r\n",
        cluster.key
    );
    let mut held = Vec::new();
    for at in 0..4 {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        if at < 2 {
            // Asked to go on: it has its room.
            let mut answer = [0; 12];
            tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
            assert_eq!(&answer, b"HTTP/1.1 100");
        }
        held.push(stream);
    }
    node.client.with_key(&cluster.other_key).submitted("k", Shape::new(1)).await;
}

/// Paths that exist, with pieces that may not.
fn any_path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("1".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("%ff%fe".to_owned()),
        "[a-zA-Z0-9%._~-]{0,12}",
    ];
    let query = prop_oneof![
        Just(String::new()),
        "\\?[a-z]{0,8}=[a-zA-Z0-9%]{0,8}(&[a-z]{1,8}=[a-zA-Z0-9%+]{0,8}){0,3}",
        Just("?limit=3&before=2".to_owned()),
        Just("?phase=settled".to_owned()),
    ];
    let shapes = prop_oneof![
        Just("/v1/batches"),
        Just("/v1/batches/{}"),
        Just("/v1/batches/{}/proof"),
        Just("/v1/batches/{}/files"),
        Just("/v1/batches/{}/files/{}"),
        Just("/v1/workers"),
        Just("/{}"),
        Just("/v1/{}/{}"),
        Just("/ready"),
    ];
    (shapes, piece.clone(), piece, query)
        .prop_map(|(shape, one, two, query)| shape.replacen("{}", &one, 1).replacen("{}", &two, 1) + &query)
}

fn any_headers() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let name = prop_oneof![
        Just("idempotency-key"),
        Just("x-assay-priority"),
        Just("x-assay-deadline"),
        Just("x-assay-callback"),
        Just("content-length"),
        Just("last-event-id"),
        Just("authorization"),
        Just("content-type"),
        Just("x-other"),
    ];
    let value = prop_oneof![
        Just(b"1".to_vec()),
        Just(b"100; hard".to_vec()),
        Just(b"https://example.com/".to_vec()),
        Just(b"99999999999999999999".to_vec()),
        Just(b"Bearer nobody".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec((name.prop_map(ToOwned::to_owned), value), 0..4)
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Shape::new(1).bytes()),
        "simple( [0-9]{1,22}){0,6}".prop_map(String::into_bytes),
        "[{}\\[\\]\":,a-z0-9]{0,64}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..256),
    ]
}

#[test]
fn whatever_is_asked_the_answer_is_what_was_asked_for_or_a_problem() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cluster = Cluster::with_keys(
        "batches_max = 1000000\nbytes_max = 1000000000\nrequests_per_second = 1e9\nburst = 1000000",
    );
    let (_stop, stopping) = tokio::sync::watch::channel(false);
    let service = cluster.service();
    let router = service.router(stopping.clone());
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let shared = Arc::clone(service.shared());
    let _running = runtime.spawn(service.run(listener, stopping));
    runtime.block_on(until("the state is there", || async { shared.read().await.is_ok() }));
    let methods = prop_oneof![3 => Just(Method::GET), 3 => Just(Method::POST), 1 => Just(Method::DELETE), 1 => Just(Method::PUT), 1 => Just(Method::HEAD)];
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    let key = Arc::new(cluster.key.clone());
    proptest!(config, |(method in methods, path in any_path(), headers in any_headers(), body in any_body())| {
        let Ok(uri) = path.parse::<Uri>() else { return Ok(()) };
        let mut request = Request::builder().method(method.clone()).uri(uri);
        request = request.header("authorization", format!("Bearer {key}"));
        for (name, value) in headers {
            let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
            request = request.header(name.parse::<HeaderName>().unwrap(), value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let (status, kind, body) = runtime.block_on(async {
            let answer = router.clone().oneshot(request).await.unwrap();
            let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
            let status = answer.status();
            (status, kind, answer.into_body().collect().await.unwrap().to_bytes())
        });
        prop_assert!(status.as_u16() != 500, "{method} {path}: {}", String::from_utf8_lossy(&body));
        if status.is_client_error() || (status.is_server_error() && path != "/ready") {
            prop_assert_eq!(kind.as_deref(), Some("application/problem+json"));
            if method != Method::HEAD {
                let problem: assay_service::problem::Problem = serde_json::from_slice(&body).unwrap();
                prop_assert_eq!(problem.status, status.as_u16());
            }
        }
    });
}

#[test]
fn no_bytes_in_the_inbox_or_the_log_make_a_coordinator_panic() {
    use assay_service::request::ClusterKey;
    use assay_service::state::{decode_record, State};
    let key = ClusterKey::new(b"k");
    let config = ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() };
    let seeds = prop_oneof![
        Just(br#"{"join":{"worker":1,"session":1,"profile":{"kinds":["shard"],"version":1,"memory_bytes":1,"slots":1}}}"#.to_vec()),
        Just(br#"{"result":{"worker":1,"session":1,"attempt":1,"report":{"finished":{"outputs":[]}}}}"#.to_vec()),
        Just(br#"{"coordinator":"{\"follow\":{\"standby\":1,\"cursor\":2}}","mac":"00"}"#.to_vec()),
        Just(br#"{"at":5,"entry":{"event":"tick"}}"#.to_vec()),
        Just(br#"{"receipt":{"receipt":{"batch":1,"attempt":1,"device":"x","usage":{"cpu_ms":1,"gpu_ms":2}}}}"#.to_vec()),
        proptest::collection::vec(any::<u8>(), 0..128),
    ];
    let limits = assay_schedule::Limits::default();
    proptest!(config, |(bytes in seeds, at in any::<prop::sample::Index>(), with in any::<u8>())| {
        let mut changed = bytes.clone();
        if !changed.is_empty() {
            let at = at.index(changed.len());
            changed[at] = with;
        }
        for bytes in [bytes, changed] {
            let _ = key.open(&bytes);
            let _ = State::decode(&bytes);
            if let Ok(record) = decode_record(&bytes) {
                let mut state = State::new(limits.clone()).unwrap();
                let _ = state.apply(&record);
            }
        }
    });
}
