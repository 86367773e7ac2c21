//! The shell against a scripted child process: what is computed, what is found, what survives a dead child.
//!
//! The child is a shell script that speaks the worker's protocol and answers with prepared files; everything else is the
//! real part: cache, journal, child handling, Groth16 verification (of a small real proof), settlement by Bitcoin Core's
//! consensus code, and the result folder. The real child is exercised by `make test-e2e`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ark_serialize::CanonicalSerialize;
use assay_l1_parties::service::batches::{BatchDir, ProvedBatch};
use assay_lvm_core::VkHash;
use assay_worker::stages::{
    Event as WorkerEvent, ExecuteOutcome, FileRef, Groth16ProveOutcome, Groth16SetupOutcome, Hex32, HexBytes,
    KeysOutcome, Outcome as WorkerOutcome, ProgramInfo, ProofOutcome, WrapInputs, WrapOutcome,
};

use super::*;
use crate::config::Settings;
use crate::job::{fold_public_values, Run};
use crate::statement::{BatchSummary, Statement};
use crate::testing::small_proof_of;
use crate::verify::verify_folder;

const SCRIPT: &str = r#"#!/bin/sh
# Answers each job with the prepared reply; dies once where `die-<stage>` says so.
here="$(dirname "$0")"
n=0
while read -r line; do
  stage="$(printf '%s' "$line" | sed 's/.*"stage":"\([a-z0-9_]*\)".*/\1/')"
  echo "$stage" >> "$here/calls"
  if [ -f "$here/die-$stage" ]; then rm "$here/die-$stage"; echo "out of luck" >&2; kill -9 $$; fi
  if [ -d "$here/files-$stage" ]; then cp -r "$here/files-$stage/." "$here/cache/tmp/"; fi
  sed "s/\"job\":0/\"job\":$n/" "$here/reply-$stage"
  n=$((n+1))
done
"#;

const BLOCK_WORDS: [u32; 8] = [1; 8];
const FOLD_WORDS: [u32; 8] = [2; 8];

struct Scene {
    dir: tempfile::TempDir,
    config: Config,
    cache: Cache,
    job: Job,
    history: History,
    public_values: [u8; 128],
}

