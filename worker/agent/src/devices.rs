//! The machine: its memory, its processor's model, its GPUs.

use std::collections::BTreeMap;
use std::process::Command;

use crate::runner::Device;

/// Model of the processor, `cpu` where /proc does not say.
pub fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| "cpu".to_owned(), |(_, name)| name.trim().to_owned())
}

/// Memory of the machine, 0 where /proc does not say.
pub fn memory_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// The GPUs that `CUDA_VISIBLE_DEVICES` leaves to this process, all if it is not set, and their models, as the driver lists them;
/// none without a driver.
pub fn gpus() -> Vec<(Device, String)> {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    parse_gpus(&ask_driver("index,uuid,name"), visible.as_deref())
}

/// Memory of the machine's GPUs, as far as the driver says, bytes.
pub fn gpu_memory_bytes() -> BTreeMap<Device, u64> {
    parse_gpu_memory(&ask_driver("index,memory.total"))
}

/// One line for each GPU, nothing without a driver.
fn ask_driver(fields: &str) -> String {
    let query = format!("--query-gpu={fields}");
    match Command::new("nvidia-smi").args([&query, "--format=csv,noheader,nounits"]).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => String::new(),
    }
}

/// The driver counts MiB.
fn parse_gpu_memory(text: &str) -> BTreeMap<Device, u64> {
    let gpus = text.lines().filter_map(|line| {
        let (index, mib) = line.split_once(',')?;
        let mib: u64 = mib.trim().parse().ok()?;
        Some((Device::Gpu(index.trim().parse().ok()?), mib << 20))
    });
    gpus.collect()
}

/// Lines `index, uuid, name`, as far as `visible` has their number or the beginning of their UUID. Parts of GPUs (MIG) are not told
/// apart: where it names any, nothing is left out.
fn parse_gpus(text: &str, visible: Option<&str>) -> Vec<(Device, String)> {
    let named: Option<Vec<&str>> = visible
        .filter(|visible| !visible.contains("MIG"))
        .map(|visible| visible.split(',').map(str::trim).filter(|name| !name.is_empty()).collect());
    let gpus = text.lines().filter_map(|line| {
        let (index, rest) = line.split_once(',')?;
        let (uuid, name) = rest.split_once(',')?;
        let number: u32 = index.trim().parse().ok()?;
        let is_meant = |wanted: &&str| match wanted.parse::<u32>() {
            Ok(wanted) => wanted == number,
            Err(_) => uuid.trim().starts_with(*wanted),
        };
        let is_left = named.as_ref().is_none_or(|named| named.iter().any(is_meant));
        is_left.then(|| (Device::Gpu(number), name.trim().to_owned()))
    });
    gpus.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "0, GPU-5ebd, NVIDIA H200\n1, GPU-77aa, NVIDIA GeForce RTX 4090, really\nNo devices were found\nx, y, z\n";

    #[test]
    fn the_drivers_list_is_read_and_what_is_no_gpu_is_not() {
        let expected = [
            (Device::Gpu(0), "NVIDIA H200".to_owned()),
            (Device::Gpu(1), "NVIDIA GeForce RTX 4090, really".to_owned()),
        ];
        assert_eq!(parse_gpus(LIST, None), expected);
    }

    #[test]
    fn gpus_that_this_process_is_not_to_use_are_left_out() {
        let left = |visible| -> Vec<Device> {
            parse_gpus(LIST, Some(visible)).into_iter().map(|(device, _)| device).collect()
        };
        assert_eq!(left("1"), [Device::Gpu(1)]);
        assert_eq!(left("1, 0"), [Device::Gpu(0), Device::Gpu(1)]);
        assert_eq!(left("GPU-77"), [Device::Gpu(1)]);
        assert_eq!(left("10"), []);
        assert_eq!(left(""), []);
        assert_eq!(left("MIG-5ebd").len(), 2);
    }

    #[test]
    fn memory_that_the_driver_does_not_say_is_not_known() {
        let text = "0, 143771\n1, [N/A]\n2, 24564\n";
        let expected = [(Device::Gpu(0), 143_771 << 20), (Device::Gpu(2), 24_564 << 20)];
        assert_eq!(parse_gpu_memory(text), BTreeMap::from(expected));
    }

    #[test]
    fn this_machine_has_memory_and_a_processor() {
        assert!(memory_bytes() > 1 << 28);
        assert!(!cpu_model().is_empty());
    }
}
