//! Batches on the host and in the guest: building the sample chain, checking a batch, witness building, and the guest's
//! cycles (printed per transaction; a count, so it needs no repetition).

#![allow(missing_docs, reason = "criterion's macro makes an undocumented function")]

use assay_lvm::batch::RunLimits;
use assay_lvm::guests::BLOCK_ELF;
use assay_lvm::{mainnet, sample};
use assay_worker::engine::{execute, ProveInput};
use assay_worker::settings::EngineConfig;
use criterion::{criterion_group, criterion_main, Criterion};
use std::path::Path;

/// Where the mainnet block lies, seen from the workspace's root.
const MAINNET_BLOCK: &str = "../shared/data/mainnet/23587691.json";

fn host(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch");
    group.sample_size(10);
    group.bench_function("sample: build the chain and its witness", |b| {
        b.iter(|| sample::batch(1).expect("the sample chain is valid"));
    });
    let batch = sample::batch(1).expect("the sample chain is valid");
    group.bench_function("sample: validate", |b| b.iter(|| batch.validate().expect("a valid batch")));
    group.bench_function("sample: split into runs", |b| {
        b.iter(|| batch.split_runs(RunLimits::default()).expect("a valid batch"));
    });
    if let Some(block) = mainnet_block() {
        group.bench_function("mainnet 23587691: validate", |b| {
            b.iter(|| block.validate().expect("a valid block"))
        });
        group.bench_function("mainnet 23587691: split into runs", |b| {
            b.iter(|| block.split_runs(RunLimits::default()).expect("a valid block"));
        });
    }
    group.finish();
}

fn mainnet_block() -> Option<assay_lvm::Batch> {
    // Benches run in their package's folder.
    let path = Path::new("..").join(MAINNET_BLOCK);
    if !path.exists() {
        println!("skipped: {} is absent", path.display());
        return None;
    }
    Some(mainnet::load(&path).expect("the file is a block with its witness"))
}

/// Cycles of the `block` guest over the whole batch.
fn cycles(batch: &assay_lvm::Batch) -> u64 {
    let folder = std::env::temp_dir().join(format!("assay-bench-{}", std::process::id()));
    let config =
        EngineConfig { cache_dir: folder.clone(), work_dir: folder.clone(), cores: 0, memory_bytes: 0 };
    let runs = batch.split_runs(RunLimits::default()).expect("a valid batch");
    let total = runs
        .into_iter()
        .map(|run| {
            let input = ProveInput { stdin: vec![run.input], deferred: Vec::new() };
            execute(&config, BLOCK_ELF, &input).expect("the guest accepts what the host accepts").cycles
        })
        .sum();
    let _ = std::fs::remove_dir_all(&folder);
    total
}

fn guest(c: &mut Criterion) {
    let sample = sample::batch(1).expect("the sample chain is valid");
    let total = cycles(&sample);
    println!("guest cycles, sample batch: {total}, {} per transaction", total / 8);
    if let Some(block) = mainnet_block() {
        let total = cycles(&block);
        println!("guest cycles, mainnet block 23587691: {total}, {} per transaction", total / 40);
    }
    let mut group = c.benchmark_group("guest");
    group.sample_size(10);
    group.bench_function("execute the sample batch", |b| b.iter(|| cycles(&sample)));
    group.finish();
}

criterion_group!(benches, host, guest);
criterion_main!(benches);
