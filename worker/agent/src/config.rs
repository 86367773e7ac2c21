//! Configuration of a worker's binary: defaults < file < environment < flags, validated once.
//!
//! The file is `assay-worker.toml` in the current folder, or the one that `--config` names. Unknown fields are errors. The
//! sample file `worker/agent/worker.sample.toml` shows every field with its default.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use assay_queue::{ObjectsConfig, RedisConfig};
use assay_schedule::Kind;
use serde::Deserialize;

use crate::agent::AgentConfig;
use crate::runner::{Device, GpuShare};

/// Name of the file that is read if it exists.
pub const FILE_NAME: &str = "assay-worker.toml";
/// The environment variables that are read.
pub const VARIABLES: [&str; 17] = [
    "ASSAY_REDIS",
    "ASSAY_REDIS_PASSWORD_FILE",
    "ASSAY_DEPLOYMENT",
    "ASSAY_STORE",
    "ASSAY_WORKER_NAME",
    "ASSAY_WORKER_DIR",
    "ASSAY_WORKER_KEY_FILE",
    "ASSAY_WORKER_DEVICES",
    "ASSAY_WORKER_SLOTS",
    "ASSAY_WORKER_CONTROLLERS",
    "ASSAY_WORKER_MEMORY_GIB",
    "ASSAY_WORKER_DEVICE_MEMORY_GIB",
    "ASSAY_WORKER_KINDS",
    "ASSAY_WORKER_DRAIN_SECONDS",
    "ASSAY_KEYS",
    "ASSAY_RUN_GAS_MAX",
    "ASSAY_RUN_BLOCKS_MAX",
];
const FILE_BYTES_MAX: u64 = 1 << 20;
const SLOTS_MAX: u32 = 256;
/// GPUs with so much memory have two tasks at the same time by default: while one is at what the processor does of it (records, traces,
/// witnesses), the other has the GPU.
const SHARED_GPU_BYTES_MIN: u64 = 64 << 30;
/// What a process needs of a GPU's memory to prove shards of full size.
const GPU_PROCESS_BYTES: u64 = 26 << 30;
/// What each of several processes on a GPU takes besides: its context and the code of its kernels.
const GPU_CONTEXT_BYTES: u64 = 1 << 30;
const DRAIN_SECONDS_MAX: u64 = 86_400;
const NAME_BYTES_MAX: usize = 64;
const PARTS_MAX: u32 = 1024;
/// A transaction takes as much.
const RUN_GAS_MIN: u64 = 21_000;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is no TOML, or has a field that does not exist or is of another type.
    #[error("{path}, line {line}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Why. Never the line itself, which may hold a password.
        reason: String,
    },
    /// A value is outside its range or not a number.
    #[error("{name}: expected {expected}, got {got:?}")]
    Value {
        /// Field, flag or variable.
        name: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// Something that has no default is missing.
    #[error("{name} is not set: {how}")]
    Missing {
        /// What.
        name: &'static str,
        /// How to set it.
        how: &'static str,
    },
    /// GPUs were asked for, and this build cannot use any.
    #[error("no GPU {wanted}: this is a build without CUDA, see `make cuda`")]
    NoCuda {
        /// What was asked for.
        wanted: String,
    },
    /// GPUs were asked for that the machine does not have.
    #[error("no GPU {wanted}: nvidia-smi lists {found}")]
    NoGpu {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// A GPU is to be shared by more tasks than it has memory for; its context is not counted where several processes have it.
    #[error(
        "GPU {device} has {} MiB of memory for each of {tasks} task(s) at the same time, and shards, reductions and wrap need {}: fewer \
         --slots, more --device-memory if that is set, other --kinds, or --devices without it",
        share_bytes >> 20,
        needed_bytes >> 20
    )]
    GpuShare {
        /// The GPU.
        device: Device,
        /// Tasks that it would have at the same time.
        tasks: u32,
        /// Memory for each, bytes.
        share_bytes: u64,
        /// What a task needs at least, bytes.
        needed_bytes: u64,
    },
}

