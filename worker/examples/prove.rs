//! Proves one program and prints every stage's time and memory:
//! `prove ELF|tiny [--wrap] [--out NAME] [--deferred PROOF]... [STDIN_FILE...]`. Proofs go to `~/.cache/assay/dev/NAME.*`.

use std::path::PathBuf;
use std::sync::Arc;

use assay_worker::engine::{Engine, Proof, ProveInput, Until};
use assay_worker::progress::{Progress, ProgressSink, Reporter};
use assay_worker::proof::{CompressedProof, ProofFile};
use assay_worker::settings::EngineConfig;
use assay_worker::tiny;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .init();
    let (mut wrap, mut name, mut deferred, mut files) =
        (false, "compressed".to_owned(), Vec::new(), Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--wrap" => wrap = true,
            "--out" => name = arguments.next().unwrap_or(name),
            "--deferred" => deferred.extend(arguments.next()),
            _ => files.push(argument),
        }
    }
    let (elf, inputs) =
        files.split_first().ok_or_else(|| anyhow::anyhow!("usage: prove ELF|tiny [STDIN...]"))?;
    let elf = if elf == "tiny" { tiny::elf(b"assay", 10_000, 0) } else { std::fs::read(elf)? };
    let cache = PathBuf::from(std::env::var("HOME")?).join(".cache/assay/dev");
    let config =
        EngineConfig { work_dir: cache.join("work"), cache_dir: cache.clone(), cores: 0, memory_bytes: 0 };
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
    let reporter = Reporter::new("example", sink);
    let engine = Engine::start(&config, &reporter)?;
    let key = engine.setup(&elf)?;
    reporter.report("setup done", 0, 0);
    let stdin = inputs.iter().map(std::fs::read).collect::<Result<_, _>>()?;
    let deferred = deferred
        .iter()
        .map(|path| Ok(CompressedProof::decode(&std::fs::read(path)?)?))
        .collect::<anyhow::Result<_>>()?;
    let input = ProveInput { stdin, deferred };
    println!("key {:?}", key.words());
    let summary = engine.execute(&elf, &input)?;
    println!(
        "{} cycles, {} bytes of public values, {:?}",
        summary.cycles,
        summary.public_values.len(),
        summary.syscalls
    );
    let Proof::Compressed(proof) = engine.prove(&elf, &key, &input, Until::Compressed, &reporter)? else {
        anyhow::bail!("not a compressed proof");
    };
    reporter.report("compressed", u64::from(proof.shards), 0);
    std::fs::write(cache.join(format!("{name}.assay")), proof.encode()?)?;
    std::fs::write(cache.join(format!("{name}.bin")), bincode::serialize(&proof.proof)?)?;
    std::fs::write(cache.join(format!("{name}_vk.bin")), bincode::serialize(&proof.vk)?)?;
    if wrap {
        let wrapped = engine.wrap(&proof, &reporter)?;
        std::fs::write(cache.join(format!("{name}.wrap")), wrapped.encode()?)?;
        reporter.report("wrapped", 1, 1);
    }
    Ok(())
}
