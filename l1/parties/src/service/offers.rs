//! The proved batches that an operator's shell has read, and which of them its machine was told of.

use std::collections::{BTreeMap, BTreeSet};

use assay_l1::graph::contract::spec::ContractSpec;

use crate::event::Event;
use crate::operator::BATCHES_MAX;
use crate::types::{Values, CODE_ROOT, PREV_ROOT};

/// What is kept of a batch that was read.
pub(super) struct Known {
    pub(super) values: Values,
    /// BLAKE3 of the verifying key of its proof.
    pub(super) verifying_key: [u8; 32],
}

impl Known {
    /// True for the programs and the verifying key that the epoch's attesters have agreed to.
    pub(super) fn fits(&self, spec: &ContractSpec) -> bool {
        let params = &spec.terms.params;
        (self.values[CODE_ROOT], self.verifying_key) == (params.code_root, params.verifier_commitment)
    }

    pub(super) fn complaint(&self) -> String {
        format!(
            "batch {} was proved under the verifying key {} and the code root {}, which are not the epoch's",
            hex::encode(self.values[PREV_ROOT]),
            hex::encode(self.verifying_key),
            hex::encode(self.values[CODE_ROOT])
        )
    }
}

/// Batches by previous root.
#[derive(Default)]
pub(super) struct Offers {
    known: BTreeMap<[u8; 32], Known>,
    /// Those that the machine was told of.
    told: BTreeSet<[u8; 32]>,
    /// Of these, those for which it had no room.
    later: Vec<[u8; 32]>,
    /// Batches that wait for an epoch, of which that was said.
    waiting: BTreeSet<[u8; 32]>,
}

impl Offers {
    pub(super) fn add(&mut self, known: Known) {
        self.known.insert(known.values[PREV_ROOT], known);
    }

    pub(super) fn get(&self, root: &[u8; 32]) -> Option<&Known> {
        self.known.get(root)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// All is to be read and told again.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.told.clear();
        self.later.clear();
    }

    /// The machine has no room for this one.
    pub(super) fn put_off(&mut self, root: [u8; 32]) {
        self.later.push(root);
    }

    /// A block came, and may have made room: what was put off is told again.
    pub(super) fn block(&mut self) {
        for root in self.later.drain(..) {
            self.told.remove(&root);
        }
    }

    /// What there is to say of batches that are proved for one of these epochs; as many as there is room for, the others next time.
    /// Those of other programs wait for an epoch.
    pub(super) fn events(&mut self, specs: &[&ContractSpec]) -> Vec<Event> {
        let mut events = Vec::new();
        for (root, known) in &self.known {
            if events.len() == BATCHES_MAX {
                break;
            }
            if self.told.contains(root) {
                continue;
            }
            if specs.iter().any(|spec| known.fits(spec)) {
                self.told.insert(*root);
                events.push(Event::BatchProved(known.values));
            } else if !specs.is_empty() && self.waiting.insert(*root) {
                tracing::error!("{}; it waits for an epoch that has them", known.complaint());
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Fixture;

    fn roots(events: &[Event]) -> Vec<[u8; 32]> {
        let root = |event: &Event| match event {
            Event::BatchProved(values) => values[PREV_ROOT],
            other => panic!("{other:?}"),
        };
        events.iter().map(root).collect()
    }

    #[test]
    fn a_batch_without_room_is_offered_again_after_the_next_block_and_only_then() {
        let contract = Fixture::shared().contract();
        let spec = contract.epochs().next().unwrap().1.spec();
        let params = &spec.terms.params;
        let mut offers = Offers::default();
        let root = |number: usize| *blake3::hash(&number.to_le_bytes()).as_bytes();
        let count = BATCHES_MAX + 3;
        for number in 0..count {
            let mut values = Values::default();
            (values[PREV_ROOT], values[CODE_ROOT]) = (root(number), params.code_root);
            offers.add(Known { values, verifying_key: params.verifier_commitment });
        }
        // Not more at once than a pass takes, and nothing twice.
        let (first, second) = (roots(&offers.events(&[spec])), roots(&offers.events(&[spec])));
        assert_eq!((first.len(), second.len()), (BATCHES_MAX, 3));
        let all: BTreeSet<_> = first.into_iter().chain(second.clone()).collect();
        assert_eq!(all.len(), count);
        offers.block();
        assert!(offers.events(&[spec]).is_empty());

        second.iter().for_each(|root| offers.put_off(*root));
        assert!(offers.events(&[spec]).is_empty(), "nothing has made room");
        offers.block();
        assert_eq!(roots(&offers.events(&[spec])), second);
        offers.block();
        assert!(offers.events(&[spec]).is_empty());
    }
}
