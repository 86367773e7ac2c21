//! Runs seeds: `simulate [FIRST] [COUNT]`; prints each failure, and the seed that repeats it.

use assay_l1_parties::sim::{run, Options};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut next = |default| arguments.next().and_then(Result::ok).unwrap_or(default);
    let (first, count) = (next(0), next(200));
    let mut failures = 0;
    for seed in first..first + count {
        if let Err(failure) = run(&Options::of_seed(seed)) {
            println!("{failure}");
            failures += 1;
        }
    }
    println!("{count} seeds from {first}: {failures} failures");
    std::process::exit(i32::from(failures > 0));
}
