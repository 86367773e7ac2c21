//! A bitcoind with a signed epoch, and its parties as processes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_l1::envelope::message::Message;
use assay_l1::envelope::pack::pack;
use assay_l1::envelope::{tag, BODY_BYTES_MAX};
use assay_l1::graph::contract::build::TxRole;
use assay_l1::{BackendError, BitcoinBackend};
use assay_l1_parties::service::batches::ProvedBatch;
use assay_l1_parties::{epoch_name, Alarm, ClaimId, EpochIndex, Fault};
use bitcoin::{Amount, BlockHash, FeeRate, Transaction, Txid, Weight};
use serde_json::{json, Value};

use crate::chain::{open_script, Harness};
use crate::contract::{paid, sink, Setup, Spare};
use crate::dice::Dice;
use crate::files::{Files, Shown};
use crate::node::Node;
use crate::process::{Party, PATIENCE};
use crate::publish::{pair, publish};
use crate::rollup::{messages, TRUNK};

/// The parties of every test.
pub(crate) const ALL: [&str; 3] = ["operator", "v1", "v2"];
/// What an attacker pays for a package.
const FEE: Amount = Amount::from_sat(20_000);

/// A claim of the only epoch.
pub(crate) fn claim(claim: u32) -> ClaimId {
    ClaimId { epoch: EpochIndex(0), claim }
}

/// How an alarm is printed, where epochs have the numbers of their files.
pub(crate) fn said(alarm: Alarm) -> String {
    alarm.text(|index| epoch_name(index.0, index))
}

/// The same about a claim.
pub(crate) fn faulty(number: u32, fault: Fault) -> String {
    said(Alarm::Faulty(claim(number), fault))
}

/// The alarm about a trunk that nobody goes on with. Where no more epochs are signed, every run comes to it in the end.
pub(crate) fn halted() -> String {
    said(Alarm::Halted(EpochIndex(0)))
}

/// What the chain has of the contract.
#[derive(Default)]
struct Chain(Vec<(BlockHash, Vec<(TxRole, Transaction)>)>);

/// A node, parties, and whoever attacks them.
pub(crate) struct Scene {
    parties: BTreeMap<&'static str, Party>,
    pub(crate) setup: Setup,
    pub(crate) shown: Shown,
    pub(crate) node: Node,
    chain: Chain,
    dice: Dice,
}

impl Scene {
    /// Nobody runs yet.
    pub(crate) fn new() -> Self {
        Self::on(Node::start())
    }

    pub(crate) fn on(node: Node) -> Self {
        let setup = Setup::new(Files::new(), node.backend().as_ref(), &["v1", "v2"]);
        let shown = setup.files.watch(&node.backend());
        Self { parties: BTreeMap::new(), setup, shown, node, chain: Chain::default(), dice: Dice::new() }
    }

    pub(crate) fn backend(&self) -> Arc<dyn BitcoinBackend> {
        self.node.backend()
    }

