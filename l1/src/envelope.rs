//! Data on Bitcoin: messages in taproot commit/reveal envelopes, and the reader that finds them.
//!
//! A commit output's only leaf is `<author key> CHECKSIG 0 IF <header> <520-byte pushes> ENDIF`; spending it (the reveal)
//! puts the leaf into a witness, where data costs a quarter. The author signs the reveal, so [`scan::scan`] knows who
//! published a message without further signatures. Layers: [`message`] (what is said), [`pack`] (compression, chunks),
//! [`script`] (bytes in a leaf), [`scan`] (block to envelopes to messages). Every decoder refuses what its encoder would
//! not have written, and is bounded.
//!
//! `l1/README.md` has the format byte by byte.

pub mod message;
pub mod pack;
pub mod scan;
pub mod script;

/// Marks the envelopes of one trunk.
pub type Tag = [u8; 8];

/// Largest body of one envelope, in bytes: with it a reveal stays below the 400,000 weight units that nodes relay.
pub const BODY_BYTES_MAX: usize = 397_000;
/// Largest message before compression, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Most chunks of one message.
pub const CHUNKS_MAX: usize = 256;

/// The tag of the trunk that `trunk_id` names.
///
/// # Panics
/// Never: eight of a hash's 32 bytes are eight bytes.
#[must_use]
pub fn tag(trunk_id: &[u8; 32]) -> Tag {
    let hash = blake3::derive_key("assay l1 envelope tag v1", trunk_id);
    hash[..8].try_into().expect("8 bytes")
}

/// How a body is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Plain,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    /// Byte in headers.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Zstd => 1,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Plain),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Type of an envelope's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// Data of a batch.
    Batch,
    /// Proof and public values of a claim.
    ClaimData,
    /// A transaction that users force upon the rollup.
    Forced,
    /// A deposit to the rollup.
    Deposit,
    /// Terms of an epoch.
    Epoch,
    /// A piece of a message too long for one envelope.
    Chunk,
    /// The list of such a message's pieces.
    Aggregate,
}

impl Kind {
    /// Byte in headers.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::ClaimData => 2,
            Self::Forced => assay_l1_light::message::FORCED_KIND,
            Self::Deposit => assay_l1_light::message::DEPOSIT_KIND,
            Self::Epoch => 5,
            Self::Chunk => 16,
            Self::Aggregate => 17,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        let all = [
            Self::Batch,
            Self::ClaimData,
            Self::Forced,
            Self::Deposit,
            Self::Epoch,
            Self::Chunk,
            Self::Aggregate,
        ];
        all.into_iter().find(|kind| kind.byte() == byte)
    }

    /// True for messages to the rollup, which the guest reads: never compressed, never in chunks.
    #[must_use]
    pub const fn is_to_rollup(self) -> bool {
        matches!(self, Self::Forced | Self::Deposit)
    }
}

/// One envelope: header fields and stored bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Type of the body.
    pub kind: Kind,
    /// How it is stored.
    pub codec: Codec,
    /// Length before compression; equals the stored length for [`Codec::Plain`].
    pub plain_len: u32,
    /// The stored bytes.
    pub stored: Vec<u8>,
}

/// Why bytes are no envelope or no message.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The leaf script has the tag but not the form.
    #[error("malformed envelope: {detail}")]
    Script {
        /// What is wrong.
        detail: &'static str,
    },
    /// A type byte that this version does not know.
    #[error("unknown message type {got}")]
    Kind {
        /// The byte.
        got: u8,
    },
    /// Lengths or counts beyond the limits.
    #[error("{what} is {got}, the limit is {limit}")]
    Limit {
        /// What was measured.
        what: &'static str,
        /// Its size.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// A length differs from the announced one.
    #[error("{what}: expected {expected} bytes, got {got}")]
    Length {
        /// What was measured.
        what: &'static str,
        /// Announced length.
        expected: usize,
        /// Length found.
        got: usize,
    },
    /// The zstd frame does not decompress to the announced length.
    #[error("compressed body is damaged")]
    Compression,
    /// A message's body has not the form of its type.
    #[error("malformed {kind:?} message: {detail}")]
    Message {
        /// Type announced.
        kind: Kind,
        /// What is wrong.
        detail: &'static str,
    },
    /// Chunks do not give the hash that the aggregate lists.
    #[error("chunks do not add up to the aggregate's hash")]
    AggregateHash,
}
