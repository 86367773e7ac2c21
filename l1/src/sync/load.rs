//! A claim's data, read again from where its envelopes are.

use std::collections::VecDeque;

use bitcoin::{Block, BlockHash, Txid};

use super::finding::{Finding, FindingKind};
use super::records::{Place, Source};
use super::state::PendingClaim;
use super::{Execute, Step, SyncError, SyncedClaim};
use crate::backend::{BackendError, BitcoinBackend};
use crate::envelope::message::{ClaimValues, Message};
use crate::envelope::pack::{unpack, Aggregate};
use crate::envelope::scan::tapscript;
use crate::envelope::script::decode_any_tag;
use crate::envelope::Envelope;

/// Reads envelopes; keeps the last block, since a message's envelopes lie close together.
#[derive(Debug, Default)]
pub(super) struct Loader {
    block: Option<(BlockHash, Box<Block>)>,
}

/// A claim, and the envelopes that belonged to it or to claims before it.
pub(super) struct Loaded {
    pub(super) claim: SyncedClaim,
    pub(super) places: Vec<Place>,
}

/// What a source turned out to be.
enum Read {
    Message(Message),
    Wrong(FindingKind),
}

impl Loader {
    /// The claim with its data. What is wrong with the data goes to `steps`.
    pub(super) fn claim(
        &mut self,
        pending: &PendingClaim,
        backend: &dyn BitcoinBackend,
        execute: &mut dyn Execute,
        steps: &mut VecDeque<Step>,
    ) -> Result<Loaded, SyncError> {
        let PendingClaim { epoch, claim, txid, height, is_linked, .. } = *pending;
        let values = pending.values().ok_or(SyncError::Config { field: "form of values" })?;
        let mut places = Vec::new();
        let mut found = Vec::new();
        let batch = self.batch(pending, &values, (backend, execute), (&mut places, &mut found))?;
        let proof = self.proof(pending, &values, backend, (&mut places, &mut found))?;
        let step = |(txid, kind)| Step::Finding(Box::new(Finding { height, txid, kind }));
        steps.extend(found.into_iter().map(step));
        let claim = SyncedClaim { epoch, claim, txid, height, values, is_linked, batch, proof };
        Ok(Loaded { claim, places })
    }

    /// The first published data whose hash is the signed one.
    fn batch(
        &mut self,
        pending: &PendingClaim,
        values: &ClaimValues,
        (backend, execute): (&dyn BitcoinBackend, &mut dyn Execute),
        (places, found): (&mut Vec<Place>, &mut Vec<(Txid, FindingKind)>),
    ) -> Result<Option<Vec<u8>>, SyncError> {
        let (epoch, claim) = (pending.epoch, pending.claim);
        let expected = hex::encode(values.batch_hash);
        let wrong = |got: String| FindingKind::BatchHash { epoch, claim, expected: expected.clone(), got };
        let mut incomplete = Vec::new();
        for source in &pending.batches {
            let (at, read) = match self.read(source, backend)? {
                Ok(read) => (source.place(), read),
                Err(missing) => {
                    incomplete.push((source.place().txid, missing));
                    continue;
                }
            };
            let (batch_hash, data) = match read {
                Read::Message(Message::Batch { epoch: of, claim: number, batch_hash, data })
                    if (of, number) == (epoch, claim) =>
                {
                    (batch_hash, data)
                }
                Read::Message(message) => {
                    // One of a claim to come stays; what is older, or nothing of the kind, has had its time.
                    if !is_later(&message, (epoch, claim)) {
                        places.extend(source.places());
                    }
                    continue;
                }
                Read::Wrong(kind) => {
                    places.extend(source.places());
                    found.push((at.txid, kind));
                    continue;
                }
            };
            places.extend(source.places());
            if batch_hash != values.batch_hash {
                found.push((at.txid, wrong(format!("announced as {}", hex::encode(batch_hash)))));
                continue;
            }
            match execute.batch_hash(&data) {
                Ok(hash) if hash == values.batch_hash => return Ok(Some(data)),
                Ok(hash) => found.push((at.txid, wrong(hex::encode(hash)))),
                Err(detail) => found.push((at.txid, wrong(detail))),
            }
        }
        found.extend(incomplete);
        found.push((pending.txid, FindingKind::BatchMissing { epoch, claim, batch_hash: expected }));
        Ok(None)
    }

