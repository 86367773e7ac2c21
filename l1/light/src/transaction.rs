//! Transactions: reading, ids, bounds.

use alloc::vec::Vec;

use crate::bytes::Reader;
use crate::hash::{double_sha256, Hash};

/// Longest transaction, in bytes: a block has at most 4,000,000 weight units.
pub const TRANSACTION_BYTES_MAX: usize = 4_000_000;
/// Bytes of a transaction without witness that could be taken for an inner node of a Merkle tree.
pub const AMBIGUOUS_BYTES: usize = 64;
/// Fewest bytes of an input: previous output (36), empty script (1), sequence (4).
const INPUT_BYTES_MIN: usize = 41;
/// Fewest bytes of an output: value (8), empty script (1).
const OUTPUT_BYTES_MIN: usize = 9;

/// Which output of which transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutPoint {
    /// The transaction.
    pub txid: Hash,
    /// Its output.
    pub vout: u32,
}

impl OutPoint {
    /// What a coinbase's input names.
    pub const NULL: Self = Self { txid: Hash::ZERO, vout: u32::MAX };
}

/// An input. Scripts and witness items are slices of the transaction's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input<'a> {
    /// The output spent.
    pub previous_output: OutPoint,
    /// The script, empty for segwit.
    pub script_sig: &'a [u8],
    /// The sequence number.
    pub sequence: u32,
    /// Witness items, the bottom of the stack first.
    pub witness: Vec<&'a [u8]>,
}

/// An output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output<'a> {
    /// Value, satoshi.
    pub value_sat: u64,
    /// The script that locks it.
    pub script_pubkey: &'a [u8],
}

/// A transaction with both its ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// Version.
    pub version: u32,
    /// Inputs, at least one.
    pub inputs: Vec<Input<'a>>,
    /// Outputs.
    pub outputs: Vec<Output<'a>>,
    /// Lock time.
    pub lock_time: u32,
    /// Id: hash without the witness.
    pub txid: Hash,
    /// Hash with the witness; the id where there is none.
    pub wtxid: Hash,
    /// Bytes without the witness.
    pub stripped_len: usize,
    /// Bytes.
    pub total_len: usize,
}

/// Why bytes are no transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// More than [`TRANSACTION_BYTES_MAX`].
    #[error("transaction of {got} bytes, a block holds {TRANSACTION_BYTES_MAX}")]
    Oversize {
        /// Bytes given.
        got: usize,
    },
    /// They end too early, or a length is not in its shortest form.
    #[error("transaction is cut short or holds a length in a longer form than needed")]
    Malformed,
    /// Bytes are left over.
    #[error("{left} bytes follow the transaction")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// It has no inputs.
    #[error("transaction without inputs")]
    NoInputs,
    /// The flag after the marker is not 1.
    #[error("unknown transaction flag {got}")]
    Flag {
        /// The flag.
        got: u8,
    },
    /// It announces witnesses and has none.
    #[error("transaction announces a witness and has none")]
    EmptyWitness,
}

impl<'a> Transaction<'a> {
    /// Reads a transaction, all of `bytes`, with or without witness (BIP144).
    ///
    /// # Errors
    /// Any of [`TransactionError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, TransactionError> {
        let mut reader = Reader(bytes);
        let tx = Self::read(&mut reader)?;
        match reader.0.len() {
            0 => Ok(tx),
            left => Err(TransactionError::Trailing { left }),
        }
    }

    /// Reads one transaction from the front.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, TransactionError> {
        let start = reader.0;
        if start.len() > TRANSACTION_BYTES_MAX {
            // A block's rest may be longer than a transaction; the transaction itself may not.
            reader.0 = &start[..TRANSACTION_BYTES_MAX];
        }
        let cut = start.len() - reader.0.len();
        let tx = Self::read_bounded(reader);
        let used = start.len() - cut - reader.0.len();
        reader.0 = &start[used..];
        tx
    }

    fn read_bounded(reader: &mut Reader<'a>) -> Result<Self, TransactionError> {
        let start = reader.0;
        let malformed = TransactionError::Malformed;
        let version = reader.array::<4>().ok_or(malformed)?;
        let has_witness = reader.0.first() == Some(&0);
        if has_witness {
            match reader.array::<2>().ok_or(malformed)? {
                [_, 1] => {}
                // Without a witness, a zero here is the number of inputs.
                [_, 0] => return Err(TransactionError::NoInputs),
                [_, got] => return Err(TransactionError::Flag { got }),
            }
        }
        let body = reader.0;
        let mut inputs = inputs(reader).ok_or(malformed)?;
        if inputs.is_empty() {
            return Err(TransactionError::NoInputs);
        }
        let outputs = outputs(reader).ok_or(malformed)?;
        let body = &body[..body.len() - reader.0.len()];
        if has_witness {
            for input in &mut inputs {
                input.witness = witness(reader).ok_or(malformed)?;
            }
            if inputs.iter().all(|input| input.witness.is_empty()) {
                return Err(TransactionError::EmptyWitness);
            }
        }
        let lock_time = reader.array::<4>().ok_or(malformed)?;
        let total = &start[..start.len() - reader.0.len()];
        let txid = double_sha256(&[&version, body, &lock_time]);
        Ok(Self {
            version: u32::from_le_bytes(version),
            inputs,
            outputs,
            lock_time: u32::from_le_bytes(lock_time),
            txid,
            wtxid: if has_witness { double_sha256(&[total]) } else { txid },
            stripped_len: body.len() + 8,
            total_len: total.len(),
        })
    }

    /// True for the first transaction of a block: one input, of no output.
    #[must_use]
    pub fn is_coinbase(&self) -> bool {
        matches!(self.inputs.as_slice(), [input] if input.previous_output == OutPoint::NULL)
    }
}

fn inputs<'a>(reader: &mut Reader<'a>) -> Option<Vec<Input<'a>>> {
    let count = reader.count(INPUT_BYTES_MIN)?;
    (0..count)
        .map(|_| {
            Some(Input {
                previous_output: OutPoint { txid: Hash(reader.array()?), vout: reader.u32()? },
                script_sig: reader.var_bytes()?,
                sequence: reader.u32()?,
                witness: Vec::new(),
            })
        })
        .collect()
}

fn outputs<'a>(reader: &mut Reader<'a>) -> Option<Vec<Output<'a>>> {
    let count = reader.count(OUTPUT_BYTES_MIN)?;
    (0..count)
        .map(|_| Some(Output { value_sat: reader.u64()?, script_pubkey: reader.var_bytes()? }))
        .collect()
}

fn witness<'a>(reader: &mut Reader<'a>) -> Option<Vec<&'a [u8]>> {
    let count = reader.count(1)?;
    (0..count).map(|_| reader.var_bytes()).collect()
}
