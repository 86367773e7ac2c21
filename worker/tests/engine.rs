//! The engine on a guest of a few thousand cycles, from execution to the wrap proof.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use assay_lvm::vm::ProofSystem as _;
use assay_worker::cluster::{CheckError, ClusterTask, Rules};
#[cfg(not(feature = "cuda"))]
use assay_worker::engine::reference;
use assay_worker::engine::{execute, program_key, Engine, Proof, ProveInput, Until};
use assay_worker::error::WorkerError;
use assay_worker::memo::Memo;
use assay_worker::node::Hidden;
use assay_worker::part::{Part, PartKind, Parts};
use assay_worker::progress::{silent, Reporter};
use assay_worker::proof::{CompressedProof, ProofFile};
use assay_worker::settings::{EngineConfig, ShardSize};
use assay_worker::stages::{CheckJob, Job, Outcome, Session, StageConfig};
use assay_worker::system::ZkvmProofSystem;
use assay_worker::{tiny, verify};

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
#[cfg(not(feature = "cuda"))]
fn without_a_gpu_there_is_nothing_to_compare_with() {
    let error = reference(&tiny::elf(PUBLIC_VALUES, 10, 0), &[ProveInput::default()]).unwrap_err();
    assert!(matches!(error, WorkerError::Gpu { .. }), "{error}");
}

#[test]
#[ignore = "slow: make test-slow (two minutes on two cores, 12 GiB: proves a shard)"]
fn a_machine_that_can_prove_passes_its_check() {
    let dir = tempfile::tempdir().unwrap();
    let EngineConfig { cache_dir, work_dir, cores, memory_bytes } = config(&dir);
    let mut session = Session::new(StageConfig { cache_dir, work_dir, cores, memory_bytes }, silent());
    let outcome = session.run(&Job::Check(CheckJob { until: Until::Core })).unwrap();
    let Outcome::Check(check) = outcome else { panic!("{outcome:?}") };
    assert!(check.cycles > 20_000 && check.constraints == 4094, "{check:?}");
    assert!(!check.zkvm_device.is_empty() && !check.groth16_device.is_empty());
}

#[test]
#[ignore = "slow: make test-slow (ten minutes on two cores, 15 GiB: proves, compresses and wraps)"]
fn a_tiny_program_is_proved_compressed_and_wrapped() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let reporter = Reporter::new("test", silent());
    let elf = tiny::elf(PUBLIC_VALUES, 10_000, 0);
    let system = ZkvmProofSystem::new(Engine::start(&config, &reporter).unwrap(), silent());
    let engine = system.engine();
    let key = engine.setup(&elf).unwrap();
    let program = system.load(&elf).unwrap();
    assert_eq!(system.key(&program).0, key.words(), "cached");
    assert_eq!(system.execute(&program, &[], &[]).unwrap().public_values, PUBLIC_VALUES);
    let proof = system.prove(&program, &[], &[]).unwrap();
    assert!(engine.store().is_empty(), "artifacts are deleted when the proof is finished");
    system.verify(&program, &proof, PUBLIC_VALUES).unwrap();
    assert!(system.verify(&program, &proof, b"sixteen bytes???").is_err());
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

/// Proves parts on an engine of its own, as a process elsewhere would: it sees the part's files and nothing else.
struct Elsewhere {
    engine: Arc<Mutex<Engine>>,
    dir: PathBuf,
    program: [u32; 8],
    proved: Arc<Mutex<Vec<Proved>>>,
}

/// A part that was proved, with its files and those of its result.
struct Proved {
    kind: PartKind,
    key: String,
    files: Vec<PathBuf>,
    made: Vec<PathBuf>,
}

fn task<'a>(files: &'a [PathBuf], program: &'a [u32; 8]) -> ClusterTask<'a> {
    ClusterTask::Part { files, program }
}

/// What the checks of parts do not look at.
fn rules() -> Rules {
    Rules { block_program: [0; 8], fold_program: [0; 8], run_gas_max: 0, run_blocks_max: 0 }
}

