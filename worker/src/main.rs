//! `assay-worker`: a worker of a cluster, and the children that it has the proving done by.

use std::io::stdout;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use assay_agent::cli;
use assay_agent::config::{Config, Program};
use assay_agent::runner::child::ChildRunner;
use assay_lvm::RunLimits;
use assay_schedule::Kind;
use assay_worker::child::{watched_stdin, ALLOCATOR};
use assay_worker::cluster;
use assay_worker::device::GPU_MEMORY_BYTES_MIN;
use assay_worker::groth16::has_parameters;
use assay_worker::jobs::{child_settings, JobsConfig, StageJobs, MEMORY_BYTES};
use assay_worker::stages::{serve, StageConfig};
use clap::Parser;

/// Time that an idle child has to end by itself once its input is closed.
const STAGE_GRACE: Duration = Duration::from_secs(2);
/// This very program, even if its file has been replaced since it was started.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Flags of proving.
#[derive(Debug, clap::Args)]
struct ProveFlags {
    /// Keys and Groth16 parameters [default: ~/.cache/assay/keys]
    #[arg(long, value_name = "DIR")]
    keys_dir: Option<PathBuf>,
    /// Shards and reductions of one block or fold task that are proved at the same time, by all workers together [default: 8]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024), value_name = "N")]
    parts: Option<u32>,
}

/// Arguments of a child.
#[derive(Debug, Parser)]
struct StageArgs {
    /// Keys and parameters.
    #[arg(long)]
    cache_dir: PathBuf,
    /// Files of the running proof.
    #[arg(long)]
    work_dir: PathBuf,
    /// Cores to use, 0 = all.
    #[arg(long, default_value_t = 0)]
    cores: usize,
    /// Memory to plan with, 0 = five sixths of the machine's.
    #[arg(long, default_value_t = 0)]
    memory_bytes: u64,
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == "stage") {
        return stage(StageArgs::parse_from(std::env::args_os().skip(1)));
    }
    let (package, zkvm) = (env!("CARGO_PKG_VERSION"), sp1_prover::SP1_CIRCUIT_VERSION.trim());
    let program = Program {
        // Until the configuration says how runs are cut.
        version: cluster::version(RunLimits::default()),
        build: format!("assay-worker {package} (sp1 {zkvm})"),
        task_bytes: MEMORY_BYTES[Kind::Shard],
        uses_gpus: cfg!(feature = "cuda"),
        gpu_bytes_min: GPU_MEMORY_BYTES_MIN,
    };
    cli::main(&program, runner)
}

fn runner(config: &mut Config, flags: ProveFlags) -> Result<ChildRunner<StageJobs>, String> {
    let prover = &config.prover;
    let limits = RunLimits { gas_max: prover.run_gas_max, blocks_max: prover.run_blocks_max as usize };
    config.agent.version = cluster::version(limits);
    let agent = &config.agent;
    for kind in agent.kinds.iter().filter(|kind| MEMORY_BYTES[**kind] > agent.memory_bytes) {
        let (wanted, memory) = (MEMORY_BYTES[*kind] >> 30, agent.memory_bytes >> 30);
        tracing::warn!(%kind, "needs {wanted} GiB, and this worker has {memory}: it will not be given any");
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/assay/keys"));
    let cache_dir = flags.keys_dir.or_else(|| prover.keys.clone()).or_else(home);
    let cache_dir = cache_dir.ok_or("no place for keys: set --keys-dir, ASSAY_KEYS, prover.keys or HOME")?;
    if agent.kinds.contains(&Kind::Groth16) && !has_parameters(&cache_dir.join("groth16")) {
        // Made here they would be under another key than everybody else's, and every proof refused.
        return Err(format!(
            "there are no Groth16 parameters in {}: run `assay setup` on one machine and copy that folder to all others, or leave \
             groth16 out: --kinds execute,block,shard,reduce,fold,wrap",
            cache_dir.join("groth16").display()
        ));
    }
    let allocator = ALLOCATOR.iter().filter(|(name, _)| std::env::var_os(name).is_none());
    let jobs = JobsConfig {
        program: THIS_PROGRAM.into(),
        environment: allocator.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        cache_dir,
        work_dir: agent.work_dir.join("stages"),
        memory_bytes: agent.memory_bytes,
        slots: agent.slots,
        parts: flags.parts.unwrap_or(prover.parts),
    };
    let settings = child_settings(&agent.work_dir, agent.memory_bytes);
    tracing::info!("looking up the programs' keys; the first time they are computed");
    let makes_groth16 = agent.kinds.contains(&Kind::Groth16);
    let jobs = StageJobs::start(jobs, limits, makes_groth16).map_err(|error| error.to_string())?;
    Ok(ChildRunner::new(jobs, settings).with_gpus(config.agent.gpu_shares.clone()))
}

/// The child's side.
fn stage(arguments: StageArgs) -> ExitCode {
    assay_telemetry::init_logs("warn");
    let StageArgs { cache_dir, work_dir, cores, memory_bytes } = arguments;
    let config = StageConfig { cache_dir, work_dir, cores, memory_bytes };
    match serve(config, watched_stdin(STAGE_GRACE), stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn both_command_lines_are_consistent() {
        cli::Arguments::<ProveFlags>::command().debug_assert();
        StageArgs::command().debug_assert();
        let line = ["assay-worker", "--parts", "0"];
        assert!(cli::Arguments::<ProveFlags>::try_parse_from(line).is_err());
    }
}
