//! Everything that can end a command, and the exit code it ends with.

use assay_agent::bundle::BundleError;
use assay_client::ClientError;
use assay_l1_parties::service::ServiceError;

use crate::cache::CacheError;
use crate::cluster::ClusterError;
use crate::config::ConfigError;
use crate::description::DescriptionError;
use crate::fsio::FileError;
use crate::judge::JudgeError;
use crate::lock::LockError;
use crate::replay::ReplayError;
use crate::verify::VerifyError;

/// Exit code of a success.
pub const EXIT_OK: u8 = 0;
/// Exit code of a failed proof, verification or settlement.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of bad input; nothing was written.
pub const EXIT_BAD_INPUT: u8 = 2;
/// Exit code after an interrupt.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Why a command ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The environment asks for an export of spans that is not possible.
    #[error(transparent)]
    Telemetry(#[from] assay_telemetry::TelemetryError),
    /// The batch is not valid.
    #[error("batch {name}: {source}")]
    Batch {
        /// File or sample.
        name: String,
        /// What is wrong with it.
        source: Box<assay_lvm::BatchError>,
    },
    /// The description of a batch is not valid.
    #[error("description {name}: {source}")]
    Description {
        /// The file.
        name: String,
        /// What is wrong with it.
        source: Box<DescriptionError>,
    },
    /// `sample:N` with an N that does not exist.
    #[error("{got:?} names no batch: expected a file, `sample`, or `sample:N` with N from 1 to {max}")]
    UnknownBatch {
        /// What was given.
        got: String,
        /// Largest sample.
        max: u64,
    },
    /// The batch was built without its parent's header.
    #[error(
        "batch {name}: it assumes its parent's state instead of proving it from the parent's header, so it can be proved up to \
         `--until compressed` but neither folded nor settled"
    )]
    NotLinked {
        /// File or sample.
        name: String,
    },
    /// The batch continues a history that is not known here.
    #[error(
        "no fold proof for state {commitment} (after block {block}), where this batch begins: prove the batch before it \
         first, with the same cache; or begin a new history here with --genesis"
    )]
    MissingHistory {
        /// Commitment of the batch's parent state, hex.
        commitment: String,
        /// Number of the parent block.
        block: u64,
    },
    /// The configuration is not valid.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The Bitcoin back end's address is not valid.
    #[error("bitcoind: {0}")]
    BitcoinSpec(Box<assay_l1::BackendError>),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The record of the run in progress cannot be written.
    #[error("journal: {0}; finished stages are kept, start the same command again to go on")]
    Journal(FileError),
    /// The cache cannot be used.
    #[error("cache: {0}")]
    Cache(#[from] CacheError),
    /// Another process works here.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A result folder was rejected.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A stage failed.
    #[error("{stage}: {reason}")]
    Stage {
        /// The stage.
        stage: String,
        /// One line.
        reason: String,
    },
    /// The result could not be printed; what was made is there.
    #[error("standard output cannot be written: {0}")]
    Output(#[source] std::io::Error),
    /// A coordinator was asked, and the answer is no use.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A batch that was watched has ended without a result.
    #[error("batch {phase}{reason}")]
    BatchEnded {
        /// `failed` or `cancelled`.
        phase: String,
        /// Why, after a colon.
        reason: String,
    },
    /// The receipts of a fetched result are not what they claim to be.
    #[error("receipts: {0}")]
    Receipts(#[from] BundleError),
    /// The coordinator process cannot run.
    #[error(transparent)]
    Cluster(Box<ClusterError>),
    /// A command about what stands on Bitcoin failed.
    #[error(transparent)]
    L1(Box<assay_l1::sync::command::CommandError>),
    /// `assay l1` was given a configuration file, in which it has nothing to look for.
    #[error("--config {}: `assay l1` reads no configuration file, everything is told by arguments; leave it out", path.display())]
    NoConfig {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A command about the contract failed.
    #[error("{0}")]
    Contract(#[source] assay_l1_signer::cli::Failure),
    /// A party of the contract cannot go on.
    #[error(transparent)]
    Party(Box<ServiceError>),
    /// What judges claims was given something wrong.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// Kept batches cannot be executed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// `--claim` names a file that does not say where its rollup begins.
    #[error("{}: expected a claim.json of the rollup's first epoch, settled, written by this version", path.display())]
    ClaimWithoutTerms {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A claim on Bitcoin cannot be executed.
    #[error("the state could not be rebuilt beyond the claim named above")]
    SyncStopped,
    /// Claims on Bitcoin are wrong.
    #[error("{findings} findings, named above: rely on no state from there on")]
    SyncFindings {
        /// How many.
        findings: u64,
    },
    /// What was executed cannot be found again.
    #[error("the state after the last claim cannot be reached again; the log says why: run again")]
    SyncLost,
    /// The user interrupted.
    #[error("interrupted; finished stages are kept, start the same command again to go on")]
    Interrupted,
}

impl From<ServiceError> for Error {
    fn from(error: ServiceError) -> Self {
        Error::Party(Box::new(error))
    }
}

impl From<ClusterError> for Error {
    fn from(error: ClusterError) -> Self {
        Error::Cluster(Box::new(error))
    }
}

impl Error {
    /// What to do about it, where that can be said.
    pub fn advice(&self) -> Option<String> {
        match self {
            Error::Client(error) => error.advice(),
            Error::Cluster(error) => error.advice(),
            _ => None,
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Client(error) => error.exit_code(),
            Error::Cluster(error) => error.exit_code(),
            Error::L1(error) if error.is_bad_input() => EXIT_BAD_INPUT,
            Error::Party(error) if error.is_bad_input() => EXIT_BAD_INPUT,
            Error::Contract(error) if assay_l1_signer::cli::is_bad_input(error) => EXIT_BAD_INPUT,
            Error::Telemetry(_)
            | Error::Batch { .. }
            | Error::Description { .. }
            | Error::UnknownBatch { .. }
            | Error::MissingHistory { .. }
            | Error::NotLinked { .. }
            | Error::Config(_)
            | Error::NoConfig { .. }
            | Error::BitcoinSpec(_)
            | Error::File(_)
            | Error::ClaimWithoutTerms { .. }
            | Error::Judge(_)
            | Error::Replay(_)
            | Error::Verify(VerifyError::Unreadable(_)) => EXIT_BAD_INPUT,
            Error::Interrupted => EXIT_INTERRUPTED,
            _ => EXIT_FAILED,
        }
    }
}
