//! Messages to the rollup: wire forms, what counts, and the order in which the L2 takes them.

use assay_l1_light::envelope::Tag;
use assay_l1_light::message::{
    scan, Action, Body, Entry, Limits, LimitsError, MessageError, Position, Rules, FORCED_BYTES_MAX,
    MONEY_MAX_SAT,
};
use assay_l1_light::proof::WholeBlock;
use assay_l1_light::Hash;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash as _;
use bitcoin::{
    absolute, transaction, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use proptest::prelude::*;

use super::support::block;

pub(crate) const TAG: Tag = *b"assaytag";
pub(crate) const PEG_IN: [u8; 4] = [0x51, 1, 2, 3];

pub(crate) fn rules() -> Rules {
    Rules { tag: TAG, peg_in: Some(PEG_IN.to_vec()) }
}

/// A leaf script as `l1/README.md` has it, written by hand.
pub(crate) fn leaf(kind: u8, codec: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32).to_le_bytes();
    let mut script =
        [[32].as_slice(), &[0x02; 32], &[0xac, 0, 0x63, 19], &TAG, &[1, kind, codec], &len, &len].concat();
    for chunk in body.chunks(520) {
        match chunk.len() {
            len @ 1..=75 => script.push(len as u8),
            len @ 76..=255 => script.extend([0x4c, len as u8]),
            len => script.extend([0x4d, len as u8, (len >> 8) as u8]),
        }
        script.extend_from_slice(chunk);
    }
    script.push(0x68);
    script
}

pub(crate) fn reveal(scripts: &[Vec<u8>], outputs: &[(u64, &[u8])]) -> Transaction {
    let control = [[0xc0].as_slice(), &[9; 32]].concat();
    let input = |(index, script): (usize, &Vec<u8>)| TxIn {
        previous_output: OutPoint::new(Txid::from_byte_array([8; 32]), index as u32),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[vec![0; 64], script.clone(), control.clone()]),
    };
    let output = |(value, script): &(u64, &[u8])| TxOut {
        value: Amount::from_sat(*value),
        script_pubkey: ScriptBuf::from_bytes(script.to_vec()),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: scripts.iter().enumerate().map(input).collect(),
        output: outputs.iter().map(output).collect(),
    }
}

pub(crate) fn deposit(to: u8, vout: u32) -> Vec<u8> {
    leaf(4, 0, &Body::Deposit { recipient: [to; 20], vout }.encode())
}

fn found(txs: Vec<Transaction>, rules: &Rules) -> Vec<(Position, Result<Action, MessageError>)> {
    let raw = serialize(&block(txs));
    let whole = WholeBlock::decode(&raw).unwrap();
    scan(&whole, 7, rules).into_iter().map(|found| (found.position, found.action)).collect()
}

#[test]
fn messages_are_found_in_order_and_an_output_backs_one_deposit() {
    let first = reveal(
        &[deposit(1, 0), leaf(3, 0, b"signed"), deposit(2, 0), deposit(3, 1), deposit(4, 2), deposit(5, 3)],
        &[(70_000, &PEG_IN), (1, b"other"), (0, &PEG_IN)],
    );
    let second = reveal(&[leaf(1, 0, b"a batch"), leaf(3, 0, &[1; 2_000])], &[(1, b"")]);
    let at = |tx, input| Position { height: 7, tx, input };
    let mint = Action::Mint { recipient: [1; 20], amount_sat: 70_000, vout: 0 };
    let expected = vec![
        (at(1, 0), Ok(mint)),
        (at(1, 1), Ok(Action::Execute(b"signed".to_vec()))),
        (at(1, 2), Err(MessageError::Spent { vout: 0 })),
        (at(1, 3), Err(MessageError::NotPegIn { vout: 1 })),
        (at(1, 4), Err(MessageError::NotPegIn { vout: 2 })),
        (at(1, 5), Err(MessageError::NotPegIn { vout: 3 })),
        (at(2, 1), Ok(Action::Execute(vec![1; 2_000]))),
    ];
    assert_eq!(found(vec![first.clone(), second], &rules()), expected);
    let without = Rules { peg_in: None, ..rules() };
    assert_eq!(found(vec![first.clone()], &without)[0].1, Err(MessageError::NoPegIn));
    assert_eq!(found(vec![first], &Rules { tag: *b"othertag", ..rules() }), vec![]);
}

