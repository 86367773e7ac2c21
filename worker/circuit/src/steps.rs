//! The witness program: how every variable is computed from the proof's values and earlier variables.

use crate::error::CircuitError;
use crate::ext::{interpolation, NON_RESIDUE};
use crate::ir::Source;
use crate::koala::{invert, BITS, P};
use crate::merkle::{node_values, Top};
use crate::poseidon::{permute, ROWS};
use ark_bn254::Fr;
use ark_ff::{BigInteger, Field, One, PrimeField, Zero};
use assay_kernels::r1cs::{R1cs, SparseMatrix};
use assay_kernels::secret::Secret;
use num_bigint::{BigInt, BigUint, Sign};
use num_integer::Integer;
use num_traits::ToPrimitive;

/// One step; `var` is the first variable that it sets, `row` a row of the system, `hint` a row of the hints.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A BN254 value of the proof.
    InputVar { var: u32, index: u32 },
    /// A KoalaBear value of the proof, then its bits from bit 1 on.
    InputFelt { var: u32, source: Source, bits: u8 },
    /// The product of the row's factors.
    Product { row: u32, var: u32 },
    /// The hint.
    Linear { hint: u32, var: u32 },
    /// The product of the row's factors plus the hint.
    Select { row: u32, hint: u32, var: u32 },
    /// Coefficients of the polynomial whose evaluations are the products of `count` rows.
    Polynomial { row: u32, var: u32, count: u8 },
    /// The hint modulo the KoalaBear prime, its bits from bit 1 on, then those of quotient less integer.
    Reduce { hint: u32, integer: u32, var: u32, bits: u32 },
    /// The bits, from bit 1 on, of hint divided by the prime, less integer.
    Multiple { hint: u32, integer: u32, var: u32, bits: u32 },
    /// The inverse modulo the prime and its bits from bit 1 on.
    Inverse { hint: u32, var: u32 },
    /// The inverse of four hints in the extension; each coefficient is followed by its bits from bit 1 on.
    InverseExt { hint: u32, var: u32 },
    /// The bits of the hint from bit 1 on.
    Bits { hint: u32, var: u32, bits: u16 },
    /// The second factor of the row: product over first factor, or zero if that is zero.
    Quotient { row: u32, var: u32 },
    /// The variables of a permutation of three hints.
    Permute { hint: u32, var: u32 },
    /// The nodes of a shared Merkle top.
    MerkleTop { table: u32 },
}

/// Values of the proof, in the exported witness's order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    /// BN254 values.
    pub(crate) vars: Vec<Fr>,
    /// KoalaBear values, canonical.
    pub(crate) felts: Vec<u32>,
    /// Extension values, canonical coefficients.
    pub(crate) exts: Vec<[u32; 4]>,
    /// Public inputs.
    pub(crate) public: [Fr; 5],
}

fn lookup<T: Copy>(list: &[T], kind: &'static str, index: u32) -> Result<T, CircuitError> {
    let index = index as usize;
    list.get(index).copied().ok_or(CircuitError::WitnessTooShort { kind, index, got: list.len() })
}

/// Runs the program.
pub(crate) struct Runner<'a> {
    pub(crate) system: &'a R1cs,
    pub(crate) hints: &'a SparseMatrix,
    pub(crate) integers: &'a [BigInt],
    pub(crate) tops: &'a [Top],
    pub(crate) inputs: &'a Inputs,
    /// The assignment so far.
    pub(crate) values: Secret,
}

