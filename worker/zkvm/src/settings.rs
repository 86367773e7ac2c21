//! How the engine is configured, and the settings it derives from cores and memory.

use std::path::PathBuf;

use sp1_core_executor::{SP1CoreOpts, ShardingThreshold};
use sp1_prover::worker::SP1WorkerConfig;

use crate::device::Device;
use crate::error::WorkerError;

const GIB: u64 = 1 << 30;

/// The least memory the engine accepts: one recursion proof needs about this much.
pub const MEMORY_BYTES_MIN: u64 = 14 * GIB;

/// Proofs under way on one GPU at most: the zkVM's own GPU prover has as many.
const GPU_PROVERS_MAX: usize = 4;

/// Where the engine keeps its files and what it may use.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Files that survive: program keys, finished shards of unfinished proofs.
    pub cache_dir: PathBuf,
    /// Artifacts of the proof in progress; emptied when the engine starts and ends.
    pub work_dir: PathBuf,
    /// Cores to use; 0 means all.
    pub cores: usize,
    /// Memory to stay under; 0 means five sixths of the machine's.
    pub memory_bytes: u64,
}

impl EngineConfig {
    /// Bytes of memory to stay under.
    fn memory(&self) -> u64 {
        if self.memory_bytes == 0 {
            machine_memory_bytes() / 6 * 5
        } else {
            self.memory_bytes
        }
    }
}

/// How large shards are made where memory is scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardSize {
    /// Right for every program: 2^27 cells.
    Any,
    /// For executions that fill no table of a shard: 3 * 2^26 cells, so that the memory image of a guest program of 2 MiB
    /// is one shard and the core tables another. Shards of that size which are full, most likely of Keccak permutations, were
    /// seen to take over 23 GiB.
    Small,
}

impl ShardSize {
    /// The size for an execution of `cycles` with these counts of system calls by name.
    pub fn of<'a>(cycles: u64, calls: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        // A permutation takes some 2^16 cells, any other call at most some 2^11.
        let few =
            |(name, count): (&str, u64)| count <= if name.starts_with("KECCAK") { 2_000 } else { 50_000 };
        if cycles <= 2_000_000 && calls.into_iter().all(few) {
            Self::Small
        } else {
            Self::Any
        }
    }
}

/// Settings derived from an [`EngineConfig`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Proving tasks that run at once; each holds the traces of one shard and one recursion proof.
    pub provers: usize,
    /// How many of them have the device at once: all on a CPU, one on a GPU, for which the others get their traces ready.
    pub permits: usize,
    /// Parts that may be with other processes at once; 0 when this process proves by itself.
    pub delegated: usize,
    /// Shards that may be executed but not yet proved.
    pub shards_ahead: usize,
    /// Tasks that may wait in the queue, for each kind.
    pub queue_depth: usize,
    /// Proving keys of recursion programs kept in memory.
    pub keys_cached: usize,
    /// Compiled normalise programs kept in memory.
    pub programs_cached: usize,
    /// Trace cells per shard.
    pub element_threshold: u64,
    /// Rows of the tallest table of a shard.
    pub height_threshold: u64,
    /// Slots of the executor's ring of trace chunks, 256 MiB each.
    pub trace_chunk_slots: usize,
}

impl Settings {
    /// Chooses settings that stay under `memory_bytes`.
    ///
    /// One prover with shards of 2^27 cells peaks well below 20 GiB (`bench/RESULTS.md`); every further prover is given
    /// 20 GiB of its own. Smaller shards than the crate's default only move cells to other shards: every multiple of 2^21
    /// cells up to the default is in the release's table of allowed recursion keys, so verification is unchanged.
    ///
    /// # Errors
    /// [`WorkerError::TooLittleMemory`] below [`MEMORY_BYTES_MIN`].
    pub fn choose(cores: usize, memory_bytes: u64) -> Result<Self, WorkerError> {
        if memory_bytes < MEMORY_BYTES_MIN {
            return Err(WorkerError::TooLittleMemory {
                expected_bytes: MEMORY_BYTES_MIN,
                got_bytes: memory_bytes,
            });
        }
        let by_memory = usize::try_from(memory_bytes / (20 * GIB)).unwrap_or(usize::MAX).max(1);
        let provers = by_memory.min(cores.div_ceil(16)).max(1);
        let per_prover = memory_bytes / provers as u64;
        let roomy = per_prover >= 40 * GIB;
        Ok(Self {
            provers,
            permits: provers,
            delegated: 0,
            shards_ahead: provers + 1,
            queue_depth: 2 * provers,
            keys_cached: if roomy { 8 } else { 3 },
            programs_cached: if roomy { 5 } else { 3 },
            element_threshold: if roomy { sp1_core_executor::ELEMENT_THRESHOLD } else { 1 << 27 },
            height_threshold: if roomy { sp1_core_executor::HEIGHT_THRESHOLD } else { 1 << 21 },
            trace_chunk_slots: if roomy { 5 } else { 2 },
        })
    }

