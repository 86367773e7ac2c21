//! A signer refuses every graph that is not the specification's, whichever one field differs.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/contract.rs"]
mod contract;
#[path = "common/mutations.rs"]
mod mutations;

use assay_l1::graph::contract::build::{EpochEnd, Graph, GraphError, Start, Surroundings, TxRole};
use assay_l1::graph::contract::keys::EpochKeys;
use assay_l1::graph::contract::review::{compare, review, Proposal, Refusal};
use assay_l1::graph::contract::spec::{AssertLayout, ContractSpec, GameLocks};
use assay_l1::{OperatorSecret, TimeLocks};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Txid};
use contract::{epoch, epoch_of, graph, EqualEnds, TRUNK};
use mutations::mutations;

const ANNOUNCE: [u8; 32] = [0xaa; 32];

fn funding() -> OutPoint {
    OutPoint::new(Txid::from_byte_array([5; 32]), 1)
}

fn judge(spec: &ContractSpec, proposal: &Proposal) -> Result<Graph, Refusal> {
    let coin = contract::coin(spec, None);
    let around = Surroundings {
        keys: &proposal.keys,
        verifier: &EqualEnds,
        coin: &coin,
        previous: None,
        announce: ANNOUNCE,
    };
    review(spec, around, proposal)
}

fn valid() -> ((EpochKeys, ContractSpec), Proposal) {
    let parts = epoch(0, funding());
    let proposal = graph(&parts, None, ANNOUNCE).unwrap().proposal(&parts.0);
    (parts, proposal)
}

#[test]
fn the_specification_itself_is_accepted_and_is_the_same_for_everyone() {
    let ((keys, spec), proposal) = valid();
    let own = judge(&spec, &proposal).unwrap();
    assert_eq!(own.proposal(&keys), proposal);
}

#[test]
fn every_one_field_mutation_of_every_transaction_is_refused_by_its_name() {
    let ((_, spec), mut proposal) = valid();
    // What `review` does after it has built the signer's own graph, which takes a second.
    let own = judge(&spec, &proposal).unwrap();
    // Each role once: the slots and later claims have the same fields.
    let roles: Vec<TxRole> = proposal.transactions.keys().copied().collect();
    let mut count = 0;
    for role in roles {
        let seldom = !matches!(
            role,
            TxRole::Reconfiguration
                | TxRole::PayOut
                | TxRole::Claim(1)
                | TxRole::ClaimTimeout(1)
                | TxRole::OptimisticAcceptance(1)
                | TxRole::Challenge(1)
                | TxRole::Assert(1)
                | TxRole::AssertSlot(1, 1)
                | TxRole::AssertTimeout(1)
                | TxRole::SlotTimeout(1, 1)
                | TxRole::DisproveInput(1)
                | TxRole::Disprove(1)
                | TxRole::Acceptance(1)
        );
        let good = proposal.transactions[&role].clone();
        let chosen = mutations(&good, contract::sink().x_only_public_key().0);
        let chosen = if seldom { &chosen[..1] } else { &chosen[..] };
        for (name, other) in chosen {
            proposal.transactions.insert(role, other.clone());
            match compare(&own, &proposal) {
                Err(Refusal::Differs { role: named, .. }) => assert_eq!(named, role, "{name}"),
                other => panic!("{role}, {name}: {other:?}"),
            }
            count += 1;
        }
        proposal.transactions.insert(role, good);
    }
    assert!(count > 300, "{count} mutations were tried");
    judge(&spec, &proposal).expect("all mutations were taken back");
}

#[test]
fn a_transaction_too_few_or_too_many_is_refused() {
    let ((_, spec), good) = valid();
    let own = judge(&spec, &good).unwrap();
    for role in good.transactions.keys() {
        let mut proposal = good.clone();
        proposal.transactions.remove(role);
        assert_eq!(compare(&own, &proposal).unwrap_err(), Refusal::Missing { role: *role });
    }
    let mut proposal = good.clone();
    let role = TxRole::Claim(contract::CLAIMS);
    let claim = proposal.transactions[&TxRole::Claim(0)].clone();
    proposal.transactions.insert(role, claim);
    assert_eq!(judge(&spec, &proposal).unwrap_err(), Refusal::Surplus { role });
}

