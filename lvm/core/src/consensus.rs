//! Consensus rules for headers: by themselves and with respect to the parent.

mod pow;

use alloy_consensus::{constants::EMPTY_OMMER_ROOT_HASH, Header};
use alloy_eips::{
    eip1559::{calc_next_block_base_fee, BaseFeeParams, INITIAL_BASE_FEE},
    eip4844::DATA_GAS_PER_BLOB,
};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{B64, U256};

pub use self::pow::{check_ommers, difficulty, KnownAncestor};
use crate::{error::HeaderError, spec::ChainSpec};

/// Smallest gas limit a block may have.
pub const GAS_LIMIT_MIN: u64 = 5_000;
/// Largest gas limit a block may have (2^63 - 1).
pub const GAS_LIMIT_MAX: u64 = i64::MAX as u64;
/// Most bytes of extra data.
pub const EXTRA_DATA_LEN_MAX: usize = 32;
/// Extra data of the ten blocks from the DAO fork on.
const DAO_EXTRA_DATA: &[u8] = b"dao-hard-fork";

/// Checks the rules that need no other header.
///
/// # Errors
/// The first [`HeaderError`] found.
pub fn check_header(spec: &ChainSpec, header: &Header) -> Result<(), HeaderError> {
    if header.extra_data.len() > EXTRA_DATA_LEN_MAX {
        return Err(HeaderError::ExtraData { reason: "longer than 32 bytes", got: header.extra_data.len() });
    }
    check_gas_limit_in(header.gas_limit, GAS_LIMIT_MIN, GAS_LIMIT_MAX)?;
    if header.gas_used > header.gas_limit {
        return Err(HeaderError::GasUsedOverLimit { limit: header.gas_limit, got: header.gas_used });
    }
    check_presence(spec, header)?;
    if spec.is_paris_active_at_block(header.number) {
        check_since_paris(header)?;
    } else {
        check_dao(spec, header)?;
    }
    check_beacon_chain(spec, header)?;
    check_blob_gas_used(spec, header)
}

/// What only a beacon chain could vouch for is zero where there is none. Withdrawals are in the body.
fn check_beacon_chain(spec: &ChainSpec, header: &Header) -> Result<(), HeaderError> {
    let fields = [
        ("parent beacon block root", header.parent_beacon_block_root.is_none_or(|root| root.is_zero())),
        ("blob gas used", header.blob_gas_used.is_none_or(|used| used == 0)),
    ];
    match fields.into_iter().find(|(_, empty)| !spec.beacon_chain && !empty) {
        Some((field, _)) => Err(HeaderError::NoBeaconChain { field }),
        None => Ok(()),
    }
}

/// Checks `header` against its parent. The parent hash is the caller's to check, who knows the parent's hash.
///
/// # Errors
/// The first [`HeaderError`] found.
pub fn check_against_parent(spec: &ChainSpec, header: &Header, parent: &Header) -> Result<(), HeaderError> {
    let expected = parent.number.checked_add(1).ok_or(HeaderError::Parent { reason: "number overflows" })?;
    if header.number != expected {
        return Err(HeaderError::Number { expected, got: header.number });
    }
    if header.timestamp <= parent.timestamp {
        return Err(HeaderError::Timestamp { parent: parent.timestamp, got: header.timestamp });
    }
    check_gas_limit(spec, header, parent)?;
    check_base_fee(spec, header, parent)?;
    check_excess_blob_gas(spec, header, parent)?;
    if !spec.is_paris_active_at_block(header.number) {
        let expected = difficulty(spec, header.number, header.timestamp, parent);
        if header.difficulty != expected {
            return Err(HeaderError::Difficulty { expected, got: header.difficulty });
        }
    }
    Ok(())
}

/// Base fee of the block after `parent`, wei; none before London.
pub fn next_base_fee(spec: &ChainSpec, number: u64, parent: &Header) -> Option<u64> {
    if !spec.is_london_active_at_block(number) {
        return None;
    }
    Some(match parent.base_fee_per_gas {
        Some(base_fee) => {
            calc_next_block_base_fee(parent.gas_used, parent.gas_limit, base_fee, BaseFeeParams::ethereum())
        }
        None => INITIAL_BASE_FEE,
    })
}

/// Excess blob gas of the block after `parent` at `timestamp`; none before Cancun.
///
/// # Errors
/// `Parent` if the parent's figures overflow the formula.
pub fn next_excess_blob_gas(
    spec: &ChainSpec,
    timestamp: u64,
    parent: &Header,
) -> Result<Option<u64>, HeaderError> {
    let Some(params) = spec.blob_params(timestamp) else { return Ok(None) };
    let excess = parent.excess_blob_gas.unwrap_or(0);
    let used = parent.blob_gas_used.unwrap_or(0);
    // Within these bounds none of the formula's products can overflow; honest chains are far below.
    if excess > u64::MAX / 4 || used > u64::from(u32::MAX) {
        return Err(HeaderError::Parent { reason: "blob gas overflows" });
    }
    Ok(Some(params.next_block_excess_blob_gas_osaka(excess, used, parent.base_fee_per_gas.unwrap_or(0))))
}

