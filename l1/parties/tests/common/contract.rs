//! An epoch signed by two attesters in this process, everyone's coins, and what somebody with the operator's keys can make of it.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;

use assay_l1::graph::contract::build::{funding_value, leaf, Graph, Surroundings, TxRole};
use assay_l1::graph::contract::keys::{AssertValue, EpochKeys};
use assay_l1::graph::contract::scripts::NoVerifier;
use assay_l1::graph::contract::spec::ContractSpec;
use assay_l1::graph::terms::ClaimValue;
use assay_l1::graph::transactions::wallet_script;
use assay_l1::script::winternitz;
use assay_l1::wots::guard::UseGuard;
use assay_l1::wots::KeyId;
use assay_l1::{BitcoinBackend, EpochParams, KeyRole, OperatorSecret};
use assay_l1_parties::contract::{Epoch, Fill, Origin};
use assay_l1_parties::{Contract, EpochIndex, Values};
use assay_l1_signer::identity::Identity;
use assay_l1_signer::musig::{Attesters, ChunkNonces, NonceSeed};
use assay_l1_signer::peers::{Peer, Peers};
use assay_l1_signer::policy::{Aggregates, Payees, Policy};
use assay_l1_signer::signatures::SignatureSet;
use assay_l1_signer::statement::{epoch_scope, EpochPublic, Kind, Statement};
use assay_l1_signer::wire::proposal::{graph_id, GraphProposal};
use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey, XOnlyPublicKey};
use bitcoin::{
    absolute, transaction, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, WScriptHash,
    Witness,
};
use zeroize::Zeroizing;

use crate::chain::{open_script, open_witness};
use crate::files::Files;
use crate::rollup::{state, CODE, TRUNK, VERIFYING_KEY};

pub(crate) const CLAIMS: u32 = 2;
/// What of a slashed collateral goes to the sink.
pub(crate) const TO_SINK: Amount = Amount::from_sat(400_000);
/// Seed of the collector's identity, which the peers file names.
pub(crate) const COLLECTOR: [u8; 32] = [20; 32];
/// Coins that anyone can spend, and what each holds.
const SPARES: usize = 16;
const SPARE: Amount = Amount::from_sat(300_000);

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn public(byte: u8) -> PublicKey {
    PublicKey::from_secret_key(&Secp256k1::new(), &secret(byte))
}

pub(crate) fn identities() -> Vec<Identity> {
    let mut all: Vec<_> = [21, 22].map(|byte| Identity::from_bytes(&[byte; 32]).unwrap()).to_vec();
    all.sort_by_key(Identity::id);
    all
}

/// Secrets of the attesters, in the order of their identities: for the epoch and for a hand-over.
pub(crate) const EPOCH: [u8; 2] = [31, 32];
pub(crate) const RECOVERY: [u8; 2] = [41, 42];

fn aggregate(secrets: [u8; 2]) -> Attesters {
    Attesters::new(secrets.map(public)).unwrap()
}

/// Signatures of all attesters, by MuSig2 as in the signers.
fn sign_all(messages: &[[u8; 32]]) -> Vec<[u8; 64]> {
    let all = aggregate(EPOCH);
    let mut secrets = EPOCH;
    secrets.sort_by_key(|byte| public(*byte).serialize());
    let seed = |byte: u8| NonceSeed::split(&Zeroizing::new([byte; 32]), 1).remove(0);
    let nonces = secrets.map(|byte| all.nonces(&seed(byte), &secret(byte), messages));
    let sums = ChunkNonces::new(&nonces, messages.len()).unwrap();
    let partials = secrets.map(|byte| all.sign(seed(byte), &secret(byte), messages, &sums).unwrap());
    all.aggregate(messages, &sums, &partials).unwrap()
}

fn sink_key() -> XOnlyPublicKey {
    public(0x51).x_only_public_key().0
}

/// The script of what nobody claims.
pub(crate) fn sink() -> ScriptBuf {
    wallet_script(sink_key())
}

pub(crate) fn policy(operator: &OperatorSecret) -> Policy {
    let payees = Payees { operator: operator.public_key(&TRUNK, KeyRole::Operator), sink: sink_key() };
    let params =
        EpochParams { start_commitment: state(0), code_root: CODE, verifier_commitment: VERIFYING_KEY };
    let regtest = Policy::regtest(TRUNK, payees, params);
    Policy { claims: CLAIMS, slashed_to_sink_sat: TO_SINK.to_sat(), ..regtest }
}

/// The spec of an epoch of the operator, and its keys.
pub(crate) fn spec(operator: &OperatorSecret, epoch: u32, funding: OutPoint) -> (ContractSpec, EpochKeys) {
    let policy = policy(operator);
    let keys = EpochKeys::derive(operator, &TRUNK, (epoch, CLAIMS), policy.layout());
    let attesters = Aggregates { epoch: aggregate(EPOCH).key(), recovery: aggregate(RECOVERY).key() };
    (policy.spec_for(epoch, &keys, attesters, funding), keys)
}

