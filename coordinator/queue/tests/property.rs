//! Random operations give the same answers on all implementations.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use assay_queue::testing::queue_contract::SMALL;
use assay_queue::testing::{QueueFixture, StoreFixture};
use assay_queue::{Commit, Cursor, Epoch, Freed, Holder, Mailbox, Place, Position, Usage};
use proptest::prelude::*;

const LONG: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
enum Operation {
    Lead(u8),
    Resign(u8),
    Post(Vec<u8>),
    Commit { epoch: u8, cursor: u8, records: Vec<u8>, mails: Vec<(u8, u8)>, close: Vec<u8>, remove: Vec<u8> },
    Repeat,
    Checkpoint { epoch: u8, back: u8, bytes: u8 },
    Forget(u8, u8),
    Look,
}

fn operation() -> impl Strategy<Value = Operation> {
    let sizes = || prop::collection::vec(prop_oneof![Just(0), 1..40_u8, Just(255)], 0..4);
    let boxes = |max| prop::collection::vec(0..5_u8, 0..max);
    let commit =
        (0..8_u8, 0..6_u8, sizes(), prop::collection::vec((0..5_u8, 0..=255_u8), 0..6), boxes(2), boxes(2));
    prop_oneof![
        1 => (0..3_u8).prop_map(Operation::Lead),
        1 => (0..4_u8).prop_map(Operation::Resign),
        4 => sizes().prop_map(Operation::Post),
        8 => commit.prop_map(|(epoch, cursor, records, mails, close, remove)| Operation::Commit {
            epoch, cursor, records, mails, close, remove
        }),
        1 => Just(Operation::Repeat),
        2 => (0..8_u8, 0..4_u8, any::<u8>()).prop_map(|(epoch, back, bytes)| Operation::Checkpoint { epoch, back, bytes }),
        2 => (0..5_u8, 0..60_u8).prop_map(|(name, upto)| Operation::Forget(name, upto)),
        2 => Just(Operation::Look),
    ]
}

fn mailbox(number: u8) -> Mailbox {
    Mailbox::new(format!("m/{number}")).unwrap()
}

fn message(size: u8) -> Vec<u8> {
    vec![size; usize::from(size)]
}

/// What a caller knows who remembers the answers.
#[derive(Default)]
struct Memory {
    epoch: u64,
    cursor: u64,
    position: u64,
    last: Option<(Epoch, Commit)>,
}

impl Memory {
    /// Mostly the right epoch.
    fn epoch(&self, choice: u8) -> Epoch {
        Epoch(match choice {
            0 => self.epoch.saturating_sub(1),
            1 => self.epoch + 1,
            _ => self.epoch,
        })
    }
}

