//! Settings of a trunk.

use std::path::PathBuf;
use std::time::Duration;

use bitcoin::Amount;

use super::TrunkError;
use crate::envelope::BODY_BYTES_MAX;
use crate::graph::connector::CONNECTOR_VALUE;
use crate::graph::terms::{TimeLocks, CLAIMS_MAX};

/// Settings of a trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkConfig {
    /// Directory of the trunk; created when absent.
    pub dir: PathBuf,
    /// File with the operator's secret, mode 0600; created when absent.
    pub secret_file: PathBuf,
    /// Claims per epoch, 1 to 4096.
    pub claims_per_epoch: u32,
    /// Time locks of epochs opened from now on.
    pub locks: TimeLocks,
    /// Collateral of epochs opened from now on.
    pub collateral: Amount,
    /// Fee rate where the chain offers no estimate, sat/vB.
    pub fee_rate_fallback_sat_per_vb: u64,
    /// Highest fee rate paid, sat/vB.
    pub fee_rate_max_sat_per_vb: u64,
    /// Confirmations after which a transaction counts as settled.
    pub confirmations_min: u32,
    /// Longest wait for one confirmation, where blocks are not ours to mine.
    pub confirm_timeout: Duration,
    /// Pause between two looks at the chain meanwhile.
    pub poll_interval: Duration,
    /// Largest envelope body, in bytes; tests use less to exercise chunks.
    pub envelope_limit: usize,
}

impl TrunkConfig {
    /// Settings for regtest, all in `dir`.
    #[must_use]
    pub fn development(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            secret_file: dir.join("operator.secret"),
            dir,
            claims_per_epoch: 64,
            locks: TimeLocks::REGTEST,
            collateral: Amount::from_sat(10_000_000),
            fee_rate_fallback_sat_per_vb: 2,
            fee_rate_max_sat_per_vb: 200,
            confirmations_min: 1,
            confirm_timeout: Duration::from_secs(3_600),
            poll_interval: Duration::from_secs(5),
            envelope_limit: BODY_BYTES_MAX,
        }
    }

    /// Checks the ranges.
    pub(super) fn validate(&self) -> Result<(), TrunkError> {
        let fail = |detail: &str| Err(TrunkError::Config { detail: detail.to_owned() });
        if self.fee_rate_max_sat_per_vb == 0 || self.fee_rate_fallback_sat_per_vb == 0 {
            return fail("fee rates must be at least 1 sat/vB");
        }
        if self.confirmations_min == 0 {
            return fail("at least 1 confirmation is needed");
        }
        if self.envelope_limit == 0 || self.envelope_limit > BODY_BYTES_MAX {
            return fail("the envelope limit must be 1 to 397000 bytes");
        }
        if !(1..=CLAIMS_MAX).contains(&self.claims_per_epoch) {
            return fail("claims per epoch must be 1 to 4096");
        }
        if self.locks.cadence_blocks == 0 || self.locks.collateral_blocks == 0 {
            return fail("time locks must be at least 1 block");
        }
        if self.collateral < CONNECTOR_VALUE || self.collateral > Amount::MAX_MONEY {
            return fail("the collateral must be at least 330 satoshi");
        }
        Ok(())
    }
}
