//! A block as it lies in its RLP: decoded once, with the bytes its roots are taken over kept as slices.

use alloc::vec::Vec;

use alloy_consensus::{EthereumTxEnvelope, Header, TxEip4844};
use alloy_eips::{eip2718::Decodable2718, eip4895::Withdrawal};
use alloy_primitives::{keccak256, B256};
use alloy_rlp::Decodable;

use crate::error::DecodeError;

/// A transaction as blocks hold it: blob transactions without their sidecar.
pub type Transaction = EthereumTxEnvelope<TxEip4844>;

/// A decoded block and the slices its commitments are computed over.
#[derive(Debug, Clone)]
pub struct Block<'a> {
    /// The header.
    pub header: Header,
    /// Keccak-256 of the header's bytes.
    pub hash: B256,
    /// The transactions.
    pub transactions: Vec<Transaction>,
    /// Each transaction's value in the transaction trie (EIP-2718 encoding).
    pub transactions_raw: Vec<&'a [u8]>,
    /// The ommers; none since Paris.
    pub ommers: Vec<Header>,
    /// RLP of the ommer list.
    pub ommers_raw: &'a [u8],
    /// The withdrawals; `None` before Shanghai.
    pub withdrawals: Option<Vec<Withdrawal>>,
    /// RLP of each withdrawal.
    pub withdrawals_raw: Vec<&'a [u8]>,
    /// Length of the block's RLP in bytes (limited by EIP-7934).
    pub size: usize,
}

impl<'a> Block<'a> {
    /// Decodes the RLP list `[header, transactions, ommers, withdrawals?]`.
    ///
    /// # Errors
    /// [`DecodeError`] naming the item that does not decode.
    pub fn decode(raw: &'a [u8]) -> Result<Self, DecodeError> {
        let parts = list_items(whole_list(raw, "block")?, "block")?;
        let (header_raw, transactions, ommers_raw, withdrawals) = match parts[..] {
            [header, transactions, ommers] => (header, transactions, ommers, None),
            [header, transactions, ommers, withdrawals] => (header, transactions, ommers, Some(withdrawals)),
            _ => return Err(DecodeError::Invalid { item: "block", reason: "expected 3 or 4 items" }),
        };
        let header = decode_all::<Header>(header_raw, "header")?;
        let mut transactions_raw = list_items(whole_list(transactions, "transactions")?, "transactions")?;
        let transactions = transactions_raw.iter_mut().map(decode_transaction).collect::<Result<_, _>>()?;
        let ommers = list_items(whole_list(ommers_raw, "ommers")?, "ommers")?
            .into_iter()
            .map(|item| decode_all(item, "ommer"))
            .collect::<Result<_, _>>()?;
        let withdrawals_raw = match withdrawals {
            Some(list) => list_items(whole_list(list, "withdrawals")?, "withdrawals")?,
            None => Vec::new(),
        };
        let withdrawals = withdrawals
            .map(|_| withdrawals_raw.iter().map(|item| decode_all(item, "withdrawal")).collect())
            .transpose()?;
        Ok(Self {
            hash: keccak256(header_raw),
            header,
            transactions,
            transactions_raw,
            ommers,
            ommers_raw,
            withdrawals,
            withdrawals_raw,
            size: raw.len(),
        })
    }
}

/// Decodes the transaction in a list item and narrows the item to its value in the transaction trie.
fn decode_transaction(item: &mut &[u8]) -> Result<Transaction, DecodeError> {
    const ITEM: &str = "transaction";
    let mut rest = *item;
    let head = rlp_header(&mut rest, ITEM)?;
    if !head.list {
        *item = rest;
        // Type 0 and unknown types are no transactions; a legacy one is a list, not a string.
        if !matches!(rest.first(), Some(1..=4)) {
            return Err(DecodeError::Invalid { item: ITEM, reason: "unknown transaction type" });
        }
    }
    Transaction::decode_2718_exact(item)
        .map_err(|_| DecodeError::Invalid { item: ITEM, reason: "not an EIP-2718 transaction" })
}

/// Decodes an item that must fill its slice.
pub(crate) fn decode_all<T: Decodable>(item: &[u8], name: &'static str) -> Result<T, DecodeError> {
    let mut rest = item;
    let value = T::decode(&mut rest).map_err(|reason| DecodeError::Rlp { item: name, reason })?;
    match rest.len() {
        0 => Ok(value),
        count => Err(DecodeError::Trailing { item: name, count }),
    }
}

/// The payload of a list that must fill its slice.
fn whole_list<'a>(raw: &'a [u8], name: &'static str) -> Result<&'a [u8], DecodeError> {
    let mut rest = raw;
    let head = rlp_header(&mut rest, name)?;
    if !head.list {
        return Err(DecodeError::Invalid { item: name, reason: "expected a list" });
    }
    match rest.len() - head.payload_length {
        0 => Ok(rest),
        count => Err(DecodeError::Trailing { item: name, count }),
    }
}

/// Splits a list's payload into its items, headers included.
fn list_items<'a>(mut rest: &'a [u8], name: &'static str) -> Result<Vec<&'a [u8]>, DecodeError> {
    let mut items = Vec::new();
    while !rest.is_empty() {
        let start = rest;
        let head = rlp_header(&mut rest, name)?;
        let len = start.len() - rest.len() + head.payload_length;
        items.push(&start[..len]);
        rest = &start[len..];
    }
    Ok(items)
}

/// Reads an item's header; the decoder checks that the payload is there.
fn rlp_header(rest: &mut &[u8], name: &'static str) -> Result<alloy_rlp::Header, DecodeError> {
    let head = alloy_rlp::Header::decode(rest).map_err(|reason| DecodeError::Rlp { item: name, reason })?;
    if head.payload_length > rest.len() {
        return Err(DecodeError::Rlp { item: name, reason: alloy_rlp::Error::InputTooShort });
    }
    Ok(head)
}
