//! A batch as it is submitted, and what every worker is told of it.

use serde::{Deserialize, Serialize};

use crate::{ChainId, Hash, Holder, TenantId, Time};

/// Longest idempotency key and longest stored reason, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;

/// A batch as its owner submits it. The payload is in the store already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Who pays.
    pub tenant: TenantId,
    /// The same key with the same content gives the same batch; at most [`TEXT_BYTES_MAX`] bytes.
    pub key: String,
    /// The rollup; belongs to the tenant that used it first.
    pub chain: ChainId,
    /// Place in the rollup's history, from 0, without gaps.
    pub sequence: u64,
    /// Commitment to the state before it: the one after the batch before it.
    pub from: Hash,
    /// Commitment to the state after it.
    pub to: Hash,
    /// Hash of the batch's bytes, which the store holds under [`Spec::holder`].
    pub payload: Hash,
    /// Size of the payload.
    pub payload_bytes: u64,
    /// Expected work of the execution, in gas.
    pub units: u64,
    /// Version of programs and keys; only workers of this version get its tasks.
    pub version: u32,
    /// Higher goes first.
    pub priority: u8,
    /// When the proof is wanted.
    pub deadline: Option<Time>,
    /// Whether the batch is worthless after the deadline: it then fails as soon as that is certain.
    pub deadline_is_hard: bool,
    /// Under what name the store holds the payload; each submission has its own, see [`Spec::intake_of`].
    pub intake: Hash,
}

impl Spec {
    /// Under what name the store holds the payload.
    pub fn holder(&self) -> Holder {
        Holder::Intake(self.intake)
    }

    /// A name for the payload of one submission. Repetitions of a submission have other names, so that letting go of one
    /// never hits another.
    pub fn intake_of(tenant: TenantId, key: &str, submission: u128) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key("assay-schedule 2 intake");
        hasher.update(&tenant.0.to_le_bytes());
        hasher.update(&submission.to_le_bytes());
        hasher.update(key.as_bytes());
        Hash(*hasher.finalize().as_bytes())
    }

    /// Whether both are the same batch, whatever their submissions are called.
    pub fn is_same_batch(&self, other: &Spec) -> bool {
        *self == Spec { intake: self.intake, ..other.clone() }
    }
}

/// What a task's worker, and whoever verifies its result, has to know of the batch besides the task's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The rollup.
    pub chain: ChainId,
    /// The batch's place in the rollup's history.
    pub sequence: u64,
    /// Commitment to the state before the rollup's first batch.
    pub genesis: Hash,
    /// Commitment to the state before the batch.
    pub from: Hash,
    /// Commitment to the state after it.
    pub to: Hash,
    /// Hash of the batch's bytes.
    pub payload: Hash,
    /// Version of programs and keys.
    pub version: u32,
    /// When the proof is wanted.
    pub deadline: Option<Time>,
}
