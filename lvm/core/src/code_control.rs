//! The code control group: which program may prove which blocks, as a Merkle tree.
//!
//! Leaves, in order: 0 the commitment of the genesis state, 1 the key of the fold program, then one leaf per block
//! program with the range of block numbers it may prove. Hashes are BLAKE3 over a domain byte and the content:
//!
//! ```text
//! genesis leaf  00 00 || commitment (32)
//! fold leaf     00 01 || key (32)
//! block leaf    00 02 || first block (8, little-endian) || last block (8, little-endian) || key (32)
//! empty leaf    00 03
//! node          01 || left (32) || right (32)
//! ```
//! The tree is filled up with empty leaves to a power of two.

use alloc::vec::Vec;

use crate::error::FoldError;

/// Hash of a program's verifying key: eight field elements of the zkVM, as its recursion hashes keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct VkHash(pub [u32; 8]);

impl VkHash {
    /// The words one after another, each little-endian.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut out = [0; 32];
        for (bytes, word) in out.chunks_exact_mut(4).zip(self.0) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Reads what [`Self::to_bytes`] writes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self(words)
    }
}

/// A program that may prove the blocks `first_block..=last_block`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockProgram {
    /// First block number it may prove.
    pub first_block: u64,
    /// Last block number it may prove; `u64::MAX` for no end.
    pub last_block: u64,
    /// Its key.
    pub vk: VkHash,
}

/// The programs of an epoch. Its root is public and fixed for the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeControlGroup {
    /// [`crate::ChainState::commitment`] of the state the history starts from.
    pub genesis_commitment: [u8; 32],
    /// The fold program's own key.
    pub fold_program: VkHash,
    /// The block programs.
    pub block_programs: Vec<BlockProgram>,
}

/// Index of the leaf that holds the genesis commitment.
pub const GENESIS_LEAF: u64 = 0;
/// Index of the leaf that holds the fold program's key.
pub const FOLD_LEAF: u64 = 1;
/// Index of the first block program's leaf.
pub const FIRST_BLOCK_LEAF: u64 = 2;
/// Longest Merkle path; more than a tree of programs ever has.
pub(crate) const DEPTH_MAX: usize = 32;

/// A path from a leaf to the root, lowest sibling first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MerkleProof {
    /// Index of the leaf.
    pub index: u64,
    /// Siblings from the leaf up.
    pub siblings: Vec<[u8; 32]>,
}

impl CodeControlGroup {
    /// Root of the tree.
    pub fn root(&self) -> [u8; 32] {
        let mut level = self.leaves();
        while level.len() > 1 {
            level = level.chunks_exact(2).map(|pair| hash_node(&pair[0], &pair[1])).collect();
        }
        level[0]
    }

    /// The path of the leaf at `index`, or none if the tree has no such leaf.
    pub fn prove(&self, index: u64) -> Option<MerkleProof> {
        let mut level = self.leaves();
        let mut at = usize::try_from(index).ok().filter(|at| *at < level.len())?;
        let mut siblings = Vec::new();
        while level.len() > 1 {
            siblings.push(level[at ^ 1]);
            at /= 2;
            level = level.chunks_exact(2).map(|pair| hash_node(&pair[0], &pair[1])).collect();
        }
        Some(MerkleProof { index, siblings })
    }

    /// The program that may prove the blocks `first..=last`, with the path of its leaf.
    pub fn program_for(&self, first: u64, last: u64) -> Option<(BlockProgram, MerkleProof)> {
        let covers = |program: &BlockProgram| program.first_block <= first && last <= program.last_block;
        let position = self.block_programs.iter().position(covers)?;
        let proof = self.prove(FIRST_BLOCK_LEAF + position as u64)?;
        Some((self.block_programs[position], proof))
    }

    fn leaves(&self) -> Vec<[u8; 32]> {
        let mut leaves = alloc::vec![genesis_leaf(&self.genesis_commitment), fold_leaf(self.fold_program)];
        leaves.extend(self.block_programs.iter().map(block_leaf));
        leaves.resize(leaves.len().next_power_of_two(), *blake3::hash(&[0, 3]).as_bytes());
        leaves
    }
}

impl MerkleProof {
    /// Checks that `leaf` lies at `self.index` below `root`. `item` names it in errors.
    ///
    /// # Errors
    /// `BadPath` if the path is too long, does not fit the index or leads elsewhere.
    pub fn check(&self, leaf: [u8; 32], root: &[u8; 32], item: &'static str) -> Result<(), FoldError> {
        let fits = self.siblings.len() <= DEPTH_MAX && self.index >> self.siblings.len() == 0;
        if fits && self.lead(leaf) == *root {
            return Ok(());
        }
        Err(FoldError::BadPath { item, index: self.index })
    }

    fn lead(&self, leaf: [u8; 32]) -> [u8; 32] {
        self.siblings.iter().enumerate().fold(leaf, |hash, (height, sibling)| {
            if (self.index >> height) & 1 == 0 {
                hash_node(&hash, sibling)
            } else {
                hash_node(sibling, &hash)
            }
        })
    }
}

/// Hash of the genesis leaf.
pub(crate) fn genesis_leaf(commitment: &[u8; 32]) -> [u8; 32] {
    hash_parts(&[&[0, 0], commitment])
}

/// Hash of the fold program's leaf.
pub(crate) fn fold_leaf(vk: VkHash) -> [u8; 32] {
    hash_parts(&[&[0, 1], &vk.to_bytes()])
}

/// Hash of a block program's leaf.
pub(crate) fn block_leaf(program: &BlockProgram) -> [u8; 32] {
    let (first, last) = (program.first_block.to_le_bytes(), program.last_block.to_le_bytes());
    hash_parts(&[&[0, 2], &first, &last, &program.vk.to_bytes()])
}

fn hash_node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    hash_parts(&[&[1], left, right])
}

fn hash_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}
