//! Builds the circuit for the wrap proof that the zkVM's crate ships and prints its constraints by operation.
//!
//! `cargo run --release -p assay-worker-circuit --example stats -- FOLDER_WITH_wrap_vk.bin_AND_wrapped_proof.bin`
use assay_worker_circuit::{WrapCircuit, WrapProof, WrapVerifyingKey};
use std::{error::Error, fs, path::PathBuf, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("the folder is missing")?);
    let vk: WrapVerifyingKey = bincode::deserialize(&fs::read(folder.join("wrap_vk.bin"))?)?;
    let proof: WrapProof = bincode::deserialize(&fs::read(folder.join("wrapped_proof.bin"))?)?;
    let start = Instant::now();
    let circuit = WrapCircuit::build(&vk, &proof)?;
    println!("built in {:?}\n{}", start.elapsed(), circuit.stats());
    println!(
        "domain: constraints + public = {}",
        circuit.r1cs().num_constraints() + circuit.r1cs().num_instance
    );
    println!("digest: {}", circuit.digest().map(|byte| format!("{byte:02x}")).concat());
    let start = Instant::now();
    let assignment = circuit.assign(&vk, &proof)?;
    println!("assigned in {:?}", start.elapsed());
    let start = Instant::now();
    circuit.check(&assignment)?;
    println!("checked in {:?}", start.elapsed());
    let peak = fs::read_to_string("/proc/self/status")?;
    println!("{}", peak.lines().find(|line| line.starts_with("VmHWM")).unwrap_or(""));
    Ok(())
}
