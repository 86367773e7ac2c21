//! The cluster: Redis, coordinators and workers as child processes, each with a proxy between it and Redis.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, PoisonError};

use assay_queue::{BackendError, RedisQueue, SharedStore};
use assay_service::keys::new_key;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::child::Process;
use crate::client::Client;
use crate::error::ChaosError;
use crate::options::{FaultKind, Options, Weakness};
use crate::plan::Target;
use crate::process::{open_queue, open_store, Part, ProcessConfig, WrongPermille};
use crate::proxy::Proxy;
use crate::redis_server::{Port, RedisServer};

/// How often a process that ended by itself is started again.
const RESTARTS_MAX: u32 = 3;

/// Who has ended by itself; a list that many tasks append to.
#[derive(Debug, Default)]
pub(crate) struct Exits(std::sync::Mutex<Vec<String>>);

impl Exits {
    fn add(&self, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }
}

/// A process and what is needed to start it again. Whoever holds it does something to it.
pub(crate) struct Slot {
    name: String,
    executable: PathBuf,
    arguments: Vec<String>,
    file: PathBuf,
    log: PathBuf,
    config: ProcessConfig,
    process: Option<Process>,
    restarts: u32,
    exits: Arc<Exits>,
}

/// A coordinator or a worker.
pub(crate) struct Node {
    pub(crate) target: Target,
    pub(crate) proxy: Proxy,
    /// Held while the connections are meddled with.
    pub(crate) link: Arc<Mutex<()>>,
    slot: Arc<Mutex<Slot>>,
}

impl Slot {
    pub(crate) fn kill(&mut self) {
        self.note_end();
        self.process = None;
    }

    pub(crate) fn start(&mut self) -> Result<(), ChaosError> {
        let text = serde_json::to_vec_pretty(&self.config).unwrap_or_default();
        std::fs::write(&self.file, text).map_err(ChaosError::file("write", &self.file))?;
        let mut command = Command::new(&self.executable);
        command.args(&self.arguments).arg(&self.file);
        let program = self.executable.display().to_string();
        let started = Process::start(&mut command, &self.log);
        self.process = Some(started.map_err(|source| ChaosError::Start { program, source })?);
        Ok(())
    }

    pub(crate) fn pause(&self, is_paused: bool) {
        if let Some(process) = &self.process {
            process.pause(is_paused);
        }
    }

    /// From the next start on.
    pub(crate) fn set_clock(&mut self, offset_ms: i64) {
        if let Part::Coordinator { clock_offset_ms, .. } = &mut self.config.part {
            *clock_offset_ms = offset_ms;
        }
    }

    /// Writes down that the process has ended by itself, if it has.
    fn note_end(&mut self) -> bool {
        let Some(status) = self.process.as_mut().and_then(Process::ended) else { return false };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        self.exits.add(format!("{} ended by itself: {status}: {last}", self.name));
        self.process = None;
        true
    }
}

impl Node {
    /// Takes the process for a fault; `None` while another one has it.
    pub(crate) fn take(&self) -> Option<OwnedMutexGuard<Slot>> {
        Arc::clone(&self.slot).try_lock_owned().ok()
    }

    /// Takes it, once nobody else has it.
    pub(crate) async fn wait(&self) -> OwnedMutexGuard<Slot> {
        Arc::clone(&self.slot).lock_owned().await
    }
}

/// The cluster; all its processes end when it is dropped.
pub(crate) struct Cluster {
    pub(crate) dir: PathBuf,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) client: Client,
    /// This program's own look at queue and store, past all proxies.
    pub(crate) queue: RedisQueue,
    pub(crate) store: SharedStore,
    pub(crate) wrong: Option<WrongPermille>,
    pub(crate) weaken: Option<Weakness>,
    /// Batches that the client has a number of.
    pub(crate) accepted: AtomicU32,
    exits: Arc<Exits>,
    /// Of the coordinators, also while these are dead.
    _ports: Vec<Port>,
    // Last: it ends after those that use it.
    pub(crate) redis: Arc<Mutex<RedisServer>>,
}

