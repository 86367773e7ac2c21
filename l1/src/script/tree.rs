//! Taproot script trees of any number of leaves, of which some may be known by their hash only.
//!
//! Shape, part of the contract's specification: a list of `n` leaves is split after the first `n / 2` rounded up, and each half is
//! again such a tree. So all leaves lie at the same depth or one above, and one leaf alone is the whole tree.
//! Leaves of the chunked verifier have megabytes each: a tree over their hashes needs none of the scripts.

use bitcoin::key::TapTweak;
use bitcoin::taproot::{ControlBlock, LeafVersion, TapLeafHash, TapNodeHash, TaprootMerkleBranch};
use bitcoin::{Script, ScriptBuf};

use super::unspendable_key;
use crate::consensus::secp;

/// Most leaves: bounds the depth to 16, well below consensus' 128.
pub const LEAVES_MAX: usize = 1 << 16;

/// The number of leaves is out of range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a script tree has 1 to {LEAVES_MAX} leaves, got {got}")]
pub struct TreeSizeError {
    /// Leaves given.
    pub got: usize,
}

/// The hashes of a tree's leaves, and what follows from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptTree {
    leaves: Vec<TapNodeHash>,
    root: TapNodeHash,
}

/// Hash of a leaf in its tree.
#[must_use]
pub fn leaf_node(script: &Script) -> TapNodeHash {
    TapLeafHash::from_script(script, LeafVersion::TapScript).into()
}

fn root(leaves: &[TapNodeHash]) -> TapNodeHash {
    match leaves {
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().div_ceil(2));
            TapNodeHash::from_node_hashes(root(left), root(right))
        }
    }
}

impl ScriptTree {
    /// The tree over `leaves`, in this order.
    ///
    /// # Errors
    /// If there are none, or more than [`LEAVES_MAX`].
    pub fn new(leaves: Vec<TapNodeHash>) -> Result<Self, TreeSizeError> {
        if !(1..=LEAVES_MAX).contains(&leaves.len()) {
            return Err(TreeSizeError { got: leaves.len() });
        }
        let root = root(&leaves);
        Ok(Self { leaves, root })
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> TapNodeHash {
        self.root
    }

    /// Hashes of the leaves, in order.
    #[must_use]
    pub fn leaves(&self) -> &[TapNodeHash] {
        &self.leaves
    }

    /// The output's script. Its internal key is [`unspendable_key`].
    #[must_use]
    pub fn script_pubkey(&self) -> ScriptBuf {
        ScriptBuf::new_p2tr(secp(), unspendable_key(), Some(self.root))
    }

    /// What a witness shows beside leaf `index`; `None` if there is no such leaf. Cost: one pass over all hashes.
    #[must_use]
    pub fn control_block(&self, index: usize) -> Option<ControlBlock> {
        self.leaves.get(index)?;
        let (mut part, mut index, mut path) = (self.leaves.as_slice(), index, Vec::new());
        while part.len() > 1 {
            let (left, right) = part.split_at(part.len().div_ceil(2));
            if index < left.len() {
                path.push(root(right));
                part = left;
            } else {
                path.push(root(left));
                index -= left.len();
                part = right;
            }
        }
        path.reverse();
        let (_, output_key_parity) = unspendable_key().tap_tweak(secp(), Some(self.root));
        Some(ControlBlock {
            leaf_version: LeafVersion::TapScript,
            output_key_parity,
            internal_key: unspendable_key(),
            merkle_branch: TaprootMerkleBranch::try_from(path).expect("the depth is at most 16"),
        })
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::script::Builder;
    use bitcoin::taproot::TaprootBuilder;

    use super::*;

    fn scripts(count: usize) -> Vec<ScriptBuf> {
        (0..count).map(|index| Builder::new().push_int(index as i64 + 100).into_script()).collect()
    }

    fn tree(count: usize) -> ScriptTree {
        ScriptTree::new(scripts(count).iter().map(|script| leaf_node(script)).collect()).unwrap()
    }

    #[test]
    fn every_leaf_of_a_tree_of_any_size_leads_to_the_output_key() {
        for count in [1, 2, 3, 4, 5, 7, 8, 9, 31, 364, 367] {
            let tree = tree(count);
            let pubkey = tree.script_pubkey();
            let key = bitcoin::XOnlyPublicKey::from_slice(&pubkey.as_bytes()[2..]).unwrap();
            for (index, script) in scripts(count).iter().enumerate() {
                let control = tree.control_block(index).unwrap();
                assert!(control.verify_taproot_commitment(secp(), key, script), "leaf {index} of {count}");
                let depth = control.merkle_branch.len();
                assert!(1 << depth < 2 * count.next_power_of_two() && depth <= 16);
            }
            assert!(tree.control_block(count).is_none());
        }
    }

    #[test]
    fn one_and_two_leaves_give_the_output_of_the_library_builder() {
        for count in [1usize, 2] {
            let builder = scripts(count).into_iter().fold(TaprootBuilder::new(), |builder, script| {
                builder.add_leaf(u8::from(count > 1), script).unwrap()
            });
            let info = builder.finalize(secp(), unspendable_key()).unwrap();
            assert_eq!(tree(count).script_pubkey(), ScriptBuf::new_p2tr_tweaked(info.output_key()));
        }
    }

    #[test]
    fn order_and_number_of_leaves_are_part_of_the_output() {
        let mut leaves: Vec<_> = scripts(5).iter().map(|script| leaf_node(script)).collect();
        leaves.swap(0, 4);
        assert_ne!(ScriptTree::new(leaves).unwrap().root(), tree(5).root());
        assert_eq!(ScriptTree::new(Vec::new()).unwrap_err(), TreeSizeError { got: 0 });
        let many = vec![TapNodeHash::all_zeros(); LEAVES_MAX + 1];
        assert_eq!(ScriptTree::new(many).unwrap_err(), TreeSizeError { got: LEAVES_MAX + 1 });
    }
}
