//! `assay-worker` with the cheap runner: for tests, chaos runs and load tests of a cluster.

use assay_agent::cli;
use assay_agent::config::Program;
use assay_agent::fake::{Cheap, Faults};

/// Flags of the cheap runner.
#[derive(Clone, Copy, Debug, clap::Args)]
struct CheapFlags {
    /// Cheap runner: how long each task takes
    #[arg(long, default_value_t = 10, value_name = "MS")]
    task_ms: u64,
    /// Cheap runner: where the drawing of faults begins
    #[arg(long, default_value_t = 0, value_name = "N")]
    fault_seed: u64,
    /// Cheap runner: attempts of a thousand that fail
    #[arg(long, default_value_t = 0, value_name = "N")]
    fail_permille: u32,
    /// Cheap runner: attempts of a thousand that never end
    #[arg(long, default_value_t = 0, value_name = "N")]
    hang_permille: u32,
    /// Cheap runner: attempts of a thousand that return another result
    #[arg(long, default_value_t = 0, value_name = "N")]
    wrong_permille: u32,
    /// Cheap runner: attempts of a thousand that take --slow-ms longer
    #[arg(long, default_value_t = 0, value_name = "N")]
    slow_permille: u32,
    /// Cheap runner: how much longer
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    slow_ms: u64,
    /// Cheap runner: attempts of a thousand that run out of memory
    #[arg(long, default_value_t = 0, value_name = "N")]
    memory_permille: u32,
}

fn main() -> std::process::ExitCode {
    let build = concat!("assay-worker (cheap) ", env!("CARGO_PKG_VERSION"));
    let program = Program { version: 1, build: build.to_owned() };
    cli::main(&program, |_, flags: CheapFlags| {
        let faults = Faults {
            seed: flags.fault_seed,
            fail_permille: flags.fail_permille,
            hang_permille: flags.hang_permille,
            wrong_permille: flags.wrong_permille,
            slow_permille: flags.slow_permille,
            slow_ms: flags.slow_ms,
            memory_permille: flags.memory_permille,
        };
        Ok(Cheap { task_ms: flags.task_ms, faults })
    })
}
