//! A child process: its own process group, lines in and out, standard error to a log that can be exchanged.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::sys::{self, Exit};

/// Longest line of a child; a longer one is cut, and then is no line of the protocol.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Lines that wait for a child to read them.
const UNREAD_LINES_MAX: usize = 1 << 16;
/// Lines that wait for the agent to read them; a child that writes more waits.
const UNHEARD_LINES_MAX: usize = 1 << 12;
/// Size of one log.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// What is copied to a log at once: a child that writes without end must not hold anybody up.
const LOG_TURN_BYTES: usize = 1 << 20;
/// The part of a log that is searched for the last line.
const LOG_TAIL_BYTES: u64 = 16 << 10;
/// How often a child that is to end is looked at.
const POLL: Duration = Duration::from_millis(10);
/// Ticks per second in /proc, the same on every Linux this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// What to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Environment variables beside the agent's own.
    pub environment: Vec<(String, String)>,
}

/// What a child did.
#[derive(Debug)]
pub(super) enum Heard {
    Line(String),
    /// Nothing, for as long as was waited or until a [`Waker`] was used.
    Nothing,
    /// Its output has ended.
    Ended,
}

/// What the processes of a group use now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupUse {
    pub resident_bytes: u64,
    pub cpu: Duration,
}

/// A child's standard error and where it goes now. Who holds it can copy: nothing is between the pipe and the file.
struct Log {
    pipe: PipeReader,
    file: Option<File>,
    bytes: u64,
}

impl Log {
    /// Copies what there is. False when the pipe has ended.
    fn copy(&mut self) -> io::Result<bool> {
        let mut buffer = [0u8; 8192];
        for _ in 0..LOG_TURN_BYTES / buffer.len() {
            if !sys::wait_readable(self.pipe.as_fd(), Some(Duration::ZERO))? {
                break;
            }
            let n = self.pipe.read(&mut buffer)?;
            if n == 0 {
                return Ok(false);
            }
            if self.bytes + n as u64 <= LOG_BYTES_MAX {
                self.bytes += n as u64;
                // A log that cannot be written must not stop the task.
                if let Some(file) = &mut self.file {
                    let _ = file.write_all(&buffer[..n]);
                }
            }
        }
        Ok(true)
    }
}

/// Ends the wait of [`Process::listen`].
#[derive(Clone)]
pub(super) struct Waker(SyncSender<Heard>);

impl Waker {
    pub(super) fn wake(&self) {
        // Full: it is awake. Disconnected: it is gone.
        let _ = self.0.try_send(Heard::Nothing);
    }
}

pub(super) struct Process {
    id: u32,
    input: Option<SyncSender<String>>,
    heard: Receiver<Heard>,
    waker: Waker,
    log: Arc<Mutex<Log>>,
    exit: Option<Exit>,
    was_killed: bool,
}

