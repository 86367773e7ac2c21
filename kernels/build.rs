//! With the feature `cuda`: machine code and PTX for the kernels, if nvcc is found; else the checked-in PTX alone is used. Without
//! the feature nothing is looked for.
//!
//! nvcc is the one that `ASSAY_NVCC` names (`off`: none), else that of `$CUDA_HOME/bin`, else the one in `PATH`;
//! `scripts/cuda-toolchain.sh` installs one. If it is missing or fails, that is a warning.

use std::ffi::{OsStr, OsString};
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
    for variable in ["ASSAY_NVCC", "CUDA_HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let compiled = match find_nvcc() {
        Ok(Some(nvcc)) => SOURCES.iter().try_for_each(|name| compile(&nvcc, name, &image(&folder, name))),
        Ok(None) => Err(None),
        Err(why) => Err(Some(why)),
    };
    if let Err(why) = compiled {
        // All from one compiler or none: the modules are used together.
        SOURCES
            .iter()
            .for_each(|name| std::fs::write(image(&folder, name), []).expect("OUT_DIR can be written"));
        if let Some(why) = why {
            println!("cargo::warning={why}: the GPU will run the checked-in PTX");
        }
    }
}

fn image(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).with_extension("fatbin")
}

/// The compiler; `None` if none is wanted.
fn find_nvcc() -> Result<Option<OsString>, String> {
    let works = |nvcc: &OsStr| {
        Command::new(nvcc).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    if let Some(named) = std::env::var_os("ASSAY_NVCC").filter(|named| !named.is_empty()) {
        if named == "off" {
            return Ok(None);
        }
        return if works(&named) {
            Ok(Some(named))
        } else {
            Err(format!("ASSAY_NVCC is {named:?}, no nvcc"))
        };
    }
    let home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc").into_os_string());
    let found = home.into_iter().chain([OsString::from("nvcc")]).find(|nvcc| works(nvcc));
    found.map(Some).ok_or_else(|| "no nvcc in CUDA_HOME or PATH".into())
}

/// Writes `out`, or says why not.
fn compile(nvcc: &OsStr, name: &str, out: &Path) -> Result<(), Option<String>> {
    let source = Path::new("cuda").join(name).with_extension("cu");
    let output = Command::new(nvcc)
        .args(["-std=c++17", "-O3", "-fatbin", "-gencode", CODE, "-o"])
        .arg(out)
        .arg(&source)
        .output();
    let why = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => {
            String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("no message").to_owned()
        }
        Err(error) => error.to_string(),
    };
    Err(Some(format!("nvcc failed on {}: {why}", source.display())))
}
