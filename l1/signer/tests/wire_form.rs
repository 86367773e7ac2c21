//! The wire form of a graph: only the one encoding of the one graph passes, whichever field or byte differs.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/epoch.rs"]
mod epoch;
#[path = "../../tests/common/mutations.rs"]
mod mutations;

use assay_l1::graph::contract::build::{EndKind, EpochEnd, Graph, GraphError, Start, TxRole};
use assay_l1::graph::contract::review::{compare, Refusal};
use assay_l1::graph::contract::spec::ContractSpec;
use assay_l1_signer::musig::Attesters;
use assay_l1_signer::policy::Policy;
use assay_l1_signer::review::{member_keys, ReviewError, Reviewer};
use assay_l1_signer::statement::{epoch_scope, Kind, Statement};
use assay_l1_signer::wire::message::{Reply, Request};
use assay_l1_signer::wire::proposal::{decode_end, encode_end, graph_id, GraphProposal};
use assay_l1_signer::wire::WireError;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Txid, XOnlyPublicKey};
use epoch::{identity, policy, reviewer, signers, spec_and_keys, valid, Ends, ANNOUNCE, TRUNK};
use mutations::mutations;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::OnceLock;

fn funding() -> OutPoint {
    OutPoint::new(Txid::from_byte_array([5; 32]), 1)
}

/// The valid proposal of one claim, its graph and its bytes.
fn good() -> &'static (GraphProposal, Graph, Vec<u8>) {
    static GOOD: OnceLock<(GraphProposal, Graph, Vec<u8>)> = OnceLock::new();
    GOOD.get_or_init(|| {
        let (proposal, graph) = valid(&policy(1), funding());
        let bytes = proposal.encode().unwrap();
        (proposal, graph, bytes)
    })
}

fn judge(bytes: &[u8]) -> Result<(), ReviewError> {
    reviewer(&policy(1)).review(bytes, &Ends::new()).map(drop)
}

/// What [`judge`] does, with the graph built already: it would take a third of a second each time.
///
/// The order and the checks are those of the reviewer, up to the building of the graph: a spec that gets that far and is not the
/// good one is left to [`judge`], if the test has the time.
fn judge_fast(policy: &Policy, own: &Graph, bytes: &[u8], thorough: bool) -> Result<(), String> {
    let proposal = GraphProposal::decode(bytes).map_err(|error| error.to_string())?;
    if let Some(field) = policy.difference(&proposal.spec) {
        return Err(field.to_owned());
    }
    let epoch = proposal.spec.terms.epoch;
    let members =
        member_keys(&proposal.attesters, &signers(), (&TRUNK, epoch)).map_err(|error| error.to_string())?;
    let is = |keys: BTreeMap<_, _>, key| Attesters::new(keys.into_values()).unwrap().key() == key;
    let same_keys =
        is(members.epoch, proposal.spec.attesters) && is(members.recovery, proposal.spec.recovery);
    if !same_keys || proposal.previous.is_some() || !proposal.before.is_empty() {
        return Err("attesters or epoch before".to_owned());
    }
    if proposal.spec != *own.spec() || proposal.graph.announce != own.announced() {
        return if thorough {
            judge(bytes).map_err(|error| error.to_string())
        } else {
            Err("not built".into())
        };
    }
    if !proposal.graph.keys.belong_to(&proposal.spec) {
        return Err("keys".to_owned());
    }
    compare(own, &proposal.graph).map_err(|refusal| refusal.to_string())
}

#[test]
fn the_valid_proposal_passes_and_everyone_gets_the_same_messages() {
    let (proposal, graph, bytes) = good();
    assert_eq!(GraphProposal::decode(bytes).unwrap(), *proposal);
    let reviewed = reviewer(&policy(1)).review(bytes, &Ends::new()).unwrap();
    let own: Vec<_> = graph.requests().map(|request| request.message).collect();
    assert_eq!(*reviewed.messages, own);
    assert_eq!(reviewed.group.attesters.key(), proposal.spec.attesters);
    assert!(reviewed.before.is_none());
    assert_eq!(decode_end(&reviewed.end).unwrap(), *graph.end());
    judge_fast(&policy(1), graph, bytes, true).unwrap();
}

