//! From a wrap proof to a Groth16 proof with one public input.
//!
//! The wrap circuit has five public inputs. Four are constants of an epoch: the fold program's key, exit code 0, the
//! root of the zkVM's table of recursion keys, nonce 0. They are folded into the verifying key, which leaves the digest
//! of the fold program's public values. Nothing is returned that does not verify under that key with the digest
//! recomputed from the public values.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ark_bn254::{Bn254, Fr};
use ark_ff::PrimeField;
use ark_groth16::{Proof, VerifyingKey};
use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use assay_kernels::groth16::{self as kernel, ProvingKey, ToxicWaste, INSECURE_TEXT};
use assay_worker_circuit::WrapCircuit;
use slop_algebra::PrimeField32;

use crate::digest::{mask, public_value_digest};
use crate::error::WorkerError;
use crate::files::{FileRef, Hex32};
use crate::progress::Reporter;
use crate::proof::{committed_digest, words_to_bn254, ProofFile, WrapProof};
use crate::stages::WrapInputs;
use crate::verify::{verifier, vk_root_words};

mod prover;

pub use prover::Prover;

/// Index of each public input of the wrap circuit, without the constant one.
const VKEY_HASH: usize = 0;
const COMMITTED_VALUES_DIGEST: usize = 1;
const EXIT_CODE: usize = 2;
const VK_ROOT: usize = 3;
const PROOF_NONCE: usize = 4;

/// The wrap circuit, built.
pub struct Circuit {
    inner: WrapCircuit,
}

/// A wrap proof of a small program: the circuit takes its shapes from it, and nothing of its values.
///
/// It is part of the program so that no file from outside decides what the parameters are for.
pub(crate) const TEMPLATE: &[u8] = include_bytes!("../data/wrap-template.assay");

impl Circuit {
    /// Builds the circuit of the release's wrap program. Cost: some seven seconds and 3 GiB.
    ///
    /// # Errors
    /// [`WorkerError::Circuit`] if the zkVM's release is not the one this program was made for.
    pub fn build() -> Result<Self, WorkerError> {
        let template = WrapProof::decode(TEMPLATE)?;
        check_release(&template)?;
        let inner = WrapCircuit::build(&template.proof.vk, &template.proof.proof).map_err(circuit_error)?;
        Ok(Self { inner })
    }

    /// Digest of the constraint system.
    pub fn digest(&self) -> [u8; 32] {
        self.inner.digest()
    }

    /// Number of constraints.
    pub fn constraints(&self) -> u64 {
        self.inner.r1cs().num_constraints() as u64
    }
}

/// The circuit is that of one wrap program: a proof by another would say nothing.
fn check_release(wrap: &WrapProof) -> Result<(), WorkerError> {
    if wrap.proof.vk != verifier().wrap_vk {
        return Err(WorkerError::Circuit { reason: "the wrap proof is not of the zkVM's release".into() });
    }
    Ok(())
}

/// What a Groth16 proof is about: a program and its public values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Digest of the program's key.
    pub program: [u32; 8],
    /// What it committed to.
    pub public_values: Vec<u8>,
}

impl Statement {
    /// The public inputs that a wrap proof of this statement has.
    pub fn inputs(&self) -> WrapInputs {
        WrapInputs {
            vkey_hash: Hex32(words_to_bn254(&self.program)),
            committed_values_digest: Hex32(public_value_digest(&self.public_values)),
            exit_code: Hex32([0; 32]),
            vk_root: Hex32(words_to_bn254(&vk_root_words())),
            proof_nonce: Hex32([0; 32]),
        }
    }

    /// Compares a wrap proof's public inputs with this statement's.
    ///
    /// # Errors
    /// [`WorkerError::PublicInput`] naming the first that differs.
    pub fn check(&self, got: &WrapInputs) -> Result<(), WorkerError> {
        let expected = self.inputs();
        let pairs = [
            ("vkey_hash", expected.vkey_hash, got.vkey_hash),
            ("committed_values_digest", expected.committed_values_digest, got.committed_values_digest),
            ("exit_code", expected.exit_code, got.exit_code),
            ("vk_root", expected.vk_root, got.vk_root),
            ("proof_nonce", expected.proof_nonce, got.proof_nonce),
        ];
        match pairs.into_iter().find(|(_, expected, got)| expected != got) {
            None => Ok(()),
            Some((name, expected, got)) => {
                Err(WorkerError::PublicInput { name, expected: expected.to_string(), got: got.to_string() })
            }
        }
    }

