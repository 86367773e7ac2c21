//! A [`Runner`] that does each task in a child process, over lines of text.
//!
//! What the lines say is the business of [`Jobs`], which the binary supplies; this module starts, feeds, measures and
//! ends processes. Each has its own process group and is told to leave by the end of its input, which the system also
//! brings about when the agent dies, however it dies. A process may be kept for the next task of its class on its
//! device, for what it has loaded; it is ended before its memory is needed by another one.
//!
//! | what happens | what the task is told |
//! |---|---|
//! | killed by the kernel, past its memory limit, or an allocation failed | [`Failure::OutOfMemory`] |
//! | nothing heard for [`ChildSettings::silence_max`], no part outstanding | [`Failure::Transient`] |
//! | on a GPU nothing heard for [`ChildSettings::gpu_silence_max`], no part outstanding | [`DeviceFault::Hung`] |
//! | ended before its job was done | [`Failure::Transient`], with the last line of its log |
//! | says so | what it says; out of its GPU's memory: what waits on that GPU is ended too |

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use assay_schedule::Hash;
use async_trait::async_trait;
use tokio::sync::oneshot;

pub use super::process::Program;
use super::process::{describe, last_line, Heard, Process};
use super::sys::Exit;
use super::{
    Device, DeviceFault, Ended, Failure, GpuFaults, GpuShare, Host, NewFile, Part, PartError, Progress,
    Runner, Task, Used,
};

/// How often a child is looked at when it says nothing.
const TICK: Duration = Duration::from_millis(200);
/// How often memory and time are sampled.
const SAMPLE: Duration = Duration::from_secs(1);
/// How long the output of a child that has ended may stay open, held by a descendant.
const LINGER: Duration = Duration::from_secs(2);
/// Logs that are kept.
const LOGS_MAX: usize = 512;

/// How children are treated.
#[derive(Clone, Debug)]
pub struct ChildSettings {
    /// Standard error of attempt `n` goes to `n.log` here.
    pub log_dir: PathBuf,
    /// How long a child may take to leave before it is killed.
    pub grace: Duration,
    /// A child that says nothing for this long hangs.
    pub silence_max: Duration,
    /// The same for one that works on a GPU: its tasks take seconds.
    pub gpu_silence_max: Duration,
    /// A child that uses more than this share of the memory set aside for it is killed.
    pub memory_limit_percent: u64,
    /// Memory of all children together, those kept ready included.
    pub memory_bytes: u64,
}

/// What a line of a child means.
#[derive(Debug)]
pub enum Meaning {
    /// Nothing.
    Noise,
    /// How far it is.
    Progress(Progress),
    /// It wants a part proved; the answer goes to [`Talk::part_done`].
    Part(Part),
    /// The child is to be told something.
    Say(Vec<String>),
    /// The task is done. `gpu_ms`: for how long the device was busy, if the child measures it.
    Done {
        /// Its outputs, in order.
        outputs: Vec<NewFile>,
        /// See above.
        gpu_ms: Option<u64>,
    },
    /// The task has failed; the child is ended.
    Failed(Failure),
    /// The task has failed and nothing else has: the child keeps what it has loaded and takes the next task.
    GivenBack(Failure),
}

/// The variable in which a child finds the bytes of its GPU's memory that it may use. Not set: nobody has said.
pub const DEVICE_MEMORY_VARIABLE: &str = "ASSAY_DEVICE_MEMORY_BYTES";

/// One task's conversation with a child.
pub trait Talk: Send {
    /// What the child is told first.
    fn open(&mut self) -> Vec<String>;

    /// Understands a line.
    fn hear(&mut self, line: &str) -> Meaning;

    /// A part has ended: what the child is told.
    fn part_done(&mut self, key: &Hash, result: Result<Vec<PathBuf>, PartError>) -> Vec<String>;

    /// Jobs that the child has been given over this conversation.
    fn jobs(&self) -> u64;

    /// What the child has said of its GPU so far that did not end its task.
    fn gpu_faults(&self) -> GpuFaults {
        GpuFaults::default()
    }
}

/// What tasks mean to children.
pub trait Jobs: Send + Sync + 'static {
    /// What is started for a task.
    fn program(&self, task: &Task) -> Program;

    /// Tasks of the same class on the same device may be done by the same process, one after the other; `None`: it gets a
    /// process of its own.
    fn class(&self, task: &Task) -> Option<String>;

    /// Whether a task that was given a GPU works on it; what does not is not taken for a hang of the GPU.
    fn works_on_gpu(&self, _task: &Task) -> bool {
        true
    }

    /// Begins a task with a child that has been given `jobs_before` jobs by earlier ones.
    ///
    /// # Errors
    /// A task that cannot be put into jobs.
    fn begin(&self, task: &Task, jobs_before: u64) -> Result<Box<dyn Talk>, Failure>;

    /// Whether a device that was taken out of service can be given tasks again: it is the driver who knows its GPUs.
    fn has(&self, device: Device) -> bool {
        device == Device::Cpu || crate::devices::gpus().iter().any(|(known, _)| *known == device)
    }
}

