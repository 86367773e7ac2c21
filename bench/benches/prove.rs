//! The sample batch's way to its Groth16 proof, each part by itself: core, compressed, fold, shrink and wrap, Groth16.
//!
//!     cargo bench -p assay-bench --features cuda --bench prove        with what scripts/build-cuda.sh sets, on a GPU
//!
//! `assay bench` measures the same parts once; here each is repeated ten times, which takes hours without a GPU: there it is skipped,
//! unless `ASSAY_BENCH_PROVE` is set. Every proof is verified, which is in the figures. Keys and Groth16 parameters are those of `assay
//! prove` (`ASSAY_KEYS`, else `~/.cache/assay/keys`), and are made if they are not there.

#![allow(missing_docs, reason = "criterion's macro makes an undocumented function")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use assay_lvm::batch::RunLimits;
use assay_lvm::core::VkHash;
use assay_lvm::vm::{Evm, VirtualMachine};
use assay_lvm::{guests, sample, Batch};
use assay_worker::device::Device;
use assay_worker::progress::silent;
use assay_worker::stages::{
    BlockProgram, FileRef, Groth16ProveJob, Groth16SetupJob, Job, KeysJob, KeysOutcome, Outcome,
    ProveFoldJob, ProveRunJob, Session, StageConfig, Until, WrapJob,
};
use criterion::{criterion_group, criterion_main, Criterion, SamplingMode};

fn is_wanted() -> bool {
    std::env::var_os("ASSAY_BENCH_PROVE").is_some() || matches!(Device::of_process(), Ok(Device::Gpu { .. }))
}

fn keys_folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/assay/keys"));
    std::env::var_os("ASSAY_KEYS").map(PathBuf::from).or_else(home).expect("ASSAY_KEYS or HOME is set")
}

fn run(session: &mut Session, job: &Job) -> Outcome {
    session.run(job).unwrap_or_else(|error| panic!("{}: {error}", job.name()))
}

/// Proves the batch, which is one run of blocks.
fn prove_run(folder: &Path, batch: &Batch, until: Until) -> Job {
    let runs = batch.split_runs(RunLimits::default()).expect("a valid batch");
    let [run] = runs.as_slice() else { panic!("the sample batch has {} runs", runs.len()) };
    let run = FileRef::write(&folder.join("run"), &run.input).expect("a folder to write to");
    Job::ProveRun(ProveRunJob { run, until, delegated: 0, output: folder.join("run.proof") })
}

/// Folds the batch where its history begins.
fn fold(folder: &Path, batch: &Batch, keys: &KeysOutcome, run: FileRef) -> Job {
    let genesis = Evm.validate(batch).expect("a valid batch").from.commitment();
    let (block, fold) = (VkHash(keys.block.vk_words), VkHash(keys.fold.vk_words));
    Job::ProveFold(ProveFoldJob {
        runs: vec![run],
        previous: None,
        genesis_commitment: genesis.into(),
        block_programs: BlockProgram::all_of(&guests::code_control_group(genesis, block, fold)),
        until: Until::Compressed,
        delegated: 0,
        output: folder.join("fold.proof"),
    })
}

fn parts(criterion: &mut Criterion) {
    if !is_wanted() {
        println!(
            "skipped: no GPU that this build can use; ASSAY_BENCH_PROVE=1 takes the processor, for hours"
        );
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let config =
        StageConfig { cache_dir: keys_folder(), work_dir: folder.join("work"), cores: 0, memory_bytes: 0 };
    let batch = sample::batch(1).expect("the sample chain is valid");
    let mut group = criterion.benchmark_group("sample batch");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(1));

    let mut session = Session::new(config.clone(), silent());
    let Outcome::Keys(keys) = run(&mut session, &Job::Keys(KeysJob {})) else { panic!("no keys") };
    let job = prove_run(folder, &batch, Until::Core);
    group.bench_function("core", |bencher| bencher.iter(|| run(&mut session, &job)));
    let job = prove_run(folder, &batch, Until::Compressed);
    let Outcome::ProveRun(proved) = run(&mut session, &job) else { panic!("no block proof") };
    group.bench_function("compressed", |bencher| bencher.iter(|| run(&mut session, &job)));
    let job = fold(folder, &batch, &keys, proved.proof);
    let Outcome::ProveFold(folded) = run(&mut session, &job) else { panic!("no fold proof") };
    group.bench_function("fold", |bencher| bencher.iter(|| run(&mut session, &job)));
    let job = Job::Wrap(WrapJob { fold: folded.proof, output: folder.join("wrap.proof") });
    let Outcome::Wrap(wrapped) = run(&mut session, &job) else { panic!("no wrap proof") };
    group.bench_function("shrink and wrap", |bencher| bencher.iter(|| run(&mut session, &job)));

    // Its memory is free before the next one takes its own.
    drop(session);
    let mut session = Session::new(config, silent());
    run(&mut session, &Job::Groth16Setup(Groth16SetupJob {}));
    let job = Job::Groth16Prove(Groth16ProveJob {
        wrap: wrapped.proof,
        fold_public_values: folded.public_values,
        fold_program: keys.fold.vk_words,
        output_dir: folder.join("groth16"),
    });
    group.bench_function("Groth16", |bencher| bencher.iter(|| run(&mut session, &job)));
    group.finish();
}

criterion_group!(benches, parts);
criterion_main!(benches);
