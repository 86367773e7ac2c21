//! What the compiler makes of the kernels: the checked-in PTX is that of the sources, and every kernel stays within
//! `cuda/limits.txt` on every generation.
//!
//! The tools are those in `PATH`, or those that `scripts/cuda-toolchain.sh` installs; without them the tests of their output say
//! SKIPPED. `ASSAY_WRITE_PTX=1` and `ASSAY_WRITE_LIMITS=1` write the files anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use assay_kernels::device::{parameters, Parameter, KERNELS};

use super::process::{hash_of, sources};

/// Each is a module of its own; `build.rs` and `src/device/cuda.rs` name the same ones.
const MODULES: [&str; 4] = ["bench", "msm", "ntt", "poseidon2"];
const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_90", "sm_100"];
/// PTX and limits are those of this compiler.
const VERSION: &str = "V13.0.88";
/// ISA of the checked-in PTX: the oldest that has what the kernels use is older, this one is CUDA 11.8's. ptxas checks that it is
/// enough; later drivers take it.
const ISA: &str = ".version 7.8";

/// The folder of nvcc 13.0.88 and its tools.
fn toolchain() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let installed =
        std::env::var_os("ASSAY_CUDA").map_or_else(|| home.join(".cache/assay/cuda"), PathBuf::from);
    let versions = std::fs::read_dir(installed.join("lib")).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        versions.map(|python| python.path().join("site-packages/nvidia/cu13/bin")).collect();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let has_all =
        |folder: &PathBuf| ["nvcc", "ptxas", "cuobjdump"].iter().all(|tool| folder.join(tool).is_file());
    let right = |folder: &PathBuf| run(folder, "nvcc", &["--version"]).contains(VERSION);
    let found = folders.into_iter().filter(has_all).find(right);
    if found.is_none() {
        eprintln!("SKIPPED: no nvcc {VERSION} on this machine (scripts/cuda-toolchain.sh installs it)");
    }
    found
}

/// What a tool says on both outputs; it must succeed.
fn run(folder: &Path, tool: &str, arguments: &[&str]) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path))).unwrap();
    let output = Command::new(folder.join(tool)).args(arguments).env("PATH", path).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{tool} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

fn ptx_path(module: &str) -> PathBuf {
    sources().join("ptx").join(module).with_extension("ptx")
}

/// The first line of a module's PTX: what it was made from.
fn head(module: &str) -> String {
    let hash = hash_of(&[sources()], &[".cuh", &format!("/{module}.cu")]);
    format!("// Generated from {module}.cu and its headers, BLAKE3 {hash}, by nvcc {VERSION}: do not edit.")
}

/// PTX without comments, and with the ISA's version that it needs.
fn ptx_of(folder: &Path, module: &str) -> String {
    let out = tempfile::tempdir().unwrap();
    let (out, source) = (out.path().join("ptx"), sources().join(module).with_extension("cu"));
    let (out_text, source) = (out.to_str().unwrap(), source.to_str().unwrap());
    run(folder, "nvcc", &["-std=c++17", "-O3", "-ptx", "-arch=compute_80", "-o", out_text, source]);
    let text = std::fs::read_to_string(&out).unwrap();
    let code = text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"));
    let code = code.map(|line| if line.starts_with(".version") { ISA } else { line });
    format!("{}\n{}\n", head(module), code.collect::<Vec<_>>().join("\n"))
}

#[test]
fn checked_in_ptx_is_that_of_the_sources() {
    if std::env::var_os("ASSAY_WRITE_PTX").is_some() {
        let folder = toolchain().expect("writing PTX needs nvcc");
        for module in MODULES {
            std::fs::write(ptx_path(module), ptx_of(&folder, module)).unwrap();
        }
    }
    for module in MODULES {
        let text = std::fs::read_to_string(ptx_path(module)).unwrap();
        assert_eq!(text.lines().next(), Some(head(module).as_str()), "{module}: run with ASSAY_WRITE_PTX=1");
        assert!(text.contains(ISA));
    }
}

#[test]
#[ignore = "compiles every kernel: a minute where nvcc is installed"]
fn checked_in_ptx_is_what_nvcc_makes() {
    let Some(folder) = toolchain() else { return };
    for module in MODULES {
        assert!(ptx_of(&folder, module) == std::fs::read_to_string(ptx_path(module)).unwrap(), "{module}");
    }
}

