//! A child process that cannot outlive its parent's handle.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{kill_process, Pid, Signal};

/// A running process; killed when dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a process whose output is appended to a log file.
    ///
    /// Its standard input stays open as long as this handle, so that a child that watches it ends even when its parent is
    /// killed. It gets a process group of its own: ctrl-c is for the parent alone, which then ends its children.
    pub(crate) fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file).process_group(0);
        Ok(Self { child: command.spawn()? })
    }

    /// kill -9, and waits for the end.
    pub(crate) fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn pause(&self, is_paused: bool) {
        let signal = if is_paused { Signal::STOP } else { Signal::CONT };
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended; that is found elsewhere.
            let _ = kill_process(pid, signal);
        }
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_handle_ends_even_a_paused_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::start(Command::new("sleep").arg("600"), &dir.path().join("log")).unwrap();
        assert!(process.ended().is_none());
        process.pause(true);
        let stat = format!("/proc/{}/stat", process.child.id());
        let state = || std::fs::read_to_string(&stat).ok();
        let stopped = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            state().is_some_and(|stat| stat.contains(") T "))
        });
        assert!(stopped, "{:?}", state());
        drop(process);
        assert_eq!(state(), None);
    }
}
