//! One run of MuSig2 over a graph's messages, in memory only.

use std::collections::BTreeMap;

use bitcoin::secp256k1::SecretKey;
use zeroize::Zeroizing;

use super::Refused;
use crate::identity::{Identity, PartyId};
use crate::musig::{ChunkNonces, MusigError, NonceSeed, NONCE_BYTES};
use crate::review::{Group, Reviewed};
use crate::statement::{Kind, Statement};

/// The nonces of a chunk.
enum Chunk {
    /// Not used yet.
    Fresh(NonceSeed),
    /// Used; what was said then, and the hash of the statements that it was said to.
    Signed { heard: [u8; 32], partials: Statement },
    /// Used, and signing failed.
    Spent,
}

/// What all signers have committed to.
struct Fixed {
    id: [u8; 32],
    /// Of each signer, the hashes of its chunks.
    hashes: BTreeMap<PartyId, Vec<[u8; 32]>>,
}

/// A signer's secret keys for a graph.
pub(super) struct Secrets {
    /// Of the epoch.
    pub(super) own: SecretKey,
    /// Of the epoch before; there if that one has to sign anything.
    pub(super) before: Option<SecretKey>,
}

impl Secrets {
    /// The key that signs a chunk.
    fn of(&self, reviewed: &Reviewed, chunk: u32) -> &SecretKey {
        self.before.as_ref().filter(|_| reviewed.is_early(chunk)).unwrap_or(&self.own)
    }
}

/// An open session.
pub struct Session {
    first_chunk: u32,
    chunks: Vec<Chunk>,
    nonces: Vec<Vec<[u8; NONCE_BYTES]>>,
    commit: Statement,
    fixed: Option<Fixed>,
}

/// Hash of a chunk's nonces: what a commit holds.
#[must_use]
pub fn nonces_hash(nonces: &[u8]) -> [u8; 32] {
    blake3::derive_key("assay l1 signer nonces v1", nonces)
}

/// The session's id: the hash of all commits, in the order of the epoch's aggregate's keys.
#[must_use]
pub fn session_id(commits: &[&Statement]) -> [u8; 32] {
    let digests: Vec<_> = commits.iter().map(|commit| commit.digest()).collect();
    blake3::derive_key("assay l1 signer session v1", &digests.concat())
}

/// The hashes in a commit to `chunks` chunks; before them 32 bytes that make it unique.
#[must_use]
pub fn committed(commit: &Statement, chunks: u32) -> Option<Vec<[u8; 32]>> {
    let mut hashes = commit.pieces::<32>(1 + chunks as usize)?;
    hashes.remove(0);
    Some(hashes)
}

/// Hash over statements, for telling a repetition from a change.
fn heard(statements: &[&Statement]) -> [u8; 32] {
    let parts: Vec<_> = statements.iter().map(|statement| statement.digest()).collect();
    blake3::hash(&parts.concat()).into()
}

impl Session {
    /// Draws all nonces from `randomness`.
    pub(super) fn open(
        identity: &Identity,
        graph: &[u8; 32],
        reviewed: &Reviewed,
        first_chunk: u32,
        secrets: &Secrets,
        randomness: &Zeroizing<[u8; 32]>,
    ) -> Result<Self, Refused> {
        let count = reviewed.chunks();
        if first_chunk >= count {
            return Err(Refused::Chunk { chunk: first_chunk });
        }
        let seeds = NonceSeed::split(randomness, count - first_chunk);
        let mut nonces = Vec::with_capacity(seeds.len());
        // Unique, and says nothing of the seeds.
        let mut body = blake3::derive_key("assay l1 signer attempt v1", randomness.as_slice()).to_vec();
        for (chunk, seed) in (first_chunk..).zip(&seeds) {
            let messages = reviewed.chunk(chunk).ok_or(Refused::Chunk { chunk })?;
            let attesters = &reviewed.group_of(chunk).attesters;
            let public = attesters.nonces(seed, secrets.of(reviewed, chunk), messages);
            body.extend(nonces_hash(public.as_flattened()));
            nonces.push(public);
        }
        let commit = Statement::new(identity, Kind::Commit, *graph, first_chunk, body);
        let chunks = seeds.into_iter().map(Chunk::Fresh).collect();
        Ok(Self { first_chunk, chunks, nonces, commit, fixed: None })
    }

    /// What this signer committed to.
    #[must_use]
    pub fn commit(&self) -> &Statement {
        &self.commit
    }

    /// The session's id, once all commits are known.
    #[must_use]
    pub fn id(&self) -> Option<&[u8; 32]> {
        self.fixed.as_ref().map(|fixed| &fixed.id)
    }

