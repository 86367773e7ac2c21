//! Restarts, takeovers, standbys.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{Cursor, Durability, EmbeddedQueue, FolderStore, Holder, QueueLimits, StoreLimits};
use assay_schedule::{AttemptId, Event, Hash, Kind, Profile, Report, WorkerId};
use assay_service::leader::LeaderError;
use assay_service::work::Ledger;
use assay_service::{names, ServiceError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::agent::Habits;
use crate::cluster::{until, Cluster, PATIENCE};
use crate::simple::Shape;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_dies_in_the_middle_is_replaced_and_no_shard_is_proved_again() {
    let mut cluster = Cluster::new();
    // A task that is thought to be late would be done twice.
    cluster.settings.limits.attempts_max = 1;
    let mut node = cluster.node().await;
    let habits = Habits { delay: Duration::from_millis(30), ..Habits::default() };
    let agents = [cluster.agent(1, habits.clone()), cluster.agent(2, habits)];
    let shape = Shape { runs: 3, shards: 8, ..Shape::new(1) };
    let id = node.client.submitted("key", shape).await;
    for (at, gracefully) in [(4, false), (12, true), (20, false)] {
        until("some shards are proved", || async {
            agents.iter().map(|agent| agent.shards.load(Ordering::SeqCst)).sum::<usize>() >= at
        })
        .await;
        match gracefully {
            true => node.stop().await,
            false => node.kill(),
        }
        node = cluster.node().await;
        assert_ne!(node.client.phase(id).await, "", "the batch is known at once");
    }
    node.client.wait_for(id, "settled").await;
    let parts = agents.iter().map(|agent| agent.shards.load(Ordering::SeqCst)).sum::<usize>();
    assert_eq!(parts, 3 * 9 + 9, "parts of three blocks and the fold, each once");
    let (_, detail) = node.client.get(&format!("/v1/batches/{id}")).await;
    let is_part = |span: &&serde_json::Value| span["kind"] == "shard" || span["kind"] == "reduce";
    let spans = detail["spans"].as_array().unwrap();
    assert_eq!(
        spans.iter().filter(is_part).filter(|span| span["state"] != "accepted").count(),
        0,
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_serves_reads_and_writes_and_takes_over() {
    let cluster = Cluster::new();
    let leader = cluster.node().await;
    until("the first one leads", || async { leader.client.get("/ready").await.1["role"] == "leading" }).await;
    let standby = cluster.node().await;
    assert_eq!(standby.client.get("/ready").await.1["role"], "standby");

    // A write through the standby is granted by the leader, and both know it.
    let id = standby.client.submitted("key", Shape::new(1)).await;
    assert_eq!(leader.client.phase(id).await, "proving");
    assert_eq!(standby.client.phase(id).await, "proving");
    let (status, body) = standby.client.submit("key", Shape::new(1).next()).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("idempotency_key_reused")));

    let _agent = cluster.agent(1, Habits { delay: Duration::from_millis(20), ..Habits::default() });
    until("the standby sees tasks done", || async {
        standby.client.get(&format!("/v1/batches/{id}")).await.1["batch"]["tasks_done"].as_u64() > Some(2)
    })
    .await;
    leader.kill();
    until("the standby leads", || async { standby.client.get("/ready").await.1["role"] == "leading" }).await;
    standby.client.wait_for(id, "settled").await;
    // What was followed is what is stored: a third one that loads everything says the same.
    let third = cluster.node().await;
    let of = |client: crate::cluster::Client| async move {
        let (_, mut detail) = client.get(&format!("/v1/batches/{id}")).await;
        detail["now_ms"] = 0.into();
        detail
    };
    until("both say the same", || async {
        of(third.client.clone()).await == of(standby.client.clone()).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_queue_was_put_back_begins_anew_with_what_is_stored() {
    let queue = EmbeddedQueue::in_memory(QueueLimits::default());
    let mut cluster = Cluster::new();
    cluster.queue = Arc::new(queue.clone());
    let node = cluster.node().await;
    let standby = cluster.node().await;
    let first = node.client.submitted("first", Shape::new(1)).await;
    until("the standby follows", || async { standby.client.phase(first).await == "proving" }).await;
    let snapshot = queue.snapshot();
    let lost = node.client.submitted("second", Shape::new(2)).await;
    until("the standby knows it", || async { standby.client.phase(lost).await == "proving" }).await;
    queue.put_back(&snapshot);
    // The leader may not know it yet; then the submission is lost with it, and repeated as the answer says.
    let mut answer = (503, serde_json::Value::Null);
    until("the lost batch is taken again", || {
        let client = node.client.clone();
        async move { client.submit("third", Shape::new(3)).await.0 == 201 }
    })
    .await;
    until("it is not known any more", || {
        let client = node.client.clone();
        async move { client.submit("second", Shape::new(2)).await.0 == 201 }
    })
    .await;
    answer.1 = node.client.get("/v1/batches").await.1;
    assert_eq!(answer.1["batches"].as_array().map(Vec::len), Some(3), "{}", answer.1);
    // Everybody says what is stored.
    let third = cluster.node().await;
    for client in [&standby.client, &third.client] {
        until("all say the same", || async { client.get("/v1/batches").await.1 == answer.1 }).await;
    }
    let _agent = cluster.agent(1, Habits::default());
    node.client.wait_for(first, "settled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_coordinators_that_start_together_agree_on_one_leader() {
    let cluster = Cluster::new();
    let (one, two) = tokio::join!(cluster.node(), cluster.node());
    until("one leads and the other follows", || async {
        let (one, two) = (one.client.get("/ready").await.1, two.client.get("/ready").await.1);
        let mut roles = [one["role"].as_str().unwrap(), two["role"].as_str().unwrap()];
        roles.sort_unstable();
        roles == ["leading", "standby"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_and_forgeries_in_the_inbox_change_nothing() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let id = node.client.submitted("key", Shape::new(1)).await;
    let forged = format!(r#"{{"cancel":{{"tenant":1,"batch":{id}}}}}"#);
    let sealed = assay_service::request::ClusterKey::new(b"another cluster").seal(
        &assay_service::request::Post::Request(Box::new(assay_service::request::Request {
            id: assay_service::request::RequestId::random(),
            command: assay_service::request::Command::Cancel {
                tenant: assay_schedule::TenantId(1),
                batch: assay_schedule::BatchId(id),
            },
        })),
    );
    let messages: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"not json".to_vec(),
        vec![0xff; 4096],
        forged.into_bytes(),
        sealed,
        br#"{"take_over":{"epoch":99999}}"#.to_vec(),
        br#"{"heartbeat":{"worker":1,"session":1,"running":[]}}"#.to_vec(),
        br#"{"about":{"worker":1,"name":"","devices":[],"build":""}}"#.to_vec(),
        br#"{"receipt":{"receipt":{}}}"#.to_vec(),
        vec![b'['; 900_000],
        // As large as the queue takes: with what stands around it, it would not fit into the log.
        [br#"{"join":""#.to_vec(), vec![b'x'; (1 << 20) - 20], b"\"}".to_vec()].concat(),
    ];
    for message in messages {
        cluster.queue.post(message).await.unwrap();
    }
    let _agent = cluster.agent(1, Habits::default());
    node.client.wait_for(id, "settled").await;
    until("everything was read", || async { cluster.queue.health().await.unwrap().events == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_short_and_idle_coordinators_cost_little() {
    let mut cluster = Cluster::new();
    cluster.settings.leader.checkpoint_records = 20;
    cluster.settings.leader.tick = Duration::from_millis(5);
    let node = cluster.node().await;
    let standby = cluster.node().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cluster.queue.health().await.unwrap().records < 60);
    // The mailbox of the standby is emptied as it reads.
    let log = cluster.queue.read(&names::log(), Cursor(0), 4096, Duration::ZERO).await.unwrap();
    assert!(!log.mails.is_empty());
    node.stop().await;
    until("the standby leads", || async { standby.client.get("/ready").await.1["role"] == "leading" }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_is_missed_and_its_mailbox_is_closed() {
    let mut cluster = Cluster::new();
    cluster.settings.limits.worker_lease_ms = 1500;
    let node = cluster.node().await;
    let slow = Habits { delay: Duration::from_secs(600), ..Habits::default() };
    let dying = cluster.agent(1, slow);
    let id = node.client.submitted("key", Shape::new(1)).await;
    until("it has work", || async { node.client.get("/v1/workers").await.1["workers"][0]["running"] == 1 })
        .await;
    drop(dying);
    until("it is gone", || async {
        node.client.get("/v1/workers").await.1["workers"][0]["present"] == false
    })
    .await;
    let _other = cluster.agent(2, Habits::default());
    node.client.wait_for(id, "settled").await;
    let metrics = node.client.get("/metrics").await.1;
    assert!(metrics.as_str().unwrap().contains("assay_attempts_total{kind=\"execute\",state=\"revoked\"} 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_told_that_a_result_has_arrived_though_nothing_else_is_for_it() {
    let cluster = Cluster::new();
    let _node = cluster.node().await;
    let profile =
        Profile { kinds: Kind::ALL.to_vec(), version: 1, memory_bytes: 1, slots: 1, controllers: 1 };
    let (worker, session) = (WorkerId(9), 3);
    let result = |number| {
        let report = Report::Transient { reason: "none".into() };
        Event::Result { worker, session, attempt: AttemptId(number), report }
    };
    let mut events = vec![Event::Join { worker, session, profile }];
    // Attempts that it never had: refused for good, which it is told as well.
    events.extend([7, 8].map(result));
    for event in events {
        cluster.queue.post(serde_json::to_vec(&event).unwrap()).await.unwrap();
    }
    let mailbox = names::worker(worker, session);
    let (mut told, mut cursor) = (Vec::new(), Cursor(0));
    while told.len() < 2 {
        let page = cluster.queue.read(&mailbox, cursor, 9, PATIENCE).await.unwrap();
        assert!(!page.mails.is_empty(), "not told within {PATIENCE:?}");
        cursor = page.mails[page.mails.len() - 1].cursor;
        told.extend(page.mails.into_iter().map(|mail| String::from_utf8(mail.bytes).unwrap()));
    }
    assert_eq!(told, [r#"{"closed":{"attempt":7}}"#, r#"{"closed":{"attempt":8}}"#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_nearly_full_holds_back_what_makes_it_fuller() {
    let folder = tempfile::tempdir().unwrap();
    let limits = StoreLimits { bytes_max: 100_000, ..StoreLimits::default() };
    let mut cluster = Cluster::new();
    cluster.store = Arc::new(FolderStore::open(folder.path(), limits, Durability::Process).unwrap());
    let node = cluster.node().await;
    let client = &node.client;
    let oldest = client.submitted("1", Shape::new(1)).await;
    let younger = client.submitted("2", Shape::new(2)).await;
    let wait = |id: u64| async move {
        let detail = client.get(&format!("/v1/batches/{id}")).await.1;
        detail["tasks"][0]["wait"]["code"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!((wait(oldest).await.as_str(), wait(younger).await.as_str()), ("no_worker", "no_worker"));
    let holder = Holder::new("somebody/else").unwrap();
    cluster.store.put(&holder, vec![7; 95_000]).await.unwrap();
    until("the younger batch is held back", || async { wait(younger).await == "store_full" }).await;
    assert_eq!(wait(oldest).await, "no_worker", "the oldest goes on, else nothing would ever be consumed");
    cluster.store.release(&holder).await.unwrap();
    until("it is not any more", || async { wait(younger).await == "no_worker" }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_full_does_not_keep_the_next_coordinator_from_leading() {
    let mut cluster = Cluster::new();
    cluster.queue =
        Arc::new(EmbeddedQueue::in_memory(QueueLimits { records_max: 800, ..QueueLimits::default() }));
    cluster.settings.leader.tick = Duration::from_millis(3);
    cluster.settings.leader.checkpoint_records = u64::MAX;
    let node = cluster.node().await;
    let id = node.client.submitted("key", Shape::new(1)).await;
    until("the log is full", || async { cluster.queue.health().await.unwrap().records == 800 }).await;
    node.kill();
    cluster.settings.leader.checkpoint_records = 20;
    let node = cluster.node().await;
    let _agent = cluster.agent(1, Habits::default());
    node.client.wait_for(id, "settled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_that_is_under_way_is_answered_before_the_coordinator_stops() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let (address, body) = (node.address, Shape::new(1).bytes());
    let head = format!(
        "POST /v1/batches HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\
         expect: 100-continue\r\n\r\n",
        cluster.key,
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // Asked to go on: the request is being handled.
    let mut go_on = [0; 25];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut go_on)).await.unwrap().unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    let stopping = tokio::spawn(node.stop());
    until("it takes no more connections", || async { TcpStream::connect(address).await.is_err() }).await;
    stream.write_all(&body).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    stopping.await.unwrap();
    let next = cluster.node().await;
    assert_eq!(next.client.get("/v1/batches").await.1["batches"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_passes_while_the_inbox_is_never_empty() {
    let mut cluster = Cluster::new();
    cluster.settings.leader.turn_events_max = 1;
    cluster.settings.leader.tick = Duration::from_millis(5);
    cluster.settings.leader.checkpoint_records = u64::MAX;
    let node = cluster.node().await;
    let junk = vec![b"null".to_vec(); 4096];
    for _ in 0..8 {
        cluster.queue.post_all(&junk).await.unwrap();
    }
    let begun = cluster.queue.health().await.unwrap();
    assert!(begun.events > 10_000, "{begun:?}");
    let mut last = begun.clone();
    // The records of ticks; junk leaves none.
    while last.records <= begun.records + 2 {
        assert!(last.events > 0, "no tick until the inbox was empty");
        tokio::time::sleep(Duration::from_millis(1)).await;
        last = cluster.queue.health().await.unwrap();
    }
    drop(node);
}

/// Where the tests' coordinators say that they settle.
fn ledger(number: u8) -> Option<Ledger> {
    Some(Ledger { id: Hash([number; 32]), place: format!("folder {number}") })
}

fn is_refused(error: &ServiceError, expected: u8, got: Option<Ledger>) {
    let ServiceError::Leader(LeaderError::Ledger { expected: known, got: theirs }) = error else {
        panic!("{error}")
    };
    assert_eq!((Some(known), theirs), (ledger(expected).as_ref(), &got));
    assert!(error.to_string().contains(&format!("folder {expected}")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_with_another_ledger_neither_stands_by_nor_leads() {
    let mut cluster = Cluster::new();
    cluster.ledger = ledger(1);
    let leader = cluster.node().await;
    until("the first one leads", || async { leader.client.get("/ready").await.1["role"] == "leading" }).await;
    let same = cluster.node().await;
    assert_eq!(same.client.get("/ready").await.1["role"], "standby");

    // With an empty folder, or without any: refused while another one leads.
    for other in [ledger(2), None] {
        cluster.ledger = other.clone();
        is_refused(&cluster.refused().await, 1, other);
    }
    // And when nobody leads: it gives the lease back and settles nothing.
    let _agent = cluster.agent(1, Habits::default());
    let id = leader.client.submitted("key", Shape::new(1)).await;
    leader.client.wait_for(id, "settled").await;
    same.kill();
    leader.kill();
    cluster.ledger = ledger(2);
    is_refused(&cluster.refused().await, 1, ledger(2));
    cluster.ledger = ledger(1);
    let again = cluster.node().await;
    assert_eq!(again.client.phase(id).await, "settled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_with_another_ledger_settles_nothing_of_what_waits_for_it() {
    let mut cluster = Cluster::new();
    cluster.ledger = ledger(1);
    cluster.bitcoin.is_stuck.store(true, Ordering::SeqCst);
    let leader = cluster.node().await;
    let _agent = cluster.agent(1, Habits::default());
    let id = leader.client.submitted("key", Shape::new(1)).await;
    until("the batch is being settled", || async { cluster.bitcoin.settlements.load(Ordering::SeqCst) > 0 })
        .await;

    // Beside the leader, and then with nobody else there to settle it.
    (cluster.ledger, cluster.bitcoin) = (ledger(2), Arc::default());
    is_refused(&cluster.refused().await, 1, ledger(2));
    leader.kill();
    is_refused(&cluster.refused().await, 1, ledger(2));
    assert_eq!(cluster.bitcoin.settlements.load(Ordering::SeqCst), 0);

    cluster.ledger = ledger(1);
    let right = cluster.node().await;
    right.client.wait_for(id, "settled").await;
    assert_ne!(cluster.bitcoin.settlements.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_without_a_ledger_takes_the_first_one_that_leads() {
    let mut cluster = Cluster::new();
    let first = cluster.node().await;
    let _agent = cluster.agent(1, Habits::default());
    let id = first.client.submitted("key", Shape::new(1)).await;
    first.client.wait_for(id, "settled").await;
    first.stop().await;
    cluster.ledger = ledger(1);
    cluster.node().await.stop().await;
    cluster.ledger = ledger(2);
    is_refused(&cluster.refused().await, 1, ledger(2));
}