/// Runs tasks in child processes.
pub struct ChildRunner<J> {
    jobs: Arc<J>,
    shared: Arc<Shared>,
}

struct Shared {
    settings: ChildSettings,
    gpus: BTreeMap<Device, GpuShare>,
    pool: Mutex<Pool>,
}

/// Processes that are kept ready, and the memory of those at work.
#[derive(Default)]
struct Pool {
    ready: Vec<Ready>,
    busy_bytes: u64,
    /// Tasks that run, by device.
    busy: BTreeMap<Device, u32>,
}

impl Pool {
    fn begin(&mut self, device: Device, memory_bytes: u64) {
        self.busy_bytes += memory_bytes;
        *self.busy.entry(device).or_default() += 1;
    }

    fn end(&mut self, device: Device, memory_bytes: u64) {
        self.busy_bytes -= memory_bytes;
        if let Some(tasks) = self.busy.get_mut(&device) {
            *tasks -= 1;
        }
    }
}

struct Ready {
    class: String,
    device: Device,
    memory_bytes: u64,
    worker: Worker,
}

/// A process and how many jobs it was given.
struct Worker {
    process: Process,
    jobs: u64,
}

impl<J: Jobs> ChildRunner<J> {
    /// Starts nothing yet.
    pub fn new(jobs: J, settings: ChildSettings) -> Self {
        let shared = Shared { settings, gpus: BTreeMap::new(), pool: Mutex::default() };
        Self { jobs: Arc::new(jobs), shared: Arc::new(shared) }
    }

    /// As many children at the same time on these GPUs, each told how much of its memory it may use ([`DEVICE_MEMORY_VARIABLE`]). On a
    /// GPU that is not named there is one.
    #[must_use]
    pub fn with_gpus(mut self, gpus: BTreeMap<Device, GpuShare>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.gpus = gpus;
        }
        self
    }

    /// Ends processes that wait for their next task.
    async fn end_ready(&self, which: impl Fn(&Ready) -> bool + Send + 'static) {
        let shared = self.shared.clone();
        // Takes up to the grace time.
        let _ = tokio::task::spawn_blocking(move || shared.end_ready(which)).await;
    }

    /// Processes that wait for their next task.
    pub fn ready(&self) -> usize {
        self.shared.pool().ready.len()
    }
}

#[async_trait]
impl<J: Jobs> Runner for ChildRunner<J> {
    async fn run(&self, task: Task, host: Host) -> Ended {
        let (jobs, shared) = (self.jobs.clone(), self.shared.clone());
        let runtime = tokio::runtime::Handle::current();
        let (sender, ended) = oneshot::channel();
        // A thread of its own: it lives as long as the task and mostly waits.
        std::thread::spawn(move || {
            let _ = sender.send(run(&*jobs, &shared, &task, &host, &runtime));
        });
        ended.await.unwrap_or_else(|_| failed(Failure::Transient("the runner's thread is gone".into())))
    }

    async fn has(&self, device: Device) -> bool {
        let jobs = self.jobs.clone();
        tokio::task::spawn_blocking(move || jobs.has(device)).await.unwrap_or(false)
    }

    async fn let_go(&self, device: Device) {
        self.end_ready(move |ready| ready.device == device).await;
    }

    async fn close(&self) {
        self.end_ready(|_| true).await;
    }
}

fn failed(failure: Failure) -> Ended {
    Ended { result: Err(failure), used: Used::default() }
}

