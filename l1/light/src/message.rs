//! What users say to the rollup through Bitcoin: forced transactions and deposits, in order.
//!
//! Anyone may publish them; the author of the envelope does not matter. Messages are never compressed and never cut in
//! chunks, so that a guest reads them with this module alone. The order is that of the chain: height, transaction, input.
//! The L2 takes them first in, first out, at the head of a batch's blocks, under the deterministic [`Limits`]: a claim whose
//! batch leaves one out is fraud.

use alloc::vec::Vec;

use crate::bytes::Reader;
use crate::envelope::{decode, tapscript, Envelope, EnvelopeError, Tag};
use crate::hash::{double_sha256, Hash};
use crate::proof::WholeBlock;
use crate::transaction::Transaction;

/// Type byte of a forced transaction.
pub const FORCED_KIND: u8 = 3;
/// Type byte of a deposit.
pub const DEPOSIT_KIND: u8 = 4;
/// Longest forced transaction, in bytes: what Ethereum's nodes take.
pub const FORCED_BYTES_MAX: usize = 131_072;
/// Bytes of a deposit's body.
pub const DEPOSIT_BYTES: usize = 24;
/// All bitcoin there can be, satoshi.
pub const MONEY_MAX_SAT: u64 = 21_000_000 * 100_000_000;
/// Bytes of an encoded entry around its body.
const ENTRY_BYTES: usize = 4 + 4 + 4 + 32 + 1;

/// What an envelope of type 3 or 4 says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A signed L2 transaction, as its own encoding has it. Body: these bytes.
    Forced(Vec<u8>),
    /// A deposit. Body: recipient (20), output (u32 LE).
    Deposit {
        /// L2 account that the amount goes to.
        recipient: [u8; 20],
        /// Output of the same Bitcoin transaction whose value is deposited.
        vout: u32,
    },
}

/// Why a message was refused. It counts as if it were not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The envelope is malformed.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The type is neither of the two.
    #[error("type {got} is no message to the rollup")]
    Kind {
        /// Type byte.
        got: u8,
    },
    /// It is compressed.
    #[error("messages to the rollup are not compressed")]
    Codec,
    /// A forced transaction is empty or too long.
    #[error("a forced transaction has 1 to {FORCED_BYTES_MAX} bytes, got {got}")]
    ForcedLength {
        /// Bytes given.
        got: usize,
    },
    /// A deposit has another length.
    #[error("a deposit has {DEPOSIT_BYTES} bytes, got {got}")]
    DepositLength {
        /// Bytes given.
        got: usize,
    },
    /// The rollup takes no deposits.
    #[error("the rollup has no peg-in output")]
    NoPegIn,
    /// The transaction has no such output, or it pays someone else or nothing.
    #[error("output {vout} is no peg-in")]
    NotPegIn {
        /// The output named.
        vout: u32,
    },
    /// An earlier deposit of the same transaction names the output.
    #[error("output {vout} backs an earlier deposit")]
    Spent {
        /// The output named.
        vout: u32,
    },
    /// An encoded entry is none.
    #[error("malformed queue entry")]
    Entry,
}

impl Body {
    /// Type byte.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Forced(_) => FORCED_KIND,
            Self::Deposit { .. } => DEPOSIT_KIND,
        }
    }

    /// The body's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Forced(bytes) => bytes.clone(),
            Self::Deposit { recipient, vout } => [recipient.as_slice(), &vout.to_le_bytes()].concat(),
        }
    }

    /// Reads the body of a message of type `kind`.
    ///
    /// # Errors
    /// `Kind`, `ForcedLength`, `DepositLength`.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, MessageError> {
        let got = body.len();
        match kind {
            FORCED_KIND if (1..=FORCED_BYTES_MAX).contains(&got) => Ok(Self::Forced(body.to_vec())),
            FORCED_KIND => Err(MessageError::ForcedLength { got }),
            DEPOSIT_KIND => {
                let mut reader = Reader(body);
                match (reader.array(), reader.u32(), reader.0) {
                    (Some(recipient), Some(vout), []) => Ok(Self::Deposit { recipient, vout }),
                    _ => Err(MessageError::DepositLength { got }),
                }
            }
            got => Err(MessageError::Kind { got }),
        }
    }

    fn of(envelope: &Envelope) -> Result<Self, MessageError> {
        if envelope.codec != 0 {
            return Err(MessageError::Codec);
        }
        Self::decode(envelope.kind, &envelope.stored)
    }
}

