//! The heaviest chain of headers.
//!
//! A client starts at a block that its creator trusts (a genesis block, or a checkpoint) and keeps a tree of the headers
//! above its *anchor*. The anchor follows the heaviest chain at a fixed distance; branches that leave the chain below it are
//! dropped, so the state is bounded. Each block carries what the rules need of its ancestors ([`BlockContext`]): checking
//! a header looks at its parent only.
//!
//! ```text
//!  anchor ──▶ ● ──▶ ● ──▶ ● final ──▶ ● ──▶ ● tip        reorganisations are followed down to the anchor
//!                   └──▶ ○ ──▶ ○                         `finality` blocks, the tip among them, make a block final
//! ```

mod encoding;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::hash::Hash;
use crate::header::Header;
use crate::params::{Difficulty, Network, Params, TIMEWARP_S};
use crate::pow::{Target, TargetError, U256};

pub use encoding::StateError;

/// Blocks whose median time a block must exceed (BIP113 calls it median time past).
const MEDIAN_BLOCKS: usize = 11;
/// Headers kept above the anchor beyond which side branches are refused. The heaviest chain may go on: at most [`KEEP_MAX`] more.
pub const HEADERS_MAX: usize = 16_384;
/// Farthest distance of the anchor from the tip.
pub const KEEP_MAX: u32 = 4_096;
/// How far in the future a block's time may lie, in seconds, where there is a clock.
pub const FUTURE_S: u32 = 2 * 60 * 60;

/// A block, and what the rules need of its ancestors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockContext {
    /// Its height.
    pub height: u32,
    /// Its hash.
    pub hash: Hash,
    /// Root of its transactions.
    pub merkle_root: Hash,
    /// Work of the chain up to it, itself included, since the client's start (from a genesis block: of the whole chain).
    pub work: U256,
    /// Its target.
    pub bits: u32,
    /// Target of the last block up to it, within its period, that had not the least difficulty by being late.
    pub real_bits: u32,
    /// Time of the first block of its period.
    pub period_time: u32,
    /// Target of the first block of its period.
    pub period_bits: u32,
    /// Times of the last blocks up to it, oldest first; as many as [`Self::times_len`] are there, at the end.
    times: [u32; MEDIAN_BLOCKS],
    times_len: u8,
}

impl BlockContext {
    /// The context of a network's genesis block.
    ///
    /// # Errors
    /// `Target` if the header's target is none.
    pub fn genesis(header: &Header) -> Result<Self, HeaderError> {
        let mut times = [0; MEDIAN_BLOCKS];
        times[MEDIAN_BLOCKS - 1] = header.time;
        Ok(Self {
            height: 0,
            hash: header.hash(),
            merkle_root: header.merkle_root,
            work: Target::from_bits(header.bits)?.work(),
            bits: header.bits,
            real_bits: header.bits,
            period_time: header.time,
            period_bits: header.bits,
            times,
            times_len: 1,
        })
    }

    /// Its time.
    #[must_use]
    pub fn time(&self) -> u32 {
        self.times[MEDIAN_BLOCKS - 1]
    }

    /// Number of blocks, at most 11, whose times are known.
    #[must_use]
    pub fn times_len(&self) -> usize {
        usize::from(self.times_len)
    }

    /// Median time of the last 11 blocks up to it: a child must be later.
    #[must_use]
    pub fn median_time(&self) -> u32 {
        let mut times = self.times;
        let known = &mut times[MEDIAN_BLOCKS - self.times_len()..];
        known.sort_unstable();
        known[known.len() / 2]
    }

    /// The target that a child with this time must state, in compact form.
    ///
    /// # Errors
    /// `Target` only if the context is not one of this network.
    pub fn next_bits(&self, params: &Params, time: u32) -> Result<u32, HeaderError> {
        let starts_period = (self.height + 1).is_multiple_of(params.period_blocks.max(1));
        match params.difficulty {
            Difficulty::Constant => Ok(self.bits),
            _ if starts_period => self.retarget(params),
            rule if rule.allows_late() => {
                let late = u64::from(time) > u64::from(self.time()) + 2 * u64::from(params.spacing_s);
                Ok(if late { params.limit_bits } else { self.real_bits })
            }
            _ => Ok(self.bits),
        }
    }

