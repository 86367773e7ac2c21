//! Real batches, a small real proof, and messages in blocks of Core's consensus code.

use super::*;
use crate::testing::{small_proof_of, small_proof_under};
use ark_serialize::CanonicalSerialize;
use assay_l1::envelope::message::Message;
use assay_l1::envelope::pack::pack;
use assay_l1::envelope::script::commit_output;
use assay_l1::envelope::BODY_BYTES_MAX;
use assay_l1::graph::transactions::{leaf_witness, sign_leaf};
use assay_l1::{EpochParams, InProcessRegtest, KeyRole, OperatorSecret};
use assay_l1_light::message::Body;
use assay_l1_parties::CODE_ROOT;
use assay_l1_signer::policy::Payees;
use assay_lvm::core::{Block, BlockAttributes};
use assay_lvm::{sample, Batch};
use bitcoin::hashes::{sha256, Hash};
use bitcoin::{
    absolute, transaction, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, WScriptHash,
    Witness,
};

const TRUNK: [u8; 32] = [7; 32];
const RULES: ForcedRules = ForcedRules { grace_blocks: 3, window_blocks: 10 };

fn policy(verifier_commitment: [u8; 32]) -> Policy {
    let secret = OperatorSecret::from_bytes([1; 32]);
    let key = |role| secret.public_key(&TRUNK, role);
    let start_commitment = sample::genesis_state().unwrap().commitment();
    let params = EpochParams { start_commitment, code_root: [2; 32], verifier_commitment };
    let payees = Payees { operator: key(KeyRole::Operator), sink: key(KeyRole::Wallet) };
    Policy::regtest(TRUNK, payees, params)
}

/// What a right claim about a batch signs.
fn values(index: u64) -> Values {
    let chain = sample::chain(index).unwrap();
    let state = |batch: u64| chain.state_after(batch * sample::BLOCKS_PER_BATCH).unwrap().commitment();
    let batch = sample::batch(index).unwrap();
    let mut values = [state(index - 1), state(index), batch.hash().unwrap(), [2; 32], [0; 32]];
    values[DIGEST] = statement::digest(values[..=CODE_ROOT].as_flattened());
    values
}

fn open_script() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&WScriptHash::from_raw_hash(sha256::Hash::hash(&[0x51])))
}

fn unsigned(previous_output: OutPoint, output: TxOut) -> Transaction {
    let input = TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![input],
        output: vec![output],
    }
}

/// Publishes a forced transaction; the height of its block.
fn publish(backend: &InProcessRegtest, raw: &[u8]) -> u32 {
    let author = OperatorSecret::from_bytes([3; 32]).keypair(&TRUNK, KeyRole::Envelope);
    let envelope = pack(&Message::ToRollup(Body::Forced(raw.to_vec())), BODY_BYTES_MAX).unwrap().remove(0);
    let output =
        commit_output(&author.x_only_public_key().0, &tag(&TRUNK), &envelope, Amount::from_sat(50_000));
    let spend = output.leaf(0).unwrap();
    let miner = backend.miner().unwrap();
    miner.mine(101, &open_script()).unwrap();
    let tip = backend.tip().unwrap().height;
    let coins = backend.utxos(&open_script()).unwrap();
    let coin = coins.iter().find(|coin| coin.height + 100 <= tip).unwrap();
    let mut commit = unsigned(coin.outpoint, spend.txout.clone());
    commit.input[0].witness = Witness::from_slice(&[[0x51]]);
    miner.mine_exactly(std::slice::from_ref(&commit), &open_script()).unwrap();
    let paid = TxOut { value: Amount::from_sat(40_000), script_pubkey: open_script() };
    let mut reveal = unsigned(OutPoint::new(commit.compute_txid(), 0), paid);
    let signature = sign_leaf(&reveal, 0, std::slice::from_ref(&spend.txout), &spend, &author);
    reveal.input[0].witness = leaf_witness(&signature, &spend);
    miner.mine_exactly(std::slice::from_ref(&reveal), &open_script()).unwrap();
    backend.tip().unwrap().height
}

