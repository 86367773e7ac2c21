//! Settles batches, and makes the files of their results.
//!
//! A settlement is refused only while nothing of it can be on Bitcoin: whatever goes wrong after that is tried again until it is done, with
//! a line in the log for each try, and so is what only a person can mend (no money, a missing folder). While it waits others have their
//! turns. A batch goes to the contract's operator after it is settled, so that none is claimed which the trunk has refused.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use assay_l1::{ClaimReceipt, Trunk};
use assay_lvm::vm::{Evm, VirtualMachine};
use assay_lvm::Batch;
use assay_schedule::{BatchId, ChainId, Spec};
use assay_service::work::{Ledger, Lost, NewFile, SettleError, Settlement as Order, Settler};
use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::output;
use super::report::ClusterReport;
use crate::config::Config;
use crate::input;
use crate::l1_batches::{check, hand_over};
use crate::proved::Proved;
use crate::settle::{ClaimRequest, SettleFailure, Settled, Standing, Venue};
use crate::shell::one_line;
use crate::statement::{self, json_text, BatchSummary};
use crate::verify::verify_files;

/// Pause before another try.
const WAIT: Duration = Duration::from_secs(2);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Tries at the same time, where a node keeps the chain.
const TURNS: usize = 4;
/// Settlements at the same time, of which most wait: for their turn, or for a person. Each holds its batch in memory.
pub const SETTLEMENTS_MAX: usize = 16;

/// Posts claims on the trunks of the result folder, one for each rollup.
#[derive(Clone, Debug)]
pub struct TrunkSettler {
    config: Config,
    verifying_key: [u8; 32],
    ledger: Option<Ledger>,
    turns: Arc<Semaphore>,
}

/// How a try has ended.
enum Tried {
    Over(Result<Vec<NewFile>, SettleError>),
    /// Not yet, or nobody can say: for this reason.
    Again(String),
}