    fn retarget(&self, params: &Params) -> Result<u32, HeaderError> {
        let base = match params.difficulty {
            Difficulty::RetargetOrLateBip94 => self.period_bits,
            _ => self.bits,
        };
        // From the first block of the period to the last: one interval less than the period has.
        let actual = i64::from(self.time()) - i64::from(self.period_time);
        let limit = Target::from_bits(params.limit_bits)?;
        let next = Target::from_bits(base)?.retarget(actual, params.period_s(), limit);
        Ok(next.ok_or(TargetError::Zero { bits: base })?.to_bits())
    }

    /// The child that `header` makes, if every rule holds.
    ///
    /// # Errors
    /// Those of [`HeaderError`] that need no tree.
    pub fn child(
        &self,
        params: &Params,
        header: &Header,
        time_max: Option<u32>,
    ) -> Result<Self, HeaderError> {
        let hash = header.hash();
        if header.parent != self.hash {
            return Err(HeaderError::UnknownParent { hash, parent: header.parent });
        }
        let height = self.height.checked_add(1).ok_or(HeaderError::Height)?;
        let expected = self.next_bits(params, header.time)?;
        if header.bits != expected {
            return Err(HeaderError::Bits { hash, expected, got: header.bits });
        }
        let target = network_target(params, header.bits)?;
        if !target.is_met_by(&hash) {
            return Err(HeaderError::Work { hash });
        }
        self.check_time(params, header, hash, time_max)?;
        let version_min = params.version_min(height);
        if header.version < version_min {
            return Err(HeaderError::Version { hash, version: header.version, version_min });
        }
        let starts_period = height.is_multiple_of(params.period_blocks.max(1));
        let is_real = starts_period || !params.difficulty.allows_late() || header.bits != params.limit_bits;
        let mut times = self.times;
        times.rotate_left(1);
        times[MEDIAN_BLOCKS - 1] = header.time;
        Ok(Self {
            height,
            hash,
            merkle_root: header.merkle_root,
            work: self.work.checked_add(target.work()).ok_or(HeaderError::Height)?,
            bits: header.bits,
            real_bits: if is_real { header.bits } else { self.real_bits },
            period_time: if starts_period { header.time } else { self.period_time },
            period_bits: if starts_period { header.bits } else { self.period_bits },
            times,
            times_len: (self.times_len + 1).min(MEDIAN_BLOCKS as u8),
        })
    }

    fn check_time(
        &self,
        params: &Params,
        header: &Header,
        hash: Hash,
        time_max: Option<u32>,
    ) -> Result<(), HeaderError> {
        let time = header.time;
        let median = self.median_time();
        if time <= median {
            return Err(HeaderError::TimeTooOld { hash, time, median });
        }
        let starts_period = (self.height + 1).is_multiple_of(params.period_blocks.max(1));
        let bound = params.difficulty == Difficulty::RetargetOrLateBip94 && starts_period;
        if bound && u64::from(time) + u64::from(TIMEWARP_S) < u64::from(self.time()) {
            return Err(HeaderError::TimeWarp { hash, time, parent_time: self.time() });
        }
        match time_max {
            Some(time_max) if time > time_max => Err(HeaderError::TimeTooNew { hash, time, time_max }),
            _ => Ok(()),
        }
    }
}

fn network_target(params: &Params, bits: u32) -> Result<Target, TargetError> {
    let target = Target::from_bits(bits)?;
    if target > Target::from_bits(params.limit_bits)? {
        return Err(TargetError::AboveLimit { bits, limit: params.limit_bits });
    }
    Ok(target)
}

