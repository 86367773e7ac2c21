//! The vigilante as a process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_l1::envelope::tag;
use assay_l1::graph::contract::build::TxRole;
use assay_l1::graph::transactions::wallet_script;
use assay_l1::{BackendError, BitcoinBackend, KeyError, OperatorSecret, StoreError};
use assay_l1_signer::handover::{Place, Report};
use assay_l1_signer::store::file as plain;
use clap::Args;

use super::args::{keys, PartyArgs};
use super::claim_data::{Index, Sought};
use super::error::ServiceError;
use super::file::Dir;
use super::judge::{Execution, Judge};
use super::node;
use super::runner::{Runner, Shell, Trunk, World};
use super::stop::Stop;
use crate::event::{Effect, Event, Fault};
use crate::party::Keys;
use crate::types::{ClaimId, Values, NEW_ROOT};
use crate::view::lineage;
use crate::vigilante::{Vigilante, DATA_PATIENCE_BLOCKS};

/// After so long in claims' data a vigilante follows the chain first.
const LOOKS_MAX: Duration = Duration::from_secs(5);

/// `assay l1 vigilante`: looks into every claim, challenges and disproves what is wrong.
#[derive(Debug, Clone, Args)]
pub struct VigilanteArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub party: PartyArgs,
    /// Blocks before a claim in which its data is looked for first; what is not there is looked for from the start height on
    #[arg(long, default_value_t = 1_008, value_name = "BLOCKS")]
    pub lookback_blocks: u32,
}

/// Runs the vigilante on this node, open already, until `stop`; the arguments' is not looked at. `judge` is the rollup's part of it.
///
/// # Errors
/// What it cannot go on with; a node that does not answer is waited for.
pub fn run(
    args: &VigilanteArgs,
    backend: Arc<dyn BitcoinBackend>,
    judge: &mut dyn Judge,
    stop: &Stop,
) -> Result<(), ServiceError> {
    let mut service = VigilanteService::open(args, backend, judge)?;
    service.0.run(stop, args.party.trunk.poll())
}

/// The vigilante with its files and its node, for callers with a loop of their own.
pub struct VigilanteService<'a>(Runner<Vigilante, VigilanteShell<'a>>);

impl<'a> VigilanteService<'a> {
    /// Takes its directory and goes on where it was.
    ///
    /// # Errors
    /// What is wrong with the files; the node's.
    pub fn open(
        args: &VigilanteArgs,
        backend: Arc<dyn BitcoinBackend>,
        judge: &'a mut dyn Judge,
    ) -> Result<Self, ServiceError> {
        Ok(Self(open(args, backend, judge, None)?))
    }

    /// The same of a backup operator, which takes over with this operator's key.
    pub(super) fn open_backup(
        args: &VigilanteArgs,
        backend: Arc<dyn BitcoinBackend>,
        judge: &'a mut dyn Judge,
        operator: &OperatorSecret,
    ) -> Result<Self, ServiceError> {
        Ok(Self(open(args, backend, judge, Some(operator))?))
    }

    /// Does everything that there is to do now. A node that does not answer is no error.
    ///
    /// # Errors
    /// What it cannot go on with.
    pub fn pass(&mut self, stop: &Stop) -> Result<(), ServiceError> {
        self.0.try_pass(stop)
    }
}

