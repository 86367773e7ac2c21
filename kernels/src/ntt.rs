//! Number-theoretic transforms over BN254's scalar field on domains of `2^k`, `3 * 2^k` and `9 * 2^k` points, in place.
//!
//! The transforms that a Groth16 prover needs never have to sort: an inverse transform takes natural order and leaves
//! *permuted* coefficients, scaling to a coset works on permuted coefficients, and the forward transform takes them back to
//! natural order. [`Domain::ifft`] and friends sort, for callers that want natural order on both sides.
//!
//! Permuted order of a domain of `r * m` points (`r` is 1, 3 or 9, `m = 2^k`): position `j * m + rev(i)` holds coefficient
//! `r * i + flip(j)`, where `rev` reverses the `k` bits and `flip` the two digits in base 3 that `j` has if `r` is 9.
//!
//! Method: a radix-3 pass (decimation in frequency; its transpose on the way back), for `r = 9` one more on each third, then on
//! each part the radix-2 transforms in which a block has one constant twiddle (`x^2h - z^2 = (x^h - z)(x^h + z)`), eight elements at a time and up to
//! eight levels a pass. The twiddles are in bit-reversed order, so one table of `m / 2` serves every level.

mod radix2;

use ark_bn254::Fr;
use ark_ff::{serial_batch_inversion_and_mul, FftField, Field, One, Zero};
use radix2::Twiddles;
use rayon::prelude::*;
use thiserror::Error;

/// Elements that one task handles at least.
const GRAIN: usize = 1 << 12;

/// Why there is no domain, or why a transform was refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NttError {
    /// The field has no subgroup of a supported shape that large.
    #[error("no domain has {size} points: the limit is 3 * 2^28")]
    TooLarge {
        /// Points asked for.
        size: usize,
    },
    /// The size is not `2^k`, `3 * 2^k` or `9 * 2^k`.
    #[error("{size} is neither 2^k nor 3 * 2^k nor 9 * 2^k")]
    Shape {
        /// Points asked for.
        size: usize,
    },
}

/// The most memory that a domain of `size` points and its transforms, which are in place, take beside the values, in bytes.
pub fn host_bytes(size: u64) -> u64 {
    // Twiddles of half the points, the factors of a coset, and for each thread the vectors of a pass.
    let root = 1u64 << (size.max(1).ilog2() / 2 + 2);
    16 * size + 64 * root + (rayon::current_num_threads() as u64 + 1) * (128 << 10)
}

/// A multiplicative subgroup of `2^k`, `3 * 2^k` or `9 * 2^k` points with the twiddles of its transforms.
#[derive(Debug, Clone)]
pub struct Domain {
    /// Number of points.
    size: usize,
    /// Points of each power-of-two part.
    part: usize,
    /// Generator of the subgroup, arkworks' choice.
    generator: Fr,
    generator_inverse: Fr,
    size_inverse: Fr,
    twiddles: Twiddles,
}

impl Domain {
    /// The smallest domain with at least `points` points.
    ///
    /// # Errors
    /// [`NttError::TooLarge`].
    pub fn at_least(points: usize) -> Result<Self, NttError> {
        Self::new(Self::smallest_size(points)?)
    }

    /// The size of [`Domain::at_least`], without its tables.
    ///
    /// # Errors
    /// [`NttError::TooLarge`].
    pub fn smallest_size(points: usize) -> Result<usize, NttError> {
        if points > 3 << 28 {
            return Err(NttError::TooLarge { size: points });
        }
        let parts = [1, 3, 9].map(|radix| (radix, points.div_ceil(radix).next_power_of_two()));
        let sizes = parts.into_iter().filter(|(_, part)| *part <= 1 << 28).map(|(radix, part)| radix * part);
        sizes.min().ok_or(NttError::TooLarge { size: points })
    }

    /// The domain of exactly `size` points.
    ///
    /// # Errors
    /// [`NttError::Shape`] or [`NttError::TooLarge`].
    pub fn new(size: usize) -> Result<Self, NttError> {
        let radix = [9, 3].into_iter().find(|radix| size.is_multiple_of(*radix)).unwrap_or(1);
        let part = size / radix;
        if !part.is_power_of_two() {
            return Err(NttError::Shape { size });
        }
        let generator = Fr::get_root_of_unity(size as u64)
            .filter(|_| part <= 1 << 28)
            .ok_or(NttError::TooLarge { size })?;
        let inverse = |value: Fr| value.inverse().ok_or(NttError::TooLarge { size });
        Ok(Self {
            size,
            part,
            generator,
            generator_inverse: inverse(generator)?,
            size_inverse: inverse(Fr::from(size as u64))?,
            twiddles: Twiddles::new(part, generator.pow([radix as u64])),
        })
    }

