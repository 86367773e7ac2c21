//! The machines and events in any order, blocks that cannot be included: the same events give the same, what does not fit is
//! refused and changes nothing, no coin pays twice, nothing panics. (Budgets need a chain that makes sense: `tests/sim.rs`.)

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::{Arc, OnceLock};

use assay_l1_parties::fees::{FeePolicy, Market};
use assay_l1_parties::sim::Fixture;
use assay_l1_parties::{
    Alarm, Block, ClaimId, Context, Contract, Effect, EpochIndex, Event, Fault, Height, Keys, Machine,
    Operator, Reject, StepError, Vigilante, BATCHES_MAX,
};
use bitcoin::{Amount, FeeRate, Transaction};
use proptest::prelude::*;

const START: Height = Height(100);

/// An event, told by numbers: transactions are those that the machine itself has sent, or the funds.
#[derive(Debug, Clone)]
enum Told {
    Block { gap: i8, txs: Vec<u8> },
    Undo { gap: i8, for_good: bool },
    Market { estimate: u32, minimum: u32 },
    Rejected { which: u8, reason: u8, sats: u32 },
    Batch { from: u8, to: u8 },
    Data { root: u8, on_chain: bool },
    Verdict { claim: u8, fault: bool },
    Restarted,
}

fn told() -> impl Strategy<Value = Told> {
    let gap = prop_oneof![8 => Just(0i8), 1 => -2i8..3];
    let txs = prop::collection::vec(any::<u8>(), 0..4);
    prop_oneof![
        8 => (gap.clone(), txs).prop_map(|(gap, txs)| Told::Block { gap, txs }),
        2 => (gap, any::<bool>()).prop_map(|(gap, for_good)| Told::Undo { gap, for_good }),
        2 => (1u32..200_000, 1u32..2_000).prop_map(|(estimate, minimum)| Told::Market { estimate, minimum }),
        2 => (any::<u8>(), 0u8..4, any::<u32>()).prop_map(|(which, reason, sats)| Told::Rejected { which, reason, sats }),
        1 => (0u8..4, 0u8..4).prop_map(|(from, to)| Told::Batch { from, to }),
        1 => (0u8..4, any::<bool>()).prop_map(|(root, on_chain)| Told::Data { root, on_chain }),
        1 => (0u8..6, any::<bool>()).prop_map(|(claim, fault)| Told::Verdict { claim, fault }),
        1 => Just(Told::Restarted),
    ]
}

fn pick(known: &[Arc<Transaction>], which: u8) -> Arc<Transaction> {
    Arc::clone(&known[usize::from(which) % known.len()])
}

fn event(told: &Told, tip: Height, known: &[Arc<Transaction>]) -> Event {
    let near = |gap: i8, base: u32| Height((i64::from(base) + i64::from(gap)).max(0) as u32);
    match told {
        Told::Block { gap, txs } => {
            let txs = txs.iter().map(|which| pick(known, *which)).collect();
            Event::Connected(Block { height: near(*gap, tip.0 + 1), txs })
        }
        Told::Undo { gap, for_good: true } => Event::Disconnected(near(*gap, tip.0)),
        Told::Undo { gap, for_good: false } => Event::Rewound(near(*gap, tip.0)),
        Told::Market { estimate, minimum } => Event::Market(Market {
            estimate: FeeRate::from_sat_per_kwu(u64::from(*estimate)),
            minimum: FeeRate::from_sat_per_kwu(u64::from(*minimum)),
            at: tip,
        }),
        Told::Rejected { which, reason, sats } => {
            let at_least = Amount::from_sat(u64::from(*sats));
            let reason = match reason {
                0 => Reject::Fee { at_least },
                1 => Reject::Conflict { at_least },
                2 => Reject::Inputs,
                _ => Reject::Other("no".to_owned()),
            };
            Event::Rejected { txid: pick(known, *which).compute_txid(), reason }
        }
        Told::Batch { from, to } => Event::BatchProved([[*from; 32], [*to; 32], [1; 32], [2; 32], [3; 32]]),
        Told::Data { root, on_chain } => Event::Data { prev_root: [*root; 32], on_chain: *on_chain },
        Told::Verdict { claim, fault } => {
            let claim = ClaimId { epoch: EpochIndex(u32::from(claim / 3)), claim: u32::from(claim % 3) };
            let faults = if *fault { vec![Fault::Proof] } else { Vec::new() };
            Event::Verdict { claim, values: [[0; 32]; 5], faults }
        }
        Told::Restarted => Event::Restarted,
    }
}

fn parts() -> &'static (Contract, [Keys; 2]) {
    static PARTS: OnceLock<(Contract, [Keys; 2])> = OnceLock::new();
    PARTS.get_or_init(|| (Fixture::shared().contract(), [Fixture::keys(0), Fixture::keys(1)]))
}

