//! What a worker signs about every attempt it has worked on, and whether it has. Workers sign, coordinators verify.
//!
//! The signature is ed25519 (RFC 8032) over this encoding; numbers are little endian, lengths count bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 16 | `assay-receipt-01` |
//! | 32 | public key of the signer |
//! | 8 | worker |
//! | 8 | batch |
//! | 8 | attempt |
//! | 32 | key of the task: what makes two tasks the same |
//! | 1 | outcome: 0 finished, 1 failed, 2 cancelled |
//! | 1 + n | kind: length and name, as in JSON |
//! | 2 + n | device: length and model, UTF-8 |
//! | 2 + n | build: length and id, UTF-8 |
//! | 4 + 40 n | inputs: count, then for each the BLAKE3 hash (32) and the size (8) |
//! | 4 + 40 n | outputs: the same |
//! | 8 | wall time, ms |
//! | 8 | CPU time, ms |
//! | 8 | device time, ms |
//! | 8 | peak memory, bytes |
//! | 8 | bytes read from the store |
//! | 8 | bytes published |
//! | 4 | transfers that had to be repeated |
//! | 4, 4 | calls that a GPU was given twice; calls that went to the CPU because it had failed: left out if both are 0 |
//!
//! Every field of variable size has its length in front, and what may be left out is at the end and never zero, so two
//! receipts never have the same encoding.

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{AttemptId, BatchId, Hash, Kind, WorkerId};

pub mod hexed;

/// The first bytes of what is signed; another version has others.
pub const MAGIC: &[u8; 16] = b"assay-receipt-01";
/// Most inputs and most outputs of a receipt.
pub const CONTENTS_MAX: usize = 1 << 16;
/// Longest device model and longest build id, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;

/// How an attempt ended, as its worker saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It made its outputs.
    Finished,
    /// It failed.
    Failed,
    /// The coordinator took it back, or the worker left.
    Cancelled,
}

/// An artifact's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// BLAKE3 of the bytes.
    pub hash: Hash,
    /// Size.
    pub bytes: u64,
}

/// What an attempt used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// From the start of the task to its end, transfers not counted.
    pub wall_ms: u64,
    /// Processor time, user and system, of the task's process and its children.
    pub cpu_ms: u64,
    /// Time for which a GPU was set aside for the task, or busy with it where the runner measures that.
    pub gpu_ms: u64,
    /// Largest resident memory.
    pub memory_bytes_peak: u64,
    /// Bytes read from the store.
    pub fetched_bytes: u64,
    /// Bytes published, parts included.
    pub published_bytes: u64,
    /// Transfers that had to be repeated.
    pub retries: u32,
    /// Calls that the task's process gave its GPU a second time, because the first attempt had failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gpu_retries: u32,
    /// Calls that the task's process did on the CPU, because the GPU had failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gpu_fallbacks: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Usage {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { wall_ms, cpu_ms, gpu_ms, memory_bytes_peak, fetched_bytes, published_bytes, .. } = *self;
        for number in [wall_ms, cpu_ms, gpu_ms, memory_bytes_peak, fetched_bytes, published_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.retries.to_le_bytes());
        // Receipts from before these fields, and of all tasks whose GPU works, are signed as they always were.
        if (self.gpu_retries, self.gpu_fallbacks) != (0, 0) {
            out.extend_from_slice(&self.gpu_retries.to_le_bytes());
            out.extend_from_slice(&self.gpu_fallbacks.to_le_bytes());
        }
    }
}

/// A statement about one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Who.
    pub worker: WorkerId,
    /// For which batch.
    pub batch: BatchId,
    /// Which try.
    pub attempt: AttemptId,
    /// What makes two tasks the same.
    pub key: Hash,
    /// What the task does.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// What it read, in order.
    pub inputs: Vec<Content>,
    /// What it made, in order.
    pub outputs: Vec<Content>,
    /// Model of the device, `cpu` for none.
    pub device: String,
    /// Which program.
    pub build: String,
    /// What it used.
    pub usage: Usage,
}

/// A receipt with its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReceipt {
    /// The statement.
    pub receipt: Receipt,
    /// The signer's ed25519 key.
    #[serde(with = "hexed")]
    pub public_key: [u8; 32],
    /// The signature.
    #[serde(with = "hexed")]
    pub signature: [u8; 64],
}

