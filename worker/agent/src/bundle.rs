//! The receipts of one batch and what they add up to: its cost.
//!
//! Work counts as wasted when the coordinator did not take its result: failures, duplicates for stragglers, attempts of
//! workers that went away. The list of accepted attempts is the coordinator's word; everything else is signed by workers.

use std::collections::{BTreeMap, BTreeSet};

use assay_schedule::{AttemptId, BatchId, Kind, WorkerId};
use serde::{Deserialize, Serialize};

use crate::receipt::{Outcome, ReceiptError, SignedReceipt};

/// Most receipts of a bundle.
pub const RECEIPTS_MAX: usize = 1 << 20;

/// What a number of attempts have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// How many attempts.
    pub attempts: u64,
    /// Wall time, ms.
    pub wall_ms: u64,
    /// CPU time, ms.
    pub cpu_ms: u64,
    /// Device time, ms.
    pub gpu_ms: u64,
    /// Bytes read from the store.
    pub fetched_bytes: u64,
    /// Bytes published.
    pub published_bytes: u64,
    /// Transfers that had to be repeated.
    pub transfer_retries: u64,
}

impl Cost {
    fn add(&mut self, signed: &SignedReceipt) {
        let usage = &signed.receipt.usage;
        let sums = [
            (&mut self.attempts, 1),
            (&mut self.wall_ms, usage.wall_ms),
            (&mut self.cpu_ms, usage.cpu_ms),
            (&mut self.gpu_ms, usage.gpu_ms),
            (&mut self.fetched_bytes, usage.fetched_bytes),
            (&mut self.published_bytes, usage.published_bytes),
            (&mut self.transfer_retries, usage.retries.into()),
        ];
        for (sum, number) in sums {
            *sum = sum.saturating_add(number);
        }
    }
}

/// The sums of a bundle. A sum that overflows stays at the largest number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// All attempts.
    pub all: Cost,
    /// Attempts whose result was not taken.
    pub wasted: Cost,
    /// Attempts beyond the first of their task.
    pub retries: u64,
    /// Attempts that finished a task which another one had finished: proved again.
    pub repeated: u64,
    /// All attempts, by kind of task.
    pub by_kind: BTreeMap<Kind, Cost>,
    /// All attempts, by model of the device.
    pub by_device: BTreeMap<String, Cost>,
}

/// All receipts of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The batch.
    pub batch: BatchId,
    /// Attempts whose results the coordinator has taken, and whose receipts are here.
    pub accepted: BTreeSet<AttemptId>,
    /// Attempts whose results it has taken, but whose receipts it does not have: their cost is not in the totals.
    pub missing: BTreeSet<AttemptId>,
    /// In the order of attempts.
    pub receipts: Vec<SignedReceipt>,
    /// What they add up to.
    pub totals: Totals,
}

/// The file that a coordinator makes of a batch's receipts: a bundle before it is added up.
#[derive(Deserialize)]
struct ReceiptsFile {
    batch: BatchId,
    accepted: BTreeSet<AttemptId>,
    receipts: Vec<SignedReceipt>,
}

