//! The trunk on chains that reorganise and on a real node that is killed: each claim once, where its receipt says.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/chain.rs"]
mod chain;
#[path = "common/hooked.rs"]
mod hooked;
#[path = "common/node.rs"]
mod node;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_l1::{
    BitcoinBackend, Bitcoind, Class, InProcessRegtest, Trunk, TrunkConfig, TrunkError, TxReceipt, TxState,
};
use batch::{claim, params, state};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{BlockHash, OutPoint, Transaction, Txid};
use chain::{branch_script, Harness, InProcess, Stop};
use hooked::{Call, Hooked};
use node::Node;
use serde_json::{json, Value};

fn config(dir: &Path) -> TrunkConfig {
    TrunkConfig { claims_per_epoch: 4, ..TrunkConfig::development(dir) }
}

fn open(dir: &Path, backend: Arc<dyn BitcoinBackend>) -> Trunk {
    Trunk::open(config(dir), backend).unwrap()
}

/// A trunk that waits for nobody and makes no blocks.
fn open_without_miner(dir: &Path, backend: Arc<dyn BitcoinBackend>) -> Trunk {
    let config =
        TrunkConfig { confirm_timeout: Duration::ZERO, poll_interval: Duration::ZERO, ..config(dir) };
    Trunk::open(config, Hooked::without_miner(backend)).unwrap()
}

fn receipts(trunk: &Trunk) -> Vec<TxReceipt> {
    let epochs = trunk.epochs().iter().flat_map(|epoch| &epoch.transactions);
    epochs.chain(trunk.claims().iter().flat_map(|claim| &claim.transactions)).cloned().collect()
}

/// Every transaction is in the block that its receipt names, in the active chain, and each claim spends the one before.
fn assert_settled(backend: &dyn BitcoinBackend, trunk: &Trunk, claims: u32) {
    assert_eq!(trunk.claims().len(), claims as usize);
    assert_eq!(trunk.settled_commitment(), Some(state(claims)));
    assert!(!trunk.has_pending());
    let mut txids = BTreeSet::new();
    for tx in receipts(trunk) {
        let record = backend.transaction(&tx.txid, 0).unwrap();
        let Some(TxState::Confirmed { height, block_hash, .. }) = record.map(|record| record.state) else {
            panic!("{} {} is not in the chain", tx.role, tx.txid)
        };
        assert_eq!((height, block_hash), (tx.block_height, tx.block_hash), "{}", tx.role);
        assert!(txids.insert(tx.txid), "{} twice", tx.role);
    }
    let connectors = trunk.claims().iter().map(|claim| claim.claim_txid);
    for (claim, next) in trunk.claims().iter().zip(connectors.skip(1)) {
        let spent = backend.transaction(&next, 0).unwrap().unwrap().tx.input[0].previous_output;
        let connector = OutPoint::new(claim.claim_txid, 0);
        let epoch_between = trunk.epochs().iter().find(|epoch| spent.txid == epoch.reconfiguration_txid);
        assert!(spent == connector || epoch_between.is_some(), "claim {next} has another parent");
    }
}

/// Height of the first block of a step.
fn first_height(transactions: &[TxReceipt]) -> u32 {
    transactions.iter().map(|tx| tx.block_height).min().unwrap()
}

fn several_lost_claims_are_put_back(harness: &mut dyn Harness) {
    let dir = tempfile::tempdir().unwrap();
    let backend = harness.backend();
    let mut trunk = open(dir.path(), Arc::clone(&backend));
    trunk.open_epoch(&params()).unwrap();
    for index in 0..3 {
        trunk.settle(&claim(index, 2_000)).unwrap();
    }
    let first = first_height(&trunk.claims()[0].transactions);
    harness.reorganise(backend.tip().unwrap().height + 1 - first);
    trunk.settle(&claim(3, 2_000)).unwrap();
    assert_settled(backend.as_ref(), &trunk, 4);
}

