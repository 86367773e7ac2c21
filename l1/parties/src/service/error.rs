//! Why a service ends.

use std::path::PathBuf;

use assay_l1::sync::command::CommandError;
use assay_l1::wots::guard::GuardError;
use assay_l1::{BackendError, Class, KeyError, StoreError, WalletError};
use assay_l1_signer::policy::PolicyError;

use super::epochs::EpochError;
use crate::party::{FinalityError, StepError};

/// Why a service cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The chain.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The node's arguments.
    #[error(transparent)]
    Node(#[from] CommandError),
    /// Files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The secret file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The record of used one-time keys.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The wallet that pays for data.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// A policy file.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// An event that does not fit the state: the state on disk and the blocks read do not belong together.
    #[error("the state does not fit the chain: {0}")]
    Step(#[from] StepError),
    /// An epoch that the state was made with is not there any more, is another one, or is not taken; or none at all is, and this is the
    /// first.
    #[error("epoch file {index:04}: {source}; {}", .source.advice())]
    Epoch {
        /// Its place.
        index: u32,
        /// What is wrong with it.
        source: EpochError,
    },
    /// There is no epoch to begin with.
    #[error("{} has no 0000.proposal with its signatures", dir.display())]
    NoEpoch {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process works on the directory.
    #[error("{} is open in another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds the state of another service.
    #[error("the state in {} is of another {field}", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// What differs.
        field: &'static str,
    },
    /// The directory holds a state that was made with another secret.
    #[error(
        "the state in {} has its coins at {stored}, the secret has its own at {given}: start with the secret that the state was made \
         with, or with another --dir",
        dir.display()
    )]
    OtherSecret {
        /// The directory.
        dir: PathBuf,
        /// Address of the state's wallet.
        stored: String,
        /// Address of the secret's.
        given: String,
    },
    /// There is a state, but not the secret that it was made with.
    #[error("{} is not there, and the state in {} was made with a secret: put it back, or start with another --dir", path.display(), dir.display())]
    NoSecret {
        /// Where the secret should be.
        path: PathBuf,
        /// The directory.
        dir: PathBuf,
    },
    /// The state has forgotten too much for this finality.
    #[error(
        "--finality: {source}. Start with --finality {}; the state in {} then remembers one block more with each that comes, up to \
         twice as many",
        .source.most, dir.display()
    )]
    Finality {
        /// The directory.
        dir: PathBuf,
        /// What was asked for, and what is possible.
        source: FinalityError,
    },
    /// More blocks left the chain than are remembered.
    #[error(
        "the block at height {height} has left the chain, and no older one is remembered: remove the file `state`, and nothing else, \
         and it is made anew from the chain"
    )]
    Reorganised {
        /// Its height.
        height: u32,
    },
    /// A batch that cannot be published.
    #[error("batch {batch} cannot be published: {detail}")]
    Batch {
        /// The state that it starts at, hexadecimal.
        batch: String,
        /// What is wrong.
        detail: String,
    },
    /// An argument is wrong.
    #[error("{name}: {detail}")]
    Argument {
        /// Which.
        name: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// A claim could not be looked into, for no fault of its own.
    #[error("{claim} could not be executed or read; the log says why: run again")]
    Undecided {
        /// Which.
        claim: String,
    },
    /// The system refused.
    #[error("system: {0}")]
    System(#[from] std::io::Error),
}

impl ServiceError {
    /// True if it was asked for something that makes no sense, or was given files that are not what they should be; nothing was sent
    /// then.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Node(error) => error.is_bad_input(),
            Self::Policy(_)
            | Self::Key(_)
            | Self::Epoch { .. }
            | Self::NoEpoch { .. }
            | Self::Foreign { .. }
            | Self::OtherSecret { .. }
            | Self::NoSecret { .. }
            | Self::Finality { .. }
            | Self::Argument { .. } => true,
            _ => false,
        }
    }

    /// What a caller may do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Backend(error) | Self::Wallet(WalletError::Backend(error)) => error.class(),
            Self::Node(error) => error.class(),
            // Somebody may send money.
            Self::Wallet(_) | Self::Locked { .. } => Class::Transient,
            Self::Step(_) => Class::Bug,
            _ => Class::Permanent,
        }
    }
}
