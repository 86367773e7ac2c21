//! Which servers are accepted, and how they are reached: logins, TLS, Sentinels, Clusters.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use assay_queue::testing::{RedisServer, ServerOptions};
use assay_queue::{
    ArtifactStore, BackendError, Class, Commit, Cursor, Holder, Mailbox, ObjectsConfig, Position, QueueError,
    QueueLimits, RedisConfig, RedisQueue, Refusal, SharedStore, TaskQueue,
};
use common::config;
use redis::Value;

const LONG: Duration = Duration::from_secs(600);

async fn open(config: RedisConfig) -> Result<RedisQueue, BackendError> {
    RedisQueue::open(config, QueueLimits::default()).await
}

/// Every kind of call once, with a reader that has to be woken.
async fn works(queue: &RedisQueue, config: RedisConfig) {
    let mailbox = Mailbox::new("m").unwrap();
    let epoch = queue.lead("a", LONG).await.unwrap().unwrap();
    let cursor = queue.post(b"event".to_vec()).await.unwrap();
    assert_eq!(queue.events(Cursor(0), 9, LONG).await.unwrap().len(), 1);
    let reader = open(config).await.unwrap();
    let waiting = tokio::spawn({
        let mailbox = mailbox.clone();
        async move { reader.read(&mailbox, Cursor(0), 9, LONG).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut commit = Commit::new(cursor);
    commit.records = vec![b"record".to_vec()];
    commit.mails = vec![(mailbox.clone(), b"mail".to_vec())];
    let position = queue.commit(epoch, &commit).await.unwrap().position;
    let started = Instant::now();
    assert_eq!(waiting.await.unwrap().mails.len(), 1);
    // Rings get through: the reader would look by itself only after two seconds.
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    queue.checkpoint(epoch, position, b"state").await.unwrap();
    queue.forget(&mailbox, Cursor(1)).await.unwrap();
    assert_eq!(queue.load().await.unwrap().checkpoint.unwrap(), b"state");
    assert!(queue.leader().await.unwrap().is_some());
    queue.health().await.unwrap();
    queue.resign(epoch).await.unwrap();
}

async fn store_works(config: RedisConfig) {
    let folder = tempfile::tempdir().unwrap();
    let objects = ObjectsConfig::new(format!("file://{}", folder.path().display()));
    let store = SharedStore::open(config, &objects, common::shared_limits()).await.unwrap();
    for size in [10, 10_000] {
        let holder = Holder::new(format!("a/{size}")).unwrap();
        let hash = store.put(&holder, vec![7; size]).await.unwrap().hash;
        assert_eq!(store.get(&hash).await.unwrap(), vec![7; size]);
    }
    assert_eq!(store.holds(None, 9).await.unwrap().len(), 2);
    assert_eq!(store.revoke(&Holder::new("a").unwrap()).await.unwrap().artifacts, 2);
    store.sweep(Duration::ZERO).await.unwrap();
    assert_eq!(store.usage().await.unwrap().artifacts, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_evicts_is_refused_with_the_command_that_helps() {
    let server = RedisServer::start_with(ServerOptions::with(&["--maxmemory-policy allkeys-lru"]));
    let refused = open(config(server.url())).await.err().unwrap();
    assert!(
        matches!(&refused, BackendError::Refused(Refusal::Evicts { policy, .. }) if policy == "allkeys-lru")
    );
    assert_eq!(refused.class(), Class::Permanent);
    let text = refused.to_string();
    let command = text.split('`').nth(1).unwrap().strip_prefix("redis-cli ").unwrap().to_owned();
    // The command that the error names does help.
    server.command(&command.split(' ').collect::<Vec<_>>());
    let queue = open(config(server.url())).await.unwrap();
    assert_eq!(queue.health().await.unwrap().warnings, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_memory_limit_is_refused_with_the_command_that_helps() {
    let server = RedisServer::start_with(ServerOptions::with(&["--maxmemory 0"]));
    let refused = open(config(server.url())).await.err().unwrap();
    assert!(matches!(&refused, BackendError::Refused(Refusal::Unlimited { .. })), "{refused}");
    assert_eq!(refused.class(), Class::Permanent);
    let queue = open(config(format!("{}?memory=unlimited", server.url()))).await.unwrap();
    let warnings = queue.health().await.unwrap().warnings;
    assert_eq!(warnings.len(), 1, "it is warned of all the same: {warnings:?}");
    let text = refused.to_string();
    let command = text.split('`').nth(1).unwrap().strip_prefix("redis-cli ").unwrap().to_owned();
    server.command(&command.split(' ').collect::<Vec<_>>());
    let queue = open(config(server.url())).await.unwrap();
    assert_eq!(queue.health().await.unwrap().warnings, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_begins_to_evict_is_refused_at_the_next_connection() {
    let server = RedisServer::start();
    let queue = open(config(server.url())).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    let error = queue.post(b"e".to_vec()).await.unwrap_err();
    assert!(matches!(&error, QueueError::Backend(BackendError::Refused(Refusal::Evicts { .. }))), "{error}");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    queue.post(b"e".to_vec()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_too_many_clients_is_tried_again() {
    let server = RedisServer::start();
    let mut only = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut limit =
        |number| redis::cmd("CONFIG").arg(&["SET", "maxclients", number]).exec(&mut only).unwrap();
    limit("1");
    let hasty = RedisConfig { retry_for: Duration::from_millis(300), ..config(server.url()) };
    let error = open(hasty).await.err().unwrap();
    assert!(matches!(&error, BackendError::Unavailable { .. }), "{error}");
    let waiting = tokio::spawn(open(config(server.url())));
    tokio::time::sleep(Duration::from_millis(100)).await;
    limit("100");
    waiting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_of_the_manual_suffices_and_lesser_ones_are_told_what_they_lack() {
    let server = RedisServer::start();
    // The rights that the error message names.
    let rights = [
        "ACL",
        "SETUSER",
        "assay",
        "on",
        ">pa/ss@word",
        "~{assay:*",
        "&{assay:*",
        "+@read",
        "+@write",
        "+@scripting",
        "+@pubsub",
        "+@connection",
        "+info",
        "+time",
        "+wait",
        "+cluster",
    ];
    server.command(&rights);
    server.command(&["ACL", "SETUSER", "default", "nopass", "on"]);
    let address = format!("127.0.0.1:{}", server.port());
    let url = format!("redis://assay:pa%2Fss%40word@{address}");
    let queue = open(config(&url)).await.unwrap();
    works(&queue, config(&url)).await;
    store_works(config(&url)).await;

    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("password");
    std::fs::write(&secret, "pa/ss@word\n").unwrap();
    let by_file = RedisConfig { password_file: Some(secret), ..config(format!("redis://assay@{address}")) };
    open(by_file).await.unwrap().health().await.unwrap();

    let wrong = open(config(format!("redis://assay:secret@{address}"))).await.err().unwrap();
    assert!(matches!(&wrong, BackendError::Refused(Refusal::WrongPassword { .. })), "{wrong}");
    assert!(wrong.to_string().contains("ASSAY_REDIS_PASSWORD_FILE"), "{wrong}");
    assert!(wrong.to_string().contains("ACL SETUSER") && !wrong.to_string().contains("secret"), "{wrong}");
    assert_eq!(wrong.class(), Class::Permanent);
    for lacking in ["-info", "-evalsha", "-xadd", "-time", "resetkeys", "resetchannels", "-subscribe"] {
        server.command(&["ACL", "SETUSER", "assay", lacking]);
        let opened = open(config(&url)).await;
        let error = match opened {
            Err(error) => error,
            Ok(queue) => {
                let mailbox = Mailbox::new("x").unwrap();
                let lead = queue.lead("x", LONG).await.map(drop);
                let post = lead.and(queue.post(b"e".to_vec()).await.map(drop));
                let wait = queue.read(&mailbox, Cursor(0), 1, Duration::from_secs(1)).await;
                match post.and(wait.map(drop)) {
                    Err(QueueError::Backend(error)) => error,
                    other => panic!("{lacking}: {other:?}"),
                }
            }
        };
        assert!(error.to_string().contains("ACL SETUSER"), "{lacking}: {error}");
        assert_eq!(error.class(), Class::Permanent, "{lacking}");
        server.command(&rights);
    }
    // From here on nobody is let in without a login, not even this test.
    server.command(&["ACL", "SETUSER", "default", "off"]);
    let without = open(config(format!("redis://{address}"))).await.err().unwrap();
    assert!(matches!(&without, BackendError::Refused(Refusal::NoPassword { .. })), "{without}");
    assert!(without.to_string().contains("ASSAY_REDIS_PASSWORD_FILE"), "{without}");
    assert_eq!(without.class(), Class::Permanent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_on_one_server_do_not_see_each_other() {
    let server = RedisServer::start();
    let one = open(config(server.url())).await.unwrap();
    let two = open(RedisConfig { name: "two".to_owned(), ..config(server.url()) }).await.unwrap();
    one.post(b"e".to_vec()).await.unwrap();
    one.lead("a", LONG).await.unwrap();
    assert_eq!(two.events(Cursor(0), 9, Duration::ZERO).await.unwrap(), []);
    assert_eq!(two.lead("b", LONG).await.unwrap().unwrap().0, 1);
}

/// An authority, and a certificate and key for 127.0.0.1 signed by it, as PEM files.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        // Subjects differ, or the server takes what the authority signed for signed by itself.
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = parameters.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(parameters, key);
        let server_key = rcgen::KeyPair::generate().unwrap();
        let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let server = server.signed_by(&server_key, &issuer).unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(folder.path().join("cert.pem"), server.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), server_key.serialize_pem()).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_works_with_the_right_authority_only() {
    let certificates = Certificates::new();
    let (ca, cert, key) =
        (certificates.path("ca.pem"), certificates.path("cert.pem"), certificates.path("key.pem"));
    let tls = Some((cert.clone(), key.clone(), ca.clone()));
    let server = RedisServer::start_with(ServerOptions { tls, ..ServerOptions::default() });
    let good = RedisConfig {
        ca_file: Some(ca),
        client_files: Some((cert, key)),
        retry_for: Duration::from_secs(2),
        ..config(server.url())
    };
    let queue = open(good.clone()).await.unwrap();
    works(&queue, good.clone()).await;
    store_works(good.clone()).await;

    let other = Certificates::new();
    let stranger = RedisConfig { ca_file: Some(other.path("ca.pem")), ..good.clone() };
    let anonymous = RedisConfig { client_files: None, ..good.clone() };
    let plain = RedisConfig {
        ca_file: None,
        client_files: None,
        ..config(format!("redis://127.0.0.1:{}", server.port()))
    };
    let plain = RedisConfig { retry_for: Duration::from_secs(2), ..plain };
    for (name, bad) in [("stranger", stranger), ("anonymous", anonymous), ("plain", plain)] {
        assert!(open(bad).await.is_err(), "{name}");
    }
    let mixed = RedisConfig { url: format!("redis://127.0.0.1:{}", server.port()), ..good };
    assert!(matches!(open(mixed).await, Err(BackendError::Config { .. })));
}

/// A replica needs a moment to be one.
async fn has_replica(master: &RedisServer) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let Value::BulkString(info) = master.command(&["INFO", "replication"]) else { panic!("a text") };
        if String::from_utf8_lossy(&info).contains("state=online") {
            return;
        }
        assert!(Instant::now() < deadline, "the replica does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_master_and_to_its_successor() {
    let mut master = RedisServer::start();
    let replica =
        RedisServer::start_with(ServerOptions::with(&[&format!("--replicaof 127.0.0.1 {}", master.port())]));
    let watch = [
        format!("sentinel monitor main 127.0.0.1 {} 1", master.port()),
        "sentinel down-after-milliseconds main 3000".to_owned(),
        "sentinel failover-timeout main 2000".to_owned(),
    ];
    // A sentinel that does not see the replica at its first look does so ten seconds later.
    has_replica(&master).await;
    let options = ServerOptions { is_sentinel: true, arguments: watch.to_vec(), ..ServerOptions::default() };
    let sentinel = RedisServer::start_with(options);
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port());
    // The second host does not exist: any of them will do.
    let url = url.replace("/main", ",127.0.0.1:1/main");
    let config = RedisConfig { replicas_min: 1, retry_for: Duration::from_secs(40), ..config(&url) };
    let queue = open(config.clone()).await.unwrap();
    works(&queue, config).await;
    let epoch = queue.lead("a", LONG).await.unwrap().unwrap();
    let mut commit = Commit::new(Cursor(1));
    commit.records = vec![b"one".to_vec()];
    assert_eq!(queue.commit(epoch, &commit).await.unwrap().position, Position(2));

    master.kill();
    // The successor has no replica: such a change would not be safe, and is not reported as done.
    let alone = RedisConfig { retry_for: Duration::from_secs(40), ..common::config(&url) };
    let successor = open(alone).await.unwrap();
    let stored = successor.load().await.unwrap();
    assert_eq!((stored.position, stored.records), (Position(2), vec![b"one".to_vec()]), "nothing is lost");
    assert_eq!(successor.leader().await.unwrap().unwrap().epoch, epoch);
    commit.id = assay_queue::CommitId::random();
    assert_eq!(successor.commit(epoch, &commit).await.unwrap().position, Position(3));
    drop((replica, sentinel));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_replicas_are_no_success() {
    let server = RedisServer::start();
    let config = RedisConfig {
        replicas_min: 1,
        response_timeout: Duration::from_secs(1),
        retry_for: Duration::from_secs(2),
        ..config(server.url())
    };
    let queue = open(config).await.unwrap();
    let error = queue.post(b"e".to_vec()).await.unwrap_err();
    assert!(matches!(&error, QueueError::Backend(BackendError::Unavailable { .. })), "{error}");
    assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_counts_when_a_replica_has_it_and_not_before() {
    let master = RedisServer::start();
    let replica =
        RedisServer::start_with(ServerOptions::with(&[&format!("--replicaof 127.0.0.1 {}", master.port())]));
    has_replica(&master).await;
    let config = RedisConfig {
        replicas_min: 1,
        response_timeout: Duration::from_secs(4),
        retry_for: Duration::from_secs(6),
        ..config(master.url())
    };
    let queue = open(config).await.unwrap();
    let epoch = queue.lead("a", LONG).await.unwrap().unwrap();
    let commit = Commit { records: vec![b"record".to_vec()], ..Commit::new(Cursor(0)) };
    // The master has it, and says so at every repetition, over new connections that have written nothing.
    replica.pause(true);
    let error = queue.commit(epoch, &commit).await.unwrap_err();
    assert!(matches!(&error, QueueError::Backend(BackendError::Unavailable { .. })), "{error}");
    replica.pause(false);
    let committed = queue.commit(epoch, &commit).await.unwrap();
    assert_eq!((committed.position, committed.is_repeated), (Position(1), true));
    let Value::Int(records) = replica.command(&["XLEN", "{assay:test}:log"]) else { panic!("a number") };
    assert_eq!(records, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_holds_a_deployment_on_one_of_its_nodes() {
    let node = || RedisServer::start_with(ServerOptions::with(&["--cluster-enabled yes"]));
    let nodes = [node(), node(), node()];
    for (at, range) in [("0", "5460"), ("5461", "10922"), ("10923", "16383")].into_iter().enumerate() {
        nodes[at].command(&["CLUSTER", "ADDSLOTSRANGE", range.0, range.1]);
        nodes[at].command(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
    }
    for node in &nodes[1..] {
        node.command(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port().to_string()]);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let is_whole = |node: &RedisServer| {
        let Value::BulkString(info) = node.command(&["CLUSTER", "INFO"]) else { return false };
        let info = String::from_utf8_lossy(&info).into_owned();
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
    };
    while !nodes.iter().all(is_whole) {
        assert!(Instant::now() < deadline, "the cluster does not form");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let hosts: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    // Names that live on different nodes, each reached by way of any.
    for name in ["test", "a", "b", "c"] {
        let config =
            RedisConfig { name: name.to_owned(), ..config(format!("redis+cluster://{}", hosts.join(","))) };
        let queue = open(config.clone()).await.unwrap();
        works(&queue, config.clone()).await;
        store_works(config).await;
    }
    let used = nodes.iter().filter(|node| node.command(&["DBSIZE"]) != Value::Int(0)).count();
    assert!(used > 1, "more than one node is used");
    nodes[1].command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let refused = open(config(format!("redis+cluster://{}", hosts[0]))).await.err().unwrap();
    assert!(
        matches!(refused, BackendError::Refused(Refusal::Evicts { .. })),
        "any node may become responsible"
    );
}

/// Calls of a command so far.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let info = server.info("commandstats");
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_reader_that_comes_back_looks_when_it_rings_and_not_before() {
    let server = RedisServer::start();
    let queue = open(config(server.url())).await.unwrap();
    let reader = open(config(server.url())).await.unwrap();
    let mailbox = Mailbox::new("m").unwrap();
    let epoch = queue.lead("a", LONG).await.unwrap().unwrap();
    let send = async || {
        let mut commit = Commit::new(Cursor(0));
        commit.mails = vec![(mailbox.clone(), b"mail".to_vec())];
        queue.commit(epoch, &commit).await.unwrap();
    };
    let late = async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        send().await;
    };
    // The first one subscribes, and has to look once more after that.
    let (first, ()) = tokio::join!(reader.read(&mailbox, Cursor(0), 9, LONG), late());
    let mut cursor = first.unwrap().mails[0].cursor;
    for round in 1..=3 {
        let before = calls(&server, "xrange");
        let (page, ()) = tokio::join!(reader.read(&mailbox, cursor, 9, LONG), late());
        cursor = page.unwrap().mails[0].cursor;
        assert_eq!(calls(&server, "xrange") - before, 1, "round {round}");
    }
    // One that has been rung for while nobody listened is found at once.
    send().await;
    let page = reader.read(&mailbox, cursor, 9, LONG).await.unwrap();
    assert_eq!(page.mails.len(), 1);
    // And whoever has read less looks.
    assert_eq!(reader.read(&mailbox, cursor, 9, LONG).await.unwrap(), page);
}
