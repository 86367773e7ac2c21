//! Runs a tapscript in Core's interpreter, for tests.

use bitcoin::hashes::Hash;
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::{
    absolute, transaction, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};

use super::unspendable_key;
use crate::consensus::{secp, verify_transaction};

/// True if consensus accepts `items` (bottom of the stack first) as the witness of a taproot output whose only leaf is `script`.
pub(crate) fn accepts(script: &ScriptBuf, items: Vec<Vec<u8>>) -> bool {
    let builder = TaprootBuilder::new().add_leaf(0, script.clone()).unwrap();
    let info = builder.finalize(secp(), unspendable_key()).unwrap();
    let control = info.control_block(&(script.clone(), LeafVersion::TapScript)).unwrap();
    let mut witness = Witness::from_slice(&items);
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
    verify_transaction(&tx, &[TxOut { value: Amount::from_sat(2_000), script_pubkey }]).is_ok()
}
