//! A small epoch of the contract with three signers.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, BTreeSet};

use assay_l1::graph::contract::build::{funding_value, EpochEnd, Graph, Surroundings};
use assay_l1::graph::contract::keys::EpochKeys;
use assay_l1::graph::contract::spec::ContractSpec;
use assay_l1::graph::transactions::wallet_script;
use assay_l1::{EpochParams, KeyRole, OperatorSecret};
use assay_l1_signer::identity::{Identity, PartyId};
use assay_l1_signer::musig::Attesters;
use assay_l1_signer::policy::{Aggregates, Payees, Policy, VerifierSet};
use assay_l1_signer::review::{member_keys, ContractReviewer};
use assay_l1_signer::statement::{epoch_scope, EpochPublic, Kind, Statement};
use assay_l1_signer::wire::proposal::GraphProposal;
use bitcoin::key::Keypair;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{OutPoint, TxOut};

pub(crate) const TRUNK: [u8; 32] = [7; 32];
pub(crate) const START: [u8; 32] = [1; 32];
pub(crate) const CODE: [u8; 32] = [2; 32];
pub(crate) const ANNOUNCE: [u8; 32] = [0xaa; 32];

pub(crate) fn secret() -> OperatorSecret {
    OperatorSecret::from_bytes([3; 32])
}

pub(crate) fn operator() -> Keypair {
    secret().keypair(&TRUNK, KeyRole::Operator)
}

pub(crate) fn identity(byte: u8) -> Identity {
    Identity::from_bytes(&[byte; 32]).unwrap()
}

/// The identities of three signers.
pub(crate) fn identities() -> Vec<Identity> {
    (11..14).map(identity).collect()
}

pub(crate) fn signers() -> BTreeSet<PartyId> {
    identities().iter().map(Identity::id).collect()
}

fn pair(byte: u8) -> Keypair {
    Keypair::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&[byte; 32]).unwrap())
}

pub(crate) fn policy(claims: u32) -> Policy {
    let params = EpochParams { start_commitment: START, code_root: CODE, verifier_commitment: [9; 32] };
    let key = |pair: Keypair| pair.x_only_public_key().0;
    let payees = Payees { operator: key(operator()), sink: key(pair(0x51)) };
    let regtest = Policy::regtest(TRUNK, payees, params);
    Policy { claims, collateral_blocks: 60, assert_blocks: 6, claim_timeout_blocks: 4, ..regtest }
}

/// Statements of epoch keys that are made of the identities' bytes.
pub(crate) fn statements(epoch: u32) -> Vec<Statement> {
    let scope = epoch_scope(&TRUNK, epoch);
    let mut all: Vec<_> = (11..14)
        .map(|byte: u8| {
            let public = |byte: u8| {
                let key = SecretKey::from_slice(&[byte; 32]).unwrap();
                PublicKey::from_secret_key(&Secp256k1::new(), &key)
            };
            let number = 10 * epoch as u8;
            let keys =
                EpochPublic { epoch: public(byte + 100 + number), recovery: public(byte + 150 + number) };
            Statement::new(&identity(byte), Kind::EpochKey, scope, 0, keys.body())
        })
        .collect();
    all.sort_by_key(|statement| statement.sender);
    all
}

pub(crate) fn spec_and_keys(policy: &Policy, epoch: u32, funding: OutPoint) -> (ContractSpec, EpochKeys) {
    let members = member_keys(&statements(epoch), &signers(), (&TRUNK, epoch)).unwrap();
    let aggregate = |keys: BTreeMap<_, _>| Attesters::new(keys.into_values()).unwrap().key();
    let attesters = Aggregates { epoch: aggregate(members.epoch), recovery: aggregate(members.recovery) };
    let keys = EpochKeys::derive(&secret(), &TRUNK, (epoch, policy.claims), policy.layout());
    (policy.spec_for(epoch, &keys, attesters, funding), keys)
}

pub(crate) fn build(
    spec: &ContractSpec,
    keys: &EpochKeys,
    previous: Option<&EpochEnd>,
    announce: [u8; 32],
) -> Graph {
    let coin =
        TxOut { value: funding_value(spec, previous), script_pubkey: wallet_script(spec.terms.operator_key) };
    let verifier = VerifierSet::None.leaves();
    let verifier = verifier.as_ref();
    Graph::build(spec, Surroundings { keys, verifier, coin: &coin, previous, announce }).unwrap()
}

/// A valid proposal and the graph.
pub(crate) fn valid(policy: &Policy, funding: OutPoint) -> (GraphProposal, Graph) {
    let (spec, keys) = spec_and_keys(policy, 0, funding);
    let graph = build(&spec, &keys, None, ANNOUNCE);
    let proposal = GraphProposal {
        spec,
        attesters: statements(0),
        previous: None,
        before: Vec::new(),
        graph: graph.proposal(&keys),
    };
    (proposal, graph)
}

pub(crate) fn reviewer(policy: &Policy) -> ContractReviewer {
    ContractReviewer::new(policy.clone(), signers(), VerifierSet::None.leaves())
}

pub(crate) type Ends = BTreeMap<u32, Vec<u8>>;
