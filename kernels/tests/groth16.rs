//! Set-up, proving and the key file through the public API.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use ark_bn254::{Bn254, Fr, G1Projective, G2Projective};
use ark_ec::PrimeGroup;
use ark_ff::{One, UniformRand, Zero};
use ark_groth16::r1cs_to_qap::LibsnarkReduction;
use ark_groth16::{Groth16, Proof};
use ark_relations::gr1cs::{
    ConstraintSynthesizer, ConstraintSystemRef, LinearCombination, SynthesisError, Variable,
};
use ark_serialize::CanonicalSerialize;
use ark_snark::SNARK;
use assay_kernels::groth16::{
    prove, prove_with, setup, silent, specialise, synthetic, verify, Check, Groth16Error, ProvingKey,
    ToxicWaste,
};
use assay_kernels::r1cs::{R1cs, R1csError, SparseMatrix};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use std::path::PathBuf;
use tempfile::TempDir;

const DIGEST: [u8; 32] = [7; 32];

struct Fixture {
    _folder: TempDir,
    path: PathBuf,
    system: R1cs,
    z: Vec<Fr>,
    key: ProvingKey,
}

fn fixture_of(system: R1cs, z: Vec<Fr>) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let vk = setup(&system, DIGEST, &path, ToxicWaste::random().unwrap(), &silent).unwrap();
    let key = ProvingKey::open(&path, &DIGEST, Check::Points).unwrap();
    assert_eq!(key.verifying_key(), &vk);
    assert!(key.is_insecure());
    Fixture { _folder: folder, path, system, z, key }
}

fn fixture(constraints: usize) -> Fixture {
    let (system, z) = synthetic::circuit(constraints);
    fixture_of(system, z)
}

/// Five public inputs whose sum times a private factor is a private product.
fn five_inputs() -> (R1cs, Vec<Fr>) {
    let mut system = R1cs { num_instance: 6, num_witness: 2, ..R1cs::default() };
    system.a.push_row((1..6).map(|column| (column, 0)));
    system.b.push_row([(6, 0)]);
    system.c.push_row([(7, 0)]);
    let mut z: Vec<Fr> = [1u64, 11, 22, 33, 44, 55, 3].map(Fr::from).to_vec();
    z.push(Fr::from(165 * 3u64));
    (system, z)
}

/// The same circuit for arkworks.
#[derive(Clone)]
struct ForArk<'a>(&'a R1cs, &'a [Fr]);

impl ConstraintSynthesizer<Fr> for ForArk<'_> {
    fn generate_constraints(self, cs: ConstraintSystemRef<Fr>) -> Result<(), SynthesisError> {
        let Self(system, z) = self;
        let mut variables = vec![Variable::One];
        for (at, value) in z.iter().enumerate().skip(1) {
            variables.push(if at < system.num_instance {
                cs.new_input_variable(|| Ok(*value))?
            } else {
                cs.new_witness_variable(|| Ok(*value))?
            });
        }
        let table = system.coefficients.values();
        let combination = |matrix: &SparseMatrix, row: usize| {
            let terms: Vec<_> = matrix
                .row(row)
                .map(|(column, coefficient)| (table[coefficient as usize], variables[column as usize]))
                .collect();
            LinearCombination::from_sum_coeff_vars(&terms)
        };
        for row in 0..system.num_constraints() {
            cs.enforce_r1cs_constraint(
                || combination(&system.a, row),
                || combination(&system.b, row),
                || combination(&system.c, row),
            )?;
        }
        Ok(())
    }
}

