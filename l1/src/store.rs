//! Small files that are either the old or the new version, whenever the process is killed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::Serialize;

/// Why a persisted file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused.
    #[error("cannot access {}: {source}", path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not what this program writes.
    #[error("{} is damaged or of another version: {detail}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        detail: String,
    },
    /// The file would be longer than what is read again; nothing was written.
    #[error("{} would have {bytes} bytes, more than the {limit} that are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The most that is read.
        limit: u64,
    },
}

/// Why a directory could not be taken.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process has it.
    Held { dir: PathBuf },
    /// The system refused.
    Store(StoreError),
}

/// Makes the directory if it is absent, and takes it for this process until the file is dropped.
///
/// # Errors
/// `Held`, `Store`.
pub(crate) fn lock_dir(dir: &Path) -> Result<File, LockError> {
    let path = dir.join("lock");
    let storage = |source| LockError::Store(StoreError::Storage { path: path.clone(), source });
    std::fs::create_dir_all(dir).map_err(storage)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(storage)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(LockError::Held { dir: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(storage(source)),
    }
}

/// Replaces the file at `path` by `bytes`, durably: new name, synchronised, renamed, directory synchronised.
///
/// # Errors
/// `Storage`; the old file is then still there.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let storage = |source| StoreError::Storage { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).open(&temporary).map_err(storage)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(storage)?;
    std::fs::rename(&temporary, path).map_err(storage)?;
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(storage)
}

/// Reads the file, `None` if there is none.
///
/// # Errors
/// `Storage`.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Storage { path: path.to_owned(), source }),
    }
}

/// Writes `value` as JSON with [`write_atomically`].
///
/// # Errors
/// `Storage`.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| StoreError::Format { path: path.to_owned(), detail: error.to_string() })?;
    write_atomically(path, &bytes)
}

/// Reads JSON, `None` if there is no file.
///
/// # Errors
/// `Format` if it does not parse; `Storage`.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| StoreError::Format { path: path.to_owned(), detail: error.to_string() })
}