/// Why a header was refused. The state is as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Its parent is unknown, or left the heaviest chain below the anchor.
    #[error("header {hash}: unknown parent {parent}")]
    UnknownParent {
        /// The header.
        hash: Hash,
        /// Its parent.
        parent: Hash,
    },
    /// It states another target than the rules demand.
    #[error("header {hash}: target {got:#010x}, the rules demand {expected:#010x}")]
    Bits {
        /// The header.
        hash: Hash,
        /// What the rules demand.
        expected: u32,
        /// What it states.
        got: u32,
    },
    /// A compact form is no target of the network.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Its hash exceeds its target.
    #[error("header {hash}: the hash does not meet the target")]
    Work {
        /// The header.
        hash: Hash,
    },
    /// It is not later than the median of the 11 blocks before it.
    #[error("header {hash}: time {time} is not after the median {median} of the blocks before")]
    TimeTooOld {
        /// The header.
        hash: Hash,
        /// Its time.
        time: u32,
        /// The median.
        median: u32,
    },
    /// The first block of a period lies too far before its parent (BIP94).
    #[error("header {hash}: time {time} lies more than {TIMEWARP_S} s before its parent's {parent_time}")]
    TimeWarp {
        /// The header.
        hash: Hash,
        /// Its time.
        time: u32,
        /// Its parent's.
        parent_time: u32,
    },
    /// It is later than the caller's clock allows. It may be accepted later.
    #[error("header {hash}: time {time} is after {time_max}")]
    TimeTooNew {
        /// The header.
        hash: Hash,
        /// Its time.
        time: u32,
        /// Latest time accepted.
        time_max: u32,
    },
    /// A soft fork demands a higher version.
    #[error("header {hash}: version {version}, at least {version_min} is demanded at its height")]
    Version {
        /// The header.
        hash: Hash,
        /// Its version.
        version: i32,
        /// Least version.
        version_min: i32,
    },
    /// Too many side branches are kept already, and it does not extend the heaviest chain.
    #[error("header {hash}: {HEADERS_MAX} headers are kept already")]
    Capacity {
        /// The header.
        hash: Hash,
    },
    /// Heights or work are exhausted.
    #[error("height or work beyond all bounds")]
    Height,
}

/// What an accepted header did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It was known.
    Known,
    /// The heaviest chain is one block longer.
    Extended,
    /// It is on a branch that has no more work than the heaviest chain.
    Side,
    /// Its branch has become the heaviest chain.
    Reorganised {
        /// Height of the last block that both chains have.
        common: u32,
        /// Blocks of the old chain above it.
        undone: u32,
        /// True if one of those was final: whoever acted on it has to stop.
        broke_finality: bool,
    },
}

/// How deep is final, and how deep a reorganisation is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depths {
    /// Confirmations, the block itself among them, that make a block final; at least 1.
    pub finality: u32,
    /// Distance of the anchor from the tip; at least `finality`, at most [`KEEP_MAX`].
    pub keep: u32,
}

/// Depths that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("depths: 1 <= finality ({finality}) <= keep ({keep}) <= {KEEP_MAX} does not hold")]
pub struct DepthsError {
    /// Confirmations for finality.
    pub finality: u32,
    /// Distance of the anchor.
    pub keep: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    header: Header,
    block: BlockContext,
    /// Index of the parent; `None` for the anchor.
    parent: Option<u32>,
}

/// A light client's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LightClient {
    params: Params,
    depths: Depths,
    anchor: BlockContext,
    /// In the order of acceptance: parents before children.
    nodes: Vec<Node>,
    index: BTreeMap<Hash, u32>,
    /// The heaviest chain's last block; `None` if that is the anchor.
    best: Option<u32>,
}

impl LightClient {
    /// A client that knows the genesis block.
    ///
    /// # Errors
    /// `DepthsError`.
    ///
    /// # Panics
    /// Never: a network's own genesis block has a target.
    pub fn from_genesis(network: Network, depths: Depths) -> Result<Self, DepthsError> {
        let block = BlockContext::genesis(&network.genesis()).expect("the limit of a network is a target");
        Self::from_checkpoint(network.params(), depths, block)
    }

    /// A client that trusts `block`.
    ///
    /// # Errors
    /// `DepthsError`.
    pub fn from_checkpoint(params: Params, depths: Depths, block: BlockContext) -> Result<Self, DepthsError> {
        let Depths { finality, keep } = depths;
        if finality == 0 || keep < finality || keep > KEEP_MAX {
            return Err(DepthsError { finality, keep });
        }
        Ok(Self { params, depths, anchor: block, nodes: Vec::new(), index: BTreeMap::new(), best: None })
    }

    /// The network's rules.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The deepest block known; everything below it is settled.
    #[must_use]
    pub fn anchor(&self) -> &BlockContext {
        &self.anchor
    }

    /// Last block of the heaviest chain.
    #[must_use]
    pub fn tip(&self) -> &BlockContext {
        self.block(self.best)
    }

    /// The highest final block. A chain shorter than the depth has the anchor as its final block, which the client's creator
    /// vouched for.
    #[must_use]
    pub fn final_block(&self) -> &BlockContext {
        let height = self.tip().height.saturating_sub(self.depths.finality - 1);
        self.block_at(height).unwrap_or(&self.anchor)
    }

