//! Forced transactions and deposits on the in-process chain: what is queued, and that no reorganisation or restart changes it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/chain.rs"]
mod chain;
#[path = "common/publish.rs"]
mod publish;

use std::path::Path;
use std::sync::Arc;

use assay_l1::envelope::message::Message;
use assay_l1::envelope::pack::pack;
use assay_l1::envelope::{Envelope, Tag, BODY_BYTES_MAX};
use assay_l1::messages::{MessageQueue, Progress, QueueConfig, QueueError};
use assay_l1::{BitcoinBackend, InProcessRegtest};
use assay_l1_light::chain::{Depths, LightClient};
use assay_l1_light::envelope as light_envelope;
use assay_l1_light::header::Header;
use assay_l1_light::message::{Action, Body, Entry, Limits, MessageError, Rules, FORCED_BYTES_MAX};
use assay_l1_light::params::Network;
use assay_l1_light::proof::{ProvenBlock, WholeBlock};
use bitcoin::consensus::encode::serialize;
use bitcoin::{Amount, Block, BlockHash, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxOut};
use chain::open_script;
use proptest::prelude::*;
use publish::{fund, leaf, pair, reveal};

const TAG: Tag = *b"assaytag";
const FINALITY: u32 = 3;

fn peg_in() -> ScriptBuf {
    ScriptBuf::new_p2tr_tweaked(bitcoin::key::TweakedPublicKey::dangerous_assume_tweaked(
        pair(0x77).x_only_public_key().0,
    ))
}

fn rules() -> Rules {
    Rules { tag: TAG, peg_in: Some(peg_in().into_bytes()) }
}

fn config(dir: &Path) -> QueueConfig {
    QueueConfig { dir: dir.to_owned(), rules: rules(), start_height: 0, finality: FINALITY }
}

fn envelope(body: Body) -> Envelope {
    pack(&Message::ToRollup(body), BODY_BYTES_MAX).unwrap().remove(0)
}

fn forced(byte: u8, len: usize) -> Body {
    Body::Forced(vec![byte; len])
}

fn queue(dir: &Path) -> MessageQueue {
    MessageQueue::open(config(dir)).unwrap()
}

fn advance(queue: &mut MessageQueue, backend: &dyn BitcoinBackend) -> Result<Progress, QueueError> {
    queue.advance(backend, u32::MAX, &mut |_| {})
}

/// A queue that has read the whole chain from the start.
fn from_scratch(backend: &dyn BitcoinBackend) -> Vec<Entry> {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = queue(dir.path());
    assert!(advance(&mut queue, backend).unwrap().is_complete);
    queue.waiting().to_vec()
}

/// Transactions that each say one thing to the rollup, spending outputs of one mined transaction.
fn messages(backend: &dyn BitcoinBackend, count: u8) -> Vec<Transaction> {
    let author = pair(0x21);
    let body = |index: u8| match index % 3 {
        0 => Body::Deposit { recipient: [index; 20], vout: 0 },
        _ => forced(index, 10 + usize::from(index)),
    };
    let spends: Vec<_> = (0..count).map(|index| leaf(&author, &TAG, &envelope(body(index)))).collect();
    let commit = fund(backend, spends.iter().map(|spend| spend.txout.clone()).collect()).compute_txid();
    let numbered = spends.into_iter().enumerate();
    numbered
        .map(|(vout, spend)| {
            let output = TxOut { value: Amount::from_sat(40_000 + vout as u64), script_pubkey: peg_in() };
            reveal(&author, &[(OutPoint::new(commit, vout as u32), spend)], vec![output], Sequence::MAX)
        })
        .collect()
}

