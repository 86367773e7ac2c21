//! Settles batches, and makes the files of their results.
//!
//! A settlement that has begun is carried on until it is done, whatever goes wrong: its transactions may be on their way.
//! What only a person can mend (no money, a missing folder) is waited for, with a line in the log for each try.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use assay_lvm::vm::{Evm, VirtualMachine};
use assay_lvm::Batch;
use assay_service::work::{Ledger, NewFile, SettleError, Settlement as Order, Settler};
use async_trait::async_trait;

use super::output;
use super::report::ClusterReport;
use crate::config::Config;
use crate::input;
use crate::l1_batches::hand_over;
use crate::proved::Proved;
use crate::settle::{ClaimRequest, SettleFailure, Settled, Venue};
use crate::shell::one_line;
use crate::statement::{json_text, BatchSummary};
use crate::verify::verify_files;

/// Pause before another try.
const WAIT: Duration = Duration::from_secs(2);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Posts claims on the trunks of the result folder, one for each rollup.
#[derive(Clone, Debug)]
pub struct TrunkSettler {
    config: Config,
    verifying_key: [u8; 32],
    ledger: Option<Ledger>,
}

/// A claim with all that is needed to post it.
struct Prepared {
    venue: Venue,
    /// Where an operator of the contract takes batches from.
    batches: Option<PathBuf>,
    proved: Proved,
    summary: BatchSummary,
    constraints: u64,
    /// Of a rollup's first batch; else the trunk knows.
    genesis: Option<[u8; 32]>,
    data: Vec<u8>,
}

impl TrunkSettler {
    /// A settler for proofs under one verifying key.
    pub fn new(config: Config, verifying_key: [u8; 32]) -> Self {
        Self { config, verifying_key, ledger: None }
    }

    /// The same, for a deployment whose claims are in this ledger.
    #[must_use]
    pub fn with_ledger(self, ledger: Ledger) -> Self {
        Self { ledger: Some(ledger), ..self }
    }

    /// What cannot be prepared here may still have been posted by an earlier process: only where it has not is it refused for
    /// good.
    fn failure(&self, order: &Order, reason: String) -> SettleError {
        let venue = Venue::of_rollup(&self.config, order.spec.chain.0).map_err(|error| one_line(&error));
        match venue
            .and_then(|venue| venue.may_have_claimed(&order.spec.to.0).map_err(|error| one_line(&error)))
        {
            Ok(false) => SettleError { is_permanent: true, reason },
            Ok(true) => again(format!("{reason}, but a claim of it may have been posted")),
            Err(unknown) => {
                again(format!("{reason}, and whether it has been posted is not known: {unknown}"))
            }
        }
    }

    /// Reads batch and proof, and checks that the files that will come of them verify.
    fn prepare(&self, order: &Order) -> Result<Prepared, String> {
        let batch = Batch::decode(&order.payload).map_err(|error| one_line(&error))?;
        let validated = Evm.validate(&batch).map_err(|error| one_line(&error))?;
        let summary = input::summary(&validated);
        let (output, proved) =
            output::read(&order.proof, &self.verifying_key).map_err(|error| error.to_string())?;
        let files = proved.files(summary.clone(), None).map_err(|error| error.to_string())?;
        verify_files(&files, None).map_err(|error| error.to_string())?;
        let venue = Venue::of_rollup(&self.config, order.spec.chain.0).map_err(|error| one_line(&error))?;
        let batches = self.config.l1_batches.as_ref().map(|dir| dir.join(order.spec.chain.0.to_string()));
        Ok(Prepared {
            venue,
            batches,
            proved,
            summary,
            constraints: output.constraints,
            genesis: (order.spec.sequence == 0).then_some(order.spec.from.0),
            data: validated.data,
        })
    }
}

/// Worth another try.
fn again(reason: String) -> SettleError {
    SettleError { is_permanent: false, reason }
}

#[async_trait]
impl Settler for TrunkSettler {
    fn ledger(&self) -> Option<Ledger> {
        self.ledger.clone()
    }

    async fn settle(&self, order: &Order) -> Result<Vec<NewFile>, SettleError> {
        let (this, theirs) = (self.clone(), order.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            this.prepare(&theirs).map_err(|reason| this.failure(&theirs, reason))
        });
        // A panic says nothing about what an earlier process has posted.
        let panicked = |error: tokio::task::JoinError| again(error.to_string());
        let prepared = Arc::new(prepared.await.map_err(panicked)??);
        let mut wait = WAIT;
        loop {
            let claim = Arc::clone(&prepared);
            // A caller that goes away leaves this try running; the next caller finds the trunk locked until it is over.
            match tokio::task::spawn_blocking(move || claim.post()).await {
                Ok(Ok(settled)) => return Ok(prepared.files(order, settled)),
                Ok(Err(failure)) if failure.is_begun || failure.error.is_transient() => {
                    let reason = one_line(&failure);
                    tracing::warn!(batch = order.batch.0, reason, "not settled yet; trying again");
                }
                Ok(Err(failure)) => {
                    return Err(SettleError { is_permanent: true, reason: one_line(&failure) })
                }
                Err(error) => {
                    tracing::error!(batch = order.batch.0, %error, "the settlement panicked; trying again")
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }
}

impl Prepared {
    /// Hands the batch to the contract's operator, and posts the claim on the trunk. Both may be done again.
    fn post(&self) -> Result<Settled, SettleFailure> {
        if let Some(batches) = &self.batches {
            hand_over(batches, &self.proved, &self.data).map_err(crate::settle::SettleError::from)?;
        }
        let request = ClaimRequest { proved: &self.proved, genesis: self.genesis, data: &self.data };
        self.venue.settle(&request, &mut |text| tracing::info!(text, "settlement"))
    }

    /// The files of the result. A settlement stands even if one of them cannot be made.
    fn files(&self, order: &Order, settled: Settled) -> Vec<NewFile> {
        let mut batch = self.summary.clone();
        batch.genesis_commitment = Some(hex::encode(settled.genesis));
        let report = ClusterReport::new(order, batch.clone(), &self.proved, self.constraints);
        let report = NewFile { name: ClusterReport::FILE.to_owned(), bytes: json_text(&report).into_bytes() };
        let rendered = self.proved.files(batch, Some(settled.settlement)).map_err(|error| error.to_string());
        let checked = rendered.and_then(|files| {
            verify_files(&files, None).map_err(|error| error.to_string())?;
            Ok(files)
        });
        match checked {
            Ok(files) => {
                let named = files
                    .named()
                    .map(|(name, bytes)| NewFile { name: name.to_owned(), bytes: bytes.to_vec() });
                named.into_iter().chain([report]).collect()
            }
            Err(reason) => {
                tracing::error!(batch = order.batch.0, reason, "the files of a settled batch do not verify");
                vec![report]
            }
        }
    }
}
