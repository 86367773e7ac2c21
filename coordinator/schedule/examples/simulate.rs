//! Runs the simulator: `simulate [--seed A..B] [--batches N] [--weak fencing|checksum|memo|verification]`.
//!
//! `--seed A` runs one seed and prints all about it, `--seed A..B` those from A up to B. Exit code 1 and the seed on
//! standard error if an invariant does not hold; the same seed and batches replay it.

use std::process::ExitCode;
use std::time::Instant;

use assay_schedule::sim::{run, Options, Summary};
use assay_schedule::Weak;

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(Options, std::ops::Range<u64>), String> {
    let mut options = Options { seed: 1, batches: 8, weak: Weak::default(), weak_fencing: false };
    let mut seeds = 1..2;
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("expected a number, got {text}"));
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        match (name.as_str(), value.as_str()) {
            ("--seed", range) => {
                seeds = match range.split_once("..") {
                    Some((first, end)) => number(first)?..number(end)?,
                    None => number(range)?..number(range)?.saturating_add(1),
                }
            }
            ("--batches", count) => options.batches = number(count)?.clamp(1, 1_000) as u32,
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
    let (start, count) = (Instant::now(), seeds.end.saturating_sub(seeds.start));
    let mut total = Summary::default();
    for seed in seeds {
        match run(Options { seed, ..options }) {
            Ok(summary) => {
                if count == 1 {
                    println!("seed {seed}: {summary:?}");
                }
                total.add(&summary);
            }
            Err(violation) => {
                eprintln!("simulate: {violation}");
                return ExitCode::FAILURE;
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let Summary { batches, settled, failed, steps, takeovers, faults, .. } = total;
    println!("{count} seeds: all invariants hold");
    println!("{batches} batches: {settled} settled, {failed} failed for a known reason or cancelled");
    println!(
        "{} parts and {} other tasks done, {} again after a loss",
        total.parts, total.tasks, total.redone_lost
    );
    println!("{steps} steps, {takeovers} takeovers, {} records replayed, {faults} faults", total.replayed);
    println!(
        "{seconds:.1} s: {:.0} batches/s, {:.0} steps/s",
        f64::from(batches) / seconds,
        steps as f64 / seconds
    );
    ExitCode::SUCCESS
}
