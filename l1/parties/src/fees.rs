//! Arithmetic of fees: children of anchors, replacements, budgets. Amounts round up; nothing here overflows silently.
//!
//! Sources: BIP125 (rules 3 and 4), BIP431 (version 3: one child of at most 1,000 vB), Bitcoin Core's `policy/rbf` and
//! `policy/truc_policy`.

use bitcoin::{Amount, FeeRate, Weight};
use serde::{Deserialize, Serialize};

use crate::types::Height;

/// Smallest change that relay policy takes for a taproot output.
pub const DUST: Amount = Amount::from_sat(330);

/// Why there is no such fee.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
#[non_exhaustive]
pub enum FeeError {
    /// Sizes and rates give an amount beyond all money.
    #[error("the fee overflows")]
    Overflow,
    /// The budget does not allow it.
    #[error("{wanted} on top of {committed} is above the budget of {limit}")]
    Budget {
        /// What this transaction would cost.
        wanted: Amount,
        /// Paid already or promised to others.
        committed: Amount,
        /// The budget.
        limit: Amount,
    },
    /// No confirmed coin of the wallet is large enough.
    #[error("no free confirmed coin of {needed}")]
    NoCoin {
        /// Value needed.
        needed: Amount,
    },
    /// A slash pays from the collateral, which is not worth that much.
    #[error("the reward of {reward} does not pay a fee of {wanted}")]
    Reward {
        /// The reward, fee included.
        reward: Amount,
        /// Fee wanted.
        wanted: Amount,
    },
}

/// Fee of `vsize` virtual bytes at `rate`, rounded up.
///
/// # Errors
/// `Overflow`.
pub fn fee_at(rate: FeeRate, vsize: u64) -> Result<Amount, FeeError> {
    let weight = vsize.checked_mul(4).map(Weight::from_wu).ok_or(FeeError::Overflow)?;
    let fee = rate.fee_wu(weight).ok_or(FeeError::Overflow)?;
    if fee > Amount::MAX_MONEY {
        return Err(FeeError::Overflow);
    }
    Ok(fee)
}

/// Fee of a child so that it and its parent, which pays nothing, reach `rate` together.
///
/// # Errors
/// `Overflow`.
pub fn child_fee(rate: FeeRate, parent_vsize: u64, child_vsize: u64) -> Result<Amount, FeeError> {
    fee_at(rate, parent_vsize.checked_add(child_vsize).ok_or(FeeError::Overflow)?)
}

/// What a replacement has to beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Fees of everything that goes, descendants included.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub fee: Amount,
    /// Size of the transactions that conflict directly.
    pub vsize: u64,
}

impl Replaced {
    /// The least fee of a replacement of `vsize` virtual bytes: BIP125's rule 3 (not less than what goes) and rule 4 (plus the
    /// relay of the new bytes at `incremental`), and Core's that its rate is higher.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn least_fee(&self, vsize: u64, incremental: FeeRate) -> Result<Amount, FeeError> {
        let relay = self.fee.checked_add(fee_at(incremental, vsize)?).ok_or(FeeError::Overflow)?;
        let scaled = u128::from(self.fee.to_sat()) * u128::from(vsize) / u128::from(self.vsize.max(1)) + 1;
        let higher = u64::try_from(scaled).map_err(|_| FeeError::Overflow)?;
        let least = relay.max(Amount::from_sat(higher));
        if least > Amount::MAX_MONEY {
            return Err(FeeError::Overflow);
        }
        Ok(least)
    }
}

/// How a party spends on fees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeePolicy {
    /// All that the party may spend on fees and deposits, over the life of its state.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub budget: Amount,
    /// Never more than this rate.
    pub ceiling: FeeRate,
    /// What nodes want for relaying a replacement's bytes; Core's default is 1 sat/vB.
    pub incremental: FeeRate,
    /// Blocks without confirmation after which a transaction counts as stuck.
    pub patience_blocks: u32,
    /// Blocks before its deadline from which a transaction is urgent.
    pub urgent_blocks: u32,
    /// Confirmed coins that the pool keeps ready: with fewer than half, a large one is cut up.
    pub coins: u32,
    /// Least value of a coin that is cut off.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub coin: Amount,
}

impl FeePolicy {
    /// For regtest.
    pub const REGTEST: Self = Self {
        budget: Amount::from_sat(20_000_000),
        ceiling: FeeRate::from_sat_per_kwu(250 * 500),
        incremental: FeeRate::from_sat_per_kwu(250),
        patience_blocks: 2,
        urgent_blocks: 5,
        coins: 8,
        coin: Amount::from_sat(400_000),
    };

    /// Rate to aim at: the estimate, doubled for each time the transaction was found stuck (at most 3 times) and once more when
    /// its deadline is near; not below `minimum`, not above the ceiling.
    #[must_use]
    pub fn target(&self, estimate: FeeRate, minimum: FeeRate, stuck: u32, left: Option<u32>) -> FeeRate {
        let urgent = u32::from(left.is_some_and(|left| left <= self.urgent_blocks));
        let scaled = u128::from(estimate.max(minimum).to_sat_per_kwu()) << (stuck.min(3) + urgent);
        let scaled = FeeRate::from_sat_per_kwu(u64::try_from(scaled).unwrap_or(u64::MAX));
        scaled.min(self.ceiling)
    }

