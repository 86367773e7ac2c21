//! A claim's data and proof, looked for in blocks, newest first: content decides, not who published it.

use assay_l1::envelope::message::Message;
use assay_l1::envelope::scan::{scan, Assembler};
use assay_l1::envelope::{Tag, MESSAGE_BYTES_MAX};
use assay_l1::{BackendError, BitcoinBackend};

use super::judge::Judge;
use crate::types::{Values, BATCH_HASH};

/// Proofs of one claim that are verified, at most: anybody may publish more.
const PROOFS_MAX: u32 = 64;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Data with the claim's batch hash.
    pub(super) data: Option<Vec<u8>>,
    /// True if other data was published under that hash.
    pub(super) is_forged: bool,
    /// True if a proof verifies.
    pub(super) is_proved: bool,
}

/// Looks from block `top` down to `bottom`, and stops once both are found.
pub(super) fn find(
    backend: &dyn BitcoinBackend,
    (top, bottom): (u32, u32),
    tag: &Tag,
    values: &Values,
    judge: &mut dyn Judge,
) -> Result<Found, BackendError> {
    let mut found = Found::default();
    let mut assembler = Assembler::new(2 * MESSAGE_BYTES_MAX);
    let mut proofs_left = PROOFS_MAX;
    for height in (bottom..=top).rev() {
        let block = backend.block(&backend.block_hash(height)?)?;
        for (author, envelope) in scan(&block, tag).into_iter().filter_map(|found| found.envelope.ok()) {
            for (_, message) in assembler.take(author, envelope) {
                // What is no message is nobody's claim.
                let Ok(message) = message else { continue };
                look(message, values, judge, &mut found, &mut proofs_left);
            }
        }
        if found.data.is_some() && found.is_proved {
            break;
        }
    }
    Ok(found)
}

fn look(message: Message, values: &Values, judge: &mut dyn Judge, found: &mut Found, proofs_left: &mut u32) {
    match message {
        Message::Batch { batch_hash, data, .. }
            if batch_hash == values[BATCH_HASH] && found.data.is_none() =>
        {
            match judge.batch_hash(&data) {
                Ok(hash) if hash == batch_hash => found.data = Some(data),
                _ => found.is_forged = true,
            }
        }
        Message::ClaimData { values: said, proof, .. }
            if said.fields().into_iter().eq(values) && !found.is_proved && *proofs_left > 0 =>
        {
            *proofs_left -= 1;
            found.is_proved = judge.verify(values, &proof);
        }
        _ => {}
    }
}
