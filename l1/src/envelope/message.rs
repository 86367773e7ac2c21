//! What is published: typed messages and their bytes. Integers are little endian.

use assay_l1_light::message::Body;

use super::{EnvelopeError, Kind, MESSAGE_BYTES_MAX};
use crate::graph::terms::EpochTerms;

/// Largest proof in a claim message, in bytes. A compressed Groth16 proof over BN254 has 128.
pub const PROOF_BYTES_MAX: usize = 4_096;

/// The values a claim states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimValues {
    /// State commitment before the batch.
    pub prev_commitment: [u8; 32],
    /// State commitment after it.
    pub new_commitment: [u8; 32],
    /// Hash of the batch.
    pub batch_hash: [u8; 32],
    /// Root of the code control group.
    pub code_root: [u8; 32],
    /// BLAKE3 digest of the four above in this order, top 3 bits cleared: the proof's public input.
    pub digest: [u8; 32],
}

impl ClaimValues {
    /// The values in the order of [`ClaimValue::ALL`](crate::graph::terms::ClaimValue::ALL).
    #[must_use]
    pub fn fields(&self) -> [&[u8; 32]; 5] {
        [&self.prev_commitment, &self.new_commitment, &self.batch_hash, &self.code_root, &self.digest]
    }

    /// The digest that the first four values must have: BLAKE3 of their 128 bytes, top 3 bits cleared so that it is an
    /// element of BN254's scalar field (SP1's rule).
    #[must_use]
    pub fn expected_digest(&self) -> [u8; 32] {
        let [prev, new, batch, code, _] = self.fields();
        let mut digest: [u8; 32] = blake3::hash(&[*prev, *new, *batch, *code].concat()).into();
        digest[0] &= 0x1f;
        digest
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// What a reader needs to execute a batch. Body: epoch (4), claim (4), batch hash (32), data.
    Batch {
        /// Epoch of the claim this belongs to.
        epoch: u32,
        /// The claim within the epoch.
        claim: u32,
        /// Hash of the batch, as claimed.
        batch_hash: [u8; 32],
        /// The batch's own encoding.
        data: Vec<u8>,
    },
    /// A claim's public values and proof. Body: epoch (4), claim (4), the five values (160), proof.
    ClaimData {
        /// Epoch of the claim.
        epoch: u32,
        /// The claim within the epoch.
        claim: u32,
        /// What is claimed.
        values: ClaimValues,
        /// The proof's own encoding.
        proof: Vec<u8>,
    },
    /// The terms of an epoch. Body: [`EpochTerms::encode`].
    Epoch(Box<EpochTerms>),
    /// A forced transaction or a deposit. Body: [`Body::encode`].
    ToRollup(Body),
}

impl Message {
    /// The type byte's meaning.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Batch { .. } => Kind::Batch,
            Self::ClaimData { .. } => Kind::ClaimData,
            Self::Epoch(_) => Kind::Epoch,
            Self::ToRollup(Body::Forced(_)) => Kind::Forced,
            Self::ToRollup(Body::Deposit { .. }) => Kind::Deposit,
        }
    }

    /// The body's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Batch { epoch, claim, batch_hash, data } => {
                [&epoch.to_le_bytes(), &claim.to_le_bytes(), batch_hash.as_slice(), data].concat()
            }
            Self::ClaimData { epoch, claim, values, proof } => {
                let values = values.fields().map(|field| *field).concat();
                [&epoch.to_le_bytes(), &claim.to_le_bytes(), values.as_slice(), proof].concat()
            }
            Self::Epoch(terms) => terms.encode().to_vec(),
            Self::ToRollup(body) => body.encode(),
        }
    }

    /// Reads the body of a message of type `kind`.
    ///
    /// # Errors
    /// `Message` if it is too short or holds an oversize or invalid field; `Kind` for chunks and aggregates, which are no
    /// messages.
    pub fn decode(kind: Kind, body: &[u8]) -> Result<Self, EnvelopeError> {
        let bad = |detail| EnvelopeError::Message { kind, detail };
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(bad("too long"));
        }
        let mut reader = Reader(body);
        match kind {
            Kind::Batch => {
                let mut head = || Some((reader.u32()?, reader.u32()?, reader.word()?));
                let (epoch, claim, batch_hash) = head().ok_or_else(|| bad("too short"))?;
                Ok(Self::Batch { epoch, claim, batch_hash, data: reader.0.to_vec() })
            }
            Kind::ClaimData => {
                let mut head = || Some((reader.u32()?, reader.u32()?, reader.values()?));
                let (epoch, claim, values) = head().ok_or_else(|| bad("too short"))?;
                if reader.0.len() > PROOF_BYTES_MAX {
                    return Err(bad("oversize proof"));
                }
                Ok(Self::ClaimData { epoch, claim, values, proof: reader.0.to_vec() })
            }
            Kind::Epoch => {
                let terms = EpochTerms::decode(body).map_err(|_| bad("invalid epoch terms"))?;
                Ok(Self::Epoch(Box::new(terms)))
            }
            Kind::Forced | Kind::Deposit => {
                Body::decode(kind.byte(), body).map(Self::ToRollup).map_err(|_| bad("length out of range"))
            }
            Kind::Chunk | Kind::Aggregate => Err(EnvelopeError::Kind { got: kind.byte() }),
        }
    }
}

/// Takes fixed-width fields from the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn word(&mut self) -> Option<[u8; 32]> {
        self.array()
    }

    fn values(&mut self) -> Option<ClaimValues> {
        Some(ClaimValues {
            prev_commitment: self.word()?,
            new_commitment: self.word()?,
            batch_hash: self.word()?,
            code_root: self.word()?,
            digest: self.word()?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::terms::tests::terms;

    pub(crate) fn values() -> ClaimValues {
        let mut values = ClaimValues {
            prev_commitment: [1; 32],
            new_commitment: [4; 32],
            batch_hash: [5; 32],
            code_root: [2; 32],
            digest: [0; 32],
        };
        values.digest = values.expected_digest();
        values
    }

    #[test]
    fn messages_survive_their_encoding() {
        let messages = [
            Message::Batch { epoch: 1, claim: 2, batch_hash: [3; 32], data: vec![4; 5] },
            Message::ClaimData { epoch: 1, claim: 2, values: values(), proof: vec![6; 128] },
            Message::Epoch(Box::new(terms())),
            Message::ToRollup(Body::Forced(vec![7; 100])),
            Message::ToRollup(Body::Deposit { recipient: [8; 20], vout: 1 }),
        ];
        for message in messages {
            assert_eq!(Message::decode(message.kind(), &message.encode()), Ok(message));
        }
    }

    #[test]
    fn the_digest_has_its_top_three_bits_cleared() {
        let digest = values().expected_digest();
        let raw: [u8; 32] = blake3::hash(&[[1u8; 32], [4; 32], [5; 32], [2; 32]].concat()).into();
        assert_eq!(digest[0], raw[0] & 0b0001_1111);
        assert_eq!(digest[1..], raw[1..]);
    }

    proptest! {
        #[test]
        fn any_body_is_read_as_what_it_encodes_or_refused(
            body in proptest::collection::vec(any::<u8>(), 0..400), byte in 0u8..20,
        ) {
            if let Some(kind) = Kind::of(byte) {
                if let Ok(message) = Message::decode(kind, &body) {
                    prop_assert_eq!(message.kind(), kind);
                    prop_assert_eq!(message.encode(), body);
                }
            }
        }
    }
}
