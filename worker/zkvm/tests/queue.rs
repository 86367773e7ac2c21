//! The contracts that the zkVM's controller relies on.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use assay_worker_zkvm::queue::{join_failure, outcome, Failure, Lane, LocalQueue, Task};
use sp1_prover::worker::{
    ProofId, RawTaskRequest, RequesterId, TaskContext, TaskError, TaskId, TaskMetadata, WorkerClient,
};
use sp1_prover_types::{TaskStatus, TaskType};

/// Long enough for everything that should happen, short enough to wait for what should not.
const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(30);

fn proof() -> ProofId {
    ProofId::new("proof")
}

fn request() -> RawTaskRequest {
    let context = TaskContext {
        proof_id: proof(),
        parent_id: None,
        parent_context: None,
        requester_id: RequesterId::new("test"),
    };
    RawTaskRequest { inputs: vec![], outputs: vec![], context }
}

async fn next(queue: &LocalQueue) -> Task {
    tokio::time::timeout(LONG, queue.next(Lane::Prove))
        .await
        .expect("a task is ready")
        .expect("queue is open")
}

async fn wait(queue: &LocalQueue, id: &TaskId) -> TaskStatus {
    let subscriber = queue.subscriber(proof()).await.unwrap().per_task();
    tokio::time::timeout(LONG, subscriber.wait_task(id.clone())).await.expect("status arrives").unwrap()
}

#[tokio::test]
async fn a_retry_keeps_its_id_and_never_shows_a_retryable_status() {
    let queue = LocalQueue::new(4);
    let (subscriber, mut events) = queue.subscriber(proof()).await.unwrap().stream();
    let id = queue.submit_task(TaskType::ProveShard, request()).await.unwrap();
    subscriber.subscribe(id.clone()).unwrap();
    for attempt in 1..=2 {
        let task = next(&queue).await;
        assert_eq!((&task.id, task.attempt), (&id, attempt));
        queue.finish(&task, Err(Failure::Retryable("store is busy".into())));
        assert!(
            tokio::time::timeout(SHORT, events.recv()).await.is_err(),
            "no status before the last attempt"
        );
    }
    let task = next(&queue).await;
    queue.finish(&task, Ok(()));
    assert_eq!(events.recv().await, Some((id, TaskStatus::Succeeded)));
}

#[tokio::test]
async fn attempts_are_limited_and_the_last_failure_is_fatal() {
    let queue = LocalQueue::new(4);
    let id = queue.submit_task(TaskType::RecursionReduce, request()).await.unwrap();
    for _ in 0..3 {
        let task = next(&queue).await;
        queue.finish(&task, Err(Failure::Retryable("again".into())));
    }
    assert_eq!(wait(&queue, &id).await, TaskStatus::FailedFatal);
    assert!(tokio::time::timeout(SHORT, queue.next(Lane::Prove)).await.is_err());
    assert!(queue.first_failure(&proof()).unwrap().contains("again"));
}

#[tokio::test]
async fn execution_is_never_tried_twice_because_its_messages_would_be_sent_twice() {
    let queue = LocalQueue::new(4);
    let id = queue.submit_task(TaskType::CoreExecute, request()).await.unwrap();
    let task = queue.next(Lane::Execute).await.unwrap();
    queue.finish(&task, Err(Failure::Retryable("killed".into())));
    assert_eq!(wait(&queue, &id).await, TaskStatus::FailedFatal);
}

#[tokio::test]
async fn a_terminal_status_is_replayed_to_late_and_repeated_subscribers() {
    let queue = LocalQueue::new(4);
    let id = queue.submit_task(TaskType::ProveShard, request()).await.unwrap();
    let task = next(&queue).await;
    queue.finish(&task, Ok(()));
    for _ in 0..2 {
        assert_eq!(wait(&queue, &id).await, TaskStatus::Succeeded);
    }
    queue.release(&proof());
    assert_eq!(wait(&queue, &id).await, TaskStatus::Succeeded, "also after the proof is released");
    assert!(queue.is_empty());
}

