//! A worker of the cluster: it takes tasks from the queue, runs them, publishes and reports what they make, and signs a
//! receipt for each.
//!
//! Layer: adapter, above `assay-queue` (the seam between processes) and `assay-schedule` (the messages). It knows no zkVM:
//! what a task means is behind [`runner::Runner`]. The binary that proves is wiring in a crate above.
//!
//! ```text
//!   leader ──mailbox──▶ agent ──▶ State (pure) ──▶ operations: fetch ▶ run ▶ publish ▶ seal ──▶ inbox ──▶ leader
//!                                                        │      │
//!                                                     store   Runner: child process, or fake
//! ```
//!
//! # Assumptions
//! * The queue keeps what it has acknowledged, delivers mails in order, and closes a session's mailbox when the session is
//!   over. The store checks what it gives and refuses what a fenced attempt publishes.
//! * One process at a time has a work folder, and a worker's number follows from its key.
//!
//! # Invariants
//! * A result is published before it is reported, and reported until it is answered, taken back, or the queue has taken it
//!   several times; it survives the death of the process from the moment the runner has ended.
//! * Slots, controllers and memory are never exceeded. A controller takes no slot, so one slot suffices for it and its parts.
//! * An input that is missing or damaged is reported as lost, an unreachable store is waited for.
//! * Whatever ran has a receipt, also when it failed or was taken back.
//! * Every collection, message and file that a peer can make grow has a bound; bad messages are dropped with a log line.
//!
//! # Non-goals
//! Deciding which task runs where (`assay-schedule`), verifying results (the coordinator), knowing what a proof is.
//!
//! Reading order: [`wire`], [`state`], [`agent`], [`runner`], [`receipt`], [`config`].
//!
//! ```
//! use assay_agent::key::WorkerKey;
//! use assay_agent::receipt::{Outcome, Receipt, Usage};
//! use assay_schedule::{AttemptId, BatchId, Hash, Kind};
//!
//! let key = WorkerKey::from_seed([7; 32]);
//! let receipt = Receipt {
//!     worker: key.worker(),
//!     batch: BatchId(1),
//!     attempt: AttemptId(2),
//!     key: Hash([3; 32]),
//!     kind: Kind::Shard,
//!     outcome: Outcome::Finished,
//!     inputs: Vec::new(),
//!     outputs: Vec::new(),
//!     device: "NVIDIA H200".to_owned(),
//!     build: "1".to_owned(),
//!     usage: Usage { wall_ms: 1_000, ..Usage::default() },
//! };
//! let mut signed = receipt.sign(&key).unwrap();
//! signed.verify().unwrap();
//! signed.receipt.usage.wall_ms = 1;
//! assert!(signed.verify().is_err());
//! ```

pub mod agent;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod devices;
#[cfg(feature = "fake")]
pub mod fake;
mod folder;
pub mod key;
pub mod receipt;
pub mod runner;
pub mod state;
#[cfg(test)]
mod testing;
pub mod wire;
