//! The light client against real headers, against the `bitcoin` crate, and against damage.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "light/chain.rs"]
mod chain;
#[path = "light/fuzz.rs"]
mod fuzz;
#[path = "light/headers.rs"]
mod headers;
#[path = "light/messages.rs"]
mod messages;
#[path = "light/proofs.rs"]
mod proofs;
#[path = "light/support.rs"]
mod support;

#[global_allocator]
static MEMORY: assay_l1_fuzz::Memory = assay_l1_fuzz::Memory;
