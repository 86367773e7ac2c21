//! A trunk whose operator is gone for good, and the backup that goes on with it.

use std::collections::BTreeSet;

use assay_l1::{BitcoinBackend, KeyRole};
use assay_l1_parties::evidence::SignedClaim;
use assay_l1_parties::service::watch::{Snapshot, Stage};
use assay_l1_parties::{epoch_name, Alarm, EpochIndex, Values};
use assay_l1_signer::handover::{Place, Report};
use bitcoin::Amount;

use super::epochs::{short_policy, signed};
use crate::chain::Harness;
use crate::contract::sink;
use crate::crew::Crew;
use crate::dice::Dice;
use crate::files::{Files, Shown};
use crate::node::Node;
use crate::rollup::{honest, publications, state, Rollup};
use crate::signers::{Draft, Signers};

/// Claims in each epoch.
const CLAIMS: u32 = 4;
/// Where the backup's epoch lies: the operator has had two signed.
const PLACE: u32 = 2;
/// What operator and backup pay for all of it, at most; and what a vigilante does, for the end of the trunk.
const COST_MAX: Amount = Amount::from_sat(20_000);
const WATCH_COST_MAX: Amount = Amount::from_sat(2_000);
const REPORT: &str = "backup/watch/handover.json";

/// The values of all claims on the chain, in its order.
fn claims(backend: &dyn BitcoinBackend) -> Vec<Values> {
    let blocks = (1..=backend.tip().unwrap().height).map(|height| backend.block_hash(height).unwrap());
    let txs = blocks.flat_map(|hash| backend.block(&hash).unwrap().txdata);
    txs.filter_map(|tx| Some(SignedClaim::read(&tx.input[0].witness)?.values)).collect()
}

fn stages(now: &Snapshot, place: u32) -> Vec<Stage> {
    now.epochs[place as usize].claims.iter().map(|claim| claim.stage).collect()
}

fn paid_out(now: &Snapshot, place: u32) -> bool {
    now.epochs.get(place as usize).is_some_and(|epoch| epoch.paid_out.is_some())
}

/// So many claims were accepted, and the others never made.
fn accepted(claims: u32) -> Vec<Stage> {
    let stage = |claim| if claim < claims { Stage::Accepted } else { Stage::Unmade };
    (0..CLAIMS).map(stage).collect()
}

fn until(
    crew: &mut Crew<'_>,
    dice: &mut Dice,
    view: &mut Shown,
    blocks_max: u32,
    done: impl Fn(&Snapshot) -> bool,
) -> Snapshot {
    for _ in 0..blocks_max {
        let now = view.look();
        if done(&now) {
            return now;
        }
        crew.step(dice);
    }
    panic!("not after {blocks_max} blocks: {:?}", view.look());
}

/// Two or three claims of the operator, which then is killed for good; how many, once the backup has said where the trunk goes on.
fn stopped(crew: &mut Crew<'_>, files: &Files, view: &mut Shown, dice: &mut Dice) -> u32 {
    until(crew, dice, view, 60, |now| now.epochs[0].claims[1].stage != Stage::Unmade);
    // While it does what there is to do at some block, its next claim perhaps.
    let blocks = dice.roll(2);
    (0..=blocks).for_each(|_| crew.mine_unseen());
    dice.moment(60);
    crew.dismiss("operator");
    let now = until(crew, dice, view, 60, |_| files.path(REPORT).exists());
    let made = now.epochs[0].halted.unwrap().0;
    assert!([2, 3].contains(&made), "{now:?}");
    assert_eq!(stages(&now, 0), accepted(made), "the backup has finished what was open");
    assert_eq!(stages(&now, 1), accepted(0));
    let report: Report = serde_json::from_slice(&std::fs::read(files.path(REPORT)).unwrap()).unwrap();
    let place = Place { place: 0, epoch: 0, claim: made };
    assert_eq!(report, Report { stopped_before: place, goes_on_at: place });
    made
}

