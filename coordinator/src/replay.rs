//! The rollup's state rebuilt from published batches: what `assay l1 sync` executes with.
//!
//! Every batch is kept on disk before it is executed, so a later run starts from genesis and what is kept, and asks the node only
//! for what is new. Executing is cheap beside proving; what costs is reading the chain.

use std::path::{Path, PathBuf};

use assay_l1::sync::{Execute, SyncedClaim};
use assay_lvm::batch::{hash_of_data, FILE_SIZE_MAX};
use assay_lvm::core::ChainState;
use assay_lvm::{BatchError, Chain};

use crate::fsio::{self, FileError};

/// Why a replay cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Files.
    #[error(transparent)]
    File(#[from] FileError),
    /// A kept batch does not execute: the folder is of another genesis.
    #[error(
        "{}: {source}: the folder holds another rollup's batches; choose another --dir, or start over with --from-genesis",
        path.display()
    )]
    Kept {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<BatchError>,
    },
    /// The folder holds a file that no replay wrote.
    #[error("{} is not a kept batch (EPOCH-CLAIM.data)", path.display())]
    Stray {
        /// The file.
        path: PathBuf,
    },
}

/// A chain, and the folder with the batches that made it.
pub struct Replay {
    chain: Chain,
    folder: PathBuf,
    /// The last claim's numbers and its batch's last block.
    last: Option<(u32, u32)>,
}

impl Replay {
    /// Starts from `genesis` and executes what `folder` keeps.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn open(genesis: Chain, folder: &Path) -> Result<Self, ReplayError> {
        let mut this = Self { chain: genesis, folder: folder.to_owned(), last: None };
        for (claim, path) in kept(folder)? {
            let data = fsio::read_limited(&path, FILE_SIZE_MAX)?;
            let imported = this.chain.import(&data);
            imported.map_err(|source| ReplayError::Kept { path, source: Box::new(source) })?;
            this.last = Some(claim);
        }
        Ok(this)
    }

    /// Forgets all kept batches.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn clear(folder: &Path) -> Result<(), ReplayError> {
        for (_, path) in kept(folder)? {
            fsio::remove_if_present(&path)?;
        }
        Ok(())
    }

    /// The state after the last batch.
    pub fn state(&self) -> Option<ChainState> {
        self.chain.state_after(self.chain.tip())
    }

    fn path(&self, (epoch, claim): (u32, u32)) -> PathBuf {
        self.folder.join(format!("{epoch}-{claim}.data"))
    }
}

/// A claim's numbers, and the file of its batch.
type Kept = ((u32, u32), PathBuf);

/// Kept batches in order.
fn kept(folder: &Path) -> Result<Vec<Kept>, ReplayError> {
    let listing = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(fsio::io_error("read", folder))?,
    };
    let mut found = Vec::new();
    for entry in listing {
        let path = entry.map_err(fsio::io_error("read", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // What a kill left half written.
        if name.starts_with(".partial-") {
            continue;
        }
        let numbers = name.strip_suffix(".data").and_then(|name| name.split_once('-'));
        match numbers.map(|(epoch, claim)| (epoch.parse(), claim.parse())) {
            Some((Ok(epoch), Ok(claim))) => found.push(((epoch, claim), path)),
            _ => return Err(ReplayError::Stray { path }),
        }
    }
    found.sort();
    Ok(found)
}

impl Execute for Replay {
    fn batch_hash(&mut self, data: &[u8]) -> Result<[u8; 32], String> {
        hash_of_data(data).map_err(|error| error.to_string())
    }

    fn execute(&mut self, claim: &SyncedClaim, data: &[u8]) -> Result<[u8; 32], String> {
        let numbers = (claim.epoch, claim.claim);
        let state = if self.last.is_some_and(|last| last >= numbers) {
            // Executed before the reader had written down that it was.
            if self.last != Some(numbers) {
                return Err(format!("claim {}.{} was executed long ago", numbers.0, numbers.1));
            }
            self.state().ok_or("there is no state")?
        } else {
            let state = self.chain.import(data).map_err(|error| error.to_string())?;
            fsio::write_atomic(&self.path(numbers), data).map_err(|error| error.to_string())?;
            self.last = Some(numbers);
            state
        };
        Ok(state.commitment())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_l1::envelope::message::ClaimValues;
    use assay_lvm::sample;

    fn claim(number: u32) -> SyncedClaim {
        let zero = "00".repeat(32);
        let none = [0; 32];
        SyncedClaim {
            epoch: 0,
            claim: number,
            txid: zero.parse().unwrap(),
            height: 1,
            values: ClaimValues {
                prev_commitment: none,
                new_commitment: none,
                batch_hash: none,
                code_root: none,
                digest: none,
            },
            is_linked: true,
            batch: None,
            proof: None,
        }
    }

    #[test]
    fn a_replay_comes_to_the_state_of_the_chain_and_goes_on_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("batches");
        let whole = sample::chain(2).unwrap();
        let data = [sample::batch(1).unwrap().data(), sample::batch(2).unwrap().data()];
        let mut replay = Replay::open(sample::genesis_chain().unwrap(), &folder).unwrap();
        assert_eq!(replay.batch_hash(&data[0]).unwrap(), sample::batch(1).unwrap().hash().unwrap());
        let first = replay.execute(&claim(0), &data[0]).unwrap();
        assert_eq!(first, whole.state_after(2).unwrap().commitment());
        // Out of order: refused, and nothing is kept of it.
        assert!(replay.execute(&claim(1), &data[0]).is_err());
        drop(replay);

        let mut replay = Replay::open(sample::genesis_chain().unwrap(), &folder).unwrap();
        assert_eq!(replay.execute(&claim(0), &data[0]).unwrap(), first);
        let second = replay.execute(&claim(1), &data[1]).unwrap();
        assert_eq!(second, whole.state_after(4).unwrap().commitment());
        assert!(replay.execute(&claim(0), &data[0]).is_err());
        drop(replay);

        std::fs::write(folder.join("notes.txt"), "mine").unwrap();
        let opened = Replay::open(sample::genesis_chain().unwrap(), &folder);
        assert!(matches!(opened, Err(ReplayError::Stray { .. })));
        std::fs::remove_file(folder.join("notes.txt")).unwrap();
        std::fs::write(folder.join("0-1.data"), &data[0]).unwrap();
        let opened = Replay::open(sample::genesis_chain().unwrap(), &folder);
        assert!(matches!(opened, Err(ReplayError::Kept { .. })));
        Replay::clear(&folder).unwrap();
        let replay = Replay::open(sample::genesis_chain().unwrap(), &folder).unwrap();
        assert_eq!(replay.state(), Some(sample::genesis_state().unwrap()));
    }
}
