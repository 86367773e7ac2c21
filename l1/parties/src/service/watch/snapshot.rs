//! How a trunk stands at a tip: worked out from the view, nothing remembered.

use assay_l1::graph::contract::build::TxRole;
use bitcoin::Amount;
use serde::Serialize;

use crate::contract::{Contract, Epoch};
use crate::types::{epoch_name, ClaimId, ContractTx, EpochIndex, Height};
use crate::view::{slashed_claim, Readiness, Standing, View};

/// A claim is late when less than this part of the time to make it is left.
const LATE_PART: u32 = 4;

/// How a trunk stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Height of the last block.
    pub tip: u32,
    /// The epochs in the order of their files.
    pub epochs: Vec<EpochState>,
    /// The wallets that were asked for.
    pub wallets: Vec<WalletState>,
    /// What people should look at.
    pub alarms: Vec<String>,
}

/// How an epoch stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EpochState {
    /// Its place among the files.
    pub place: u32,
    /// Its number.
    pub epoch: u32,
    /// Height at which it was opened.
    pub opened: Option<u32>,
    /// The collateral behind its claims, satoshi.
    pub collateral_sat: u64,
    /// Claim for which the collateral was slashed, and the height.
    pub slashed: Option<(u32, u32)>,
    /// Claim before which a timeout ended it, and the height.
    pub halted: Option<(u32, u32)>,
    /// Height at which the collateral went back.
    pub paid_out: Option<u32>,
    /// What can happen to it next.
    pub next: Vec<Wait>,
    /// All its claims, made or not.
    pub claims: Vec<ClaimState>,
}

/// How a claim stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimState {
    /// Its number in the epoch.
    pub claim: u32,
    /// What has become of it.
    pub stage: Stage,
    /// Height at which that happened.
    pub height: Option<u32>,
    /// What can happen next.
    pub next: Vec<Wait>,
}

/// What has become of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It was not made.
    Unmade,
    /// It was made, and nobody has challenged it.
    Claimed,
    /// It was challenged, and the operator has not answered.
    Challenged,
    /// The operator's answer is under way: values in blocks, of all.
    Asserting {
        /// Slots that are filled.
        filled: u32,
        /// Slots.
        of: u32,
    },
    /// The operator has answered.
    Asserted,
    /// It was accepted.
    Accepted,
    /// The collateral was slashed for it.
    Slashed,
    /// It does not count: the collateral behind it is gone.
    Void,
}

/// Something that can happen, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// What.
    pub what: &'static str,
    /// Blocks that have to pass before it can go into the next one.
    pub blocks: u32,
}

/// A wallet's coins in blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WalletState {
    /// Its name.
    pub name: String,
    /// Number of its coins.
    pub coins: usize,
    /// Their sum, satoshi.
    pub sat: u64,
}

impl EpochState {
    /// How people are told of it.
    #[must_use]
    pub fn name(&self) -> String {
        epoch_name(self.epoch, EpochIndex(self.place))
    }
}

impl Snapshot {
    /// From what a view has seen, and views of wallets.
    pub(in crate::service) fn new<'a>(
        contract: &Contract,
        view: &View,
        wallets: impl Iterator<Item = (&'a str, &'a View)>,
    ) -> Self {
        let at = At { contract, view };
        let wallets: Vec<_> = wallets.map(|(name, view)| wallet(name, view)).collect();
        let epochs: Vec<_> = contract.epochs().map(|(index, epoch)| at.epoch(index, epoch)).collect();
        let mut alarms: Vec<String> =
            contract.epochs().flat_map(|(index, epoch)| at.alarms(index, epoch)).collect();
        alarms.extend(epochs.last().and_then(no_more_claims));
        let poor = wallets.iter().filter(|wallet| wallet.coins == 0);
        alarms.extend(poor.map(|wallet| format!("wallet {} has no coins", wallet.name)));
        Self { tip: view.tip().0, epochs, wallets, alarms }
    }
}

fn wallet(name: &str, view: &View) -> WalletState {
    let sum = view.coins().map(|(_, value)| value).sum::<Amount>();
    WalletState { name: name.to_owned(), coins: view.coins().count(), sat: sum.to_sat() }
}

/// Every claim of the last epoch was made: who does not have the next one signed stops the trunk.
fn no_more_claims(last: &EpochState) -> Option<String> {
    let is_over = last.halted.is_none() && last.claims.iter().all(|claim| claim.stage != Stage::Unmade);
    is_over.then(|| format!("{} has no more claims, and no epoch after it is signed", last.name()))
}

/// The contract and what was seen of it.
#[derive(Clone, Copy)]
struct At<'a> {
    contract: &'a Contract,
    view: &'a View,
}

