//! Settlement end to end on the in-process chain: what is accepted, refused, published, and resumed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/chain.rs"]
mod chain;
#[path = "common/node.rs"]
mod node;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use assay_l1::envelope::message::Message;
use assay_l1::envelope::scan::{scan, Assembler};
use assay_l1::{
    BackendError, BitcoinBackend, BlockInfo, ChainTip, ClaimInput, FeeEstimate, RegtestMiner, Trunk,
    TrunkConfig, TrunkError, TxRecord, TxState, Utxo,
};
use batch::{claim, params, state, with_digest};
use bitcoin::{Block, BlockHash, Network, Script, Transaction, Txid};
use chain::{Harness, InProcess};
use node::Node;

fn config(dir: &Path) -> TrunkConfig {
    TrunkConfig { claims_per_epoch: 4, ..TrunkConfig::development(dir) }
}

fn open(dir: &Path, backend: Arc<dyn BitcoinBackend>) -> Trunk {
    Trunk::open(config(dir), backend).unwrap()
}

/// Every message of the trunk on the chain, in order, with its author checked.
fn published(backend: &dyn BitcoinBackend, trunk: &Trunk) -> Vec<Message> {
    let tag = hex::decode(&trunk.epochs()[0].tag).unwrap().try_into().unwrap();
    let mut assembler = Assembler::new(64 << 20);
    let mut messages = Vec::new();
    let mut authors = Vec::new();
    for height in 0..=backend.tip().unwrap().height {
        let block = backend.block(&backend.block_hash(height).unwrap()).unwrap();
        for found in scan(&block, &tag) {
            let (author, envelope) = found.envelope.unwrap();
            for (author, message) in assembler.take(author, envelope) {
                authors.push(author);
                messages.push(message.unwrap());
            }
        }
    }
    authors.dedup();
    assert_eq!(authors.len(), 1, "one author");
    messages
}

/// Weight of a reveal whose envelope stores `body` bytes.
fn reveal_weight_wu(body: u64) -> u64 {
    let rest = body % 520;
    let push = |len: u64| match len {
        0 => 0,
        1..=75 => 1,
        76..=255 => 2,
        _ => 3,
    };
    // Key, CHECKSIG, 0, IF, header, ENDIF.
    let script = 33 + 1 + 1 + 1 + 20 + body + body / 520 * push(520) + push(rest) + 1;
    let script_len = if script < 0x1_0000 { 3 } else { 5 };
    // Transaction with one input and one taproot output; segwit marker; item count, signature, script, control block.
    4 * (10 + 41 + 43) + 2 + 1 + 65 + script_len + script + 34
}

fn claims_follow_each_other_and_their_data_can_be_read(harness: &mut dyn Harness) {
    let dir = tempfile::tempdir().unwrap();
    let backend = harness.backend();
    let mut trunk = open(dir.path(), Arc::clone(&backend));
    assert_eq!(trunk.settled_commitment(), None);
    let epoch = trunk.open_epoch(&params()).unwrap();
    assert_eq!(trunk.settled_commitment(), Some(state(0)));
    let inputs = [claim(0, 1_000), claim(1, 500_000)];
    let receipts: Vec<_> = inputs.iter().map(|input| trunk.settle(input).unwrap()).collect();
    assert_eq!(trunk.settled_commitment(), Some(state(2)));

    // The chain: each claim spends the connector of the one before it.
    let tx = |txid: &Txid| backend.transaction(txid, 0).unwrap().unwrap().tx;
    let first = tx(&receipts[0].claim_txid);
    let second = tx(&receipts[1].claim_txid);
    assert_eq!(first.input[0].previous_output.txid, epoch.reconfiguration_txid);
    assert_eq!(second.input[0].previous_output.txid, receipts[0].claim_txid);
    // The Reconfiguration commits to the terms.
    let reconfiguration = tx(&epoch.reconfiguration_txid);
    let id = epoch.terms().unwrap().id();
    assert_eq!(reconfiguration.output[2].script_pubkey.as_bytes()[7..], id);

    let mut expected = vec![Message::Epoch(Box::new(epoch.terms().unwrap()))];
    for (number, input) in inputs.iter().enumerate() {
        let (epoch, claim) = (0, number as u32);
        let values = receipts[number].values();
        expected.push(Message::Batch {
            epoch,
            claim,
            batch_hash: input.batch_hash,
            data: input.batch_data.clone(),
        });
        expected.push(Message::ClaimData { epoch, claim, values, proof: input.proof.clone() });
    }
    let mut got = published(backend.as_ref(), &trunk);
    let order = |message: &Message| match message {
        Message::Epoch(_) => (0, 0),
        Message::Batch { claim, .. } => (1, *claim * 2),
        Message::ClaimData { claim, .. } => (1, *claim * 2 + 1),
        other => panic!("unexpected {other:?}"),
    };
    got.sort_by_key(order);
    assert_eq!(got, expected);
    // 500,000 bytes that do not compress: two chunks and their aggregate.
    let reveals = receipts[1].transactions.iter().filter(|tx| tx.role.starts_with("reveal batch")).count();
    assert_eq!(reveals, 3);
    assert!(receipts.iter().flat_map(|receipt| &receipt.transactions).all(|tx| tx.weight_wu <= 400_000));
    let weight = |claim: usize, role: &str| {
        receipts[claim].transactions.iter().find(|tx| tx.role == role).unwrap().weight_wu
    };
    assert_eq!(weight(0, "reveal batch"), reveal_weight_wu(1_040));
    assert_eq!(weight(1, "reveal batch chunk 0"), reveal_weight_wu(397_000));
    assert_eq!(reveal_weight_wu(397_000), 399_831);
    // One coin in; two envelopes, the claim's coin and change out.
    assert_eq!(receipts[0].transactions[0].vsize_vb, 240);
}