#[test]
fn proofs_verify_on_all_shapes_of_domain() {
    for (constraints, domain) in
        [(250, 256), (254, 256), (180, 192), (190, 192), (3000, 3072), (255, 288), (1100, 1152)]
    {
        let f = fixture(constraints);
        assert_eq!(f.key.domain_size(), domain, "{constraints} constraints");
        let proof = prove(&f.key, &f.system, &f.z, &silent).unwrap();
        let vk = f.key.verifying_key();
        assert!(verify(vk, &f.z[1..2], &proof).unwrap());
        assert!(Groth16::<Bn254>::verify(vk, &f.z[1..2], &proof).unwrap());
        assert!(!verify(vk, &[f.z[1] + Fr::one()], &proof).unwrap());
        let swapped = Proof { a: proof.c, c: proof.a, ..proof };
        assert!(!verify(vk, &f.z[1..2], &swapped).unwrap());
    }
}

#[test]
fn two_proofs_of_one_statement_differ() {
    let f = fixture(30);
    let proofs = [0; 2].map(|_| prove(&f.key, &f.system, &f.z, &silent).unwrap());
    assert_ne!(proofs[0], proofs[1]);
}

#[test]
fn with_the_same_trapdoor_and_blinding_the_proof_is_arkworks_byte_for_byte() {
    for constraints in [250, 1000] {
        let (system, z) = synthetic::circuit(constraints);
        let mut rng = ChaCha20Rng::seed_from_u64(constraints as u64);
        let [alpha, beta, gamma, delta, r, s] = [0; 6].map(|_| Fr::rand(&mut rng));
        // arkworks draws tau from the generator that it is given.
        let tau = Fr::rand(&mut rng.clone());
        let theirs = Groth16::<Bn254, LibsnarkReduction>::generate_parameters_with_qap(
            ForArk(&system, &z),
            alpha,
            beta,
            gamma,
            delta,
            G1Projective::generator(),
            G2Projective::generator(),
            &mut rng,
        )
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let toxic = ToxicWaste::from_parts(alpha, beta, gamma, delta, tau);
        let vk = setup(&system, DIGEST, &path, toxic, &silent).unwrap();
        assert_eq!(vk, theirs.vk);
        let key = ProvingKey::open(&path, &DIGEST, Check::Points).unwrap();
        let ours = prove_with(&key, &system, &z, r, s, &silent).unwrap();
        let expected = Groth16::<Bn254, LibsnarkReduction>::create_proof_with_reduction(
            ForArk(&system, &z),
            &theirs,
            r,
            s,
        )
        .unwrap();
        let bytes = |proof: &Proof<Bn254>| {
            let mut bytes = Vec::new();
            proof.serialize_compressed(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(bytes(&ours), bytes(&expected));
    }
}

#[test]
fn a_wrong_assignment_is_refused_with_its_row() {
    let f = fixture(60);
    let refused = |z: &[Fr]| prove(&f.key, &f.system, z, &silent).unwrap_err();
    for column in [1, 2, 5, 7] {
        let mut z = f.z.clone();
        z[column] += Fr::one();
        let error = refused(&z);
        assert!(matches!(error, Groth16Error::Assignment(R1csError::Unsatisfied { .. })), "{error}");
    }
    let mut z = f.z.clone();
    z[0] = Fr::zero();
    assert!(matches!(refused(&z), Groth16Error::Assignment(R1csError::ConstantOne)));
    let error = refused(&f.z[1..]);
    assert!(matches!(error, Groth16Error::Assignment(R1csError::AssignmentLength { .. })), "{error}");
}

#[test]
fn a_key_of_another_circuit_is_refused() {
    let f = fixture(60);
    let (other, z) = synthetic::circuit(61);
    let error = prove(&f.key, &other, &z, &silent).unwrap_err();
    assert!(matches!(error, Groth16Error::Shape { .. }), "{error}");
    let error = ProvingKey::open(&f.path, &[8; 32], Check::Quick).unwrap_err();
    assert!(matches!(error, Groth16Error::WrongCircuit { .. }), "{error}");
    // The same shape under the same digest, but another circuit: the proof is not handed out.
    let (mut other, z) = synthetic::circuit(60);
    let table = other.coefficients.values().to_vec();
    let scaled: Vec<u32> =
        table.iter().map(|value| other.coefficients.intern(*value * Fr::from(7u64))).collect();
    for matrix in [&mut other.a, &mut other.c] {
        matrix.coefficients.iter_mut().for_each(|coefficient| *coefficient = scaled[*coefficient as usize]);
    }
    assert_eq!(other.check(&z), Ok(()));
    let error = prove(&f.key, &other, &z, &silent).unwrap_err();
    assert!(matches!(error, Groth16Error::ProofRejected), "{error}");
}

#[test]
fn an_empty_circuit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let error = setup(&R1cs::default(), DIGEST, &path, ToxicWaste::random().unwrap(), &silent).unwrap_err();
    assert!(matches!(error, Groth16Error::EmptyCircuit), "{error}");
    let toxic = ToxicWaste::from_parts(Fr::one(), Fr::one(), Fr::zero(), Fr::one(), Fr::from(9u64));
    let (system, _) = synthetic::circuit(10);
    let error = setup(&system, DIGEST, &path, toxic, &silent).unwrap_err();
    assert!(matches!(error, Groth16Error::Trapdoor { .. }), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing half done is left");
}

#[test]
fn what_a_killed_set_up_left_is_overwritten_and_a_running_one_is_not_disturbed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let partial = folder.path().join("key.partial");
    std::fs::write(&partial, vec![1; 1 << 20]).unwrap();
    let (system, z) = synthetic::circuit(20);
    setup(&system, DIGEST, &path, ToxicWaste::random().unwrap(), &silent).unwrap();
    let key = ProvingKey::open(&path, &DIGEST, Check::Points).unwrap();
    assert!(!partial.exists());

    let other = std::fs::File::create(&partial).unwrap();
    other.lock().unwrap();
    let error = setup(&system, DIGEST, &path, ToxicWaste::random().unwrap(), &silent).unwrap_err();
    assert!(matches!(error, Groth16Error::Busy { .. }), "{error}");
    drop(other);
    // A new key takes the old one's name; the mapped old one goes on working.
    setup(&system, DIGEST, &path, ToxicWaste::random().unwrap(), &silent).unwrap();
    assert!(prove(&key, &system, &z, &silent).is_ok());
    let renewed = ProvingKey::open(&path, &DIGEST, Check::Points).unwrap();
    assert_ne!(renewed.verifying_key(), key.verifying_key());
}

#[test]
fn a_specialised_key_takes_one_input_and_stands_for_the_constants() {
    let (system, z) = five_inputs();
    let f = fixture_of(system, z);
    let proof = prove(&f.key, &f.system, &f.z, &silent).unwrap();
    let vk = f.key.verifying_key();
    let constants: Vec<(usize, Fr)> = [0, 2, 3, 4].map(|at| (at, f.z[at + 1])).to_vec();
    let one = specialise(vk, &constants).unwrap();
    assert_eq!(one.gamma_abc_g1.len(), 2);
    let accepts = |vk: &_, input: Fr, proof: &_| Groth16::<Bn254>::verify(vk, &[input], proof).unwrap();
    assert!(accepts(&one, f.z[2], &proof));
    assert!(!accepts(&one, f.z[2] + Fr::one(), &proof));
    assert!(!accepts(&one, f.z[2], &Proof { a: -proof.a, ..proof.clone() }));
    for at in 0..constants.len() {
        let mut wrong = constants.clone();
        wrong[at].1 += Fr::one();
        assert!(!accepts(&specialise(vk, &wrong).unwrap(), f.z[2], &proof), "constant {at}");
    }
    assert_eq!(&specialise(vk, &[]).unwrap(), vk);
    for bad in [vec![(5, Fr::one())], vec![(usize::MAX, Fr::one())], vec![(1, Fr::one()), (1, Fr::one())]] {
        let error = specialise(vk, &bad).unwrap_err();
        assert!(matches!(error, Groth16Error::Constant { .. }), "{error}");
    }
    let error = verify(&one, &f.z[1..6], &proof).unwrap_err();
    assert!(matches!(error, Groth16Error::PublicInputs { expected: 1, got: 5 }), "{error}");
}
