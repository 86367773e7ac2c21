use std::path::Path;

use assay_l1_parties::service::batches::{BatchDir, ProvedBatch};

use super::*;
use crate::cluster::tests::{encode, Scene};

/// A settler that hands batches over, and where it puts those of the scene's rollup.
fn handing(scene: &Scene, folder: &Path) -> (TrunkSettler, BatchDir) {
    let config = Config { l1_batches: Some(folder.to_owned()), ..scene.config.clone() };
    let batches = BatchDir::new(&folder.join(scene.facts.chain.0.to_string()));
    (TrunkSettler::new(config, scene.epoch.verifying_key), batches)
}

/// Another batch from the scene's state.
fn another(scene: &Scene) -> ProvedBatch {
    let mut values = [[1; 32]; 5];
    values[0] = scene.facts.from.0;
    ProvedBatch { verifying_key: Some([2; 32]), values, proof: vec![3], data: vec![4] }
}

fn case(settler: &TrunkSettler, scene: &Scene) -> Case {
    Case { settler: settler.clone(), order: scene.order(), prepared: OnceLock::new() }
}

#[tokio::test]
async fn a_batch_that_the_trunk_refuses_is_not_handed_to_the_operator() {
    let scene = Scene::new();
    scene.settler().settle(&scene.order()).await.unwrap();
    // From the same state, of another history.
    let mut values = scene.public_values();
    values[96] ^= 1;
    let other = scene.output_of(values);
    let order = Order { proof: encode(&other), ..scene.order() };
    let folder = scene.dir.path().join("batches");
    let (settler, batches) = handing(&scene, &folder);
    let settler = TrunkSettler { verifying_key: *blake3::hash(&other.verifying_key).as_bytes(), ..settler };
    assert!(settler.settle(&order).await.unwrap_err().is_permanent);
    assert!(batches.list().unwrap().is_empty());
}

#[test]
fn what_the_operators_folder_refuses_is_not_posted_and_once_posted_waits_for_a_person() {
    let scene = Scene::new();
    let folder = scene.dir.path().join("batches");
    let (settler, batches) = handing(&scene, &folder);
    batches.put(&another(&scene)).unwrap();
    let Tried::Over(Err(refused)) = case(&settler, &scene).attempt() else { panic!("not refused") };
    assert!(refused.is_permanent && refused.reason.contains("another batch"), "{}", refused.reason);
    assert!(!scene.config.out.join("rollups").exists(), "nothing was posted");

    // Posted by a process that died before it could hand it over.
    let Tried::Over(Ok(files)) = case(&scene.settler(), &scene).attempt() else { panic!("not settled") };
    let waiting = case(&settler, &scene);
    let Tried::Again(reason) = waiting.attempt() else { panic!("over") };
    assert!(reason.contains("another batch"), "{reason}");
    std::fs::remove_file(batches.path(&scene.facts.from.0)).unwrap();
    let Tried::Over(Ok(again)) = waiting.attempt() else { panic!("not settled") };
    assert_eq!(again, files);
    assert_eq!(batches.get(&scene.facts.from.0).unwrap().unwrap().data, scene.validated.data);
}

#[tokio::test]
async fn what_is_lost_is_refused_only_if_nothing_was_posted() {
    let scene = Scene::new();
    let settler = scene.settler();
    let order = scene.order();
    for (lost, is_permanent) in [(Lost::Payload, true), (Lost::Proof, false)] {
        let refused = settler.settle_lost(order.batch, &order.spec, lost).await.unwrap_err();
        assert_eq!((refused.is_permanent, refused.reason), (is_permanent, lost.to_string()));
    }
    assert!(!settler.has_trunk(order.spec.chain) && !scene.config.out.join("rollups").exists());
    settler.settle(&order).await.unwrap();
    assert!(settler.has_trunk(order.spec.chain) && !settler.has_trunk(ChainId(order.spec.chain.0 + 1)));
    for lost in [Lost::Payload, Lost::Proof] {
        assert_eq!(settler.settle_lost(order.batch, &order.spec, lost).await, Ok(Vec::new()));
    }
    // Nor is it refused because another key is pinned now.
    let other = TrunkSettler { verifying_key: [7; 32], ..settler };
    assert_eq!(other.settle(&order).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_settlement_that_waits_for_a_person_lets_others_go_on() {
    let scene = Scene::new();
    let order = scene.order();
    scene.settler().settle(&order).await.unwrap();
    let folder = scene.dir.path().join("batches");
    let (settler, batches) = handing(&scene, &folder);
    batches.put(&another(&scene)).unwrap();
    let mut elsewhere = order.spec.clone();
    elsewhere.chain = ChainId(order.spec.chain.0 + 1);
    // One turn at a time: the chain is in this process.
    assert_eq!(settler.turns.available_permits(), 1);
    tokio::select! {
        biased;
        result = settler.settle(&order) => panic!("{result:?}"),
        result = settler.settle_lost(BatchId(8), &elsewhere, Lost::Payload) => {
            assert!(result.unwrap_err().is_permanent);
        }
    }
}
