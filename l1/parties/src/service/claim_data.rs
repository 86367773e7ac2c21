//! A claim's data and proof, looked for in blocks, newest first: content decides, not who published it.

use std::collections::{BTreeMap, BTreeSet};

use assay_l1::envelope::message::Message;
use assay_l1::envelope::scan::{scan, Assembler};
use assay_l1::envelope::{Tag, MESSAGE_BYTES_MAX};
use assay_l1::{BackendError, BitcoinBackend};
use bitcoin::Block;

use super::judge::{Execution, Judge};
use crate::contract::Contract;
use crate::event::Fault;
use crate::types::{ClaimId, Values, BATCH_HASH, NEW_ROOT};

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

impl Found {
    /// What is wrong with a claim in the block at height `made`, of which this was found; `None` while it cannot be executed.
    pub(super) fn faults(&self, (values, made): (&Values, u32), judge: &mut dyn Judge) -> Option<Vec<Fault>> {
        let mut faults = Vec::new();
        match &self.data {
            None => faults.push(if self.is_forged { Fault::BatchHash } else { Fault::DataMissing }),
            Some(data) => match judge.execute(values, data, made) {
                // Without a proof it is wrong whatever the batch does.
                Ok(Execution::NotYet) if !self.is_proved => {}
                Ok(Execution::NotYet) => return None,
                Ok(Execution::Done { new_root, has_messages }) => {
                    faults.extend((new_root != values[NEW_ROOT]).then_some(Fault::NewRoot));
                    faults.extend((!has_messages).then_some(Fault::ForcedDropped));
                }
                Err(detail) => {
                    tracing::error!("the batch cannot be executed: {detail}");
                    faults.push(Fault::NewRoot);
                }
            },
        }
        faults.extend((!self.is_proved).then_some(Fault::Proof));
        Some(faults)
    }
}

/// A claim whose data and proof are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sought<'a> {
    pub(super) values: &'a Values,
    /// Hash of the verifying key of its epoch.
    pub(super) verifier: [u8; 32],
}

impl<'a> Sought<'a> {
    /// `None` if the contract has no such epoch.
    pub(super) fn new(contract: &Contract, claim: ClaimId, values: &'a Values) -> Option<Self> {
        let verifier = contract.epoch(claim.epoch)?.spec().terms.params.verifier_commitment;
        Some(Self { values, verifier })
    }
}

/// Which blocks of the active chain hold envelopes of a tag, as far as they were read: the others need not be read again.
#[derive(Debug)]
pub(super) struct Index {
    tag: Tag,
    heights: BTreeMap<u32, bool>,
}

impl Index {
    pub(super) fn new(tag: Tag) -> Self {
        Self { tag, heights: BTreeMap::new() }
    }

    /// A block is in the active chain.
    pub(super) fn connected(&mut self, height: u32, block: &Block) {
        self.heights.insert(height, !scan(block, &self.tag).is_empty());
    }

    /// The block at this height, and those above, are not in the active chain any more.
    pub(super) fn disconnected(&mut self, height: u32) {
        self.heights.split_off(&height);
    }

    /// False if every block from `top` down to `bottom` was read and holds no envelope.
    pub(super) fn may_hold(&self, (top, bottom): (u32, u32)) -> bool {
        (bottom..=top).any(|height| self.heights.get(&height) != Some(&false))
    }

    /// Looks from block `top` down to `bottom`, and stops once both are found. Every proof is verified: each was paid for on Bitcoin,
    /// and a limit would let strangers' rubbish hide the right one.
    pub(super) fn find(
        &mut self,
        backend: &dyn BitcoinBackend,
        (top, bottom): (u32, u32),
        sought: Sought<'_>,
        judge: &mut dyn Judge,
    ) -> Result<Found, BackendError> {
        let mut look = Look { sought, judge, found: Found::default(), wrong: BTreeSet::new() };
        let mut assembler = Assembler::new(2 * MESSAGE_BYTES_MAX);
        for height in (bottom..=top).rev() {
            if self.heights.get(&height) == Some(&false) {
                continue;
            }
            let block = backend.block(&backend.block_hash(height)?)?;
            self.connected(height, &block);
            for (author, envelope) in
                scan(&block, &self.tag).into_iter().filter_map(|found| found.envelope.ok())
            {
                for (_, message) in assembler.take(author, envelope) {
                    // What is no message is nobody's claim.
                    let Ok(message) = message else { continue };
                    look.at(message);
                }
            }
            if look.found.data.is_some() && look.found.is_proved {
                break;
            }
        }
        Ok(look.found)
    }
}

struct Look<'a> {
    sought: Sought<'a>,
    judge: &'a mut dyn Judge,
    found: Found,
    /// Proofs that do not verify.
    wrong: BTreeSet<[u8; 32]>,
}

impl Look<'_> {
    fn at(&mut self, message: Message) {
        match message {
            Message::Batch { batch_hash, data, .. }
                if batch_hash == self.sought.values[BATCH_HASH] && self.found.data.is_none() =>
            {
                match self.judge.batch_hash(&data) {
                    Ok(hash) if hash == batch_hash => self.found.data = Some(data),
                    _ => self.found.is_forged = true,
                }
            }
            Message::ClaimData { values: said, proof, .. }
                if said.fields().into_iter().eq(self.sought.values)
                    && !self.found.is_proved
                    && !self.wrong.contains(blake3::hash(&proof).as_bytes()) =>
            {
                self.found.is_proved = self.judge.verify(&self.sought.verifier, self.sought.values, &proof);
                if !self.found.is_proved {
                    self.wrong.insert(blake3::hash(&proof).into());
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use assay_l1::envelope::message::ClaimValues;

    use super::*;

    /// Proofs are words.
    struct Words;

    impl Judge for Words {
        fn batch_hash(&mut self, data: &[u8]) -> Result<[u8; 32], String> {
            Ok(blake3::hash(data).into())
        }

        fn execute(&mut self, _: &Values, _: &[u8], _: u32) -> Result<Execution, String> {
            Ok(Execution::NotYet)
        }

        fn verify(&mut self, verifier: &[u8; 32], _: &Values, proof: &[u8]) -> bool {
            *verifier == [9; 32] && proof == b"right"
        }
    }

    #[test]
    fn no_number_of_wrong_proofs_hides_the_right_one() {
        let values = [[1; 32]; 5];
        let sought = Sought { values: &values, verifier: [9; 32] };
        let mut look = Look { sought, judge: &mut Words, found: Found::default(), wrong: BTreeSet::new() };
        let mut publish = |values: [[u8; 32]; 5], proof: Vec<u8>| {
            let [prev_commitment, new_commitment, batch_hash, code_root, digest] = values;
            let values = ClaimValues { prev_commitment, new_commitment, batch_hash, code_root, digest };
            look.at(Message::ClaimData { epoch: 0, claim: 0, values, proof });
            look.found.is_proved
        };
        for number in 0..200u32 {
            assert!(!publish(values, format!("wrong {number}").into_bytes()));
        }
        assert!(!publish([[2; 32]; 5], b"right".to_vec()), "of other values");
        assert!(publish(values, b"right".to_vec()));
        assert!(publish(values, b"wrong".to_vec()), "what is proved stays proved");
    }
}