/// Why a receipt is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// A field is longer than allowed.
    #[error("{what} of a receipt is limited to {max}, got {got}")]
    TooLong {
        /// Which.
        what: &'static str,
        /// The limit.
        max: usize,
        /// What was given.
        got: usize,
    },
    /// The key is no point of the curve, or a weak one.
    #[error("the public key is not valid")]
    Key,
    /// The worker's number belongs to another key.
    #[error("worker {worker} does not sign with this key")]
    Worker {
        /// The number.
        worker: WorkerId,
    },
    /// The signature is of another key or another receipt.
    #[error("the signature of attempt {attempt}'s receipt does not verify")]
    Signature {
        /// The attempt.
        attempt: AttemptId,
    },
}

impl Receipt {
    /// The bytes that are signed, see the module's page.
    ///
    /// # Errors
    /// [`ReceiptError::TooLong`].
    pub fn encode(&self, public_key: &[u8; 32]) -> Result<Vec<u8>, ReceiptError> {
        let mut out = Vec::with_capacity(256 + 40 * (self.inputs.len() + self.outputs.len()));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(public_key);
        for number in [self.worker.0, self.batch.0, self.attempt.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.key.0);
        out.push(match self.outcome {
            Outcome::Finished => 0,
            Outcome::Failed => 1,
            Outcome::Cancelled => 2,
        });
        let kind = self.kind.to_string();
        out.push(short("the kind", kind.len(), u8::MAX.into())?);
        out.extend_from_slice(kind.as_bytes());
        for (what, text) in [("the device", &self.device), ("the build", &self.build)] {
            out.extend_from_slice(&short::<u16>(what, text.len(), TEXT_BYTES_MAX)?.to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        for (what, contents) in [("the inputs", &self.inputs), ("the outputs", &self.outputs)] {
            out.extend_from_slice(&short::<u32>(what, contents.len(), CONTENTS_MAX)?.to_le_bytes());
            for content in contents {
                out.extend_from_slice(&content.hash.0);
                out.extend_from_slice(&content.bytes.to_le_bytes());
            }
        }
        self.usage.encode(&mut out);
        Ok(out)
    }

    /// Signs it.
    ///
    /// # Errors
    /// [`ReceiptError::TooLong`]; [`ReceiptError::Worker`] if the receipt names another worker than the key's.
    pub fn sign(self, key: &impl ReceiptKey) -> Result<SignedReceipt, ReceiptError> {
        let public_key = key.public();
        if self.worker != worker_of(&public_key) {
            return Err(ReceiptError::Worker { worker: self.worker });
        }
        let signature = key.sign(&self.encode(&public_key)?);
        Ok(SignedReceipt { receipt: self, public_key, signature })
    }
}

impl SignedReceipt {
    /// Checks that the worker's key has signed exactly this receipt. Whether that worker is trusted is the caller's to
    /// say, by [`SignedReceipt::public_key`].
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn verify(&self) -> Result<(), ReceiptError> {
        let Receipt { worker, attempt, .. } = self.receipt;
        let key = VerifyingKey::from_bytes(&self.public_key).map_err(|_| ReceiptError::Key)?;
        if worker_of(&self.public_key) != worker {
            return Err(ReceiptError::Worker { worker });
        }
        let bytes = self.receipt.encode(&self.public_key)?;
        // Strict: one key, one message, one signature.
        key.verify_strict(&bytes, &Signature::from_bytes(&self.signature))
            .map_err(|_| ReceiptError::Signature { attempt })
    }
}

/// An ed25519 key that signs receipts.
pub trait ReceiptKey {
    /// The public half.
    fn public(&self) -> [u8; 32];

    /// The signature of a message.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// Numbers up to this are exact in JSON readers that only know doubles.
const EXACT_BITS: u32 = 53;

/// The number of the worker that signs with a key: the low 53 bits of the key's hash, so that it is exact in every JSON
/// reader. It tells workers apart; trust is in the key itself.
pub fn worker_of(public_key: &[u8; 32]) -> WorkerId {
    let hash = blake3::derive_key("assay-agent 1 worker", public_key);
    let mut low = [0u8; 8];
    low.copy_from_slice(&hash[..8]);
    WorkerId(u64::from_le_bytes(low) & ((1 << EXACT_BITS) - 1))
}

/// A length that fits its field.
fn short<T: TryFrom<usize>>(what: &'static str, got: usize, max: usize) -> Result<T, ReceiptError> {
    let fits = T::try_from(got).ok().filter(|_| got <= max);
    fits.ok_or(ReceiptError::TooLong { what, max, got })
}
