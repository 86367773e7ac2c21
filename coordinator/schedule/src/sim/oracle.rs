//! The only right results: "content" is a 64-bit number computed from the contents of the inputs.

use std::collections::BTreeMap;

use super::rng::mix;
use crate::{Hash, Kind};

pub(super) fn hash_of(content: u64) -> Hash {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&content.to_le_bytes());
    Hash(bytes)
}

pub(super) fn content_of(hash: Hash) -> u64 {
    u64::from_le_bytes(hash.0[..8].try_into().expect("eight bytes"))
}

const FORGED: u64 = 0xf026_ed00 << 32;

/// What no part can be proved from.
pub(super) fn forged(content: u64) -> u64 {
    FORGED | mix(content) >> 32
}

pub(super) fn is_forged(content: u64) -> bool {
    content >> 32 == FORGED >> 32
}

fn derive(kind: Kind, inputs: &[u64]) -> u64 {
    inputs.iter().fold(mix(kind as u64 + 1), |sum, input| mix(sum ^ input.rotate_left(17)))
}

/// The right outputs of a task that is no controller's. The first input of a part is a header, which differs with each
/// attempt and has no influence.
pub(super) fn outputs_of(kind: Kind, inputs: &[u64]) -> Vec<u64> {
    let inputs = if kind.is_part() { &inputs[1..] } else { inputs };
    let seed = derive(kind, inputs);
    let count = match kind {
        Kind::Execute => 1 + seed % 2,
        // Some shards have deferred events, which are shards of their own later.
        Kind::Shard => 1 + seed % 2,
        _ => 1,
    };
    (0..count).map(|index| mix(seed.wrapping_add(index))).collect()
}

/// A part that a controller wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub kind: Kind,
    pub key: Hash,
    /// Without the header.
    pub inputs: Vec<u64>,
}

impl Wanted {
    fn new(kind: Kind, inputs: Vec<u64>) -> Self {
        let key = hash_of(derive(kind, &inputs) ^ 0x6b65_7900);
        Self { kind, key, inputs }
    }

    /// Its right outputs.
    pub(super) fn outputs(&self) -> Vec<u64> {
        let inputs: Vec<u64> = std::iter::once(0).chain(self.inputs.iter().copied()).collect();
        outputs_of(self.kind, &inputs)
    }
}

/// Whether a part's key is the one of its inputs.
pub(super) fn is_right_key(kind: Kind, key: Hash, inputs: &[u64]) -> bool {
    Wanted::new(kind, inputs[1..].to_vec()).key == key
}

/// What a controller does next.
pub(super) enum Plan {
    /// It wants these.
    Ask(Vec<Wanted>),
    /// It has its output.
    Done(u64),
}

/// Next step of a controller with these inputs, given the outputs of its parts so far by key.
pub(super) fn plan(kind: Kind, inputs: &[u64], results: &BTreeMap<Hash, Vec<u64>>) -> Plan {
    let seed = derive(kind, inputs);
    let shards: Vec<Wanted> = match kind {
        Kind::Fold => vec![Wanted::new(Kind::Shard, vec![seed])],
        _ => (0..1 + seed % 3).map(|n| Wanted::new(Kind::Shard, vec![mix(seed.wrapping_add(n))])).collect(),
    };
    let Some(mut outputs) = all(&shards, results) else { return Plan::Ask(missing(shards, results)) };
    let deferred: Vec<u64> = outputs.iter().filter_map(|outputs| outputs.get(1).copied()).collect();
    if !deferred.is_empty() {
        let shard = vec![Wanted::new(Kind::Shard, deferred)];
        let Some(more) = all(&shard, results) else { return Plan::Ask(missing(shard, results)) };
        outputs.extend(more);
    }
    let mut layer: Vec<u64> = outputs.into_iter().map(|outputs| outputs[0]).collect();
    if kind == Kind::Fold {
        layer.extend(inputs);
    }
    loop {
        let joins: Vec<Wanted> =
            layer.chunks(2).map(|pair| Wanted::new(Kind::Reduce, pair.to_vec())).collect();
        let Some(joined) = all(&joins, results) else { return Plan::Ask(missing(joins, results)) };
        layer = joined.into_iter().map(|outputs| outputs[0]).collect();
        if layer.len() == 1 {
            return Plan::Done(mix(layer[0] ^ kind as u64));
        }
    }
}

fn all(wanted: &[Wanted], results: &BTreeMap<Hash, Vec<u64>>) -> Option<Vec<Vec<u64>>> {
    wanted.iter().map(|wanted| results.get(&wanted.key).cloned()).collect()
}

fn missing(wanted: Vec<Wanted>, results: &BTreeMap<Hash, Vec<u64>>) -> Vec<Wanted> {
    wanted.into_iter().filter(|wanted| !results.contains_key(&wanted.key)).collect()
}

/// The right output of a controller.
pub(super) fn controlled(kind: Kind, inputs: &[u64]) -> u64 {
    let mut results = BTreeMap::new();
    loop {
        match plan(kind, inputs, &results) {
            Plan::Done(output) => return output,
            Plan::Ask(wanted) => {
                results.extend(wanted.iter().map(|wanted| (wanted.key, wanted.outputs())));
            }
        }
    }
}

/// The right outputs of any task.
pub(super) fn right_outputs(kind: Kind, inputs: &[u64]) -> Vec<u64> {
    if kind.is_controller() {
        vec![controlled(kind, inputs)]
    } else {
        outputs_of(kind, inputs)
    }
}

/// The right fold proof and final proof of a batch.
pub(super) fn proofs(payload: u64, previous: Option<u64>) -> (u64, u64) {
    let witnesses = outputs_of(Kind::Execute, &[payload]);
    let mut inputs: Vec<u64> =
        witnesses.into_iter().map(|witness| controlled(Kind::Block, &[witness])).collect();
    inputs.extend(previous);
    let fold = controlled(Kind::Fold, &inputs);
    let wrap = outputs_of(Kind::Wrap, &[fold])[0];
    (fold, outputs_of(Kind::Groth16, &[wrap])[0])
}