    /// Number of points.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Generator of the subgroup: point `i` is its `i`-th power.
    pub fn generator(&self) -> Fr {
        self.generator
    }

    /// The value at `x` of the polynomial that vanishes on the domain, `x^size - 1`.
    pub fn vanishing(&self, x: Fr) -> Fr {
        x.pow([self.size as u64]) - Fr::one()
    }

    /// The values at `x` of the Lagrange polynomials of the coset `shift * H`, in natural order. Cost: one batch inversion.
    ///
    /// Returns `None` if `x` lies on the coset or `shift` is zero.
    pub fn lagrange_at(&self, x: Fr, shift: Fr) -> Option<Vec<Fr>> {
        let x = x * shift.inverse()?;
        let scale = self.vanishing(x) * self.size_inverse;
        if scale.is_zero() {
            return None;
        }
        let mut out = vec![Fr::zero(); self.size];
        out.par_chunks_mut(GRAIN).enumerate().for_each(|(chunk, out)| {
            let mut point = self.generator.pow([(chunk * GRAIN) as u64]);
            let mut numerators = [Fr::zero(); GRAIN];
            for (value, numerator) in out.iter_mut().zip(&mut numerators) {
                *value = x - point;
                *numerator = point * scale;
                point *= self.generator;
            }
            serial_batch_inversion_and_mul(out, &Fr::one());
            out.iter_mut().zip(&numerators).for_each(|(value, numerator)| *value *= numerator);
        });
        Some(out)
    }

    /// Interpolates: values in natural order become coefficients in permuted order, times the domain's size.
    ///
    /// The missing factor is left to [`Domain::scale_permuted`], which multiplies anyway.
    ///
    /// # Panics
    /// If `values` does not have the domain's size.
    pub fn interpolate_unscaled(&self, values: &mut [Fr]) {
        assert_eq!(values.len(), self.size, "one value per point");
        self.split_thirds(values, self.generator_inverse);
        values.par_chunks_mut(self.part).for_each(|part| self.twiddles.split(part, true));
    }

    /// Evaluates: coefficients in permuted order become values in natural order.
    ///
    /// # Panics
    /// If `coefficients` does not have the domain's size.
    pub fn evaluate_permuted(&self, coefficients: &mut [Fr]) {
        assert_eq!(coefficients.len(), self.size, "one coefficient per point");
        coefficients.par_chunks_mut(self.part).for_each(|part| self.twiddles.merge(part, false));
        self.merge_thirds(coefficients, self.generator);
    }

    /// Multiplies coefficient `i`, in permuted order, by `shift^i / size`.
    pub fn scale_permuted(&self, coefficients: &mut [Fr], shift: Fr) {
        let bits = self.part.trailing_zeros();
        let low_bits = bits / 2;
        let step = shift.pow([self.radix() as u64]);
        // Position q = high * 2^low_bits + low of a part has exponent rev(low) * 2^(bits - low_bits) + rev(high).
        let powers = |base: Fr, width: u32| -> Vec<Fr> {
            let mut table = vec![Fr::one()];
            for level in 0..width {
                let factor = base.pow([1u64 << (width - 1 - level)]);
                for index in 0..table.len() {
                    table.push(table[index] * factor);
                }
            }
            table
        };
        let low = powers(step.pow([1u64 << (bits - low_bits)]), low_bits);
        let high = powers(step, bits - low_bits);
        for (part, values) in coefficients.chunks_mut(self.part).enumerate() {
            let start = self.size_inverse * shift.pow([self.flip(part) as u64]);
            values
                .par_chunks_mut(low.len())
                .zip(&high)
                .for_each(|(chunk, high)| radix2::scale(chunk, &low, start * high));
        }
    }

    /// Evaluates natural coefficients at the domain's points, in place and in natural order.
    ///
    /// # Panics
    /// If `values` does not have the domain's size.
    pub fn fft(&self, values: &mut Vec<Fr>) {
        assert_eq!(values.len(), self.size, "one coefficient per point");
        *values = (0..self.size).into_par_iter().map(|position| values[self.index_of(position)]).collect();
        self.evaluate_permuted(values);
    }

