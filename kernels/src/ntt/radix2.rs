//! The power-of-two transforms: a block has one constant twiddle, eight elements are worked on at once.
//!
//! A pass loads up to `2^LEVELS` vectors of eight elements, takes them through as many levels as it can without touching
//! memory in between, and stores them. There are two kinds of passes: in a *column* pass the eight lanes are neighbours, which
//! are in the same block on every level; in the *base* pass, the one of the smallest blocks, each lane is a block of its own.
//!
//! Values keep arkworks' form throughout and only the twiddles have the architecture's own one: transforms are linear.

use ark_bn254::Fr;
use ark_ff::{AdditiveGroup, Field, One};
use rayon::prelude::*;

use crate::field::{dispatch, Arch, Kernel, LaneField, Lanes, Packed, Twiddle, LANES};
use crate::secret::Secret;

/// Levels of a pass: its vectors take up to 80 KiB. Sums grow by `2p` a level, and products take factors below `32p`.
const LEVELS: u32 = 8;
/// Levels of the smallest transform that has a column pass: eight blocks of eight elements.
const MIN_COLUMNS: u32 = 6;
/// Elements that one task of a base pass handles at least.
const GRAIN: usize = 1 << 12;

/// `w^rev(b)` for `b < m / 2`, `w` of order `m`: the twiddle of block `b` on every level; and then -1. In the form of the
/// architecture that [`dispatch`] picks.
#[derive(Debug, Clone)]
pub(super) struct Twiddles(Vec<Packed>);

/// Which transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Natural order in, bit-reversed out.
    Split,
    /// Bit-reversed order in, natural out.
    Merge,
}

impl Twiddles {
    /// The table of a transform of `size` points with root `root`.
    pub(super) fn new(size: usize, root: Fr) -> Self {
        let half = (size / 2).max(1);
        let mut first = vec![Fr::one()];
        // Doubling: rev(b + 2^j) = rev(b) + m / 2^(j + 2).
        let mut exponent = size / 4;
        while first.len() < half.min(LANES) {
            let factor = root.pow([exponent as u64]);
            for index in 0..first.len() {
                first.push(first[index] * factor);
            }
            exponent /= 2;
        }
        first.resize(LANES, Fr::ZERO);
        let mut table = Vec::with_capacity(half.max(LANES) + 1);
        table.extend(dispatch(Pack(&first)));
        while table.len() < half {
            let factor = root.pow([exponent as u64]);
            let known = table.len();
            table.resize(2 * known, Packed::default());
            let (from, to) = table.split_at_mut(known);
            let chunks = to.par_chunks_mut(GRAIN).zip(from.par_chunks(GRAIN));
            chunks.for_each(|(to, from)| dispatch(Scale { to, from, factor }));
            exponent /= 2;
        }
        table.truncate(half);
        table.push(dispatch(Pack(&[-Fr::one(); LANES]))[0]);
        Self(table)
    }

    /// `out[rev(k)] = sum_j in[j] * w^(jk)`, with `w^-1` if `inverse`.
    pub(super) fn split(&self, values: &mut [Fr], inverse: bool) {
        self.transform(values, Way::Split, inverse);
    }

    /// `out[j] = sum_k in[rev(k)] * w^(jk)`, with `w^-1` if `inverse`.
    pub(super) fn merge(&self, values: &mut [Fr], inverse: bool) {
        self.transform(values, Way::Merge, inverse);
    }

    fn transform(&self, values: &mut [Fr], way: Way, inverse: bool) {
        let plan = Plan { twiddles: self, way, inverse };
        let levels = values.len().trailing_zeros();
        if levels < MIN_COLUMNS {
            return plan.base(values, 0, levels);
        }
        let passes = levels.div_ceil(LEVELS).max(2);
        let levels: Vec<u32> = (0..passes).map(|pass| (levels + pass) / passes).rev().collect();
        plan.block(values, 0, &levels);
    }
}

/// A transform with its direction.
#[derive(Clone, Copy)]
struct Plan<'a> {
    twiddles: &'a Twiddles,
    way: Way,
    inverse: bool,
}