/// Why a bundle is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// More receipts than allowed.
    #[error("a bundle is limited to {RECEIPTS_MAX} receipts, got {got}")]
    TooMany {
        /// What was given.
        got: usize,
    },
    /// A receipt is not valid.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The signer is not trusted.
    #[error("worker {worker} is not trusted")]
    Untrusted {
        /// The signer.
        worker: WorkerId,
    },
    /// A receipt of another batch.
    #[error("attempt {attempt} belongs to another batch")]
    OtherBatch {
        /// Its attempt.
        attempt: AttemptId,
    },
    /// Two receipts of one attempt, or receipts out of order.
    #[error("the receipt of attempt {attempt} is repeated or out of order")]
    Order {
        /// The attempt.
        attempt: AttemptId,
    },
    /// An accepted attempt has no receipt, or one that does not say finished.
    #[error("accepted attempt {attempt} has no receipt of a finished task")]
    Unfounded {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The file does not decode.
    #[error("not a file of receipts: {reason}")]
    Malformed {
        /// Why.
        reason: String,
    },
    /// An attempt is called missing although its receipt is here.
    #[error("the receipt of attempt {attempt} is called missing but is here")]
    NotMissing {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The sums are wrong.
    #[error("the totals are not the sums of the receipts")]
    Totals,
}

impl Bundle {
    /// Reads and adds up the file `receipts.json` that a coordinator makes of a batch.
    ///
    /// # Errors
    /// [`BundleError::Malformed`], and as [`Bundle::new`].
    pub fn from_file(bytes: &[u8]) -> Result<Self, BundleError> {
        let file: ReceiptsFile = serde_json::from_slice(bytes)
            .map_err(|error| BundleError::Malformed { reason: error.to_string() })?;
        Self::new(file.batch, file.accepted, file.receipts)
    }

    /// Collects receipts, in any order.
    ///
    /// # Errors
    /// As [`Bundle::verify`], with every signer trusted.
    pub fn new(
        batch: BatchId,
        accepted: BTreeSet<AttemptId>,
        mut receipts: Vec<SignedReceipt>,
    ) -> Result<Self, BundleError> {
        receipts.sort_by_key(|signed| signed.receipt.attempt);
        let here: BTreeSet<AttemptId> = receipts.iter().map(|signed| signed.receipt.attempt).collect();
        let (accepted, missing) = accepted.into_iter().partition(|attempt| here.contains(attempt));
        let totals = totals(&accepted, &receipts);
        let bundle = Self { batch, accepted, missing, receipts, totals };
        bundle.verify(|_, _| true)?;
        Ok(bundle)
    }

    /// Checks every signature and every sum. `is_trusted` is asked about every signer: number and public key.
    ///
    /// # Errors
    /// [`BundleError`] for the first thing that is wrong.
    pub fn verify(&self, is_trusted: impl Fn(WorkerId, &[u8; 32]) -> bool) -> Result<(), BundleError> {
        if self.receipts.len() > RECEIPTS_MAX {
            return Err(BundleError::TooMany { got: self.receipts.len() });
        }
        let mut before = None;
        let mut finished = BTreeSet::new();
        for signed in &self.receipts {
            let receipt = &signed.receipt;
            let attempt = receipt.attempt;
            signed.verify()?;
            if !is_trusted(receipt.worker, &signed.public_key) {
                return Err(BundleError::Untrusted { worker: receipt.worker });
            }
            if receipt.batch != self.batch {
                return Err(BundleError::OtherBatch { attempt });
            }
            if before.is_some_and(|before| before >= attempt) {
                return Err(BundleError::Order { attempt });
            }
            before = Some(attempt);
            if self.missing.contains(&attempt) {
                return Err(BundleError::NotMissing { attempt });
            }
            if receipt.outcome == Outcome::Finished {
                finished.insert(attempt);
            }
        }
        if let Some(attempt) = self.accepted.iter().find(|attempt| !finished.contains(attempt)) {
            return Err(BundleError::Unfounded { attempt: *attempt });
        }
        if totals(&self.accepted, &self.receipts) != self.totals {
            return Err(BundleError::Totals);
        }
        Ok(())
    }
}

fn totals(accepted: &BTreeSet<AttemptId>, receipts: &[SignedReceipt]) -> Totals {
    let mut totals = Totals::default();
    let (mut tasks, mut finished) = (BTreeSet::new(), BTreeSet::new());
    for signed in receipts {
        let receipt = &signed.receipt;
        totals.all.add(signed);
        totals.by_kind.entry(receipt.kind).or_default().add(signed);
        totals.by_device.entry(receipt.device.clone()).or_default().add(signed);
        if !accepted.contains(&receipt.attempt) {
            totals.wasted.add(signed);
        }
        if !tasks.insert(receipt.key) {
            totals.retries += 1;
        }
        if receipt.outcome == Outcome::Finished && !finished.insert(receipt.key) {
            totals.repeated += 1;
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use assay_schedule::Hash;

    use super::*;
    use crate::receipt::tests::{corruptions, key, receipt};

    fn bundle() -> Bundle {
        let (one, two) = (key(1), key(2));
        let mut other = receipt(&one, 3);
        other.key = Hash([8; 32]);
        other.device = "cpu".into();
        other.kind = Kind::Fold;
        let mut failed = receipt(&two, 1);
        failed.outcome = Outcome::Failed;
        failed.outputs.clear();
        let receipts =
            vec![receipt(&one, 2).sign(&one).unwrap(), other.sign(&one).unwrap(), failed.sign(&two).unwrap()];
        Bundle::new(BatchId(7), [AttemptId(2), AttemptId(3)].into(), receipts).unwrap()
    }

    #[test]
    fn a_bundle_adds_up_and_tells_wasted_work_from_the_rest() {
        let bundle = bundle();
        let totals = &bundle.totals;
        assert_eq!(
            totals.all,
            Cost {
                attempts: 3,
                wall_ms: 3000,
                cpu_ms: 2700,
                gpu_ms: 2400,
                fetched_bytes: 300,
                published_bytes: 600,
                transfer_retries: 3,
            }
        );
        assert_eq!((totals.wasted.attempts, totals.wasted.gpu_ms, totals.retries), (1, 800, 1));
        assert_eq!(totals.repeated, 0, "the first attempt failed");
        assert_eq!(totals.by_kind[&Kind::Shard].attempts, 2);
        assert_eq!((totals.by_device["cpu"].gpu_ms, totals.by_device["NVIDIA H200"].gpu_ms), (800, 1600));
        let text = serde_json::to_string(&bundle).unwrap();
        let back: Bundle = serde_json::from_str(&text).unwrap();
        assert_eq!(back, bundle);
        back.verify(|_, _| true).unwrap();
    }

    #[test]
    fn a_task_that_was_finished_twice_is_counted() {
        let one = key(1);
        let receipts = [4, 5, 6].map(|attempt| receipt(&one, attempt).sign(&one).unwrap());
        let bundle = Bundle::new(BatchId(7), [AttemptId(4)].into(), receipts.into()).unwrap();
        assert_eq!((bundle.totals.repeated, bundle.totals.retries, bundle.totals.wasted.attempts), (2, 2, 2));
    }

    #[test]
    fn a_coordinators_file_is_added_up_and_says_what_is_missing() {
        let good = bundle();
        let file = |accepted: &[u64]| {
            serde_json::to_vec(&serde_json::json!({
                "batch": 7, "accepted": accepted, "receipts": good.receipts.iter().rev().collect::<Vec<_>>(),
            }))
            .unwrap()
        };
        assert_eq!(Bundle::from_file(&file(&[2, 3])).unwrap(), good);
        let partial = Bundle::from_file(&file(&[2, 3, 99])).unwrap();
        assert_eq!(partial.missing, [AttemptId(99)].into());
        assert_eq!(partial.totals, good.totals);
        assert!(matches!(Bundle::from_file(b"{}"), Err(BundleError::Malformed { .. })));
    }

    #[test]
    fn a_change_of_any_field_is_rejected() {
        let bundle = bundle();
        let all = corruptions(&serde_json::to_value(&bundle).unwrap());
        assert!(all.len() > 150, "{}", all.len());
        for (path, value) in all {
            let Ok(changed) = serde_json::from_value::<Bundle>(value) else { continue };
            // A set does not notice that it is given the same thing twice, and then nothing has changed.
            if changed != bundle {
                assert!(changed.verify(|_, _| true).is_err(), "a changed {path} is accepted");
            }
        }
    }

    #[test]
    fn strangers_other_batches_and_claims_without_a_receipt_are_rejected() {
        let good = bundle();
        let one = key(1).worker();
        let untrusted = good.verify(|worker, _| worker == one).unwrap_err();
        assert_eq!(untrusted, BundleError::Untrusted { worker: key(2).worker() });
        let new = |batch, accepted: &[u64]| {
            let accepted = accepted.iter().map(|attempt| AttemptId(*attempt)).collect();
            Bundle::new(BatchId(batch), accepted, good.receipts.clone())
        };
        assert!(matches!(new(8, &[2, 3]), Err(BundleError::OtherBatch { .. })));
        assert_eq!(new(7, &[1]).unwrap_err(), BundleError::Unfounded { attempt: AttemptId(1) });
        let mut hidden = good.clone();
        hidden.missing.insert(AttemptId(2));
        assert_eq!(hidden.verify(|_, _| true), Err(BundleError::NotMissing { attempt: AttemptId(2) }));
        let mut twice = good.receipts.clone();
        twice.push(twice[0].clone());
        assert!(matches!(Bundle::new(BatchId(7), [].into(), twice), Err(BundleError::Order { .. })));
    }
}
