//! Proofs that transactions, with their witnesses, are in a block.
//!
//! A header commits to the ids of a block's transactions; its coinbase commits to the same list with witnesses (BIP141). So
//! both proofs start from the coinbase: it pins the depth of the tree, and holds the witness commitment.

use alloc::vec::Vec;

use crate::bytes::Reader;
use crate::hash::{double_sha256, Hash};
use crate::header::Header;
use crate::merkle::{self, MerkleError, Path};
use crate::transaction::{Transaction, TransactionError, AMBIGUOUS_BYTES};

/// First bytes of the output that holds the witness commitment.
pub const COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
/// Longest block, in bytes.
pub const BLOCK_BYTES_MAX: usize = 4_000_000;

/// Why a proof was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// A transaction's bytes are none.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// A path is none.
    #[error(transparent)]
    Merkle(#[from] MerkleError),
    /// The transaction has 64 bytes: it could be an inner node of the tree.
    #[error("a transaction of 64 bytes proves nothing")]
    Ambiguous,
    /// The path leads to another root.
    #[error("the path leads to {got}, the block's root is {expected}")]
    Root {
        /// The block's.
        expected: Hash,
        /// What the path gives.
        got: Hash,
    },
    /// The path has not the length that the coinbase's has.
    #[error("the path has {got} levels, the coinbase's has {expected}")]
    Depth {
        /// Levels of the tree.
        expected: usize,
        /// Levels of the path.
        got: usize,
    },
    /// The first transaction is no coinbase, or it is not proved at index 0, or another one is a coinbase.
    #[error("not the coinbase at index 0, or a second one")]
    Coinbase,
    /// The coinbase commits to no witnesses.
    #[error("the block commits to no witnesses")]
    NoCommitment,
    /// The coinbase's witness is not one item of 32 bytes.
    #[error("the coinbase's reserved value is missing")]
    Reserved,
    /// The witness path does not lead to the commitment.
    #[error("the witness path does not lead to the commitment {expected}")]
    Witness {
        /// What the coinbase commits to.
        expected: Hash,
    },
    /// A block's bytes are no block.
    #[error("malformed block")]
    Block,
}

/// A block whose coinbase was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenBlock {
    root: Hash,
    depth: usize,
    /// Commitment and reserved value.
    witness: Option<(Hash, [u8; 32])>,
}

impl ProvenBlock {
    /// Proves the coinbase. `root` is the Merkle root of a header that the light client accepted; `coinbase` the whole
    /// transaction with its witness; `path` its neighbours.
    ///
    /// # Errors
    /// `Transaction`, `Merkle`, `Root`, `Coinbase`, `Reserved`.
    pub fn new(root: &Hash, coinbase: &[u8], path: &Path) -> Result<Self, ProofError> {
        let tx = Transaction::decode(coinbase)?;
        if path.index != 0 || !tx.is_coinbase() {
            return Err(ProofError::Coinbase);
        }
        // No two hashes begin like a coinbase's 64 bytes would: its length needs no check.
        check_path(root, &tx, path)?;
        Ok(Self { root: *root, depth: path.siblings.len(), witness: witness_commitment(&tx)? })
    }

    /// Proves a transaction by its id. Its witness is **not** proved: use [`prove_witness`](Self::prove_witness) where it counts.
    ///
    /// # Errors
    /// `Transaction`, `Merkle`, `Ambiguous`, `Depth`, `Root`, `Coinbase`.
    pub fn prove<'a>(&self, tx: &'a [u8], path: &Path) -> Result<Transaction<'a>, ProofError> {
        let tx = Transaction::decode(tx)?;
        let got = path.siblings.len();
        if got != self.depth {
            return Err(ProofError::Depth { expected: self.depth, got });
        }
        // The depth excludes inner nodes already; this excludes them without an argument about hashes.
        if tx.stripped_len == AMBIGUOUS_BYTES {
            return Err(ProofError::Ambiguous);
        }
        check_path(&self.root, &tx, path)?;
        if tx.is_coinbase() != (path.index == 0) {
            return Err(ProofError::Coinbase);
        }
        Ok(tx)
    }

    /// Proves a transaction with its witness: `path` by its id, `witness_siblings` beside the same index in the tree of hashes
    /// with witnesses, in which the coinbase's is zero.
    ///
    /// # Errors
    /// Those of [`prove`](Self::prove); `NoCommitment`, `Witness`. A block without commitment holds no witnesses, so a
    /// transaction without one is proved by its id alone.
    pub fn prove_witness<'a>(
        &self,
        tx: &'a [u8],
        path: &Path,
        witness_siblings: &[Hash],
    ) -> Result<Transaction<'a>, ProofError> {
        let tx = self.prove(tx, path)?;
        let Some((expected, reserved)) = self.witness else {
            return if tx.wtxid == tx.txid { Ok(tx) } else { Err(ProofError::NoCommitment) };
        };
        let got = witness_siblings.len();
        if got != self.depth {
            return Err(ProofError::Depth { expected: self.depth, got });
        }
        let leaf = if path.index == 0 {
            // The tree does not hold the coinbase's own witness; the commitment holds the reserved value, which is all of it.
            if witness_commitment(&tx)? != self.witness {
                return Err(ProofError::Witness { expected });
            }
            Hash::ZERO
        } else {
            tx.wtxid
        };
        let witness_path = Path { index: path.index, siblings: witness_siblings.to_vec() };
        let root = witness_path.root(&leaf)?;
        if double_sha256(&[&root.0, &reserved]) != expected {
            return Err(ProofError::Witness { expected });
        }
        Ok(tx)
    }
}

