//! The chain read forward for whoever only looks: what it shows of the contract, nothing on disk.

use std::sync::Arc;

use assay_l1::{BackendError, BitcoinBackend};
use bitcoin::ScriptBuf;

use super::error::ServiceError;
use super::follow::{Change, Follower};
use crate::contract::Contract;
use crate::event::Block;
use crate::types::Height;
use crate::view::View;

/// The contract, and a view of it that is led along the chain.
pub(super) struct Reading {
    backend: Arc<dyn BitcoinBackend>,
    pub(super) contract: Contract,
    follower: Follower,
    view: View,
    /// Height below the first block, and blocks until one is final.
    start: (u32, u32),
}

/// What the reading has gone over.
pub(super) enum Moved {
    /// This block, which is the last one now.
    Up(Block),
    /// The block at this height is not in the chain any more.
    Down(Height),
    /// More left the chain than is remembered: the next block is the first one again.
    Over,
}

impl Reading {
    /// Stands before the first block.
    pub(super) fn open(
        backend: Arc<dyn BitcoinBackend>,
        contract: Contract,
        (start_height, finality): (u32, u32),
    ) -> Result<Self, BackendError> {
        let start = (start_height.saturating_sub(1), finality);
        let follower = Follower::at(backend.as_ref(), start.0)?;
        // Nobody's wallet.
        let view = fresh(ScriptBuf::new_op_return(b"assay l1 watch"), start);
        Ok(Self { backend, contract, follower, view, start })
    }

    /// What was seen.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// A view of a wallet that has seen nothing.
    pub(super) fn wallet(&self, script: ScriptBuf) -> View {
        fresh(script, self.start)
    }

    pub(super) fn backend(&self) -> &dyn BitcoinBackend {
        self.backend.as_ref()
    }

    /// Height of the last block; below the first one if there is none.
    pub(super) fn height(&self) -> u32 {
        self.follower.height()
    }

    /// True if the last block is still in the chain.
    pub(super) fn is_on_chain(&self) -> Result<bool, BackendError> {
        match self.backend.block_hash(self.height()) {
            Ok(hash) => Ok(Some(hash) == self.follower.hash()),
            Err(BackendError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Goes over the next block, `None` at the tip.
    pub(super) fn next(&mut self) -> Result<Option<Moved>, ServiceError> {
        match self.follower.next(self.backend.as_ref()) {
            Ok(None) => Ok(None),
            Ok(Some(Change::Disconnected)) => Ok(self.back().map(Moved::Down)),
            Ok(Some(Change::Connected { hash, block, .. })) => {
                self.follower.push(hash);
                let txs = block.txdata.into_iter().map(Arc::new).collect();
                let block = Block { height: Height(self.height()), txs };
                self.view.connect(&self.contract, &block);
                Ok(Some(Moved::Up(block)))
            }
            // Deeper than is remembered: from the start.
            Err(ServiceError::Reorganised { .. }) => {
                self.follower = Follower::at(self.backend.as_ref(), self.start.0)?;
                self.view = self.wallet(self.view.wallet().clone());
                Ok(Some(Moved::Over))
            }
            Err(error) => Err(error),
        }
    }

    /// Goes back over the last block; its height. `None` at the lowest that is remembered.
    pub(super) fn back(&mut self) -> Option<Height> {
        if self.follower.depth() == 0 {
            return None;
        }
        let height = Height(self.height());
        self.follower.pop();
        self.view.disconnect(height);
        Some(height)
    }
}

fn fresh(script: ScriptBuf, (below, finality): (u32, u32)) -> View {
    View::new(script, finality, Height(below))
}
