//! The committed guest programs, run in the zkVM's executor: what they compute, what they refuse, what it costs.
//!
//! `cargo test --release -p assay-worker --test guest_vectors -- --nocapture` prints cycles. Tests over data that is
//! not part of this repository (`../shared/data`) say so and pass where it is absent; each has a smaller one beside it
//! that carries its own input.

#[path = "guest_vectors/execute.rs"]
mod execute;
#[path = "guest_vectors/precompiles.rs"]
mod precompiles;
#[path = "guest_vectors/programs.rs"]
mod programs;
#[path = "guest_vectors/recovery.rs"]
mod recovery;
