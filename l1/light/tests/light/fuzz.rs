//! Any bytes are read or refused, never a panic, and what is read is what its encoder writes. The corpus holds whole inputs,
//! cut and damaged at every place, and changed by `assay-l1-fuzz`, which measures the memory that reading takes, too.

use assay_l1_fuzz::{memory, Target};
use assay_l1_light::chain::LightClient;
use assay_l1_light::envelope::{decode, tapscript};
use assay_l1_light::header::Header;
use assay_l1_light::merkle::Path;
use assay_l1_light::message::{scan, Action, Body, Entry, Position, DEPOSIT_KIND, FORCED_KIND};
use assay_l1_light::proof::{ProvenBlock, WholeBlock};
use assay_l1_light::transaction::Transaction;
use assay_l1_light::Hash;
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash as _;
use proptest::prelude::*;

use super::messages::{deposit, leaf, reveal, rules, PEG_IN, TAG};
use super::support::{block, flip, mainnet, mainnet_client};

/// Every decoder of the crate on the same bytes.
fn read_all(bytes: &[u8]) {
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(header.encode().as_slice(), bytes);
    }
    if let Ok(client) = LightClient::decode(bytes) {
        assert_eq!(client.encode(), bytes);
    }
    if let Ok(tx) = Transaction::decode(bytes) {
        assert_eq!(tx.total_len, bytes.len());
    }
    let _ = WholeBlock::decode(bytes);
    if let Ok((entry, rest)) = Entry::decode(bytes) {
        assert_eq!([entry.encode().as_slice(), rest].concat(), bytes);
    }
    for kind in [0, 1, FORCED_KIND, DEPOSIT_KIND, 255] {
        if let Ok(body) = Body::decode(kind, bytes) {
            assert_eq!((body.kind(), body.encode().as_slice()), (kind, bytes));
        }
    }
    if let Some(Ok(envelope)) = decode(bytes, &TAG) {
        if envelope.codec == 0 && envelope.author == [2; 32] {
            assert_eq!(leaf(envelope.kind, 0, &envelope.stored), bytes);
        }
    }
    let items: Vec<&[u8]> = bytes.chunks(34).collect();
    let _ = tapscript(&items);
    let siblings: Vec<Hash> = bytes.chunks_exact(32).map(|chunk| Hash(chunk.try_into().unwrap())).collect();
    let path = Path { index: bytes.len() as u32, siblings };
    let _ = path.root(&Hash::ZERO);
    let _ = ProvenBlock::new(&Hash::ZERO, bytes, &path);
}

fn corpus() -> Vec<Vec<u8>> {
    let whole = block(Vec::new());
    vec![
        mainnet(0).to_vec(),
        mainnet_client(3).encode(),
        serialize(&whole),
        serialize(&whole.txdata[0]),
        leaf(3, 0, &[7; 600]),
        leaf(4, 0, &[7; 24]),
        leaf(1, 0, &[]),
        vec![0; 200],
        vec![0xff; 200],
    ]
}

