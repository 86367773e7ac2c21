//! `assay verify`: checks a result folder with nothing but that folder.
//!
//! Every JSON file must be exactly the text that this program writes for its content, so that changing any byte of any
//! of them is noticed. What the folder cannot tell by itself is whether its verifying key and its code root are the right
//! ones: the caller compares both with values he trusts, or pins them. Both are needed: under a key of his own a forger
//! proves anything, and under the right key he may fold a history of programs of his own, whose code root gives it away.
//! What the proof does not reach (batch numbers, settlement, the note on the set-up) is the word of whoever made the folder.

use std::fmt;
use std::path::{Path, PathBuf};

use ark_bn254::{Bn254, Fr};
use ark_groth16::{Groth16, Proof, VerifyingKey};
use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use ark_snark::SNARK;
use assay_kernels::groth16::snarkjs::{public_to_json, JsonProof, JsonVerifyingKey};
use serde::de::DeserializeOwned;
use serde::Serialize;

use crate::fsio::{self, FileError};
use crate::statement::{self, json_text, ClaimFile, Statement};

/// Files of a result folder that verification reads.
pub const FILES: [&str; 5] = ["proof.bin", "proof.json", "vk.json", "public.json", "claim.json"];
/// A compressed proof: A and C take 32 bytes, B takes 64.
pub const PROOF_BYTES: u64 = 128;
const JSON_BYTES_MAX: u64 = 4 << 20;

/// The checks, in the order in which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Check {
    /// `vk.json` holds points of the right groups, one public input, and nothing else.
    VerifyingKey,
    /// `proof.bin` is the canonical encoding of three points of the right groups.
    ProofEncoding,
    /// `proof.json` says the same as `proof.bin`.
    ProofJson,
    /// `claim.json` has the expected form and checksum.
    ClaimFile,
    /// The public values hash to the digest, and their parts are the ones listed.
    PublicValues,
    /// `public.json` holds the digest and nothing else.
    PublicInput,
    /// The pairing equation.
    Pairing,
    /// The claim on Bitcoin is about the same digest and verifying key.
    Settlement,
    /// The verifying key and the code root are those the caller trusts.
    Pinned,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::VerifyingKey => "verifying key",
            Check::ProofEncoding => "proof encoding",
            Check::ProofJson => "proof.json against proof.bin",
            Check::ClaimFile => "claim file",
            Check::PublicValues => "public values",
            Check::PublicInput => "public input",
            Check::Pairing => "pairing equation",
            Check::Settlement => "settlement",
            Check::Pinned => "pinned values",
        })
    }
}

/// Why a folder was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A file is missing or unreadable: there is nothing to judge.
    #[error("{0}")]
    Unreadable(#[from] FileError),
    /// A check failed: the folder is not what it claims to be.
    #[error("{check} check failed: {detail}")]
    Rejected {
        /// Which check.
        check: Check,
        /// What was wrong.
        detail: String,
    },
}

/// Values the caller trusts.
#[derive(Clone, Debug)]
pub struct Pins {
    /// Expected BLAKE3 of the verifying key, hex.
    pub verifying_key_blake3: String,
    /// Expected code root, hex.
    pub code_root: String,
}

/// An accepted folder.
#[derive(Clone, Debug, Serialize)]
pub struct Accepted {
    /// Whether verifying key and code root were compared with values the caller trusts. If not, the folder is consistent
    /// and its proof valid under a key that anybody may have made.
    pub trusted: bool,
    /// What is proved.
    pub statement: Statement,
    /// BLAKE3 of the verifying key (arkworks, compressed), hex.
    pub verifying_key_blake3: String,
    /// Set if the folder says that its Groth16 parameters are those of a development set-up.
    pub insecure: Option<String>,
    /// The claim's transaction, if it was settled. Whether Bitcoin has it, only a node can tell.
    pub claim_txid: Option<String>,
    /// The checks made.
    pub checks: Vec<Check>,
}

