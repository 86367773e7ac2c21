//! The contract's transactions as pure functions of their parameters.
//!
//! ```text
//! Reconfiguration ──connector 0──▶ Claim 0 ──connector 1──▶ Claim 1 ── … ──▶ Reconfiguration of the next epoch
//!        ├─ collateral (operator after a time lock)
//!        └─ OP_RETURN: hash of the epoch's terms
//! ```
//! [`terms`] is what an epoch is about; [`connector`] the outputs and their scripts; [`transactions`] the transactions.
//! No randomness, clock or chain access here: two parties that agree on the terms and the keys get the same bytes.
//!
//! That is what the trunk sends today. [`contract`] is the whole contract with its disputes, made of the same connectors.

pub mod connector;
pub mod contract;
pub mod terms;
pub mod transactions;
