//! The active chain block by block: what is connected, and what is taken back.

use std::collections::VecDeque;

use assay_l1::{BackendError, BitcoinBackend};
use bitcoin::{Block, BlockHash};
use serde::{Deserialize, Serialize};

use super::error::ServiceError;

/// Blocks that are remembered: the deepest reorganisation that is followed.
const KNOWN_BLOCKS: usize = 1_000;

/// Where a service stands in the chain. Part of its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Follower {
    height: u32,
    /// The last blocks, the one at `height` at the end. Never empty.
    hashes: VecDeque<BlockHash>,
}

/// The next change.
#[derive(Debug)]
pub(super) enum Change {
    /// The block above the last one; whether it is the chain's tip.
    Connected { hash: BlockHash, block: Block, is_tip: bool },
    /// The last block left the chain.
    Disconnected,
}

impl Follower {
    /// Stands at `height`, below the first block of interest.
    pub(super) fn at(backend: &dyn BitcoinBackend, height: u32) -> Result<Self, BackendError> {
        Ok(Self { height, hashes: [backend.block_hash(height)?].into() })
    }

    /// False for what no chain can have led to: a stored one may be anything.
    pub(super) fn is_valid(&self) -> bool {
        !self.hashes.is_empty()
            && self.hashes.len() <= KNOWN_BLOCKS
            && self.depth() as u64 <= u64::from(self.height)
    }

    /// Height of the last block.
    pub(super) fn height(&self) -> u32 {
        self.height
    }

    /// The last block.
    pub(super) fn hash(&self) -> Option<BlockHash> {
        self.hashes.back().copied()
    }

    /// Blocks that can be taken back.
    pub(super) fn depth(&self) -> usize {
        self.hashes.len() - 1
    }

    /// What happened next; `None` if nothing did.
    ///
    /// # Errors
    /// The node's; `NotFound` among them if it has nothing but fewer blocks of this chain. `Reorganised`.
    pub(super) fn next(&self, backend: &dyn BitcoinBackend) -> Result<Option<Change>, ServiceError> {
        let last = self.hashes.back();
        match backend.block_hash(self.height) {
            Ok(hash) if Some(&hash) == last => {}
            Err(error @ BackendError::NotFound { .. }) if self.is_ahead(backend)? => return Err(error.into()),
            Ok(_) | Err(BackendError::NotFound { .. }) if self.depth() > 0 => {
                return Ok(Some(Change::Disconnected));
            }
            Ok(_) | Err(BackendError::NotFound { .. }) => {
                return Err(ServiceError::Reorganised { height: self.height });
            }
            Err(error) => return Err(error.into()),
        }
        let tip = backend.tip()?.height;
        if tip <= self.height {
            return Ok(None);
        }
        let next = self.height + 1;
        let hash = match backend.block_hash(next) {
            // A reorganisation in between: the next call sees it.
            Err(BackendError::NotFound { .. }) => return Ok(None),
            other => other?,
        };
        let block = backend.block(&hash)?;
        if Some(&block.header.prev_blockhash) != last {
            return Ok(None);
        }
        Ok(Some(Change::Connected { hash, block, is_tip: next == tip }))
    }

    /// True if the node has blocks of this chain only, and fewer than were read: it starts, or reads its own again. A reorganisation leads
    /// to other blocks; what is taken back here would be done and paid for once more.
    fn is_ahead(&self, backend: &dyn BitcoinBackend) -> Result<bool, BackendError> {
        let tip = backend.tip()?;
        let Some(below) = self.height.checked_sub(tip.height) else { return Ok(true) };
        let place = self.hashes.len().checked_sub(1 + below as usize);
        Ok(place.is_none_or(|place| self.hashes[place] == tip.hash))
    }

    /// Goes up.
    pub(super) fn push(&mut self, hash: BlockHash) {
        self.height += 1;
        self.hashes.push_back(hash);
        if self.hashes.len() > KNOWN_BLOCKS {
            self.hashes.pop_front();
        }
    }

