//! Proofs and program keys as this project stores and sends them.
//!
//! Every proof file is an envelope: the magic bytes `ASSAYPRF`, a format version (u16, little endian), the kind (one
//! byte), the zkVM's circuit version (length byte and text), the BLAKE3 hash of the body (32 bytes), and the body
//! (bincode). Decoding rejects everything else.

use std::borrow::Borrow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use slop_algebra::PrimeField32;
use sp1_hypercube::{
    HashableKey, SP1PcsProofInner, SP1PcsProofOuter, SP1RecursionProof, SP1VerifyingKey, SP1WrapProof,
};
use sp1_primitives::{SP1Field, SP1GlobalContext, SP1OuterGlobalContext};
use sp1_prover::{SP1CoreProofData, SP1_CIRCUIT_VERSION};
use sp1_recursion_executor::RecursionPublicValues;

use crate::error::WorkerError;

const MAGIC: &[u8; 8] = b"ASSAYPRF";
pub(crate) const FORMAT_VERSION: u16 = 1;

/// A recursion proof of the zkVM.
pub type InnerProof = SP1RecursionProof<SP1GlobalContext, SP1PcsProofInner>;
/// A wrap proof of the zkVM, hashed over BN254.
pub type OuterProof = SP1WrapProof<SP1OuterGlobalContext, SP1PcsProofOuter>;

/// A program's verifying key and its digests.
#[derive(Clone, Serialize, Deserialize)]
pub struct ProgramKey {
    /// SHA-256 of the ELF.
    pub elf_sha256: [u8; 32],
    /// The verifying key.
    pub vk: SP1VerifyingKey,
}

impl ProgramKey {
    /// The digest that a guest passes to `verify_sp1_proof`.
    pub fn words(&self) -> [u32; 8] {
        self.vk.hash_u32()
    }

    /// The digest as a BN254 scalar, big endian: public input `vkey_hash` of the wrap circuit.
    pub fn bn254(&self) -> [u8; 32] {
        self.vk.hash_bn254_bytes()
    }
}

trait Bn254Bytes {
    fn hash_bn254_bytes(&self) -> [u8; 32];
}

impl Bn254Bytes for SP1VerifyingKey {
    fn hash_bn254_bytes(&self) -> [u8; 32] {
        words_to_bn254(&self.hash_u32())
    }
}

/// Packs eight KoalaBear words into a BN254 scalar, first word most significant, 31 bits each; big endian.
pub fn words_to_bn254(words: &[u32; 8]) -> [u8; 32] {
    // 248 bits in all: shift the 256-bit accumulator left by 31 and add.
    let mut value = [0u8; 32];
    for word in words {
        let mut carry = u64::from(*word);
        for byte in value.iter_mut().rev() {
            let shifted = (u64::from(*byte) << 31) + carry;
            *byte = (shifted & 0xff) as u8;
            carry = shifted >> 8;
        }
    }
    value
}

/// A proof of a whole execution in one recursion proof.
#[derive(Clone, Serialize, Deserialize)]
pub struct CompressedProof {
    /// The recursion proof.
    pub proof: InnerProof,
    /// Key of the program that ran.
    pub vk: SP1VerifyingKey,
    /// Bytes the program committed to.
    pub public_values: Vec<u8>,
    /// Cycles the program ran.
    pub cycles: u64,
    /// Shards it was proved in.
    pub shards: u32,
}

impl CompressedProof {
    /// The public values of the recursion proof.
    ///
    /// # Errors
    /// [`WorkerError::Decode`] if their number is wrong.
    pub fn recursion_values(&self) -> Result<&RecursionPublicValues<SP1Field>, WorkerError> {
        recursion_values(&self.proof.proof.public_values)
    }
}

/// A proof of a whole execution, one proof for each shard.
#[derive(Clone, Serialize, Deserialize)]
pub struct CoreProof {
    /// The shard proofs, in order.
    pub proof: SP1CoreProofData,
    /// Key of the program that ran.
    pub vk: SP1VerifyingKey,
    /// Bytes the program committed to.
    pub public_values: Vec<u8>,
    /// Cycles the program ran.
    pub cycles: u64,
}

/// A compressed proof, shrunk and wrapped for the wrap circuit.
#[derive(Clone, Serialize, Deserialize)]
pub struct WrapProof {
    /// The wrap proof with its (constant) verifying key.
    pub proof: OuterProof,
}

impl WrapProof {
    /// The public values of the wrap proof.
    ///
    /// # Errors
    /// [`WorkerError::Decode`] if their number is wrong.
    pub fn recursion_values(&self) -> Result<&RecursionPublicValues<SP1Field>, WorkerError> {
        recursion_values(&self.proof.proof.public_values)
    }
}

/// Reads the public values of a recursion or wrap proof.
pub(crate) fn recursion_values(values: &[SP1Field]) -> Result<&RecursionPublicValues<SP1Field>, WorkerError> {
    let expected = sp1_recursion_executor::RECURSIVE_PROOF_NUM_PV_ELTS;
    if values.len() != expected {
        let reason = format!("{} public values, expected {expected}", values.len());
        return Err(WorkerError::Decode { what: "recursion proof", reason });
    }
    Ok(values.borrow())
}

