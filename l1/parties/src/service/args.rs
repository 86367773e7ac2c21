//! What all services are told.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use assay_l1::sync::command::NodeArgs;
use assay_l1::{KeyRole, OperatorSecret};
use assay_l1_signer::peers::Peers;
use assay_l1_signer::policy::Policy;
use bitcoin::{Amount, FeeRate};
use clap::Args;

use super::epochs::EpochDir;
use super::error::ServiceError;
use crate::fees::FeePolicy;
use crate::party::Keys;

/// Which trunk, and where it is seen.
#[derive(Debug, Clone, Args)]
pub struct TrunkArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub node: NodeArgs,
    /// Directory of the epochs: 0000.proposal and 0000.signatures, and so on, in the order in which they were made
    #[arg(long, value_name = "DIR")]
    pub epochs: PathBuf,
    /// Policy file; more than one where another operator has taken over
    #[arg(long, value_name = "FILE", required = true)]
    pub policy: Vec<PathBuf>,
    /// Peers file: the attesters' identities
    #[arg(long, value_name = "FILE")]
    pub peers: PathBuf,
    /// First block to look into: at most the one in which the first epoch opens, a wallet got its coins, or the first
    /// batch's data was published
    #[arg(long, default_value_t = 1, value_name = "HEIGHT")]
    pub start_height: u32,
    /// Confirmations after which a block counts as final. Another one at a later start counts from then on; a higher one only as far as
    /// the state remembers
    #[arg(long, default_value_t = 6, value_name = "BLOCKS", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub finality: u32,
    /// Between two looks at the node
    #[arg(long, default_value_t = 2_000, value_name = "MILLISECONDS")]
    pub poll_ms: u64,
}

impl TrunkArgs {
    pub(super) fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }

    /// The epochs on disk, and what is agreed on.
    pub(super) fn epoch_dir(&self) -> Result<EpochDir, ServiceError> {
        let policies = self.policy.iter().map(|path| Policy::load(path)).collect::<Result<_, _>>()?;
        let signers: BTreeSet<_> = Peers::load(&self.peers)?.ids().collect();
        Ok(EpochDir::new(self.epochs.clone(), policies, signers))
    }
}

/// What all services are told.
#[derive(Debug, Clone, Args)]
pub struct PartyArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub trunk: TrunkArgs,
    /// Directory of the service's state
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Secret file of this party: its keys come from it. A vigilante's is made if there is neither one nor a state
    #[arg(long, value_name = "FILE")]
    pub secret: PathBuf,
    /// All that may be spent on fees and deposits, over the life of the state. Another one at a later start counts from then on; what
    /// was spent before is part of it
    #[arg(long, default_value_t = 5_000_000, value_name = "SATOSHI")]
    pub budget_sat: u64,
    /// Highest fee rate, from this start on
    #[arg(long, default_value_t = 500, value_name = "SATOSHI_PER_VB", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub fee_rate_max: u64,
}

impl PartyArgs {
    /// Rates and patience as in the simulator; money as told.
    pub(super) fn fee_policy(&self) -> FeePolicy {
        FeePolicy {
            budget: Amount::from_sat(self.budget_sat),
            ceiling: FeeRate::from_sat_per_kwu(self.fee_rate_max.saturating_mul(250)),
            ..FeePolicy::REGTEST
        }
    }
}

/// A party's keys on a trunk.
pub(super) fn keys(secret: &OperatorSecret, trunk_id: &[u8; 32]) -> Keys {
    Keys {
        operator: secret.keypair(trunk_id, KeyRole::Operator),
        wallet: secret.keypair(trunk_id, KeyRole::Wallet),
    }
}