/// The kernels of a source with their parameters as in [`KERNELS`].
fn signatures(source: &str) -> Vec<(String, String)> {
    let declarations = source.split("extern \"C\" __global__").skip(1);
    let declaration = |text: &str| {
        let text = text.split_once('{').unwrap().0;
        let text = text.find("__launch_bounds__").map_or(text, |at| text[at..].split_once(')').unwrap().1);
        let (name, parameters) = text.split_once('(').unwrap();
        let parameters = parameters.rsplit_once(')').unwrap().0;
        let mark = |parameter: &str| if parameter.contains('*') { '*' } else { '#' };
        let name = name.split_whitespace().last().unwrap();
        (name.to_owned(), parameters.split(',').map(mark).collect())
    };
    declarations.map(declaration).collect()
}

#[test]
fn the_table_of_kernels_is_that_of_the_sources() {
    let mut found: Vec<(String, String)> = Vec::new();
    for module in MODULES {
        found.extend(signatures(
            &std::fs::read_to_string(sources().join(module).with_extension("cu")).unwrap(),
        ));
    }
    found.sort();
    let expected: Vec<(String, String)> = KERNELS.map(|(name, marks)| (name.into(), marks.into())).to_vec();
    assert_eq!(found, expected);
    assert_eq!(
        parameters("msm_scan_kernel"),
        Some(vec![Parameter::Buffer, Parameter::Buffer, Parameter::Number])
    );
    assert_eq!(parameters("no_such_kernel"), None);
}

/// What one kernel takes on one generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Report {
    registers: u32,
    stack: u32,
    spills: u32,
    instructions: u32,
    /// IMAD.WIDE, where the work is.
    wide: u32,
}

/// The numbers before `unit`, in the order of the text.
fn numbers_before(text: &str, unit: &str) -> Vec<u32> {
    let numbers = text.match_indices(unit).map(|(at, _)| text[..at].trim_end().rsplit(' ').next().unwrap());
    numbers.map(|number| number.parse().unwrap()).collect()
}

/// Reads `ptxas -v`: one paragraph a kernel.
fn read_resources(report: &str) -> BTreeMap<String, Report> {
    let paragraphs = report.split("Compiling entry function '").skip(1);
    let paragraph = |text: &str| {
        let (name, text) = text.split_once('\'').unwrap();
        let properties = &text[text.find(&format!("Function properties for {name}")).unwrap()..];
        let properties: String = properties.lines().skip(1).take(2).collect::<Vec<_>>().join("\n");
        let report = Report {
            registers: numbers_before(&properties, "registers")[0],
            stack: numbers_before(&properties, "bytes stack frame")[0],
            spills: numbers_before(&properties, "bytes spill").iter().sum(),
            ..Report::default()
        };
        (name.to_owned(), report)
    };
    paragraphs.map(paragraph).collect()
}

/// Adds the instruction counts of a disassembly.
fn read_instructions(sass: &str, reports: &mut BTreeMap<String, Report>) {
    for function in sass.split("Function : ").skip(1) {
        let name = function.lines().next().unwrap().trim();
        let Some(report) = reports.get_mut(name) else { continue };
        let operation = |line: &str| {
            let (_, code) = line.trim().strip_prefix("/*")?.split_once("*/")?;
            let code = code.trim_start();
            let code = if code.starts_with('@') { code.split_once(' ')?.1.trim_start() } else { code };
            (!code.is_empty() && !code.starts_with("/*"))
                .then(|| code.split([' ', ';']).next().unwrap().to_owned())
        };
        let operations: Vec<String> =
            function.lines().filter_map(operation).filter(|code| code != "NOP").collect();
        report.instructions = operations.len() as u32;
        report.wide = operations.iter().filter(|code| code.starts_with("IMAD.WIDE")).count() as u32;
    }
}

/// Compiles the checked-in PTX of all modules for one generation.
fn measure(folder: &Path, architecture: &str) -> BTreeMap<String, Report> {
    let out = tempfile::tempdir().unwrap();
    let cubin = out.path().join("cubin");
    let cubin = cubin.to_str().unwrap();
    let target = format!("-arch={architecture}");
    let mut all = BTreeMap::new();
    for module in MODULES {
        let report = run(folder, "ptxas", &["-v", &target, "-o", cubin, ptx_path(module).to_str().unwrap()]);
        let mut reports = read_resources(&report);
        read_instructions(&run(folder, "cuobjdump", &["-sass", cubin]), &mut reports);
        all.extend(reports);
    }
    all
}

fn limits_path() -> PathBuf {
    sources().join("limits.txt")
}

/// Lines of `architecture kernel registers stack instructions wide`.
fn read_limits(text: &str) -> BTreeMap<(String, String), Report> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| words[index].parse().unwrap();
        let limit = Report {
            registers: number(2),
            stack: number(3),
            spills: 0,
            instructions: number(4),
            wide: number(5),
        };
        ((words[0].to_owned(), words[1].to_owned()), limit)
    };
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(line).collect()
}

