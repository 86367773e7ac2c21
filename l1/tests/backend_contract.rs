//! One contract for both back ends.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/chain.rs"]
mod chain;

use assay_l1::{BackendError, TxState};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, Network, OutPoint, Sequence, Transaction, Witness};
use chain::{open_script, spend, unknown_txid, Harness, InProcess, Node};

fn rejected(result: Result<(), BackendError>, part: &str) {
    match result {
        Err(BackendError::Rejected { reason, .. }) => assert!(reason.contains(part), "{reason}"),
        other => panic!("expected a rejection with {part}, got {other:?}"),
    }
}

/// Coins of the test script that can be spent in the next block, oldest first.
fn mature(harness: &dyn Harness) -> Vec<(OutPoint, Amount)> {
    let backend = harness.backend();
    let next = backend.tip().unwrap().height + 1;
    let mut coins = backend.utxos(&open_script()).unwrap();
    coins.sort_by_key(|coin| coin.height);
    coins.retain(|coin| !coin.coinbase || next - coin.height >= 100);
    coins.into_iter().map(|coin| (coin.outpoint, coin.txout.value)).collect()
}

fn mine(harness: &dyn Harness, count: u32) -> Vec<BlockHash> {
    harness.backend().miner().expect("regtest").mine(count, &open_script()).unwrap()
}

fn a_new_chain_is_its_genesis_block(harness: &mut dyn Harness) {
    let backend = harness.backend();
    let genesis = genesis_block(Network::Regtest);
    assert_eq!(backend.network(), Network::Regtest);
    let tip = backend.tip().unwrap();
    assert_eq!((tip.height, tip.hash), (0, genesis.block_hash()));
    assert_eq!(backend.block_hash(0).unwrap(), tip.hash);
    assert_eq!(backend.block(&tip.hash).unwrap(), genesis);
    assert!(backend.utxos(&open_script()).unwrap().is_empty());
}

fn unknown_things_are_named_not_found(harness: &mut dyn Harness) {
    let backend = harness.backend();
    assert!(matches!(backend.block_hash(1_000_000), Err(BackendError::NotFound { .. })));
    let nowhere = BlockHash::from_byte_array([9; 32]);
    assert!(matches!(backend.block(&nowhere), Err(BackendError::NotFound { .. })));
    assert_eq!(backend.transaction(&unknown_txid(), 0).unwrap(), None);
}

fn mined_blocks_pay_the_script_and_mature(harness: &mut dyn Harness) {
    let hashes = mine(harness, 101);
    let backend = harness.backend();
    assert_eq!(backend.tip().unwrap().hash, *hashes.last().unwrap());
    assert_eq!(backend.block_hash(1).unwrap(), hashes[0]);
    let block = backend.block(&hashes[0]).unwrap();
    let coins = backend.utxos(&open_script()).unwrap();
    assert_eq!(coins.len(), 101);
    let first = coins.iter().find(|coin| coin.height == 1).unwrap();
    assert_eq!(first.outpoint, OutPoint::new(block.txdata[0].compute_txid(), 0));
    assert!(first.coinbase);
    assert_eq!(first.txout.value, Amount::from_int_btc(50));
    // 101 blocks: the coins of heights 1 and 2 can be spent in block 102.
    assert_eq!(mature(harness).len(), 2);
}

fn a_transaction_goes_from_unknown_to_mempool_to_confirmed(harness: &mut dyn Harness) {
    let (coin, value) = mature(harness)[0];
    let tx = spend(coin, value, Sequence::MAX);
    let txid = tx.compute_txid();
    let backend = harness.backend();
    let since = backend.tip().unwrap().height;
    assert_eq!(backend.transaction(&txid, since).unwrap(), None);
    backend.broadcast(&tx).unwrap();
    backend.broadcast(&tx).expect("offering it again is no error");
    let record = backend.transaction(&txid, since).unwrap().unwrap();
    assert_eq!((record.tx, record.state), (tx.clone(), TxState::Mempool));
    let hash = mine(harness, 1)[0];
    mine(harness, 1);
    backend.broadcast(&tx).expect("offering a mined one is no error");
    let record = backend.transaction(&txid, since).unwrap().unwrap();
    assert_eq!(record.tx, tx);
    let expected = TxState::Confirmed { height: since + 1, block_hash: hash, confirmations: 2 };
    assert_eq!(record.state, expected);
    assert!(backend.utxos(&open_script()).unwrap().iter().any(|coin| coin.outpoint.txid == txid));
}

