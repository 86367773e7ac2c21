//! A chain in this process with a signed epoch, and the services on it.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use assay_l1::envelope::pack::pack;
use assay_l1::envelope::{tag, BODY_BYTES_MAX};
use assay_l1::graph::contract::build::{funding_value, TxRole};
use assay_l1::graph::transactions::wallet_script;
use assay_l1::{BitcoinBackend, InProcessRegtest, KeyRole};
use assay_l1_parties::service::batches::ProvedBatch;
use assay_l1_parties::service::fund::{self, Funded};
use assay_l1_parties::service::operator::{OperatorArgs, OperatorService};
use assay_l1_parties::service::vigilante::{VigilanteArgs, VigilanteService};
use assay_l1_parties::service::{ServiceError, Stop};
use bitcoin::{OutPoint, Transaction, TxOut};

use crate::chain::{open_script, reorganise};
use crate::contract::{spec, Setup};
use crate::files::{parse, Files, Shown};
use crate::publish::{pair, publish};
use crate::rollup::{honest, messages, Rollup, TRUNK};

/// A chain with an epoch that is signed, and everyone's files and coins.
pub(crate) struct World {
    backend: Arc<InProcessRegtest>,
    pub(crate) setup: Setup,
    cheats: Mutex<Vec<Transaction>>,
    /// Whether the vigilante's rollup has to execute all batches before one to know where it starts.
    pub(crate) executes_all: bool,
    /// What the live view has shown.
    pub(crate) shown: Mutex<Shown>,
}

impl World {
    pub(crate) fn new() -> Self {
        let files = Files::new();
        let backend = Arc::new(InProcessRegtest::open(&files.path("chain")).unwrap());
        let setup = Setup::new(files, backend.as_ref(), &["vigilante"]);
        let shown = setup.files.watch(&(Arc::clone(&backend) as Arc<dyn BitcoinBackend>));
        Self { backend, setup, cheats: Mutex::default(), executes_all: false, shown: Mutex::new(shown) }
    }

    pub(crate) fn backend(&self) -> Arc<dyn BitcoinBackend> {
        Arc::clone(&self.backend) as Arc<dyn BitcoinBackend>
    }

    /// The arguments of a party's service.
    pub(crate) fn words(&self, name: &str) -> Vec<String> {
        [self.setup.files.chain(), self.setup.files.words(name)].concat()
    }

    /// The same with another value of an argument.
    pub(crate) fn words_with(&self, name: &str, argument: &str, value: &str) -> Vec<String> {
        let mut words = self.words(name);
        match words.iter().position(|word| word == argument) {
            Some(at) => words[at + 1] = value.to_owned(),
            None => words.extend([argument, value].map(str::to_owned)),
        }
        words
    }

    /// Opens the operator with these words, and has it see so many blocks.
    pub(crate) fn run_operator(&self, words: Vec<String>, blocks: u32) -> Result<(), ServiceError> {
        let args: OperatorArgs = parse(words);
        let mut service = OperatorService::open(&args, self.backend())?;
        for _ in 0..blocks {
            service.pass(&Stop::default())?;
            service.pass(&Stop::default())?;
            self.mine();
        }
        service.pass(&Stop::default())
    }

    /// Opens the vigilante with these words, and has it look once.
    pub(crate) fn run_vigilante(&self, words: Vec<String>) -> Result<(), ServiceError> {
        let args: VigilanteArgs = parse(words);
        let mut rollup = Rollup::default();
        VigilanteService::open(&args, self.backend(), &mut rollup)?.pass(&Stop::default())
    }

    /// A live view that has shown nothing yet.
    pub(crate) fn watch(&self) -> Shown {
        self.setup.files.watch(&self.backend())
    }

    /// Pays a party out of the purse.
    pub(crate) fn pay(&self, policy: &str, secret: &str, more: Vec<String>) -> Funded {
        let files = &self.setup.files;
        let words = [("--policy", policy), ("--secret", secret), ("--purse", "purse")];
        let words = words.into_iter().flat_map(|(name, file)| [name.to_owned(), files.word(file)]);
        let args = parse([files.chain(), words.collect(), more].concat());
        fund::fund(&args, self.backend.as_ref()).unwrap()
    }

