//! The uppermost levels of a Merkle tree, shared by all openings.
//!
//! For `k` levels below the root: one variable `v_i` for each node `i` (heap order, the root is node 1), and
//!
//! * for each inner node `i`: `S_i (H(v_2i, v_2i+1) - v_i) = 0`, where `S_i` is the number of openings whose path goes through `i`;
//! * for each opening: the value that its lower path ends in equals `v_(2^k + j)` for the `j` that its `k` upper index bits spell,
//!   by a tree of `2^k - 1` selections.
//!
//! # Why this is as good as a path of its own for each opening
//! Let an opening's path go through nodes `1 = i_0, i_1, .., i_k`. Each of `i_0 .. i_(k-1)` has `S_i` at least 1 and at most the
//! number of openings, so `S_i` is not zero in the big field and `v_i = H(v_2i, v_2i+1)` there. So the opening's node, with siblings
//! `v` of the nodes beside the path, hashes up to the root: these siblings satisfy the original operations.
//!
//! Conversely an honest prover knows the paths' nodes and siblings. Pairs of nodes that no opening goes through may be
//! unknown; their `S_i` of the parent is zero and their values free (zero is used).
//!
//! `S_i` comes from one-hot products of the index bits. These are shared by the trees opened at the same indices.

use crate::builder::Builder;
use crate::ir::TOP_LEVELS;
use crate::lc::Lc;
use crate::poseidon::Template;
use crate::stats::Kind;
use crate::steps::Step;
use ark_bn254::Fr;
use ark_ff::One;
use std::collections::HashMap;

/// An opening as the witness program needs it.
#[derive(Clone, Debug)]
pub(crate) struct TopOpening {
    /// Hint: value of the node below the shared levels.
    pub(crate) node: u32,
    /// Hints: index bits, the root's level first.
    pub(crate) bits: Vec<u32>,
    /// Witness indices of the siblings, the root's level first.
    pub(crate) siblings: Vec<u32>,
}

/// A shared top as the witness program needs it.
#[derive(Clone, Debug)]
pub(crate) struct Top {
    /// Variable of node 2; node `i` follows at `i - 2`.
    pub(crate) first: u32,
    /// Levels below the root.
    pub(crate) levels: usize,
    /// Openings.
    pub(crate) openings: Vec<TopOpening>,
}

/// One opening: value below the top, and for each level (root's first) the index bit and the sibling's witness index.
pub(crate) struct Path {
    /// Value of the node below the shared levels.
    pub(crate) node: Lc,
    /// Index bits and witness indices of siblings.
    pub(crate) levels: Vec<(Lc, u32)>,
}

/// Products of index bits that several trees use.
#[derive(Debug, Default)]
pub(crate) struct Tops {
    /// For index bits: the one-hot combinations of all nodes by heap index.
    one_hot: HashMap<Vec<Lc>, Vec<Lc>>,
    /// For the list of all openings' bits: variables `S_i`.
    counts: HashMap<Vec<Vec<Lc>>, Vec<Lc>>,
    /// Tables for the witness program.
    pub(crate) tables: Vec<Top>,
}

/// The whole combinations: paths that share products must have the same bits under every assignment.
fn key_of(path: &Path) -> Vec<Lc> {
    path.levels.iter().map(|(bit, _)| bit.clone()).collect()
}

impl Tops {
    /// One-hot combinations of the nodes with children among the shared levels.
    fn one_hot(&mut self, builder: &mut Builder, path: &Path) -> Vec<Lc> {
        let key = key_of(path);
        if let Some(found) = self.one_hot.get(&key) {
            return found.clone();
        }
        let inner = 1usize << path.levels.len();
        let mut hot = vec![Lc::default(); inner];
        hot[1] = Builder::one();
        for (level, (bit, _)) in path.levels[..path.levels.len() - 1].iter().enumerate() {
            for node in 1 << level..2 << level {
                let right = match hot[node].as_constant() {
                    Some(_) => bit.clone(),
                    None => Lc::var(builder.product(Kind::Select, &hot[node], bit)),
                };
                hot[2 * node] = hot[node].sub(&right);
                hot[2 * node + 1] = right;
            }
        }
        self.one_hot.insert(key, hot.clone());
        hot
    }

