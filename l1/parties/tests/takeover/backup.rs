//! A backup operator beside the operator: its files and coins, and the attesters' signers, which consent and sign.

use std::path::PathBuf;

use assay_l1_parties::service::backup::{BackupArgs, BackupService};
use assay_l1_parties::service::fund::Funded;
use assay_l1_parties::service::operator::{OperatorArgs, OperatorService};
use assay_l1_parties::service::watch::Snapshot;
use assay_l1_parties::service::{ServiceError, Stop};
use assay_l1_signer::cli::{self, CollectArgs, Command, EpochArgs, ProposeArgs, SignerArgs};
use assay_l1_signer::handover::{HandOverArgs, Report};
use assay_l1_signer::identity::Identity;
use assay_l1_signer::machine::{Effect, Record, SignerMachine};
use assay_l1_signer::peers::{Peer, Peers};
use assay_l1_signer::policy::Policy;
use assay_l1_signer::review::ContractReviewer;
use assay_l1_signer::serve::{serve, Engine};
use assay_l1_signer::signatures::SignatureSet;
use assay_l1_signer::store::{secret, Store};
use assay_l1_signer::wire::proposal::encode_end;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use crate::contract::{identities, policy, COLLECTOR, EPOCH, RECOVERY};
use crate::files::{parse, BACKUP_POLICY};
use crate::rollup::{Rollup, TRUNK};
use crate::world::World;

/// A backup operator of a world. Its watch pays with `backup.secret`, it operates with `successor.secret`.
pub(crate) struct Backup<'a> {
    world: &'a World,
    policy: Policy,
}

fn run(command: Command) {
    cli::run(SignerArgs { command }).unwrap();
}

impl<'a> Backup<'a> {
    /// With a policy of its own, and coins for both of its wallets.
    pub(crate) fn new(world: &'a World) -> Self {
        let files = &world.setup.files;
        let policy = files.write_backup_policy(policy(&files.secret("operator")));
        let backup = Self { world, policy };
        backup.fund("backup.secret", vec!["--party".to_owned(), "vigilante".to_owned()]);
        backup.fund("successor.secret", vec!["--no-epoch".to_owned()]);
        backup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.setup.files.path(name)
    }

    /// Pays one of its wallets, under its policy.
    fn fund(&self, secret: &str, more: Vec<String>) -> Funded {
        self.world.pay(BACKUP_POLICY, secret, more)
    }

    /// Opens it with this secret file for its watch.
    pub(crate) fn open_with(&self, secret: &str) -> Result<(), ServiceError> {
        let words = self.world.words("backup");
        let words = words.iter().map(|word| word.replace("backup.secret", secret)).collect();
        BackupService::open(&parse(words), self.world.backend(), &mut Rollup::default()).map(drop)
    }

    /// The backup alone, block by block, until `done`; dropped and opened again every `restart` blocks.
    pub(crate) fn play(&self, blocks_max: u32, restart: u32, mut done: impl FnMut() -> bool) {
        let args: BackupArgs = parse(self.world.words("backup"));
        let stop = Stop::default();
        let mut left = blocks_max;
        loop {
            let mut rollup = Rollup::default();
            let mut service = BackupService::open(&args, self.world.backend(), &mut rollup).unwrap();
            for _ in 0..restart {
                (0..2).for_each(|_| service.pass(&stop).unwrap());
                if done() {
                    return;
                }
                assert!(left > 0, "after {blocks_max} blocks: {:?}", self.snapshot());
                left -= 1;
                self.world.mine();
            }
        }
    }

    /// The operator alone for some blocks, as if it had come back.
    pub(crate) fn play_operator(&self, blocks: u32) {
        let policy = self.world.setup.files.backup_policy();
        let args: OperatorArgs = parse([self.world.words("operator"), policy].concat());
        let mut service = OperatorService::open(&args, self.world.backend()).unwrap();
        for _ in 0..blocks {
            (0..2).for_each(|_| service.pass(&Stop::default()).unwrap());
            self.world.mine();
        }
    }

