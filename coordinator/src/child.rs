//! Heavy stages run in a child process: this program again, with the hidden subcommand `stage`.
//!
//! A child takes one JSON job per line on standard input and reports one JSON event per line on standard output
//! (`assay_worker::stages::serve`). When its standard input ends it exits at once, whatever it is doing; the system
//! closes that pipe when the parent dies, however it dies, so no child outlives its parent. Ending a child is also how
//! the zkVM's memory is given back before the Groth16 prover needs it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use assay_worker::child::{kill_group, ALLOCATOR};

use crate::fsio::{io_error, FileError};

/// How long a child whose input was closed may take to leave before it is killed.
const EXIT_GRACE: Duration = Duration::from_secs(5);
/// The part of the log that is searched for the last line.
const LOG_TAIL_BYTES: u64 = 16 << 10;

/// What a child did.
#[derive(Debug)]
pub enum Heard {
    /// It wrote a line.
    Line(String),
    /// Nothing, for as long as was waited.
    Nothing,
    /// It ended.
    Ended,
}

/// A running child.
pub struct Child {
    process: std::process::Child,
    stdin: Option<std::process::ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Child {
    /// Starts `program` with `arguments`; its standard error goes to `log`.
    ///
    /// The child gets its own process group, so that an interrupt from the terminal reaches the parent only, which then
    /// ends the child in good order.
    ///
    /// # Errors
    /// [`FileError`] for the log file or the program.
    ///
    /// # Panics
    /// Never: the standard output asked for is there.
    pub fn spawn(program: &Path, arguments: &[String], log: &Path) -> Result<Self, FileError> {
        if let Some(parent) = log.parent() {
            std::fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        }
        let stderr = File::options().create(true).append(true).open(log).map_err(io_error("open", log))?;
        let allocator = ALLOCATOR.iter().filter(|(name, _)| std::env::var_os(name).is_none()).copied();
        let mut process = Command::new(program)
            .args(arguments)
            .envs(allocator)
            // The GPU that `nvidia-smi` calls the first, not the fastest: it is the one that is looked at.
            .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .map_err(io_error("run", program))?;
        let stdout = process.stdout.take().expect("standard output is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || forward_lines(stdout, &sender));
        Ok(Self { stdin: process.stdin.take(), process, lines, log: log.to_owned() })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The file with its standard error.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends one line.
    ///
    /// # Errors
    /// The pipe's error, if the child is gone.
    pub fn send(&mut self, line: &str) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(stdin, "{line}")?;
        stdin.flush()
    }

    /// Waits for the next line for at most `patience`.
    pub fn listen(&self, patience: Duration) -> Heard {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Heard::Line(line),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => Heard::Ended,
        }
    }

    /// Ends the child: closes its input, waits a moment, kills it if it is still there.
    pub fn end(mut self) -> Option<ExitStatus> {
        self.finish()
    }

    /// One line that says how the child ended, with the last line of its log and where the rest is.
    pub fn post_mortem(mut self) -> String {
        let status = self.finish();
        let how = match status.map(|status| (status.code(), status.signal())) {
            Some((_, Some(9))) => "was killed (signal 9): perhaps the machine ran out of memory".to_owned(),
            Some((_, Some(signal))) => format!("died of signal {signal}"),
            Some((Some(code), _)) => format!("ended with code {code}"),
            _ => "ended".to_owned(),
        };
        let last = last_line(&self.log).map(|line| format!(": {line}")).unwrap_or_default();
        format!("the stage's process {how}{last} (log: {})", self.log.display())
    }

    fn finish(&mut self) -> Option<ExitStatus> {
        drop(self.stdin.take());
        let deadline = Instant::now() + EXIT_GRACE;
        while Instant::now() < deadline {
            match self.process.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(20)),
                Ok(status) => return status,
                Err(_) => break,
            }
        }
        // It may have ended by itself in the meantime; then there is nothing to kill.
        kill_group(self.process.id());
        let _ = self.process.kill();
        self.process.wait().ok()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.finish();
    }
}

fn forward_lines(stdout: impl Read, sender: &Sender<String>) {
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { return };
        if sender.send(line).is_err() {
            return;
        }
    }
}

/// The last line of a log that is not empty.
pub fn last_line(log: &Path) -> Option<String> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    // A panic's last line only says how to get a backtrace.
    let tells = |line: &&str| !line.is_empty() && !line.starts_with("note: ");
    text.lines().rev().map(str::trim).find(tells).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, log: &Path) -> Child {
        Child::spawn(Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()], log).unwrap()
    }

    fn wait_line(child: &Child) -> String {
        match child.listen(Duration::from_secs(60)) {
            Heard::Line(line) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_go_in_and_come_out_and_the_end_of_input_ends_the_child() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell("while read x; do echo \"<$x>\"; done", &dir.path().join("log"));
        child.send("one").unwrap();
        assert_eq!(wait_line(&child), "<one>");
        child.send("two").unwrap();
        assert_eq!(wait_line(&child), "<two>");
        assert!(matches!(child.listen(Duration::from_millis(1)), Heard::Nothing));
        assert_eq!(child.end().unwrap().code(), Some(0));
    }

    #[test]
    fn a_dead_child_is_described_with_the_last_line_of_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("logs/x.log");
        let child = shell("echo first >&2; echo 'no such table' >&2; echo >&2; exit 7", &log);
        assert!(matches!(child.listen(Duration::from_secs(60)), Heard::Ended));
        let text = child.post_mortem();
        assert!(text.contains("code 7: no such table (log: ") && text.contains("logs/x.log"), "{text}");
        let killed = shell("kill -9 $$", &log);
        assert!(matches!(killed.listen(Duration::from_secs(60)), Heard::Ended));
        assert!(killed.post_mortem().contains("out of memory"));
    }

    #[test]
    fn a_child_that_hangs_is_killed_with_its_own_children() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000";
        let child = shell(script, &dir.path().join("log"));
        let grandchild = wait_line(&child);
        assert_eq!(child.end().unwrap().signal(), Some(9));
        let state = || {
            let status = std::fs::read_to_string(format!("/proc/{grandchild}/status")).unwrap_or_default();
            status.lines().find(|line| line.starts_with("State:")).map(str::to_owned)
        };
        // Whoever inherits it may take its time to reap it; a killed process is at most a zombie.
        let deadline = Instant::now() + Duration::from_secs(60);
        let is_alive = |state: &str| !state.contains('Z') && !state.contains('X');
        while state().is_some_and(|state| is_alive(&state)) {
            assert!(Instant::now() < deadline, "the grandchild lives: {:?}", state());
            thread::sleep(Duration::from_millis(10));
        }
    }
}