    fn constants(&self) -> [(usize, Fr); 4] {
        let inputs = self.inputs();
        [
            (VKEY_HASH, scalar(&inputs.vkey_hash)),
            (EXIT_CODE, scalar(&inputs.exit_code)),
            (VK_ROOT, scalar(&inputs.vk_root)),
            (PROOF_NONCE, scalar(&inputs.proof_nonce)),
        ]
    }
}

/// The public inputs of the wrap circuit for a wrap proof.
///
/// # Errors
/// [`WorkerError::Decode`] if the proof's public values are malformed.
pub fn wrap_inputs(wrap: &WrapProof) -> Result<WrapInputs, WorkerError> {
    let values = wrap.recursion_values()?;
    let mut nonce = [0u32; 8];
    for (word, felt) in nonce[4..].iter_mut().zip(values.proof_nonce) {
        *word = felt.as_canonical_u32();
    }
    let mut exit_code = [0u8; 32];
    exit_code[28..].copy_from_slice(&values.exit_code.as_canonical_u32().to_be_bytes());
    Ok(WrapInputs {
        vkey_hash: Hex32(words_to_bn254(&values.sp1_vk_digest.map(|felt| felt.as_canonical_u32()))),
        committed_values_digest: Hex32(mask(committed_digest(values))),
        exit_code: Hex32(exit_code),
        vk_root: Hex32(words_to_bn254(&values.vk_root.map(|felt| felt.as_canonical_u32()))),
        proof_nonce: Hex32(words_to_bn254(&nonce)),
    })
}

/// Groth16 parameters on disk.
pub struct Parameters {
    /// The memory-mapped proving key's file, which holds the hashes of its parts.
    pub proving_key: PathBuf,
    /// The verifying key for all inputs.
    pub verifying_key: FileRef,
    /// True for parameters whose trapdoor one process drew.
    pub insecure: bool,
    /// Whether they were there already.
    pub cached: bool,
    key: Arc<ProvingKey>,
}

/// Phases of a set-up that are not about making parameters, as progress names them.
pub mod phase {
    /// The circuit that the parameters belong to is built.
    pub const BUILD_CIRCUIT: &str = "build circuit";
    /// Another process that shares the folder makes the parameters.
    pub const WAIT: &str = "wait for another process that draws them";
    /// The parameters are opened and checked: a minute the first time, seconds after that.
    pub const OPEN_PARAMETERS: &str = "open parameters";
}

/// What to do about parameters that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// Draw development parameters: minutes, and a verifying key that nobody else has.
    Draw,
    /// Refuse: proofs under a new key would count nowhere.
    Refuse,
}

/// Opens the circuit's parameters, or makes development parameters if that is wanted.
///
/// Only the pinned proving key is opened, if there is a pin, with every hash checked, and the first time every point
/// ([`ProvingKey::open_pinned`]).
///
/// # Errors
/// [`WorkerError::Groth16`], [`WorkerError::Io`].
pub fn parameters(
    circuit: &Circuit,
    cache_dir: &Path,
    if_missing: IfMissing,
    reporter: &Reporter,
) -> Result<Parameters, WorkerError> {
    let digest = circuit.digest();
    let dir = cache_dir.join("groth16");
    std::fs::create_dir_all(&dir).map_err(WorkerError::io("create", &dir))?;
    let draw = |path: &Path| {
        tracing::warn!("{INSECURE_TEXT}");
        let toxic = ToxicWaste::random().map_err(groth16_error)?;
        let progress = |stage: &'static str, done: u64, total: u64| reporter.report(stage, done, total);
        kernel::setup(circuit.inner.r1cs(), digest, path, toxic, &progress).map_err(groth16_error)?;
        Ok(())
    };
    let wait = || reporter.report(phase::WAIT, 0, 1);
    let (path, cached) = obtain(&dir, &digest, if_missing, wait, draw)?;
    reporter.report(phase::OPEN_PARAMETERS, 0, 1);
    let opening =
        |_: &'static str, done: u64, total: u64| reporter.report(phase::OPEN_PARAMETERS, done, total);
    let key = ProvingKey::open_pinned(&path, &digest, &opening).map_err(|error| WorkerError::Groth16 {
        reason: format!(
            "{}: {error}: copy the file and its .pin again from a machine where they are good; where nobody has another, delete \
             both, and the next set-up makes a key that proofs of before are not under",
            path.display()
        ),
    })?;
    let verifying_key = path.with_extension("vk");
    let verifying_key = FileRef::write(&verifying_key, &to_bytes(key.verifying_key())?)?;
    reporter.report(phase::OPEN_PARAMETERS, 1, 1);
    Ok(Parameters {
        proving_key: path,
        verifying_key,
        insecure: key.is_insecure(),
        cached,
        key: Arc::new(key),
    })
}

