//! The arguments and their help.

use std::path::PathBuf;

use assay_client::cli::{CancelArgs, FetchArgs, StatusArgs, SubmitArgs, WatchArgs, WorkersArgs};
use clap::{Args, Parser, Subcommand};

use super::l1::args::L1Args;
use crate::pipeline::Until;

const ABOUT: &str = "Proves batches of EVM blocks and settles them on Bitcoin";

const AFTER_HELP: &str = "\
Examples:
  assay prove sample                    prove and settle the first built-in batch
  assay prove sample:2                  the next one: its fold proof verifies the first one's
  assay verify out/1-4-0a1b2c3d         check a result with nothing but its folder
  assay batch show sample               what is in a batch
  assay bench                           what this machine does, as a table

With a cluster:
  assay coordinator                     the queue, the API and a live page; with --redis, for any number of `assay-worker`s
  assay submit sample --watch           the first start of the coordinator prints a key for ASSAY_KEY
  assay status; assay workers           what is in work, and who works
  assay fetch 0                         download the first batch's result and verify it

On Bitcoin:
  assay l1 sync --help                  rebuild the rollup's state from the batches that stand on Bitcoin
  assay l1 operator --help              claim proved batches; `l1 vigilante`, `l1 backup`, `l1 signer`, `l1 watch`: the others

Files:
  out/<batch>/     proof.json, vk.json, public.json (snarkjs), proof.bin (arkworks), claim.json, report.json
  out/chain/       the chain of claims: Bitcoin regtest and the operator's keys; out/rollups/: those of a cluster
  out/coordinator/ a coordinator's tenants, secret, and without a Redis its queue; move it with ASSAY_COORDINATOR_DIR
  ~/.cache/assay/artifacts/   finished stages and logs; move it with ASSAY_CACHE
  ~/.cache/assay/keys/        proving keys and Groth16 parameters; move it with ASSAY_KEYS
  assay.toml       optional configuration; coordinator/assay.sample.toml explains every field

Exit codes:
  0  done
  1  proving, settlement or verification failed
  2  bad input or usage: the message names the item, nothing was written
  3  the coordinator does not answer or is full: the same command again, later
  130  interrupted: start the same command again, it goes on where it stopped

The Groth16 parameters made here are a development set-up and INSECURE: whoever makes them could forge proofs.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "assay", version, about = ABOUT, after_long_help = AFTER_HELP, after_help = AFTER_HELP)]
pub struct Arguments {
    /// Configuration file [default: assay.toml, if it exists]; `assay l1` has none
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prove a batch, verify the proof, settle it on Bitcoin
    Prove(ProveArgs),
    /// Check a result folder with nothing but that folder
    Verify(VerifyArgs),
    /// Make the Groth16 parameters now instead of during the first proof (INSECURE development set-up)
    Setup(SetupArgs),
    /// Build, show or sample batches
    Batch(BatchArgs),
    /// Measure this machine: core proving, recursion, wrap and Groth16, on its GPU if this build has CUDA
    Bench(BenchArgs),
    /// List or prune the cache of finished stages
    Cache(CacheArgs),
    /// Run a cluster's coordinator: queue, API, live page, checks and settlement
    Coordinator(CoordinatorArgs),
    /// Submit a batch to a coordinator
    Submit(SubmitArgs),
    /// Show your batches at a coordinator, or one of them with all that waits
    Status(StatusArgs),
    /// Follow a batch to its end
    Watch(WatchArgs),
    /// Show a cluster's workers
    Workers(WorkersArgs),
    /// End a batch
    Cancel(CancelArgs),
    /// Download a settled batch's result and verify it
    Fetch(FetchArgs),
    /// Bitcoin: operate, watch, sign and read the contract
    L1(L1Args),
    /// Torment a cluster of real processes on this machine, and check that nothing is lost
    #[command(after_long_help = assay_chaos::AFTER_HELP)]
    Chaos(Box<assay_chaos::Flags>),
    /// Runs heavy stages for `assay prove` and `assay coordinator`
    #[command(hide = true)]
    Stage(StageArgs),
    /// A process of a chaos run
    #[command(hide = true)]
    ChaosCoordinator(ChaosNodeArgs),
    /// A process of a chaos run
    #[command(hide = true)]
    ChaosWorker(ChaosNodeArgs),
}

/// A process of a chaos run.
#[derive(Debug, Args)]
pub struct ChaosNodeArgs {
    /// What it is to do
    pub file: PathBuf,
}

/// `assay prove`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Stages: execute, block proofs (core, compressed), fold, wrap, Groth16 set-up (first time only), Groth16, verify, settle.
Finished stages are kept; interrupted and started again, the command goes on where it stopped and says so.
A batch that does not begin at genesis needs the fold proof of the batch before it, which the cache keeps.

