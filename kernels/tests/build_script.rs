//! `build.rs` with compilers that are shell scripts: which one is taken, and what becomes of one that fails.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[allow(dead_code, reason = "cargo runs its main, not the tests")]
#[path = "../build.rs"]
mod build;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A program cannot be started while a child that another thread has just forked holds it open for writing.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A program in a folder of its own.
fn program(folder: &Path, name: &str, script: &str) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Says its version, and writes its last argument's name to the file after `-o`.
const WORKS: &str = "\
    [ \"$1\" = --version ] && exit 0\n\
    while [ $# -gt 1 ]; do [ \"$1\" = -o ] && out=$2; shift; done\n\
    echo \"$1\" >\"$out\"";
const HAS_NO_VERSION: &str = "exit 1";

fn found(settings: &[(&str, &Path)]) -> Result<Option<PathBuf>, String> {
    let setting =
        |name: &str| settings.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    build::find_nvcc(setting)
}

#[test]
fn nvcc_is_the_named_one_then_that_of_cuda_home_then_that_of_path() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let named = program(&at("named"), "my-nvcc", WORKS);
    let home = program(&at("home/bin"), "nvcc", WORKS);
    let path = program(&at("path"), "nvcc", WORKS);
    let broken = program(&at("broken"), "nvcc", HAS_NO_VERSION);
    let search = std::env::join_paths([at("nowhere"), at("broken"), at("path")]).unwrap();
    let (all, search) = (at("home"), Path::new(&search));
    assert_eq!(found(&[("ASSAY_NVCC", &named), ("CUDA_HOME", &all), ("PATH", search)]), Ok(Some(named)));
    assert_eq!(found(&[("ASSAY_NVCC", Path::new("off")), ("CUDA_HOME", &all), ("PATH", search)]), Ok(None));
    assert_eq!(found(&[("CUDA_HOME", &all), ("PATH", search)]), Ok(Some(home)));
    assert_eq!(found(&[("CUDA_HOME", &at("nowhere")), ("PATH", search)]), Ok(Some(path)));
    assert!(found(&[("PATH", &at("broken"))]).unwrap_err().contains("no nvcc in CUDA_HOME or PATH"));
    let refused = found(&[("ASSAY_NVCC", &broken), ("PATH", search)]).unwrap_err();
    assert!(refused.contains("broken/nvcc of ASSAY_NVCC is no nvcc"), "{refused}");
}

#[test]
fn every_source_is_compiled_or_every_image_is_empty() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let works = program(out, "works", WORKS);
    let fails =
        program(out, "fails", &format!("case \"$*\" in *ntt.cu) echo no >&2; exit 2;; esac\n{WORKS}"));
    let images =
        || build::SOURCES.map(|name| std::fs::read_to_string(out.join(format!("{name}.fatbin"))).unwrap());
    let sources = Path::new("cuda");
    assert_eq!(build::compile_all(Some(&works), sources, out), Ok(()));
    assert_eq!(images(), build::SOURCES.map(|name| format!("cuda/{name}.cu\n")));
    let why = build::compile_all(Some(&fails), sources, out).unwrap_err();
    assert_eq!(why, "nvcc failed on cuda/ntt.cu: no");
    assert_eq!(images(), [""; 4]);
    assert_eq!(build::compile_all(Some(&works), sources, out), Ok(()));
    assert_eq!(build::compile_all(None, sources, out), Ok(()));
    assert_eq!(images(), [""; 4]);
    assert!(build::compile_all(Some(&out.join("gone")), sources, out).is_err());
    assert_eq!(images(), [""; 4]);
}
