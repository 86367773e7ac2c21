//! Rank-1 constraint systems as sparse matrices over BN254's scalar field.
//!
//! A circuit of this project has about 13 million rows and 10^8 non-zero entries, drawn from a small set of distinct
//! coefficients. A row therefore stores a 32-bit column and a 32-bit index into a table of coefficients: 8 bytes an entry
//! instead of 40.

use ark_bn254::Fr;
use ark_ff::{One, PrimeField, Zero};
use rayon::prelude::*;
use std::collections::HashMap;
use thiserror::Error;

/// What is wrong with an assignment or a matrix.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum R1csError {
    /// The assignment does not have one value per variable.
    #[error("assignment has {got} values, the circuit has {expected} variables")]
    AssignmentLength {
        /// Variables of the circuit, the constant one included.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// The first value is not the constant one.
    #[error("assignment does not start with the constant one")]
    ConstantOne,
    /// A row does not hold.
    #[error("constraint {row} is not satisfied")]
    Unsatisfied {
        /// Index of the first row that does not hold.
        row: usize,
    },
}

/// The distinct coefficients of a system; index 0 is one, index 1 is minus one.
#[derive(Debug, Clone)]
pub struct Coefficients {
    values: Vec<Fr>,
    index: HashMap<[u64; 4], u32>,
}

impl Default for Coefficients {
    fn default() -> Self {
        let mut table = Self { values: Vec::new(), index: HashMap::new() };
        table.intern(Fr::one());
        table.intern(-Fr::one());
        table
    }
}

impl Coefficients {
    /// The index of `value`, which is added if it is new.
    ///
    /// # Panics
    /// If there are more than 2^32 distinct coefficients.
    pub fn intern(&mut self, value: Fr) -> u32 {
        let key = value.into_bigint().0;
        if let Some(&found) = self.index.get(&key) {
            return found;
        }
        let next = u32::try_from(self.values.len()).expect("fewer than 2^32 distinct coefficients");
        self.values.push(value);
        self.index.insert(key, next);
        next
    }

    /// The coefficients by index.
    pub fn values(&self) -> &[Fr] {
        &self.values
    }
}

/// A matrix in compressed sparse rows; coefficients are indices into a [`Coefficients`] table.
#[derive(Debug, Clone, Default)]
pub struct SparseMatrix {
    /// `row_ends[i]` is one past the last entry of row `i`.
    pub row_ends: Vec<u64>,
    /// Column (variable index) of each entry.
    pub columns: Vec<u32>,
    /// Index of each entry's coefficient.
    pub coefficients: Vec<u32>,
}

impl SparseMatrix {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.row_ends.len()
    }

    /// Number of non-zero entries.
    pub fn entries(&self) -> usize {
        self.columns.len()
    }

    /// Appends a row of (column, coefficient index) pairs.
    pub fn push_row(&mut self, row: impl IntoIterator<Item = (u32, u32)>) {
        for (column, coefficient) in row {
            self.columns.push(column);
            self.coefficients.push(coefficient);
        }
        self.row_ends.push(self.columns.len() as u64);
    }

    /// The (column, coefficient index) pairs of row `row`.
    ///
    /// # Panics
    /// If `row` is out of range.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (u32, u32)> + '_ {
        let start = if row == 0 { 0 } else { self.row_ends[row - 1] as usize };
        let end = self.row_ends[row] as usize;
        self.columns[start..end].iter().copied().zip(self.coefficients[start..end].iter().copied())
    }

    /// The inner product of row `row` with `assignment`.
    pub fn evaluate_row(&self, row: usize, coefficients: &[Fr], assignment: &[Fr]) -> Fr {
        let mut sum = Fr::zero();
        for (column, coefficient) in self.row(row) {
            let value = assignment[column as usize];
            match coefficient {
                0 => sum += value,
                1 => sum -= value,
                other => sum += value * coefficients[other as usize],
            }
        }
        sum
    }
}

/// A rank-1 constraint system: `(A z) * (B z) = C z` row by row, `z = [1, instance.., witness..]`.
#[derive(Debug, Clone, Default)]
pub struct R1cs {
    /// Public variables, the constant one at index 0 included.
    pub num_instance: usize,
    /// Private variables.
    pub num_witness: usize,
    /// The table that the three matrices index.
    pub coefficients: Coefficients,
    /// Left factors.
    pub a: SparseMatrix,
    /// Right factors.
    pub b: SparseMatrix,
    /// Products.
    pub c: SparseMatrix,
}

impl R1cs {
    /// Number of constraints.
    pub fn num_constraints(&self) -> usize {
        self.a.rows()
    }

    /// Number of variables, the constant one included.
    pub fn num_variables(&self) -> usize {
        self.num_instance + self.num_witness
    }

    /// Checks every row.
    ///
    /// # Errors
    /// [`R1csError`]: wrong length, no leading one, or the first row that does not hold.
    pub fn check(&self, assignment: &[Fr]) -> Result<(), R1csError> {
        if assignment.len() != self.num_variables() {
            return Err(R1csError::AssignmentLength {
                expected: self.num_variables(),
                got: assignment.len(),
            });
        }
        if !assignment.first().is_some_and(One::is_one) {
            return Err(R1csError::ConstantOne);
        }
        let table = self.coefficients.values();
        let broken = (0..self.num_constraints()).into_par_iter().find_first(|&row| {
            let left = self.a.evaluate_row(row, table, assignment);
            let right = self.b.evaluate_row(row, table, assignment);
            left * right != self.c.evaluate_row(row, table, assignment)
        });
        broken.map_or(Ok(()), |row| Err(R1csError::Unsatisfied { row }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square() -> R1cs {
        let mut system = R1cs { num_instance: 2, num_witness: 1, ..R1cs::default() };
        system.a.push_row([(2, 0)]);
        system.b.push_row([(2, 0)]);
        system.c.push_row([(1, 0)]);
        system
    }

    #[test]
    fn a_square_is_accepted_and_a_wrong_root_is_not() {
        let system = square();
        assert_eq!(system.check(&[Fr::one(), Fr::from(9u64), Fr::from(3u64)]), Ok(()));
        let wrong = system.check(&[Fr::one(), Fr::from(9u64), Fr::from(4u64)]);
        assert_eq!(wrong, Err(R1csError::Unsatisfied { row: 0 }));
        assert_eq!(system.check(&[Fr::one()]), Err(R1csError::AssignmentLength { expected: 3, got: 1 }));
        assert_eq!(system.check(&[Fr::zero(); 3]), Err(R1csError::ConstantOne));
    }

    #[test]
    fn a_coefficient_is_stored_once() {
        let mut table = Coefficients::default();
        let seven = table.intern(Fr::from(7u64));
        assert_eq!(table.intern(Fr::from(7u64)), seven);
        assert_eq!(table.intern(-Fr::one()), 1);
        assert_eq!(table.values().len(), 3);
    }
}
