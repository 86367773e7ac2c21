//! The operator's side of settlement: epochs and claims on a chain, exactly once, whatever is killed when.
//!
//! Everything that leaves this process is decided and on disk first. A step (an epoch's opening, a claim) is planned
//! once: its transactions are signed, written to `txs/`, and then named in `state.json`, atomically. From then on every
//! run, this one or a later one, carries out that plan and no other: it looks each transaction up, broadcasts what the
//! chain does not know, and waits for blocks (or mines them, on regtest). When all are confirmed the plan becomes a
//! receipt. One-time signatures pass the guard of [`crate::wots::guard`] before they enter a plan.
//!
//! Directory: `state.json`, `txs/<txid>` (consensus encoding), `wots.json` (used one-time keys), `operator.secret`
//! (0600; unless configured elsewhere), `lock`.

mod error;
mod plan;
mod state;

pub use error::TrunkError;
pub use state::{ClaimReceipt, EpochReceipt, TxReceipt};

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, Txid};
use rand::rngs::OsRng;
use rand::RngCore;

use crate::backend::{BackendError, BitcoinBackend, TxState};
use crate::envelope::message::{ClaimValues, Message, PROOF_BYTES_MAX};
use crate::envelope::{tag, BODY_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::graph::terms::{ClaimKeys, ClaimValue, EpochParams, EpochTerms, TimeLocks};
use crate::graph::transactions::{claim, connector_of, reconfiguration, PreviousEpoch};
use crate::keys::{KeyRole, OperatorSecret};
use crate::store::{read, write_atomically, StoreError};
use crate::wallet::Wallet;
use crate::wots::guard::UseGuard;

use plan::{PlannedTx, Planner};
use state::{Pending, PendingStep, State};

/// Blocks aimed at when asking for a fee rate.
const FEE_TARGET_BLOCKS: u16 = 3;
/// Bytes of a batch message around the data.
const BATCH_OVERHEAD_BYTES: usize = 40;

/// Settings of a trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkConfig {
    /// Directory of the trunk; created when absent.
    pub dir: PathBuf,
    /// File with the operator's secret, mode 0600; created when absent.
    pub secret_file: PathBuf,
    /// Claims per epoch, 1 to 4096.
    pub claims_per_epoch: u32,
    /// Time locks of epochs opened from now on.
    pub locks: TimeLocks,
    /// Collateral of epochs opened from now on.
    pub collateral: Amount,
    /// Fee rate where the chain offers no estimate, sat/vB.
    pub fee_rate_fallback_sat_per_vb: u64,
    /// Highest fee rate paid, sat/vB.
    pub fee_rate_max_sat_per_vb: u64,
    /// Confirmations after which a transaction counts as settled.
    pub confirmations_min: u32,
    /// Longest wait for one confirmation, where blocks are not ours to mine.
    pub confirm_timeout: Duration,
    /// Pause between two looks at the chain meanwhile.
    pub poll_interval: Duration,
    /// Largest envelope body, in bytes; tests use less to exercise chunks.
    pub envelope_limit: usize,
}

impl TrunkConfig {
    /// Settings for regtest, all in `dir`.
    #[must_use]
    pub fn development(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            secret_file: dir.join("operator.secret"),
            dir,
            claims_per_epoch: 64,
            locks: TimeLocks::REGTEST,
            collateral: Amount::from_sat(10_000_000),
            fee_rate_fallback_sat_per_vb: 2,
            fee_rate_max_sat_per_vb: 200,
            confirmations_min: 1,
            confirm_timeout: Duration::from_secs(3_600),
            poll_interval: Duration::from_secs(5),
            envelope_limit: BODY_BYTES_MAX,
        }
    }
}

