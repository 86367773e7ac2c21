//! A signer as a pure state machine: requests in, effects out; no clock, files, sockets or randomness of its own.
//!
//! ```text
//! free ─ Key ─▶ keyed ─ Propose ─▶ locked to a graph ─ Final ─▶ finished ─ Final of the next epoch ─▶ no key
//!                                     │ ▲ (in memory: Open ▶ Commits ▶ Reveal and Sign each chunk)
//!                                     └─┘ any number of sessions, each with fresh nonces
//! ```
//! The key of a finished epoch has one more signature to make: the next epoch's opening, which spends what the epoch leaves. It
//! makes that one only as part of the next epoch's graph, which the next epoch is locked to, and is deleted with its end.
//!
//! On disk are the epoch's keys, the graph that the epoch is locked to, and in the end all signatures. A session is in memory
//! only. Its secret nonces come from one seed per chunk; to sign takes the seed out of the session, so that no path through
//! this file leads to a second signature with it. A repeated request gets the same answer again, from memory.
//!
//! Effects are carried out in order, the reply last; if one fails, the machine must be dropped and loaded from disk.

pub mod session;

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::secp256k1::{PublicKey, SecretKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::identity::{hex32, hexed, secp, Identity, PartyId};
use crate::limits::{EPOCHS_AHEAD_MAX, KEYS_MAX};
use crate::musig::MusigError;
use crate::review::{ReviewError, Reviewed, Reviewer};
use crate::statement::{epoch_scope, EpochPublic, Kind, Statement};
use crate::wire::message::{Reply, Request};
use crate::wire::proposal::graph_id;
use session::Secrets;
pub use session::Session;

/// What is on disk about an epoch that is locked to a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The graph.
    #[serde(with = "hex32")]
    pub graph: [u8; 32],
    /// Its end, encoded.
    #[serde(with = "hexed")]
    pub end: Vec<u8>,
    /// True once all signatures are on disk. The key is deleted when the next epoch is: it signs that one's opening.
    pub finished: bool,
}

/// What a signer's directory holds. Not printable: it has secrets.
#[derive(Default)]
pub struct Stored {
    /// Epoch keys.
    pub keys: BTreeMap<u32, Zeroizing<[u8; 32]>>,
    /// Keys for hand-overs. A key without an epoch key that was never locked is one of which nobody heard.
    pub recovery: BTreeMap<u32, Zeroizing<[u8; 32]>>,
    /// Epochs that are locked to a graph.
    pub records: BTreeMap<u32, Record>,
}

/// What the shell has to do, in this order. Not printable: one of them is a secret.
pub enum Effect {
    /// Write the epoch's key durably.
    SaveKey {
        /// The epoch.
        epoch: u32,
        /// The secret.
        secret: Zeroizing<[u8; 32]>,
    },
    /// Write the epoch's recovery key durably, in place of one that is there.
    SaveRecovery {
        /// The epoch.
        epoch: u32,
        /// The secret.
        secret: Zeroizing<[u8; 32]>,
    },
    /// Write or replace the epoch's record durably.
    SaveRecord {
        /// The epoch.
        epoch: u32,
        /// The record.
        record: Record,
    },
    /// Write the epoch's signatures durably.
    SaveSignatures {
        /// The epoch.
        epoch: u32,
        /// The graph.
        graph: [u8; 32],
        /// In the order of the graph's requests.
        signatures: Vec<[u8; 64]>,
    },
    /// Overwrite and remove the epoch's key; nothing to do if there is none.
    DeleteKey {
        /// The epoch.
        epoch: u32,
    },
    /// Answer.
    Reply(Reply),
    /// Answer with the signatures of this epoch, as they are on disk.
    ReplySignatures {
        /// The epoch.
        epoch: u32,
        /// The graph.
        graph: [u8; 32],
    },
}