fn run<J: Jobs>(
    jobs: &J,
    shared: &Arc<Shared>,
    task: &Task,
    host: &Host,
    runtime: &tokio::runtime::Handle,
) -> Ended {
    let class = jobs.class(task);
    let memory_bytes = task.dispatch.memory_bytes;
    let mut worker = match shared.take(class.as_deref(), task.device, memory_bytes) {
        Some(worker) => worker,
        None => match Process::start(&shared.with_device(jobs.program(task), task.device)) {
            Ok(process) => Worker { process, jobs: 0 },
            Err(error) => {
                shared.pool().end(task.device, memory_bytes);
                return failed(Failure::Transient(format!("the task's process does not start: {error}")));
            }
        },
    };
    let log = shared.settings.log_dir.join(format!("{}.log", task.dispatch.attempt));
    prune_logs(&shared.settings.log_dir);
    if let Err(error) = worker.process.log_to(Some(&log)) {
        tracing::warn!(log = %log.display(), %error, "no log");
    }
    let (ended, is_sound) = match jobs.begin(task, worker.jobs) {
        Ok(talk) => {
            let (results, parts) = mpsc::channel();
            let drive = Drive {
                settings: &shared.settings,
                task,
                is_on_gpu: task.device != Device::Cpu && jobs.works_on_gpu(task),
                host,
                runtime,
                log: &log,
                talk,
                results,
                parts,
                outstanding: BTreeMap::new(),
                meter: Meter::start(&worker.process),
            };
            drive.run(&mut worker)
        }
        Err(failure) => (failed(failure), false),
    };
    if matches!(ended.result, Err(Failure::Device(DeviceFault::Allocation))) {
        // Perhaps it was theirs that was missing; the next attempt finds it free.
        shared.end_ready(|ready| ready.device == task.device);
    }
    shared.give_back(worker, class.filter(|_| is_sound), task);
    ended
}

impl Shared {
    /// The GPU that a process sees, and how much of its memory is for it.
    fn with_device(&self, mut program: Program, device: Device) -> Program {
        let visible = match device {
            Device::Cpu => String::new(),
            Device::Gpu(number) => number.to_string(),
        };
        program.environment.push(("CUDA_VISIBLE_DEVICES".to_owned(), visible));
        // Numbers as the driver's tools give them; CUDA would count the fastest GPU first.
        program.environment.push(("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()));
        if let Some(bytes) = self.share(device).memory_bytes {
            program.environment.push((DEVICE_MEMORY_VARIABLE.to_owned(), bytes.to_string()));
        }
        program
    }

    fn share(&self, device: Device) -> GpuShare {
        self.gpus.get(&device).copied().unwrap_or_default()
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, mut worker: Worker) {
        worker.process.end(self.settings.grace);
    }

    /// Ends processes that wait for their next task.
    fn end_ready(&self, which: impl Fn(&Ready) -> bool) {
        let ended: Vec<Ready> = {
            let mut pool = self.pool();
            let (ended, kept) = pool.ready.drain(..).partition(which);
            pool.ready = kept;
            ended
        };
        ended.into_iter().for_each(|ready| self.end(ready.worker));
    }

    /// Counts a task's memory as used; gives it a process that is ready for it, and ends those that are in its way, the oldest
    /// first: on the same GPU, as far as no more may be there, or holding memory that it needs.
    fn take(&self, class: Option<&str>, device: Device, memory_bytes: u64) -> Option<Worker> {
        let mut in_the_way = Vec::new();
        let found = {
            let mut pool = self.pool();
            pool.begin(device, memory_bytes);
            let (dead, alive) = pool.ready.drain(..).partition(|ready| ready.worker.process.has_ended());
            pool.ready = alive;
            in_the_way.extend::<Vec<Ready>>(dead);
            let fits = |ready: &Ready| Some(ready.class.as_str()) == class && ready.device == device;
            let found = pool.ready.iter().position(fits).map(|at| pool.ready.remove(at));
            if device != Device::Cpu {
                let busy = pool.busy.get(&device).copied().unwrap_or_default();
                let mut room = self.share(device).processes.saturating_sub(busy);
                let newest_first = pool.ready.drain(..).rev();
                let (kept, ended): (Vec<Ready>, Vec<Ready>) = newest_first.partition(|ready| {
                    let stays = ready.device != device || room > 0;
                    room -= u32::from(stays && ready.device == device);
                    stays
                });
                pool.ready = kept.into_iter().rev().collect();
                in_the_way.extend(ended);
            }
            let mut held: u64 = pool.ready.iter().map(|ready| ready.memory_bytes).sum();
            while held + pool.busy_bytes > self.settings.memory_bytes && !pool.ready.is_empty() {
                let oldest = pool.ready.remove(0);
                held -= oldest.memory_bytes;
                in_the_way.push(oldest);
            }
            found
        };
        in_the_way.into_iter().for_each(|ready| self.end(ready.worker));
        found.map(|ready| ready.worker)
    }

    /// Keeps a process for the next task of its class, or ends it.
    fn give_back(&self, worker: Worker, class: Option<String>, task: &Task) {
        let memory_bytes = task.dispatch.memory_bytes;
        match class.filter(|_| !worker.process.has_ended()) {
            Some(class) => {
                if let Err(error) = worker.process.log_to(None) {
                    tracing::debug!(%error, "the log is not closed");
                }
                let mut pool = self.pool();
                pool.end(task.device, memory_bytes);
                pool.ready.push(Ready { class, device: task.device, memory_bytes, worker });
            }
            None => {
                self.end(worker);
                self.pool().end(task.device, memory_bytes);
            }
        }
    }
}

/// Removes the oldest logs beyond [`LOGS_MAX`]. Attempts are numbered, so the oldest has the lowest number.
fn prune_logs(dir: &std::path::Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let mut logs: Vec<(u64, PathBuf)> =
        entries.flatten().map(|entry| entry.path()).filter_map(|path| Some((number(&path)?, path))).collect();
    logs.sort_unstable();
    let surplus = logs.len().saturating_sub(LOGS_MAX - 1);
    for (_, path) in logs.drain(..surplus) {
        let _ = std::fs::remove_file(path);
    }
}

/// Why a task has failed.
enum Broken {
    /// And its child with it.
    Child(Failure),
    /// Its child is sound.
    Task(Failure),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Child(failure)
    }
}

type PartResult = (Hash, Result<Vec<PathBuf>, PartError>);
/// What a task has made, and device time in ms if the child knows it.
type Answer = (Vec<NewFile>, Option<u64>);

/// One task with one process.
struct Drive<'a> {
    settings: &'a ChildSettings,
    task: &'a Task,
    is_on_gpu: bool,
    host: &'a Host,
    runtime: &'a tokio::runtime::Handle,
    log: &'a std::path::Path,
    talk: Box<dyn Talk>,
    results: Sender<PartResult>,
    parts: Receiver<PartResult>,
    /// Parts that are asked for.
    outstanding: BTreeMap<Hash, ()>,
    meter: Meter,
}

