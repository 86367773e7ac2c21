//! Runs the simulator: `simulate [--seed A..B] [--batches N] [--only FAULT] [--without REMEDY]`.
//!
//! `--seed A` runs one seed and prints all about it, `--seed A..B` those from A up to B. `--only` injects one kind of fault
//! instead of all ([`Fault`]), `--without` takes a remedy away ([`Weakness`]). Exit code 1 and the seed on standard error if
//! an invariant does not hold; the same arguments replay it.

use std::process::ExitCode;
use std::time::Instant;

use assay_schedule::sim::{run, Fault, Faults, Options, Summary, Weakness};

fn find<T: Copy + std::fmt::Debug>(all: &[T], name: &str) -> Result<T, String> {
    let found = all.iter().find(|one| format!("{one:?}").eq_ignore_ascii_case(name));
    found.copied().ok_or(format!("{name} is none of {all:?}"))
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(Options, std::ops::Range<u64>), String> {
    let mut options = Options::sound(1, 8);
    let mut seeds = 1..2;
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("expected a number, got {text}"));
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--seed" => {
                seeds = match value.split_once("..") {
                    Some((first, end)) => number(first)?..number(end)?,
                    None => number(&value)?..number(&value)?.saturating_add(1),
                }
            }
            "--batches" => options.batches = number(&value)?.clamp(1, 1_000) as u32,
            "--only" => options.faults = Faults::only(find(&Fault::ALL, &value)?),
            "--without" => options.weakness = Some(find(&Weakness::ALL, &value)?),
            _ => return Err(format!("{name} is not known")),
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
    println!("paths that only faults lead to: {:#?}", assay_schedule::marks());
    println!("{steps} steps, {takeovers} takeovers, {} records replayed, {faults} faults", total.replayed);
    println!(
        "{seconds:.1} s: {:.0} batches/s, {:.0} steps/s",
        f64::from(batches) / seconds,
        steps as f64 / seconds
    );
    ExitCode::SUCCESS
}
