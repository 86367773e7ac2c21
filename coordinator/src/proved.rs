//! A Groth16 result as values, and the files that are made of it: the same for one machine and for a cluster.

use ark_bn254::{Bn254, Fr};
use ark_groth16::{Proof, VerifyingKey};
use ark_serialize::{CanonicalDeserialize, CanonicalSerialize, SerializationError};

use crate::statement::{self, BatchSummary, Claim, ClaimFile, Settlement, Statement, PUBLIC_VALUES_BYTES};
use crate::verify::{self, Files};

/// Bytes that are no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvedError {
    /// They do not decode.
    #[error("{what}: {source}")]
    Encoding {
        /// Proof or key.
        what: &'static str,
        /// Why.
        source: SerializationError,
    },
    /// They decode, but are not what encoding the value gives.
    #[error("{what} is not in canonical form")]
    NotCanonical {
        /// Proof or key.
        what: &'static str,
    },
}

/// A proof, its key and what it states. That the proof is right is not known yet: see [`verify::verify_files`].
#[derive(Clone, Debug)]
pub struct Proved {
    /// The proof.
    pub proof: Proof<Bn254>,
    /// Its canonical encoding.
    pub proof_bytes: Vec<u8>,
    /// The key, specialised to one public input.
    pub vk: VerifyingKey<Bn254>,
    /// That input.
    pub input: Fr,
    /// What is proved.
    pub statement: Statement,
    /// The same as bytes.
    pub public_values: [u8; PUBLIC_VALUES_BYTES],
    /// Whether the parameters come from a development set-up.
    pub insecure: bool,
}

impl Proved {
    /// Reads a proof and its key (arkworks, compressed).
    ///
    /// # Errors
    /// [`ProvedError`].
    pub fn new(
        proof: &[u8],
        vk: &[u8],
        public_values: [u8; PUBLIC_VALUES_BYTES],
        insecure: bool,
    ) -> Result<Self, ProvedError> {
        Ok(Self {
            proof: read_proof(proof)?,
            vk: canonical("verifying key", vk)?,
            input: statement::public_input(&statement::digest(&public_values)),
            statement: Statement::new(&public_values),
            proof_bytes: proof.to_vec(),
            public_values,
            insecure,
        })
    }

    /// BLAKE3 of the key.
    pub fn verifying_key_hash(&self) -> [u8; 32] {
        verify::verifying_key_digest(&self.vk)
    }

    /// Renders the files of the result folder, but for the report.
    ///
    /// # Errors
    /// A proof that cannot be serialised, which arkworks' types rule out.
    pub fn files(
        &self,
        batch: BatchSummary,
        settlement: Option<Settlement>,
    ) -> Result<Files, SerializationError> {
        let claim = Claim {
            version: ClaimFile::VERSION,
            insecure: self.insecure.then(|| statement::INSECURE_NOTE.to_owned()),
            statement: self.statement.clone(),
            batch,
            verifying_key_blake3: verify::verifying_key_hash(&self.vk),
            settlement,
            enforcement: assay_l1::enforcement_summary().to_owned(),
        };
        Files::render(&self.proof, &self.vk, &[self.input], &ClaimFile::new(claim))
    }
}

/// Reads a proof (arkworks, compressed): points of the right groups, in their one encoding.
///
/// # Errors
/// [`ProvedError`].
pub fn read_proof(bytes: &[u8]) -> Result<Proof<Bn254>, ProvedError> {
    canonical("proof", bytes)
}

/// Decodes, checks curve and subgroup, and refuses a second encoding of the same value.
fn canonical<T>(what: &'static str, bytes: &[u8]) -> Result<T, ProvedError>
where
    T: CanonicalSerialize + CanonicalDeserialize,
{
    let encoding = |source| ProvedError::Encoding { what, source };
    let value = T::deserialize_compressed(bytes).map_err(encoding)?;
    let mut again = Vec::with_capacity(bytes.len());
    value.serialize_compressed(&mut again).map_err(encoding)?;
    if again != bytes {
        return Err(ProvedError::NotCanonical { what });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::small_proof;

    fn encoded() -> (Vec<u8>, Vec<u8>, [u8; PUBLIC_VALUES_BYTES]) {
        let small = small_proof();
        let (mut proof, mut vk) = (Vec::new(), Vec::new());
        small.proof.serialize_compressed(&mut proof).unwrap();
        small.vk.serialize_compressed(&mut vk).unwrap();
        (proof, vk, small.public_values)
    }

    fn summary() -> BatchSummary {
        BatchSummary {
            id: "1-1-00".into(),
            chain_id: 1,
            first_block: 1,
            last_block: 1,
            transactions: 0,
            gas: 0,
            genesis_commitment: None,
        }
    }

    #[test]
    fn a_result_renders_to_files_that_verify() {
        let (proof, vk, public_values) = encoded();
        let proved = Proved::new(&proof, &vk, public_values, true).unwrap();
        let accepted = verify::verify_files(&proved.files(summary(), None).unwrap(), None).unwrap();
        assert_eq!(accepted.verifying_key_blake3, hex::encode(proved.verifying_key_hash()));
        assert_eq!(proved.verifying_key_hash(), *blake3::hash(&vk).as_bytes());
    }

    #[test]
    fn bytes_that_follow_and_bytes_that_are_none_are_refused() {
        let (proof, vk, public_values) = encoded();
        let longer = |bytes: &[u8]| [bytes, b"x"].concat();
        let not_canonical = |result| matches!(result, Err(ProvedError::NotCanonical { .. }));
        assert!(not_canonical(Proved::new(&longer(&proof), &vk, public_values, true)));
        assert!(not_canonical(Proved::new(&proof, &longer(&vk), public_values, true)));
        for bytes in [&b""[..], b"junk", &[0xff; 128]] {
            assert!(Proved::new(bytes, &vk, public_values, true).is_err());
            assert!(Proved::new(&proof, bytes, public_values, true).is_err());
        }
    }
}
