//! The hidden subcommand `stage`: the child's side of a heavy stage.

use std::io::stdout;
use std::time::Duration;

use assay_worker::child::watched_stdin;
use assay_worker::stages::{serve, StageConfig};

use super::args::StageArgs;
use crate::error::Error;
use crate::shell::one_line;

/// Time that an idle child has to end by itself once its input is closed.
const GRACE: Duration = Duration::from_secs(2);

pub(super) fn run(arguments: StageArgs) -> Result<(), Error> {
    let StageArgs { cache_dir, work_dir, cores, memory_bytes } = arguments;
    let config = StageConfig { cache_dir, work_dir, cores, memory_bytes };
    serve(config, watched_stdin(GRACE), stdout())
        .map_err(|error| Error::Stage { stage: "stage".to_owned(), reason: one_line(&error) })
}
