//! Money for a party: the addresses that want coins, and coins in them from a purse of its own.
//!
//! On regtest the purse mines what it lacks. Elsewhere somebody has to pay it; a purse that is short says how much and where.

use std::io::Write;
use std::path::PathBuf;

use assay_l1::envelope::tag;
use assay_l1::graph::contract::build::funding_value;
use assay_l1::graph::transactions::wallet_script;
use assay_l1::sync::command::NodeArgs;
use assay_l1::{BitcoinBackend, KeyRole, Network, OperatorSecret, Wallet};
use assay_l1_signer::handover::PreviousArgs;
use assay_l1_signer::policy::Policy;
use bitcoin::{Address, Amount, FeeRate, OutPoint, ScriptBuf, TxOut, Txid};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::error::ServiceError;

/// Blocks aimed at.
const FEE_TARGET_BLOCKS: u16 = 3;
/// Rate where the node has no estimate: 2 sat/vB, twice the least that relay policy took for years.
const FEE_RATE_MIN: FeeRate = FeeRate::from_sat_per_kwu(500);

/// Who a party is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Party {
    /// It opens epochs, publishes data and pays fees.
    Operator,
    /// It pays fees and deposits.
    Vigilante,
}

/// `assay l1 keys`: what a secret's keys are on a trunk.
#[derive(Debug, Clone, Args)]
pub struct KeysArgs {
    /// Secret file; made if there is none
    #[arg(long, value_name = "FILE")]
    pub secret: PathBuf,
    /// The trunk: 64 hexadecimal digits, as in the policy
    #[arg(long, value_name = "HEX")]
    pub trunk_id: String,
    /// Network of the addresses
    #[arg(long, default_value = "regtest", value_name = "NETWORK")]
    pub network: Network,
}

/// `assay l1 fund`: coins for a party.
#[derive(Debug, Clone, Args)]
pub struct FundArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub node: NodeArgs,
    /// Policy file: the trunk, and what an epoch's coin has to hold
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Secret file of the party; made if there is none
    #[arg(long, value_name = "FILE")]
    pub secret: PathBuf,
    /// Secret file of the purse that pays; made if there is none. Not one that a service uses
    #[arg(long, value_name = "FILE")]
    pub purse: PathBuf,
    /// Who the party is
    #[arg(long, value_enum, default_value_t = Party::Operator)]
    pub party: Party,
    /// Operator: the epoch that the coin is to open; later ones need less, because the epoch before leaves a connector
    #[arg(long, default_value_t = 0, value_name = "EPOCH")]
    pub epoch: u32,
    /// Operator: the epoch before, if a timeout ended it
    #[command(flatten)]
    pub previous: PreviousArgs,
    /// Operator: no coin that opens an epoch
    #[arg(long)]
    pub no_epoch: bool,
    /// Coins for fees and deposits; each pays for one transaction at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=200))]
    pub coins: u32,
    /// Satoshi in each of them
    #[arg(long, default_value_t = 400_000, value_name = "SATOSHI", value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    pub coin_sat: u64,
    /// Operator: satoshi for publishing data
    #[arg(long, default_value_t = 5_000_000, value_name = "SATOSHI", value_parser = clap::value_parser!(u64).range(0..=1_000_000_000))]
    pub data_sat: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A party's keys and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// The operator's key, x only, hexadecimal: the policy's `operator_key`.
    pub operator_key: String,
    /// Where coins that open epochs lie.
    pub epochs: String,
    /// Where coins for fees and deposits lie.
    pub fees: String,
    /// Where coins for data lie.
    pub data: String,
    /// The tag of the trunk's envelopes, hexadecimal, for `assay l1 inspect`: the same for every secret.
    pub tag: String,
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Funded {
    /// The coin that opens the epoch, `txid:index`: `--funding` of `assay l1 signer`.
    pub epoch_coin: Option<String>,
    /// The transaction.
    pub txid: String,
    /// What it pays to the party, satoshi.
    pub paid_sat: u64,
    /// Its fee, satoshi.
    pub fee_sat: u64,
    /// True if it is in a block: on regtest.
    pub is_mined: bool,
}

/// The addresses of a secret's keys.
///
/// # Errors
/// The secret file's; `Argument`.
pub fn addresses(args: &KeysArgs) -> Result<Addresses, ServiceError> {
    let mut trunk_id = [0; 32];
    hex::decode_to_slice(&args.trunk_id, &mut trunk_id).map_err(|error| argument("--trunk-id", error))?;
    let secret = OperatorSecret::load_or_create(&args.secret)?;
    let address = |role| {
        let script = wallet_script(secret.public_key(&trunk_id, role));
        Address::from_script(&script, args.network)
            .map_or_else(|_| script.to_hex_string(), |it| it.to_string())
    };
    Ok(Addresses {
        operator_key: secret.public_key(&trunk_id, KeyRole::Operator).to_string(),
        epochs: address(KeyRole::Operator),
        fees: address(KeyRole::Wallet),
        data: address(KeyRole::Envelope),
        tag: hex::encode(tag(&trunk_id)),
    })
}

/// Prints them; the first line fits into the policy.
///
/// # Errors
/// As [`addresses`]; the output's.
pub fn run_keys(args: &KeysArgs, out: &mut dyn Write) -> Result<(), ServiceError> {
    let Addresses { operator_key, epochs, fees, data, tag } = addresses(args)?;
    writeln!(out, "operator_key = \"{operator_key}\"")?;
    for (name, value) in [("epochs", epochs), ("fees", fees), ("data", data), ("tag", tag)] {
        writeln!(out, "{name:<7} {value}")?;
    }
    Ok(())
}

