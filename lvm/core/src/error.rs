//! Error types of the crate. No function of this crate panics on bad input; it returns one of these.

use alloc::string::String;

use alloy_primitives::{B256, U256};
use revm::{context_interface::result::InvalidTransaction, database_interface::DBErrorMarker};
use thiserror::Error;

/// A node of a Merkle Patricia trie is absent or ill-formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrieError {
    /// The witness does not hold a node that execution needs.
    #[error("trie node {hash} is missing from the witness")]
    MissingNode {
        /// Keccak-256 of the node's encoding.
        hash: B256,
    },
    /// A node's bytes are not the RLP of a trie node.
    #[error("trie node is ill-formed: {reason}")]
    IllFormedNode {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The path of a key ends inside an extension or leads deeper than the key is long.
    #[error("trie path does not fit the key")]
    PathOverrun,
}

/// Something execution needs is not in the witness, or not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// A trie node is missing or ill-formed.
    #[error(transparent)]
    Trie(#[from] TrieError),
    /// The value at an account's key is not the RLP of an account.
    #[error("account leaf is ill-formed")]
    IllFormedAccount,
    /// The value at a storage key is not the RLP of a 256-bit integer.
    #[error("storage leaf is ill-formed")]
    IllFormedSlot,
    /// The code with this hash is not in the witness.
    #[error("contract code {hash} is missing from the witness")]
    MissingCode {
        /// Keccak-256 of the code.
        hash: B256,
    },
    /// The code with this hash starts as an EIP-7702 delegation and is not one.
    #[error("contract code {hash} is ill-formed")]
    IllFormedCode {
        /// Keccak-256 of the code.
        hash: B256,
    },
    /// BLOCKHASH asked for a block whose header is not in the witness.
    #[error("ancestor header for block {number} is missing from the witness")]
    MissingAncestor {
        /// Number of the block whose hash was asked for.
        number: u64,
    },
}

impl DBErrorMarker for WitnessError {}

/// Bytes are not the encoding of the item they stand for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends before the item does.
    #[error("{item} is truncated: needs {expected} bytes, {got} are left")]
    Truncated {
        /// Name of the item.
        item: &'static str,
        /// Bytes the item needs.
        expected: u64,
        /// Bytes left.
        got: u64,
    },
    /// Bytes are left after the last item.
    #[error("{item} has {count} trailing bytes")]
    Trailing {
        /// Name of the item.
        item: &'static str,
        /// Number of bytes left over.
        count: usize,
    },
    /// The first bytes do not name the format.
    #[error("{item} does not start with its magic bytes")]
    Magic {
        /// Name of the item.
        item: &'static str,
    },
    /// The version is one this code does not know.
    #[error("{item} has version {got}, expected {expected}")]
    Version {
        /// Name of the item.
        item: &'static str,
        /// The version this code reads.
        expected: u32,
        /// The version found.
        got: u32,
    },
    /// A field has a value that is not allowed.
    #[error("{item} is invalid: {reason}")]
    Invalid {
        /// Name of the item.
        item: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The RLP of an item does not decode.
    #[error("{item} is not valid rlp: {reason}")]
    Rlp {
        /// Name of the item.
        item: &'static str,
        /// The decoder's words.
        reason: alloy_rlp::Error,
    },
    /// An item is larger than its limit.
    #[error("{item} is oversize: limit {limit}, got {got}")]
    Oversize {
        /// Name of the item.
        item: &'static str,
        /// Largest allowed size or count.
        limit: u64,
        /// Size or count found.
        got: u64,
    },
}