#[test]
fn what_is_not_in_its_one_form_does_not_count() {
    let one =
        |script: Vec<u8>| found(vec![reveal(&[script], &[(1, &PEG_IN)])], &rules()).remove(0).1.unwrap_err();
    assert_eq!(one(leaf(3, 0, &[])), MessageError::ForcedLength { got: 0 });
    let long = vec![1; FORCED_BYTES_MAX + 1];
    assert_eq!(one(leaf(3, 0, &long)), MessageError::ForcedLength { got: FORCED_BYTES_MAX + 1 });
    assert_eq!(one(leaf(3, 1, b"zstd")), MessageError::Codec);
    assert_eq!(one(leaf(4, 0, &[0; 23])), MessageError::DepositLength { got: 23 });
    assert_eq!(one(leaf(4, 0, &[0; 25])), MessageError::DepositLength { got: 25 });
    let mut padded = leaf(3, 0, b"x");
    padded.push(0x51);
    assert!(matches!(one(padded), MessageError::Envelope(_)));
    // Under another leaf version nobody has run the script: it is no envelope.
    let mut tx = reveal(&[leaf(3, 0, b"x")], &[(1, &PEG_IN)]);
    let items: Vec<Vec<u8>> = tx.input[0].witness.to_vec();
    let control = [[0xc2].as_slice(), &[9; 32]].concat();
    tx.input[0].witness = Witness::from_slice(&[items[0].clone(), items[1].clone(), control]);
    assert_eq!(found(vec![tx], &rules()), vec![]);
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let bytes = prop_oneof![1usize..200, Just(FORCED_BYTES_MAX)];
    let forced = (bytes, any::<u8>()).prop_map(|(len, byte)| Action::Execute(vec![byte; len]));
    let mint = (any::<[u8; 20]>(), 1..=MONEY_MAX_SAT, any::<u32>())
        .prop_map(|(recipient, amount_sat, vout)| Action::Mint { recipient, amount_sat, vout });
    let place = (any::<u32>(), any::<u32>(), any::<u32>(), any::<[u8; 32]>());
    (place, prop_oneof![forced, mint]).prop_map(|((height, tx, input, txid), action)| Entry {
        position: Position { height, tx, input },
        txid: Hash(txid),
        action,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn entries_survive_their_encoding(entries in proptest::collection::vec(any_entry(), 0..5), cut in any::<prop::sample::Index>()) {
        let bytes: Vec<u8> = entries.iter().flat_map(Entry::encode).collect();
        let (mut rest, mut back) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (entry, after) = Entry::decode(rest).unwrap();
            back.push(entry);
            rest = after;
        }
        prop_assert_eq!(&back, &entries);
        if let Some(first) = entries.first() {
            let one = first.encode();
            prop_assert!(Entry::decode(&one[..cut.index(one.len())]).is_err());
        }
    }

    /// Block after block takes from the head: nothing is lost, doubled or passed over, and every block keeps the limits and
    /// could not have taken one more.
    #[test]
    fn blocks_take_the_queue_in_order_within_the_limits(
        entries in proptest::collection::vec(any_entry(), 0..40), messages_max in 1u32..8, more in 0u32..200_000,
    ) {
        let bytes_max = FORCED_BYTES_MAX as u32 + more;
        let limits = Limits::new(messages_max, bytes_max).unwrap();
        let mut queue = entries.as_slice();
        while !queue.is_empty() {
            let taken = limits.head(queue);
            let bytes = |count: usize| queue[..count].iter().map(|entry| entry.action.bytes_len()).sum::<usize>();
            prop_assert!((1..=messages_max as usize).contains(&taken));
            prop_assert!(bytes(taken) <= bytes_max as usize);
            let full = taken == queue.len() || taken == messages_max as usize || bytes(taken + 1) > bytes_max as usize;
            prop_assert!(full);
            queue = &queue[taken..];
        }
        prop_assert_eq!(limits.head(queue), 0);
    }
}

#[test]
fn limits_that_would_stop_the_queue_are_refused() {
    let bytes_max = FORCED_BYTES_MAX as u32;
    assert_eq!(Limits::new(0, bytes_max), Err(LimitsError { messages_max: 0, bytes_max }));
    assert_eq!(Limits::new(1, bytes_max - 1), Err(LimitsError { messages_max: 1, bytes_max: bytes_max - 1 }));
    assert!(Limits::new(1, bytes_max).is_ok());
}
