//! The system calls that the standard library does not offer: signals to process groups, waiting with resource use, and
//! for pipes.
#![allow(
    unsafe_code,
    reason = "kill, waitid, wait4 and poll have no safe counterpart among the crates the zkVM shares"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// A process that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    pub status: ExitStatus,
    /// Processor time of it and of all descendants that were waited for.
    pub cpu: Duration,
    /// Largest resident memory of one of these.
    pub memory_bytes_peak: u64,
}

/// Kills every process of a group. One that is gone is no failure.
pub(super) fn kill_group(leader: u32) {
    let Ok(leader) = i32::try_from(leader) else { return };
    // 0 and 1 would mean this process's own group and every process.
    if leader > 1 {
        // SAFETY: kill takes no pointers and touches no memory of this process.
        unsafe { libc::kill(-leader, libc::SIGKILL) };
    }
}

/// Waits until a pipe has bytes or has ended, for ever or for `patience`. False if it has neither.
pub(super) fn wait_readable(pipe: BorrowedFd<'_>, patience: Option<Duration>) -> io::Result<bool> {
    let mut wanted = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let milliseconds =
        patience.map_or(-1, |patience| i32::try_from(patience.as_millis()).unwrap_or(i32::MAX));
    loop {
        // SAFETY: `wanted` is one writable pollfd, and the borrow keeps its descriptor open.
        match unsafe { libc::poll(&mut wanted, 1, milliseconds) } {
            0 => return Ok(false),
            1.. => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Whether a child has ended. It stays a zombie until [`reap`], so that its number is not given to another process.
pub(super) fn has_ended(child: u32) -> io::Result<bool> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is a writable siginfo_t, which waitid fills or leaves zeroed, and all zeroes is a valid siginfo_t.
    let (result, info) = unsafe {
        let result = libc::waitid(libc::P_PID, child, info.as_mut_ptr(), options);
        (result, info.assume_init())
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid has filled the fields of a child's event, or all are zero.
    Ok(unsafe { info.si_pid() } != 0)
}

/// Waits for a child that has ended and says what it used.
pub(super) fn reap(child: u32) -> io::Result<Exit> {
    let child = i32::try_from(child).map_err(io::Error::other)?;
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: `status` and `usage` are writable and of the types that wait4 fills.
        let result = unsafe { libc::wait4(child, &mut status, 0, usage.as_mut_ptr()) };
        if result == child {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: wait4 has succeeded and filled it; all zeroes is valid too.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| {
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
        seconds + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    Ok(Exit {
        status: ExitStatus::from_raw(status),
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        memory_bytes_peak: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    })
}
