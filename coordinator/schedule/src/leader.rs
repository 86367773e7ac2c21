//! Leadership by lease, fenced by a number that only grows.
//!
//! The queue keeps one [`Lease`] and changes it by compare-and-set. A clock that is wrong costs a needless takeover; it
//! never makes two leaders harmful, because whatever a leader commits carries its [`Epoch`] and the queue refuses all but
//! the latest.

use serde::{Deserialize, Serialize};

use crate::{Epoch, Time};

/// Who leads, and until when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The term.
    pub epoch: Epoch,
    /// The coordinator.
    pub holder: u64,
    /// When others may take over, on their own clocks.
    pub until: Time,
}

impl Lease {
    /// The lease that coordinator `me` should try to put in the place of this one; `None` if it has to wait.
    ///
    /// Its own lease is renewed in the same epoch, a foreign one only replaced when it is over, under the next epoch. A
    /// coordinator that was started again does not know what its predecessor did: it passes `is_leading = false` and gets
    /// a new epoch at once.
    pub fn claim(self, me: u64, is_leading: bool, now: Time, ttl_ms: u64) -> Option<Lease> {
        let until = now.plus(ttl_ms);
        match (self.holder == me, is_leading) {
            (true, true) => Some(Lease { until, ..self }),
            (true, false) => Some(Lease { epoch: Epoch(self.epoch.0 + 1), holder: me, until }),
            _ if self.until <= now => Some(Lease { epoch: Epoch(self.epoch.0 + 1), holder: me, until }),
            _ => None,
        }
    }
}