/// One source of settings; what is `None` is left to the source below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the queue is.
    #[serde(default)]
    pub queue: QueueSettings,
    /// Where artifacts are.
    #[serde(default)]
    pub store: StoreSettings,
    /// What the worker is and may use.
    #[serde(default)]
    pub worker: WorkerSettings,
    /// How it proves.
    #[serde(default)]
    pub prover: ProverSettings,
}

/// How a worker proves: for its runner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProverSettings {
    /// Folder of keys and Groth16 parameters.
    pub keys: Option<PathBuf>,
    /// Parts of one controller that are proved at the same time.
    pub parts: Option<u32>,
    /// Most gas in one run of blocks; the coordinators'.
    pub run_gas_max: Option<u64>,
    /// Most blocks in one run; the coordinators'.
    pub run_blocks_max: Option<u32>,
}

/// Where the queue is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    /// URL of the Redis.
    pub redis: Option<String>,
    /// Name of the deployment on it.
    pub deployment: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// PEM file with the certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where artifacts are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// URL of a folder or an S3 bucket.
    pub url: Option<String>,
    /// Options of the object store.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// File with the secret access key.
    pub secret_file: Option<PathBuf>,
}

/// What the worker is and may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSettings {
    /// What its operator calls it.
    pub name: Option<String>,
    /// Its files.
    pub work_dir: Option<PathBuf>,
    /// Its signing key.
    pub key_file: Option<PathBuf>,
    /// `auto`, `cpu`, `all`, or a list of GPU numbers and `cpu`.
    pub devices: Option<String>,
    /// Tasks at the same time.
    pub slots: Option<u32>,
    /// Controllers at the same time.
    pub controllers: Option<u32>,
    /// Memory of all tasks together, GiB.
    pub memory_gib: Option<u64>,
    /// Memory of each GPU that tasks may use, GiB.
    pub device_memory_gib: Option<u64>,
    /// Kinds of tasks, with commas between them.
    pub kinds: Option<String>,
    /// How long running tasks may go on after SIGTERM.
    pub drain_seconds: Option<u64>,
}

/// The validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The queue.
    pub redis: RedisConfig,
    /// Large artifacts.
    pub objects: ObjectsConfig,
    /// The worker's signing key.
    pub key_file: PathBuf,
    /// The worker.
    pub agent: AgentConfig,
    /// How it proves; flags of its runner win over these.
    pub prover: ProverConfig,
}

/// How a worker proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProverConfig {
    /// Folder of keys and Groth16 parameters, if one is named.
    pub keys: Option<PathBuf>,
    /// Parts of one controller that are proved at the same time.
    pub parts: u32,
    /// Most gas in one run of blocks.
    pub run_gas_max: u64,
    /// Most blocks in one run.
    pub run_blocks_max: u32,
}

/// What the machine has, for defaults and checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// GPUs and their models.
    pub gpus: Vec<(Device, String)>,
    /// Memory of these, as far as it is known.
    pub gpu_memory_bytes: BTreeMap<Device, u64>,
    /// Its memory.
    pub memory_bytes: u64,
    /// Cores of the processor.
    pub cores: u32,
    /// Its name.
    pub host: String,
}

impl Machine {
    /// Looks at the machine this runs on.
    pub fn look() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            cpu: crate::devices::cpu_model(),
            gpus: crate::devices::gpus(),
            gpu_memory_bytes: crate::devices::gpu_memory_bytes(),
            memory_bytes: crate::devices::memory_bytes(),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
            host: host.trim().to_owned(),
        }
    }
}

