//! A contract of two announced epochs, the hand-overs that may become necessary, everybody's keys and coins.
//!
//! Graphs and one-time signatures take long and are the same for every seed: made once, kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use assay_l1::graph::contract::build::{funding_value, EpochEnd, Graph, Surroundings};
use assay_l1::graph::contract::keys::{AssertValue, EpochKeys, GameKeys};
use assay_l1::graph::contract::scripts::VerifierLeaves;
use assay_l1::graph::contract::spec::{AssertLayout, ContractSpec, GameLocks};
use assay_l1::graph::terms::{claim_digest, ClaimValue, EpochTerms};
use assay_l1::graph::transactions::wallet_script;
use assay_l1::script::compare::{differ, restore, set_aside};
use assay_l1::script::winternitz;
use assay_l1::wots::guard::UseGuard;
use assay_l1::wots::KeyId;
use assay_l1::{EpochParams, KeyRole, OperatorSecret, TimeLocks};
use bitcoin::hashes::{sha256, Hash};
use bitcoin::key::Keypair;
use bitcoin::script::Builder;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{
    absolute, transaction, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    WScriptHash, Witness,
};

use crate::contract::{Contract, Epoch, Origin, Verifier};
use crate::evidence::SignedValue;
use crate::party::Keys;
use crate::types::{ClaimId, EpochIndex, Values};

const TRUNK: [u8; 32] = [7; 32];
/// Claims of an epoch.
pub(crate) const CLAIMS: u32 = 3;
pub(crate) const CODE: [u8; 32] = [2; 32];
const LAYOUT: AssertLayout = AssertLayout { words: 1, hashes: 13 };
const COLLATERAL: Amount = Amount::from_sat(2_000_000);
pub(crate) const TO_SINK: Amount = Amount::from_sat(800_000);
const COIN: Amount = Amount::from_sat(600_000);
const COINS: usize = 14;
/// Time locks of the simulated contract: short, but with room for bad weather.
pub const LOCKS: GameLocks = GameLocks {
    challenge_blocks: 12,
    assert_blocks: 10,
    disprove_blocks: 10,
    claim_timeout_blocks: 18,
    sink_blocks: 400,
    handover_blocks: 5,
};

/// Parties, by the place of their keys.
pub(crate) const OPERATOR: usize = 0;
pub(crate) const BACKUP_WATCH: usize = 3;
pub(crate) const BACKUP: usize = 4;
pub(crate) const GRIEFER: usize = 5;
const PARTIES: usize = 6;
/// Whoever publishes data.
pub(crate) const PUBLISHER: usize = 6;

/// A verifier of one step: hashes 0 and 12 of an assertion must be equal.
#[derive(Debug, Clone, Copy)]
pub struct EqualEnds;

impl VerifierLeaves for EqualEnds {
    fn id(&self) -> [u8; 32] {
        [0xe0; 32]
    }

    fn count(&self) -> usize {
        1
    }

    fn body(&self, builder: Builder, keys: &GameKeys, _: usize) -> Builder {
        let count = keys.hashes[0].size().message_digits();
        let builder = set_aside(winternitz::verify(builder, &keys.hashes[0]), count);
        let builder = restore(winternitz::verify(builder, &keys.hashes[12]), count);
        differ(builder, count).push_int(1)
    }
}

impl Verifier for EqualEnds {
    fn wrong_step(&self, values: &[SignedValue]) -> Option<(usize, Vec<Vec<u8>>)> {
        let (first, last) = (values.get(1)?, values.get(13)?);
        (first.bytes != last.bytes).then(|| (0, [last.items.as_slice(), &first.items].concat()))
    }
}

/// The coin that everything is paid from: open to anybody, as `P2WSH(OP_TRUE)`.
#[derive(Debug, Clone)]
pub struct Faucet {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Its value: 1 BTC at least.
    pub value: Amount,
}

/// `P2WSH(OP_TRUE)`.
pub(crate) fn open_script() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&WScriptHash::from_raw_hash(sha256::Hash::hash(&[0x51])))
}

pub(crate) fn open_witness() -> Witness {
    Witness::from_slice(&[[0x51]])
}

fn pair(seed: u8) -> Keypair {
    let secret = SecretKey::from_slice(&[seed; 32]).expect("no seed here is zero or above the group's order");
    Keypair::from_secret_key(&Secp256k1::new(), &secret)
}

