//! Nodes in memory and their decoding.

use alloc::{borrow::Cow, boxed::Box, vec::Vec};

use alloy_primitives::B256;
use alloy_rlp::Header;

use crate::error::TrieError;

/// First byte of a reference by hash: the RLP of a 32-byte string.
pub(super) const HASH_PREFIX: u8 = 0xa0;
/// Length of a reference by hash.
pub(super) const HASH_REFERENCE_LEN: usize = 33;
/// RLP of the empty string: an absent child or value.
pub(super) const EMPTY_STRING: u8 = 0x80;

/// A place for a node: the node, as far as it is known, and how its parent refers to it.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    /// The item in the parent's encoding (33 bytes for a hash, fewer for a node embedded in its parent); `None` once
    /// the node changed, or if it is empty.
    pub(super) reference: Option<Cow<'a, [u8]>>,
    pub(super) node: Node<'a>,
}

/// A node. `Unresolved` stands for one of which only the reference is known.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Empty,
    Unresolved,
    Leaf(Box<Leaf<'a>>),
    Extension(Box<Extension<'a>>),
    Branch(Box<Branch<'a>>),
}

/// The rest of a key (one nibble per byte) and its value.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    pub(super) path: Vec<u8>,
    pub(super) value: Cow<'a, [u8]>,
}

/// A shared part of keys (one nibble per byte, not empty) and the branch below it.
#[derive(Debug)]
pub(super) struct Extension<'a> {
    pub(super) path: Vec<u8>,
    pub(super) child: Slot<'a>,
}

/// Sixteen children by nibble and the value of the key that ends here.
#[derive(Debug)]
pub(super) struct Branch<'a> {
    pub(super) children: [Slot<'a>; 16],
    pub(super) value: Option<Cow<'a, [u8]>>,
}

impl<'a> Slot<'a> {
    pub(super) const EMPTY: Self = Self { reference: None, node: Node::Empty };

    /// A node known by its hash.
    pub(super) fn hashed(hash: &B256) -> Self {
        let mut reference = Vec::with_capacity(HASH_REFERENCE_LEN);
        reference.push(HASH_PREFIX);
        reference.extend_from_slice(hash.as_slice());
        Self { reference: Some(Cow::Owned(reference)), node: Node::Unresolved }
    }

    /// A new or changed node.
    pub(super) const fn dirty(node: Node<'a>) -> Self {
        Self { reference: None, node }
    }

    pub(super) const fn is_empty(&self) -> bool {
        matches!(self.node, Node::Empty)
    }

    /// The hash, if the reference is one.
    pub(super) fn hash(&self) -> Option<B256> {
        let reference = self.reference.as_deref()?;
        (reference.len() == HASH_REFERENCE_LEN).then(|| B256::from_slice(&reference[1..]))
    }

    /// Decodes a child item of a node's list.
    fn decode(item: &'a [u8]) -> Result<Self, TrieError> {
        match item {
            [EMPTY_STRING] => Ok(Self::EMPTY),
            [HASH_PREFIX, rest @ ..] if rest.len() == 32 => {
                Ok(Self { reference: Some(Cow::Borrowed(item)), node: Node::Unresolved })
            }
            [first, ..] if *first >= 0xc0 && item.len() < 32 => {
                Ok(Self { reference: Some(Cow::Borrowed(item)), node: Node::decode(item)? })
            }
            _ => Err(ill_formed("child is neither empty, a hash, nor a short node")),
        }
    }
}

impl<'a> Node<'a> {
    pub(super) fn leaf(path: Vec<u8>, value: Cow<'a, [u8]>) -> Self {
        Self::Leaf(Box::new(Leaf::new(path, value)))
    }

    /// A branch, below an extension if `path` is not empty.
    pub(super) fn branch_under(path: &[u8], branch: Branch<'a>) -> Self {
        let branch = Self::Branch(Box::new(branch));
        if path.is_empty() {
            branch
        } else {
            Self::Extension(Box::new(Extension { path: path.to_vec(), child: Slot::dirty(branch) }))
        }
    }

