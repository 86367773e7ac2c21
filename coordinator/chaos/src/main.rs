//! `assay-chaos`: chaos runs without the zkVM. `assay chaos` is the same command.

use std::path::PathBuf;
use std::process::ExitCode;

use assay_chaos::{command, coordinator_main, worker_main, Flags, Program, AFTER_HELP};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "Torments a cluster of real processes and checks that nothing is lost")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a cluster under a seeded schedule of faults
    #[command(after_help = AFTER_HELP)]
    Run(Box<Flags>),
    /// A process of the cluster
    #[command(hide = true)]
    Coordinator { file: PathBuf },
    /// A process of the cluster
    #[command(hide = true)]
    Worker { file: PathBuf },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(flags) => command(*flags, Program::default()),
        Command::Coordinator { file } => coordinator_main(&file),
        Command::Worker { file } => worker_main(&file),
    }
}
