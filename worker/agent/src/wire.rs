//! What goes over the queue between a worker and the leading coordinator: JSON, one value a message.
//!
//! | direction | where | what |
//! |---|---|---|
//! | to the leader | the inbox | [`Event`](assay_schedule::Event), and beside some of them an [`Extra`] |
//! | to the worker | mailbox `worker/<worker>/<session>` | [`Mail`] |
//! | artifacts | the store, holder `attempt/<attempt>/<n>` or `intake/<hash>` | bytes |
//!
//! The mailbox is closed when the session is over: the worker was silent for too long, has left, or has begun another.

use assay_queue::{Mailbox, NameError};
use assay_schedule::{AttemptId, Effect, Holder, WorkerId};
use serde::{Deserialize, Serialize};

use crate::receipt::SignedReceipt;

/// A message to the leader that the schedule does not need. It follows its event directly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extra {
    /// After the result of an attempt that has run: what it took. Worth keeping even when the result comes too late.
    Receipt(Box<SignedReceipt>),
    /// After a registration: who it is.
    About(About),
    /// Directly after that, if devices are out of service.
    Health(Health),
}

/// A worker, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Its number.
    pub worker: WorkerId,
    /// What its operator calls it.
    pub name: String,
    /// Models of its devices that are in service, in the order of its slots.
    pub devices: Vec<String>,
    /// Its program.
    pub build: String,
    /// The key that signs its receipts, hex.
    #[serde(with = "assay_schedule::receipt::hexed")]
    pub public_key: [u8; 32],
}

/// What is wrong with a worker, for people. Holds until its next [`About`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Its number.
    pub worker: WorkerId,
    /// Devices that are out of service, each with the reason.
    pub lost: Vec<String>,
}

/// A message to a worker: an effect of the schedule as it is, or an [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Mail {
    /// A message of the schedule.
    Effect(Box<Effect>),
    /// Something else.
    Answer(Answer),
}

/// What a leader may say besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// It is done with an attempt: it has taken the result, or refused it for good. Without this a worker repeats a result
    /// a few times, in case the queue has lost it.
    Closed {
        /// The attempt.
        attempt: AttemptId,
    },
}

/// The mailbox of one session of a worker.
///
/// # Errors
/// Never: numbers and slashes make a name.
pub fn mailbox(worker: WorkerId, session: u64) -> Result<Mailbox, NameError> {
    Mailbox::new(format!("worker/{worker}/{session}"))
}

/// A holder's name in the store. Revoking `attempt/<n>` fences all that the attempt publishes.
///
/// # Errors
/// Never: numbers, hex digits and slashes make a name.
pub fn holder(holder: Holder) -> Result<assay_queue::Holder, NameError> {
    assay_queue::Holder::new(holder.to_string())
}

/// An event as the inbox takes it.
///
/// # Errors
/// Never: events have only string keys.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(message)
}
