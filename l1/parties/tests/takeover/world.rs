//! A chain, an epoch signed by two attesters, and the services on it.

pub(crate) mod backup;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use assay_l1::graph::contract::build::{funding_value, leaf, Graph, Surroundings, TxRole};
use assay_l1::graph::contract::keys::EpochKeys;
use assay_l1::graph::contract::scripts::NoVerifier;
use assay_l1::graph::contract::sign::{operator_item, witness};
use assay_l1::graph::terms::{claim_digest, ClaimValue};
use assay_l1::graph::transactions::wallet_script;
use assay_l1::script::winternitz;
use assay_l1::sync::command::NodeArgs;
use assay_l1::wots::guard::UseGuard;
use assay_l1::{BitcoinBackend, InProcessRegtest, KeyRole, OperatorSecret};
use assay_l1_parties::contract::{Epoch, Origin};
use assay_l1_parties::service::args::PartyArgs;
use assay_l1_parties::service::batches::{BatchDir, ProvedBatch};
use assay_l1_parties::service::fund::{self, FundArgs, Funded, Party};
use assay_l1_parties::service::operator::{OperatorArgs, OperatorService};
use assay_l1_parties::service::vigilante::{VigilanteArgs, VigilanteService};
use assay_l1_parties::service::watch::{Stage, Watch, WatchArgs};
use assay_l1_parties::service::{Execution, Judge, Stop};
use assay_l1_parties::{Contract, Values};
use assay_l1_signer::handover::PreviousArgs;
use assay_l1_signer::identity::Identity;
use assay_l1_signer::musig::{Attesters, ChunkNonces, NonceSeed};
use assay_l1_signer::peers::{Peer, Peers};
use assay_l1_signer::policy::{Policy, VerifierSet};
use assay_l1_signer::signatures::SignatureSet;
use assay_l1_signer::statement::{epoch_scope, EpochPublic, Kind, Statement};
use assay_l1_signer::wire::proposal::{graph_id, GraphProposal};
use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{
    absolute, transaction, Address, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    WScriptHash, Witness,
};
use zeroize::Zeroizing;

const TRUNK: [u8; 32] = [7; 32];
const CODE: [u8; 32] = [2; 32];
pub(crate) const CLAIMS: u32 = 2;

fn state(batch: u32) -> [u8; 32] {
    blake3::hash(&batch.to_le_bytes()).into()
}

/// The data of a batch is the state that it leads to, and its number.
fn data(batch: u32) -> Vec<u8> {
    [state(batch + 1).as_slice(), &batch.to_le_bytes()].concat()
}

/// A batch that is right.
pub(crate) fn honest(batch: u32) -> ProvedBatch {
    let data = data(batch);
    let mut values = [state(batch), state(batch + 1), blake3::hash(&data).into(), CODE, [0; 32]];
    values[4] = claim_digest(&values[..4]);
    ProvedBatch { verifying_key: Some([9; 32]), values, proof: b"proof".to_vec(), data }
}

/// The rollup of these tests.
struct Rollup;

impl Judge for Rollup {
    fn batch_hash(&mut self, data: &[u8]) -> Result<[u8; 32], String> {
        Ok(blake3::hash(data).into())
    }

    fn execute(&mut self, _: &Values, data: &[u8], _: u32) -> Result<Execution, String> {
        let new_root = *data.first_chunk().ok_or("too short")?;
        Ok(Execution::Done { new_root, has_messages: true })
    }

    fn verify(&mut self, _: &Values, proof: &[u8]) -> bool {
        proof == b"proof"
    }
}

fn open_script() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&WScriptHash::from_raw_hash(sha256::Hash::hash(&[0x51])))
}

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn identities() -> Vec<Identity> {
    let mut all: Vec<_> = [21, 22].map(|byte| Identity::from_bytes(&[byte; 32]).unwrap()).to_vec();
    all.sort_by_key(Identity::id);
    all
}

/// Secrets of the attesters, in the order of their identities: for the epoch and for a hand-over.
const EPOCH: [u8; 2] = [31, 32];
const RECOVERY: [u8; 2] = [41, 42];

fn aggregate(secrets: [u8; 2]) -> Attesters {
    let keys = secrets.map(|byte| PublicKey::from_secret_key(&Secp256k1::new(), &secret(byte)));
    Attesters::new(keys).unwrap()
}

