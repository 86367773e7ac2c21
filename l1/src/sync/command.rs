//! The commands `assay l1 sync` and `assay l1 inspect`. The command line's owner calls [`run_sync`] with what executes batches.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use assay_l1_light::message::{scan_transaction as scan_messages, Action, MessageError, Rules};
use assay_l1_light::transaction::Transaction as LightTransaction;
use bitcoin::consensus::encode::serialize;
use bitcoin::{BlockHash, Transaction, Txid};
use clap::{ArgGroup, Args};

use super::claim::mark;
use super::{rebuild, Execute, Report, Step, SyncConfig, SyncError, TrunkReader};
use crate::backend::{BackendError, BackendSpec, BitcoinBackend, TxState};
use crate::envelope::message::Message;
use crate::envelope::pack::{unpack, Aggregate};
use crate::envelope::scan::scan_transaction;
use crate::envelope::{tag, Kind, Tag};
use crate::error::Class;
use crate::graph::terms::{EpochTerms, TermsError};

/// Which node.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("node").required(true))]
pub struct NodeArgs {
    /// Directory of an in-process regtest chain
    #[arg(long, group = "node", value_name = "DIR")]
    pub regtest_dir: Option<PathBuf>,
    /// A bitcoind: http://host:port, or http://user:password@host:port
    #[arg(long, group = "node", value_name = "URL")]
    pub bitcoind: Option<String>,
    /// The bitcoind's cookie file
    #[arg(long, requires = "bitcoind", value_name = "FILE")]
    pub cookie: Option<PathBuf>,
}

impl NodeArgs {
    /// Opens the back end.
    ///
    /// # Errors
    /// `Argument` if none is named; `Backend`.
    pub fn open(&self) -> Result<Arc<dyn BitcoinBackend>, CommandError> {
        let spec = match (&self.regtest_dir, &self.bitcoind) {
            (Some(dir), None) => BackendSpec::InProcess { dir: dir.clone() },
            (None, Some(url)) => BackendSpec::bitcoind(url, self.cookie.as_deref())?,
            _ => {
                return Err(CommandError::Argument {
                    name: "--regtest-dir or --bitcoind",
                    detail: "one is needed",
                })
            }
        };
        Ok(spec.open()?)
    }
}

/// `assay l1 sync`: what is read, and where that is kept. The trunk's terms are told beside it.
#[derive(Debug, Clone, Args)]
pub struct SyncArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub node: NodeArgs,
    /// The transaction that opened the first epoch, if known
    #[arg(long, value_name = "TXID")]
    pub root: Option<Txid>,
    /// Folder of what was read
    #[arg(long, default_value = "out/l1-sync", value_name = "DIR")]
    pub dir: PathBuf,
    /// Forget what was read before and begin again
    #[arg(long)]
    pub from_genesis: bool,
    /// First block to read
    #[arg(long, default_value_t = 0, value_name = "HEIGHT")]
    pub start_height: u32,
    /// Confirmations before a block is read
    #[arg(long, default_value_t = 6, value_name = "BLOCKS")]
    pub confirmations: u32,
}

/// `assay l1 inspect`: prints what a transaction or a block holds for us.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("what").required(true), group = ArgGroup::new("trunk").required(true))]
#[command(after_long_help = "\
A line for each thing of the trunk: batches, proofs, terms, forced transactions, deposits; what is malformed is said to be.
The trunk is told by its id, which the policy has, by the terms of any of its epochs, which claim.json has, or by the tag of its
envelopes, which `assay l1 keys` prints.

Examples:
  assay l1 inspect --height 120 --tag 0011223344556677 --regtest-dir out/chain/bitcoin-regtest
  assay l1 inspect --height 120 --trunk-id 0011...ff --bitcoind http://127.0.0.1:18443 --cookie ~/.bitcoin/regtest/.cookie
  assay l1 inspect --txid TXID --terms HEX --bitcoind http://127.0.0.1:8332 --cookie ~/.bitcoin/.cookie

