//! The machines under every attack, in every weather.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use assay_l1_parties::sim::{run, Attack, Failure, Options, Summary};

/// Runs all, on as many threads as there are cores; the failures, and the sum of what happened.
fn run_all(all: Vec<Options>) -> (Vec<Failure>, Summary) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<Vec<Options>> =
        (0..threads).map(|part| all.iter().skip(part).step_by(threads).cloned().collect()).collect();
    std::thread::scope(|scope| {
        let work = |part: Vec<Options>| move || part.iter().map(run).collect::<Vec<_>>();
        let handles: Vec<_> = parts.into_iter().map(|part| scope.spawn(work(part))).collect();
        let (mut failures, mut sum) = (Vec::new(), Summary::default());
        for result in handles.into_iter().flat_map(|handle| handle.join().unwrap()) {
            match result {
                Ok(summary) => {
                    sum.blocks += summary.blocks;
                    sum.steps += summary.steps;
                    sum.reorged += summary.reorged;
                    sum.kills += summary.kills;
                    sum.rejected += summary.rejected;
                    sum.sent += summary.sent;
                }
                Err(failure) => failures.push(failure),
            }
        }
        (failures, sum)
    })
}

#[test]
fn two_thousand_seeds_end_well() {
    let (failures, sum) = run_all((0..2_160).map(Options::of_seed).collect());
    assert!(failures.is_empty(), "{} failures, first: {}", failures.len(), failures[0]);
    eprintln!("{sum:?}");
    assert!(sum.reorged > 1_000 && sum.kills > 1_000 && sum.rejected > 1_000, "{sum:?}");
}

#[test]
fn the_same_options_give_the_same_chain() {
    for attack in [Attack::Reorgs, Attack::KilledMidAssert, Attack::ForgedRoot] {
        let options = Options::new(attack, 77);
        assert_eq!(run(&options).unwrap(), run(&options).unwrap());
    }
}
