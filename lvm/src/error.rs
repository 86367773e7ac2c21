//! Errors of batches. Each names the item that is wrong.

use std::path::PathBuf;

use alloy_primitives::B256;
use assay_lvm_core::{DecodeError, StfError, TrieError, WitnessError};
use revm::context_interface::result::InvalidTransaction;
use thiserror::Error;

/// Who has to do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same call may succeed later.
    Transient,
    /// The input is wrong and stays so.
    Permanent,
    /// This code is wrong.
    Bug,
}

/// A batch cannot be read, written, or does not prove what it claims.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The bytes are no batch: truncated, trailing bytes, an unknown version, ...
    #[error("batch: {0}")]
    Decode(#[from] DecodeError),
    /// The file is JSON of another shape than expected.
    #[error("{item}: {reason}")]
    Json {
        /// Name of the item.
        item: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The batch, or a part of it, exceeds a limit.
    #[error("{item} is oversize: limit {limit}, got {got}")]
    Oversize {
        /// Name of the item.
        item: &'static str,
        /// The limit.
        limit: u64,
        /// What was found.
        got: u64,
    },
    /// There is no block, or no header before the first.
    #[error("the batch has no blocks or no parent header")]
    NoBlocks,
    /// The first block, or the batch, builds on another parent.
    #[error("wrong parent: expected {expected}, got {got}")]
    WrongParent {
        /// Hash of the parent.
        expected: B256,
        /// Hash that was found.
        got: B256,
    },
    /// The state before the batch is not the one its headers give.
    #[error("wrong parent state: {field} differs")]
    WrongParentState {
        /// The field that differs.
        field: &'static str,
    },
    /// Block numbers are not consecutive.
    #[error("gap in block numbers: expected {expected}, got {got}")]
    BlockGap {
        /// Number expected.
        expected: u64,
        /// Number found.
        got: u64,
    },
    /// The batch is for another chain.
    #[error("wrong chain id: expected {expected}, got {got}")]
    WrongChainId {
        /// Chain id expected.
        expected: u64,
        /// Chain id found.
        got: u64,
    },
    /// A transaction is signed for another chain.
    #[error("wrong chain id in block {block}, transaction {index}")]
    WrongTransactionChainId {
        /// Block number.
        block: u64,
        /// Index in the block.
        index: usize,
    },
    /// A transaction's signature is not one.
    #[error("bad signature in block {block}, transaction {index}")]
    BadSignature {
        /// Block number.
        block: u64,
        /// Index in the block.
        index: usize,
    },
    /// A trie node is missing from the witness.
    #[error("missing witness node {hash}, needed by block {block}")]
    MissingNode {
        /// Number of the block that needs it.
        block: u64,
        /// Its hash.
        hash: B256,
    },
    /// A contract code is missing from the witness.
    #[error("missing contract code {hash}, needed by block {block}")]
    MissingCode {
        /// Number of the block that needs it.
        block: u64,
        /// Its hash.
        hash: B256,
    },
    /// The witness holds something no block needs, holds it twice, or is not sorted by hash.
    #[error("witness item {hash} is not needed, double or out of order")]
    SurplusWitness {
        /// Its hash.
        hash: B256,
    },
    /// A block does not execute as its header says.
    #[error(transparent)]
    Stf(StfError),
}

impl BatchError {
    /// Who has to do something about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::Interrupted => {
                ErrorClass::Transient
            }
            _ => ErrorClass::Permanent,
        }
    }
}

/// Gives the cases that users meet a variant of their own.
impl From<StfError> for BatchError {
    fn from(error: StfError) -> Self {
        use assay_lvm_core::HeaderError;
        match error {
            StfError::Decode(error) => Self::Decode(error),
            StfError::EmptyRun => Self::NoBlocks,
            StfError::Signature { number: block, index } => Self::BadSignature { block, index },
            StfError::Transaction { number: block, index, reason: InvalidTransaction::InvalidChainId } => {
                Self::WrongTransactionChainId { block, index }
            }
            StfError::Witness {
                number: block,
                source: WitnessError::Trie(TrieError::MissingNode { hash }),
            } => Self::MissingNode { block, hash },
            StfError::Witness { number: block, source: WitnessError::MissingCode { hash } } => {
                Self::MissingCode { block, hash }
            }
            StfError::Header { source: HeaderError::ParentHash { expected, got }, .. } => {
                Self::WrongParent { expected, got }
            }
            StfError::Header { source: HeaderError::Number { expected, got }, .. } => {
                Self::BlockGap { expected, got }
            }
            other => Self::Stf(other),
        }
    }
}
