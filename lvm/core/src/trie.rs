//! Sparse Merkle Patricia trie over a [`NodeStore`].
//!
//! Nodes are decoded when a path first leads through them and borrow their values from the store; changed nodes are
//! encoded and hashed once, when the root is asked for. Keys are given as nibbles, one per byte (see [`Nibbles`]); any
//! length works, so the tries of the test suites do as well as the 32-byte keys of the state.
//!
//! Which nodes are touched depends only on the set of keys inserted and removed between two roots, provided that all
//! insertions come before the removals: then a branch collapses only if it does so in the final trie. [`crate::StateDb`]
//! keeps that order, so a host that records the nodes it touches records what the guest will need.
//!
//! Source: Ethereum yellow paper, appendix D.

mod encode;
mod node;

use alloc::{borrow::Cow, boxed::Box, vec::Vec};

use alloy_primitives::{b256, keccak256, B256};

use self::node::{Branch, Extension, Leaf, Node, Slot};
use crate::{error::TrieError, store::NodeStore};

/// Root of a trie without entries: Keccak-256 of the RLP of the empty string.
pub const EMPTY_ROOT: B256 = b256!("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421");

/// The nibbles of a 32-byte key, high nibble first.
pub type Nibbles = [u8; 64];

/// Splits a hashed key into nibbles.
pub fn nibbles(key: &B256) -> Nibbles {
    let mut out = [0; 64];
    for (pair, byte) in out.chunks_exact_mut(2).zip(key.as_slice()) {
        pair[0] = byte >> 4;
        pair[1] = byte & 15;
    }
    out
}

/// A trie of which only the touched part is in memory.
#[derive(Debug)]
pub struct Trie<'a> {
    root: Slot<'a>,
}

impl<'a> Trie<'a> {
    /// The trie with this root; no node is read yet.
    pub fn new(root: B256) -> Self {
        Self { root: if root == EMPTY_ROOT { Slot::EMPTY } else { Slot::hashed(&root) } }
    }

    /// The value at `key`.
    ///
    /// # Errors
    /// [`TrieError`] if a node on the path is missing or ill-formed.
    pub fn get<S: NodeStore<'a> + ?Sized>(
        &mut self,
        key: &[u8],
        store: &mut S,
    ) -> Result<Option<&[u8]>, TrieError> {
        self.root.get(key, store)
    }

    /// Sets the value at `key`; `value` must not be empty, which stands for absence in this kind of trie.
    ///
    /// # Errors
    /// [`TrieError`] if a node on the path is missing or ill-formed; the trie is then unusable.
    pub fn insert<S: NodeStore<'a> + ?Sized>(
        &mut self,
        key: &[u8],
        value: Vec<u8>,
        store: &mut S,
    ) -> Result<(), TrieError> {
        self.root.insert(key, value, store)
    }

    /// Removes the value at `key`, if there is one, and says whether there was.
    ///
    /// # Errors
    /// [`TrieError`] if a node on the path, or the last sibling on it, is missing or ill-formed; the trie is then
    /// unusable.
    pub fn remove<S: NodeStore<'a> + ?Sized>(
        &mut self,
        key: &[u8],
        store: &mut S,
    ) -> Result<bool, TrieError> {
        self.root.remove(key, store)
    }

    /// All entries in the order of their keys, as nibbles and value; reads every node.
    ///
    /// # Errors
    /// [`TrieError`] if a node is missing or ill-formed.
    pub fn entries<S: NodeStore<'a> + ?Sized>(&mut self, store: &mut S) -> Result<Entries, TrieError> {
        let mut entries = Vec::new();
        self.root.collect(&mut Vec::new(), &mut entries, store)?;
        Ok(entries)
    }

    /// The root; encodes and hashes what changed since the last call and shows each new node to `store`.
    pub fn root<S: NodeStore<'a> + ?Sized>(&mut self, store: &mut S) -> B256 {
        let mut scratch = Vec::with_capacity(640);
        self.root.root(&mut scratch, store)
    }
}

/// Keys as nibbles, and values.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

