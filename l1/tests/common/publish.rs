//! Envelopes of anyone, published on a chain for tests.

#![allow(dead_code, reason = "each test binary uses its part")]

use assay_l1::envelope::script::commit_output;
use assay_l1::envelope::{Envelope, Tag};
use assay_l1::graph::connector::LeafSpend;
use assay_l1::BitcoinBackend;
use bitcoin::hashes::Hash;
use bitcoin::key::Keypair;
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::{
    absolute, transaction, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
};

use super::chain::{open_script, open_witness};

/// Value of a commit output.
pub(crate) const COMMIT: Amount = Amount::from_sat(50_000);

pub(crate) fn pair(seed: u8) -> Keypair {
    Keypair::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&[seed; 32]).unwrap())
}

pub(crate) fn transaction(inputs: &[OutPoint], output: Vec<TxOut>) -> Transaction {
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output,
    }
}

/// A mined transaction with `outputs`, paid by a coin that anyone can spend. Blocks are mined until there is one.
pub(crate) fn fund(backend: &dyn BitcoinBackend, outputs: Vec<TxOut>) -> Transaction {
    let miner = backend.miner().unwrap();
    let script = open_script();
    let coin = loop {
        let tip = backend.tip().unwrap().height;
        let mature = backend.utxos(&script).unwrap().into_iter().find(|coin| tip + 1 >= coin.height + 100);
        match mature {
            Some(coin) => break coin,
            None => drop(miner.mine(101, &script).unwrap()),
        }
    };
    let mut tx = transaction(&[coin.outpoint], outputs);
    tx.input[0].witness = open_witness();
    miner.mine_exactly(std::slice::from_ref(&tx), &script).unwrap();
    tx
}

/// What it takes to reveal an envelope of `author`.
pub(crate) fn leaf(author: &Keypair, tag: &Tag, envelope: &Envelope) -> LeafSpend {
    commit_output(&author.x_only_public_key().0, tag, envelope, COMMIT).leaf(0).unwrap()
}

/// The transaction that reveals envelopes, each committed to in the output named beside it, `sequence` blocks later.
pub(crate) fn reveal(
    author: &Keypair,
    spends: &[(OutPoint, LeafSpend)],
    outputs: Vec<TxOut>,
    sequence: Sequence,
) -> Transaction {
    let inputs: Vec<OutPoint> = spends.iter().map(|(outpoint, _)| *outpoint).collect();
    let mut tx = transaction(&inputs, outputs);
    tx.input.iter_mut().for_each(|input| input.sequence = sequence);
    let spent: Vec<TxOut> = spends.iter().map(|(_, spend)| spend.txout.clone()).collect();
    for (index, (_, spend)) in spends.iter().enumerate() {
        let hash = SighashCache::new(&tx)
            .taproot_script_spend_signature_hash(
                index,
                &Prevouts::All(&spent),
                spend.leaf_hash(),
                TapSighashType::Default,
            )
            .unwrap();
        let message = Message::from_digest(hash.to_byte_array());
        let signature = Secp256k1::new().sign_schnorr_no_aux_rand(&message, author);
        let items = [signature.as_ref().to_vec(), spend.script.to_bytes(), spend.control.serialize()];
        tx.input[index].witness = Witness::from_slice(&items);
    }
    tx
}

/// Publishes envelopes of `author`, one transaction in a block of its own for each; returns these.
pub(crate) fn publish(
    backend: &dyn BitcoinBackend,
    author: &Keypair,
    tag: &Tag,
    envelopes: &[Envelope],
) -> Vec<Transaction> {
    let spends: Vec<LeafSpend> = envelopes.iter().map(|envelope| leaf(author, tag, envelope)).collect();
    let commit = fund(backend, spends.iter().map(|spend| spend.txout.clone()).collect());
    let commit_txid = commit.compute_txid();
    let txs = spends.into_iter().enumerate().map(|(vout, spend)| {
        let output = TxOut { value: Amount::from_sat(1_000), script_pubkey: open_script() };
        let tx =
            reveal(author, &[(OutPoint::new(commit_txid, vout as u32), spend)], vec![output], Sequence::MAX);
        backend.miner().unwrap().mine_exactly(std::slice::from_ref(&tx), &open_script()).unwrap();
        tx
    });
    txs.collect()
}
