//! `assay chaos`: `assay-chaos` with this program as the cluster's processes.

use std::process::ExitCode;

use assay_chaos::{Flags, Program};

/// Runs the command, which has exit codes of its own.
pub(super) fn run(flags: Flags) -> ExitCode {
    let (coordinator, worker) = (vec!["chaos-coordinator".into()], vec!["chaos-worker".into()]);
    assay_chaos::command(flags, Program { executable: None, coordinator, worker })
}
