//! Decoders of what lies on the chain and in files, on changed encodings: nothing panics, takes more memory than its input
//! allows, or is read as something that its encoder would not have written.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/chain.rs"]
mod chain;
#[path = "common/publish.rs"]
mod publish;

use assay_l1::envelope::message::{ClaimValues, Message};
use assay_l1::envelope::pack::{pack, unpack, Aggregate};
use assay_l1::envelope::scan::{scan_transaction, Assembler};
use assay_l1::envelope::script::{decode, encode};
use assay_l1::envelope::{Codec, Envelope, Kind, Tag, BODY_BYTES_MAX, MESSAGE_BYTES_MAX};
use assay_l1::graph::terms::EpochTerms;
use assay_l1::messages::{MessageQueue, QueueConfig};
use assay_l1::wots::guard::UseGuard;
use assay_l1::wots::KeyId;
use assay_l1::{EpochParams, InProcessRegtest, OperatorSecret, TimeLocks};
use assay_l1_fuzz::{memory, Memory, Target};
use assay_l1_light::message::{Body, Rules};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Script, Sequence, Transaction, TxOut, Txid};
use chain::open_script;
use publish::{leaf, pair, publish, reveal};

#[global_allocator]
static MEMORY: Memory = Memory;

const TAG: Tag = *b"assaytag";
const KINDS: [Kind; 7] =
    [Kind::Batch, Kind::ClaimData, Kind::Forced, Kind::Deposit, Kind::Epoch, Kind::Chunk, Kind::Aggregate];

fn terms() -> EpochTerms {
    let params = EpochParams { start_commitment: [1; 32], code_root: [2; 32], verifier_commitment: [3; 32] };
    let secret = OperatorSecret::from_bytes([0x11; 32]);
    EpochTerms::new(&secret, [8; 32], 0, params, (TimeLocks::REGTEST, 2, Amount::from_sat(100_000)))
}

/// One of each kind, and a batch that is long enough for chunks.
fn messages() -> Vec<Message> {
    let values = ClaimValues {
        prev_commitment: [1; 32],
        new_commitment: [4; 32],
        batch_hash: [5; 32],
        code_root: [2; 32],
        digest: [7; 32],
    };
    let noise: Vec<u8> =
        (0..40u32).flat_map(|index| *blake3::hash(&index.to_le_bytes()).as_bytes()).collect();
    let batch = |data| Message::Batch { epoch: 1, claim: 2, batch_hash: [5; 32], data };
    vec![
        batch(vec![7; 900]),
        batch(noise),
        Message::ClaimData { epoch: 1, claim: 2, values, proof: vec![6; 128] },
        Message::Epoch(Box::new(terms())),
        Message::ToRollup(Body::Forced(vec![7; 700])),
        Message::ToRollup(Body::Deposit { recipient: [8; 20], vout: 1 }),
    ]
}

fn envelopes() -> Vec<Envelope> {
    messages().iter().flat_map(|message| pack(message, 600).unwrap()).collect()
}

#[test]
fn changed_leaf_scripts_are_read_as_what_they_encode_and_as_the_light_client_reads_them() {
    let author = pair(5).x_only_public_key().0;
    let corpus: Vec<Vec<u8>> =
        envelopes().iter().map(|envelope| encode(&author, &TAG, envelope).into_bytes()).collect();
    Target::new("envelope", &corpus).run(|bytes| {
        let light = assay_l1_light::envelope::decode(bytes, &TAG);
        let Some(Ok((author, envelope))) = decode(Script::from_bytes(bytes), &TAG) else {
            // What only the light client reads: a kind that this version does not know, an author that is no point.
            if let Some(Ok(light)) = light {
                let known = KINDS.iter().any(|kind| kind.byte() == light.kind);
                assert!(!known || bitcoin::XOnlyPublicKey::from_slice(&light.author).is_err(), "{light:?}");
            }
            return false;
        };
        assert_eq!(encode(&author, &TAG, &envelope).as_bytes(), bytes);
        let light = light.unwrap().unwrap();
        assert_eq!(light.author, author.serialize());
        assert_eq!((light.kind, light.codec), (envelope.kind.byte(), envelope.codec.byte()));
        assert_eq!((light.plain_len, light.stored), (envelope.plain_len, envelope.stored));
        true
    });
}

