//! Names of things.

use assay_l1::graph::contract::build::TxRole;
use serde::{Deserialize, Serialize};

/// Height of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Height(pub u32);

impl Height {
    /// The height `blocks` later.
    #[must_use]
    pub fn plus(self, blocks: u32) -> Self {
        Self(self.0.saturating_add(blocks))
    }

    /// Blocks since `earlier`; 0 if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::fmt::Display for Height {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Place of an epoch in a [`Contract`](crate::Contract). Not its number: an announced epoch and the one of an operator who took over
/// instead have the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EpochIndex(pub u32);

/// By its files: the number is the contract's to tell.
impl std::fmt::Display for EpochIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "epoch file {:04}", self.0)
    }
}

/// How people are told of an epoch: by its number, and by its files, because two may have one number.
#[must_use]
pub fn epoch_name(number: u32, place: EpochIndex) -> String {
    format!("epoch {number} (file {:04})", place.0)
}

/// A transaction of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContractTx {
    /// Its epoch.
    pub epoch: EpochIndex,
    /// What it is there.
    pub role: TxRole,
}

impl ContractTx {
    /// How people are told of it. `epoch`: how they are of its epoch.
    #[must_use]
    pub fn text(&self, epoch: &str) -> String {
        format!("{} of {epoch}", self.role)
    }
}

impl std::fmt::Display for ContractTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text(&self.epoch.to_string()))
    }
}

/// A claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClaimId {
    /// Its epoch.
    pub epoch: EpochIndex,
    /// Its number there.
    pub claim: u32,
}

impl ClaimId {
    /// One of its transactions.
    #[must_use]
    pub fn tx(self, role: impl FnOnce(u32) -> TxRole) -> ContractTx {
        ContractTx { epoch: self.epoch, role: role(self.claim) }
    }

    /// How people are told of it. `epoch`: how they are of its epoch.
    #[must_use]
    pub fn text(&self, epoch: &str) -> String {
        format!("claim {} of {epoch}", self.claim)
    }
}

impl std::fmt::Display for ClaimId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text(&self.epoch.to_string()))
    }
}

/// The five values of a claim, in the order of [`ClaimValue::ALL`](assay_l1::graph::terms::ClaimValue::ALL).
pub type Values = [[u8; 32]; 5];

/// Place of the previous root in [`Values`].
pub const PREV_ROOT: usize = 0;
/// Place of the new root.
pub const NEW_ROOT: usize = 1;
/// Place of the batch's hash.
pub const BATCH_HASH: usize = 2;
/// Place of the code root.
pub const CODE_ROOT: usize = 3;
/// Place of the digest.
pub const DIGEST: usize = 4;
