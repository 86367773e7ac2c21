//! The whole contract of an epoch as a graph of transactions that the attesters sign before it opens.
//!
//! ```text
//! Reconfiguration ─ connector 0 ─▶ Claim 0 ─ connector 1 ─▶ Claim 1 ─ … ─ connector K ─▶ Reconfiguration of the next epoch
//!    │                    └──────────── any connector left too long ──▶ ClaimTimeout
//!    └ collateral ─▶ PayOut, or the first input of a slash
//!
//! Claim ┬ challenge connector ┬──────────────▶ OptimisticAcceptance (after the challenge period, with the game connector)
//!       │                     └──────────────▶ Challenge (anyone, with a deposit for the operator)
//!       └ game connector ┬───────────────────▶ Assert ─ slots ─▶ AssertSlot ─ done ─▶ Acceptance (after the disprove period)
//!                        ├ DisproveInput      │   │ └▶ AssertTimeout of a slot         ▲
//!                        └ AssertTimeout      │   └─── dispute connector ─────────────┘
//!                                             │             └▶ Disprove
//! ```
//! Ids are known in advance: no transaction that another one spends from takes inputs from outside, except the one coin that
//! [`spec::ContractSpec::funding`] names. So all of them can be signed before the first is sent. They have version 3, pay no fee
//! and end in a pay-to-anchor output of value zero: whoever wants one mined brings the fee with a child. The exceptions are
//! Challenge (its sender adds inputs) and the slashes (they pay from the collateral), both of version 2.
//!
//! A slash has two inputs: the collateral, signed with SINGLE for output 0 (the sink's part), and the connector that proves
//! the fault, signed with NONE. Both signatures commit to both inputs, so neither serves without the other; the outputs after
//! the first are free for whoever sends it. Every connector wants the attesters' signature: the operator cannot
//! spend one aside to save its collateral, although it can satisfy any check of its own one-time signatures.
//!
//! Claim 0 of a trunk starts at a constant; every other claim, across epochs too, is linked to the new root that the claim before
//! it signs ([`build::Start`]), by a one-time key that is known long before that root. A ClaimTimeout leaves an output that
//! the recovery key hands to another operator ([`build::Graph::halted`]).
//!
//! [`spec`] is what an epoch is about, [`keys`] its one-time keys, [`scripts`] the leaves, [`build`] the graph, [`sign`] what is
//! signed and how witnesses are put together, [`dot`] the picture, [`review`] what a signer does before it signs.
//!
//! Assumptions: one attester deletes its key after signing; somebody honest watches and gets a transaction mined within
//! each period.

pub mod build;
pub mod dot;
pub mod keys;
pub mod review;
pub mod scripts;
pub mod sign;
pub mod spec;
