//! Precompiles by system calls: the results and the gas of go-ethereum's vectors, and what each costs in cycles.

use sha2::{Digest, Sha256};

use crate::execute::{answers, shared_data, Answer, VECTORS_ELF};

const BERLIN: u8 = 0;
const PRAGUE: u8 = 1;
const OSAKA: u8 = 2;

const ECRECOVER: u8 = 1;
const SHA256: u8 = 2;
const MODEXP: u8 = 5;
const BN254_ADD: u8 = 6;
const BN254_MUL: u8 = 7;
const BN254_PAIRING: u8 = 8;
const BLAKE2F: u8 = 9;

fn call(fork: u8, address: u8, input: &[u8]) -> Vec<u8> {
    [&[1, fork, address][..], input].concat()
}

fn keccak(message: &[u8]) -> Vec<u8> {
    [&[2][..], message].concat()
}

fn word(value: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[24..].copy_from_slice(&value.to_be_bytes());
    bytes
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    hex::decode(hexadecimal).expect("hex")
}

fn failed() -> Answer {
    Answer { success: false, gas: 0, bytes: vec![] }
}

#[test]
fn the_program_is_the_one_whose_hash_is_committed() {
    let committed = include_str!("../../../lvm/guest/elf/vectors.elf.sha256");
    assert_eq!(committed, format!("{}  vectors.elf\n", hex::encode(Sha256::digest(VECTORS_ELF))));
}

#[test]
fn hashes_of_all_lengths_around_the_block_size_are_right() {
    let message: Vec<u8> = (0..600_u32).map(|i| (i * 7 + 3) as u8).collect();
    let lengths: Vec<usize> = (0..150).chain([271, 272, 273, 407, 408, 409, 600]).collect();
    let requests: Vec<_> = lengths.iter().map(|len| keccak(&message[..*len])).collect();
    for (len, answer) in lengths.iter().zip(answers(&requests).0) {
        assert_eq!(answer.bytes, alloy_keccak(&message[..*len]), "keccak of {len} bytes");
    }
    let requests: Vec<_> = lengths.iter().map(|len| call(PRAGUE, SHA256, &message[..*len])).collect();
    for (len, answer) in lengths.iter().zip(answers(&requests).0) {
        assert_eq!(answer.bytes, Sha256::digest(&message[..*len]).to_vec(), "sha256 of {len} bytes");
    }
}

/// The host's software Keccak-256.
fn alloy_keccak(message: &[u8]) -> Vec<u8> {
    alloy_primitives::keccak256(message).to_vec()
}

#[test]
fn bn254_keeps_to_its_edges() {
    let g = [word(1), word(2)].concat();
    let minus_g =
        [word(1).to_vec(), bytes("30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd45")]
            .concat();
    let p = bytes("30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd47");
    let order = bytes("30644e72e131a029b85045b68181585d2833e84879b9709143e1f593f0000001");
    let two_g = bytes(concat!(
        "030644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd3",
        "15ed738c0e0a7c92e7845f96b2ae9c0a68a6a449e3538fc7ff3ebf7a5a18a2c4"
    ));
    let infinity = vec![0; 64];
    let sums: [(Vec<u8>, Option<&[u8]>); 9] = [
        ([&g[..], &g].concat(), Some(&two_g)),
        ([&g[..], &minus_g].concat(), Some(&infinity)),
        ([&g[..], &infinity].concat(), Some(&g)),
        ([&infinity[..], &g].concat(), Some(&g)),
        ([&infinity[..], &infinity].concat(), Some(&infinity)),
        (g.clone(), Some(&g)),
        ([&word(1)[..], &word(3)].concat(), None),
        ([&p[..], &word(0)].concat(), None),
        ([&g[..], &word(0), &p].concat(), None),
    ];
    let requests: Vec<_> = sums.iter().map(|(input, _)| call(PRAGUE, BN254_ADD, input)).collect();
    for ((input, expected), answer) in sums.iter().zip(answers(&requests).0) {
        assert_eq!(answer.success.then_some(&answer.bytes[..]), *expected, "{}", hex::encode(input));
    }
    let products: [(Vec<u8>, &[u8]); 6] = [
        ([&g[..], &word(2)].concat(), &two_g),
        ([&g[..], &word(0)].concat(), &infinity),
        ([&g[..], &order].concat(), &infinity),
        ([&two_g[..], &word(1)].concat(), &two_g),
        ([&infinity[..], &[0xff; 32]].concat(), &infinity),
        ([&minus_g[..], &word(1)].concat(), &minus_g),
    ];
    let requests: Vec<_> = products.iter().map(|(input, _)| call(PRAGUE, BN254_MUL, input)).collect();
    for ((input, expected), answer) in products.iter().zip(answers(&requests).0) {
        assert_eq!((answer.success, &answer.bytes[..]), (true, *expected), "{}", hex::encode(input));
    }
}

/// The generator of G2, imaginary parts first.
fn g2() -> Vec<u8> {
    bytes(concat!(
        "198e9393920d483a7260bfb731fb5d25f1aa493335a9e71297e485b7aef312c2",
        "1800deef121f1e76426a00665e5c4479674322d4f75edadd46debd5cd992f6ed",
        "090689d0585ff075ec9e99ad690c3395bc4b313370b38ef355acdadcd122975b",
        "12c85ea5db8c6deb4aab71808dcb408fe3d1e7690c43d37b4ce6cc0166fa7daa"
    ))
}

