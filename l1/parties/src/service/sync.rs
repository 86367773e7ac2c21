//! The rollup's state rebuilt from the contract's claims, with a node and nothing else: `assay l1 sync --epochs`.
//!
//! Every block is read anew, then each claim that counts is looked into, in order, as a vigilante does. So a later run follows
//! whatever reorganisation came in between; what is kept is the judge's. Nothing is sent, and no secret is needed.

mod meter;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::iter::empty;
use std::path::Path;
use std::sync::Arc;

use assay_l1::envelope::tag;
use assay_l1::graph::contract::build::TxRole;
use assay_l1::sync::Report;
use assay_l1::{BackendError, BitcoinBackend};
use bitcoin::{OutPoint, Transaction, Txid};
use serde::Serialize;

use self::meter::Meter;
use super::args::TrunkArgs;
use super::claim_data::{Found, Index, Sought};
use super::error::ServiceError;
use super::file::Dir;
use super::judge::Judge;
use super::node;
use super::reading::{Moved, Reading};
use super::runner::Trunk;
use super::watch::{stage_text, ClaimState, Snapshot, Stage};
use crate::contract::{Contract, Origin};
use crate::event::{Block, Fault};
use crate::types::{ClaimId, ContractTx, EpochIndex, Height, NEW_ROOT};
use crate::view::{Standing, View};
use crate::vigilante::DATA_PATIENCE_BLOCKS;

/// What a reading came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// In numbers, and the state after the last claim that was executed, or the first one's start.
    pub report: Report,
    /// All claims in blocks, in the order of their epochs' files.
    pub claims: Vec<JudgedClaim>,
    /// The opening of an epoch that goes on with the trunk and is not known, and its height: more claims may follow there.
    pub unknown_epoch: Option<(Txid, u32)>,
}

/// A claim in a block, and what was found out about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JudgedClaim {
    /// Place of its epoch among the files.
    pub place: u32,
    /// The epoch's number.
    pub epoch: u32,
    /// Its number in the epoch.
    pub claim: u32,
    /// Height of its block.
    pub height: u32,
    /// What the chain shows to have become of it.
    pub state: Stage,
    /// What it is found to be.
    pub verdict: Verdict,
}

/// What a claim is found to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Executing its batch gives the state that it signs, and nothing else is wrong.
    Right,
    /// All that is wrong with it.
    Wrong(Vec<Fault>),
    /// Its data or its proof, or those of a claim before it, may still come: it is too new for that to be a fault.
    Pending,
    /// It was slashed, stands without a collateral, or comes after such a claim: it was not looked into.
    NotCounting,
}

/// Reads the trunk, and executes the batch of every claim that counts. A line for each claim goes to `out`; progress to a terminal's
/// standard error. `dir` is taken for the time; what is in it is the judge's. Blocks with fewer confirmations than the arguments'
/// `finality` are not read.
///
/// # Errors
/// What is wrong with arguments and files; the node's. What is wrong with claims is in the outcome.
pub fn run(
    trunk: &TrunkArgs,
    dir: &Path,
    backend: Arc<dyn BitcoinBackend>,
    judge: &mut dyn Judge,
    out: &mut dyn Write,
) -> Result<Outcome, ServiceError> {
    if trunk.finality == 0 {
        let detail = "at least 1 is needed".to_owned();
        return Err(ServiceError::Argument { name: "--confirmations", detail });
    }
    let mut sync = Sync::open(trunk, backend)?;
    let _dir = Dir::take(dir)?;
    loop {
        sync.read()?;
        sync.meter.clear();
        let outcome = sync.judge(judge, out);
        if sync.reading.is_on_chain()? {
            let outcome = outcome?;
            writeln!(out, "{}", outcome.report)?;
            return Ok(outcome);
        }
        writeln!(out, "blocks that were read have left the chain: once more")?;
    }
}

/// A reading of a trunk.
struct Sync {
    reading: Reading,
    index: Index,
    start_height: u32,
    confirmations: u32,
    /// What epochs leave to those after them.
    ends: BTreeSet<OutPoint>,
    /// Transactions that the contract does not know and that spend one, by height.
    strangers: BTreeMap<Height, Txid>,
    meter: Meter,
}

/// How far the state is known.
struct Progress {
    /// The state after the last claim that was executed.
    commitment: [u8; 32],
    executed: u32,
    /// Why nobody knows the state after the last claim.
    gap: Option<Gap>,
}

/// Why a state is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// Data may still come.
    Pending,
    /// A claim is wrong.
    Lost,
}

