//! Proved batches that wait for their claims: which claims they will be, and how long that takes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use assay_l1::graph::terms::EpochTerms;
use bitcoin::secp256k1::XOnlyPublicKey;
use clap::Args;

use super::offers::Offers;
use crate::contract::{Contract, Origin};
use crate::types::{ClaimId, Height, NEW_ROOT, PREV_ROOT};
use crate::view::View;

/// Whence an operator gets its batches.
#[derive(Debug, Clone, Args)]
pub struct QueueArgs {
    /// Directory into which proved batches are put
    #[arg(long, value_name = "DIR")]
    pub batches: PathBuf,
    /// Warn when the last of the batches that wait will be claimed in more blocks than these: watchers then take a forced
    /// transaction that came meanwhile for left out. No more than their --forced-grace-blocks
    #[arg(long, default_value_t = 144, value_name = "BLOCKS")]
    pub queue_blocks: u32,
}

/// Whose batches they are: an operator's key, and what it was offered.
type Owner<'a> = (&'a XOnlyPublicKey, &'a Offers);

/// Says when more batches wait than can be claimed in time.
pub(super) struct QueueWatch {
    limit: u32,
    /// At which block, with how many batches, it was last looked at.
    seen: Option<(Height, usize)>,
    is_long: bool,
}

impl QueueWatch {
    /// For a queue that takes at most `limit` blocks.
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, seen: None, is_long: false }
    }

    /// Looks at the queue if it may have changed. True if it has become too long, which is then logged.
    pub(super) fn look(&mut self, contract: &Contract, view: &View, owner: Owner<'_>) -> bool {
        let now = Some((view.tip(), owner.1.len()));
        if std::mem::replace(&mut self.seen, now) == now {
            return false;
        }
        let (batches, blocks) = waiting(contract, view, owner);
        let was_long = std::mem::replace(&mut self.is_long, blocks > self.limit);
        let is_news = self.is_long && !was_long;
        if is_news {
            tracing::warn!(
                batches,
                blocks,
                limit = self.limit,
                "more batches wait than can be claimed in time: a forced transaction that comes now is in none of them, and watchers \
                 will take it for left out. Have fewer batches proved ahead, or longer ones"
            );
        }
        is_news
    }
}

/// Epochs and claims that batches will be of, by the state that each starts at, as far as they are known: if they become claims in
/// order.
pub(super) fn places(
    contract: &Contract,
    view: &View,
    (operator, offers): Owner<'_>,
) -> BTreeMap<[u8; 32], (u32, u32)> {
    let mut places = BTreeMap::new();
    let mut at = None;
    for (claim, terms) in own_claims(contract, operator) {
        let values = view.values(claim);
        let begins = match values {
            Some(values) => Some(values[PREV_ROOT]),
            None => at.or_else(|| start(contract, view, claim)),
        };
        let Some(begins) = begins else { return places };
        places.entry(begins).or_insert((terms.epoch, claim.claim));
        at = values
            .map(|values| values[NEW_ROOT])
            .or_else(|| offers.get(&begins).map(|known| known.values[NEW_ROOT]));
    }
    places
}

/// How many batches wait for their claims, and the blocks that pass until the last of them can be claimed, in epochs not signed yet,
/// too.
fn waiting(contract: &Contract, view: &View, (operator, offers): Owner<'_>) -> (usize, u32) {
    let next = own_claims(contract, operator).find(|(claim, _)| view.values(*claim).is_none());
    let Some((claim, terms)) = next else { return (0, 0) };
    let following = |at: &[u8; 32]| offers.get(at).map(|known| known.values[NEW_ROOT]);
    let first = start(contract, view, claim);
    // States of a loop would go on for ever: there are no more batches than offers.
    let chain = std::iter::successors(first, following).skip(1).take(offers.len());
    let batches = chain.count();
    (batches, u32::from(terms.locks.cadence_blocks).saturating_mul(batches as u32))
}

/// The claims of an operator's epochs, in order.
fn own_claims<'a>(
    contract: &'a Contract,
    operator: &'a XOnlyPublicKey,
) -> impl Iterator<Item = (ClaimId, &'a EpochTerms)> {
    let terms = contract.epochs().map(|(index, epoch)| (index, &epoch.spec().terms));
    terms
        .filter(move |(_, terms)| terms.operator_key == *operator)
        .flat_map(|(epoch, terms)| (0..terms.claims_max).map(move |claim| (ClaimId { epoch, claim }, terms)))
}

/// The state that a claim starts at, as far as the chain says.
fn start(contract: &Contract, view: &View, claim: ClaimId) -> Option<[u8; 32]> {
    match contract.origin(claim)? {
        Origin::State(state) => Some(state),
        Origin::Claim(before) => Some(view.values(before)?[NEW_ROOT]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::offers::Known;
    use super::*;
    use crate::sim::fixture::honest;
    use crate::sim::Fixture;

    fn offers(batches: std::ops::Range<u32>) -> Offers {
        let mut offers = Offers::default();
        batches.for_each(|batch| offers.add(Known { values: honest(batch), verifying_key: [0; 32] }));
        offers
    }

    #[test]
    fn the_queue_is_what_follows_the_last_claim_without_gap_beyond_the_known_epochs_too() {
        let fixture = Fixture::shared();
        let contract = fixture.contract();
        let view = View::new(Fixture::wallet(0), 3, Height(0));
        let (_, epoch) = contract.epochs().next().unwrap();
        let (operator, cadence) =
            (epoch.spec().terms.operator_key, u32::from(epoch.spec().terms.locks.cadence_blocks));
        let waiting = |offers: &Offers| waiting(&contract, &view, (&operator, offers));
        assert_eq!(waiting(&offers(0..0)), (0, 0));
        assert_eq!(waiting(&offers(1..4)), (0, 0), "the first is missing");
        assert_eq!(waiting(&offers(0..30)), (30, 30 * cadence));
        let mut looped = offers(0..2);
        let mut back = honest(1);
        back[NEW_ROOT] = honest(0)[PREV_ROOT];
        looped.add(Known { values: back, verifying_key: [0; 32] });
        assert_eq!(waiting(&looped).0, 2);
    }

    #[test]
    fn a_queue_that_has_become_too_long_is_told_of_once() {
        let contract = Fixture::shared().contract();
        let (_, epoch) = contract.epochs().next().unwrap();
        let terms = &epoch.spec().terms;
        let mut watch = QueueWatch::new(4 * u32::from(terms.locks.cadence_blocks));
        let mut look = |height, batches| {
            let view = View::new(Fixture::wallet(0), 3, Height(height));
            watch.look(&contract, &view, (&terms.operator_key, &offers(0..batches)))
        };
        assert!(!look(0, 4), "as long as it may be");
        assert!(look(0, 5));
        assert!(!look(0, 5) && !look(1, 5) && !look(1, 6), "once is enough");
        assert!(!look(2, 4));
        assert!(look(3, 5), "and again when it has been short");
    }
}
