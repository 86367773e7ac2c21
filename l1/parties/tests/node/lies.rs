//! Claims that are wrong, made by somebody with the operator's keys.

use assay_l1::envelope::message::Message;
use assay_l1::envelope::Kind;
use assay_l1::graph::contract::build::TxRole;
use assay_l1_parties::service::batches::ProvedBatch;
use assay_l1_parties::service::watch::Stage;
use assay_l1_parties::{Alarm, EpochIndex, Fault, Values, CODE_ROOT, DIGEST, NEW_ROOT};

use crate::contract::TO_SINK;
use crate::rollup::{honest, taking, with_digest};
use crate::scene::{claim, faulty, halted, said, Scene, ALL};

/// The first batch with other values.
fn lie(change: impl FnOnce(&mut Values)) -> ProvedBatch {
    let mut batch = honest(0);
    change(&mut batch.values);
    batch
}

/// The operator has lost its collateral: a part is the sink's, the rest is with the vigilantes, less the slash's fee.
fn assert_slashed(scene: &Scene, number: u32, watchers_before: bitcoin::Amount) {
    assert_eq!(scene.shown.stages(number).last(), Some(&Stage::Slashed));
    assert_eq!(scene.in_sink(), TO_SINK);
    let reward = scene.money(&["v1", "v2"]).checked_sub(watchers_before);
    assert!(reward.is_some_and(|reward| reward.to_sat() > 400_000), "{reward:?}");
    scene.assert_alarmed(&said(Alarm::Slashed(EpochIndex(0))));
    assert_eq!(scene.mined(TxRole::PayOut), None);
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn a_skipped_batch_costs_the_collateral_and_the_claim_before_it_counts() {
    let mut scene = Scene::new();
    scene.setup.files.batches().put(&honest(0)).unwrap();
    scene.start(&ALL);
    scene.until_mined(20, TxRole::Claim(0));
    let before = scene.money(&["v1", "v2"]);
    let skipping = scene.setup.claim(1, &honest(2).values);
    scene.insist(TxRole::Claim(1), &skipping);
    scene.until_mined(3, TxRole::DisproveInput(1));
    scene.until_mined(12, TxRole::OptimisticAcceptance(0));
    scene.assert_alarmed(&faulty(1, Fault::Link));
    assert_slashed(&scene, 1, before);
    assert_eq!(scene.shown.stages(0), [Stage::Unmade, Stage::Claimed, Stage::Accepted]);
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn a_wrong_public_input_costs_the_collateral() {
    let mut scene = Scene::new();
    let wrong = lie(|values| values[DIGEST][31] ^= 1);
    scene.publish(&wrong);
    scene.start(&["v1", "v2"]);
    let before = scene.money(&["v1", "v2"]);
    scene.claim_first(&wrong);
    scene.until_mined(3, TxRole::DisproveInput(0));
    scene.assert_alarmed(&faulty(0, Fault::Digest));
    assert_slashed(&scene, 0, before);
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn a_forged_root_is_challenged_and_raises_an_alarm_and_stands_until_there_is_a_verifier_on_the_chain() {
    let mut scene = Scene::new();
    let mut forged = lie(|values| values[NEW_ROOT] = [0x66; 32]);
    forged.values = with_digest(forged.values);
    scene.publish(&forged);
    scene.start(&["v1", "v2"]);
    scene.claim_first(&forged);
    scene.until_mined(3, TxRole::Challenge(0));
    scene.assert_alarmed(&faulty(0, Fault::NewRoot));
    // A false assertion, in which no leaf finds a wrong step.
    let (opening, slots) = scene.setup.answer(0);
    scene.insist(TxRole::Assert(0), &opening);
    for (slot, number) in slots.iter().zip(0..) {
        scene.insist(TxRole::AssertSlot(0, number), slot);
    }
    let accepted = scene.setup.acceptance(0);
    scene.insist(TxRole::Acceptance(0), &accepted);
    scene.assert_alarmed(&said(Alarm::Accepted(claim(0))));
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn a_proof_that_does_not_verify_is_challenged_and_raises_an_alarm_and_an_answer_to_it_stands() {
    let mut scene = Scene::new();
    let batches = scene.setup.files.batches();
    batches.put(&ProvedBatch { proof: b"no proof".to_vec(), ..honest(0) }).unwrap();
    batches.put(&honest(1)).unwrap();
    scene.start(&ALL);
    // The operator believes its prover, and its service answers. A good proof may come a few blocks late: that is waited for.
    scene.until_mined(20, TxRole::Claim(0));
    scene.until_mined(8, TxRole::Challenge(0));
    scene.assert_alarmed(&faulty(0, Fault::Proof));
    scene.until_mined(40, TxRole::Acceptance(0));
    scene.assert_alarmed(&said(Alarm::Accepted(claim(0))));
    scene.until_mined(20, TxRole::OptimisticAcceptance(1));
    assert_eq!(scene.mined(TxRole::Challenge(1)), None, "nobody challenges what is right");
    let stages = scene.shown.stages(0);
    assert_eq!(stages[..3], [Stage::Unmade, Stage::Claimed, Stage::Challenged]);
    assert_eq!(stages[stages.len() - 2..], [Stage::Asserted, Stage::Accepted], "{stages:?}");
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn another_code_root_is_refused_by_the_node_and_the_vigilantes_end_the_trunk() {
    let mut scene = Scene::new();
    let mut other = lie(|values| values[CODE_ROOT] = [0x77; 32]);
    other.values = with_digest(other.values);
    scene.publish(&other);
    scene.start(&["v1", "v2"]);
    let before = scene.money(&["v1", "v2"]);
    let opening = scene.setup.opening();
    scene.insist(TxRole::Reconfiguration, &opening);
    let refused = scene.setup.claim(0, &other.values);
    // The time lock is over: it is the script that fails.
    (0..3).for_each(|_| scene.step());
    let reason = scene.offer(refused.clone()).unwrap_err();
    assert!(reason.contains("script-verify-flag-failed"), "{reason}");
    let reason = scene.refused_by_consensus(&refused);
    assert!(reason.contains("script-verify-flag-failed"), "{reason}");
    scene.until_mined(20, TxRole::ClaimTimeout(0));
    scene.assert_alarmed(&halted());
    scene.assert_quiet();
    let cost = before.checked_sub(scene.money(&["v1", "v2"]));
    assert!(cost.is_some_and(|cost| cost.to_sat() < 5_000), "{cost:?}");
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn a_dropped_forced_transaction_is_challenged_and_raises_an_alarm() {
    let mut scene = Scene::new();
    scene.envelopes(&[Message::decode(Kind::Forced, b"a signed transaction of the rollup").unwrap()]);
    let batches = scene.setup.files.batches();
    batches.put(&honest(0)).unwrap();
    batches.put(&taking(1, 1)).unwrap();
    scene.start(&ALL);
    scene.until_mined(20, TxRole::Claim(0));
    scene.until_mined(3, TxRole::Challenge(0));
    scene.assert_alarmed(&faulty(0, Fault::ForcedDropped));
    // The batch that takes it in is right.
    scene.until_mined(30, TxRole::OptimisticAcceptance(1));
    assert_eq!(scene.mined(TxRole::Challenge(1)), None);
    for name in ["v1", "v2"] {
        let alarms = scene.party(name).alarms();
        assert!(alarms.iter().all(|alarm| !alarm.contains("claim: 1")), "{alarms:?}");
    }
}
