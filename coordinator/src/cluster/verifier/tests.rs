use assay_schedule::Hash;

use super::*;
use crate::cluster::tests::{encode, Scene};

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
    assert!(verifier.needs_inputs(&claim));
    assert!(verifier.verify(&claim, payload, &runs));
    let mut changed = runs.clone();
    let middle = changed[0].len() / 2;
    changed[0][middle] ^= 1;
    assert!(!verifier.verify(&claim, payload, &changed));
    assert!(!verifier.verify(&claim, payload, &[]));
    assert!(!verifier.verify(&claim, &[b"junk".to_vec()], &runs));
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
        assert_eq!(verifier.needs_inputs(&claim), !stage.kind().is_part());
        for outputs in
            [vec![], vec![b"junk".to_vec()], vec![Vec::new(), vec![0xff; 100]], vec![encode(&scene.output())]]
        {
            assert!(!verifier.verify(&claim, &inputs, &outputs), "{stage:?}");
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