struct Bench {
    dir: tempfile::TempDir,
    backend: Arc<InProcessRegtest>,
    proof: Vec<u8>,
    vk: VerifyingKey<Bn254>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backend = Arc::new(InProcessRegtest::open(&dir.path().join("chain")).unwrap());
        let public_values: [u8; 128] = values(1)[..=CODE_ROOT].as_flattened().try_into().unwrap();
        let small = small_proof_of(public_values);
        let mut proof = Vec::new();
        small.proof.serialize_compressed(&mut proof).unwrap();
        Self { dir, backend, proof, vk: small.vk }
    }

    fn open(&self, policies: &[Policy]) -> Result<RollupJudge, JudgeError> {
        let backend = Arc::clone(&self.backend) as Arc<dyn BitcoinBackend>;
        let genesis = sample::genesis_chain().unwrap();
        RollupJudge::open(
            genesis,
            std::slice::from_ref(&self.vk),
            policies,
            (backend, RULES),
            &self.dir.path().join("judge"),
        )
    }

    fn judge(&self) -> RollupJudge {
        self.open(&[policy(verifying_key_digest(&self.vk))]).unwrap()
    }

    fn height(&self) -> u32 {
        self.backend.tip().unwrap().height
    }
}

fn done(new_root: [u8; 32], has_messages: bool) -> Result<Execution, String> {
    Ok(Execution::Done { new_root, has_messages })
}

/// A raw transaction of the first sample batch: block from 0, place.
fn raw(block: usize, place: usize) -> Vec<u8> {
    let batch = sample::batch(1).unwrap();
    Block::decode(&batch.blocks[block]).unwrap().transactions_raw[place].to_vec()
}

/// A batch of one block that holds the transactions of the first sample block in these places.
fn batch_of(places: &[usize]) -> Batch {
    let first = sample::batch(1).unwrap();
    let block = Block::decode(&first.blocks[0]).unwrap();
    let transactions = places.iter().map(|place| block.transactions[*place].clone()).collect();
    let attributes = BlockAttributes {
        timestamp: block.header.timestamp,
        gas_limit: block.header.gas_limit,
        ..BlockAttributes::default()
    };
    let mut chain = sample::genesis_chain().unwrap();
    chain.append(&attributes, transactions).unwrap();
    chain.batch(1, 1).unwrap()
}

#[test]
fn batches_are_executed_from_genesis_on_and_a_restart_goes_on_from_what_is_kept() {
    let bench = Bench::new();
    let [one, two] = [1, 2].map(values);
    let [first, second] = [1, 2].map(|index| sample::batch(index).unwrap().data());
    let mut judge = bench.judge();
    assert_eq!(judge.batch_hash(&first).unwrap(), one[2]);
    assert!(judge.batch_hash(b"no batch").is_err());
    assert_eq!(judge.execute(&two, &second, 0), Ok(Execution::NotYet), "the state before it is not known");
    assert_eq!(judge.execute(&one, &first, 0), done(one[NEW_ROOT], true));
    assert!(judge.execute(&two, &first, 0).is_err(), "it does not execute there");
    // A claim to another state: what executing gives counts, and nothing is built on what was said.
    let mut forged = two;
    forged[NEW_ROOT] = [9; 32];
    assert_eq!(judge.execute(&forged, &second, 0), done(two[NEW_ROOT], true));
    let next = [forged[NEW_ROOT], [8; 32], [0; 32], [2; 32], [0; 32]];
    assert_eq!(judge.execute(&next, &second, 0), Ok(Execution::NotYet));
    drop(judge);
    let mut judge = bench.judge();
    assert_eq!(judge.execute(&two, &second, 0), done(two[NEW_ROOT], true));
}

