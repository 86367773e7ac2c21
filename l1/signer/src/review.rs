//! The signer's decision about a proposal: it builds the graph itself and compares everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_l1::graph::contract::build::{funding_value, EndKind, EpochEnd, Graph, Surroundings};
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

/// The signers with their keys of one kind.
#[derive(Debug, Clone)]
pub struct Group {
    /// Each signer's key.
    pub members: BTreeMap<PartyId, PublicKey>,
    /// The same as one key.
    pub attesters: Attesters,
}

impl Group {
    /// Aggregates the members' keys.
    ///
    /// # Errors
    /// `Keys` if they give no aggregate.
    pub fn new(members: BTreeMap<PartyId, PublicKey>) -> Result<Self, MusigError> {
        let attesters = Attesters::new(members.values().copied())?;
        Ok(Self { members, attesters })
    }

    /// Index of a signer's key in the aggregate.
    #[must_use]
    pub fn place(&self, signer: PartyId) -> Option<usize> {
        let key = self.members.get(&signer)?;
        self.attesters.keys().iter().position(|other| other == key)
    }

    /// The signer whose key is at this place of the aggregate.
    #[must_use]
    pub fn signer_at(&self, place: usize) -> Option<PartyId> {
        let key = self.attesters.keys().get(place)?;
        self.members.iter().find(|(_, other)| *other == key).map(|(signer, _)| *signer)
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
}

/// What a signer knows of a graph that it will sign.
///
/// The first message may be for the keys of the epoch before: it opens this epoch with what that one left.
#[derive(Debug, Clone)]
pub struct Reviewed {
    /// The epoch.
    pub epoch: u32,
    /// The epoch's attesters.
    pub group: Group,
    /// Who signs the first message, if the epoch's attesters do not: those of the epoch before.
    pub before: Option<Group>,
    /// What is signed, in the order of the signer's own graph.
    pub messages: Arc<Vec<[u8; 32]>>,
    /// Messages in a chunk; the first one has only the message of the epoch before, the last one may have fewer.
    pub chunk_requests: usize,
    /// The epoch's end, which the next one builds on.
    pub end: Vec<u8>,
}

impl Reviewed {
    /// Number of messages that the epoch before signs.
    fn early(&self) -> usize {
        usize::from(self.before.is_some())
    }

    /// Number of chunks.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        let early = self.early();
        // The review bounds the number of messages.
        (early + self.messages.len().saturating_sub(early).div_ceil(self.chunk_requests)) as u32
    }

    /// Where a chunk begins.
    fn begin(&self, chunk: u32) -> usize {
        let (early, chunk) = (self.early(), chunk as usize);
        if chunk < early {
            return chunk;
        }
        early.saturating_add((chunk - early).saturating_mul(self.chunk_requests)).min(self.messages.len())
    }

    /// The chunk that begins at this message; where none does, the one that holds it.
    #[must_use]
    pub fn chunk_at(&self, message: usize) -> u32 {
        let early = self.early();
        let index = if message < early { message } else { early + (message - early) / self.chunk_requests };
        index as u32
    }

    /// The messages of a chunk; `None` if there is no such chunk.
    #[must_use]
    pub fn chunk(&self, chunk: u32) -> Option<&[[u8; 32]]> {
        let end = self.begin(chunk.checked_add(1)?);
        self.messages.get(self.begin(chunk)..end).filter(|messages| !messages.is_empty())
    }

    /// True if the keys of the epoch before sign this chunk.
    #[must_use]
    pub fn is_early(&self, chunk: u32) -> bool {
        (chunk as usize) < self.early()
    }

    /// Who signs a chunk.
    #[must_use]
    pub fn group_of(&self, chunk: u32) -> &Group {
        self.before.as_ref().filter(|_| self.is_early(chunk)).unwrap_or(&self.group)
    }

    /// Cuts signatures in chunks; those after the last message come as they are, in the last ones.
    #[must_use]
    pub fn cut(&self, signatures: &[[u8; 64]]) -> Vec<Vec<[u8; 64]>> {
        let (early, late) = signatures.split_at(self.early().min(signatures.len()));
        early.chunks(1).chain(late.chunks(self.chunk_requests)).map(<[_]>::to_vec).collect()
    }

