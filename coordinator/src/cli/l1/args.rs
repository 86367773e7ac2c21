//! The arguments of `assay l1` and their help.

use std::path::PathBuf;

use assay_l1::sync::command::{InspectArgs, SyncArgs};
use assay_l1_parties::service::backup::BackupArgs;
use assay_l1_parties::service::fund::{FundArgs, KeysArgs};
use assay_l1_parties::service::operator::OperatorArgs;
use assay_l1_parties::service::vigilante::VigilanteArgs;
use assay_l1_parties::service::watch::WatchArgs;
use assay_l1_signer::cli::SignerArgs;
use assay_l1_signer::picture::GraphArgs;
use clap::{ArgGroup, Args, Subcommand};

/// `assay l1`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The contract, from keys to money back, is walked through in l1/README.md (\"The contract on a regtest node\").

Examples:
  assay l1 sync --from-genesis --claim out/1-2-0a1b2c3d/claim.json --regtest-dir out/chain/bitcoin-regtest --confirmations 1
  assay l1 sync --from-genesis --epochs epochs --policy policy.toml --peers peers.toml --bitcoind http://127.0.0.1:18443 --cookie .cookie
  assay l1 inspect --height 120 --tag 0011223344556677 --regtest-dir out/chain/bitcoin-regtest
  assay l1 watch --epochs epochs --policy policy.toml --peers peers.toml --bitcoind http://127.0.0.1:18443 --cookie .cookie
  assay l1 signer serve --dir signer --identity id --peers peers.toml --policy policy.toml
  assay l1 graph --proposal epochs/0000.proposal --policy policy.toml --svg epoch-0.svg")]
pub struct L1Args {
    /// What to do.
    #[command(subcommand)]
    pub command: L1Command,
}

/// Commands about what stands on Bitcoin.
#[derive(Debug, Subcommand)]
pub enum L1Command {
    /// Rebuild the rollup's state from Bitcoin alone
    Sync(Box<L1SyncArgs>),
    /// Print what a transaction or a block holds for a rollup
    Inspect(Box<InspectArgs>),
    /// Draw an epoch's contract: every transaction, what it spends and when
    Graph(GraphArgs),
    /// Sign an epoch's contract: the signers' process, and the operator's side
    Signer(SignerArgs),
    /// Operate a trunk: open epochs, publish batches, claim them, answer challenges
    Operator(Box<L1OperatorArgs>),
    /// Watch a trunk as a vigilante: execute, verify, challenge and disprove
    Vigilante(Box<L1VigilanteArgs>),
    /// Stand by as backup operator: watch, end a trunk that stopped, go on with it
    Backup(Box<L1BackupArgs>),
    /// Show live how a trunk's epochs and claims stand
    Watch(Box<L1WatchArgs>),
    /// Print a party's keys and addresses on a trunk
    Keys(L1KeysArgs),
    /// Send a party the coins that it needs; on regtest from coins mined for it
    Fund(Box<L1FundArgs>),
}

impl L1Command {
    /// True for what runs for long, or works step by step: it says what it does.
    pub(in crate::cli) fn is_talkative(&self) -> bool {
        match self {
            Self::Signer(_) | Self::Operator(_) | Self::Vigilante(_) | Self::Backup(_) | Self::Fund(_) => {
                true
            }
            Self::Sync(_) | Self::Inspect(_) | Self::Graph(_) | Self::Watch(_) | Self::Keys(_) => false,
        }
    }
}

/// `assay l1 operator`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Runs until SIGTERM or ctrl-c, and may be killed at any moment: what it knows is in --dir before it acts on it. A node that does not
answer is asked again.

It needs: an epoch that the attesters have signed (`assay l1 signer`), its proposal and signatures as 0000.proposal and
0000.signatures in --epochs (the next one's as 0001..., while it runs); coins (`assay l1 fund`; the addresses are in the first
lines of the log); and proved batches in --batches: `assay prove --l1-batches DIR`, `assay coordinator --l1-batches DIR`.

A secret, a directory and a wallet belong to one process. The secret signs everything: keep a copy of it and of --dir,
which holds the record of used one-time keys. Budget, highest fee rate and finality may be others at each start. If another operator has
taken over, its policy is one more --policy; without it, its epochs are left out, with a line in the log.

Examples:
  assay l1 operator --bitcoind http://127.0.0.1:18443 --cookie ~/.bitcoin/regtest/.cookie --dir operator --epochs epochs \\
    --policy policy.toml --peers peers.toml --secret operator.secret --batches batches --finality 3

Exit codes: 0 stopped in good order; 1 it cannot go on: the message says why, started again it goes on where it was; 2 bad input:
nothing was sent.")]
pub struct L1OperatorArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub service: OperatorArgs,
}