    /// How the trunk stands, under both policies.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let files = &self.world.setup.files;
        files.watch_with(&self.world.backend(), files.backup_policy()).look()
    }

    fn report_path(&self) -> PathBuf {
        self.path("backup/watch/handover.json")
    }

    /// Where the trunk goes on, once the backup says so.
    pub(crate) fn report(&self) -> Option<Report> {
        std::fs::read(self.report_path()).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap())
    }

    /// The epoch before and how it ended, as arguments.
    fn previous(&self) -> Vec<String> {
        let files = [("--previous", "epochs/0000.proposal"), ("--handover", "backup/watch/handover.json")];
        files
            .into_iter()
            .flat_map(|(name, file)| [name.to_owned(), self.world.setup.files.word(file)])
            .collect()
    }

    /// All attesters consent to the hand-over, and sign the backup's epoch; its files are then where services look.
    pub(crate) fn have_signed(&self) {
        let coin = ["--epoch", "1", "--coins", "0", "--data-sat", "0"].map(str::to_owned).to_vec();
        let coin = self.fund("successor.secret", [coin, self.previous()].concat());
        let signers: Vec<PathBuf> = (0..EPOCH.len()).map(|index| self.consent(index)).collect();
        let runtime = Runtime::new().unwrap();
        let peers = self.serve(&runtime, &signers);
        std::fs::write(self.path("signing-peers.toml"), toml::to_string(&peers).unwrap()).unwrap();
        let operator = || cli::CollectorArgs {
            identity: self.path("collector.id"),
            peers: self.path("signing-peers.toml"),
            policy: self.path(BACKUP_POLICY),
            patience_seconds: 60,
        };
        secret::write(&self.path("collector.id"), &Zeroizing::new(COLLECTOR)).unwrap();
        run(Command::Propose(ProposeArgs {
            epoch: EpochArgs {
                operator: operator(),
                secret: self.path("successor.secret"),
                epoch: 1,
                funding: coin.epoch_coin.unwrap(),
            },
            announce: hex::encode([0xbb; 32]),
            previous: parse(self.previous()),
            out: self.path("epochs/0001.proposal"),
        }));
        run(Command::Collect(CollectArgs {
            operator: operator(),
            proposal: self.path("epochs/0001.proposal"),
            out: self.path("epochs/0001.signatures"),
        }));
        runtime.shutdown_background();
    }

    /// Puts the epoch's files in the place behind, and in theirs what is none.
    pub(crate) fn move_behind_spoilt_files(&self) {
        for kind in ["proposal", "signatures"] {
            let path = |place| self.path(&format!("epochs/{place:04}.{kind}"));
            std::fs::rename(path(1), path(2)).unwrap();
            std::fs::write(path(1), b"spoilt").unwrap();
        }
    }

    /// A signer's directory as epoch 0 has left it, and its consent; the directory from which it signs what goes on.
    fn consent(&self, index: usize) -> PathBuf {
        let (dir, new_dir) = (self.path(&format!("signer-{index}")), self.path(&format!("next-{index}")));
        let set = SignatureSet::load(&self.path("epochs/0000.signatures")).unwrap().unwrap();
        let (graph, end) = (set.graph, encode_end(self.world.setup.epoch().graph().end()));
        let (store, _) = Store::open(&dir).unwrap();
        for effect in [
            Effect::SaveKey { epoch: 0, secret: Zeroizing::new([EPOCH[index]; 32]) },
            Effect::SaveRecovery { epoch: 0, secret: Zeroizing::new([RECOVERY[index]; 32]) },
            Effect::SaveSignatures { epoch: 0, graph, signatures: set.signatures },
            Effect::SaveRecord { epoch: 0, record: Record { graph, end, finished: true } },
        ] {
            store.carry_out(effect).unwrap();
        }
        drop(store);
        run(Command::HandOver(HandOverArgs {
            dir,
            new_dir: new_dir.clone(),
            policy: self.path("policy.toml"),
            previous: parse(self.previous()),
        }));
        new_dir
    }

    /// Signers that answer the collector; where they are.
    fn serve(&self, runtime: &Runtime, dirs: &[PathBuf]) -> Peers {
        let ids = || identities().into_iter().map(|identity| identity.id());
        let operator = Identity::from_bytes(&COLLECTOR).unwrap().id();
        let start = |(identity, dir): (Identity, &PathBuf)| {
            let (store, stored) = Store::open(dir).unwrap();
            let reviewer = ContractReviewer::new(self.policy.clone(), ids(), self.policy.verifier.leaves());
            let machine = SignerMachine::load(identity.clone(), ids(), TRUNK, reviewer, stored);
            let engine = Engine::start(machine, store).unwrap();
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let key = identity.id();
            runtime.spawn(serve(listener, identity, operator, engine));
            Peer { name: key.to_string(), key, address }
        };
        Peers { operator, signers: identities().into_iter().zip(dirs).map(start).collect() }
    }
}
