//! A graph of a few messages for the state machines' tests: they do not depend on what is signed.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_l1_signer::identity::{Identity, PartyId};
use assay_l1_signer::machine::{Effect, SignerMachine, Stored};
use assay_l1_signer::review::{Group, ReviewError, Reviewed, Reviewer};
use assay_l1_signer::statement::Statement;
use assay_l1_signer::wire::message::{Reply, Request};
use bitcoin::secp256k1::PublicKey;
use zeroize::Zeroizing;

pub(crate) const TRUNK: [u8; 32] = [7; 32];
/// Messages of a graph: two chunks of two and one of one; with an epoch before, one of one for its keys and two of two.
pub(crate) const MESSAGES: usize = 5;

/// Reads what [`proposal`] writes.
pub(crate) struct Tiny;

pub(crate) type Members = BTreeMap<PartyId, PublicKey>;

/// Epoch, salt, number of signers, and each signer with its key; then the same for the epoch before, if it has a message.
pub(crate) fn proposal(epoch: u32, salt: u8, members: &Members, before: Option<&Members>) -> Vec<u8> {
    let mut bytes = epoch.to_le_bytes().to_vec();
    bytes.extend([salt, members.len() as u8]);
    for (signer, key) in members.iter().chain(before.into_iter().flatten()) {
        bytes.extend(signer.0);
        bytes.extend(key.serialize());
    }
    bytes
}

impl Reviewer for Tiny {
    fn review(&self, proposal: &[u8], _: &BTreeMap<u32, Vec<u8>>) -> Result<Reviewed, ReviewError> {
        let epoch = u32::from_le_bytes(proposal[..4].try_into().unwrap());
        let member = |bytes: &[u8]| {
            let id = PartyId(bytes[..32].try_into().unwrap());
            (id, PublicKey::from_slice(&bytes[32..]).unwrap())
        };
        let (now, before) = proposal[6..].split_at(65 * usize::from(proposal[5]));
        let group = |bytes: &[u8]| Group::new(bytes.chunks_exact(65).map(member).collect());
        let before = (!before.is_empty()).then(|| group(before)).transpose()?;
        let message = |index: usize| *blake3::hash(&[proposal, &index.to_le_bytes()].concat()).as_bytes();
        let messages = Arc::new((0..MESSAGES).map(message).collect());
        let end = vec![proposal[4]];
        Ok(Reviewed { epoch, group: group(now)?, before, messages, chunk_requests: 2, end })
    }
}

pub(crate) fn identity(byte: u8) -> Identity {
    Identity::from_bytes(&[byte; 32]).unwrap()
}

/// What survives a kill.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) stored: Stored,
    pub(crate) signatures: BTreeMap<u32, Vec<[u8; 64]>>,
}

impl Disk {
    pub(crate) fn carry_out(&mut self, effect: Effect) -> Option<Reply> {
        match effect {
            Effect::SaveKey { epoch, secret } => drop(self.stored.keys.insert(epoch, secret)),
            Effect::SaveRecovery { epoch, secret } => drop(self.stored.recovery.insert(epoch, secret)),
            Effect::SaveRecord { epoch, record } => drop(self.stored.records.insert(epoch, record)),
            Effect::SaveSignatures { epoch, signatures, .. } => {
                self.signatures.insert(epoch, signatures);
            }
            Effect::DeleteKey { epoch } => drop(self.stored.keys.remove(&epoch)),
            Effect::Reply(reply) => return Some(reply),
            Effect::ReplySignatures { epoch, graph } => {
                return Some(Reply::Signatures { graph, signatures: self.signatures[&epoch].clone() });
            }
        }
        None
    }

    pub(crate) fn copy(&self) -> Stored {
        let Stored { keys, recovery, records } = &self.stored;
        Stored { keys: keys.clone(), recovery: recovery.clone(), records: records.clone() }
    }
}

/// A signer with its disk.
pub(crate) struct Signer {
    pub(crate) identity: Identity,
    everyone: Vec<PartyId>,
    pub(crate) machine: SignerMachine<Tiny>,
    pub(crate) disk: Disk,
}

impl Signer {
    pub(crate) fn new(identity: Identity, everyone: &[PartyId]) -> Self {
        let disk = Disk::default();
        let everyone = everyone.to_vec();
        let parts = (identity.clone(), everyone.clone(), TRUNK, Tiny, Stored::default());
        let (machine, _) = SignerMachine::load(parts.0, parts.1, parts.2, parts.3, parts.4);
        Self { identity, everyone, machine, disk }
    }

    /// The process dies, and begins again from its disk.
    pub(crate) fn kill(&mut self) {
        let loaded =
            SignerMachine::load(self.identity.clone(), self.everyone.clone(), TRUNK, Tiny, self.disk.copy());
        self.machine = loaded.0;
        for effect in loaded.1 {
            self.disk.carry_out(effect);
        }
    }

    /// A request, and a kill after so many effects.
    pub(crate) fn ask(
        &mut self,
        request: &Request,
        randomness: [u8; 32],
        killed_after: Option<usize>,
    ) -> Option<Reply> {
        let mut reply = None;
        match self.machine.step(request, Zeroizing::new(randomness)) {
            Err(refused) => reply = Some(Reply::refused(refused.again(), &refused)),
            Ok(effects) => {
                for (count, effect) in effects.into_iter().enumerate() {
                    if killed_after == Some(count) {
                        self.kill();
                        return None;
                    }
                    reply = self.disk.carry_out(effect).or(reply);
                }
            }
        }
        if killed_after.is_some() {
            self.kill();
        }
        reply
    }

    pub(crate) fn key(&mut self, epoch: u32, randomness: [u8; 32]) -> PublicKey {
        match self.ask(&Request::Key { trunk_id: TRUNK, epoch }, randomness, None) {
            Some(Reply::Key(statement)) => statement.epoch_keys().unwrap().epoch,
            other => panic!("{other:?}"),
        }
    }
}

/// Checks that a public nonce is only ever used for one message under one set of nonces.
#[derive(Debug, Default)]
pub(crate) struct NonceWatch {
    used: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) signed: BTreeMap<[u8; 32], Vec<u8>>,
}

impl NonceWatch {
    /// `signer` answered a `Sign` request with partial signatures.
    pub(crate) fn saw(&mut self, signer: PartyId, reviewed: &Reviewed, chunk: u32, nonces: &[Statement]) {
        let own = nonces.iter().find(|statement| statement.sender == signer).unwrap();
        for (index, message) in reviewed.chunk(chunk).unwrap().iter().enumerate() {
            let of = |statement: &Statement| statement.body[66 * index..66 * (index + 1)].to_vec();
            let mut all: Vec<_> = nonces.iter().map(of).collect();
            all.sort();
            let context = [message.to_vec(), all.concat()].concat();
            let before = self.used.insert(of(own), context.clone());
            assert!(before.is_none_or(|before| before == context), "a nonce was used twice");
            self.signed.insert(*message, context);
        }
    }

    pub(crate) fn uses(&self) -> usize {
        self.used.len()
    }
}