const LIMITS_HEAD: &str = "\
# What the kernels may take of each generation, from ptxas and the disassembly of nvcc 13.0.88. Nothing may spill.
# Written by tests/cuda_shim/compiler.rs with ASSAY_WRITE_LIMITS=1: registers and stack as measured, counts plus 3 %.
# architecture kernel registers stack_bytes instructions imad_wide
";

/// Holds one generation against the limits, or writes its lines.
fn gate(architecture: &str) {
    let Some(folder) = toolchain() else { return };
    let measured = measure(&folder, architecture);
    assert!(KERNELS.iter().all(|(name, _)| measured.contains_key(*name)), "a kernel was not compiled");
    let text = std::fs::read_to_string(limits_path()).unwrap_or_default();
    let mut limits = read_limits(&text);
    if std::env::var_os("ASSAY_WRITE_LIMITS").is_some() {
        for (name, report) in &measured {
            let margin = |count: u32| count + count * 3 / 100;
            let (instructions, wide) = (margin(report.instructions), margin(report.wide));
            let limit = Report { instructions, wide, spills: 0, ..*report };
            limits.insert((architecture.into(), name.clone()), limit);
        }
        let line = |((architecture, name), limit): (&(String, String), &Report)| {
            format!(
                "{architecture} {name} {} {} {} {}\n",
                limit.registers, limit.stack, limit.instructions, limit.wide
            )
        };
        let lines: String = limits.iter().map(line).collect();
        std::fs::write(limits_path(), format!("{LIMITS_HEAD}{lines}")).unwrap();
    }
    for (name, report) in &measured {
        let limit = limits.get(&(architecture.into(), name.clone()));
        let limit = limit.unwrap_or_else(|| panic!("{name} has no limits on {architecture}"));
        let over = exceeded(report, limit);
        assert!(over.is_empty(), "{name} on {architecture} exceeds {over:?}: {report:?}, limits {limit:?}");
    }
}

/// What is above its limit.
fn exceeded(report: &Report, limit: &Report) -> Vec<&'static str> {
    let pairs = [
        ("registers", report.registers, limit.registers),
        ("stack", report.stack, limit.stack),
        ("spills", report.spills, 0),
        ("instructions", report.instructions, limit.instructions),
        ("IMAD.WIDE", report.wide, limit.wide),
    ];
    pairs.into_iter().filter(|(_, used, limit)| used > limit).map(|(what, ..)| what).collect()
}

#[test]
#[ignore = "disassembles every kernel: a minute where nvcc is installed"]
fn kernels_stay_within_their_limits_on_an_h100() {
    gate("sm_90");
}

#[test]
#[ignore = "disassembles every kernel: two minutes where nvcc is installed"]
fn kernels_stay_within_their_limits_on_the_other_generations() {
    for architecture in ARCHITECTURES.into_iter().filter(|architecture| *architecture != "sm_90") {
        gate(architecture);
    }
}

#[test]
fn every_kernel_has_limits_on_every_generation() {
    let limits = read_limits(&std::fs::read_to_string(limits_path()).unwrap());
    let names: Vec<(String, String)> = limits.into_keys().collect();
    let mut expected: Vec<(String, String)> = ARCHITECTURES
        .iter()
        .flat_map(|architecture| KERNELS.map(|(name, _)| ((*architecture).to_owned(), name.to_owned())))
        .collect();
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn reports_of_the_compiler_are_understood_and_excesses_are_named() {
    let text = "ptxas info    : Compiling entry function 'a_kernel' for 'sm_90'\n\
        ptxas info    : Function properties for a_kernel\n    \
        16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n\
        ptxas info    : Used 64 registers, used 1 barriers, 32 bytes smem\n\
        ptxas info    : Compile time = 38.511 ms\n\
        ptxas info    : Function properties for helper\n    \
        0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n";
    let mut reports = read_resources(text);
    let sass = "Function : a_kernel\n .headerflags @\"x\"\n        /*0000*/   LDC R1, c[0x0][0x28] ;   /* 0x00 */\n   \
        /* 0x01 */\n        /*0010*/   @P0 EXIT ;  /* 0x02 */\n        /*0020*/ IMAD.WIDE.U32 R2, R3, R4, RZ ; /* 0x3 */\n  \
        /*0030*/ NOP ; /* 0x04 */\n";
    read_instructions(sass, &mut reports);
    let report = Report { registers: 64, stack: 16, spills: 12, instructions: 3, wide: 1 };
    assert_eq!(reports, BTreeMap::from([("a_kernel".to_owned(), report)]));
    assert_eq!(exceeded(&report, &report), ["spills"]);
    let tight = Report { registers: 63, stack: 15, instructions: 2, wide: 0, ..report };
    assert_eq!(exceeded(&report, &tight), ["registers", "stack", "spills", "instructions", "IMAD.WIDE"]);
}
