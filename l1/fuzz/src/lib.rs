//! Seeded mutation tests of decoders, on stable Rust and without a dependency.
//!
//! Layer: below everything; a dev-dependency of the crates with decoders. A [`Target`] has a corpus of valid encodings. Its
//! [`run`](Target::run) changes them ([`Mutator`]), gives each result to the caller's check, and holds the memory that the check took
//! ([`memory`]) against the input's length, so that a length field cannot make a decoder allocate what it announces.
//!
//! The check decodes, compares what it read with its encoding, and says whether it was read. A decoder that panics fails the test; what made
//! it panic is written to a file and named. What was read is changed further, so that a run gets away from its corpus.
//!
//! The same seed gives the same cases. `ASSAY_FUZZ_SEED` names another one, `ASSAY_FUZZ_SECONDS` runs each target that long instead of
//! its number of cases.
//!
//! ```
//! #[global_allocator]
//! static MEMORY: assay_l1_fuzz::Memory = assay_l1_fuzz::Memory;
//!
//! // A length, then as many bytes.
//! fn decode(bytes: &[u8]) -> Option<&[u8]> {
//!     let (len, rest) = bytes.split_first()?;
//!     (rest.len() == usize::from(*len)).then_some(rest)
//! }
//! let corpus = [vec![0], vec![2, 7, 8]];
//! assay_l1_fuzz::Target::new("pairs", &corpus).cases(2_000).run(|bytes| {
//!     let Some(body) = decode(bytes) else { return false };
//!     assert_eq!([&[body.len() as u8], body].concat(), bytes);
//!     true
//! });
//! ```

pub mod memory;
mod mutate;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use memory::Memory;
pub use mutate::{Mutator, Rng};

/// The seed where none is named.
const SEED: u64 = 1;
/// Cases of a target where neither it nor the environment says how many.
const CASES: u64 = 20_000;
/// Inputs that were read and are changed further, at most.
const KEPT_MAX: usize = 64;
/// What a check may allocate: this much, and [`MEMORY_PER_BYTE`] times its input.
const MEMORY_BYTES: usize = 128 << 10;
/// See [`MEMORY_BYTES`].
const MEMORY_PER_BYTE: usize = 24;

/// Decoders with valid inputs.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    name: &'a str,
    corpus: &'a [Vec<u8>],
    cases: u64,
    memory_bytes: usize,
    memory_per_byte: usize,
}

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Inputs tried, the corpus among them.
    pub tried: u64,
    /// Of these, read.
    pub read: u64,
    /// Most bytes that a check had allocated at a time.
    pub memory_bytes_max: usize,
}

impl<'a> Target<'a> {
    /// A target with 20,000 cases, whose checks may allocate 128 KiB and 24 times their input.
    #[must_use]
    pub fn new(name: &'a str, corpus: &'a [Vec<u8>]) -> Self {
        Self { name, corpus, cases: CASES, memory_bytes: MEMORY_BYTES, memory_per_byte: MEMORY_PER_BYTE }
    }

    /// Another number of cases.
    #[must_use]
    pub fn cases(self, cases: u64) -> Self {
        Self { cases, ..self }
    }

    /// Another allowance: so many bytes, and so many for each byte of input.
    #[must_use]
    pub fn memory(self, bytes: usize, per_byte: usize) -> Self {
        Self { memory_bytes: bytes, memory_per_byte: per_byte, ..self }
    }

    /// Gives mutations to `check`, which says whether the input was read.
    ///
    /// # Panics
    /// If `check` does, or takes more memory than it may; if an input of the corpus is not read; if no other is, or all are; if
    /// [`Memory`] is not the program's allocator; if a variable of the environment is no number.
    pub fn run(&self, mut check: impl FnMut(&[u8]) -> bool) -> Outcome {
        memory::assert_installed();
        let seed = number("ASSAY_FUZZ_SEED").unwrap_or(SEED);
        let until = number("ASSAY_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut outcome = Outcome { tried: 0, read: 0, memory_bytes_max: 0 };
        for input in self.corpus {
            assert!(
                self.case(seed, input, &mut outcome, &mut check),
                "{}: a valid input is not read",
                self.name
            );
        }
        let valid = outcome.read;
        let longest = self.corpus.iter().map(Vec::len).max().unwrap_or_default();
        let mut mutator = Mutator::new(seed, 2 * longest + 4_096);
        let mut kept: Vec<Vec<u8>> = Vec::new();
        while until.map_or(outcome.tried < self.cases, |until| Instant::now() < until) {
            let further = !kept.is_empty() && mutator.rng().below(4) == 0;
            let from = if further { kept.as_slice() } else { self.corpus };
            let mut input = from[mutator.rng().below(from.len())].clone();
            mutator.mutate(&mut input, self.corpus);
            if self.case(seed, &input, &mut outcome, &mut check) {
                if kept.len() < KEPT_MAX {
                    kept.push(input);
                } else {
                    kept[mutator.rng().below(KEPT_MAX)] = input;
                }
            }
        }
        eprintln!("{}: seed {seed}: {outcome:?}", self.name);
        assert!(outcome.read > valid, "{}: no mutation was read: {outcome:?}", self.name);
        assert!(outcome.read < outcome.tried, "{}: nothing was refused: {outcome:?}", self.name);
        outcome
    }

    /// One input.
    fn case(
        &self,
        seed: u64,
        input: &[u8],
        outcome: &mut Outcome,
        check: &mut impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let witness = Witness { name: self.name, seed, number: outcome.tried, input };
        let (read, peak) = memory::peak(|| check(input));
        let most = self.memory_bytes + self.memory_per_byte * input.len();
        assert!(
            peak <= most,
            "{} bytes were allocated for {} bytes, at most {most} should be",
            peak,
            input.len()
        );
        drop(witness);
        outcome.tried += 1;
        outcome.read += u64::from(read);
        outcome.memory_bytes_max = outcome.memory_bytes_max.max(peak);
        read
    }
}

/// Says which input a check panicked at.
struct Witness<'a> {
    name: &'a str,
    seed: u64,
    number: u64,
    input: &'a [u8],
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Self { name, seed, number, input } = self;
        let path: PathBuf = std::env::temp_dir().join(format!("assay-fuzz-{name}-{seed}-{number}"));
        let written = std::fs::write(&path, input);
        eprintln!("{name}: ASSAY_FUZZ_SEED={seed}, case {number}, input in {}: {written:?}", path.display());
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}
