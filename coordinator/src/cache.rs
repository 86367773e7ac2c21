//! Content-addressed cache of finished stages.
//!
//! Two layers under one root. `blobs/ab/<hash>` holds bytes under the BLAKE3 of their content, so whether a blob is
//! sound can always be told. `entries/<key>.json` says what a stage produced for given inputs: its outcome and the blobs
//! it left; the file carries a hash of itself. Both are written to a temporary name and renamed, so several threads or
//! processes may store the same thing. What does not match its hash is removed, with a warning, and done again.
//!
//! A [`Key`] is the BLAKE3 of everything the result depends on: stage, programs, inputs and versions.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fsio::{self, io_error, FileError};

/// Version of the entry format; another version is treated as absent.
const FORMAT: u32 = 1;
/// Entries are small JSON files.
const ENTRY_BYTES_MAX: u64 = 16 << 20;

/// The identity of a stage's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// Begins the key of a result of the stage called `stage`.
    pub fn of(stage: &str) -> KeyBuilder {
        let mut builder = KeyBuilder(blake3::Hasher::new_derive_key("assay 2026 coordinator cache key v1"));
        builder.add_bytes(stage.as_bytes());
        builder
    }

    /// Lower-case hex.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

/// Hashes named inputs into a [`Key`]; order matters, boundaries are unambiguous.
pub struct KeyBuilder(blake3::Hasher);

impl KeyBuilder {
    fn add_bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds one named input.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.add_bytes(name.as_bytes());
        self.add_bytes(value.as_ref());
        self
    }

    /// The key.
    pub fn build(self) -> Key {
        Key(*self.0.finalize().as_bytes())
    }
}

/// Names a blob by the hash of its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// BLAKE3 of the content, hex.
    pub blake3: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// What a stage produced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Name of the stage, for `assay cache list`.
    pub stage: String,
    /// Its outcome as the stage reported it.
    pub outcome: Value,
    /// The files it left, by name.
    pub blobs: BTreeMap<String, BlobRef>,
    /// Wall-clock time of the computation.
    pub millis: u64,
    /// Highest resident memory of the computing process, 0 if unknown.
    pub peak_bytes: u64,
}

/// An entry as it stands on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEntry {
    format: u32,
    key: String,
    entry: Entry,
    /// BLAKE3 of the canonical JSON of `entry`.
    blake3: String,
}

/// A cache that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// A blob is missing or does not match its hash; it has been removed.
    #[error("cached blob {blake3} is {what}")]
    Blob {
        /// The hash it should have.
        blake3: String,
        /// "missing" or "corrupt".
        what: &'static str,
    },
    /// The folder was not made by this program.
    #[error("{path} is no cache of this program: it has no {TAG}, and nothing in it is removed")]
    NotACache {
        /// The folder.
        path: PathBuf,
    },
    /// An entry could not be serialised.
    #[error("cannot encode a cache entry: {0}")]
    Encode(#[from] serde_json::Error),
}

/// Marks a cache folder, for this program and for backup programs (the Cache Directory Tagging Specification).
const TAG: &str = "CACHEDIR.TAG";
const TAG_TEXT: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n# Finished stages of assay. `assay cache prune` cleans up.\n";

/// One line of `assay cache list`.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Key, hex.
    pub key: String,
    /// Stage.
    pub stage: String,
    /// Bytes of its blobs.
    pub bytes: u64,
    /// Seconds the computation took.
    pub seconds: u64,
    /// Seconds since it was stored.
    pub age_s: u64,
}

/// What [`Cache::prune`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Entries removed.
    pub entries: u64,
    /// Blobs removed.
    pub blobs: u64,
    /// Bytes freed.
    pub bytes: u64,
}

