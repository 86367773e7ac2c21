//! Proved batches as files, from whoever proves to the operator's service: `<previous root, hexadecimal>.batch`.
//!
//! Mark `ASPB`, version 2; BLAKE3 of the verifying key (32); the five values (160); length of the proof (u32 LE), proof; data; BLAKE3 of
//! everything before (32). Version 1 had no verifying key: such a file is read, but its batch is not claimed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use assay_l1::envelope::message::PROOF_BYTES_MAX;
use assay_l1::envelope::MESSAGE_BYTES_MAX;
use assay_l1::StoreError;
use assay_l1_signer::store::file;

use crate::types::{Values, PREV_ROOT};

const MARK: [u8; 5] = *b"ASPB\x02";
/// Of files without a verifying key.
const MARK_OLD: [u8; 5] = *b"ASPB\x01";
const SUM_BYTES: usize = 32;
/// Around the data in its message on the chain.
const MESSAGE_HEAD_BYTES: usize = 40;
/// Longest data that can be published, in bytes.
pub const DATA_BYTES_MAX: usize = MESSAGE_BYTES_MAX - MESSAGE_HEAD_BYTES;
const BYTES_MAX: u64 = (MESSAGE_BYTES_MAX + PROOF_BYTES_MAX + 1_024) as u64;

/// A proved batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvedBatch {
    /// BLAKE3 of the verifying key (arkworks, compressed) under which the proof verifies; `None` in a file of an earlier
    /// version, which does not say it.
    pub verifying_key: Option<[u8; 32]>,
    /// What its claim says.
    pub values: Values,
    /// The proof's own encoding.
    pub proof: Vec<u8>,
    /// What a reader needs to execute it.
    pub data: Vec<u8>,
}

impl ProvedBatch {
    fn encode(&self, verifying_key: &[u8; 32]) -> Vec<u8> {
        let length = (self.proof.len() as u32).to_le_bytes();
        let values = self.values.as_flattened();
        let mut bytes = [&MARK[..], verifying_key, values, &length, &self.proof, &self.data].concat();
        let sum = blake3::hash(&bytes);
        bytes.extend(sum.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM_BYTES)?)?;
        if blake3::hash(content).as_bytes().as_slice() != sum {
            return None;
        }
        let (verifying_key, mut rest) = match content.strip_prefix(&MARK) {
            Some(rest) => rest.split_first_chunk::<32>().map(|(key, rest)| (Some(*key), rest))?,
            None => (None, content.strip_prefix(&MARK_OLD)?),
        };
        let mut values = Values::default();
        for value in &mut values {
            let (head, tail) = rest.split_first_chunk()?;
            (*value, rest) = (*head, tail);
        }
        let (length, rest) = rest.split_first_chunk()?;
        let (proof, data) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let batch = Self { verifying_key, values, proof: proof.to_vec(), data: data.to_vec() };
        batch.is_in_bounds().then_some(batch)
    }

    fn is_in_bounds(&self) -> bool {
        self.proof.len() <= PROOF_BYTES_MAX && self.data.len() <= DATA_BYTES_MAX
    }
}

/// A directory of proved batches.
#[derive(Debug, Clone)]
pub struct BatchDir(PathBuf);

impl BatchDir {
    /// In this directory, which need not be there yet.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// The file of the batch that starts at this state, which need not be there.
    #[must_use]
    pub fn path(&self, prev_root: &[u8; 32]) -> PathBuf {
        self.0.join(format!("{}.batch", hex::encode(prev_root)))
    }

    /// Hands a batch to the operator's service; for the prover's side. Replaces one that starts at the same state.
    ///
    /// # Errors
    /// `Format` if proof or data are too long to be published, or the verifying key is not named; `Storage`.
    pub fn put(&self, batch: &ProvedBatch) -> Result<(), StoreError> {
        let path = self.path(&batch.values[PREV_ROOT]);
        let format = |detail: &str| StoreError::Format { path: path.clone(), detail: detail.to_owned() };
        if !batch.is_in_bounds() {
            return Err(format("proof or data are too long"));
        }
        let verifying_key = batch.verifying_key.as_ref().ok_or_else(|| format("no verifying key"))?;
        std::fs::create_dir_all(&self.0)
            .map_err(|source| StoreError::Storage { path: self.0.clone(), source })?;
        file::write(&path, &batch.encode(verifying_key))
    }

