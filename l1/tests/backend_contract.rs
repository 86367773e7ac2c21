//! One contract for both back ends, and what only a node can show.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/chain.rs"]
mod chain;
#[path = "common/node.rs"]
mod node;

use assay_l1::graph::contract::build::anchor;
use assay_l1::{BackendError, ChainTip, TxState, FEE_TARGET_BLOCKS_MAX, PACKAGE_TRANSACTIONS_MAX};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, BlockHash, Network, OutPoint, Sequence, Transaction, TxIn, TxOut, Witness};
use chain::{open_script, open_witness, spend, unknown_txid, Harness, InProcess, Stop};
use node::Node;
use serde_json::json;

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

/// A transaction of `version` from coins of the test script (or an anchor) to `values` of it.
fn transaction(version: i32, inputs: &[OutPoint], values: &[Amount]) -> Transaction {
    let mut tx = spend(inputs[0], Amount::from_sat(10_000), Sequence::MAX);
    tx.version = Version(version);
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        sequence: Sequence::MAX,
        witness: open_witness(),
        ..TxIn::default()
    };
    tx.input = inputs.iter().map(input).collect();
    tx.output = values.iter().map(|value| TxOut { value: *value, script_pubkey: open_script() }).collect();
    tx
}

fn the_fee_floor_is_the_one_that_is_named(harness: &mut dyn Harness) {
    let backend = harness.backend();
    let estimate = backend.fee_estimate(6).unwrap();
    assert!(estimate.target_blocks >= 1);
    assert!(estimate.rate.is_none_or(|rate| rate >= estimate.floor), "{estimate:?}");
    for target in [0, 1, FEE_TARGET_BLOCKS_MAX, u16::MAX] {
        assert!(backend.fee_estimate(target).unwrap().target_blocks <= FEE_TARGET_BLOCKS_MAX);
    }
    let (coin, value) = mature(harness)[0];
    let paying = |fee: Amount| transaction(2, &[coin], &[value - fee]);
    let least = estimate.floor.fee_vb(paying(Amount::ZERO).vsize() as u64).unwrap();
    assert!(least > Amount::ONE_SAT);
    rejected(backend.broadcast(&paying(Amount::ZERO)), "min relay fee not met");
    rejected(backend.broadcast(&paying(least - Amount::ONE_SAT)), "min relay fee not met");
    backend.broadcast(&paying(least)).unwrap();
    mine(harness, 1);
}

/// The refusal of a package in words: its reason, and those of its transactions.
fn refused(result: Result<(), BackendError>) -> String {
    match result {
        Err(error @ BackendError::PackageRejected { .. }) => error.to_string(),
        other => panic!("expected a refusal of the package, got {other:?}"),
    }
}

/// A version 3 parent without a fee, with an anchor (output 1), and what its child has: the anchor and a coin of its own.
fn anchored(harness: &dyn Harness) -> (Transaction, [OutPoint; 2], Amount) {
    let coins = mature(harness);
    let ((coin, value), (fee_coin, fee_value)) = (coins[0], coins[1]);
    let mut parent = transaction(3, &[coin], &[value]);
    parent.output.push(anchor());
    let inputs = [OutPoint::new(parent.compute_txid(), 1), fee_coin];
    (parent, inputs, fee_value)
}

/// Spends the anchor and the coin for `fee`.
fn anchor_child(inputs: [OutPoint; 2], value: Amount, fee: u64) -> Transaction {
    let mut child = transaction(3, &inputs, &[value - Amount::from_sat(fee)]);
    child.input[0].witness = Witness::new();
    child
}

