//! Batches: the sample executes, runs join, and everything wrong with a batch is named.

use alloy_consensus::TxLegacy;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{keccak256, Bytes, TxKind, B256, U256};
use assay_lvm::{
    batch::{blocks_of, hash_of_data, GAS_MAX},
    core::{
        accumulate, execute_run, fold, Block, BlockAttributes, BlockProgram, BlockPublicValues, ChainSpec,
        CodeControlGroup, FoldInput, HeaderError, History, Phase, PhaseSink, RunClaim, RunInput, StfError,
        VkHash, GENESIS_LEAF,
    },
    genesis, sample, Batch, BatchError, Chain, OwnedAncestry, RunLimits,
};
use proptest::prelude::*;

const SMALL_RUNS: RunLimits = RunLimits { gas_max: u64::MAX, blocks_max: 1 };

#[test]
fn sample_batches_continue_each_other_from_the_genesis() {
    let genesis = sample::genesis_state().unwrap();
    let mut tip = genesis;
    for index in 1..=3 {
        let batch = sample::batch(index).unwrap();
        batch.check_follows(&tip).unwrap();
        let summary = batch.validate().unwrap();
        assert_eq!(summary.from, tip);
        assert_eq!(summary.blocks.len() as u64, sample::BLOCKS_PER_BATCH);
        assert_eq!(summary.blocks.iter().map(|block| block.transactions).sum::<usize>(), 8);
        assert_eq!(summary.blocks.iter().map(|block| block.failed).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(summary.batch_hash, batch.hash().unwrap());
        tip = summary.to;
    }
    assert_eq!(tip.block_number, 3 * sample::BLOCKS_PER_BATCH);
    assert_eq!(sample::batch(2).unwrap().encode(), sample::batch(2).unwrap().encode());
}

#[test]
fn the_sample_genesis_is_the_documented_one() {
    let genesis = sample::genesis_state().unwrap();
    let readme = include_str!("../README.md");
    for value in [genesis.block_hash, genesis.state_root, B256::from(genesis.commitment())] {
        assert!(readme.contains(&value.to_string()), "README.md does not say {value}");
    }
    assert!(readme.contains(&ChainSpec::ASSAY_CHAIN_ID.to_string()));
}

#[test]
fn indices_without_a_sample_are_refused() {
    assert!(matches!(sample::batch(0), Err(BatchError::NoBlocks)));
    assert!(matches!(sample::batch(sample::INDEX_MAX + 1), Err(BatchError::Oversize { .. })));
}

#[test]
fn files_are_written_whole_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("batch");
    let batch = sample::batch(1).unwrap();
    batch.write(&path).unwrap();
    assert_eq!(Batch::read(&path).unwrap(), batch);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(matches!(Batch::read(&folder.path().join("none")), Err(BatchError::Io { .. })));
    assert!(matches!(batch.write(&folder.path().join("no/folder")), Err(BatchError::Io { .. })));
}

#[test]
fn runs_join_to_the_batch_however_it_is_cut() {
    let batch = sample::batch(2).unwrap();
    let summary = batch.validate().unwrap();
    for (limits, count) in [(RunLimits::default(), 1), (SMALL_RUNS, 2)] {
        let runs = batch.split_runs(limits).unwrap();
        assert_eq!(runs.len(), count);
        let values: Vec<BlockPublicValues> = runs.iter().map(|run| run.output.public_values).collect();
        assert_eq!(values[0].from_state, summary.from.commitment());
        assert_eq!(values[0].from_batch_acc, B256::ZERO);
        assert_eq!(values[count - 1].to_state, summary.to.commitment());
        assert_eq!(values[count - 1].to_batch_acc, summary.batch_hash);
        assert!(values.windows(2).all(|pair| pair[0].to_state == pair[1].from_state));
        assert!(values.windows(2).all(|pair| pair[0].to_batch_acc == pair[1].from_batch_acc));
        let acc = summary.blocks.iter().fold(B256::ZERO, |acc, block| accumulate(&acc, &block.hash));
        assert_eq!(acc, summary.batch_hash);
    }
}

