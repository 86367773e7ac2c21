//! `assay l1`: what stands on Bitcoin, read and watched, and the parties of the contract.

pub(super) mod args;
mod parties;

use std::io::{sink, Stdout, Write};
use std::path::Path;

use assay_l1::output::Output;
use assay_l1::sync::command::{run_inspect, run_sync, CommandError};
use assay_l1_signer::picture::run_graph;
use assay_lvm::{sample, Chain};
use serde_json::json;

use self::args::{L1Args, L1Command, L1SyncArgs};
use super::print;
use crate::description;
use crate::error::Error;
use crate::replay::Replay;
use crate::verify;

pub(super) fn run(config: Option<&Path>, arguments: L1Args) -> Result<(), Error> {
    // Everything is told by arguments: whoever names a file expects more.
    if let Some(path) = config {
        return Err(Error::NoConfig { path: path.to_owned() });
    }
    match arguments.command {
        L1Command::Sync(flags) => sync(*flags),
        L1Command::Inspect(flags) => run_inspect(&flags, &mut stdout()).map_err(failed),
        L1Command::Graph(flags) => run_graph(&flags, &mut stdout()).map_err(Error::Contract),
        L1Command::Signer(flags) => assay_l1_signer::cli::run(flags).map_err(Error::Contract),
        L1Command::Operator(flags) => parties::operator(&flags),
        L1Command::Vigilante(flags) => parties::vigilante(&flags),
        L1Command::Backup(flags) => parties::backup(&flags),
        L1Command::Watch(flags) => parties::watch(&flags),
        L1Command::Keys(flags) => parties::keys(&flags),
        L1Command::Fund(flags) => parties::fund(&flags),
    }
}

/// Standard output; a closed pipe there is not an error of ours.
fn stdout() -> Output<Stdout> {
    Output(std::io::stdout())
}

fn failed(error: CommandError) -> Error {
    Error::L1(Box::new(error))
}

fn sync(flags: L1SyncArgs) -> Result<(), Error> {
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
        (None, None) => unreachable!("clap wants one of --claim and --terms"),
    };
    let batches = args.dir.join("batches");
    if args.from_genesis {
        Replay::clear(&batches)?;
    }
    let mut replay = Replay::open(genesis, &batches)?;
    args.dir.push("reader");
    let mut nowhere = sink();
    let mut terminal = stdout();
    let out: &mut dyn Write = if flags.json { &mut nowhere } else { &mut terminal };
    let report = run_sync(&args, &terms, &mut replay, out).map_err(failed)?;
    let state = replay.state();
    let state_root = state.as_ref().map(|state| state.state_root.to_string());
    if flags.json {
        print(&format!(
            "{:#}",
            json!({
                "epochs": report.epochs,
                "claims": report.claims,
                "executed": report.executed,
                "findings": report.findings_count,
                "stopped": report.is_stopped,
                "next_height": report.next_height,
                "block": state.as_ref().map(|state| state.block_number),
                "state_root": state_root,
                "commitment": state.as_ref().map(|state| hex::encode(state.commitment())),
            })
        ))?;
    } else if let (Some(state), Some(root)) = (&state, state_root) {
        print(&format!(
            "block {}, state root {root}, commitment {}",
            state.block_number,
            hex::encode(state.commitment())
        ))?;
    }
    if report.is_stopped {
        return Err(Error::SyncStopped);
    }
    Ok(())
}

fn genesis(name: &str) -> Result<Chain, Error> {
    if name == "sample" {
        let chain = sample::genesis_chain();
        return chain.map_err(|source| Error::Batch { name: name.to_owned(), source: Box::new(source) });
    }
    let text = description::read(name.as_ref())?;
    description::genesis_chain(&text)
        .map_err(|source| Error::Description { name: name.to_owned(), source: Box::new(source) })
}
