//! The signer's decision about a proposal: it builds the graph itself and compares everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_l1::graph::contract::build::{funding_value, Surroundings};
use assay_l1::graph::contract::review::{review, Refusal};
use assay_l1::graph::contract::scripts::VerifierLeaves;
use assay_l1::graph::transactions::wallet_script;
use bitcoin::secp256k1::PublicKey;
use bitcoin::TxOut;

use crate::identity::PartyId;
use crate::limits::{CHUNK_REQUESTS, REQUESTS_MAX};
use crate::musig::{Attesters, MusigError};
use crate::policy::Policy;
use crate::statement::{epoch_scope, Kind, Statement};
use crate::wire::proposal::{decode_end, encode_end, GraphProposal};
use crate::wire::WireError;

/// What a signer knows of a graph that it will sign.
#[derive(Debug, Clone)]
pub struct Reviewed {
    /// The epoch.
    pub epoch: u32,
    /// Each signer's key for it.
    pub members: BTreeMap<PartyId, PublicKey>,
    /// The same as one key.
    pub attesters: Attesters,
    /// What is signed, in the order of the signer's own graph.
    pub messages: Arc<Vec<[u8; 32]>>,
    /// Messages in a chunk; the last one may have fewer.
    pub chunk_requests: usize,
    /// The epoch's end, which the next one builds on.
    pub end: Vec<u8>,
}

impl Reviewed {
    /// Number of chunks.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        // The review bounds the number of messages.
        self.messages.len().div_ceil(self.chunk_requests) as u32
    }

    /// The messages of a chunk; `None` if there is no such chunk.
    #[must_use]
    pub fn chunk(&self, chunk: u32) -> Option<&[[u8; 32]]> {
        self.messages.chunks(self.chunk_requests).nth(chunk as usize)
    }

    /// Index of a signer's key in the aggregate.
    #[must_use]
    pub fn place(&self, signer: PartyId) -> Option<usize> {
        let key = self.members.get(&signer)?;
        self.attesters.keys().iter().position(|other| other == key)
    }

    /// Statements in the order of the aggregate's keys.
    ///
    /// # Errors
    /// The first signer whose statement is missing or does not pass `right`; nothing else may be among them.
    pub fn in_order<'a>(
        &self,
        statements: &'a [Statement],
        right: impl Fn(&Statement) -> bool,
    ) -> Result<Vec<&'a Statement>, PartyId> {
        let mut ordered = vec![None; self.members.len()];
        for signer in self.members.keys() {
            let statement = statements.iter().find(|statement| statement.sender == *signer);
            let statement = statement.filter(|statement| right(statement)).ok_or(*signer)?;
            let place = self.place(*signer).ok_or(*signer)?;
            ordered[place] = Some(statement);
        }
        match statements.iter().find(|statement| !self.members.contains_key(&statement.sender)) {
            Some(stranger) => Err(stranger.sender),
            None => Ok(ordered.into_iter().flatten().collect()),
        }
    }

    /// The signer whose key is at this place of the aggregate.
    #[must_use]
    pub fn signer_at(&self, place: usize) -> Option<PartyId> {
        let key = self.attesters.keys().get(place)?;
        self.members.iter().find(|(_, other)| *other == key).map(|(signer, _)| *signer)
    }
}