#[test]
fn the_runs_of_a_batch_fold_onto_the_genesis() {
    let vk = VkHash([3; 8]);
    let group = CodeControlGroup {
        genesis_commitment: sample::genesis_state().unwrap().commitment(),
        fold_program: VkHash([4; 8]),
        block_programs: vec![BlockProgram { first_block: 1, last_block: u64::MAX, vk }],
    };
    let batch = sample::batch(1).unwrap();
    let claim = |run: assay_lvm::Run| {
        let public_values = run.output.public_values;
        let (program, proof) =
            group.program_for(public_values.first_block, public_values.last_block).unwrap();
        RunClaim { public_values, program, proof }
    };
    let runs: Vec<_> = batch.split_runs(SMALL_RUNS).unwrap().into_iter().map(claim).collect();
    let history =
        History::Genesis { commitment: group.genesis_commitment, proof: group.prove(GENESIS_LEAF).unwrap() };
    let check = fold::check(&FoldInput { code_root: group.root(), history, runs }).unwrap();
    assert_eq!(check.public_values.batch_hash, batch.hash().unwrap());
    assert_eq!(check.public_values.new_commitment, batch.validate().unwrap().to.commitment());
}

#[test]
fn published_data_is_the_rlp_list_of_the_blocks() {
    let batch = sample::batch(1).unwrap();
    let data = batch.data();
    let mut rest = data.as_slice();
    let head = alloy_rlp::Header::decode(&mut rest).unwrap();
    assert!(head.list && head.payload_length == rest.len());
    assert_eq!(rest, batch.blocks.concat());
}

/// Counts what it is told.
#[derive(Default)]
struct Seen(Vec<(Phase, bool)>);

impl PhaseSink for Seen {
    fn begin(&mut self, phase: Phase) {
        self.0.push((phase, true));
    }
    fn end(&mut self, phase: Phase) {
        self.0.push((phase, false));
    }
}

#[test]
fn phases_begin_and_end_in_order() {
    let batch = sample::batch(1).unwrap();
    let mut seen = Seen::default();
    execute_run(&batch.as_run(), &mut seen).unwrap();
    for phase in Phase::ALL {
        let marks: Vec<bool> = seen.0.iter().filter(|(p, _)| *p == phase).map(|(_, begin)| *begin).collect();
        assert!(!marks.is_empty() && marks.chunks(2).all(|pair| pair == [true, false]), "{}", phase.name());
    }
}

// What is wrong with a batch is named.

fn error_of(change: impl FnOnce(&mut Batch)) -> BatchError {
    let mut batch = sample::batch(2).expect("sample");
    change(&mut batch);
    let error = batch.validate().expect_err("the batch is wrong");
    // The file says the same: writing and reading it changes nothing.
    if let Ok(read) = Batch::decode(&batch.encode()) {
        assert_eq!(read.validate().expect_err("still wrong").to_string(), error.to_string());
    }
    error
}

#[test]
fn a_missing_witness_node_is_named() {
    let hash = keccak256(&sample::batch(2).unwrap().nodes[3]);
    let error = error_of(|batch| {
        batch.nodes.remove(3);
    });
    assert!(matches!(error, BatchError::MissingNode { hash: missing, .. } if missing == hash), "{error}");
    assert!(error.to_string().contains(&hash.to_string()));
}

#[test]
fn every_node_and_code_of_a_witness_is_needed() {
    let whole = sample::batch(2).unwrap();
    for index in 0..whole.nodes.len() {
        let mut batch = whole.clone();
        let hash = keccak256(batch.nodes.remove(index));
        let error = batch.validate().unwrap_err();
        assert!(matches!(error, BatchError::MissingNode { hash: missing, .. } if missing == hash), "{error}");
    }
    for index in 0..whole.codes.len() {
        let mut batch = whole.clone();
        let hash = keccak256(batch.codes.remove(index));
        let error = batch.validate().unwrap_err();
        assert!(matches!(error, BatchError::MissingCode { hash: missing, .. } if missing == hash), "{error}");
    }
}

