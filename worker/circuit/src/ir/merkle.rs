//! Merkle paths that end in the same root share the tree's uppermost levels.
//!
//! The exported operations verify every opening with its own path of siblings up to the root. All queries' paths meet near
//! the root, so [`Program::share_merkle_tops`] cuts them [`TOP_LEVELS`] levels below it and puts one [`Inst::MerkleTop`] in the place of
//! all those ends; `merkle.rs` of this crate says how it is constrained and why that is as good.

use super::{Inst, Program, Value, Var};
use std::collections::HashMap;

/// Levels below the root that are shared.
pub(crate) const TOP_LEVELS: usize = 6;
/// Trees with fewer openings are left alone.
const OPENINGS_MIN: usize = 16;

/// One level of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    /// Whether the path's node is the right child.
    pub(crate) bit: Var,
    /// Index of the sibling among the witness's BN254 values.
    pub(crate) sibling: u32,
}

/// The upper end of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// The path's node below `levels`.
    pub(crate) node: Var,
    /// The levels, the root's children first.
    pub(crate) levels: Vec<Level>,
}

/// Definitions and use counts of the BN254 values.
struct Graph<'a> {
    insts: &'a [Inst],
    definition: Vec<u32>,
    uses: Vec<u32>,
}

impl<'a> Graph<'a> {
    fn new(program: &'a Program) -> Self {
        let mut definition = vec![u32::MAX; program.vars];
        let mut uses = vec![0; program.vars];
        for (index, inst) in program.insts.iter().enumerate() {
            inst.defines(|value| {
                if let Value::V(var) = value {
                    definition[var as usize] = index as u32;
                }
            });
            inst.uses(|value| {
                if let Value::V(var) = value {
                    uses[var as usize] += 1;
                }
            });
        }
        Self { insts: &program.insts, definition, uses }
    }

    fn definition(&self, var: Var) -> Option<&'a Inst> {
        self.insts.get(self.definition[var as usize] as usize)
    }

    /// If `parent` is the hash of a path's node and its sibling, ordered by a bit: the node and the level.
    fn step(&self, parent: Var) -> Option<(Var, Level)> {
        let Some(Inst::Permute { out, state }) = self.definition(parent) else { return None };
        let unused = self.uses[out[1] as usize] + self.uses[out[2] as usize] == 0;
        let zero = matches!(self.definition(state[2]), Some(Inst::ImmV { value, .. }) if ark_ff::Zero::is_zero(value));
        let (left, right) = (self.definition(state[0])?, self.definition(state[1])?);
        let Inst::SelectV { out: left_out, bit, a: sibling, b: node } = left else { return None };
        let Inst::SelectV { out: right_out, bit: other_bit, a: other_node, b: other_sibling } = right else {
            return None;
        };
        // A value used elsewhere too would lose its tie to the path.
        let used_here = self.uses[*left_out as usize] == 1
            && self.uses[*right_out as usize] == 1
            && self.uses[*sibling as usize] == 2;
        if out[0] != parent
            || !unused
            || !zero
            || !used_here
            || (bit, node, sibling) != (other_bit, other_node, other_sibling)
        {
            return None;
        }
        let Some(Inst::WitnessV { index, .. }) = self.definition(*sibling) else { return None };
        Some((*node, Level { bit: *bit, sibling: *index }))
    }

    /// The last levels, at most [`TOP_LEVELS`], of the path that ends in `end`.
    fn path(&self, end: Var) -> Option<Opening> {
        let mut opening = Opening { node: end, levels: Vec::new() };
        // The end is used by the equality only, every other node by its two selections.
        let mut uses = 1;
        while opening.levels.len() < TOP_LEVELS && self.uses[opening.node as usize] == uses {
            let Some((node, level)) = self.step(opening.node) else { break };
            opening.node = node;
            opening.levels.push(level);
            uses = 2;
        }
        (!opening.levels.is_empty()).then_some(opening)
    }
}

impl Program {
    /// Replaces the ends of Merkle paths to one root by a [`Inst::MerkleTop`].
    pub(crate) fn share_merkle_tops(&mut self) {
        let graph = Graph::new(self);
        let mut trees: HashMap<(Var, usize), Vec<(usize, Opening)>> = HashMap::new();
        let mut order = Vec::new();
        for (index, inst) in self.insts.iter().enumerate() {
            let Inst::AssertEqV { a, b } = inst else { continue };
            let found =
                graph.path(*a).map(|path| (*b, path)).or_else(|| graph.path(*b).map(|path| (*a, path)));
            if let Some((root, path)) = found {
                let key = (root, path.levels.len());
                let tree = trees.entry(key).or_default();
                if tree.is_empty() {
                    order.push(key);
                }
                tree.push((index, path));
            }
        }
        let mut dead = vec![false; self.insts.len()];
        let origin = (super::OPCODES.len() - 1) as u8;
        for key in order {
            let openings = trees.remove(&key).expect("every key is listed once");
            if openings.len() < OPENINGS_MIN {
                continue;
            }
            let last = openings.last().expect("a tree has an opening").0;
            openings.iter().for_each(|&(index, _)| dead[index] = true);
            dead[last] = false;
            let openings = openings.into_iter().map(|(_, opening)| opening).collect();
            self.insts[last] = Inst::MerkleTop { root: key.0, openings };
            self.origin[last] = origin;
        }
        self.drop_marked(&dead);
    }
}
