//! A signer's directory.
//!
//! ```text
//! lock                  held by the process that serves the directory
//! epoch-<n>.key         the epoch's secret, 64 hexadecimal digits, mode 0600; overwritten and removed in the end
//! epoch-<n>.recovery    the secret for a hand-over, in the same form; until `forget` removes it or a hand-over moves it
//! epoch-<n>.json        the graph that the epoch is locked to
//! epoch-<n>.signatures  all signatures of that graph
//! epoch-<n>.handover    to whom the secret for a hand-over was moved, and for which end
//! ```
//! Every file is the old or the new one, whenever the process is killed. `<file>.new` is a file that was not finished; those of
//! keys are overwritten and removed when the directory is opened, because they are secret.

pub mod file;
pub mod secret;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use assay_l1::StoreError;

use crate::limits::REQUESTS_MAX;
use crate::machine::{is_over, Effect, Record, Stored};
use crate::signatures::SignatureSet;
use crate::wire::message::Reply;

/// Bytes of a record, at most: an epoch's end has a handful of leaves.
const RECORD_BYTES_MAX: u64 = 64 << 20;

/// An open directory. Nobody else has it open.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens and locks the directory, and reads it.
    ///
    /// # Errors
    /// `Storage`, also if another process serves it; `Format` for a file that is not one of this program.
    pub fn open(dir: &Path) -> Result<(Self, Stored), StoreError> {
        std::fs::create_dir_all(dir)
            .map_err(|source| StoreError::Storage { path: dir.to_owned(), source })?;
        Self::open_there(dir)
    }

    /// Opens a directory that has to be there.
    fn open_there(dir: &Path) -> Result<(Self, Stored), StoreError> {
        let storage = |source| StoreError::Storage { path: dir.to_owned(), source };
        // Before a lock would be made in it.
        std::fs::read_dir(dir).map_err(storage)?;
        let lock = File::create(dir.join("lock")).map_err(storage)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => storage(std::io::Error::other("another process has it open")),
            TryLockError::Error(error) => storage(error),
        })?;
        let store = Self { dir: dir.to_owned(), _lock: lock };
        let mut stored = Stored::default();
        let mut with_key = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(storage)? {
            let name = entry.map_err(storage)?.file_name();
            let Some((epoch, kind)) = name.to_str().and_then(parse) else { continue };
            match kind {
                "key" => with_key.push(epoch),
                "key.new" | "recovery.new" => secret::delete(&store.path(epoch, kind))?,
                "recovery" => {
                    let key = secret::read(&store.path(epoch, "recovery"))?;
                    stored.recovery.extend(key.map(|key| (epoch, key)));
                }
                "json" => {
                    let record = file::read_json(&store.path(epoch, "json"), RECORD_BYTES_MAX)?;
                    stored.records.extend(record.map(|record| (epoch, record)));
                }
                _ => {}
            }
        }
        for epoch in with_key {
            // A kill may have come between the record and the end of the deletion.
            if is_over(&stored.records, epoch) {
                secret::delete(&store.path(epoch, "key"))?;
                continue;
            }
            let key = secret::read(&store.path(epoch, "key"))?;
            stored.keys.extend(key.map(|key| (epoch, key)));
        }
        Ok((store, stored))
    }

    fn path(&self, epoch: u32, kind: &str) -> PathBuf {
        self.dir.join(format!("epoch-{epoch}.{kind}"))
    }

    /// Where an epoch's signatures are.
    #[must_use]
    pub fn signatures(&self, epoch: u32) -> PathBuf {
        self.path(epoch, "signatures")
    }

    /// Carries out an effect; what is to be answered, if it is an answer. Durable when it returns.
    ///
    /// # Errors
    /// `Storage`, `Format`: the machine that gave the effect must not go on.
    pub fn carry_out(&self, effect: Effect) -> Result<Option<Reply>, StoreError> {
        match effect {
            Effect::SaveKey { epoch, secret } => secret::write(&self.path(epoch, "key"), &secret)?,
            Effect::SaveRecovery { epoch, secret } => secret::write(&self.path(epoch, "recovery"), &secret)?,
            Effect::SaveRecord { epoch, record } => self.save_record(epoch, &record)?,
            Effect::SaveSignatures { epoch, graph, signatures } => {
                SignatureSet { graph, signatures }.save(&self.signatures(epoch))?;
            }
            Effect::DeleteKey { epoch } => {
                secret::delete(&self.path(epoch, "key.new"))?;
                secret::delete(&self.path(epoch, "key"))?;
            }
            Effect::Reply(reply) => return Ok(Some(reply)),
            Effect::ReplySignatures { epoch, graph } => {
                let path = self.signatures(epoch);
                let set = SignatureSet::load(&path)?.filter(|set| set.graph == graph);
                let set =
                    set.ok_or_else(|| StoreError::Format { path, detail: "not of this graph".into() })?;
                return Ok(Some(Reply::Signatures { graph, signatures: set.signatures }));
            }
        }
        Ok(None)
    }

    /// Overwrites and removes an epoch's recovery key; nothing to do if there is none.
    ///
    /// # Errors
    /// `Storage`.
    pub fn delete_recovery(&self, epoch: u32) -> Result<(), StoreError> {
        secret::delete(&self.path(epoch, "recovery.new"))?;
        secret::delete(&self.path(epoch, "recovery"))
    }

    fn save_record(&self, epoch: u32, record: &Record) -> Result<(), StoreError> {
        file::write_json(&self.path(epoch, "json"), record)
    }
}

