//! Hands proved batches to a running `assay l1 operator`: the seam between proving and the contract on Bitcoin.
//!
//! A batch is handed over after its proof was verified and before its result counts as finished; so whoever finds a
//! result finds the batch handed over, and a run that was killed in between does it again. What the operator has is not
//! touched: a proof made anew is another one of the same statement, and a batch that the operator may have claimed
//! cannot be replaced.

use std::path::Path;

use assay_l1::StoreError;
use assay_l1_parties::service::batches::{BatchDir, ProvedBatch};
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
    /// The folder.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Puts a verified batch into the folder of an operator; nothing happens if it is there.
///
/// # Errors
/// [`HandOverError`].
pub fn hand_over(folder: &Path, proved: &Proved, data: &[u8]) -> Result<(), HandOverError> {
    let values = values(proved);
    let batches = BatchDir::new(folder);
    match batches.get(&values[PREV_ROOT]) {
        Ok(Some(there)) if there.values == values => return Ok(()),
        Ok(Some(_)) => {
            let from = hex::encode(values[PREV_ROOT]);
            return Err(HandOverError::Other { from, folder: folder.display().to_string() });
        }
        // A damaged file is no batch, and the operator says so, too.
        Ok(None) | Err(StoreError::Format { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let batch = ProvedBatch { values, proof: proved.proof_bytes.clone(), data: data.to_vec() };
    Ok(batches.put(&batch)?)
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
        assert!(matches!(hand_over(&folder, &other, b"other"), Err(HandOverError::Other { .. })));
        assert_eq!(batches.get(&from).unwrap().unwrap(), there);
        // What is left of a damaged file is replaced.
        std::fs::write(folder.join(format!("{}.batch", hex::encode(from))), b"junk").unwrap();
        hand_over(&folder, &proved_batch, b"data").unwrap();
        assert_eq!(batches.get(&from).unwrap().unwrap(), there);
    }
}