    /// Pays the operator what it needs for an epoch; the coins.
    pub(crate) fn fund(&self, epoch: u32) -> (Funded, Vec<TxOut>) {
        let epoch = epoch.to_string();
        let more = ["--epoch", &epoch, "--coins", "3", "--coin-sat", "50000", "--data-sat", "70000"];
        let funded = self.pay("policy.toml", "operator.secret", more.map(str::to_owned).to_vec());
        let record = self.backend.transaction(&funded.txid.parse().unwrap(), 0).unwrap().unwrap();
        (funded, record.tx.output)
    }

    /// The coin that an epoch's graph takes.
    pub(crate) fn epoch_coin(&self, epoch: u32) -> TxOut {
        let operator = self.setup.files.secret("operator");
        let (spec, _) = spec(&operator, epoch, OutPoint::null());
        let previous = (epoch > 0).then(|| self.setup.epoch().graph().end());
        TxOut { value: funding_value(&spec, previous), script_pubkey: wallet_script(spec.terms.operator_key) }
    }

    /// The coins that the operator pays for data with.
    pub(crate) fn data_coins(&self) -> Vec<OutPoint> {
        let script = self.setup.files.script("operator", KeyRole::Envelope);
        self.backend.utxos(&script).unwrap().into_iter().map(|coin| coin.outpoint).collect()
    }

    /// A claim that skips a batch, as soon as the chain takes it.
    pub(crate) fn cheat(&self, claim: u32) {
        self.send(self.setup.claim(claim, &honest(claim + 1).values));
    }

    /// Mines this as soon as the chain takes it.
    pub(crate) fn send(&self, tx: Transaction) {
        self.cheats.lock().unwrap().push(tx);
    }

    /// The transactions of the contract that are in blocks.
    pub(crate) fn mined(&self) -> BTreeSet<TxRole> {
        let blocks = 1..=self.backend.tip().unwrap().height;
        let block = |height| self.backend.block(&self.backend.block_hash(height).unwrap()).unwrap();
        let txs = blocks.flat_map(|height| block(height).txdata);
        txs.flat_map(|tx| self.setup.contract.identify(&tx)).map(|id| id.role).collect()
    }

    /// Blocks one after the other, each seen by both services, until `done`; the services are dropped and opened again every
    /// `restart` blocks.
    pub(crate) fn play(
        &self,
        blocks_max: u32,
        restart: u32,
        done: impl Fn(&BTreeSet<TxRole>) -> bool,
    ) -> BTreeSet<TxRole> {
        let operator: OperatorArgs = parse(self.words("operator"));
        let watch: VigilanteArgs = parse(self.words("vigilante"));
        let stop = Stop::default();
        let mut left = blocks_max;
        loop {
            let mut rollup = if self.executes_all { Rollup::from_start() } else { Rollup::default() };
            let mut operator = OperatorService::open(&operator, self.backend()).unwrap();
            let mut watch = VigilanteService::open(&watch, self.backend(), &mut rollup).unwrap();
            for _ in 0..restart {
                for _ in 0..2 {
                    operator.pass(&stop).unwrap();
                    watch.pass(&stop).unwrap();
                }
                self.shown.lock().unwrap().look();
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

    /// Publishes data and proof of a batch, in blocks of their own: who publishes is nobody's business.
    pub(crate) fn publish(&self, batch: &ProvedBatch) {
        let packed = messages(batch)
            .iter()
            .flat_map(|message| pack(message, BODY_BYTES_MAX).unwrap())
            .collect::<Vec<_>>();
        publish(self.backend.as_ref(), &pair(0x61), &tag(&TRUNK), &packed);
    }

    /// Replaces the last `lost` blocks by one more without transactions.
    pub(crate) fn reorganise(&self, lost: u32) {
        reorganise(&self.backend, lost);
    }

    /// A block of what is in the mempool, and what cheats have prepared if the chain takes it.
    pub(crate) fn mine(&self) {
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