/// Why a proposal is not signed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReviewError {
    /// The bytes are no proposal.
    #[error("no proposal: {0}")]
    Wire(#[from] WireError),
    /// The spec has another value than this signer's policy.
    #[error("the spec's {field} is not what the policy says")]
    Policy {
        /// Name of the field.
        field: &'static str,
    },
    /// The attesters' statements are not one of each signer, in order, about this epoch.
    #[error("statement {index} about the attesters' keys is not as it should be")]
    Statement {
        /// Which one.
        index: usize,
    },
    /// The attesters' keys give no aggregate.
    #[error(transparent)]
    Keys(#[from] MusigError),
    /// The spec's attesters are not these signers.
    #[error("the spec's attesters are not the aggregate of the signers' keys")]
    Attesters,
    /// The epoch before is not the one that this signer signed.
    #[error("the epoch before is not the one that this signer knows")]
    Previous,
    /// The graph differs from the specification.
    #[error(transparent)]
    Graph(#[from] Refusal),
    /// More signatures than a signer makes.
    #[error("{got} signatures, at most {REQUESTS_MAX} are made")]
    TooMany {
        /// In the graph.
        got: usize,
    },
}

/// Decides about proposals. The contract's is [`ContractReviewer`].
pub trait Reviewer {
    /// Judges encoded bytes; `ends` are the encoded ends of the epochs that this signer accepted.
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    fn review(&self, proposal: &[u8], ends: &BTreeMap<u32, Vec<u8>>) -> Result<Reviewed, ReviewError>;
}

/// The review by the contract's specification and the signer's policy.
pub struct ContractReviewer {
    policy: Policy,
    signers: BTreeSet<PartyId>,
    verifier: Box<dyn VerifierLeaves + Send + Sync>,
}

impl ContractReviewer {
    /// For these signers under this policy; `verifier` must be the set that the policy names, else no proposal passes.
    #[must_use]
    pub fn new(
        policy: Policy,
        signers: impl IntoIterator<Item = PartyId>,
        verifier: Box<dyn VerifierLeaves + Send + Sync>,
    ) -> Self {
        Self { policy, signers: signers.into_iter().collect(), verifier }
    }
}

/// The keys in statements of all `signers`, in their order, about `epoch`.
///
/// # Errors
/// `Statement` names the first that is missing, of somebody else, about something else or not signed.
pub fn member_keys(
    statements: &[Statement],
    signers: &BTreeSet<PartyId>,
    (trunk_id, epoch): (&[u8; 32], u32),
) -> Result<BTreeMap<PartyId, PublicKey>, ReviewError> {
    let scope = epoch_scope(trunk_id, epoch);
    let mut members = BTreeMap::new();
    for (index, signer) in signers.iter().enumerate() {
        let wrong = ReviewError::Statement { index };
        let statement = statements.get(index).ok_or(ReviewError::Statement { index })?;
        if statement.sender != *signer || !statement.holds(Kind::EpochKey, &scope, 0) {
            return Err(wrong);
        }
        members.insert(*signer, statement.epoch_key().ok_or(wrong)?);
    }
    if statements.len() > signers.len() {
        return Err(ReviewError::Statement { index: signers.len() });
    }
    Ok(members)
}

impl Reviewer for ContractReviewer {
    fn review(&self, proposal: &[u8], ends: &BTreeMap<u32, Vec<u8>>) -> Result<Reviewed, ReviewError> {
        let proposal = GraphProposal::decode(proposal)?;
        let spec = &proposal.spec;
        if let Some(field) = self.policy.difference(spec) {
            return Err(ReviewError::Policy { field });
        }
        let epoch = spec.terms.epoch;
        let members = member_keys(&proposal.attesters, &self.signers, (&spec.terms.trunk_id, epoch))?;
        let attesters = Attesters::new(members.values().copied())?;
        if attesters.key() != spec.attesters {
            return Err(ReviewError::Attesters);
        }
        let known = epoch.checked_sub(1).and_then(|before| ends.get(&before));
        if proposal.previous.as_ref().map(encode_end).as_ref() != known {
            return Err(ReviewError::Previous);
        }
        // The own record decides, not what was sent.
        let previous = known.map(|end| decode_end(end)).transpose()?;
        let value = funding_value(spec, previous.as_ref());
        let coin = TxOut { value, script_pubkey: wallet_script(spec.terms.operator_key) };
        let around = Surroundings {
            keys: &proposal.graph.keys,
            verifier: self.verifier.as_ref(),
            coin: &coin,
            previous: previous.as_ref(),
            announce: proposal.graph.announce,
        };
        let graph = review(spec, around, &proposal.graph)?;
        let messages: Vec<_> = graph.requests().map(|request| request.message).collect();
        if messages.is_empty() || messages.len() > REQUESTS_MAX {
            return Err(ReviewError::TooMany { got: messages.len() });
        }
        let end = encode_end(graph.end());
        Ok(Reviewed {
            epoch,
            members,
            attesters,
            messages: Arc::new(messages),
            chunk_requests: CHUNK_REQUESTS,
            end,
        })
    }
}