#[test]
fn a_surplus_double_or_unsorted_witness_item_is_named() {
    let surplus = error_of(|batch| {
        batch.nodes.push(b"no node".to_vec());
        batch.nodes.sort_by_key(|node| keccak256(node));
    });
    assert!(matches!(surplus, BatchError::SurplusWitness { hash } if hash == keccak256("no node")));
    let double = error_of(|batch| batch.nodes.insert(0, batch.nodes[0].clone()));
    assert!(matches!(double, BatchError::SurplusWitness { .. }));
    let unsorted = error_of(|batch| batch.codes.swap(0, 1));
    assert!(matches!(unsorted, BatchError::SurplusWitness { .. }));
    let ancestor = error_of(|batch| {
        let OwnedAncestry::Headers(headers) = &mut batch.ancestry else { panic!("linked") };
        headers.push(alloy_rlp::encode(sample::chain(1).unwrap().header(1).unwrap()));
    });
    assert!(matches!(ancestor, BatchError::SurplusWitness { .. }), "{ancestor}");
}

#[test]
fn a_wrong_parent_is_named() {
    let error = error_of(|batch| batch.parent.block_hash = B256::repeat_byte(1));
    assert!(matches!(error, BatchError::WrongParent { .. }), "{error}");
    let error = error_of(|batch| batch.parent.state_root = B256::repeat_byte(1));
    assert!(matches!(error, BatchError::WrongParentState { field: "state root" }), "{error}");
    let error = error_of(|batch| {
        let OwnedAncestry::Headers(headers) = &mut batch.ancestry else { panic!("linked") };
        headers[0] = alloy_rlp::encode(sample::chain(1).unwrap().header(1).unwrap());
    });
    assert!(matches!(error, BatchError::WrongParent { .. }), "{error}");
    let tip = sample::genesis_state().unwrap();
    let error = sample::batch(2).unwrap().check_follows(&tip).unwrap_err();
    assert!(matches!(error, BatchError::BlockGap { expected: 1, got: 3 }), "{error}");
}

#[test]
fn a_gap_in_block_numbers_is_named() {
    let error = error_of(|batch| {
        batch.blocks.remove(0);
    });
    assert!(matches!(error, BatchError::BlockGap { expected: 3, got: 4 }), "{error}");
    let error = error_of(|batch| batch.blocks.swap(0, 1));
    assert!(matches!(error, BatchError::BlockGap { expected: 3, got: 4 }), "{error}");
    assert!(matches!(error_of(|batch| batch.blocks.clear()), BatchError::NoBlocks));
}

#[test]
fn a_wrong_chain_id_is_named() {
    let error = error_of(|batch| batch.spec.chain_id = 1);
    assert!(
        matches!(error, BatchError::WrongChainId { .. } | BatchError::WrongTransactionChainId { .. }),
        "{error}"
    );
    let error = error_of(|batch| {
        batch.spec.chain_id = 1;
        batch.parent.chain_id = 1;
    });
    assert!(matches!(error, BatchError::WrongTransactionChainId { block: 3, index: 0 }), "{error}");
    let mut tip = sample::batch(2).unwrap().parent;
    tip.chain_id = 1;
    let error = sample::batch(2).unwrap().check_follows(&tip).unwrap_err();
    assert!(matches!(error, BatchError::WrongChainId { expected: 1, .. }), "{error}");
}