/// Steps a machine and its twin; what it sends becomes known and may be in later blocks.
fn drive<M: Machine>(mut machine: M, keys: &Keys, all: &[Told]) -> Result<(), TestCaseError> {
    let (contract, _) = parts();
    let context = Context { contract, keys };
    let mut known = vec![Arc::new(Fixture::shared().funding().clone())];
    for told in all {
        let tip = machine.view().tip();
        let event = event(told, tip, &known);
        let before = machine.clone();
        let mut twin = machine.clone();
        let outcome = machine.step(context, &event);
        prop_assert_eq!(&outcome, &twin.step(context, &event));
        prop_assert_eq!(&machine, &twin);
        match outcome {
            Ok(effects) => {
                for effect in effects {
                    if let Effect::Broadcast(package) = effect {
                        known.extend(package);
                    }
                }
                known.truncate(200);
            }
            Err(StepError::Height { .. }) => prop_assert_eq!(&machine, &before),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
        let expected = match &event {
            Event::Connected(block) if block.height == tip.plus(1) => block.height,
            Event::Disconnected(height) | Event::Rewound(height) if *height == tip => {
                Height(height.0.saturating_sub(1))
            }
            _ => tip,
        };
        prop_assert_eq!(machine.view().tip(), expected);
        prop_assert_eq!(machine.sender().check(), Ok(()));
    }
    Ok(())
}

#[test]
fn a_batch_of_other_programs_than_any_epochs_is_an_alarm_and_no_data_is_paid_for() {
    let (contract, keys) = parts();
    let context = Context { contract, keys: &keys[0] };
    let terms = &contract.epochs().next().unwrap().1.spec().terms;
    for (code_root, is_right) in [(terms.params.code_root, true), ([6; 32], false)] {
        let mut operator = Operator::new(Fixture::wallet(0), 4, START, FeePolicy::REGTEST);
        let start = terms.params.start_commitment;
        let batch = Event::BatchProved([start, [1; 32], [2; 32], code_root, [3; 32]]);
        let effects = operator.step(context, &batch).unwrap();
        let publishes = effects.contains(&Effect::Publish(start));
        let alarms = effects.iter().any(|effect| matches!(effect, Effect::Alarm(Alarm::Programs(_))));
        assert_eq!((publishes, alarms), (is_right, !is_right), "{effects:?}");
        // Nor is the epoch opened for it once its data is there.
        let data = Event::Data { prev_root: start, on_chain: true };
        let funded = Event::Connected(Block {
            height: START.plus(1),
            txs: vec![Arc::new(Fixture::shared().funding().clone())],
        });
        operator.step(context, &funded).unwrap();
        let effects = operator.step(context, &data).unwrap();
        let pays = |effect: &Effect| matches!(effect, Effect::Broadcast(_) | Effect::Alarm(Alarm::Fee(..)));
        assert_eq!(effects.iter().any(pays), is_right, "{effects:?}");
    }
}

#[test]
fn an_operator_with_too_many_batches_asks_for_more_later_but_takes_the_next_claims_at_once() {
    let (contract, keys) = parts();
    let context = Context { contract, keys: &keys[0] };
    let terms = &contract.epochs().next().unwrap().1.spec().terms;
    let mut operator = Operator::new(Fixture::wallet(0), 4, START, FeePolicy::REGTEST);
    let root = |number: usize| *blake3::hash(&number.to_le_bytes()).as_bytes();
    let mut tell = |start: [u8; 32]| {
        let batch = Event::BatchProved([start, [1; 32], [2; 32], terms.params.code_root, [3; 32]]);
        (operator.step(context, &batch).unwrap(), operator.batches_waiting())
    };
    for number in 0..BATCHES_MAX {
        assert_eq!(tell(root(number)), (vec![Effect::Publish(root(number))], number + 1));
    }
    let surplus = root(BATCHES_MAX);
    assert_eq!(tell(surplus), (vec![Effect::Later(surplus)], BATCHES_MAX));
    let start = terms.params.start_commitment;
    assert_eq!(tell(start), (vec![Effect::Publish(start)], BATCHES_MAX + 1));
    assert_eq!(tell(surplus), (vec![Effect::Later(surplus)], BATCHES_MAX + 1));
    // What is known already is not put off.
    assert_eq!(tell(root(7)), (vec![], BATCHES_MAX + 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_operator_takes_anything(all in prop::collection::vec(told(), 1..40)) {
        let policy = FeePolicy { budget: Amount::MAX_MONEY, ..FeePolicy::REGTEST };
        drive(Operator::new(Fixture::wallet(0), 4, START, policy), &parts().1[0], &all)?;
    }

    #[test]
    fn the_vigilante_takes_anything(all in prop::collection::vec(told(), 1..40)) {
        let policy = FeePolicy { budget: Amount::MAX_MONEY, ..FeePolicy::REGTEST };
        drive(Vigilante::backup(Fixture::wallet(1), 4, START, policy), &parts().1[1], &all)?;
    }
}
