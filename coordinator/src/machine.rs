//! What the report says about the machine, and the memory of processes (Linux, from `/proc`).

use serde::{Deserialize, Serialize};

/// The machine a proof was made on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Processor, as the kernel names it.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Operating system.
    pub os: String,
    /// Whether the processor has AVX-512 IFMA, which the field arithmetic uses.
    pub avx512_ifma: bool,
}

impl Machine {
    /// Describes this machine; what cannot be found out is "unknown" or 0.
    pub fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let unknown = || "unknown".to_owned();
        Self {
            cpu: value(&read("/proc/cpuinfo"), "model name", ':').unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: kibibytes(&read("/proc/meminfo"), "MemTotal"),
            os: value(&read("/etc/os-release"), "PRETTY_NAME", '=')
                .map_or_else(unknown, |name| name.trim_matches('"').to_owned()),
            avx512_ifma: has_ifma(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_ifma() -> bool {
    std::arch::is_x86_feature_detected!("avx512ifma")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_ifma() -> bool {
    false
}

/// Resident memory of a process in bytes, 0 if it cannot be read (any more).
pub fn resident_bytes(pid: u32) -> u64 {
    kibibytes(&std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), "VmRSS")
}

/// Makes a process's peak memory (`VmHWM`) start again at what it holds now, so that each job has its own peak.
///
/// Where the kernel refuses, peaks are those of the whole process.
pub fn forget_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

fn value(text: &str, name: &str, separator: char) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

fn kibibytes(text: &str, name: &str) -> u64 {
    let number =
        value(text, name, ':').and_then(|v| v.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()));
    number.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_no_process_uses_none() {
        assert!(resident_bytes(std::process::id()) > 100_000);
        assert_eq!(resident_bytes(u32::MAX), 0);
    }

    #[test]
    fn a_forgotten_peak_is_not_above_what_is_held_now() {
        let peak = || kibibytes(&std::fs::read_to_string("/proc/self/status").unwrap(), "VmHWM");
        let block = vec![1u8; 256 << 20];
        let high = peak();
        assert!(high > block.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        drop(block);
        forget_peak(std::process::id());
        assert!(peak() < high, "{} not below {high}", peak());
    }

    #[test]
    fn fields_of_proc_files_are_found_by_their_whole_name() {
        let text = "VmRSSx:\t1 kB\nVmRSS:\t  20 kB\n";
        assert_eq!(kibibytes(text, "VmRSS"), 20 * 1024);
        assert_eq!(kibibytes(text, "Vm"), 0);
    }
}
