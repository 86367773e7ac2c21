//! Which blocks a reader has read: the last ones by hash, so that a reorganisation shows.

use std::collections::VecDeque;

use bitcoin::BlockHash;
use serde::{Deserialize, Serialize};

use crate::backend::{BackendError, BitcoinBackend};

/// Hashes remembered. A reorganisation deeper than that is followed by reading from the start.
pub(crate) const WINDOW_BLOCKS: usize = 288;

/// The blocks below `next_height`, the last of them by hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockWindow {
    next_height: u32,
    /// The last blocks read, ending at `next_height - 1`.
    hashes: VecDeque<BlockHash>,
}

impl BlockWindow {
    /// Nothing read yet.
    pub(crate) fn starting_at(next_height: u32) -> Self {
        Self { next_height, hashes: VecDeque::new() }
    }

    /// Height of the block to be read next.
    pub(crate) fn next_height(&self) -> u32 {
        self.next_height
    }

    /// True if it can have come from reading blocks from `start` on.
    pub(crate) fn is_valid(&self, start: u32) -> bool {
        let read = u64::from(self.next_height.saturating_sub(start));
        self.next_height >= start && self.hashes.len() as u64 == read.min(WINDOW_BLOCKS as u64)
    }

    /// Adds the next block; false, with nothing changed, if it does not stand on the last one.
    pub(crate) fn push(&mut self, hash: BlockHash, parent: BlockHash) -> bool {
        if self.hashes.back().is_some_and(|last| *last != parent) {
            return false;
        }
        self.hashes.push_back(hash);
        if self.hashes.len() > WINDOW_BLOCKS {
            self.hashes.pop_front();
        }
        self.next_height += 1;
        true
    }

    /// Forgets blocks that are not on the active chain, and those from `end` on. Where all remembered ones are gone, nothing
    /// is left but to start anew at `start`.
    ///
    /// # Errors
    /// Those of the node.
    pub(crate) fn rewind(
        &mut self,
        backend: &dyn BitcoinBackend,
        start: u32,
        end: u32,
    ) -> Result<(), BackendError> {
        while let Some(last) = self.hashes.back() {
            let height = self.next_height - 1;
            if height < end && active(backend, height)? == Some(*last) {
                break;
            }
            self.hashes.pop_back();
            self.next_height -= 1;
        }
        if self.hashes.is_empty() {
            self.next_height = start;
        } else if self.hashes.len() < WINDOW_BLOCKS && self.next_height > start {
            self.refill(backend, start)?;
        }
        Ok(())
    }

    /// Remembers older blocks again: what is below a block of the active chain is on it too.
    fn refill(&mut self, backend: &dyn BitcoinBackend, start: u32) -> Result<(), BackendError> {
        let read = (self.next_height - start) as usize;
        while self.hashes.len() < read.min(WINDOW_BLOCKS) {
            let height = self.next_height - 1 - self.hashes.len() as u32;
            self.hashes.push_front(backend.block_hash(height)?);
        }
        Ok(())
    }
}

/// Hash of the block at `height`, `None` above the tip.
fn active(backend: &dyn BitcoinBackend, height: u32) -> Result<Option<BlockHash>, BackendError> {
    match backend.block_hash(height) {
        Ok(hash) => Ok(Some(hash)),
        Err(BackendError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