/// The program that is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Version of its programs and keys; a coordinator gives it tasks of this version only.
    pub version: u32,
    /// What receipts say about it.
    pub build: String,
    /// Memory that one of many tasks takes, bytes. A worker without GPUs takes as many at the same time as it has memory and
    /// cores for: one alone leaves cores idle.
    pub task_bytes: u64,
    /// Whether it can use GPUs. One that cannot takes the processor wherever it is not told, and refuses to be given a GPU.
    pub uses_gpus: bool,
    /// The least memory of a GPU with which shards, reductions and wrap can be proved, bytes.
    pub gpu_bytes_min: u64,
}

impl Config {
    /// Joins the sources. `file` is the content and path of the configuration file, `env` looks variables up.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(
        program: &Program,
        machine: &Machine,
        file: Option<(&Path, &str)>,
        env: impl Fn(&str) -> Option<String>,
        flags: Settings,
    ) -> Result<Self, ConfigError> {
        let file = file.map_or_else(|| Ok(Settings::default()), |(path, text)| parse(path, text))?;
        let Settings { queue, store, worker, prover } = flags.or(Settings::from_env(&env)?).or(file);
        let home = env("HOME").map(|home| PathBuf::from(home).join(".cache/assay/worker"));
        let work_dir = worker.work_dir.clone().or(home);
        let how = "--work-dir, ASSAY_WORKER_DIR or worker.work_dir, or set HOME";
        let work_dir = work_dir.ok_or(ConfigError::Missing { name: "the work folder", how })?;
        let key_file = worker.key_file.clone().unwrap_or_else(|| work_dir.join("worker.key"));
        let agent = agent(program, machine, worker, work_dir)?;
        Ok(Self {
            redis: redis(queue)?,
            objects: objects(store)?,
            key_file,
            agent,
            prover: ProverConfig::new(prover)?,
        })
    }

    /// Reads the file (`explicit`, or [`FILE_NAME`] if it exists), the environment and the machine.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(program: &Program, explicit: Option<&Path>, flags: Settings) -> Result<Self, ConfigError> {
        use std::io::Read;
        let default = Path::new(FILE_NAME);
        let path = explicit.or_else(|| default.is_file().then_some(default));
        let read = |path: &Path| {
            let mut text = String::new();
            std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = match path {
            Some(path) => {
                let text =
                    read(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
                Some((path, text))
            }
            None => None,
        };
        let file = text.as_ref().map(|(path, text)| (*path, text.as_str()));
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::new(program, &Machine::look(), file, env, flags)
    }
}

impl ProverConfig {
    /// The settings, with defaults for what they leave open.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn new(settings: ProverSettings) -> Result<Self, ConfigError> {
        let wrong = |name, expected, got: String| Err(ConfigError::Value { name, expected, got });
        let config = Self {
            keys: settings.keys,
            parts: settings.parts.unwrap_or(8),
            run_gas_max: settings.run_gas_max.unwrap_or(30_000_000),
            run_blocks_max: settings.run_blocks_max.unwrap_or(64),
        };
        if !(1..=PARTS_MAX).contains(&config.parts) {
            return wrong("prover.parts", "1 to 1024", config.parts.to_string());
        }
        if config.run_gas_max < RUN_GAS_MIN {
            return wrong("prover.run_gas_max", "at least 21000", config.run_gas_max.to_string());
        }
        if config.run_blocks_max == 0 {
            return wrong("prover.run_blocks_max", "at least 1", "0".to_owned());
        }
        Ok(config)
    }
}

fn parse(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    toml::from_str(text).map_err(|source: toml::de::Error| {
        let before = source.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count();
        ConfigError::Syntax { path: path.to_owned(), line, reason: source.message().to_owned() }
    })
}

