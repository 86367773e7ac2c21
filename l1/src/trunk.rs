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

mod config;
mod drive;
mod error;
mod plan;
mod state;

pub use config::TrunkConfig;
pub use error::TrunkError;
pub use state::{ClaimReceipt, EpochReceipt, TxReceipt};

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;

use bitcoin::{FeeRate, OutPoint};
use rand::rngs::OsRng;
use rand::RngCore;

use crate::backend::BitcoinBackend;
use crate::envelope::message::{ClaimValues, Message, PROOF_BYTES_MAX};
use crate::envelope::{tag, MESSAGE_BYTES_MAX};
use crate::graph::terms::{ClaimKeys, ClaimValue, EpochParams, EpochTerms};
use crate::graph::transactions::{claim, connector_of, reconfiguration, PreviousEpoch};
use crate::keys::{KeyRole, OperatorSecret};
use crate::store::StoreError;
use crate::wallet::Wallet;
use crate::wots::guard::UseGuard;

use plan::Planner;
use state::{PendingStep, State};

/// Blocks aimed at when asking for a fee rate.
const FEE_TARGET_BLOCKS: u16 = 3;
/// Bytes of a batch message around the data.
const BATCH_OVERHEAD_BYTES: usize = 40;

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
        config.validate()?;
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

    /// True if a step was started and is not confirmed yet; the next call finishes it.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.state.pending.is_some()
    }

    /// Whether the trunk in `dir` has settled a claim. Looks at its state alone: another process may be at work there.
    ///
    /// # Errors
    /// `Store` if the state cannot be read.
    pub fn has_claims(dir: &Path) -> Result<bool, TrunkError> {
        Ok(State::load(dir)?.is_some_and(|state| !state.claims.is_empty()))
    }

    /// Carries out the step that was begun, if one was: all that it takes is in its plan.
    ///
    /// # Errors
    /// Transient: `NotConfirmed` and back end errors; call again. Those of the files.
    pub fn finish(&mut self) -> Result<(), TrunkError> {
        self.finish_pending()
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
                return Ok(epoch.clone());
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
        let mut state = self.state.clone();
        state.epochs.last_mut().ok_or(TrunkError::NoEpoch)?.closed = true;
        self.replace_state(state)
    }

    /// Publishes the batch's data and proof and has its claim confirmed. The same values again return the same receipt.
    ///
    /// # Errors
    /// Refused before anything is sent: `NoEpoch`, `EpochClosed`, `EpochFull`, `Digest`, `CodeRoot`, `Discontinuity`,
    /// `Oversize`, `Guard` (key reuse), `Wallet` (funds). Transient: `NotConfirmed`, `FeeLimit` and back end errors; call again.
    pub fn settle(&mut self, input: &ClaimInput) -> Result<ClaimReceipt, TrunkError> {
        self.finish_pending()?;
        let values = input.values();
        if let Some(receipt) = self.state.claims.iter().find(|claim| claim.values() == values) {
            return Ok(receipt.clone());
        }
        self.check(input)?;
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
        let estimate = self.backend.fee_estimate(FEE_TARGET_BLOCKS)?;
        let (floor, max) =
            (estimate.floor.max(FeeRate::BROADCAST_MIN), per_vb(config.fee_rate_max_sat_per_vb));
        if floor > max {
            return Err(TrunkError::FeeLimit { floor, max });
        }
        let fallback = || per_vb(config.fee_rate_fallback_sat_per_vb);
        let rate = estimate.rate.unwrap_or_else(fallback).clamp(floor, max);
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
}

fn expect_same(field: &'static str, expected: [u8; 32], got: [u8; 32]) -> Result<(), TrunkError> {
    if expected == got {
        return Ok(());
    }
    Err(TrunkError::EpochMismatch { field, expected: hex::encode(expected), got: hex::encode(got) })
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
