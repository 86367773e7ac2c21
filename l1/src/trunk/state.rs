//! What a trunk remembers, and the receipts it hands out.

use std::path::{Path, PathBuf};

use bitcoin::{BlockHash, Network, Txid};
use serde::{Deserialize, Serialize};

use super::plan::PlannedTx;
use super::TrunkError;
use crate::envelope::message::ClaimValues;
use crate::envelope::tag;
use crate::graph::terms::EpochTerms;
use crate::store::{read_json, write_json, StoreError};

const VERSION: u32 = 1;

/// 32 bytes as 64 hexadecimal digits.
mod hex32 {
    use serde::{de::Error, Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(String::deserialize(deserializer)?, &mut bytes).map_err(D::Error::custom)?;
        Ok(bytes)
    }
}

/// Bytes as hexadecimal digits.
mod hex_bytes {
    use serde::{de::Error, Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A confirmed transaction of an epoch's opening or a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TxReceipt {
    /// What it is: `commit`, `reveal batch`, `reveal claim data`, `reconfiguration`, `claim`.
    pub role: String,
    /// Its id.
    pub txid: Txid,
    /// Height of its block.
    pub block_height: u32,
    /// Hash of its block.
    pub block_hash: BlockHash,
    /// Virtual size, vB.
    pub vsize_vb: u64,
    /// Weight, in weight units.
    pub weight_wu: u64,
    /// Fee, satoshi.
    pub fee_sat: u64,
}

impl TxReceipt {
    pub(super) fn new(planned: &PlannedTx, block_height: u32, block_hash: BlockHash) -> Self {
        Self {
            role: planned.role.clone(),
            txid: planned.txid,
            block_height,
            block_hash,
            vsize_vb: planned.vsize_vb,
            weight_wu: planned.weight_wu,
            fee_sat: planned.fee_sat,
        }
    }

    pub(super) fn planned(&self) -> PlannedTx {
        PlannedTx {
            role: self.role.clone(),
            txid: self.txid,
            fee_sat: self.fee_sat,
            vsize_vb: self.vsize_vb,
            weight_wu: self.weight_wu,
        }
    }
}

/// A settled claim. 32-byte values are hexadecimal in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimReceipt {
    /// Epoch, from 0.
    pub epoch: u32,
    /// Claim within the epoch, from 0.
    pub claim: u32,
    /// Bitcoin network.
    pub network: String,
    /// Back end that confirmed it.
    pub backend: String,
    /// State commitment before the batch.
    #[serde(with = "hex32")]
    pub prev_commitment: [u8; 32],
    /// State commitment after it.
    #[serde(with = "hex32")]
    pub new_commitment: [u8; 32],
    /// Hash of the batch.
    #[serde(with = "hex32")]
    pub batch_hash: [u8; 32],
    /// Root of the code control group.
    #[serde(with = "hex32")]
    pub code_root: [u8; 32],
    /// Digest of the four above, the proof's public input.
    #[serde(with = "hex32")]
    pub digest: [u8; 32],
    /// The claim transaction.
    pub claim_txid: Txid,
    /// All transactions, the claim last.
    pub transactions: Vec<TxReceipt>,
    /// Fees of all transactions, satoshi.
    pub fee_total_sat: u64,
    /// Virtual size of all transactions, vB.
    pub vsize_total_vb: u64,
}

impl ClaimReceipt {
    /// What was claimed.
    #[must_use]
    pub fn values(&self) -> ClaimValues {
        ClaimValues {
            prev_commitment: self.prev_commitment,
            new_commitment: self.new_commitment,
            batch_hash: self.batch_hash,
            code_root: self.code_root,
            digest: self.digest,
        }
    }
}

/// An opened epoch. 32-byte values are hexadecimal in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochReceipt {
    /// Number, from 0.
    pub epoch: u32,
    /// Bitcoin network.
    pub network: String,
    /// State commitment at its start.
    #[serde(with = "hex32")]
    pub start_commitment: [u8; 32],
    /// Root of the code control group.
    #[serde(with = "hex32")]
    pub code_root: [u8; 32],
    /// Hash of the Groth16 verifying key.
    #[serde(with = "hex32")]
    pub verifier_commitment: [u8; 32],
    /// Commitment to the one-time keys.
    #[serde(with = "hex32")]
    pub key_commitment: [u8; 32],
    /// The operator's key, x only, hexadecimal.
    pub operator_key: String,
    /// Claims it can take.
    pub claims_max: u32,
    /// Collateral, satoshi.
    pub collateral_sat: u64,
    /// Tag of the trunk's data envelopes, hexadecimal.
    pub tag: String,
    /// Encoded terms, what the Reconfiguration commits to.
    #[serde(with = "hex_bytes")]
    pub terms: Vec<u8>,
    /// The Reconfiguration.
    pub reconfiguration_txid: Txid,
    /// All transactions, the Reconfiguration last.
    pub transactions: Vec<TxReceipt>,
    /// True once it takes no more claims because the operator closed it.
    pub closed: bool,
}

impl EpochReceipt {
    /// The terms.
    ///
    /// # Errors
    /// `Terms` if the stored encoding is damaged.
    pub fn terms(&self) -> Result<EpochTerms, TrunkError> {
        Ok(EpochTerms::decode(&self.terms)?)
    }
}

