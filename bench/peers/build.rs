//! Compiles `sppark.cpp` against the headers of the crates sppark and blst.

use std::env::var_os;

fn main() {
    println!("cargo::rerun-if-changed=src/sppark.cpp");
    let mut build = cc::Build::new();
    for name in ["DEP_BLST_C_SRC", "DEP_SPPARK_ROOT"] {
        build.include(var_os(name).unwrap_or_else(|| panic!("{name} is not set by its crate")));
    }
    build.cpp(true).std("c++17").opt_level(3).flag("-march=native").warnings(false);
    build.file("src/sppark.cpp").compile("peers_sppark");
}