impl Sync {
    fn open(trunk: &TrunkArgs, backend: Arc<dyn BitcoinBackend>) -> Result<Self, ServiceError> {
        let loaded = Trunk::load(trunk.epoch_dir()?)?;
        loaded.epochs.complaints().iter().for_each(|complaint| tracing::warn!("{complaint}"));
        node::check_unpruned(backend.as_ref())?;
        let (index, ends) = (Index::new(tag(&loaded.id())), ends(&loaded.contract));
        let (start_height, confirmations) = (trunk.start_height, trunk.finality);
        let reading = Reading::open(backend, loaded.contract, (start_height, confirmations))?;
        let (strangers, meter) = (BTreeMap::new(), Meter::on_terminal());
        Ok(Self { reading, index, start_height, confirmations, ends, strangers, meter })
    }

    fn contract(&self) -> &Contract {
        &self.reading.contract
    }

    fn view(&self) -> &View {
        self.reading.view()
    }

    /// Goes over all blocks that have enough confirmations.
    fn read(&mut self) -> Result<(), ServiceError> {
        let first = self.reading.height();
        loop {
            let top = (self.reading.backend().tip()?.height + 1).saturating_sub(self.confirmations);
            let height = self.reading.height();
            self.meter.show("reading blocks", height.saturating_sub(first), top.saturating_sub(first));
            // What was read too far for another chain is left once that is longer.
            if height >= top && self.reading.is_on_chain()? {
                return Ok(());
            }
            match self.reading.next()? {
                None if height >= top => return Ok(()),
                None => {}
                Some(Moved::Up(block)) => self.look_for_strangers(&block),
                Some(Moved::Down(height)) => {
                    self.index.disconnected(height.0);
                    self.strangers.split_off(&height);
                }
                Some(Moved::Over) => {
                    self.index.disconnected(0);
                    self.strangers.clear();
                }
            }
        }
    }

    fn look_for_strangers(&mut self, block: &Block) {
        let contract = &self.reading.contract;
        let stranger = block.txs.iter().find(|tx| is_stranger(contract, &self.ends, tx));
        let stranger = stranger.map(|tx| tx.compute_txid());
        self.strangers.extend(stranger.map(|txid| (block.height, txid)));
    }

    /// Looks into all claims that count.
    fn judge(&mut self, judge: &mut dyn Judge, out: &mut dyn Write) -> Result<Outcome, ServiceError> {
        let counting = self.counting()?;
        let start = match self.contract().origin(ClaimId { epoch: EpochIndex(0), claim: 0 }) {
            Some(Origin::State(state)) => state,
            _ => [0; 32],
        };
        let mut progress = Progress { commitment: start, executed: 0, gap: None };
        let (mut claims, mut seen) = (Vec::new(), 0);
        let now = Snapshot::new(self.contract(), self.view(), empty());
        for epoch in &now.epochs {
            for state in epoch.claims.iter().filter(|claim| claim.stage != Stage::Unmade) {
                let id = ClaimId { epoch: EpochIndex(epoch.place), claim: state.claim };
                let made = self.view().confirmed(id.tx(TxRole::Claim)).map_or(0, |made| made.height.0);
                let verdict = if counting.contains(&id) {
                    self.meter.show("executing claims", seen, counting.len() as u32);
                    seen += 1;
                    self.verdict((id, made), judge, &mut progress)?
                } else {
                    Verdict::NotCounting
                };
                self.meter.clear();
                writeln!(out, "{}", line(&id.text(&epoch.name()), made, state, &verdict))?;
                claims.push(JudgedClaim {
                    place: epoch.place,
                    epoch: epoch.epoch,
                    claim: state.claim,
                    height: made,
                    state: state.stage,
                    verdict,
                });
            }
        }
        let opened = now.epochs.iter().filter(|epoch| epoch.opened.is_some()).count();
        self.outcome(claims, opened, &progress, out)
    }

    fn outcome(
        &self,
        claims: Vec<JudgedClaim>,
        opened: usize,
        progress: &Progress,
        out: &mut dyn Write,
    ) -> Result<Outcome, ServiceError> {
        let unknown_epoch = self.strangers.first_key_value().map(|(height, txid)| (*txid, height.0));
        if let Some((txid, height)) = unknown_epoch {
            writeln!(
                out,
                "FINDING {txid} at height {height} goes on with the trunk, and is of no epoch in --epochs: get the files of the \
                 epoch that it opens"
            )?;
        }
        let wrong = claims.iter().filter(|claim| matches!(claim.verdict, Verdict::Wrong(_))).count();
        let report = Report {
            epochs: opened as u32,
            claims: claims.len() as u32,
            executed: progress.executed,
            commitment: Some(progress.commitment),
            is_stopped: progress.gap == Some(Gap::Lost),
            findings: Vec::new(),
            findings_count: (wrong + usize::from(unknown_epoch.is_some())) as u64,
            next_height: self.reading.height() + 1,
        };
        Ok(Outcome { report, claims, unknown_epoch })
    }