/// Pays a party, and on regtest mines the payment.
///
/// # Errors
/// `Argument` on the main network, or if a secret is not this trunk's operator's; `Wallet` if the purse is short; the node's.
pub fn run(args: &FundArgs, out: &mut dyn Write) -> Result<(), ServiceError> {
    let funded = fund(args, args.node.open()?.as_ref())?;
    if args.json {
        let line = serde_json::to_string(&funded).map_err(std::io::Error::from)?;
        return Ok(writeln!(out, "{line}")?);
    }
    if let Some(coin) = &funded.epoch_coin {
        writeln!(out, "{coin}")?;
    }
    let state = if funded.is_mined { "mined" } else { "sent" };
    tracing::info!(txid = funded.txid, paid_sat = funded.paid_sat, fee_sat = funded.fee_sat, "{state}");
    Ok(())
}

/// The same on a node that is open already; what was sent.
///
/// # Errors
/// As [`run`].
pub fn fund(args: &FundArgs, backend: &dyn BitcoinBackend) -> Result<Funded, ServiceError> {
    let network = backend.network();
    if network == Network::Bitcoin {
        return Err(argument("--bitcoind", "it is on the main network; this is for test networks"));
    }
    let policy = Policy::load(&args.policy)?;
    let secret = OperatorSecret::load_or_create(&args.secret)?;
    let outputs = outputs(args, &policy, &secret)?;
    if outputs.is_empty() {
        return Err(argument("--coins", "nothing is to be paid"));
    }
    // The purse's key is of no trunk, so it is nobody's wallet.
    let purse = OperatorSecret::load_or_create(&args.purse)?;
    let purse = Wallet::new(purse.keypair(&[0; 32], KeyRole::Wallet));
    let estimate = backend.fee_estimate(FEE_TARGET_BLOCKS)?;
    let rate = estimate.rate.unwrap_or(FEE_RATE_MIN).max(estimate.floor);
    let (tx, fee) = purse.pay(backend, &outputs, rate)?;
    backend.broadcast(&tx)?;
    let txid: Txid = tx.compute_txid();
    tracing::info!(%txid, "sent");
    let is_mined = match backend.miner() {
        Some(miner) => miner.mine(1, purse.script()).map(|_| true)?,
        None => false,
    };
    let has_epoch = args.party == Party::Operator && !args.no_epoch;
    let paid: Amount = outputs.iter().map(|output| output.value).sum();
    Ok(Funded {
        epoch_coin: has_epoch.then(|| OutPoint::new(txid, 0).to_string()),
        txid: txid.to_string(),
        paid_sat: paid.to_sat(),
        fee_sat: fee.to_sat(),
        is_mined,
    })
}

/// The epoch's coin first, then the one for data, then those for fees.
fn outputs(args: &FundArgs, policy: &Policy, secret: &OperatorSecret) -> Result<Vec<TxOut>, ServiceError> {
    let script = |role| -> ScriptBuf { wallet_script(secret.public_key(&policy.trunk_id, role)) };
    let mut outputs = Vec::new();
    if args.party == Party::Operator {
        if secret.public_key(&policy.trunk_id, KeyRole::Operator) != policy.operator_key {
            return Err(argument("--secret", "its operator's key is not the policy's"));
        }
        if !args.no_epoch {
            let value = epoch_value(args, policy)?;
            outputs.push(TxOut { value, script_pubkey: script(KeyRole::Operator) });
        }
        if args.data_sat > 0 {
            let value = Amount::from_sat(args.data_sat);
            outputs.push(TxOut { value, script_pubkey: script(KeyRole::Envelope) });
        }
    }
    let fee = TxOut { value: Amount::from_sat(args.coin_sat), script_pubkey: script(KeyRole::Wallet) };
    outputs.extend(vec![fee; args.coins as usize]);
    Ok(outputs)
}

/// What the coin that opens an epoch has to hold: it depends on no key, and on no other coin.
fn epoch_value(args: &FundArgs, policy: &Policy) -> Result<Amount, ServiceError> {
    let previous = args.previous.load(policy).map_err(|error| argument("--previous", error))?;
    let spec = policy.outline(args.epoch);
    let value = match previous {
        Some(before) if before.end.epoch.checked_add(1) != Some(args.epoch) => {
            return Err(argument("--epoch", format!("it does not follow epoch {}", before.end.epoch)));
        }
        Some(before) => funding_value(&spec, Some(&before.end)),
        None => {
            // An epoch leaves the connector after its last claim.
            let left = if args.epoch == 0 { Amount::ZERO } else { spec.connector_value(policy.claims) };
            funding_value(&spec, None).checked_sub(left).unwrap_or(Amount::ZERO)
        }
    };
    // With less there is no graph.
    if value < wallet_script(policy.operator_key).minimal_non_dust() {
        return Err(argument("--previous", "the epoch before leaves more than the next one needs"));
    }
    Ok(value)
}

fn argument(name: &'static str, detail: impl ToString) -> ServiceError {
    ServiceError::Argument { name, detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partys_keys_come_with_the_tag_that_inspect_wants() {
        let dir = tempfile::tempdir().unwrap();
        let trunk_id = [7; 32];
        let args = KeysArgs {
            secret: dir.path().join("secret"),
            trunk_id: hex::encode(trunk_id),
            network: Network::Regtest,
        };
        let mut out = Vec::new();
        run_keys(&args, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["operator_key", "epochs", "fees", "data", "tag"]);
        assert!(text.ends_with(&format!("\ntag     {}\n", hex::encode(tag(&trunk_id)))), "{text}");
    }
}
