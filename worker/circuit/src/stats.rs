//! Constraint counts by operation and by purpose.

use std::fmt;

/// What a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// S-boxes of the BN254 Poseidon2.
    Permutation,
    /// Products of values.
    Product,
    /// Choices by a bit.
    Select,
    /// Quotient and remainder of a reduction modulo the KoalaBear prime.
    Reduction,
    /// Quotient of an equality modulo the KoalaBear prime.
    Equality,
    /// Bits of values of the proof.
    Witness,
    /// Inverses' ranges.
    Inverse,
    /// Decompositions into bits, canonical.
    Bits,
    /// Plain linear equalities.
    Linear,
}

const KINDS: [&str; 9] =
    ["permutation", "product", "select", "reduction", "equality", "witness", "inverse", "bits", "linear"];

/// A table of constraint counts: one line an exported operation, one column a purpose.
#[derive(Clone, Debug)]
pub struct Stats {
    operations: Vec<&'static str>,
    counts: Vec<usize>,
    rows: Vec<[usize; KINDS.len()]>,
    variables: usize,
    entries: [usize; 3],
    touched: [usize; 3],
}

impl Stats {
    pub(crate) fn new(operations: &[&'static str]) -> Self {
        Self {
            operations: operations.to_vec(),
            counts: vec![0; operations.len()],
            rows: vec![[0; KINDS.len()]; operations.len()],
            variables: 0,
            entries: [0; 3],
            touched: [0; 3],
        }
    }

    pub(crate) fn add(&mut self, operation: u8, kind: Kind) {
        self.rows[operation as usize][kind as usize] += 1;
    }

    pub(crate) fn finish(
        &mut self,
        counts: &[usize],
        variables: usize,
        entries: [usize; 3],
        touched: [usize; 3],
    ) {
        self.counts = counts.to_vec();
        self.variables = variables;
        self.entries = entries;
        self.touched = touched;
    }

    /// Constraints in all.
    pub fn constraints(&self) -> usize {
        self.rows.iter().flatten().sum()
    }

    /// Variables in all, the constant one included.
    pub fn variables(&self) -> usize {
        self.variables
    }

    /// Non-zero entries of the three matrices.
    pub fn entries(&self) -> [usize; 3] {
        self.entries
    }

    /// Constraints by exported operation: name, how often it occurs, constraints.
    pub fn by_operation(&self) -> impl Iterator<Item = (&'static str, usize, usize)> + '_ {
        let rows = self.rows.iter().map(|kinds| kinds.iter().sum::<usize>());
        self.operations.iter().zip(&self.counts).zip(rows).map(|((&name, &count), rows)| (name, count, rows))
    }

    /// Constraints by purpose.
    pub fn by_purpose(&self) -> impl Iterator<Item = (&'static str, usize)> + '_ {
        KINDS.iter().enumerate().map(|(i, &name)| (name, self.rows.iter().map(|kinds| kinds[i]).sum()))
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<27}{:>9}{:>11}", "operation", "count", "all")?;
        KINDS.iter().try_for_each(|kind| write!(f, "{kind:>12}"))?;
        writeln!(f)?;
        for ((name, count, rows), kinds) in self.by_operation().zip(&self.rows) {
            if count + rows > 0 {
                write!(f, "{name:<27}{count:>9}{rows:>11}")?;
                kinds.iter().try_for_each(|kind| write!(f, "{kind:>12}"))?;
                writeln!(f)?;
            }
        }
        write!(f, "{:<27}{:>9}{:>11}", "all", "", self.constraints())?;
        self.by_purpose().try_for_each(|(_, rows)| write!(f, "{rows:>12}"))?;
        writeln!(f)?;
        let [a, b, c] = self.entries;
        writeln!(f, "variables {}; entries A {a}, B {b}, C {c}", self.variables)?;
        let [a, b, c] = self.touched;
        write!(f, "variables that occur in A {a}, B {b}, C {c}")
    }
}