Exit codes: 0 printed; 1 the node failed, or knows no such block or transaction; 2 bad input.")]
pub struct InspectArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub node: NodeArgs,
    /// Terms of any epoch of the trunk: 426 hexadecimal digits
    #[arg(long, value_name = "HEX", group = "trunk")]
    pub terms: Option<String>,
    /// Tag of the trunk's envelopes: 16 hexadecimal digits
    #[arg(long, value_name = "HEX", group = "trunk")]
    pub tag: Option<String>,
    /// The trunk: 64 hexadecimal digits, as in the policy
    #[arg(long, value_name = "HEX", group = "trunk")]
    pub trunk_id: Option<String>,
    /// A transaction
    #[arg(long, group = "what", value_name = "TXID")]
    pub txid: Option<Txid>,
    /// A block by height
    #[arg(long, group = "what", value_name = "HEIGHT")]
    pub height: Option<u32>,
    /// A block by hash
    #[arg(long, group = "what", value_name = "HASH")]
    pub block: Option<BlockHash>,
    /// First block in which the transaction is looked for
    #[arg(long, default_value_t = 0, value_name = "HEIGHT")]
    pub since: u32,
    /// Script of the peg-in output, hexadecimal
    #[arg(long, value_name = "HEX")]
    pub peg_in: Option<String>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// An argument is wrong.
    #[error("{name}: {detail}")]
    Argument {
        /// Which.
        name: &'static str,
        /// What is wrong.
        detail: &'static str,
    },
    /// The terms do not decode.
    #[error("--terms: {0}")]
    Terms(#[from] TermsError),
    /// The chain.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The reader.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    /// The node does not know it.
    #[error("the node has no such {what}")]
    Unknown {
        /// What.
        what: &'static str,
    },
}

impl CommandError {
    /// Whether the command was asked for something that makes no sense; nothing was written then.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        matches!(self, Self::Argument { .. } | Self::Terms(_))
    }

    /// What a caller may do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Backend(error) => error.class(),
            Self::Sync(error) => error.class(),
            _ => Class::Permanent,
        }
    }
}

fn terms(text: &str) -> Result<EpochTerms, CommandError> {
    let bytes = hex::decode(text.trim());
    let bytes = bytes.map_err(|_| CommandError::Argument { name: "--terms", detail: "not hexadecimal" })?;
    Ok(EpochTerms::decode(&bytes)?)
}

/// Reads the trunk and executes its batches, one line per step on `out`. `first`: the terms of its first epoch, hexadecimal. The
/// reader's state is in `dir` itself.
///
/// # Errors
/// Any of [`CommandError`]. Findings are not errors: they are in the report.
pub fn run_sync(
    args: &SyncArgs,
    first: &str,
    execute: &mut dyn Execute,
    out: &mut dyn Write,
) -> Result<Report, CommandError> {
    let config = SyncConfig {
        dir: args.dir.clone(),
        terms: terms(first)?,
        root: args.root,
        start_height: args.start_height,
        confirmations: args.confirmations,
    };
    let backend = args.node.open()?;
    let mut sync = TrunkReader::open(config)?;
    if args.from_genesis {
        sync.start_over()?;
    }
    let mut written = Ok(());
    let report = rebuild(&mut sync, backend.as_ref(), execute, &mut |step| {
        if written.is_ok() {
            written = writeln!(out, "{}", line(step));
        }
    })?;
    written?;
    writeln!(out, "{report}")?;
    Ok(report)
}

fn line(step: &Step) -> String {
    match step {
        Step::Epoch(epoch) => {
            format!("epoch {} opened by {} at height {}", epoch.terms.epoch, epoch.txid, epoch.height)
        }
        Step::Finding(finding) => format!("FINDING {finding}"),
        Step::Claim(claim) => {
            let size = |data: &Option<Vec<u8>>| {
                data.as_ref().map_or_else(|| "missing".to_owned(), |data| format!("{} bytes", data.len()))
            };
            format!(
                "claim {}.{} in {} at height {}: new state {}, batch {}, proof {}",
                claim.epoch,
                claim.claim,
                claim.txid,
                claim.height,
                hex::encode(claim.values.new_commitment),
                size(&claim.batch),
                size(&claim.proof)
            )
        }
    }
}

/// Prints what a transaction, or every transaction of a block, holds for the trunk.
///
/// # Errors
/// Any of [`CommandError`].
pub fn run_inspect(args: &InspectArgs, out: &mut dyn Write) -> Result<(), CommandError> {
    let bad = |name, detail| CommandError::Argument { name, detail };
    let tag = tag_of(args)?;
    let peg_in = args.peg_in.as_deref().map(hex::decode).transpose();
    let peg_in = peg_in.map_err(|_| bad("--peg-in", "not hexadecimal"))?;
    let rules = Rules { tag, peg_in };
    let backend = args.node.open()?;
    if let Some(txid) = &args.txid {
        let record = backend.transaction(txid, args.since)?;
        let record = record.ok_or(CommandError::Unknown { what: "transaction" })?;
        let height = match record.state {
            TxState::Confirmed { height, .. } => Some(height),
            TxState::Mempool => None,
        };
        return inspect_transaction(&record.tx, (height.unwrap_or(0), 0), &rules, true, out);
    }
    let hash = match (args.height, args.block) {
        (Some(height), _) => backend.block_hash(height)?,
        (None, Some(hash)) => hash,
        (None, None) => return Err(bad("--txid, --height or --block", "one is needed")),
    };
    let block = backend.block(&hash)?;
    writeln!(out, "block {hash}: {} transactions", block.txdata.len())?;
    for (index, tx) in block.txdata.iter().enumerate().skip(1) {
        inspect_transaction(tx, (args.height.unwrap_or(0), index as u32), &rules, false, out)?;
    }
    Ok(())
}