    /// The block of the heaviest chain at `height`; `None` above the tip and below the anchor.
    #[must_use]
    pub fn block_at(&self, height: u32) -> Option<&BlockContext> {
        let mut at = self.best;
        loop {
            let block = self.block(at);
            if block.height <= height {
                return (block.height == height).then_some(block);
            }
            at = self.nodes.get(at? as usize)?.parent;
        }
    }

    /// The block with this hash if it is on the heaviest chain and final.
    #[must_use]
    pub fn final_block_with(&self, hash: &Hash) -> Option<&BlockContext> {
        let block = match self.index.get(hash) {
            Some(at) => self.block(Some(*at)),
            None => Some(&self.anchor).filter(|anchor| anchor.hash == *hash)?,
        };
        let on_chain = self.block_at(block.height).is_some_and(|other| other.hash == *hash);
        (on_chain && block.height <= self.final_block().height).then_some(block)
    }

    fn block(&self, at: Option<u32>) -> &BlockContext {
        at.and_then(|at| self.nodes.get(at as usize)).map_or(&self.anchor, |node| &node.block)
    }

    /// Takes a header. `time_max` is the caller's clock plus [`FUTURE_S`]; `None` where there is no clock, as in a guest:
    /// then a block may state any time after the median, and miners of a majority could push the difficulty down by lying
    /// about it until nodes with clocks refuse their chain.
    ///
    /// # Errors
    /// Any of [`HeaderError`]; nothing has changed then.
    pub fn accept(&mut self, header: &Header, time_max: Option<u32>) -> Result<Accepted, HeaderError> {
        let hash = header.hash();
        if hash == self.anchor.hash || self.index.contains_key(&hash) {
            return Ok(Accepted::Known);
        }
        let parent = match self.index.get(&header.parent) {
            Some(at) => Some(*at),
            None if header.parent == self.anchor.hash => None,
            None => return Err(HeaderError::UnknownParent { hash, parent: header.parent }),
        };
        let block = self.block(parent).child(&self.params, header, time_max)?;
        let heavier = block.work > self.tip().work;
        if self.nodes.len() >= HEADERS_MAX && !(heavier && parent == self.best) {
            return Err(HeaderError::Capacity { hash });
        }
        let final_height = self.final_block().height;
        let at = self.nodes.len() as u32;
        self.nodes.push(Node { header: *header, block, parent });
        self.index.insert(hash, at);
        if !heavier {
            return Ok(Accepted::Side);
        }
        let accepted = if parent == self.best {
            Accepted::Extended
        } else {
            let common = self.common_height(self.best, Some(at));
            let undone = self.tip().height - common;
            Accepted::Reorganised { common, undone, broke_finality: common < final_height }
        };
        self.best = Some(at);
        while self.tip().height - self.anchor.height > self.depths.keep {
            self.raise_anchor();
        }
        Ok(accepted)
    }

    /// Height of the last block that is an ancestor of both, or one of them.
    fn common_height(&self, mut left: Option<u32>, mut right: Option<u32>) -> u32 {
        while left != right {
            let (a, b) = (self.block(left).height, self.block(right).height);
            let parent = |at: Option<u32>| at.and_then(|at| self.nodes.get(at as usize)?.parent);
            if a >= b {
                left = parent(left);
            }
            if b >= a {
                right = parent(right);
            }
        }
        self.block(left).height
    }

    /// Makes the anchor's child on the heaviest chain the anchor, and drops every branch beside it.
    fn raise_anchor(&mut self) {
        let mut child = self.best;
        while let Some(parent) = child.and_then(|at| self.nodes.get(at as usize)?.parent) {
            child = Some(parent);
        }
        let Some(child) = child else { return };
        let mut kept: Vec<Option<u32>> = alloc::vec![None; self.nodes.len()];
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (at, node) in self.nodes.iter().enumerate() {
            let parent = match node.parent {
                Some(parent) if parent == child => None,
                Some(parent) => match kept[parent as usize] {
                    Some(parent) => Some(parent),
                    None => continue,
                },
                None => continue,
            };
            kept[at] = Some(nodes.len() as u32);
            nodes.push(Node { parent, ..node.clone() });
        }
        self.anchor = self.nodes[child as usize].block;
        self.best = self.best.and_then(|best| kept[best as usize]);
        self.nodes = nodes;
        self.index = self.nodes.iter().enumerate().map(|(at, node)| (node.block.hash, at as u32)).collect();
    }
}
