//! Decoders of what comes from other parties and from files, on changed encodings: nothing panics, takes more memory than its input
//! allows, or is read as something that its encoder would not have written.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/epoch.rs"]
mod epoch;

use std::io::{Read, Write};
use std::net::Shutdown;

use assay_l1::graph::contract::build::{EpochEnd, Graph, Start};
use assay_l1_fuzz::{memory, Memory, Mutator, Target};
use assay_l1_signer::channel::Channel;
use assay_l1_signer::handover::{Place, Report};
use assay_l1_signer::machine::Record;
use assay_l1_signer::peers::{Peer, Peers};
use assay_l1_signer::policy::Policy;
use assay_l1_signer::review::member_keys;
use assay_l1_signer::signatures::SignatureSet;
use assay_l1_signer::statement::{Kind, Statement};
use assay_l1_signer::wire::message::{Reply, Request};
use assay_l1_signer::wire::proposal::{decode_end, encode_end, GraphProposal};
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};
use epoch::{identity, policy, signers, spec_and_keys, statements, valid, ANNOUNCE, TRUNK};
use tokio::net::TcpListener;

#[global_allocator]
static MEMORY: Memory = Memory;

fn funding(byte: u8) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([byte; 32]), 1)
}

/// A first epoch, and the proposal of a second one.
fn two_epochs() -> (Graph, GraphProposal) {
    let policy = policy(1);
    let (spec, keys) = spec_and_keys(&policy, 1, funding(5));
    let before = spec_and_keys(&policy, 0, funding(6));
    let first = epoch::build(&before.0, &before.1, None, spec.id());
    let graph = epoch::build(&spec, &keys, Some(first.end()), ANNOUNCE);
    let proposal = GraphProposal {
        spec,
        attesters: statements(1),
        previous: Some(first.end().clone()),
        before: statements(0),
        graph: graph.proposal(&keys),
    };
    (first, proposal)
}

#[test]
fn changed_graphs_are_read_as_what_they_encode_or_refused() {
    let corpus = [valid(&policy(1), funding(5)).0, two_epochs().1].map(|proposal| proposal.encode().unwrap());
    // The `bitcoin` crate begins a witness with up to 16 MB.
    Target::new("graph", &corpus).cases(6_000).memory(20 << 20, 24).run(|bytes| {
        let Ok(proposal) = GraphProposal::decode(bytes) else { return false };
        assert_eq!(proposal.encode().unwrap(), bytes);
        // What a signer asks of it before it builds a graph.
        let _ = policy(1).difference(&proposal.spec);
        let _ = proposal.spec.validate();
        let _ = proposal.spec.id();
        let _ = member_keys(&proposal.attesters, &signers(), (&TRUNK, 0));
        true
    });
}

#[test]
fn changed_ends_of_epochs_are_read_as_what_they_encode_or_refused() {
    let (first, _) = two_epochs();
    let announced = first.end().clone();
    let halted = first.halted_at(0, Start::Commitment([4; 32])).unwrap();
    let corpus = [encode_end(&announced), encode_end(&halted), encode_end(&EpochEnd { epoch: 9, ..halted })];
    // A leaf of 5 bytes is a hash and a script of its own.
    Target::new("end", &corpus).memory(256 << 10, 64).run(|bytes| {
        let Ok(end) = decode_end(bytes) else { return false };
        assert_eq!(encode_end(&end), bytes);
        true
    });
}

fn statement(kind: Kind, body: &[u8]) -> Statement {
    Statement::new(&identity(9), kind, [3; 32], 7, body.to_vec())
}

#[test]
fn changed_requests_are_read_as_what_they_encode_or_refused() {
    let nonces = vec![statement(Kind::Nonces, &[1; 132]), statement(Kind::Nonces, &[2; 66])];
    let corpus = [
        Request::Key { trunk_id: TRUNK, epoch: 1 },
        Request::Status { trunk_id: TRUNK, epoch: 1 },
        Request::Propose { proposal: vec![7; 300] },
        Request::Open { graph: [4; 32], first_chunk: 2 },
        Request::Commits { commits: vec![statement(Kind::Commit, &[5; 64])] },
        Request::Reveal { session: [5; 32], chunk: 3 },
        Request::Sign { session: [5; 32], chunk: 3, nonces },
        Request::Final { epoch: 1, graph: [4; 32], signatures: vec![[6; 64]; 5] },
        Request::Fetch { epoch: 1 },
    ]
    .map(|request| request.encode());
    Target::new("request", &corpus).run(|bytes| {
        let Ok(request) = Request::decode(bytes) else { return false };
        assert_eq!(request.encode(), bytes);
        true
    });
}

#[test]
fn changed_replies_are_read_as_what_they_encode_or_refused() {
    let keys = statements(0).remove(0);
    assert!(keys.epoch_keys().is_some());
    let corpus = [
        Reply::Key(keys),
        Reply::Status { graph: None, finished: false },
        Reply::Status { graph: Some([4; 32]), finished: true },
        Reply::Accepted { graph: [4; 32], requests: 40 },
        Reply::Opened(statement(Kind::Commit, &[5; 64])),
        Reply::Committed { session: [5; 32] },
        Reply::Nonces(statement(Kind::Nonces, &[1; 132])),
        Reply::Partials(statement(Kind::Partials, &[1; 64])),
        Reply::Finished { graph: [4; 32] },
        Reply::Signatures { graph: [4; 32], signatures: vec![[6; 64]; 5] },
        Reply::refused(true, &"köstlich: a new session"),
    ]
    .map(|reply| reply.encode());
    Target::new("reply", &corpus).run(|bytes| {
        let Ok(reply) = Reply::decode(bytes) else { return false };
        assert_eq!(reply.encode(), bytes);
        if let Reply::Key(statement) = &reply {
            let _ = statement.epoch_keys();
            let _ = statement.holds(Kind::EpochKey, &[3; 32], 7);
        }
        true
    });
}

