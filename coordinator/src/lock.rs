//! One process at a time per cache folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::fsio::{io_error, FileError};

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else holds it.
    #[error(
        "another assay process ({holder}) works in {folder}: wait for it, or give this one its own folder (ASSAY_CACHE; a coordinator's is --dir)"
    )]
    Held {
        /// What the other process wrote about itself.
        holder: String,
        /// The locked folder.
        folder: PathBuf,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Runs `work` while holding the exclusive lock of `folder`.
///
/// The system drops the lock when the process ends, however it ends, so a stale lock file is harmless.
///
/// # Errors
/// [`LockError`] if the lock was not free; otherwise what `work` returns.
pub fn with_lock<T, E: From<LockError>>(folder: &Path, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let path = folder.join("lock");
    let file = open(&path).map_err(|e| E::from(e.into()))?;
    let mut lock = fd_lock::RwLock::new(file);
    let mut guard = match lock.try_write() {
        Ok(guard) => guard,
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(E::from(LockError::Held { holder: holder(&path), folder: folder.to_owned() }));
        }
        Err(e) => return Err(E::from(LockError::File(io_error("lock", &path)(e)))),
    };
    sign(&mut guard).map_err(|e| E::from(LockError::File(io_error("write", &path)(e))))?;
    work()
}

fn open(path: &Path) -> Result<File, FileError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io_error("open", path))
}

fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    write!(file, "pid {}", std::process::id())
}

fn holder(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).map(|file| file.take(64).read_to_string(&mut text));
    match read {
        Ok(Ok(n)) if n > 0 => text,
        _ => "unknown pid".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let inner = with_lock(dir.path(), || {
            let second: Result<(), LockError> = with_lock(dir.path(), || Ok(()));
            Ok::<_, LockError>(second)
        })
        .unwrap();
        let message = inner.unwrap_err().to_string();
        assert!(message.contains(&format!("pid {}", std::process::id())), "{message}");
        assert!(message.contains("ASSAY_CACHE"), "{message}");
        with_lock(dir.path(), || Ok::<_, LockError>(())).unwrap();
    }
}
