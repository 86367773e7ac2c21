//! What the coordinators and workers of an epoch agree on: program keys, limits of runs, and the one verifying key.
//!
//! Program keys are computed once, in a child process, and kept in `programs.json`. The verifying key is pinned: the hash from
//! the configuration, or the key of this machine's Groth16 parameters, made special to the fold program as the workers'
//! proofs have it. Parameters are never made here; `assay setup` does that.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use ark_bn254::Bn254;
use ark_groth16::VerifyingKey;
use ark_serialize::CanonicalDeserialize;
use assay_kernels::groth16::{specialise, Groth16Error};
use assay_lvm::RunLimits;
use assay_worker::cluster::Rules;
use assay_worker::groth16::{has_parameters, Statement};
use assay_worker::stages::{Groth16SetupJob, Hex32, Job, KeysJob, KeysOutcome, Outcome};
use serde::{Deserialize, Serialize};

use super::ClusterError;
use crate::cache::Cache;
use crate::config::Config;
use crate::error::Error;
use crate::fsio;
use crate::input::elf_hashes;
use crate::report::ZKVM_VERSION;
use crate::shell::{ask, Place};
use crate::statement::{json_text, public_input};
use crate::verify::verifying_key_digest;

const FILE: &str = "programs.json";
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What holds in an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
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
    if config.coordinator.vk_hash.is_none() && !has_parameters(&folder) {
        return Err(ClusterError::NoVerifyingKey { folder });
    }
    Ok(())
}

/// Learns what holds, by means of a child where it is not known yet.
///
/// # Errors
/// [`ClusterError::NoVerifyingKey`], [`ClusterError::Parameters`]; what the child says.
pub fn open(config: &Config, program: &Path) -> Result<Epoch, Error> {
    let dir = &config.coordinator.dir;
    let cache = Cache::open(&dir.join("work"))?;
    let cancel = Arc::new(AtomicBool::new(false));
    let place = Place { config, cache: &cache, program: program.to_owned(), cancel };
    let path = dir.join(FILE);
    let mut known = match load(&path) {
        Some(known) => known,
        None => {
            tracing::info!("computing the keys of this build's programs");
            let Outcome::Keys(keys) = ask(&place, "keys", &Job::Keys(KeysJob {}))? else {
                return Err(unexpected("keys"));
            };
            let known = Known { build: build(), keys, circuit: None };
            save(&path, &known)?;
            known
        }
    };
    let (verifying_key, is_configured) = match config.coordinator.vk_hash {
        Some(hash) => (hash, true),
        None => (of_this_machine(&place, &path, &mut known)?, false),
    };
    Ok(Epoch { rules: Rules::of_keys(&known.keys, RunLimits::default()), verifying_key, is_configured })
}

/// The verifying key of this machine's parameters.
fn of_this_machine(place: &Place<'_>, path: &Path, known: &mut Known) -> Result<[u8; 32], Error> {
    let folder = place.config.keys.join("groth16");
    let file = |digest: &Hex32, suffix: &str| folder.join(format!("{}.{suffix}", hex::encode(digest.0)));
    let is_there = |digest: &Hex32| file(digest, "pk").is_file() && file(digest, "vk").is_file();
    let digest = match known.circuit.filter(is_there) {
        Some(digest) => digest,
        None => {
            check(place.config)?;
            tracing::info!("looking for this build's circuit among the Groth16 parameters");
            let Outcome::Groth16Setup(made) = ask(place, "set-up", &Job::Groth16Setup(Groth16SetupJob {}))?
            else {
                return Err(unexpected("Groth16 parameters"));
            };
            known.circuit = Some(made.circuit_digest);
            save(path, known)?;
            made.circuit_digest
        }
    };
    let path = file(&digest, "vk");
    let bytes = fsio::read_limited(&path, FILE_BYTES_MAX).map_err(ClusterError::from)?;
    let wrong = |reason: String| ClusterError::Parameters { path: path.clone(), reason };
    let all: VerifyingKey<Bn254> =
        VerifyingKey::deserialize_compressed(bytes.as_slice()).map_err(|error| wrong(error.to_string()))?;
    let key = special(&all, known.keys.fold.vk_words).map_err(|error| wrong(error.to_string()))?;
    Ok(verifying_key_digest(&key))
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
