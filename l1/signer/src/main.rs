//! `assay-l1-signer`: see the library.

use std::process::ExitCode;

use assay_l1_signer::cli::{is_bad_input, run, SignerArgs};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// MuSig2 signers of the contract's graph.
#[derive(Debug, Parser)]
#[command(name = "assay-l1-signer", version)]
struct Cli {
    #[command(flatten)]
    args: SignerArgs,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Cli::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if is_bad_input(&error) { 2 } else { 1 })
        }
    }
}