impl Runner<'_> {
    /// Executes all steps.
    pub(crate) fn run(mut self, steps: &[Step]) -> Result<Secret, CircuitError> {
        let tables: Vec<Vec<Vec<Fr>>> = (0..=7).map(interpolation).collect();
        for step in steps {
            self.step(*step, &tables)?;
        }
        Ok(self.values)
    }

    fn hint(&self, row: u32) -> Fr {
        self.hints.evaluate_row(row as usize, self.system.coefficients.values(), &self.values)
    }

    fn row(&self, matrix: &SparseMatrix, row: u32) -> Fr {
        matrix.evaluate_row(row as usize, self.system.coefficients.values(), &self.values)
    }

    fn product(&self, row: u32) -> Fr {
        self.row(&self.system.a, row) * self.row(&self.system.b, row)
    }

    fn set(&mut self, var: u32, value: Fr) {
        self.values[var as usize] = value;
    }

    /// Sets `bits - 1` variables to the bits of `value` from bit 1 on.
    fn set_bits(&mut self, var: u32, value: &BigUint, bits: u32) {
        for bit in 1..bits {
            let value = if value.bit(u64::from(bit)) { Fr::one() } else { Fr::zero() };
            self.set(var + bit - 1, value);
        }
    }

    fn set_small(&mut self, var: u32, value: u32, bits: u32) {
        self.set(var, Fr::from(value));
        for bit in 1..bits {
            self.set(var + bit, Fr::from((value >> bit) & 1));
        }
    }

    fn step(&mut self, step: Step, tables: &[Vec<Vec<Fr>>]) -> Result<(), CircuitError> {
        match step {
            Step::InputVar { var, index } => self.set(var, lookup(&self.inputs.vars, "vars", index)?),
            Step::InputFelt { var, source, bits } => {
                let value = match source {
                    Source::Felt(index) => lookup(&self.inputs.felts, "felts", index)?,
                    Source::Ext(index, i) => lookup(&self.inputs.exts, "exts", index)?[i as usize],
                };
                self.set_small(var, value, u32::from(bits));
            }
            Step::Product { row, var } => self.set(var, self.product(row)),
            Step::Linear { hint, var } => self.set(var, self.hint(hint)),
            Step::Select { row, hint, var } => self.set(var, self.product(row) + self.hint(hint)),
            Step::Polynomial { row, var, count } => {
                let values: Vec<Fr> = (0..u32::from(count)).map(|i| self.product(row + i)).collect();
                for (k, weights) in tables[count as usize].iter().enumerate() {
                    let sum = weights.iter().zip(&values).map(|(weight, value)| *weight * value).sum();
                    self.set(var + k as u32, sum);
                }
            }
            Step::Reduce { hint, integer, var, bits } => {
                let (quotient, remainder) = signed(self.hint(hint)).div_mod_floor(&BigInt::from(P));
                self.set_small(var, remainder.to_u32().unwrap_or(0), BITS);
                self.set_quotient(var + BITS, &quotient, integer, bits);
            }
            Step::Multiple { hint, integer, var, bits } => {
                let quotient = signed(self.hint(hint)).div_floor(&BigInt::from(P));
                self.set_quotient(var, &quotient, integer, bits);
            }
            Step::Inverse { hint, var } => {
                let inverse = invert(remainder(self.hint(hint)));
                self.set_small(var, inverse as u32, BITS);
            }
            Step::InverseExt { hint, var } => {
                let x = [0, 1, 2, 3].map(|i| remainder(self.hint(hint + i)));
                for (i, value) in (0..).zip(invert_ext(x)) {
                    self.set_small(var + BITS * i, value as u32, BITS);
                }
            }
            Step::Bits { hint, var, bits } => {
                let value = self.hint(hint).into_bigint();
                for bit in 1..u32::from(bits) {
                    self.set(var + bit - 1, Fr::from(value.get_bit(bit as usize)));
                }
            }
            Step::Quotient { row, var } => {
                let inverse = self.row(&self.system.a, row).inverse().unwrap_or_default();
                self.set(var, inverse * self.row(&self.system.c, row));
            }
            Step::Permute { hint, var } => {
                let mut state = [0, 1, 2].map(|i| self.hint(hint + i));
                let first = var as usize;
                permute(&mut state, &mut self.values[first..first + ROWS as usize]);
            }
            Step::MerkleTop { table } => self.merkle_top(table)?,
        }
        Ok(())
    }

    fn set_quotient(&mut self, var: u32, quotient: &BigInt, least: u32, bits: u32) {
        let offset = quotient - &self.integers[least as usize];
        // A negative offset only occurs for values outside their bounds: the rows then fail whatever is set.
        let offset =
            if offset.sign() == Sign::Minus { BigUint::default() } else { offset.magnitude().clone() };
        self.set_bits(var, &offset, bits);
    }

    fn merkle_top(&mut self, table: u32) -> Result<(), CircuitError> {
        let top = &self.tops[table as usize];
        let mut openings = Vec::with_capacity(top.openings.len());
        for opening in &top.openings {
            let bits = opening.bits.iter().map(|&hint| self.hint(hint)).collect();
            let siblings: Result<Vec<Fr>, CircuitError> =
                opening.siblings.iter().map(|&index| lookup(&self.inputs.vars, "vars", index)).collect();
            openings.push((self.hint(opening.node), bits, siblings?));
        }
        let mut trace = vec![Fr::zero(); ROWS as usize];
        let trace = std::cell::RefCell::new(&mut trace);
        let nodes = node_values(top.levels, openings.into_iter(), |left, right| {
            let mut state = [left, right, Fr::zero()];
            permute(&mut state, &mut trace.borrow_mut()[..]);
            state[0]
        });
        let first = top.first as usize;
        self.values[first..first + nodes.len()].copy_from_slice(&nodes);
        Ok(())
    }
}