#[test]
fn claims_follow_each_other_in_process() {
    claims_follow_each_other_and_their_data_can_be_read(&mut InProcess::new());
}

#[test]
#[ignore = "needs bitcoind: make test-node"]
fn claims_follow_each_other_on_bitcoind() {
    claims_follow_each_other_and_their_data_can_be_read(&mut Node::start());
}

#[test]
fn settling_the_same_values_again_returns_the_same_receipt() {
    let (dir, harness) = (tempfile::tempdir().unwrap(), InProcess::new());
    let mut trunk = open(dir.path(), harness.backend());
    let epoch = trunk.open_epoch(&params()).unwrap();
    let receipt = trunk.settle(&claim(0, 100)).unwrap();
    let tip = harness.backend().tip().unwrap();
    // Another proof of the same claim is the same claim.
    let again = ClaimInput { proof: vec![0xbb; 128], ..claim(0, 100) };
    assert_eq!(trunk.settle(&again).unwrap(), receipt);
    drop(trunk);
    let mut trunk = open(dir.path(), harness.backend());
    assert_eq!(trunk.open_epoch(&params()).unwrap(), epoch);
    assert_eq!(trunk.settle(&claim(0, 100)).unwrap(), receipt);
    assert_eq!(trunk.find_claim(&claim(0, 100).digest), Some(&receipt));
    assert_eq!(harness.backend().tip().unwrap(), tip, "nothing was sent");
    let json = serde_json::to_string(&receipt).unwrap();
    assert_eq!(serde_json::from_str::<assay_l1::ClaimReceipt>(&json).unwrap(), receipt);
}

#[test]
fn claims_that_do_not_fit_are_refused_and_nothing_is_sent() {
    let (dir, harness) = (tempfile::tempdir().unwrap(), InProcess::new());
    let mut trunk = open(dir.path(), harness.backend());
    assert!(matches!(trunk.settle(&claim(0, 10)), Err(TrunkError::NoEpoch)));
    trunk.open_epoch(&params()).unwrap();
    trunk.settle(&claim(0, 10)).unwrap();
    let tip = harness.backend().tip().unwrap();
    let good = claim(1, 10);
    assert!(matches!(trunk.settle(&claim(2, 10)), Err(TrunkError::Discontinuity { .. })), "a gap");
    let fork = with_digest(ClaimInput { new_commitment: [9; 32], ..claim(0, 10) });
    assert!(matches!(trunk.settle(&fork), Err(TrunkError::Discontinuity { .. })), "a second first claim");
    let code = with_digest(ClaimInput { code_root: [1; 32], ..good.clone() });
    assert!(matches!(trunk.settle(&code), Err(TrunkError::CodeRoot { .. })));
    let mut digest = good.clone();
    digest.digest[31] ^= 1;
    assert!(matches!(trunk.settle(&digest), Err(TrunkError::Digest { .. })));
    let proof = ClaimInput { proof: vec![0; 4_097], ..good.clone() };
    assert!(matches!(trunk.settle(&proof), Err(TrunkError::Oversize { what: "proof", .. })));
    let other = assay_l1::EpochParams { code_root: [1; 32], ..params() };
    let error = trunk.open_epoch(&other).unwrap_err();
    assert!(matches!(error, TrunkError::EpochMismatch { field: "code root", .. }), "{error}");
    assert_eq!(harness.backend().tip().unwrap(), tip, "nothing was sent");
    trunk.settle(&good).unwrap();
}

