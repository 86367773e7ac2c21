//! Batches in flight: sample batches through a coordinator with an embedded queue and the worker that it has, one at a time and
//! then two at a time.
//!
//! The coordinator is a process of its own (`assay coordinator`), with a configuration, a folder and a chain of its own, and nothing of
//! the environment's settings. It ends with this process, however that ends.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use assay_client::cli::block_on;
use assay_client::wire::Batch;
use assay_client::{Client, Remote, Wishes};
use assay_lvm::sample;

use super::super::{Fault, Place};
use crate::bench::{InFlight, Sampler};
use crate::child::{Child, Heard};
use crate::config::{Config, VARIABLES};
use crate::fsio::{self, write_atomic};

/// How often the batches are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Batches in flight, and batches in all. The first round loads keys and is not counted.
const ROUNDS: [(u32, u32); 3] = [(1, 1), (1, 1), (2, 3)];

/// Measures on the GPUs of these numbers, or on the processor where there are none.
pub(super) fn measure(place: &Place<'_>, gpus: &[u32]) -> Result<Vec<InFlight>, Fault> {
    let folder = tempfile::tempdir_in(place.cache.root())?;
    let running = Running::start(place, folder.path())?;
    let figures = block_on(rounds(&running, gpus, &place.cancel));
    running.child.end();
    figures
}

async fn rounds(running: &Running, gpus: &[u32], cancel: &AtomicBool) -> Result<Vec<InFlight>, Fault> {
    let remote = Remote { url: running.url.clone(), key: running.key.clone(), ca_file: None };
    let client = Client::new(&remote)?;
    let mut figures = Vec::new();
    let mut next = 1;
    for (number, (at_once, batches)) in ROUNDS.into_iter().enumerate() {
        fsio::say!("{batches} batch(es) of the sample rollup, {at_once} in flight");
        let files = (next..next + u64::from(batches)).map(|index| Ok(sample::batch(index)?.encode()));
        let files = files.collect::<Result<Vec<_>, Fault>>()?;
        next += u64::from(batches);
        let round = Round { running, client: &client, cancel, waiting: Vec::new() };
        let figure = round.run(files, at_once, gpus).await?;
        if number > 0 {
            figures.push(figure);
        }
    }
    Ok(figures)
}

/// Some batches, as many at a time as are to be in flight.
struct Round<'a> {
    running: &'a Running,
    client: &'a Client,
    cancel: &'a AtomicBool,
    /// Numbers of those that are not proved yet.
    waiting: Vec<u64>,
}

impl Round<'_> {
    async fn run(mut self, files: Vec<Vec<u8>>, at_once: u32, gpus: &[u32]) -> Result<InFlight, Fault> {
        let mut files = files.into_iter();
        let mut figure = InFlight { at_once, proved: 0, seconds: 0.0, gpu: None };
        let mut sampler = Sampler::start(gpus);
        let begun = Instant::now();
        loop {
            while self.waiting.len() < at_once as usize {
                let Some(file) = files.next() else { break };
                self.waiting.push(self.client.submit(file, &Wishes::default()).await?.value.id);
            }
            // From the first time that there are fewer nothing counts any more.
            let are_all = self.waiting.len() == at_once as usize;
            if !are_all {
                figure.gpu = sampler.take().and_then(Sampler::stop).or(figure.gpu);
            }
            if self.waiting.is_empty() {
                return Ok(figure);
            }
            let proved = self.wait().await?;
            if are_all {
                figure.proved += proved;
                figure.seconds = begun.elapsed().as_secs_f64();
            }
        }
    }

    /// Waits until some batches are proved, takes these out and says how many they were.
    async fn wait(&mut self) -> Result<u32, Fault> {
        loop {
            tokio::time::sleep(TICK).await;
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Fault::Cancelled);
            }
            self.running.check()?;
            let mut left = Vec::new();
            for id in &self.waiting {
                let is_over = match self.client.batch(*id).await {
                    Ok(answer) => is_proved(&answer.value.batch)?,
                    Err(error) if error.is_transient() => false,
                    Err(error) => return Err(error.into()),
                };
                if !is_over {
                    left.push(*id);
                }
            }
            let proved = self.waiting.len() - left.len();
            self.waiting = left;
            if proved > 0 {
                return Ok(u32::try_from(proved).unwrap_or(u32::MAX));
            }
        }
    }
}

