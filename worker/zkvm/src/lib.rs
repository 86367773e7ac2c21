//! The zkVM's provers in this process, and what they hand each other.
//!
//! Layer: below `assay-worker`, which adds proofs as files, verification and stages. All generic prover code of the zkVM is
//! compiled in this crate: it takes minutes, so nothing that changes often belongs here.
//!
//! * [`store`]: artifacts on disk, deleted as they are consumed;
//! * [`queue`]: tasks, bounded, with retries and cancellation;
//! * [`memo`]: finished tasks of interrupted proofs;
//! * [`part`]: proving tasks as files, for provers in other processes;
//! * [`keys`]: proving keys on a memory budget;
//! * [`node`]: the zkVM's worker running the queue's tasks;
//! * [`settings`]: all of the above chosen from cores and memory.
//!
//! Invariants: nothing here grows with the length of an execution; a task ends exactly once; an artifact's content is
//! checked on every read.

mod components;
#[cfg(feature = "cuda")]
mod cuda;
pub mod device;
pub mod error;
pub mod keys;
pub mod memo;
pub mod node;
pub mod part;
pub mod queue;
pub mod settings;
pub mod store;
