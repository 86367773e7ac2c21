//! The Groth16 proof of the wrap circuit (8.3 million constraints): ours next to ark-groth16's, seconds and ratio.
//!
//!     cargo run --release -p assay-bench --example wrap_proof -- [FOLDER]      about 6 minutes, 11 GiB and the key's 3
//!
//! Circuit and witness are those of the wrap proof that the zkVM's crate ships. Ours proves with a development key in FOLDER (made
//! there if it is missing; `~/.cache/assay/keys/groth16` has one after `assay prove`), checks the witness's proof and returns it.
//!
//! arkworks gets matrices and assignment in its own form, and a key of the same shape: a point wherever the circuit has one and
//! infinity where it has none, but multiples of the generator instead of the key's points, which cost the same to add. (Our key
//! has the quotient's points for values on a coset, arkworks' for coefficients: they cannot be taken over.) What arkworks
//! computes is thus no proof. With equal keys both give the same bytes: `kernels/tests` shows it for smaller circuits.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ark_bn254::{Bn254, Fr};
use ark_ec::short_weierstrass::{Affine, Projective, SWCurveConfig};
use ark_ec::{AffineRepr, CurveGroup, PrimeGroup};
use ark_groth16::{Groth16, VerifyingKey};
use assay_kernels::groth16::{prove_with, setup, silent, Check, ProvingKey, ToxicWaste};
use assay_kernels::r1cs::{R1cs, SparseMatrix};
use assay_kernels::secret::Secret;
use assay_worker_circuit::{WrapCircuit, WrapProof, WrapVerifyingKey};

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from).ok_or("HOME is not set")?;
    let folder = folder.unwrap_or_else(|| home.join(".cache/assay/keys/groth16"));
    let (circuit, assignment) = circuit(&home)?;
    let system = circuit.r1cs();
    println!("{} constraints, {} variables", system.num_constraints(), system.num_variables());
    let ours = ours(&folder, &circuit, &assignment)?;
    let theirs = theirs(system, &assignment)?;
    println!("ours {ours:.1} s, arkworks {theirs:.1} s: {:.2} times", theirs / ours);
    Ok(())
}

/// The circuit and the variables of the shipped proof.
fn circuit(home: &Path) -> Result<(WrapCircuit, Secret), Failure> {
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut folders = std::fs::read_dir(cargo.join("registry/src"))?
        .flatten()
        .map(|entry| entry.path().join("sp1-prover-6.10.0"));
    let folder = folders.find(|folder| folder.join("wrapped_proof.bin").is_file());
    let folder = folder.ok_or("the sources of sp1-prover 6.10.0 are not in cargo's registry folder")?;
    let key: WrapVerifyingKey = bincode::deserialize(&std::fs::read(folder.join("wrap_vk.bin"))?)?;
    let proof: WrapProof = bincode::deserialize(&std::fs::read(folder.join("wrapped_proof.bin"))?)?;
    let circuit = WrapCircuit::build(&key, &proof)?;
    let assignment = circuit.assign(&key, &proof)?;
    Ok((circuit, assignment))
}

/// Seconds of our proof, which is verified before it is returned.
fn ours(folder: &Path, circuit: &WrapCircuit, assignment: &[Fr]) -> Result<f64, Failure> {
    let digest = circuit.digest();
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(format!("{name}.pk"));
    if !path.exists() {
        println!("making a development key in {}", folder.display());
        std::fs::create_dir_all(folder)?;
        setup(circuit.r1cs(), digest, &path, ToxicWaste::random()?, &silent)?;
    }
    let key = ProvingKey::open(&path, &digest, Check::Hashes)?;
    let start = Instant::now();
    prove_with(&key, circuit.r1cs(), assignment, Fr::from(3), Fr::from(5), &silent)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("ours: {seconds:.1} s, verified");
    Ok(seconds)
}

/// `count` multiples of the generator.
fn points<P: SWCurveConfig>(count: usize) -> Vec<Affine<P>> {
    let step = Projective::<P>::generator();
    let all: Vec<_> = std::iter::successors(Some(step), |point| Some(*point + step)).take(count).collect();
    Projective::normalize_batch(&all)
}

/// The points of the variables that occur, infinity for the others.
fn occurring<P: SWCurveConfig>(points: &[Affine<P>], occurs: &[bool]) -> Vec<Affine<P>> {
    points.iter().zip(occurs).map(|(point, occurs)| if *occurs { *point } else { Affine::zero() }).collect()
}

fn occurs(matrix: &SparseMatrix, variables: usize) -> Vec<bool> {
    let mut occurs = vec![false; variables];
    for row in 0..matrix.rows() {
        matrix.row(row).for_each(|(column, _)| occurs[column as usize] = true);
    }
    occurs
}

fn key(system: &R1cs) -> Result<ark_groth16::ProvingKey<Bn254>, Failure> {
    let variables = system.num_variables();
    let domain = (system.num_constraints() + system.num_instance).next_power_of_two();
    let in_a = occurs(&system.a, variables);
    let in_b = occurs(&system.b, variables);
    let g1 = points(domain - 1);
    let first = *g1.first().ok_or("an empty circuit")?;
    let b_g2_query = occurring(&points(variables), &in_b);
    let second = b_g2_query.iter().copied().find(|point| !point.is_zero()).ok_or("no right factor")?;
    let vk = VerifyingKey {
        alpha_g1: first,
        beta_g2: second,
        gamma_g2: second,
        delta_g2: second,
        gamma_abc_g1: g1[..system.num_instance].to_vec(),
    };
    Ok(ark_groth16::ProvingKey {
        vk,
        beta_g1: first,
        delta_g1: first,
        a_query: occurring(&g1, &in_a),
        b_g1_query: occurring(&g1, &in_b),
        b_g2_query,
        l_query: g1[..system.num_witness].to_vec(),
        h_query: g1,
    })
}

/// Seconds of arkworks' prover from matrices and assignment.
fn theirs(system: &R1cs, assignment: &[Fr]) -> Result<f64, Failure> {
    let key = key(system)?;
    let table = system.coefficients.values();
    let form = |matrix: &SparseMatrix| -> Vec<Vec<(Fr, usize)>> {
        let term = |(column, coefficient): (u32, u32)| (table[coefficient as usize], column as usize);
        (0..matrix.rows()).map(|row| matrix.row(row).map(term).collect()).collect()
    };
    let matrices = [form(&system.a), form(&system.b), form(&system.c)];
    let start = Instant::now();
    Groth16::<Bn254>::create_proof_with_reduction_and_matrices(
        &key,
        Fr::from(3),
        Fr::from(5),
        &matrices,
        system.num_instance,
        system.num_constraints(),
        assignment,
    )?;
    let seconds = start.elapsed().as_secs_f64();
    println!("arkworks: {seconds:.1} s");
    Ok(seconds)
}
