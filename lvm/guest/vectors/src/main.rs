//! Guest program for tests: runs cryptographic test vectors, so that the system calls themselves are under test.
//!
//! Input: any number of requests, each one item whose first byte is the operation. Public values: the answers, each a
//! status (1 byte: 0 success, 1 failure), gas (8), length (4) and bytes; integers little-endian.
//!
//! | operation | rest of the item | answer |
//! |---|---|---|
//! | 1 | fork (1: 0 Berlin, 1 Prague, 2 Osaka), address (1), input | the precompile's gas and output |
//! | 2 | message | Keccak-256 |
//! | 3 | r, s (64), parity (1), hash (32) | the public key recovered, 64 bytes |
//! | 4 | as 3, hints in the items that follow instead of from the zkVM's hook | as 3 |
//!
//! With 128 added to the operation there is no answer, whose commitment costs more than many an operation.
#![no_main]
#![allow(unsafe_code, reason = "asks the zkVM whether there is more input")]

sp1_zkvm::entrypoint!(main);

use assay_guest_crypto::secp256k1::{recover, Hints, Hook};
use revm::precompile::{u64_to_address, Precompiles};

/// Hints from the input: what a dishonest host could supply.
struct Supplied;

impl Hints for Supplied {
    fn ask(&mut self, _x: &[u8; 32], _alpha: &[u8; 32], _odd: bool) {}

    fn answer(&mut self) -> Vec<u8> {
        sp1_lib::io::read_vec()
    }
}

/// Whether it succeeded, gas, bytes.
type Answer = (bool, u64, Vec<u8>);

fn main() {
    const SILENT: u8 = 128;
    assay_guest_crypto::install();
    // SAFETY: the call takes nothing and returns a number, the largest one at the end of the input.
    while unsafe { sp1_lib::syscall_hint_len() } != usize::MAX {
        let request = sp1_lib::io::read_vec();
        let Some((operation, rest)) = request.split_first() else { panic!("empty request") };
        let answer = match operation & !SILENT {
            1 => precompile(rest),
            2 => (true, 0, alloy_primitives::keccak256(rest).to_vec()),
            3 => recovery(&mut Hook, rest),
            4 => recovery(&mut Supplied, rest),
            other => panic!("unknown operation {other}"),
        };
        if operation & SILENT == 0 {
            commit(&answer);
        }
    }
}

fn precompile(request: &[u8]) -> Answer {
    let [fork, address, input @ ..] = request else { panic!("short request") };
    let precompiles = match fork {
        0 => Precompiles::berlin(),
        1 => Precompiles::prague(),
        _ => Precompiles::osaka(),
    };
    let precompile = precompiles
        .get(&u64_to_address(u64::from(*address)))
        .unwrap_or_else(|| panic!("no precompile {address}"));
    match precompile.execute(input, u64::MAX, 0) {
        Ok(output) if output.is_success() => (true, output.gas_used, output.bytes.to_vec()),
        _ => (false, 0, Vec::new()),
    }
}

fn recovery(hints: &mut impl Hints, request: &[u8]) -> Answer {
    let parse = || -> Option<([u8; 64], u8, [u8; 32])> {
        Some((request.get(..64)?.try_into().ok()?, *request.get(64)?, request.get(65..)?.try_into().ok()?))
    };
    let (signature, parity, hash) = parse().unwrap_or_else(|| panic!("short request"));
    match recover(hints, &signature, parity, &hash) {
        Some(key) => (true, 0, key.to_vec()),
        None => (false, 0, Vec::new()),
    }
}

fn commit((success, gas, bytes): &Answer) {
    sp1_lib::io::commit_slice(&[u8::from(!success)]);
    sp1_lib::io::commit_slice(&gas.to_le_bytes());
    sp1_lib::io::commit_slice(&(bytes.len() as u32).to_le_bytes());
    sp1_lib::io::commit_slice(bytes);
}
