//! Transactions of a graph with one field changed.

use assay_l1::graph::contract::build::TxRole;
use assay_l1::graph::contract::review::ProposedTx;
use bitcoin::hashes::Hash;
use bitcoin::sighash::TapSighashType;
use bitcoin::{
    absolute, transaction, Amount, ScriptBuf, Sequence, TapLeafHash, Txid, Witness, XOnlyPublicKey,
};

/// Every way to change one field of a transaction; `other_key`: a key that is none of the graph's.
pub(crate) fn mutations(good: &ProposedTx, other_key: XOnlyPublicKey) -> Vec<(String, ProposedTx)> {
    let mut all = Vec::new();
    let mut add = |name: String, change: &dyn Fn(&mut ProposedTx)| {
        let mut other = good.clone();
        change(&mut other);
        assert_ne!(&other, good, "{name} changes something");
        all.push((name, other));
    };
    let version = good.tx.version.0;
    add("version".into(), &|tx| tx.tx.version = transaction::Version(if version == 3 { 2 } else { 3 }));
    add("lock time".into(), &|tx| tx.tx.lock_time = absolute::LockTime::from_consensus(1));
    for at in 0..good.tx.input.len() {
        add(format!("input {at} id"), &|tx| {
            tx.tx.input[at].previous_output.txid = Txid::from_byte_array([0xee; 32]);
        });
        add(format!("input {at} index"), &|tx| tx.tx.input[at].previous_output.vout ^= 1);
        add(format!("input {at} sequence"), &|tx| {
            tx.tx.input[at].sequence = Sequence(tx.tx.input[at].sequence.0 - 1);
        });
        add(format!("input {at} script"), &|tx| {
            tx.tx.input[at].script_sig = ScriptBuf::from_bytes(vec![0x51]);
        });
        add(format!("input {at} witness"), &|tx| tx.tx.input[at].witness = Witness::from_slice(&[[1]]));
        add(format!("input {at} twice"), &|tx| tx.tx.input.push(tx.tx.input[at].clone()));
        add(format!("input {at} gone"), &|tx| drop(tx.tx.input.remove(at)));
    }
    for at in 0..good.tx.output.len() {
        add(format!("output {at} value"), &|tx| tx.tx.output[at].value += Amount::from_sat(1));
        add(format!("output {at} script"), &|tx| {
            let mut bytes = tx.tx.output[at].script_pubkey.to_bytes();
            *bytes.last_mut().unwrap() ^= 1;
            tx.tx.output[at].script_pubkey = bytes.into();
        });
        add(format!("output {at} twice"), &|tx| tx.tx.output.push(tx.tx.output[at].clone()));
        add(format!("output {at} gone"), &|tx| drop(tx.tx.output.remove(at)));
    }
    for at in 0..good.spent.len() {
        add(format!("spent {at} value"), &|tx| tx.spent[at].value += Amount::from_sat(1));
        add(format!("spent {at} script"), &|tx| tx.spent[at].script_pubkey = ScriptBuf::new());
        add(format!("spent {at} gone"), &|tx| drop(tx.spent.remove(at)));
    }
    for at in 0..good.requests.len() {
        add(format!("request {at} role"), &|tx| tx.requests[at].role = TxRole::Claim(77));
        add(format!("request {at} input"), &|tx| tx.requests[at].input += 1);
        add(format!("request {at} leaf"), &|tx| tx.requests[at].leaf += 1);
        add(format!("request {at} leaf hash"), &|tx| {
            tx.requests[at].leaf_hash = TapLeafHash::from_byte_array([1; 32]);
        });
        add(format!("request {at} type"), &|tx| {
            tx.requests[at].sighash = TapSighashType::AllPlusAnyoneCanPay;
        });
        add(format!("request {at} signer"), &|tx| tx.requests[at].signer = other_key);
        add(format!("request {at} message"), &|tx| tx.requests[at].message[31] ^= 1);
        add(format!("request {at} twice"), &|tx| tx.requests.push(tx.requests[at]));
        add(format!("request {at} gone"), &|tx| {
            tx.requests.remove(at);
        });
    }
    all
}
