//! The commands: `assay-l1-signer ...`, and as a library what `assay l1 signer ...` runs.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use assay_l1::graph::contract::build::{funding_value, Graph, Surroundings};
use assay_l1::graph::contract::keys::EpochKeys;
use assay_l1::graph::contract::spec::ContractSpec;
use assay_l1::graph::transactions::wallet_script;
use assay_l1::output::Output;
use assay_l1::{KeyError, KeyRole, OperatorSecret, StoreError};
use bitcoin::{OutPoint, TxOut};
use clap::{Args, Subcommand};
use tokio::net::TcpListener;

use crate::collect::{collect, keys, CollectFailure, Dialer};
use crate::collector::Plan;
use crate::handover::{hand_over, HandOverArgs, PreviousArgs};
use crate::identity::Identity;
use crate::limits::PROPOSAL_BYTES_MAX;
use crate::machine::SignerMachine;
use crate::musig::{Attesters, MusigError};
use crate::peers::Peers;
use crate::policy::{Aggregates, Policy, PolicyError};
use crate::review::{member_keys, ContractReviewer, Reviewer};
use crate::serve::{serve, Engine, ServeError};
use crate::statement::Statement;
use crate::store::{file, forget, inspect, Store};
use crate::wire::proposal::{encode_end, graph_id, GraphProposal};

/// An error for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// True if a command was given a file, a path or an argument that it cannot use. Otherwise something has failed: a signer, the
/// network, the disk, the output.
#[must_use]
pub fn is_bad_input(failure: &Failure) -> bool {
    if let Some(error) = failure.downcast_ref::<StoreError>() {
        is_bad_file(error)
    } else if let Some(error) = failure.downcast_ref::<PolicyError>() {
        !matches!(error, PolicyError::File(error) if !is_bad_file(error))
    } else if let Some(error) = failure.downcast_ref::<KeyError>() {
        !matches!(error, KeyError::Storage { source, .. } if !is_bad_path(source))
    } else if let Some(error) = failure.downcast_ref::<CollectFailure>() {
        matches!(error, CollectFailure::Store(error) if is_bad_file(error))
    } else {
        !(failure.is::<ServeError>() || failure.is::<MusigError>() || failure.is::<std::io::Error>())
    }
}

fn is_bad_file(error: &StoreError) -> bool {
    match error {
        StoreError::Storage { source, .. } => is_bad_path(source),
        _ => true,
    }
}

fn is_bad_path(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    let kinds = [
        ErrorKind::NotFound,
        ErrorKind::PermissionDenied,
        // A file where a directory should be.
        ErrorKind::AlreadyExists,
        ErrorKind::NotADirectory,
        ErrorKind::IsADirectory,
        ErrorKind::InvalidInput,
    ];
    kinds.contains(&error.kind())
}

/// Signing of the contract's graph.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A signer is one party's process; the operator has the signers make keys for an epoch (spec), writes its graph down (propose) and
collects their signatures (collect). The next epoch's graph is signed with the last use of this one's key, which is then deleted.
`assay-l1-signer` has the same commands.

Examples:
  assay l1 signer identity --identity id
  assay l1 signer serve --dir signer --identity id --peers peers.toml --policy policy.toml --listen 10.0.0.2:7341
  assay l1 signer collect --identity collector.id --peers peers.toml --policy policy.toml \\
    --proposal epochs/0000.proposal --out epochs/0000.signatures

Exit codes: 0 done; 1 it failed: a signer, the network or the disk, and the message says which; 2 bad input or usage. `serve` runs
until it is killed.")]
pub struct SignerArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the public key of an identity file, which is made if there is none.
    #[command(after_long_help = "\
The key goes into everybody's peers file: a signer's under [[signer]], that of the operator's collector as `operator`.

Examples:
  assay l1 signer identity --identity signer/id

Exit codes: 0 printed; 1 the disk failed; 2 it is no identity file, or its folder cannot be used.")]
    Identity {
        /// The file, mode 0600.
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
    },
    /// Be a signer: answer the operator until killed.
    #[command(after_long_help = "\
Answers nobody but the operator of the peers file, and signs what fits the policy file, one graph for each epoch. It may be killed at
any moment and started again: all that is lost are nonces, and the collector begins a new session.