/// What executes and verifies for those who watch.
#[derive(Debug, Args)]
pub struct JudgeArgs {
    /// The verifying key: vk.json of any result folder. Its hash must be the one that the policy names; where policies name several,
    /// once for each
    #[arg(long, required = true, value_name = "FILE")]
    pub vk: Vec<PathBuf>,
    /// The rollup's genesis: sample, or a JSON file. Its state must be the one at which the policy's trunk begins
    #[arg(long, default_value = "sample", value_name = "GENESIS")]
    pub genesis: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub forced: ForcedArgs,
}

/// Which forced transactions the contract's claims have to have.
#[derive(Debug, Args)]
pub struct ForcedArgs {
    /// Blocks from a forced transaction's to the first claim that has to have it
    #[arg(long, default_value_t = 144, value_name = "BLOCKS")]
    pub forced_grace_blocks: u32,
    /// Blocks after these in which claims have to have it, if it can be executed; then it has lapsed
    #[arg(long, default_value_t = 2_016, value_name = "BLOCKS", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub forced_window_blocks: u32,
}

/// `assay l1 vigilante`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Looks into every claim: takes the batch's data and proof out of the blocks, executes the batch on the state before it, from genesis
on, and verifies the Groth16 proof. What is wrong it challenges, or disproves where the chain can judge; every fault is an ALARM
in the log. Nothing is asked of the operator. Executed batches are kept in --dir/judge.

Runs until SIGTERM or ctrl-c, and may be killed at any moment. It needs coins for fees and deposits
(`assay l1 fund --party vigilante`; the address is in the first lines of the log). If another operator has taken over, its policy is
one more --policy, and its verifying key, if that is another, one more --vk; without the policy its epochs are not watched, and the log
says so.

A proof that does not verify is challenged, and the operator has to answer; that an answer is wrong, nothing on the chain can tell
before there is a verifier in Script.

Examples:
  assay l1 vigilante --bitcoind http://127.0.0.1:18443 --cookie ~/.bitcoin/regtest/.cookie --dir vigilante --epochs epochs \\
    --policy policy.toml --peers peers.toml --secret vigilante.secret --vk out/1-2-0a1b2c3d/vk.json --finality 3

Exit codes: 0 stopped in good order; 1 it cannot go on: the message says why, started again it goes on where it was; 2 bad input:
nothing was sent.")]
pub struct L1VigilanteArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub service: VigilanteArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub judge: JudgeArgs,
}

/// `assay l1 backup`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A vigilante that also ends a trunk whose operator has stopped (ClaimTimeout), finishes what was left open, and goes on
as operator. When it may, --dir/watch/handover.json says where the trunk goes on; have the attesters sign an epoch for
that, and put its files into --epochs as the next number: the process finds them and operates.

--secret is the watch's, --operator-secret that of the operator that takes over; both wallets need coins. Give the policy of the
operator before and the one under which this one operates: --policy twice.

Examples:
  assay l1 backup --bitcoind http://127.0.0.1:18443 --cookie ~/.bitcoin/regtest/.cookie --dir backup --epochs epochs \\
    --policy policy.toml --policy backup-policy.toml --peers peers.toml --secret watch.secret --operator-secret backup.secret \\
    --batches batches --vk out/1-2-0a1b2c3d/vk.json

Exit codes: 0 stopped in good order; 1 it cannot go on: the message says why, started again it goes on where it was; 2 bad input:
nothing was sent.")]
pub struct L1BackupArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub service: BackupArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub judge: JudgeArgs,
}

/// `assay l1 watch`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Reads blocks from the node, and the signed epochs from --epochs; sends nothing, writes no file. On a terminal it is a
page that is kept up to date; elsewhere a line for each change, with the height at which it was seen; with --json a line
with everything for each change. Numbers of blocks are those that have to pass before something can be mined in the next
one.

Examples:
  assay l1 watch --bitcoind http://127.0.0.1:18443 --cookie ~/.bitcoin/regtest/.cookie --epochs epochs --policy policy.toml \\
    --peers peers.toml --wallet fees=bcrt1p... --wallet data=bcrt1p...
  assay l1 watch ... --once
  assay l1 watch ... --json | jq .alarms

Exit codes: 0 stopped by SIGTERM or ctrl-c, or --once; 1 the node failed; 2 bad input.")]
pub struct L1WatchArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub watch: WatchArgs,
}

/// `assay l1 keys`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The first line is the policy's operator_key; then come the addresses of the three wallets that a secret has on a trunk, and the tag
of the trunk's envelopes, for `assay l1 inspect`. The trunk id is 32 random bytes that the parties agree on, such as
`openssl rand -hex 32` gives.

Examples:
  assay l1 keys --secret operator.secret --trunk-id 0011...ff
  assay l1 keys --secret vigilante.secret --trunk-id 0011...ff --network signet

