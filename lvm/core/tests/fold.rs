//! The fold program's checks: a batch that joins is accepted, and every change of a single field is rejected.

use alloy_primitives::B256;
use assay_lvm_core::{
    fold::{self, FoldInput, History, RunClaim},
    BlockProgram, BlockPublicValues, CodeControlGroup, FoldError, FoldPublicValues, VkHash, FIRST_BLOCK_LEAF,
    FOLD_LEAF, GENESIS_LEAF,
};
use proptest::prelude::*;

const GENESIS: [u8; 32] = [0x47; 32];

fn vk(byte: u32) -> VkHash {
    VkHash([byte; 8])
}

fn group() -> CodeControlGroup {
    let program = |first_block, last_block, byte| BlockProgram { first_block, last_block, vk: vk(byte) };
    CodeControlGroup {
        genesis_commitment: GENESIS,
        fold_program: vk(7),
        block_programs: vec![program(1, 100, 21), program(101, u64::MAX, 22), program(50, 60, 23)],
    }
}

/// A run of blocks; states and accumulators are named by the number of the block they come after.
fn run(first: u64, last: u64, batch_start: u64) -> RunClaim {
    let state = |number: u64| if number == 0 { GENESIS } else { [number as u8; 32] };
    let acc = |number: u64| if number == batch_start { B256::ZERO } else { B256::repeat_byte(number as u8) };
    let (program, proof) = group().program_for(first, last).expect("a program covers the run");
    RunClaim {
        public_values: BlockPublicValues {
            linked: true,
            first_block: first,
            last_block: last,
            from_state: state(first - 1),
            to_state: state(last),
            from_batch_acc: acc(first - 1),
            to_batch_acc: acc(last),
        },
        program,
        proof,
    }
}

fn first_batch() -> FoldInput {
    let group = group();
    let proof = group.prove(GENESIS_LEAF).expect("leaf 0 is there");
    FoldInput {
        code_root: group.root(),
        history: History::Genesis { commitment: GENESIS, proof },
        runs: vec![run(1, 2, 0), run(3, 3, 0), run(4, 9, 0)],
    }
}

fn second_batch() -> FoldInput {
    let group = group();
    let public_values = fold::check(&first_batch()).expect("the first batch joins").public_values;
    let proof = group.prove(FOLD_LEAF).expect("leaf 1 is there");
    FoldInput {
        code_root: group.root(),
        history: History::Fold { public_values, vk: vk(7), proof },
        runs: vec![run(10, 11, 9), run(12, 12, 9)],
    }
}

#[test]
fn batches_join_from_genesis_on() {
    let first = fold::check(&first_batch()).unwrap();
    assert_eq!(first.public_values.prev_commitment, GENESIS);
    assert_eq!(first.public_values.new_commitment, [9; 32]);
    assert_eq!(first.public_values.batch_hash, [9; 32]);
    assert_eq!(first.public_values.code_root, group().root());
    assert_eq!(first.verifications.len(), 3);
    assert!(first.verifications.iter().all(|v| v.vk == vk(21) && !v.is_fold));

    let second = fold::check(&second_batch()).unwrap();
    assert_eq!(second.public_values.prev_commitment, first.public_values.new_commitment);
    assert_eq!(second.public_values.new_commitment, [12; 32]);
    let history = second.verifications.last().unwrap();
    assert!(history.is_fold && history.vk == vk(7));
    assert_eq!(history.public_values, first.public_values.encode());
}

#[test]
fn each_broken_join_is_named() {
    let check = |change: &dyn Fn(&mut FoldInput)| {
        let mut input = first_batch();
        change(&mut input);
        fold::check(&input).unwrap_err()
    };
    assert_eq!(check(&|input| input.runs.clear()), FoldError::NoRuns);
    assert_eq!(check(&|input| input.runs[1].public_values.linked = false), FoldError::Unlinked { run: 1 });
    let gap = check(&|input| {
        input.runs.remove(1);
    });
    assert!(matches!(gap, FoldError::StateGap { run: 1, .. }), "{gap}");
    let acc = check(&|input| input.runs[2].public_values.from_batch_acc = B256::ZERO);
    assert!(matches!(acc, FoldError::BatchGap { run: 2, .. }), "{acc}");
    let blocks = check(&|input| input.runs[1].public_values.first_block = 2);
    assert!(matches!(blocks, FoldError::BlockGap { run: 1, expected: 3, .. }), "{blocks}");
    let program = check(&|input| input.runs[0].program.vk = vk(99));
    assert!(matches!(program, FoldError::BadPath { item: "block program", .. }), "{program}");
    let range = check(&|input| {
        let (program, proof) = (group().block_programs[1], group().prove(FIRST_BLOCK_LEAF + 1).unwrap());
        input.runs[0].program = program;
        input.runs[0].proof = proof;
    });
    assert_eq!(range, FoldError::ProgramRange { run: 0, first_block: 101, last_block: u64::MAX });
    let genesis = check(&|input| {
        let proof = group().prove(GENESIS_LEAF).unwrap();
        input.history = History::Genesis { commitment: [1; 32], proof };
    });
    assert!(matches!(genesis, FoldError::BadPath { item: "genesis", .. }), "{genesis}");
}