/// `backup`: it takes over with this key.
fn open<'a>(
    args: &VigilanteArgs,
    backend: Arc<dyn BitcoinBackend>,
    judge: &'a mut dyn Judge,
    backup: Option<&OperatorSecret>,
) -> Result<Runner<Vigilante, VigilanteShell<'a>>, ServiceError> {
    let party = &args.party;
    node::check_unpruned(backend.as_ref())?;
    let dir = Dir::take(&party.dir)?;
    let epochs = party.trunk.epoch_dir()?;
    let secret = load_secret(&party.secret, &dir)?;
    let trunk = Trunk::load(epochs)?;
    let trunk_id = trunk.id();
    let own = keys(&secret, &trunk_id);
    let keys = match backup.map(|operator| keys(operator, &trunk_id)) {
        Some(operator) if operator.wallet == own.wallet => {
            // Each would take the other's coins for its own.
            let detail = "it is --operator-secret's as well, and the two may not share a wallet".to_owned();
            return Err(ServiceError::Argument { name: "--secret", detail });
        }
        Some(operator) => Keys { operator: operator.operator, ..own },
        None => own,
    };
    let shell = VigilanteShell {
        judge,
        index: Index::new(tag(&trunk_id)),
        lookback: args.lookback_blocks,
        start_height: party.trunk.start_height,
        handover: dir.file("handover.json"),
        checks: BTreeMap::new(),
        searched: BTreeMap::new(),
    };
    let wallet = wallet_script(keys.wallet.x_only_public_key().0);
    let fees = node::address(backend.as_ref(), &wallet);
    tracing::info!(fees, "the vigilante runs; fees and deposits are paid from coins at this address");
    let fresh = if backup.is_some() { Vigilante::backup } else { Vigilante::new };
    Runner::open((party, backend), (dir, trunk), keys, shell, fresh)
}

/// A vigilante's secret. It is made if there is none, unless there is a state already: its coins are another's.
fn load_secret(path: &Path, dir: &Dir) -> Result<OperatorSecret, ServiceError> {
    if matches!(dir.file("state").try_exists(), Ok(false)) {
        return Ok(OperatorSecret::load_or_create(path)?);
    }
    OperatorSecret::load(path).map_err(|error| match error {
        KeyError::Storage { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
            ServiceError::NoSecret { path, dir: dir.path().to_owned() }
        }
        other => other.into(),
    })
}

/// A claim to be looked into.
struct Check {
    values: Values,
    /// Tip at which it was last looked for, without a verdict.
    tried: Option<u32>,
}

/// What the vigilante's machine asks for.
struct VigilanteShell<'a> {
    judge: &'a mut dyn Judge,
    index: Index,
    lookback: u32,
    start_height: u32,
    handover: PathBuf,
    checks: BTreeMap<ClaimId, Check>,
    /// Claims without data, and the block up to which it was looked for.
    searched: BTreeMap<ClaimId, u32>,
}

impl Shell for VigilanteShell<'_> {
    fn connected(&mut self, height: u32, block: &bitcoin::Block) -> Vec<Event> {
        self.index.connected(height, block);
        Vec::new()
    }

    fn disconnected(&mut self, height: u32) -> Vec<Event> {
        self.index.disconnected(height);
        self.searched.clear();
        Vec::new()
    }

    fn restarted(&mut self) {
        self.checks.clear();
    }

    fn carry_out(&mut self, world: World<'_>, effect: Effect) -> Result<Vec<Event>, ServiceError> {
        match effect {
            Effect::Check(claim, values) => drop(self.checks.insert(claim, Check { values, tried: None })),
            Effect::HandOver { epoch, claim, first_void } => {
                self.report_handover(world, (ClaimId { epoch, claim }, first_void))?;
            }
            other => tracing::error!("a vigilante does not do this: {other:?}"),
        }
        Ok(Vec::new())
    }

    fn poll(&mut self, world: World<'_>) -> Result<Vec<Event>, ServiceError> {
        let (started, tip) = (Instant::now(), world.view.tip().0);
        let mut events = Vec::new();
        for claim in self.checks.keys().copied().collect::<Vec<_>>() {
            let Some(check) = self.checks.get_mut(&claim).filter(|check| check.tried != Some(tip)) else {
                continue;
            };
            check.tried = Some(tip);
            let values = check.values;
            // A claim that a reorganisation took away is asked for again when it is back.
            let made =
                world.view.confirmed(claim.tx(TxRole::Claim)).filter(|made| made.values == Some(values));
            let Some(made) = made.map(|made| made.height.0) else {
                self.checks.remove(&claim);
                continue;
            };
            let looked = match self.look(world, claim, (&values, made)) {
                // A reorganisation that the machine has not heard of, or a pruned block: later, perhaps.
                Err(BackendError::NotFound { what }) => {
                    let claim = world.contract.claim_name(claim);
                    tracing::warn!("{claim} cannot be looked into now: {what} is not there");
                    continue;
                }
                // What is known is not lost with it.
                Err(error) if !events.is_empty() => {
                    tracing::warn!("{} is looked into later: {error}", world.contract.claim_name(claim));
                    if let Some(check) = self.checks.get_mut(&claim) {
                        check.tried = None;
                    }
                    break;
                }
                other => other?,
            };
            if let Some(faults) = looked {
                self.checks.remove(&claim);
                events.push(Event::Verdict { claim, values, faults });
            }
            if started.elapsed() > LOOKS_MAX {
                // What else there is to do comes first.
                break;
            }
        }
        Ok(events)
    }
}

