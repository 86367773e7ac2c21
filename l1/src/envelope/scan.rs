//! Block to envelopes, envelopes to messages.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::taproot::LeafVersion;
use bitcoin::{Block, Script, Transaction, Txid, Witness};

use super::message::Message;
use super::pack::{unpack, Aggregate};
use super::script::decode;
use super::{Envelope, EnvelopeError, Kind, Tag, CHUNKS_MAX};

/// An envelope found in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The reveal.
    pub txid: Txid,
    /// Its input.
    pub vin: u32,
    /// Author and envelope, or why it is malformed. The author signed the reveal: consensus checked that.
    pub envelope: Result<(XOnlyPublicKey, Envelope), EnvelopeError>,
}

/// All envelopes with `tag` in `block`, in the order of transactions and inputs.
#[must_use]
pub fn scan(block: &Block, tag: &Tag) -> Vec<Found> {
    block.txdata.iter().flat_map(|tx| scan_transaction(tx, tag)).collect()
}

/// All envelopes with `tag` in `tx`, in the order of inputs.
#[must_use]
pub fn scan_transaction(tx: &Transaction, tag: &Tag) -> Vec<Found> {
    let envelopes = tx.input.iter().enumerate().filter_map(|(vin, input)| {
        let envelope = decode(tapscript(&input.witness)?, tag)?;
        Some((vin as u32, envelope))
    });
    let mut envelopes = envelopes.peekable();
    if envelopes.peek().is_none() {
        return Vec::new();
    }
    let txid = tx.compute_txid();
    envelopes.map(|(vin, envelope)| Found { txid, vin, envelope }).collect()
}

/// The script of a script-path spend that consensus has run: leaf version 0xc0 and nothing else, because under any other
/// version the script, and with it the author's signature, was not looked at.
pub(crate) fn tapscript(witness: &Witness) -> Option<&Script> {
    const ANNEX: u8 = 0x50;
    let mut items = witness.len();
    if items >= 2 && witness.nth(items - 1)?.first() == Some(&ANNEX) {
        items -= 1;
    }
    let control = witness.nth(items.checked_sub(1)?)?;
    let script = witness.nth(items.checked_sub(2)?)?;
    let version = control.first()? & 0xfe;
    let whole = control.len() >= 33 && (control.len() - 33) % 32 == 0;
    (whole && version == LeafVersion::TapScript.to_consensus()).then(|| Script::from_bytes(script))
}

/// Joins chunks to messages, across blocks, per author, whatever the order. Memory is bounded, and shared fairly: beyond the limits
/// whoever holds the most loses its oldest chunks and waiting aggregates, so nobody is pushed out by an author who holds more.
#[derive(Debug)]
pub struct Assembler {
    chunks: BTreeMap<(XOnlyPublicKey, [u8; 32]), Vec<u8>>,
    /// The chunks in the order in which they came.
    arrival: BTreeMap<(XOnlyPublicKey, u64), [u8; 32]>,
    /// Bytes of chunks.
    held: Shares,
    bytes_max: usize,
    waiting: BTreeMap<(XOnlyPublicKey, u64), Waiting>,
    /// Which aggregates to look at when a chunk comes.
    missing: BTreeMap<(XOnlyPublicKey, [u8; 32]), BTreeSet<u64>>,
    /// Hashes in waiting aggregates.
    listed: Shares,
    /// Number of the next chunk or aggregate.
    next: u64,
}

/// An aggregate whose chunks are not all there.
#[derive(Debug)]
struct Waiting {
    aggregate: Aggregate,
    /// The first chunk that was missing when it was last looked at.
    missing: [u8; 32],
}

/// Hashes that waiting aggregates list, at most: 1,024 aggregates of the longest.
const LISTED_MAX: usize = 1_024 * CHUNKS_MAX;

/// How much of something each author holds.
#[derive(Debug, Default)]
struct Shares {
    by_author: BTreeMap<XOnlyPublicKey, usize>,
    by_size: BTreeSet<(usize, XOnlyPublicKey)>,
    total: usize,
}

impl Shares {
    fn change(&mut self, author: XOnlyPublicKey, change: impl FnOnce(usize) -> usize) {
        let before = self.by_author.remove(&author).unwrap_or(0);
        self.by_size.remove(&(before, author));
        let after = change(before);
        if after > 0 {
            self.by_author.insert(author, after);
            self.by_size.insert((after, author));
        }
        self.total = self.total + after - before;
    }

    /// Who holds the most, if all together hold more than `limit`.
    fn over(&self, limit: usize) -> Option<XOnlyPublicKey> {
        self.by_size.last().filter(|_| self.total > limit).map(|(_, author)| *author)
    }
}