/// Signatures of all attesters, by MuSig2 as in the signers.
fn sign_all(messages: &[[u8; 32]]) -> Vec<[u8; 64]> {
    let all = aggregate(EPOCH);
    let public = |byte: u8| PublicKey::from_secret_key(&Secp256k1::new(), &secret(byte));
    let mut secrets = EPOCH;
    secrets.sort_by_key(|byte| public(*byte).serialize());
    let seed = |byte: u8| NonceSeed::split(&Zeroizing::new([byte; 32]), 1).remove(0);
    let nonces = secrets.map(|byte| all.nonces(&seed(byte), &secret(byte), messages));
    let sums = ChunkNonces::new(&nonces, messages.len()).unwrap();
    let partials = secrets.map(|byte| all.sign(seed(byte), &secret(byte), messages, &sums).unwrap());
    all.aggregate(messages, &sums, &partials).unwrap()
}

fn policy(operator: &OperatorSecret) -> Policy {
    Policy {
        trunk_id: TRUNK,
        operator_key: operator.public_key(&TRUNK, KeyRole::Operator),
        sink: secret(0x51).x_only_public_key(&Secp256k1::new()).0,
        start_commitment: state(0),
        code_root: CODE,
        verifier_commitment: [9; 32],
        verifier: VerifierSet::None,
        claims: CLAIMS,
        collateral_sat: 1_000_000,
        challenge_deposit_sat: 20_000,
        slashed_to_sink_sat: 400_000,
        assert_words: 1,
        assert_hashes: 1,
        cadence_blocks: 2,
        collateral_blocks: 75,
        challenge_blocks: 10,
        assert_blocks: 8,
        disprove_blocks: 8,
        claim_timeout_blocks: 18,
        sink_blocks: 200,
        handover_blocks: 5,
    }
}

/// Stages of claims as they came, and alarms.
type Shown = (Vec<(u32, Stage)>, BTreeSet<String>);

/// A chain with an epoch that is signed, and everyone's files and coins.
pub(crate) struct World {
    root: tempfile::TempDir,
    backend: Arc<InProcessRegtest>,
    graph: Graph,
    signatures: Vec<[u8; 64]>,
    contract: Contract,
    cheats: Mutex<Vec<Transaction>>,
    /// What the live view has shown: each claim's stages in their order, and all alarms.
    pub(crate) shown: Mutex<Shown>,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let backend = Arc::new(InProcessRegtest::open(&root.path().join("chain")).unwrap());
        let path = |name: &str| root.path().join(name);
        let operator = OperatorSecret::load_or_create(&path("operator.secret")).unwrap();
        let watcher = OperatorSecret::load_or_create(&path("vigilante.secret")).unwrap();
        let policy = policy(&operator);
        let keys = EpochKeys::derive(&operator, &TRUNK, (0, CLAIMS), policy.layout());
        let attesters = (aggregate(EPOCH).key(), aggregate(RECOVERY).key());
        let spec = |funding| policy.spec_for(0, &keys, attesters, funding);
        let value = funding_value(&spec(OutPoint::null()), None);
        let coin = TxOut { value, script_pubkey: wallet_script(policy.operator_key) };
        let funding = coins(backend.as_ref(), &coin, (&operator, &watcher));
        let spec = spec(funding);
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