impl Drive<'_> {
    /// How the task ended, and whether its child can be given another.
    fn run(mut self, worker: &mut Worker) -> (Ended, bool) {
        let jobs_before = worker.jobs;
        let waker = worker.process.waker();
        let host = self.host.clone();
        let watcher = self.runtime.spawn(async move {
            host.cancelled().await;
            waker.wake();
        });
        let result = self.talk(worker);
        watcher.abort();
        worker.jobs = jobs_before + self.talk.jobs();
        let is_sound = !matches!(result, Err(Broken::Child(_)));
        if is_sound {
            self.meter.sample(&worker.process);
        }
        let (result, gpu_ms) = match result {
            Ok((outputs, gpu_ms)) => (Ok(outputs), gpu_ms),
            Err(Broken::Task(failure)) => (Err(failure), None),
            Err(Broken::Child(failure)) => {
                let exit = worker.process.end(self.settings.grace);
                self.meter.exit(exit);
                (Err(failure), None)
            }
        };
        let used = Used { gpu_ms, gpu_faults: self.talk.gpu_faults(), ..self.meter.used() };
        // Most errors of CUDA last as long as the process that met them: a new one may get the GPU back.
        (Ended { result, used }, is_sound && used.gpu_faults.fallbacks == 0)
    }

    fn talk(&mut self, worker: &mut Worker) -> Result<Answer, Broken> {
        let opening = self.talk.open();
        self.say(worker, opening)?;
        let (mut heard_at, mut sampled_at) = (Instant::now(), Instant::now());
        let mut gone_since = None;
        loop {
            if self.host.is_cancelled() {
                return Err(Failure::Cancelled.into());
            }
            while let Ok((key, result)) = self.parts.try_recv() {
                self.outstanding.remove(&key);
                heard_at = Instant::now();
                let lines = self.talk.part_done(&key, result);
                self.say(worker, lines)?;
            }
            if sampled_at.elapsed() >= SAMPLE {
                sampled_at = Instant::now();
                self.check_memory(worker)?;
            }
            match worker.process.listen(TICK) {
                Heard::Line(line) => {
                    heard_at = Instant::now();
                    if let Some(done) = self.hear(worker, &line)? {
                        return Ok(done);
                    }
                }
                Heard::Ended => return Err(self.post_mortem(worker).into()),
                Heard::Nothing if worker.process.has_ended() => {
                    let since: &mut Instant = gone_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > LINGER {
                        return Err(self.post_mortem(worker).into());
                    }
                }
                Heard::Nothing => {}
            }
            if self.outstanding.is_empty() && heard_at.elapsed() > self.silence_max() {
                worker.process.kill();
                return Err(self.silent().into());
            }
        }
    }

    fn silence_max(&self) -> Duration {
        if self.is_on_gpu {
            self.settings.gpu_silence_max
        } else {
            self.settings.silence_max
        }
    }

    fn silent(&self) -> Failure {
        let reason = format!("the task's process said nothing for {:?}", self.silence_max());
        if self.is_on_gpu {
            Failure::Device(DeviceFault::Hung(reason))
        } else {
            Failure::Transient(reason)
        }
    }

    fn hear(&mut self, worker: &mut Worker, line: &str) -> Result<Option<Answer>, Broken> {
        match self.talk.hear(line) {
            Meaning::Noise => tracing::debug!(attempt = %self.task.dispatch.attempt, line, "noise"),
            Meaning::Progress(progress) => self.host.progress(progress),
            Meaning::Part(part) => self.ask(worker, part),
            Meaning::Say(lines) => self.say(worker, lines)?,
            Meaning::Done { outputs, gpu_ms } => return Ok(Some((outputs, gpu_ms))),
            Meaning::Failed(failure) => return Err(failure.into()),
            Meaning::GivenBack(failure) => return Err(Broken::Task(failure)),
        }
        Ok(None)
    }

    fn ask(&mut self, worker: &Worker, part: Part) {
        let key = part.key;
        if self.outstanding.insert(key, ()).is_some() {
            return;
        }
        let (host, results, waker) = (self.host.clone(), self.results.clone(), worker.process.waker());
        self.runtime.spawn(async move {
            let result = host.part(part).await;
            // A task that has ended wants no results.
            let _ = results.send((key, result));
            waker.wake();
        });
    }

    fn say(&self, worker: &mut Worker, lines: Vec<String>) -> Result<(), Failure> {
        for line in lines {
            if !worker.process.say(line) {
                // It is ending: its last words say why.
                while let Heard::Line(_) = worker.process.listen(LINGER) {}
                return Err(self.post_mortem(worker));
            }
        }
        Ok(())
    }

    fn check_memory(&mut self, worker: &mut Worker) -> Result<(), Failure> {
        let resident = self.meter.sample(&worker.process);
        let limit = self.task.dispatch.memory_bytes / 100 * self.settings.memory_limit_percent;
        if limit > 0 && resident > limit {
            worker.process.kill();
            tracing::warn!(attempt = %self.task.dispatch.attempt, resident, limit, "killed: too much memory");
            return Err(Failure::OutOfMemory);
        }
        Ok(())
    }

    /// Why a process that has ended by itself has done so.
    fn post_mortem(&self, worker: &mut Worker) -> Failure {
        let exit = worker.process.end(self.settings.grace);
        let last = last_line(self.log);
        let killed = exit.is_some_and(|exit| killed_by_the_system(&exit)) && !worker.process.was_killed();
        let no_allocation = last.as_deref().is_some_and(|line| line.contains("memory allocation of"));
        if killed || no_allocation {
            return Failure::OutOfMemory;
        }
        let last = last.map(|line| format!(": {line}")).unwrap_or_default();
        Failure::Transient(format!("the task's process {}{last}", describe(exit)))
    }
}

