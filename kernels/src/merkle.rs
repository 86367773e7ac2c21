//! Binary Merkle trees of the wrap proof: Poseidon2 over BN254 on rows of 31-bit elements.
//!
//! The tree does not keep its lowest [`SKIPPED_LEVELS`] levels: at 2^24 rows they are 63/64 of a gigabyte. [`MerkleTree::open`]
//! hashes the few subtrees it needs again, from the rows.
//!
//! Order of work: a lane owns a whole subtree of [`SKIPPED_LEVELS`] levels, so that eight subtrees are built side by side
//! without moving a digest between lanes or to memory; the levels above are small.

#[cfg(test)]
mod tests;

use ark_bn254::Fr;
use ark_ff::{AdditiveGroup, BigInt, PrimeField};
use rayon::prelude::*;
use thiserror::Error;

use crate::{
    field::{dispatch, Arch, Kernel, Lanes, LANES},
    poseidon2::{LaneConstants, Sponge},
};

/// Levels, counted from the leaves, whose digests are not kept (fewer in trees that have fewer).
pub const SKIPPED_LEVELS: u32 = 6;
/// Lane groups permuted at once: enough to hide the latency of a product.
const GROUPS: usize = 4;
/// Subtrees that one task builds.
const TASK: usize = 4 * LANES;
/// Digests of a kept level that one task compresses.
const LEVEL_TASK: usize = 1 << 9;

/// What is committed: rows of equal width. Reading must be cheap, and give the same values each time.
pub trait Rows: Send + Sync {
    /// The number of rows, at least one.
    fn height(&self) -> usize;

    /// The number of elements in a row.
    fn width(&self) -> usize;

    /// Writes row `index` to `out`, which has [`Rows::width`] places, as canonical values below `2^31`.
    fn read(&self, index: usize, out: &mut [u32]);
}

/// What can go wrong with a tree.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MerkleError {
    /// The rows do not hash to what the tree says.
    #[error("rows of subtree {subtree} do not hash to its digest in the tree")]
    RowsDiffer {
        /// The index of the subtree, in units of `2^skipped` rows.
        subtree: usize,
    },
    /// An opening beyond the last row.
    #[error("row index out of range: expected below {expected}, got {got}")]
    IndexOutOfRange {
        /// The padded height.
        expected: usize,
        /// The index.
        got: usize,
    },
    /// An encoded tree of the wrong length.
    #[error("encoded tree has the wrong length: expected {expected} bytes, got {got}")]
    Length {
        /// As the shape demands.
        expected: usize,
        /// As found.
        got: usize,
    },
    /// A digest that is no field element.
    #[error("digest {index} is not below the modulus")]
    Digest {
        /// Position in the lowest level kept.
        index: usize,
    },
}

/// A tree over `height` rows, padded with zero digests to a power of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MerkleTree {
    height: usize,
    width: usize,
    /// Levels kept, lowest first; the last one is the root alone.
    levels: Vec<Vec<Fr>>,
}

impl MerkleTree {
    /// Hashes all rows. Cost: per row, one permutation for every 16 elements begun, and one more.
    ///
    /// # Panics
    /// If there are no rows.
    #[must_use]
    pub fn build(rows: &dyn Rows) -> Self {
        let (height, width) = (rows.height(), rows.width());
        assert!(height > 0, "a tree needs a row");
        let skipped = skipped_levels(height);
        let mut lowest = vec![Fr::ZERO; height.next_power_of_two() >> skipped];
        lowest.par_chunks_mut(TASK).enumerate().for_each(|(task, digests)| {
            let ids: Vec<usize> = (task * TASK..).take(digests.len()).collect();
            dispatch(SubtreeRoots { rows, skipped, ids: &ids, digests });
        });
        Self { height, width, levels: complete(lowest) }
    }

    /// The root.
    ///
    /// # Panics
    /// Never: every tree has one.
    #[must_use]
    pub fn root(&self) -> Fr {
        self.levels.last().expect("a tree has a root")[0]
    }

    /// `log2` of the padded height.
    #[must_use]
    pub fn log_height(&self) -> u32 {
        self.height.next_power_of_two().trailing_zeros()
    }

    /// The number of elements in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The root bound to the shape: `compress(root, hash(log_height, width))`.
    ///
    /// # Panics
    /// If the width is not below `2^31`.
    #[must_use]
    pub fn commitment(&self) -> Fr {
        let width = u32::try_from(self.width).expect("widths are below 2^31");
        Sponge::compress_one(self.root(), Sponge::hash_one(&[self.log_height(), width]))
    }

