//! The client against the real service, with workers that "prove" instantly, and against servers that are none.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[allow(dead_code, reason = "shared with the service's own tests")]
#[path = "../../service/tests/service/agent.rs"]
mod agent;
#[allow(dead_code, reason = "shared with the service's own tests")]
#[path = "../../service/tests/service/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "shared with the service's own tests")]
#[path = "../../service/tests/service/simple.rs"]
mod simple;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_client::cli::{self, Ended, FetchArgs, RemoteArgs, WatchArgs};
use assay_client::{Client, ClientError, Download, Listing, Remote, Wishes, EXIT_BAD_INPUT, EXIT_TRY_AGAIN};
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::agent::Habits;
use crate::cluster::{until, Cluster, Node};
use crate::simple::Shape;

fn client(node: &Node, key: &str) -> Client {
    client_at(node.address, key)
}

fn client_at(address: SocketAddr, key: &str) -> Client {
    Client::new(&Remote { url: format!("http://{address}"), key: key.into(), ca_file: None }).unwrap()
}

fn remote(address: SocketAddr, key: &str) -> RemoteArgs {
    RemoteArgs { url: format!("http://{address}/"), key: Some(key.into()), key_file: None, ca_file: None }
}

fn watching(id: u64, address: SocketAddr, key: &str, json: bool) -> WatchArgs {
    WatchArgs { id, patience: 60, json, remote: remote(address, key) }
}

fn fetching(id: u64, address: SocketAddr, key: &str) -> FetchArgs {
    let remote = remote(address, key);
    FetchArgs { id, output: None, vk_hash: None, code_root: None, json: false, remote }
}

async fn watch(args: WatchArgs) -> (Result<Ended, ClientError>, String) {
    let mut out = Vec::new();
    let ended = cli::watch(&args, &mut out).await;
    (ended, String::from_utf8(out).unwrap())
}