/// The content of a result folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `proof.bin`.
    pub proof_bin: Vec<u8>,
    /// `proof.json`.
    pub proof_json: Vec<u8>,
    /// `vk.json`.
    pub vk_json: Vec<u8>,
    /// `public.json`.
    pub public_json: Vec<u8>,
    /// `claim.json`.
    pub claim_json: Vec<u8>,
}

impl Files {
    /// Reads the folder.
    ///
    /// # Errors
    /// [`FileError`] for a missing or oversized file.
    pub fn read(folder: &Path) -> Result<Self, FileError> {
        let json = |name: &str| fsio::read_limited(&folder.join(name), JSON_BYTES_MAX);
        Ok(Self {
            proof_bin: fsio::read_limited(&folder.join("proof.bin"), JSON_BYTES_MAX)?,
            proof_json: json("proof.json")?,
            vk_json: json("vk.json")?,
            public_json: json("public.json")?,
            claim_json: json("claim.json")?,
        })
    }

    /// Renders the files of a proof.
    ///
    /// # Errors
    /// A proof that cannot be serialised, which arkworks' types rule out.
    pub fn render(
        proof: &Proof<Bn254>,
        vk: &VerifyingKey<Bn254>,
        public: &[Fr],
        claim: &ClaimFile,
    ) -> Result<Self, ark_serialize::SerializationError> {
        let mut proof_bin = Vec::new();
        proof.serialize_compressed(&mut proof_bin)?;
        Ok(Self {
            proof_bin,
            proof_json: json_text(&JsonProof::from(proof)).into_bytes(),
            vk_json: json_text(&JsonVerifyingKey::from(vk)).into_bytes(),
            public_json: json_text(&public_to_json(public)).into_bytes(),
            claim_json: json_text(claim).into_bytes(),
        })
    }

