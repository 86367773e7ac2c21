//! `assay bench`.

use std::path::Path;

use super::args::BenchArgs;
use super::prove::place;
use super::{interrupt_flag, print};
use crate::cache::Cache;
use crate::config::{Config, Settings};
use crate::error::Error;
use crate::fsio::{io_error, write_atomic};
use crate::input::prepare;
use crate::lock::{with_lock, Locked};
use crate::shell;
use crate::statement::json_text;

pub(super) fn run(config: Option<&Path>, arguments: BenchArgs) -> Result<(), Error> {
    let config = Config::load(config, Settings::default())?;
    let folder = arguments.out.unwrap_or_else(|| config.out.join("bench"));
    let jobs: Vec<_> =
        arguments.batches.iter().map(|name| prepare(name, &config)).collect::<Result<_, Error>>()?;
    // A folder that cannot be written is found out before the work.
    std::fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
    let cancel = interrupt_flag();
    let figures = with_lock(Locked::cache(&config.cache), || {
        let cache = Cache::open(&config.cache)?;
        shell::bench(&place(&config, &cache, cancel)?, &jobs, arguments.in_flight)
    })?;
    let text = figures.markdown();
    write_atomic(&folder.join("bench.md"), text.as_bytes())?;
    write_atomic(&folder.join("bench.json"), json_text(&figures).as_bytes())?;
    print(text.trim_end())
}
