//! What a worker signs about every attempt it has worked on.
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
//!
//! Every field of variable size has its length in front, so two receipts never have the same encoding.

use assay_schedule::{AttemptId, BatchId, Hash, Kind, WorkerId};
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::key::{worker_of, WorkerKey};

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
    #[serde(with = "crate::hexed")]
    pub public_key: [u8; 32],
    /// The signature.
    #[serde(with = "crate::hexed")]
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
        let Usage { wall_ms, cpu_ms, gpu_ms, memory_bytes_peak, fetched_bytes, published_bytes, retries } =
            self.usage;
        for number in [wall_ms, cpu_ms, gpu_ms, memory_bytes_peak, fetched_bytes, published_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&retries.to_le_bytes());
        Ok(out)
    }

    /// Signs it.
    ///
    /// # Errors
    /// [`ReceiptError::TooLong`]; [`ReceiptError::Worker`] if the receipt names another worker than the key's.
    pub fn sign(self, key: &WorkerKey) -> Result<SignedReceipt, ReceiptError> {
        if self.worker != key.worker() {
            return Err(ReceiptError::Worker { worker: self.worker });
        }
        let public_key = key.public();
        let signature = key.signing().sign(&self.encode(&public_key)?).to_bytes();
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

/// A length that fits its field.
fn short<T: TryFrom<usize>>(what: &'static str, got: usize, max: usize) -> Result<T, ReceiptError> {
    let fits = T::try_from(got).ok().filter(|_| got <= max);
    fits.ok_or(ReceiptError::TooLong { what, max, got })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::Value;

    pub(crate) fn key(seed: u8) -> WorkerKey {
        WorkerKey::from_seed([seed; 32])
    }

    pub(crate) fn receipt(key: &WorkerKey, attempt: u64) -> Receipt {
        Receipt {
            worker: key.worker(),
            batch: BatchId(7),
            attempt: AttemptId(attempt),
            key: Hash([3; 32]),
            kind: Kind::Shard,
            outcome: Outcome::Finished,
            inputs: vec![Content { hash: Hash([4; 32]), bytes: 100 }],
            outputs: vec![
                Content { hash: Hash([5; 32]), bytes: 200 },
                Content { hash: Hash([6; 32]), bytes: 0 },
            ],
            device: "NVIDIA H200".into(),
            build: "0.1.0+abc".into(),
            usage: Usage {
                wall_ms: 1000,
                cpu_ms: 900,
                gpu_ms: 800,
                memory_bytes_peak: 1 << 30,
                fetched_bytes: 100,
                published_bytes: 200,
                retries: 1,
            },
        }
    }

    /// Every way to change one leaf of a JSON value, with the leaf's path.
    pub(crate) fn corruptions(value: &Value) -> Vec<(String, Value)> {
        fn change(leaf: &Value) -> Vec<Value> {
            match leaf {
                Value::Number(number) => {
                    let number = number.as_u64().unwrap();
                    vec![Value::from(number ^ 1), Value::from(number.wrapping_add(1 << 33))]
                }
                Value::String(text) => {
                    let mut flipped = text.clone().into_bytes();
                    let at = flipped.len() / 2;
                    flipped[at] = if flipped[at] == b'0' { b'1' } else { b'0' };
                    let longer = format!("{text}00");
                    vec![Value::from(String::from_utf8(flipped).unwrap()), Value::from(longer)]
                }
                Value::Bool(flag) => vec![Value::from(!flag)],
                other => panic!("no leaf: {other}"),
            }
        }
        match value {
            Value::Object(map) => {
                let changed = map.iter().flat_map(|(name, inner)| {
                    corruptions(inner).into_iter().map(move |(path, inner)| {
                        let mut map = map.clone();
                        map.insert(name.clone(), inner);
                        (format!("{name}.{path}"), Value::from(map))
                    })
                });
                changed.collect()
            }
            Value::Array(items) => {
                let mut all = Vec::new();
                for (at, inner) in items.iter().enumerate() {
                    for (path, inner) in corruptions(inner) {
                        let mut items = items.clone();
                        items[at] = inner;
                        all.push((format!("{at}.{path}"), Value::from(items)));
                    }
                    let mut fewer = items.clone();
                    fewer.remove(at);
                    all.push((format!("{at} removed"), Value::from(fewer)));
                    let mut more = items.clone();
                    more.insert(at, inner.clone());
                    all.push((format!("{at} doubled"), Value::from(more)));
                }
                all
            }
            leaf => change(leaf).into_iter().map(|leaf| (String::new(), leaf)).collect(),
        }
    }

    #[test]
    fn a_signed_receipt_verifies_and_survives_json() {
        let key = key(1);
        let signed = receipt(&key, 9).sign(&key).unwrap();
        signed.verify().unwrap();
        let text = serde_json::to_string(&signed).unwrap();
        assert!(text.contains("NVIDIA H200") && text.contains("\"kind\":\"shard\""), "{text}");
        let back: SignedReceipt = serde_json::from_str(&text).unwrap();
        assert_eq!(back, signed);
        back.verify().unwrap();
    }

    #[test]
    fn a_change_of_any_field_is_rejected() {
        let key = key(1);
        let signed = receipt(&key, 9).sign(&key).unwrap();
        let all = corruptions(&serde_json::to_value(&signed).unwrap());
        let mut paths: Vec<&str> = all.iter().map(|(path, _)| path.trim_end_matches('.')).collect();
        paths.dedup();
        // Every field: 8 of the receipt, 7 of its usage, 2 of each of 3 contents, key and signature.
        let leaves = paths.iter().filter(|path| !path.ends_with("removed") && !path.ends_with("doubled"));
        assert_eq!(leaves.count(), 8 + 7 + 6 + 2, "{paths:?}");
        for (path, value) in all {
            let Ok(changed) = serde_json::from_value::<SignedReceipt>(value) else { continue };
            assert!(changed.verify().is_err(), "a changed {path} is accepted");
        }
    }

    #[test]
    fn only_the_named_worker_signs() {
        let (one, two) = (key(1), key(2));
        let error = receipt(&one, 9).sign(&two).unwrap_err();
        assert_eq!(error, ReceiptError::Worker { worker: one.worker() });
        // A thief who puts his own key beside the receipt and signs it himself.
        let mut stolen = receipt(&one, 9).sign(&one).unwrap();
        stolen.public_key = two.public();
        stolen.signature = two.signing().sign(&stolen.receipt.encode(&two.public()).unwrap()).to_bytes();
        assert_eq!(stolen.verify(), Err(ReceiptError::Worker { worker: one.worker() }));
    }

    #[test]
    fn the_encoding_is_the_documented_one() {
        let key = key(1);
        let mut plain = receipt(&key, 9);
        plain.inputs.clear();
        plain.outputs.truncate(1);
        let bytes = plain.encode(&key.public()).unwrap();
        let mut expected = Vec::new();
        expected.extend_from_slice(b"assay-receipt-01");
        expected.extend_from_slice(&key.public());
        expected.extend_from_slice(&key.worker().0.to_le_bytes());
        expected.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[3; 32]);
        expected.extend_from_slice(b"\0\x05shard\x0b\0NVIDIA H200\x09\x000.1.0+abc");
        expected.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
        expected.extend_from_slice(&[5; 32]);
        expected.extend_from_slice(&[200, 0, 0, 0, 0, 0, 0, 0]);
        for number in [1000u64, 900, 800, 1 << 30, 100, 200] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&[1, 0, 0, 0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn fields_have_limits() {
        let key = key(1);
        let mut long = receipt(&key, 9);
        long.device = "x".repeat(TEXT_BYTES_MAX + 1);
        assert!(matches!(long.sign(&key), Err(ReceiptError::TooLong { what: "the device", .. })));
        let mut many = receipt(&key, 9);
        many.inputs = vec![Content { hash: Hash([0; 32]), bytes: 0 }; CONTENTS_MAX + 1];
        assert!(matches!(many.sign(&key), Err(ReceiptError::TooLong { what: "the inputs", .. })));
    }
}