    /// The inverse of [`Domain::fft`].
    ///
    /// # Panics
    /// If `values` does not have the domain's size.
    pub fn ifft(&self, values: &mut Vec<Fr>) {
        self.coset_ifft(values, Fr::one());
    }

    /// Evaluates natural coefficients on the coset `shift * H`, in natural order.
    ///
    /// # Panics
    /// If `values` does not have the domain's size.
    pub fn coset_fft(&self, values: &mut Vec<Fr>, shift: Fr) {
        values.par_chunks_mut(GRAIN).enumerate().for_each(|(chunk, values)| {
            let mut power = shift.pow([(chunk * GRAIN) as u64]);
            for value in values {
                *value *= power;
                power *= shift;
            }
        });
        self.fft(values);
    }

    /// The inverse of [`Domain::coset_fft`].
    ///
    /// # Panics
    /// If `values` does not have the domain's size, or `shift` is zero.
    pub fn coset_ifft(&self, values: &mut Vec<Fr>, shift: Fr) {
        self.interpolate_unscaled(values);
        self.scale_permuted(values, shift.inverse().expect("a coset's shift is not zero"));
        *values = (0..self.size).into_par_iter().map(|index| values[self.position_of(index)]).collect();
    }

    /// The coefficient that position `position` of the permuted order holds.
    pub fn index_of(&self, position: usize) -> usize {
        self.radix() * reverse(position % self.part, self.part) + self.flip(position / self.part)
    }

    /// The position of coefficient `index` in the permuted order.
    pub fn position_of(&self, index: usize) -> usize {
        self.flip(index % self.radix()) * self.part + reverse(index / self.radix(), self.part)
    }

    /// Power-of-two parts: 1, 3 or 9.
    fn radix(&self) -> usize {
        self.size / self.part
    }

    /// The lowest coefficient of a part, and the part of a lowest coefficient.
    fn flip(&self, part: usize) -> usize {
        if self.radix() == 9 {
            3 * (part % 3) + part / 3
        } else {
            part
        }
    }

    /// The radix-3 passes from a block down to its parts.
    fn split_thirds(&self, block: &mut [Fr], root: Fr) {
        if block.len() > self.part {
            radix3(block, root, false);
            let third = block.len() / 3;
            block.chunks_mut(third).for_each(|third| self.split_thirds(third, root.square() * root));
        }
    }

    /// The transpose of [`Domain::split_thirds`].
    fn merge_thirds(&self, block: &mut [Fr], root: Fr) {
        if block.len() > self.part {
            let third = block.len() / 3;
            block.chunks_mut(third).for_each(|third| self.merge_thirds(third, root.square() * root));
            radix3(block, root, true);
        }
    }
}

/// One radix-3 pass over the thirds of `values`; `twiddle_first` is the transpose that undoes it (times 3, for the inverse root).
fn radix3(values: &mut [Fr], root: Fr, twiddle_first: bool) {
    let third = values.len() / 3;
    let cube_root = root.pow([third as u64]);
    let root2 = root.square();
    let (first, rest) = values.split_at_mut(third);
    let (second, third) = rest.split_at_mut(third);
    let chunks =
        first.par_chunks_mut(GRAIN).zip(second.par_chunks_mut(GRAIN)).zip(third.par_chunks_mut(GRAIN));
    chunks.enumerate().for_each(|(chunk, ((first, second), third))| {
        let mut twiddle = root.pow([(chunk * GRAIN) as u64]);
        let mut twiddle2 = twiddle.square();
        for ((first, second), third) in first.iter_mut().zip(second).zip(third) {
            if twiddle_first {
                *second *= twiddle;
                *third *= twiddle2;
            }
            let turned = (*second - *third) * cube_root;
            let (a, b, c) = (*first, *second, *third);
            *first = a + b + c;
            *second = a - c + turned;
            *third = a - b - turned;
            if !twiddle_first {
                *second *= twiddle;
                *third *= twiddle2;
            }
            twiddle *= root;
            twiddle2 *= root2;
        }
    });
}

/// Reverses the bits of `index` below `size`, a power of two.
fn reverse(index: usize, size: usize) -> usize {
    if size <= 1 {
        return index;
    }
    index.reverse_bits() >> (usize::BITS - size.trailing_zeros())
}

#[cfg(test)]
mod tests;