    /// The claims that count, all of which were seen.
    fn counting(&self) -> Result<BTreeSet<ClaimId>, ServiceError> {
        let (contract, view) = (self.contract(), self.view());
        let counting: BTreeSet<ClaimId> = view.counting(contract).into_iter().collect();
        let lacks_opening = contract.epochs().any(|(epoch, drawn)| {
            let is_made = |role| view.confirmed(ContractTx { epoch, role }).is_some();
            !is_made(TxRole::Reconfiguration) && drawn.graph().nodes().keys().any(|role| is_made(*role))
        });
        if lacks_opening || counting.iter().any(|claim| view.standing(*claim) == Standing::Unmade) {
            let detail = "the first epoch has opened in a block before it".to_owned();
            return Err(ServiceError::Argument { name: "--start-height", detail });
        }
        Ok(counting)
    }

    /// Looks into a claim in the block at height `made`, all before which are done with.
    fn verdict(
        &mut self,
        (id, made): (ClaimId, u32),
        judge: &mut dyn Judge,
        progress: &mut Progress,
    ) -> Result<Verdict, ServiceError> {
        let undecided = || ServiceError::Undecided { claim: self.contract().claim_name(id) };
        let values = self.view().values(id).ok_or_else(undecided)?;
        let mut faults = self.view().own_faults(self.contract(), id).ok_or_else(undecided)?;
        if let Some(gap) = progress.gap {
            faults.extend((gap == Gap::Lost).then_some(Fault::UnknownStart));
            return Ok(if faults.is_empty() { Verdict::Pending } else { Verdict::Wrong(faults) });
        }
        let is_early = self.reading.height() < made + DATA_PATIENCE_BLOCKS;
        let mut found =
            self.find(Sought::new(self.contract(), id, &values).ok_or_else(undecided)?, made, judge)?;
        // A batch is executed whether it is proved or not.
        let is_proved = std::mem::replace(&mut found.is_proved, true);
        let (waits_for_data, waits_for_proof) = (is_early && found.data.is_none(), is_early && !is_proved);
        if !waits_for_data {
            match found.faults((&values, made), judge) {
                Some(more) => faults.extend(more),
                // It starts nowhere.
                None if faults.contains(&Fault::Link) => {}
                None => return Err(ServiceError::Undecided { claim: self.contract().claim_name(id) }),
            }
        }
        faults.extend((!is_proved && !is_early).then_some(Fault::Proof));
        if faults.iter().any(|fault| fault.hides_state() || *fault == Fault::Link) {
            progress.gap = Some(Gap::Lost);
        } else if waits_for_data {
            progress.gap = Some(Gap::Pending);
        } else {
            progress.commitment = values[NEW_ROOT];
            progress.executed += 1;
        }
        Ok(match faults.is_empty() {
            false => Verdict::Wrong(faults),
            true if waits_for_data || waits_for_proof => Verdict::Pending,
            true => Verdict::Right,
        })
    }

    /// A claim's data and proof: where a vigilante looks first, or anywhere, because data that came late is data.
    fn find(&mut self, sought: Sought<'_>, made: u32, judge: &mut dyn Judge) -> Result<Found, BackendError> {
        let (top, bottom) = (self.reading.height(), self.start_height.min(made));
        let near = top.min(made + DATA_PATIENCE_BLOCKS);
        let found = self.index.find(self.reading.backend(), (near, bottom), sought, judge)?;
        if near == top || (found.data.is_some() && found.is_proved) {
            return Ok(found);
        }
        self.index.find(self.reading.backend(), (top, bottom), sought, judge)
    }
}

/// True for a transaction that goes on with the trunk and is not the contract's.
fn is_stranger(contract: &Contract, ends: &BTreeSet<OutPoint>, tx: &Transaction) -> bool {
    tx.input.iter().any(|input| ends.contains(&input.previous_output)) && contract.identify(tx).is_empty()
}

/// The outputs that an epoch's successor spends: of the last claim, and of each timeout.
fn ends(contract: &Contract) -> BTreeSet<OutPoint> {
    let of = |graph: &assay_l1::graph::contract::build::Graph| {
        let end = graph.end();
        let halts = (0..=graph.spec().terms.claims_max)
            .filter_map(|claim| Some(graph.halted_at(claim, end.start.clone())?.connector));
        halts.chain([end.connector]).collect::<Vec<_>>()
    };
    contract.epochs().flat_map(|(_, epoch)| of(epoch.graph())).collect()
}

/// A claim for people.
fn line(name: &str, made: u32, state: &ClaimState, verdict: &Verdict) -> String {
    let stage = stage_text(state);
    match verdict {
        Verdict::Right => format!("{name}, made at {made}: {stage}; executed, right"),
        Verdict::Pending => format!("{name}, made at {made}: {stage}; its data or proof may still come"),
        Verdict::NotCounting => format!("{name}, made at {made}: {stage}; does not count"),
        Verdict::Wrong(faults) => {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            format!("FINDING {name}, made at {made}: {stage}; {}", faults.join("; "))
        }
    }
}

#[cfg(test)]
mod tests;
