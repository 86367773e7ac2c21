//! Headers mined and blocks built for tests.

use assay_l1_light::chain::{BlockContext, Depths, LightClient};
use assay_l1_light::header::Header;
use assay_l1_light::params::{Difficulty, Network, Params};
use assay_l1_light::pow::Target;
use assay_l1_light::Hash;
use bitcoin::block;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash as _;
use bitcoin::{
    absolute, transaction, Amount, Block, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness,
};
use proptest::prelude::*;

/// Headers 1 to 3 of the main network; that they hash below their targets shows that they are genuine.
pub(crate) const MAINNET: [&str; 3] = [
    "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000982051fd1e4ba744bbbe680e1fee14677ba1a3c3540b\
     f7b1cdb606e857233e0e61bc6649ffff001d01e36299",
    "010000004860eb18bf1b1620e37e9490fc8a427514416fd75159ab86688e9a8300000000d5fdcc541e25de1c7a5addedf24858b8bb665c9f36ef\
     744ee42c316022c90f9bb0bc6649ffff001d08d2bd61",
    "01000000bddd99ccfda39da1b108ce1a5d70038d0a967bacb68b6b63065f626a0000000044f672226090d85db9a9f2fbfe5f0f9609b387af7be5\
     b7fbb7a1767c831c9e995dbe6649ffff001d05e0ed6d",
];

pub(crate) fn mainnet(index: usize) -> [u8; 80] {
    hex::decode(MAINNET[index]).unwrap().try_into().unwrap()
}

/// A client of the main network with headers 1 to `count`.
pub(crate) fn mainnet_client(count: usize) -> LightClient {
    let mut client = LightClient::from_genesis(Network::Mainnet, Depths { finality: 2, keep: 100 }).unwrap();
    for index in 0..count {
        client.accept(&Header::decode(&mainnet(index)).unwrap(), None).unwrap();
    }
    client
}

/// Rules whose blocks are mined at once: 512 hashes at the limit, a period of 8 blocks of 4 seconds.
pub(crate) fn quick(difficulty: Difficulty) -> Params {
    Params { limit_bits: 0x1f7f_ffff, difficulty, version_heights: [1; 3], period_blocks: 8, spacing_s: 4 }
}

/// Genesis block of [`quick`].
pub(crate) fn quick_genesis() -> Header {
    Header {
        version: 4,
        parent: Hash::ZERO,
        merkle_root: Hash([7; 32]),
        time: 1_000_000,
        bits: 0x1f7f_ffff,
        nonce: 0,
    }
}

pub(crate) fn quick_client(difficulty: Difficulty, depths: Depths) -> LightClient {
    let genesis = BlockContext::genesis(&quick_genesis()).unwrap();
    LightClient::from_checkpoint(quick(difficulty), depths, genesis).unwrap()
}

/// A header with work; `salt` tells siblings apart.
pub(crate) fn mine(parent: Hash, time: u32, bits: u32, salt: u8) -> Header {
    let mut header = Header { version: 4, parent, merkle_root: Hash([salt; 32]), time, bits, nonce: 0 };
    let target = Target::from_bits(bits).unwrap();
    while !target.is_met_by(&header.hash()) {
        header.nonce += 1;
    }
    header
}

/// A transaction of any shape, but not of 64 bytes.
pub(crate) fn any_transaction() -> impl Strategy<Value = Transaction> {
    let script = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(ScriptBuf::from_bytes);
    let item = proptest::collection::vec(any::<u8>(), 0..300);
    let input =
        (any::<[u8; 32]>(), any::<u32>(), script(), any::<u32>(), proptest::collection::vec(item, 0..4));
    let input = input.prop_map(|(txid, vout, script_sig, sequence, witness)| TxIn {
        previous_output: OutPoint::new(Txid::from_byte_array(txid), vout),
        script_sig,
        sequence: Sequence(sequence),
        witness: Witness::from_slice(&witness),
    });
    let output = (0..Amount::MAX_MONEY.to_sat(), script())
        .prop_map(|(value, script_pubkey)| TxOut { value: Amount::from_sat(value), script_pubkey });
    let parts = (
        any::<i32>(),
        proptest::collection::vec(input, 1..4),
        proptest::collection::vec(output, 0..4),
        any::<u32>(),
    );
    let transaction = parts.prop_map(|(version, input, output, lock_time)| Transaction {
        version: transaction::Version(version),
        lock_time: absolute::LockTime::from_consensus(lock_time),
        input,
        output,
    });
    // Those of 64 bytes have a test of their own.
    transaction.prop_filter("64 bytes", |tx| tx.base_size() != 64)
}

/// A block of `txs` after a coinbase that commits to their witnesses. Its header has no work.
pub(crate) fn block(txs: Vec<Transaction>) -> Block {
    let coinbase = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(vec![1, 9, 0]),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[5; 32]]),
        }],
        output: vec![TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) }],
    };
    let header = block::Header {
        version: block::Version::TWO,
        prev_blockhash: bitcoin::BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 1,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    let mut block = Block { header, txdata: vec![coinbase] };
    block.txdata.extend(txs);
    let root = block.witness_root().unwrap();
    let commitment = Block::compute_witness_commitment(&root, &[5; 32]);
    let script = [[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed].as_slice(), commitment.as_byte_array()].concat();
    let output = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) };
    block.txdata[0].output.push(output);
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    block
}

pub(crate) fn bytes(tx: &Transaction) -> Vec<u8> {
    serialize(tx)
}

pub(crate) fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}
