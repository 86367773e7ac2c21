//! Rows, variables and witness steps, and the few gadgets that everything else is made of.
//!
//! # Range checks
//! `value` is below `2^n`: variables `b_1 .. b_{n-1}` with a row `b * (b - 1) = 0` each, and one row
//! `b_0 * (b_0 - 1) = 0` where `b_0` stands for the linear combination `value - sum 2^i b_i`. The rows say that `value` is a
//! sum of `n` bits with their weights, without a row for the sum. As `n < 253`, the sum does not wrap.

use crate::ir::OPCODES;
use crate::lc::{Lc, ONE};
use crate::stats::{Kind, Stats};
use crate::steps::Step;
use ark_bn254::Fr;
use ark_ff::One;
use assay_kernels::r1cs::{R1cs, SparseMatrix};
use num_bigint::BigInt;
use std::collections::HashSet;

/// Public inputs: verifying key's hash, committed values' digest, exit code, root of the keys, nonce.
pub(crate) const PUBLIC_INPUTS: u32 = 5;

/// A constraint system under construction, with the program that computes its variables.
#[derive(Debug)]
pub(crate) struct Builder {
    /// Rows so far; the numbers of variables are set at the end.
    pub(crate) r1cs: R1cs,
    /// Linear combinations that only the witness program reads.
    pub(crate) hints: SparseMatrix,
    /// Integers that the witness program reads.
    pub(crate) integers: Vec<BigInt>,
    /// The witness program.
    pub(crate) steps: Vec<Step>,
    /// Rows by operation and kind.
    pub(crate) stats: Stats,
    /// Operation whose rows are being made: index into [`OPCODES`].
    pub(crate) origin: u8,
    /// First row of each stretch of rows of one operation.
    pub(crate) stretches: Vec<(u32, u8)>,
    /// Variables whose integers are known not to be multiples of the KoalaBear prime.
    pub(crate) nonzero: HashSet<u32>,
    next: u32,
}

impl Builder {
    /// An empty system with [`PUBLIC_INPUTS`] public inputs.
    pub(crate) fn new() -> Self {
        Self {
            r1cs: R1cs::default(),
            hints: SparseMatrix::default(),
            integers: Vec::new(),
            steps: Vec::new(),
            stats: Stats::new(&OPCODES),
            origin: 0,
            stretches: Vec::new(),
            nonzero: HashSet::new(),
            next: 1 + PUBLIC_INPUTS,
        }
    }

    /// The next `count` variables; the first is returned.
    pub(crate) fn alloc(&mut self, count: u32) -> u32 {
        let first = self.next;
        self.next = first.checked_add(count).expect("fewer than 2^32 variables");
        first
    }

    /// Variables so far, the constant and the public ones included.
    pub(crate) fn variables(&self) -> u32 {
        self.next
    }

    /// Number of rows so far, which is the index of the next row.
    pub(crate) fn rows(&self) -> u32 {
        u32::try_from(self.r1cs.num_constraints()).expect("fewer than 2^32 rows")
    }

    /// Appends the row `a * b = c`.
    pub(crate) fn row(&mut self, kind: Kind, a: &Lc, b: &Lc, c: &Lc) -> u32 {
        let row = self.count_row(kind);
        let R1cs { coefficients, a: left, b: right, c: product, .. } = &mut self.r1cs;
        for (matrix, lc) in [(left, a), (right, b), (product, c)] {
            matrix.push_row(lc.terms().iter().map(|&(var, value)| (var, coefficients.intern(value))));
        }
        row
    }

    /// Notes a row of `kind`, which the caller appends next; returns its index.
    pub(crate) fn count_row(&mut self, kind: Kind) -> u32 {
        let row = self.rows();
        self.stats.add(self.origin, kind);
        if self.stretches.last().is_none_or(|last| last.1 != self.origin) {
            self.stretches.push((row, self.origin));
        }
        row
    }

    /// Appends `lc = 0`. All of it is in the third matrix, so that the other two stay thin.
    pub(crate) fn linear(&mut self, kind: Kind, lc: &Lc) {
        self.row(kind, &Lc::default(), &Lc::default(), lc);
    }

