//! Making a block rather than checking one: the other side of `execute_block`, over the same code.

use alloc::vec::Vec;

use alloy_consensus::{
    constants::EMPTY_OMMER_ROOT_HASH, proofs::calculate_transaction_root, proofs::calculate_withdrawals_root,
    Header,
};
use alloy_eips::{eip2718::Encodable2718, eip4895::Withdrawal};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{keccak256, Address, Bloom, Bytes, B256};
use alloy_rlp::Encodable;

use super::{check_body, recover_senders, transact, BlockOutcome, Parent};
use crate::{
    block::{Block, Transaction},
    consensus::{check_header, next_base_fee, next_excess_blob_gas},
    database::StateDb,
    error::StfError,
    spec::ChainSpec,
};

/// What the maker of a block chooses.
#[derive(Debug, Clone, Default)]
pub struct BlockAttributes {
    /// Seconds since 1970; later than the parent's.
    pub timestamp: u64,
    /// Receiver of the priority fees.
    pub beneficiary: Address,
    /// Gas limit.
    pub gas_limit: u64,
    /// Randomness (PREVRANDAO).
    pub prev_randao: B256,
    /// Root for the EIP-4788 contract.
    pub parent_beacon_block_root: B256,
    /// At most 32 bytes.
    pub extra_data: Bytes,
    /// Withdrawals, since Shanghai.
    pub withdrawals: Vec<Withdrawal>,
}

/// A block with everything computed.
#[derive(Debug, Clone)]
pub struct SealedBlock {
    /// Its RLP.
    pub raw: Vec<u8>,
    /// Its header.
    pub header: Header,
    /// Its hash.
    pub hash: B256,
    /// What execution left behind.
    pub outcome: BlockOutcome,
}

/// Executes `transactions` on `db` as the block after `parent` (whose header must be given) and fills in the header.
///
/// # Errors
/// [`StfError`] if a transaction may not be included or an attribute breaks a rule, `Unsupported` before Paris or without the parent's header. `db`
/// is then unusable.
pub fn seal_block(
    spec: &ChainSpec,
    db: &mut StateDb<'_, '_>,
    parent: &Parent,
    attributes: &BlockAttributes,
    transactions: Vec<Transaction>,
) -> Result<SealedBlock, StfError> {
    let number = parent.number.saturating_add(1);
    let parent_header =
        parent.header.as_ref().filter(|_| spec.is_paris_active_at_block(number)).ok_or(
            StfError::Unsupported { number, reason: "blocks are made since paris, on a known parent" },
        )?;
    let header = open_header(spec, parent, parent_header, attributes, &transactions)?;
    let mut block = Block {
        hash: B256::ZERO,
        header,
        transactions,
        transactions_raw: Vec::new(),
        ommers: Vec::new(),
        ommers_raw: &[alloy_rlp::EMPTY_LIST_CODE],
        withdrawals: spec
            .is_shanghai_active_at_timestamp(attributes.timestamp)
            .then(|| attributes.withdrawals.clone()),
        withdrawals_raw: Vec::new(),
        size: 0,
    };
    let senders = recover_senders(spec, &block)?;
    let (result, changes) = transact(spec, db, &block, &senders)?;
    let clear_empty = spec.is_spurious_dragon_active_at_block(number);
    let state_root = db.apply(changes, clear_empty).map_err(|source| StfError::Witness { number, source })?;
    let header = &mut block.header;
    header.gas_used = result.gas_used;
    header.state_root = state_root;
    header.receipts_root = alloy_consensus::proofs::calculate_receipt_root(&result.receipts);
    header.logs_bloom =
        result.receipts.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | *receipt.logs_bloom());
    header.blob_gas_used = header.blob_gas_used.map(|_| result.blob_gas_used);
    header.requests_hash =
        spec.is_prague_active_at_timestamp(attributes.timestamp).then(|| result.requests.requests_hash());
    check_header(spec, &block.header)
        .and_then(|()| check_body(spec, &block))
        .map_err(|source| StfError::Header { number, source })?;
    let hash = keccak256(alloy_rlp::encode(&block.header));
    db.push_block_hash(number, hash);
    let outcome = BlockOutcome { receipts: result.receipts, gas_used: result.gas_used, state_root };
    Ok(SealedBlock { raw: encode_block(&block), hash, header: block.header, outcome })
}

/// The header as far as it is known before execution.
fn open_header(
    spec: &ChainSpec,
    parent: &Parent,
    parent_header: &Header,
    attributes: &BlockAttributes,
    transactions: &[Transaction],
) -> Result<Header, StfError> {
    let number = parent.number.saturating_add(1);
    let timestamp = attributes.timestamp;
    let cancun = spec.is_cancun_active_at_timestamp(timestamp);
    let excess_blob_gas = next_excess_blob_gas(spec, timestamp, parent_header)
        .map_err(|source| StfError::Header { number, source })?;
    Ok(Header {
        parent_hash: parent.hash,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: attributes.beneficiary,
        transactions_root: calculate_transaction_root(transactions),
        number,
        gas_limit: attributes.gas_limit,
        timestamp,
        extra_data: attributes.extra_data.clone(),
        mix_hash: attributes.prev_randao,
        base_fee_per_gas: next_base_fee(spec, number, parent_header),
        withdrawals_root: spec
            .is_shanghai_active_at_timestamp(timestamp)
            .then(|| calculate_withdrawals_root(&attributes.withdrawals)),
        blob_gas_used: cancun.then_some(0),
        excess_blob_gas,
        parent_beacon_block_root: cancun.then_some(attributes.parent_beacon_block_root),
        ..Header::default()
    })
}

/// RLP of `[header, transactions, [], withdrawals?]`.
fn encode_block(block: &Block<'_>) -> Vec<u8> {
    let mut transactions = Vec::new();
    for transaction in &block.transactions {
        let encoded = transaction.encoded_2718();
        match transaction {
            Transaction::Legacy(_) => transactions.extend_from_slice(&encoded),
            _ => encoded.as_slice().encode(&mut transactions),
        }
    }
    let mut payload = Vec::new();
    block.header.encode(&mut payload);
    alloy_rlp::Header { list: true, payload_length: transactions.len() }.encode(&mut payload);
    payload.extend_from_slice(&transactions);
    payload.extend_from_slice(block.ommers_raw);
    if let Some(withdrawals) = &block.withdrawals {
        withdrawals.encode(&mut payload);
    }
    let mut out = Vec::with_capacity(payload.len() + 4);
    alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
    out.extend_from_slice(&payload);
    out
}
