//! Operator and vigilante as services on Core's consensus code, dropped and opened again all along.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../../tests/common/chain.rs"]
mod chain;
#[path = "common/contract.rs"]
mod contract;
#[path = "common/files.rs"]
mod files;
#[path = "../../tests/common/publish.rs"]
mod publish;
#[path = "common/rollup.rs"]
mod rollup;
#[path = "service/sync.rs"]
mod sync;
#[path = "service/world.rs"]
mod world;

use std::cell::Cell;

use assay_l1::graph::contract::build::TxRole;
use assay_l1::KeyRole;
use assay_l1_parties::service::batches::ProvedBatch;
use assay_l1_parties::service::operator::{OperatorArgs, OperatorService};
use assay_l1_parties::service::watch::Stage;
use assay_l1_parties::CODE_ROOT;
use bitcoin::Amount;
use contract::CLAIMS;
use files::parse;
use rollup::{honest, with_digest};
use world::World;

/// Blocks in which a run must come to its end.
const BLOCKS_MAX: u32 = 120;

#[test]
fn an_epoch_is_claimed_and_paid_out_while_its_services_are_restarted_every_few_blocks() {
    let world = World::new();
    for batch in 0..CLAIMS {
        world.setup.files.batches().put(&honest(batch)).unwrap();
    }
    let mined = world.play(BLOCKS_MAX, 9, |mined| mined.contains(&TxRole::PayOut));
    for claim in 0..CLAIMS {
        assert!(mined.contains(&TxRole::OptimisticAcceptance(claim)), "{mined:?}");
        assert!(!mined.contains(&TxRole::Challenge(claim)), "nobody challenges what is right");
        assert_eq!(
            world.shown.lock().unwrap().stages(claim),
            [Stage::Unmade, Stage::Claimed, Stage::Accepted]
        );
    }
    let now = world.watch().look();
    assert!(now.epochs[0].opened.is_some() && now.epochs[0].paid_out.is_some(), "{now:?}");
    assert!(now.wallets[0].coins > 0, "{now:?}");
    // No next epoch is signed: the one thing that people should look at.
    let alarms = &world.shown.lock().unwrap().alarms;
    assert!(alarms.iter().all(|alarm| alarm.contains("epoch")) && !alarms.is_empty(), "{alarms:?}");
}

#[test]
fn a_batch_that_is_not_proved_for_the_epoch_is_neither_published_nor_claimed_and_the_right_one_in_its_place_is(
) {
    let other_key = ProvedBatch { verifying_key: Some([8; 32]), ..honest(0) };
    let mut other_programs = honest(0);
    other_programs.values[CODE_ROOT] = [8; 32];
    other_programs.values = with_digest(other_programs.values);
    for wrong in [other_key, other_programs] {
        let world = World::new();
        world.setup.files.batches().put(&wrong).unwrap();
        let (coins, looks) = (world.data_coins(), Cell::new(0));
        let mined = world.play(BLOCKS_MAX, 4, |_| looks.replace(looks.get() + 1) == 12);
        assert!(mined.is_empty(), "{mined:?}");
        assert_eq!(world.data_coins(), coins, "data was paid for");
        world.setup.files.batches().put(&honest(0)).unwrap();
        world.play(BLOCKS_MAX, 9, |mined| mined.contains(&TxRole::Claim(0)));
        assert_ne!(world.data_coins(), coins);
    }
}

#[test]
fn funding_gives_an_operator_what_its_epochs_take() {
    let world = World::new();
    for epoch in [0, 1] {
        let (funded, coins) = world.fund(epoch);
        assert!(funded.is_mined && funded.epoch_coin == Some(format!("{}:0", funded.txid)), "{funded:?}");
        assert_eq!(coins[0], world.epoch_coin(epoch), "epoch {epoch}");
        // Data, three for fees, and the change.
        let values: Vec<u64> = coins[1..5].iter().map(|coin| coin.value.to_sat()).collect();
        assert_eq!((values, coins.len()), (vec![70_000, 50_000, 50_000, 50_000], 6));
    }
}