fn a_child_pays_for_its_parent_in_a_package(harness: &mut dyn Harness) {
    let backend = harness.backend();
    let since = backend.tip().unwrap().height;
    let (parent, inputs, value) = anchored(harness);
    let child = anchor_child(inputs, value, 5_000);
    rejected(backend.broadcast(&parent), "min relay fee not met");
    rejected(backend.broadcast(&child), "missingorspent");
    let package = [parent.clone(), child.clone()];
    backend.broadcast_package(&package).unwrap();
    backend.broadcast_package(&package).expect("offering it again is no error");
    for tx in &package {
        let record = backend.transaction(&tx.compute_txid(), since).unwrap().unwrap();
        assert_eq!(record.state, TxState::Mempool);
    }
    // Another child beside the first is refused.
    let value = parent.output[0].value - Amount::from_sat(1_000);
    let sibling = transaction(3, &[OutPoint::new(parent.compute_txid(), 0)], &[value]);
    assert!(matches!(backend.broadcast(&sibling), Err(BackendError::Rejected { .. })));
    let hash = mine(harness, 1)[0];
    assert_eq!(backend.block(&hash).unwrap().txdata[1..], package);
    backend.broadcast_package(&package).expect("offering a mined one is no error");

    // The parent is mined, its child is not: the child goes in.
    let (parent, inputs, value) = anchored(harness);
    let child = anchor_child(inputs, value, 5_000);
    backend.miner().unwrap().mine_exactly(std::slice::from_ref(&parent), &open_script()).unwrap();
    backend.broadcast_package(&[parent, child.clone()]).unwrap();
    mine(harness, 1);
    let state = backend.transaction(&child.compute_txid(), since).unwrap().unwrap().state;
    assert!(matches!(state, TxState::Confirmed { .. }));
}

fn packages_are_refused_with_cores_reasons(harness: &mut dyn Harness) {
    let backend = harness.backend();
    let since = backend.tip().unwrap().height;
    let (parent, inputs, value) = anchored(harness);
    let child = anchor_child(inputs, value, 5_000);
    let refusal = |package: &[Transaction], part: &str| {
        let text = refused(backend.broadcast_package(package));
        assert!(text.contains(part), "{part} in: {text}");
    };
    let with_child = |child: &Transaction, part: &str| refusal(&[parent.clone(), child.clone()], part);

    refusal(&[], "empty");
    refusal(&vec![parent.clone(); PACKAGE_TRANSACTIONS_MAX + 1], "too-many");
    refusal(std::slice::from_ref(&parent), "min relay fee not met");
    refusal(&[child.clone(), parent.clone()], "topology");
    with_child(&transaction(3, &[inputs[1]], &[value - Amount::from_sat(5_000)]), "topology");
    let poor = anchor_child(inputs, value, 10);
    with_child(&poor, "min relay fee not met");
    // 31 outputs of 43 vB.
    let mut large = anchor_child(inputs, value, 35_000);
    large.output.extend(vec![TxOut { value: Amount::from_sat(1_000), script_pubkey: open_script() }; 30]);
    with_child(&large, "TRUC-violation");
    let mut older = child.clone();
    older.version = Version::TWO;
    with_child(&older, "TRUC-violation");
    let beside = [OutPoint::new(parent.compute_txid(), 0), inputs[1]];
    let beside = transaction(3, &beside, &[parent.output[0].value + value - Amount::from_sat(5_000)]);
    with_child(&beside, "missing-ephemeral-spends");
    let mut unlocked = child.clone();
    unlocked.input[1].witness = Witness::from_slice(&[vec![1], vec![0x51]]);
    with_child(&unlocked, "script-verify-flag-failed");
    // Dust is for transactions without a fee.
    let mut paying = parent.clone();
    paying.output[0].value -= Amount::from_sat(5_000);
    rejected(backend.broadcast(&paying), "dust");
    for tx in [&parent, &child, &poor, &large, &older, &beside] {
        assert_eq!(backend.transaction(&tx.compute_txid(), since).unwrap(), None, "nothing was taken");
    }

    // A parent that can stand alone is taken though its child is refused.
    let coins = mature(harness);
    let good = spend(coins[2].0, coins[2].1, Sequence::MAX);
    let mut bad = spend(OutPoint::new(good.compute_txid(), 0), good.output[0].value, Sequence::MAX);
    bad.output[0].value = good.output[0].value + Amount::ONE_SAT;
    match backend.broadcast_package(&[good.clone(), bad.clone()]) {
        Err(BackendError::PackageRejected { transactions, .. }) => {
            assert_eq!(transactions.len(), 1, "{transactions:?}");
            assert_eq!(transactions[0].0, bad.compute_txid());
            assert!(transactions[0].1.contains("bad-txns-in-belowout"), "{transactions:?}");
        }
        other => panic!("{other:?}"),
    }
    let state = backend.transaction(&good.compute_txid(), since).unwrap().unwrap().state;
    assert_eq!(state, TxState::Mempool);
    mine(harness, 1);
}

