//! Going on after a ClaimTimeout: the epoch before one that was ended early, and the signers' consent to it.
//!
//! What the timeout leaves belongs to the ended epoch's recovery key. A signer does not look at the chain and cannot
//! tell which claims count; a person does, with a backup operator of its own, whose [`Report`] this takes. To consent
//! is to move the recovery key into a new directory together with the end that it is for ([`hand_over`]): a signer that
//! is served from there, under the policy of the operator that goes on, signs one epoch on that end like any other, and
//! then deletes the key.

use std::path::{Path, PathBuf};

use assay_l1::graph::contract::build::{EpochEnd, Graph};
use assay_l1::StoreError;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::{graph_of, read_proposal, Failure};
use crate::limits::FILE_BYTES_MAX;
use crate::machine::{Effect, Record, Stored};
use crate::policy::Policy;
use crate::signatures::SignatureSet;
use crate::statement::Statement;
use crate::store::{file, Store};
use crate::wire::proposal::{encode_end, graph_id};

/// Where a stopped trunk goes on: what a backup operator writes as `handover.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The claim in whose place the timeout came.
    pub stopped_before: Place,
    /// The first claim that does not count; the same one if all do.
    pub goes_on_at: Place,
}

/// A claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Place of its epoch among the party's files.
    pub place: u32,
    /// Number of its epoch.
    pub epoch: u32,
    /// Its number there; the number of claims stands for the next epoch.
    pub claim: u32,
}

/// The epoch before one that is to be built.
#[derive(Debug, Clone, Default, Args)]
pub struct PreviousArgs {
    /// Proposal of the epoch before. Needed by `propose` but for epoch 0, by `hand-over`, and by `fund` after a timeout.
    #[arg(long, value_name = "FILE")]
    pub previous: Option<PathBuf>,
    /// The backup operator's handover.json, if a timeout ended the epoch before.
    #[arg(long, value_name = "FILE", requires = "previous")]
    pub handover: Option<PathBuf>,
    /// With --handover: proposal of the epoch with the first claim that does not count, if that is not the epoch before.
    #[arg(long, value_name = "FILE", requires = "handover")]
    pub goes_on: Option<PathBuf>,
}

/// How the epoch before ends.
#[derive(Debug, Clone)]
pub struct Before {
    /// Its end.
    pub end: EpochEnd,
    /// Statements of its attesters' keys.
    pub attesters: Vec<Statement>,
}

/// Options of `hand-over`.
#[derive(Debug, Args)]
pub struct HandOverArgs {
    /// The signer's directory, which holds the ended epoch; the signer must not be running.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Directory for signing the epoch that goes on, made for this.
    #[arg(long, value_name = "DIR")]
    pub new_dir: PathBuf,
    /// Policy file; it says which verifier's leaves the contract has.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// What was ended, and where it goes on.
    #[command(flatten)]
    pub previous: PreviousArgs,
}

/// A proposal's graph, with the bytes' id.
struct Known {
    id: [u8; 32],
    graph: Graph,
    attesters: Vec<Statement>,
}

fn known(policy: &Policy, path: &Path) -> Result<Known, Failure> {
    let (bytes, proposal) = read_proposal(path)?;
    let graph = graph_of(policy, &proposal)?;
    Ok(Known { id: graph_id(&bytes), graph, attesters: proposal.attesters })
}

/// The end of `ended` by a timeout; `first` is the epoch of the first claim that does not count.
fn halted(ended: &Graph, first: &Graph, report: &Report) -> Result<EpochEnd, Failure> {
    let Report { stopped_before, goes_on_at } = report;
    let number = |graph: &Graph| graph.spec().terms.epoch;
    if number(ended) != stopped_before.epoch {
        let (got, epoch) = (number(ended), stopped_before.epoch);
        return Err(format!("the proposal is of epoch {got}, the hand-over of epoch {epoch}").into());
    }
    if number(first) != goes_on_at.epoch {
        let (got, epoch) = (number(first), goes_on_at.epoch);
        return Err(format!(
            "the hand-over goes on in epoch {epoch}, the proposal given for that is of epoch {got}"
        )
        .into());
    }
    let start = first.start(goes_on_at.claim).ok_or("the claim at which it goes on does not exist")?;
    let end = ended.halted_at(stopped_before.claim, start.clone());
    Ok(end.ok_or("the claim before which it stopped does not exist")?)
}