#[test]
fn one_time_keys_that_the_spec_does_not_commit_to_are_refused() {
    let ((_, spec), good) = valid();
    let keys = |change: &dyn Fn(&mut EpochKeys)| {
        let mut proposal = good.clone();
        change(&mut proposal.keys);
        judge(&spec, &proposal).unwrap_err()
    };
    let expected = Refusal::Graph(GraphError::Keys);
    assert_eq!(keys(&|keys| keys.0.swap(0, 1)), expected);
    assert_eq!(keys(&|keys| drop(keys.0.pop())), expected);
    assert_eq!(keys(&|keys| keys.0[0].words.clear()), expected);
    assert_eq!(keys(&|keys| keys.0[2].hashes.swap(0, 12)), expected);
    assert_eq!(keys(&|keys| keys.0[1].claim.0.swap(0, 4)), expected);
    let other = OperatorSecret::from_bytes([4; 32]);
    let other = EpochKeys::derive(&other, &TRUNK, (0, contract::CLAIMS), contract::LAYOUT);
    assert_eq!(keys(&|keys| *keys = other.clone()), expected);
}

/// Every way to change one field of the spec; all are in range.
fn other_specs(good: &ContractSpec) -> Vec<ContractSpec> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut ContractSpec)| {
        let mut other = good.clone();
        change(&mut other);
        all.push(other);
    };
    let key = contract::pair(0x77).x_only_public_key().0;
    add(&|spec| spec.terms.trunk_id[0] ^= 1);
    add(&|spec| {
        spec.terms.epoch = 1;
        spec.terms.params.start_commitment = [0; 32];
    });
    add(&|spec| spec.terms.params.start_commitment[0] ^= 1);
    add(&|spec| spec.terms.params.code_root[0] ^= 1);
    add(&|spec| spec.terms.params.verifier_commitment[0] ^= 1);
    add(&|spec| spec.terms.operator_key = key);
    add(&|spec| spec.terms.key_commitment[0] ^= 1);
    add(&|spec| spec.terms.locks.cadence_blocks += 1);
    add(&|spec| spec.terms.locks.collateral_blocks += 1);
    add(&|spec| spec.terms.claims_max -= 1);
    add(&|spec| spec.terms.collateral += Amount::from_sat(1));
    add(&|spec| spec.attesters = key);
    add(&|spec| spec.recovery = key);
    add(&|spec| spec.sink = key);
    add(&|spec| spec.locks.challenge_blocks -= 1);
    add(&|spec| spec.locks.assert_blocks -= 1);
    add(&|spec| spec.locks.disprove_blocks -= 1);
    add(&|spec| spec.locks.claim_timeout_blocks += 1);
    add(&|spec| spec.locks.sink_blocks += 1);
    add(&|spec| spec.locks.handover_blocks += 1);
    add(&|spec| spec.challenge_deposit += Amount::from_sat(1));
    add(&|spec| spec.slashed_to_sink += Amount::from_sat(1));
    add(&|spec| spec.layout.words += 1);
    add(&|spec| spec.layout.hashes -= 1);
    add(&|spec| spec.assert_key_commitment[0] ^= 1);
    add(&|spec| spec.verifier_leaves[0] ^= 1);
    add(&|spec| spec.funding.vout ^= 1);
    all
}

#[test]
fn a_graph_of_any_other_spec_is_refused() {
    let (parts, good) = valid();
    let ids: std::collections::BTreeSet<_> = other_specs(&parts.1).iter().map(ContractSpec::id).collect();
    assert_eq!(ids.len(), 27, "each field changes the id");
    for other in other_specs(&parts.1) {
        other.validate().expect("in range");
        // The signer's own spec decides, whatever id the proposal claims.
        let refusal = judge(&other, &good).unwrap_err();
        assert_eq!(refusal, Refusal::Agreement { field: "spec" });
        let mut claimed = good.clone();
        claimed.spec_id = other.id();
        assert!(judge(&other, &claimed).is_err(), "{other:?}");
        assert_eq!(judge(&parts.1, &claimed).unwrap_err(), Refusal::Agreement { field: "spec" });
    }
    let mut silent = good.clone();
    silent.announce[0] ^= 1;
    assert_eq!(judge(&parts.1, &silent).unwrap_err(), Refusal::Agreement { field: "announcement" });
}

