//! Memory that a witness could be learnt from: overwritten when it is given back, on every way out.
//!
//! What is not covered: registers and stack frames, which the compiler copies as it likes, copies that a caller makes, and what NVIDIA's
//! driver copies to itself on the way from the GPU, or to it where there is no pinned memory.

use std::ops::{Deref, DerefMut};

use ark_bn254::Fr;
use ark_ff::AdditiveGroup;
use rayon::prelude::*;

/// Bytes that one task overwrites at least.
const GRAIN: usize = 4 << 20;

/// A vector that is overwritten when it is dropped, all of its capacity: at the end, after an error, and while a panic unwinds.
///
/// Large ones are overwritten by several threads. A vector that grows past its capacity leaves its old memory behind as it was, so
/// make it large enough: [`Secret::with_room`].
pub struct Secret<T: Copy + Send + Sync = Fr> {
    values: Vec<T>,
    blank: T,
}

impl<T: Copy + Send + Sync> Secret<T> {
    /// Takes `values` over; `blank` is written over them in the end.
    pub fn over(values: Vec<T>, blank: T) -> Self {
        Self { values, blank }
    }

    /// `count` times `blank`.
    pub fn filled(blank: T, count: usize) -> Self {
        Self::over(vec![blank; count], blank)
    }

    /// Nothing yet, and room for `count` values.
    pub fn with_room(blank: T, count: usize) -> Self {
        Self::over(Vec::with_capacity(count), blank)
    }

    /// Forgets all values and makes room for `count`. Memory that is too small is wiped and given back, where growing would leave it.
    pub(crate) fn empty_with_room(&mut self, count: usize) {
        self.values.clear();
        if self.values.capacity() < count {
            *self = Self::with_room(self.blank, count);
        }
    }

    /// The values of an iterator that knows their number, worked out by several threads.
    ///
    /// Those that are there already when one of them panics are overwritten too.
    pub fn collect(blank: T, values: impl IndexedParallelIterator<Item = T>) -> Self {
        let mut all = Self::with_room(blank, values.len());
        all.values.par_extend(values);
        all
    }
}

impl From<Vec<Fr>> for Secret<Fr> {
    fn from(values: Vec<Fr>) -> Self {
        Self::over(values, Fr::ZERO)
    }
}

impl<T: Copy + Send + Sync> Deref for Secret<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.values
    }
}

impl<T: Copy + Send + Sync> DerefMut for Secret<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.values
    }
}

/// The values are not shown.
impl<T: Copy + Send + Sync> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} values)", self.values.len())
    }
}

impl<T: Copy + Send + Sync> Drop for Secret<T> {
    fn drop(&mut self) {
        let blank = self.blank;
        // What lies past the length is overwritten too.
        let written = self.values.len();
        self.values.resize(self.values.capacity(), blank);
        let grain = GRAIN / size_of::<T>().max(1);
        if written <= grain {
            self.values[..written].fill(blank);
        } else {
            self.values[..written].par_chunks_mut(grain).for_each(|values| values.fill(blank));
        }
        // The compiler must not take this for writes that nobody reads.
        zeroize::optimization_barrier(self.values.as_slice());
    }
}