#[test]
fn a_proof_verifies_for_its_digest_under_the_pinned_key_alone() {
    let bench = Bench::new();
    let mut judge = bench.judge();
    let key = verifying_key_digest(&bench.vk);
    assert!(judge.verify(&key, &values(1), &bench.proof));
    assert!(!judge.verify(&[9; 32], &values(1), &bench.proof), "an epoch with another key");
    assert!(!judge.verify(&key, &values(2), &bench.proof));
    // A number that is the same in the field, and longer.
    let mut high = values(1);
    high[DIGEST][0] |= 0x80;
    assert!(!judge.verify(&key, &high, &bench.proof));
    assert!(!judge.verify(&key, &values(1), &[bench.proof.as_slice(), b"x"].concat()));
    assert!(!judge.verify(&key, &values(1), &[]));
    for at in 0..bench.proof.len() {
        let mut other = bench.proof.clone();
        other[at] ^= 1;
        assert!(!judge.verify(&key, &values(1), &other), "byte {at}");
    }
}

#[test]
fn each_epochs_proofs_are_verified_under_its_own_key() {
    let bench = Bench::new();
    // The same circuit after another set-up.
    let public_values: [u8; 128] = values(1)[..=CODE_ROOT].as_flattened().try_into().unwrap();
    let other = small_proof_under(8, public_values);
    let mut other_proof = Vec::new();
    other.proof.serialize_compressed(&mut other_proof).unwrap();
    let keys = [bench.vk.clone(), other.vk];
    let [first, second] = [0, 1].map(|at| verifying_key_digest(&keys[at]));
    let policies = [first, second].map(policy);
    let backend = Arc::clone(&bench.backend) as Arc<dyn BitcoinBackend>;
    let (genesis, folder) = (sample::genesis_chain().unwrap(), bench.dir.path().join("two"));
    let mut judge = RollupJudge::open(genesis, &keys, &policies, (backend, RULES), &folder).unwrap();
    assert!(judge.verify(&first, &values(1), &bench.proof));
    assert!(judge.verify(&second, &values(1), &other_proof));
    assert!(!judge.verify(&second, &values(1), &bench.proof));
    assert!(!judge.verify(&first, &values(1), &other_proof));
}

#[test]
fn without_a_key_a_proof_has_to_be_one_and_is_not_verified() {
    let bench = Bench::new();
    let backend = Arc::clone(&bench.backend) as Arc<dyn BitcoinBackend>;
    let (genesis, policies) = (sample::genesis_chain().unwrap(), [policy([9; 32])]);
    let folder = bench.dir.path().join("judge");
    let mut judge = RollupJudge::open(genesis, &[], &policies, (backend, RULES), &folder).unwrap();
    assert!(judge.verify(&[9; 32], &values(2), &bench.proof));
    assert!(!judge.verify(&[9; 32], &values(2), b"no proof"));
    // The state is that of the claims executed, whole.
    let [one, two] = [1, 2].map(values);
    let start = sample::genesis_state().unwrap();
    assert_eq!(judge.state(&start.commitment()), Some(start));
    judge.execute(&one, &sample::batch(1).unwrap().data(), 0).unwrap();
    judge.execute(&two, &sample::batch(2).unwrap().data(), 0).unwrap();
    let after = sample::chain(2).unwrap().state_after(sample::BLOCKS_PER_BATCH).unwrap();
    assert_eq!(judge.state(&one[NEW_ROOT]), Some(after));
    assert_eq!(judge.state(&[8; 32]), None);
}

#[test]
fn another_key_another_genesis_and_two_trunks_are_refused() {
    let bench = Bench::new();
    let right = policy(verifying_key_digest(&bench.vk));
    assert!(matches!(bench.open(&[policy([9; 32])]), Err(JudgeError::Surplus { .. })));
    assert!(matches!(bench.open(&[right.clone(), policy([9; 32])]), Err(JudgeError::Key { .. })));
    let start = Policy { start_commitment: [9; 32], ..right.clone() };
    assert!(matches!(bench.open(&[start]), Err(JudgeError::Genesis { .. })));
    let trunk = Policy { trunk_id: [8; 32], ..right.clone() };
    assert!(matches!(bench.open(&[right, trunk]), Err(JudgeError::Policies)));
    assert!(matches!(bench.open(&[]), Err(JudgeError::Policies)));
    assert!(!bench.dir.path().join("judge").exists(), "nothing was written");
}

