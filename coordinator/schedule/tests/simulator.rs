//! The machine under faults, and proof that the simulator notices a broken one.

use assay_schedule::sim::{run, Options};
use assay_schedule::Weak;

const SOUND: Options = Options {
    seed: 0,
    batches: 8,
    weak: Weak { verification: false, checksum: false, memo: false },
    weak_fencing: false,
};

fn holds(seeds: std::ops::Range<u64>) {
    let mut batches = 0;
    for seed in seeds {
        let summary = run(Options { seed, ..SOUND }).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(summary.settled + summary.failed, summary.batches, "seed {seed}");
        batches += summary.batches;
    }
    println!("{batches} batches");
}

fn bites(weakened: Options) {
    let found = (0..500).find_map(|seed| run(Options { seed, ..weakened }).err());
    let violation = found.expect("500 seeds find a machine that is broken on purpose");
    let again = run(Options { seed: violation.seed, ..weakened });
    assert_eq!(again, Err(violation), "the printed seed replays");
}

#[test]
fn invariants_hold_for_two_hundred_seeds() {
    holds(0..200);
}

#[test]
#[ignore = "slow: 50,000 batches"]
fn invariants_hold_for_fifty_thousand_batches() {
    holds(1_000..7_300);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..10 {
        assert_eq!(run(Options { seed, ..SOUND }), run(Options { seed, ..SOUND }));
    }
}

#[test]
fn without_fencing_some_seed_fails() {
    bites(Options { weak_fencing: true, ..SOUND });
}

#[test]
fn without_checksums_some_seed_fails() {
    bites(Options { weak: Weak { checksum: true, ..Weak::default() }, ..SOUND });
}

#[test]
fn without_memoisation_some_seed_fails() {
    bites(Options { weak: Weak { memo: true, ..Weak::default() }, ..SOUND });
}

#[test]
fn without_verification_some_seed_fails() {
    bites(Options { weak: Weak { verification: true, ..Weak::default() }, ..SOUND });
}
