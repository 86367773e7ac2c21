//! The whole circuit, on the wrap proof that the zkVM's crate ships.

use ark_bn254::Fr;
use ark_ff::{One, UniformRand};
use assay_worker_circuit::{CircuitError, WrapCircuit, WrapProof, WrapVerifyingKey};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::path::PathBuf;

/// The folder of the zkVM's prover crate among the sources that cargo keeps.
fn crate_folder() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let sources = home.expect("CARGO_HOME or HOME is set").join("registry/src");
    let registries = std::fs::read_dir(&sources).expect("cargo keeps its sources").flatten();
    let mut folders = registries.map(|entry| entry.path().join("sp1-prover-6.10.0"));
    folders.find(|folder| folder.join("wrapped_proof.bin").is_file()).expect("the prover crate's sources")
}

fn pair() -> (WrapVerifyingKey, WrapProof) {
    let folder = crate_folder();
    let read = |name: &str| std::fs::read(folder.join(name)).expect("the crate ships it");
    let vk = bincode::deserialize(&read("wrap_vk.bin")).expect("a verifying key");
    let proof = bincode::deserialize(&read("wrapped_proof.bin")).expect("a proof");
    (vk, proof)
}

/// Rows that each of `columns` occurs in.
fn rows_of(circuit: &WrapCircuit, columns: &[usize]) -> HashMap<usize, Vec<usize>> {
    let system = circuit.r1cs();
    let mut rows: HashMap<usize, Vec<usize>> = columns.iter().map(|&column| (column, Vec::new())).collect();
    for matrix in [&system.a, &system.b, &system.c] {
        for row in 0..system.num_constraints() {
            for (column, _) in matrix.row(row) {
                if let Some(list) = rows.get_mut(&(column as usize)) {
                    list.push(row);
                }
            }
        }
    }
    rows
}

fn row_holds(circuit: &WrapCircuit, row: usize, assignment: &[Fr]) -> bool {
    let system = circuit.r1cs();
    let table = system.coefficients.values();
    let [a, b, c] =
        [&system.a, &system.b, &system.c].map(|matrix| matrix.evaluate_row(row, table, assignment));
    a * b == c
}

/// Whether `column` is a quotient `t` of a row `0 * t = 0` and occurs nowhere else: free by construction.
fn is_idle_quotient(circuit: &WrapCircuit, rows: &[usize], column: usize, assignment: &[Fr]) -> bool {
    let system = circuit.r1cs();
    let table = system.coefficients.values();
    let zero = |value: Fr| value == Fr::from(0u64);
    rows.len() == 1
        && system.b.row(rows[0]).map(|(found, _)| found as usize).eq([column])
        && zero(system.a.evaluate_row(rows[0], table, assignment))
        && zero(system.c.evaluate_row(rows[0], table, assignment))
}

#[test]
#[ignore = "slow: make test-slow (3 GB and about a minute of one core)"]
fn the_shipped_proof_satisfies_and_nothing_else_does() {
    let (vk, mut proof) = pair();
    let circuit = WrapCircuit::build(&vk, &proof).expect("the exported operations are known");
    println!("{}", circuit.stats());
    let constraints = circuit.r1cs().num_constraints();
    assert!(
        constraints + circuit.r1cs().num_instance <= 1 << 23,
        "{constraints} constraints: the domain is 2^23"
    );
    assert_eq!(circuit.stats().constraints(), constraints);
    let assignment = circuit.assign(&vk, &proof).expect("the proof has the circuit's shape");
    circuit.check(&assignment).expect("the shipped proof is valid");

    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut columns: Vec<usize> = (0..4000).map(|_| rng.gen_range(6..assignment.len())).collect();
    columns.extend(1..6);
    let rows = rows_of(&circuit, &columns);
    let mut changed = assignment.clone();
    let (mut free, mut idle) = (Vec::new(), 0);
    for &column in &columns {
        for delta in [Fr::one(), -Fr::one(), Fr::rand(&mut rng)] {
            changed[column] = assignment[column] + delta;
            if rows[&column].iter().all(|&row| row_holds(&circuit, row, &changed)) {
                if is_idle_quotient(&circuit, &rows[&column], column, &assignment) {
                    idle += 1;
                } else {
                    free.push(column);
                }
                break;
            }
        }
        changed[column] = assignment[column];
    }
    println!("{} variables changed, {idle} of them idle quotients", columns.len());
    assert_eq!(free, Vec::<usize>::new(), "variables that can be changed alone");

    // A proof with other public values: exported without complaint, refused by the rows.
    proof.public_values[0] += <_ as slop_algebra::AbstractField>::one();
    let assignment = circuit.assign(&vk, &proof).expect("the shape is the same");
    assert!(matches!(circuit.check(&assignment), Err(CircuitError::Unsatisfied { .. })));
}

#[test]
#[ignore = "slow: make test-slow"]
fn the_circuit_is_the_same_every_time() {
    let (vk, proof) = pair();
    let digests: Vec<[u8; 32]> =
        (0..2).map(|_| WrapCircuit::build(&vk, &proof).expect("known operations").digest()).collect();
    assert_eq!(digests[0], digests[1]);
}
