//! Epochs from the files of the signers' collector: `0000.proposal` and `0000.signatures`, and so on.
//!
//! The number is the epoch's place, not its own: one that somebody else goes on with after a ClaimTimeout has the number of the
//! announced one. Nothing in the files is believed: the graph is built again, the spec must be that of a policy of this party, the
//! attesters those that it knows, and every signature is checked. An epoch that follows another has a higher place than that one.
//!
//! One that is not right is left out, and keeps nobody from those of higher places that do not follow it. Its files are read again
//! when they have changed, or an epoch before it has come.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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
use crate::types::{ClaimId, EpochIndex};

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

impl EpochError {
    /// What people should do about it.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Store(_) => "look at the files",
            Self::Missing => "put its files back",
            Self::Other => "put the files back that it was made with",
            Self::Policy { .. } => {
                "if another operator has taken over, add the policy under which it was signed: one more --policy"
            }
            Self::Attesters(_) => "its attesters have to be those of --peers",
            Self::Previous => "put the files of the epoch that it follows there, under a lower number",
            Self::Verifier => "it takes a newer program",
            Self::Wire(_) | Self::Signatures | Self::Aggregate | Self::Graph(_) | Self::Contract(_) => {
                "have its proposal and its signatures sent again by whoever had it signed"
            }
        }
    }
}

/// An epoch's proposal and its signatures; their paths.
struct Files {
    proposal: PathBuf,
    signatures: PathBuf,
}

/// Tells versions of a file apart without reading it: inode, bytes, and when it was last changed.
type Stamp = (u64, u64, i64, i64);

/// What an epoch was refused by: its files, and how many epochs there were before it.
type Seen = ([Stamp; 2], usize);

/// An epoch that is not taken.
#[derive(Debug)]
struct Refused {
    /// Absent if the files could not be read, which may be over without a change of theirs.
    seen: Option<Seen>,
    error: EpochError,
}

/// Where epochs come from, and what is agreed on.
#[derive(Debug)]
pub(super) struct EpochDir {
    pub(super) dir: PathBuf,
    policies: Vec<Policy>,
    signers: BTreeSet<PartyId>,
    refused: BTreeMap<EpochIndex, Refused>,
}

impl EpochDir {
    /// With nothing read yet.
    pub(super) fn new(dir: PathBuf, policies: Vec<Policy>, signers: BTreeSet<PartyId>) -> Self {
        Self { dir, policies, signers, refused: BTreeMap::new() }
    }

    /// The policies agreed on.
    pub(super) fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// Adds all epochs to `contract` whose files are there and right; those added, with their graphs.
    ///
    /// # Errors
    /// `Storage` if it cannot be read which files there are.
    pub(super) fn take_up(
        &mut self,
        contract: &mut Contract,
    ) -> Result<Vec<(EpochIndex, [u8; 32])>, StoreError> {
        let mut taken = Vec::new();
        let places = self.places()?;
        self.refused.retain(|place, _| places.contains(place));
        for place in places {
            if contract.epoch(place).is_some() {
                continue;
            }
            let (files, before) = (self.files(place), before(contract, place).count());
            let seen = match files.stamps() {
                Ok(stamps) => stamps.map(|stamps| (stamps, before)),
                Err(error) => {
                    self.refused.insert(place, Refused { seen: None, error: error.into() });
                    continue;
                }
            };
            if seen.is_none() {
                self.refused.remove(&place);
            }
            let Some(seen) = seen.filter(|seen| self.is_news(place, seen)) else { continue };
            match self.load(&files, (&*contract, place)) {
                Ok((graph, epoch)) => {
                    self.refused.remove(&place);
                    contract.insert(place, Arc::new(epoch));
                    taken.push((place, graph));
                }
                Err(error) => {
                    let is_unread = matches!(error, EpochError::Store(StoreError::Storage { .. }));
                    let seen = (!is_unread).then_some(seen);
                    self.refused.insert(place, Refused { seen, error });
                }
            }
        }
        Ok(taken)
    }

    /// What is wrong with the epochs that are not taken, and what to do.
    pub(super) fn complaints(&self) -> Vec<String> {
        let of = |(place, refused): (&EpochIndex, &Refused)| {
            format!("{place} is not taken: {}; {}", refused.error, refused.error.advice())
        };
        self.refused.iter().map(of).collect()
    }

    /// Why the epoch in a place is not taken, or, if that is `None`, the first of all.
    pub(super) fn refusal(&mut self, place: Option<EpochIndex>) -> Option<(EpochIndex, EpochError)> {
        let place = place.or_else(|| self.refused.keys().next().copied())?;
        Some((place, self.refused.remove(&place)?.error))
    }

