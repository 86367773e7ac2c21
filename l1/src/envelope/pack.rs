//! Messages to envelopes: compression, and chunks listed by an aggregate.
//!
//! Chunks are named by their BLAKE3 hash, so all envelopes of a message can share one commit transaction: an aggregate
//! that named transactions would have to know ids that depend on itself.

use std::io::Read;

use super::message::{Message, Reader};
use super::{Codec, Envelope, EnvelopeError, Kind, BODY_BYTES_MAX, CHUNKS_MAX, MESSAGE_BYTES_MAX};

/// zstd's default: its window of 2 MiB is also the most a decoder here agrees to.
const ZSTD_LEVEL: i32 = 3;
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The envelopes of `message`: one, or its chunks followed by their aggregate, if the compressed body is longer than
/// `limit` (at most [`BODY_BYTES_MAX`]; tests use less to exercise chunks). A message to the rollup is one plain envelope always.
///
/// # Errors
/// `Limit` for a message over [`MESSAGE_BYTES_MAX`] or over [`CHUNKS_MAX`] chunks.
pub fn pack(message: &Message, limit: usize) -> Result<Vec<Envelope>, EnvelopeError> {
    let limit = limit.clamp(1, BODY_BYTES_MAX);
    let plain = message.encode();
    if plain.len() > MESSAGE_BYTES_MAX {
        return Err(EnvelopeError::Limit { what: "message", got: plain.len(), limit: MESSAGE_BYTES_MAX });
    }
    let plain_len = plain.len() as u32;
    if message.kind().is_to_rollup() {
        let envelope = Envelope { kind: message.kind(), codec: Codec::Plain, plain_len, stored: plain };
        return Ok(vec![envelope]);
    }
    let (codec, stored) = compress(plain);
    if stored.len() <= limit {
        return Ok(vec![Envelope { kind: message.kind(), codec, plain_len, stored }]);
    }
    let count = stored.len().div_ceil(limit);
    if count > CHUNKS_MAX {
        return Err(EnvelopeError::Limit { what: "number of chunks", got: count, limit: CHUNKS_MAX });
    }
    let aggregate = Aggregate {
        kind: message.kind(),
        codec,
        plain_len,
        stored_len: stored.len() as u32,
        stored_hash: blake3::hash(&stored).into(),
        chunks: stored.chunks(limit).map(|chunk| blake3::hash(chunk).into()).collect(),
    };
    let plain = |kind, stored: Vec<u8>| Envelope {
        kind,
        codec: Codec::Plain,
        plain_len: stored.len() as u32,
        stored,
    };
    let chunks = stored.chunks(limit).map(|chunk| plain(Kind::Chunk, chunk.to_vec()));
    Ok(chunks.chain([plain(Kind::Aggregate, aggregate.encode())]).collect())
}

/// zstd, unless that does not make it shorter.
fn compress(plain: Vec<u8>) -> (Codec, Vec<u8>) {
    match zstd::bulk::compress(&plain, ZSTD_LEVEL) {
        Ok(compressed) if compressed.len() < plain.len() => (Codec::Zstd, compressed),
        _ => (Codec::Plain, plain),
    }
}

/// The message in `stored`, which has `plain_len` bytes once decompressed; memory is bounded by that.
///
/// # Errors
/// `Compression`, `Length`, and those of [`Message::decode`].
pub fn unpack(kind: Kind, codec: Codec, plain_len: u32, stored: &[u8]) -> Result<Message, EnvelopeError> {
    let length = |got| EnvelopeError::Length { what: "message", expected: plain_len as usize, got };
    match codec {
        Codec::Plain if stored.len() != plain_len as usize => Err(length(stored.len())),
        Codec::Plain => Message::decode(kind, stored),
        Codec::Zstd if kind.is_to_rollup() => Err(EnvelopeError::Message { kind, detail: "compressed" }),
        Codec::Zstd => {
            let limit = u64::from(plain_len).min(MESSAGE_BYTES_MAX as u64);
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(stored).map_err(|_| EnvelopeError::Compression)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| EnvelopeError::Compression)?;
            let mut decoder = decoder.single_frame();
            let mut plain = Vec::new();
            // One byte more than announced tells a longer body.
            (&mut decoder).take(limit + 1).read_to_end(&mut plain).map_err(|_| EnvelopeError::Compression)?;
            if plain.len() != plain_len as usize {
                return Err(length(plain.len()));
            }
            if !decoder.finish().is_empty() {
                return Err(EnvelopeError::Compression);
            }
            Message::decode(kind, &plain)
        }
    }
}

