//! The commands, their help, and how they end.

mod args;
mod batch;
mod bench;
mod cache;
mod chaos;
mod client;
mod coordinator;
mod l1;
mod prove;
mod stage;
mod verify;

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use clap::Parser;

pub use args::{Arguments, Command};

use crate::error::{Error, EXIT_INTERRUPTED, EXIT_OK};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Bad usage ends here, with clap's message and exit code 2.
    let arguments = Arguments::parse();
    match begin(&arguments.command).and_then(|_guard| run(arguments)) {
        Ok(code) => code,
        Err(error) => {
            crate::fsio::say!("error: {error}");
            if let Some(advice) = error.advice() {
                crate::fsio::say!("  {advice}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Logs: a service and what works step by step say what they do, a command only what is wrong, the processes of a chaos
/// run what they are told to.
fn begin(command: &Command) -> Result<Option<assay_telemetry::Guard>, Error> {
    match command {
        Command::Coordinator(_) => Ok(Some(assay_telemetry::init("info", "assay-coordinator")?)),
        Command::ChaosCoordinator(_) | Command::ChaosWorker(_) => Ok(None),
        Command::L1(arguments) if arguments.command.is_talkative() => {
            assay_telemetry::init_logs("info");
            Ok(None)
        }
        _ => {
            assay_telemetry::init_logs("warn");
            Ok(None)
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let config = arguments.config.as_deref();
    match arguments.command {
        Command::Chaos(flags) => return Ok(chaos::run(*flags)),
        Command::ChaosCoordinator(node) => return Ok(assay_chaos::coordinator_main(&node.file)),
        Command::ChaosWorker(node) => return Ok(assay_chaos::worker_main(&node.file)),
        Command::Prove(command) => prove::run(config, command),
        Command::Verify(command) => verify::run(&command),
        Command::Setup(command) => prove::setup(config, command),
        Command::Batch(command) => batch::run(command),
        Command::Bench(command) => bench::run(config, command),
        Command::Cache(command) => cache::run(config, command),
        Command::Coordinator(command) => coordinator::run(config, command),
        Command::Submit(command) => client::submit(&command),
        Command::Status(command) => client::status(&command),
        Command::Watch(command) => client::watch(&command),
        Command::Workers(command) => client::workers(&command),
        Command::Cancel(command) => client::cancel(&command),
        Command::Fetch(command) => client::fetch(&command),
        Command::L1(command) => l1::run(config, command),
        Command::Stage(command) => stage::run(command),
    }?;
    Ok(ExitCode::from(EXIT_OK))
}

/// Prints a result to standard output; a closed pipe there is not an error of ours.
fn print(text: &str) -> Result<(), Error> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// A flag that the first interrupt (ctrl-c, SIGTERM) sets; the second one ends the process at once.
fn interrupt_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            use tokio::signal::unix::{signal, SignalKind};
            let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
            loop {
                tokio::select! {
                    heard = tokio::signal::ctrl_c() => if heard.is_err() { return },
                    _ = terminate.recv() => {}
                }
                if set.swap(true, Ordering::Relaxed) {
                    std::process::exit(i32::from(EXIT_INTERRUPTED));
                }
                crate::fsio::say!("interrupt: ending the running stage (again: end at once)");
            }
        });
    });
    flag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::EXIT_BAD_INPUT;
    use clap::CommandFactory;

    #[test]
    fn sync_takes_a_trunk_of_assay_prove_or_the_contract_with_its_files_and_not_both() {
        let parses = |words: &str| {
            let line = format!("assay l1 sync --regtest-dir chain {words}");
            Arguments::try_parse_from(line.split_whitespace()).is_ok()
        };
        assert!(parses("--claim claim.json"));
        assert!(parses("--terms 00 --from-genesis"));
        assert!(parses("--epochs e --policy p --peers q"));
        assert!(parses(
            "--epochs e --policy p --policy p2 --peers q --vk v --from-genesis --forced-grace-blocks 7"
        ));
        for wrong in [
            "",
            "--epochs e",
            "--epochs e --policy p",
            "--epochs e --peers q",
            "--epochs e --policy p --peers q --claim c",
            "--claim c --policy p",
            "--claim c --vk v",
        ] {
            assert!(!parses(wrong), "{wrong}");
        }
    }

    #[test]
    fn those_who_watch_verify_proofs_under_one_key_or_more() {
        let keys = |words: &str| {
            let line = format!(
                "assay l1 vigilante --regtest-dir chain --epochs e --policy p --peers q --dir d --secret s {words}"
            );
            match Arguments::try_parse_from(line.split_whitespace())?.command {
                Command::L1(l1::args::L1Args { command: l1::args::L1Command::Vigilante(flags) }) => {
                    Ok(flags.judge.vk.len())
                }
                _ => unreachable!("the line says what it is"),
            }
        };
        let count = |words: &str| keys(words).map_err(|error: clap::Error| error.kind());
        assert_eq!(count("--vk a"), Ok(1));
        assert_eq!(count("--vk a --vk b"), Ok(2));
        assert_eq!(count(""), Err(clap::error::ErrorKind::MissingRequiredArgument));
    }

    #[test]
    fn signer_and_graph_commands_end_with_2_for_bad_input() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(dir.path().join("junk"), "junk").unwrap();
        let code = |line: &[&str]| {
            let arguments = Arguments::parse_from(["assay", "l1"].iter().chain(line));
            run(arguments).unwrap_err().exit_code()
        };
        for policy in ["missing", "junk"] {
            let (policy, proposal) = (path(policy), path("proposal"));
            assert_eq!(code(&["graph", "--proposal", &proposal, "--policy", &policy]), EXIT_BAD_INPUT);
        }
        let (junk, missing) = (path("junk"), path("missing"));
        assert_eq!(code(&["signer", "inspect", "--dir", &junk]), EXIT_BAD_INPUT);
        let serve =
            ["signer", "serve", "--dir", &missing, "--identity", &junk, "--peers", &junk, "--policy", &junk];
        assert_eq!(code(&serve), EXIT_BAD_INPUT);
    }

    #[test]
    fn a_configuration_file_that_a_command_does_not_read_is_refused() {
        let line = ["assay", "--config", "assay.toml", "l1", "keys", "--secret", "s", "--trunk-id", "00"];
        let refused = run(Arguments::parse_from(line)).unwrap_err();
        assert_eq!(refused.exit_code(), EXIT_BAD_INPUT);
        assert!(refused.to_string().starts_with("--config assay.toml: `assay l1` reads no"), "{refused}");
    }

    #[test]
    fn the_command_line_is_consistent_and_every_command_teaches_by_example() {
        Arguments::command().debug_assert();
        for command in Arguments::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{} has no example", command.get_name());
        }
        let root = Arguments::command();
        let mut commands: Vec<_> = root.find_subcommand("l1").unwrap().get_subcommands().collect();
        let mut names = Vec::new();
        while let Some(command) = commands.pop() {
            let (name, help) = (command.get_name(), command.clone().render_long_help().to_string());
            assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{name}: {help}");
            commands.extend(command.get_subcommands());
            names.push(name);
        }
        for name in ["operator", "inspect", "signer", "hand-over", "forget"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let help = Arguments::command().render_long_help().to_string();
        for word in ["Exit codes", "ASSAY_CACHE", "out/<batch>/", "INSECURE"] {
            assert!(help.contains(word), "the help does not say {word}");
        }
    }
}