impl At<'_> {
    fn confirmed(self, epoch: EpochIndex, role: TxRole) -> Option<u32> {
        Some(self.view.confirmed(ContractTx { epoch, role })?.height.0)
    }

    fn wait(self, epoch: EpochIndex, role: TxRole, what: &'static str) -> Option<Wait> {
        match self.view.readiness(self.contract, ContractTx { epoch, role }) {
            Readiness::Ready => Some(Wait { what, blocks: 0 }),
            Readiness::Until(height) => Some(Wait { what, blocks: height.since(self.view.tip().plus(1)) }),
            Readiness::Missing | Readiness::Spent => None,
        }
    }

    fn epoch(self, index: EpochIndex, epoch: &Epoch) -> EpochState {
        let terms = &epoch.spec().terms;
        let opened = self.confirmed(index, TxRole::Reconfiguration);
        let next = match opened {
            None => self.wait(index, TxRole::Reconfiguration, "opening"),
            Some(_) => self.wait(index, TxRole::PayOut, "collateral back"),
        };
        let slash = self.view.slash(index);
        let slashed = slash.and_then(|(role, height)| Some((slashed_claim(role)?, height.0)));
        let halted = self.view.halt(self.contract, index).map(|(claim, height)| (claim, height.0));
        let claims =
            (0..terms.claims_max).map(|claim| self.claim(ClaimId { epoch: index, claim }, epoch)).collect();
        EpochState {
            place: index.0,
            epoch: terms.epoch,
            opened,
            collateral_sat: terms.collateral.to_sat(),
            slashed,
            halted,
            paid_out: self.confirmed(index, TxRole::PayOut),
            next: next.into_iter().collect(),
            claims,
        }
    }

    fn claim(self, id: ClaimId, epoch: &Epoch) -> ClaimState {
        let ClaimId { epoch: index, claim } = id;
        let confirmed = |role| self.confirmed(index, role);
        let at = |height: Height| Some(height.0);
        let (stage, height) = match self.view.standing(id) {
            Standing::Unmade => (Stage::Unmade, None),
            Standing::Accepted(height) => (Stage::Accepted, at(height)),
            Standing::Void(height) => {
                let slashed = self.view.slash(index).and_then(|(role, _)| slashed_claim(role));
                (if slashed == Some(claim) { Stage::Slashed } else { Stage::Void }, at(height))
            }
            Standing::Open => self.open(id, epoch),
        };
        let wait = |role, what| self.wait(index, role, what);
        let next: Vec<Option<Wait>> = match stage {
            Stage::Unmade => vec![
                wait(TxRole::Claim(claim), "claim"),
                wait(TxRole::ClaimTimeout(claim), "end of the trunk by timeout"),
            ],
            Stage::Claimed => vec![wait(TxRole::OptimisticAcceptance(claim), "acceptance")],
            Stage::Challenged => vec![wait(TxRole::AssertTimeout(claim), "slash, if there is no answer")],
            Stage::Asserting { .. } => {
                let open = slots(epoch).filter(|slot| confirmed(TxRole::AssertSlot(claim, *slot)).is_none());
                let waits = open.filter_map(|slot| {
                    wait(TxRole::SlotTimeout(claim, slot), "slash, if values are missing")
                });
                vec![waits.min_by_key(|wait| wait.blocks)]
            }
            Stage::Asserted => vec![wait(TxRole::Acceptance(claim), "acceptance")],
            Stage::Accepted | Stage::Slashed | Stage::Void => Vec::new(),
        };
        ClaimState { claim, stage, height, next: next.into_iter().flatten().collect() }
    }

    /// A claim about which nothing is decided.
    fn open(self, id: ClaimId, epoch: &Epoch) -> (Stage, Option<u32>) {
        let ClaimId { epoch: index, claim } = id;
        let confirmed = |role| self.confirmed(index, role);
        if let Some(opened) = confirmed(TxRole::Assert(claim)) {
            let filled: Vec<u32> =
                slots(epoch).filter_map(|slot| confirmed(TxRole::AssertSlot(claim, slot))).collect();
            let of = slots(epoch).count();
            if filled.len() == of {
                return (Stage::Asserted, filled.into_iter().max());
            }
            return (Stage::Asserting { filled: filled.len() as u32, of: of as u32 }, Some(opened));
        }
        match confirmed(TxRole::Challenge(claim)) {
            Some(height) => (Stage::Challenged, Some(height)),
            None => (Stage::Claimed, confirmed(TxRole::Claim(claim))),
        }
    }

    fn alarms(self, index: EpochIndex, epoch: &Epoch) -> Vec<String> {
        let state = self.epoch(index, epoch);
        let name = state.name();
        let mut alarms = Vec::new();
        if let Some((claim, height)) = state.slashed {
            alarms
                .push(format!("the collateral of {name} was slashed at height {height}, for claim {claim}"));
        }
        if let Some((claim, height)) = state.halted {
            alarms.push(format!("{name} was ended by a timeout at height {height}, before claim {claim}"));
        }
        for claim in &state.claims {
            let id = ClaimId { epoch: index, claim: claim.claim };
            let claim_name = id.text(&name);
            let faults = self.view.own_faults(self.contract, id).unwrap_or_default();
            alarms.extend(faults.iter().map(|fault| format!("{claim_name} {fault}")));
            if claim.stage == Stage::Challenged {
                alarms.push(format!("{claim_name} is challenged, and the operator has not answered"));
            }
            if claim.stage == Stage::Unmade && self.is_late(id, epoch) {
                alarms.push(format!("{claim_name} is late"));
            }
        }
        let end = ClaimId { epoch: index, claim: epoch.spec().terms.claims_max };
        if self.is_late(end, epoch) {
            alarms.push(format!("the epoch after {name} is late"));
        }
        alarms
    }

    /// True if little time is left to make a claim, or the next epoch in its place.
    fn is_late(self, id: ClaimId, epoch: &Epoch) -> bool {
        let limit = u32::from(epoch.spec().locks.claim_timeout_blocks) / LATE_PART;
        let timeout = self.wait(id.epoch, TxRole::ClaimTimeout(id.claim), "");
        timeout.is_some_and(|wait| wait.blocks <= limit)
    }
}

/// The slots of an assertion.
fn slots(epoch: &Epoch) -> impl Iterator<Item = u16> {
    (0..).zip(epoch.spec().layout.slots()).map(|(slot, _): (u16, _)| slot)
}
