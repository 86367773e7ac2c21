//! How fast a cluster dispatches: `dispatch [workers] [tasks] [rate]`, by default 1,000 workers, 10,000 empty tasks, 5,000 a
//! second.
//!
//! Three processes, as in a deployment: a redis-server of its own (append-only file, written out every second), this one
//! with a whole coordinator, and one with all workers. The coordinator is the real thing: event loop, machine, commits,
//! store in Redis, verification of every result before it counts, API, through which the batches come. The workers speak
//! the agent's protocol: registration, heartbeats, a mailbox each, which they empty, an output published for each task,
//! a result posted for each dispatch at once. They share a few connections, and send no receipts.
//!
//! The tasks are the parts (shards) that eight block controllers ask for. A task's output is the empty artifact, its input
//! one of sixteen bytes that is published before the clock starts and let go of by the coordinator after the task.
//!
//! Two measurements: all tasks asked for at once, from the first dispatch to the last delivery, which comes with the
//! acceptance (tasks/s); and tasks asked for one by one at a rate, from the request being posted to the dispatch in the
//! worker's hands (latency).

#[path = "dispatch/crew.rs"]
mod crew;
#[path = "dispatch/meter.rs"]
mod meter;
#[path = "dispatch/stand_in.rs"]
mod stand_in;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use assay_queue::testing::{RedisServer, ServerOptions};
use assay_queue::{
    ArtifactStore, ObjectsConfig, QueueLimits, RedisConfig, RedisQueue, SharedLimits, SharedStore, TaskQueue,
};
use assay_schedule::{Limits, PerKind};
use assay_service::keys::{new_key, KeyRing, Keys};
use assay_service::request::ClusterKey;
use assay_service::shared::Shared;
use assay_service::{Service, Settings, Supplies};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crew::{Seen, CONTROLLERS};
use meter::Times;
use stand_in::{batch, Empty};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Handle = (Arc<dyn TaskQueue>, Arc<dyn ArtifactStore>);

const DEPLOYMENT: &str = "dispatch";
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["--crew", url, folder, workers] = words[..] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(crew::main(url, folder, workers.parse()?));
    }
    let number = |at: usize, default: u64| words.get(at).map_or(Ok(default), |text| text.parse::<u64>());
    let (workers, tasks, rate) = (number(0, 1_000)?, number(1, 10_000)?, number(2, 5_000)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(workers, tasks.next_multiple_of(CONTROLLERS.into()), rate))
}

/// A process's own connections.
async fn open(url: &str, folder: &str) -> Result<Handle, Failure> {
    let config = || RedisConfig::new(url, DEPLOYMENT);
    let queue = RedisQueue::open(config(), QueueLimits::default()).await?;
    let objects = ObjectsConfig::new(format!("file://{folder}"));
    let store = SharedStore::open(config(), &objects, SharedLimits::default()).await?;
    Ok((Arc::new(queue), Arc::new(store)))
}

/// The process with the workers.
struct CrewProcess {
    child: Child,
    orders: ChildStdin,
    answers: Option<BufReader<ChildStdout>>,
}

impl Drop for CrewProcess {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl CrewProcess {
    fn start(url: &str, folder: &str, workers: u64) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--crew", url, folder, &workers.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (orders, answers) = (child.stdin.take().ok_or("no pipe")?, child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, orders, answers: Some(BufReader::new(answers)) })
    }

    fn order(&mut self, order: &str) -> Result<(), Failure> {
        Ok(writeln!(self.orders, "{order}")?)
    }

    async fn answer(&mut self) -> Result<String, Failure> {
        let mut answers = self.answers.take().ok_or("an answer is awaited already")?;
        let read = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            answers.read_line(&mut line).map(|_| (line, answers))
        });
        let (line, answers) = tokio::time::timeout(PATIENCE, read).await???;
        self.answers = Some(answers);
        Ok(line.trim().to_owned())
    }
}