/// A header breaks a consensus rule, by itself or with respect to its parent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The parent hash is not the hash of the parent.
    #[error("parent hash: expected {expected}, got {got}")]
    ParentHash {
        /// Hash of the parent's header.
        expected: B256,
        /// Hash in the header.
        got: B256,
    },
    /// The number is not the parent's plus one.
    #[error("block number: expected {expected}, got {got}")]
    Number {
        /// Parent's number plus one.
        expected: u64,
        /// Number in the header.
        got: u64,
    },
    /// The timestamp is not later than the parent's.
    #[error("timestamp {got} is not later than the parent's {parent}")]
    Timestamp {
        /// Parent's timestamp, seconds.
        parent: u64,
        /// Timestamp in the header, seconds.
        got: u64,
    },
    /// The gas limit is out of its bounds.
    #[error("gas limit {got} is outside {min}..={max}")]
    GasLimit {
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
        /// Gas limit in the header.
        got: u64,
    },
    /// More gas used than the limit allows.
    #[error("gas used {got} exceeds the limit {limit}")]
    GasUsedOverLimit {
        /// The header's gas limit.
        limit: u64,
        /// The header's gas used.
        got: u64,
    },
    /// Extra data is longer than 32 bytes, or not what the DAO fork asks for.
    #[error("extra data of {got} bytes: {reason}")]
    ExtraData {
        /// What is wrong with it.
        reason: &'static str,
        /// Its length in bytes.
        got: usize,
    },
    /// A field is present before its fork, or absent after it.
    #[error("field {field} must be {}", if *.required { "present" } else { "absent" })]
    Presence {
        /// Name of the field.
        field: &'static str,
        /// Whether the fork asks for it.
        required: bool,
    },
    /// A value that only a beacon chain could vouch for, on a chain without one.
    #[error("{field} must be empty or zero on a chain without a beacon chain")]
    NoBeaconChain {
        /// Name of the field.
        field: &'static str,
    },
    /// The base fee does not follow from the parent (EIP-1559).
    #[error("base fee: expected {expected}, got {got}")]
    BaseFee {
        /// Base fee computed from the parent, wei.
        expected: u64,
        /// Base fee in the header, wei.
        got: u64,
    },
    /// The excess blob gas does not follow from the parent (EIP-4844, EIP-7691, EIP-7918).
    #[error("excess blob gas: expected {expected}, got {got}")]
    ExcessBlobGas {
        /// Computed from the parent.
        expected: u64,
        /// Value in the header.
        got: u64,
    },
    /// Blob gas used is above the maximum or no multiple of one blob's gas.
    #[error("blob gas used {got} is above {max} or not a whole number of blobs")]
    BlobGasUsed {
        /// Most blob gas per block.
        max: u64,
        /// Value in the header.
        got: u64,
    },
    /// Difficulty is not what the fork's formula gives (zero since Paris).
    #[error("difficulty: expected {expected}, got {got}")]
    Difficulty {
        /// Computed difficulty.
        expected: U256,
        /// Difficulty in the header.
        got: U256,
    },
    /// The nonce is not zero since Paris.
    #[error("nonce must be zero since paris")]
    Nonce,
    /// Ommers where the fork allows none, or ommers that break a rule.
    #[error("ommers: {reason}")]
    Ommers {
        /// What is wrong with them.
        reason: &'static str,
    },
    /// The block is larger than allowed (EIP-7934).
    #[error("block of {got} bytes exceeds {max}")]
    Size {
        /// Largest allowed, bytes.
        max: usize,
        /// Its size in bytes.
        got: usize,
    },
    /// The parent's own header cannot be built upon.
    #[error("parent header is unusable: {reason}")]
    Parent {
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A value that the header commits to and execution computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Commitment {
    /// Root of the transaction trie.
    TransactionsRoot,
    /// Root of the receipt trie.
    ReceiptsRoot,
    /// Root of the withdrawal trie (EIP-4895).
    WithdrawalsRoot,
    /// Hash of the ommer list.
    OmmersHash,
    /// Bloom filter of all logs (given as its Keccak-256).
    LogsBloom,
    /// Hash of the requests (EIP-7685).
    RequestsHash,
    /// Root of the account trie after the block.
    StateRoot,
}

impl core::fmt::Display for Commitment {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::TransactionsRoot => "transactions root",
            Self::ReceiptsRoot => "receipts root",
            Self::WithdrawalsRoot => "withdrawals root",
            Self::OmmersHash => "ommers hash",
            Self::LogsBloom => "logs bloom",
            Self::RequestsHash => "requests hash",
            Self::StateRoot => "state root",
        })
    }
}