fn a_reorganisation_is_seen_and_its_transactions_can_be_sent_again(harness: &mut dyn Harness) {
    let backend = harness.backend();
    let known = backend.tip().unwrap();
    let same = backend.change_since(&known).unwrap();
    assert_eq!((same.tip, same.fork, same.lost_blocks), (known, known, 0));
    let (coin, value) = mature(harness)[0];
    let tx = spend(coin, value, Sequence::MAX);
    backend.broadcast(&tx).unwrap();
    let mined = mine(harness, 2);
    let stale = backend.tip().unwrap();
    let longer = backend.change_since(&known).unwrap();
    assert_eq!((longer.tip, longer.fork), (stale, known));
    assert!(!longer.is_reorganisation());

    harness.reorganise(2);
    let tip = backend.tip().unwrap();
    assert_eq!(tip.height, stale.height + 1);
    let change = backend.change_since(&stale).unwrap();
    assert_eq!((change.tip, change.fork, change.lost_blocks), (tip, known, 2));
    assert!(change.is_reorganisation());
    assert!(!backend.change_since(&known).unwrap().is_reorganisation());
    for (hash, height) in mined.iter().zip(known.height + 1..) {
        let info = backend.block_info(hash).unwrap();
        assert_eq!((info.height, info.active), (height, false));
        assert_eq!(info.header, backend.block(hash).unwrap().header, "a lost block can still be read");
        assert_ne!(backend.block_hash(height).unwrap(), *hash);
    }
    let info = backend.block_info(&tip.hash).unwrap();
    assert_eq!((info.height, info.active, info.header.block_hash()), (tip.height, true, tip.hash));
    let rewards = backend.utxos(&open_script()).unwrap();
    assert!(rewards.iter().all(|coin| coin.height <= known.height), "the lost rewards are gone");

    let txid = tx.compute_txid();
    let record = backend.transaction(&txid, known.height).unwrap();
    assert_eq!(record.map(|record| record.state), Some(TxState::Mempool), "back in the mempool");
    backend.broadcast(&tx).unwrap();
    let again = mine(harness, 1)[0];
    let state = backend.transaction(&txid, known.height).unwrap().unwrap().state;
    assert_eq!(state, TxState::Confirmed { height: tip.height + 1, block_hash: again, confirmations: 1 });
    let nowhere = ChainTip { height: tip.height, hash: BlockHash::from_byte_array([9; 32]) };
    assert!(matches!(backend.change_since(&nowhere), Err(BackendError::NotFound { .. })));
}

fn the_chain_survives_a_clean_restart(harness: &mut dyn Harness) {
    let tip = harness.backend().tip().unwrap();
    let coins = harness.backend().utxos(&open_script()).unwrap();
    harness.restart(Stop::Clean);
    assert_eq!(harness.backend().tip().unwrap(), tip);
    assert_eq!(harness.backend().utxos(&open_script()).unwrap(), coins);
    let next = mine(harness, 1)[0];
    assert_eq!(harness.backend().block(&next).unwrap().header.prev_blockhash, tip.hash);
}

fn a_killed_chain_goes_on_from_a_block_it_had(harness: &mut dyn Harness) {
    // Asking for coins makes a node save its state: from here on nothing is lost but later blocks.
    let coins = harness.backend().utxos(&open_script()).unwrap();
    let saved = harness.backend().tip().unwrap();
    harness.restart(Stop::Kill);
    assert_eq!(harness.backend().tip().unwrap(), saved);
    assert_eq!(harness.backend().utxos(&open_script()).unwrap(), coins);

    let (coin, value) = mature(harness)[0];
    let tx = spend(coin, value, Sequence::MAX);
    harness.backend().broadcast(&tx).unwrap();
    let mined = mine(harness, 3);
    harness.restart(Stop::Kill);
    let backend = harness.backend();
    let tip = backend.tip().unwrap();
    let had: Vec<BlockHash> = std::iter::once(saved.hash).chain(mined).collect();
    assert_eq!(had[(tip.height - saved.height) as usize], tip.hash, "a block of before");
    // Whatever was forgotten can be sent and mined again.
    backend.broadcast(&tx).unwrap();
    mine(harness, 1);
    let state = backend.transaction(&tx.compute_txid(), saved.height).unwrap().unwrap().state;
    assert!(matches!(state, TxState::Confirmed { .. }), "{state:?}");
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
    the_fee_floor_is_the_one_that_is_named(harness);
    a_child_pays_for_its_parent_in_a_package(harness);
    packages_are_refused_with_cores_reasons(harness);
    consensus_refuses_a_bad_block_and_the_tip_stays(harness);
    a_reorganisation_is_seen_and_its_transactions_can_be_sent_again(harness);
    the_chain_survives_a_clean_restart(harness);
    a_killed_chain_goes_on_from_a_block_it_had(harness);
}

