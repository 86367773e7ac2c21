//! Coordinators of another version, or of another place.

use assay_schedule::{ChainId, Hash};
use assay_service::leader::LeaderError;
use assay_service::work::Ledger;
use assay_service::ServiceError;

use crate::agent::Habits;
use crate::cluster::{until, Cluster};
use crate::simple::Shape;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_of_another_version_leaves_a_batch_alone_and_says_so() {
    let mut cluster = Cluster::new();
    cluster.version = Some(2);
    let other = cluster.node().await;
    let _agent = cluster.agent(1, Habits::default());
    let id = other.client.submitted("key", Shape::new(1)).await;
    let reasons = || async { other.client.get("/ready").await.1["reasons"].clone() };
    until("it says so", || async { reasons().await != serde_json::json!([]) }).await;
    let expected = format!("batch {id} waits: version 1 is not 2");
    assert_eq!(reasons().await, serde_json::json!([expected]));
    let (status, ready) = other.client.get("/ready").await;
    assert_eq!((status, &ready["ready"]), (200, &true.into()), "it can serve all the same");
    assert_eq!(other.client.phase(id).await, "proving");

    cluster.version = Some(1);
    other.stop().await;
    let right = cluster.node().await;
    right.client.wait_for(id, "settled").await;
    assert_eq!(right.client.get("/ready").await.1["reasons"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_alone_can_be_cancelled_and_is_not_spoken_of_any_more() {
    let mut cluster = Cluster::new();
    cluster.version = Some(2);
    let node = cluster.node().await;
    let _agent = cluster.agent(1, Habits::default());
    let ids =
        [node.client.submitted("1", Shape::new(1)).await, node.client.submitted("2", Shape::new(2)).await];
    let says = |expected: String| {
        let client = node.client.clone();
        async move { client.get("/ready").await.1["reasons"] == serde_json::json!([expected]) }
    };
    let both = format!("2 batches wait, {} first: version 1 is not 2", ids[0]);
    until("both wait", || says(both.clone())).await;
    let path = format!("/v1/batches/{}", ids[0]);
    assert_eq!(node.client.send(node.client.request("DELETE", &path)).await.0, 204);
    let one = format!("batch {} waits: version 1 is not 2", ids[1]);
    until("one waits", || says(one.clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_without_the_history_that_is_settled_is_not_bound_to_the_deployment() {
    let ledger = |number: u8| Some(Ledger { id: Hash([number; 32]), place: format!("folder {number}") });
    let mut cluster = Cluster::new();
    let first = cluster.node().await;
    let _agent = cluster.agent(1, Habits::default());
    let id = first.client.submitted("key", Shape::new(7)).await;
    first.client.wait_for(id, "settled").await;
    first.stop().await;

    (cluster.ledger, cluster.lacks) = (ledger(1), vec![ChainId(7)]);
    let error = cluster.refused().await;
    let ServiceError::Leader(LeaderError::NoTrunk { chain, got }) = &error else { panic!("{error}") };
    assert_eq!((*chain, Some(got)), (ChainId(7), ledger(1).as_ref()));
    assert!(error.to_string().contains("folder 1"), "{error}");
    // Nothing was written: the one that has the history leads, and is the deployment's from then on.
    (cluster.ledger, cluster.lacks) = (ledger(2), vec![ChainId(8)]);
    let right = cluster.node().await;
    assert_eq!(right.client.phase(id).await, "settled");
    right.stop().await;
    (cluster.ledger, cluster.lacks) = (ledger(1), Vec::new());
    assert!(matches!(cluster.refused().await, ServiceError::Leader(LeaderError::Ledger { .. })));
}