/// A coin of [`spare_script`].
pub(crate) type Spare = (OutPoint, Amount);

/// Of the coins for whoever attacks. Not that of the blocks' rewards, so that nobody else takes them.
pub(crate) fn spare_script() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&WScriptHash::from_raw_hash(sha256::Hash::hash(&[0x53])))
}

pub(crate) fn spare_witness() -> Witness {
    Witness::from_slice(&[[0x53]])
}

/// Everyone's files, a signed epoch, and coins.
pub(crate) struct Setup {
    pub(crate) files: Files,
    /// What all of it is about.
    pub(crate) contract: Contract,
    /// Coins that anyone can spend.
    pub(crate) spares: Vec<Spare>,
}

impl Setup {
    /// On a fresh chain. `watchers`: the vigilantes.
    pub(crate) fn new(files: Files, backend: &dyn BitcoinBackend, watchers: &[&str]) -> Self {
        let operator = files.secret("operator");
        let value = funding_value(&spec(&operator, 0, OutPoint::null()).0, None);
        let coin = TxOut { value, script_pubkey: files.script("operator", KeyRole::Operator) };
        let (funding, spares) = coins(backend, &coin, &files, watchers);
        let (spec, keys) = spec(&operator, 0, funding);
        let around = Surroundings {
            keys: &keys,
            verifier: &NoVerifier,
            coin: &coin,
            previous: None,
            announce: [0xaa; 32],
        };
        let graph = Graph::build(&spec, around).unwrap();
        let messages: Vec<_> = graph.requests().map(|request| request.message).collect();
        let signatures = sign_all(&messages);
        write_epoch(&files, spec, &graph.proposal(&keys), &signatures);
        let origin = Origin::State(state(0));
        let epoch = Epoch::new(graph, keys, Arc::new(NoVerifier), origin, &signatures).unwrap();
        let mut contract = Contract::new();
        contract.push(Arc::new(epoch));
        Self { files, contract, spares }
    }

    pub(crate) fn epoch(&self) -> &Epoch {
        self.contract.epoch(EpochIndex(0)).unwrap()
    }

    /// A transaction whose first input wants the operator's signature.
    fn operated(&self, role: TxRole, leaf: usize, items: Vec<Vec<u8>>) -> Transaction {
        let operator = self.files.secret("operator").keypair(&TRUNK, KeyRole::Operator);
        self.epoch().complete_as_operator(role, Fill { leaf, items }, &operator).unwrap()
    }

    /// One-time signatures as witness items; without a record of used keys: liars have none.
    fn signed(&self, values: &[(KeyId, Vec<u8>)]) -> Vec<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let mut guard = UseGuard::open(&dir.path().join("wots.json")).unwrap();
        let values: Vec<_> = values.iter().map(|(id, value)| (id.clone(), value.as_slice())).collect();
        let signatures = guard.sign(&self.files.secret("operator"), &values).unwrap();
        signatures.iter().rev().flat_map(winternitz::witness).collect()
    }

    /// A claim with whatever values.
    pub(crate) fn claim(&self, claim: u32, values: &Values) -> Transaction {
        let named = ClaimValue::ALL.iter().zip(values);
        let named = named.map(|(value, bytes)| (value.key_id(TRUNK, 0, claim), bytes.to_vec()));
        let items = self.signed(&named.collect::<Vec<_>>());
        self.operated(TxRole::Claim(claim), leaf::CLAIM, items)
    }

    /// The opening of the epoch.
    pub(crate) fn opening(&self) -> Transaction {
        let operator = self.files.secret("operator").keypair(&TRUNK, KeyRole::Operator);
        self.epoch().opening(&operator, None).unwrap()
    }

    /// The answer to a challenge: the opening of an assertion, and its slots, in which all is zero.
    pub(crate) fn answer(&self, claim: u32) -> (Transaction, Vec<Transaction>) {
        let layout = self.epoch().spec().layout;
        let id = |value: AssertValue| (value.key_id(TRUNK, 0, claim), vec![0; value.size().bytes()]);
        let slots = layout.slots().into_iter().zip(0..).map(|(slot, number)| {
            let words = slot.words.map(AssertValue::Word);
            let named: Vec<_> = words.chain(slot.hashes.map(AssertValue::Hash)).map(id).collect();
            self.operated(TxRole::AssertSlot(claim, number), leaf::SLOT, self.signed(&named))
        });
        (self.operated(TxRole::Assert(claim), leaf::ASSERT, Vec::new()), slots.collect())
    }

    /// What ends an assertion that stood.
    pub(crate) fn acceptance(&self, claim: u32) -> Transaction {
        let fills = vec![Fill::bare(leaf::ACCEPT); self.epoch().spec().layout.slots().len() + 1];
        self.epoch().complete(TxRole::Acceptance(claim), &fills).unwrap()
    }

    /// Anybody's challenge of these claims, paid by this coin, of which `fee` is the fee.
    pub(crate) fn challenge(&self, claims: &[u32], coin: Spare, fee: Amount) -> Transaction {
        let mut into = coin.1;
        let mut all = claims.iter().map(|claim| {
            let role = TxRole::Challenge(*claim);
            into += self.epoch().graph().node(role).unwrap().spent()[0].value;
            self.epoch().complete(role, &[Fill::bare(leaf::CHALLENGE)]).unwrap()
        });
        let mut tx = all.next().unwrap();
        for other in all {
            tx.input.extend(other.input);
            tx.output.extend(other.output);
        }
        let out: Amount = tx.output.iter().map(|output| output.value).sum();
        tx.input.push(spend(coin.0));
        tx.output.push(TxOut { value: into - out - fee, script_pubkey: spare_script() });
        tx
    }
}