#[test]
fn in_process_regtest_keeps_the_contract() {
    contract(&mut InProcess::new());
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn bitcoind_keeps_the_contract() {
    contract(&mut Node::start());
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn bitcoind_without_a_wallet_mines_to_any_script() {
    let node = Node::start();
    let no_such_method = node.rpc().call("getwalletinfo", json!([])).unwrap_err();
    assert!(matches!(no_such_method, BackendError::Rpc { code: -32601, .. }), "{no_such_method}");
    let hashes = mine(&node, 2);
    let block = node.backend().block(&hashes[1]).unwrap();
    assert_eq!(block.txdata[0].output[0].script_pubkey, open_script());
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn bitcoind_scans_for_several_who_ask_at_once() {
    let node = Node::start();
    let backend = node.backend();
    backend.miner().unwrap().mine(150, &open_script()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(backend.utxos(&open_script()).unwrap().len(), 150);
                }
            });
        }
    });
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn bitcoind_invalidates_a_block_and_reconsiders_it() {
    let node = Node::start();
    let backend = node.backend();
    mine(&node, 10);
    let tip = backend.tip().unwrap();
    let fork = ChainTip { height: 7, hash: backend.block_hash(7).unwrap() };
    let eighth = backend.block_hash(8).unwrap();
    node.call("invalidateblock", json!([eighth]));
    // The chain got shorter: only a node's owner can do that.
    let change = backend.change_since(&tip).unwrap();
    assert_eq!((change.tip, change.fork, change.lost_blocks), (fork, fork, 3));
    // To another script: within the same second the block would be the invalid one again.
    let branch = backend.miner().unwrap().mine(1, &bitcoin::ScriptBuf::from(vec![0x52])).unwrap()[0];
    let branch = ChainTip { height: 8, hash: branch };
    node.call("reconsiderblock", json!([eighth]));
    let change = backend.change_since(&branch).unwrap();
    assert_eq!((change.tip, change.fork, change.lost_blocks), (tip, fork, 1));
    assert!(backend.block_info(&eighth).unwrap().active);
    assert!(!backend.block_info(&branch.hash).unwrap().active);
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn bitcoind_learns_a_fee_rate_from_its_blocks() {
    let node = Node::start();
    let backend = node.backend();
    assert_eq!(backend.fee_estimate(6).unwrap().rate, None, "nothing to learn from");
    mine(&node, 101);
    let (coin, value) = mature(&node)[0];
    let each = value / 201;
    let split = transaction(2, &[coin], &vec![each; 200]);
    backend.broadcast(&split).unwrap();
    mine(&node, 1);
    let rate = |tx: &Transaction| Amount::from_sat(10_000) / tx.weight().to_wu() * 1_000;
    let mut paid = Amount::ZERO;
    for block in 0..40 {
        for output in 0..5 {
            let tx = spend(OutPoint::new(split.compute_txid(), block * 5 + output), each, Sequence::MAX);
            paid = rate(&tx);
            backend.broadcast(&tx).unwrap();
        }
        mine(&node, 1);
    }
    let learnt = backend.fee_estimate(6).unwrap().rate.expect("40 blocks of transactions at one rate");
    // The node sorts rates into buckets that are 5 % wide.
    let learnt = learnt.to_sat_per_kwu() as f64 / paid.to_sat() as f64;
    assert!((0.9..1.1).contains(&learnt), "learnt {learnt} of the rate paid");
}