impl Plan<'_> {
    /// Transforms one block by passes of `levels`, at least two.
    fn block(self, values: &mut [Fr], block: usize, levels: &[u32]) {
        let (first, rest) = (levels[0], &levels[1..]);
        if self.way == Way::Split {
            self.columns(values, block, first);
        }
        if let [base] = rest {
            self.base(values, block << first, *base);
        } else {
            let inner = values.par_chunks_mut(values.len() >> first).enumerate();
            inner.for_each(|(index, values)| self.block(values, (block << first) + index, rest));
        }
        if self.way == Way::Merge {
            self.columns(values, block, first);
        }
    }

    /// The upper `levels` levels of one block.
    fn columns(self, values: &mut [Fr], block: usize, levels: u32) {
        let stride = values.len() >> levels;
        let tasks = (values.len() / GRAIN).clamp(1, 4 * rayon::current_num_threads());
        let width = stride.div_ceil(tasks).next_multiple_of(LANES);
        let mut parts: Vec<Vec<&mut [Fr]>> = Vec::new();
        parts.resize_with(stride.div_ceil(width), || Vec::with_capacity(1 << levels));
        for row in values.chunks_exact_mut(stride) {
            row.chunks_mut(width).zip(&mut parts).for_each(|(part, rows)| rows.push(part));
        }
        let plan = self;
        parts.into_par_iter().for_each(|mut rows| dispatch(Columns { plan, rows: &mut rows, block, levels }));
    }

    /// All `levels` levels of consecutive blocks, the first of which is `first`.
    fn base(self, values: &mut [Fr], first: usize, levels: u32) {
        let group = LANES << levels;
        let size = group.max(GRAIN);
        let plan = self;
        values.par_chunks_mut(size).enumerate().for_each(|(chunk, values)| {
            dispatch(Base { plan, values, first: first + chunk * (size >> levels), levels });
        });
    }

    /// Where the twiddle of a block stands. That of an inverse transform stands there with the wrong sign.
    #[inline(always)]
    fn index(self, block: usize) -> usize {
        if !self.inverse {
            return block;
        }
        if block == 0 {
            return self.twiddles.0.len() - 1;
        }
        // w^-e = -w^(m/2 - e), and m/2 - e keeps the lowest set bit of e and flips the bits above it; in reversed order
        // those are the bits below the highest one.
        let top = 1 << (usize::BITS - 1 - block.leading_zeros());
        3 * top - 1 - block
    }

    /// What [`Plan::levels`] leaves, for memory.
    #[inline(always)]
    fn finish<A: Arch>(self, arch: A, lanes: A::Lanes<Fr>) -> [Packed; LANES] {
        match self.way {
            Way::Split => arch.finish_split(lanes),
            Way::Merge => lanes.pack(),
        }
    }

    /// Takes `rows`, a power of two, through all their levels. `twiddle(level, index)` is that of a block of that level.
    #[inline(always)]
    fn levels<'a, A: Arch>(
        self,
        arch: A,
        rows: &mut [A::Lanes<Fr>],
        twiddle: impl Fn(u32, usize) -> Twiddle<'a> + Copy,
    ) {
        let levels = rows.len().trailing_zeros();
        for step in 0..levels {
            let level = if self.way == Way::Split { step } else { levels - 1 - step };
            for (index, block) in rows.chunks_exact_mut(rows.len() >> level).enumerate() {
                let (left, right) = block.split_at_mut(block.len() / 2);
                let twiddle = twiddle(level, index);
                let negated = self.inverse && !matches!(twiddle, Twiddle::One);
                match self.way {
                    Way::Split => arch.split(left, right, twiddle, negated),
                    Way::Merge => arch.merge(left, right, twiddle, negated),
                }
            }
        }
    }
}

/// The upper levels of a block, eight columns at a time. `rows[r]` is the same range of columns of row `r`.
struct Columns<'a, 'b> {
    plan: Plan<'a>,
    rows: &'a mut [&'b mut [Fr]],
    block: usize,
    levels: u32,
}