/// The proving key of a circuit in `dir`, and whether it was there. Of processes that share the folder one draws it, and the
/// others wait (`wait` is called) and take that one's.
fn obtain(
    dir: &Path,
    digest: &[u8; 32],
    if_missing: IfMissing,
    wait: impl FnOnce(),
    draw: impl FnOnce(&Path) -> Result<(), WorkerError>,
) -> Result<(PathBuf, bool), WorkerError> {
    let name = hex::encode(digest);
    let path = dir.join(format!("{name}.pk"));
    if path.exists() {
        return Ok((path, true));
    }
    if if_missing == IfMissing::Refuse {
        return Err(missing(dir, &name));
    }
    let lock_path = dir.join(format!("{name}.lock"));
    let lock = std::fs::File::create(&lock_path).map_err(WorkerError::io("create", &lock_path))?;
    if lock.try_lock().is_err() {
        wait();
        lock.lock().map_err(WorkerError::io("lock", &lock_path))?;
    }
    let cached = path.exists();
    if !cached {
        if let Some(pin) = ProvingKey::pin_of(&path) {
            return Err(pinned(&path, &pin));
        }
        draw(&path)?;
    }
    // The lock ends with its file's handle, here or with the process.
    Ok((path, cached))
}

fn pinned(path: &Path, pin: &Path) -> WorkerError {
    let (path, pin) = (path.display(), pin.display());
    let reason = format!(
        "{path} is missing, and {pin} says which one it has to be: copy it from another machine, or delete the pin to have another drawn"
    );
    WorkerError::Groth16 { reason }
}

fn missing(dir: &Path, name: &str) -> WorkerError {
    let reason = format!(
        "there are no parameters of this build's circuit {name} in {}: run `assay setup` on one machine, and copy its groth16/ to all \
         that make Groth16 proofs",
        dir.display()
    );
    WorkerError::Groth16 { reason }
}

impl Parameters {
    /// Length of the proving key's file in bytes.
    pub fn proving_key_bytes(&self) -> u64 {
        self.key.file_bytes()
    }

    /// Hash that names the proving key, as its pin does.
    pub fn proving_key_hash(&self) -> Hex32 {
        Hex32(self.key.hash())
    }
}

/// Whether a folder holds parameters of any circuit.
pub fn has_parameters(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "pk"))
}

/// Refuses a folder without the parameters of one circuit; those of others are no use.
///
/// # Errors
/// [`WorkerError::Groth16`], with what to do.
pub fn require_parameters(folder: &Path, digest: &[u8; 32]) -> Result<(), WorkerError> {
    let name = hex::encode(digest);
    match folder.join(format!("{name}.pk")).is_file() {
        true => Ok(()),
        false => Err(missing(folder, &name)),
    }
}

/// A finished Groth16 proof, encoded.
pub struct Proved {
    /// `ark_groth16::Proof<Bn254>`, arkworks compressed.
    pub proof: Vec<u8>,
    /// The verifying key with one public input, arkworks compressed.
    pub verifying_key: Vec<u8>,
    /// That input, big endian.
    pub public_input: [u8; 32],
    /// True for parameters whose trapdoor one process drew.
    pub insecure: bool,
}

