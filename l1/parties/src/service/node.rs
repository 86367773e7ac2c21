//! Handing transactions to the node, and what its refusals mean.

use std::sync::Arc;

use assay_l1::{BackendError, BitcoinBackend};
use bitcoin::{Address, Amount, FeeRate, Script, Transaction};

use super::error::ServiceError;
use crate::event::Reject;
use crate::fees::Market;
use crate::types::Height;

/// Blocks aimed at when asking for a fee rate.
const FEE_TARGET_BLOCKS: u16 = 3;
/// The least step by which a fee is raised after a refusal.
const STEP_MIN: Amount = Amount::from_sat(500);

/// Refuses a node that does not have the blocks in which claims' data is.
pub(super) fn check_unpruned(backend: &dyn BitcoinBackend) -> Result<(), ServiceError> {
    if backend.is_pruned()? {
        let detail =
            "the node prunes old blocks, in which data of claims may be: run it with prune=0".to_owned();
        return Err(ServiceError::Argument { name: "--bitcoind", detail });
    }
    Ok(())
}

/// What fees cost. A node that has seen too little to estimate counts as one that wants twice its minimum.
pub(super) fn market(backend: &dyn BitcoinBackend, at: u32) -> Result<Market, BackendError> {
    let estimate = backend.fee_estimate(FEE_TARGET_BLOCKS)?;
    let double = FeeRate::from_sat_per_kwu(estimate.floor.to_sat_per_kwu().saturating_mul(2));
    let rate = estimate.rate.unwrap_or(double).max(estimate.floor);
    Ok(Market { estimate: rate, minimum: estimate.floor, at: Height(at) })
}

/// A script as people pay to it.
pub(super) fn address(backend: &dyn BitcoinBackend, script: &Script) -> String {
    Address::from_script(script, backend.network())
        .map_or_else(|_| script.to_hex_string(), |it| it.to_string())
}

/// Offers a package, parent first; why it is not taken. `fee`: what its last transaction pays.
pub(super) fn broadcast(
    backend: &dyn BitcoinBackend,
    package: &[Arc<Transaction>],
    fee: Amount,
) -> Result<Option<Reject>, BackendError> {
    let txs: Vec<Transaction> = package.iter().map(|tx| tx.as_ref().clone()).collect();
    let sent = match txs.as_slice() {
        [] => return Ok(None),
        [tx] => backend.broadcast(tx),
        _ => backend.broadcast_package(&txs),
    };
    match sent {
        Ok(()) => Ok(None),
        Err(BackendError::Rejected { reason, .. }) => Ok(Some(meaning(&[reason], fee))),
        Err(BackendError::PackageRejected { reason, transactions }) => {
            let mut reasons: Vec<String> = transactions.into_iter().map(|(_, reason)| reason).collect();
            if reasons.is_empty() {
                reasons.push(reason);
            }
            Ok(Some(meaning(&reasons, fee)))
        }
        Err(error) => Err(error),
    }
}

/// What Core's reasons mean, those of a parent first. A fee that was too low is raised by a quarter.
fn meaning(reasons: &[String], fee: Amount) -> Reject {
    let says = |parts: &[&str]| {
        reasons.iter().any(|reason| {
            let reason = reason.to_ascii_lowercase();
            parts.iter().any(|part| reason.contains(part))
        })
    };
    let at_least = fee.checked_add((fee / 4).max(STEP_MIN)).unwrap_or(Amount::MAX_MONEY);
    if says(&["insufficient fee", "sibling", "mempool-conflict", "replacement"]) {
        return Reject::Conflict { at_least };
    }
    // A parent that pays nothing is below every minimum; what its child says counts with it.
    let parents = ["missingorspent", "missing-inputs"];
    let first = reasons.first().map(|reason| reason.to_ascii_lowercase()).unwrap_or_default();
    if parents.iter().any(|part| first.contains(part)) {
        return Reject::Inputs;
    }
    if says(&["fee not met", "fee-too-low", "mempool full"]) {
        return Reject::Fee { at_least };
    }
    Reject::Other(reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_core_are_understood() {
        let fee = Amount::from_sat(10_000);
        let at_least = Amount::from_sat(12_500);
        let meaning_of = |reasons: &[&str]| {
            meaning(&reasons.iter().map(|reason| (*reason).to_owned()).collect::<Vec<_>>(), fee)
        };
        let missing = "bad-txns-inputs-missingorspent";
        assert_eq!(meaning_of(&[missing]), Reject::Inputs);
        assert_eq!(meaning_of(&["min relay fee not met, 0 < 153", missing]), Reject::Fee { at_least });
        assert_eq!(
            meaning_of(&[
                "insufficient fee, rejecting replacement ab; new feerate 0.00001 <= old feerate 0.00002"
            ]),
            Reject::Conflict { at_least }
        );
        let early = "non-BIP68-final";
        assert_eq!(meaning_of(&[early, missing]), Reject::Other(format!("{early}; {missing}")));
        assert_eq!(
            meaning(&["mempool min fee not met".to_owned()], Amount::ZERO),
            Reject::Fee { at_least: STEP_MIN }
        );
    }
}
