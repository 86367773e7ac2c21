//! A trunk read back from the chain alone: everything equal, and everything wrong said.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/chain.rs"]
mod chain;
#[path = "common/publish.rs"]
mod publish;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use assay_l1::envelope::message::{ClaimValues, Message};
use assay_l1::envelope::pack::pack;
use assay_l1::envelope::{tag, BODY_BYTES_MAX};
use assay_l1::graph::connector::{claim_connector, NEXT_EPOCH_LEAF};
use assay_l1::graph::terms::{ClaimKeys, ClaimValue, EpochTerms};
use assay_l1::graph::transactions::{
    claim as claim_graph, connector_of, reconfiguration, wallet_script, PreviousEpoch, Unfunded,
};
use assay_l1::sync::{
    rebuild, Execute, FindingKind, Report, Step, SyncConfig, SyncError, SyncedClaim, TrunkReader,
};
use assay_l1::wots::guard::UseGuard;
use assay_l1::{
    BackendSpec, BitcoinBackend, ClaimInput, InProcessRegtest, KeyRole, OperatorSecret, TimeLocks, Trunk,
    TrunkConfig,
};
use batch::{claim, params, state};
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Txid};
use chain::open_script;
use publish::{fund, leaf, pair, publish, reveal};

/// Batch data longer than this is cut in chunks.
const LIMIT: usize = 2_000;

/// Executes batches of `common/batch.rs`: each moves the state by one.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Counter {
    batches: BTreeMap<(u32, u32), Vec<u8>>,
}

impl Execute for Counter {
    fn batch_hash(&mut self, data: &[u8]) -> Result<[u8; 32], String> {
        Ok(blake3::hash(data).into())
    }

    fn execute(&mut self, claim: &SyncedClaim, data: &[u8]) -> Result<[u8; 32], String> {
        self.batches.insert((claim.epoch, claim.claim), data.to_vec());
        Ok(state(self.batches.len() as u32))
    }
}

fn open_trunk(dir: &Path, backend: &Arc<dyn BitcoinBackend>, claims_per_epoch: u32) -> Trunk {
    let config = TrunkConfig { claims_per_epoch, envelope_limit: LIMIT, ..TrunkConfig::development(dir) };
    Trunk::open(config, Arc::clone(backend)).unwrap()
}

fn config(dir: &Path, terms: &EpochTerms) -> SyncConfig {
    SyncConfig { dir: dir.to_owned(), terms: terms.clone(), root: None, start_height: 0, confirmations: 1 }
}

/// Everything that a fresh reader gets.
fn read_all(backend: &dyn BitcoinBackend, terms: &EpochTerms) -> (Vec<Step>, Counter, Report) {
    let dir = tempfile::tempdir().unwrap();
    let mut sync = TrunkReader::open(config(dir.path(), terms)).unwrap();
    let (mut steps, mut counter) = (Vec::new(), Counter::default());
    let report = rebuild(&mut sync, backend, &mut counter, &mut |step| steps.push(step.clone())).unwrap();
    (steps, counter, report)
}

fn kinds(report: &Report) -> Vec<FindingKind> {
    report.findings.iter().map(|finding| finding.kind.clone()).collect()
}

fn claims(steps: &[Step]) -> Vec<&SyncedClaim> {
    let claim = steps.iter().filter_map(|step| match step {
        Step::Claim(claim) => Some(claim.as_ref()),
        _ => None,
    });
    claim.collect()
}

/// Lengths of batches: some in one envelope, some in chunks.
fn len(index: u32) -> usize {
    [100, 5_000, 1_960, 1_961, 20_000][index as usize % 5]
}

struct Settled {
    _dir: tempfile::TempDir,
    inputs: Vec<ClaimInput>,
    terms: EpochTerms,
}

impl Settled {
    /// A trunk of `count` claims in epochs of at most `per_epoch`.
    fn new(count: u32, per_epoch: u32) -> (Self, Arc<dyn BitcoinBackend>, Trunk) {
        let dir = tempfile::tempdir().unwrap();
        let (chain_dir, trunk_dir) = (dir.path().join("chain"), dir.path().join("trunk"));
        let backend = BackendSpec::InProcess { dir: chain_dir }.open().unwrap();
        let mut trunk = open_trunk(&trunk_dir, &backend, per_epoch);
        let inputs: Vec<ClaimInput> = (0..count).map(|index| claim(index, len(index))).collect();
        for (index, input) in inputs.iter().enumerate() {
            if (index as u32).is_multiple_of(per_epoch) {
                trunk.open_epoch(&params()).unwrap();
            }
            trunk.settle(input).unwrap();
        }
        let terms = trunk.epochs()[0].terms().unwrap();
        (Self { _dir: dir, inputs, terms }, backend, trunk)
    }
}

