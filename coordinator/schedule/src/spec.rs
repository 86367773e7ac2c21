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
}

impl Spec {
    /// Under what name the store holds the payload.
    pub fn holder(&self) -> Holder {
        let mut hasher = blake3::Hasher::new_derive_key("assay-schedule 1 intake");
        hasher.update(&self.tenant.0.to_le_bytes());
        hasher.update(self.key.as_bytes());
        Holder::Intake(Hash(*hasher.finalize().as_bytes()))
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
