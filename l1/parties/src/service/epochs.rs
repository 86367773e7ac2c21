//! Epochs from the files of the signers' collector: `0000.proposal` and `0000.signatures`, and so on.
//!
//! The number is the order in which a party learns of epochs, not the epoch's: one that somebody else goes on with after a
//! ClaimTimeout has the number of the announced one. Nothing in the files is believed: the graph is built again, the spec must be
//! that of a policy of this party, the attesters those that it knows, and every signature is checked.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use assay_l1::graph::contract::build::{
    funding_value, EndKind, EpochEnd, Graph, GraphError, Start, Surroundings,
};
use assay_l1::graph::contract::scripts::NoVerifier;
use assay_l1::graph::terms::ClaimValue;
use assay_l1::graph::transactions::wallet_script;
use assay_l1::StoreError;
use assay_l1_signer::identity::PartyId;
use assay_l1_signer::limits::PROPOSAL_BYTES_MAX;
use assay_l1_signer::policy::{Policy, VerifierSet};
use assay_l1_signer::review::{member_keys, Group, ReviewError};
use assay_l1_signer::signatures::SignatureSet;
use assay_l1_signer::store::file;
use assay_l1_signer::wire::proposal::{graph_id, GraphProposal};
use assay_l1_signer::wire::WireError;
use bitcoin::TxOut;

use crate::contract::{Contract, ContractError, Epoch, Origin, Verifier};
use crate::types::ClaimId;

/// Why an epoch is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EpochError {
    /// The files could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not there.
    #[error("it is not there")]
    Missing,
    /// The service's state was made with another graph in this place.
    #[error("the state was made with another graph")]
    Other,
    /// The proposal does not decode.
    #[error("no proposal: {0}")]
    Wire(#[from] WireError),
    /// The signatures are of another proposal.
    #[error("the signatures are of another proposal")]
    Signatures,
    /// No policy agrees.
    #[error("the spec's {field} is not what any policy says")]
    Policy {
        /// The field in which it differs from the first policy.
        field: &'static str,
    },
    /// The attesters are not those that this party knows.
    #[error("attesters: {0}")]
    Attesters(#[from] ReviewError),
    /// The aggregates are not the spec's.
    #[error("the spec's attesters are not the aggregates of their keys")]
    Aggregate,
    /// It does not follow an epoch before it.
    #[error("it follows no epoch that is known")]
    Previous,
    /// There is no such graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A signature is wrong, or the start.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// The policy names a set of verifier leaves that this program does not have.
    #[error("the policy's set of verifier leaves is not in this program")]
    Verifier,
}

/// Where epochs come from, and what is agreed on.
#[derive(Debug, Clone)]
pub(super) struct EpochDir {
    pub(super) dir: PathBuf,
    pub(super) policies: Vec<Policy>,
    pub(super) signers: BTreeSet<PartyId>,
}

impl EpochDir {
    /// The epoch in the next place of `contract`; `None` if its files are not both there yet.
    pub(super) fn load(&self, contract: &Contract) -> Result<Option<([u8; 32], Epoch)>, EpochError> {
        let index = contract.epochs().count();
        let path = |kind: &str| self.dir.join(format!("{index:04}.{kind}"));
        // The smaller file first: this is asked for again and again.
        let Some(set) = SignatureSet::load(&path("signatures"))? else { return Ok(None) };
        let Some(bytes) = file::read(&path("proposal"), PROPOSAL_BYTES_MAX as u64)? else { return Ok(None) };
        let id = graph_id(&bytes);
        if set.graph != id {
            return Err(EpochError::Signatures);
        }
        let proposal = GraphProposal::decode(&bytes)?;
        Ok(Some((id, self.check(proposal, &set, contract)?)))
    }

    fn check(
        &self,
        proposal: GraphProposal,
        set: &SignatureSet,
        contract: &Contract,
    ) -> Result<Epoch, EpochError> {
        let spec = &proposal.spec;
        let agreed = self.policies.iter().find(|policy| policy.difference(spec).is_none());
        let Some(policy) = agreed else {
            let field = self.policies.first().and_then(|policy| policy.difference(spec));
            return Err(EpochError::Policy { field: field.unwrap_or("policy: there is none") });
        };
        let members = member_keys(&proposal.attesters, &self.signers, (&policy.trunk_id, spec.terms.epoch))?;
        let aggregate = |keys| Ok::<_, ReviewError>(Group::new(keys)?.attesters.key());
        if aggregate(members.epoch)? != spec.attesters || aggregate(members.recovery)? != spec.recovery {
            return Err(EpochError::Aggregate);
        }
        let previous = proposal.previous.as_ref();
        if previous.is_some_and(|end| !is_known_end(contract, end)) {
            return Err(EpochError::Previous);
        }
        let value = funding_value(spec, previous);
        let coin = TxOut { value, script_pubkey: wallet_script(spec.terms.operator_key) };
        let verifier = verifier(policy.verifier)?;
        let around = Surroundings {
            keys: &proposal.graph.keys,
            verifier: verifier.as_ref(),
            coin: &coin,
            previous,
            announce: proposal.graph.announce,
        };
        let graph = Graph::build(spec, around)?;
        let origin = origin(contract, &graph).ok_or(EpochError::Previous)?;
        Ok(Epoch::new(graph, proposal.graph.keys, verifier, origin, &set.signatures)?)
    }
}

fn verifier(set: VerifierSet) -> Result<Arc<dyn Verifier>, EpochError> {
    match set {
        VerifierSet::None => Ok(Arc::new(NoVerifier)),
        _ => Err(EpochError::Verifier),
    }
}

/// True if an epoch of the contract ends like this, by itself or by one of its timeouts.
fn is_known_end(contract: &Contract, end: &EpochEnd) -> bool {
    contract.epochs().any(|(_, epoch)| {
        let graph = epoch.graph();
        match end.kind {
            EndKind::Announced(_) => graph.end() == end,
            EndKind::Halted => (0..=graph.spec().terms.claims_max)
                .any(|claim| graph.halted_at(claim, end.start.clone()).as_ref() == Some(end)),
        }
    })
}

/// Where claim 0 starts: a state, or the claim whose new root is signed with the key that the graph names.
fn origin(contract: &Contract, graph: &Graph) -> Option<Origin> {
    let key = match graph.start(0)? {
        Start::Commitment(state) => return Some(Origin::State(*state)),
        Start::Signed(key) => key,
    };
    contract.epochs().find_map(|(index, epoch)| {
        let mut claims = (0..).zip(&epoch.keys().0);
        let found = claims.find(|(_, keys)| keys.claim.0[ClaimValue::NewRoot as usize] == *key);
        found.map(|(claim, _)| Origin::Claim(ClaimId { epoch: index, claim }))
    })
}
