//! Layered virtual machine, host side: execution, witness recording, batches.
//!
//! Layer: above `assay-lvm-core`, whose state transition it runs; knows no queue, no proof system and no Bitcoin node.
//! `README.md` beside this crate says what the public values, the batch file and the genesis are, byte by byte.
//!
//! Reading order: [`Batch`] (a file of blocks and their witness), [`record()`] (where the witness comes from),
//! [`Chain`] (makes blocks from a genesis), [`sample`] (real batches to begin with), [`vm`] (the traits that keep
//! virtual machines and proof systems apart).
//!
//! ```no_run
//! use assay_lvm::{sample, RunLimits};
//! # fn main() -> Result<(), assay_lvm::BatchError> {
//! let batch = sample::batch(1)?;
//! let summary = batch.validate()?;
//! for run in batch.split_runs(RunLimits::default())? {
//!     println!("blocks {}..={}", run.output.public_values.first_block, run.output.public_values.last_block);
//! }
//! # let _ = summary; Ok(()) }
//! ```

pub mod batch;
mod chain;
mod error;
pub mod ethereum_tests;
pub mod genesis;
pub mod guests;
pub mod head;
mod json;
pub mod mainnet;
mod record;
pub mod sample;
mod state_db;
pub mod vm;

pub use assay_lvm_core as core;
pub use batch::{Batch, BatchSummary, BlockSummary, OwnedAncestry, Run, RunLimits};
pub use chain::Chain;
pub use error::{BatchError, ErrorClass};
pub use record::{record, BlockSource};
pub use state_db::{FullState, Made, RecordingStore, Touched};
