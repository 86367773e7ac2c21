//! Cutting a batch into runs, each provable by itself.

use alloy_primitives::B256;
use assay_lvm_core::{
    execute_block, execute_run, Ancestry, Block, Parent, RunInput, RunOutput, ANCESTORS_MAX,
};

use super::Batch;
use crate::{
    error::BatchError,
    record::{Start, Trim},
    state_db::RecordingStore,
};

/// How long a run may get. A single block may exceed the gas limit: it is a run of its own then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLimits {
    /// Most gas per run.
    pub gas_max: u64,
    /// Most blocks per run; zero counts as one.
    pub blocks_max: usize,
}

impl Default for RunLimits {
    /// 30 M gas and 64 blocks.
    fn default() -> Self {
        Self { gas_max: 30_000_000, blocks_max: 64 }
    }
}

/// A run: the input of one `block` proof, and what it will state.
#[derive(Debug, Clone)]
pub struct Run {
    /// Encoded [`RunInput`].
    pub input: Vec<u8>,
    /// What [`execute_run`] made of it.
    pub output: RunOutput,
}

impl Batch {
    /// How many runs [`Batch::split_runs`] makes; executes nothing.
    ///
    /// # Errors
    /// [`BatchError`] if the blocks do not follow one another.
    pub fn count_runs(&self, limits: RunLimits) -> Result<usize, BatchError> {
        let blocks = self.check_links()?;
        let (mut at, mut runs) = (0, 0);
        while at < blocks.len() {
            at += run_len(&blocks[at..], limits);
            runs += 1;
        }
        Ok(runs)
    }

    /// Cuts the batch into runs, each with a witness of its own, and executes each as the guest will.
    ///
    /// # Errors
    /// [`BatchError`] if the batch does not execute.
    pub fn split_runs(&self, limits: RunLimits) -> Result<Vec<Run>, BatchError> {
        let blocks = self.check_links()?;
        let mut state = self.full_state();
        let mut start = Start::of(&self.ancestry.as_ref())?;
        let mut headers = match self.ancestry.as_ref() {
            Ancestry::Headers(raws) => raws.into_iter().map(<[u8]>::to_vec).collect(),
            Ancestry::Assumed { .. } => Vec::new(),
        };
        let mut acc = B256::ZERO;
        let mut runs = Vec::new();
        let mut at = 0;
        while at < blocks.len() {
            let end = at + run_len(&blocks[at..], limits);
            let segment = Segment { batch: self, range: at..end, blocks: &blocks[at..end], acc };
            let store = RecordingStore::new(&state);
            let (input, next, made) = segment.cut(&start, &headers, store)?;
            state.absorb(made);
            let output = execute_run(&RunInput::decode(&input)?, &mut ())?;
            acc = output.public_values.to_batch_acc;
            runs.push(Run { input, output });
            for block in &blocks[at..end] {
                headers.insert(0, alloy_rlp::encode(&block.header));
            }
            headers.truncate(ANCESTORS_MAX as usize);
            start = next;
            at = end;
        }
        Ok(runs)
    }
}

/// The blocks of one run.
struct Segment<'b> {
    batch: &'b Batch,
    range: std::ops::Range<usize>,
    blocks: &'b [Block<'b>],
    acc: B256,
}

impl Segment<'_> {
    /// Executes the segment and encodes it with what it touched; also yields where the next one starts.
    fn cut(
        &self,
        start: &Start,
        headers: &[Vec<u8>],
        mut store: RecordingStore<'_>,
    ) -> Result<(Vec<u8>, Start, crate::state_db::Made), BatchError> {
        let spec = &self.batch.spec;
        let mut db = start.open(&mut store);
        let mut next = start.clone();
        for block in self.blocks {
            let outcome = execute_block(spec, &mut db, &next.parent, block, &mut ())?;
            next.parent =
                Parent { number: block.header.number, hash: block.hash, header: Some(block.header.clone()) };
            next.state_root = outcome.state_root;
            next.hashes.insert(0, block.hash);
        }
        next.hashes.truncate(ANCESTORS_MAX as usize + 1);
        // The batch's own ancestry may be of assumed hashes; from its first block on there are headers.
        let known = if self.range.start == 0 {
            self.batch.ancestry.as_ref()
        } else {
            Ancestry::Headers(headers.iter().map(Vec::as_slice).collect())
        };
        let ancestry = known.trimmed(db.oldest_block_hash_read())?;
        let (touched, made) = store.finish();
        let input = RunInput {
            spec: spec.clone(),
            ancestry: ancestry.as_ref(),
            from_batch_acc: self.acc,
            blocks: self.batch.blocks[self.range.clone()].iter().map(Vec::as_slice).collect(),
            nodes: touched.nodes.into_values().collect(),
            codes: touched.codes.into_values().collect(),
        };
        Ok((input.encode(), next, made))
    }
}

/// How many of `blocks` go into the next run: at least one.
fn run_len(blocks: &[Block<'_>], limits: RunLimits) -> usize {
    let mut gas: u64 = 0;
    let fits = |block: &&Block<'_>| {
        gas = gas.saturating_add(block.header.gas_used);
        gas <= limits.gas_max
    };
    blocks.iter().take(limits.blocks_max).take_while(fits).count().max(1)
}
