//! Coordinators, their queue and store, and a client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{
    ArtifactStore, Durability, EmbeddedQueue, FolderStore, QueueLimits, StoreLimits, TaskQueue,
};
use assay_schedule::{ChainId, Limits, PerKind};
use assay_service::api::ApiLimits;
use assay_service::keys::{new_key, KeyRing, Keys};
use assay_service::leader::LeaderConfig;
use assay_service::request::ClusterKey;
use assay_service::server::ServerLimits;
use assay_service::webhook::CallbackPolicy;
use assay_service::work::{BatchReader, Ledger};
use assay_service::{Service, ServiceError, Settings, Supplies};
use base64::Engine as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::agent::{Agent, Habits};
use crate::simple::{Bitcoin, Shape, Simple};

pub(crate) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Longest wait of a test for something that happens in milliseconds, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub queue: Arc<dyn TaskQueue>,
    pub store: Arc<dyn ArtifactStore>,
    pub key: String,
    pub other_key: String,
    pub operator_key: String,
    pub settings: Settings,
    pub reader: Arc<dyn BatchReader>,
    /// Those of the coordinators that are started from now on.
    pub ledger: Option<Ledger>,
    /// Where the coordinators settle that are started from now on.
    pub bitcoin: Arc<Bitcoin>,
    pub lacks: Vec<ChainId>,
    pub version: Option<u32>,
    keys: Arc<KeyRing>,
    _folder: TempDir,
}

/// A coordinator.
pub(crate) struct Node {
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), ServiceError>>,
    pub client: Client,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self::with_keys("batches_max = 100\nrequests_per_second = 10000.0\nburst = 10000")
    }

    /// A cluster whose first tenant has these settings.
    pub(crate) fn with_keys(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let limits = StoreLimits { bytes_max: 1 << 30, ..StoreLimits::default() };
        let store = FolderStore::open(&folder.path().join("store"), limits, Durability::Process).unwrap();
        let ((key, hash), (other_key, other_hash)) = (new_key(), new_key());
        let (operator_key, operator_hash) = new_key();
        let secret = base64::engine::general_purpose::STANDARD.encode(SECRET);
        let text = format!(
            "[[tenant]]\nid = 1\nname = \"one\"\nwebhook_secret = \"whsec_{secret}\"\n{settings}\n\
             keys = [{{ name = \"k\", blake3 = \"{hash}\" }}]\n\
             [[tenant]]\nid = 2\nname = \"two\"\nkeys = [{{ name = \"k\", blake3 = \"{other_hash}\" }}]\n\
             [[operator]]\nname = \"o\"\nkeys = [{{ name = \"k\", blake3 = \"{operator_hash}\" }}]\n",
        );
        Self {
            queue: Arc::new(EmbeddedQueue::in_memory(QueueLimits::default())),
            store: Arc::new(store),
            key,
            other_key,
            operator_key,
            settings: Settings {
                limits: Limits { backoff_ms: 10, memory_bytes: PerKind([1; 7]), ..Limits::default() },
                api: ApiLimits { stream_pause: Duration::from_millis(5), ..ApiLimits::default() },
                callbacks: CallbackPolicy { allow_private: true },
                leader: LeaderConfig {
                    lease: Duration::from_millis(600),
                    tick: Duration::from_millis(50),
                    ..LeaderConfig::default()
                },
                ..Settings::default()
            },
            reader: Arc::new(Simple::default()),
            ledger: None,
            bitcoin: Arc::default(),
            lacks: Vec::new(),
            version: None,
            keys: Arc::new(KeyRing::fixed(Keys::parse(&text).unwrap())),
            _folder: folder,
        }
    }

    pub(crate) fn agent(&self, worker: u64, habits: Habits) -> Agent {
        Agent::start(Arc::clone(&self.queue), Arc::clone(&self.store), worker, habits)
    }

    /// A coordinator that does not run.
    pub(crate) fn service(&self) -> Service {
        let (ledger, lacks) = (self.ledger.clone(), self.lacks.clone());
        let bitcoin = Arc::clone(&self.bitcoin);
        let build = Arc::new(Simple { ledger, bitcoin, lacks, version: self.version });
        let supplies = Supplies {
            queue: Arc::clone(&self.queue),
            store: Arc::clone(&self.store),
            reader: Arc::clone(&self.reader),
            verifier: build.clone(),
            settler: build,
            keys: Arc::clone(&self.keys),
            cluster: ClusterKey::new(b"cluster"),
        };
        Service::new(supplies, self.settings.clone())
    }

    /// Starts a coordinator and waits until it ends by itself.
    pub(crate) async fn refused(&self) -> ServiceError {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_stop, stopping) = watch::channel(false);
        tokio::time::timeout(PATIENCE, self.service().run(listener, stopping)).await.unwrap().unwrap_err()
    }

    /// Starts a coordinator and waits until it serves a state.
    pub(crate) async fn node(&self) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let service = self.service();
        let task = tokio::spawn(service.run(listener, stopping));
        let node = Node { address, stop, task, client: Client::new(address, &self.key) };
        until("the coordinator is ready", || async { node.client.get("/ready").await.0 == 200 }).await;
        node
    }
}

