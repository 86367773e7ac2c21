//! What the coordinators and workers of an epoch agree on: program keys, limits of runs, and the one verifying key.
//!
//! Program keys are computed once, in a child process, and kept in `programs.json`. The verifying key is pinned: the hash from
//! the configuration, or the key of this machine's Groth16 parameters, made special to the fold program as the workers'
//! proofs have it. Parameters are made by `assay setup`; here only where those there are of an older version's circuit and this
//! coordinator's own worker is the only one that needs them.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use ark_bn254::Bn254;
use ark_groth16::VerifyingKey;
use ark_serialize::CanonicalDeserialize;
use assay_kernels::groth16::{specialise, Groth16Error};
use assay_worker::cluster::Rules;
use assay_worker::groth16::{has_parameters, phase, Statement};
use assay_worker::progress::Progress;
use assay_worker::stages::{Groth16CircuitJob, Groth16SetupJob, Hex32, Job, KeysJob, KeysOutcome, Outcome};
use serde::{Deserialize, Serialize};

use super::ClusterError;
use crate::cache::Cache;
use crate::config::{Config, Place as QueuePlace};
use crate::error::Error;
use crate::fsio;
use crate::input::elf_hashes;
use crate::report::ZKVM_VERSION;
use crate::shell::{ask, Place as StagePlace};
use crate::statement::{json_text, public_input};
use crate::verify::verifying_key_digest;

const FILE: &str = "programs.json";
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What holds in an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// What workers and batches of this build have: `assay_worker::cluster::version`.
    pub version: u32,
    /// Program keys and limits of runs.
    pub rules: Rules,
    /// BLAKE3 of the only verifying key whose proofs count.
    pub verifying_key: [u8; 32],
    /// Whether the configuration names it.
    pub is_configured: bool,
}

/// What a child has computed for a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// Which build; of another one nothing is used.
    build: String,
    /// Keys of its programs.
    keys: KeysOutcome,
    /// Digest of its wrap circuit, once it was asked for.
    circuit: Option<Hex32>,
}

/// Whether there is anything to check proofs with; looks, and does nothing.
///
/// # Errors
/// [`ClusterError::NoVerifyingKey`].
pub fn check(config: &Config) -> Result<(), ClusterError> {
    let folder = config.keys.join("groth16");
    let is_shared = config.coordinator.place != QueuePlace::Embedded;
    // Where others prove the verifying key is enough.
    let has_any = has_parameters(&folder) || (is_shared && has_verifying_key(&folder));
    if config.coordinator.vk_hash.is_none() && !has_any {
        return Err(ClusterError::NoVerifyingKey { folder });
    }
    Ok(())
}

fn has_verifying_key(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "vk"))
}

/// Learns what holds, by means of a child where it is not known yet; `say` gets what takes long. Call [`check`] first.
///
/// # Errors
/// [`ClusterError::OtherCircuit`], [`ClusterError::Parameters`]; what the child says.
pub fn open(config: &Config, program: &Path, say: &mut dyn FnMut(&str)) -> Result<Epoch, Error> {
    let dir = &config.coordinator.dir;
    let cache = Cache::open(&dir.join("work"))?;
    let cancel = Arc::new(AtomicBool::new(false));
    let place = StagePlace { config, cache: &cache, program: program.to_owned(), cancel };
    let path = dir.join(FILE);
    let mut known = match load(&path) {
        Some(known) => known,
        None => {
            say("computing the keys of this version's programs");
            let Outcome::Keys(keys) = ask(&place, "keys", &Job::Keys(KeysJob {}), &mut |_| ())? else {
                return Err(unexpected("keys"));
            };
            let known = Known { build: build(), keys, circuit: None };
            save(&path, &known)?;
            known
        }
    };
    let (verifying_key, is_configured) = match config.coordinator.vk_hash {
        Some(hash) => (hash, true),
        None => (of_this_machine(&place, &path, &mut known, say)?, false),
    };
    let limits = config.run_limits();
    let (version, rules) = (assay_worker::cluster::version(limits), Rules::of_keys(&known.keys, limits));
    Ok(Epoch { version, rules, verifying_key, is_configured })
}

