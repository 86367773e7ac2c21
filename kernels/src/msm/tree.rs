//! Sums of the buckets of a slice of entries by trees: level by level, neighbours within a bucket are added where they lie.

use super::coordinate::Coordinate;
use super::pairs::{add_all, Operands, Pairs, BATCH};
use super::Point;
use crate::field::{Arch, LANES};
use crate::secret::Secret;
use std::sync::{Mutex, PoisonError};

/// Groups of eight pairs between the one that is read and the one whose points are asked for.
const AHEAD: usize = 3;
/// Single points between the one that is copied and the one that is asked for.
const AHEAD_SINGLE: usize = 16;

/// A thread's scratch for trees of additions.
pub(crate) struct Tree<P: Point> {
    current: Level<P>,
    next: Level<P>,
    scratch: Scratch<P>,
}

/// Scratch of a sum that nobody uses now: made and wiped once for each thread, not for each task.
pub(crate) struct Trees<P: Point>(Mutex<Vec<Tree<P>>>);

impl<P: Point> Default for Trees<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P: Point> Trees<P> {
    /// Calls `work` with scratch that no other thread has.
    pub(crate) fn lend<T>(&self, work: impl FnOnce(&mut Tree<P>) -> T) -> T {
        let trees = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tree = trees().pop().unwrap_or_else(Tree::new);
        let done = work(&mut tree);
        trees().push(tree);
        done
    }
}

/// What is left to be added.
struct Level<P: Point> {
    /// `2 * index + (1 to negate)`, bucket after bucket.
    entries: Secret<u32>,
    /// What the indices mean.
    points: Secret<P>,
}

struct Scratch<P: Point> {
    pairs: Secret<[u32; 2]>,
    singles: Secret<u32>,
    /// For pairs that the formulas do not cover.
    slow: Pairs<P>,
}

impl<P: Point> Tree<P> {
    /// Empty scratch.
    pub(crate) fn new() -> Self {
        let level = || Level { entries: Secret::with_room(0, 0), points: Secret::with_room(P::INFINITY, 0) };
        let scratch = Scratch {
            pairs: Secret::with_room([0; 2], 0),
            singles: Secret::with_room(0, 0),
            slow: Pairs::new(false),
        };
        Self { current: level(), next: level(), scratch }
    }

    /// The sums of buckets, infinity for an empty one. Bucket `b` has the next `lengths[b]` of the entries, which are
    /// `2 * index + sign` for `points`, none of them infinity. The lengths are used up.
    pub(crate) fn sums(&mut self, points: &[P], entries: &[u32], lengths: &mut [usize]) -> Secret<P> {
        let Self { current, next, scratch } = self;
        let mut sums = Secret::filled(P::INFINITY, lengths.len());
        scratch.slow.forget_infinities();
        next.fill(points, entries, lengths, &mut sums, scratch);
        while !next.entries.is_empty() {
            std::mem::swap(current, next);
            next.fill(&current.points, &current.entries, lengths, &mut sums, scratch);
        }
        sums
    }
}

impl<P: Point> Level<P> {
    /// Adds neighbours within each bucket. An odd one out is kept, and a last one goes to `sums`.
    fn fill(
        &mut self,
        points: &[P],
        entries: &[u32],
        lengths: &mut [usize],
        sums: &mut [P],
        scratch: &mut Scratch<P>,
    ) {
        let Scratch { pairs, singles, slow } = scratch;
        let count: usize = lengths.iter().map(|length| length / 2).sum();
        let padded = count.next_multiple_of(LANES);
        let odd = lengths.iter().filter(|length| **length % 2 == 1).count();
        pairs.empty_with_room(padded);
        singles.empty_with_room(odd);
        self.entries.empty_with_room(count + odd);
        let mut rest = entries;
        for (length, sum) in lengths.iter_mut().zip(sums) {
            let (bucket, others) = rest.split_at(*length);
            rest = others;
            if let [last] = bucket {
                *sum = signed(points, *last);
                *length = 0;
                continue;
            }
            let (neighbours, odd) = bucket.as_chunks::<2>();
            let from = pairs.len() as u32;
            self.entries.extend((from..from + neighbours.len() as u32).map(|index| 2 * index));
            pairs.extend_from_slice(neighbours);
            if let [odd] = odd {
                self.entries.push(2 * (padded + singles.len()) as u32);
                singles.push(*odd);
            }
            *length = length.div_ceil(2);
        }
        // What was there is overwritten.
        if self.points.len() < padded + singles.len() {
            self.points = Secret::filled(P::INFINITY, padded + singles.len());
        }
        for (at, entry) in singles.iter().enumerate() {
            if let Some(soon) = singles.get(at + AHEAD_SINGLE) {
                prefetch(&points[index(*soon)]);
            }
            self.points[padded + at] = signed(points, *entry);
        }
        // The last vector is filled up with a pair that can be added.
        if let Some(last) = pairs.last().copied() {
            pairs.resize(padded, last);
        }
        for (pairs, sums) in pairs.chunks(BATCH).zip(self.points.chunks_mut(BATCH)) {
            add(points, pairs, &mut sums[..pairs.len()], slow);
        }
    }
}