#[test]
fn a_full_or_closed_epoch_is_followed_by_one_that_starts_where_it_ended() {
    let (dir, harness) = (tempfile::tempdir().unwrap(), InProcess::new());
    let mut trunk = open(dir.path(), harness.backend());
    trunk.open_epoch(&params()).unwrap();
    for index in 0..4 {
        trunk.settle(&claim(index, 10)).unwrap();
    }
    assert!(matches!(trunk.settle(&claim(4, 10)), Err(TrunkError::EpochFull { claims_max: 4 })));
    let second = trunk.open_epoch(&params()).unwrap();
    assert_eq!((second.epoch, second.start_commitment), (1, state(4)));
    let backend = harness.backend();
    let spends =
        |txid: &Txid| backend.transaction(txid, 0).unwrap().unwrap().tx.input[0].previous_output.txid;
    assert_eq!(spends(&second.reconfiguration_txid), trunk.claims()[3].claim_txid);
    trunk.settle(&claim(4, 10)).unwrap();

    trunk.close_epoch().unwrap();
    assert!(matches!(trunk.settle(&claim(5, 10)), Err(TrunkError::EpochClosed { epoch: 1 })));
    let other = assay_l1::EpochParams { code_root: [1; 32], ..params() };
    let third = trunk.open_epoch(&other).unwrap();
    assert_eq!((third.epoch, third.code_root, third.start_commitment), (2, [1; 32], state(5)));
    assert_eq!(spends(&third.reconfiguration_txid), trunk.claims()[4].claim_txid);
    trunk.settle(&with_digest(ClaimInput { code_root: [1; 32], ..claim(5, 10) })).unwrap();
}

#[test]
fn one_process_at_a_time_and_no_other_chain() {
    let (dir, harness) = (tempfile::tempdir().unwrap(), InProcess::new());
    let mut trunk = open(dir.path(), harness.backend());
    assert!(matches!(Trunk::open(config(dir.path()), harness.backend()), Err(TrunkError::Locked { .. })));
    trunk.open_epoch(&params()).unwrap();
    trunk.settle(&claim(0, 10)).unwrap();
    drop(trunk);
    let elsewhere = InProcess::new();
    let mut trunk = open(dir.path(), elsewhere.backend());
    let error = trunk.settle(&claim(1, 10)).unwrap_err();
    assert!(matches!(error, TrunkError::ForeignChain { .. }), "{error}");
}

#[test]
fn a_reorganisation_that_takes_a_claim_out_is_repaired_before_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let chain_dir = tempfile::tempdir().unwrap();
    let regtest = Arc::new(assay_l1::InProcessRegtest::open(chain_dir.path()).unwrap());
    let backend: Arc<dyn BitcoinBackend> = regtest.clone();
    let mut trunk = open(dir.path(), Arc::clone(&backend));
    trunk.open_epoch(&params()).unwrap();
    let fork = backend.tip().unwrap();
    let receipt = trunk.settle(&claim(0, 10)).unwrap();
    let (mut parent, length) = (fork.hash, backend.tip().unwrap().height - fork.height + 1);
    let time = backend.block(&fork.hash).unwrap().header.time;
    for step in 1..=length {
        let script = chain::open_script();
        let block =
            assay_l1::InProcessRegtest::assemble_block(parent, fork.height + step, time + step, &script, &[]);
        parent = block.block_hash();
        regtest.submit_block(&block).unwrap();
    }
    assert_eq!(backend.tip().unwrap().hash, parent, "the longer chain is the tip's");
    let record = backend.transaction(&receipt.claim_txid, 0).unwrap();
    assert!(!matches!(record.map(|record| record.state), Some(TxState::Confirmed { .. })));
    trunk.settle(&claim(1, 10)).unwrap();
    assert!(backend.transaction(&receipt.claim_txid, 0).unwrap().is_some(), "the claim is back");
}

