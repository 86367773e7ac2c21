//! The states of a rollup as a tree: every batch that led from one state to another, on disk, and the chain at one of the states.
//!
//! A claim may be slashed or reorganised away and its place taken by another, so batches are not in a row. Folder:
//! `genesis`, the commitment (64 hexadecimal digits); `<new root>.batch`: previous root (32), then the batch's data. A
//! state is reached by executing the batches on its way, so nothing in the files is believed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use assay_lvm::batch::FILE_SIZE_MAX;
use assay_lvm::{BatchError, Chain};

use crate::fsio::{self, FileError};

const GENESIS: &str = "genesis";

/// Why a state cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatesError {
    /// Files.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder was made with another genesis.
    #[error("{} holds the states of a rollup with another genesis", folder.display())]
    Genesis {
        /// The folder.
        folder: PathBuf,
    },
    /// A kept batch does not lead to its state.
    #[error("{} is damaged: its batch does not lead to the state that it is named after", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// What leads to a state: the state before, and the batch's data.
type Step = ([u8; 32], Vec<u8>);

/// The tree, and the chain at one of its states.
pub(super) struct States {
    genesis: Chain,
    root: [u8; 32],
    folder: PathBuf,
    chain: Chain,
    /// Commitment to the state at the chain's tip.
    at: [u8; 32],
}

impl States {
    /// Takes the folder, which is made if there is none. `root`: commitment to the state at the tip of `genesis`.
    pub(super) fn open(genesis: Chain, root: [u8; 32], folder: &Path) -> Result<Self, StatesError> {
        let path = folder.join(GENESIS);
        let own = hex::encode(root).into_bytes();
        match read(&path)? {
            Some(stored) if stored != own => {
                return Err(StatesError::Genesis { folder: folder.to_owned() });
            }
            Some(_) => {}
            None => fsio::write_atomic(&path, &own)?,
        }
        Ok(Self { chain: genesis.clone(), genesis, root, folder: folder.to_owned(), at: root })
    }

    /// Forgets what is in the folder; other files in it are left alone.
    pub(super) fn clear(folder: &Path) -> Result<(), StatesError> {
        let listing = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            listing => listing.map_err(fsio::io_error("read", folder))?,
        };
        for entry in listing {
            let path = entry.map_err(fsio::io_error("read", folder))?.path();
            let is_batch = path.extension().is_some_and(|extension| extension == "batch");
            if is_batch || path.file_name().is_some_and(|name| name == GENESIS) {
                fsio::remove_if_present(&path)?;
            }
        }
        Ok(())
    }

    /// The chain up to where [`go_to`](Self::go_to) or [`import`](Self::import) has led.
    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    fn path(&self, root: &[u8; 32]) -> PathBuf {
        self.folder.join(format!("{}.batch", hex::encode(root)))
    }

    /// What leads to `root`.
    fn load(&self, root: &[u8; 32]) -> Result<Option<Step>, StatesError> {
        let path = self.path(root);
        let Some(mut bytes) = read(&path)? else { return Ok(None) };
        let Some(before) = bytes.first_chunk::<32>().copied() else {
            return Err(StatesError::Damaged { path });
        };
        bytes.drain(..32);
        Ok(Some((before, bytes)))
    }

    /// Leads the chain to a state; false if it is not known. Cost: the batches from the state where the chain is, if that is on the
    /// way, or else from genesis.
    pub(super) fn go_to(&mut self, root: &[u8; 32]) -> Result<bool, StatesError> {
        let mut way = Vec::new();
        let mut seen = BTreeSet::new();
        let mut at = *root;
        while at != self.at && at != self.root {
            let Some((before, _)) = self.load(&at)? else { return Ok(false) };
            if !seen.insert(at) {
                return Err(StatesError::Damaged { path: self.path(&at) });
            }
            way.push(at);
            at = before;
        }
        if at != self.at {
            self.chain = self.genesis.clone();
            self.at = self.root;
        }
        for root in way.into_iter().rev() {
            let Some((_, data)) = self.load(&root)? else { return Ok(false) };
            let led = self.import(&data);
            if !led.is_ok_and(|led| led == root) {
                return Err(StatesError::Damaged { path: self.path(&root) });
            }
        }
        Ok(true)
    }

    /// Executes a batch on the state where the chain is, and goes to the state after it, which is returned.
    ///
    /// # Errors
    /// Why it does not execute; the chain is where it was.
    pub(super) fn import(&mut self, data: &[u8]) -> Result<[u8; 32], BatchError> {
        self.at = self.chain.import(data)?.commitment();
        Ok(self.at)
    }

    /// Keeps the batch that was imported last, from the state `before`.
    pub(super) fn keep(&self, before: &[u8; 32], data: &[u8]) -> Result<(), StatesError> {
        let path = self.path(&self.at);
        if !path.exists() {
            fsio::write_atomic(&path, &[before.as_slice(), data].concat())?;
        }
        Ok(())
    }
}

/// A file, `None` if it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, StatesError> {
    match fsio::read_limited(path, FILE_SIZE_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(FileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_lvm::sample;

    fn open(folder: &Path) -> States {
        let root = sample::genesis_state().unwrap().commitment();
        States::open(sample::genesis_chain().unwrap(), root, folder).unwrap()
    }

    #[test]
    fn states_are_reached_in_any_order_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let data = [1, 2, 3].map(|index| sample::batch(index).unwrap().data());
        let whole = sample::chain(3).unwrap();
        let roots = [0, 2, 4, 6].map(|block| whole.state_after(block).unwrap().commitment());
        let mut states = open(dir.path());
        for index in 0..3 {
            assert!(states.go_to(&roots[index]).unwrap());
            assert_eq!(states.import(&data[index]).unwrap(), roots[index + 1]);
            states.keep(&roots[index], &data[index]).unwrap();
        }
        // Back, because the claims that followed were slashed.
        assert!(states.go_to(&roots[1]).unwrap());
        assert!(states.import(&data[2]).is_err(), "a batch executes on its own parent only");
        assert_eq!(states.import(&data[1]).unwrap(), roots[2]);
        assert!(!states.go_to(&[9; 32]).unwrap());
        drop(states);

        let mut states = open(dir.path());
        assert!(states.go_to(&roots[3]).unwrap());
        assert_eq!(states.chain().tip(), 6);
        drop(states);
        std::fs::write(
            dir.path().join(format!("{}.batch", hex::encode(roots[2]))),
            [roots[1].as_slice(), &data[2]].concat(),
        )
        .unwrap();
        assert!(matches!(open(dir.path()).go_to(&roots[3]), Err(StatesError::Damaged { .. })));
        // A way that leads in a circle ends.
        std::fs::write(
            dir.path().join(format!("{}.batch", hex::encode(roots[2]))),
            [roots[3].as_slice(), &data[2]].concat(),
        )
        .unwrap();
        assert!(matches!(open(dir.path()).go_to(&roots[3]), Err(StatesError::Damaged { .. })));
    }

    #[test]
    fn a_folder_of_another_genesis_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let other = States::open(sample::chain(1).unwrap(), [7; 32], dir.path());
        assert!(matches!(other, Err(StatesError::Genesis { .. })));
        std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        States::clear(dir.path()).unwrap();
        States::clear(&dir.path().join("missing")).unwrap();
        assert!(dir.path().join("notes.txt").exists());
        drop(States::open(sample::chain(1).unwrap(), [7; 32], dir.path()).unwrap());
    }
}