#[test]
fn a_claim_whose_proof_does_not_verify_is_challenged_and_the_operator_answers() {
    let world = World::new();
    let bad = ProvedBatch { proof: b"no proof".to_vec(), ..honest(0) };
    world.setup.files.batches().put(&bad).unwrap();
    world.setup.files.batches().put(&honest(1)).unwrap();
    // Without verifier leaves nothing on the chain says that the assertion is wrong.
    let mined = world.play(BLOCKS_MAX, 11, |mined| {
        mined.contains(&TxRole::Acceptance(0)) && mined.contains(&TxRole::OptimisticAcceptance(1))
    });
    for role in [TxRole::Challenge(0), TxRole::Assert(0), TxRole::AssertSlot(0, 0), TxRole::AssertSlot(0, 1)]
    {
        assert!(mined.contains(&role), "{role} of {mined:?}");
    }
    assert!(!mined.contains(&TxRole::Challenge(1)));
    let stages = world.shown.lock().unwrap().stages(0);
    assert_eq!(stages[..3], [Stage::Unmade, Stage::Claimed, Stage::Challenged]);
    assert_eq!(stages[stages.len() - 2..], [Stage::Asserted, Stage::Accepted], "{stages:?}");
    let alarms = &world.shown.lock().unwrap().alarms;
    assert!(
        alarms.iter().any(|alarm| alarm.starts_with("claim 0 of epoch 0 (file 0000) is challenged")),
        "{alarms:?}"
    );
}

/// An epoch whose first claim has no data.
fn withheld() -> World {
    let mut world = World::new();
    world.executes_all = true;
    world.send(world.setup.opening());
    // Its operator's own machine would wait for the data.
    world.send(world.setup.claim(0, &honest(0).values));
    world
}

#[test]
fn a_claim_after_one_whose_data_is_withheld_is_challenged_too() {
    let world = withheld();
    world.setup.files.batches().put(&honest(1)).unwrap();
    let mined = world.play(BLOCKS_MAX, 9, |mined| mined.contains(&TxRole::Challenge(1)));
    assert!(mined.contains(&TxRole::Challenge(0)), "{mined:?}");
}

#[test]
fn a_claim_after_one_whose_data_came_late_is_looked_into_and_left_alone() {
    let world = withheld();
    world.play(BLOCKS_MAX, 9, |mined| mined.contains(&TxRole::Challenge(0)));
    // The operator publishes for claims to come, not for one that is made.
    world.publish(&honest(0));
    for batch in 1..CLAIMS {
        world.setup.files.batches().put(&honest(batch)).unwrap();
    }
    let mined = world.play(BLOCKS_MAX, 9, |mined| mined.contains(&TxRole::OptimisticAcceptance(1)));
    assert!(!mined.contains(&TxRole::Challenge(1)), "{mined:?}");
}

#[test]
fn a_claim_that_does_not_continue_the_one_before_costs_the_collateral() {
    let world = World::new();
    world.setup.files.batches().put(&honest(0)).unwrap();
    // Signed by somebody with the operator's keys: its own machine would not.
    world.cheat(1);
    let mined = world.play(BLOCKS_MAX, 13, |mined| mined.contains(&TxRole::DisproveInput(1)));
    assert!(mined.contains(&TxRole::Claim(1)), "{mined:?}");
    assert!(!mined.contains(&TxRole::PayOut));
    assert_eq!(world.shown.lock().unwrap().stages(1).last(), Some(&Stage::Slashed));
    let alarms = &world.shown.lock().unwrap().alarms;
    for part in [
        "claim 1 of epoch 0 (file 0000) does not start where",
        "the collateral of epoch 0 (file 0000) was slashed",
    ] {
        assert!(alarms.iter().any(|alarm| alarm.starts_with(part)), "{alarms:?}");
    }
}

#[test]
fn challenges_of_two_claims_in_one_transaction_are_both_answered() {
    let mut world = World::new();
    for batch in 0..CLAIMS {
        world.setup.files.batches().put(&honest(batch)).unwrap();
    }
    let coin = world.setup.spares.pop().unwrap();
    world.send(world.setup.challenge(&[0, 1], coin, Amount::from_sat(20_000)));
    let mined = world.play(BLOCKS_MAX, 9, |mined| mined.contains(&TxRole::PayOut));
    for claim in 0..2 {
        assert!(mined.contains(&TxRole::Challenge(claim)), "{mined:?}");
        assert!(mined.contains(&TxRole::Acceptance(claim)), "{mined:?}");
        assert!(!mined.contains(&TxRole::AssertTimeout(claim)), "{mined:?}");
    }
}