#[test]
fn a_batch_without_a_forced_transaction_that_was_due_is_found_out() {
    let bench = Bench::new();
    // Bob's transfer, the second of the first block.
    let height = publish(&bench.backend, &raw(0, 1));
    bench.backend.miner().unwrap().mine(20, &open_script()).unwrap();
    assert!(bench.height() > height + RULES.grace_blocks + RULES.window_blocks);
    let left_out = batch_of(&[0]);
    let complete = batch_of(&[0, 1]);
    let judged = |batch: &Batch, height: u32| {
        let dir = tempfile::tempdir().unwrap();
        let backend = Arc::clone(&bench.backend) as Arc<dyn BitcoinBackend>;
        let policies = [policy(verifying_key_digest(&bench.vk))];
        let genesis = sample::genesis_chain().unwrap();
        let judge = RollupJudge::open(
            genesis,
            std::slice::from_ref(&bench.vk),
            &policies,
            (backend, RULES),
            dir.path(),
        );
        let start = sample::genesis_state().unwrap().commitment();
        let values = [start, [0; 32], batch.hash().unwrap(), [2; 32], [0; 32]];
        match judge.unwrap().execute(&values, &batch.data(), height).unwrap() {
            Execution::Done { has_messages, .. } => has_messages,
            Execution::NotYet => panic!("the genesis is known"),
        }
    };
    let due = height + RULES.grace_blocks;
    assert!(judged(&left_out, due - 1), "not due yet");
    assert!(!judged(&left_out, due));
    assert!(!judged(&left_out, due + RULES.window_blocks));
    assert!(judged(&left_out, due + RULES.window_blocks + 1), "it has lapsed");
    assert!(judged(&complete, due));
}

#[test]
fn nobody_is_accused_of_leaving_out_what_cannot_be_taken_in() {
    let bench = Bench::new();
    // Dave's second transaction, before his first; one of Alice's that is executed already; no transaction at all.
    let mut height = 0;
    for raw in [raw(1, 3), raw(0, 0), b"\x02junk".to_vec()] {
        height = publish(&bench.backend, &raw);
    }
    bench.backend.miner().unwrap().mine(RULES.grace_blocks, &open_script()).unwrap();
    let wide = ForcedRules { window_blocks: 1_000, ..RULES };
    let backend = Arc::clone(&bench.backend) as Arc<dyn BitcoinBackend>;
    let policies = [policy(verifying_key_digest(&bench.vk))];
    let genesis = sample::genesis_chain().unwrap();
    let folder = bench.dir.path().join("wide");
    let mut judge =
        RollupJudge::open(genesis, std::slice::from_ref(&bench.vk), &policies, (backend, wide), &folder)
            .unwrap();
    let due = height + RULES.grace_blocks;
    // The first batch holds Alice's; the second one comes after it, and after both of Dave's.
    let [one, two] = [1, 2].map(values);
    let [first, second] = [1, 2].map(|index| sample::batch(index).unwrap().data());
    assert_eq!(judge.execute(&one, &first, due), done(one[NEW_ROOT], true));
    assert_eq!(judge.execute(&two, &second, due), done(two[NEW_ROOT], true));
}

#[test]
fn a_node_that_does_not_have_the_blocks_is_no_verdict() {
    let bench = Bench::new();
    let mut judge = bench.judge();
    let one = values(1);
    let first = sample::batch(1).unwrap().data();
    assert_eq!(judge.execute(&one, &first, 1_000), Ok(Execution::NotYet));
    assert_eq!(judge.execute(&one, &first, 3), done(one[NEW_ROOT], true));
}