impl Assembler {
    /// Holds at most `bytes_max` bytes of chunks.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            chunks: BTreeMap::new(),
            arrival: BTreeMap::new(),
            held: Shares::default(),
            bytes_max,
            waiting: BTreeMap::new(),
            missing: BTreeMap::new(),
            listed: Shares::default(),
            next: 0,
        }
    }

    /// Takes one envelope; returns the messages that it completes. Cost: as many look-ups as the aggregates that wait for it list
    /// chunks.
    pub fn take(
        &mut self,
        author: XOnlyPublicKey,
        envelope: Envelope,
    ) -> Vec<(XOnlyPublicKey, Result<Message, EnvelopeError>)> {
        let messages = match envelope.kind {
            Kind::Chunk => self.add_chunk(author, envelope.stored),
            Kind::Aggregate => match Aggregate::decode(&envelope.stored) {
                Err(error) => vec![Err(error)],
                Ok(aggregate) => self.join_or_wait(author, aggregate).into_iter().collect(),
            },
            _ => vec![unpack(envelope.kind, envelope.codec, envelope.plain_len, &envelope.stored)],
        };
        messages.into_iter().map(|message| (author, message)).collect()
    }

    fn add_chunk(&mut self, author: XOnlyPublicKey, chunk: Vec<u8>) -> Vec<Result<Message, EnvelopeError>> {
        let hash: [u8; 32] = blake3::hash(&chunk).into();
        if self.chunks.contains_key(&(author, hash)) {
            return Vec::new();
        }
        self.held.change(author, |held| held + chunk.len());
        self.chunks.insert((author, hash), chunk);
        self.arrival.insert((author, self.next), hash);
        self.next += 1;
        let numbers = self.missing.remove(&(author, hash)).unwrap_or_default();
        let mut messages = Vec::new();
        for number in numbers {
            let Some(waiting) = self.waiting.remove(&(author, number)) else { continue };
            self.listed.change(author, |listed| listed - waiting.aggregate.chunks.len());
            messages.extend(self.join_or_wait(author, waiting.aggregate));
        }
        while let Some(author) = self.held.over(self.bytes_max) {
            let Some((place, hash)) = self.arrival.range(of(author)).next() else { break };
            let (place, hash) = (*place, *hash);
            self.arrival.remove(&place);
            let bytes = self.chunks.remove(&(author, hash)).map_or(0, |chunk| chunk.len());
            self.held.change(author, |held| held - bytes);
        }
        messages
    }

    /// The message of an aggregate; `None` if a chunk is missing, for which it then waits.
    fn join_or_wait(
        &mut self,
        author: XOnlyPublicKey,
        aggregate: Aggregate,
    ) -> Option<Result<Message, EnvelopeError>> {
        let here = |hash: &[u8; 32]| self.chunks.get(&(author, *hash)).map(Vec::as_slice);
        if let Some(missing) = aggregate.chunks.iter().copied().find(|hash| here(hash).is_none()) {
            self.wait(author, Waiting { aggregate, missing });
            return None;
        }
        let parts: Vec<&[u8]> = aggregate.chunks.iter().filter_map(here).collect();
        Some(aggregate.assemble(&parts))
    }

    fn wait(&mut self, author: XOnlyPublicKey, waiting: Waiting) {
        self.missing.entry((author, waiting.missing)).or_default().insert(self.next);
        self.listed.change(author, |listed| listed + waiting.aggregate.chunks.len());
        self.waiting.insert((author, self.next), waiting);
        self.next += 1;
        while let Some(author) = self.listed.over(LISTED_MAX) {
            let Some((place, _)) = self.waiting.range(of(author)).next() else { break };
            let place = *place;
            let Some(waiting) = self.waiting.remove(&place) else { break };
            self.listed.change(author, |listed| listed - waiting.aggregate.chunks.len());
            if let Entry::Occupied(mut others) = self.missing.entry((author, waiting.missing)) {
                others.get_mut().remove(&place.1);
                if others.get().is_empty() {
                    others.remove();
                }
            }
        }
    }
}

