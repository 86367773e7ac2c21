//! Files that are either whole or absent.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// `eprintln!` that goes on where standard error cannot be written to: a closed terminal is no reason to stop proving.
macro_rules! say {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($part)*);
    }};
}
pub(crate) use say;

/// A file operation that failed, with the path it was about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried: "read", "write", …
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is larger than anything valid.
    #[error("{path} is too large: at most {limit} bytes, got {got}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Limit in bytes.
        limit: u64,
        /// Its size in bytes.
        got: u64,
    },
}

pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { what, path, source }
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// [`FileError`].
pub fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let got = file.metadata().map_err(io_error("read", path))?.len();
    if got > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit, got });
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    Ok(bytes)
}

/// Writes `bytes` to `path` so that a reader, or a crash, sees the old file or the whole new one.
///
/// Creates the parent folders. The bytes are on disk when this returns.
///
/// # Errors
/// [`FileError::Io`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    let mut temporary = tempfile::Builder::new()
        .prefix(".partial-")
        .permissions(permissions())
        .tempfile_in(parent)
        .map_err(io_error("write", path))?;
    temporary.write_all(bytes).map_err(io_error("write", path))?;
    temporary.as_file().sync_all().map_err(io_error("write", path))?;
    temporary.persist(path).map_err(|e| io_error("write", path)(e.error))?;
    sync_folder(parent)
}

/// Makes the renames inside `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(io_error("write", folder))
}

/// Removes a file or folder that may be absent.
///
/// # Errors
/// [`FileError::Io`] for any failure other than absence.
pub fn remove_if_present(path: &Path) -> Result<(), FileError> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Ordinary permissions: temporary files are private by default, results are for everybody the umask allows.
fn permissions() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(0o644)
}

/// BLAKE3 of a file's content, in hex, read in pieces.
///
/// # Errors
/// [`FileError::Io`].
pub fn hash_file(path: &Path) -> Result<String, FileError> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path).map_err(io_error("open", path))?;
    io::copy(&mut file, &mut hasher).map_err(io_error("read", path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_replaces_the_old_one_and_leaves_no_partial_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(read_limited(&path, 3).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(matches!(read_limited(&path, 2), Err(FileError::TooLarge { limit: 2, got: 3, .. })));
        assert_eq!(hash_file(&path).unwrap(), blake3::hash(b"two").to_hex().to_string());
    }
}