fn check_path(root: &Hash, tx: &Transaction<'_>, path: &Path) -> Result<(), ProofError> {
    let got = path.root(&tx.txid)?;
    if got != *root {
        return Err(ProofError::Root { expected: *root, got });
    }
    Ok(())
}

/// The commitment in the last output that has the prefix, with the reserved value; `None` if there is no such output.
fn witness_commitment(coinbase: &Transaction<'_>) -> Result<Option<(Hash, [u8; 32])>, ProofError> {
    let commitment = coinbase.outputs.iter().rev().find_map(|output| {
        let rest = output.script_pubkey.strip_prefix(&COMMITMENT_PREFIX)?;
        rest.first_chunk::<32>().map(|bytes| Hash(*bytes))
    });
    let Some(commitment) = commitment else { return Ok(None) };
    match coinbase.inputs[0].witness.as_slice() {
        [reserved] => match <[u8; 32]>::try_from(*reserved) {
            Ok(reserved) => Ok(Some((commitment, reserved))),
            Err(_) => Err(ProofError::Reserved),
        },
        _ => Err(ProofError::Reserved),
    }
}

/// A whole block, checked against its header: what completeness needs, since a path proves that a transaction is there, never
/// that none is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeBlock<'a> {
    /// The header.
    pub header: Header,
    /// All transactions in order, the coinbase first.
    pub transactions: Vec<Transaction<'a>>,
}

impl<'a> WholeBlock<'a> {
    /// Reads a block and checks its transactions and witnesses against the header. Whether the header counts is the light
    /// client's question.
    ///
    /// # Errors
    /// `Block`, `Transaction`, `Merkle` (among them a repeated tail), `Root`, `Coinbase`, `Reserved`, `Witness`, `NoCommitment` if
    /// there are witnesses and no commitment. Transactions of 64 bytes are taken: consensus allows them, so refusing them
    /// would let a miner stop every reader, and the coinbase's place pins the depth.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ProofError> {
        if bytes.len() > BLOCK_BYTES_MAX {
            return Err(ProofError::Block);
        }
        let mut reader = Reader(bytes);
        let header = Header::read(&mut reader).ok_or(ProofError::Block)?;
        // 10 bytes are fewer than any transaction has: allocation is bounded by the input.
        let count = reader.count(10).ok_or(ProofError::Block)?;
        let mut transactions = Vec::with_capacity(count);
        for _ in 0..count {
            transactions.push(Transaction::read(&mut reader)?);
        }
        if !reader.0.is_empty() {
            return Err(ProofError::Block);
        }
        let block = Self { header, transactions };
        block.check()?;
        Ok(block)
    }

    fn check(&self) -> Result<(), ProofError> {
        let mut coinbases = self.transactions.iter().map(Transaction::is_coinbase);
        if coinbases.next() != Some(true) || coinbases.any(|is_coinbase| is_coinbase) {
            return Err(ProofError::Coinbase);
        }
        let txids: Vec<Hash> = self.transactions.iter().map(|tx| tx.txid).collect();
        let (expected, got) = (self.header.merkle_root, merkle::root(&txids)?);
        if got != expected {
            return Err(ProofError::Root { expected, got });
        }
        let Some((expected, reserved)) = witness_commitment(&self.transactions[0])? else {
            let has_witness = self.transactions.iter().any(|tx| tx.wtxid != tx.txid);
            return if has_witness { Err(ProofError::NoCommitment) } else { Ok(()) };
        };
        let root = merkle::root(&self.witness_leaves())?;
        if double_sha256(&[&root.0, &reserved]) != expected {
            return Err(ProofError::Witness { expected });
        }
        Ok(())
    }

    /// Leaves of the tree with witnesses.
    #[must_use]
    pub fn witness_leaves(&self) -> Vec<Hash> {
        let rest = self.transactions.iter().skip(1).map(|tx| tx.wtxid);
        core::iter::once(Hash::ZERO).chain(rest).collect()
    }

    /// Paths of transaction `index`: by ids and with witnesses. `None` if there is no such transaction.
    #[must_use]
    pub fn paths(&self, index: u32) -> Option<(Path, Path)> {
        let txids: Vec<Hash> = self.transactions.iter().map(|tx| tx.txid).collect();
        Some((Path::of(&txids, index)?, Path::of(&self.witness_leaves(), index)?))
    }
}
