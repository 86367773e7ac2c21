//! The headers of constants are what arkworks' numbers give. `ASSAY_WRITE_CONSTANTS=1` writes them anew.

use std::fmt::Write;

use ark_bn254::{Fq, Fr};
use ark_ff::{BigInt, PrimeField};
use assay_kernels::poseidon2::round_constants;

use super::process::sources;

fn halves(words: [u64; 4]) -> [u32; 8] {
    std::array::from_fn(|i| (words[i / 2] >> (32 * (i % 2))) as u32)
}

fn function(out: &mut String, name: &str, doc: &str, words: [u64; 4]) {
    let words = halves(words);
    writeln!(out, "  // Word i of {doc}.\n  static __device__ constexpr uint32_t {name}(int i) {{").unwrap();
    write!(out, "    return ").unwrap();
    for (i, word) in words.iter().enumerate() {
        let end = if i == 7 {
            ";\n"
        } else if i == 3 {
            "\n           : "
        } else {
            " : "
        };
        if i < 7 {
            write!(out, "i == {i} ? 0x{word:08x}u{end}").unwrap();
        } else {
            write!(out, "0x{word:08x}u{end}").unwrap();
        }
    }
    writeln!(out, "  }}").unwrap();
}

fn parameters<F: PrimeField<BigInt = BigInt<4>>>(name: &str, montgomery: impl Fn(F) -> [u64; 4]) -> String {
    let mut out = String::new();
    let modulus = F::MODULUS.0;
    // -1/p mod 2^32 by Newton's iteration.
    let low = modulus[0] as u32;
    let inverse = (0..5).fold(1u32, |x, _| x.wrapping_mul(2u32.wrapping_sub(low.wrapping_mul(x))));
    writeln!(out, "struct {name} {{").unwrap();
    writeln!(out, "  // -1 / p mod 2^32.").unwrap();
    writeln!(out, "  static constexpr uint32_t INVERSE_NEGATED = 0x{:08x}u;\n", inverse.wrapping_neg())
        .unwrap();
    function(&mut out, "modulus", "p", modulus);
    function(&mut out, "half", "(p - 1) / 2", F::MODULUS_MINUS_ONE_DIV_TWO.0);
    function(&mut out, "one", "R mod p: one", montgomery(F::ONE));
    let r = F::from(2u64).pow([256]);
    function(&mut out, "square_of_r", "R^2 mod p", montgomery(r));
    writeln!(out, "}};").unwrap();
    out
}

const HEAD: &str =
    "// Derived from arkworks, and checked, by tests/cuda_shim/constants.rs: do not edit.\n#pragma once\n";

fn field_header() -> String {
    let fr = parameters::<Fr>("FrParameters", |x| x.0 .0);
    let fq = parameters::<Fq>("FqParameters", |x| x.0 .0);
    format!("{HEAD}#include \"device.cuh\"\n\n{fr}\n{fq}")
}

fn poseidon2_header() -> String {
    let mut out = format!("{HEAD}#include \"device.cuh\"\n");
    let constants = round_constants();
    let tables = [
        ("POSEIDON2_FULL", "full rounds, 3 elements each, Montgomery", constants.full.as_flattened()),
        ("POSEIDON2_PARTIAL", "partial rounds, Montgomery", &constants.partial[..]),
    ];
    for (name, doc, table) in tables {
        writeln!(out, "\n// Round constants of the {doc}.").unwrap();
        writeln!(out, "static __constant__ const uint32_t {name}[{}] = {{", 8 * table.len()).unwrap();
        for constant in table {
            let words: Vec<String> =
                halves(constant.0 .0).iter().map(|word| format!("0x{word:08x}")).collect();
            writeln!(out, "    {},", words.join(", ")).unwrap();
        }
        writeln!(out, "}};").unwrap();
    }
    out
}

#[test]
fn constants_of_the_headers_are_derived_from_arkworks() {
    for (name, text) in [("constants.cuh", field_header()), ("poseidon2_constants.cuh", poseidon2_header())] {
        let path = sources().join(name);
        if std::env::var_os("ASSAY_WRITE_CONSTANTS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap() == text, "{name} is not what arkworks gives");
    }
}
