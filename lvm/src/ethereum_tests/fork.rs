//! Network names of the test files and the rules they stand for.

use alloy_hardforks::EthereumHardfork as Fork;
use alloy_primitives::U256;
use assay_lvm_core::{ChainSpec, NEVER};

/// Rules of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    spec: ChainSpec,
    /// Paris begins with the first block whose parent's total difficulty reaches this, instead of at a block.
    terminal_difficulty: Option<U256>,
}

impl Network {
    /// The rules for a block with this number whose parent has this total difficulty.
    pub(super) fn spec(&self, number: u64, parent_total_difficulty: U256) -> ChainSpec {
        let spec = self.spec.clone();
        match self.terminal_difficulty {
            Some(terminal) if parent_total_difficulty >= terminal => spec.with_fork(Fork::Paris, number),
            _ => spec,
        }
    }
}

/// Rules by name: a fork (`Cancun`), or a change of forks at a block (`BerlinToLondonAt5`), a time
/// (`ShanghaiToCancunAtTime15k`) or a total difficulty (`ArrowGlacierToParisAtDiffC0000`).
///
/// None for names unknown and for rules the state transition does not have: those before Byzantium, whose receipts hold
/// state roots, and Constantinople without its fix.
pub(super) fn network(name: &str) -> Option<Network> {
    if let Some(fork) = fork(name) {
        let spec = ChainSpec::from_genesis(1, fork);
        return Some(Network { spec, terminal_difficulty: None });
    }
    let (from, rest) = name.split_once("To")?;
    let (to, at) = rest.split_once("At")?;
    let (from, to) = (fork(from)?, fork(to)?);
    let spec = ChainSpec::from_genesis(1, from);
    if let Some(difficulty) = at.strip_prefix("Diff") {
        let terminal = U256::from_str_radix(difficulty, 16).ok()?;
        return Some(Network { spec, terminal_difficulty: Some(terminal) });
    }
    let at = match at.strip_prefix("Time") {
        Some(time) => number(time)?,
        None => number(at)?,
    };
    // Every fork after the first up to the second comes at the same moment (the fix of Constantinople with it).
    let mut spec = spec;
    for later in assay_lvm_core::BLOCK_FORKS.into_iter().chain(assay_lvm_core::TIME_FORKS) {
        if later > from && later <= to && later != Fork::Dao {
            spec = spec.with_fork(later, at);
        }
    }
    debug_assert!(at != NEVER);
    Some(Network { spec, terminal_difficulty: None })
}

/// `5`, `15000` or `15k`.
fn number(text: &str) -> Option<u64> {
    match text.strip_suffix('k') {
        Some(thousands) => thousands.parse::<u64>().ok()?.checked_mul(1_000),
        None => text.parse().ok(),
    }
}

fn fork(name: &str) -> Option<Fork> {
    Some(match name {
        "Byzantium" => Fork::Byzantium,
        "ConstantinopleFix" | "Petersburg" => Fork::Petersburg,
        "Istanbul" => Fork::Istanbul,
        "MuirGlacier" => Fork::MuirGlacier,
        "Berlin" => Fork::Berlin,
        "London" => Fork::London,
        "ArrowGlacier" => Fork::ArrowGlacier,
        "GrayGlacier" => Fork::GrayGlacier,
        "Merge" | "Paris" => Fork::Paris,
        "Shanghai" => Fork::Shanghai,
        "Cancun" => Fork::Cancun,
        "Prague" => Fork::Prague,
        "Osaka" => Fork::Osaka,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use alloy_hardforks::EthereumHardforks;

    use super::*;

    #[test]
    fn a_fork_by_name_is_active_from_genesis_and_later_ones_never() {
        let spec = network("Shanghai").unwrap().spec(1, U256::ZERO);
        assert!(spec.is_shanghai_active_at_timestamp(0));
        assert!(!spec.is_cancun_active_at_timestamp(u64::MAX - 1));
    }

    #[test]
    fn changes_come_at_their_block_time_or_difficulty() {
        let london = network("BerlinToLondonAt5").unwrap().spec(1, U256::ZERO);
        assert!(!london.is_london_active_at_block(4) && london.is_london_active_at_block(5));
        let cancun = network("ShanghaiToCancunAtTime15k").unwrap().spec(1, U256::ZERO);
        assert!(!cancun.is_cancun_active_at_timestamp(14_999));
        assert!(cancun.is_cancun_active_at_timestamp(15_000));
        let paris = network("ArrowGlacierToParisAtDiffC0000").unwrap();
        assert!(!paris.spec(7, U256::from(0xbffffu64)).is_paris_active_at_block(7));
        assert!(paris.spec(7, U256::from(0xc0000u64)).is_paris_active_at_block(7));
        assert!(network("Homestead").is_none() && network("CancunToMarsAt5").is_none());
    }
}