#[test]
fn pairings_cancel_and_bad_points_fail() {
    let g = [word(1), word(2)].concat();
    let minus_g =
        [word(1).to_vec(), bytes("30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd45")]
            .concat();
    let g2 = g2();
    let mut off_curve = g2.clone();
    off_curve[127] ^= 1;
    // The parts of x in the wrong order: on no curve.
    let swapped = [&g2[32..64], &g2[..32], &g2[64..]].concat();
    let inputs: [(Vec<u8>, Option<u64>); 8] = [
        (vec![], Some(1)),
        ([&g[..], &g2].concat(), Some(0)),
        ([&g[..], &g2, &minus_g, &g2].concat(), Some(1)),
        ([&[0; 64][..], &g2].concat(), Some(1)),
        ([&g[..], &[0; 128]].concat(), Some(1)),
        ([&g[..], &off_curve].concat(), None),
        ([&[0; 64][..], &swapped].concat(), None),
        (g2.clone(), None),
    ];
    let requests: Vec<_> = inputs.iter().map(|(input, _)| call(PRAGUE, BN254_PAIRING, input)).collect();
    for (index, ((_, expected), answer)) in inputs.iter().zip(answers(&requests).0).enumerate() {
        let expected = expected.map(|value| word(value).to_vec());
        assert_eq!(answer.success.then_some(answer.bytes), expected, "pairing {index}");
    }
}

fn modexp(base: &[u8], exponent: &[u8], modulus: &[u8]) -> Vec<u8> {
    let lengths = [base, exponent, modulus].map(|part| word(part.len() as u64)).concat();
    call(BERLIN, MODEXP, &[&lengths[..], base, exponent, modulus].concat())
}

#[test]
fn modular_powers_are_right_for_every_shape() {
    let long_base = [0xa7; 100];
    let cases: [(Vec<u8>, Vec<u8>); 12] = [
        (modexp(&[3], &[5], &[100]), vec![43]),
        (modexp(&[3], &[], &[100]), vec![1]),
        (modexp(&[0], &[0], &[100]), vec![1]),
        (modexp(&[0], &[0], &[1]), vec![0]),
        (modexp(&[3], &[5], &[0]), vec![0]),
        (modexp(&[3], &[5], &[0, 0, 0, 100]), vec![0, 0, 0, 43]),
        (modexp(&[0, 0, 3], &[0, 0, 5], &[100]), vec![43]),
        (modexp(&[3], &[5], &[0; 40]), vec![0; 40]),
        (modexp(&[3], &[5], &[&[0; 39][..], &[100]].concat()), [&[0; 39][..], &[43]].concat()),
        (
            modexp(&long_base, &[1], &[251]),
            vec![long_base.iter().fold(0_u32, |v, b| (v * 256 + u32::from(*b)) % 251) as u8],
        ),
        (modexp(&[2], &[1, 0], &[0xff; 32]), word(1).to_vec()),
        (modexp(&[0xff; 32], &[2], &[0xff; 32]), vec![0; 32]),
    ];
    let requests: Vec<_> = cases.iter().map(|(request, _)| request.clone()).collect();
    for (index, ((_, expected), answer)) in cases.iter().zip(answers(&requests).0).enumerate() {
        assert_eq!(answer.bytes, *expected, "power {index}");
    }
}

/// One of go-ethereum's vector files, run under `fork`; `gas`: its prices are that fork's.
fn geth(file: &str, fork: u8, address: u8, gas: bool) {
    let Some(path) = shared_data(&format!("evm-precompiles/{file}")) else { return };
    let vectors: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON");
    let field = |vector: &serde_json::Value, name: &str| bytes(vector[name].as_str().unwrap_or_default());
    let requests: Vec<_> =
        vectors.iter().map(|vector| call(fork, address, &field(vector, "Input"))).collect();
    let (answers, cycles) = answers(&requests);
    for (vector, answer) in vectors.iter().zip(answers) {
        if vector.get("ExpectedError").is_some() {
            assert_eq!(answer, failed(), "{file}: {}", vector["Name"]);
            continue;
        }
        assert_eq!(
            (answer.success, answer.bytes),
            (true, field(vector, "Expected")),
            "{file}: {}",
            vector["Name"]
        );
        if gas {
            assert_eq!(Some(answer.gas), vector["Gas"].as_u64(), "{file}: {}", vector["Name"]);
        }
    }
    println!("{file}: {} vectors, {} cycles each on average", vectors.len(), cycles / vectors.len() as u64);
}

#[test]
fn ecrecover_agrees_with_go_ethereum() {
    geth("geth_ecRecover.json", BERLIN, ECRECOVER, true);
}

#[test]
fn bn254_agrees_with_go_ethereum() {
    geth("geth_bn256Add.json", BERLIN, BN254_ADD, true);
    geth("geth_bn256ScalarMul.json", BERLIN, BN254_MUL, true);
    geth("geth_bn256Pairing.json", BERLIN, BN254_PAIRING, true);
}

#[test]
fn modexp_agrees_with_go_ethereum() {
    geth("geth_modexp.json", BERLIN, MODEXP, false);
    geth("geth_modexp_eip2565.json", BERLIN, MODEXP, true);
    geth("geth_modexp_eip7883.json", OSAKA, MODEXP, true);
}

#[test]
fn blake2_agrees_with_go_ethereum() {
    geth("geth_blake2F.json", BERLIN, BLAKE2F, true);
    geth("geth_fail-blake2f.json", BERLIN, BLAKE2F, false);
}
