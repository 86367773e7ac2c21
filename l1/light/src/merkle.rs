//! Bitcoin's Merkle trees, without their two traps.
//!
//! *Duplicate tails* (CVE-2012-2459): a level of odd length repeats its last node, so a list and the same list with its tail
//! repeated have one root. Roots are computed with the check for equal neighbours, and a path in which a node is the right
//! twin of itself is refused: each transaction has exactly one index.
//!
//! *64-byte transactions*: such a transaction looks like an inner node, and an inner node like a transaction. Leaves are
//! only ever hashed from whole transactions, [`crate::proof`] pins the tree's depth by the coinbase, whose first bytes no
//! hash has, and a path proves no transaction of 64 bytes.

use alloc::vec::Vec;

use crate::hash::{double_sha256, Hash};

/// Deepest tree: a block holds fewer than 2^15 transactions (4,000,000 weight units, at least 60 bytes * 4 each).
pub const DEPTH_MAX: usize = 15;

/// Why a tree or a path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MerkleError {
    /// There are no leaves.
    #[error("a Merkle tree without leaves")]
    Empty,
    /// More leaves or levels than a block can have.
    #[error("a Merkle tree of {depth} levels, a block has at most {DEPTH_MAX}")]
    Depth {
        /// Levels.
        depth: usize,
    },
    /// The index does not fit in the tree.
    #[error("index {index} in a Merkle tree of {depth} levels")]
    Index {
        /// The index.
        index: u32,
        /// Levels.
        depth: usize,
    },
    /// Equal neighbours: a repeated tail.
    #[error("equal neighbours at level {level}: a repeated tail, not the block's own list")]
    Duplicate {
        /// Level, 0 for the leaves.
        level: usize,
    },
}

fn parent(left: &Hash, right: &Hash) -> Hash {
    double_sha256(&[&left.0, &right.0])
}

/// The root of the tree over `leaves`.
///
/// # Errors
/// `Empty`, `Depth`, `Duplicate`.
pub fn root(leaves: &[Hash]) -> Result<Hash, MerkleError> {
    let mut level = leaves.to_vec();
    for depth in 0..=DEPTH_MAX {
        match level.as_slice() {
            [] => return Err(MerkleError::Empty),
            [root] => return Ok(*root),
            _ => level = next_level(&level, depth)?,
        }
    }
    Err(MerkleError::Depth { depth: leaves.len().next_power_of_two().ilog2() as usize })
}

fn next_level(nodes: &[Hash], level: usize) -> Result<Vec<Hash>, MerkleError> {
    let pairs = nodes.chunks(2).map(|pair| match pair {
        [left, right] if left == right => Err(MerkleError::Duplicate { level }),
        [left, right] => Ok(parent(left, right)),
        _ => Ok(parent(&pair[0], &pair[0])),
    });
    pairs.collect()
}

/// A leaf's place, and the nodes beside the way from it to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Position among the leaves.
    pub index: u32,
    /// Neighbours, from the leaf's level up.
    pub siblings: Vec<Hash>,
}

impl Path {
    /// The path of leaf `index`; `None` if there is no such leaf or no such tree.
    #[must_use]
    pub fn of(leaves: &[Hash], index: u32) -> Option<Self> {
        leaves.get(index as usize)?;
        let (mut level, mut at, mut siblings) = (leaves.to_vec(), index as usize, Vec::new());
        while level.len() > 1 {
            siblings.push(*level.get(at ^ 1).unwrap_or(&level[at]));
            level = next_level(&level, siblings.len() - 1).ok()?;
            at /= 2;
        }
        (siblings.len() <= DEPTH_MAX).then_some(Self { index, siblings })
    }

    /// The root that `leaf` leads to.
    ///
    /// # Errors
    /// `Depth`, `Index`, `Duplicate`.
    pub fn root(&self, leaf: &Hash) -> Result<Hash, MerkleError> {
        let depth = self.siblings.len();
        if depth > DEPTH_MAX {
            return Err(MerkleError::Depth { depth });
        }
        if self.index >> depth != 0 {
            return Err(MerkleError::Index { index: self.index, depth });
        }
        let mut levels = self.siblings.iter().enumerate();
        levels.try_fold(*leaf, |node, (level, sibling)| {
            if self.index >> level & 1 == 0 {
                // Equal here is the repeated last node of an odd level.
                return Ok(parent(&node, sibling));
            }
            if node == *sibling {
                return Err(MerkleError::Duplicate { level });
            }
            Ok(parent(sibling, &node))
        })
    }
}