/// Every field a fork brings is present from that fork on and absent before.
fn check_presence(spec: &ChainSpec, header: &Header) -> Result<(), HeaderError> {
    let london = spec.is_london_active_at_block(header.number);
    let shanghai = spec.is_shanghai_active_at_timestamp(header.timestamp);
    let cancun = spec.is_cancun_active_at_timestamp(header.timestamp);
    let prague = spec.is_prague_active_at_timestamp(header.timestamp);
    let fields = [
        ("base fee", london, header.base_fee_per_gas.is_some()),
        ("withdrawals root", shanghai, header.withdrawals_root.is_some()),
        ("blob gas used", cancun, header.blob_gas_used.is_some()),
        ("excess blob gas", cancun, header.excess_blob_gas.is_some()),
        ("parent beacon block root", cancun, header.parent_beacon_block_root.is_some()),
        ("requests hash", prague, header.requests_hash.is_some()),
        ("block access list hash", false, header.block_access_list_hash.is_some()),
        ("slot number", false, header.slot_number.is_some()),
    ];
    match fields.into_iter().find(|(_, required, present)| required != present) {
        Some((field, required, _)) => Err(HeaderError::Presence { field, required }),
        None => Ok(()),
    }
}

fn check_since_paris(header: &Header) -> Result<(), HeaderError> {
    if header.difficulty != U256::ZERO {
        return Err(HeaderError::Difficulty { expected: U256::ZERO, got: header.difficulty });
    }
    if header.nonce != B64::ZERO {
        return Err(HeaderError::Nonce);
    }
    if header.ommers_hash != EMPTY_OMMER_ROOT_HASH {
        return Err(HeaderError::Ommers { reason: "not allowed since paris" });
    }
    Ok(())
}

/// EIP-779: the first ten blocks of the DAO fork carry its name.
fn check_dao(spec: &ChainSpec, header: &Header) -> Result<(), HeaderError> {
    let fork_block = spec.block_forks[1];
    let marked = header.number.checked_sub(fork_block).is_some_and(|since| since < 10);
    if marked && header.extra_data.as_ref() != DAO_EXTRA_DATA {
        return Err(HeaderError::ExtraData {
            reason: "not the dao fork's mark",
            got: header.extra_data.len(),
        });
    }
    Ok(())
}

fn check_blob_gas_used(spec: &ChainSpec, header: &Header) -> Result<(), HeaderError> {
    let (Some(params), Some(got)) = (spec.blob_params(header.timestamp), header.blob_gas_used) else {
        return Ok(());
    };
    let max = params.max_blob_gas_per_block();
    if got > max || got % DATA_GAS_PER_BLOB != 0 {
        return Err(HeaderError::BlobGasUsed { max, got });
    }
    Ok(())
}

fn check_gas_limit_in(got: u64, min: u64, max: u64) -> Result<(), HeaderError> {
    if got < min || got > max {
        return Err(HeaderError::GasLimit { min, max, got });
    }
    Ok(())
}

/// The limit moves by less than 1/1024 of the parent's, which counts double at the London fork.
fn check_gas_limit(spec: &ChainSpec, header: &Header, parent: &Header) -> Result<(), HeaderError> {
    let to_london =
        spec.is_london_active_at_block(header.number) && !spec.is_london_active_at_block(parent.number);
    let base = if to_london { parent.gas_limit.saturating_mul(2) } else { parent.gas_limit };
    let step = (base / 1024).saturating_sub(1);
    check_gas_limit_in(header.gas_limit, base.saturating_sub(step), base.saturating_add(step))
}

fn check_base_fee(spec: &ChainSpec, header: &Header, parent: &Header) -> Result<(), HeaderError> {
    match (next_base_fee(spec, header.number, parent), header.base_fee_per_gas) {
        (Some(expected), Some(got)) if expected != got => Err(HeaderError::BaseFee { expected, got }),
        _ => Ok(()),
    }
}

fn check_excess_blob_gas(spec: &ChainSpec, header: &Header, parent: &Header) -> Result<(), HeaderError> {
    match (next_excess_blob_gas(spec, header.timestamp, parent)?, header.excess_blob_gas) {
        (Some(expected), Some(got)) if expected != got => Err(HeaderError::ExcessBlobGas { expected, got }),
        _ => Ok(()),
    }
}
