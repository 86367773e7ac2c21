//! Rules of the time before Paris that blocks without a seal can be checked by: difficulty and ommers.

use alloc::vec::Vec;

use alloy_consensus::Header;
use alloy_hardforks::{EthereumHardfork, EthereumHardforks};
use alloy_primitives::{B256, U256};

use super::{check_against_parent, check_header};
use crate::{error::HeaderError, spec::ChainSpec};

/// Least difficulty of a block, and the divisor of the per-block step is 2048.
const DIFFICULTY_MIN: u64 = 131_072;
const DIFFICULTY_DIVISOR: u64 = 2_048;
/// Blocks per period of the exponential term ("difficulty bomb").
const BOMB_PERIOD: u64 = 100_000;
/// How many generations an ommer's parent may lie back.
const OMMER_DEPTH_MAX: usize = 6;
/// Keccak-256 of the RLP of an empty list.
const NO_OMMERS: B256 = alloy_consensus::constants::EMPTY_OMMER_ROOT_HASH;

/// Difficulty of the block `number` at `timestamp` after `parent`.
///
/// Sources: yellow paper section 4.3.4, EIP-2, EIP-100 and the EIPs that delay the bomb (649, 1234, 2384, 3554, 4345,
/// 5133).
pub fn difficulty(spec: &ChainSpec, number: u64, timestamp: u64, parent: &Header) -> U256 {
    let step = parent.difficulty / U256::from(DIFFICULTY_DIVISOR);
    let elapsed = timestamp.saturating_sub(parent.timestamp);
    let byzantium = spec.is_byzantium_active_at_block(number);
    let (up, down) = if byzantium {
        let base = if parent.ommers_hash == NO_OMMERS { 1 } else { 2 };
        steps(base, elapsed / 9)
    } else if spec.is_homestead_active_at_block(number) {
        steps(1, elapsed / 10)
    } else if elapsed < 13 {
        (1, 0)
    } else {
        (0, 1)
    };
    let raised = parent.difficulty.saturating_add(step.saturating_mul(U256::from(up)));
    let floor = U256::from(DIFFICULTY_MIN);
    let adjusted = raised.saturating_sub(step.saturating_mul(U256::from(down))).max(floor);
    let period = number.saturating_sub(bomb_delay(spec, number)) / BOMB_PERIOD;
    if period < 2 {
        return adjusted;
    }
    adjusted.saturating_add(U256::from(1).checked_shl((period - 2) as usize).unwrap_or(U256::MAX))
}

/// `max(base - late, -99)` as steps up and steps down.
fn steps(base: u64, late: u64) -> (u64, u64) {
    (base.saturating_sub(late), late.saturating_sub(base).min(99))
}

/// Blocks by which the bomb is delayed; the formula counts from the block before.
fn bomb_delay(spec: &ChainSpec, number: u64) -> u64 {
    let delays = [
        (EthereumHardfork::GrayGlacier, 11_400_000),
        (EthereumHardfork::ArrowGlacier, 10_700_000),
        (EthereumHardfork::London, 9_700_000),
        (EthereumHardfork::MuirGlacier, 9_000_000),
        (EthereumHardfork::Constantinople, 5_000_000),
        (EthereumHardfork::Byzantium, 3_000_000),
    ];
    delays
        .into_iter()
        .find(|(fork, _)| spec.is_ethereum_fork_active_at_block(*fork, number))
        .map_or(0, |(_, delay)| delay)
}

/// What the ommer rules need to know of one ancestor.
#[derive(Debug, Clone)]
pub struct KnownAncestor {
    /// Hash of its header.
    pub hash: B256,
    /// Its header.
    pub header: Header,
    /// Hashes of the ommers it includes.
    pub ommers: Vec<B256>,
}

/// Checks a block's ommers against its `ancestors`, parent first; seven of them are enough.
///
/// # Errors
/// `Ommers` if there are more than two, if one is an ancestor, is included already, or has no parent among the second
/// to seventh ancestor; otherwise the rule that its own header breaks.
pub fn check_ommers(
    spec: &ChainSpec,
    ommers: &[Header],
    ancestors: &[KnownAncestor],
) -> Result<(), HeaderError> {
    let fail = |reason| Err(HeaderError::Ommers { reason });
    if ommers.len() > 2 {
        return fail("more than two");
    }
    let mut included: Vec<B256> =
        ancestors.iter().take(OMMER_DEPTH_MAX + 1).flat_map(|a| a.ommers.iter().copied()).collect();
    for ommer in ommers {
        let hash = ommer.hash_slow();
        if ancestors.iter().any(|ancestor| ancestor.hash == hash) {
            return fail("an ommer is an ancestor");
        }
        if included.contains(&hash) {
            return fail("an ommer is included twice");
        }
        included.push(hash);
        let parents = ancestors.iter().skip(1).take(OMMER_DEPTH_MAX);
        let Some(parent) = parents.into_iter().find(|ancestor| ancestor.hash == ommer.parent_hash) else {
            return fail("an ommer's parent is no recent ancestor");
        };
        check_header(spec, ommer)?;
        check_against_parent(spec, ommer, &parent.header)?;
    }
    Ok(())
}
