//! Proves sample batch 1 (or a batch file) up to the wrap proof, through the stages a coordinator uses, printing time and memory:
//! `batch [--wrap] [--runs-only] [BATCH_FILE]`.

use std::path::PathBuf;
use std::sync::Arc;

use assay_lvm::vm::{Evm, VirtualMachine};
use assay_lvm::{sample, Batch, RunLimits};
use assay_worker::progress::{Progress, ProgressSink};
use assay_worker::stages::{
    BlockProgram, FileRef, Job, KeysJob, Outcome, ProveFoldJob, ProveRunJob, Session, StageConfig, Until,
    WrapJob,
};

fn sink() -> ProgressSink {
    Arc::new(|event: Progress| {
        println!(
            "{:>8.1} s  {:>6.2} GiB  {}: {} {}/{}",
            event.elapsed_ms as f64 / 1e3,
            event.peak_rss_bytes as f64 / (1u64 << 30) as f64,
            event.stage,
            event.phase,
            event.done,
            event.total
        );
    })
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .init();
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let wrap = arguments.iter().any(|a| a == "--wrap");
    let runs_only = arguments.iter().any(|a| a == "--runs-only");
    arguments.retain(|a| a != "--wrap" && a != "--runs-only");
    let cache = PathBuf::from(std::env::var("HOME")?).join(".cache/assay/dev");
    let config =
        StageConfig { work_dir: cache.join("work"), cache_dir: cache.clone(), cores: 0, memory_bytes: 0 };
    let mut session = Session::new(config, sink());
    let batch = match arguments.first() {
        Some(path) => Batch::read(path.as_ref())?,
        None => sample::batch(1)?,
    };
    let Outcome::Keys(keys) = session.run(&Job::Keys(KeysJob {}))? else { anyhow::bail!("not keys") };
    println!("block program {:08x?}\nfold program  {:08x?}", keys.block.vk_words, keys.fold.vk_words);
    let mut runs = Vec::new();
    for (number, run) in Evm.runs(&batch, RunLimits::default())?.into_iter().enumerate() {
        let input = FileRef::write(&cache.join(format!("run{number}.input")), &run.input)?;
        let output = cache.join(format!("run{number}.proof"));
        let job = Job::ProveRun(ProveRunJob { run: input, until: Until::Compressed, output });
        let Outcome::ProveRun(proof) = session.run(&job)? else { anyhow::bail!("not a run") };
        println!("run {number}: {} cycles, {} shards, {} ms", proof.cycles, proof.shards, proof.elapsed_ms);
        anyhow::ensure!(proof.public_values.0 == run.public_values.encode(), "host and guest disagree");
        runs.push(proof.proof);
    }
    if runs_only {
        return Ok(());
    }
    let job = Job::ProveFold(ProveFoldJob {
        runs,
        previous: None,
        genesis_commitment: batch.parent.commitment().into(),
        block_programs: vec![BlockProgram {
            first_block: 0,
            last_block: u64::MAX,
            vk_words: keys.block.vk_words,
        }],
        until: Until::Compressed,
        output: cache.join("fold.proof"),
    });
    let Outcome::ProveFold(fold) = session.run(&job)? else { anyhow::bail!("not a fold") };
    println!("fold: {} cycles, {} shards, {} ms", fold.cycles, fold.shards, fold.elapsed_ms);
    if wrap {
        let job = Job::Wrap(WrapJob { fold: fold.proof, output: cache.join("wrap.proof") });
        let Outcome::Wrap(wrapped) = session.run(&job)? else { anyhow::bail!("not a wrap") };
        println!("wrap: {} ms, inputs {:?}", wrapped.elapsed_ms, wrapped.inputs);
    }
    Ok(())
}
