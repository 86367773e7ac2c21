//! Encoding and hashing of changed nodes.

use alloc::{borrow::Cow, vec::Vec};

use alloy_primitives::{keccak256, B256};
use alloy_rlp::{Encodable, Header};

use super::{
    node::{Node, Slot, EMPTY_STRING, HASH_PREFIX, HASH_REFERENCE_LEN},
    EMPTY_ROOT,
};
use crate::store::NodeStore;

impl<'a> Slot<'a> {
    /// Hash of the node at the top, which is hashed even if it is short.
    pub(super) fn root<S: NodeStore<'a> + ?Sized>(&mut self, scratch: &mut Vec<u8>, store: &mut S) -> B256 {
        if self.is_empty() {
            return EMPTY_ROOT;
        }
        if let Some(hash) = self.hash() {
            return hash;
        }
        self.refer_below(scratch, store);
        self.encode(scratch);
        let hash = keccak256(&*scratch);
        store.put_node(hash, scratch);
        let node = core::mem::replace(&mut self.node, Node::Empty);
        *self = Self { node, ..Self::hashed(&hash) };
        hash
    }

    /// Makes sure that the reference is known.
    fn refer<S: NodeStore<'a> + ?Sized>(&mut self, scratch: &mut Vec<u8>, store: &mut S) {
        if self.reference.is_some() || self.is_empty() {
            return;
        }
        self.refer_below(scratch, store);
        self.encode(scratch);
        let mut reference = Vec::with_capacity(HASH_REFERENCE_LEN);
        if scratch.len() < 32 {
            reference.extend_from_slice(scratch);
        } else {
            let hash = keccak256(&*scratch);
            store.put_node(hash, scratch);
            reference.push(HASH_PREFIX);
            reference.extend_from_slice(hash.as_slice());
        }
        self.reference = Some(Cow::Owned(reference));
    }

    /// Makes sure that the children's references are known.
    fn refer_below<S: NodeStore<'a> + ?Sized>(&mut self, scratch: &mut Vec<u8>, store: &mut S) {
        match &mut self.node {
            Node::Empty | Node::Unresolved | Node::Leaf(_) => {}
            Node::Extension(extension) => extension.child.refer(scratch, store),
            Node::Branch(branch) => branch.children.iter_mut().for_each(|child| child.refer(scratch, store)),
        }
    }

    /// Writes the node's RLP over `out`; the children's references must be known.
    fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        match &self.node {
            Node::Empty | Node::Unresolved => out.push(EMPTY_STRING),
            Node::Leaf(leaf) => {
                let path = compact(&leaf.path, true);
                let payload_length = path.as_slice().length() + leaf.value.as_ref().length();
                Header { list: true, payload_length }.encode(out);
                path.as_slice().encode(out);
                leaf.value.as_ref().encode(out);
            }
            Node::Extension(extension) => {
                let path = compact(&extension.path, false);
                let child = extension.child.item();
                Header { list: true, payload_length: path.as_slice().length() + child.len() }.encode(out);
                path.as_slice().encode(out);
                out.extend_from_slice(child);
            }
            Node::Branch(branch) => {
                let value = branch.value.as_deref().unwrap_or_default();
                let children: usize = branch.children.iter().map(|child| child.item().len()).sum();
                Header { list: true, payload_length: children + value.length() }.encode(out);
                branch.children.iter().for_each(|child| out.extend_from_slice(child.item()));
                value.encode(out);
            }
        }
    }

    /// The item that stands for this node in its parent.
    fn item(&self) -> &[u8] {
        self.reference.as_deref().unwrap_or(&[EMPTY_STRING])
    }
}

/// The hex-prefix encoding of a path (yellow paper, appendix C).
fn compact(path: &[u8], leaf: bool) -> Vec<u8> {
    let odd = path.len() % 2;
    let flags = (u8::from(leaf) << 1 | odd as u8) << 4;
    let mut out = Vec::with_capacity(path.len() / 2 + 1);
    out.push(if odd == 1 { flags | path[0] } else { flags });
    out.extend(path[odd..].chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]));
    out
}