impl Parts for Elsewhere {
    fn prove(&self, part: Part) -> Hidden<Result<Vec<PathBuf>, String>> {
        let (engine, proved, program) = (self.engine.clone(), self.proved.clone(), self.program);
        let (sent, output) = (self.dir.join("in").join(&part.key), self.dir.join("out").join(&part.key));
        Box::pin(async move {
            let work = move || {
                std::fs::create_dir_all(&sent).unwrap();
                let copy = |file: &PathBuf| {
                    let target = sent.join(file.file_name().unwrap());
                    std::fs::copy(file, &target).unwrap();
                    target
                };
                let files: Vec<PathBuf> = part.files.iter().map(copy).collect();
                let engine = engine.lock().unwrap();
                let reporter = Reporter::new("part", silent());
                // A piece that is damaged on the way is refused, whichever it is.
                let last = files.last().unwrap();
                let good = std::fs::read(last).unwrap();
                std::fs::write(last, [&good[..good.len() - 1], &[!good[good.len() - 1]]].concat()).unwrap();
                assert!(engine.prove_part(&files, &output, &reporter).is_err());
                std::fs::write(last, good).unwrap();
                let done =
                    engine.prove_part(&files, &output, &reporter).map_err(|error| error.to_string())?;
                assert_eq!((done.key.as_str(), done.kind), (part.key.as_str(), part.kind));
                task(&files, &program).check(&rules(), &done.files).unwrap();
                assert!(task(&files, &[1; 8]).check(&rules(), &done.files).is_err(), "another program");
                let mut proof = Memo::proof_of(&done.files).unwrap();
                let middle = proof.len() / 2;
                proof[middle] ^= 1;
                assert!(verify::part(&proof).is_err(), "a changed bit");
                let mut proved = proved.lock().unwrap();
                // Not one of the proofs before is this part's, nor is this one any of theirs.
                for before in proved.iter() {
                    for (asked, made) in [(&before.files, &done.files), (&files, &before.made)] {
                        let refused = task(asked, &program).check(&rules(), made).unwrap_err();
                        assert!(matches!(refused, CheckError::Result(_)), "{refused}");
                    }
                }
                proved.push(Proved { kind: part.kind, key: part.key, files, made: done.files.clone() });
                Ok(done.files)
            };
            tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
        })
    }
}

#[test]
#[ignore = "slow: make test-slow (six minutes on two cores, 12 GiB: proves every shard on another engine)"]
fn a_controllers_parts_are_proved_elsewhere_and_no_finished_one_twice() {
    let dir = tempfile::tempdir().unwrap();
    let reporter = Reporter::new("test", silent());
    let place = |name: &str| EngineConfig {
        cache_dir: dir.path().join("cache"),
        work_dir: dir.path().join(name),
        ..config(&dir)
    };
    let elf = tiny::elf(PUBLIC_VALUES, 10_000, 0);
    let prover = Engine::start(&place("prover"), &reporter).unwrap();
    let key = prover.setup(&elf).unwrap();
    let proved = Arc::new(Mutex::new(Vec::new()));
    let elsewhere = Arc::new(Elsewhere {
        engine: Arc::new(Mutex::new(prover)),
        dir: dir.path().join("sent"),
        program: key.words(),
        proved: proved.clone(),
    });
    let controller =
        Engine::start_controller(&place("controller"), ShardSize::Any, elsewhere, 4, &reporter).unwrap();
    let input = ProveInput::default();
    let Proof::Compressed(proof) =
        controller.prove(&elf, &key, &input, Until::Compressed, &reporter).unwrap()
    else {
        panic!("not a compressed proof");
    };
    assert_eq!(verify::compressed(&proof.encode().unwrap(), &key.words()).unwrap(), PUBLIC_VALUES);
    let proved = proved.lock().unwrap();
    let kinds = |wanted| proved.iter().filter(|part| part.kind == wanted).count();
    let (shards, reductions) = (kinds(PartKind::Shard), kinds(PartKind::Reduce));
    assert!(shards >= 2 && reductions >= 1, "{shards} shards, {reductions} reductions");
    let keys: std::collections::BTreeSet<&String> = proved.iter().map(|part| &part.key).collect();
    assert_eq!(keys.len(), proved.len(), "no part was proved twice");
}
