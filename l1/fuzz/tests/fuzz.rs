//! The runner finds what it is for, and the same seed finds the same.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::panic::{catch_unwind, AssertUnwindSafe};

use assay_l1_fuzz::{memory, Memory, Mutator, Target};

#[global_allocator]
static MEMORY: Memory = Memory;

/// Mark, a count (u32), as many bytes.
fn corpus() -> Vec<Vec<u8>> {
    [0u32, 3, 40]
        .map(|len| [b"MARK".as_slice(), &len.to_le_bytes(), &vec![7; len as usize]].concat())
        .to_vec()
}

/// A decoder, with a fault of choice.
fn decode(bytes: &[u8], trusts: bool, is_lax: bool) -> Option<Vec<u8>> {
    let (count, rest) = bytes.strip_prefix(b"MARK")?.split_first_chunk()?;
    let count = u32::from_le_bytes(*count) as usize;
    let mut body = Vec::with_capacity(if trusts { count } else { count.min(rest.len()) });
    body.extend(rest);
    (is_lax || body.len() == count).then_some(body)
}

fn run(trusts: bool, is_lax: bool) -> Result<assay_l1_fuzz::Outcome, String> {
    let corpus = corpus();
    let target = Target::new("runner", &corpus).cases(5_000);
    let check = |bytes: &[u8]| {
        let Some(body) = decode(bytes, trusts, is_lax) else { return false };
        let encoded = [b"MARK".as_slice(), &(body.len() as u32).to_le_bytes(), &body].concat();
        assert_eq!(encoded, bytes, "it is read as something else");
        true
    };
    catch_unwind(AssertUnwindSafe(|| target.run(check))).map_err(|panic| {
        panic
            .downcast_ref::<String>()
            .cloned()
            .or(panic.downcast_ref::<&str>().map(|text| (*text).into()))
            .unwrap()
    })
}

#[test]
fn a_good_decoder_passes_and_the_same_seed_gives_the_same_cases() {
    let outcome = run(false, false).unwrap();
    assert_eq!(outcome.tried, 5_000);
    assert_eq!(run(false, false).unwrap(), outcome);
}

#[test]
fn a_decoder_that_allocates_what_a_length_announces_is_found() {
    let found = run(true, false).unwrap_err();
    assert!(found.contains("bytes were allocated for"), "{found}");
}

#[test]
fn a_decoder_that_reads_what_no_encoder_writes_is_found() {
    let found = run(false, true).unwrap_err();
    assert!(found.contains("it is read as something else"), "{found}");
}

#[test]
fn a_target_without_use_is_found() {
    let corpus = corpus();
    let target = Target::new("useless", &corpus).cases(100);
    for (all, expected) in [(false, "is not read"), (true, "nothing was refused")] {
        let result = catch_unwind(AssertUnwindSafe(|| target.run(|_| all)));
        let text = result.unwrap_err().downcast_ref::<String>().cloned().unwrap();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn memory_is_counted_for_the_thread_that_takes_it() {
    let (_, peak) = memory::peak(|| {
        std::thread::spawn(|| drop(std::hint::black_box(vec![1u8; 8 << 20]))).join().unwrap();
        drop(std::hint::black_box(vec![1u8; 1 << 20]));
        std::hint::black_box(vec![1u8; 2 << 20])
    });
    assert!((2 << 20..3 << 20).contains(&peak), "{peak}");
}

#[test]
fn results_stay_below_their_length() {
    let mut mutator = Mutator::new(7, 100);
    let corpus = corpus();
    let mut input = Vec::new();
    for _ in 0..20_000 {
        mutator.mutate(&mut input, &corpus);
        assert!(input.len() <= 100);
    }
}