/// What the bench does to the cluster.
struct Bench {
    server: RedisServer,
    crew: CrewProcess,
    shared: Arc<Shared>,
    http: reqwest::Client,
    base: String,
    key: String,
    batches: u64,
}

async fn measure(workers: u64, tasks: u64, rate: u64) -> Result<(), Failure> {
    let server = RedisServer::start_with(ServerOptions::with(&["--appendfsync everysec", "--maxmemory 2gb"]));
    let folder = tempfile::tempdir()?;
    let folder = folder.path().to_str().ok_or("a folder that is no text")?.to_owned();
    let (queue, store) = open(&server.url(), &folder).await?;
    let (key, hash) = new_key();
    let keys =
        format!("[[tenant]]\nid = 1\nname = \"bench\"\nkeys = [{{ name = \"k\", blake3 = \"{hash}\" }}]\n");
    let supplies = Supplies {
        queue,
        store,
        reader: Arc::new(Empty),
        verifier: Arc::new(Empty),
        settler: Arc::new(Empty),
        keys: Arc::new(KeyRing::fixed(Keys::parse(&keys)?)),
        cluster: ClusterKey::random(),
    };
    let settings = Settings { limits: limits(tasks), ..Settings::default() };
    let service = Service::new(supplies, settings);
    let shared = Arc::clone(service.shared());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    let (stop, stopping) = watch::channel(false);
    let coordinator = tokio::spawn(service.run(listener, stopping));
    let crew = CrewProcess::start(&server.url(), &folder, workers)?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let mut bench = Bench { server, crew, shared, http, base, key, batches: 0 };
    bench.wait_for_workers(workers).await?;
    println!(
        "{workers} workers, {tasks} tasks, {CONTROLLERS} controllers; limits: a task has one attempt at a time, none waits \
         for a faster worker, parts and tasks at the same time as many as asked for; load {}",
        meter::load()
    );
    bench.run("warm-up", tasks.min(1_000).next_multiple_of(CONTROLLERS.into()), 0).await?;
    bench.run("all at once", tasks, 0).await?;
    bench.run("at a rate", tasks, rate).await?;
    stop.send_replace(true);
    coordinator.await??;
    Ok(())
}

/// The schedule's, but for what these tasks need: empty ones take less time than it takes to measure them, so that speeds
/// mean nothing, and there are more of them than a batch has.
fn limits(tasks: u64) -> Limits {
    let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
    Limits {
        attempts_max: 1,
        patience_ms: 0,
        parts_max: tasks.max(4096),
        tenant_running_max: tasks.max(4096),
        memory_bytes: PerKind([1; 7]),
        ..Limits::default()
    }
}

