//! Carrying out plans: from files to confirmed transactions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Transaction, Txid};

use super::plan::{PlannedTx, SignedPlan};
use super::state::{Pending, PendingStep, State, StepIndex, TxReceipt};
use super::{Trunk, TrunkError};
use crate::backend::{BackendError, TxState};
use crate::store::{read, write_atomically, StoreError};

/// Deepest reorganisation looked back into.
const REORG_BLOCKS_MAX: u32 = 100;
/// Reorganisations during one step after which the caller has to decide.
const REORGS_MAX: u32 = 10;

impl Trunk {
    /// Writes the transactions, then the state that names them: a kill in between leaves files that nothing refers to.
    pub(super) fn persist(&mut self, step: PendingStep, signed: SignedPlan) -> Result<(), TrunkError> {
        for tx in &signed.transactions {
            write_atomically(&self.tx_path(&tx.compute_txid()), &serialize(tx))?;
        }
        let since = self.backend.tip()?.height;
        let mut state = self.state.clone();
        state.pending = Some(Pending { step, since, stages: signed.stages });
        self.replace_state(state)
    }

    fn tx_path(&self, txid: &Txid) -> PathBuf {
        self.config.dir.join("txs").join(txid.to_string())
    }

    fn stored_tx(&self, txid: &Txid) -> Result<Transaction, TrunkError> {
        let path = self.tx_path(txid);
        let damaged = |detail: &str| StoreError::Format { path: path.clone(), detail: detail.to_owned() };
        let bytes = read(&path)?.ok_or_else(|| damaged("the file is missing"))?;
        let tx: Transaction = deserialize(&bytes).map_err(|error| damaged(&error.to_string()))?;
        if tx.compute_txid() != *txid {
            return Err(damaged("it holds another transaction").into());
        }
        Ok(tx)
    }

