//! The machine under faults, and proof that the simulator notices a broken one.

use std::collections::BTreeSet;
use std::time::Instant;

use assay_schedule::marks;
use assay_schedule::sim::{run, Fault, Faults, Options, Summary, Violation, Weakness};

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

/// Runs simulations on all processors; the paths that were taken, too.
fn holds_everywhere(seeds: std::ops::Range<u64>) -> (Summary, BTreeSet<&'static str>) {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let (mut total, mut taken) = (Summary::default(), BTreeSet::new());
    std::thread::scope(|scope| {
        let share = |first: u64| (seeds.start + first..seeds.end).step_by(threads as usize);
        let run = |first| move || (holds(share(first)), marks());
        let handles: Vec<_> = (0..threads).map(|first| scope.spawn(run(first))).collect();
        for handle in handles {
            let (summary, marks) = handle.join().expect("the invariants hold");
            total.add(&summary);
            taken.extend(marks.into_keys());
        }
    });
    (total, taken)
}

#[test]
fn invariants_hold_for_two_hundred_seeds() {
    let start = Instant::now();
    let total = holds(0..200);
    println!("{total:?} in {:.1} s", start.elapsed().as_secs_f64());
    assert!(total.settled > 1_000, "most batches are settled: {}", total.settled);
    assert!(total.takeovers > 600 && total.replayed > 40_000, "leaders die and are replaced");
}

const PATHS: [&str; 34] = [
    "audit of a part dropped",
    "complaint about an intact output",
    "controller asked to publish again",
    "controller blamed for a part",
    "controller died before its parts",
    "controller would leave no room for parts",
    "controllers evicted",
    "coordinator was away",
    "dead controller fenced",
    "fold proof lost",
    "idle controller taken back",
    "inputs of a ready part replaced",
    "parts of a controller suspected",
    "late attempt taken back",
    "liar's part forgotten",
    "lost part complained of",
    "output lost",
    "output of a part audited",
    "parked part supplied",
    "part found done",
    "part given up that an earlier controller wanted",
    "part goes on with its spare inputs",
    "part lost an output of another",
    "part parked",
    "proof lost",
    "request for parts refused",
    "slow worker takes the last of a long queue",
    "spare inputs kept",
    "straggler duplicated",
    "task blamed for a part",
    "task waits for a faster worker",
    "task waits for a worker that it has not failed on",
    "worker kept clear",
    "worker quarantined",
];

#[test]
fn invariants_hold_for_fifty_thousand_batches() {
    let start = Instant::now();
    let (total, taken) = holds_everywhere(1_000..7_280);
    println!("{total:?} in {:.1} s", start.elapsed().as_secs_f64());
    assert!(total.batches >= 50_000, "{} batches", total.batches);
    // Paths that only faults lead to. One that is not taken here is not tested.
    for path in PATHS {
        assert!(taken.contains(path), "no seed takes the path: {path}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..10 {
        assert_eq!(run(sound(seed)), run(sound(seed)));
    }
    assert_ne!(run(sound(0)), run(sound(1)));
}

/// Which remedy a fault calls for: with this fault and no other, the simulator finds the build that lacks the remedy.
const REMEDIES: [(Fault, Weakness); 25] = [
    (Fault::WorkerKilled, Weakness::Leases),
    (Fault::WorkerPaused, Weakness::Revocation),
    (Fault::WorkerCut, Weakness::Revocation),
    (Fault::CoordinatorKilled, Weakness::Memo),
    (Fault::CoordinatorKilled, Weakness::Reissue),
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
    (Fault::Forgery, Weakness::Blame),
    (Fault::Nonsense, Weakness::Requests),
    (Fault::Late, Weakness::Repeats),
    (Fault::Twice, Weakness::Repeats),
    (Fault::Lost, Weakness::Repetition),
    (Fault::Lost, Weakness::Idempotency),
    (Fault::Slow, Weakness::Timeouts),
    (Fault::Slow, Weakness::Idleness),
    (Fault::Failure, Weakness::Retries),
    (Fault::Refused, Weakness::Retries),
];

#[test]
fn each_fault_breaks_a_build_without_the_remedy_for_it() {
    let mut unnoticed = Vec::new();
    for (fault, weakness) in REMEDIES {
        let with = |seed, weakness| Options { faults: Faults::only(fault), weakness, ..sound(seed) };
        let found = (0..200).find_map(|seed| run(with(seed, Some(weakness))).err());
        let Some(violation) = found else {
            unnoticed.push((fault, weakness));
            continue;
        };
        println!("{fault:?} without {weakness:?}: {}", brief(&violation));
        let again = run(with(violation.seed, Some(weakness)));
        assert_eq!(again, Err(violation.clone()), "the printed seed replays");
        for seed in violation.seed.saturating_sub(5)..=violation.seed {
            assert_eq!(run(with(seed, None)).err(), None, "{fault:?}: the sound build passes");
        }
    }
    assert!(unnoticed.is_empty(), "200 seeds do without: {unnoticed:?}");
}

fn brief(violation: &Violation) -> String {
    violation.to_string().chars().take(160).collect()
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
    let find =
        |weakness| (0..200).find_map(|seed| run(Options { weakness: Some(weakness), ..sound(seed) }).err());
    let mut unnoticed = Vec::new();
    for weakness in Weakness::ALL {
        match find(weakness) {
            Some(violation) => println!("without {weakness:?}: {}", brief(&violation)),
            None => unnoticed.push(weakness),
        }
    }
    assert!(unnoticed.is_empty(), "200 seeds do without: {unnoticed:?}");
}