    /// Index of the first signature that is not one of its message under the right key; the shorter list's length if they
    /// differ in length.
    #[must_use]
    pub fn first_wrong(&self, signatures: &[[u8; 64]]) -> Option<usize> {
        let early = self.early().min(self.messages.len()).min(signatures.len());
        let (first, rest) = self.messages.split_at(early);
        let (first_signed, rest_signed) = signatures.split_at(early);
        let before = self.before.as_ref().map(|group| group.attesters.first_wrong(first, first_signed));
        let rest = self.group.attesters.first_wrong(rest, rest_signed).map(|index| early + index);
        before.flatten().or(rest)
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
    /// The spec's recovery key is not these signers'.
    #[error("the spec's recovery key is not the aggregate of the signers' recovery keys")]
    Recovery,
    /// The epoch before is not the one that this signer signed.
    #[error("the epoch before is not the one that this signer knows")]
    Previous,
    /// The keys of the epoch before are not those that sign this one's opening.
    #[error("the keys given for the epoch before are not those that sign the opening")]
    Before,
    /// A signature of the graph is for a key that is neither this epoch's nor the one before's.
    #[error("signature {index} is for a key that is not here")]
    Signer {
        /// Which one.
        index: usize,
    },
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

/// The keys in statements of all signers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberKeys {
    /// Of the epoch.
    pub epoch: BTreeMap<PartyId, PublicKey>,
    /// For a hand-over.
    pub recovery: BTreeMap<PartyId, PublicKey>,
}

/// The keys in statements of all `signers`, in their order, about `epoch`.
///
/// # Errors
/// `Statement` names the first that is missing, of somebody else, about something else or not signed.
pub fn member_keys(
    statements: &[Statement],
    signers: &BTreeSet<PartyId>,
    (trunk_id, epoch): (&[u8; 32], u32),
) -> Result<MemberKeys, ReviewError> {
    let scope = epoch_scope(trunk_id, epoch);
    let mut members = MemberKeys { epoch: BTreeMap::new(), recovery: BTreeMap::new() };
    for (index, signer) in signers.iter().enumerate() {
        let wrong = ReviewError::Statement { index };
        let statement = statements.get(index).ok_or(ReviewError::Statement { index })?;
        if statement.sender != *signer || !statement.holds(Kind::EpochKey, &scope, 0) {
            return Err(wrong);
        }
        let keys = statement.epoch_keys().ok_or(wrong)?;
        members.epoch.insert(*signer, keys.epoch);
        members.recovery.insert(*signer, keys.recovery);
    }
    if statements.len() > signers.len() {
        return Err(ReviewError::Statement { index: signers.len() });
    }
    Ok(members)
}

impl ContractReviewer {
    /// The attesters' keys in the proposal are those of the spec.
    fn group(&self, proposal: &GraphProposal) -> Result<Group, ReviewError> {
        let spec = &proposal.spec;
        let about = (&spec.terms.trunk_id, spec.terms.epoch);
        let members = member_keys(&proposal.attesters, &self.signers, about)?;
        let group = Group::new(members.epoch)?;
        if group.attesters.key() != spec.attesters {
            return Err(ReviewError::Attesters);
        }
        if Group::new(members.recovery)?.attesters.key() != spec.recovery {
            return Err(ReviewError::Recovery);
        }
        Ok(group)
    }

    /// Who signs the opening for the epoch before.
    fn before(
        &self,
        proposal: &GraphProposal,
        previous: Option<&EpochEnd>,
    ) -> Result<Option<Group>, ReviewError> {
        let Some(end) = previous else {
            let none = proposal.before.is_empty();
            return if none { Ok(None) } else { Err(ReviewError::Before) };
        };
        let members = member_keys(&proposal.before, &self.signers, (&end.trunk_id, end.epoch));
        let members = members.map_err(|_| ReviewError::Before)?;
        // What a timeout leaves is the recovery key's.
        let group = Group::new(match end.kind {
            EndKind::Announced(_) => members.epoch,
            EndKind::Halted => members.recovery,
        })?;
        if group.attesters.key() != end.signer {
            return Err(ReviewError::Before);
        }
        Ok(Some(group))
    }
}

/// What is to be signed: the first message by the epoch before, if there is one, all others by this one.
fn messages(graph: &Graph, group: &Group, before: Option<&Group>) -> Result<Vec<[u8; 32]>, ReviewError> {
    let mut messages = Vec::new();
    for (index, request) in graph.requests().enumerate() {
        let signers = before.filter(|_| index == 0).unwrap_or(group);
        if request.signer != signers.attesters.key() {
            return Err(ReviewError::Signer { index });
        }
        messages.push(request.message);
    }
    if messages.is_empty() || messages.len() > REQUESTS_MAX {
        return Err(ReviewError::TooMany { got: messages.len() });
    }
    Ok(messages)
}

impl Reviewer for ContractReviewer {
    fn review(&self, proposal: &[u8], ends: &BTreeMap<u32, Vec<u8>>) -> Result<Reviewed, ReviewError> {
        let proposal = GraphProposal::decode(proposal)?;
        let spec = &proposal.spec;
        if let Some(field) = self.policy.difference(spec) {
            return Err(ReviewError::Policy { field });
        }
        let epoch = spec.terms.epoch;
        let group = self.group(&proposal)?;
        let known = epoch.checked_sub(1).and_then(|before| ends.get(&before));
        if proposal.previous.as_ref().map(encode_end).as_ref() != known {
            return Err(ReviewError::Previous);
        }
        // The own record decides, not what was sent.
        let previous = known.map(|end| decode_end(end)).transpose()?;
        let before = self.before(&proposal, previous.as_ref())?;
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
        let messages = Arc::new(messages(&graph, &group, before.as_ref())?);
        let end = encode_end(graph.end());
        Ok(Reviewed { epoch, group, before, messages, chunk_requests: CHUNK_REQUESTS, end })
    }
}
