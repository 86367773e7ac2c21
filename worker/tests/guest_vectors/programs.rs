//! The programs `block` and `fold` against the same code on the host.

use assay_lvm::{
    core::{
        fold::{check, FoldInput, History, RunClaim},
        BlockProgram, CodeControlGroup, FoldPublicValues, VkHash, FOLD_LEAF, GENESIS_LEAF,
    },
    guests::{BLOCK_ELF, FOLD_ELF},
    mainnet, sample, Batch, Run, RunLimits,
};

use assay_worker::phases::cycles_by_phase;

use crate::execute::{run, shared_data};

/// Runs `block` on every run of the batch and compares with the host; prints cycles by phase.
fn same_in_the_guest(name: &str, batch: &Batch) {
    let runs = batch.split_runs(RunLimits::default()).expect("the batch executes");
    for Run { input, output } in &runs {
        let outcome = run(BLOCK_ELF, &[input]);
        let expected = output.public_values.encode();
        assert_eq!((outcome.exit_code, &outcome.public_values[..]), (0, &expected[..]));
        assert_eq!(outcome.digest, *blake3::hash(&expected).as_bytes(), "the digest is plain BLAKE3");
        println!("{name}: {} cycles, {} gas", outcome.cycles, output.gas_used);
        let marked = run(BLOCK_ELF, &[input, &[1]]);
        assert_eq!(marked.public_values, outcome.public_values);
        let phases = cycles_by_phase(BLOCK_ELF, input).expect("the guest accepts it");
        for (phase, cycles) in &phases {
            println!("{name}: {phase} {cycles}");
        }
        assert_eq!(phases.len(), assay_lvm::core::Phase::ALL.len());
        let sum: u64 = phases.iter().map(|(_, cycles)| cycles).sum();
        assert!(sum > outcome.cycles / 2 && sum <= marked.cycles, "{sum} of {}", outcome.cycles);
    }
}

#[test]
fn sample_batches_execute_in_the_guest_as_on_the_host() {
    for index in 1..=2 {
        same_in_the_guest(&format!("sample batch {index}"), &sample::batch(index).expect("sample"));
    }
}

#[test]
fn a_mainnet_block_executes_in_the_guest_as_on_the_host() {
    let Some(path) = shared_data("mainnet/23587691.json") else { return };
    same_in_the_guest("mainnet block 23587691", &mainnet::load(&path).expect("the block executes"));
}

#[test]
fn a_run_that_is_wrong_ends_without_public_values() {
    let runs = sample::batch(1).expect("sample").split_runs(RunLimits::default()).expect("it executes");
    let input = &runs[0].input;
    let mut corrupted = vec![input[..input.len() - 8].to_vec(), Vec::new()];
    // Magic, accumulator aside everything in the input is checked: spec, header, blocks, nodes.
    for at in [0, 8, 60, input.len() / 4, input.len() / 2, input.len() - 100] {
        let mut bytes = input.clone();
        bytes[at] ^= 0x40;
        corrupted.push(bytes);
    }
    for (index, bytes) in corrupted.iter().enumerate() {
        let outcome = run(BLOCK_ELF, &[bytes]);
        let same_statement = outcome.public_values == runs[0].output.public_values.encode();
        assert!(outcome.exit_code == 1 || !same_statement, "corruption {index}");
    }
    let truncated = run(BLOCK_ELF, &[&corrupted[0]]);
    assert_eq!((truncated.exit_code, truncated.public_values.len()), (1, 0));
}

/// A fold input over the runs of a sample batch.
fn fold_input(runs: &[Run], previous: Option<FoldPublicValues>) -> (FoldInput, CodeControlGroup) {
    let genesis = sample::batch(1).expect("sample").parent.commitment();
    let group = CodeControlGroup {
        genesis_commitment: genesis,
        fold_program: VkHash([1, 2, 3, 4, 5, 6, 7, 8]),
        block_programs: vec![BlockProgram { first_block: 1, last_block: u64::MAX, vk: VkHash([9; 8]) }],
    };
    let history = match previous {
        None => {
            let proof = group.prove(GENESIS_LEAF).expect("leaf");
            History::Genesis { commitment: genesis, proof }
        }
        Some(public_values) => {
            let proof = group.prove(FOLD_LEAF).expect("leaf");
            History::Fold { public_values, vk: group.fold_program, proof }
        }
    };
    let claim = |run: &Run| {
        let public_values = run.output.public_values;
        let (program, proof) =
            group.program_for(public_values.first_block, public_values.last_block).expect("covered");
        RunClaim { public_values, program, proof }
    };
    let input = FoldInput { code_root: group.root(), history, runs: runs.iter().map(claim).collect() };
    (input, group)
}

#[test]
fn the_fold_program_states_what_the_host_checks() {
    let runs =
        |index| sample::batch(index).expect("sample").split_runs(RunLimits::default()).expect("it executes");
    let (first, _) = fold_input(&runs(1), None);
    let first_values = check(&first).expect("joins").public_values;
    let (second, _) = fold_input(&runs(2), Some(first_values));
    for (name, input) in [("first", &first), ("second", &second)] {
        let expected = check(input).expect("joins").public_values;
        let outcome = run(FOLD_ELF, &[&input.encode()]);
        assert_eq!((outcome.exit_code, &outcome.public_values[..]), (0, &expected.encode()[..]));
        assert_eq!(outcome.digest, *blake3::hash(&expected.encode()).as_bytes());
        println!("fold of the {name} sample batch: {} cycles", outcome.cycles);
    }
    let (unjoined, _) = fold_input(&runs(2), None);
    assert!(check(&unjoined).is_err());
    let outcome = run(FOLD_ELF, &[&unjoined.encode()]);
    assert_eq!((outcome.exit_code, outcome.public_values.len()), (1, 0));
}