fn redis(queue: QueueSettings) -> Result<RedisConfig, ConfigError> {
    let how = "--redis redis://host:6379, ASSAY_REDIS or queue.redis";
    let url = queue.redis.ok_or(ConfigError::Missing { name: "the queue", how })?;
    if !url.starts_with("redis") || !url.contains("://") {
        let expected = "a URL that begins with redis://, rediss://, redis+sentinel:// or redis+cluster://";
        return Err(ConfigError::Value { name: "queue.redis", expected, got: "another one".to_owned() });
    }
    let mut redis = RedisConfig::new(url, queue.deployment.unwrap_or_else(|| "default".to_owned()));
    redis.password_file = queue.password_file;
    redis.ca_file = queue.ca_file;
    Ok(redis)
}

fn objects(store: StoreSettings) -> Result<ObjectsConfig, ConfigError> {
    let how = "--store file:///folder or s3://bucket/prefix, ASSAY_STORE or store.url";
    let url = store.url.ok_or(ConfigError::Missing { name: "the artifact store", how })?;
    if !url.starts_with("file:///") && !url.starts_with("s3://") {
        let expected = "a URL that begins with file:/// or s3://";
        return Err(ConfigError::Value { name: "store.url", expected, got: url });
    }
    let mut objects = ObjectsConfig::new(url);
    objects.options = store.options.into_iter().collect();
    objects.secret_file = store.secret_file;
    Ok(objects)
}

/// A worker on devices of this machine that nobody has configured: `devices` as in [`WorkerSettings::devices`], with as many tasks at
/// the same time as they take.
///
/// # Errors
/// [`ConfigError::Value`], [`ConfigError::NoCuda`], [`ConfigError::NoGpu`] for devices that are not there, [`ConfigError::GpuShare`] for one
/// with too little memory; none of them with `auto`.
pub fn local_agent(
    program: &Program,
    machine: &Machine,
    devices: &str,
    memory_bytes: u64,
    work_dir: PathBuf,
) -> Result<AgentConfig, ConfigError> {
    let mut config = AgentConfig::new(work_dir, program.version, memory_bytes);
    config.build.clone_from(&program.build);
    config.devices = self::devices(program, devices, machine)?;
    config.slots = slots(program, machine, None, &config);
    config.gpu_shares = gpu_shares(None, program, machine, &config)?;
    config.controllers = controllers(program, &config);
    let mut name = machine.host.clone();
    name.retain(|c| !c.is_control());
    if (1..=NAME_BYTES_MAX).contains(&name.len()) {
        config.name = name;
    }
    Ok(config)
}

fn agent(
    program: &Program,
    machine: &Machine,
    worker: WorkerSettings,
    work_dir: PathBuf,
) -> Result<AgentConfig, ConfigError> {
    let wrong = |name, expected, got: String| Err(ConfigError::Value { name, expected, got });
    let memory_bytes = match worker.memory_gib {
        None | Some(0) => machine.memory_bytes / 6 * 5,
        Some(gib) => gib.saturating_mul(1 << 30),
    };
    let mut config = AgentConfig::new(work_dir, program.version, memory_bytes);
    config.build.clone_from(&program.build);
    config.name = worker.name.unwrap_or_else(|| machine.host.clone());
    let is_printable = config.name.chars().all(|c| !c.is_control());
    if config.name.is_empty() || config.name.len() > NAME_BYTES_MAX || !is_printable {
        return wrong("worker.name", "1 to 64 bytes of text", config.name);
    }
    if config.memory_bytes < 1 << 30 {
        return wrong("worker.memory_gib", "at least 1", (config.memory_bytes >> 30).to_string());
    }
    if let Some(names) = worker.kinds {
        config.kinds = kinds(&names)?;
    }
    let needs_zkvm = |kind: &Kind| matches!(kind, Kind::Shard | Kind::Reduce | Kind::Wrap);
    let gpu_bytes_min = if config.kinds.iter().any(needs_zkvm) { program.gpu_bytes_min } else { 0 };
    let program = &Program { gpu_bytes_min, ..program.clone() };
    config.devices = devices(program, worker.devices.as_deref().unwrap_or("auto"), machine)?;
    let gib = worker.device_memory_gib;
    config.slots = worker.slots.unwrap_or_else(|| slots(program, machine, gib, &config));
    config.gpu_shares = gpu_shares(gib, program, machine, &config)?;
    config.controllers = worker.controllers.unwrap_or_else(|| controllers(program, &config));
    if config.slots > SLOTS_MAX || config.controllers > SLOTS_MAX {
        let got = config.slots.max(config.controllers).to_string();
        return wrong("worker.slots, worker.controllers", "at most 256 each", got);
    }
    if config.slots == 0 && config.controllers == 0 {
        return wrong("worker.slots, worker.controllers", "at least 1 of either", "0 of both".to_owned());
    }
    let drain_seconds = worker.drain_seconds.unwrap_or(20);
    if drain_seconds > DRAIN_SECONDS_MAX {
        return wrong("worker.drain_seconds", "at most 86400", drain_seconds.to_string());
    }
    config.times.drain_ms = drain_seconds * 1000;
    Ok(config)
}