fn bad_transactions_are_rejected_with_cores_reason(harness: &mut dyn Harness) {
    let backend = harness.backend();
    let coins = mature(harness);
    let (coin, value) = coins[0];
    let mut missing = spend(coin, value, Sequence::MAX);
    missing.input[0].previous_output.txid = unknown_txid();
    rejected(backend.broadcast(&missing), "missingorspent");
    let young = backend.utxos(&open_script()).unwrap().into_iter().max_by_key(|coin| coin.height).unwrap();
    let early = spend(young.outpoint, young.txout.value, Sequence::MAX);
    rejected(backend.broadcast(&early), "premature-spend-of-coinbase");
    let mut generous = spend(coin, value, Sequence::MAX);
    generous.output[0].value = value + Amount::ONE_SAT;
    rejected(backend.broadcast(&generous), "bad-txns-in-belowout");
    let mut wrong = spend(coin, value, Sequence::MAX);
    wrong.input[0].witness = Witness::from_slice(&[vec![1], vec![0x51]]);
    rejected(backend.broadcast(&wrong), "script-verify-flag-failed");
    let mut later = spend(coin, value, Sequence::ZERO);
    later.lock_time = bitcoin::absolute::LockTime::from_height(backend.tip().unwrap().height + 1).unwrap();
    rejected(backend.broadcast(&later), "non-final");
    // The first spend stands, a second one of the same coin does not replace it.
    backend.broadcast(&spend(coin, value, Sequence::MAX)).unwrap();
    let mut rival = spend(coin, value, Sequence::MAX);
    rival.output[0].value -= Amount::ONE_SAT;
    assert!(matches!(backend.broadcast(&rival), Err(BackendError::Rejected { .. })));
    mine(harness, 1);
}

fn children_are_mined_with_their_parents(harness: &mut dyn Harness) {
    let backend = harness.backend();
    let (coin, value) = mature(harness)[0];
    let parent = spend(coin, value, Sequence::MAX);
    let child = spend(OutPoint::new(parent.compute_txid(), 0), parent.output[0].value, Sequence::MAX);
    backend.broadcast(&parent).unwrap();
    backend.broadcast(&child).unwrap();
    let hash = mine(harness, 1)[0];
    let block = backend.block(&hash).unwrap();
    assert_eq!(block.txdata[1..], [parent, child]);
}

fn relative_locks_hold_until_their_block(harness: &mut dyn Harness) {
    let backend = harness.backend();
    let (coin, value) = mature(harness)[0];
    let parent = spend(coin, value, Sequence::MAX);
    backend.broadcast(&parent).unwrap();
    mine(harness, 1);
    let locked =
        spend(OutPoint::new(parent.compute_txid(), 0), parent.output[0].value, Sequence::from_height(3));
    rejected(backend.broadcast(&locked), "non-BIP68-final");
    let verdict = backend.miner().unwrap().mine_exactly(std::slice::from_ref(&locked), &open_script());
    assert!(matches!(verdict, Err(BackendError::BlockRejected { .. })), "{verdict:?}");
    mine(harness, 1);
    rejected(backend.broadcast(&locked), "non-BIP68-final");
    mine(harness, 1);
    backend.broadcast(&locked).expect("the third block after the parent's may hold it");
    mine(harness, 1);
}

fn consensus_refuses_a_bad_block_and_the_tip_stays(harness: &mut dyn Harness) {
    let backend = harness.backend();
    let tip = backend.tip().unwrap();
    let (coin, value) = mature(harness)[0];
    let good = spend(coin, value, Sequence::MAX);
    let mut wrong = good.clone();
    wrong.input[0].witness = Witness::from_slice(&[vec![1], vec![0x51]]);
    let mut missing = good.clone();
    missing.input[0].previous_output.txid = unknown_txid();
    let miner = backend.miner().unwrap();
    let cases: [(&[Transaction], &str); 2] =
        [(&[wrong], "script-verify-flag-failed"), (&[missing], "missingorspent")];
    for (txs, part) in cases {
        match miner.mine_exactly(txs, &open_script()) {
            Err(BackendError::BlockRejected { reason }) => assert!(reason.contains(part), "{reason}"),
            other => panic!("expected a refusal with {part}, got {other:?}"),
        }
        assert_eq!(backend.tip().unwrap(), tip);
    }
    let hash = miner.mine_exactly(std::slice::from_ref(&good), &open_script()).unwrap();
    assert_eq!(backend.tip().unwrap().hash, hash);
    assert_eq!(backend.block(&hash).unwrap().txdata[1], good);
}

fn the_chain_survives_a_restart(harness: &mut dyn Harness) {
    let tip = harness.backend().tip().unwrap();
    let coins = harness.backend().utxos(&open_script()).unwrap();
    harness.restart();
    assert_eq!(harness.backend().tip().unwrap(), tip);
    assert_eq!(harness.backend().utxos(&open_script()).unwrap(), coins);
    let next = mine(harness, 1)[0];
    assert_eq!(harness.backend().block(&next).unwrap().header.prev_blockhash, tip.hash);
    harness.backend().fee_rate(6).expect("an estimate, or none, but no error");
}

/// The whole contract, in an order in which each part leaves coins for the next.
fn contract(harness: &mut dyn Harness) {
    a_new_chain_is_its_genesis_block(harness);
    unknown_things_are_named_not_found(harness);
    mined_blocks_pay_the_script_and_mature(harness);
    a_transaction_goes_from_unknown_to_mempool_to_confirmed(harness);
    bad_transactions_are_rejected_with_cores_reason(harness);
    children_are_mined_with_their_parents(harness);
    relative_locks_hold_until_their_block(harness);
    consensus_refuses_a_bad_block_and_the_tip_stays(harness);
    the_chain_survives_a_restart(harness);
}

#[test]
fn in_process_regtest_keeps_the_contract() {
    contract(&mut InProcess::new());
}

#[test]
fn bitcoind_keeps_the_contract() {
    if let Some(mut node) = Node::start() {
        contract(&mut node);
    }
}