/// Refuses a proof that the memory does not hold, where the system says how much there is: the CPU may have to make it.
fn require_memory(needed_bytes: u64, available: Option<u64>) -> Result<(), WorkerError> {
    match available {
        Some(available_bytes) if available_bytes < needed_bytes => {
            Err(WorkerError::MemoryMissing { what: "the Groth16 proof", needed_bytes, available_bytes })
        }
        _ => Ok(()),
    }
}

/// The circuit's public inputs must be the ones read from the proof's public values.
fn check_assignment(assignment: &[Fr], expected: &WrapInputs) -> Result<(), WorkerError> {
    let inputs = [
        ("vkey_hash", VKEY_HASH, expected.vkey_hash),
        ("committed_values_digest", COMMITTED_VALUES_DIGEST, expected.committed_values_digest),
        ("exit_code", EXIT_CODE, expected.exit_code),
        ("vk_root", VK_ROOT, expected.vk_root),
        ("proof_nonce", PROOF_NONCE, expected.proof_nonce),
    ];
    for (name, index, value) in inputs {
        let got =
            assignment.get(1 + index).ok_or_else(|| WorkerError::internal("assignment is too short"))?;
        if *got != scalar(&value) {
            let (expected, got) = (scalar(&value).to_string(), got.to_string());
            return Err(WorkerError::PublicInput { name, expected, got });
        }
    }
    Ok(())
}

/// Verifies a Groth16 proof under a specialised key, with the digest recomputed from the public values.
///
/// # Errors
/// [`WorkerError::Decode`] if a file is malformed, [`WorkerError::Verify`] if the proof is wrong.
pub fn verify(verifying_key: &[u8], proof: &[u8], public_values: &[u8]) -> Result<(), WorkerError> {
    let vk: VerifyingKey<Bn254> = from_bytes("verifying key", verifying_key)?;
    let proof: Proof<Bn254> = from_bytes("groth16 proof", proof)?;
    if vk.gamma_abc_g1.len() != 2 {
        let reason = format!("{} public inputs, expected 1", vk.gamma_abc_g1.len().saturating_sub(1));
        return Err(WorkerError::Decode { what: "verifying key", reason });
    }
    let input = scalar(&Hex32(public_value_digest(public_values)));
    match kernel::verify(&vk, &[input], &proof) {
        Ok(true) => Ok(()),
        Ok(false) => {
            Err(WorkerError::Verify { what: "groth16 proof", reason: "pairing check failed".into() })
        }
        Err(error) => Err(groth16_error(error)),
    }
}

fn scalar(bytes: &Hex32) -> Fr {
    Fr::from_be_bytes_mod_order(&bytes.0)
}

fn to_bytes(value: &impl CanonicalSerialize) -> Result<Vec<u8>, WorkerError> {
    let mut bytes = Vec::with_capacity(value.compressed_size());
    value.serialize_compressed(&mut bytes).map_err(WorkerError::internal)?;
    Ok(bytes)
}

fn from_bytes<T: CanonicalDeserialize>(what: &'static str, bytes: &[u8]) -> Result<T, WorkerError> {
    let mut rest = bytes;
    let value = T::deserialize_compressed(&mut rest)
        .map_err(|e| WorkerError::Decode { what, reason: e.to_string() })?;
    if !rest.is_empty() {
        return Err(WorkerError::Decode { what, reason: format!("{} bytes too many", rest.len()) });
    }
    Ok(value)
}

fn circuit_error(error: impl std::fmt::Display) -> WorkerError {
    WorkerError::Circuit { reason: error.to_string() }
}

