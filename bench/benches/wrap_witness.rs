//! The wrap circuit on the proof that the zkVM's crate ships: building it, and computing its variables.

#![allow(missing_docs, reason = "criterion's macro makes an undocumented function")]

use assay_worker_circuit::{WrapCircuit, WrapProof, WrapVerifyingKey};
use criterion::{criterion_group, criterion_main, Criterion};
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

/// The shipped key and proof, if cargo's sources are on this machine.
fn pair() -> Option<(WrapVerifyingKey, WrapProof)> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))?;
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?.flatten();
    let mut folders = registries.map(|entry| entry.path().join("sp1-prover-6.10.0"));
    let folder = folders.find(|folder| folder.join("wrapped_proof.bin").is_file())?;
    let vk = bincode::deserialize(&std::fs::read(folder.join("wrap_vk.bin")).ok()?).ok()?;
    let proof = bincode::deserialize(&std::fs::read(folder.join("wrapped_proof.bin")).ok()?).ok()?;
    Some((vk, proof))
}

fn wrap_witness(criterion: &mut Criterion) {
    let Some((vk, proof)) = pair() else {
        eprintln!("skipped: the sources of sp1-prover 6.10.0 are not in cargo's registry folder");
        return;
    };
    let circuit = WrapCircuit::build(&vk, &proof).expect("the shipped operations are known");
    println!("{}", circuit.stats());
    let mut group = criterion.benchmark_group("wrap_circuit");
    group.sample_size(10).measurement_time(Duration::from_secs(30));
    group.bench_function("build", |bencher| {
        bencher
            .iter(|| WrapCircuit::build(black_box(&vk), &proof).expect("the shipped operations are known"));
    });
    group.bench_function("assign", |bencher| {
        bencher.iter(|| circuit.assign(black_box(&vk), &proof).expect("the proof has the circuit's shape"));
    });
    let assignment = circuit.assign(&vk, &proof).expect("the proof has the circuit's shape");
    group.bench_function("check", |bencher| {
        bencher.iter(|| circuit.check(black_box(&assignment)).expect("the shipped proof is valid"));
    });
    group.finish();
}

criterion_group!(benches, wrap_witness);
criterion_main!(benches);
