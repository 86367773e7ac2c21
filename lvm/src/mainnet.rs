//! Blocks with a full execution witness as the `stateless-block-verifier` project stores them.
//!
//! Such a file has the header, the transactions, trie nodes, codes, the parent's state root and up to 256 ancestor
//! hashes, but no ancestor header. What would need one (the rules between a header and its parent, BLOCKHASH) is taken
//! on trust, and a proof says so: see [`Ancestry::Assumed`].

use std::path::Path;

use alloy_consensus::{
    transaction::RlpEcdsaEncodableTx, Header, SignableTransaction, TxEip1559, TxEip2930, TxEip4844,
    TxEip7702, TxLegacy,
};
use alloy_eips::{
    eip2718::Encodable2718,
    eip2930::{AccessList, AccessListItem},
    eip4895::{Withdrawal, Withdrawals},
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_primitives::{Bloom, Signature, TxKind, B64, U256};
use alloy_rlp::Encodable;
use assay_lvm_core::{Ancestry, ChainSpec, Transaction, ANCESTORS_MAX};

use crate::{
    batch::Batch,
    error::BatchError,
    json::{self, Json},
    record::{record, BlockSource},
    state_db::FullState,
};

/// Reads a block with its witness and returns it as a batch of one block with the smallest witness.
///
/// The rules are mainnet's with the file's chain id.
///
/// # Errors
/// `Io`, `Json` naming the field, or whatever keeps the block from executing.
pub fn load(path: &Path) -> Result<Batch, BatchError> {
    let value = json::read(path)?;
    let file = Json::new(&value, "block file");
    let mut spec = ChainSpec::mainnet();
    spec.chain_id = file.get(&["chain_id", "chainId"])?.u64()?;
    let header = header(&file.get(&["header"])?)?;
    let mut hashes = Vec::new();
    for hash in file.get(&["block_hashes", "blockHashes"])?.items()? {
        hashes.push(hash.b256()?);
    }
    // Newest first in what we keep; the file's order is told by the parent hash.
    if hashes.first() != Some(&header.parent_hash) && hashes.last() == Some(&header.parent_hash) {
        hashes.reverse();
    }
    hashes.truncate(ANCESTORS_MAX as usize);
    let ancestry = Ancestry::Assumed {
        number: header.number.saturating_sub(1),
        state_root: file.get(&["prev_state_root", "prevStateRoot"])?.b256()?,
        hashes,
    };
    let block = encode_block(&file, &header)?;
    let mut state = FullState::default();
    for node in file.get(&["states", "state"])?.items()? {
        state.add_node(&node.bytes()?);
    }
    for code in file.get(&["codes"])?.items()? {
        state.add_code(&code.bytes()?);
    }
    record(&spec, &state, BlockSource { ancestry, blocks: &[&block] })
}

fn encode_block(file: &Json<'_>, header: &Header) -> Result<Vec<u8>, BatchError> {
    let mut transactions = Vec::new();
    for item in file.get(&["transactions"])?.items()? {
        let transaction = transaction(&item)?;
        let encoded = transaction.encoded_2718();
        match transaction {
            Transaction::Legacy(_) => transactions.extend_from_slice(&encoded),
            _ => encoded.as_slice().encode(&mut transactions),
        }
    }
    let mut payload = alloy_rlp::encode(header);
    alloy_rlp::Header { list: true, payload_length: transactions.len() }.encode(&mut payload);
    payload.extend_from_slice(&transactions);
    payload.push(alloy_rlp::EMPTY_LIST_CODE);
    if let Some(list) = file.maybe(&["withdrawals"]) {
        let withdrawals: Result<Vec<_>, _> = list.items()?.iter().map(withdrawal).collect();
        Withdrawals::new(withdrawals?).encode(&mut payload);
    }
    let mut block = Vec::with_capacity(payload.len() + 4);
    alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut block);
    block.extend_from_slice(&payload);
    Ok(block)
}

fn withdrawal(item: &Json<'_>) -> Result<Withdrawal, BatchError> {
    Ok(Withdrawal {
        index: item.get(&["index"])?.u64()?,
        validator_index: item.get(&["validatorIndex", "validator_index"])?.u64()?,
        address: item.get(&["address"])?.address()?,
        amount: item.get(&["amount"])?.u64()?,
    })
}

