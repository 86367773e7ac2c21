//! The machine under faults, and proof that the simulator notices a broken one.

use std::time::Instant;

use assay_schedule::marks;
use assay_schedule::sim::{run, Options, Summary};
use assay_schedule::Weak;

const SOUND: Options = Options {
    seed: 0,
    batches: 8,
    weak: Weak { verification: false, checksum: false, memo: false },
    weak_fencing: false,
};

fn holds(seeds: std::ops::Range<u64>) -> Summary {
    let (start, mut total) = (Instant::now(), Summary::default());
    for seed in seeds {
        let summary = run(Options { seed, ..SOUND }).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(summary.settled + summary.failed, summary.batches, "seed {seed}");
        total.add(&summary);
    }
    println!("{total:?} in {:.1} s", start.elapsed().as_secs_f64());
    total
}

fn bites(weakened: Options) {
    let found = (0..200).find_map(|seed| run(Options { seed, ..weakened }).err());
    let violation = found.expect("200 seeds find a machine that is broken on purpose");
    println!("{violation}");
    let again = run(Options { seed: violation.seed, ..weakened });
    assert_eq!(again, Err(violation.clone()), "the printed seed replays");
    assert_eq!(
        run(Options { seed: violation.seed, ..SOUND }).err(),
        None,
        "the sound machine passes that seed"
    );
}

#[test]
fn invariants_hold_for_two_hundred_seeds() {
    let total = holds(0..200);
    assert!(total.settled > 1_000, "most batches are settled: {}", total.settled);
    assert!(total.takeovers > 600 && total.replayed > 40_000, "leaders die and are replaced");
    // Paths that only faults lead to. One that is not taken here is not tested.
    let taken = marks();
    for path in PATHS {
        assert!(taken.contains_key(path), "200 seeds never take the path: {path}");
    }
}

const PATHS: [&str; 27] = [
    "audit of a part dropped",
    "complaint about an intact output",
    "controller asked to publish again",
    "controller died before its parts",
    "controller would leave no room for parts",
    "controllers evicted",
    "dead controller fenced",
    "fold proof lost",
    "inputs of a ready part replaced",
    "last try of a controller",
    "late attempt taken back",
    "liar's part forgotten",
    "lost part complained of",
    "output lost",
    "output of a part audited",
    "parked part supplied",
    "part found done",
    "part goes on with its spare inputs",
    "part lost an output of another",
    "part parked",
    "request for parts refused",
    "slow worker takes the last of a long queue",
    "spare inputs kept",
    "straggler duplicated",
    "task waits for a faster worker",
    "task waits for a worker that it has not failed on",
    "worker quarantined",
];

#[test]
#[ignore = "slow: 50,000 batches"]
fn invariants_hold_for_fifty_thousand_batches() {
    assert!(holds(1_000..7_400).batches > 50_000);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..10 {
        assert_eq!(run(Options { seed, ..SOUND }), run(Options { seed, ..SOUND }));
    }
    assert_ne!(run(Options { seed: 0, ..SOUND }), run(Options { seed: 1, ..SOUND }));
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