/// A batch to settle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimInput {
    /// State commitment before the batch.
    pub prev_commitment: [u8; 32],
    /// State commitment after it.
    pub new_commitment: [u8; 32],
    /// Hash of the batch.
    pub batch_hash: [u8; 32],
    /// Root of the code control group.
    pub code_root: [u8; 32],
    /// BLAKE3 of the four above in this order, first byte `& 0x1f`: the proof's public input.
    pub digest: [u8; 32],
    /// The Groth16 proof, compressed; at most [`PROOF_BYTES_MAX`] bytes. Published, and not looked at here.
    pub proof: Vec<u8>,
    /// What a reader needs to rebuild the state; published.
    pub batch_data: Vec<u8>,
}

impl ClaimInput {
    fn values(&self) -> ClaimValues {
        ClaimValues {
            prev_commitment: self.prev_commitment,
            new_commitment: self.new_commitment,
            batch_hash: self.batch_hash,
            code_root: self.code_root,
            digest: self.digest,
        }
    }
}

/// The settlement state machine with its files. One process at a time per directory.
#[derive(Debug)]
pub struct Trunk {
    config: TrunkConfig,
    backend: Arc<dyn BitcoinBackend>,
    secret: OperatorSecret,
    guard: UseGuard,
    wallet: Wallet,
    state: State,
    _lock: File,
}

impl std::fmt::Debug for dyn BitcoinBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.label())
    }
}

impl Trunk {
    /// Opens the trunk in `config.dir`, or starts one there. Nothing is sent.
    ///
    /// # Errors
    /// `Locked`, `Store`, `Key`, `Guard`; `ForeignChain` if it was made on another network; `Config`.
    pub fn open(config: TrunkConfig, backend: Arc<dyn BitcoinBackend>) -> Result<Self, TrunkError> {
        validate(&config)?;
        let txs = config.dir.join("txs");
        std::fs::create_dir_all(&txs).map_err(|source| StoreError::Storage { path: txs, source })?;
        let lock = lock(&config.dir)?;
        let secret = OperatorSecret::load_or_create(&config.secret_file)?;
        let guard = UseGuard::open(&config.dir.join("wots.json"))?;
        let state = match State::load(&config.dir)? {
            Some(state) => state,
            None => {
                let mut trunk_id = [0; 32];
                OsRng.fill_bytes(&mut trunk_id);
                let state = State::new(trunk_id, backend.network());
                state.save(&config.dir)?;
                state
            }
        };
        if state.network != backend.network() {
            let detail = format!("it was made on {}, this is {}", state.network, backend.network());
            return Err(TrunkError::ForeignChain { detail });
        }
        let wallet = Wallet::new(secret.keypair(&state.trunk_id, KeyRole::Wallet));
        Ok(Self { config, backend, secret, guard, wallet, state, _lock: lock })
    }

    /// State commitment after the last settled claim, or the start of the epoch before its first; `None` before any epoch.
    #[must_use]
    pub fn settled_commitment(&self) -> Option<[u8; 32]> {
        let last = self.state.claims.last().map(|claim| claim.new_commitment);
        last.or_else(|| Some(self.state.epochs.last()?.start_commitment))
    }

    /// All claims, oldest first.
    #[must_use]
    pub fn claims(&self) -> &[ClaimReceipt] {
        &self.state.claims
    }

    /// All epochs, oldest first.
    #[must_use]
    pub fn epochs(&self) -> &[EpochReceipt] {
        &self.state.epochs
    }

    /// The claim with this digest.
    #[must_use]
    pub fn find_claim(&self, digest: &[u8; 32]) -> Option<&ClaimReceipt> {
        self.state.claims.iter().find(|claim| claim.digest == *digest)
    }

    /// Address of the wallet that pays fees and collateral.
    #[must_use]
    pub fn wallet_address(&self) -> String {
        self.wallet.address(self.backend.as_ref())
    }

