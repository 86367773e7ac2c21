//! `report.json` of a batch that a cluster has proved. What its tasks cost, workers say and sign: `receipts.json`.

use assay_service::work::Settlement as Order;
use serde::{Deserialize, Serialize};

use crate::input::elf_hashes;
use crate::proved::Proved;
use crate::report::{Versions, ZKVM_VERSION};
use crate::statement::{self, BatchSummary, Statement};

/// The batch in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterBatch {
    /// Its number.
    pub id: u64,
    /// Place in its rollup's history, from 0.
    pub sequence: u64,
    /// The submission's idempotency key.
    pub idempotency_key: String,
    /// BLAKE3 of the batch file, hex.
    pub payload_blake3: String,
    /// Version of programs and keys.
    pub version: u32,
}

/// The whole report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterReport {
    /// Version of this format.
    pub version: u32,
    /// The batch.
    pub batch: BatchSummary,
    /// The batch in the cluster.
    pub cluster: ClusterBatch,
    /// Set if the Groth16 parameters come from a development set-up.
    pub insecure: Option<String>,
    /// What was proved.
    pub statement: Statement,
    /// BLAKE3 of the verifying key, hex.
    pub verifying_key_blake3: String,
    /// Constraints of the wrap circuit.
    pub constraints: u64,
    /// File with the workers' signed receipts.
    pub receipts: String,
    /// What Bitcoin enforces of the claim, and what it does not yet.
    pub enforcement: String,
    /// Programs and versions.
    pub versions: Versions,
}

impl ClusterReport {
    /// Name of the file.
    pub const FILE: &'static str = "report.json";

    /// The report on a settled batch.
    pub fn new(order: &Order, batch: BatchSummary, proved: &Proved, constraints: u64) -> Self {
        let (block, fold) = elf_hashes();
        Self {
            version: 1,
            batch,
            cluster: ClusterBatch {
                id: order.batch.0,
                sequence: order.spec.sequence,
                idempotency_key: order.spec.key.clone(),
                payload_blake3: order.spec.payload.to_string(),
                version: order.spec.version,
            },
            insecure: proved.insecure.then(|| statement::INSECURE_NOTE.to_owned()),
            statement: proved.statement.clone(),
            verifying_key_blake3: hex::encode(proved.verifying_key_hash()),
            constraints,
            receipts: assay_client::cli::RECEIPTS.to_owned(),
            enforcement: assay_l1::enforcement_summary().to_owned(),
            versions: Versions {
                assay: env!("CARGO_PKG_VERSION").to_owned(),
                zkvm: ZKVM_VERSION.to_owned(),
                block_elf_sha256: hex::encode(block),
                fold_elf_sha256: hex::encode(fold),
            },
        }
    }
}
