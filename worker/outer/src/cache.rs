//! The tree of the constant preprocessed traces, kept in a file between processes.
//!
//! File: magic (8 bytes), height and width (8 bytes each, little-endian), the lowest level kept of the tree (see
//! [`MerkleTree::encode`]), BLAKE3 of all before. The commitment that a file must have is known beforehand (it stands in the
//! zkVM's wrap key), so a file can be wrong but not lie: its root is checked against that commitment, a sample of its
//! subtrees against the rows, and every subtree that a proof opens is hashed again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ark_bn254::Fr;
use assay_kernels::merkle::{MerkleError, MerkleTree, Rows};
use sp1_hypercube::MachineVerifyingKey;
use sp1_primitives::SP1OuterGlobalContext;
use thiserror::Error;

use crate::from_outer_field;

const MAGIC: [u8; 8] = *b"assayot1";
const HEADER_LEN: usize = 24;
/// Rows opened on loading; each hashes a whole subtree again.
const SAMPLES: usize = 256;

/// Why a cached tree was not used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The file cannot be read or written.
    #[error("tree file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not one of ours, is cut short, or was changed.
    #[error("tree file {}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The tree is not the expected one.
    #[error("tree file has another commitment: expected {expected}, got {got}")]
    Commitment {
        /// As the zkVM's wrap key says.
        expected: Fr,
        /// Of the tree in the file.
        got: Fr,
    },
    /// The tree does not fit its rows or its file.
    #[error("cached tree")]
    Tree(#[from] MerkleError),
}

/// One file for one known commitment.
#[derive(Clone, Debug)]
pub struct TreeCache {
    path: PathBuf,
    expected: Fr,
}

impl TreeCache {
    /// A cache in `folder` for the tree of the preprocessed traces of the key's program.
    #[must_use]
    pub fn new(folder: &Path, key: &MachineVerifyingKey<SP1OuterGlobalContext>) -> Self {
        let [commitment] = key.preprocessed_commit.into();
        Self::with_commitment(folder, from_outer_field(commitment))
    }

    /// A cache in `folder` for the tree with this commitment.
    #[must_use]
    pub fn with_commitment(folder: &Path, expected: Fr) -> Self {
        let name = blake3::hash(expected.to_string().as_bytes()).to_hex();
        Self { path: folder.join(format!("outer-tree-{}.bin", &name[..16])), expected }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tree of `rows`: from the file if it is there and right, else hashed and, if it has the expected commitment,
    /// written. A cache that cannot be used costs time, never a proof: problems are logged.
    #[must_use]
    pub fn load_or_build(&self, rows: &dyn Rows) -> MerkleTree {
        match self.load(rows) {
            Ok(tree) => return tree,
            Err(CacheError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "cached outer tree not used; hashing anew"),
        }
        let tree = MerkleTree::build(rows);
        if tree.commitment() == self.expected {
            if let Err(error) = self.store(rows.height(), &tree) {
                tracing::warn!(%error, "outer tree not cached");
            }
        } else {
            tracing::warn!(path = %self.path.display(), "outer tree has another commitment; not cached");
        }
        tree
    }

    /// Reads and checks the file.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub fn load(&self, rows: &dyn Rows) -> Result<MerkleTree, CacheError> {
        let format = |what| CacheError::Format { path: self.path.clone(), what };
        let bytes = fs::read(&self.path).map_err(|source| self.io(source))?;
        let (body, checksum) = bytes.split_last_chunk::<32>().ok_or_else(|| format("too short"))?;
        if blake3::hash(body) != blake3::Hash::from_bytes(*checksum) {
            return Err(format("checksum does not match"));
        }
        let (header, digests) = body.split_at_checked(HEADER_LEN).ok_or_else(|| format("too short"))?;
        if header != header_of(rows.height(), rows.width()) {
            return Err(format("another format or shape"));
        }
        let tree = MerkleTree::decode(rows.height(), rows.width(), digests)?;
        let got = tree.commitment();
        if got != self.expected {
            return Err(CacheError::Commitment { expected: self.expected, got });
        }
        let samples: Vec<usize> = (0..SAMPLES).map(|i| i * rows.height() / SAMPLES).collect();
        tree.open(rows, &samples)?;
        Ok(tree)
    }

    /// Writes the file, at once or not at all.
    fn store(&self, height: usize, tree: &MerkleTree) -> Result<(), CacheError> {
        let mut bytes = header_of(height, tree.width()).to_vec();
        bytes.extend(tree.encode());
        let checksum = blake3::hash(&bytes);
        bytes.extend(checksum.as_bytes());
        let temporary = self.path.with_extension(format!("tmp-{}", std::process::id()));
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(|source| self.io(source))?;
        }
        fs::write(&temporary, &bytes)
            .and_then(|()| fs::rename(&temporary, &self.path))
            .map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> CacheError {
        CacheError::Io { path: self.path.clone(), source }
    }
}

fn header_of(height: usize, width: usize) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&(height as u64).to_le_bytes());
    header[16..].copy_from_slice(&(width as u64).to_le_bytes());
    header
}
