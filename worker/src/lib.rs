//! Turns tasks into proofs: the zkVM engine, wrap, Groth16.
//!
//! Layer: above `assay-worker-zkvm` (the provers), `assay-worker-circuit` (the wrap circuit), `assay-kernels` (Groth16) and
//! `assay-lvm` (guests); below the coordinator. Decides nothing about batches, knows no Bitcoin.
//!
//! Invariants: every proof is verified before it is returned; memory stays under the configured limit whatever the batch's
//! size; an interrupted proof is continued, never begun again.
//!
//! Reading order: [`engine`] (execute, prove, wrap), [`proof`] (the files), [`verify`], [`groth16`], [`stages`] (the jobs
//! of a child process), [`cluster`] (the same as tasks of a cluster), [`jobs`] (what a cluster's worker makes of them), [`system`]
//! (the seam to front ends).

pub mod child;
pub mod cluster;
pub mod digest;
pub mod engine;
pub mod files;
pub mod groth16;
pub mod jobs;
pub mod phases;
pub mod progress;
pub mod proof;
pub mod stages;
pub mod system;
pub mod tiny;
pub mod verify;

pub use assay_worker_zkvm::{device, error, keys, memo, node, part, queue, settings, store};
