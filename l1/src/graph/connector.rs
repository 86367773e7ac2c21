//! Outputs that bind one transaction to the next, and their scripts.

use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_CSV, OP_DROP};
use bitcoin::script::Builder;
use bitcoin::taproot::{ControlBlock, LeafVersion, TapLeafHash, TapNodeHash};
use bitcoin::{Amount, ScriptBuf, Sequence, TxOut};

use super::terms::{ClaimKeys, ClaimValue, EpochTerms};
use crate::script::compare::{drop_value, equals_constant};
use crate::script::tree::{leaf_node, ScriptTree, TreeSizeError};
use crate::script::winternitz;

/// Value of a claim connector: the smallest that relay policy takes for a taproot output.
pub const CONNECTOR_VALUE: Amount = Amount::from_sat(330);

/// A taproot output without a key path, with all its leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptOutput {
    tree: ScriptTree,
    leaves: Vec<Leaf>,
    value: Amount,
}

/// A leaf of a [`ScriptOutput`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaf {
    /// A script that is kept.
    Script(ScriptBuf),
    /// A script too large to keep: its hash only.
    Hidden(TapNodeHash),
}

impl Leaf {
    /// Its hash in the tree.
    #[must_use]
    pub fn hash(&self) -> TapNodeHash {
        match self {
            Self::Script(script) => leaf_node(script),
            Self::Hidden(hash) => *hash,
        }
    }
}

/// What it takes to spend one leaf, beside the leaf's own witness items.
#[derive(Debug, Clone)]
pub struct LeafSpend {
    /// The output spent.
    pub txout: TxOut,
    /// The script.
    pub script: ScriptBuf,
    /// Path to the output's key.
    pub control: ControlBlock,
}

impl LeafSpend {
    /// Hash that the leaf's signatures commit to.
    #[must_use]
    pub fn leaf_hash(&self) -> TapLeafHash {
        TapLeafHash::from_script(&self.script, LeafVersion::TapScript)
    }
}

impl ScriptOutput {
    /// An output with these leaves, of which there must be 1 to [`LEAVES_MAX`](crate::script::tree::LEAVES_MAX).
    pub(crate) fn new(leaves: Vec<ScriptBuf>, value: Amount) -> Self {
        let leaves = leaves.into_iter().map(Leaf::Script).collect();
        Self::from_leaves(leaves, value).expect("a fixed handful of leaves")
    }

    /// An output some of whose leaves may be hidden.
    ///
    /// # Errors
    /// If there are no leaves or too many.
    pub fn from_leaves(leaves: Vec<Leaf>, value: Amount) -> Result<Self, TreeSizeError> {
        let tree = ScriptTree::new(leaves.iter().map(Leaf::hash).collect())?;
        Ok(Self { tree, leaves, value })
    }

    /// The output.
    #[must_use]
    pub fn txout(&self) -> TxOut {
        TxOut { value: self.value, script_pubkey: self.tree.script_pubkey() }
    }

    /// All leaves, in order.
    #[must_use]
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Hash of leaf `index`, as signatures commit to it; `None` if there is no such leaf.
    #[must_use]
    pub fn leaf_hash(&self, index: usize) -> Option<TapLeafHash> {
        Some(TapLeafHash::from_byte_array(self.tree.leaves().get(index)?.to_byte_array()))
    }

    /// How to spend leaf `index`; `None` if there is no such leaf, or only its hash is known.
    #[must_use]
    pub fn leaf(&self, index: usize) -> Option<LeafSpend> {
        match self.leaves.get(index)? {
            Leaf::Script(script) => self.spend(index, script.clone()),
            Leaf::Hidden(_) => None,
        }
    }

    /// How to spend leaf `index` with its script brought along; `None` if the script is not that leaf's.
    #[must_use]
    pub fn hidden_leaf(&self, index: usize, script: ScriptBuf) -> Option<LeafSpend> {
        if self.leaves.get(index)?.hash() != leaf_node(&script) {
            return None;
        }
        self.spend(index, script)
    }

    fn spend(&self, index: usize, script: ScriptBuf) -> Option<LeafSpend> {
        let control = self.tree.control_block(index)?;
        Some(LeafSpend { txout: self.txout(), script, control })
    }
}

/// Index of the leaf that ends the epoch; it is the first one, so that it is there in every connector.
pub const NEXT_EPOCH_LEAF: usize = 0;
/// Index of the leaf that makes a claim.
pub const CLAIM_LEAF: usize = 1;

/// The connector that claim `claim` spends. With `keys` absent (after the last claim) only the next epoch can follow.
#[must_use]
pub fn claim_connector(terms: &EpochTerms, claim: u32, keys: Option<&ClaimKeys>) -> ScriptOutput {
    let mut leaves = vec![locked_to_operator(terms, terms.locks.cadence_blocks)];
    leaves.extend(keys.map(|keys| claim_script(terms, claim, keys)));
    ScriptOutput::new(leaves, CONNECTOR_VALUE)
}

/// The collateral. At this stage only its time lock and the operator's key hold it.
#[must_use]
pub fn collateral(terms: &EpochTerms) -> ScriptOutput {
    ScriptOutput::new(vec![locked_to_operator(terms, terms.locks.collateral_blocks)], terms.collateral)
}

/// `<blocks> CSV DROP <operator> CHECKSIG`. Witness: signature.
fn locked_to_operator(terms: &EpochTerms, blocks: u16) -> ScriptBuf {
    time_lock(Builder::new(), blocks)
        .push_x_only_key(&terms.operator_key)
        .push_opcode(OP_CHECKSIG)
        .into_script()
}

pub(crate) fn time_lock(builder: Builder, blocks: u16) -> Builder {
    builder
        .push_int(i64::from(Sequence::from_height(blocks).to_consensus_u32()))
        .push_opcode(OP_CSV)
        .push_opcode(OP_DROP)
}

/// The claim script: cadence, the operator's signature, and a Winternitz signature of each claim value.
///
/// The code root must be the epoch's, and the first claim must start where the epoch starts: both are constants here.
/// Witness, top first: signature, then the items of each value in the order of [`ClaimValue::ALL`].
#[must_use]
pub fn claim_script(terms: &EpochTerms, claim: u32, keys: &ClaimKeys) -> ScriptBuf {
    let start = time_lock(Builder::new(), terms.locks.cadence_blocks)
        .push_x_only_key(&terms.operator_key)
        .push_opcode(OP_CHECKSIGVERIFY);
    let previous = (claim == 0).then_some(&terms.params.start_commitment);
    signed_values(start, &terms.params.code_root, previous, keys)
}

/// The part of the claim script that checks the signed values; ends the script. The code root is a constant, and the previous
/// root if `previous` is given.
pub(crate) fn signed_values(
    start: Builder,
    code_root: &[u8; 32],
    previous: Option<&[u8; 32]>,
    keys: &ClaimKeys,
) -> ScriptBuf {
    let checked = ClaimValue::ALL.iter().zip(&keys.0).fold(start, |builder, (value, key)| {
        let builder = winternitz::verify(builder, key);
        match (value, previous) {
            (ClaimValue::CodeRoot, _) => equals_constant(builder, code_root),
            (ClaimValue::PrevRoot, Some(start)) => equals_constant(builder, start),
            _ => drop_value(builder, key.size().message_digits()),
        }
    });
    checked.push_int(1).into_script()
}
