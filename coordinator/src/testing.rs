//! Test helpers: a small real Groth16 proof in the shape of the system's (one public input).

use ark_bn254::{Bn254, Fr};
use ark_ff::PrimeField;
use ark_groth16::{Groth16, Proof, VerifyingKey};
use ark_relations::gr1cs::{ConstraintSynthesizer, ConstraintSystemRef, LinearCombination, SynthesisError};
use ark_snark::SNARK;
use ark_std::rand::{rngs::StdRng, SeedableRng};

/// A proof for `input`, and its key.
pub(crate) struct SmallProof {
    pub(crate) vk: VerifyingKey<Bn254>,
    pub(crate) proof: Proof<Bn254>,
    pub(crate) input: Fr,
    /// The 128 bytes whose digest `input` is.
    pub(crate) public_values: [u8; 128],
}

struct Square {
    input: Fr,
}

impl ConstraintSynthesizer<Fr> for Square {
    fn generate_constraints(self, cs: ConstraintSystemRef<Fr>) -> Result<(), SynthesisError> {
        let input = cs.new_input_variable(|| Ok(self.input))?;
        let square = cs.new_witness_variable(|| Ok(self.input * self.input))?;
        let fourth = cs.new_witness_variable(|| Ok(self.input * self.input * self.input * self.input))?;
        let lc = |v| move || LinearCombination::from(v);
        cs.enforce_r1cs_constraint(lc(input), lc(input), lc(square))?;
        cs.enforce_r1cs_constraint(lc(square), lc(square), lc(fourth))
    }
}

/// A small proof of fixed public values.
pub(crate) fn small_proof() -> SmallProof {
    small_proof_of(std::array::from_fn(|at| at as u8 ^ 0x5a))
}

/// Proves, for the digest of public values, that somebody knows its square.
pub(crate) fn small_proof_of(public_values: [u8; 128]) -> SmallProof {
    small_proof_under(7, public_values)
}

/// The same with the key of another set-up for each `seed`.
pub(crate) fn small_proof_under(seed: u64, public_values: [u8; 128]) -> SmallProof {
    let mut digest = *blake3::hash(&public_values).as_bytes();
    digest[0] &= 0x1f;
    let input = Fr::from_be_bytes_mod_order(&digest);
    let mut rng = StdRng::seed_from_u64(seed);
    let (pk, vk) = Groth16::<Bn254>::circuit_specific_setup(Square { input }, &mut rng).unwrap();
    let proof = Groth16::<Bn254>::prove(&pk, Square { input }, &mut rng).unwrap();
    SmallProof { vk, proof, input, public_values }
}