Examples:
  assay l1 signer serve --dir signer --identity id --peers peers.toml --policy policy.toml --listen 10.0.0.2:7341

Exit codes: it runs until it is killed; 1 the directory failed or is in use, or it cannot listen; 2 bad input.")]
    Serve(ServeArgs),
    /// Operator: have the signers make their keys for an epoch and print the spec's id, which the epoch before announces.
    #[command(after_long_help = "\
A spec is announced an epoch ahead: what this prints is --announce of `propose` for the epoch before.

Examples:
  assay l1 signer spec --identity collector.id --peers peers.toml --policy policy.toml --secret operator.secret --epoch 1 --funding TXID:0

Exit codes: 0 printed; 1 a signer was away for --patience-seconds, or refused; 2 bad input.")]
    Spec(EpochArgs),
    /// Operator: build an epoch's graph and write the proposal for the signers.
    #[command(after_long_help = "\
Examples:
  assay l1 signer propose --identity collector.id --peers peers.toml --policy policy.toml --secret operator.secret --epoch 0 \\
    --funding TXID:0 --announce ID --out epochs/0000.proposal
  assay l1 signer propose ... --epoch 1 --previous epochs/0000.proposal ...                            the next epoch
  assay l1 signer propose ... --epoch 1 --previous epochs/0000.proposal --handover handover.json ...   the one after a timeout

Exit codes: 0 written; 1 a signer was away for --patience-seconds, or refused; 2 bad input: nothing was written.")]
    Propose(ProposeArgs),
    /// Operator: have the signers sign a proposal; goes on where a run before was stopped.
    #[command(after_long_help = "\
Signatures are verified one by one, and kept beside --out until all are there. Proposal and signatures are what all parties are given in
--epochs, as 0000.proposal and 0000.signatures, and so on.

Examples:
  assay l1 signer collect --identity collector.id --peers peers.toml --policy policy.toml \\
    --proposal epochs/0000.proposal --out epochs/0000.signatures

Exit codes: 0 all signatures are in --out; 1 a signer was away for --patience-seconds, refused, or signed wrongly: the message names
it, and the same command again goes on; 2 bad input.")]
    Collect(CollectArgs),
    /// Consent to a hand-over after a timeout: move the ended epoch's recovery key into a directory that signs what goes on.
    #[command(after_long_help = "\
For ever: of an ended epoch one hand-over is possible, into one directory. Look at the chain first, with a node of your own:
compare handover.json with that of an `assay l1 backup` of your own. Then serve --new-dir under the policy of the operator that
goes on.

Examples:
  assay l1 signer hand-over --dir signer --new-dir signer-next --policy policy.toml --previous epochs/0000.proposal \\
    --handover handover.json

Exit codes: 0 the key is in --new-dir; 1 the disk failed, or the directory is in use: the same command again goes on; 2 bad input, or
refused: nothing was moved.")]
    HandOver(HandOverArgs),
    /// Print of which epochs a signer's directory has a signing key, and which are locked or finished; the signer must not be running.
    #[command(after_long_help = "\
Examples:
  assay l1 signer inspect --dir signer

Exit codes: 0 printed; 1 the directory is in use; 2 it cannot be read.")]
    Inspect {
        /// The directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Delete the keys of an epoch that is over, or will never be finished; the signer must not be running.
    #[command(after_long_help = "\
For ever: nobody can sign anything of that epoch any more, nor, after a timeout in it, an epoch that goes on.

Examples:
  assay l1 signer forget --dir signer --epoch 3

Exit codes: 0 no key is there any more; 1 the directory is in use, or the disk failed; 2 it cannot be read.")]
    Forget {
        /// The directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The epoch.
        #[arg(long)]
        epoch: u32,
    },
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The signer's directory; on memory or an encrypted volume, for the keys deleted there.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Identity file; made if there is none.
    #[arg(long, value_name = "FILE")]
    pub identity: PathBuf,
    /// Peers file.
    #[arg(long, value_name = "FILE")]
    pub peers: PathBuf,
    /// Policy file.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Address to listen on; port 0 takes a free one. The address is the first line printed.
    #[arg(long, default_value = "127.0.0.1:7341", value_name = "ADDRESS")]
    pub listen: SocketAddr,
}