#[tokio::test]
async fn an_unknown_id_is_answered_with_a_failure_instead_of_silence() {
    let queue = LocalQueue::new(4);
    assert_eq!(wait(&queue, &TaskId::new("never submitted")).await, TaskStatus::FailedFatal);
}

#[tokio::test]
async fn a_panicking_task_ends_as_a_failure_with_its_message() {
    let queue = LocalQueue::new(4);
    let id = queue.submit_task(TaskType::ProveShard, request()).await.unwrap();
    let task = next(&queue).await;
    let work = tokio::spawn(async { panic!("row 17 of the trace is missing") });
    queue.finish(&task, outcome(work.await));
    assert_eq!(wait(&queue, &id).await, TaskStatus::FailedFatal);
    assert!(queue.first_failure(&proof()).unwrap().contains("row 17 of the trace is missing"));
}

#[test]
fn only_retryable_errors_are_tried_again() {
    let retryable = outcome(Ok(Err(TaskError::Retryable(anyhow::anyhow!("x")))));
    assert!(matches!(retryable, Err(Failure::Retryable(_))));
    let fatal = outcome(Ok(Err(TaskError::Fatal(anyhow::anyhow!("x")))));
    assert!(matches!(fatal, Err(Failure::Fatal(_))));
    assert_eq!(outcome(Ok(Ok(()))), Ok(()));
}

#[tokio::test]
async fn submission_waits_while_the_queue_is_full_and_goes_on_when_a_task_is_taken() {
    let queue = LocalQueue::new(2);
    for _ in 0..2 {
        queue.submit_task(TaskType::ProveShard, request()).await.unwrap();
    }
    let third = queue.submit_task(TaskType::ProveShard, request());
    tokio::pin!(third);
    assert!(tokio::time::timeout(SHORT, &mut third).await.is_err(), "the queue is full");
    // Another kind has places of its own: the tree above the shards must never wait for them.
    queue.submit_task(TaskType::RecursionReduce, request()).await.unwrap();
    assert_eq!(next(&queue).await.kind, TaskType::RecursionReduce, "nearer to the root first");
    assert_eq!(next(&queue).await.kind, TaskType::ProveShard);
    tokio::time::timeout(LONG, third).await.expect("a place is free").unwrap();
}

#[tokio::test]
async fn messages_are_ordered_replayed_from_the_first_and_end_with_the_task() {
    let queue = LocalQueue::new(4);
    let id = queue.submit_task(TaskType::CoreExecute, request()).await.unwrap();
    for byte in 0..3u8 {
        queue.send_task_message(&id, vec![byte]).await.unwrap();
    }
    let mut messages = queue.subscribe_task_messages(&id).await.unwrap();
    assert!(queue.subscribe_task_messages(&id).await.is_err(), "one consumer");
    queue.send_task_message(&id, vec![3]).await.unwrap();
    for byte in 0..4u8 {
        assert_eq!(messages.recv().await, Some(vec![byte]));
    }
    assert!(tokio::time::timeout(SHORT, messages.recv()).await.is_err(), "the task has not ended");
    let task = queue.next(Lane::Execute).await.unwrap();
    queue.finish(&task, Ok(()));
    assert_eq!(messages.recv().await, None);
    assert!(queue.send_task_message(&id, vec![4]).await.is_err(), "ended tasks send nothing");
}

#[tokio::test]
async fn a_late_consumer_still_gets_every_message_and_then_the_end() {
    let queue = LocalQueue::new(4);
    let id = queue.submit_task(TaskType::CoreExecute, request()).await.unwrap();
    queue.send_task_message(&id, vec![9]).await.unwrap();
    let task = queue.next(Lane::Execute).await.unwrap();
    queue.finish(&task, Ok(()));
    let mut messages = queue.subscribe_task_messages(&id).await.unwrap();
    assert_eq!(messages.recv().await, Some(vec![9]));
    assert_eq!(messages.recv().await, None);
}

