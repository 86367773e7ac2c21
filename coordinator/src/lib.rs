//! Owns batches: pipeline, resume, verification, settlement, and the command line `assay`.
//!
//! Layer: above `assay-worker`, `assay-lvm` and `assay-l1`; it proves nothing itself.
//!
//! A batch's way is a pure state machine ([`pipeline`]); a [`shell`] carries its effects out: it finds finished stages in
//! the content-addressed [`cache`], runs the others in a [`child`] process, and checks what comes back. [`verify`] needs
//! nothing but a result folder.
//!
//! [`cluster`] is the coordinator process of many machines: `assay-service` decides and serves, this crate supplies what
//! reads batches, checks results and settles ([`proved`] and [`settle`] are common to both).
//!
//! Invariants:
//! * Input is validated wholly before anything is written.
//! * A result folder is written whole, and only after everything in it has been verified.
//! * State is stored before its effects are carried out, and every effect is idempotent: the process may be killed at
//!   any moment and started again.
//! * One process at a time works in a cache ([`lock`]).
//!
//! Reading order: [`cli`], [`input`], [`pipeline`], [`shell`], [`verify`], [`cluster`].

pub mod bench;
pub mod cache;
pub mod child;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod description;
pub mod error;
pub mod fsio;
pub mod history;
pub mod input;
pub mod job;
pub mod journal;
pub mod judge;
pub mod l1_batches;
pub mod lock;
pub mod machine;
pub mod pipeline;
pub mod progress;
pub mod proved;
pub mod replay;
pub mod report;
pub mod settle;
pub mod shell;
pub mod statement;
#[cfg(test)]
mod testing;
pub mod verify;