/// The integer of least magnitude.
pub(crate) fn signed(value: Fr) -> BigInt {
    let positive: BigUint = value.into_bigint().into();
    let modulus: BigUint = Fr::MODULUS.into();
    if positive.bits() > 252 {
        BigInt::from(positive) - BigInt::from(modulus)
    } else {
        BigInt::from(positive)
    }
}

fn remainder(value: Fr) -> u64 {
    signed(value).mod_floor(&BigInt::from(P)).to_u64().unwrap_or(0)
}

/// The product in the extension, of canonical coefficients.
fn mul_ext(a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
    let p = u64::from(P);
    let mut out = [0u64; 4];
    for i in 0..4 {
        for j in 0..4 {
            let term = a[i] * b[j] % p;
            let scaled = if i + j >= 4 { term * NON_RESIDUE as u64 % p } else { term };
            out[(i + j) % 4] = (out[(i + j) % 4] + scaled) % p;
        }
    }
    out
}

/// The inverse in the extension; zero for zero.
///
/// The conjugate `a(-x)` gives `a(x) a(-x) = u + v x^2`, whose inverse is `(u - v x^2) / (u^2 - 3 v^2)`.
fn invert_ext(a: [u64; 4]) -> [u64; 4] {
    let p = u64::from(P);
    let negate = |value: u64| (p - value) % p;
    let conjugate = [a[0], negate(a[1]), a[2], negate(a[3])];
    let norm = mul_ext(a, conjugate);
    let (u, v) = (norm[0], norm[2]);
    let denominator = (u * u % p + p - NON_RESIDUE as u64 * (v * v % p) % p) % p;
    let scale = invert(denominator);
    mul_ext(conjugate, [u * scale % p, 0, negate(v) * scale % p, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverses_multiply_to_one() {
        let x = [3, 5, 2_000_000_000, 7];
        assert_eq!(mul_ext(x, invert_ext(x)), [1, 0, 0, 0]);
        assert_eq!(invert_ext([0; 4]), [0; 4]);
        assert_eq!(invert(5) * 5 % u64::from(P), 1);
    }

    #[test]
    fn signed_integers_are_of_least_magnitude() {
        assert_eq!(signed(-Fr::from(5u64)), BigInt::from(-5));
        assert_eq!(signed(Fr::from(5u64)), BigInt::from(5));
    }
}
