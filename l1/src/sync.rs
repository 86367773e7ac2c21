//! Everything that a trunk has settled, from a node alone: epochs, claims and batch data, in order, each link checked.
//!
//! The reader starts from the terms of an epoch (213 bytes that name the trunk and the operator's key) and reads final
//! blocks forward. Of each claim it checks what the chain enforces and what it does not ([`finding::Finding`]): that it
//! spends the connector before it under the epoch's script, what its one-time signatures say, that these values continue
//! the last ones, that the published data has the signed hash, and what executing it gives ([`Execute`]).
//!
//! ```text
//! blocks ──▶ scan: envelopes by place, the connector's spends ──▶ events ──▶ data read again by place ──▶ Step
//! ```
//!
//! Memory is bounded: of envelopes only places are kept (at most [`RECORDS_MAX`]), a batch's bytes live from the step that hands
//! it out to the next. The state on disk is small and replaced atomically; a reader killed at any moment goes on with the
//! step that was not [saved](TrunkReader::save).
//!
//! Limits. The authorship of envelopes rests on the leaf's key, which a witness alone does not prove (see
//! [`crate::envelope::scan`]): it keeps strangers' data from being looked at, while what data *counts* is decided by its hash.
//! A reorganisation deeper than the chosen confirmations is an error, after which the reader starts over.

mod claim;
pub mod command;
pub mod finding;
mod load;
mod rebuild;
mod records;
mod scan;
mod state;

pub use finding::{Finding, FindingKind};
pub use rebuild::{rebuild, Report};
pub use records::RECORDS_MAX;

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;

use bitcoin::Txid;

use crate::backend::{BackendError, BitcoinBackend};
use crate::envelope::message::ClaimValues;
use crate::error::Class;
use crate::graph::terms::EpochTerms;
use crate::store::{lock_dir, read_json, write_json, LockError, StoreError};
use load::Loader;
use state::{Event, State};

/// What the reader cannot do itself: batches are the caller's.
pub trait Execute {
    /// Hash of the batch that `data` encodes, as claims sign it.
    ///
    /// # Errors
    /// In words, why `data` is no batch.
    fn batch_hash(&mut self, data: &[u8]) -> Result<[u8; 32], String>;

    /// Executes the batch of `claim` on the state that the one before it left; returns the commitment to the new state. After a
    /// kill the last claim is handed over again, so this must come out the same.
    ///
    /// # Errors
    /// In words, why it cannot be executed.
    fn execute(&mut self, claim: &SyncedClaim, data: &[u8]) -> Result<[u8; 32], String>;
}

/// Which trunk to read, and how carefully.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncConfig {
    /// Directory of the reader's state; created when absent.
    pub dir: PathBuf,
    /// Terms of the first epoch to read.
    pub terms: EpochTerms,
    /// Its Reconfiguration, if that is known. Otherwise the one whose connector the operator's key spends.
    pub root: Option<Txid>,
    /// First block that is read: at most the one with the epoch's first data.
    pub start_height: u32,
    /// Confirmations, the block itself among them, before a block is read; at least 1.
    pub confirmations: u32,
}

/// An epoch that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedEpoch {
    /// Its terms.
    pub terms: EpochTerms,
    /// Its Reconfiguration.
    pub txid: Txid,
    /// Height of that.
    pub height: u32,
}

/// A claim on the chain, with the data published for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedClaim {
    /// Epoch, from 0.
    pub epoch: u32,
    /// Claim within the epoch, from 0.
    pub claim: u32,
    /// The claim transaction.
    pub txid: Txid,
    /// Height of its block.
    pub height: u32,
    /// What its one-time signatures sign.
    pub values: ClaimValues,
    /// True if the values continue the claim before and have their digest, and nothing before was wrong.
    pub is_linked: bool,
    /// The batch: data whose hash is the signed one. `None` if none was found.
    pub batch: Option<Vec<u8>>,
    /// The published proof of exactly these values, not verified here. `None` if none was found.
    pub proof: Option<Vec<u8>>,
}

/// What reading on brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// An epoch was opened.
    Epoch(Box<SyncedEpoch>),
    /// A claim was made.
    Claim(Box<SyncedClaim>),
    /// Something is missing or contradictory.
    Finding(Box<Finding>),
}

/// Why the reader cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The chain.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process works on the directory.
    #[error("the reader's state in {} is open in another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds the state of another reading.
    #[error(
        "the state on disk is of a reading with another {field}: choose another directory, or start over"
    )]
    Config {
        /// Which setting.
        field: &'static str,
    },
    /// A reorganisation deeper than the confirmations: what was handed out may be void. Start over.
    #[error(
        "the block at height {height}, read before, has left the chain: start over, with more confirmations"
    )]
    Reorganised {
        /// Its height.
        height: u32,
    },
}

