//! Batches from a JSON description: a genesis and blocks of signed transactions.
//!
//! ```json
//! {
//!   "genesis": {
//!     "timestamp": 1760000000, "gas_limit": 30000000,
//!     "alloc": { "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf": { "balance": "1000000000000000000" } }
//!   },
//!   "blocks": [ { "timestamp": 1760000012, "transactions": ["0x02f8..."] } ],
//!   "first": 1
//! }
//! ```
//! The rules are those of the Assay chain (Prague from genesis on) under `chain_id`; the system contracts of Prague are
//! always in place. `"genesis": "sample"` stands for the genesis of the built-in batches. The batch holds the blocks from
//! number `first` to the end; those before it are its history. Amounts and slots are decimal or `0x` hex.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{Bytes, B256, U256};
use assay_lvm::genesis::{self, Alloc, GenesisAccount};
use assay_lvm::{sample, Batch, BatchError, Chain};
use assay_lvm_core::{BlockAttributes, ChainSpec, Transaction};
use serde::Deserialize;

use crate::fsio::{self, FileError};

const DESCRIPTION_BYTES_MAX: u64 = 256 << 20;

/// A description that gives no batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no JSON of the described form.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A value cannot be read.
    #[error("{item}: expected {expected}, got {got:?}")]
    Value {
        /// Where.
        item: String,
        /// What belongs there.
        expected: &'static str,
        /// What is there, shortened.
        got: String,
    },
    /// The blocks cannot be made.
    #[error("block {number}: {source}")]
    Block {
        /// Its number.
        number: u64,
        /// Which rule it breaks.
        source: Box<assay_lvm_core::StfError>,
    },
    /// The batch cannot be made.
    #[error(transparent)]
    Batch(Box<BatchError>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    #[serde(default)]
    chain_id: Option<u64>,
    genesis: GenesisText,
    #[serde(default)]
    blocks: Vec<BlockText>,
    #[serde(default = "one")]
    first: u64,
}

fn one() -> u64 {
    1
}

