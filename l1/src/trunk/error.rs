//! Errors of settlement.

use std::path::PathBuf;

use bitcoin::{FeeRate, Txid};

use crate::backend::BackendError;
use crate::envelope::EnvelopeError;
use crate::error::Class;
use crate::graph::terms::TermsError;
use crate::keys::KeyError;
use crate::store::StoreError;
use crate::wallet::WalletError;
use crate::wots::guard::GuardError;

/// Why a step of settlement was refused or could not be finished. 32-byte values are hexadecimal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrunkError {
    /// The claim does not start where the last one ended.
    #[error("the claim starts at state {got}, the last settled state is {expected}")]
    Discontinuity {
        /// Last settled commitment.
        expected: String,
        /// The claim's previous commitment.
        got: String,
    },
    /// The claim was proved with programs of another code control group.
    #[error("the claim's code root is {got}, the epoch's is {expected}: close the epoch and open one for the new code")]
    CodeRoot {
        /// The epoch's.
        expected: String,
        /// The claim's.
        got: String,
    },
    /// The digest is not the hash of the other values.
    #[error("the claim's digest is {got}, its values hash to {expected}")]
    Digest {
        /// BLAKE3 of the values, top 3 bits cleared.
        expected: String,
        /// The claim's.
        got: String,
    },
    /// No epoch was opened.
    #[error("no epoch is open")]
    NoEpoch,
    /// The current epoch takes no more claims because it was closed.
    #[error("epoch {epoch} is closed: open the next one")]
    EpochClosed {
        /// Its number.
        epoch: u32,
    },
    /// The current epoch has used all its claims.
    #[error("the epoch has used all its {claims_max} claims: open the next one")]
    EpochFull {
        /// Claims of the epoch.
        claims_max: u32,
    },
    /// An epoch is open with other parameters.
    #[error("the trunk's {field} is {expected}, got {got}")]
    EpochMismatch {
        /// What differs.
        field: &'static str,
        /// On the chain.
        expected: String,
        /// Asked for.
        got: String,
    },
    /// An input is too large.
    #[error("{what} has {got} bytes, the limit is {limit}")]
    Oversize {
        /// What was measured.
        what: &'static str,
        /// Its size.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// A transaction is sent and not confirmed in time; calling again goes on waiting.
    #[error("{role} {txid} is not confirmed yet: run again to go on")]
    NotConfirmed {
        /// The transaction.
        txid: Txid,
        /// What it is.
        role: String,
    },
    /// The mempool takes nothing at the highest rate that the configuration allows.
    #[error("the node takes nothing below {} sat/kvB, the configured limit is {} sat/kvB", 4 * floor.to_sat_per_kwu(), 4 * max.to_sat_per_kwu())]
    FeeLimit {
        /// Least that the node takes.
        floor: FeeRate,
        /// The configured limit.
        max: FeeRate,
    },
    /// The trunk's transactions belong to another chain.
    #[error("the trunk does not belong to this chain: {detail}")]
    ForeignChain {
        /// How it shows.
        detail: String,
    },
    /// Another process works on the directory.
    #[error("the trunk in {} is open in another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A setting is out of range.
    #[error("configuration: {detail}")]
    Config {
        /// Which, and its range.
        detail: String,
    },
    /// The chain.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Money.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// Files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operator's secret.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// One-time keys.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The data does not fit in envelopes.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Stored epoch terms are damaged.
    #[error(transparent)]
    Terms(#[from] TermsError),
}

impl TrunkError {
    /// What a caller may do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotConfirmed { .. } | Self::FeeLimit { .. } | Self::Locked { .. } => Class::Transient,
            Self::Backend(error) | Self::Wallet(WalletError::Backend(error)) => error.class(),
            _ => Class::Permanent,
        }
    }
}
