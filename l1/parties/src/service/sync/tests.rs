//! What goes on with a trunk.

use super::*;
use crate::sim::Fixture;

/// The contract of the first epochs only.
fn first(count: usize) -> Contract {
    let mut contract = Contract::new();
    for epoch in Fixture::shared().epochs().into_iter().take(count) {
        contract.push(epoch);
    }
    contract
}

#[test]
fn a_claims_proof_is_one_under_its_own_epochs_key() {
    let (contract, values) = (first(2), [[1; 32]; 5]);
    let verifier = |epoch| {
        let claim = ClaimId { epoch: EpochIndex(epoch), claim: 0 };
        Sought::new(&contract, claim, &values).map(|sought| sought.verifier)
    };
    let named =
        |epoch| contract.epoch(EpochIndex(epoch)).map(|epoch| epoch.spec().terms.params.verifier_commitment);
    assert_ne!(named(0), named(1));
    assert_eq!([0, 1, 2].map(verifier), [0, 1, 2].map(named));
}

#[test]
fn an_epoch_whose_files_are_not_there_is_noticed_by_what_it_spends() {
    let fixture = Fixture::shared();
    let [next, stopped] = [1, 2].map(|end| ClaimId { epoch: EpochIndex(0), claim: end });
    let openings = [
        Arc::clone(&fixture.epochs()[1]),
        fixture.handover(next, next).unwrap(),
        fixture.handover(stopped, next).unwrap(),
    ];
    let contract = first(1);
    for epoch in openings {
        let opening = &epoch.graph().node(TxRole::Reconfiguration).unwrap().tx;
        assert!(is_stranger(&contract, &ends(&contract), opening));
        let mut known = first(1);
        known.push(epoch.clone());
        assert!(!is_stranger(&known, &ends(&known), opening));
    }
    // Of the contract itself nothing is strange.
    for node in contract.epoch(EpochIndex(0)).unwrap().graph().nodes().values() {
        assert!(!is_stranger(&contract, &ends(&contract), &node.tx));
    }
}