Examples:
  assay prove sample
  assay prove my.batch --until compressed
  assay prove my.batch --out /srv/proofs --bitcoind http://user:password@127.0.0.1:18443
  assay prove my.batch --until groth16 --l1-batches batches     for `assay l1 operator --batches batches` to claim
  assay prove sample --json > result.json")]
pub struct ProveArgs {
    /// A batch file, `sample`, or `sample:N`
    #[arg(default_value = "sample")]
    pub batch: String,
    /// Stop after this stage
    #[arg(long, value_enum, default_value_t = Until::Settled)]
    pub until: Until,
    /// Folder for the results [default: out]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Settle through this node instead of an in-process regtest: http://user:password@host:port
    #[arg(long, value_name = "URL")]
    pub bitcoind: Option<String>,
    /// The node's cookie file, instead of user and password in the URL
    #[arg(long, value_name = "FILE")]
    pub bitcoind_cookie: Option<PathBuf>,
    /// Put the proved batch here as well, for a running `assay l1 operator --batches DIR` to claim under the contract
    #[arg(long, value_name = "DIR")]
    pub l1_batches: Option<PathBuf>,
    /// Begin a new history at this batch's parent state, instead of continuing one; later batches continue it too
    #[arg(long)]
    pub genesis: bool,
    /// Print the report as JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// `assay verify`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Checks that the 128 public-value bytes hash (BLAKE3, top three bits cleared) to the public input, that the proof verifies
under the key in the folder, and that all files agree byte for byte. Which key and which programs to trust is yours to
say: compare the printed hashes with values you trust, or pin both. One alone is worth nothing: under his own key a forger
proves anything, and under the right key he may prove a history of programs of his own.

Examples:
  assay verify out/1-4-0a1b2c3d
  assay verify out/1-4-0a1b2c3d --vk-hash 5f0c... --code-root 9a1b...")]
pub struct VerifyArgs {
    /// The result folder
    pub folder: PathBuf,
    /// Accept this verifying key only (BLAKE3 of its compressed encoding, hex)
    #[arg(long, value_name = "HEX", requires = "code_root")]
    pub vk_hash: Option<String>,
    /// Accept this code root only (hex)
    #[arg(long, value_name = "HEX", requires = "vk_hash")]
    pub code_root: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `assay setup`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The parameters depend on the wrap circuit only, so one set-up serves every batch. They are stored in the folder of keys,
2.7 GiB. `assay prove` does all of this by itself.

INSECURE: this is a development set-up. Its secret is drawn here and forgotten, but nobody can check that. Parameters
of a ceremony cannot be used yet.

Examples:
  assay setup
  ASSAY_KEYS=/var/cache/assay/keys assay setup --json")]
pub struct SetupArgs {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `assay bench`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
First small proofs are made and verified. Then every part runs once, in the processes that `assay prove` uses, and nothing is taken
from the cache but keys. The tables go to standard output and, with the same figures as JSON, into the folder; what was not measured
says so. Proofs are verified. The Groth16 parameters are made first if they are not there (2.7 GiB, see `assay setup`). Nothing
outside this machine is asked.

On a GPU two more things are measured: the zkVM's own prover on the same runs, and one and two sample batches in flight in a cluster
of this machine alone, with the share of the time in which the GPUs were idle.

One GPU is used, the first that CUDA_VISIBLE_DEVICES leaves, by batches in flight all of them; an empty value leaves none. A batch that
is not linked to a history (`assay batch show` says so) is measured up to `compressed`.

Examples:
  assay bench                                       the first sample batch: some 20 minutes on 2 cores
  assay batch build --from 23587691.json -o mainnet.batch
  assay bench sample mainnet.batch                  and a block of mainnet, a column each
  CUDA_VISIBLE_DEVICES= assay bench --out cpu       the same machine without its GPU")]
pub struct BenchArgs {
    /// Batch files, `sample`, or `sample:N`
    #[arg(default_value = "sample")]
    pub batches: Vec<String>,
    /// Folder for bench.md and bench.json [default: out/bench]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Measure batches in flight without a GPU too: five batches more
    #[arg(long)]
    pub in_flight: bool,
}

/// `assay batch`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  assay batch sample --index 2 -o second.batch
  assay batch show second.batch --json
  assay batch build --from mainnet-block.json -o mainnet.batch")]
pub struct BatchArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: BatchCommand,
}

/// Commands about batches.
#[derive(Debug, Subcommand)]
pub enum BatchCommand {
    /// Build a batch from a JSON description
    #[command(after_long_help = "\
The JSON is either a genesis with blocks of signed transactions, on the Assay chain's rules:

