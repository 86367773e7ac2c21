//! Receipts: what each attempt took, as its worker has signed it.
//!
//! Only what is signed by the key that the worker's number follows from is taken. Receipts are kept with the history until
//! the batch has ended; then the leader makes one file of them. Which keys are trusted is for whoever reads it to say.

use assay_schedule::receipt::{SignedReceipt, Usage};
use assay_schedule::{AttemptId, BatchId, Time, WorkerId};
use serde::{Deserialize, Serialize};

use super::{Applied, Fact, ResultFile, State, ABOUT_MAX};

/// Receipts that are kept of a batch.
pub const RECEIPTS_MAX: usize = 8192;
/// Largest receipt that is kept, in bytes.
pub const RECEIPT_BYTES_MAX: usize = 64 << 10;
/// Bytes of all receipts that are kept.
const BYTES_MAX: usize = 32 << 20;
/// GPUs and processor cores that one attempt may have used at the same time.
const DEVICES_MAX: u64 = 16;
const CORES_MAX: u64 = 1024;
/// Faults of a GPU that are counted of one attempt; each of a proof's calls is repeated once at most.
const FAULTS_MAX: u32 = 64;
/// Name of the file that they become.
pub const RECEIPTS_FILE: &str = "receipts.json";

/// A receipt, and what of it is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The batch it names.
    pub batch: BatchId,
    /// The attempt it names.
    pub attempt: AttemptId,
    /// The worker it names.
    pub worker: WorkerId,
    /// Model of the device.
    pub device: String,
    /// Device time, ms.
    pub gpu_ms: u64,
    /// CPU time, ms.
    pub cpu_ms: u64,
    /// Calls that its GPU was given twice.
    #[serde(default)]
    pub gpu_retries: u32,
    /// Calls that went to the CPU, because the GPU had failed.
    #[serde(default)]
    pub gpu_fallbacks: u32,
    /// The signed receipt, as the worker wrote it.
    pub signed: String,
}

impl Receipt {
    /// Reads a worker's receipt; `None` if it is none, is too large, or is not signed by the worker that it names.
    pub fn read(value: serde_json::Value) -> Option<Self> {
        let signed = value.to_string();
        if signed.len() > RECEIPT_BYTES_MAX {
            return None;
        }
        let read: SignedReceipt = serde_json::from_value(value).ok()?;
        if let Err(error) = read.verify() {
            tracing::warn!(%error, "a receipt is not taken");
            return None;
        }
        let receipt = read.receipt;
        let device = receipt.device.chars().filter(|char| !char.is_control()).take(ABOUT_MAX).collect();
        let Usage { cpu_ms, gpu_ms, gpu_retries, gpu_fallbacks, .. } = receipt.usage;
        let (batch, attempt, worker) = (receipt.batch, receipt.attempt, receipt.worker);
        Some(Self { batch, attempt, worker, device, gpu_ms, cpu_ms, gpu_retries, gpu_fallbacks, signed })
    }
}

/// The file of a batch's receipts.
#[derive(Serialize)]
struct Bundle<'a> {
    batch: BatchId,
    /// Attempts whose results counted.
    accepted: &'a std::collections::BTreeSet<AttemptId>,
    receipts: Vec<serde_json::Value>,
}

impl State {
    /// Keeps the receipt of an attempt that this worker has had, while its batch is in work and there is room.
    pub(super) fn keep_receipt(&mut self, receipt: &Receipt, at: Time, applied: &mut Applied) {
        let Some(history) = self.histories.get_mut(&receipt.batch) else { return };
        let span = history.span(receipt.attempt).filter(|span| span.worker == receipt.worker);
        let Some(started) = span.map(|span| span.started) else { return };
        let has_room = history.receipts.len() < RECEIPTS_MAX
            && self.receipt_bytes as usize + receipt.signed.len() <= BYTES_MAX;
        if history.ended.is_some() || !has_room || history.receipts.contains_key(&receipt.attempt) {
            return;
        }
        self.receipt_bytes += receipt.signed.len() as u64;
        history.receipts.insert(receipt.attempt, receipt.signed.clone());
        // No more is counted than a large machine can have used meanwhile, whatever the worker says.
        let elapsed_ms = at.since(started);
        let gpu_ms = receipt.gpu_ms.min(elapsed_ms.saturating_mul(DEVICES_MAX));
        let cpu_ms = receipt.cpu_ms.min(elapsed_ms.saturating_mul(CORES_MAX));
        let gpu_retries = receipt.gpu_retries.min(FAULTS_MAX);
        let gpu_fallbacks = receipt.gpu_fallbacks.min(FAULTS_MAX);
        let device = receipt.device.clone();
        applied.facts.push(Fact::Usage { device, gpu_ms, cpu_ms, gpu_retries, gpu_fallbacks });
    }

    /// Batches that have ended and whose receipts are not in a file yet.
    pub fn unbundled(&self) -> impl Iterator<Item = BatchId> + '_ {
        let unbundled = |history: &super::History| history.ended.is_some() && !history.receipts.is_empty();
        self.histories.iter().filter(move |(_, history)| unbundled(history)).map(|(id, _)| *id)
    }

    /// The file of a batch's receipts: the same on every coordinator.
    pub fn bundle(&self, batch: BatchId) -> Option<Vec<u8>> {
        let history = self.histories.get(&batch)?;
        let receipts =
            history.receipts.values().filter_map(|signed| serde_json::from_str(signed).ok()).collect();
        Some(crate::wire::json(&Bundle { batch, accepted: &history.taken, receipts }))
    }

    /// Forgets receipts that are in a file now.
    pub(super) fn drop_receipts(&mut self, batch: BatchId, files: &[ResultFile]) {
        if !files.iter().any(|file| file.name == RECEIPTS_FILE) {
            return;
        }
        if let Some(history) = self.histories.get_mut(&batch) {
            let bytes: usize = history.receipts.values().map(String::len).sum();
            self.receipt_bytes = self.receipt_bytes.saturating_sub(bytes as u64);
            history.receipts.clear();
            history.taken.clear();
        }
    }
}