    /// The first published proof of exactly the signed values.
    fn proof(
        &mut self,
        pending: &PendingClaim,
        values: &ClaimValues,
        backend: &dyn BitcoinBackend,
        (places, found): (&mut Vec<Place>, &mut Vec<(Txid, FindingKind)>),
    ) -> Result<Option<Vec<u8>>, SyncError> {
        let (epoch, claim) = (pending.epoch, pending.claim);
        for source in &pending.data {
            let Ok(read) = self.read(source, backend)? else { continue };
            match read {
                Read::Message(Message::ClaimData { epoch: of, claim: number, values: stated, proof })
                    if (of, number) == (epoch, claim) =>
                {
                    places.extend(source.places());
                    if stated == *values {
                        return Ok(Some(proof));
                    }
                    found.push((source.place().txid, FindingKind::ClaimData { epoch, claim }));
                }
                Read::Message(message) if is_later(&message, (epoch, claim)) => {}
                Read::Message(_) => places.extend(source.places()),
                Read::Wrong(kind) => {
                    places.extend(source.places());
                    found.push((source.place().txid, kind));
                }
            }
        }
        found.push((pending.txid, FindingKind::ProofMissing { epoch, claim }));
        Ok(None)
    }

    /// The message of a source, or what is missing of it.
    fn read(
        &mut self,
        source: &Source,
        backend: &dyn BitcoinBackend,
    ) -> Result<Result<Read, FindingKind>, SyncError> {
        let (list, chunks) = match source {
            Source::Single(place) => {
                let envelope = self.envelope(place, backend)?;
                let message = unpack(envelope.kind, envelope.codec, envelope.plain_len, &envelope.stored);
                return Ok(Ok(match message {
                    Ok(message) => Read::Message(message),
                    Err(error) => Read::Wrong(FindingKind::Envelope { detail: error.to_string() }),
                }));
            }
            Source::Joined { list, chunks } => (list, chunks),
        };
        let mut missing = chunks.iter().filter(|(_, place)| place.is_none()).peekable();
        if let Some((first, _)) = missing.peek().copied() {
            return Ok(Err(FindingKind::ChunksMissing {
                missing: missing.count() as u32,
                count: chunks.len() as u32,
                first: first.clone(),
            }));
        }
        let list = self.envelope(list, backend)?;
        let mut stored = Vec::with_capacity(chunks.len());
        for place in chunks.iter().filter_map(|(_, place)| place.as_ref()) {
            stored.push(self.envelope(place, backend)?.stored);
        }
        let parts: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();
        let message = Aggregate::decode(&list.stored).and_then(|aggregate| aggregate.assemble(&parts));
        Ok(Ok(match message {
            Ok(message) => Read::Message(message),
            Err(error) => Read::Wrong(FindingKind::Chunks { detail: error.to_string() }),
        }))
    }

    /// The envelope at a place where one was found before.
    fn envelope(&mut self, place: &Place, backend: &dyn BitcoinBackend) -> Result<Envelope, SyncError> {
        let gone = SyncError::Reorganised { height: place.height };
        if self.block.as_ref().is_none_or(|(hash, _)| *hash != place.block) {
            let block = match backend.block(&place.block) {
                Ok(block) => block,
                Err(BackendError::NotFound { .. }) => return Err(gone),
                Err(error) => return Err(error.into()),
            };
            self.block = Some((place.block, Box::new(block)));
        }
        let block = self.block.as_ref().map(|(_, block)| block);
        let tx = block.and_then(|block| block.txdata.iter().find(|tx| tx.compute_txid() == place.txid));
        let input = tx.and_then(|tx| tx.input.get(place.vin as usize));
        let envelope = input.and_then(|input| decode_any_tag(tapscript(&input.witness)?)?.ok());
        envelope.map(|(_, envelope)| envelope).ok_or(gone)
    }
}

fn is_later(message: &Message, current: (u32, u32)) -> bool {
    match message {
        Message::Batch { epoch, claim, .. } | Message::ClaimData { epoch, claim, .. } => {
            (*epoch, *claim) > current
        }
        _ => false,
    }
}

impl Source {
    fn place(&self) -> Place {
        match self {
            Self::Single(place) | Self::Joined { list: place, .. } => *place,
        }
    }

    fn places(&self) -> Vec<Place> {
        match self {
            Self::Single(place) => vec![*place],
            Self::Joined { list, chunks } => {
                [*list].into_iter().chain(chunks.iter().filter_map(|(_, place)| *place)).collect()
            }
        }
    }
}
