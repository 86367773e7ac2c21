//! Where trie nodes and contract codes come from: the seam between a witness and a full state.

use alloc::vec::Vec;

use alloy_primitives::{keccak256, map::B256Map, B256};

/// Nodes and codes by their Keccak-256.
///
/// Two implementations: [`WitnessStore`] here, for the guest and for stateless execution on the host, and the recording
/// store of the host crate, which notes what is asked for. What a lookup returns must hash to the hash asked for.
pub trait NodeStore<'a>: core::fmt::Debug {
    /// The encoding of the trie node with this hash.
    fn node(&mut self, hash: &B256) -> Option<&'a [u8]>;

    /// The contract code with this hash.
    fn code(&mut self, hash: &B256) -> Option<&'a [u8]>;

    /// Takes note of a node that execution made. A witness has no use for it.
    fn put_node(&mut self, _hash: B256, _encoded: &[u8]) {}

    /// Takes note of a code that execution made. A witness has no use for it.
    fn put_code(&mut self, _hash: B256, _code: &[u8]) {}
}

/// A deduplicated witness, indexed by the hashes computed here: nothing in it is taken on trust.
#[derive(Debug, Default)]
pub struct WitnessStore<'a> {
    nodes: B256Map<&'a [u8]>,
    codes: B256Map<&'a [u8]>,
}

impl<'a> WitnessStore<'a> {
    /// Hashes and indexes nodes and codes. Cost: one Keccak-256 per item.
    pub fn new(nodes: &[&'a [u8]], codes: &[&'a [u8]]) -> Self {
        let index = |items: &[&'a [u8]]| {
            let mut map = B256Map::with_capacity_and_hasher(items.len(), Default::default());
            items.iter().for_each(|item| {
                map.insert(keccak256(item), *item);
            });
            map
        };
        Self { nodes: index(nodes), codes: index(codes) }
    }

    /// Hashes of the nodes held, in no particular order.
    pub fn node_hashes(&self) -> Vec<B256> {
        self.nodes.keys().copied().collect()
    }
}

impl<'a> NodeStore<'a> for WitnessStore<'a> {
    fn node(&mut self, hash: &B256) -> Option<&'a [u8]> {
        self.nodes.get(hash).copied()
    }

    fn code(&mut self, hash: &B256) -> Option<&'a [u8]> {
        self.codes.get(hash).copied()
    }
}