/// What all commands of the operator's side need.
#[derive(Debug, Args)]
pub struct CollectorArgs {
    /// Identity file of the operator's collector.
    #[arg(long, value_name = "FILE")]
    pub identity: PathBuf,
    /// Peers file.
    #[arg(long, value_name = "FILE")]
    pub peers: PathBuf,
    /// Policy file.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Seconds that a signer may be away before the command gives up.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub patience_seconds: u64,
}

/// An epoch and what is made for it.
#[derive(Debug, Args)]
pub struct EpochArgs {
    /// Where and who.
    #[command(flatten)]
    pub operator: CollectorArgs,
    /// The operator's secret file: one-time keys come from it.
    #[arg(long, value_name = "FILE")]
    pub secret: PathBuf,
    /// The epoch.
    #[arg(long)]
    pub epoch: u32,
    /// The operator's coin that opens the epoch, txid:index.
    #[arg(long, value_name = "TXID:INDEX")]
    pub funding: String,
}

/// Options of `propose`.
#[derive(Debug, Args)]
pub struct ProposeArgs {
    /// The epoch.
    #[command(flatten)]
    pub epoch: EpochArgs,
    /// Id of the next epoch's spec, 64 hexadecimal digits.
    #[arg(long, value_name = "ID")]
    pub announce: String,
    /// The epoch before.
    #[command(flatten)]
    pub previous: PreviousArgs,
    /// File for the proposal.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Options of `collect`.
#[derive(Debug, Args)]
pub struct CollectArgs {
    /// Where and who.
    #[command(flatten)]
    pub operator: CollectorArgs,
    /// Proposal file.
    #[arg(long, value_name = "FILE")]
    pub proposal: PathBuf,
    /// File for the signatures.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Runs a command; its result goes to standard output, its progress to the log.
///
/// # Errors
/// What stopped it, for people.
pub fn run(args: SignerArgs) -> Result<(), Failure> {
    match args.command {
        Command::Identity { identity } => say(&Identity::load_or_create(&identity)?.id().to_string()),
        Command::Serve(args) => runtime()?.block_on(run_serve(args)),
        Command::Spec(args) => runtime()?.block_on(run_spec(&args)),
        Command::Propose(args) => runtime()?.block_on(run_propose(&args)),
        Command::Collect(args) => runtime()?.block_on(run_collect(&args)),
        Command::HandOver(args) => say(&hand_over(&args)?),
        Command::Inspect { dir } => run_inspect(&dir),
        Command::Forget { dir, epoch } => {
            let was = forget(&dir, epoch)?;
            say(if was { "the key is deleted" } else { "there was no key" })
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, std::io::Error> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = Output(std::io::stdout().lock());
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

async fn run_serve(args: ServeArgs) -> Result<(), Failure> {
    let identity = Identity::load_or_create(&args.identity)?;
    let peers = Peers::load(&args.peers)?;
    let policy = Policy::load(&args.policy)?;
    if !peers.ids().any(|id| id == identity.id()) {
        return Err(format!("the peers file does not list this signer, {}", identity.id()).into());
    }
    let (store, stored) = Store::open(&args.dir)?;
    let trunk_id = policy.trunk_id;
    let verifier = policy.verifier.leaves();
    let reviewer = ContractReviewer::new(policy, peers.ids(), verifier);
    let machine = SignerMachine::load(identity.clone(), peers.ids(), trunk_id, reviewer, stored);
    let engine = Engine::start(machine, store)?;
    let listener = TcpListener::bind(args.listen).await?;
    say(&listener.local_addr()?.to_string())?;
    Ok(serve(listener, identity, peers.operator, engine).await?)
}

/// The operator's files, loaded.
struct Operator {
    dialer: Dialer,
    policy: Policy,
}

impl Operator {
    fn load(args: &CollectorArgs) -> Result<Self, Failure> {
        let identity = Identity::load_or_create(&args.identity)?;
        let peers = Peers::load(&args.peers)?;
        let policy = Policy::load(&args.policy)?;
        if peers.operator != identity.id() {
            return Err(format!("the peers file has another operator than {}", identity.id()).into());
        }
        let patience = Duration::from_secs(args.patience_seconds);
        Ok(Self { dialer: Dialer { identity, peers, patience }, policy })
    }
}

/// An epoch's spec with what it was made of.
struct Drafted {
    spec: ContractSpec,
    keys: EpochKeys,
    attesters: Vec<Statement>,
}

async fn draft(operator: &Operator, args: &EpochArgs) -> Result<Drafted, Failure> {
    let policy = &operator.policy;
    let funding = OutPoint::from_str(&args.funding)?;
    let secret = OperatorSecret::load(&args.secret)?;
    // An epoch number is signed once, for ever: never over one-time keys of another secret than the policy's operator's.
    let operator_key = secret.public_key(&policy.trunk_id, KeyRole::Operator);
    if operator_key != policy.operator_key {
        let (path, expected) = (args.secret.display(), policy.operator_key);
        return Err(
            format!("operator key of {path}: expected the policy's, {expected}, got {operator_key}").into()
        );
    }
    let attesters = keys(&operator.dialer, policy.trunk_id, args.epoch).await?;
    let signers = operator.dialer.peers.ids().collect();
    let members = member_keys(&attesters, &signers, (&policy.trunk_id, args.epoch))?;
    let aggregates = Aggregates {
        epoch: Attesters::new(members.epoch.into_values())?.key(),
        recovery: Attesters::new(members.recovery.into_values())?.key(),
    };
    let keys = EpochKeys::derive(&secret, &policy.trunk_id, (args.epoch, policy.claims), policy.layout());
    let spec = policy.spec_for(args.epoch, &keys, aggregates, funding);
    spec.validate()?;
    Ok(Drafted { spec, keys, attesters })
}

async fn run_spec(args: &EpochArgs) -> Result<(), Failure> {
    let drafted = draft(&Operator::load(&args.operator)?, args).await?;
    say(&hex::encode(drafted.spec.id()))
}

async fn run_propose(args: &ProposeArgs) -> Result<(), Failure> {
    let operator = Operator::load(&args.epoch.operator)?;
    let mut announce = [0; 32];
    hex::decode_to_slice(&args.announce, &mut announce)?;
    let before = args.previous.load(&operator.policy)?;
    let (previous, before) = before.map(|before| (before.end, before.attesters)).unzip();
    let before = before.unwrap_or_default();
    let drafted = draft(&operator, &args.epoch).await?;
    let value = funding_value(&drafted.spec, previous.as_ref());
    let coin = TxOut { value, script_pubkey: wallet_script(drafted.spec.terms.operator_key) };
    let verifier = operator.policy.verifier.leaves();
    let around = Surroundings {
        keys: &drafted.keys,
        verifier: verifier.as_ref(),
        coin: &coin,
        previous: previous.as_ref(),
        announce,
    };
    let graph = Graph::build(&drafted.spec, around)?.proposal(&drafted.keys);
    let Drafted { spec, attesters, .. } = drafted;
    let proposal = GraphProposal { spec, attesters, previous, before, graph };
    let bytes = proposal.encode()?;
    file::write(&args.out, &bytes)?;
    say(&hex::encode(graph_id(&bytes)))
}

/// Reads a proposal's file.
pub(crate) fn read_proposal(path: &Path) -> Result<(Vec<u8>, GraphProposal), Failure> {
    let bytes = file::read(path, PROPOSAL_BYTES_MAX as u64)?;
    let bytes = bytes.ok_or_else(|| format!("there is no file {}", path.display()))?;
    let proposal = GraphProposal::decode(&bytes)?;
    Ok((bytes, proposal))
}

/// A proposal's graph, built again.
pub(crate) fn graph_of(policy: &Policy, proposal: &GraphProposal) -> Result<Graph, Failure> {
    let value = funding_value(&proposal.spec, proposal.previous.as_ref());
    let coin = TxOut { value, script_pubkey: wallet_script(proposal.spec.terms.operator_key) };
    let verifier = policy.verifier.leaves();
    let around = Surroundings {
        keys: &proposal.graph.keys,
        verifier: verifier.as_ref(),
        coin: &coin,
        previous: proposal.previous.as_ref(),
        announce: proposal.graph.announce,
    };
    Ok(Graph::build(&proposal.spec, around)?)
}

async fn run_collect(args: &CollectArgs) -> Result<(), Failure> {
    let Operator { dialer, policy } = Operator::load(&args.operator)?;
    let (bytes, proposal) = read_proposal(&args.proposal)?;
    let trunk_id = policy.trunk_id;
    let end = proposal.previous.as_ref();
    let ends: BTreeMap<u32, Vec<u8>> = end.map(|end| (end.epoch, encode_end(end))).into_iter().collect();
    let verifier = policy.verifier.leaves();
    let reviewed = ContractReviewer::new(policy, dialer.peers.ids(), verifier).review(&bytes, &ends)?;
    let plan = Plan { trunk_id, graph: graph_id(&bytes), proposal: bytes, reviewed };
    let done = collect(dialer, plan, &args.out).await?;
    let rate = done.made as f64 / done.elapsed.as_secs_f64().max(1e-9);
    say(&format!(
        "{} signatures, {} made in {:.1} s ({rate:.0} per second)",
        done.signatures,
        done.made,
        done.elapsed.as_secs_f64()
    ))
}

fn run_inspect(dir: &Path) -> Result<(), Failure> {
    let (keys, records) = inspect(dir)?;
    for epoch in keys {
        say(&format!("epoch {epoch}: has a key"))?;
    }
    for (epoch, record) in records {
        let state = if record.finished { "finished" } else { "locked" };
        say(&format!("epoch {epoch}: {state}, graph {}", hex::encode(record.graph)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(command: Command) -> Failure {
        run(SignerArgs { command }).unwrap_err()
    }

    #[test]
    fn what_cannot_be_used_is_bad_input() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("junk"), "junk").unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        let serve = |identity: &str, peers: &str, policy: &str| {
            let listen = SocketAddr::from(([127, 0, 0, 1], 0));
            let (peers, policy, identity) = (path(peers), path(policy), path(identity));
            Command::Serve(ServeArgs { dir: path("signer"), identity, peers, policy, listen })
        };
        let signer = Identity::load_or_create(&path("id")).unwrap().id();
        let peers = format!(
            "operator = \"{}\"\n[[signer]]\nname = \"a\"\nkey = \"{signer}\"\naddress = \"a:1\"\n",
            Identity::load_or_create(&path("other")).unwrap().id()
        );
        std::fs::write(path("peers"), peers).unwrap();
        let commands = [
            Command::Identity { identity: path("junk") },
            Command::Inspect { dir: path("junk") },
            Command::Forget { dir: path("junk/signer"), epoch: 0 },
            serve("junk", "peers", "junk"),
            serve("id", "missing", "junk"),
            serve("id", "folder", "junk"),
            serve("id", "peers", "missing"),
            serve("id", "peers", "junk"),
        ];
        for command in commands {
            let name = format!("{command:?}");
            let failure = failure(command);
            assert!(is_bad_input(&failure), "{name}: {failure}");
        }
        let damaged = StoreError::Format { path: path("out"), detail: "another graph's".into() };
        assert!(is_bad_input(&CollectFailure::from(damaged).into()));
        assert!(is_bad_input(&"the peers file does not list this signer".into()));
    }

    #[test]
    fn what_fails_on_the_way_is_not_bad_input() {
        let dir = tempfile::tempdir().unwrap();
        let _held = Store::open(dir.path()).unwrap();
        let held = failure(Command::Inspect { dir: dir.path().to_owned() });
        assert!(!is_bad_input(&held), "{held}");
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let path = dir.path().to_owned();
        let away = CollectFailure::Unreachable { signer: "a".into(), reason: "refused".into() };
        let failures: [Failure; 5] = [
            StoreError::Storage { path: path.clone(), source: full() }.into(),
            KeyError::Storage { path, source: full() }.into(),
            ServeError::Listen(full()).into(),
            away.into(),
            full().into(),
        ];
        for failure in failures {
            assert!(!is_bad_input(&failure), "{failure}");
        }
    }
}