/// A block or a run of blocks does not execute as its headers say.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StfError {
    /// Input bytes do not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The header breaks a consensus rule.
    #[error("block {number}: {source}")]
    Header {
        /// Number in the header.
        number: u64,
        /// The rule.
        source: HeaderError,
    },
    /// The chain of ancestor headers in the witness is broken.
    #[error("ancestor header {index} does not link: {reason}")]
    Ancestor {
        /// Index in the witness, 0 is the parent.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A transaction's signature does not recover to a sender.
    #[error("block {number}, transaction {index}: bad signature")]
    Signature {
        /// Block number.
        number: u64,
        /// Index in the block.
        index: usize,
    },
    /// A transaction may not be included.
    #[error("block {number}, transaction {index}: {reason}")]
    Transaction {
        /// Block number.
        number: u64,
        /// Index in the block.
        index: usize,
        /// The EVM's verdict.
        reason: InvalidTransaction,
    },
    /// A transaction's gas limit exceeds what is left of the block's.
    #[error(
        "block {number}, transaction {index}: gas limit {got} exceeds the {available} left in the block"
    )]
    BlockGas {
        /// Block number.
        number: u64,
        /// Index in the block.
        index: usize,
        /// Gas left in the block.
        available: u64,
        /// The transaction's gas limit.
        got: u64,
    },
    /// A system call or another step outside transactions failed.
    #[error("block {number}: {detail}")]
    System {
        /// Block number.
        number: u64,
        /// The executor's words.
        detail: String,
    },
    /// Gas used differs from the header's.
    #[error("block {number}: gas used: expected {expected}, got {got}")]
    GasUsed {
        /// Block number.
        number: u64,
        /// Value in the header.
        expected: u64,
        /// Value computed.
        got: u64,
    },
    /// Blob gas used differs from the header's.
    #[error("block {number}: blob gas used: expected {expected}, got {got}")]
    BlobGasUsed {
        /// Block number.
        number: u64,
        /// Value in the header.
        expected: u64,
        /// Value computed.
        got: u64,
    },
    /// A commitment in the header differs from what was computed.
    #[error("block {number}: {what}: expected {expected}, got {got}")]
    Mismatch {
        /// Block number.
        number: u64,
        /// Which commitment.
        what: Commitment,
        /// Value in the header.
        expected: B256,
        /// Value computed.
        got: B256,
    },
    /// The witness lacks something or is ill-formed.
    #[error("block {number}: {source}")]
    Witness {
        /// Number of the block in execution.
        number: u64,
        /// What is missing.
        source: WitnessError,
    },
    /// A run needs at least one block.
    #[error("the run has no blocks")]
    EmptyRun,
    /// The chain's rules at this block are not supported in this place.
    #[error("block {number}: {reason}")]
    Unsupported {
        /// Block number.
        number: u64,
        /// Which rules.
        reason: &'static str,
    },
}

/// The proofs of a batch do not join, or a program is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FoldError {
    /// A batch needs at least one run.
    #[error("the batch has no runs")]
    NoRuns,
    /// A Merkle path does not lead from its leaf to the root of the code control group.
    #[error("{item} at leaf {index} is not in the code control group")]
    BadPath {
        /// What the leaf holds.
        item: &'static str,
        /// Index of the leaf.
        index: u64,
    },
    /// A program proved blocks it is not allowed for.
    #[error("run {run}: its program may prove blocks {first_block} to {last_block} only")]
    ProgramRange {
        /// Index of the run.
        run: usize,
        /// First block it may prove.
        first_block: u64,
        /// Last block it may prove.
        last_block: u64,
    },
    /// A run was not checked against its parent's header.
    #[error("run {run} is not linked to its parent's header")]
    Unlinked {
        /// Index of the run.
        run: usize,
    },
    /// A run does not start at the state where the one before ended.
    #[error("run {run}: starting state: expected {expected}, got {got}")]
    StateGap {
        /// Index of the run.
        run: usize,
        /// Commitment where the history or the run before ended.
        expected: B256,
        /// Commitment the run starts from.
        got: B256,
    },
    /// A run's accumulator does not continue the one before.
    #[error("run {run}: batch accumulator: expected {expected}, got {got}")]
    BatchGap {
        /// Index of the run.
        run: usize,
        /// Accumulator after the run before, zero at first.
        expected: B256,
        /// Accumulator the run starts from.
        got: B256,
    },
    /// A run's block numbers do not continue those before, or run backwards.
    #[error("run {run}: blocks {first} to {last}, expected to start at {expected}")]
    BlockGap {
        /// Index of the run.
        run: usize,
        /// Number expected first.
        expected: u64,
        /// First number claimed.
        first: u64,
        /// Last number claimed.
        last: u64,
    },
    /// The previous fold proof was made under another code control group.
    #[error("code root of the previous fold: expected {expected}, got {got}")]
    CodeRoot {
        /// The code root of this fold.
        expected: B256,
        /// The code root of the previous one.
        got: B256,
    },
}
