//! Poseidon2 over KoalaBear (width 16, S-box `x^3`, 8 full and 20 partial rounds) inside BN254's scalar field.
//!
//! Full rounds: the external layer has small coefficients, so S-box inputs are sums of reduced values of about 37 bits, cubed
//! as they are and reduced once. Partial rounds: every state element is kept as a combination, with coefficients
//! modulo the prime, of values reduced earlier (the state when the partial rounds begin, and the S-box outputs since);
//! only the S-box's own input is ever computed, so nothing grows from round to round.

use crate::builder::Builder;
use crate::koala::{Felt, P};
use slop_algebra::PrimeField32;
use slop_koala_bear::{KoalaBear_BEGIN_EXT_CONSTS, KoalaBear_END_EXT_CONSTS, KoalaBear_PARTIAL_CONSTS};

const WIDTH: usize = 16;
const PARTIAL: usize = 20;
/// Diagonal of the internal layer less one, before the factor [`INTERNAL_SCALE`].
const DIAGONAL: [i64; WIDTH] = [-2, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 32768];
/// The inverse of 2^32: the zkVM's internal layer is a Montgomery product.
const INTERNAL_SCALE: i64 = 1_057_030_144;
/// Inputs up to this length are cubed as they are.
const CUBE_BITS_MAX: u32 = 44;

fn external_layer(state: &[Felt]) -> Vec<Felt> {
    let mut mixed: Vec<Felt> = Vec::with_capacity(WIDTH);
    for block in state.chunks_exact(4) {
        for i in 0..4 {
            // Rows of the circulant matrix (2, 3, 1, 1).
            let [a, b, c, d] = [0, 1, 2, 3].map(|j| &block[(i + j) % 4]);
            mixed.push(a.scale(2).add(&b.scale(3)).add(c).add(d));
        }
    }
    let sums: Vec<Felt> =
        (0..4).map(|i| mixed[i].add(&mixed[i + 4]).add(&mixed[i + 8]).add(&mixed[i + 12])).collect();
    (0..WIDTH).map(|i| mixed[i].add(&sums[i % 4])).collect()
}

/// A combination of reduced values with coefficients modulo the prime.
type Row = Vec<i64>;

fn modulo(value: i64) -> i64 {
    value.rem_euclid(i64::from(P))
}

fn internal_layer(state: &mut [Row]) {
    let length = state.iter().map(Vec::len).max().unwrap_or(0);
    state.iter_mut().for_each(|row| row.resize(length, 0));
    let sum: Row = (0..length).map(|j| modulo(state.iter().map(|row| row[j]).sum())).collect();
    for (row, diagonal) in state.iter_mut().zip(DIAGONAL) {
        for (value, sum) in row.iter_mut().zip(&sum) {
            *value = modulo(modulo(*value * diagonal + sum) * INTERNAL_SCALE);
        }
    }
}

fn combination(row: &Row, basis: &[Felt]) -> Felt {
    let terms = row.iter().zip(basis).filter(|(&factor, _)| factor != 0);
    terms.fold(Felt::constant(0), |sum, (&factor, value)| {
        let p = i64::from(P);
        let centred = if factor > p / 2 { factor - p } else { factor };
        sum.add(&value.scale(centred))
    })
}

impl Builder {
    fn cube(&mut self, x: &Felt) -> Felt {
        let x = if x.bits() > CUBE_BITS_MAX { self.reduce(x) } else { x.clone() };
        let square = self.mul(&x, &x);
        let cube = self.mul(&square, &x);
        self.reduce(&cube)
    }

    fn full_round(&mut self, state: &[Felt], constants: impl Fn(usize) -> u32) -> Vec<Felt> {
        let cubes: Vec<Felt> = state
            .iter()
            .enumerate()
            .map(|(i, x)| self.cube(&x.add(&Felt::constant(i64::from(constants(i))))))
            .collect();
        external_layer(&cubes)
    }

    /// The permutation; inputs are reduced if they are long, outputs are below 2^37.
    pub(crate) fn permute16(&mut self, state: &[Felt; WIDTH]) -> Vec<Felt> {
        let state: Vec<Felt> = state
            .iter()
            .map(|x| if x.bits() + 6 > CUBE_BITS_MAX { self.reduce(x) } else { x.clone() })
            .collect();
        let mut state = external_layer(&state);
        for constants in KoalaBear_BEGIN_EXT_CONSTS.iter() {
            state = self.full_round(&state, |i| constants[i].as_canonical_u32());
        }
        // Values of about 37 bits: short enough as a basis.
        let mut basis = state;
        let mut rows: Vec<Row> =
            (0..WIDTH).map(|i| (0..WIDTH).map(|j| i64::from(i == j)).collect()).collect();
        debug_assert_eq!(KoalaBear_PARTIAL_CONSTS.len(), PARTIAL);
        for constant in KoalaBear_PARTIAL_CONSTS.iter() {
            let input =
                combination(&rows[0], &basis).add(&Felt::constant(i64::from(constant.as_canonical_u32())));
            let output = self.cube(&input);
            rows[0] = vec![0; basis.len()];
            rows[0].push(1);
            basis.push(output);
            internal_layer(&mut rows);
        }
        let mut state: Vec<Felt> = rows.iter().map(|row| combination(row, &basis)).collect();
        for constants in KoalaBear_END_EXT_CONSTS.iter() {
            state = self.full_round(&state, |i| constants[i].as_canonical_u32());
        }
        state
    }
}