/// The five values of a claim, for the state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredValues {
    #[serde(with = "hex32")]
    prev_commitment: [u8; 32],
    #[serde(with = "hex32")]
    new_commitment: [u8; 32],
    #[serde(with = "hex32")]
    batch_hash: [u8; 32],
    #[serde(with = "hex32")]
    code_root: [u8; 32],
    #[serde(with = "hex32")]
    digest: [u8; 32],
}

impl From<ClaimValues> for StoredValues {
    fn from(values: ClaimValues) -> Self {
        let ClaimValues { prev_commitment, new_commitment, batch_hash, code_root, digest } = values;
        Self { prev_commitment, new_commitment, batch_hash, code_root, digest }
    }
}

/// What a plan is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum PendingStep {
    Epoch {
        #[serde(with = "hex_bytes")]
        terms: Vec<u8>,
    },
    Claim {
        epoch: u32,
        claim: u32,
        values: StoredValues,
    },
}

/// A plan that is being carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pending {
    pub(super) step: PendingStep,
    /// Height of the tip when it was made: its transactions are in no block up to here.
    pub(super) since: u32,
    pub(super) stages: Vec<Vec<PlannedTx>>,
}

/// A finished step: its place among the epochs or the claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepIndex {
    Epoch(usize),
    Claim(usize),
}

/// The state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    #[serde(with = "hex32")]
    pub(super) trunk_id: [u8; 32],
    pub(super) network: Network,
    pub(super) epochs: Vec<EpochReceipt>,
    pub(super) claims: Vec<ClaimReceipt>,
    pub(super) pending: Option<Pending>,
}

impl State {
    pub(super) fn new(trunk_id: [u8; 32], network: Network) -> Self {
        Self { version: VERSION, trunk_id, network, epochs: Vec::new(), claims: Vec::new(), pending: None }
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("state.json")
    }

    pub(super) fn load(dir: &Path) -> Result<Option<Self>, StoreError> {
        let state: Option<Self> = read_json(&Self::path(dir))?;
        match state {
            Some(state) if state.version != VERSION => Err(StoreError::Format {
                path: Self::path(dir),
                detail: format!("version {}, expected {VERSION}", state.version),
            }),
            other => Ok(other),
        }
    }

    pub(super) fn save(&self, dir: &Path) -> Result<(), StoreError> {
        write_json(&Self::path(dir), self)
    }

    /// All finished steps, oldest first.
    pub(super) fn steps(&self) -> Vec<StepIndex> {
        let mut steps = Vec::with_capacity(self.epochs.len() + self.claims.len());
        for (index, epoch) in self.epochs.iter().enumerate() {
            steps.push(StepIndex::Epoch(index));
            let numbered = self.claims.iter().enumerate();
            let of_epoch = numbered.filter(|(_, claim)| claim.epoch == epoch.epoch);
            steps.extend(of_epoch.map(|(index, _)| StepIndex::Claim(index)));
        }
        steps
    }

    /// Transactions of a step of [`steps`](Self::steps).
    pub(super) fn transactions(&self, step: StepIndex) -> &[TxReceipt] {
        match step {
            StepIndex::Epoch(index) => &self.epochs[index].transactions,
            StepIndex::Claim(index) => &self.claims[index].transactions,
        }
    }

    /// As [`transactions`](Self::transactions), to be replaced.
    pub(super) fn transactions_mut(&mut self, step: StepIndex) -> &mut Vec<TxReceipt> {
        match step {
            StepIndex::Epoch(index) => &mut self.epochs[index].transactions,
            StepIndex::Claim(index) => &mut self.claims[index].transactions,
        }
    }

    /// Turns the pending plan into a receipt.
    pub(super) fn complete(
        &mut self,
        pending: &Pending,
        transactions: Vec<TxReceipt>,
        backend: String,
    ) -> Result<(), TrunkError> {
        let last = transactions.last().map(|tx| tx.txid).ok_or(TrunkError::NoEpoch)?;
        match &pending.step {
            PendingStep::Epoch { terms } => {
                let decoded = EpochTerms::decode(terms)?;
                self.epochs.push(EpochReceipt {
                    epoch: decoded.epoch,
                    network: self.network.to_string(),
                    start_commitment: decoded.params.start_commitment,
                    code_root: decoded.params.code_root,
                    verifier_commitment: decoded.params.verifier_commitment,
                    key_commitment: decoded.key_commitment,
                    operator_key: decoded.operator_key.to_string(),
                    claims_max: decoded.claims_max,
                    collateral_sat: decoded.collateral.to_sat(),
                    tag: hex::encode(tag(&self.trunk_id)),
                    terms: terms.clone(),
                    reconfiguration_txid: last,
                    transactions,
                    closed: false,
                });
            }
            PendingStep::Claim { epoch, claim, values } => self.claims.push(ClaimReceipt {
                epoch: *epoch,
                claim: *claim,
                network: self.network.to_string(),
                backend,
                prev_commitment: values.prev_commitment,
                new_commitment: values.new_commitment,
                batch_hash: values.batch_hash,
                code_root: values.code_root,
                digest: values.digest,
                claim_txid: last,
                fee_total_sat: transactions.iter().map(|tx| tx.fee_sat).sum(),
                vsize_total_vb: transactions.iter().map(|tx| tx.vsize_vb).sum(),
                transactions,
            }),
        }
        self.pending = None;
        Ok(())
    }
}
