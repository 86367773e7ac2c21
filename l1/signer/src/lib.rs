//! MuSig2 signers of the contract's graph: n of n, separate processes, authenticated channels.
//!
//! Layer: above `assay-l1`, whose [`graph::contract`](assay_l1::graph::contract) says what is signed; below the command line. A signer
//! rebuilds the whole graph from a proposal and its own policy, signs each epoch's graph once and deletes the key behind it.
//! The operator's side collects the signatures and is trusted with nothing.
//!
//! ```text
//! collector                          each signer
//!  Key ──────────────────────────▶   makes the epoch's key          ──▶ statement: its public key
//!  Propose(proposal) ────────────▶   rebuilds, compares, locks the epoch to this graph (on disk)
//!  Open ─────────────────────────▶   fresh nonces                   ──▶ statement: their hashes
//!  Commits(all statements) ──────▶   the session is the hash of all
//!  Reveal(chunk) ────────────────▶                                  ──▶ statement: nonces
//!  Sign(chunk, all nonces) ──────▶   checks hashes, spends its own  ──▶ statement: partial signatures
//!  Final(all signatures) ────────▶   verifies all, stores them, deletes the key of the epoch before
//! ```
//!
//! Invariants:
//! * secret nonces never leave memory, and a session's hash fixes every public nonce before the first is shown, so that a
//!   nonce can sign one message under one set of nonces only; after a kill a signer begins again with fresh ones;
//! * an epoch is locked to the first graph that passed the review, before anything about it leaves the process;
//! * whoever holds signatures holds all of them, each verified; only then is a key deleted: that of the epoch before, whose
//!   last signature is this epoch's opening.
//!
//! Non-goals: confidentiality (everything on the wire becomes public), key path spends (the contract has none), money.
//!
//! Reading order: [`review`], [`machine`], [`collector`], [`channel`], [`cli`]. `README.md` has the protocol, the threat model and
//! the file formats.

pub mod channel;
pub mod cli;
pub mod collect;
pub mod collector;
pub mod handover;
pub mod identity;
pub mod limits;
pub mod machine;
pub mod musig;
pub mod peers;
pub mod picture;
pub mod policy;
pub mod review;
pub mod serve;
pub mod signatures;
pub mod statement;
pub mod store;
pub mod wire;
