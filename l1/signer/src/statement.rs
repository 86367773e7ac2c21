//! What a signer says to everyone, under its name: it can be passed on, and held against it.

use bitcoin::secp256k1::PublicKey;

use crate::identity::{Identity, PartyId};
use crate::limits::{CHUNK_REQUESTS, REQUESTS_MAX};
use crate::musig::{NONCE_BYTES, PARTIAL_BYTES};
use crate::wire::{put_bytes, Reader, WireError};

/// Longest body: hashes of all chunks, or the nonces of one.
const BODY_BYTES_MAX: usize = {
    let hashes = 32 + 32 * (REQUESTS_MAX / CHUNK_REQUESTS);
    let nonces = NONCE_BYTES * CHUNK_REQUESTS;
    if hashes > nonces {
        hashes
    } else {
        nonces
    }
};
/// Bytes of the shortest encoded statement.
pub(crate) const STATEMENT_BYTES_MIN: usize = 1 + 32 + 32 + 4 + 4 + 64;

/// What a statement is about. The number is on the wire and signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The signer's public keys for an epoch.
    EpochKey = 1,
    /// Hashes of the nonces of each chunk.
    Commit = 2,
    /// The nonces of one chunk.
    Nonces = 3,
    /// The partial signatures of one chunk.
    Partials = 4,
}

impl Kind {
    fn read(byte: u8) -> Result<Self, WireError> {
        [Self::EpochKey, Self::Commit, Self::Nonces, Self::Partials]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
            .ok_or(WireError::Field { field: "statement kind" })
    }
}

/// Bytes of a compressed public key.
const PUBLIC_BYTES: usize = 33;

/// A signer's public keys for an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochPublic {
    /// Signs the epoch's graph, and its end's spending by the next one; deleted then.
    pub epoch: PublicKey,
    /// Signs a hand-over after a ClaimTimeout; kept while the epoch lasts.
    pub recovery: PublicKey,
}

impl EpochPublic {
    /// The body of the statement: both keys, compressed, in this order.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        [self.epoch.serialize(), self.recovery.serialize()].concat()
    }
}

/// A signed statement to everyone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it is about.
    pub kind: Kind,
    /// What it belongs to: the epoch's [`epoch_scope`], the graph (commits) or the session.
    pub scope: [u8; 32],
    /// Who says it.
    pub sender: PartyId,
    /// The chunk; in a commit the first one.
    pub chunk: u32,
    /// What is said.
    pub body: Vec<u8>,
    /// The sender's signature over all of the above.
    pub signature: [u8; 64],
}

/// Scope of the statements about an epoch's keys.
#[must_use]
pub fn epoch_scope(trunk_id: &[u8; 32], epoch: u32) -> [u8; 32] {
    let bytes = [trunk_id.as_slice(), &epoch.to_le_bytes()].concat();
    blake3::derive_key("assay l1 signer epoch v1", &bytes)
}

fn digest(kind: Kind, scope: &[u8; 32], sender: PartyId, chunk: u32, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("assay l1 signer statement v1");
    hasher.update(&[kind as u8]).update(scope).update(&sender.0).update(&chunk.to_le_bytes());
    hasher.update(blake3::hash(body).as_bytes());
    hasher.finalize().into()
}

impl Statement {
    /// Signs a statement.
    #[must_use]
    pub fn new(identity: &Identity, kind: Kind, scope: [u8; 32], chunk: u32, body: Vec<u8>) -> Self {
        let sender = identity.id();
        let signature = identity.sign(&digest(kind, &scope, sender, chunk, &body));
        Self { kind, scope, sender, chunk, body, signature }
    }

    /// Hash of all that is signed.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        digest(self.kind, &self.scope, self.sender, self.chunk, &self.body)
    }

    /// True if the sender signed it, and it is about this.
    #[must_use]
    pub fn holds(&self, kind: Kind, scope: &[u8; 32], chunk: u32) -> bool {
        self.kind == kind
            && self.scope == *scope
            && self.chunk == chunk
            && self.sender.verifies(&self.digest(), &self.signature)
    }

    /// The public keys in an [`Kind::EpochKey`] statement.
    #[must_use]
    pub fn epoch_keys(&self) -> Option<EpochPublic> {
        if self.kind != Kind::EpochKey {
            return None;
        }
        let [epoch, recovery] = self.pieces::<PUBLIC_BYTES>(2)?.try_into().ok()?;
        let read = |bytes: [u8; PUBLIC_BYTES]| PublicKey::from_slice(&bytes).ok();
        Some(EpochPublic { epoch: read(epoch)?, recovery: read(recovery)? })
    }

    /// The body cut in pieces of one size; `None` if it does not have `count` of them.
    #[must_use]
    pub fn pieces<const N: usize>(&self, count: usize) -> Option<Vec<[u8; N]>> {
        let (pieces, rest) = self.body.as_chunks::<N>();
        (pieces.len() == count && rest.is_empty()).then(|| pieces.to_vec())
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(self.kind as u8);
        out.extend(self.scope);
        out.extend(self.sender.0);
        out.extend(self.chunk.to_le_bytes());
        put_bytes(out, &self.body);
        out.extend(self.signature);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            kind: Kind::read(reader.u8("statement kind")?)?,
            scope: reader.array("statement scope")?,
            sender: PartyId(reader.array("statement sender")?),
            chunk: reader.u32("statement chunk")?,
            body: reader.bytes("statement body", BODY_BYTES_MAX)?.to_vec(),
            signature: reader.array("statement signature")?,
        })
    }
}

const _: () = assert!(PARTIAL_BYTES < NONCE_BYTES, "the longest body of a chunk are its nonces");
