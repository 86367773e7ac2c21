//! Hands proved batches to a running `assay l1 operator`: the seam between proving and the contract on Bitcoin.
//!
//! A batch is handed over after its proof was verified, and settled where it is settled, and before its result counts as
//! finished; so whoever finds a result finds the batch handed over, and a run that was killed in between does it again.
//! What the operator has is not touched: a proof made anew is another one of the same statement, and a batch that the
//! operator may have claimed cannot be replaced. [`check`] tells beforehand what would be refused for good.

use std::path::{Path, PathBuf};

use assay_l1::StoreError;
use assay_l1_parties::service::batches::{BatchDir, ProvedBatch, DATA_BYTES_MAX};
use assay_l1_parties::{Values, DIGEST, PREV_ROOT};

use crate::proved::Proved;
use crate::statement;

/// Why a batch was not handed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// Another batch begins at the same state.
    #[error(
        "another batch from state {from} was handed to the operator in {folder} before, and may stand on Bitcoin: \
         each rollup needs a folder of its own"
    )]
    Other {
        /// Commitment to the state, hex.
        from: String,
        /// The folder.
        folder: String,
    },
    /// The same batch with a proof under another verifying key, or a file of an earlier version that does not say under which.
    #[error(
        "{} has the same batch with another proof, which is under {there}; this one is under the verifying key {key}. If the \
         operator has published neither its data nor its claim, stop it, take the file away and start it again", file.display()
    )]
    OtherKey {
        /// The batch's file.
        file: PathBuf,
        /// What is known of its key.
        there: String,
        /// BLAKE3 of this proof's, hex.
        key: String,
    },
    /// Longer than what fits into a message on Bitcoin.
    #[error(
        "the batch has {got} bytes of data, of which {DATA_BYTES_MAX} can be published: cut it into smaller batches"
    )]
    TooLong {
        /// Bytes of data.
        got: usize,
    },
    /// The folder.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HandOverError {
    /// Whether the same call may work later: only the folder's troubles pass.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(StoreError::Storage { .. }))
    }
}

/// Puts a verified batch into the folder of an operator; nothing happens if it is there.
///
/// # Errors
/// [`HandOverError`].
pub fn hand_over(folder: &Path, proved: &Proved, data: &[u8]) -> Result<(), HandOverError> {
    if is_there(folder, proved, data)? {
        return Ok(());
    }
    let batch = ProvedBatch {
        verifying_key: Some(proved.verifying_key_hash()),
        values: values(proved),
        proof: proved.proof_bytes.clone(),
        data: data.to_vec(),
    };
    Ok(BatchDir::new(folder).put(&batch)?)
}

/// Whether [`hand_over`] would take a batch: what it refuses for good is to be known before the batch is settled. Writes nothing.
///
/// # Errors
/// [`HandOverError`].
pub fn check(folder: &Path, proved: &Proved, data: &[u8]) -> Result<(), HandOverError> {
    is_there(folder, proved, data).map(drop)
}