#[test]
fn final_messages_are_queued_in_order_and_taken_by_the_light_clients_rule() {
    let (chain_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backend = InProcessRegtest::open(chain_dir.path()).unwrap();
    let miner = backend.miner().unwrap();
    let txs = messages(&backend, 7);
    let refused = {
        // A deposit whose output pays someone else.
        let spend = leaf(&pair(1), &TAG, &envelope(Body::Deposit { recipient: [1; 20], vout: 0 }));
        let commit = fund(&backend, vec![spend.txout.clone()]).compute_txid();
        let output = TxOut { value: Amount::from_sat(1_000), script_pubkey: open_script() };
        reveal(&pair(1), &[(OutPoint::new(commit, 0), spend)], vec![output], Sequence::MAX)
    };
    let tip = backend.tip().unwrap().height;
    miner.mine_exactly(&[txs[3].clone(), refused, txs[1].clone()], &open_script()).unwrap();
    miner.mine_exactly(&[txs[0].clone()], &open_script()).unwrap();
    let mut queue = queue(dir.path());
    advance(&mut queue, &backend).unwrap();
    assert_eq!(queue.waiting(), [], "two confirmations are not final");
    miner.mine(1, &open_script()).unwrap();
    let mut refusals = Vec::new();
    let progress = queue.advance(&backend, u32::MAX, &mut |refused| refusals.push(refused)).unwrap();
    assert_eq!(progress, Progress { height: Some(tip + 1), is_complete: true });
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].error, MessageError::NotPegIn { vout: 0 });
    let expected =
        [Action::Mint { recipient: [3; 20], amount_sat: 40_003, vout: 0 }, Action::Execute(vec![1; 11])];
    let actions = |queue: &MessageQueue| -> Vec<Action> {
        queue.waiting().iter().map(|entry| entry.action.clone()).collect()
    };
    assert_eq!(actions(&queue), expected);
    let positions: Vec<_> =
        queue.waiting().iter().map(|entry| (entry.position.height, entry.position.tx)).collect();
    assert_eq!(positions, [(tip + 1, 1), (tip + 1, 3)]);
    miner.mine(1, &open_script()).unwrap();
    advance(&mut queue, &backend).unwrap();
    assert_eq!(queue.waiting().len(), 3);

    let limits = Limits::new(2, FORCED_BYTES_MAX as u32).unwrap();
    assert_eq!(queue.head(&limits), &queue.waiting()[..2]);
    let digest =
        queue.waiting()[..2].iter().fold(assay_l1_light::Hash::ZERO, |digest, entry| entry.digest(&digest));
    queue.consume(2).unwrap();
    assert_eq!((queue.consumed(), queue.consumed_digest()), (2, digest));
    let left = queue.waiting().to_vec();
    assert!(matches!(queue.consume(2), Err(QueueError::TooMany { count: 2, waiting: 1 })));
    drop(queue);
    let mut queue = self::queue(dir.path());
    assert_eq!((queue.waiting(), queue.consumed(), queue.consumed_digest()), (left.as_slice(), 2, digest));
    assert!(advance(&mut queue, &backend).unwrap().is_complete);
    assert_eq!(queue.waiting(), left, "nothing comes twice");
    assert!(matches!(MessageQueue::open(config(dir.path())), Err(QueueError::Locked { .. })));
    drop(queue);
    let other = QueueConfig { finality: 4, ..config(dir.path()) };
    assert!(matches!(MessageQueue::open(other), Err(QueueError::Config { field: "finality" })));
    std::fs::write(dir.path().join("messages.json"), "{").unwrap();
    assert!(matches!(MessageQueue::open(config(dir.path())), Err(QueueError::Store(_))));
}

