//! A backup operator beside the operator: its files and coins, and the attesters' signers, which consent and sign.

#![allow(dead_code, reason = "each test binary uses its part")]

use assay_l1_parties::service::backup::{BackupArgs, BackupService};
use assay_l1_parties::service::watch::Snapshot;
use assay_l1_signer::cli::{self, CollectArgs, Command, EpochArgs, ProposeArgs, SignerArgs};
use assay_l1_signer::handover::{HandOverArgs, Report};
use assay_l1_signer::machine::{Effect, Record, SignerMachine};
use assay_l1_signer::review::ContractReviewer;
use assay_l1_signer::serve::{serve, Engine};
use assay_l1_signer::store::Store;
use assay_l1_signer::wire::proposal::encode_end;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::*;

/// Seed of the collector's identity, which the peers file names.
const COLLECTOR: u8 = 20;

/// A backup operator of a world.
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
        let secret = OperatorSecret::load_or_create(&world.path("backup.secret")).unwrap();
        let operator = OperatorSecret::load_or_create(&world.path("operator.secret")).unwrap();
        let operator_key = secret.public_key(&TRUNK, KeyRole::Operator);
        let policy = Policy { operator_key, ..policy(&operator) };
        std::fs::write(world.path("backup-policy.toml"), toml::to_string(&policy).unwrap()).unwrap();
        let backup = Self { world, policy };
        backup.fund("watch.secret", Party::Vigilante, (0, None), (8, 0));
        backup.fund("backup.secret", Party::Operator, (0, None), (8, 5_000_000));
        backup
    }

    /// Pays one of its wallets: coins for fees and satoshi for data, or the coin of the epoch that goes on after a hand-over.
    fn fund(
        &self,
        secret: &str,
        party: Party,
        (epoch, handover): (u32, Option<PathBuf>),
        (coins, data_sat): (u32, u64),
    ) -> Funded {
        let previous = handover.is_some().then(|| self.world.path("epochs/0000.proposal"));
        let args = FundArgs {
            node: NodeArgs { regtest_dir: None, bitcoind: None, cookie: None },
            policy: self.world.path("backup-policy.toml"),
            secret: self.world.path(secret),
            purse: self.world.path("purse"),
            party,
            epoch,
            no_epoch: handover.is_none(),
            previous: PreviousArgs { previous, handover, goes_on: None },
            coins,
            coin_sat: 400_000,
            data_sat,
            json: false,
        };
        fund::fund(&args, self.world.backend.as_ref()).unwrap()
    }

    fn policies(&self) -> Vec<PathBuf> {
        ["policy.toml", "backup-policy.toml"].map(|name| self.world.path(name)).to_vec()
    }

    /// The backup alone, block by block, until `done`; dropped and opened again every `restart` blocks.
    pub(crate) fn play(&self, blocks_max: u32, restart: u32, mut done: impl FnMut() -> bool) {
        let party = PartyArgs {
            policy: self.policies(),
            secret: self.world.path("watch.secret"),
            ..self.world.party("backup")
        };
        let args = BackupArgs {
            watch: VigilanteArgs { party, lookback_blocks: 50 },
            operator_secret: self.world.path("backup.secret"),
            batches: self.world.path("batches"),
        };
        let stop = Stop::default();
        let mut left = blocks_max;
        loop {
            let mut rollup = Rollup;
            let backend = Arc::clone(&self.world.backend) as Arc<dyn BitcoinBackend>;
            let mut service = BackupService::open(&args, backend, &mut rollup).unwrap();
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
        let party = PartyArgs { policy: self.policies(), ..self.world.party("operator") };
        let args = OperatorArgs { party, batches: self.world.path("batches") };
        let backend = Arc::clone(&self.world.backend) as Arc<dyn BitcoinBackend>;
        let mut service = OperatorService::open(&args, backend).unwrap();
        for _ in 0..blocks {
            (0..2).for_each(|_| service.pass(&Stop::default()).unwrap());
            self.world.mine();
        }
    }

    /// How the trunk stands, under both policies.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let args = WatchArgs {
            node: NodeArgs { regtest_dir: None, bitcoind: None, cookie: None },
            epochs: self.world.path("epochs"),
            policy: self.policies(),
            peers: self.world.path("peers.toml"),
            wallet: Vec::new(),
            start_height: 1,
            finality: 3,
            poll_ms: 5,
            once: true,
            json: false,
        };
        let backend = Arc::clone(&self.world.backend) as Arc<dyn BitcoinBackend>;
        let mut watch = Watch::open(&args, backend).unwrap();
        watch.pass(&Stop::default()).unwrap();
        watch.snapshot()
    }

    fn report_path(&self) -> PathBuf {
        self.world.path("backup/watch/handover.json")
    }

    /// Where the trunk goes on, once the backup says so.
    pub(crate) fn report(&self) -> Option<Report> {
        std::fs::read(self.report_path()).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap())
    }

    /// The transactions of epoch 0 that are in blocks.
    pub(crate) fn mined(&self) -> BTreeSet<TxRole> {
        self.world.mined()
    }

    fn previous(&self) -> PreviousArgs {
        PreviousArgs {
            previous: Some(self.world.path("epochs/0000.proposal")),
            handover: Some(self.report_path()),
            goes_on: None,
        }
    }

    /// All attesters consent to the hand-over, and sign the backup's epoch; its files are then where services look.
    pub(crate) fn have_signed(&self) {
        let coin = self.fund("backup.secret", Party::Operator, (1, Some(self.report_path())), (0, 0));
        let signers: Vec<PathBuf> = (0..EPOCH.len()).map(|index| self.consent(index)).collect();
        let runtime = Runtime::new().unwrap();
        let peers = self.serve(&runtime, &signers);
        std::fs::write(self.world.path("signing-peers.toml"), toml::to_string(&peers).unwrap()).unwrap();
        let operator = || cli::OperatorArgs {
            identity: self.world.path("collector.id"),
            peers: self.world.path("signing-peers.toml"),
            policy: self.world.path("backup-policy.toml"),
            patience_seconds: 60,
        };
        let collector = Zeroizing::new([COLLECTOR; 32]);
        assay_l1_signer::store::secret::write(&self.world.path("collector.id"), &collector).unwrap();
        run(Command::Propose(ProposeArgs {
            epoch: EpochArgs {
                operator: operator(),
                secret: self.world.path("backup.secret"),
                epoch: 1,
                funding: coin.epoch_coin.unwrap(),
            },
            announce: hex::encode([0xbb; 32]),
            previous: self.previous(),
            out: self.world.path("epochs/0001.proposal"),
        }));
        run(Command::Collect(CollectArgs {
            operator: operator(),
            proposal: self.world.path("epochs/0001.proposal"),
            out: self.world.path("epochs/0001.signatures"),
        }));
        runtime.shutdown_background();
    }

    /// A signer's directory as epoch 0 has left it, and its consent; the directory from which it signs what goes on.
    fn consent(&self, index: usize) -> PathBuf {
        let (dir, new_dir) =
            (self.world.path(&format!("signer-{index}")), self.world.path(&format!("next-{index}")));
        let proposal = std::fs::read(self.world.path("epochs/0000.proposal")).unwrap();
        let (graph, end) = (graph_id(&proposal), encode_end(self.world.graph.end()));
        let (store, _) = Store::open(&dir).unwrap();
        for effect in [
            Effect::SaveKey { epoch: 0, secret: Zeroizing::new([EPOCH[index]; 32]) },
            Effect::SaveRecovery { epoch: 0, secret: Zeroizing::new([RECOVERY[index]; 32]) },
            Effect::SaveSignatures { epoch: 0, graph, signatures: self.world.signatures.clone() },
            Effect::SaveRecord { epoch: 0, record: Record { graph, end, finished: true } },
        ] {
            store.carry_out(effect).unwrap();
        }
        drop(store);
        run(Command::HandOver(HandOverArgs {
            dir,
            new_dir: new_dir.clone(),
            policy: self.world.path("policy.toml"),
            previous: self.previous(),
        }));
        new_dir
    }

    /// Signers that answer the collector; where they are.
    fn serve(&self, runtime: &Runtime, dirs: &[PathBuf]) -> Peers {
        let ids = || identities().into_iter().map(|identity| identity.id());
        let operator = Identity::from_bytes(&[COLLECTOR; 32]).unwrap().id();
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
