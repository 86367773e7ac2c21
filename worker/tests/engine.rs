//! The engine on a guest of a few thousand cycles, from execution to the wrap proof.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/tiny.rs"]
mod tiny;

use assay_worker::engine::{execute, program_key, Engine, Proof, ProveInput, Until};
use assay_worker::error::WorkerError;
use assay_worker::progress::{silent, Reporter};
use assay_worker::proof::{CompressedProof, ProofFile};
use assay_worker::settings::EngineConfig;
use assay_worker::verify;

const PUBLIC_VALUES: &[u8] = b"sixteen bytes!!!";

fn config(dir: &tempfile::TempDir) -> EngineConfig {
    EngineConfig {
        cache_dir: dir.path().join("cache"),
        work_dir: dir.path().join("work"),
        cores: 0,
        memory_bytes: 20 << 30,
    }
}

#[test]
fn a_guest_is_executed_and_its_public_values_are_returned() {
    let dir = tempfile::tempdir().unwrap();
    let summary = execute(&config(&dir), &tiny::elf(PUBLIC_VALUES, 1000, 0), &ProveInput::default()).unwrap();
    assert_eq!(summary.public_values, PUBLIC_VALUES);
    assert!(summary.cycles > 2000 && summary.cycles < 3000, "{}", summary.cycles);
}

#[test]
fn a_guest_that_rejects_its_input_is_an_error_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let error = execute(&config(&dir), &tiny::elf(PUBLIC_VALUES, 10, 3), &ProveInput::default()).unwrap_err();
    assert!(matches!(error, WorkerError::GuestExit { code: 3 }), "{error}");
}

#[test]
fn bytes_that_are_no_program_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        execute(&config(&dir), b"#!/bin/sh", &ProveInput::default()),
        Err(WorkerError::Program { .. })
    ));
    assert!(matches!(program_key(&config(&dir), b""), Err(WorkerError::Program { .. })));
}

#[test]
#[ignore = "slow: make test-slow (ten minutes on two cores, 15 GiB: proves, compresses and wraps)"]
fn a_tiny_program_is_proved_compressed_and_wrapped() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let reporter = Reporter::new("test", silent());
    let elf = tiny::elf(PUBLIC_VALUES, 10_000, 0);
    let engine = Engine::start(&config, &reporter).unwrap();
    let key = engine.setup(&elf).unwrap();
    assert_eq!(engine.setup(&elf).unwrap().words(), key.words(), "cached");
    let input = ProveInput::default();
    let Proof::Compressed(proof) = engine.prove(&elf, &key, &input, Until::Compressed, &reporter).unwrap()
    else {
        panic!("not a compressed proof");
    };
    assert_eq!(proof.public_values, PUBLIC_VALUES);
    assert!(engine.store().is_empty(), "artifacts are deleted when the proof is finished");
    let bytes = proof.encode().unwrap();
    assert_eq!(verify::compressed(&bytes, &key.words()).unwrap(), PUBLIC_VALUES);

    let mut other = key.words();
    other[0] ^= 1;
    assert!(matches!(verify::compressed(&bytes, &other), Err(WorkerError::PublicInput { .. })));
    let mut forged = CompressedProof::decode(&bytes).unwrap();
    forged.public_values[0] ^= 1;
    let error = verify::compressed(&forged.encode().unwrap(), &key.words()).unwrap_err();
    assert!(matches!(error, WorkerError::Verify { .. }), "{error}");

    let wrapped = engine.wrap(&proof, &reporter).unwrap();
    let inputs = assay_worker::groth16::wrap_inputs(&wrapped).unwrap();
    let statement =
        assay_worker::groth16::Statement { program: key.words(), public_values: PUBLIC_VALUES.to_vec() };
    statement.check(&inputs).unwrap();
}
