//! The right key of a folder, and whether its points were checked there. Beside a key `X.pk` lie:
//!
//! | file | holds | written |
//! |---|---|---|
//! | `X.pin` | [`ProvingKey::hash`] of the only key that will do: 64 hexadecimal digits | by whoever knows it, or at the first full check |
//! | `X.checked` | which file had its points checked: its hash, length and time of change | after a full check |
//!
//! A key that is copied with its pin is held against it. The mark does not fit the copy, whose time is another, so the points
//! are checked once where it came to; where the time was copied too, the hash says that they were, elsewhere.

use super::{Check, Opening, ProvingKey};
use crate::groth16::{Groth16Error, Progress};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

/// The pin of the key at `path`.
pub(super) fn pin_path(path: &Path) -> PathBuf {
    path.with_extension("pin")
}

/// Opens the key at `path` if it is the pinned one; see [`ProvingKey::open_pinned`].
pub(super) fn open(
    path: &Path,
    digest: &[u8; 32],
    progress: Progress<'_>,
) -> Result<ProvingKey, Groth16Error> {
    let pinned = read_pin(path)?;
    // Cheap, and says what the full check would be of.
    let hash = ProvingKey::open_as(path, &Opening { pinned, ..Opening::of(*digest, Check::Quick) })?.hash();
    let (mark_path, mark) = (path.with_extension("checked"), mark(path, &hash)?);
    // One that cannot be read is as good as none.
    let is_checked = std::fs::read_to_string(&mark_path).is_ok_and(|written| written == mark);
    let check = if is_checked { Check::Hashes } else { Check::Points };
    let opening = Opening { circuit_digest: *digest, check, pinned: Some(hash), progress };
    let key = ProvingKey::open_as(path, &opening)?;
    if pinned.is_none() {
        write(&pin_path(path), &format!("{}\n", hexadecimal(&hash)))?;
    }
    if !is_checked {
        write(&mark_path, &mark)?;
    }
    Ok(key)
}

fn hexadecimal(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

fn read_pin(path: &Path) -> Result<Option<[u8; 32]>, Groth16Error> {
    let path = pin_path(path);
    match std::fs::read_to_string(&path) {
        Ok(text) => match blake3::Hash::from_hex(text.trim()) {
            Ok(hash) => Ok(Some(*hash.as_bytes())),
            Err(_) => Err(Groth16Error::Pin { path }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(Groth16Error::Pin { path }),
        Err(error) => Err(Groth16Error::io("read", &path)(error)),
    }
}

/// The mark that the file at `path` would have: the hash, the length and the time of change in nanoseconds.
fn mark(path: &Path, hash: &[u8; 32]) -> Result<String, Groth16Error> {
    let data = std::fs::metadata(path).map_err(Groth16Error::io("look at", path))?;
    let modified = data.modified().map_err(Groth16Error::io("look at", path))?;
    let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{} {} {}\n", hexadecimal(hash), data.len(), modified.as_nanos()))
}

/// Writes under another name first: processes that share the folder find all of it or nothing.
fn write(path: &Path, text: &str) -> Result<(), Groth16Error> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let partial = path.with_extension(format!("partial{}-{number}", std::process::id()));
    let mut file = File::create(&partial).map_err(Groth16Error::io("create", &partial))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(Groth16Error::io("write", &partial))?;
    std::fs::rename(&partial, path).map_err(Groth16Error::io("rename", &partial))
}
