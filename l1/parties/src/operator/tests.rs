//! What an operator that begins anew does about what it has done before.

use super::*;
use crate::contract::Contract;
use crate::event::Block;
use crate::party::Keys;
use crate::sim::fixture::{honest, OPERATOR};
use crate::sim::Fixture;

fn publishes(effects: &[Effect], batch: u32) -> bool {
    effects.contains(&Effect::Publish(honest(batch)[PREV_ROOT]))
}

#[test]
fn the_data_of_a_claim_that_is_in_a_block_is_not_paid_for_again() {
    let fixture = Fixture::shared();
    let (contract, keys): (Contract, Keys) = (fixture.contract(), Fixture::keys(OPERATOR));
    let epoch = contract.epoch(EpochIndex(0)).unwrap();
    let opening = epoch.opening(&keys.operator, None).unwrap();
    let items = fixture.claim_items(OPERATOR, epoch.spec().terms.epoch, 0, &honest(0)).as_ref().clone();
    let fill = Fill { leaf: leaf::CLAIM, items };
    let claim = epoch.complete_as_operator(TxRole::Claim(0), fill, &keys.operator).unwrap();
    // Its state was removed: it reads the chain from the start.
    let mut machine = Operator::new(Fixture::wallet(OPERATOR), 4, Height(100), FeePolicy::REGTEST);
    let mut step = |event| machine.step(Context { contract: &contract, keys: &keys }, &event).unwrap();
    let block = |height, txs: Vec<bitcoin::Transaction>| {
        let txs = txs.into_iter().map(Arc::new).collect();
        Event::Connected(Block { height: Height(height), txs })
    };
    step(block(101, vec![fixture.funding().clone(), opening]));
    step(block(102, vec![claim]));
    assert!(!publishes(&step(Event::BatchProved(honest(0))), 0), "it was there before its claim");
    assert!(publishes(&step(Event::BatchProved(honest(1))), 1));
    // A reorganisation takes the claim, and may have taken the data.
    step(Event::Disconnected(Height(102)));
    assert!(publishes(&step(block(102, Vec::new())), 0));
}
