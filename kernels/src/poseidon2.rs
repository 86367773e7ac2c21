//! Poseidon2 over BN254's scalar field, width 3, `x^5`, 8 full and 56 partial rounds: the hash of the wrap proof.
//!
//! Parameters (Grassi, Khovratovich, Schofnegger 2023): external matrix `circ(2, 1, 1)`, internal matrix
//! `[[2, 1, 1], [1, 2, 1], [1, 1, 3]]`, round constants from the Grain generator. The zkVM's own crate is the oracle:
//! `worker/outer` tests every part of this module against it.
//!
//! * [`permute`] works on eight states per lane group, several groups at once to hide the latency of a product;
//! * [`Sponge`] hashes rows of 31-bit elements, 8 of them packed in one field element, 2 field elements a block, in
//!   overwrite mode and without padding;
//! * [`grind`] searches proof-of-work witnesses of the sponge-based challenger.

mod grain;
mod grind;
mod sponge;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use ark_bn254::Fr;
use ark_ff::{AdditiveGroup, Field};

pub use grind::{grind, GrindState};
pub use sponge::{Sponge, BLOCK, PER_ELEMENT};

use crate::field::{Arch, Lanes, Routine};

/// Field elements in a state.
pub const WIDTH: usize = 3;
/// Full rounds before the partial ones, and again after them.
pub const HALF_FULL_ROUNDS: usize = 4;
/// Partial rounds.
pub const PARTIAL_ROUNDS: usize = 56;

/// The round constants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundConstants {
    /// Of the full rounds, in order.
    pub full: [[Fr; WIDTH]; 2 * HALF_FULL_ROUNDS],
    /// Of the partial rounds, added to the first element of the state.
    pub partial: [Fr; PARTIAL_ROUNDS],
}

/// The round constants, generated on first use (some 50 microseconds).
pub fn round_constants() -> &'static RoundConstants {
    static CONSTANTS: OnceLock<RoundConstants> = OnceLock::new();
    CONSTANTS.get_or_init(grain::generate)
}

/// One permutation of one state, on arkworks elements.
pub fn permute_one(state: &mut [Fr; WIDTH]) {
    fn external(state: &mut [Fr; WIDTH]) {
        let sum = state[0] + state[1] + state[2];
        state.iter_mut().for_each(|x| *x += sum);
    }
    fn sbox(x: Fr) -> Fr {
        x.square().square() * x
    }
    let constants = round_constants();
    external(state);
    for (round, row) in constants.full.iter().enumerate() {
        if round == HALF_FULL_ROUNDS {
            for constant in &constants.partial {
                state[0] = sbox(state[0] + constant);
                let sum = state[0] + state[1] + state[2];
                *state = [sum + state[0], sum + state[1], sum + state[2].double()];
            }
        }
        for (x, constant) in state.iter_mut().zip(row) {
            *x = sbox(*x + constant);
        }
        external(state);
    }
}

/// The round constants in every lane of an architecture. Making one costs 80 products: make one per batch.
pub struct LaneConstants<A: Arch> {
    full: Vec<[A::Lanes<Fr>; WIDTH]>,
    partial: Vec<A::Lanes<Fr>>,
}

impl<A: Arch> LaneConstants<A> {
    /// Spreads the constants over the lanes.
    #[inline(always)]
    pub fn new(arch: A) -> Self {
        arch.call(SpreadConstants)
    }
}

struct SpreadConstants;

impl<A: Arch> Routine<A> for SpreadConstants {
    type Output = LaneConstants<A>;

    #[inline(always)]
    fn run(self, arch: A) -> LaneConstants<A> {
        let constants = round_constants();
        LaneConstants {
            full: constants.full.iter().map(|row| row.map(|constant| arch.splat(constant))).collect(),
            partial: constants.partial.iter().map(|constant| arch.splat(*constant)).collect(),
        }
    }
}

