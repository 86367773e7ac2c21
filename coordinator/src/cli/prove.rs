//! `assay prove` and `assay setup`.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use super::args::{ProveArgs, SetupArgs};
use super::{interrupt_flag, print};
use crate::cache::Cache;
use crate::config::{Config, L1Settings, Settings, SettleSettings};
use crate::error::Error;
use crate::input;
use crate::lock::{with_lock, Locked};
use crate::progress::{bytes_text, duration_text};
use crate::report::Report;
use crate::shell::{self, Finished, Place};
use crate::statement::json_text;

pub(super) fn run(config: Option<&Path>, arguments: ProveArgs) -> Result<(), Error> {
    let settle = SettleSettings { bitcoind: arguments.bitcoind, bitcoind_cookie: arguments.bitcoind_cookie };
    let l1 = L1Settings { batches: arguments.l1_batches };
    let flags = Settings { out: arguments.out, settle, l1, ..Settings::default() };
    let config = Config::load(config, flags)?;
    let cancel = interrupt_flag();
    let mut warn = |text: String| crate::fsio::say!("warning: {text}");
    let request = input::request(&arguments.batch, arguments.until, arguments.genesis, &config, &mut warn)?;
    let finished = with_lock(Locked::out(&config.out), || {
        with_lock(Locked::cache(&config.cache), || {
            let cache = Cache::open(&config.cache)?;
            shell::prove(&place(&config, &cache, cancel)?, &request)
        })
    })?;
    print(if arguments.json { json_text(&finished) } else { text(&finished) }.trim_end())?;
    Ok(())
}

/// This program itself runs the heavy stages.
pub(super) fn place<'a>(
    config: &'a Config,
    cache: &'a Cache,
    cancel: Arc<AtomicBool>,
) -> Result<Place<'a>, Error> {
    let program = std::env::current_exe().map_err(|e| Error::Stage {
        stage: "start".to_owned(),
        reason: format!("cannot find this program: {e}"),
    })?;
    Ok(Place { config, cache, program, cancel })
}

/// Shares of the guest's cycles by phase, all runs together.
fn phases(report: &Report) -> Option<String> {
    let execute = report.stages.iter().find(|stage| stage.stage == "execute")?;
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for run in execute.details.get("runs")?.as_array()? {
        for phase in run.get("phases")?.as_array()? {
            let (name, cycles) = (phase.get(0)?.as_str()?, phase.get(1)?.as_u64()?);
            match sums.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += cycles,
                None => sums.push((name, cycles)),
            }
        }
    }
    let all = sums.iter().map(|(_, cycles)| cycles).sum::<u64>().max(1);
    let shares: Vec<String> =
        sums.iter().map(|(name, cycles)| format!("{name} {} %", (100 * cycles + all / 2) / all)).collect();
    (!shares.is_empty()).then(|| shares.join(", "))
}

fn text(finished: &Finished) -> String {
    let report = &finished.report;
    let mut text = format!("{}\n", finished.folder.display());
    if let Some(statement) = &report.statement {
        text += &format!("  digest      {}\n", statement.digest);
    }
    text += &format!(
        "  cycles      {}\n  time        {} (all stages together {})\n  memory      peak {}\n",
        report.cycles,
        seconds(report.wall_seconds),
        seconds(report.compute_seconds),
        bytes_text(report.peak_memory_bytes)
    );
    if let Some(phases) = phases(report) {
        text += &format!("  phases      {phases}\n");
    }
    if let Some(constraints) = report.constraints {
        text += &format!("  circuit     {constraints} constraints\n");
    }
    if let Some(settled) = report.stages.iter().find(|stage| stage.stage == "settle") {
        text += &format!(
            "  claim       {} at height {} ({}, {})\n",
            settled.details["claim_txid"].as_str().unwrap_or("?"),
            settled.details["claim_height"],
            settled.details["network"].as_str().unwrap_or("?"),
            settled.details["backend"].as_str().unwrap_or("?")
        );
    }
    if let Some(note) = &report.insecure {
        text += &format!("  {note}\n");
    }
    text
}

fn seconds(seconds: f64) -> String {
    duration_text(std::time::Duration::from_secs_f64(seconds.max(0.0)))
}

pub(super) fn setup(config: Option<&Path>, arguments: SetupArgs) -> Result<(), Error> {
    let config = Config::load(config, Settings::default())?;
    let cancel = interrupt_flag();
    let made = with_lock(Locked::cache(&config.cache), || {
        let cache = Cache::open(&config.cache)?;
        shell::setup(&place(&config, &cache, cancel)?)
    })?;
    if arguments.json {
        print(json_text(&made).trim_end())?;
    } else {
        print(&format!(
            "{} {}\n  circuit     {} constraints, digest {}\n  pin         {}\n  size        {}\n  {}",
            if made.cached { "found" } else { "made" },
            made.proving_key.display(),
            made.constraints,
            made.circuit_digest,
            made.hash,
            bytes_text(made.bytes),
            if made.insecure { crate::statement::INSECURE_NOTE } else { "parameters of a ceremony" }
        ))?;
    }
    Ok(())
}
