//! Properties of the trie: its roots are those of alloy's hash builder, and what it touches is enough to replay it.

use std::collections::BTreeMap;

use alloy_primitives::{keccak256, map::B256Map, B256};
use alloy_trie::{HashBuilder, Nibbles as Path};
use assay_lvm_core::{nibbles, NodeStore, Trie, TrieError, EMPTY_ROOT};
use proptest::prelude::*;

/// Keeps every node, notes which are read.
#[derive(Debug, Default)]
struct Made(B256Map<Vec<u8>>);

impl NodeStore<'static> for Made {
    fn node(&mut self, hash: &B256) -> Option<&'static [u8]> {
        panic!("a trie made in memory asks for {hash}")
    }
    fn code(&mut self, _: &B256) -> Option<&'static [u8]> {
        None
    }
    fn put_node(&mut self, hash: B256, encoded: &[u8]) {
        self.0.insert(hash, encoded.to_vec());
    }
}

#[derive(Debug)]
struct Recording<'a> {
    nodes: &'a B256Map<Vec<u8>>,
    read: B256Map<Vec<u8>>,
}

impl<'a> NodeStore<'a> for Recording<'a> {
    fn node(&mut self, hash: &B256) -> Option<&'a [u8]> {
        let node = self.nodes.get(hash)?;
        self.read.insert(*hash, node.clone());
        Some(node)
    }
    fn code(&mut self, _: &B256) -> Option<&'a [u8]> {
        None
    }
}

impl<'a> Recording<'a> {
    fn new(nodes: &'a B256Map<Vec<u8>>) -> Self {
        Self { nodes, read: B256Map::default() }
    }
}

fn expected_root(entries: &BTreeMap<B256, Vec<u8>>) -> B256 {
    let mut builder = HashBuilder::default();
    for (key, value) in entries {
        builder.add_leaf(Path::unpack(key), value);
    }
    builder.root()
}

/// Keys that share prefixes of all lengths: three bits in each of a few places.
fn key() -> impl Strategy<Value = B256> {
    (0u8..4, 0u8..4, 0u8..3, 0u8..3).prop_map(|(first, second, middle, last)| {
        let mut key = B256::ZERO;
        key[0] = first << 4 | second;
        key[1] = 0x11 * middle;
        key[15] = middle;
        key[31] = last;
        key
    })
}

/// Values on both sides of the 32 bytes that decide whether a node is embedded in its parent.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![proptest::collection::vec(1u8.., 1..4), proptest::collection::vec(any::<u8>(), 29..40),]
}

fn entries(count: std::ops::Range<usize>) -> impl Strategy<Value = BTreeMap<B256, Vec<u8>>> {
    proptest::collection::btree_map(key(), value(), count)
}

fn build(entries: &BTreeMap<B256, Vec<u8>>) -> (B256, B256Map<Vec<u8>>) {
    let mut made = Made::default();
    let mut trie = Trie::new(EMPTY_ROOT);
    for (key, value) in entries {
        trie.insert(&nibbles(key), value.clone(), &mut made).expect("an empty trie misses nothing");
    }
    (trie.root(&mut made), made.0)
}

/// Changes to a trie: new values, and removals after them.
type Changes = (BTreeMap<B256, Vec<u8>>, Vec<B256>);

fn changes() -> impl Strategy<Value = Changes> {
    (entries(0..12), proptest::collection::vec(key(), 0..24)).prop_map(|(inserted, mut removed)| {
        removed.retain(|key| !inserted.contains_key(key));
        (inserted, removed)
    })
}

