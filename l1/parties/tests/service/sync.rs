//! The state rebuilt from the chain alone.

use assay_l1::graph::contract::build::TxRole;
use assay_l1_parties::service::batches::ProvedBatch;
use assay_l1_parties::service::sync::{Outcome, Verdict};
use assay_l1_parties::service::watch::Stage;
use assay_l1_parties::service::{Execution, Judge, ServiceError};
use assay_l1_parties::{Fault, Values};

use crate::contract::CLAIMS;
use crate::rollup::{honest, state, Rollup};
use crate::world::World;
use crate::{withheld, BLOCKS_MAX};

/// A rollup to which something happens whenever it is to execute a batch.
struct Disturbed<F>(Rollup, F);

impl<F: FnMut() -> Option<Execution>> Judge for Disturbed<F> {
    fn batch_hash(&mut self, data: &[u8]) -> Result<[u8; 32], String> {
        self.0.batch_hash(data)
    }

    fn execute(&mut self, values: &Values, data: &[u8], height: u32) -> Result<Execution, String> {
        (self.1)().map_or_else(|| self.0.execute(values, data, height), Ok)
    }

    fn verify(&mut self, verifier: &[u8; 32], values: &Values, proof: &[u8]) -> bool {
        self.0.verify(verifier, values, proof)
    }
}

/// What somebody with a node finds, and what they are told. `from`: confirmations, first block.
fn try_sync(
    world: &World,
    judge: &mut dyn Judge,
    from: (u32, u32),
) -> (Result<Outcome, ServiceError>, String) {
    world.setup.files.sync((&world.backend(), judge), ("epochs", Vec::new()), from)
}

/// Of every block; batches are executed from the first state on only.
fn synced(world: &World) -> (Outcome, String) {
    let (outcome, said) = try_sync(world, &mut Rollup::from_start(), (1, 0));
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
    let last = try_sync(&world, &mut Rollup::from_start(), (2, 0)).0.unwrap().claims.last().cloned().unwrap();
    assert_eq!((last.state, last.verdict), (Stage::Claimed, Verdict::Right));
}

#[test]
fn a_first_block_above_the_epochs_opening_is_refused() {
    let world = World::new();
    world.setup.files.batches().put(&honest(0)).unwrap();
    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::OptimisticAcceptance(0)));
    let opened = world.watch().look().epochs[0].opened.unwrap();
    let claimed = synced(&world).0.claims[0].height;
    let mut rollup = Rollup::from_start();
    for first in [opened + 1, claimed, claimed + 1] {
        let (outcome, _) = try_sync(&world, &mut rollup, (1, first));
        assert!(matches!(outcome, Err(ServiceError::Argument { name: "--start-height", .. })), "{first}");
    }
    let (outcome, _) = try_sync(&world, &mut rollup, (0, 0));
    assert!(matches!(outcome, Err(ServiceError::Argument { name: "--confirmations", .. })));
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

    world.publish(&honest(0));
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

#[test]
fn a_reorganisation_while_claims_are_executed_makes_it_begin_again() {
    let world = World::new();
    for batch in 0..CLAIMS {
        world.setup.files.batches().put(&honest(batch)).unwrap();
    }
    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::Claim(1)));
    let mut lost = 1;
    let mut judge = Disturbed(Rollup::from_start(), || {
        if std::mem::take(&mut lost) > 0 {
            world.reorganise(1);
        }
        None
    });
    let (outcome, said) = try_sync(&world, &mut judge, (1, 0));
    let outcome = outcome.unwrap();
    assert!(said.contains("once more"), "{said}");
    assert_eq!(outcome.report.commitment, Some(state(1)));
    assert_eq!(in_numbers(&outcome), (1, 1, 0, false));
}

#[test]
fn a_judge_in_trouble_is_no_finding() {
    let world = World::new();
    world.setup.files.batches().put(&honest(0)).unwrap();
    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::Claim(0)));
    let mut judge = Disturbed(Rollup::from_start(), || Some(Execution::NotYet));
    let (outcome, _) = try_sync(&world, &mut judge, (1, 0));
    assert!(matches!(outcome, Err(ServiceError::Undecided { .. })), "{outcome:?}");
}

#[test]
fn a_proof_that_does_not_verify_is_a_finding_and_its_batch_is_executed_all_the_same() {
    let world = World::new();
    let bad = ProvedBatch { proof: b"no proof".to_vec(), ..honest(0) };
    world.setup.files.batches().put(&bad).unwrap();
    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::Claim(0)));
    let (outcome, _) = synced(&world);
    assert_eq!(outcome.claims[0].verdict, Verdict::Pending, "a right one may still come");
    assert_eq!(in_numbers(&outcome), (1, 1, 0, false));
    world.play(BLOCKS_MAX, 30, |mined| mined.contains(&TxRole::Challenge(0)));
    let (outcome, _) = synced(&world);
    assert_eq!(outcome.claims[0].verdict, Verdict::Wrong(vec![Fault::Proof]));
    assert_eq!(outcome.report.commitment, Some(state(1)));
    assert_eq!(in_numbers(&outcome), (1, 1, 1, false));
}