#[test]
fn twenty_claims_over_two_epochs_come_back_equal() {
    let (settled, backend, trunk) = Settled::new(20, 12);
    let (steps, counter, report) = read_all(backend.as_ref(), &settled.terms);
    assert_eq!(kinds(&report), []);
    assert_eq!((report.epochs, report.claims, report.executed), (2, 20, 20));
    assert_eq!(report.commitment, Some(state(20)));
    assert_eq!(report.commitment, trunk.settled_commitment());
    assert!(!report.is_stopped);
    assert_eq!(report.next_height, backend.tip().unwrap().height + 1);
    let claims = claims(&steps);
    for ((claim, receipt), input) in claims.iter().zip(trunk.claims()).zip(&settled.inputs) {
        assert_eq!(
            (claim.epoch, claim.claim, claim.txid),
            (receipt.epoch, receipt.claim, receipt.claim_txid)
        );
        assert_eq!(claim.values, receipt.values());
        assert_eq!(claim.batch.as_ref(), Some(&input.batch_data));
        assert_eq!(claim.proof.as_ref(), Some(&input.proof));
        assert!(claim.is_linked);
    }
    let given: Vec<&Vec<u8>> = settled.inputs.iter().map(|input| &input.batch_data).collect();
    assert_eq!(counter.batches.values().collect::<Vec<_>>(), given);
    let chunked =
        trunk.claims().iter().filter(|claim| claim.transactions.iter().any(|tx| tx.role.contains("chunk")));
    assert_eq!(chunked.count(), 12, "the limit was shrunk");
    let epochs: Vec<EpochTerms> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Epoch(epoch) => Some(epoch.terms.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(epochs, trunk.epochs().iter().map(|epoch| epoch.terms().unwrap()).collect::<Vec<_>>());

    // From the second epoch's terms on, it is the second epoch alone.
    let (steps, ..) = read_all(backend.as_ref(), &epochs[1]);
    assert_eq!(self::claims(&steps), claims[12..].to_vec());
    // Another trunk's reader finds nothing here.
    let stranger = EpochTerms { trunk_id: [1; 32], ..settled.terms.clone() };
    let (steps, _, report) = read_all(backend.as_ref(), &stranger);
    assert_eq!((steps, report.claims), (vec![], 0));
}

/// The chain of `backend` without the transaction `left_out`, in a new directory. Blocks from there on are made anew.
fn chain_without(backend: &dyn BitcoinBackend, left_out: &Txid, dir: &Path) -> InProcessRegtest {
    let other = InProcessRegtest::open(dir).unwrap();
    let mut parent: Option<Block> = None;
    let mut is_same = true;
    for height in 1..=backend.tip().unwrap().height {
        let block = backend.block(&backend.block_hash(height).unwrap()).unwrap();
        is_same &= !block.txdata.iter().any(|tx| tx.compute_txid() == *left_out);
        let block = match (&parent, is_same) {
            (Some(parent), false) => {
                let rest = block.txdata[1..].iter().filter(|tx| tx.compute_txid() != *left_out);
                let txs: Vec<Transaction> = rest.cloned().collect();
                let script = open_script();
                InProcessRegtest::assemble_block(
                    parent.block_hash(),
                    height,
                    block.header.time,
                    &script,
                    &txs,
                )
            }
            _ => block,
        };
        other.submit_block(&block).unwrap();
        parent = Some(block);
    }
    other
}

#[test]
fn a_dropped_chunk_is_named_and_its_claim_not_executed() {
    let (settled, backend, trunk) = Settled::new(2, 4);
    let receipt = &trunk.claims()[1];
    let chunk = receipt.transactions.iter().find(|tx| tx.role == "reveal batch chunk 1").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let without = chain_without(backend.as_ref(), &chunk.txid, dir.path());
    assert_eq!(without.tip().unwrap().height, backend.tip().unwrap().height);
    let (steps, counter, report) = read_all(&without, &settled.terms);
    let dropped = match kinds(&report).as_slice() {
        [FindingKind::ChunksMissing { missing: 1, count: 3, first }, FindingKind::BatchMissing { epoch: 0, claim: 1, .. }] => {
            first.clone()
        }
        other => panic!("{other:?}"),
    };
    let envelopes = pack(
        &Message::Batch {
            epoch: 0,
            claim: 1,
            batch_hash: settled.inputs[1].batch_hash,
            data: settled.inputs[1].batch_data.clone(),
        },
        LIMIT,
    );
    assert_eq!(dropped, blake3::hash(&envelopes.unwrap()[1].stored).to_hex().to_string());
    let claims = claims(&steps);
    assert_eq!((claims.len(), claims[1].batch.as_ref()), (2, None));
    assert!(claims[1].proof.is_some(), "the proof is there");
    assert_eq!((report.executed, report.is_stopped), (1, true));
    assert_eq!((report.commitment, counter.batches.len()), (Some(state(1)), 1));
}

#[test]
fn data_with_another_hash_is_not_taken_and_nothing_after_it_executed() {
    let dir = tempfile::tempdir().unwrap();
    let backend = BackendSpec::InProcess { dir: dir.path().join("chain") }.open().unwrap();
    let mut trunk = open_trunk(&dir.path().join("trunk"), &backend, 4);
    trunk.open_epoch(&params()).unwrap();
    trunk.settle(&claim(0, 100)).unwrap();
    let mut lie = claim(1, 100);
    lie.batch_data[50] ^= 1;
    trunk.settle(&lie).unwrap();
    trunk.settle(&claim(2, 100)).unwrap();
    let (steps, counter, report) = read_all(backend.as_ref(), &trunk.epochs()[0].terms().unwrap());
    let got = hex::encode(blake3::hash(&lie.batch_data).as_bytes());
    let (epoch, claim) = (0, 1);
    let expected = hex::encode(lie.batch_hash);
    assert_eq!(
        kinds(&report),
        [
            FindingKind::BatchHash { epoch, claim, expected: expected.clone(), got },
            FindingKind::BatchMissing { epoch, claim, batch_hash: expected },
        ]
    );
    assert_eq!(
        claims(&steps).iter().map(|claim| claim.batch.is_some()).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!((report.executed, counter.batches.len(), report.is_stopped), (1, 1, true));
}

#[test]
fn execution_that_gives_another_state_is_a_finding() {
    let (settled, backend, _) = Settled::new(2, 4);
    struct Wrong(Counter);
    impl Execute for Wrong {
        fn batch_hash(&mut self, data: &[u8]) -> Result<[u8; 32], String> {
            self.0.batch_hash(data)
        }
        fn execute(&mut self, claim: &SyncedClaim, _: &[u8]) -> Result<[u8; 32], String> {
            if claim.claim == 0 {
                Ok([9; 32])
            } else {
                Err("must not be asked".to_owned())
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut sync = TrunkReader::open(config(dir.path(), &settled.terms)).unwrap();
    let mut wrong = Wrong(Counter::default());
    let report = rebuild(&mut sync, backend.as_ref(), &mut wrong, &mut |_| {}).unwrap();
    let (expected, got) = (hex::encode(state(1)), hex::encode([9; 32]));
    assert_eq!(kinds(&report), [FindingKind::State { epoch: 0, claim: 0, expected, got }]);
    // A restart does not forget that it has stopped.
    drop(sync);
    let mut sync = TrunkReader::open(config(dir.path(), &settled.terms)).unwrap();
    let report = rebuild(&mut sync, backend.as_ref(), &mut wrong, &mut |_| {}).unwrap();
    assert!(report.is_stopped);
}

#[test]
fn a_foreign_authors_envelopes_are_reported_and_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let backend = BackendSpec::InProcess { dir: dir.path().join("chain") }.open().unwrap();
    let mut trunk = open_trunk(&dir.path().join("trunk"), &backend, 4);
    trunk.open_epoch(&params()).unwrap();
    let terms = trunk.epochs()[0].terms().unwrap();
    let tag = tag(&terms.trunk_id);
    let stranger = pair(0x66);
    let batch = |claim: u32, input: &ClaimInput, data: Vec<u8>| {
        let message = Message::Batch { epoch: 0, claim, batch_hash: input.batch_hash, data };
        pack(&message, LIMIT).unwrap()
    };
    // Before the first claim and between two: with the announced hash and other data, and one chunk of a list.
    let inputs = [claim(0, 100), claim(1, 5_000)];
    publish(backend.as_ref(), &stranger, &tag, &batch(0, &inputs[0], vec![1; 30]));
    trunk.settle(&inputs[0]).unwrap();
    let early = batch(1, &inputs[1], inputs[1].batch_data.clone());
    let late = publish(backend.as_ref(), &stranger, &tag, &early[..2]);
    trunk.settle(&inputs[1]).unwrap();
    let (steps, counter, report) = read_all(backend.as_ref(), &terms);
    let author = stranger.x_only_public_key().0;
    let one = FindingKind::ForeignAuthor { author, envelopes: 1 };
    assert_eq!(kinds(&report), [one.clone(), one.clone(), one]);
    assert_eq!(report.findings[1].txid, late[0].compute_txid());
    assert_eq!(report.executed, 2);
    assert_eq!(counter.batches.values().collect::<Vec<_>>(), [&inputs[0].batch_data, &inputs[1].batch_data]);
    assert_eq!(claims(&steps)[0].batch.as_ref(), Some(&inputs[0].batch_data));
}

/// An operator without the checks of the trunk.
struct Liar {
    dir: tempfile::TempDir,
    backend: Arc<dyn BitcoinBackend>,
    secret: OperatorSecret,
    terms: EpochTerms,
    root: Txid,
    connector: OutPoint,
    claim: u32,
}

impl Liar {
    /// `has_twin`: someone else has mined an output for output copy of the first Reconfiguration before.
    fn new(has_twin: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backend = BackendSpec::InProcess { dir: dir.path().join("chain") }.open().unwrap();
        let secret = OperatorSecret::from_bytes([0x31; 32]);
        let rest = (TimeLocks::REGTEST, 3, Amount::from_sat(100_000));
        let terms = EpochTerms::new(&secret, [0x32; 32], 0, params(), rest);
        let root = OutPoint::null().txid;
        let mut liar = Self { dir, backend, secret, terms, root, connector: OutPoint::null(), claim: 0 };
        let opening = reconfiguration(&liar.terms, &liar.keys(0), None);
        if has_twin {
            let key = liar.secret.keypair(&liar.terms.trunk_id, KeyRole::Wallet);
            let coin = TxOut { value: Amount::ONE_BTC, script_pubkey: open_script() };
            let outputs = opening.sign((OutPoint::null(), &coin), &key, &key).output;
            fund(liar.backend.as_ref(), outputs);
        }
        liar.root = liar.mine(&opening);
        liar.connector = connector_of(liar.root);
        liar
    }

    fn keys(&self, claim: u32) -> ClaimKeys {
        ClaimKeys::derive(&self.secret, &self.terms.trunk_id, 0, claim)
    }

    /// Funds, signs and mines; the cadence has passed then.
    fn mine(&self, unfunded: &Unfunded) -> Txid {
        let wallet = self.secret.keypair(&self.terms.trunk_id, KeyRole::Wallet);
        let operator = self.secret.keypair(&self.terms.trunk_id, KeyRole::Operator);
        let coin = TxOut {
            value: Amount::from_sat(1_000_000),
            script_pubkey: wallet_script(wallet.x_only_public_key().0),
        };
        let funding = fund(self.backend.as_ref(), vec![coin.clone()]).compute_txid();
        let miner = self.backend.miner().unwrap();
        miner.mine(2, &open_script()).unwrap();
        let tx = unfunded.sign((OutPoint::new(funding, 0), &coin), &operator, &wallet);
        miner.mine_exactly(std::slice::from_ref(&tx), &open_script()).unwrap();
        tx.compute_txid()
    }

    fn claim(&mut self, input: &ClaimInput) -> Txid {
        let values = ClaimValues {
            prev_commitment: input.prev_commitment,
            new_commitment: input.new_commitment,
            batch_hash: input.batch_hash,
            code_root: input.code_root,
            digest: input.digest,
        };
        let author = self.secret.keypair(&self.terms.trunk_id, KeyRole::Envelope);
        let (epoch, number) = (0, self.claim);
        let messages = [
            Message::Batch {
                epoch,
                claim: number,
                batch_hash: input.batch_hash,
                data: input.batch_data.clone(),
            },
            Message::ClaimData { epoch, claim: number, values, proof: input.proof.clone() },
        ];
        for message in messages {
            let envelopes = pack(&message, BODY_BYTES_MAX).unwrap();
            publish(self.backend.as_ref(), &author, &tag(&self.terms.trunk_id), &envelopes);
        }
        let mut guard = UseGuard::open(&self.dir.path().join("wots.json")).unwrap();
        let named: Vec<_> = ClaimValue::ALL
            .iter()
            .zip(values.fields())
            .map(|(value, bytes)| (value.key_id(self.terms.trunk_id, 0, number), bytes.as_slice()))
            .collect();
        let signatures = guard.sign(&self.secret, &named).unwrap();
        let (keys, next) = (self.keys(number), self.keys(number + 1));
        let next = (number + 1 < self.terms.claims_max).then_some(&next);
        let unfunded = claim_graph(&self.terms, number, self.connector, (&keys, next), &signatures);
        let txid = self.mine(&unfunded);
        self.connector = connector_of(txid);
        self.claim += 1;
        txid
    }
}

#[test]
fn a_lying_operators_claims_are_reported_and_nothing_after_the_lie_executed() {
    let mut liar = Liar::new(false);
    liar.claim(&claim(0, 50));
    // Skips a batch.
    liar.claim(&claim(2, 50));
    let mut wrong = claim(3, 50);
    wrong.digest[9] ^= 1;
    let last = liar.claim(&wrong);
    let (steps, counter, report) = read_all(liar.backend.as_ref(), &liar.terms);
    let hex = |bytes: [u8; 32]| hex::encode(bytes);
    let epoch = 0;
    assert_eq!(
        kinds(&report),
        [
            // Its terms were not published from the transaction that paid for the Reconfiguration.
            FindingKind::AuthorUnknown,
            FindingKind::Discontinuity { epoch, claim: 1, expected: hex(state(1)), got: hex(state(2)) },
            FindingKind::Digest {
                epoch,
                claim: 2,
                expected: hex(claim(3, 50).digest),
                got: hex(wrong.digest)
            },
        ]
    );
    assert_eq!(report.findings[2].txid, last);
    let claims = claims(&steps);
    assert_eq!(claims.iter().map(|claim| claim.is_linked).collect::<Vec<_>>(), [true, false, false]);
    assert!(claims.iter().all(|claim| claim.batch.is_some()), "the data is there");
    assert_eq!((report.executed, counter.batches.len(), report.is_stopped), (1, 1, true));
}

#[test]
fn an_epoch_whose_terms_were_not_published_ends_the_reading() {
    let mut liar = Liar::new(false);
    liar.claim(&claim(0, 50));
    let keys = liar.keys(1);
    let previous =
        PreviousEpoch { terms: &liar.terms, claim: 1, keys: Some(&keys), connector: liar.connector };
    let next = EpochTerms { epoch: 1, ..liar.terms.clone() };
    let txid = liar.mine(&reconfiguration(&next, &keys, Some(&previous)));
    let (_, _, report) = read_all(liar.backend.as_ref(), &liar.terms);
    let terms_id = hex::encode(next.id());
    assert_eq!(
        kinds(&report),
        [FindingKind::AuthorUnknown, FindingKind::TermsMissing { epoch: 1, terms_id }]
    );
    assert_eq!((report.findings[1].txid, report.executed), (txid, 1), "what came before stands");
}

#[test]
fn a_connector_spent_by_something_else_ends_the_trunk() {
    let mut liar = Liar::new(false);
    liar.claim(&claim(0, 50));
    // By the next epoch's leaf, but naming no epoch; the fee comes from an envelope's coin.
    let operator = liar.secret.keypair(&liar.terms.trunk_id, KeyRole::Operator);
    let message = Message::Batch { epoch: 0, claim: 1, batch_hash: [0; 32], data: Vec::new() };
    let envelope = pack(&message, BODY_BYTES_MAX).unwrap().remove(0);
    let coin = leaf(&operator, b"othertag", &envelope);
    let funding = fund(liar.backend.as_ref(), vec![coin.txout.clone()]).compute_txid();
    let miner = liar.backend.miner().unwrap();
    miner.mine(2, &open_script()).unwrap();
    let connector = claim_connector(&liar.terms, 1, Some(&liar.keys(1))).leaf(NEXT_EPOCH_LEAF).unwrap();
    let spends = [(liar.connector, connector), (OutPoint::new(funding, 0), coin)];
    let output = TxOut { value: Amount::from_sat(1_000), script_pubkey: open_script() };
    let tx = reveal(&operator, &spends, vec![output], Sequence::from_height(2));
    miner.mine_exactly(std::slice::from_ref(&tx), &open_script()).unwrap();
    let (_, _, report) = read_all(liar.backend.as_ref(), &liar.terms);
    assert!(matches!(kinds(&report)[1], FindingKind::ConnectorLost { .. }), "{:?}", report.findings);
    assert_eq!((report.findings[1].txid, report.executed), (tx.compute_txid(), 1));
}

#[test]
fn a_look_alike_of_the_first_reconfiguration_is_passed_over() {
    // A stranger was first, with the same outputs, the operator's key in them.
    let mut liar = Liar::new(true);
    liar.claim(&claim(0, 50));
    let (steps, _, report) = read_all(liar.backend.as_ref(), &liar.terms);
    assert_eq!((kinds(&report), report.executed), (vec![FindingKind::AuthorUnknown], 1));
    let Step::Epoch(epoch) = &steps[0] else { panic!("{:?}", steps[0]) };
    assert_eq!(epoch.txid, liar.root);
}

#[test]
fn stopped_after_any_step_a_reader_goes_on_where_it_was() {
    let (settled, backend, _) = Settled::new(3, 2);
    let (all, ..) = read_all(backend.as_ref(), &settled.terms);
    assert_eq!(all.len(), 5, "two epochs, three claims");
    for stop in 0..=all.len() {
        for saved in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut sync = TrunkReader::open(config(dir.path(), &settled.terms)).unwrap();
            let mut counter = Counter::default();
            let mut steps = Vec::new();
            for step in 0..stop {
                steps.push(sync.step(backend.as_ref(), &mut counter).unwrap().unwrap());
                // The last one is dealt with, and perhaps not written down.
                if saved || step + 1 < stop {
                    sync.save().unwrap();
                }
            }
            assert!(matches!(
                TrunkReader::open(config(dir.path(), &settled.terms)),
                Err(SyncError::Locked { .. })
            ));
            drop(sync);
            if !saved {
                steps.pop();
            }
            let mut sync = TrunkReader::open(config(dir.path(), &settled.terms)).unwrap();
            while let Some(step) = sync.step(backend.as_ref(), &mut counter).unwrap() {
                steps.push(step);
                sync.save().unwrap();
            }
            assert_eq!(steps, all, "stopped after {stop}, saved {saved}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut sync = TrunkReader::open(config(dir.path(), &settled.terms)).unwrap();
    sync.save().unwrap();
    drop(sync);
    let other = SyncConfig { start_height: 1, ..config(dir.path(), &settled.terms) };
    assert!(matches!(TrunkReader::open(other), Err(SyncError::Config { field: "first block" })));
}

#[test]
fn a_reorganisation_below_what_was_read_is_said_and_a_new_start_is_right() {
    let (settled, backend, trunk) = Settled::new(2, 4);
    let dir = tempfile::tempdir().unwrap();
    let chain_dir = tempfile::tempdir().unwrap();
    // The chain up to the second claim's block, on a node of its own.
    let chain = InProcessRegtest::open(chain_dir.path()).unwrap();
    let tip = backend.tip().unwrap().height;
    let blocks: Vec<Block> =
        (1..=tip).map(|height| backend.block(&backend.block_hash(height).unwrap()).unwrap()).collect();
    for block in &blocks {
        chain.submit_block(block).unwrap();
    }
    let mut sync = TrunkReader::open(config(dir.path(), &settled.terms)).unwrap();
    let mut counter = Counter::default();
    let report = rebuild(&mut sync, &chain, &mut counter, &mut |_| {}).unwrap();
    assert_eq!(report.executed, 2);
    let claim_height = trunk.claims()[1].transactions.last().unwrap().block_height;
    let mut parent = blocks[claim_height as usize - 2].clone();
    for height in claim_height..=tip + 2 {
        let time = parent.header.time + 1;
        let script = ScriptBuf::from_bytes(vec![0x51]);
        let block = InProcessRegtest::assemble_block(parent.block_hash(), height, time, &script, &[]);
        chain.submit_block(&block).unwrap();
        parent = block;
    }
    let error = rebuild(&mut sync, &chain, &mut counter, &mut |_| {}).unwrap_err();
    assert!(matches!(error, SyncError::Reorganised { height } if height == tip), "{error}");
    sync.start_over().unwrap();
    let report = rebuild(&mut sync, &chain, &mut Counter::default(), &mut |_| {}).unwrap();
    assert_eq!((report.executed, report.commitment), (1, Some(state(1))));
    // With enough confirmations the same claim would not have been read.
    let deep = tempfile::tempdir().unwrap();
    let deep = SyncConfig { confirmations: 3, ..config(deep.path(), &settled.terms) };
    let mut sync = TrunkReader::open(deep).unwrap();
    rebuild(&mut sync, backend.as_ref(), &mut Counter::default(), &mut |_| {}).unwrap();
    assert_eq!(sync.next_height(), tip - 1);
}
