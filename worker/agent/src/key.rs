//! The worker's signing key, a file that nobody else may read.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use assay_schedule::receipt::worker_of;
use assay_schedule::receipt::ReceiptKey;
use assay_schedule::WorkerId;
use ed25519_dalek::{Signer, SigningKey};
use rand::RngCore;
use zeroize::Zeroizing;

/// 64 hex digits and a line's end.
const FILE_BYTES: u64 = 65;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A file operation failed.
    #[error("cannot {action} the key file {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Others may read it.
    #[error(
        "the key file {path} may be read by others (mode {mode:o}): run `chmod 600 {path}`, or use a new key"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds something else.
    #[error("{path} is no key file: it must hold 64 hex digits")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// An ed25519 key and the worker's number that follows from it.
pub struct WorkerKey {
    signing: SigningKey,
}

impl WorkerKey {
    /// Reads the key file; the first start makes it, with mode 0600.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        match Self::read(path) {
            Err(KeyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Self::create(path)?;
                Self::read(path)
            }
            other => other,
        }
    }

    /// The key of 32 secret bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { signing: SigningKey::from_bytes(&seed) }
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    /// The worker's number.
    pub fn worker(&self) -> WorkerId {
        worker_of(&self.public())
    }

    fn read(path: &Path) -> Result<Self, KeyError> {
        let io = |action| move |source| KeyError::Io { action, path: path.to_owned(), source };
        let file = File::open(path).map_err(io("open"))?;
        let mode = file.metadata().map_err(io("inspect"))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        let malformed = || KeyError::Malformed { path: path.to_owned() };
        file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(|_| malformed())?;
        let mut seed = Zeroizing::new([0u8; 32]);
        hex::decode_to_slice(text.trim_end(), seed.as_mut()).map_err(|_| malformed())?;
        Ok(Self::from_seed(*seed))
    }

    /// Writes a new key under a temporary name and links it, so that a key file is whole or absent and an existing one,
    /// perhaps another process's, wins.
    fn create(path: &Path) -> Result<(), KeyError> {
        let io = |action| move |source| KeyError::Io { action, path: path.to_owned(), source };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(io("make the folder of"))?;
        }
        let mut seed = Zeroizing::new([0u8; 32]);
        rand::rngs::OsRng.fill_bytes(seed.as_mut());
        let text = Zeroizing::new(format!("{}\n", hex::encode(seed.as_slice())));
        let temporary = path.with_extension(format!("new-{}", std::process::id()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            match std::fs::hard_link(&temporary, path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        })();
        // Best effort: whether the key is there is what counts.
        let _ = std::fs::remove_file(&temporary);
        written.map_err(io("create"))
    }
}

impl ReceiptKey for WorkerKey {
    fn public(&self) -> [u8; 32] {
        WorkerKey::public(self)
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_start_makes_a_private_file_and_the_next_finds_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/worker.key");
        let key = WorkerKey::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(WorkerKey::open(&path).unwrap().public(), key.public());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary file is left");
        let other = WorkerKey::open(&dir.path().join("other.key")).unwrap();
        assert_ne!(other.worker(), key.worker());
        assert!(key.worker().0 < 1 << 53);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.key");
        WorkerKey::open(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = WorkerKey::open(&path).err().unwrap();
        assert!(matches!(error, KeyError::Exposed { mode: 0o640, .. }), "{error}");
    }

    #[test]
    fn a_file_with_anything_else_in_it_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.key");
        for content in ["", "00", &"0g".repeat(32), &"00".repeat(33)] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(WorkerKey::open(&path), Err(KeyError::Malformed { .. })), "{content:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), *content);
        }
    }
}
