//! The rollup of these tests: batches with their state as they are claimed, and its judge. A proof is right if it says so.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeSet;
use std::sync::Arc;

use assay_l1::envelope::message::{ClaimValues, Message};
use assay_l1::envelope::pack::unpack;
use assay_l1::envelope::{scan::scan, tag, Kind};
use assay_l1::graph::terms::claim_digest;
use assay_l1::{BackendError, BitcoinBackend};
use assay_l1_parties::service::batches::ProvedBatch;
use assay_l1_parties::service::{Execution, Judge};
use assay_l1_parties::{Values, BATCH_HASH, DIGEST, NEW_ROOT, PREV_ROOT};

pub(crate) const TRUNK: [u8; 32] = [7; 32];
pub(crate) const CODE: [u8; 32] = [2; 32];
pub(crate) const VERIFYING_KEY: [u8; 32] = [9; 32];
const PROOF: &[u8] = b"proof";
/// Blocks before a claim's in which a forced transaction may still be left out.
const GRACE_BLOCKS: u32 = 2;

/// The state after so many batches.
pub(crate) fn state(batches: u32) -> [u8; 32] {
    blake3::hash(&batches.to_le_bytes()).into()
}

/// The values with the digest that they have.
pub(crate) fn with_digest(mut values: Values) -> Values {
    values[DIGEST] = claim_digest(&values[..DIGEST]);
    values
}

/// A batch that is right where nobody forces anything.
pub(crate) fn honest(batch: u32) -> ProvedBatch {
    taking(batch, 0)
}

/// A batch after which the rollup has taken so many forced transactions in. Its data: the state that it leads to, its number, theirs.
pub(crate) fn taking(batch: u32, forced: u32) -> ProvedBatch {
    let data = [state(batch + 1).as_slice(), &batch.to_le_bytes(), &forced.to_le_bytes()].concat();
    let values = [state(batch), state(batch + 1), blake3::hash(&data).into(), CODE, [0; 32]];
    let values = with_digest(values);
    ProvedBatch { verifying_key: Some(VERIFYING_KEY), values, proof: PROOF.to_vec(), data }
}

/// A batch's data and proof as they are published.
pub(crate) fn messages(batch: &ProvedBatch) -> [Message; 2] {
    let [prev_commitment, new_commitment, batch_hash, code_root, digest] = batch.values;
    let values = ClaimValues { prev_commitment, new_commitment, batch_hash, code_root, digest };
    [
        Message::Batch { epoch: 0, claim: 0, batch_hash, data: batch.data.clone() },
        Message::ClaimData { epoch: 0, claim: 0, values, proof: batch.proof.clone() },
    ]
}

/// How often the data of each of these batches is on the chain.
pub(crate) fn publications<const N: usize>(node: &dyn BitcoinBackend, batches: [u32; N]) -> [usize; N] {
    let blocks = (1..=node.tip().unwrap().height).map(|height| node.block_hash(height).unwrap());
    let found = blocks.flat_map(|hash| scan(&node.block(&hash).unwrap(), &tag(&TRUNK)));
    let envelopes: Vec<_> = found.filter_map(|found| Some(found.envelope.ok()?.1)).collect();
    let messages = envelopes.iter().filter_map(|envelope| {
        unpack(envelope.kind, envelope.codec, envelope.plain_len, &envelope.stored).ok()
    });
    let hashes: Vec<_> = messages
        .filter_map(|message| match message {
            Message::Batch { batch_hash, .. } => Some(batch_hash),
            _ => None,
        })
        .collect();
    batches.map(|batch| hashes.iter().filter(|hash| **hash == honest(batch).values[BATCH_HASH]).count())
}

/// The rollup, as a vigilante sees it.
#[derive(Default)]
pub(crate) struct Rollup {
    /// Where forced transactions are looked for; nowhere if there is none.
    node: Option<Arc<dyn BitcoinBackend>>,
    /// States that it was led to; every state is known if there is none.
    known: Option<BTreeSet<[u8; 32]>>,
}

impl Rollup {
    pub(crate) fn on(node: Arc<dyn BitcoinBackend>) -> Self {
        Self { node: Some(node), known: None }
    }

    /// One that executes from the first state on only.
    pub(crate) fn from_start() -> Self {
        Self { node: None, known: Some(BTreeSet::from([state(0)])) }
    }

    /// Forced transactions in the blocks up to `height`.
    fn forced(&self, height: u32) -> Result<usize, BackendError> {
        let Some(node) = &self.node else { return Ok(0) };
        let mut count = 0;
        for height in 1..=height {
            let block = node.block(&node.block_hash(height)?)?;
            let envelopes = scan(&block, &tag(&TRUNK)).into_iter().filter_map(|found| found.envelope.ok());
            count += envelopes.filter(|(_, envelope)| envelope.kind == Kind::Forced).count();
        }
        Ok(count)
    }
}

impl Judge for Rollup {
    fn batch_hash(&mut self, data: &[u8]) -> Result<[u8; 32], String> {
        Ok(blake3::hash(data).into())
    }

    fn execute(&mut self, values: &Values, data: &[u8], height: u32) -> Result<Execution, String> {
        let new_root = *data.first_chunk().ok_or("too short")?;
        if let Some(known) = &mut self.known {
            if !known.contains(&values[PREV_ROOT]) {
                return Ok(Execution::NotYet);
            }
            known.extend((new_root == values[NEW_ROOT]).then_some(new_root));
        }
        let taken = u32::from_le_bytes(*data.last_chunk().ok_or("too short")?);
        Ok(match self.forced(height.saturating_sub(GRACE_BLOCKS)) {
            Ok(due) => Execution::Done { new_root, has_messages: taken as usize >= due },
            Err(_) => Execution::NotYet,
        })
    }

    fn verify(&mut self, verifier: &[u8; 32], _: &Values, proof: &[u8]) -> bool {
        *verifier == VERIFYING_KEY && proof == PROOF
    }
}