    /// Variables for the number of openings through each inner node.
    fn counts(&mut self, builder: &mut Builder, paths: &[Path]) -> Vec<Lc> {
        let key: Vec<Vec<Lc>> = paths.iter().map(key_of).collect();
        if let Some(found) = self.counts.get(&key) {
            return found.clone();
        }
        let hots: Vec<Vec<Lc>> = paths.iter().map(|path| self.one_hot(builder, path)).collect();
        let inner = hots.first().map_or(0, Vec::len);
        let counts: Vec<Lc> = (0..inner)
            .map(|node| {
                let terms = hots.iter().flat_map(|hot| hot[node].terms().iter().copied()).collect();
                builder.compact(Lc::from_terms(terms), 1)
            })
            .collect();
        self.counts.insert(key, counts.clone());
        counts
    }

    /// Appends the rows for all openings of one tree.
    pub(crate) fn apply(&mut self, builder: &mut Builder, template: &Template, root: &Lc, paths: &[Path]) {
        let levels = paths.first().map_or(0, |path| path.levels.len());
        debug_assert!(levels <= TOP_LEVELS && paths.iter().all(|path| path.levels.len() == levels));
        let counts = self.counts(builder, paths);
        let nodes = 2usize << levels;
        let first = builder.alloc(nodes as u32 - 2);
        let openings = paths
            .iter()
            .map(|path| TopOpening {
                node: builder.hint(&path.node),
                bits: path.levels.iter().map(|(bit, _)| builder.hint(bit)).collect(),
                siblings: path.levels.iter().map(|&(_, sibling)| sibling).collect(),
            })
            .collect();
        builder.steps.push(Step::MerkleTop { table: self.tables.len() as u32 });
        self.tables.push(Top { first, levels, openings });
        let mut values = vec![Lc::default(), root.clone()];
        values.extend((0..nodes as u32 - 2).map(|i| Lc::var(first + i)));
        for node in (1..nodes / 2).rev() {
            let state = [values[2 * node].clone(), values[2 * node + 1].clone(), Lc::default()];
            let [hash, ..] = template.apply(builder, &state);
            let difference = hash.sub(&values[node]);
            match counts[node].as_constant() {
                Some(_) => builder.linear(Kind::Linear, &difference),
                None => {
                    builder.row(Kind::Select, &difference, &counts[node], &Lc::default());
                }
            }
        }
        for path in paths {
            select_node(builder, &values[nodes / 2..], path);
        }
    }
}

/// Rows that say that `path`'s node is the one of `layer` that its bits spell.
fn select_node(builder: &mut Builder, layer: &[Lc], path: &Path) {
    let mut layer = layer.to_vec();
    for (level, (bit, _)) in path.levels.iter().enumerate().rev() {
        if level == 0 {
            // The last choice needs no variable: right - left, times the bit, is the node less left.
            let (left, right) = (&layer[0], &layer[1]);
            builder.row(Kind::Select, &right.sub(left), bit, &path.node.sub(left));
            return;
        }
        layer = layer.chunks_exact(2).map(|pair| builder.select(bit, &pair[1], &pair[0])).collect();
    }
}

/// Values of the nodes from node 2 on, from what the openings know of them.
pub(crate) fn node_values(
    levels: usize,
    openings: impl Iterator<Item = (Fr, Vec<Fr>, Vec<Fr>)>,
    hash: impl Fn(Fr, Fr) -> Fr,
) -> Vec<Fr> {
    let nodes = 2usize << levels;
    let mut values = vec![Fr::from(0u64); nodes];
    let mut visited = vec![false; nodes / 2];
    for (value, bits, siblings) in openings {
        let mut node = 1;
        for (bit, sibling) in bits.iter().zip(&siblings) {
            visited[node] = true;
            node = 2 * node + usize::from(bit.is_one());
            values[node ^ 1] = *sibling;
        }
        values[node] = value;
    }
    for node in (2..nodes / 2).rev() {
        if visited[node] {
            values[node] = hash(values[2 * node], values[2 * node + 1]);
        }
    }
    values.split_off(2)
}
