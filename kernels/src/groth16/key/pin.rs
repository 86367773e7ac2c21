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
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

/// Content of `X.checked`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    hash: String,
    bytes: u64,
    modified_ns: u64,
}

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
    let mark = mark(path, &hash)?;
    let mark_path = path.with_extension("checked");
    let is_checked = std::fs::read(&mark_path).is_ok_and(|bytes| {
        // One that cannot be read is as good as none.
        serde_json::from_slice::<Mark>(&bytes).is_ok_and(|written| written == mark)
    });
    let check = if is_checked { Check::Hashes } else { Check::Points };
    let opening = Opening { circuit_digest: *digest, check, pinned: Some(hash), progress };
    let key = ProvingKey::open_as(path, &opening)?;
    if pinned.is_none() {
        write(&pin_path(path), format!("{}\n", mark.hash).as_bytes())?;
    }
    if !is_checked {
        let text = serde_json::to_vec(&mark)
            .map_err(|error| Groth16Error::Encoding { item: "mark", reason: error.to_string() })?;
        write(&mark_path, &text)?;
    }
    Ok(key)
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

/// The mark that the file at `path` would have.
fn mark(path: &Path, hash: &[u8; 32]) -> Result<Mark, Groth16Error> {
    let data = std::fs::metadata(path).map_err(Groth16Error::io("look at", path))?;
    let modified = data.modified().map_err(Groth16Error::io("look at", path))?;
    let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Mark {
        hash: blake3::Hash::from_bytes(*hash).to_hex().to_string(),
        bytes: data.len(),
        modified_ns: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX),
    })
}

/// Writes under another name first: processes that share the folder find all of it or nothing.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Groth16Error> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let partial = path.with_extension(format!("partial{}-{number}", std::process::id()));
    let mut file = File::create(&partial).map_err(Groth16Error::io("create", &partial))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Groth16Error::io("write", &partial))?;
    std::fs::rename(&partial, path).map_err(Groth16Error::io("rename", &partial))
}
