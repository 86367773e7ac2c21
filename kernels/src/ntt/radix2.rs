//! The power-of-two transforms: one constant twiddle a block, two levels a pass, depth first.

use ark_bn254::Fr;
use ark_ff::{Field, One};
use rayon::prelude::*;

/// Blocks of up to this many elements (128 KiB) are finished level by level.
const CACHED: usize = 1 << 12;
/// Blocks of at least this many elements are shared among threads.
const SHARED: usize = 1 << 14;
/// Columns that one task of a shared pass handles.
const COLUMNS: usize = 1 << 11;

/// `w^rev(b)` for `b < m / 2`, `w` of order `m`: the twiddle of block `b` on every level.
#[derive(Debug, Clone)]
pub(super) struct Twiddles(Vec<Fr>);

impl Twiddles {
    /// The table of a transform of `size` points with root `root`.
    pub(super) fn new(size: usize, root: Fr) -> Self {
        let mut table = Vec::with_capacity((size / 2).max(1));
        table.push(Fr::one());
        // Doubling: rev(b + 2^j) = rev(b) + m / 2^(j + 2).
        let mut exponent = size / 4;
        while table.len() < size / 2 {
            let factor = root.pow([exponent as u64]);
            let known = table.len();
            table.resize(2 * known, Fr::one());
            let (from, to) = table.split_at_mut(known);
            to.par_iter_mut().zip(&*from).with_min_len(1 << 10).for_each(|(to, from)| *to = *from * factor);
            exponent /= 2;
        }
        Self(table)
    }

    /// The twiddle of block `block`, or its inverse.
    fn get(&self, block: usize, inverse: bool) -> Fr {
        if !inverse || block == 0 {
            return self.0[block];
        }
        // w^-e = -w^(m/2 - e), and m/2 - e keeps the lowest set bit of e and flips the bits above it; in reversed order
        // those are the bits below the highest one.
        let top = 1 << (usize::BITS - 1 - block.leading_zeros());
        -self.0[3 * top - 1 - block]
    }

    /// Natural order in, bit-reversed out: `out[rev(k)] = sum_j in[j] * w^(jk)`, with `w^-1` if `inverse`.
    pub(super) fn split(&self, values: &mut [Fr], inverse: bool) {
        self.split_block(values, 0, inverse);
    }

    /// Bit-reversed order in, natural out: `out[j] = sum_k in[rev(k)] * w^(jk)`, with `w^-1` if `inverse`.
    pub(super) fn merge(&self, values: &mut [Fr], inverse: bool) {
        self.merge_block(values, 0, inverse);
    }

    fn split_block(&self, values: &mut [Fr], block: usize, inverse: bool) {
        if values.len() <= CACHED {
            let mut size = values.len();
            let mut first = block;
            while size > 1 {
                for (index, chunk) in values.chunks_exact_mut(size).enumerate() {
                    let twiddle = self.get(first + index, inverse);
                    let (left, right) = chunk.split_at_mut(size / 2);
                    left.iter_mut().zip(right).for_each(|(x, y)| split2(x, y, twiddle));
                }
                size /= 2;
                first *= 2;
            }
            return;
        }
        let outer = self.get(block, inverse);
        let inner = [self.get(2 * block, inverse), self.get(2 * block + 1, inverse)];
        each_column(values, |a, b, c, d| {
            split2(a, c, outer);
            split2(b, d, outer);
            split2(a, b, inner[0]);
            split2(c, d, inner[1]);
        });
        each_quarter(values, |index, quarter| self.split_block(quarter, 4 * block + index, inverse));
    }

    fn merge_block(&self, values: &mut [Fr], block: usize, inverse: bool) {
        if values.len() <= CACHED {
            let mut size = 2;
            while size <= values.len() {
                let first = block * (values.len() / size);
                for (index, chunk) in values.chunks_exact_mut(size).enumerate() {
                    let twiddle = self.get(first + index, inverse);
                    let (left, right) = chunk.split_at_mut(size / 2);
                    left.iter_mut().zip(right).for_each(|(x, y)| merge2(x, y, twiddle));
                }
                size *= 2;
            }
            return;
        }
        each_quarter(values, |index, quarter| self.merge_block(quarter, 4 * block + index, inverse));
        let outer = self.get(block, inverse);
        let inner = [self.get(2 * block, inverse), self.get(2 * block + 1, inverse)];
        each_column(values, |a, b, c, d| {
            merge2(a, b, inner[0]);
            merge2(c, d, inner[1]);
            merge2(a, c, outer);
            merge2(b, d, outer);
        });
    }
}

/// `(x + t y, x - t y)`.
#[inline(always)]
fn split2(x: &mut Fr, y: &mut Fr, twiddle: Fr) {
    let product = *y * twiddle;
    *y = *x - product;
    *x += product;
}

/// `(x + y, t (x - y))`, the transpose of [`split2`].
#[inline(always)]
fn merge2(x: &mut Fr, y: &mut Fr, twiddle: Fr) {
    let difference = *x - *y;
    *x += *y;
    *y = difference * twiddle;
}

/// Calls `op` with the four elements of every column of a block cut in quarters.
fn each_column(values: &mut [Fr], op: impl Fn(&mut Fr, &mut Fr, &mut Fr, &mut Fr) + Sync) {
    let quarter = values.len() / 4;
    let shared = values.len() >= SHARED;
    let (low, high) = values.split_at_mut(2 * quarter);
    let ((a, b), (c, d)) = (low.split_at_mut(quarter), high.split_at_mut(quarter));
    let run = |a: &mut [Fr], b: &mut [Fr], c: &mut [Fr], d: &mut [Fr]| {
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            op(a, b, c, d);
        }
    };
    if !shared {
        return run(a, b, c, d);
    }
    let pairs = a.par_chunks_mut(COLUMNS).zip(b.par_chunks_mut(COLUMNS));
    pairs
        .zip(c.par_chunks_mut(COLUMNS).zip(d.par_chunks_mut(COLUMNS)))
        .for_each(|((a, b), (c, d))| run(a, b, c, d));
}

/// Calls `op` with every quarter of a block, in parallel if they are large.
fn each_quarter(values: &mut [Fr], op: impl Fn(usize, &mut [Fr]) + Sync) {
    let quarter = values.len() / 4;
    if values.len() >= SHARED {
        values.par_chunks_mut(quarter).enumerate().for_each(|(index, chunk)| op(index, chunk));
    } else {
        values.chunks_mut(quarter).enumerate().for_each(|(index, chunk)| op(index, chunk));
    }
}
