//! How often a back end's device worked and failed.

use std::sync::{Mutex, PoisonError};

/// What a [`super::Backend`] has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that the device finished.
    pub device: u64,
    /// Calls that the CPU did, alone or after the device failed.
    pub cpu: u64,
    /// Attempts that failed on the device; a proof that did not verify is one.
    pub failures: u64,
    /// Second attempts.
    pub retries: u64,
    /// Calls that went to the CPU because the device had just failed; the trial of [`super::Backend::auto`] is one. Those after
    /// it are not counted here, whose device is lost.
    pub fallbacks: u64,
}

/// Counts that threads share.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<Counts>);

impl Counters {
    /// Adds one to what `which` picks.
    pub(super) fn add(&self, which: impl Fn(&mut Counts) -> &mut u64) {
        *which(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)) += 1;
    }

    pub(super) fn reset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Counts::default();
    }

    pub(super) fn snapshot(&self) -> Counts {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