/// A settlement that is tried until it is over.
struct Case {
    settler: TrunkSettler,
    order: Order,
    prepared: OnceLock<Prepared>,
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
        // A chain in this process is one folder, open once.
        let turns = if config.bitcoind.is_none() { 1 } else { TURNS };
        Self { config, verifying_key, ledger: None, turns: Arc::new(Semaphore::new(turns)) }
    }

    /// The same, for a deployment whose claims are in this ledger.
    #[must_use]
    pub fn with_ledger(self, ledger: Ledger) -> Self {
        Self { ledger: Some(ledger), ..self }
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

    /// What becomes of a batch that this process cannot settle: an earlier one may have posted it. What was begun is carried out; only
    /// where there is nothing is the batch refused.
    fn without_claim(&self, spec: &Spec, refused: SettleError) -> Tried {
        let is_it =
            |claim: &ClaimReceipt| (claim.prev_commitment, claim.new_commitment) == (spec.from.0, spec.to.0);
        let venue = Venue::of_rollup(&self.config, spec.chain.0).map_err(crate::settle::SettleError::from);
        match venue.and_then(|venue| venue.finish(is_it)) {
            Ok(Standing::Absent) => Tried::Over(Err(refused)),
            Ok(Standing::Settled) => {
                let (chain, sequence, reason) = (spec.chain.0, spec.sequence, refused.reason);
                tracing::error!(
                    chain,
                    sequence,
                    reason,
                    "settled before; its files cannot be made, nor is it handed to an operator of the contract"
                );
                Tried::Over(Ok(Vec::new()))
            }
            Ok(Standing::Begun) => {
                Tried::Again(format!("{}, but a settlement that was begun is not over", refused.reason))
            }
            Err(unknown) => {
                let unknown = one_line(&unknown);
                Tried::Again(format!(
                    "{}, and whether it has been posted is not known: {unknown}",
                    refused.reason
                ))
            }
        }
    }

    /// Tries on threads that may block, one for each turn, until it is over.
    async fn until_over(
        &self,
        batch: BatchId,
        attempt: impl Fn() -> Tried + Send + Sync + 'static,
    ) -> Result<Vec<NewFile>, SettleError> {
        let attempt = Arc::new(attempt);
        let mut wait = WAIT;
        loop {
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            let attempt = Arc::clone(&attempt);
            // A caller that goes away leaves this try running with its turn; in another process the next one finds the trunk locked until it
            // is over.
            let tried = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                attempt()
            });
            match tried.await {
                Ok(Tried::Over(result)) => return result,
                Ok(Tried::Again(reason)) => {
                    tracing::warn!(batch = batch.0, reason, "not settled yet; trying again");
                }
                // That says nothing about what was posted.
                Err(error) => {
                    tracing::error!(batch = batch.0, %error, "the settlement panicked; trying again")
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }
}

#[async_trait]
impl Settler for TrunkSettler {
    fn ledger(&self) -> Option<Ledger> {
        self.ledger.clone()
    }

    fn has_trunk(&self, chain: ChainId) -> bool {
        let found = Venue::of_rollup(&self.config, chain.0)
            .map_err(|error| one_line(&error))
            .and_then(|venue| Trunk::has_claims(&venue.trunk).map_err(|error| one_line(&error)));
        found.unwrap_or_else(|reason| {
            tracing::error!(chain = chain.0, reason, "the rollup's claims cannot be looked at");
            false
        })
    }

    async fn settle(&self, order: &Order) -> Result<Vec<NewFile>, SettleError> {
        let case = Case { settler: self.clone(), order: order.clone(), prepared: OnceLock::new() };
        self.until_over(order.batch, move || case.attempt()).await
    }

    async fn settle_lost(
        &self,
        batch: BatchId,
        spec: &Spec,
        lost: Lost,
    ) -> Result<Vec<NewFile>, SettleError> {
        let refused = SettleError { is_permanent: lost == Lost::Payload, reason: lost.to_string() };
        let (this, spec) = (self.clone(), spec.clone());
        self.until_over(batch, move || this.without_claim(&spec, refused.clone())).await
    }
}

impl Case {
    fn attempt(&self) -> Tried {
        let refused = |reason| SettleError { is_permanent: true, reason };
        let prepared = match self.prepare() {
            Ok(prepared) => prepared,
            Err(reason) => return self.settler.without_claim(&self.order.spec, refused(reason)),
        };
        let failure = match prepared.post() {
            Ok(settled) => return Tried::Over(Ok(prepared.files(&self.order, settled))),
            Err(failure) => failure,
        };
        let reason = one_line(&failure);
        if failure.is_begun || failure.error.is_transient() {
            return Tried::Again(reason);
        }
        let digest = statement::digest(&prepared.proved.public_values);
        match prepared.venue.standing(|claim| claim.digest == digest) {
            Ok(Standing::Absent) => Tried::Over(Err(refused(reason))),
            Ok(Standing::Begun | Standing::Settled) => {
                Tried::Again(format!("{reason}; its claim is on Bitcoin, or on its way"))
            }
            Err(unknown) => {
                let unknown = one_line(&unknown);
                Tried::Again(format!("{reason}, and whether it has been posted is not known: {unknown}"))
            }
        }
    }

    fn prepare(&self) -> Result<&Prepared, String> {
        if let Some(prepared) = self.prepared.get() {
            return Ok(prepared);
        }
        let prepared = self.settler.prepare(&self.order)?;
        Ok(self.prepared.get_or_init(|| prepared))
    }
}

impl Prepared {
    /// Posts the claim on the trunk, then hands the batch to the contract's operator. Both may be done again.
    fn post(&self) -> Result<Settled, SettleFailure> {
        use crate::settle::SettleError;

        if let Some(batches) = &self.batches {
            check(batches, &self.proved, &self.data).map_err(SettleError::from)?;
        }
        let request = ClaimRequest { proved: &self.proved, genesis: self.genesis, data: &self.data };
        let settled = self.venue.settle(&request, &mut |text| tracing::info!(text, "settlement"))?;
        if let Some(batches) = &self.batches {
            hand_over(batches, &self.proved, &self.data).map_err(SettleError::from)?;
        }
        Ok(settled)
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

#[cfg(test)]
mod tests;