impl Process {
    /// Starts a program in a process group of its own.
    pub(super) fn start(program: &Program) -> io::Result<Self> {
        let (pipe, stderr) = io::pipe()?;
        let readable = pipe.try_clone()?;
        let mut child = Command::new(&program.path)
            .args(&program.arguments)
            .envs(program.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .spawn()?;
        let id = child.id();
        // Above this process, so that the kernel that looks for memory takes the task and not the agent. Best effort.
        let _ = std::fs::write(format!("/proc/{id}/oom_score_adj"), "500");
        let (input, unread) = mpsc::sync_channel::<String>(UNREAD_LINES_MAX);
        if let Some(mut stdin) = child.stdin.take() {
            thread::spawn(move || {
                for line in unread {
                    if stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).is_err() {
                        return;
                    }
                }
            });
        }
        let (sender, heard) = mpsc::sync_channel(UNHEARD_LINES_MAX);
        let waker = Waker(sender.clone());
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || forward_lines(stdout, &sender));
        }
        let log = Arc::new(Mutex::new(Log { pipe, file: None, bytes: 0 }));
        let copied = Arc::clone(&log);
        thread::spawn(move || copy_to_log(&readable, &copied));
        Ok(Self { id, input: Some(input), heard, waker, log, exit: None, was_killed: false })
    }

    /// Sends standard error to a new file from now on; one that is there is emptied. What was written before goes where it
    /// went until now.
    pub(super) fn log_to(&self, path: Option<&Path>) -> io::Result<()> {
        let file = match path {
            Some(path) => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                Some(File::create(path)?)
            }
            None => None,
        };
        let mut log = self.log();
        log.copy()?;
        (log.file, log.bytes) = (file, 0);
        Ok(())
    }

    /// Sends one line. False if the child does not read.
    pub(super) fn say(&self, mut line: String) -> bool {
        line.push('\n');
        self.input.as_ref().is_some_and(|input| input.try_send(line).is_ok())
    }

    /// Waits for the next line for at most `patience`.
    pub(super) fn listen(&self, patience: Duration) -> Heard {
        self.heard.recv_timeout(patience).unwrap_or(Heard::Nothing)
    }

    /// What ends a wait from another thread.
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether the child itself is gone, whatever its descendants do.
    pub(super) fn has_ended(&self) -> bool {
        self.exit.is_some() || sys::has_ended(self.id).unwrap_or(true)
    }

    /// Kills the whole group.
    pub(super) fn kill(&mut self) {
        self.was_killed = true;
        if self.exit.is_none() {
            sys::kill_group(self.id);
        }
    }

    /// Whether [`Process::kill`] was called.
    pub(super) fn was_killed(&self) -> bool {
        self.was_killed
    }

    /// Ends the child: closes its input, gives it `grace` to leave, kills the group, copies its last words to the log, and says
    /// what it used.
    pub(super) fn end(&mut self, grace: Duration) -> Option<Exit> {
        drop(self.input.take());
        let deadline = Instant::now() + grace;
        while !self.has_ended() {
            if Instant::now() >= deadline {
                self.kill();
                // It cannot refuse, but it may be in the middle of a long system call.
                while !self.has_ended() {
                    thread::sleep(POLL);
                }
                break;
            }
            thread::sleep(POLL);
        }
        if self.exit.is_none() {
            // What it has left behind goes with it; as long as it is not reaped its number is its own.
            sys::kill_group(self.id);
            self.exit = sys::reap(self.id).ok();
            let _ = self.log().copy();
        }
        self.exit
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its group uses now; `None` where /proc does not say.
    pub(super) fn group_use(&self) -> Option<GroupUse> {
        group_use(self.id)
    }

    /// Forgets the peak of resident memory so far. Best effort.
    pub(super) fn forget_peak(&self) {
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.id), "5");
    }

    /// Largest resident memory of the child itself since then.
    pub(super) fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.unwrap_or(0).saturating_mul(1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// One line about how a child ended.
pub(super) fn describe(exit: Option<Exit>) -> String {
    match exit.map(|exit| (exit.status.code(), exit.status.signal())) {
        Some((_, Some(9))) => "was killed (signal 9)".to_owned(),
        Some((_, Some(signal))) => format!("died of signal {signal}"),
        Some((Some(code), _)) => format!("ended with code {code}"),
        _ => "ended".to_owned(),
    }
}

fn forward_lines(stdout: impl Read, sender: &SyncSender<Heard>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(n) if n > 0 => {}
            _ => break,
        }
        let line = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
        if sender.send(Heard::Line(line)).is_err() {
            return;
        }
    }
    let _ = sender.send(Heard::Ended);
}

fn copy_to_log(readable: &PipeReader, log: &Mutex<Log>) {
    let copy = || {
        sys::wait_readable(readable.as_fd(), None)?;
        log.lock().unwrap_or_else(PoisonError::into_inner).copy()
    };
    while matches!(copy(), Ok(true)) {}
}

/// Sums over the processes of a group.
fn group_use(leader: u32) -> Option<GroupUse> {
    let mut sum = GroupUse::default();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that ends while it is looked at is not counted.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        if let Some((_, cpu)) = parse_stat(&stat).filter(|(group, _)| *group == leader) {
            sum.cpu += cpu;
            sum.resident_bytes += resident_bytes(id);
        }
    }
    Some(sum)
}

/// Process group and processor time, that of waited-for children included, of a line of /proc/…/stat.
fn parse_stat(stat: &str) -> Option<(u32, Duration)> {
    // After the name in parentheses: state, parent, group, …; user and system time are fields 14 to 17 of all.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let group = fields.get(2)?.parse().ok()?;
    let ticks: u64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some((group, Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)))
}