    /// For each index the siblings on the way from its leaf to the root, lowest first.
    ///
    /// `rows` must be what the tree was built from; the subtrees that are hashed again are compared with the tree.
    ///
    /// # Errors
    /// `RowsDiffer` if they are not; `IndexOutOfRange` for an index beyond the padded height.
    ///
    /// # Panics
    /// If `rows` has another height or width than the tree.
    pub fn open(&self, rows: &dyn Rows, indices: &[usize]) -> Result<Vec<Vec<Fr>>, MerkleError> {
        assert_eq!((rows.height(), rows.width()), (self.height, self.width), "rows of another tree");
        let padded = self.height.next_power_of_two();
        if let Some(&got) = indices.iter().find(|&&index| index >= padded) {
            return Err(MerkleError::IndexOutOfRange { expected: padded, got });
        }
        let skipped = skipped_levels(self.height);
        let groups: Vec<Vec<Vec<Fr>>> =
            indices.par_chunks(LANES).map(|indices| dispatch(LowPaths { rows, skipped, indices })).collect();
        indices
            .iter()
            .zip(groups.into_iter().flatten())
            .map(|(&index, mut path)| {
                let subtree = index >> skipped;
                let root = path.pop().expect("a path carries the root of its subtree");
                if root != self.levels[0][subtree] {
                    return Err(MerkleError::RowsDiffer { subtree });
                }
                let above = self.levels[..self.levels.len() - 1].iter().enumerate();
                path.extend(above.map(|(level, digests)| digests[(subtree >> level) ^ 1]));
                Ok(path)
            })
            .collect()
    }

    /// The lowest level kept, 32 little-endian bytes a digest: all that [`MerkleTree::decode`] needs besides the shape.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let words = self.levels[0].iter().flat_map(|digest| digest.into_bigint().0);
        words.flat_map(u64::to_le_bytes).collect()
    }

    /// Reads what [`MerkleTree::encode`] wrote, and hashes the levels above.
    ///
    /// # Errors
    /// `Length` or `Digest` if `bytes` is not the lowest level of a tree of this shape.
    ///
    /// # Panics
    /// If `height` is zero.
    pub fn decode(height: usize, width: usize, bytes: &[u8]) -> Result<Self, MerkleError> {
        assert!(height > 0, "a tree needs a row");
        let expected = 32 * (height.next_power_of_two() >> skipped_levels(height));
        if bytes.len() != expected {
            return Err(MerkleError::Length { expected, got: bytes.len() });
        }
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let lowest = bytes.par_chunks_exact(32).enumerate().map(|(index, bytes)| {
            let words = std::array::from_fn(|i| word(&bytes[8 * i..8 * i + 8]));
            Fr::from_bigint(BigInt(words)).ok_or(MerkleError::Digest { index })
        });
        Ok(Self { height, width, levels: complete(lowest.collect::<Result<_, _>>()?) })
    }
}

fn skipped_levels(height: usize) -> u32 {
    SKIPPED_LEVELS.min(height.next_power_of_two().trailing_zeros())
}

/// All levels above `lowest`, whose length is a power of two.
fn complete(lowest: Vec<Fr>) -> Vec<Vec<Fr>> {
    let mut levels = vec![lowest];
    while levels[levels.len() - 1].len() > 1 {
        let below = &levels[levels.len() - 1];
        let mut above = vec![Fr::ZERO; below.len() / 2];
        above
            .par_chunks_mut(LEVEL_TASK)
            .zip(below.par_chunks(2 * LEVEL_TASK))
            .for_each(|(above, below)| dispatch(CompressLevel { below, above }));
        levels.push(above);
    }
    levels
}

/// Compresses pairs of neighbours.
struct CompressLevel<'a> {
    below: &'a [Fr],
    above: &'a mut [Fr],
}

impl Kernel for CompressLevel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        const STEP: usize = GROUPS * LANES;
        if self.above.len() < STEP {
            for (digest, pair) in self.above.iter_mut().zip(self.below.chunks_exact(2)) {
                *digest = Sponge::compress_one(pair[0], pair[1]);
            }
            return;
        }
        let constants = LaneConstants::new(arch);
        for (above, below) in self.above.chunks_exact_mut(STEP).zip(self.below.chunks_exact(2 * STEP)) {
            let pairs: [[A::Lanes<Fr>; 2]; GROUPS] = std::array::from_fn(|n| {
                let child = |side: usize| {
                    arch.load_refs(std::array::from_fn(|lane| &below[2 * (n * LANES + lane) + side]))
                };
                [child(0), child(1)]
            });
            let digests = Sponge::compress_lanes::<A, GROUPS>(arch, &constants, pairs);
            for (above, digests) in above.chunks_exact_mut(LANES).zip(digests) {
                above.copy_from_slice(&digests.store());
            }
        }
    }
}