/// Whether the batch has been handed over.
fn is_there(folder: &Path, proved: &Proved, data: &[u8]) -> Result<bool, HandOverError> {
    if data.len() > DATA_BYTES_MAX {
        return Err(HandOverError::TooLong { got: data.len() });
    }
    let (values, key) = (values(proved), proved.verifying_key_hash());
    let batches = BatchDir::new(folder);
    let there = match batches.get(&values[PREV_ROOT]) {
        Ok(Some(there)) => there,
        // A damaged file is no batch, and the operator says so, too.
        Ok(None) | Err(StoreError::Format { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if there.values != values {
        let from = hex::encode(values[PREV_ROOT]);
        return Err(HandOverError::Other { from, folder: folder.display().to_string() });
    }
    match there.verifying_key {
        Some(known) if known == key => Ok(true),
        // The very proof, in a file of an earlier version: now it says its key.
        None if there.proof == proved.proof_bytes => Ok(false),
        other => {
            let there = other.map_or_else(|| "no key that is known".to_owned(), hex::encode);
            Err(HandOverError::OtherKey {
                file: batches.path(&values[PREV_ROOT]),
                there,
                key: hex::encode(key),
            })
        }
    }
}

/// What the claim will sign: the four public values, and their digest.
fn values(proved: &Proved) -> Values {
    let mut values = Values::default();
    for (value, part) in values.iter_mut().zip(proved.public_values.chunks_exact(32)) {
        value.copy_from_slice(part);
    }
    values[DIGEST] = statement::digest(&proved.public_values);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{small_proof, small_proof_of, SmallProof};
    use ark_serialize::CanonicalSerialize;

    fn proved(small: &SmallProof) -> Proved {
        let (mut proof, mut vk) = (Vec::new(), Vec::new());
        small.proof.serialize_compressed(&mut proof).unwrap();
        small.vk.serialize_compressed(&mut vk).unwrap();
        Proved::new(&proof, &vk, small.public_values, true).unwrap()
    }

    #[test]
    fn a_batch_is_handed_over_once_and_no_other_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("batches");
        let small = small_proof();
        let proved_batch = proved(&small);
        hand_over(&folder, &proved_batch, b"data").unwrap();
        let from: [u8; 32] = small.public_values[..32].try_into().unwrap();
        let batches = BatchDir::new(&folder);
        let there = batches.get(&from).unwrap().unwrap();
        assert_eq!(there.values.as_flattened()[..128], small.public_values);
        assert_eq!(there.values[DIGEST], statement::digest(&small.public_values));
        assert_eq!(there.verifying_key, Some(proved_batch.verifying_key_hash()));
        assert_eq!(
            (there.proof.as_slice(), there.data.as_slice()),
            (&proved_batch.proof_bytes[..], &b"data"[..])
        );
        // A proof of the same statement made anew changes nothing.
        let mut anew = proved_batch.clone();
        anew.proof_bytes = vec![1; 128];
        hand_over(&folder, &anew, b"data").unwrap();
        assert_eq!(batches.get(&from).unwrap().unwrap(), there);
        // Another batch from the same state does not get in.
        let mut public_values = small.public_values;
        public_values[64] ^= 1;
        let other = proved(&small_proof_of(public_values));
        let refused = hand_over(&folder, &other, b"other").unwrap_err();
        assert!(matches!(refused, HandOverError::Other { .. }) && !refused.is_transient());
        // Nor does the same one under another key.
        let mut rekeyed = proved_batch.clone();
        rekeyed.vk.alpha_g1 = -rekeyed.vk.alpha_g1;
        let refused = check(&folder, &rekeyed, b"data").unwrap_err();
        assert!(matches!(refused, HandOverError::OtherKey { .. }) && !refused.is_transient(), "{refused}");
        assert_eq!(batches.get(&from).unwrap().unwrap(), there);
        // What is left of a damaged file is replaced.
        std::fs::write(folder.join(format!("{}.batch", hex::encode(from))), b"junk").unwrap();
        hand_over(&folder, &proved_batch, b"data").unwrap();
        assert_eq!(batches.get(&from).unwrap().unwrap(), there);
    }

    #[test]
    fn a_file_of_the_version_before_is_replaced_by_the_same_proof_only() {
        let dir = tempfile::tempdir().unwrap();
        let small = small_proof();
        let proved = proved(&small);
        hand_over(dir.path(), &proved, b"data").unwrap();
        let from: [u8; 32] = small.public_values[..32].try_into().unwrap();
        let batches = BatchDir::new(dir.path());
        let with_key = std::fs::read(batches.path(&from)).unwrap();
        // Without the key that comes after the mark.
        let mut old = [&b"ASPB\x01"[..], &with_key[5 + 32..with_key.len() - 32]].concat();
        let sum = blake3::hash(&old);
        old.extend(sum.as_bytes());
        std::fs::write(batches.path(&from), &old).unwrap();
        let mut anew = proved.clone();
        anew.proof_bytes = vec![1; 128];
        let refused = hand_over(dir.path(), &anew, b"data").unwrap_err();
        assert!(matches!(refused, HandOverError::OtherKey { .. }), "{refused}");
        assert_eq!(std::fs::read(batches.path(&from)).unwrap(), old);
        hand_over(dir.path(), &proved, b"data").unwrap();
        assert_eq!(std::fs::read(batches.path(&from)).unwrap(), with_key);
    }

    #[test]
    fn what_does_not_fit_into_a_message_is_refused_for_good_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let refused = check(dir.path(), &proved(&small_proof()), &vec![0; DATA_BYTES_MAX + 1]).unwrap_err();
        assert!(matches!(refused, HandOverError::TooLong { .. }) && !refused.is_transient());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
