//! Turns of contenders at the same work: their times, their agreement, and a row of the table.
#![allow(unsafe_code, reason = "the clock of the process is a call of C; the block says why it is sound")]

use crate::Result;
use std::fmt;
use std::time::Instant;

/// Milliseconds of the wall's clock and of the processor, all threads together.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    wall: f64,
    processor: f64,
}

/// What one contender did in one round.
pub(crate) struct Turn<T> {
    cost: Cost,
    result: T,
}

/// Times `run`; `read` makes of its result what is compared, untimed.
pub(crate) fn turn<O, T>(run: impl FnOnce() -> O, read: impl FnOnce(O) -> T) -> Turn<T> {
    let (start, before) = (Instant::now(), processor_milliseconds());
    let found = run();
    let cost =
        Cost { wall: start.elapsed().as_secs_f64() * 1e3, processor: processor_milliseconds() - before };
    Turn { cost, result: read(found) }
}

/// Medians of the contenders of one row.
pub(crate) struct Row {
    what: String,
    rounds: usize,
    costs: Vec<Cost>,
}

/// Runs `round`, a turn of each of `names`, `rounds` times; every result has to be the first one's.
pub(crate) fn compare<T: PartialEq>(
    what: String,
    names: &[&str],
    rounds: usize,
    round: impl Fn() -> Vec<Turn<T>>,
) -> Result<Row> {
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); names.len()];
    for _ in 0..rounds {
        let turns = round();
        for ((turn, name), costs) in turns.iter().zip(names).zip(&mut costs) {
            if turn.result != turns[0].result {
                return Err(format!("{what}: the result of {name} is not that of {}", names[0]).into());
            }
            costs.push(turn.cost);
        }
    }
    Ok(Row { what, rounds, costs: costs.iter().map(|costs| Cost::median(costs)).collect() })
}

/// The head of a table whose rows compare `names`, the first of which the ratios refer to.
pub(crate) fn head(names: &[&str]) -> String {
    let (first, others) = names.split_first().unwrap_or((&"", &[]));
    let columns: String = others.iter().map(|name| format!(" {name} | ratio |")).collect();
    format!("| what | rounds | {first} |{columns}\n|---|---|---|{}", "---|---|".repeat(others.len()))
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((ours, others)) = self.costs.split_first() else { return Ok(()) };
        write!(out, "| {} | {} | {ours} |", self.what, self.rounds)?;
        for theirs in others {
            let [wall, processor] = [theirs.wall / ours.wall, theirs.processor / ours.processor];
            write!(out, " {theirs} | {wall:.1} / {processor:.1} |")?;
        }
        Ok(())
    }
}

impl Cost {
    fn median(costs: &[Self]) -> Self {
        let of = |part: fn(&Self) -> f64| {
            let mut times: Vec<f64> = costs.iter().map(part).collect();
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Self { wall: of(|cost| cost.wall), processor: of(|cost| cost.processor) }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.wall < 100.0 { 1 } else { 0 };
        write!(out, "{:.digits$} / {:.digits$}", self.wall, self.processor)
    }
}

fn processor_milliseconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a `timespec` of our own, which the call fills.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "every Linux has this clock");
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_differs_is_an_error() {
        let round = |second| move || vec![turn(|| 1, |one| one), turn(|| second, |found| found)];
        assert!(compare("sum".into(), &["ours", "theirs"], 2, round(1)).is_ok());
        let error = compare("sum".into(), &["ours", "theirs"], 2, round(2)).err().unwrap();
        assert_eq!(error.to_string(), "sum: the result of theirs is not that of ours");
    }

    #[test]
    fn a_row_has_medians_and_ratios_to_the_first() {
        let cost = |wall| Cost { wall, processor: 2.0 * wall };
        let costs = vec![
            Cost::median(&[3.0, 1.0, 2.0].map(cost)),
            Cost::median(&[cost(400.0), cost(500.0), cost(10.0)]),
        ];
        let row = Row { what: "sum".into(), rounds: 3, costs };
        assert_eq!(row.to_string(), "| sum | 3 | 2.0 / 4.0 | 400 / 800 | 200.0 / 200.0 |");
        assert_eq!(head(&["ours", "theirs"]).lines().last(), Some("|---|---|---|---|---|"));
    }

    #[test]
    fn the_processor_of_all_threads_counts() {
        let spin = || {
            let start = processor_milliseconds();
            while processor_milliseconds() - start < 20.0 {}
        };
        let turn = turn(|| std::thread::spawn(spin).join().is_ok(), |joined| joined);
        assert!(turn.result && turn.cost.processor >= 20.0);
    }
}