/// The digest of the guest's public values inside a recursion proof, as bytes.
pub(crate) fn committed_digest(values: &RecursionPublicValues<SP1Field>) -> [u8; 32] {
    let mut digest = [0u8; 32];
    for (byte, felt) in digest.iter_mut().zip(values.committed_value_digest.iter().flatten()) {
        // Range-checked to eight bits by the zkVM.
        *byte = (felt.as_canonical_u32() & 0xff) as u8;
    }
    digest
}

/// A proof that has a file format.
pub trait ProofFile: Serialize + DeserializeOwned {
    /// The byte that tells this kind from the others.
    const KIND: u8;
    /// Name for messages.
    const NAME: &'static str;

    /// Encodes the proof as a file.
    ///
    /// # Errors
    /// [`WorkerError::Internal`] if the proof does not serialise.
    fn encode(&self) -> Result<Vec<u8>, WorkerError> {
        let body = bincode::serialize(self).map_err(WorkerError::internal)?;
        let version = SP1_CIRCUIT_VERSION.trim().as_bytes();
        let mut bytes = Vec::with_capacity(body.len() + 64);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.push(Self::KIND);
        bytes.push(u8::try_from(version.len()).map_err(WorkerError::internal)?);
        bytes.extend_from_slice(version);
        bytes.extend_from_slice(blake3::hash(&body).as_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Decodes a file.
    ///
    /// # Errors
    /// [`WorkerError::Version`] for another format or zkVM version, [`WorkerError::Decode`] for anything else.
    fn decode(bytes: &[u8]) -> Result<Self, WorkerError> {
        let decode = |reason: &str| WorkerError::Decode { what: Self::NAME, reason: reason.to_owned() };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| decode("not a proof file"))?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(|| decode("truncated header"))?;
        let version = u16::from_le_bytes(*version);
        if version != FORMAT_VERSION {
            let (expected, got) = (FORMAT_VERSION.to_string(), version.to_string());
            return Err(WorkerError::Version { what: Self::NAME, expected, got });
        }
        let ([kind, len], rest) = rest.split_first_chunk::<2>().ok_or_else(|| decode("truncated header"))?;
        if *kind != Self::KIND {
            return Err(decode(&format!("kind {kind}, expected {}", Self::KIND)));
        }
        let (zkvm, rest) =
            rest.split_at_checked(usize::from(*len)).ok_or_else(|| decode("truncated header"))?;
        let expected = SP1_CIRCUIT_VERSION.trim();
        if zkvm != expected.as_bytes() {
            let got = String::from_utf8_lossy(zkvm).into_owned();
            return Err(WorkerError::Version { what: Self::NAME, expected: expected.to_owned(), got });
        }
        let (hash, body) = rest.split_first_chunk::<32>().ok_or_else(|| decode("truncated header"))?;
        if blake3::hash(body).as_bytes() != hash {
            return Err(decode("hash of the body differs"));
        }
        bincode::deserialize(body).map_err(|e| decode(&e.to_string()))
    }
}

impl ProofFile for CompressedProof {
    const KIND: u8 = 1;
    const NAME: &'static str = "compressed proof";
}

impl ProofFile for CoreProof {
    const KIND: u8 = 2;
    const NAME: &'static str = "core proof";
}

impl ProofFile for WrapProof {
    const KIND: u8 = 3;
    const NAME: &'static str = "wrap proof";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample(Vec<u32>);

    impl ProofFile for Sample {
        const KIND: u8 = 9;
        const NAME: &'static str = "sample";
    }

    #[test]
    fn an_envelope_round_trips() {
        let sample = Sample(vec![1, 2, 3]);
        assert_eq!(Sample::decode(&sample.encode().unwrap()).unwrap(), sample);
    }

    #[test]
    fn every_changed_byte_and_every_truncation_is_rejected() {
        let bytes = Sample(vec![7, 8]).encode().unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            assert!(Sample::decode(&changed).is_err(), "byte {index}");
            assert!(Sample::decode(&bytes[..index]).is_err(), "length {index}");
        }
    }

    #[test]
    fn another_kind_and_another_version_are_named() {
        let mut bytes = Sample(vec![]).encode().unwrap();
        assert!(matches!(CoreProof::decode(&bytes), Err(WorkerError::Decode { .. })));
        bytes[8] = 2;
        let error = Sample::decode(&bytes).unwrap_err();
        assert!(matches!(error, WorkerError::Version { ref got, .. } if got == "2"), "{error}");
    }

    #[test]
    fn words_are_packed_31_bits_each() {
        let mut expected = [0u8; 32];
        expected[31] = 5;
        assert_eq!(words_to_bn254(&[0, 0, 0, 0, 0, 0, 0, 5]), expected);
        // 1 << 31 from the word before the last.
        assert_eq!(words_to_bn254(&[0, 0, 0, 0, 0, 0, 1, 0])[28..], [0x80, 0, 0, 0]);
        let largest = 0x7eff_ffff;
        assert_eq!(words_to_bn254(&[largest; 8])[0], 0);
    }
}
