//! A signer whose directory fails, or whose machine panics, says nothing any more: memory may be ahead of the disk.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/tiny.rs"]
mod tiny;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::time::Duration;

use assay_l1::StoreError;
use assay_l1_signer::channel::{Channel, ChannelError, Message};
use assay_l1_signer::identity::Identity;
use assay_l1_signer::machine::SignerMachine;
use assay_l1_signer::serve::{serve, Engine, ServeError};
use assay_l1_signer::store::Store;
use assay_l1_signer::wire::message::{Reply, Request};
use futures::future::join_all;
use tiny::{identity, Tiny, TRUNK};
use tokio::net::TcpListener;

const KEY: Request = Request::Key { trunk_id: TRUNK, epoch: 0 };
const STATUS: Request = Request::Status { trunk_id: TRUNK, epoch: 0 };

fn signer() -> Identity {
    identity(11)
}

fn operator() -> Identity {
    identity(90)
}

fn engine(dir: &Path) -> Engine<Tiny> {
    let (store, stored) = Store::open(dir).unwrap();
    let everyone = (11..14).map(|byte| identity(byte).id());
    Engine::start(SignerMachine::load(signer(), everyone, TRUNK, Tiny, stored), store).unwrap()
}

fn message(request: &Request) -> Message {
    Message { round: request.round(), session: request.session(), body: request.encode() }
}

fn reply(answer: &Message) -> Reply {
    Reply::decode(&answer.body).unwrap()
}

/// The disk takes no key of epoch 0 until this directory is gone again.
fn obstacle(dir: &Path) -> std::path::PathBuf {
    let obstacle = dir.join("epoch-0.key.new");
    std::fs::create_dir(&obstacle).unwrap();
    obstacle
}

fn is_dead(engine: &mut Engine<Tiny>) {
    let mut garbage = message(&STATUS);
    garbage.body.clear();
    let mut misplaced = message(&STATUS);
    misplaced.round += 1;
    for message in [message(&KEY), message(&STATUS), garbage, misplaced] {
        let answer = engine.answer(&message);
        assert!(matches!(answer, Err(ServeError::Dead)), "{answer:?}");
    }
}

#[test]
fn a_machine_whose_disk_failed_once_answers_nothing_even_if_the_disk_works_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut failing = engine(dir.path());
    assert!(matches!(reply(&failing.answer(&message(&STATUS)).unwrap()), Reply::Status { .. }));
    let obstacle = obstacle(dir.path());
    let failed = failing.answer(&message(&KEY));
    assert!(matches!(failed, Err(ServeError::Store(StoreError::Storage { .. }))), "{failed:?}");
    std::fs::remove_dir(obstacle).unwrap();
    // Its memory has a key that no disk has: who heard of it would wait for ever for its signatures.
    is_dead(&mut failing);
    drop(failing);
    assert!(matches!(reply(&engine(dir.path()).answer(&message(&KEY)).unwrap()), Reply::Key(_)));
}

#[test]
fn a_machine_that_panicked_once_answers_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut panicking = engine(dir.path());
    // The tests' reviewer panics over less than an epoch's number.
    let short = message(&Request::Propose { proposal: vec![1] });
    catch_unwind(AssertUnwindSafe(|| panicking.answer(&short))).unwrap_err();
    is_dead(&mut panicking);
}

#[test]
fn refusals_leave_the_machine_alive() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = engine(dir.path());
    let elsewhere = Request::Status { trunk_id: [0; 32], epoch: 0 };
    let misplaced = Message { round: 9, ..message(&STATUS) };
    let garbage = Message { body: vec![77], ..message(&STATUS) };
    for bad in [message(&elsewhere), misplaced, garbage] {
        let refused = reply(&engine.answer(&bad).unwrap());
        assert!(matches!(refused, Reply::Refused { .. }), "{refused:?}");
        assert!(matches!(reply(&engine.answer(&message(&STATUS)).unwrap()), Reply::Status { .. }));
    }
}

async fn ask(channel: &mut Channel, request: &Request) -> Result<Message, ChannelError> {
    channel.send(&message(request)).await?;
    channel.receive(Duration::from_secs(60)).await
}

/// Several connections to a signer of which one request fails: why it ended. Nobody may get an answer.
async fn failing(dir: &Path, request: Request) -> ServeError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = tokio::spawn(serve(listener, signer(), operator().id(), engine(dir)));
    let mut channels = Vec::new();
    for _ in 0..8 {
        let mut channel = Channel::connect(&address, &operator(), signer().id()).await.unwrap();
        let status = ask(&mut channel, &STATUS).await.unwrap();
        assert!(matches!(reply(&status), Reply::Status { .. }));
        channels.push(channel);
    }
    let _obstacle = obstacle(dir);
    let (last, together) = channels.split_last_mut().unwrap();
    for answer in join_all(together.iter_mut().map(|channel| ask(channel, &request))).await {
        let got = answer.map(|answer| reply(&answer));
        assert!(matches!(got, Err(ChannelError::Closed | ChannelError::Io(_))), "{got:?}");
    }
    let why = served.await.unwrap().unwrap_err();
    for request in [&STATUS, &KEY] {
        let got = ask(last, request).await.map(|answer| reply(&answer));
        assert!(matches!(got, Err(ChannelError::Closed | ChannelError::Io(_))), "{got:?}");
    }
    why
}

#[tokio::test]
async fn no_connection_gets_an_answer_after_the_directory_failed() {
    let dir = tempfile::tempdir().unwrap();
    let why = failing(dir.path(), KEY).await;
    assert!(matches!(why, ServeError::Store(StoreError::Storage { .. })), "{why:?}");
}

#[tokio::test]
async fn no_connection_gets_an_answer_after_the_machine_panicked() {
    let dir = tempfile::tempdir().unwrap();
    let why = failing(dir.path(), Request::Propose { proposal: vec![1] }).await;
    assert!(matches!(why, ServeError::Panic(_)), "{why:?}");
}