    /// The batch that starts at this state, `None` if it is not there.
    ///
    /// # Errors
    /// `Format` if the file is damaged; `Storage`.
    pub fn get(&self, prev_root: &[u8; 32]) -> Result<Option<ProvedBatch>, StoreError> {
        let path = self.path(prev_root);
        let Some(bytes) = file::read(&path, BYTES_MAX)? else { return Ok(None) };
        let batch = ProvedBatch::decode(&bytes).filter(|batch| batch.values[PREV_ROOT] == *prev_root);
        batch.map(Some).ok_or_else(|| StoreError::Format { path, detail: "no proved batch".to_owned() })
    }

    /// When the batch's file was written; `None` if it is not there, or nobody can say.
    #[must_use]
    pub fn written(&self, prev_root: &[u8; 32]) -> Option<SystemTime> {
        std::fs::metadata(self.path(prev_root)).and_then(|data| data.modified()).ok()
    }

    /// The states that batches start at, in no particular order of the chain.
    ///
    /// # Errors
    /// `Storage`.
    pub fn list(&self) -> Result<Vec<[u8; 32]>, StoreError> {
        let storage = |source| StoreError::Storage { path: self.0.clone(), source };
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(storage)?,
        };
        let mut roots = Vec::new();
        for entry in entries {
            let name = entry.map_err(storage)?.file_name();
            let Some(text) = name.to_str().and_then(|name| name.strip_suffix(".batch")) else { continue };
            let mut root = [0; 32];
            if hex::decode_to_slice(text, &mut root).is_ok() {
                roots.push(root);
            }
        }
        roots.sort_unstable();
        Ok(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> ProvedBatch {
        ProvedBatch {
            verifying_key: Some([8; 32]),
            values: [[1; 32], [2; 32], [3; 32], [4; 32], [5; 32]],
            proof: vec![6; 128],
            data: vec![7; 50],
        }
    }

    #[test]
    fn a_batch_comes_back_as_it_was_put_and_a_damaged_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let batches = BatchDir::new(&dir.path().join("deep"));
        assert!(batches.list().unwrap().is_empty());
        batches.put(&batch()).unwrap();
        assert_eq!(batches.list().unwrap(), [[1; 32]]);
        assert_eq!(batches.get(&[1; 32]).unwrap(), Some(batch()));
        assert_eq!(batches.get(&[2; 32]).unwrap(), None);
        let bytes = batch().encode(&[8; 32]);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(ProvedBatch::decode(&other), None, "byte {at}");
            assert_eq!(ProvedBatch::decode(&bytes[..at]), None, "cut at {at}");
        }
        let long = ProvedBatch { proof: vec![0; PROOF_BYTES_MAX + 1], ..batch() };
        assert!(batches.put(&long).is_err());
        assert_eq!(ProvedBatch::decode(&long.encode(&[8; 32])), None);
    }

    #[test]
    fn a_file_of_the_version_before_is_read_and_names_no_key_and_none_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let batches = BatchDir::new(dir.path());
        let old = ProvedBatch { verifying_key: None, ..batch() };
        assert!(batches.put(&old).is_err() && batches.list().unwrap().is_empty());
        let with_key = batch().encode(&[8; 32]);
        let content = &with_key[MARK.len() + 32..with_key.len() - SUM_BYTES];
        let mut bytes = [&MARK_OLD[..], content].concat();
        let sum = blake3::hash(&bytes);
        bytes.extend(sum.as_bytes());
        std::fs::write(batches.path(&[1; 32]), &bytes).unwrap();
        assert_eq!(batches.get(&[1; 32]).unwrap(), Some(old));
    }

    #[test]
    fn a_changed_batch_is_read_as_what_it_encodes_or_refused() {
        let empty = ProvedBatch { proof: Vec::new(), data: Vec::new(), ..batch() };
        // Without the checksum, which any change would break.
        let corpus = [batch(), empty].map(|batch| {
            let bytes = batch.encode(&[8; 32]);
            bytes[..bytes.len() - SUM_BYTES].to_vec()
        });
        assay_l1_fuzz::Target::new("batch", &corpus).run(|bytes| {
            assert_eq!(ProvedBatch::decode(bytes), None);
            let sealed = [bytes, blake3::hash(bytes).as_bytes()].concat();
            let Some(batch) = ProvedBatch::decode(&sealed) else { return false };
            // The version before names no key, and is read only.
            if let Some(key) = &batch.verifying_key {
                assert_eq!(batch.encode(key), sealed);
            }
            true
        });
    }
}