/// The tag of the trunk that the arguments name.
fn tag_of(args: &InspectArgs) -> Result<Tag, CommandError> {
    let bad = |name, detail| CommandError::Argument { name, detail };
    if let Some(text) = &args.terms {
        return Ok(tag(&terms(text)?.trunk_id));
    }
    if let Some(text) = &args.trunk_id {
        let mut trunk_id = [0; 32];
        let decoded = hex::decode_to_slice(text, &mut trunk_id);
        return decoded.map(|()| tag(&trunk_id)).map_err(|_| bad("--trunk-id", "not 64 hexadecimal digits"));
    }
    let Some(text) = &args.tag else { return Err(bad("--terms, --trunk-id or --tag", "one is needed")) };
    let mut tag = Tag::default();
    hex::decode_to_slice(text, &mut tag).map_err(|_| bad("--tag", "not 16 hexadecimal digits"))?;
    Ok(tag)
}

/// `says_nothing`: whether a transaction that holds nothing for us is mentioned.
fn inspect_transaction(
    tx: &Transaction,
    place: (u32, u32),
    rules: &Rules,
    says_nothing: bool,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let mut lines = Vec::new();
    if let Some(id) = mark(tx) {
        lines.push(format!("reconfiguration: terms {}", hex::encode(id)));
    }
    for found in scan_transaction(tx, &rules.tag) {
        let said = match found.envelope {
            Err(error) => format!("MALFORMED: {error}"),
            Ok((_, envelope)) if envelope.kind.is_to_rollup() => continue,
            Ok((author, envelope)) => {
                let stored = envelope.stored.len();
                let what = match envelope.kind {
                    Kind::Chunk => format!("chunk {}", blake3::hash(&envelope.stored).to_hex()),
                    Kind::Aggregate => match Aggregate::decode(&envelope.stored) {
                        Ok(list) => {
                            format!("list of {} chunks of a {:?} message", list.chunks.len(), list.kind)
                        }
                        Err(error) => format!("MALFORMED list: {error}"),
                    },
                    kind => match unpack(kind, envelope.codec, envelope.plain_len, &envelope.stored) {
                        Ok(message) => describe(&message),
                        Err(error) => format!("MALFORMED {kind:?}: {error}"),
                    },
                };
                format!("{what}; {stored} bytes stored, author {author}")
            }
        };
        lines.push(format!("input {}: {said}", found.vin));
    }
    let bytes = serialize(tx);
    if let Ok(light) = LightTransaction::decode(&bytes) {
        for found in scan_messages(&light, place, rules) {
            let said = match found.action {
                Ok(Action::Execute(bytes)) => format!("forced transaction of {} bytes", bytes.len()),
                Ok(Action::Mint { recipient, amount_sat, vout }) => {
                    format!("deposit of {amount_sat} sat (output {vout}) to 0x{}", hex::encode(recipient))
                }
                // Said above.
                Err(MessageError::Envelope(_)) => continue,
                Err(error) => format!("REFUSED message: {error}"),
            };
            lines.push(format!("input {}: {said}", found.position.input));
        }
    }
    if lines.is_empty() && says_nothing {
        lines.push("nothing of this trunk".to_owned());
    }
    let txid = tx.compute_txid();
    for line in lines {
        writeln!(out, "{txid} {line}")?;
    }
    Ok(())
}

fn describe(message: &Message) -> String {
    match message {
        Message::Batch { epoch, claim, batch_hash, data } => {
            format!("batch of claim {epoch}.{claim}: {} bytes, hash {}", data.len(), hex::encode(batch_hash))
        }
        Message::ClaimData { epoch, claim, values, proof } => format!(
            "data of claim {epoch}.{claim}: state {} to {}, proof of {} bytes",
            hex::encode(values.prev_commitment),
            hex::encode(values.new_commitment),
            proof.len()
        ),
        Message::Epoch(terms) => format!("terms of epoch {}: id {}", terms.epoch, hex::encode(terms.id())),
        Message::ToRollup(_) => "message to the rollup".to_owned(),
    }
}
