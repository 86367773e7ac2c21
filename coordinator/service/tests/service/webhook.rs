//! Webhooks, as their receivers see them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_service::webhook::sign::verify;
use assay_service::webhook::CallbackPolicy;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::cluster::{until, Cluster, SECRET};
use crate::simple::Shape;

/// A request as it came: headers in lower case, body.
type Call = (Vec<(String, String)>, Vec<u8>);

/// Takes calls; answers each with the next status.
async fn receiver(mut statuses: Vec<u16>) -> (String, Arc<Mutex<Vec<Call>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?secret=1", listener.local_addr().unwrap());
    let calls = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            let (head, length) = loop {
                let mut chunk = [0; 4096];
                let read = stream.read(&mut chunk).await.unwrap();
                bytes.extend_from_slice(&chunk[..read]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let headers: Vec<(String, String)> = head
                    .lines()
                    .skip(1)
                    .filter_map(|line| line.split_once(": "))
                    .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                    .collect();
                let length = headers.iter().find(|(name, _)| name == "content-length");
                let length: usize = length.map_or(0, |(_, length)| length.parse().unwrap());
                if body.len() >= length {
                    break (headers, length);
                }
            };
            kept.lock().unwrap().push((head, bytes[bytes.len() - length..].to_vec()));
            let status = if statuses.len() > 1 { statuses.remove(0) } else { statuses[0] };
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, calls)
}

fn header<'a>(call: &'a Call, name: &str) -> &'a str {
    &call.0.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no {name}")).1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_is_told_once_with_a_signature_that_verifies() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let (url, calls) = receiver(vec![204]).await;
    let client = &node.client;
    let submit = client.request("POST", "/v1/batches").header("x-assay-callback", &url);
    let (status, body) = client.send(submit.header("idempotency-key", "k").body(Shape::new(1).bytes())).await;
    assert_eq!(status, 201, "{body}");
    let id = body["id"].as_u64().unwrap();
    assert_eq!(client.send(client.request("DELETE", &format!("/v1/batches/{id}"))).await.0, 204);
    until("the webhook is delivered", || async {
        let metrics = client.get("/metrics").await.1;
        metrics.as_str().unwrap().contains("assay_webhooks_total{result=\"delivered\"} 1")
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let calls = calls.lock().unwrap().clone();
    assert_eq!(calls.len(), 1);
    let call = &calls[0];
    let timestamp: u64 = header(call, "webhook-timestamp").parse().unwrap();
    let (id_header, signature) = (header(call, "webhook-id"), header(call, "webhook-signature"));
    assert!(verify(SECRET, id_header, timestamp, &call.1, signature));
    assert!(!verify(b"another secret", id_header, timestamp, &call.1, signature));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now - timestamp < 300);
    let message: Value = serde_json::from_slice(&call.1).unwrap();
    assert_eq!(message["type"], "batch.cancelled");
    assert_eq!(message["data"]["batch"], id);
    assert_eq!(message["data"]["idempotency_key"], "k");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_call_is_repeated_by_the_next_coordinator_under_the_same_id() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let (url, calls) = receiver(vec![500, 200]).await;
    let client = &node.client;
    let submit = client.request("POST", "/v1/batches").header("x-assay-callback", &url);
    let id = client.send(submit.body(Shape::new(1).bytes())).await.1["id"].as_u64().unwrap();
    client.send(client.request("DELETE", &format!("/v1/batches/{id}"))).await;
    until("the first call is counted", || async {
        let metrics = client.get("/metrics").await.1;
        metrics.as_str().unwrap().contains("assay_webhooks_total{result=\"failed\"} 1")
    })
    .await;
    node.kill();
    let second = cluster.node().await;
    // 10 seconds after the first.
    until("the second call", || async { calls.lock().unwrap().len() == 2 }).await;
    let calls = calls.lock().unwrap().clone();
    assert_eq!(header(&calls[0], "webhook-id"), header(&calls[1], "webhook-id"));
    assert_eq!(calls[0].1, calls[1].1);
    let wait = |call: &Call| header(call, "webhook-timestamp").parse::<u64>().unwrap();
    assert!((9..40).contains(&(wait(&calls[1]) - wait(&calls[0]))));
    until("nothing is left to send", || async {
        second.client.get("/metrics").await.1.as_str().unwrap().contains("assay_webhooks_pending 0")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callbacks_into_the_own_network_are_refused_at_submission() {
    let mut cluster = Cluster::new();
    cluster.settings.callbacks = CallbackPolicy::default();
    let node = cluster.node().await;
    for url in
        ["http://example.com/", "https://127.0.0.1/", "https://localhost/", "https://[::1]/", "nonsense"]
    {
        let submit = node.client.request("POST", "/v1/batches").header("x-assay-callback", url);
        let (status, body) = node.client.send(submit.body(Shape::new(1).bytes())).await;
        assert_eq!((status, body["code"].as_str()), (422, Some("invalid_callback")), "{url}");
    }
    // A tenant without a secret cannot be told anything.
    let other = node.client.with_key(&cluster.other_key);
    let submit = other.request("POST", "/v1/batches").header("x-assay-callback", "https://example.com/");
    let (status, body) = other.send(submit.body(Shape::new(1).bytes())).await;
    assert_eq!((status, body["code"].as_str()), (422, Some("invalid_callback")));
}