#[derive(Deserialize)]
#[serde(untagged)]
enum GenesisText {
    Named(String),
    Given(GivenGenesis),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenGenesis {
    timestamp: u64,
    gas_limit: u64,
    #[serde(default)]
    extra_data: String,
    alloc: BTreeMap<String, AccountText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountText {
    #[serde(default)]
    balance: String,
    #[serde(default)]
    nonce: u64,
    #[serde(default)]
    code: String,
    #[serde(default)]
    storage: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockText {
    timestamp: u64,
    #[serde(default)]
    beneficiary: String,
    gas_limit: Option<u64>,
    #[serde(default)]
    prev_randao: String,
    #[serde(default)]
    extra_data: String,
    transactions: Vec<String>,
}

impl From<BatchError> for DescriptionError {
    fn from(error: BatchError) -> Self {
        Self::Batch(Box::new(error))
    }
}

/// Whether a JSON text is a description (and not an execution witness of somebody else's block).
pub fn is_description(text: &[u8]) -> bool {
    serde_json::from_slice::<BTreeMap<String, serde::de::IgnoredAny>>(text)
        .is_ok_and(|fields| fields.contains_key("genesis"))
}

/// Reads a file for [`is_description`] and [`build`].
///
/// # Errors
/// [`FileError`].
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fsio::read_limited(path, DESCRIPTION_BYTES_MAX)
}

/// Makes the described chain and cuts the batch out of it.
///
/// # Errors
/// [`DescriptionError`] naming the item.
pub fn build(text: &[u8]) -> Result<Batch, DescriptionError> {
    let description: Description = serde_json::from_slice(text)?;
    let mut chain = start(&description)?;
    let mut gas_limit = chain.header(0).map_or(sample::GAS_LIMIT, |header| header.gas_limit);
    for (at, block) in description.blocks.iter().enumerate() {
        let item = format!("blocks[{at}]");
        gas_limit = block.gas_limit.unwrap_or(gas_limit);
        let attributes = BlockAttributes {
            timestamp: block.timestamp,
            beneficiary: value(&format!("{item}.beneficiary"), "an address", &block.beneficiary)?,
            gas_limit,
            prev_randao: value::<B256>(
                &format!("{item}.prev_randao"),
                "32 bytes in hex",
                &block.prev_randao,
            )?,
            extra_data: value::<Bytes>(&format!("{item}.extra_data"), "bytes in hex", &block.extra_data)?,
            ..Default::default()
        };
        let transactions = block
            .transactions
            .iter()
            .enumerate()
            .map(|(index, text)| transaction(&format!("{item}.transactions[{index}]"), text))
            .collect::<Result<_, _>>()?;
        let number = chain.tip() + 1;
        chain
            .append(&attributes, transactions)
            .map_err(|source| DescriptionError::Block { number, source: Box::new(source) })?;
    }
    Ok(chain.batch(description.first, chain.tip())?)
}

/// The described chain at its genesis, whatever blocks are described.
///
/// # Errors
/// [`DescriptionError`] naming the item.
pub fn genesis_chain(text: &[u8]) -> Result<Chain, DescriptionError> {
    start(&serde_json::from_slice(text)?)
}

fn start(description: &Description) -> Result<Chain, DescriptionError> {
    let mut spec = ChainSpec::assay();
    spec.chain_id = description.chain_id.unwrap_or(spec.chain_id);
    match &description.genesis {
        GenesisText::Named(name) if name == "sample" && description.chain_id.is_none() => {
            Ok(sample::genesis_chain()?)
        }
        GenesisText::Named(name) => {
            Err(wrong("genesis", "an object, or \"sample\" without a chain_id", name))
        }
        GenesisText::Given(given) => {
            let extra_data: Bytes = value("genesis.extra_data", "bytes in hex", &given.extra_data)?;
            let alloc = alloc(given)?;
            Ok(Chain::new(spec, &alloc, |root| {
                let mut header = genesis::header(root, given.timestamp, given.gas_limit, b"");
                header.extra_data = extra_data;
                header
            })?)
        }
    }
}

fn alloc(given: &GivenGenesis) -> Result<Alloc, DescriptionError> {
    let mut alloc = genesis::system_contracts();
    for (address, account) in &given.alloc {
        let item = format!("genesis.alloc.{address}");
        let storage = account
            .storage
            .iter()
            .map(|(slot, text)| {
                let name = format!("{item}.storage.{slot}");
                Ok((value::<U256>(&name, "a number", slot)?, value::<U256>(&name, "a number", text)?))
            })
            .collect::<Result<_, DescriptionError>>()?;
        let account = GenesisAccount {
            balance: value(&format!("{item}.balance"), "a number", &account.balance)?,
            nonce: account.nonce,
            code: value(&format!("{item}.code"), "bytes in hex", &account.code)?,
            storage,
        };
        let address = required(&item, "an address", address)?;
        // Blocks without the system contracts would be invalid by the rules, yet executable.
        let replaced = alloc.insert(address, account.clone()).filter(|former| *former != account);
        if replaced.is_some() {
            return Err(wrong(
                &item,
                "system contracts as they are, each account once",
                &address.to_string(),
            ));
        }
    }
    Ok(alloc)
}

fn transaction(item: &str, text: &str) -> Result<Transaction, DescriptionError> {
    let expected = "a signed transaction in hex";
    let bytes: Bytes = required(item, expected, text)?;
    let mut rest = bytes.as_ref();
    match Transaction::decode_2718(&mut rest) {
        Ok(transaction) if rest.is_empty() => Ok(transaction),
        _ => Err(wrong(item, expected, text)),
    }
}

/// Parses `text`; an empty one is the default.
fn value<T: FromStr + Default>(
    item: &str,
    expected: &'static str,
    text: &str,
) -> Result<T, DescriptionError> {
    if text.is_empty() {
        return Ok(T::default());
    }
    required(item, expected, text)
}

fn required<T: FromStr>(item: &str, expected: &'static str, text: &str) -> Result<T, DescriptionError> {
    text.parse().map_err(|_| wrong(item, expected, text))
}

fn wrong(item: &str, expected: &'static str, got: &str) -> DescriptionError {
    let got = got.chars().take(80).collect();
    DescriptionError::Value { item: item.to_owned(), expected, got }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_eips::eip2718::Encodable2718;
    use assay_lvm_core::Block;
    use serde_json::{json, Value};

    /// The sample chain up to batch 2, described.
    fn described() -> Value {
        let batches = [sample::batch(1).unwrap(), sample::batch(2).unwrap()];
        let mut blocks = Vec::new();
        for raw in batches.iter().flat_map(|batch| &batch.blocks) {
            let block = Block::decode(raw).unwrap();
            let transactions: Vec<_> =
                block.transactions.iter().map(|tx| format!("0x{}", hex::encode(tx.encoded_2718()))).collect();
            blocks.push(json!({
                "timestamp": block.header.timestamp,
                "beneficiary": block.header.beneficiary.to_string(),
                "prev_randao": block.header.mix_hash.to_string(),
                "extra_data": block.header.extra_data.to_string(),
                "transactions": transactions,
            }));
        }
        json!({"genesis": "sample", "blocks": blocks, "first": sample::BLOCKS_PER_BATCH + 1})
    }

    fn build_value(value: &Value) -> Result<Batch, DescriptionError> {
        build(&serde_json::to_vec(value).unwrap())
    }

    #[test]
    fn the_described_sample_chain_gives_the_sample_batch() {
        let description = described();
        assert!(is_description(&serde_json::to_vec(&description).unwrap()));
        assert_eq!(build_value(&description).unwrap(), sample::batch(2).unwrap());
    }

    #[test]
    fn a_given_genesis_pays_a_transfer() {
        let mut description = described();
        let blocks = description["blocks"].as_array().unwrap()[..1].to_vec();
        let alloc: serde_json::Map<String, Value> = sample::alloc()
            .into_iter()
            .map(|(address, account)| {
                let storage: BTreeMap<_, _> =
                    account.storage.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
                let account = json!({
                    "balance": account.balance.to_string(), "nonce": account.nonce,
                    "code": account.code.to_string(), "storage": storage,
                });
                (address.to_string(), account)
            })
            .collect();
        description["genesis"] = json!({
            "timestamp": sample::GENESIS_TIMESTAMP, "gas_limit": sample::GAS_LIMIT,
            "extra_data": format!("0x{}", hex::encode(sample::GENESIS_EXTRA_DATA)), "alloc": alloc,
        });
        description["blocks"] = blocks.into();
        description["first"] = 1.into();
        let batch = build_value(&description).unwrap();
        assert_eq!(batch.parent, sample::genesis_state().unwrap());
        batch.validate().unwrap();
    }

    #[test]
    fn the_item_that_is_wrong_is_named() {
        let error = |change: &dyn Fn(&mut Value)| {
            let mut description = described();
            change(&mut description);
            build_value(&description).unwrap_err().to_string()
        };
        assert!(error(&|d| d["genesis"] = "other".into()).contains("genesis"));
        assert!(error(&|d| d["colour"] = 1.into()).contains("colour"));
        assert!(error(&|d| d["blocks"][1]["beneficiary"] = "0x12".into()).contains("blocks[1].beneficiary"));
        let transaction = error(&|d| d["blocks"][0]["transactions"][1] = "0x02c0".into());
        assert!(transaction.contains("blocks[0].transactions[1]"), "{transaction}");
        let repeated =
            error(&|d| d["blocks"][0]["transactions"][1] = d["blocks"][0]["transactions"][0].clone());
        assert!(repeated.contains("block 1"), "{repeated}");
        error(&|d| d["first"] = 0.into());
        error(&|d| d["first"] = 99.into());
    }
}