    /// File names and contents.
    pub fn named(&self) -> [(&'static str, &[u8]); 5] {
        let all = [&self.proof_bin, &self.proof_json, &self.vk_json, &self.public_json, &self.claim_json];
        std::array::from_fn(|at| (FILES[at], all[at].as_slice()))
    }
}

/// BLAKE3 of a verifying key's compressed encoding, hex.
pub fn verifying_key_hash(vk: &VerifyingKey<Bn254>) -> String {
    hex::encode(verifying_key_digest(vk))
}

/// BLAKE3 of a verifying key's compressed encoding.
///
/// # Panics
/// Never: writing to memory cannot fail.
pub fn verifying_key_digest(vk: &VerifyingKey<Bn254>) -> [u8; 32] {
    let mut bytes = Vec::new();
    vk.serialize_compressed(&mut bytes).expect("writing to memory cannot fail");
    *blake3::hash(&bytes).as_bytes()
}

/// Checks a folder.
///
/// # Errors
/// [`VerifyError`].
pub fn verify_folder(folder: &Path, pins: Option<&Pins>) -> Result<Accepted, VerifyError> {
    verify_files(&Files::read(folder)?, pins)
}

/// Checks the content of a folder.
///
/// # Errors
/// [`VerifyError::Rejected`] naming the first check that failed.
pub fn verify_files(files: &Files, pins: Option<&Pins>) -> Result<Accepted, VerifyError> {
    let vk = verifying_key(&files.vk_json)?;
    let proof = proof(files)?;
    let claim = claim(&files.claim_json)?;
    let input = public_input(&claim.claim.statement, &files.public_json)?;
    let reject = |check, detail: String| Err(VerifyError::Rejected { check, detail });
    match Groth16::<Bn254>::verify(&vk, &[input], &proof) {
        Ok(true) => {}
        Ok(false) => return reject(Check::Pairing, "the proof does not prove this digest".into()),
        Err(e) => return reject(Check::Pairing, e.to_string()),
    }
    let vk_hash = verifying_key_hash(&vk);
    let claim = claim.claim;
    if claim.verifying_key_blake3 != vk_hash {
        return reject(
            Check::ClaimFile,
            mismatch("verifying key hash", &vk_hash, &claim.verifying_key_blake3),
        );
    }
    if let Some(settlement) = claim.settlement.as_ref().filter(|s| s.digest != claim.statement.digest) {
        return reject(Check::Settlement, mismatch("digest", &claim.statement.digest, &settlement.digest));
    }
    if let Some(pins) = pins {
        for (what, pin, got) in [
            ("verifying key hash", &pins.verifying_key_blake3, &vk_hash),
            ("code root", &pins.code_root, &claim.statement.code_root),
        ] {
            if !pin.eq_ignore_ascii_case(got) {
                return reject(Check::Pinned, mismatch(what, pin, got));
            }
        }
    }
    Ok(Accepted {
        trusted: pins.is_some(),
        checks: checks_made(claim.settlement.is_some(), pins.is_some()),
        statement: claim.statement,
        verifying_key_blake3: vk_hash,
        insecure: claim.insecure,
        claim_txid: claim.settlement.map(|settlement| settlement.claim_txid),
    })
}

/// Reads a `vk.json` by itself: points of the right groups, one public input, nothing else. Which key it is, its
/// [`verifying_key_digest`] says.
///
/// # Errors
/// [`VerifyError`]: the file cannot be read, or is not what this program writes for a key.
pub fn read_verifying_key(path: &Path) -> Result<VerifyingKey<Bn254>, VerifyError> {
    verifying_key(&fsio::read_limited(path, JSON_BYTES_MAX)?)
}

fn checks_made(settled: bool, pinned: bool) -> Vec<Check> {
    let mut checks = vec![
        Check::VerifyingKey,
        Check::ProofEncoding,
        Check::ProofJson,
        Check::ClaimFile,
        Check::PublicValues,
        Check::PublicInput,
        Check::Pairing,
    ];
    checks.extend(settled.then_some(Check::Settlement));
    checks.extend(pinned.then_some(Check::Pinned));
    checks
}

fn verifying_key(text: &[u8]) -> Result<VerifyingKey<Bn254>, VerifyError> {
    let check = Check::VerifyingKey;
    let json: JsonVerifyingKey = parse_json(check, "vk.json", text)?;
    let vk =
        VerifyingKey::try_from(&json).map_err(|e| VerifyError::Rejected { check, detail: e.to_string() })?;
    if vk.gamma_abc_g1.len() != 2 {
        let detail = mismatch("number of public inputs", "1", &json.nPublic.to_string());
        return Err(VerifyError::Rejected { check, detail });
    }
    exact(check, "vk.json", &json_text(&JsonVerifyingKey::from(&vk)), text)?;
    Ok(vk)
}

fn proof(files: &Files) -> Result<Proof<Bn254>, VerifyError> {
    let reject = |detail: String| VerifyError::Rejected { check: Check::ProofEncoding, detail };
    let bytes = &files.proof_bin;
    if bytes.len() as u64 != PROOF_BYTES {
        return Err(reject(mismatch("length", &PROOF_BYTES.to_string(), &bytes.len().to_string())));
    }
    // `deserialize_compressed` checks the curve equations and the subgroups.
    let proof =
        Proof::<Bn254>::deserialize_compressed(bytes.as_slice()).map_err(|e| reject(e.to_string()))?;
    let mut again = Vec::new();
    proof.serialize_compressed(&mut again).map_err(|e| reject(e.to_string()))?;
    if again != *bytes {
        return Err(reject("proof.bin is not in canonical form".into()));
    }
    let text = json_text(&JsonProof::from(&proof));
    exact(Check::ProofJson, "proof.json", &text, &files.proof_json)?;
    Ok(proof)
}

/// Reads a `claim.json` by itself and checks its form and checksum; says nothing about the proof.
///
/// # Errors
/// [`VerifyError`].
pub fn read_claim(path: &Path) -> Result<ClaimFile, VerifyError> {
    claim(&fsio::read_limited(path, JSON_BYTES_MAX).map_err(VerifyError::Unreadable)?)
}

fn claim(text: &[u8]) -> Result<ClaimFile, VerifyError> {
    let check = Check::ClaimFile;
    let file: ClaimFile = parse_json(check, "claim.json", text)?;
    if file.claim.version != ClaimFile::VERSION {
        let detail = mismatch("version", &ClaimFile::VERSION.to_string(), &file.claim.version.to_string());
        return Err(VerifyError::Rejected { check, detail });
    }
    public_values(&file.claim.statement)?;
    // Both are shown to people: nothing but what this program writes.
    let note = file.claim.insecure.as_deref();
    if note.is_some_and(|note| note != statement::INSECURE_NOTE) {
        return Err(VerifyError::Rejected {
            check,
            detail: "claim.json has an unknown note on the set-up".into(),
        });
    }
    let txid = file.claim.settlement.as_ref().map(|settlement| settlement.claim_txid.as_str());
    if txid.is_some_and(|txid| txid.len() != 64 || !txid.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Err(VerifyError::Rejected {
            check,
            detail: "claim.json: claim_txid is no transaction id".into(),
        });
    }
    if !file.is_intact() {
        return Err(VerifyError::Rejected { check, detail: "claim.json does not match its checksum".into() });
    }
    exact(check, "claim.json", &json_text(&file), text)?;
    Ok(file)
}

fn public_values(statement: &Statement) -> Result<(), VerifyError> {
    let reject = |detail: String| VerifyError::Rejected { check: Check::PublicValues, detail };
    let mut bytes = [0u8; statement::PUBLIC_VALUES_BYTES];
    hex::decode_to_slice(&statement.public_values, &mut bytes)
        .map_err(|e| reject(format!("public_values: {e}")))?;
    let expected = Statement::new(&bytes);
    for (name, expected, got) in [
        ("digest", &expected.digest, &statement.digest),
        ("prev_commitment", &expected.prev_commitment, &statement.prev_commitment),
        ("new_commitment", &expected.new_commitment, &statement.new_commitment),
        ("batch_hash", &expected.batch_hash, &statement.batch_hash),
        ("code_root", &expected.code_root, &statement.code_root),
        ("public_values", &expected.public_values, &statement.public_values),
    ] {
        if expected != got {
            return Err(reject(mismatch(name, expected, got)));
        }
    }
    Ok(())
}

fn public_input(statement: &Statement, text: &[u8]) -> Result<Fr, VerifyError> {
    let mut digest = [0u8; 32];
    hex::decode_to_slice(&statement.digest, &mut digest)
        .map_err(|e| VerifyError::Rejected { check: Check::PublicInput, detail: e.to_string() })?;
    let input = statement::public_input(&digest);
    exact(Check::PublicInput, "public.json", &json_text(&public_to_json(&[input])), text)?;
    Ok(input)
}

fn parse_json<T: DeserializeOwned>(check: Check, name: &str, text: &[u8]) -> Result<T, VerifyError> {
    serde_json::from_slice(text).map_err(|e| VerifyError::Rejected { check, detail: format!("{name}: {e}") })
}

fn exact(check: Check, name: &str, expected: &str, got: &[u8]) -> Result<(), VerifyError> {
    if expected.as_bytes() == got {
        return Ok(());
    }
    let at = expected.bytes().zip(got).position(|(a, b)| a != *b).unwrap_or(expected.len().min(got.len()));
    let detail = format!("{name} differs at byte {at} from the text of the values it should hold");
    Err(VerifyError::Rejected { check, detail })
}

fn mismatch(what: &str, expected: &str, got: &str) -> String {
    format!("{what}: expected {expected}, got {got}")
}

/// The result folder of a batch below the output folder.
pub fn result_folder(out: &Path, batch_id: &str) -> PathBuf {
    out.join(batch_id)
}

#[cfg(test)]
mod tests;
