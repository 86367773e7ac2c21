//! `assay cache`.

use std::path::Path;
use std::time::Duration;

use super::args::{CacheArgs, CacheCommand};
use super::print;
use crate::cache::Cache;
use crate::config::{Config, Settings};
use crate::error::Error;
use crate::job::HEAD_STAGE;
use crate::lock::{with_lock, Locked};
use crate::progress::{bytes_text, duration_text};
use crate::statement::json_text;

pub(super) fn run(config: Option<&Path>, arguments: CacheArgs) -> Result<(), Error> {
    let config = Config::load(config, Settings::default())?;
    let cache = Cache::at(&config.cache);
    match arguments.command {
        CacheCommand::List { json } => {
            let listed = cache.list()?;
            if json {
                print(json_text(&listed).trim_end())?;
                return Ok(());
            }
            print(&format!("{} finished stages in {}", listed.len(), cache.root().display()))?;
            for entry in listed {
                print(&format!(
                    "  {}  {:<12} {:>9}  took {:<13} {} ago",
                    entry.key.get(..16).unwrap_or(&entry.key),
                    entry.stage,
                    bytes_text(entry.bytes),
                    duration_text(Duration::from_secs(entry.seconds)),
                    duration_text(Duration::from_secs(entry.age_s))
                ))?;
            }
            Ok(())
        }
        CacheCommand::Prune { days, all } => with_lock(Locked::cache(&config.cache), || {
            let age_min = Duration::from_secs(days.saturating_mul(86_400));
            let pruned = cache.prune(age_min, |entry| !all && entry.stage == HEAD_STAGE)?;
            print(&format!(
                "removed {} stages and {} files, {}",
                pruned.entries,
                pruned.blobs,
                bytes_text(pruned.bytes)
            ))?;
            Ok(())
        }),
    }
}