impl PreviousArgs {
    /// Reads the files; `None` where no epoch is before.
    ///
    /// # Errors
    /// What is wrong with them, for people.
    pub fn load(&self, policy: &Policy) -> Result<Option<Before>, Failure> {
        let Some(path) = &self.previous else { return Ok(None) };
        let ended = known(policy, path)?;
        let end = match &self.handover {
            None => ended.graph.end().clone(),
            Some(handover) => self.halted(policy, &ended, handover)?.0,
        };
        Ok(Some(Before { end, attesters: ended.attesters }))
    }

    /// The end by a timeout, and the epoch of the first claim that does not count.
    fn halted(
        &self,
        policy: &Policy,
        ended: &Known,
        report: &Path,
    ) -> Result<(EpochEnd, Option<Known>), Failure> {
        let missing = || format!("there is no file {}", report.display());
        let report: Report = file::read_json(report, FILE_BYTES_MAX)?.ok_or_else(missing)?;
        let first = self.goes_on.as_deref().map(|path| known(policy, path)).transpose()?;
        let end = halted(&ended.graph, first.as_ref().map_or(&ended.graph, |first| &first.graph), &report)?;
        Ok((end, first))
    }
}

/// What is noted beside an epoch whose recovery key was given away, before it is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Consent {
    /// BLAKE3 of the encoded end, hexadecimal.
    end: String,
    /// Where the key went.
    dir: PathBuf,
}

/// Moves an ended epoch's recovery key, for the end that the report describes, into a new directory; what was agreed to, for people. The
/// same again is no error; another end or another directory is refused for ever.
///
/// # Errors
/// What stands against it, for people; nothing has changed then.
pub fn hand_over(args: &HandOverArgs) -> Result<String, Failure> {
    let policy = Policy::load(&args.policy)?;
    let (Some(proposal), Some(report)) = (&args.previous.previous, &args.previous.handover) else {
        return Err("--previous and --handover are needed".into());
    };
    let ended = known(&policy, proposal)?;
    let (end, first) = args.previous.halted(&policy, &ended, report)?;
    let epoch = end.epoch;
    let (old, stored) = Store::open(&args.dir)?;
    for graph in [Some(&ended), first.as_ref()].into_iter().flatten() {
        signed_here(&stored, graph)?;
    }
    let encoded = encode_end(&end);
    let consent = Consent { end: blake3::hash(&encoded).to_hex().to_string(), dir: args.new_dir.clone() };
    let noted = args.dir.join(format!("epoch-{epoch}.handover"));
    match file::read_json::<Consent>(&noted, FILE_BYTES_MAX)? {
        Some(before) if before != consent => {
            let dir = before.dir.display();
            return Err(format!("epoch {epoch} was handed over before, differently, to {dir}").into());
        }
        Some(_) => {}
        None if !stored.recovery.contains_key(&epoch) => {
            return Err(format!("there is no recovery key of epoch {epoch} here").into());
        }
        None => {
            // Before anything is noted: a directory in use would take the key and never sign.
            check_empty(&args.new_dir)?;
            file::write_json(&noted, &consent)?;
        }
    }
    // From here on only this end and this directory are possible; a kill anywhere is made good by the same call.
    if let Some(key) = stored.recovery.get(&epoch) {
        let (new, _) = Store::open(&args.new_dir)?;
        let set = SignatureSet::load(&old.signatures(epoch))?;
        let set = set.ok_or("the ended epoch's signatures are not here")?;
        new.carry_out(Effect::SaveSignatures { epoch, graph: set.graph, signatures: set.signatures })?;
        let record = Record { graph: ended.id, end: encoded, finished: true };
        new.carry_out(Effect::SaveKey { epoch, secret: key.clone() })?;
        new.carry_out(Effect::SaveRecord { epoch, record })?;
        old.delete_recovery(epoch)?;
    }
    let connector = end.connector;
    Ok(format!(
        "epoch {epoch} is handed over: whoever opens the next one spends {connector}, with what {} signs",
        args.new_dir.display()
    ))
}

/// The graph is one that this signer has signed to its end.
fn signed_here(stored: &Stored, graph: &Known) -> Result<(), Failure> {
    let epoch = graph.graph.spec().terms.epoch;
    let record = stored.records.get(&epoch).filter(|record| record.graph == graph.id && record.finished);
    record.map(drop).ok_or_else(|| format!("this signer has not signed that graph for epoch {epoch}").into())
}

fn check_empty(dir: &Path) -> Result<(), Failure> {
    let storage = |source| StoreError::Storage { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(storage)?,
    };
    for entry in entries {
        let name = entry.map_err(storage)?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("epoch-")) {
            return Err(format!("{} has epochs already; name a new directory", dir.display()).into());
        }
    }
    Ok(())
}
