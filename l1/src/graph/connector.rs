//! Outputs that bind one transaction to the next, and their scripts.

use bitcoin::opcodes::all::{OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_CSV, OP_DROP};
use bitcoin::script::Builder;
use bitcoin::taproot::{ControlBlock, LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo};
use bitcoin::{Amount, ScriptBuf, Sequence, TxOut};

use super::terms::{ClaimKeys, ClaimValue, EpochTerms};
use crate::consensus::secp;
use crate::script::compare::{drop_value, equals_constant};
use crate::script::{unspendable_key, winternitz};

/// Value of a claim connector: the smallest that relay policy takes for a taproot output.
pub const CONNECTOR_VALUE: Amount = Amount::from_sat(330);

/// A taproot output without a key path, with all its leaves.
#[derive(Debug, Clone)]
pub struct ScriptOutput {
    info: TaprootSpendInfo,
    leaves: Vec<ScriptBuf>,
    value: Amount,
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
    /// An output with one or two leaves.
    pub(crate) fn new(leaves: Vec<ScriptBuf>, value: Amount) -> Self {
        let depth = u8::from(leaves.len() > 1);
        let builder = leaves.iter().fold(TaprootBuilder::new(), |builder, leaf| {
            builder.add_leaf(depth, leaf.clone()).expect("one leaf at depth 0 or two at depth 1")
        });
        let info = builder.finalize(secp(), unspendable_key()).expect("the tree is complete");
        Self { info, leaves, value }
    }

    /// The output.
    #[must_use]
    pub fn txout(&self) -> TxOut {
        TxOut { value: self.value, script_pubkey: ScriptBuf::new_p2tr_tweaked(self.info.output_key()) }
    }

    /// How to spend leaf `index`; `None` if there is no such leaf.
    #[must_use]
    pub fn leaf(&self, index: usize) -> Option<LeafSpend> {
        let script = self.leaves.get(index)?.clone();
        let control = self.info.control_block(&(script.clone(), LeafVersion::TapScript))?;
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

fn time_lock(builder: Builder, blocks: u16) -> Builder {
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
    let checked = ClaimValue::ALL.iter().zip(&keys.0).fold(start, |builder, (value, key)| {
        let builder = winternitz::verify(builder, key);
        match value {
            ClaimValue::CodeRoot => equals_constant(builder, &terms.params.code_root),
            ClaimValue::PrevRoot if claim == 0 => equals_constant(builder, &terms.params.start_commitment),
            _ => drop_value(builder, key.size().message_digits()),
        }
    });
    checked.push_int(1).into_script()
}
