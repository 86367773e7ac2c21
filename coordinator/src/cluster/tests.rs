//! The coordinator's own parts together, over a real batch and a small real Groth16 proof in the wrap proof's place.

use ark_serialize::CanonicalSerialize;
use assay_l1_parties::service::batches::BatchDir;
use assay_lvm::vm::{Evm, Validated, VirtualMachine};
use assay_lvm::{sample, Batch};
use assay_lvm_core::FoldPublicValues;
use assay_schedule::{BatchId, ChainId, Facts, Hash, Spec, TenantId};
use assay_service::leader::LeaderError;
use assay_service::work::{Judgement, Settlement as Order, Settler, Verifier};
use assay_service::ServiceError;
use assay_worker::cluster::{Groth16Output, Rules};

use super::epoch::Epoch;
use super::settler::TrunkSettler;
use super::verifier::{scratch, TaskVerifier};
use super::ClusterError;
use crate::config::{Config, Settings};
use crate::error::EXIT_BAD_INPUT;
use crate::testing::small_proof_of;
use crate::verify::verify_folder;

const VERSION: u32 = 1;

/// A coordinator's folder, a batch, and what its workers would have made of it.
pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: Config,
    pub(crate) epoch: Epoch,
    pub(crate) payload: Vec<u8>,
    pub(crate) validated: Validated,
    pub(crate) facts: Facts,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            out: Some(dir.path().join("out")),
            cache: Some(dir.path().join("cache")),
            keys: Some(dir.path().join("keys")),
            ..Settings::default()
        };
        let config = Config::new(None, |_| None, settings).unwrap();
        let rules = Rules {
            block_program: [1; 8],
            fold_program: [2; 8],
            run_gas_max: 30_000_000,
            run_blocks_max: 64,
        };
        let batch = sample::batch(1).unwrap();
        let validated = Evm.validate(&batch).unwrap();
        let payload = batch.encode();
        let from = validated.from.commitment();
        let facts = Facts {
            chain: ChainId(validated.from.chain_id),
            sequence: 0,
            genesis: Hash(from),
            from: Hash(from),
            to: Hash(validated.to.commitment()),
            payload: Hash(*blake3::hash(&payload).as_bytes()),
            version: VERSION,
            deadline: None,
        };
        let mut scene = Self {
            dir,
            config,
            epoch: Epoch { version: VERSION, rules, verifying_key: [0; 32], is_configured: true },
            payload,
            validated,
            facts,
        };
        scene.epoch.verifying_key = *blake3::hash(&scene.output().verifying_key).as_bytes();
        scene
    }

    pub(crate) fn public_values(&self) -> [u8; 128] {
        FoldPublicValues {
            prev_commitment: self.facts.from.0,
            new_commitment: self.facts.to.0,
            batch_hash: self.validated.batch_hash,
            code_root: self.epoch.rules.group(self.facts.genesis.0).root(),
        }
        .encode()
    }

    pub(crate) fn output(&self) -> Groth16Output {
        self.output_of(self.public_values())
    }

    pub(crate) fn output_of(&self, public_values: [u8; 128]) -> Groth16Output {
        let small = small_proof_of(public_values);
        let (mut proof, mut verifying_key) = (Vec::new(), Vec::new());
        small.proof.serialize_compressed(&mut proof).unwrap();
        small.vk.serialize_compressed(&mut verifying_key).unwrap();
        let public_values = public_values.to_vec();
        Groth16Output { public_values, proof, verifying_key, insecure: true, constraints: 12 }
    }

    pub(crate) fn verifier(&self) -> TaskVerifier {
        TaskVerifier::new(&self.epoch, scratch(self.dir.path()).unwrap())
    }

    pub(crate) fn settler(&self) -> TrunkSettler {
        TrunkSettler::new(self.config.clone(), self.epoch.verifying_key)
    }

    pub(crate) fn order(&self) -> Order {
        let spec = Spec {
            tenant: TenantId(1),
            key: "first".into(),
            chain: self.facts.chain,
            sequence: 0,
            from: self.facts.from,
            to: self.facts.to,
            payload: self.facts.payload,
            payload_bytes: self.payload.len() as u64,
            units: 1,
            version: 1,
            priority: 100,
            deadline: None,
            deadline_is_hard: false,
            intake: Hash([7; 32]),
        };
        let proof = encode(&self.output());
        Order { batch: BatchId(7), spec, payload: self.payload.clone(), proof }
    }
}

