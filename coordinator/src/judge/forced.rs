//! Whether a batch holds the forced transactions that were due.
//!
//! The rule. A forced transaction in block h is due for claims in the blocks h + grace to h + grace + window: before,
//! the batch may have been made without knowing of it; after, whoever still wants it sends it again. Of those that are
//! due, in the order of the chain, count those that can execute together at the head of the batch's first block, at
//! most [`TAKEN_MAX`] of them: a batch without one of these is wrong. So one that was executed before (its nonce is
//! used), cannot be paid for, or is malformed does not count, and nobody is accused of leaving out what could not be
//! taken in.
//!
//! Deposits do not count yet: the rollup has no bridge that could mint, so there is no peg-in script.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use assay_l1::envelope::Tag;
use assay_l1::{BackendError, BitcoinBackend};
use assay_l1_light::message::{scan, Action, Position, Rules};
use assay_l1_light::proof::WholeBlock;
use assay_lvm::batch::blocks_of;
use assay_lvm::core::{Block, BlockAttributes, Transaction};
use assay_lvm::head::Head;
use assay_lvm::Chain;
use bitcoin::consensus::encode::serialize;
use bitcoin::BlockHash;

/// Messages that one batch has to take, at most.
const TAKEN_MAX: usize = 64;
/// Bytes of messages in the window beyond which later ones are not looked at: whoever fills it has paid for it.
const WINDOW_BYTES_MAX: usize = 64 << 20;

/// When forced transactions are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForcedRules {
    /// Blocks that a batch has to take one in.
    pub grace_blocks: u32,
    /// Blocks for which it stays due.
    pub window_blocks: u32,
}

/// What a batch is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is missing.
    Complete,
    /// This one is.
    LeftOut(Position),
}

/// A well-formed transaction in its own encoding.
struct Forced {
    position: Position,
    raw: Vec<u8>,
    transaction: Transaction,
}

/// Reads forced transactions from the node, and remembers those in the window.
pub(super) struct ForcedQueue {
    backend: Arc<dyn BitcoinBackend>,
    rules: Rules,
    due: ForcedRules,
    blocks: BTreeMap<u32, (BlockHash, Vec<Forced>)>,
}

impl ForcedQueue {
    /// For the trunk with this tag.
    pub(super) fn new(backend: Arc<dyn BitcoinBackend>, tag: Tag, due: ForcedRules) -> Self {
        Self { backend, rules: Rules { tag, peg_in: None }, due, blocks: BTreeMap::new() }
    }

    /// Judges a batch that is to execute on `chain`, in a claim in the block at `height`. Data that is no batch lacks
    /// nothing: executing it says what is wrong.
    pub(super) fn judge(&mut self, chain: &Chain, data: &[u8], height: u32) -> Result<Verdict, BackendError> {
        let Some(last) = height.checked_sub(self.due.grace_blocks) else { return Ok(Verdict::Complete) };
        self.read(last.saturating_sub(self.due.window_blocks), last)?;
        Ok(left_out(chain, data, self.blocks.values().flat_map(|(_, found)| found)))
    }

    /// Has the messages of exactly these blocks, as the active chain has them.
    fn read(&mut self, first: u32, last: u32) -> Result<(), BackendError> {
        self.blocks.retain(|height, _| (first..=last).contains(height));
        let mut bytes = 0;
        for height in first..=last {
            if bytes > WINDOW_BYTES_MAX {
                tracing::warn!(height, "too many forced transactions: those from here on are not looked at");
                drop(self.blocks.split_off(&height));
                break;
            }
            let hash = self.backend.block_hash(height)?;
            if self.blocks.get(&height).is_none_or(|(known, _)| *known != hash) {
                let found = self.scan(height, &hash)?;
                self.blocks.insert(height, (hash, found));
            }
            let found = self.blocks.get(&height).map(|(_, found)| found);
            bytes += found.into_iter().flatten().map(|forced| forced.raw.len()).sum::<usize>();
        }
        Ok(())
    }

    fn scan(&self, height: u32, hash: &BlockHash) -> Result<Vec<Forced>, BackendError> {
        let bytes = serialize(&self.backend.block(hash)?);
        // Consensus has taken the block, so it decodes; one that did not could not be anybody's fault here.
        let Ok(block) = WholeBlock::decode(&bytes) else {
            tracing::error!(height, "a block of the node does not decode");
            return Ok(Vec::new());
        };
        let found = scan(&block, height, &self.rules);
        Ok(found.into_iter().filter_map(|found| forced(found.position, found.action.ok()?)).collect())
    }
}

/// A message that is a transaction in the one encoding that a block could hold it in.
fn forced(position: Position, action: Action) -> Option<Forced> {
    let Action::Execute(raw) = action else { return None };
    let transaction = Transaction::decode_2718_exact(&raw).ok()?;
    (transaction.encoded_2718() == raw).then_some(Forced { position, raw, transaction })
}

/// Looks for each transaction that could be at the head of the batch's first block.
fn left_out<'a>(chain: &Chain, data: &[u8], due: impl Iterator<Item = &'a Forced>) -> Verdict {
    let mut due = due.peekable();
    // Most of the time nothing is, and a head costs a copy of the state.
    if due.peek().is_none() {
        return Verdict::Complete;
    }
    let raws = blocks_of(data).unwrap_or_default();
    let blocks: Result<Vec<_>, _> = raws.iter().map(|raw| Block::decode(raw)).collect();
    let Ok(blocks) = blocks else { return Verdict::Complete };
    let Some(first) = blocks.first() else { return Verdict::Complete };
    // Executing would take as much gas as this header says, and the batch is invalid anyway if it says too much.
    if chain.header(chain.tip()).is_none_or(|parent| !may_follow(parent.gas_limit, first.header.gas_limit)) {
        return Verdict::Complete;
    }
    let Ok(mut head) = Head::new(chain, attributes(first)) else { return Verdict::Complete };
    for forced in due {
        if head.taken().len() == TAKEN_MAX {
            break;
        }
        let is_there = || blocks.iter().any(|block| block.transactions_raw.contains(&forced.raw.as_slice()));
        if head.take(&forced.transaction) && !is_there() {
            return Verdict::LeftOut(forced.position);
        }
    }
    tracing::debug!(
        taken = head.taken().len(),
        executed = head.executed(),
        "forced transactions are all there"
    );
    Verdict::Complete
}

/// Whether a block may have this gas limit after one with that: wider by one than what executing allows.
fn may_follow(parent: u64, limit: u64) -> bool {
    limit.abs_diff(parent) <= parent / 1024
}

/// What the maker of the block chose.
fn attributes(block: &Block<'_>) -> BlockAttributes {
    let header = &block.header;
    BlockAttributes {
        timestamp: header.timestamp,
        beneficiary: header.beneficiary,
        gas_limit: header.gas_limit,
        prev_randao: header.mix_hash,
        parent_beacon_block_root: header.parent_beacon_block_root.unwrap_or_default(),
        extra_data: header.extra_data.clone(),
        withdrawals: block.withdrawals.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_executed_under_a_gas_limit_that_the_block_may_not_have() {
        assert!(may_follow(30_000_000, 30_000_000 + 29_295) && may_follow(30_000_000, 30_000_000 - 29_295));
        assert!(!may_follow(30_000_000, 10_000_000_000) && !may_follow(30_000_000, 21_000));
    }
}
