//! Stateless EVM state transition: the code that runs both on the host and inside the zkVM guest.
//!
//! Layer: below everything else; knows no file, clock, thread or proof system. The guest programs are thin shells over
//! two functions, [`execute_run`] (program `block`) and [`fold::check`] (program `fold`); the host calls the same two.
//!
//! Invariants: nothing in a witness is taken on trust but what the public values say; no input makes this crate panic;
//! what is touched depends only on the blocks, so a host that records it ([`NodeStore`]) gives the guest what it needs.
//!
//! Cryptography is chosen by the binary: Keccak-256 through `alloy-primitives` (feature `native-keccak` in the guest),
//! precompiles through `revm::precompile::install_crypto`, sender recovery through alloy-consensus' provider.
//!
//! Reading order: [`RunInput`], [`execute_run`], [`execute_block`], [`StateDb`], [`Trie`]; then [`CodeControlGroup`]
//! and [`fold`].

#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod block;
mod code_control;
pub mod codec;
pub mod consensus;
mod database;
mod error;
pub mod fold;
mod input;
mod phase;
mod public_values;
mod spec;
mod state;
mod stf;
mod store;
mod trie;

pub use block::{Block, Transaction};
pub use code_control::{
    BlockProgram, CodeControlGroup, MerkleProof, VkHash, FIRST_BLOCK_LEAF, FOLD_LEAF, GENESIS_LEAF,
};
pub use database::{Account, StateDb};
pub use error::{Commitment, DecodeError, FoldError, HeaderError, StfError, TrieError, WitnessError};
pub use fold::{FoldCheck, FoldInput, History, RunClaim, Verification};
pub use input::{Ancestry, RunInput, ANCESTORS_MAX};
pub use phase::{Phase, PhaseSink};
pub use public_values::{BlockPublicValues, FoldPublicValues};
pub use spec::{ChainSpec, BLOCK_FORKS, NEVER, TIME_FORKS};
pub use state::ChainState;
pub use stf::{
    accumulate, execute_block, execute_run, seal_block, BlockAttributes, BlockOutcome, Parent, RunOutput,
    SealedBlock, BLOCK_SIZE_MAX,
};
pub use store::{NodeStore, WitnessStore};
pub use trie::{nibbles, node_hash, ordered_root, Entries, Nibbles, Trie, EMPTY_ROOT};