        let all = identities();
        let attesters = all.iter().zip(EPOCH.into_iter().zip(RECOVERY)).map(|(identity, bytes)| {
            let public = |byte: u8| PublicKey::from_secret_key(&Secp256k1::new(), &secret(byte));
            let keys = EpochPublic { epoch: public(bytes.0), recovery: public(bytes.1) };
            Statement::new(identity, Kind::EpochKey, epoch_scope(&TRUNK, 0), 0, keys.body())
        });
        let attesters = attesters.collect();
        let proposal = GraphProposal {
            spec,
            attesters,
            previous: None,
            before: Vec::new(),
            graph: graph.proposal(&keys),
        };
        let bytes = proposal.encode().unwrap();
        std::fs::create_dir(path("epochs")).unwrap();
        std::fs::write(path("epochs/0000.proposal"), &bytes).unwrap();
        let set = SignatureSet { graph: graph_id(&bytes), signatures: signatures.clone() };
        set.save(&path("epochs/0000.signatures")).unwrap();
        std::fs::write(path("policy.toml"), toml::to_string(&policy).unwrap()).unwrap();
        let peer = |identity: &Identity| Peer {
            name: identity.id().to_string(),
            key: identity.id(),
            address: "127.0.0.1:1".to_owned(),
        };
        let collector = Identity::from_bytes(&[20; 32]).unwrap().id();
        let peers = Peers { operator: collector, signers: identities().iter().map(peer).collect() };
        std::fs::write(path("peers.toml"), toml::to_string(&peers).unwrap()).unwrap();
        let origin = Origin::State(state(0));
        let epoch = Epoch::new(graph.clone(), keys, Arc::new(NoVerifier), origin, &signatures).unwrap();
        let mut contract = Contract::new();
        contract.push(Arc::new(epoch));
        Self { root, backend, graph, signatures, contract, cheats: Mutex::default(), shown: Mutex::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn batches(&self) -> BatchDir {
        BatchDir::new(&self.path("batches"))
    }

    fn party(&self, name: &str) -> PartyArgs {
        PartyArgs {
            node: NodeArgs { regtest_dir: None, bitcoind: None, cookie: None },
            dir: self.path(name),
            epochs: self.path("epochs"),
            policy: vec![self.path("policy.toml")],
            peers: self.path("peers.toml"),
            secret: self.path(&format!("{name}.secret")),
            start_height: 1,
            finality: 3,
            budget_sat: 5_000_000,
            fee_rate_max: 100,
            poll_ms: 5,
        }
    }

    /// A live view from the first block on.
    pub(crate) fn watch(&self) -> Watch {
        let secret = OperatorSecret::load_or_create(&self.path("operator.secret")).unwrap();
        let script = wallet_script(secret.public_key(&TRUNK, KeyRole::Wallet));
        let fees = Address::from_script(&script, self.backend.network()).unwrap();
        let args = WatchArgs {
            node: NodeArgs { regtest_dir: None, bitcoind: None, cookie: None },
            epochs: self.path("epochs"),
            policy: vec![self.path("policy.toml")],
            peers: self.path("peers.toml"),
            wallet: vec![format!("fees={fees}").parse().unwrap()],
            start_height: 1,
            finality: 3,
            poll_ms: 5,
            once: true,
            json: false,
        };
        Watch::open(&args, Arc::clone(&self.backend) as Arc<dyn BitcoinBackend>).unwrap()
    }

    fn look(&self, watch: &mut Watch) {
        watch.pass(&Stop::default()).unwrap();
        let now = watch.snapshot();
        let mut shown = self.shown.lock().unwrap();
        for claim in &now.epochs[0].claims {
            if shown.0.iter().rev().find(|(number, _)| *number == claim.claim)
                != Some(&(claim.claim, claim.stage))
            {
                shown.0.push((claim.claim, claim.stage));
            }
        }
        shown.1.extend(now.alarms);
    }

    /// The stages of a claim, as the live view has shown them.
    pub(crate) fn stages(&self, claim: u32) -> Vec<Stage> {
        let shown = self.shown.lock().unwrap();
        shown.0.iter().filter(|(number, _)| *number == claim).map(|(_, stage)| *stage).collect()
    }

    /// Pays the operator what it needs for an epoch; the coins.
    pub(crate) fn fund(&self, epoch: u32) -> (Funded, Vec<TxOut>) {
        let args = FundArgs {
            node: NodeArgs { regtest_dir: None, bitcoind: None, cookie: None },
            policy: self.path("policy.toml"),
            secret: self.path("operator.secret"),
            purse: self.path("purse"),
            party: Party::Operator,
            epoch,
            previous: PreviousArgs::default(),
            no_epoch: false,
            coins: 3,
            coin_sat: 50_000,
            data_sat: 70_000,
            json: false,
        };
        let funded = fund::fund(&args, self.backend.as_ref()).unwrap();
        let record = self.backend.transaction(&funded.txid.parse().unwrap(), 0).unwrap().unwrap();
        (funded, record.tx.output)
    }

    /// The coin that an epoch's graph takes.
    pub(crate) fn epoch_coin(&self, epoch: u32) -> TxOut {
        let operator = OperatorSecret::load_or_create(&self.path("operator.secret")).unwrap();
        let policy = policy(&operator);
        let keys = EpochKeys::derive(&operator, &TRUNK, (epoch, CLAIMS), policy.layout());
        let attesters = (aggregate(EPOCH).key(), aggregate(RECOVERY).key());
        let spec = policy.spec_for(epoch, &keys, attesters, OutPoint::null());
        let previous = (epoch > 0).then(|| self.graph.end());
        TxOut { value: funding_value(&spec, previous), script_pubkey: wallet_script(policy.operator_key) }
    }

    /// A claim that skips a batch, as soon as the chain takes it.
    pub(crate) fn cheat(&self, claim: u32) {
        let operator = OperatorSecret::load_or_create(&self.path("operator.secret")).unwrap();
        let values = honest(claim + 1).values;
        let id = |value: &ClaimValue| value.key_id(TRUNK, 0, claim);
        let named: Vec<_> =
            ClaimValue::ALL.iter().map(id).zip(values.iter().map(|value| &value[..])).collect();
        let mut guard = UseGuard::open(&self.path("cheat.json")).unwrap();
        let signed = guard.sign(&operator, &named).unwrap();
        let mut items: Vec<Vec<u8>> = signed.iter().rev().flat_map(winternitz::witness).collect();
        let role = TxRole::Claim(claim);
        let spend = self.graph.leaf(role, 0, leaf::CLAIM).unwrap();
        let node = self.graph.node(role).unwrap();
        items.push(operator_item(node, 0, &spend, &operator.keypair(&TRUNK, KeyRole::Operator)));
        let mut signatures = self.graph.requests().zip(&self.signatures);
        let (request, signature) = signatures.find(|(request, _)| request.role == role).unwrap();
        let mut tx = node.tx.clone();
        tx.input[0].witness = witness(&items, request.item(signature), &spend);
        self.cheats.lock().unwrap().push(tx);
    }

    /// The transactions of the contract that are in blocks.
    fn mined(&self) -> BTreeSet<TxRole> {
        let blocks = 1..=self.backend.tip().unwrap().height;
        let block = |height| self.backend.block(&self.backend.block_hash(height).unwrap()).unwrap();
        let txs = blocks.flat_map(|height| block(height).txdata);
        txs.filter_map(|tx| self.contract.identify(&tx)).map(|id| id.role).collect()
    }

    /// Blocks one after the other, each seen by both services, until `done`; the services are dropped and opened again every
    /// `restart` blocks.
    pub(crate) fn play(
        &self,
        blocks_max: u32,
        restart: u32,
        done: impl Fn(&BTreeSet<TxRole>) -> bool,
    ) -> BTreeSet<TxRole> {
        let operator = OperatorArgs { party: self.party("operator"), batches: self.path("batches") };
        let watch = VigilanteArgs { party: self.party("vigilante"), lookback_blocks: 50 };
        let backend = || Arc::clone(&self.backend) as Arc<dyn BitcoinBackend>;
        let stop = Stop::default();
        let mut view = self.watch();
        let mut left = blocks_max;
        loop {
            let mut rollup = Rollup;
            let mut operator = OperatorService::open(&operator, backend()).unwrap();
            let mut watch = VigilanteService::open(&watch, backend(), &mut rollup).unwrap();
            for _ in 0..restart {
                for _ in 0..2 {
                    operator.pass(&stop).unwrap();
                    watch.pass(&stop).unwrap();
                }
                self.look(&mut view);
                let mined = self.mined();
                if done(&mined) {
                    return mined;
                }
                assert!(left > 0, "after {blocks_max} blocks: {mined:?}");
                left -= 1;
                self.mine();
            }
        }
    }

    /// A block of what is in the mempool, and what cheats have prepared if the chain takes it.
    fn mine(&self) {
        let miner = self.backend.miner().unwrap();
        let mut cheats = self.cheats.lock().unwrap();
        let cheated = cheats
            .first()
            .is_some_and(|tx| miner.mine_exactly(std::slice::from_ref(tx), &open_script()).is_ok());
        if cheated {
            cheats.remove(0);
        } else {
            miner.mine(1, &open_script()).unwrap();
        }
    }
}

/// The epoch's coin, and coins for everyone's fees and the operator's data; where the epoch's is.
fn coins(
    backend: &InProcessRegtest,
    coin: &TxOut,
    (operator, watcher): (&OperatorSecret, &OperatorSecret),
) -> OutPoint {
    let miner = backend.miner().unwrap();
    miner.mine(101, &open_script()).unwrap();
    let rich = backend.utxos(&open_script()).unwrap().into_iter().find(|coin| coin.height == 1).unwrap();
    let pay = |secret: &OperatorSecret, role, sat| TxOut {
        value: Amount::from_sat(sat),
        script_pubkey: wallet_script(secret.public_key(&TRUNK, role)),
    };
    let fees =
        |secret: &OperatorSecret| (0..8).map(|_| pay(secret, KeyRole::Wallet, 400_000)).collect::<Vec<_>>();
    let data = pay(operator, KeyRole::Envelope, 5_000_000);
    let output = [vec![coin.clone(), data], fees(operator), fees(watcher)].concat();
    let tx = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: rich.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[0x51]]),
        }],
        output,
    };
    miner.mine_exactly(std::slice::from_ref(&tx), &open_script()).unwrap();
    OutPoint::new(tx.compute_txid(), 0)
}
