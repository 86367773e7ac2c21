//! The leaves of the contract. In every witness the attesters' signature is on top.

use std::sync::OnceLock;

use bitcoin::opcodes::all::{OP_CHECKSIG, OP_CHECKSIGVERIFY};
use bitcoin::script::Builder;
use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::ScriptBuf;

use super::build::Start;
use super::keys::GameKeys;
use super::spec::{ContractSpec, Slot};
use crate::graph::connector::{signed_values, time_lock};
use crate::graph::terms::ClaimValue;
use crate::script::compare::{differ, drop_value, restore, set_aside};
use crate::script::{blake3, winternitz};
use crate::wots::PublicKey;

/// Bytes under the claim's digest: four values.
const DIGEST_INPUT_BYTES: usize = 128;

/// The steps of a verifier of the claim's proof, each in a leaf that succeeds if the operator signed a wrong result for it.
///
/// A leaf's body starts with the witness of its own items on the stack (the attesters' signature is checked before it)
/// and ends with one true value. It may use the keys of the claim's values, of which the digest is the proof's public input,
/// and those of the assertion. Scripts are made when asked for: a set may have gigabytes.
pub trait VerifierLeaves {
    /// Names the set and its version; two sets with one id have the same scripts.
    fn id(&self) -> [u8; 32];
    /// Leaves of each claim.
    fn count(&self) -> usize;
    /// Appends the body of leaf `index`, below [`count`](Self::count), to `builder`.
    fn body(&self, builder: Builder, keys: &GameKeys, index: usize) -> Builder;
}

/// No verifier: claims can be disproved by their values only, and nothing on the chain checks the proof. The
/// contract's place for the chunked verifier, until that is there.
#[derive(Debug, Clone, Copy)]
pub struct NoVerifier;

impl VerifierLeaves for NoVerifier {
    fn id(&self) -> [u8; 32] {
        [0; 32]
    }

    fn count(&self) -> usize {
        0
    }

    fn body(&self, builder: Builder, _: &GameKeys, _: usize) -> Builder {
        builder
    }
}

/// `<key> CHECKSIG`.
pub(super) fn signed(key: &XOnlyPublicKey) -> ScriptBuf {
    Builder::new().push_x_only_key(key).push_opcode(OP_CHECKSIG).into_script()
}

/// `<blocks> CSV DROP <key> CHECKSIG`.
pub(super) fn signed_after(key: &XOnlyPublicKey, blocks: u16) -> ScriptBuf {
    time_lock(Builder::new(), blocks).push_x_only_key(key).push_opcode(OP_CHECKSIG).into_script()
}

fn attested(spec: &ContractSpec) -> Builder {
    Builder::new().push_x_only_key(&spec.attesters).push_opcode(OP_CHECKSIGVERIFY)
}

/// Attesters and operator.
pub(super) fn both(spec: &ContractSpec) -> ScriptBuf {
    attested(spec).push_x_only_key(&spec.terms.operator_key).push_opcode(OP_CHECKSIG).into_script()
}

/// Attesters and operator, after the cadence.
pub(super) fn next_epoch(spec: &ContractSpec) -> ScriptBuf {
    time_lock(attested(spec), spec.terms.locks.cadence_blocks)
        .push_x_only_key(&spec.terms.operator_key)
        .push_opcode(OP_CHECKSIG)
        .into_script()
}

/// A claim: attesters, cadence, operator, the five signed values. Below the attesters' signature: the operator's, then the
/// values' items as in [`claim_script`](crate::graph::connector::claim_script).
/// The previous root is a constant if the claim starts at a commitment.
pub(super) fn claim(spec: &ContractSpec, start_of: &Start, keys: &GameKeys) -> ScriptBuf {
    let start = time_lock(attested(spec), spec.terms.locks.cadence_blocks)
        .push_x_only_key(&spec.terms.operator_key)
        .push_opcode(OP_CHECKSIGVERIFY);
    signed_values(start, &spec.terms.params.code_root, start_of.commitment(), &keys.claim)
}

/// The keys of a slot's values, words first.
#[must_use]
pub fn slot_keys<'a>(keys: &'a GameKeys, slot: &Slot) -> Vec<&'a PublicKey> {
    let range = |range: &std::ops::Range<u16>| usize::from(range.start)..usize::from(range.end);
    keys.words[range(&slot.words)].iter().chain(&keys.hashes[range(&slot.hashes)]).collect()
}

/// An assert slot: attesters, operator, and the slot's signed values, the first one's items on top.
pub(super) fn slot(spec: &ContractSpec, keys: &GameKeys, slot: &Slot) -> ScriptBuf {
    let start = attested(spec).push_x_only_key(&spec.terms.operator_key).push_opcode(OP_CHECKSIGVERIFY);
    let checked = slot_keys(keys, slot).into_iter().fold(start, |builder, key| {
        drop_value(winternitz::verify(builder, key), key.size().message_digits())
    });
    checked.push_int(1).into_script()
}

/// Verifies signatures under `keys`, the first one's items on top, and leaves the values, the first one on top.
fn values(builder: Builder, keys: &[&PublicKey]) -> Builder {
    let builder = keys.iter().fold(builder, |builder, key| {
        set_aside(winternitz::verify(builder, key), key.size().message_digits())
    });
    keys.iter().rev().fold(builder, |builder, key| restore(builder, key.size().message_digits()))
}

/// The hash of four values: the same bytes in every claim, and most of the script, so made once.
fn digest_script() -> &'static [u8] {
    static SCRIPT: OnceLock<Vec<u8>> = OnceLock::new();
    SCRIPT.get_or_init(|| {
        blake3::hash(Builder::new(), DIGEST_INPUT_BYTES).expect("four values fit").into_bytes()
    })
}

/// Succeeds if the signed digest is not BLAKE3 of the four values signed beside it, top bits cleared.
///
/// Below the attesters' signature: the items of the five values as in the claim. Catches a wrong public input.
pub(super) fn disprove_input(spec: &ContractSpec, keys: &GameKeys) -> ScriptBuf {
    let all: Vec<_> = keys.claim.0.iter().collect();
    let builder = values(attested(spec), &all);
    let script = [builder.into_bytes().as_slice(), digest_script()].concat();
    let builder = blake3::clear_top_bits(Builder::from(script));
    differ(builder, blake3::HASH_DIGITS).push_int(1).into_script()
}

/// Succeeds if a claim does not start where the one before it ended, in this epoch or the last: its signed previous root is
/// not the new root signed there under `new`. Below the attesters' signature: the items of this claim's previous root, then
/// those of the new root before.
pub(super) fn disprove_link(spec: &ContractSpec, new: &PublicKey, keys: &GameKeys) -> ScriptBuf {
    let previous = &keys.claim.0[ClaimValue::PrevRoot as usize];
    let builder = values(attested(spec), &[previous, new]);
    differ(builder, previous.size().message_digits()).push_int(1).into_script()
}

/// Leaf `index` of a verifier, with the contract's frame around it.
#[must_use]
pub fn verifier_leaf(
    spec: &ContractSpec,
    keys: &GameKeys,
    leaves: &dyn VerifierLeaves,
    index: usize,
) -> ScriptBuf {
    leaves.body(attested(spec), keys, index).into_script()
}