/// The cache under one root folder.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache, creating its folders.
    ///
    /// # Errors
    /// [`CacheError::File`].
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        let ours = root.join("entries").is_dir() || children(root)?.is_empty();
        for folder in ["entries", "blobs", "tmp"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        }
        let tag = root.join(TAG);
        if ours && !tag.exists() {
            fsio::write_atomic(&tag, TAG_TEXT)?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// The cache under `root`, to look into only: nothing is created.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A name for a file that is about to be written and then stored with [`Cache::store_file`].
    pub fn temporary(&self, name: &str) -> PathBuf {
        self.root.join("tmp").join(name)
    }

    /// Where a blob lies, whether it is there or not.
    pub fn blob_path(&self, blob: &BlobRef) -> PathBuf {
        let prefix = blob.blake3.get(..2).unwrap_or("xx");
        self.root.join("blobs").join(prefix).join(&blob.blake3)
    }

    fn entry_path(&self, key: Key) -> PathBuf {
        self.root.join("entries").join(format!("{}.json", key.to_hex()))
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// [`CacheError::File`].
    pub fn store_bytes(&self, bytes: &[u8]) -> Result<BlobRef, CacheError> {
        let blob = BlobRef { blake3: blake3::hash(bytes).to_hex().to_string(), bytes: bytes.len() as u64 };
        if self.check_blob(&blob).is_err() {
            fsio::write_atomic(&self.blob_path(&blob), bytes)?;
        }
        Ok(blob)
    }

    /// Moves a file of this file system into the cache.
    ///
    /// # Errors
    /// [`CacheError::File`].
    pub fn store_file(&self, path: &Path) -> Result<BlobRef, CacheError> {
        let bytes = fs::metadata(path).map_err(io_error("read", path))?.len();
        let blob = BlobRef { blake3: fsio::hash_file(path)?, bytes };
        let target = self.blob_path(&blob);
        let parent = target.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        fs::File::open(path).and_then(|file| file.sync_all()).map_err(io_error("write", path))?;
        fs::rename(path, &target).map_err(io_error("move", path))?;
        fsio::sync_folder(parent)?;
        Ok(blob)
    }

    /// Checks that a blob is there and sound; removes it if it is corrupt.
    ///
    /// # Errors
    /// [`CacheError::Blob`] if it is missing or corrupt, [`CacheError::File`] if it cannot be read.
    pub fn check_blob(&self, blob: &BlobRef) -> Result<PathBuf, CacheError> {
        let path = self.blob_path(blob);
        let fault = |what| CacheError::Blob { blake3: blob.blake3.clone(), what };
        if !path.is_file() {
            return Err(fault("missing"));
        }
        let length = fs::metadata(&path).map_err(io_error("read", &path))?.len();
        if length != blob.bytes || fsio::hash_file(&path)? != blob.blake3 {
            fsio::remove_if_present(&path)?;
            return Err(fault("corrupt"));
        }
        Ok(path)
    }

    /// Reads a blob, checked.
    ///
    /// # Errors
    /// As [`Cache::check_blob`].
    pub fn read_blob(&self, blob: &BlobRef) -> Result<Vec<u8>, CacheError> {
        let path = self.check_blob(blob)?;
        Ok(fsio::read_limited(&path, blob.bytes)?)
    }

    /// Stores what a stage produced; its blobs must have been stored before.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn store(&self, key: Key, entry: &Entry) -> Result<(), CacheError> {
        let stored = StoredEntry {
            format: FORMAT,
            key: key.to_hex(),
            entry: entry.clone(),
            blake3: entry_hash(entry)?,
        };
        Ok(fsio::write_atomic(&self.entry_path(key), &serde_json::to_vec_pretty(&stored)?)?)
    }

    /// Looks up what a stage produced, with all its blobs checked.
    ///
    /// A damaged entry or blob is removed, `warn` is told, and the answer is `None`: the stage is done again.
    ///
    /// # Errors
    /// [`CacheError::File`] if the file system refuses.
    pub fn load(&self, key: Key, warn: &mut dyn FnMut(String)) -> Result<Option<Entry>, CacheError> {
        let path = self.entry_path(key);
        if !path.is_file() {
            return Ok(None);
        }
        let fault = match self.load_checked(key, &path) {
            Ok(entry) => return Ok(Some(entry)),
            Err(fault) => fault,
        };
        warn(format!(
            "cache entry {} is unusable ({fault}): discarded, the stage is done again",
            path.display()
        ));
        fsio::remove_if_present(&path)?;
        Ok(None)
    }

    fn load_checked(&self, key: Key, path: &Path) -> Result<Entry, String> {
        let bytes = fsio::read_limited(path, ENTRY_BYTES_MAX).map_err(|e| e.to_string())?;
        let stored: StoredEntry = serde_json::from_slice(&bytes).map_err(|e| format!("not an entry: {e}"))?;
        if stored.format != FORMAT {
            return Err(format!("format {FORMAT} expected, got {}", stored.format));
        }
        if stored.key != key.to_hex() {
            return Err("it belongs to another key".to_owned());
        }
        if entry_hash(&stored.entry).map_err(|e| e.to_string())? != stored.blake3 {
            return Err("its hash does not match".to_owned());
        }
        for (name, blob) in &stored.entry.blobs {
            self.check_blob(blob).map_err(|e| format!("{name}: {e}"))?;
        }
        Ok(stored.entry)
    }

    /// Every readable entry, newest first. Blobs are not hashed.
    ///
    /// # Errors
    /// [`CacheError::File`].
    pub fn list(&self) -> Result<Vec<Listed>, CacheError> {
        let mut listed: Vec<_> = self
            .stored_entries()?
            .into_iter()
            .map(|(_, age, stored)| Listed {
                key: stored.key,
                bytes: stored.entry.blobs.values().map(|blob| blob.bytes).sum(),
                seconds: stored.entry.millis / 1000,
                stage: stored.entry.stage,
                age_s: age.as_secs(),
            })
            .collect();
        listed.sort_by(|a, b| a.age_s.cmp(&b.age_s).then(a.key.cmp(&b.key)));
        Ok(listed)
    }

    /// Removes entries at least `age_min` old for which `keep` is false, then every blob that no entry names.
    ///
    /// # Errors
    /// [`CacheError::NotACache`] for a folder that [`Self::open`] did not make, [`CacheError::File`].
    pub fn prune(&self, age_min: Duration, keep: impl Fn(&Entry) -> bool) -> Result<Pruned, CacheError> {
        let holds = |folder: &&str| self.root.join(folder).exists();
        if !self.root.join(TAG).exists() && ["entries", "blobs", "tmp"].iter().any(|folder| holds(&folder)) {
            return Err(CacheError::NotACache { path: self.root.clone() });
        }
        let mut pruned = Pruned::default();
        let mut named = std::collections::BTreeSet::new();
        for (path, age, stored) in self.stored_entries()? {
            if age >= age_min && !keep(&stored.entry) {
                fsio::remove_if_present(&path)?;
                pruned.entries += 1;
            } else {
                named.extend(stored.entry.blobs.values().map(|blob| blob.blake3.clone()));
            }
        }
        for prefix in children(&self.root.join("blobs"))? {
            for blob in children(&prefix)? {
                let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if !named.contains(&name) {
                    pruned.bytes += fs::metadata(&blob).map(|m| m.len()).unwrap_or(0);
                    pruned.blobs += 1;
                    fsio::remove_if_present(&blob)?;
                }
            }
        }
        for partial in children(&self.root.join("tmp"))? {
            fsio::remove_if_present(&partial)?;
        }
        Ok(pruned)
    }

    fn stored_entries(&self) -> Result<Vec<(PathBuf, Duration, StoredEntry)>, CacheError> {
        let now = SystemTime::now();
        let mut entries = Vec::new();
        for path in children(&self.root.join("entries"))? {
            let stored = fsio::read_limited(&path, ENTRY_BYTES_MAX)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<StoredEntry>(&bytes).ok());
            let modified = fs::metadata(&path).and_then(|m| m.modified()).unwrap_or(UNIX_EPOCH);
            if let Some(stored) = stored {
                entries.push((path, now.duration_since(modified).unwrap_or_default(), stored));
            }
        }
        Ok(entries)
    }
}

fn entry_hash(entry: &Entry) -> Result<String, serde_json::Error> {
    Ok(blake3::hash(&serde_json::to_vec(entry)?).to_hex().to_string())
}

/// The members of a folder in name order; none if it is absent.
fn children(folder: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let read = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io_error("list", folder))?,
    };
    let mut paths = Vec::new();
    for item in read {
        paths.push(item.map_err(io_error("list", folder))?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