/// Why a request is refused. Nothing has changed then.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// Another trunk.
    #[error("this signer is of another trunk")]
    Trunk,
    /// Too far ahead, or too many keys wait.
    #[error("no key for epoch {epoch} yet: at most {KEYS_MAX} wait, and {EPOCHS_AHEAD_MAX} epochs ahead")]
    Epoch {
        /// The epoch.
        epoch: u32,
    },
    /// The epoch's key was never made, or is deleted.
    #[error("there is no key for epoch {epoch}")]
    NoKey {
        /// The epoch.
        epoch: u32,
    },
    /// The proposal does not pass the review.
    #[error(transparent)]
    Review(#[from] ReviewError),
    /// The epoch is locked to another graph.
    #[error("epoch {epoch} is locked to another graph, {}", hex::encode(locked))]
    OtherGraph {
        /// The epoch.
        epoch: u32,
        /// The graph that was accepted first.
        locked: [u8; 32],
    },
    /// The epoch has all its signatures: nothing more of its graph is signed.
    #[error("epoch {epoch} is finished")]
    Finished {
        /// The epoch.
        epoch: u32,
    },
    /// The epoch before does not have all its signatures yet; its key signs this one's opening, and is deleted then.
    #[error("epoch {epoch} has to be finished first")]
    Unfinished {
        /// The epoch before.
        epoch: u32,
    },
    /// The proposal names another key than this signer's.
    #[error("the proposal has another key for this signer")]
    OwnKey,
    /// Nothing of this graph in memory: to be proposed again.
    #[error("the graph was not proposed since this signer started")]
    NotProposed,
    /// Another session, or none, or not that far.
    #[error("no such session: {0}")]
    Session(&'static str),
    /// A chunk that the session does not have.
    #[error("the session has no chunk {chunk}")]
    Chunk {
        /// The chunk.
        chunk: u32,
    },
    /// A statement that is missing or not as it should be.
    #[error("the statement of {signer} is missing or not as it should be")]
    Statement {
        /// Whose.
        signer: PartyId,
    },
    /// The nonces are not those that were committed to, or no points.
    #[error("the nonces of {signer} are not those that it committed to, or no points")]
    Nonces {
        /// Whose.
        signer: PartyId,
    },
    /// The chunk was signed under other statements already.
    #[error("the nonces of chunk {chunk} are spent")]
    Spent {
        /// The chunk.
        chunk: u32,
    },
    /// A signature is wrong.
    #[error("signature {index} does not hold")]
    Signature {
        /// Index of the first wrong one.
        index: usize,
    },
    /// Signing failed: a fault of this machine.
    #[error(transparent)]
    Musig(#[from] MusigError),
}

impl Refused {
    /// True if beginning again may cure it: from the status on, with a new session.
    #[must_use]
    pub fn again(&self) -> bool {
        matches!(self, Self::NotProposed | Self::Session(_) | Self::Spent { .. } | Self::Finished { .. })
    }
}

/// A graph in memory.
struct Signing {
    reviewed: Reviewed,
    session: Option<Session>,
}

/// A signer.
pub struct SignerMachine<R> {
    identity: Identity,
    signers: BTreeSet<PartyId>,
    trunk_id: [u8; 32],
    reviewer: R,
    keys: BTreeMap<u32, Zeroizing<[u8; 32]>>,
    recovery: BTreeMap<u32, Zeroizing<[u8; 32]>>,
    records: BTreeMap<u32, Record>,
    /// By epoch.
    signing: BTreeMap<u32, Signing>,
}

type Step = Result<Vec<Effect>, Refused>;

impl<R: Reviewer> SignerMachine<R> {
    /// From what is on disk; the effects finish what a kill interrupted and come first.
    #[must_use]
    pub fn load(
        identity: Identity,
        signers: impl IntoIterator<Item = PartyId>,
        trunk_id: [u8; 32],
        reviewer: R,
        stored: Stored,
    ) -> (Self, Vec<Effect>) {
        let Stored { mut keys, recovery, records } = stored;
        let over: Vec<u32> = keys.keys().copied().filter(|epoch| is_over(&records, *epoch)).collect();
        for epoch in &over {
            keys.remove(epoch);
        }
        let signers = signers.into_iter().collect();
        let signing = BTreeMap::new();
        let machine = Self { identity, signers, trunk_id, reviewer, keys, recovery, records, signing };
        (machine, over.into_iter().map(|epoch| Effect::DeleteKey { epoch }).collect())
    }

    /// One request. `randomness` is 32 fresh secret bytes, used for keys and nonces.
    ///
    /// # Errors
    /// A refusal; the state is as before, and there is nothing to do but to answer.
    pub fn step(&mut self, request: &Request, randomness: Zeroizing<[u8; 32]>) -> Step {
        match request {
            Request::Key { trunk_id, epoch } => self.key(trunk_id, *epoch, randomness),
            Request::Status { trunk_id, epoch } => self.status(trunk_id, *epoch),
            Request::Propose { proposal } => self.propose(proposal),
            Request::Open { graph, first_chunk } => self.open(graph, *first_chunk, &randomness),
            Request::Commits { commits } => self.commits(commits),
            Request::Reveal { session, chunk } => self.reveal(session, *chunk),
            Request::Sign { session, chunk, nonces } => self.sign(session, *chunk, nonces),
            Request::Final { epoch, graph, signatures } => self.finish(*epoch, graph, signatures),
            Request::Fetch { epoch } => self.fetch(*epoch),
        }
    }

    fn secret(&self, epoch: u32) -> Result<SecretKey, Refused> {
        read_secret(&self.keys, epoch)
    }

    /// What signs a graph of `epoch`.
    fn secrets(&self, epoch: u32, reviewed: &Reviewed) -> Result<Secrets, Refused> {
        let before = match (&reviewed.before, epoch.checked_sub(1)) {
            (Some(_), Some(before)) => Some(self.secret(before)?),
            (Some(_), None) => return Err(Refused::NoKey { epoch }),
            (None, _) => None,
        };
        Ok(Secrets { own: self.secret(epoch)?, before })
    }

    fn public(&self, epoch: u32) -> Result<PublicKey, Refused> {
        Ok(PublicKey::from_secret_key(secp(), &self.secret(epoch)?))
    }

    fn key(&mut self, trunk_id: &[u8; 32], epoch: u32, randomness: Zeroizing<[u8; 32]>) -> Step {
        if *trunk_id != self.trunk_id {
            return Err(Refused::Trunk);
        }
        let mut effects = Vec::new();
        let record = self.records.get(&epoch);
        if record.is_some_and(|record| record.finished) {
            return Err(Refused::Finished { epoch });
        }
        if !self.keys.contains_key(&epoch) {
            // An epoch that was locked once never gets a second key.
            if record.is_some() {
                return Err(Refused::NoKey { epoch });
            }
            let next = self.records.keys().next_back().map_or(0, |newest| newest.saturating_add(1));
            let far = epoch < next || epoch - next >= EPOCHS_AHEAD_MAX;
            let [secret, recovery] = fresh_keys(&randomness).ok_or(Refused::Epoch { epoch })?;
            if far || self.keys.len() >= KEYS_MAX {
                return Err(Refused::Epoch { epoch });
            }
            // Nobody heard of the recovery key before the epoch's is there: a kill in between does no harm.
            effects.push(Effect::SaveRecovery { epoch, secret: recovery.clone() });
            effects.push(Effect::SaveKey { epoch, secret: secret.clone() });
            self.recovery.insert(epoch, recovery);
            self.keys.insert(epoch, secret);
        }
        let recovery = PublicKey::from_secret_key(secp(), &read_secret(&self.recovery, epoch)?);
        let body = EpochPublic { epoch: self.public(epoch)?, recovery }.body();
        let scope = epoch_scope(&self.trunk_id, epoch);
        let statement = Statement::new(&self.identity, Kind::EpochKey, scope, 0, body);
        effects.push(Effect::Reply(Reply::Key(statement)));
        Ok(effects)
    }

    fn status(&self, trunk_id: &[u8; 32], epoch: u32) -> Step {
        if *trunk_id != self.trunk_id {
            return Err(Refused::Trunk);
        }
        let record = self.records.get(&epoch);
        let finished = record.is_some_and(|record| record.finished);
        let graph = record.map(|record| record.graph);
        Ok(vec![Effect::Reply(Reply::Status { graph, finished })])
    }

    fn propose(&mut self, proposal: &[u8]) -> Step {
        let graph = graph_id(proposal);
        let known = self.records.iter().find(|(_, record)| record.graph == graph);
        let known = known.map(|(epoch, record)| (*epoch, record.finished));
        if let Some((epoch, true)) = known {
            return Err(Refused::Finished { epoch });
        }
        // The same graph again: whatever was opened stays open.
        let in_memory = known.and_then(|(epoch, _)| self.signing.get(&epoch));
        if let Some(signing) = in_memory {
            return Ok(vec![Effect::Reply(accepted(graph, &signing.reviewed))]);
        }
        let ends = self.records.iter().map(|(epoch, record)| (*epoch, record.end.clone())).collect();
        let reviewed = self.reviewer.review(proposal, &ends)?;
        let epoch = reviewed.epoch;
        if let Some(record) = self.records.get(&epoch).filter(|record| record.graph != graph) {
            return Err(Refused::OtherGraph { epoch, locked: record.graph });
        }
        self.check_groups(epoch, &reviewed)?;
        let record = Record { graph, end: reviewed.end.clone(), finished: false };
        let reply = accepted(graph, &reviewed);
        let mut effects = Vec::new();
        if known.is_none() {
            self.records.insert(epoch, record.clone());
            effects.push(Effect::SaveRecord { epoch, record });
        }
        self.signing.insert(epoch, Signing { reviewed, session: None });
        effects.push(Effect::Reply(reply));
        Ok(effects)
    }

    /// Every group has all signers, and this one with the key that it has on disk.
    fn check_groups(&self, epoch: u32, reviewed: &Reviewed) -> Result<(), Refused> {
        if let (Some(_), Some(before)) = (&reviewed.before, epoch.checked_sub(1)) {
            // The end of this epoch's signing deletes the key of the one before: that must have all its signatures.
            if !self.records.get(&before).is_some_and(|record| record.finished) {
                return Err(Refused::Unfinished { epoch: before });
            }
        }
        let secrets = self.secrets(epoch, reviewed)?;
        let own = [(&reviewed.group, &secrets.own)];
        for (group, secret) in own.into_iter().chain(reviewed.before.as_ref().zip(secrets.before.as_ref())) {
            let key = PublicKey::from_secret_key(secp(), secret);
            let everyone = group.members.keys().eq(&self.signers);
            if !everyone || group.members.get(&self.identity.id()) != Some(&key) {
                return Err(Refused::OwnKey);
            }
        }
        Ok(())
    }

    /// The epoch that is locked to `graph`, not finished, and in memory.
    fn locked(&self, graph: &[u8; 32]) -> Result<u32, Refused> {
        let record = self.records.iter().find(|(_, record)| record.graph == *graph);
        let (epoch, record) = record.ok_or(Refused::NotProposed)?;
        if record.finished {
            return Err(Refused::Finished { epoch: *epoch });
        }
        if !self.signing.contains_key(epoch) {
            return Err(Refused::NotProposed);
        }
        Ok(*epoch)
    }

    fn open(&mut self, graph: &[u8; 32], first_chunk: u32, randomness: &Zeroizing<[u8; 32]>) -> Step {
        let epoch = self.locked(graph)?;
        let signing = self.signing.get(&epoch).ok_or(Refused::NotProposed)?;
        let secrets = self.secrets(epoch, &signing.reviewed)?;
        let signing = self.signing.get_mut(&epoch).ok_or(Refused::NotProposed)?;
        let session =
            Session::open(&self.identity, graph, &signing.reviewed, first_chunk, &secrets, randomness)?;
        let commit = session.commit().clone();
        signing.session = Some(session);
        Ok(vec![Effect::Reply(Reply::Opened(commit))])
    }

    fn commits(&mut self, commits: &[Statement]) -> Step {
        let graph = commits.first().ok_or(Refused::Session("no commits"))?.scope;
        let epoch = self.locked(&graph)?;
        let signing = self.signing.get_mut(&epoch).ok_or(Refused::NotProposed)?;
        let session = signing.session.as_mut().ok_or(Refused::Session("none is open"))?;
        let session = session.fix(&graph, &signing.reviewed, commits)?;
        Ok(vec![Effect::Reply(Reply::Committed { session })])
    }

    /// The epoch whose open session this is.
    fn in_session(&self, id: &[u8; 32]) -> Result<u32, Refused> {
        let is = |signing: &Signing| signing.session.as_ref().and_then(Session::id) == Some(id);
        let found = self.signing.iter().find(|(_, signing)| is(signing));
        found.map(|(epoch, _)| *epoch).ok_or(Refused::Session("it is over, or was never agreed on"))
    }

    fn reveal(&self, session: &[u8; 32], chunk: u32) -> Step {
        let epoch = self.in_session(session)?;
        let signing = self.signing.get(&epoch).ok_or(Refused::NotProposed)?;
        let open = signing.session.as_ref().ok_or(Refused::Session("none is open"))?;
        let nonces = open.reveal(&self.identity, chunk)?;
        Ok(vec![Effect::Reply(Reply::Nonces(nonces))])
    }

    fn sign(&mut self, session: &[u8; 32], chunk: u32, nonces: &[Statement]) -> Step {
        let epoch = self.in_session(session)?;
        let signing = self.signing.get(&epoch).ok_or(Refused::NotProposed)?;
        let secrets = self.secrets(epoch, &signing.reviewed)?;
        let signing = self.signing.get_mut(&epoch).ok_or(Refused::NotProposed)?;
        let open = signing.session.as_mut().ok_or(Refused::Session("none is open"))?;
        let partials = open.sign(&self.identity, &signing.reviewed, chunk, &secrets, nonces)?;
        Ok(vec![Effect::Reply(Reply::Partials(partials))])
    }

    fn finish(&mut self, epoch: u32, graph: &[u8; 32], signatures: &[[u8; 64]]) -> Step {
        let record = self.records.get(&epoch).ok_or(Refused::NotProposed)?;
        if record.graph != *graph {
            return Err(Refused::OtherGraph { epoch, locked: record.graph });
        }
        let reply = Effect::Reply(Reply::Finished { graph: *graph });
        if record.finished {
            return Ok(vec![reply]);
        }
        let reviewed = &self.signing.get(&epoch).ok_or(Refused::NotProposed)?.reviewed;
        if let Some(index) = reviewed.first_wrong(signatures) {
            return Err(Refused::Signature { index });
        }
        let record = Record { finished: true, ..record.clone() };
        self.records.insert(epoch, record.clone());
        self.signing.remove(&epoch);
        let mut effects = vec![
            Effect::SaveSignatures { epoch, graph: *graph, signatures: signatures.to_vec() },
            Effect::SaveRecord { epoch, record },
        ];
        // The epoch before has signed its last message: this one's opening.
        if let Some(before) = epoch.checked_sub(1) {
            self.keys.remove(&before);
            effects.push(Effect::DeleteKey { epoch: before });
        }
        effects.push(reply);
        Ok(effects)
    }

    fn fetch(&self, epoch: u32) -> Step {
        let record = self.records.get(&epoch).filter(|record| record.finished);
        let graph = record.ok_or(Refused::Session("the epoch is not finished"))?.graph;
        Ok(vec![Effect::ReplySignatures { epoch, graph }])
    }
}

/// True if an epoch's key has nothing left to sign: the next epoch is finished.
#[must_use]
pub fn is_over(records: &BTreeMap<u32, Record>, epoch: u32) -> bool {
    let next = epoch.checked_add(1).and_then(|next| records.get(&next));
    next.is_some_and(|record| record.finished)
}

fn read_secret(keys: &BTreeMap<u32, Zeroizing<[u8; 32]>>, epoch: u32) -> Result<SecretKey, Refused> {
    let bytes = keys.get(&epoch).ok_or(Refused::NoKey { epoch })?;
    SecretKey::from_slice(bytes.as_slice()).map_err(|_| Refused::NoKey { epoch })
}

/// The epoch's key and the recovery key from fresh randomness, which is not kept: neither leads to the other.
///
/// `None` with probability 2^-127, if one of them is no key; then the next request makes others.
fn fresh_keys(randomness: &Zeroizing<[u8; 32]>) -> Option<[Zeroizing<[u8; 32]>; 2]> {
    let names = ["assay l1 signer epoch key v1", "assay l1 signer recovery key v1"];
    let keys = names.map(|name| Zeroizing::new(blake3::derive_key(name, randomness.as_slice())));
    let good = keys.iter().all(|key| SecretKey::from_slice(key.as_slice()).is_ok());
    good.then_some(keys)
}

fn accepted(graph: [u8; 32], reviewed: &Reviewed) -> Reply {
    // The review bounds the number.
    Reply::Accepted { graph, requests: reviewed.messages.len() as u32 }
}