impl Bench {
    async fn wait_for_workers(&self, workers: u64) -> Result<(), Failure> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Ok(state) = self.shared.read().await {
                if state.sessions().count() as u64 >= workers {
                    return Ok(());
                }
            }
            if tokio::time::Instant::now() > end {
                return Err("the workers do not come".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One batch from its submission to its settlement.
    async fn run(&mut self, name: &str, tasks: u64, rate: u64) -> Result<(), Failure> {
        self.crew.order(&format!("run {tasks} {rate}"))?;
        self.batches += 1;
        let request = self.http.post(format!("{}/v1/batches", self.base)).bearer_auth(&self.key);
        let answer = request.body(batch(self.batches)).send().await?.error_for_status()?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.bytes().await?)?;
        let id = answer["id"].as_u64().ok_or("a batch without a number")?;
        self.expect("ready").await?;
        let commits = self.commits().await?;
        self.server.command(&["CONFIG", "RESETSTAT"]);
        let pids = [std::process::id(), self.server_pid()?, self.crew.child.id()];
        let before = Times::of(pids);
        self.crew.order("go")?;
        let seen: Seen = serde_json::from_str(&self.expect("done").await?)?;
        let spent = Times::of(pids).per_task_us(before, tasks);
        let commits = self.commits().await?.since(commits);
        let redis = self.redis_us(tasks);
        report(name, tasks, rate, &seen, spent, commits);
        println!("    inside redis, us/task: {redis}");
        self.wait_for_end(id).await
    }

    async fn expect(&mut self, word: &str) -> Result<String, Failure> {
        let line = self.crew.answer().await?;
        match line.strip_prefix(word) {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => Err(format!("{word} is awaited, and there is: {line}").into()),
        }
    }

    async fn wait_for_end(&self, id: u64) -> Result<(), Failure> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let url = format!("{}/v1/batches/{id}", self.base);
            let answer = self.http.get(url).bearer_auth(&self.key).send().await?.error_for_status()?;
            let answer: serde_json::Value = serde_json::from_slice(&answer.bytes().await?)?;
            match answer["batch"]["phase"].as_str() {
                Some("settled") => return Ok(()),
                Some("failed" | "cancelled") => return Err(format!("batch {id}: {}", answer["batch"]).into()),
                _ if tokio::time::Instant::now() > end => return Err("the batch does not end".into()),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn server_pid(&self) -> Result<u32, Failure> {
        let info = self.server.info("server");
        let pid = info.lines().find_map(|line| line.strip_prefix("process_id:"));
        Ok(pid.ok_or("redis has no number")?.trim().parse()?)
    }

    /// Time inside the server's commands, those that take most first. A script's contains that of its commands.
    fn redis_us(&self, tasks: u64) -> String {
        let info = self.server.info("commandstats");
        let mut commands: Vec<(f64, f64, String)> = Vec::new();
        for line in info.lines() {
            let Some((name, fields)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(':'))
            else {
                continue;
            };
            let field = |name: &str| -> f64 {
                let found = fields.split(',').find_map(|field| field.strip_prefix(name));
                found.and_then(|value| value.parse().ok()).unwrap_or(0.0)
            };
            commands.push((field("usec="), field("calls="), name.to_owned()));
        }
        commands.sort_by(|one, other| other.0.total_cmp(&one.0));
        let tasks = tasks as f64;
        let told = commands
            .iter()
            .take(12)
            .map(|(us, calls, name)| format!("{name} {:.1} ({:.2} calls)", us / tasks, calls / tasks));
        told.collect::<Vec<_>>().join(", ")
    }

    async fn commits(&self) -> Result<Commits, Failure> {
        let text = self.http.get(format!("{}/metrics", self.base)).send().await?.text().await?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(0.0)
        };
        Ok(Commits {
            count: value("assay_commit_seconds_count "),
            seconds: value("assay_commit_seconds_sum "),
        })
    }
}

#[derive(Clone, Copy)]
struct Commits {
    count: f64,
    seconds: f64,
}

impl Commits {
    fn since(self, before: Self) -> Self {
        Self { count: self.count - before.count, seconds: self.seconds - before.seconds }
    }
}

fn report(name: &str, tasks: u64, rate: u64, seen: &Seen, spent: [f64; 3], commits: Commits) {
    let ms = |us: u64| us as f64 / 1000.0;
    let per_second = tasks as f64 / (seen.span_us.max(1) as f64 / 1e6);
    let offered = if rate == 0 { String::new() } else { format!(" ({rate} offered)") };
    println!(
        "{name}: {per_second:.0} tasks/s{offered}, {} dispatched, {} of them again",
        seen.picked, seen.repeated
    );
    let [median, p90, p99, longest] = seen.pick_us.map(ms);
    println!(
        "    pick latency, ms: median {median:.2}, 90 % {p90:.2}, 99 % {p99:.2}, longest {longest:.2}; the workers' \
         process was late by {:.2} (99 %)",
        ms(seen.late_us)
    );
    let spent: Vec<String> =
        Times::NAMES.iter().zip(spent).map(|(name, us)| format!("{name} {us:.0}")).collect();
    println!(
        "    CPU, us/task: {}; {:.0} commits of {:.1} tasks in {:.2} ms each; load {}",
        spent.join(", "),
        commits.count,
        tasks as f64 / commits.count.max(1.0),
        commits.seconds * 1000.0 / commits.count.max(1.0),
        meter::load()
    );
}
