//! Files and byte strings as stages name them in JSON.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::WorkerError;
use crate::store::write_atomic;

/// A file and the hash of its content, which is checked on every read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Where it is.
    pub path: PathBuf,
    /// BLAKE3 of the content, hex.
    pub blake3: String,
    /// Length in bytes.
    pub bytes: u64,
}

impl FileRef {
    /// Hashes a file that exists.
    ///
    /// # Errors
    /// [`WorkerError::Io`].
    pub fn of(path: impl Into<PathBuf>) -> Result<Self, WorkerError> {
        let path = path.into();
        let mut hasher = blake3::Hasher::new();
        let mut file = std::fs::File::open(&path).map_err(WorkerError::io("open", &path))?;
        let bytes = std::io::copy(&mut file, &mut hasher).map_err(WorkerError::io("read", &path))?;
        Ok(Self { path, blake3: hasher.finalize().to_hex().to_string(), bytes })
    }

    /// Reads the file and checks its hash.
    ///
    /// # Errors
    /// [`WorkerError::Io`], or [`WorkerError::ContentMismatch`].
    pub fn read(&self) -> Result<Vec<u8>, WorkerError> {
        let data = std::fs::read(&self.path).map_err(WorkerError::io("read", &self.path))?;
        let got = blake3::hash(&data).to_hex().to_string();
        if got != self.blake3 {
            let (path, expected) = (self.path.clone(), self.blake3.clone());
            return Err(WorkerError::ContentMismatch { path, expected, got });
        }
        Ok(data)
    }

    /// Writes a file under a temporary name and renames it; makes the folder if it is missing.
    ///
    /// # Errors
    /// [`WorkerError::Io`].
    pub fn write(path: &Path, data: &[u8]) -> Result<Self, WorkerError> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(WorkerError::io("create", dir))?;
        }
        write_atomic(path, data)?;
        let blake3 = blake3::hash(data).to_hex().to_string();
        Ok(Self { path: path.to_owned(), blake3, bytes: data.len() as u64 })
    }
}

/// 32 bytes, hex in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hex32(pub [u8; 32]);

/// Bytes of any length, hex in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct HexBytes(pub Vec<u8>);

impl From<[u8; 32]> for Hex32 {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<Hex32> for [u8; 32] {
    fn from(bytes: Hex32) -> Self {
        bytes.0
    }
}

impl AsRef<[u8]> for Hex32 {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for Hex32 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl From<Vec<u8>> for HexBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for HexBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for HexBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl Serialize for Hex32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for HexBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|e| serde::de::Error::custom(format!("32 bytes in hex expected: {e}")))?;
        Ok(Self(bytes))
    }
}

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(&text).map(Self).map_err(|e| serde::de::Error::custom(format!("hex expected: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new folder").join("proof.bin");
        let file = FileRef::write(&path, b"proof").unwrap();
        assert_eq!(FileRef::of(&path).unwrap(), file);
        assert_eq!(file.read().unwrap(), b"proof");
        std::fs::write(&path, b"Proof").unwrap();
        assert!(matches!(file.read(), Err(WorkerError::ContentMismatch { .. })));
    }

    #[test]
    fn bytes_are_hex_in_json_and_nothing_else_is_accepted() {
        assert_eq!(serde_json::to_string(&HexBytes(vec![0, 255])).unwrap(), "\"00ff\"");
        let word = Hex32([7; 32]);
        let json = serde_json::to_string(&word).unwrap();
        assert_eq!(serde_json::from_str::<Hex32>(&json).unwrap(), word);
        assert!(serde_json::from_str::<Hex32>("\"00ff\"").is_err());
        assert!(serde_json::from_str::<HexBytes>("\"0g\"").is_err());
    }
}
