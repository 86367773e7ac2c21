//! Challenges, right and wrong ones, and what comes of them.

use assay_l1::graph::contract::build::TxRole;
use assay_l1_parties::service::batches::ProvedBatch;
use assay_l1_parties::service::watch::Stage;
use assay_l1_parties::{Alarm, EpochIndex, Fault};
use bitcoin::Amount;

use crate::contract::TO_SINK;
use crate::rollup::honest;
use crate::scene::{faulty, said, Scene, ALL};

/// Blocks from a claim until who does not answer its challenge can be slashed.
const ANSWER_BLOCKS: u32 = 10 + 8;

/// A claim without a proof, and its challenge in a block. Its operator's service was killed before it could see that.
fn challenged() -> (Scene, Amount) {
    let mut scene = Scene::new();
    let bad = ProvedBatch { proof: b"no proof".to_vec(), ..honest(0) };
    scene.setup.files.batches().put(&bad).unwrap();
    scene.start(&ALL);
    let before = scene.money(&["v1", "v2"]);
    scene.until(20, "a challenge", |scene| scene.pending().contains(&TxRole::Challenge(0)));
    scene.kill("operator");
    scene.until_mined(3, TxRole::Challenge(0));
    scene.assert_alarmed(&faulty(0, Fault::Proof));
    (scene, before)
}

fn assert_slashed(scene: &Scene, before: Amount) {
    assert_eq!(scene.shown.stages(0).last(), Some(&Stage::Slashed));
    assert_eq!(scene.in_sink(), TO_SINK);
    let reward = scene.money(&["v1", "v2"]).checked_sub(before);
    assert!(reward.is_some_and(|reward| reward.to_sat() > 400_000), "{reward:?}");
    scene.assert_alarmed(&said(Alarm::Slashed(EpochIndex(0))));
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn an_operator_that_does_not_answer_is_slashed_though_each_vigilante_dies_in_between() {
    let (mut scene, before) = challenged();
    let made = scene.mined(TxRole::Claim(0)).unwrap().0;
    for name in ["v1", "v2"] {
        scene.kill(name);
        scene.step();
        scene.start(&[name]);
    }
    let slashed = scene.until_mined(ANSWER_BLOCKS, TxRole::AssertTimeout(0));
    assert_eq!(slashed, made + ANSWER_BLOCKS, "in the first block that may hold it");
    assert_slashed(&scene, before);
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn an_answer_that_comes_late_meets_the_slash_in_the_mempool_and_then_a_spent_output() {
    let (mut scene, before) = challenged();
    let timeout = TxRole::AssertTimeout(0);
    scene.until(ANSWER_BLOCKS, "the slash", |scene| scene.pending().contains(&timeout));
    let (answer, _) = scene.setup.answer(0);
    // Enough for the mempool, but not to replace what is there.
    let reason = scene.offer_for(answer.clone(), Amount::from_sat(60)).unwrap_err();
    assert!(reason.contains("RBF failed"), "{reason}");
    scene.step();
    assert!(scene.mined(timeout).is_some());
    let reason = scene.offer(answer.clone()).unwrap_err();
    assert!(reason.contains("missingorspent"), "{reason}");
    let reason = scene.refused_by_consensus(&answer);
    assert!(reason.contains("missingorspent"), "{reason}");
    // Back from the dead, its service does not get anywhere either.
    scene.start(&["operator"]);
    (0..3).for_each(|_| scene.step());
    assert_eq!(scene.mined(TxRole::Assert(0)), None);
    assert_slashed(&scene, before);
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn half_an_answer_is_slashed_for_the_other_half() {
    let (mut scene, before) = challenged();
    let (opening, slots) = scene.setup.answer(0);
    scene.insist(TxRole::Assert(0), &opening);
    scene.insist(TxRole::AssertSlot(0, 0), &slots[0]);
    scene.until_mined(10, TxRole::SlotTimeout(0, 1));
    assert_eq!(scene.mined(TxRole::SlotTimeout(0, 0)), None);
    assert_slashed(&scene, before);
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn an_operator_killed_while_it_answers_a_wrong_challenge_keeps_its_collateral_and_gets_the_deposit() {
    let mut scene = Scene::new();
    scene.setup.files.batches().put(&honest(0)).unwrap();
    scene.setup.files.batches().put(&honest(1)).unwrap();
    scene.start(&ALL);
    let before = scene.money(&["operator"]);
    scene.until_mined(20, TxRole::Claim(0));
    let coin = scene.spare();
    let challenge = scene.setup.challenge(&[0], coin, Amount::from_sat(5_000));
    scene.backend().broadcast(&challenge).unwrap();
    // Killed as soon as the first part of its answer has left it, and as soon as the first slot has.
    for part in [TxRole::Assert(0), TxRole::AssertSlot(0, 0)] {
        scene.mine_unseen();
        scene.launch("operator");
        scene.wait_for(&format!("{part} is sent"), |scene| scene.is_pending(part));
        scene.kill("operator");
    }
    scene.mine_unseen();
    scene.start(&["operator"]);
    assert!(scene.mined(TxRole::Challenge(0)).is_some() && scene.mined(TxRole::AssertSlot(0, 0)).is_some());
    for role in [TxRole::Acceptance(0), TxRole::OptimisticAcceptance(1), TxRole::PayOut] {
        scene.until_mined(75, role);
    }
    scene.assert_quiet();
    let after = scene.money(&["operator"]);
    let deposit = Amount::from_sat(20_000);
    let spent = (before + deposit).checked_sub(after);
    assert!(spent.is_some_and(|spent| spent.to_sat() < 40_000), "{spent:?}");
}
