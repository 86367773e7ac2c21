//! Running a program without proving it.

use std::io::Write as _;
use std::{path::PathBuf, sync::Arc};

use sp1_core_executor::{with_output_consumers, MinimalExecutorEnum, OutputConsumers, Program};
use tokio::sync::watch;

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
    /// Cycles by phase, for programs that print markers, to within a few thousand.
    pub(crate) phases: Vec<(String, u64)>,
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
    // The executor stops after this many memory accesses; only then can a clock be read beside the markers.
    const ACCESSES_PER_CHUNK: u64 = 1 << 13;
    let program = Arc::new(Program::from(elf).expect("the ELF is a program"));
    let markers = items.len() > 1;
    let mut executor = MinimalExecutorEnum::new(program, false, markers.then_some(ACCESSES_PER_CHUNK));
    for item in items {
        executor.with_input(item);
    }
    let (sender, receiver) = watch::channel(String::new());
    let (errors, _error_receiver) = watch::channel(String::new());
    let consumers = OutputConsumers { stdout: Some(sender.clone()), stderr: Some(errors) };
    let mut clock = PhaseClock::default();
    with_output_consumers(&consumers, || {
        while executor.execute_chunk().is_some() {
            clock.read(&receiver.borrow(), executor.global_clk());
            sender.send_replace(String::new());
        }
    });
    clock.read(&receiver.borrow(), executor.global_clk());
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(executor.public_value_digest()) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Outcome {
        exit_code: executor.exit_code(),
        cycles: executor.global_clk(),
        public_values: executor.public_values_stream().clone(),
        digest,
        phases: clock.phases,
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
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    // Past the capture of passing tests' output.
    let note =
        format!("SKIPPED: {} is absent (test data that is not part of this repository)", path.display());
    let _ = writeln!(std::io::stderr(), "{note}");
    None
}

/// Sums the cycles between markers; several phases may begin and end between two readings, sharing one clock value.
#[derive(Default)]
struct PhaseClock {
    phases: Vec<(String, u64)>,
    open: Option<u64>,
}

impl PhaseClock {
    fn read(&mut self, output: &str, now: u64) {
        for line in output.lines() {
            if let Some(name) = line.strip_prefix("phase-begin ") {
                if !self.phases.iter().any(|(known, _)| known == name) {
                    self.phases.push((name.to_owned(), 0));
                }
                self.open = Some(now);
            } else if let Some(name) = line.strip_prefix("phase-end ") {
                let begun = self.open.take().expect("a phase ends after it began");
                let phase = self.phases.iter_mut().find(|(known, _)| known == name);
                phase.expect("a phase ends after it began").1 += now - begun;
            }
        }
    }
}
