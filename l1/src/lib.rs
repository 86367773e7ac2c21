//! Settlement on Bitcoin.
mod backend;
mod consensus;
mod enforcement;
pub mod envelope;
mod error;
pub mod graph;
mod keys;
pub mod script;
mod store;
mod trunk;
mod wallet;
pub mod wots;

pub use backend::*;
pub use bitcoin::Network;
pub use consensus::{verify_transaction, ConsensusError};
pub use enforcement::enforcement_summary;
pub use error::Class;
pub use graph::terms::{EpochParams, TimeLocks};
pub use keys::{KeyError, KeyRole, OperatorSecret};
pub use store::StoreError;
pub use trunk::{ClaimInput, ClaimReceipt, EpochReceipt, Trunk, TrunkConfig, TrunkError, TxReceipt};
pub use wallet::{Wallet, WalletError};
