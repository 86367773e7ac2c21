//! Linear combinations of circuit variables with coefficients in BN254's scalar field.

use ark_bn254::Fr;
use ark_ff::{One, Zero};

/// The variable that is always one.
pub(crate) const ONE: u32 = 0;

/// A linear combination: (variable, coefficient) pairs by increasing variable, no zero coefficients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Lc {
    terms: Vec<(u32, Fr)>,
}

impl Lc {
    /// The constant `value`.
    pub(crate) fn constant(value: Fr) -> Self {
        Self::term(ONE, value)
    }

    /// The variable `var`.
    pub(crate) fn var(var: u32) -> Self {
        Self { terms: vec![(var, Fr::one())] }
    }

    /// `coefficient * var`.
    pub(crate) fn term(var: u32, coefficient: Fr) -> Self {
        if coefficient.is_zero() {
            return Self::default();
        }
        Self { terms: vec![(var, coefficient)] }
    }

    /// The combination of `terms`, whose variables may come in any order and repeat.
    pub(crate) fn from_terms(mut terms: Vec<(u32, Fr)>) -> Self {
        terms.sort_unstable_by_key(|term| term.0);
        let mut out: Vec<(u32, Fr)> = Vec::with_capacity(terms.len());
        for (var, coefficient) in terms {
            match out.last_mut() {
                Some(last) if last.0 == var => last.1 += coefficient,
                _ => out.push((var, coefficient)),
            }
        }
        out.retain(|term| !term.1.is_zero());
        Self { terms: out }
    }

    /// The (variable, coefficient) pairs.
    pub(crate) fn terms(&self) -> &[(u32, Fr)] {
        &self.terms
    }

    /// Number of terms.
    pub(crate) fn len(&self) -> usize {
        self.terms.len()
    }

    /// The value, if no variable but the constant one occurs.
    pub(crate) fn as_constant(&self) -> Option<Fr> {
        match self.terms.as_slice() {
            [] => Some(Fr::zero()),
            [(ONE, value)] => Some(*value),
            _ => None,
        }
    }

    /// `self + factor * other`.
    pub(crate) fn add_scaled(&self, other: &Self, factor: Fr) -> Self {
        if factor.is_zero() {
            return self.clone();
        }
        let unit = factor.is_one();
        let scaled = |value: Fr| if unit { value } else { value * factor };
        let (left, right) = (&self.terms, &other.terms);
        let mut terms = Vec::with_capacity(left.len() + right.len());
        let (mut i, mut j) = (0, 0);
        while i < left.len() && j < right.len() {
            match left[i].0.cmp(&right[j].0) {
                std::cmp::Ordering::Less => {
                    terms.push(left[i]);
                    i += 1;
                }
                std::cmp::Ordering::Greater => {
                    terms.push((right[j].0, scaled(right[j].1)));
                    j += 1;
                }
                std::cmp::Ordering::Equal => {
                    let sum = left[i].1 + scaled(right[j].1);
                    if !sum.is_zero() {
                        terms.push((left[i].0, sum));
                    }
                    i += 1;
                    j += 1;
                }
            }
        }
        terms.extend_from_slice(&left[i..]);
        terms.extend(right[j..].iter().map(|&(var, value)| (var, scaled(value))));
        Self { terms }
    }

    /// `self + other`.
    pub(crate) fn add(&self, other: &Self) -> Self {
        self.add_scaled(other, Fr::one())
    }

    /// `self - other`.
    pub(crate) fn sub(&self, other: &Self) -> Self {
        self.add_scaled(other, -Fr::one())
    }

    /// `factor * self`.
    pub(crate) fn scale(&self, factor: Fr) -> Self {
        if factor.is_zero() {
            return Self::default();
        }
        Self { terms: self.terms.iter().map(|&(var, value)| (var, value * factor)).collect() }
    }

    /// `self + value`.
    pub(crate) fn add_constant(&self, value: Fr) -> Self {
        self.add(&Self::constant(value))
    }

    /// The value under `assignment`.
    #[cfg(test)]
    pub(crate) fn evaluate(&self, assignment: &[Fr]) -> Fr {
        self.terms.iter().map(|&(var, value)| assignment[var as usize] * value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_merge_by_variable_and_drop_zeros() {
        let a = Lc::from_terms(vec![(3, Fr::from(2u64)), (1, Fr::from(5u64)), (3, Fr::from(1u64))]);
        assert_eq!(a.terms(), &[(1, Fr::from(5u64)), (3, Fr::from(3u64))]);
        assert_eq!(a.sub(&a), Lc::default());
        assert_eq!(a.add_scaled(&Lc::var(2), Fr::from(7u64)).len(), 3);
        assert_eq!(Lc::constant(Fr::from(4u64)).as_constant(), Some(Fr::from(4u64)));
        assert_eq!(a.as_constant(), None);
        let z = [1u64, 10, 20, 30].map(Fr::from);
        assert_eq!(a.add_constant(Fr::from(1u64)).evaluate(&z), Fr::from(5 * 10 + 3 * 30 + 1u64));
    }
}
