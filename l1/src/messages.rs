//! The queue of messages to the rollup: forced transactions and deposits in final blocks, first in, first out.
//!
//! What counts as a message, and how many of them an L2 block takes, is [`assay_l1_light::message`]'s: the guest runs the same
//! code. This module reads the blocks and remembers, on disk, what it found. The queue is a pure function of the active
//! chain, the rules, the first block and the depth: after any reorganisation it equals the queue of a scan from scratch.
//! The one thing that cannot be undone is what the L2 has consumed; a chain that takes that back stops the queue
//! ([`QueueError::Consumed`]).
//!
//! Directory: `messages.json`, `lock`.

use std::fs::File;
use std::path::{Path, PathBuf};

use assay_l1_light::message::{scan, Entry, Limits, MessageError, Position, Rules};
use assay_l1_light::proof::{ProofError, WholeBlock};
use assay_l1_light::Hash;
use bitcoin::consensus::encode::serialize;
use serde::{Deserialize, Serialize};

use crate::backend::{BackendError, BitcoinBackend};
use crate::error::Class;
use crate::store::{lock_dir, read_json, write_json, LockError, StoreError};
use crate::window::BlockWindow;

const VERSION: u32 = 1;
/// Bytes of waiting messages beyond which no further block is read until some are consumed.
pub const WAITING_BYTES_MAX: usize = 16 << 20;

/// What a queue is about. All of it is fixed for the queue's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// Directory of the queue; created when absent.
    pub dir: PathBuf,
    /// Which messages count.
    pub rules: Rules,
    /// First block that is read.
    pub start_height: u32,
    /// Confirmations, the block itself among them, that make a block final; at least 1.
    pub finality: u32,
}

/// Why the queue cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The chain.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process works on the directory.
    #[error("the message queue in {} is open in another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds a queue with other settings.
    #[error("the message queue on disk has another {field}")]
    Config {
        /// Which setting.
        field: &'static str,
    },
    /// A block of the node does not fit its own header.
    #[error("block at height {height} does not fit its header: {source}")]
    Block {
        /// Its height.
        height: u32,
        /// What does not fit.
        source: ProofError,
    },
    /// The chain changed between two reads; call again.
    #[error("the chain was reorganised while block {height} was read: call again")]
    Moved {
        /// Height that was read.
        height: u32,
    },
    /// A reorganisation deeper than finality took back a message that the L2 has consumed. Nothing can be done but to halt.
    #[error("a reorganisation took back the block at height {} whose message was consumed", position.height)]
    Consumed {
        /// The last consumed message.
        position: Position,
    },
    /// More messages are said to be consumed than wait.
    #[error("{count} messages cannot be consumed, {waiting} wait")]
    TooMany {
        /// Consumed, as said.
        count: usize,
        /// Waiting.
        waiting: usize,
    },
}

impl QueueError {
    /// What a caller may do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Backend(error) => error.class(),
            Self::Locked { .. } | Self::Moved { .. } => Class::Transient,
            Self::TooMany { .. } => Class::Bug,
            _ => Class::Permanent,
        }
    }
}

/// How far a call of [`MessageQueue::advance`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Height up to which messages are final and known; `None` before the first block.
    pub height: Option<u32>,
    /// True if every final block has been read.
    pub is_complete: bool,
}

/// A message that does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Its place.
    pub position: Position,
    /// Why.
    pub error: MessageError,
}

/// What the file holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    tag: String,
    peg_in: Option<String>,
    start_height: u32,
    finality: u32,
    window: BlockWindow,
    /// Number of messages consumed.
    consumed: u64,
    /// The last of them: height, transaction, input.
    consumed_last: Option<[u32; 3]>,
    /// Digest of all of them, hexadecimal.
    consumed_digest: String,
    /// Encoded entries, hexadecimal.
    waiting: String,
}

/// The queue with its file. One process at a time per directory.
#[derive(Debug)]
pub struct MessageQueue {
    config: QueueConfig,
    window: BlockWindow,
    consumed: u64,
    consumed_last: Option<Position>,
    consumed_digest: Hash,
    waiting: Vec<Entry>,
    _lock: File,
}

