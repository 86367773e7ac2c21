//! What whoever starts children of [`crate::stages::serve`] and the children themselves share.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// Settings of glibc's allocator for children, where the user has none of his own.
///
/// By default it keeps what was freed below 32 MiB, in an arena for each thread: over ten shards a zkVM prover came to
/// hold 5 GiB more than it used (`bench/RESULTS.md`). So: few arenas, and large pieces go back to the system at once.
pub const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_MMAP_THRESHOLD_", "4194304"),
    ("MALLOC_TRIM_THRESHOLD_", "134217728"),
];

/// Kills a process group; the zkVM's executor is a process of its own in the child's group.
pub fn kill_group(leader: u32) {
    // The shell's own `kill`: no library call without `unsafe` does this. A group that is gone is no failure.
    let kill = format!("kill -s KILL -- -{leader}");
    let _ = Command::new("/bin/sh").args(["-c", &kill]).stderr(Stdio::null()).status();
}

/// Whether this process leads its process group, as children do.
fn leads_its_group() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses: state, parent, group.
    let group =
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2)?.parse::<u32>().ok());
    group == Some(std::process::id())
}

/// The child's side of the pipe: standard input as lines, with the process ended when the parent closes it.
///
/// Reading happens on a thread of its own, so the end of input is noticed while a job runs. The process then has
/// `grace` to end by itself (if it was idle it does), after which it is ended with exit code 3.
pub fn watched_stdin(grace: Duration) -> impl BufRead {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match stdin.read_until(b'\n', &mut line) {
                Ok(n) if n > 0 => {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
        drop(sender);
        thread::sleep(grace);
        if leads_its_group() {
            kill_group(std::process::id());
        }
        std::process::exit(3);
    });
    BufReader::new(ChannelReader { receiver, rest: io::Cursor::new(Vec::new()) })
}

struct ChannelReader {
    receiver: Receiver<Vec<u8>>,
    rest: io::Cursor<Vec<u8>>,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.rest.read(buffer)?;
        if n > 0 || buffer.is_empty() {
            return Ok(n);
        }
        match self.receiver.recv() {
            Ok(line) => {
                self.rest = io::Cursor::new(line);
                self.rest.read(buffer)
            }
            Err(_) => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_channel_read_like_a_file() {
        let (sender, receiver) = mpsc::channel();
        sender.send(b"one\n".to_vec()).unwrap();
        sender.send(b"two\n".to_vec()).unwrap();
        drop(sender);
        let reader = BufReader::new(ChannelReader { receiver, rest: io::Cursor::new(Vec::new()) });
        assert_eq!(reader.lines().collect::<Result<Vec<_>, _>>().unwrap(), ["one", "two"]);
    }
}