/// Kind, then what a body of it is.
fn split(bytes: &[u8]) -> Option<(Kind, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    Some((KINDS.into_iter().find(|known| known.byte() == *kind)?, rest))
}

#[test]
fn changed_messages_are_read_as_what_they_encode_or_refused() {
    let corpus: Vec<Vec<u8>> =
        messages().iter().map(|message| [&[message.kind().byte()], &*message.encode()].concat()).collect();
    Target::new("message", &corpus).run(|bytes| {
        let Some((kind, body)) = split(bytes) else { return false };
        let Ok(message) = Message::decode(kind, body) else { return false };
        assert_eq!((message.kind(), message.encode().as_slice()), (kind, body));
        true
    });
}

#[test]
fn changed_bodies_unpack_to_what_they_announce_or_are_refused() {
    let whole = messages();
    let packed = whole.iter().map(|message| pack(message, BODY_BYTES_MAX).unwrap().remove(0));
    let corpus: Vec<Vec<u8>> = packed
        .map(|envelope| {
            let head = [envelope.kind.byte(), envelope.codec.byte()];
            [&head[..], &envelope.plain_len.to_le_bytes(), &envelope.stored].concat()
        })
        .collect();
    // What a body may take is what it announces, and that is checked here.
    Target::new("body", &corpus).memory(4 * MESSAGE_BYTES_MAX, 0).run(|bytes| {
        let Some((kind, rest)) = split(bytes) else { return false };
        let Some((codec, rest)) = rest.split_first() else { return false };
        let Some((plain_len, stored)) = rest.split_first_chunk() else { return false };
        let codec = if *codec == 0 { Codec::Plain } else { Codec::Zstd };
        let plain_len = u32::from_le_bytes(*plain_len);
        let (message, peak) = memory::peak(|| unpack(kind, codec, plain_len, stored));
        let most = (256 << 10) + 4 * (plain_len as usize).min(MESSAGE_BYTES_MAX) + 4 * stored.len();
        assert!(peak <= most, "{peak} bytes for a body of {plain_len}");
        let Ok(message) = message else { return false };
        assert_eq!(message.encode().len(), plain_len as usize);
        true
    });
}

#[test]
fn changed_aggregates_are_read_as_what_they_encode_or_refused() {
    let corpus: Vec<Vec<u8>> =
        envelopes().into_iter().filter(|one| one.kind == Kind::Aggregate).map(|one| one.stored).collect();
    assert!(!corpus.is_empty());
    let author = pair(5).x_only_public_key().0;
    // The list waits in the assembler for chunks that never come; what is there before a case is not counted.
    let mut assembler = Assembler::new(1 << 16);
    Target::new("aggregate", &corpus).memory(1 << 20, 24).run(|bytes| {
        let Ok(aggregate) = Aggregate::decode(bytes) else { return false };
        assert_eq!(aggregate.encode(), bytes);
        let plain_len = bytes.len() as u32;
        let stored = bytes.to_vec();
        let done = assembler
            .take(author, Envelope { kind: Kind::Aggregate, codec: Codec::Plain, plain_len, stored });
        assert!(done.is_empty());
        true
    });
}

#[test]
fn changed_terms_are_read_as_what_they_encode_or_refused() {
    Target::new("terms", &[terms().encode().to_vec()]).run(|bytes| {
        let Ok(terms) = EpochTerms::decode(bytes) else { return false };
        terms.validate().unwrap();
        assert_eq!(terms.encode().as_slice(), bytes);
        true
    });
}

