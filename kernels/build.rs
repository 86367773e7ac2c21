//! With the feature `cuda`: machine code and PTX for the kernels, if nvcc is found; else the checked-in PTX alone is used.
//!
//! nvcc is `$NVCC`, or the one in `PATH`: `scripts/cuda-toolchain.sh` installs one.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Each is a module of its own, compiled beside the others.
const SOURCES: [&str; 4] = ["bench", "msm", "ntt", "poseidon2"];
/// Compiled to PTX once, and from there for each generation: A100, H100 and H200, B200. Others take the PTX.
const CODE: &str = "arch=compute_80,code=[compute_80,sm_80,sm_90,sm_100]";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed=cuda");
    println!("cargo::rerun-if-env-changed=NVCC");
    println!("cargo::rerun-if-env-changed=PATH");
    let nvcc = std::env::var_os("NVCC").unwrap_or_else(|| "nvcc".into());
    let found = Command::new(&nvcc).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("cargo::warning=no nvcc in NVCC or PATH: the GPU will run the checked-in PTX");
    }
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for name in SOURCES {
        let out = folder.join(name).with_extension("fatbin");
        if !found || !compile(&nvcc, name, &out) {
            std::fs::write(&out, []).expect("OUT_DIR can be written");
        }
    }
}

/// Whether `out` is there now.
fn compile(nvcc: &std::ffi::OsStr, name: &str, out: &Path) -> bool {
    let source = Path::new("cuda").join(name).with_extension("cu");
    let output = Command::new(nvcc)
        .args(["-std=c++17", "-O3", "-fatbin", "-gencode", CODE, "-o"])
        .arg(out)
        .arg(&source)
        .output();
    let why = match output {
        Ok(output) if output.status.success() => return true,
        Ok(output) => {
            String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("no message").to_owned()
        }
        Err(error) => error.to_string(),
    };
    println!(
        "cargo::warning=nvcc failed on {}: {why}; the GPU will run the checked-in PTX",
        source.display()
    );
    false
}