/// Epoch and kind from a file name.
fn parse(name: &str) -> Option<(u32, &str)> {
    let (epoch, kind) = name.strip_prefix("epoch-")?.split_once('.')?;
    let number: u32 = epoch.parse().ok()?;
    (number.to_string() == epoch).then_some((number, kind))
}

/// Stored chunks of a collector's run, in order: `<out>.chunks/<number>`.
#[derive(Debug)]
pub struct ChunkDir(PathBuf);

impl ChunkDir {
    /// Beside the file that the signatures will be in.
    #[must_use]
    pub fn beside(out: &Path) -> Self {
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(".chunks");
        Self(out.with_file_name(name))
    }

    /// The chunks of `graph` from the first on, until one is not there.
    ///
    /// # Errors
    /// `Storage`. A damaged chunk counts as none.
    pub fn load(&self, graph: &[u8; 32]) -> Result<Vec<Vec<[u8; 64]>>, StoreError> {
        let mut chunks = Vec::new();
        while chunks.len() < REQUESTS_MAX {
            match SignatureSet::load(&self.0.join(chunks.len().to_string())) {
                Ok(Some(set)) if set.graph == *graph => chunks.push(set.signatures),
                Ok(_) | Err(StoreError::Format { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(chunks)
    }

    /// Stores a chunk.
    ///
    /// # Errors
    /// `Storage`.
    pub fn save(&self, chunk: u32, set: &SignatureSet) -> Result<(), StoreError> {
        let storage = |source| StoreError::Storage { path: self.0.clone(), source };
        std::fs::create_dir_all(&self.0).map_err(storage)?;
        set.save(&self.0.join(chunk.to_string()))
    }

    /// Removes the directory: the whole file is there.
    ///
    /// # Errors
    /// `Storage`.
    pub fn remove(&self) -> Result<(), StoreError> {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::Storage { path: self.0.clone(), source: error })
            }
            _ => Ok(()),
        }
    }
}

/// Deletes both keys of an epoch that is over, or will never be finished; its record stays, so that it never gets others.
/// True if there was one.
///
/// # Errors
/// `Storage`, also if the directory is being served, or not there.
pub fn forget(dir: &Path, epoch: u32) -> Result<bool, StoreError> {
    let (store, stored) = Store::open_there(dir)?;
    store.carry_out(Effect::DeleteKey { epoch })?;
    store.delete_recovery(epoch)?;
    Ok(stored.keys.contains_key(&epoch) || stored.recovery.contains_key(&epoch))
}

/// Epochs with a key and locked epochs of a directory that nobody serves.
///
/// # Errors
/// `Storage`, also if the directory is not there; `Format`.
pub fn inspect(dir: &Path) -> Result<(Vec<u32>, BTreeMap<u32, Record>), StoreError> {
    let (_, stored) = Store::open_there(dir)?;
    Ok((stored.keys.keys().copied().collect(), stored.records))
}
