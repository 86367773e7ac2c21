//! What consensus, reorganisations and fees do to claims that are right, and to a second one in the place of a right one.

use assay_l1::graph::contract::build::TxRole;
use assay_l1_parties::service::watch::Stage;
use assay_l1_parties::{Alarm, EpochIndex, Fault, NEW_ROOT};
use bitcoin::{Amount, FeeRate, Transaction};

use crate::chain::{open_script, open_witness, Harness};
use crate::contract::{spare_script, spare_witness, Spare, TO_SINK};
use crate::node::Node;
use crate::publish::transaction;
use crate::rollup::{honest, with_digest};
use crate::scene::{faulty, said, Scene, ALL};

/// What an operator pays for two claims, their data and all that follows, at most. Its collateral is twenty times that.
const COST_MAX: Amount = Amount::from_sat(50_000);

/// Both claims accepted, the collateral back, nobody alarmed.
fn assert_honest_end(scene: &mut Scene, before: Amount, cost_max: Amount) {
    for role in [TxRole::OptimisticAcceptance(0), TxRole::OptimisticAcceptance(1), TxRole::PayOut] {
        scene.until_mined(80, role);
    }
    scene.assert_quiet();
    for claim in 0..2 {
        assert_eq!(scene.shown.stages(claim).last(), Some(&Stage::Accepted));
        assert_eq!(scene.mined(TxRole::Challenge(claim)), None);
    }
    let cost = before.checked_sub(scene.money(&["operator"]));
    assert!(cost.is_some_and(|cost| cost < cost_max), "{cost:?}");
}