#[track_caller]
pub(crate) fn is_wrong(judgement: &Judgement) {
    assert!(matches!(judgement, Judgement::Wrong { .. }), "{judgement:?}");
}

pub(crate) fn encode(output: &Groth16Output) -> Vec<u8> {
    bincode::serialize(output).unwrap()
}

#[test]
fn a_proof_counts_only_under_the_pinned_key_and_only_for_its_batch() {
    let scene = Scene::new();
    let verifier = scene.verifier();
    let good = scene.output();
    assert_eq!(verifier.check(&scene.facts, &scene.payload, &encode(&good)), Judgement::Right);

    // Each part of the statement counts: here are outputs that verify, about something else.
    for at in [0, 32, 64, 96] {
        let mut values = scene.public_values();
        values[at] ^= 1;
        let other = scene.output_of(values);
        let epoch =
            Epoch { verifying_key: *blake3::hash(&other.verifying_key).as_bytes(), ..scene.epoch.clone() };
        let lenient = TaskVerifier::new(&epoch, scratch(scene.dir.path()).unwrap());
        is_wrong(&lenient.check(&scene.facts, &scene.payload, &encode(&other)));
    }
    // The same statement under a forger's key.
    let other_key = Epoch { verifying_key: [7; 32], ..scene.epoch.clone() };
    let strict = TaskVerifier::new(&other_key, scratch(scene.dir.path()).unwrap());
    is_wrong(&strict.check(&scene.facts, &scene.payload, &encode(&good)));

    let with = |change: &dyn Fn(&mut Groth16Output)| {
        let mut output = good.clone();
        change(&mut output);
        encode(&output)
    };
    let mut trailing = encode(&good);
    trailing.push(0);
    let wrong = [
        with(&|output| output.proof[5] ^= 1),
        with(&|output| output.proof.push(0)),
        with(&|output| output.public_values[0] ^= 1),
        with(&|output| output.public_values.push(0)),
        with(&|output| output.verifying_key.push(0)),
        with(&|output| output.proof.clear()),
        trailing,
        Vec::new(),
        vec![0xff; 300],
    ];
    for bytes in wrong {
        is_wrong(&verifier.check(&scene.facts, &scene.payload, &bytes));
    }
    is_wrong(&verifier.check(&scene.facts, b"junk", &encode(&good)));
    let second = sample::batch(2).unwrap().encode();
    is_wrong(&verifier.check(&scene.facts, &second, &encode(&good)));
}

#[test]
fn a_batch_of_another_version_is_another_coordinators() {
    let verifier = Scene::new().verifier();
    assert_eq!(verifier.other_version(VERSION), None);
    let reason = verifier.other_version(VERSION + 1).unwrap();
    assert!(reason.contains("00000002") && reason.contains("00000001"), "{reason}");
}

#[tokio::test]
async fn a_batch_is_settled_once_and_its_files_are_a_result_folder() {
    let mut scene = Scene::new();
    let batches = scene.dir.path().join("batches");
    scene.config.l1_batches = Some(batches.clone());
    let order = scene.order();
    let files = scene.settler().settle(&order).await.unwrap();
    let handed = BatchDir::new(&batches.join(scene.facts.chain.0.to_string()));
    let handed = handed.get(&scene.facts.from.0).unwrap().unwrap();
    assert_eq!(handed.values.as_flattened()[..128], scene.public_values());
    assert_eq!(handed.data, scene.validated.data);
    assert_eq!(handed.verifying_key, Some(scene.epoch.verifying_key));
    let folder = scene.dir.path().join("fetched");
    std::fs::create_dir_all(&folder).unwrap();
    for file in &files {
        std::fs::write(folder.join(&file.name), &file.bytes).unwrap();
    }
    let accepted = verify_folder(&folder, None).unwrap();
    assert_eq!(accepted.statement.public_values, hex::encode(scene.public_values()));
    assert_eq!(accepted.verifying_key_blake3, hex::encode(scene.epoch.verifying_key));
    let claim_txid = accepted.claim_txid.unwrap();
    let report: super::report::ClusterReport =
        serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap();
    assert_eq!((report.cluster.id, report.cluster.sequence, report.constraints), (7, 0, 12));
    assert_eq!(report.batch.genesis_commitment, Some(hex::encode(scene.facts.genesis.0)));

    // Asked again, by another process after a crash: the same claim.
    let again = scene.settler().settle(&order).await.unwrap();
    assert_eq!(again, files);
    assert!(String::from_utf8_lossy(&again.iter().find(|file| file.name == "claim.json").unwrap().bytes)
        .contains(&claim_txid));
}