    /// Carries out the plan on disk, if there is one, and turns it into a receipt. What a reorganisation took out of the
    /// chain, before or meanwhile, is put back first: the plan's transactions spend it.
    pub(super) fn finish_pending(&mut self) -> Result<(), TrunkError> {
        for _ in 0..REORGS_MAX {
            self.reconfirm()?;
            let Some(pending) = self.state.pending.clone() else { return Ok(()) };
            let mut receipts = Vec::new();
            let mut failed = None;
            for stage in &pending.stages {
                match self.confirm(stage, pending.since) {
                    Ok(confirmed) => receipts.extend(confirmed),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            if matches!(failed, None | Some(TrunkError::Backend(BackendError::Rejected { .. })))
                && !(self.are_active(&receipts)? && self.lost_steps()?.is_empty())
            {
                tracing::warn!(
                    "a reorganisation took transactions out of the chain: starting the step again"
                );
                continue;
            }
            if let Some(error) = failed {
                return Err(error);
            }
            let label = self.backend.label();
            let mut state = self.state.clone();
            state.complete(&pending, receipts, label)?;
            return self.replace_state(state);
        }
        let planned = self.state.pending.as_ref().and_then(|pending| pending.stages.last()?.last());
        let planned = planned.ok_or(TrunkError::NoEpoch)?;
        Err(TrunkError::NotConfirmed { txid: planned.txid, role: planned.role.clone() })
    }

    /// Goes on with `state` once it is on disk, and not before.
    pub(super) fn replace_state(&mut self, state: State) -> Result<(), TrunkError> {
        state.save(&self.config.dir)?;
        self.state = state;
        Ok(())
    }

    /// Broadcasts the transactions of a stage until all are confirmed. `since`: height of the tip when they were made; another
    /// branch may have them in an earlier block.
    fn confirm(&self, stage: &[PlannedTx], since: u32) -> Result<Vec<TxReceipt>, TrunkError> {
        let since = since.saturating_sub(REORG_BLOCKS_MAX);
        let deadline = Instant::now() + self.config.confirm_timeout;
        // On regtest blocks come at once: beyond the locks and the blocks that a stage fills, something is wrong.
        let mut blocks_left =
            100 + u32::from(self.config.locks.cadence_blocks) + self.config.confirmations_min;
        loop {
            let mut receipts = Vec::with_capacity(stage.len());
            let mut waits_for = None;
            for planned in stage {
                match self.look_up(planned, since)? {
                    Some(receipt) => receipts.push(receipt),
                    None => waits_for = Some(planned),
                }
            }
            let Some(planned) = waits_for else { return Ok(receipts) };
            let expired = match self.backend.miner() {
                Some(miner) if blocks_left > 0 => {
                    miner.mine(1, self.wallet.script())?;
                    blocks_left -= 1;
                    false
                }
                Some(_) => true,
                None => {
                    std::thread::sleep(self.config.poll_interval);
                    Instant::now() >= deadline
                }
            };
            if expired {
                return Err(TrunkError::NotConfirmed { txid: planned.txid, role: planned.role.clone() });
            }
        }
    }

    /// The receipt if the transaction is confirmed; otherwise makes sure that it is in the mempool.
    fn look_up(&self, planned: &PlannedTx, since: u32) -> Result<Option<TxReceipt>, TrunkError> {
        let record = self.backend.transaction(&planned.txid, since)?;
        match record.map(|record| record.state) {
            Some(TxState::Confirmed { height, block_hash, confirmations }) => {
                let deep = confirmations >= self.config.confirmations_min;
                Ok(deep.then(|| TxReceipt::new(planned, height, block_hash)))
            }
            Some(TxState::Mempool) => Ok(None),
            None => match self.backend.broadcast(&self.stored_tx(&planned.txid)?) {
                Ok(()) => Ok(None),
                // The cadence lock has not passed: the next block may change that.
                Err(BackendError::Rejected { reason, .. }) if reason.contains("non-BIP68-final") => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// True if the blocks of all receipts are in the active chain.
    fn are_active(&self, receipts: &[TxReceipt]) -> Result<bool, TrunkError> {
        let blocks: BTreeSet<_> = receipts.iter().map(|tx| (tx.block_height, tx.block_hash)).collect();
        for (height, hash) in blocks {
            match self.backend.block_hash(height) {
                Ok(active) if active == hash => {}
                Ok(_) | Err(BackendError::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Steps that a reorganisation took out of the chain, in whole or in part, oldest first. A step is completed only while
    /// those before it are in the chain, so the first one in the chain, from the newest back, ends the search.
    fn lost_steps(&self) -> Result<Vec<StepIndex>, TrunkError> {
        let mut lost = Vec::new();
        for step in self.state.steps().into_iter().rev() {
            if self.are_active(self.state.transactions(step))? {
                break;
            }
            lost.push(step);
        }
        lost.reverse();
        Ok(lost)
    }

    /// Puts transactions back where a reorganisation took them out, so that the next step stands on them.
    fn reconfirm(&mut self) -> Result<(), TrunkError> {
        for step in self.lost_steps()? {
            self.reconfirm_step(step)?;
        }
        Ok(())
    }

    fn reconfirm_step(&mut self, step: StepIndex) -> Result<(), TrunkError> {
        let planned: Vec<PlannedTx> = self.state.transactions(step).iter().map(TxReceipt::planned).collect();
        let heights = self.state.transactions(step).iter().map(|tx| tx.block_height);
        let since = heights.min().unwrap_or(0);
        let Some((main, before)) = planned.split_last() else { return Ok(()) };
        tracing::warn!("{} {} or what it needs left the chain: looking for it again", main.role, main.txid);
        // The stages of its plan: commit, reveals, main.
        let (commit, reveals) = before.split_at(before.len().min(1));
        let mut receipts = Vec::with_capacity(planned.len());
        for stage in [commit, reveals, std::slice::from_ref(main)] {
            let confirmed = self.confirm(stage, since).map_err(|error| match error {
                TrunkError::Backend(BackendError::Rejected { txid, reason }) => TrunkError::ForeignChain {
                    detail: format!("{txid} is not on this chain and cannot be put there: {reason}"),
                },
                other => other,
            })?;
            receipts.extend(confirmed);
        }
        let mut state = self.state.clone();
        *state.transactions_mut(step) = receipts;
        self.replace_state(state)
    }
}
