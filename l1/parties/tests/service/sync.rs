//! The state rebuilt from the chain alone.

use assay_l1::graph::contract::build::TxRole;
use assay_l1_parties::service::sync::{Outcome, Verdict};
use assay_l1_parties::service::watch::Stage;
use assay_l1_parties::service::ServiceError;
use assay_l1_parties::Fault;

use crate::contract::CLAIMS;
use crate::rollup::{honest, state};
use crate::world::World;
use crate::{withheld, BLOCKS_MAX};

/// What somebody with a node finds from this block on, and what they are told.
fn try_sync(world: &World, confirmations: u32, start_height: u32) -> (Result<Outcome, ServiceError>, String) {
    world.setup.files.sync(&world.backend(), ("epochs", Vec::new()), (confirmations, start_height))
}

/// Reads every block.
fn synced(world: &World) -> (Outcome, String) {
    let (outcome, said) = try_sync(world, 1, 0);
    (outcome.unwrap(), said)
}

fn verdicts(outcome: &Outcome) -> Vec<(Stage, Verdict)> {
    outcome.claims.iter().map(|claim| (claim.state, claim.verdict.clone())).collect()
}

fn in_numbers(outcome: &Outcome) -> (u32, u32, u64, bool) {
    let report = &outcome.report;
    (report.claims, report.executed, report.findings_count, report.is_stopped)
}

#[test]
fn an_honest_history_gives_the_operators_state() {
    let world = World::new();
    let (outcome, _) = synced(&world);
    assert_eq!((outcome.report.epochs, outcome.report.commitment), (0, Some(state(0))));
    for batch in 0..CLAIMS {
        world.setup.files.batches().put(&honest(batch)).unwrap();
    }
    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::OptimisticAcceptance(CLAIMS - 1)));
    let (outcome, said) = synced(&world);
    assert_eq!(outcome.report.commitment, Some(state(CLAIMS)));
    assert_eq!(in_numbers(&outcome), (CLAIMS, CLAIMS, 0, false));
    assert_eq!(verdicts(&outcome), [(Stage::Accepted, Verdict::Right), (Stage::Accepted, Verdict::Right)]);
    assert_eq!((outcome.unknown_epoch, outcome.report.epochs), (None, 1));
    assert!(said.contains("claim 0 of epoch 0 (file 0000), made at "), "{said}");
    assert_eq!(said.lines().last(), Some(outcome.report.to_string().as_str()));
    // Blocks without enough confirmations are not read: the last one holds the acceptance.
    let last = try_sync(&world, 2, 0).0.unwrap().claims.last().cloned().unwrap();
    assert_eq!((last.state, last.verdict), (Stage::Claimed, Verdict::Right));
}

#[test]
fn a_first_block_above_the_epochs_opening_is_refused() {
    let world = World::new();
    world.setup.files.batches().put(&honest(0)).unwrap();
    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::OptimisticAcceptance(0)));
    let opened = world.watch().look().epochs[0].opened.unwrap();
    let claimed = synced(&world).0.claims[0].height;
    assert_eq!(try_sync(&world, 1, opened).0.unwrap().report.commitment, Some(state(1)));
    for first in [opened + 1, claimed, claimed + 1] {
        let (outcome, _) = try_sync(&world, 1, first);
        assert!(matches!(outcome, Err(ServiceError::Argument { name: "--start-height", .. })), "{first}");
    }
    assert!(matches!(try_sync(&world, 0, 0).0, Err(ServiceError::Argument { .. })), "no confirmations");
}

#[test]
fn a_slashed_claim_does_not_count_and_one_that_is_wrong_is_a_finding_until_then() {
    let world = World::new();
    world.setup.files.batches().put(&honest(0)).unwrap();
    world.cheat(1);
    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::Claim(1)));
    let (outcome, said) = synced(&world);
    assert_eq!(outcome.report.commitment, Some(state(1)));
    assert_eq!(in_numbers(&outcome), (2, 1, 1, true));
    let Verdict::Wrong(faults) = &outcome.claims[1].verdict else { panic!("{outcome:?}") };
    assert_eq!(*faults, [Fault::Link]);
    assert!(said.contains("FINDING claim 1 of epoch 0 (file 0000)"), "{said}");

    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::DisproveInput(1)));
    let (outcome, _) = synced(&world);
    assert_eq!(outcome.report.commitment, Some(state(1)));
    assert_eq!(in_numbers(&outcome), (2, 1, 0, false));
    let [first, second] = &outcome.claims[..] else { panic!("{outcome:?}") };
    assert_eq!(first.verdict, Verdict::Right);
    assert_eq!((second.state, &second.verdict), (Stage::Slashed, &Verdict::NotCounting));
}

#[test]
fn withheld_data_is_a_finding_until_it_appears_and_nobody_knows_the_state_after_it() {
    let world = withheld();
    world.setup.files.batches().put(&honest(1)).unwrap();
    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::Claim(0)));
    let (outcome, _) = synced(&world);
    assert_eq!(verdicts(&outcome), [(Stage::Claimed, Verdict::Pending)], "it may still come");
    assert_eq!(in_numbers(&outcome), (1, 0, 0, false));

    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::Challenge(1)));
    let (outcome, said) = synced(&world);
    assert_eq!(outcome.report.commitment, Some(state(0)));
    assert_eq!(in_numbers(&outcome), (2, 0, 2, true));
    assert!(said.contains("has no data on the chain"), "{said}");
    assert_eq!(outcome.claims[1].verdict, Verdict::Wrong(vec![Fault::UnknownStart]));

    world.setup.files.batches().put(&honest(0)).unwrap();
    world.play(BLOCKS_MAX, 30, |_| synced(&world).0.report.executed == 2);
    let (outcome, _) = synced(&world);
    assert_eq!(outcome.report.commitment, Some(state(2)));
    assert_eq!(in_numbers(&outcome), (2, 2, 0, false));
}

#[test]
fn a_reorganisation_between_two_runs_is_followed() {
    let world = World::new();
    for batch in 0..CLAIMS {
        world.setup.files.batches().put(&honest(batch)).unwrap();
    }
    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::Claim(1)));
    assert_eq!(synced(&world).0.report.commitment, Some(state(2)));
    world.reorganise(1);
    let (outcome, _) = synced(&world);
    assert_eq!(outcome.report.commitment, Some(state(1)));
    assert_eq!(in_numbers(&outcome), (1, 1, 0, false));
    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::Claim(1)));
    assert_eq!(synced(&world).0.report.commitment, Some(state(2)));
}