/// Permutes `8 N` states: lane `i` of `states[n]` is one state. Takes and returns reduced elements.
///
/// Bounds, in multiples of the modulus, for elements in the lazy steps: a full round's input is at most `4 * 2 + 2 = 10`
/// and its output at most 1.2; a pair of partial rounds starts from elements at most 2, and its largest value is
/// `1.2 + 7.6 + 3 * 9.6 = 37.6`, which [`Lanes::shrink`] and the product accept.
#[inline(always)]
pub fn permute<A: Arch, const N: usize>(
    arch: A,
    constants: &LaneConstants<A>,
    states: &mut [[A::Lanes<Fr>; WIDTH]; N],
) {
    arch.call(Permutation { constants, states });
}

struct Permutation<'a, A: Arch, const N: usize> {
    constants: &'a LaneConstants<A>,
    states: &'a mut [[A::Lanes<Fr>; WIDTH]; N],
}

impl<A: Arch, const N: usize> Routine<A> for Permutation<'_, A, N> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: A) {
        permute_inline(self.constants, self.states);
    }
}

#[inline(always)]
fn permute_inline<A: Arch, const N: usize>(
    constants: &LaneConstants<A>,
    states: &mut [[A::Lanes<Fr>; WIDTH]; N],
) {
    for state in states.iter_mut() {
        external::<A>(state);
    }
    full_rounds::<A, N>(&constants.full[..HALF_FULL_ROUNDS], states);
    for pair in constants.partial.chunks_exact(2) {
        for state in states.iter_mut() {
            state[1] = state[1].shrink();
            state[2] = state[2].shrink();
        }
        for &constant in pair {
            partial_round::<A, N>(constant, states);
        }
    }
    for state in states.iter_mut() {
        state[1] = state[1].shrink();
        state[2] = state[2].shrink();
    }
    full_rounds::<A, N>(&constants.full[HALF_FULL_ROUNDS..], states);
    for x in states.as_flattened_mut() {
        *x = x.shrink();
    }
}

/// `x -> x^5` of every value, carried; the results are raw. Product by product over all values rather than value by value: neighbours in the
/// instruction stream are then independent, and the CPU works on several at once.
#[inline(always)]
fn sboxes<A: Arch>(values: &mut [A::Lanes<Fr>], copies: &[A::Lanes<Fr>]) {
    for x in values.iter_mut() {
        *x = x.square();
    }
    for x in values.iter_mut() {
        *x = x.square();
    }
    for (x, copy) in values.iter_mut().zip(copies) {
        *x = x.mul_raw(*copy);
    }
}

/// Multiplies by `circ(2, 1, 1)`; raw.
#[inline(always)]
fn external<A: Arch>(state: &mut [A::Lanes<Fr>; WIDTH]) {
    let sum = state[0].add_raw(state[1]).add_raw(state[2]);
    for x in state.iter_mut() {
        *x = x.add_raw(sum);
    }
}

#[inline(always)]
fn full_rounds<A: Arch, const N: usize>(
    constants: &[[A::Lanes<Fr>; WIDTH]],
    states: &mut [[A::Lanes<Fr>; WIDTH]; N],
) {
    for row in constants {
        for state in states.iter_mut() {
            for (x, constant) in state.iter_mut().zip(row) {
                *x = x.add_raw(*constant).carry();
            }
        }
        let copies = *states;
        sboxes::<A>(states.as_flattened_mut(), copies.as_flattened());
        for state in states.iter_mut() {
            external::<A>(state);
        }
    }
}

#[inline(always)]
fn partial_round<A: Arch, const N: usize>(constant: A::Lanes<Fr>, states: &mut [[A::Lanes<Fr>; WIDTH]; N]) {
    let copies: [A::Lanes<Fr>; N] = std::array::from_fn(|n| states[n][0].add_raw(constant).carry());
    let mut firsts = copies;
    sboxes::<A>(&mut firsts, &copies);
    for (state, first) in states.iter_mut().zip(firsts) {
        let sum = first.add_raw(state[1]).add_raw(state[2]);
        state[0] = sum.add_raw(first);
        state[1] = sum.add_raw(state[1]);
        state[2] = sum.add_raw(state[2]).add_raw(state[2]);
    }
}