/// A block of one transaction, put into the batch in the place of its first.
fn with_transaction(change: impl FnOnce(&mut TxLegacy), signature: [u64; 2]) -> BatchError {
    error_of(|batch| {
        let header = Block::decode(&batch.blocks[0]).expect("a block").header;
        let mut transaction = TxLegacy {
            chain_id: Some(ChainSpec::ASSAY_CHAIN_ID),
            gas_price: 2_000_000_000,
            gas_limit: 21_000,
            to: TxKind::Call(sample::TOKEN),
            input: Bytes::new(),
            ..Default::default()
        };
        change(&mut transaction);
        let [r, s] = signature.map(U256::from);
        let v = 35 + 2 * transaction.chain_id.unwrap_or_default();
        let mut fields = Vec::new();
        let to = sample::TOKEN;
        alloy_rlp::encode_list::<&dyn alloy_rlp::Encodable, dyn alloy_rlp::Encodable>(
            &[
                &transaction.nonce,
                &transaction.gas_price,
                &transaction.gas_limit,
                &to,
                &transaction.value,
                &transaction.input,
                &v,
                &r,
                &s,
            ],
            &mut fields,
        );
        let transactions_root = assay_lvm::core::ordered_root(&[&fields]);
        let header = alloy_consensus::Header { transactions_root, ..header };
        let mut payload = alloy_rlp::encode(&header);
        alloy_rlp::Header { list: true, payload_length: fields.len() }.encode(&mut payload);
        payload.extend_from_slice(&fields);
        payload.extend_from_slice(&[0xc0, 0xc0]);
        let mut block = Vec::new();
        alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut block);
        block.extend_from_slice(&payload);
        batch.blocks = vec![block];
    })
}

#[test]
fn a_bad_signature_is_named() {
    // r = 0 is out of range; r = 5 is the abscissa of no point of the curve.
    for signature in [[0, 1], [1, 0], [5, 1]] {
        let error = with_transaction(|_| {}, signature);
        assert!(matches!(error, BatchError::BadSignature { block: 3, index: 0 }), "{error}");
    }
}

#[test]
fn a_transaction_for_another_chain_is_named() {
    let error = with_transaction(|transaction| transaction.chain_id = Some(1), [1, 1]);
    assert!(matches!(error, BatchError::WrongTransactionChainId { block: 3, index: 0 }), "{error}");
}

#[test]
fn a_transaction_nobody_can_pay_for_is_named() {
    // Some account signed this, but none with a balance.
    let error = with_transaction(|_| {}, [1, 1]);
    assert!(
        matches!(
            error,
            BatchError::Stf(StfError::Transaction { number: 3, index: 0, .. })
                | BatchError::MissingNode { .. }
        ),
        "{error}"
    );
}

#[test]
fn oversize_is_named() {
    let error = error_of(|batch| batch.blocks[0] = vec![0; assay_lvm::core::BLOCK_SIZE_MAX + 1]);
    assert!(matches!(error, BatchError::Oversize { item: "block", .. }), "{error}");
    let error = error_of(|batch| {
        let block = batch.blocks[0].clone();
        batch.blocks = vec![block; assay_lvm::batch::BLOCKS_MAX as usize + 1];
    });
    assert!(matches!(error, BatchError::Oversize { item: "blocks", .. }), "{error}");
    let bytes = vec![0; assay_lvm::batch::FILE_SIZE_MAX as usize + 1];
    assert!(matches!(Batch::decode(&bytes), Err(BatchError::Oversize { item: "batch file", .. })));
}