fn events(text: &str) -> Vec<Value> {
    let all = text.lines().map(|line| serde_json::from_str(line).unwrap());
    // Progress is not numbered and not repeated.
    all.filter(|event: &Value| event["event"] != "progress").collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_submitted_watched_and_fetched() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let _agent = cluster.agent(1, Habits::default());
    let client = client(&node, &cluster.key);
    let wishes = Wishes { key: Some("first".into()), priority: Some(7), ..Wishes::default() };
    let taken = client.submit(Shape::new(1).bytes(), &wishes).await.unwrap().value;
    assert!(!taken.repeated);
    let again = client.submit(Shape::new(1).bytes(), &wishes).await.unwrap().value;
    assert_eq!((again.id, again.repeated), (taken.id, true));

    let (ended, text) = watch(watching(taken.id, node.address, &cluster.key, false)).await;
    let ended = ended.unwrap();
    assert!(ended.is_settled() && ended.exit_code() == 0, "{ended:?}");
    assert!(text.contains("  proving\n") && text.contains("accepted"), "{text}");
    assert!(text.lines().last().unwrap().ends_with("  settled"), "{text}");

    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("results/7");
    let download = cli::fetch(&fetching(taken.id, node.address, &cluster.key), &target).await.unwrap();
    assert!(!target.exists(), "kept only after it was checked");
    assert!(download.files().iter().any(|file| file.name == cli::RECEIPTS), "{:?}", download.files());
    for file in download.files() {
        let bytes = std::fs::read(download.path().join(&file.name)).unwrap();
        assert_eq!(blake3::hash(&bytes).to_hex().as_str(), file.blake3);
    }
    assert_eq!(download.keep().unwrap(), target);
    assert!(names(&target).contains(&"claim.txt".to_owned()), "{:?}", names(&target));
    let occupied = cli::fetch(&fetching(taken.id, node.address, &cluster.key), &target).await;
    assert!(matches!(occupied, Err(ClientError::Occupied { .. })));
    assert_eq!(names(target.parent().unwrap()), ["7"], "nothing is left beside it");

    let detail = client.batch(taken.id).await.unwrap();
    assert_eq!((detail.value.batch.priority, detail.json["batch"]["priority"].as_u64()), (7, Some(7)));
    let listing = Listing { phase: Some("settled".into()), limit: Some(1), ..Listing::default() };
    assert_eq!(client.batches(&listing).await.unwrap().value.batches[0].id, taken.id);
    let workers = client.workers().await.unwrap().value.workers;
    assert_eq!((workers[0].name.as_str(), workers[0].present), ("w1", true));
    assert!((1..1 << 53).contains(&workers[0].id), "exact in every JSON reader: {}", workers[0].id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_batch_ends_with_another_exit_code_and_has_no_result() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let client = client(&node, &cluster.key);
    let id = client.submit(Shape::new(1).bytes(), &Wishes::default()).await.unwrap().value.id;
    let open = cli::fetch(&fetching(id, node.address, &cluster.key), Path::new("never")).await.unwrap_err();
    assert!(matches!(&open, ClientError::NotSettled { phase, .. } if phase == "proving"));
    assert!(open.advice().unwrap().contains("assay watch"));
    client.cancel(id).await.unwrap();
    let (ended, text) = watch(watching(id, node.address, &cluster.key, false)).await;
    assert_eq!(ended.unwrap().exit_code(), 1);
    assert!(text.lines().last().unwrap().ends_with("  cancelled"), "{text}");
    let twice = client.cancel(id).await.unwrap_err();
    assert_eq!(twice.exit_code(), EXIT_BAD_INPUT);
    let closed = cli::fetch(&fetching(id, node.address, &cluster.key), Path::new("never")).await.unwrap_err();
    assert!(matches!(closed, ClientError::NotSettled { .. }) && !Path::new("never").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_to_do_and_end_with_their_code() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let client_of = |key: &str| client(&node, key);
    let mine = client_of(&cluster.key);
    let id = mine.submit(Shape::new(1).bytes(), &Wishes::default()).await.unwrap().value.id;
    let cases = [
        (client_of("assay_nobody").batch(id).await.unwrap_err(), "unauthorized", "--key"),
        (client_of(&cluster.other_key).batch(id).await.unwrap_err(), "not_found", "assay status"),
        (mine.batch(id + 1).await.unwrap_err(), "not_found", "assay status"),
        (
            mine.submit(b"junk".to_vec(), &Wishes::default()).await.unwrap_err(),
            "invalid_batch",
            "assay batch show",
        ),
        (
            mine.submit(Shape::new(1).next().next().bytes(), &Wishes::default()).await.unwrap_err(),
            "out_of_sequence",
            "first",
        ),
    ];
    for (error, code, advice) in cases {
        assert!(matches!(&error, ClientError::Problem(problem) if problem.code == code), "{error}");
        assert!(error.advice().unwrap().contains(advice), "{:?}", error.advice());
        assert_eq!(error.exit_code(), EXIT_BAD_INPUT);
    }
    let (ended, _) = watch(watching(id + 1, node.address, &cluster.key, false)).await;
    assert_eq!(ended.unwrap_err().exit_code(), EXIT_BAD_INPUT);
    let callback = Wishes { key: Some("x\ny".into()), ..Wishes::default() };
    assert!(matches!(mine.submit(vec![], &callback).await, Err(ClientError::Value { .. })));
}

/// Forwards to an address that may change, as a proxy in front of coordinators does.
async fn forwarder(target: Arc<Mutex<SocketAddr>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let to = *target.lock().unwrap();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(to).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_goes_on_after_a_takeover_and_sees_every_event_once() {
    let cluster = Cluster::new();
    let first = cluster.node().await;
    let target = Arc::new(Mutex::new(first.address));
    let proxy = forwarder(Arc::clone(&target)).await;
    let id = client(&first, &cluster.key)
        .submit(Shape::new(1).bytes(), &Wishes::default())
        .await
        .unwrap()
        .value
        .id;
    let watcher = tokio::spawn(watch(watching(id, proxy, &cluster.key, true)));
    let agent = cluster.agent(1, Habits { delay: Duration::from_millis(100), ..Habits::default() });
    until("something is proved", || async { agent.shards.load(Ordering::SeqCst) > 0 }).await;
    first.stop().await;
    let second = cluster.node().await;
    *target.lock().unwrap() = second.address;
    let (ended, text) = watcher.await.unwrap();
    assert!(ended.unwrap().is_settled());
    let (_, fresh) = watch(watching(id, second.address, &cluster.key, true)).await;
    assert_eq!(events(&text), events(&fresh));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_not_there_is_waited_for_and_then_given_up() {
    // Bound, and nobody listens there.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let error = client_at(address, "assay_x").batch(1).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }) && error.exit_code() == EXIT_TRY_AGAIN);
    assert!(!error.to_string().contains("assay_x"));
    let mut args = watching(1, address, "assay_x", false);
    args.patience = 1;
    let (ended, _) = watch(args).await;
    assert_eq!(ended.unwrap_err().exit_code(), EXIT_TRY_AGAIN);
}

/// A server that gives the same answers for ever; counts connections.
async fn canned(answers: &'static [(&'static str, String)]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut request = vec![0; 8192];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let answer = answers.iter().find(|(known, _)| *known == path).map(|(_, answer)| answer.as_str());
            let answer =
                answer.unwrap_or("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, count)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}", body.len())
}

fn forever<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_else_answers_is_told_from_a_coordinator() {
    let (elsewhere, visits) = canned(&[]).await;
    let answers = forever(vec![
        ("/v1/batches/1", answer("200 OK", "content-type: text/html\r\n", "<html>hello</html>")),
        ("/v1/batches/2", answer("502 Bad Gateway", "", "<html>proxy</html>")),
        ("/v1/batches/3", answer("302 Found", &format!("location: http://{elsewhere}/v1/batches/3\r\n"), "")),
        ("/v1/batches/4", answer("404 Not Found", "", "<html>nothing</html>")),
        (
            "/v1/batches/5",
            answer("418 I'm a teapot", "", &json!({ "code": "short_and_stout", "title": "New" }).to_string()),
        ),
        ("/v1/batches/6", answer("200 OK", "", "{}")),
    ]);
    let (address, _) = canned(answers).await;
    let client = client_at(address, "assay_x");
    let mut kinds = Vec::new();
    for id in 1..=5 {
        kinds.push(client.batch(id).await.unwrap_err());
    }
    assert!(matches!(kinds[0], ClientError::NotOurs { .. }), "{}", kinds[0]);
    assert!(matches!(kinds[1], ClientError::Unreachable { .. }), "{}", kinds[1]);
    assert!(matches!(kinds[2], ClientError::NotOurs { .. }), "{}", kinds[2]);
    assert_eq!(visits.load(Ordering::SeqCst), 0, "the key went elsewhere");
    assert!(matches!(kinds[3], ClientError::NotOurs { .. }), "{}", kinds[3]);
    assert!(matches!(&kinds[4], ClientError::Problem(problem) if problem.status == 418), "{}", kinds[4]);
    // Another version's answer, without anything that this one knows.
    assert_eq!(client.batch(6).await.unwrap().value.batch.id, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_what_was_named_is_refused_and_nothing_is_left() {
    let right = blake3::hash(b"proof").to_hex().to_string();
    let listed = |name: &str, bytes: u64, blake3: &str| json!({ "batch": { "id": 1, "phase": "settled" }, "files": [{ "name": name, "bytes": bytes, "blake3": blake3 }] });
    let answers = forever(vec![
        ("/v1/batches/1/files/good", answer("200 OK", "", "proof")),
        ("/v1/batches/1/files/other", answer("200 OK", "", "prooF")),
        ("/v1/batches/1/files/long", answer("200 OK", "", "proof and more")),
        ("/v1/batches/1/files/short", answer("200 OK", "", "pro")),
    ]);
    let (address, _) = canned(answers).await;
    let client = client_at(address, "assay_x");
    let folder = tempfile::tempdir().unwrap();
    for name in ["other", "long", "short", "../good"] {
        let detail = serde_json::from_value(listed(name, 5, &right)).unwrap();
        let fetched = Download::fetch(&client, &detail, &folder.path().join("x")).await;
        assert!(matches!(fetched, Err(ClientError::Damaged { .. })), "{name}: {fetched:?}");
        assert!(names(folder.path()).is_empty(), "{name}");
    }
    let detail = serde_json::from_value(listed("good", 5, &right)).unwrap();
    let download = Download::fetch(&client, &detail, &folder.path().join("x")).await.unwrap();
    drop(download);
    assert!(names(folder.path()).is_empty(), "what is not kept is removed");
    let download = Download::fetch(&client, &detail, &folder.path().join("x")).await.unwrap();
    download.keep().unwrap();
    assert_eq!(std::fs::read(folder.path().join("x/good")).unwrap(), b"proof");
}
