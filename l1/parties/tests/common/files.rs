//! Everyone's files in one folder, and the live view.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use assay_l1::graph::transactions::wallet_script;
use assay_l1::{BitcoinBackend, KeyRole, OperatorSecret};
use assay_l1_parties::service::batches::BatchDir;
use assay_l1_parties::service::sync::{self, Outcome};
use assay_l1_parties::service::watch::{Snapshot, Stage, Watch, WatchArgs};
use assay_l1_parties::service::{Judge, ServiceError, Stop};
use assay_l1_signer::policy::Policy;
use bitcoin::{Address, Amount, ScriptBuf};
use clap::Args;

use crate::rollup::TRUNK;

/// Under which a backup takes over.
pub(crate) const BACKUP_POLICY: &str = "backup-policy.toml";

#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true)]
struct Line<A: Args> {
    #[command(flatten)]
    args: A,
}

/// Arguments as their command reads them.
pub(crate) fn parse<A: Args>(words: Vec<String>) -> A {
    <Line<A> as clap::Parser>::try_parse_from(words).unwrap().args
}

/// The folder. A party's state is in one of its own name, its secret beside it.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("epochs")).unwrap();
        Self(root)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A path as an argument.
    pub(crate) fn word(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn batches(&self) -> BatchDir {
        BatchDir::new(&self.path("batches"))
    }

    /// A party's secret; made if there is none.
    pub(crate) fn secret(&self, name: &str) -> OperatorSecret {
        OperatorSecret::load_or_create(&self.path(&format!("{name}.secret"))).unwrap()
    }

    /// Where coins of a party's key lie.
    pub(crate) fn script(&self, name: &str, role: KeyRole) -> ScriptBuf {
        wallet_script(self.secret(name).public_key(&TRUNK, role))
    }

    /// The confirmed coins of all keys of a party.
    pub(crate) fn money(&self, backend: &dyn BitcoinBackend, name: &str) -> Amount {
        let roles = [KeyRole::Operator, KeyRole::Wallet, KeyRole::Envelope];
        let coins = roles.map(|role| backend.utxos(&self.script(name, role)).unwrap());
        coins.iter().flatten().map(|coin| coin.txout.value).sum()
    }

    fn shared(&self) -> Vec<String> {
        let words = [("--epochs", "epochs"), ("--policy", "policy.toml"), ("--peers", "peers.toml")];
        let words = words.into_iter().flat_map(|(name, file)| [name.to_owned(), self.word(file)]);
        words.chain(["--finality", "3", "--poll-ms", "5"].map(str::to_owned)).collect()
    }

    /// A chain in this process as an argument, for whoever is handed one that is open already.
    pub(crate) fn chain(&self) -> Vec<String> {
        vec!["--regtest-dir".to_owned(), self.word("chain")]
    }

    /// Writes the policy down under which `successor.secret` takes over.
    pub(crate) fn write_backup_policy(&self, policy: Policy) -> Policy {
        let operator_key = self.secret("successor").public_key(&TRUNK, KeyRole::Operator);
        let policy = Policy { operator_key, ..policy };
        std::fs::write(self.path(BACKUP_POLICY), toml::to_string(&policy).unwrap()).unwrap();
        policy
    }

    /// That policy beside the operator's, as an argument.
    pub(crate) fn backup_policy(&self) -> Vec<String> {
        vec!["--policy".to_owned(), self.word(BACKUP_POLICY)]
    }

    /// The arguments of a party's service but for the node. A backup watches and pays for that with `backup.secret`, and operates with
    /// `successor.secret`.
    pub(crate) fn words(&self, name: &str) -> Vec<String> {
        let own = ["--dir", &self.word(name), "--secret", &self.word(&format!("{name}.secret"))];
        let fees = ["--fee-rate-max", "100"];
        let words = own.into_iter().chain(fees).map(str::to_owned);
        let batches = || ["--batches".to_owned(), self.word("batches")];
        let lookback = || ["--lookback-blocks", "50"].map(str::to_owned);
        let extra = match name {
            "operator" => batches().to_vec(),
            "backup" => {
                let secret = ["--operator-secret".to_owned(), self.word("successor.secret")];
                [self.backup_policy(), lookback().into(), secret.into(), batches().into()].concat()
            }
            _ => lookback().to_vec(),
        };
        self.shared().into_iter().chain(words).chain(extra).collect()
    }

    /// What somebody with a node and the epochs in this folder finds from a block on, and what they are told.
    pub(crate) fn sync(
        &self,
        (backend, judge): (&Arc<dyn BitcoinBackend>, &mut dyn Judge),
        (epochs, more): (&str, Vec<String>),
        (confirmations, start_height): (u32, u32),
    ) -> (Result<Outcome, ServiceError>, String) {
        let mut args: WatchArgs = parse([self.chain(), self.shared(), more].concat());
        let trunk = &mut args.trunk;
        (trunk.epochs, trunk.finality, trunk.start_height) = (self.path(epochs), confirmations, start_height);
        let mut out = Vec::new();
        let outcome = sync::run(trunk, &self.path("sync"), Arc::clone(backend), judge, &mut out);
        (outcome, String::from_utf8(out).unwrap())
    }

    /// A live view, from the first block on, of trunk and operator's wallet.
    pub(crate) fn watch(&self, backend: &Arc<dyn BitcoinBackend>) -> Shown {
        self.watch_with(backend, Vec::new())
    }

    /// The same with more arguments.
    pub(crate) fn watch_with(&self, backend: &Arc<dyn BitcoinBackend>, more: Vec<String>) -> Shown {
        let fees = self.script("operator", KeyRole::Wallet);
        let fees = Address::from_script(&fees, backend.network()).unwrap();
        let words = ["--wallet".to_owned(), format!("fees={fees}"), "--once".to_owned()];
        let args: WatchArgs = parse([self.chain(), self.shared(), words.to_vec(), more].concat());
        let watch = Watch::open(&args, Arc::clone(backend)).unwrap();
        Shown { watch, stages: Vec::new(), alarms: BTreeSet::new() }
    }
}

/// What a live view shows as time goes by.
pub(crate) struct Shown {
    watch: Watch,
    /// Place of the epoch, claim, and what became of it, as it came.
    stages: Vec<(u32, u32, Stage)>,
    /// All alarms that were ever shown.
    pub(crate) alarms: BTreeSet<String>,
}

impl Shown {
    pub(crate) fn look(&mut self) -> Snapshot {
        self.watch.pass(&Stop::default()).unwrap();
        let now = self.watch.snapshot();
        for epoch in &now.epochs {
            for claim in &epoch.claims {
                if self.of(epoch.place, claim.claim).last() != Some(&claim.stage) {
                    self.stages.push((epoch.place, claim.claim, claim.stage));
                }
            }
        }
        self.alarms.extend(now.alarms.iter().cloned());
        now
    }

    fn of(&self, place: u32, claim: u32) -> Vec<Stage> {
        let its = self.stages.iter().filter(|(epoch, number, _)| (*epoch, *number) == (place, claim));
        its.map(|(_, _, stage)| *stage).collect()
    }

    /// The stages that a claim of the first epoch went through.
    pub(crate) fn stages(&self, claim: u32) -> Vec<Stage> {
        self.of(0, claim)
    }
}
