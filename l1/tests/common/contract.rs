//! An epoch of the contract for tests: small, with a verifier of one leaf.

#![allow(dead_code, reason = "each test binary uses its part")]

use assay_l1::graph::connector::ScriptOutput;
use assay_l1::graph::contract::build::{funding_value, EpochEnd, Graph, GraphError, Surroundings};
use assay_l1::graph::contract::keys::{AssertValue, EpochKeys};
use assay_l1::graph::contract::scripts::VerifierLeaves;
use assay_l1::graph::contract::sign::SigningRequest;
use assay_l1::graph::contract::spec::{AssertLayout, ContractSpec, GameLocks};
use assay_l1::graph::terms::{ClaimValue, EpochTerms};
use assay_l1::graph::transactions::wallet_script;
use assay_l1::script::compare::{differ, restore, set_aside};
use assay_l1::script::winternitz;
use assay_l1::wots::guard::UseGuard;
use assay_l1::wots::{KeyId, Signature};
use assay_l1::{EpochParams, KeyRole, OperatorSecret, TimeLocks};
use bitcoin::key::Keypair;
use bitcoin::script::Builder;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Amount, OutPoint, TxOut};

pub(crate) const TRUNK: [u8; 32] = [7; 32];
pub(crate) const START: [u8; 32] = [1; 32];
pub(crate) const CODE: [u8; 32] = [2; 32];
pub(crate) const CLAIMS: u32 = 3;
pub(crate) const COLLATERAL: Amount = Amount::from_sat(1_000_000);
/// One slot of a word, two of hashes.
pub(crate) const LAYOUT: AssertLayout = AssertLayout { words: 1, hashes: 13 };
pub(crate) const LOCKS: GameLocks = GameLocks::REGTEST;

/// A verifier of one step: hashes 0 and 12 of an assertion must be equal.
pub(crate) struct EqualEnds;

impl VerifierLeaves for EqualEnds {
    fn id(&self) -> [u8; 32] {
        [0xe0; 32]
    }

    fn count(&self) -> usize {
        1
    }

    fn body(&self, builder: Builder, keys: &assay_l1::graph::contract::keys::GameKeys, _: usize) -> Builder {
        let count = keys.hashes[0].size().message_digits();
        let builder = set_aside(winternitz::verify(builder, &keys.hashes[0]), count);
        let builder = restore(winternitz::verify(builder, &keys.hashes[12]), count);
        differ(builder, count).push_int(1)
    }
}

pub(crate) fn secret() -> OperatorSecret {
    OperatorSecret::from_bytes([3; 32])
}

/// Of the operator who takes over.
pub(crate) fn backup_secret() -> OperatorSecret {
    OperatorSecret::from_bytes([4; 32])
}

pub(crate) fn pair(seed: u8) -> Keypair {
    Keypair::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&[seed; 32]).unwrap())
}

/// Stands for the attesters' aggregated key of an epoch.
pub(crate) fn attesters(epoch: u32) -> Keypair {
    pair(0x41 + epoch as u8)
}

/// Stands for their key for hand-overs.
pub(crate) fn recovery(epoch: u32) -> Keypair {
    pair(0x61 + epoch as u8)
}

/// The attesters' key that a request names.
pub(crate) fn signer(request: &SigningRequest) -> Keypair {
    let all = (0..4).flat_map(|epoch| [attesters(epoch), recovery(epoch)]);
    all.into_iter().find(|pair| pair.x_only_public_key().0 == request.signer).unwrap()
}

pub(crate) fn sink() -> Keypair {
    pair(0x51)
}

pub(crate) fn operator(secret: &OperatorSecret) -> Keypair {
    secret.keypair(&TRUNK, KeyRole::Operator)
}

/// Keys and spec of an epoch that `funding` pays for.
pub(crate) fn epoch(number: u32, funding: OutPoint) -> (EpochKeys, ContractSpec) {
    epoch_of(&secret(), number, funding)
}