/// The verifying key of this machine's parameters.
fn of_this_machine(
    place: &StagePlace<'_>,
    path: &Path,
    known: &mut Known,
    say: &mut dyn FnMut(&str),
) -> Result<[u8; 32], Error> {
    let folder = place.config.keys.join("groth16");
    let digest = match known.circuit {
        Some(digest) => digest,
        None => {
            say("building this version's wrap circuit, to find its Groth16 parameters");
            let job = Job::Groth16Circuit(Groth16CircuitJob {});
            let Outcome::Groth16Circuit(circuit) = ask(place, "circuit", &job, &mut |_| ())? else {
                return Err(unexpected("the wrap circuit"));
            };
            known.circuit = Some(circuit.circuit_digest);
            save(path, known)?;
            circuit.circuit_digest
        }
    };
    let file = |suffix: &str| folder.join(format!("{}.{suffix}", hex::encode(digest.0)));
    match parameters(&file("pk"), &file("vk"), &place.config.coordinator.place) {
        Parameters::Ready => {}
        Parameters::Refuse => return Err(other(&folder, digest).into()),
        Parameters::MakeHere => {
            let mut tell = Teller::new(say, &folder);
            let job = Job::Groth16Setup(Groth16SetupJob {});
            let outcome = ask(place, "set-up", &job, &mut |progress| tell.hear(progress))?;
            if !matches!(outcome, Outcome::Groth16Setup(_)) {
                return Err(unexpected("Groth16 parameters"));
            }
        }
    }
    let path = file("vk");
    let bytes = fsio::read_limited(&path, FILE_BYTES_MAX).map_err(ClusterError::from)?;
    let wrong = |reason: String| ClusterError::Parameters { path: path.clone(), reason };
    let all: VerifyingKey<Bn254> =
        VerifyingKey::deserialize_compressed(bytes.as_slice()).map_err(|error| wrong(error.to_string()))?;
    let key = special(&all, known.keys.fold.vk_words).map_err(|error| wrong(error.to_string()))?;
    Ok(verifying_key_digest(&key))
}

fn other(folder: &Path, circuit: Hex32) -> ClusterError {
    ClusterError::OtherCircuit { folder: folder.to_owned(), circuit: circuit.to_string() }
}

/// What to do about this build's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameters {
    /// Nothing: what is needed of them is there.
    Ready,
    /// A set-up in this process's child: of the verifying key, if the proving key is there; and where this coordinator's
    /// own worker is the only one, of all.
    MakeHere,
    /// Nothing is there and others prove: parameters drawn here would be nobody else's, and all their proofs refused.
    Refuse,
}

fn parameters(proving_key: &Path, verifying_key: &Path, place: &QueuePlace) -> Parameters {
    match (proving_key.is_file(), verifying_key.is_file()) {
        (true, true) => Parameters::Ready,
        (true, false) => Parameters::MakeHere,
        (false, _) if *place == QueuePlace::Embedded => Parameters::MakeHere,
        // Proofs are checked by the verifying key alone.
        (false, true) => Parameters::Ready,
        (false, false) => Parameters::Refuse,
    }
}

/// Tells a person how a set-up goes: that it begins or is waited for, and each tenth of each phase.
struct Teller<'a> {
    say: &'a mut dyn FnMut(&str),
    folder: &'a Path,
    has_begun: bool,
    last: (String, u64),
}

impl<'a> Teller<'a> {
    fn new(say: &'a mut dyn FnMut(&str), folder: &'a Path) -> Self {
        Self { say, folder, has_begun: false, last: (String::new(), 0) }
    }

    fn hear(&mut self, progress: &Progress) {
        match progress.phase.as_str() {
            // These come also if the parameters are there.
            phase::BUILD_CIRCUIT | phase::OPEN_PARAMETERS => return,
            phase::WAIT => {
                let folder = self.folder.display();
                (self.say)(&format!(
                    "another process is making the Groth16 parameters in {folder}; waiting for it"
                ));
                return;
            }
            _ => {}
        }
        if !self.has_begun {
            self.has_begun = true;
            (self.say)(&format!(
                "there are no Groth16 parameters of this version's circuit in {}: making them, once, which takes minutes and \
                 2.7 GiB. {}",
                self.folder.display(),
                crate::statement::INSECURE_NOTE
            ));
        }
        let tenth = (progress.done * 10).checked_div(progress.total).unwrap_or(0);
        let step = (progress.phase.clone(), tenth);
        if step != self.last {
            (self.say)(&format!("  set-up         {}, {} %", progress.phase, tenth * 10));
            self.last = step;
        }
    }
}

/// The key for one public input, the digest: the other four of the wrap circuit are constants of the epoch, and folded in
/// as `assay_worker::groth16` does it.
fn special(all: &VerifyingKey<Bn254>, fold_program: [u32; 8]) -> Result<VerifyingKey<Bn254>, Groth16Error> {
    let inputs = Statement { program: fold_program, public_values: Vec::new() }.inputs();
    // In the circuit's order, which is that of `WrapInputs`; number 1 is the digest.
    let constants =
        [(0, inputs.vkey_hash), (2, inputs.exit_code), (3, inputs.vk_root), (4, inputs.proof_nonce)];
    specialise(all, &constants.map(|(number, value)| (number, public_input(&value.0))))
}

/// What the keys depend on.
fn build() -> String {
    let (block, fold) = elf_hashes();
    let (block, fold) = (hex::encode(block), hex::encode(fold));
    format!("assay {}, {ZKVM_VERSION}, block {block}, fold {fold}", env!("CARGO_PKG_VERSION"))
}

