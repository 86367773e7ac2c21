//! Runs a tapscript in Core's interpreter and in ours, for tests.

use bitcoin::hashes::Hash;
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::{
    absolute, transaction, Amount, OutPoint, ScriptBuf, Sequence, TapLeafHash, Transaction, TxIn, TxOut,
    Txid, Witness,
};

use super::interpreter::{run, Spend};
use super::unspendable_key;
use crate::consensus::{secp, verify_transaction};

/// A transaction that spends an output whose only leaf is `script` with `items` (bottom of the stack first), and the output.
pub(crate) fn spend_of(script: &ScriptBuf, items: &[Vec<u8>]) -> (Transaction, TxOut) {
    let builder = TaprootBuilder::new().add_leaf(0, script.clone()).unwrap();
    let info = builder.finalize(secp(), unspendable_key()).unwrap();
    let control = info.control_block(&(script.clone(), LeafVersion::TapScript)).unwrap();
    let mut witness = Witness::from_slice(items);
    witness.push(script.as_bytes());
    witness.push(control.serialize());
    let tx = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(Txid::from_byte_array([7; 32]), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::from_height(10),
            witness,
        }],
        output: vec![TxOut {
            value: Amount::from_sat(1_000),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    };
    let script_pubkey = ScriptBuf::new_p2tr_tweaked(info.output_key());
    (tx, TxOut { value: Amount::from_sat(2_000), script_pubkey })
}

/// Core's verdict on a transaction of one input.
pub(crate) fn accepts_spend(tx: &Transaction, spent: TxOut) -> bool {
    verify_transaction(tx, &[spent]).is_ok()
}

/// True if consensus accepts `items` (bottom of the stack first) as the witness of a taproot output whose only leaf is `script`.
/// Our interpreter must agree.
pub(crate) fn accepts(script: &ScriptBuf, items: Vec<Vec<u8>>) -> bool {
    let (tx, spent) = spend_of(script, &items);
    let verdict = accepts_spend(&tx, spent.clone());
    let leaf = TapLeafHash::from_script(script, LeafVersion::TapScript);
    let ours = run(script, items, Spend { tx: &tx, input: 0, spent: &[spent], leaf });
    assert_eq!(ours.is_ok(), verdict, "Core and our interpreter disagree: {ours:?}");
    verdict
}