/// Adds whole groups of pairs, at most [`BATCH`].
fn add<P: Point>(points: &[P], pairs: &[[u32; 2]], sums: &mut [P], slow: &mut Pairs<P>) {
    if !slow.infinities() {
        let (groups, targets) = (pairs.as_chunks().0, sums.as_chunks_mut().0);
        if add_all(Named { points, pairs: groups, sums: targets }) {
            return;
        }
    }
    for (at, [left, right]) in pairs.iter().enumerate() {
        slow.push(signed(points, *left), signed(points, *right), at as u32);
    }
    slow.flush(|target, sum| sums[target as usize] = sum);
}

#[inline(always)]
fn index(entry: u32) -> usize {
    (entry / 2) as usize
}

#[inline(always)]
fn signed<P: Point>(points: &[P], entry: u32) -> P {
    points[index(entry)].negated_if(entry % 2 == 1)
}

/// Pairs of entries.
struct Named<'a, P: Point> {
    points: &'a [P],
    pairs: &'a [[[u32; 2]; LANES]],
    sums: &'a mut [[P; LANES]],
}

impl<P: Point> Named<'_, P> {
    #[inline(always)]
    fn side<A: Arch>(
        &self,
        arch: A,
        group: usize,
        at: usize,
        side: usize,
    ) -> <P::Coordinate as Coordinate>::Lanes<A> {
        let entries = self.pairs[group].map(|pair| pair[side]);
        let loaded = P::Coordinate::load(arch, entries.map(|entry| &self.points[index(entry)]), at);
        let negative = |mask, lane: usize| mask | ((entries[lane] % 2) as u8) << lane;
        match (0..LANES).fold(0, negative) {
            mask if at == 1 && mask != 0 => P::Coordinate::negate_where::<A>(mask, loaded),
            _ => loaded,
        }
    }
}

impl<P: Point> Operands<P> for Named<'_, P> {
    #[inline(always)]
    fn groups(&self) -> usize {
        self.pairs.len()
    }

    #[inline(always)]
    fn load<A: Arch>(
        &self,
        arch: A,
        group: usize,
        at: usize,
    ) -> [<P::Coordinate as Coordinate>::Lanes<A>; 2] {
        [self.side(arch, group, at, 0), self.side(arch, group, at, 1)]
    }

    #[inline(always)]
    fn sums(&mut self, group: usize) -> &mut [P; LANES] {
        &mut self.sums[group]
    }

    #[inline(always)]
    fn next(&self, group: usize, forwards: bool) {
        let soon = if forwards { group + AHEAD } else { group.wrapping_sub(AHEAD) };
        if let Some(pairs) = self.pairs.get(soon) {
            pairs.iter().flatten().for_each(|entry| prefetch(&self.points[index(*entry)]));
        }
    }
}

/// Asks for a value that is needed soon and lies in whole cache lines.
#[inline(always)]
#[allow(unsafe_code, reason = "a hint to the cache, for memory that a reference vouches for")]
fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        let from = std::ptr::from_ref(value).cast::<i8>();
        for at in (0..size_of::<T>()).step_by(64) {
            // SAFETY: within `value`; every x86-64 has the instruction.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.add(at)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