#[test]
fn changed_transactions_with_envelopes_are_scanned() {
    let author = pair(5);
    let at = |vout: usize| OutPoint::new(Txid::all_zeros(), vout as u32);
    let spends: Vec<_> = envelopes()
        .iter()
        .enumerate()
        .map(|(vout, envelope)| (at(vout), leaf(&author, &TAG, envelope)))
        .collect();
    let back = TxOut { value: Amount::from_sat(1_000), script_pubkey: open_script() };
    let reveal = reveal(&author, &spends, vec![back], Sequence::MAX);
    let corpus = [serialize(&reveal)];
    let whole = envelopes();
    let found = scan_transaction(&reveal, &TAG);
    assert!(found.into_iter().map(|found| found.envelope.unwrap().1).eq(whole.iter().cloned()));
    // The `bitcoin` crate begins a witness with up to 16 MB.
    Target::new("reveal", &corpus).memory(20 << 20, 24).run(|bytes| {
        let Ok(tx) = deserialize::<Transaction>(bytes) else { return false };
        let mut assembler = Assembler::new(1 << 16);
        for found in scan_transaction(&tx, &TAG) {
            let Ok((author, envelope)) = found.envelope else { continue };
            let plain_len = envelope.plain_len as usize;
            for (_, message) in assembler.take(author, envelope) {
                // Chunks and aggregates give messages of a length that they say themselves.
                assert!(message.is_err() || message.unwrap().encode().len() >= plain_len.min(1));
            }
        }
        true
    });
}

#[test]
fn changed_queues_open_as_they_are_kept_or_not_at_all() {
    let root = tempfile::tempdir().unwrap();
    let backend = InProcessRegtest::open(&root.path().join("chain")).unwrap();
    let author = pair(5);
    let rollup: Vec<Envelope> =
        envelopes().into_iter().filter(|envelope| envelope.kind.is_to_rollup()).collect();
    let forced = rollup[0].clone();
    publish(&backend, &author, &TAG, &[forced.clone(), rollup[1].clone(), forced.clone(), forced]);
    let config = || QueueConfig {
        dir: root.path().join("queue"),
        rules: Rules { tag: TAG, peg_in: None },
        start_height: 0,
        finality: 1,
    };
    let path = config().dir.join("messages.json");
    let mut queue = MessageQueue::open(config()).unwrap();
    queue.advance(&backend, u32::MAX, &mut |_| {}).unwrap();
    assert_eq!(queue.waiting().len(), 3);
    let full = std::fs::read(&path).unwrap();
    queue.consume(1).unwrap();
    drop(queue);
    let corpus = [full, std::fs::read(&path).unwrap()];
    Target::new("queue", &corpus).cases(800).run(|bytes| {
        std::fs::write(&path, bytes).unwrap();
        let Ok(mut queue) = MessageQueue::open(config()) else { return false };
        let count = queue.waiting().len();
        if count == 0 || queue.consumed() == u64::MAX {
            return true;
        }
        queue.consume(1).unwrap();
        let kept = (queue.waiting().to_vec(), queue.consumed(), queue.consumed_digest());
        drop(queue);
        let again = MessageQueue::open(config()).unwrap();
        assert_eq!((again.waiting().to_vec(), again.consumed(), again.consumed_digest()), kept);
        true
    });
}

#[test]
fn a_changed_record_of_used_keys_never_lets_a_key_sign_twice_unless_it_says_less() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wots.json");
    let secret = OperatorSecret::from_bytes([5; 32]);
    let id = || KeyId { trunk_id: [7; 32], epoch: 1, claim: 0, value: "digest".into() };
    UseGuard::open(&path).unwrap().sign(&secret, &[(id(), &[1; 32])]).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let name = format!("{}/1/0/digest", hex::encode([7; 32]));
    let corpus = [bytes];
    Target::new("used-keys", &corpus).cases(800).run(|bytes| {
        std::fs::write(&path, bytes).unwrap();
        let Ok(mut guard) = UseGuard::open(&path) else { return false };
        let says = serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        let knows = says["used"].get(&name).is_some();
        let second = guard.sign(&secret, &[(id(), &[2; 32])]);
        // With the hash of the second value in its place it is the second value's key.
        let hash = blake3::hash(&[2; 32]).to_hex();
        assert_eq!(second.is_ok(), !knows || says["used"][&name] == hash.as_str());
        true
    });
}