impl Kernel for Columns<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        let Self { plan, rows, block, levels } = self;
        let mut lanes = Secret::filled(arch.zero::<Fr>(), 1 << levels);
        for column in (0..rows[0].len()).step_by(LANES) {
            for (lanes, row) in lanes.iter_mut().zip(rows.iter()) {
                *lanes = load(arch, eight(&row[column..]).each_ref());
            }
            plan.levels(arch, &mut lanes, |level, index| match (block << level) + index {
                0 => Twiddle::One,
                block => Twiddle::Same(&plan.twiddles.0[plan.index(block)]),
            });
            for (lanes, row) in lanes.iter().zip(rows.iter_mut()) {
                let finished = plan.finish(arch, *lanes);
                row[column..][..LANES]
                    .copy_from_slice(&finished.map(|words| Fr::from_montgomery_words(words.0)));
            }
        }
    }
}

/// All levels of consecutive blocks, eight blocks at a time.
struct Base<'a> {
    plan: Plan<'a>,
    values: &'a mut [Fr],
    first: usize,
    levels: u32,
}

impl Kernel for Base<'_> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        let Self { plan, values, first, levels } = self;
        let size = 1 << levels;
        let mut lanes = Secret::filled(arch.zero::<Fr>(), size);
        for (group, values) in values.chunks_mut(LANES * size).enumerate() {
            let first = first + group * LANES;
            // A transform of fewer than eight blocks is one of a single block: the other lanes do the same.
            let blocks = values.len() / size;
            let of = |lane: usize| lane.min(blocks - 1);
            for (at, lanes) in lanes.iter_mut().enumerate() {
                *lanes = load(arch, std::array::from_fn(|lane| &values[of(lane) * size + at]));
            }
            plan.levels(arch, &mut lanes, |level, index| {
                let block = |lane| plan.index(((first + of(lane)) << level) + index);
                Twiddle::Each(std::array::from_fn(|lane| &plan.twiddles.0[block(lane)]))
            });
            for (at, lanes) in lanes.iter().enumerate() {
                let finished = plan.finish(arch, *lanes);
                for (lane, words) in finished.iter().enumerate().take(blocks) {
                    values[lane * size + at] = Fr::from_montgomery_words(words.0);
                }
            }
        }
    }
}

/// Eight elements as they lie.
#[inline(always)]
fn load<A: Arch>(arch: A, elements: [&Fr; LANES]) -> A::Lanes<Fr> {
    arch.unpack_words(elements.map(|element| element.montgomery_words()))
}

#[inline(always)]
fn eight(values: &[Fr]) -> &[Fr; LANES] {
    values.first_chunk().expect("rows are whole vectors")
}

/// Eight elements in the architecture's form.
struct Pack<'a>(&'a [Fr]);

impl Kernel for Pack<'_> {
    type Output = [Packed; LANES];

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) -> [Packed; LANES] {
        arch.load(eight(self.0)).pack()
    }
}

/// Multiplies values by `factor` times their weights.
pub(super) fn scale(values: &mut [Fr], weights: &[Fr], factor: Fr) {
    dispatch(Weigh { values, weights, factor });
}

struct Weigh<'a> {
    values: &'a mut [Fr],
    weights: &'a [Fr],
    factor: Fr,
}

impl Kernel for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        let Self { values, weights, factor } = self;
        let whole = values.len() / LANES * LANES;
        let (groups, rest) = values.split_at_mut(whole);
        let factors = arch.splat(factor);
        for (values, weights) in groups.chunks_exact_mut(LANES).zip(weights.chunks_exact(LANES)) {
            let weights = arch.load(eight(weights)).mul(factors);
            let finished = load(arch, eight(values).each_ref()).mul(weights).pack();
            values.copy_from_slice(&finished.map(|words| Fr::from_montgomery_words(words.0)));
        }
        for (value, weight) in rest.iter_mut().zip(&weights[whole..]) {
            *value *= factor * weight;
        }
    }
}

/// `to = factor * from`, whole vectors.
struct Scale<'a> {
    to: &'a mut [Packed],
    from: &'a [Packed],
    factor: Fr,
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        let factor = arch.splat(self.factor);
        for (to, from) in self.to.chunks_exact_mut(LANES).zip(self.from.chunks_exact(LANES)) {
            let from = arch.unpack::<Fr>(from.first_chunk().expect("a whole vector"));
            to.copy_from_slice(&from.mul(factor).pack());
        }
    }
}