#[test]
fn a_batch_cut_short_anywhere_is_truncated() {
    let bytes = sample::batch(1).unwrap().encode();
    for cut in (0..bytes.len()).step_by(7).chain(bytes.len() - 40..bytes.len()) {
        let error = Batch::decode(&bytes[..cut]).expect_err("it is cut short");
        assert!(error.to_string().contains("truncated"), "cut at {cut}: {error}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(Batch::decode(&longer).unwrap_err().to_string().contains("trailing"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_flipped_bit_of_a_batch_file_is_accepted_as_the_same_batch(
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let batch = sample::batch(1).unwrap();
        let mut bytes = batch.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // What the last header is free to say (extra data, say) makes another valid batch, with another hash.
        if let Ok(summary) = Batch::decode(&bytes).and_then(|batch| batch.validate()) {
            prop_assert_ne!(summary.batch_hash, batch.hash().unwrap(), "byte {}, bit {}", at, bit);
        }
    }

    #[test]
    fn run_inputs_with_a_flipped_bit_never_panic_nor_state_the_same(
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let batch = sample::batch(1).unwrap();
        let honest = execute_run(&batch.as_run(), &mut ()).unwrap().public_values;
        let mut bytes = batch.as_run().encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // Only a changed starting accumulator still executes, and then the statement says so.
        if let Ok(changed) = RunInput::decode(&bytes) {
            if let Ok(output) = execute_run(&changed, &mut ()) {
                prop_assert_ne!(output.public_values, honest);
            }
        }
    }

    #[test]
    fn blocks_of_any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Block::decode(&bytes);
        let _ = RunInput::decode(&bytes);
        let _ = Batch::decode(&bytes);
    }

    #[test]
    fn blocks_with_a_flipped_bit_never_panic(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut block = sample::batch(1).unwrap().blocks.remove(1);
        let at = at.index(block.len());
        block[at] ^= 1 << bit;
        let _ = Block::decode(&block);
    }
}

#[test]
fn withdrawals_need_a_beacon_chain() {
    let spec = ChainSpec { beacon_chain: true, ..ChainSpec::assay() };
    let mut chain =
        Chain::new(spec, &sample::alloc(), |root| genesis::header(root, 1_760_000_000, 30_000_000, b"test"))
            .unwrap();
    let withdrawal = Withdrawal { index: 0, validator_index: 0, address: sample::TOKEN, amount: u64::MAX };
    let attributes = BlockAttributes {
        timestamp: 1_760_000_012,
        gas_limit: 30_000_000,
        withdrawals: vec![withdrawal],
        ..BlockAttributes::default()
    };
    chain.append(&attributes, vec![]).unwrap();
    let mut batch = chain.batch(1, 1).unwrap();
    batch.validate().unwrap();

    // The same block under the rules of a rollup, where nobody vouches for the withdrawal.
    batch.spec.beacon_chain = false;
    batch.parent.spec_hash = batch.spec.hash();
    let refused = |error: &StfError| {
        matches!(
            error,
            StfError::Header { number: 1, source: HeaderError::NoBeaconChain { field: "withdrawals" } }
        )
    };
    let error = batch.validate().unwrap_err();
    assert!(matches!(&error, BatchError::Stf(error) if refused(error)), "{error}");

    // Nor does the maker of blocks make one.
    let mut rollup = Chain::new(batch.spec, &sample::alloc(), |root| {
        genesis::header(root, 1_760_000_000, 30_000_000, b"test")
    })
    .unwrap();
    assert!(refused(&rollup.append(&attributes, vec![]).unwrap_err()));
}

#[test]
fn published_data_rebuilds_the_chain_and_bad_data_leaves_it_as_it_was() {
    let whole = sample::chain(2).unwrap();
    let data = [sample::batch(1).unwrap().data(), sample::batch(2).unwrap().data()];
    let mut chain = sample::genesis_chain().unwrap();
    let refused = |chain: &mut Chain, data: &[u8]| {
        let before = (chain.tip(), chain.state_after(chain.tip()));
        assert!(chain.import(data).is_err());
        assert_eq!((chain.tip(), chain.state_after(chain.tip())), before);
    };
    // The second batch does not follow on genesis.
    refused(&mut chain, &data[1]);
    assert_eq!(Some(chain.import(&data[0]).unwrap()), whole.state_after(2));
    refused(&mut chain, &data[0]);
    refused(&mut chain, &[]);
    refused(&mut chain, &[0xc0]);
    refused(&mut chain, &[data[1].as_slice(), &[0]].concat());
    for at in (0..data[1].len()).step_by(37) {
        let mut changed = data[1].clone();
        changed[at] ^= 1;
        // A changed last header may still be one that executes, but then it is another batch.
        let mut tried = chain.clone();
        if tried.import(&changed).is_ok() {
            assert_ne!(hash_of_data(&changed).unwrap(), hash_of_data(&data[1]).unwrap());
        }
        refused(&mut chain, &data[1][..at]);
    }
    assert_eq!(hash_of_data(&data[1]).unwrap(), sample::batch(2).unwrap().hash().unwrap());
    assert_eq!(Some(chain.import(&data[1]).unwrap()), whole.state_after(4));
}

