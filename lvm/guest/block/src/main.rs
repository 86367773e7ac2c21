//! Guest program `block`: executes a run of blocks on its witness and commits to what that states.
//!
//! Input: one item, `RunInput::encode`. Public values: `BlockPublicValues::encode`, 152 bytes, committed with BLAKE3.
//! Anything wrong with the input ends the program with exit code 1, for which no proof is accepted.
//!
//! A second input item, of any content, asks for phase markers on standard output (`phase-begin <name>`,
//! `phase-end <name>`), from which a host that executes without proving reads cycles.
#![no_main]
#![allow(unsafe_code, reason = "asks the zkVM whether there is more input")]

sp1_zkvm::entrypoint!(main);

use assay_lvm_core::{execute_run, Phase, PhaseSink, RunInput};

/// Prints the markers.
struct Markers;

impl Markers {
    fn print(prefix: &[u8], phase: Phase) {
        const STDOUT: u32 = 1;
        let line = [prefix, phase.name().as_bytes(), b"\n"].concat();
        sp1_lib::io::write(STDOUT, &line);
    }
}

impl PhaseSink for Markers {
    fn begin(&mut self, phase: Phase) {
        Self::print(b"phase-begin ", phase);
    }

    fn end(&mut self, phase: Phase) {
        Self::print(b"phase-end ", phase);
    }
}

fn main() {
    assay_guest_crypto::install();
    let bytes = sp1_lib::io::read_vec();
    // SAFETY: the call takes nothing and returns a number, the largest one at the end of the input.
    let markers = unsafe { sp1_lib::syscall_hint_len() } != usize::MAX;
    let input = RunInput::decode(&bytes).unwrap_or_else(|error| panic!("input: {error}"));
    let output = if markers { execute_run(&input, &mut Markers) } else { execute_run(&input, &mut ()) };
    let output = output.unwrap_or_else(|error| panic!("run: {error}"));
    sp1_lib::io::commit_slice(&output.public_values.encode());
}