    /// Goes down. Nothing happens at the lowest block that is remembered.
    pub(super) fn pop(&mut self) {
        if self.depth() > 0 {
            self.hashes.pop_back();
            self.height -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_l1::InProcessRegtest;
    use bitcoin::ScriptBuf;

    fn script(byte: u8) -> ScriptBuf {
        ScriptBuf::from_bytes(vec![byte])
    }

    fn follow(follower: &mut Follower, backend: &InProcessRegtest) -> (u32, u32) {
        let (mut up, mut down) = (0, 0);
        while let Some(change) = follower.next(backend).unwrap() {
            match change {
                Change::Connected { hash, is_tip, .. } => {
                    follower.push(hash);
                    up += 1;
                    assert_eq!(is_tip, follower.height() == backend.tip().unwrap().height);
                }
                Change::Disconnected => {
                    follower.pop();
                    down += 1;
                }
            }
        }
        (up, down)
    }

    #[test]
    fn blocks_come_in_order_and_go_from_the_top() {
        let dir = tempfile::tempdir().unwrap();
        let backend = InProcessRegtest::open(dir.path()).unwrap();
        backend.miner().unwrap().mine(5, &script(0x51)).unwrap();
        let mut follower = Follower::at(&backend, 2).unwrap();
        assert_eq!(follow(&mut follower, &backend), (3, 0));
        assert_eq!(follow(&mut follower, &backend), (0, 0));
        // Two blocks are replaced by three.
        let fork = backend.block_hash(3).unwrap();
        let time = backend.block(&fork).unwrap().header.time;
        let mut parent = fork;
        for step in 1..=3 {
            let block = InProcessRegtest::assemble_block(parent, 3 + step, time + step, &script(0x52), &[]);
            parent = block.block_hash();
            backend.submit_block(&block).unwrap();
        }
        assert_eq!(follow(&mut follower, &backend), (3, 2));
        assert_eq!(follower.height(), 6);
        // Below what is remembered it says so.
        let mut shallow = Follower::at(&backend, 6).unwrap();
        shallow.hashes = [fork].into();
        assert!(matches!(shallow.next(&backend), Err(ServiceError::Reorganised { height: 6 })));
    }

    #[test]
    fn a_node_that_has_fewer_blocks_of_the_same_chain_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let [whole, behind] =
            ["whole", "behind"].map(|name| InProcessRegtest::open(&dir.path().join(name)).unwrap());
        whole.miner().unwrap().mine(5, &script(0x51)).unwrap();
        let copy = |height| {
            let block = whole.block(&whole.block_hash(height).unwrap()).unwrap();
            behind.submit_block(&block).unwrap();
        };
        let mut follower = Follower::at(&whole, 1).unwrap();
        assert_eq!(follow(&mut follower, &whole), (4, 0));
        // Below the first block that is remembered, too.
        for height in 0..5 {
            assert_eq!(behind.tip().unwrap().height, height);
            let error = follower.next(&behind).unwrap_err();
            assert!(matches!(error, ServiceError::Backend(BackendError::NotFound { .. })), "{error}");
            copy(height + 1);
        }
        assert_eq!(follow(&mut follower, &behind), (0, 0));
        whole.miner().unwrap().mine(1, &script(0x51)).unwrap();
        copy(6);
        assert_eq!(follow(&mut follower, &behind), (1, 0));
    }

    #[test]
    fn a_shorter_chain_of_other_blocks_is_a_reorganisation() {
        let dir = tempfile::tempdir().unwrap();
        let [whole, other] = [("whole", 0x51), ("other", 0x52)].map(|(name, byte)| {
            let chain = InProcessRegtest::open(&dir.path().join(name)).unwrap();
            chain.miner().unwrap().mine(if name == "whole" { 5 } else { 3 }, &script(byte)).unwrap();
            chain
        });
        let mut follower = Follower::at(&whole, 0).unwrap();
        assert_eq!(follow(&mut follower, &whole), (5, 0));
        assert_eq!(follow(&mut follower, &other), (3, 5));
    }
}