    /// The places of which there are signatures: four digits.
    fn places(&self) -> Result<BTreeSet<EpochIndex>, StoreError> {
        let storage = |source| StoreError::Storage { path: self.dir.clone(), source };
        let mut places = BTreeSet::new();
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(places),
            other => other.map_err(storage)?,
        };
        for entry in entries {
            let name = entry.map_err(storage)?.file_name();
            let place = name.to_str().and_then(|name| name.strip_suffix(".signatures"));
            let place = place.filter(|place| place.len() == 4 && place.bytes().all(|b| b.is_ascii_digit()));
            places.extend(place.and_then(|place| place.parse().ok()).map(EpochIndex));
        }
        Ok(places)
    }

    fn files(&self, place: EpochIndex) -> Files {
        let path = |kind: &str| self.dir.join(format!("{:04}.{kind}", place.0));
        Files { proposal: path("proposal"), signatures: path("signatures") }
    }

    /// True if that is not what was refused.
    fn is_news(&self, place: EpochIndex, seen: &Seen) -> bool {
        self.refused.get(&place).and_then(|refused| refused.seen.as_ref()) != Some(seen)
    }

    fn load(
        &self,
        files: &Files,
        (contract, place): (&Contract, EpochIndex),
    ) -> Result<([u8; 32], Epoch), EpochError> {
        let set = SignatureSet::load(&files.signatures)?.ok_or(EpochError::Missing)?;
        let bytes = file::read(&files.proposal, PROPOSAL_BYTES_MAX as u64)?.ok_or(EpochError::Missing)?;
        let id = graph_id(&bytes);
        if set.graph != id {
            return Err(EpochError::Signatures);
        }
        let proposal = GraphProposal::decode(&bytes)?;
        Ok((id, self.check(proposal, &set, (contract, place))?))
    }

    fn check(
        &self,
        proposal: GraphProposal,
        set: &SignatureSet,
        at: (&Contract, EpochIndex),
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
        if previous.is_some_and(|end| !is_known_end(at, end)) {
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
        let origin = origin(at, &graph).ok_or(EpochError::Previous)?;
        Ok(Epoch::new(graph, proposal.graph.keys, verifier, origin, &set.signatures)?)
    }
}

impl Files {
    /// Of proposal and signatures; `None` if they are not both there.
    fn stamps(&self) -> Result<Option<[Stamp; 2]>, StoreError> {
        let proposal = stamp(&self.proposal)?;
        Ok(proposal.zip(stamp(&self.signatures)?).map(|(proposal, signatures)| [proposal, signatures]))
    }
}

fn stamp(path: &Path) -> Result<Option<Stamp>, StoreError> {
    match std::fs::metadata(path) {
        Ok(file) => Ok(Some((file.ino(), file.len(), file.ctime(), file.ctime_nsec()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Storage { path: path.to_owned(), source }),
    }
}

/// The epochs of lower places.
fn before(contract: &Contract, place: EpochIndex) -> impl Iterator<Item = (EpochIndex, &Epoch)> {
    contract.epochs().take_while(move |(index, _)| *index < place)
}

fn verifier(set: VerifierSet) -> Result<Arc<dyn Verifier>, EpochError> {
    match set {
        VerifierSet::None => Ok(Arc::new(NoVerifier)),
        _ => Err(EpochError::Verifier),
    }
}

/// True if an epoch before this place ends like this, by itself or by one of its timeouts.
fn is_known_end((contract, place): (&Contract, EpochIndex), end: &EpochEnd) -> bool {
    before(contract, place).any(|(_, epoch)| {
        let graph = epoch.graph();
        match end.kind {
            EndKind::Announced(_) => graph.end() == end,
            EndKind::Halted => (0..=graph.spec().terms.claims_max)
                .any(|claim| graph.halted_at(claim, end.start.clone()).as_ref() == Some(end)),
        }
    })
}

/// Where claim 0 starts: a state, or the claim whose new root is signed with the key that the graph names.
fn origin((contract, place): (&Contract, EpochIndex), graph: &Graph) -> Option<Origin> {
    let key = match graph.start(0)? {
        Start::Commitment(state) => return Some(Origin::State(*state)),
        Start::Signed(key) => key,
    };
    before(contract, place).find_map(|(index, epoch)| {
        let mut claims = (0..).zip(&epoch.keys().0);
        let found = claims.find(|(_, keys)| keys.claim.0[ClaimValue::NewRoot as usize] == *key);
        found.map(|(claim, _)| Origin::Claim(ClaimId { epoch: index, claim }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: EpochIndex = EpochIndex(0);

    #[test]
    fn files_that_are_not_right_are_not_read_again_before_they_change() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let (mut dir, mut contract) =
            (EpochDir::new(root.path().to_owned(), Vec::new(), BTreeSet::new()), Contract::new());
        let mut complaints = |dir: &mut EpochDir| {
            assert!(dir.take_up(&mut contract).unwrap().is_empty());
            dir.complaints().concat()
        };
        let garbage = b"no proposal";
        SignatureSet { graph: graph_id(garbage), signatures: Vec::new() }
            .save(&path("0000.signatures"))
            .unwrap();
        assert_eq!(complaints(&mut dir), "", "one of two");
        std::fs::write(path("0000.proposal"), garbage).unwrap();
        assert!(complaints(&mut dir).starts_with("epoch file 0000 is not taken: no proposal"));
        // Whoever reads them finds another reason than this.
        dir.refused.get_mut(&FIRST).unwrap().error = EpochError::Aggregate;
        assert!(complaints(&mut dir).contains("aggregates"), "read again");
        std::fs::write(path("0000.proposal"), b"others").unwrap();
        assert!(complaints(&mut dir).contains("the signatures are of another proposal"));
        std::fs::remove_file(path("0000.proposal")).unwrap();
        assert_eq!(complaints(&mut dir), "", "gone");
    }

    #[test]
    fn files_that_could_not_be_read_are_tried_again() {
        let root = tempfile::tempdir().unwrap();
        let (mut dir, mut contract) =
            (EpochDir::new(root.path().to_owned(), Vec::new(), BTreeSet::new()), Contract::new());
        // A directory opens, but has no bytes.
        for name in ["0000.signatures", "0000.proposal"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        dir.take_up(&mut contract).unwrap();
        let refused = dir.refused.get_mut(&FIRST).unwrap();
        assert!(matches!(refused.error, EpochError::Store(_)), "{:?}", refused.error);
        refused.error = EpochError::Aggregate;
        dir.take_up(&mut contract).unwrap();
        assert!(matches!(dir.refused[&FIRST].error, EpochError::Store(_)));
    }
}
