//! The JSON files against snarkjs itself (npm), where npm and node are installed.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use ark_bn254::{Bn254, Fr};
use ark_groth16::{Proof, VerifyingKey};
use assay_kernels::groth16::snarkjs::{public_from_json, public_to_json, JsonProof, JsonVerifyingKey};
use assay_kernels::groth16::{prove, setup, silent, synthetic, verify, Check, ProvingKey, ToxicWaste};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Files {
    vk: JsonVerifyingKey,
    proof: JsonProof,
    public: Vec<String>,
}

fn files(folder: &Path) -> Files {
    let (system, z) = synthetic::circuit(60);
    let path = folder.join("key");
    setup(&system, [0; 32], &path, ToxicWaste::random().unwrap(), &silent).unwrap();
    let key = ProvingKey::open(&path, &[0; 32], Check::Quick).unwrap();
    let proof = prove(&key, &system, &z, &silent).unwrap();
    Files {
        vk: key.verifying_key().into(),
        proof: (&proof).into(),
        public: public_to_json(&z[1..system.num_instance]),
    }
}

/// The decimal number with its last digit changed.
fn changed(text: &str) -> String {
    let last = text.bytes().last().unwrap();
    let digit = if last == b'0' { '1' } else { char::from(last - 1) };
    format!("{}{digit}", &text[..text.len() - 1])
}

#[test]
fn json_is_read_back_and_a_changed_digit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let text = serde_json::to_string_pretty(&files.proof).unwrap();
    let proof = Proof::try_from(&serde_json::from_str::<JsonProof>(&text).unwrap()).unwrap();
    let text = serde_json::to_string(&files.vk).unwrap();
    let vk: VerifyingKey<Bn254> =
        (&serde_json::from_str::<JsonVerifyingKey>(&text).unwrap()).try_into().unwrap();
    let inputs: Vec<Fr> = public_from_json(&files.public).unwrap();
    assert!(verify(&vk, &inputs, &proof).unwrap());
    assert_eq!(JsonProof::from(&proof), files.proof);
    assert_eq!(JsonVerifyingKey::from(&vk), files.vk);
    assert_eq!((files.vk.nPublic, files.vk.IC.len()), (1, 2));

    let mut json = files.proof.clone();
    json.pi_a[1] = changed(&json.pi_a[1]);
    assert!(Proof::try_from(&json).is_err());
    let mut json = files.proof.clone();
    json.pi_b[0][1] = changed(&json.pi_b[0][1]);
    assert!(Proof::try_from(&json).is_err());
    let mut json = files.proof.clone();
    json.curve = "bls12381".into();
    assert!(Proof::try_from(&json).is_err());
    let mut json = files.vk.clone();
    json.IC.pop();
    assert!(VerifyingKey::try_from(&json).is_err());
}

/// snarkjs' command-line program, installed on first use; or why there is none.
fn snarkjs() -> Result<PathBuf, String> {
    let home = std::env::var_os("HOME").ok_or("HOME is not set")?;
    let folder = PathBuf::from(home).join(".cache/assay/snarkjs");
    let program = folder.join("node_modules/snarkjs/build/cli.cjs");
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("{command:?}: {error}")),
    };
    run(Command::new("node").arg("--version"))?;
    if !program.exists() {
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        for name in ["package.json", "package-lock.json"] {
            let from = Path::new("tests/snarkjs").join(name);
            std::fs::copy(from, folder.join(name)).map_err(|error| error.to_string())?;
        }
        run(Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder))?;
    }
    Ok(program)
}

#[test]
fn snarkjs_accepts_the_files_and_rejects_a_changed_digit() {
    let program = match snarkjs() {
        Ok(program) => program,
        Err(reason) => {
            // Past the capture of passing tests' output.
            let _ = writeln!(std::io::stderr(), "SKIPPED: snarkjs is not available: {reason}");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let accepts = |files: &Files| {
        let write = |name: &str, json: String| std::fs::write(folder.path().join(name), json).unwrap();
        write("vk.json", serde_json::to_string(&files.vk).unwrap());
        write("proof.json", serde_json::to_string(&files.proof).unwrap());
        write("public.json", serde_json::to_string(&files.public).unwrap());
        let output = Command::new("node")
            .arg(&program)
            .args(["groth16", "verify", "vk.json", "public.json", "proof.json"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), text.contains("OK!"), "{text}");
        output.status.success()
    };
    assert!(accepts(&files), "a valid proof");
    let mut wrong =
        Files { public: vec![changed(&files.public[0])], vk: files.vk.clone(), proof: files.proof.clone() };
    assert!(!accepts(&wrong), "another public input");
    wrong.public = files.public.clone();
    wrong.proof.pi_c.clone_from(&files.proof.pi_a);
    assert!(!accepts(&wrong), "another C");
    wrong.proof = files.proof.clone();
    wrong.vk.IC.swap(0, 1);
    assert!(!accepts(&wrong), "another key");
}