#[tokio::test]
async fn what_cannot_be_settled_is_refused_before_anything_is_posted() {
    let scene = Scene::new();
    let settler = scene.settler();
    let mut junk = scene.order();
    junk.proof = b"junk".to_vec();
    assert!(settler.settle(&junk).await.unwrap_err().is_permanent);
    let mut forged = scene.order();
    forged.proof = encode(&Groth16Output { proof: vec![0; 128], ..scene.output() });
    assert!(settler.settle(&forged).await.unwrap_err().is_permanent);
    let mut payload = scene.order();
    payload.payload = b"junk".to_vec();
    assert!(settler.settle(&payload).await.unwrap_err().is_permanent);
    assert!(!scene.config.out.join("rollups").exists());

    // A batch of another history than the trunk's.
    settler.settle(&scene.order()).await.unwrap();
    let mut values = scene.public_values();
    values[64] ^= 1;
    let other = scene.output_of(values);
    let settler = TrunkSettler::new(scene.config.clone(), *blake3::hash(&other.verifying_key).as_bytes());
    let mut twice = scene.order();
    twice.proof = encode(&other);
    let refused = settler.settle(&twice).await.unwrap_err();
    assert!(
        refused.is_permanent && refused.reason.contains("settle the batch before it"),
        "{}",
        refused.reason
    );
}

#[tokio::test]
async fn an_empty_folder_is_another_ledger_and_the_error_names_the_one_that_is_missing() {
    let (scene, dir) = (Scene::new(), tempfile::tempdir().unwrap());
    let settler = |out: &std::path::Path| {
        let config = Config { out: out.to_owned(), ..scene.config.clone() };
        let ledger = super::ledger::open(out, "host").unwrap();
        TrunkSettler::new(config, scene.epoch.verifying_key).with_ledger(ledger)
    };
    let ours = settler(&scene.config.out);
    ours.settle(&scene.order()).await.unwrap();
    // What it would do, had it to settle: begin again. So its ledger has to be another one.
    let theirs = settler(dir.path());
    assert_ne!(ours.ledger().unwrap().id, theirs.ledger().unwrap().id);
    assert_eq!(ours.ledger().unwrap().id, settler(&scene.config.out).ledger().unwrap().id);

    let expected = ours.ledger().unwrap();
    let error = LeaderError::Ledger { expected: expected.clone(), got: theirs.ledger() };
    let error = ClusterError::from(ServiceError::from(error));
    let advice = error.advice().unwrap();
    assert!(advice.contains(&expected.place) && advice.contains("--out"), "{advice}");
    assert!(error.to_string().contains(&theirs.ledger().unwrap().place), "{error}");
    assert_eq!(error.exit_code(), EXIT_BAD_INPUT);

    // Nor is its folder taken for the deployment's where none is known yet.
    let got = theirs.ledger().unwrap();
    let error = LeaderError::NoTrunk { chain: scene.facts.chain, got: got.clone() };
    let error = ClusterError::from(ServiceError::from(error));
    assert!(error.advice().unwrap().contains(&got.place) && error.exit_code() == EXIT_BAD_INPUT);
}

#[test]
fn a_batch_file_is_what_the_reader_and_the_settler_decode() {
    let scene = Scene::new();
    assert_eq!(Batch::decode(&scene.payload).unwrap().hash().unwrap(), scene.validated.batch_hash);
}