#[test]
fn changed_signature_files_are_read_as_what_they_encode_or_refused() {
    let set =
        |count: u8| SignatureSet { graph: [3; 32], signatures: (0..count).map(|at| [at; 64]).collect() };
    // Without their checksum, which any change would break.
    let corpus = [0, 1, 7].map(|count| {
        let bytes = set(count).encode();
        bytes[..bytes.len() - 32].to_vec()
    });
    Target::new("signatures", &corpus).run(|bytes| {
        assert!(SignatureSet::decode(bytes).is_err(), "it has no checksum");
        let sealed = [bytes, blake3::hash(bytes).as_bytes()].concat();
        let Ok(set) = SignatureSet::decode(&sealed) else { return false };
        assert_eq!(set.encode(), sealed);
        true
    });
}

#[test]
fn changed_policies_and_peers_are_taken_whole_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.toml");
    let peer = |byte: u8| Peer {
        name: format!("signer {byte}"),
        key: identity(byte).id(),
        address: "127.0.0.1:7341".to_owned(),
    };
    let peers = Peers { operator: identity(9).id(), signers: vec![peer(11), peer(12)] };
    let policies = [toml::to_string(&policy(1)).unwrap().into_bytes()];
    Target::new("policy", &policies).cases(5_000).memory(1 << 20, 256).run(|bytes| {
        std::fs::write(&path, bytes).unwrap();
        let Ok(policy) = Policy::load(&path) else { return false };
        policy.validate().unwrap();
        std::fs::write(&path, toml::to_string(&policy).unwrap()).unwrap();
        assert_eq!(
            toml::to_string(&Policy::load(&path).unwrap()).unwrap(),
            toml::to_string(&policy).unwrap()
        );
        true
    });
    let peers = [toml::to_string(&peers).unwrap().into_bytes()];
    Target::new("peers", &peers).cases(5_000).memory(1 << 20, 256).run(|bytes| {
        std::fs::write(&path, bytes).unwrap();
        let Ok(peers) = Peers::load(&path) else { return false };
        std::fs::write(&path, toml::to_string(&peers).unwrap()).unwrap();
        assert_eq!(Peers::load(&path).unwrap(), peers);
        true
    });
}

#[test]
fn changed_records_and_reports_are_read_as_what_they_say_or_refused() {
    let (first, _) = two_epochs();
    let record = Record { graph: [3; 32], end: encode_end(first.end()), finished: true };
    let records = [serde_json::to_vec(&record).unwrap()];
    Target::new("record", &records).run(|bytes| {
        let Ok(record) = serde_json::from_slice::<Record>(bytes) else { return false };
        let again: Record = serde_json::from_slice(&serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!(again, record);
        let _ = decode_end(&record.end);
        true
    });
    let place = |claim| Place { place: 0, epoch: 0, claim };
    let report = Report { stopped_before: place(2), goes_on_at: place(1) };
    let reports = [serde_json::to_vec_pretty(&report).unwrap()];
    Target::new("report", &reports).run(|bytes| {
        let Ok(report) = serde_json::from_slice::<Report>(bytes) else { return false };
        let again: Report = serde_json::from_slice(&serde_json::to_vec(&report).unwrap()).unwrap();
        assert_eq!(again, report);
        // Claims that no epoch has are none.
        let epoch = [report.goes_on_at.claim, report.stopped_before.claim].map(|claim| first.start(claim));
        if let [Some(start), _] = epoch {
            let _ = first.halted_at(report.stopped_before.claim, start.clone());
        }
        true
    });
}

#[test]
fn changed_greetings_open_no_channel_and_take_no_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let frame = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
    let hello = frame(&[b"ASCH\x01".as_slice(), &identity(9).id().0, &[4; 32]].concat());
    let greeting = [hello, frame(&[7; 64])].concat();
    let (mut mutator, mut welcomes) = (Mutator::new(1, 4_096), 0);
    for case in 0..1_000 {
        let mut bytes = greeting.clone();
        mutator.mutate(&mut bytes, std::slice::from_ref(&greeting));
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client.write_all(&bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (stream, _) = runtime.block_on(listener.accept()).unwrap();
        let accept = || runtime.block_on(Channel::accept(stream, &identity(11), |_| true));
        let (channel, peak) = memory::peak(accept);
        // The signature is of no channel: the server's nonce is new each time.
        assert!(channel.is_err(), "case {case}: {bytes:?}");
        assert!(peak < 64 << 10, "case {case}: {peak} bytes for {bytes:?}");
        let mut answer = Vec::new();
        // A server that has not read all resets the connection.
        welcomes += usize::from(client.read_to_end(&mut answer).is_ok() && answer.len() == 4 + 128);
    }
    assert!((10..990).contains(&welcomes), "{welcomes} greetings were understood");
}