/// Runs one operation; the answer as text, errors with all their fields.
async fn run(fixture: &QueueFixture, memory: &mut Memory, operation: &Operation, id: &Commit) -> String {
    let queue = &fixture.queue;
    match operation {
        Operation::Lead(who) => {
            let answer = queue.lead(&format!("leader {who}"), LONG).await;
            if let Ok(Some(epoch)) = &answer {
                memory.epoch = epoch.0;
            }
            format!("{answer:?}")
        }
        Operation::Resign(choice) => format!("{:?}", queue.resign(memory.epoch(*choice)).await),
        Operation::Post(sizes) => {
            let events: Vec<Vec<u8>> = sizes.iter().map(|size| message(*size)).collect();
            format!("{:?}", fixture.other.post_all(&events).await)
        }
        Operation::Commit { epoch, cursor, records, mails, close, remove } => {
            let commit = Commit {
                id: id.id,
                after: records
                    .len()
                    .is_multiple_of(2)
                    .then_some(Place { position: Position(memory.position), cursor: Cursor(memory.cursor) }),
                records: records.iter().map(|size| message(*size)).collect(),
                cursor: Cursor((memory.cursor + u64::from(*cursor)).saturating_sub(1)),
                mails: mails.iter().map(|(name, size)| (mailbox(*name), message(*size))).collect(),
                close: close.iter().map(|name| mailbox(*name)).collect(),
                remove: remove.iter().map(|name| mailbox(*name)).collect(),
            };
            let epoch = memory.epoch(*epoch);
            let answer = queue.commit(epoch, &commit).await;
            if let Ok(committed) = &answer {
                (memory.cursor, memory.position) = (commit.cursor.0, committed.position.0);
            }
            memory.last = Some((epoch, commit));
            format!("{answer:?}")
        }
        Operation::Repeat => match &memory.last {
            Some((epoch, commit)) => {
                let answer = queue.commit(*epoch, commit).await;
                if let Ok(committed) = &answer {
                    (memory.cursor, memory.position) = (commit.cursor.0, committed.position.0);
                }
                format!("{answer:?}")
            }
            None => String::new(),
        },
        Operation::Checkpoint { epoch, back, bytes } => {
            let upto = Position((memory.position + 1).saturating_sub(u64::from(*back)));
            format!("{:?}", queue.checkpoint(memory.epoch(*epoch), upto, &message(*bytes)).await)
        }
        Operation::Forget(name, upto) => {
            // Places of mails begin anew with each epoch.
            let upto = Cursor((memory.epoch << 32) + u64::from(*upto));
            format!("{:?}", fixture.other.forget(&mailbox(*name), upto).await)
        }
        Operation::Look => look(fixture).await,
    }
}

/// Everything that can be seen.
async fn look(fixture: &QueueFixture) -> String {
    let queue = &fixture.other;
    let leader = queue.leader().await.unwrap().map(|leader| (leader.holder, leader.epoch));
    let health = queue.health().await.unwrap();
    let counts = (health.events, health.event_bytes, health.records, health.record_bytes);
    let mail_counts = (health.mailboxes, health.mail_bytes);
    let epoch = leader.as_ref().map_or(1, |(_, epoch)| epoch.0);
    let mut seen = format!("{leader:?} {counts:?} {mail_counts:?} {:?}", queue.load().await.unwrap());
    for after in [0, 3, 9] {
        seen += &format!("\n{:?}", queue.events(Cursor(after), 5, Duration::ZERO).await.unwrap());
        for name in 0..5 {
            for after in [Cursor(after), Cursor((epoch << 32) + after)] {
                let page = queue.read(&mailbox(name), after, 3, Duration::ZERO).await.unwrap();
                seen += &format!("\n{name} {page:?}");
            }
        }
    }
    seen
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_queues_give_the_same_answers(operations in prop::collection::vec(operation(), 1..120)) {
        runtime().block_on(async {
            let fixtures = [
                common::memory_queue(SMALL).await,
                common::folder_queue(SMALL).await,
                common::redis_queue(SMALL).await,
            ];
            let mut memories = [Memory::default(), Memory::default(), Memory::default()];
            for (at, operation) in operations.iter().chain([&Operation::Look]).enumerate() {
                let id = Commit::new(Cursor(0));
                let mut answers = Vec::new();
                for (fixture, memory) in fixtures.iter().zip(&mut memories) {
                    answers.push(run(fixture, memory, operation, &id).await);
                }
                prop_assert_eq!(&answers[0], &answers[1], "folder, operation {}: {:?}", at, operation);
                prop_assert_eq!(&answers[0], &answers[2], "redis, operation {}: {:?}", at, operation);
            }
            Ok(())
        })?;
    }
}

#[derive(Clone, Debug)]
enum StoreOperation {
    Put { holder: u8, content: u8 },
    Hold { holder: u8, content: u8 },
    Release(u8),
    Revoke(u8),
    Damage(u8),
    Get(u8),
    Look,
}

