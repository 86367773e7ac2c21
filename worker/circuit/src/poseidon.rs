//! Poseidon2 over BN254's scalar field (width 3, S-box `x^5`, 8 full and 56 partial rounds) in 240 rows.
//!
//! An S-box takes three rows: `x * x = s`, `s * s = f`, `f * x = y`. The variables are `s`, `f` and, instead of `y`, the
//! *inputs of the next S-boxes* `u`: `y` is then a linear combination of `u`s, which only the third matrix sees. In the partial rounds,
//! where two of the three state elements gather all earlier `y`s, that keeps the first two matrices at one entry a row and
//! moves the up to sixty terms into the third, for which the Groth16 prover pays nothing.
//!
//! Every row determines one variable from earlier ones (the map from `y`s to `u`s is invertible), so the output is a function of the
//! input.

use crate::builder::Builder;
use crate::lc::{Lc, ONE};
use crate::stats::Kind;
use crate::steps::Step;
use ark_bn254::Fr;
use ark_ff::{AdditiveGroup, Field, PrimeField, Zero};
use slop_algebra::PrimeField as _;
use std::sync::OnceLock;

const ROUNDS: usize = 64;
const HALF_FULL: usize = 4;
/// Rows, and variables, of one permutation.
pub(crate) const ROWS: u32 = 240;

/// The round constants, in the zkVM's order; rounds 4 to 59 use the first one only.
pub(crate) fn round_constants() -> &'static [[Fr; 3]] {
    static CONSTANTS: OnceLock<Vec<[Fr; 3]>> = OnceLock::new();
    CONSTANTS.get_or_init(|| {
        let rows = slop_bn254::bn254_poseidon2_rc3();
        rows.iter().map(|row| row.map(|value| fr_from_zkvm(&value))).collect()
    })
}

/// A BN254 scalar of the zkVM's field type as ours.
pub(crate) fn fr_from_zkvm(value: &slop_bn254::Bn254Fr) -> Fr {
    Fr::from_le_bytes_mod_order(&value.as_canonical_biguint().to_bytes_le())
}

/// What is added to the state after round `round`: the next round's constants.
fn constants_after(round: usize) -> [Fr; 3] {
    let zero = Fr::zero();
    match round + 1 {
        ROUNDS => [zero; 3],
        next if (HALF_FULL..ROUNDS - HALF_FULL).contains(&next) => [round_constants()[next][0], zero, zero],
        next => round_constants()[next],
    }
}

fn is_full(round: usize) -> bool {
    !(HALF_FULL..ROUNDS - HALF_FULL).contains(&round)
}

/// Applies the permutation to `state`; `trace` receives the [`ROWS`] variables in the circuit's order.
pub(crate) fn permute(state: &mut [Fr; 3], trace: &mut [Fr]) {
    let mut at = 0;
    let mut push = |value: Fr| {
        trace[at] = value;
        at += 1;
    };
    let full_layer = |s: &mut [Fr; 3]| {
        let sum = s[0] + s[1] + s[2];
        s.iter_mut().for_each(|x| *x += sum);
    };
    full_layer(state);
    for (x, constant) in state.iter_mut().zip(round_constants()[0]) {
        *x += constant;
    }
    for round in 0..ROUNDS {
        let mut sbox = |x: &mut Fr| {
            let square = x.square();
            let fourth = square.square();
            push(square);
            push(fourth);
            *x *= fourth;
        };
        let add = constants_after(round);
        if is_full(round) {
            state.iter_mut().for_each(&mut sbox);
            full_layer(state);
        } else {
            sbox(&mut state[0]);
            let sum = state[0] + state[1] + state[2];
            state[0] += sum;
            state[1] += sum;
            state[2] = state[2].double() + sum;
        }
        for (x, constant) in state.iter_mut().zip(add) {
            *x += constant;
        }
        if is_full(round) {
            state.iter().for_each(|&x| push(x));
        } else {
            push(state[0]);
        }
    }
}

/// A factor of a template row.
#[derive(Clone, Debug)]
enum Factor {
    /// S-box input `i` of the first round, given by the caller.
    Input(usize),
    /// A combination of the constant one and local variables, which are numbered from 1.
    Local(Vec<(u32, u32)>),
}

/// Two factors and the combination that is their product.
type Row = (Factor, Factor, Vec<(u32, u32)>);

/// The 240 rows with local variables and interned coefficients.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    rows: Vec<Row>,
}

/// Makes the template.
struct Maker<'a> {
    builder: &'a mut Builder,
    rows: Vec<Row>,
    next: u32,
}

#[derive(Clone)]
enum SboxInput {
    Outer(usize),
    Inner(Lc),
}

