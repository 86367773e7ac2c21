//! What a signer does before it signs: it builds the graph itself and compares.
//!
//! A signer trusts nothing in a [`Proposal`] but what it can derive: from its own spec, which it got when the epoch before
//! announced it, and from one-time keys that the spec commits to, the graph is determined to the last bit. Whatever
//! differs is refused with its place, and nothing is signed; nor is a proposal with a transaction too few or too many.

use std::collections::BTreeMap;

use bitcoin::{Transaction, TxOut};

use super::build::{Graph, GraphError, Surroundings, TxRole};
use super::keys::EpochKeys;
use super::sign::{requests_of, SigningRequest};
use super::spec::ContractSpec;

/// A transaction as somebody else says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposedTx {
    /// The transaction, without witnesses.
    pub tx: Transaction,
    /// The outputs that it spends.
    pub spent: Vec<TxOut>,
    /// What the attesters are to sign.
    pub requests: Vec<SigningRequest>,
}

/// A graph as somebody else says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Id of the spec.
    pub spec_id: [u8; 32],
    /// Id that the Reconfiguration announces for the next epoch.
    pub announce: [u8; 32],
    /// The one-time keys.
    pub keys: EpochKeys,
    /// The transactions.
    pub transactions: BTreeMap<TxRole, ProposedTx>,
}

/// Why a signer refuses.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The signer's own spec and the proposed keys give no graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The proposal is about something else than the signer agreed to.
    #[error("the proposal's {field} is not the one agreed to")]
    Agreement {
        /// Name of the field.
        field: &'static str,
    },
    /// A transaction of the specification is not there.
    #[error("{role} is missing")]
    Missing {
        /// The transaction.
        role: TxRole,
    },
    /// A transaction that the specification does not have.
    #[error("{role} is not in the specification")]
    Surplus {
        /// The transaction.
        role: TxRole,
    },
    /// A field differs from the specification.
    #[error("{role}: {field} {index} is not as specified")]
    Differs {
        /// The transaction.
        role: TxRole,
        /// Name of the field.
        field: &'static str,
        /// Which of several: the input, output or request; else 0.
        index: usize,
    },
}

impl Graph {
    /// The graph as a proposal to the signers.
    #[must_use]
    pub fn proposal(&self, keys: &EpochKeys) -> Proposal {
        let transactions = self.nodes().iter().map(|(role, node)| {
            let requests = requests_of(*role, node);
            (*role, ProposedTx { tx: node.tx.clone(), spent: node.spent(), requests })
        });
        Proposal {
            spec_id: self.spec().id(),
            announce: self.announced(),
            keys: keys.clone(),
            transactions: transactions.collect(),
        }
    }
}

/// Compares `proposal` with the graph that `spec` and `around` determine, `around.keys` being the proposal's; returns the
/// signer's own graph. Only its [`requests`](Graph::requests) are to be signed, never the proposal's.
///
/// # Errors
/// The first difference.
pub fn review(spec: &ContractSpec, around: Surroundings<'_>, proposal: &Proposal) -> Result<Graph, Refusal> {
    let agreed =
        [("spec", proposal.spec_id == spec.id()), ("announcement", proposal.announce == around.announce)];
    if let Some((field, _)) = agreed.iter().find(|(_, holds)| !holds) {
        return Err(Refusal::Agreement { field });
    }
    let graph = Graph::build(spec, Surroundings { keys: &proposal.keys, ..around })?;
    compare(&graph, proposal)?;
    Ok(graph)
}

/// Compares all transactions of `proposal` with those of `graph`, the signer's own.
///
/// # Errors
/// The first difference.
pub fn compare(graph: &Graph, proposal: &Proposal) -> Result<(), Refusal> {
    if let Some(role) = proposal.transactions.keys().find(|role| graph.node(**role).is_none()) {
        return Err(Refusal::Surplus { role: *role });
    }
    for (role, node) in graph.nodes() {
        let proposed = proposal.transactions.get(role).ok_or(Refusal::Missing { role: *role })?;
        let own = ProposedTx { tx: node.tx.clone(), spent: node.spent(), requests: requests_of(*role, node) };
        if let Some((field, index)) = difference(&own, proposed) {
            return Err(Refusal::Differs { role: *role, field, index });
        }
    }
    Ok(())
}

/// Index of the first place where two lists differ, their common length if one is longer.
fn first<T: PartialEq>(own: &[T], other: &[T]) -> Option<usize> {
    if own == other {
        return None;
    }
    let common = own.len().min(other.len());
    Some((0..common).find(|index| own[*index] != other[*index]).unwrap_or(common))
}

fn difference(own: &ProposedTx, other: &ProposedTx) -> Option<(&'static str, usize)> {
    if own.tx.version != other.tx.version {
        return Some(("version", 0));
    }
    if own.tx.lock_time != other.tx.lock_time {
        return Some(("lock time", 0));
    }
    let parts = [
        ("input", first(&own.tx.input, &other.tx.input)),
        ("output", first(&own.tx.output, &other.tx.output)),
        ("spent output", first(&own.spent, &other.spent)),
        ("signing request", first(&own.requests, &other.requests)),
    ];
    parts.into_iter().find_map(|(field, index)| Some((field, index?)))
}