    /// True if a step was started and is not confirmed yet; the next call finishes it.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.state.pending.is_some()
    }

    /// Makes sure that an epoch with these parameters is open: resumes it, or opens the first, or the next one where the
    /// current one is closed or has used all its claims. A later epoch starts at the last settled commitment;
    /// `params.start_commitment` is that of the trunk's first epoch, always.
    ///
    /// # Errors
    /// `EpochMismatch` if an epoch is open with other parameters (close it first); those of the wallet, the chain and the
    /// files.
    pub fn open_epoch(&mut self, params: &EpochParams) -> Result<EpochReceipt, TrunkError> {
        self.finish_pending()?;
        if let Some(first) = self.state.epochs.first() {
            expect_same("start commitment", first.start_commitment, params.start_commitment)?;
        }
        if let Some(epoch) = self.state.epochs.last() {
            if !epoch.closed && self.claims_in(epoch.epoch) < epoch.claims_max {
                expect_same("code root", epoch.code_root, params.code_root)?;
                expect_same("verifier commitment", epoch.verifier_commitment, params.verifier_commitment)?;
                let receipt = epoch.clone();
                self.reconfirm_last()?;
                return Ok(receipt);
            }
        }
        self.plan_epoch(params)?;
        self.finish_pending()?;
        self.state.epochs.last().cloned().ok_or(TrunkError::NoEpoch)
    }

    /// Stops taking claims in the current epoch. On the chain nothing happens until the next epoch is opened.
    ///
    /// # Errors
    /// `NoEpoch`; errors of finishing a step that was under way.
    pub fn close_epoch(&mut self) -> Result<(), TrunkError> {
        self.finish_pending()?;
        self.state.epochs.last_mut().ok_or(TrunkError::NoEpoch)?.closed = true;
        Ok(self.state.save(&self.config.dir)?)
    }

    /// Publishes the batch's data and proof and has its claim confirmed. The same values again return the same receipt.
    ///
    /// # Errors
    /// Refused before anything is sent: `NoEpoch`, `EpochClosed`, `EpochFull`, `Digest`, `CodeRoot`, `Discontinuity`,
    /// `Oversize`, `Guard` (key reuse), `Wallet` (funds). Transient: `NotConfirmed` and back end errors; call again.
    pub fn settle(&mut self, input: &ClaimInput) -> Result<ClaimReceipt, TrunkError> {
        self.finish_pending()?;
        let values = input.values();
        if let Some(receipt) = self.state.claims.iter().find(|claim| claim.values() == values).cloned() {
            self.reconfirm_last()?;
            return Ok(receipt);
        }
        self.check(input)?;
        self.reconfirm_last()?;
        self.plan_claim(input)?;
        self.finish_pending()?;
        self.state.claims.last().cloned().ok_or(TrunkError::NoEpoch)
    }

    /// The refusals that need neither the chain nor a key.
    fn check(&self, input: &ClaimInput) -> Result<(), TrunkError> {
        let epoch = self.state.epochs.last().ok_or(TrunkError::NoEpoch)?;
        if epoch.closed {
            return Err(TrunkError::EpochClosed { epoch: epoch.epoch });
        }
        let expected = input.values().expected_digest();
        if input.digest != expected {
            return Err(TrunkError::Digest {
                expected: hex::encode(expected),
                got: hex::encode(input.digest),
            });
        }
        if input.code_root != epoch.code_root {
            let (expected, got) = (hex::encode(epoch.code_root), hex::encode(input.code_root));
            return Err(TrunkError::CodeRoot { expected, got });
        }
        let settled = self.settled_commitment().unwrap_or(epoch.start_commitment);
        if input.prev_commitment != settled {
            let (expected, got) = (hex::encode(settled), hex::encode(input.prev_commitment));
            return Err(TrunkError::Discontinuity { expected, got });
        }
        if self.claims_in(epoch.epoch) >= epoch.claims_max {
            return Err(TrunkError::EpochFull { claims_max: epoch.claims_max });
        }
        let limits = [
            ("proof", input.proof.len(), PROOF_BYTES_MAX),
            ("batch data", input.batch_data.len(), MESSAGE_BYTES_MAX - BATCH_OVERHEAD_BYTES),
        ];
        match limits.into_iter().find(|(_, got, limit)| got > limit) {
            Some((what, got, limit)) => Err(TrunkError::Oversize { what, got, limit }),
            None => Ok(()),
        }
    }

    fn claims_in(&self, epoch: u32) -> u32 {
        self.state.claims.iter().filter(|claim| claim.epoch == epoch).count() as u32
    }

    /// The output that the next claim or the next epoch spends.
    fn connector(&self, epoch: &EpochReceipt) -> OutPoint {
        let last = self.state.claims.iter().rev().find(|claim| claim.epoch == epoch.epoch);
        connector_of(last.map_or(epoch.reconfiguration_txid, |claim| claim.claim_txid))
    }

    fn keys(&self, terms: &EpochTerms, claim: u32) -> Option<ClaimKeys> {
        (claim < terms.claims_max)
            .then(|| ClaimKeys::derive(&self.secret, &terms.trunk_id, terms.epoch, claim))
    }

    fn plan_epoch(&mut self, params: &EpochParams) -> Result<(), TrunkError> {
        let number = self.state.epochs.len() as u32;
        let start_commitment = self.settled_commitment().unwrap_or(params.start_commitment);
        let params = EpochParams { start_commitment, ..*params };
        let rest = (self.config.locks, self.config.claims_per_epoch, self.config.collateral);
        let terms = EpochTerms::new(&self.secret, self.state.trunk_id, number, params, rest);
        let first = ClaimKeys::derive(&self.secret, &terms.trunk_id, number, 0);
        let before = match self.state.epochs.last() {
            None => None,
            Some(epoch) => {
                let claim = self.claims_in(epoch.epoch);
                let terms = epoch.terms()?;
                let keys = self.keys(&terms, claim);
                Some((terms, claim, keys, self.connector(epoch)))
            }
        };
        let previous = before.as_ref().map(|(terms, claim, keys, connector)| PreviousEpoch {
            terms,
            claim: *claim,
            keys: keys.as_ref(),
            connector: *connector,
        });
        let main = reconfiguration(&terms, &first, previous.as_ref());
        let messages = [Message::Epoch(Box::new(terms.clone()))];
        let signed = self.planner()?.plan(&messages, "reconfiguration", &main)?;
        let step = PendingStep::Epoch { terms: terms.encode().to_vec() };
        self.persist(step, signed)
    }

    fn plan_claim(&mut self, input: &ClaimInput) -> Result<(), TrunkError> {
        let epoch = self.state.epochs.last().ok_or(TrunkError::NoEpoch)?;
        let terms = epoch.terms()?;
        let number = self.claims_in(epoch.epoch);
        let connector = self.connector(epoch);
        let values = input.values();
        let keys = self.keys(&terms, number).ok_or(TrunkError::EpochFull { claims_max: terms.claims_max })?;
        let next = self.keys(&terms, number + 1);
        let named: Vec<_> = ClaimValue::ALL
            .iter()
            .zip(values.fields())
            .map(|(value, bytes)| (value.key_id(terms.trunk_id, terms.epoch, number), bytes.as_slice()))
            .collect();
        let signatures = self.guard.sign(&self.secret, &named)?;
        let main = claim(&terms, number, connector, (&keys, next.as_ref()), &signatures);
        let messages = [
            Message::Batch {
                epoch: terms.epoch,
                claim: number,
                batch_hash: input.batch_hash,
                data: input.batch_data.clone(),
            },
            Message::ClaimData { epoch: terms.epoch, claim: number, values, proof: input.proof.clone() },
        ];
        let signed = self.planner()?.plan(&messages, "claim", &main)?;
        let step = PendingStep::Claim { epoch: terms.epoch, claim: number, values: values.into() };
        self.persist(step, signed)
    }

    fn planner(&self) -> Result<Planner<'_>, TrunkError> {
        let config = &self.config;
        let per_vb = |rate| FeeRate::from_sat_per_vb(rate).unwrap_or(FeeRate::MAX);
        let estimate = self.backend.fee_rate(FEE_TARGET_BLOCKS)?;
        let rate = estimate
            .unwrap_or_else(|| per_vb(config.fee_rate_fallback_sat_per_vb))
            .clamp(FeeRate::BROADCAST_MIN, per_vb(config.fee_rate_max_sat_per_vb));
        Ok(Planner {
            backend: self.backend.as_ref(),
            wallet: &self.wallet,
            operator: self.secret.keypair(&self.state.trunk_id, KeyRole::Operator),
            author: self.secret.keypair(&self.state.trunk_id, KeyRole::Envelope),
            tag: tag(&self.state.trunk_id),
            envelope_limit: config.envelope_limit,
            rate,
        })
    }

    /// Writes the transactions, then the state that names them: a kill in between leaves files that nothing refers to.
    fn persist(&mut self, step: PendingStep, signed: plan::SignedPlan) -> Result<(), TrunkError> {
        for tx in &signed.transactions {
            write_atomically(&self.tx_path(&tx.compute_txid()), &serialize(tx))?;
        }
        let since = self.backend.tip()?.height;
        self.state.pending = Some(Pending { step, since, stages: signed.stages });
        Ok(self.state.save(&self.config.dir)?)
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
    fn finish_pending(&mut self) -> Result<(), TrunkError> {
        let Some(pending) = self.state.pending.clone() else { return Ok(()) };
        let mut receipts = Vec::new();
        for stage in &pending.stages {
            receipts.extend(self.confirm(stage, pending.since)?);
        }
        let label = self.backend.label();
        self.state.complete(&pending, receipts, label)?;
        Ok(self.state.save(&self.config.dir)?)
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
    fn reconfirm_last(&mut self) -> Result<(), TrunkError> {
        let Some(epoch) = self.state.epochs.last() else { return Ok(()) };
        let claim = self.state.claims.last().filter(|claim| claim.epoch == epoch.epoch);
        let transactions = claim.map_or(&epoch.transactions, |claim| &claim.transactions).clone();
        let since = transactions.iter().map(|tx| tx.block_height).min().unwrap_or(0);
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
        match self.state.claims.last_mut().filter(|claim| claim.epoch == number) {
            Some(claim) => claim.transactions = receipts,
            None => self.state.epochs.last_mut().ok_or(TrunkError::NoEpoch)?.transactions = receipts,
        }
        Ok(self.state.save(&self.config.dir)?)
    }
}

fn expect_same(field: &'static str, expected: [u8; 32], got: [u8; 32]) -> Result<(), TrunkError> {
    if expected == got {
        return Ok(());
    }
    Err(TrunkError::EpochMismatch { field, expected: hex::encode(expected), got: hex::encode(got) })
}

fn validate(config: &TrunkConfig) -> Result<(), TrunkError> {
    let fail = |detail: &str| Err(TrunkError::Config { detail: detail.to_owned() });
    if config.fee_rate_max_sat_per_vb == 0 || config.fee_rate_fallback_sat_per_vb == 0 {
        return fail("fee rates must be at least 1 sat/vB");
    }
    if config.confirmations_min == 0 {
        return fail("at least 1 confirmation is needed");
    }
    if config.envelope_limit == 0 || config.envelope_limit > BODY_BYTES_MAX {
        return fail("the envelope limit must be 1 to 397000 bytes");
    }
    if !(1..=crate::graph::terms::CLAIMS_MAX).contains(&config.claims_per_epoch) {
        return fail("claims per epoch must be 1 to 4096");
    }
    if config.locks.cadence_blocks == 0 || config.locks.collateral_blocks == 0 {
        return fail("time locks must be at least 1 block");
    }
    if config.collateral < crate::graph::connector::CONNECTOR_VALUE || config.collateral > Amount::MAX_MONEY {
        return fail("the collateral must be at least 330 satoshi");
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, TrunkError> {
    let path = dir.join("lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|source| StoreError::Storage { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(TrunkError::Locked { dir: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(StoreError::Storage { path, source }.into()),
    }
}
