//! Operator, vigilante and backup operator of the contract, as pure state machines.
//!
//! Layer: above `assay-l1`'s graph and the signers' files. The machines have no sockets, files, clock or randomness: one takes an
//! [`Event`] (a block, an answer) and returns [`Effect`]s (transactions to broadcast, questions, alarms). [`service`] runs them as
//! processes. The same events give the
//! same states and effects. Keys and the contract ([`Context`]) are given with each step and are no part of the state.
//!
//! # How a shell uses it
//! 1. Take the next event, call [`Machine::step`]; store the state (it is `serde`); then carry the effects out.
//! 2. After a restart: load the state, step [`Event::Restarted`]: everything that may have been lost comes again. Effects are
//!    idempotent: a package that is known is not sent twice, a one-time key signs the same value again.
//! 3. Blocks in order, disconnected ones from the top; [`Event::Rejected`] for what the node refuses.
//!
//! # How the machines think
//! What is wanted is worked out anew after every event from what the chain shows ([`View`]), so there is nothing to be
//! undone after a reorganisation. The [`Sender`] then makes it happen: see [`sender`].
//!
//! # Invariants
//! * No fee or deposit beyond the budget; fee inputs are confirmed and serve one transaction.
//! * The operator claims after its data is on the chain, and never two values under a one-time key.
//! * Whoever is honest is never slashed as long as its transactions are mined within each period.
//!
//! # Non-goals
//! Executing batches and verifying proofs: the caller's. Making epochs: the signers'.
//!
//! Reading order: [`contract`], [`View`], [`Event`], [`Effect`], [`Operator`], [`Vigilante`], [`sender`], [`service`]; `sim` runs them
//! under attack.

#[macro_use]
mod weak;

pub mod contract;
mod event;
pub mod evidence;
pub mod fees;
mod operator;
mod party;
pub mod sender;
pub mod service;
#[cfg(feature = "simulate")]
pub mod sim;
mod types;
mod view;
mod vigilante;

pub use contract::Contract;
pub use event::{Alarm, Block, Effect, Event, Fault, FeeTrouble, Reject};
pub use operator::{Operator, BATCHES_MAX};
pub use party::{Context, FinalityError, Keys, Machine, StepError};
pub use sender::Sender;
pub use types::{
    epoch_name, ClaimId, ContractTx, EpochIndex, Height, Values, BATCH_HASH, CODE_ROOT, DIGEST, NEW_ROOT,
    PREV_ROOT,
};
pub use view::{lineage, slashed_claim, Coin, Confirmed, Readiness, Standing, View};
pub use vigilante::Vigilante;

/// Tests of decoders measure what they allocate.
#[cfg(test)]
#[global_allocator]
static MEMORY: assay_l1_fuzz::Memory = assay_l1_fuzz::Memory;