/// An honest operator with two batches, watched by two vigilantes.
fn honest_scene(scene: &mut Scene) -> Amount {
    scene.setup.files.batches().put(&honest(0)).unwrap();
    scene.setup.files.batches().put(&honest(1)).unwrap();
    scene.start(&ALL);
    scene.money(&["operator"])
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn a_claim_before_its_cadence_is_refused_by_mempool_and_consensus_and_taken_in_time() {
    let mut scene = Scene::new();
    let before = honest_scene(&mut scene);
    let first = scene.until_mined(20, TxRole::Claim(0));
    // What its operator will say in time, too: the one-time keys sign nothing else.
    let early = scene.setup.claim(1, &honest(1).values);
    let reason = scene.offer(early.clone()).unwrap_err();
    assert!(reason.contains("non-BIP68-final"), "{reason}");
    let reason = scene.refused_by_consensus(&early);
    assert!(reason.contains("bad-txns-nonfinal"), "{reason}");
    let second = scene.until_mined(10, TxRole::Claim(1));
    assert!(second >= first + 2);
    assert_eq!(scene.mined(TxRole::Claim(1)).unwrap().1.compute_txid(), early.compute_txid());
    assert_honest_end(&mut scene, before, COST_MAX);
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn a_second_claim_in_the_place_of_one_is_refused_and_after_a_reorganisation_it_is_looked_into_anew() {
    let mut scene = Scene::new();
    let (right, mut wrong) = (honest(0), honest(0));
    wrong.values[NEW_ROOT] = [0x66; 32];
    wrong.values = with_digest(wrong.values);
    scene.publish(&right);
    scene.publish(&wrong);
    scene.start(&["v1", "v2"]);
    let before = scene.money(&["v1", "v2"]);
    scene.claim_first(&right);
    let second = scene.setup.claim(0, &wrong.values);
    // The id is the same: signatures are no part of it.
    assert_eq!(second.compute_txid(), scene.mined(TxRole::Claim(0)).unwrap().1.compute_txid());
    let reason = scene.refused_by_consensus(&second);
    assert!(reason.contains("missingorspent") || reason.contains("BIP30"), "{reason}");
    scene.step();
    scene.assert_quiet();
    assert!(scene.pending().is_empty(), "nobody challenges what is right");

    scene.node.reorganise(2);
    scene.settle();
    assert_eq!(scene.mined(TxRole::Claim(0)), None);
    scene.backend().miner().unwrap().mine_exactly(std::slice::from_ref(&second), &open_script()).unwrap();
    scene.settle();
    assert_eq!(scene.mined(TxRole::Claim(0)).unwrap().1, &second);
    scene.until_mined(3, TxRole::Challenge(0));
    scene.assert_alarmed(&faulty(0, Fault::NewRoot));
    // Nobody answers.
    scene.until_mined(18, TxRole::AssertTimeout(0));
    scene.assert_alarmed(&said(Alarm::Slashed(EpochIndex(0))));
    assert_eq!(scene.in_sink(), TO_SINK);
    assert!(scene.money(&["v1", "v2"]) > before);
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn claims_that_reorganisations_take_away_come_back_the_same() {
    let mut scene = Scene::new();
    let before = honest_scene(&mut scene);
    let mut lost = Vec::new();
    // Its own block; the one before it as well; both claims with their data.
    for (role, depth) in [(TxRole::Claim(0), 1), (TxRole::Claim(0), 2), (TxRole::Claim(1), 5)] {
        scene.until_mined(20, role);
        let claim = scene.mined(role).unwrap().1.clone();
        scene.node.reorganise(depth);
        scene.settle();
        assert_eq!(scene.mined(role), None, "{role} is gone");
        lost.push((role, claim));
    }
    for (role, claim) in lost {
        scene.until_mined(30, role);
        assert_eq!(scene.mined(role).unwrap().1, &claim, "the same bytes");
    }
    assert_honest_end(&mut scene, before, COST_MAX);
}

/// Coins for transactions of nearly 100,000 vB, which is what a node relays.
fn flood_coins(scene: &mut Scene, count: usize) -> Vec<Spare> {
    let backend = scene.backend();
    let coin = backend.utxos(&open_script()).unwrap().into_iter().find(|coin| coin.height == 2).unwrap();
    let value = coin.txout.value / (count as u64 + 1);
    let output = bitcoin::TxOut { value, script_pubkey: spare_script() };
    let mut tx = transaction(&[coin.outpoint], vec![output; count]);
    tx.input[0].witness = open_witness();
    backend.miner().unwrap().mine_exactly(std::slice::from_ref(&tx), &open_script()).unwrap();
    scene.settle();
    (0..count as u32).map(|vout| (bitcoin::OutPoint::new(tx.compute_txid(), vout), value)).collect()
}

/// Somebody's large transaction that pays this rate.
fn large(coin: Spare, rate: FeeRate) -> Transaction {
    let output = bitcoin::TxOut { value: Amount::from_sat(330), script_pubkey: spare_script() };
    let mut tx = transaction(&[coin.0], vec![output; 2_300]);
    tx.input[0].witness = spare_witness();
    let fee = rate.fee_vb(tx.vsize() as u64).unwrap();
    tx.output[0].value = coin.1 - fee - Amount::from_sat(330 * 2_299);
    tx
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn a_claim_that_a_fee_spike_throws_out_of_the_mempool_is_paid_for_again_and_mined_in_the_spike() {
    let mut scene = Scene::on(Node::start_with(&["-maxmempool=5"]));
    let mut coins = flood_coins(&mut scene, 140);
    let before = honest_scene(&mut scene);
    let claim = TxRole::Claim(0);
    scene.until(20, "the claim is sent", |scene| scene.is_pending(claim));
    // More than the mempool holds, and more than the next blocks: the cheapest are thrown out, the claim first.
    let spike = FeeRate::from_sat_per_vb(15).unwrap();
    let backend = scene.backend();
    while scene.is_pending(claim) || backend.fee_estimate(3).unwrap().floor < spike {
        let _full = backend.broadcast(&large(coins.pop().expect("the mempool is full before"), spike));
    }
    let opened = scene.mined(TxRole::Reconfiguration).unwrap().0;
    scene.until_mined(10, claim);
    let mined = scene.mined(claim).unwrap().0;
    assert!(mined < opened + 18, "before anybody can end the trunk");
    let rate = scene.rate_of(claim);
    assert!(rate >= spike, "{rate}");
    // Whatever comes after it.
    assert_honest_end(&mut scene, before, Amount::from_sat(600_000));
}