fn store_operation() -> impl Strategy<Value = StoreOperation> {
    prop_oneof![
        6 => (0..12_u8, 0..6_u8).prop_map(|(holder, content)| StoreOperation::Put { holder, content }),
        3 => (0..12_u8, 0..6_u8).prop_map(|(holder, content)| StoreOperation::Hold { holder, content }),
        4 => (0..12_u8).prop_map(StoreOperation::Release),
        1 => (4..12_u8).prop_map(StoreOperation::Revoke),
        1 => (0..6_u8).prop_map(StoreOperation::Damage),
        3 => (0..6_u8).prop_map(StoreOperation::Get),
        1 => Just(StoreOperation::Look),
    ]
}

fn holder(number: u8) -> Holder {
    let names = ["a", "a/1", "a/1/0", "a/1/1", "a/2", "a/2/0", "a/10", "a/10/0", "b", "b/1", "b/1-x", "c/1"];
    Holder::new(names[usize::from(number) % names.len()]).unwrap()
}

/// Half of them go to Redis, half to the object store.
fn content(number: u8) -> Vec<u8> {
    vec![b'a' + number; 10 + usize::from(number) * 400]
}

async fn run_on_store(fixture: &StoreFixture, operation: &StoreOperation) -> String {
    let store = &fixture.store;
    let brief = |error: assay_queue::StoreError| match error {
        // Each names its own place.
        assay_queue::StoreError::Corrupt { hash, .. } => format!("corrupt {hash}"),
        other => other.to_string(),
    };
    match operation {
        StoreOperation::Put { holder: name, content: number } => {
            format!("{:?}", store.put(&holder(*name), content(*number)).await.map_err(brief))
        }
        StoreOperation::Hold { holder: name, content: number } => {
            let hash = blake3::hash(&content(*number));
            format!("{:?}", fixture.other.hold(&holder(*name), &hash).await.map_err(brief))
        }
        StoreOperation::Release(name) => format!("{:?}", store.release(&holder(*name)).await.map_err(brief)),
        StoreOperation::Revoke(name) => format!("{:?}", store.revoke(&holder(*name)).await.map_err(brief)),
        StoreOperation::Damage(number) => {
            let hash = blake3::hash(&content(*number));
            let stat = store.stat(&hash).await.unwrap();
            if stat.is_some_and(|stat| !stat.is_damaged) {
                (fixture.damage)(hash).await;
            }
            format!("{:?}", store.get(&hash).await.map_err(brief))
        }
        StoreOperation::Get(number) => {
            format!("{:?}", fixture.other.get(&blake3::hash(&content(*number))).await.map_err(brief))
        }
        StoreOperation::Look => {
            let mut seen =
                format!("{:?} {:?}", store.usage().await.unwrap(), store.holds(None, 99).await.unwrap());
            for number in 0..6 {
                seen += &format!(" {:?}", store.stat(&blake3::hash(&content(number))).await.unwrap());
            }
            seen
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_stores_give_the_same_answers(operations in prop::collection::vec(store_operation(), 1..100)) {
        runtime().block_on(async {
            let fixtures = [common::folder_store().await, common::shared_store().await];
            for (at, operation) in operations.iter().chain([&StoreOperation::Look]).enumerate() {
                let folder = run_on_store(&fixtures[0], operation).await;
                let shared = run_on_store(&fixtures[1], operation).await;
                prop_assert_eq!(folder, shared, "operation {}: {:?}", at, operation);
            }
            for fixture in &fixtures {
                for number in 0..12 {
                    fixture.store.release(&holder(number)).await.unwrap();
                }
                fixture.store.sweep(Duration::ZERO).await.unwrap();
                let usage = fixture.store.usage().await.unwrap();
                prop_assert_eq!(Usage { bytes_max: 0, fences: 0, ..usage }, Usage::default());
                prop_assert_eq!((fixture.blobs)(), 0);
                prop_assert_eq!(fixture.store.release(&holder(0)).await.unwrap(), Freed::default());
            }
            Ok(())
        })?;
    }
}