/// The same of any operator.
pub(crate) fn epoch_of(secret: &OperatorSecret, number: u32, funding: OutPoint) -> (EpochKeys, ContractSpec) {
    let keys = EpochKeys::derive(secret, &TRUNK, (number, CLAIMS), LAYOUT);
    let locks = TimeLocks { cadence_blocks: 2, collateral_blocks: 60 };
    // The state that a later epoch starts at is not known when it is announced.
    let start_commitment = if number == 0 { START } else { [0; 32] };
    let params = EpochParams { start_commitment, code_root: CODE, verifier_commitment: [9; 32] };
    let spec = ContractSpec {
        terms: EpochTerms::new(secret, TRUNK, number, params, (locks, CLAIMS, COLLATERAL)),
        attesters: attesters(number).x_only_public_key().0,
        recovery: recovery(number).x_only_public_key().0,
        sink: sink().x_only_public_key().0,
        locks: LOCKS,
        challenge_deposit: Amount::from_sat(20_000),
        slashed_to_sink: Amount::from_sat(400_000),
        layout: LAYOUT,
        assert_key_commitment: keys.assert_commitment(),
        verifier_leaves: EqualEnds.id(),
        funding,
    };
    (keys, spec)
}

/// The output that must be at the spec's funding outpoint.
pub(crate) fn coin(spec: &ContractSpec, previous: Option<&EpochEnd>) -> TxOut {
    TxOut { value: funding_value(spec, previous), script_pubkey: wallet_script(spec.terms.operator_key) }
}

pub(crate) fn graph(
    (keys, spec): &(EpochKeys, ContractSpec),
    previous: Option<&EpochEnd>,
    announce: [u8; 32],
) -> Result<Graph, GraphError> {
    let coin = coin(spec, previous);
    Graph::build(spec, Surroundings { keys, verifier: &EqualEnds, coin: &coin, previous, announce })
}

/// One-time signatures, from a record of their own.
pub(crate) fn sign(secret: &OperatorSecret, values: &[(KeyId, Vec<u8>)]) -> Vec<Signature> {
    let dir = tempfile::tempdir().unwrap();
    let mut guard = UseGuard::open(&dir.path().join("wots.json")).unwrap();
    let values: Vec<_> = values.iter().map(|(id, value)| (id.clone(), value.as_slice())).collect();
    guard.sign(secret, &values).unwrap()
}

/// Witness items of signatures, the first one's on top.
pub(crate) fn items(values: &[(KeyId, Vec<u8>)]) -> Vec<Vec<u8>> {
    items_of(&secret(), values)
}

/// The same of any operator.
pub(crate) fn items_of(secret: &OperatorSecret, values: &[(KeyId, Vec<u8>)]) -> Vec<Vec<u8>> {
    sign(secret, values).iter().rev().flat_map(winternitz::witness).collect()
}

/// State after `index` batches.
pub(crate) fn state(index: u32) -> [u8; 32] {
    if index == 0 {
        return START;
    }
    blake3::hash(&index.to_le_bytes()).into()
}

/// The honest values of a claim of epoch 0.
pub(crate) fn claim_values(claim: u32) -> [[u8; 32]; 5] {
    values_between(claim, claim + 1)
}

/// The values of a claim from one state to another.
pub(crate) fn values_between(from: u32, to: u32) -> [[u8; 32]; 5] {
    with_digest([state(from), state(to), [0x30 + from as u8; 32], CODE, [0; 32]])
}

/// The values with the digest that they have.
pub(crate) fn with_digest(mut values: [[u8; 32]; 5]) -> [[u8; 32]; 5] {
    values[4] = blake3::hash(&values[..4].concat()).into();
    values[4][0] &= 0x1f;
    values
}

/// Values of a claim of epoch 0 under their keys.
pub(crate) fn named(claim: u32, values: &[[u8; 32]; 5]) -> Vec<(KeyId, Vec<u8>)> {
    named_in(0, claim, values)
}

/// Values of a claim under their keys.
pub(crate) fn named_in(epoch: u32, claim: u32, values: &[[u8; 32]; 5]) -> Vec<(KeyId, Vec<u8>)> {
    let named = ClaimValue::ALL.iter().zip(values);
    named.map(|(value, bytes)| (value.key_id(TRUNK, epoch, claim), bytes.to_vec())).collect()
}

/// A value of an assertion under its key.
pub(crate) fn asserted(claim: u32, value: AssertValue, byte: u8) -> (KeyId, Vec<u8>) {
    (value.key_id(TRUNK, 0, claim), vec![byte; value.size().bytes()])
}

/// Number of the last leaf.
pub(crate) fn last_leaf(output: &ScriptOutput) -> usize {
    output.leaves().len() - 1
}