#[test]
fn a_refused_spec_says_what_was_found_and_what_is_allowed() {
    let (_, good) = epoch(0, funding());
    type Change<'a> = &'a dyn Fn(&mut ContractSpec);
    let layout = |hashes| AssertLayout { words: 0, hashes };
    let refused: [(Change<'_>, &str); 9] = [
        (&|spec| spec.locks.assert_blocks = 0, "assert lock is 0 blocks, allowed: 1 to 65535 blocks"),
        (&|spec| spec.locks.claim_timeout_blocks = 2, "claim timeout is 2 blocks, allowed: more than 2 blocks"),
        (
            &|spec| spec.terms.locks.collateral_blocks = 42,
            "collateral lock is 42 blocks, allowed: more than 42 blocks",
        ),
        (&|spec| spec.locks.sink_blocks = 60, "sink lock is 60 blocks, allowed: more than 60 blocks"),
        (
            &|spec| spec.locks.challenge_blocks = u16::MAX - 5,
            "collateral lock is 60 blocks, allowed: more than 65562 blocks",
        ),
        (
            &|spec| spec.challenge_deposit = Amount::from_sat(1),
            "challenge deposit is 1 satoshi, allowed: 330 to 2100000000000000 satoshi",
        ),
        (&|spec| spec.layout = layout(0), "assert layout is 0 slots, allowed: 1 to 90 slots"),
        (
            &|spec| spec.funding = OutPoint::null(),
            "funding coin is 0000000000000000000000000000000000000000000000000000000000000000:4294967295, allowed: an output of a \
             transaction",
        ),
        (
            &|spec| spec.terms.epoch = 1,
            "start commitment is ",
        ),
    ];
    for (change, expected) in refused {
        let mut spec = good.clone();
        change(&mut spec);
        let said = spec.validate().unwrap_err().to_string();
        assert!(said.starts_with(&format!("epoch terms: {expected}")), "{said}");
    }
}

#[test]
fn specs_that_would_not_be_safe_are_refused() {
    let (_, good) = epoch(0, funding());
    let with = |change: &dyn Fn(&mut ContractSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        spec.validate().is_err()
    };
    assert!(!with(&|_| {}));
    // 3 claims, 4 blocks apart at most, and a game of 10 + 6 + 6 + 8 blocks: 42.
    let collateral = |blocks| TimeLocks { cadence_blocks: 2, collateral_blocks: blocks };
    assert!(with(&|spec| spec.terms.locks = collateral(42)));
    assert!(!with(&|spec| spec.terms.locks = collateral(43)));
    assert!(with(&|spec| spec.locks.sink_blocks = 60));
    assert!(with(&|spec| spec.locks.claim_timeout_blocks = 2));
    assert!(with(&|spec| spec.locks.challenge_blocks = 0));
    assert!(with(&|spec| spec.locks.assert_blocks = 0));
    assert!(with(&|spec| spec.locks.disprove_blocks = 0));
    assert!(with(&|spec| spec.slashed_to_sink = spec.terms.collateral));
    assert!(with(&|spec| spec.challenge_deposit = Amount::from_sat(1)));
    assert!(with(&|spec| spec.layout = AssertLayout { words: 0, hashes: 0 }));
    assert!(with(&|spec| spec.layout = AssertLayout { words: 0, hashes: 1_000 }));
    assert!(with(&|spec| spec.attesters = spec.terms.operator_key));
    assert!(with(&|spec| spec.recovery = spec.terms.operator_key));
    assert!(with(&|spec| spec.recovery = spec.attesters));
    assert!(with(&|spec| spec.locks.handover_blocks = 0));
    assert!(with(&|spec| spec.locks.handover_blocks = spec.locks.sink_blocks));
    // Only the first epoch knows its start when it is announced.
    assert!(with(&|spec| spec.terms.epoch = 1));
    assert!(with(&|spec| spec.funding = OutPoint::null()));
    assert!(with(&|spec| spec.locks = GameLocks::MAINNET), "regtest's collateral lock is too short for it");
}

#[test]
fn an_epoch_that_was_not_announced_or_does_not_follow_is_refused() {
    let second = epoch(1, OutPoint::new(Txid::from_byte_array([6; 32]), 0));
    let first = epoch(0, funding());
    let opened = graph(&first, None, second.1.id()).unwrap();
    graph(&second, Some(opened.end()), ANNOUNCE).unwrap();
    let mut unannounced = second.clone();
    unannounced.1.challenge_deposit += Amount::from_sat(1);
    let refused = graph(&unannounced, Some(opened.end()), ANNOUNCE).unwrap_err();
    assert_eq!(refused, GraphError::NotAnnounced);
    assert_eq!(graph(&second, None, ANNOUNCE).unwrap_err(), GraphError::Order { epoch: 1, previous: None });
    let refused = graph(&first, Some(opened.end()), ANNOUNCE).unwrap_err();
    assert_eq!(refused, GraphError::Order { epoch: 0, previous: Some(0) });
}

#[test]
fn a_later_epoch_starts_at_what_the_last_claim_before_it_signs() {
    let second = epoch(1, OutPoint::new(Txid::from_byte_array([6; 32]), 0));
    let first = epoch(0, funding());
    let opened = graph(&first, None, second.1.id()).unwrap();
    assert_eq!(opened.start(0), Some(&Start::Commitment(contract::START)));
    let signed = |claim: usize| Start::Signed(first.0 .0[claim].claim.0[1].clone());
    for claim in 1..=contract::CLAIMS {
        assert_eq!(opened.start(claim), Some(&signed(claim as usize - 1)));
    }
    assert_eq!(opened.start(contract::CLAIMS + 1), None);
    assert_eq!(opened.end().start, signed(2));
    let next = graph(&second, Some(opened.end()), ANNOUNCE).unwrap();
    assert_eq!(next.start(0), Some(&signed(2)));
    // Who opens it signs with the key of the epoch that ends; everything else is of its own.
    let request = next.request(TxRole::Reconfiguration, 0, 0).unwrap();
    assert_eq!(request.signer, first.1.attesters);
    assert!(next
        .requests()
        .filter(|request| request.role != TxRole::Reconfiguration)
        .all(|request| { request.signer == second.1.attesters }));
    // A signer that links to another key has another graph: whoever proposes that one is refused.
    for start in [Start::Commitment(contract::START), signed(1)] {
        let forged = EpochEnd { start, ..opened.end().clone() };
        let forged = graph(&second, Some(&forged), ANNOUNCE).unwrap().proposal(&second.0);
        assert!(matches!(compare(&next, &forged), Err(Refusal::Differs { .. } | Refusal::Surplus { .. })));
    }
    let elsewhere = EpochEnd { trunk_id: [8; 32], ..opened.end().clone() };
    assert_eq!(graph(&second, Some(&elsewhere), ANNOUNCE).unwrap_err(), GraphError::Trunk);
}

#[test]
fn a_halted_epoch_ends_where_its_last_valid_claim_did() {
    let first = epoch(0, funding());
    let opened = graph(&first, None, ANNOUNCE).unwrap();
    for claim in 0..=contract::CLAIMS {
        let timeout = opened.node(TxRole::ClaimTimeout(claim)).unwrap();
        for valid in 0..=claim {
            let end = opened.halted(claim, valid).unwrap();
            assert_eq!(end.connector, OutPoint::new(timeout.tx.compute_txid(), 0));
            assert_eq!(end.output.txout(), timeout.tx.output[0]);
            assert_eq!(Some(&end.start), opened.start(valid));
            assert_eq!((end.signer, end.lock), (first.1.recovery, contract::LOCKS.handover_blocks));
            // Nobody announced what comes next.
            let later = epoch_of(&contract::backup_secret(), 1, OutPoint::new(Txid::all_zeros(), 3));
            let next = graph(&later, Some(&end), ANNOUNCE).unwrap();
            assert_eq!(next.start(0), Some(&end.start));
            assert_eq!(next.request(TxRole::Reconfiguration, 0, 0).unwrap().signer, first.1.recovery);
        }
        assert!(opened.halted(claim, claim + 1).is_none());
    }
    assert!(opened.halted(contract::CLAIMS + 1, 0).is_none());
    // A connector that is worth more than the next epoch needs cannot be carried over.
    let mut later = epoch(1, OutPoint::new(Txid::all_zeros(), 3));
    later.1.terms.collateral = Amount::from_sat(400_001);
    let mut end = opened.halted(0, 0).unwrap();
    end.output = assay_l1::graph::connector::ScriptOutput::from_leaves(
        end.output.leaves().to_vec(),
        Amount::from_sat(2_000_000),
    )
    .unwrap();
    assert!(matches!(graph(&later, Some(&end), ANNOUNCE).unwrap_err(), GraphError::Funding { .. }));
}
