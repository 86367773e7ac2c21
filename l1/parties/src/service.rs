//! The machines as processes: a node, files, keys and a clock around them. Blocking; one thread for each service.
//!
//! ```text
//!            ┌────────── epochs (files of the collector), batches (files of the prover) ──────────┐
//!  node ─▶ Follower ─▶ events ─▶ machine ─▶ state on disk ─▶ effects ─▶ node, one-time keys, data, verdicts
//! ```
//! * What the machine knows is on disk before anything that follows from it is done: temporary file, synchronised, renamed.
//!   A process that was killed goes on from there: it steps `Restarted`, after which everything outstanding is done again.
//! * A node that does not answer is asked again; whatever was under way is repeated.
//! * While old blocks are read nothing is sent: what still matters at the tip is sent there.
//! * SIGTERM and SIGINT end a service between two steps.
//!
//! Entry points: [`operator::run`], [`vigilante::run`], [`backup::run`], each with its `clap` arguments; each pass by pass:
//! [`operator::OperatorService`], [`vigilante::VigilanteService`], [`backup::BackupService`]. What only the rollup can do, executing batches and verifying proofs, is a [`Judge`] of the caller.
//! [`watch::run`] and [`sync::run`] only read: how a trunk stands, and the state that its claims lead to.
//!
//! Non-goals: making epochs (the signers' crate), proving, mining.

pub mod args;
pub mod backup;
pub mod batches;
mod claim_data;
mod epochs;
mod error;
mod file;
mod follow;
pub mod fund;
mod judge;
mod node;
mod offers;
pub mod operator;
mod publish;
pub mod queue;
mod reading;
mod runner;
mod stop;
pub mod sync;
pub mod vigilante;
pub mod watch;

pub use epochs::EpochError;
pub use error::ServiceError;
pub use judge::{Execution, Judge};
pub use stop::Stop;
