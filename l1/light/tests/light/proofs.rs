//! Transactions and proofs against the `bitcoin` crate and against forgery.

use assay_l1_light::merkle::{self, MerkleError, Path};
use assay_l1_light::proof::{ProofError, ProvenBlock, WholeBlock};
use assay_l1_light::transaction::{Transaction, TransactionError};
use assay_l1_light::{double_sha256, Hash};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash as _;
use proptest::prelude::*;

use super::support::{any_transaction, block, bytes, flip};

/// Everything a verifier needs for transaction `index`.
struct Case {
    root: Hash,
    coinbase: Vec<u8>,
    coinbase_path: Path,
    tx: Vec<u8>,
    path: Path,
    witness: Path,
}

fn case(block: &bitcoin::Block, index: usize) -> Case {
    let raw = serialize(block);
    let whole = WholeBlock::decode(&raw).unwrap();
    let (path, witness) = whole.paths(index as u32).unwrap();
    Case {
        root: whole.header.merkle_root,
        coinbase: bytes(&block.txdata[0]),
        coinbase_path: whole.paths(0).unwrap().0,
        tx: bytes(&block.txdata[index]),
        path,
        witness,
    }
}

impl Case {
    fn verify(&self) -> Result<Hash, ProofError> {
        let proven = ProvenBlock::new(&self.root, &self.coinbase, &self.coinbase_path)?;
        Ok(proven.prove_witness(&self.tx, &self.path, &self.witness.siblings)?.wtxid)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn transactions_are_those_of_the_bitcoin_crate(tx in any_transaction()) {
        let raw = bytes(&tx);
        let ours = Transaction::decode(&raw).unwrap();
        prop_assert_eq!(ours.txid.0, tx.compute_txid().to_byte_array());
        prop_assert_eq!(ours.wtxid.0, tx.compute_wtxid().to_byte_array());
        prop_assert_eq!(ours.stripped_len, tx.base_size());
        prop_assert_eq!((ours.version as i32, ours.lock_time), (tx.version.0, tx.lock_time.to_consensus_u32()));
        prop_assert_eq!((ours.inputs.len(), ours.outputs.len()), (tx.input.len(), tx.output.len()));
        for (ours, theirs) in ours.inputs.iter().zip(&tx.input) {
            prop_assert_eq!(ours.previous_output.txid.0, theirs.previous_output.txid.to_byte_array());
            prop_assert_eq!(ours.previous_output.vout, theirs.previous_output.vout);
            prop_assert_eq!(ours.script_sig, theirs.script_sig.as_bytes());
            prop_assert_eq!(ours.sequence, theirs.sequence.0);
            prop_assert_eq!(&ours.witness, &theirs.witness.iter().collect::<Vec<_>>());
        }
        for (ours, theirs) in ours.outputs.iter().zip(&tx.output) {
            prop_assert_eq!(ours.value_sat, theirs.value.to_sat());
            prop_assert_eq!(ours.script_pubkey, theirs.script_pubkey.as_bytes());
        }
        let longer = [raw.as_slice(), &[0]].concat();
        prop_assert_eq!(Transaction::decode(&longer), Err(TransactionError::Trailing { left: 1 }));
    }

    #[test]
    fn damaged_transactions_are_read_like_the_bitcoin_crate_does(
        tx in any_transaction(), bit in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(),
    ) {
        let raw = bytes(&tx);
        for raw in [flip(&raw, bit.index(raw.len() * 8)), raw[..cut.index(raw.len())].to_vec()] {
            let theirs: Result<bitcoin::Transaction, _> = deserialize(&raw);
            match (Transaction::decode(&raw), theirs) {
                (Ok(ours), Ok(theirs)) => {
                    prop_assert_eq!(ours.txid.0, theirs.compute_txid().to_byte_array());
                    prop_assert_eq!(ours.wtxid.0, theirs.compute_wtxid().to_byte_array());
                }
                (Err(_), Err(_)) => {}
                // Theirs takes a transaction without inputs.
                (Err(error), Ok(theirs)) => {
                    prop_assert!(theirs.input.is_empty(), "{}", error);
                }
                (Ok(_), Err(error)) => prop_assert!(false, "only ours reads it: {}", error),
            }
        }
    }

    #[test]
    fn every_transaction_of_a_block_is_proved_and_no_damaged_proof_is(
        txs in proptest::collection::vec(any_transaction(), 0..9), pick in any::<prop::sample::Index>(),
        bits in proptest::collection::vec(any::<prop::sample::Index>(), 40),
    ) {
        let block = block(txs);
        for (index, tx) in block.txdata.iter().enumerate() {
            prop_assert_eq!(case(&block, index).verify().unwrap().0, tx.compute_wtxid().to_byte_array());
        }
        let good = case(&block, pick.index(block.txdata.len()));
        for bit in bits {
            let tx = Case { tx: flip(&good.tx, bit.index(good.tx.len() * 8)), ..case(&block, good.path.index as usize) };
            prop_assert!(tx.verify().is_err());
            let coinbase = flip(&good.coinbase, bit.index(good.coinbase.len() * 8));
            let coinbase = Case { coinbase, ..case(&block, good.path.index as usize) };
            prop_assert!(coinbase.verify().is_err());
            let mut root = case(&block, good.path.index as usize);
            root.root.0[bit.index(32)] ^= 1;
            prop_assert!(root.verify().is_err());
            if !good.path.siblings.is_empty() {
                for part in 0..3 {
                    let mut other = case(&block, good.path.index as usize);
                    let siblings = match part {
                        0 => &mut other.path.siblings,
                        1 => &mut other.witness.siblings,
                        _ => &mut other.coinbase_path.siblings,
                    };
                    let level = bit.index(siblings.len());
                    siblings[level].0[bit.index(32)] ^= 0x10;
                    prop_assert!(other.verify().is_err());
                }
            }
        }
        for index in 0..20 {
            if index != good.path.index {
                let mut other = case(&block, good.path.index as usize);
                other.path.index = index;
                prop_assert!(other.verify().is_err(), "index {} instead of {}", index, good.path.index);
            }
        }
    }

    #[test]
    fn damaged_blocks_are_refused(
        txs in proptest::collection::vec(any_transaction(), 1..5), bit in any::<prop::sample::Index>(),
    ) {
        let raw = serialize(&block(txs));
        prop_assert!(WholeBlock::decode(&raw).is_ok());
        let bit = bit.index(raw.len() * 8);
        // Of the header only the root concerns the transactions.
        if !(36 * 8..68 * 8).contains(&bit) && bit < 80 * 8 {
            return Ok(());
        }
        prop_assert!(WholeBlock::decode(&flip(&raw, bit)).is_err(), "bit {}", bit);
    }

    #[test]
    fn roots_are_those_of_the_bitcoin_crate(leaves in proptest::collection::vec(any::<[u8; 32]>(), 1..40)) {
        let theirs = leaves.iter().map(|leaf| bitcoin::hashes::sha256d::Hash::from_byte_array(*leaf));
        let theirs = bitcoin::merkle_tree::calculate_root(theirs).unwrap();
        let ours: Vec<Hash> = leaves.iter().map(|leaf| Hash(*leaf)).collect();
        prop_assert_eq!(merkle::root(&ours).unwrap().0, theirs.to_byte_array());
        for index in 0..ours.len() {
            let path = Path::of(&ours, index as u32).unwrap();
            prop_assert_eq!(path.root(&ours[index]).unwrap().0, theirs.to_byte_array());
        }
        prop_assert!(Path::of(&ours, ours.len() as u32).is_none());
    }
}

fn leaves(count: u8) -> Vec<Hash> {
    (0..count).map(|index| Hash([index + 1; 32])).collect()
}

#[test]
fn a_repeated_tail_has_the_same_root_and_is_refused() {
    for (count, repeated) in [(3, 1), (5, 1), (6, 2), (7, 1), (12, 4)] {
        let list = leaves(count);
        let root = merkle::root(&list).unwrap();
        let twice = [list.as_slice(), &list[list.len() - repeated..]].concat();
        let theirs = twice.iter().map(|leaf| bitcoin::hashes::sha256d::Hash::from_byte_array(leaf.0));
        assert_eq!(bitcoin::merkle_tree::calculate_root(theirs).unwrap().to_byte_array(), root.0, "one root");
        assert!(matches!(merkle::root(&twice), Err(MerkleError::Duplicate { .. })), "{count}");
        // The copies have paths that lead to the root, but not for this verifier.
        let good = Path::of(&list, u32::from(count) - 1).unwrap();
        for index in u32::from(count)..16 {
            let path = Path { index, ..good.clone() };
            assert_ne!(path.root(&list[list.len() - 1]), Ok(root), "{count} {index}");
        }
    }
    assert_eq!(merkle::root(&[]), Err(MerkleError::Empty));
    let path = Path { index: 0, siblings: vec![Hash::ZERO; 16] };
    assert_eq!(path.root(&Hash::ZERO), Err(MerkleError::Depth { depth: 16 }));
}

#[test]
fn an_inner_node_is_no_transaction_and_a_transaction_no_inner_node() {
    let honest = block(Vec::new()).txdata.remove(0);
    // 64 bytes that are a transaction, and whose second half is the id of a transaction that nobody mined.
    let forged =
        bitcoin::Transaction { lock_time: bitcoin::absolute::LockTime::from_consensus(77), ..honest.clone() };
    let forged_id = Hash(forged.compute_txid().to_byte_array());
    let left = Hash([0x33; 32]);
    let twin = double_sha256(&[&left.0, &forged_id.0]);
    let coinbase_id = Hash(honest.compute_txid().to_byte_array());
    let root = double_sha256(&[&coinbase_id.0, &twin.0]);
    let deep = Path { index: 3, siblings: vec![left, coinbase_id] };
    assert_eq!(deep.root(&forged_id), Ok(root), "by its path alone the forgery is in the block");
    let proven = ProvenBlock::new(&root, &bytes(&honest), &Path { index: 0, siblings: vec![twin] }).unwrap();
    let raw = bytes(&forged);
    assert_eq!(proven.prove(&raw, &deep), Err(ProofError::Depth { expected: 1, got: 2 }));

    // A real transaction of 64 bytes proves nothing either.
    let mut short = block(Vec::new()).txdata.remove(0);
    short.input[0].previous_output.vout = 1;
    short.input[0].witness.clear();
    short.input[0].script_sig = bitcoin::ScriptBuf::new();
    short.output.truncate(1);
    short.output[0].script_pubkey = bitcoin::ScriptBuf::from_bytes(vec![0x51, 0x02, 0x4e, 0x73]);
    assert_eq!(bytes(&short).len(), 64);
    let block = block(vec![short]);
    let case = case(&block, 1);
    assert_eq!(case.verify(), Err(ProofError::Ambiguous));
}

#[test]
fn a_second_coinbase_and_a_missing_one_are_refused() {
    let mut txs = block(Vec::new()).txdata;
    txs[0].lock_time = bitcoin::absolute::LockTime::from_consensus(1);
    let two = block(txs);
    assert_eq!(WholeBlock::decode(&serialize(&two)), Err(ProofError::Coinbase));
    let mut none = block(Vec::new());
    none.txdata.clear();
    assert_eq!(WholeBlock::decode(&serialize(&none)), Err(ProofError::Coinbase));
}

#[test]
fn witnesses_need_a_commitment() {
    let mut tx = block(Vec::new()).txdata.remove(0);
    tx.input[0].previous_output.vout = 1;
    let mut block = block(vec![tx]);
    block.txdata[0].output.pop();
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    assert_eq!(WholeBlock::decode(&serialize(&block)), Err(ProofError::NoCommitment));
    block.txdata[1].input[0].witness.clear();
    let raw = serialize(&block);
    // The coinbase's own witness is still there: without a commitment nothing vouches for it.
    assert_eq!(WholeBlock::decode(&raw), Err(ProofError::NoCommitment));
    block.txdata[0].input[0].witness.clear();
    assert!(WholeBlock::decode(&serialize(&block)).is_ok());
    case(&block, 1).verify().unwrap();
}