/// A back end that fails at one call, before or after it took effect.
struct Faulty {
    inner: Arc<dyn BitcoinBackend>,
    calls_left: AtomicU32,
    after: bool,
}

impl Faulty {
    /// A call that only reads: failing after it is the same as failing before the next one.
    fn read<T>(&self, call: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
        if self.after {
            return call();
        }
        self.effect(call)
    }

    fn effect<T>(&self, call: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
        let left =
            self.calls_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            return call();
        }
        if self.after {
            call()?;
        }
        Err(BackendError::Unreachable { endpoint: "test".into(), detail: "killed".into() })
    }
}

impl BitcoinBackend for Faulty {
    fn network(&self) -> Network {
        self.inner.network()
    }
    fn label(&self) -> String {
        self.inner.label()
    }
    fn tip(&self) -> Result<ChainTip, BackendError> {
        self.read(|| self.inner.tip())
    }
    fn block_hash(&self, height: u32) -> Result<BlockHash, BackendError> {
        self.read(|| self.inner.block_hash(height))
    }
    fn block(&self, hash: &BlockHash) -> Result<Block, BackendError> {
        self.read(|| self.inner.block(hash))
    }
    fn block_info(&self, hash: &BlockHash) -> Result<BlockInfo, BackendError> {
        self.read(|| self.inner.block_info(hash))
    }
    fn transaction(&self, txid: &Txid, since: u32) -> Result<Option<TxRecord>, BackendError> {
        self.read(|| self.inner.transaction(txid, since))
    }
    fn broadcast(&self, tx: &Transaction) -> Result<(), BackendError> {
        self.effect(|| self.inner.broadcast(tx))
    }
    fn broadcast_package(&self, package: &[Transaction]) -> Result<(), BackendError> {
        self.effect(|| self.inner.broadcast_package(package))
    }
    fn fee_estimate(&self, target_blocks: u16) -> Result<FeeEstimate, BackendError> {
        self.read(|| self.inner.fee_estimate(target_blocks))
    }
    fn utxos(&self, script: &Script) -> Result<Vec<Utxo>, BackendError> {
        self.read(|| self.inner.utxos(script))
    }
    fn miner(&self) -> Option<&dyn RegtestMiner> {
        Some(self)
    }
}

impl RegtestMiner for Faulty {
    fn mine(&self, count: u32, reward_to: &Script) -> Result<Vec<BlockHash>, BackendError> {
        self.effect(|| self.inner.miner().unwrap().mine(count, reward_to))
    }
    fn mine_exactly(&self, txs: &[Transaction], reward_to: &Script) -> Result<BlockHash, BackendError> {
        self.effect(|| self.inner.miner().unwrap().mine_exactly(txs, reward_to))
    }
}

/// Stops the process, as it were, at every call to the chain in turn; each time a new run finishes the same claim, once.
#[test]
fn stopped_at_any_call_a_later_run_finishes_the_same_claim_once() {
    for after in [false, true] {
        for stop in 0.. {
            let (dir, harness) = (tempfile::tempdir().unwrap(), InProcess::new());
            let inner = harness.backend();
            let faulty =
                Arc::new(Faulty { inner: Arc::clone(&inner), calls_left: AtomicU32::new(stop), after });
            let mut trunk = open(dir.path(), faulty);
            let result = trunk.open_epoch(&params()).and_then(|_| trunk.settle(&claim(0, 50)));
            drop(trunk);
            let finished = result.is_ok();
            let mut trunk = open(dir.path(), Arc::clone(&inner));
            trunk.open_epoch(&params()).unwrap();
            let receipt = trunk.settle(&claim(0, 50)).unwrap();
            if let Ok(first) = result {
                assert_eq!(first, receipt);
            }
            assert_eq!((trunk.epochs().len(), trunk.claims().len()), (1, 1), "stopped at call {stop}");
            assert_eq!(published(inner.as_ref(), &trunk).len(), 3, "nothing twice, stopped at call {stop}");
            trunk.settle(&claim(1, 50)).unwrap();
            if finished {
                assert!(stop > 10, "the test must have stopped somewhere");
                break;
            }
        }
    }
}
