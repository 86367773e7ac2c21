//! Append-only file of the blocks of the in-process chain: what survives a kill at any moment.
//!
//! The consensus library flushes its databases when it is closed, not after each block. This file is synchronised to disk
//! before a call that added blocks returns, and replayed on opening.
//!
//! Record: length (4 bytes, little endian), the first 4 bytes of the SHA-256 of the block's bytes, the block as consensus
//! encodes it. A record that is cut short or whose checksum differs ends the file: it and what follows is dropped.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::Block;
use sha2::{Digest, Sha256};

use super::BackendError;

/// Consensus limit on the serialised size of a block, in bytes.
const BLOCK_BYTES_MAX: usize = 4_000_000;
/// Bytes before each block.
const PREFIX_BYTES: usize = 8;

/// The open file, positioned at its end.
#[derive(Debug)]
pub(super) struct BlockLog {
    file: File,
    path: PathBuf,
}

impl BlockLog {
    /// Opens or creates the file and returns its blocks in order.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Block>), BackendError> {
        let storage = || BackendError::storage(path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(storage())?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(storage())?;
        let (blocks, good) = parse(&bytes);
        if good < bytes.len() {
            tracing::warn!(
                "{}: dropping {} bytes of an unfinished record",
                path.display(),
                bytes.len() - good
            );
            file.set_len(good as u64).map_err(storage())?;
        }
        file.seek(SeekFrom::Start(good as u64)).map_err(storage())?;
        Ok((Self { file, path: path.to_owned() }, blocks))
    }

    /// Appends one block. It is durable after the next [`sync`](Self::sync).
    pub(super) fn append(&mut self, block: &Block) -> Result<(), BackendError> {
        let body = serialize(block);
        let mut record = Vec::with_capacity(PREFIX_BYTES + body.len());
        record.extend_from_slice(&(body.len() as u32).to_le_bytes());
        record.extend_from_slice(&checksum(&body));
        record.extend_from_slice(&body);
        self.file.write_all(&record).map_err(BackendError::storage(&self.path))
    }

    /// Waits until everything appended is on disk.
    pub(super) fn sync(&mut self) -> Result<(), BackendError> {
        self.file.sync_data().map_err(BackendError::storage(&self.path))
    }
}

fn checksum(body: &[u8]) -> [u8; 4] {
    let digest = Sha256::digest(body);
    [digest[0], digest[1], digest[2], digest[3]]
}

/// Returns the whole records from the start and the number of bytes they take.
fn parse(bytes: &[u8]) -> (Vec<Block>, usize) {
    let mut blocks = Vec::new();
    let mut at = 0;
    while let Some((block, taken)) = parse_record(&bytes[at..]) {
        blocks.push(block);
        at += taken;
    }
    (blocks, at)
}

fn parse_record(bytes: &[u8]) -> Option<(Block, usize)> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    if length > BLOCK_BYTES_MAX {
        return None;
    }
    let body = bytes.get(PREFIX_BYTES..PREFIX_BYTES + length)?;
    if bytes[4..PREFIX_BYTES] != checksum(body) {
        return None;
    }
    Some((deserialize(body).ok()?, PREFIX_BYTES + length))
}

#[cfg(test)]
mod tests {
    use bitcoin::constants::genesis_block;
    use bitcoin::Network;

    use super::*;

    #[test]
    fn a_torn_or_damaged_tail_is_dropped_and_the_rest_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks.log");
        let genesis = genesis_block(Network::Regtest);
        let (mut log, blocks) = BlockLog::open(&path).unwrap();
        assert!(blocks.is_empty());
        log.append(&genesis).unwrap();
        log.append(&genesis).unwrap();
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        for cut in [whole.len() - 1, whole.len() / 2 + 3] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut log, blocks) = BlockLog::open(&path).unwrap();
            assert_eq!(blocks, vec![genesis.clone()]);
            log.append(&genesis).unwrap();
            drop(log);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert_eq!(BlockLog::open(&path).unwrap().1.len(), 1);
    }

    #[test]
    fn a_changed_log_gives_a_beginning_of_itself() {
        let genesis = genesis_block(Network::Regtest);
        let mut other = genesis.clone();
        other.txdata.push(genesis.txdata[0].clone());
        let record = |block: &Block| {
            let body = serialize(block);
            [&(body.len() as u32).to_le_bytes(), &checksum(&body), body.as_slice()].concat()
        };
        let corpus = [record(&genesis), [record(&genesis), record(&other)].concat()];
        // The `bitcoin` crate begins a witness with up to 16 MB.
        assay_l1_fuzz::Target::new("block-log", &corpus).memory(20 << 20, 24).run(|bytes| {
            let (blocks, good) = parse(bytes);
            assert_eq!(blocks.iter().flat_map(record).collect::<Vec<u8>>(), bytes[..good]);
            // Behind the checksum there is a decoder, too.
            let body = bytes.get(PREFIX_BYTES..).unwrap_or_default();
            let sealed = [&(body.len() as u32).to_le_bytes(), &checksum(body), body].concat();
            assert!(parse(&sealed).1 == 0 || parse(&sealed).0.len() == 1);
            !blocks.is_empty()
        });
    }
}