/// The list of a message's chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregate {
    /// Type of the message.
    pub kind: Kind,
    /// How it is stored.
    pub codec: Codec,
    /// Length before compression.
    pub plain_len: u32,
    /// Length of all chunks together.
    pub stored_len: u32,
    /// BLAKE3 of all chunks together.
    pub stored_hash: [u8; 32],
    /// BLAKE3 of each chunk, in order.
    pub chunks: Vec<[u8; 32]>,
}

impl Aggregate {
    /// Type (1), codec (1), plain length (4), stored length (4), hash (32), count (2), hash of each chunk (32 each).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = self.chunks.len() as u16;
        let fields: [&[u8]; 6] = [
            &[self.kind.byte(), self.codec.byte()],
            &self.plain_len.to_le_bytes(),
            &self.stored_len.to_le_bytes(),
            &self.stored_hash,
            &count.to_le_bytes(),
            &self.chunks.concat(),
        ];
        fields.concat()
    }

    /// Reads [`encode`](Self::encode)'s bytes.
    ///
    /// # Errors
    /// `Message` if they have not this form; `Limit`.
    pub fn decode(body: &[u8]) -> Result<Self, EnvelopeError> {
        let bad = |detail| EnvelopeError::Message { kind: Kind::Aggregate, detail };
        let mut reader = Reader(body);
        let mut head = || {
            Some((reader.array::<2>()?, reader.u32()?, reader.u32()?, reader.word()?, reader.array::<2>()?))
        };
        let ([kind, codec], plain_len, stored_len, stored_hash, count) =
            head().ok_or_else(|| bad("too short"))?;
        let whole = |kind: &Kind| !kind.is_to_rollup() && !matches!(kind, Kind::Chunk | Kind::Aggregate);
        let kind = Kind::of(kind).filter(whole);
        let kind = kind.ok_or_else(|| bad("type of the message"))?;
        let codec = Codec::of(codec).ok_or_else(|| bad("unknown codec"))?;
        let count = usize::from(u16::from_le_bytes(count));
        let limits = [
            ("number of chunks", count, CHUNKS_MAX),
            ("message", plain_len as usize, MESSAGE_BYTES_MAX),
            ("stored message", stored_len as usize, MESSAGE_BYTES_MAX),
        ];
        for (what, got, limit) in limits {
            if got > limit {
                return Err(EnvelopeError::Limit { what, got, limit });
            }
        }
        if count == 0 || reader.0.len() != count * 32 {
            return Err(bad("count and hashes differ"));
        }
        let chunks = std::iter::from_fn(|| reader.word()).collect();
        Ok(Self { kind, codec, plain_len, stored_len, stored_hash, chunks })
    }

    /// The message, from its chunks in order.
    ///
    /// # Errors
    /// `Length`, `AggregateHash`, and those of [`unpack`].
    pub fn assemble(&self, chunks: &[&[u8]]) -> Result<Message, EnvelopeError> {
        let got = chunks.iter().map(|chunk| chunk.len()).sum();
        if got != self.stored_len as usize {
            let expected = self.stored_len as usize;
            return Err(EnvelopeError::Length { what: "chunks together", expected, got });
        }
        let stored = chunks.concat();
        if *blake3::hash(&stored).as_bytes() != self.stored_hash {
            return Err(EnvelopeError::AggregateHash);
        }
        unpack(self.kind, self.codec, self.plain_len, &stored)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(data: Vec<u8>) -> Message {
        let batch_hash = blake3::hash(&data).into();
        Message::Batch { epoch: 0x1234_5678, claim: 0x9abc_def0, batch_hash, data }
    }

    /// Bytes that do not compress.
    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn a_message_that_compresses_is_stored_compressed_and_one_that_does_not_is_not() {
        let envelopes = pack(&batch(vec![7; 100_000]), BODY_BYTES_MAX).unwrap();
        assert_eq!((envelopes.len(), envelopes[0].codec), (1, Codec::Zstd));
        assert!(envelopes[0].stored.len() < 200);
        let envelopes = pack(&batch(noise(1_000)), BODY_BYTES_MAX).unwrap();
        assert_eq!((envelopes.len(), envelopes[0].codec), (1, Codec::Plain));
    }

    #[test]
    fn chunks_begin_exactly_above_the_limit() {
        let message = batch(noise(960));
        assert_eq!(pack(&message, 1_000).unwrap().len(), 1);
        assert_eq!(pack(&message, 999).unwrap().len(), 3);
        assert_eq!(pack(&message, 500).unwrap().len(), 3);
        assert!(matches!(
            pack(&message, 3),
            Err(EnvelopeError::Limit { what: "number of chunks", got: 334, limit: CHUNKS_MAX })
        ));
    }

    #[test]
    fn a_bomb_stops_at_the_announced_length() {
        let bomb = zstd::bulk::compress(&vec![0; 32 << 20], 19).unwrap();
        let error = unpack(Kind::Batch, Codec::Zstd, 1_000, &bomb).unwrap_err();
        assert_eq!(error, EnvelopeError::Length { what: "message", expected: 1_000, got: 1_001 });
    }

    #[test]
    fn an_aggregate_refuses_chunks_in_another_order() {
        let envelopes = pack(&batch(noise(960)), 500).unwrap();
        let aggregate = Aggregate::decode(&envelopes[2].stored).unwrap();
        let (a, b) = (envelopes[0].stored.as_slice(), envelopes[1].stored.as_slice());
        assert_eq!(aggregate.assemble(&[a, b]).unwrap(), batch(noise(960)));
        assert_eq!(aggregate.assemble(&[b, a]).unwrap_err(), EnvelopeError::AggregateHash);
        assert!(matches!(aggregate.assemble(&[a]).unwrap_err(), EnvelopeError::Length { .. }));
    }

    proptest! {
        #[test]
        fn any_message_comes_back_from_its_envelopes(
            data in proptest::collection::vec(any::<u8>(), 0..3_000), limit in 100usize..2_000,
        ) {
            let message = batch(data);
            let envelopes = pack(&message, limit).unwrap();
            let (last, chunks) = envelopes.split_last().unwrap();
            let back = if last.kind == Kind::Aggregate {
                let chunks: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.stored.as_slice()).collect();
                Aggregate::decode(&last.stored).unwrap().assemble(&chunks)
            } else {
                unpack(last.kind, last.codec, last.plain_len, &last.stored)
            };
            prop_assert_eq!(back, Ok(message));
        }

        #[test]
        fn any_bytes_are_an_aggregate_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(aggregate) = Aggregate::decode(&bytes) {
                prop_assert_eq!(aggregate.encode(), bytes);
            }
        }

        #[test]
        fn damaged_frames_are_refused_or_read_without_panic(
            data in proptest::collection::vec(0u8..4, 200..2_000), at: prop::sample::Index, flip in 1u8..,
        ) {
            let envelope = pack(&batch(data), BODY_BYTES_MAX).unwrap().remove(0);
            let mut stored = envelope.stored;
            let at = at.index(stored.len());
            stored[at] ^= flip;
            let _ = unpack(envelope.kind, envelope.codec, envelope.plain_len, &stored);
            let _ = unpack(envelope.kind, envelope.codec, envelope.plain_len, &stored[..at]);
        }
    }
}