/// Whether the Groth16 proof of a batch is there and verified.
fn is_proved(batch: &Batch) -> Result<bool, Fault> {
    match batch.phase.as_str() {
        "proved" | "settling" | "settled" => Ok(true),
        phase @ ("failed" | "cancelled") => {
            let reason = batch.failure.as_ref().map(|failure| failure.text.as_str()).unwrap_or_default();
            Err(Fault::Failed(format!("batch {} {phase}: {reason}", batch.id)))
        }
        _ => Ok(false),
    }
}

/// A coordinator that answers.
struct Running {
    child: Child,
    url: String,
    key: String,
}

impl Running {
    /// Starts one with all its files in `folder`, and waits until it says where it listens.
    fn start(place: &Place<'_>, folder: &Path) -> Result<Self, Fault> {
        let file = folder.join("assay.toml");
        write_atomic(&file, configuration(place.config, folder).as_bytes())?;
        let words = [
            "-c".to_owned(),
            script(),
            place.program.display().to_string(),
            "--config".to_owned(),
            file.display().to_string(),
            "coordinator".to_owned(),
        ];
        let log: PathBuf = place.cache.root().join("logs").join("bench-coordinator.log");
        let child = Child::spawn(Path::new("/bin/sh"), &words, &log)?;
        let (mut url, mut key): (Option<String>, Option<String>) = (None, None);
        loop {
            if let (Some(url), Some(key)) = (&url, &key) {
                return Ok(Self { child, url: url.clone(), key: key.clone() });
            }
            if place.cancel.load(Ordering::Relaxed) {
                return Err(Fault::Cancelled);
            }
            match child.listen(TICK) {
                Heard::Nothing => {}
                Heard::Ended => return Err(Fault::Failed(child.post_mortem())),
                Heard::Line(line) => {
                    url = url.or_else(|| word_after(&line, "listening on "));
                    key = key.or_else(|| word_after(&line, "first key "));
                }
            }
        }
    }

    fn check(&self) -> Result<(), Fault> {
        match self.child.listen(Duration::ZERO) {
            Heard::Ended => {
                let log = self.child.log().display();
                Err(Fault::Failed(format!("the coordinator has ended (log: {log})")))
            }
            Heard::Line(_) | Heard::Nothing => Ok(()),
        }
    }
}

/// Runs the program and arguments that it is given, without the settings of the environment, and ends them when its input ends.
fn script() -> String {
    let ends = "{ cat <&3; kill -TERM $pid; } >/dev/null 2>&1 &";
    let variables = VARIABLES.join(" ");
    format!("unset {variables}; exec 3<&0; \"$0\" \"$@\" 3<&- </dev/null & pid=$!; {ends} wait $pid")
}

/// Keys and prover as for everything else, the rest in `folder`.
fn configuration(config: &Config, folder: &Path) -> String {
    let path = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    format!(
        "out = {}\ncache = {}\nkeys = {}\n[prover]\ncores = {}\nmemory_gib = {}\nrun_gas_max = {}\nrun_blocks_max = {}\n\
         [coordinator]\ndir = {}\nlisten = \"127.0.0.1:0\"\nworker = \"always\"\n",
        path(&folder.join("out")),
        path(&folder.join("cache")),
        path(&config.keys),
        config.cores,
        config.memory_bytes >> 30,
        config.run_gas_max,
        config.run_blocks_max,
        path(&folder.join("coordinator")),
    )
}