#[test]
fn the_corpus_cut_and_damaged_anywhere_is_read_or_refused() {
    for bytes in corpus() {
        read_all(&bytes);
        for len in 0..bytes.len() {
            read_all(&bytes[..len]);
            read_all(&flip(&bytes, len * 8 + len % 8));
            let mut large = bytes.clone();
            large[len] = 0xff;
            read_all(&large);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        read_all(&bytes);
    }

    #[test]
    fn any_tail_after_a_good_head_is_read_or_refused(
        pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
        tail in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let corpus = corpus();
        let head = pick.get(&corpus);
        read_all(&[&head[..at.index(head.len())], &tail].concat());
    }
}

#[test]
fn changed_clients_are_read_as_what_they_encode_or_refused() {
    let corpus: Vec<Vec<u8>> = (0..4).map(|count| mainnet_client(count).encode()).collect();
    // A header's context has three times its bytes.
    Target::new("light-client", &corpus).run(|bytes| {
        let Ok(client) = LightClient::decode(bytes) else { return false };
        assert_eq!(client.encode(), bytes);
        true
    });
}

#[test]
fn changed_transactions_are_read_as_the_bitcoin_crate_reads_them() {
    let witness = reveal(&[leaf(3, 0, b"signed"), deposit(2, 0)], &[(70_000, &PEG_IN), (1, b"other")]);
    let mut bare = witness.clone();
    bare.input.iter_mut().for_each(|input| input.witness.clear());
    let corpus = [witness, bare, block(Vec::new()).txdata.remove(0)].map(|tx| serialize(&tx));
    // The `bitcoin` crate begins a witness with up to 16 MB.
    Target::new("light-transaction", &corpus).memory(20 << 20, 24).run(|bytes| {
        let (own, peak) = memory::peak(|| Transaction::decode(bytes));
        assert!(peak <= 24 * bytes.len(), "{peak} bytes for {}", bytes.len());
        let other: Result<bitcoin::Transaction, _> = deserialize(bytes);
        let Ok(tx) = own else {
            // One without inputs is none here.
            assert!(other.is_err() || other.unwrap().input.is_empty(), "{own:?}");
            return false;
        };
        let other = other.unwrap();
        assert_eq!(tx.txid.0, other.compute_txid().to_byte_array());
        assert_eq!(tx.wtxid.0, other.compute_wtxid().to_byte_array());
        assert_eq!((tx.total_len, tx.stripped_len), (other.total_size(), other.base_size()));
        true
    });
}

#[test]
fn changed_blocks_are_read_with_all_their_messages_or_refused() {
    let txs = vec![
        reveal(&[deposit(1, 0), leaf(3, 0, b"signed")], &[(70_000, &PEG_IN)]),
        reveal(&[leaf(1, 0, b"a batch")], &[(1, b"")]),
    ];
    let corpus = [serialize(&block(txs)), serialize(&block(Vec::new()))];
    Target::new("light-block", &corpus).run(|bytes| {
        let Ok(whole) = WholeBlock::decode(bytes) else { return false };
        // Everything but the header is held by the roots in it.
        let block: bitcoin::Block = deserialize(bytes).unwrap();
        assert_eq!(serialize(&block), bytes);
        let found = scan(&whole, 7, &rules());
        assert_eq!(found.len(), if block.txdata.len() == 1 { 0 } else { 2 });
        true
    });
}

#[test]
fn changed_entries_are_read_as_what_they_encode_or_refused() {
    let position = Position { height: 7, tx: 1, input: 2 };
    let entry = |action| Entry { position, txid: Hash([8; 32]), action }.encode();
    let corpus = [
        entry(Action::Execute(vec![7; 100])),
        entry(Action::Execute(vec![7; 1])),
        entry(Action::Mint { recipient: [9; 20], amount_sat: 70_000, vout: 1 }),
    ];
    Target::new("light-entry", &corpus).run(|bytes| {
        let Ok((entry, rest)) = Entry::decode(bytes) else { return false };
        assert_eq!([entry.encode().as_slice(), rest].concat(), bytes);
        true
    });
}

#[test]
fn changed_envelopes_are_read_as_what_they_are_or_refused() {
    let corpus = [
        leaf(3, 0, &[7; 600]),
        leaf(3, 0, &[7; 521]),
        leaf(4, 0, &[7; 24]),
        leaf(2, 0, &[7; 200]),
        leaf(1, 0, &[]),
    ];
    Target::new("light-envelope", &corpus).run(|bytes| {
        let Some(Ok(envelope)) = decode(bytes, &TAG) else { return false };
        let mut again = leaf(envelope.kind, envelope.codec, &envelope.stored);
        // The helper writes one author, and one length twice.
        again[1..33].copy_from_slice(&envelope.author);
        again[48..52].copy_from_slice(&envelope.plain_len.to_le_bytes());
        assert_eq!(again, bytes);
        true
    });
}
