//! What consensus enforces about claims: each rule of the script is broken in turn, and a block with it is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/chain.rs"]
mod chain;

use assay_l1::graph::connector::{collateral, CONNECTOR_VALUE};
use assay_l1::graph::terms::{ClaimKeys, ClaimValue, EpochTerms};
use assay_l1::graph::transactions::{claim, connector_of, reconfiguration, wallet_script, COLLATERAL_VOUT};
use assay_l1::wots::guard::UseGuard;
use assay_l1::wots::Signature;
use assay_l1::{BackendError, EpochParams, KeyRole, OperatorSecret, TimeLocks};
use bitcoin::key::Keypair;
use bitcoin::{Amount, FeeRate, OutPoint, Sequence, Transaction, TxOut, Witness};
use chain::{open_script, spend, Harness, InProcess};

const TRUNK: [u8; 32] = [7; 32];
const START: [u8; 32] = [1; 32];
const CODE: [u8; 32] = [2; 32];

struct World {
    harness: InProcess,
    secret: OperatorSecret,
    terms: EpochTerms,
    connector: OutPoint,
    reconfiguration: Transaction,
}

impl World {
    /// An epoch of two claims, opened on a new chain; the cadence is 2 blocks and has not passed.
    fn new() -> Self {
        let harness = InProcess::new();
        harness.backend().miner().unwrap().mine(140, &open_script()).unwrap();
        let secret = OperatorSecret::from_bytes([3; 32]);
        let params = EpochParams { start_commitment: START, code_root: CODE, verifier_commitment: [0; 32] };
        let rest = (TimeLocks::REGTEST, 2, Amount::from_sat(50_000));
        let terms = EpochTerms::new(&secret, TRUNK, 0, params, rest);
        let mut world = Self {
            harness,
            terms,
            connector: OutPoint::null(),
            reconfiguration: spend(OutPoint::null(), Amount::from_sat(10_000), Sequence::MAX),
            secret,
        };
        let main = reconfiguration(&world.terms, &world.keys(0), None);
        let coin = world.coin(main.funding(FeeRate::BROADCAST_MIN));
        let tx = main.sign((coin.0, &coin.1), &world.key(KeyRole::Operator), &world.key(KeyRole::Wallet));
        world.mine(std::slice::from_ref(&tx)).unwrap();
        world.connector = connector_of(tx.compute_txid());
        world.reconfiguration = tx;
        world
    }

    fn key(&self, role: KeyRole) -> Keypair {
        self.secret.keypair(&TRUNK, role)
    }

    fn keys(&self, claim: u32) -> ClaimKeys {
        ClaimKeys::derive(&self.secret, &TRUNK, 0, claim)
    }

    fn mine(&self, txs: &[Transaction]) -> Result<bitcoin::BlockHash, BackendError> {
        self.harness.backend().miner().unwrap().mine_exactly(txs, &open_script())
    }

    fn pass(&self, blocks: u32) {
        self.harness.backend().miner().unwrap().mine(blocks, &open_script()).unwrap();
    }

    /// A transaction that makes a coin of the wallet, and the coin.
    fn unconfirmed_coin(&self, value: Amount) -> (Transaction, (OutPoint, TxOut)) {
        let backend = self.harness.backend();
        let next = backend.tip().unwrap().height + 1;
        let coins = backend.utxos(&open_script()).unwrap();
        let from = coins.iter().find(|coin| coin.coinbase && next - coin.height >= 100).unwrap();
        let txout =
            TxOut { value, script_pubkey: wallet_script(self.key(KeyRole::Wallet).x_only_public_key().0) };
        let mut tx = spend(from.outpoint, from.txout.value, Sequence::MAX);
        tx.output = vec![txout.clone()];
        let outpoint = OutPoint::new(tx.compute_txid(), 0);
        (tx, (outpoint, txout))
    }

    /// A coin of the wallet, confirmed in a block of its own.
    fn coin(&self, value: Amount) -> (OutPoint, TxOut) {
        let (tx, coin) = self.unconfirmed_coin(value);
        self.mine(&[tx]).unwrap();
        coin
    }

    /// One-time signatures of `values` with the keys of claim `number`, from a record of their own.
    fn signatures(&self, number: u32, values: &[[u8; 32]; 5]) -> Vec<Signature> {
        let dir = tempfile::tempdir().unwrap();
        let mut guard = UseGuard::open(&dir.path().join("wots.json")).unwrap();
        let named: Vec<_> = ClaimValue::ALL
            .iter()
            .zip(values)
            .map(|(value, bytes)| (value.key_id(TRUNK, 0, number), bytes.as_slice()))
            .collect();
        guard.sign(&self.secret, &named).unwrap()
    }

    /// Claim `number` from `connector`, signed with `operator`.
    fn claim(
        &self,
        number: u32,
        connector: OutPoint,
        values: &[[u8; 32]; 5],
        operator: &Keypair,
    ) -> Transaction {
        let signatures = self.signatures(number, values);
        let (keys, next) = (self.keys(number), (number == 0).then(|| self.keys(1)));
        let main = claim(&self.terms, number, connector, (&keys, next.as_ref()), &signatures);
        let coin = self.coin(main.funding(FeeRate::BROADCAST_MIN));
        main.sign((coin.0, &coin.1), operator, &self.key(KeyRole::Wallet))
    }

    fn refused(&self, tx: &Transaction, part: &str) {
        let tip = self.harness.backend().tip().unwrap();
        match self.mine(std::slice::from_ref(tx)) {
            Err(BackendError::BlockRejected { reason }) => assert!(reason.contains(part), "{reason}"),
            other => panic!("expected a refusal with {part}, got {other:?}"),
        }
        assert_eq!(self.harness.backend().tip().unwrap(), tip);
    }
}