fn load(path: &Path) -> Option<Known> {
    let bytes = fsio::read_limited(path, FILE_BYTES_MAX).ok()?;
    let known: Known = serde_json::from_slice(&bytes).ok()?;
    (known.build == build()).then_some(known)
}

fn save(path: &Path, known: &Known) -> Result<(), Error> {
    Ok(fsio::write_atomic(path, json_text(known).as_bytes()).map_err(ClusterError::from)?)
}

fn unexpected(what: &str) -> Error {
    let reason = format!("the stage's process answered something else than {what}");
    Error::Stage { stage: "start".to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Settings};

    #[test]
    fn only_a_coordinator_whose_worker_is_alone_has_parameters_made() {
        let dir = tempfile::tempdir().unwrap();
        let (pk, vk) = (dir.path().join("pk"), dir.path().join("vk"));
        let config = |redis: bool| {
            let mut settings = Settings { cache: Some(dir.path().into()), ..Settings::default() };
            settings.queue.redis = redis.then(|| "redis://h".to_owned());
            settings.store.url = redis.then(|| "file:///s".to_owned());
            Config::new(None, |_| None, settings).unwrap().coordinator.place
        };
        let (alone, shared) = (config(false), config(true));
        let both = || [&alone, &shared].map(|place| parameters(&pk, &vk, place));
        assert_eq!(both(), [Parameters::MakeHere, Parameters::Refuse]);
        std::fs::write(&vk, "").unwrap();
        assert_eq!(both(), [Parameters::MakeHere, Parameters::Ready]);
        std::fs::write(&pk, "").unwrap();
        assert_eq!(both(), [Parameters::Ready, Parameters::Ready]);
        std::fs::remove_file(&vk).unwrap();
        assert_eq!(both(), [Parameters::MakeHere, Parameters::MakeHere]);
    }

    /// What a set-up with these phases, (name, done, total), is told as.
    fn told(phases: impl IntoIterator<Item = (&'static str, u64, u64)>) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |line: &str| lines.push(line.to_owned());
        let mut tell = Teller::new(&mut say, Path::new("/keys/groth16"));
        for (phase, done, total) in phases {
            let (stage, phase) = ("groth16_setup".to_owned(), phase.to_owned());
            let gpu_faults = assay_agent::runner::GpuFaults::default();
            tell.hear(&Progress { stage, phase, done, total, peak_rss_bytes: 0, elapsed_ms: 0, gpu_faults });
        }
        lines
    }

    #[test]
    fn the_verifying_key_is_enough_for_a_coordinator_that_does_not_prove() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let refused = |redis: bool| {
            let mut settings =
                Settings { cache: Some(dir.path().into()), keys: Some(keys.clone()), ..Settings::default() };
            settings.queue.redis = redis.then(|| "redis://h".to_owned());
            settings.store.url = redis.then(|| "file:///s".to_owned());
            check(&Config::new(None, |_| None, settings).unwrap()).is_err()
        };
        assert!(refused(false) && refused(true));
        std::fs::create_dir_all(keys.join("groth16")).unwrap();
        std::fs::write(keys.join("groth16/00.vk"), "").unwrap();
        assert!(refused(false) && !refused(true));
        std::fs::write(keys.join("groth16/00.pk"), "").unwrap();
        assert!(!refused(false) && !refused(true));
    }

    #[test]
    fn a_set_up_is_announced_and_told_by_tenths_and_finding_parameters_is_not() {
        let found = [(phase::BUILD_CIRCUIT, 1, 1), (phase::OPEN_PARAMETERS, 0, 1)];
        assert!(told(found).is_empty());
        let powers = (0..=1000).map(|done| ("powers", done, 1000));
        let lines = told(found.into_iter().chain(powers).chain([("hash", 0, 0)]));
        assert!(lines[0].contains("/keys/groth16") && lines[0].contains("INSECURE"), "{}", lines[0]);
        assert_eq!(lines.len(), 1 + 11 + 1, "{lines:?}");
        assert!(lines[11].ends_with("powers, 100 %") && lines[12].ends_with("hash, 0 %"), "{lines:?}");
    }

    #[test]
    fn waiting_for_another_process_is_not_told_as_a_set_up_of_its_own() {
        let waited = [(phase::WAIT, 0, 1), (phase::OPEN_PARAMETERS, 0, 1), (phase::OPEN_PARAMETERS, 1, 1)];
        let lines = told(waited);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("another process") && lines[0].contains("/keys/groth16"), "{}", lines[0]);
        // The other one has died, and this one makes them after all.
        let lines = told([(phase::WAIT, 0, 1), ("powers", 0, 1000)]);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].contains("making them") && lines[2].ends_with("powers, 0 %"), "{lines:?}");
    }
}