fn header(json: &Json<'_>) -> Result<Header, BatchError> {
    let bloom = json.get(&["logs_bloom", "logsBloom"])?;
    let nonce = json.get(&["nonce"])?;
    let optional_u64 = |keys: &[&str]| json.maybe(keys).map(|value| value.u64()).transpose();
    let optional_b256 = |keys: &[&str]| json.maybe(keys).map(|value| value.b256()).transpose();
    Ok(Header {
        parent_hash: json.get(&["parent_hash", "parentHash"])?.b256()?,
        ommers_hash: json.get(&["ommers_hash", "sha3Uncles"])?.b256()?,
        beneficiary: json.get(&["beneficiary", "miner"])?.address()?,
        state_root: json.get(&["state_root", "stateRoot"])?.b256()?,
        transactions_root: json.get(&["transactions_root", "transactionsRoot"])?.b256()?,
        receipts_root: json.get(&["receipts_root", "receiptsRoot"])?.b256()?,
        logs_bloom: Bloom::try_from(bloom.bytes()?.as_ref()).map_err(|_| bloom.fail("expected 256 bytes"))?,
        difficulty: json.get(&["difficulty"])?.u256()?,
        number: json.get(&["number"])?.u64()?,
        gas_limit: json.get(&["gas_limit", "gasLimit"])?.u64()?,
        gas_used: json.get(&["gas_used", "gasUsed"])?.u64()?,
        timestamp: json.get(&["timestamp"])?.u64()?,
        extra_data: json.get(&["extra_data", "extraData"])?.bytes()?,
        mix_hash: json.get(&["mix_hash", "mixHash"])?.b256()?,
        nonce: B64::try_from(nonce.bytes()?.as_ref()).map_err(|_| nonce.fail("expected 8 bytes"))?,
        base_fee_per_gas: optional_u64(&["base_fee_per_gas", "baseFeePerGas"])?,
        withdrawals_root: optional_b256(&["withdrawals_root", "withdrawalsRoot"])?,
        blob_gas_used: optional_u64(&["blob_gas_used", "blobGasUsed"])?,
        excess_blob_gas: optional_u64(&["excess_blob_gas", "excessBlobGas"])?,
        parent_beacon_block_root: optional_b256(&["parent_beacon_block_root", "parentBeaconBlockRoot"])?,
        requests_hash: optional_b256(&["requests_hash", "requestsHash"])?,
        block_access_list_hash: None,
        slot_number: None,
    })
}

fn transaction(item: &Json<'_>) -> Result<Transaction, BatchError> {
    let signature = item.get(&["signature"])?;
    let parity = signature.get(&["yParity", "y_parity", "odd_y_parity", "v"])?;
    // Some writers give a boolean, some a number.
    let odd = match parity.bool() {
        Ok(odd) => odd,
        Err(_) => parity.u64()? % 2 == 1,
    };
    let signature = Signature::new(signature.get(&["r"])?.u256()?, signature.get(&["s"])?.u256()?, odd);
    let body = item.get(&["transaction"])?;
    let fields = body.fields()?;
    let (kind, tx) = fields.first().ok_or_else(|| body.fail("expected one transaction kind"))?;
    Ok(match *kind {
        "Legacy" => signed(legacy(tx)?, signature),
        "Eip2930" => signed(eip2930(tx)?, signature),
        "Eip1559" => signed(eip1559(tx)?, signature),
        "Eip4844" => signed(eip4844(tx)?, signature),
        "Eip7702" => signed(eip7702(tx)?, signature),
        other => return Err(body.fail(format!("unknown transaction kind {other}"))),
    })
}

fn signed<T>(tx: T, signature: Signature) -> Transaction
where
    T: SignableTransaction<Signature> + RlpEcdsaEncodableTx,
    Transaction: From<alloy_consensus::Signed<T>>,
{
    tx.into_signed(signature).into()
}

fn legacy(tx: &Json<'_>) -> Result<TxLegacy, BatchError> {
    Ok(TxLegacy {
        chain_id: tx.maybe(&["chain_id", "chainId"]).map(|id| id.u64()).transpose()?,
        nonce: nonce(tx)?,
        gas_price: tx.get(&["gas_price", "gasPrice"])?.u128()?,
        gas_limit: gas_limit(tx)?,
        to: to(tx)?,
        value: value(tx)?,
        input: tx.get(&["input"])?.bytes()?,
    })
}

fn eip2930(tx: &Json<'_>) -> Result<TxEip2930, BatchError> {
    Ok(TxEip2930 {
        chain_id: chain_id(tx)?,
        nonce: nonce(tx)?,
        gas_price: tx.get(&["gas_price", "gasPrice"])?.u128()?,
        gas_limit: gas_limit(tx)?,
        to: to(tx)?,
        value: value(tx)?,
        access_list: access_list(tx)?,
        input: tx.get(&["input"])?.bytes()?,
    })
}