fn secret(party: usize) -> OperatorSecret {
    OperatorSecret::from_bytes([if party == OPERATOR { 3 } else { 4 }; 32])
}

/// State after `batch` batches.
pub(crate) fn state(batch: u32) -> [u8; 32] {
    blake3::hash(&[b"state".as_slice(), &batch.to_le_bytes()].concat()).into()
}

pub(crate) fn batch_hash(batch: u32) -> [u8; 32] {
    blake3::hash(&[b"batch".as_slice(), &batch.to_le_bytes()].concat()).into()
}

pub(crate) fn with_digest(mut values: Values) -> Values {
    values[4] = claim_digest(&values[..4]);
    values
}

/// What an honest claim about a batch says.
pub(crate) fn honest(batch: u32) -> Values {
    with_digest([state(batch), state(batch + 1), batch_hash(batch), CODE, [0; 32]])
}

type Items = Arc<Vec<Vec<u8>>>;
type SlotItems = Arc<Vec<Vec<Vec<u8>>>>;

/// Contract, keys and coins.
pub struct Fixture {
    pub(crate) faucet: Faucet,
    /// Makes all coins.
    pub(crate) funding: Transaction,
    epochs: [Arc<Epoch>; 2],
    keys: BTreeMap<(usize, u32), EpochKeys>,
    handovers: Mutex<BTreeMap<(ClaimId, ClaimId), Arc<Epoch>>>,
    claims: Mutex<BTreeMap<(usize, u32, u32, Values), Items>>,
    asserted: Mutex<BTreeMap<(usize, u32, u32, u8), SlotItems>>,
}

impl std::fmt::Debug for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fixture").finish_non_exhaustive()
    }
}

/// Spec of an epoch of `party`; the start is known for epoch 0 only.
fn spec((party, keys): (usize, &EpochKeys), number: u32, funding: OutPoint) -> ContractSpec {
    let secret = secret(party);
    let start_commitment = if number == 0 { state(0) } else { [0; 32] };
    // Each epoch has another verifying key.
    let verifier_commitment = [9 + number as u8; 32];
    let params = EpochParams { start_commitment, code_root: CODE, verifier_commitment };
    let games = CLAIMS as u16 * LOCKS.claim_timeout_blocks + LOCKS.game_blocks() as u16;
    let locks = TimeLocks { cadence_blocks: 2, collateral_blocks: games + 1 };
    ContractSpec {
        terms: EpochTerms {
            trunk_id: TRUNK,
            epoch: number,
            params,
            operator_key: secret.public_key(&TRUNK, KeyRole::Operator),
            key_commitment: keys.claim_commitment(),
            locks,
            claims_max: CLAIMS,
            collateral: COLLATERAL,
        },
        attesters: pair(0x41 + number as u8).x_only_public_key().0,
        recovery: pair(0x61 + number as u8).x_only_public_key().0,
        sink: pair(0x51).x_only_public_key().0,
        locks: LOCKS,
        challenge_deposit: Amount::from_sat(20_000),
        slashed_to_sink: TO_SINK,
        layout: LAYOUT,
        assert_key_commitment: keys.assert_commitment(),
        verifier_leaves: EqualEnds.id(),
        funding,
    }
}

/// The graph of an epoch with all its signatures.
fn epoch(
    spec: &ContractSpec,
    keys: &EpochKeys,
    previous: Option<&EpochEnd>,
    announce: [u8; 32],
    origin: Origin,
) -> Epoch {
    let coin =
        TxOut { value: funding_value(spec, previous), script_pubkey: wallet_script(spec.terms.operator_key) };
    let around = Surroundings { keys, verifier: &EqualEnds, coin: &coin, previous, announce };
    let graph = Graph::build(spec, around).expect("the fixture's parts fit");
    let pairs: Vec<Keypair> = (0..4).flat_map(|epoch| [pair(0x41 + epoch), pair(0x61 + epoch)]).collect();
    let sign = |request: &assay_l1::graph::contract::sign::SigningRequest| {
        let key = pairs.iter().find(|pair| pair.x_only_public_key().0 == request.signer);
        request.sign(key.expect("every signer is one of the fixture's"))
    };
    let signatures: Vec<[u8; 64]> = graph.requests().map(|request| sign(&request)).collect();
    Epoch::new(graph, keys.clone(), Arc::new(EqualEnds), origin, &signatures)
        .expect("the signatures are good")
}