impl Maker<'_> {
    fn fresh(&mut self) -> Lc {
        self.next += 1;
        Lc::var(self.next)
    }

    fn intern(&mut self, lc: &Lc) -> Vec<(u32, u32)> {
        let coefficients = &mut self.builder.r1cs.coefficients;
        lc.terms().iter().map(|&(var, value)| (var, coefficients.intern(value))).collect()
    }

    fn factor(&mut self, input: &SboxInput) -> Factor {
        match input {
            SboxInput::Outer(index) => Factor::Input(*index),
            SboxInput::Inner(lc) => Factor::Local(self.intern(lc)),
        }
    }

    /// The first two rows of an S-box; returns the fourth power.
    fn powers(&mut self, input: &SboxInput) -> Lc {
        let (square, fourth) = (self.fresh(), self.fresh());
        let (x, s, f) = (self.factor(input), self.intern(&square), self.intern(&fourth));
        self.rows.push((x.clone(), x, s.clone()));
        self.rows.push((Factor::Local(s.clone()), Factor::Local(s), f));
        fourth
    }

    /// The last row of an S-box, with output `y`.
    fn output(&mut self, fourth: &Lc, input: &SboxInput, y: &Lc) {
        let (f, x, y) = (self.intern(fourth), self.factor(input), self.intern(y));
        self.rows.push((Factor::Local(f), x, y));
    }

    fn full_round(&mut self, round: usize, inputs: &[SboxInput; 3]) -> [Lc; 3] {
        let fourths: Vec<Lc> = inputs.iter().map(|input| self.powers(input)).collect();
        let next = [(); 3].map(|()| self.fresh());
        let constants = constants_after(round);
        // The layer is 1 + J with J all ones, its inverse 1 - J / 4.
        let quarter = -Fr::from(4u64).inverse().expect("four is not zero");
        let state: Vec<Lc> = (0..3).map(|i| next[i].add_constant(-constants[i])).collect();
        let sum = state[0].add(&state[1]).add(&state[2]);
        for i in 0..3 {
            self.output(&fourths[i], &inputs[i], &state[i].add_scaled(&sum, quarter));
        }
        next
    }

    fn make(mut self) -> Template {
        let mut inputs = [0, 1, 2].map(SboxInput::Outer);
        for round in 0..HALF_FULL - 1 {
            inputs = self.full_round(round, &inputs).map(SboxInput::Inner);
        }
        let [mut a, mut b, mut c] = self.full_round(HALF_FULL - 1, &inputs);
        let half = Fr::from(2u64).inverse().expect("two is not zero");
        for round in HALF_FULL..ROUNDS - HALF_FULL {
            let input = SboxInput::Inner(a);
            let fourth = self.powers(&input);
            let next = self.fresh();
            // next = 2 y + b + c + constant.
            let constants = constants_after(round);
            let y = next.add_constant(-constants[0]).sub(&b).sub(&c).scale(half);
            self.output(&fourth, &input, &y);
            let two = Fr::from(2u64);
            let new_b = y.add_scaled(&b, two).add(&c).add_constant(constants[1]);
            let new_c = y.add(&b).add_scaled(&c, Fr::from(3u64)).add_constant(constants[2]);
            (a, b, c) = (next, new_b, new_c);
        }
        let mut inputs = [a, b, c].map(SboxInput::Inner);
        for round in ROUNDS - HALF_FULL..ROUNDS {
            inputs = self.full_round(round, &inputs).map(SboxInput::Inner);
        }
        debug_assert_eq!((self.next, self.rows.len()), (ROWS, ROWS as usize));
        Template { rows: self.rows }
    }
}

impl Template {
    /// The rows of the permutation, with coefficients interned in `builder`.
    pub(crate) fn new(builder: &mut Builder) -> Self {
        Maker { builder, rows: Vec::new(), next: 0 }.make()
    }

    /// Appends a permutation of `state`; returns its output.
    pub(crate) fn apply(&self, builder: &mut Builder, state: &[Lc; 3]) -> [Lc; 3] {
        let first = builder.alloc(ROWS);
        let hints = [0, 1, 2].map(|i| builder.hint(&state[i]));
        builder.steps.push(Step::Permute { hint: hints[0], var: first });
        let sum = state[0].add(&state[1]).add(&state[2]);
        let inputs: Vec<Vec<(u32, u32)>> = (0..3)
            .map(|i| {
                let lc = state[i].add(&sum).add_constant(round_constants()[0][i]);
                let coefficients = &mut builder.r1cs.coefficients;
                lc.terms().iter().map(|&(var, value)| (var, coefficients.intern(value))).collect()
            })
            .collect();
        let place = |local: u32| if local == ONE { ONE } else { first + local - 1 };
        for (a, b, c) in &self.rows {
            builder.count_row(Kind::Permutation);
            let system = &mut builder.r1cs;
            for (matrix, factor) in [(&mut system.a, a), (&mut system.b, b)] {
                match factor {
                    Factor::Input(index) => matrix.push_row(inputs[*index].iter().copied()),
                    Factor::Local(terms) => {
                        matrix.push_row(terms.iter().map(|&(var, value)| (place(var), value)))
                    }
                }
            }
            system.c.push_row(c.iter().map(|&(var, value)| (place(var), value)));
        }
        [3, 2, 1].map(|back| Lc::var(first + ROWS - back))
    }
}
