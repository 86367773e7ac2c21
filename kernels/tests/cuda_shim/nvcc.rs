//! What nvcc makes of the kernels: registers, stack and spills. SKIPPED where there is no nvcc (`docs`: CUDA 13.0).

use std::process::Command;

use super::process::sources;

/// Kernel, registers at most. Nothing may spill; stack frames are allowed where functions are called out of line.
const NTT: [(&str, u32); 3] =
    [("ntt_split_kernel", 64), ("ntt_merge_kernel", 64), ("ntt_radix3_kernel", 128)];

#[test]
fn transforms_fit_their_registers() {
    if Command::new("nvcc").arg("--version").output().map_or(true, |output| !output.status.success()) {
        eprintln!("SKIPPED: no nvcc on this machine, so registers and spills are not checked");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("nvcc")
        .args(["-std=c++17", "-O3", "-arch=sm_90", "-cubin", "-Xptxas", "-v", "-o"])
        .arg(folder.path().join("ntt.cubin"))
        .arg(sources().join("ntt.cu"))
        .output()
        .unwrap();
    let report = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{report}");
    for (kernel, limit) in NTT {
        let (_, part) = report.split_once(&format!("entry function '{kernel}'")).unwrap();
        assert!(
            part.lines().nth(2).unwrap().contains("0 bytes spill stores, 0 bytes spill loads"),
            "{kernel} spills"
        );
        let (_, used) = part.split_once("Used ").unwrap();
        let registers: u32 = used.split_once(' ').unwrap().0.parse().unwrap();
        assert!(registers <= limit, "{kernel}: {registers} registers, at most {limit}");
    }
}