/// Value of the connector that a claim spends; the layout and the number of claims are the same everywhere.
fn left(spec: &ContractSpec, claim: u32) -> Amount {
    spec.connector_value(claim)
}

impl Fixture {
    /// The fixture for a chain that has nothing in common with any other.
    pub fn shared() -> &'static Self {
        static FIXTURE: OnceLock<Fixture> = OnceLock::new();
        FIXTURE.get_or_init(|| {
            let outpoint = OutPoint::new(Txid::from_byte_array([0xfa; 32]), 0);
            Self::new(Faucet { outpoint, value: Amount::from_sat(5_000_000_000) })
        })
    }

    /// The fixture whose coins come from `faucet`.
    ///
    /// # Panics
    /// If the faucet has less than 1 BTC.
    #[must_use]
    pub fn new(faucet: Faucet) -> Self {
        let mut keys = BTreeMap::new();
        for (party, number) in [(OPERATOR, 0), (OPERATOR, 1), (BACKUP, 1), (BACKUP, 2)] {
            let derived = EpochKeys::derive(&secret(party), &TRUNK, (number, CLAIMS), LAYOUT);
            keys.insert((party, number), derived);
        }
        let sample = spec((OPERATOR, &keys[&(OPERATOR, 0)]), 0, OutPoint::new(Txid::all_zeros(), 9));
        let funding = funding_tx(&faucet, &sample);
        let txid = funding.compute_txid();
        let coin = |vout| OutPoint::new(txid, vout);
        let own = |number: u32| (OPERATOR, &keys[&(OPERATOR, number)]);
        let second = spec(own(1), 1, coin(1));
        let first = epoch(&spec(own(0), 0, coin(0)), own(0).1, None, second.id(), Origin::State(state(0)));
        let last = Origin::Claim(ClaimId { epoch: EpochIndex(0), claim: CLAIMS - 1 });
        let next = epoch(&second, own(1).1, Some(first.graph().end()), [0xaa; 32], last);
        let epochs = [Arc::new(first), Arc::new(next)];
        let caches = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { faucet, funding, epochs, keys, handovers: caches.0, claims: caches.1, asserted: caches.2 }
    }

    /// The announced epochs.
    pub(crate) fn epochs(&self) -> [Arc<Epoch>; 2] {
        self.epochs.clone()
    }

    /// The contract as everybody knows it at the start.
    #[must_use]
    pub fn contract(&self) -> Contract {
        let mut contract = Contract::new();
        for epoch in self.epochs() {
            contract.push(epoch);
        }
        contract
    }

    /// The transaction that makes everybody's coins.
    #[must_use]
    pub fn funding(&self) -> &Transaction {
        &self.funding
    }

    /// The keys of a party: 0 is the operator, 1 and 2 watch.
    #[must_use]
    pub fn keys(party: usize) -> Keys {
        let operator = if party == OPERATOR { OPERATOR } else { BACKUP };
        Keys {
            operator: secret(operator).keypair(&TRUNK, KeyRole::Operator),
            wallet: pair(0x70 + party as u8),
        }
    }

    /// The script of a party's fee coins.
    #[must_use]
    pub fn wallet(party: usize) -> ScriptBuf {
        wallet_script(pair(0x70 + party as u8).x_only_public_key().0)
    }

    pub(crate) fn sink() -> ScriptBuf {
        wallet_script(pair(0x51).x_only_public_key().0)
    }

    pub(crate) fn operator_script(party: usize) -> ScriptBuf {
        wallet_script(secret(party).public_key(&TRUNK, KeyRole::Operator))
    }

    /// The backup's epoch after an announced one that ended before claim `end`, where the claims before `first_void` count.
    pub(crate) fn handover(&self, end: ClaimId, first_void: ClaimId) -> Option<Arc<Epoch>> {
        let index = end.epoch.0;
        let halted = self.epochs.get(index as usize)?;
        let mut cache = self.handovers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(epoch) = cache.get(&(end, first_void)) {
            return Some(Arc::clone(epoch));
        }
        let first = self.epochs.get(first_void.epoch.0 as usize)?;
        let halt = halted.graph().halted_at(end.claim, first.graph().start(first_void.claim)?.clone())?;
        let origin = match first_void.claim.checked_sub(1) {
            Some(before) => Origin::Claim(ClaimId { epoch: first_void.epoch, claim: before }),
            None => first.origin(),
        };
        let keys = &self.keys[&(BACKUP, index + 1)];
        let vout = 2 + index * (CLAIMS + 1) + end.claim;
        let spec = spec((BACKUP, keys), index + 1, OutPoint::new(self.funding.compute_txid(), vout));
        let epoch = Arc::new(epoch(&spec, keys, Some(&halt), [0xbb; 32], origin));
        cache.insert((end, first_void), Arc::clone(&epoch));
        Some(epoch)
    }

    fn signed(party: usize, values: &[(KeyId, Vec<u8>)]) -> Vec<Vec<u8>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut guard = UseGuard::open(&dir.path().join("wots.json")).expect("a fresh record");
        let named: Vec<_> = values.iter().map(|(id, value)| (id.clone(), value.as_slice())).collect();
        let signed = guard.sign(&secret(party), &named).expect("the record is empty");
        signed.iter().rev().flat_map(winternitz::witness).collect()
    }

    /// One-time signatures of a claim's values, without any record: liars have none. The world keeps its own for the honest.
    pub(crate) fn claim_items(&self, party: usize, number: u32, claim: u32, values: &Values) -> Items {
        let mut cache = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = cache.entry((party, number, claim, *values)).or_insert_with(|| {
            let named = ClaimValue::ALL.iter().zip(values);
            let named = named.map(|(value, bytes)| (value.key_id(TRUNK, number, claim), bytes.to_vec()));
            Arc::new(Self::signed(party, &named.collect::<Vec<_>>()))
        });
        Arc::clone(entry)
    }

    /// One-time signatures of an assertion whose last hash is `last` and all others 0x11.
    pub(crate) fn slot_items(&self, party: usize, number: u32, claim: u32, last: u8) -> SlotItems {
        let mut cache = self.asserted.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = cache.entry((party, number, claim, last)).or_insert_with(|| {
            let id = |value: AssertValue| value.key_id(TRUNK, number, claim);
            let slot = |slot: &assay_l1::graph::contract::spec::Slot| {
                let words = slot.words.clone().map(|index| (id(AssertValue::Word(index)), vec![0x22; 32]));
                let hash = |index: u16| if index == 12 { last } else { 0x11 };
                let hashes =
                    slot.hashes.clone().map(|index| (id(AssertValue::Hash(index)), vec![hash(index); 16]));
                Self::signed(party, &words.chain(hashes).collect::<Vec<_>>())
            };
            Arc::new(LAYOUT.slots().iter().map(slot).collect())
        });
        Arc::clone(entry)
    }

    /// The publisher's coins.
    pub(crate) fn publisher_coins(&self) -> Vec<(OutPoint, Amount)> {
        let txid = self.funding.compute_txid();
        let outputs = self.funding.output.iter().enumerate();
        let mine = outputs.filter(|(_, output)| output.script_pubkey == open_script());
        mine.map(|(vout, output)| (OutPoint::new(txid, vout as u32), output.value)).collect()
    }
}

