//! Parties as processes: this test binary starts itself with the arguments of a command, and reads what it prints.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use assay_l1_parties::service::backup::{self, BackupArgs};
use assay_l1_parties::service::operator::{self, OperatorArgs};
use assay_l1_parties::service::vigilante::{self, VigilanteArgs};
use assay_l1_parties::service::Stop;
use assay_l1_signer::cli::{self, SignerArgs};
use bitcoin::BlockHash;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::rollup::Rollup;

const WORDS: &str = "ASSAY_PARTIES_NODE_TEST";
/// Longest wait for anything that a process does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks whether a process still runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
enum Role {
    Operator(OperatorArgs),
    Vigilante(VigilanteArgs),
    Backup(BackupArgs),
    Signer(SignerArgs),
}

#[test]
#[ignore = "a process of the tests on a node"]
fn child() {
    // Without a parent (all ignored tests are run) there is nothing to do.
    let Ok(words) = std::env::var(WORDS) else { return };
    let filter = EnvFilter::new("info,assay_l1_parties=debug");
    tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter).with_writer(std::io::stderr).init();
    match Role::parse_from(words.lines()) {
        Role::Operator(args) => operator::run(&args, &Stop::on_signals().unwrap()).unwrap(),
        Role::Vigilante(args) => {
            let backend = args.party.trunk.node.open().unwrap();
            let mut rollup = Rollup::on(Arc::clone(&backend));
            vigilante::run(&args, backend, &mut rollup, &Stop::on_signals().unwrap()).unwrap();
        }
        Role::Backup(args) => {
            let backend = args.watch.party.trunk.node.open().unwrap();
            let mut rollup = Rollup::on(Arc::clone(&backend));
            backup::run(&args, backend, &mut rollup, &Stop::on_signals().unwrap()).unwrap();
        }
        Role::Signer(args) => cli::run(args).unwrap(),
    }
}

/// What all runs of a process have printed.
#[derive(Default)]
struct Lines {
    all: Vec<String>,
    /// Where those of the last run begin.
    run: usize,
}

type Log = (Mutex<Lines>, Condvar);

/// A process that can be killed and started again; killed when dropped.
pub(crate) struct Party {
    name: String,
    words: Vec<String>,
    child: Option<Child>,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
    /// How often it was killed.
    pub(crate) kills: u32,
}

impl Party {
    /// Started with these words: a role's name and its arguments.
    pub(crate) fn start(name: &str, words: Vec<String>) -> Self {
        let log = Arc::default();
        let mut party =
            Self { name: name.to_owned(), words, child: None, log, readers: Vec::new(), kills: 0 };
        party.restart();
        party
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        // Nothing of the last run comes any more.
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        let mut lines = self.log.0.lock().unwrap();
        lines.run = lines.all.len();
        drop(lines);
        // Ended by the kernel if the test's thread is gone without running destructors.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["process::child", "--exact", "--ignored", "--nocapture"])
            .env(WORDS, self.words.join("\n"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv (util-linux) is in PATH");
        self.readers = vec![
            read(child.stdout.take().unwrap(), Arc::clone(&self.log)),
            read(child.stderr.take().unwrap(), Arc::clone(&self.log)),
        ];
        self.child = Some(child);
    }

    /// From its next start on it has these words.
    pub(crate) fn set_words(&mut self, words: Vec<String>) {
        self.words = words;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL: nothing is flushed.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
            self.kills += 1;
        }
    }

    /// Waits until the last run's lines show something.
    pub(crate) fn wait<T>(&mut self, what: &str, look: impl Fn(&[String]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let log = Arc::clone(&self.log);
        let mut lines = log.0.lock().unwrap();
        loop {
            if let Some(found) = look(&lines.all[lines.run..]) {
                return found;
            }
            let ended = self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
            if ended || Instant::now() > deadline {
                let last = lines.all.len().saturating_sub(30);
                panic!("{}: {what}; ended: {ended}\n{}", self.name, lines.all[last..].join("\n"));
            }
            lines = log.1.wait_timeout(lines, LOOK_EVERY).unwrap().0;
        }
    }

    /// Waits until the last line with `sort` of each machine in it has `wanted`. A backup has two machines, and says which one speaks.
    fn wait_for_line(&mut self, sort: &str, wanted: &str) {
        let is_backup = self.words[0] == "backup";
        let machines: &[&str] = if is_backup { &[" watch: ", " operator: "] } else { &[""] };
        for machine in machines {
            self.wait(&format!("{machine}{wanted}"), |run| {
                let last = run.iter().rev().find(|line| line.contains(machine) && line.contains(sort))?;
                last.contains(wanted).then_some(())
            });
        }
    }

    /// Waits until a service has done all that there is to do at this block.
    pub(crate) fn wait_for_block(&mut self, hash: &BlockHash) {
        self.wait_for_line("done with block ", &format!("done with block {hash} "));
    }

    /// Waits until a running service has taken up the epoch in this place.
    pub(crate) fn wait_for_epoch(&mut self, place: u32) {
        self.wait_for_line(") is known", &format!("(file {place:04}) is known"));
    }

    /// Waits until it has ended by itself.
    pub(crate) fn finish(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let mut child = self.child.take().unwrap();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "{} ends", self.name);
            std::thread::sleep(Duration::from_millis(5));
        };
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        status
    }

    /// True if it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// What all its runs have printed.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.0.lock().unwrap().all.clone()
    }

    /// What it has alarmed people about.
    pub(crate) fn alarms(&self) -> BTreeSet<String> {
        let lines = self.lines();
        lines.iter().filter_map(|line| Some(line.split_once("ALARM ")?.1.to_owned())).collect()
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let lines = self.lines();
            let last = lines.len().saturating_sub(400);
            eprintln!("---- {}\n{}", self.name, lines[last..].join("\n"));
        }
    }
}

fn read(from: impl Read + Send + 'static, log: Arc<Log>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            // A killed process leaves half a line at most.
            let Ok(line) = line else { return };
            log.0.lock().unwrap().all.push(line);
            log.1.notify_all();
        }
    })
}