fn eip1559(tx: &Json<'_>) -> Result<TxEip1559, BatchError> {
    Ok(TxEip1559 {
        chain_id: chain_id(tx)?,
        nonce: nonce(tx)?,
        gas_limit: gas_limit(tx)?,
        max_fee_per_gas: max_fee(tx)?,
        max_priority_fee_per_gas: max_priority_fee(tx)?,
        to: to(tx)?,
        value: value(tx)?,
        access_list: access_list(tx)?,
        input: tx.get(&["input"])?.bytes()?,
    })
}

fn eip4844(tx: &Json<'_>) -> Result<TxEip4844, BatchError> {
    let mut blob_versioned_hashes = Vec::new();
    for hash in tx.get(&["blob_versioned_hashes", "blobVersionedHashes"])?.items()? {
        blob_versioned_hashes.push(hash.b256()?);
    }
    Ok(TxEip4844 {
        chain_id: chain_id(tx)?,
        nonce: nonce(tx)?,
        gas_limit: gas_limit(tx)?,
        max_fee_per_gas: max_fee(tx)?,
        max_priority_fee_per_gas: max_priority_fee(tx)?,
        to: tx.get(&["to"])?.address()?,
        value: value(tx)?,
        access_list: access_list(tx)?,
        blob_versioned_hashes,
        max_fee_per_blob_gas: tx.get(&["max_fee_per_blob_gas", "maxFeePerBlobGas"])?.u128()?,
        input: tx.get(&["input"])?.bytes()?,
    })
}

fn eip7702(tx: &Json<'_>) -> Result<TxEip7702, BatchError> {
    let list = tx.get(&["authorization_list", "authorizationList"])?;
    let authorization_list: Result<Vec<_>, _> = list.items()?.iter().map(authorization).collect();
    Ok(TxEip7702 {
        chain_id: chain_id(tx)?,
        nonce: nonce(tx)?,
        gas_limit: gas_limit(tx)?,
        max_fee_per_gas: max_fee(tx)?,
        max_priority_fee_per_gas: max_priority_fee(tx)?,
        to: tx.get(&["to"])?.address()?,
        value: value(tx)?,
        access_list: access_list(tx)?,
        authorization_list: authorization_list?,
        input: tx.get(&["input"])?.bytes()?,
    })
}

fn authorization(item: &Json<'_>) -> Result<SignedAuthorization, BatchError> {
    let inner = item.maybe(&["inner"]).unwrap_or_else(|| item.clone());
    let authorization = Authorization {
        chain_id: inner.get(&["chain_id", "chainId"])?.u256()?,
        address: inner.get(&["address"])?.address()?,
        nonce: inner.get(&["nonce"])?.u64()?,
    };
    let parity = item.get(&["yParity", "y_parity", "v"])?;
    let y_parity = u8::try_from(parity.u64()?).map_err(|_| parity.fail("exceeds 8 bits"))?;
    let (r, s): (U256, U256) = (item.get(&["r"])?.u256()?, item.get(&["s"])?.u256()?);
    Ok(SignedAuthorization::new_unchecked(authorization, y_parity, r, s))
}

fn access_list(tx: &Json<'_>) -> Result<AccessList, BatchError> {
    let Some(list) = tx.maybe(&["access_list", "accessList"]) else { return Ok(AccessList::default()) };
    let mut items = Vec::new();
    for item in list.items()? {
        let keys = item.get(&["storageKeys", "storage_keys"])?.items()?;
        items.push(AccessListItem {
            address: item.get(&["address"])?.address()?,
            storage_keys: keys.iter().map(Json::b256).collect::<Result<_, _>>()?,
        });
    }
    Ok(AccessList(items))
}

fn chain_id(tx: &Json<'_>) -> Result<u64, BatchError> {
    tx.get(&["chain_id", "chainId"])?.u64()
}

fn nonce(tx: &Json<'_>) -> Result<u64, BatchError> {
    tx.get(&["nonce"])?.u64()
}

fn gas_limit(tx: &Json<'_>) -> Result<u64, BatchError> {
    tx.get(&["gas_limit", "gasLimit", "gas"])?.u64()
}

fn max_fee(tx: &Json<'_>) -> Result<u128, BatchError> {
    tx.get(&["max_fee_per_gas", "maxFeePerGas"])?.u128()
}

fn max_priority_fee(tx: &Json<'_>) -> Result<u128, BatchError> {
    tx.get(&["max_priority_fee_per_gas", "maxPriorityFeePerGas"])?.u128()
}

fn value(tx: &Json<'_>) -> Result<U256, BatchError> {
    tx.get(&["value"])?.u256()
}

/// The receiver; absent or empty for a contract creation.
fn to(tx: &Json<'_>) -> Result<TxKind, BatchError> {
    match tx.maybe(&["to"]) {
        Some(to) if to.text()? != "0x" => Ok(TxKind::Call(to.address()?)),
        _ => Ok(TxKind::Create),
    }
}