#[test]
fn several_lost_claims_are_put_back_in_process() {
    several_lost_claims_are_put_back(&mut InProcess::new());
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn several_lost_claims_are_put_back_on_bitcoind() {
    several_lost_claims_are_put_back(&mut Node::start());
}

/// A claim is under way when the one before it, and the epoch, are taken out of the chain.
fn a_claim_under_way_waits_for_those_before_it(harness: &mut dyn Harness) {
    let dir = tempfile::tempdir().unwrap();
    let backend = harness.backend();
    let mut trunk = open(dir.path(), Arc::clone(&backend));
    trunk.open_epoch(&params()).unwrap();
    trunk.settle(&claim(0, 2_000)).unwrap();
    let first = first_height(&trunk.epochs()[0].transactions);
    drop(trunk);
    let mut waiting = open_without_miner(dir.path(), Arc::clone(&backend));
    let error = waiting.settle(&claim(1, 2_000)).unwrap_err();
    assert!(matches!(error, TrunkError::NotConfirmed { .. }), "{error}");
    drop(waiting);
    harness.reorganise(backend.tip().unwrap().height + 1 - first);
    let mut trunk = open(dir.path(), Arc::clone(&backend));
    assert!(trunk.has_pending());
    trunk.settle(&claim(1, 2_000)).unwrap();
    trunk.settle(&claim(2, 2_000)).unwrap();
    assert_settled(backend.as_ref(), &trunk, 3);
}

#[test]
fn a_claim_under_way_waits_for_those_before_it_in_process() {
    a_claim_under_way_waits_for_those_before_it(&mut InProcess::new());
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn a_claim_under_way_waits_for_those_before_it_on_bitcoind() {
    a_claim_under_way_waits_for_those_before_it(&mut Node::start());
}

#[test]
fn what_was_begun_is_finished_without_the_claims_request() {
    let dir = tempfile::tempdir().unwrap();
    let harness = InProcess::new();
    let backend = harness.backend();
    assert!(!Trunk::has_claims(dir.path()).unwrap());
    let mut trunk = open(dir.path(), Arc::clone(&backend));
    trunk.open_epoch(&params()).unwrap();
    drop(trunk);
    let mut waiting = open_without_miner(dir.path(), Arc::clone(&backend));
    waiting.settle(&claim(0, 2_000)).unwrap_err();
    let error = waiting.finish().unwrap_err();
    assert!(matches!(error, TrunkError::NotConfirmed { .. }), "{error}");
    assert!(waiting.has_pending() && !Trunk::has_claims(dir.path()).unwrap());
    drop(waiting);
    let mut trunk = open(dir.path(), Arc::clone(&backend));
    trunk.finish().unwrap();
    assert!(trunk.find_claim(&claim(0, 2_000).digest).is_some() && Trunk::has_claims(dir.path()).unwrap());
    trunk.finish().unwrap();
    assert_settled(backend.as_ref(), &trunk, 1);
}

/// Adds a branch of blocks on top of `parent`, the first with `txs`.
fn branch(chain: &InProcessRegtest, parent: BlockHash, blocks: u32, txs: &[Transaction]) {
    let info = chain.block_info(&parent).unwrap();
    let mut parent = parent;
    for step in 1..=blocks {
        let txs = if step == 1 { txs } else { &[] };
        let time = info.header.time + step;
        let block = InProcessRegtest::assemble_block(parent, info.height + step, time, &branch_script(), txs);
        parent = block.block_hash();
        chain.submit_block(&block).unwrap();
    }
}

#[test]
fn a_transaction_that_another_branch_has_in_an_earlier_block_is_found_there() {
    let (dir, chain_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let chain = Arc::new(InProcessRegtest::open(chain_dir.path()).unwrap());
    let mut trunk = open(dir.path(), chain.clone());
    trunk.open_epoch(&params()).unwrap();
    drop(trunk);
    chain.miner().unwrap().mine(3, &branch_script()).unwrap();
    let planned_at = chain.tip().unwrap().height;
    let mut waiting = open_without_miner(dir.path(), chain.clone());
    let commit = match waiting.settle(&claim(0, 2_000)) {
        Err(TrunkError::NotConfirmed { txid, .. }) => chain.transaction(&txid, 0).unwrap().unwrap().tx,
        other => panic!("{other:?}"),
    };
    drop(waiting);
    let fork = chain.block_hash(planned_at - 2).unwrap();
    branch(&chain, fork, 3, std::slice::from_ref(&commit));
    assert_eq!(chain.tip().unwrap().height, planned_at + 1);
    let mut trunk = open(dir.path(), chain.clone());
    let receipt = trunk.settle(&claim(0, 2_000)).unwrap();
    assert_eq!(receipt.transactions[0].block_height, planned_at - 1);
    assert_settled(chain.as_ref(), &trunk, 1);
}

#[test]
fn reorganised_at_any_block_of_a_step_it_ends_on_the_chain() {
    for lost in [1, 3] {
        for at in 0.. {
            let (dir, chain_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let chain = Arc::new(InProcessRegtest::open(chain_dir.path()).unwrap());
            let mut trunk = open(dir.path(), chain.clone());
            trunk.open_epoch(&params()).unwrap();
            drop(trunk);
            let left = AtomicU32::new(at);
            let (owned, reorganised) = (Arc::clone(&chain), Arc::new(AtomicU32::new(0)));
            let counter = Arc::clone(&reorganised);
            let hook = move |call: Call<'_>| {
                if matches!(call, Call::Mine) && left.fetch_sub(1, Ordering::SeqCst) == 0 {
                    let fork = owned.block_hash(owned.tip().unwrap().height - lost).unwrap();
                    branch(&owned, fork, lost + 1, &[]);
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            };
            let hooked = Hooked { inner: chain.clone(), mines: true, hook: Box::new(hook) };
            let mut trunk = open(dir.path(), Arc::new(hooked));
            trunk.settle(&claim(0, 2_000)).unwrap();
            assert_settled(chain.as_ref(), &trunk, 1);
            if reorganised.load(Ordering::SeqCst) == 0 {
                assert!(at > 2, "a claim takes some blocks");
                break;
            }
        }
    }
}

/// Shows every transaction to `testmempoolaccept` before it is sent; remembers what the node would take.
fn policy_checked(node: Arc<Bitcoind>, accepted: Arc<Mutex<BTreeSet<Txid>>>, tx: &Transaction) {
    // 0: any fee rate.
    let Ok(answer) = node.call("testmempoolaccept", json!([[serialize_hex(tx)], 0])) else { return };
    let (allowed, reason) = (&answer[0]["allowed"], answer[0]["reject-reason"].as_str().unwrap_or_default());
    if *allowed == Value::Bool(true) {
        accepted.lock().unwrap().insert(tx.compute_txid());
    } else {
        // The cadence is not over: sent again at each block until it is.
        assert_eq!(reason, "non-BIP68-final", "{answer}");
    }
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn a_trunk_settles_on_bitcoind_that_is_killed_in_each_claim() {
    const CLAIMS: u32 = 10;
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start();
    let accepted = Arc::new(Mutex::new(BTreeSet::new()));
    // Calls until the node is killed, and its process.
    let (left, pid) = (Arc::new(AtomicU32::new(u32::MAX)), Arc::new(AtomicU32::new(node.pid())));
    let hook = {
        let (rpc, accepted) = (node.rpc(), Arc::clone(&accepted));
        let (left, pid) = (Arc::clone(&left), Arc::clone(&pid));
        move |call: Call<'_>| {
            if let Call::Broadcast(tx) = call {
                policy_checked(Arc::clone(&rpc), Arc::clone(&accepted), tx);
            }
            if left.fetch_sub(1, Ordering::SeqCst) == 0 {
                let pid = pid.load(Ordering::SeqCst).to_string();
                assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
            }
        }
    };
    let hooked = Hooked { inner: node.backend(), mines: true, hook: Box::new(hook) };
    let mut trunk = open(dir.path(), Arc::new(hooked));
    let mut kills = 0;
    for index in 0..CLAIMS {
        // Each claim is hit at another of its calls, the first of an epoch in the epoch's opening.
        left.store(1 + 3 * index, Ordering::SeqCst);
        let result = loop {
            match trunk.open_epoch(&params()).and_then(|_| trunk.settle(&claim(index, 20_000))) {
                Ok(receipt) => break receipt,
                Err(error) => {
                    assert_eq!(error.class(), Class::Transient, "{error}");
                    kills += 1;
                    left.store(u32::MAX, Ordering::SeqCst);
                    node.restart(Stop::Kill);
                    pid.store(node.pid(), Ordering::SeqCst);
                }
            }
        };
        assert_eq!(result.new_commitment, state(index + 1));
    }
    assert_eq!(kills, CLAIMS, "the node was killed in each claim");
    left.store(u32::MAX, Ordering::SeqCst);
    trunk.settle(&claim(CLAIMS - 1, 20_000)).unwrap();
    assert_eq!(trunk.epochs().len(), 3);
    assert_settled(node.backend().as_ref(), &trunk, CLAIMS);
    let accepted = accepted.lock().unwrap();
    for tx in receipts(&trunk) {
        assert!(accepted.contains(&tx.txid), "{} {} passed the node's policy", tx.role, tx.txid);
    }
}