/// The attesters consent and sign the backup's epoch; everyone gets to know of it. What its operator was given for that.
fn taken_over(crew: &mut Crew<'_>, files: &Files, signers: &mut Signers<'_>, dice: &mut Dice) -> Amount {
    let (previous, report) = (files.word("epochs/0000.proposal"), files.word(REPORT));
    let before = [("--previous", previous.as_str()), ("--handover", &report)];
    // It waits, and is there when the signatures come.
    crew.recall("backup", &[]);
    signers.hand_over(&before, dice);
    let epoch = [[("--epoch", "1")].as_slice(), &before].concat();
    let coin = signers.fund(crew.backend().as_ref(), "successor", &epoch).unwrap();
    let given = files.money(crew.backend().as_ref(), "successor");
    let next = "cc".repeat(32);
    let draft = Draft { place: PLACE, epoch: 1, coin: &coin, next: &next, before: &before };
    signers.sign(&draft, dice.victims());
    if dice.roll(2) == 0 {
        crew.recall("backup", &[]);
    } else {
        crew.party("backup").wait_for_epoch(PLACE);
    }
    for name in ["v1", "v2"] {
        crew.recall(name, &files.backup_policy());
    }
    crew.settle();
    given
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn a_backup_goes_on_with_the_trunk_of_an_operator_that_is_killed_for_good_whoever_else_is_killed_whenever() {
    let mut dice = Dice::new();
    let node = Node::start();
    let backend = node.backend();
    let files = Files::new();
    let policy = files.write_backup_policy(short_policy(&files, CLAIMS));
    let mut signers = signed(&files, &node, &short_policy(&files, CLAIMS), &mut dice);
    signers.fund(backend.as_ref(), "backup", &[("--party", "vigilante")]);
    (0..2 * CLAIMS).for_each(|batch| files.batches().put(&honest(batch)).unwrap());
    let money = |names: &[&str]| names.iter().map(|name| files.money(backend.as_ref(), name)).sum::<Amount>();
    let parties: [&[&str]; 4] = [&["operator"], &["backup", "successor"], &["v1"], &["v2"]];
    let costs_max = [COST_MAX, COST_MAX, WATCH_COST_MAX, WATCH_COST_MAX];
    let mut before = parties.map(money);

    let mut crew = Crew::start(&files, &node, &["operator", "v1", "v2", "backup"]);
    let mut view = files.watch_with(&backend, files.backup_policy());
    let made = stopped(&mut crew, &files, &mut view, &mut dice);
    before[1] += taken_over(&mut crew, &files, &mut signers, &mut dice);
    let now = until(&mut crew, &mut dice, &mut view, 150, |now| paid_out(now, PLACE));
    assert_eq!(stages(&now, PLACE), accepted(CLAIMS));

    // The operator comes back after all, and finds that its collateral is all that is left for it.
    crew.recall("operator", &files.backup_policy());
    let now = until(&mut crew, &mut dice, &mut view, 30, |now| paid_out(now, 0));
    assert_eq!((stages(&now, 0), stages(&now, 1)), (accepted(made), accepted(0)));
    assert!(now.epochs.iter().all(|epoch| epoch.slashed.is_none()), "{now:?}");
    let batches: Vec<Values> = (0..made + CLAIMS).map(|batch| honest(batch).values).collect();
    assert_eq!(claims(backend.as_ref()), batches, "one after the other, whoever claims");
    let published = publications(backend.as_ref(), [0, 1]);
    assert_eq!(published, [1, 1], "nobody pays again for the data of a claim that counts");
    // So finds whoever has a node and all files, and one who lacks the backup's epoch hears of it.
    let rebuilt = |epochs| {
        let mut rollup = Rollup::from_start();
        files.sync((&backend, &mut rollup), (epochs, files.backup_policy()), (1, 0)).0.unwrap()
    };
    let outcome = rebuilt("epochs");
    assert_eq!(outcome.report.commitment, Some(state(made + CLAIMS)));
    assert_eq!((outcome.report.findings_count, outcome.unknown_epoch), (0, None));
    std::fs::create_dir(files.path("some")).unwrap();
    for name in ["0000.proposal", "0000.signatures"] {
        let file = files.path("epochs").join(name);
        std::fs::copy(file, files.path("some").join(name)).unwrap();
    }
    let outcome = rebuilt("some");
    assert_eq!(outcome.report.commitment, Some(state(made)));
    assert!(outcome.unknown_epoch.is_some() && outcome.report.findings_count == 1, "{outcome:?}");
    // Both trunks' ends are what people should look at, and nothing else.
    let end = |(number, place)| Alarm::Halted(EpochIndex(place)).text(|index| epoch_name(number, index));
    let ends: BTreeSet<_> = [(0, 0), (1, PLACE)].map(end).into();
    for party in crew.parties() {
        assert!(party.alarms().is_subset(&ends), "{:?}", party.alarms());
    }
    let kills: Vec<u32> = crew.parties().map(|party| party.kills).collect();
    println!("made: {made}; killed: {kills:?}; blocks: {}", backend.tip().unwrap().height);
    assert!(kills.iter().all(|kills| *kills > 0), "{kills:?}");

    for name in ["operator", "successor"] {
        let coins = backend.utxos(&files.script(name, KeyRole::Operator)).unwrap();
        let collaterals = coins.iter().filter(|coin| coin.txout.value.to_sat() == policy.collateral_sat);
        assert_eq!(collaterals.count(), 1, "{name}");
    }
    assert_eq!(backend.utxos(&sink()).unwrap(), []);
    for ((names, before), max) in parties.into_iter().zip(before).zip(costs_max) {
        let cost = before.checked_sub(money(names));
        println!("{names:?} paid {cost:?}");
        assert!(cost.is_some_and(|cost| cost <= max), "{names:?}: {cost:?}");
    }
}
