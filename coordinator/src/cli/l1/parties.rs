//! The contract's parties: `assay l1 operator`, `vigilante`, `backup`, `watch`, `keys` and `fund`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use assay_l1::BitcoinBackend;
use assay_l1_parties::service::args::{PartyArgs, TrunkArgs};
use assay_l1_parties::service::{self, ServiceError, Stop};
use assay_l1_signer::policy::Policy;

use super::args::{
    ForcedArgs, JudgeArgs, L1BackupArgs, L1FundArgs, L1KeysArgs, L1OperatorArgs, L1VigilanteArgs, L1WatchArgs,
};
use super::{failed, genesis, stdout};
use crate::error::Error;
use crate::judge::{ForcedRules, RollupJudge};
use crate::verify::read_verifying_key;

/// Folder of executed batches in a service's own.
pub(super) const JUDGE: &str = "judge";

pub(super) fn operator(flags: &L1OperatorArgs) -> Result<(), Error> {
    let stop = on_signals()?;
    Ok(service::operator::run(&flags.service, &stop)?)
}

pub(super) fn vigilante(flags: &L1VigilanteArgs) -> Result<(), Error> {
    let stop = on_signals()?;
    let (backend, mut judge) = party_judge(&flags.service.party, &flags.judge)?;
    Ok(service::vigilante::run(&flags.service, backend, &mut judge, &stop)?)
}

pub(super) fn backup(flags: &L1BackupArgs) -> Result<(), Error> {
    let stop = on_signals()?;
    let (backend, mut judge) = party_judge(&flags.service.watch.party, &flags.judge)?;
    Ok(service::backup::run(&flags.service, backend, &mut judge, &stop)?)
}

pub(super) fn watch(flags: &L1WatchArgs) -> Result<(), Error> {
    let stop = on_signals()?;
    // It ends when nobody reads on.
    Ok(service::watch::run(&flags.watch, &mut std::io::stdout(), &stop)?)
}

pub(super) fn keys(flags: &L1KeysArgs) -> Result<(), Error> {
    Ok(service::fund::run_keys(&flags.keys, &mut stdout())?)
}

pub(super) fn fund(flags: &L1FundArgs) -> Result<(), Error> {
    Ok(service::fund::run(&flags.fund, &mut stdout())?)
}

fn on_signals() -> Result<Stop, Error> {
    Ok(Stop::on_signals().map_err(ServiceError::System)?)
}

/// The node, opened once, and what judges claims on it for a party.
fn party_judge(
    party: &PartyArgs,
    flags: &JudgeArgs,
) -> Result<(Arc<dyn BitcoinBackend>, RollupJudge), Error> {
    judge(&party.trunk, &flags.vk, (flags.genesis.as_str(), &flags.forced), &party.dir.join(JUDGE))
}

/// The same for whoever reads the trunk; without a key no proof is verified. Executed batches are kept in `folder`.
pub(super) fn judge(
    trunk: &TrunkArgs,
    vks: &[PathBuf],
    (genesis_name, forced): (&str, &ForcedArgs),
    folder: &Path,
) -> Result<(Arc<dyn BitcoinBackend>, RollupJudge), Error> {
    let policies = trunk.policy.iter().map(|path| Policy::load(path));
    let policies = policies.collect::<Result<Vec<_>, _>>().map_err(ServiceError::Policy)?;
    let vks = vks.iter().map(|path| read_verifying_key(path)).collect::<Result<Vec<_>, _>>()?;
    let genesis = genesis(genesis_name)?;
    let backend = trunk.node.open().map_err(failed)?;
    let rules =
        ForcedRules { grace_blocks: forced.forced_grace_blocks, window_blocks: forced.forced_window_blocks };
    let judge = RollupJudge::open(genesis, &vks, &policies, (Arc::clone(&backend), rules), folder)?;
    Ok((backend, judge))
}