fn kinds(names: &str) -> Result<Vec<Kind>, ConfigError> {
    let mut kinds = BTreeSet::new();
    for name in names.split(',').map(str::trim) {
        let kind = Kind::ALL.into_iter().find(|kind| kind.to_string() == name);
        let expected = "execute, block, shard, reduce, fold, wrap, groth16, with commas between them";
        kinds.insert(kind.ok_or_else(|| ConfigError::Value {
            name: "worker.kinds",
            expected,
            got: name.to_owned(),
        })?);
    }
    Ok(kinds.into_iter().collect())
}

/// Tasks at the same time, where nobody has said how many: one for each GPU, or two where all GPUs and the machine have the
/// memory for that; without GPUs what memory and cores allow.
fn slots(program: &Program, machine: &Machine, gib: Option<u64>, config: &AgentConfig) -> u32 {
    if config.devices.iter().all(|(device, _)| *device == Device::Cpu) {
        return cpu_slots(config.memory_bytes, program.task_bytes, machine.cores);
    }
    let one_each = u32::try_from(config.devices.len()).unwrap_or(u32::MAX);
    let two_each = one_each.saturating_mul(2);
    let is_roomy = |device: &Device| gpu_memory(gib, machine, *device) >= Some(SHARED_GPU_BYTES_MIN);
    let fit = u64::from(two_each).saturating_mul(program.task_bytes) <= config.memory_bytes;
    if fit && two_each <= SLOTS_MAX && config.devices.iter().all(|(device, _)| is_roomy(device)) {
        two_each
    } else {
        one_each
    }
}

/// Controllers at the same time, where nobody has said how many: two beside GPUs where the machine has memory for them, so that two
/// batches' shards are there to be proved, else one.
fn controllers(program: &Program, config: &AgentConfig) -> u32 {
    let has_gpu = config.devices.iter().any(|(device, _)| *device != Device::Cpu);
    let tasks = u64::from(config.slots).saturating_add(2);
    if has_gpu && tasks.saturating_mul(program.task_bytes) <= config.memory_bytes {
        2
    } else {
        1
    }
}

/// Tasks of `task_bytes` that a processor with `cores` works on at the same time, in `memory_bytes`. At least one.
pub fn cpu_slots(memory_bytes: u64, task_bytes: u64, cores: u32) -> u32 {
    let by_memory = u32::try_from(memory_bytes / task_bytes.max(1)).unwrap_or(u32::MAX);
    by_memory.clamp(1, cores.clamp(1, SLOTS_MAX))
}

/// Bytes of a GPU's memory: all that it has, or what was said; `None` for what is no GPU or does not say.
fn gpu_memory(gib: Option<u64>, machine: &Machine, device: Device) -> Option<u64> {
    let said = gib.filter(|gib| *gib > 0).map(|gib| gib.saturating_mul(1 << 30));
    let has = machine.gpu_memory_bytes.get(&device).copied();
    said.filter(|_| device != Device::Cpu).into_iter().chain(has).min()
}