/// Outputs: the operator's epochs, the backup's for each way an epoch can end, everybody's fee coins, the publisher's.
fn funding_tx(faucet: &Faucet, sample: &ContractSpec) -> Transaction {
    let whole = left(sample, 0) + COLLATERAL;
    let to = |party: usize, value| TxOut { value, script_pubkey: Fixture::operator_script(party) };
    let mut output = vec![to(OPERATOR, whole), to(OPERATOR, whole - left(sample, CLAIMS))];
    for _ in 0..2 {
        output.extend((0..=CLAIMS).map(|claim| to(BACKUP, whole - left(sample, claim))));
    }
    for party in 0..PARTIES {
        // The operator has to make change first.
        let (value, count) = if party == OPERATOR { (COIN * 14, 2) } else { (COIN, COINS) };
        let coin = TxOut { value, script_pubkey: Fixture::wallet(party) };
        output.extend(std::iter::repeat_n(coin, count));
    }
    let data = TxOut { value: Amount::from_sat(500_000), script_pubkey: open_script() };
    output.extend(std::iter::repeat_n(data, 40));
    let spent: Amount = output.iter().map(|output| output.value).sum();
    assert!(spent + Amount::from_sat(100_000) <= faucet.value, "the faucet has 1 BTC");
    output.push(TxOut {
        value: faucet.value - spent - Amount::from_sat(100_000),
        script_pubkey: ScriptBuf::new_p2wsh(&WScriptHash::from_raw_hash(sha256::Hash::hash(&[0x52]))),
    });
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: faucet.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: open_witness(),
        }],
        output,
    }
}