    /// Stores a linear combination for the witness program.
    pub(crate) fn hint(&mut self, lc: &Lc) -> u32 {
        let index = u32::try_from(self.hints.rows()).expect("fewer than 2^32 hints");
        let coefficients = &mut self.r1cs.coefficients;
        self.hints.push_row(lc.terms().iter().map(|&(var, value)| (var, coefficients.intern(value))));
        index
    }

    /// Stores an integer for the witness program.
    pub(crate) fn integer(&mut self, value: BigInt) -> u32 {
        if self.integers.last() != Some(&value) {
            self.integers.push(value);
        }
        u32::try_from(self.integers.len() - 1).expect("fewer than 2^32 integers")
    }

    /// The variable `a * b`.
    pub(crate) fn product(&mut self, kind: Kind, a: &Lc, b: &Lc) -> u32 {
        let var = self.alloc(1);
        // The second matrix costs most in the proof (its variables need points of G2): give it the shorter side.
        let (a, b) = if b.len() > a.len() { (b, a) } else { (a, b) };
        let row = self.row(kind, a, b, &Lc::var(var));
        self.steps.push(Step::Product { row, var });
        var
    }

    /// `bit ? a : b` for `bit` in 0, 1: a combination without a row if `a - b` is constant, else a new variable.
    pub(crate) fn select(&mut self, bit: &Lc, a: &Lc, b: &Lc) -> Lc {
        let difference = a.sub(b);
        if let Some(constant) = difference.as_constant() {
            return b.add_scaled(bit, constant);
        }
        if let Some(constant) = bit.as_constant() {
            return if constant.is_one() { a.clone() } else { b.clone() };
        }
        let var = self.alloc(1);
        let row = self.row(Kind::Select, &difference, bit, &Lc::var(var).sub(b));
        let hint = self.hint(b);
        self.steps.push(Step::Select { row, hint, var });
        Lc::var(var)
    }

    /// Rows that say that `lc` is 0 or 1.
    pub(crate) fn boolean(&mut self, kind: Kind, lc: &Lc) {
        let minus_one = lc.add_constant(-Fr::one());
        self.row(kind, lc, &minus_one, &Lc::default());
    }

    /// Rows that say that `value` is below `2^bits`; the variables `first ..` hold its bits from bit 1 on (`bits - 1`
    /// variables). Returns bit 0 as a combination.
    pub(crate) fn range(&mut self, kind: Kind, value: &Lc, bits: u32, first: u32) -> Lc {
        debug_assert!(bits < 255);
        if bits == 0 {
            self.linear(kind, value);
            return Lc::default();
        }
        let mut terms = Vec::with_capacity(bits as usize);
        let mut weight = Fr::one();
        for i in 1..bits {
            weight += weight;
            let bit = Lc::var(first + i - 1);
            self.boolean(kind, &bit);
            terms.push((first + i - 1, -weight));
        }
        let lowest = value.add(&Lc::from_terms(terms));
        self.boolean(kind, &lowest);
        lowest
    }

    /// A variable equal to `lc` if `lc` has more than `terms_max` terms (one row), else `lc` itself.
    pub(crate) fn compact(&mut self, lc: Lc, terms_max: usize) -> Lc {
        if lc.len() <= terms_max {
            return lc;
        }
        let var = self.alloc(1);
        self.linear(Kind::Linear, &lc.sub(&Lc::var(var)));
        let hint = self.hint(&lc);
        self.steps.push(Step::Linear { hint, var });
        Lc::var(var)
    }

    /// A new variable `q` with `a * q = c`, which exists exactly if `a` is not zero or `c` is.
    pub(crate) fn quotient(&mut self, kind: Kind, a: &Lc, c: &Lc) -> u32 {
        let var = self.alloc(1);
        let row = self.row(kind, a, &Lc::var(var), c);
        self.steps.push(Step::Quotient { row, var });
        var
    }

    /// The constant one.
    pub(crate) fn one() -> Lc {
        Lc::var(ONE)
    }
}
