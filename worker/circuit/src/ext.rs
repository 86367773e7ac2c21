//! The degree-4 extension of KoalaBear, `x^4 = 3`.
//!
//! # Products
//! With `a` and `b` as polynomials of `m` and `n` coefficients, their product has `m + n - 1` coefficients `c_k`, one variable
//! each, and as many rows `a(t) b(t) = c(t)` at distinct points `t` of the big field (infinity included): the coefficients are then
//! determined, because a polynomial of degree below `m + n - 1` is fixed by that many values. For two full elements that is 7 rows
//! instead of 16. Reduction by `x^4 = 3` is linear: `c_k + 3 c_(k+4)`.

use crate::builder::Builder;
use crate::error::CircuitError;
use crate::interval::Interval;
use crate::koala::{Felt, BITS, BITS_MAX};
use crate::lc::Lc;
use crate::stats::Kind;
use crate::steps::Step;
use ark_bn254::Fr;
use ark_ff::{One, Zero};

/// An element: coefficients of 1, x, x^2, x^3.
pub(crate) type Ext = [Felt; 4];

/// The non-residue: `x^4 = 3`.
pub(crate) const NON_RESIDUE: i64 = 3;
const TERMS_MAX: usize = 24;

/// Points at which products are evaluated, in order of use; `None` is infinity.
pub(crate) const POINTS: [Option<i64>; 7] = [Some(0), None, Some(1), Some(-1), Some(2), Some(-2), Some(3)];

/// Coefficients up to the last that is not the constant zero.
fn length(x: &Ext) -> usize {
    x.iter().rposition(|value| !value.is_zero()).map_or(0, |last| last + 1)
}

fn evaluate(coefficients: &[Lc], point: Option<i64>) -> Lc {
    let Some(point) = point else {
        return coefficients.last().cloned().unwrap_or_default();
    };
    let mut power = Fr::one();
    let mut sum = Lc::default();
    for coefficient in coefficients {
        sum = sum.add_scaled(coefficient, power);
        power *= Fr::from(point);
    }
    sum
}

/// The bound on the magnitude of a product's coefficients, in bits.
pub(crate) fn product_bits(a: u32, b: u32) -> u32 {
    // At most 1 + 3 * 3 = 10 products add up in one coefficient.
    a + b + 4
}

impl Builder {
    /// `a * b`; [`product_bits`] of the longest coefficients must not exceed [`BITS_MAX`].
    pub(crate) fn mul_ext(&mut self, a: &Ext, b: &Ext) -> Ext {
        let constant = |x: &Ext| x.iter().all(|value| value.as_constant().is_some());
        let (m, n) = (length(a), length(b));
        let zero = Felt::constant(0);
        let mut product: Vec<Felt> = vec![zero.clone(); 7];
        if m == 0 || n == 0 {
            return std::array::from_fn(|_| zero.clone());
        }
        if constant(a) || constant(b) || m == 1 || n == 1 {
            for (i, x) in a[..m].iter().enumerate() {
                for (j, y) in b[..n].iter().enumerate() {
                    let term = self.mul(x, y);
                    product[i + j] = product[i + j].add(&term);
                }
            }
        } else {
            self.mul_polynomials(&a[..m], &b[..n], &mut product);
        }
        std::array::from_fn(|k| match product.get(k + 4) {
            Some(high) => product[k].add(&high.scale(NON_RESIDUE)),
            None => product[k].clone(),
        })
    }

    fn mul_polynomials(&mut self, a: &[Felt], b: &[Felt], product: &mut [Felt]) {
        let count = a.len() + b.len() - 1;
        assert!(a.iter().chain(b).all(|value| value.bits() <= BITS_MAX), "bounds are kept below 2^250");
        let mut compact = |side: &[Felt]| -> Vec<Lc> {
            side.iter().map(|value| self.compact(value.lc.clone(), TERMS_MAX)).collect()
        };
        let (left, right) = (compact(a), compact(b));
        let terms = |side: &[Lc]| side.iter().map(Lc::len).sum::<usize>();
        let (left, right) = if terms(&right) > terms(&left) { (right, left) } else { (left, right) };
        let first = self.alloc(count as u32);
        let coefficients: Vec<Lc> = (0..count as u32).map(|k| Lc::var(first + k)).collect();
        let row = self.rows();
        for &point in &POINTS[..count] {
            let (l, r) = (evaluate(&left, point), evaluate(&right, point));
            self.row(Kind::Product, &l, &r, &evaluate(&coefficients, point));
        }
        self.steps.push(Step::Polynomial { row, var: first, count: count as u8 });
        for (k, coefficient) in coefficients.into_iter().enumerate() {
            let pairs = (0..a.len()).filter(|&i| k >= i && k - i < b.len());
            let range = pairs
                .map(|i| a[i].range.mul(&b[k - i].range))
                .fold(Interval::exactly(0), |sum, range| sum.add(&range));
            product[k] = Felt { lc: coefficient, range };
        }
    }

    /// `1 / x`, coefficients in `0 .. 2^31`.
    ///
    /// # Errors
    /// If the product with the inverse can never be one.
    pub(crate) fn inverse_ext(&mut self, x: &Ext) -> Result<Ext, CircuitError> {
        let long = x.iter().any(|value| product_bits(value.bits(), BITS) > BITS_MAX);
        let x: Ext = std::array::from_fn(|i| if long { self.reduce(&x[i]) } else { x[i].clone() });
        let var = self.alloc(4 * BITS);
        let hints = [0, 1, 2, 3].map(|i: usize| self.hint(&x[i].lc));
        self.steps.push(Step::InverseExt { hint: hints[0], var });
        let inverse: Ext = std::array::from_fn(|i| {
            let first = var + BITS * i as u32;
            let lc = Lc::var(first);
            self.range(Kind::Inverse, &lc, BITS, first + 1);
            Felt { lc, range: Interval::unsigned(BITS) }
        });
        let product = self.mul_ext(&x, &inverse);
        for (i, coefficient) in product.iter().enumerate() {
            self.assert_zero(&coefficient.sub(&Felt::constant(i64::from(i == 0))))?;
        }
        Ok(inverse)
    }
}

/// The inverse of the Vandermonde matrix of the first `count` of [`POINTS`]: evaluations to coefficients.
pub(crate) fn interpolation(count: usize) -> Vec<Vec<Fr>> {
    let mut rows: Vec<Vec<Fr>> = POINTS[..count]
        .iter()
        .enumerate()
        .map(|(i, point)| {
            let mut row: Vec<Fr> = match point {
                None => (0..count).map(|k| Fr::from(u64::from(k + 1 == count))).collect(),
                Some(t) => std::iter::successors(Some(Fr::one()), |power| Some(*power * Fr::from(*t)))
                    .take(count)
                    .collect(),
            };
            row.extend((0..count).map(|j| Fr::from(u64::from(i == j))));
            row
        })
        .collect();
    for column in 0..count {
        let pivot = (column..count).find(|&i| !rows[i][column].is_zero()).expect("the points are distinct");
        rows.swap(column, pivot);
        let inverse = ark_ff::Field::inverse(&rows[column][column]).expect("a pivot is not zero");
        rows[column].iter_mut().for_each(|value| *value *= inverse);
        let pivot_row = rows[column].clone();
        for (i, row) in rows.iter_mut().enumerate() {
            let factor = row[column];
            if i != column && !factor.is_zero() {
                row.iter_mut().zip(&pivot_row).for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
    }
    rows.into_iter().map(|row| row[count..].to_vec()).collect()
}