  { \"genesis\": { \"timestamp\": 1760000000, \"gas_limit\": 30000000,
                 \"alloc\": { \"0x7e5f...\": { \"balance\": \"1000000000000000000\" } } },
    \"blocks\": [ { \"timestamp\": 1760000012, \"transactions\": [\"0x02f8...\"] } ],
    \"first\": 1 }

(\"genesis\": \"sample\" is the one of the built-in batches; blocks before \"first\" are history), or the execution witness of
an Ethereum block as the stateless-block-verifier project stores it, which can be proved up to `compressed`.

Examples:
  assay batch build --from chain.json -o first.batch
  assay batch build --from mainnet-block.json -o mainnet.batch")]
    Build {
        /// The description
        #[arg(long, value_name = "JSON")]
        from: PathBuf,
        /// The batch file to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Validate a batch and show what is in it
    Show {
        /// A batch file, `sample`, or `sample:N`
        batch: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a built-in batch of real signed transactions
    Sample {
        /// Which one; each continues the one before it
        #[arg(long, default_value_t = 1)]
        index: u64,
        /// The batch file to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// `assay cache`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  assay cache list
  assay cache prune --days 30           finished stages older than 30 days; fold proofs are kept for the next batch
  assay cache prune --days 0 --all      everything but the Groth16 parameters")]
pub struct CacheArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// Commands about the cache.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List finished stages, newest first
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove finished stages
    Prune {
        /// Remove what is at least this old
        #[arg(long, default_value_t = 30)]
        days: u64,
        /// Also the fold proofs that following batches need
        #[arg(long)]
        all: bool,
    },
}

/// `assay coordinator`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Takes batches over an HTTP API, has workers prove them, checks everything they return, and settles the proofs on Bitcoin. It
runs until SIGTERM or ctrl-c, and may be killed at any moment: what it has answered is stored, and nothing is proved or settled
twice.

Without --redis the queue is in --dir and a worker runs in this process: one machine, nothing else to install. With --redis
(and --store) any number of `assay-worker`s join from any machines, and further coordinators with the same --redis, --out and
--cluster-secret stand by and take over.

Proofs count under one verifying key only: that of this machine's Groth16 parameters (`assay setup`; workers that make Groth16
proofs need a copy of the same), or the one that --vk-hash names.

The first start makes a file of tenants with one development key, prints the key, and does not keep it. What has no flag
(password and certificates of the Redis, options of S3) is set in assay.toml. docs/operations.md has the rest: sizing, TLS,
upgrades, backup, what each alert means.

Examples:
  assay setup && assay coordinator
  assay coordinator --redis redis://10.0.0.1:6379 --store s3://assay/artifacts --listen 0.0.0.0:8080
  assay coordinator --config /etc/assay/assay.toml

Exit codes: 0 stopped in good order, 1 it cannot go on: the message says why, 2 bad configuration, 130 a second signal.")]
pub struct CoordinatorArgs {
    /// Where the API listens [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Folder for what is this coordinator's own [default: out/coordinator]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The cluster's Redis: redis://host:port, rediss://, redis+sentinel://, redis+cluster:// [default: none, a queue in --dir]
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// Name of the deployment on that Redis [default: default]
    #[arg(long, value_name = "NAME")]
    pub deployment: Option<String>,
    /// Large artifacts, with --redis: file:///folder that all machines see, or s3://bucket/prefix
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// File of tenants and their keys [default: tenants.toml in --dir]
    #[arg(long, value_name = "FILE")]
    pub tenants: Option<PathBuf>,
    /// Secret that the coordinators of a deployment share [default: cluster.secret in --dir]
    #[arg(long, value_name = "FILE")]
    pub cluster_secret: Option<PathBuf>,
    /// The only verifying key that counts, as `assay verify` prints it [default: of this machine's parameters]
    #[arg(long, value_name = "HEX")]
    pub vk_hash: Option<String>,
    /// A worker in this process: auto (one without --redis), always, never [default: auto]
    #[arg(long, value_name = "WHEN")]
    pub worker: Option<String>,
    /// Folder for the chains of claims; the same for all coordinators of a deployment [default: out]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Settle through this node instead of an in-process regtest: http://user:password@host:port
    #[arg(long, value_name = "URL")]
    pub bitcoind: Option<String>,
    /// The node's cookie file, instead of user and password in the URL
    #[arg(long, value_name = "FILE")]
    pub bitcoind_cookie: Option<PathBuf>,
    /// Put proved batches into DIR/<chain> as well, for running `assay l1 operator`s to claim under the contract
    #[arg(long, value_name = "DIR")]
    pub l1_batches: Option<PathBuf>,
}

/// `assay stage`.
#[derive(Debug, Args)]
pub struct StageArgs {
    /// Keys and parameters.
    #[arg(long)]
    pub cache_dir: PathBuf,
    /// Files of the running proof.
    #[arg(long)]
    pub work_dir: PathBuf,
    /// Cores to use, 0 = all.
    #[arg(long, default_value_t = 0)]
    pub cores: usize,
    /// Memory to plan with, 0 = five sixths of the machine's.
    #[arg(long, default_value_t = 0)]
    pub memory_bytes: u64,
}
