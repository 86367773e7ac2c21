//! Files that are either the old or the new version, whenever the process is killed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use assay_l1::StoreError;
use serde::de::DeserializeOwned;
use serde::Serialize;

fn storage(path: &Path) -> impl Fn(std::io::Error) -> StoreError + '_ {
    |source| StoreError::Storage { path: path.to_owned(), source }
}

/// The name under which a file is written before it gets its own.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Makes the names in the directory of `path` durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(storage(parent))
}

/// Writes the new version with these options, synchronises it and gives it its name.
pub(super) fn replace(path: &Path, bytes: &[u8], options: &OpenOptions) -> Result<(), StoreError> {
    let new = unfinished(path);
    let mut file = options.open(&new).map_err(storage(&new))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(storage(&new))?;
    std::fs::rename(&new, path).map_err(storage(path))?;
    sync_parent(path)
}

/// Replaces a file.
///
/// # Errors
/// `Storage`; the old version is then still there.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    replace(path, bytes, OpenOptions::new().write(true).create(true).truncate(true))
}

/// Reads a file of at most `most` bytes, `None` if there is none.
///
/// # Errors
/// `Storage`; `Format` if it is longer.
pub fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(storage(path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(storage(path))?;
    if bytes.len() as u64 > most {
        let detail = format!("more than {most} bytes");
        return Err(StoreError::Format { path: path.to_owned(), detail });
    }
    Ok(Some(bytes))
}

/// Writes `value` as JSON.
///
/// # Errors
/// `Storage`.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| StoreError::Format { path: path.to_owned(), detail: error.to_string() })?;
    write(path, &bytes)
}

/// Reads JSON, `None` if there is no file.
///
/// # Errors
/// `Format` if it does not parse; `Storage`.
pub fn read_json<T: DeserializeOwned>(path: &Path, most: u64) -> Result<Option<T>, StoreError> {
    let Some(bytes) = read(path, most)? else { return Ok(None) };
    let format =
        |error: serde_json::Error| StoreError::Format { path: path.to_owned(), detail: error.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(format)
}