/// RLP of a list of encoded items.
fn listed(items: &[&[u8]]) -> Vec<u8> {
    let payload_length = items.iter().map(|item| item.len()).sum();
    let mut list = Vec::new();
    alloy_rlp::Header { list: true, payload_length }.encode(&mut list);
    items.iter().for_each(|item| list.extend_from_slice(item));
    list
}

/// The encoded lists in an RLP list.
fn lists_in(mut list: &[u8]) -> Vec<&[u8]> {
    let mut payload = alloy_rlp::Header::decode_bytes(&mut list, true).expect("a list");
    let mut items = Vec::new();
    while !payload.is_empty() {
        let before = payload;
        alloy_rlp::Header::decode_bytes(&mut payload, true).expect("a list in a list");
        items.push(&before[..before.len() - payload.len()]);
    }
    items
}

#[test]
fn no_other_data_has_the_hash_of_a_batch() {
    let data = sample::batch(1).unwrap().data();
    let [first, second] = blocks_of(&data).unwrap()[..] else { panic!("two blocks") };
    let parts = lists_in(second);
    let [header, transactions, none, _] = parts[..] else { panic!("four lists") };
    let paid = alloy_rlp::encode(Withdrawal { amount: 1, ..Withdrawal::default() });
    let blocks: [&[&[u8]]; 5] = [
        &[header, none, none, none],
        &[header, transactions, &listed(&[header]), none],
        &[header, transactions, none, &listed(&[&paid])],
        &[header, transactions, none],
        &[header, lists_in(first)[1], none, none],
    ];
    assert_eq!(listed(&[first, &listed(&parts)]), data);
    for (at, block) in blocks.into_iter().enumerate() {
        let other = listed(&[first, &listed(block)]);
        assert!(sample::genesis_chain().unwrap().import(&other).is_err(), "{at}");
        let error = hash_of_data(&other).unwrap_err().to_string();
        assert!(error.contains("other things than its header"), "{at}: {error}");
    }
}

#[test]
fn data_that_says_it_uses_more_gas_than_can_be_proved_has_no_hash() {
    let batch = sample::batch(1).unwrap();
    let hash_with = |change: &dyn Fn(&mut alloy_consensus::Header)| {
        let blocks = batch.blocks.iter().map(|raw| {
            let mut header = Block::decode(raw).unwrap().header;
            change(&mut header);
            listed(&[&[alloy_rlp::encode(&header).as_slice()], &lists_in(raw)[1..]].concat())
        });
        let blocks: Vec<Vec<u8>> = blocks.collect();
        hash_of_data(&listed(&blocks.iter().map(Vec::as_slice).collect::<Vec<_>>()))
    };
    let half = GAS_MAX / batch.blocks.len() as u64;
    assert!(hash_with(&|header| (header.gas_used, header.gas_limit) = (half, GAS_MAX)).is_ok());
    for change in [
        (&|header: &mut alloy_consensus::Header| header.gas_used = half + 1)
            as &dyn Fn(&mut alloy_consensus::Header),
        &|header| header.gas_used = u64::MAX,
        &|header| header.gas_limit = GAS_MAX + 1,
    ] {
        assert!(matches!(hash_with(change), Err(BatchError::Oversize { limit: GAS_MAX, .. })));
    }
}
