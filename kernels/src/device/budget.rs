//! How much of a device's memory one process may use.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::DeviceError;

/// Bytes that may be in use at a time, beside what the driver takes for itself.
#[derive(Debug)]
pub(super) struct Budget {
    most: u64,
    used: Arc<AtomicU64>,
}

/// A part of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    bytes: u64,
    used: Arc<AtomicU64>,
}

impl Budget {
    /// A budget of `most` bytes.
    pub(super) fn new(most: u64) -> Self {
        Self { most, used: Arc::default() }
    }

    /// Bytes that are not in use.
    pub(super) fn left(&self) -> u64 {
        self.most.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Takes `bytes` until the share is dropped.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] if fewer are left.
    pub(super) fn take(&self, bytes: u64) -> Result<Share, DeviceError> {
        let taken = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.most);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken) {
            Ok(_) => Ok(Share { bytes, used: Arc::clone(&self.used) }),
            Err(used) => {
                Err(DeviceError::OutOfMemory { needed: bytes, free: self.most.saturating_sub(used) })
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_what_is_dropped_is_there_again() {
        let budget = Budget::new(100);
        let first = budget.take(60).unwrap();
        let refused = budget.take(41).unwrap_err();
        assert!(matches!(refused, DeviceError::OutOfMemory { needed: 41, free: 40 }), "{refused}");
        assert_eq!(budget.left(), 40, "a refusal takes nothing");
        let second = budget.take(40).unwrap();
        assert_eq!(budget.left(), 0);
        drop(first);
        assert_eq!(budget.left(), 60);
        drop(second);
        assert_eq!(budget.left(), 100);

        let all = Budget::new(u64::MAX);
        let _some = all.take(1).unwrap();
        assert!(all.take(u64::MAX).is_err(), "sums do not wrap");
    }
}