    /// Decodes a node; children stay unresolved except those embedded in it, whose nesting 31 bytes bound.
    pub(super) fn decode(raw: &'a [u8]) -> Result<Self, TrieError> {
        let mut rest = raw;
        let header = Header::decode(&mut rest).map_err(|_| ill_formed("no rlp header"))?;
        if !header.list {
            return match raw {
                [EMPTY_STRING] => Ok(Self::Empty),
                _ => Err(ill_formed("not a list")),
            };
        }
        if rest.len() != header.payload_length {
            return Err(ill_formed("trailing bytes"));
        }
        let mut items: [&[u8]; 17] = [&[]; 17];
        let mut count = 0;
        while !rest.is_empty() {
            let slot = items.get_mut(count).ok_or(ill_formed("more than 17 items"))?;
            *slot = next_item(&mut rest)?;
            count += 1;
        }
        match count {
            2 => Self::decode_short(items[0], items[1]),
            17 => Self::decode_branch(&items),
            _ => Err(ill_formed("neither 2 nor 17 items")),
        }
    }

    fn decode_short(key: &'a [u8], item: &'a [u8]) -> Result<Self, TrieError> {
        let compact = string_payload(key)?;
        let (first, rest) = compact.split_first().ok_or(ill_formed("empty path"))?;
        if *first > 0x3f || (first & 0x10 == 0 && first & 0x0f != 0) {
            return Err(ill_formed("path flags"));
        }
        let mut path = Vec::with_capacity(2 * rest.len() + 1);
        if first & 0x10 != 0 {
            path.push(first & 0x0f);
        }
        for byte in rest {
            path.push(byte >> 4);
            path.push(byte & 0x0f);
        }
        if first & 0x20 != 0 {
            let value = string_payload(item)?;
            if value.is_empty() {
                return Err(ill_formed("leaf without a value"));
            }
            return Ok(Self::leaf(path, Cow::Borrowed(value)));
        }
        let child = Slot::decode(item)?;
        if path.is_empty() || child.is_empty() {
            return Err(ill_formed("empty extension"));
        }
        Ok(Self::Extension(Box::new(Extension { path, child })))
    }

    fn decode_branch(items: &[&'a [u8]; 17]) -> Result<Self, TrieError> {
        let mut branch = Branch::empty();
        for (child, item) in branch.children.iter_mut().zip(items) {
            if *item != [EMPTY_STRING] {
                *child = Slot::decode(item)?;
            }
        }
        let value = string_payload(items[16])?;
        branch.value = (!value.is_empty()).then_some(Cow::Borrowed(value));
        Ok(Self::Branch(Box::new(branch)))
    }
}

impl Branch<'_> {
    pub(super) const fn empty() -> Self {
        Self { children: [const { Slot::EMPTY }; 16], value: None }
    }
}

/// Takes one RLP item, header included.
fn next_item<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], TrieError> {
    let start = *rest;
    let len = match start.first() {
        // The two most frequent items of a branch, without the general decoder.
        Some(&HASH_PREFIX) => HASH_REFERENCE_LEN,
        Some(&first) if first <= EMPTY_STRING => 1,
        _ => {
            let header = Header::decode(rest).map_err(|_| ill_formed("item header"))?;
            start.len() - rest.len() + header.payload_length
        }
    };
    let item = start.get(..len).ok_or(ill_formed("item is cut short"))?;
    *rest = &start[len..];
    Ok(item)
}

/// The payload of a whole RLP string item.
fn string_payload(item: &[u8]) -> Result<&[u8], TrieError> {
    let mut rest = item;
    let header = Header::decode(&mut rest).map_err(|_| ill_formed("string header"))?;
    if header.list || rest.len() != header.payload_length {
        return Err(ill_formed("expected a string"));
    }
    Ok(rest)
}

const fn ill_formed(reason: &'static str) -> TrieError {
    TrieError::IllFormedNode { reason }
}