impl MessageQueue {
    /// Opens the queue in `config.dir`, or starts one there. The chain is not asked.
    ///
    /// # Errors
    /// `Locked`, `Store`, `Config`.
    pub fn open(config: QueueConfig) -> Result<Self, QueueError> {
        if config.finality == 0 {
            return Err(QueueError::Config { field: "finality: at least 1 confirmation is needed" });
        }
        let lock = lock_dir(&config.dir).map_err(|error| match error {
            LockError::Held { dir } => QueueError::Locked { dir },
            LockError::Store(error) => error.into(),
        })?;
        let window = BlockWindow::starting_at(config.start_height);
        let mut queue = Self {
            config,
            window,
            consumed: 0,
            consumed_last: None,
            consumed_digest: Hash::ZERO,
            waiting: Vec::new(),
            _lock: lock,
        };
        if let Some(stored) = read_json::<Stored>(&queue.path())? {
            queue.restore(stored)?;
        }
        Ok(queue)
    }

    fn path(&self) -> PathBuf {
        self.config.dir.join("messages.json")
    }

    fn restore(&mut self, stored: Stored) -> Result<(), QueueError> {
        let path = self.path();
        let damaged = |detail: String| StoreError::Format { path: path.clone(), detail };
        let config = &self.config;
        let same = [
            ("version", stored.version == VERSION),
            ("tag", stored.tag == hex::encode(config.rules.tag)),
            ("peg-in script", stored.peg_in == config.rules.peg_in.as_ref().map(hex::encode)),
            ("first block", stored.start_height == config.start_height),
            ("finality", stored.finality == config.finality),
        ];
        if let Some((field, _)) = same.into_iter().find(|(_, same)| !same) {
            return Err(QueueError::Config { field });
        }
        let bytes = hex::decode(&stored.waiting).map_err(|error| damaged(error.to_string()))?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (entry, after) = Entry::decode(rest).map_err(|error| damaged(error.to_string()))?;
            self.waiting.push(entry);
            rest = after;
        }
        let position = |[height, tx, input]: [u32; 3]| Position { height, tx, input };
        self.consumed_last = stored.consumed_last.map(position);
        hex::decode_to_slice(&stored.consumed_digest, &mut self.consumed_digest.0)
            .map_err(|error| damaged(error.to_string()))?;
        let positions = self.consumed_last.iter().chain(self.waiting.iter().map(|entry| &entry.position));
        let heights_fit =
            self.waiting.iter().all(|entry| entry.position.height < stored.window.next_height());
        if !positions.is_sorted_by(|a, b| a < b)
            || !heights_fit
            || !stored.window.is_valid(config.start_height)
        {
            return Err(damaged("messages are out of order".to_owned()).into());
        }
        self.window = stored.window;
        self.consumed = stored.consumed;
        Ok(())
    }

    fn save(&self) -> Result<(), StoreError> {
        let bytes: Vec<u8> = self.waiting.iter().flat_map(Entry::encode).collect();
        let stored = Stored {
            version: VERSION,
            tag: hex::encode(self.config.rules.tag),
            peg_in: self.config.rules.peg_in.as_ref().map(hex::encode),
            start_height: self.config.start_height,
            finality: self.config.finality,
            window: self.window.clone(),
            consumed: self.consumed,
            consumed_last: self.consumed_last.map(|at| [at.height, at.tx, at.input]),
            consumed_digest: hex::encode(self.consumed_digest.0),
            waiting: hex::encode(bytes),
        };
        write_json(&self.path(), &stored)
    }

    /// Follows the chain by at most `blocks_max` blocks, and tells `refused` of messages that do not count. The file is written
    /// once, at the end: after a kill the same blocks are read again.
    ///
    /// # Errors
    /// `Backend`, `Store`, `Block`, `Moved`; `Consumed` if the L2 acted on a message that the chain has no more.
    pub fn advance(
        &mut self,
        backend: &dyn BitcoinBackend,
        blocks_max: u32,
        refused: &mut dyn FnMut(Refused),
    ) -> Result<Progress, QueueError> {
        let tip = backend.tip()?.height;
        let final_end = (tip + 1).saturating_sub(self.config.finality - 1);
        let changed = self.rewind(backend, final_end)?;
        let end = final_end.min(self.window.next_height().saturating_add(blocks_max));
        let mut bytes: usize = self.waiting.iter().map(|entry| entry.action.bytes_len()).sum();
        let before = self.window.next_height();
        let mut result = Ok(());
        while self.window.next_height() < end && bytes <= WAITING_BYTES_MAX {
            match self.read_block(backend, refused) {
                Ok(added) => bytes += added,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if changed || self.window.next_height() != before {
            self.save()?;
        }
        result?;
        let next = self.window.next_height();
        Ok(Progress {
            height: (next > self.config.start_height).then(|| next - 1),
            is_complete: next >= final_end,
        })
    }

    /// Forgets what is no longer final on the active chain; true if there was something.
    fn rewind(&mut self, backend: &dyn BitcoinBackend, final_end: u32) -> Result<bool, QueueError> {
        let before = self.window.next_height();
        let mut window = self.window.clone();
        window.rewind(backend, self.config.start_height, final_end)?;
        let next = window.next_height();
        if next == before {
            return Ok(false);
        }
        match self.consumed_last {
            Some(position) if position.height >= next && !self.are_there(backend, position)? => {
                return Err(QueueError::Consumed { position });
            }
            _ => {}
        }
        tracing::warn!("messages: the chain was reorganised, going back from height {before} to {next}");
        self.window = window;
        self.waiting.retain(|entry| entry.position.height < next);
        Ok(true)
    }

    /// True if the active chain has the consumed messages as they were, final or not: read from the start.
    fn are_there(&self, backend: &dyn BitcoinBackend, last: Position) -> Result<bool, QueueError> {
        let (mut count, mut digest) = (0, Hash::ZERO);
        for height in self.config.start_height..=last.height.min(backend.tip()?.height) {
            let (entries, ..) = self.entries_at(backend, height, &mut |_| {})?;
            for entry in entries.iter().filter(|entry| entry.position <= last) {
                count += 1;
                digest = entry.digest(&digest);
            }
        }
        Ok(count == self.consumed && digest == self.consumed_digest)
    }

    /// Reads the next block; returns the bytes of its messages.
    fn read_block(
        &mut self,
        backend: &dyn BitcoinBackend,
        refused: &mut dyn FnMut(Refused),
    ) -> Result<usize, QueueError> {
        let height = self.window.next_height();
        let (entries, hash, parent) = self.entries_at(backend, height, refused)?;
        if !self.window.push(hash, parent) {
            return Err(QueueError::Moved { height });
        }
        let consumed = self.consumed_last;
        let new = entries.into_iter().filter(|entry| consumed.is_none_or(|last| entry.position > last));
        let before = self.waiting.len();
        self.waiting.extend(new);
        Ok(self.waiting[before..].iter().map(|entry| entry.action.bytes_len()).sum())
    }

    fn entries_at(
        &self,
        backend: &dyn BitcoinBackend,
        height: u32,
        refused: &mut dyn FnMut(Refused),
    ) -> Result<(Vec<Entry>, bitcoin::BlockHash, bitcoin::BlockHash), QueueError> {
        let hash = backend.block_hash(height)?;
        let block = backend.block(&hash)?;
        let bytes = serialize(&block);
        let whole = WholeBlock::decode(&bytes).map_err(|source| QueueError::Block { height, source })?;
        let mut entries = Vec::new();
        for found in scan(&whole, height, &self.config.rules) {
            let position = found.position;
            match found.action {
                Ok(action) => entries.push(Entry { position, txid: found.txid, action }),
                Err(error) => refused(Refused { position, error }),
            }
        }
        Ok((entries, hash, block.header.prev_blockhash))
    }

    /// Messages in final blocks that wait, in order.
    #[must_use]
    pub fn waiting(&self) -> &[Entry] {
        &self.waiting
    }

    /// Number of messages consumed so far: the sequence number of the first one that waits.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Digest of the messages consumed so far, as [`Entry::digest`] builds it.
    #[must_use]
    pub fn consumed_digest(&self) -> Hash {
        self.consumed_digest
    }

    /// The messages at the head that the next L2 block takes.
    #[must_use]
    pub fn head(&self, limits: &Limits) -> &[Entry] {
        &self.waiting[..limits.head(&self.waiting)]
    }

    /// Drops the first `count` messages: an L2 block that is settled holds them.
    ///
    /// # Errors
    /// `TooMany`; `Store`, and then nothing has been dropped.
    pub fn consume(&mut self, count: usize) -> Result<(), QueueError> {
        let waiting = self.waiting.len();
        if count > waiting {
            return Err(QueueError::TooMany { count, waiting });
        }
        let Some(last) = count.checked_sub(1).map(|last| self.waiting[last].position) else { return Ok(()) };
        let before = (self.waiting.clone(), self.consumed, self.consumed_last, self.consumed_digest);
        for entry in self.waiting.drain(..count) {
            self.consumed_digest = entry.digest(&self.consumed_digest);
        }
        self.consumed += count as u64;
        self.consumed_last = Some(last);
        if let Err(error) = self.save() {
            (self.waiting, self.consumed, self.consumed_last, self.consumed_digest) = before;
            return Err(error.into());
        }
        Ok(())
    }

    /// Directory of the queue.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.config.dir
    }
}