#[tokio::test]
async fn the_result_of_an_older_attempt_is_dropped() {
    let queue = LocalQueue::new(4);
    let id = queue.submit_task(TaskType::ProveShard, request()).await.unwrap();
    let first = next(&queue).await;
    queue.finish(&first, Err(Failure::Retryable("slow".into())));
    let second = next(&queue).await;
    queue.finish(&first, Err(Failure::Fatal("late".into())));
    assert_eq!(queue.status(&id), Some(TaskStatus::Pending));
    queue.finish(&second, Ok(()));
    queue.finish(&second, Err(Failure::Fatal("twice".into())));
    assert_eq!(queue.status(&id), Some(TaskStatus::Succeeded));
}

#[tokio::test]
async fn a_marker_is_completed_by_its_shard_and_may_be_completed_again() {
    let queue = LocalQueue::new(1);
    let mut markers = Vec::new();
    for _ in 0..10 {
        // Markers take no place: an execution may create one before its shard gets one.
        markers.push(queue.submit_task(TaskType::MarkerDeferredRecord, request()).await.unwrap());
    }
    for _ in 0..2 {
        queue.complete_task(proof(), markers[3].clone(), TaskMetadata::default()).await.unwrap();
    }
    assert_eq!(wait(&queue, &markers[3]).await, TaskStatus::Succeeded);
    assert_eq!(queue.status(&markers[4]), Some(TaskStatus::Pending));
}

#[tokio::test]
async fn cancelling_ends_queued_and_running_tasks_and_stops_the_running_ones() {
    let queue = LocalQueue::new(4);
    let running = queue.submit_task(TaskType::ProveShard, request()).await.unwrap();
    let task = next(&queue).await;
    let queued = queue.submit_task(TaskType::ProveShard, request()).await.unwrap();
    let work = tokio::spawn(std::future::pending::<Result<(), TaskError>>());
    queue.set_abort(&task, work.abort_handle());
    queue.cancel(&proof(), "cancelled by its owner");
    assert_eq!(wait(&queue, &running).await, TaskStatus::FailedFatal);
    assert_eq!(wait(&queue, &queued).await, TaskStatus::FailedFatal);
    assert!(work.await.unwrap_err().is_cancelled());
    assert!(tokio::time::timeout(SHORT, queue.next(Lane::Prove)).await.is_err(), "nothing is left to run");
    // The place of the cancelled task is free again.
    for _ in 0..4 {
        tokio::time::timeout(LONG, queue.submit_task(TaskType::ProveShard, request()))
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn a_closed_queue_ends_its_runners() {
    let queue = LocalQueue::new(1);
    let runner = tokio::spawn({
        let queue = queue.clone();
        async move { queue.next(Lane::Prove).await.is_none() }
    });
    tokio::task::yield_now().await;
    queue.close();
    assert!(tokio::time::timeout(LONG, runner).await.unwrap().unwrap());
    assert!(queue.submit_task(TaskType::ProveShard, request()).await.is_err());
}

#[tokio::test]
async fn counts_follow_the_tasks_of_a_proof() {
    let queue = LocalQueue::new(4);
    for _ in 0..3 {
        queue.submit_task(TaskType::ProveShard, request()).await.unwrap();
    }
    let task = next(&queue).await;
    queue.finish(&task, Ok(()));
    let count = queue.count(&proof(), TaskType::ProveShard);
    assert_eq!((count.submitted, count.succeeded), (3, 1));
}

/// As `slop_futures::pipeline::TaskJoinError`, whose text says nothing.
#[derive(Debug, thiserror::Error)]
#[error("execution error")]
struct Joined(#[source] tokio::task::JoinError);

#[tokio::test]
async fn a_task_within_a_task_that_panics_says_why() {
    fn full() {
        panic!("allocation failed")
    }
    let panicked = tokio::spawn(async { full() }).await.unwrap_err();
    match outcome(Ok(Err(join_failure(Joined(panicked))))) {
        Err(Failure::Fatal(reason)) => assert!(reason.contains("allocation failed"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
