//! A full state in memory, and the store that notes what execution touches of it.

use std::collections::BTreeMap;

use alloy_primitives::{keccak256, map::B256Map, B256};
use assay_lvm_core::NodeStore;

/// All trie nodes and codes of a chain's states, by hash. Nothing is ever pruned: it holds small chains and witnesses.
#[derive(Debug, Clone, Default)]
pub struct FullState {
    nodes: B256Map<Box<[u8]>>,
    codes: B256Map<Box<[u8]>>,
}

impl FullState {
    /// Adds a trie node; its hash is computed here.
    pub fn add_node(&mut self, encoded: &[u8]) {
        self.nodes.insert(keccak256(encoded), encoded.into());
    }

    /// Adds a contract code; its hash is computed here.
    pub fn add_code(&mut self, code: &[u8]) -> B256 {
        let hash = keccak256(code);
        self.codes.insert(hash, code.into());
        hash
    }

    /// Adds what execution over a [`RecordingStore`] made.
    pub fn absorb(&mut self, made: Made) {
        self.nodes.extend(made.nodes);
        self.codes.extend(made.codes);
    }
}

/// Nodes and codes that execution made.
#[derive(Debug, Clone, Default)]
pub struct Made {
    nodes: Vec<(B256, Box<[u8]>)>,
    codes: Vec<(B256, Box<[u8]>)>,
}

/// Nodes and codes that execution read, each once, in the order of their hashes.
#[derive(Debug, Clone, Default)]
pub struct Touched<'a> {
    /// Trie nodes by hash.
    pub nodes: BTreeMap<B256, &'a [u8]>,
    /// Contract codes by hash.
    pub codes: BTreeMap<B256, &'a [u8]>,
}

/// Reads a [`FullState`] and notes what is read and made.
///
/// The state transition asks it through the same trie code that runs in the guest, so what it noted is what the guest
/// will ask for, siblings of collapsing branches included.
#[derive(Debug)]
pub struct RecordingStore<'a> {
    base: &'a FullState,
    touched: Touched<'a>,
    made: Made,
}

impl<'a> RecordingStore<'a> {
    /// A store over `base` that has noted nothing yet.
    pub fn new(base: &'a FullState) -> Self {
        Self { base, touched: Touched::default(), made: Made::default() }
    }

    /// What was read, and what was made.
    pub fn finish(self) -> (Touched<'a>, Made) {
        (self.touched, self.made)
    }
}

impl<'a> NodeStore<'a> for RecordingStore<'a> {
    fn node(&mut self, hash: &B256) -> Option<&'a [u8]> {
        let node = self.base.nodes.get(hash)?;
        self.touched.nodes.insert(*hash, node);
        Some(node)
    }

    fn code(&mut self, hash: &B256) -> Option<&'a [u8]> {
        let code = self.base.codes.get(hash)?;
        self.touched.codes.insert(*hash, code);
        Some(code)
    }

    fn put_node(&mut self, hash: B256, encoded: &[u8]) {
        self.made.nodes.push((hash, encoded.into()));
    }

    fn put_code(&mut self, hash: B256, code: &[u8]) {
        self.made.codes.push((hash, code.into()));
    }
}
