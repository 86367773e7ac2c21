//! The backup operator as a process: a vigilante that takes over, and an operator with the same key.

use std::path::PathBuf;
use std::sync::Arc;

use assay_l1::{BitcoinBackend, OperatorSecret};
use clap::Args;

use super::error::ServiceError;
use super::judge::Judge;
use super::operator::{OperatorArgs, OperatorService};
use super::queue::QueueArgs;
use super::stop::Stop;
use super::vigilante::{VigilanteArgs, VigilanteService};

/// `assay l1 backup`: watches, ends a trunk that stopped, and goes on with it.
///
/// `--secret` is the watch's, whose wallet pays for challenges; `--operator-secret` is that of the operator that takes over. Both
/// wallets need coins.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub watch: VigilanteArgs,
    /// Secret file of the operator that takes over
    #[arg(long, value_name = "FILE")]
    pub operator_secret: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub queue: QueueArgs,
}

/// Runs the backup operator on this node, open already, until `stop`; the arguments' is not looked at. State: `watch` and `operator`
/// in `--dir`.
///
/// # Errors
/// What it cannot go on with; a node that does not answer is waited for.
pub fn run(
    args: &BackupArgs,
    backend: Arc<dyn BitcoinBackend>,
    judge: &mut dyn Judge,
    stop: &Stop,
) -> Result<(), ServiceError> {
    let mut service = BackupService::open(args, backend, judge)?;
    tracing::info!("the backup operator watches");
    while !stop.is_stopped() {
        service.pass(stop)?;
        stop.sleep(args.watch.party.trunk.poll());
    }
    Ok(())
}

/// The backup operator with its files and its node, for callers with a loop of their own.
pub struct BackupService<'a> {
    watch: VigilanteService<'a>,
    operator: OperatorService,
}

impl<'a> BackupService<'a> {
    /// Takes its directory and goes on where it was.
    ///
    /// # Errors
    /// What is wrong with the files; the node's.
    pub fn open(
        args: &BackupArgs,
        backend: Arc<dyn BitcoinBackend>,
        judge: &'a mut dyn Judge,
    ) -> Result<Self, ServiceError> {
        let secret = OperatorSecret::load(&args.operator_secret)?;
        let mut watch = args.watch.clone();
        watch.party.dir = args.watch.party.dir.join("watch");
        let mut party = args.watch.party.clone();
        party.dir = args.watch.party.dir.join("operator");
        party.secret = args.operator_secret.clone();
        let operator = OperatorArgs { party, queue: args.queue.clone() };
        let operator = as_operator(|| OperatorService::open(&operator, Arc::clone(&backend)))?;
        let watch = as_watch(|| VigilanteService::open_backup(&watch, backend, judge, &secret))?;
        Ok(Self { watch, operator })
    }

    /// Does everything that there is to do now. A node that does not answer is no error.
    ///
    /// # Errors
    /// What it cannot go on with.
    pub fn pass(&mut self, stop: &Stop) -> Result<(), ServiceError> {
        as_watch(|| self.watch.pass(stop))?;
        as_operator(|| self.operator.pass(stop))
    }
}

/// Lines of the log say which of the two speaks.
fn as_watch<T>(work: impl FnOnce() -> T) -> T {
    tracing::info_span!("watch").in_scope(work)
}

fn as_operator<T>(work: impl FnOnce() -> T) -> T {
    tracing::info_span!("operator").in_scope(work)
}