fn resident_bytes(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// The last line of a log that is not empty.
pub(super) fn last_line(log: &Path) -> Option<String> {
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

    fn shell(script: &str) -> Process {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        Process::start(&Program { path: "/bin/sh".into(), arguments, environment: Vec::new() }).unwrap()
    }

    fn line(process: &Process) -> String {
        match process.listen(Duration::from_secs(60)) {
            Heard::Line(line) => line,
            other => panic!("no line but {other:?}"),
        }
    }

    fn is_alive(id: &str) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let state = status.lines().find(|line| line.starts_with("State:"));
        state.is_some_and(|state| !state.contains('Z') && !state.contains('X'))
    }

    fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn lines_go_in_and_come_out_and_the_end_of_input_ends_the_child() {
        let mut child = shell("while read x; do echo \"<$x>\"; done");
        assert!(child.say("one".into()));
        assert_eq!(line(&child), "<one>");
        assert!(matches!(child.listen(Duration::from_millis(1)), Heard::Nothing));
        let exit = child.end(Duration::from_secs(60)).unwrap();
        assert_eq!((exit.status.code(), child.was_killed()), (Some(0), false));
    }

    #[test]
    fn the_last_words_are_in_the_log_when_the_child_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut child = shell("read x; echo why >&2; exit 7");
        child.log_to(Some(&path)).unwrap();
        let log = Arc::clone(&child.log);
        let held = log.lock().unwrap();
        thread::scope(|scope| {
            let ending = scope.spawn(|| child.end(Duration::from_secs(60)));
            thread::sleep(Duration::from_millis(200));
            drop(held);
            assert_eq!(ending.join().unwrap().unwrap().status.code(), Some(7));
        });
        assert_eq!(last_line(&path).as_deref(), Some("why"));
    }

    #[test]
    fn a_child_that_does_not_leave_is_killed_with_its_own_children() {
        let mut child = shell("trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000");
        let grandchild = line(&child);
        let exit = child.end(Duration::from_millis(20)).unwrap();
        assert_eq!((exit.status.signal(), child.was_killed()), (Some(9), true));
        wait_until("the grandchild lives", || !is_alive(&grandchild));
    }

    #[test]
    fn what_a_child_that_died_has_left_behind_is_killed_too() {
        let mut child = shell("sleep 1000 & echo $!; exit 3");
        let grandchild = line(&child);
        wait_until("the child lives", || child.has_ended());
        assert!(is_alive(&grandchild));
        assert_eq!(child.end(Duration::ZERO).unwrap().status.code(), Some(3));
        wait_until("the grandchild lives", || !is_alive(&grandchild));
    }

    #[test]
    fn time_and_memory_are_those_of_the_child_and_its_children() {
        let mut child = shell("sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo done; read x");
        assert_eq!(line(&child), "done");
        let running = child.group_use().unwrap();
        assert!(running.cpu >= Duration::from_millis(20), "{running:?}");
        assert!(running.resident_bytes > 100_000, "{running:?}");
        assert!(child.peak_bytes() > 100_000);
        let exit = child.end(Duration::from_secs(60)).unwrap();
        assert!(exit.cpu >= Duration::from_millis(20), "{exit:?}");
        assert!(exit.memory_bytes_peak > 100_000, "{exit:?}");
    }

    #[test]
    fn the_log_can_be_exchanged_and_its_last_line_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("logs/1.log"), dir.path().join("logs/2.log"));
        let mut child =
            shell("read x; echo one >&2; echo ok; read x; echo two >&2; echo 'note: x' >&2; echo ok");
        child.log_to(Some(&one)).unwrap();
        child.say(String::new());
        assert_eq!(line(&child), "ok");
        wait_until("nothing is logged", || last_line(&one).as_deref() == Some("one"));
        child.log_to(Some(&two)).unwrap();
        child.say(String::new());
        assert_eq!(line(&child), "ok");
        wait_until("nothing is logged", || last_line(&two).as_deref() == Some("two"));
        assert_eq!(std::fs::read_to_string(&one).unwrap(), "one\n");
        child.end(Duration::from_secs(60));
    }

    #[test]
    fn a_line_of_stat_is_read_past_a_name_with_spaces_and_parentheses() {
        let stat = "12 (a b) c) S 1 77 77 0 -1 4194560 1 2 3 4 100 50 25 25 20 0 1 0";
        assert_eq!(parse_stat(stat), Some((77, Duration::from_secs(2))));
        assert_eq!(parse_stat("12 (x"), None);
    }
}
