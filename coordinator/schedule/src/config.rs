//! Limits: everything the machine holds is bounded by one of them.

use serde::{Deserialize, Serialize};

use crate::PerKind;

/// Limits and times. Stored with the state, so that a coordinator that takes over decides alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Batches that have not ended, all tenants together.
    pub batches_max: u32,
    /// Batches of one tenant that have not ended.
    pub tenant_batches_max: u32,
    /// Tasks of one tenant that run at the same time, controllers not counted.
    pub tenant_running_max: u32,
    /// Controllers of one tenant that run at the same time.
    pub tenant_controllers_max: u32,
    /// Ended batches that are remembered for status and download; the oldest are forgotten first.
    pub retained_max: u32,
    /// How long an ended batch is remembered.
    pub retained_ms: u64,
    /// Rollups.
    pub chains_max: u32,
    /// Registered workers, quarantined ones included.
    pub workers_max: u32,
    /// Tasks on one worker at the same time, and controllers; its own profile may say less.
    pub worker_running_max: u32,
    /// Runs of blocks in a batch.
    pub runs_max: u32,
    /// Parts of one controller's task.
    pub parts_max: u32,
    /// Parts in one [`Event::Spawn`](crate::Event::Spawn).
    pub spawn_max: u32,
    /// Inputs of one part.
    pub part_inputs_max: u32,
    /// Outputs of one part.
    pub part_outputs_max: u32,
    /// Size of one artifact, and of all inputs of one part together.
    pub artifact_bytes_max: u64,
    /// Bytes of all outputs of one task of each kind: what the coordinator has to hold to check them.
    pub output_bytes_max: PerKind<u64>,
    /// Bytes in the store beyond which tasks that produce more than they consume wait, those of the oldest batch excepted.
    pub store_bytes_max: u64,
    /// A worker that is silent for this long is lost.
    pub worker_lease_ms: u64,
    /// A worker that does not name a task this long after it was sent does not have it.
    pub dispatch_grace_ms: u64,
    /// Failures of one task (its own, not losses of workers) that set it aside and end its batch.
    pub failures_max: u32,
    /// Losses of one task (worker gone, too late, taken back) that set it aside.
    pub losses_max: u32,
    /// Wait before the second try of a task; doubles with each.
    pub backoff_ms: u64,
    /// The longest wait before a try.
    pub backoff_ms_max: u64,
    /// A task that takes this many percent of what was expected gets a second worker, if one is idle. No controller does.
    pub straggler_percent: u64,
    /// A task that takes this many percent of what was expected is taken back. Of a controller only the time counts in
    /// which it asks for nothing and nobody works on what it has asked for.
    pub timeout_percent: u64,
    /// No task is taken back before this.
    pub timeout_ms_min: u64,
    /// The same of controllers, which load what they prove with before they ask for anything. Longer than it takes a
    /// worker to notice that its own child does nothing.
    pub idle_ms_min: u64,
    /// Attempts of one task at the same time, at least 1.
    pub attempts_max: u32,
    /// How long a task may wait for a faster worker that is busy.
    pub patience_ms: u64,
    /// Results that fail verification until a worker is quarantined, at least 1.
    pub strikes_max: u32,
    /// The first quarantine; doubles with each.
    pub quarantine_ms: u64,
    /// The longest quarantine.
    pub quarantine_ms_max: u64,
    /// Tries of a settlement.
    pub settle_tries_max: u32,
    /// Tasks set aside that are remembered, the oldest forgotten first.
    pub poison_max: u32,
    /// A batch without a deadline is ordered as if it had this long.
    pub horizon_ms: u64,
    /// Memory that a task of each kind needs, until one fails for want of it.
    pub memory_bytes: PerKind<u64>,
    /// Largest memory a task may come to ask for.
    pub memory_bytes_max: u64,
    /// Time per unit of work, until it has been measured.
    pub ns_per_unit: PerKind<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        const GIB: u64 = 1 << 30;
        Self {
            batches_max: 256,
            tenant_batches_max: 64,
            tenant_running_max: 4096,
            tenant_controllers_max: 256,
            retained_max: 1024,
            retained_ms: 7 * 24 * 3_600_000,
            chains_max: 256,
            workers_max: 4096,
            worker_running_max: 64,
            runs_max: 256,
            parts_max: 4096,
            spawn_max: 256,
            part_inputs_max: 1024,
            part_outputs_max: 256,
            artifact_bytes_max: 4 * GIB,
            output_bytes_max: PerKind([4 * GIB, GIB / 2, GIB / 2, GIB / 2, GIB / 2, GIB / 8, GIB / 16]),
            store_bytes_max: 256 * GIB,
            worker_lease_ms: 30_000,
            dispatch_grace_ms: 10_000,
            failures_max: 5,
            losses_max: 16,
            backoff_ms: 500,
            backoff_ms_max: 60_000,
            straggler_percent: 200,
            timeout_percent: 1_000,
            timeout_ms_min: 60_000,
            idle_ms_min: 5_400_000,
            attempts_max: 2,
            patience_ms: 120_000,
            strikes_max: 2,
            quarantine_ms: 300_000,
            quarantine_ms_max: 24 * 3_600_000,
            settle_tries_max: 20,
            poison_max: 256,
            horizon_ms: 3_600_000,
            memory_bytes: PerKind([4 * GIB, 8 * GIB, 16 * GIB, 16 * GIB, 8 * GIB, 18 * GIB, 17 * GIB]),
            memory_bytes_max: 512 * GIB,
            // Units: gas, cycles, cycles, proofs, proofs, one, one.
            ns_per_unit: PerKind([
                100,
                300,
                1_000,
                20_000_000_000,
                60_000_000_000,
                1_200_000_000_000,
                300_000_000_000,
            ]),
        }
    }
}

