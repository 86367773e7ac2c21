//! `assay prove` and `assay setup`.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use super::args::{ProveArgs, SetupArgs};
use super::{interrupt_flag, print};
use crate::cache::Cache;
use crate::config::{Config, Settings, SettleSettings};
use crate::error::Error;
use crate::input;
use crate::lock::with_lock;
use crate::progress::{bytes_text, duration_text};
use crate::shell::{self, Finished, Place};
use crate::statement::json_text;

pub(super) fn run(config: Option<&Path>, arguments: ProveArgs) -> Result<(), Error> {
    let settle = SettleSettings { bitcoind: arguments.bitcoind, bitcoind_cookie: arguments.bitcoind_cookie };
    let flags = Settings { out: arguments.out, settle, ..Settings::default() };
    let config = Config::load(config, flags)?;
    let cancel = interrupt_flag();
    let mut warn = |text: String| crate::fsio::say!("warning: {text}");
    let request = input::request(&arguments.batch, arguments.until, arguments.genesis, &config, &mut warn)?;
    let finished = with_lock(&config.cache, || {
        let cache = Cache::open(&config.cache)?;
        shell::prove(&place(&config, &cache, cancel)?, &request)
    })?;
    print(if arguments.json { json_text(&finished) } else { text(&finished) }.trim_end());
    Ok(())
}

/// This program itself runs the heavy stages.
fn place<'a>(config: &'a Config, cache: &'a Cache, cancel: Arc<AtomicBool>) -> Result<Place<'a>, Error> {
    let program = std::env::current_exe().map_err(|e| Error::Stage {
        stage: "start".to_owned(),
        reason: format!("cannot find this program: {e}"),
    })?;
    Ok(Place { config, cache, program, cancel })
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
    let made = with_lock(&config.cache, || {
        let cache = Cache::open(&config.cache)?;
        shell::setup(&place(&config, &cache, cancel)?)
    })?;
    if arguments.json {
        print(json_text(&made).trim_end());
    } else {
        print(&format!(
            "{} {}\n  circuit     {} constraints, digest {}\n  size        {}\n  {}",
            if made.cached { "found" } else { "made" },
            made.proving_key.display(),
            made.constraints,
            made.circuit_digest,
            bytes_text(made.bytes),
            if made.insecure { crate::statement::INSECURE_NOTE } else { "parameters of a ceremony" }
        ));
    }
    Ok(())
}
