//! Identifiers, kinds of work and artifacts.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A batch, numbered in the order of intake; never used twice.
    BatchId
);
id!(
    /// One try of one task by one worker. Grows with time and is never used twice, which makes it the fencing token of
    /// everything that the try publishes.
    AttemptId
);
id!(
    /// An effect; the answer carries it. Never used twice.
    EffectId
);
id!(
    /// A worker process.
    WorkerId
);
id!(
    /// A customer with quotas of its own.
    TenantId
);
id!(
    /// A rollup: its batches are folded one on the other.
    ChainId
);
id!(
    /// A term of leadership; each coordinator that takes over has a higher one.
    Epoch
);

/// Milliseconds since the Unix epoch on the leading coordinator's clock. No worker's clock is ever read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// This time and `ms` milliseconds, at most the end of time.
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time, 0 if it is later.
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// BLAKE3 of an artifact's bytes, or of a task's identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a task does; speed and memory are kept for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Re-execute the batch and cut it into runs of blocks; one output, a witness, for each run.
    Execute,
    /// Run the block program on one witness; one output, an execution record, for each shard.
    Trace,
    /// Prove one shard.
    Shard,
    /// Join proofs of one run; the last of a run is its block proof.
    Reduce,
    /// Verify all block proofs and the previous fold proof.
    Fold,
    /// Shrink the fold proof and hash it over BN254.
    Wrap,
    /// The Groth16 proof.
    Groth16,
}

impl Kind {
    /// All kinds, in the order of a batch.
    pub const ALL: [Kind; 7] =
        [Kind::Execute, Kind::Trace, Kind::Shard, Kind::Reduce, Kind::Fold, Kind::Wrap, Kind::Groth16];

    /// Whether it turns little data into much: held back while the store is nearly full, so that what is there is
    /// consumed first.
    pub fn grows(self) -> bool {
        matches!(self, Kind::Execute | Kind::Trace)
    }
}

/// One task of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// [`Kind::Execute`].
    Execute,
    /// [`Kind::Trace`] of a run.
    Trace {
        /// The run, from 0.
        run: u32,
    },
    /// [`Kind::Shard`].
    Shard {
        /// The run, from 0.
        run: u32,
        /// The shard of the run, from 0.
        shard: u32,
    },
    /// [`Kind::Reduce`].
    Reduce {
        /// The run, from 0.
        run: u32,
        /// Height above the shards, from 0.
        level: u32,
        /// Place in its level, from 0.
        index: u32,
    },
    /// [`Kind::Fold`].
    Fold,
    /// [`Kind::Wrap`].
    Wrap,
    /// [`Kind::Groth16`].
    Groth16,
}

impl Stage {
    /// What it does.
    pub fn kind(self) -> Kind {
        match self {
            Stage::Execute => Kind::Execute,
            Stage::Trace { .. } => Kind::Trace,
            Stage::Shard { .. } => Kind::Shard,
            Stage::Reduce { .. } => Kind::Reduce,
            Stage::Fold => Kind::Fold,
            Stage::Wrap => Kind::Wrap,
            Stage::Groth16 => Kind::Groth16,
        }
    }
}

/// Who holds an artifact in the store; deletion is by holder, so that deleting one try's output never touches another
/// try's equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// The payload of a submitted batch, held by the hash of tenant and idempotency key.
    Intake(Hash),
    /// An output of an attempt.
    Attempt(AttemptId, u32),
}

/// An immutable piece of data in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Artifact {
    /// Who holds it.
    pub holder: Holder,
    /// What its bytes must hash to.
    pub hash: Hash,
    /// Its size.
    pub bytes: u64,
}

/// One value for each [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerKind<T>(pub [T; 7]);

impl<T> std::ops::Index<Kind> for PerKind<T> {
    type Output = T;

    fn index(&self, kind: Kind) -> &T {
        &self.0[kind as usize]
    }
}

impl<T> std::ops::IndexMut<Kind> for PerKind<T> {
    fn index_mut(&mut self, kind: Kind) -> &mut T {
        &mut self.0[kind as usize]
    }
}