impl<'a> Slot<'a> {
    fn collect<S: NodeStore<'a> + ?Sized>(
        &mut self,
        prefix: &mut Vec<u8>,
        out: &mut Entries,
        store: &mut S,
    ) -> Result<(), TrieError> {
        self.resolve(store)?;
        let depth = prefix.len();
        match &mut self.node {
            Node::Empty | Node::Unresolved => {}
            Node::Leaf(leaf) => out.push(([prefix, &*leaf.path].concat(), leaf.value.to_vec())),
            Node::Extension(extension) => {
                prefix.extend_from_slice(&extension.path);
                extension.child.collect(prefix, out, store)?;
            }
            Node::Branch(branch) => {
                if let Some(value) = &branch.value {
                    out.push((prefix.clone(), value.to_vec()));
                }
                for (nibble, child) in branch.children.iter_mut().enumerate() {
                    prefix.push(nibble as u8);
                    child.collect(prefix, out, store)?;
                    prefix.truncate(depth);
                }
            }
        }
        prefix.truncate(depth);
        Ok(())
    }

    /// Reads and decodes the node if only its hash is known.
    fn resolve<S: NodeStore<'a> + ?Sized>(&mut self, store: &mut S) -> Result<(), TrieError> {
        if matches!(self.node, Node::Unresolved) {
            let hash = self.hash().ok_or(TrieError::IllFormedNode { reason: "reference without a hash" })?;
            let raw = store.node(&hash).ok_or(TrieError::MissingNode { hash })?;
            self.node = Node::decode(raw)?;
        }
        Ok(())
    }

    fn get<S: NodeStore<'a> + ?Sized>(
        &mut self,
        key: &[u8],
        store: &mut S,
    ) -> Result<Option<&[u8]>, TrieError> {
        self.resolve(store)?;
        match &mut self.node {
            Node::Empty | Node::Unresolved => Ok(None),
            Node::Leaf(leaf) => Ok((leaf.path == key).then_some(&*leaf.value)),
            Node::Extension(extension) => match key.strip_prefix(&*extension.path) {
                Some(rest) => extension.child.get(rest, store),
                None => Ok(None),
            },
            Node::Branch(branch) => match key.split_first() {
                Some((nibble, rest)) => branch.children[usize::from(*nibble)].get(rest, store),
                None => Ok(branch.value.as_deref()),
            },
        }
    }

    fn insert<S: NodeStore<'a> + ?Sized>(
        &mut self,
        key: &[u8],
        value: Vec<u8>,
        store: &mut S,
    ) -> Result<(), TrieError> {
        self.resolve(store)?;
        self.reference = None;
        match &mut self.node {
            Node::Branch(branch) => match key.split_first() {
                Some((nibble, rest)) => branch.children[usize::from(*nibble)].insert(rest, value, store),
                None => {
                    branch.value = Some(Cow::Owned(value));
                    Ok(())
                }
            },
            Node::Empty | Node::Unresolved => {
                self.node = Node::leaf(key.to_vec(), Cow::Owned(value));
                Ok(())
            }
            Node::Leaf(leaf) => {
                if leaf.path == key {
                    leaf.value = Cow::Owned(value);
                } else {
                    let shared = common_prefix(&leaf.path, key);
                    let mut branch = Branch::empty();
                    branch.place(&leaf.path[shared..], core::mem::take(&mut leaf.value));
                    branch.place(&key[shared..], Cow::Owned(value));
                    self.node = Node::branch_under(&key[..shared], branch);
                }
                Ok(())
            }
            Node::Extension(extension) => {
                let shared = common_prefix(&extension.path, key);
                if shared == extension.path.len() {
                    return extension.child.insert(&key[shared..], value, store);
                }
                let child = core::mem::replace(&mut extension.child, Slot::EMPTY);
                let rest = &extension.path[shared + 1..];
                let mut branch = Branch::empty();
                branch.children[usize::from(extension.path[shared])] = if rest.is_empty() {
                    child
                } else {
                    Slot::dirty(Node::Extension(Box::new(Extension { path: rest.to_vec(), child })))
                };
                branch.place(&key[shared..], Cow::Owned(value));
                self.node = Node::branch_under(&key[..shared], branch);
                Ok(())
            }
        }
    }

    fn remove<S: NodeStore<'a> + ?Sized>(&mut self, key: &[u8], store: &mut S) -> Result<bool, TrieError> {
        self.resolve(store)?;
        match &mut self.node {
            Node::Empty | Node::Unresolved => return Ok(false),
            Node::Leaf(leaf) => {
                if leaf.path != key {
                    return Ok(false);
                }
                self.node = Node::Empty;
            }
            Node::Extension(extension) => {
                let Some(rest) = key.strip_prefix(&*extension.path) else { return Ok(false) };
                if !extension.child.remove(rest, store)? {
                    return Ok(false);
                }
                let child = core::mem::replace(&mut extension.child, Slot::EMPTY);
                let path = core::mem::take(&mut extension.path);
                self.node = child.prefixed(path);
            }
            Node::Branch(branch) => {
                let removed = match key.split_first() {
                    Some((nibble, rest)) => branch.children[usize::from(*nibble)].remove(rest, store)?,
                    None => branch.value.take().is_some(),
                };
                if !removed {
                    return Ok(false);
                }
                if let Some(collapsed) = branch.collapse(store)? {
                    self.node = collapsed;
                }
            }
        }
        self.reference = None;
        Ok(true)
    }

    /// The node that stands for this one with `path` in front of it.
    fn prefixed(self, mut path: Vec<u8>) -> Node<'a> {
        match self.node {
            Node::Empty => Node::Empty,
            Node::Leaf(leaf) => {
                path.extend_from_slice(&leaf.path);
                Node::leaf(path, leaf.value)
            }
            Node::Extension(extension) => {
                path.extend_from_slice(&extension.path);
                Node::Extension(Box::new(Extension { path, child: extension.child }))
            }
            Node::Branch(_) | Node::Unresolved => Node::Extension(Box::new(Extension { path, child: self })),
        }
    }
}