fn spend(coin: OutPoint) -> TxIn {
    let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
    TxIn { previous_output: coin, script_sig: ScriptBuf::new(), sequence, witness: spare_witness() }
}

/// A version 3 transaction with the child that pays `fee` for both from this coin.
pub(crate) fn paid(parent: Transaction, coin: Spare, fee: Amount) -> [Transaction; 2] {
    let anchor = OutPoint::new(parent.compute_txid(), parent.output.len() as u32 - 1);
    let anchor = TxIn { witness: Witness::new(), ..spend(anchor) };
    let child = Transaction {
        version: transaction::Version(3),
        lock_time: absolute::LockTime::ZERO,
        input: vec![anchor, spend(coin.0)],
        output: vec![TxOut { value: coin.1 - fee, script_pubkey: spare_script() }],
    };
    [parent, child]
}

/// What parties are given: the epoch, the policy, the peers.
fn write_epoch(
    files: &Files,
    spec: ContractSpec,
    graph: &assay_l1::graph::contract::review::Proposal,
    signatures: &[[u8; 64]],
) {
    let attesters = identities().into_iter().zip(EPOCH.into_iter().zip(RECOVERY)).map(|(identity, bytes)| {
        let keys = EpochPublic { epoch: public(bytes.0), recovery: public(bytes.1) };
        Statement::new(&identity, Kind::EpochKey, epoch_scope(&TRUNK, 0), 0, keys.body())
    });
    let (attesters, graph) = (attesters.collect(), graph.clone());
    let proposal = GraphProposal { spec, attesters, previous: None, before: Vec::new(), graph };
    let bytes = proposal.encode().unwrap();
    std::fs::write(files.path("epochs/0000.proposal"), &bytes).unwrap();
    let set = SignatureSet { graph: graph_id(&bytes), signatures: signatures.to_vec() };
    set.save(&files.path("epochs/0000.signatures")).unwrap();
    let policy = policy(&files.secret("operator"));
    std::fs::write(files.path("policy.toml"), toml::to_string(&policy).unwrap()).unwrap();
    let peer = |identity: &Identity| Peer {
        name: identity.id().to_string(),
        key: identity.id(),
        address: "127.0.0.1:1".to_owned(),
    };
    let collector = Identity::from_bytes(&COLLECTOR).unwrap().id();
    let peers = Peers { operator: collector, signers: identities().iter().map(peer).collect() };
    std::fs::write(files.path("peers.toml"), toml::to_string(&peers).unwrap()).unwrap();
}

/// The epoch's coin, coins for everyone's fees and the operator's data, and for attackers; where the epoch's is, and the last ones.
fn coins(
    backend: &dyn BitcoinBackend,
    coin: &TxOut,
    files: &Files,
    watchers: &[&str],
) -> (OutPoint, Vec<Spare>) {
    let miner = backend.miner().unwrap();
    miner.mine(101, &open_script()).unwrap();
    let rich = backend.utxos(&open_script()).unwrap().into_iter().find(|coin| coin.height == 1).unwrap();
    let fees = |name: &str| {
        let script_pubkey = files.script(name, KeyRole::Wallet);
        vec![TxOut { value: Amount::from_sat(400_000), script_pubkey }; 8]
    };
    let data = files.script("operator", KeyRole::Envelope);
    let data = TxOut { value: Amount::from_sat(5_000_000), script_pubkey: data };
    let mut output = vec![coin.clone(), data];
    output.extend(["operator"].iter().chain(watchers).flat_map(|name| fees(name)));
    let first_spare = output.len() as u32;
    output.extend(vec![TxOut { value: SPARE, script_pubkey: spare_script() }; SPARES]);
    let tx = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn { witness: open_witness(), ..spend(rich.outpoint) }],
        output,
    };
    miner.mine_exactly(std::slice::from_ref(&tx), &open_script()).unwrap();
    let at = |vout| OutPoint::new(tx.compute_txid(), vout);
    (at(0), (first_spare..first_spare + SPARES as u32).map(|vout| (at(vout), SPARE)).collect())
}
