//! With the feature `cuda`: machine code and PTX for the kernels, if nvcc is found; else the checked-in PTX alone is used. Without
//! the feature nothing is looked for.
//!
//! nvcc is the one that `ASSAY_NVCC` names (`off`: none), else that of `$CUDA_HOME/bin`, else the first one in `PATH`;
//! `scripts/cuda-toolchain.sh` installs one. If it is missing or fails, that is a warning.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each is a module of its own, compiled beside the others.
pub(crate) const SOURCES: [&str; 4] = ["bench", "msm", "ntt", "poseidon2"];
/// Compiled to PTX once, and from there for each generation: A100, H100 and H200, B200. Others take the PTX.
const CODE: &str = "arch=compute_80,code=[compute_80,sm_80,sm_90,sm_100]";
/// What decides which nvcc is taken.
const VARIABLES: [&str; 3] = ["ASSAY_NVCC", "CUDA_HOME", "PATH"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed=cuda");
    VARIABLES.iter().for_each(|variable| println!("cargo::rerun-if-env-changed={variable}"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let warning = match find_nvcc(|variable| std::env::var_os(variable)) {
        Ok(nvcc) => compile_all(nvcc.as_deref(), Path::new("cuda"), &out).err(),
        Err(why) => compile_all(None, Path::new("cuda"), &out).err().or(Some(why)),
    };
    if let Some(why) = warning {
        println!("cargo::warning={why}: the GPU will run the checked-in PTX");
    }
}

/// The compiler, by environment variables; `None` if none is wanted.
pub(crate) fn find_nvcc(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<PathBuf>, String> {
    let works = |nvcc: &PathBuf| {
        Command::new(nvcc).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    let [named, home, path] = VARIABLES.map(|name| variable(name).filter(|value| !value.is_empty()));
    if let Some(named) = named {
        let nvcc = PathBuf::from(&named);
        return match named.to_str() {
            Some("off") => Ok(None),
            _ if works(&nvcc) => Ok(Some(nvcc)),
            _ => Err(format!("{} of ASSAY_NVCC is no nvcc", nvcc.display())),
        };
    }
    let home = home.map(|home| Path::new(&home).join("bin"));
    let folders = home.into_iter().chain(path.iter().flat_map(std::env::split_paths));
    let found = folders.map(|folder| folder.join("nvcc")).find(|nvcc| nvcc.is_file() && works(nvcc));
    found.map(Some).ok_or_else(|| "no nvcc in CUDA_HOME or PATH".into())
}

/// Writes the code of every source to `out`: of all by one compiler, or empty files, for they are used together.
///
/// # Errors
/// Why they are empty though there is a compiler.
pub(crate) fn compile_all(nvcc: Option<&Path>, sources: &Path, out: &Path) -> Result<(), String> {
    let image = |name: &str| out.join(name).with_extension("fatbin");
    let compile = |nvcc| {
        SOURCES
            .iter()
            .try_for_each(|name| compile(nvcc, &sources.join(name).with_extension("cu"), &image(name)))
    };
    let compiled = nvcc.map(compile);
    if compiled != Some(Ok(())) {
        SOURCES.iter().for_each(|name| std::fs::write(image(name), []).expect("OUT_DIR can be written"));
    }
    compiled.unwrap_or(Ok(()))
}

/// Writes `out`, or says why not.
fn compile(nvcc: &Path, source: &Path, out: &Path) -> Result<(), String> {
    let output = Command::new(nvcc)
        .args(["-std=c++17", "-O3", "-fatbin", "-gencode", CODE, "-o"])
        .arg(out)
        .arg(source)
        .output();
    let why = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => {
            String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("no message").to_owned()
        }
        Err(error) => error.to_string(),
    };
    Err(format!("nvcc failed on {}: {why}", source.display()))
}