Exit codes: 0 printed; 2 bad input.")]
pub struct L1KeysArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub keys: KeysArgs,
}

/// `assay l1 fund`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Pays in one transaction what a party needs: an operator's coin that opens an epoch (exactly what the policy asks for),
coins for data, and coins for fees and deposits. Prints the epoch's coin as txid:index, which `assay l1 signer` wants as
--funding. Each call pays anew.

The money comes from a purse, a secret of its own. On regtest it mines what it lacks; on other test networks a purse
that is short says how much is missing at which address. The main network is refused.

Examples:
  COIN=$(assay l1 fund --bitcoind http://127.0.0.1:18443 --cookie .cookie --policy policy.toml \\
    --secret operator.secret --purse purse)
  assay l1 fund ... --secret operator.secret --purse purse --epoch 1 --coins 0 --data-sat 0      the next epoch's coin alone
  assay l1 fund --bitcoind http://127.0.0.1:18443 --cookie .cookie --policy policy.toml --secret vigilante.secret --purse purse \\
    --party vigilante

Exit codes: 0 paid; 1 the purse is short or the node failed; 2 bad input: nothing was sent.")]
pub struct L1FundArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub fund: FundArgs,
}

/// `assay l1 sync`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("trunk").required(true))]
#[command(after_long_help = "\
Reads the node's blocks, takes every batch that the claims commit to out of them, executes it on the state before it, and compares
the outcome with what the claim says. Nothing else is asked: not the operator, not a prover. Nothing is sent, and it takes neither
secret nor coins. What it has to be told is where to begin, and the rollup's genesis: `sample`, or the JSON that `assay batch build`
takes.

A trunk of `assay prove` or `assay coordinator`: --claim or --terms, the terms of the first epoch (any claim.json of that epoch has
them, and Bitcoin commits to them). A later run goes on where this one ended; killed at any moment, it loses nothing.

The contract (`assay l1 operator`): --epochs, --policy and --peers, as the parties have them; every signature in the epochs' files is
checked. Every claim is listed with what has become of it; those that count are looked into as a vigilante does, those that were
slashed or come after are not. With --vk every proof is verified; without it one has to be there, and is not looked at. What is wrong
or withheld is a FINDING, and nothing is executed after a claim whose state nobody can know. An epoch that opened and is not in
--epochs is a FINDING, too. Executed batches are kept in --dir/judge; every run reads all blocks from --start-height on (at most
that of the first batch's data), so reorganisations in between are followed, and a kill costs time only.

Examples:
  assay l1 sync --from-genesis --claim out/1-2-0a1b2c3d/claim.json --regtest-dir out/chain/bitcoin-regtest --confirmations 1
  assay l1 sync --claim claim.json --bitcoind http://127.0.0.1:8332 --cookie ~/.bitcoin/.cookie --dir reader
  assay l1 sync --from-genesis --epochs epochs --policy policy.toml --peers peers.toml --vk out/1-2-0a1b2c3d/vk.json \
    --bitcoind http://127.0.0.1:18443 --cookie ~/.bitcoin/regtest/.cookie --start-height 150 --dir reader

Exit codes: 0 everything that was found executed, and is right; 1 a claim could not be executed or is wrong, or the node failed; 2 bad
input.")]
pub struct L1SyncArgs {
    /// A claim.json of the rollup's first epoch, for its terms
    #[arg(long, group = "trunk", value_name = "FILE")]
    pub claim: Option<PathBuf>,
    /// The terms of the first epoch themselves, hexadecimal
    #[arg(long, group = "trunk", value_name = "HEX")]
    pub terms: Option<String>,
    /// The contract's epochs: a directory with 0000.proposal and 0000.signatures, and so on
    #[arg(
        long,
        group = "trunk",
        requires_all = ["policy", "peers"],
        conflicts_with = "root",
        value_name = "DIR"
    )]
    pub epochs: Option<PathBuf>,
    /// With --epochs: policy file; more than one where another operator has taken over
    #[arg(long, conflicts_with_all = ["claim", "terms"], value_name = "FILE")]
    pub policy: Vec<PathBuf>,
    /// With --epochs: peers file, the attesters' identities
    #[arg(long, conflicts_with_all = ["claim", "terms"], value_name = "FILE")]
    pub peers: Option<PathBuf>,
    /// With --epochs: the verifying key, vk.json of any result folder; its hash must be the one that the policy names;
    /// where policies name several, once for each
    #[arg(long, conflicts_with_all = ["claim", "terms"], value_name = "FILE")]
    pub vk: Vec<PathBuf>,
    /// The rollup's genesis: sample, or a JSON file
    #[arg(long, default_value = "sample", value_name = "GENESIS")]
    pub genesis: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub forced: ForcedArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub sync: SyncArgs,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}