impl<'a> Branch<'a> {
    /// Puts a value below this new branch; `path` begins with the branch's own nibble, or is empty.
    fn place(&mut self, path: &[u8], value: Cow<'a, [u8]>) {
        match path.split_first() {
            Some((nibble, rest)) => {
                self.children[usize::from(*nibble)] = Slot::dirty(Node::leaf(rest.to_vec(), value));
            }
            None => self.value = Some(value),
        }
    }

    /// What the branch becomes if fewer than two entries are left, after one was removed.
    fn collapse<S: NodeStore<'a> + ?Sized>(&mut self, store: &mut S) -> Result<Option<Node<'a>>, TrieError> {
        let mut occupied =
            self.children.iter().enumerate().filter(|(_, child)| !child.is_empty()).map(|(i, _)| i);
        let (first, second) = (occupied.next(), occupied.next());
        Ok(match (first, second, self.value.is_some()) {
            (None, _, _) => Some(match self.value.take() {
                Some(value) => Node::leaf(Vec::new(), value),
                None => Node::Empty,
            }),
            (Some(index), None, false) => {
                let mut child = core::mem::replace(&mut self.children[index], Slot::EMPTY);
                child.resolve(store)?;
                Some(child.prefixed(alloc::vec![index as u8]))
            }
            _ => None,
        })
    }
}

/// Length of the longest common prefix.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

impl<'a> Leaf<'a> {
    fn new(path: Vec<u8>, value: Cow<'a, [u8]>) -> Self {
        Self { path, value }
    }
}

/// Root of the trie that maps `rlp(index)` to each item, as headers commit to transactions, receipts and withdrawals.
///
/// `items` are the encoded values. Cost: one Keccak-256 per node of 32 bytes or more.
pub fn ordered_root<T: AsRef<[u8]>>(items: &[T]) -> B256 {
    alloy_trie::root::ordered_trie_root_encoded(items)
}

/// Keccak-256 of an encoded node, for callers that fill a store.
pub fn node_hash(encoded: &[u8]) -> B256 {
    keccak256(encoded)
}
