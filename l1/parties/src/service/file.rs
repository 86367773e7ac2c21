//! Files of a service: the old or the new version, whenever the process is killed, and never a damaged one.
//!
//! Mark (4), version (1), content (bincode), BLAKE3 of everything before (32).

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use assay_l1::StoreError;
use assay_l1_signer::store::file;
use bincode::Options;
use serde::de::DeserializeOwned;
use serde::Serialize;

use super::error::ServiceError;

const MARK: [u8; 4] = *b"ASPS";
const SUM_BYTES: usize = 32;
/// Bytes of a file, at most.
const BYTES_MAX: u64 = 1 << 30;

/// What a file holds, and its version byte: another layout, another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A publication, or what publications have cost.
    Publication,
    /// A machine and its place in the chain.
    State,
}

impl Form {
    fn version(self) -> u8 {
        match self {
            Self::Publication => 1,
            Self::State => 2,
        }
    }

    /// What to do about a file of another version.
    fn advice(self) -> &'static str {
        match self {
            Self::Publication => "go on with the program that wrote it",
            Self::State => "remove this file, and nothing else: the state is made anew from the chain",
        }
    }
}

fn format(path: &Path, detail: impl ToString) -> StoreError {
    StoreError::Format { path: path.to_owned(), detail: detail.to_string() }
}

/// Replaces the file at `path`, durably.
///
/// # Errors
/// `TooLarge` for what [`read`] would refuse, `Storage`; the old file is then still there.
pub(super) fn write<T: Serialize>(path: &Path, form: Form, content: &T) -> Result<(), StoreError> {
    write_limited(path, form, content, BYTES_MAX)
}

fn write_limited<T: Serialize>(path: &Path, form: Form, content: &T, limit: u64) -> Result<(), StoreError> {
    let frame = (MARK.len() + 1 + SUM_BYTES) as u64;
    let length = bincode::serialized_size(content).map_err(|error| format(path, error))?;
    let bytes = length.saturating_add(frame);
    if bytes > limit {
        return Err(StoreError::TooLarge { path: path.to_owned(), bytes, limit });
    }
    let mut bytes = [MARK.as_slice(), &[form.version()]].concat();
    bincode::serialize_into(&mut bytes, content).map_err(|error| format(path, error))?;
    let sum = blake3::hash(&bytes);
    bytes.extend(sum.as_bytes());
    file::write(path, &bytes)
}

/// Reads what [`write`] wrote; `None` if there is no file.
pub(super) fn read<T: DeserializeOwned>(path: &Path, form: Form) -> Result<Option<T>, StoreError> {
    read_limited(path, form, BYTES_MAX)
}

fn read_limited<T: DeserializeOwned>(path: &Path, form: Form, limit: u64) -> Result<Option<T>, StoreError> {
    let Some(bytes) = file::read(path, limit)? else { return Ok(None) };
    let end = bytes.len().checked_sub(SUM_BYTES).filter(|end| *end > MARK.len());
    let end = end.ok_or_else(|| format(path, "too short"))?;
    let (content, sum) = bytes.split_at(end);
    if blake3::hash(content).as_bytes().as_slice() != sum {
        return Err(format(path, "the checksum does not fit"));
    }
    let content = content.strip_prefix(&MARK).ok_or_else(|| format(path, "not a file of a service"))?;
    let (version, content) = content.split_first().ok_or_else(|| format(path, "too short"))?;
    if *version != form.version() {
        let (own, advice) = (form.version(), form.advice());
        return Err(format(path, format_args!("version {version}, this program has {own}: {advice}")));
    }
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
        let read = || read::<Vec<u32>>(&path, Form::State);
        assert_eq!(read().unwrap(), None);
        let content = vec![7u32, 9];
        write(&path, Form::State, &content).unwrap();
        assert_eq!(read().unwrap(), Some(content));
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            std::fs::write(&path, &other).unwrap();
            assert!(read().is_err(), "byte {at}");
            std::fs::write(&path, &bytes[..at]).unwrap();
            assert!(read().is_err(), "cut at {at}");
        }
    }

    #[test]
    fn what_could_not_be_read_is_not_written_and_the_old_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let write = |content: &Vec<u8>| write_limited(&path, Form::State, content, 100);
        let read = || read_limited::<Vec<u8>>(&path, Form::State, 100);
        // Frame and length take 45 bytes.
        let longest = vec![7; 55];
        write(&longest).unwrap();
        assert_eq!(read().unwrap(), Some(longest.clone()));
        let error = write(&vec![7; 56]).unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { bytes: 101, limit: 100, .. }), "{error}");
        assert_eq!(read().unwrap(), Some(longest));
    }

    #[test]
    fn a_state_of_another_version_is_refused_with_what_to_do_and_a_publication_of_the_first_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, Form::Publication, &7u32).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[..9], *b"ASPS\x01\x07\0\0\0", "as ever");
        assert_eq!(read::<u32>(&path, Form::Publication).unwrap(), Some(7));
        let error = read::<u32>(&path, Form::State).unwrap_err().to_string();
        assert!(error.contains("version 1, this program has 2: remove this file"), "{error}");
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
