//! Processor time of processes, and percentiles.

use std::time::Duration;

/// Clock ticks a second in `/proc/<pid>/stat`: fixed in Linux's interface.
const TICKS: u64 = 100;

/// User and system time that a process has taken so far, all its threads together.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    // Fields 14 and 15 of the line; the first one after the name is number 3.
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// Processor time of the three processes.
#[derive(Clone, Copy)]
pub(crate) struct Times([Duration; 3]);

impl Times {
    pub(crate) const NAMES: [&'static str; 3] = ["leader", "redis", "workers"];

    pub(crate) fn of(pids: [u32; 3]) -> Self {
        Self(pids.map(cpu))
    }

    /// Microseconds that each has taken since `before`, for one of `tasks`.
    pub(crate) fn per_task_us(self, before: Self, tasks: u64) -> [f64; 3] {
        let mut spent = [0.0; 3];
        for (at, spent) in spent.iter_mut().enumerate() {
            *spent = self.0[at].saturating_sub(before.0[at]).as_secs_f64() * 1e6 / tasks.max(1) as f64;
        }
        spent
    }
}

/// The machine's load average over the last minute.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// The value below which a share (thousandths) of sorted values is; 0 of none.
pub(crate) fn percentile(sorted: &[u64], permille: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * permille / 1000).copied().unwrap_or(0)
}
