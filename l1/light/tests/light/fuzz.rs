//! Any bytes are read or refused, never a panic, and what is read is what its encoder writes. The corpus holds whole inputs,
//! cut and damaged at every place.

use assay_l1_light::chain::LightClient;
use assay_l1_light::envelope::{decode, tapscript};
use assay_l1_light::header::Header;
use assay_l1_light::merkle::Path;
use assay_l1_light::message::{Body, Entry, DEPOSIT_KIND, FORCED_KIND};
use assay_l1_light::proof::{ProvenBlock, WholeBlock};
use assay_l1_light::transaction::Transaction;
use assay_l1_light::Hash;
use bitcoin::consensus::encode::serialize;
use proptest::prelude::*;

use super::messages::{leaf, TAG};
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
