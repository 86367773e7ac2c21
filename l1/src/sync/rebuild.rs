//! A reading with execution: from the start commitment to the last claim's.

use super::finding::{Finding, FindingKind};
use super::{Execute, Step, SyncError, SyncedClaim, TrunkReader};
use crate::backend::BitcoinBackend;

/// Findings kept in a report; more are counted.
const FINDINGS_MAX: usize = 1_000;

/// What a reading came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Epochs opened, in this run.
    pub epochs: u32,
    /// Claims read, in this run.
    pub claims: u32,
    /// Those whose batch was executed and gave the signed state.
    pub executed: u32,
    /// State commitment after the last of these; `None` if there was none.
    pub commitment: Option<[u8; 32]>,
    /// True if a claim could not be executed, and so none after it.
    pub is_stopped: bool,
    /// What was missing or contradictory, the first 1,000.
    pub findings: Vec<Finding>,
    /// All of it, counted.
    pub findings_count: u64,
    /// Height of the block to be read next.
    pub next_height: u32,
}

/// In one line.
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let commitment = self.commitment.map_or_else(|| "none".to_owned(), hex::encode);
        write!(
            f,
            "{} epochs, {} claims, {} executed, {} findings; state {commitment}; next block {}{}",
            self.epochs,
            self.claims,
            self.executed,
            self.findings_count,
            self.next_height,
            if self.is_stopped { "; STOPPED at the first claim that could not be executed" } else { "" }
        )
    }
}

impl Report {
    fn find(&mut self, finding: Finding) {
        tracing::warn!("{finding}");
        self.findings_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Reads all there is and executes every batch that is linked to the start without a gap; nothing is executed after the
/// first claim for which that fails. State is written down after each step.
///
/// # Errors
/// Those of [`TrunkReader::step`] and [`TrunkReader::save`]; run again, and it goes on with the step that was under way.
pub fn rebuild(
    reader: &mut TrunkReader,
    backend: &dyn BitcoinBackend,
    execute: &mut dyn Execute,
    seen: &mut dyn FnMut(&Step),
) -> Result<Report, SyncError> {
    let mut report = Report { is_stopped: reader.state.is_stopped, ..Report::default() };
    while let Some(step) = reader.step(backend, execute)? {
        seen(&step);
        match step {
            Step::Epoch(_) => report.epochs += 1,
            Step::Finding(finding) => report.find(*finding),
            Step::Claim(claim) => {
                report.claims += 1;
                take(&mut report, &claim, execute);
            }
        }
        reader.state.is_stopped = report.is_stopped;
        reader.save()?;
    }
    reader.save()?;
    report.next_height = reader.next_height();
    Ok(report)
}

fn take(report: &mut Report, claim: &SyncedClaim, execute: &mut dyn Execute) {
    let Some(data) = claim.batch.as_deref().filter(|_| claim.is_linked && !report.is_stopped) else {
        report.is_stopped = true;
        return;
    };
    let SyncedClaim { epoch, claim: number, txid, height, values, .. } = *claim;
    let kind = match execute.execute(claim, data) {
        Ok(commitment) if commitment == values.new_commitment => {
            report.executed += 1;
            report.commitment = Some(commitment);
            return;
        }
        Ok(got) => FindingKind::State {
            epoch,
            claim: number,
            expected: hex::encode(values.new_commitment),
            got: hex::encode(got),
        },
        Err(detail) => FindingKind::Execution { epoch, claim: number, detail },
    };
    report.is_stopped = true;
    report.find(Finding { height, txid, kind });
}
