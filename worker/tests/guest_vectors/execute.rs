//! Running a program without proving it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sp1_core_executor::{MinimalExecutorEnum, Program};

/// Program `vectors`: runs test vectors through the system calls that the other guests use.
pub(crate) const VECTORS_ELF: &[u8] = include_bytes!("../../../lvm/guest/elf/vectors.elf");

/// What a program did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit_code: u32,
    pub(crate) cycles: u64,
    pub(crate) public_values: Vec<u8>,
    /// What it committed as the digest of the public values.
    pub(crate) digest: [u8; 32],
}

/// An answer of the program `vectors`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) gas: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Runs `elf` on these input items.
pub(crate) fn run(elf: &[u8], items: &[&[u8]]) -> Outcome {
    let program = Arc::new(Program::from(elf).expect("the ELF is a program"));
    let mut executor = MinimalExecutorEnum::new(program, false, None);
    for item in items {
        executor.with_input(item);
    }
    while executor.execute_chunk().is_some() {}
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(executor.public_value_digest()) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Outcome {
        exit_code: executor.exit_code(),
        cycles: executor.global_clk(),
        public_values: executor.public_values_stream().clone(),
        digest,
    }
}

/// Runs the program `vectors` and returns its answers and the cycles they took beyond an empty run.
pub(crate) fn answers(requests: &[Vec<u8>]) -> (Vec<Answer>, u64) {
    let outcome = run(VECTORS_ELF, &requests.iter().map(Vec::as_slice).collect::<Vec<_>>());
    assert_eq!(outcome.exit_code, 0, "the program ended early");
    let idle = run(VECTORS_ELF, &[]).cycles;
    let mut rest = outcome.public_values.as_slice();
    let mut answers = Vec::new();
    while let Some((status, after)) = rest.split_first() {
        let gas = u64::from_le_bytes(after[..8].try_into().expect("eight bytes"));
        let len = u32::from_le_bytes(after[8..12].try_into().expect("four bytes")) as usize;
        answers.push(Answer { success: *status == 0, gas, bytes: after[12..12 + len].to_vec() });
        rest = &after[12 + len..];
    }
    assert_eq!(answers.len(), requests.len());
    (answers, outcome.cycles - idle)
}

/// The file `name` in `../shared/data`, seen from the repository's root; says so and yields none where it is absent.
pub(crate) fn shared_data(name: &str) -> Option<PathBuf> {
    // Tests run in their package's folder; a path of build time may be one of another clone.
    let path = Path::new("../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    // Past the capture of passing tests' output.
    let note =
        format!("SKIPPED: {} is absent (test data that is not part of this repository)", path.display());
    let _ = writeln!(std::io::stderr(), "{note}");
    None
}