/// A block on `parent`, one second later, submitted.
fn extend(chain: &InProcessRegtest, parent: &Block, height: u32, salt: u32, txs: &[Transaction]) -> Block {
    let script = ScriptBuf::from_bytes(vec![0x51, 0x02, salt as u8, (salt >> 8) as u8]);
    let time = parent.header.time + 1;
    let block = InProcessRegtest::assemble_block(parent.block_hash(), height, time, &script, txs);
    chain.submit_block(&block).unwrap();
    block
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Branches of any depth and length, restarts, consumption: what waits is what a scan from scratch has behind the
    /// consumed messages; the queue stops only where a consumed message is gone.
    #[test]
    fn after_any_reorganisations_the_queue_is_that_of_a_scan_from_scratch(
        steps in proptest::collection::vec((0u32..8, 1u32..6, any::<u32>(), 0usize..3, any::<bool>()), 1..14),
    ) {
        let (chain_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let chain = InProcessRegtest::open(chain_dir.path()).unwrap();
        let txs = messages(&chain, 24);
        let base = chain.tip().unwrap().height;
        let mut branch = vec![chain.block(&chain.tip().unwrap().hash).unwrap()];
        let mut queue = queue(dir.path());
        let mut consumed: Vec<Entry> = Vec::new();
        for (salt, (back, length, pick, consume, restart)) in steps.into_iter().enumerate() {
            let keep = branch.len() - (back as usize).min(branch.len() - 1);
            let undone = branch.len() - keep;
            let mut new = branch[..keep].to_vec();
            for step in 0..undone as u32 + length {
                let used = |tx: &&Transaction| !new.iter().any(|block: &Block| block.txdata.contains(tx));
                let count = (pick >> (2 * (step % 16)) & 3) as usize;
                let free: Vec<Transaction> = txs.iter().skip(pick as usize % 7).filter(used).take(count).cloned().collect();
                let height = base + new.len() as u32;
                let block = extend(&chain, new.last().unwrap(), height, salt as u32 * 64 + step, &free);
                new.push(block);
            }
            branch = new;
            prop_assert_eq!(chain.tip().unwrap().hash, branch.last().unwrap().block_hash());
            if restart {
                drop(queue);
                queue = self::queue(dir.path());
            }
            let scratch = from_scratch(&chain);
            match advance(&mut queue, &chain) {
                Ok(progress) => {
                    prop_assert!(progress.is_complete);
                    prop_assert_eq!(queue.waiting(), scratch.get(consumed.len()..).unwrap_or_default());
                }
                Err(error) => {
                    prop_assert!(matches!(error, QueueError::Consumed { .. }), "{}", error);
                    // On the whole active chain, final or not, the consumed messages are not first any more.
                    prop_assert!(!scratch.starts_with(&consumed));
                    return Ok(());
                }
            }
            let count = consume.min(queue.waiting().len());
            consumed.extend_from_slice(&queue.waiting()[..count]);
            queue.consume(count).unwrap();
        }
    }

    /// The guest's reader of envelopes and this crate's agree on any bytes.
    #[test]
    fn the_light_clients_envelopes_are_those_of_this_crate(
        kind in 0usize..6, len in prop_oneof![0usize..600, 1_000usize..1_700], at: prop::sample::Index, flip: u8, cut: prop::sample::Index,
    ) {
        let bodies = [
            Message::ToRollup(forced(9, len.max(1))),
            Message::ToRollup(Body::Deposit { recipient: [4; 20], vout: 3 }),
            Message::Batch { epoch: 1, claim: 2, batch_hash: [3; 32], data: vec![7; len] },
        ];
        let packed = pack(&bodies[kind % 3], if kind < 3 { BODY_BYTES_MAX } else { 120 }).unwrap();
        for envelope in packed {
            let author = pair(5).x_only_public_key().0;
            let good = assay_l1::envelope::script::encode(&author, &TAG, &envelope).to_bytes();
            let mut damaged = good.clone();
            let at = at.index(good.len());
            damaged[at] ^= flip;
            for script in [good.as_slice(), &damaged, &good[..cut.index(good.len())]] {
                let ours = assay_l1::envelope::script::decode(Script::from_bytes(script), &TAG);
                let light = light_envelope::decode(script, &TAG);
                match (ours, light) {
                    (Some(Ok((author, ours))), Some(Ok(light))) => {
                        prop_assert_eq!(author.serialize(), light.author);
                        prop_assert_eq!((ours.kind.byte(), ours.codec.byte()), (light.kind, light.codec));
                        prop_assert_eq!((ours.plain_len, ours.stored), (light.plain_len, light.stored));
                    }
                    (None, None) | (Some(Err(_)), Some(Err(_))) => {}
                    // Types are not the light reader's business, and it cannot tell a key from a point off the curve.
                    (Some(Err(assay_l1::envelope::EnvelopeError::Kind { .. })), Some(Ok(_))) => {}
                    (None, Some(_)) if (1..33).contains(&at) => {}
                    (ours, light) => prop_assert!(false, "{:?} {:?}", ours, light),
                }
            }
        }
    }
}

/// The chain that Core's consensus code validates is the one that the light client follows, and what the queue holds can be
/// proved to it.
#[test]
fn a_queued_message_is_proved_to_a_light_client() {
    let chain_dir = tempfile::tempdir().unwrap();
    let backend: Arc<dyn BitcoinBackend> = Arc::new(InProcessRegtest::open(chain_dir.path()).unwrap());
    let txs = messages(backend.as_ref(), 5);
    let block = backend.miner().unwrap().mine_exactly(&txs, &open_script()).unwrap();
    backend.miner().unwrap().mine(FINALITY - 1, &open_script()).unwrap();
    let depths = Depths { finality: FINALITY, keep: 50 };
    let mut client = LightClient::from_genesis(Network::Regtest, depths).unwrap();
    let tip = backend.tip().unwrap();
    for height in 1..=tip.height {
        let block = backend.block(&backend.block_hash(height).unwrap()).unwrap();
        client.accept(&Header::decode(&serialize(&block.header)).unwrap(), None).unwrap();
    }
    assert_eq!(client.tip().hash.0, hash_bytes(tip.hash));
    let raw = serialize(&backend.block(&block).unwrap());
    let whole = WholeBlock::decode(&raw).unwrap();
    let context = client.final_block_with(&whole.header.hash()).expect("final");
    let coinbase = serialize(&backend.block(&block).unwrap().txdata[0]);
    let proven = ProvenBlock::new(&context.merkle_root, &coinbase, &whole.paths(0).unwrap().0).unwrap();
    for (index, tx) in txs.iter().enumerate() {
        let (path, witness) = whole.paths(index as u32 + 1).unwrap();
        let raw = serialize(tx);
        let proved = proven.prove_witness(&raw, &path, &witness.siblings).unwrap();
        let place = (context.height, path.index);
        let found = assay_l1_light::message::scan_transaction(&proved, place, &rules());
        assert_eq!((found.len(), found[0].position.tx), (1, index as u32 + 1));
        assert!(found[0].action.is_ok());
    }
}

fn hash_bytes(hash: BlockHash) -> [u8; 32] {
    use bitcoin::hashes::Hash;
    hash.to_byte_array()
}
