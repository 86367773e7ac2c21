//! Files of a service: the old or the new version, whenever the process is killed, and never a damaged one.
//!
//! Mark (5), content (bincode), BLAKE3 of everything before (32).

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use assay_l1::StoreError;
use assay_l1_signer::store::file;
use bincode::Options;
use serde::de::DeserializeOwned;
use serde::Serialize;

use super::error::ServiceError;

const MARK: [u8; 5] = *b"ASPS\x01";
const SUM_BYTES: usize = 32;
/// Bytes of a file, at most.
const BYTES_MAX: u64 = 1 << 30;

fn format(path: &Path, detail: impl ToString) -> StoreError {
    StoreError::Format { path: path.to_owned(), detail: detail.to_string() }
}

/// Replaces the file at `path`, durably.
pub(super) fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), StoreError> {
    let mut bytes = MARK.to_vec();
    bincode::serialize_into(&mut bytes, content).map_err(|error| format(path, error))?;
    let sum = blake3::hash(&bytes);
    bytes.extend(sum.as_bytes());
    file::write(path, &bytes)
}

/// Reads what [`write`] wrote; `None` if there is no file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let Some(bytes) = file::read(path, BYTES_MAX)? else { return Ok(None) };
    let end = bytes.len().checked_sub(SUM_BYTES).filter(|end| *end >= MARK.len());
    let end = end.ok_or_else(|| format(path, "too short"))?;
    let (content, sum) = bytes.split_at(end);
    if blake3::hash(content).as_bytes().as_slice() != sum {
        return Err(format(path, "the checksum does not fit"));
    }
    let content = content.strip_prefix(&MARK).ok_or_else(|| format(path, "another version"))?;
    decode(content).map(Some).map_err(|error| format(path, error))
}

/// The content of a file: all of it.
pub(super) fn decode<T: DeserializeOwned>(content: &[u8]) -> bincode::Result<T> {
    // As `bincode::serialize` writes it; that one's counterpart would take more than it reads.
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(BYTES_MAX).deserialize(content)
}

/// A directory that no other process works on.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    _lock: File,
}

impl Dir {
    /// Takes the directory, which is made if there is none.
    pub(super) fn take(path: &Path) -> Result<Self, ServiceError> {
        let lock = path.join("lock");
        let storage = |source| StoreError::Storage { path: lock.clone(), source };
        std::fs::create_dir_all(path).map_err(storage)?;
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&lock).map_err(storage)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(ServiceError::Locked { dir: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(storage(source).into()),
        }
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_any_bit_changed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), None);
        let content = vec![7u32, 9];
        write(&path, &content).unwrap();
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), Some(content));
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            std::fs::write(&path, &other).unwrap();
            assert!(read::<Vec<u32>>(&path).is_err(), "byte {at}");
            std::fs::write(&path, &bytes[..at]).unwrap();
            assert!(read::<Vec<u32>>(&path).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_directory_has_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let taken = Dir::take(dir.path()).unwrap();
        assert!(matches!(Dir::take(dir.path()), Err(ServiceError::Locked { .. })));
        drop(taken);
        Dir::take(dir.path()).unwrap();
    }
}
