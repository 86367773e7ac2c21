//! A worker as the machine knows it: what it can do, how fast it is, whether it is trusted.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{AttemptId, BatchId, EffectId, Kind, Output, PerKind, Profile, Time, WorkerId};

/// Time per unit of work, as measured: an exponential mean with weight 1/4 for the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speed {
    /// Nanoseconds per unit.
    pub ns_per_unit: u64,
    /// Results it was measured from.
    pub samples: u32,
}

impl Speed {
    pub(crate) fn measure(&mut self, elapsed_ms: u64, units: u64) {
        let sample = elapsed_ms.saturating_mul(1_000_000) / units.max(1);
        let sample = sample.clamp(1, u64::MAX / 8);
        self.ns_per_unit = if self.samples == 0 { sample } else { (3 * self.ns_per_unit + sample) / 4 };
        self.samples = self.samples.saturating_add(1);
    }
}

/// Milliseconds for `units` of work.
pub(crate) fn millis(units: u64, ns_per_unit: u64) -> u64 {
    const YEAR_MS: u64 = 365 * 24 * 3_600_000;
    (units.saturating_mul(ns_per_unit) / 1_000_000).clamp(1, YEAR_MS)
}

/// How a worker stands in the index of a kind; see `machine/pool.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seat {
    /// Here, trusted and able.
    pub is_here: bool,
    /// With a place, and memory for a task of the usual size.
    pub is_free: bool,
    /// Measured time per unit.
    pub ns_per_unit: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Worker {
    /// `None`: not here now; what is known of it (strikes) is kept.
    pub session: Option<u64>,
    pub profile: Profile,
    pub lease_until: Time,
    pub speeds: PerKind<Speed>,
    /// Attempts that hold its memory and places.
    pub running: BTreeSet<AttemptId>,
    /// Of these, controllers.
    pub controllers: u32,
    pub memory_used: u64,
    /// Of this, by controllers.
    pub controllers_memory: u64,
    pub strikes: u32,
    /// Results accepted since the last strike.
    pub good: u32,
    pub quarantines: u32,
    pub quarantined_until: Time,
    pub seats: PerKind<Seat>,
}

impl Worker {
    pub(crate) fn new(profile: Profile, lease_until: Time) -> Self {
        Self {
            session: None,
            profile,
            lease_until,
            speeds: PerKind([Speed::default(); 7]),
            running: BTreeSet::new(),
            controllers: 0,
            memory_used: 0,
            controllers_memory: 0,
            strikes: 0,
            good: 0,
            quarantines: 0,
            quarantined_until: Time(0),
            seats: PerKind([Seat::default(); 7]),
        }
    }

    pub(crate) fn serves(&self, kind: Kind, version: u32) -> bool {
        self.session.is_some() && self.profile.version == version && self.profile.serves(kind)
    }

    pub(crate) fn is_trusted(&self, now: Time) -> bool {
        self.quarantined_until <= now
    }

    /// Whether it has a place for one more task of a kind.
    pub(crate) fn has_place(&self, kind: Kind, places_max: u32) -> bool {
        let (used, places) = if kind.is_controller() {
            (u64::from(self.controllers), self.profile.controllers)
        } else {
            (self.running.len() as u64 - u64::from(self.controllers), self.profile.slots)
        };
        used < u64::from(places.min(places_max))
    }

    pub(crate) fn memory_free(&self) -> u64 {
        self.profile.memory_bytes.saturating_sub(self.memory_used)
    }

    /// Memory that parts can have once all other tasks but controllers have ended.
    pub(crate) fn memory_for_parts(&self) -> u64 {
        self.profile.memory_bytes.saturating_sub(self.controllers_memory)
    }
}

impl Profile {
    /// Whether it can do a kind, and has a place for it.
    pub(crate) fn serves(&self, kind: Kind) -> bool {
        let places = if kind.is_controller() { self.controllers } else { self.slots };
        places > 0 && self.kinds.contains(&kind)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AttemptPhase {
    /// The worker has it, or will.
    Running,
    /// The worker says that an input is lost; the coordinator looks for itself.
    Auditing { effect: EffectId, input: u32 },
    /// The coordinator verifies the result.
    Verifying { effect: EffectId, outputs: Vec<Output>, elapsed_ms: u64 },
}

impl AttemptPhase {
    /// The work that it waits for.
    pub(crate) fn effect(&self) -> Option<EffectId> {
        match self {
            AttemptPhase::Running => None,
            AttemptPhase::Auditing { effect, .. } | AttemptPhase::Verifying { effect, .. } => Some(*effect),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub batch: BatchId,
    pub node: u32,
    pub kind: Kind,
    pub worker: WorkerId,
    pub session: u64,
    pub started: Time,
    /// Of a controller: when it has last asked for a part, or was last told something that it has to act upon.
    pub active: Time,
    pub expected_ms: u64,
    pub memory_bytes: u64,
    /// Outputs of parts that it called lost and that are not.
    pub complaints: u32,
    pub phase: AttemptPhase,
}

impl Attempt {
    pub(crate) fn is_running(&self) -> bool {
        self.phase == AttemptPhase::Running
    }

    /// Milliseconds until it is expected to end; an overdue one is expected to take as long again.
    pub(crate) fn remaining_ms(&self, now: Time) -> u64 {
        let elapsed = now.since(self.started);
        if elapsed < self.expected_ms {
            self.expected_ms - elapsed
        } else {
            elapsed
        }
    }
}