#[test]
fn history_of_another_program_or_group_is_rejected() {
    let mut input = second_batch();
    let History::Fold { vk, .. } = &mut input.history else { panic!("a fold") };
    *vk = VkHash([8; 8]);
    assert!(matches!(fold::check(&input), Err(FoldError::BadPath { item: "fold program", .. })));

    // A block program may not pose as the fold program, though it is in the group.
    let mut input = second_batch();
    let History::Fold { vk, proof, .. } = &mut input.history else { panic!("a fold") };
    *vk = VkHash([21; 8]);
    *proof = group().prove(FIRST_BLOCK_LEAF).unwrap();
    assert!(matches!(fold::check(&input), Err(FoldError::BadPath { item: "fold program", .. })));

    let mut input = second_batch();
    let History::Fold { public_values, .. } = &mut input.history else { panic!("a fold") };
    public_values.code_root = [0; 32];
    assert!(matches!(fold::check(&input), Err(FoldError::CodeRoot { .. })));
}

#[test]
fn a_leaf_is_proved_at_its_own_index_only() {
    let group = group();
    let root = group.root();
    assert!(group.prove(8).is_none());
    for index in 0..8 {
        let proof = group.prove(index).unwrap();
        let mut input = first_batch();
        input.runs[0].proof = proof.clone();
        let accepted = fold::check(&input).is_ok();
        assert_eq!(accepted, index == FIRST_BLOCK_LEAF, "leaf {index}");
        let mut beyond = proof;
        beyond.index += 8;
        input.runs[0].proof = beyond;
        assert!(fold::check(&input).is_err());
    }
    assert_eq!(root, first_batch().code_root);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_flipped_bit_is_accepted_in_silence(
        second in any::<bool>(),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let input = if second { second_batch() } else { first_batch() };
        let mut bytes = input.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // A changed statement is fine: the zkVM's verifier, told to verify it, rejects it. The same statement is not.
        if let Ok(changed) = FoldInput::decode(&bytes) {
            prop_assert_ne!(&changed, &input);
            if let Ok(check) = fold::check(&changed) {
                prop_assert_ne!(check, fold::check(&input).unwrap());
            }
        }
    }

    #[test]
    fn truncated_inputs_are_rejected(cut in any::<prop::sample::Index>()) {
        let bytes = second_batch().encode();
        prop_assert!(FoldInput::decode(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert_eq!(FoldInput::decode(&bytes).unwrap(), second_batch());
    }
}

#[test]
fn public_values_have_their_documented_bytes() {
    let values = run(3, 5, 0).public_values;
    let bytes = values.encode();
    assert_eq!(bytes.len(), 152);
    assert_eq!(bytes[..8], [1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(bytes[8..24], [3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[24..56], [2; 32]);
    assert_eq!(bytes[56..88], [5; 32]);
    assert_eq!(bytes[88..120], [2; 32]);
    assert_eq!(bytes[120..], [5; 32]);
    assert_eq!(BlockPublicValues::decode(&bytes), Ok(values));
    for cut in 0..bytes.len() {
        assert!(BlockPublicValues::decode(&bytes[..cut]).is_err());
    }

    let fold = FoldPublicValues {
        prev_commitment: [1; 32],
        new_commitment: [2; 32],
        batch_hash: [3; 32],
        code_root: [4; 32],
    };
    let bytes = fold.encode();
    assert_eq!(bytes, [[1; 32], [2; 32], [3; 32], [4; 32]].concat()[..]);
    assert_eq!(FoldPublicValues::decode(&bytes), Ok(fold));
    let mut digest = *blake3::hash(&bytes).as_bytes();
    digest[0] &= 0x1f;
    assert_eq!(fold.digest(), digest);
}