/// How each GPU of `config` is shared: by as many processes as it has tasks at the same time, and by up to twice as many where its
/// memory is enough for that, so that what proves and what makes Groth16 proofs keep what they have loaded.
///
/// # Errors
/// [`ConfigError::GpuShare`] if a task would have less than it needs.
fn gpu_shares(
    gib: Option<u64>,
    program: &Program,
    machine: &Machine,
    config: &AgentConfig,
) -> Result<BTreeMap<Device, GpuShare>, ConfigError> {
    let slots: Vec<Device> = config.devices.iter().map(|(device, _)| *device).collect();
    let slots = || slots.iter().cycle().take(config.slots as usize);
    let mut shares = BTreeMap::new();
    for device in slots().filter(|device| **device != Device::Cpu) {
        let tasks = u32::try_from(slots().filter(|other| *other == device).count()).unwrap_or(u32::MAX);
        let bytes = gpu_memory(gib, machine, *device);
        let most = bytes.map_or(0, |bytes| bytes / (GPU_PROCESS_BYTES + GPU_CONTEXT_BYTES));
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let processes = most.clamp(tasks, tasks.saturating_mul(2));
        let memory_bytes = bytes.map(|bytes| match processes {
            1 => bytes,
            _ => (bytes / u64::from(processes)).saturating_sub(GPU_CONTEXT_BYTES),
        });
        let needed_bytes = program.gpu_bytes_min;
        if let Some(share_bytes) = memory_bytes.filter(|bytes| *bytes < needed_bytes) {
            return Err(ConfigError::GpuShare { device: *device, tasks, share_bytes, needed_bytes });
        }
        shares.insert(*device, GpuShare { processes, memory_bytes });
    }
    Ok(shares)
}

/// The devices that `text` names, with their models; `auto` leaves out GPUs that have too little memory for any task.
fn devices(program: &Program, text: &str, machine: &Machine) -> Result<Vec<(Device, String)>, ConfigError> {
    let cpu = || (Device::Cpu, machine.cpu.clone());
    if text == "auto" {
        let mut gpus = if program.uses_gpus { machine.gpus.clone() } else { Vec::new() };
        gpus.retain(|(gpu, model)| {
            let bytes = machine.gpu_memory_bytes.get(gpu).copied().unwrap_or(u64::MAX);
            let (mib, needed) = (bytes >> 20, program.gpu_bytes_min >> 20);
            if bytes < program.gpu_bytes_min {
                tracing::warn!(
                    "GPU {gpu} ({model}) is left out: it has {mib} MiB of memory, and proving needs {needed}"
                );
            }
            bytes >= program.gpu_bytes_min
        });
        return Ok(if gpus.is_empty() { vec![cpu()] } else { gpus });
    }
    if !program.uses_gpus && text.split(',').any(|word| word.trim() != "cpu") {
        return Err(ConfigError::NoCuda { wanted: text.to_owned() });
    }
    let mut found = Vec::new();
    for word in text.split(',').map(str::trim) {
        if word == "all" {
            found.extend(machine.gpus.iter().cloned());
            continue;
        }
        let device: Device = word.parse().map_err(|_| ConfigError::Value {
            name: "worker.devices",
            expected: "auto, or all, cpu and numbers of GPUs with commas between them",
            got: word.to_owned(),
        })?;
        match device {
            Device::Cpu => found.push(cpu()),
            gpu => found.extend(machine.gpus.iter().find(|(known, _)| *known == gpu).cloned()),
        }
        if !found.iter().any(|(known, _)| *known == device) {
            return Err(no_gpu(word, machine));
        }
    }
    if found.is_empty() {
        return Err(no_gpu(text, machine));
    }
    found.dedup();
    Ok(found)
}