/// Signal 9 that nobody here has sent is the kernel's, which needed memory.
fn killed_by_the_system(exit: &Exit) -> bool {
    use std::os::unix::process::ExitStatusExt;
    exit.status.signal() == Some(9)
}

/// Memory and processor time of one task of a process that may do several.
struct Meter {
    cpu_before: Duration,
    cpu: Duration,
    memory_bytes_peak: u64,
}

impl Meter {
    fn start(process: &Process) -> Self {
        process.forget_peak();
        let cpu = process.group_use().unwrap_or_default().cpu;
        Self { cpu_before: cpu, cpu, memory_bytes_peak: 0 }
    }

    /// Looks at the process and returns its group's resident memory.
    fn sample(&mut self, process: &Process) -> u64 {
        let now = process.group_use().unwrap_or_default();
        self.cpu = self.cpu.max(now.cpu);
        self.memory_bytes_peak = self.memory_bytes_peak.max(now.resident_bytes).max(process.peak_bytes());
        now.resident_bytes
    }

    fn exit(&mut self, exit: Option<Exit>) {
        if let Some(exit) = exit {
            self.cpu = self.cpu.max(exit.cpu);
            if self.cpu_before.is_zero() {
                self.memory_bytes_peak = self.memory_bytes_peak.max(exit.memory_bytes_peak);
            }
        }
    }

    fn used(&self) -> Used {
        let cpu = self.cpu.saturating_sub(self.cpu_before);
        Used {
            cpu_ms: u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX),
            memory_bytes_peak: self.memory_bytes_peak,
            ..Used::default()
        }
    }
}

#[cfg(test)]
mod tests;
