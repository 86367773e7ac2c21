use assay_schedule::Hash;

use super::*;
use crate::cluster::tests::{encode, is_wrong, Scene};

fn claim(scene: &Scene, stage: Stage, inputs: Vec<Role>) -> Claim {
    Claim { stage, key: Hash([0; 32]), inputs, facts: scene.facts }
}

#[test]
fn runs_are_checked_against_the_batch() {
    let scene = Scene::new();
    let verifier = scene.verifier();
    let runs = Batch::decode(&scene.payload).unwrap().split_runs(assay_lvm::RunLimits::default()).unwrap();
    let runs: Vec<Vec<u8>> = runs.into_iter().map(|run| run.input).collect();
    let claim = claim(&scene, Stage::Execute, vec![Role::Payload]);
    let payload = std::slice::from_ref(&scene.payload);
    assert!(verifier.inputs_read(&claim) >= payload.len());
    assert_eq!(verifier.verify(&claim, payload, &runs), Judgement::Right);
    let mut changed = runs.clone();
    let middle = changed[0].len() / 2;
    changed[0][middle] ^= 1;
    is_wrong(&verifier.verify(&claim, payload, &changed));
    is_wrong(&verifier.verify(&claim, payload, &[]));
    is_wrong(&verifier.verify(&claim, &[b"junk".to_vec()], &runs));
    assert_eq!(std::fs::read_dir(&verifier.scratch).unwrap().count(), 0, "files of checks are removed");
}

#[test]
fn junk_is_wrong_whatever_it_is_said_to_be() {
    let scene = Scene::new();
    let verifier = scene.verifier();
    let of = Parent::Block { run: 0 };
    let stages = [
        (Stage::Execute, vec![Role::Payload]),
        (Stage::Block { run: 0 }, vec![Role::Witness]),
        (Stage::Shard { of, part: 0 }, vec![Role::Part]),
        (Stage::Reduce { of: Parent::Fold, part: 0 }, vec![Role::Part, Role::Part]),
        (Stage::Fold, vec![Role::BlockProof { run: 0 }]),
        (Stage::Wrap, vec![Role::FoldProof]),
        (Stage::Groth16, vec![Role::WrapProof]),
    ];
    for (stage, roles) in stages {
        let inputs = vec![b"junk".to_vec(); roles.len()];
        let claim = claim(&scene, stage, roles);
        let read = verifier.inputs_read(&claim);
        assert_eq!(read == SHARD_FILES, stage.kind() == Kind::Shard, "a request is read too: {stage:?}");
        for outputs in
            [vec![], vec![b"junk".to_vec()], vec![Vec::new(), vec![0xff; 100]], vec![encode(&scene.output())]]
        {
            is_wrong(&verifier.verify(&claim, &inputs, &outputs));
        }
    }
}

#[test]
fn inputs_in_other_roles_are_no_task() {
    let scene = Scene::new();
    let path = [PathBuf::from("one"), PathBuf::from("two")];
    let is_task = |stage, roles: Vec<Role>, sequence: u64| {
        let mut claim = claim(&scene, stage, roles);
        claim.facts.sequence = sequence;
        let count = claim.inputs.len();
        task(&claim, &path[..count], &scene.epoch.rules).is_ok()
    };
    let block = |run| Role::BlockProof { run };
    assert!(is_task(Stage::Fold, vec![block(0), block(1)], 0));
    assert!(is_task(Stage::Fold, vec![block(0), Role::PreviousFold], 1));
    assert!(!is_task(Stage::Fold, vec![block(1), block(0)], 0), "in the order of runs");
    assert!(!is_task(Stage::Fold, vec![block(0), Role::PreviousFold], 0), "the first has none before it");
    assert!(!is_task(Stage::Fold, vec![block(0)], 1), "all others have");
    assert!(!is_task(Stage::Fold, vec![Role::PreviousFold], 1));
    assert!(!is_task(Stage::Wrap, vec![Role::WrapProof], 0));
    assert!(!is_task(Stage::Execute, vec![Role::Payload, Role::Payload], 0));
}

#[test]
fn an_unreadable_request_is_not_its_provers_fault_and_a_result_of_another_version_is() {
    let scene = Scene::new();
    let verifier = scene.verifier();
    let decode = || WorkerError::Decode { what: "part", reason: "no header".into() };
    let version =
        WorkerError::Version { what: "compressed proof", expected: "v6.1.0".into(), got: "v6.0.0".into() };
    assert!(matches!(Fault::from(CheckError::Request(decode())), Fault::Incomparable(_)));
    assert!(matches!(Fault::from(CheckError::Result(version)), Fault::Wrong(_)));
    assert!(matches!(Fault::from(CheckError::Result(decode())), Fault::Wrong(_)));
    // The byte in a proof's header that says the version of its format, changed by whoever made it.
    let forged = [&b"ASSAYPRF"[..], &2u16.to_le_bytes(), &[0; 60]].concat();
    let block = claim(&scene, Stage::Block { run: 0 }, vec![Role::Witness]);
    is_wrong(&verifier.verify(&block, &[b"a run".to_vec()], &[forged]));
}