#[test]
fn bytes_that_differ_anywhere_are_refused() {
    let (_, own, bytes) = good();
    let policy = policy(1);
    let (mut tried, mut decoded) = (0, 0);
    // Every byte of the spec and the statements; then every third, which meets every hash, output and message.
    for at in (0..1_000).chain((1_000..bytes.len()).step_by(3)) {
        let mut other = bytes.clone();
        other[at] ^= 1;
        assert!(judge_fast(&policy, own, &other, at % 8 == 0).is_err(), "byte {at}");
        assert_ne!(graph_id(&other), graph_id(bytes));
        tried += 1;
        decoded += usize::from(GraphProposal::decode(&other).is_ok());
    }
    assert!(decoded > tried / 2, "most of them decode: {decoded} of {tried}");
    for cut in [0, 1, 4, 5, 100, bytes.len() - 1] {
        assert!(GraphProposal::decode(&bytes[..cut]).is_err());
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert_eq!(GraphProposal::decode(&longer).unwrap_err(), WireError::Surplus { count: 1 });
}

/// A key that is nobody's here.
fn other_key() -> XOnlyPublicKey {
    XOnlyPublicKey::from_slice(&identity(99).id().0).unwrap()
}

#[test]
fn every_field_of_every_transaction_that_differs_is_refused() {
    let (good, own, _) = good();
    let policy = policy(1);
    let mut count = 0;
    for (role, tx) in &good.graph.transactions {
        for (name, other) in mutations(tx, other_key()) {
            let mut proposal = good.clone();
            proposal.graph.transactions.insert(*role, other);
            let bytes = proposal.encode().unwrap();
            assert!(judge_fast(&policy, own, &bytes, true).is_err(), "{role}: {name}");
            count += 1;
        }
        let mut fewer = good.clone();
        fewer.graph.transactions.remove(role);
        let refused = judge_fast(&policy, own, &fewer.encode().unwrap(), true).unwrap_err();
        assert_eq!(refused, Refusal::Missing { role: *role }.to_string());
    }
    assert!(count > 400, "{count} mutations were tried");
    let mut more = good.clone();
    let claim = more.graph.transactions[&TxRole::Claim(0)].clone();
    more.graph.transactions.insert(TxRole::Claim(1), claim);
    let refused = judge(&more.encode().unwrap()).unwrap_err();
    assert_eq!(refused, ReviewError::Graph(Refusal::Surplus { role: TxRole::Claim(1) }));
}

#[test]
fn every_field_of_the_spec_that_differs_is_refused_by_its_name() {
    type Change<'a> = &'a dyn Fn(&mut ContractSpec);
    let key = other_key();
    let policy_fields: [(&str, Change<'_>); 21] = [
        ("trunk", &|spec| spec.terms.trunk_id[0] ^= 1),
        ("start", &|spec| spec.terms.params.start_commitment[0] ^= 1),
        ("code root", &|spec| spec.terms.params.code_root[0] ^= 1),
        ("verifier commitment", &|spec| spec.terms.params.verifier_commitment[0] ^= 1),
        ("operator's key", &|spec| spec.terms.operator_key = key),
        ("time locks", &|spec| spec.terms.locks.cadence_blocks += 1),
        ("time locks", &|spec| spec.terms.locks.collateral_blocks += 1),
        ("number of claims", &|spec| spec.terms.claims_max += 1),
        ("collateral", &|spec| spec.terms.collateral += Amount::from_sat(1)),
        ("sink", &|spec| spec.sink = key),
        ("game's locks", &|spec| spec.locks.challenge_blocks -= 1),
        ("game's locks", &|spec| spec.locks.assert_blocks -= 1),
        ("game's locks", &|spec| spec.locks.disprove_blocks -= 1),
        ("game's locks", &|spec| spec.locks.claim_timeout_blocks += 1),
        ("game's locks", &|spec| spec.locks.sink_blocks += 1),
        ("game's locks", &|spec| spec.locks.handover_blocks -= 1),
        ("challenge deposit", &|spec| spec.challenge_deposit += Amount::from_sat(1)),
        ("slashed part", &|spec| spec.slashed_to_sink += Amount::from_sat(1)),
        ("assert layout", &|spec| spec.layout.words += 1),
        ("assert layout", &|spec| spec.layout.hashes += 1),
        ("verifier leaves", &|spec| spec.verifier_leaves[0] ^= 1),
    ];
    let with = |change: Change<'_>| {
        let mut proposal = good().0.clone();
        change(&mut proposal.spec);
        judge(&proposal.encode().unwrap()).unwrap_err()
    };
    for (field, change) in policy_fields {
        assert_eq!(with(change), ReviewError::Policy { field });
    }
    assert_eq!(with(&|spec| spec.attesters = key), ReviewError::Attesters);
    assert_eq!(with(&|spec| spec.recovery = key), ReviewError::Recovery);
    // Later epochs have no start of their own, and the statements are about epoch 0.
    assert_eq!(with(&|spec| spec.terms.epoch = 1), ReviewError::Policy { field: "start" });
    let later = |spec: &mut ContractSpec| {
        spec.terms.epoch = 1;
        spec.terms.params.start_commitment = [0; 32];
    };
    assert_eq!(with(&later), ReviewError::Statement { index: 0 });
    let keys = ReviewError::Graph(Refusal::Graph(GraphError::Keys));
    assert_eq!(with(&|spec| spec.terms.key_commitment[0] ^= 1), keys);
    assert_eq!(with(&|spec| spec.assert_key_commitment[0] ^= 1), keys);
    assert!(matches!(with(&|spec| spec.funding.vout ^= 1), ReviewError::Graph(Refusal::Differs { .. })));
}

#[test]
fn a_whole_other_graph_that_fits_itself_is_refused_by_the_policy() {
    // Everything is made anew for a spec that the parties did not agree on.
    let other = Policy { slashed_to_sink_sat: 300_000, ..policy(1) };
    let (proposal, _) = valid(&other, funding());
    let bytes = proposal.encode().unwrap();
    reviewer(&other).review(&bytes, &Ends::new()).unwrap();
    assert_eq!(judge(&bytes).unwrap_err(), ReviewError::Policy { field: "slashed part" });
}

#[test]
fn statements_about_the_keys_are_of_all_signers_in_order_and_about_this_epoch() {
    let with = |change: &dyn Fn(&mut Vec<Statement>)| {
        let mut proposal = good().0.clone();
        change(&mut proposal.attesters);
        judge(&proposal.encode().unwrap()).unwrap_err()
    };
    let at = |index| ReviewError::Statement { index };
    assert_eq!(with(&|all| all.swap(0, 1)), at(0));
    assert_eq!(with(&|all| drop(all.pop())), at(2));
    assert_eq!(with(&|all| all.push(all[0].clone())), at(3));
    assert_eq!(with(&|all| all[1].signature[9] ^= 1), at(1));
    assert_eq!(with(&|all| all[1].body[9] ^= 1), at(1));
    // A stranger's, and another epoch's, both signed.
    let key = good().0.attesters[2].body.clone();
    let stranger = Statement::new(&identity(50), Kind::EpochKey, epoch_scope(&TRUNK, 0), 0, key.clone());
    assert_eq!(with(&|all| all[2] = stranger.clone()), at(2));
    let sender = good().0.attesters[2].sender;
    let own = epoch::identities().into_iter().find(|own| own.id() == sender).unwrap();
    let later = Statement::new(&own, Kind::EpochKey, epoch_scope(&TRUNK, 1), 0, key);
    assert_eq!(with(&|all| all[2] = later.clone()), at(2));
}

/// A second epoch on a first one: the policy, both graphs and the proposal of the second.
fn second_epoch() -> (Policy, [Graph; 2], GraphProposal) {
    let policy = policy(1);
    let second = spec_and_keys(&policy, 1, funding());
    let (spec, keys) = spec_and_keys(&policy, 0, OutPoint::new(Txid::from_byte_array([6; 32]), 0));
    let first = epoch::build(&spec, &keys, None, second.0.id());
    let graph = epoch::build(&second.0, &second.1, Some(first.end()), ANNOUNCE);
    let proposal = GraphProposal {
        spec: second.0,
        attesters: epoch::statements(1),
        previous: Some(first.end().clone()),
        before: epoch::statements(0),
        graph: graph.proposal(&second.1),
    };
    (policy, [first, graph], proposal)
}

#[test]
fn the_epoch_before_is_the_one_that_the_signer_signed() {
    let (policy, [first, graph], proposal) = second_epoch();
    let bytes = proposal.encode().unwrap();
    assert_eq!(GraphProposal::decode(&bytes).unwrap(), proposal);
    let judge = |bytes: &[u8], ends: &Ends| reviewer(&policy).review(bytes, ends);
    let refused =
        |proposal: &GraphProposal, ends: &Ends| judge(&proposal.encode().unwrap(), ends).unwrap_err();
    let ends = Ends::from([(0, encode_end(first.end()))]);
    let reviewed = judge(&bytes, &ends).unwrap();
    assert_eq!(
        reviewed.before.unwrap().attesters.key(),
        first.spec().attesters,
        "the opening is the epoch before's"
    );
    let signers: Vec<_> = graph.requests().map(|request| request.signer).collect();
    assert_eq!(signers[0], first.spec().attesters);
    assert!(signers[1..].iter().all(|signer| *signer == proposal.spec.attesters));
    assert_eq!(judge(&bytes, &Ends::new()).unwrap_err(), ReviewError::Previous);

    type Change<'a> = (&'a str, &'a dyn Fn(&mut EpochEnd));
    let changes: [Change<'_>; 8] = [
        ("number", &|end| end.epoch = 4),
        ("trunk", &|end| end.trunk_id[0] ^= 1),
        ("connector", &|end| end.connector.vout ^= 1),
        ("start", &|end| end.start = Start::Commitment([1; 32])),
        ("lock", &|end| end.lock ^= 1),
        ("signer", &|end| end.signer = other_key()),
        ("announcement", &|end| end.kind = EndKind::Announced([1; 32])),
        ("kind", &|end| end.kind = EndKind::Halted),
    ];
    for (name, change) in changes {
        let mut other = proposal.clone();
        let end = other.previous.as_mut().unwrap();
        change(end);
        let encoded = encode_end(end);
        assert_eq!(decode_end(&encoded).unwrap(), *end, "{name}");
        assert_eq!(refused(&other, &ends), ReviewError::Previous, "{name}");
        // With a record that agrees the graph is another one, or there is none; the kind, which is not in the graph, says
        // which key opens it.
        let agreeing = Ends::from([(0, encoded)]);
        let refused = judge(&other.encode().unwrap(), &agreeing).map(drop);
        match name {
            "kind" => assert_eq!(refused, Err(ReviewError::Before)),
            _ => assert!(refused.is_err(), "{name}"),
        }
    }
    let mut none = proposal.clone();
    none.previous = None;
    assert_eq!(refused(&none, &ends), ReviewError::Previous);
}

#[test]
fn the_epoch_before_announced_this_one_with_keys_that_all_have_stated() {
    let (policy, [first, _], proposal) = second_epoch();
    let ends = Ends::from([(0, encode_end(first.end()))]);
    let refused = |proposal: &GraphProposal, ends: &Ends| {
        reviewer(&policy).review(&proposal.encode().unwrap(), ends).unwrap_err()
    };
    // The signer's record says that another spec was announced.
    let mut end = first.end().clone();
    end.kind = EndKind::Announced([1; 32]);
    let other = GraphProposal { previous: Some(end.clone()), ..proposal.clone() };
    let not_announced = ReviewError::Graph(Refusal::Graph(GraphError::NotAnnounced));
    assert_eq!(refused(&other, &Ends::from([(0, encode_end(&end))])), not_announced);

    // The statements of the epoch before's keys: all of them, in order, about that epoch; and none where there is none.
    let with = |change: &dyn Fn(&mut Vec<Statement>)| {
        let mut other = proposal.clone();
        change(&mut other.before);
        refused(&other, &ends)
    };
    assert_eq!(with(&|all| all.swap(0, 1)), ReviewError::Before);
    assert_eq!(with(&|all| drop(all.pop())), ReviewError::Before);
    assert_eq!(with(&|all| all.clear()), ReviewError::Before);
    assert_eq!(with(&|all| *all = epoch::statements(1)), ReviewError::Before);
    let surplus = GraphProposal { before: epoch::statements(0), ..good().0.clone() };
    assert_eq!(refused(&surplus, &Ends::new()), ReviewError::Before);
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = GraphProposal::decode(&bytes);
        let _ = decode_end(&bytes);
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(request.encode(), bytes.clone());
        }
        if let Ok(reply) = Reply::decode(&bytes) {
            prop_assert_eq!(reply.encode(), bytes);
        }
    }

    #[test]
    fn a_damaged_proposal_is_read_as_what_it_says_or_not_at_all(
        at in 0usize..60_000, cut in 0usize..8, put in proptest::collection::vec(any::<u8>(), 0..8)
    ) {
        let bytes = &good().2;
        let at = at % bytes.len();
        let mut other = bytes.clone();
        other.splice(at..(at + cut).min(bytes.len()), put);
        if let Ok(proposal) = GraphProposal::decode(&other) {
            prop_assert_eq!(proposal.encode().unwrap(), other);
        }
    }

    #[test]
    fn messages_survive_their_encoding(
        round in 1u8..10, scope: [u8; 32], chunk: u32, body in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        let statement = Statement::new(&identity(9), Kind::Nonces, scope, chunk, body.clone());
        let request = match round {
            1 => Request::Key { trunk_id: scope, epoch: chunk },
            2 => Request::Status { trunk_id: scope, epoch: chunk },
            3 => Request::Propose { proposal: body },
            4 => Request::Open { graph: scope, first_chunk: chunk },
            5 => Request::Commits { commits: vec![statement.clone(), statement] },
            6 => Request::Reveal { session: scope, chunk },
            7 => Request::Sign { session: scope, chunk, nonces: vec![statement] },
            8 => Request::Final { epoch: chunk, graph: scope, signatures: vec![[7; 64]; body.len()] },
            _ => Request::Fetch { epoch: chunk },
        };
        let bytes = request.encode();
        prop_assert_eq!(Request::decode(&bytes).unwrap(), request);
        prop_assert!(Request::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
