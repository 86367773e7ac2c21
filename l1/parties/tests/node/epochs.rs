//! Two epochs in a row, everybody killed again and again.

use assay_l1::KeyRole;
use assay_l1_parties::service::watch::Stage;
use assay_l1_parties::{Alarm, EpochIndex};
use assay_l1_signer::policy::Policy;
use bitcoin::Amount;

use crate::chain::Harness;
use crate::contract::policy;
use crate::crew::Crew;
use crate::dice::Dice;
use crate::files::Files;
use crate::node::Node;
use crate::rollup::{honest, state, Rollup};
use crate::scene::{said, ALL};
use crate::signers::{Draft, Signers};

/// Claims in each of the two epochs.
const CLAIMS: u32 = 10;
/// What the operator pays for all of it, at most.
const COST_MAX: Amount = Amount::from_sat(400_000);

/// Short locks; `claims` in an epoch.
pub(super) fn short_policy(files: &Files, claims: u32) -> Policy {
    Policy {
        claims,
        // Some data is found only after the patience for it, by vigilantes who stay away for two blocks now and then.
        challenge_blocks: 10,
        assert_blocks: 6,
        disprove_blocks: 6,
        claim_timeout_blocks: 10,
        collateral_blocks: 10 * claims as u16 + 30,
        ..policy(&files.secret("operator"))
    }
}

/// Coins for everybody, and two epochs, signed by three signers who are killed meanwhile, the collector as well.
pub(super) fn signed<'a>(files: &'a Files, node: &Node, policy: &Policy, dice: &mut Dice) -> Signers<'a> {
    let mut signers = Signers::start(files, node.words(), policy);
    let backend = node.backend();
    let fund = |name: &str, more: &[(&str, &str)]| signers.fund(backend.as_ref(), name, more);
    let first = fund("operator", &[]).unwrap();
    let second = fund("operator", &[("--epoch", "1"), ("--coins", "0"), ("--data-sat", "0")]).unwrap();
    for name in ["v1", "v2"] {
        fund(name, &[("--party", "vigilante")]);
    }
    let announced = signers.spec(1, &second);
    let unsigned = "bb".repeat(32);
    let first_proposal = files.word("epochs/0000.proposal");
    let previous = [("--previous", first_proposal.as_str())];
    let first = Draft { place: 0, epoch: 0, coin: &first, next: &announced, before: &[] };
    let second = Draft { place: 1, epoch: 1, coin: &second, next: &unsigned, before: &previous };
    for draft in [first, second] {
        signers.sign(&draft, dice.victims());
    }
    signers
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn twenty_claims_over_two_epochs_are_paid_out_whoever_is_killed_whenever() {
    let mut dice = Dice::new();
    let node = Node::start();
    let backend = node.backend();
    let files = Files::new();
    let mut signers = signed(&files, &node, &short_policy(&files, CLAIMS), &mut dice);
    for batch in 0..2 * CLAIMS {
        files.batches().put(&honest(batch)).unwrap();
    }
    let before = files.money(backend.as_ref(), "operator");
    let mut crew = Crew::start(&files, &node, &ALL);
    let mut view = files.watch(&backend);
    let mut paid_out = 0;
    for _ in 0..250 {
        if crew.step(&mut dice) == 11 {
            signers.kill(dice.roll(3) as usize);
        }
        let now = view.look();
        paid_out = now.epochs.iter().filter(|epoch| epoch.paid_out.is_some()).count();
        if paid_out == 2 {
            break;
        }
    }
    let now = view.look();
    assert_eq!(paid_out, 2, "{now:?}");
    let claims: Vec<Stage> =
        now.epochs.iter().flat_map(|epoch| epoch.claims.iter().map(|claim| claim.stage)).collect();
    assert_eq!(claims, [Stage::Accepted; 2 * CLAIMS as usize]);
    assert!(now.epochs.iter().all(|epoch| epoch.slashed.is_none()));
    assert_eq!(now.epochs[0].halted, None);
    let mut rollup = Rollup::from_start();
    let outcome = files.sync((&backend, &mut rollup), ("epochs", Vec::new()), (1, 0)).0.unwrap();
    assert_eq!(outcome.report.commitment, Some(state(2 * CLAIMS)), "the state, from the node alone");
    assert_eq!((outcome.report.executed, outcome.report.findings_count), (2 * CLAIMS, 0));
    // No third epoch is signed: that is what people should look at, and nothing else.
    let end = said(Alarm::Halted(EpochIndex(1)));
    for party in crew.parties() {
        assert!(party.alarms().iter().all(|alarm| *alarm == end), "{:?}", party.alarms());
    }
    let kills: Vec<u32> = crew.parties().chain(&signers.signers).map(|party| party.kills).collect();
    println!("killed: {kills:?}; blocks: {}", backend.tip().unwrap().height);
    assert!(kills.iter().all(|kills| *kills > 0), "{kills:?}");
    let collaterals = backend.utxos(&files.script("operator", KeyRole::Operator)).unwrap();
    let collaterals = collaterals.iter().filter(|coin| coin.txout.value.to_sat() == 1_000_000).count();
    assert_eq!(collaterals, 2);
    let cost = before.checked_sub(files.money(backend.as_ref(), "operator"));
    println!("the operator paid {cost:?}");
    assert!(cost.is_some_and(|cost| cost < COST_MAX), "{cost:?}");
}
