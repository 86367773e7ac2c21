//! Settlement on Bitcoin: one claim per batch, each spending the one before.
//!
//! Layer: below the coordinator; knows no prover. [`Trunk`] drives claims through a `BitcoinBackend` (Bitcoin Core's consensus code
//! in process, or a bitcoind over RPC); what it signs and posts is recorded first, so a claim is made exactly once
//! however often the process dies.
//!
//! * [`wots`], [`script`]: one-time signatures and other checks in Bitcoin Script, with an interpreter held against Core's;
//! * [`graph`]: the transactions: what is posted today, and the contract's whole graph with the signer's review;
//! * [`envelope`]: batch data in taproot witnesses, and the scan that reads it back;
//! * [`messages`]: forced transactions and deposits in final blocks, in order;
//! * [`sync`]: all batches of a trunk from the chain alone, with every link checked.
//!
//! Non-goals: the contract's parties as processes (`assay-l1-parties`); so far, the on-chain Groth16 verifier. `README.md` says what
//! the chain enforces today ([`enforcement_summary`] says it to users).
//!
//! Reading order: [`graph`], [`Trunk`], [`envelope`].

mod backend;
mod consensus;
mod enforcement;
pub mod envelope;
mod error;
pub mod graph;
mod keys;
pub mod messages;
pub mod output;
pub mod script;
mod store;
pub mod sync;
mod trunk;
mod wallet;
mod window;
pub mod wots;

pub use backend::*;
pub use bitcoin::{Network, Txid};
pub use consensus::{verify_transaction, ConsensusError};
pub use enforcement::enforcement_summary;
pub use error::Class;
pub use graph::terms::{EpochParams, TimeLocks};
pub use keys::{KeyError, KeyRole, OperatorSecret};
pub use store::StoreError;
pub use trunk::{ClaimInput, ClaimReceipt, EpochReceipt, Trunk, TrunkConfig, TrunkError, TxReceipt};
pub use wallet::{Wallet, WalletError};

/// Tests of decoders measure what they allocate.
#[cfg(test)]
#[global_allocator]
static MEMORY: assay_l1_fuzz::Memory = assay_l1_fuzz::Memory;
