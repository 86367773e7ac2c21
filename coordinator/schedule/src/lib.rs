//! The coordinator's decisions, as a pure state machine.
//!
//! Layer: core. No tokio, no sockets, no files, no clock, no randomness: [`Machine::step`] takes an [`Event`] and the
//! time, and returns the [`Effect`]s to carry out. The same events give the same states and effects.
//!
//! # How a shell uses it
//! 1. Take the next event, call `step`. On an error nothing has changed: acknowledge and answer the sender.
//! 2. Commit in one atomic step under the leader's epoch: (event, time) to the log, [`Message`]s to their mailboxes
//!    ([`Message::recipient`]). If the queue refuses, another coordinator leads: forget everything and stand by.
//! 3. Do the [`Work`], and feed the answers back as events.
//!
//! State is a checkpoint (the machine, serialised) and the log since. A new leader loads the one and replays the other,
//! which gives an equal machine, then steps [`Event::TakeOver`] and gets all outstanding work again; work is idempotent
//! under its id. Messages have been committed with their cause, so they are never pending and never repeated.
//!
//! # Invariants
//! * A finished task is never proved again, unless its output is lost while a reader is still to come, or a controller
//!   was caught lying about its inputs, or fails for what would be the last time (then its parts are not trusted either).
//! * A worker's result counts after the coordinator has hashed and verified it, once; all other attempts of the task are
//!   revoked ([`Message::Revoke`]) and fenced ([`Work::Fence`]).
//! * A batch ends in exactly one of settled, failed, cancelled; it then holds nothing but its proof and, for the chain,
//!   the last fold proof.
//! * Every collection is bounded by [`Limits`]. [`Machine::check`] checks these.
//!
//! # Non-goals
//! Talking to queues, stores, workers or Bitcoin; tasks shared between batches.
//!
//! Reading order: [`Event`], [`Message`], [`Work`], [`Machine`], then `machine/`; `sim` runs it under faults.
//!
//! ```
//! use assay_schedule::{Epoch, Event, Limits, Machine, Time};
//!
//! let mut machine = Machine::new(Limits::default()).unwrap();
//! let effects = machine.step(Event::TakeOver { epoch: Epoch(1) }, Time(0)).unwrap();
//! assert!(effects.is_empty());
//! ```

mod batch;
mod config;
mod effect;
mod error;
mod event;
mod leader;
mod machine;
mod mark;
pub mod receipt;
#[cfg(feature = "simulate")]
pub mod sim;
mod spec;
mod types;
mod worker;

pub use batch::{Failure, Phase};
pub use config::{LimitError, Limits};
pub use effect::{Action, Dispatch, Effect, Input, Message, Recipient, Role, Work, LIST_MAX};
pub use error::{Class, Error};
pub use event::{Event, Output, Part, Profile, Report, Verdict};
pub use leader::Lease;
#[cfg(feature = "simulate")]
pub use machine::Weak;
pub use machine::{BatchStatus, ChainStatus, Machine, Poison, TaskStatus, Wait, WorkerStatus};
#[cfg(feature = "simulate")]
pub use mark::marks;
pub use spec::{Facts, Spec, TEXT_BYTES_MAX};
pub use types::{
    Artifact, AttemptId, BatchId, ChainId, EffectId, Epoch, Hash, HashError, Holder, Kind, Parent, PerKind,
    Stage, TenantId, Time, WorkerId,
};
pub use worker::Speed;