/// What makes a message one of this rollup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Tag of the trunk.
    pub tag: Tag,
    /// Script that a deposit's output must have; `None` where deposits are not taken.
    pub peg_in: Option<Vec<u8>>,
}

/// Where a message stands on the chain. The order of positions is the order of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Height of the block.
    pub height: u32,
    /// Index of the transaction in the block.
    pub tx: u32,
    /// Index of the input.
    pub input: u32,
}

/// What the L2 does for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Executes this signed transaction; one that fails counts as included.
    Execute(Vec<u8>),
    /// Mints.
    Mint {
        /// To this account.
        recipient: [u8; 20],
        /// This much, satoshi.
        amount_sat: u64,
        /// Output that holds it.
        vout: u32,
    },
}

impl Action {
    /// Bytes that count against [`Limits`].
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        match self {
            Self::Execute(bytes) => bytes.len(),
            Self::Mint { .. } => DEPOSIT_BYTES,
        }
    }
}

/// A message in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub position: Position,
    /// The Bitcoin transaction.
    pub txid: Hash,
    /// What is to be done.
    pub action: Action,
}

impl Entry {
    /// Height, transaction, input (4 each), txid (32), type (1); then the transaction's bytes with their length (4) before
    /// them, or recipient (20), amount (8), output (4). Integers little endian.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENTRY_BYTES + 4 + self.action.bytes_len());
        for number in [self.position.height, self.position.tx, self.position.input] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.txid.0);
        match &self.action {
            Action::Execute(bytes) => {
                out.push(FORCED_KIND);
                out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Action::Mint { recipient, amount_sat, vout } => {
                out.push(DEPOSIT_KIND);
                out.extend_from_slice(recipient);
                out.extend_from_slice(&amount_sat.to_le_bytes());
                out.extend_from_slice(&vout.to_le_bytes());
            }
        }
        out
    }

    /// Digest of a queue's messages up to this one, from the digest of those before it ([`Hash::ZERO`] before the first): the
    /// double SHA-256 of that and [`encode`](Self::encode). Who has consumed the same messages in the same order has the same
    /// digest.
    #[must_use]
    pub fn digest(&self, before: &Hash) -> Hash {
        double_sha256(&[&before.0, &self.encode()])
    }

    /// Reads one entry from the front; returns what follows it.
    ///
    /// # Errors
    /// `Entry`, `Kind`, `ForcedLength`.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), MessageError> {
        let mut reader = Reader(bytes);
        let mut head = || {
            let position = Position { height: reader.u32()?, tx: reader.u32()?, input: reader.u32()? };
            Some((position, Hash(reader.array()?), reader.u8()?))
        };
        let (position, txid, kind) = head().ok_or(MessageError::Entry)?;
        let action = match kind {
            FORCED_KIND => {
                let got = reader.u32().ok_or(MessageError::Entry)? as usize;
                if !(1..=FORCED_BYTES_MAX).contains(&got) {
                    return Err(MessageError::ForcedLength { got });
                }
                Action::Execute(reader.take(got).ok_or(MessageError::Entry)?.to_vec())
            }
            DEPOSIT_KIND => {
                let mut fields = || Some((reader.array()?, reader.u64()?, reader.u32()?));
                let (recipient, amount_sat, vout) = fields().ok_or(MessageError::Entry)?;
                if !(1..=MONEY_MAX_SAT).contains(&amount_sat) {
                    return Err(MessageError::Entry);
                }
                Action::Mint { recipient, amount_sat, vout }
            }
            got => return Err(MessageError::Kind { got }),
        };
        Ok((Self { position, txid, action }, reader.0))
    }
}