fn no_gpu(wanted: &str, machine: &Machine) -> ConfigError {
    let found: Vec<String> =
        machine.gpus.iter().map(|(device, model)| format!("{device} ({model})")).collect();
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    ConfigError::NoGpu { wanted: wanted.to_owned(), found }
}

impl Settings {
    fn from_env(env: &impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Ok(Self {
            queue: QueueSettings {
                redis: env("ASSAY_REDIS"),
                deployment: env("ASSAY_DEPLOYMENT"),
                password_file: env("ASSAY_REDIS_PASSWORD_FILE").map(PathBuf::from),
                ca_file: None,
            },
            store: StoreSettings { url: env("ASSAY_STORE"), ..StoreSettings::default() },
            worker: WorkerSettings {
                name: env("ASSAY_WORKER_NAME"),
                work_dir: env("ASSAY_WORKER_DIR").map(PathBuf::from),
                key_file: env("ASSAY_WORKER_KEY_FILE").map(PathBuf::from),
                devices: env("ASSAY_WORKER_DEVICES"),
                slots: number(env, "ASSAY_WORKER_SLOTS")?,
                controllers: number(env, "ASSAY_WORKER_CONTROLLERS")?,
                memory_gib: number(env, "ASSAY_WORKER_MEMORY_GIB")?,
                device_memory_gib: number(env, "ASSAY_WORKER_DEVICE_MEMORY_GIB")?,
                kinds: env("ASSAY_WORKER_KINDS"),
                drain_seconds: number(env, "ASSAY_WORKER_DRAIN_SECONDS")?,
            },
            prover: ProverSettings {
                keys: env("ASSAY_KEYS").map(PathBuf::from),
                parts: None,
                run_gas_max: number(env, "ASSAY_RUN_GAS_MAX")?,
                run_blocks_max: number(env, "ASSAY_RUN_BLOCKS_MAX")?,
            },
        })
    }

    /// `self` where it says something, else `below`.
    fn or(self, below: Self) -> Self {
        Self {
            queue: QueueSettings {
                redis: self.queue.redis.or(below.queue.redis),
                deployment: self.queue.deployment.or(below.queue.deployment),
                password_file: self.queue.password_file.or(below.queue.password_file),
                ca_file: self.queue.ca_file.or(below.queue.ca_file),
            },
            store: StoreSettings {
                url: self.store.url.or(below.store.url),
                options: if self.store.options.is_empty() { below.store.options } else { self.store.options },
                secret_file: self.store.secret_file.or(below.store.secret_file),
            },
            worker: WorkerSettings {
                name: self.worker.name.or(below.worker.name),
                work_dir: self.worker.work_dir.or(below.worker.work_dir),
                key_file: self.worker.key_file.or(below.worker.key_file),
                devices: self.worker.devices.or(below.worker.devices),
                slots: self.worker.slots.or(below.worker.slots),
                controllers: self.worker.controllers.or(below.worker.controllers),
                memory_gib: self.worker.memory_gib.or(below.worker.memory_gib),
                device_memory_gib: self.worker.device_memory_gib.or(below.worker.device_memory_gib),
                kinds: self.worker.kinds.or(below.worker.kinds),
                drain_seconds: self.worker.drain_seconds.or(below.worker.drain_seconds),
            },
            prover: ProverSettings {
                keys: self.prover.keys.or(below.prover.keys),
                parts: self.prover.parts.or(below.prover.parts),
                run_gas_max: self.prover.run_gas_max.or(below.prover.run_gas_max),
                run_blocks_max: self.prover.run_blocks_max.or(below.prover.run_blocks_max),
            },
        }
    }
}

fn number<T: std::str::FromStr>(
    env: &impl Fn(&str) -> Option<String>,
    name: &'static str,
) -> Result<Option<T>, ConfigError> {
    env(name)
        .map(|text| {
            text.parse().map_err(|_| ConfigError::Value { name, expected: "a whole number", got: text })
        })
        .transpose()
}

#[cfg(test)]
mod tests;
