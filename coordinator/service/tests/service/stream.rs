//! Event streams: order, replay, end.

use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;

use crate::agent::Habits;
use crate::cluster::{until, Client, Cluster, PATIENCE};
use crate::simple::Shape;

/// A frame: number, name, data.
pub(crate) type Frame = (Option<u64>, String, Value);

/// Reads a stream to its end, or up to `max` frames.
pub(crate) async fn read(client: &Client, path: &str, last: Option<u64>, max: usize) -> Vec<Frame> {
    let mut request = client.request("GET", path);
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut stream = answer.bytes_stream();
    let (mut text, mut frames) = (String::new(), Vec::new());
    let read = async {
        while let Some(chunk) = stream.next().await {
            text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
            while let Some((frame, rest)) = text.split_once("\n\n") {
                frames.extend(parse(frame));
                text = rest.to_owned();
                if frames.len() >= max {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the stream ends");
    frames
}

fn parse(frame: &str) -> Option<Frame> {
    let field = |name: &str| {
        let prefix = format!("{name}: ");
        frame.lines().find_map(|line| line.strip_prefix(&prefix).map(ToOwned::to_owned))
    };
    let data = field("data")?;
    Some((field("id").map(|id| id.parse().unwrap()), field("event")?, serde_json::from_str(&data).unwrap()))
}

fn numbered(frames: &[Frame]) -> Vec<Frame> {
    frames.iter().filter(|frame| frame.0.is_some()).cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_tells_everything_in_order_and_ends_with_the_batch() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let client = &node.client;
    let id = client.submitted("key", Shape::new(1)).await;
    let path = format!("/v1/batches/{id}/events");
    let live = tokio::spawn({
        let (client, path) = (client.clone(), path.clone());
        async move { read(&client, &path, None, usize::MAX).await }
    });
    let _agent = cluster.agent(1, Habits::default());
    let frames = numbered(&live.await.unwrap());
    let numbers: Vec<u64> = frames.iter().filter_map(|frame| frame.0).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let phases: Vec<&str> = frames
        .iter()
        .filter(|frame| frame.1 == "phase")
        .map(|frame| frame.2["phase"].as_str().unwrap())
        .collect();
    assert_eq!(phases.first(), Some(&"proving"));
    assert_eq!(phases.last(), Some(&"settled"));
    assert_eq!(frames.last().unwrap().1, "phase");

    // Afterwards, a late subscriber gets the same, and one that was cut off gets the rest.
    assert_eq!(numbered(&read(client, &path, None, usize::MAX).await), frames);
    assert_eq!(numbered(&read(client, &path, Some(5), usize::MAX).await), frames[5..]);
    let last = numbers.len() as u64;
    assert_eq!(read(client, &path, Some(last), usize::MAX).await, []);
    assert_eq!(read(client, &path, Some(last + 1000), usize::MAX).await, []);

    // The same numbers on a coordinator that has only loaded what is stored.
    node.kill();
    let second = cluster.node().await;
    assert_eq!(numbered(&read(&second.client, &path, Some(3), usize::MAX).await), frames[3..]);
    let (status, body) =
        second.client.send(second.client.request("GET", &path).header("last-event-id", "x")).await;
    assert_eq!((status, body["code"].as_str()), (400, Some("invalid_request")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_the_coordinator_stops_and_goes_on_at_the_next() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let id = node.client.submitted("key", Shape::new(1)).await;
    let path = format!("/v1/batches/{id}/events");
    let (client, stream) = (node.client.clone(), path.clone());
    let live = tokio::spawn(async move { read(&client, &stream, None, usize::MAX).await });
    until("the stream is open", || async {
        let metrics = node.client.get("/metrics").await.1;
        let open =
            metrics.as_str().unwrap().lines().any(|line| line.contains("route=\"events\",status=\"200\"} 1"));
        open
    })
    .await;
    tokio::time::timeout(Duration::from_secs(20), node.stop()).await.expect("streams do not keep it up");
    let first = numbered(&live.await.unwrap());
    assert_eq!(first.len(), 1);
    let second = cluster.node().await;
    let _agent = cluster.agent(1, Habits::default());
    let rest = numbered(&read(&second.client, &path, Some(1), usize::MAX).await);
    assert_eq!(rest[0].0, Some(2));
    assert_eq!(rest.last().unwrap().2["phase"], "settled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_is_sent_again_when_it_changes() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let client = node.client.clone();
    let live = tokio::spawn(async move { read(&client, "/v1/events", None, 2).await });
    until("the stream is open", || async {
        let metrics = node.client.get("/metrics").await.1;
        let open =
            metrics.as_str().unwrap().lines().any(|line| line.contains("route=\"events\",status=\"200\"} 1"));
        open
    })
    .await;
    let id = node.client.submitted("key", Shape::new(1)).await;
    let frames = live.await.unwrap();
    assert_eq!(frames[0].2["batches"].as_array().unwrap().len(), 0);
    assert_eq!(frames[1].2["batches"][0]["id"], id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_limited_in_number() {
    let mut cluster = Cluster::new();
    cluster.settings.api.streams_max = 1;
    let node = cluster.node().await;
    let held = node.client.request("GET", "/v1/events").send().await.unwrap();
    let (status, body) = node.client.get("/v1/events").await;
    assert_eq!((status, body["code"].as_str()), (503, Some("overloaded")));
    drop(held);
    until("the place is free again", || async {
        node.client.request("GET", "/v1/events").send().await.unwrap().status() == 200
    })
    .await;
}
