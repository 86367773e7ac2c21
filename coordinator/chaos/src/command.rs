//! The command `chaos`: runs, tells, reports.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::error::ChaosError;
use crate::options::{Options, Program};
use crate::plan::plan;
use crate::run::run_with;

/// All invariants hold.
pub const EXIT_OK: u8 = 0;
/// One does not.
pub const EXIT_BROKEN: u8 = 1;
/// The run could not be made.
pub const EXIT_FAILED: u8 = 3;
/// Ended by a signal.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Flags of the command.
#[derive(Clone, Debug, Args)]
pub struct Flags {
    /// What a run is.
    #[command(flatten)]
    pub options: Options,
    /// Runs, with seeds that follow one another
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub count: u64,
    /// Prints the schedule of faults and runs nothing
    #[arg(long)]
    pub plan: bool,
    /// Writes what was found as JSON, one line for each run
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Says nothing while it runs
    #[arg(long, short)]
    pub quiet: bool,
}

/// The whole command; `program` says how the cluster's processes are started.
pub fn command(flags: Flags, program: Program) -> ExitCode {
    let Flags { mut options, count, plan: is_plan, report, quiet } = flags;
    options.program = program;
    let first = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let (mut lines, mut broken) = (Vec::new(), Vec::new());
    for seed in (0..count).map(|number| first.wrapping_add(number)) {
        options.seed = Some(seed);
        if is_plan {
            println!("seed {seed}");
            plan(seed, &options).iter().for_each(|planned| println!("{planned}"));
            continue;
        }
        let tell = |line: &str| {
            if !quiet {
                eprintln!("{line}");
            }
        };
        match run_with(&options, &tell) {
            Ok(found) => {
                print!("{found}");
                lines.push(serde_json::to_string(&found).unwrap_or_default());
                if !found.is_ok() {
                    broken.push(seed);
                }
            }
            Err(error) => {
                eprintln!("error: seed {seed}: {error}");
                let is_interrupted = matches!(error, ChaosError::Interrupted);
                return ExitCode::from(if is_interrupted { EXIT_INTERRUPTED } else { EXIT_FAILED });
            }
        }
        // After each run: a long row of seeds may be ended at any time.
        if let Some(path) = &report {
            if let Err(error) = std::fs::write(path, lines.join("\n") + "\n") {
                eprintln!("error: cannot write {}: {error}", path.display());
                return ExitCode::from(EXIT_FAILED);
            }
        }
    }
    if count > 1 && !is_plan {
        println!("{} of {count} runs hold; seeds that do not: {broken:?}", count - broken.len() as u64);
    }
    ExitCode::from(if broken.is_empty() { EXIT_OK } else { EXIT_BROKEN })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser, ValueEnum as _};

    use super::*;
    use crate::options::{FaultKind, AFTER_HELP};

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn the_help_names_every_fault_and_flags_are_read() {
        Arguments::command().debug_assert();
        for kind in FaultKind::value_variants() {
            let name = kind.to_possible_value().unwrap();
            assert!(AFTER_HELP.contains(&format!("\n  {} ", name.get_name())), "{kind:?}");
        }
        let words = "x --seed 7 --count 3 --faults kill-redis,pause --seconds 4 --weaken no-aof --quiet";
        let flags = Arguments::try_parse_from(words.split(' ')).unwrap().flags;
        assert_eq!((flags.options.seed, flags.count, flags.options.seconds), (Some(7), 3, 4));
        assert_eq!(flags.options.kinds(), [FaultKind::KillRedis, FaultKind::Pause]);
        let default = Arguments::try_parse_from(["x"]).unwrap().flags.options;
        let (parsed, made) = (serde_json::to_value(default), serde_json::to_value(Options::default()));
        assert_eq!(parsed.unwrap(), made.unwrap(), "the defaults of flags and library differ");
        assert!(Arguments::try_parse_from(["x", "--batches", "0"]).is_err());
    }
}