    /// Checks `wanted` against the budget, of which `committed` is gone or promised.
    ///
    /// # Errors
    /// `Budget`.
    pub fn afford(&self, committed: Amount, wanted: Amount) -> Result<(), FeeError> {
        match committed.checked_add(wanted) {
            Some(sum) if sum <= self.budget => Ok(()),
            _ => Err(FeeError::Budget { wanted, committed, limit: self.budget }),
        }
    }
}

/// What the chain asks for, as the node estimates it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Market {
    /// Rate that confirms within a few blocks.
    pub estimate: FeeRate,
    /// Least rate that the mempool takes.
    pub minimum: FeeRate,
    /// When that was.
    pub at: Height,
}

impl Default for Market {
    fn default() -> Self {
        Self { estimate: FeeRate::BROADCAST_MIN, minimum: FeeRate::BROADCAST_MIN, at: Height(0) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate() -> impl Strategy<Value = FeeRate> {
        (1u64..250_000).prop_map(FeeRate::from_sat_per_kwu)
    }

    /// `fee / vsize >= rate`, without rounding.
    fn reaches(fee: Amount, vsize: u64, rate: FeeRate) -> bool {
        u128::from(fee.to_sat()) * 1_000 >= u128::from(vsize) * 4 * u128::from(rate.to_sat_per_kwu())
    }

    proptest! {
        #[test]
        fn a_package_reaches_its_rate_and_one_satoshi_less_does_not(
            rate in rate(), parent in 100u64..10_000, child in 100u64..1_000
        ) {
            let fee = child_fee(rate, parent, child).unwrap();
            prop_assert!(reaches(fee, parent + child, rate));
            prop_assert!(!reaches(fee - Amount::from_sat(1), parent + child, rate));
        }

        #[test]
        fn a_replacement_satisfies_rules_3_and_4_and_has_a_higher_rate(
            fee in 0u64..10_000_000, old in 100u64..50_000, new in 100u64..50_000, incremental in rate()
        ) {
            let replaced = Replaced { fee: Amount::from_sat(fee), vsize: old };
            let least = replaced.least_fee(new, incremental).unwrap();
            prop_assert!(least >= replaced.fee, "rule 3");
            prop_assert!(reaches(least - replaced.fee, new, incremental), "rule 4");
            let (higher, lower) = (u128::from(least.to_sat()) * u128::from(old), u128::from(fee) * u128::from(new));
            prop_assert!(higher > lower, "a higher rate");
        }

        #[test]
        fn the_least_fee_is_the_least(
            fee in 0u64..1_000_000, old in 100u64..50_000, new in 100u64..50_000, incremental in rate()
        ) {
            let replaced = Replaced { fee: Amount::from_sat(fee), vsize: old };
            let less = replaced.least_fee(new, incremental).unwrap() - Amount::from_sat(1);
            let fits = less >= replaced.fee
                && reaches(less - replaced.fee, new, incremental)
                && u128::from(less.to_sat()) * u128::from(old) > u128::from(fee) * u128::from(new);
            prop_assert!(!fits);
        }

        #[test]
        fn the_budget_is_never_exceeded(limit in 0u64..1_000_000, wants in prop::collection::vec(0u64..400_000, 0..9)) {
            let policy = FeePolicy { budget: Amount::from_sat(limit), ..FeePolicy::REGTEST };
            let mut committed = Amount::ZERO;
            for wanted in wants.into_iter().map(Amount::from_sat) {
                match policy.afford(committed, wanted) {
                    Ok(()) => committed += wanted,
                    Err(error) => prop_assert_eq!(error, FeeError::Budget { wanted, committed, limit: policy.budget }),
                }
                prop_assert!(committed <= policy.budget);
            }
        }

        #[test]
        fn the_target_rises_with_trouble_and_stays_within_its_bounds(
            estimate in rate(), minimum in rate(), stuck in 0u32..40, left in prop::option::of(0u32..20)
        ) {
            let policy = FeePolicy::REGTEST;
            let target = policy.target(estimate, minimum, stuck, left);
            prop_assert!(target <= policy.ceiling);
            prop_assert!(target >= estimate.max(minimum).min(policy.ceiling));
            prop_assert!(policy.target(estimate, minimum, stuck + 1, left) >= target);
            prop_assert!(policy.target(estimate, minimum, stuck, Some(0)) >= target);
        }
    }

    #[test]
    fn absurd_numbers_are_errors() {
        assert_eq!(fee_at(FeeRate::MAX, 1_000).unwrap_err(), FeeError::Overflow);
        assert_eq!(fee_at(FeeRate::ZERO, u64::MAX).unwrap_err(), FeeError::Overflow);
        assert_eq!(child_fee(FeeRate::ZERO, u64::MAX, 1).unwrap_err(), FeeError::Overflow);
        let all = Replaced { fee: Amount::MAX_MONEY, vsize: 1 };
        assert_eq!(all.least_fee(100, FeeRate::BROADCAST_MIN).unwrap_err(), FeeError::Overflow);
    }
}
