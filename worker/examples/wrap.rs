//! Shrinks and wraps a compressed proof made by the `prove` example, and prints the time and memory of each phase:
//! `wrap [COMPRESSED_PROOF_FILE]`.

use std::path::PathBuf;
use std::sync::Arc;

use assay_worker::engine::Engine;
use assay_worker::progress::{Progress, ProgressSink, Reporter};
use assay_worker::proof::{CompressedProof, ProofFile};
use assay_worker::settings::EngineConfig;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .init();
    let cache = PathBuf::from(std::env::var("HOME")?).join(".cache/assay/dev");
    let file = std::env::args().nth(1).map_or_else(|| cache.join("compressed.assay"), PathBuf::from);
    let proof = CompressedProof::decode(&std::fs::read(file)?)?;
    let work_dir = cache.join(format!("work-wrap-{}", std::process::id()));
    let config =
        EngineConfig { work_dir: work_dir.clone(), cache_dir: cache.clone(), cores: 0, memory_bytes: 0 };
    let sink: ProgressSink = Arc::new(|event: Progress| {
        println!(
            "{:>8.1} s  {:>6.2} GiB  {} {}/{}",
            event.elapsed_ms as f64 / 1e3,
            event.peak_rss_bytes as f64 / (1u64 << 30) as f64,
            event.phase,
            event.done,
            event.total
        );
    });
    let reporter = Reporter::new("wrap", sink);
    let engine = Engine::start(&config, &reporter)?;
    reporter.report("engine started", 0, 1);
    let wrapped = engine.wrap(&proof, &reporter)?;
    reporter.report("wrapped", 1, 1);
    std::fs::write(cache.join("wrap.assay"), wrapped.encode()?)?;
    std::fs::write(cache.join("wrap_proof.bin"), bincode::serialize(&wrapped.proof)?)?;
    drop(engine);
    std::fs::remove_dir_all(work_dir).ok();
    Ok(())
}