    /// Starts parties, and waits until they have seen the chain.
    pub(crate) fn start(&mut self, names: &[&'static str]) {
        for name in names {
            match self.parties.get_mut(name) {
                Some(party) => party.restart(),
                None => {
                    let role = if *name == "operator" { "operator" } else { "vigilante" };
                    let own = [self.node.words(), self.setup.files.words(name)].concat();
                    let words = [vec![role.to_owned()], own].concat();
                    self.parties.insert(*name, Party::start(name, words));
                }
            }
        }
        self.settle();
    }

    /// Starts a party unless it runs, and does not wait.
    pub(crate) fn launch(&mut self, name: &str) {
        let party = self.parties.get_mut(name).unwrap();
        if !party.is_running() {
            party.restart();
        }
    }

    /// Waits, without a block, until the node shows something.
    pub(crate) fn wait_for(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn kill(&mut self, name: &str) {
        self.parties.get_mut(name).unwrap().kill();
    }

    pub(crate) fn party(&self, name: &str) -> &Party {
        &self.parties[name]
    }

    /// Waits until everyone who runs has done all that there is to do.
    pub(crate) fn settle(&mut self) {
        let backend = self.backend();
        let tip = backend.tip().unwrap();
        let running = self.parties.values_mut().filter(|party| party.is_running());
        running.for_each(|party| party.wait_for_block(&tip.hash));
        // What is there of the contract, after a reorganisation, too.
        let blocks = &mut self.chain.0;
        while let Some((hash, _)) = blocks.last() {
            let height = blocks.len() as u32;
            if backend.block_hash(height).is_ok_and(|active| active == *hash) {
                break;
            }
            blocks.pop();
        }
        for height in blocks.len() as u32 + 1..=tip.height {
            let hash = backend.block_hash(height).unwrap();
            let txs = backend.block(&hash).unwrap().txdata;
            let found = txs.into_iter().flat_map(|tx| {
                let ids = self.setup.contract.identify(&tx);
                ids.into_iter().map(move |id| (id.role, tx.clone()))
            });
            blocks.push((hash, found.collect()));
        }
        self.shown.look();
    }

    /// Mines a block of what is in the mempool; nobody has seen it yet.
    pub(crate) fn mine_unseen(&self) {
        self.backend().miner().unwrap().mine(1, &open_script()).unwrap();
    }

    /// Mines a block of what is in the mempool, and lets everyone do what there is to do. Now and then somebody is killed over it and
    /// starts again.
    pub(crate) fn step(&mut self) {
        self.mine_unseen();
        let victim = self.dice.roll(12) as usize;
        if let Some(party) = self.parties.values_mut().nth(victim).filter(|party| party.is_running()) {
            self.dice.moment(40);
            party.kill();
            party.restart();
        }
        self.settle();
    }

    /// Mines until `done`.
    pub(crate) fn until(&mut self, blocks_max: u32, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..blocks_max {
            if done(self) {
                return;
            }
            self.step();
        }
        assert!(done(self), "{what}: not after {blocks_max} blocks; mined: {:?}", self.roles());
    }

    /// Mines until a transaction is in a block; its height.
    pub(crate) fn until_mined(&mut self, blocks_max: u32, role: TxRole) -> u32 {
        self.until(blocks_max, &format!("{role} is mined"), |scene| scene.mined(role).is_some());
        self.mined(role).unwrap().0
    }

    fn roles(&self) -> Vec<TxRole> {
        self.chain.0.iter().flat_map(|(_, found)| found.iter().map(|(role, _)| *role)).collect()
    }

    /// Height and transaction, if it is in a block.
    pub(crate) fn mined(&self, role: TxRole) -> Option<(u32, &Transaction)> {
        (1..).zip(&self.chain.0).find_map(|(height, (_, found))| {
            let (_, tx) = found.iter().find(|(found, _)| *found == role)?;
            Some((height, tx))
        })
    }

    /// What a mined version 3 transaction and its child have paid.
    pub(crate) fn rate_of(&self, role: TxRole) -> FeeRate {
        let (height, parent) = self.mined(role).unwrap();
        let block = self.backend().block_hash(height).unwrap();
        // 2: with the fee of each transaction.
        let txs = self.node.call("getblock", json!([block, 2]))["tx"].clone();
        let txid = parent.compute_txid();
        let of_both = |tx: &&Value| {
            let spends = tx["vin"].as_array().unwrap().iter().any(|input| input["txid"] == json!(txid));
            spends || tx["txid"] == json!(txid)
        };
        let both: Vec<&Value> = txs.as_array().unwrap().iter().filter(of_both).collect();
        assert_eq!(both.len(), 2, "a parent and its child");
        let fee: f64 = both.iter().map(|tx| tx["fee"].as_f64().unwrap()).sum();
        let weight: u64 = both.iter().map(|tx| tx["weight"].as_u64().unwrap()).sum();
        Amount::from_btc((fee * 1e8).round() / 1e8).unwrap() / Weight::from_wu(weight)
    }

    /// True if a transaction whose id is fixed is in the mempool.
    pub(crate) fn is_pending(&self, role: TxRole) -> bool {
        let txid = self.setup.epoch().graph().node(role).unwrap().tx.compute_txid();
        self.node.rpc().call("getmempoolentry", json!([txid])).is_ok()
    }

    /// The transactions of the contract in the mempool.
    pub(crate) fn pending(&self) -> BTreeSet<TxRole> {
        let ids: Vec<Txid> = serde_json::from_value(self.node.call("getrawmempool", json!([]))).unwrap();
        let txs = ids.iter().filter_map(|id| self.backend().transaction(id, u32::MAX).unwrap());
        txs.flat_map(|record| self.setup.contract.identify(&record.tx)).map(|id| id.role).collect()
    }

    /// A coin for an attacker.
    pub(crate) fn spare(&mut self) -> Spare {
        self.setup.spares.pop().expect("there are spare coins enough")
    }

    /// Offers a version 3 transaction with a child that pays for it to the node; the reasons if it refuses.
    pub(crate) fn offer(&mut self, parent: Transaction) -> Result<(), String> {
        self.offer_for(parent, FEE)
    }

    /// The same for this fee.
    pub(crate) fn offer_for(&mut self, parent: Transaction, fee: Amount) -> Result<(), String> {
        let coin = self.spare();
        let sent = self.backend().broadcast_package(&paid(parent, coin, fee));
        sent.map_err(|error| {
            self.setup.spares.push(coin);
            match error {
                BackendError::PackageRejected { reason, transactions } => {
                    format!("{reason} {transactions:?}")
                }
                other => panic!("{other}"),
            }
        })
    }

    /// What consensus says to a block with this transaction; its reason if it refuses. For those that it must refuse.
    pub(crate) fn refused_by_consensus(&self, tx: &Transaction) -> String {
        let mined = self.backend().miner().unwrap().mine_exactly(std::slice::from_ref(tx), &open_script());
        mined.unwrap_err().to_string()
    }

    /// Offers it at every block until the node takes it and it is mined.
    pub(crate) fn insist(&mut self, role: TxRole, parent: &Transaction) {
        for _ in 0..20 {
            if self.offer(parent.clone()).is_ok() {
                self.step();
                assert_eq!(self.mined(role).map(|(_, tx)| tx), Some(parent));
                return;
            }
            self.step();
        }
        panic!("{role} is never taken: {:?}", self.offer(parent.clone()));
    }

    /// Publishes data and proof of a batch, which nobody has to claim.
    pub(crate) fn publish(&mut self, batch: &ProvedBatch) {
        self.envelopes(&messages(batch));
    }

    /// Publishes messages, in blocks of their own.
    pub(crate) fn envelopes(&mut self, messages: &[Message]) {
        let packed = messages.iter().flat_map(|message| pack(message, BODY_BYTES_MAX).unwrap());
        publish(self.backend().as_ref(), &pair(0x61), &tag(&TRUNK), &packed.collect::<Vec<_>>());
        self.settle();
    }

    /// Opens the epoch and makes its claim 0, with whatever values: the work of an operator who has no service running.
    pub(crate) fn claim_first(&mut self, batch: &ProvedBatch) {
        let opening = self.setup.opening();
        self.insist(TxRole::Reconfiguration, &opening);
        let lie = self.setup.claim(0, &batch.values);
        self.insist(TxRole::Claim(0), &lie);
    }

    /// The confirmed coins of some parties.
    pub(crate) fn money(&self, names: &[&str]) -> Amount {
        names.iter().map(|name| self.setup.files.money(self.backend().as_ref(), name)).sum()
    }

    /// What the sink has of slashes.
    pub(crate) fn in_sink(&self) -> Amount {
        let coins = self.backend().utxos(&sink()).unwrap();
        coins.iter().map(|coin| coin.txout.value).sum()
    }

    /// Both vigilantes have raised this alarm.
    pub(crate) fn assert_alarmed(&self, alarm: &str) {
        for name in ["v1", "v2"] {
            let alarms = self.party(name).alarms();
            assert!(alarms.contains(alarm), "{name}: {alarms:?}");
        }
    }

    /// Nobody was alarmed, but for the end of the trunk, after which nothing is signed.
    pub(crate) fn assert_quiet(&self) {
        for (name, party) in &self.parties {
            let mut alarms = party.alarms();
            alarms.remove(&halted());
            assert!(alarms.is_empty(), "{name}: {alarms:?}");
        }
    }
}
