//! The coordinator's decisions, as a pure state machine.
//!
//! Layer: core. No tokio, no sockets, no files, no clock, no randomness: [`Machine::step`] takes an [`Event`] and the
//! time, and returns the [`Effect`]s to carry out. The same events give the same states and effects.
//!
//! # How a shell uses it
//! 1. Take the next event, call `step`. On an error nothing has changed: acknowledge and answer the sender.
//! 2. Store the machine under the leader's epoch by compare-and-set ([`Lease`], [`Fence`]); outstanding effects are part
//!    of it. If the store refuses, another coordinator leads: forget everything and stand by.
//! 3. Acknowledge the event, carry out the effects, feed their answers back as events.
//!
//! After a death at any point between these, the next leader loads the state, steps [`Event::TakeOver`] and gets all
//! outstanding effects again; each is idempotent under its id.
//!
//! # Invariants
//! * A finished task is never proved again, unless its output is lost while a reader is still to come.
//! * A worker's result counts after the coordinator has hashed and verified it, once; all other attempts of the task are
//!   fenced ([`Action::Revoke`]).
//! * A batch ends in exactly one of settled, failed, cancelled; it then holds nothing but its proof and, for the chain,
//!   the last fold proof.
//! * Every collection is bounded by [`Limits`]. [`Machine::check`] checks these.
//!
//! # Non-goals
//! Talking to queues, stores, workers or Bitcoin; tasks shared between batches.
//!
//! Reading order: [`Event`], [`Action`], [`Machine`], then `machine/`; `sim` runs it under faults.
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
mod event;
mod leader;
mod machine;
#[cfg(feature = "simulate")]
pub mod sim;
mod types;
mod worker;

pub use batch::{Failure, Phase};
pub use config::{LimitError, Limits};
pub use event::{
    Action, Class, Effect, Error, Event, Output, Profile, Report, Spec, Verdict, TEXT_BYTES_MAX,
};
pub use leader::{Fence, Lease};
#[cfg(feature = "simulate")]
pub use machine::Weak;
pub use machine::{BatchStatus, Machine, Poison, TaskStatus, Wait, WorkerStatus};
pub use types::{
    Artifact, AttemptId, BatchId, ChainId, EffectId, Epoch, Hash, Holder, Kind, PerKind, Stage, TenantId,
    Time, WorkerId,
};
pub use worker::Speed;
