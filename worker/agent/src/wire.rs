//! What goes over the queue between a worker and the leading coordinator: JSON, one value a message.
//!
//! | direction | where | what |
//! |---|---|---|
//! | to the leader | the inbox | [`Post`] |
//! | to the worker | mailbox `worker/<worker>/<session>` | [`Mail`] |
//! | artifacts | the store, holder `attempt/<attempt>/<n>` or `intake/<hash>` | bytes |

use assay_schedule::{
    Action, Artifact, AttemptId, BatchId, Effect, Event, Hash, Holder, Kind, Stage, WorkerId,
};
use serde::{Deserialize, Serialize};

use crate::receipt::SignedReceipt;

/// A message to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Post {
    /// What the coordinator's machine is told.
    pub event: Event,
    /// With the result of an attempt that has run: what it took. Worth keeping even when the result comes too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<SignedReceipt>>,
    /// With a registration: who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
}

/// A worker, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// What its operator calls it.
    pub name: String,
    /// Models of its devices, in the order of its slots.
    pub devices: Vec<String>,
    /// Its program.
    pub build: String,
    /// The key that signs its receipts, hex.
    #[serde(with = "crate::hexed")]
    pub public_key: [u8; 32],
}

/// A message to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mail {
    /// [`Action::Dispatch`], [`Action::Revoke`] or [`Action::Deliver`].
    Effect(Effect),
    /// The leader is done with an attempt: it has taken the result, or refused it for good. Nothing more is to be said
    /// about it.
    Closed {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The leader does not know this session: register again.
    Register,
}

/// A task as it is sent to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispatch {
    /// Whose.
    pub batch: BatchId,
    /// Which try.
    pub attempt: AttemptId,
    /// What makes two tasks the same.
    pub key: Hash,
    /// What to do.
    pub stage: Stage,
    /// Its inputs, in order.
    pub inputs: Vec<Artifact>,
    /// Memory set aside for it.
    pub memory_bytes: u64,
}

impl Dispatch {
    /// What it does.
    pub fn kind(&self) -> Kind {
        self.stage.kind()
    }
}

/// A kind's name in JSON.
pub fn kind_name(kind: Kind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => name,
        // Kinds are plain names; the debug form keeps this total.
        _ => format!("{kind:?}"),
    }
}

/// Whether tasks of a kind run a guest and have their parts proved by others. They do not count as slots.
pub fn is_controller(kind: Kind) -> bool {
    matches!(kind, Kind::Trace | Kind::Fold)
}