/// The word that follows `mark` in a line, blanks between them passed over.
fn word_after(line: &str, mark: &str) -> Option<String> {
    let (_, rest) = line.split_once(mark)?;
    let word = rest.split_whitespace().next()?;
    Some(word.trim_end_matches(';').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Place as QueuePlace, Settings};

    #[test]
    fn the_coordinator_has_the_provers_settings_and_nothing_else_of_ours() {
        let text =
            "out = \"ours\"\nkeys = \"a \\\"b\"\n[prover]\ncores = 3\nmemory_gib = 15\nrun_blocks_max = 7\n\
                    [queue]\nredis = \"redis://ours\"\n[store]\nurl = \"s3://ours\"\n";
        let load = |text: &str| {
            let home = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
            Config::new(Some((Path::new("assay.toml"), text)), home, Settings::default()).unwrap()
        };
        let ours = load(text);
        let its = load(&configuration(&ours, Path::new("/t")));
        assert_eq!((&its.keys, its.cores, its.memory_bytes), (&ours.keys, 3, 15 << 30));
        assert_eq!(its.run_limits(), ours.run_limits());
        assert_eq!((its.out.as_path(), its.cache.as_path()), (Path::new("/t/out"), Path::new("/t/cache")));
        assert_eq!(its.coordinator.dir, Path::new("/t/coordinator"));
        assert_eq!((its.coordinator.place, its.coordinator.has_worker), (QueuePlace::Embedded, true));
        assert_eq!((its.bitcoind, its.l1_batches), (None, None));
    }

    #[test]
    fn where_it_listens_and_its_first_key_are_read_from_what_it_says() {
        let line = "listening on http://127.0.0.1:4031; a live page at /, metrics at /metrics";
        assert_eq!(word_after(line, "listening on ").as_deref(), Some("http://127.0.0.1:4031"));
        assert_eq!(word_after(line, "first key "), None);
        assert_eq!(word_after("  first key      assay_00ff", "first key ").as_deref(), Some("assay_00ff"));
    }

    #[test]
    fn a_batch_is_proved_once_its_proof_is_checked_and_a_failure_ends_the_measurement() {
        let batch = |phase: &str| Batch { phase: phase.to_owned(), ..Batch::default() };
        for (phase, expected) in
            [("proving", false), ("checking", false), ("proved", true), ("settled", true)]
        {
            assert!(matches!(is_proved(&batch(phase)), Ok(proved) if proved == expected), "{phase}");
        }
        assert!(matches!(is_proved(&batch("failed")), Err(Fault::Failed(_))));
    }

    #[test]
    fn a_process_is_ended_by_the_end_of_its_input_and_has_no_settings_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        // The outer shell sets the variable for this child alone.
        let outer = format!("ASSAY_REDIS=redis://ours exec /bin/sh -c '{}' /bin/sh -c \"$1\"", script());
        let inner = "trap 'exit 7' TERM; echo redis ${ASSAY_REDIS:-none}; while :; do sleep 0.01; done";
        let words = ["-c".to_owned(), outer, "sh".to_owned(), inner.to_owned()];
        let child = Child::spawn(Path::new("/bin/sh"), &words, &dir.path().join("log")).unwrap();
        match child.listen(Duration::from_secs(60)) {
            Heard::Line(line) => assert_eq!(line, "redis none"),
            other => panic!("{other:?}"),
        }
        assert_eq!(child.end().unwrap().code(), Some(7));
    }

    #[test]
    fn a_process_that_ends_by_itself_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let script = script();
        let words = ["-c", script.as_str(), "/bin/sh", "-c", "exit 5"].map(str::to_owned);
        let child = Child::spawn(Path::new("/bin/sh"), &words, &dir.path().join("log")).unwrap();
        assert!(matches!(child.listen(Duration::from_secs(60)), Heard::Ended));
        assert_eq!(child.end().unwrap().code(), Some(5));
    }
}