    /// Takes the commits of all signers; from here on every nonce of everyone is fixed.
    pub(super) fn fix(
        &mut self,
        graph: &[u8; 32],
        reviewed: &Reviewed,
        commits: &[Statement],
    ) -> Result<[u8; 32], Refused> {
        let right = |commit: &Statement| commit.holds(Kind::Commit, graph, self.first_chunk);
        let commits =
            reviewed.group.in_order(commits, right).map_err(|signer| Refused::Statement { signer })?;
        if !commits.contains(&&self.commit) {
            return Err(Refused::Session("the commits are of another one"));
        }
        let id = session_id(&commits);
        match &self.fixed {
            Some(fixed) if fixed.id == id => return Ok(id),
            Some(_) => return Err(Refused::Session("other commits were agreed on")),
            None => {}
        }
        let count = self.chunks.len() as u32;
        let hashes = |commit: &&Statement| {
            let signer = commit.sender;
            Ok((signer, committed(commit, count).ok_or(Refused::Statement { signer })?))
        };
        let hashes = commits.iter().map(hashes).collect::<Result<_, Refused>>()?;
        self.fixed = Some(Fixed { id, hashes });
        Ok(id)
    }

    fn index(&self, chunk: u32) -> Result<usize, Refused> {
        let index = chunk.checked_sub(self.first_chunk).map(|index| index as usize);
        index.filter(|index| *index < self.chunks.len()).ok_or(Refused::Chunk { chunk })
    }

    /// The nonces of a chunk, as often as they are asked for.
    pub(super) fn reveal(&self, identity: &Identity, chunk: u32) -> Result<Statement, Refused> {
        let index = self.index(chunk)?;
        let session = self.id().ok_or(Refused::Session("no commits yet"))?;
        let body = self.nonces[index].as_flattened().to_vec();
        Ok(Statement::new(identity, Kind::Nonces, *session, chunk, body))
    }

    /// Partial signatures of a chunk under the nonces of all signers. Made once; asked again, the same are said again.
    pub(super) fn sign(
        &mut self,
        identity: &Identity,
        reviewed: &Reviewed,
        chunk: u32,
        secrets: &Secrets,
        nonces: &[Statement],
    ) -> Result<Statement, Refused> {
        let index = self.index(chunk)?;
        let fixed = self.fixed.as_ref().ok_or(Refused::Session("no commits yet"))?;
        let session = fixed.id;
        let right = |statement: &Statement| statement.holds(Kind::Nonces, &session, chunk);
        let group = reviewed.group_of(chunk);
        let nonces = group.in_order(nonces, right).map_err(|signer| Refused::Statement { signer })?;
        for statement in &nonces {
            let signer = statement.sender;
            let hash = fixed.hashes.get(&signer).and_then(|hashes| hashes.get(index));
            if hash != Some(&nonces_hash(&statement.body)) {
                return Err(Refused::Nonces { signer });
            }
        }
        let heard = heard(&nonces);
        match &self.chunks[index] {
            Chunk::Signed { heard: before, partials } if *before == heard => return Ok(partials.clone()),
            Chunk::Signed { .. } | Chunk::Spent => return Err(Refused::Spent { chunk }),
            Chunk::Fresh(_) => {}
        }
        let messages = reviewed.chunk(chunk).ok_or(Refused::Chunk { chunk })?;
        let sums = sums(group, &nonces, messages.len())?;
        // The seed leaves the session here, and dies within `sign`.
        let Chunk::Fresh(seed) = std::mem::replace(&mut self.chunks[index], Chunk::Spent) else {
            return Err(Refused::Spent { chunk });
        };
        let partials = group.attesters.sign(seed, secrets.of(reviewed, chunk), messages, &sums)?;
        let body = partials.as_flattened().to_vec();
        let partials = Statement::new(identity, Kind::Partials, session, chunk, body);
        self.chunks[index] = Chunk::Signed { heard, partials: partials.clone() };
        Ok(partials)
    }
}

/// Adds up the nonces in statements that are in the order of the aggregate's keys.
fn sums(group: &Group, nonces: &[&Statement], messages: usize) -> Result<ChunkNonces, Refused> {
    chunk_nonces(nonces, messages).map_err(|error| match error {
        (_, Some(index)) => match group.signer_at(index) {
            Some(signer) => Refused::Nonces { signer },
            None => Refused::Musig(MusigError::Count),
        },
        (error, None) => Refused::Musig(error),
    })
}

/// The nonces in statements that are in the order of the aggregate's keys; with an error, whose they are.
///
/// # Errors
/// If a body is not as many nonces, or one of them is no pair of points.
pub fn chunk_nonces(
    statements: &[&Statement],
    messages: usize,
) -> Result<ChunkNonces, (MusigError, Option<usize>)> {
    let mut lists = Vec::with_capacity(statements.len());
    for (place, statement) in statements.iter().enumerate() {
        lists.push(statement.pieces::<NONCE_BYTES>(messages).ok_or((MusigError::Count, Some(place)))?);
    }
    ChunkNonces::new(&lists, messages).map_err(|error| match error {
        MusigError::Nonce { signer, .. } => (error, Some(signer)),
        other => (other, None),
    })
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({} chunks from {})", self.chunks.len(), self.first_chunk)
    }
}
