//! One process at a time per cache folder, per folder of results, and per coordinator's folder.

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
        "another assay process ({holder}) works in {folder}: wait for it, or give this one its own folder with {setting}"
    )]
    Held {
        /// What the other process wrote about itself.
        holder: String,
        /// The locked folder.
        folder: PathBuf,
        /// What names another folder.
        setting: &'static str,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A folder that one process at a time works in.
#[derive(Debug, Clone, Copy)]
pub struct Locked<'a> {
    /// The folder; made if it is not there.
    pub folder: &'a Path,
    /// The lock's file in it.
    pub file: &'static str,
    /// What names another folder, for the message.
    pub setting: &'static str,
}

impl<'a> Locked<'a> {
    /// The folder of finished stages.
    pub fn cache(folder: &'a Path) -> Self {
        Self { folder, file: "lock", setting: "ASSAY_CACHE" }
    }

    /// The folder of results. Taking its lock also shows, before hours of work, that it can be written.
    pub fn out(folder: &'a Path) -> Self {
        Self { folder, file: ".lock", setting: "--out" }
    }

    /// What is a coordinator's own.
    pub fn coordinator(folder: &'a Path) -> Self {
        Self { folder, file: "lock", setting: "--dir" }
    }
}

/// Runs `work` while holding the exclusive lock of a folder.
///
/// The system drops the lock when the process ends, however it ends, so a stale lock file is harmless.
///
/// # Errors
/// [`LockError`] if the lock was not free; otherwise what `work` returns.
pub fn with_lock<T, E: From<LockError>>(
    locked: Locked<'_>,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let Locked { folder, file, setting } = locked;
    let path = folder.join(file);
    let file = open(&path).map_err(|e| E::from(e.into()))?;
    let mut lock = fd_lock::RwLock::new(file);
    let mut guard = match lock.try_write() {
        Ok(guard) => guard,
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(E::from(LockError::Held {
                holder: holder(&path),
                folder: folder.to_owned(),
                setting,
            }));
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
        for (locked, setting) in
            [(Locked::cache(dir.path()), "ASSAY_CACHE"), (Locked::out(dir.path()), "--out")]
        {
            let second = with_lock(locked, || Ok::<_, LockError>(with_lock(locked, || Ok(())))).unwrap();
            let message = LockError::to_string(&second.unwrap_err());
            assert!(message.contains(&format!("pid {}", std::process::id())), "{message}");
            assert!(message.contains(setting), "{message}");
            with_lock(locked, || Ok::<_, LockError>(())).unwrap();
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_refused_before_the_work() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refused =
            with_lock(Locked::out(&file.join("out")), || -> Result<(), LockError> { unreachable!() });
        assert!(matches!(refused, Err(LockError::File(_))));
    }
}