fn apply<'a, S: NodeStore<'a>>(
    root: B256,
    changes: &Changes,
    reverse: bool,
    store: &mut S,
) -> Result<B256, TrieError> {
    let mut trie = Trie::new(root);
    let mut inserted: Vec<_> = changes.0.iter().collect();
    let mut removed = changes.1.clone();
    if reverse {
        inserted.reverse();
        removed.reverse();
    }
    for (key, value) in inserted {
        trie.insert(&nibbles(key), value.clone(), store)?;
    }
    for key in removed {
        trie.remove(&nibbles(&key), store)?;
    }
    Ok(trie.root(store))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_root_after_any_operations_is_that_of_the_remaining_entries(
        operations in proptest::collection::vec((key(), proptest::option::of(value())), 0..80),
    ) {
        let mut made = Made::default();
        let mut trie = Trie::new(EMPTY_ROOT);
        let mut model = BTreeMap::new();
        for (step, (key, value)) in operations.into_iter().enumerate() {
            match value {
                Some(value) => {
                    trie.insert(&nibbles(&key), value.clone(), &mut made).unwrap();
                    model.insert(key, value);
                }
                None => {
                    let removed = trie.remove(&nibbles(&key), &mut made).unwrap();
                    prop_assert_eq!(removed, model.remove(&key).is_some());
                }
            }
            prop_assert_eq!(trie.get(&nibbles(&key), &mut made).unwrap(), model.get(&key).map(Vec::as_slice));
            if step % 7 == 0 {
                prop_assert_eq!(trie.root(&mut made), expected_root(&model));
            }
        }
        prop_assert_eq!(trie.root(&mut made), expected_root(&model));
        let entries: Vec<_> = trie.entries(&mut made).unwrap();
        let expected: Vec<_> = model.iter().map(|(k, v)| (nibbles(k).to_vec(), v.clone())).collect();
        prop_assert_eq!(entries, expected);
    }

    #[test]
    fn nodes_touched_on_the_host_are_enough_and_needed_elsewhere(
        before in entries(1..60),
        changes in changes(),
    ) {
        let (root, nodes) = build(&before);
        let mut host = Recording::new(&nodes);
        let after = apply(root, &changes, false, &mut host).unwrap();
        let mut model = before;
        model.extend(changes.0.clone());
        changes.1.iter().for_each(|key| { model.remove(key); });
        prop_assert_eq!(after, expected_root(&model));
        // Another order touches the same nodes, and nothing else is needed.
        let mut guest = Recording::new(&host.read);
        prop_assert_eq!(apply(root, &changes, true, &mut guest), Ok(after));
        prop_assert_eq!(guest.read.len(), host.read.len());
        let read: std::collections::BTreeSet<&B256> = host.read.keys().collect();
        for hash in read {
            let mut short = host.read.clone();
            short.remove(hash);
            let result = apply(root, &changes, false, &mut Recording::new(&short));
            prop_assert_eq!(result, Err(TrieError::MissingNode { hash: *hash }));
        }
    }

    #[test]
    fn ill_formed_nodes_give_errors_and_never_panic(
        before in entries(1..20),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..8), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        changes in changes(),
    ) {
        let (root, mut nodes) = build(&before);
        let hashes: Vec<_> = nodes.keys().copied().collect();
        for (node, byte, bit) in flips {
            let node = nodes.get_mut(node.get(&hashes)).unwrap();
            let at = byte.index(node.len());
            node[at] ^= 1 << bit;
            if let Some(cut) = &cut {
                let len = cut.index(node.len()).max(1);
                node.truncate(len);
            }
        }
        // The nodes keep their old hashes here, as no honest store would have it; the trie must stand it all the same.
        let _ = apply(root, &changes, false, &mut Recording::new(&nodes));
        let mut store = Recording::new(&nodes);
        let _ = Trie::new(root).get(&nibbles(&keccak256("x")), &mut store);
        let _ = Trie::new(root).entries(&mut store);
    }

    #[test]
    fn ordered_roots_are_those_of_alloy(items in proptest::collection::vec(value(), 0..200)) {
        let mut store = Made::default();
        let mut trie = Trie::new(EMPTY_ROOT);
        for (index, item) in items.iter().enumerate() {
            let key: Vec<u8> = alloy_rlp::encode(index).iter().flat_map(|b| [b >> 4, b & 15]).collect();
            trie.insert(&key, item.clone(), &mut store).unwrap();
        }
        prop_assert_eq!(trie.root(&mut store), assay_lvm_core::ordered_root(&items));
    }
}

#[test]
fn an_empty_trie_has_the_empty_root_before_and_after() {
    let mut store = Made::default();
    let mut trie = Trie::new(EMPTY_ROOT);
    assert_eq!(trie.root(&mut store), keccak256([0x80]));
    let key = nibbles(&B256::ZERO);
    assert_eq!(trie.remove(&key, &mut store), Ok(false));
    trie.insert(&key, vec![1], &mut store).unwrap();
    assert_ne!(trie.root(&mut store), EMPTY_ROOT);
    assert_eq!(trie.remove(&key, &mut store), Ok(true));
    assert_eq!(trie.root(&mut store), EMPTY_ROOT);
}
