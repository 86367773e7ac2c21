//! `assay l1 sync`: the rollup's state from Bitcoin alone, of a trunk of `assay prove` or of the contract.

use std::io::{sink, Sink, Stdout, Write};
use std::path::Path;

use assay_l1::output::Output;
use assay_l1::sync::command::run_sync;
use assay_l1::sync::Report;
use assay_l1_parties::service;
use assay_l1_parties::service::args::TrunkArgs;
use assay_lvm::core::ChainState;
use serde_json::{json, Value};

use super::args::L1SyncArgs;
use super::parties::{judge, JUDGE};
use super::{failed, genesis, stdout};
use crate::cli::print;
use crate::error::Error;
use crate::judge::RollupJudge;
use crate::replay::Replay;
use crate::verify;

pub(super) fn sync(flags: L1SyncArgs) -> Result<(), Error> {
    match flags.epochs.clone() {
        Some(epochs) => contract(&flags, &epochs),
        None => trunk(flags),
    }
}

/// Where the steps are told: nowhere if only the outcome is wanted.
enum Steps {
    Told(Output<Stdout>),
    Untold(Sink),
}

impl Steps {
    fn new(is_json: bool) -> Self {
        if is_json {
            Self::Untold(sink())
        } else {
            Self::Told(stdout())
        }
    }

    fn out(&mut self) -> &mut dyn Write {
        match self {
            Self::Told(out) => out,
            Self::Untold(out) => out,
        }
    }
}

fn trunk(flags: L1SyncArgs) -> Result<(), Error> {
    let genesis = genesis(&flags.genesis)?;
    let mut args = flags.sync;
    let terms = match (flags.terms, &flags.claim) {
        (Some(terms), _) => terms,
        (None, Some(path)) => {
            let settlement =
                verify::read_claim(path)?.claim.settlement.filter(|settlement| settlement.epoch == 0);
            let terms = settlement.as_ref().and_then(|settlement| settlement.epoch_terms.clone());
            let terms = terms.ok_or_else(|| Error::ClaimWithoutTerms { path: path.clone() })?;
            let txid = settlement.and_then(|settlement| settlement.reconfiguration_txid.parse().ok());
            args.root = args.root.or(txid);
            terms
        }
        (None, None) => unreachable!("clap wants one of --claim, --terms and --epochs"),
    };
    let batches = args.dir.join("batches");
    if args.from_genesis {
        Replay::clear(&batches)?;
    }
    let mut replay = Replay::open(genesis, &batches)?;
    args.dir.push("reader");
    let report = run_sync(&args, &terms, &mut replay, Steps::new(flags.json).out()).map_err(failed)?;
    tell(flags.json, &report, replay.state().as_ref(), json!({}))?;
    if report.is_stopped {
        return Err(Error::SyncStopped);
    }
    Ok(())
}

fn contract(flags: &L1SyncArgs, epochs: &Path) -> Result<(), Error> {
    let args = &flags.sync;
    let Some(peers) = flags.peers.clone() else { unreachable!("clap wants --peers with --epochs") };
    let trunk = TrunkArgs {
        node: args.node.clone(),
        epochs: epochs.to_owned(),
        policy: flags.policy.clone(),
        peers,
        start_height: args.start_height,
        finality: args.confirmations,
        poll_ms: 0,
    };
    let folder = args.dir.join(JUDGE);
    if args.from_genesis {
        RollupJudge::clear(&folder)?;
    }
    let (backend, mut judge) = judge(&trunk, &flags.vk, (flags.genesis.as_str(), &flags.forced), &folder)?;
    let mut steps = Steps::new(flags.json);
    let outcome = service::sync::run(&trunk, &args.dir, backend, &mut judge, steps.out())?;
    let report = &outcome.report;
    let state = report.commitment.and_then(|commitment| judge.state(&commitment));
    if flags.vk.is_empty() && !flags.json {
        print("proofs are there, and were not verified: --vk has them verified")?;
    }
    let unknown = outcome.unknown_epoch.map(|(txid, height)| json!({ "txid": txid, "height": height }));
    let more = json!({
        "proofs_verified": !flags.vk.is_empty(),
        "judged": outcome.claims,
        "unknown_epoch": unknown,
    });
    tell(flags.json, report, state.as_ref(), more)?;
    match report.findings_count {
        _ if report.is_stopped => Err(Error::SyncStopped),
        0 if state.is_none() => Err(Error::SyncLost),
        0 => Ok(()),
        findings => Err(Error::SyncFindings { findings }),
    }
}

/// The end of a reading: its state, or everything as JSON, `more` included.
fn tell(is_json: bool, report: &Report, state: Option<&ChainState>, more: Value) -> Result<(), Error> {
    let commitment = state.map(|state| hex::encode(state.commitment()));
    let state_root = state.map(|state| state.state_root.to_string());
    if !is_json {
        let Some(((state, root), commitment)) = state.zip(state_root).zip(commitment) else { return Ok(()) };
        return print(&format!("block {}, state root {root}, commitment {commitment}", state.block_number));
    }
    let mut all = json!({
        "epochs": report.epochs,
        "claims": report.claims,
        "executed": report.executed,
        "findings": report.findings_count,
        "stopped": report.is_stopped,
        "next_height": report.next_height,
        "block": state.map(|state| state.block_number),
        "state_root": state_root,
        "commitment": commitment,
    });
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    print(&format!("{all:#}"))
}
