//! Runs the simulator: `simulate [--seed N] [--batches N] [--seeds N] [--weak fencing|checksum|memo|verification]`.
//!
//! Exit code 1 and the seed on standard error if an invariant does not hold; the same seed replays it.

use std::process::ExitCode;

use assay_schedule::sim::{run, Options};
use assay_schedule::Weak;

fn parse(arguments: impl Iterator<Item = String>) -> Result<(Options, u64), String> {
    let mut options = Options { seed: 1, batches: 8, weak: Weak::default(), weak_fencing: false };
    let mut seeds = 1;
    let mut arguments = arguments.peekable();
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name} expects a number, got {value}"));
        match (name.as_str(), value.as_str()) {
            ("--seed", _) => options.seed = number()?,
            ("--seeds", _) => seeds = number()?,
            ("--batches", _) => options.batches = number()?.clamp(1, 1_000) as u32,
            ("--weak", "fencing") => options.weak_fencing = true,
            ("--weak", "checksum") => options.weak.checksum = true,
            ("--weak", "memo") => options.weak.memo = true,
            ("--weak", "verification") => options.weak.verification = true,
            _ => return Err(format!("{name} {value} is not known")),
        }
    }
    Ok((options, seeds))
}

fn main() -> ExitCode {
    let (options, seeds) = match parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(text) => {
            eprintln!("simulate: {text}");
            return ExitCode::from(2);
        }
    };
    for seed in options.seed..options.seed.saturating_add(seeds) {
        match run(Options { seed, ..options }) {
            Ok(summary) if seeds == 1 => println!("seed {seed}: {summary:?}"),
            Ok(_) => {}
            Err(violation) => {
                eprintln!("simulate: {violation}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{seeds} seeds, {} batches each: all invariants hold", options.batches);
    ExitCode::SUCCESS
}
