//! Carrying out plans: from files to confirmed transactions.

use std::path::PathBuf;
use std::time::Instant;

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Transaction, Txid};

use super::plan::{PlannedTx, SignedPlan};
use super::state::{Pending, PendingStep, State, TxReceipt};
use super::{Trunk, TrunkError};
use crate::backend::{BackendError, TxState};
use crate::store::{read, write_atomically, StoreError};

/// Deepest reorganisation looked back into.
const REORG_BLOCKS_MAX: u32 = 100;

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

    /// Carries out the plan on disk, if there is one, and turns it into a receipt.
    pub(super) fn finish_pending(&mut self) -> Result<(), TrunkError> {
        let Some(pending) = self.state.pending.clone() else { return Ok(()) };
        let mut receipts = Vec::new();
        for stage in &pending.stages {
            receipts.extend(self.confirm(stage, pending.since)?);
        }
        let label = self.backend.label();
        let mut state = self.state.clone();
        state.complete(&pending, receipts, label)?;
        self.replace_state(state)
    }

    /// Goes on with `state` once it is on disk, and not before.
    pub(super) fn replace_state(&mut self, state: State) -> Result<(), TrunkError> {
        state.save(&self.config.dir)?;
        self.state = state;
        Ok(())
    }

    /// Broadcasts the transactions of a stage until all are confirmed.
    fn confirm(&self, stage: &[PlannedTx], since: u32) -> Result<Vec<TxReceipt>, TrunkError> {
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

    /// Puts the last step's transactions back where a reorganisation took them out, so that the next step stands on them.
    pub(super) fn reconfirm_last(&mut self) -> Result<(), TrunkError> {
        let Some(epoch) = self.state.epochs.last() else { return Ok(()) };
        let claim = self.state.claims.last().filter(|claim| claim.epoch == epoch.epoch);
        let transactions = claim.map_or(&epoch.transactions, |claim| &claim.transactions).clone();
        let since =
            transactions.iter().map(|tx| tx.block_height).min().unwrap_or(0).saturating_sub(REORG_BLOCKS_MAX);
        let Some(last) = transactions.last() else { return Ok(()) };
        let record = self.backend.transaction(&last.txid, since)?;
        if record.is_some_and(|record| matches!(record.state, TxState::Confirmed { .. })) {
            return Ok(());
        }
        tracing::warn!("{} {} left the chain: broadcasting again", last.role, last.txid);
        let mut receipts = Vec::with_capacity(transactions.len());
        for receipt in &transactions {
            let confirmed = self.confirm(std::slice::from_ref(&receipt.planned()), since).map_err(
                |error| match error {
                    TrunkError::Backend(BackendError::Rejected { txid, reason }) => {
                        TrunkError::ForeignChain {
                            detail: format!("{txid} is not on this chain and cannot be put there: {reason}"),
                        }
                    }
                    other => other,
                },
            )?;
            receipts.extend(confirmed);
        }
        let number = epoch.epoch;
        let mut state = self.state.clone();
        match state.claims.last_mut().filter(|claim| claim.epoch == number) {
            Some(claim) => claim.transactions = receipts,
            None => state.epochs.last_mut().ok_or(TrunkError::NoEpoch)?.transactions = receipts,
        }
        self.replace_state(state)
    }
}