fn groth16_error(error: impl std::fmt::Display) -> WorkerError {
    WorkerError::Groth16 { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        Statement { program: [1, 2, 3, 4, 5, 6, 7, 8], public_values: vec![9; 128] }
    }

    #[test]
    fn every_public_input_is_compared() {
        let expected = statement().inputs();
        statement().check(&expected).unwrap();
        type Change = (&'static str, fn(&mut WrapInputs));
        let changes: [Change; 5] = [
            ("vkey_hash", |i| i.vkey_hash.0[31] ^= 1),
            ("committed_values_digest", |i| i.committed_values_digest.0[31] ^= 1),
            ("exit_code", |i| i.exit_code.0[31] ^= 1),
            ("vk_root", |i| i.vk_root.0[31] ^= 1),
            ("proof_nonce", |i| i.proof_nonce.0[31] ^= 1),
        ];
        for (expected_name, change) in changes {
            let mut inputs = expected.clone();
            change(&mut inputs);
            let error = statement().check(&inputs).unwrap_err();
            assert!(
                matches!(error, WorkerError::PublicInput { name, .. } if name == expected_name),
                "{error}"
            );
        }
    }

    #[test]
    fn a_proof_that_the_memory_does_not_hold_is_refused_with_what_is_missing() {
        require_memory(5 << 30, None).unwrap();
        require_memory(5 << 30, Some(5 << 30)).unwrap();
        let refused = require_memory(5 << 30, Some(3 << 30)).unwrap_err();
        let text = "the Groth16 proof needs 5120 MiB of memory, 3072 MiB are available: 2048 MiB are missing";
        assert_eq!(refused.to_string(), text);
        assert_eq!(refused.class(), crate::error::ErrorClass::Transient);
    }

    #[test]
    fn the_digest_is_the_only_input_that_is_not_constant() {
        let constants = statement().constants();
        assert!(constants.iter().all(|(index, _)| *index != COMMITTED_VALUES_DIGEST));
        assert_eq!(constants.len(), 4);
    }

    #[test]
    fn parameters_are_drawn_once_however_many_want_them_and_never_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join(format!("{}.pk", hex::encode([1; 32])));
        std::fs::write(&other, "of another circuit").unwrap();
        fn unasked(_: &Path) -> Result<(), WorkerError> {
            panic!("drawn unasked")
        }
        let refused = obtain(dir.path(), &[2; 32], IfMissing::Refuse, || (), unasked).unwrap_err();
        assert!(refused.to_string().contains("assay setup"), "{refused}");

        let drawn = std::sync::atomic::AtomicU32::new(0);
        let (waits, waiting) = std::sync::mpsc::channel();
        let waiting = std::sync::Mutex::new(waiting);
        let want = || {
            let draw = |path: &Path| {
                drawn.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                // Only once the three others have found it at work.
                let waiting = waiting.lock().unwrap();
                for _ in 0..3 {
                    waiting.recv_timeout(std::time::Duration::from_secs(60)).expect("the others wait");
                }
                std::fs::write(path, "key").map_err(WorkerError::io("write", path))
            };
            let wait = || waits.send(()).expect("the test listens");
            obtain(dir.path(), &[2; 32], IfMissing::Draw, wait, draw).unwrap().1
        };
        let cached: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(want)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(drawn.into_inner(), 1);
        assert_eq!(cached.iter().filter(|cached| !**cached).count(), 1, "one has drawn it: {cached:?}");
        let found = obtain(dir.path(), &[2; 32], IfMissing::Refuse, || (), unasked).unwrap();
        assert!(found.1);
        // Nor in the place of a pinned key that is missing.
        let pin = dir.path().join(format!("{}.pin", hex::encode([3; 32])));
        std::fs::write(&pin, hex::encode([4; 32])).unwrap();
        let refused = obtain(dir.path(), &[3; 32], IfMissing::Draw, || (), unasked).unwrap_err();
        assert!(refused.to_string().contains(&pin.display().to_string()), "{refused}");
        assert_eq!(std::fs::read(other).unwrap(), b"of another circuit");
    }

    #[test]
    fn a_set_up_that_fails_can_be_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let fails = |_: &Path| Err(WorkerError::internal("no memory"));
        obtain(dir.path(), &[2; 32], IfMissing::Draw, || (), fails).unwrap_err();
        let works = |path: &Path| std::fs::write(path, "key").map_err(WorkerError::io("write", path));
        let (path, cached) = obtain(dir.path(), &[2; 32], IfMissing::Draw, || (), works).unwrap();
        assert!(path.is_file() && !cached);
    }

    #[test]
    fn malformed_files_are_refused_before_any_pairing() {
        assert!(matches!(verify(&[], &[], &[]), Err(WorkerError::Decode { what: "verifying key", .. })));
    }
}
