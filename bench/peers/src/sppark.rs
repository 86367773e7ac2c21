//! sppark through `sppark.cpp`. Its elements have arkworks' form: Montgomery, four words.
#![allow(unsafe_code, reason = "calls of C++; every block says why it is sound")]

use ark_bn254::{Fq, Fr, G1Affine, G1Projective};
use ark_ec::AffineRepr;
use ark_ff::BigInt;

/// Four words of an element in Montgomery form.
type Words = [u64; 4];

extern "C" {
    /// `out`: X, Y, Z of a Jacobian point. `points`: x and y each, none at infinity.
    fn peers_sppark_sum(out: *mut [Words; 3], points: *const [Words; 2], count: usize, scalars: *const Words);
}

/// Points as sppark takes them.
pub(crate) struct Points(Vec<[Words; 2]>);

impl Points {
    pub(crate) fn new(points: &[G1Affine]) -> Self {
        Self(points.iter().filter_map(|point| point.xy()).map(|(x, y)| [x.0 .0, y.0 .0]).collect())
    }

    /// The sum by all threads of the CPU.
    pub(crate) fn sum(&self, scalars: &[Fr]) -> G1Projective {
        assert_eq!(self.0.len(), scalars.len(), "one scalar a point");
        let scalars: Vec<Words> = scalars.iter().map(|scalar| scalar.0 .0).collect();
        let mut out = [Words::default(); 3];
        // SAFETY: `points` and `scalars` have `count` elements of the layout that the function takes, and `out` is its own.
        unsafe { peers_sppark_sum(&mut out, self.0.as_ptr(), self.0.len(), scalars.as_ptr()) };
        jacobian(out)
    }
}

fn jacobian(words: [Words; 3]) -> G1Projective {
    let [x, y, z] = words.map(|words| Fq::new_unchecked(BigInt::new(words)));
    G1Projective::new_unchecked(x, y, z)
}
