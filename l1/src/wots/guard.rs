//! The record that keeps a one-time key one-time, across restarts.
//!
//! Before a signature leaves this module the hash of the signed value is on disk under the key's name. The same value may
//! be signed again (the signature is the same bytes); another value is refused for ever. The record must live as long as
//! the secret: [`UseGuard`] keys it by the trunk's id, which goes into the derivation, so a record that is deleted with
//! its trunk leaves no key that could sign twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{sign, KeyId, Signature, ValueSizeError};
use crate::keys::OperatorSecret;
use crate::store::{read_json, write_json, StoreError};

/// Why a value was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// The key has signed another value.
    #[error("one-time key {key} has already signed another value; open a new epoch to go on")]
    KeyReuse {
        /// Name of the key: epoch/claim/value.
        key: String,
    },
    /// The value's size is none that keys sign.
    #[error(transparent)]
    ValueSize(#[from] ValueSizeError),
    /// The record could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// Key name to the BLAKE3 hash of the value it signed, both as text.
    used: BTreeMap<String, String>,
}

/// The record of one trunk, backed by a file.
#[derive(Debug)]
pub struct UseGuard {
    path: PathBuf,
    record: Record,
}

impl UseGuard {
    /// Opens the record at `path`, empty if there is none.
    ///
    /// # Errors
    /// `Store` if the file cannot be read: an unreadable record is not an empty one.
    pub fn open(path: &Path) -> Result<Self, GuardError> {
        Ok(Self { path: path.to_owned(), record: read_json(path)?.unwrap_or_default() })
    }

    /// Signs all `values`, each under its key, after recording them together. Nothing is recorded or signed if one is refused.
    ///
    /// # Errors
    /// `KeyReuse`, `ValueSize`, `Store`.
    pub fn sign(
        &mut self,
        secret: &OperatorSecret,
        values: &[(KeyId, &[u8])],
    ) -> Result<Vec<Signature>, GuardError> {
        let mut signatures = Vec::with_capacity(values.len());
        let mut fresh = BTreeMap::new();
        for (id, value) in values {
            let name = format!("{}/{}/{}/{}", hex::encode(id.trunk_id), id.epoch, id.claim, id.value);
            let hash = blake3::hash(value).to_hex().to_string();
            let used = self.record.used.get(&name).or_else(|| fresh.get(&name));
            if used.is_some_and(|used| *used != hash) {
                return Err(GuardError::KeyReuse { key: format!("{}/{}/{}", id.epoch, id.claim, id.value) });
            }
            let signature = sign(secret, id, value).ok_or(ValueSizeError { got: value.len() })?;
            signatures.push(signature);
            fresh.insert(name, hash);
        }
        let mut used = self.record.used.clone();
        used.extend(fresh);
        if used.len() > self.record.used.len() {
            let record = Record { used };
            write_json(&self.path, &record)?;
            self.record = record;
        }
        Ok(signatures)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::id;
    use super::*;

    #[test]
    fn a_second_different_value_is_refused_even_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wots.json");
        let secret = OperatorSecret::from_bytes([5; 32]);
        let mut guard = UseGuard::open(&path).unwrap();
        let first = guard.sign(&secret, &[(id(0), &[1; 32])]).unwrap();
        assert_eq!(guard.sign(&secret, &[(id(0), &[1; 32])]).unwrap(), first);
        let mut guard = UseGuard::open(&path).unwrap();
        // The new key of the pair must not be recorded when the old one refuses.
        let both = [(id(1), [2; 32].as_slice()), (id(0), [2; 32].as_slice())];
        assert!(
            matches!(guard.sign(&secret, &both), Err(GuardError::KeyReuse { key }) if key == "1/0/new-root")
        );
        guard.sign(&secret, &[(id(1), &[3; 32])]).unwrap();
        let same_call = [(id(2), [2; 32].as_slice()), (id(2), [3; 32].as_slice())];
        assert!(guard.sign(&secret, &same_call).is_err());
        std::fs::write(&path, "{}").unwrap();
        assert!(UseGuard::open(&path).is_err(), "a damaged record is not an empty one");
    }
}