/// A limit that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit {name} must be at least {min}, got {got}")]
pub struct LimitError {
    /// The field.
    pub name: &'static str,
    /// The smallest sensible value.
    pub min: u64,
    /// What was given.
    pub got: u64,
}

impl Limits {
    /// Checks that work can make progress under these limits.
    ///
    /// # Errors
    /// [`LimitError`] for the first one that it cannot.
    pub fn validate(&self) -> Result<(), LimitError> {
        let checks: [(&'static str, u64, u64); 24] = [
            ("batches_max", 1, self.batches_max.into()),
            ("tenant_batches_max", 1, self.tenant_batches_max.into()),
            ("tenant_running_max", 1, self.tenant_running_max.into()),
            ("retained_max", 1, self.retained_max.into()),
            ("chains_max", 1, self.chains_max.into()),
            ("workers_max", 1, self.workers_max.into()),
            ("worker_running_max", 1, self.worker_running_max.into()),
            ("runs_max", 1, self.runs_max.into()),
            ("tenant_controllers_max", 1, self.tenant_controllers_max.into()),
            ("parts_max", 1, self.parts_max.into()),
            ("spawn_max", 1, self.spawn_max.into()),
            ("part_inputs_max", 1, self.part_inputs_max.into()),
            ("part_outputs_max", 1, self.part_outputs_max.into()),
            ("artifact_bytes_max", 1, self.artifact_bytes_max),
            ("output_bytes_max", 1, *self.output_bytes_max.0.iter().min().unwrap_or(&0)),
            ("worker_lease_ms", 1, self.worker_lease_ms),
            ("failures_max", 1, self.failures_max.into()),
            ("losses_max", 1, self.losses_max.into()),
            ("straggler_percent", 100, self.straggler_percent),
            ("timeout_percent", self.straggler_percent, self.timeout_percent),
            ("attempts_max", 1, self.attempts_max.into()),
            ("strikes_max", 1, self.strikes_max.into()),
            ("settle_tries_max", 1, self.settle_tries_max.into()),
            ("memory_bytes_max", *self.memory_bytes.0.iter().max().unwrap_or(&1), self.memory_bytes_max),
        ];
        match checks.into_iter().find(|(_, min, got)| got < min) {
            Some((name, min, got)) => Err(LimitError { name, min, got }),
            None => Ok(()),
        }
    }
}
