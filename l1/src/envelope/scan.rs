//! Block to envelopes, envelopes to messages.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::taproot::LeafVersion;
use bitcoin::{Block, Script, Transaction, Txid, Witness};

use super::message::Message;
use super::pack::{unpack, Aggregate};
use super::script::decode;
use super::{Envelope, EnvelopeError, Kind, Tag};

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

/// Joins chunks to messages, across blocks, per author, whatever the order. Memory is bounded: beyond the limits the
/// oldest chunks and waiting aggregates are forgotten.
#[derive(Debug)]
pub struct Assembler {
    chunks: BTreeMap<(XOnlyPublicKey, [u8; 32]), Vec<u8>>,
    arrival: VecDeque<(XOnlyPublicKey, [u8; 32])>,
    bytes: usize,
    bytes_max: usize,
    waiting: VecDeque<(XOnlyPublicKey, Aggregate)>,
}

/// Aggregates that may wait for chunks at a time.
const WAITING_MAX: usize = 1_024;

impl Assembler {
    /// Holds at most `bytes_max` bytes of chunks.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            chunks: BTreeMap::new(),
            arrival: VecDeque::new(),
            bytes: 0,
            bytes_max,
            waiting: VecDeque::new(),
        }
    }

    /// Takes one envelope; returns the messages that it completes.
    pub fn take(
        &mut self,
        author: XOnlyPublicKey,
        envelope: Envelope,
    ) -> Vec<(XOnlyPublicKey, Result<Message, EnvelopeError>)> {
        match envelope.kind {
            Kind::Chunk => self.add_chunk(author, envelope.stored),
            Kind::Aggregate => match Aggregate::decode(&envelope.stored) {
                Err(error) => return vec![(author, Err(error))],
                Ok(aggregate) => {
                    if self.waiting.len() == WAITING_MAX {
                        self.waiting.pop_front();
                    }
                    self.waiting.push_back((author, aggregate));
                }
            },
            _ => {
                let message = unpack(envelope.kind, envelope.codec, envelope.plain_len, &envelope.stored);
                return vec![(author, message)];
            }
        }
        self.complete()
    }

    fn add_chunk(&mut self, author: XOnlyPublicKey, chunk: Vec<u8>) {
        let key = (author, *blake3::hash(&chunk).as_bytes());
        if self.chunks.contains_key(&key) {
            return;
        }
        self.bytes += chunk.len();
        self.chunks.insert(key, chunk);
        self.arrival.push_back(key);
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.arrival.pop_front() else { break };
            self.bytes -= self.chunks.remove(&oldest).map_or(0, |chunk| chunk.len());
        }
    }

    fn complete(&mut self) -> Vec<(XOnlyPublicKey, Result<Message, EnvelopeError>)> {
        let mut messages = Vec::new();
        let chunks = &self.chunks;
        self.waiting.retain(|(author, aggregate)| {
            let parts: Option<Vec<&[u8]>> = aggregate
                .chunks
                .iter()
                .map(|hash| chunks.get(&(*author, *hash)).map(Vec::as_slice))
                .collect();
            let Some(parts) = parts else { return true };
            messages.push((*author, aggregate.assemble(&parts)));
            false
        });
        messages
    }
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
            assert!(assembler.bytes <= 1_000 && assembler.chunks.len() <= 3);
        }
    }
}
