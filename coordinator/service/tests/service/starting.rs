//! A coordinator whose queue is not there yet.

use assay_service::server::ServerLimits;
use assay_service::starting::until_started;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::cluster::{until, Client, Cluster};
use crate::simple::Shape;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_waits_for_its_queue_is_alive_and_says_why_it_is_not_ready() {
    let cluster = Cluster::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = Client::new(address, &cluster.key);
    let (connect, connected) = oneshot::channel::<u32>();
    let (trouble, reason) = watch::channel("connecting".to_owned());
    let waiting = tokio::spawn(until_started(listener, ServerLimits::default(), reason, connected));

    let (status, body) = client.get("/health").await;
    assert_eq!((status, body["status"].as_str()), (200, Some("ok")));
    let (status, body) = client.get("/ready").await;
    assert_eq!(
        (status, body["ready"].as_bool(), body["role"].as_str()),
        (503, Some(false), Some("starting"))
    );
    assert_eq!(body["reasons"][0], "connecting");
    trouble.send_replace("redis is not available: connection refused".into());
    assert_eq!(client.get("/ready").await.1["reasons"][0], "redis is not available: connection refused");
    assert_eq!(client.get("/version").await.0, 200);
    let (status, body) = client.submit("key", Shape::new(1)).await;
    assert_eq!(
        (status, body["code"].as_str(), body["retry_after"].as_u64()),
        (503, Some("unavailable"), Some(5))
    );
    assert!(body["detail"].as_str().unwrap().contains("connection refused"), "{body}");
    let answer = client.request("GET", "/ready").send().await.unwrap();
    assert_eq!(answer.headers()["x-frame-options"], "DENY");
    assert_eq!(answer.headers()["cache-control"], "no-store");

    // The queue is there: the same port serves everything, also for those who kept their connection.
    connect.send(7).unwrap();
    let (begun, listener) = waiting.await.unwrap().unwrap();
    assert_eq!(begun.unwrap(), 7);
    let (_stop, stopping) = watch::channel(false);
    let service = tokio::spawn(cluster.service().run(listener, stopping));
    until("the coordinator is ready", || async { client.get("/ready").await.0 == 200 }).await;
    client.submitted("key", Shape::new(1)).await;
    service.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_ends_the_wait_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_trouble, reason) = watch::channel(String::new());
    let begun = until_started(listener, ServerLimits::default(), reason, async { Err::<(), _>("no redis") });
    assert_eq!(begun.await.unwrap().0, Err("no redis"));
}