impl Cluster {
    /// Starts everything in a folder.
    pub(crate) async fn start(dir: &Path, seed: u64, options: &Options) -> Result<Self, ChaosError> {
        for name in ["store", "posted", "nodes"] {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).map_err(ChaosError::file("create", &path))?;
        }
        let redis = RedisServer::start(&dir.join("redis"), options.weaken != Some(Weakness::NoAof))?;
        let look = |what| move |error: BackendError| ChaosError::look(what, error);
        let queue = open_queue(&redis.url()).await.map_err(look("queue"))?;
        let store =
            open_store(&redis.url(), &dir.join("store"), options.weaken).await.map_err(look("store"))?;
        let (key, hash) = new_key();
        let reserved = (0..options.coordinators).map(|_| Port::reserve()).collect::<Result<Vec<_>, _>>()?;
        let ports: Vec<u16> = reserved.iter().map(|port| port.number).collect();
        let client = Client::new(&ports, key).map_err(|error| ChaosError::look("API", error))?;
        let wrong = options.has(FaultKind::Wrong).then_some(WrongPermille {
            seed,
            // Where nothing is verified, so many that some matter.
            wrong: if options.weaken == Some(Weakness::AcceptAll) { 500 } else { 30 },
            fail: 30,
            hang: 5,
            slow: 30,
            slow_ms: 8 * options.task_ms,
        });
        let mut cluster = Self {
            dir: dir.to_owned(),
            nodes: Vec::new(),
            client,
            queue,
            store,
            wrong,
            weaken: options.weaken,
            accepted: AtomicU32::new(0),
            exits: Arc::default(),
            _ports: reserved,
            redis: Arc::new(Mutex::new(redis)),
        };
        let keys = format!(
            "[[tenant]]\nid = 1\nname = \"chaos\"\nbatches_max = 4096\nrequests_per_second = 1e6\n\
             burst = 1000000\nkeys = [{{ name = \"chaos\", blake3 = \"{hash}\" }}]\n"
        );
        for (number, port) in (0..).zip(ports) {
            let part = Part::Coordinator {
                port,
                keys: keys.clone(),
                posted: dir.join("posted"),
                clock_offset_ms: 0,
                task_ms: options.task_ms,
            };
            cluster.add(Target::Coordinator(number), part, &options.program.coordinator, options).await?;
        }
        for number in 0..options.workers {
            let work_dir = dir.join("nodes").join(format!("worker-{number}"));
            let part = Part::Worker { number, work_dir, task_ms: options.task_ms, wrong };
            cluster.add(Target::Worker(number), part, &options.program.worker, options).await?;
        }
        Ok(cluster)
    }

    async fn add(
        &mut self,
        target: Target,
        part: Part,
        arguments: &[String],
        options: &Options,
    ) -> Result<(), ChaosError> {
        let executable = match &options.program.executable {
            Some(path) => path.clone(),
            None => std::env::current_exe()
                .map_err(|source| ChaosError::System { what: "find this program", source })?,
        };
        let system = |source| ChaosError::System { what: "start a proxy", source };
        let proxy = Proxy::start(self.redis.lock().await.port()).await.map_err(system)?;
        let (name, nodes) = (target.to_string(), self.dir.join("nodes"));
        let mut slot = Slot {
            executable,
            arguments: arguments.to_vec(),
            file: nodes.join(format!("{}.json", name.replace(' ', "-"))),
            log: nodes.join(format!("{}.log", name.replace(' ', "-"))),
            config: ProcessConfig {
                redis: proxy.url(),
                store: self.dir.join("store"),
                weaken: options.weaken,
                part,
            },
            process: None,
            restarts: 0,
            exits: Arc::clone(&self.exits),
            name,
        };
        slot.start()?;
        let node = Node { target, proxy, link: Arc::default(), slot: Arc::new(Mutex::new(slot)) };
        self.nodes.push(Arc::new(node));
        Ok(())
    }

    /// Whom a fault hits now; `None`: nobody leads, or Redis.
    pub(crate) async fn node(&self, target: Target) -> Option<Arc<Node>> {
        let target = match target {
            Target::Leader => Target::Coordinator(u32::try_from(self.client.leader().await?).ok()?),
            other => other,
        };
        self.nodes.iter().find(|node| node.target == target).cloned()
    }

    /// Looks whether a process has ended by itself, and starts it again.
    pub(crate) fn supervise(&self) -> Result<(), ChaosError> {
        for node in &self.nodes {
            let Some(mut slot) = node.take() else { continue };
            if slot.note_end() && slot.restarts < RESTARTS_MAX {
                slot.restarts += 1;
                slot.start()?;
            }
        }
        if let Ok(mut redis) = self.redis.try_lock() {
            if let Some(status) = redis.ended() {
                self.exits.add(format!("redis ended by itself: {status}"));
                redis.launch()?;
            }
        }
        Ok(())
    }

    /// Ends coordinators and workers; Redis stays.
    pub(crate) async fn stop(&self) {
        for node in &self.nodes {
            node.slot.lock().await.kill();
        }
    }

    /// Processes that have ended by themselves.
    pub(crate) fn exits(&self) -> Vec<String> {
        self.exits.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where large artifacts are.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }
}