impl SyncError {
    /// What a caller may do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Backend(error) => error.class(),
            Self::Locked { .. } => Class::Transient,
            _ => Class::Permanent,
        }
    }
}

/// A reading of one trunk. One process at a time per directory.
#[derive(Debug)]
pub struct TrunkReader {
    config: SyncConfig,
    state: State,
    /// Steps of the first pending event that were not handed out yet.
    steps: VecDeque<Step>,
    /// True once the first pending event was turned into steps.
    is_begun: bool,
    loader: Loader,
    _lock: File,
}

impl TrunkReader {
    /// Opens the reading in `config.dir`, or starts one. The chain is not asked.
    ///
    /// # Errors
    /// `Locked`, `Store`, `Config`.
    pub fn open(config: SyncConfig) -> Result<Self, SyncError> {
        if config.confirmations == 0 {
            return Err(SyncError::Config { field: "confirmations: at least 1 is needed" });
        }
        let lock = lock_dir(&config.dir).map_err(|error| match error {
            LockError::Held { dir } => SyncError::Locked { dir },
            LockError::Store(error) => error.into(),
        })?;
        let path = config.dir.join("sync.json");
        let state = match read_json::<State>(&path)? {
            None => State::new(&config),
            Some(state) => match state.check(&config) {
                Ok(()) => state,
                Err(field) => return Err(SyncError::Config { field }),
            },
        };
        let steps = VecDeque::new();
        Ok(Self { config, state, steps, is_begun: false, loader: Loader::default(), _lock: lock })
    }

    /// Forgets everything: the next step reads from the first block.
    ///
    /// # Errors
    /// `Store`.
    pub fn start_over(&mut self) -> Result<(), SyncError> {
        self.state = State::new(&self.config);
        self.steps.clear();
        self.is_begun = false;
        self.save()
    }

    /// Writes down that all steps handed out so far have been dealt with. Without it they come again after a restart.
    ///
    /// # Errors
    /// `Store`.
    pub fn save(&mut self) -> Result<(), SyncError> {
        self.finish_event();
        Ok(write_json(&self.config.dir.join("sync.json"), &self.state)?)
    }

    fn finish_event(&mut self) {
        if self.is_begun && self.steps.is_empty() {
            self.state.pending.pop_front();
            self.is_begun = false;
        }
    }

    /// Height of the block to be read next.
    #[must_use]
    pub fn next_height(&self) -> u32 {
        self.state.window.next_height()
    }

    /// Reads on. `None` once every block with enough confirmations has been read. Reading without a claim is written
    /// down every 1,000 blocks.
    ///
    /// # Errors
    /// `Backend`, `Store`, `Reorganised`. The same call may be made again after transient ones.
    pub fn step(
        &mut self,
        backend: &dyn BitcoinBackend,
        execute: &mut dyn Execute,
    ) -> Result<Option<Step>, SyncError> {
        const SAVE_BLOCKS: u32 = 1_000;
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Ok(Some(step));
            }
            self.finish_event();
            if let Some(event) = self.state.pending.front().cloned() {
                self.steps = self.steps_of(event, backend, execute)?;
                self.is_begun = true;
                continue;
            }
            let tip = backend.tip()?.height;
            let next = self.next_height();
            if u64::from(next) + u64::from(self.config.confirmations) > u64::from(tip) + 1 {
                return Ok(None);
            }
            let hash = backend.block_hash(next)?;
            let block = backend.block(&hash)?;
            if !self.state.window.push(hash, block.header.prev_blockhash) {
                return Err(SyncError::Reorganised { height: next.saturating_sub(1) });
            }
            scan::scan_block(&mut self.state, &block, (next, hash));
            if self.next_height().is_multiple_of(SAVE_BLOCKS) {
                self.save()?;
            }
        }
    }

    fn steps_of(
        &mut self,
        event: Event,
        backend: &dyn BitcoinBackend,
        execute: &mut dyn Execute,
    ) -> Result<VecDeque<Step>, SyncError> {
        match event {
            Event::Finding(finding) => Ok([Step::Finding(Box::new(finding))].into()),
            Event::Epoch { terms, txid, height } => {
                let terms = state::decode_terms(&terms, &self.config.dir)?;
                Ok([Step::Epoch(Box::new(SyncedEpoch { terms, txid, height }))].into())
            }
            Event::Claim(claim) => {
                let mut steps = VecDeque::new();
                let loaded = self.loader.claim(&claim, backend, execute, &mut steps)?;
                self.state.records.consumed(&loaded.places, (claim.epoch, claim.claim));
                steps.push_back(Step::Claim(Box::new(loaded.claim)));
                Ok(steps)
            }
        }
    }
}