    /// These settings for executions of one size.
    #[must_use]
    pub fn sized(mut self, size: ShardSize) -> Self {
        if size == ShardSize::Small {
            self.element_threshold = self.element_threshold.max(3 << 26);
        }
        self
    }

    /// These settings for a controller whose parts are proved by others, at most `width` at once.
    #[must_use]
    pub fn delegating(mut self, width: usize) -> Self {
        self.delegated = width.max(1);
        self.shards_ahead = self.delegated + 1;
        self.queue_depth = 2 * self.delegated;
        self
    }

    /// These settings for proving on a device: shards of the size that a GPU's memory holds, and as many proofs under way as
    /// there is memory of the machine for, because each has a pinned buffer for a shard's traces.
    #[must_use]
    pub fn on(mut self, device: Device, config: &EngineConfig) -> Self {
        let Device::Gpu { memory_bytes } = device else { return self };
        let by_memory = usize::try_from(config.memory() / (16 * GIB)).unwrap_or(usize::MAX);
        self.provers = by_memory.clamp(1, GPU_PROVERS_MAX);
        self.permits = 1;
        self.shards_ahead = self.provers + 1;
        self.queue_depth = 2 * self.provers;
        self.keys_cached = usize::try_from(memory_bytes / (8 * GIB)).unwrap_or(usize::MAX).clamp(2, 12);
        // As the zkVM's own GPU prover does it.
        self.element_threshold = sp1_core_executor::ELEMENT_THRESHOLD;
        if memory_bytes <= 26 * GIB {
            self.element_threshold -= (1 << 26) + (1 << 25) + (1 << 24);
        }
        self.height_threshold = sp1_core_executor::HEIGHT_THRESHOLD;
        self
    }

    /// Settings for this machine under `config`.
    ///
    /// # Errors
    /// As [`Settings::choose`].
    pub fn for_machine(config: &EngineConfig) -> Result<Self, WorkerError> {
        let cores = if config.cores == 0 {
            std::thread::available_parallelism().map_or(1, usize::from)
        } else {
            config.cores
        };
        Self::choose(cores, config.memory())
    }

    /// The executor's options. Every field that the crate reads from the environment is set here.
    pub fn core_opts(&self) -> SP1CoreOpts {
        let sharding_threshold = ShardingThreshold {
            element_threshold: self.element_threshold,
            height_threshold: self.height_threshold,
        };
        // The retained events' presets are the crate's default, and no others: the release's table of recursion keys has
        // no shard that keeps elliptic curve operations beside its core tables.
        SP1CoreOpts {
            sharding_threshold,
            trace_chunk_slots: self.trace_chunk_slots,
            minimal_trace_chunk_threshold: sp1_core_executor::MINIMAL_TRACE_CHUNK_THRESHOLD,
            shard_size: 1 << 22,
            ..SP1CoreOpts::default()
        }
    }

    /// Applies the settings to the crate's worker configuration.
    pub fn apply(&self, config: &mut SP1WorkerConfig) {
        let controller = &mut config.controller_config;
        controller.opts = self.core_opts();
        controller.num_splicing_workers = self.provers;
        controller.splicing_buffer_size = 1;
        controller.number_of_send_splice_workers_per_splice = 1;
        controller.send_splice_input_buffer_size_per_splice = 1;
        controller.global_memory_buffer_size = 2 * self.provers;
        controller.use_fixed_pk = false;
        let core = &mut config.prover_config.core_prover_config;
        core.num_core_workers = self.provers;
        core.core_buffer_size = self.provers;
        core.num_setup_workers = 1;
        core.setup_buffer_size = 1;
        core.normalize_program_cache_size = self.programs_cached;
        core.use_fixed_pk = false;
        let recursion = &mut config.prover_config.recursion_prover_config;
        recursion.num_prepare_reduce_workers = 1;
        recursion.prepare_reduce_buffer_size = self.provers;
        recursion.num_recursion_executor_workers = self.provers;
        recursion.recursion_executor_buffer_size = self.provers;
        recursion.num_recursion_prover_workers = self.provers;
        recursion.recursion_prover_buffer_size = self.provers;
        let deferred = &mut config.prover_config.deferred_prover_config;
        deferred.num_deferred_workers = 1;
        deferred.deferred_buffer_size = 1;
    }
}

/// Memory of this machine from `/proc/meminfo`; 0 where that file is absent.
pub fn machine_memory_bytes() -> u64 {
    memory_field("MemTotal:").unwrap_or(0)
}

/// Memory that processes of this machine can still get, swap not counted; `None` where the system does not say.
pub fn available_memory_bytes() -> Option<u64> {
    memory_field("MemAvailable:")
}

/// A field of `/proc/meminfo`, in bytes.
fn memory_field(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
