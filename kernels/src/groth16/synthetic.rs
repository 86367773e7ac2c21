//! Circuits of any size with witnesses like those of a recursive verifier, for tests and benches.
//!
//! A chain of S-boxes (`x^5` with a linear layer over the last states, three rows each, full-size values), and between them
//! rows that force bits: about two thirds of the variables are full size, one third are 0 or 1. One public input is the
//! chain's end.

use crate::r1cs::R1cs;
use ark_bn254::Fr;
use ark_ff::{Field, One, Zero};

/// Earlier states that enter the linear layer of each step.
const WIDTH: usize = 3;

/// A circuit of exactly `constraints` constraints with a satisfying assignment; the same for the same arguments.
///
/// # Panics
/// If `constraints` is below 8 or not below 2^31.
pub fn circuit(constraints: usize) -> (R1cs, Vec<Fr>) {
    assert!((8..1 << 31).contains(&constraints), "a size that makes sense");
    let mut system = R1cs { num_instance: 2, ..R1cs::default() };
    // z = [1, public, witness..]; the public value is filled in at the end.
    let mut z = vec![Fr::one(), Fr::zero()];
    let mut states: Vec<u32> = Vec::with_capacity(WIDTH);
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..WIDTH {
        states.push(z.len() as u32);
        z.push(Fr::from(next(&mut random)).pow([5]));
    }
    let mut round = 0u64;
    while constraints - system.num_constraints() > 6 {
        for _ in 0..2 {
            bit(&mut system, &mut z, next(&mut random) & 1 == 1);
        }
        sbox(&mut system, &mut z, &mut states, round % 64);
        round += 1;
    }
    while constraints - system.num_constraints() > 1 {
        bit(&mut system, &mut z, next(&mut random) & 1 == 1);
    }
    let last = states[WIDTH - 1];
    system.a.push_row([(last, 0)]);
    system.b.push_row([(0, 0)]);
    system.c.push_row([(1, 0)]);
    z[1] = z[last as usize];
    system.num_witness = z.len() - 2;
    (system, z)
}

/// `b * (b - 1) = 0`.
fn bit(system: &mut R1cs, z: &mut Vec<Fr>, value: bool) {
    let column = z.len() as u32;
    z.push(Fr::from(value));
    system.a.push_row([(column, 0)]);
    system.b.push_row([(column, 0), (0, 1)]);
    system.c.push_row([]);
}

/// `(s0 + 2 s1 + 3 s2 + constant + bits)^5` in three rows; the result replaces the oldest state.
fn sbox(system: &mut R1cs, z: &mut Vec<Fr>, states: &mut Vec<u32>, round: u64) {
    let bits = z.len() as u32 - 2;
    let factors = [1, 2, 3].map(|factor| system.coefficients.intern(Fr::from(factor as u64)));
    let constant = system.coefficients.intern(Fr::from(round + 1).pow([7]));
    let sum: Vec<(u32, u32)> = states
        .iter()
        .copied()
        .zip(factors)
        .chain([(bits, factors[0]), (bits + 1, factors[1]), (0, constant)])
        .collect();
    let table = system.coefficients.values();
    let x: Fr = sum.iter().map(|&(column, factor)| z[column as usize] * table[factor as usize]).sum();
    let first = z.len() as u32;
    let square = x.square();
    z.extend([square, square.square(), square.square() * x]);
    system.a.push_row(sum.clone());
    system.b.push_row(sum.clone());
    system.c.push_row([(first, 0)]);
    system.a.push_row([(first, 0)]);
    system.b.push_row([(first, 0)]);
    system.c.push_row([(first + 1, 0)]);
    system.a.push_row([(first + 1, 0)]);
    system.b.push_row(sum);
    system.c.push_row([(first + 2, 0)]);
    states.remove(0);
    states.push(first + 2);
}

/// Knuth's 64-bit linear congruence, upper half mixed in: not for secrets.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state ^ (*state >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circuits_have_the_size_asked_for_and_are_satisfied() {
        for constraints in [8, 9, 100, 4094] {
            let (system, z) = circuit(constraints);
            assert_eq!(system.num_constraints(), constraints);
            assert_eq!((system.b.rows(), system.c.rows()), (constraints, constraints));
            assert_eq!(system.check(&z), Ok(()));
        }
    }
}
