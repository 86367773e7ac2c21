//! A seeded simulator: the machines on a chain with a mempool, under attack.
//!
//! The transactions are the graph's own, with all their signatures; fees, package rules and replacements are checked as Core
//! does. The world reorganises, raises fees, censors and kills; one [`Attack`] per run says what the operator, or somebody
//! else, does wrong. In the end everything must be settled, and whoever was honest must have its money ([`Failure`]).
//!
//! [`Weakness`] lists remedies that can be taken away from the machines, to show that their absence is noticed.
//!
//! Reading order: [`Options`], [`run`], then `fixture` (contract, keys, coins), `chain`, `mempool`, `world`, `checks`.

mod chain;
mod checks;
pub(crate) mod fixture;
mod mempool;
mod options;
mod shell;
mod world;

pub use chain::{Chain, MinedBlock};
pub use fixture::{EqualEnds, Faucet, Fixture, LOCKS};
pub use options::{Attack, Options, Weakness};
pub use world::{run, Failure, Summary, World};
