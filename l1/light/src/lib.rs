//! A Bitcoin light client: header chains, proofs of transactions and of witness data, and the rollup's messages.
//!
//! Layer: below `assay-l1`, and inside the guest program: `no_std` with `alloc`, no clock, no randomness, no files. The
//! host and the guest run this same code, so what one finalises the other does too. Nothing here trusts its input:
//! every decoder is bounded and refuses what its encoder would not have written.
//!
//! * [`header`], [`pow`], [`params`]: 80-byte headers, targets and work, the difficulty rules of each network;
//! * [`chain`]: the heaviest header chain with reorganisations and finality ([`chain::LightClient`]);
//! * [`transaction`], [`merkle`], [`proof`]: transactions, Merkle trees, and proofs that a transaction with its witness
//!   is in a block;
//! * [`envelope`], [`message`]: forced transactions and deposits in taproot witnesses, and the rule that hands them to the
//!   L2 in order.
//!
//! What is **not** checked: scripts, signatures and values (the miners' work stands for them); that a header's time is not
//! in the future, unless the caller gives a clock ([`chain::LightClient::accept`]); a signet's block signatures.
//!
//! Invariants: a client's state depends on the accepted headers and their order only; work never decreases; of two
//! branches with the same work the one accepted first stays.
//!
//! Reading order: [`chain`], [`proof`], [`message`].
#![no_std]

extern crate alloc;

mod bytes;
pub mod chain;
pub mod envelope;
mod hash;
pub mod header;
pub mod merkle;
pub mod message;
pub mod params;
pub mod pow;
pub mod proof;
pub mod transaction;

pub use hash::{double_sha256, Hash};