/// Builds subtrees, one a lane; `nodes` gets all their levels, leaves first.
#[inline(always)]
fn subtrees<A: Arch>(
    arch: A,
    constants: &LaneConstants<A>,
    rows: &dyn Rows,
    skipped: u32,
    ids: [usize; LANES],
    nodes: &mut Vec<A::Lanes<Fr>>,
) {
    nodes.clear();
    let leaves = 1usize << skipped;
    let mut values = vec![0; GROUPS * LANES * rows.width()];
    if leaves.is_multiple_of(GROUPS) {
        for first in (0..leaves).step_by(GROUPS) {
            nodes.extend(leaf_digests::<A, GROUPS>(
                arch,
                constants,
                rows,
                ids.map(|id| id * leaves + first),
                &mut values,
            ));
        }
    } else {
        for first in 0..leaves {
            nodes.extend(leaf_digests::<A, 1>(
                arch,
                constants,
                rows,
                ids.map(|id| id * leaves + first),
                &mut values,
            ));
        }
    }
    let (mut from, mut length) = (0, leaves);
    while length > 1 {
        let end = from + length;
        if (length / 2).is_multiple_of(GROUPS) {
            while from < end {
                let pairs: [[A::Lanes<Fr>; 2]; GROUPS] =
                    std::array::from_fn(|n| [nodes[from + 2 * n], nodes[from + 2 * n + 1]]);
                nodes.extend(Sponge::compress_lanes::<A, GROUPS>(arch, constants, pairs));
                from += 2 * GROUPS;
            }
        } else {
            while from < end {
                let pairs = [[nodes[from], nodes[from + 1]]];
                nodes.extend(Sponge::compress_lanes::<A, 1>(arch, constants, pairs));
                from += 2;
            }
        }
        length /= 2;
    }
}

/// Hashes rows `first[lane] + n` for `n < N`; zero beyond the last row. `values` is scratch for `8 N` rows.
#[inline(always)]
fn leaf_digests<A: Arch, const N: usize>(
    arch: A,
    constants: &LaneConstants<A>,
    rows: &dyn Rows,
    first: [usize; LANES],
    values: &mut [u32],
) -> [A::Lanes<Fr>; N] {
    let (height, width) = (rows.height(), rows.width());
    let values = &mut values[..N * LANES * width];
    let mut real = [0u8; N];
    for (n, real) in real.iter_mut().enumerate() {
        for (lane, first) in first.iter().enumerate() {
            if first + n < height {
                let at = (n * LANES + lane) * width;
                rows.read(first + n, &mut values[at..at + width]);
                *real |= 1 << lane;
            }
        }
    }
    let mut digests = Sponge::hash_lanes::<A, N>(arch, constants, values, width);
    for (digest, real) in digests.iter_mut().zip(real) {
        if real != 0xff {
            *digest = A::Lanes::<Fr>::select(real, *digest, arch.zero());
        }
    }
    digests
}

struct SubtreeRoots<'a> {
    rows: &'a dyn Rows,
    skipped: u32,
    ids: &'a [usize],
    digests: &'a mut [Fr],
}

impl Kernel for SubtreeRoots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        let constants = LaneConstants::new(arch);
        let mut nodes = Vec::with_capacity(2 << self.skipped);
        for (ids, digests) in self.ids.chunks(LANES).zip(self.digests.chunks_mut(LANES)) {
            subtrees(arch, &constants, self.rows, self.skipped, pad(ids), &mut nodes);
            let roots = nodes.last().expect("a subtree has a root").store();
            digests.copy_from_slice(&roots[..digests.len()]);
        }
    }
}

/// The part of at most eight opening paths that lies within subtrees, and the root of each subtree.
struct LowPaths<'a> {
    rows: &'a dyn Rows,
    skipped: u32,
    indices: &'a [usize],
}

impl Kernel for LowPaths<'_> {
    type Output = Vec<Vec<Fr>>;

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) -> Vec<Vec<Fr>> {
        let Self { rows, skipped, indices } = self;
        let mut nodes = Vec::with_capacity(2 << skipped);
        let ids = pad(indices).map(|index| index >> skipped);
        subtrees(arch, &LaneConstants::new(arch), rows, skipped, ids, &mut nodes);
        let nodes: Vec<[Fr; LANES]> = nodes.into_iter().map(|node| node.store()).collect();
        let path = |(lane, index): (usize, &usize)| {
            let mut node = index & ((1 << skipped) - 1);
            let (mut from, mut length) = (0, 1usize << skipped);
            let mut path = Vec::with_capacity(40);
            while length > 1 {
                path.push(nodes[from + (node ^ 1)][lane]);
                (from, length, node) = (from + length, length / 2, node / 2);
            }
            path.push(nodes[from][lane]);
            path
        };
        indices.iter().enumerate().map(path).collect()
    }
}

/// Fills idle lanes with copies of the first.
fn pad(ids: &[usize]) -> [usize; LANES] {
    std::array::from_fn(|lane| *ids.get(lane).unwrap_or(&ids[0]))
}