/// The places of everything of an author.
fn of(author: XOnlyPublicKey) -> RangeInclusive<(XOnlyPublicKey, u64)> {
    (author, 0)..=(author, u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::pack::pack;
    use super::*;
    use crate::graph::terms::tests::{secret, terms};
    use crate::keys::KeyRole;

    fn batch(len: usize) -> Message {
        let data = (0..len as u32)
            .flat_map(|index| blake3::hash(&index.to_le_bytes()).as_bytes()[..8].to_vec())
            .collect();
        Message::Batch { epoch: 0, claim: 1, batch_hash: [2; 32], data }
    }

    #[test]
    fn chunks_in_any_order_give_the_message_once() {
        let author = terms().operator_key;
        let envelopes = pack(&batch(200), 500).unwrap();
        assert_eq!(envelopes.len(), 5);
        for start in 0..envelopes.len() {
            let mut assembler = Assembler::new(1 << 20);
            let mut messages = Vec::new();
            for index in 0..envelopes.len() {
                let envelope = envelopes[(start + index) % envelopes.len()].clone();
                messages.extend(assembler.take(author, envelope));
            }
            assert_eq!(messages, vec![(author, Ok(batch(200)))]);
        }
    }

    #[test]
    fn chunks_of_another_author_do_not_count() {
        let author = terms().operator_key;
        let other = secret().public_key(&[0; 32], KeyRole::Wallet);
        let envelopes = pack(&batch(200), 500).unwrap();
        let mut assembler = Assembler::new(1 << 20);
        for (index, envelope) in envelopes.iter().enumerate() {
            let by = if index == 1 { other } else { author };
            assert!(assembler.take(by, envelope.clone()).is_empty());
        }
        assert_eq!(assembler.take(author, envelopes[1].clone()).len(), 1);
    }

    #[test]
    fn memory_for_chunks_is_bounded() {
        let author = terms().operator_key;
        let mut assembler = Assembler::new(1_000);
        for envelope in pack(&batch(500), 400).unwrap() {
            assert!(assembler.take(author, envelope).is_empty());
            assert!(assembler.held.total <= 1_000 && assembler.chunks.len() <= 3);
            assert_eq!(assembler.arrival.len(), assembler.chunks.len());
        }
    }

    /// A list of chunks that never come, different for each number.
    fn idle(number: u32, chunks: u32) -> Envelope {
        let hash = |chunk: u32| blake3::hash(&[number.to_le_bytes(), chunk.to_le_bytes()].concat()).into();
        let chunks = (0..chunks).map(hash).collect();
        let aggregate = Aggregate {
            kind: Kind::Batch,
            codec: super::super::Codec::Plain,
            plain_len: 1,
            stored_len: 1,
            stored_hash: [0; 32],
            chunks,
        };
        let stored = aggregate.encode();
        let plain_len = stored.len() as u32;
        Envelope { kind: Kind::Aggregate, codec: super::super::Codec::Plain, plain_len, stored }
    }

    #[test]
    fn no_number_of_another_authors_aggregates_pushes_one_out_and_memory_for_them_is_bounded() {
        let author = terms().operator_key;
        let other = secret().public_key(&[0; 32], KeyRole::Wallet);
        let mut envelopes = pack(&batch(200), 500).unwrap();
        let aggregate = envelopes.pop().unwrap();
        for (count, chunks) in [(5_000, 1), (1_200, CHUNKS_MAX as u32)] {
            let mut assembler = Assembler::new(1 << 20);
            assert!(assembler.take(author, aggregate.clone()).is_empty());
            for number in 0..count {
                assert!(assembler.take(other, idle(number, chunks)).is_empty());
            }
            assert!(assembler.listed.total <= LISTED_MAX);
            let listed: usize =
                assembler.waiting.values().map(|waiting| waiting.aggregate.chunks.len()).sum();
            let watched: usize = assembler.missing.values().map(BTreeSet::len).sum();
            assert_eq!((listed, watched), (assembler.listed.total, assembler.waiting.len()));
            let chunks = envelopes.iter().cloned();
            let messages: Vec<_> = chunks.flat_map(|chunk| assembler.take(author, chunk)).collect();
            assert_eq!(messages, vec![(author, Ok(batch(200)))]);
        }
    }

    #[test]
    fn another_authors_chunks_push_out_their_own_only() {
        let author = terms().operator_key;
        let other = secret().public_key(&[0; 32], KeyRole::Wallet);
        let envelopes = pack(&batch(200), 500).unwrap();
        let mut assembler = Assembler::new(4_000);
        let (last, rest) = envelopes.split_last().unwrap();
        for envelope in rest {
            assert!(assembler.take(author, envelope.clone()).is_empty());
        }
        for envelope in pack(&batch(5_000), 400).unwrap() {
            assert!(assembler.take(other, envelope).is_empty());
        }
        assert_eq!(assembler.take(author, last.clone()), vec![(author, Ok(batch(200)))]);
    }

    #[test]
    fn a_message_whose_chunk_was_forgotten_meanwhile_is_complete_once_it_comes_again() {
        let author = terms().operator_key;
        let envelopes = pack(&batch(200), 500).unwrap();
        // One chunk does not fit in.
        let bytes: usize = envelopes[..4].iter().map(|envelope| envelope.stored.len()).sum();
        let mut assembler = Assembler::new(bytes);
        assert!(assembler.take(author, envelopes[4].clone()).is_empty());
        assert!(assembler.take(author, envelopes[0].clone()).is_empty());
        let noise = Envelope { stored: vec![7; bytes], plain_len: bytes as u32, ..envelopes[1].clone() };
        assert!(assembler.take(author, noise).is_empty());
        for envelope in &envelopes[1..4] {
            assert!(assembler.take(author, envelope.clone()).is_empty());
        }
        assert_eq!(assembler.take(author, envelopes[0].clone()), vec![(author, Ok(batch(200)))]);
    }

    #[test]
    fn chunks_that_many_aggregates_share_complete_all_of_them() {
        let author = terms().operator_key;
        let envelopes = pack(&batch(200), 500).unwrap();
        let mut assembler = Assembler::new(1 << 20);
        for _ in 0..3 {
            assert!(assembler.take(author, envelopes[4].clone()).is_empty());
        }
        let chunks = envelopes[..4].iter().cloned();
        let messages: Vec<_> = chunks.flat_map(|chunk| assembler.take(author, chunk)).collect();
        assert_eq!(messages, vec![(author, Ok(batch(200))); 3]);
        assert!(assembler.waiting.is_empty() && assembler.missing.is_empty());
        assert_eq!(assembler.listed.total, 0);
    }
}