/// A message found in a block, or why it does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its place.
    pub position: Position,
    /// The Bitcoin transaction.
    pub txid: Hash,
    /// What is to be done.
    pub action: Result<Action, MessageError>,
}

/// All envelopes of types 3 and 4 with the rules' tag in a block at `height`, in order, and malformed ones of this tag whose
/// type cannot be told. Envelopes of other types are not messages and are passed over.
#[must_use]
pub fn scan(block: &WholeBlock<'_>, height: u32, rules: &Rules) -> Vec<Found> {
    let numbered = block.transactions.iter().enumerate().skip(1);
    numbered.flat_map(|(index, tx)| scan_transaction(tx, (height, index as u32), rules)).collect()
}

/// The messages of one transaction, whose place is height and index.
#[must_use]
pub fn scan_transaction(tx: &Transaction<'_>, (height, index): (u32, u32), rules: &Rules) -> Vec<Found> {
    let mut found = Vec::new();
    let mut backed = Vec::new();
    for (input, spent) in tx.inputs.iter().enumerate() {
        let Some(envelope) = tapscript(&spent.witness).and_then(|script| decode(script, &rules.tag)) else {
            continue;
        };
        let body = match &envelope {
            Ok(envelope) if !matches!(envelope.kind, FORCED_KIND | DEPOSIT_KIND) => continue,
            Ok(envelope) => Body::of(envelope),
            Err(error) => Err((*error).into()),
        };
        let action = body.and_then(|body| action(tx, body, rules, &mut backed));
        let position = Position { height, tx: index, input: input as u32 };
        found.push(Found { position, txid: tx.txid, action });
    }
    found
}

/// `backed` are the outputs that back deposits already.
fn action(
    tx: &Transaction<'_>,
    body: Body,
    rules: &Rules,
    backed: &mut Vec<u32>,
) -> Result<Action, MessageError> {
    let (recipient, vout) = match body {
        Body::Forced(bytes) => return Ok(Action::Execute(bytes)),
        Body::Deposit { recipient, vout } => (recipient, vout),
    };
    let peg_in = rules.peg_in.as_deref().ok_or(MessageError::NoPegIn)?;
    let output = tx.outputs.get(vout as usize).filter(|output| output.script_pubkey == peg_in);
    let amount_sat = output.map_or(0, |output| output.value_sat);
    if !(1..=MONEY_MAX_SAT).contains(&amount_sat) {
        return Err(MessageError::NotPegIn { vout });
    }
    if backed.contains(&vout) {
        return Err(MessageError::Spent { vout });
    }
    backed.push(vout);
    Ok(Action::Mint { recipient, amount_sat, vout })
}

/// How many messages one L2 block takes at most. What does not fit stays first in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    messages_max: u32,
    bytes_max: u32,
}

/// Limits under which a message could never be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "limits of {messages_max} messages and {bytes_max} bytes: at least 1 and {FORCED_BYTES_MAX} are needed"
)]
pub struct LimitsError {
    /// Messages per block.
    pub messages_max: u32,
    /// Bytes per block.
    pub bytes_max: u32,
}

impl Limits {
    /// At most `messages_max` messages and `bytes_max` bytes (as [`Action::bytes_len`] counts) per L2 block.
    ///
    /// # Errors
    /// If the longest message would never fit: the queue would stand still behind it.
    pub fn new(messages_max: u32, bytes_max: u32) -> Result<Self, LimitsError> {
        if messages_max == 0 || (bytes_max as usize) < FORCED_BYTES_MAX {
            return Err(LimitsError { messages_max, bytes_max });
        }
        Ok(Self { messages_max, bytes_max })
    }

    /// Number of entries at the head of `queue` that the next L2 block takes: as many as fit, in order, no gaps. At least
    /// one if there is one.
    #[must_use]
    pub fn head<'a>(&self, queue: impl IntoIterator<Item = &'a Entry>) -> usize {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.action.bytes_len();
            bytes <= self.bytes_max as usize
        };
        queue.into_iter().take(self.messages_max as usize).take_while(fits).count()
    }
}