fn values() -> [[u8; 32]; 5] {
    [START, [4; 32], [5; 32], CODE, [6; 32]]
}

#[test]
fn a_good_claim_is_mined_and_the_next_one_follows_it() {
    let world = World::new();
    let operator = world.key(KeyRole::Operator);
    let first = world.claim(0, world.connector, &values(), &operator);
    world.pass(2);
    world.mine(std::slice::from_ref(&first)).unwrap();
    let second = world.claim(1, connector_of(first.compute_txid()), &values(), &operator);
    world.pass(2);
    world.mine(std::slice::from_ref(&second)).unwrap();
    assert_eq!(second.output[0].value, CONNECTOR_VALUE);
}

#[test]
fn a_claim_cannot_shorten_its_lock() {
    let world = World::new();
    let mut hasty = world.claim(0, world.connector, &values(), &world.key(KeyRole::Operator));
    hasty.input[0].sequence = Sequence::from_height(1);
    world.pass(1);
    world.refused(&hasty, "Locktime requirement not satisfied");
}

#[test]
fn a_claim_before_its_time_is_refused() {
    let world = World::new();
    let operator = world.key(KeyRole::Operator);
    let first = world.claim(0, world.connector, &values(), &operator);
    world.mine(std::slice::from_ref(&first)).unwrap();
    let signatures = world.signatures(1, &values());
    let main =
        claim(&world.terms, 1, connector_of(first.compute_txid()), (&world.keys(1), None), &signatures);
    // The coin comes in the same block, so that the very next block can be tried.
    let (parent, coin) = world.unconfirmed_coin(main.funding(FeeRate::BROADCAST_MIN));
    let early = main.sign((coin.0, &coin.1), &operator, &world.key(KeyRole::Wallet));
    match world.mine(&[parent.clone(), early.clone()]) {
        Err(BackendError::BlockRejected { reason }) => assert!(reason.contains("nonfinal"), "{reason}"),
        other => panic!("expected a refusal, got {other:?}"),
    }
    world.mine(&[parent]).unwrap();
    world.mine(&[early]).expect("one block later it is in time");
}

#[test]
fn a_claim_signed_by_another_key_is_refused() {
    let world = World::new();
    let tx = world.claim(0, world.connector, &values(), &world.key(KeyRole::Wallet));
    world.pass(2);
    world.refused(&tx, "Invalid Schnorr signature");
}

#[test]
fn a_damaged_one_time_signature_of_any_value_is_refused() {
    let world = World::new();
    let good = world.claim(0, world.connector, &values(), &world.key(KeyRole::Operator));
    world.pass(2);
    let items: Vec<Vec<u8>> = good.input[0].witness.iter().map(<[u8]>::to_vec).collect();
    // 5 values of 67 digits of 2 items, then signature, script, control block.
    assert_eq!(items.len(), 5 * 67 * 2 + 3);
    for value in 0..5 {
        let mut damaged = good.clone();
        let mut items = items.clone();
        items[value * 134][3] ^= 1;
        damaged.input[0].witness = Witness::from_slice(&items);
        world.refused(&damaged, "OP_EQUALVERIFY");
    }
    world.mine(&[good]).unwrap();
}

#[test]
fn values_signed_with_the_keys_of_another_claim_are_refused() {
    let world = World::new();
    let keys = world.keys(0);
    let signatures = world.signatures(1, &values());
    let next = world.keys(1);
    let main = claim(&world.terms, 0, world.connector, (&keys, Some(&next)), &signatures);
    let coin = world.coin(main.funding(FeeRate::BROADCAST_MIN));
    let tx = main.sign((coin.0, &coin.1), &world.key(KeyRole::Operator), &world.key(KeyRole::Wallet));
    world.pass(2);
    world.refused(&tx, "OP_EQUALVERIFY");
}

#[test]
fn another_code_root_or_another_start_is_refused_by_the_script() {
    let world = World::new();
    let operator = world.key(KeyRole::Operator);
    for index in [0, 3] {
        let mut values = values();
        values[index][31] ^= 1;
        let tx = world.claim(0, world.connector, &values, &operator);
        world.pass(2);
        world.refused(&tx, "OP_NUMEQUALVERIFY");
    }
}

#[test]
fn the_collateral_waits_for_its_lock() {
    let world = World::new();
    let output = collateral(&world.terms);
    assert_eq!(world.reconfiguration.output[COLLATERAL_VOUT as usize], output.txout());
    let spend_of = output.leaf(0).unwrap();
    let outpoint = OutPoint::new(world.reconfiguration.compute_txid(), COLLATERAL_VOUT);
    let tx = assay_l1::graph::transactions::reclaim(
        (outpoint, &spend_of),
        world.terms.locks.collateral_blocks,
        open_script(),
        FeeRate::BROADCAST_MIN,
        &world.key(KeyRole::Operator),
    )
    .unwrap();
    world.pass(10);
    world.refused(&tx, "nonfinal");
    world.pass(5);
    world.mine(&[tx]).unwrap();
}

#[test]
fn sizes_are_pinned() {
    let world = World::new();
    let tx = world.claim(0, world.connector, &values(), &world.key(KeyRole::Operator));
    // The claim's size varies by the zero digits of its values, which take one byte less.
    assert_eq!((world.reconfiguration.vsize(), tx.vsize()), (202, 8_051));
}
