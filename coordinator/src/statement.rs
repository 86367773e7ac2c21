//! The files of a result folder that say what was proved: `claim.json` and its parts.

use ark_bn254::Fr;
use ark_ff::PrimeField;
use serde::{Deserialize, Serialize};

/// Length of the fold program's public values in bytes.
pub const PUBLIC_VALUES_BYTES: usize = 128;
/// What a development set-up means, in one sentence.
pub const INSECURE_NOTE: &str =
    "INSECURE: the Groth16 parameters come from a development set-up on one machine; whoever ran it \
could have kept its secret and could forge proofs. Use parameters from a ceremony for anything of value.";

/// What the proof says: the four parts of the public values, the bytes themselves, and their digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Commitment to the state before the batch, hex.
    pub prev_commitment: String,
    /// Commitment to the state after the batch, hex.
    pub new_commitment: String,
    /// Hash chain over the batch's block hashes, hex.
    pub batch_hash: String,
    /// Root of the code control group: genesis and the allowed programs, hex.
    pub code_root: String,
    /// The 128 bytes that the fold program committed, hex: the four values above in this order.
    pub public_values: String,
    /// BLAKE3 of `public_values` with the top three bits cleared, hex: the one public input, big endian.
    pub digest: String,
}

impl Statement {
    /// The statement of the given public values.
    pub fn new(public_values: &[u8; PUBLIC_VALUES_BYTES]) -> Self {
        let part = |at: usize| hex::encode(&public_values[at * 32..][..32]);
        Self {
            prev_commitment: part(0),
            new_commitment: part(1),
            batch_hash: part(2),
            code_root: part(3),
            public_values: hex::encode(public_values),
            digest: hex::encode(digest(public_values)),
        }
    }
}

/// BLAKE3 with the top three bits cleared, as the zkVM hashes public values.
pub fn digest(public_values: &[u8]) -> [u8; 32] {
    let mut digest = *blake3::hash(public_values).as_bytes();
    digest[0] &= 0x1f;
    digest
}

/// The digest as the circuit's public input. 253 bits are below BN254's scalar modulus, so nothing is reduced.
pub fn public_input(digest: &[u8; 32]) -> Fr {
    Fr::from_be_bytes_mod_order(digest)
}

/// The blocks a result is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSummary {
    /// Name of the batch and of its folder.
    pub id: String,
    /// Chain id.
    pub chain_id: u64,
    /// Number of the first block.
    pub first_block: u64,
    /// Number of the last block.
    pub last_block: u64,
    /// Transactions in all blocks.
    pub transactions: u64,
    /// Gas used by all blocks.
    pub gas: u64,
    /// Commitment to the genesis state from which all history is proved, hex; absent where nothing was folded.
    pub genesis_commitment: Option<String>,
}

/// A transaction that settles the claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettledTransaction {
    /// What it is for.
    pub role: String,
    /// Transaction id.
    pub txid: String,
    /// Height of its block.
    pub block_height: u32,
    /// Hash of its block.
    pub block_hash: String,
    /// Virtual size in vbytes.
    pub vsize_vb: u64,
    /// Fee in satoshi.
    pub fee_sat: u64,
}

/// Where the claim stands on Bitcoin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settlement {
    /// Bitcoin network.
    pub network: String,
    /// What validated the blocks.
    pub backend: String,
    /// Number of the epoch.
    pub epoch: u32,
    /// Number of the claim in its epoch.
    pub claim: u32,
    /// The transaction that opened the epoch.
    pub reconfiguration_txid: String,
    /// What it commits to, encoded, hex: all that a reader of the chain has to know. Absent in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_terms: Option<String>,
    /// The claim itself.
    pub claim_txid: String,
    /// Height of the claim's block.
    pub claim_height: u32,
    /// Digest that the claim commits to, hex.
    pub digest: String,
    /// All transactions in the order of their roles.
    pub transactions: Vec<SettledTransaction>,
    /// Fees in satoshi.
    pub fee_total_sat: u64,
    /// Virtual size in vbytes.
    pub vsize_total_vb: u64,
}

/// `claim.json` without its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Version of this format.
    pub version: u32,
    /// Set if the Groth16 parameters come from a development set-up.
    pub insecure: Option<String>,
    /// What was proved.
    pub statement: Statement,
    /// About which blocks.
    pub batch: BatchSummary,
    /// BLAKE3 of the verifying key (arkworks, compressed), hex.
    pub verifying_key_blake3: String,
    /// The claim on Bitcoin; absent if the pipeline stopped before it.
    pub settlement: Option<Settlement>,
    /// What the chain enforces of all this, and what it does not yet.
    pub enforcement: String,
}

/// `claim.json`: a claim and the BLAKE3 of its JSON, so that accidental damage anywhere in it shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimFile {
    /// The claim.
    pub claim: Claim,
    /// BLAKE3 of the compact JSON of `claim`, hex.
    pub blake3: String,
}

impl ClaimFile {
    /// Current version of the format.
    pub const VERSION: u32 = 1;

    /// Adds the checksum.
    pub fn new(claim: Claim) -> Self {
        let blake3 = checksum(&claim);
        Self { claim, blake3 }
    }

    /// Whether the checksum matches.
    pub fn is_intact(&self) -> bool {
        checksum(&self.claim) == self.blake3
    }
}

fn checksum(claim: &Claim) -> String {
    let json = serde_json::to_vec(claim).expect("a claim has only strings and numbers");
    blake3::hash(&json).to_hex().to_string()
}

/// The text of a JSON file of the result folder: indented, one newline at the end.
///
/// # Panics
/// For a type whose maps have keys that are no strings; result files have none.
pub fn json_text<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("result files have string keys only");
    text.push('\n');
    text
}