#[test]
fn an_operator_without_a_secret_or_with_one_that_no_policy_knows_is_refused() {
    let world = World::new();
    world.setup.files.secret("vigilante");
    for (name, reason) in [("typo.secret", "No such file"), ("vigilante.secret", "none of the policies")] {
        let words =
            world.words("operator").iter().map(|word| word.replace("operator.secret", name)).collect();
        let args: OperatorArgs = parse(words);
        let error = OperatorService::open(&args, world.backend()).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(!world.setup.files.path("typo.secret").exists(), "none is made");
}

#[test]
fn budget_and_finality_are_those_of_the_last_start_and_not_of_the_first() {
    let world = World::new();
    world.setup.files.batches().put(&honest(0)).unwrap();
    world.run_operator(world.words_with("operator", "--budget-sat", "1"), 12).unwrap();
    assert!(world.mined().is_empty(), "nothing can be paid for");
    world.run_operator(world.words("operator"), 12).unwrap();
    assert!(world.mined().contains(&TxRole::Claim(0)), "{:?}", world.mined());

    let open = |finality| world.run_operator(world.words_with("operator", "--finality", finality), 0);
    let error = open("7").unwrap_err();
    assert!(error.is_bad_input() && error.to_string().contains("Start with --finality 6;"), "{error}");
    open("6").unwrap();
    open("7").unwrap_err();
    world.mine();
    open("6").unwrap();
    open("7").unwrap();
    open("2").unwrap();
    let error = open("5").unwrap_err().to_string();
    assert!(error.contains("Start with --finality 4;"), "{error}");
}

#[test]
fn epoch_files_that_are_not_right_keep_nobody_from_the_others_at_a_start_either() {
    let world = World::new();
    let spoil = |name: &str| std::fs::write(world.setup.files.path("epochs").join(name), b"spoilt").unwrap();
    spoil("0001.proposal");
    spoil("0001.signatures");
    world.setup.files.batches().put(&honest(0)).unwrap();
    world.play(BLOCKS_MAX, 4, |mined| mined.contains(&TxRole::Claim(0)));
    let alarms = world.watch().look().alarms;
    assert!(alarms.iter().any(|alarm| alarm.starts_with("epoch file 0001 is not taken: ")), "{alarms:?}");
    // What the state was made with has to be there; and without any epoch there is nothing to do.
    spoil("0000.signatures");
    let errors = [world.run_operator(world.words("operator"), 0), world.run_vigilante(world.words("other"))];
    for error in errors.map(Result::unwrap_err) {
        assert!(error.is_bad_input() && error.to_string().starts_with("epoch file 0000: "), "{error}");
    }
}

#[test]
fn a_vigilante_with_another_secret_than_its_states_or_with_none_is_refused() {
    let world = World::new();
    let secret = |name: &str| world.setup.files.path(&format!("{name}.secret"));
    let start = || world.run_vigilante(world.words("vigilante"));
    let with = |name: &str| {
        world.run_vigilante(world.words_with("vigilante", "--secret", &secret(name).display().to_string()))
    };
    start().unwrap();
    let error = with("operator").unwrap_err();
    let address = |name: &str| {
        let script = world.setup.files.script(name, KeyRole::Wallet);
        bitcoin::Address::from_script(&script, world.backend().network()).unwrap().to_string()
    };
    for part in [address("vigilante"), address("operator")] {
        assert!(error.is_bad_input() && error.to_string().contains(&part), "{error}");
    }
    start().unwrap();
    std::fs::rename(secret("vigilante"), secret("elsewhere")).unwrap();
    let error = start().unwrap_err();
    assert!(error.is_bad_input() && error.to_string().contains("vigilante.secret is not there"), "{error}");
    assert!(!secret("vigilante").exists(), "none is made");
    with("elsewhere").unwrap();
    // Where nothing was begun, one is made.
    world.run_vigilante(world.words("fresh")).unwrap();
    assert!(secret("fresh").exists());
}
