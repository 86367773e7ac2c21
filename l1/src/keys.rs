//! The operator's secret and every key derived from it.
//!
//! One 32-byte secret lives in a file (mode 0600). Keys come out of HKDF-SHA256 (RFC 5869) with a salt that names this
//! scheme and an `info` in which every field is preceded by its length: two different lists of fields never give the
//! same bytes, as plain concatenation would.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bitcoin::key::{Keypair, UntweakedPublicKey};
use bitcoin::secp256k1::SecretKey;
use hkdf::Hkdf;
use rand::rngs::OsRng;
use rand::RngCore;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::consensus::secp;

const SALT: &[u8] = b"assay/l1/keys/v1";
const SECRET_BYTES: usize = 32;

/// Why a secret could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("cannot access secret file {}: {source}", path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file does not hold 64 hexadecimal digits.
    #[error("secret file {} does not hold 64 hexadecimal digits", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the file.
    #[error("secret file {} has mode {mode:o}, expected 600: run chmod 600", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// A party's master secret, not only an operator's: vigilantes and purses have one of the same form. Wiped from memory when dropped
/// and never printed.
#[derive(Clone)]
pub struct OperatorSecret(Zeroizing<[u8; SECRET_BYTES]>);

impl std::fmt::Debug for OperatorSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OperatorSecret(..)")
    }
}

/// What a secp256k1 key is for. The name goes into its derivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyRole {
    /// Signs claims and reconfigurations; under the contract it also holds the coins that open epochs.
    Operator,
    /// Holds the funds for fees: the trunk's for collateral, too, the contract's parties' for deposits.
    Wallet,
    /// Signs the reveal of data envelopes and so names their author; the contract's operator pays for data from it.
    Envelope,
}

impl KeyRole {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Operator => b"operator",
            Self::Wallet => b"wallet",
            Self::Envelope => b"envelope",
        }
    }
}

impl OperatorSecret {
    /// A secret from bytes that are already uniformly random.
    #[must_use]
    pub fn from_bytes(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads the secret file.
    ///
    /// # Errors
    /// `Mode` if others may read the file; `Format`; `Storage`, also if there is none.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let file = File::open(path).map_err(|source| KeyError::Storage { path: path.to_owned(), source })?;
        Self::read(path, file)
    }

    /// Reads the secret file, or makes one from the system's randomness where there is none.
    ///
    /// # Errors
    /// `Mode` if others may read the file; `Format`; `Storage`.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::Storage { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Self::create(path)
            }
            other => other,
        }
    }

    fn read(path: &Path, file: File) -> Result<Self, KeyError> {
        let storage = |source| KeyError::Storage { path: path.to_owned(), source };
        let mode = file.metadata().map_err(storage)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Mode { path: path.to_owned(), mode });
        }
        // One byte more than allowed tells an oversize file.
        let mut text = Zeroizing::new(Vec::with_capacity(80));
        file.take(80).read_to_end(&mut text).map_err(storage)?;
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        hex::decode_to_slice(text.trim_ascii(), bytes.as_mut_slice())
            .map_err(|_| KeyError::Format { path: path.to_owned() })?;
        Ok(Self(bytes))
    }

    fn create(path: &Path) -> Result<Self, KeyError> {
        let storage = |source| KeyError::Storage { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(storage)?;
        }
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        OsRng.fill_bytes(bytes.as_mut_slice());
        let mut text = Zeroizing::new([0; 2 * SECRET_BYTES]);
        hex::encode_to_slice(bytes.as_slice(), text.as_mut_slice()).expect("the buffer has the right length");
        // Written whole under another name first: a kill leaves no half secret.
        let temporary = path.with_extension("new");
        let _ = std::fs::remove_file(&temporary);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(storage)?;
        file.write_all(text.as_slice()).and_then(|()| file.sync_all()).map_err(storage)?;
        std::fs::hard_link(&temporary, path).map_err(storage)?;
        std::fs::remove_file(&temporary).map_err(storage)?;
        Ok(Self(bytes))
    }

    /// Fills `out` with key material for the list `fields`. At most 8160 bytes.
    pub(crate) fn derive(&self, fields: &[&[u8]], out: &mut [u8]) {
        let mut info = Vec::new();
        for field in fields {
            info.extend_from_slice(&(field.len() as u32).to_be_bytes());
            info.extend_from_slice(field);
        }
        Hkdf::<Sha256>::new(Some(SALT), self.0.as_slice())
            .expand(&info, out)
            .expect("the output is shorter than HKDF's limit");
    }

    /// The secp256k1 key for `role` within the trunk that `trunk_id` names.
    #[must_use]
    pub fn keypair(&self, trunk_id: &[u8; 32], role: KeyRole) -> Keypair {
        // A hash is no valid key with probability 2^-128; the counter makes the derivation total.
        for counter in 0u32.. {
            let mut bytes = Zeroizing::new([0; 32]);
            self.derive(
                &[b"secp256k1", role.label(), trunk_id, &counter.to_be_bytes()],
                bytes.as_mut_slice(),
            );
            if let Ok(mut secret) = SecretKey::from_slice(bytes.as_slice()) {
                let pair = Keypair::from_secret_key(secp(), &secret);
                secret.non_secure_erase();
                return pair;
            }
        }
        unreachable!("some counter below 2^32 gives a valid key")
    }

    /// The x-only public key for `role`.
    #[must_use]
    pub fn public_key(&self, trunk_id: &[u8; 32], role: KeyRole) -> UntweakedPublicKey {
        self.keypair(trunk_id, role).x_only_public_key().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let secret = OperatorSecret::from_bytes([7; 32]);
        let derive = |fields: &[&[u8]]| {
            let mut out = [0; 20];
            secret.derive(fields, &mut out);
            out
        };
        assert_ne!(derive(&[b"ab", b"c"]), derive(&[b"a", b"bc"]));
        assert_ne!(derive(&[b"ab"]), derive(&[b"ab", b""]));
        assert_eq!(derive(&[b"ab", b"c"]), derive(&[b"ab", b"c"]));
    }

    #[test]
    fn a_secret_file_is_made_once_and_refused_when_others_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/operator.secret");
        assert!(matches!(OperatorSecret::load(&path), Err(KeyError::Storage { .. })));
        let made = OperatorSecret::load_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = OperatorSecret::load(&path).unwrap();
        assert_eq!(made.0, again.0);
        assert_eq!(format!("{made:?}"), "OperatorSecret(..)");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(OperatorSecret::load_or_create(&path), Err(KeyError::Mode { mode: 0o640, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "00").unwrap();
        assert!(matches!(OperatorSecret::load_or_create(&path), Err(KeyError::Format { .. })));
    }

    #[test]
    fn roles_and_trunks_have_different_keys() {
        let secret = OperatorSecret::from_bytes([1; 32]);
        let operator = secret.public_key(&[0; 32], KeyRole::Operator);
        assert_ne!(operator, secret.public_key(&[0; 32], KeyRole::Wallet));
        assert_ne!(operator, secret.public_key(&[1; 32], KeyRole::Operator));
    }
}
