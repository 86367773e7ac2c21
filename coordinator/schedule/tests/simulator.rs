//! The machine under faults, and proof that the simulator notices a broken one.

use std::time::Instant;

use assay_schedule::marks;
use assay_schedule::sim::{run, Fault, Faults, Options, Summary, Weakness};

/// Batches of each simulation.
const BATCHES: u32 = 8;

fn sound(seed: u64) -> Options {
    Options::sound(seed, BATCHES)
}

fn holds(seeds: impl Iterator<Item = u64>) -> Summary {
    let mut total = Summary::default();
    for seed in seeds {
        let summary = run(sound(seed)).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(summary.settled + summary.failed, summary.batches, "seed {seed}");
        total.add(&summary);
    }
    total
}

/// Runs simulations on all processors.
fn holds_everywhere(seeds: std::ops::Range<u64>) -> Summary {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let mut total = Summary::default();
    std::thread::scope(|scope| {
        let share = |first: u64| (seeds.start + first..seeds.end).step_by(threads as usize);
        let handles: Vec<_> = (0..threads).map(|first| scope.spawn(move || holds(share(first)))).collect();
        for handle in handles {
            total.add(&handle.join().expect("the invariants hold"));
        }
    });
    total
}

#[test]
fn invariants_hold_for_two_hundred_seeds() {
    let start = Instant::now();
    let total = holds(0..200);
    println!("{total:?} in {:.1} s", start.elapsed().as_secs_f64());
    assert!(total.settled > 1_000, "most batches are settled: {}", total.settled);
    assert!(total.takeovers > 600 && total.replayed > 40_000, "leaders die and are replaced");
    // Paths that only faults lead to. One that is not taken here is not tested.
    let taken = marks();
    for path in PATHS {
        assert!(taken.contains_key(path), "200 seeds never take the path: {path}");
    }
}

const PATHS: [&str; 30] = [
    "audit of a part dropped",
    "complaint about an intact output",
    "controller asked to publish again",
    "controller died before its parts",
    "controller would leave no room for parts",
    "controllers evicted",
    "coordinator was away",
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
    "proof lost",
    "request for parts refused",
    "slow worker takes the last of a long queue",
    "spare inputs kept",
    "straggler duplicated",
    "task waits for a faster worker",
    "task waits for a worker that it has not failed on",
    "worker kept clear",
    "worker quarantined",
];

#[test]
fn invariants_hold_for_fifty_thousand_batches() {
    let start = Instant::now();
    let total = holds_everywhere(1_000..7_400);
    println!("{total:?} in {:.1} s", start.elapsed().as_secs_f64());
    assert!(total.batches > 50_000, "{} batches", total.batches);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..10 {
        assert_eq!(run(sound(seed)), run(sound(seed)));
    }
    assert_ne!(run(sound(0)), run(sound(1)));
}

/// Which remedy a fault calls for: with this fault and no other, the simulator finds the build that lacks the remedy.
const REMEDIES: [(Fault, Weakness); 24] = [
    (Fault::WorkerKilled, Weakness::Leases),
    (Fault::WorkerPaused, Weakness::Revocation),
    (Fault::WorkerCut, Weakness::Revocation),
    (Fault::CoordinatorKilled, Weakness::Memo),
    (Fault::CoordinatorKilled, Weakness::Reissue),
    (Fault::CoordinatorKilled, Weakness::Atomicity),
    (Fault::CoordinatorKilled, Weakness::Settlement),
    (Fault::CoordinatorPaused, Weakness::Epochs),
    (Fault::Skew, Weakness::Epochs),
    (Fault::Outage, Weakness::Durability),
    (Fault::StoreDown, Weakness::Availability),
    (Fault::StoreFull, Weakness::BackPressure),
    (Fault::Rot, Weakness::Checksum),
    (Fault::Damage, Weakness::Checksum),
    (Fault::Lie, Weakness::Verification),
    (Fault::Deceit, Weakness::Trust),
    (Fault::Nonsense, Weakness::Requests),
    (Fault::Late, Weakness::Repeats),
    (Fault::Twice, Weakness::Repeats),
    (Fault::Lost, Weakness::Repetition),
    (Fault::Lost, Weakness::Idempotency),
    (Fault::Slow, Weakness::Timeouts),
    (Fault::Failure, Weakness::Retries),
    (Fault::Refused, Weakness::Retries),
];

#[test]
fn each_fault_breaks_a_build_without_the_remedy_for_it() {
    for (fault, weakness) in REMEDIES {
        let with = |seed, weakness| Options { faults: Faults::only(fault), weakness, ..sound(seed) };
        let found = (0..200).find_map(|seed| run(with(seed, Some(weakness))).err());
        let violation = found.unwrap_or_else(|| panic!("200 seeds of {fault:?} do without {weakness:?}"));
        println!("{fault:?} without {weakness:?}: {violation}");
        let again = run(with(violation.seed, Some(weakness)));
        assert_eq!(again, Err(violation.clone()), "the printed seed replays");
        for seed in 0..=violation.seed {
            assert_eq!(run(with(seed, None)).err(), None, "{fault:?}: the sound build passes");
        }
    }
}

#[test]
fn every_fault_and_every_remedy_is_shown_to_matter() {
    for fault in Fault::ALL {
        assert!(REMEDIES.iter().any(|(shown, _)| *shown == fault), "{fault:?}");
    }
    for weakness in Weakness::ALL {
        assert!(REMEDIES.iter().any(|(_, shown)| *shown == weakness), "{weakness:?}");
    }
}

#[test]
fn among_all_faults_a_missing_remedy_is_found_too() {
    for weakness in Weakness::ALL {
        let weak = |seed| Options { weakness: Some(weakness), ..sound(seed) };
        let found = (0..200).find_map(|seed| run(weak(seed)).err());
        println!(
            "without {weakness:?}: {}",
            found.unwrap_or_else(|| panic!("200 seeds do without {weakness:?}"))
        );
    }
}
