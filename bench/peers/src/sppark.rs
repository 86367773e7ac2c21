//! sppark through `sppark.cpp`. Its elements have ours and arkworks' form: Montgomery, four words.
#![allow(unsafe_code, reason = "calls of C++; every block says why it is sound")]

use ark_bn254::Fr;
use assay_kernels::msm::{G1Point, G2Point, Point};

/// Four words of an element in Montgomery form.
type Words = [u64; 4];
/// `out`: x and y of the sum, zeros for infinity. `points`: x and y each, none at infinity.
type Call = unsafe extern "C" fn(
    out: *mut Words,
    points: *const Words,
    count: usize,
    scalars: *const Words,
    threads: u32,
);

extern "C" {
    fn peers_sppark_g1(
        out: *mut Words,
        points: *const Words,
        count: usize,
        scalars: *const Words,
        threads: u32,
    );
    fn peers_sppark_g2(
        out: *mut Words,
        points: *const Words,
        count: usize,
        scalars: *const Words,
        threads: u32,
    );
}

/// A group that sppark sums in.
pub(crate) trait Group: Point {
    /// Takes points of `2 * Point::WIDTH` elements.
    const CALL: Call;
}

impl Group for G1Point {
    const CALL: Call = peers_sppark_g1;
}

impl Group for G2Point {
    const CALL: Call = peers_sppark_g2;
}

/// The inputs of one sum, as sppark takes them.
pub(crate) struct Sum {
    points: Vec<Words>,
    scalars: Vec<Words>,
}

impl Sum {
    pub(crate) fn new<P: Group>(points: &[P], scalars: &[Fr]) -> Self {
        assert_eq!(points.len(), scalars.len(), "one scalar a point");
        Self {
            points: points.iter().flat_map(parts).collect(),
            scalars: scalars.iter().map(|z| z.0 .0).collect(),
        }
    }

    /// The sum by as many threads as rayon has. `P`: what it was made for.
    pub(crate) fn run<P: Group>(&self) -> P {
        let count = self.scalars.len();
        assert_eq!(self.points.len(), 2 * P::WIDTH * count, "the group that it was made for");
        let mut out = vec![Words::default(); 2 * P::WIDTH];
        let threads = rayon::current_num_threads() as u32;
        // SAFETY: `points` has `count` points of `2 * WIDTH` elements, `scalars` as many elements, and `out` has room for one point.
        unsafe { P::CALL(out.as_mut_ptr(), self.points.as_ptr(), count, self.scalars.as_ptr(), threads) };
        let mut point = P::INFINITY;
        for (part, words) in out.into_iter().enumerate() {
            *point.part_mut(part) = words;
        }
        point
    }
}

fn parts<P: Point>(point: &P) -> impl Iterator<Item = Words> + '_ {
    (0..2 * P::WIDTH).map(|part| *point.part(part))
}