impl Node {
    /// Stops in good order.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        (&mut self.task).await.unwrap().unwrap();
    }

    /// Tells it to stop, and waits no longer than `time`.
    pub(crate) async fn stop_within(mut self, time: Duration) -> bool {
        self.stop.send_replace(true);
        tokio::time::timeout(time, &mut self.task).await.is_ok_and(|ended| ended.unwrap().is_ok())
    }

    /// Dies.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

/// Waits until something holds.
pub(crate) async fn until<F: std::future::Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A client with a key.
#[derive(Clone)]
pub(crate) struct Client {
    pub base: String,
    key: String,
    http: reqwest::Client,
}

/// Status, body.
pub(crate) type Answer = (u16, Value);

impl Client {
    pub(crate) fn new(address: SocketAddr, key: &str) -> Self {
        // Half of the time after which the coordinator closes a connection that nobody uses: a request that is sent while it
        // does would be reset.
        let idle = ServerLimits::default().header_time / 2;
        let http = reqwest::Client::builder().no_proxy().pool_idle_timeout(idle).build().unwrap();
        Self { base: format!("http://{address}"), key: key.into(), http }
    }

    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: key.into(), ..self.clone() }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().unwrap();
        let request = self.http.request(method, format!("{}{path}", self.base));
        if self.key.is_empty() {
            return request;
        }
        request.header("authorization", format!("Bearer {}", self.key))
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let bytes = answer.bytes().await.unwrap();
        let body = match kind.as_deref() {
            Some("application/json" | "application/problem+json") => serde_json::from_slice(&bytes).unwrap(),
            _ => Value::String(String::from_utf8_lossy(&bytes).into_owned()),
        };
        if status >= 400 && status != 503 || status == 503 && body.get("code").is_some() {
            assert_eq!(kind.as_deref(), Some("application/problem+json"), "{status} {body}");
            assert_eq!(body["status"], status, "{body}");
        }
        (status, body)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path)).await
    }

    pub(crate) async fn submit(&self, key: &str, shape: Shape) -> Answer {
        self.send(self.request("POST", "/v1/batches").header("idempotency-key", key).body(shape.bytes()))
            .await
    }

    /// Submits and returns the number.
    pub(crate) async fn submitted(&self, key: &str, shape: Shape) -> u64 {
        let (status, body) = self.submit(key, shape).await;
        assert_eq!(status, 201, "{body}");
        body["id"].as_u64().unwrap()
    }

    pub(crate) async fn phase(&self, id: u64) -> String {
        let (_, body) = self.get(&format!("/v1/batches/{id}")).await;
        body["batch"]["phase"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) async fn wait_for(&self, id: u64, phase: &str) {
        let what = format!("batch {id} is {phase}");
        until(&what, || async {
            let now = self.phase(id).await;
            let is_over = ["settled", "failed", "cancelled"].contains(&now.as_str());
            assert!(now == phase || !is_over, "batch {id} is {now}, not {phase}");
            now == phase
        })
        .await;
    }
}