fn program(words: [u32; 8]) -> ProgramInfo {
    ProgramInfo { elf_sha256: Hex32([0; 32]), vk_words: words, vk_bn254: Hex32([0; 32]) }
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            out: Some(dir.path().join("out")),
            cache: Some(dir.path().join("cache")),
            keys: Some(dir.path().join("keys")),
            ..Default::default()
        };
        let config = Config::new(None, |_| None, settings).unwrap();
        let cache = Cache::open(&config.cache).unwrap();
        let job = Job {
            summary: BatchSummary {
                id: "1-2-03030303".into(),
                chain_id: 1,
                first_block: 1,
                last_block: 2,
                transactions: 2,
                gas: 42_000,
                genesis_commitment: None,
            },
            parent_commitment: [1; 32],
            parent_number: 0,
            new_commitment: [2; 32],
            batch_hash: [3; 32],
            runs: vec![Run { input: b"run".to_vec(), public_values: b"values".to_vec() }],
            data: b"blocks".to_vec(),
        };
        let history = History { genesis_commitment: [1; 32], previous: None };
        let public_values =
            fold_public_values(&job, [1; 32], VkHash(BLOCK_WORDS), VkHash(FOLD_WORDS)).encode();
        let scene = Self { dir, config, cache, job, history, public_values };
        scene.prepare();
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The script with its replies and files.
    fn prepare(&self) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(self.at("worker"), SCRIPT).unwrap();
        fs::set_permissions(self.at("worker"), fs::Permissions::from_mode(0o755)).unwrap();
        let proof = |words, public_values: &[u8]| ProofOutcome {
            proof: self.file_ref("unused"),
            program: program(words),
            public_values: HexBytes(public_values.to_vec()),
            cycles: 1000,
            shards: 1,
            elapsed_ms: 5,
            peak_rss_bytes: 1 << 20,
        };
        let execution = ExecuteOutcome {
            cycles: 1000,
            public_values: HexBytes(b"values".to_vec()),
            syscalls: BTreeMap::new(),
            phases: vec![("execution".to_owned(), 1000)],
            elapsed_ms: 1,
        };
        self.reply("execute", WorkerOutcome::Execute(execution), &[]);
        self.reply(
            "prove_run",
            WorkerOutcome::ProveRun(proof(BLOCK_WORDS, b"values")),
            &[("run-0.proof", b"block")],
        );
        let keys = KeysOutcome { block: program(BLOCK_WORDS), fold: program(FOLD_WORDS) };
        self.reply("keys", WorkerOutcome::Keys(keys), &[]);
        let fold = proof(FOLD_WORDS, &self.public_values);
        self.reply("prove_fold", WorkerOutcome::ProveFold(fold), &[("fold.proof", b"fold")]);
        self.prepare_wrap();
        self.prepare_groth16();
    }

    fn prepare_wrap(&self) {
        let zero = Hex32([0; 32]);
        let inputs = WrapInputs {
            vkey_hash: zero,
            committed_values_digest: zero,
            exit_code: zero,
            vk_root: zero,
            proof_nonce: zero,
        };
        let wrap =
            WrapOutcome { proof: self.file_ref("unused"), inputs, elapsed_ms: 1, peak_rss_bytes: 1 << 20 };
        self.reply("wrap", WorkerOutcome::Wrap(wrap), &[("wrap.proof", b"wrap")]);
    }

    fn prepare_groth16(&self) {
        let setup = Groth16SetupOutcome {
            circuit_digest: Hex32([5; 32]),
            proving_key: "pk".into(),
            proving_key_bytes: 1,
            proving_key_hash: Hex32([1; 32]),
            verifying_key: self.file_ref("vk"),
            insecure: true,
            cached: false,
            constraints: 12,
            elapsed_ms: 1,
            peak_rss_bytes: 1,
        };
        self.reply("groth16_setup", WorkerOutcome::Groth16Setup(setup), &[]);
        let small = small_proof_of(self.public_values);
        let (mut proof, mut vk) = (Vec::new(), Vec::new());
        small.proof.serialize_compressed(&mut proof).unwrap();
        small.vk.serialize_compressed(&mut vk).unwrap();
        let output = self.cache.temporary("groth16");
        let file = |name: &str| FileRef { path: output.join(name), blake3: String::new(), bytes: 0 };
        let proved = Groth16ProveOutcome {
            proof: file("proof.bin"),
            verifying_key: file("vk.bin"),
            public_input: Hex32(statement_digest(&self.public_values)),
            insecure: true,
            constraints: 12,
            elapsed_ms: 1,
            peak_rss_bytes: 1,
        };
        let files = [("groth16/proof.bin", proof.as_slice()), ("groth16/vk.bin", vk.as_slice())];
        self.reply("groth16_prove", WorkerOutcome::Groth16Prove(proved), &files);
    }

    fn reply(&self, stage: &str, outcome: WorkerOutcome, files: &[(&str, &[u8])]) {
        let mut line = serde_json::to_string(&WorkerEvent::Done { job: 0, outcome }).unwrap();
        line.push('\n');
        fs::write(self.at(&format!("reply-{stage}")), line).unwrap();
        for (name, bytes) in files {
            let path = self.at(&format!("files-{stage}")).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    fn file_ref(&self, name: &str) -> FileRef {
        FileRef { path: self.at(name), blake3: String::new(), bytes: 0 }
    }

    fn prove(&self, until: Until) -> Result<Finished, Error> {
        self.prove_unless(until, Arc::new(AtomicBool::new(false)))
    }

    fn prove_unless(&self, until: Until, cancel: Arc<AtomicBool>) -> Result<Finished, Error> {
        let place = Place { config: &self.config, cache: &self.cache, program: self.at("worker"), cancel };
        let history = Some(self.history.clone());
        prove(&place, &Request { job: self.job.clone(), history, until })
    }

    /// Jobs that reached a child, in order.
    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.at("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn die_once_at(&self, stage: &str) {
        fs::write(self.at(&format!("die-{stage}")), b"").unwrap();
    }
}

fn statement_digest(public_values: &[u8; 128]) -> [u8; 32] {
    crate::statement::digest(public_values)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const ALL: [&str; 7] =
    ["execute", "prove_run", "keys", "prove_fold", "wrap", "groth16_setup", "groth16_prove"];

#[test]
fn a_batch_is_proved_verified_settled_and_published_and_a_second_run_computes_nothing() {
    let scene = Scene::new();
    let first = scene.prove(Until::Settled).unwrap();
    assert_eq!(scene.calls(), ALL);
    assert_eq!(
        names(&first.folder),
        ["claim.json", "proof.bin", "proof.json", "public.json", "report.json", "vk.json"]
    );
    let accepted = verify_folder(&first.folder, None).unwrap();
    assert_eq!(accepted.statement, Statement::new(&scene.public_values));
    assert!(accepted.insecure.is_some());
    let report: crate::report::Report =
        serde_json::from_slice(&fs::read(first.folder.join("report.json")).unwrap()).unwrap();
    assert_eq!((report.cycles, report.constraints), (1000, Some(12)));
    assert!(report.stages.iter().all(|stage| stage.origin == Origin::Computed));

    let second = scene.prove(Until::Settled).unwrap();
    assert_eq!(scene.calls(), ALL, "everything was found");
    let again = verify_folder(&second.folder, None).unwrap();
    assert_eq!(again.claim_txid, accepted.claim_txid, "the claim is posted once");
    let found =
        |stage: &str| second.report.stages.iter().any(|s| s.stage == stage && s.origin == Origin::Cache);
    assert!(found("fold proof") && found("Groth16 proof"));
}

#[test]
fn a_child_killed_in_any_stage_costs_that_stage_only() {
    let scene = Scene::new();
    for stage in ALL {
        scene.die_once_at(stage);
        let error = scene.prove(Until::Groth16).unwrap_err();
        assert_eq!(error.exit_code(), crate::error::EXIT_FAILED);
        let message = error.to_string();
        assert!(
            message.contains("signal 9") && message.contains("out of luck") && message.contains(".log"),
            "{message}"
        );
        assert!(!scene.config.out.exists(), "nothing is published before everything is verified");
    }
    let finished = scene.prove(Until::Groth16).unwrap();
    verify_folder(&finished.folder, None).unwrap();
    // What died is done again, whatever was finished before is not; only the parameters are looked for as long as there
    // is no proof made with them.
    let calls = scene.calls();
    for stage in ALL.iter().filter(|stage| **stage != "groth16_setup") {
        assert_eq!(calls.iter().filter(|call| call == stage).count(), 2, "{stage} in {calls:?}");
    }
}

#[test]
fn a_corrupt_artifact_is_done_again() {
    let scene = Scene::new();
    scene.prove(Until::Wrap).unwrap();
    let fold = jobs_entry(&scene, Stage::Fold);
    let path = scene.cache.blob_path(&fold.blobs["proof"]);
    fs::write(&path, b"fald").unwrap();
    scene.prove(Until::Wrap).unwrap();
    let folds = scene.calls().iter().filter(|call| *call == "prove_fold").count();
    assert_eq!(folds, 2);
    assert_eq!(fs::read(&path).unwrap(), b"fold");
}

fn jobs_entry(scene: &Scene, stage: Stage) -> Entry {
    let (block, fold) = crate::input::elf_hashes();
    let keys = Keys::new(&scene.job, Some(&scene.history), &block, &fold);
    scene.cache.load(keys.stage(stage), &mut |warning| panic!("{warning}")).unwrap().unwrap()
}

#[test]
fn the_next_batch_finds_the_fold_proof_by_the_state_it_begins_in() {
    let scene = Scene::new();
    let mut next = scene.job.clone();
    next.parent_commitment = scene.job.new_commitment;
    next.parent_number = 2;
    let find = |begin_here| crate::input::find_history(&scene.cache, &next, begin_here, &mut |_| ());
    assert!(matches!(find(false), Err(Error::MissingHistory { block: 2, .. })));
    assert_eq!(find(true).unwrap().genesis_commitment, scene.job.new_commitment);
    scene.prove(Until::Fold).unwrap();
    let history = find(false).unwrap();
    assert_eq!(history.genesis_commitment, scene.history.genesis_commitment);
    assert_eq!(scene.cache.read_blob(&history.previous.unwrap()).unwrap(), b"fold");
}

#[test]
fn a_guest_that_disagrees_with_the_host_stops_the_batch() {
    let mut scene = Scene::new();
    scene.job.runs[0].public_values = b"other".to_vec();
    let message = scene.prove(Until::Groth16).unwrap_err().to_string();
    assert!(message.contains("disagree"), "{message}");
    assert!(!scene.config.out.exists());
}

#[test]
fn a_proof_of_something_else_is_not_published() {
    let scene = Scene::new();
    let mut other = scene.public_values;
    other[40] ^= 1;
    let small = small_proof_of(other);
    let mut proof = Vec::new();
    small.proof.serialize_compressed(&mut proof).unwrap();
    fs::write(scene.at("files-groth16_prove/groth16/proof.bin"), proof).unwrap();
    let message = scene.prove(Until::Settled).unwrap_err().to_string();
    assert!(message.contains("pairing"), "{message}");
    assert!(!scene.config.out.join(&scene.job.summary.id).exists());
}

#[test]
fn an_interrupt_ends_in_good_order_and_the_next_run_goes_on() {
    let scene = Scene::new();
    scene.prove(Until::Execute).unwrap();
    let error = scene.prove_unless(Until::Groth16, Arc::new(AtomicBool::new(true))).unwrap_err();
    assert!(matches!(error, Error::Interrupted));
    assert_eq!(error.exit_code(), 130);
    scene.prove(Until::Groth16).unwrap();
    assert_eq!(scene.calls(), ALL);
}

#[test]
fn a_proved_batch_is_there_for_the_contracts_operator_before_its_result_is() {
    let mut scene = Scene::new();
    let folder = scene.at("batches");
    scene.config.l1_batches = Some(folder.clone());
    let batches = BatchDir::new(&folder);
    scene.prove(Until::Wrap).unwrap();
    assert!(batches.list().unwrap().is_empty(), "nothing is proved yet");
    // Another batch from the same state may stand on Bitcoin: nothing is published either.
    let mut values = [[0; 32]; 5];
    values[0] = scene.job.parent_commitment;
    let other = ProvedBatch { verifying_key: Some([3; 32]), values, proof: vec![1], data: vec![2] };
    batches.put(&other).unwrap();
    let message = scene.prove(Until::Groth16).unwrap_err().to_string();
    assert!(message.contains("another batch"), "{message}");
    assert!(!scene.config.out.join(&scene.job.summary.id).join("proof.bin").exists());
    fs::remove_dir_all(&folder).unwrap();
    for _ in 0..2 {
        scene.prove(Until::Groth16).unwrap();
        let batch = batches.get(&scene.job.parent_commitment).unwrap().unwrap();
        assert_eq!(batch.values.as_flattened()[..128], scene.public_values);
        assert_eq!(batch.values[4], statement_digest(&scene.public_values));
        assert_eq!(batch.data, scene.job.data);
    }
}