impl VigilanteShell<'_> {
    /// What is wrong with a claim in the block at height `made`, if that can be said now.
    fn look(
        &mut self,
        world: World<'_>,
        claim: ClaimId,
        (values, made): (&Values, u32),
    ) -> Result<Option<Vec<Fault>>, BackendError> {
        let (tip, until) = (world.view.tip().0, made + DATA_PATIENCE_BLOCKS);
        let patient = tip < until;
        let near = made.saturating_sub(self.lookback);
        // An operator with many batches has published the last ones long before their claims: before data counts as missing,
        // every block is looked through, once.
        let bottom = if patient { near } else { near.min(self.start_height) };
        let Some(sought) = Sought::new(world.contract, claim, values) else { return Ok(None) };
        let found = self.index.find(world.backend, (tip.min(until), bottom), sought, self.judge)?;
        if patient && (found.data.is_none() || !found.is_proved) {
            return Ok(None);
        }
        match found.faults((values, made), self.judge) {
            None if self.catch_up(world, claim)? => Ok(found.faults((values, made), self.judge)),
            known => Ok(known),
        }
    }

    /// Executes a claim before this one whose data came too late for a verdict; true if its state is known then. Data that is withheld
    /// is looked for again whenever a block holds anything of the rollup.
    fn catch_up(&mut self, world: World<'_>, claim: ClaimId) -> Result<bool, BackendError> {
        let tip = world.view.tip().0;
        for before in lineage(world.contract, claim).into_iter().rev() {
            // What is being looked into comes first by itself.
            if self.checks.contains_key(&before) {
                return Ok(false);
            }
            let made = world.view.confirmed(before.tx(TxRole::Claim));
            let Some((made, values)) = made.and_then(|made| Some((made.height.0, made.values?))) else {
                return Ok(false);
            };
            let Some(sought) = Sought::new(world.contract, before, &values) else { return Ok(false) };
            let bottom = self.start_height.min(made);
            let from = self.searched.get(&before).map_or(bottom, |height| height + 1);
            let found = match self.index.may_hold((tip, from)) {
                true => self.index.find(world.backend, (tip, bottom), sought, self.judge)?.data,
                false => None,
            };
            let Some(data) = found else {
                self.searched.insert(before, tip);
                return Ok(false);
            };
            match self.judge.execute(&values, &data, made) {
                Ok(Execution::Done { new_root, .. }) => return Ok(new_root == values[NEW_ROOT]),
                Ok(Execution::NotYet) => {}
                Err(_) => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Writes down what the attesters are to sign: people have to ask them.
    fn report_handover(
        &self,
        world: World<'_>,
        (end, first_void): (ClaimId, ClaimId),
    ) -> Result<(), StoreError> {
        let number = |claim: ClaimId| {
            world.contract.epoch(claim.epoch).map(|epoch| epoch.spec().terms.epoch).unwrap_or_default()
        };
        let place = |claim: ClaimId| Place { place: claim.epoch.0, epoch: number(claim), claim: claim.claim };
        let report = Report { stopped_before: place(end), goes_on_at: place(first_void) };
        let name = |claim| world.contract.claim_name(claim);
        tracing::error!(
            "{} never came: the trunk goes on at {}; have the attesters sign an epoch for that, see {}",
            name(end),
            name(first_void),
            self.handover.display()
        );
        let bytes = serde_json::to_vec_pretty(&report)
            .map_err(|error| StoreError::Format { path: self.handover.clone(), detail: error.to_string() })?;
        plain::write(&self.handover, &bytes)
    }
}
