//! The tree of the constant preprocessed traces, kept in a file between processes.
//!
//! File: magic (8 bytes), height and width (8 bytes each, little-endian), the lowest level kept of the tree (see
//! [`MerkleTree::encode`]), BLAKE3 of all before.
//!
//! A file can be wrong but not lie. The zkVM's wrap key is known beforehand and contains a commitment to the tree's root: the
//! user of this cache compares, then calls [`TreeCache::confirm`] (only then is a new tree written) or
//! [`TreeCache::reject`] (the file is removed). A sample of the subtrees is checked against the rows on loading, and every
//! subtree that a proof opens is hashed again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use assay_kernels::merkle::{MerkleError, MerkleTree, Rows};
use sp1_hypercube::MachineVerifyingKey;
use sp1_primitives::SP1OuterGlobalContext;
use thiserror::Error;

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
    /// The tree does not fit its rows or its file.
    #[error("cached tree")]
    Tree(#[from] MerkleError),
}

/// Where the tree last given out came from.
#[derive(Debug, Default)]
enum Origin {
    #[default]
    None,
    File,
    Hashed {
        height: usize,
        tree: Arc<MerkleTree>,
    },
}

/// One file for one tree.
#[derive(Debug)]
pub struct TreeCache {
    path: PathBuf,
    origin: Mutex<Origin>,
}

impl TreeCache {
    /// A cache in `folder` for the tree of the preprocessed traces that `key` commits to.
    ///
    /// # Panics
    /// Never: keys can be encoded.
    #[must_use]
    pub fn new(folder: &Path, key: &MachineVerifyingKey<SP1OuterGlobalContext>) -> Self {
        Self::named(folder, &bincode::serialize(key).expect("keys can be encoded"))
    }

    /// A cache in `folder` for the tree that `name` stands for.
    #[must_use]
    pub fn named(folder: &Path, name: &[u8]) -> Self {
        let name = blake3::hash(name).to_hex();
        Self { path: folder.join(format!("outer-tree-{}.bin", &name[..16])), origin: Mutex::default() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tree of `rows`: from the file if it is there and fits, else hashed. A cache that cannot be used costs time, never
    /// a proof: problems are logged.
    #[must_use]
    pub fn load_or_build(&self, rows: &dyn Rows) -> Arc<MerkleTree> {
        match self.load(rows) {
            Ok(tree) => {
                self.remember(Origin::File);
                return Arc::new(tree);
            }
            Err(CacheError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "cached outer tree not used; hashing anew"),
        }
        let tree = Arc::new(MerkleTree::build(rows));
        self.remember(Origin::Hashed { height: rows.height(), tree: tree.clone() });
        tree
    }

    /// The tree last given out is the right one: writes it, if it is not from the file.
    pub fn confirm(&self) {
        if let Origin::Hashed { height, tree } = self.remember(Origin::None) {
            if let Err(error) = self.store(height, &tree) {
                tracing::warn!(%error, "outer tree not cached");
            }
        }
    }

    /// The tree last given out is not the right one. True if it was from the file: the file is removed, and the next tree
    /// will be hashed.
    #[must_use]
    pub fn reject(&self) -> bool {
        let from_file = matches!(self.remember(Origin::None), Origin::File);
        if from_file {
            tracing::warn!(path = %self.path.display(), "cached outer tree has another root; removing it");
            if let Err(error) = fs::remove_file(&self.path).map_err(|source| self.io(source)) {
                tracing::warn!(%error, "wrong outer tree not removed");
            }
        }
        from_file
    }

    fn remember(&self, origin: Origin) -> Origin {
        std::mem::replace(&mut self.origin.lock().unwrap_or_else(PoisonError::into_inner), origin)
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
